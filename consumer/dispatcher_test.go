package consumer

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"learnsink/handlers"
)

// jobWorld is everything that sending the rows of jobs has effects on, in
// memory: the database's tables, the replay topic and its transactions. It
// outlives the processes that work in it, and asserts by itself what must hold
// at any moment.
type jobWorld struct {
	t  testing.TB
	mu sync.Mutex
	jobTables
	leader *fakeLead // who has the lock
	reason string

	cluster    string
	partitions int // of the replay topic; 0: there is none
	limit      int // its max.message.bytes
	session    int // of the transactional id: the last to begin has it
	marker     Marker
	topic      map[int][]string       // what a read_committed reader sees, by partition
	times      map[string][]time.Time // when, by job
	goneBack   bool                   // the database has: rows may come twice
	large      bool                   // it is checked in the end alone
}

// jobTables is what the database holds of jobs.
type jobTables struct {
	jobs    []*fakeJob
	count   handlers.Dispatcher
	claimed string // the cluster
	outbox  []handlers.OutboxEntry
}

type fakeJob struct {
	rate  int
	state string
	items []string // the state of each
	value []byte
}

func (j *fakeJob) sent() int {
	n := slices.IndexFunc(j.items, func(s string) bool { return s == "pending" })
	if n < 0 {
		return len(j.items)
	}
	return n
}

func (t *jobTables) clone() jobTables {
	c := *t
	c.jobs, c.outbox = nil, slices.Clone(t.outbox)
	for _, j := range t.jobs {
		one := *j
		one.items = slices.Clone(j.items)
		c.jobs = append(c.jobs, &one)
	}
	return c
}

func newJobWorld(t testing.TB) *jobWorld {
	return &jobWorld{t: t, jobTables: jobTables{count: handlers.Dispatcher{Round: 1}}, cluster: "here", partitions: 3, limit: 1 << 20,
		topic: map[int][]string{}, times: map[string][]time.Time{}}
}

// create adds a running job of so many rows.
func (w *jobWorld) create(rows, rate int) *fakeJob {
	w.mu.Lock()
	defer w.mu.Unlock()
	j := &fakeJob{rate: rate, state: "running", value: []byte("{}")}
	for range rows {
		j.items = append(j.items, "pending")
	}
	w.jobs = append(w.jobs, j)
	return j
}

func (w *jobWorld) turn(job int, state string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	j := w.jobs[job]
	j.state = state
	if state == "cancelled" {
		for i := j.sent(); i < len(j.items); i++ {
			j.items[i] = "dropped"
		}
	}
}

// jobProcess is one process that works in the world. Once it is dead nothing
// that it does has an effect.
type jobProcess struct {
	*jobWorld
	hook    func(step string) (done bool, err error)
	dead    bool // guarded by the world's mutex
	session int
	round   int
}

// effect runs f under the world's lock, as the hook wants it.
func (p *jobProcess) effect(ctx context.Context, step string, f func() error) error {
	done, fault := true, error(nil)
	if p.hook != nil {
		done, fault = p.hook(step)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.dead {
		return errDead
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if done {
		if err := f(); err != nil {
			return err
		}
	}
	if !p.large && (step == "dispatch" || step == "publish" || step == "published") {
		p.check()
	}
	return fault
}

// die ends the process; its connection, and with it the lock, the server
// notices to be gone after a while.
func (p *jobProcess) die() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dead = true
	mine := p.leader
	if mine != nil && mine.jobProcess == p {
		time.AfterFunc(time.Second, func() { p.lose(mine) })
	}
}

// lose takes the lock from a lead: its connection is cut.
func (w *jobWorld) lose(l *fakeLead) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.leader == l {
		w.leader = nil
	}
}

type fakeLead struct{ *jobProcess }

func (p *jobProcess) LeadDispatcher(ctx context.Context, _ string) (lead Lead, led bool, err error) {
	err = p.effect(ctx, "lead", func() error {
		if p.leader == nil {
			l := &fakeLead{p}
			p.leader, lead, led = l, l, true
		}
		return nil
	})
	if err != nil && led { // as if the reply were lost: the connection is closed
		p.lose(lead.(*fakeLead))
		led = false
	}
	return lead, led, err
}

// own is an effect by way of the connection that has the lock.
func (l *fakeLead) own(ctx context.Context, step string, f func() error) error {
	return l.effect(ctx, step, func() error {
		if l.leader != l {
			return handlers.ErrNotLeading
		}
		return f()
	})
}

func (l *fakeLead) Close() { l.lose(l) }

func (l *fakeLead) Work(ctx context.Context) (jobs []handlers.RunningJob, pending bool, err error) {
	err = l.own(ctx, "work", func() error {
		for i, j := range l.jobs {
			if j.state == "running" {
				jobs = append(jobs, handlers.RunningJob{ID: int64(i + 1), Rate: j.rate, Left: int64(len(j.items) - j.sent())})
			}
		}
		pending = len(l.outbox) > 0
		return nil
	})
	return jobs, pending, err
}

func (l *fakeLead) Claim(ctx context.Context, cluster string) (d handlers.Dispatcher, err error) {
	err = l.own(ctx, "claim", func() error {
		if l.claimed != "" && l.claimed != cluster {
			return handlers.ErrClusterChanged
		}
		l.claimed = cluster
		l.count.Epoch = max(l.count.Epoch+1, time.Now().UnixMicro())
		d = l.count
		return nil
	})
	return d, err
}

func (l *fakeLead) Explain(ctx context.Context, reason string) error {
	return l.own(ctx, "explain", func() error { l.reason = reason; return nil })
}

func (l *fakeLead) Pending(ctx context.Context) (entries []handlers.OutboxEntry, err error) {
	err = l.effect(ctx, "pending", func() error { entries = slices.Clone(l.outbox); return nil })
	return entries, err
}

func (l *fakeLead) Jump(ctx context.Context, epoch, to int64) error {
	return l.effect(ctx, "jump", func() error {
		if epoch != l.count.Epoch {
			return handlers.ErrFenced
		}
		l.count.Next = max(l.count.Next, to)
		return nil
	})
}

func (l *fakeLead) Published(ctx context.Context, epoch, through int64) error {
	return l.effect(ctx, "published", func() error {
		if epoch != l.count.Epoch {
			return handlers.ErrFenced
		}
		l.drop(through)
		return nil
	})
}

func (t *jobTables) drop(through int64) {
	t.outbox = slices.DeleteFunc(t.outbox, func(e handlers.OutboxEntry) bool { return e.To <= through })
}

// Dispatch does what the one transaction does, or nothing of it.
func (l *fakeLead) Dispatch(ctx context.Context, d *handlers.Dispatch) error {
	d.To, d.Payload, d.Moved = d.From, nil, nil
	return l.effect(ctx, "dispatch", func() error {
		switch {
		case d.Epoch != l.count.Epoch:
			return handlers.ErrFenced
		case d.From != l.count.Next:
			return handlers.ErrMoved
		}
		after := l.jobTables.clone()
		var rows []handlers.JobRow
		var of []*string
		for _, share := range d.Shares {
			j := after.jobs[share.Job-1]
			if j.state != "running" {
				continue
			}
			from := j.sent()
			for seq := from; seq < min(len(j.items), from+int(share.Rows)); seq++ {
				row := handlers.JobRow{Value: j.value, Replay: handlers.Replay{Of: "x", Job: share.Job, Item: int64(seq + 1), SourceTopic: "rows",
					Origin: handlers.Some(handlers.Origin{Partition: seq % 5})}}
				if seq%4 > 0 {
					row.Key = fmt.Append(nil, seq%7)
				}
				rows, of = append(rows, row), append(of, &j.items[seq])
			}
			m := handlers.JobMoved{Job: share.Job, Sent: min(share.Rows, int64(len(j.items)-from))}
			if m.Done = from+int(share.Rows) >= len(j.items); m.Done {
				j.state = "done"
			}
			d.Moved = append(d.Moved, m)
		}
		if len(rows) > 0 {
			payload, err := d.Encode(rows)
			if err != nil {
				return err
			}
			for i := range rows {
				*of[i] = "sent"
				if rows[i].Unfit {
					*of[i] = "dropped"
				}
			}
			d.To, d.Payload = d.From+int64(len(rows)), payload
			if len(payload) > 0 {
				after.outbox = append(after.outbox, handlers.OutboxEntry{From: d.From, To: d.To, Payload: payload, At: time.Now()})
			}
		}
		after.drop(d.Published)
		after.count.Next = d.To
		l.jobTables = after
		return nil
	})
}

// The publisher, in transactions.

func (p *jobProcess) Begin(ctx context.Context, round int) (m Marker, err error) {
	err = p.effect(ctx, "begin", func() error {
		p.jobWorld.session++
		p.session, p.round, m = p.jobWorld.session, max(round, p.marker.Round), p.marker
		return nil
	})
	return m, err
}

func (p *jobProcess) Find(ctx context.Context, entries []handlers.OutboxEntry) (through int64, err error) {
	err = p.effect(ctx, "find", func() error {
		for _, e := range entries {
			for _, o := range p.outputs(e) {
				if !slices.Contains(p.topic[p.lane(o)], outputID(o.forms[0].Headers)) {
					return nil
				}
			}
			through = e.To
		}
		return nil
	})
	return through, err
}

func (w *jobWorld) outputs(e handlers.OutboxEntry) []output {
	outputs, err := decodePayload(e.Payload, &decompressor{})
	if err != nil {
		w.t.Error(err)
	}
	return outputs
}

func (w *jobWorld) lane(o output) int {
	t := outputTopic{partitions: w.partitions, choose: partitioner(w.partitions)}
	return t.partition(o.sourcePartition, o.forms[0].Key)
}

var errFencedOff = errors.New("the transactional id is somebody else's by now")

func (p *jobProcess) Publish(ctx context.Context, entries []handlers.OutboxEntry) error {
	return p.effect(ctx, "publish", func() error {
		if p.session != p.jobWorld.session {
			return errFencedOff
		}
		for _, e := range entries {
			for _, o := range p.outputs(e) {
				id := outputID(o.forms[0].Headers)
				job, _, _ := strings.Cut(id, "/")
				p.topic[p.lane(o)] = append(p.topic[p.lane(o)], id)
				p.times[job] = append(p.times[job], time.Now())
			}
		}
		p.marker = Marker{Known: true, Through: entries[len(entries)-1].To, Round: p.round}
		return nil
	})
}

// The topic and the cluster.

func (p *jobProcess) ClusterID(ctx context.Context) (id string, err error) {
	err = p.effect(ctx, "cluster", func() error { id = p.cluster; return nil })
	return id, err
}

// jobTopic is the replay topic, as a process asks after it.
type jobTopic struct {
	cluster // all else is not asked for
	*jobProcess
}

func (t jobTopic) partitionCount(ctx context.Context, topic string) (n int, err error) {
	err = t.effect(ctx, "topic", func() error {
		if n = t.partitions; n == 0 {
			return fmt.Errorf("%w: %s", ErrNoTopic, topic)
		}
		return nil
	})
	return n, err
}

func (t jobTopic) maxMessageBytes(context.Context, string) (int, error) { return t.limit, nil }

func (p *jobProcess) dispatcher() *Dispatcher {
	topics := &outputTopics{cluster: jobTopic{jobProcess: p}}
	return &Dispatcher{
		topic: "replay", store: p, cluster: p, topics: topics, publisher: p,
		packer:  &packer{codec: mustCompressor(p.t, ""), topics: topics},
		limits:  dispatchLimits{rows: 40, bytes: 1 << 20, tick: 200 * time.Millisecond, idle: 500 * time.Millisecond, standby: 2 * time.Second, grace: 8 * time.Second},
		paces:   paces{},
		metrics: NewMetrics(nil), logger: zerolog.Nop(),
	}
}

// start runs a process's dispatcher until stop is called, which waits for it.
func (p *jobProcess) start(t *testing.T) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		if err := p.dispatcher().Run(ctx); err != nil {
			t.Error(err)
		}
		close(done)
	}()
	return func() {
		cancel()
		<-done
	}
}

// check holds after every effect on rows: no row is on the topic twice, what is sent is
// on the topic or pending, what is on the topic is sent, and rows of a job are
// in order within each partition.
func (w *jobWorld) check() {
	on := map[string]int{}
	for partition, ids := range w.topic {
		last := map[string]int64{}
		for _, id := range ids {
			on[id]++
			var job, seq int64
			fmt.Sscanf(id, "%d/%d", &job, &seq)
			if !w.goneBack && seq <= last[fmt.Sprint(job)] {
				w.t.Errorf("partition %d: %s comes after row %d", partition, id, last[fmt.Sprint(job)])
			}
			last[fmt.Sprint(job)] = seq
		}
	}
	pending := map[string]bool{}
	for _, e := range w.outbox {
		if w.marker.Known && e.To <= w.marker.Through {
			continue
		}
		for _, o := range w.outputs(e) {
			pending[outputID(o.forms[0].Headers)] = true
		}
	}
	for j, job := range w.jobs {
		for i, state := range job.items {
			id := fmt.Sprintf("%d/%d", j+1, i+1)
			if on[id] > 1 && !w.goneBack {
				w.t.Errorf("%s is on the topic %d times", id, on[id])
			}
			if state == "sent" && on[id] == 0 && !pending[id] {
				w.t.Errorf("%s is sent, and neither on the topic nor pending", id)
			}
			if state != "sent" && on[id] > 0 && !w.goneBack {
				w.t.Errorf("%s is on the topic, and %s", id, state)
			}
		}
	}
}

// checkSent holds once everything is done: all is on the topic, once.
func (w *jobWorld) checkSent() {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.check()
	rows := 0
	for i, j := range w.jobs {
		for _, state := range j.items {
			if state == "pending" {
				w.t.Fatalf("job %d is %s, and has sent %d of %d rows; why: %s", i+1, j.state, j.sent(), len(j.items), w.reason)
			}
			if state == "sent" {
				rows++
			}
		}
	}
	if len(w.outbox) != 0 {
		w.t.Errorf("the outbox holds %d entries", len(w.outbox))
	}
	if n := w.onTopic(); n != rows && !w.goneBack {
		w.t.Errorf("%d rows on the topic, %d are sent", n, rows)
	}
}

func (w *jobWorld) onTopic() (n int) {
	for ids := range maps.Values(w.topic) {
		n += len(ids)
	}
	return n
}

// jobSteps are the effects of a dispatcher, and what it asks.
var jobSteps = []string{"lead", "work", "topic", "cluster", "claim", "pending", "begin", "find", "publish", "published", "explain", "dispatch"}

// jobStory has two jobs, and a third one later.
func jobStory(w *jobWorld) (rest func()) {
	w.create(100, 100)
	w.create(250, 500)
	return func() {
		time.Sleep(3 * time.Second)
		w.create(30, 500)
		time.Sleep(20 * time.Second)
	}
}

// TestEveryStepOfAJobFailsTwice: not done, and done but not answered.
func TestEveryStepOfAJobFailsTwice(t *testing.T) {
	for _, step := range jobSteps {
		for _, first := range []int{0, 1, 3, 8} {
			for name, done := range map[string]bool{"not done": false, "done": true} {
				t.Run(fmt.Sprintf("%s %d %s", step, first, name), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						w := newJobWorld(t)
						rest := jobStory(w)
						stop := (&jobProcess{jobWorld: w, hook: nth(step, first, 2, func() (bool, error) { return done, errFault })}).start(t)
						rest()
						stop()
						w.checkSent()
					})
				})
			}
		}
	}
}

// TestACrashAtAnyStepOfAJob: the process dies before or after an effect, and
// another, that stood by, takes over.
func TestACrashAtAnyStepOfAJob(t *testing.T) {
	for _, step := range jobSteps {
		for _, first := range []int{0, 1, 2, 5} {
			for name, done := range map[string]bool{"before": false, "after": true} {
				t.Run(fmt.Sprintf("%s %s %d", name, step, first), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						w := newJobWorld(t)
						rest := jobStory(w)
						p := &jobProcess{jobWorld: w}
						p.hook = nth(step, first, 1, func() (bool, error) {
							if !done {
								p.die()
							} else {
								go p.die() // runs before anything else can: the next effect takes the lock
							}
							return done, errDead
						})
						stop := p.start(t)
						time.Sleep(time.Second)
						stopNext := (&jobProcess{jobWorld: w}).start(t)
						rest()
						p.die()
						stop()
						time.Sleep(20 * time.Second)
						stopNext()
						w.checkSent()
					})
				})
			}
		}
	}
}

// TestAZombieSendsNothing: amid any step a process loses its connection and
// sleeps; another takes over; it wakes up, and both go on.
func TestAZombieSendsNothing(t *testing.T) {
	for _, step := range jobSteps {
		for _, first := range []int{0, 1, 2, 5} {
			t.Run(fmt.Sprint(step, " ", first), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newJobWorld(t)
					rest := jobStory(w)
					zombie := &jobProcess{jobWorld: w}
					zombie.hook = nth(step, first, 1, func() (bool, error) {
						w.mu.Lock()
						w.leader = nil
						w.mu.Unlock()
						time.Sleep(1500 * time.Millisecond)
						return true, nil
					})
					stop := zombie.start(t)
					stopNext := (&jobProcess{jobWorld: w}).start(t)
					rest()
					stop()
					time.Sleep(20 * time.Second)
					stopNext()
					w.checkSent()
				})
			})
		}
	}
}

// TestADispatcherFinishesWhatHasBegun when its process is to end: nothing is
// left pending.
func TestADispatcherFinishesWhatHasBegun(t *testing.T) {
	for _, step := range []string{"dispatch", "publish"} {
		synctest.Test(t, func(t *testing.T) {
			w := newJobWorld(t)
			w.create(300, 500)
			reached := make(chan struct{})
			p := &jobProcess{jobWorld: w, hook: nth(step, 1, 1, func() (bool, error) {
				close(reached)
				time.Sleep(3 * time.Second)
				return true, nil
			})}
			stop := p.start(t)
			<-reached
			stop()
			w.mu.Lock()
			defer w.mu.Unlock()
			if sent := w.jobs[0].sent(); len(w.outbox) != 0 || w.onTopic() != sent || sent == 0 || sent == 300 || w.leader != nil {
				t.Errorf("%s: %d entries pending, %d rows on the topic, %d are sent, led by %v", step, len(w.outbox), w.onTopic(), sent, w.leader)
			}
		})
	}
}

// TestAJobKeepsItsRate over a minute, whatever else runs beside it, and however
// long it was kept waiting.
func TestAJobKeepsItsRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newJobWorld(t)
		w.large = true
		for _, rate := range []int{1, 7, 100, 500} {
			w.create(rate*200, rate)
		}
		p := &jobProcess{jobWorld: w}
		calls := 0
		p.hook = func(step string) (bool, error) {
			if step == "publish" {
				if calls++; calls == 100 { // the broker is slow for once
					time.Sleep(30 * time.Second)
				}
			}
			return true, nil
		}
		began := time.Now()
		stop := p.start(t)
		time.Sleep(90 * time.Second)
		stop()
		for i, job := range w.jobs {
			times := w.times[fmt.Sprint(i+1)]
			for from, at := range times { // in no window more than the rate, and one second's worth that was late
				to, _ := slices.BinarySearchFunc(times, at.Add(10*time.Second), time.Time.Compare)
				if n := to - from; n > job.rate*11+1 {
					t.Fatalf("%d rows in ten seconds from %s on, at a rate of %d", n, at.Sub(began), job.rate)
				}
			}
			if n, want := len(times), job.rate*60; n < want*95/100 {
				t.Errorf("%d rows in 60 seconds, at a rate of %d", n, job.rate)
			}
		}
	})
	t.Run("a step is shared out", func(t *testing.T) {
		now := time.Now()
		p := paces{1: {due: 1000, at: now, rate: 1000}, 2: {due: 5, at: now, rate: 1000}, 3: {due: 1000, at: now, rate: 1000}, 9: {}}
		jobs := []handlers.RunningJob{{ID: 1, Rate: 1000, Left: 1000}, {ID: 2, Rate: 1000, Left: 1000}, {ID: 3, Rate: 1000, Left: 1000}, {ID: 4, Rate: 1000, Left: 3}}
		shares := p.shares(now, jobs, dispatchLimits{rows: 100, tick: 200 * time.Millisecond})
		if got := fmt.Sprint(shares); got != "[{1 46} {2 5} {3 46} {4 3}]" {
			t.Errorf("%s", got)
		}
		if p[9] != nil {
			t.Error("a job that runs no longer is remembered")
		}
	})
}

// TestAJobIsPausedAndCancelled amid.
func TestAJobIsPausedAndCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newJobWorld(t)
		w.create(1000, 100)
		w.create(1000, 100)
		paused, cancelled := 0, 1
		sentOf := func(job int) int {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.jobs[job].sent()
		}
		stop := (&jobProcess{jobWorld: w}).start(t)
		time.Sleep(4100 * time.Millisecond)
		w.turn(paused, "paused")
		w.turn(cancelled, "cancelled")
		time.Sleep(time.Second)
		sent := sentOf(paused)
		if sent < 200 || sent > 500 {
			t.Errorf("%d rows are sent", sent)
		}
		time.Sleep(time.Hour)
		if sentOf(paused) != sent {
			t.Errorf("%d rows are sent, after a pause at %d", sentOf(paused), sent)
		}
		w.turn(paused, "running")
		time.Sleep(2 * time.Second)
		if n := sentOf(paused) - sent; n > 300 { // the pause is not made up for
			t.Errorf("%d rows in two seconds", n)
		}
		time.Sleep(time.Minute)
		stop()
		w.checkSent()
		if n := len(w.times["2"]); n < 200 || n > 500 {
			t.Errorf("%d rows of the cancelled job", n)
		}
	})
}

// TestAHundredThousandRows go as fast as they may.
func TestAHundredThousandRows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newJobWorld(t)
		w.large = true
		w.create(100_000, 1_000_000)
		calls := 0
		p := &jobProcess{jobWorld: w, hook: func(step string) (bool, error) {
			if step == "dispatch" {
				calls++
			}
			return true, nil
		}}
		ctx, cancel := context.WithCancel(t.Context())
		d := p.dispatcher()
		d.limits.rows = 20_000
		done := make(chan struct{})
		go func() { _ = d.Run(ctx); close(done) }()
		time.Sleep(10 * time.Second)
		cancel()
		<-done
		w.checkSent()
		if calls > 10 {
			t.Errorf("%d steps", calls)
		}
	})
}

// TestWithoutAReplayTopicJobsWait, and say so.
func TestWithoutAReplayTopicJobsWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newJobWorld(t)
		w.partitions = 0
		w.create(10, 500)
		stop := (&jobProcess{jobWorld: w}).start(t)
		time.Sleep(time.Minute)
		w.mu.Lock()
		if w.jobs[0].sent() != 0 || !strings.Contains(w.reason, "replay: `learnsink topics create` makes it") {
			t.Errorf("%d rows are sent; the reason is %q", w.jobs[0].sent(), w.reason)
		}
		w.partitions = 2
		w.mu.Unlock()
		time.Sleep(time.Minute)
		stop()
		w.checkSent()
		if w.reason != "" {
			t.Errorf("the reason is still %q", w.reason)
		}
	})
}

// TestAnotherClusterIsNoticed before a row is sent to it.
func TestAnotherClusterIsNoticed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newJobWorld(t)
		w.claimed = "there"
		w.create(10, 500)
		stop := (&jobProcess{jobWorld: w}).start(t)
		time.Sleep(time.Minute)
		stop()
		if w.jobs[0].sent() != 0 || !strings.Contains(w.reason, "another cluster") || w.session != 0 {
			t.Errorf("%d rows are sent; the reason is %q; %d sessions", w.jobs[0].sent(), w.reason, w.session)
		}
	})
}

// TestARowTooLargeForTheTopicIsLeftOut, and holds nobody up.
func TestARowTooLargeForTheTopicIsLeftOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newJobWorld(t)
		w.limit = 20_000
		w.create(3, 500).value = []byte(strings.Repeat("fits when it is compressed ", 2000))
		large := w.create(3, 500)
		for i := range 30_000 {
			large.value = fmt.Append(large.value, i*i*7919%10_000_019)
		}
		w.create(3, 500)
		stop := (&jobProcess{jobWorld: w}).start(t)
		time.Sleep(time.Minute)
		stop()
		w.checkSent()
		for i, want := range []string{"sent", "dropped", "sent"} {
			if got := w.jobs[i].items; got[0] != want || got[2] != want {
				t.Errorf("job %d: %v", i+1, got)
			}
		}
	})
}

// TestAMarkerThatHasExpired: what is pending is looked up in the topic.
func TestAMarkerThatHasExpired(t *testing.T) {
	for name, done := range map[string]bool{"published": true, "not published": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newJobWorld(t)
				w.create(200, 500)
				p := &jobProcess{jobWorld: w}
				p.hook = nth("publish", 2, 1, func() (bool, error) {
					if done {
						go p.die()
					} else {
						p.die()
					}
					return done, errDead
				})
				stop := p.start(t)
				time.Sleep(time.Minute)
				stop()
				w.marker = Marker{}
				stop = (&jobProcess{jobWorld: w}).start(t)
				time.Sleep(time.Minute)
				stop()
				w.checkSent()
			})
		})
	}
}

// TestTheDatabaseOfJobsGoesBack, to any moment before: rows come twice then, but none
// that is sent from there on is taken for published.
func TestTheDatabaseOfJobsGoesBack(t *testing.T) {
	for back := range 12 {
		for name, alive := range map[string]bool{"and the process lives on": true, "and another takes over": false} {
			t.Run(fmt.Sprint("to step ", back, " ", name), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newJobWorld(t)
					w.create(300, 100)
					w.create(300, 100)
					var then jobTables
					seen := 0
					p := &jobProcess{jobWorld: w}
					p.hook = func(step string) (bool, error) {
						if step == "dispatch" || step == "publish" {
							if seen++; seen == back+3 {
								w.mu.Lock()
								then = w.jobTables.clone()
								w.mu.Unlock()
							}
						}
						return true, nil
					}
					stop := p.start(t)
					time.Sleep(4 * time.Second)
					if !alive {
						stop()
					}
					w.mu.Lock()
					lost := w.count.Next - then.count.Next
					w.jobTables, w.goneBack, w.leader = then, true, nil
					w.mu.Unlock()
					if lost < 40 {
						t.Fatalf("the database has lost %d rows", lost)
					}
					if !alive {
						stop = (&jobProcess{jobWorld: w}).start(t)
					}
					time.Sleep(time.Minute)
					stop()
					w.checkSent()
					on := map[string]int{}
					for _, ids := range w.topic {
						for _, id := range ids {
							on[id]++
						}
					}
					twice := 0
					for j := range w.jobs {
						for i := range w.jobs[j].items {
							n := on[fmt.Sprintf("%d/%d", j+1, i+1)]
							if n < 1 || n > 2 {
								t.Errorf("row %d of job %d is on the topic %d times", i+1, j+1, n)
							}
							twice += n - 1
						}
					}
					if int64(twice) > lost {
						t.Errorf("%d rows come twice, the database has lost %d", twice, lost)
					}
				})
			})
		}
	}
}

// TestAnotherJobAfterTheDatabaseWentBack: its rows have numbers that were
// published once, of others; a crash finds them pending all the same.
func TestAnotherJobAfterTheDatabaseWentBack(t *testing.T) {
	for name, done := range map[string]bool{"publishing fails": false, "the process dies": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newJobWorld(t)
				then := w.jobTables.clone()
				w.create(300, 500)
				stop := (&jobProcess{jobWorld: w}).start(t)
				time.Sleep(10 * time.Second)
				stop()
				w.mu.Lock()
				w.jobTables, w.goneBack = then, true
				clear(w.topic) // of which nothing is looked at any more
				w.mu.Unlock()
				w.create(50, 500)
				p := &jobProcess{jobWorld: w}
				p.hook = nth("publish", 0, 1, func() (bool, error) {
					if done {
						p.die()
					}
					return false, errDead
				})
				stop = p.start(t)
				time.Sleep(10 * time.Second)
				stop()
				stop = (&jobProcess{jobWorld: w}).start(t)
				time.Sleep(10 * time.Second)
				stop()
				w.checkSent()
				if n := w.onTopic(); n != 50 {
					t.Errorf("%d rows are on the topic", n)
				}
			})
		})
	}
}

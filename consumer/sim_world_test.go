package consumer

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	"github.com/segmentio/kafka-go"

	"learnsink/handlers"
)

const (
	simCluster    = "here"
	simGroup      = "sim"
	simSource     = "rows"
	simAccepted   = "accepted"
	simDeadLetter = "dead-letter"
)

// simWorld is a cluster, a database, processes that come and go, somebody who
// breaks things, and what is true of all of it at any moment.
type simWorld struct {
	seed  uint64
	rand  *rand.Rand // of who breaks things; requests have dice of their own
	began time.Time
	chaos context.Context // ends when the faults stop

	// What this world is like.
	partitions int
	publish    Publish
	resolves   bool          // the store looks lost COMMITs up by itself
	markers    time.Duration // within which a marker is written
	slowest    time.Duration // of an ordinary request, one way
	faults     float64       // the share of requests that something happens to
	kinds      []simFault    // that happen
	batch      Batch

	mu        sync.Mutex
	brokers   *simBrokers
	database  *simDatabase
	catalogue *handlers.Catalogue
	source    *handlers.Source
	replays   *handlers.Replays // nil: nobody sends rows again
	metrics   *Metrics
	truths    map[handlers.TopicPartition]*simTruth
	readers   []*simReader
	processes []*simProcess // that are members of the group, or were
	rebalance chan struct{} // closed at the next one
	calls     map[string]int
	busy      atomic.Int32 // how much of goes, and how many faults, are under way
	lanes     []lane       // of the readers
	backups   []*simDatabase
	operators int
	asleep    int // how many things wait for a process to be awake
	going     sync.WaitGroup
	counts    map[string]int
	effects   int
	trace     []simEvent
	broken    []string // what was violated
}

type simEvent struct {
	at   time.Duration
	who  string
	what string
	note string
}

// simTruth is what is true of one source partition, whatever the database says.
type simTruth struct {
	tp          handlers.TopicPartition
	offsets     []simOutcome // by offset
	end         int64        // of the log, as far as its rows are judged
	peak        int64        // the highest position there ever was
	republished int          // times that an operator wanted rows announced again
	marker      int64        // as it was last seen
	order       map[lane]*simOrder
	// What the database said when it was last looked at.
	epoch, next int64
	round, life int
}

// simOrder is how a reader of an output partition saw one source partition.
type simOrder struct {
	last     int64
	most     int64 // the highest offset
	descents int
}

// simOutcome is what is true of one offset.
type simOutcome struct {
	simRow
	applied   bool // at some time, in some history
	allowed   int  // how often it may be announced
	announced int  // how often it was; a transaction that is prepared counts
	seen      int  // how often a read_committed reader saw it
}

func (t *simTruth) at(o int64) *simOutcome {
	t.reach(o + 1)
	return &t.offsets[o]
}

func (t *simTruth) reach(end int64) {
	for int64(len(t.offsets)) < end {
		t.offsets = append(t.offsets, simOutcome{allowed: 1})
	}
	t.end = max(t.end, end)
}

// write notes rows that are committed to the log.
func (t *simTruth) write(base int64, rows []simRow) {
	for i, r := range rows {
		t.at(base + int64(i)).simRow = r
	}
}

// apply notes what a transaction has just applied.
func (t *simTruth) apply(p *simPartition) {
	for o, v := range p.outcomes {
		if v != 0 {
			t.at(int64(o)).applied = true
		}
	}
	t.peak = max(t.peak, p.NextOffset)
}

// Chance. Every decision about a request rests on the seed, on who asks for
// what, and on how many times he has done so: it repeats as long as he does.

func (w *simWorld) dice(who, what string) *rand.Rand {
	h := w.seed
	for _, s := range [...]string{who, "/", what} {
		for i := range len(s) {
			h = (h ^ uint64(s[i])) * 0x100000001b3
		}
	}
	return rand.New(rand.NewPCG(w.seed, h))
}

// chance is true once in so many worlds.
func (w *simWorld) chance(what string, times int) bool { return w.dice("world", what).IntN(times) == 0 }

// span is a time between least and most; as often below their middle, on a
// scale of powers, as above.
func (w *simWorld) span(r *rand.Rand, least, most time.Duration) time.Duration {
	if most <= least {
		return least
	}
	return time.Duration(float64(least) * math.Pow(float64(most)/float64(least), r.Float64()))
}

// simFault is what may happen to a request.
type simFault string

const (
	lostRequest simFault = "request lost"
	lostReply   simFault = "reply lost"
	lateRequest simFault = "request late"
	repeated    simFault = "request repeated"
	slow        simFault = "slow"
	crashBefore simFault = "crash before"
	crashAfter  simFault = "crash after"
	sleepBefore simFault = "asleep before"
	sleepAfter  simFault = "asleep after"
)

var simFaults = []simFault{lostRequest, lostReply, lateRequest, repeated, slow, crashBefore, crashAfter, sleepBefore, sleepAfter}

// A process and its requests.

// simProcess is one process; once it is dead nothing that it does has an effect.
type simProcess struct {
	world *simWorld
	name  string
	ctx   context.Context // ends when it is to stop, or is dead
	stop  context.CancelFunc
	done  chan struct{}

	// Guarded by world.mu.
	dead     bool
	wakes    time.Time // it is stopped (SIGSTOP) until then
	assigned []int     // partitions
	evicted  bool      // the group goes on without it
}

var errLost = errors.New("connection reset by peer")

// simServer is whom a request goes to.
type simServer string

const (
	atKafka    simServer = "kafka"
	atDatabase simServer = "database"
)

// call is one request of a process, from its leaving to the reply's coming.
// serve is what the server does with it, at one moment and under the world's
// lock.
func call[T any](ctx context.Context, part *simPart, server simServer, step string, serve func() (T, error)) (T, error) {
	var none T
	p, w := part.simProcess, part.world
	w.mu.Lock()
	key := part.name + " " + part.of + " " + step
	n := w.calls[key]
	w.calls[key]++
	life := w.database.life
	w.mu.Unlock()
	roll := w.dice(key, fmt.Sprint(n))
	there, back := w.span(roll, 20*time.Microsecond, w.slowest), w.span(roll, 20*time.Microsecond, w.slowest)
	fault := w.fault(roll, server, step)
	if fault != "" {
		w.busy.Add(1)
		defer w.busy.Add(-1)
	}

	if !p.awake() {
		return none, errDead
	}
	switch fault {
	case crashBefore:
		w.note(p, step, string(fault))
		p.crash(step)
		return none, errDead
	case sleepBefore:
		w.note(p, step, string(fault))
		if !p.sleep(w.span(roll, time.Second, 40*time.Second), step) {
			return none, errDead
		}
	case lostRequest:
		w.note(p, step, string(fault))
		pause(ctx, w.span(roll, time.Millisecond, 3*time.Second))
		return received(p, none, errLost)
	case slow:
		there, back = w.span(roll, 10*time.Millisecond, 4*time.Second), w.span(roll, 10*time.Millisecond, 4*time.Second)
	}

	type answer struct {
		v   T
		err error
	}
	arrive := func() (a answer) {
		for {
			var locked errLocked
			w.do(step, func() {
				switch {
				case server == atDatabase && w.database.life != life:
					a = answer{none, errLost}
					return
				case ctx.Err() != nil && server == atDatabase:
					a = answer{none, ctx.Err()} // the client is gone before its statement began
					return
				}
				a.v, a.err = serve()
				if fault == repeated && !errors.As(a.err, &locked) {
					a.v, a.err = serve()
				}
				if !errors.As(a.err, &locked) {
					w.noteLocked(p, step, fault, a.err)
				}
			})
			if locked.ended == nil {
				return a
			}
			<-locked.ended
		}
	}
	orphan := func(after time.Duration) { // the request goes on without its sender
		w.goes(func() {
			time.Sleep(after)
			arrive()
		})
	}
	switch {
	case fault == lateRequest:
		most := 40 * time.Second
		if server == atDatabase {
			most = 5 * time.Second
		}
		w.note(p, step, string(fault))
		orphan(w.span(roll, 10*time.Millisecond, most))
		pause(ctx, w.span(roll, time.Millisecond, 3*time.Second))
		return received(p, none, errLost)
	case !pause(ctx, there):
		orphan(there)
		return received(p, none, ctx.Err())
	}
	a := arrive()
	switch fault {
	case crashAfter:
		p.crash(step)
		return none, errDead
	case sleepAfter:
		p.sleep(w.span(roll, time.Second, 40*time.Second), step)
	case lostReply:
		pause(ctx, w.span(roll, time.Millisecond, 3*time.Second))
		return received(p, none, errLost)
	}
	if !pause(ctx, back) {
		return received(p, none, ctx.Err())
	}
	return received(p, a.v, a.err)
}

// received is what comes of a request, if somebody is there to receive it.
func received[T any](p *simProcess, v T, err error) (T, error) {
	if !p.awake() {
		var none T
		return none, errDead
	}
	return v, err
}

// fault says what happens to a request.
func (w *simWorld) fault(roll *rand.Rand, server simServer, step string) simFault {
	if roll.Float64() >= w.faults || len(w.kinds) == 0 || w.chaos.Err() != nil {
		return ""
	}
	fault := w.kinds[roll.IntN(len(w.kinds))]
	if server == atDatabase && fault == repeated && (strings.HasPrefix(step, "apply") || strings.HasPrefix(step, "COMMIT")) ||
		fault == lateRequest && strings.HasPrefix(step, "apply") {
		return "" // a transaction is a talk: nothing of it comes twice, or without its client
	}
	return fault
}

// awake waits while the process is stopped; it reports whether it lives.
func (p *simProcess) awake() bool {
	p.world.mu.Lock()
	defer p.world.mu.Unlock()
	for !p.dead && time.Now().Before(p.wakes) {
		p.world.asleep++
		d := time.Until(p.wakes)
		p.world.mu.Unlock()
		time.Sleep(d)
		p.world.mu.Lock()
		p.world.asleep--
	}
	return !p.dead
}

// sleep is nap, from within; it reports whether the process lives then.
func (p *simProcess) sleep(d time.Duration, step string) bool {
	p.nap(d, step)
	return p.awake()
}

// nap stops the process for a while (SIGSTOP).
func (p *simProcess) nap(d time.Duration, step string) {
	w := p.world
	w.do("", func() {
		w.came("process: asleep")
		w.event(p.name, step, "asleep for "+d.String())
		p.wakes = time.Now().Add(d)
		w.missed(p)
	})
}

// crash ends the process at once.
func (p *simProcess) crash(step string) {
	w := p.world
	w.do("", func() {
		if !p.dead {
			w.came("process: crash")
			w.event(p.name, step, "crash")
			p.dead = true
			p.stop()
			w.missed(p)
		}
	})
}

func (w *simWorld) newProcess(name string) *simProcess {
	p := &simProcess{world: w, name: name, done: make(chan struct{})}
	p.ctx, p.stop = context.WithCancel(context.Background())
	return p
}

// simPart is what a process does for one partition. Its requests are counted
// by themselves, so that their fate does not hang on what the others do.
type simPart struct {
	*simProcess
	of string
}

// consumer returns what works on one partition: as New makes it, but for the
// connections.
func (p *simProcess) consumer(partition int) *Consumer {
	w, part := p.world, &simPart{p, strconv.Itoa(partition)}
	client := &Client{addr: kafka.TCP("sim:9092"), transport: simWire{part}, codec: simCodec()}
	client.kafka = &kafka.Client{Addr: client.addr, Transport: client.transport, Timeout: requestTimeout}
	return &Consumer{
		config: Config{Group: simGroup, Publish: w.publish, Batch: w.batch, Breaker: Breaker{Window: 10, Deleted: 0.5}}.orDefaults(),
		client: client, store: simStore{part}, logger: zerolog.Nop(), metrics: w.metrics,
		sources: map[string]*handlers.Source{simSource: w.source}, topics: []string{simSource}, replays: w.replays,
		packer: &packer{codec: simCodec(), topics: &outputTopics{cluster: client}},
	}
}

// The group.

// join starts a process that is a member of the group.
func (w *simWorld) join() {
	w.mu.Lock()
	p := w.newProcess(fmt.Sprint("p", len(w.processes)))
	w.processes = append(w.processes, p)
	w.mu.Unlock()
	w.going.Go(p.run)
	w.regroup("join")
}

// regroup gives each partition to a member, by chance. A member that dies or
// sleeps is one until its session is over.
func (w *simWorld) regroup(why string) {
	w.do("rebalance", func() {
		w.came("group: rebalance")
		w.event("group", "rebalance", why)
		w.brokers.generation++
		w.brokers.members = map[string]bool{}
		var members []*simProcess
		for _, p := range w.processes {
			p.assigned = nil
			if !p.evicted {
				members = append(members, p)
				w.brokers.members[p.name] = true
			}
		}
		if len(members) > 0 {
			first := w.dice("group", fmt.Sprint(w.brokers.generation)).IntN(len(members))
			for i, n := range w.parts() {
				p := members[(first+i)%len(members)]
				p.assigned = append(p.assigned, n)
			}
		}
		close(w.rebalance)
		w.rebalance = make(chan struct{})
	})
}

// missed takes a member out of the group once no heartbeat has come from it for
// a session.
func (w *simWorld) missed(p *simProcess) {
	time.AfterFunc(10*time.Second, func() {
		w.mu.Lock()
		out := !p.evicted && (p.dead || time.Now().Before(p.wakes))
		p.evicted = p.evicted || out
		w.mu.Unlock()
		if out {
			w.regroup("a session is over")
		}
	})
}

// leave takes a process that has ended out of the group.
func (p *simProcess) leave() {
	p.world.mu.Lock()
	p.evicted = true
	p.world.mu.Unlock()
	p.world.regroup("leave")
}

// run is a member of the group: one generation after the other.
func (p *simProcess) run() {
	w := p.world
	defer close(p.done)
	for p.ctx.Err() == nil {
		w.mu.Lock()
		generation, assigned, over, evicted := w.brokers.generation, p.assigned, w.rebalance, p.evicted
		p.evicted = false
		w.mu.Unlock()
		if evicted { // while it slept
			w.regroup("back again")
			continue
		}
		ctx, cancel := context.WithCancel(p.ctx)
		var running sync.WaitGroup
		for _, n := range assigned {
			consumer := p.consumer(n)
			pipeline := consumer.pipeline(w.tp(n),
				&groupOffsets{client: consumer.client, group: simGroup, generation: generation, member: p.name})
			pipeline.limits.poll, pipeline.limits.jitter = time.Second, 0
			running.Go(func() {
				defer w.recovered()
				pipeline.run(ctx)
			})
		}
		select {
		case <-over:
			// It hears of it with the next heartbeat; its successors do not wait.
			pause(p.ctx, time.Duration(w.dice(p.name, fmt.Sprint("heartbeat ", generation)).Int64N(int64(3*time.Second))))
			p.awake()
		case <-p.ctx.Done():
		}
		cancel()
		running.Wait()
	}
}

// recovered turns a panic into a violation, so that its seed is told.
func (w *simWorld) recovered() {
	if v := recover(); v != nil {
		w.do("", func() { w.violated("panic: %v\n%s", v, debug.Stack()) })
	}
}

// goes starts what has to come to its end before the world does.
func (w *simWorld) goes(f func()) {
	w.busy.Add(1)
	w.going.Go(func() {
		defer w.busy.Add(-1)
		defer w.recovered()
		f()
	})
}

// Book-keeping.

// do is one effect: f under the world's lock, and the look at the whole world.
func (w *simWorld) do(what string, f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
	if what != "" {
		w.effects++
		w.check(what)
	}
}

// later does something after a time, as an effect of nobody's.
func (w *simWorld) later(what string, after time.Duration, f func()) {
	time.AfterFunc(after, func() { w.do(what, f) })
}

// came counts what has happened.
func (w *simWorld) came(what string) { w.counts[what]++ }

func (w *simWorld) event(who, what, note string) {
	w.trace = append(w.trace, simEvent{time.Since(w.began), who, what, note})
}

func (w *simWorld) note(p *simProcess, step, note string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.noteLocked(p, step, simFault(note), nil)
}

func (w *simWorld) noteLocked(p *simProcess, step string, fault simFault, err error) {
	note := string(fault)
	if fault != "" {
		w.came("request: " + note)
	}
	if err != nil {
		note = strings.TrimSpace(note + " " + err.Error())
	}
	w.event(p.name, step, note)
}

func (w *simWorld) violated(format string, args ...any) {
	if len(w.broken) < 5 {
		w.broken = append(w.broken, fmt.Sprintf("%s: ", time.Since(w.began))+fmt.Sprintf(format, args...))
		w.event("CHECK", fmt.Sprintf(format, args...), "")
	}
}

// announce notes outputs that are certain to be seen by read_committed readers.
func (w *simWorld) announce(ids []simPublication) {
	for _, id := range ids {
		tp := w.tp(id.source)
		o := w.truths[tp].at(id.offset)
		o.announced++
		outputs := map[handlers.Verdict]string{handlers.Accepted: simAccepted, handlers.Rejected: simDeadLetter}
		want := outputs[o.verdict]
		if o.sent != nil {
			for verdict := range o.sent.had { // in some history
				if outputs[verdict] == id.topic {
					want = id.topic
				}
			}
		}
		switch {
		case !o.applied:
			w.violated("%s/%d is published to %s, and was never applied", tp.Topic, id.offset, id.topic)
		case id.topic != want:
			w.violated("%d/%d is published to %s, not %q", id.source, id.offset, id.topic, want)
		case w.publish == Transactional && o.announced > o.allowed:
			w.violated("%d/%d is published %d times, and may be %d times", id.source, id.offset, o.announced, o.allowed)
		}
	}
}

// check is the look at the whole world, after every effect.
func (w *simWorld) check(what string) {
	before := len(w.broken)
	for i, r := range w.readers {
		if err := r.read(func(record *handlers.Record) { w.seen(w.lanes[i], record) }); err != nil {
			w.violated("a reader of %v: %v", w.lanes[i], err)
		}
	}
	for tp, truth := range w.truths {
		w.checkPartition(tp, truth)
	}
	if len(w.broken) > before {
		w.event("CHECK", "after: "+what, "")
	}
}

// seen is what a read_committed reader of an output partition does with a record.
func (w *simWorld) seen(l lane, record *handlers.Record) {
	p, err := publicationOf(l, record)
	if err != nil {
		w.violated("%v", err)
		return
	}
	truth := w.truths[w.tp(p.source)]
	o := truth.at(p.offset)
	o.seen++
	if o.sent != nil {
		if err := o.sent.announces(record); err != nil {
			w.violated("offset %d of the replay topic: %v", p.offset, err)
		}
	}
	if o.seen > o.announced {
		w.violated("%d/%d is read %d times, and was published %d times", p.source, p.offset, o.seen, o.announced)
	}
	order := truth.order[l]
	if order == nil {
		order = &simOrder{last: -1, most: -1}
		truth.order[l] = order
	}
	if p.offset <= order.last {
		order.descents++
	}
	switch {
	case w.publish == Transactional && order.descents > truth.republished:
		w.violated("%s/%d: %d/%d comes after %d", l.topic, l.partition, p.source, p.offset, order.last)
	case o.seen == 1 && p.offset < order.most && truth.republished == 0:
		w.violated("%s/%d: %d/%d comes for the first time after %d", l.topic, l.partition, p.source, p.offset, order.most)
	}
	order.last, order.most = p.offset, max(order.most, p.offset)
}

func (w *simWorld) checkPartition(tp handlers.TopicPartition, truth *simTruth) {
	n := numberOf(tp)
	if at, ok := w.brokers.offsets[simGroup][tp]; ok && at.offset > truth.peak && strings.HasPrefix(at.metadata, offsetMetadata) {
		w.violated("partition %d: the group's offset is %d, the position never was above %d", n, at.offset, truth.peak)
	}
	if at, ok := w.brokers.offsets[MarkerGroup(simGroup)][tp]; ok {
		if at.offset > truth.peak {
			w.violated("partition %d: the marker is %d, the position never was above %d", n, at.offset, truth.peak)
		}
	}
	p := w.database.partitions[tp]
	if p == nil {
		return
	}
	if at, ok := w.brokers.offsets[MarkerGroup(simGroup)][tp]; ok && at.offset != truth.marker {
		for o := truth.marker; o < at.offset && o < int64(len(p.outcomes)); o++ {
			if p.outcomes[o] != 0 && p.outcomes[o] != handlers.Waits && truth.at(o).announced == 0 {
				w.violated("partition %d: the marker is %d, and offset %d is not published", n, at.offset, o)
			}
		}
		truth.marker = at.offset
	}
	if n == replayPart && p.State == handlers.Breaker {
		w.violated("the breaker has stopped rows that are sent again: %s", p.StateReason)
	}
	if p.FirstOffset+p.Accepted+p.Rejected+p.Waiting+p.Skipped != p.NextOffset {
		w.violated("partition %d: the position does not add up: %+v", n, p.Position)
	}
	if truth.life == w.database.life && (p.Epoch < truth.epoch || p.Round == truth.round && p.NextOffset < truth.next) {
		w.violated("partition %d: epoch %d after %d, position %d after %d", n, p.Epoch, truth.epoch, p.NextOffset, truth.next)
	}
	truth.life, truth.epoch, truth.round, truth.next = w.database.life, p.Epoch, p.Round, p.NextOffset

	for o := range max(len(truth.offsets), len(p.outcomes)) {
		t, outcome := truth.at(int64(o)), handlers.Verdict(0)
		skipped, owed := false, 1
		if o < len(p.outcomes) {
			outcome, skipped, owed = p.outcomes[o], p.skipped[o], p.owed[o]
		}
		want := t.verdict
		if t.sent != nil { // judged when it was applied (settleLines)
			want = max(outcome, handlers.Accepted)
		}
		if int64(o) >= p.NextOffset || skipped {
			want = 0
		}
		if outcome != want {
			w.violated("partition %d: offset %d has the outcome %d, not %d; the position is %d", n, o, outcome, want, p.NextOffset)
		}
		if outcome != 0 && outcome != handlers.Waits && t.announced < owed && !p.pending(int64(o)) {
			w.violated("partition %d: offset %d is forgotten: applied, %d times published, not pending", n, o, t.announced)
		}
	}
}

func (p *simPartition) pending(o int64) bool {
	for i := range p.outbox {
		if e := &p.outbox[i]; e.From <= o && o < e.To && slices.Contains(e.offsets, o) {
			return true
		}
	}
	return false
}

// underWay: something that faults have set going is not over.
func (w *simWorld) underWay() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.busy.Load() > 0 || w.asleep > 0
}

// unfinished says what is left to do; "" once everything has drained.
func (w *simWorld) unfinished() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, n := range w.parts() {
		tp := w.tp(n)
		p, truth, log := w.database.partitions[tp], w.truths[tp], w.brokers.logs[lane{tp.Topic, tp.Partition}]
		switch at := w.brokers.offsets[simGroup][tp]; {
		case p == nil:
			return fmt.Sprintf("partition %d was never claimed", n)
		case p.NextOffset != log.end:
			return fmt.Sprintf("partition %d stands at %d of %d: %s %s", n, p.NextOffset, log.end, p.State, p.StateReason)
		case len(p.outbox) > 0:
			return fmt.Sprintf("partition %d has %d entries in the outbox: %s %s", n, len(p.outbox), p.State, p.StateReason)
		case p.State != handlers.Running:
			return fmt.Sprintf("partition %d is %s: %s", n, p.State, p.StateReason)
		case at.offset != log.end && strings.HasPrefix(at.metadata, offsetMetadata) && !w.brokers.overtaken[tp]:
			return fmt.Sprintf("partition %d: the group's offset is %d %q, the end %d", n, at.offset, at.metadata, log.end)
		}
		last := int64(-1)
		for o := range truth.offsets {
			t := &truth.offsets[o]
			if t.seen < t.announced {
				return fmt.Sprintf("offset %d of partition %d is published %d times, and was seen %d times", o, n, t.announced, t.seen)
			}
			if t.seen > 0 {
				last = int64(o)
			}
		}
		if x := w.brokers.transactions[fmt.Sprintf("%s.%s.%d", simGroup, tp.Topic, tp.Partition)]; x != nil && (x.state == simOngoing || x.state == simPrepared) {
			return fmt.Sprintf("partition %d: a transaction is open", n)
		}
		if marker, known := w.brokers.offset(MarkerGroup(simGroup), tp); w.publish == Transactional && known && truth.republished == 0 && (marker.offset <= last || marker.offset > p.NextOffset) {
			return fmt.Sprintf("partition %d: the marker is %d, the last output %d, the position %d", n, marker.offset, last, p.NextOffset)
		}
	}
	return w.database.unsettled()
}

// checkStored compares the rows with the model: the last row of each learner.
func (w *simWorld) checkStored() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.replays != nil {
		return // settleLines has compared it with every transaction
	}
	for tp, truth := range w.truths {
		p := w.database.partitions[tp]
		last := map[int]int64{}
		for o := range p.outcomes {
			if p.skipped[o] && truth.offsets[o].applied {
				return // applied once, and then gone before it could be again: no model says which row is the last
			}
			if p.outcomes[o] == handlers.Accepted {
				last[truth.offsets[o].learner] = int64(o)
			}
		}
		for learner, offset := range last {
			found := false
			for _, s := range w.database.stored {
				found = found || s.SourcePartition == tp.Partition && s.SourceOffset == offset
			}
			if !found {
				w.violated("partition %d: the last row of learner %d is at offset %d, and that is not what is stored", tp.Partition, learner, offset)
			}
		}
	}
}

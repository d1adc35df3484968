package consumer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/rs/zerolog"

	"learnsink/handlers"
)

// JobStore is what sending the rows of jobs needs of a database.
type JobStore interface {
	// LeadDispatcher takes the right to send, which one process at a time has
	// for as long as it lives; false where another has it.
	LeadDispatcher(ctx context.Context, replayTopic string) (Lead, bool, error)
}

// Lead is the right to send the rows of jobs. Whoever has it is alone, as far
// as anybody knows; that nobody else moves a row is for the epoch to see to.
// Nothing of it is called by two goroutines at once.
type Lead interface {
	// Work returns the running jobs, and whether rows are pending in the
	// outbox; an error where the right may be lost.
	Work(ctx context.Context) (jobs []handlers.RunningJob, pending bool, err error)
	// Claim raises the epoch, if the right is not lost. ErrClusterChanged
	// where rows were sent to another cluster.
	Claim(ctx context.Context, clusterID string) (handlers.Dispatcher, error)
	// Pending returns the outbox entries of jobs, in order.
	Pending(ctx context.Context) ([]handlers.OutboxEntry, error)
	// Jump moves Dispatcher.Next on to where the marker stands.
	Jump(ctx context.Context, epoch, to int64) error
	// Dispatch takes rows in one transaction; nil means committed. After
	// ErrFenced, ErrMoved, and any error whose outcome could be looked up,
	// nothing was.
	Dispatch(ctx context.Context, d *handlers.Dispatch) error
	// Published drops the entries that end at through or before; ErrFenced
	// where the epoch is not the dispatcher's any more.
	Published(ctx context.Context, epoch, through int64) error
	// Explain shows people why jobs do not move; "": they do.
	Explain(ctx context.Context, reason string) error
	// Close gives the right up.
	Close()
}

// Dispatcher puts the rows of jobs onto the replay topic: one in all
// processes at a time, the others stand by.
type Dispatcher struct {
	topic     string // the replay topic
	store     JobStore
	cluster   clusterNamer
	topics    *outputTopics
	publisher Publisher
	packer    *packer
	limits    dispatchLimits
	paces     paces
	metrics   *Metrics
	logger    zerolog.Logger
}

// clusterNamer names the Kafka cluster. Client is one.
type clusterNamer interface {
	ClusterID(ctx context.Context) (string, error)
}

// dispatchLimits bound a Dispatcher.
type dispatchLimits struct {
	rows, bytes int           // of a step
	tick        time.Duration // from one step to the next, unless there is more to do than a step holds
	idle        time.Duration // after which it is looked for jobs again
	standby     time.Duration // after which another process may be gone
	grace       time.Duration // for what has begun when the process is to end
}

// Dispatcher makes what sends the rows of jobs to Config.ReplayTopic, which is
// required for it.
func (c *Consumer) Dispatcher(store JobStore) *Dispatcher {
	o := outlet{cluster: c.client, codec: c.packer.codec, topics: c.packer.topics}
	var publisher Publisher = &plainPublisher{o}
	if c.config.Publish != AtLeastOnce {
		// A transactional id and a marker group of its own: the replay topic is
		// a source too, whose partitions have theirs.
		publisher = newTransactionalPublisher(o, JobsGroup(c.config.Group), handlers.TopicPartition{Topic: c.config.ReplayTopic})
	}
	return &Dispatcher{
		topic: c.config.ReplayTopic, store: store, cluster: c.client, topics: c.packer.topics, publisher: publisher, packer: c.packer,
		limits: dispatchLimits{rows: c.config.Batch.Rows, bytes: c.config.Batch.Bytes, tick: 200 * time.Millisecond,
			idle: 500 * time.Millisecond, standby: 2 * time.Second, grace: c.config.Grace},
		paces: paces{}, metrics: c.metrics, logger: c.logger,
	}
}

// JobsGroup names the group by whose name jobs are published: its transactional
// id is <group>.jobs.<replay topic>.0, its marker that of partition 0 of the
// replay topic in the group <group>.jobs.published.
func JobsGroup(group string) string { return group + ".jobs" }

// Run sends the rows of jobs until ctx ends. What has begun then is finished,
// within the grace. Whatever fails is tried again, from the claim on.
func (d *Dispatcher) Run(ctx context.Context) error {
	waits := newBackOff()
	for ctx.Err() == nil {
		wait := d.limits.standby
		switch err := d.lead(ctx, waits.Reset); {
		case err == nil || ctx.Err() != nil:
		case errors.Is(err, handlers.ErrFenced), errors.Is(err, handlers.ErrNotLeading):
			d.logger.Warn().Err(err).Msg("another process sends the rows of jobs by now")
		default:
			d.metrics.failures.WithLabelValues("dispatch").Inc()
			d.logger.Warn().Err(err).Msg("jobs wait")
			wait = waits.NextBackOff()
		}
		pause(ctx, wait)
	}
	return nil
}

// lead sends whatever there is to be sent for as long as this process has the
// right to. It returns nil at once where another has it. Any error gives the
// right up: the next to take it may be a process that comes through.
func (d *Dispatcher) lead(ctx context.Context, well func()) error {
	lead, led, err := d.store.LeadDispatcher(ctx, d.topic)
	if err != nil || !led {
		return err
	}
	defer lead.Close()
	d.metrics.dispatching.Set(1)
	defer d.metrics.dispatching.Set(0)
	// What has begun outlives ctx by the grace, and no longer.
	hard, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(d.limits.grace, cancel) })()
	for ctx.Err() == nil {
		jobs, pending, err := lead.Work(hard)
		if err != nil {
			return err
		}
		if len(jobs) == 0 && !pending {
			pause(ctx, d.limits.idle)
			continue
		}
		if err := d.dispatch(hard, ctx, lead, well); err != nil {
			if reason := reasonOf(err); reason != "" {
				_ = lead.Explain(hard, reason) // best effort: the log has it
			}
			return err
		}
	}
	return nil
}

// reasonOf says why jobs wait, to people; "" where somebody else goes on.
func reasonOf(err error) string {
	switch {
	case errors.Is(err, handlers.ErrFenced), errors.Is(err, handlers.ErrMoved), errors.Is(err, handlers.ErrNotLeading):
		return ""
	case errors.Is(err, ErrNoTopic):
		return err.Error() + ": `learnsink topics create` makes it"
	case errors.Is(err, handlers.ErrClusterChanged):
		return "the brokers are of another cluster than rows were sent to: `learnsink position set --new-log` on the replay topic takes this one"
	}
	return err.Error()
}

// dispatch is the road of the rows of jobs onto the replay topic, all of it,
// in the order of its effects. It returns nil once no job runs, or soft has
// ended. After an error it is begun anew, by whoever has the right then: what
// finds out what a crash has left is the beginning, and nothing else.
func (d *Dispatcher) dispatch(ctx, soft context.Context, lead Lead, well func()) error {
	// 1. Look at the topic. No effect; without it rows stay what they are.
	if _, err := d.topics.of(ctx, d.topic, limitLife); err != nil {
		return err
	}
	cluster, err := d.cluster.ClusterID(ctx)
	if err != nil {
		return err
	}

	// 2. Claim. From here on nobody else moves a row in the database. Crash:
	// the next one claims again.
	me, err := lead.Claim(ctx, cluster)
	if err != nil {
		return err
	}

	// 3. Take the publishing over: nobody else publishes a row either, and
	// what had been begun is finished or undone. Only then does the marker say
	// how far rows are published. A zombie that wakes here must not fence its
	// successor off, so it looks first. Crash: as after 2.
	pending, err := lead.Pending(ctx)
	if err != nil {
		return err
	}
	if err := lead.Published(ctx, me.Epoch, 0); err != nil {
		return err
	}
	marker, err := d.publisher.Begin(ctx, me.Round)
	if err != nil {
		return err
	}
	switch {
	case !marker.Known && len(pending) > 0: // it was never written, or Kafka has let it expire
		if marker.Through, err = d.publisher.Find(ctx, pending); err != nil {
			return err
		}
	case marker.Round < me.Round:
		marker.Through = 0 // of another cluster's replay topic
	}
	if marker.Through > me.Next {
		// The database has gone back: a failover lost commits. What was sent in
		// them is on the topic, and stays there; here those rows are as they
		// were before, and some of them go a second time. The second outcome of
		// a row is that of any row sent twice: nothing newer is harmed, as the
		// order by event time holds, and what the first has settled it does not
		// open again. What must not be is that a number means two things: rows
		// that are taken from here on would lie below the marker, and never be
		// published. So the count jumps to where the marker stands. (Entries
		// that are pending were written before what was lost, hence lie below
		// the marker rightly.) Crash before or after: the same again, or nothing.
		d.logger.Warn().Int64("published", marker.Through).Int64("database", me.Next).
			Msg("the database has gone back: some rows of jobs are sent a second time")
		if err := lead.Jump(ctx, me.Epoch, marker.Through); err != nil {
			return err
		}
		me.Next = marker.Through
	}

	// 4. Publish what is pending. Crash before or amid it: it is still pending,
	// and the marker does not cover it. Crash after it: the marker does.
	published := marker.Through
	rest := slices.DeleteFunc(slices.Clone(pending), func(e handlers.OutboxEntry) bool { return e.To <= published })
	if len(rest) > 0 {
		if err := d.publisher.Publish(ctx, rest); err != nil {
			return fmt.Errorf("publish rows of jobs: %w", err)
		}
		published = rest[len(rest)-1].To
	}
	if len(pending) > 0 {
		if err := lead.Published(ctx, me.Epoch, pending[len(pending)-1].To); err != nil {
			return err
		}
	}
	if err := lead.Explain(ctx, ""); err != nil {
		return err
	}
	well()

	for soft.Err() == nil {
		// 5. What may go by now. No effect.
		jobs, _, err := lead.Work(ctx)
		if err != nil {
			return err
		}
		if len(jobs) == 0 {
			break
		}
		t, err := d.topics.of(ctx, d.topic, limitLife)
		if err != nil {
			return err
		}
		shares := d.paces.shares(time.Now(), jobs, d.limits)
		if len(shares) == 0 {
			pause(soft, d.limits.tick)
			continue
		}

		// 6. Take rows: one transaction marks them as sent, puts them into the
		// outbox and moves the count. Crash before its commit: nothing has
		// happened. Crash after it: they are pending, and go at 4. A commit
		// whose reply is lost is found out by the store, or by the next claim.
		step := &handlers.Dispatch{Epoch: me.Epoch, From: me.Next, Shares: shares, Bytes: d.limits.bytes, Published: published,
			Encode: func(rows []handlers.JobRow) ([]byte, error) { return d.pack(rows, &t) }}
		if err := lead.Dispatch(ctx, step); err != nil {
			return err
		}
		me.Next = step.To
		d.moved(step)

		// 7. Publish them, with the marker. Crash: as at 4. The entry is dropped
		// with the next step, or at 8; crash before that: it lies below the marker.
		if len(step.Payload) > 0 {
			entry := handlers.OutboxEntry{From: step.From, To: step.To, Payload: step.Payload, At: time.Now()}
			if err := d.publisher.Publish(ctx, []handlers.OutboxEntry{entry}); err != nil {
				return fmt.Errorf("publish rows of jobs: %w", err)
			}
			published = step.To
		}
		if !d.paces.behind(time.Now(), d.limits) {
			pause(soft, d.limits.tick)
		}
	}

	// 8. Nothing stays pending.
	return lead.Published(ctx, me.Epoch, published)
}

// pack makes the payload of rows, in their order.
func (d *Dispatcher) pack(rows []handlers.JobRow, t *outputTopic) ([]byte, error) {
	// Rows without a key go by the partition of their original.
	b := d.packer.begin(originPartition(&rows[0]))
	for i := range rows {
		r := &rows[i]
		m := Message{Key: r.Key, Value: r.Value}
		if r.Topic != "" {
			job := handlers.Replay{Job: r.Replay.Job, Item: r.Replay.Item}
			b.add(handlers.Output{Topic: r.Topic, Key: r.Key, Value: r.Value, Headers: append(slices.Clip(r.Headers), job.JobHeader())})
			continue
		}
		for _, h := range r.Headers {
			if handlers.Own(h.Key) {
				m.Headers = append(m.Headers, h)
			}
		}
		m.Headers = append(m.Headers, r.Replay.Headers()...)
		fits, err := d.fits(&m, t.limit)
		if err != nil {
			return nil, err
		}
		if !fits {
			r.Unfit = true
			continue
		}
		b.add(handlers.Output{Topic: d.topic, SourcePartition: originPartition(r), Key: m.Key, Value: m.Value, Headers: m.Headers})
	}
	return b.end()
}

func originPartition(r *handlers.JobRow) int { return r.Replay.Origin.V.Partition }

// fits reports whether a topic takes a message, alone in a batch if need be.
func (d *Dispatcher) fits(m *Message, limit int) (bool, error) {
	if batchHeader+m.size() <= limit {
		return true, nil
	}
	var alone recordBatch
	alone.add(m, 0, limit)
	batch, err := alone.seal(nil, d.packer.codec)
	return len(batch) <= limit, err
}

// moved tells of what a step has done.
func (d *Dispatcher) moved(step *handlers.Dispatch) {
	for _, m := range step.Moved {
		d.paces.took(m.Job, m.Sent+m.Dropped)
		d.metrics.jobRows.WithLabelValues("sent").Add(float64(m.Sent))
		d.metrics.jobRows.WithLabelValues("dropped").Add(float64(m.Dropped))
		if m.Dropped > 0 {
			d.logger.Warn().Int64("job", m.Job).Int64("rows", m.Dropped).Msg("rows of a job are not sent: their dead letters are gone, or too large for the replay topic")
		}
		if m.Done {
			delete(d.paces, m.Job)
			d.logger.Info().Int64("job", m.Job).Msg("all rows of a job are sent")
		}
	}
}

// paces hold jobs to their rates.
type paces map[int64]*pace

// pace is how many rows of a job may go: it fills with time, up to a second's
// worth, so that a delay is made up for and a long one is not.
type pace struct {
	rate int
	due  float64
	at   time.Time // when due was reckoned
}

// shares returns how many rows of which jobs may go now: all that are due, as
// far as a step holds them, by job; an equal part of it to each where it does not.
func (p paces) shares(now time.Time, jobs []handlers.RunningJob, limits dispatchLimits) (shares []handlers.JobShare) {
	for id := range p {
		if !slices.ContainsFunc(jobs, func(j handlers.RunningJob) bool { return j.ID == id }) {
			delete(p, id)
		}
	}
	for i := range jobs {
		j := &jobs[i]
		one := p[j.ID]
		if one == nil {
			one = &pace{at: now.Add(-limits.tick)}
			p[j.ID] = one
		}
		one.rate = j.Rate
		one.fill(now)
		if n := min(int64(one.due), max(j.Left, 1)); n > 0 {
			shares = append(shares, handlers.JobShare{Job: j.ID, Rows: n})
		}
	}
	// The least first: what they leave of their part is the others'.
	slices.SortFunc(shares, func(a, b handlers.JobShare) int {
		return cmp.Or(cmp.Compare(a.Rows, b.Rows), cmp.Compare(a.Job, b.Job))
	})
	room := int64(limits.rows)
	for i := range shares {
		part := max(room/int64(len(shares)-i), 1)
		shares[i].Rows = min(shares[i].Rows, part)
		room -= shares[i].Rows
	}
	slices.SortFunc(shares, func(a, b handlers.JobShare) int { return cmp.Compare(a.Job, b.Job) })
	return shares
}

func (p *pace) fill(now time.Time) {
	p.due = min(p.due+now.Sub(p.at).Seconds()*float64(p.rate), float64(max(p.rate, 1)))
	p.at = now
}

// took notes that rows of a job have gone.
func (p paces) took(job, rows int64) {
	if one := p[job]; one != nil {
		one.due -= float64(rows)
	}
}

// behind reports whether more is due than a tick brings.
func (p paces) behind(now time.Time, limits dispatchLimits) bool {
	for _, one := range p {
		one.fill(now)
		if one.due >= 1 && one.due > float64(one.rate)*limits.tick.Seconds() {
			return true
		}
	}
	return false
}

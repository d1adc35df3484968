package consumer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"learnsink/handlers"
)

// lease is the time from one claim of a partition to the end of its ownership.
type lease struct {
	*pipeline
	soft     context.Context   // ends when no new batch is to begin
	position handlers.Position // as it was claimed
	breaker  breaker

	session   bool         // the publisher has begun, and nothing of it is uncertain
	marked    bool         // there is a marker, of a round that counts
	announced atomic.Int64 // outputs of offsets below it are published, as the marker has it
	published atomic.Int64 // everything below is published, or has no outputs
	dropped   atomic.Int64 // everything below has left the outbox

	mu       sync.Mutex
	waiting  []handlers.OutboxEntry // of batches that are applied and not yet published, in order
	troubles map[string]trouble     // by stage
	shown    trouble
	showing  bool // one goroutine at a time shows the state
	stale    bool // what is shown is not what it is any more
}

// hold claims the partition, brings the outbox up to date and sends batch
// after batch down the road, until the lease ends: by ctx, by another owner,
// or because the log cannot be read on.
func (l *lease) hold() error {
	// What is in flight outlives soft by the grace, and no longer.
	hard, cancel := context.WithCancel(context.WithoutCancel(l.soft))
	defer cancel()
	defer context.AfterFunc(l.soft, func() {
		time.AfterFunc(l.limits.grace, cancel)
	})()

	next, err := l.begin(hard)
	if err != nil {
		return err
	}
	g, road := errgroup.WithContext(hard)
	reading, stop := context.WithCancel(road)
	defer stop()
	defer context.AfterFunc(l.soft, stop)()

	from := &gatherer{lease: l, next: next, anchor: l.position.Anchor, doubt: true}
	before := newTurn()
	before.pass()
	flight := make(chan struct{}, l.limits.inFlight)
	quietSince := time.Now()
	var readErr error
	for reading.Err() == nil {
		b, err := from.gather(reading)
		if err != nil {
			readErr = err
			break
		}
		if reading.Err() != nil {
			break
		}
		if b.to == b.from {
			if len(flight) == 0 && time.Since(quietSince) >= l.limits.quiet {
				if readErr = l.tidy(reading); readErr != nil {
					break
				}
				quietSince = time.Now()
			}
			continue
		}
		select {
		case flight <- struct{}{}:
		case <-reading.Done():
			continue
		}
		l.progress.departed(b)
		mine, previous := newTurn(), before
		before = mine
		g.Go(func() error {
			defer func() { <-flight }()
			return l.travel(road, b, previous, mine)
		})
		quietSince = time.Now()
	}
	// What is on the road is finished before a stop in reading counts.
	if err := g.Wait(); err != nil {
		return err
	}
	if err := l.tidy(hard); err != nil { // a partition that is left keeps nothing pending
		return err
	}
	return readErr
}

// begin makes this process the partition's owner: it claims the partition,
// takes its publishing over and publishes what the last owner left. It returns
// the offset to read on from.
func (l *lease) begin(ctx context.Context) (next int64, err error) {
	// 1. Claim. From here on the last owner can write nothing to the database.
	// Crash: the next owner claims again.
	err = l.attempt(ctx, "claim", func(ctx context.Context) error {
		cluster, err := l.log.ClusterID(ctx)
		if err != nil {
			return err
		}
		start, err := l.log.Start(ctx)
		if err != nil {
			return err
		}
		l.position, err = l.store.Claim(ctx, l.tp, cluster, start)
		return err
	})
	if err != nil {
		return 0, err
	}
	next = l.position.NextOffset
	l.breaker = breaker{limits: l.limits.breaker, below: l.position.BreakerBelow}
	l.mu.Lock()
	l.shown = trouble{l.position.State, l.position.StateReason}
	l.mu.Unlock()
	l.progress.update(func(p *progress) { p.Applied, p.Pending, p.flight = next, 0, nil })
	l.settle("claim")

	// 2. Take the publishing over, and publish what is pending. From here on
	// the last owner can publish nothing either. Crash: what was published is
	// below the marker, the rest is still pending.
	var pending []handlers.OutboxEntry
	err = l.attempt(ctx, "publish", func(ctx context.Context) (err error) {
		pending, err = l.store.Pending(ctx, l.tp)
		return err
	})
	if err != nil {
		return 0, err
	}
	if err := l.publish(ctx, pending); err != nil {
		return 0, err
	}
	l.published.Store(next)
	l.progress.update(func(p *progress) { p.Published = next })
	if len(pending) > 0 {
		l.logger.Info().Int("entries", len(pending)).Int64("from", pending[0].From).Int64("to", next).Msg("published what the last owner had left")
		if err := l.attempt(ctx, "publish", func(ctx context.Context) error { return l.drop(ctx) }); err != nil {
			return 0, err
		}
	}
	if through := l.announced.Load(); through > next {
		// The database has gone back (a failover lost commits), or an operator
		// has set it back: those rows are applied again, and not published again.
		l.trouble("behind", handlers.DatabaseBehind,
			fmt.Sprintf("outputs are published up to offset %d, and the database stands at %d: what is between is applied without being published again", through, next))
		l.logger.Warn().Int64("published", through).Int64("position", next).Msg("more was published than the database knows of")
	}

	// 3. Commit the group's offset, for people.
	err = l.attempt(ctx, "commit", func(ctx context.Context) error {
		to, moved, err := l.offsets.Moved(ctx, l.tp)
		if err != nil {
			return err
		}
		if moved && to != next {
			l.metrics.moved.WithLabelValues(l.tp.Topic).Inc()
			l.logger.Warn().Int64("offset", to).Int64("position", next).
				Msg("somebody has moved the group's offset: it decides nothing here, `learnsink position set` does")
		}
		return l.offsets.Commit(ctx, l.tp, next, l.position.Epoch)
	})
	if err != nil {
		return 0, err
	}
	l.progress.update(func(p *progress) { p.Committed = next })
	if l.position.State.Held() {
		return 0, handlers.ErrHeld
	}
	return next, nil
}

// batch is a run of offsets on its way.
type batch struct {
	source   *handlers.Source
	origin   handlers.TopicPartition // of the originals, on the replay topic
	from, to int64
	records  []handlers.Record
	bytes    int
	read     time.Time // the event's time of records that have none
}

// turn lets the batches of a partition pass the stages with an effect one by
// one and in order. Each channel is closed when its batch has left the stage.
type turn struct {
	applied, published, committed chan struct{}
}

func newTurn() *turn {
	return &turn{make(chan struct{}), make(chan struct{}), make(chan struct{})}
}

func (t *turn) pass() {
	close(t.applied)
	close(t.published)
	close(t.committed)
}

func await(ctx context.Context, turn <-chan struct{}) error {
	select {
	case <-turn:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// travel is the road of one batch, all of it, in the order of its effects.
// Batches overlap (the next one decodes and asks for facts while this one is
// applied and the one before is published), but each stage with an effect is
// passed in the order of the log.
//
// It returns nil once the batch is committed, and an error only where the
// whole lease has to end; a batch that is waiting for machinery waits here.
func (l *lease) travel(ctx context.Context, b *batch, before, mine *turn) error {
	// 1. to 3. Decode, ask for facts, decide. No effect. A crash up to step 4
	// leaves nothing: whoever claims the partition reads the same offsets
	// again and decides the same.
	judged, err := l.judge(ctx, b)
	if err != nil {
		return err
	}

	// 4. Apply: one transaction moves the position and writes rows,
	// rejections, ledger and outbox. Crash before its commit: nothing has
	// happened. Crash after it: the outbox has the outputs, and the next
	// owner publishes them. A commit whose reply is lost is found out by the
	// store, or shows as ErrMoved: the claim then reads where it stands. A
	// flood of rejections or deletions stops here, before it has an effect.
	if err := await(ctx, before.applied); err != nil {
		return err
	}
	took := l.metrics.stage("apply")
	err = l.attempt(ctx, "apply", func(ctx context.Context) (err error) {
		for {
			if judged == nil { // the last attempt has settled its decisions, or they rest on a catalogue that has changed
				if judged, err = l.judge(ctx, b); err != nil {
					return err
				}
			}
			if reason, flood := l.breaker.trips(judged.batch.Decisions); flood {
				return l.trip(ctx, reason)
			}
			attempted := judged
			judged = nil
			attempted.batch.Published = l.published.Load()
			err := l.store.Apply(ctx, attempted.batch)
			if err == nil {
				judged = attempted
				return nil
			}
			if !errors.Is(err, handlers.ErrStaleFacts) {
				return err
			}
		}
	})
	if err != nil {
		return err
	}
	applying := took()
	decided := judged.batch
	l.dropped.Store(max(l.dropped.Load(), decided.Published))
	l.breaker.passed(decided.Decisions)
	l.progress.arrived(b.to)
	l.progress.update(func(p *progress) { p.Pending++ })
	if b.from < l.announced.Load() && b.to >= l.announced.Load() {
		l.settle("behind")
	}
	outcomes := l.metrics.applied(b, decided.Decisions, judged.ignored)
	l.metrics.absences(string(b.source.Rules.Action()), judged.absent)
	l.enqueue(handlers.OutboxEntry{From: b.from, To: b.to, Payload: judged.payload})
	level := zerolog.DebugLevel
	if len(b.records) > 0 {
		level = zerolog.InfoLevel
	}
	b.records, judged.batch, judged.payload = nil, nil, nil // the outbox has all that is still needed
	close(mine.applied)

	// 5. Publish what is waiting: this batch's outbox entry, and those of the
	// batches that were applied meanwhile, together and with the marker. Crash
	// before or amid it: the entries are pending, and the next owner publishes
	// all of them. Crash after it: the next owner finds them below the marker.
	if err := await(ctx, before.published); err != nil {
		return err
	}
	took = l.metrics.stage("publish")
	if entries := l.queue(); len(entries) > 0 { // else the batch before has taken ours along
		if err := l.publish(ctx, entries); err != nil {
			return err
		}
		// Only now may the entries be dropped: with the next apply, or after a
		// second of quiet. Crash before that: they are below the marker.
		l.published.Store(entries[len(entries)-1].To)
	}
	publishing := took()
	l.progress.update(func(p *progress) {
		p.Published = l.published.Load()
		p.Pending--
	})
	close(mine.published)

	// 6. Commit the group's offset, for people and lag tools. Crash before
	// it: they see an older offset until the partition is claimed again.
	if err := await(ctx, before.committed); err != nil {
		return err
	}
	took = l.metrics.stage("commit")
	err = l.attempt(ctx, "commit", func(ctx context.Context) error {
		return l.offsets.Commit(ctx, l.tp, b.to, l.position.Epoch)
	})
	if err != nil {
		return err
	}
	committing := took()
	l.progress.update(func(p *progress) { p.Committed = b.to })
	close(mine.committed)

	l.logger.WithLevel(level).Int64("from", b.from).Int64("to", b.to).
		Int("accepted", outcomes.accepted).Int("rejected", outcomes.rejected).Int("waiting", outcomes.waiting).Int64("skipped", b.to-b.from-outcomes.rows()).
		Dur("decode", judged.decoding).Dur("facts", judged.asking).Dur("decide", judged.deciding).
		Dur("apply", applying).Dur("publish", publishing).Dur("commit", committing).Msg("batch")
	return nil
}

// lentRows are rows to be used again. A few are kept, whatever the garbage
// collector thinks of them (a sync.Pool's it takes, at every turn).
type lentRows chan *[]handlers.Row

func newLentRows() lentRows { return make(lentRows, 4) }

func (l lentRows) take() *[]handlers.Row {
	select {
	case rows := <-l:
		return rows
	default:
		return new([]handlers.Row)
	}
}

func (l lentRows) giveBack(rows *[]handlers.Row) {
	clear(*rows) // or they would keep the records
	select {
	case l <- rows:
	default:
	}
}

// judged is a batch with its decisions.
type judged struct {
	batch   *handlers.Batch
	payload []byte         // of the outbox entry, once the batch is applied
	ignored int            // offsets without a row
	absent  map[string]int // columns that rows left out

	decoding, asking, deciding time.Duration
}

// judge decides a batch, as today's catalogue has it, and has no effect.
// Decisions rest on the records and the catalogue alone, so they can be made
// again whenever they have to be.
func (l *lease) judge(ctx context.Context, b *batch) (*judged, error) {
	j := &judged{}
	// 1. Decode.
	took := l.metrics.stage("decode")
	rules := b.source.Rules
	// Rows are large, and done with once they are decided: they are lent.
	lent := l.rows.take()
	defer l.rows.giveBack(lent)
	*lent = slices.Grow((*lent)[:0], len(b.records))[:len(b.records)]
	rows := *lent
	says := l.replayed(b)
	decoder, refs := rules.Decoder(), handlers.NewReferences()
	for i := range b.records {
		b.records[i].Incarnation = l.position.Incarnation
		at := handlers.EventTime(&b.records[i], b.source.EventTimeHeader, b.read)
		decoder.Decode(&rows[i], &b.records[i], at)
		if says != nil {
			rows[i].Replays(&says[i])
		}
		rows[i].Refer(refs)
	}
	j.absent = rules.Absent(rows)
	j.decoding = took()

	// 2. Facts. Without a catalogue the partition waits here.
	took = l.metrics.stage("facts")
	var facts *handlers.Facts
	if err := l.attempt(ctx, "facts", func(ctx context.Context) (err error) {
		facts, err = l.store.Facts(ctx, refs)
		return err
	}); err != nil {
		return nil, err
	}
	j.asking = took()

	// 3. Decide. What the marker says is published already makes no outputs.
	took = l.metrics.stage("decide")
	decisions := rules.DecideAll(rows, facts)
	if l.replays != nil && b.source == l.replays.None {
		for i := range decisions {
			if d := &decisions[i]; d.Verdict != handlers.Gone {
				*d = rules.NoSource(d.Record, d.EventTime, d.Replay)
			}
		}
	}
	if b.source.Wait > 0 {
		ask := func(ctx context.Context, refs *handlers.References) (more *handlers.Facts, err error) {
			err = l.attempt(ctx, "facts", func(ctx context.Context) (err error) {
				more, err = l.store.Facts(ctx, refs)
				return err
			})
			return more, err
		}
		if err := waitFor(ctx, ask, rows, decisions, facts); errors.Is(err, handlers.ErrStaleFacts) {
			return l.judge(ctx, b) // the catalogue has changed in between
		} else if err != nil {
			return nil, err
		}
	}
	if l.replays == nil { // what replays something settles it, and be it that the row is ignored by now
		decisions = slices.DeleteFunc(decisions, func(d handlers.Decision) bool { return d.Verdict == handlers.Ignored })
	}
	j.ignored = len(rows) - len(decisions)
	j.batch = &handlers.Batch{
		Source: b.source, Partition: l.tp.Partition, Origin: b.origin, Epoch: l.position.Epoch, From: b.from, To: b.to,
		Round: l.position.Round, Incarnation: l.position.Incarnation, Anchor: anchorOf(b.records),
		Decisions: decisions, FactsVersion: facts.Version,
		Encode: func(settled []handlers.Decision) (_ []byte, err error) {
			packing, outputs := l.packer.begin(l.tp.Partition), handlers.NewOutputs(b.source, time.Now())
			silent := l.announced.Load()
			for i := range settled {
				if settled[i].Record.Offset < silent {
					continue
				}
				if o, ok := outputs.Of(&settled[i]); ok {
					packing.add(o)
				}
			}
			j.payload, err = packing.end()
			return j.payload, err
		},
	}
	j.deciding = took()
	return j, nil
}

// replayed returns what the records of a batch of the replay topic say of
// themselves; nil elsewhere.
func (l *lease) replayed(b *batch) []handlers.Replay {
	if l.replays == nil {
		return nil
	}
	says := make([]handlers.Replay, len(b.records))
	for i := range says {
		says[i] = handlers.ReplayOf(&b.records[i])
	}
	return says
}

// enqueue adds the entry of a batch that has been applied.
func (l *lease) enqueue(e handlers.OutboxEntry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waiting = append(l.waiting, e)
}

// queue returns the entries that wait, and empties the queue.
func (l *lease) queue() []handlers.OutboxEntry {
	l.mu.Lock()
	defer l.mu.Unlock()
	entries := l.waiting
	l.waiting = nil
	return entries
}

// publish publishes entries, each once. Whenever it is uncertain what has been
// published (at first, and after any error), the publishing is taken over
// anew, and then the marker says it.
func (l *lease) publish(ctx context.Context, entries []handlers.OutboxEntry) error {
	return l.attempt(ctx, "publish", func(ctx context.Context) error {
		if !l.session {
			if err := l.resume(ctx, entries); err != nil {
				return err
			}
		}
		var rest []handlers.OutboxEntry
		for _, e := range entries {
			if announced := l.announced.Load(); e.From < announced && announced < e.To {
				// The marker stands amid the entry: it was written in a history
				// with other batches, which the database has forgotten.
				var err error
				if e.Payload, err = l.packer.cut(e.Payload, announced); err != nil {
					return fmt.Errorf("offsets %d to %d: %w", e.From, e.To-1, err)
				}
			}
			if len(e.Payload) > 0 && e.To > l.announced.Load() {
				rest = append(rest, e)
			}
		}
		if len(rest) == 0 {
			if l.marked || l.position.NextOffset == l.position.FirstOffset && l.position.Round <= 1 { // nothing was ever applied
				return nil
			}
			// The marker is gone, or of a round that counts no longer. Nothing
			// else tells what is published once an operator sets the position
			// back; so it is written anew, by itself.
			rest = []handlers.OutboxEntry{{To: max(l.position.NextOffset, l.announced.Load())}}
		}
		l.session = false
		if err := l.publisher.Publish(ctx, rest); err != nil {
			return err
		}
		l.session, l.marked = true, true
		l.announced.Store(rest[len(rest)-1].To)
		return nil
	})
}

// resume takes the publishing over and finds out how far it has come.
func (l *lease) resume(ctx context.Context, entries []handlers.OutboxEntry) error {
	// A zombie that wakes here must not fence its successor off. (Should it
	// lose the race, its successor does the same again: no harm but the wait.)
	if err := l.owned(l.store.Published(ctx, l.tp, l.position.Epoch, 0)); err != nil {
		return err
	}
	marker, err := l.publisher.Begin(ctx, l.position.Round)
	if err != nil {
		return err
	}
	if marker.Round > l.position.Round {
		// Somebody has claimed the partition since, and published; or the
		// database has gone back to before an operator set the position.
		if err := l.owned(l.store.Published(ctx, l.tp, l.position.Epoch, 0)); err != nil {
			return err
		}
	}
	switch {
	case !marker.Known && len(entries) > 0:
		// It was never written, or Kafka has let it expire.
		if marker.Through, err = l.publisher.Find(ctx, entries); err != nil {
			return err
		}
	case marker.Round < l.position.AnnouncedSince:
		marker.Through = 0 // an operator wants what it speaks of published again
	}
	l.announced.Store(max(l.announced.Load(), marker.Through))
	l.session = true
	l.marked = marker.Known && marker.Round >= l.position.AnnouncedSince
	return nil
}

// owned lets pass that a partition is held: what was applied is published all
// the same.
func (l *lease) owned(err error) error {
	if errors.Is(err, handlers.ErrHeld) {
		return nil
	}
	return err
}

// drop takes the published entries out of the outbox, where the next batch
// has not done so. Whatever stays is below the marker, and dropped by the next
// owner.
func (l *lease) drop(ctx context.Context) error {
	through := l.published.Load()
	if err := l.owned(l.store.Published(ctx, l.tp, l.position.Epoch, through)); err != nil {
		return err
	}
	l.dropped.Store(through)
	return nil
}

// tidy drops what has been published and looks whether the partition is still
// ours to work on: ErrFenced and ErrHeld say no. Machinery that is away is no
// error here.
func (l *lease) tidy(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	through := l.published.Load()
	err := l.store.Published(ctx, l.tp, l.position.Epoch, through)
	switch {
	case errors.Is(err, handlers.ErrFenced):
		return err
	case errors.Is(err, handlers.ErrHeld):
		l.dropped.Store(through)
		return err
	case err == nil:
		l.dropped.Store(through)
	}
	return nil
}

// rest waits while a stopped partition stands as it does: until it is held no
// longer, or is held by now, or somebody has claimed it.
func (l *lease) rest(ctx context.Context, stop *StopError) {
	if l.position.Epoch == 0 { // it could not be claimed
		pause(ctx, l.limits.reclaim)
		return
	}
	held := l.position.State.Held()
	for shown := time.Now(); pause(ctx, l.limits.quiet); {
		if !held {
			// It may not have been written, or not stand there any more: an
			// operator who pauses a partition and resumes it leaves it running.
			if time.Since(shown) >= time.Minute {
				shown = time.Now()
				l.mu.Lock()
				l.shown = trouble{}
				l.mu.Unlock()
			}
			l.show(stop.State, stop.Reason)
		}
		err := l.store.Published(ctx, l.tp, l.position.Epoch, 0)
		switch {
		case errors.Is(err, handlers.ErrFenced), errors.Is(err, handlers.ErrHeld) && !held, err == nil && held:
			return
		}
	}
}

// trip has the breaker stop the partition, for an operator to let it on.
func (l *lease) trip(ctx context.Context, reason string) error {
	if err := l.store.SetState(ctx, l.tp, l.position.Epoch, handlers.Breaker, reason); err != nil {
		return err
	}
	return handlers.ErrHeld
}

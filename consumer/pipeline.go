package consumer

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"learnsink/handlers"
)

// Store is what a pipeline needs of a database. Errors that are none of
// handlers' sentinels are machinery: the pipeline waits and tries again.
type Store interface {
	// Claim makes the caller the owner of a partition and raises its epoch.
	// start is the first offset of a partition that was never claimed.
	Claim(ctx context.Context, tp handlers.TopicPartition, clusterID string, start int64) (handlers.Position, error)
	// Facts answers a batch's questions; ErrNoCatalogue where no catalogue was ever loaded.
	Facts(ctx context.Context, refs *handlers.References) (*handlers.Facts, error)
	// Apply writes a batch in one transaction; nil means committed. ErrFenced,
	// ErrMoved and ErrStaleFacts mean that nothing was. It settles the
	// batch's decisions in place.
	Apply(ctx context.Context, b *handlers.Batch) error
	// Pending returns the outbox entries of a partition, in order of their offsets.
	Pending(ctx context.Context, tp handlers.TopicPartition) ([]handlers.OutboxEntry, error)
	// Published drops the outbox entries below through, if the epoch is still the partition's.
	Published(ctx context.Context, tp handlers.TopicPartition, epoch, through int64) error
	// SetState shows people what a partition is doing, if the epoch is still the partition's.
	SetState(ctx context.Context, tp handlers.TopicPartition, epoch int64, state handlers.State, reason string) error
}

// Log reads one source partition, read_committed.
type Log interface {
	// ClusterID names the Kafka cluster.
	ClusterID(ctx context.Context) (string, error)
	// Start returns the first offset that the log holds.
	Start(ctx context.Context) (int64, error)
	// Read returns what is there from an offset on, waiting for at most wait
	// where that is nothing (then Next is From). A *StopError says that going
	// on is not possible; any other error that it may be later.
	Read(ctx context.Context, from int64, wait time.Duration) (Chunk, error)
}

// Offsets commits the group's offset, which is for people and their tools:
// where a partition goes on is for the Store to say.
type Offsets interface {
	Commit(ctx context.Context, tp handlers.TopicPartition, next, epoch int64) error
}

// pipeline is the road of one assigned source partition.
type pipeline struct {
	source    *handlers.Source
	tp        handlers.TopicPartition
	log       Log
	store     Store
	publisher Publisher
	offsets   Offsets
	limits    pipelineLimits
	codec     *compressor
	// comfortable is outputLimits.comfortable.
	comfortable func(topic string) int
	metrics     *Metrics
	progress    *progress
	logger      zerolog.Logger
}

// pipelineLimits bound a pipeline.
type pipelineLimits struct {
	rows, bytes int           // of a batch
	linger      time.Duration // for more rows, once there is no backlog
	poll        time.Duration // how long a read waits for the first row
	quiet       time.Duration // after which published entries are dropped without waiting for the next batch
	grace       time.Duration // for what is in flight when the pipeline is to end
	reclaim     time.Duration // after which a partition that another owner has claimed is claimed again
	inFlight    int           // batches on the road at once
}

// gatherTime bounds how long a batch gathers where many offsets hold no row.
const gatherTime = time.Second

// errGivenUp: the pipeline is to end, and what it was waiting for is away.
var errGivenUp = errors.New("given up because the partition is to be left")

// run works on the partition until ctx ends. What is in flight then is
// finished, within limits.grace. A partition that cannot go on stays where it
// is, visibly, until ctx ends: run never returns early, because that would end
// the generation for every partition of the member.
func (p *pipeline) run(ctx context.Context) {
	for ctx.Err() == nil {
		l := &lease{pipeline: p, soft: ctx}
		err := l.hold()
		var stop *StopError
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, handlers.ErrMoved):
			p.logger.Warn().Msg("the position is not where it was left: the partition is claimed again")
			if !pause(ctx, 100*time.Millisecond) {
				return
			}
			continue
		case errors.Is(err, handlers.ErrFenced):
			l.show(handlers.Waiting, "another owner has claimed the partition")
			// A member that slept through its generation's end may have claimed
			// it when it woke, and will have noticed by now. As long as the
			// group says that the partition is ours, somebody has to be at it.
			p.logger.Warn().Dur("again", p.limits.reclaim).Msg("another owner has claimed the partition: given up for now")
			if !pause(ctx, p.limits.reclaim) {
				return
			}
			continue
		case errors.Is(err, handlers.ErrClusterChanged):
			l.show(handlers.LogDiverged, err.Error())
			p.logger.Error().Err(err).Msg("the partition is stopped")
		case errors.As(err, &stop):
			l.show(stop.State, stop.Reason)
			p.logger.Error().Str("state", string(stop.State)).Str("reason", stop.Reason).Msg("the partition is stopped")
		default: // only what attempt lets through comes here
			p.logger.Error().Err(err).Msg("the partition is claimed again after an error that nobody foresaw")
			if !pause(ctx, time.Second) {
				return
			}
			continue
		}
		<-ctx.Done()
	}
}

// pause waits; it reports false where ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// lease is the time from one claim of a partition to the end of its ownership.
type lease struct {
	*pipeline
	soft      context.Context // ends when no new batch is to begin
	epoch     int64
	published atomic.Int64 // everything below is published
	dropped   atomic.Int64 // everything below has left the outbox

	showing  sync.Mutex // held while the state is worked out and shown
	mu       sync.Mutex
	troubles map[string]trouble // by stage
	shown    trouble
}

type trouble struct {
	state  handlers.State
	reason string
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

	from := &gatherer{lease: l, next: next}
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
				l.drop(reading)
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
	l.drop(hard) // a partition that is left keeps nothing pending
	return readErr
}

// begin claims the partition and publishes what its last owner left in the
// outbox; it returns the offset to read on from.
func (l *lease) begin(ctx context.Context) (next int64, err error) {
	var position handlers.Position
	err = l.attempt(ctx, "claim", func(ctx context.Context) error {
		cluster, err := l.log.ClusterID(ctx)
		if err != nil {
			return err
		}
		start, err := l.log.Start(ctx)
		if err != nil {
			return err
		}
		// A crash from here on leaves a higher epoch: the last owner is
		// fenced, and the next one claims again.
		position, err = l.store.Claim(ctx, l.tp, cluster, start)
		return err
	})
	if err != nil {
		return 0, err
	}
	l.epoch, next = position.Epoch, position.NextOffset
	l.mu.Lock()
	l.shown = trouble{position.State, position.StateReason}
	l.mu.Unlock()
	l.progress.update(func(p *progress) { p.Applied, p.Pending, p.flight = next, 0, nil })
	l.settle("claim")

	// First the last owner's publishing is fenced off, where the publisher
	// can; only then is it certain what has been published.
	var entries []handlers.OutboxEntry
	err = l.attempt(ctx, "publish", func(ctx context.Context) error {
		through, err := l.publisher.Begin(ctx)
		if err != nil {
			return err
		}
		pending, err := l.store.Pending(ctx, l.tp)
		if err != nil {
			return err
		}
		entries = pending[:0]
		for _, e := range pending {
			if e.To > through {
				entries = append(entries, e)
			}
		}
		if len(entries) == 0 {
			return nil
		}
		// Crash: they are still pending, and published by the next owner.
		return l.publisher.Publish(ctx, entries)
	})
	if err != nil {
		return 0, err
	}
	l.published.Store(next)
	l.progress.update(func(p *progress) { p.Published = next })
	if len(entries) > 0 {
		l.logger.Info().Int("entries", len(entries)).Int64("from", entries[0].From).Int64("to", next).Msg("published what the last owner had left")
	}
	err = l.attempt(ctx, "commit", func(ctx context.Context) error {
		return l.offsets.Commit(ctx, l.tp, next, l.epoch)
	})
	if err != nil {
		return 0, err
	}
	l.progress.update(func(p *progress) { p.Committed = next })
	return next, nil
}

// batch is a run of offsets on its way.
type batch struct {
	source   *handlers.Source
	from, to int64
	records  []handlers.Record
	bytes    int
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
	// 1. Decode. No effect. A crash up to step 4 leaves nothing: whoever
	// claims the partition reads the same offsets again and decides the same.
	took := l.metrics.stage("decode")
	rules := l.source.Rules
	rows := make([]handlers.Row, len(b.records))
	refs := handlers.NewReferences()
	now := time.Now() // the event's time where the record has none
	for i := range b.records {
		at := handlers.EventTime(&b.records[i], l.source.EventTimeHeader, now)
		rows[i] = rules.Decode(&b.records[i], at)
		rows[i].Refer(refs)
	}
	decoding := took()

	// 2. Facts. No effect. Without a catalogue the partition waits here.
	took = l.metrics.stage("facts")
	var facts *handlers.Facts
	ask := func(ctx context.Context) (err error) {
		facts, err = l.store.Facts(ctx, refs)
		return err
	}
	if err := l.attempt(ctx, "facts", ask); err != nil {
		return err
	}
	asking := took()

	// 3. Decide. No effect. Decisions rest on the rows and the facts alone,
	// so they can be made again whenever they have to be.
	took = l.metrics.stage("decide")
	var payload []byte
	ignored := 0
	decide := func() *handlers.Batch {
		decided := &handlers.Batch{
			Source: l.source, Partition: l.tp.Partition, Epoch: l.epoch, From: b.from, To: b.to,
			Decisions: make([]handlers.Decision, 0, len(rows)), FactsVersion: facts.Version,
		}
		ignored = 0
		for i := range rows {
			if d := rules.Decide(&rows[i], facts); d.Verdict == handlers.Ignored {
				ignored++ // an offset without a row
			} else {
				decided.Decisions = append(decided.Decisions, d)
			}
		}
		decided.Encode = func(settled []handlers.Decision) (_ []byte, err error) {
			outputs := make([]output, 0, len(settled))
			rejectedAt := time.Now()
			for i := range settled {
				if o, ok := settled[i].Output(l.source, rejectedAt); ok {
					outputs = append(outputs, ladder(o, l.comfortable(o.Topic)))
				}
			}
			payload, err = encodePayload(outputs, l.codec)
			return payload, err
		}
		return decided
	}
	decided := decide()
	deciding := took()

	// 4. Apply: one transaction moves the position and writes rows,
	// rejections, ledger and outbox. Crash before its commit: nothing has
	// happened. Crash after it: the outbox has the outputs, and the next
	// owner publishes them. A commit whose reply is lost is found out by the
	// store, or shows as ErrMoved: the claim then reads where it stands.
	if err := await(ctx, before.applied); err != nil {
		return err
	}
	took = l.metrics.stage("apply")
	err := l.attempt(ctx, "apply", func(ctx context.Context) error {
		for {
			if decided == nil {
				decided = decide() // the last attempt has settled its decisions
			}
			attempted := decided
			decided, payload = nil, nil
			attempted.Published = l.published.Load()
			err := l.store.Apply(ctx, attempted)
			if err == nil {
				decided = attempted
				return nil
			}
			if !errors.Is(err, handlers.ErrStaleFacts) {
				return err
			}
			if err := ask(ctx); err != nil { // the catalogue has changed meanwhile
				return err
			}
		}
	})
	if err != nil {
		return err
	}
	applying := took()
	l.dropped.Store(max(l.dropped.Load(), decided.Published))
	l.progress.arrived(b.to)
	l.progress.update(func(p *progress) { p.Pending++ })
	accepted, rejected := l.metrics.applied(b, decided.Decisions, ignored)
	l.metrics.absences(string(rules.Action()), rows)
	entry := handlers.OutboxEntry{From: b.from, To: b.to, Payload: payload}
	close(mine.applied)

	// 5. Publish the outbox entry. Crash before or amid it: the entry is
	// pending, and the next owner publishes all of it (again). An error
	// leaves unknown what was written; publishing again is right.
	if err := await(ctx, before.published); err != nil {
		return err
	}
	took = l.metrics.stage("publish")
	if len(entry.Payload) > 0 {
		err := l.attempt(ctx, "publish", func(ctx context.Context) error {
			return l.publisher.Publish(ctx, []handlers.OutboxEntry{entry})
		})
		if err != nil {
			return err
		}
	}
	publishing := took()
	// Only now may the entry be dropped: with the next apply, or after a
	// second of quiet. Crash before that: it is published again.
	l.published.Store(b.to)
	l.progress.update(func(p *progress) {
		p.Published = b.to
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
		return l.offsets.Commit(ctx, l.tp, b.to, l.epoch)
	})
	if err != nil {
		return err
	}
	committing := took()
	l.progress.update(func(p *progress) { p.Committed = b.to })
	close(mine.committed)

	level := zerolog.DebugLevel
	if len(b.records) > 0 {
		level = zerolog.InfoLevel
	}
	l.logger.WithLevel(level).Int64("from", b.from).Int64("to", b.to).
		Int("accepted", accepted).Int("rejected", rejected).Int64("skipped", b.to-b.from-int64(accepted+rejected)).
		Dur("decode", decoding).Dur("facts", asking).Dur("decide", deciding).
		Dur("apply", applying).Dur("publish", publishing).Dur("commit", committing).Msg("batch")
	return nil
}

// attempt brings one effect about: it tries until it succeeds, waiting longer
// and longer in between, without a limit in time but visibly. It returns an
// error only where trying again is of no use, or the lease ends.
func (l *lease) attempt(ctx context.Context, stage string, effect func(context.Context) error) error {
	waits := newBackOff()
	waits.Reset()
	for {
		err := effect(ctx)
		switch {
		case err == nil:
			l.settle(stage)
			return nil
		case final(err):
			return err
		case ctx.Err() != nil:
			return fmt.Errorf("%s: %w", stage, context.Cause(ctx))
		}
		l.metrics.failures.WithLabelValues(stage).Inc()
		l.complain(ctx, stage, err)
		wait := waits.NextBackOff()
		if wait == backoff.Stop {
			wait = waits.MaxInterval
		}
		if errors.Is(err, handlers.ErrNoCatalogue) {
			wait = min(wait, 500*time.Millisecond) // a load is seen within a second
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-l.soft.Done():
		case <-ctx.Done():
		}
		timer.Stop()
		if l.soft.Err() != nil {
			return fmt.Errorf("%s: %w: %w", stage, errGivenUp, err)
		}
	}
}

// final reports whether an error ends the lease.
func final(err error) bool {
	var stop *StopError
	return errors.As(err, &stop) || errors.Is(err, handlers.ErrFenced) ||
		errors.Is(err, handlers.ErrMoved) || errors.Is(err, handlers.ErrClusterChanged)
}

// complain shows that a stage is waiting for machinery.
func (l *lease) complain(ctx context.Context, stage string, err error) {
	t := trouble{handlers.Waiting, stage + ": " + err.Error()}
	if errors.Is(err, handlers.ErrNoCatalogue) {
		t = trouble{handlers.NoCatalogue, err.Error()}
	}
	l.mu.Lock()
	if l.troubles == nil {
		l.troubles = map[string]trouble{}
	}
	fresh := l.troubles[stage] != t
	l.troubles[stage] = t
	l.mu.Unlock()
	if fresh {
		l.logger.Warn().Str("stage", stage).Err(err).Msg("waiting")
	}
	l.reveal()
}

// settle: a stage has succeeded.
func (l *lease) settle(stage string) {
	l.mu.Lock()
	_, troubled := l.troubles[stage]
	delete(l.troubles, stage)
	quiet := !troubled && l.shown.state == handlers.Running
	l.mu.Unlock()
	if !quiet {
		l.reveal()
	}
	if troubled {
		l.logger.Info().Str("stage", stage).Msg("going on")
	}
}

// reveal shows the first trouble there is, or that the partition is running.
func (l *lease) reveal() {
	l.showing.Lock()
	defer l.showing.Unlock()
	l.mu.Lock()
	now := trouble{state: handlers.Running}
	for _, stage := range [...]string{"claim", "read", "facts", "apply", "publish", "commit"} {
		if t, ok := l.troubles[stage]; ok {
			now = t
			break
		}
	}
	l.mu.Unlock()
	l.show(now.state, now.reason)
}

// show tells people what the partition is doing, as well as that can be done:
// the database may be what is away.
func (l *lease) show(state handlers.State, reason string) {
	const longest = 500
	if len(reason) > longest {
		reason = reason[:longest]
	}
	l.progress.update(func(p *progress) { p.State, p.Reason = state, reason })
	l.mu.Lock()
	same := l.shown == trouble{state, reason}
	l.mu.Unlock()
	if same || l.epoch == 0 { // not claimed yet: nothing to write under
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(l.soft), time.Second)
	defer cancel()
	now := trouble{state, reason}
	if err := l.store.SetState(ctx, l.tp, l.epoch, state, reason); err != nil {
		now = trouble{} // it may have been written all the same: the next success shows it anew
	}
	l.mu.Lock()
	l.shown = now
	l.mu.Unlock()
}

// drop takes the published entries out of the outbox, where the next batch
// has not done so. It is best effort: whatever stays is published again by
// the next owner.
func (l *lease) drop(ctx context.Context) {
	through := l.published.Load()
	if through <= l.dropped.Load() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if l.store.Published(ctx, l.tp, l.epoch, through) == nil {
		l.dropped.Store(through)
	}
}

// gatherer cuts the log into batches.
type gatherer struct {
	*lease
	next int64 // the offset that the next batch begins at
	left Chunk // what was read and did not fit the last batch
}

// gather returns the next batch: as many rows as are there, at most
// limits.rows or limits.bytes (one row at least). It waits limits.poll for the
// first; once there is no backlog it lingers for more rows, as long as
// limits.linger. A batch without offsets means that nothing is there.
func (g *gatherer) gather(ctx context.Context) (*batch, error) {
	b := &batch{source: g.source, from: g.next, to: g.next}
	began := time.Now()
	var deadline time.Time // until which more rows are waited for
	for {
		if g.left.Next <= g.next {
			wait := g.limits.poll
			if b.to > b.from {
				if wait = 0; !deadline.IsZero() {
					wait = time.Until(deadline)
				}
			}
			err := g.attempt(ctx, "read", func(ctx context.Context) (err error) {
				g.left, err = g.log.Read(ctx, g.next, max(wait, 0))
				return err
			})
			if err != nil {
				if b.to > b.from { // the error comes again, after the batch
					return b, nil
				}
				return nil, err
			}
			g.progress.update(func(p *progress) {
				p.Stable, p.reading = g.left.Stable, true
			})
		}
		full := g.take(b)
		switch now := time.Now(); {
		case full, b.to == b.from:
			return b, nil
		case g.next < g.left.Stable && now.Sub(began) < gatherTime:
			deadline = time.Time{} // a backlog: read on at once
		case g.next < g.left.Stable, len(b.records) == 0:
			return b, nil
		case deadline.IsZero():
			if deadline = now.Add(g.limits.linger); g.limits.linger <= 0 {
				return b, nil
			}
		case !now.Before(deadline):
			return b, nil
		}
	}
}

// take moves rows from what was read into a batch; it reports whether the
// batch is full.
func (g *gatherer) take(b *batch) (full bool) {
	n := 0
	for n < len(g.left.Records) {
		size := sizeOf(&g.left.Records[n])
		if len(b.records)+n > 0 && (len(b.records)+n >= g.limits.rows || b.bytes+size > g.limits.bytes) {
			full = true
			break
		}
		b.bytes += size
		n++
	}
	b.records = append(b.records, g.left.Records[:n]...)
	g.left.Records = g.left.Records[n:]
	if full { // up to the first row that did not fit
		b.to = g.left.Records[0].Offset
	} else {
		b.to = g.left.Next
	}
	g.next = b.to
	return full || len(b.records) >= g.limits.rows
}

package consumer

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"learnsink/handlers"
)

// CatalogueStore is what reading the catalogue topics needs of a database.
// Errors that are none of handlers' sentinels are machinery.
type CatalogueStore interface {
	// LeadCatalogue calls work as the one reader among all processes; led is
	// false where another is it. check, which work is given, fails where the
	// lead is lost.
	LeadCatalogue(ctx context.Context, work func(check func(context.Context) error) error) (led bool, err error)
	// BeginCatalogue notes partitions that were never seen.
	BeginCatalogue(ctx context.Context, positions []handlers.CataloguePosition) error
	// CataloguePositions returns how far partitions have been read.
	CataloguePositions(ctx context.Context) ([]handlers.CataloguePosition, error)
	// RereadCatalogue sets a partition back to the start of its log, and says
	// why; ErrMoved where it does not stand at p any more.
	RereadCatalogue(ctx context.Context, p handlers.CataloguePosition, clusterID string, start int64, why string) error
	// SetCatalogueState shows people what a partition is doing.
	SetCatalogueState(ctx context.Context, tp handlers.TopicPartition, state handlers.State, reason string) error
	// ApplyCatalogue writes what records say and moves the positions, in one
	// transaction. ErrMoved: nothing was. After any error the positions tell.
	ApplyCatalogue(ctx context.Context, topics []string, chunks []handlers.CatalogueChunk) (handlers.CatalogueOutcome, error)
	// SweepCatalogue deletes what tombstones have named and nothing refers to
	// any more. What only rows refer to is looked at with rows alone.
	SweepCatalogue(ctx context.Context, rows bool) (int64, error)
	// CatalogueReady reports whether there is a catalogue to judge rows by.
	CatalogueReady(ctx context.Context) (bool, error)
}

// CatalogueTopic is a topic that catalogue entries of one kind come on.
type CatalogueTopic struct {
	Topic string
	Kind  string
	// After are the kinds that entries of this one refer to. What is there of
	// them at first is read first: so little has to wait for what it refers to.
	After []string
}

// CatalogueReader reads the catalogue topics into the database: one process at
// a time, whichever is first. Entries come as upserts by their key and go with
// tombstones; the position of each partition moves in the transaction that
// writes what its records say.
//
// A partition whose log is another one than it was, or no longer holds what is
// next, is read again from its start: records say what is, so that to hear
// them twice does no harm.
type CatalogueReader struct {
	client  *Client
	store   CatalogueStore
	topics  []CatalogueTopic
	limits  catalogueLimits
	metrics *CatalogueMetrics
	logger  zerolog.Logger
}

// catalogueLimits bound the reading.
type catalogueLimits struct {
	records, bytes int           // of a batch
	pace           time.Duration // between two batches, once there is no backlog: each can make another catalogue, and decisions under way are taken again then
	linger         time.Duration // for more records after the first
	backlog        time.Duration // likewise, where much is to come
	wait           time.Duration // for the lead, where another process has it
	look           time.Duration // how often it is looked whether topics have changed
	sweep          time.Duration // how often it is looked whether tombstones can be followed at last
	fetch          fetchLimits
}

// CatalogueReader returns a reader that uses the consumer's connections; their
// topics are to be among Config.Connection.Topics.
func (c *Consumer) CatalogueReader(store CatalogueStore, topics []CatalogueTopic, m *CatalogueMetrics) *CatalogueReader {
	if m == nil {
		m = NewCatalogueMetrics(nil)
	}
	return &CatalogueReader{
		client: c.client, store: store, topics: topics, metrics: m, logger: c.logger.With().Str("reads", "catalogue").Logger(),
		limits: catalogueLimits{
			records: 50_000, bytes: 16 << 20, pace: time.Second, linger: 20 * time.Millisecond, backlog: 150 * time.Millisecond, wait: time.Second, look: 30 * time.Second, sweep: time.Hour,
			fetch: fetchLimits{bytes: c.config.FetchBytes, decompressed: c.config.MaxDecompressed},
		},
	}
}

// Run reads until ctx ends, and returns nil then. Machinery that fails, and
// topics that are not there, are waited for.
func (r *CatalogueReader) Run(ctx context.Context) error {
	waits, told := newBackOff(), ""
	for ctx.Err() == nil {
		led, err := r.store.LeadCatalogue(ctx, func(check func(context.Context) error) error {
			r.metrics.leads.Set(1)
			defer r.metrics.leads.Set(0)
			return r.session(ctx, check, waits.Reset, nil)
		})
		switch {
		case ctx.Err() != nil:
		case err != nil:
			r.metrics.failures.Inc()
			if told != err.Error() {
				told = err.Error()
				r.logger.Warn().Err(err).Msg("waiting")
			}
			pause(ctx, min(waits.NextBackOff(), 2*time.Second))
		default:
			told = ""
			if led {
				pause(ctx, 50*time.Millisecond) // the session has ended to begin anew
			} else {
				pause(ctx, r.limits.wait)
			}
		}
	}
	return nil
}

// Drain reads, or lets another process read, until every catalogue topic has
// been read to the stable end that it has now, and returns nil then. ErrNoTopic
// where one does not exist, ErrStopped where a partition cannot be read on.
func (r *CatalogueReader) Drain(ctx context.Context) error {
	var ends map[handlers.TopicPartition]int64
	if _, err := untilDone(ctx, func() (struct{}, error) {
		counts, err := r.partitions(ctx)
		if err == nil {
			ends, err = r.ends(ctx, counts, r.client.StableOffsets)
		}
		if errors.Is(err, ErrNoTopic) {
			err = backoff.Permanent(err)
		}
		return struct{}{}, err
	}); err != nil {
		return err
	}
	_, err := untilDone(ctx, func() (struct{}, error) {
		for {
			led, err := r.store.LeadCatalogue(ctx, func(check func(context.Context) error) error {
				return r.session(ctx, check, func() {}, ends)
			})
			if err != nil {
				r.logger.Warn().Err(err).Msg("waiting")
				return struct{}{}, err
			}
			done, err := r.reached(ctx, ends)
			if done || err != nil || ctx.Err() != nil {
				return struct{}{}, errors.Join(err, ctx.Err())
			}
			if !led {
				pause(ctx, r.limits.wait/5)
			}
		}
	})
	return err
}

// reached reports whether the topics have been read to ends.
func (r *CatalogueReader) reached(ctx context.Context, ends map[handlers.TopicPartition]int64) (bool, error) {
	positions, err := r.store.CataloguePositions(ctx)
	if err != nil {
		return false, err
	}
	left := maps.Clone(ends)
	for _, p := range positions {
		if end, ok := left[p.TopicPartition]; ok && p.NextOffset >= end {
			delete(left, p.TopicPartition)
		} else if ok && p.State.Stopped() {
			return false, backoff.Permanent(fmt.Errorf("%w: %s/%d is %s: %s", ErrStopped, p.Topic, p.Partition, p.State, p.StateReason))
		}
	}
	if len(left) > 0 {
		return false, nil
	}
	return r.store.CatalogueReady(ctx)
}

// partitions returns how many partitions each topic has.
func (r *CatalogueReader) partitions(ctx context.Context) (map[string]int, error) {
	counts, err := r.client.Partitions(ctx, r.names()...)
	if err != nil {
		return nil, err
	}
	var missing []string
	for _, t := range r.topics {
		if counts[t.Topic] == 0 {
			missing = append(missing, t.Topic)
		}
	}
	if len(missing) > 0 {
		return nil, fmt.Errorf("%w: %s: run `learnsink topics create`", ErrNoTopic, strings.Join(missing, ", "))
	}
	return counts, nil
}

func (r *CatalogueReader) names() []string {
	var names []string
	for _, t := range r.topics {
		names = append(names, t.Topic)
	}
	return names
}

// ends asks the topics for an offset of each partition.
func (r *CatalogueReader) ends(ctx context.Context, counts map[string]int, ask func(context.Context, string) (map[int]int64, error)) (map[handlers.TopicPartition]int64, error) {
	offsets := map[handlers.TopicPartition]int64{}
	for topic := range counts {
		of, err := ask(ctx, topic)
		if err != nil {
			return nil, err
		}
		for p, o := range of {
			offsets[handlers.TopicPartition{Topic: topic, Partition: p}] = o
		}
	}
	return offsets, nil
}

// session reads as the one reader, from the positions as they stand in the
// database, and returns nil when they are to be looked at anew: topics have
// changed, a partition was set back, or ends are reached. It is the order of
// effects:
//
//  1. the positions are read. Whoever had the lead before cannot move them any
//     more without our noticing: every write compares them.
//  2. records are fetched, of all partitions at once, and gathered.
//  3. what they say is written and the positions are moved, in one transaction.
//     A crash before its COMMIT leaves nothing, and the records are read again;
//     a crash after it leaves all. Where its reply was lost, the session ends,
//     and the next one reads in 1. what became of it.
//
// Nothing is published, and nothing is committed to a group: the positions are all there is.
func (r *CatalogueReader) session(ctx context.Context, check func(context.Context) error, well func(), until map[handlers.TopicPartition]int64) error {
	s := &catalogueSession{CatalogueReader: r, check: check, well: well, until: until}
	if err := s.begin(ctx); err != nil {
		return err
	}
	run, cancel := context.WithCancel(ctx)
	defer cancel()
	g, run := errgroup.WithContext(run)
	s.group, s.chunks = g, make(chan handlers.CatalogueChunk, 4)
	s.follow(run)
	g.Go(func() error { defer cancel(); return s.write(run) })
	err := g.Wait()
	if errors.Is(err, errLookAnew) || ctx.Err() != nil {
		return nil
	}
	return err
}

// errLookAnew ends a session whose positions are to be read anew.
var errLookAnew = errors.New("the positions are to be read anew")

// catalogueSession is one session of the reader.
type catalogueSession struct {
	*CatalogueReader
	check   func(context.Context) error
	well    func()
	until   map[handlers.TopicPartition]int64
	cluster string
	counts  map[string]int
	starts  map[handlers.TopicPartition]int64
	ends    map[handlers.TopicPartition]int64 // as they were when it began

	positions map[handlers.TopicPartition]*handlers.CataloguePosition
	followed  map[handlers.TopicPartition]bool
	stopped   bool // a partition cannot be read on
	freed     bool // deletions may have set free what an earlier tombstone has named
	group     *errgroup.Group
	chunks    chan handlers.CatalogueChunk
}

// begin reads how everything stands.
func (s *catalogueSession) begin(ctx context.Context) (err error) {
	if s.counts, err = s.partitions(ctx); err != nil {
		return err
	}
	if s.cluster, err = s.client.ClusterID(ctx); err != nil {
		return err
	}
	if s.starts, err = s.CatalogueReader.ends(ctx, s.counts, s.client.StartOffsets); err != nil {
		return err
	}
	if s.ends, err = s.CatalogueReader.ends(ctx, s.counts, s.client.StableOffsets); err != nil {
		return err
	}
	var seen []handlers.CataloguePosition
	for tp, end := range s.ends {
		seen = append(seen, handlers.CataloguePosition{TopicPartition: tp, ClusterID: s.cluster, NextOffset: s.starts[tp], FirstEnd: end})
	}
	if err := s.store.BeginCatalogue(ctx, seen); err != nil {
		return err
	}
	positions, err := s.store.CataloguePositions(ctx)
	if err != nil {
		return err
	}
	s.positions, s.followed = map[handlers.TopicPartition]*handlers.CataloguePosition{}, map[handlers.TopicPartition]bool{}
	for i, p := range positions {
		if _, ours := s.ends[p.TopicPartition]; !ours {
			continue
		}
		s.positions[p.TopicPartition] = &positions[i]
		if p.State.Stopped() { // it is tried anew
			if err := s.store.SetCatalogueState(ctx, p.TopicPartition, handlers.Running, ""); err != nil {
				return err
			}
			positions[i].State = handlers.Running
		}
		if p.ClusterID != s.cluster {
			if err := s.reread(ctx, p, "its position belongs to another Kafka cluster"); err != nil {
				return err
			}
			positions[i].NextOffset, positions[i].Anchor = s.starts[p.TopicPartition], handlers.Opt[handlers.Anchor]{}
		}
	}
	// Topics that hold nothing are read to their end without a record.
	_, err = s.store.ApplyCatalogue(ctx, s.names(), nil)
	return err
}

// reread sets a partition back to its start.
func (s *catalogueSession) reread(ctx context.Context, p handlers.CataloguePosition, why string) error {
	s.logger.Warn().Str("topic", p.Topic).Int("partition", p.Partition).Int64("offset", p.NextOffset).Str("reason", why).
		Msg("the catalogue topic is read again from its start")
	start, _, err := s.client.bounds(ctx, p.TopicPartition)
	if err != nil {
		return err
	}
	return s.store.RereadCatalogue(ctx, p, s.cluster, start, why)
}

// follow begins to read the partitions whose turn has come.
func (s *catalogueSession) follow(ctx context.Context) {
	behind := map[string]bool{} // kinds that are not yet read to where they ended
	for _, t := range s.topics {
		for p := range s.counts[t.Topic] {
			tp := handlers.TopicPartition{Topic: t.Topic, Partition: p}
			behind[t.Kind] = behind[t.Kind] || s.positions[tp].NextOffset < s.ends[tp] && !s.positions[tp].State.Stopped()
		}
	}
	for _, t := range s.topics {
		if slices.ContainsFunc(t.After, func(kind string) bool { return behind[kind] }) {
			continue
		}
		for p := range s.counts[t.Topic] {
			tp := handlers.TopicPartition{Topic: t.Topic, Partition: p}
			if !s.followed[tp] {
				s.followed[tp] = true
				position := *s.positions[tp]
				s.group.Go(func() error { return s.read(ctx, t.Kind, position) })
			}
		}
	}
}

// read reads one partition for as long as the session lasts.
func (s *catalogueSession) read(ctx context.Context, kind string, p handlers.CataloguePosition) error {
	log := newPartitionLog(s.client, p.TopicPartition, s.limits.fetch)
	doubt := p.Anchor.OK
	from := p.NextOffset
	for {
		chunk, err := untilDone(ctx, func() (Chunk, error) {
			if doubt {
				if err := log.Verify(ctx, p.Anchor.V); err != nil {
					return Chunk{}, forGood(err)
				}
			}
			chunk, err := log.Read(ctx, from, 500*time.Millisecond)
			doubt = err != nil && p.Anchor.OK // whatever kept us from reading may have made another log of it
			return chunk, forGood(err)
		})
		var stop *StopError
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.As(err, &stop) && stop.State == handlers.Oversized:
			s.logger.Error().Str("topic", p.Topic).Int("partition", p.Partition).Str("reason", stop.Reason).Msg("the catalogue topic is stopped")
			if err := s.store.SetCatalogueState(ctx, p.TopicPartition, stop.State, stop.Reason); err != nil {
				return err
			}
			select {
			case s.chunks <- handlers.CatalogueChunk{TopicPartition: p.TopicPartition}: // of nothing: it stops here
			case <-ctx.Done():
			}
			return nil
		case errors.As(err, &stop):
			return s.startAgain(ctx, p, stop.Reason)
		case err != nil:
			return err
		case chunk.Next == from:
			continue
		}
		s.metrics.lag.WithLabelValues(p.Topic, fmt.Sprint(p.Partition)).Set(float64(max(chunk.Stable-chunk.Next, 0)))
		c := handlers.CatalogueChunk{TopicPartition: p.TopicPartition, Kind: kind, From: from, To: chunk.Next, Records: chunk.Records, Anchor: anchorOf(chunk.Records)}
		select {
		case s.chunks <- c:
		case <-ctx.Done():
			return nil
		}
		if from = chunk.Next; c.Anchor.OK {
			p.Anchor = c.Anchor
		}
	}
}

// startAgain ends the session with a partition set back to its start. Where the
// position has moved since the session began it is done by the next one.
func (s *catalogueSession) startAgain(ctx context.Context, p handlers.CataloguePosition, why string) error {
	positions, err := s.store.CataloguePositions(ctx)
	if err != nil {
		return err
	}
	for _, now := range positions {
		if now.TopicPartition == p.TopicPartition {
			p.NextOffset = now.NextOffset
		}
	}
	if err := s.reread(ctx, p, why); err != nil && !errors.Is(err, handlers.ErrMoved) {
		return err
	}
	return errLookAnew
}

// forGood marks an error that trying again does not mend.
func forGood(err error) error {
	if stop := (*StopError)(nil); errors.As(err, &stop) {
		return backoff.Permanent(err)
	}
	return err
}

// gathered is a batch in the making.
type gathered struct {
	chunks         map[handlers.TopicPartition]*handlers.CatalogueChunk
	records, bytes int
}

func (g *gathered) add(c handlers.CatalogueChunk) {
	if g.chunks == nil {
		g.chunks = map[handlers.TopicPartition]*handlers.CatalogueChunk{}
	}
	if at := g.chunks[c.TopicPartition]; at == nil {
		g.chunks[c.TopicPartition] = &c
	} else {
		at.Records, at.To = append(at.Records, c.Records...), c.To
		if c.Anchor.OK {
			at.Anchor = c.Anchor
		}
	}
	g.records += len(c.Records)
	for i := range c.Records {
		g.bytes += sizeOf(&c.Records[i])
	}
}

// write gathers what is read and writes it, until ctx ends.
func (s *catalogueSession) write(ctx context.Context) error {
	look, sweep := time.NewTicker(s.limits.look), time.NewTicker(s.limits.sweep)
	defer look.Stop()
	defer sweep.Stop()
	var batch gathered
	var raised time.Time // when the catalogue was made another one
	due := time.NewTimer(time.Hour)
	defer due.Stop()
	if _, err := s.store.SweepCatalogue(ctx, false); err != nil {
		return err
	}
	if done, err := s.done(ctx); done || err != nil {
		return errors.Join(err, lookAnew(done))
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case c := <-s.chunks:
			if c.To == 0 { // it cannot be read on
				s.stopped = true
				if s.positions[c.TopicPartition].State = handlers.Oversized; s.until != nil {
					return errLookAnew
				}
				s.follow(ctx)
				continue
			}
			first := len(batch.chunks) == 0
			if batch.add(c); batch.records < s.limits.records && batch.bytes < s.limits.bytes {
				switch {
				case first && s.behind():
					due.Reset(s.limits.backlog)
				case first:
					due.Reset(max(s.limits.linger, time.Until(raised.Add(s.limits.pace))))
				}
				continue
			}
		case <-due.C:
		case <-look.C:
			if err := s.check(ctx); err != nil {
				return err
			}
			counts, err := s.partitions(ctx)
			if err != nil {
				return err
			}
			if !maps.Equal(counts, s.counts) || s.stopped {
				return errLookAnew
			}
			if err := s.sweepFreed(ctx); err != nil {
				return err
			}
			continue
		case <-sweep.C:
			if _, err := s.store.SweepCatalogue(ctx, true); err != nil {
				return err
			}
			continue
		}
		if len(batch.chunks) == 0 {
			continue
		}
		out, err := s.flush(ctx, &batch)
		if err != nil {
			return err
		}
		if out.Version != 0 {
			raised = time.Now()
		}
		if done, err := s.done(ctx); done || err != nil {
			return errors.Join(err, lookAnew(done))
		}
		s.follow(ctx)
		due.Reset(time.Hour)
	}
}

func lookAnew(yes bool) error {
	if yes {
		return errLookAnew
	}
	return nil
}

// behind reports whether what was there when the session began is not all read.
func (s *catalogueSession) behind() bool {
	for tp, end := range s.ends {
		if p := s.positions[tp]; p.NextOffset < end && !p.State.Stopped() {
			return true
		}
	}
	return false
}

// done reports whether the session has come to where it was to come.
func (s *catalogueSession) done(ctx context.Context) (bool, error) {
	if s.until == nil {
		return false, nil
	}
	done, err := s.reached(ctx, s.until)
	if done {
		err = s.sweepFreed(ctx)
	}
	return done, err
}

// sweepFreed follows tombstones that deletions since have set free.
func (s *catalogueSession) sweepFreed(ctx context.Context) error {
	if !s.freed {
		return nil
	}
	s.freed = false
	_, err := s.store.SweepCatalogue(ctx, false)
	return err
}

// flush writes a batch and begins the next one.
func (s *catalogueSession) flush(ctx context.Context, batch *gathered) (handlers.CatalogueOutcome, error) {
	began := time.Now()
	if err := s.check(ctx); err != nil {
		return handlers.CatalogueOutcome{}, err
	}
	chunks := make([]handlers.CatalogueChunk, 0, len(batch.chunks))
	for _, c := range batch.chunks {
		chunks = append(chunks, *c)
	}
	out, err := s.store.ApplyCatalogue(ctx, s.names(), chunks)
	if errors.Is(err, handlers.ErrMoved) {
		return out, errLookAnew // somebody else has read on
	}
	if err != nil {
		return out, err
	}
	s.well()
	for _, c := range chunks {
		s.positions[c.TopicPartition].NextOffset, s.positions[c.TopicPartition].State = c.To, handlers.Running
	}
	s.metrics.applied(&out)
	for i, r := range out.Bad {
		if i == 10 {
			s.logger.Warn().Int("more", len(out.Bad)-i).Msg("bad records of catalogue topics")
			break
		}
		s.logger.Warn().Str("topic", r.Topic).Int("partition", r.Partition).Int64("offset", r.Offset).
			Msg("a bad record of a catalogue topic is passed over: `learnsink catalog status` says why")
	}
	s.logger.Debug().Int("records", batch.records).Int64("changed", out.Changed).Int64("waiting", out.Waiting).Int64("held", out.Held).
		Int64("version", out.Version).Dur("took", time.Since(began)).Msg("catalogue records applied")
	s.freed = s.freed || out.Changed > 0 && out.Held > 0
	*batch = gathered{}
	return out, nil
}

// CatalogueMetrics are what reading the catalogue topics counts.
type CatalogueMetrics struct {
	records  *prometheus.CounterVec
	changes  prometheus.Counter
	versions prometheus.Counter
	failures prometheus.Counter
	waiting  prometheus.Gauge
	held     prometheus.Gauge
	leads    prometheus.Gauge
	lag      *prometheus.GaugeVec
}

// NewCatalogueMetrics makes the metrics and registers them; a nil Registerer
// leaves them unregistered.
func NewCatalogueMetrics(reg prometheus.Registerer) *CatalogueMetrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: "learnsink", Name: name, Help: help})
	}
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "learnsink", Name: name, Help: help})
	}
	m := &CatalogueMetrics{
		records: prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "learnsink", Name: "catalogue_records_total",
			Help: "Records of catalogue topics that were read here, by outcome (upsert, tombstone, bad, erased)."}, []string{"outcome"}),
		changes:  counter("catalogue_changes_total", "Entries of the catalogue that records of topics added, changed or deleted."),
		versions: counter("catalogue_raised_total", "Times that records of topics made the catalogue another one: decisions under way are taken again."),
		failures: counter("catalogue_failures_total", "Times that reading the catalogue topics was given up for a moment because machinery failed."),
		waiting:  gauge("catalogue_waiting", "Sessions and registrations from catalogue topics that wait for what they refer to, as of the last batch."),
		held:     gauge("catalogue_held", "Tombstones that wait until nothing refers to what they name, as of the last batch."),
		leads:    gauge("catalogue_reader", "1 while this process is the one that reads the catalogue topics."),
		lag: prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: "learnsink", Name: "catalogue_lag_records",
			Help: "Offsets of a catalogue topic between what was fetched and the stable end."}, []string{"topic", "partition"}),
	}
	if reg != nil {
		reg.MustRegister(m.records, m.changes, m.versions, m.failures, m.waiting, m.held, m.leads, m.lag)
	}
	return m
}

func (m *CatalogueMetrics) applied(out *handlers.CatalogueOutcome) {
	for outcome, n := range map[string]int64{"upsert": out.Upserts, "tombstone": out.Tombstones, "bad": int64(len(out.Bad)), "erased": out.Erased} {
		m.records.WithLabelValues(outcome).Add(float64(n))
	}
	m.changes.Add(float64(out.Changed))
	if out.Version != 0 {
		m.versions.Inc()
	}
	m.waiting.Set(float64(out.Waiting))
	m.held.Set(float64(out.Held))
}

// Package consumer reads source topics, sends their rows down the road, and
// publishes what became of them. It is the one room that knows Kafka.
//
// # Guarantees
//
//   - Every record that was committed to a source topic is applied exactly
//     once, in the order of its partition: the position in the database moves
//     in the transaction that applies it, under an epoch that every claim
//     raises. The group's offset is for people; nothing rests on it.
//   - Every applied row is announced exactly once, as read_committed readers
//     see it: as an accepted event or a dead letter, from an outbox that the
//     same transaction writes, in a transaction of Kafka's that carries how far
//     the partition is published (the marker). Whoever owns the partition next
//     takes the transactional id over, which fences its predecessor off, and
//     only then reads the marker. (publish: at-least-once does without; then
//     outputs may come again after a crash, with the same ids.) Within an
//     output partition outputs follow the order of their source partition.
//   - What is published is below what is applied, and what is committed is
//     below what is published.
//   - When machinery fails (a broker, the database, no catalogue), nothing is
//     dead-lettered: the partition waits, with backoff, visibly, without a
//     limit in time. No row stops a partition by its size or its content.
//   - A partition that cannot go on (data_lost, log_diverged, oversized,
//     breaker, paused) stays where it is and says so; the others go on.
//
// The order of effects stands in one function, lease.travel in lease.go; that
// of one publication in transactionalPublisher.Publish in transaction.go.
//
// # Non-obvious
//
//   - kafka-go's Reader is not used: it panics on compacted topics, hands out
//     transaction markers and aborted records, and jumps over deleted offsets.
//     Records come by our own fetch requests (fetch.go) and our own decoder
//     (record.go); kafka-go's ConsumerGroup gives membership alone.
//   - When any function that a Generation started returns, the generation ends
//     for every partition of the member. So there is one, and it never returns
//     because of a partition.
//   - Kafka's generation id is no fence: it repeats. The epoch is ours.
//   - A request is given up on the wire by a deadline only, not by a cancelled
//     context.
//   - Heartbeats stop as soon as a generation ends, so what is in flight has
//     less than the session timeout to finish.
package consumer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"learnsink/handlers"
)

// Config says what is consumed and how. The zero value of a field is its
// default, where it has one.
type Config struct {
	// Connection to the brokers. Its Topics need not be given.
	Connection Connection
	// Group is the consumer group that shares the partitions out. Default: learnsink.
	Group string
	// Sources, at least one, each with another topic. Required.
	Sources []*handlers.Source
	// ReplayTopic is learnsink's own source: rows of the others that are sent
	// again. One that is not there holds up nobody. Empty: none is read.
	ReplayTopic string
	// DeadLetterTopic takes records of the replay topic that name no source.
	// Default: the first source's.
	DeadLetterTopic string
	// Batch bounds the batches.
	Batch Batch
	// Publish is how outputs are published. Default: Transactional.
	Publish Publish
	// Breaker stops a partition before a flood of rejections or deletions.
	Breaker Breaker
	// Compression of what is written. Default: snappy.
	Compression Compression
	// SessionTimeout is how long after its last heartbeat a member that died
	// keeps its partitions. Default: 10 s.
	SessionTimeout time.Duration
	// HeartbeatInterval, a third of SessionTimeout at most. Default: 3 s, or
	// a third of a shorter SessionTimeout.
	HeartbeatInterval time.Duration
	// FetchBytes is how much one fetch asks for, in bytes; one record batch
	// comes whole, whatever its size. Default: 2 MiB.
	FetchBytes int
	// MaxDecompressed is the most that one record batch may decompress to, in
	// bytes; a larger one stops its partition (oversized). Default: 64 MiB.
	MaxDecompressed int
	// Grace is how long batches in flight have to finish when their partition
	// is to be left; below SessionTimeout. Default: 8 s, or 4/5 of a shorter
	// SessionTimeout.
	Grace time.Duration
}

// Batch bounds what is applied in one transaction.
type Batch struct {
	// Rows at most. Default: 2000.
	Rows int
	// Bytes of keys, values and headers at most; one row may be larger.
	// Default: 4 MiB.
	Bytes int
	// Linger is how long a batch waits for more rows once there is no
	// backlog. Default: 5 ms; negative: not at all.
	Linger time.Duration
}

// Publish is how outputs are published.
type Publish string

// The ways to publish.
const (
	// Transactional publishes every output exactly once, as read_committed
	// readers see it. It needs brokers with transactions.
	Transactional Publish = "transactional"
	// AtLeastOnce publishes every output at least once; its id tells a repeat.
	AtLeastOnce Publish = "at-least-once"
)

func (c Config) orDefaults() Config {
	or := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	if c.Group == "" {
		c.Group = "learnsink"
	}
	if c.Batch.Rows == 0 {
		c.Batch.Rows = 2000
	}
	if c.Batch.Bytes == 0 {
		c.Batch.Bytes = 4 << 20
	}
	if c.Publish == "" {
		c.Publish = Transactional
	}
	if c.DeadLetterTopic == "" && len(c.Sources) > 0 {
		c.DeadLetterTopic = c.Sources[0].DeadLetterTopic
	}
	c.Breaker = c.Breaker.orDefaults()
	or(&c.Batch.Linger, 5*time.Millisecond)
	or(&c.SessionTimeout, 10*time.Second)
	or(&c.HeartbeatInterval, min(3*time.Second, c.SessionTimeout/3))
	or(&c.Grace, min(8*time.Second, c.SessionTimeout*4/5))
	return c
}

// Validate reports everything that is wrong with the settings by themselves.
func (c Config) Validate() error {
	c = c.orDefaults()
	errs := []error{c.Connection.Validate()}
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if len(c.Sources) == 0 {
		bad("no sources are given")
	}
	seen := map[string]bool{}
	for _, s := range c.Sources {
		switch {
		case s.Topic == "" || s.AcceptedTopic == "" || s.DeadLetterTopic == "":
			bad("source %q: a source needs a topic, a topic for accepted events and one for dead letters", s.Topic)
		case s.Rules == nil:
			bad("source %q has no rules", s.Topic)
		case seen[s.Topic]:
			bad("source topic %q is given twice", s.Topic)
		}
		seen[s.Topic] = true
	}
	if c.ReplayTopic != "" {
		if seen[c.ReplayTopic] {
			bad("the replay topic %q is a source topic too: it is learnsink's own", c.ReplayTopic)
		}
		seen[c.ReplayTopic] = true
		if seen[c.DeadLetterTopic] {
			bad("what the replay topic holds and names no source would go to the source topic %q", c.DeadLetterTopic)
		}
	}
	for _, s := range c.Sources {
		if seen[s.AcceptedTopic] || seen[s.DeadLetterTopic] {
			bad("source %q: what it publishes would go to a source topic", s.Topic)
		}
	}
	if c.Batch.Rows < 1 || c.Batch.Bytes < 1 {
		bad("a batch needs room for a row")
	}
	if c.Publish != Transactional && c.Publish != AtLeastOnce {
		bad("unknown way to publish %q: want %s or %s", c.Publish, Transactional, AtLeastOnce)
	}
	if err := c.Breaker.validate(); err != nil {
		errs = append(errs, err)
	}
	if _, err := newCompressor(c.Compression); err != nil {
		errs = append(errs, err)
	}
	if c.SessionTimeout < 0 || c.HeartbeatInterval < 0 || c.HeartbeatInterval > c.SessionTimeout/2 {
		bad("the heartbeat interval (%s) is to be a third of the session timeout (%s)", c.HeartbeatInterval, c.SessionTimeout)
	}
	if c.Grace < 0 || c.Grace >= c.SessionTimeout {
		bad("the grace (%s) is to be shorter than the session timeout (%s)", c.Grace, c.SessionTimeout)
	}
	return errors.Join(errs...)
}

// Consumer is a member of the group. Use Run or Drain, once.
type Consumer struct {
	config  Config
	client  *Client
	store   Store
	logger  zerolog.Logger
	metrics *Metrics
	sources map[string]*handlers.Source // by topic
	replays *handlers.Replays           // nil: no replay topic is read
	topics  []string                    // of the sources, in order, and the replay topic
	packer  *packer
	rows    lentRows
}

// New prepares a consumer; nothing is connected to before Run. A nil m counts
// for nobody.
func New(config Config, store Store, logger zerolog.Logger, m *Metrics) (*Consumer, error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	config = config.orDefaults()
	if m == nil {
		m = NewMetrics(nil)
	}
	c := &Consumer{config: config, store: store, logger: logger, metrics: m, sources: map[string]*handlers.Source{}}
	connection := config.Connection
	connection.Topics = slices.Clone(connection.Topics)
	for _, s := range config.Sources {
		c.sources[s.Topic] = s
		c.topics = append(c.topics, s.Topic)
		connection.Topics = append(connection.Topics, s.Topic, s.AcceptedTopic, s.DeadLetterTopic)
	}
	if config.ReplayTopic != "" {
		c.replays = handlers.NewReplays(config.ReplayTopic, config.Sources, config.DeadLetterTopic)
		c.topics = append(c.topics, config.ReplayTopic)
		connection.Topics = append(connection.Topics, config.ReplayTopic, config.DeadLetterTopic)
	}
	slices.Sort(connection.Topics)
	connection.Topics = slices.Compact(connection.Topics)
	var err error
	if c.client, err = NewClient(connection); err != nil {
		return nil, err
	}
	codec, err := newCompressor(config.Compression)
	if err != nil {
		return nil, err
	}
	c.rows = newLentRows()
	c.packer = &packer{codec: codec, topics: &outputTopics{cluster: c.client}}
	return c, nil
}

// Client returns the client that the consumer uses, so that a process has one
// transport. It knows the metadata of the consumer's topics, and of those in
// Config.Connection.Topics, alone.
func (c *Consumer) Client() *Client { return c.client }

// Status tells what the consumer is doing.
func (c *Consumer) Status() Status { return c.metrics.board.status() }

// Run consumes until ctx ends, and returns nil then: what is in flight has
// been finished, or given up after Config.Grace. Machinery that fails is
// waited for.
func (c *Consumer) Run(ctx context.Context) error {
	defer c.client.Close()
	if c.config.Connection.ClearPassword() {
		c.logger.Warn().Msg("SASL PLAIN without TLS: the password crosses the network as it is")
	}
	for ctx.Err() == nil {
		topics := c.awaitTopics(ctx)
		if ctx.Err() != nil {
			break
		}
		if err := c.checkPublish(ctx); err != nil {
			return err
		}
		c.inspect(ctx, topics)
		if err := c.member(ctx, topics); err != nil {
			return err
		}
	}
	return nil
}

// checkPublish finds out whether the brokers can do what publishing needs,
// before anything is read; a broker that is away is waited for.
func (c *Consumer) checkPublish(ctx context.Context) error {
	if c.config.Publish == AtLeastOnce {
		c.logger.Warn().Msg("publish: at-least-once: outputs may come again after a crash, under the same ids")
		return nil
	}
	_, err := untilDone(ctx, func() (struct{}, error) {
		err := c.client.checkTransactions(ctx)
		if errors.Is(err, ErrNoTransactions) {
			err = backoff.Permanent(err)
		}
		return struct{}{}, err
	})
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// publisher makes what publishes one source partition.
func (c *Consumer) publisher(tp handlers.TopicPartition) Publisher {
	o := outlet{cluster: c.client, codec: c.packer.codec, topics: c.packer.topics}
	if c.config.Publish == AtLeastOnce {
		return &plainPublisher{o}
	}
	return newTransactionalPublisher(o, c.config.Group, tp)
}

// TakeOver makes the caller the owner of a partition, as the next member of
// the group would be: the running owner is fenced off, in the database and in
// Kafka, and what it had applied and not yet published is published. Then the
// outbox holds nothing of the partition, and the marker stands at its
// position, which is returned with the epoch that is the caller's now.
// clusterID is the one that the position holds.
func (c *Consumer) TakeOver(ctx context.Context, tp handlers.TopicPartition, clusterID string) (handlers.Position, error) {
	if !slices.Contains(c.topics, tp.Topic) {
		return handlers.Position{}, fmt.Errorf("%s is no source of this configuration", tp.Topic)
	}
	p := c.pipeline(tp, &groupOffsets{client: c.client, group: c.config.Group, generation: -1})
	p.log = claimedLog{clusterID}
	l := &lease{pipeline: p, soft: ctx}
	if _, err := l.begin(ctx); err != nil && !errors.Is(err, handlers.ErrHeld) {
		return handlers.Position{}, fmt.Errorf("take over %s/%d: %w", tp.Topic, tp.Partition, err)
	}
	return l.position, nil
}

// claimedLog stands for the log of a partition that is claimed and not read.
type claimedLog struct{ cluster string }

func (l claimedLog) ClusterID(context.Context) (string, error) { return l.cluster, nil }
func (l claimedLog) Start(context.Context) (int64, error)      { return 0, nil }
func (l claimedLog) Verify(context.Context, handlers.Anchor) error {
	return errors.ErrUnsupported
}
func (l claimedLog) Read(context.Context, int64, time.Duration) (Chunk, error) {
	return Chunk{}, errors.ErrUnsupported
}

// inspect warns of source topics that forget rows before they are read.
func (c *Consumer) inspect(ctx context.Context, topics []string) {
	for _, t := range topics {
		if compacted, err := c.client.compacted(ctx, t); err == nil && compacted {
			c.logger.Warn().Str("topic", t).
				Msg("a source topic is compacted: rows that are compacted away before they are read have no outcome")
		}
	}
}

// pipeline makes the road of one assigned partition.
func (c *Consumer) pipeline(tp handlers.TopicPartition, offsets Offsets) *pipeline {
	log := newPartitionLog(c.client, tp, fetchLimits{bytes: c.config.FetchBytes, decompressed: c.config.MaxDecompressed})
	log.metrics, log.strict = c.metrics, true
	source, replays, breaker := c.sources[tp.Topic], (*handlers.Replays)(nil), c.config.Breaker
	if source == nil {
		// Whoever replays has looked first: no flood stops it.
		source, replays, breaker.Off = c.replays.None, c.replays, true
	}
	return &pipeline{
		source:    source,
		replays:   replays,
		tp:        tp,
		log:       log,
		store:     c.store,
		publisher: c.publisher(tp),
		offsets:   offsets,
		limits: pipelineLimits{
			rows: c.config.Batch.Rows, bytes: c.config.Batch.Bytes, linger: c.config.Batch.Linger,
			poll: 250 * time.Millisecond, quiet: time.Second, grace: c.config.Grace, reclaim: c.config.SessionTimeout, inFlight: 2,
			blocked: time.Minute, breaker: breaker, jitter: 0.5,
		},
		packer:   c.packer,
		rows:     c.rows,
		metrics:  c.metrics,
		progress: newProgress(tp),
		logger:   c.logger.With().Str("topic", tp.Topic).Int("partition", tp.Partition).Logger(),
	}
}

// ErrStopped: a partition cannot go on by itself.
var ErrStopped = errors.New("a partition is stopped")

// Drain consumes until every source partition is applied, published and
// committed up to the stable end that it has now, and returns nil then;
// ErrStopped where one cannot be. A source topic that does not exist is empty.
// Partitions may be other members' of the group.
func (c *Consumer) Drain(ctx context.Context) error {
	targets, err := untilDone(ctx, func() (map[handlers.TopicPartition]int64, error) { return c.stableEnds(ctx) })
	if err != nil || len(targets) == 0 {
		return err
	}
	run, cancel := context.WithCancel(ctx)
	defer cancel()
	g, run := errgroup.WithContext(run)
	g.Go(func() error { return c.Run(run) })
	g.Go(func() error {
		defer cancel()
		var theirs map[handlers.TopicPartition]int64
		for tick := 0; pause(run, 50*time.Millisecond); tick++ {
			if tick%20 == 0 {
				theirs, _ = c.client.GroupOffsets(run, c.config.Group, c.topics...) // best effort
			}
			done, err := c.drained(targets, theirs)
			if done || err != nil {
				return err
			}
		}
		return ctx.Err()
	})
	return g.Wait()
}

func (c *Consumer) stableEnds(ctx context.Context) (map[handlers.TopicPartition]int64, error) {
	counts, err := c.client.Partitions(ctx, c.topics...)
	if err != nil {
		return nil, err
	}
	ends := map[handlers.TopicPartition]int64{}
	for topic := range counts {
		offsets, err := c.client.StableOffsets(ctx, topic)
		if err != nil {
			return nil, err
		}
		for p, o := range offsets {
			ends[handlers.TopicPartition{Topic: topic, Partition: p}] = o
		}
	}
	return ends, nil
}

// drained reports whether every partition has come to its target: those
// assigned here by their own word, the others by the group's offset, which
// their owner commits last.
func (c *Consumer) drained(targets, theirs map[handlers.TopicPartition]int64) (bool, error) {
	member, partitions := c.metrics.board.all()
	if !member {
		return false, nil
	}
	mine := map[handlers.TopicPartition]bool{}
	done := true
	for _, p := range partitions {
		p.mu.Lock()
		s, reading := p.PartitionStatus, p.reading
		p.mu.Unlock()
		mine[s.TopicPartition] = true
		if s.State.Stopped() {
			return false, fmt.Errorf("%w: %s/%d is %s: %s", ErrStopped, s.Topic, s.Partition, s.State, s.Reason)
		}
		done = done && reading && s.Committed >= targets[s.TopicPartition]
	}
	for tp, target := range targets {
		if !mine[tp] {
			committed, ok := theirs[tp]
			done = done && ok && committed >= target
		}
	}
	return done, nil
}

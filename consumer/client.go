package consumer

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/produce"
	"github.com/segmentio/kafka-go/protocol/rawproduce"
	"golang.org/x/sync/errgroup"

	"learnsink/handlers"
)

// requestTimeout bounds one request to a broker.
const requestTimeout = 10 * time.Second

// Client asks and tells a Kafka cluster what the verbs need. It holds the one
// transport of the process and is safe for concurrent use.
type Client struct {
	addr      net.Addr
	transport transport
	dialer    *kafka.Dialer
	kafka     *kafka.Client
	codec     *compressor
}

// transport is what a Client needs of a *kafka.Transport.
type transport interface {
	kafka.RoundTripper
	CloseIdleConnections()
}

// NewClient prepares connections; none is opened before the first call.
func NewClient(c Connection) (*Client, error) {
	registerFetch()
	d, err := c.dial()
	if err != nil {
		return nil, err
	}
	codec, err := newCompressor("")
	if err != nil {
		return nil, err
	}
	return &Client{
		addr: d.addr, transport: d.transport, dialer: d.dialer, codec: codec,
		kafka: &kafka.Client{Addr: d.addr, Transport: d.transport, Timeout: requestTimeout},
	}, nil
}

// Close closes the connections. A client that is used afterwards opens new ones.
func (c *Client) Close() { c.transport.CloseIdleConnections() }

// ClusterID names the cluster. Mirrors of a topic live in clusters of other names.
func (c *Client) ClusterID(ctx context.Context) (string, error) {
	m, err := c.metadata(ctx)
	if err != nil {
		return "", err
	}
	return m.ClusterID, nil
}

// Ping reports whether a broker answers.
func (c *Client) Ping(ctx context.Context) error {
	// Metadata comes from the transport's memory once there is any; this does not.
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	_, err := c.kafka.ApiVersions(ctx, &kafka.ApiVersionsRequest{Addr: c.addr})
	return err
}

// metadata is at most a second old: the transport keeps it. It never creates
// a topic by asking for it.
func (c *Client) metadata(ctx context.Context, topics ...string) (*kafka.MetadataResponse, error) {
	return c.kafka.Metadata(ctx, &kafka.MetadataRequest{Topics: topics})
}

// Partitions returns the number of partitions of each of the topics that
// exist; the others are not in the map. Partition ids are 0 to n-1.
func (c *Client) Partitions(ctx context.Context, topics ...string) (map[string]int, error) {
	if len(topics) == 0 {
		return map[string]int{}, nil
	}
	m, err := c.metadata(ctx, topics...)
	if err != nil {
		return nil, err
	}
	counts := make(map[string]int, len(topics))
	for _, t := range m.Topics {
		switch {
		case errors.Is(t.Error, kafka.UnknownTopicOrPartition):
		case t.Error != nil:
			return nil, fmt.Errorf("topic %s: %w", t.Name, t.Error)
		default:
			counts[t.Name] = len(t.Partitions)
		}
	}
	return counts, nil
}

// ErrNoTopic: a topic that is needed does not exist.
var ErrNoTopic = errors.New("topic does not exist")

func (c *Client) partitionCount(ctx context.Context, topic string) (int, error) {
	counts, err := c.Partitions(ctx, topic)
	if err != nil {
		return 0, err
	}
	n, ok := counts[topic]
	if !ok || n == 0 {
		return 0, fmt.Errorf("%w: %s", ErrNoTopic, topic)
	}
	return n, nil
}

// ErrTopicExists is what CreateTopics says of a topic that is there already.
var ErrTopicExists error = kafka.TopicAlreadyExists

// TopicSpec is a topic that is wanted.
type TopicSpec struct {
	Name              string
	Partitions        int               // -1: the broker's default
	ReplicationFactor int               // -1: the broker's default
	Configs           map[string]string // such as cleanup.policy: delete
}

// CreateTopics creates the topics that are not there, and returns what became
// of each: nil, ErrTopicExists, or another error. It returns once
// the new ones are in the metadata.
func (c *Client) CreateTopics(ctx context.Context, specs ...TopicSpec) (map[string]error, error) {
	request := &kafka.CreateTopicsRequest{}
	for _, s := range specs {
		t := kafka.TopicConfig{Topic: s.Name, NumPartitions: s.Partitions, ReplicationFactor: s.ReplicationFactor}
		for _, name := range slices.Sorted(maps.Keys(s.Configs)) {
			t.ConfigEntries = append(t.ConfigEntries, kafka.ConfigEntry{ConfigName: name, ConfigValue: s.Configs[name]})
		}
		request.Topics = append(request.Topics, t)
	}
	ctx, cancel := context.WithTimeout(ctx, 3*requestTimeout)
	defer cancel()
	response, err := c.kafka.CreateTopics(ctx, request)
	if err != nil {
		return nil, err
	}
	return response.Errors, nil
}

// TopicConfigs returns the effective settings of a topic by their names.
func (c *Client) TopicConfigs(ctx context.Context, topic string) (map[string]string, error) {
	response, err := c.kafka.DescribeConfigs(ctx, &kafka.DescribeConfigsRequest{
		Resources: []kafka.DescribeConfigRequestResource{{ResourceType: kafka.ResourceTypeTopic, ResourceName: topic}},
	})
	if err != nil {
		return nil, err
	}
	configs := map[string]string{}
	for _, r := range response.Resources {
		if r.Error != nil {
			return nil, fmt.Errorf("settings of topic %s: %w", topic, r.Error)
		}
		for _, e := range r.ConfigEntries {
			configs[e.ConfigName] = e.ConfigValue
		}
	}
	return configs, nil
}

// compacted reports whether a topic is compacted, beside whatever else.
func (c *Client) compacted(ctx context.Context, topic string) (bool, error) {
	configs, err := c.TopicConfigs(ctx, topic)
	return strings.Contains(configs["cleanup.policy"], "compact"), err
}

// defaultMaxMessageBytes stands in where a topic does not tell its limit.
const defaultMaxMessageBytes = 1 << 20

// maxMessageBytes returns a topic's limit to the size of a record batch.
func (c *Client) maxMessageBytes(ctx context.Context, topic string) (int, error) {
	configs, err := c.TopicConfigs(ctx, topic)
	if err != nil {
		return 0, err
	}
	n, err := strconv.Atoi(configs["max.message.bytes"])
	if err != nil || n <= 0 {
		return defaultMaxMessageBytes, nil
	}
	return n, nil
}

// StartOffsets returns the first offset of each partition of a topic.
func (c *Client) StartOffsets(ctx context.Context, topic string) (map[int]int64, error) {
	return c.offsets(ctx, topic, kafka.FirstOffset, kafka.ReadUncommitted)
}

// EndOffsets returns the offset after the last of each partition of a topic:
// the high watermark, which an open transaction may hold above the stable end.
func (c *Client) EndOffsets(ctx context.Context, topic string) (map[int]int64, error) {
	return c.offsets(ctx, topic, kafka.LastOffset, kafka.ReadUncommitted)
}

// StableOffsets returns the stable end of each partition of a topic: how far
// a read_committed reader can come.
func (c *Client) StableOffsets(ctx context.Context, topic string) (map[int]int64, error) {
	return c.offsets(ctx, topic, kafka.LastOffset, kafka.ReadCommitted)
}

// OffsetsAt returns, for each partition of a topic, the first offset whose
// timestamp is at or after t, or the stable end where there is none.
func (c *Client) OffsetsAt(ctx context.Context, topic string, t time.Time) (map[int]int64, error) {
	found, err := c.offsets(ctx, topic, max(t.UnixMilli(), 0), kafka.ReadCommitted) // what is below 0 has other meanings
	if err != nil {
		return nil, err
	}
	ends, err := c.StableOffsets(ctx, topic)
	if err != nil {
		return nil, err
	}
	for p, o := range found {
		if o < 0 {
			found[p] = ends[p]
		}
	}
	return found, nil
}

func (c *Client) offsets(ctx context.Context, topic string, at int64, isolation kafka.IsolationLevel) (map[int]int64, error) {
	n, err := c.partitionCount(ctx, topic)
	if err != nil {
		return nil, err
	}
	return c.partitionOffsets(ctx, topic, n, at, isolation)
}

func (c *Client) partitionOffsets(ctx context.Context, topic string, partitions int, at int64, isolation kafka.IsolationLevel) (map[int]int64, error) {
	asked := make([]kafka.OffsetRequest, partitions)
	for p := range asked {
		asked[p] = kafka.OffsetRequest{Partition: p, Timestamp: at}
	}
	response, err := c.kafka.ListOffsets(ctx, &kafka.ListOffsetsRequest{
		Topics: map[string][]kafka.OffsetRequest{topic: asked}, IsolationLevel: isolation,
	})
	if err != nil {
		return nil, err
	}
	offsets := make(map[int]int64, partitions)
	for _, p := range response.Topics[topic] {
		if p.Error != nil {
			return nil, fmt.Errorf("offsets of %s/%d: %w", topic, p.Partition, p.Error)
		}
		switch at {
		case kafka.FirstOffset:
			offsets[p.Partition] = p.FirstOffset
		case kafka.LastOffset:
			offsets[p.Partition] = p.LastOffset
		default:
			offsets[p.Partition] = -1
			for o := range p.Offsets {
				offsets[p.Partition] = o
			}
		}
	}
	if len(offsets) != partitions {
		return nil, fmt.Errorf("offsets of %s: the broker told of %d of %d partitions", topic, len(offsets), partitions)
	}
	return offsets, nil
}

// bounds returns the first offset of one partition and the one after the last.
func (c *Client) bounds(ctx context.Context, tp handlers.TopicPartition) (start, end int64, err error) {
	response, err := c.kafka.ListOffsets(ctx, &kafka.ListOffsetsRequest{
		Topics: map[string][]kafka.OffsetRequest{tp.Topic: {kafka.FirstOffsetOf(tp.Partition), kafka.LastOffsetOf(tp.Partition)}},
	})
	if err != nil {
		return 0, 0, err
	}
	told := response.Topics[tp.Topic]
	switch {
	case len(told) == 0:
	case told[0].Error != nil:
		return 0, 0, fmt.Errorf("offsets of %s/%d: %w", tp.Topic, tp.Partition, told[0].Error)
	case told[0].FirstOffset >= 0 && told[0].LastOffset >= 0:
		return told[0].FirstOffset, told[0].LastOffset, nil
	}
	return 0, 0, fmt.Errorf("offsets of %s/%d: the broker told none", tp.Topic, tp.Partition)
}

// GroupOffsets returns the offsets that a group has committed for the topics;
// a partition without one is not in the map.
func (c *Client) GroupOffsets(ctx context.Context, group string, topics ...string) (map[handlers.TopicPartition]int64, error) {
	committed, err := c.groupOffsets(ctx, group, topics...)
	if err != nil {
		return nil, err
	}
	offsets := make(map[handlers.TopicPartition]int64, len(committed))
	for tp, at := range committed {
		offsets[tp] = at.offset
	}
	return offsets, nil
}

// groupOffset is an offset that a group has committed, and what was said with it.
type groupOffset struct {
	offset   int64
	metadata string
}

func (c *Client) groupOffsets(ctx context.Context, group string, topics ...string) (map[handlers.TopicPartition]groupOffset, error) {
	counts, err := c.Partitions(ctx, topics...)
	if err != nil {
		return nil, err
	}
	asked := map[string][]int{}
	for t, n := range counts {
		for p := range n {
			asked[t] = append(asked[t], p)
		}
	}
	return c.committed(ctx, group, asked)
}

// committed returns a group's offsets for partitions of topics.
func (c *Client) committed(ctx context.Context, group string, partitions map[string][]int) (map[handlers.TopicPartition]groupOffset, error) {
	offsets := map[handlers.TopicPartition]groupOffset{}
	if len(partitions) == 0 {
		return offsets, nil
	}
	response, err := c.kafka.OffsetFetch(ctx, &kafka.OffsetFetchRequest{GroupID: group, Topics: partitions})
	if err != nil {
		return nil, err
	}
	if errors.Is(response.Error, kafka.GroupIdNotFound) {
		return offsets, nil
	}
	if response.Error != nil {
		return nil, fmt.Errorf("offsets of group %s: %w", group, response.Error)
	}
	for topic, told := range response.Topics {
		for _, p := range told {
			if p.Error != nil {
				return nil, fmt.Errorf("offsets of group %s, %s/%d: %w", group, topic, p.Partition, p.Error)
			}
			if p.CommittedOffset >= 0 {
				offsets[handlers.TopicPartition{Topic: topic, Partition: p.Partition}] = groupOffset{p.CommittedOffset, p.Metadata}
			}
		}
	}
	return offsets, nil
}

// Produced says where a message came to lie.
type Produced struct {
	Partition int
	Offset    int64
}

// ErrTooLarge: a message alone is larger than its topic takes.
var ErrTooLarge = errors.New("message is larger than its topic takes")

// Produce writes messages to a topic, acknowledged by all in-sync replicas,
// and says where each lies. The partition is the Java client's: murmur2 of
// the key; messages without a key go round robin. Order within a partition is
// the order of messages. What fails for a reason that may pass is tried again
// until ctx ends, which may write a message twice; so what an error leaves
// written is unknown.
func (c *Client) Produce(ctx context.Context, topic string, messages []Message) ([]Produced, error) {
	type run struct {
		messages []Message
		at       []int // where each message of the run stands in messages
	}
	var runs map[int]*run
	limit := 0
	began := time.Now()
	prepare := func() (struct{}, error) {
		count, err := c.partitionCount(ctx, topic)
		if errors.Is(err, ErrNoTopic) && time.Since(began) > 3*time.Second { // metadata is not that old
			return struct{}{}, backoff.Permanent(err)
		}
		if err != nil {
			return struct{}{}, err
		}
		partition := partitioner(count)
		if limit, err = c.maxMessageBytes(ctx, topic); err != nil {
			return struct{}{}, err
		}
		runs = map[int]*run{}
		for i, m := range messages {
			p := i % count
			if m.Key != nil {
				p = partition(m.Key)
			}
			if runs[p] == nil {
				runs[p] = &run{}
			}
			runs[p].messages, runs[p].at = append(runs[p].messages, m), append(runs[p].at, i)
		}
		return struct{}{}, nil
	}
	if _, err := untilDone(ctx, prepare); err != nil {
		return nil, err
	}
	produced := make([]Produced, len(messages))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(8)
	for p, r := range runs {
		g.Go(func() error {
			for n := 0; n < len(r.messages); {
				batch, taken, err := packBatch(pointers(r.messages[n:]), c.codec, limit, time.Now())
				if err != nil {
					return err
				}
				if taken == 0 {
					return fmt.Errorf("message %d of topic %s: %w", r.at[n], topic, ErrTooLarge)
				}
				base, err := untilDone(ctx, func() (int64, error) {
					base, err := c.produceBatch(ctx, topic, p, batch)
					if errors.Is(err, ErrTooLarge) {
						return 0, backoff.Permanent(err)
					}
					return base, err
				})
				if err != nil {
					return err
				}
				for i := range taken {
					produced[r.at[n+i]] = Produced{Partition: p, Offset: base + int64(i)}
				}
				n += taken
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return produced, nil
}

// batchMessages is how many messages packBatch puts into a batch at most.
const batchMessages = 10_000

// packBatch encodes as many of messages as a batch of limit bytes holds, and
// returns how many; 0 where not even one fits.
func packBatch(messages iter.Seq[*Message], codec *compressor, limit int, now time.Time) (batch []byte, taken int, err error) {
	var b recordBatch
	for m := range messages {
		at := now
		if !m.Timestamp.IsZero() {
			at = m.Timestamp
		}
		if b.count == batchMessages || !b.add(m, at.UnixMilli(), limit) {
			break
		}
	}
	taken = b.count
	if batch, err = b.seal(nil, codec); err != nil || len(batch) > limit {
		return nil, 0, err
	}
	return batch, taken, nil
}

func pointers(messages []Message) iter.Seq[*Message] {
	return func(yield func(*Message) bool) {
		for i := range messages {
			if !yield(&messages[i]) {
				return
			}
		}
	}
}

// produceBatch sends one encoded batch of no transaction and returns the
// offset of its first record. ErrTooLarge: the broker found it too large.
func (c *Client) produceBatch(ctx context.Context, topic string, partition int, batch []byte) (int64, error) {
	l := lane{topic, partition}
	offsets, errs := c.produce(ctx, "", map[lane]wireBatch{l: {head: batch}})
	return offsets[l], errs[l]
}

// wireBatch is an encoded record batch in two pieces.
type wireBatch struct{ head, rest []byte }

// produce sends encoded batches, one for each output partition, acknowledged by
// all in-sync replicas: one request to each leader. (A broker that verifies
// transactions refuses a second request of one producer while it is at the
// first: "Unable to verify the partition has been added".) It returns the
// offset of each batch's first record, or the error of those that failed;
// ErrTooLarge: the broker found it too large, and wrote nothing.
func (c *Client) produce(ctx context.Context, transactionalID string, batches map[lane]wireBatch) (offsets map[lane]int64, errs map[lane]error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	offsets, errs = map[lane]int64{}, map[lane]error{}
	leaders, err := c.leaders(ctx, slices.Collect(maps.Keys(batches)))
	if err != nil {
		for l := range batches {
			errs[l] = err
		}
		return nil, errs
	}
	var mu sync.Mutex
	var g errgroup.Group
	for _, lanes := range leaders {
		g.Go(func() error {
			responses, err := c.produceTo(ctx, transactionalID, lanes, batches)
			mu.Lock()
			defer mu.Unlock()
			for _, l := range lanes {
				response, told := responses[l]
				failure := err
				if failure == nil && !told {
					failure = errors.New("the broker did not say what became of it")
				}
				if failure == nil && response.ErrorCode != 0 {
					failure = kafka.Error(response.ErrorCode)
				}
				switch {
				case errors.Is(failure, kafka.MessageSizeTooLarge), errors.Is(failure, kafka.RecordListTooLarge):
					errs[l] = fmt.Errorf("produce to %s/%d: %w", l.topic, l.partition, ErrTooLarge)
				case failure != nil:
					errs[l] = fmt.Errorf("produce to %s/%d: %w", l.topic, l.partition, failure)
				default:
					offsets[l] = response.BaseOffset
				}
			}
			return nil
		})
	}
	_ = g.Wait() // nil
	return offsets, errs
}

// leaders sorts output partitions by the broker that leads them.
func (c *Client) leaders(ctx context.Context, lanes []lane) (map[int][]lane, error) {
	var topics []string
	for _, l := range lanes {
		if !slices.Contains(topics, l.topic) {
			topics = append(topics, l.topic)
		}
	}
	m, err := c.metadata(ctx, topics...)
	if err != nil {
		return nil, err
	}
	led := map[lane]int{}
	for _, t := range m.Topics {
		for _, p := range t.Partitions {
			if p.Error == nil {
				led[lane{t.Name, p.ID}] = p.Leader.ID
			}
		}
	}
	leaders := map[int][]lane{}
	for _, l := range lanes {
		leader, ok := led[l]
		if !ok {
			return nil, fmt.Errorf("produce to %s/%d: %w", l.topic, l.partition, kafka.LeaderNotAvailable)
		}
		leaders[leader] = append(leaders[leader], l)
	}
	return leaders, nil
}

// produceTo is one request to the leader of all the lanes.
func (c *Client) produceTo(ctx context.Context, transactionalID string, lanes []lane, batches map[lane]wireBatch) (map[lane]produce.ResponsePartition, error) {
	request := &rawproduce.Request{TransactionalID: transactionalID, Acks: int16(kafka.RequireAll), Timeout: int32(requestTimeout.Milliseconds())}
	for _, l := range lanes {
		// kafka-go writes the raw records as they are: their length is ours to put before them.
		b := batches[l]
		size := binary.BigEndian.AppendUint32(nil, uint32(len(b.head)+len(b.rest)))
		p := rawproduce.RequestPartition{Partition: int32(l.partition), RecordSet: protocol.RawRecordSet{Reader: &net.Buffers{size, b.head, b.rest}}}
		at := slices.IndexFunc(request.Topics, func(t rawproduce.RequestTopic) bool { return t.Topic == l.topic })
		if at < 0 {
			at = len(request.Topics)
			request.Topics = append(request.Topics, rawproduce.RequestTopic{Topic: l.topic})
		}
		request.Topics[at].Partitions = append(request.Topics[at].Partitions, p)
	}
	response, err := c.transport.RoundTrip(ctx, c.addr, request)
	if err != nil {
		return nil, err
	}
	told := map[lane]produce.ResponsePartition{}
	for _, t := range response.(*produce.Response).Topics {
		for _, p := range t.Partitions {
			told[lane{t.Topic, int(p.Partition)}] = p
		}
	}
	return told, nil
}

// Tail hands the rows of one partition to fn, from offset from on and in
// order, as they come, read_committed, until ctx ends or fn returns an error,
// which it then returns. What fails for a reason that may pass is tried again.
// A record's bytes stay valid after fn has returned.
func (c *Client) Tail(ctx context.Context, topic string, partition int, from int64, fn func(*handlers.Record) error) error {
	return c.read(ctx, topic, partition, from, -1, fn)
}

// ReadRange hands the rows of the offsets [from, to) of one partition to fn,
// in order, and returns nil once it has come to to. Otherwise as Tail.
func (c *Client) ReadRange(ctx context.Context, topic string, partition int, from, to int64, fn func(*handlers.Record) error) error {
	if to < 0 {
		to = 0
	}
	return c.read(ctx, topic, partition, from, to, fn)
}

// read goes on for ever where to is negative.
func (c *Client) read(ctx context.Context, topic string, partition int, from, to int64, fn func(*handlers.Record) error) error {
	log := newPartitionLog(c, handlers.TopicPartition{Topic: topic, Partition: partition}, fetchLimits{})
	for to < 0 || from < to {
		chunk, err := untilDone(ctx, func() (Chunk, error) {
			chunk, err := log.Read(ctx, from, 250*time.Millisecond)
			if stop := (*StopError)(nil); errors.As(err, &stop) {
				return chunk, backoff.Permanent(err)
			}
			return chunk, err
		})
		if err != nil {
			return err
		}
		for i := range chunk.Records {
			if to >= 0 && chunk.Records[i].Offset >= to {
				return nil
			}
			if err := fn(&chunk.Records[i]); err != nil {
				return err
			}
		}
		from = chunk.Next
	}
	return ctx.Err()
}

// newBackOff waits 50 ms, then longer, up to 10 s, with jitter.
func newBackOff() *backoff.ExponentialBackOff {
	return &backoff.ExponentialBackOff{
		InitialInterval: 50 * time.Millisecond, RandomizationFactor: 0.5, Multiplier: 2, MaxInterval: 10 * time.Second,
	}
}

// untilDone tries op until it succeeds, returns a backoff.Permanent error, or
// ctx ends; then it returns op's last error, beside ctx's.
func untilDone[T any](ctx context.Context, op func() (T, error)) (T, error) {
	var last error
	v, err := backoff.Retry(ctx, func() (T, error) {
		v, err := op()
		last = err
		return v, err
	}, backoff.WithBackOff(newBackOff()), backoff.WithMaxElapsedTime(0)) // the library's own limit is 15 minutes
	if err != nil && ctx.Err() != nil && last != nil && !errors.Is(last, err) {
		err = fmt.Errorf("%w: %w", err, last)
	}
	return v, err
}

// partitioner returns the Java client's choice among count partitions for a
// key: murmur2.
func partitioner(count int) func(key []byte) int {
	ids := make([]int, count)
	for i := range ids {
		ids[i] = i
	}
	balancer := kafka.Murmur2Balancer{Consistent: true}
	return func(key []byte) int { return balancer.Balance(kafka.Message{Key: key}, ids...) }
}

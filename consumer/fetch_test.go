package consumer

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"

	"learnsink/handlers"
	"learnsink/test/kafkatest"
)

func newTestClient(t testing.TB, cluster *kafkatest.Cluster) *Client {
	t.Helper()
	c, err := NewClient(Connection{Brokers: cluster.Brokers})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// readAll reads a partition's rows from an offset to the stable end.
func readAll(t testing.TB, c *Client, tp handlers.TopicPartition, from int64) (values []string, next int64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	log := newPartitionLog(c, tp, fetchLimits{bytes: 4 << 10}) // so that it takes several fetches
	ends, err := untilDone(ctx, func() (map[int]int64, error) { return c.StableOffsets(ctx, tp.Topic) })
	if err != nil {
		t.Fatal(err)
	}
	for from < ends[tp.Partition] {
		chunk, err := untilDone(ctx, func() (Chunk, error) { return log.Read(ctx, from, 100*time.Millisecond) })
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range chunk.Records {
			values = append(values, string(r.Value))
		}
		from = chunk.Next
	}
	return values, from
}

func TestFetchLeavesOutWhatIsNotCommitted(t *testing.T) {
	t.Parallel()
	clusters(t, func(t *testing.T, cluster *kafkatest.Cluster) {
		topic := cluster.Topic(t, "rows", 1)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		var want []string
		producer := cluster.Producer(t, kgo.TransactionalID(kafkatest.Name("txn")))
		for i := range 12 {
			end := kgo.TransactionEndTry(i%3 != 1)
			if err := producer.BeginTransaction(); err != nil {
				t.Fatal(err)
			}
			for j := range 5 {
				value := fmt.Sprintf("%d-%d", i, j)
				if err := producer.ProduceSync(ctx, &kgo.Record{Topic: topic, Value: []byte(value)}).FirstErr(); err != nil {
					t.Fatal(err)
				}
				if end {
					want = append(want, value)
				}
				if j == 2 { // others write amid the transaction
					cluster.Produce(t, &kgo.Record{Topic: topic, Value: []byte("plain")})
					want = append(want[:len(want):len(want)], "plain")
				}
			}
			if err := producer.EndTransaction(ctx, end); err != nil {
				t.Fatal(err)
			}
		}
		c := newTestClient(t, cluster)
		got, next := readAll(t, c, handlers.TopicPartition{Topic: topic}, 0)
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%v, want %v", got, want)
		}
		if end := cluster.Stable(t, topic)[0]; next != end || end != 12*7 {
			t.Errorf("next %d, the stable end is %d", next, end)
		}
		t.Run("from anywhere", func(t *testing.T) {
			for from := range next {
				got, _ := readAll(t, c, handlers.TopicPartition{Topic: topic}, from)
				if len(got) > len(want) || !reflect.DeepEqual(got, append([]string(nil), want[len(want)-len(got):]...)) {
					t.Errorf("from %d: %v", from, got)
				}
			}
		})
		t.Run("an open transaction is the end", func(t *testing.T) {
			if err := producer.BeginTransaction(); err != nil {
				t.Fatal(err)
			}
			if err := producer.ProduceSync(ctx, &kgo.Record{Topic: topic, Value: []byte("open")}).FirstErr(); err != nil {
				t.Fatal(err)
			}
			stable, err := c.StableOffsets(ctx, topic)
			if err != nil || stable[0] != next {
				t.Errorf("stable end %d, %v, want %d", stable[0], err, next)
			}
			ends, err := c.EndOffsets(ctx, topic)
			if err != nil || ends[0] != next+1 {
				t.Errorf("end %d, %v, want %d", ends[0], err, next+1)
			}
			log := newPartitionLog(c, handlers.TopicPartition{Topic: topic}, fetchLimits{})
			chunk, err := log.Read(ctx, next, 50*time.Millisecond)
			if err != nil || chunk.Next != next || len(chunk.Records) > 0 {
				t.Errorf("%+v, %v", chunk, err)
			}
			if err := producer.EndTransaction(ctx, kgo.TryAbort); err != nil {
				t.Fatal(err)
			}
		})
	})
}

func TestFetchReadsEveryCompression(t *testing.T) {
	t.Parallel()
	clusters(t, func(t *testing.T, cluster *kafkatest.Cluster) {
		topic := cluster.Topic(t, "rows", 1)
		var want []string
		for _, codec := range []kgo.CompressionCodec{kgo.NoCompression(), kgo.GzipCompression(), kgo.SnappyCompression(), kgo.Lz4Compression(), kgo.ZstdCompression()} {
			producer := cluster.Producer(t, kgo.ProducerBatchCompression(codec))
			for i := range 30 {
				value := fmt.Sprint(i, strings.Repeat("learning record ", i))
				want = append(want, value)
				producer.Produce(t.Context(), &kgo.Record{Topic: topic, Value: []byte(value)}, nil)
			}
			if err := producer.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if got, _ := readAll(t, newTestClient(t, cluster), handlers.TopicPartition{Topic: topic}, 0); !reflect.DeepEqual(got, want) {
			t.Errorf("%d rows, want %d", len(got), len(want))
		}
	})
}

func TestFetchNamesWhatItCannotDo(t *testing.T) {
	t.Parallel()
	clusters(t, func(t *testing.T, cluster *kafkatest.Cluster) {
		topic := cluster.Topic(t, "rows", 1)
		tp := handlers.TopicPartition{Topic: topic}
		for i := range 10 {
			cluster.Produce(t, &kgo.Record{Topic: topic, Value: fmt.Append(nil, i)})
		}
		c := newTestClient(t, cluster)
		cluster.DeleteRecords(t, topic, 0, 4)
		read := func(limits fetchLimits, from int64) (Chunk, error) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			log := newPartitionLog(c, tp, limits)
			return untilDone(ctx, func() (Chunk, error) {
				chunk, err := log.Read(ctx, from, 50*time.Millisecond)
				if err == nil || errors.Is(err, errBeyondEnd) || errors.As(err, new(*StopError)) {
					return chunk, permanent(err)
				}
				return chunk, err
			})
		}
		stop := func(name string, limits fetchLimits, from int64, want StopError) {
			t.Helper()
			_, err := read(limits, from)
			if got := (*StopError)(nil); !errors.As(err, &got) || got.State != want.State || !strings.Contains(got.Reason, want.Reason) {
				t.Errorf("%s: %v, want %v", name, err, want.Error())
			}
		}
		stop("deleted", fetchLimits{}, 1, StopError{handlers.DataLost, "offsets 1 to 3 are no longer in the log, which begins at 4"})
		if chunk, err := read(fetchLimits{}, 4); err != nil || len(chunk.Records) != 1 || chunk.Records[0].Offset != 4 {
			t.Errorf("the first that is there: %+v, %v", chunk, err)
		}
		if chunk, err := read(fetchLimits{}, 10); err != nil || chunk.Next != 10 {
			t.Errorf("at the end: %+v, %v", chunk, err)
		}
		if _, err := read(fetchLimits{}, 11); !errors.Is(err, errBeyondEnd) {
			t.Errorf("past the end: %v", err)
		}
		stop("past the end for long", fetchLimits{beyondEnd: 1}, 11, StopError{handlers.LogDiverged, "the next offset is 11, but the log ends at 10"})

		zstd := cluster.Producer(t, kgo.ProducerBatchCompression(kgo.ZstdCompression()))
		if err := zstd.ProduceSync(t.Context(), &kgo.Record{Topic: topic, Value: make([]byte, 3<<20)}).FirstErr(); err != nil {
			t.Fatal(err)
		}
		stop("a bomb", fetchLimits{decompressed: 1 << 20}, 10, StopError{handlers.Oversized, "record batch at offset 10: record batch decompresses beyond the cap of 1048576 bytes"})
		if chunk, err := read(fetchLimits{bytes: 100}, 10); err != nil || len(chunk.Records) != 1 || len(chunk.Records[0].Value) != 3<<20 {
			t.Errorf("a row larger than a fetch: %v", err)
		}
		if _, err := newPartitionLog(c, handlers.TopicPartition{Topic: kafkatest.Name("none")}, fetchLimits{}).Read(t.Context(), 0, 0); err == nil {
			t.Error("a topic that is not there: no error")
		}
	})
}

// TestFetchPassesCompactedTails reads a compacted topic to its end: the last
// batches hold fewer records than offsets, or none.
// TestFetchNoticesAnOlderLeader: rows of an older leader than those before
// them are another log's.
func TestFetchNoticesAnOlderLeader(t *testing.T) {
	batch := func(base int64, leader int32) []byte {
		b := at(mustEncode(t, NoCompression, Message{Value: []byte("{}")}), base)
		binary.BigEndian.PutUint32(b[atLeader:], uint32(leader))
		return b
	}
	for _, c := range []struct {
		leaders []int32
		stop    bool
	}{
		{[]int32{0, 0, 3, 3, 7}, false},
		{[]int32{-1, 4, -1, 5}, false},
		{[]int32{3, 4, 3}, true},
		{[]int32{2, -1, 0}, true},
	} {
		l := newPartitionLog(nil, handlers.TopicPartition{Topic: "rows"}, fetchLimits{})
		var raw []byte
		for i, leader := range c.leaders {
			raw = append(raw, batch(int64(i), leader)...)
		}
		l.set.fill(raw, nil)
		var err error
		for i := range c.leaders {
			if _, err = l.Read(t.Context(), int64(i), 0); err != nil {
				break
			}
		}
		var stopped *StopError
		if got := errors.As(err, &stopped) && stopped.State == handlers.LogDiverged; got != c.stop || !c.stop && err != nil {
			t.Errorf("leaders %v: %v", c.leaders, err)
		}
	}
}

// TestFetchStopsAtAHole that nothing explains; where a topic is compacted it
// is passed.
func TestFetchStopsAtAHole(t *testing.T) {
	t.Parallel()
	for _, policy := range []string{"delete", "compact", "compact,delete"} {
		cluster := kafkatest.New(t)
		topic := cluster.Topic(t, "rows", 1, "cleanup.policy", policy)
		l := newPartitionLog(newTestClient(t, cluster), handlers.TopicPartition{Topic: topic}, fetchLimits{})
		l.strict = true
		batch := mustEncode(t, NoCompression, Message{Value: []byte("{}")})
		l.set.fill(append(at(batch, 0), at(batch, 4)...), nil)
		if c, err := l.Read(t.Context(), 0, 0); err != nil || c.Next != 1 || c.Hole != 0 {
			t.Fatalf("%+v, %v", c, err)
		}
		c, err := l.Read(t.Context(), 1, 0)
		if policy != "delete" {
			if err != nil || c.Next != 5 || c.Hole != 3 || len(c.Records) != 1 {
				t.Errorf("%s: %+v, %v", policy, c, err)
			}
			continue
		}
		var stopped *StopError
		if !errors.As(err, &stopped) || stopped.State != handlers.DataLost || !strings.Contains(stopped.Reason, "offsets 1 to 3 ") {
			t.Errorf("%+v, %v", c, err)
		}
	}
}

// TestOffsetsWithoutARecordAreToldApart by why they have none.
func TestOffsetsWithoutARecordAreToldApart(t *testing.T) {
	batch := func(base int64, attributes byte) []byte {
		return edit(at(mustEncode(t, NoCompression, Message{Value: []byte("{}")}, Message{Value: []byte("{}")}), base), func(b []byte) {
			b[atAttributes+1] |= attributes
			binary.BigEndian.PutUint64(b[atProducerID:], 7)
			binary.BigEndian.PutUint32(b[atLastOffsetDelta:], 2) // the last record is compacted away
		})
	}
	l := newPartitionLog(nil, handlers.TopicPartition{Topic: "rows"}, fetchLimits{})
	reg := prometheus.NewRegistry()
	l.metrics = NewMetrics(reg)
	raw := slices.Concat(batch(0, 0), batch(3, attrTransactional), batch(6, attrTransactional|attrControl), batch(9, 0))
	l.set.fill(raw, []abortedTxn{{7, 3}})
	for from := int64(0); from < 12; {
		c, err := l.Read(t.Context(), from, 0)
		if err != nil {
			t.Fatal(err)
		}
		from = c.Next
	}
	for reason, want := range map[string]int{"marker": 3, "aborted": 3, "compacted": 2} {
		exposes(t, reg, fmt.Sprintf(`learnsink_offsets_skipped_total{reason="%s",topic="rows"} %d`, reason, want))
	}
}

func TestFetchPassesCompactedTails(t *testing.T) {
	t.Parallel()
	cluster := kafkatest.New(t)
	topic := cluster.Topic(t, "rows", 1, "cleanup.policy", "compact", "min.cleanable.dirty.ratio", "0",
		"segment.ms", "1", "min.compaction.lag.ms", "0", "delete.retention.ms", "0")
	cluster.Produce(t, &kgo.Record{Topic: topic, Key: []byte("the first"), Value: []byte("first")}) // stays, and so does the log's start
	for i := range 40 {
		cluster.Produce(t, &kgo.Record{Topic: topic, Key: fmt.Append(nil, "k", i%3), Value: fmt.Append(nil, i)})
		pause(t.Context(), time.Millisecond)
	}
	cluster.Fake.Compact()
	values, next := readAll(t, newTestClient(t, cluster), handlers.TopicPartition{Topic: topic}, 0)
	if next != 41 || len(values) < 4 || len(values) >= 41 || values[0] != "first" || values[len(values)-1] != "39" {
		t.Errorf("next %d, values %v", next, values)
	}
	t.Logf("%d of 41 records are left", len(values))
}

func TestClient(t *testing.T) {
	t.Parallel()
	clusters(t, func(t *testing.T, cluster *kafkatest.Cluster) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		c := newTestClient(t, cluster)
		if err := c.Ping(ctx); err != nil {
			t.Error(err)
		}
		if id, err := c.ClusterID(ctx); err != nil || id == "" {
			t.Errorf("cluster id %q, %v", id, err)
		}
		topic := kafkatest.Name("made")
		spec := TopicSpec{Name: topic, Partitions: 3, ReplicationFactor: 1, Configs: map[string]string{"retention.ms": "1000000", "max.message.bytes": "50000"}}
		if errs, err := c.CreateTopics(ctx, spec); err != nil || errs[topic] != nil {
			t.Fatal(errs, err)
		}
		if errs, err := c.CreateTopics(ctx, spec); err != nil || !errors.Is(errs[topic], ErrTopicExists) {
			t.Error(errs, err)
		}
		configs, err := c.TopicConfigs(ctx, topic)
		if err != nil || configs["retention.ms"] != "1000000" {
			t.Error(configs, err)
		}
		if n, err := c.maxMessageBytes(ctx, topic); n != 50_000 || err != nil {
			t.Errorf("max.message.bytes %d, %v", n, err)
		}
		counts, err := c.Partitions(ctx, topic, kafkatest.Name("none"))
		if err != nil || !reflect.DeepEqual(counts, map[string]int{topic: 3}) {
			t.Errorf("%v, %v", counts, err)
		}
		if _, err := c.StableOffsets(ctx, kafkatest.Name("none")); !errors.Is(err, ErrNoTopic) {
			t.Error(err)
		}

		before := time.Now().Add(-time.Millisecond)
		var messages []Message
		for i := range 500 {
			m := Message{Key: fmt.Append(nil, "k", i%20), Value: fmt.Append(nil, i, strings.Repeat("x", 500))}
			if i%50 == 0 {
				m.Key = nil
			}
			messages = append(messages, m)
		}
		produced, err := c.Produce(ctx, topic, messages)
		if err != nil {
			t.Fatal(err)
		}
		partitioned := kgo.StickyKeyPartitioner(nil).ForTopic(topic) // the Java client's murmur2
		for i, p := range produced {
			if m := messages[i]; m.Key != nil && partitioned.Partition(&kgo.Record{Key: m.Key}, 3) != p.Partition {
				t.Errorf("key %s is in partition %d", m.Key, p.Partition)
			}
			if i%25 > 0 {
				continue
			}
			var got *handlers.Record
			err := c.ReadRange(ctx, topic, p.Partition, p.Offset, p.Offset+1, func(r *handlers.Record) error { got = r; return nil })
			if err != nil || got == nil || string(got.Value) != string(messages[i].Value) {
				t.Fatalf("message %d lies at %+v: %v, %v", i, p, got, err)
			}
		}
		total := 0
		for p, records := range cluster.Read(t, topic) {
			total += len(records)
			last := -1
			for _, r := range records { // the order of the messages
				var i int
				fmt.Sscanf(string(r.Value), "%dx", &i)
				if i <= last {
					t.Errorf("partition %d: %d after %d", p, i, last)
				}
				last = i
			}
		}
		if total != len(messages) {
			t.Errorf("%d records, want %d", total, len(messages))
		}
		if _, err := c.Produce(ctx, topic, []Message{{Value: randomBytes(60_000)}}); !errors.Is(err, ErrTooLarge) {
			t.Errorf("a message that is too large: %v", err)
		}
		if _, err := c.Produce(ctx, kafkatest.Name("none"), []Message{{}}); !errors.Is(err, ErrNoTopic) {
			t.Errorf("a topic that is not there: %v", err)
		}

		ends, err := c.StableOffsets(ctx, topic)
		if err != nil {
			t.Fatal(err)
		}
		starts, err := c.StartOffsets(ctx, topic)
		if err != nil || !reflect.DeepEqual(starts, map[int]int64{0: 0, 1: 0, 2: 0}) {
			t.Error(starts, err)
		}
		if at, err := c.OffsetsAt(ctx, topic, before); err != nil || !reflect.DeepEqual(at, starts) {
			t.Error(at, err)
		}
		if at, err := c.OffsetsAt(ctx, topic, time.Now().Add(time.Hour)); err != nil || !reflect.DeepEqual(at, ends) {
			t.Error(at, ends, err)
		}
		// A new broker takes a moment until it coordinates groups.
		if committed, err := untilDone(ctx, func() (map[handlers.TopicPartition]int64, error) {
			return c.GroupOffsets(ctx, "nobody", topic)
		}); err != nil || len(committed) > 0 {
			t.Error(committed, err)
		}

		t.Run("tail", func(t *testing.T) {
			enough := errors.New("enough")
			seen := int64(0)
			produced := make(chan struct{})
			go func() {
				cluster.Produce(t, &kgo.Record{Topic: topic, Partition: 1, Value: []byte("last")})
				close(produced)
			}()
			defer func() { <-produced }()
			err := c.Tail(ctx, topic, 1, 0, func(r *handlers.Record) error {
				if seen++; string(r.Value) == "last" {
					return enough
				}
				return nil
			})
			if !errors.Is(err, enough) || seen != ends[1]+1 {
				t.Errorf("%d rows, %v", seen, err)
			}
		})
	})
}

func permanent(err error) error {
	if err == nil {
		return nil
	}
	return backoff.Permanent(err)
}

// randomBytes do not compress.
func randomBytes(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{1}).Read(b)
	return b
}

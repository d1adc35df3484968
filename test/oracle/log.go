package oracle

import (
	"context"
	"fmt"
	"iter"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"learnsink/test/rowgen"
)

// Ends returns how far each partition of a topic is committed.
func Ends(ctx context.Context, brokers []string, topic string) (map[int32]int64, error) {
	c, err := kgo.NewClient(kgo.SeedBrokers(brokers...))
	if err != nil {
		return nil, err
	}
	defer c.Close()
	admin := kadm.NewClient(c)
	// A broker says that a transaction has ended before its markers are
	// written, so what is committed may take a moment to be stable.
	for settled := time.Now().Add(10 * time.Second); ; {
		stable, err := admin.ListCommittedOffsets(ctx, topic)
		if err == nil {
			err = stable.Error()
		}
		if err != nil {
			return nil, fmt.Errorf("ends of %s: %w", topic, err)
		}
		high, err := admin.ListEndOffsets(ctx, topic)
		if err != nil {
			return nil, fmt.Errorf("ends of %s: %w", topic, err)
		}
		ends, behind := map[int32]int64{}, false
		for p, end := range stable[topic] {
			ends[p] = end.Offset
			behind = behind || end.Offset < high[topic][p].Offset
		}
		if !behind || time.Now().After(settled) {
			return ends, nil
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// Log yields what stands in a partition below end, in order, without markers:
// what is committed, or, uncommitted, all of it. An error ends it.
func Log(ctx context.Context, brokers []string, topic string, partition int32, end int64, uncommitted bool) iter.Seq2[*kgo.Record, error] {
	return func(yield func(*kgo.Record, error) bool) {
		if end == 0 {
			return
		}
		level := kgo.ReadCommitted()
		if uncommitted {
			level = kgo.ReadUncommitted()
		}
		c, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.FetchIsolationLevel(level), kgo.KeepControlRecords(),
			kgo.FetchMaxPartitionBytes(16<<20), kgo.FetchMaxWait(time.Second),
			kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {partition: kgo.NewOffset().At(0)}}))
		if err != nil {
			yield(nil, err)
			return
		}
		defer c.Close()
		for next := int64(0); next < end; {
			ctx, cancel := context.WithTimeout(ctx, time.Minute)
			fetches := c.PollFetches(ctx)
			cancel()
			if err := fetches.Err(); err != nil {
				yield(nil, fmt.Errorf("read %s-%d from %d to %d: %w", topic, partition, next, end, err))
				return
			}
			for _, r := range fetches.Records() {
				next = r.Offset + 1
				if !r.Attrs.IsControl() && !yield(r, nil) {
					return
				}
			}
		}
	}
}

// Record is a generated record as it is sent, known again by its name in the story.
func Record(topic, name string, rec rowgen.Record) *kgo.Record {
	r := &kgo.Record{Topic: topic, Key: rec.Key, Value: rec.Value, Timestamp: rec.EventTime}
	for _, h := range rec.Headers {
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: h.Key, Value: h.Value})
	}
	r.Headers = append(r.Headers, kgo.RecordHeader{Key: Header, Value: []byte(name)})
	return r
}

// ID is the id of a record's outcome.
func ID(r *kgo.Record) string { return fmt.Sprintf("%s-%d-%d", r.Topic, r.Partition, r.Offset) }

// HeaderOf is a record's last header of that name, "" where there is none.
func HeaderOf(r *kgo.Record, key string) (value string) {
	for _, h := range r.Headers {
		if h.Key == key {
			value = string(h.Value)
		}
	}
	return value
}

// ByKey partitions as Kafka's Java client does; records without a key go to partition 0.
func ByKey() kgo.Partitioner {
	return kgo.BasicConsistentPartitioner(func(string) func(*kgo.Record, int) int {
		return func(r *kgo.Record, n int) int { return PartitionOf(r.Key, 0, n) }
	})
}

// PartitionOf is which of n partitions Kafka's Java client gives a key; without a key that of source.
func PartitionOf(key []byte, source int32, n int) int {
	if key == nil {
		return int(source) % n
	}
	return int(murmur2(key)&0x7fffffff) % n
}

// murmur2 is the hash of Kafka's Java client, written down once more: the
// outputs' partitions are held against it.
func murmur2(b []byte) uint32 {
	const m = 0x5bd1e995
	h := uint32(0x9747b28c) ^ uint32(len(b))
	for ; len(b) >= 4; b = b[4:] {
		k := uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16 | uint32(b[3])<<24
		k *= m
		k ^= k >> 24
		h = h*m ^ k*m
	}
	switch len(b) {
	case 3:
		h ^= uint32(b[2]) << 16
		fallthrough
	case 2:
		h ^= uint32(b[1]) << 8
		fallthrough
	case 1:
		h = (h ^ uint32(b[0])) * m
	}
	h = (h ^ h>>13) * m
	return h ^ h>>15
}

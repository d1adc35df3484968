package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// forever is the retention of all topics: the rows' times are of long ago.
var forever = "-1"

func (b *bench) createTopic(ctx context.Context, topic string, partitions int) error {
	if _, err := b.admin.CreateTopic(ctx, int32(partitions), 1, map[string]*string{"retention.ms": &forever}, topic); err != nil {
		return fmt.Errorf("create the topic %s: %w", topic, err)
	}
	// The broker says so before it knows of them itself, and not every client tries again.
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		ends, _, err := b.ends(ctx, topic)
		if err == nil && len(ends) == partitions {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the topic %s does not come: %w", topic, err)
		}
	}
}

// dropTopics deletes topics; those that are not there do not matter.
func (b *bench) dropTopics(ctx context.Context, topics ...string) {
	if _, err := b.admin.DeleteTopics(ctx, topics...); err != nil {
		say("delete topics: %v", err)
	}
}

// ends returns the end offset of each partition of a topic; none where there is no such topic.
func (b *bench) ends(ctx context.Context, topic string) (ends map[int32]int64, sum int64, err error) {
	listed, err := b.admin.ListEndOffsets(ctx, topic)
	if err != nil {
		return nil, 0, err
	}
	ends = map[int32]int64{}
	listed.Each(func(o kadm.ListedOffset) {
		if o.Err == nil {
			ends[o.Partition] = o.Offset
			sum += o.Offset
		} else if o.Err != kerr.UnknownTopicOrPartition {
			err = o.Err
		}
	})
	return ends, sum, err
}

// prepare sees that a topic holds the rows of a set, in learnsink's form or
// the plain one. It is read again and again, by new groups.
func (b *bench) prepare(ctx context.Context, s set, plain bool) (topic string, err error) {
	topic = s.topic()
	if plain {
		topic = s.plainTopic()
	}
	if b.topics[topic] {
		return topic, nil
	}
	want := int64(0)
	for r := range s.all() {
		if !plain || r.fault == 0 {
			want++
		}
	}
	ends, sum, err := b.ends(ctx, topic)
	if err != nil {
		return "", err
	}
	if sum != want || len(ends) != s.partitions {
		if len(ends) > 0 { // half made
			b.dropTopics(ctx, topic)
		}
		say("%d rows are put into %s", want, topic)
		if err := b.createTopic(ctx, topic, s.partitions); err != nil {
			return "", err
		}
		if err := b.produce(ctx, s, topic, plain); err != nil {
			return "", err
		}
	}
	b.topics[topic] = true
	return topic, nil
}

// produce writes the rows: keyed by learner, lz4, record batches of about a thousand.
func (b *bench) produce(ctx context.Context, s set, topic string, plain bool) error {
	client, err := b.producer(kgo.ProducerLinger(50*time.Millisecond), kgo.MaxBufferedRecords(20_000))
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var once sync.Once
	for r := range s.all() {
		if ctx.Err() != nil {
			break
		}
		if plain && r.fault != 0 {
			continue
		}
		record := &kgo.Record{Topic: topic, Timestamp: r.at(), Key: r.appendKey(nil)}
		if plain {
			record.Value = r.appendPlain(make([]byte, 0, 512), s.world)
		} else {
			record.Value = r.append(make([]byte, 0, 512), s.world)
		}
		client.Produce(ctx, record, func(_ *kgo.Record, err error) {
			if err != nil {
				once.Do(func() { cancel(err) })
			}
		})
	}
	if err := client.Flush(ctx); err != nil {
		return fmt.Errorf("produce: %w", context.Cause(ctx))
	}
	return nil
}

func (b *bench) producer(more ...kgo.Opt) (*kgo.Client, error) {
	return kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(b.brokers), kgo.ProducerBatchCompression(kgo.Lz4Compression()), kgo.ProducerBatchMaxBytes(400_000),
		kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil))}, more...)...)
}

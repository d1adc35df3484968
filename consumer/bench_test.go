package consumer

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"learnsink/handlers"
	"learnsink/test/kafkatest"
)

// quickStore is a database that takes no time.
type quickStore struct {
	catalogue *handlers.Catalogue
	mu        sync.Mutex
	next      int64
}

func (s *quickStore) Claim(_ context.Context, tp handlers.TopicPartition, _ string, start int64) (handlers.Position, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return handlers.Position{TopicPartition: tp, NextOffset: max(start, s.next), Epoch: 1}, nil
}

func (s *quickStore) Facts(_ context.Context, refs *handlers.References) (*handlers.Facts, error) {
	return s.catalogue.Facts(refs), nil
}

func (s *quickStore) Apply(_ context.Context, b *handlers.Batch) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next = b.To
	_, err := b.Encode(b.Decisions)
	return err
}

func (*quickStore) Pending(context.Context, handlers.TopicPartition) ([]handlers.OutboxEntry, error) {
	return nil, nil
}
func (*quickStore) Published(context.Context, handlers.TopicPartition, int64, int64) error {
	return nil
}
func (*quickStore) SetState(context.Context, handlers.TopicPartition, int64, handlers.State, string) error {
	return nil
}

// BenchmarkRoad measures everything but the database: rows a second from one
// source partition to the output topics.
func BenchmarkRoad(b *testing.B) {
	run := func(name string, cluster func(testing.TB) *kafkatest.Cluster) {
		b.Run(name, func(b *testing.B) {
			kafka := cluster(b)
			topic, accepted, dead := kafka.Topic(b, "rows", 1), kafka.Topic(b, "accepted", 4), kafka.Topic(b, "dead-letter", 4)
			source := testSource(b, topic)
			source.AcceptedTopic, source.DeadLetterTopic = accepted, dead
			c, err := New(Config{Connection: Connection{Brokers: kafka.Brokers}, Group: kafkatest.Name("group"), Sources: []*handlers.Source{source}},
				&quickStore{catalogue: newWorld(b).catalogue}, zerolog.Nop(), nil)
			if err != nil {
				b.Fatal(err)
			}
			const rows = 100_000
			messages := make([]Message, rows)
			for i := range messages {
				messages[i] = Message{Key: fmt.Append(nil, "k", i%1000), Value: goodRow(i)}
			}
			for b.Loop() {
				b.StopTimer()
				if _, err := c.Client().Produce(b.Context(), topic, messages); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
				began := time.Now()
				if err := c.Drain(b.Context()); err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(rows/time.Since(began).Seconds(), "rows/s")
			}
		})
	}
	run("kfake", func(t testing.TB) *kafkatest.Cluster { return kafkatest.New(t) })
	run("kafka", kafkatest.Real)
}

// Package kafkatest gives tests a Kafka and topics of their own.
//
// New is kfake, a Kafka in this process that needs nothing and takes faults by
// its hooks. Real is an Apache Kafka: the first of
//
//  1. KAFKA_BROKERS, the addresses of a running one
//  2. a container of apache/kafka, where a Docker engine answers; one serves a
//     test process and ends with it
//
// Without any a test that asks for Real is skipped, and says why; where
// LEARNSINK_TEST_REQUIRE names kafka it fails.
//
// What a topic holds is read by another client than learnsink's: franz-go,
// read_committed. So a fault of ours does not hide itself.
package kafkatest

import (
	"context"
	"crypto/rand"
	"errors"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Cluster is a Kafka to test against.
type Cluster struct {
	// Brokers to connect to, each host:port.
	Brokers []string
	// Fake has the fault hooks; nil for a real broker.
	Fake *kfake.Cluster

	admin *kadm.Client
}

// New starts a fake Kafka of one broker in this process, which ends with the
// test. It creates no topic by itself.
func New(t testing.TB, opts ...kfake.Opt) *Cluster {
	t.Helper()
	fake, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(1), kfake.GroupMinSessionTimeout(500 * time.Millisecond), kfake.BrokerConfigs(map[string]string{
		"group.initial.rebalance.delay.ms": "0",
	})}, opts...)...)
	if err != nil {
		t.Fatalf("kafkatest: %v", err)
	}
	t.Cleanup(fake.Close)
	c := &Cluster{Brokers: fake.ListenAddrs(), Fake: fake}
	c.connect(t)
	return c
}

// One real Kafka a process: starting one takes ten seconds. (It is state of
// the package, and has to be: tests share nothing else.)
var shared = sync.OnceValues(find)

// Real returns a real Apache Kafka, or skips the test. Its topics stay after
// the test; their names are unique.
func Real(t testing.TB) *Cluster {
	t.Helper()
	k, err := shared()
	if err != nil {
		Missing(t, "kafka", err)
	}
	return At(t, k.brokers...)
}

// At returns the Kafka at an address.
func At(t testing.TB, brokers ...string) *Cluster {
	t.Helper()
	c := &Cluster{Brokers: brokers}
	c.connect(t)
	return c
}

// real is the one real Kafka of this process.
type real struct {
	brokers   []string
	container *Broker // nil where the brokers were given; kept, so that its reaper is
}

func find() (*real, error) {
	if given := os.Getenv("KAFKA_BROKERS"); given != "" {
		brokers := strings.Split(given, ",")
		conn, err := net.DialTimeout("tcp", brokers[0], 5*time.Second)
		if err != nil {
			return nil, err
		}
		return &real{brokers: brokers}, conn.Close()
	}
	broker, err := Start(context.Background(), Options{})
	if err != nil {
		return nil, errors.Join(errors.New("KAFKA_BROKERS is not set"), err)
	}
	return &real{[]string{broker.Plain}, broker}, nil
}

// Missing skips the test because something it needs is not there; where
// LEARNSINK_TEST_REQUIRE names it, the test fails.
func Missing(t testing.TB, what string, err error) {
	t.Helper()
	if slices.Contains(strings.Split(os.Getenv("LEARNSINK_TEST_REQUIRE"), ","), what) {
		t.Fatalf("kafkatest: %s is required: %v", what, err)
	}
	t.Skipf("kafkatest: no %s: %v", what, err)
}

func (c *Cluster) connect(t testing.TB) {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(c.Brokers...))
	if err != nil {
		t.Fatalf("kafkatest: %v", err)
	}
	t.Cleanup(client.Close)
	c.admin = kadm.NewClient(client)
}

// Admin is franz-go's admin client of the cluster.
func (c *Cluster) Admin() *kadm.Client { return c.admin }

// Name returns a name that no other test has.
func Name(prefix string) string { return prefix + "." + strings.ToLower(rand.Text()[:10]) }

// Topic creates a topic with a name of its own and returns the name. configs
// are pairs: "max.message.bytes", "1000".
func (c *Cluster) Topic(t testing.TB, prefix string, partitions int, configs ...string) string {
	t.Helper()
	name := Name(prefix)
	c.CreateTopic(t, name, partitions, configs...)
	return name
}

// CreateTopic creates a topic by its name.
func (c *Cluster) CreateTopic(t testing.TB, name string, partitions int, configs ...string) {
	t.Helper()
	settings := map[string]*string{}
	for i := 0; i+1 < len(configs); i += 2 {
		settings[configs[i]] = &configs[i+1]
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if _, err := c.admin.CreateTopic(ctx, int32(partitions), 1, settings, name); err != nil {
		t.Fatalf("kafkatest: create topic: %v", err)
	}
}

// Producer returns a franz-go producer, closed with the test. Records keep the
// partition that is set on them.
func (c *Cluster) Producer(t testing.TB, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	client, err := kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(c.Brokers...), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchMaxBytes(64 << 20),
	}, opts...)...)
	if err != nil {
		t.Fatalf("kafkatest: %v", err)
	}
	t.Cleanup(client.Close)
	return client
}

// Produce writes records and waits until they are acknowledged.
func (c *Cluster) Produce(t testing.TB, records ...*kgo.Record) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := c.Producer(t).ProduceSync(ctx, records...).FirstErr(); err != nil {
		t.Fatalf("kafkatest: produce: %v", err)
	}
}

// Stable returns the stable end of each partition of a topic.
func (c *Cluster) Stable(t testing.TB, topic string) map[int32]int64 {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	listed, err := c.admin.ListCommittedOffsets(ctx, topic)
	if err == nil {
		err = listed.Error()
	}
	if err != nil {
		t.Fatalf("kafkatest: offsets of %s: %v", topic, err)
	}
	ends := map[int32]int64{}
	listed.Each(func(o kadm.ListedOffset) { ends[o.Partition] = o.Offset })
	return ends
}

// settle waits until what is committed to a topic is also stable: a real
// broker says that a transaction has ended before its markers are written.
func (c *Cluster) settle(t testing.TB, topic string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for ctx.Err() == nil {
		ends, err := c.admin.ListEndOffsets(ctx, topic)
		if err != nil {
			t.Fatalf("kafkatest: offsets of %s: %v", topic, err)
		}
		behind := false
		for p, stable := range c.Stable(t, topic) {
			if end, ok := ends.Lookup(topic, p); ok && stable < end.Offset {
				behind = true
			}
		}
		if !behind {
			return
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// Read returns every record of a topic up to the stable end it has now, by
// partition and in order, read_committed.
func (c *Cluster) Read(t testing.TB, topic string) [][]*kgo.Record {
	t.Helper()
	c.settle(t, topic)
	ends := c.Stable(t, topic)
	client, err := kgo.NewClient(kgo.SeedBrokers(c.Brokers...), kgo.ConsumeTopics(topic), kgo.KeepControlRecords(),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		t.Fatalf("kafkatest: %v", err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	starts, err := c.admin.ListStartOffsets(ctx, topic)
	if err != nil {
		t.Fatalf("kafkatest: offsets of %s: %v", topic, err)
	}
	records := make([][]*kgo.Record, len(ends))
	open := map[int32]bool{}
	for p, end := range ends {
		if start, ok := starts.Lookup(topic, p); !ok || start.Offset < end {
			open[p] = true
		}
	}
	for len(open) > 0 {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatalf("kafkatest: read %s: %v", topic, err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if end := ends[r.Partition]; r.Offset < end {
				if !r.Attrs.IsControl() {
					records[r.Partition] = append(records[r.Partition], r)
				}
				if r.Offset == end-1 {
					delete(open, r.Partition)
				}
			}
		})
	}
	return records
}

// Committed returns a group's committed offset; -1 where there is none.
func (c *Cluster) Committed(t testing.TB, group, topic string, partition int32) int64 {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	offsets, err := c.admin.FetchOffsets(ctx, group)
	if err != nil {
		return -1
	}
	o, ok := offsets.Lookup(topic, partition)
	if !ok {
		return -1
	}
	return o.At
}

// SetTopicConfig changes one setting of a topic.
func (c *Cluster) SetTopicConfig(t testing.TB, topic, name, value string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	responses, err := c.admin.AlterTopicConfigs(ctx, []kadm.AlterConfig{{Name: name, Value: &value}}, topic)
	if err == nil && len(responses) > 0 {
		err = responses[0].Err
	}
	if err != nil {
		t.Fatalf("kafkatest: alter topic: %v", err)
	}
}

// DeleteRecords removes what lies below an offset.
func (c *Cluster) DeleteRecords(t testing.TB, topic string, partition int32, below int64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	offsets := kadm.Offsets{}
	offsets.AddOffset(topic, partition, below, -1)
	responses, err := c.admin.DeleteRecords(ctx, offsets)
	if err == nil {
		err = responses.Error()
	}
	if err != nil {
		t.Fatalf("kafkatest: delete records: %v", err)
	}
}

// Fail makes a fake Kafka answer the next n requests of a kind with an error
// code on the connection: it is cut before the request is looked at.
func (c *Cluster) Fail(key kmsg.Key, n int) {
	var mu sync.Mutex
	left := n
	c.Fake.ControlKey(int16(key), func(kmsg.Request) (kmsg.Response, error, bool) {
		mu.Lock()
		defer mu.Unlock()
		if left--; left < 0 {
			return nil, nil, false
		}
		if left > 0 {
			c.Fake.KeepControl()
		}
		return nil, errors.New("kafkatest: cut"), true
	})
}

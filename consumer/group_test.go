package consumer

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"learnsink/handlers"
	"learnsink/test/kafkatest"
)

// member is a consumer that runs in the test.
type member struct {
	*Consumer
	stop func()
}

// groupTest is a world whose log and outputs are a Kafka's.
type groupTest struct {
	*world
	kafka  *kafkatest.Cluster
	config Config
	topics []string
}

func newGroupTest(t *testing.T, kafka *kafkatest.Cluster, partitions int, topics ...string) *groupTest {
	w := newWorld(t)
	g := &groupTest{world: w, kafka: kafka, topics: topics}
	accepted, dead := kafka.Topic(t, "accepted", 2), kafka.Topic(t, "dead-letter", 1)
	g.config = Config{
		Connection: Connection{Brokers: kafka.Brokers}, Group: kafkatest.Name("group"),
		SessionTimeout: 3 * time.Second, HeartbeatInterval: 300 * time.Millisecond,
	}
	for _, topic := range topics {
		if partitions > 0 {
			kafka.CreateTopic(t, topic, partitions)
		}
		s := testSource(t, topic)
		s.AcceptedTopic, s.DeadLetterTopic = accepted, dead
		g.config.Sources = append(g.config.Sources, s)
	}
	return g
}

func (g *groupTest) consumer(t *testing.T) *Consumer {
	t.Helper()
	c, err := New(g.config, &incarnation{world: g.world}, zerolog.New(zerolog.NewTestWriter(t)).Level(zerolog.InfoLevel), nil)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (g *groupTest) join(t *testing.T) *member {
	t.Helper()
	c := g.consumer(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	m := &member{Consumer: c}
	stopped := false
	m.stop = func() {
		if cancel(); stopped {
			return
		}
		stopped = true
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	}
	t.Cleanup(m.stop)
	return m
}

// produce writes n rows to each partition of a topic.
func (g *groupTest) produce(t *testing.T, topic string, partitions, from, n int) {
	t.Helper()
	var records []*kgo.Record
	for p := range partitions {
		for i := from; i < from+n; i++ {
			r := &kgo.Record{Topic: topic, Partition: int32(p), Key: fmt.Appendf(nil, "k%d", i%10), Value: goodRow(i)}
			switch {
			case i%5 == 2:
				r.Value = badRow()
			case i%7 == 3:
				r.Key = nil
			}
			records = append(records, r)
		}
	}
	g.kafka.Produce(t, records...)
}

// until waits for a condition that others bring about.
func until(t testing.TB, what string, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("in vain for a minute: %s", what)
		}
		pause(t.Context(), 20*time.Millisecond)
	}
}

// drained reports whether every partition is applied, published and committed up to its end.
func (g *groupTest) drained(t *testing.T) bool {
	for _, topic := range g.topics {
		for p, end := range g.kafka.Stable(t, topic) {
			if g.kafka.Committed(t, g.config.Group, topic, p) != end {
				return false
			}
		}
	}
	return true
}

// check compares the outputs with the log: each id at least once, none else,
// in the order of the source partition; it returns the number of repeats.
func (g *groupTest) check(t *testing.T) (repeats int) {
	t.Helper()
	want := map[string]*kgo.Record{} // the source's record by id
	for _, topic := range g.topics {
		for p, records := range g.kafka.Read(t, topic) {
			tp := handlers.TopicPartition{Topic: topic, Partition: p}
			for _, r := range records {
				want[fmt.Sprintf("%s-%d-%d", topic, p, r.Offset)] = r
				verdict := handlers.Accepted
				if len(r.Value) == 0 || r.Value[len(r.Value)-1] != '}' {
					verdict = handlers.Rejected
				}
				g.mu.Lock()
				if got := g.outcomes[tp][r.Offset]; got != verdict {
					t.Errorf("%s/%d offset %d: verdict %d, want %d", topic, p, r.Offset, got, verdict)
				}
				g.mu.Unlock()
			}
		}
	}
	seen := map[string]bool{}
	for _, topic := range []string{g.config.Sources[0].AcceptedTopic, g.config.Sources[0].DeadLetterTopic} {
		outputs := g.kafka.Read(t, topic)
		java := kgo.StickyKeyPartitioner(nil).ForTopic(topic) // the Java client's murmur2
		for p, records := range outputs {
			last := map[string]int64{}
			for _, r := range records {
				var id string
				for _, h := range r.Headers {
					if h.Key == "ce_id" || h.Key == "learnsink.id" {
						id = string(h.Value)
					}
				}
				source := want[id]
				if source == nil {
					t.Fatalf("%s/%d offset %d: id %q is none", topic, p, r.Offset, id)
				}
				if at := int(source.Partition) % len(outputs); source.Key == nil && p != at {
					t.Errorf("%s without a key is in partition %d, not %d", id, p, at)
				} else if at := java.Partition(source, len(outputs)); source.Key != nil && p != at {
					t.Errorf("%s is in partition %d, its key's is %d", id, p, at)
				}
				if age := time.Since(r.Timestamp); age < -time.Minute || age > time.Hour {
					t.Errorf("%s: timestamp %s is not the time of publication", id, r.Timestamp)
				}
				if seen[id] {
					repeats++
					continue
				}
				seen[id] = true
				from := id[:strings.LastIndexByte(id, '-')]
				if source.Offset <= last[from] && last[from] > 0 {
					t.Errorf("%s comes after offset %d", id, last[from])
				}
				last[from] = source.Offset
			}
		}
	}
	for id := range want {
		if !seen[id] {
			t.Errorf("%s is not published", id)
		}
	}
	return repeats
}

// clusters runs a test against a fake Kafka, and a real one where there is one.
func clusters(t *testing.T, test func(*testing.T, *kafkatest.Cluster)) {
	t.Run("kfake", func(t *testing.T) {
		t.Parallel()
		test(t, kafkatest.New(t))
	})
	t.Run("kafka", func(t *testing.T) {
		t.Parallel()
		test(t, kafkatest.Real(t))
	})
}

func TestMembersComeAndGo(t *testing.T) {
	t.Parallel()
	clusters(t, func(t *testing.T, kafka *kafkatest.Cluster) {
		topic := kafkatest.Name("rows")
		g := newGroupTest(t, kafka, 4, topic)
		g.produce(t, topic, 4, 0, 100)
		first := g.join(t)
		until(t, "the first member has all", func() bool { return len(first.Status().Partitions) == 4 && g.drained(t) })
		second := g.join(t)
		g.produce(t, topic, 4, 100, 100)
		until(t, "they share", func() bool {
			return len(first.Status().Partitions) == 2 && len(second.Status().Partitions) == 2 && g.drained(t)
		})
		g.produce(t, topic, 4, 200, 100)
		first.stop()
		if s := first.Status(); s.Member || len(s.Partitions) > 0 {
			t.Errorf("after it has left: %+v", s)
		}
		g.produce(t, topic, 4, 300, 100)
		until(t, "the second has all", func() bool { return len(second.Status().Partitions) == 4 && g.drained(t) })
		second.stop()
		if n := g.check(t); n > 0 {
			t.Errorf("%d repeats without a fault", n)
		}
		for tp, entries := range g.outbox {
			if len(entries) > 0 {
				t.Errorf("%v: %d entries pending", tp, len(entries))
			}
		}
	})
}

func TestNewPartitionsArePickedUp(t *testing.T) {
	t.Parallel()
	clusters(t, func(t *testing.T, kafka *kafkatest.Cluster) {
		topic := kafkatest.Name("rows")
		g := newGroupTest(t, kafka, 1, topic)
		g.produce(t, topic, 1, 0, 10)
		m := g.join(t)
		until(t, "the first partition", func() bool { return g.drained(t) })
		if _, err := kafka.Admin().CreatePartitions(t.Context(), 2, topic); err != nil {
			t.Fatal(err)
		}
		until(t, "three partitions", func() bool { return len(m.Status().Partitions) == 3 })
		g.produce(t, topic, 3, 10, 10)
		until(t, "all of them drained", func() bool { return g.drained(t) })
		m.stop()
		g.check(t)
	})
}

func TestTopicsAreWaitedForAndNeverCreated(t *testing.T) {
	t.Parallel()
	clusters(t, func(t *testing.T, kafka *kafkatest.Cluster) {
		there, later := kafkatest.Name("rows"), kafkatest.Name("rows")
		g := newGroupTest(t, kafka, 0, there, later)
		m := g.join(t)
		pause(t.Context(), 2*time.Second)
		if m.Status().Member {
			t.Error("a member without a topic")
		}
		kafka.CreateTopic(t, there, 1)
		g.produce(t, there, 1, 0, 10)
		g.topics = []string{there}
		until(t, "the one that is there", func() bool { return m.Status().Member && g.drained(t) })
		pause(t.Context(), 2*time.Second)
		topics, err := kafka.Admin().ListTopics(t.Context())
		if err != nil || topics.Has(later) {
			t.Errorf("the other has been created: %v", err)
		}
		kafka.CreateTopic(t, later, 2)
		g.produce(t, later, 2, 0, 10)
		g.topics = []string{there, later}
		until(t, "both", func() bool { return g.drained(t) })
		m.stop()
		g.check(t)
	})
}

func TestDrain(t *testing.T) {
	t.Parallel()
	clusters(t, func(t *testing.T, kafka *kafkatest.Cluster) {
		topic, empty, missing := kafkatest.Name("rows"), kafkatest.Name("rows"), kafkatest.Name("rows")
		g := newGroupTest(t, kafka, 0, topic, empty, missing)
		kafka.CreateTopic(t, topic, 3)
		kafka.CreateTopic(t, empty, 1)
		g.topics = []string{topic, empty}
		g.produce(t, topic, 3, 0, 500)
		for range 2 { // the second time nothing is left to do
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			if err := g.consumer(t).Drain(ctx); err != nil {
				t.Fatal(err)
			}
			cancel()
			if !g.drained(t) {
				t.Error("not drained")
			}
		}
		if n := g.check(t); n > 0 {
			t.Errorf("%d repeats", n)
		}
		t.Run("a stopped partition is an error", func(t *testing.T) {
			g.produce(t, topic, 3, 500, 10)
			kafka.DeleteRecords(t, topic, 1, 505)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			err := g.consumer(t).Drain(ctx)
			if want := fmt.Sprintf("a partition is stopped: %s/1 is data_lost: offsets 500 to 504 are no longer in the log, which begins at 505", topic); err == nil || err.Error() != want {
				t.Errorf("%v, want %s", err, want)
			}
		})
	})
}

// TestBrokerFaults: connections are cut at every kind of request, again and
// again; nothing is lost.
func TestBrokerFaults(t *testing.T) {
	if testing.Short() {
		t.Skip("kafka-go waits a second after each join that fails")
	}
	t.Parallel()
	kafka := kafkatest.New(t)
	topic := kafkatest.Name("rows")
	g := newGroupTest(t, kafka, 2, topic)
	g.produce(t, topic, 2, 0, 50)
	m := g.join(t)
	until(t, "the first rows", func() bool { return g.drained(t) })
	for i, key := range []kmsg.Key{kmsg.Produce, kmsg.Fetch, kmsg.Metadata, kmsg.OffsetCommit, kmsg.FindCoordinator,
		kmsg.Heartbeat, kmsg.JoinGroup, kmsg.SyncGroup, kmsg.OffsetFetch, kmsg.DescribeConfigs} {
		kafka.Fail(key, 1+i%2) // each join that fails costs kafka-go a second
		g.produce(t, topic, 2, 50+10*i, 10)
	}
	until(t, "drained in spite of it", func() bool { return g.drained(t) })
	m.stop()
	if n := g.check(t); n > 0 {
		t.Errorf("%d repeats", n)
	}
}

func TestLeadersMove(t *testing.T) {
	t.Parallel()
	kafka := kafkatest.New(t)
	if _, _, err := kafka.Fake.AddNode(7, 0); err != nil {
		t.Fatal(err)
	}
	topic := kafkatest.Name("rows")
	g := newGroupTest(t, kafka, 2, topic)
	m := g.join(t)
	for i := range 6 {
		g.produce(t, topic, 2, 10*i, 10)
		for _, moved := range []string{topic, g.config.Sources[0].AcceptedTopic} {
			to := int32(7)
			if kafka.Fake.LeaderFor(moved, 0) == 7 {
				to = 0
			}
			if err := kafka.Fake.MoveTopicPartition(moved, 0, to); err != nil {
				t.Fatal(err)
			}
		}
		if i == 3 {
			kafka.Fake.RehashCoordinators()
		}
	}
	until(t, "drained", func() bool { return g.drained(t) })
	m.stop()
	g.check(t)
}

// TestNoRowStopsAPartitionByItsSize: rows and outputs around and above what
// the output topics take.
func TestNoRowStopsAPartitionByItsSize(t *testing.T) {
	t.Parallel()
	clusters(t, func(t *testing.T, kafka *kafkatest.Cluster) {
		topic := kafkatest.Name("rows")
		g := newGroupTest(t, kafka, 0, topic)
		kafka.CreateTopic(t, topic, 1, "max.message.bytes", "4000000")
		dead := kafka.Topic(t, "small", 5, "max.message.bytes", "20000")
		g.config.Sources[0].DeadLetterTopic = dead
		random := randomBytes(1 << 20)
		var records []*kgo.Record
		for _, n := range []int{10, 15_000, 19_000, 21_000, 100_000, 900_000} {
			records = append(records, &kgo.Record{Topic: topic, Key: []byte("k"), Value: random[:n]},
				&kgo.Record{Topic: topic, Key: []byte("k"), Value: []byte("x"), Headers: []kgo.RecordHeader{{Key: "mine", Value: random[:n]}}},
				&kgo.Record{Topic: topic, Key: random[:n], Value: []byte("x")})
		}
		records = append(records, &kgo.Record{Topic: topic, Key: []byte("k"), Value: goodRow(1)})
		kafka.Produce(t, records...)
		m := g.join(t)
		until(t, "drained", func() bool { return g.drained(t) })
		m.stop()
		g.check(t)
		truncated := 0
		for _, r := range slices.Concat(kafka.Read(t, dead)...) {
			for _, h := range r.Headers {
				if h.Key == "learnsink.truncated" {
					truncated++
				}
			}
		}
		if truncated < 9 { // three sizes of three are too large for the topic
			t.Errorf("%d dead letters are truncated", truncated)
		}
		t.Run("the limit comes down while we run", func(t *testing.T) {
			if kafka.Fake != nil {
				t.Skip("kfake does not hold it against a batch")
			}
			m := g.join(t)
			until(t, "running", func() bool { return len(m.Status().Partitions) == 1 && g.drained(t) })
			kafka.SetTopicConfig(t, dead, "max.message.bytes", "9000")
			kafka.Produce(t, &kgo.Record{Topic: topic, Key: []byte("k"), Value: random[:15_000]})
			until(t, "drained", func() bool { return g.drained(t) })
			m.stop()
			g.check(t)
		})
	})
}

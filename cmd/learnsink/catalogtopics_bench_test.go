package main

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"learnsink/test/kafkatest"
	"learnsink/test/pgtest"
)

// BenchmarkCatalogTopics reads a catalogue of LEARNSINK_BENCH_LEARNERS
// learners (1,000), ten registrations each, from its topics into an empty
// database: `serve --drain` from its start to its end, with a broker in this
// process.
func BenchmarkCatalogTopics(b *testing.B) {
	learners := 1000
	if n, err := strconv.Atoi(os.Getenv("LEARNSINK_BENCH_LEARNERS")); err == nil {
		learners = n
	}
	cluster := kafkatest.New(b)
	b.Setenv("KAFKA_BROKERS", strings.Join(cluster.Brokers, ","))
	b.Setenv("LEARNSINK_CONFIG", "")
	b.Setenv("LEARNSINK_CATALOG_TOPICS", "on")
	quiet := func(args ...string) {
		var stderr strings.Builder
		if got := run(b.Context(), args, strings.NewReader(""), io.Discard, &stderr); got != exitDone {
			b.Fatalf("learnsink %s: exit %d\n%s", strings.Join(args, " "), got, &stderr)
		}
	}
	quiet("topics", "create", "--partitions", "4", "--replication", "1")
	records := sayMany(b, cluster, learners)
	for b.Loop() {
		b.StopTimer()
		b.Setenv("DATABASE_URL", pgtest.New(b))
		b.StartTimer()
		quiet("serve", "--drain", "--log-level", "warn")
	}
	b.ReportMetric(float64(records)*float64(b.N)/b.Elapsed().Seconds(), "records/s")
}

func sayMany(b *testing.B, cluster *kafkatest.Cluster, learners int) (records int) {
	producer := cluster.Producer(b, kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil)), kgo.MaxBufferedRecords(100_000))
	say := func(kind, key, value string) {
		records++
		producer.Produce(b.Context(), &kgo.Record{Topic: catalogPrefix + kind, Key: []byte(key), Value: []byte(value)}, func(_ *kgo.Record, err error) {
			if err != nil {
				b.Error(err)
			}
		})
	}
	sessions := learners/10 + 10
	for i := range sessions/10 + 1 {
		say("trainings", fmt.Sprint(i+1), fmt.Sprintf(`{"id":%d,"guid":"tr-%d","pathCode":"P%d"}`, i+1, i, i))
	}
	for i := range sessions {
		say("sessions", fmt.Sprint(i+1), fmt.Sprintf(`{"id":%d,"guid":"se-%d","title":"Session %d","trainingId":%d}`, i+1, i, i, i/10+1))
	}
	for i := range learners {
		say("learners", fmt.Sprintf("learner-%d", i), fmt.Sprintf(`{"login":"learner-%d","refNumber":"E%d","email":"learner.%d@example.net","createdAt":"2019-03-01T08:00:00Z"}`, i, i, i))
		for j := range 10 {
			name := fmt.Sprintf(`{"learnerLogin":"learner-%d","sessionId":%d}`, i, (i+j*7)%sessions+1)
			say("registrations", name, name)
		}
	}
	if err := producer.Flush(b.Context()); err != nil {
		b.Fatal(err)
	}
	return records
}

package consumer

import (
	"context"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"learnsink/handlers"
)

// eventRows are rows as senders write them, with all columns, of some thousand
// learners, and the catalogue that they refer to.
func eventRows(t testing.TB, n int) ([]Message, *handlers.Catalogue) {
	const learners, objects, sessions = 5000, 500, 50
	guid := func(kind string, i int) string {
		h := sha256.Sum256(fmt.Appendf(nil, "%s%d", kind, i))
		return fmt.Sprintf("%x-%x-%x-%x-%x", h[:4], h[4:6], h[6:8], h[8:10], h[10:16])
	}
	c := handlers.NewCatalogue()
	for i := range objects {
		c.AddLearningObject(guid("object", i), fmt.Sprint("LO/", i), handlers.Customer)
	}
	for i := range sessions {
		c.AddTraining(int64(1000+i), guid("training", i), fmt.Sprint("PATH-", i))
		c.AddSession(int64(5000+i), int64(1000+i), guid("session", i), fmt.Sprint("Session of the year ", i))
	}
	for i := range learners {
		login := fmt.Sprintf("learner.%06d", i*197)
		c.AddLearner(login, "", "", handlers.Opt[time.Time]{})
		c.Register(handlers.LearnerRef{Login: login}, int64(5000+i%sessions))
	}
	c.Prepare()
	r := rand.New(rand.NewPCG(1, 2))
	first := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	statuses := []string{"incomplete", "completed", "passed", "failed", "browsed"}
	messages := make([]Message, n)
	for i := range messages {
		learner := r.IntN(learners)
		from := first.Add(-time.Duration(1+r.IntN(90*86_400)) * time.Second)
		login := fmt.Sprintf("learner.%06d", learner*197)
		messages[i] = Message{Key: []byte(login), Timestamp: first.Add(time.Duration(i) * time.Millisecond), Value: fmt.Appendf(nil,
			`{"candidateLogin":%q,"lovGuid":%q,"sessionGuid":%q,"trainingPathCode":"PATH-%d","trackingStatus":%q,"firstAccessDate":%q,"lastAccessDate":%q,"progression":%g,"timeSpent":%d,"score":%g,"scoreMax":100}`,
			login, guid("object", r.IntN(objects)), guid("session", learner%sessions), learner%sessions, statuses[r.IntN(5)],
			from.Format("2006-01-02 15:04:05"), from.Add(time.Duration(r.IntN(864_000))*time.Second).Format("2006-01-02 15:04:05"),
			float64(r.IntN(1001))/10, r.IntN(36_000), float64(r.IntN(1001))/10)}
	}
	return messages, c
}

// eventDecisions are what is decided about eventRows.
func eventDecisions(t testing.TB, source *handlers.Source, n int) []handlers.Decision {
	messages, catalogue := eventRows(t, n)
	records := make([]handlers.Record, n)
	rows := make([]handlers.Row, n)
	refs := handlers.NewReferences()
	for i := range records {
		records[i] = handlers.Record{Topic: source.Topic, Offset: int64(1_000_000 + i), Key: messages[i].Key, Value: messages[i].Value, Timestamp: messages[i].Timestamp}
		rows[i] = source.Rules.Decode(&records[i], records[i].Timestamp)
		rows[i].Refer(refs)
	}
	facts := catalogue.Facts(refs)
	decisions := make([]handlers.Decision, n)
	for i := range rows {
		if decisions[i] = source.Rules.Decide(&rows[i], facts); decisions[i].Verdict != handlers.Accepted {
			t.Fatalf("%s: %v", records[i].Value, decisions[i].Errors)
		}
	}
	return decisions
}

// deafCluster takes everything.
type deafCluster struct {
	cluster
	partitions, bytes int
}

func (c *deafCluster) partitionCount(context.Context, string) (int, error)  { return c.partitions, nil }
func (c *deafCluster) maxMessageBytes(context.Context, string) (int, error) { return 1 << 20, nil }
func (c *deafCluster) produce(_ context.Context, _ string, batches map[lane]wireBatch) (map[lane]int64, map[lane]error) {
	for _, b := range batches {
		c.bytes += len(b.head) + len(b.rest)
	}
	return nil, nil
}

// BenchmarkOutbox packs the accepted events of a batch, and takes them out again.
func BenchmarkOutbox(b *testing.B) {
	const rows = 2000
	source := testSource(b, "rows")
	decisions := eventDecisions(b, source, rows)
	bench := func(name string, f func()) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				f()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/rows, "ns/row")
		})
	}
	size := 0
	bench("outputs", func() {
		size = 0
		for i := range decisions {
			o, _ := decisions[i].Output(source, time.Time{})
			size += len(o.Value)
		}
	})
	outputs := make([]handlers.Output, rows)
	for i := range decisions {
		outputs[i], _ = decisions[i].Output(source, time.Time{})
	}
	for _, c := range []Compression{NoCompression, SnappyCompression, LZ4Compression, ZstdCompression} {
		for _, partitions := range []int{1, 4, 12} {
			name := fmt.Sprintf("%s to %d/", c, partitions)
			cluster := &deafCluster{partitions: partitions}
			topics := &outputTopics{cluster: cluster}
			if _, err := topics.of(b.Context(), source.AcceptedTopic, 0); err != nil {
				b.Fatal(err)
			}
			p := &packer{codec: mustCompressor(b, c), topics: topics}
			var payload []byte
			bench(name+"pack", func() {
				packing := p.begin(0)
				for i := range outputs {
					packing.add(outputs[i])
				}
				var err error
				if payload, err = packing.end(); err != nil {
					b.Fatal(err)
				}
			})
			b.Logf("%s: %d bytes a row", name, len(payload)/rows)
			plain := &plainPublisher{outlet{cluster: cluster, codec: p.codec, topics: topics}}
			publish := func() {
				if err := plain.Publish(b.Context(), []handlers.OutboxEntry{{Payload: payload}}); err != nil {
					b.Fatal(err)
				}
			}
			bench(name+"publish", publish)
			cluster.partitions++
			bench(name+"publish anew", publish)
		}
	}
}

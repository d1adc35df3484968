package consumer

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"

	"learnsink/handlers"
)

// witness is a store that notes what it is to apply.
type witness struct {
	*incarnation
	seen []string
}

func (w *witness) Apply(ctx context.Context, b *handlers.Batch) error {
	err := w.incarnation.Apply(ctx, b)
	line := fmt.Sprintf("%d-%d %s>%s,%s from %s/%d:", b.From, b.To, b.Source.Topic, b.Source.AcceptedTopic, b.Source.DeadLetterTopic, b.Origin.Topic, b.Origin.Partition)
	for i := range b.Decisions {
		d := &b.Decisions[i]
		from, offset := d.Stands()
		line += fmt.Sprintf(" %s/%d/%d@%s of %q", from.Topic, from.Partition, offset, d.EventTime.Format("05.000000"), d.Replay.Of)
		if d.Verdict != handlers.Accepted {
			line += " " + d.Errors[0].Message
		}
	}
	w.seen = append(w.seen, line)
	return err
}

// TestReplayLanes: a batch of the replay topic is of one source, and of one
// partition that its originals stand in.
func TestReplayLanes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		at := time.Date(2024, 6, 5, 12, 0, 7, 123456000, time.UTC)
		says := func(source string, partition, offset int) handlers.Replay {
			r := handlers.Replay{Attempt: 2, EventTime: at, SourceTopic: source}
			if partition >= 0 {
				r.Of = fmt.Sprintf("%s-%d-%d", source, partition, offset)
				r.Origin = handlers.Some(handlers.Origin{Partition: partition, Incarnation: 1, Offset: int64(offset)})
			}
			return r
		}
		for i, r := range []handlers.Replay{
			says("a", 0, 7), says("a", 0, 9), says("a", 1, 7), says("b", 1, 7), says("c", 0, 1), says("", -1, 0), says("a", -1, 0), says("a", -1, 0), says("a", 0, 11), says("a", 0, 10),
		} {
			w.write(goodRow(i))
			w.records[i].Headers = r.Headers()
		}
		config := Config{ReplayTopic: tp0.Topic, Sources: sources(t, "a", "b"), DeadLetterTopic: "dead-letter-lost"}
		config.Sources[1].AcceptedTopic, config.Sources[1].DeadLetterTopic = "accepted-b", "dead-letter-b"
		in := &incarnation{world: w}
		look := &witness{incarnation: in}
		p := in.pipeline()
		p.replays, p.store = handlers.NewReplays(config.ReplayTopic, config.Sources, config.DeadLetterTopic), look
		p.source = p.replays.None
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { p.run(ctx); close(done) }()
		time.Sleep(5 * time.Second)
		cancel()
		<-done
		want := []string{
			`0-2 rows>accepted,dead-letter from a/0: a/0/7@07.123456 of "a-0-7" a/0/9@07.123456 of "a-0-9"`,
			`2-3 rows>accepted,dead-letter from a/1: a/1/7@07.123456 of "a-1-7"`,
			`3-4 rows>accepted-b,dead-letter-b from b/1: b/1/7@07.123456 of "b-1-7"`,
			`4-6 rows>accepted,dead-letter-lost from /0: c/0/1@07.123456 of "c-0-1" Source [c] is unknown. rows/0/5@07.123456 of "" Source [] is unknown.`,
			`6-8 rows>accepted,dead-letter from /0: rows/0/6@07.123456 of "" rows/0/7@07.123456 of ""`,
			`8-10 rows>accepted,dead-letter from a/0: a/0/11@07.123456 of "a-0-11" a/0/10@07.123456 of "a-0-10"`,
		}
		if diff := cmp.Diff(want, look.seen); diff != "" {
			t.Errorf("batches (-want +got):\n%s", diff)
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		if got := strings.Join(w.published["dead-letter-lost"], " "); got != "rows-0-4 rows-0-5" {
			t.Errorf("of no source: %s", got)
		}
		if got := strings.Join(w.published["accepted-b"], " "); got != "rows-0-3" {
			t.Errorf("of the second source: %s", got)
		}
	})
}

// TestReplaysAreLetOn: no flood of replays trips the breaker, one of rows does.
func TestReplaysAreLetOn(t *testing.T) {
	c, err := New(Config{Connection: Connection{Brokers: []string{"localhost:1"}}, Sources: sources(t, "a"), ReplayTopic: "again", Breaker: Breaker{Window: 3}}, nil, zerolog.Nop(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.client.Close()
	var flood []handlers.Decision
	for i := range 3 {
		flood = append(flood, handlers.Decision{Record: &handlers.Record{Offset: int64(i)}, Verdict: handlers.Rejected, Errors: []handlers.Error{{Code: handlers.RecordEmpty}}})
	}
	for topic, want := range map[string]bool{"a": true, "again": false} {
		p := c.pipeline(handlers.TopicPartition{Topic: topic}, nil)
		b := breaker{limits: p.limits.breaker}
		if _, trips := b.trips(flood); trips != want {
			t.Errorf("%s trips %t", topic, trips)
		}
		if (p.replays != nil) == want || p.source == nil {
			t.Errorf("the pipeline of %s is of %+v", topic, p.source)
		}
	}
}

func TestReplayTopicIsNobodyElses(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Config)
		fault  string
	}{
		"a source":    {func(c *Config) { c.ReplayTopic = "a" }, `the replay topic "a" is a source topic too`},
		"an output":   {func(c *Config) { c.ReplayTopic = "accepted" }, `what it publishes would go to a source topic`},
		"the default": {func(c *Config) { c.DeadLetterTopic = "a" }, `would go to the source topic "a"`},
		"fine":        {func(*Config) {}, ""},
	} {
		config := Config{Connection: Connection{Brokers: []string{"localhost:1"}}, Sources: sources(t, "a"), ReplayTopic: "again"}
		c.change(&config)
		err := config.Validate()
		if (err == nil) != (c.fault == "") || err != nil && !strings.Contains(err.Error(), c.fault) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestMissingReplayTopic: it is said once, and apart from sources that are waited for.
func TestMissingReplayTopic(t *testing.T) {
	var log bytes.Buffer
	c := &Consumer{logger: testLogger(&log), replays: &handlers.Replays{Topic: "again"}}
	c.missing([]string{"a", "again"})
	if got := log.String(); strings.Count(got, "\n") != 2 || !strings.Contains(got, `"topic":"again"`) || !strings.Contains(got, `"topics":["a"]`) {
		t.Errorf("%s", got)
	}
	log.Reset()
	c.missing([]string{"again"})
	if got := log.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, "learnsink topics create") {
		t.Errorf("%s", got)
	}
}

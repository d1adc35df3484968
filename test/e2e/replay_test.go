package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"learnsink/handlers"
	"learnsink/test/oracle"
)

// replayRecord is what the dispatcher puts onto the replay topic for a dead letter.
func (h *house) replayRecord(id string, edited string) *kgo.Record {
	h.Helper()
	says := handlers.Replay{Of: id}
	var key, value []byte
	var origin handlers.Origin
	err := h.db.QueryRow(context.Background(), `SELECT key, value, source_topic, source_partition, source_offset, event_at, attempt + 1 FROM learnsink.rejection WHERE id = $1`, id).
		Scan(&key, &value, &says.SourceTopic, &origin.Partition, &origin.Offset, &says.EventTime, &says.Attempt)
	if err != nil {
		h.Fatalf("%s: %v", id, err)
	}
	says.Origin = handlers.Some(origin)
	if edited != "" {
		value = []byte(edited)
	}
	r := &kgo.Record{Topic: h.replay, Key: key, Value: value}
	for _, header := range says.Headers() {
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: header.Key, Value: header.Value})
	}
	return r
}

// resend puts records onto the replay topic, and waits until serve has applied and published them.
func (h *house) resend(records ...*kgo.Record) {
	h.Helper()
	before := h.number(`SELECT coalesce(sum(next_offset), 0)::bigint FROM learnsink.position WHERE topic = $1`, h.replay)
	if err := h.kafka.ProduceSync(context.Background(), records...).FirstErr(); err != nil {
		h.Fatal(err)
	}
	h.resent(before + int64(len(records)))
}

func (h *house) resent(end int64) {
	h.Helper()
	h.eventually("what was sent again is applied and published", 60*time.Second, func() bool {
		return h.number(`SELECT coalesce(sum(next_offset), 0)::bigint FROM learnsink.position WHERE topic = $1`, h.replay) == end &&
			h.number(`SELECT count(*) FROM learnsink.outbox`) == 0
	})
}

// TestReplayTopic: rows that are sent again, by hand as the dispatcher would.
func TestReplayTopic(t *testing.T) {
	t.Parallel()
	eachKafka(t, func(t *testing.T, brokers string) {
		h := rowgenHouse(t, brokers, "sessionTimeout: 6s\nbatch: {rows: 100}\n")
		at := time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)
		send := func(lo string, at time.Time, value string) string {
			t.Helper()
			if value == "" {
				value = fmt.Sprintf(`{"candidateLogin":"New.One","lovGuid":"%s","sessionGuid":"se-1","progression":10}`, lo)
			}
			r := &kgo.Record{Topic: h.tracking, Key: []byte("new"), Value: []byte(value), Timestamp: at}
			if err := h.kafka.ProduceSync(context.Background(), r).FirstErr(); err != nil {
				t.Fatal(err)
			}
			return fmt.Sprintf("%s-%d-%d", h.tracking, r.Partition, r.Offset)
		}
		is := func(id, want string) {
			t.Helper()
			if got := strings.Join(h.rows(`SELECT state || ' ' || attempt || ' ' || array_to_string(codes, ',') FROM learnsink.rejection WHERE id = $1`, id), "\n"); got != want {
				t.Errorf("%s is %s, not %s", id, got, want)
			}
		}

		// Without its topic learnsink works all the same, and takes it up once it is there.
		p := h.start("", "serve")
		early, stale, hopeless := send("lo-1", at, ""), send("lo-2", at, ""), send("", at, "not json")
		h.caughtUp(40 * time.Second)
		if !strings.Contains(h.logText(), "the replay topic does not exist") {
			t.Error("the log says nothing of the replay topic, which is not there")
		}
		forever := "-1"
		if _, err := h.admin.CreateTopic(context.Background(), 2, 1, map[string]*string{"retention.ms": &forever}, h.replay); err != nil {
			t.Fatal(err)
		}
		h.Cleanup(func() { _, _ = h.admin.DeleteTopics(context.Background(), h.replay) })

		// What was missing comes; and of one row a newer one came meanwhile.
		if err := os.MkdirAll(filepath.Join(h.dir, "more"), 0o755); err != nil {
			t.Fatal(err)
		}
		h.file("more/learners.csv", "login,refNumber,email,createdAt\nnew.one,,,\n")
		h.file("more/registrations.csv", "learnerLogin,sessionGuid\nNEW.ONE,se-1\n")
		h.verb("catalog", "load", filepath.Join(h.dir, "more"))
		newer := send("lo-2", at.Add(time.Minute), "")
		h.eventually("the newer row is applied", 30*time.Second, func() bool {
			return h.number(`SELECT count(*) FROM learnsink.tracking WHERE event_at = $1`, at.Add(time.Minute)) == 1
		})

		h.resend(h.replayRecord(early, ""), h.replayRecord(stale, ""), h.replayRecord(hopeless, ""))
		is(early, "resolved 2 registration_not_found")
		is(stale, "superseded 2 superseded")
		is(hopeless, "open 2 record_not_json")
		if got := h.rows(`SELECT source_topic || '-' || source_partition || '-' || source_offset FROM learnsink.tracking t JOIN learnsink.learning_object o ON o.id = t.learning_object_id WHERE guid IN ('lo-1', 'lo-2') AND t.event_at >= $1 AND t.event_at <= $2 ORDER BY guid`, at, at.Add(time.Minute)); strings.Join(got, " ") != early+" "+newer {
			t.Errorf("what is stored comes from %v", got)
		}

		// Killed amid it, over and over: each attempt counts once.
		for range 3 {
			end := h.number(`SELECT sum(next_offset)::bigint FROM learnsink.position WHERE topic = $1`, h.replay) + 1
			if err := h.kafka.ProduceSync(context.Background(), h.replayRecord(hopeless, "")).FirstErr(); err != nil {
				t.Fatal(err)
			}
			p.signal(syscall.SIGKILL)
			<-p.done
			h.forgetMembers()
			p = h.start("", "serve")
			h.resent(end)
		}
		is(hopeless, "quarantined 5 record_not_json")
		p.stop()

		// Each outcome is announced once, and says what it replays.
		accepted, rejected := map[string]int{}, []string{}
		for _, records := range h.log(h.accepted) {
			for _, r := range records {
				var event struct{ ReplayOf string }
				if err := json.Unmarshal(r.Value, &event); err != nil {
					t.Fatal(err)
				}
				if event.ReplayOf != "" {
					accepted[event.ReplayOf]++
					if id := oracle.HeaderOf(r, "ce_id"); !strings.HasPrefix(id, h.replay+"-") || oracle.HeaderOf(r, "ce_time") != "2024-01-01T00:00:00Z" {
						t.Errorf("the event of %s is %s of %s", event.ReplayOf, id, oracle.HeaderOf(r, "ce_time"))
					}
				}
			}
		}
		for _, records := range h.log(h.deadLetter) {
			for _, r := range records {
				if of := oracle.HeaderOf(r, "learnsink.replay-of"); of == hopeless {
					rejected = append(rejected, oracle.HeaderOf(r, "learnsink.attempt"))
				}
			}
		}
		if len(accepted) != 1 || accepted[early] != 1 {
			t.Errorf("accepted events of what was sent again: %v", accepted)
		}
		if strings.Join(rejected, " ") != "2 3 4 5" {
			t.Errorf("dead letters of the hopeless one, by attempt: %v", rejected)
		}
		h.audit()
		if out := h.verb("status"); !strings.Contains(out, h.replay) {
			t.Errorf("status: %s", out)
		}

		// Back over it, silently: nothing is otherwise than it was.
		lines := func() string {
			return strings.Join(h.rows(`SELECT id || ' ' || state || ' ' || attempt || ' ' || coalesce(settled_by, '') || ' ' || history::text FROM learnsink.rejection ORDER BY id`), "\n")
		}
		before := lines()
		said := h.verb("position", "set", "--topic", h.replay, "--to", "beginning", "--silent", "--execute")
		for line := range strings.Lines(said) {
			if strings.Contains(line, "otherwise") && !strings.HasPrefix(line, "  0 of ") {
				t.Errorf("position set: %s", said)
			}
		}
		if !strings.Contains(said, "  0 of ") {
			t.Errorf("position set judges no row: %s", said)
		}
		h.drain()
		if after := lines(); after != before {
			t.Errorf("afterwards:\n%s\nbefore:\n%s", after, before)
		}
		h.audit()

		// What names no source is a dead letter, and stops nobody.
		stray := &kgo.Record{Topic: h.replay, Value: []byte("{}")}
		if err := h.kafka.ProduceSync(context.Background(), stray, h.replayRecord(stale, "")).FirstErr(); err != nil {
			t.Fatal(err)
		}
		h.drain()
		is(fmt.Sprintf("%s-%d-%d", h.replay, stray.Partition, stray.Offset), "open 1 source_unknown")
		is(stale, "superseded 2 superseded")
		h.audit()
	})
}

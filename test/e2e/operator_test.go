package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"learnsink/handlers"
	"learnsink/test/oracle"
	"learnsink/test/rowgen"
)

// set sets the positions of both sources, and returns what it printed.
func (h *house) set(args ...string) (said string) {
	h.Helper()
	for _, topic := range []string{h.tracking, h.intervention} {
		said += h.verb(append([]string{"position", "set", "--topic", topic, "--execute"}, args...)...)
	}
	return said
}

// ids counts how often each id is in an output.
func (h *house) ids(topic, header string) map[string]int {
	h.Helper()
	ids := map[string]int{}
	for _, records := range h.log(topic) {
		for _, r := range records {
			ids[oracle.HeaderOf(r, header)]++
		}
	}
	return ids
}

// log is what is committed to a topic, by partition.
func (h *house) log(topic string) map[int32][]*kgo.Record {
	h.Helper()
	ends, err := oracle.Ends(context.Background(), strings.Split(h.brokers, ","), topic)
	if err != nil {
		h.Fatal(err)
	}
	log := map[int32][]*kgo.Record{}
	for p, end := range ends {
		for r := range h.stream(topic, p, end) {
			log[p] = append(log[p], r)
		}
	}
	return log
}

// audit expects audit --deep to find nothing, and returns what it says.
func (h *house) audit() string {
	h.Helper()
	out, code := h.try("", "audit", "--deep")
	if code != 0 {
		h.Errorf("audit --deep: exit %d\n%s", code, out)
	}
	return out
}

// Set back while learnsink runs, without a word to anybody: the tables are as
// they were, and no output is there twice.
func TestPositionSetBackSilently(t *testing.T) {
	t.Parallel()
	eachKafka(t, func(t *testing.T, brokers string) {
		h, s := rowgenHouse(t, brokers, "sessionTimeout: 6s\nbatch: {rows: 100}\n"), &story{}
		g := rowgen.New(rowgen.Config{Seed: 41, Bad: 0.1, Plain: true})
		h.tell(s, g, 1000)
		p := h.start("", "serve")
		h.caughtUp(40 * time.Second)
		if said := h.set("--to", "beginning", "--silent"); strings.Count(said, "is set from offset") != 6 || strings.Contains(said, "otherwise") && !strings.Contains(said, "  0 of ") {
			t.Errorf("position set: %s", said)
		}
		h.caughtUp(40 * time.Second)
		h.tell(s, g, 300)
		h.caughtUp(40 * time.Second)
		p.stop()
		if n := h.number(`SELECT count(*) FROM learnsink.position WHERE round = 2 AND first_offset = 0`); n != 6 {
			t.Errorf("%d positions are in their second round, of 6", n)
		}
		h.check(s)
		if out := h.audit(); strings.Contains(out, "again") || strings.Contains(out, "anew") {
			t.Errorf("audit --deep: %s", out)
		}
	})
}

// Set back, to be announced again: each id is there twice, the audit knows why.
func TestPositionSetBackAndRepublished(t *testing.T) {
	t.Parallel()
	eachKafka(t, func(t *testing.T, brokers string) {
		h, s := rowgenHouse(t, brokers, "batch: {rows: 100}\n"), &story{}
		h.tell(s, rowgen.New(rowgen.Config{Seed: 42, Bad: 0.1, Plain: true}), 600)
		h.drain()
		h.set("--to", "0", "--republish", "--why", "the reader lost its disk")
		h.drain()
		s.Repeats = true
		h.check(s)
		var outcomes int64
		for topic, header := range map[string]string{h.accepted: "ce_id", h.deadLetter: "learnsink.id"} {
			for id, n := range h.ids(topic, header) {
				if outcomes++; n != 2 {
					t.Errorf("%s is there %d times", id, n)
				}
			}
		}
		if out := h.audit(); !strings.Contains(out, fmt.Sprintf("repeats: 0; faults: 0\ntopics: %d outcomes were announced again", outcomes)) {
			t.Errorf("audit --deep: %s", out)
		}
		// Nobody asked for these once more: a fault that is named.
		r := h.log(h.accepted)[0][0]
		r.Offset, r.Partition = 0, 0
		if err := h.kafka.ProduceSync(context.Background(), r).FirstErr(); err != nil {
			t.Fatal(err)
		}
		if out, code := h.try("", "audit", "--deep"); code != 3 || !strings.Contains(out, "has 3 outcomes, and was announced 2 times") {
			t.Errorf("audit --deep: exit %d, %s", code, out)
		}
	})
}

// Forward: what is skipped has no outcome, and nobody misses it.
func TestPositionSetForward(t *testing.T) {
	t.Parallel()
	eachKafka(t, func(t *testing.T, brokers string) {
		h, s := rowgenHouse(t, brokers, ""), &story{}
		g := rowgen.New(rowgen.Config{Seed: 43, Bad: 0.1, Plain: true})
		ctx, list := context.Background(), strings.Split(brokers, ",")
		h.tell(s, g, 300)
		h.drain()
		for _, topic := range []string{h.tracking, h.intervention} {
			ends, err := h.admin.ListCommittedOffsets(ctx, topic)
			if err != nil {
				t.Fatal(err)
			}
			ends.Each(func(o kadm.ListedOffset) {
				before, err := s.Read(ctx, list, topic, o.Partition, o.Offset)
				if err != nil {
					t.Fatal(err)
				}
				s.Gone = append(s.Gone, oracle.Gone{Outcomes: before, Topic: topic, Partition: o.Partition, Unread: o.Offset})
			})
		}
		h.tell(s, g, 200)
		for i := range s.Gone {
			ends, err := h.admin.ListCommittedOffsets(ctx, s.Gone[i].Topic)
			if err != nil {
				t.Fatal(err)
			}
			end, _ := ends.Lookup(s.Gone[i].Topic, s.Gone[i].Partition)
			s.Gone[i].To = end.Offset
		}
		h.set("--to", "end")
		h.tell(s, g, 100)
		h.drain()
		h.check(s)
		if out := h.audit(); !strings.Contains(out, "topics: 400 rows have their outcome") || !strings.Contains(out, "topics: 200 rows have no outcome: an operator has skipped them") {
			t.Errorf("audit --deep: %s", out)
		}
	})
}

// To a time: the first row that is not older.
func TestPositionSetToATime(t *testing.T) {
	t.Parallel()
	eachKafka(t, func(t *testing.T, brokers string) {
		h, s := rowgenHouse(t, brokers, ""), &story{}
		h.tell(s, rowgen.New(rowgen.Config{Seed: 44, Bad: 0.1, Plain: true}), 400)
		h.drain()
		log := h.log(h.tracking)
		at := log[0][len(log[0])/2].Timestamp
		h.verb("position", "set", "--topic", h.tracking, "--to", at.UTC().Format(time.RFC3339Nano), "--silent", "--execute")
		want := map[int32]int64{}
		for partition, records := range log {
			for _, r := range records {
				want[partition] = r.Offset + 1
				if !r.Timestamp.Before(at) {
					want[partition] = r.Offset
					break
				}
			}
		}
		for partition, offset := range want {
			if next := h.number(`SELECT next_offset FROM learnsink.position WHERE (topic, partition) = ($1, $2)`, h.tracking, partition); next != offset {
				t.Errorf("partition %d is at %d, not %d", partition, next, offset)
			}
		}
		h.drain()
		h.audit()
	})
}

// Paused while it runs, and let on: the others do not notice.
func TestPartitionPausedAndResumed(t *testing.T) {
	t.Parallel()
	eachKafka(t, func(t *testing.T, brokers string) {
		h, s := rowgenHouse(t, brokers, "batch: {rows: 100}\n"), &story{}
		g := rowgen.New(rowgen.Config{Seed: 45, Bad: 0.1, Plain: true})
		h.tell(s, g, 500)
		p := h.start("", "serve")
		h.caughtUp(40 * time.Second)
		before := h.number(`SELECT sum(next_offset)::bigint FROM learnsink.position WHERE topic = $1`, h.tracking)
		h.verb("partition", "pause", "--topic", h.tracking, "--why", "maintenance", "--execute")
		h.tell(s, g, 500)
		h.eventually("the other source is applied", 30*time.Second, func() bool {
			return h.number(`SELECT sum(next_offset)::bigint FROM learnsink.position WHERE topic = $1`, h.intervention) ==
				int64(h.rowsIn(h.intervention)) && h.number(`SELECT count(*) FROM learnsink.outbox`) == 0
		})
		if now := h.number(`SELECT sum(next_offset)::bigint FROM learnsink.position WHERE topic = $1`, h.tracking); now != before {
			t.Errorf("paused at %d, and now at %d", before, now)
		}
		if out := h.verb("status"); strings.Count(out, "paused: maintenance") != 3 {
			t.Errorf("status: %s", out)
		}
		h.audit()
		h.verb("partition", "resume", "--topic", h.tracking, "--execute")
		h.caughtUp(40 * time.Second)
		p.stop()
		h.check(s)
	})
}

// rowsIn is how many records a topic holds.
func (h *house) rowsIn(topic string) (n int) {
	for _, records := range h.log(topic) {
		n += len(records)
	}
	return n
}

// A flood trips the breaker; an operator lets it on.
func TestTheBreakerIsLetOn(t *testing.T) {
	t.Parallel()
	eachKafka(t, func(t *testing.T, brokers string) {
		h, s := rowgenHouse(t, brokers, "breaker: {rejected: 0.5, window: 50}\nbatch: {rows: 100}\n"), &story{}
		flood := func(n int) {
			for i := range n {
				r := h.record(s, rowgen.Record{Action: handlers.Tracking, Kind: "flood", Key: []byte("one"), EventTime: time.Date(2024, 1, 1, 0, 0, i, 0, time.UTC),
					Value: []byte("not json"), Errors: []string{"Record is not a JSON object."}})
				if err := h.kafka.ProduceSync(context.Background(), r).FirstErr(); err != nil {
					t.Fatal(err)
				}
			}
		}
		held := func() bool {
			return h.number(`SELECT count(*) FROM learnsink.position WHERE state = 'breaker'`) == 1
		}
		flood(200)
		p := h.start("", "serve")
		h.eventually("the breaker holds the partition", 40*time.Second, held)
		if n := h.number(`SELECT count(*) FROM learnsink.rejection`); n > 100 {
			t.Errorf("%d rows of a flood were rejected", n)
		}
		out := h.verb("partition", "resume", "--topic", h.tracking)
		if !strings.Contains(out, "the breaker lets rows below offset 200 on") || !held() {
			t.Errorf("partition resume: %s", out)
		}
		h.verb("partition", "resume", "--topic", h.tracking, "--execute")
		h.caughtUp(40 * time.Second)
		flood(100) // it watches those that come later
		h.eventually("the breaker holds the partition again", 40*time.Second, held)
		h.verb("partition", "resume", "--topic", h.tracking, "--execute")
		h.caughtUp(40 * time.Second)
		p.stop()
		h.check(s)
	})
}

// A topic that was made anew is noticed, and taken up when an operator says
// so: its rows are other rows, with other ids.
func TestRecreatedTopicIsTakenUp(t *testing.T) {
	t.Parallel()
	eachKafka(t, func(t *testing.T, brokers string) {
		h, s := rowgenHouse(t, brokers, ""), &story{}
		ctx := context.Background()
		h.tell(s, rowgen.New(rowgen.Config{Seed: 46, Bad: 0.2, Plain: true, Action: handlers.Tracking}), 300)
		h.drain()
		before := h.ids(h.accepted, "ce_id")
		if _, err := h.admin.DeleteTopics(ctx, h.tracking); err != nil {
			t.Fatal(err)
		}
		h.eventually("the topic is gone", 20*time.Second, func() bool {
			topics, err := h.admin.ListTopics(ctx, h.tracking)
			return err == nil && !topics.Has(h.tracking)
		})
		h.eventually("the topic is there again", 20*time.Second, func() bool {
			_, err := h.admin.CreateTopic(ctx, 3, 1, nil, h.tracking)
			return err == nil
		})
		h.kafka.PurgeTopicsFromProducing(h.tracking)
		h.tell(&story{}, rowgen.New(rowgen.Config{Seed: 47, Bad: 0.2, Plain: true, Action: handlers.Tracking}), 600)
		p := h.start("", "serve")
		h.eventually("the new log is noticed", 60*time.Second, func() bool {
			return h.number(`SELECT count(*) FROM learnsink.position WHERE state = 'log_diverged'`) == 3
		})
		h.audit()
		if out, code := h.try("", "position", "set", "--topic", h.tracking, "--to", "beginning", "--republish"); code != 2 {
			t.Errorf("position set onto another log: exit %d, %s", code, out)
		}
		if !strings.Contains(h.logText(), "say --new-log if its rows are to be taken as new ones") {
			t.Error("nobody names --new-log")
		}
		h.verb("position", "set", "--topic", h.tracking, "--to", "beginning", "--new-log", "--execute")
		h.caughtUp(60 * time.Second)
		p.stop()
		ids, both := h.ids(h.accepted, "ce_id"), 0
		for id, n := range h.ids(h.deadLetter, "learnsink.id") {
			ids[id] += n
		}
		for id, n := range ids {
			if n != 1 {
				t.Errorf("%s is there %d times", id, n)
			}
			if strings.HasPrefix(id, h.tracking+"~2-") {
				both++
			}
		}
		for id := range before {
			if ids[id] != 1 {
				t.Errorf("%s, of the log before, is there %d times", id, ids[id])
			}
		}
		if both != 600 || len(ids) != 900 {
			t.Errorf("%d ids of the new log of 600, %d in all of 900", both, len(ids))
		}
		if out := h.audit(); !strings.Contains(out, "topics: 900 rows have their outcome; repeats: 0; faults: 0") || !strings.Contains(out, "is no longer the log that it was") {
			t.Errorf("audit --deep: %s", out)
		}
	})
}

// Rows that would be judged otherwise are listed, before anything is done.
func TestChangedVerdictsAreListed(t *testing.T) {
	t.Parallel()
	eachKafka(t, func(t *testing.T, brokers string) {
		h, s := rowgenHouse(t, brokers, ""), &story{}
		const unknown = 25
		for i := range 2 * unknown {
			rec := rowgen.Record{Action: handlers.Tracking, Kind: "of somebody unknown", Key: []byte("new"), EventTime: time.Date(2024, 1, 1, 0, 0, i, 0, time.UTC),
				Value: []byte(`{"candidateLogin":"New.One","lovGuid":"lo-1","sessionGuid":"se-1"}`), Errors: []string{"No registration found for given parameters."}}
			if i%2 == 1 {
				rec.Value, rec.Errors = []byte("not json"), []string{"Record is not a JSON object."}
			}
			if err := h.kafka.ProduceSync(context.Background(), h.record(s, rec)).FirstErr(); err != nil {
				t.Fatal(err)
			}
		}
		h.drain()
		if err := os.MkdirAll(filepath.Join(h.dir, "more"), 0o755); err != nil {
			t.Fatal(err)
		}
		h.file("more/learners.csv", "login,refNumber,email,createdAt\nnew.one,,,\n")
		h.file("more/registrations.csv", "learnerLogin,sessionGuid\nNEW.ONE,se-1\n")
		h.verb("catalog", "load", filepath.Join(h.dir, "more"))
		out := h.verb("position", "set", "--topic", h.tracking, "--to", "beginning", "--republish")
		for _, want := range []string{"  25 of 50 rows would be judged otherwise than they were", "    offset 0: rejected (registration_not_found), now accepted", "    and 5 more"} {
			if !strings.Contains(out, want+"\n") {
				t.Errorf("position set does not say %q: %s", want, out)
			}
		}
		if strings.Count(out, "now accepted") != 20 || strings.Contains(out, "record_not_json") || h.number(`SELECT count(*) FROM learnsink.operation`) != 0 {
			t.Errorf("position set: %s", out)
		}
		h.set("--to", "beginning", "--republish")
		h.drain()
		if n := h.number(`SELECT sum(accepted)::bigint FROM learnsink.position`); n != unknown {
			t.Errorf("%d rows are accepted now", n)
		}
		h.audit()
		var shown struct {
			History []struct{ Verb string }
		}
		if err := json.Unmarshal([]byte(h.verb("position", "show", "-f", "json", "--history")), &shown); err != nil || len(shown.History) != 1 {
			t.Errorf("position show --history: %+v, %v", shown, err)
		}
	})
}

// The audit of a system at work: nothing of what comes meanwhile confuses it.
func TestAuditWhileRunning(t *testing.T) {
	t.Parallel()
	eachKafka(t, func(t *testing.T, brokers string) {
		h, s := rowgenHouse(t, brokers, "sessionTimeout: 6s\nbatch: {rows: 50}\n"), &story{}
		g := rowgen.New(rowgen.Config{Seed: 48, Bad: 0.2, Plain: true})
		h.tell(s, g, 500)
		p := h.start("", "serve")
		for range 3 {
			h.tell(s, g, 700)
			audit := h.start("", "audit", "--deep")
			for range 5 {
				h.tell(s, g, 100)
			}
			if code := audit.wait(time.Minute); code != 0 {
				t.Errorf("audit --deep while rows come: exit %d\n%s", code, &audit.stdout)
			}
		}
		h.caughtUp(40 * time.Second)
		p.stop()
		h.check(s)
	})
}

// What topics have forgotten is proved by the ledger, and said; what they
// have not is still found.
func TestAuditOfTopicsThatForget(t *testing.T) {
	t.Parallel()
	eachKafka(t, func(t *testing.T, brokers string) {
		h, s := rowgenHouse(t, brokers, "batch: {rows: 50}\n"), &story{}
		h.tell(s, rowgen.New(rowgen.Config{Seed: 49, Bad: 0.2, Plain: true}), 900)
		h.drain()
		forget := func(topic string, part int64) {
			ctx := context.Background()
			ends, err := h.admin.ListCommittedOffsets(ctx, topic)
			if err != nil {
				t.Fatal(err)
			}
			var before kadm.Offsets
			ends.Each(func(o kadm.ListedOffset) {
				if o.Partition == 0 {
					before.Add(kadm.Offset{Topic: topic, Partition: 0, At: o.Offset / part, LeaderEpoch: -1})
				}
			})
			if _, err := h.admin.DeleteRecords(ctx, before); err != nil {
				t.Fatal(err)
			}
		}
		forget(h.accepted, 2)
		if out := h.audit(); !strings.Contains(out, h.accepted+"/0 holds nothing before offset ") || !strings.Contains(out, " accepted rows of "+h.group+".") ||
			!strings.Contains(out, " are proved by the ledger alone") || strings.Contains(out, "rejected rows") {
			t.Errorf("audit --deep: %s", out)
		}
		forget(h.tracking, 3)
		forget(h.deadLetter, 1)
		out := h.audit()
		if !strings.Contains(out, h.tracking+"/0 holds nothing before offset ") || !strings.Contains(out, " rejected rows of "+h.group+".") {
			t.Errorf("audit --deep: %s", out)
		}
		// A line in the table that speaks of another row.
		if _, err := h.db.Exec(context.Background(), `UPDATE learnsink.rejection SET source_offset = source_offset + 1 WHERE id = (SELECT max(id) FROM learnsink.rejection WHERE source_partition = 1)`); err != nil {
			t.Fatal(err)
		}
		if out, code := h.try("", "audit", "--deep"); code != 3 || !strings.Contains(out, "and a line in the table rejection") {
			t.Errorf("audit --deep with a rejection of another offset: exit %d\n%s", code, out)
		}
	})
}

package store_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"learnsink/handlers"
	"learnsink/store"
)

func TestApply(t *testing.T) {
	ctx := t.Context()
	t.Run("a row is stored, announced and counted", func(t *testing.T) {
		w := newWorld(t)
		src := source(t, handlers.Tracking)
		o := w.claim(w.Store, src, 3)
		b := o.apply(
			track(src, 0, day, 1, 2, "progression", 50.5, "timeSpent", 90),
			track(src, 2, day, 1, 99), // no such learning object; offset 1 is skipped
		)
		if b.Decisions[0].Verdict != handlers.Accepted || b.Decisions[1].Verdict != handlers.Rejected {
			t.Fatalf("decisions: %+v", b.Decisions)
		}
		got := w.text(`SELECT learner_login, session_guid, learning_object_guid, status, progression, score_max, time_spent_seconds, event_at FROM learnsink.tracking_report`)
		if want := `(L1,S100,O2,incomplete,50.5,100,90,"2026-03-01 12:00:00+00")`; got != want {
			t.Errorf("tracking_report: %s, want %s", got, want)
		}
		got = w.text(`SELECT id, codes, state, attempt, convert_from(value, 'UTF8')::json ->> 'lovGuid' FROM learnsink.rejection`)
		if want := `(learning.tracking-3-2,{lo_not_found},open,1,o99)`; got != want {
			t.Errorf("rejection: %s, want %s", got, want)
		}
		got = w.text(`SELECT first_offset, next_offset, accepted, rejected, skipped FROM learnsink.position`)
		if want := `(0,3,1,1,1)`; got != want {
			t.Errorf("position: %s, want %s", got, want)
		}
		got = w.text(`SELECT * FROM learnsink.outcome_daily ORDER BY outcome`)
		if want := "(2026-03-01,learning.tracking,tracking,\"\",accepted,,1)\n(2026-03-01,learning.tracking,tracking,\"\",rejected,lo_not_found,1)"; got != want {
			t.Errorf("outcome_daily: %s, want %s", got, want)
		}
		pending, err := w.Pending(ctx, o.TopicPartition)
		if err != nil || len(pending) != 1 || pending[0].From != 0 || pending[0].To != 3 ||
			string(pending[0].Payload) != "learning.tracking-3-0\nlearning.tracking-3-2\n" {
			t.Errorf("pending: %+v, %v", pending, err)
		}
		w.audit()
	})

	t.Run("a batch of skipped offsets moves the position", func(t *testing.T) {
		w := newWorld(t)
		o := w.claim(w.Store, source(t, handlers.Tracking), 0)
		b := o.batch()
		b.To, b.FactsVersion = 7, 0
		if err := w.Apply(ctx, b); err != nil {
			t.Fatal(err)
		}
		if got := w.text(`SELECT next_offset, skipped FROM learnsink.position`); got != "(7,7)" {
			t.Errorf("position: %s", got)
		}
		w.audit()
	})

	t.Run("a row that is gone is remembered, and forgotten once it is back", func(t *testing.T) {
		w := newWorld(t)
		src := source(t, handlers.Tracking)
		o := w.claim(w.Store, src, 0)
		rows := func() string {
			return w.text(`SELECT (SELECT count(*) FROM learnsink.tracking), (SELECT count(*) FROM learnsink.tracking_deleted)`)
		}
		o.apply(track(src, 0, day, 1, 1))
		for i, step := range []struct{ status, want string }{
			{"notAttempted", "(0,1)"}, {"notAttempted", "(0,1)"}, {"passed", "(1,0)"}, {"failed", "(1,0)"}, {"notAttempted", "(0,1)"},
		} {
			o.apply(track(src, int64(i+1), day, 1, 1, "trackingStatus", step.status))
			if got := rows(); got != step.want {
				t.Errorf("after step %d (%s): %s, want %s", i, step.status, got, step.want)
			}
		}
		o.apply(track(src, 6, day, 2, 2, "trackingStatus", "notAttempted")) // there was none
		if got := rows(); got != "(0,2)" {
			t.Errorf("a delete of nothing is to be remembered: %s", got)
		}
		w.audit()
	})

	t.Run("a first completion that is stored stays", func(t *testing.T) {
		w := newWorld(t)
		src := source(t, handlers.Tracking)
		o := w.claim(w.Store, src, 0)
		done := func() string {
			return w.text(`SELECT status, first_completion_at::date, first_completion_filled_in FROM learnsink.tracking`)
		}
		o.apply(track(src, 0, day, 1, 1, "trackingStatus", "completed"))
		b := o.apply(track(src, 1, day.AddDate(0, 1, 0), 1, 1, "trackingStatus", "passed"))
		if got := done(); got != "(passed,2026-03-01,t)" {
			t.Errorf("the first completion: %s", got)
		}
		if got := b.Decisions[0].Tracking.FirstCompletion.V; got.Month() != time.March {
			t.Errorf("the decision does not say what was stored: %v", got)
		}
		o.apply(
			track(src, 2, day.AddDate(0, 2, 0), 1, 1), // incomplete: all is reset
			track(src, 3, day.AddDate(0, 3, 0), 1, 1, "trackingStatus", "completed"))
		if got := done(); got != "(completed,2026-06-01,t)" {
			t.Errorf("after a reset: %s", got)
		}
	})

	t.Run("order by event time holds over batches, deletes and partitions", func(t *testing.T) {
		w := newWorld(t)
		src := source(t, handlers.Tracking)
		src.ByEventTime = true
		o, other := w.claim(w.Store, src, 0), w.claim(w.Store, src, 1)
		at := func(h int) time.Time { return day.Add(time.Duration(h) * time.Hour) }
		verdicts := func(b *handlers.Batch) (s string) {
			for i := range b.Decisions {
				switch d := &b.Decisions[i]; {
				case d.Verdict == handlers.Accepted:
					s += "A"
				case d.Errors[0].Code == handlers.Superseded:
					s += "S"
				default:
					s += "?"
				}
			}
			return s
		}
		b := o.apply(track(src, 0, at(5), 1, 1, "progression", 5), track(src, 1, at(4), 1, 1, "progression", 4), track(src, 2, at(6), 1, 1, "progression", 6))
		if got := verdicts(b); got != "ASA" {
			t.Errorf("within a batch: %s", got)
		}
		if got := verdicts(other.apply(track(src, 0, at(5), 1, 1, "trackingStatus", "notAttempted"), track(src, 1, at(7), 1, 1, "trackingStatus", "notAttempted"))); got != "SA" {
			t.Errorf("deletes of another partition: %s", got)
		}
		if got := verdicts(o.apply(track(src, 3, at(6), 1, 1), track(src, 4, at(8), 1, 1, "progression", 8))); got != "SA" {
			t.Errorf("rows after a delete: %s", got)
		}
		// The same time: partition and offset decide.
		if got := verdicts(other.apply(track(src, 2, at(8), 1, 1, "progression", 9))); got != "A" {
			t.Errorf("the higher partition at the same time: %s", got)
		}
		if got := verdicts(o.apply(track(src, 5, at(8), 1, 1))); got != "S" {
			t.Errorf("the lower partition at the same time: %s", got)
		}
		if got := w.text(`SELECT progression FROM learnsink.tracking`); got != "(9)" {
			t.Errorf("what is stored: %s", got)
		}
		w.audit()
	})

	t.Run("interventions and their rooms", func(t *testing.T) {
		w := newWorld(t)
		src := source(t, handlers.Intervention)
		o := w.claim(w.Store, src, 0)
		o.apply(
			intervene(src, 0, day, "I1", "R0", "roomCapacity", 20),
			intervene(src, 1, day.Add(-time.Hour), "I2", "r0", "roomLabel", "late and old"),
			intervene(src, 2, day.Add(time.Hour), "I3", "R9", "roomLabel", "new"),
			intervene(src, 3, day.Add(time.Hour), "i1", "R0", "roomLabel", "renamed", "interventionStatus", "C", "teacherLogin", "t1"),
		)
		got := w.text(`SELECT intervention_guid, status, teacher_login, room_label, room_capacity, session_title, duration_hours FROM learnsink.intervention_report ORDER BY 1`)
		want := "(i1,cancelled,T1,renamed,20,One,2)\n(I2,active,T0,renamed,20,One,2)\n(I3,active,T0,new,,One,2)"
		if got != want {
			t.Errorf("intervention_report:\n%s\nwant\n%s", got, want)
		}
		w.audit()
	})

	t.Run("published entries go with the next apply, or by themselves", func(t *testing.T) {
		w := newWorld(t)
		src := source(t, handlers.Tracking)
		o := w.claim(w.Store, src, 0)
		for i := range int64(3) {
			o.apply(track(src, i, day, 1, 1))
		}
		b := o.batch(track(src, 3, day, 1, 1))
		b.Published = 2
		if err := w.Apply(ctx, b); err != nil {
			t.Fatal(err)
		}
		status, err := w.OutboxPending(ctx)
		if err != nil || len(status) != 1 || status[0].Entries != 2 || status[0].From != 2 || status[0].To != 4 {
			t.Fatalf("outbox: %+v, %v", status, err)
		}
		if err := w.Published(ctx, o.TopicPartition, o.Epoch-1, 4); !errors.Is(err, handlers.ErrFenced) {
			t.Errorf("under an old epoch: %v", err)
		}
		if err := w.Published(ctx, o.TopicPartition, o.Epoch, 4); err != nil {
			t.Fatal(err)
		}
		if pending, err := w.Pending(ctx, o.TopicPartition); err != nil || len(pending) != 0 {
			t.Errorf("pending: %+v, %v", pending, err)
		}
	})
}

func TestFence(t *testing.T) {
	ctx := t.Context()
	w := newWorld(t)
	src := source(t, handlers.Tracking)
	old := w.claim(w.Store, src, 0)
	first := old.batch(track(src, 0, day, 1, 1, "progression", 1))
	again := old.batch(track(src, 0, day, 1, 1, "progression", 1))
	gap := old.batch(track(src, 0, day, 1, 1))
	gap.From, gap.Decisions[0].Record.Offset, gap.To = 5, 5, 6
	if err := w.Apply(ctx, first); err != nil {
		t.Fatal(err)
	}
	before := w.state()
	refuse := func(claim string, b *handlers.Batch, want error) {
		t.Helper()
		verdict := b.Decisions[0].Verdict
		if err := w.Apply(ctx, b); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", claim, err, want)
		}
		if b.Decisions[0].Verdict != verdict {
			t.Errorf("%s: the decision was changed", claim)
		}
		if after := w.state(); after != before {
			t.Errorf("%s: the tables changed:\n%s\nwant\n%s", claim, after, before)
		}
	}
	refuse("the same batch again", again, handlers.ErrMoved)
	refuse("a batch beyond the position", gap, handlers.ErrMoved)

	// The database goes back to before a claim, and somebody else claims: the
	// one who had made the lost claim is no owner.
	lost := &owner{w.claim(w.Store, src, 0).Position, w, w.Store, src}
	w.exec(fmt.Sprintf(`UPDATE learnsink.position SET epoch = %d`, old.Epoch))
	w.claim(w.Store, src, 0)
	before = w.state()
	refuse("of an epoch that was lost", lost.batch(track(src, 1, day, 1, 1, "progression", 2)), handlers.ErrFenced)

	zombie := &owner{old.Position, w, w.Store, src}
	zombie.NextOffset = 1
	late := zombie.batch(track(src, 1, day, 1, 1, "progression", 2))
	now := w.claim(w.Store, src, 0)
	if now.Epoch <= old.Epoch || now.NextOffset != 1 || now.Accepted != 1 {
		t.Fatalf("claimed: %+v", now.Position)
	}
	refuse("a zombie", late, handlers.ErrFenced)
	if err := w.SetState(ctx, old.TopicPartition, old.Epoch, handlers.DataLost, "zombie"); !errors.Is(err, handlers.ErrFenced) {
		t.Errorf("a zombie's state: %v", err)
	}
	if err := w.SetState(ctx, now.TopicPartition, now.Epoch, handlers.DataLost, "gone\x00"); err != nil {
		t.Errorf("the owner's state: %v", err)
	}
	if _, err := w.Claim(ctx, now.TopicPartition, "another", 0); !errors.Is(err, handlers.ErrClusterChanged) {
		t.Errorf("a claim for another cluster: %v", err)
	}
	positions, err := w.Positions(ctx)
	if err != nil || len(positions) != 1 || positions[0].State != handlers.DataLost || positions[0].Epoch != now.Epoch {
		t.Errorf("positions: %+v, %v", positions, err)
	}
	now.apply(track(src, 1, day, 1, 1, "progression", 3))

	stale := now.batch(track(src, 2, day, 1, 1, "progression", 4))
	w.exec(`UPDATE learnsink.catalogue_version SET version = version + 1, loaded_at = clock_timestamp()`)
	before = w.state()
	refuse("a batch decided by another catalogue", stale, handlers.ErrStaleFacts)
	now.apply(track(src, 2, day, 1, 1, "progression", 4))
	w.audit()
}

// stream makes n random rows that meet each other often.
func stream(rng *rand.Rand, src *handlers.Source, from int64, n int) []*handlers.Record {
	words := []string{"notAttempted", "incomplete", "completed", "passed", "failed", "browsed", "nonsense"}
	var records []*handlers.Record
	for i := range n {
		offset := from + int64(i)
		at := day.Add(time.Duration(rng.IntN(2000)) * time.Minute)
		if src.Rules.Action() == handlers.Intervention {
			records = append(records, intervene(src, offset, at, fmt.Sprintf("I%d", rng.IntN(6)), fmt.Sprintf("R%d", rng.IntN(4)),
				"roomLabel", fmt.Sprintf("label %d", rng.IntN(9)), "roomCapacity", []any{nil, rng.IntN(40)}[rng.IntN(2)],
				"interventionDuration", rng.IntN(4), "teacherLogin", fmt.Sprintf("t%d", rng.IntN(3))))
			continue
		}
		records = append(records, track(src, offset, at, rng.IntN(4), rng.IntN(4), "trackingStatus", words[rng.IntN(len(words))],
			"progression", rng.IntN(101), "score", []any{nil, rng.Float64() * 20}[rng.IntN(2)]))
	}
	return records
}

func TestBatchIsWorthItsRows(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	rng := rand.New(rand.NewPCG(seed, 1))
	t.Logf("seed %d", seed)
	one, many := newWorld(t), newWorld(t)
	for _, action := range []handlers.Action{handlers.Tracking, handlers.Intervention} {
		for _, byEventTime := range []bool{false, true} {
			src := source(t, action)
			src.ByEventTime = byEventTime
			src.Topic += fmt.Sprint(byEventTime)
			singles, batches := one.claim(one.Store, src, 0), many.claim(many.Store, src, 0)
			for range 6 {
				records := stream(rng, src, batches.NextOffset, 1+rng.IntN(40))
				b := batches.apply(records...)
				for i, rec := range records {
					single := singles.apply(rec)
					if got, want := fmt.Sprint(b.Decisions[i].Verdict, b.Decisions[i].Errors), fmt.Sprint(single.Decisions[0].Verdict, single.Decisions[0].Errors); got != want {
						t.Fatalf("row %d: %s in a batch, %s by itself (seed %d)", i, got, want, seed)
					}
				}
			}
			if got, want := many.state(), one.state(); got != want {
				t.Fatalf("%s, byEventTime %v, seed %d: batches left\n%s\nrows one by one\n%s", action, byEventTime, seed, got, want)
			}
		}
	}
	one.audit()
	many.audit()
}

// TestRace lets the owners of several partitions write the same new keys at
// once, in each round all of them after all of them have looked and found
// nothing. Ordered by event time, the outcome cannot depend on who was first.
func TestRace(t *testing.T) {
	const owners, rounds = 3, 40
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	raced, calm := newWorld(t), newWorld(t)
	stores := make([]*store.Store, owners)
	for p := range stores {
		stores[p] = open(t, raced.url)
	}
	for _, action := range []handlers.Action{handlers.Tracking, handlers.Intervention} {
		src := source(t, action)
		if action == handlers.Tracking { // what is kept depends on who was first
			src = source(t, action, handlers.Setting{Name: "completionDefault", Text: "today"})
		}
		src.ByEventTime = true
		rng := rand.New(rand.NewPCG(seed, 0))
		write := func(round, p int) []*handlers.Record {
			offset, at := int64(round*2), day.Add(time.Duration(rng.IntN(3)*owners+p)*time.Minute)
			if action == handlers.Intervention {
				return []*handlers.Record{intervene(src, offset, at, fmt.Sprintf("I%d", round), fmt.Sprintf("R%d", round+1), "roomLabel", fmt.Sprint(p), "roomCapacity", p)}
			}
			status := []string{"notAttempted", "notAttempted", "completed"}
			return []*handlers.Record{
				track(src, offset, at, round%10, round/10*2, "trackingStatus", status[rng.IntN(3)], "progression", p),
				track(src, offset+1, at, round%10, round/10*2+1, "trackingStatus", status[rng.IntN(3)], "progression", p)}
		}
		var racing, calmly []*owner
		for p := range owners {
			racing = append(racing, raced.claim(stores[p], src, p))
			calmly = append(calmly, calm.claim(calm.Store, src, p))
		}
		for round := range rounds {
			var looked, done sync.WaitGroup
			looked.Add(owners)
			for _, p := range rng.Perm(owners) {
				records := write(round, p)
				calmly[p].apply(records...)
				o, b := racing[p], racing[p].batch(records...)
				encode := b.Encode
				var once sync.Once
				b.Encode = func(ds []handlers.Decision) ([]byte, error) {
					once.Do(func() { looked.Done(); looked.Wait() })
					return encode(ds)
				}
				done.Go(func() {
					if err := o.st.Apply(context.Background(), b); err != nil {
						t.Errorf("round %d, partition %d: %v", round, p, err)
					}
					o.NextOffset = b.To
				})
			}
			done.Wait()
		}
	}
	raced.audit()
	calm.audit()
	tables := func(w *world) string {
		return w.text(`SELECT * FROM (
			SELECT 1, (to_jsonb(t) - 'updated_at')::text FROM learnsink.tracking t
			UNION ALL SELECT 2, to_jsonb(t)::text FROM learnsink.tracking_deleted t
			UNION ALL SELECT 3, (to_jsonb(t) - 'updated_at')::text FROM learnsink.intervention t
			UNION ALL SELECT 4, to_jsonb(t)::text FROM learnsink.room t) a ORDER BY 1, 2`)
	}
	if got, want := tables(raced), tables(calm); got != want {
		t.Errorf("raced:\n%s\none after the other:\n%s", got, want)
	}
}

// TestPoison sends what PostgreSQL would choke on through the rules and the
// store: a verdict for each, and the partition goes on.
func TestPoison(t *testing.T) {
	w := newWorld(t)
	src := source(t, handlers.Tracking)
	o := w.claim(w.Store, src, 0)
	long := strings.Repeat("x", 300_000)
	values := []string{
		``, `null`, `[]`, `"`, `{}`, "\xff\xfe", `{"candidateLogin":"l1","lovGuid":"o1","sessionId":100,"candidateEmail":"\u0000"}`,
		`{"\u0000\u0001":"x","candidateLogin":"\ud800"}`, `{"\u0000key":1}`, strings.Repeat(`[`, 20000), strings.Repeat(`{"a":`, 20000),
		`{"candidateLogin":"l1","lovGuid":"o1","sessionId":100,"score":1e200000}`, `{"candidateLogin":"l1","lovGuid":"o1","sessionId":100,"score":"NaN"}`,
		`{"candidateLogin":"l1","lovGuid":"o1","sessionId":100,"score":1e300}`, `{"candidateLogin":"l1","lovGuid":"o1","sessionId":100,"score":"-Infinity"}`,
		`{"candidateLogin":"l1","lovGuid":"o1","sessionId":99999999999999999999}`, `{"candidateLogin":"l1","lovGuid":"o1","sessionId":100,"scoreMax":2147483648}`,
		`{"candidateLogin":"l1","lovGuid":"o1","sessionId":100,"timeSpent":99999999999}`,
		`{"candidateLogin":"l1","lovGuid":"o1","sessionId":100,"firstAccessDate":"0000-01-01 00:00:00"}`,
		`{"candidateLogin":"l1","lovGuid":"o1","sessionId":100,"firstAccessDate":"2026-02-30 00:00:00"}`,
		`{"candidateLogin":"l1","lovGuid":"o1","sessionId":100,"firstAccessDate":"9999-12-31 23:59:59","lastAccessDate":"0001-01-01 00:00:00"}`,
		`{"candidateLogin":"` + long + `"}`, `{"` + long + `":1}`, `{"candidateLogin":"l1","lovCode":"` + strings.Repeat("é", 255) + `","sessionId":100}`,
		`{"candidateLogin":"l1","lovGuid":"o1","sessionId":100,"score":4.9e-324,"progression":0.1}`,
	}
	var records []*handlers.Record
	for i, v := range values {
		records = append(records, &handlers.Record{Topic: src.Topic, Offset: int64(i), Timestamp: day, Value: []byte(v), Key: []byte("\x00\xff"),
			Headers: []handlers.Header{{Key: "ce_source", Value: []byte("s\x00\xff\xfe" + long)}, {Key: "\x00\xff", Value: []byte{0, 0xff}}, {Key: "null"}, {Key: "text", Value: []byte("é")}}})
	}
	records = append(records, &handlers.Record{Topic: src.Topic, Offset: int64(len(records))},
		&handlers.Record{Topic: src.Topic, Offset: int64(len(records) + 1), Timestamp: time.UnixMilli(1 << 62)},
		&handlers.Record{Topic: src.Topic, Offset: int64(len(records) + 2), Timestamp: time.UnixMilli(-1 << 62), Value: []byte(`{}`)})
	b := o.apply(records...)
	for i := range b.Decisions {
		if b.Decisions[i].Verdict == handlers.Rejected && b.Decisions[i].Errors[0].Code == handlers.DatabaseRefused {
			t.Errorf("record %d (%.60q): the database found it, not the rules", i, records[i].Value)
		}
	}
	w.audit()
	headers := w.text(`SELECT headers -> 1, headers -> 2, headers -> 3 FROM learnsink.rejection WHERE source_offset = 0`)
	if want := `("{""keyBase64"": ""AP8="", ""valueBase64"": ""AP8=""}","{""key"": ""null""}","{""key"": ""text"", ""value"": ""é""}")`; headers != want {
		t.Errorf("headers: %s, want %s", headers, want)
	}
	if got := w.text(`SELECT DISTINCT key FROM learnsink.rejection WHERE source_offset < 5`); got != `("\\x00ff")` {
		t.Errorf("key: %s", got)
	}
}

func TestDatabaseRefuses(t *testing.T) {
	w := newWorld(t)
	src := source(t, handlers.Tracking)
	w.exec(`ALTER TABLE learnsink.tracking ADD CONSTRAINT unlucky CHECK (score <> 13)`)
	o := w.claim(w.Store, src, 0)
	var records []*handlers.Record
	for i := range 20 {
		records = append(records, track(src, int64(i), day, i%4, i%3, "score", []int{7, 13}[i%7/6], "progression", i))
	}
	b := o.apply(records...)
	for i := range b.Decisions {
		d := &b.Decisions[i]
		if refused := i%7 == 6; refused != (d.Verdict == handlers.Rejected) {
			t.Errorf("row %d: verdict %v, errors %v", i, d.Verdict, d.Errors)
		}
		if d.Verdict == handlers.Rejected && fmt.Sprint(d.Errors) != "[{database_refused   Row was refused by the database [23514].}]" {
			t.Errorf("row %d: %v", i, d.Errors)
		}
	}
	if got := w.text(`SELECT source_offset, codes FROM learnsink.rejection ORDER BY 1`); got != "(6,{database_refused})\n(13,{database_refused})" {
		t.Errorf("rejections: %s", got)
	}
	w.audit()
}

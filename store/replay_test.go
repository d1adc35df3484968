package store_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"learnsink/handlers"
	"learnsink/store"
)

// replayTopic is a source as its rows are treated when they are sent again.
func replayTopic(src *handlers.Source) *handlers.Source {
	again := *src
	again.Topic, again.ByEventTime, again.EventTimeHeader = "learning.replay", true, true
	return &again
}

// again makes a record of the replay topic of one of src: the same row, unless
// another is given, at the next offset of the replay topic.
func again(o *owner, offset int64, original *handlers.Record, says handlers.Replay, row ...any) *handlers.Record {
	rec := record(o.source, offset, day.AddDate(0, 1, 0), row...)
	if len(row) == 0 {
		rec.Value = original.Value
	}
	says.Attempt = max(says.Attempt, 1)
	says.SourceTopic = original.Topic
	says.EventTime = handlers.EventTime(original, false, day)
	if says.Of != "" {
		says.Origin = handlers.Some(handlers.Origin{Partition: original.Partition, Incarnation: 1, Offset: original.Offset})
	}
	rec.Headers = says.Headers()
	return rec
}

// replayBatch is batch, of records of the replay topic; they are of one lane.
func (o *owner) replayBatch(records ...*handlers.Record) *handlers.Batch {
	o.w.t.Helper()
	b := o.batch(records...)
	rules := o.source.Rules
	refs := handlers.NewReferences()
	rows, says := make([]handlers.Row, len(records)), make([]handlers.Replay, len(records))
	for i, rec := range records {
		says[i] = handlers.ReplayOf(rec)
		rows[i] = rules.Decode(rec, handlers.EventTime(rec, true, day))
		rows[i].Replays(&says[i])
		rows[i].Refer(refs)
	}
	facts, err := o.st.Facts(context.Background(), refs)
	if err != nil {
		o.w.t.Fatal(err)
	}
	b.Decisions = rules.DecideAll(rows, facts)
	if len(says) > 0 && says[0].Origin.OK {
		b.Origin = handlers.TopicPartition{Topic: says[0].SourceTopic, Partition: says[0].Origin.V.Partition}
	}
	return b
}

func (o *owner) replay(records ...*handlers.Record) *handlers.Batch {
	o.w.t.Helper()
	b := o.replayBatch(records...)
	if err := o.st.Apply(context.Background(), b); err != nil {
		o.w.t.Fatal(err)
	}
	o.NextOffset = b.To
	return b
}

// plantJob makes a job with items for the dead letters of these ids.
func (w *world) plantJob(rejections ...string) (job int64) {
	w.t.Helper()
	err := w.db.QueryRow(context.Background(), `INSERT INTO learnsink.job (kind, state, actor, rate, items, sent) VALUES ('replay', 'done', 'me', 500, $1, $1) RETURNING id`, len(rejections)).Scan(&job)
	if err != nil {
		w.t.Fatal(err)
	}
	for i, id := range rejections {
		w.exec(`INSERT INTO learnsink.job_item (job, seq, rejection, source_topic, event_at, state) VALUES ($1, $2, nullif($3, ''), 'learning.tracking', now(), 'sent')`, job, i+1, id)
		w.exec(`UPDATE learnsink.rejection SET state = 'replaying', job = $2 WHERE id = $1`, id, job)
	}
	return job
}

const lineOf = `SELECT state, attempt, codes, settled_by, judged_by, jsonb_array_length(history) AS past FROM learnsink.rejection WHERE id = $1`

func TestReplaySettles(t *testing.T) {
	bad := []any{"candidateLogin", "l1", "lovGuid", "o99", "sessionId", 100} // no such learning object
	good := []any{"candidateLogin", "l1", "lovGuid", "o1", "sessionId", 100, "progression", 7}
	worse := []any{"candidateLogin", "nobody", "lovGuid", "o99", "sessionId", 100}
	const id = "learning.tracking-3-0"

	// house is a world with one dead letter, its record, and an owner of the replay topic.
	house := func(t *testing.T) (*world, *handlers.Record, *owner, *owner) {
		w := newWorld(t)
		src := source(t, handlers.Tracking)
		o := w.claim(w.Store, src, 3)
		original := record(src, 0, day, bad...)
		o.apply(original)
		return w, original, o, w.claim(w.Store, replayTopic(src), 0)
	}
	sees := func(t *testing.T, w *world, id, want string) {
		t.Helper()
		if got := w.text(lineOf, id); got != want {
			t.Errorf("%s is %s, not %s", id, got, want)
		}
	}
	item := func(w *world, job int64) string {
		return w.text(`SELECT seq, state, outcome FROM learnsink.job_item WHERE job = $1 ORDER BY seq`, job)
	}

	t.Run("accepted: resolved, and the row stands where its original stood", func(t *testing.T) {
		w, original, _, o := house(t)
		job := w.plantJob(id)
		b := o.replay(again(o, 0, original, handlers.Replay{Of: id, Attempt: 2, Job: job, Item: 1}, good...))
		if b.Decisions[0].Verdict != handlers.Accepted {
			t.Fatalf("%+v", b.Decisions[0].Errors)
		}
		sees(t, w, id, `(resolved,2,{lo_not_found},learning.replay-0-0,,0)`)
		if got := item(w, job); got != "(1,accepted,learning.replay-0-0)" {
			t.Errorf("the item: %s", got)
		}
		if got := w.text(`SELECT source_topic, source_partition, source_offset, event_at, progression FROM learnsink.tracking`); got != `(learning.tracking,3,0,"2026-03-01 12:00:00+00",7)` {
			t.Errorf("the row: %s", got)
		}
		if got := w.text(`SELECT topic, next_offset, accepted, rejected FROM learnsink.position ORDER BY topic`); got != "(learning.replay,1,1,0)\n(learning.tracking,1,0,1)" {
			t.Errorf("positions: %s", got)
		}
		if got := w.text(`SELECT settled_at IS NOT NULL, job FROM learnsink.rejection`); got != fmt.Sprintf("(t,%d)", job) {
			t.Errorf("settled: %s", got)
		}
		w.audit()
	})

	t.Run("rejected: open again with what is wrong now, and in the fifth attempt quarantined", func(t *testing.T) {
		w, original, _, o := house(t)
		var jobs []int64
		for i, want := range []string{
			`(open,2,"{lo_not_found,registration_not_found}",,learning.replay-0-0,1)`, `(open,3,"{lo_not_found,registration_not_found}",,learning.replay-0-1,2)`,
			`(open,4,"{lo_not_found,registration_not_found}",,learning.replay-0-2,3)`, `(quarantined,5,"{lo_not_found,registration_not_found}",,learning.replay-0-3,4)`,
			`(quarantined,6,"{lo_not_found,registration_not_found}",,learning.replay-0-4,5)`, // a person has let it out, for once more
		} {
			jobs = append(jobs, w.plantJob(id))
			o.replay(again(o, int64(i), original, handlers.Replay{Of: id, Attempt: i + 2, Job: jobs[i], Item: 1}, worse...))
			sees(t, w, id, want)
			if got := item(w, jobs[i]); got != fmt.Sprintf("(1,rejected,learning.replay-0-%d)", i) {
				t.Errorf("the item: %s", got)
			}
		}
		past := w.text(`SELECT e ->> 'attempt', e ->> 'id', e ->> 'job', e -> 'codes', e -> 'errors' -> 0 ->> 'code', (e ->> 'at')::timestamptz BETWEEN now() - interval '1 minute' AND now()
			FROM learnsink.rejection, jsonb_array_elements(history) WITH ORDINALITY AS h(e, n) WHERE id = $1 ORDER BY n LIMIT 3`, id)
		want := fmt.Sprintf(`(1,learning.tracking-3-0,,"[""lo_not_found""]",lo_not_found,t)
(2,learning.replay-0-0,%d,"[""lo_not_found"", ""registration_not_found""]",lo_not_found,t)
(3,learning.replay-0-1,%d,"[""lo_not_found"", ""registration_not_found""]",lo_not_found,t)`, jobs[0], jobs[1])
		if past != want {
			t.Errorf("history:\n%s\nnot\n%s", past, want)
		}
		if got := w.text(`SELECT id, state, attempt, replay_of, job FROM learnsink.rejection WHERE id = 'learning.replay-0-2'`); got != fmt.Sprintf("(learning.replay-0-2,archived,4,%s,%d)", id, jobs[2]) {
			t.Errorf("the line of an attempt: %s", got)
		}
		if got := w.text(`SELECT convert_from(value, 'UTF8')::json ->> 'candidateLogin', event_at FROM learnsink.rejection WHERE id = $1`, id); got != `(l1,"2026-03-01 12:00:00+00")` {
			t.Errorf("the original: %s", got)
		}
		w.audit()
	})

	t.Run("superseded: it is older than what is stored, or was deleted", func(t *testing.T) {
		w, original, sender, o := house(t)
		for i, newer := range []*handlers.Record{
			track(sender.source, 1, day.Add(time.Microsecond*1000), 1, 1, "progression", 90),
			track(sender.source, 2, day.Add(time.Hour), 1, 1, "trackingStatus", "notAttempted"),
		} {
			sender.apply(newer)
			before := w.text(`SELECT * FROM learnsink.tracking, (SELECT count(*) FROM learnsink.tracking_deleted) d`)
			job := w.plantJob(id)
			o.replay(again(o, int64(i), original, handlers.Replay{Of: id, Attempt: i + 2, Job: job, Item: 1}, good...))
			sees(t, w, id, fmt.Sprintf(`(superseded,%d,{superseded},learning.replay-0-%d,learning.replay-0-%[2]d,%d)`, i+2, i, i+1))
			if got := item(w, job); got != fmt.Sprintf("(1,superseded,learning.replay-0-%d)", i) {
				t.Errorf("the item: %s", got)
			}
			if got := w.text(`SELECT * FROM learnsink.tracking, (SELECT count(*) FROM learnsink.tracking_deleted) d`); got != before {
				t.Errorf("what is stored: %s, was %s", got, before)
			}
		}
		w.audit()
	})

	t.Run("what a person has seen is overwritten, and nothing newer", func(t *testing.T) {
		w, original, sender, o := house(t)
		sender.apply(track(sender.source, 1, day.Add(time.Hour), 1, 1, "progression", 90))
		seen := handlers.Stored{Known: true, EventTime: day.Add(time.Hour), SourceTopic: "learning.tracking", SourcePartition: 3, SourceOffset: 1}.Seen()
		sender.apply(track(sender.source, 2, day.Add(2*time.Hour), 1, 1, "progression", 95)) // since
		job := w.plantJob(id)
		o.replay(again(o, 0, original, handlers.Replay{Of: id, Attempt: 2, Job: job, Item: 1, Overwrite: seen}, good...))
		sees(t, w, id, `(superseded,2,{superseded},learning.replay-0-0,learning.replay-0-0,1)`)
		seen = handlers.Stored{Known: true, EventTime: day.Add(2 * time.Hour), SourceTopic: "learning.tracking", SourcePartition: 3, SourceOffset: 2}.Seen()
		job = w.plantJob(id)
		o.replay(again(o, 1, original, handlers.Replay{Of: id, Attempt: 3, Job: job, Item: 1, Overwrite: seen}, good...))
		sees(t, w, id, `(resolved,3,{superseded},learning.replay-0-1,learning.replay-0-0,1)`)
		if got := w.text(`SELECT progression, source_offset FROM learnsink.tracking`); got != "(7,0)" {
			t.Errorf("what is stored: %s", got)
		}
		w.audit()
	})

	t.Run("a row that waited is released: its attempt stays the first", func(t *testing.T) {
		w, original, _, o := house(t)
		w.exec(`UPDATE learnsink.position SET waiting = 1, rejected = 0 WHERE topic = 'learning.tracking'`)
		w.exec(`UPDATE learnsink.ledger SET waiting = 1, rejected = 0`)
		for i, c := range []struct {
			row  []any
			want string
		}{
			{worse, `(open,1,"{lo_not_found,registration_not_found}",,learning.replay-0-0,1)`},
			{good, `(resolved,1,"{lo_not_found,registration_not_found}",learning.replay-0-1,learning.replay-0-0,1)`},
		} {
			job := w.plantJob(id)
			w.exec(`UPDATE learnsink.rejection SET waits_for = '{x}', deadline = now() WHERE id = $1`, id)
			o.replay(again(o, int64(i), original, handlers.Replay{Of: id, Job: job, Item: 1, Waited: true}, c.row...))
			sees(t, w, id, c.want)
			if got := w.text(`SELECT waits_for, deadline < now() FROM learnsink.rejection WHERE id = $1`, id); got != "({x},t)" {
				t.Errorf("that it has waited is forgotten: %s", got)
			}
		}
		w.audit()
	})

	t.Run("two records replay the same: both have an outcome, the first that resolves settles", func(t *testing.T) {
		for name, together := range map[string]bool{"in one batch": true, "one after the other": false} {
			t.Run(name, func(t *testing.T) {
				w, original, _, o := house(t)
				w.plantJob(id)
				var records []*handlers.Record
				for i, row := range [][]any{worse, good, worse, good} {
					records = append(records, again(o, int64(i), original, handlers.Replay{Of: id, Attempt: 2}, row...))
				}
				if together {
					o.replay(records...)
				} else {
					for _, r := range records {
						o.replay(r)
					}
				}
				sees(t, w, id, `(resolved,3,"{lo_not_found,registration_not_found}",learning.replay-0-1,learning.replay-0-0,1)`)
				if got := w.text(`SELECT accepted, rejected FROM learnsink.position WHERE topic = 'learning.replay'`); got != "(2,2)" {
					t.Errorf("outcomes: %s", got)
				}
				w.audit()
			})
		}
	})

	t.Run("a dead letter whose line is gone has an heir", func(t *testing.T) {
		w, original, _, o := house(t)
		w.exec(`UPDATE learnsink.rejection SET rejected_at = now() - interval '91 days'`)
		if n, err := w.DropRejections(t.Context(), time.Now().AddDate(0, 0, -90)); n != 1 || err != nil {
			t.Fatal(n, err)
		}
		w.exec(`UPDATE learnsink.ledger SET applied_at = now() - interval '91 days'`)
		o.replay(again(o, 0, original, handlers.Replay{Of: id, Attempt: 2}, good...))
		o.replay(again(o, 1, original, handlers.Replay{Of: id, Attempt: 2}, worse...))
		o.replay(again(o, 2, original, handlers.Replay{Of: id, Attempt: 5}, worse...))
		if got := w.text(`SELECT id, state, attempt, replay_of FROM learnsink.rejection ORDER BY id`); got != "(learning.replay-0-1,open,2,learning.tracking-3-0)\n(learning.replay-0-2,quarantined,5,learning.tracking-3-0)" {
			t.Errorf("the heirs: %s", got)
		}
		// The heir is replayed in turn.
		o.replay(again(o, 3, original, handlers.Replay{Of: "learning.replay-0-1", Attempt: 3}, good...))
		sees(t, w, "learning.replay-0-1", `(resolved,3,"{lo_not_found,registration_not_found}",learning.replay-0-3,,0)`)
	})

	t.Run("a tombstone that the settings ignore by now has no outcome, and is settled", func(t *testing.T) {
		w := newWorld(t)
		src := source(t, handlers.Tracking)
		o := w.claim(w.Store, src, 3)
		original := record(src, 0, day)
		original.Value = nil
		o.apply(original)
		r := w.claim(w.Store, replayTopic(source(t, handlers.Tracking, handlers.Setting{Name: "tombstones", Text: "ignore"})), 0)
		job := w.plantJob(id)
		r.replay(again(r, 0, original, handlers.Replay{Of: id, Attempt: 2, Job: job, Item: 1}))
		sees(t, w, id, `(resolved,2,{record_empty},learning.replay-0-0,,0)`)
		if got := item(w, job); got != "(1,dropped,learning.replay-0-0)" {
			t.Errorf("the item: %s", got)
		}
		if got := w.text(`SELECT accepted, rejected, skipped FROM learnsink.position WHERE topic = 'learning.replay'`); got != "(0,0,1)" {
			t.Errorf("the position: %s", got)
		}
		w.audit()
	})

	t.Run("a row of learnsink's own stands where it is", func(t *testing.T) {
		w, original, _, o := house(t)
		job := w.plantJob("")
		o.replay(again(o, 0, original, handlers.Replay{Job: job, Item: 1}, good...))
		if got := w.text(`SELECT source_topic, source_partition, source_offset FROM learnsink.tracking`); got != "(learning.replay,0,0)" {
			t.Errorf("the row: %s", got)
		}
		if got := item(w, job); got != "(1,accepted,learning.replay-0-0)" {
			t.Errorf("the item: %s", got)
		}
		o.replay(again(o, 1, original, handlers.Replay{}, worse...))
		if got := w.text(`SELECT state, attempt, replay_of FROM learnsink.rejection WHERE id = 'learning.replay-0-1'`); got != "(open,1,)" {
			t.Errorf("its dead letter: %s", got)
		}
		w.audit()
	})

	t.Run("a line that is settled or put away stays so, unless its row is accepted after all", func(t *testing.T) {
		w, original, _, o := house(t)
		offset := int64(0)
		send := func(row ...any) {
			o.replay(again(o, offset, original, handlers.Replay{Of: id, Attempt: 2}, row...))
			offset++
		}
		for _, c := range []struct{ was, bad, good string }{
			{"open", "open", "resolved"}, {"waiting", "open", "resolved"}, {"replaying", "open", "resolved"}, {"quarantined", "quarantined", "resolved"},
			{"archived", "archived", "resolved"}, {"superseded", "superseded", "resolved"}, {"resolved", "resolved", "resolved"},
		} {
			for _, row := range [][]any{worse, good} {
				w.exec(`UPDATE learnsink.rejection SET state = $2, attempt = 1 WHERE id = $1`, id, c.was)
				send(row...)
				want := c.bad
				if len(row) == len(good) {
					want = c.good
				}
				if got := w.text(`SELECT state FROM learnsink.rejection WHERE id = $1`, id); got != "("+want+")" {
					t.Errorf("%s: %s, not %s", c.was, got, want)
				}
			}
		}
		w.audit()
	})

	t.Run("a position that is set back: what the same record is judged to be now holds, once", func(t *testing.T) {
		w, original, _, o := house(t)
		w.plantJob(id)
		sent := again(o, 0, original, handlers.Replay{Of: id, Attempt: 2}, worse...)
		o.replay(sent)
		want := `(open,2,"{lo_not_found,registration_not_found}",,learning.replay-0-0,1)`
		sees(t, w, id, want)
		back := func() {
			w.exec(`DELETE FROM learnsink.rejection WHERE source_topic = 'learning.replay'`)
			w.exec(`DELETE FROM learnsink.outbox WHERE topic = 'learning.replay'`)
			w.exec(`UPDATE learnsink.ledger SET superseded = true WHERE topic = 'learning.replay'`)
			w.exec(`UPDATE learnsink.position SET next_offset = 0, accepted = 0, rejected = 0, skipped = 0, round = round + 1 WHERE topic = 'learning.replay'`)
			o.Position = w.claim(w.Store, o.source, 0).Position
		}
		back()
		o.replay(sent)
		sees(t, w, id, want)
		back()
		w.exec(`UPDATE learnsink.learning_object SET guid = 'O99', guid_folded = 'o99' WHERE guid = 'O9'`)
		w.exec(`UPDATE learnsink.learner SET login = 'nobody', login_folded = 'nobody' WHERE login = 'L9'`)
		w.exec(`UPDATE learnsink.catalogue_version SET version = 2, loaded_at = now()`)
		if _, _, err := w.CatalogueVersion(t.Context()); err != nil {
			t.Fatal(err)
		}
		o.st = open(t, w.url) // it remembers nothing
		o.replay(sent)
		if got := w.text(`SELECT state, attempt, settled_by FROM learnsink.rejection WHERE id = $1`, id); got != "(resolved,2,learning.replay-0-0)" {
			t.Errorf("accepted by now: %s", got)
		}
		back()
		w.exec(`UPDATE learnsink.learner SET login = 'L9', login_folded = 'l9' WHERE login = 'nobody'`)
		w.exec(`UPDATE learnsink.catalogue_version SET version = 3, loaded_at = now()`)
		o.st = open(t, w.url)
		o.replay(sent)
		if got := w.text(`SELECT state, attempt, codes, settled_by FROM learnsink.rejection WHERE id = $1`, id); got != "(open,2,{registration_not_found},)" {
			t.Errorf("rejected after all: %s", got)
		}
		w.audit()
	})

	t.Run("a position that is set back over several attempts: the line says what it said", func(t *testing.T) {
		w, original, _, o := house(t)
		var sent []*handlers.Record
		for i := range 3 {
			sent = append(sent, again(o, int64(i), original, handlers.Replay{Of: id, Attempt: i + 2}, worse...))
			o.replay(sent[i])
		}
		line := func() string {
			return w.text(`SELECT state, attempt, codes, judged_by, history FROM learnsink.rejection WHERE id = $1`, id)
		}
		before := line()
		w.exec(`DELETE FROM learnsink.outbox`)
		if _, err := w.SetPosition(t.Context(), store.PositionChange{TopicPartition: o.TopicPartition, Epoch: o.Epoch, To: 0, Mode: store.Republish}); err != nil {
			t.Fatal(err)
		}
		o.Position = w.claim(w.Store, o.source, 0).Position
		o.replay(sent...)
		if got := line(); got != before {
			t.Errorf("%s\nwas %s", got, before)
		}
		w.audit()
	})

	t.Run("interventions too", func(t *testing.T) {
		w := newWorld(t)
		src := source(t, handlers.Intervention)
		o := w.claim(w.Store, src, 1)
		original := intervene(src, 0, day, "I1", "R0", "teacherLogin", "nobody")
		o.apply(original)
		r := w.claim(w.Store, replayTopic(src), 0)
		fixed := intervene(src, 0, day, "I1", "R0")
		fixed.Partition = 1
		r.replay(again(r, 0, fixed, handlers.Replay{Of: "learning.intervention-1-0", Attempt: 2}))
		sees(t, w, "learning.intervention-1-0", `(resolved,2,{teacher_not_found},learning.replay-0-0,,0)`)
		if got := w.text(`SELECT source_topic, source_partition, source_offset FROM learnsink.intervention`); got != "(learning.intervention,1,0)" {
			t.Errorf("the row: %s", got)
		}
		o.apply(intervene(src, 1, day.Add(time.Hour), "I1", "R0", "interventionStatus", "C"))
		r.replay(again(r, 1, fixed, handlers.Replay{Of: "learning.intervention-1-0", Attempt: 2}))
		if got := w.text(`SELECT status, (SELECT state FROM learnsink.rejection WHERE id = 'learning.replay-0-1') FROM learnsink.intervention`); got != "(cancelled,archived)" {
			t.Errorf("an older row, sent again: %s", got)
		}
		w.audit()
	})

	t.Run("a header that PostgreSQL cannot hold is none", func(t *testing.T) {
		w, original, _, o := house(t)
		for i, of := range []string{"\x00", "\xff", strings.Repeat("x", 100_000)} {
			rec := again(o, int64(i), original, handlers.Replay{}, worse...)
			rec.Headers = append(rec.Headers, handlers.Header{Key: handlers.ReplayOfHeader, Value: []byte(of)})
			o.replay(rec)
		}
		if got := w.text(`SELECT state, count(*) FROM learnsink.rejection WHERE replay_of IS NULL GROUP BY 1`); got != "(open,4)" {
			t.Errorf("%s", got)
		}
		w.audit()
	})
}

// TestReplayCrash: whatever becomes of the transaction, the row, its dead
// letter, the item and the position say the same.
func TestReplayCrash(t *testing.T) {
	bad := []any{"candidateLogin", "l1", "lovGuid", "o99", "sessionId", 100}
	good := []any{"candidateLogin", "l1", "lovGuid", "o1", "sessionId", 100}
	const all = `SELECT (SELECT next_offset FROM learnsink.position WHERE topic = 'learning.replay'), (SELECT count(*) FROM learnsink.tracking),
		(SELECT string_agg(state || attempt, ' ' ORDER BY id) FROM learnsink.rejection WHERE replay_of IS NULL), (SELECT count(*) FROM learnsink.rejection WHERE replay_of IS NOT NULL),
		(SELECT string_agg(state, ' ' ORDER BY seq) FROM learnsink.job_item), (SELECT count(*) FROM learnsink.outbox WHERE topic = 'learning.replay')`
	begin := func(t *testing.T) (*world, *owner, []*handlers.Record, func(*owner) *handlers.Batch) {
		w := newWorld(t)
		src := source(t, handlers.Tracking)
		sender := w.claim(w.Store, src, 0)
		originals := []*handlers.Record{record(src, 0, day, bad...), record(src, 1, day, bad...)}
		sender.apply(originals...)
		job := w.plantJob("learning.tracking-0-0", "learning.tracking-0-1")
		return w, w.claim(w.Store, replayTopic(src), 0), originals, func(o *owner) *handlers.Batch {
			return o.replayBatch(again(o, 0, originals[0], handlers.Replay{Of: "learning.tracking-0-0", Attempt: 2, Job: job, Item: 1}, good...),
				again(o, 1, originals[1], handlers.Replay{Of: "learning.tracking-0-1", Attempt: 2, Job: job, Item: 2}, bad...))
		}
	}
	const before, after = `(0,0,"replaying1 replaying1",0,"sent sent",0)`, `(2,1,"resolved2 open2",1,"accepted rejected",1)`

	for name, how := range map[string]int32{
		"the COMMIT took effect and its reply was lost": passThenCut,
		"the COMMIT never arrived":                      cutAtOnce,
	} {
		t.Run(name, func(t *testing.T) {
			w, o, _, batch := begin(t)
			p, address := newProxy(t, w.url)
			o.st = open(t, address)
			b := batch(o)
			p.cut.Store(how)
			if err := o.st.Apply(t.Context(), b); err != nil {
				t.Fatal(err)
			}
			if p.cuts.Load() != 1 {
				t.Fatal("no COMMIT was cut")
			}
			if got := w.text(all); got != after {
				t.Errorf("%s, not %s", got, after)
			}
			w.audit()
		})
	}
	// Each table that the transaction writes fails in turn: nothing is left of
	// it, and the same batch applies afterwards.
	for _, table := range []string{"tracking", "rejection", "job_item", "ledger", "outbox", "position"} {
		t.Run("a crash at "+table, func(t *testing.T) {
			w, o, _, batch := begin(t)
			w.exec(`CREATE FUNCTION learnsink.crash() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE 'crash' USING ERRCODE = '57P01'; END$$`)
			w.exec(`CREATE TRIGGER crash AFTER INSERT OR UPDATE ON learnsink.` + table + ` FOR EACH STATEMENT EXECUTE FUNCTION learnsink.crash()`)
			b := batch(o)
			if err := o.st.Apply(t.Context(), b); err == nil {
				t.Fatal("no crash")
			}
			if got := w.text(all); got != before {
				t.Errorf("after the crash %s, not %s", got, before)
			}
			w.exec(`DROP TRIGGER crash ON learnsink.` + table)
			if err := o.st.Apply(t.Context(), b); err != nil {
				t.Fatal(err)
			}
			if got := w.text(all); got != after {
				t.Errorf("%s, not %s", got, after)
			}
			if err := o.st.Apply(t.Context(), batch(o)); !errors.Is(err, handlers.ErrMoved) {
				t.Errorf("once more: %v", err)
			}
			w.audit()
		})
	}
}

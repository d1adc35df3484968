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

// waitingSource is a source of tracking rows that wait for an hour.
func waitingSource(t testing.TB) *handlers.Source {
	src := source(t, handlers.Tracking)
	src.Wait = time.Hour
	return src
}

// wait is what a consumer does with the rows of such a source before they are applied.
func (o *owner) wait(b *handlers.Batch, records ...*handlers.Record) *handlers.Batch {
	o.w.t.Helper()
	rows := make([]handlers.Row, len(records))
	for i, rec := range records {
		rows[i] = o.source.Rules.Decode(rec, handlers.EventTime(rec, true, day))
	}
	refs, _ := handlers.Lacking(rows, b.Decisions)
	facts, err := o.st.Facts(context.Background(), refs)
	if err != nil {
		o.w.t.Fatal(err)
	}
	for ref := range refs.Contexts {
		if _, ok := facts.Contexts[ref]; !ok {
			o.w.t.Fatal("no answer")
		}
	}
	whole := handlers.NewReferences()
	for i := range rows {
		rows[i].Refer(whole)
	}
	all, err := o.st.Facts(context.Background(), whole)
	if err != nil {
		o.w.t.Fatal(err)
	}
	all.Contexts = facts.Contexts
	handlers.Wait(rows, b.Decisions, all)
	return b
}

// applyWaiting applies records of which some may wait, and moves on.
func (o *owner) applyWaiting(records ...*handlers.Record) *handlers.Batch {
	o.w.t.Helper()
	b := o.applyJudged(func() *handlers.Batch { return o.wait(o.batch(records...), records...) })
	o.NextOffset = b.To
	return b
}

// applyJudged applies what judge returns, and judges again where the catalogue
// has changed since.
func (o *owner) applyJudged(judge func() *handlers.Batch) *handlers.Batch {
	o.w.t.Helper()
	for {
		b := judge()
		err := o.st.Apply(context.Background(), b)
		if errors.Is(err, handlers.ErrStaleFacts) {
			continue
		}
		if err != nil {
			o.w.t.Fatal(err)
		}
		return b
	}
}

// A row that waits is counted as such, keeps all that it said, and has no output.
func TestRowsThatWait(t *testing.T) {
	w := newWorld(t)
	src := waitingSource(t)
	o := w.claim(w.Store, src, 0)
	at := day.Add(time.Minute)
	before := time.Now()
	o.applyWaiting(
		track(src, 0, at, 1, 1),
		track(src, 1, at, 1, 77),                    // no such object
		track(src, 2, at, 99, 1, "sessionId", 4711), // neither learner nor session
		track(src, 3, at, 1, 1, "progression", 101), // rejected
		track(src, 4, at, 99, 77, "score", "x"),     // something else is wrong with it
		track(src, 6, at, 2, 1, "sessionId", 4711),
	)
	if got, want := w.text(`SELECT accepted, rejected, waiting, skipped, next_offset FROM learnsink.position`), "(1,2,3,1,7)"; got != want {
		t.Errorf("position %s, not %s", got, want)
	}
	if got, want := w.text(`SELECT accepted, rejected, waiting, skipped FROM learnsink.ledger`), "(1,2,3,1)"; got != want {
		t.Errorf("ledger %s, not %s", got, want)
	}
	if got, want := w.text(`SELECT outcome, code, rows FROM learnsink.outcome_daily ORDER BY 1, 2`), `(accepted,,1)
(rejected,value_out_of_range,1)
(rejected,value_type,1)
(waiting,lo_not_found,1)
(waiting,registration_not_found,2)`; got != want {
		t.Errorf("outcome_daily\n%s", got)
	}
	if got, want := w.text(`SELECT source_offset, state, waits_for, codes, errors -> 0 ->> 'message', attempt FROM learnsink.rejection ORDER BY 1`), `(1,waiting,"{""learning object guid o77""}",{lo_not_found},"Learning object version with guid [o77] is not found.",1)
(2,waiting,"{""learner login l99"",""session id 4711""}",{registration_not_found},"No registration found for given parameters.",1)
(3,open,,{value_out_of_range},"Field [progression] has invalid value [101], [0] to [100] expected.",1)
(4,open,,"{value_type,lo_not_found,registration_not_found}","Field [score] has invalid value [x], number expected.",1)
(6,waiting,"{""session id 4711""}",{registration_not_found},"No registration found for given parameters.",1)`; got != want {
		t.Errorf("rejections\n%s", got)
	}
	var least, most time.Time
	if err := w.db.QueryRow(t.Context(), `SELECT min(deadline), max(deadline) FROM learnsink.rejection`).Scan(&least, &most); err != nil {
		t.Fatal(err)
	}
	if least.Before(before.Add(time.Hour-time.Minute)) || most.After(time.Now().Add(time.Hour+time.Minute)) {
		t.Errorf("deadlines from %s to %s", least, most)
	}
	pending, err := w.Pending(t.Context(), handlers.TopicPartition{Topic: src.Topic})
	if err != nil || len(pending) != 1 {
		t.Fatal(pending, err)
	}
	if got, want := string(pending[0].Payload), "learning.tracking-0-0\nlearning.tracking-0-3\nlearning.tracking-0-4\n"; got != want {
		t.Errorf("outputs of\n%s", got)
	}
	w.audit()

	t.Run("what is dropped as old are not those", func(t *testing.T) {
		if n, err := w.DropRejections(t.Context(), time.Now().Add(time.Hour)); err != nil || n != 2 {
			t.Errorf("dropped %d: %v", n, err)
		}
	})
}

// Names are what rows say: PostgreSQL gets them as they are.
func TestWhatIsWaitedForIsKeptAsItIs(t *testing.T) {
	w := newWorld(t)
	src := waitingSource(t)
	o := w.claim(w.Store, src, 0)
	b := o.applyWaiting(track(src, 0, day, 1, 1, "sessionId", nil, "sessionTitle", `{"a",\ NULL}`, "trainingPathCode", "ü🎓"))
	var got []string
	if err := w.db.QueryRow(t.Context(), `SELECT waits_for FROM learnsink.rejection`).Scan(&got); err != nil {
		t.Fatal(err)
	}
	if want := b.Decisions[0].WaitsFor; len(want) != 1 || fmt.Sprint(got) != fmt.Sprint(want) || !strings.Contains(want[0], `training path code`) {
		t.Errorf("%q, not %q", got, want)
	}
}

// A position that is set back takes the rows that wait out of the room: they
// are judged again.
func TestSetBackOverRowsThatWait(t *testing.T) {
	w := newWorld(t)
	src := waitingSource(t)
	o := w.claim(w.Store, src, 0)
	o.applyWaiting(track(src, 0, day, 1, 1), track(src, 1, day, 1, 77))
	o.applyWaiting(track(src, 2, day, 1, 78), track(src, 3, day, 1, 79))
	set, err := w.SetPosition(t.Context(), store.PositionChange{TopicPartition: handlers.TopicPartition{Topic: src.Topic}, Epoch: o.Epoch, To: 1,
		Mode: store.Silent, Action: handlers.Tracking, Operator: store.Operator{Actor: "me", Why: "test"}})
	if err == nil {
		t.Fatal("the outbox is not empty")
	}
	w.exec(`DELETE FROM learnsink.outbox`)
	if set, err = w.SetPosition(t.Context(), store.PositionChange{TopicPartition: handlers.TopicPartition{Topic: src.Topic}, Epoch: o.Epoch, To: 1,
		Mode: store.Silent, Action: handlers.Tracking, Operator: store.Operator{Actor: "me", Why: "test"}}); err != nil {
		t.Fatal(err)
	}
	if set.Dropped != 3 || set.Superseded != 1 {
		t.Errorf("%+v", set)
	}
	w.audit()
	w.exec(`INSERT INTO learnsink.learning_object (guid, guid_folded, provider) VALUES ('o77', 'o77', 'customer')`)
	w.exec(`UPDATE learnsink.catalogue_version SET version = version + 1, loaded_at = now()`)
	o = w.claim(open(t, w.url), src, 0)
	o.applyWaiting(track(src, 1, day, 1, 77), track(src, 2, day, 1, 78), track(src, 3, day, 1, 79))
	if got, want := w.text(`SELECT first_offset, accepted, rejected, waiting, next_offset FROM learnsink.position`), "(1,1,0,2,4)"; got != want {
		t.Errorf("position %s", got)
	}
	if got, want := w.text(`SELECT source_offset, state FROM learnsink.rejection ORDER BY 1`), "(2,waiting)\n(3,waiting)"; got != want {
		t.Errorf("rejections %s", got)
	}
	w.audit()

	// Where a line is there all the same, what the row is judged to be now holds.
	w.exec(`UPDATE learnsink.rejection SET state = 'open', deadline = NULL, waits_for = NULL WHERE source_offset = 3`)
	w.exec(`DELETE FROM learnsink.outbox`)
	w.exec(`UPDATE learnsink.ledger SET superseded = true WHERE round = 2`)
	w.exec(`UPDATE learnsink.position SET round = 3, first_offset = 3, next_offset = 3, accepted = 0, waiting = 0`)
	o.Round, o.NextOffset = 3, 3
	o.applyWaiting(track(src, 3, day, 1, 79))
	if got := w.text(`SELECT state, waits_for, deadline > now() FROM learnsink.rejection WHERE source_offset = 3`); got != `(waiting,"{""learning object guid o79""}",t)` {
		t.Errorf("judged again: %s", got)
	}
}

// The books know of every row in the waiting room.
func TestAuditOfRowsThatWait(t *testing.T) {
	w := newWorld(t)
	src := waitingSource(t)
	o := w.claim(w.Store, src, 1)
	o.applyWaiting(track(src, 0, day, 1, 1), track(src, 1, day, 1, 77))
	o.applyWaiting(track(src, 2, day, 1, 78), track(src, 3, day, 1, 1, "score", "x"))
	w.audit()
	w.exec(`ALTER TABLE learnsink.position DROP CONSTRAINT position_sum`)
	const row = `WHERE id = 'learning.tracking-1-2'`
	for _, c := range []struct{ fault, plant, repair, want string }{
		{"a row that waits is counted nowhere", `UPDATE learnsink.position SET waiting = waiting - 1`, `UPDATE learnsink.position SET waiting = waiting + 1`,
			"offsets 0 to 4: the position does not sum up: first 0 + accepted 1 + rejected 1 + waiting 1 + skipped 0"},
		{"it is counted for another", `UPDATE learnsink.ledger SET waiting = waiting - 1, rejected = rejected + 1 WHERE from_offset = 2`,
			`UPDATE learnsink.ledger SET waiting = waiting + 1, rejected = rejected - 1 WHERE from_offset = 2`,
			"the ledger counts accepted 1, rejected 2, waiting 1, skipped 0, the position 1, 1, 2, 0"},
		{"the ledger line miscounts", `UPDATE learnsink.ledger SET waiting = waiting + 1, skipped = skipped - 1 WHERE from_offset = 2`,
			`UPDATE learnsink.ledger SET waiting = waiting - 1, skipped = skipped + 1 WHERE from_offset = 2`, "the ledger line counts accepted 0, rejected 1, waiting 2"},
		{"it is gone", `CREATE TABLE kept AS SELECT * FROM learnsink.rejection ` + row + `; DELETE FROM learnsink.rejection ` + row,
			`INSERT INTO learnsink.rejection SELECT * FROM kept; DROP TABLE kept`, "offsets 2 to 4: 1 rows went into the waiting room, 0 are stored as such"},
		{"it is a dead letter", `UPDATE learnsink.rejection SET state = 'open', deadline = NULL ` + row,
			`UPDATE learnsink.rejection SET state = 'waiting', deadline = now() ` + row, "offsets 2 to 4: 1 rows were rejected, 2 rejections are stored"},
		{"it waits for nothing", `UPDATE learnsink.rejection SET waits_for = '{}' ` + row, `UPDATE learnsink.rejection SET waits_for = '{x}' ` + row,
			"offsets 2 to 3: a row waits for nothing"},
		{"it went away by itself", `UPDATE learnsink.rejection SET state = 'resolved' ` + row, `UPDATE learnsink.rejection SET state = 'waiting' ` + row,
			"offsets 2 to 3: a row has left the waiting room without a job"},
	} {
		t.Run(c.fault, func(t *testing.T) {
			w.exec(c.plant)
			findings, err := w.Audit(t.Context(), store.AuditOptions{})
			w.exec(c.repair)
			if err != nil {
				t.Fatal(err)
			}
			if text := fmt.Sprint(findings); !strings.Contains(text, c.want) || len(findings) > 3 {
				t.Errorf("found: %s\nwant: %s", text, c.want)
			}
			w.audit()
		})
	}
}

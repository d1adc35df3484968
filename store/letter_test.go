package store_test

import (
	"context"
	"encoding/json"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"learnsink/handlers"
	"learnsink/store"
)

// A selection comes in the order in which a job sends it, whatever it is
// selected by, and its rows are as they were sent.
func TestSelectRejections(t *testing.T) {
	w := newWorld(t)
	src := source(t, handlers.Tracking)
	var partitions []*owner
	for p := range 2 {
		partitions = append(partitions, w.claim(w.Store, src, p))
	}
	bad := track(src, 1, day, 1, 99, "score", "much")
	bad.Key, bad.Headers = nil, []handlers.Header{{Key: "ce_source", Value: []byte("lms")}, {Key: "none"}, {Key: "bytes", Value: []byte{0, 0xff}}}
	partitions[1].apply(track(src, 0, day.Add(time.Hour), 1, 98), bad)
	partitions[0].apply(track(src, 0, day, 1, 1), track(src, 1, day, 1, 99), track(src, 2, day, 1, 1, "score", "x"))

	first, second, third := "learning.tracking-0-1", "learning.tracking-0-2", "learning.tracking-1-0"
	fourth := "learning.tracking-1-1"
	zero, one := 0, int64(1)
	for name, test := range map[string]struct {
		filter store.RejectionFilter
		want   []string
	}{
		"all":                         {store.RejectionFilter{}, []string{first, second, third, fourth}},
		"by ids":                      {store.RejectionFilter{IDs: []string{fourth, first, "nothing"}}, []string{first, fourth}},
		"by a code":                   {store.RejectionFilter{Codes: []handlers.Code{handlers.ValueType}}, []string{second, fourth}},
		"by one and the same error":   {store.RejectionFilter{Codes: []handlers.Code{handlers.ValueType}, Value: "o99"}, nil},
		"by a value":                  {store.RejectionFilter{Value: "o99"}, []string{first, fourth}},
		"by code, and partition":      {store.RejectionFilter{Codes: []handlers.Code{handlers.ValueType}, Topic: src.Topic, Partition: &zero}, []string{second}},
		"by offset":                   {store.RejectionFilter{Topic: src.Topic, From: &one, To: &one}, []string{first, fourth}},
		"by state":                    {store.RejectionFilter{States: []store.RejectionState{store.RejectionArchived}}, nil},
		"by state and code":           {store.RejectionFilter{States: []store.RejectionState{store.RejectionOpen}, Codes: []handlers.Code{handlers.LONotFound}}, []string{first, third, fourth}},
		"by a code that there is not": {store.RejectionFilter{Codes: []handlers.Code{handlers.RecordEmpty}}, nil},
	} {
		got, err := w.SelectRejections(t.Context(), test.filter)
		if !slices.Equal(test.want, got) || err != nil {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	if _, err := w.SelectRejections(t.Context(), store.RejectionFilter{Groups: []string{"what"}}); err == nil {
		t.Error("a group that cannot be is selected")
	}

	letters, err := w.LettersByID(t.Context(), []string{fourth, "nothing"})
	bad.Incarnation = 1
	if diff := cmp.Diff([]store.Letter{{ID: fourth, State: "open", Record: *bad, EventAt: day, Attempt: 1}}, letters); diff != "" || err != nil {
		t.Errorf("%v\n%s", err, diff)
	}
}

// A dead letter that is put back is the line that it was; one that is there
// stays as it is.
func TestPutBack(t *testing.T) {
	w := newWorld(t)
	src := source(t, handlers.Tracking)
	o := w.claim(w.Store, src, 0)
	bad := track(src, 0, day, 1, 99, "score", "much")
	bad.Headers = []handlers.Header{{Key: "ce_source", Value: []byte("lms")}}
	o.apply(bad, track(src, 1, day, 1, 98), track(src, 2, day, 1, 97))
	lines := func() string {
		return w.text(`SELECT to_jsonb(r) - '{seq,rejected_at}'::text[], (SELECT jsonb_agg(to_jsonb(f) - '{seq,rejected_at}'::text[] ORDER BY f.fault) FROM learnsink.rejection_fault f WHERE f.seq = r.seq)
			FROM learnsink.rejection r ORDER BY id`)
	}
	w.exec(`UPDATE learnsink.rejection SET attempt = 4, rules = 'older' WHERE source_offset = 1`)
	was := lines()
	ids := []string{"learning.tracking-0-0", "learning.tracking-0-1", "learning.tracking-0-2"}
	letters, err := w.LettersByID(t.Context(), ids)
	if err != nil {
		t.Fatal(err)
	}
	var lost []store.LostLetter
	for _, l := range letters {
		var text []byte
		var rules string
		if err := w.db.QueryRow(context.Background(), `SELECT errors, rules FROM learnsink.rejection WHERE id = $1`, l.ID).Scan(&text, &rules); err != nil {
			t.Fatal(err)
		}
		var errs []handlers.Error
		if err := json.Unmarshal(text, &errs); err != nil {
			t.Fatal(err)
		}
		lost = append(lost, store.LostLetter{Letter: l, Source: src, Errors: errs, Rules: rules})
	}
	w.exec(`DELETE FROM learnsink.rejection WHERE source_offset < 2`)
	w.exec(`UPDATE learnsink.rejection SET state = 'archived'`)
	for _, want := range []int64{2, 0} {
		if n, err := w.PutBack(t.Context(), lost); err != nil || n != want {
			t.Errorf("%d put back, %v", n, err)
		}
		held, err := w.LettersByID(t.Context(), ids[2:])
		if err != nil || len(held) != 1 || held[0].State != "archived" {
			t.Errorf("one that was there: %+v, %v", held, err)
		}
	}
	w.exec(`UPDATE learnsink.rejection SET state = 'open'`)
	if diff := cmp.Diff(was, lines()); diff != "" {
		t.Errorf("-was +put back\n%s", diff)
	}
	w.audit()
}

// An attempt stands for its original, where that is gone.
func TestLettersHeld(t *testing.T) {
	w := newWorld(t)
	src := source(t, handlers.Tracking)
	w.claim(w.Store, src, 0).apply(track(src, 0, day, 1, 99), track(src, 1, day, 1, 98))
	copied := `INSERT INTO learnsink.rejection (id, action, codes, errors, value, headers, source_topic, source_partition, source_offset, event_at, attempt, state, rules, replay_of)
		SELECT $1, action, codes, errors, value, headers, 'learning.replay', 0, $2, event_at, $3, $4, rules, id FROM learnsink.rejection WHERE id = $5`
	w.exec(copied, "learning.replay-0-0", 0, 2, "archived", "learning.tracking-0-0")
	w.exec(copied, "learning.replay-0-1", 1, 2, "open", "learning.tracking-0-1")
	w.exec(copied, "learning.replay-0-2", 2, 3, "open", "learning.tracking-0-1")
	w.exec(`DELETE FROM learnsink.rejection WHERE id = 'learning.tracking-0-1'`)
	held, err := w.LettersHeld(t.Context(), []string{"learning.tracking-0-0", "learning.tracking-0-1", "learning.tracking-0-2"})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, h := range held {
		got[h.Of] = h.ID + " " + h.State
	}
	want := map[string]string{"learning.tracking-0-0": "learning.tracking-0-0 open", "learning.tracking-0-1": "learning.replay-0-2 open"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

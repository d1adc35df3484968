package store_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"learnsink/handlers"
	"learnsink/store"
)

func brieflyCounted(counts []store.StateCount) string {
	var all []string
	for _, c := range counts {
		all = append(all, fmt.Sprintf("%s %s %d", c.State, c.Action, c.Rows))
	}
	return strings.Join(all, ", ")
}

func TestArchiveAndRestore(t *testing.T) {
	w := newWorld(t)
	ids := w.plantRejections("a", 0, 10)
	for i, state := range []string{"open", "quarantined", "superseded", "replaying", "waiting", "resolved", "erased", "archived"} {
		w.exec(`UPDATE learnsink.rejection SET state = $2, settled_at = now(), settled_by = 'x' WHERE id = $1`, ids[i], state)
	}
	w.exec(`UPDATE learnsink.rejection SET state = 'archived', replay_of = $2 WHERE id = $1`, ids[8], ids[0])
	by := store.Operator{Actor: "ann", Why: "nobody will mend these"}
	states := func() string {
		return w.text(`SELECT state FROM learnsink.rejection ORDER BY source_offset`)
	}
	before := states()

	archive := func(f store.RejectionFilter, execute bool) string {
		t.Helper()
		counts, err := w.ArchiveRejections(t.Context(), f, by, execute)
		if err != nil {
			t.Fatal(err)
		}
		return brieflyCounted(counts)
	}
	const three = "open tracking 2, quarantined tracking 1, superseded tracking 1"
	if got := archive(store.RejectionFilter{}, false); got != three {
		t.Errorf("would be archived: %s", got)
	}
	if got := states(); got != before || w.operations() != "" {
		t.Errorf("a preview has done something: %s", got)
	}
	if got := archive(store.RejectionFilter{IDs: ids[1:9], Learner: "nobody"}, true); got != "" || w.operations() != "" {
		t.Errorf("none is archived: %s, %s", got, w.operations())
	}
	if got := archive(store.RejectionFilter{Topic: "a", Codes: []handlers.Code{handlers.NoRegistration}}, true); got != three {
		t.Errorf("archived: %s", got)
	}
	if got, want := states(), "(archived)\n(archived)\n(archived)\n(replaying)\n(waiting)\n(resolved)\n(erased)\n(archived)\n(archived)\n(archived)"; got != want {
		t.Errorf("states: %s", got)
	}
	if got := w.operations(); !strings.Contains(got, `"dlq archive",ann,"nobody will mend these"`) || !strings.Contains(got, `""selection"": {""codes"": [""registration_not_found""]`) || !strings.Contains(got, `{""rows"": 2, ""state"": ""open"", ""action"": ""tracking""}`) {
		t.Errorf("noted: %s", got)
	}
	if got := archive(store.RejectionFilter{}, true); got != "" {
		t.Errorf("again: %s", got)
	}
	for _, f := range []store.RejectionFilter{{States: []store.RejectionState{store.RejectionReplaying}}, {States: []store.RejectionState{"what"}}} {
		if _, err := w.ArchiveRejections(t.Context(), f, by, true); err == nil {
			t.Errorf("%v is archived", f.States)
		}
	}

	counts, err := w.RestoreRejections(t.Context(), store.RejectionFilter{}, by, true)
	if got := brieflyCounted(counts); err != nil || got != "archived tracking 5" {
		t.Errorf("restored: %s, %v", got, err)
	}
	if got, want := states(), "(open)\n(open)\n(open)\n(replaying)\n(waiting)\n(resolved)\n(erased)\n(open)\n(archived)\n(open)"; got != want {
		t.Errorf("states: %s", got)
	}
	if got := w.text(`SELECT count(*) FROM learnsink.rejection WHERE state = 'open' AND settled_at IS NOT NULL`); got != "(0)" {
		t.Errorf("open, and settled: %s", got)
	}
}

func TestPurge(t *testing.T) {
	w := newWorld(t)
	ids := w.plantRejections("a", 0, 6)
	old, done := ids[:4], ids[:2]
	w.exec(`UPDATE learnsink.rejection SET rejected_at = now() - interval '100 days' WHERE id = ANY ($1)`, old)
	w.exec(`UPDATE learnsink.rejection SET state = 'resolved' WHERE id = ANY ($1)`, done)
	job := func(ids []string, item, state string, days int) {
		id, _ := w.createJob(store.JobReplay, items(ids...))
		w.exec(`UPDATE learnsink.job_item SET state = $2 WHERE job = $1`, id, item)
		w.exec(`UPDATE learnsink.job SET state = $2, ended_at = now() - make_interval(days => $3) WHERE id = $1`, id, state, days)
	}
	job(ids[2:3], "accepted", "done", 100)
	job(ids[3:4], "sent", "done", 100)
	job(ids[4:5], "accepted", "done", 10)
	w.exec(`DELETE FROM learnsink.operation`)

	before := time.Now().AddDate(0, 0, -90)
	past, err := w.Past(t.Context(), before)
	if got := brieflyCounted(past.Rejections); err != nil || got != "resolved tracking 2" || past.Jobs != 1 {
		t.Errorf("past: %s, %d jobs, %v", got, past.Jobs, err)
	}
	rejections, jobs, err := w.Purge(t.Context(), before, store.Operator{Actor: "ann", Why: "space"})
	if err != nil || rejections != 2 || jobs != 1 {
		t.Errorf("purged %d and %d, %v", rejections, jobs, err)
	}
	if got := w.text(`SELECT id FROM learnsink.rejection ORDER BY id`); got != "(a-0-2)\n(a-0-3)\n(a-0-4)\n(a-0-5)" {
		t.Errorf("left: %s", got)
	}
	if got := w.text(`SELECT job, count(*) FROM learnsink.job_item GROUP BY 1 ORDER BY 1`); got != "(2,1)\n(3,1)" {
		t.Errorf("left of jobs: %s", got)
	}
	if got := w.operations(); !strings.Contains(got, `"dlq purge",ann,space`) || !strings.Contains(got, `""rejections"": 2`) {
		t.Errorf("noted: %s", got)
	}
	w.exec(`DELETE FROM learnsink.operation`)
	if rejections, jobs, err = w.Purge(t.Context(), before, store.Operator{}); rejections+jobs != 0 || err != nil || w.operations() != "" {
		t.Errorf("again: %d, %d, %v, %s", rejections, jobs, err, w.operations())
	}
}

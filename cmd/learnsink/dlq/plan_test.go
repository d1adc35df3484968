package dlq_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"learnsink/cmd/learnsink/dlq"
	"learnsink/handlers"
	"learnsink/store"
)

// desk is the dead letters of a test, by id.
type desk map[string]store.Letter

func (d desk) LettersByID(_ context.Context, ids []string) (letters []store.Letter, err error) {
	for _, id := range ids {
		if l, ok := d[id]; ok {
			letters = append(letters, l)
		}
	}
	return letters, nil
}

// file makes dead letters of tracking rows, in the order of their offsets.
func file(at time.Time, values ...string) (d desk, ids []string) {
	d = desk{}
	for i, value := range values {
		l := store.Letter{State: "open", EventAt: at, Attempt: 1, ID: fmt.Sprint("learning.tracking-0-", i),
			Record: handlers.Record{Topic: "learning.tracking", Offset: int64(i), Incarnation: 1, Timestamp: at, Key: []byte("k"), Value: []byte(value)}}
		if value == "" {
			l.Record.Value = nil
		}
		d[l.ID], ids = l, append(ids, l.ID)
	}
	return d, ids
}

func tracked(login, object string, more string) string {
	return fmt.Sprintf(`{"candidateLogin":%q,"lovGuid":%q,"sessionId":100%s}`, login, object, more)
}

// plan makes a plan of letters, and returns what was shown of it.
func (w *world) plan(d desk, ids []string, sending dlq.Sending) (p *dlq.Plan, shown []string) {
	w.t.Helper()
	judge := func() *dlq.Judge { return dlq.NewJudge(w.sources, replayTopic, w, w, "open", "superseded") }
	p, err := dlq.NewPlan(w.t.Context(), judge(), judge(), dlq.PagesOf(w.t.Context(), d, ids), sending, func(v *dlq.Verdict, was []byte) error {
		shown = append(shown, fmt.Sprintf("%s %s", v.Letter.ID, v.Outcome))
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return p, shown
}

func items(t testing.TB, p *dlq.Plan, d desk) (all []store.JobItem) {
	t.Helper()
	for item, err := range p.Items(t.Context(), d) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, item)
	}
	return all
}

func sent(all []store.JobItem) (text []string) {
	for _, i := range all {
		text = append(text, strings.TrimSpace(fmt.Sprintf("%s %s %s", strings.TrimPrefix(i.Rejection, "learning.tracking-0-"), i.Overwrite, i.Value)))
	}
	return text
}

// What is sent is what was judged: by default what would be accepted.
func TestPlan(t *testing.T) {
	w := newWorld(t)
	stored := handlers.Record{Topic: "learning.tracking", Offset: 100, Timestamp: day.Add(time.Hour), Key: []byte("k"), Value: []byte(tracked("l1", "o0", ""))}
	w.apply(w.sources[0], &stored)
	seen := "2026-03-01T13:00:00Z|learning.tracking|0|100"
	d, ids := file(day, tracked("l0", "o0", ""), tracked("nobody", "o0", ""), tracked("l1", "o0", `,"score":1`), "", tracked("l0", "o0", ""))
	for _, test := range []struct {
		name    string
		sending dlq.Sending
		want    []string
		over    int64
	}{
		{"what passes", dlq.Sending{}, []string{"0", "4"}, 0},
		{"all", dlq.Sending{All: true}, []string{"0", "1", "2", "3", "4"}, 0},
		{"over newer ones", dlq.Sending{Overwrite: true}, []string{"0", "2 " + seen, "4"}, 1},
		{"all, and over newer ones", dlq.Sending{All: true, Overwrite: true}, []string{"0", "1", "2 " + seen, "3", "4"}, 1},
	} {
		p, shown := w.plan(d, ids, test.sending)
		if diff := cmp.Diff(test.want, sent(items(t, p, d))); diff != "" {
			t.Errorf("%s: -want +sent\n%s", test.name, diff)
		}
		if len(shown) != 5 || p.Overwrites() != test.over || p.Send() != int64(len(test.want)) || len(p.IDs()) != len(test.want) {
			t.Errorf("%s: %v, %d over newer ones of %d", test.name, shown, p.Overwrites(), p.Send())
		}
		if again, _ := w.plan(d, ids, test.sending); again.Seen() != p.Seen() || (p.Seen() == "") != (test.over == 0) {
			t.Errorf("%s: seen are %q and %q", test.name, p.Seen(), again.Seen())
		}
		want := map[dlq.Outcome]int64{dlq.Accepted: 2, dlq.Rejected: 2, dlq.Superseded: 1}
		if diff := cmp.Diff(want, p.Outcomes); diff != "" || p.Rows != 5 || p.Effects[dlq.Inserts] != 1 || p.Effects[dlq.Nothing] != 1 {
			t.Errorf("%s: %s %v", test.name, diff, p.Effects)
		}
	}
}

// What was seen is another thing once something else is stored.
func TestPlanSeen(t *testing.T) {
	w := newWorld(t)
	d, ids := file(day, tracked("l1", "o0", ""))
	seen := map[string]bool{}
	for i := range int64(3) {
		stored := handlers.Record{Topic: "learning.tracking", Offset: 100 + i, Timestamp: day.Add(time.Hour), Key: []byte("k"), Value: []byte(tracked("l1", "o0", ""))}
		w.apply(w.sources[0], &stored)
		p, _ := w.plan(d, ids, dlq.Sending{Overwrite: true})
		seen[p.Seen()] = true
	}
	if len(seen) != 3 || seen[""] {
		t.Errorf("%v", seen)
	}
}

// An edit is judged as it is sent; what it does not change is not sent.
func TestPlanEdits(t *testing.T) {
	w := newWorld(t)
	d, ids := file(day, tracked("nobody", "o0", ""), tracked("l0", "o0", ""), "not json", tracked("nobody", "nothing", ""), "")
	edit := &dlq.Edit{Patch: patch(t, "replace candidateLogin:nobody=l1")}
	p, shown := w.plan(d, ids, dlq.Sending{Edit: edit})
	if diff := cmp.Diff([]string{"learning.tracking-0-0 accepted", "learning.tracking-0-3 rejected"}, shown); diff != "" {
		t.Error(diff)
	}
	all := items(t, p, d)
	if diff := cmp.Diff([]string{"0  " + tracked("l1", "o0", "")}, sent(all)); diff != "" {
		t.Error(diff)
	}
	if got, want := string(all[0].Edit), `[{"op":"replace","column":"candidateLogin","old":"nobody","value":"l1"}]`; got != want {
		t.Errorf("%s is kept of the edit, not %s", got, want)
	}
	if p.Unpatchable != 2 || p.Unchanged != 1 || p.Rows != 2 || p.Before.Outcomes[dlq.Rejected] != 2 || p.Outcomes[dlq.Accepted] != 1 {
		t.Errorf("%d unpatchable, %d unchanged, %d rows, before %v, after %v", p.Unpatchable, p.Unchanged, p.Rows, p.Before.Outcomes, p.Outcomes)
	}
	if string(d["learning.tracking-0-0"].Record.Value) != tracked("nobody", "o0", "") {
		t.Error("the original has changed")
	}

	whole := &dlq.Edit{Value: []byte(tracked("l2", "o0", ""))}
	p, _ = w.plan(d, ids[2:3], dlq.Sending{Edit: whole})
	if diff := cmp.Diff([]string{"2  " + tracked("l2", "o0", "")}, sent(items(t, p, d))); diff != "" {
		t.Error(diff)
	}

	delete(d, "learning.tracking-0-2")
	for _, err := range p.Items(t.Context(), d) {
		if err == nil || !strings.Contains(err.Error(), "gone meanwhile") {
			t.Errorf("a row that is gone: %v", err)
		}
	}
}

// What changed settings would make of rows, beside what those of today do.
func TestWhatIf(t *testing.T) {
	w := newWorld(t)
	d, ids := file(day, tracked("l0", "o0", `,"score":"1"`), tracked("l0", "o0", `,"extra":"1","score":"1"`), tracked("nobody", "o0", `,"score":"1"`),
		tracked("l0", "o0", ""), tracked("nobody", "o0", `,"extra":"1"`))
	elsewhere := d[ids[0]]
	elsewhere.ID, elsewhere.Record.Topic = "learning.intervention-0-0", "learning.intervention"
	d[elsewhere.ID] = elsewhere
	ids = append(ids, elsewhere.ID)
	rules := source(t, handlers.Tracking, handlers.Setting{Name: "unknownColumns", Text: "ignore"},
		handlers.Setting{Name: "mandatory", Words: []handlers.Setting{{Text: "score"}}}).Rules
	judge := func(sources []*handlers.Source) *dlq.Judge { return dlq.NewJudge(sources, replayTopic, w, w, "open") }
	got, err := dlq.NewWhatIf(t.Context(), judge(w.sources), judge(dlq.With(w.sources, map[handlers.Action]*handlers.Rules{handlers.Tracking: rules})),
		dlq.PagesOf(t.Context(), d, slices.Clone(ids)))
	if err != nil {
		t.Fatal(err)
	}
	if got.Rows != 6 || got.Passes != 1 || got.StillFails != 2 || got.PassesToday != 1 || got.NewlyFails != 1 || got.NotJudged != 1 {
		t.Errorf("%+v", got)
	}
	group := func(code handlers.Code, field, message string) store.Fault {
		return store.Fault{Action: handlers.Tracking, Code: code, Field: field, Message: message}
	}
	unregistered := group(handlers.NoRegistration, "", "No registration found for given parameters.")
	empty := group(handlers.FieldEmpty, "score", "Field [score] is empty.")
	if diff := cmp.Diff([]dlq.GroupCount{{Group: unregistered, Rows: 2}, {Group: empty, Rows: 1}}, got.Still()); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]dlq.GroupCount{{Group: empty, Rows: 1}}, got.Newly()); diff != "" {
		t.Error(diff)
	}
	if got.IsNew(unregistered) || !got.IsNew(empty) {
		t.Error("which messages are new")
	}
	if w.sources[0].Rules == rules {
		t.Error("the sources themselves have changed")
	}
}

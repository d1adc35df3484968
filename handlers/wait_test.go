package handlers_test

import (
	"strings"
	"testing"
	"time"

	"learnsink/handlers"
)

// judgeWaiting judges a record of a source whose rows wait.
func judgeWaiting(t testing.TB, r *handlers.Rules, c *handlers.Catalogue, rec *handlers.Record) handlers.Decision {
	t.Helper()
	rows := []handlers.Row{r.Decode(rec, handlers.EventTime(rec, false, time.Time{}))}
	refs := handlers.NewReferences()
	rows[0].Refer(refs)
	facts := c.Facts(refs)
	decisions := r.DecideAll(rows, facts)
	asked, any := handlers.Lacking(rows, decisions)
	if !any && len(asked.Contexts) > 0 {
		t.Error("something is asked for nobody")
	}
	facts.Contexts = c.Facts(asked).Contexts
	handlers.Wait(rows, decisions, facts)
	return decisions[0]
}

// A name is what an index holds: a long one is cut, and stays one of its own.
func TestNamesOfWhatIsMissing(t *testing.T) {
	rules, c := compile(t, handlers.Tracking), loadCatalogue(t, "testdata/catalog")
	name := func(title string) string {
		d := judgeWaiting(t, rules, c, record(`{"candidateLogin":"ines.lopez","lovCode":"FIRE-1","trainingPathCode":"SAFE","sessionTitle":"`+title+`"}`))
		if d.Verdict != handlers.Waits || len(d.WaitsFor) != 1 {
			t.Fatalf("%v %q", d.Verdict, d.WaitsFor)
		}
		return d.WaitsFor[0]
	}
	long := strings.Repeat("ß", 200)
	a, b := name(long+"a"), name(long+"b")
	if a == b || a != name(long+"a") {
		t.Errorf("long names are not told apart: %q %q", a, b)
	}
	if len(a) > 240 || !strings.HasPrefix(a, "session title ßß") {
		t.Errorf("%d bytes: %q", len(a), a)
	}
	if d := judgeWaiting(t, rules, c, record(`{"candidateLogin":"who","lovCode":"FIRE-1","sessionGuid":"x"}`)); len(d.Errors) != 1 || d.Errors[0].Message != "No registration found for given parameters." {
		t.Errorf("the message of the deadline is %v", d.Errors)
	}
}

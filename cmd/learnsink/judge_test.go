package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"learnsink/cmd/learnsink/rows"
	"learnsink/handlers"
)

// inMemory is a small world: learner-0 to learner-99, registered in session 1.
func inMemory() factsFunc {
	c := handlers.NewCatalogue()
	c.AddTraining(1, "tr-1", "SAFE")
	c.AddSession(1, 1, "se-1", "June")
	c.AddLearningObject("lo-1", "FIRE-1", handlers.Customer)
	for i := range 100 {
		login := fmt.Sprintf("learner-%d", i)
		c.AddLearner(login, "", "", handlers.Opt[time.Time]{})
		c.Register(handlers.LearnerRef{Login: login}, 1)
	}
	c.Prepare()
	return func(_ context.Context, refs *handlers.References) (*handlers.Facts, error) { return c.Facts(refs), nil }
}

func newChecker(t testing.TB, in io.Reader, f rows.Format) *checker {
	rules, err := handlers.Compile(handlers.Tracking, nil)
	if err != nil {
		t.Fatal(err)
	}
	return &checker{rules: rules, facts: inMemory(), now: time.Unix(1717588800, 0).UTC(), rows: rows.NewReader(in, f)}
}

// Many chunks, judged side by side, come out in the order of the rows.
func TestVerdictsKeepTheRowsOrder(t *testing.T) {
	var in strings.Builder
	const n = 25_000
	for i := range n {
		fmt.Fprintf(&in, `{"candidateLogin":"learner-%d","lovCode":"FIRE-1","sessionGuid":"se-1"}`+"\n", i%150)
	}
	var out bytes.Buffer
	sum, err := newChecker(t, strings.NewReader(in.String()), rows.Format{}).run(t.Context(), &out)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	if len(lines) != n {
		t.Fatalf("%d verdicts for %d rows", len(lines), n)
	}
	bad := 0
	for i, line := range lines {
		verdict := "accepted"
		if i%150 >= 100 {
			verdict = "rejected"
			bad++
		}
		if !strings.HasPrefix(line, fmt.Sprintf(`{"line":%d,"verdict":"%s",`, i+1, verdict)) {
			t.Fatalf("line %d: %s", i+1, line)
		}
	}
	if sum.rejected != int64(bad) {
		t.Errorf("%d rejected, want %d", sum.rejected, bad)
	}
}

// broken is a writer that takes no more.
type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

func TestCheckEndsWhereItsOutputDoes(t *testing.T) {
	in := strings.Repeat(`{"candidateLogin":"learner-1"}`+"\n", 50_000)
	if _, err := newChecker(t, strings.NewReader(in), rows.Format{}).run(t.Context(), broken{}); err != io.ErrClosedPipe {
		t.Errorf("%v", err)
	}
}

func TestCheckEndsWhereFactsFail(t *testing.T) {
	c := newChecker(t, strings.NewReader("{}\n{}\n"), rows.Format{})
	c.facts = func(context.Context, *handlers.References) (*handlers.Facts, error) {
		return nil, handlers.ErrNoCatalogue
	}
	if _, err := c.run(t.Context(), io.Discard); err != handlers.ErrNoCatalogue {
		t.Errorf("%v", err)
	}
}

func BenchmarkCheck(b *testing.B) {
	var jsonl, csv strings.Builder
	csv.WriteString("candidateLogin,lovCode,sessionGuid,trackingStatus,progression,score,scoreMax,timeSpent,firstAccessDate,lastAccessDate\n")
	const n = 20_000
	for i := range n {
		fmt.Fprintf(&jsonl, `{"candidateLogin":"learner-%d","lovCode":"FIRE-1","sessionGuid":"se-1","trackingStatus":"completed","progression":"100","score":17.5,"scoreMax":20,"timeSpent":%d,"firstAccessDate":"2024-06-03","lastAccessDate":"2024-06-04 10:00:00"}`+"\n", i%100, i)
		fmt.Fprintf(&csv, "learner-%d,FIRE-1,se-1,completed,100,17.5,20,%d,2024-06-03,2024-06-04 10:00:00\n", i%100, i)
	}
	for _, form := range []struct {
		name, text string
		format     rows.Format
	}{{"jsonl", jsonl.String(), rows.Format{}}, {"csv", csv.String(), rows.Format{CSV: true, Delimiter: ','}}} {
		b.Run(form.name, func(b *testing.B) {
			for b.Loop() {
				if _, err := newChecker(b, strings.NewReader(form.text), form.format).run(b.Context(), io.Discard); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(n*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
		})
	}
}

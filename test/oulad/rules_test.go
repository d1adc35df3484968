package oulad_test

import (
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"

	"learnsink/handlers"
	"learnsink/store/catalogue"
	"learnsink/test/oulad"
)

// The model and the rules, written apart, say the same of every row of the
// dataset, or of the sample where it is not at hand.
func TestTheRulesSayTheSame(t *testing.T) {
	dir, out := os.Getenv(oulad.Env), t.TempDir()
	if dir == "" {
		dir = t.TempDir()
		if err := oulad.WriteSample(dir, 2, 2000); err != nil {
			t.Fatal(err)
		}
	}
	d := open(t, dir)
	if err := d.WriteCatalog(out); err != nil {
		t.Fatal(err)
	}
	m, err := oulad.LoadModel(out)
	if err != nil {
		t.Fatal(err)
	}
	folder, err := catalogue.Open(out)
	if err != nil {
		t.Fatal(err)
	}
	facts, bad, err := catalogue.LoadMemory(folder)
	if err != nil || bad != nil {
		t.Fatal(err, bad)
	}
	rules, err := handlers.Compile(handlers.Tracking, nil)
	if err != nil {
		t.Fatal(err)
	}
	stored := map[handlers.TrackingKey]handlers.Stored{}
	var offset int64
	for row, err := range d.Rows() {
		if err != nil {
			t.Fatal(err)
		}
		want, err := m.Apply(0, offset, row.EventTime, row.Value)
		if err != nil {
			t.Fatal(err)
		}
		record, refs := &handlers.Record{Offset: offset, Timestamp: row.EventTime, Value: row.Value}, handlers.NewReferences()
		read := rules.Decode(record, row.EventTime)
		read.Refer(refs)
		decision := rules.Decide(&read, facts.Facts(refs))
		var messages []string
		for _, e := range decision.Errors {
			messages = append(messages, e.Message)
		}
		if diff := cmp.Diff(want.Messages, messages); diff != "" {
			t.Fatalf("%s\n%s", row.Value, diff)
		}
		if got := decision.Tracking; got != nil {
			stored[got.TrackingKey] = decision.Settle(false, stored[got.TrackingKey])
			got = decision.Tracking
			is := oulad.Tracked{Status: got.Status.String(), ScoreMax: int(got.ScoreMax), First: got.FirstAccess.V, Last: got.LastAccess.V,
				Completion: got.FirstCompletion.V, FilledIn: got.FilledIn, EventAt: decision.EventTime, SourceOffset: offset}
			if got.Score.OK {
				is.Score = &got.Score.V
			}
			if diff := cmp.Diff(want.Row, is); diff != "" {
				t.Fatalf("%s\n%s", row.Value, diff)
			}
		}
		offset++
	}
	if len(stored) != len(m.Tracking) {
		t.Errorf("%d keys, the model %d", len(stored), len(m.Tracking))
	}
	t.Logf("%d rows under %d keys", offset, len(stored))
}

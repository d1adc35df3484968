package main

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"

	"learnsink/cmd/learnsink/dlq"
	"learnsink/handlers"
	"learnsink/store"
)

// What an operator sees, to the character. go test -run TestPrinted -update
// writes it anew; the difference is for a person to look at.
func TestPrinted(t *testing.T) {
	for _, form := range []string{"table", "json", "csv"} {
		golden(t, "groups."+form, func(out *bytes.Buffer) error {
			p, err := newPrinter(out, form, groupColumns())
			if err != nil {
				return err
			}
			p.notes = groupNotes
			var shown []groupShown
			for _, g := range someGroups() {
				shown = append(shown, showGroup(&g))
			}
			return p.printAll(shown)
		})
		golden(t, "list."+form, func(out *bytes.Buffer) error {
			p, err := newPrinter(out, form, listColumns())
			if err != nil {
				return err
			}
			var shown []listShown
			for _, d := range someDossiers() {
				shown = append(shown, showListed(&d.Rejection))
			}
			return p.printAll(shown)
		})
		golden(t, "show."+form, func(out *bytes.Buffer) error {
			for _, d := range someDossiers() {
				if err := printDossier(out, form, &d); err != nil {
					return err
				}
			}
			return nil
		})
	}
}

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares what is printed with testdata/golden.
func golden(t *testing.T, name string, print func(*bytes.Buffer) error) {
	t.Helper()
	var out bytes.Buffer
	if err := print(&out); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	file := filepath.Join("testdata", "golden", "dlq_"+name)
	if *update {
		if err := os.WriteFile(file, out.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), out.String()); diff != "" {
		t.Errorf("%s: -golden +printed\n%s", file, diff)
	}
}

var someTime = time.Date(2026, 3, 1, 4, 30, 0, 0, time.UTC)

func someGroups() []store.RejectionGroup {
	return []store.RejectionGroup{
		{Fault: store.Fault{Action: handlers.Tracking, Code: handlers.NoRegistration, Message: "No registration found for given parameters."}, Rows: 410, Subjects: 1,
			First: someTime, Last: someTime.Add(time.Hour), Senders: []store.Share{{Text: "lms/berlin", Rows: 400}, {Rows: 10}},
			Values: []store.Share{{Text: "candidateLogin ines, sessionGuid se-11", Rows: 410}}, Distinct: 1, Latest: "learning.tracking-0-900"},
		{Fault: store.Fault{Action: handlers.Tracking, Code: handlers.ValueOutOfRange, Field: "progression", Message: "Field [progression] has invalid value [ ], [0] to [100] expected."},
			Rows: 9, Subjects: 3, First: someTime, Last: someTime, Senders: []store.Share{{Text: "=cmd|' /C calc'!A0", Rows: 9}},
			Values: []store.Share{{Text: "101", Rows: 7}, {Text: "\x1b[31mred\n", Rows: 1}}, Distinct: 3, Latest: "learning.tracking-0-17"},
		{Fault: store.Fault{Action: handlers.Intervention, Code: handlers.RecordNotJSON, Message: "Record is not a JSON object."}, Rows: 1, First: someTime, Last: someTime,
			Senders: []store.Share{{Rows: 1}}, Latest: "learning.intervention-0-1"},
	}
}

// someDossiers are an ordinary dead letter, one with a past, and a record of bytes.
func someDossiers() []dlq.Dossier {
	text := func(s string) *string { return &s }
	row := `{"candidateLogin":"ines","lovCode":"=1+1","sessionGuid":"se-11","firstAccessDate":"2026-02-30","n":1.50}`
	mismatch := handlers.Error{Code: handlers.DateTimeMismatch, Field: "firstAccessDate", Value: "2026-02-30", Message: "Your dateTime information mismatches preset dateTimeFormat"}
	missing := handlers.Error{Code: handlers.LONotFound, Field: "lovCode", Value: "=1+1", Message: "Learning object version with code [=1+1] is not found."}
	unregistered := handlers.Error{Code: handlers.NoRegistration, Message: "No registration found for given parameters."}
	first := store.Rejection{ID: "learning.tracking-0-17", Action: handlers.Tracking, State: store.RejectionOpen, Attempt: 1, Errors: []handlers.Error{mismatch, missing, unregistered},
		Key: []byte("ines"), Value: []byte(row), Headers: []handlers.Header{{Key: "ce_source", Value: []byte("lms/berlin")}, {Key: "raw", Value: []byte{0xff, 0}}, {Key: "none"}},
		SourceTopic: "learning.tracking", Offset: 17, Incarnation: 1, EventAt: someTime, RejectedAt: someTime.Add(time.Second), Rules: "0123abcd", Sender: "lms/berlin"}
	second := first
	second.ID, second.State, second.Attempt, second.Job, second.Errors = "learning.tracking~2-0-18", store.RejectionResolved, 2, 7, []handlers.Error{missing}
	second.Incarnation, second.Offset, second.SettledAt, second.SettledBy = 2, 18, someTime.Add(2*time.Hour), "learning.replay-0-3"
	second.History = []store.Attempt{{Attempt: 1, At: someTime, ID: "learning.tracking~2-0-18", Codes: []handlers.Code{handlers.DateTimeMismatch}, Errors: []handlers.Error{mismatch}}}
	third := store.Rejection{ID: "learning.intervention-0-1", Action: handlers.Intervention, State: store.RejectionQuarantined, Attempt: 5,
		Errors: []handlers.Error{{Code: handlers.RecordNotJSON, Message: "Record is not a JSON object."}}, Key: []byte{0xfe}, Value: []byte{0xff, 'x'},
		SourceTopic: "learning.intervention", Offset: 1, Incarnation: 1, EventAt: someTime, RejectedAt: someTime, Rules: "ab"}
	kept := handlers.Stored{Known: true, EventTime: someTime.Add(time.Hour), SourceTopic: "learning.tracking", SourceOffset: 20}
	return []dlq.Dossier{
		{Rejection: first, Now: dlq.Now{Found: dlq.KeptNoKey}, Verdict: &dlq.Verdict{Outcome: dlq.Rejected, Errors: []handlers.Error{missing}}},
		{Rejection: second, Jobs: []store.Sending{{Job: 7, Item: 1, Kind: store.JobEdit, Operator: store.Operator{Actor: "me", Why: "a\ntypo"}, At: someTime.Add(time.Hour), State: "accepted",
			Outcome: "learning.replay-0-3", Edit: json.RawMessage(`[{"op":"set","column":"lovCode"}]`)}},
			Now:     dlq.Now{Found: dlq.KeptRow, Stored: kept, Columns: []dlq.Column{{Name: "trackingStatus", Value: text("completed")}, {Name: "score"}}},
			Verdict: &dlq.Verdict{Outcome: dlq.Superseded, Effect: dlq.Changes, Diff: []dlq.Difference{{Column: "trackingStatus", Stored: text("completed"), Row: text("incomplete")}}}},
		{Rejection: third, Now: dlq.Now{Found: dlq.KeptMemory, Stored: kept}, Unjudged: "no catalogue has been loaded yet"},
	}
}

// Whatever stands in a cell: a spreadsheet takes it for text, and a csv reader
// reads it back.
func TestSpreadsheetSafe(t *testing.T) {
	for _, cell := range []string{"=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "'=1", "", "a,b", `"`, "a\nb", "1=1", "é"} {
		var out bytes.Buffer
		p, err := newPrinter(&out, "csv", []printColumn[string]{{name: "cell", text: func(s *string) string { return *s }}, {name: "b", text: func(*string) string { return "b" }}})
		if err != nil {
			t.Fatal(err)
		}
		if err := p.printAll([]string{cell}); err != nil {
			t.Fatal(err)
		}
		records, err := csv.NewReader(&out).ReadAll()
		if err != nil || len(records) != 2 {
			t.Fatalf("%q: %q, %v", cell, records, err)
		}
		got := records[1][0]
		if got != "" && strings.ContainsAny(got[:1], "=+-@\t\r\n") || strings.TrimPrefix(got, "'") != strings.TrimPrefix(cell, "'") {
			t.Errorf("%q is printed as %q", cell, got)
		}
	}
}

// The flags say what the filter is, or the call is wrong.
func TestSelection(t *testing.T) {
	parse := func(args ...string) (store.RejectionFilter, error) {
		var s dlqSelection
		cmd := &cobra.Command{}
		s.add(cmd, store.RejectionOpen, store.RejectionQuarantined)
		if err := cmd.ParseFlags(args); err != nil {
			t.Fatal(err)
		}
		return s.filter(cmd.Flags().Args()...)
	}
	none, zero, from, to := "", 0, int64(5), int64(9)
	open := []store.RejectionState{store.RejectionOpen, store.RejectionQuarantined}
	for _, c := range []struct {
		args []string
		want store.RejectionFilter
	}{
		{nil, store.RejectionFilter{States: open}},
		{[]string{"a-0-1", "--id", "b-0-2"}, store.RejectionFilter{IDs: []string{"a-0-1", "b-0-2"}, States: open}},
		{[]string{"--state", "all", "--sender", ""}, store.RejectionFilter{Sender: &none}},
		{[]string{"--state", "archived,resolved"}, store.RejectionFilter{States: []store.RejectionState{store.RejectionArchived, store.RejectionResolved}}},
		{[]string{"--topic", "t", "--partition", "0", "--offset", "5..9"}, store.RejectionFilter{States: open, Topic: "t", Partition: &zero, From: &from, To: &to}},
		{[]string{"--topic", "t", "--offset", "5.."}, store.RejectionFilter{States: open, Topic: "t", From: &from}},
		{[]string{"--topic", "t", "--offset", "..9"}, store.RejectionFilter{States: open, Topic: "t", To: &to}},
		{[]string{"--topic", "t", "--offset", "5"}, store.RejectionFilter{States: open, Topic: "t", From: &from, To: &from}},
		{[]string{"--since", "2026-03-01", "--until", "2026-03-01T04:30:00Z"}, store.RejectionFilter{States: open, Since: someTime.Truncate(24 * time.Hour), Until: someTime}},
		{[]string{"--code", "lo_not_found,value_type", "--field", "a,b", "--value", "v", "--learner", "L", "--teacher", "T", "--job", "3", "--action", "tracking", "--group", "0123456789ab"},
			store.RejectionFilter{States: open, Codes: []handlers.Code{"lo_not_found", "value_type"}, Fields: []string{"a,b"}, Value: "v", Learner: "L", Teacher: "T", Job: 3, Action: "tracking", Groups: []string{"0123456789ab"}}},
	} {
		got, err := parse(c.args...)
		if diff := cmp.Diff(c.want, got); diff != "" || err != nil {
			t.Errorf("%q: %v\n%s", c.args, err, diff)
		}
	}
	for _, args := range [][]string{{"--state", "closed"}, {"--state", "all,open"}, {"--group", "xyz"}, {"--group", "0123456789AG"}, {"--partition", "-1", "--topic", "t"}, {"--partition", "1"}, {"--offset", "9..5", "--topic", "t"},
		{"--offset", "..", "--topic", "t"}, {"--offset", "x", "--topic", "t"}, {"--since", "soon"}, {"--since", "-2h"}, {"--since", "2026-03-02", "--until", "2026-03-01"}, {"--action", "x"}} {
		if f, err := parse(args...); !errors.As(err, &callError{}) {
			t.Errorf("%q: %+v, %v", args, f, err)
		}
	}
	f, err := parse("--since", "7d")
	if ago := time.Since(f.Since); err != nil || ago < 6*24*time.Hour || ago > 8*24*time.Hour {
		t.Errorf("7d: %v, %v", f.Since, err)
	}
}

// What a selection leaves in jobs and operations holds no data of rows.
func TestSelectionSaysNothing(t *testing.T) {
	f := store.RejectionFilter{Value: "ines@example.net", Learner: "ines", Teacher: "kwame", Codes: []handlers.Code{"lo_not_found"}}
	if got := string(f.Selection()); got != `{"codes":["lo_not_found"],"learner":true,"teacher":true,"value":true}` {
		t.Error(got)
	}
}

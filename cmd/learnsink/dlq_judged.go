package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"learnsink/cmd/learnsink/dlq"
	"learnsink/handlers"
	"learnsink/store"
)

// judgedShown is what was judged of a selection, as JSON has it.
type judgedShown struct {
	Rows     int64                 `json:"rows"`
	Outcomes map[dlq.Outcome]int64 `json:"outcomes"`
	Effects  map[dlq.Effect]int64  `json:"effects"` // of the accepted
	// Groups are what the rejected would fail with.
	Groups       []dlq.GroupCount      `json:"groups"`
	Unconfigured map[string]int64      `json:"unconfigured,omitempty"`
	NotOpen      map[string]int64      `json:"notOpen,omitempty"`
	Before       map[dlq.Outcome]int64 `json:"before,omitempty"` // of the rows as they were, where they are edited
	Unchanged    int64                 `json:"unchanged,omitempty"`
	Unpatchable  int64                 `json:"unpatchable,omitempty"`
	Diffs        []rowDiff             `json:"diffs,omitempty"`
	Refused      []string              `json:"refused,omitempty"` // by name, and why
	Send         int64                 `json:"send"`
	Seen         string                `json:"seen,omitempty"` // for --seen
	Job          int64                 `json:"job,omitempty"`
	Result       *jobResult            `json:"result,omitempty"`
}

// jobResult is what became of a job that was followed.
type jobResult struct {
	State      string `json:"state"`
	Accepted   int64  `json:"accepted"`
	Rejected   int64  `json:"rejected"`
	Superseded int64  `json:"superseded"`
	Dropped    int64  `json:"dropped"`
}

func showJudged(p *dlq.Plan, diffs *rowDiffs) *judgedShown {
	s := &judgedShown{Rows: p.Rows, Outcomes: p.Outcomes, Effects: p.Effects, Groups: p.Groups(), Unconfigured: p.Unconfigured, NotOpen: p.NotOpen,
		Unchanged: p.Unchanged, Unpatchable: p.Unpatchable, Diffs: diffs.shown, Send: p.Send()}
	if diffs.more == 0 {
		s.Seen = p.Seen()
	}
	if p.Before != nil {
		s.Before = p.Before.Outcomes
	}
	return s
}

// print says what was judged to a person.
func (s *judgedShown) print(out io.Writer, verb string) error {
	say := func(n int64, format string, args ...any) {
		if n > 0 {
			fmt.Fprintf(out, "%7d  %s\n", n, fmt.Sprintf(format, args...))
		}
	}
	fmt.Fprintf(out, "%s, %s by the catalogue, the settings and the tables of now:\n", counted(s.Rows+s.Unchanged+s.Unpatchable, "dead letter"), verb)
	say(s.Unpatchable, "are no JSON object, so there is nothing to patch: --row FILE replaces one whole")
	say(s.Unchanged, "are as the edit would have them already")
	say(s.Outcomes[dlq.Accepted], "would be accepted: %s", effectsText(s.Effects))
	say(s.Outcomes[dlq.Ignored], "would be passed over by the settings, and be done with")
	say(s.Outcomes[dlq.Rejected], "would still fail:")
	if err := printGroups(out, s.Groups, func(store.Fault) string { return "" }); err != nil {
		return err
	}
	say(s.Outcomes[dlq.Superseded], "are older than what is stored")
	say(s.Outcomes[dlq.Gone], "are of persons who were erased: nothing of theirs is kept")
	for _, topic := range slices.Sorted(maps.Keys(s.Unconfigured)) {
		say(s.Unconfigured[topic], "are from %s, which is no source of this configuration: they cannot be judged", printable(topic))
	}
	for _, state := range slices.Sorted(maps.Keys(s.NotOpen)) {
		say(s.NotOpen[state], "are %s: they are left alone", state)
	}
	if s.Before != nil && s.Rows > 0 {
		fmt.Fprintf(out, "without the edit %d of them would be accepted\n", s.Before[dlq.Accepted])
	}
	for _, refused := range s.Refused {
		fmt.Fprintln(out, printable(refused))
	}
	return nil
}

// counted is so many of a thing.
func counted(n int64, thing string) string {
	if n != 1 {
		thing += "s"
	}
	return fmt.Sprintf("%d %s", n, thing)
}

// effectsText says what accepted rows do.
func effectsText(effects map[dlq.Effect]int64) string {
	words := map[dlq.Effect]string{dlq.Inserts: "insert", dlq.Changes: "change", dlq.Deletes: "delete", dlq.Nothing: "change nothing"}
	var parts []string
	for _, e := range dlq.Effects() {
		if n := effects[e]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, words[e]))
		}
	}
	return strings.Join(parts, ", ")
}

// printGroups prints groups beneath the line of their rows; note is put behind each.
func printGroups(out io.Writer, groups []dlq.GroupCount, note func(store.Fault) string) error {
	for _, g := range groups {
		what := string(g.Group.Code)
		if g.Group.Field != "" {
			what += " " + g.Group.Field
		}
		if _, err := fmt.Fprintf(out, "%15d  %s  %s: %s%s\n", g.Rows, g.Group.Key(), printable(what), printable(g.Group.Message), note(g.Group)); err != nil {
			return err
		}
	}
	return nil
}

// rowDiff is one row that is shown: what it would write over, or how it is edited.
type rowDiff struct {
	ID      string      `json:"id"`
	Outcome dlq.Outcome `json:"outcome"`
	Effect  dlq.Effect  `json:"effect,omitempty"`
	// Errors: of a row that would fail still.
	Errors   []handlers.Error `json:"errors,omitempty"`
	EventAt  time.Time        `json:"eventAt"`
	StoredAt *time.Time       `json:"storedAt,omitempty"`
	From     string           `json:"storedFrom,omitempty"`
	// Edit is the row before and after; Table what is stored and what the row says.
	Edit  []dlq.Difference `json:"edit,omitempty"`
	Table []dlq.Difference `json:"table,omitempty"`
}

// rowDiffs collects the rows that are shown, at most so many.
type rowDiffs struct {
	most            int64
	edit, overwrite bool
	shown           []rowDiff
	more            int64
}

// add looks at a verdict; was is the row as it was before an edit.
func (d *rowDiffs) add(v *dlq.Verdict, was []byte) error {
	if !d.edit && !(d.overwrite && v.Outcome == dlq.Superseded) {
		return nil
	}
	if int64(len(d.shown)) >= d.most {
		d.more++
		return nil
	}
	r := rowDiff{ID: v.Letter.ID, Outcome: v.Outcome, Effect: v.Effect, Errors: v.Errors, EventAt: v.Letter.EventAt, Table: v.Diff}
	if v.Stored.Known {
		r.StoredAt, r.From = &v.Stored.EventTime, fmt.Sprintf("%s/%d offset %d", v.Stored.SourceTopic, v.Stored.SourcePartition, v.Stored.SourceOffset)
	}
	if d.edit {
		r.Edit = dlq.RowDiff(was, v.Letter.Record.Value)
	}
	d.shown = append(d.shown, r)
	return nil
}

// print shows the rows to a person.
func (d *rowDiffs) print(out io.Writer) error {
	for i := range d.shown {
		r := &d.shown[i]
		fmt.Fprintf(out, "%s, of %s: %s\n", printable(r.ID), r.EventAt.Format(time.RFC3339Nano), r.verdict())
		if d.edit {
			printDifferences(out, "WAS", "EDITED", r.Edit)
		}
		if d.overwrite && r.Outcome == dlq.Superseded {
			printDifferences(out, "STORED", "ROW", r.Table)
		}
	}
	if d.more > 0 {
		fmt.Fprintf(out, "and %d more\n", d.more)
	}
	return nil
}

// verdict says what would become of the row.
func (r *rowDiff) verdict() string {
	switch r.Outcome {
	case dlq.Accepted:
		return "would be accepted: " + effectsText(map[dlq.Effect]int64{r.Effect: 1})[2:]
	case dlq.Superseded:
		return fmt.Sprintf("is older than what is stored, of %s (%s)", r.StoredAt.Format(time.RFC3339Nano), r.From)
	case dlq.Rejected:
		var messages []string
		for _, e := range r.Errors {
			messages = append(messages, e.Message)
		}
		return "would fail: " + printable(strings.Join(messages, " | "))
	}
	return string(r.Outcome)
}

// printDifferences prints columns side by side.
func printDifferences(out io.Writer, was, now string, diff []dlq.Difference) {
	text := func(v *string) string {
		if v == nil {
			return "-"
		}
		return printable(*v)
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	if len(diff) == 0 {
		fmt.Fprintln(w, "  no column differs")
	} else {
		fmt.Fprintf(w, "  COLUMN\t%s\t%s\n", was, now)
	}
	for _, d := range diff {
		fmt.Fprintf(w, "  %s\t%s\t%s\n", printable(d.Column), text(d.Stored), text(d.Row))
	}
	w.Flush()
}

// judgedLine is a line of what was judged, in csv.
type judgedLine struct {
	What, Effect string
	Group        *store.Fault // nil: all of them
	Rows         int64
}

// lines is what was judged line by line.
func (s *judgedShown) lines() (lines []judgedLine) {
	for _, o := range dlq.Outcomes() {
		switch n := s.Outcomes[o]; {
		case n == 0:
		case o == dlq.Accepted:
			for _, e := range dlq.Effects() {
				if n := s.Effects[e]; n > 0 {
					lines = append(lines, judgedLine{What: string(o), Effect: string(e), Rows: n})
				}
			}
		default:
			lines = append(lines, judgedLine{What: string(o), Rows: n})
		}
	}
	return append(lines, groupLines("rejected with", s.Groups)...)
}

func groupLines(what string, groups []dlq.GroupCount) (lines []judgedLine) {
	for _, g := range groups {
		lines = append(lines, judgedLine{What: what, Group: &g.Group, Rows: g.Rows})
	}
	return lines
}

func printJudgedLines(out io.Writer, lines []judgedLine) error {
	of := func(text func(store.Fault) string) func(*judgedLine) string {
		return func(l *judgedLine) string {
			if l.Group == nil {
				return ""
			}
			return text(*l.Group)
		}
	}
	p, err := newPrinter(out, "csv", []printColumn[judgedLine]{
		{name: "what", text: func(l *judgedLine) string { return l.What }},
		{name: "effect", text: func(l *judgedLine) string { return l.Effect }},
		{name: "group", text: of(store.Fault.Key)},
		{name: "action", text: of(func(f store.Fault) string { return string(f.Action) })},
		{name: "code", text: of(func(f store.Fault) string { return string(f.Code) })},
		{name: "field", text: of(func(f store.Fault) string { return f.Field })},
		{name: "message", text: of(func(f store.Fault) string { return f.Message })},
		{name: "rows", text: func(l *judgedLine) string { return strconv.FormatInt(l.Rows, 10) }},
	})
	if err != nil {
		return err
	}
	return p.printAll(lines)
}

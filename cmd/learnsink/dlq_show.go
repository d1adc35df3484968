package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"learnsink/cmd/learnsink/dlq"
	"learnsink/handlers"
	"learnsink/store"
)

// dlqShowCommand is `dlq show`.
func (a *app) dlqShowCommand() *cobra.Command {
	var form string
	cmd := &cobra.Command{
		Use:   "show ID [-f table|json|csv]",
		Short: "show all that is known of one dead letter",
		Long: `show shows a rejected row with its messages, each beside the column that it blames; where the
row came from, with its headers; what was said of it by earlier attempts, and the jobs that
have sent it; what is stored now under its key, and what a replay would do now. ID is the
dead letter's learnsink.id.
` + formatHelp + " csv has a line for each message.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if _, err := newPrinter(io.Discard, form, showColumns()); err != nil {
				return err
			}
			c, err := a.load()
			if err != nil {
				return err
			}
			db, err := c.openStore(cmd.Context())
			if err != nil {
				return err
			}
			defer db.Close()
			desk := &dlq.Desk{Sources: c.Sources, ReplayTopic: c.replayTopic(), Store: db}
			d, err := desk.Show(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return printDossier(a.stdout, form, d)
		},
	}
	formatFlag(cmd, &form)
	return cmd
}

// printDossier prints a dead letter as -f asks.
func printDossier(out io.Writer, form string, d *dlq.Dossier) error {
	shown := showDossier(d)
	switch form {
	case "table":
		return tellDossier(out, d, &shown)
	case "json":
		encoder := json.NewEncoder(out)
		encoder.SetEscapeHTML(false)
		return encoder.Encode(&shown)
	}
	p, err := newPrinter(out, form, showColumns())
	if err != nil {
		return err
	}
	var lines []messageLine
	for i := range shown.Messages {
		lines = append(lines, messageLine{&shown, &shown.Messages[i]})
	}
	return p.printAll(lines)
}

// dossierShown is a dead letter as json has it.
type dossierShown struct {
	ID          string               `json:"id"`
	State       store.RejectionState `json:"state"`
	Action      handlers.Action      `json:"action"`
	Attempt     int                  `json:"attempt"`
	RejectedAt  time.Time            `json:"rejectedAt"`
	EventAt     time.Time            `json:"eventAt"`
	Sender      string               `json:"sender"`
	Topic       string               `json:"topic"`
	Partition   int                  `json:"partition"`
	Offset      int64                `json:"offset"`
	Incarnation int                  `json:"incarnation,omitempty"` // 2 and more: of a topic that was made anew
	Rules       string               `json:"rules"`
	ReplayOf    string               `json:"replayOf,omitempty"`
	WaitsFor    []string             `json:"waitsFor,omitempty"`
	Deadline    *time.Time           `json:"deadline,omitempty"`
	SettledAt   *time.Time           `json:"settledAt,omitempty"`
	SettledBy   string               `json:"settledBy,omitempty"`
	Messages    []messageShown       `json:"messages"`
	Key         *string              `json:"key"`
	KeyBase64   []byte               `json:"keyBase64,omitempty"`
	Headers     []headerShown        `json:"headers"`
	Row         json.RawMessage      `json:"row"` // JSON as it is, other text as a string
	RowBase64   []byte               `json:"rowBase64,omitempty"`
	History     []store.Attempt      `json:"history"`
	Jobs        []sendingShown       `json:"jobs"`
	Stored      storedShown          `json:"stored"`
	Replay      replayShown          `json:"replay"`
}

type messageShown struct {
	Group string `json:"group"`
	handlers.Error
}

type headerShown struct {
	Key         string  `json:"key"`
	Value       *string `json:"value"`
	ValueBase64 []byte  `json:"valueBase64,omitempty"`
}

type sendingShown struct {
	Job     int64           `json:"job"`
	Kind    string          `json:"kind"`
	Actor   string          `json:"actor"`
	Why     string          `json:"why"`
	At      time.Time       `json:"at"`
	State   string          `json:"state"`
	Outcome string          `json:"outcome,omitempty"`
	Edit    json.RawMessage `json:"edit,omitempty"`
}

// storedShown is what is stored under the row's key: row, deleted, nothing, or
// no key.
type storedShown struct {
	Found     dlq.Kept     `json:"found"`
	EventAt   *time.Time   `json:"eventAt,omitempty"`
	Topic     string       `json:"topic,omitempty"`
	Partition *int         `json:"partition,omitempty"`
	Offset    *int64       `json:"offset,omitempty"`
	Columns   []dlq.Column `json:"columns,omitempty"`
}

// replayShown is what a replay would do now.
type replayShown struct {
	Outcome dlq.Outcome      `json:"outcome,omitempty"`
	Effect  dlq.Effect       `json:"effect,omitempty"`
	Errors  []handlers.Error `json:"errors,omitempty"`
	Diff    []dlq.Difference `json:"diff,omitempty"`
	Unknown string           `json:"unknown,omitempty"` // why nobody can say
}

func showDossier(d *dlq.Dossier) dossierShown {
	r := &d.Rejection
	s := dossierShown{ID: r.ID, State: r.State, Action: r.Action, Attempt: r.Attempt, RejectedAt: r.RejectedAt, EventAt: r.EventAt, Sender: r.Sender,
		Topic: r.SourceTopic, Partition: r.Partition, Offset: r.Offset, Rules: r.Rules, ReplayOf: r.ReplayOf, WaitsFor: r.WaitsFor,
		Deadline: optTime(r.Deadline), SettledAt: optTime(r.SettledAt), SettledBy: r.SettledBy, Messages: []messageShown{}, Headers: []headerShown{},
		History: []store.Attempt{}, Jobs: []sendingShown{}, Row: json.RawMessage("null")}
	if r.Incarnation > 1 {
		s.Incarnation = r.Incarnation
	}
	for i := range r.Errors {
		s.Messages = append(s.Messages, messageShown{store.FaultOf(r.Action, &r.Errors[i]).Key(), r.Errors[i]})
	}
	s.Key, s.KeyBase64 = textOrBase64(r.Key)
	for _, h := range r.Headers {
		shown := headerShown{Key: h.Key}
		shown.Value, shown.ValueBase64 = textOrBase64(h.Value)
		s.Headers = append(s.Headers, shown)
	}
	switch text, encoded := textOrBase64(r.Value); {
	case json.Valid(r.Value):
		s.Row = r.Value
	case text != nil:
		s.Row, _ = json.Marshal(*text)
	default:
		s.RowBase64 = encoded
	}
	s.History = append(s.History, r.History...)
	for _, j := range d.Jobs {
		s.Jobs = append(s.Jobs, sendingShown{j.Job, j.Kind, j.Actor, j.Why, j.At, j.State, j.Outcome, j.Edit})
	}
	s.Stored = storedShown{Found: d.Now.Found, Columns: d.Now.Columns}
	if n := d.Now; n.Known {
		s.Stored.EventAt, s.Stored.Topic, s.Stored.Partition, s.Stored.Offset = optTime(n.EventTime), n.SourceTopic, &n.SourcePartition, &n.SourceOffset
	}
	s.Replay = replayShown{Unknown: d.Unjudged}
	if v := d.Verdict; v != nil {
		s.Replay = replayShown{Outcome: v.Outcome, Effect: v.Effect, Errors: v.Errors, Diff: v.Diff}
	}
	return s
}

// textOrBase64 is bytes as text, where they are one; both nil: null.
func textOrBase64(b []byte) (text *string, encoded []byte) {
	if b == nil || !utf8.Valid(b) {
		return nil, b
	}
	return textOrNull(b), nil
}

// messageLine is a line of csv: a message, with what it is about.
type messageLine struct {
	*dossierShown
	message *messageShown
}

func showColumns() []printColumn[messageLine] {
	type column = printColumn[messageLine]
	return []column{
		{name: "id", text: func(l *messageLine) string { return l.ID }},
		{name: "state", text: func(l *messageLine) string { return string(l.State) }},
		{name: "action", text: func(l *messageLine) string { return string(l.Action) }},
		{name: "attempt", text: func(l *messageLine) string { return strconv.Itoa(l.Attempt) }},
		{name: "rejectedAt", text: func(l *messageLine) string { return moment(l.RejectedAt) }},
		{name: "eventAt", text: func(l *messageLine) string { return moment(l.EventAt) }},
		{name: "sender", text: func(l *messageLine) string { return l.Sender }},
		{name: "group", text: func(l *messageLine) string { return l.message.Group }},
		{name: "code", text: func(l *messageLine) string { return string(l.message.Code) }},
		{name: "field", text: func(l *messageLine) string { return l.message.Field }},
		{name: "value", text: func(l *messageLine) string { return l.message.Value }},
		{name: "message", text: func(l *messageLine) string { return l.message.Message }},
		{name: "stored", text: func(l *messageLine) string { return string(l.Stored.Found) }},
		{name: "replay", text: func(l *messageLine) string { return string(l.Replay.Outcome) }},
		{name: "row", text: func(l *messageLine) string { return string(l.Row) }},
	}
}

// teller writes a dossier for people.
type teller struct{ *bufio.Writer }

func (t teller) line(format string, args ...any) {
	t.WriteString(printable(fmt.Sprintf(format, args...)))
	t.WriteByte('\n')
}

// tellDossier prints a dead letter for people.
func tellDossier(out io.Writer, d *dlq.Dossier, s *dossierShown) error {
	t := teller{bufio.NewWriter(out)}
	t.head(s)
	t.row(&d.Rejection, s)
	t.past(d)
	t.stored(d)
	t.replay(d)
	return t.Flush()
}

func (t teller) head(s *dossierShown) {
	t.line("%s  %s, attempt %d", s.ID, s.State, s.Attempt)
	t.line("  action    %s", s.Action)
	t.line("  rejected  %s; the event is of %s", moment(s.RejectedAt), moment(s.EventAt))
	source := fmt.Sprintf("%s/%d offset %d", s.Topic, s.Partition, s.Offset)
	if s.Incarnation > 1 {
		source += fmt.Sprintf(" (incarnation %d)", s.Incarnation)
	}
	t.line("  source    %s, judged by rules %s", source, s.Rules)
	if s.Sender != "" {
		t.line("  sender    %s", s.Sender)
	}
	switch {
	case s.Key != nil:
		t.line("  key       %s", *s.Key)
	case s.KeyBase64 != nil:
		t.line("  key       %x", s.KeyBase64)
	}
	for _, h := range s.Headers {
		switch {
		case h.Value != nil:
			t.line("  header    %s: %s", h.Key, *h.Value)
		case h.ValueBase64 != nil:
			t.line("  header    %s: %x", h.Key, h.ValueBase64)
		default:
			t.line("  header    %s", h.Key)
		}
	}
	if s.ReplayOf != "" {
		t.line("  attempt of %s", s.ReplayOf)
	}
	if len(s.WaitsFor) > 0 && s.Deadline != nil {
		t.line("  waits for %s, until %s", strings.Join(s.WaitsFor, ", "), moment(*s.Deadline))
	}
	if s.SettledAt != nil {
		t.line("  %s %s by %s", s.State, moment(*s.SettledAt), s.SettledBy)
	}
}

// row prints the row, with each message below the column that it blames.
func (t teller) row(r *store.Rejection, s *dossierShown) {
	t.line("row")
	lines, rest := dlq.RowLines(r.Value, r.Errors)
	switch {
	case r.Value == nil:
		lines = []dlq.RowLine{{Text: "no value"}}
	case s.RowBase64 != nil:
		lines = []dlq.RowLine{{Text: fmt.Sprintf("%x", s.RowBase64)}}
	}
	for _, l := range lines {
		mark := " "
		if len(l.Wrong) > 0 {
			mark = ">"
		}
		t.line("  %s %s", mark, l.Text)
		for _, e := range l.Wrong {
			t.line("      ^ %s (%s)", e.Message, e.Code)
		}
	}
	for _, e := range rest {
		t.line("  > %s (%s)", e.Message, e.Code)
	}
	for _, m := range s.Messages {
		t.line("group %s: %s", m.Group, strings.TrimSpace(string(m.Code)+" "+m.Field))
	}
}

func (t teller) past(d *dlq.Dossier) {
	if len(d.Rejection.History) > 0 {
		t.line("history")
	}
	for _, h := range d.Rejection.History {
		by := ""
		if h.Job != 0 {
			by = fmt.Sprintf(", by job %d", h.Job)
		}
		t.line("    attempt %d, %s (%s%s): %s", h.Attempt, moment(h.At), h.ID, by, messages(h.Errors))
	}
	if len(d.Jobs) > 0 {
		t.line("jobs")
	}
	for _, j := range d.Jobs {
		t.line("    job %d, %s by %s, %s: %s (%s)", j.Job, j.Kind, oneLine(j.Actor), moment(j.At), j.State, oneLine(j.Why))
		if j.Edit != nil {
			t.line("        edited: %s", j.Edit)
		}
		if j.Outcome != "" {
			t.line("        outcome %s", j.Outcome)
		}
	}
}

func (t teller) stored(d *dlq.Dossier) {
	n := d.Now
	from := fmt.Sprintf("by the event of %s (%s/%d offset %d)", moment(n.EventTime), n.SourceTopic, n.SourcePartition, n.SourceOffset)
	switch n.Found {
	case dlq.KeptRow:
		t.line("stored under its key, %s", from)
		for _, c := range n.Columns {
			t.line("    %s: %s", c.Name, orDash(c.Value))
		}
	case dlq.KeptMemory:
		t.line("stored under its key: nothing; it was deleted %s", from)
	case dlq.KeptNothing:
		t.line("stored under its key: nothing")
	case dlq.KeptNoKey:
		t.line("stored under its key: nobody can say, the catalogue does not know what the row refers to")
	}
}

func (t teller) replay(d *dlq.Dossier) {
	v := d.Verdict
	if v == nil {
		t.line("a replay now: %s", d.Unjudged)
		return
	}
	switch v.Outcome {
	case dlq.Accepted:
		t.line("a replay now: accepted, %s", effectWords(v.Effect))
	case dlq.Superseded:
		t.line("a replay now: superseded, it is older than what is stored; written over that, %s", effectWords(v.Effect))
	case dlq.Unconfigured:
		t.line("a replay now: nobody can say, %s is no source of this configuration", v.Source)
	default:
		t.line("a replay now: %s", v.Outcome)
	}
	for _, e := range v.Errors {
		t.line("    %s (%s)", e.Message, e.Code)
	}
	for _, c := range v.Diff {
		t.line("    %s: %s -> %s", c.Column, orDash(c.Stored), orDash(c.Row))
	}
}

// effectWords says what an accepted row would do.
func effectWords(e dlq.Effect) string {
	switch e {
	case dlq.Inserts:
		return "it would add a row"
	case dlq.Changes:
		return "it would change what is stored"
	case dlq.Deletes:
		return "it would delete what is stored"
	}
	return "it would change nothing"
}

func orDash(text *string) string {
	if text == nil {
		return "-"
	}
	return *text
}

package dlq

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"learnsink/handlers"
	"learnsink/store"
)

// Dossier is all that is known of one dead letter.
type Dossier struct {
	Rejection store.Rejection
	Jobs      []store.Sending // that have sent it, the first first
	Now       Now
	// Verdict is what a replay would do now; nil, with Unjudged, where nobody can say.
	Verdict  *Verdict
	Unjudged string
}

// Now is what is stored under a row's key.
type Now struct {
	Found Kept
	handlers.Stored
	Columns []Column // of a row that is there
}

// Column is a stored column; nil: nothing is there.
type Column struct {
	Name  string  `json:"column"`
	Value *string `json:"value"`
}

// Kept is what there is under a key.
type Kept string

// What there may be.
const (
	KeptRow     Kept = "row"
	KeptMemory  Kept = "deleted" // there was one, and it is remembered
	KeptNothing Kept = "nothing"
	// KeptNoKey: the row does not say, in words that the catalogue knows,
	// what it is about.
	KeptNoKey Kept = "no key"
)

// Desk is what looking at a dead letter takes.
type Desk struct {
	Sources     []*handlers.Source
	ReplayTopic string
	Store       *store.Store
}

// Show gathers what is known of one dead letter; store.ErrNoRejection where
// there is none.
func (d *Desk) Show(ctx context.Context, id string) (*Dossier, error) {
	r, err := d.Store.Rejection(ctx, id)
	if err != nil {
		return nil, err
	}
	dossier := &Dossier{Rejection: r}
	if dossier.Jobs, err = d.Store.Sendings(ctx, id); err != nil {
		return nil, err
	}
	dossier.Now, err = d.now(ctx, &r)
	switch {
	case errors.Is(err, handlers.ErrNoCatalogue):
		dossier.Unjudged, dossier.Now.Found = err.Error(), KeptNoKey
		return dossier, nil
	case err != nil:
		return nil, err
	}
	letter := store.Letter{ID: r.ID, State: string(r.State), Record: r.Record(), EventAt: r.EventAt, Attempt: r.Attempt}
	verdicts, err := NewJudge(d.Sources, d.ReplayTopic, d.Store, d.Store, letter.State).Page(ctx, []store.Letter{letter})
	if err != nil {
		return nil, err
	}
	dossier.Verdict = &verdicts[0]
	return dossier, nil
}

// referring are the columns of a tracking row that say what it is about.
var referring = []string{"candidateLogin", "candidateRefNumber", "candidateEmail", "lovCode", "lovGuid",
	"sessionGuid", "sessionId", "sessionTitle", "trainingPathCode", "trainingId"}

// now reads what is stored under the key of a row, whatever else is wrong
// with it: of a tracking row the columns that refer to something are judged
// by themselves.
func (d *Desk) now(ctx context.Context, r *store.Rejection) (Now, error) {
	var key handlers.Decision
	if r.Action == handlers.Intervention {
		about := handlers.AboutRow(r.Action, r.Value)
		if about.Intervention == "" {
			return Now{Found: KeptNoKey}, nil
		}
		key = handlers.Decision{Verdict: handlers.Accepted, Intervention: &handlers.InterventionRow{GUIDFolded: about.Intervention}}
	} else {
		decision, err := d.trackingKey(ctx, r)
		if err != nil || decision == nil {
			return Now{Found: KeptNoKey}, err
		}
		key = *decision
	}
	under, err := d.Store.Under(ctx, []handlers.Decision{key})
	if err != nil {
		return Now{}, err
	}
	was := left{}
	if key.Tracking != nil {
		was = trackingLeft(under, key.Tracking.TrackingKey)
	} else {
		was = interventionLeft(under, key.Intervention.GUIDFolded)
	}
	now := Now{Found: KeptNothing, Stored: was.Stored}
	switch {
	case was.row != nil:
		now.Found = KeptRow
		for i, name := range columns(r.Action) {
			now.Columns = append(now.Columns, Column{name, was.row.cells[i].shown()})
		}
	case was.Known:
		now.Found = KeptMemory
	}
	return now, nil
}

// trackingKey decides a row of nothing but what a tracking row refers to; nil:
// it does not lead to a key.
func (d *Desk) trackingKey(ctx context.Context, r *store.Rejection) (*handlers.Decision, error) {
	var row map[string]json.RawMessage
	if json.Unmarshal(r.Value, &row) != nil {
		return nil, nil
	}
	for name := range row {
		if !slices.Contains(referring, name) {
			delete(row, name)
		}
	}
	value, err := json.Marshal(row)
	if err != nil {
		return nil, nil
	}
	rules, err := handlers.Compile(handlers.Tracking, nil)
	if err != nil {
		return nil, fmt.Errorf("the settings that go without saying: %w", err) // cannot be
	}
	rec := handlers.Record{Value: value}
	decoded, refs := rules.Decode(&rec, r.EventAt), handlers.NewReferences()
	decoded.Refer(refs)
	facts, err := d.Store.Facts(ctx, refs)
	if err != nil {
		return nil, err
	}
	decision := rules.Decide(&decoded, facts)
	if decision.Verdict != handlers.Accepted || decision.Tracking == nil {
		return nil, nil
	}
	return &decision, nil
}

// RowLine is a line of a row that is shown: a member of the object, or a
// stretch of what is no object.
type RowLine struct {
	Text string
	// Wrong are the messages that blame the column.
	Wrong  []handlers.Error
	column string
}

// RowLines sets a row out, a column a line, each with the messages that blame
// it; rest are the messages that blame none of its columns. What is no JSON
// object is one line.
func RowLines(value []byte, errs []handlers.Error) (lines []RowLine, rest []handlers.Error) {
	lines, ok := members(value)
	if !ok {
		return []RowLine{{Text: string(value)}}, errs
	}
	for _, e := range errs {
		at := slices.IndexFunc(lines, func(l RowLine) bool { return l.column == e.Field && e.Field != "" })
		if at < 0 {
			rest = append(rest, e)
			continue
		}
		lines[at].Wrong = append(lines[at].Wrong, e)
	}
	return lines, rest
}

// members returns the members of an object, as they are written; false: it is none.
func members(value []byte) (lines []RowLine, ok bool) {
	decoder := json.NewDecoder(bytes.NewReader(value))
	if opening, err := decoder.Token(); err != nil || opening != json.Delim('{') {
		return nil, false
	}
	for decoder.More() {
		token, err := decoder.Token()
		name, isName := token.(string)
		var member json.RawMessage
		if err != nil || !isName || decoder.Decode(&member) != nil {
			return nil, false
		}
		var quoted bytes.Buffer
		encoder := json.NewEncoder(&quoted)
		encoder.SetEscapeHTML(false)
		if encoder.Encode(name) != nil {
			return nil, false
		}
		lines = append(lines, RowLine{Text: string(bytes.TrimSpace(quoted.Bytes())) + ": " + string(member), column: name})
	}
	if _, err := decoder.Token(); err != nil || decoder.More() {
		return nil, false
	}
	return lines, true
}

package dlq

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"iter"
	"slices"

	"learnsink/store"
)

// Sending says which of the rows that are judged are sent.
type Sending struct {
	// All: also what would fail or be superseded again. Else only what would
	// be accepted is sent: what still fails would only burn an attempt.
	All bool
	// Overwrite: what is older than what is stored is sent to be written over
	// exactly that.
	Overwrite bool
	// Edit is what is done to the rows before; nil: they are sent as they were.
	Edit *Edit
}

// Edit is another value for rows.
type Edit struct {
	Patch Patch
	Value []byte // the row, whole; nil: Patch
}

// Record is what is kept of the edit, beside the row.
func (e *Edit) Record() json.RawMessage {
	steps := e.Patch
	if e.Value != nil {
		steps = Patch{{Op: Whole}}
	}
	text, _ := json.Marshal(steps) // strings alone: cannot fail
	return text
}

// Columns names what the edit touches, without a value: for lines of audit.
func (e *Edit) Columns() []string {
	if e.Value != nil {
		return []string{string(Whole)}
	}
	return e.Patch.Columns()
}

// Apply edits a row, and says whether that changed it.
func (e *Edit) Apply(row []byte) (edited []byte, changed bool, err error) {
	if e.Value != nil {
		return e.Value, string(e.Value) != string(row) || row == nil, nil
	}
	return e.Patch.Apply(row)
}

// Plan is a selection as it was judged: what would become of it, and what is
// to be sent. It holds no rows.
type Plan struct {
	*Tally
	// Before is what would become of the rows as they were, of an edit.
	Before *Tally
	// Unchanged rows that the edit leaves as they are, and those that it
	// cannot be done to: none of them is judged, or sent.
	Unchanged, Unpatchable int64

	sending Sending
	items   []planned
}

// planned is a row that is to be sent.
type planned struct{ id, overwrite string }

// Send returns how many rows are to be sent.
func (p *Plan) Send() int64 { return int64(len(p.items)) }

// IDs returns which.
func (p *Plan) IDs() []string {
	ids := make([]string, len(p.items))
	for i := range p.items {
		ids[i] = p.items[i].id
	}
	return ids
}

// Overwrites returns how many of them are to be written over something newer.
func (p *Plan) Overwrites() (n int64) {
	for _, i := range p.items {
		if i.overwrite != "" {
			n++
		}
	}
	return n
}

// Seen names what the rows that are written over newer ones would meet: it is
// another once another row is meant, or something else is stored. "" where
// there are none.
func (p *Plan) Seen() string {
	digest, any := sha256.New(), false
	for _, i := range p.items {
		if i.overwrite != "" {
			any = true
			fmt.Fprintf(digest, "%s %s\n", i.id, i.overwrite)
		}
	}
	if !any {
		return ""
	}
	return hex.EncodeToString(digest.Sum(nil)[:6])
}

// Pages are dead letters, a page of them after the other.
type Pages = iter.Seq2[[]store.Letter, error]

// NewPlan judges pages of dead letters, in their order, and shows each verdict
// with the row as it was: to a person, perhaps. before judges the rows of an
// edit as they were; nil: nobody asks.
func NewPlan(ctx context.Context, judge, before *Judge, pages Pages, sending Sending, show func(v *Verdict, was []byte) error) (*Plan, error) {
	p := &Plan{Tally: NewTally(), sending: sending}
	if before != nil {
		p.Before = NewTally()
	}
	if sending.Overwrite {
		judge.Overwriting()
	}
	for letters, err := range pages {
		if err != nil {
			return nil, err
		}
		if err := p.page(ctx, judge, before, letters, show); err != nil {
			return nil, err
		}
	}
	return p, nil
}

func (p *Plan) page(ctx context.Context, judge, before *Judge, letters []store.Letter, show func(*Verdict, []byte) error) error {
	was := letters
	if edit := p.sending.Edit; edit != nil {
		letters, was = p.edit(edit, letters)
		if before != nil {
			verdicts, err := before.Page(ctx, was)
			if err != nil {
				return err
			}
			for i := range verdicts {
				p.Before.Add(&verdicts[i])
			}
		}
	}
	verdicts, err := judge.Page(ctx, letters)
	if err != nil {
		return err
	}
	for i := range verdicts {
		v := &verdicts[i]
		p.Add(v)
		if p.sending.takes(v) {
			item := planned{id: v.Letter.ID}
			if v.Outcome == Superseded && p.sending.Overwrite {
				item.overwrite = v.Seen()
			}
			p.items = append(p.items, item)
		}
		if err := show(v, was[i].Record.Value); err != nil {
			return err
		}
	}
	return nil
}

// edit returns the letters that an edit changes, edited and as they were.
func (p *Plan) edit(edit *Edit, letters []store.Letter) (edited, was []store.Letter) {
	for i := range letters {
		value, changed, err := edit.Apply(letters[i].Record.Value)
		switch {
		case err != nil:
			p.Unpatchable++
		case !changed:
			p.Unchanged++
		default:
			was = append(was, letters[i])
			edited = append(edited, letters[i])
			edited[len(edited)-1].Record.Value = value
		}
	}
	return edited, was
}

// takes reports whether a row is sent.
func (s *Sending) takes(v *Verdict) bool {
	switch v.Outcome {
	case Accepted, Ignored:
		return true
	case Superseded:
		return s.All || s.Overwrite
	case Rejected:
		return s.All
	}
	return false // what cannot be judged cannot be sent
}

// Letters reads dead letters by their ids.
type Letters interface {
	LettersByID(ctx context.Context, ids []string) ([]store.Letter, error)
}

// PagesOf reads dead letters by their ids, page by page, in the order of ids.
func PagesOf(ctx context.Context, from Letters, ids []string) Pages {
	return func(yield func([]store.Letter, error) bool) {
		for page := range slices.Chunk(ids, pageRows) {
			letters, err := from.LettersByID(ctx, page)
			if !yield(letters, err) || err != nil {
				return
			}
		}
	}
}

// pageRows is how many rows are read and judged at once.
const pageRows = 1000

// Items returns what is to be sent: the rows that were judged, and no other.
// Of an edit the rows are read again, which never change, and edited again.
func (p *Plan) Items(ctx context.Context, from Letters) iter.Seq2[store.JobItem, error] {
	return func(yield func(store.JobItem, error) bool) {
		for page := range slices.Chunk(p.items, pageRows) {
			values, err := p.values(ctx, from, page)
			if err != nil {
				yield(store.JobItem{}, err)
				return
			}
			for _, i := range page {
				item := store.JobItem{Rejection: i.id, Overwrite: i.overwrite}
				if edit := p.sending.Edit; edit != nil {
					item.Value, item.Edit = values[i.id], edit.Record()
				}
				if !yield(item, nil) {
					return
				}
			}
		}
	}
}

// values returns the edited values of a page's rows; none without an edit.
func (p *Plan) values(ctx context.Context, from Letters, page []planned) (map[string][]byte, error) {
	edit := p.sending.Edit
	if edit == nil {
		return nil, nil
	}
	ids := make([]string, len(page))
	for n, i := range page {
		ids[n] = i.id
	}
	letters, err := from.LettersByID(ctx, ids)
	if err != nil {
		return nil, err
	}
	values := map[string][]byte{}
	for i := range letters {
		value, _, err := edit.Apply(letters[i].Record.Value)
		if err != nil {
			return nil, fmt.Errorf("edit %s: %w", letters[i].ID, err)
		}
		values[letters[i].ID] = value
	}
	for _, id := range ids {
		if values[id] == nil {
			return nil, fmt.Errorf("%s is gone meanwhile: judge the selection again", id)
		}
	}
	return values, nil
}

package dlq

import (
	"cmp"
	"encoding/json"
	"slices"

	"learnsink/handlers"
	"learnsink/store"
)

// GroupCount is how many rows have a fault. A row with several has a part in several.
type GroupCount struct {
	Group store.Fault
	Rows  int64
}

// MarshalJSON is json.Marshaler's.
func (g GroupCount) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		Group   string          `json:"group"`
		Action  handlers.Action `json:"action"`
		Code    handlers.Code   `json:"code"`
		Field   string          `json:"field,omitempty"`
		Message string          `json:"message"`
		Rows    int64           `json:"rows"`
	}{g.Group.Key(), g.Group.Action, g.Group.Code, g.Group.Field, g.Group.Message, g.Rows})
}

// Tally is what would become of a selection.
type Tally struct {
	Rows     int64             `json:"rows"`
	Outcomes map[Outcome]int64 `json:"outcomes"`
	Effects  map[Effect]int64  `json:"effects"` // of the accepted
	// Unconfigured source topics, and states that are not open.
	Unconfigured map[string]int64 `json:"unconfigured,omitempty"`
	NotOpen      map[string]int64 `json:"notOpen,omitempty"`

	groups map[store.Fault]int64
}

// NewTally returns an empty tally.
func NewTally() *Tally {
	return &Tally{Outcomes: map[Outcome]int64{}, Effects: map[Effect]int64{},
		Unconfigured: map[string]int64{}, NotOpen: map[string]int64{}, groups: map[store.Fault]int64{}}
}

// Add counts a verdict.
func (t *Tally) Add(v *Verdict) {
	t.Rows++
	t.Outcomes[v.Outcome]++
	switch v.Outcome {
	case Accepted:
		t.Effects[v.Effect]++
	case Rejected:
		for _, g := range v.Groups() {
			t.groups[g]++
		}
	case Unconfigured:
		t.Unconfigured[v.Source]++
	case NotOpen:
		t.NotOpen[v.Letter.State]++
	}
}

// Groups returns what the rejected rows still fail with, the commonest first.
func (t *Tally) Groups() []GroupCount { return ranked(t.groups) }

func ranked(groups map[store.Fault]int64) []GroupCount {
	counts := []GroupCount{}
	for g, n := range groups {
		counts = append(counts, GroupCount{g, n})
	}
	slices.SortFunc(counts, func(a, b GroupCount) int {
		return cmp.Or(cmp.Compare(b.Rows, a.Rows), cmp.Compare(a.Group.Action, b.Group.Action), cmp.Compare(a.Group.Code, b.Group.Code),
			cmp.Compare(a.Group.Field, b.Group.Field), cmp.Compare(a.Group.Message, b.Group.Message))
	})
	return counts
}

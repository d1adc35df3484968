package dlq

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"learnsink/handlers"
)

// Group is what is wrong with rows, without what stands in them.
type Group struct {
	Action  handlers.Action `json:"action"`
	Code    handlers.Code   `json:"code"`
	Field   string          `json:"field,omitempty"`
	Message string          `json:"message"` // its value taken out: […]
}

// groupOf returns the group of an error.
func groupOf(action handlers.Action, e *handlers.Error) Group {
	message := e.Message
	if e.Value != "" {
		message = strings.Replace(message, "["+e.Value+"]", "[…]", 1)
	}
	return Group{action, e.Code, e.Field, message}
}

// GroupCount is how many rows are of a group. A row with several messages is of several groups.
type GroupCount struct {
	Group
	Rows int64 `json:"rows"`
}

// Tally is what would become of a selection.
type Tally struct {
	Rows     int64             `json:"rows"`
	Outcomes map[Outcome]int64 `json:"outcomes"`
	Effects  map[Effect]int64  `json:"effects"` // of the accepted
	// Unconfigured source topics, and states that are not open.
	Unconfigured map[string]int64 `json:"unconfigured,omitempty"`
	NotOpen      map[string]int64 `json:"notOpen,omitempty"`

	groups map[Group]int64
}

// NewTally returns an empty tally.
func NewTally() *Tally {
	return &Tally{Outcomes: map[Outcome]int64{}, Effects: map[Effect]int64{},
		Unconfigured: map[string]int64{}, NotOpen: map[string]int64{}, groups: map[Group]int64{}}
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

func ranked(groups map[Group]int64) []GroupCount {
	counts := []GroupCount{}
	for g, n := range groups {
		counts = append(counts, GroupCount{g, n})
	}
	slices.SortFunc(counts, func(a, b GroupCount) int {
		return cmp.Or(cmp.Compare(b.Rows, a.Rows), cmp.Compare(a.Action, b.Action), cmp.Compare(a.Code, b.Code),
			cmp.Compare(a.Field, b.Field), cmp.Compare(a.Message, b.Message))
	})
	return counts
}

// inOrder returns the keys of counts in their order.
func inOrder[K cmp.Ordered](counts map[K]int64) []K { return slices.Sorted(maps.Keys(counts)) }

package dlq

import (
	"context"

	"learnsink/handlers"
	"learnsink/store"
)

// WhatIf is what changed settings would make of dead letters, beside what
// those of today do.
type WhatIf struct {
	Rows        int64
	Passes      int64 // fail today, and would pass
	StillFails  int64 // fail today, and would fail
	PassesToday int64 // pass today already, and would still
	NewlyFails  int64 // pass today, and would fail
	// NotJudged: of sources that are not configured, of an action that the
	// settings are not for, or in another state.
	NotJudged int64

	still, newly map[store.Fault]int64
	today        map[store.Fault]int64 // of those that would still fail
}

// NewWhatIf judges pages of dead letters by today's settings, and by those of then.
func NewWhatIf(ctx context.Context, today, then *Judge, pages Pages) (*WhatIf, error) {
	w := &WhatIf{still: map[store.Fault]int64{}, newly: map[store.Fault]int64{}, today: map[store.Fault]int64{}}
	for letters, err := range pages {
		if err != nil {
			return nil, err
		}
		now, err := today.Page(ctx, letters)
		if err != nil {
			return nil, err
		}
		would, err := then.Page(ctx, letters)
		if err != nil {
			return nil, err
		}
		for i := range would {
			w.add(&now[i], &would[i])
		}
	}
	return w, nil
}

func (w *WhatIf) add(now, would *Verdict) {
	w.Rows++
	count := func(groups map[store.Fault]int64, v *Verdict) {
		for _, g := range v.Groups() {
			groups[g]++
		}
	}
	switch {
	case would.Outcome == Unconfigured, would.Outcome == NotOpen, now.Outcome == Unconfigured:
		w.NotJudged++
	case now.fails() && would.fails():
		w.StillFails++
		count(w.still, would)
		count(w.today, now)
	case now.fails():
		w.Passes++
	case would.fails():
		w.NewlyFails++
		count(w.newly, would)
	default:
		w.PassesToday++
	}
}

// fails reports whether the rules find the row wrong, whatever is stored.
func (v *Verdict) fails() bool { return v.Outcome == Rejected }

// Still returns what the rows that fail today would fail with.
func (w *WhatIf) Still() []GroupCount { return ranked(w.still) }

// Newly returns what the rows that pass today would fail with.
func (w *WhatIf) Newly() []GroupCount { return ranked(w.newly) }

// IsNew reports whether no row that fails today does so with that: the changed
// settings find something else wrong.
func (w *WhatIf) IsNew(g store.Fault) bool { return w.today[g] == 0 }

// With returns the sources with other rules for an action, and without those
// of actions that rules has none for.
func With(sources []*handlers.Source, rules map[handlers.Action]*handlers.Rules) (changed []*handlers.Source) {
	for _, s := range sources {
		if r := rules[s.Rules.Action()]; r != nil {
			other := *s
			other.Rules = r
			changed = append(changed, &other)
		}
	}
	return changed
}

package main

import (
	"slices"

	"learnsink/handlers"
	"learnsink/store"
)

// stretch is a run of offsets of one log that were dealt with alike.
type stretch struct {
	from, to int64
	// judged: false where an operator has skipped them.
	judged bool
	// announced is how often their outcomes were published.
	announced int
	// silent: they were judged anew since, and that was not announced.
	silent bool
}

// leg is a way that a position has gone by itself: it judged the offsets
// [from, to), and announced those from said on.
type leg struct{ from, to, said int64 }

// legs returns the ways that a position has gone along a log, in their order,
// between the times that an operator has set it.
func legs(log store.Log, p handlers.Position, sets []store.PositionSet) (all []leg) {
	at, published, begun := p.FirstOffset, int64(0), false
	for _, s := range sets {
		if s.From.Incarnation != log.Incarnation {
			continue
		}
		if !begun {
			at, begun = s.First, true
		}
		all = append(all, leg{at, s.From.Offset, max(at, published)})
		switch at = s.To.Offset; s.Mode {
		case store.Republish:
			published = 0
		case store.NewLog:
			return all
		default:
			published = max(published, s.Published)
		}
	}
	if p.Incarnation == log.Incarnation {
		all = append(all, leg{at, p.NextOffset, max(at, published)})
	}
	return all
}

// stretches cuts a log where its offsets were dealt with differently.
func stretches(legs []leg) (all []stretch) {
	var borders []int64
	for _, l := range legs {
		borders = append(borders, l.from, l.to, min(l.said, l.to))
	}
	slices.Sort(borders)
	borders = slices.Compact(borders)
	for i := 0; i+1 < len(borders); i++ {
		s := stretch{from: borders[i], to: borders[i+1]}
		for _, l := range legs {
			if s.from < l.from || s.to > l.to {
				continue
			}
			s.judged, s.silent = true, s.from < l.said
			if !s.silent {
				s.announced++
			}
		}
		all = append(all, s)
	}
	return all
}

// stretchAt returns the stretch of an offset; the zero one where there is none.
func stretchAt(all []stretch, offset int64) stretch {
	i, found := slices.BinarySearchFunc(all, offset, func(s stretch, offset int64) int {
		switch {
		case offset < s.from:
			return 1
		case offset >= s.to:
			return -1
		}
		return 0
	})
	if !found {
		return stretch{}
	}
	return all[i]
}

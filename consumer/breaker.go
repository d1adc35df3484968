package consumer

import (
	"errors"
	"fmt"

	"learnsink/handlers"
)

// Breaker stops a partition before a flood of rejections of one kind, or of
// deletions, is applied: a bad deploy upstream, or a schema that has drifted.
// The zero value of a field is its default.
type Breaker struct {
	// Off turns it off.
	Off bool
	// Rejected is the share of rows that may be rejected for one reason (the
	// first code of each). Default: 0.5.
	Rejected float64
	// Deleted is the share of rows that may delete. Default: 0.2.
	Deleted float64
	// Window is how many rows of a partition, the last ones, the shares are
	// of; over fewer nothing is said. Default: 1000.
	Window int
}

func (b Breaker) orDefaults() Breaker {
	if b.Rejected == 0 {
		b.Rejected = 0.5
	}
	if b.Deleted == 0 {
		b.Deleted = 0.2
	}
	if b.Window == 0 {
		b.Window = 1000
	}
	return b
}

func (b Breaker) validate() error {
	if b.Rejected < 0 || b.Rejected > 1 || b.Deleted < 0 || b.Deleted > 1 {
		return errors.New("breaker: rejected and deleted are shares of 1")
	}
	if b.Window < 1 || b.Window > 1_000_000 {
		return errors.New("breaker: window is a number of rows, from 1 to 1000000")
	}
	return nil
}

// breaker watches the rows of one lease.
type breaker struct {
	limits Breaker
	below  int64           // rows below this offset are let on
	last   []handlers.Code // of the last rows, limits.Window at most: why each was rejected, deleted, or ""
}

// deleted marks a row that deletes. No code of a rejection is it.
const deleted handlers.Code = "deleted"

// trips reports whether these rows, coming after those that have passed, make
// a flood, and says which. It changes nothing.
func (b *breaker) trips(decisions []handlers.Decision) (reason string, flood bool) {
	if b.limits.Off {
		return "", false
	}
	window := b.limits.Window
	marks := b.marks(decisions)
	counts := map[handlers.Code]int{}
	for i, mark := range marks {
		counts[mark]++
		if i >= window {
			counts[marks[i-window]]--
		}
		if i < window-1 || i < len(b.last) || mark == "" { // only a row of its kind makes a flood
			continue
		}
		share, most, what := float64(counts[mark])/float64(window), b.limits.Rejected, "were rejected as "+string(mark)
		if mark == deleted {
			most, what = b.limits.Deleted, "would delete"
		}
		if share > most {
			return fmt.Sprintf("%d of the last %d rows %s, more than %g: look at what is sent, then `learnsink partition resume`",
				counts[mark], window, what, most), true
		}
	}
	return "", false
}

// passed notes rows that have been applied.
func (b *breaker) passed(decisions []handlers.Decision) {
	if b.limits.Off {
		return
	}
	marks := b.marks(decisions)
	b.last = marks[max(0, len(marks)-b.limits.Window):]
}

// marks returns those of the last rows and of these.
func (b *breaker) marks(decisions []handlers.Decision) []handlers.Code {
	marks := make([]handlers.Code, len(b.last), len(b.last)+len(decisions))
	copy(marks, b.last)
	for i := range decisions {
		d := &decisions[i]
		switch {
		case d.Record.Offset < b.below:
		case d.Verdict == handlers.Rejected:
			marks = append(marks, d.Errors[0].Code)
		case d.Tracking != nil && d.Tracking.Delete:
			marks = append(marks, deleted)
		default: // who waits is not rejected, and comes back
			marks = append(marks, "")
		}
	}
	return marks
}

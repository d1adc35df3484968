package consumer

import (
	"slices"
	"strings"
	"testing"

	"learnsink/handlers"
)

// rowsOf makes decisions from letters, from an offset on: a accepted, d
// accepted and deletes, x and y rejected for two reasons.
func rowsOf(from int64, letters string) []handlers.Decision {
	var decisions []handlers.Decision
	for i, letter := range letters {
		d := handlers.Decision{Record: &handlers.Record{Offset: from + int64(i)}, Verdict: handlers.Accepted, Tracking: &handlers.TrackingRow{}}
		switch letter {
		case 'd':
			d.Tracking.Delete = true
		case 'x', 'y':
			d.Verdict, d.Tracking = handlers.Rejected, nil
			d.Errors = []handlers.Error{{Code: handlers.Code(letter)}, {Code: "another"}}
		}
		decisions = append(decisions, d)
	}
	return decisions
}

func TestBreaker(t *testing.T) {
	for name, c := range map[string]struct {
		limits  Breaker
		below   int64
		batches string // each is looked at, and passes; the last one is what is asked about
		want    string // "" or a part of the reason
	}{
		"a window that is not full says nothing":        {batches: "xxxxxxxxx"},
		"a flood within one batch":                      {batches: "aaaaxxxxxx", want: "6 of the last 10 rows were rejected as x, more than 0.5"},
		"half of the rows is not more than half":        {batches: "aaaaaxxxxx"},
		"a flood over several batches":                  {batches: "aaaa xxx xxx", want: "6 of the last 10"},
		"in the middle of a batch":                      {batches: "aaaaxxxxxxaaaaaaaaaaaa", want: "6 of the last 10"},
		"of two kinds neither is one":                   {batches: "aaxxxxyyyy"},
		"deletions":                                     {batches: "aaaaaaaddd", want: "3 of the last 10 rows would delete, more than 0.2"},
		"a few deletions":                               {batches: "aaaaaaaadd"},
		"rows that have passed out of the window":       {batches: "xxxxx aaaaa xxxxx"},
		"a good row after a flood that was let on":      {below: 6, batches: "xxxxxx aaaaaaaaaa"},
		"rows that were let on do not count":            {below: 10, batches: "xxxxxxxxxx aaaaaxxxxx"},
		"those that come after do":                      {below: 10, batches: "xxxxxxxxxx aaaaxxxxxx", want: "6 of the last 10"},
		"off":                                           {limits: Breaker{Off: true}, batches: "xxxxxxxxxxxxxxxxxxxx"},
		"a share of 1 is never more":                    {limits: Breaker{Rejected: 1}, batches: "xxxxxxxxxxxxxxxxxxxx"},
		"a window of one row is any row of a bad kind":  {limits: Breaker{Window: 1}, batches: "aaa x", want: "1 of the last 1 rows"},
		"only a row of its kind is the one that trips":  {batches: "xxxxxaaaa x", want: "6 of the last 10"},
		"the flood was there, and nothing of it is new": {limits: Breaker{Rejected: 0.4}, batches: "xxxxx aaaaa"},
	} {
		t.Run(name, func(t *testing.T) {
			limits := c.limits
			if limits.Window == 0 {
				limits.Window = 10
			}
			b := &breaker{limits: limits.orDefaults(), below: c.below}
			batches := strings.Fields(c.batches)
			next := int64(0)
			for i, letters := range batches {
				rows := rowsOf(next, letters)
				next += int64(len(rows))
				before := slices.Clone(b.last)
				reason, flood := b.trips(rows)
				if !slices.Equal(before, b.last) {
					t.Error("to be asked has changed it")
				}
				if i < len(batches)-1 {
					if flood {
						t.Fatalf("batch %d: %s", i, reason)
					}
					b.passed(rows)
					if len(b.last) > limits.Window {
						t.Errorf("%d rows are remembered", len(b.last))
					}
					continue
				}
				if flood != (c.want != "") || !strings.Contains(reason, c.want) {
					t.Errorf("%v %q, want %q", flood, reason, c.want)
				}
			}
		})
	}
}

func TestBreakerSettings(t *testing.T) {
	if got := (Breaker{}).orDefaults(); got != (Breaker{Rejected: 0.5, Deleted: 0.2, Window: 1000}) {
		t.Errorf("defaults: %+v", got)
	}
	for _, bad := range []Breaker{{Rejected: 1.1}, {Deleted: -0.1}, {Window: -1}, {Window: 1_000_001}} {
		if bad.orDefaults().validate() == nil {
			t.Errorf("%+v is taken", bad)
		}
	}
}

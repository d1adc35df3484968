package handlers

import (
	"math"
	"time"
)

// clocks are what shows the time in a zone. Their changes stand in a table, up
// to its end: package time works most of them out from a rule in text,
// whenever it is asked, and takes a microsecond for it.
type clocks struct {
	*time.Location
	periods []period // the first from the beginning of time, each from where the last one ends
}

// period is a time in which a zone's clocks are not changed, in Unix seconds.
type period struct{ start, end, offset int64 }

// tableEnd is the year from which on package time is asked.
const tableEnd = 2100

func utc() *clocks { return newClocks(time.UTC) }

func newClocks(loc *time.Location) *clocks {
	c := &clocks{Location: loc}
	start := int64(math.MinInt64)
	for at := (time.Time{}).In(loc); at.Year() < tableEnd; {
		_, offset := at.Zone()
		p := period{start, math.MaxInt64, int64(offset)}
		if at = nextChange(at); !at.IsZero() {
			p.end = at.Unix()
		}
		c.periods = append(c.periods, p)
		if at.IsZero() {
			break
		}
		start = p.end
	}
	return c
}

// period returns which period holds the instant; behind the last one: none does.
func (c *clocks) period(unix int64) int {
	low, high := 0, len(c.periods)
	for low < high {
		if middle := (low + high) / 2; unix < c.periods[middle].end {
			high = middle
		} else {
			low = middle + 1
		}
	}
	return low
}

// instant returns the instant at which the clocks show wall: what localInstant
// does, by the table.
func (c *clocks) instant(wall time.Time) time.Time {
	shown := wall.Unix()
	first := c.period(shown - 24*60*60)
	for i := first; i < len(c.periods); i++ {
		switch p := &c.periods[i]; {
		case i > first && shown-p.offset < p.start:
			return wall.Add(-time.Duration(c.periods[i-1].offset) * time.Second) // skipped
		case shown-p.offset < p.end:
			return wall.Add(-time.Duration(p.offset) * time.Second)
		}
	}
	return localInstant(wall, c.Location)
}

// wall returns what the clocks show at t, as if it were UTC's.
func (c *clocks) wall(t time.Time) time.Time {
	if i := c.period(t.Unix()); i < len(c.periods) {
		return t.Add(time.Duration(c.periods[i].offset) * time.Second)
	}
	_, offset := t.In(c.Location).Zone()
	return t.Add(time.Duration(offset) * time.Second)
}

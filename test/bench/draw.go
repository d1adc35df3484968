package main

import (
	"errors"
	"fmt"
	"html"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// draw draws what was measured, each picture of which there is something.
func (r *report) draw(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	var failed error
	for name, c := range map[string]chart{"rates.svg": r.drawRates(), "latency.svg": r.drawLatency(), "table.svg": r.drawTable()} {
		if !c.empty() {
			failed = errors.Join(failed, os.WriteFile(filepath.Join(dir, name), []byte(c.svg()), 0o644))
		}
	}
	return failed
}

// drawRates: rows a second of each contender.
func (r *report) drawRates() chart {
	c := chart{title: "Rows a second", y: "rows/s", bars: true}
	for _, l := range r.lines() {
		if l.scenario == rate && !slices.Contains(c.x, l.contender) {
			c.x = append(c.x, l.contender)
		}
	}
	for _, phase := range []string{fresh, existing, replay} {
		s := series{name: phase}
		for _, contender := range c.x {
			s.points = append(s.points, spreadOf(r.values(rate, "", contender, phase, rateOf)))
		}
		c.series = append(c.series, s)
	}
	return c
}

// drawLatency: latency against load.
func (r *report) drawLatency() chart {
	c := chart{title: "Latency against load: from produce to visible", y: "ms", xTitle: "rows a second that were sent, and their share of the full rate", log: true}
	cases := r.cases(latency, learnsink)
	for _, name := range cases {
		c.x = append(c.x, fmt.Sprintf("%s · %.0f", name, spreadOf(r.values(latency, name, learnsink, "in the table", rateOf)).Median))
	}
	for _, phase := range []string{"in the table", "read_committed"} {
		for name, value := range map[string]func(*result) float64{"p50": func(r *result) float64 { return r.P50 * 1e3 }, "p99": func(r *result) float64 { return r.P99 * 1e3 }} {
			s := series{name: phase + ", " + name}
			for _, at := range cases {
				s.points = append(s.points, spreadOf(r.values(latency, at, learnsink, phase, value)))
			}
			c.series = append(c.series, s)
		}
	}
	slices.SortFunc(c.series, func(a, b series) int { return strings.Compare(a.name, b.name) })
	return c
}

// drawTable: what a row costs against the size of the table.
func (r *report) drawTable() chart {
	c := chart{title: "Cost of a row against the size of the table: time and PostgreSQL's CPU", y: "µs a row", xTitle: "rows in the table"}
	c.x = r.cases(table, learnsink)
	var names []string
	for i := range r.Results {
		if one := &r.Results[i]; one.Scenario == table && one.Rate > 0 && !slices.Contains(names, one.Contender) {
			names = append(names, one.Contender)
		}
	}
	for _, name := range names {
		for what, value := range map[string]func(*result) float64{"time": func(r *result) float64 { return 1e6 / r.Rate }, "PostgreSQL's CPU": func(r *result) float64 { return r.Postgres }} {
			s := series{name: name + ", " + what}
			for _, at := range c.x {
				s.points = append(s.points, spreadOf(r.values(table, at, name, fresh, value)))
			}
			c.series = append(c.series, s)
		}
	}
	slices.SortFunc(c.series, func(a, b series) int { return strings.Compare(a.name, b.name) })
	return c
}

// chart is a drawing of series over the same few places: lines, or bars.
type chart struct {
	title, y, xTitle string
	x                []string
	series           []series
	bars             bool
	log              bool
}

// series is what one thing gave at each place: medians, and from where to where.
type series struct {
	name   string
	points []spread
}

func (c *chart) empty() bool {
	for _, s := range c.series {
		for _, p := range s.points {
			if p.Max > 0 {
				return false
			}
		}
	}
	return true
}

const (
	width, height = 860, 420
	left, right   = 80, 230
	top, bottom   = 50, 70
)

// colours that are told apart without seeing red and green.
var colours = []string{"#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#000000", "#999999"}

// svg draws it.
func (c *chart) svg() string {
	least, most := math.Inf(1), 0.0
	for _, s := range c.series {
		for _, p := range s.points {
			if p.Max > 0 {
				least, most = min(least, p.Min), max(most, p.Max)
			}
		}
	}
	ticks := linearTicks(most)
	if c.log {
		ticks = logTicks(least, most)
		least = ticks[0]
	}
	most = ticks[len(ticks)-1]
	plotWidth, plotHeight := float64(width-left-right), float64(height-top-bottom)
	place := func(v float64) float64 {
		share := v / most
		if c.log {
			share = math.Log(max(v, least)/least) / math.Log(most/least)
		}
		return top + plotHeight*(1-share)
	}
	column := plotWidth / float64(len(c.x))
	var out strings.Builder
	text := func(x, y float64, anchor, s string) {
		fmt.Fprintf(&out, `<text x="%.1f" y="%.1f" text-anchor="%s">%s</text>`+"\n", x, y, anchor, html.EscapeString(s))
	}
	fmt.Fprintf(&out, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`+"\n", width, height, width, height)
	fmt.Fprintf(&out, `<rect width="%d" height="%d" fill="white"/>`+"\n", width, height)
	fmt.Fprintf(&out, `<text x="%d" y="24" font-size="16">%s</text>`+"\n", left, html.EscapeString(c.title))
	text(left, top-14, "end", c.y)
	for _, v := range ticks {
		fmt.Fprintf(&out, `<line x1="%d" x2="%.1f" y1="%.1f" y2="%.1f" stroke="#ddd"/>`+"\n", left, left+plotWidth, place(v), place(v))
		text(left-6, place(v)+4, "end", number(v))
	}
	for i, name := range c.x {
		text(left+column*(float64(i)+0.5), height-bottom+18, "middle", name)
	}
	text(left+plotWidth/2, height-bottom+44, "middle", c.xTitle)
	for n, s := range c.series {
		colour := colours[n%len(colours)]
		var path []string
		for i, p := range s.points {
			if p.Max == 0 {
				continue
			}
			x := left + column*(float64(i)+0.5)
			if c.bars {
				wide := column * 0.8 / float64(len(c.series))
				x += (float64(n) - float64(len(c.series)-1)/2) * wide
				fmt.Fprintf(&out, `<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="%s"/>`+"\n", x-wide/2+1, place(p.Median), wide-2, top+plotHeight-place(p.Median), colour)
			} else {
				fmt.Fprintf(&out, `<circle cx="%.1f" cy="%.1f" r="3.5" fill="%s"/>`+"\n", x, place(p.Median), colour)
				path = append(path, fmt.Sprintf("%.1f,%.1f", x, place(p.Median)))
			}
			fmt.Fprintf(&out, `<line x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f" stroke="%s"/>`+"\n", x, x, place(p.Min), place(p.Max), "#333")
		}
		fmt.Fprintf(&out, `<polyline points="%s" fill="none" stroke="%s" stroke-width="1.5"/>`+"\n", strings.Join(path, " "), colour)
		y := top + 10 + 20*float64(n)
		fmt.Fprintf(&out, `<rect x="%d" y="%.1f" width="12" height="12" fill="%s"/>`+"\n", width-right+20, y, colour)
		text(width-right+38, y+10, "start", s.name)
	}
	out.WriteString("</svg>\n")
	return out.String()
}

// linearTicks are round numbers from 0 to the most and beyond.
func linearTicks(most float64) (ticks []float64) {
	step := math.Pow(10, math.Floor(math.Log10(most)))
	for _, part := range []float64{0.2, 0.5, 1, 2} {
		if most/(step*part) <= 6 {
			step *= part
			break
		}
	}
	for v := 0.0; ; v += step {
		ticks = append(ticks, v)
		if v >= most {
			return ticks
		}
	}
}

// logTicks are 1, 2, 5 and their tens from below the least to beyond the most.
func logTicks(least, most float64) (ticks []float64) {
	for decade := math.Pow(10, math.Floor(math.Log10(least))); ; decade *= 10 {
		for _, part := range []float64{1, 2, 5} {
			v := decade * part
			if v*2.5 < least {
				continue
			}
			ticks = append(ticks, v)
			if v >= most && len(ticks) > 1 {
				return ticks
			}
		}
	}
}

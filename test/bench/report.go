package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"text/tabwriter"
	"time"
)

// report is everything that was measured.
type report struct {
	options
	Began   time.Time
	Results []result
}

func (r *report) add(one result) { r.Results = append(r.Results, one) }

// spread is what several measurements of one thing gave.
type spread struct{ Median, Min, Max float64 }

func spreadOf(values []float64) spread {
	if len(values) == 0 {
		return spread{}
	}
	slices.Sort(values)
	n := len(values)
	return spread{(values[(n-1)/2] + values[n/2]) / 2, values[0], values[n-1]}
}

func (s spread) format(digits int) string {
	if s.Min == s.Max {
		return fmt.Sprintf("%.*f", digits, s.Median)
	}
	return fmt.Sprintf("%.*f (%.*f..%.*f)", digits, s.Median, digits, s.Min, digits, s.Max)
}

// line is all measurements of one thing.
type line struct {
	scenario, name, contender, phase string
	results                          []result
}

func (l *line) spread(value func(*result) float64) spread {
	var values []float64
	for i := range l.results {
		values = append(values, value(&l.results[i]))
	}
	return spreadOf(values)
}

// lines groups the results, in the order in which they came.
func (r *report) lines() (lines []*line) {
	for _, one := range r.Results {
		i := slices.IndexFunc(lines, func(l *line) bool {
			return cmp.Or(cmp.Compare(l.scenario, one.Scenario), cmp.Compare(l.name, one.Case), cmp.Compare(l.contender, one.Contender), cmp.Compare(l.phase, one.Phase)) == 0
		})
		if i < 0 {
			i = len(lines)
			lines = append(lines, &line{scenario: one.Scenario, name: one.Case, contender: one.Contender, phase: one.Phase})
		}
		lines[i].results = append(lines[i].results, one)
	}
	return lines
}

// print prints medians, and what they come to beside each other.
func (r *report) print(out io.Writer) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "scenario\tcontender\tphase\trows/s\tto the last applied\tfirst row, s\tclient CPU s/M\tPostgreSQL\tbroker\tWAL B/row\tMB")
	for _, l := range r.lines() {
		fmt.Fprintf(w, "%s %s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", l.scenario, l.name, l.contender, l.phase,
			l.spread(func(r *result) float64 { return r.Rate }).format(0),
			l.spread(func(r *result) float64 { return r.Applied }).format(0),
			l.spread(func(r *result) float64 { return r.First }).format(2),
			l.spread(func(r *result) float64 { return r.Client }).format(1),
			l.spread(func(r *result) float64 { return r.Postgres }).format(1),
			l.spread(func(r *result) float64 { return r.Broker }).format(1),
			l.spread(func(r *result) float64 { return r.WAL }).format(0),
			l.spread(func(r *result) float64 { return r.Memory }).format(0))
	}
	w.Flush()
}

func (r *report) write(file string) error {
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(text, '\n'), 0o644)
}

package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
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

// taker returns what takes down the results of one turn.
func (r *report) taker(scenario, name string, turn int) func(result) {
	return func(one result) {
		one.Scenario, one.Case, one.Turn = scenario, name, turn
		r.add(one)
		say("%s %s %d/%d: %s", scenario, name, turn+1, r.repeat, one.line())
	}
}

func rateOf(r *result) float64 { return r.Rate }

// values returns a number of all results of one thing, in the order of turns.
func (r *report) values(scenario, name, contender, phase string, value func(*result) float64) (values []float64) {
	for i := range r.Results {
		if one := &r.Results[i]; one.Scenario == scenario && one.Case == name && one.Contender == contender && one.Phase == phase {
			values = append(values, value(one))
		}
	}
	return values
}

// spread is what several measurements of one thing gave.
type spread struct{ Median, Min, Max float64 }

func spreadOf(values []float64) spread {
	if len(values) == 0 {
		return spread{}
	}
	values = slices.Sorted(slices.Values(values))
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

// columns are what is told of each thing that was measured.
var columns = []struct {
	name   string
	digits int
	value  func(*result) float64
}{
	{"rows/s", 0, rateOf},
	{"to the last applied", 0, func(r *result) float64 { return r.Applied }},
	{"start to end", 0, func(r *result) float64 { return r.Whole }},
	{"first row, s", 2, func(r *result) float64 { return r.First }},
	{"p50, ms", 1, func(r *result) float64 { return r.P50 * 1e3 }},
	{"p99, ms", 1, func(r *result) float64 { return r.P99 * 1e3 }},
	{"CPU s/M: client", 1, func(r *result) float64 { return r.Client }},
	{"PostgreSQL", 1, func(r *result) float64 { return r.Postgres }},
	{"broker", 1, func(r *result) float64 { return r.Broker }},
	{"WAL B/row", 0, func(r *result) float64 { return r.WAL }},
	{"peak MB", 0, func(r *result) float64 { return r.Memory }},
}

// print prints medians, and what they come to beside each other.
func (r *report) print(out io.Writer) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprint(w, "scenario\tcontender\tphase")
	for _, c := range columns {
		fmt.Fprint(w, "\t", c.name)
	}
	fmt.Fprintln(w)
	for _, l := range r.lines() {
		fmt.Fprintf(w, "%s\t%s\t%s", strings.TrimSpace(l.scenario+" "+l.name), l.contender, l.phase)
		for _, c := range columns {
			if s := l.spread(c.value); s.Max == 0 {
				fmt.Fprint(w, "\t")
			} else {
				fmt.Fprint(w, "\t", s.format(c.digits))
			}
		}
		fmt.Fprintln(w)
	}
	_ = w.Flush() // to a terminal or a file of ours
	if goals := append(r.compared(), r.goals()...); len(goals) > 0 && !r.quick {
		fmt.Fprintln(out)
		printGoals(out, goals)
	}
}

// write writes it all as JSON.
func (r *report) write(file string) error {
	text, err := json.MarshalIndent(struct {
		*report
		Arguments []string
		Machine   string
		Goals     []goal
	}{r, os.Args[1:], fmt.Sprintf("%s/%s, %d cores", runtime.GOOS, runtime.GOARCH, runtime.NumCPU()), r.goals()}, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(text, '\n'), 0o644)
}

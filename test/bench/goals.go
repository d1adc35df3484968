package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
)

// goal is one of the ratios (or times, or sizes) that are to be reached.
type goal struct {
	What string
	Want string
	Got  spread
	Unit string `json:",omitempty"`
	Met  bool

	digits int
}

// goals returns those of which enough was measured.
func (r *report) goals() (goals []goal) {
	add := func(what string, values []float64, atLeast bool, want float64, unit string) {
		if len(values) == 0 {
			return
		}
		g := goal{What: what, Got: spreadOf(values), Unit: unit, digits: 2}
		sign := "at most"
		if g.Met = g.Got.Median <= want; atLeast {
			sign, g.Met = "at least", g.Got.Median >= want
		}
		if want >= 100 {
			g.digits = 0
		}
		g.Want = strings.TrimSpace(fmt.Sprintf("%s %g %s", sign, want, unit))
		goals = append(goals, g)
	}
	standard := func(contender, phase string) []float64 { return r.values(rate, "", contender, phase, rateOf) }
	for _, phase := range []string{fresh, existing} {
		add("learnsink : the bare database, "+phase, ratios(standard(learnsink, phase), standard(r.best(bare, phase), phase)), true, 0.7, "")
	}
	for _, phase := range []string{fresh, existing} {
		add("learnsink : Debezium at its best, "+phase, ratios(standard(learnsink, phase), standard(debezium, phase)), true, 3, "")
	}
	for _, phase := range []string{fresh, existing} {
		add("learnsink : the usual consumer, "+phase, ratios(standard(learnsink, phase), standard(usual, phase)), true, 25, "")
	}
	at := func(scenario, name string) []float64 { return r.values(scenario, name, learnsink, fresh, rateOf) }
	add("50 % bad rows : 2 %", ratios(at(bad, "0.5"), at(bad, "0.02")), true, 0.6, "")
	add("rows that change nothing : rows that do", ratios(standard(learnsink, replay), standard(learnsink, existing)), true, 1.3, "")
	for _, scenario := range []string{catalogue, table} {
		cases := r.cases(scenario, learnsink)
		for i := 1; i < len(cases); i++ {
			// Within 25 % of each other: the slower is at least 0.8 of the faster.
			add(fmt.Sprintf("%s %s and %s, the slower : the faster", scenario, cases[i-1], cases[i]), apart(at(scenario, cases[i-1]), at(scenario, cases[i])), true, 0.8, "")
		}
		if len(cases) > 2 {
			first, last := cases[0], cases[len(cases)-1]
			add(fmt.Sprintf("%s %s and %s, the slower : the faster", scenario, first, last), apart(at(scenario, first), at(scenario, last)), true, 0.8, "")
		}
	}
	for _, scenario := range []string{partitions, processes} {
		cases := r.cases(scenario, learnsink)
		for i := 1; i < len(cases); i++ {
			// No worse; what lies within the noise is no worse.
			add(fmt.Sprintf("%s %s : %s", cases[i], scenario, cases[i-1]), ratios(at(scenario, cases[i]), at(scenario, cases[i-1])), true, 0.95, "")
		}
	}
	for _, phase := range []string{fresh, existing} {
		add("client CPU per million rows, "+phase, r.values(rate, "", learnsink, phase, func(r *result) float64 { return r.Client }), false, 8, "s")
	}
	var memory []float64
	for _, phase := range []string{fresh, existing, replay} {
		memory = append(memory, r.values(rate, "", learnsink, phase, func(r *result) float64 { return r.Memory })...)
	}
	add("resident memory, at its peak", memory, false, 250, "MB")
	add("resident memory of a soak, at its peak", r.values(soak, "", learnsink, "peak", func(r *result) float64 { return r.Memory }), false, 250, "MB")
	add("start of the process to the first row applied", r.values(rate, "", learnsink, fresh, func(r *result) float64 { return r.First }), false, 2, "s")
	for _, phase := range []string{"in the table", "read_committed"} {
		p50, p99 := func(r *result) float64 { return r.P50 * 1e3 }, func(r *result) float64 { return r.P99 * 1e3 }
		add("latency at a tenth of the full rate, "+phase+", p50", r.values(latency, "10 %", learnsink, phase, p50), false, 60, "ms")
		add("latency at a tenth of the full rate, "+phase+", p99", r.values(latency, "10 %", learnsink, phase, p99), false, 250, "ms")
		add("latency at 70 %, "+phase+", p99", r.values(latency, "70 %", learnsink, phase, p99), false, 1000, "ms")
	}
	for _, phase := range []string{checkDatabase, checkFiles} {
		add("check, "+phase, r.values(check, "", learnsink, phase, rateOf), true, 300_000, "rows/s")
	}
	for _, name := range []string{copyIndexed, copyBare} {
		add("catalog load : "+name, ratios(r.values(loading, "", learnsink, "", rateOf), r.values(loading, "", name, "", rateOf)), true, 0.6, "")
	}
	add("send : kafka-go's Writer", ratios(r.values(sending, "", learnsink, "", rateOf), r.values(sending, "", r.bestOf(sending, "", []string{writerPlain, writerZstd}), "", rateOf)), true, 0.5, "")
	add("tracking_report of one session, 20M rows there", r.values(table, number(manyRows), "tracking_report", "one session", func(r *result) float64 { return r.P50 }), false, 1, "s")
	return goals
}

// compared returns how this build did beside the others.
func (r *report) compared() (out []goal) {
	var others []string
	for _, text := range r.binaries {
		name, _, _ := strings.Cut(text, "=")
		others = append(others, name)
	}
	for _, l := range r.lines() {
		if !slices.Contains(others, l.contender) {
			continue
		}
		what := strings.Join(strings.Fields(strings.Join([]string{l.scenario, l.name, l.phase}, " ")), " ") + ", "
		for name, value := range map[string]func(*result) float64{"rows/s": rateOf, "CPU of the client": func(r *result) float64 { return r.Client }, "CPU of PostgreSQL": func(r *result) float64 { return r.Postgres }} {
			values := ratios(r.values(l.scenario, l.name, learnsink, l.phase, value), r.values(l.scenario, l.name, l.contender, l.phase, value))
			if len(values) > 0 {
				out = append(out, goal{What: what + name + ": learnsink : " + l.contender, Got: spreadOf(values), digits: 2})
			}
		}
	}
	slices.SortFunc(out, func(a, b goal) int { return cmp.Compare(a.What, b.What) })
	return out
}

// ratios pairs measurements by their turns.
func ratios(a, b []float64) (ratios []float64) {
	for i := range min(len(a), len(b)) {
		if b[i] > 0 {
			ratios = append(ratios, a[i]/b[i])
		}
	}
	return ratios
}

// apart is the smaller by the larger of each turn.
func apart(a, b []float64) (out []float64) {
	for i := range min(len(a), len(b)) {
		out = append(out, min(a[i], b[i])/max(a[i], b[i]))
	}
	return out
}

// best is the contender, of those whose names begin so, with the best median.
func (r *report) best(prefix, phase string) string {
	var names []string
	for i := range r.Results {
		if name := r.Results[i].Contender; strings.HasPrefix(name, prefix) && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return r.bestOf(rate, phase, names)
}

func (r *report) bestOf(scenario, phase string, names []string) string {
	if len(names) == 0 {
		return ""
	}
	return slices.MaxFunc(names, func(a, b string) int {
		return cmp.Compare(spreadOf(r.values(scenario, "", a, phase, rateOf)).Median, spreadOf(r.values(scenario, "", b, phase, rateOf)).Median)
	})
}

// cases are those of a scenario, in their order.
func (r *report) cases(scenario, contender string) (cases []string) {
	for i := range r.Results {
		if one := &r.Results[i]; one.Scenario == scenario && one.Contender == contender && !slices.Contains(cases, one.Case) {
			cases = append(cases, one.Case)
		}
	}
	return cases
}

func printGoals(out io.Writer, goals []goal) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "what\tgoal\treached\t")
	for _, g := range goals {
		verdict := "met"
		switch {
		case g.Want == "":
			verdict = ""
		case !g.Met:
			verdict = "missed"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", g.What, g.Want, strings.TrimSpace(g.Got.format(g.digits)+" "+g.Unit), verdict)
	}
	_ = w.Flush() // to a terminal or a file of ours
}

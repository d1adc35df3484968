package main

import (
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"learnsink/test/oracle"
)

// report is what a run has come to.
type report struct {
	options
	began time.Time

	mu         sync.Mutex
	broken     []string // promises, in words
	more       int
	harness    error // nothing may be concluded
	recoveries []recovery

	calm        flood
	floods      []flood
	strikes     []strike
	sent        tally
	rest        time.Duration
	found       *oracle.Findings
	again       map[string]int
	batches     int
	zombies     []line
	early, late takes
	most        takes
	logs        *logs
	desk        *desk
	deadlocks   int64
	looks, back int // at the positions; and how many had gone back
}

func newReport(o options) *report { return &report{options: o, began: time.Now()} }

// faultf notes a broken promise.
func (r *report) faultf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	text := fmt.Sprintf(format, args...)
	say("BROKEN: %s", text)
	if len(r.broken) == 100 {
		r.more++
		return
	}
	r.broken = append(r.broken, text)
}

func (r *report) recovered(v recovery) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.recoveries = append(r.recoveries, v)
}

func (r *report) unverified(err error) { r.harness = err }

// judge adds up what is broken by what was found.
func (r *report) judge() (broken, missed []string) {
	broken = slices.Clone(r.broken)
	if r.more > 0 {
		broken = append(broken, fmt.Sprintf("and %d more", r.more))
	}
	if r.harness != nil {
		return broken, nil
	}
	broken = append(broken, r.found.Faults...)
	if r.found.More > 0 {
		broken = append(broken, fmt.Sprintf("and the oracle found %d more", r.found.More))
	}
	for _, f := range r.kinds() {
		if !slices.ContainsFunc(r.strikes, func(s strike) bool { return s.fault == f }) {
			broken = append(broken, fmt.Sprintf("the fault %q never came: give it more minutes", f.name))
		}
	}
	for _, line := range r.logs.private {
		broken = append(broken, "personal data in a log: "+line[:min(len(line), 400)])
		if len(broken) > 200 {
			break
		}
	}
	if r.logs.lost > 0 { // nobody moves positions here: it took its own COMMIT for one that was not done
		broken = append(broken, fmt.Sprintf("an owner lost track of its own COMMIT, %d times", r.logs.lost))
	}
	for _, line := range r.logs.crashes {
		broken = append(broken, "a process has crashed: "+line)
	}
	for what, times := range r.byRecovery() {
		if p99 := percentile(times, 0.99); p99 > goalOf(r.recoveries, what) {
			missed = append(missed, fmt.Sprintf("%s: %s at p99, %s was to be the most", what, p99.Round(time.Millisecond), goalOf(r.recoveries, what)))
		}
	}
	if ratio, ok := r.ratio(); ok && ratio < 0.5 {
		missed = append(missed, fmt.Sprintf("throughput under chaos is %.0f %% of the calm, half was to be the least", 100*ratio))
	}
	return broken, missed
}

func (r *report) byRecovery() map[string][]time.Duration {
	by := map[string][]time.Duration{}
	for _, v := range r.recoveries {
		by[v.of] = append(by[v.of], v.took)
	}
	return by
}

func goalOf(all []recovery, of string) time.Duration {
	for _, v := range all {
		if v.of == of {
			return v.goal
		}
	}
	return 0
}

// goalMinutes is how long a run is of which goals of time can be asked: a p99
// of three times is none.
const goalMinutes = 20

// ratio is the throughput of the floods amid faults to that of the calm.
func (r *report) ratio() (float64, bool) {
	var all flood
	for _, f := range r.floods {
		all.rows += f.rows
		all.took += f.took
	}
	if all.took == 0 || r.calm.rows == 0 {
		return 0, false
	}
	return all.rate() / r.calm.rate(), true
}

func (r *report) code() int {
	if r.harness != nil {
		return unverified
	}
	bad, missed := r.judge()
	if len(bad) > 0 || len(missed) > 0 && r.minutes >= goalMinutes {
		return broken
	}
	return kept
}

// markdown is the report for people.
func (r *report) markdown() string {
	var b strings.Builder
	p := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	bad, missed := r.judge()
	verdict := "every promise was kept"
	switch {
	case r.harness != nil:
		verdict = "UNVERIFIED: nothing may be concluded"
	case len(bad) > 0:
		verdict = "a promise was BROKEN"
	case len(missed) > 0:
		verdict = "every promise was kept, a goal was missed"
	}
	p("# Chaos: %s\n", verdict)
	p("Seed %d, %s of %g minutes, %d processes, publish %s, %d rows/s and floods, %s/%s with %d CPUs, %s.", r.seed, time.Since(r.began).Round(time.Second), r.minutes,
		r.processes, r.publish, r.rate, runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), r.began.UTC().Format(time.RFC3339))
	if r.mutant != "" || r.overlay != "" {
		p("\nThe binary is not the repository's: mutant %q, overlay %s.", r.mutant, r.overlay)
	}
	p("\nAgain: `go run ./test/chaos --minutes %g --seed %d --rate %d --processes %d --publish %s`", r.minutes, r.seed, r.rate, r.processes, r.publish)
	if r.harness != nil {
		p("\n**Unverified:** %v", r.harness)
	}
	itemize := func(title string, list []string) {
		if len(list) > 0 {
			p("\n## %s\n", title)
		}
		for _, text := range list {
			p("- %s", strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n  "))
		}
	}
	itemize("Broken", bad)
	itemize("Missed goals", missed)
	if len(missed) > 0 && r.minutes < goalMinutes {
		p("\nA run of less than %d minutes does not fail for it: its figures are too few.", goalMinutes)
	}
	r.faultTable(p)
	if r.harness != nil {
		return b.String()
	}
	r.outcome(p)
	r.recoveryTable(p)
	r.figures(p)
	return b.String()
}

func (r *report) faultTable(p func(string, ...any)) {
	p("\n## Faults: %d\n\n| fault | times | how |\n|---|--:|---|", len(r.strikes))
	for _, f := range r.kinds() {
		times := 0
		for _, s := range r.strikes {
			if s.fault == f {
				times++
			}
		}
		p("| %s | %d | %s |", f.name, times, f.how)
	}
}

func (r *report) outcome(p func(string, ...any)) {
	t := r.sent
	p("\n## What came of it\n")
	p("%d rows were sent in %d batches, of which %d were transactions (%d aborted, %d failed: what became of them is in the log); rows by compression: %s.", t.Rows, t.Batches,
		t.Transactions, t.Aborted, t.Failed, counts(t.Compression))
	if t.Last != nil {
		p("The last failure of the sender: %v.", t.Last)
	}
	p("%d records were committed to the sources, and each has its one outcome, unless it is named above.\n", r.found.Records)
	p("| promise | found |\n|---|--:|")
	p("| tables, bookkeeping and outputs that are not the model's, records lost, wrong or there twice | %d |", len(r.found.Faults)+r.found.More)
	p("| positions or epochs that went back, in %d looks | %d |", r.looks, r.back)
	p("| zombie writes accepted, in %d batches | %d |", r.batches, len(r.zombies))
	p("| attempts of zombies fenced off, by the logs | %d |", r.logs.fenced)
	p("| COMMITs that their owner lost track of, by the logs | %d |", r.logs.lost)
	p("| deadlocks, as PostgreSQL counts them | %d |", r.deadlocks)
	p("| outputs there again, to a read_committed reader | %s |", counts(r.found.Repeats))
	p("| outputs there again, to a read_uncommitted reader | %s |", counts(r.again))
	p("| log lines with personal data, of %d | %d |", r.logs.lines, len(r.logs.private))
	p("| lag zero and outbox empty after the last fault | %s |", r.rest.Round(10*time.Millisecond))
	if r.desk != nil {
		r.desk.table(p)
	}
}

func (r *report) recoveryTable(p func(string, ...any)) {
	p("\n## Recoveries\n\n| recovery | times | p50 | p99 | max | goal at p99 |\n|---|--:|--:|--:|--:|--:|")
	by := r.byRecovery()
	for _, what := range slices.Sorted(maps.Keys(by)) {
		times := by[what]
		p("| %s | %d | %s | %s | %s | %s |", what, len(times), seconds(percentile(times, 0.5)), seconds(percentile(times, 0.99)), seconds(slices.Max(times)), seconds(goalOf(r.recoveries, what)))
	}
	p("\nTaken over: from SIGKILL until another process has claimed it, for every partition that the dead one owned. " +
		"Back: from the server's answer (the broker: the ends of all topics, and the group's offsets) to the next line of the ledger, and to the next committed event.")
}

func (r *report) figures(p func(string, ...any)) {
	p("\n## Figures\n")
	p("| throughput with a backlog | rows/s |\n|---|--:|")
	p("| calm | %.0f |", r.calm.rate())
	for i, f := range r.floods {
		p("| flood %d, amid faults | %.0f |", i+1, f.rate())
	}
	if ratio, ok := r.ratio(); ok {
		p("| floods to calm | %.0f %% |", 100*ratio)
	}
	p("\nA flood: for %s the sender keeps up to %d rows ahead of learnsink, as far as the broker lets it; faults go on, times without broker or database count in full.", floodTime, backlog)
	p("\n| of one process that lives from beginning to end | early | late | most of any |\n|---|--:|--:|--:|")
	p("| memory, MiB | %.0f | %.0f | %.0f |", r.early.memory/megabyte, r.late.memory/megabyte, r.most.memory/megabyte)
	p("| goroutines | %.0f | %.0f | %.0f |", r.early.goroutines, r.late.goroutines, r.most.goroutines)
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.2f s", d.Seconds()) }

// counts shows numbers by name, and 0 where there are none.
func counts(of map[string]int) string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(of)) {
		all = append(all, fmt.Sprintf("%s %d", name, of[name]))
	}
	if len(all) == 0 {
		return "0"
	}
	return strings.Join(all, ", ")
}

package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// Contenders.
const (
	learnsink = "learnsink"
	bare      = "bare"
	usual     = "usual" // a row at a time
	batch     = "batch" // the same with pgx.Batch
	debezium  = "debezium"
)

var contenders = []string{learnsink, bare, usual, batch, debezium}

// Scenarios.
const (
	rate       = "rate"
	bad        = "bad"
	catalogue  = "catalogue"
	table      = "table"
	partitions = "partitions"
	processes  = "processes"
	latency    = "latency"
	check      = "check"
	loading    = "load"
	sending    = "send"
	soak       = "soak" // only where it is asked for: it takes what --soak says
)

var scenarios = []string{rate, bad, catalogue, table, partitions, processes, latency, check, loading, sending, soak}

// wants says whether a contender or a scenario was asked for.
func (o *options) wants(name string) bool {
	asked := func(kind []string) bool {
		return slices.ContainsFunc(o.only, func(n string) bool { return slices.Contains(kind, n) })
	}
	switch {
	case slices.Contains(o.only, name):
		return true
	case name == debezium:
		return o.debezium && !asked(contenders)
	case name == soak:
		return false
	case slices.Contains(contenders, name):
		return !asked(contenders)
	case name == rate:
		return !asked(scenarios)
	}
	return len(o.only) == 0
}

// standard is the load that the command line describes.
func (o *options) standard() load {
	return load{set: set{world: world{o.catalogue}, rows: o.rows, partitions: o.parts, bad: o.bad, seed: o.seed}, tableRows: o.tableRows, processes: o.processes}
}

// cell is one case of a scenario: a load, and who carries it.
type cell struct {
	name   string
	load   load
	whom   []string
	phases []string
}

// measure measures what was asked for.
func (b *bench) measure(ctx context.Context, into *report) error {
	for _, s := range []struct {
		name    string
		measure func(context.Context, *report) error
	}{
		{rate, b.rate}, {bad, b.badShares}, {partitions, b.partitionCounts}, {processes, b.processCounts}, {latency, b.latencies}, {check, b.checks}, {loading, b.loads},
		{sending, b.sends}, {catalogue, b.catalogueSizes}, {table, b.tableSizes}, {soak, b.soaks},
	} {
		if !b.wants(s.name) {
			continue
		}
		if err := s.measure(ctx, into); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return nil
}

func (b *bench) rate(ctx context.Context, report *report) error {
	return b.turns(ctx, report, rate, []cell{{"", b.standard(), contenders, b.phases}})
}

// varied are cells that differ in one number. It is learnsink that is looked
// at, with rows that are new.
func varied(standard load, values []float64, set func(l *load, value float64)) (cells []cell) {
	for _, v := range values {
		l := standard
		set(&l, v)
		cells = append(cells, cell{number(v), l, []string{learnsink}, []string{fresh}})
	}
	return cells
}

// number writes a number shortly: 20M, 100k, 0.5.
func number(v float64) string {
	switch {
	case v >= 1e6:
		return fmt.Sprintf("%gM", v/1e6)
	case v >= 1e3:
		return fmt.Sprintf("%gk", v/1e3)
	}
	return fmt.Sprintf("%g", v)
}

func (b *bench) badShares(ctx context.Context, report *report) error {
	values := []float64{0.02, 0.5}
	if b.quick {
		values = values[1:]
	}
	return b.turns(ctx, report, bad, varied(b.standard(), values, func(l *load, v float64) { l.bad = v }))
}

func (b *bench) partitionCounts(ctx context.Context, report *report) error {
	values := []float64{1, 4, 12}
	if b.quick {
		values = []float64{3}
	}
	return b.turns(ctx, report, partitions, varied(b.standard(), values, func(l *load, v float64) { l.partitions = int(v) }))
}

func (b *bench) processCounts(ctx context.Context, report *report) error {
	values := []float64{1, 2, 4}
	if b.quick {
		values = []float64{2}
	}
	return b.turns(ctx, report, processes, varied(b.standard(), values, func(l *load, v float64) { l.processes = int(v) }))
}

func (b *bench) catalogueSizes(ctx context.Context, report *report) error {
	n := float64(b.catalogue)
	values := []float64{n / 10, n, n * 10}
	if b.quick {
		values = []float64{n / 10}
	}
	defer b.dropTemplates(context.WithoutCancel(ctx), b.standard())
	return b.turns(ctx, report, catalogue, varied(b.standard(), values, func(l *load, v float64) { l.learners = int(v) }))
}

// manyRows is the largest table.
const manyRows = 20_000_000

func (b *bench) tableSizes(ctx context.Context, report *report) error {
	values := []float64{0, float64(b.tableRows), manyRows}
	if b.quick {
		values = values[:1]
	}
	cells := varied(b.standard(), values, func(l *load, v float64) { l.tableRows = int(v) })
	for i := range cells {
		cells[i].whom, cells[i].phases = []string{learnsink, bare}, []string{fresh, existing}
	}
	defer b.dropTemplates(context.WithoutCancel(ctx), b.standard())
	if err := b.turns(ctx, report, table, cells); err != nil {
		return err
	}
	return b.readReport(ctx, report, cells[len(cells)-1].load)
}

// readReport measures what somebody waits for who looks at one session.
func (b *bench) readReport(ctx context.Context, report *report, l load) error {
	template, err := b.template(ctx, b.builds[0], l.world, l.tableRows)
	if err != nil {
		return err
	}
	url, err := b.url(template)
	if err != nil {
		return err
	}
	db, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	defer db.Close(context.WithoutCancel(ctx))
	for i := range 3 * b.repeat { // another session each time: nothing of it is in memory
		started, rows := time.Now(), 0
		found, err := db.Query(ctx, "SELECT * FROM learnsink.tracking_report WHERE session_id = $1", firstSession+i*7%l.sessions())
		if err != nil {
			return err
		}
		for found.Next() {
			rows++
		}
		if found.Err() != nil {
			return found.Err()
		}
		took := time.Since(started).Seconds()
		report.add(result{Scenario: table, Case: number(float64(l.tableRows)), Contender: "tracking_report", Phase: "one session", Rows: rows, P50: took, P99: took})
	}
	return nil
}

// loadShares are the shares of the full rate at which latency is measured.
var loadShares = []float64{0.1, 0.3, 0.5, 0.7, 0.9}

func (b *bench) latencies(ctx context.Context, report *report) error {
	l, lasting, shares := b.standard(), 30*time.Second, loadShares
	if b.quick {
		lasting, shares = 3*time.Second, loadShares[:1]
	}
	full, err := b.fullRate(ctx, report, l)
	if err != nil {
		return err
	}
	if b.quick {
		full = 10_000
	}
	for n := range b.repeat {
		for _, share := range shares {
			for _, build := range b.builds {
				stored, read, err := b.latency(ctx, build, l, share*full, lasting)
				if err != nil {
					return fmt.Errorf("at %.0f %% of %.0f rows/s: %w", share*100, full, err)
				}
				for _, r := range []result{stored, read} {
					r.Scenario, r.Case, r.Turn = latency, fmt.Sprintf("%.0f %%", share*100), n
					report.add(r)
					say("latency at %s %d/%d: %s", r.Case, n+1, b.repeat, r.line())
				}
			}
		}
	}
	return nil
}

// fullRate is the median of what was measured already, or else a measurement.
func (b *bench) fullRate(ctx context.Context, report *report, l load) (float64, error) {
	if s := spreadOf(report.values(rate, "", learnsink, fresh, rateOf)); s.Median > 0 {
		return s.Median, nil
	}
	if b.quick {
		return 0, nil
	}
	var full float64
	err := b.runLearnsink(ctx, b.builds[0], l, []string{fresh}, func(r result) { full = r.Rate })
	return full, err
}

func (b *bench) checks(ctx context.Context, report *report) error {
	l := b.standard()
	return b.builders(report, check, func(build build, take func(result)) error { return b.check(ctx, build, l, take) })
}

func (b *bench) loads(ctx context.Context, report *report) error {
	return b.builders(report, loading, func(build build, take func(result)) error { return b.catalogLoad(ctx, build, world{b.catalogue}, take) })
}

func (b *bench) sends(ctx context.Context, report *report) error {
	return b.builders(report, sending, func(build build, take func(result)) error { return b.send(ctx, build, b.standard(), take) })
}

// builders measures something of each build, again and again.
func (b *bench) builders(report *report, scenario string, measure func(build build, take func(result)) error) error {
	for n := range b.repeat {
		for _, build := range b.builds {
			if err := measure(build, report.taker(scenario, "", n)); err != nil {
				return err
			}
		}
	}
	return nil
}

// turns measures the cells and their contenders in turns, again and again.
func (b *bench) turns(ctx context.Context, report *report, scenario string, cells []cell) error {
	for n := range b.repeat {
		for _, c := range cells {
			for _, contender := range c.whom {
				if !b.wants(contender) {
					continue
				}
				if err := b.contend(ctx, contender, c.load, c.phases, report.taker(scenario, c.name, n)); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// Those who write a row at a time, or a thousand, get fewer rows: else the
// bench would take all day.
const (
	usualRows = 10_000
	batchRows = 300_000
)

// contend measures one contender.
func (b *bench) contend(ctx context.Context, contender string, l load, phases []string, take func(result)) error {
	switch contender {
	case learnsink:
		for _, build := range b.builds {
			if err := b.runLearnsink(ctx, build, l, phases, take); err != nil {
				return err
			}
		}
	case bare:
		for _, size := range b.bareBatch {
			if err := b.runBare(ctx, size, l, phases, take); err != nil {
				return err
			}
		}
	case usual:
		s := l.set
		s.rows = min(s.rows, usualRows)
		if b.quick {
			s.rows = 1_000
		}
		return b.runPlain(ctx, usual, b.usual(1), s, phases, take)
	case batch:
		s := l.set
		s.rows = min(s.rows, batchRows)
		return b.runPlain(ctx, batch, b.usual(1_000), s, phases, take)
	case debezium:
		return b.runPlain(ctx, debezium, b.connectDebezium, l.set, phases, take)
	}
	return nil
}

func (r *result) line() string {
	var out strings.Builder
	fmt.Fprintf(&out, "%s: %.0f rows/s", strings.TrimSuffix(r.Contender+", "+r.Phase, ", "), r.Rate)
	if r.P99 > 0 {
		fmt.Fprintf(&out, "; p50 %.1f ms, p99 %.1f ms", r.P50*1e3, r.P99*1e3)
	}
	if r.First > 0 {
		fmt.Fprintf(&out, "; first after %.2f s", r.First)
	}
	fmt.Fprintf(&out, "; CPU s/M: client %.1f, PostgreSQL %.1f, broker %.1f; WAL %.0f B/row", r.Client, r.Postgres, r.Broker, r.WAL)
	if r.Memory > 0 {
		fmt.Fprintf(&out, "; %.0f MB", r.Memory)
	}
	return out.String()
}

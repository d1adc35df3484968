package main

import (
	"context"
	"fmt"
	"slices"
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
const rate = "rate"

var scenarios = []string{rate}

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

// measure measures what was asked for.
func (b *bench) measure(ctx context.Context, report *report) error {
	if b.wants(rate) {
		if err := b.turns(ctx, report, rate, "", b.standard(), b.phases, contenders); err != nil {
			return err
		}
	}
	return nil
}

// turns measures the contenders in turns, again and again.
func (b *bench) turns(ctx context.Context, report *report, scenario, name string, l load, phases, whom []string) error {
	for n := range b.repeat {
		take := func(r result) {
			r.Scenario, r.Case = scenario, name
			report.add(r)
			say("%s %s %d/%d: %s", scenario, name, n+1, b.repeat, r.line())
		}
		for _, contender := range whom {
			if b.wants(contender) {
				if err := b.contend(ctx, contender, l, phases, take); err != nil {
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
	return fmt.Sprintf("%s, %s: %.0f rows/s, first after %.1f s, CPU s per million: client %.1f, PostgreSQL %.1f, broker %.1f; WAL %.0f B/row, %.0f MB",
		r.Contender, r.Phase, r.Rate, r.First, r.Client, r.Postgres, r.Broker, r.WAL, r.Memory)
}

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"
)

// A soak: learnsink under as much as it takes for as long as --soak says, and
// what it has resident meanwhile. Rows come again after a while, so that the
// table does not grow; topics forget what is old.

// lead is how many rows the sender is ahead of what is applied.
const lead = 100_000

func (b *bench) soaks(ctx context.Context, report *report) error {
	l := b.standard()
	build := b.builds[0]
	template, err := b.template(ctx, build, l.world, l.tableRows)
	if err != nil {
		return err
	}
	database, err := b.create(ctx, template)
	if err != nil {
		return err
	}
	defer b.drop(context.WithoutCancel(ctx), database)
	db, err := pgx.Connect(ctx, database)
	if err != nil {
		return err
	}
	defer db.Close(context.WithoutCancel(ctx))
	b.runs++
	run := fmt.Sprintf("%d-%d", os.Getpid(), b.runs)
	topic, accepted, deadLetter := "bench.soak."+run, "bench.accepted."+run, "bench.dead-letter."+run
	retained, segment := strconv.Itoa(512<<20), strconv.Itoa(64<<20)
	if _, err := b.admin.CreateTopics(ctx, int32(l.partitions), 1, map[string]*string{"retention.bytes": &retained, "segment.bytes": &segment}, topic, accepted, deadLetter); err != nil {
		return err
	}
	defer b.dropTopics(context.WithoutCancel(ctx), topic, accepted, deadLetter)
	config := filepath.Join(b.dir, run+".yaml")
	if err := os.WriteFile(config, []byte(b.settings(l, topic, run)), 0o644); err != nil {
		return err
	}
	records := l.set.records(min(l.rows, crowd))
	producer, err := b.producer(kgo.DefaultProduceTopic(topic), kgo.ProducerLinger(20*time.Millisecond))
	if err != nil {
		return err
	}
	defer producer.Close()
	c, err := b.serve(build, config, database, "--http", "off")
	if err != nil {
		return err
	}
	defer c.kill()
	if err := claimed(ctx, db, topic, l.partitions, c); err != nil {
		return err
	}
	meter, err := b.meter(ctx, db)
	if err != nil {
		return err
	}
	var failed error
	sent, applied, began := 0, 0, time.Now()
	next := began.Add(time.Minute)
	rows := 0 // until the last report
	for time.Since(began) < b.soakFor {
		if err := db.QueryRow(ctx, "SELECT coalesce(sum(next_offset - first_offset), 0)::bigint FROM learnsink.position WHERE topic = $1", topic).Scan(&applied); err != nil {
			return err
		}
		if err := errors.Join(c.look(), failed, ctx.Err()); err != nil {
			return err
		}
		for ; sent < applied+lead; sent++ {
			r := &records[sent%len(records)]
			producer.Produce(ctx, &kgo.Record{Key: r.key, Value: r.value}, func(_ *kgo.Record, err error) {
				if err != nil {
					failed = err
				}
			})
		}
		if err := producer.Flush(ctx); err != nil {
			return err
		}
		if now := time.Now(); now.After(next) {
			next = now.Add(time.Minute)
			minute := result{Scenario: soak, Case: fmt.Sprintf("minute %d", int(now.Sub(began).Minutes())), Contender: build.name, Phase: "resident", Rows: applied - rows,
				Rate: float64(applied-rows) / 60, Memory: float64(resident(c.cmd.Process.Pid)) / 1e6}
			rows = applied
			report.add(minute)
			say("soak, %s: %.0f rows/s, %.0f MB", minute.Case, minute.Rate, minute.Memory)
		}
	}
	whole := result{Scenario: soak, Contender: build.name, Phase: "peak", Rows: applied, Rate: float64(applied) / time.Since(began).Seconds(), Memory: c.memory}
	whole.Client = treeCPU(c.cmd.Process.Pid).Seconds() / (float64(applied) / 1e6)
	if err := meter.read(ctx, &whole, applied); err != nil {
		return err
	}
	report.add(whole)
	say("soak: %s", whole.line())
	return nil
}

// resident is what a process has resident now, in bytes.
func resident(pid int) int64 {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	f := strings.Fields(string(text))
	if len(f) < 2 {
		return 0
	}
	pages, _ := strconv.ParseInt(f[1], 10, 64)
	return pages * int64(os.Getpagesize())
}

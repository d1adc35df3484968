package main

import (
	"context"
	"fmt"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"golang.org/x/sync/errgroup"
)

// The bare database: what it takes to write the rows if nothing else is to be
// done. The good rows of the set lie ready in memory as PostgreSQL's binary
// arrays, their ids known; two connections write each its half of the keys.

// writers is how many connections write: more did not help on two cores.
const writers = 2

const bareInsert = `
INSERT INTO learnsink.tracking (registration_id, learning_object_id, status, progression, score, score_max, time_spent_seconds,
  first_access_at, last_access_at, first_completion_at, first_completion_filled_in, event_at, source_offset, source_topic, source_partition)
SELECT u.*, $1::text, $2::integer FROM unnest($3::bigint[], $4::integer[], $5::text[], $6::float8[], $7::float8[], $8::integer[], $9::bigint[],
  $10::timestamptz[], $11::timestamptz[], $12::timestamptz[], $13::boolean[], $14::timestamptz[], $15::bigint[])
  AS u(registration_id, learning_object_id, status, progression, score, score_max, time_spent_seconds,
  first_access_at, last_access_at, first_completion_at, first_completion_filled_in, event_at, source_offset)
ON CONFLICT (registration_id, learning_object_id) DO UPDATE SET status = excluded.status, progression = excluded.progression, score = excluded.score,
  score_max = excluded.score_max, time_spent_seconds = excluded.time_spent_seconds, first_access_at = excluded.first_access_at,
  last_access_at = excluded.last_access_at, first_completion_at = excluded.first_completion_at,
  first_completion_filled_in = excluded.first_completion_filled_in, event_at = excluded.event_at, source_topic = excluded.source_topic,
  source_partition = excluded.source_partition, source_offset = excluded.source_offset, updated_at = now()`

// bareColumns are the types of the arrays.
var bareColumns = []uint32{pgtype.Int8OID, pgtype.Int4OID, pgtype.TextOID, pgtype.Float8OID, pgtype.Float8OID, pgtype.Int4OID, pgtype.Int8OID,
	pgtype.TimestamptzOID, pgtype.TimestamptzOID, pgtype.TimestamptzOID, pgtype.BoolOID, pgtype.TimestamptzOID, pgtype.Int8OID}

// binaryFormats says that all parameters are binary.
var binaryFormats = []int16{1}

// bareBatches returns the arguments of each statement of each writer: batches
// of so many rows, of which the last of each key is written.
func (s set) bareBatches(size int) (batches [writers][][][]byte, good int) {
	var pending [writers][]row
	flush := func(writer int) {
		rows := pending[writer]
		last := make(map[key]int, len(rows))
		for i := range rows {
			last[rows[i].key] = i
		}
		arrays := make([]*array, len(bareColumns))
		for i, oid := range bareColumns {
			arrays[i] = newArray(oid)
		}
		for i := range rows {
			if r := &rows[i]; last[r.key] == i {
				r.appendArrays(arrays)
			}
		}
		args := [][]byte{[]byte("bare"), {0, 0, 0, byte(writer)}}
		for _, a := range arrays {
			args = append(args, a.done())
		}
		batches[writer] = append(batches[writer], args)
		pending[writer] = rows[:0]
	}
	for r := range s.all() {
		if r.fault != 0 {
			continue
		}
		good++
		// A hash, as Kafka's partitioner has one: neighbours are not together.
		writer := int(uint32(r.learner())*2654435761>>16) % writers
		if pending[writer] = append(pending[writer], *r); len(pending[writer]) == size {
			flush(writer)
		}
	}
	for writer := range writers {
		if len(pending[writer]) > 0 {
			flush(writer)
		}
	}
	return batches, good
}

// appendArrays appends the row to its columns, in the order of bareColumns.
func (r *row) appendArrays(a []*array) {
	a[0].int8(int64(r.registration + 1))
	a[1].int4(int32(r.object + 1))
	a[2].string(statuses[r.status])
	a[3].float8(r.progression)
	if r.scored {
		a[4].float8(r.score)
	} else {
		a[4].null()
	}
	a[5].int4(100)
	a[6].int8(r.timeSpent)
	a[7].time(r.first)
	a[8].time(r.last)
	a[9].time(r.completion)
	a[10].bool(false)
	a[11].time(r.at())
	a[12].int8(int64(r.number))
}

// runBare measures the bare database.
func (b *bench) runBare(ctx context.Context, size int, l load, phases []string, take func(result)) error {
	template, err := b.template(ctx, b.builds[0], l.world, l.tableRows)
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
	for _, phase := range phases {
		if phase == replay { // rows that change nothing are no rows to it: it would have to judge them
			continue
		}
		s := l.set
		if phase == existing {
			s.values++
		}
		r, err := b.writeBare(ctx, database, db, s, size)
		if err != nil {
			return fmt.Errorf("the bare database, %s: %w", phase, err)
		}
		r.Contender, r.Phase = fmt.Sprintf("%s-%d", bare, size), phase
		take(r)
	}
	return nil
}

func (b *bench) writeBare(ctx context.Context, database string, db *pgx.Conn, s set, size int) (r result, err error) {
	batches, good := s.bareBatches(size)
	var conns [writers]*pgx.Conn
	for i := range conns {
		if conns[i], err = pgx.Connect(ctx, database); err != nil {
			return r, err
		}
		defer conns[i].Close(context.WithoutCancel(ctx))
		if _, err := conns[i].PgConn().Prepare(ctx, "bare", bareInsert, nil); err != nil {
			return r, err
		}
	}
	if err := all(ctx, db, "VACUUM ANALYZE", "CHECKPOINT"); err != nil {
		return r, err
	}
	meter, err := b.meter(ctx, db)
	if err != nil {
		return r, err
	}
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // the rows in memory are no work of its
	before, started := ownCPU(), time.Now()
	var group errgroup.Group
	for i, conn := range conns {
		group.Go(func() error {
			for _, args := range batches[i] {
				if _, err := conn.PgConn().ExecPrepared(ctx, "bare", args, binaryFormats, nil).Close(); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return r, err
	}
	took := time.Since(started).Seconds()
	r.Client = (ownCPU() - before).Seconds() / (float64(good) / 1e6)
	if err := meter.read(ctx, &r, good); err != nil {
		return r, err
	}
	r.Rows, r.Rate = good, float64(good)/took
	want, _ := b.expected(s)
	return r, holds(ctx, db, want)
}

// ownCPU is what this process has taken so far.
func ownCPU() time.Duration {
	var usage syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &usage) // never fails
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

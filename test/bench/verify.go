package main

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// sum is what a table holds, in few numbers: how many rows, of which keys,
// with which values.
type sum struct{ rows, registrations, keys, values int64 }

// keyPrime keeps the sum of keys within 64 bits.
const keyPrime = 1_000_003

func (s *sum) add(k key, timeSpent int64) {
	registration, object := int64(k.registration+1), int64(k.object+1)
	s.rows++
	s.registrations += registration
	s.keys += registration * object % keyPrime
	s.values += timeSpent * object
}

// expected is what the good rows of a set leave in a table, and how many rows are bad.
func (s set) expected() (want sum, bad int64) {
	last := make(map[key]int64, s.rows)
	for r := range s.all() {
		if r.fault != 0 {
			bad++
			continue
		}
		last[r.key] = r.timeSpent
	}
	for k, timeSpent := range last {
		want.add(k, timeSpent)
	}
	return want, bad
}

// holds looks whether tracking holds what it must, beside the rows that were there before.
func holds(ctx context.Context, db *pgx.Conn, want sum) error {
	var got sum
	if err := db.QueryRow(ctx, `SELECT count(*), coalesce(sum(registration_id), 0)::bigint, coalesce(sum(registration_id * learning_object_id % $2), 0)::bigint,
		coalesce(sum(time_spent_seconds * learning_object_id), 0)::bigint FROM learnsink.tracking WHERE source_topic <> $1`, filler, keyPrime).
		Scan(&got.rows, &got.registrations, &got.keys, &got.values); err != nil {
		return err
	}
	if got != want {
		return fmt.Errorf("the table does not hold what it must: %+v, and not %+v", got, want)
	}
	return nil
}

// expected is what a set leaves; it is worked out once.
func (b *bench) expected(s set) (want sum, bad int64) {
	e, ok := b.expectations[s]
	if !ok {
		e.want, e.bad = s.expected()
		b.expectations[s] = e
	}
	return e.want, e.bad
}

type expectation struct {
	want sum
	bad  int64
}

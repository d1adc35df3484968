package main

import (
	"encoding/json"
	"iter"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgtype"
)

var small = set{world: world{1_000}, rows: 20_000, partitions: 4, bad: 0.1, seed: 7}

func TestRows(t *testing.T) {
	other := small
	other.values++
	var keys []key
	size, good, repeated, changed := 0, 0, 0, 0
	seen := map[key]bool{}
	for r := range small.all() {
		if seen[r.key] {
			repeated++
		}
		seen[r.key] = true
		keys = append(keys, r.key)
		if r.fault != 0 {
			continue
		}
		good++
		text := r.append(nil, small.world)
		size += len(text)
		for _, form := range [][]byte{text, r.appendPlain(nil, small.world)} {
			if !json.Valid(form) {
				t.Fatalf("no JSON: %s", form)
			}
		}
	}
	i := 0
	next, stop := iter.Pull(other.all())
	defer stop()
	for r := range small.all() {
		o, ok := next()
		if !ok || o.key != r.key || o.fault != r.fault || keys[i] != r.key {
			t.Fatalf("row %d of other values has another key or fault", i)
		}
		if o.timeSpent != r.timeSpent {
			changed++
		}
		i++
	}
	if mean := size / good; mean < 330 || mean > 380 {
		t.Errorf("a row has %d bytes on average", mean)
	}
	if share := 1 - float64(good)/float64(small.rows); share < 0.09 || share > 0.11 {
		t.Errorf("%.3f of the rows are bad", share)
	}
	if share := float64(repeated) / float64(small.rows); share < 0.19 || share > 0.23 {
		t.Errorf("%.3f of the rows repeat a key", share)
	}
	if changed < small.rows*9/10 {
		t.Errorf("only %d rows have other values", changed)
	}
}

// What pgx makes of our arrays is what was put into them.
func TestArrays(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 1000, time.UTC)
	ints, words, floats, times := newArray(pgtype.Int8OID), newArray(pgtype.TextOID), newArray(pgtype.Float8OID), newArray(pgtype.TimestamptzOID)
	ints.int8(-3)
	ints.int8(1 << 40)
	words.string("")
	words.string("zoé")
	floats.float8(12.5)
	floats.null()
	times.time(at)
	times.time(time.Time{})
	types := pgtype.NewMap()
	scan := func(oid uint32, a *array, into any) {
		t.Helper()
		if err := types.Scan(oid, pgtype.BinaryFormatCode, a.done(), into); err != nil {
			t.Fatal(err)
		}
	}
	var gotInts []int64
	var gotWords []string
	var gotFloats []*float64
	var gotTimes []*time.Time
	scan(pgtype.Int8ArrayOID, ints, &gotInts)
	scan(pgtype.TextArrayOID, words, &gotWords)
	scan(pgtype.Float8ArrayOID, floats, &gotFloats)
	scan(pgtype.TimestamptzArrayOID, times, &gotTimes)
	half := 12.5
	if d := cmp.Diff([]any{[]int64{-3, 1 << 40}, []string{"", "zoé"}, []*float64{&half, nil}}, []any{gotInts, gotWords, gotFloats}); d != "" {
		t.Error(d)
	}
	if len(gotTimes) != 2 || !gotTimes[0].Equal(at) || gotTimes[1] != nil {
		t.Errorf("times: %v", gotTimes)
	}
}

func TestBatchesHoldAKeyOnce(t *testing.T) {
	batches, good := small.bareBatches(500)
	want, bad := small.expected()
	if good != small.rows-int(bad) || want.rows == 0 {
		t.Fatalf("%d good rows, %d bad ones", good, bad)
	}
	types := pgtype.NewMap()
	for _, writer := range batches {
		for _, args := range writer {
			var registrations []int64
			var objects []int32
			if err := types.Scan(pgtype.Int8ArrayOID, pgtype.BinaryFormatCode, args[2], &registrations); err != nil {
				t.Fatal(err)
			}
			if err := types.Scan(pgtype.Int4ArrayOID, pgtype.BinaryFormatCode, args[3], &objects); err != nil {
				t.Fatal(err)
			}
			seen := map[key]bool{}
			for i := range registrations {
				k := key{int(registrations[i]), int(objects[i])}
				if seen[k] {
					t.Fatalf("%v is there twice in a batch", k)
				}
				seen[k] = true
			}
		}
	}
}

func TestTicks(t *testing.T) {
	if got := linearTicks(94_851); !slices.Equal(got, []float64{0, 20_000, 40_000, 60_000, 80_000, 100_000}) {
		t.Error(got)
	}
	if got := logTicks(3.1, 250); !slices.Equal(got, []float64{2, 5, 10, 20, 50, 100, 200, 500}) {
		t.Error(got)
	}
}

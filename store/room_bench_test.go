package store_test

import (
	"fmt"
	"os"
	"strconv"
	"testing"
)

// BenchmarkRoom has LEARNSINK_BENCH_WAITING rows (20,000) wait, for one thing
// in a hundred rows each, and measures what a change of the catalogue costs:
//
//   - nothing: none of what is missing has come.
//   - one: one thing has, and a hundred rows are released.
//
// Beside it, what the metrics ask (counts), and dlq waiting.
func BenchmarkRoom(b *testing.B) {
	rows := 20_000
	if n, err := strconv.Atoi(os.Getenv("LEARNSINK_BENCH_WAITING")); err == nil {
		rows = n
	}
	w := newWorld(b)
	src := waitingSource(b)
	w.claim(w.Store, src, 0)
	w.exec(`ALTER TABLE learnsink.rejection DISABLE TRIGGER USER`)
	w.exec(`INSERT INTO learnsink.rejection (id, action, codes, errors, key, value, headers, source_topic, source_partition, source_offset, event_at, state, rules, waits_for, deadline)
		SELECT 'learning.tracking-0-' || i, 'tracking', '{lo_not_found}', '[]', 'k', convert_to('{"candidateLogin":"l1","sessionId":100,"lovGuid":"late' || i / 100 || '"}', 'UTF8'), '[]',
		  'learning.tracking', 0, i, now(), 'waiting', '', ARRAY['learning object guid late' || i / 100], now() + interval '1 day' FROM generate_series(0, $1::int - 1) i`, rows)
	w.exec(`ALTER TABLE learnsink.rejection ENABLE TRIGGER USER`)
	w.exec(`VACUUM ANALYZE learnsink.rejection`)
	r := releaser(b, w.Store, src)
	left := func() (n int) {
		if err := w.db.QueryRow(b.Context(), `SELECT count(*) FROM learnsink.rejection WHERE state = 'waiting'`).Scan(&n); err != nil {
			b.Fatal(err)
		}
		return n
	}
	b.Run("nothing", func(b *testing.B) {
		for b.Loop() {
			w.changeCatalogue(`SELECT`)
			w.release(r)
		}
		if n := left(); n != rows {
			b.Fatalf("%d of %d rows wait", n, rows)
		}
	})
	b.Run("one", func(b *testing.B) {
		before, n := left(), 0
		for b.Loop() {
			w.changeCatalogue(`INSERT INTO learnsink.learning_object (guid, guid_folded, provider)
				SELECT $1, $1, 'customer' WHERE NOT EXISTS (SELECT FROM learnsink.learning_object WHERE guid = $1)`, fmt.Sprint("late", n))
			w.release(r)
			n++
		}
		if got := before - left(); got != min(n*100, before) {
			b.Fatalf("%d rows are released, and %d things have come", got, n)
		}
	})
	b.Run("counts", func(b *testing.B) {
		for b.Loop() {
			if _, err := w.WaitingCounts(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("dlq waiting", func(b *testing.B) {
		for b.Loop() {
			if _, _, _, err := w.WaitingFor(b.Context(), "", 50); err != nil {
				b.Fatal(err)
			}
		}
	})
}

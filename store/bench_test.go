package store_test

import (
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"

	"learnsink/handlers"
	"learnsink/store"
)

// BenchmarkApply writes batches over 200,000 keys that fill up: rows/s, with
// the facts read and the rows decided, as the consumer does it.
func BenchmarkApply(b *testing.B) {
	for _, size := range []int{1, 2000} {
		b.Run(fmt.Sprintf("rows=%d", size), func(b *testing.B) {
			w := newWorld(b)
			w.exec(`INSERT INTO learnsink.learner (login, login_folded) SELECT 'b' || i, 'b' || i FROM generate_series(1, 20000) i`)
			w.exec(`INSERT INTO learnsink.registration (session_id, learner_id) SELECT 100, id FROM learnsink.learner WHERE login LIKE 'b%'`)
			w.exec(`ANALYZE`)
			src := source(b, handlers.Tracking)
			o := w.claim(w.Store, src, 0)
			rows := 0
			for b.Loop() {
				b.StopTimer()
				records := make([]*handlers.Record, size)
				for i := range records {
					n := (rows + i) * 7919 % 200000
					records[i] = record(src, o.NextOffset+int64(i), day, "candidateLogin", fmt.Sprintf("b%d", n/10+1), "lovGuid", fmt.Sprintf("o%d", n%10),
						"sessionId", 100, "progression", n%100, "trackingStatus", "completed", "timeSpent", n)
				}
				b.StartTimer()
				o.apply(records...)
				rows += size
			}
			b.ReportMetric(float64(rows)/b.Elapsed().Seconds(), "rows/s")
			if got := w.text(`SELECT rejected FROM learnsink.position`); got != "(0)" {
				b.Fatalf("rejected: %s", got)
			}
		})
	}
}

// BenchmarkReject applies batches of 1000 rows that are rejected, some for two
// reasons, and reports what the Apply of one costs.
func BenchmarkReject(b *testing.B) {
	w := newWorld(b)
	src := source(b, handlers.Tracking)
	o := w.claim(w.Store, src, 0)
	const size = 1000
	rows, best := 0, time.Hour
	for b.Loop() {
		b.StopTimer()
		records := make([]*handlers.Record, size)
		for i := range records {
			n := rows + i
			row := []any{"candidateLogin", fmt.Sprintf("Learner.%d@example.net", n*7919%200000), "sessionGuid", "s100", "trackingStatus", "completed", "timeSpent", n, "progression", 100}
			switch {
			case n%10 < 6:
				row = append(row, "lovGuid", fmt.Sprintf("missing-%d", n*7919%300))
			default:
				row = append(row, "lovGuid", "o1")
			}
			if n%10 == 9 {
				row = append(row, "firstAccessDate", fmt.Sprintf("2026-02-%d", 30+n%60))
			}
			records[i] = record(src, o.NextOffset+int64(i), day.Add(time.Duration(n)*time.Second), row...)
			records[i].Headers = []handlers.Header{{Key: "ce_source", Value: []byte(fmt.Sprintf("lms/%d", n%7))}, {Key: "ce_id", Value: []byte(fmt.Sprint(n))}}
		}
		batch := o.batch(records...)
		b.StartTimer()
		at := time.Now()
		if err := o.st.Apply(b.Context(), batch); err != nil {
			b.Fatal(err)
		}
		best = min(best, time.Since(at))
		o.NextOffset = batch.To
		rows += size
	}
	b.ReportMetric(float64(b.Elapsed().Milliseconds())/float64(rows/size), "ms/1000")
	b.ReportMetric(float64(best.Microseconds())/1000, "best-ms/1000")
	if got := w.text(`SELECT rejected FROM learnsink.position`); got != fmt.Sprintf("(%d)", rows) {
		b.Fatalf("rejected: %s of %d", got, rows)
	}
}

// BenchmarkGroups groups LEARNSINK_BENCH_REJECTIONS (50,000) open rejections,
// all of them and by filters.
func BenchmarkGroups(b *testing.B) {
	w := newWorld(b)
	n := 50_000
	if asked, err := strconv.Atoi(os.Getenv("LEARNSINK_BENCH_REJECTIONS")); err == nil {
		n = asked
	}
	plant(w, n)
	w.exec(`VACUUM (ANALYZE) learnsink.rejection`)
	w.exec(`VACUUM (ANALYZE) learnsink.rejection_fault`)
	open, sender, partition := []store.RejectionState{store.RejectionOpen, store.RejectionQuarantined}, "lms/3", 2
	for _, c := range []struct {
		name string
		f    store.RejectionFilter
	}{
		{"all", store.RejectionFilter{States: open}},
		{"sender", store.RejectionFilter{States: open, Sender: &sender}},
		{"code", store.RejectionFilter{States: open, Codes: []handlers.Code{handlers.LONotFound}}},
		{"partition", store.RejectionFilter{States: open, Topic: "planted", Partition: &partition}},
		{"since", store.RejectionFilter{States: open, Since: day}},
		{"learner", store.RejectionFilter{States: open, Learner: "l7919"}},
		{"value", store.RejectionFilter{States: open, Value: "v77"}},
	} {
		b.Run(c.name, func(b *testing.B) {
			rows := int64(0)
			for b.Loop() {
				groups, err := w.RejectionGroups(b.Context(), c.f, store.GroupOptions{Most: 50, Top: 3})
				if err != nil {
					b.Fatal(err)
				}
				rows = 0
				for i := range groups {
					rows += groups[i].Rows
				}
			}
			b.ReportMetric(float64(rows), "rows")
			if rows == 0 || c.name == "all" && rows != int64(n) {
				b.Fatalf("%d rows are in groups", rows)
			}
		})
	}
	b.Run("a page", func(b *testing.B) {
		for b.Loop() {
			if list, _, err := w.Rejections(b.Context(), store.RejectionFilter{States: open, Sender: &sender}, store.Page{Limit: 50}); err != nil || len(list) != 50 {
				b.Fatal(len(list), err)
			}
		}
	})
}

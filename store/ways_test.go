package store_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"learnsink/handlers"
	"learnsink/store"
)

// TestRowsThatChangeNothing holds that a topic that is read again leaves the
// rows as they are, to the version that PostgreSQL keeps of them, whichever
// way they are compared; and that what does change among them is written.
func TestRowsThatChangeNothing(t *testing.T) {
	w := newWorld(t)
	src := source(t, handlers.Tracking)
	rows := func(progression int) []*handlers.Record {
		return []*handlers.Record{
			track(src, 0, day, 1, 1, "progression", progression, "trackingStatus", "completed", "firstCompletionDate", "2026-02-01 00:00:00"),
			track(src, 1, day, 1, 2, "score", 0.5, "firstAccessDate", "2026-01-01 00:00:00"), track(src, 2, day, 1, 3, "trackingStatus", "passed"),
			track(src, 3, day, 1, 4, "timeSpent", 7, "lastAccessDate", "2026-01-01 00:00:00", "scoreMax", 7), track(src, 4, day, 1, 5, "trackingStatus", "notAttempted")}
	}
	again := func(progression int) *owner { // as the first owner of a database that is as it is now
		w.exec(`DELETE FROM learnsink.position; DELETE FROM learnsink.ledger; DELETE FROM learnsink.outbox`)
		o := w.claim(w.Store, src, 0)
		if o.apply(rows(progression)...); w.text(`SELECT rejected FROM learnsink.position`) != "(0)" {
			t.Fatal("rows were rejected")
		}
		return o
	}
	o := again(1)
	versions := func() string {
		return w.text(`SELECT learning_object_id, xmin, updated_at FROM learnsink.tracking ORDER BY 1`)
	}
	was, state := versions(), w.state()
	for _, first := range []bool{false, true, true} {
		if got := store.LooksFirst(w.Store, o.TopicPartition); got != first {
			t.Fatalf("before the rows come again, looks first: %t, want %t", got, first)
		}
		o = again(1)
		if got := versions(); got != was || w.state() != state {
			t.Errorf("the same rows (looked at first: %t) were written:\n%s\nwas\n%s", first, got, was)
		}
	}
	if !store.LooksFirst(w.Store, o.TopicPartition) {
		t.Fatal("rows that change nothing are not expected to change nothing")
	}
	again(2)
	if got := w.text(`SELECT count(*) FROM learnsink.tracking WHERE progression = 2`); got != "(1)" {
		t.Errorf("the one row that changed: %s are there", got)
	}
	w.audit()
}

// TestRaceInArrivalOrder lets owners of partitions write the same keys at
// once, where rows are mostly written without a look. Whoever comes last, each
// key is where one of them left it, whole, and as that one announces it.
func TestRaceInArrivalOrder(t *testing.T) {
	const owners, rounds = 3, 30
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	w := newWorld(t)
	src := source(t, handlers.Tracking)
	var racing []*owner
	for p := range owners {
		racing = append(racing, w.claim(open(t, w.url), src, p))
	}
	announced := map[string]string{} // by source, what the decision says of its row
	words := []string{"notAttempted", "incomplete", "completed", "passed", "passed"}
	for round := range rounds {
		var done sync.WaitGroup
		batches := make([]*handlers.Batch, owners)
		for p, o := range racing {
			var records []*handlers.Record
			for i := range 6 {
				records = append(records, track(src, int64(round*6+i), day.Add(time.Duration(rng.IntN(9999))*time.Hour), rng.IntN(2), rng.IntN(3),
					"trackingStatus", words[rng.IntN(len(words))], "progression", rng.IntN(100)))
			}
			if round%7 == 3 {
				store.Careful(o.st, o.TopicPartition, 1)
			}
			batches[p] = o.batch(records...)
		}
		for p, o := range racing {
			done.Go(func() {
				if err := o.st.Apply(context.Background(), batches[p]); err != nil {
					t.Errorf("round %d, partition %d: %v", round, p, err)
				}
				o.NextOffset = batches[p].To
			})
		}
		done.Wait()
		for p, b := range batches {
			for i := range b.Decisions {
				d := &b.Decisions[i]
				said := fmt.Sprintf("%s %v %s", d.Tracking.Status, d.Tracking.Progression.V, d.Tracking.FirstCompletion.V.UTC().Format(time.DateTime))
				if d.Tracking.Delete {
					said = "deleted"
				} else if !d.Tracking.FirstCompletion.OK {
					said = fmt.Sprintf("%s %v never", d.Tracking.Status, d.Tracking.Progression.V)
				}
				announced[fmt.Sprintf("%d-%d", p, d.Record.Offset)] = said
			}
		}
		rows, err := w.db.Query(t.Context(), `
			SELECT source_partition || '-' || source_offset, status || ' ' || progression || ' ' || coalesce(to_char(first_completion_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS'), 'never') FROM learnsink.tracking
			UNION ALL SELECT source_partition || '-' || source_offset, 'deleted' FROM learnsink.tracking_deleted`)
		if err != nil {
			t.Fatal(err)
		}
		for rows.Next() {
			var id, is string
			if err := rows.Scan(&id, &is); err != nil {
				t.Fatal(err)
			}
			if announced[id] != is {
				t.Errorf("round %d: stored of row %s is %q, announced %q", round, id, is, announced[id])
			}
		}
		rows.Close()
		if rows.Err() != nil || t.Failed() {
			t.Fatal(rows.Err())
		}
	}
	w.audit()
}

// TestNobodyWaitsInACircle has two batches each lock the key that the other
// one is about to write: one of them begins again with its keys in order, and
// PostgreSQL never has to find a deadlock.
func TestNobodyWaitsInACircle(t *testing.T) {
	w := newWorld(t)
	src := source(t, handlers.Tracking)
	deadlocks := func() string {
		return w.text(`SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()`)
	}
	w.claim(w.Store, src, 7).apply(track(src, 0, day, 0, 0), track(src, 1, day, 1, 1))
	before := deadlocks()
	looks := func(look, offset, key int) *handlers.Record { // a completed row without its date asks what is stored
		if look == key {
			return track(src, int64(offset), day, key, key, "trackingStatus", "completed")
		}
		return track(src, int64(offset), day, key, key)
	}
	var looked, done sync.WaitGroup
	looked.Add(2)
	for p := range 2 {
		o := w.claim(open(t, w.url), src, p)
		b := o.batch(looks(1-p, 0, 0), looks(1-p, 1, 1))
		encode := b.Encode
		var once sync.Once
		b.Encode = func(ds []handlers.Decision) ([]byte, error) {
			once.Do(func() { looked.Done(); looked.Wait() })
			return encode(ds)
		}
		done.Go(func() {
			if err := o.st.Apply(t.Context(), b); err != nil {
				t.Errorf("partition %d: %v", p, err)
			}
		})
	}
	done.Wait()
	if now := deadlocks(); now != before {
		t.Errorf("PostgreSQL counts %s deadlocks, %s before", now, before)
	}
	w.audit()
}

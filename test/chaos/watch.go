package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// stand is where a partition stands.
type stand struct {
	next, epoch, rows int64
	state, reason     string
}

// watch looks at the positions again and again, past all proxies: they never
// go back. Where the database is away it waits.
type watch struct {
	arena *arena

	mu      sync.Mutex
	stands  map[partition]stand
	applied int64 // sum of next offsets
	rows    int64 // accepted and rejected
	pending int64 // entries in the outbox
	seen    time.Time
	looks   int
	back    int // positions that went back
	// deadlocks that PostgreSQL has found: circles of those who wait.
	deadlocks counter
	end       int64 // sum of the committed ends of the sources
	endSeen   time.Time
	stopped   map[partition]string // state and reason of what is not running and not waiting
}

func newWatch(a *arena) *watch { return &watch{arena: a, stands: map[partition]stand{}} }

// counter adds up a count that begins again at 0 when its server crashes.
type counter struct{ last, sum int64 }

// add notes what the count is now, and returns how many are new.
func (c *counter) add(now int64) int64 {
	if now < c.last {
		c.last = 0
	}
	more := now - c.last
	c.last, c.sum = now, c.sum+more
	return more
}

const lookEvery = 200 * time.Millisecond

// run looks until ctx ends.
func (w *watch) run(ctx context.Context) {
	var ends sync.WaitGroup
	ends.Go(func() {
		for ; ctx.Err() == nil; sleep(ctx, lookEvery) {
			asking, cancel := context.WithTimeout(ctx, 2*time.Second)
			_, sum, err := w.arena.kafka.committed(asking, slices.Concat(sources, apart)...)
			cancel()
			if err == nil {
				w.mu.Lock()
				w.end, w.endSeen = sum, time.Now()
				w.mu.Unlock()
			}
		}
	})
	defer ends.Wait()
	var conn *pgx.Conn
	for ; ctx.Err() == nil; sleep(ctx, lookEvery) {
		looking, cancel := context.WithTimeout(ctx, 2*time.Second)
		var err error
		if conn == nil {
			conn, err = pgx.Connect(looking, w.arena.postgres.URL())
		}
		if err == nil {
			err = w.look(looking, conn)
		}
		cancel()
		if err != nil && conn != nil {
			_ = conn.Close(context.Background())
			conn = nil
		}
	}
	if conn != nil {
		_ = conn.Close(context.Background())
	}
}

func (w *watch) look(ctx context.Context, conn *pgx.Conn) error {
	var pending, deadlocks int64
	if err := conn.QueryRow(ctx, `SELECT (SELECT count(*) FROM learnsink.outbox), (SELECT deadlocks FROM pg_stat_database WHERE datname = current_database())`).
		Scan(&pending, &deadlocks); err != nil {
		return err
	}
	rows, err := conn.Query(ctx, `SELECT topic, partition, next_offset, epoch, accepted + rejected + waiting, state, state_reason FROM learnsink.position`)
	if err != nil {
		return err
	}
	now := map[partition]stand{}
	var p partition
	var s stand
	if _, err := pgx.ForEachRow(rows, []any{&p.topic, &p.n, &s.next, &s.epoch, &s.rows, &s.state, &s.reason}, func() error {
		now[p] = s
		return nil
	}); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.compare(now)
	if more := w.deadlocks.add(deadlocks); more > 0 {
		w.arena.faultf("PostgreSQL found %d deadlocks: locks are not taken in one order", more)
	}
	w.stands, w.pending, w.seen = now, pending, time.Now()
	w.looks++
	return nil
}

// compare holds what stands there now against what stood there before.
func (w *watch) compare(now map[partition]stand) {
	w.applied, w.rows, w.stopped = 0, 0, map[partition]string{}
	for p, before := range w.stands {
		after, there := now[p]
		if !there || after.next < before.next || after.epoch < before.epoch {
			w.back++
			w.arena.faultf("the position of %s went back: from offset %d, epoch %d to offset %d, epoch %d (there: %v)", p, before.next, before.epoch, after.next, after.epoch, there)
		}
	}
	for p, s := range now {
		w.applied += s.next
		w.rows += s.rows
		if s.state != "running" && s.state != "waiting" {
			w.stopped[p] = s.state + ": " + s.reason
		}
	}
}

// lag is how many offsets are not applied yet, by what was seen last.
func (w *watch) lag() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.end - w.applied
}

// progress returns the sum of rows applied.
func (w *watch) progress() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.rows
}

// of returns where a partition stands.
func (w *watch) of(p partition) stand {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.stands[p]
}

// rest waits until all is applied and published, as seen after this moment.
func (w *watch) rest(ctx context.Context, most time.Duration) error {
	since, deadline := time.Now(), time.Now().Add(most)
	for ctx.Err() == nil {
		w.mu.Lock()
		lag, pending := w.end-w.applied, w.pending
		fresh := w.seen.After(since.Add(lookEvery)) && w.endSeen.After(since.Add(lookEvery))
		stopped := fmt.Sprint(w.stopped)
		w.mu.Unlock()
		if fresh && lag == 0 && pending == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("after %s the lag is %d offsets, and %d entries are in the outbox (a fresh look: %v; stopped: %s)", most, lag, pending, fresh, stopped)
		}
		sleep(ctx, 50*time.Millisecond)
	}
	return ctx.Err()
}

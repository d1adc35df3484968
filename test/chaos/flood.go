package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"
)

// flood is a time during which the sender keeps a backlog ahead of learnsink,
// as far as the broker lets it: what is applied then is what learnsink can do.
type flood struct {
	began time.Time
	took  time.Duration
	rows  int64
}

func (f flood) rate() float64 { return float64(f.rows) / f.took.Seconds() }

const floodTime = 20 * time.Second

// flooded floods for a while, and says what was applied.
func (a *arena) flooded(ctx context.Context) flood {
	a.sender.rate.Store(0)
	defer a.sender.rate.Store(int64(a.rate))
	sleep(ctx, time.Second) // the backlog comes about
	f := flood{began: time.Now(), rows: -a.watch.progress()}
	sleep(ctx, floodTime)
	f.took = time.Since(f.began)
	f.rows += a.watch.progress()
	return f
}

// calm measures what learnsink can do while nobody does anything to it.
func (a *arena) calm(ctx context.Context) error {
	a.sender.rate.Store(int64(a.rate))
	sleep(ctx, 3*time.Second) // caches and connections
	a.report.calm = a.flooded(ctx)
	sent := a.sender.counted()
	say("calm: %.0f rows/s; %d sent", a.report.calm.rate(), sent.Rows)
	if sent.Last != nil {
		return fmt.Errorf("the sender fails in the calm: %w", sent.Last)
	}
	return a.settle(ctx)
}

// floods floods now and then while faults go on, whatever the faults are: twice
// in four minutes, some six times in thirty.
func (a *arena) floods(ctx context.Context, r *rand.Rand, end time.Time) {
	shortest := max(40*time.Second, time.Until(end)/10)
	for {
		pause := shortest + time.Duration(r.Int64N(int64(shortest)))
		if time.Now().Add(pause+floodTime+5*time.Second).After(end) || !sleep(ctx, pause) {
			return
		}
		f := a.flooded(ctx)
		if ctx.Err() != nil {
			return
		}
		a.report.floods = append(a.report.floods, f)
		say("flood: %.0f rows/s", f.rate())
	}
}

// settle waits until the backlog of a flood is worked off; what comes in goes on.
func (a *arena) settle(ctx context.Context) error {
	for deadline := time.Now().Add(time.Minute); a.watch.lag() > int64(a.rate); {
		if time.Now().After(deadline) {
			a.faultf("a backlog of %d rows is not worked off within a minute of calm", backlog)
			return nil
		}
		if !sleep(ctx, 50*time.Millisecond) {
			return ctx.Err()
		}
	}
	return nil
}

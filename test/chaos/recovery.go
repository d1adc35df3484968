package main

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// recovery is how long it took until learnsink worked again.
type recovery struct {
	of   string
	took time.Duration
	goal time.Duration // at p99
}

const (
	takeOverGoal = sessionTimeout + 3*time.Second
	backGoal     = 5 * time.Second
)

// now is the time by the database's clock, which the notes on the ledger have too.
func (n *nemesis) now(ctx context.Context) (at time.Time, err error) {
	err = n.db.QueryRow(ctx, `SELECT clock_timestamp()`).Scan(&at)
	return at, err
}

// recovers waits until, after a server answers again, something was applied
// and something was announced.
func (n *nemesis) recovers(ctx context.Context, server string) error {
	back := time.Now()
	at, err := n.now(ctx)
	if err != nil {
		return err
	}
	_, announced, err := n.kafka.committed(ctx, accepted)
	if err != nil {
		return err
	}
	const most = 30 * time.Second
	took := map[string]time.Duration{}
	for time.Since(back) < most && len(took) < 2 {
		if _, done := took["applies"]; !done {
			_, found, err := first(ctx, n.db, at)
			if err != nil {
				return err
			}
			if found {
				took["applies"] = time.Since(back)
			}
		}
		if _, done := took["announces"]; !done {
			if _, sum, err := n.kafka.committed(ctx, accepted); err == nil && sum > announced {
				took["announces"] = time.Since(back)
			}
		}
		if !sleep(ctx, 20*time.Millisecond) {
			return ctx.Err()
		}
	}
	for _, what := range []string{"applies", "announces"} {
		d, done := took[what]
		if !done {
			d = most
			n.faultf("the %s is back, and learnsink does not work again within %s: nothing %s", server, most, what)
		}
		n.report.recovered(recovery{fmt.Sprintf("%s back: %s again", server, what), d, backGoal})
	}
	return nil
}

// percentile of times; they need not be sorted.
func percentile(all []time.Duration, p float64) time.Duration {
	if len(all) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(all))
	return sorted[min(len(sorted)-1, int(p*float64(len(sorted))))]
}

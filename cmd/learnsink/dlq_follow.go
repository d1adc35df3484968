package main

import (
	"context"
	"fmt"
	"time"

	"learnsink/store"
)

// followPause is how long following waits between two looks at a job.
const followPause = 200 * time.Millisecond

// followJob waits until every row of a job has its outcome, or the job is
// paused or cancelled. It says on stderr how far it is, on a terminal all the
// time, and why it does not move. The job goes on whether it is followed or not.
func (a *app) followJob(ctx context.Context, db *store.Store, id int64) (store.Job, error) {
	tick := time.NewTicker(followPause)
	defer tick.Stop()
	live, waits := a.terminal(a.stderr), ""
	for {
		j, err := db.Job(ctx, id)
		if err != nil {
			return j, err
		}
		if live {
			fmt.Fprintf(a.stderr, "\r\x1b[Kjob %d: %d of %d rows are sent, %d have their outcome", id, j.Items-j.Pending, j.Items, j.Items-j.Pending-j.Sent)
		}
		if j.Settled() || j.State == store.JobPaused {
			if live {
				fmt.Fprintln(a.stderr)
			}
			return j, nil
		}
		if j.Waits != waits {
			if waits = j.Waits; waits != "" {
				a.warn("job %d waits: %s", id, waits)
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			a.warn("job %d goes on; nobody follows it", id)
			return j, ctx.Err()
		}
	}
}

package main

import (
	"context"
	"time"

	"github.com/rs/zerolog"

	"learnsink/store"
)

// keep drops, once an hour, the rejections that are past their retention, and
// the jobs that ended as long ago. Several may do it at once.
func keep(ctx context.Context, db *store.Store, retention time.Duration, log zerolog.Logger) error {
	tick := time.NewTicker(time.Hour)
	defer tick.Stop()
	for {
		// An hour more than audit asks for: it goes by when the batch was applied.
		dropped, err := db.DropRejections(ctx, time.Now().Add(-retention-time.Hour))
		switch {
		case ctx.Err() != nil:
		case err != nil:
			log.Warn().Err(err).Msg("old rejections stay for now")
		case dropped > 0:
			log.Info().Int64("rejections", dropped).Msg("dropped rejections past their retention")
		}
		dropped, err = db.DropJobs(ctx, time.Now().Add(-retention-time.Hour))
		switch {
		case ctx.Err() != nil:
		case err != nil:
			log.Warn().Err(err).Msg("old jobs stay for now")
		case dropped > 0:
			log.Info().Int64("jobs", dropped).Msg("dropped jobs past their retention")
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

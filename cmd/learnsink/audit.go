package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"learnsink/handlers"
	"learnsink/store"
)

// auditCommand is `audit`: proves that nothing is lost and nothing is twice.
func (a *app) auditCommand() *cobra.Command {
	var deep bool
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "prove the books, and with --deep the topics",
		Long: `audit proves, in one snapshot of the database, that every position sums up, that the
ledger leads up to it without a gap, and that every rejection, and every row in the
waiting room, has its line.

--deep also reads the source topics and the outputs, while learnsink runs or not, and
proves that each row below the positions has exactly one outcome there, an accepted event
or a dead letter of its own id, and that the table rejection agrees on which. With
publish: at-least-once a crash may leave repeats: they are counted, and no fault. What
operators have skipped, or had announced again, is counted apart. What topics have
forgotten is proved by the ledger, and said. It exits with 3 if it finds a fault.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.load()
			if err != nil {
				return err
			}
			db, err := c.openStore(cmd.Context())
			if err != nil {
				return err
			}
			defer db.Close()
			findings, err := db.Audit(cmd.Context(), store.AuditOptions{Retention: c.Retention})
			if err != nil {
				return err
			}
			var faults []string
			for _, f := range findings {
				faults = append(faults, f.String())
			}
			positions, err := db.Positions(cmd.Context())
			if err != nil {
				return err
			}
			var accepted, rejected, waiting, skipped int64
			for _, p := range positions {
				accepted, rejected, waiting, skipped = accepted+p.Accepted, rejected+p.Rejected, waiting+p.Waiting, skipped+p.Skipped
			}
			fmt.Fprintf(a.stdout, "database: %d partitions, %d accepted, %d rejected, ", len(positions), accepted, rejected)
			if waiting > 0 { // of sources that wait for what is missing
				fmt.Fprintf(a.stdout, "%d waiting, ", waiting)
			}
			fmt.Fprintf(a.stdout, "%d skipped; faults: %d\n", skipped, len(faults))
			if deep {
				if err := a.awaitOutbox(cmd.Context(), db, positions); err != nil {
					return err
				}
				found, err := a.auditTopics(cmd.Context(), c, db, positions)
				if err != nil {
					return err
				}
				faults = append(faults, found...)
			}
			for _, f := range faults {
				fmt.Fprintln(a.stdout, f)
			}
			if len(faults) > 0 {
				return errFault
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&deep, "deep", false, "read the topics too, and prove that each outcome is there exactly once")
	return cmd
}

// awaitOutbox waits for what is below the positions to be published, while
// somebody is at it: an idle consumer takes a second to drop what it has published.
func (a *app) awaitOutbox(ctx context.Context, db *store.Store, positions []handlers.Position) error {
	next := map[handlers.TopicPartition]int64{}
	for _, p := range positions {
		next[p.TopicPartition] = p.NextOffset
	}
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for range 40 {
		pending, err := db.OutboxPending(ctx)
		if err != nil {
			return err
		}
		open := slices.ContainsFunc(pending, func(o store.OutboxStatus) bool { return o.From < next[o.TopicPartition] })
		if !open {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	a.warn("the outbox has batches that nobody seems to publish: is learnsink serve running?")
	return nil
}

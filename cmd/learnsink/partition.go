package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"learnsink/handlers"
	"learnsink/store"
)

// partitionCommand is `partition pause` and `partition resume`.
func (a *app) partitionCommand() *cobra.Command {
	cmd := group(&cobra.Command{Use: "partition", Short: "pause source partitions, or let them go on"})
	cmd.AddCommand(a.pauseCommand(), a.resumeCommand())
	return cmd
}

func (a *app) pauseCommand() *cobra.Command {
	var f operatorFlags
	cmd := &cobra.Command{
		Use:   "pause --topic TOPIC [--partition N|all] [--why TEXT] [--execute]",
		Short: "hold partitions where they are",
		Long: `pause holds partitions where they are, whichever process has them: nothing more is applied
until partition resume. What was applied is published. Without --execute it only shows
what would be done.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.hold(cmd.Context(), &f, a.pause)
		},
	}
	f.add(cmd)
	return cmd
}

func (a *app) resumeCommand() *cobra.Command {
	var f operatorFlags
	cmd := &cobra.Command{
		Use:   "resume --topic TOPIC [--partition N|all] [--why TEXT] [--execute]",
		Short: "let partitions go on that are paused, or that the breaker holds",
		Long: `resume lets partitions go on that were paused, or that the breaker holds. The breaker lets
the rows pass that the log holds now, and watches those that come later. Without --execute
it only shows what would be done.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.hold(cmd.Context(), &f, a.resume)
		},
	}
	f.add(cmd)
	return cmd
}

// hold shows or does, one by one, what pause or resume is to each partition.
func (a *app) hold(ctx context.Context, f *operatorFlags, each func(context.Context, *config, *store.Store, *operatorFlags, handlers.Position) error) error {
	if err := f.check(); err != nil {
		return err
	}
	c, err := a.load()
	if err != nil {
		return err
	}
	db, err := c.openStore(ctx)
	if err != nil {
		return err
	}
	defer db.Close()
	positions, err := db.Positions(ctx)
	if err != nil {
		return err
	}
	chosen, err := f.choose(positions)
	if err != nil {
		return err
	}
	for _, p := range chosen {
		if err := each(ctx, c, db, f, p); err != nil {
			return fmt.Errorf("%s/%d: %w", p.Topic, p.Partition, err)
		}
	}
	a.notDone(f.execute)
	return nil
}

func (a *app) pause(ctx context.Context, _ *config, db *store.Store, f *operatorFlags, p handlers.Position) error {
	was := p.State
	if f.execute {
		var err error
		if was, err = db.Pause(ctx, p.TopicPartition, f.operator()); err != nil {
			return err
		}
	}
	switch {
	case was == handlers.Paused:
		fmt.Fprintf(a.stdout, "%s/%d is paused already\n", p.Topic, p.Partition)
	case f.execute:
		fmt.Fprintf(a.stdout, "%s/%d is paused; it was %s\n", p.Topic, p.Partition, was)
	default:
		fmt.Fprintf(a.stdout, "%s/%d, %s at offset %d, would be paused\n", p.Topic, p.Partition, was, p.NextOffset)
	}
	return nil
}

func (a *app) resume(ctx context.Context, c *config, db *store.Store, f *operatorFlags, p handlers.Position) error {
	var stable int64
	below := ""
	if p.State == handlers.Breaker {
		var err error
		if stable, err = stableEnd(ctx, c, p.TopicPartition); err != nil {
			return err
		}
		below = fmt.Sprintf("; the breaker lets rows below offset %d on", stable)
	}
	was := p.State
	if f.execute {
		var err error
		if was, err = db.Resume(ctx, p.TopicPartition, stable, f.operator()); err != nil {
			return err
		}
	}
	switch {
	case !was.Held():
		fmt.Fprintf(a.stdout, "%s/%d is not held: it is %s\n", p.Topic, p.Partition, was)
	case f.execute:
		fmt.Fprintf(a.stdout, "%s/%d goes on at offset %d; it was %s%s\n", p.Topic, p.Partition, p.NextOffset, was, below)
	default:
		fmt.Fprintf(a.stdout, "%s/%d, %s (%s), would go on at offset %d%s\n", p.Topic, p.Partition, was, p.StateReason, p.NextOffset, below)
	}
	return nil
}

// stableEnd is where a read_committed reader of a partition comes to now.
func stableEnd(ctx context.Context, c *config, tp handlers.TopicPartition) (int64, error) {
	client, err := c.client()
	if err != nil {
		return 0, err
	}
	defer client.Close()
	ends, err := offsets(ctx, client.StableOffsets, tp.Topic)
	return ends[tp.Partition], err
}

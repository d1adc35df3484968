package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"learnsink/store"
)

// dlqArchiveCommand is `dlq archive`.
func (a *app) dlqArchiveCommand() *cobra.Command {
	return a.turnCommand(&cobra.Command{
		Use:   "archive [ID…] --why TEXT [--execute]",
		Short: "put dead letters away that nobody will mend",
		Long: `archive puts dead letters away that are open, quarantined or superseded: they are in nobody's
way any more, keep all that they have until their retention is over, and come back with
dlq restore. Without --execute it only says how many there are.
` + selectionHelp,
	}, "archived", store.Archivable(), (*store.Store).ArchiveRejections)
}

// dlqRestoreCommand is `dlq restore`.
func (a *app) dlqRestoreCommand() *cobra.Command {
	return a.turnCommand(&cobra.Command{
		Use:   "restore [ID…] --why TEXT [--execute]",
		Short: "open archived dead letters again",
		Long: `restore opens dead letters again that were archived. The lines of attempts are archived as
history, and stay so. Without --execute it only says how many there are.
` + selectionHelp,
	}, "open again", []store.RejectionState{store.RejectionArchived}, (*store.Store).RestoreRejections)
}

// turnCommand makes a verb that brings a selection into another state.
func (a *app) turnCommand(cmd *cobra.Command, done string, from []store.RejectionState,
	turn func(*store.Store, context.Context, store.RejectionFilter, store.Operator, bool) ([]store.StateCount, error)) *cobra.Command {
	var selection dlqSelection
	var why, form string
	var execute bool
	cmd.Args = cobra.ArbitraryArgs
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		f, err := selection.filter(args...)
		switch {
		case err != nil:
			return err
		case len(f.States) == 0:
			return badCall("--state: only what is %s can be %s", strings.Join(words(from), ", "), done)
		case !f.Selects() && !cmd.Flags().Changed("state"):
			return badCall("nothing says which rows: ids, --group or another of the flags")
		case execute && strings.TrimSpace(why) == "":
			return badCall("--why is missing: say why, for those who read it later")
		}
		return a.withStore(cmd.Context(), func(db *store.Store) error {
			counts, err := turn(db, cmd.Context(), f, store.Operator{Actor: actor(), Why: why}, execute)
			if err != nil {
				return err
			}
			if err := a.printStates(form, counts); err != nil || form != "table" {
				return err
			}
			would := "would be"
			if execute {
				would = "are"
			}
			fmt.Fprintf(a.stdout, "dead letters that %s %s: %d\n", would, done, countRows(counts))
			a.notDone(execute)
			return nil
		})
	}
	selection.add(cmd, from...)
	formatFlag(cmd, &form)
	cmd.Flags().StringVar(&why, "why", "", "the reason, for those who read it later (with --execute)")
	cmd.Flags().BoolVar(&execute, "execute", false, "do it; else it is only shown")
	return cmd
}

// printStates prints how many dead letters are in which state.
func (a *app) printStates(form string, counts []store.StateCount) error {
	p, err := newPrinter(a.stdout, form, []printColumn[store.StateCount]{
		{name: "state", text: func(c *store.StateCount) string { return string(c.State) }},
		{name: "action", text: func(c *store.StateCount) string { return string(c.Action) }},
		{name: "rows", text: func(c *store.StateCount) string { return fmt.Sprint(c.Rows) }},
	})
	if err != nil {
		return err
	}
	if form == "table" && len(counts) == 0 {
		return nil
	}
	return p.printAll(counts)
}

func countRows(counts []store.StateCount) (rows int64) {
	for _, c := range counts {
		rows += c.Rows
	}
	return rows
}

// dlqPurgeCommand is `dlq purge`.
func (a *app) dlqPurgeCommand() *cobra.Command {
	var older time.Duration
	var why, form string
	var execute bool
	cmd := &cobra.Command{
		Use:   "purge [--older-than AGE] [--execute]",
		Short: "delete what is past its retention now",
		Long: `purge deletes dead letters that are older than the setting retention, whatever their state but
waiting or replaying, and jobs that ended before it, with their rows: what learnsink serve
does every hour anyway. Nothing younger can go, or audit could not hold the books against
the table. --older-than leaves more. Without --execute it only says how much there is.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.load()
			if err != nil {
				return err
			}
			age := c.Retention
			if cmd.Flags().Changed("older-than") {
				age = older
			}
			switch {
			case age < c.Retention:
				return badCall("--older-than %s is younger than the setting retention, %s: what is younger has to stay", older, c.Retention)
			case execute && strings.TrimSpace(why) == "":
				return badCall("--why is missing: say why, for those who read it later")
			}
			db, err := c.openStore(cmd.Context())
			if err != nil {
				return err
			}
			defer db.Close()
			// An hour more, as serve leaves it: audit goes by when batches were applied.
			before := time.Now().Add(-age - time.Hour)
			past, err := db.Past(cmd.Context(), before)
			if err != nil {
				return err
			}
			if err := a.printStates(form, past.Rejections); err != nil {
				return err
			}
			if !execute {
				if form == "table" {
					fmt.Fprintf(a.stdout, "%d dead letters and %d jobs are from before %s\n", countRows(past.Rejections), past.Jobs, before.UTC().Format(time.RFC3339))
					a.notDone(execute)
				}
				return nil
			}
			rejections, jobs, err := db.Purge(cmd.Context(), before, store.Operator{Actor: actor(), Why: why})
			if form == "table" {
				fmt.Fprintf(a.stdout, "%d dead letters and %d jobs from before %s are deleted\n", rejections, jobs, before.UTC().Format(time.RFC3339))
			}
			return err
		},
	}
	formatFlag(cmd, &form)
	cmd.Flags().DurationVar(&older, "older-than", 0, "how old at least, such as 2400h (default: the setting retention)")
	cmd.Flags().StringVar(&why, "why", "", "the reason, for those who read it later (with --execute)")
	cmd.Flags().BoolVar(&execute, "execute", false, "do it; else it is only shown")
	return cmd
}

package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"learnsink/cmd/learnsink/dlq"
	"learnsink/handlers"
	"learnsink/store"
	"learnsink/store/catalogue"
)

// catalogCommand is `catalog load` and `catalog status`.
func (a *app) catalogCommand() *cobra.Command {
	cmd := group(&cobra.Command{Use: "catalog", Short: "load the catalogue that rows refer to, or count it"})
	var options store.LoadOptions
	var replay bool
	load := &cobra.Command{
		Use:   "load PATH…",
		Short: "load catalogue files",
		Long: `load takes folders of catalogue files (CSV or JSONL: ` + strings.Join(fileNames(), ", ") + `),
or single ones, and loads them in one transaction or not at all. Every bad line is named;
--skip-bad loads the rest. Running consumers see the load within a second.

It says how many open dead letters would pass now, of those that only what is not in the
catalogue was wrong with, the latest first: some thousands are judged, for seconds at most.
--replay sends them again, as a job of learnsink serve. Rows in the waiting room are released
without being asked for.

--prune shows what a file no longer names and nothing refers to; with --execute it is
removed. More than 5 % of a kind is refused without --max-prune.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if options.Execute && !options.Prune {
				return badCall("--execute is for --prune")
			}
			if options.MaxPrune < 0 || options.MaxPrune > 0 && !options.Prune {
				return badCall("--max-prune is for --prune, and not below 0")
			}
			folder, err := catalogue.Open(args...)
			if err != nil {
				return callIfAbsent(err)
			}
			a.namePassed(folder)
			c, err := a.load()
			if err != nil {
				return err
			}
			if replay && c.replayTopic() == "" {
				return badCall("--replay: replayTopic is off: name one, or rows cannot be sent again")
			}
			db, err := c.openStore(cmd.Context())
			if err != nil {
				return err
			}
			defer db.Close()
			bar := a.progress("catalogue")
			bar.ChangeMax64(folder.Size())
			folder.OnRead = func(bytes int) { bar.Add(bytes) }
			options.Step = func(step string) { bar.Describe(step) }
			report, err := db.LoadCatalogue(cmd.Context(), folder, options)
			bar.Exit()
			a.nameBadLines(report.Bad)
			if err != nil && len(report.Kinds) == 0 {
				return err
			}
			if shown := showReport(a.stdout, report, options); shown != nil {
				return shown
			}
			if err != nil || report.Version == 0 {
				return err
			}
			return a.wouldPass(cmd.Context(), c, db, replay)
		},
	}
	flags := load.Flags()
	flags.BoolVar(&replay, "replay", false, "send the open dead letters again that would pass now")
	flags.BoolVar(&options.SkipBad, "skip-bad", false, "load what is good where lines are bad")
	flags.BoolVar(&options.Prune, "prune", false, "show what the files no longer name and nothing refers to")
	flags.BoolVar(&options.Execute, "execute", false, "with --prune: remove it")
	flags.Int64Var(&options.MaxPrune, "max-prune", 0, "with --prune: how many of a kind may be removed (default: 5 %)")
	cmd.AddCommand(load, &cobra.Command{
		Use:   "status",
		Short: "count the catalogue and tell its age",
		Args:  cobra.NoArgs,
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
			s, err := db.CatalogueStatus(cmd.Context())
			if err != nil {
				return err
			}
			out := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
			for _, c := range s.Counts {
				fmt.Fprintf(out, "%s\t%d\n", c.Kind, c.Rows)
			}
			if s.LoadedAt.OK {
				fmt.Fprintf(out, "version\t%d\nloaded\t%s, %s ago\n", s.Version, s.LoadedAt.V.Format(time.RFC3339), time.Since(s.LoadedAt.V).Round(time.Second))
			} else {
				fmt.Fprintln(out, "loaded\tnever")
			}
			if err := out.Flush(); err != nil {
				return err
			}
			topics, err := db.CatalogueTopicsStatus(cmd.Context(), badShown)
			if err != nil || len(topics.Positions) == 0 {
				return err
			}
			return showCatalogTopics(a.stdout, topics)
		},
	})
	return cmd
}

// How many dead letters a load judges, and for how long, at most.
const (
	wouldPassPage = 2000
	wouldPassMost = 20_000
	wouldPassTime = 5 * time.Second
)

// wouldPass says how many open dead letters would pass by the catalogue of
// now, and sends them again if it is asked to.
func (a *app) wouldPass(ctx context.Context, c *config, db *store.Store, replay bool) error {
	ids, checked, more, err := passing(ctx, c, db)
	if err != nil || checked == 0 {
		return err
	}
	rest := ""
	if more {
		rest = ", and there are more"
	}
	fmt.Fprintf(a.stdout, "of the %d open dead letters checked (something was not in the catalogue%s) %d would pass now\n", checked, rest, len(ids))
	switch {
	case len(ids) == 0:
		return nil
	case !replay:
		fmt.Fprintln(a.stdout, "catalog load --replay sends them again, as does dlq replay")
		return nil
	}
	job, rows, err := db.CreateJob(ctx, store.NewJob{Kind: store.JobReplay, Actor: actor(), Why: "catalog load --replay: the catalogue has what they refer to"},
		func(yield func(store.JobItem, error) bool) {
			for _, id := range ids {
				if !yield(store.JobItem{Rejection: id}, nil) {
					return
				}
			}
		})
	if err != nil {
		return err
	}
	if job == 0 {
		fmt.Fprintln(a.stdout, "somebody else has sent them again meanwhile")
		return nil
	}
	fmt.Fprintf(a.stdout, "job %d sends %d rows again: learnsink serve runs it\n", job, rows)
	return nil
}

// passing judges the latest open dead letters that lacked something, as a
// replay would; more: there are others.
func passing(ctx context.Context, c *config, db *store.Store) (ids []string, checked int, more bool, err error) {
	soon, cancel := context.WithTimeout(ctx, wouldPassTime)
	defer cancel()
	judge := dlq.NewJudge(c.Sources, c.replayTopic(), db, db, string(store.RejectionOpen))
	for _, action := range []handlers.Action{handlers.Tracking, handlers.Intervention} {
		for from := (store.LackingFrom{}); ; {
			if checked >= wouldPassMost {
				return ids, checked, true, nil
			}
			letters, next, err := db.OpenLacking(soon, action, from, wouldPassPage)
			var verdicts []dlq.Verdict
			if err == nil {
				// In the order of their events: those of one key one after the other.
				slices.SortFunc(letters, func(a, b store.Letter) int { return a.EventAt.Compare(b.EventAt) })
				verdicts, err = judge.Page(soon, letters)
			}
			switch {
			case err != nil && soon.Err() != nil && ctx.Err() == nil:
				return ids, checked, true, nil // long enough
			case err != nil:
				return nil, 0, false, err
			}
			for i := range verdicts {
				if verdicts[i].Outcome == dlq.Accepted {
					ids = append(ids, verdicts[i].Letter.ID)
				}
			}
			if checked += len(letters); len(letters) < wouldPassPage {
				break
			}
			from = next
		}
	}
	return ids, checked, false, nil
}

func fileNames() []string {
	var names []string
	for _, kind := range catalogue.Kinds() {
		names = append(names, string(kind))
	}
	return names
}

// showReport prints what a load did, a line a kind, and what a prune removes.
func showReport(w io.Writer, report store.LoadReport, options store.LoadOptions) error {
	out := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	pruned := "PRUNED"
	if !options.Execute {
		pruned = "WOULD PRUNE"
	}
	fmt.Fprint(out, "KIND\tLINES\tADDED\tCHANGED")
	if options.Prune {
		fmt.Fprint(out, "\t"+pruned)
	}
	fmt.Fprintln(out)
	for _, k := range report.Kinds {
		fmt.Fprintf(out, "%s\t%d\t%d\t%d", k.Kind, k.Lines, k.Added, k.Changed)
		if options.Prune {
			fmt.Fprintf(out, "\t%d", k.Pruned)
			if len(k.Examples) > 0 {
				fmt.Fprintf(out, "\t%s", strings.Join(k.Examples, ", "))
			}
		}
		fmt.Fprintln(out)
	}
	if len(report.Bad) > 0 {
		fmt.Fprintf(out, "bad lines\t%d\n", len(report.Bad))
	}
	erased := int64(0)
	for _, k := range report.Kinds {
		erased += k.Erased
	}
	if erased > 0 {
		fmt.Fprintf(out, "lines of erased persons, not loaded\t%d\n", erased)
	}
	if report.Version > 0 {
		fmt.Fprintf(out, "version\t%d\n", report.Version)
	} else {
		fmt.Fprintln(out, "nothing was loaded")
	}
	return out.Flush()
}

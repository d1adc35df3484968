package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"learnsink/cmd/learnsink/dlq"
	"learnsink/store"
)

// sendFlags are what the verbs take that send dead letters again.
type sendFlags struct {
	why, form       string
	rate            int
	execute, detach bool
}

func (f *sendFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.why, "why", "", "the reason, for those who read it later")
	flags.IntVar(&f.rate, "rate", store.DefaultJobRate, "send so many rows a second at most")
	flags.BoolVar(&f.execute, "execute", false, "do it; else it is only shown")
	flags.BoolVar(&f.detach, "detach", false, "do not follow the job")
	formatFlag(cmd, &f.form)
}

func (f *sendFlags) check() error {
	switch {
	case !slices.Contains([]string{"table", "json", "csv"}, f.form):
		return badCall("-f %q is not table, json or csv", f.form)
	case f.rate < 1:
		return badCall("--rate %d is no number of rows a second: say 1 or more", f.rate)
	case f.execute && strings.TrimSpace(f.why) == "":
		return badCall("--why is missing: say the reason, for those who read it later")
	case f.detach && !f.execute:
		return badCall("--detach says nothing without --execute")
	}
	return nil
}

// overwriteMost is how many rows are written over newer ones without a word:
// so many diffs can be read.
const overwriteMost = 5

// dlqReplayCommand is `dlq replay`.
func (a *app) dlqReplayCommand() *cobra.Command {
	var sel dlqSelection
	var f sendFlags
	var from fromTopic
	var r replayer
	cmd := &cobra.Command{
		Use:   "replay [ID…] [flags]",
		Short: "judge dead letters again, and send them again",
		Long: `replay judges the dead letters that are meant by the catalogue, the settings and the tables
of now, and says what would become of them. Nothing is sent without --execute.

With --execute exactly those rows are sent that were judged so: a job of them is made, which
learnsink serve runs and this command follows (--detach: does not), and which goes on if this
command does not. Only what would be accepted is sent; what would fail again stays as it is,
since it would only burn an attempt. --all sends it too.

Rows go by their own time: one that is older than what is stored by then changes nothing,
whatever was judged before. --overwrite-newer shows what such rows would undo, column by
column, and prints a code; with --execute and --seen CODE they are written over exactly that,
and over nothing that has come since. It shows ` + fmt.Sprint(overwriteMost) + ` rows; for more their number has to be
typed: --yes-overwrite N.

--from-topic replays dead letters that the table does not hold any more, from the dead-letter
topics (--topic: from one; --from and --to: an offset, beginning, end, or a time (RFC 3339)).
Of an id its newest attempt counts. What is sent is put back into the table first.

It exits with 3 if some of the rows were rejected again.
` + selectionHelp + "\n" + formatHelp,
		RunE: func(cmd *cobra.Command, args []string) error {
			r.app, r.flags = a, &f
			if err := errors.Join(f.check(), r.check()); err != nil {
				return err
			}
			if from.set {
				return r.runFromTopic(cmd.Context(), &from, &sel, args)
			}
			if err := from.check(); err != nil {
				return err
			}
			filter, err := sel.filter(args...)
			if err != nil {
				return err
			}
			return r.run(cmd.Context(), named(filter, cmd))
		},
	}
	sel.add(cmd, store.RejectionOpen)
	f.add(cmd)
	from.add(cmd)
	flags := cmd.Flags()
	flags.BoolVar(&r.onlyPassing, "only-passing", false, "send what would be accepted (the default)")
	flags.BoolVar(&r.all, "all", false, "send what would fail, too")
	flags.BoolVar(&r.overwrite, "overwrite-newer", false, "write rows over what is stored, though that is newer")
	flags.StringVar(&r.seen, "seen", "", "the code that --overwrite-newer has printed of what would be undone")
	flags.Int64Var(&r.yes, "yes-overwrite", 0, fmt.Sprintf("the number of rows that are meant to be written over newer ones, where it is more than %d", overwriteMost))
	return cmd
}

// replayer replays.
type replayer struct {
	app              *app
	flags            *sendFlags
	onlyPassing, all bool
	overwrite        bool
	yes              int64
	seen             string

	edit    *dlq.Edit                              // of dlq edit
	refused []string                               // what --from-topic cannot send
	prepare func(context.Context, *dlq.Plan) error // before the job is made; nil: nothing

	config *config
	db     *store.Store
}

func (r *replayer) check() error {
	switch {
	case r.onlyPassing && r.all:
		return badCall("--only-passing and --all: say one of them")
	case !r.overwrite && (r.yes != 0 || r.seen != ""):
		return badCall("--yes-overwrite and --seen say nothing without --overwrite-newer")
	}
	return nil
}

// open reads the configuration and opens the database.
func (r *replayer) open(ctx context.Context) (err error) {
	if r.config, err = r.app.load(); err != nil {
		return err
	}
	r.db, err = r.config.openStore(ctx)
	return err
}

// run judges what a filter means, and sends it.
func (r *replayer) run(ctx context.Context, filter store.RejectionFilter) error {
	if err := r.open(ctx); err != nil {
		return err
	}
	defer r.db.Close()
	ids, err := r.db.SelectRejections(ctx, filter)
	if err != nil {
		return err
	}
	for _, id := range filter.IDs {
		if !slices.Contains(ids, id) {
			r.refused = append(r.refused, id+": there is no such dead letter among those that are meant; --from-topic looks for it in the topics")
		}
	}
	plan, diffs, err := r.plan(ctx, dlq.PagesOf(ctx, r.db, ids))
	if err != nil {
		return err
	}
	return r.finish(ctx, plan, diffs, filter.Selection())
}

// named has ids that are given by name looked at whatever their state is: one
// that is not sent is said, and why.
func named(filter store.RejectionFilter, cmd *cobra.Command) store.RejectionFilter {
	if len(filter.IDs) > 0 && !cmd.Flags().Changed("state") {
		filter.States = nil
	}
	return filter
}

// plan judges, and keeps what is to be shown of single rows.
func (r *replayer) plan(ctx context.Context, pages dlq.Pages) (*dlq.Plan, *rowDiffs, error) {
	states := []string{string(store.RejectionOpen)}
	if r.overwrite {
		states = append(states, string(store.RejectionSuperseded))
	}
	judge := dlq.NewJudge(r.config.Sources, r.config.replayTopic(), r.db, r.db, states...)
	var before *dlq.Judge
	if r.edit != nil {
		before = dlq.NewJudge(r.config.Sources, r.config.replayTopic(), r.db, r.db, states...)
	}
	diffs := &rowDiffs{most: overwriteMost, edit: r.edit != nil, overwrite: r.overwrite}
	if r.yes > 0 {
		diffs.most = r.yes
	}
	plan, err := dlq.NewPlan(ctx, judge, before, pages, dlq.Sending{All: r.all, Overwrite: r.overwrite, Edit: r.edit}, diffs.add)
	return plan, diffs, err
}

// finish shows what was judged, and sends it if it is to be done.
func (r *replayer) finish(ctx context.Context, plan *dlq.Plan, diffs *rowDiffs, selection json.RawMessage) error {
	shown := showJudged(plan, diffs)
	shown.Refused = r.refused
	if r.flags.form == "table" {
		if err := r.print(shown, plan, diffs); err != nil {
			return err
		}
	}
	if err := r.mayOverwrite(plan.Overwrites(), plan.Seen()); err != nil {
		return err
	}
	if !r.flags.execute || plan.Send() == 0 {
		return r.encode(shown)
	}
	return r.send(ctx, shown, plan, selection)
}

// print shows what was judged to a person.
func (r *replayer) print(shown *judgedShown, plan *dlq.Plan, diffs *rowDiffs) error {
	out, verb := r.app.stdout, "judged"
	if r.edit != nil {
		verb = "edited and judged"
	}
	if err := diffs.print(out); err != nil {
		return err
	}
	if err := shown.print(out, verb); err != nil {
		return err
	}
	switch {
	case plan.Send() == 0:
		fmt.Fprintln(out, "there is nothing to send")
	case !r.flags.execute:
		fmt.Fprintf(out, "%s would be sent\n", counted(plan.Send(), "row"))
		switch n := plan.Overwrites(); {
		case n > diffs.most:
			fmt.Fprintf(out, "%d of them over newer ones: --yes-overwrite %d shows what all of them would undo\n", n, n)
		case n > 0:
			fmt.Fprintf(out, "%d of them over newer ones: to write over exactly these, say --seen %s\n", n, plan.Seen())
		}
		r.app.notDone(false)
	}
	return nil
}

// mayOverwrite refuses to write over what nobody has looked at: n rows meet
// what seen names.
func (r *replayer) mayOverwrite(n int64, seen string) error {
	switch {
	case r.yes != 0 && r.yes != n:
		return badCall("--yes-overwrite %d: the rows that would be written over newer ones are %d", r.yes, n)
	case !r.flags.execute || n == 0:
		return nil
	case n > overwriteMost && r.yes == 0:
		return badCall("%d rows would be written over newer ones: --yes-overwrite %d shows them all", n, n)
	case r.seen == "":
		return badCall("%s would be written over newer ones: look at them without --execute, and say the --seen CODE that is printed then", counted(n, "row"))
	case r.seen != seen:
		return badCall("--seen %s: what would be written over is not what was shown then: look at it again without --execute", r.seen)
	}
	return nil
}

// encode prints what was judged for machines, if that was asked for.
func (r *replayer) encode(shown *judgedShown) error {
	switch r.flags.form {
	case "json":
		encoder := json.NewEncoder(r.app.stdout)
		encoder.SetEscapeHTML(false)
		return encoder.Encode(shown)
	case "csv":
		return printJudgedLines(r.app.stdout, shown.lines())
	}
	return nil
}

// send makes a job of what is to be sent, and follows it.
func (r *replayer) send(ctx context.Context, shown *judgedShown, plan *dlq.Plan, selection json.RawMessage) error {
	kind := store.JobReplay
	if r.edit != nil {
		kind = store.JobEdit
	}
	job := store.NewJob{Kind: kind, Actor: actor(), Why: r.flags.why, Rate: r.flags.rate, Selection: r.asked(selection)}
	if r.config.replayTopic() == "" {
		return badCall("replayTopic is off, so nothing can be sent again: give the configuration one")
	}
	if r.prepare != nil {
		if err := r.prepare(ctx, plan); err != nil {
			return err
		}
	}
	id, frozen, err := r.db.CreateJob(ctx, job, plan.Items(ctx, r.db))
	if err != nil {
		return err
	}
	say := func(format string, args ...any) {
		if r.flags.form == "table" {
			fmt.Fprintf(r.app.stdout, format+"\n", args...)
		}
	}
	if left := plan.Send() - frozen; left > 0 {
		r.app.warn("%s not open any more: left out", counted(left, "row"))
	}
	if id == 0 {
		say("there is nothing left to send")
		return r.encode(shown)
	}
	shown.Job, shown.Send = id, frozen
	say("job %d sends %s, %d a second at most", id, counted(frozen, "row"), r.flags.rate)
	if r.flags.detach {
		return r.encode(shown)
	}
	done, err := r.app.followJob(ctx, r.db, id)
	if err != nil {
		return err
	}
	shown.Result = &jobResult{done.State, done.Accepted, done.Rejected, done.Superseded, done.Dropped}
	say("job %d is %s: %d accepted, %d rejected again, %d superseded, %d dropped", id, done.State, done.Accepted, done.Rejected, done.Superseded, done.Dropped)
	if err := r.encode(shown); err != nil {
		return err
	}
	if done.Rejected > 0 {
		return errFault
	}
	return nil
}

// asked is what was asked for, for the record: no data of rows.
func (r *replayer) asked(selection json.RawMessage) json.RawMessage {
	said := map[string]any{}
	if json.Unmarshal(selection, &said) != nil {
		said = map[string]any{} // cannot be: it is our own
	}
	if r.all {
		said["all"] = true
	}
	if r.overwrite {
		said["overwriteNewer"] = true
	}
	if r.edit != nil {
		said["edit"] = r.edit.Columns()
	}
	text, _ := json.Marshal(said) // texts and numbers alone: cannot fail
	return text
}

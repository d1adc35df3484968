package main

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"learnsink/cmd/learnsink/dlq"
	"learnsink/consumer"
	"learnsink/handlers"
	"learnsink/store"
)

// dlqRevertCommand is `dlq revert`.
func (a *app) dlqRevertCommand() *cobra.Command {
	var topic, from, to, sender, why, form string
	var rate int
	var execute bool
	cmd := &cobra.Command{
		Use:   "revert --source TOPIC --from TIME --to TIME [--sender S] [--execute]",
		Short: "take back rows that were accepted, and should not have been sent",
		Long: `revert puts back what was there before a bad deploy upstream whose rows were accepted. For
every key that the source wrote last in the window, what the last accepted event before
it said is put back, and where there was none the row is deleted: as new rows of today, by
the source's own settings, judged first by the catalogue of now. What was written since
stays, also if that happens before the row comes to be applied.

The window is of when rows were applied, by the database's clock (table ledger). What was
there before is read from the topics of accepted events: revert reaches as far back as
they do, and leaves alone, and counts, what may be older. Interventions cannot be
deleted: those that were new are left alone too.

Without --execute nothing is sent: it says how many rows there are, and shows a few. With
--execute they are frozen into a job that learnsink serve runs.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, client, err := a.kafka()
			if err != nil {
				return err
			}
			defer client.Close()
			r := &dlq.Revert{Now: time.Now().UTC().Truncate(time.Microsecond), Events: &acceptedEvents{client}}
			if r.Source = c.sourceNamed(topic); r.Source == nil {
				return badCall("--source %q is no source of this configuration", topic)
			}
			if r.From, r.To, err = window(from, to, r.Now); err != nil {
				return err
			}
			if cmd.Flags().Changed("sender") {
				r.Sender = &sender
			}
			switch {
			case execute && strings.TrimSpace(why) == "":
				return badCall("--why is missing: say what went wrong, for those who read it later")
			case rate < 1:
				return badCall("--rate %d is no number of rows a second", rate)
			}
			r.Accepted = acceptedTopics(c, r.Source.Rules.Action())
			db, err := c.openStore(cmd.Context())
			if err != nil {
				return err
			}
			defer db.Close()
			r.Books, r.Catalogue, r.Tables = db, db, db
			return a.revert(cmd.Context(), db, r, revertJob{why, form, rate, execute})
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&topic, "source", "", "the source topic whose rows are taken back (required)")
	flags.StringVar(&from, "from", "", "applied since: a time in RFC 3339, or how long ago (90m, 2h) (required)")
	flags.StringVar(&to, "to", "", "applied before: likewise (default: now)")
	flags.StringVar(&sender, "sender", "", "only rows of this sender (ce_source); '' is those that name none")
	flags.StringVar(&why, "why", "", "the reason, for those who read it later (with --execute)")
	formatFlag(cmd, &form)
	flags.IntVar(&rate, "rate", store.DefaultJobRate, "rows a second, at most")
	flags.BoolVar(&execute, "execute", false, "do it; else it is only shown")
	return cmd
}

// window reads the ends of a window of time.
func window(from, to string, now time.Time) (start, end time.Time, err error) {
	if from == "" {
		return start, end, badCall("--from is missing: say since when rows were applied that are to be taken back")
	}
	if start, err = parseWhen("--from", from, now); err != nil {
		return start, end, err
	}
	if end = now; to != "" {
		if end, err = parseWhen("--to", to, now); err != nil {
			return start, end, err
		}
	}
	if !start.Before(end) {
		return start, end, badCall("nothing is from %s to %s", start.Format(time.RFC3339), end.Format(time.RFC3339))
	}
	return start, end, nil
}

// acceptedTopics are those that take accepted events of an action.
func acceptedTopics(c *config, action handlers.Action) (topics []string) {
	for _, s := range c.Sources {
		if s.Rules.Action() == action && !slices.Contains(topics, s.AcceptedTopic) {
			topics = append(topics, s.AcceptedTopic)
		}
	}
	return topics
}

// revertJob is what is to be done with what a revert has found.
type revertJob struct {
	why, form string
	rate      int
	execute   bool
}

// revertExamples is how many rows are shown.
const revertExamples = 5

// revert looks, judges, shows, and sends where it is told to.
func (a *app) revert(ctx context.Context, db *store.Store, r *dlq.Revert, do revertJob) error {
	say := func(format string, args ...any) {
		if do.form == "table" {
			fmt.Fprintf(a.stdout, format+"\n", args...)
		}
	}
	p, err := newPrinter(a.stdout, do.form, revertColumns())
	if err != nil {
		return err
	}
	say("%s: what was applied from %s to %s", r.Source.Topic, r.From.UTC().Format(time.RFC3339), r.To.UTC().Format(time.RFC3339))
	counts, err := r.Look(ctx)
	if err != nil {
		return err
	}
	say("%d rows were accepted then; %d keys hold what one of them wrote", counts.Rows, counts.Keys)
	for _, topic := range slices.Sorted(maps.Keys(counts.Reach)) {
		say("%s reaches back to %s: what is older is not known", topic, reach(counts.Reach[topic]))
	}
	var shown []dlq.Back
	rows := func(yield func(store.JobItem, error) bool) {
		shown = shown[:0]
		for back, err := range r.Rows(ctx, &counts) {
			if len(shown) < revertExamples && err == nil {
				shown = append(shown, back)
			}
			if !yield(back.Item, err) {
				return
			}
		}
	}
	var job int64
	if do.execute {
		job, _, err = db.CreateJob(ctx, store.NewJob{Kind: store.JobRevert, Actor: actor(), Why: do.why, Rate: do.rate, Selection: r.Selection()}, rows)
	} else {
		err = drain(rows)
	}
	if err != nil {
		return err
	}
	if err := p.printAll(revertLines(&counts)); err != nil || do.form != "table" {
		return err
	}
	a.showReverted(shown)
	switch {
	case job > 0:
		say("job %d sends %d rows: `learnsink dlq jobs` tells how far it is", job, counts.PutBack+counts.Deleted)
	case do.execute || counts.PutBack+counts.Deleted == 0:
		say("there is nothing to put back")
	default:
		a.notDone(false)
	}
	return nil
}

// revertLine is how many keys there are of which one thing becomes.
type revertLine struct {
	Outcome string `json:"outcome"` // put back, deleted, left alone
	Keys    int64  `json:"keys"`
	Why     string `json:"why,omitempty"`
}

func revertColumns() []printColumn[revertLine] {
	return []printColumn[revertLine]{
		{name: "outcome", text: func(l *revertLine) string { return l.Outcome }},
		{name: "keys", text: func(l *revertLine) string { return fmt.Sprint(l.Keys) }},
		{name: "why", text: func(l *revertLine) string { return l.Why }},
	}
}

func revertLines(counts *dlq.RevertCounts) []revertLine {
	lines := []revertLine{{"put back", counts.PutBack, ""}, {"deleted", counts.Deleted, ""}}
	for _, why := range slices.Sorted(maps.Keys(counts.Left)) {
		if n := counts.Left[why]; n > 0 {
			lines = append(lines, revertLine{"left alone", n, string(why)})
		}
	}
	return lines
}

// reach is since when a topic holds all; zero: it holds nothing any more.
func reach(since time.Time) string {
	if since.IsZero() {
		return "now, and holds nothing"
	}
	return since.UTC().Format(time.RFC3339)
}

// drain goes through all rows, for what they come to.
func drain(rows iter.Seq2[store.JobItem, error]) error {
	for _, err := range rows {
		if err != nil {
			return err
		}
	}
	return nil
}

// showReverted prints a few rows, from what is stored to what is put back.
func (a *app) showReverted(shown []dlq.Back) {
	for _, back := range shown {
		what := ""
		if back.Deletes {
			what = " (deleted)"
		}
		fmt.Fprintf(a.stdout, "  %s%s\n", back.Subject, what)
		for _, d := range back.Diff {
			fmt.Fprintf(a.stdout, "    %s: %s -> %s\n", d.Column, textOrDash(d.Stored), textOrDash(d.Row))
		}
	}
}

func textOrDash(text *string) string {
	if text == nil {
		return "-"
	}
	return *text
}

// acceptedEvents reads topics of accepted events, as far as they are stable.
type acceptedEvents struct{ client *consumer.Client }

// Each is dlq.Events'.
func (e *acceptedEvents) Each(ctx context.Context, topic string, fn func(*handlers.Record) error) (whole bool, since time.Time, err error) {
	ends, err := offsets(ctx, e.client.StableOffsets, topic)
	if err != nil {
		return false, since, err
	}
	whole = true
	for _, partition := range slices.Sorted(maps.Keys(ends)) {
		begins, from, err := e.partition(ctx, topic, partition, ends[partition], fn)
		if err != nil {
			return false, since, err
		}
		if from > 0 {
			whole = false
			if begins.After(since) {
				since = begins
			}
		}
	}
	return whole, since, nil
}

// partition hands out what a partition holds, and says from which offset on,
// and since when, it has held it all.
func (e *acceptedEvents) partition(ctx context.Context, topic string, partition int, end int64, fn func(*handlers.Record) error) (since time.Time, from int64, err error) {
	for at := int64(0); ; {
		starts, err := offsets(ctx, e.client.StartOffsets, topic)
		if err != nil {
			return since, 0, err
		}
		if first := starts[partition]; first > at {
			at, from, since = first, first, time.Time{} // retention was faster than reading
		}
		err = e.client.ReadRange(ctx, topic, partition, at, end, func(r *handlers.Record) error {
			if at = r.Offset + 1; since.IsZero() {
				since = r.Timestamp
			}
			return fn(r)
		})
		var stop *consumer.StopError
		if !errors.As(err, &stop) || stop.State != handlers.DataLost {
			return since, from, err
		}
	}
}

// apart is how far apart offsets are read for themselves.
const apart = 20_000

// At is dlq.Events'.
func (e *acceptedEvents) At(ctx context.Context, tp handlers.TopicPartition, at []int64, fn func(*handlers.Record) error) error {
	for len(at) > 0 {
		n := 1
		for n < len(at) && at[n]-at[n-1] < apart {
			n++
		}
		run := at[:n]
		at = at[n:]
		err := e.client.ReadRange(ctx, tp.Topic, tp.Partition, run[0], run[n-1]+1, func(r *handlers.Record) error {
			if _, asked := slices.BinarySearch(run, r.Offset); !asked {
				return nil
			}
			return fn(r)
		})
		var stop *consumer.StopError
		if err != nil && (!errors.As(err, &stop) || stop.State != handlers.DataLost) {
			return err
		}
	}
	return nil
}

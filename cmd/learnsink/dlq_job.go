package main

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"

	"learnsink/store"
)

// dlqJobsCommand is `dlq jobs`.
func (a *app) dlqJobsCommand() *cobra.Command {
	var form string
	cmd := &cobra.Command{
		Use:   "jobs",
		Short: "list the jobs that send rows again",
		Long: `jobs lists the jobs that send rows again, the latest first: how many of their rows are not
sent yet (pending), sent and without an outcome (sent), and what became of the others.
Dropped are rows of a cancelled job, and those whose dead letter is gone or too large.
` + formatHelp,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withJobs(cmd.Context(), func(ctx context.Context, db *store.Store) error {
				jobs, err := db.Jobs(ctx)
				if err != nil {
					return err
				}
				return a.printJobs(ctx, db, form, jobs...)
			})
		},
	}
	formatFlag(cmd, &form)
	return cmd
}

// dlqJobCommand is `dlq job ID`, and what can be done with a job.
func (a *app) dlqJobCommand() *cobra.Command {
	var form string
	var follow bool
	cmd := &cobra.Command{
		Use:   "job ID [--follow]",
		Short: "show a job; pause, resume or cancel it",
		Long: `job shows a job as jobs does. --follow shows how it goes on until every row has its outcome,
or it is paused, and exits with 3 if any was rejected again. What was sent gets its outcome whatever becomes
of the job.
` + formatHelp,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := jobID(args[0])
			if err != nil {
				return err
			}
			return a.withJobs(cmd.Context(), func(ctx context.Context, db *store.Store) error {
				j, err := db.Job(ctx, id)
				if err == nil && follow {
					j, err = a.followJob(ctx, db, id)
				}
				if err != nil {
					return err
				}
				if err := a.printJobs(ctx, db, form, j); err != nil {
					return err
				}
				if follow && j.Rejected > 0 {
					return errFault
				}
				return nil
			})
		},
	}
	formatFlag(cmd, &form)
	cmd.Flags().BoolVar(&follow, "follow", false, "show how it goes on, until every row has its outcome")
	cmd.AddCommand(
		a.turnJobCommand("pause", "hold a job where it is, until it is resumed", (*store.Store).PauseJob),
		a.turnJobCommand("resume", "let a paused job go on", (*store.Store).ResumeJob),
		a.turnJobCommand("cancel", "end a job: what is not sent goes back to where it came from", (*store.Store).CancelJob),
	)
	return cmd
}

// turnJobCommand is a verb that changes a job, at once and with a line of audit.
func (a *app) turnJobCommand(verb, short string, turn func(*store.Store, context.Context, int64, store.Operator) error) *cobra.Command {
	var why string
	cmd := &cobra.Command{
		Use:   verb + " ID --why TEXT",
		Short: short,
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := jobID(args[0])
			if err != nil {
				return err
			}
			if why == "" {
				return badCall("--why is missing: say the reason, for those who read it later")
			}
			return a.withJobs(cmd.Context(), func(ctx context.Context, db *store.Store) error {
				if err := turn(db, ctx, id, store.Operator{Actor: actor(), Why: why}); err != nil {
					return err
				}
				j, err := db.Job(ctx, id)
				if err != nil {
					return err
				}
				fmt.Fprintf(a.stdout, "job %d is %s: %d of %d rows are sent", id, j.State, j.Items-j.Pending-j.Dropped, j.Items)
				if j.Dropped > 0 {
					fmt.Fprintf(a.stdout, ", %d are dropped", j.Dropped)
				}
				fmt.Fprintln(a.stdout)
				return nil
			})
		},
	}
	cmd.Flags().StringVar(&why, "why", "", "the reason, for those who read it later (required)")
	return cmd
}

func jobID(text string) (int64, error) {
	id, err := strconv.ParseInt(text, 10, 64)
	if err != nil || id < 1 {
		return 0, badCall("%q is no number of a job: `learnsink dlq jobs` lists them", text)
	}
	return id, nil
}

// withJobs opens the database for a verb.
func (a *app) withJobs(ctx context.Context, verb func(context.Context, *store.Store) error) error {
	c, err := a.load()
	if err != nil {
		return err
	}
	db, err := c.openStore(ctx)
	if err != nil {
		return err
	}
	defer db.Close()
	return verb(ctx, db)
}

// shownJob is a job as it is printed.
type shownJob struct {
	Job        int64      `json:"job"`
	Kind       string     `json:"kind"`
	State      string     `json:"state"`
	Waits      string     `json:"waits,omitempty"`
	Rate       int        `json:"rate"`
	Rows       int64      `json:"rows"`
	Pending    int64      `json:"pending"`
	Sent       int64      `json:"sent"`
	Accepted   int64      `json:"accepted"`
	Rejected   int64      `json:"rejected"`
	Superseded int64      `json:"superseded"`
	Dropped    int64      `json:"dropped"`
	CreatedAt  time.Time  `json:"createdAt"`
	EndedAt    *time.Time `json:"endedAt"`
	Actor      string     `json:"actor"`
	Why        string     `json:"why"`
}

func jobColumns() []printColumn[shownJob] {
	number := func(of func(*shownJob) int64) func(*shownJob) string {
		return func(j *shownJob) string { return strconv.FormatInt(of(j), 10) }
	}
	return []printColumn[shownJob]{
		{name: "job", text: number(func(j *shownJob) int64 { return j.Job })},
		{name: "kind", text: func(j *shownJob) string { return j.Kind }},
		{name: "state", text: func(j *shownJob) string { return j.State }},
		{name: "waits", text: func(j *shownJob) string { return j.Waits }, only: "csv"},
		{name: "rate", text: number(func(j *shownJob) int64 { return int64(j.Rate) })},
		{name: "rows", text: number(func(j *shownJob) int64 { return j.Rows })},
		{name: "pending", text: number(func(j *shownJob) int64 { return j.Pending })},
		{name: "sent", text: number(func(j *shownJob) int64 { return j.Sent })},
		{name: "accepted", text: number(func(j *shownJob) int64 { return j.Accepted })},
		{name: "rejected", text: number(func(j *shownJob) int64 { return j.Rejected })},
		{name: "superseded", text: number(func(j *shownJob) int64 { return j.Superseded })},
		{name: "dropped", text: number(func(j *shownJob) int64 { return j.Dropped })},
		{name: "createdAt", text: func(j *shownJob) string { return moment(j.CreatedAt) }},
		{name: "endedAt", only: "csv", text: func(j *shownJob) string {
			if j.EndedAt == nil {
				return ""
			}
			return moment(*j.EndedAt)
		}},
		{name: "actor", text: func(j *shownJob) string { return j.Actor }},
		{name: "why", text: func(j *shownJob) string { return j.Why }},
	}
}

// noServe is why nothing moves where no process has the right to send.
const noServe = "no learnsink serve runs that sends them"

// printJobs prints jobs, and why those that run do not move.
func (a *app) printJobs(ctx context.Context, db *store.Store, form string, jobs ...store.Job) error {
	serves, err := db.Dispatching(ctx)
	if err != nil {
		return err
	}
	p, err := newPrinter(a.stdout, form, jobColumns())
	if err != nil {
		return err
	}
	p.notes = func(j *shownJob) []string {
		if j.Waits == "" {
			return nil
		}
		return []string{"it waits: " + j.Waits}
	}
	shown := make([]shownJob, len(jobs))
	for i := range jobs {
		j := &jobs[i]
		shown[i] = shownJob{Job: j.ID, Kind: j.Kind, State: j.State, Waits: waitsFor(j, serves), Rate: j.Rate, Rows: j.Items, Pending: j.Pending, Sent: j.Sent,
			Accepted: j.Accepted, Rejected: j.Rejected, Superseded: j.Superseded, Dropped: j.Dropped,
			CreatedAt: j.CreatedAt, EndedAt: optTime(j.EndedAt), Actor: j.Actor, Why: j.Why}
	}
	return p.printAll(shown)
}

// waitsFor says why a job does not go on; "": it does, or has nothing to wait for.
func waitsFor(j *store.Job, serves bool) string {
	switch {
	case j.State == store.JobPaused:
		return fmt.Sprintf("it is paused: `learnsink dlq job resume %d --why TEXT` lets it go on", j.ID)
	case j.Settled():
		return ""
	case !serves:
		return noServe
	}
	return j.Waits
}

// followPatience is for how long a job may stand still before it is said why.
const followPatience = 3 * time.Second

// followJob shows on stderr how a job goes on, until every row of it has its
// outcome or somebody pauses it, and returns it as it is then. It only looks:
// where the call is ended before, the job goes on.
func (a *app) followJob(ctx context.Context, db *store.Store, id int64) (store.Job, error) {
	f := follower{app: a, id: id, moved: time.Now()}
	defer f.end()
	for {
		asked := time.Now()
		j, err := db.Job(ctx, id)
		serves := false
		if err == nil {
			serves, err = db.Dispatching(ctx)
		}
		switch {
		case ctx.Err() != nil:
			f.end()
			a.warn("job %d goes on by itself: `learnsink dlq job %d --follow` shows it again", id, id)
			return j, ctx.Err()
		case err != nil && store.Classify(err) != store.Transient:
			return j, err
		case err != nil:
			f.say("the database does not answer: " + err.Error())
		case j.Settled(), j.State == store.JobPaused:
			return j, nil
		default:
			f.show(&j, serves)
		}
		// A large job takes a moment to count.
		select {
		case <-time.After(max(200*time.Millisecond, 10*time.Since(asked))):
		case <-ctx.Done():
		}
	}
}

// follower shows how a job goes on: by a bar to people, by a line now and then
// to others.
type follower struct {
	app   *app
	id    int64
	bar   *progressbar.ProgressBar
	last  store.JobCounts
	moved time.Time // when it last did
	lined time.Time // when the last line was written
	said  string
}

// show shows a job as it stands.
func (f *follower) show(j *store.Job, serves bool) {
	if j.JobCounts != f.last {
		f.last, f.moved, f.said = j.JobCounts, time.Now(), ""
	}
	done := j.Accepted + j.Rejected + j.Superseded + j.Dropped
	if f.app.terminal(f.app.stderr) {
		if f.bar == nil {
			f.bar = progressbar.NewOptions64(j.Items, progressbar.OptionSetWriter(f.app.stderr), progressbar.OptionShowCount(), progressbar.OptionShowIts(),
				progressbar.OptionSetItsString("rows"), progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionClearOnFinish())
		}
		f.bar.Describe(fmt.Sprintf("job %d, %s", j.ID, j.State))
		_ = f.bar.Set64(done)
	} else if time.Since(f.lined) >= 10*time.Second {
		if !f.lined.IsZero() {
			f.app.warn("job %d, %s: %d of %d rows have their outcome, %d are on their way, %d are to be sent", j.ID, j.State, done, j.Items, j.Sent, j.Pending)
		}
		f.lined = time.Now()
	}
	if time.Since(f.moved) < followPatience {
		return
	}
	why := waitsFor(j, serves)
	if why == "" && j.Pending == 0 {
		why = fmt.Sprintf("%d rows are on the replay topic and have no outcome yet: `learnsink status` shows how far it is applied", j.Sent)
	}
	if why != "" {
		f.say(fmt.Sprintf("job %d waits: %s", j.ID, why))
	}
}

// say says something once, until something moves.
func (f *follower) say(what string) {
	if what == f.said {
		return
	}
	f.said = what
	if f.bar != nil {
		_ = f.bar.Clear()
	}
	f.app.warn("%s", what)
}

// end takes the bar away.
func (f *follower) end() {
	if f.bar != nil {
		_ = f.bar.Exit()
		f.bar = nil
	}
}

package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"learnsink/handlers"
)

// The kinds of jobs.
const (
	JobReplay  = "replay"  // dead letters, as they were
	JobEdit    = "edit"    // dead letters, with another value
	JobRevert  = "revert"  // rows of learnsink's own
	JobRelease = "release" // rows of the waiting room
	// JobAnnounce: records that are published as they are, to the topic that
	// each names as its source. They have no outcome: once sent, they are done.
	JobAnnounce = "announce"
)

// The states of a job.
const (
	JobRunning   = "running"
	JobPaused    = "paused"
	JobCancelled = "cancelled" // what was not sent never will be
	JobDone      = "done"      // all is sent; outcomes may still be to come
)

// The verbs by which jobs leave a line in operation.
const (
	VerbJobCreate = "job create"
	VerbJobPause  = "job pause"
	VerbJobResume = "job resume"
	VerbJobCancel = "job cancel"
)

// Errors of jobs.
var (
	// ErrNoJob: there is no job of that number, or not any more.
	ErrNoJob = errors.New("there is no such job: `learnsink dlq jobs` lists them")
	// ErrJobEnded: the job is done or cancelled.
	ErrJobEnded = errors.New("the job has ended")
)

// DefaultJobRate is how many rows a job sends in a second, unless told.
const DefaultJobRate = 500

// NewJob is a job to be.
type NewJob struct {
	Kind       string
	Actor, Why string
	Rate       int             // rows a second, at most. 0: DefaultJobRate
	Selection  json.RawMessage // what was asked for, as JSON; no data of rows. nil: {}
}

// JobItem is a row that is to be sent again.
type JobItem struct {
	// Rejection is the dead letter's id; "": a row of learnsink's own.
	Rejection string
	// SourceTopic names the source whose rules and topics are meant, EventAt
	// is the event's time. "" and the zero time: the rejection's.
	SourceTopic string
	EventAt     time.Time
	// Key, Value and Headers are what is sent; where one of them is nil, the
	// rejection's are. Of learnsink's headers (handlers.Replay) a row of
	// learnsink's own may have those that say what it was: replay-of, attempt,
	// source.partition and source.offset.
	Key, Value []byte
	Headers    []handlers.Header
	// Overwrite is what was seen to be stored, and is to be overwritten though
	// newer. "": the order by event time holds.
	Overwrite string
	// Edit is the patch that made the value, for the record. nil: none.
	Edit json.RawMessage
}

// Job is rows that are sent again.
type Job struct {
	ID          int64
	Kind, State string
	Operator
	Selection json.RawMessage
	Rate      int
	CreatedAt time.Time
	EndedAt   time.Time // zero: it has not ended
	JobCounts
	// Waits says why a job that runs does not move; "": it does, or nobody knows.
	Waits string
}

// Ended reports whether nothing more is sent.
func (j *Job) Ended() bool { return j.State == JobDone || j.State == JobCancelled }

// Settled reports whether nothing more is sent and every outcome is there.
func (j *Job) Settled() bool { return j.Ended() && j.Sent == 0 }

// JobCounts are the rows of a job by what has become of them; all of them
// together are Items.
type JobCounts struct {
	Items                          int64
	Pending                        int64 // not sent yet
	Sent                           int64 // on the replay topic, without an outcome yet
	Accepted, Rejected, Superseded int64
	Dropped                        int64 // cancelled, or what there was to send is gone
}

// jobTakes is the state that a job of a kind takes rejections from, and gives
// them back to.
func jobTakes(kind string) string {
	if kind == JobRelease {
		return "waiting"
	}
	return "open"
}

// CreateJob freezes a list of rows as a job, in one transaction: the dispatcher
// of serve sends them, in the order of their source topic, partition and
// offset, and those of learnsink's own as they come. Dead letters that are to
// be sent become replaying. Those that are not open (for a release: waiting; to
// be written over what is newer: superseded, too) by now are left out, as is what comes twice: frozen is how many rows the job
// has. Without any there is no job, and id is 0. An error of items undoes it all.
//
// After an error of the connection the job may be there. To create it again
// does no harm: its rows are replaying then, and left out.
func (s *Store) CreateJob(ctx context.Context, j NewJob, items iter.Seq2[JobItem, error]) (id, frozen int64, err error) {
	defer wrap(&err, "create the job")
	if err := j.check(); err != nil {
		return 0, 0, err
	}
	err = s.operating(ctx, func(tx pgx.Tx) error {
		id, frozen = 0, 0
		// Nobody else sees the temporary table: vacuum does not come by, and
		// without statistics the joins below would be planned for a handful.
		if _, err := tx.Exec(ctx, createJobStaging); err != nil {
			return err
		}
		rows := newJobRows(items)
		defer rows.stop()
		asked, err := tx.CopyFrom(ctx, pgx.Identifier{"job_new"}, jobStagingColumns, rows)
		if rows.err != nil {
			return rows.err // not what the server says of it
		}
		if err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, "ANALYZE job_new"); err != nil {
			return err
		}
		if err := tx.QueryRow(ctx, insertJob, j.Kind, storable(j.Actor), storable(j.Why), string(j.Selection), j.Rate).Scan(&id); err != nil {
			return err
		}
		// Locked by id, as apply locks them.
		tag, err := tx.Exec(ctx, freezeJob, id, jobTakes(j.Kind))
		if err != nil {
			return err
		}
		if frozen = tag.RowsAffected(); frozen == 0 {
			return errNothing
		}
		if _, err := tx.Exec(ctx, "UPDATE learnsink.job SET items = $2 WHERE id = $1", id, frozen); err != nil {
			return err
		}
		return note(ctx, tx, Operator{j.Actor, j.Why}, VerbJobCreate, handlers.TopicPartition{}, map[string]any{
			"job": id, "kind": j.Kind, "rows": frozen, "leftOut": asked - frozen, "rate": j.Rate, "selection": j.Selection})
	})
	if errors.Is(err, errNothing) {
		return 0, 0, nil
	}
	if err != nil {
		return 0, 0, err
	}
	return id, frozen, nil
}

// errNothing takes back a job without rows.
var errNothing = errors.New("nothing to send")

// check refuses what cannot be meant, and fills defaults in.
func (j *NewJob) check() error {
	if !slices.Contains([]string{JobReplay, JobEdit, JobRevert, JobRelease}, j.Kind) {
		return fmt.Errorf("%q is no kind of job", j.Kind)
	}
	if j.Rate == 0 {
		j.Rate = DefaultJobRate
	}
	if j.Rate < 0 {
		return fmt.Errorf("a rate of %d rows a second is none", j.Rate)
	}
	if j.Selection == nil {
		j.Selection = json.RawMessage("{}")
	}
	return nil
}

// jobRows hands items to COPY.
type jobRows struct {
	next func() (JobItem, error, bool)
	stop func()
	n    int64
	row  []any
	err  error
}

func newJobRows(items iter.Seq2[JobItem, error]) *jobRows {
	r := &jobRows{}
	r.next, r.stop = iter.Pull2(items)
	return r
}

// Next goes on to the next item; false where there is none, or it failed.
func (r *jobRows) Next() bool {
	item, err, ok := r.next()
	if ok && err == nil && item.Rejection == "" && (item.SourceTopic == "" || item.EventAt.IsZero()) {
		err = errors.New("a row that is no dead letter's needs a source topic and a time")
	}
	if !ok || err != nil {
		r.err = err
		return false
	}
	r.n++
	optional := func(text string) any {
		if text == "" {
			return nil
		}
		return text
	}
	var eventAt, headers, edit any
	if !item.EventAt.IsZero() {
		eventAt = item.EventAt
	}
	if item.Headers != nil {
		headers = headersJSON(item.Headers)
	}
	if item.Edit != nil {
		edit = string(item.Edit)
	}
	r.row = []any{r.n, optional(item.Rejection), optional(item.SourceTopic), eventAt, item.Key, item.Value, headers, optional(item.Overwrite), edit}
	return true
}

// Values returns the item that Next went to.
func (r *jobRows) Values() ([]any, error) { return r.row, nil }

// Err returns why Next came to an end before its time.
func (r *jobRows) Err() error { return r.err }

var jobStagingColumns = []string{"place", "rejection", "source_topic", "event_at", "key", "value", "headers", "overwrite", "edit"}

const (
	createJobStaging = `CREATE TEMP TABLE job_new (place bigint, rejection text COLLATE "C", source_topic text COLLATE "C", event_at timestamptz,
	key bytea, value bytea, headers jsonb, overwrite text COLLATE "C", edit jsonb) ON COMMIT DROP`

	insertJob = `INSERT INTO learnsink.job (kind, actor, why, selection, rate, items) VALUES ($1, $2, $3, $4::text::jsonb, $5, 0) RETURNING id`

	// freezeJob numbers the rows from 1 on without a gap: the first so many of
	// them (job.sent) are those that have gone.
	freezeJob = `
WITH locked AS MATERIALIZED (
  SELECT r.id FROM learnsink.rejection r
  WHERE r.id IN (SELECT rejection FROM job_new) AND (r.state = $2
    OR r.state = 'superseded' AND r.id IN (SELECT rejection FROM job_new WHERE overwrite IS NOT NULL))
  ORDER BY r.id FOR UPDATE
), taken AS (
  UPDATE learnsink.rejection r SET state = 'replaying', job = $1 FROM locked WHERE r.id = locked.id
  RETURNING r.id, r.source_topic, r.source_partition, r.incarnation, r.source_offset, r.event_at
), first AS (
  SELECT DISTINCT ON (rejection) place FROM job_new WHERE rejection IS NOT NULL ORDER BY rejection, place
)
INSERT INTO learnsink.job_item (job, seq, rejection, source_topic, event_at, key, value, headers, overwrite, edit)
SELECT $1, row_number() OVER (ORDER BY coalesce(n.source_topic, t.source_topic), t.source_partition NULLS LAST, t.incarnation, t.source_offset, n.place),
  n.rejection, coalesce(n.source_topic, t.source_topic), coalesce(n.event_at, t.event_at), n.key, n.value, n.headers, n.overwrite, n.edit
FROM job_new n LEFT JOIN taken t ON t.id = n.rejection
WHERE n.rejection IS NULL OR t.id IS NOT NULL AND n.place IN (SELECT place FROM first)`
)

// jobColumns: the counts are of the job's items, the rest its own.
const selectJobs = `
SELECT j.id, j.kind, j.state, j.actor, j.why, j.selection, j.rate, j.created_at, j.ended_at, j.items,
  coalesce(c.pending, 0), coalesce(c.sent, 0), coalesce(c.accepted, 0), coalesce(c.rejected, 0), coalesce(c.superseded, 0), coalesce(c.dropped, 0),
  CASE j.state WHEN 'running' THEN d.reason ELSE '' END
FROM learnsink.job j CROSS JOIN learnsink.dispatcher d LEFT JOIN LATERAL (
  SELECT count(*) FILTER (WHERE i.state = 'pending') AS pending, count(*) FILTER (WHERE i.state = 'sent') AS sent,
    count(*) FILTER (WHERE i.state = 'accepted') AS accepted, count(*) FILTER (WHERE i.state = 'rejected') AS rejected,
    count(*) FILTER (WHERE i.state = 'superseded') AS superseded, count(*) FILTER (WHERE i.state = 'dropped') AS dropped
  FROM learnsink.job_item i WHERE i.job = j.id
) c ON true `

func scanJob(row pgx.CollectableRow) (j Job, err error) {
	var ended *time.Time
	err = row.Scan(&j.ID, &j.Kind, &j.State, &j.Actor, &j.Why, &j.Selection, &j.Rate, &j.CreatedAt, &ended, &j.Items,
		&j.Pending, &j.Sent, &j.Accepted, &j.Rejected, &j.Superseded, &j.Dropped, &j.Waits)
	j.CreatedAt = j.CreatedAt.UTC()
	if ended != nil {
		j.EndedAt = ended.UTC()
	}
	return j, err
}

// Job returns a job as it stands; ErrNoJob where there is none.
func (s *Store) Job(ctx context.Context, id int64) (j Job, err error) {
	defer wrap(&err, "read the job")
	rows, err := s.pool.Query(ctx, selectJobs+"WHERE j.id = $1", id)
	if err != nil {
		return j, err
	}
	j, err = pgx.CollectExactlyOneRow(rows, scanJob)
	if errors.Is(err, pgx.ErrNoRows) {
		return j, fmt.Errorf("job %d: %w", id, ErrNoJob)
	}
	return j, err
}

// Jobs returns every job that is kept, the latest first.
func (s *Store) Jobs(ctx context.Context) (jobs []Job, err error) {
	defer wrap(&err, "read the jobs")
	err = s.reading(ctx, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, selectJobs+"ORDER BY j.id DESC")
		if err != nil {
			return err
		}
		jobs, err = pgx.CollectRows(rows, scanJob)
		return err
	})
	return jobs, err
}

// JobsLeft is what jobs have left to send.
type JobsLeft struct{ Running, Paused, Rows int64 }

// JobsLeft counts the jobs that have not ended, and the rows of those that run.
func (s *Store) JobsLeft(ctx context.Context) (left JobsLeft, err error) {
	defer wrap(&err, "count the jobs")
	err = s.pool.QueryRow(ctx, `SELECT count(*) FILTER (WHERE state = 'running'), count(*) FILTER (WHERE state = 'paused'),
		coalesce(sum(items - sent) FILTER (WHERE state = 'running'), 0)::bigint FROM learnsink.job`).Scan(&left.Running, &left.Paused, &left.Rows)
	return left, err
}

// PauseJob holds a job where it is until ResumeJob: rows that are sent already
// get their outcomes. One that is paused stays as it is. ErrNoJob, ErrJobEnded.
func (s *Store) PauseJob(ctx context.Context, id int64, by Operator) (err error) {
	defer wrap(&err, "pause the job")
	return s.turnJob(ctx, id, JobPaused, VerbJobPause, by)
}

// ResumeJob lets a paused job go on. One that runs stays as it is. ErrNoJob,
// ErrJobEnded.
func (s *Store) ResumeJob(ctx context.Context, id int64, by Operator) (err error) {
	defer wrap(&err, "resume the job")
	return s.turnJob(ctx, id, JobRunning, VerbJobResume, by)
}

// CancelJob ends a job: what is not sent yet never will be, and goes back to
// where it came from. What is sent gets its outcome all the same. One that is
// cancelled stays as it is. ErrNoJob, ErrJobEnded of one that is done.
func (s *Store) CancelJob(ctx context.Context, id int64, by Operator) (err error) {
	defer wrap(&err, "cancel the job")
	return s.turnJob(ctx, id, JobCancelled, VerbJobCancel, by)
}

// turnJob brings a job into another state, under its lock: nothing of it is
// sent meanwhile.
func (s *Store) turnJob(ctx context.Context, id int64, to, verb string, by Operator) error {
	return s.operating(ctx, func(tx pgx.Tx) error {
		var was, kind string
		err := tx.QueryRow(ctx, "SELECT state, kind FROM learnsink.job WHERE id = $1 FOR UPDATE", id).Scan(&was, &kind)
		switch {
		case errors.Is(err, pgx.ErrNoRows):
			return fmt.Errorf("job %d: %w", id, ErrNoJob)
		case err != nil:
			return err
		case was == to:
			return nil
		case was == JobDone || was == JobCancelled:
			return fmt.Errorf("job %d: %w: it is %s", id, ErrJobEnded, was)
		}
		detail := map[string]any{"job": id, "kind": kind, "state": was}
		if to == JobCancelled {
			tag, err := tx.Exec(ctx, dropPending, id, jobTakes(kind))
			if err != nil {
				return err
			}
			detail["dropped"] = tag.RowsAffected()
		}
		if _, err := tx.Exec(ctx, `UPDATE learnsink.job SET state = $2, ended_at = CASE $2 WHEN 'cancelled' THEN now() END WHERE id = $1`, id, to); err != nil {
			return err
		}
		return note(ctx, tx, by, verb, handlers.TopicPartition{}, detail)
	})
}

// dropPending takes what is not sent out of a job. A dead letter that is in
// another state by now, or in another job, stays as it is.
const dropPending = `
WITH dropped AS (
  UPDATE learnsink.job_item i SET state = 'dropped' FROM learnsink.job j
  WHERE j.id = $1 AND i.job = j.id AND i.seq > j.sent AND i.state = 'pending' RETURNING i.rejection
), locked AS MATERIALIZED (
  SELECT r.id FROM learnsink.rejection r WHERE r.id IN (SELECT rejection FROM dropped) AND r.state = 'replaying' AND r.job = $1
  ORDER BY r.id FOR UPDATE
), back AS (
  UPDATE learnsink.rejection r SET state = $2 FROM locked WHERE r.id = locked.id
)
SELECT FROM dropped`

// DropJobs deletes the jobs that ended before a time, with their rows, a few
// thousand a transaction, and returns how many jobs those were. One whose rows
// do not all have their outcome stays.
func (s *Store) DropJobs(ctx context.Context, before time.Time) (dropped int64, err error) {
	defer wrap(&err, "drop old jobs")
	rows, err := s.pool.Query(ctx, `SELECT id FROM learnsink.job j WHERE ended_at < $1
		AND NOT EXISTS (SELECT FROM learnsink.job_item i WHERE i.job = j.id AND i.state IN ('pending', 'sent')) ORDER BY id`, before)
	if err != nil {
		return 0, err
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if err != nil {
		return 0, err
	}
	for _, id := range ids {
		for {
			tag, err := s.pool.Exec(ctx, `DELETE FROM learnsink.job_item WHERE job = $1 AND seq = ANY (ARRAY(
				SELECT seq FROM learnsink.job_item WHERE job = $1 ORDER BY seq LIMIT 5000))`, id)
			if err != nil {
				return dropped, err
			}
			if tag.RowsAffected() == 0 {
				break
			}
		}
		tag, err := s.pool.Exec(ctx, "DELETE FROM learnsink.job WHERE id = $1", id)
		dropped += tag.RowsAffected()
		if err != nil {
			return dropped, err
		}
	}
	return dropped, nil
}

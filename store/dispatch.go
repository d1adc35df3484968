package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/jackc/pgx/v5"

	"learnsink/handlers"
)

// Lead is the right to send the rows of jobs. It is a session's advisory lock,
// on a connection of its own, so that it ends with the process that has it:
// that is for liveness. Safety rests on the epoch alone, which Claim raises: a
// process that only thinks it has the right changes nothing.
//
// A Lead is not safe for concurrent use.
type Lead struct {
	store  *Store
	conn   *pgx.Conn
	replay string // the replay topic
}

// dispatcherLock is the advisory lock of who sends the rows of jobs.
const dispatcherLock int64 = 0x6a6f6273 // "jobs"

// LeadDispatcher takes the right to send the rows of jobs; false where another
// process has it.
func (s *Store) LeadDispatcher(ctx context.Context, replayTopic string) (_ *Lead, led bool, err error) {
	defer wrap(&err, "take the right to send the rows of jobs")
	conn, err := pgx.ConnectConfig(ctx, s.pool.Config().ConnConfig)
	if err != nil {
		return nil, false, s.heed(err)
	}
	err = conn.QueryRow(ctx, "SELECT pg_try_advisory_lock($1)", dispatcherLock).Scan(&led)
	if err != nil || !led {
		conn.Close(context.WithoutCancel(ctx))
		return nil, false, s.heed(err)
	}
	return &Lead{s, conn, replayTopic}, true, nil
}

// Dispatching reports whether any process has the right to send the rows of jobs.
func (s *Store) Dispatching(ctx context.Context) (is bool, err error) {
	defer wrap(&err, "look for who sends the rows of jobs")
	err = s.pool.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 1
		AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
		AND (classid::bigint << 32) | objid::bigint = $1)`, dispatcherLock).Scan(&is)
	return is, err
}

// Close gives the right up.
func (l *Lead) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	l.conn.Close(ctx)
}

// Work returns the running jobs, and whether the outbox has rows of jobs. It is
// asked over the connection that holds the right: an error means that this may
// be lost.
func (l *Lead) Work(ctx context.Context) (jobs []handlers.RunningJob, pending bool, err error) {
	log := handlers.JobsLog()
	ask := &pgx.Batch{}
	ask.Queue(`SELECT id, rate, items - sent FROM learnsink.job WHERE state = 'running' ORDER BY id`).Query(func(rows pgx.Rows) (err error) {
		jobs, err = pgx.CollectRows(rows, pgx.RowToStructByPos[handlers.RunningJob])
		return err
	})
	ask.Queue(`SELECT EXISTS (SELECT FROM learnsink.outbox WHERE topic = $1 AND partition = $2)`, log.Topic, log.Partition).QueryRow(func(row pgx.Row) error {
		return row.Scan(&pending)
	})
	if err := l.conn.SendBatch(ctx, ask).Close(); err != nil {
		return nil, false, fmt.Errorf("%w: %w", handlers.ErrNotLeading, scrub(err, "look for jobs"))
	}
	return jobs, pending, nil
}

// claimDispatcher: what jobs have sent is on the replay topic of one cluster.
// Another one is taken once an operator has set the replay topic's position
// onto it (position set --new-log).
const claimDispatcher = `
UPDATE learnsink.dispatcher SET epoch = greatest(epoch + 1, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint), cluster_id = $1,
  round = round + CASE WHEN cluster_id IN ('', $1) THEN 0 ELSE 1 END
WHERE cluster_id IN ('', $1) OR EXISTS (SELECT FROM learnsink.position WHERE topic = $2 AND cluster_id = $1)
RETURNING epoch, next, round`

// Claim raises the epoch: from here on nobody else moves a row. It is done over
// the connection that holds the right, so that one who has lost it cannot. A
// claim whose reply was lost is simply made again. Returns
// handlers.ErrClusterChanged where rows were sent to another cluster.
func (l *Lead) Claim(ctx context.Context, clusterID string) (d handlers.Dispatcher, err error) {
	defer wrap(&err, "claim the jobs")
	err = l.conn.QueryRow(ctx, claimDispatcher, clusterID, l.replay).Scan(&d.Epoch, &d.Next, &d.Round)
	if errors.Is(err, pgx.ErrNoRows) {
		return d, handlers.ErrClusterChanged
	}
	return d, l.store.heed(err)
}

// Pending returns the outbox entries of jobs, in order.
func (l *Lead) Pending(ctx context.Context) ([]handlers.OutboxEntry, error) {
	return l.store.Pending(ctx, handlers.JobsLog())
}

// Jump moves the count of rows on to a number that was published before the
// database went back. ErrFenced where the epoch is not the dispatcher's any more.
func (l *Lead) Jump(ctx context.Context, epoch, to int64) (err error) {
	defer wrap(&err, "move the count of sent rows on")
	tag, err := l.store.pool.Exec(ctx, "UPDATE learnsink.dispatcher SET next = greatest(next, $2) WHERE epoch = $1", epoch, to)
	if err == nil && tag.RowsAffected() == 0 {
		return handlers.ErrFenced
	}
	return l.store.heed(err)
}

// Published drops the outbox entries of jobs that end at through or before.
// ErrFenced where the epoch is not the dispatcher's any more; then nothing is
// dropped. With through 0 it only says that.
func (l *Lead) Published(ctx context.Context, epoch, through int64) (err error) {
	defer wrap(&err, "drop what was published of jobs")
	var mine bool
	log := handlers.JobsLog()
	err = l.store.pool.QueryRow(ctx, `
		WITH mine AS (SELECT FROM learnsink.dispatcher WHERE epoch = $3),
		dropped AS (DELETE FROM learnsink.outbox WHERE topic = $1 AND partition = $2 AND to_offset <= $4 AND EXISTS (SELECT FROM mine))
		SELECT EXISTS (SELECT FROM mine)`, log.Topic, log.Partition, epoch, through).Scan(&mine)
	if err == nil && !mine {
		return handlers.ErrFenced
	}
	return l.store.heed(err)
}

// Explain notes why the running jobs do not move; "": they do. It does so over
// the connection that holds the right: one who has lost it has no say.
func (l *Lead) Explain(ctx context.Context, reason string) (err error) {
	defer wrap(&err, "note why jobs wait")
	_, err = l.conn.Exec(ctx, "UPDATE learnsink.dispatcher SET reason = $1 WHERE reason <> $1", storable(reason))
	return l.store.heed(err)
}

// Dispatch takes the next rows of jobs, in one transaction: they are sent, the
// outbox has them, and the count has moved. nil means that it is committed;
// then d says what came of it. After handlers.ErrFenced and ErrMoved, and
// after any error but one, nothing has happened; that one is that ctx ended
// before a lost COMMIT could be looked up: then the next Claim knows.
//
// Whoever takes a dead letter back or away for good, and has to be sure that it
// is not just being sent, locks the dispatcher's row first.
func (l *Lead) Dispatch(ctx context.Context, d *handlers.Dispatch) (err error) {
	defer wrap(&err, "take rows of jobs")
	d.To, d.Payload, d.Moved = d.From, nil, nil
	err = l.dispatch(ctx, d)
	if errors.Is(err, errUnknown) {
		committed, resolveErr := l.resolve(ctx, d)
		if resolveErr != nil {
			return fmt.Errorf("the outcome of a COMMIT is unknown: %w", resolveErr)
		}
		if committed {
			return nil
		}
	}
	return l.store.heed(err)
}

// dispatch is the one transaction. A crash before its COMMIT leaves nothing.
func (l *Lead) dispatch(ctx context.Context, d *handlers.Dispatch) error {
	conn, err := l.store.pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer release(conn)

	// 1. The fence, and then the jobs: under their lock none of them is paused
	// or cancelled until the end.
	var epoch, next int64
	jobs, rows := make([]int64, len(d.Shares)), make([]int64, len(d.Shares))
	for i, s := range d.Shares {
		jobs[i], rows[i] = s.Job, s.Rows
	}
	running := map[int64]bool{}
	var id int64
	first := &pgx.Batch{}
	first.Queue("BEGIN ISOLATION LEVEL READ COMMITTED")
	first.Queue(planByKey)
	first.Queue("SELECT epoch, next FROM learnsink.dispatcher FOR UPDATE").QueryRow(func(row pgx.Row) error { return row.Scan(&epoch, &next) })
	first.Queue("SELECT id FROM learnsink.job WHERE id = ANY ($1) AND state = 'running' ORDER BY id FOR NO KEY UPDATE", jobs).Query(func(rows pgx.Rows) error {
		_, err := pgx.ForEachRow(rows, []any{&id}, func() error { running[id] = true; return nil })
		return err
	})
	var taken []takenRow
	first.Queue(selectJobRows, jobs, rows, d.Bytes).Query(func(rows pgx.Rows) (err error) {
		taken, err = pgx.CollectRows(rows, pgx.RowToStructByPos[takenRow])
		return err
	})
	if err := conn.SendBatch(ctx, first).Close(); err != nil {
		return err
	}
	switch {
	case epoch != d.Epoch:
		return handlers.ErrFenced
	case next != d.From:
		return fmt.Errorf("%w: at %d, not %d", handlers.ErrMoved, next, d.From)
	case len(running) == 0:
		return nil
	}

	// 2. What goes, and what does not.
	m, err := l.sort(d, taken)
	if err != nil {
		return err
	}
	for job := range running {
		m.at(job) // one that has nothing left is done
	}

	// 3. All of it is written.
	to, log := d.From+int64(len(taken)), handlers.JobsLog()
	second := &pgx.Batch{}
	second.Queue(setItems, m.jobs, m.seqs, m.states).Exec(exactly(len(taken)))
	if len(m.back) > 0 {
		second.Queue(`UPDATE learnsink.rejection SET state = u.state FROM unnest($1::text[], $2::text[]) AS u(id, state)
			WHERE rejection.id = u.id AND rejection.state = 'replaying'`, m.back, m.backTo)
	}
	var moved []handlers.JobMoved
	ids, upto := m.upto()
	second.Queue(moveJobs, ids, upto).Query(func(rows pgx.Rows) error {
		var one handlers.JobMoved
		_, err := pgx.ForEachRow(rows, []any{&one.Job, &one.Done}, func() error {
			one.Sent, one.Dropped = m.sums[one.Job].sent, m.sums[one.Job].dropped
			moved = append(moved, one)
			return nil
		})
		return err
	})
	if len(m.payload) > 0 {
		second.Queue(insertOutbox, log.Topic, log.Partition, d.From, to, m.payload)
	}
	if d.Published > 0 {
		second.Queue(dropOutbox, log.Topic, log.Partition, d.Published)
	}
	second.Queue("UPDATE learnsink.dispatcher SET next = $3 WHERE epoch = $1 AND next = $2", d.Epoch, d.From, to).Exec(exactly(1))
	if err := conn.SendBatch(ctx, second).Close(); err != nil {
		return err
	}

	// 4. COMMIT. A crash after it leaves the rows sent and pending: who claims
	// next publishes them.
	d.To, d.Payload, d.Moved = to, m.payload, moved
	return commit(ctx, conn.Conn())
}

// resolve finds out whether a Dispatch was committed: the dispatcher's row,
// read on another connection under its lock, tells. It tries until ctx ends.
func (l *Lead) resolve(ctx context.Context, d *handlers.Dispatch) (committed bool, err error) {
	return backoff.Retry(ctx, func() (bool, error) {
		var epoch, next int64
		err := l.store.pool.QueryRow(ctx, "SELECT epoch, next FROM learnsink.dispatcher FOR UPDATE").Scan(&epoch, &next)
		switch {
		case err != nil:
			return false, l.store.heed(err)
		case epoch != d.Epoch:
			return false, backoff.Permanent(handlers.ErrFenced)
		case next == d.To && d.To > d.From:
			return true, nil
		case next != d.From:
			return false, backoff.Permanent(handlers.ErrMoved)
		}
		return false, nil // or nothing had to move, and does so again
	}, backoff.WithBackOff(&backoff.ExponentialBackOff{InitialInterval: 50 * time.Millisecond, RandomizationFactor: 0.5,
		Multiplier: 2, MaxInterval: 5 * time.Second}), backoff.WithMaxElapsedTime(0))
}

// takenRow is a row of selectJobRows.
type takenRow struct {
	Job                int64
	Kind               string
	Seq                int64
	Rejection          *string
	There              bool // the dead letter is there, and the job's
	Attempt            int
	Topic              *string // where the dead letter stands
	Partition          *int
	Incarnation        *int
	Offset             *int64
	SourceTopic        string
	EventAt            time.Time
	Key, Value         []byte
	Headers, Overwrite *string
}

// selectJobRows: the next rows of each job, and of these as many as are no
// larger together than $3, one at least.
const selectJobRows = `
SELECT job, kind, seq, rejection, there, attempt, topic, source_partition, incarnation, source_offset, source_topic, event_at, key, value, headers, overwrite
FROM (
  SELECT i.*, sum(i.size) OVER (ORDER BY i.job, i.seq) - i.size AS before
  FROM unnest($1::bigint[], $2::bigint[]) AS ask(job, n)
  JOIN learnsink.job j ON j.id = ask.job AND j.state = 'running'
  CROSS JOIN LATERAL (
    SELECT j.id AS job, j.kind, i.seq, i.rejection, coalesce(r.state = 'replaying' AND r.job = j.id, false) AS there, coalesce(r.attempt, 0) AS attempt,
      r.source_topic AS topic, r.source_partition, r.incarnation, r.source_offset, i.source_topic, i.event_at,
      coalesce(i.key, r.key) AS key, coalesce(i.value, r.value) AS value, coalesce(i.headers, r.headers)::text AS headers, i.overwrite,
      coalesce(length(coalesce(i.key, r.key)), 0) + coalesce(length(coalesce(i.value, r.value)), 0) + coalesce(pg_column_size(coalesce(i.headers, r.headers)), 0)::bigint AS size
    FROM learnsink.job_item i LEFT JOIN learnsink.rejection r ON r.id = i.rejection
    WHERE i.job = j.id AND i.seq > j.sent AND i.state = 'pending' ORDER BY i.seq LIMIT ask.n
  ) i
) taken
WHERE before < $3 ORDER BY job, seq`

const setItems = `
UPDATE learnsink.job_item i SET state = u.state FROM unnest($1::bigint[], $2::bigint[], $3::text[]) AS u(job, seq, state)
WHERE i.job = u.job AND i.seq = u.seq AND i.state = 'pending'`

const moveJobs = `
UPDATE learnsink.job j SET sent = greatest(j.sent, u.upto), state = CASE WHEN u.left_over THEN j.state ELSE 'done' END,
  ended_at = CASE WHEN u.left_over THEN j.ended_at ELSE now() END
FROM (SELECT a.id, a.upto, EXISTS (SELECT FROM learnsink.job_item i WHERE i.job = a.id AND i.seq > greatest(a.upto, b.sent) AND i.state = 'pending') AS left_over
      FROM unnest($1::bigint[], $2::bigint[]) AS a(id, upto) JOIN learnsink.job b USING (id)) u
WHERE j.id = u.id RETURNING j.id, j.state = 'done'`

// movement is what becomes of rows that are taken.
type movement struct {
	jobs, seqs   []int64 // of the items, with the state of each
	states       []string
	back, backTo []string // dead letters that are given back, and to which state
	payload      []byte
	sums         map[int64]*jobSum
}

// jobSum is what becomes of a job's rows.
type jobSum struct{ upto, sent, dropped int64 }

func (m *movement) at(job int64) *jobSum {
	if m.sums[job] == nil {
		m.sums[job] = &jobSum{}
	}
	return m.sums[job]
}

func (m *movement) upto() (jobs, upto []int64) {
	for job, s := range m.sums {
		jobs, upto = append(jobs, job), append(upto, s.upto)
	}
	return jobs, upto
}

// sort encodes the rows that go. A dead letter that is gone, or that somebody
// has taken out of the job, does not; nor does a row that the topic would not take.
func (l *Lead) sort(d *handlers.Dispatch, taken []takenRow) (*movement, error) {
	m := &movement{sums: map[int64]*jobSum{}}
	rows, of := make([]handlers.JobRow, 0, len(taken)), make([]int, len(taken)) // of: which of rows, or -1
	for i := range taken {
		of[i] = -1
		if t := &taken[i]; t.Rejection == nil || t.There {
			of[i] = len(rows)
			rows = append(rows, l.row(t))
		}
	}
	if len(rows) > 0 {
		var err error
		if m.payload, err = d.Encode(rows); err != nil {
			return nil, err
		}
	}
	for i := range taken {
		t := &taken[i]
		state, sum := "sent", m.at(t.Job)
		switch {
		case t.Kind == JobAnnounce:
			state = "accepted" // no outcome comes of it
		case of[i] < 0:
			state = "dropped"
		case rows[of[i]].Unfit:
			state = "dropped"
			if t.Rejection != nil {
				m.back, m.backTo = append(m.back, *t.Rejection), append(m.backTo, jobTakes(t.Kind))
			}
		}
		if sum.upto = t.Seq; state != "dropped" {
			sum.sent++
		} else {
			sum.dropped++
		}
		m.jobs, m.seqs, m.states = append(m.jobs, t.Job), append(m.seqs, t.Seq), append(m.states, state)
	}
	return m, nil
}

// row is what goes onto the replay topic for a row.
func (l *Lead) row(t *takenRow) (row handlers.JobRow) {
	row.Key, row.Value = t.Key, t.Value
	if t.Headers != nil {
		row.Headers = headersOf([]byte(*t.Headers))
	}
	if t.Kind == JobAnnounce {
		row.Topic = t.SourceTopic
	}
	r := &row.Replay
	if t.Rejection == nil || *t.Topic == l.replay {
		// Its headers say where it stood, if it did: it is a row of learnsink's
		// own, or came by the replay topic itself.
		*r = handlers.ReplayOf(&handlers.Record{Headers: row.Headers})
	} else {
		r.Origin = handlers.Some(handlers.Origin{Partition: *t.Partition, Incarnation: *t.Incarnation, Offset: *t.Offset})
	}
	if t.Rejection != nil {
		r.Of, r.Attempt = *t.Rejection, t.Attempt+1
		if t.Kind == JobRelease { // it was never judged to the end
			r.Attempt = max(t.Attempt, 1)
		}
	}
	if r.SourceTopic == "" || t.SourceTopic != l.replay {
		r.SourceTopic = t.SourceTopic
	}
	r.EventTime, r.Job, r.Item = t.EventAt.UTC(), t.Job, t.Seq
	r.Waited, r.Overwrite = t.Kind == JobRelease, ""
	if t.Overwrite != nil {
		r.Overwrite = *t.Overwrite
	}
	return row
}

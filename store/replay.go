package store

import (
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"learnsink/handlers"
)

// What the outcome of a replayed row does to the dead letter that it replays,
// in the transaction that applies the row:
//
//	accepted, or no row any more   resolved, whatever it was
//	superseded                     superseded
//	rejected                       open again with what is wrong now, or, from the fifth attempt on, quarantined
//
// The attempt that was said last stands in codes and errors; those before it
// go into history. A line that is resolved or superseded stays so: another
// record that replays the same has an outcome of its own, and no say. (Unless
// it is the very record that has settled it, judged anew because an operator
// has set the position back: what it is judged to be now holds.)
//
// A dead letter whose line is gone has an heir: the line of the attempt, which
// is open then, where others are archived at once.

// quarantinedFrom is the attempt from which on a rejected row waits for a
// person to let it out.
const quarantinedFrom = 5

// What became of a replayed row, as job_item.state has it.
const (
	replayAccepted   = "accepted"
	replayRejected   = "rejected"
	replaySuperseded = "superseded"
	replayDropped    = "dropped" // no row any more: a tombstone that the settings ignore by now, a person who was erased
)

func replayVerdict(d *handlers.Decision) string {
	switch {
	case d.Verdict == handlers.Accepted:
		return replayAccepted
	case d.Superseded():
		return replaySuperseded
	case d.Verdict == handlers.Rejected:
		return replayRejected
	}
	return replayDropped
}

// replayRows are the outcomes of a batch of the replay topic.
type replayRows struct {
	attempts []attempt
	items    itemRows
}

// attempt is the outcome of a row that replays a dead letter.
type attempt struct {
	of, id, verdict, codes, errors string
	job                            pgtype.Int8
	waited                         bool
}

// add adds a settled decision.
func (r *replayRows) add(d *handlers.Decision) {
	if d.Replay == nil {
		return
	}
	r.items.add(d)
	if d.Replay.Of == "" {
		return
	}
	a := attempt{of: d.Replay.Of, id: d.ID(), verdict: replayVerdict(d), job: jobOf(d), waited: d.Replay.Waited}
	a.codes, a.errors = errorColumns(d)
	r.attempts = append(r.attempts, a)
}

// jobOf is the job that has sent a row; NULL: none.
func jobOf(d *handlers.Decision) pgtype.Int8 {
	if d.Replay == nil || d.Replay.Job == 0 {
		return pgtype.Int8{}
	}
	return pgtype.Int8{Int64: d.Replay.Job, Valid: true}
}

const (
	lockReplayed = `SELECT id FROM learnsink.rejection WHERE id = ANY ($1::text[]) ORDER BY id FOR UPDATE`

	// Of a record that is judged anew (its position was set back) the line
	// speaks already: in what was said last, or in what was said before.
	saidLast   = `coalesce(u.outcome IN (r.judged_by, r.settled_by), false)`
	saidBefore = `r.history @> jsonb_build_array(jsonb_build_object('id', u.outcome))`

	settleReplayed = `
WITH outcome AS (
  SELECT u.*, r.attempt + CASE WHEN u.waited OR ` + saidLast + ` OR ` + saidBefore + ` THEN 0 ELSE 1 END AS attempt,
    CASE WHEN u.verdict IN ('rejected', 'superseded') AND r.judged_by IS DISTINCT FROM u.outcome THEN jsonb_build_array(jsonb_strip_nulls(jsonb_build_object(
      'attempt', r.attempt, 'at', to_char(coalesce(last.rejected_at, r.rejected_at) AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
      'id', coalesce(r.judged_by, r.id), 'job', last.job, 'codes', to_jsonb(r.codes), 'errors', r.errors))) ELSE '[]' END AS before
  FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::boolean[])
    AS u(id, outcome, verdict, codes, errors, job, waited)
  JOIN learnsink.rejection r ON r.id = u.id LEFT JOIN learnsink.rejection last ON last.id = r.judged_by
  WHERE r.state <> 'erased' AND (r.settled_by = u.outcome OR CASE WHEN u.verdict IN ('accepted', 'dropped') THEN r.state <> 'resolved'
    ELSE r.state IN ('open', 'replaying', 'waiting', 'quarantined') AND NOT ` + saidBefore + ` END))
UPDATE learnsink.rejection r SET
  state = CASE WHEN o.verdict = 'superseded' THEN 'superseded'
               WHEN o.verdict <> 'rejected' THEN 'resolved'
               WHEN o.attempt >= $8 OR r.state = 'quarantined' THEN 'quarantined' ELSE 'open' END,
  attempt = o.attempt, history = r.history || o.before, job = coalesce(o.job, r.job),
  codes = CASE WHEN o.verdict IN ('rejected', 'superseded') THEN o.codes::text[] ELSE r.codes END,
  errors = CASE WHEN o.verdict IN ('rejected', 'superseded') THEN o.errors::jsonb ELSE r.errors END,
  judged_by = CASE WHEN o.verdict IN ('rejected', 'superseded') THEN o.outcome ELSE r.judged_by END,
  settled_at = CASE WHEN o.verdict <> 'rejected' THEN now() END,
  settled_by = CASE WHEN o.verdict <> 'rejected' THEN o.outcome END
FROM outcome o WHERE r.id = o.id`

	settleItems = `
UPDATE learnsink.job_item i SET state = u.verdict, outcome = u.outcome
FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::text[], $5::text[]) AS u(job, seq, rejection, verdict, outcome)
WHERE i.job = u.job AND i.seq = u.seq AND coalesce(i.rejection, '') = u.rejection`
)

// queueLocks locks the lines that attempts speak of, in order, before
// anything is said of them.
func (r *replayRows) queueLocks(b *pgx.Batch) {
	if len(r.attempts) == 0 {
		return
	}
	var ids []string
	for i := range r.attempts {
		ids = append(ids, r.attempts[i].of)
	}
	slices.Sort(ids)
	b.Queue(lockReplayed, slices.Compact(ids))
}

// queue settles the dead letters, and the items of jobs. Attempts of one dead
// letter come one after the other, in the order of their offsets.
func (r *replayRows) queue(b *pgx.Batch) {
	for rest := r.attempts; len(rest) > 0; {
		var now attemptRows
		var later []attempt
		seen := map[string]bool{}
		for _, a := range rest {
			if seen[a.of] {
				later = append(later, a)
				continue
			}
			seen[a.of] = true
			now.add(a)
		}
		b.Queue(settleReplayed, append(now.args(), quarantinedFrom)...)
		rest = later
	}
	if len(r.items.job) > 0 {
		b.Queue(settleItems, r.items.args()...)
	}
}

type attemptRows struct {
	of, id, verdict, codes, errors []string
	job                            []pgtype.Int8
	waited                         []bool
}

func (r *attemptRows) add(a attempt) {
	r.of, r.id, r.verdict = append(r.of, a.of), append(r.id, a.id), append(r.verdict, a.verdict)
	r.codes, r.errors = append(r.codes, a.codes), append(r.errors, a.errors)
	r.job, r.waited = append(r.job, a.job), append(r.waited, a.waited)
}

func (r *attemptRows) args() []any {
	return []any{r.of, r.id, r.verdict, r.codes, r.errors, r.job, r.waited}
}

type itemRows struct {
	job, seq               []int64
	rejection, verdict, id []string
	seen                   map[[2]int64]int
}

// add adds a decision that an item of a job has led to. Of several records of
// one item, which no job sends, the last one says what became of it.
func (r *itemRows) add(d *handlers.Decision) {
	p := d.Replay
	if p.Job == 0 {
		return
	}
	if i, ok := r.seen[[2]int64{p.Job, p.Item}]; ok {
		r.rejection[i], r.verdict[i], r.id[i] = p.Of, replayVerdict(d), d.ID()
		return
	}
	if r.seen == nil {
		r.seen = map[[2]int64]int{}
	}
	r.seen[[2]int64{p.Job, p.Item}] = len(r.job)
	r.job, r.seq = append(r.job, p.Job), append(r.seq, p.Item)
	r.rejection, r.verdict, r.id = append(r.rejection, p.Of), append(r.verdict, replayVerdict(d)), append(r.id, d.ID())
}

func (r *itemRows) args() []any {
	return []any{r.job, r.seq, r.rejection, r.verdict, r.id}
}

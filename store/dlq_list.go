package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"learnsink/handlers"
)

// ErrNoRejection: there is no rejection of that id, or not any more.
var ErrNoRejection = errors.New("there is no rejection of that id, or its retention is over: `learnsink dlq list` lists them")

// Rejection is a line of the table rejection: a dead letter, and what was done about it.
type Rejection struct {
	Seq         int64 // the order in which they came
	ID          string
	Action      handlers.Action
	State       RejectionState
	Attempt     int
	Codes       []handlers.Code
	Errors      []handlers.Error
	Key, Value  []byte
	Headers     []handlers.Header
	SourceTopic string
	Partition   int
	Offset      int64
	Incarnation int
	EventAt     time.Time
	RejectedAt  time.Time
	Rules       string // the hash of the settings it was judged by
	Sender      string
	ReplayOf    string // the dead letter that this one is an attempt of
	Job         int64  // that has sent it last; 0: none
	History     []Attempt
	SettledAt   time.Time // zero: it is not
	SettledBy   string
	WaitsFor    []string
	Deadline    time.Time // zero: it does not wait
}

// Attempt is what was said of a row before it was said last.
type Attempt struct {
	Attempt int              `json:"attempt"`
	At      time.Time        `json:"at"`
	ID      string           `json:"id"`
	Job     int64            `json:"job,omitempty"`
	Codes   []handlers.Code  `json:"codes"`
	Errors  []handlers.Error `json:"errors"`
}

// Record returns the record as it stood in its topic, without its timestamp,
// which is not kept: EventAt is what its decision rests on.
func (r *Rejection) Record() handlers.Record {
	return handlers.Record{Topic: r.SourceTopic, Partition: r.Partition, Offset: r.Offset, Incarnation: r.Incarnation,
		Timestamp: r.EventAt, Key: r.Key, Value: r.Value, Headers: r.Headers}
}

const rejectionColumns = `r.seq, r.id, r.action, r.state, r.attempt, r.codes, r.errors, r.key, r.value, r.headers, r.source_topic, r.source_partition, r.source_offset,
  r.incarnation, r.event_at, r.rejected_at, r.rules, r.sender, coalesce(r.replay_of, ''), coalesce(r.job, 0), r.history, r.settled_at, coalesce(r.settled_by, ''),
  coalesce(r.waits_for, '{}'), r.deadline`

func scanRejection(row pgx.CollectableRow) (r Rejection, err error) {
	var errs, headers, history []byte
	var settled, deadline *time.Time
	if err := row.Scan(&r.Seq, &r.ID, &r.Action, &r.State, &r.Attempt, &r.Codes, &errs, &r.Key, &r.Value, &headers, &r.SourceTopic, &r.Partition, &r.Offset,
		&r.Incarnation, &r.EventAt, &r.RejectedAt, &r.Rules, &r.Sender, &r.ReplayOf, &r.Job, &history, &settled, &r.SettledBy, &r.WaitsFor, &deadline); err != nil {
		return r, err
	}
	r.EventAt, r.RejectedAt = r.EventAt.UTC(), r.RejectedAt.UTC()
	if settled != nil {
		r.SettledAt = settled.UTC()
	}
	if deadline != nil {
		r.Deadline = deadline.UTC()
	}
	err = errors.Join(json.Unmarshal(errs, &r.Errors), json.Unmarshal(history, &r.History))
	r.Headers = headersOf(headers)
	if err != nil { // JSON's errors show what they stumble over
		err = fmt.Errorf("rejection %s: errors or history are not of the shape that learnsink writes", r.ID)
	}
	return r, err
}

// Page asks for a stretch of a list.
type Page struct {
	Limit int    // how many at most
	After string // the cursor of the page before; "": from the newest on
}

// cursor is where a list goes on: behind a rejection.
type cursor struct {
	at  time.Time
	seq int64
}

// cursor reads where the page begins; nil: with the newest.
func (p Page) cursor() (*cursor, error) {
	if p.After == "" {
		return nil, nil
	}
	at, seq, ok := strings.Cut(p.After, "-")
	micros, err := strconv.ParseInt(at, 36, 64)
	n, err2 := strconv.ParseInt(seq, 36, 64)
	if !ok || err != nil || err2 != nil || micros < 0 || n < 0 {
		return nil, fmt.Errorf("%q is not a cursor that a list has printed", p.After)
	}
	return &cursor{time.UnixMicro(micros).UTC(), n}, nil
}

// Check refuses what is no page.
func (p Page) Check() error {
	_, err := p.cursor()
	return err
}

// cursor is the one behind the rejection.
func (r *Rejection) cursor() *cursor { return &cursor{r.RejectedAt, r.Seq} }

func (c *cursor) String() string {
	return strconv.FormatInt(c.at.UnixMicro(), 36) + "-" + strconv.FormatInt(c.seq, 36)
}

// Rejections lists those that a filter means, newest first, and the cursor of
// the page that follows; "": there is none.
func (s *Store) Rejections(ctx context.Context, f RejectionFilter, page Page) (list []Rejection, next string, err error) {
	defer wrap(&err, "list the rejections")
	if err := f.Check(); err != nil {
		return nil, "", err
	}
	after, err := page.cursor()
	if err != nil {
		return nil, "", err
	}
	err = s.reading(ctx, func(tx pgx.Tx) error {
		list, err = f.list(ctx, tx, after, page.Limit+1)
		return err
	})
	if err == nil && len(list) > page.Limit {
		list = list[:page.Limit]
		next = list[page.Limit-1].cursor().String()
	}
	return list, next, err
}

// EachRejection goes through all that a filter means, newest first, as they
// are in one snapshot of the database. The connection is in use until it ends.
func (s *Store) EachRejection(ctx context.Context, f RejectionFilter) iter.Seq2[Rejection, error] {
	const pageSize = 1000
	return func(yield func(Rejection, error) bool) {
		stopped := false
		err := f.Check()
		if err == nil {
			err = s.reading(ctx, func(tx pgx.Tx) error {
				for after := (*cursor)(nil); ; {
					list, err := f.list(ctx, tx, after, pageSize)
					if err != nil {
						return err
					}
					for i := range list {
						if after = list[i].cursor(); !yield(list[i], nil) {
							stopped = true
							return nil
						}
					}
					if len(list) < pageSize {
						return nil
					}
				}
			})
		}
		wrap(&err, "list the rejections")
		if err != nil && !stopped {
			yield(Rejection{}, err)
		}
	}
}

// Rejection returns one, or ErrNoRejection.
func (s *Store) Rejection(ctx context.Context, id string) (r Rejection, err error) {
	defer wrap(&err, "read the rejection")
	rows, err := s.pool.Query(ctx, "SELECT "+rejectionColumns+" FROM learnsink.rejection r WHERE id = $1", id)
	if err != nil {
		return r, err
	}
	r, err = pgx.CollectExactlyOneRow(rows, scanRejection)
	if errors.Is(err, pgx.ErrNoRows) {
		err = fmt.Errorf("%s: %w", id, ErrNoRejection)
	}
	return r, err
}

// list reads a stretch of what the filter means, newest first, behind a
// cursor; nil: from the newest on.
func (f *RejectionFilter) list(ctx context.Context, tx pgx.Tx, after *cursor, limit int) ([]Rejection, error) {
	faults, err := f.faultIDs(ctx, tx, false)
	if err != nil || faults != nil && len(faults) == 0 {
		return nil, err
	}
	if _, err := tx.Exec(ctx, planPages); err != nil {
		return nil, err
	}
	few, err := f.few(ctx, tx, faults)
	if err != nil {
		return nil, err
	}
	query, args := f.listQuery(faults, after, limit, few)
	rows, err := tx.Query(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, scanRejection)
}

// planPages: a page is read off an index, in its order, whatever the
// statistics of a table that fills up say.
const planPages = `SELECT set_config('enable_seqscan', 'off', true), set_config('jit', 'off', true), set_config('plan_cache_mode', 'force_custom_plan', true)`

// listQuery returns the query of a page, the newest first. What is asked for
// has an index in that order, within each state: of a value, a fault, a job,
// and of all. Each of them, and each state, gives its newest; of those the
// newest are the page. few is another way: what there is little of is read and
// sorted.
//
// The index is asked by a comparison of rows, and the order names all of its
// columns, so that PostgreSQL has no other way, and begins behind the cursor.
func (f *RejectionFilter) listQuery(faults []int64, after *cursor, limit int, few bool) (string, []any) {
	var a sqlArgs
	q := pageQuery{until: "'infinity'", seq: "0", since: "'-infinity'", limit: a.add(limit)}
	switch {
	case after != nil && (f.Until.IsZero() || after.at.Before(f.Until)):
		q.until, q.seq = a.add(after.at), a.add(after.seq)
	case !f.Until.IsZero():
		q.until = a.add(f.Until) // no seq is below 0
	}
	if !f.Since.IsZero() && !few {
		q.since = a.add(f.Since)
	}
	states := f.States
	if len(states) == 0 {
		states = RejectionStates()
	}
	lettered := func() string {
		var letters []string
		for _, s := range states {
			letters = append(letters, s.letter())
		}
		return "unnest(" + a.add(letters) + `::text[]::"char"[]) AS s(state)`
	}
	named := func() string { return "unnest(" + a.add(words(states)) + "::text[]) AS s(state)" }
	plain := *f
	plain.States, plain.Since, plain.Until = nil, time.Time{}, time.Time{} // what the order of the index sees to
	var newest string
	switch {
	case few:
		newest = q.sorted(f.whereFaults(&a, faults))
	case f.Value != "" || faults != nil:
		from, where := plain.faultsFrom(&a)
		if f.Value != "" {
			if faults != nil {
				where = append(where, "f.fault = ANY ("+a.add(faults)+"::bigint[])")
			}
			where = append(where, "f.value IS NOT NULL") // as the index has it
			newest = q.newest(lettered(), from, where, "f", "value", a.add(digest(f.Value))+"::bigint", "state")
		} else {
			newest = q.newest(lettered()+" CROSS JOIN unnest("+a.add(faults)+"::bigint[]) AS k(fault)", from, where, "f", "fault", "k.fault", "state")
		}
	default:
		where := append(plain.onRejection(&a), plain.shared(&a)...)
		from := "learnsink.rejection r"
		switch {
		case f.Job != 0:
			if len(f.States) > 0 {
				where = append(where, "r.state = ANY ("+a.add(words(f.States))+"::text[])")
			}
			newest = q.newest("(SELECT) AS one", from, where, "r", "job", a.add(f.Job)+"::bigint", "")
		default:
			newest = q.newest(named(), from, where, "r", "", "", "state")
		}
	}
	return "SELECT " + rejectionColumns + " FROM (" + newest + ") AS page JOIN learnsink.rejection r USING (seq) ORDER BY r.rejected_at DESC, r.seq DESC", a
}

// fewRows is how many rows are read and sorted for a page without a thought.
const fewRows = 2000

// few reports whether what the filter means is best read and sorted: it is
// about ids, a person, or where rows stood; or about a sender who has few.
// One who has many has some wherever one looks.
func (f *RejectionFilter) few(ctx context.Context, tx pgx.Tx, faults []int64) (few bool, err error) {
	if len(f.IDs) > 0 || f.Learner != "" || f.Teacher != "" || f.From != nil || f.To != nil {
		return true, nil
	}
	if f.Sender == nil || *f.Sender == "" {
		return false, nil
	}
	var a sqlArgs
	err = tx.QueryRow(ctx, "SELECT count(*) < "+a.add(fewRows)+" FROM (SELECT FROM learnsink.rejection r WHERE "+
		strings.Join(f.whereFaults(&a, faults), " AND ")+" LIMIT "+a.add(fewRows)+") AS r", a...).Scan(&few)
	return few, err
}

// faultsFrom returns what lines of rejection_fault are read from, and what is
// asked of them, but for value and fault.
func (f *RejectionFilter) faultsFrom(a *sqlArgs) (from string, where []string) {
	from = "learnsink.rejection_fault f"
	plain := *f
	plain.Value = ""
	where = plain.onFault(a)
	if more := f.onRejection(a); len(more) > 0 {
		from, where = from+" JOIN learnsink.rejection r USING (seq)", append(where, more...)
	}
	if f.Action != "" {
		from, where = from+" JOIN learnsink.fault t ON t.id = f.fault", append(where, "t.action = "+a.add(string(f.Action)))
	}
	return from, where
}

// pageQuery is what all queries of pages have in common: arguments.
type pageQuery struct{ until, seq, since, limit string }

// newest returns the newest lines of a table, by an index on (column, state,
// rejected_at, seq), of which column or state may be "": for each line of
// each, so many, and of all of those so many.
func (q pageQuery) newest(each, from string, where []string, table, column, value, state string) string {
	var columns, values []string
	add := func(column, value string) {
		if column != "" {
			columns, values = append(columns, table+"."+column), append(values, value)
		}
	}
	add(column, value)
	add(state, "s.state")
	at, seq := table+".rejected_at", table+".seq"
	tuple := func(more ...string) string { return "(" + strings.Join(more, ", ") + ")" }
	where = append([]string{
		tuple(append(slices.Clone(columns), at, seq)...) + " < " + tuple(append(slices.Clone(values), q.until+"::timestamptz", q.seq+"::bigint")...),
		tuple(append(slices.Clone(columns), at)...) + " >= " + tuple(append(slices.Clone(values), q.since+"::timestamptz")...),
	}, where...)
	order := strings.Join(append(slices.Clone(columns), at, seq), " DESC, ") + " DESC"
	return "SELECT DISTINCT n.rejected_at, n.seq FROM " + each + " CROSS JOIN LATERAL (SELECT " + at + ", " + seq + " FROM " + from +
		" WHERE " + strings.Join(where, " AND ") + " ORDER BY " + order + " LIMIT " + q.limit + ") AS n ORDER BY n.rejected_at DESC, n.seq DESC LIMIT " + q.limit
}

// sorted returns the newest lines of rejection of the few that fit.
func (q pageQuery) sorted(where []string) string {
	return "SELECT n.rejected_at, n.seq FROM (SELECT r.rejected_at, r.seq FROM learnsink.rejection r WHERE " + strings.Join(where, " AND ") +
		" OFFSET 0) AS n WHERE (n.rejected_at, n.seq) < (" + q.until + "::timestamptz, " + q.seq + "::bigint) ORDER BY n.rejected_at DESC, n.seq DESC LIMIT " + q.limit
}

// Selected returns the ids of all that a filter means, in the order in which a
// job sends them: by source topic, partition and offset.
func (s *Store) Selected(ctx context.Context, f RejectionFilter) (ids []string, err error) {
	defer wrap(&err, "select the rejections")
	if err := f.Check(); err != nil {
		return nil, err
	}
	err = s.reading(ctx, func(tx pgx.Tx) error {
		where, args, err := f.where(ctx, tx)
		if err != nil || where == "" {
			return err
		}
		rows, err := tx.Query(ctx, "SELECT r.id FROM learnsink.rejection r WHERE "+where+
			" ORDER BY r.source_topic, r.source_partition, r.incarnation, r.source_offset", args...)
		if err != nil {
			return err
		}
		ids, err = pgx.CollectRows(rows, pgx.RowTo[string])
		return err
	})
	return ids, err
}

// where returns a condition on lines r of rejection that says all that the
// filter does; "": none fits.
func (f *RejectionFilter) where(ctx context.Context, tx pgx.Tx) (string, []any, error) {
	faults, err := f.faultIDs(ctx, tx, false)
	if err != nil || faults != nil && len(faults) == 0 {
		return "", nil, err
	}
	var a sqlArgs
	return strings.Join(f.whereFaults(&a, faults), " AND "), a, nil
}

func (f *RejectionFilter) whereFaults(a *sqlArgs, faults []int64) []string {
	where := append(append([]string{"true"}, f.onRejection(a)...), f.shared(a)...)
	if f.Sender != nil && *f.Sender != "" {
		where = append(where, "r.names && "+a.add([]int64{senderDigest(*f.Sender)}))
	}
	if len(f.States) > 0 {
		where = append(where, "r.state = ANY ("+a.add(words(f.States))+"::text[])")
	}
	if f.byError() {
		of := append([]string{"f.seq = r.seq"}, f.onFault(a)...)
		if faults != nil {
			of = append(of, "f.fault = ANY ("+a.add(faults)+"::bigint[])")
		}
		where = append(where, "EXISTS (SELECT FROM learnsink.rejection_fault f WHERE "+strings.Join(of, " AND ")+")")
	}
	return where
}

// words are states as texts.
func words(states []RejectionState) (all []string) {
	for _, s := range states {
		all = append(all, string(s))
	}
	return all
}

// VerbRelease leaves a line in operation.
const VerbRelease = "dlq release"

// ReleaseRejections opens the quarantined rejections that a filter means, and
// notes it. It returns how many those were; without any nothing is noted.
func (s *Store) ReleaseRejections(ctx context.Context, f RejectionFilter, by Operator) (n int64, err error) {
	defer wrap(&err, "release the rejections")
	if err := f.Check(); err != nil {
		return 0, err
	}
	f.States = []RejectionState{RejectionQuarantined}
	err = s.operating(ctx, func(tx pgx.Tx) error {
		n = 0
		where, args, err := f.where(ctx, tx)
		if err != nil || where == "" {
			return err
		}
		// Locked by id, as apply locks them.
		tag, err := tx.Exec(ctx, `WITH locked AS MATERIALIZED (SELECT r.id FROM learnsink.rejection r WHERE `+where+` ORDER BY r.id FOR UPDATE)
			UPDATE learnsink.rejection r SET state = 'open' FROM locked WHERE r.id = locked.id AND r.state = 'quarantined'`, args...)
		if err != nil {
			return err
		}
		if n = tag.RowsAffected(); n == 0 {
			return nil
		}
		return note(ctx, tx, by, VerbRelease, handlers.TopicPartition{}, map[string]any{"rows": n, "selection": f.Selection()})
	})
	return n, err
}

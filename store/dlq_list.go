package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
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

// before reads a cursor: lists go on below it.
func (p Page) before() (int64, error) {
	if p.After == "" {
		return 1<<63 - 1, nil
	}
	n, err := strconv.ParseInt(p.After, 10, 64)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%q is not a cursor that a list has printed", p.After)
	}
	return n, nil
}

// Rejections lists those that a filter means, newest first, and the cursor of
// the page that follows; "": there is none.
func (s *Store) Rejections(ctx context.Context, f RejectionFilter, page Page) (list []Rejection, next string, err error) {
	defer wrap(&err, "list the rejections")
	if err := f.Check(); err != nil {
		return nil, "", err
	}
	before, err := page.before()
	if err != nil {
		return nil, "", err
	}
	err = s.reading(ctx, func(tx pgx.Tx) error {
		list, err = f.list(ctx, tx, before, page.Limit+1)
		return err
	})
	if err == nil && len(list) > page.Limit {
		list = list[:page.Limit]
		next = strconv.FormatInt(list[page.Limit-1].Seq, 10)
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
				for before := int64(1<<63 - 1); ; {
					list, err := f.list(ctx, tx, before, pageSize)
					if err != nil {
						return err
					}
					for i := range list {
						if before = list[i].Seq; !yield(list[i], nil) {
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

// list reads a stretch of what the filter means, newest first, below a seq.
func (f *RejectionFilter) list(ctx context.Context, tx pgx.Tx, before int64, limit int) ([]Rejection, error) {
	faults, err := f.faultIDs(ctx, tx, false)
	if err != nil || faults != nil && len(faults) == 0 {
		return nil, err
	}
	if _, err := tx.Exec(ctx, planPages); err != nil {
		return nil, err
	}
	query, args := f.listQuery(faults, before, limit)
	rows, err := tx.Query(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, scanRejection)
}

// planPages: a page is read off an index, in its order, whatever the
// statistics of a table that fills up say.
const planPages = `SELECT set_config('enable_seqscan', 'off', true), set_config('jit', 'off', true), set_config('plan_cache_mode', 'force_custom_plan', true)`

// listQuery returns the query of a page. Every fault or state that is meant
// has an index in the order of seq: each gives its newest, and of those the
// newest are the page.
func (f *RejectionFilter) listQuery(faults []int64, before int64, limit int) (string, []any) {
	var a sqlArgs
	below, most := a.add(before), a.add(limit)
	var newest string
	if faults != nil || f.Value != "" {
		where := append([]string{"f.seq < " + below}, f.onFault(&a)...)
		from := "learnsink.rejection_fault f"
		if more := f.onRejection(&a); len(more) > 0 {
			from, where = from+" JOIN learnsink.rejection r USING (seq)", append(where, more...)
		}
		if f.Action != "" && faults == nil {
			from, where = from+" JOIN learnsink.fault k ON k.id = f.fault", append(where, "k.action = "+a.add(string(f.Action)))
		}
		if faults == nil {
			newest = "SELECT DISTINCT f.seq FROM " + from + " WHERE " + strings.Join(where, " AND ") + " ORDER BY f.seq DESC LIMIT " + most
		} else {
			newest = "SELECT DISTINCT n.seq FROM unnest(" + a.add(faults) + "::bigint[]) AS k(fault) CROSS JOIN LATERAL (SELECT f.seq FROM " + from +
				" WHERE f.fault = k.fault AND " + strings.Join(where, " AND ") + " ORDER BY f.seq DESC LIMIT " + most + ") n ORDER BY n.seq DESC LIMIT " + most
		}
	} else {
		where := append(append([]string{"r.seq < " + below}, f.onRejection(&a)...), f.shared(&a)...)
		newest = "SELECT r.seq FROM learnsink.rejection r WHERE " + strings.Join(where, " AND ") + " ORDER BY r.seq DESC LIMIT " + most
		if len(f.States) > 0 {
			var states []string
			for _, s := range f.States {
				states = append(states, string(s))
			}
			newest = "SELECT n.seq FROM unnest(" + a.add(states) + "::text[]) AS k(state) CROSS JOIN LATERAL (" +
				strings.Replace(newest, "WHERE", "WHERE r.state = k.state AND", 1) + ") n ORDER BY n.seq DESC LIMIT " + most
		}
	}
	return "SELECT " + rejectionColumns + " FROM (" + newest + ") AS page JOIN learnsink.rejection r USING (seq) ORDER BY r.seq DESC", a
}

package store

import (
	"context"
	"encoding/json"
	"time"

	"github.com/jackc/pgx/v5"
)

// Sending is what a job has done with a dead letter.
type Sending struct {
	Job  int64
	Item int64
	Kind string
	Operator
	At      time.Time       // when the job was made
	State   string          // job_item.state
	Outcome string          // the id of the outcome; "": there is none yet
	Edit    json.RawMessage // the patch that was sent; nil: the row as it was
}

// Sendings returns the jobs that have taken a dead letter, in their order, as
// far as they are kept.
func (s *Store) Sendings(ctx context.Context, id string) (_ []Sending, err error) {
	defer wrap(&err, "read the jobs of a rejection")
	rows, err := s.pool.Query(ctx, `SELECT j.id, i.seq, j.kind, j.actor, j.why, j.created_at, i.state, coalesce(i.outcome, ''), i.edit
		FROM learnsink.job_item i JOIN learnsink.job j ON j.id = i.job WHERE i.rejection = $1 ORDER BY j.id, i.seq`, id)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (j Sending, err error) {
		err = row.Scan(&j.Job, &j.Item, &j.Kind, &j.Actor, &j.Why, &j.At, &j.State, &j.Outcome, &j.Edit)
		j.At = j.At.UTC()
		return j, err
	})
}

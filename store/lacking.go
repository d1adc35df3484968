package store

import (
	"context"
	"time"

	"learnsink/handlers"

	"github.com/jackc/pgx/v5"
)

// LackingFrom is where a page of OpenLacking goes on; the zero value: at the latest.
type LackingFrom struct {
	at time.Time
	id string
}

// OpenLacking returns open dead letters of an action that nothing is wrong
// with but that the catalogue did not know what they refer to, the latest
// first, and where to go on: at most so many.
func (s *Store) OpenLacking(ctx context.Context, action handlers.Action, from LackingFrom, most int) (letters []Letter, next LackingFrom, err error) {
	defer wrap(&err, "read the dead letters")
	codes := make([]string, 0, 8)
	for _, c := range handlers.LackingCodes() {
		codes = append(codes, string(c))
	}
	var before *time.Time
	if !from.at.IsZero() {
		before = &from.at
	}
	rows, err := s.pool.Query(ctx, `SELECT r.rejected_at, `+letterColumns+` FROM learnsink.rejection r
		WHERE r.state = 'open' AND r.action = $1 AND r.codes <@ $2 AND r.replay_of IS NULL
		  AND ($3::timestamptz IS NULL OR r.rejected_at <= $3 AND (r.rejected_at, r.id) < ($3, $4))
		ORDER BY r.rejected_at DESC, r.id DESC LIMIT $5`, string(action), codes, before, from.id, most)
	if err != nil {
		return nil, next, err
	}
	letters, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (l Letter, err error) {
		l, err = scanLetter(timed{row, &next.at})
		next.id = l.ID
		return l, err
	})
	return letters, next, err
}

// timed is a row whose first column is a time.
type timed struct {
	pgx.CollectableRow
	at *time.Time
}

// Scan scans the rest.
func (t timed) Scan(to ...any) error { return t.CollectableRow.Scan(append([]any{t.at}, to...)...) }

package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"learnsink/handlers"
)

// The verbs by which dead letters are put away leave a line in operation.
const (
	VerbArchive = "dlq archive"
	VerbRestore = "dlq restore"
	VerbPurge   = "dlq purge"
)

// StateCount is how many dead letters of an action are, or were, in a state.
type StateCount struct {
	State  RejectionState  `json:"state"`
	Action handlers.Action `json:"action"`
	Rows   int64           `json:"rows"`
}

// Archivable are the states that dead letters are archived from.
func Archivable() []RejectionState {
	return []RejectionState{RejectionOpen, RejectionQuarantined, RejectionSuperseded}
}

// ArchiveRejections puts dead letters away that nobody will work with, those
// that a filter means and that are open, quarantined or superseded: they keep
// all that they have until their retention is over, and are in nobody's way. It
// returns how many there were by the state they were in, and notes it; without
// execute it only counts them.
func (s *Store) ArchiveRejections(ctx context.Context, f RejectionFilter, by Operator, execute bool) (counts []StateCount, err error) {
	defer wrap(&err, "archive the rejections")
	return s.turnRejections(ctx, f, Archivable(), RejectionArchived, VerbArchive, by, execute)
}

// RestoreRejections opens archived dead letters again. The lines of attempts
// are archived as history, and stay so: the work goes on with the dead letter
// that was replayed.
func (s *Store) RestoreRejections(ctx context.Context, f RejectionFilter, by Operator, execute bool) (counts []StateCount, err error) {
	defer wrap(&err, "restore the rejections")
	return s.turnRejections(ctx, f, []RejectionState{RejectionArchived}, RejectionOpen, VerbRestore, by, execute)
}

// turnRejections brings the dead letters that a filter means from one of some
// states into another, in one transaction, locked by id as apply locks them.
func (s *Store) turnRejections(ctx context.Context, f RejectionFilter, from []RejectionState, to RejectionState, verb string, by Operator, execute bool) (counts []StateCount, err error) {
	if err := f.Check(); err != nil {
		return nil, err
	}
	if len(f.States) == 0 {
		f.States = from
	}
	for _, state := range f.States {
		if !slices.Contains(from, state) {
			return nil, fmt.Errorf("what is %s is not: only what is one of %v", state, from)
		}
	}
	err = s.operating(ctx, func(tx pgx.Tx) error {
		faults, err := f.faultIDs(ctx, tx, false)
		if err != nil || faults != nil && len(faults) == 0 {
			return err
		}
		chosen, args := f.selectQuery(faults)
		const own = ` WHERE r.id IN (SELECT id FROM chosen) AND r.replay_of IS NULL`
		query := "WITH chosen AS (" + chosen + ") SELECT r.state, r.action, count(*) FROM learnsink.rejection r" + own + " GROUP BY 1, 2 ORDER BY 1, 2"
		if execute {
			a := sqlArgs(args)
			query = "WITH chosen AS (" + chosen + "), locked AS MATERIALIZED (SELECT r.id, r.state, r.action FROM learnsink.rejection r" + own + ` ORDER BY r.id FOR UPDATE),
turned AS (UPDATE learnsink.rejection r SET state = ` + a.add(string(to)) + `, settled_at = CASE WHEN l.state = 'archived' THEN NULL ELSE r.settled_at END,
  settled_by = CASE WHEN l.state = 'archived' THEN NULL ELSE r.settled_by END
  FROM locked l WHERE r.id = l.id AND l.state = ANY (` + a.add(statesText(from)) + `::text[]) RETURNING l.state, l.action)
SELECT state, action, count(*) FROM turned GROUP BY 1, 2 ORDER BY 1, 2`
			args = a
		}
		rows, err := tx.Query(ctx, query, args...)
		if err != nil {
			return err
		}
		if counts, err = pgx.CollectRows(rows, pgx.RowToStructByPos[StateCount]); err != nil || !execute || len(counts) == 0 {
			return err
		}
		return note(ctx, tx, by, verb, handlers.TopicPartition{}, map[string]any{"rows": counts, "selection": f.Selection()})
	})
	return counts, err
}

func statesText(states []RejectionState) (texts []string) {
	for _, s := range states {
		texts = append(texts, string(s))
	}
	return texts
}

// Purged is what is past its retention.
type Purged struct {
	Rejections []StateCount `json:"rejections"` // by the state they are in
	Jobs       int64        `json:"jobs"`       // that have ended, with all that they have sent settled
}

// Past counts what is older than a time, and would be purged.
func (s *Store) Past(ctx context.Context, before time.Time) (past Purged, err error) {
	defer wrap(&err, "count what is past its retention")
	err = s.reading(ctx, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, `SELECT state, action, count(*) FROM learnsink.rejection WHERE rejected_at < $1
			AND state NOT IN ('waiting', 'replaying') GROUP BY 1, 2 ORDER BY 1, 2`, before)
		if err != nil {
			return err
		}
		if past.Rejections, err = pgx.CollectRows(rows, pgx.RowToStructByPos[StateCount]); err != nil {
			return err
		}
		return tx.QueryRow(ctx, `SELECT count(*) FROM learnsink.job j WHERE ended_at < $1
			AND NOT EXISTS (SELECT FROM learnsink.job_item i WHERE i.job = j.id AND i.state IN ('pending', 'sent'))`, before).Scan(&past.Jobs)
	})
	return past, err
}

// Purge deletes what is older than a time: dead letters, but for those that
// wait or are being replayed, and jobs that have ended with their rows. It does so a few thousand at a
// time, and notes what has gone, also where it was stopped amid it.
func (s *Store) Purge(ctx context.Context, before time.Time, by Operator) (rejections, jobs int64, err error) {
	defer wrap(&err, "purge")
	rejections, err = s.DropRejections(ctx, before)
	if err == nil {
		jobs, err = s.DropJobs(ctx, before)
	}
	if rejections+jobs == 0 {
		return rejections, jobs, err
	}
	noting, cancel := context.WithTimeout(context.WithoutCancel(ctx), commitTimeout)
	defer cancel()
	return rejections, jobs, errors.Join(err, s.operating(noting, func(tx pgx.Tx) error {
		return note(noting, tx, by, VerbPurge, handlers.TopicPartition{}, map[string]any{"before": before.UTC(), "rejections": rejections, "jobs": jobs})
	}))
}

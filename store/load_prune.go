package store

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"learnsink/store/catalogue"
)

// prunes say how what nothing refers to is removed: what the files of a kind no
// longer name, or a tombstone has named. In an order in which what refers goes
// before what it refers to.
var prunes = []pruning{
	{
		catalogue.Registrations, "registration", "id",
		`NOT EXISTS (SELECT FROM load_resolved s WHERE s.learner_id = t.learner_id AND s.session_id = t.session_id)`,
		`NOT EXISTS (SELECT FROM learnsink.tracking u WHERE u.registration_id = t.id)
AND NOT EXISTS (SELECT FROM learnsink.tracking_deleted u WHERE u.registration_id = t.id)`,
		`(SELECT login FROM learnsink.learner l WHERE l.id = t.learner_id) || ' in session ' || t.session_id`,
	},
	{
		catalogue.Learners, "learner", "id",
		`NOT EXISTS (SELECT FROM load_learners s WHERE s.login_folded = t.login_folded)`,
		`NOT EXISTS (SELECT FROM learnsink.registration u WHERE u.learner_id = t.id)`,
		`login`,
	},
	{
		catalogue.LearningObjects, "learning_object", "id",
		`NOT EXISTS (SELECT FROM load_learning_objects s WHERE s.guid_folded = t.guid_folded)`,
		`NOT EXISTS (SELECT FROM learnsink.tracking u WHERE u.learning_object_id = t.id)
AND NOT EXISTS (SELECT FROM learnsink.tracking_deleted u WHERE u.learning_object_id = t.id)`,
		`guid`,
	},
	{
		catalogue.Sessions, "session", "id",
		`NOT EXISTS (SELECT FROM load_sessions s WHERE s.id = t.id)`,
		`NOT EXISTS (SELECT FROM learnsink.registration u WHERE u.session_id = t.id)
AND NOT EXISTS (SELECT FROM learnsink.intervention u WHERE u.session_id = t.id)`,
		`id::text`,
	},
	{
		catalogue.Trainings, "training", "id",
		`NOT EXISTS (SELECT FROM load_trainings s WHERE s.id = t.id)`,
		`NOT EXISTS (SELECT FROM learnsink.session u WHERE u.training_id = t.id)`,
		`id::text`,
	},
	{
		catalogue.Teachers, "teacher", "id",
		`NOT EXISTS (SELECT FROM load_teachers s WHERE s.login_folded = t.login_folded)`,
		`NOT EXISTS (SELECT FROM learnsink.intervention u WHERE u.teacher_id = t.id)`,
		`login`,
	},
	{
		catalogue.Rooms, "room", "guid_folded",
		`NOT EXISTS (SELECT FROM load_rooms s WHERE s.guid_folded = t.guid_folded)`,
		`NOT EXISTS (SELECT FROM learnsink.intervention u WHERE u.room_guid_folded = t.guid_folded)`,
		`guid`,
	},
}

// pruning is how entries of one kind are removed.
type pruning struct {
	kind    catalogue.Kind
	table   string
	id      string // the column by which an entry is known within the database
	unnamed string // no line of the load names t
	free    string // nothing refers to t
	shown   string // t, for an operator's eyes
}

func (p pruning) sql() string {
	return "DELETE FROM learnsink." + p.table + " t\nWHERE " + p.unnamed + "\nAND " + p.free + "\nRETURNING " + p.shown
}

const pruneExamples = 10

// prune removes what is to be pruned, within a savepoint that is rolled back
// to unless it is to be done: so what is shown is what would be removed.
func (l *load) prune(ctx context.Context) error {
	if err := l.exec(ctx, "SAVEPOINT prune"); err != nil {
		return err
	}
	var tooMuch []string
	for _, p := range prunes {
		count := l.counts[p.kind]
		if count == nil {
			continue // no file speaks of this kind
		}
		if n := l.refused[p.kind]; n > 0 {
			// What a bad line was to name would be taken for named no longer.
			return fmt.Errorf("%w: %d lines of %s are bad", ErrPrune, n, p.kind)
		}
		var before int64
		if err := l.tx.QueryRow(ctx, "SELECT count(*) FROM learnsink."+p.table).Scan(&before); err != nil {
			return err
		}
		rows, err := l.tx.Query(ctx, p.sql())
		if err != nil {
			return err
		}
		var key pgtype.Text
		if _, err := pgx.ForEachRow(rows, []any{&key}, func() error {
			if count.Pruned++; count.Pruned <= pruneExamples {
				count.Examples = append(count.Examples, key.String)
			}
			return nil
		}); err != nil {
			return err
		}
		most := l.opt.MaxPrune
		if most == 0 {
			most = before / 20
		}
		if count.Pruned > most {
			tooMuch = append(tooMuch, fmt.Sprintf("%d of %d %s", count.Pruned, before, p.kind))
		}
	}
	switch {
	case !l.opt.Execute:
		return l.exec(ctx, "ROLLBACK TO SAVEPOINT prune")
	case len(tooMuch) > 0:
		return fmt.Errorf("%w: it would remove %s", ErrPrune, strings.Join(tooMuch, ", "))
	}
	return nil
}

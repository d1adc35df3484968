package store

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"learnsink/handlers"
)

// Window is a run of offsets of a source partition.
type Window struct {
	Partition   int
	Incarnation int   // of the log
	From, To    int64 // [From, To)
}

// AppliedBetween returns which offsets of a source topic were applied in
// [from, to), by the clock of the database, in their order, and how many of its
// rows were accepted then. Of a log that the topic's name is no longer of there
// are none: what such a log has written does not say so.
func (s *Store) AppliedBetween(ctx context.Context, topic string, from, to time.Time) (windows []Window, accepted int64, err error) {
	defer wrap(&err, "read the ledger")
	err = s.reading(ctx, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, `SELECT g.partition, g.incarnation, g.from_offset, g.to_offset, g.accepted FROM learnsink.ledger g JOIN learnsink.position p USING (topic, partition, incarnation)
			WHERE g.topic = $1 AND g.applied_at >= $2 AND g.applied_at < $3 AND NOT g.superseded AND g.accepted > 0 ORDER BY 1, 3`, topic, from, to)
		if err != nil {
			return err
		}
		var w Window
		var n int64
		_, err = pgx.ForEachRow(rows, []any{&w.Partition, &w.Incarnation, &w.From, &w.To, &n}, func() error {
			accepted += n
			if last := len(windows) - 1; last >= 0 && windows[last].Partition == w.Partition && windows[last].To == w.From {
				windows[last].To = w.To
				return nil
			}
			windows = append(windows, w)
			return nil
		})
		return err
	})
	return windows, accepted, err
}

// Written is what is stored under a key: where it comes from.
type Written struct {
	// One of the two, by the action.
	handlers.TrackingKey
	GUIDFolded string // an intervention's
	handlers.Stored
}

// WrittenIn hands to fn what a source topic has written with rows of these
// offsets, and nobody has since: rows, and the memories of deleted ones.
func (s *Store) WrittenIn(ctx context.Context, action handlers.Action, topic string, windows []Window, fn func(Written)) (err error) {
	defer wrap(&err, "read what was written")
	partitions, from, to := make([]int, len(windows)), make([]int64, len(windows)), make([]int64, len(windows))
	for i, w := range windows {
		partitions[i], from[i], to[i] = w.Partition, w.From, w.To
	}
	const within = ` t WHERE source_topic = $1 AND EXISTS (SELECT FROM unnest($2::integer[], $3::bigint[], $4::bigint[]) AS w(partition, from_offset, to_offset)
  WHERE t.source_partition = w.partition AND t.source_offset >= w.from_offset AND t.source_offset < w.to_offset)`
	query := `SELECT 0, 0, guid_folded, event_at, source_topic, source_partition, source_offset FROM learnsink.intervention` + within
	if action == handlers.Tracking {
		const columns = `SELECT registration_id, learning_object_id, '', event_at, source_topic, source_partition, source_offset FROM learnsink.`
		query = columns + "tracking" + within + " UNION ALL " + columns + "tracking_deleted" + within
	}
	return s.reading(ctx, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, query, topic, partitions, from, to)
		if err != nil {
			return err
		}
		var w Written
		_, err = pgx.ForEachRow(rows, []any{&w.RegistrationID, &w.LearningObjectID, &w.GUIDFolded, &w.EventTime, &w.SourceTopic, &w.SourcePartition, &w.SourceOffset}, func() error {
			w.Known, w.EventTime = true, w.EventTime.UTC()
			fn(w)
			return nil
		})
		return err
	})
}

// Places says of tracking keys, as rows would name them, whose they are and in
// which session: by the login, the session's id and the guid of the learning
// object, which nobody else has. What the catalogue does not know is left out.
func (s *Store) Places(ctx context.Context, keys []handlers.TrackingKey) (_ map[handlers.TrackingKey]handlers.TrackingRow, err error) {
	defer wrap(&err, "read the catalogue")
	registrations, objects := make([]int64, len(keys)), make([]int64, len(keys))
	for i, k := range keys {
		registrations[i], objects[i] = k.RegistrationID, k.LearningObjectID
	}
	rows, err := s.pool.Query(ctx, `SELECT k.registration_id, k.learning_object_id, l.login, r.session_id, o.guid
		FROM unnest($1::bigint[], $2::bigint[]) AS k(registration_id, learning_object_id)
		JOIN learnsink.registration r ON r.id = k.registration_id JOIN learnsink.learner l ON l.id = r.learner_id
		JOIN learnsink.learning_object o ON o.id = k.learning_object_id`, registrations, objects)
	if err != nil {
		return nil, err
	}
	places := map[handlers.TrackingKey]handlers.TrackingRow{}
	var row handlers.TrackingRow
	_, err = pgx.ForEachRow(rows, []any{&row.RegistrationID, &row.LearningObjectID, &row.CandidateLogin, &row.SessionID, &row.LovGUID}, func() error {
		places[row.TrackingKey] = row
		return nil
	})
	return places, err
}

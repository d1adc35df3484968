package store

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"learnsink/handlers"
)

// Under is what is stored under the keys of decisions. What is not in a map is
// not there.
type Under struct {
	Tracking      map[handlers.TrackingKey]StoredTracking
	Interventions map[string]StoredIntervention // by folded guid
	Rooms         map[string]handlers.Room      // by folded guid
}

// StoredTracking is what is stored under a key of tracking.
type StoredTracking struct {
	handlers.Stored
	// Row: there is a row, and the columns below are its, beside
	// Stored.FirstCompletion. Else there is the memory of one that was deleted.
	Row                     bool
	Status                  string
	Progression, Score      handlers.Opt[float64]
	ScoreMax                int32
	TimeSpent               int64 // seconds
	FirstAccess, LastAccess handlers.Opt[time.Time]
	FilledIn                bool
}

// StoredIntervention is a stored intervention. The guid and the login are ""
// where the catalogue has none.
type StoredIntervention struct {
	handlers.Stored
	GUID         string
	SessionID    int64
	SessionGUID  string
	StartsAt     time.Time
	Hours        int32
	RoomGUID     string
	TeacherID    int64
	TeacherLogin string
	Status       string
}

const (
	readTracking = `
SELECT t.* FROM ` + unnestKeys + ` CROSS JOIN LATERAL (
  SELECT t.registration_id, t.learning_object_id, t.event_at, t.source_topic, t.source_partition, t.source_offset, t.status, t.progression, t.score,
    t.score_max, t.time_spent_seconds, t.first_access_at, t.last_access_at, t.first_completion_at, t.first_completion_filled_in
  FROM learnsink.tracking t ` + underKey + ` OFFSET 0) t`

	readInterventions = `
SELECT i.guid_folded, i.event_at, i.source_topic, i.source_partition, i.source_offset, i.guid, i.session_id, coalesce(s.guid, ''),
  i.starts_at, i.duration_hours, i.room_guid, i.teacher_id, coalesce(t.login, ''), i.status
FROM unnest($1::text[]) AS k(guid_folded) JOIN learnsink.intervention i USING (guid_folded)
LEFT JOIN learnsink.session s ON s.id = i.session_id LEFT JOIN learnsink.teacher t ON t.id = i.teacher_id`

	readRooms = `
SELECT r.guid_folded, r.guid, coalesce(r.label, ''), r.capacity, r.event_at
FROM unnest($1::text[]) AS k(guid_folded) JOIN learnsink.room r USING (guid_folded)`
)

// Under reads what is stored now under the keys of accepted decisions, in one
// snapshot, and locks nothing: it is for those who want to know beforehand what
// Apply will find, and may find something newer.
func (s *Store) Under(ctx context.Context, decisions []handlers.Decision) (_ *Under, err error) {
	defer wrap(&err, "read what is stored")
	u := &Under{Tracking: map[handlers.TrackingKey]StoredTracking{}, Interventions: map[string]StoredIntervention{}, Rooms: map[string]handlers.Room{}}
	keys := newTrackingKeys(len(decisions))
	ofOneKey(decisions, byKey(decisions), func(key handlers.TrackingKey, _ []int) { keys.add(key) })
	interventions, rooms := map[string]struct{}{}, map[string]struct{}{}
	for i := range decisions {
		if d := &decisions[i]; d.Verdict == handlers.Accepted && d.Intervention != nil {
			interventions[d.Intervention.GUIDFolded] = struct{}{}
			rooms[d.Intervention.RoomGUIDFolded] = struct{}{}
		}
	}
	ask := &pgx.Batch{}
	ask.Queue(planByKey)
	ask.Queue(readTracking, keys.args()...).Query(u.tracking)
	ask.Queue(readMemories, keys.args()...).Query(func(rows pgx.Rows) error {
		return forEachMemory(rows, func(key handlers.TrackingKey, was handlers.Stored) error {
			if _, ok := u.Tracking[key]; !ok {
				u.Tracking[key] = StoredTracking{Stored: was}
			}
			return nil
		})
	})
	if len(interventions) > 0 {
		ask.Queue(readInterventions, slices.Collect(maps.Keys(interventions))).Query(u.interventions)
		ask.Queue(readRooms, slices.Collect(maps.Keys(rooms))).Query(u.rooms)
	}
	err = s.reading(ctx, func(tx pgx.Tx) error { return tx.SendBatch(ctx, ask).Close() })
	return u, err
}

func (u *Under) tracking(rows pgx.Rows) error {
	var key handlers.TrackingKey
	var t StoredTracking
	var progression, score pgtype.Float8
	var first, last, completion pgtype.Timestamptz
	_, err := pgx.ForEachRow(rows, []any{&key.RegistrationID, &key.LearningObjectID, &t.EventTime, &t.SourceTopic, &t.SourcePartition, &t.SourceOffset,
		&t.Status, &progression, &score, &t.ScoreMax, &t.TimeSpent, &first, &last, &completion, &t.FilledIn}, func() error {
		t.Known, t.Row, t.EventTime = true, true, t.EventTime.UTC()
		t.Progression, t.Score = optFloat(progression), optFloat(score)
		t.FirstAccess, t.LastAccess, t.FirstCompletion = optTime(first), optTime(last), optTime(completion)
		t.Done = t.Status == handlers.Completed.String() || t.Status == handlers.Passed.String()
		u.Tracking[key] = t
		return nil
	})
	return err
}

func (u *Under) interventions(rows pgx.Rows) error {
	var folded string
	var i StoredIntervention
	_, err := pgx.ForEachRow(rows, []any{&folded, &i.EventTime, &i.SourceTopic, &i.SourcePartition, &i.SourceOffset, &i.GUID, &i.SessionID, &i.SessionGUID,
		&i.StartsAt, &i.Hours, &i.RoomGUID, &i.TeacherID, &i.TeacherLogin, &i.Status}, func() error {
		i.Known, i.EventTime, i.StartsAt = true, i.EventTime.UTC(), i.StartsAt.UTC()
		u.Interventions[folded] = i
		return nil
	})
	return err
}

func (u *Under) rooms(rows pgx.Rows) error {
	var r handlers.Room
	var capacity pgtype.Int4
	var at pgtype.Timestamptz
	_, err := pgx.ForEachRow(rows, []any{&r.GUIDFolded, &r.GUID, &r.Label, &capacity, &at}, func() error {
		r.Capacity, r.EventAt = handlers.Opt[int32]{V: capacity.Int32, OK: capacity.Valid}, optTime(at)
		u.Rooms[r.GUIDFolded] = r
		return nil
	})
	return err
}

func optFloat(v pgtype.Float8) handlers.Opt[float64] {
	return handlers.Opt[float64]{V: v.Float64, OK: v.Valid}
}

func optTime(v pgtype.Timestamptz) handlers.Opt[time.Time] {
	if !v.Valid {
		return handlers.Opt[time.Time]{}
	}
	return handlers.Some(v.Time.UTC())
}

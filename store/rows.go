package store

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"learnsink/handlers"
)

// stored is what was in the tables under the keys of a batch, as locked.
type stored struct {
	tracking      map[handlers.TrackingKey]trackingWas
	interventions map[string]handlers.Stored // by folded guid
	rooms         map[string]handlers.Room   // by folded guid
}

// trackingWas is what was under a tracking key; the zero value: nothing.
type trackingWas struct {
	handlers.Stored
	row    bool // in tracking
	memory bool // in tracking_deleted
}

func newStored() *stored {
	return &stored{
		tracking:      map[handlers.TrackingKey]trackingWas{},
		interventions: map[string]handlers.Stored{},
		rooms:         map[string]handlers.Room{},
	}
}

// The rows are locked in the order of their keys, which the plan alone would
// not promise: ORDER BY does, since locking comes after sorting.
const (
	lockTracking = `
SELECT t.registration_id, t.learning_object_id, t.event_at, t.source_topic, t.source_partition, t.source_offset,
       t.status IN ('completed', 'passed'), t.first_completion_at
FROM unnest($1::bigint[], $2::integer[]) AS k(registration_id, learning_object_id)
JOIN learnsink.tracking t USING (registration_id, learning_object_id)
ORDER BY 1, 2 FOR UPDATE OF t`

	lockTrackingDeleted = `
SELECT t.registration_id, t.learning_object_id, t.event_at, t.source_topic, t.source_partition, t.source_offset
FROM unnest($1::bigint[], $2::integer[]) AS k(registration_id, learning_object_id)
JOIN learnsink.tracking_deleted t USING (registration_id, learning_object_id)
ORDER BY 1, 2 FOR UPDATE OF t`

	lockInterventions = `
SELECT i.guid_folded, i.event_at, i.source_topic, i.source_partition, i.source_offset
FROM unnest($1::text[]) AS k(guid_folded) JOIN learnsink.intervention i USING (guid_folded)
ORDER BY 1 FOR UPDATE OF i`

	lockRooms = `
SELECT r.guid_folded, r.guid, coalesce(r.label, ''), r.capacity, r.event_at
FROM unnest($1::text[]) AS k(guid_folded) JOIN learnsink.room r USING (guid_folded)
ORDER BY 1 FOR UPDATE OF r`
)

// queue asks for what is stored under the keys of decisions, into s.
func (s *stored) queue(b *pgx.Batch, decisions []handlers.Decision) {
	tracking := map[handlers.TrackingKey]struct{}{}
	interventions, rooms := map[string]struct{}{}, map[string]struct{}{}
	for i := range decisions {
		switch d := &decisions[i]; {
		case d.Verdict != handlers.Accepted:
		case d.Tracking != nil:
			tracking[d.Tracking.TrackingKey] = struct{}{}
		case d.Intervention != nil:
			interventions[d.Intervention.GUIDFolded] = struct{}{}
			rooms[d.Intervention.RoomGUIDFolded] = struct{}{}
		}
	}
	if len(tracking) > 0 {
		var k trackingKeys
		for key := range tracking {
			k.add(key)
		}
		b.Queue(lockTracking, k.registration, k.object).Query(func(rows pgx.Rows) error {
			var key handlers.TrackingKey
			was := trackingWas{Stored: handlers.Stored{Known: true}, row: true}
			var completion pgtype.Timestamptz
			_, err := pgx.ForEachRow(rows, []any{&key.RegistrationID, &key.LearningObjectID, &was.EventTime, &was.SourceTopic,
				&was.SourcePartition, &was.SourceOffset, &was.Done, &completion}, func() error {
				was.FirstCompletion = handlers.Opt[time.Time]{V: completion.Time.UTC(), OK: completion.Valid}
				s.tracking[key] = was
				return nil
			})
			return err
		})
		b.Queue(lockTrackingDeleted, k.registration, k.object).Query(func(rows pgx.Rows) error {
			var key handlers.TrackingKey
			was := trackingWas{Stored: handlers.Stored{Known: true}, memory: true}
			_, err := pgx.ForEachRow(rows, []any{&key.RegistrationID, &key.LearningObjectID, &was.EventTime, &was.SourceTopic,
				&was.SourcePartition, &was.SourceOffset}, func() error {
				if !s.tracking[key].row {
					s.tracking[key] = was
				}
				return nil
			})
			return err
		})
	}
	if len(interventions) > 0 {
		b.Queue(lockInterventions, keys(interventions)).Query(func(rows pgx.Rows) error {
			var guid string
			was := handlers.Stored{Known: true}
			_, err := pgx.ForEachRow(rows, []any{&guid, &was.EventTime, &was.SourceTopic, &was.SourcePartition, &was.SourceOffset}, func() error {
				s.interventions[guid] = was
				return nil
			})
			return err
		})
		b.Queue(lockRooms, keys(rooms)).Query(func(rows pgx.Rows) error {
			var r handlers.Room
			var capacity pgtype.Int4
			var at pgtype.Timestamptz
			_, err := pgx.ForEachRow(rows, []any{&r.GUIDFolded, &r.GUID, &r.Label, &capacity, &at}, func() error {
				r.Capacity = handlers.Opt[int32]{V: capacity.Int32, OK: capacity.Valid}
				r.EventAt = handlers.Opt[time.Time]{V: at.Time.UTC(), OK: at.Valid}
				s.rooms[r.GUIDFolded] = r
				return nil
			})
			return err
		})
	}
}

// writes is what a batch leaves in the tables.
type writes struct {
	batch                       *handlers.Batch
	accepted, rejected, skipped int64

	updates trackingRows // was in tracking
	inserts trackingRows // was not; a deleted one is a placeholder for the key's sake (see queueRows)
	deletes trackingKeys // in tracking, or just put there as a placeholder
	fresh   trackingKeys // of the inserts that are no placeholders
	forgets int          // how many of them were in tracking_deleted

	remembers    memories // of a key that was in tracking or tracking_deleted
	remembersNew memories // of a key that was in neither

	interventionUpdates, interventionInserts interventionRows
	roomUpdates, roomInserts                 roomRows

	rejections rejectionRows
}

// settle settles decisions, in offset order, against what was stored and what
// their predecessors leave, and collects what has to be written: the last
// state of each key, by key. The rejections of refused offsets go without what
// PostgreSQL might have refused.
func settle(b *handlers.Batch, decisions []handlers.Decision, was *stored, refused map[int64]struct{}) *writes {
	type change struct {
		now  handlers.Stored
		last *handlers.Decision
	}
	tracking := map[handlers.TrackingKey]change{}
	interventions := map[string]change{}
	rooms := map[string]handlers.Room{}
	w := &writes{batch: b}
	for i := range decisions {
		d := &decisions[i]
		if d.Verdict == handlers.Accepted {
			switch {
			case d.Tracking != nil:
				key := d.Tracking.TrackingKey
				c, ok := tracking[key]
				if !ok {
					c.now = was.tracking[key].Stored
				}
				if c.now = d.Settle(b.Source.ByEventTime, c.now); d.Verdict == handlers.Accepted {
					c.last = d
				}
				tracking[key] = c
			case d.Intervention != nil:
				key := d.Intervention.GUIDFolded
				c, ok := interventions[key]
				if !ok {
					c.now = was.interventions[key]
				}
				if c.now = d.Settle(b.Source.ByEventTime, c.now); d.Verdict == handlers.Accepted {
					c.last = d
					key := d.Intervention.RoomGUIDFolded
					room, ok := rooms[key]
					if !ok {
						room, ok = was.rooms[key]
					}
					rooms[key] = d.SettleRoom(handlers.Opt[handlers.Room]{V: room, OK: ok})
				}
				interventions[key] = c
			}
		}
		switch d.Verdict {
		case handlers.Accepted:
			w.accepted++
		case handlers.Rejected:
			w.rejected++
			_, bare := refused[d.Record.Offset]
			w.rejections.add(d, bare)
		}
	}
	w.skipped = b.To - b.From - w.accepted - w.rejected

	for _, key := range sortedKeys(tracking, compareTracking) {
		d := tracking[key].last
		if d == nil {
			continue
		}
		switch was := was.tracking[key]; {
		case !d.Tracking.Delete && was.row:
			w.updates.add(d)
		case !d.Tracking.Delete:
			w.inserts.add(d)
			w.fresh.add(key)
			if was.memory {
				w.forgets++
			}
		case was.row:
			w.deletes.add(key)
			w.remembers.add(d)
		case was.memory:
			w.remembers.add(d)
		default:
			w.inserts.add(d)
			w.deletes.add(key)
			w.remembersNew.add(d)
		}
	}
	for _, key := range sortedKeys(interventions, strings.Compare) {
		switch d := interventions[key].last; {
		case d == nil:
		case was.interventions[key].Known:
			w.interventionUpdates.add(d)
		default:
			w.interventionInserts.add(d)
		}
	}
	for _, key := range sortedKeys(rooms, strings.Compare) {
		switch room, ok := was.rooms[key]; {
		case !ok:
			w.roomInserts.add(rooms[key])
		case rooms[key] != room:
			w.roomUpdates.add(rooms[key])
		}
	}

	return w
}

// queueRows queues what the rows leave: table by table in the order of locks.
//
// A key that was locked is written for sure. One that was in no table is
// inserted, and whether that went in tells whether another transaction was
// faster. A delete of nothing needs the same, or it and an insert of the same
// key would look past each other: so it puts a placeholder into tracking and
// takes it out again. Whoever inserts into tracking afterwards had to wait for
// this transaction's end, and then finds the memory of the delete, which it
// did not know of: it forgets more than it asked for, and begins again.
func (w *writes) queueRows(b *pgx.Batch) {
	if n := len(w.updates.registration); n > 0 {
		b.Queue(updateTracking, w.args(&w.updates)...).Exec(exactly(n))
	}
	if n := len(w.inserts.registration); n > 0 {
		b.Queue(insertTracking, w.args(&w.inserts)...).Exec(exactly(n))
	}
	if n := len(w.deletes.registration); n > 0 {
		b.Queue(deleteTracking, w.deletes.registration, w.deletes.object).Exec(exactly(n))
	}
	if len(w.remembers.registration) > 0 {
		b.Queue(insertMemories+" ON CONFLICT (registration_id, learning_object_id) DO UPDATE SET "+
			"event_at = excluded.event_at, source_topic = excluded.source_topic, source_partition = excluded.source_partition, source_offset = excluded.source_offset",
			w.args(&w.remembers)...)
	}
	if n := len(w.remembersNew.registration); n > 0 {
		b.Queue(insertMemories+" ON CONFLICT DO NOTHING", w.args(&w.remembersNew)...).Exec(exactly(n))
	}
	if len(w.fresh.registration) > 0 {
		b.Queue(deleteMemories, w.fresh.registration, w.fresh.object).Exec(exactly(w.forgets))
	}
	if n := len(w.interventionUpdates.guidFolded); n > 0 {
		b.Queue(updateInterventions, w.args(&w.interventionUpdates)...).Exec(exactly(n))
	}
	if n := len(w.interventionInserts.guidFolded); n > 0 {
		b.Queue(insertInterventions, w.args(&w.interventionInserts)...).Exec(exactly(n))
	}
	if n := len(w.roomUpdates.guidFolded); n > 0 {
		b.Queue(updateRooms, w.roomUpdates.args()...).Exec(exactly(n))
	}
	if n := len(w.roomInserts.guidFolded); n > 0 {
		b.Queue(insertRooms, w.roomInserts.args()...).Exec(exactly(n))
	}
	if len(w.rejections.id) > 0 {
		rules := w.batch.Source.Rules
		b.Queue(insertRejections, append(w.args(&w.rejections), string(rules.Action()), rules.Hash())...)
	}
}

// args returns the arguments of a statement about rows that carry their source: topic, partition, columns.
func (w *writes) args(rows interface{ args() []any }) []any {
	return append([]any{w.batch.Source.Topic, w.batch.Partition}, rows.args()...)
}

// The columns of each table as arrays. All are appended to at once: unnest
// would pad one that is shorter with NULL and say nothing.

type trackingKeys struct{ registration, object []int64 }

func (k *trackingKeys) add(key handlers.TrackingKey) {
	k.registration = append(k.registration, key.RegistrationID)
	k.object = append(k.object, key.LearningObjectID)
}

type trackingRows struct {
	trackingKeys
	status                                   []string
	progression, score                       []pgtype.Float8
	scoreMax                                 []int32
	timeSpent                                []int64
	firstAccess, lastAccess, firstCompletion []pgtype.Timestamptz
	filledIn                                 []bool
	eventAt                                  []time.Time
	offset                                   []int64
}

// placeholder is the status of a row that is deleted in the transaction that inserts it.
const placeholder = "incomplete"

func (r *trackingRows) add(d *handlers.Decision) {
	t := d.Tracking
	r.trackingKeys.add(t.TrackingKey)
	status := t.Status.String()
	if t.Delete {
		status = placeholder
	}
	r.status = append(r.status, status)
	r.progression = append(r.progression, pgtype.Float8{Float64: t.Progression.V, Valid: t.Progression.OK})
	r.score = append(r.score, pgtype.Float8{Float64: t.Score.V, Valid: t.Score.OK})
	r.scoreMax = append(r.scoreMax, t.ScoreMax)
	r.timeSpent = append(r.timeSpent, t.TimeSpent)
	r.firstAccess = append(r.firstAccess, timestamp(t.FirstAccess))
	r.lastAccess = append(r.lastAccess, timestamp(t.LastAccess))
	r.firstCompletion = append(r.firstCompletion, timestamp(t.FirstCompletion))
	r.filledIn = append(r.filledIn, t.FilledIn)
	r.eventAt = append(r.eventAt, d.EventTime)
	r.offset = append(r.offset, d.Record.Offset)
}

func (r *trackingRows) args() []any {
	return []any{r.registration, r.object, r.status, r.progression, r.score, r.scoreMax, r.timeSpent,
		r.firstAccess, r.lastAccess, r.firstCompletion, r.filledIn, r.eventAt, r.offset}
}

const (
	unnestTracking = `unnest($3::bigint[], $4::integer[], $5::text[], $6::float8[], $7::float8[], $8::integer[], $9::bigint[],
  $10::timestamptz[], $11::timestamptz[], $12::timestamptz[], $13::boolean[], $14::timestamptz[], $15::bigint[])
  AS u(registration_id, learning_object_id, status, progression, score, score_max, time_spent_seconds,
  first_access_at, last_access_at, first_completion_at, first_completion_filled_in, event_at, source_offset)`

	insertTracking = `
INSERT INTO learnsink.tracking (registration_id, learning_object_id, status, progression, score, score_max, time_spent_seconds,
  first_access_at, last_access_at, first_completion_at, first_completion_filled_in, event_at, source_offset, source_topic, source_partition)
SELECT u.*, $1::text, $2::integer FROM ` + unnestTracking + ` ON CONFLICT DO NOTHING`

	updateTracking = `
UPDATE learnsink.tracking t SET status = u.status, progression = u.progression, score = u.score, score_max = u.score_max,
  time_spent_seconds = u.time_spent_seconds, first_access_at = u.first_access_at, last_access_at = u.last_access_at,
  first_completion_at = u.first_completion_at, first_completion_filled_in = u.first_completion_filled_in,
  event_at = u.event_at, source_offset = u.source_offset, source_topic = $1::text, source_partition = $2::integer, updated_at = now()
FROM ` + unnestTracking + `
WHERE t.registration_id = u.registration_id AND t.learning_object_id = u.learning_object_id`

	deleteTracking = `
DELETE FROM learnsink.tracking t USING unnest($1::bigint[], $2::integer[]) AS u(registration_id, learning_object_id)
WHERE t.registration_id = u.registration_id AND t.learning_object_id = u.learning_object_id`
)

type memories struct {
	trackingKeys
	eventAt []time.Time
	offset  []int64
}

func (m *memories) add(d *handlers.Decision) {
	m.trackingKeys.add(d.Tracking.TrackingKey)
	m.eventAt = append(m.eventAt, d.EventTime)
	m.offset = append(m.offset, d.Record.Offset)
}

func (m *memories) args() []any {
	return []any{m.registration, m.object, m.eventAt, m.offset}
}

const (
	insertMemories = `
INSERT INTO learnsink.tracking_deleted (registration_id, learning_object_id, event_at, source_offset, source_topic, source_partition)
SELECT u.*, $1::text, $2::integer FROM unnest($3::bigint[], $4::integer[], $5::timestamptz[], $6::bigint[]) AS u`

	deleteMemories = `
DELETE FROM learnsink.tracking_deleted t USING unnest($1::bigint[], $2::integer[]) AS u(registration_id, learning_object_id)
WHERE t.registration_id = u.registration_id AND t.learning_object_id = u.learning_object_id`
)

type interventionRows struct {
	guid, guidFolded, room, roomFolded []string
	session, teacher                   []int64
	startsAt                           []time.Time
	hours                              []int32
	status                             []string
	eventAt                            []time.Time
	offset                             []int64
}

func (r *interventionRows) add(d *handlers.Decision) {
	i := d.Intervention
	r.guid, r.guidFolded = append(r.guid, i.GUID), append(r.guidFolded, i.GUIDFolded)
	r.room, r.roomFolded = append(r.room, i.RoomGUID), append(r.roomFolded, i.RoomGUIDFolded)
	r.session, r.teacher = append(r.session, i.RefSessionID), append(r.teacher, i.TeacherID)
	r.startsAt, r.hours = append(r.startsAt, i.Date), append(r.hours, i.Duration)
	r.status = append(r.status, i.StatusWord())
	r.eventAt, r.offset = append(r.eventAt, d.EventTime), append(r.offset, d.Record.Offset)
}

func (r *interventionRows) args() []any {
	return []any{r.guid, r.guidFolded, r.session, r.startsAt, r.hours, r.room, r.roomFolded,
		r.teacher, r.status, r.eventAt, r.offset}
}

const (
	unnestInterventions = `unnest($3::text[], $4::text[], $5::bigint[], $6::timestamptz[], $7::integer[], $8::text[], $9::text[],
  $10::integer[], $11::text[], $12::timestamptz[], $13::bigint[])
  AS u(guid, guid_folded, session_id, starts_at, duration_hours, room_guid, room_guid_folded, teacher_id, status, event_at, source_offset)`

	insertInterventions = `
INSERT INTO learnsink.intervention (guid, guid_folded, session_id, starts_at, duration_hours, room_guid, room_guid_folded, teacher_id,
  status, event_at, source_offset, source_topic, source_partition)
SELECT u.*, $1::text, $2::integer FROM ` + unnestInterventions + ` ON CONFLICT DO NOTHING`

	updateInterventions = `
UPDATE learnsink.intervention i SET guid = u.guid, session_id = u.session_id, starts_at = u.starts_at, duration_hours = u.duration_hours,
  room_guid = u.room_guid, room_guid_folded = u.room_guid_folded, teacher_id = u.teacher_id, status = u.status,
  event_at = u.event_at, source_offset = u.source_offset, source_topic = $1::text, source_partition = $2::integer, updated_at = now()
FROM ` + unnestInterventions + ` WHERE i.guid_folded = u.guid_folded`
)

type roomRows struct {
	guid, guidFolded, label []string
	capacity                []pgtype.Int4
	eventAt                 []pgtype.Timestamptz
}

func (r *roomRows) add(room handlers.Room) {
	r.guid, r.guidFolded = append(r.guid, room.GUID), append(r.guidFolded, room.GUIDFolded)
	r.label = append(r.label, room.Label)
	r.capacity = append(r.capacity, pgtype.Int4{Int32: room.Capacity.V, Valid: room.Capacity.OK})
	r.eventAt = append(r.eventAt, timestamp(room.EventAt))
}

func (r *roomRows) args() []any {
	return []any{r.guid, r.guidFolded, r.label, r.capacity, r.eventAt}
}

const (
	unnestRooms = `unnest($1::text[], $2::text[], $3::text[], $4::integer[], $5::timestamptz[]) AS u(guid, guid_folded, label, capacity, event_at)`

	insertRooms = `INSERT INTO learnsink.room (guid, guid_folded, label, capacity, event_at) SELECT * FROM ` + unnestRooms + ` ON CONFLICT DO NOTHING`

	updateRooms = `
UPDATE learnsink.room r SET guid = u.guid, label = u.label, capacity = u.capacity, event_at = u.event_at
FROM ` + unnestRooms + ` WHERE r.guid_folded = u.guid_folded`
)

func timestamp(t handlers.Opt[time.Time]) pgtype.Timestamptz {
	return pgtype.Timestamptz{Time: t.V, Valid: t.OK}
}

func compareTracking(a, b handlers.TrackingKey) int {
	return cmp.Or(cmp.Compare(a.RegistrationID, b.RegistrationID), cmp.Compare(a.LearningObjectID, b.LearningObjectID))
}

func sortedKeys[K comparable, V any](m map[K]V, compare func(a, b K) int) []K {
	keys := make([]K, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, compare)
	return keys
}

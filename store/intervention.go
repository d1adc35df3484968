package store

import (
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"learnsink/handlers"
)

const (
	lockInterventions = `
SELECT i.guid_folded, i.event_at, i.source_topic, i.source_partition, i.source_offset
FROM unnest($1::text[]) AS k(guid_folded) JOIN learnsink.intervention i USING (guid_folded)
ORDER BY 1 FOR UPDATE OF i`

	lockRooms = `
SELECT r.guid_folded, r.guid, coalesce(r.label, ''), r.capacity, r.event_at
FROM unnest($1::text[]) AS k(guid_folded) JOIN learnsink.room r USING (guid_folded)
ORDER BY 1 FOR UPDATE OF r`
)

// queueInterventions asks for the interventions and rooms that decisions
// speak of, into s.
func (s *stored) queueInterventions(b *pgx.Batch, decisions []handlers.Decision) {
	interventions, rooms := map[string]struct{}{}, map[string]struct{}{}
	for i := range decisions {
		if d := &decisions[i]; d.Verdict == handlers.Accepted && d.Intervention != nil {
			interventions[d.Intervention.GUIDFolded] = struct{}{}
			rooms[d.Intervention.RoomGUIDFolded] = struct{}{}
		}
	}
	if len(interventions) == 0 {
		return
	}
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
	_, offset := d.Stands()
	r.eventAt, r.offset = append(r.eventAt, d.EventTime), append(r.offset, offset)
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

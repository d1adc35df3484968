package store

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"learnsink/handlers"
)

// How a key of tracking is written.
//
// A key is in tracking or in tracking_deleted, never in both, and its row in
// tracking is the lock of both: whoever writes a key has that row first. So a
// deleted key gets a row as well, which goes again in the same transaction.
//
// Most rows need nothing of what is stored: the last one holds. They are
// upserted without a look. Where a decision does need it
// (handlers.Decision.NeedsStored), the key is locked and read before; what
// could not be locked, as it was not there, must still not be there when it is
// written, or the batch begins again (errFaster).
//
// To lock some keys before the others can have batches of the same keys wait
// in a circle (the chaos saw it). So a batch that does it waits for nobody
// longer than patience, and then begins again: carefully, with all its keys in
// their order, and patient. Locking all of them always would take a quarter
// more of PostgreSQL's time, and partitions seldom have keys in common.
//
// Then the memory of the keys' deletion goes, the deleted ones' rows go, and
// their memory is written.

// patience is PostgreSQL's lock_timeout for a batch that locks some keys
// before the others: well below its deadlock_timeout (1 s), and far beyond
// what a batch takes.
const (
	patience  = "200ms"
	bePatient = `SELECT set_config('lock_timeout', $1, true)`
)

// trackingWas is what was under a tracking key; the zero value: nothing.
type trackingWas struct {
	handlers.Stored
	row bool // in tracking; else, where it is known, in tracking_deleted
}

// byKey returns the accepted tracking decisions (their indexes), those of one
// key together and in their order.
func byKey(decisions []handlers.Decision) []int {
	order := make([]int, 0, len(decisions))
	for i := range decisions {
		if d := &decisions[i]; d.Verdict == handlers.Accepted && d.Tracking != nil {
			order = append(order, i)
		}
	}
	slices.SortFunc(order, func(i, j int) int {
		return cmp.Or(compareTracking(decisions[i].Tracking.TrackingKey, decisions[j].Tracking.TrackingKey), cmp.Compare(i, j))
	})
	return order
}

func compareTracking(a, b handlers.TrackingKey) int {
	return cmp.Or(cmp.Compare(a.RegistrationID, b.RegistrationID), cmp.Compare(a.LearningObjectID, b.LearningObjectID))
}

// ofOneKey calls each with the runs of order that are of one key.
func ofOneKey(decisions []handlers.Decision, order []int, each func(key handlers.TrackingKey, run []int)) {
	for len(order) > 0 {
		key, n := decisions[order[0]].Tracking.TrackingKey, 1
		for n < len(order) && decisions[order[n]].Tracking.TrackingKey == key {
			n++
		}
		each(key, order[:n])
		order = order[n:]
	}
}

// The subqueries cannot be flattened (FOR UPDATE, OFFSET 0), so that each of
// these goes from its arrays to the table by the key, in the order of the
// arrays, whatever the planner believed of the table when it planned them.
const (
	unnestKeys = `unnest($1::bigint[], $2::integer[]) AS k(registration_id, learning_object_id)`
	underKey   = `WHERE t.registration_id = k.registration_id AND t.learning_object_id = k.learning_object_id`

	lockTracking = `
SELECT t.* FROM ` + unnestKeys + ` CROSS JOIN LATERAL (
  SELECT t.registration_id, t.learning_object_id, t.event_at, t.source_topic, t.source_partition, t.source_offset,
    t.status IN ('completed', 'passed'), t.first_completion_at
  FROM learnsink.tracking t ` + underKey + ` FOR UPDATE) t`

	readMemories = `
SELECT t.* FROM ` + unnestKeys + ` CROSS JOIN LATERAL (
  SELECT t.registration_id, t.learning_object_id, t.event_at, t.source_topic, t.source_partition, t.source_offset
  FROM learnsink.tracking_deleted t ` + underKey + ` OFFSET 0) t`
)

// queueTracking asks for what is stored under the keys of decisions, into s:
// of all of them, or of those whose decisions need it.
func (s *stored) queueTracking(b *pgx.Batch, batch *handlers.Batch, decisions []handlers.Decision, all bool) {
	keys := 0
	k := newTrackingKeys(0)
	ofOneKey(decisions, byKey(decisions), func(key handlers.TrackingKey, run []int) {
		keys++
		if all || decisions[run[0]].NeedsStored(batch.Source.ByEventTime) {
			s.tracking[key] = trackingWas{}
			k.add(key)
		}
	})
	if k.n() == 0 {
		return
	}
	if k.n() < keys {
		b.Queue(bePatient, patience)
	}
	b.Queue(lockTracking, k.args()...).Query(func(rows pgx.Rows) error {
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
	b.Queue(readMemories, k.args()...).Query(func(rows pgx.Rows) error {
		return forEachMemory(rows, func(key handlers.TrackingKey, was handlers.Stored) error {
			if !s.tracking[key].row {
				s.tracking[key] = trackingWas{Stored: was}
			}
			return nil
		})
	})
}

func forEachMemory(rows pgx.Rows, each func(handlers.TrackingKey, handlers.Stored) error) error {
	var key handlers.TrackingKey
	was := handlers.Stored{Known: true}
	_, err := pgx.ForEachRow(rows, []any{&key.RegistrationID, &key.LearningObjectID, &was.EventTime, &was.SourceTopic,
		&was.SourcePartition, &was.SourceOffset}, func() error { return each(key, was) })
	return err
}

// trackingWrites is what a batch leaves in tracking and tracking_deleted.
type trackingWrites struct {
	upserts  trackingRows // whatever is there
	inserts  trackingRows // nothing was there, and nothing may be
	unowned  trackingKeys // keys that may be in tracking_deleted
	deletes  trackingKeys // rows to go again
	memories memories     // of the deletes

	// remembered is what was in tracking_deleted of the inserts' keys; the
	// zero value: nothing.
	remembered map[handlers.TrackingKey]handlers.Stored
	upserted   int64 // how many upserts changed something
}

func newTrackingWrites(rows int) trackingWrites {
	return trackingWrites{
		upserts: newTrackingRows(rows), inserts: newTrackingRows(0), unowned: newTrackingKeys(rows), deletes: newTrackingKeys(0),
		memories:   memories{newTrackingKeys(0), columnOf(pgtype.TimestamptzOID, 0, 8), columnOf(pgtype.Int8OID, 0, 8)},
		remembered: map[handlers.TrackingKey]handlers.Stored{},
	}
}

// add adds the last decision of a key. looked: what was under the key is known.
func (w *trackingWrites) add(d *handlers.Decision, was trackingWas, looked bool) {
	key := d.Tracking.TrackingKey
	switch {
	case looked && !was.row:
		w.inserts.add(d)
		w.remembered[key] = was.Stored
	case !looked || !d.Tracking.Delete: // else it is locked, and only has to go
		w.upserts.add(d)
	}
	if !was.row {
		w.unowned.add(key)
	}
	if d.Tracking.Delete {
		w.deletes.add(key)
		w.memories.add(d)
	}
}

// queue queues the writes. source is what every row says of its source: topic, partition.
// lookFirst: most rows are expected to be there as they are.
func (w *trackingWrites) queue(b *pgx.Batch, source []any, lookFirst bool) {
	if w.upserts.n() > 0 {
		upsert := upsertTracking
		if lookFirst {
			upsert = upsertChanged
		}
		b.Queue(upsert, append(source, w.upserts.args()...)...).Exec(func(tag pgconn.CommandTag) error {
			w.upserted = tag.RowsAffected()
			return nil
		})
	}
	if n := w.inserts.n(); n > 0 {
		b.Queue(insertTracking, append(source, w.inserts.args()...)...).Exec(exactly(n))
	}
	if w.unowned.n() > 0 {
		b.Queue(forget, w.unowned.args()...).Query(w.forgot)
	}
	if n := w.deletes.n(); n > 0 {
		b.Queue(deleteTracking, w.deletes.args()...).Exec(exactly(n))
		b.Queue(insertMemories, append(source, w.memories.args()...)...).Exec(exactly(n))
	}
}

// forgot compares the memories that went with those that decisions rest on.
func (w *trackingWrites) forgot(rows pgx.Rows) error {
	expected := 0
	for _, was := range w.remembered {
		if was.Known {
			expected++
		}
	}
	err := forEachMemory(rows, func(key handlers.TrackingKey, is handlers.Stored) error {
		was, looked := w.remembered[key]
		switch {
		case !looked:
			return nil
		case !was.Known, !was.EventTime.Equal(is.EventTime), was.SourceTopic != is.SourceTopic,
			was.SourcePartition != is.SourcePartition, was.SourceOffset != is.SourceOffset:
			return errFaster
		}
		expected--
		return nil
	})
	if err == nil && expected != 0 {
		return errFaster
	}
	return err
}

// The columns of each table as arrays. All are appended to at once: unnest
// would pad one that is shorter with NULL and say nothing.

type trackingKeys struct{ registration, object column }

func newTrackingKeys(rows int) trackingKeys {
	return trackingKeys{columnOf(pgtype.Int8OID, rows, 8), columnOf(pgtype.Int4OID, rows, 4)}
}

func (k *trackingKeys) n() int { return k.registration.n }

func (k *trackingKeys) add(key handlers.TrackingKey) {
	k.registration.int64(key.RegistrationID)
	k.object.int32(int32(key.LearningObjectID))
}

func (k *trackingKeys) args() []any { return []any{&k.registration, &k.object} }

type trackingRows struct {
	trackingKeys
	status, progression, score, scoreMax, timeSpent column
	firstAccess, lastAccess, firstCompletion        column
	filledIn, eventAt, offset                       column
}

func newTrackingRows(rows int) trackingRows {
	float, time := columnOf(pgtype.Float8OID, rows, 8), columnOf(pgtype.TimestamptzOID, rows, 8)
	another := func(c column) column { return columnOf(c.element, rows, 8) }
	return trackingRows{newTrackingKeys(rows), columnOf(pgtype.TextOID, rows, len(placeholder)), float, another(float),
		columnOf(pgtype.Int4OID, rows, 4), columnOf(pgtype.Int8OID, rows, 8), time, another(time), another(time),
		columnOf(pgtype.BoolOID, rows, 1), another(time), columnOf(pgtype.Int8OID, rows, 8)}
}

// placeholder is the status of a row that is deleted in the transaction that writes it.
const placeholder = "incomplete"

func (r *trackingRows) add(d *handlers.Decision) {
	t := d.Tracking
	r.trackingKeys.add(t.TrackingKey)
	if t.Delete {
		r.status.text(placeholder)
	} else {
		r.status.text(t.Status.String())
	}
	r.progression.float(t.Progression)
	r.score.float(t.Score)
	r.scoreMax.int32(t.ScoreMax)
	r.timeSpent.int64(t.TimeSpent)
	r.firstAccess.optTime(t.FirstAccess)
	r.lastAccess.optTime(t.LastAccess)
	r.firstCompletion.optTime(t.FirstCompletion)
	r.filledIn.bool(t.FilledIn)
	r.eventAt.time(d.EventTime)
	_, offset := d.Stands()
	r.offset.int64(offset)
}

func (r *trackingRows) args() []any {
	return append(r.trackingKeys.args(), &r.status, &r.progression, &r.score, &r.scoreMax, &r.timeSpent,
		&r.firstAccess, &r.lastAccess, &r.firstCompletion, &r.filledIn, &r.eventAt, &r.offset)
}

const (
	trackingColumns = `(registration_id, learning_object_id, status, progression, score, score_max, time_spent_seconds,
  first_access_at, last_access_at, first_completion_at, first_completion_filled_in, event_at, source_offset, source_topic, source_partition)`

	// unnest stands in the list of columns, not in FROM: there PostgreSQL keeps
	// each array in a store of its own first, which takes twice as long.
	unnestTracking = `
SELECT unnest($3::bigint[]) AS registration_id, unnest($4::integer[]) AS learning_object_id, unnest($5::text[]) AS status,
  unnest($6::float8[]) AS progression, unnest($7::float8[]) AS score, unnest($8::integer[]) AS score_max, unnest($9::bigint[]) AS time_spent_seconds,
  unnest($10::timestamptz[]) AS first_access_at, unnest($11::timestamptz[]) AS last_access_at, unnest($12::timestamptz[]) AS first_completion_at,
  unnest($13::boolean[]) AS first_completion_filled_in, unnest($14::timestamptz[]) AS event_at, unnest($15::bigint[]) AS source_offset,
  $1::text AS source_topic, $2::integer AS source_partition`

	insertTracking = `INSERT INTO learnsink.tracking ` + trackingColumns + unnestTracking + ` ON CONFLICT DO NOTHING`
)

// The statements that leave a row alone where nothing changes: an update that
// changes nothing costs as much as one that does. Event time and source count,
// or order by event time would be fooled. The first locks such a row, in
// passing; the second has looked before, which is cheaper where most rows are
// as they were (a topic that is read again), and dearer where few are.
var (
	upsertTracking = `INSERT INTO learnsink.tracking AS t ` + trackingColumns + unnestTracking + onConflict + ` WHERE ` + differs("t", "excluded")

	upsertChanged = `INSERT INTO learnsink.tracking AS t ` + trackingColumns + `
SELECT * FROM (` + unnestTracking + `) AS u
WHERE NOT EXISTS (SELECT FROM learnsink.tracking o WHERE o.registration_id = u.registration_id AND o.learning_object_id = u.learning_object_id
  AND NOT (` + differs("o", "u") + `) OFFSET 0)` + onConflict
)

const onConflict = `
ON CONFLICT (registration_id, learning_object_id) DO UPDATE SET status = excluded.status, progression = excluded.progression, score = excluded.score,
  score_max = excluded.score_max, time_spent_seconds = excluded.time_spent_seconds, first_access_at = excluded.first_access_at,
  last_access_at = excluded.last_access_at, first_completion_at = excluded.first_completion_at,
  first_completion_filled_in = excluded.first_completion_filled_in, event_at = excluded.event_at, source_offset = excluded.source_offset,
  source_topic = excluded.source_topic, source_partition = excluded.source_partition, updated_at = now()`

// differs is the condition that a stored row is not as a new one has it. What
// differs most often comes first: PostgreSQL stops there.
func differs(stored, row string) string {
	var conditions []string
	for _, column := range []string{"source_offset", "source_partition", "source_topic", "event_at", "status", "progression", "score", "score_max",
		"time_spent_seconds", "first_access_at", "last_access_at", "first_completion_at", "first_completion_filled_in"} {
		conditions = append(conditions, stored+"."+column+" IS DISTINCT FROM "+row+"."+column)
	}
	return strings.Join(conditions, " OR ")
}

const (
	// forget is for keys whose row in tracking is ours, so that nobody else
	// touches their memory. Where nothing was ever deleted, it looks no further.
	forget = `
DELETE FROM learnsink.tracking_deleted WHERE ctid = ANY (ARRAY(
  SELECT t.ctid FROM ` + unnestKeys + ` CROSS JOIN LATERAL (SELECT t.ctid FROM learnsink.tracking_deleted t ` + underKey + ` OFFSET 0) t
  WHERE EXISTS (SELECT FROM learnsink.tracking_deleted)))
RETURNING registration_id, learning_object_id, event_at, source_topic, source_partition, source_offset`

	deleteTracking = `
DELETE FROM learnsink.tracking WHERE ctid = ANY (ARRAY(
  SELECT t.ctid FROM ` + unnestKeys + ` CROSS JOIN LATERAL (SELECT t.ctid FROM learnsink.tracking t ` + underKey + ` OFFSET 0) t))`

	insertMemories = `
INSERT INTO learnsink.tracking_deleted (registration_id, learning_object_id, event_at, source_offset, source_topic, source_partition)
SELECT u.*, $1::text, $2::integer FROM unnest($3::bigint[], $4::integer[], $5::timestamptz[], $6::bigint[]) AS u`
)

type memories struct {
	trackingKeys
	eventAt, offset column
}

func (m *memories) add(d *handlers.Decision) {
	m.trackingKeys.add(d.Tracking.TrackingKey)
	m.eventAt.time(d.EventTime)
	_, offset := d.Stands()
	m.offset.int64(offset)
}

func (m *memories) args() []any {
	return append(m.trackingKeys.args(), &m.eventAt, &m.offset)
}

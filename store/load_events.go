package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"strings"

	"github.com/jackc/pgx/v5"

	"learnsink/handlers"
	"learnsink/store/catalogue"
)

// What topics add to a load: what a record refers to may come after it, on
// another topic or another partition, and waits in a table until then; and a
// tombstone waits until nothing refers to what it names. A load of files heeds
// both: what it brings ends the waiting, and what it names is no more dead.

// waits says whether anything has been waiting, and that sessions have been woken.
type waits struct{ sessions, registrations, tombstones, woken bool }

const selectWaits = `SELECT EXISTS (SELECT FROM learnsink.catalogue_waiting_session),
  EXISTS (SELECT FROM learnsink.catalogue_waiting_registration), EXISTS (SELECT FROM learnsink.catalogue_tombstone)`

// waitingKey is the identity of a registration, short enough for an index.
func waitingKey(line *catalogue.Line) []byte {
	sum := sha256.Sum256([]byte(line.Identity()))
	return sum[:]
}

// wake moves what has waited for the lines of this load to where the lines of
// its own kind are staged, before them (place < 0): sessions for trainings,
// registrations for learners and sessions. What still lacks something is put
// back. What a line says anew does not wait any more.
func (l *load) wake(ctx context.Context, kind catalogue.Kind) (woken bool, err error) {
	staged := func(kind catalogue.Kind) bool {
		return l.counts[kind] != nil || l.events.holds(kind) || kind == catalogue.Sessions && l.waits.woken
	}
	switch {
	case kind == catalogue.Sessions && l.waits.sessions:
		if staged(kind) {
			if err := l.exec(ctx, forgetSessions); err != nil {
				return false, err
			}
		}
		if !staged(catalogue.Trainings) {
			return false, nil
		}
		if err := l.events.stage(ctx, l, kind); err != nil {
			return false, err
		}
		tag, err := l.tx.Exec(ctx, wakeSessions)
		l.waits.woken = tag.RowsAffected() > 0
		return l.waits.woken, err
	case kind == catalogue.Registrations && l.waits.registrations:
		var due []string
		if staged(catalogue.Learners) {
			due = append(due, dueByLearner...)
		}
		if staged(catalogue.Sessions) {
			due = append(due, dueBySession...)
		}
		if len(due) == 0 {
			return false, nil
		}
		if err := l.events.stage(ctx, l, kind); err != nil {
			return false, err
		}
		var s said
		if err := l.tx.QueryRow(ctx, fmt.Sprintf(wakeRegistrations, strings.Join(due, "\n  UNION "))).
			Scan(&s.by[byLogin], &s.several, &s.by[byRefNumber], &s.by[byEmail], &s.sessionIDs); err != nil {
			return false, err
		}
		woken = s.by[byLogin]+s.by[byRefNumber]+s.by[byEmail] > 0
		for by := range s.by {
			l.says.by[by] += s.by[by]
		}
		l.says.several, l.says.sessionIDs = l.says.several+s.several, l.says.sessionIDs+s.sessionIDs
	}
	return woken, nil
}

const (
	forgetSessions = `DELETE FROM learnsink.catalogue_waiting_session w USING load_sessions s WHERE w.id = s.id`

	wakeSessions = `
WITH woken AS (DELETE FROM learnsink.catalogue_waiting_session w USING load_trainings t WHERE w.training_id = t.id RETURNING w.*)
INSERT INTO load_sessions (place, id, training_id, guid, guid_folded, title)
SELECT -row_number() OVER (ORDER BY id), id, training_id, guid, guid_folded, title FROM woken`

	wakeRegistrations = `
WITH due AS (%s),
woken AS (DELETE FROM learnsink.catalogue_waiting_registration w USING due WHERE w.key = due.key RETURNING w.*),
put AS (INSERT INTO load_registrations (place, login, ref, email, session_guid, session_id, key)
  SELECT -row_number() OVER (ORDER BY key), login, ref, email, session_guid, session_id, key FROM woken)
SELECT count(login), count(login) FILTER (WHERE ref IS NOT NULL OR email IS NOT NULL), count(ref) FILTER (WHERE login IS NULL),
  count(email) FILTER (WHERE login IS NULL AND ref IS NULL), count(session_id) FROM woken`
)

var (
	dueByLearner = []string{
		`SELECT w.key FROM learnsink.catalogue_waiting_registration w JOIN load_learners s ON s.login_folded = w.login`,
		`SELECT w.key FROM learnsink.catalogue_waiting_registration w JOIN load_learners s ON s.ref_number = w.ref`,
		`SELECT w.key FROM learnsink.catalogue_waiting_registration w JOIN load_learners s ON s.email_folded = w.email`,
	}
	dueBySession = []string{
		`SELECT w.key FROM learnsink.catalogue_waiting_registration w JOIN load_sessions s ON s.id = w.session_id`,
		`SELECT w.key FROM learnsink.catalogue_waiting_registration w JOIN load_sessions s ON s.guid_folded = w.session_guid`,
	}
)

// putBack has wait what refers to what is not there: of files' lines none,
// those are bad.
func (l *load) putBack(ctx context.Context, kind catalogue.Kind) error {
	sql := putSessionsBack
	if kind == catalogue.Registrations {
		sql = putRegistrationsBack
	}
	_, err := l.tx.Exec(ctx, sql, l.events != nil)
	return err
}

const (
	putSessionsBack = `
WITH lacking AS (DELETE FROM load_sessions s WHERE (place < 0 OR $1) AND NOT EXISTS (SELECT FROM learnsink.training t WHERE t.id = s.training_id) RETURNING *)
INSERT INTO learnsink.catalogue_waiting_session (id, training_id, guid, guid_folded, title)
SELECT id, training_id, guid, guid_folded, title FROM lacking ON CONFLICT (id) DO NOTHING`

	putRegistrationsBack = `
WITH lacking AS (DELETE FROM load_resolved WHERE (place < 0 OR $1) AND (session_id IS NULL OR learner_id IS NULL) RETURNING place)
INSERT INTO learnsink.catalogue_waiting_registration (key, login, ref, email, session_guid, session_id)
SELECT key, login, ref, email, session_guid, session_id FROM load_registrations JOIN lacking USING (place) ON CONFLICT (key) DO NOTHING`
)

// revive takes back the tombstones of what the load names.
func (l *load) revive(ctx context.Context, kind catalogue.Kind) error {
	if !l.waits.tombstones {
		return nil
	}
	p, on := pruningOf(kind), ""
	switch kind {
	case catalogue.Learners, catalogue.Teachers:
		on = "s.login_folded = t.login_folded"
	case catalogue.LearningObjects, catalogue.Rooms:
		on = "s.guid_folded = t.guid_folded"
	case catalogue.Trainings, catalogue.Sessions:
		on = "s.id = t.id"
	case catalogue.Registrations:
		on = "s.learner_id = t.learner_id AND s.session_id = t.session_id"
	}
	lines := "load_" + string(kind)
	if kind == catalogue.Registrations {
		lines = "load_resolved"
	}
	_, err := l.tx.Exec(ctx, fmt.Sprintf(`DELETE FROM learnsink.catalogue_tombstone h USING learnsink.%s t, %s s
		WHERE h.kind = $1 AND h.thing = t.%s::text AND %s`, p.table, lines, p.id, on), kind)
	return err
}

func pruningOf(kind catalogue.Kind) pruning {
	for _, p := range prunes {
		if p.kind == kind {
			return p
		}
	}
	panic("no such kind: " + string(kind))
}

// replaceRooms: a record of a topic is the whole of a room. (A file leaves
// what it does not say as it is. Of a compacted topic only the last record is
// sure to be read, so that what an earlier one said must not matter.)
const replaceRooms = `UPDATE learnsink.room t SET guid = s.guid, label = s.label, capacity = s.capacity
FROM load_rooms s WHERE t.guid_folded = s.guid_folded AND (t.guid, t.label, t.capacity) IS DISTINCT FROM (s.guid, s.label, s.capacity)`

// many reports whether so much is loaded that the planner has to know of it.
func (l *load) many() bool {
	return l.events == nil || l.says.by[byLogin]+l.says.by[byRefNumber]+l.says.by[byEmail] >= manyEvents
}

const manyEvents = 20_000

// write runs a statement that writes entries of a kind, and says how many. Of
// records it notes whose learners' answers change by that.
func (l *load) write(ctx context.Context, kind catalogue.Kind, sql, id string) (int64, error) {
	if l.events == nil || kind != catalogue.Learners && kind != catalogue.Registrations {
		tag, err := l.tx.Exec(ctx, sql)
		return tag.RowsAffected(), err
	}
	if kind == catalogue.Registrations {
		id = "learner_id"
	}
	rows, err := l.tx.Query(ctx, sql+"\nRETURNING "+id)
	if err != nil {
		return 0, err
	}
	var n int64
	var learner int32
	_, err = pgx.ForEachRow(rows, []any{&learner}, func() error {
		n++
		l.events.touch(learner)
		return nil
	})
	return n, err
}

// events are records of topics: what is left of them for each entry.
type events struct {
	of      map[catalogue.Kind][]event
	bad     []badRecord
	upserts int64
	dead    int64
	staged  map[catalogue.Kind]bool
	erased  map[catalogue.Kind]int64 // upserts of persons who were erased

	changed  int64              // entries
	learners map[int32]struct{} // whose answers change; nil: too many
	objects  bool               // learning objects change
	wide     bool               // something changes that is remembered of many
}

type event struct {
	line      catalogue.Line
	tombstone bool
}

// badRecord is a record that says nothing that can be stored.
type badRecord struct {
	handlers.TopicPartition
	offset int64
	why    string
}

// narrow is of how many learners a change can tell: one of more has every
// process forget what it remembers.
const narrow = 5000

// readEvents reads the records of chunks: of several about one entry the last
// holds, in the order of their partition.
func readEvents(chunks []handlers.CatalogueChunk) *events {
	e := &events{of: map[catalogue.Kind][]event{}, staged: map[catalogue.Kind]bool{}, erased: map[catalogue.Kind]int64{}, learners: map[int32]struct{}{}}
	at := map[catalogue.Kind]map[string]int{}
	for _, c := range chunks {
		kind := catalogue.Kind(c.Kind)
		if at[kind] == nil {
			at[kind] = make(map[string]int, len(c.Records))
		}
		for i := range c.Records {
			r := &c.Records[i]
			line, tombstone := catalogue.ParseEvent(kind, r.Key, r.Value)
			switch {
			case line.Bad != "":
				e.bad = append(e.bad, badRecord{c.TopicPartition, r.Offset, line.Bad})
				continue
			case tombstone:
				e.dead++
			default:
				e.upserts++
			}
			id := line.Identity()
			if n, ok := at[kind][id]; ok {
				e.of[kind][n] = event{line, tombstone}
				continue
			}
			at[kind][id] = len(e.of[kind])
			e.of[kind] = append(e.of[kind], event{line, tombstone})
		}
	}
	return e
}

// holds reports whether lines of a kind are staged.
func (e *events) holds(kind catalogue.Kind) bool { return e != nil && e.staged[kind] }

func (e *events) touch(learner int32) {
	if e.learners == nil {
		return
	}
	if e.learners[learner] = struct{}{}; len(e.learners) > narrow {
		e.learners = nil
	}
}

// added and updated note entries of a kind.
func (e *events) added(kind catalogue.Kind, n int64) {
	if e == nil || n == 0 {
		return
	}
	e.changed += n
	e.objects = e.objects || kind == catalogue.LearningObjects
}

func (e *events) updated(kind catalogue.Kind, n int64) {
	e.added(kind, n)
	if e != nil && n > 0 {
		// What is remembered of a registration is its session and training.
		e.wide = e.wide || kind == catalogue.Sessions || kind == catalogue.Trainings
	}
}

// stage makes a kind's staging table, once.
func (e *events) stage(ctx context.Context, l *load, kind catalogue.Kind) error {
	if e == nil || e.staged[kind] {
		return nil
	}
	e.staged[kind] = true
	return l.exec(ctx, staging[kind])
}

// stageEvents copies the upserts of a kind, or its tombstones, into the staging table.
func (l *load) stageEvents(ctx context.Context, kind catalogue.Kind, tombstones bool) (n int, err error) {
	rows := copyRows(copyBegin)
	for i := range l.events.of[kind] {
		e := &l.events.of[kind][i]
		switch {
		case e.tombstone != tombstones:
		case !tombstones && l.ofErased(&e.line):
			l.events.erased[kind]++
		default:
			n++
			l.appendLine(&rows, int64(n), &e.line)
		}
	}
	if n == 0 {
		return 0, nil
	}
	if err := l.events.stage(ctx, l, kind); err != nil {
		return 0, err
	}
	rows = append(rows, copyEnd...)
	sql := fmt.Sprintf("COPY load_%s (%s) FROM STDIN (FORMAT binary)", kind, strings.Join(staged[kind], ", "))
	if _, err := l.tx.Conn().PgConn().CopyFrom(ctx, io.Reader(bytes.NewReader(rows)), sql); err != nil {
		return 0, err
	}
	if kind != catalogue.Registrations && n >= manyEvents {
		err = l.exec(ctx, "ANALYZE load_"+string(kind))
	}
	return n, err
}

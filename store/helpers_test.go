package store_test

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"learnsink/handlers"
	"learnsink/store"
	"learnsink/test/pgtest"
)

const clusterID = "test-cluster"

// day is when the tests' events happen, unless they say otherwise.
var day = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// world is a database with a small catalogue, and a store on it.
type world struct {
	*store.Store
	t   testing.TB
	url string
	db  *pgx.Conn // beside the store, for looking and for planting
}

// newWorld makes a world: learners l0 … l9, each in sessions 100 and 101 of
// training 10; learning objects o0 … o9; teachers t0, t1; room r0.
func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{t: t, url: pgtest.New(t)}
	w.Store = open(t, w.url)
	w.connect()
	w.exec(`INSERT INTO learnsink.learner (login, login_folded) SELECT 'L' || i, 'l' || i FROM generate_series(0, 9) i`)
	w.exec(`INSERT INTO learnsink.learning_object (guid, guid_folded, provider) SELECT 'O' || i, 'o' || i, 'customer' FROM generate_series(0, 9) i`)
	w.exec(`INSERT INTO learnsink.training (id, guid, guid_folded, path_code) VALUES (10, 'T10', 't10', 'P10')`)
	w.exec(`INSERT INTO learnsink.session (id, training_id, guid, guid_folded, title) VALUES (100, 10, 'S100', 's100', 'One'), (101, 10, 'S101', 's101', 'Two')`)
	w.exec(`INSERT INTO learnsink.registration (learner_id, session_id) SELECT l.id, s.id FROM learnsink.learner l, learnsink.session s ORDER BY 1, 2`)
	w.exec(`INSERT INTO learnsink.teacher (login, login_folded) VALUES ('T0', 't0'), ('T1', 't1')`)
	w.exec(`INSERT INTO learnsink.room (guid, guid_folded, label, capacity) VALUES ('R0', 'r0', 'Room 0', 10)`)
	w.exec(`UPDATE learnsink.catalogue_version SET version = 1, loaded_at = now()`)
	return w
}

func (w *world) connect() {
	w.t.Helper()
	conn, err := pgx.Connect(w.t.Context(), w.url)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { conn.Close(context.Background()) })
	w.db = conn
}

func open(t testing.TB, url string) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), store.Config{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func (w *world) exec(sql string, args ...any) {
	w.t.Helper()
	if _, err := w.db.Exec(context.Background(), sql, args...); err != nil {
		w.t.Fatalf("%s: %v", sql, err)
	}
}

// text returns a query's rows as one text, a line a row.
func (w *world) text(sql string, args ...any) string {
	w.t.Helper()
	var text string
	err := w.db.QueryRow(context.Background(), "SELECT coalesce(string_agg(q::text, E'\n'), '') FROM ("+sql+") q", args...).Scan(&text)
	if err != nil {
		w.t.Fatalf("%s: %v", sql, err)
	}
	return text
}

// state is all that rows leave in the tables, without what is clock.
func (w *world) state() string {
	w.t.Helper()
	return w.text(`SELECT * FROM (
		SELECT 1, (to_jsonb(t) - 'updated_at')::text FROM learnsink.tracking t
		UNION ALL SELECT 2, to_jsonb(t)::text FROM learnsink.tracking_deleted t
		UNION ALL SELECT 3, (to_jsonb(t) - 'updated_at')::text FROM learnsink.intervention t
		UNION ALL SELECT 4, to_jsonb(t)::text FROM learnsink.room t
		UNION ALL SELECT 5, (to_jsonb(t) - 'rejected_at' - 'seq')::text FROM learnsink.rejection t) a ORDER BY 1, 2`)
}

// rules compiles the default rules of an action, with some settings said.
func rules(t testing.TB, action handlers.Action, settings ...handlers.Setting) *handlers.Rules {
	t.Helper()
	r, err := handlers.Compile(action, settings)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// source is a source of an action by its default rules.
func source(t testing.TB, action handlers.Action, settings ...handlers.Setting) *handlers.Source {
	return &handlers.Source{Topic: "learning." + string(action), Rules: rules(t, action, settings...),
		AcceptedTopic: "learning.accepted", DeadLetterTopic: "learning.dead-letter"}
}

// record is a record with a row as its value, made of name-value pairs.
func record(src *handlers.Source, offset int64, at time.Time, row ...any) *handlers.Record {
	m := map[string]any{}
	for i := 0; i < len(row); i += 2 {
		m[row[i].(string)] = row[i+1]
	}
	value, err := json.Marshal(m)
	if err != nil {
		panic(err)
	}
	return &handlers.Record{Topic: src.Topic, Offset: offset, Timestamp: at, Value: value, Key: []byte("k")}
}

// track is a tracking row of learner l in session 100 about object o.
func track(src *handlers.Source, offset int64, at time.Time, l, o int, more ...any) *handlers.Record {
	row := append([]any{"candidateLogin", fmt.Sprintf("l%d", l), "lovGuid", fmt.Sprintf("o%d", o), "sessionId", 100}, more...)
	return record(src, offset, at, row...)
}

// intervene is an intervention row in session 100.
func intervene(src *handlers.Source, offset int64, at time.Time, guid, room string, more ...any) *handlers.Record {
	row := append([]any{"interventionGuid", guid, "trainingGuid", "T10", "sessionGuid", "s100", "interventionDate", "2026-03-05T10:00:00Z",
		"interventionDuration", 2, "roomGuid", room, "roomLabel", "Room " + room, "teacherLogin", "T0", "interventionStatus", "A"}, more...)
	return record(src, offset, at, row...)
}

// owner is a claimed partition.
type owner struct {
	handlers.Position
	w      *world
	st     *store.Store
	source *handlers.Source
}

func (w *world) claim(st *store.Store, src *handlers.Source, partition int) *owner {
	w.t.Helper()
	p, err := st.Claim(context.Background(), handlers.TopicPartition{Topic: src.Topic, Partition: partition}, clusterID, 0)
	if err != nil {
		w.t.Fatal(err)
	}
	return &owner{p, w, st, src}
}

// batch decides records and makes the batch of them that follows the position.
func (o *owner) batch(records ...*handlers.Record) *handlers.Batch {
	o.w.t.Helper()
	refs := handlers.NewReferences()
	rows := make([]handlers.Row, len(records))
	for i, rec := range records {
		rec.Partition, rec.Incarnation = o.Partition, o.Incarnation
		rows[i] = o.source.Rules.Decode(rec, handlers.EventTime(rec, true, day))
		rows[i].Refer(refs)
	}
	facts, err := o.st.Facts(context.Background(), refs)
	if err != nil {
		o.w.t.Fatal(err)
	}
	b := &handlers.Batch{Source: o.source, Partition: o.Partition, Epoch: o.Epoch, From: o.NextOffset, To: o.NextOffset, FactsVersion: facts.Version,
		Round: o.Round, Incarnation: o.Incarnation,
		Encode: func(ds []handlers.Decision) ([]byte, error) {
			var ids []byte
			for i := range ds {
				if _, ok := ds[i].Output(o.source, day); ok {
					ids = append(append(ids, ds[i].ID()...), '\n')
				}
			}
			return ids, nil
		}}
	for i := range rows {
		b.Decisions = append(b.Decisions, o.source.Rules.Decide(&rows[i], facts))
		b.To = records[i].Offset + 1
	}
	return b
}

// apply applies records as one batch and moves on.
func (o *owner) apply(records ...*handlers.Record) *handlers.Batch {
	o.w.t.Helper()
	b := o.batch(records...)
	if err := o.st.Apply(context.Background(), b); err != nil {
		o.w.t.Fatal(err)
	}
	o.NextOffset = b.To
	return b
}

// audit fails the test unless the books are right.
func (w *world) audit() {
	w.t.Helper()
	findings, err := w.Audit(context.Background(), store.AuditOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
	for _, f := range findings {
		w.t.Errorf("audit: %s", f)
	}
	both := w.text(`SELECT registration_id, learning_object_id FROM learnsink.tracking JOIN learnsink.tracking_deleted USING (registration_id, learning_object_id)`)
	if both != "" {
		w.t.Errorf("in tracking and in tracking_deleted: %s", both)
	}
}

// ledger returns the ledger lines of a log that count, within [from, to).
func (w *world) ledger(log store.Log, from, to int64) (lines []store.LedgerLine) {
	w.t.Helper()
	if err := w.Ledger(context.Background(), log, from, to, func(l store.LedgerLine) error { lines = append(lines, l); return nil }); err != nil {
		w.t.Fatal(err)
	}
	return lines
}

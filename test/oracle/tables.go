package oracle

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/base64"
	"fmt"
	"strings"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/twmb/franz-go/pkg/kgo"

	"learnsink/handlers"
	"learnsink/test/rowgen"
)

func (h *House) tracking(ctx context.Context, e *expected, f *Findings) error {
	got := map[rowgen.TrackingKey]rowgen.StoredTracking{}
	err := Query(ctx, h.DB, `SELECT l.login, o.guid, s.guid, t.status, t.progression, t.score, t.score_max, t.time_spent_seconds,
			t.first_access_at, t.last_access_at, t.first_completion_at, t.first_completion_filled_in,
			t.source_topic, t.source_partition, t.source_offset, t.event_at
		FROM learnsink.tracking t JOIN learnsink.registration r ON r.id = t.registration_id JOIN learnsink.learner l ON l.id = r.learner_id
		JOIN learnsink.session s ON s.id = r.session_id JOIN learnsink.learning_object o ON o.id = t.learning_object_id WHERE t.source_topic <> ALL ($1)`, func(rows pgx.Rows) error {
		var t rowgen.StoredTracking
		err := rows.Scan(&t.Login, &t.LovGUID, &t.SessionGUID, &t.Status, &t.Progression, &t.Score, &t.ScoreMax, &t.TimeSpent,
			Stamp(&t.First), Stamp(&t.Last), Stamp(&t.Completion), &t.FilledIn, &t.Topic, &t.Partition, &t.Offset, Stamp(&t.EventTime))
		got[t.TrackingKey] = t
		return err
	}, h.apart())
	if err != nil {
		return err
	}
	if diff := cmp.Diff(e.World.Tracking, got); diff != "" {
		f.faultf("tracking (-model +table):\n%s", cut(diff))
	}
	if err := h.reported(ctx, f, "tracking"); err != nil {
		return err
	}
	deleted := map[rowgen.TrackingKey]rowgen.Source{}
	err = Query(ctx, h.DB, `SELECT l.login, o.guid, s.guid, t.source_topic, t.source_partition, t.source_offset, t.event_at
		FROM learnsink.tracking_deleted t JOIN learnsink.registration r ON r.id = t.registration_id JOIN learnsink.learner l ON l.id = r.learner_id
		JOIN learnsink.session s ON s.id = r.session_id JOIN learnsink.learning_object o ON o.id = t.learning_object_id WHERE t.source_topic <> ALL ($1)`, func(rows pgx.Rows) error {
		var k rowgen.TrackingKey
		var d rowgen.Source
		err := rows.Scan(&k.Login, &k.LovGUID, &k.SessionGUID, &d.Topic, &d.Partition, &d.Offset, Stamp(&d.EventTime))
		deleted[k] = d
		return err
	}, h.apart())
	if diff := cmp.Diff(e.World.Deleted, deleted); diff != "" && err == nil {
		f.faultf("tracking_deleted (-model +table):\n%s", cut(diff))
	}
	return err
}

// reported holds the number of rows of a report against that of its table.
func (h *House) reported(ctx context.Context, f *Findings, table string) error {
	var n, want int
	if err := h.DB.QueryRow(ctx, `SELECT (SELECT count(*) FROM learnsink.`+table+`_report), (SELECT count(*) FROM learnsink.`+table+`)`).Scan(&n, &want); err != nil {
		return fmt.Errorf("%s_report: %w", table, err)
	}
	if n != want {
		f.faultf("%s_report has %d rows, %s %d", table, n, table, want)
	}
	return nil
}

func (h *House) interventions(ctx context.Context, e *expected, f *Findings) error {
	got := map[string]rowgen.StoredIntervention{}
	err := Query(ctx, h.DB, `SELECT i.guid, s.guid, i.starts_at, i.duration_hours, i.room_guid, te.login, i.status, i.source_topic, i.source_partition, i.source_offset, i.event_at
		FROM learnsink.intervention i JOIN learnsink.session s ON s.id = i.session_id JOIN learnsink.teacher te ON te.id = i.teacher_id`, func(rows pgx.Rows) error {
		var i rowgen.StoredIntervention
		err := rows.Scan(&i.GUID, &i.SessionGUID, Stamp(&i.Date), &i.Duration, &i.RoomGUID, &i.Teacher, &i.Status, &i.Topic, &i.Partition, &i.Offset, Stamp(&i.EventTime))
		i.GUID, i.RoomGUID = strings.ToLower(i.GUID), strings.ToLower(i.RoomGUID) // spelled as sent
		got[i.GUID] = i
		return err
	})
	if err != nil {
		return err
	}
	want := map[string]rowgen.StoredIntervention{}
	for guid, i := range e.World.Interventions {
		i.RoomLabel, i.RoomCapacity = "", nil // the room's
		want[guid] = i
	}
	if diff := cmp.Diff(want, got); diff != "" {
		f.faultf("intervention (-model +table):\n%s", cut(diff))
	}
	if err := h.reported(ctx, f, "intervention"); err != nil {
		return err
	}
	rooms := map[string]rowgen.StoredRoom{}
	err = Query(ctx, h.DB, `SELECT guid_folded, label, capacity, event_at FROM learnsink.room WHERE event_at IS NOT NULL`, func(rows pgx.Rows) error {
		var guid string
		var r rowgen.StoredRoom
		err := rows.Scan(&guid, &r.Label, &r.Capacity, Stamp(&r.EventAt))
		rooms[guid] = r
		return err
	})
	if diff := cmp.Diff(e.World.Rooms, rooms); diff != "" && err == nil {
		f.faultf("room (-model +table):\n%s", cut(diff))
	}
	return err
}

// rejections holds the table rejection against the source records, byte for byte.
func (h *House) rejections(ctx context.Context, e *expected, f *Findings) error {
	missing := map[string]bool{}
	for id, o := range e.Outcomes {
		if o.Errors != nil {
			missing[id] = true
		}
	}
	err := Query(ctx, h.DB, `SELECT id, action, errors, key, value, headers, source_topic, source_partition, source_offset, event_at, attempt, state FROM learnsink.rejection WHERE source_topic <> ALL ($1)`, func(rows pgx.Rows) error {
		var id, action, topic, state string
		var errs []handlers.Error
		var key, value []byte
		var headers []struct {
			Key, KeyBase64     string
			Value, ValueBase64 *string
		}
		var partition int32
		var offset int64
		var at time.Time
		var attempt int
		if err := rows.Scan(&id, &action, &errs, &key, &value, &headers, &topic, &partition, &offset, Stamp(&at), &attempt, &state); err != nil {
			return err
		}
		o, known := e.Outcomes[id]
		if !known || !missing[id] {
			f.faultf("rejection %s: not to be rejected", id)
			return nil
		}
		delete(missing, id)
		if diff := cmp.Diff(o.Errors, Messages(errs)); diff != "" {
			f.faultf("rejection %s, %s (-model +table):\n%s", id, o.Kind, cut(diff))
		}
		if !same(key, o.Log.Key) || !same(value, o.Log.Value) || !at.Equal(o.EventTime) || attempt != 1 || state != "open" || action != string(o.Action) ||
			topic != o.Log.Topic || partition != o.Log.Partition || offset != o.Log.Offset {
			f.faultf("rejection %s, %s: is not the record: key %.40q, value %.40q, event at %s, attempt %d, state %s", id, o.Kind, key, value, at, attempt, state)
		}
		var got []kgo.RecordHeader
		for _, hd := range headers {
			r := kgo.RecordHeader{Key: hd.Key}
			if hd.KeyBase64 != "" {
				r.Key = string(unbase64(hd.KeyBase64))
			}
			if hd.Value != nil {
				r.Value = []byte(*hd.Value)
			} else if hd.ValueBase64 != nil {
				r.Value = unbase64(*hd.ValueBase64)
			}
			got = append(got, r)
		}
		if diff := cmp.Diff(o.Log.Headers, got); diff != "" {
			f.faultf("rejection %s, %s: headers (-record +table):\n%s", id, o.Kind, cut(diff))
		}
		return nil
	}, h.apart())
	if err != nil {
		return err
	}
	for id := range missing {
		f.faultf("rejection %s, %s: is not there", id, e.Outcomes[id].Kind)
	}
	return nil
}

// Stamp scans a time as the models hold it: UTC, the zero time for NULL.
func Stamp(to *time.Time) sql.Scanner { return stamp{to} }

type stamp struct{ to *time.Time }

func (s stamp) Scan(v any) error {
	if t, ok := v.(time.Time); ok {
		*s.to = t.UTC()
	}
	return nil
}

// Query calls each with every row of an answer.
func Query(ctx context.Context, db *pgxpool.Pool, sql string, each func(pgx.Rows) error, args ...any) error {
	rows, err := db.Query(ctx, sql, args...)
	if err != nil {
		return fmt.Errorf("%s: %w", sql, err)
	}
	defer rows.Close()
	for rows.Next() {
		if err := each(rows); err != nil {
			return fmt.Errorf("%s: %w", sql, err)
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("%s: %w", sql, err)
	}
	return nil
}

// Messages are the messages of errors.
func Messages(errs []handlers.Error) (all []string) {
	for _, e := range errs {
		all = append(all, e.Message)
	}
	return all
}

func same(a, b []byte) bool { return bytes.Equal(a, b) && (a == nil) == (b == nil) }

func unbase64(s string) []byte {
	b, _ := base64.StdEncoding.DecodeString(s)
	return b
}

// cut keeps a fault readable.
func cut(s string) string { return s[:min(len(s), 3000)] }

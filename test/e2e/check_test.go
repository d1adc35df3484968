package e2e_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"

	"learnsink/handlers"
	"learnsink/test/rowgen"
)

// story is what was sent to a house: every record of it, found again by the header of that name.
type story struct {
	records map[string]rowgen.Record
	// ByEventTime: the sources say `order: event-time`.
	byEventTime bool
	// repeats: outputs may be there more than once (a process was killed).
	repeats bool
}

const storyHeader = "story"

// tell sends n records of a generator, in its order.
func (h *house) tell(s *story, g *rowgen.Generator, n int) {
	h.Helper()
	records := make([]*kgo.Record, n)
	for i := range records {
		records[i] = h.record(s, g.Next())
	}
	if err := h.kafka.ProduceSync(context.Background(), records...).FirstErr(); err != nil {
		h.Fatal(err)
	}
}

// record notes a generated record in the story, and returns it as it is sent.
func (h *house) record(s *story, rec rowgen.Record) *kgo.Record {
	if s.records == nil {
		s.records = map[string]rowgen.Record{}
	}
	n := strconv.Itoa(len(s.records))
	s.records[n] = rec
	r := &kgo.Record{Topic: h.tracking, Key: rec.Key, Value: rec.Value, Timestamp: rec.EventTime}
	if rec.Action == handlers.Intervention {
		r.Topic = h.intervention
	}
	for _, header := range rec.Headers {
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: header.Key, Value: header.Value})
	}
	r.Headers = append(r.Headers, kgo.RecordHeader{Key: storyHeader, Value: []byte(n)})
	return r
}

// outcome is a record in the log of a source and what must have become of it.
type outcome struct {
	rowgen.Record
	log    *kgo.Record
	errors []string
	event  rowgen.StoredTracking // what an accepted tracking row left
}

func idOf(r *kgo.Record) string { return fmt.Sprintf("%s-%d-%d", r.Topic, r.Partition, r.Offset) }

// judge reads the sources and applies what they hold to a world, partition by partition.
func (h *house) judge(s *story) (*rowgen.World, map[string]outcome) {
	h.Helper()
	world, outcomes := rowgen.NewWorld(), map[string]outcome{}
	world.ByEventTime = s.byEventTime
	for _, topic := range []string{h.tracking, h.intervention} {
		for _, records := range h.log(topic) {
			for _, r := range records {
				rec := s.records[header(r, storyHeader)]
				o := outcome{Record: rec, log: r, errors: world.Apply(rec, rowgen.Source{Topic: topic, Partition: int(r.Partition), Offset: r.Offset})}
				if rec.Tracking != nil {
					o.event = world.Tracking[rec.Tracking.TrackingKey]
				}
				outcomes[idOf(r)] = o
			}
		}
	}
	if len(outcomes) == 0 {
		h.Fatal("nothing is in the source topics")
	}
	return world, outcomes
}

// check holds the whole house against the story: tables, bookkeeping and both outputs.
func (h *house) check(s *story) {
	h.Helper()
	world, outcomes := h.judge(s)
	h.checkTracking(world)
	h.checkInterventions(world)
	h.checkRejections(outcomes)
	h.checkPositions(outcomes)
	h.checkAccepted(s, outcomes)
	h.checkDeadLetters(s, outcomes)
	if out, code := h.try("", "audit", "--deep"); code != 0 {
		h.Errorf("audit --deep: exit %d\n%s", code, out)
	}
}

func (h *house) checkTracking(world *rowgen.World) {
	h.Helper()
	got := map[rowgen.TrackingKey]rowgen.StoredTracking{}
	h.query(`SELECT l.login, o.guid, s.guid, t.status, t.progression, t.score, t.score_max, t.time_spent_seconds,
			t.first_access_at, t.last_access_at, t.first_completion_at, t.first_completion_filled_in,
			t.source_topic, t.source_partition, t.source_offset, t.event_at
		FROM learnsink.tracking t JOIN learnsink.registration r ON r.id = t.registration_id JOIN learnsink.learner l ON l.id = r.learner_id
		JOIN learnsink.session s ON s.id = r.session_id JOIN learnsink.learning_object o ON o.id = t.learning_object_id`, func(rows pgx.Rows) error {
		var t rowgen.StoredTracking
		err := rows.Scan(&t.Login, &t.LovGUID, &t.SessionGUID, &t.Status, &t.Progression, &t.Score, &t.ScoreMax, &t.TimeSpent,
			stamp{&t.First}, stamp{&t.Last}, stamp{&t.Completion}, &t.FilledIn, &t.Topic, &t.Partition, &t.Offset, stamp{&t.EventTime})
		got[t.TrackingKey] = t
		return err
	})
	if diff := cmp.Diff(world.Tracking, got); diff != "" {
		h.Errorf("tracking (-model +table):\n%s", cut(diff))
	}
	if n := h.number(`SELECT count(*) FROM learnsink.tracking_report`); n != int64(len(got)) {
		h.Errorf("tracking_report has %d rows, tracking %d", n, len(got))
	}
	deleted := map[rowgen.TrackingKey]rowgen.Source{}
	h.query(`SELECT l.login, o.guid, s.guid, t.source_topic, t.source_partition, t.source_offset, t.event_at
		FROM learnsink.tracking_deleted t JOIN learnsink.registration r ON r.id = t.registration_id JOIN learnsink.learner l ON l.id = r.learner_id
		JOIN learnsink.session s ON s.id = r.session_id JOIN learnsink.learning_object o ON o.id = t.learning_object_id`, func(rows pgx.Rows) error {
		var k rowgen.TrackingKey
		var d rowgen.Source
		err := rows.Scan(&k.Login, &k.LovGUID, &k.SessionGUID, &d.Topic, &d.Partition, &d.Offset, stamp{&d.EventTime})
		deleted[k] = d
		return err
	})
	if diff := cmp.Diff(world.Deleted, deleted); diff != "" {
		h.Errorf("tracking_deleted (-model +table):\n%s", cut(diff))
	}
}

func (h *house) checkInterventions(world *rowgen.World) {
	h.Helper()
	got := map[string]rowgen.StoredIntervention{}
	h.query(`SELECT i.guid, s.guid, i.starts_at, i.duration_hours, i.room_guid, te.login, i.status, i.source_topic, i.source_partition, i.source_offset, i.event_at
		FROM learnsink.intervention i JOIN learnsink.session s ON s.id = i.session_id JOIN learnsink.teacher te ON te.id = i.teacher_id`, func(rows pgx.Rows) error {
		var i rowgen.StoredIntervention
		err := rows.Scan(&i.GUID, &i.SessionGUID, stamp{&i.Date}, &i.Duration, &i.RoomGUID, &i.Teacher, &i.Status, &i.Topic, &i.Partition, &i.Offset, stamp{&i.EventTime})
		i.GUID, i.RoomGUID = strings.ToLower(i.GUID), strings.ToLower(i.RoomGUID) // spelled as sent
		got[i.GUID] = i
		return err
	})
	want := map[string]rowgen.StoredIntervention{}
	for guid, i := range world.Interventions {
		i.RoomLabel, i.RoomCapacity = "", nil // the room's
		want[guid] = i
	}
	if diff := cmp.Diff(want, got); diff != "" {
		h.Errorf("intervention (-model +table):\n%s", cut(diff))
	}
	if n := h.number(`SELECT count(*) FROM learnsink.intervention_report`); n != int64(len(got)) {
		h.Errorf("intervention_report has %d rows, intervention %d", n, len(got))
	}
	rooms := map[string]rowgen.StoredRoom{}
	h.query(`SELECT guid_folded, label, capacity, event_at FROM learnsink.room WHERE event_at IS NOT NULL`, func(rows pgx.Rows) error {
		var guid string
		var r rowgen.StoredRoom
		err := rows.Scan(&guid, &r.Label, &r.Capacity, stamp{&r.EventAt})
		rooms[guid] = r
		return err
	})
	if diff := cmp.Diff(world.Rooms, rooms); diff != "" {
		h.Errorf("room (-model +table):\n%s", cut(diff))
	}
}

// checkRejections holds the table rejection against the source records, byte for byte.
func (h *house) checkRejections(outcomes map[string]outcome) {
	h.Helper()
	missing := map[string]bool{}
	for id, o := range outcomes {
		if o.errors != nil {
			missing[id] = true
		}
	}
	h.query(`SELECT id, action, errors, key, value, headers, source_topic, source_partition, source_offset, event_at, attempt, state FROM learnsink.rejection`, func(rows pgx.Rows) error {
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
		if err := rows.Scan(&id, &action, &errs, &key, &value, &headers, &topic, &partition, &offset, stamp{&at}, &attempt, &state); err != nil {
			return err
		}
		o, known := outcomes[id]
		if !known || !missing[id] {
			h.Errorf("rejection %s: not to be rejected", id)
			return nil
		}
		delete(missing, id)
		if diff := cmp.Diff(o.errors, messages(errs)); diff != "" {
			h.Errorf("rejection %s, %s (-model +table):\n%s", id, o.Kind, cut(diff))
		}
		if !same(key, o.log.Key) || !same(value, o.log.Value) || !at.Equal(o.EventTime) || attempt != 1 || state != "open" || action != string(o.Action) ||
			topic != o.log.Topic || partition != o.log.Partition || offset != o.log.Offset {
			h.Errorf("rejection %s, %s: is not the record: key %.40q, value %.40q, event at %s, attempt %d, state %s", id, o.Kind, key, value, at, attempt, state)
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
		if diff := cmp.Diff(o.log.Headers, got); diff != "" {
			h.Errorf("rejection %s, %s: headers (-record +table):\n%s", id, o.Kind, cut(diff))
		}
		return nil
	})
	for id := range missing {
		h.Errorf("rejection %s, %s: is not there", id, outcomes[id].Kind)
	}
}

// checkPositions holds position, ledger and outbox against what the sources hold.
func (h *house) checkPositions(outcomes map[string]outcome) {
	h.Helper()
	type counts struct{ Accepted, Rejected, Sum int64 }
	want, got := map[string]counts{}, map[string]counts{}
	for _, o := range outcomes {
		at := fmt.Sprintf("%s-%d", o.log.Topic, o.log.Partition)
		c := want[at]
		if o.errors == nil {
			c.Accepted++
		} else {
			c.Rejected++
		}
		want[at] = c
	}
	for _, topic := range []string{h.tracking, h.intervention} {
		ends, err := h.admin.ListCommittedOffsets(context.Background(), topic)
		if err != nil {
			h.Fatal(err)
		}
		for p, end := range ends[topic] {
			at := fmt.Sprintf("%s-%d", topic, p)
			c := want[at]
			c.Sum = end.Offset
			want[at] = c
		}
	}
	h.query(`SELECT topic || '-' || partition, accepted, rejected, first_offset + accepted + rejected + skipped FROM learnsink.position
		WHERE first_offset + accepted + rejected + skipped = next_offset AND state = 'running'`, func(rows pgx.Rows) error {
		var at string
		var c counts
		err := rows.Scan(&at, &c.Accepted, &c.Rejected, &c.Sum)
		got[at] = c
		return err
	})
	if diff := cmp.Diff(want, got); diff != "" {
		h.Errorf("position (-model +table):\n%s", diff)
	}
	ledger := map[string]counts{}
	h.query(`SELECT topic || '-' || partition, sum(accepted)::bigint, sum(rejected)::bigint, sum(to_offset - from_offset)::bigint,
			sum((SELECT sum((c ->> 'rows')::bigint) FROM jsonb_array_elements(counts) c))::bigint,
			max(to_offset), bool_or(gap) FROM (SELECT *, from_offset <> coalesce(lag(to_offset) OVER (PARTITION BY topic, partition ORDER BY from_offset), 0) AS gap
			FROM learnsink.ledger) l GROUP BY 1`, func(rows pgx.Rows) error {
		var at string
		var c counts
		var counted, end int64
		var gap bool
		err := rows.Scan(&at, &c.Accepted, &c.Rejected, &c.Sum, &counted, &end, &gap)
		ledger[at] = c
		if gap || counted != c.Accepted+c.Rejected || end != c.Sum {
			h.Errorf("ledger of %s: %+v, counts of %d rows, up to %d, a gap %v", at, c, counted, end, gap)
		}
		return err
	})
	for at, c := range want {
		if c != ledger[at] {
			h.Errorf("ledger of %s: %+v, not %+v", at, ledger[at], c)
		}
	}
}

// outputs reads an output topic: each id's first record. It holds their
// number, partition and order against the sources.
func (h *house) outputs(s *story, topic, idHeader string, outcomes map[string]outcome, belongs func(outcome) bool) map[string]*kgo.Record {
	h.Helper()
	got := map[string]*kgo.Record{}
	log := h.log(topic)
	repeats := 0
	for partition, records := range log {
		last := map[string]int64{} // by source partition
		for _, r := range records {
			id := header(r, idHeader)
			if got[id] != nil {
				repeats++
				continue
			}
			got[id] = r
			o, known := outcomes[id]
			if !known || !belongs(o) {
				h.Errorf("%s: %s does not belong there", topic, id)
				continue
			}
			want := int(o.log.Partition) % len(log)
			if o.log.Key != nil {
				want = int(murmur2(o.log.Key)&0x7fffffff) % len(log)
			}
			if partition != want {
				h.Errorf("%s: %s is in partition %d, not %d", topic, id, partition, want)
			}
			source := fmt.Sprintf("%s-%d", o.log.Topic, o.log.Partition)
			if before, there := last[source]; there && o.log.Offset < before {
				h.Errorf("%s: %s comes after offset %d", topic, id, before)
			}
			last[source] = o.log.Offset
		}
	}
	missing := 0
	for id, o := range outcomes {
		if belongs(o) && got[id] == nil {
			if missing++; missing <= 5 {
				h.Errorf("%s: %s, %s, is not there", topic, id, o.Kind)
			}
		}
	}
	if missing > 5 {
		h.Errorf("%s: %d are not there", topic, missing)
	}
	if repeats > 0 && !s.repeats {
		h.Errorf("%s: %d records are there again", topic, repeats)
	} else if repeats > 0 {
		h.Logf("%s: %d records are there again, dropped by id", topic, repeats)
	}
	return got
}

func (h *house) checkAccepted(s *story, outcomes map[string]outcome) {
	h.Helper()
	registrations, objects, trainings := map[string]int64{}, map[string]int64{}, map[string]int64{}
	h.query(`SELECT l.login || ' ' || s.guid, r.id, s.training_id FROM learnsink.registration r JOIN learnsink.learner l ON l.id = r.learner_id JOIN learnsink.session s ON s.id = r.session_id`,
		func(rows pgx.Rows) error {
			var key string
			var id, training int64
			err := rows.Scan(&key, &id, &training)
			registrations[key], trainings[key] = id, training
			return err
		})
	h.query(`SELECT guid, id FROM learnsink.learning_object`, func(rows pgx.Rows) error {
		var guid string
		var id int64
		err := rows.Scan(&guid, &id)
		objects[guid] = id
		return err
	})
	got := h.outputs(s, h.accepted, "ce_id", outcomes, func(o outcome) bool { return o.errors == nil })
	for id, r := range got {
		o := outcomes[id]
		if o.errors != nil || o.log == nil {
			continue // said already
		}
		var v event
		if err := json.Unmarshal(r.Value, &v); err != nil {
			h.Errorf("%s: %v in %s", id, err, r.Value)
			continue
		}
		want := event{Version: 1, Action: string(o.Action), Operation: "upsert", Rules: v.Rules, FilledIn: []string{}}
		want.Source.Topic, want.Source.Partition, want.Source.Offset, want.Source.Timestamp = o.log.Topic, o.log.Partition, o.log.Offset, o.EventTime
		want.Source.ID, want.Source.Sender = header(o.log, "ce_id"), header(o.log, "ce_source")
		headers := map[string]string{"ce_specversion": "1.0", "ce_id": id, "ce_source": "learnsink/" + o.log.Topic, "content-type": "application/json",
			"ce_time": o.EventTime.Format(time.RFC3339Nano)}
		if parent := header(o.log, "traceparent"); parent != "" {
			headers["traceparent"] = parent
		}
		if t := o.Tracking; t != nil {
			headers["ce_type"] = "learnsink.tracking.upserted"
			if t.Status == "notAttempted" {
				want.Operation, headers["ce_type"] = "delete", "learnsink.tracking.deleted"
			}
			place := t.Login + " " + t.SessionGUID
			want.Key.RegistrationID, want.Key.LearningObjectID, want.Key.LearningObjectGUID = registrations[place], objects[t.LovGUID], t.LovGUID
			want.Key.SessionGUID, want.Key.TrainingID = t.SessionGUID, trainings[place]
			want.Key.LearnerID, want.Key.SessionID = v.Key.LearnerID, v.Key.SessionID
			headers["ce_subject"] = fmt.Sprintf("%d/%d", registrations[place], objects[t.LovGUID])
			want.Row.Status, want.Row.Progression, want.Row.Score, want.Row.ScoreMax, want.Row.TimeSpent = t.Status, t.Progression, t.Score, t.ScoreMax, t.TimeSpent
			want.Row.First, want.Row.Last, want.Row.Completion = opt(t.First), opt(t.Last), opt(o.event.Completion)
			if o.event.FilledIn {
				want.FilledIn = []string{"firstCompletionDate"}
			}
			if want.Operation == "delete" {
				want.Row.Completion, want.FilledIn = nil, []string{}
			}
		} else {
			i := o.Intervention
			headers["ce_type"] = "learnsink.intervention.upserted"
			headers["ce_subject"] = v.Key.InterventionGUID
			want.Key.InterventionGUID, want.Key.SessionGUID = v.Key.InterventionGUID, i.SessionGUID
			if !strings.EqualFold(v.Key.InterventionGUID, i.GUID) {
				h.Errorf("%s: is about intervention %s", id, v.Key.InterventionGUID)
			}
			want.Key.SessionID, want.Key.TrainingID = v.Key.SessionID, v.Key.TrainingID
			want.Row.Date, want.Row.Duration, want.Row.RoomLabel, want.Row.RoomCapacity, want.Row.InterventionStatus = &i.Date, i.Duration, i.RoomLabel, i.RoomCapacity, i.Status
		}
		if diff := cmp.Diff(want, v); diff != "" {
			h.Errorf("event %s, %s (-model +topic):\n%s", id, o.Kind, cut(diff))
		}
		has := map[string]string{}
		for _, hd := range r.Headers {
			has[hd.Key] = string(hd.Value)
		}
		if diff := cmp.Diff(headers, has); diff != "" || len(has) != len(r.Headers) || !same(r.Key, o.log.Key) {
			h.Errorf("event %s, %s: key %.40q, headers (-model +topic):\n%s", id, o.Kind, r.Key, cut(diff))
		}
		if r.Timestamp.Before(time.Now().Add(-time.Hour)) {
			h.Errorf("event %s: its timestamp is not that of its publication: %s", id, r.Timestamp)
		}
	}
}

// event is the value of an accepted event, as contract.md has it.
type event struct {
	Version           int
	Action, Operation string
	Key               struct {
		RegistrationID, LearnerID, LearningObjectID       int64
		LearningObjectGUID, SessionGUID, InterventionGUID string
		SessionID, TrainingID                             int64
	}
	Row struct {
		Status             string     `json:"trackingStatus"`
		First              *time.Time `json:"firstAccessDate"`
		Last               *time.Time `json:"lastAccessDate"`
		Completion         *time.Time `json:"firstCompletionDate"`
		Progression, Score *float64
		ScoreMax           int32
		TimeSpent          int64

		Date               *time.Time `json:"interventionDate"`
		Duration           int32      `json:"interventionDuration"`
		RoomLabel          string
		RoomCapacity       *int32
		InterventionStatus string
	}
	FilledIn []string
	Source   struct {
		Topic      string
		Partition  int32
		Offset     int64
		Timestamp  time.Time
		ID, Sender string
	}
	Rules string
}

func (h *house) checkDeadLetters(s *story, outcomes map[string]outcome) {
	h.Helper()
	got := h.outputs(s, h.deadLetter, "learnsink.id", outcomes, func(o outcome) bool { return o.errors != nil })
	for id, r := range got {
		o := outcomes[id]
		if o.errors == nil {
			continue // said already
		}
		var errs []handlers.Error
		if err := json.Unmarshal([]byte(header(r, "learnsink.errors")), &errs); err != nil {
			h.Errorf("dead letter %s: learnsink.errors: %v", id, err)
		}
		truncated := header(r, "learnsink.truncated") == "true"
		if !truncated && (!same(r.Key, o.log.Key) || !same(r.Value, o.log.Value)) {
			h.Errorf("dead letter %s, %s: is not the record", id, o.Kind)
		}
		if truncated && len(o.log.Value)+len(o.log.Key) < 1<<20 {
			h.Errorf("dead letter %s, %s: was truncated", id, o.Kind)
		}
		if diff := cmp.Diff(o.errors, messages(errs)); diff != "" {
			h.Errorf("dead letter %s, %s: learnsink.errors (-model +topic):\n%s", id, o.Kind, cut(diff))
		}
		joined := strings.Join(o.errors, " | ")
		want := map[string]string{"learnsink.action": string(o.Action), "learnsink.message": joined, "learnsink.source.topic": o.log.Topic,
			"learnsink.source.partition": strconv.Itoa(int(o.log.Partition)), "learnsink.source.offset": strconv.FormatInt(o.log.Offset, 10),
			"learnsink.source.timestamp": o.EventTime.Format(time.RFC3339Nano), "learnsink.attempt": "1", "__connect.errors.topic": o.log.Topic,
			"__connect.errors.partition": strconv.Itoa(int(o.log.Partition)), "__connect.errors.offset": strconv.FormatInt(o.log.Offset, 10),
			"__connect.errors.stage": "TASK_PUT", "__connect.errors.exception.message": joined}
		if len(errs) > 0 {
			want["__connect.errors.exception.class.name"] = string(errs[0].Code)
		}
		for key, value := range want {
			if has := header(r, key); has != value {
				h.Errorf("dead letter %s, %s: %s is %q, not %q", id, o.Kind, key, has, value)
			}
		}
		var own, kept []kgo.RecordHeader
		for _, hd := range o.log.Headers {
			if !strings.HasPrefix(hd.Key, "learnsink.") && !strings.HasPrefix(hd.Key, "__connect.errors.") {
				own = append(own, hd)
			}
		}
		seen := map[string]bool{}
		for _, hd := range r.Headers {
			if !strings.HasPrefix(hd.Key, "learnsink.") && !strings.HasPrefix(hd.Key, "__connect.errors.") {
				kept = append(kept, hd)
			} else if seen[hd.Key] {
				h.Errorf("dead letter %s: %s is there twice", id, hd.Key)
			}
			seen[hd.Key] = true
		}
		if diff := cmp.Diff(own, kept); diff != "" && !(truncated && kept == nil) {
			h.Errorf("dead letter %s, %s: the record's own headers (-record +topic):\n%s", id, o.Kind, cut(diff))
		}
	}
}

// stamp scans a time as the models hold it: UTC, the zero time for NULL.
type stamp struct{ to *time.Time }

func (s stamp) Scan(v any) error {
	if t, ok := v.(time.Time); ok {
		*s.to = t.UTC()
	}
	return nil
}

func opt(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

func (h *house) query(sql string, each func(pgx.Rows) error) {
	h.Helper()
	rows, err := h.db.Query(context.Background(), sql)
	if err != nil {
		h.Fatalf("%s: %v", sql, err)
	}
	defer rows.Close()
	for rows.Next() {
		if err := each(rows); err != nil {
			h.Fatalf("%s: %v", sql, err)
		}
	}
	if err := rows.Err(); err != nil {
		h.Fatalf("%s: %v", sql, err)
	}
}

// header is a record's last header of that name, "" where there is none.
func header(r *kgo.Record, key string) (value string) {
	for _, h := range r.Headers {
		if h.Key == key {
			value = string(h.Value)
		}
	}
	return value
}

func messages(errs []handlers.Error) (all []string) {
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

// cut keeps a failure readable.
func cut(s string) string { return s[:min(len(s), 3000)] }

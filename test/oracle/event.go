package oracle

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"strings"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Event is the value of an accepted event, as contract.md has it.
type Event struct {
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

// catalog is under which ids the database knows what rows speak of.
type catalog struct {
	registrations, trainings map[string]int64 // by login and session guid
	objects                  map[string]int64 // by guid
}

func (h *House) catalog(ctx context.Context) (*catalog, error) {
	c := &catalog{registrations: map[string]int64{}, trainings: map[string]int64{}, objects: map[string]int64{}}
	err := Query(ctx, h.DB, `SELECT l.login || ' ' || s.guid, r.id, s.training_id FROM learnsink.registration r JOIN learnsink.learner l ON l.id = r.learner_id JOIN learnsink.session s ON s.id = r.session_id`,
		func(rows pgx.Rows) error {
			var key string
			var id, training int64
			err := rows.Scan(&key, &id, &training)
			c.registrations[key], c.trainings[key] = id, training
			return err
		})
	if err != nil {
		return nil, err
	}
	return c, Query(ctx, h.DB, `SELECT guid, id FROM learnsink.learning_object`, func(rows pgx.Rows) error {
		var guid string
		var id int64
		err := rows.Scan(&guid, &id)
		c.objects[guid] = id
		return err
	})
}

// event holds an accepted event against what it must say.
func (c *catalog) event(f *Findings, id string, o *Outcome, r *kgo.Record) {
	var v Event
	if err := json.Unmarshal(r.Value, &v); err != nil {
		f.faultf("%s: %v in %s", id, err, r.Value)
		return
	}
	want := Event{Version: 1, Action: string(o.Action), Operation: "upsert", Rules: v.Rules, FilledIn: []string{}}
	want.Source.Topic, want.Source.Partition, want.Source.Offset, want.Source.Timestamp = o.Log.Topic, o.Log.Partition, o.Log.Offset, o.EventTime
	want.Source.ID, want.Source.Sender = HeaderOf(o.Log, "ce_id"), HeaderOf(o.Log, "ce_source")
	headers := map[string]string{"ce_specversion": "1.0", "ce_id": id, "ce_source": "learnsink/" + o.Log.Topic, "content-type": "application/json",
		"ce_time": o.EventTime.Format(time.RFC3339Nano)}
	if parent := HeaderOf(o.Log, "traceparent"); parent != "" {
		headers["traceparent"] = parent
	}
	if t := o.Tracking; t != nil {
		headers["ce_type"] = "learnsink.tracking.upserted"
		if t.Status == "notAttempted" {
			want.Operation, headers["ce_type"] = "delete", "learnsink.tracking.deleted"
		}
		place := t.Login + " " + t.SessionGUID
		want.Key.RegistrationID, want.Key.LearningObjectID, want.Key.LearningObjectGUID = c.registrations[place], c.objects[t.LovGUID], t.LovGUID
		want.Key.SessionGUID, want.Key.TrainingID = t.SessionGUID, c.trainings[place]
		want.Key.LearnerID, want.Key.SessionID = v.Key.LearnerID, v.Key.SessionID
		headers["ce_subject"] = fmt.Sprintf("%d/%d", c.registrations[place], c.objects[t.LovGUID])
		want.Row.Status, want.Row.Progression, want.Row.Score, want.Row.ScoreMax, want.Row.TimeSpent = t.Status, t.Progression, t.Score, t.ScoreMax, t.TimeSpent
		want.Row.First, want.Row.Last, want.Row.Completion = opt(t.First), opt(t.Last), opt(o.Event.Completion)
		if o.Event.FilledIn {
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
			f.faultf("%s: is about intervention %s", id, v.Key.InterventionGUID)
		}
		want.Key.SessionID, want.Key.TrainingID = v.Key.SessionID, v.Key.TrainingID
		want.Row.Date, want.Row.Duration, want.Row.RoomLabel, want.Row.RoomCapacity, want.Row.InterventionStatus = &i.Date, i.Duration, i.RoomLabel, i.RoomCapacity, i.Status
	}
	if !reflect.DeepEqual(want, v) { // quicker than to look for the difference
		if diff := cmp.Diff(want, v); diff != "" {
			f.faultf("event %s, %s (-model +topic):\n%s", id, o.Kind, cut(diff))
		}
	}
	has := map[string]string{}
	for _, hd := range r.Headers {
		has[hd.Key] = string(hd.Value)
	}
	if !maps.Equal(headers, has) || len(has) != len(r.Headers) || !same(r.Key, o.Log.Key) {
		f.faultf("event %s, %s: key %.40q, headers (-model +topic):\n%s", id, o.Kind, r.Key, cut(cmp.Diff(headers, has)))
	}
	if r.Timestamp.Before(time.Now().Add(-24 * time.Hour)) { // the rows' own times are years ago
		f.faultf("event %s: its timestamp is not that of its publication: %s", id, r.Timestamp)
	}
}

func opt(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

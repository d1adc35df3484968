package rowgen

import (
	"strings"
	"time"
)

// World is what the tables must hold after the records of a story: the
// reference model. Records of one key must come in the order of their
// partition; otherwise the order is free.
type World struct {
	// ByEventTime: the sources say `order: event-time`.
	ByEventTime bool

	Tracking      map[TrackingKey]StoredTracking
	Deleted       map[TrackingKey]Source
	Interventions map[string]StoredIntervention // by guid
	Rooms         map[string]StoredRoom         // by guid; only those that rows spoke of
}

// Source is where a stored row came from.
type Source struct {
	Topic     string
	Partition int
	Offset    int64
	EventTime time.Time
}

// StoredTracking is a row of the tracking table.
type StoredTracking struct {
	Tracking
	FilledIn bool // Completion was not in the row
	Source
}

// StoredIntervention is a row of the intervention table.
type StoredIntervention struct {
	Intervention
	Source
}

// StoredRoom is a row of the room table.
type StoredRoom struct {
	Label    string
	Capacity *int32
	EventAt  time.Time
}

// NewWorld returns a world in which nothing is stored.
func NewWorld() *World {
	return &World{Tracking: map[TrackingKey]StoredTracking{}, Deleted: map[TrackingKey]Source{},
		Interventions: map[string]StoredIntervention{}, Rooms: map[string]StoredRoom{}}
}

// Apply takes a record as it stands in the log, and returns the messages of
// its rejection; none: it is accepted.
func (w *World) Apply(rec Record, from Source) []string {
	from.EventTime = rec.EventTime
	switch {
	case rec.Tracking != nil:
		return w.tracking(*rec.Tracking, from)
	case rec.Intervention != nil:
		return w.intervention(*rec.Intervention, from)
	}
	return rec.Errors
}

func (w *World) tracking(t Tracking, from Source) []string {
	before, stored := w.Tracking[t.TrackingKey]
	deleted, known := w.Deleted[t.TrackingKey]
	if stored && w.superseded(from, before.Source) || known && w.superseded(from, deleted) {
		return []string{superseded}
	}
	delete(w.Deleted, t.TrackingKey)
	if t.Status == "notAttempted" {
		delete(w.Tracking, t.TrackingKey)
		w.Deleted[t.TrackingKey] = from
		return nil
	}
	after := StoredTracking{Tracking: t, Source: from}
	if (t.Status == "completed" || t.Status == "passed") && t.Completion.IsZero() {
		after.FilledIn = true
		after.Completion = from.EventTime.Truncate(24 * time.Hour)
		if stored && !before.Completion.IsZero() { // the first is the first
			after.Completion = before.Completion
		}
	}
	w.Tracking[t.TrackingKey] = after
	return nil
}

func (w *World) intervention(v Intervention, from Source) []string {
	if before, stored := w.Interventions[v.GUID]; stored && w.superseded(from, before.Source) {
		return []string{superseded}
	}
	w.Interventions[v.GUID] = StoredIntervention{v, from}
	if room, known := w.Rooms[v.RoomGUID]; !known || !from.EventTime.Before(room.EventAt) { // the later event wins, always
		room = StoredRoom{v.RoomLabel, room.Capacity, from.EventTime}
		if v.RoomCapacity != nil {
			room.Capacity = v.RoomCapacity
		}
		w.Rooms[v.RoomGUID] = room
	}
	return nil
}

const superseded = "Row is older than what is stored."

func (w *World) superseded(row, stored Source) bool {
	if !w.ByEventTime {
		return false
	}
	if c := row.EventTime.Compare(stored.EventTime); c != 0 {
		return c < 0
	}
	if c := strings.Compare(row.Topic, stored.Topic); c != 0 {
		return c < 0
	}
	if row.Partition != stored.Partition {
		return row.Partition < stored.Partition
	}
	return row.Offset < stored.Offset
}

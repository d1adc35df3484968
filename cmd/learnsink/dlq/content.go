package dlq

import (
	"cmp"
	"strconv"
	"time"

	"learnsink/handlers"
	"learnsink/store"
)

// content is what a row leaves in its table, without where it came from: a
// cell for each of columns(action).
type content struct {
	action handlers.Action
	cells  [9]cell
}

// cell is a column's value in the one text that says it; "": none. What
// refers to something else is compared by its id, and shown by its name.
type cell struct {
	text string
	id   int64
}

// columns are the columns that a row leaves, by their names in rows. What the
// others say is the key, or has no place in the table.
func columns(action handlers.Action) []string {
	if action == handlers.Tracking {
		return []string{"trackingStatus", "progression", "score", "scoreMax", "timeSpent", "firstAccessDate", "lastAccessDate", "firstCompletionDate", "firstCompletionFilledIn"}
	}
	return []string{"interventionGuid", "sessionGuid", "interventionDate", "interventionDuration", "roomGuid", "teacherLogin", "interventionStatus"}
}

func trackingContent(t *handlers.TrackingRow) *content {
	return &content{handlers.Tracking, [9]cell{{text: t.Status.String()}, number(t.Progression), number(t.Score), integer(int64(t.ScoreMax)), integer(t.TimeSpent),
		instant(t.FirstAccess), instant(t.LastAccess), instant(t.FirstCompletion), flag(t.FilledIn)}}
}

// trackingLeft is what is stored under a key of tracking.
func trackingLeft(under *store.Under, key handlers.TrackingKey) left {
	t := under.Tracking[key]
	if !t.Row {
		return left{Stored: t.Stored}
	}
	return left{t.Stored, &content{handlers.Tracking, [9]cell{{text: t.Status}, number(t.Progression), number(t.Score), integer(int64(t.ScoreMax)), integer(t.TimeSpent),
		instant(t.FirstAccess), instant(t.LastAccess), instant(t.FirstCompletion), flag(t.FilledIn)}}}
}

func interventionContent(i *handlers.InterventionRow) *content {
	return &content{handlers.Intervention, [9]cell{{text: i.GUID}, session(i.RefSessionID, i.RefSessionGUID), instant(handlers.Some(i.Date)),
		integer(int64(i.Duration)), {text: i.RoomGUID}, {i.TeacherLogin, i.TeacherID}, {text: i.StatusWord()}}}
}

// interventionLeft is what is stored of an intervention.
func interventionLeft(under *store.Under, guid string) left {
	i, ok := under.Interventions[guid]
	if !ok {
		return left{}
	}
	return left{i.Stored, &content{handlers.Intervention, [9]cell{{text: i.GUID}, session(i.SessionID, i.SessionGUID), instant(handlers.Some(i.StartsAt)),
		integer(int64(i.Hours)), {text: i.RoomGUID}, {i.TeacherLogin, i.TeacherID}, {text: i.Status}}}}
}

// diff returns the columns in which c and row differ; either may be nil.
func (c *content) diff(row *content) (diff []Difference) {
	if c == nil && row == nil {
		return nil
	}
	var was, now content
	if c != nil {
		was = *c
	}
	if row != nil {
		now = *row
	}
	for i, column := range columns(cmp.Or(was.action, now.action)) {
		diff = was.cells[i].diff(diff, column, now.cells[i])
	}
	return diff
}

// diff appends the difference of two cells, if there is one.
func (c cell) diff(diff []Difference, column string, row cell) []Difference {
	if c.id != row.id || c.id == 0 && c.text != row.text {
		diff = append(diff, Difference{column, c.shown(), row.shown()})
	}
	return diff
}

func (c cell) shown() *string {
	if c == (cell{}) {
		return nil
	}
	return &c.text
}

// compareRooms returns what a row changes about its room.
func compareRooms(was handlers.Opt[handlers.Room], now handlers.Room) (diff []Difference) {
	capacity := func(r handlers.Room) cell {
		if !r.Capacity.OK {
			return cell{}
		}
		return integer(int64(r.Capacity.V))
	}
	diff = cell{text: was.V.Label}.diff(nil, "roomLabel", cell{text: now.Label})
	return capacity(was.V).diff(diff, "roomCapacity", capacity(now))
}

func number(v handlers.Opt[float64]) (c cell) {
	if v.OK {
		c.text = strconv.FormatFloat(v.V, 'g', -1, 64)
	}
	return c
}

func integer(v int64) cell { return cell{text: strconv.FormatInt(v, 10)} }

func flag(v bool) cell { return cell{text: strconv.FormatBool(v)} }

func instant(v handlers.Opt[time.Time]) (c cell) {
	if v.OK {
		c.text = v.V.UTC().Format(time.RFC3339Nano)
	}
	return c
}

// session is named by its guid, where it has one.
func session(id int64, guid string) cell {
	return cell{cmp.Or(guid, "session "+strconv.FormatInt(id, 10)), id}
}

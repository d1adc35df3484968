package handlers

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"
)

// Accepted events read back, and their rows in a source's own words: by what
// revert puts back what was there before.

// Event is an accepted event, as far as the row goes that it tells of.
type Event struct {
	Action Action
	Delete bool
	// Exactly one is set, by the action: the row, with what its references
	// meant then. Of a tracking row LearnerID, LearningObjectGUID and the Ref
	// ids are the key's.
	Tracking     *TrackingRow
	Intervention *InterventionRow
	// Where the record stands that the event is of, and its sender.
	Topic     string
	Partition int
	Offset    int64
	Sender    string
}

// eventText is an accepted event as contract.md has it.
type eventText struct {
	Version   int
	Action    Action
	Operation string
	Key       struct {
		RegistrationID, LearnerID, LearningObjectID, SessionID, TrainingID int64
		LearningObjectGUID, SessionGUID, InterventionGUID                  string
	}
	Row struct {
		CandidateLogin, CandidateRefNumber, CandidateEmail, LovCode, LovGUID string
		SessionGUID, SessionTitle, TrainingPathCode                          string
		SessionID, TrainingID                                                int64
		FirstAccessDate, LastAccessDate, FirstCompletionDate                 *time.Time
		Progression, Score                                                   *float64
		TrackingStatus                                                       string
		TimeSpent                                                            int64
		ScoreMax                                                             int32

		InterventionGUID, TrainingGUID, RoomGUID, RoomLabel, TeacherLogin, InterventionStatus string
		InterventionDate                                                                      time.Time
		InterventionDuration                                                                  int32
		RoomCapacity                                                                          *int32
	}
	FilledIn []string
	Source   struct {
		Topic     string
		Partition int
		Offset    int64
		Sender    string
	}
}

// ReadEvent reads the value of an accepted event.
func ReadEvent(value []byte) (*Event, error) {
	var t eventText
	if err := json.Unmarshal(value, &t); err != nil {
		return nil, errors.New("it is no JSON of an accepted event") // json's words would show what is in it
	}
	if t.Version != 1 {
		return nil, fmt.Errorf("version %d of accepted events is not known", t.Version)
	}
	e := &Event{Action: t.Action, Delete: t.Operation == "delete", Topic: t.Source.Topic, Partition: t.Source.Partition, Offset: t.Source.Offset, Sender: t.Source.Sender}
	k, r := &t.Key, &t.Row
	switch t.Action {
	case Tracking:
		status := NotAttempted
		for status <= Browsed && status.String() != r.TrackingStatus {
			status++
		}
		if status > Browsed {
			return nil, errors.New("its trackingStatus is none")
		}
		e.Tracking = &TrackingRow{
			TrackingKey:    TrackingKey{k.RegistrationID, k.LearningObjectID},
			CandidateLogin: r.CandidateLogin, CandidateRefNumber: r.CandidateRefNumber, CandidateEmail: r.CandidateEmail,
			LovCode: r.LovCode, LovGUID: r.LovGUID, SessionGUID: r.SessionGUID, SessionTitle: r.SessionTitle, TrainingPathCode: r.TrainingPathCode,
			SessionID: r.SessionID, TrainingID: r.TrainingID,
			FirstAccess: optional(r.FirstAccessDate), LastAccess: optional(r.LastAccessDate), FirstCompletion: optional(r.FirstCompletionDate),
			FilledIn: len(t.FilledIn) > 0, Progression: optional(r.Progression), Score: optional(r.Score), ScoreMax: r.ScoreMax,
			Status: status, TimeSpent: r.TimeSpent, Delete: e.Delete,
			LearnerID: k.LearnerID, LearningObjectGUID: k.LearningObjectGUID, RefSessionID: k.SessionID, RefSessionGUID: k.SessionGUID, RefTrainingID: k.TrainingID,
		}
	case Intervention:
		e.Intervention = &InterventionRow{
			GUID: r.InterventionGUID, GUIDFolded: Fold(r.InterventionGUID), TrainingGUID: r.TrainingGUID, TrainingPathCode: r.TrainingPathCode,
			SessionGUID: r.SessionGUID, SessionTitle: r.SessionTitle, Date: r.InterventionDate.UTC(), Duration: r.InterventionDuration,
			RoomGUID: r.RoomGUID, RoomGUIDFolded: Fold(r.RoomGUID), RoomLabel: r.RoomLabel, RoomCapacity: optional(r.RoomCapacity),
			TeacherLogin: r.TeacherLogin, Cancelled: r.InterventionStatus == "cancelled",
			RefSessionID: k.SessionID, RefSessionGUID: k.SessionGUID, RefTrainingID: k.TrainingID,
		}
	default:
		return nil, fmt.Errorf("its action is none of %s and %s", Tracking, Intervention)
	}
	return e, nil
}

func optional[T any](v *T) Opt[T] {
	if v == nil {
		return Opt[T]{}
	}
	if t, ok := any(v).(*time.Time); ok {
		*t = t.UTC()
	}
	return Some(*v)
}

// Restate writes a row as the source would send it by these rules: its words,
// its formats. The error says, in words without data, what they cannot say;
// that it is the row which was meant is for Decide to tell.
func (r *Rules) Restate(e *Event) ([]byte, error) {
	w := restater{rules: r, text: []byte{'{'}}
	switch {
	case e.Action != r.action:
		return nil, fmt.Errorf("it is a row of %s", e.Action)
	case e.Tracking != nil:
		w.tracking(e.Tracking)
	default:
		w.intervention(e.Intervention)
	}
	return append(w.text, '}'), w.err
}

// restater writes a row, column by column.
type restater struct {
	rules *Rules
	text  []byte
	err   error
}

// column begins a column; false where the rules do not know it, which is a
// fault where there is something to say.
func (w *restater) column(i int, needed bool) bool {
	name := w.rules.table.columns[i].name
	if !w.rules.wanted[i] {
		if needed && w.err == nil {
			w.err = fmt.Errorf("the source's settings know no column %s", name)
		}
		return false
	}
	if len(w.text) > 1 {
		w.text = append(w.text, ',')
	}
	w.text = append(appendString(w.text, name), ':')
	return true
}

func (w *restater) string(i int, text string) {
	if text != "" && w.column(i, true) {
		w.text = appendString(w.text, text)
	}
}

// id writes a number that is absent where it is 0.
func (w *restater) id(i int, n int64) {
	if n != 0 && w.column(i, true) {
		w.text = appendInt(w.text, n)
	}
}

func (w *restater) float(i int, v Opt[float64]) {
	if v.OK && w.column(i, true) {
		w.text = appendFloat(w.text, v.V)
	}
}

func (w *restater) date(i int, t Opt[time.Time]) {
	if !t.OK {
		return
	}
	text, ok := w.rules.formatDate(t.V)
	switch {
	case !ok && w.err == nil:
		w.err = fmt.Errorf("the source's dateTimeFormat cannot say its %s", w.rules.table.columns[i].name)
	case ok:
		w.string(i, text)
	}
}

// learnerAndPlace writes what a tracking row refers to, as it was sent.
func (w *restater) learnerAndPlace(t *TrackingRow) {
	w.string(colCandidateLogin, t.CandidateLogin)
	w.string(colCandidateRefNumber, t.CandidateRefNumber)
	w.string(colCandidateEmail, t.CandidateEmail)
	w.string(colLovCode, t.LovCode)
	w.string(colLovGUID, t.LovGUID)
	w.string(colSessionGUID, t.SessionGUID)
	w.id(colSessionID, t.SessionID)
	w.string(colSessionTitle, t.SessionTitle)
	w.string(colTrainingPathCode, t.TrainingPathCode)
	w.id(colTrainingID, t.TrainingID)
}

func (w *restater) tracking(t *TrackingRow) {
	w.learnerAndPlace(t)
	r := w.rules
	status := t.Status
	if t.Delete {
		status = NotAttempted
	}
	if w.column(colTrackingStatus, status != Incomplete) { // which an absent one is
		w.text = appendString(w.text, r.statusWords[status])
	}
	// What a row says that deletes is nothing to anybody, but for what the
	// settings ask of every row.
	w.date(colFirstAccessDate, t.FirstAccess)
	w.date(colLastAccessDate, t.LastAccess)
	if !t.Delete {
		w.date(colFirstCompletionDate, t.FirstCompletion)
	}
	w.float(colProgression, t.Progression)
	spent, ok := r.timeSpent.format(t.TimeSpent)
	switch {
	case !ok && w.err == nil:
		w.err = errors.New("the source's timeGlobalFormat cannot say its timeSpent")
	case ok && w.column(colTimeSpent, t.TimeSpent != 0):
		w.text = appendString(w.text, spent)
	}
	w.float(colScore, t.Score)
	if t.ScoreMax > 0 && w.column(colScoreMax, t.ScoreMax != r.defaultScoreMax) {
		w.text = appendInt(w.text, int64(t.ScoreMax))
	}
}

func (w *restater) intervention(t *InterventionRow) {
	w.string(colInterventionGUID, t.GUID)
	w.string(colIvTrainingGUID, t.TrainingGUID)
	w.string(colIvTrainingPathCode, t.TrainingPathCode)
	w.string(colIvSessionGUID, t.SessionGUID)
	w.string(colIvSessionTitle, t.SessionTitle)
	w.string(colInterventionDate, string(appendTime(nil, t.Date)))
	w.id(colInterventionDuration, int64(t.Duration))
	w.string(colRoomGUID, t.RoomGUID)
	w.string(colRoomLabel, t.RoomLabel)
	if t.RoomCapacity.OK && w.column(colRoomCapacity, true) {
		w.text = appendInt(w.text, int64(t.RoomCapacity.V))
	}
	w.string(colTeacherLogin, t.TeacherLogin)
	word := w.rules.activeWord
	if t.Cancelled {
		word = w.rules.cancelledWord
	}
	w.string(colInterventionStatus, word)
}

// formatDate writes a date as the source does; false where it has no text that
// reads back as that date.
func (r *Rules) formatDate(t time.Time) (string, bool) {
	if r.dateTime == nil {
		return string(appendTime(nil, t)), t.Nanosecond()%1000 == 0
	}
	text := r.dateTime.format(t)
	back, ok := r.dateTime.parse(text)
	return text, ok && back.Equal(t)
}

// format writes an instant as the format has it. A part of one letter takes
// one digit or two: two are read as two whatever comes next.
func (f *dateTimeFormat) format(t time.Time) string {
	wall := f.clocks.wall(t)
	values := [parts]int{wall.Year(), int(wall.Month()), wall.Day(), wall.Hour(), wall.Minute(), wall.Second()}
	var b []byte
	for _, s := range f.steps {
		switch {
		case s.separator != 0:
			b = append(b, s.separator)
		case s.digits == 4:
			b = fmt.Appendf(b, "%04d", values[s.part])
		default:
			b = fmt.Appendf(b, "%02d", values[s.part])
		}
	}
	return string(b)
}

// format writes seconds; false where the format has no text that reads back
// as them.
func (f timeSpentFormat) format(seconds int64) (string, bool) {
	var text string
	switch f {
	case rawSeconds:
		text = strconv.FormatInt(seconds, 10)
	case rawMinutes: // a hundredth is 0.6 s: every second has one
		hundredths := int64(math.Round(float64(seconds%60) / 0.6))
		text = fmt.Sprintf("%d.%02d", seconds/60+hundredths/100, hundredths%100)
	case isoTime:
		text = fmt.Sprintf("PT%dH%dM%dS", seconds/3600, seconds/60%60, seconds%60)
	case padded:
		text = fmt.Sprintf("%03d:%02d", seconds/3600, seconds/60%60)
	case paddedHH:
		text = fmt.Sprintf("%02d:%02d", seconds/3600, seconds/60%60)
	}
	back, res := f.parse(text)
	return text, res == parsed && back == seconds
}

// Same reports whether an accepted decision leaves what the event said: its
// key, and every column that is stored. That a date of first completion was
// filled in then is no difference.
func (e *Event) Same(d *Decision) bool {
	if d.Verdict != Accepted {
		return false
	}
	if was, is := e.Tracking, d.Tracking; was != nil && is != nil {
		if was.TrackingKey != is.TrackingKey || was.Delete != is.Delete {
			return false
		}
		return was.Delete || was.Status == is.Status && sameTime(was.FirstAccess, is.FirstAccess) && sameTime(was.LastAccess, is.LastAccess) &&
			sameTime(was.FirstCompletion, is.FirstCompletion) && was.Progression == is.Progression && was.Score == is.Score &&
			was.ScoreMax == is.ScoreMax && was.TimeSpent == is.TimeSpent
	}
	was, is := e.Intervention, d.Intervention
	return was != nil && is != nil && was.GUIDFolded == is.GUIDFolded && was.RefSessionID == is.RefSessionID && was.Date.Equal(is.Date) &&
		was.Duration == is.Duration && was.RoomGUIDFolded == is.RoomGUIDFolded && was.RoomLabel == is.RoomLabel &&
		was.RoomCapacity == is.RoomCapacity && Fold(was.TeacherLogin) == Fold(is.TeacherLogin) && was.Cancelled == is.Cancelled
}

func sameTime(a, b Opt[time.Time]) bool { return a.OK == b.OK && a.V.Equal(b.V) }

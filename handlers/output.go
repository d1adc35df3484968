package handlers

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Output is one record to publish: an accepted event or a dead letter. Its
// partition is murmur2 of Key (before any Shrink), as Kafka's Java client
// has it; for a null key SourcePartition modulo the topic's partitions.
type Output struct {
	Topic           string
	SourcePartition int
	Key             []byte // nil: null
	Value           []byte // nil: null
	Headers         []Header

	deadLetter bool
	own        int // how many of Headers are the input's own; they come first
	shrunk     int
}

// ID returns the id of the record's outcome, the same for the same record
// whenever it is judged: <source topic>-<partition>-<offset>, and of a topic
// that was made anew <source topic>~<incarnation>-<partition>-<offset>.
func (d *Decision) ID() string {
	id := d.Record.Topic
	if d.Record.Incarnation > 1 {
		id += "~" + strconv.Itoa(d.Record.Incarnation)
	}
	return id + "-" + strconv.Itoa(d.Record.Partition) + "-" + strconv.FormatInt(d.Record.Offset, 10)
}

// Output returns the event or the dead letter of a settled decision, in the
// shapes of contract.md; false where nothing is published. now is when a
// dead letter was rejected, the one value of it that is clock.
func (d *Decision) Output(src *Source, now time.Time) (Output, bool) {
	switch d.Verdict {
	case Accepted:
		return d.event(src), true
	case Rejected:
		return d.deadLetter(src, now), true
	}
	return Output{}, false
}

// event is the accepted event: CloudEvents 1.0 in binary mode.
func (d *Decision) event(src *Source) Output {
	kind, subject := "learnsink.tracking.upserted", ""
	if t := d.Tracking; t != nil {
		if t.Delete {
			kind = "learnsink.tracking.deleted"
		}
		subject = strconv.FormatInt(t.RegistrationID, 10) + "/" + strconv.FormatInt(t.LearningObjectID, 10)
	} else {
		kind, subject = "learnsink.intervention.upserted", d.Intervention.GUID
	}
	o := Output{Topic: src.AcceptedTopic, SourcePartition: d.Record.Partition, Key: d.Record.Key, Value: d.appendEvent(nil)}
	for _, h := range d.Record.Headers {
		if h.Key == "traceparent" || h.Key == "tracestate" {
			o.Headers = append(o.Headers, h)
		}
	}
	o.own = len(o.Headers)
	o.header("ce_specversion", "1.0")
	o.header("ce_id", d.ID())
	o.header("ce_source", "learnsink/"+d.Record.Topic)
	o.header("ce_type", kind)
	o.header("ce_time", timeText(d.EventTime))
	o.header("ce_subject", subject)
	o.header("content-type", "application/json")
	return o
}

// deadLetter is the input's key, value and own headers, byte for byte, and
// what was wrong with it.
func (d *Decision) deadLetter(src *Source, now time.Time) Output {
	rec := d.Record
	o := Output{Topic: src.DeadLetterTopic, SourcePartition: rec.Partition, Key: rec.Key, Value: rec.Value, deadLetter: true}
	for _, h := range rec.Headers {
		if !strings.HasPrefix(h.Key, "learnsink.") && !strings.HasPrefix(h.Key, "__connect.errors.") {
			o.Headers = append(o.Headers, h)
		}
	}
	o.own = len(o.Headers)
	partition, offset := strconv.Itoa(rec.Partition), strconv.FormatInt(rec.Offset, 10)
	o.header("learnsink.id", d.ID())
	o.header("learnsink.action", string(d.Rules.action))
	o.header("learnsink.errors", string(AppendErrors(nil, d.Errors)))
	o.header("learnsink.message", messages(d.Errors))
	o.header("learnsink.source.topic", rec.Topic)
	o.header("learnsink.source.partition", partition)
	o.header("learnsink.source.offset", offset)
	o.header("learnsink.source.timestamp", timeText(d.EventTime))
	o.header("learnsink.attempt", "1")
	o.header("learnsink.rejected-at", timeText(now))
	o.header("learnsink.rules", d.Rules.hash)
	o.header("__connect.errors.topic", rec.Topic)
	o.header("__connect.errors.partition", partition)
	o.header("__connect.errors.offset", offset)
	o.header("__connect.errors.stage", "TASK_PUT")
	o.header("__connect.errors.exception.class.name", string(d.Errors[0].Code))
	o.header("__connect.errors.exception.message", messages(d.Errors))
	return o
}

func (o *Output) header(key, value string) {
	o.Headers = append(o.Headers, Header{key, []byte(value)})
}

// Shrink returns the next smaller form of an output that does not fit its
// topic's max.message.bytes; false where there is none. A dead letter loses
// its value first, then the input's own headers, then all but its first
// error, then its key, and says learnsink.truncated; the table rejection has
// the whole. An event loses its trace headers, then its key. What is left is
// a few kilobytes at most.
func (o Output) Shrink() (Output, bool) {
	o.Headers = slices.Clone(o.Headers)
	for {
		o.shrunk++
		switch {
		case o.shrunk == 1 && o.deadLetter:
			o.header("learnsink.truncated", "true")
			if o.Value == nil {
				continue
			}
			o.Value = nil
		case o.shrunk == 2:
			if o.own == 0 {
				continue
			}
			o.Headers, o.own = o.Headers[o.own:], 0
		case o.shrunk == 3 && o.deadLetter:
			for i, h := range o.Headers {
				if strings.HasSuffix(h.Key, "message") || h.Key == "learnsink.errors" {
					o.Headers[i].Value = shortened(h)
				}
			}
		case o.shrunk == 4:
			if o.Key == nil {
				continue
			}
			o.Key = nil
		case o.shrunk > 4:
			return o, false
		default:
			continue
		}
		return o, true
	}
}

// shortened is a header that says what is wrong, cut to what any topic takes.
func shortened(h Header) []byte {
	const most = 400
	if len(h.Value) <= most {
		return h.Value
	}
	if h.Key == "learnsink.errors" {
		return []byte(`[]`) // half of a JSON text is none; learnsink.message has its start
	}
	return append([]byte(strings.ToValidUTF8(string(h.Value[:most]), "")), "…"...)
}

// messages joins the messages as the header learnsink.message has them.
func messages(errs []Error) string {
	all := make([]string, len(errs))
	for i, e := range errs {
		all[i] = e.Message
	}
	return strings.Join(all, " | ")
}

// AppendErrors appends errors as JSON: [{"code","field"?,"value"?,"message"}].
func AppendErrors(dst []byte, errs []Error) []byte {
	dst = append(dst, '[')
	for i, e := range errs {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendMember(append(dst, '{'), "code", string(e.Code))
		if e.Field != "" || e.Message == namelessUnknown {
			dst = appendMember(append(dst, ','), "field", e.Field)
		}
		if e.Value != "" {
			dst = appendMember(append(dst, ','), "value", e.Value)
		}
		dst = append(appendMember(append(dst, ','), "message", e.Message), '}')
	}
	return append(dst, ']')
}

// Operation is what an accepted decision does to the row under its key: upsert or delete.
func (d *Decision) Operation() string {
	if d.Tracking != nil && d.Tracking.Delete {
		return "delete"
	}
	return "upsert"
}

// appendEvent appends the value of the accepted event.
func (d *Decision) appendEvent(dst []byte) []byte {
	dst = append(dst, `{"version":1,`...)
	dst = appendMember(dst, "action", string(d.Rules.action))
	dst = appendMember(append(dst, ','), "operation", d.Operation())
	dst = append(dst, `,"key":{`...)
	if t := d.Tracking; t != nil {
		dst = appendInt(dst, "registrationId", t.RegistrationID)
		dst = appendInt(append(dst, ','), "learnerId", t.LearnerID)
		dst = appendInt(append(dst, ','), "learningObjectId", t.LearningObjectID)
		dst = appendMember(append(dst, ','), "learningObjectGuid", t.LearningObjectGUID)
		dst = appendInt(append(dst, ','), "sessionId", t.RefSessionID)
		dst = appendMember(append(dst, ','), "sessionGuid", t.RefSessionGUID)
		dst = appendInt(append(dst, ','), "trainingId", t.RefTrainingID)
	} else {
		r := d.Intervention
		dst = appendMember(dst, "interventionGuid", r.GUID)
		dst = appendInt(append(dst, ','), "sessionId", r.RefSessionID)
		dst = appendMember(append(dst, ','), "sessionGuid", r.RefSessionGUID)
		dst = appendInt(append(dst, ','), "trainingId", r.RefTrainingID)
	}
	dst = append(dst, `},"row":`...)
	dst = d.AppendRow(dst)
	dst = append(dst, `,"filledIn":[`...)
	if d.Tracking != nil && d.Tracking.FilledIn {
		dst = append(dst, `"firstCompletionDate"`...)
	}
	rec := d.Record
	dst = append(dst, `],"source":{`...)
	dst = appendMember(dst, "topic", rec.Topic)
	dst = appendInt(append(dst, ','), "partition", int64(rec.Partition))
	dst = appendInt(append(dst, ','), "offset", rec.Offset)
	dst = appendMember(append(dst, ','), "timestamp", timeText(d.EventTime))
	for _, h := range [...][2]string{{"id", "ce_id"}, {"sender", "ce_source"}} {
		if v, ok := rec.Header(h[1]); ok && len(v) > 0 {
			dst = appendMember(append(dst, ','), h[0], headerText(v))
		}
	}
	dst = append(dst, '}', ',')
	return append(appendMember(dst, "rules", d.Rules.hash), '}')
}

// Sender returns the input's ce_source as text; "" where it has none.
func (d *Decision) Sender() string {
	v, _ := d.Record.Header("ce_source")
	return headerText(v)
}

// headerText is a header of the input as text: valid UTF-8, of bounded length.
func headerText(v []byte) string {
	if len(v) > 4*maxText {
		v = v[:4*maxText]
	}
	s := strings.ToValidUTF8(string(v), "\uFFFD")
	if utf8.RuneCountInString(s) > maxText {
		s = string([]rune(s)[:maxText])
	}
	return s
}

// AppendRow appends the row of an accepted decision as JSON: every column of
// the action by its own name, typed; datetimes in RFC 3339 UTC, timeSpent in
// seconds, statuses by the vendor's full words, absent = null.
func (d *Decision) AppendRow(dst []byte) []byte {
	dst = append(dst, '{')
	if t := d.Tracking; t != nil {
		dst = appendOptText(dst, "candidateLogin", t.CandidateLogin)
		dst = appendOptText(append(dst, ','), "candidateRefNumber", t.CandidateRefNumber)
		dst = appendOptText(append(dst, ','), "candidateEmail", t.CandidateEmail)
		dst = appendOptText(append(dst, ','), "lovCode", t.LovCode)
		dst = appendOptText(append(dst, ','), "lovGuid", t.LovGUID)
		dst = appendOptText(append(dst, ','), "sessionGuid", t.SessionGUID)
		dst = appendOptInt(append(dst, ','), "sessionId", Opt[int64]{t.SessionID, t.SessionID != 0})
		dst = appendOptText(append(dst, ','), "sessionTitle", t.SessionTitle)
		dst = appendOptText(append(dst, ','), "trainingPathCode", t.TrainingPathCode)
		dst = appendOptInt(append(dst, ','), "trainingId", Opt[int64]{t.TrainingID, t.TrainingID != 0})
		dst = appendOptTime(append(dst, ','), "firstAccessDate", t.FirstAccess)
		dst = appendOptTime(append(dst, ','), "lastAccessDate", t.LastAccess)
		dst = appendOptTime(append(dst, ','), "firstCompletionDate", t.FirstCompletion)
		dst = appendOptFloat(append(dst, ','), "progression", t.Progression)
		dst = appendMember(append(dst, ','), "trackingStatus", t.Status.String())
		dst = appendInt(append(dst, ','), "timeSpent", t.TimeSpent)
		dst = appendOptFloat(append(dst, ','), "score", t.Score)
		dst = appendInt(append(dst, ','), "scoreMax", int64(t.ScoreMax))
	} else {
		r := d.Intervention
		dst = appendMember(dst, "interventionGuid", r.GUID)
		dst = appendOptText(append(dst, ','), "trainingGuid", r.TrainingGUID)
		dst = appendOptText(append(dst, ','), "trainingPathCode", r.TrainingPathCode)
		dst = appendOptText(append(dst, ','), "sessionGuid", r.SessionGUID)
		dst = appendOptText(append(dst, ','), "sessionTitle", r.SessionTitle)
		dst = appendOptTime(append(dst, ','), "interventionDate", Some(r.Date))
		dst = appendInt(append(dst, ','), "interventionDuration", int64(r.Duration))
		dst = appendMember(append(dst, ','), "roomGuid", r.RoomGUID)
		dst = appendMember(append(dst, ','), "roomLabel", r.RoomLabel)
		dst = appendOptInt(append(dst, ','), "roomCapacity", Opt[int64]{int64(r.RoomCapacity.V), r.RoomCapacity.OK})
		dst = appendMember(append(dst, ','), "teacherLogin", r.TeacherLogin)
		dst = appendMember(append(dst, ','), "interventionStatus", r.StatusWord())
	}
	return append(dst, '}')
}

// appendName appends a member's name, which needs no escaping, and its colon.
func appendName(dst []byte, name string) []byte {
	return append(append(append(dst, '"'), name...), `":`...)
}

func appendMember(dst []byte, name, text string) []byte {
	return appendString(appendName(dst, name), text)
}

func appendInt(dst []byte, name string, n int64) []byte {
	return strconv.AppendInt(appendName(dst, name), n, 10)
}

func appendOptText(dst []byte, name, text string) []byte {
	if text == "" {
		return append(appendName(dst, name), "null"...)
	}
	return appendMember(dst, name, text)
}

func appendOptInt(dst []byte, name string, n Opt[int64]) []byte {
	if !n.OK {
		return append(appendName(dst, name), "null"...)
	}
	return appendInt(dst, name, n.V)
}

func appendOptFloat(dst []byte, name string, v Opt[float64]) []byte {
	dst = appendName(dst, name)
	if !v.OK {
		return append(dst, "null"...)
	}
	format := byte('f')
	if abs := math.Abs(v.V); abs != 0 && (abs < 1e-6 || abs >= 1e21) {
		format = 'e' // as encoding/json chooses
	}
	return strconv.AppendFloat(dst, v.V, format, -1, 64)
}

func appendOptTime(dst []byte, name string, t Opt[time.Time]) []byte {
	dst = appendName(dst, name)
	if !t.OK {
		return append(dst, "null"...)
	}
	dst = append(dst, '"')
	dst = t.V.UTC().AppendFormat(dst, time.RFC3339Nano)
	return append(dst, '"')
}

// timeText is a time in text: RFC 3339 UTC, fractions only if not 0.
func timeText(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }

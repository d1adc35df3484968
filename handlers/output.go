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

// Outputs makes the outputs of a source, one after the other and all of them in
// the same memory: an output is good until the next one is made.
type Outputs struct {
	source  *Source
	now     time.Time
	text    []byte // what the output's headers and value are slices of
	headers []Header
}

// NewOutputs returns a maker of outputs. now is when dead letters were
// rejected, the one value of theirs that is clock.
func NewOutputs(src *Source, now time.Time) *Outputs {
	return &Outputs{source: src, now: now, text: make([]byte, 0, 2<<10), headers: make([]Header, 0, 20)} // most take less
}

// Of returns the event or the dead letter of a settled decision, in the shapes
// of contract.md; false where nothing is published.
func (m *Outputs) Of(d *Decision) (Output, bool) {
	m.text, m.headers = m.text[:0], m.headers[:0]
	switch d.Verdict {
	case Accepted:
		return m.event(d), true
	case Rejected:
		return m.deadLetter(d), true
	}
	return Output{}, false
}

// take returns what grown has more than m.text, which it was appended to.
func (m *Outputs) take(grown []byte) []byte {
	from := len(m.text)
	m.text = grown
	return grown[from:len(grown):len(grown)]
}

// header adds a header; its value is what grown has more than m.text.
func (m *Outputs) header(key string, grown []byte) {
	m.headers = append(m.headers, Header{key, m.take(grown)})
}

// Output returns what Outputs makes of the decision, in memory of its own.
func (d *Decision) Output(src *Source, now time.Time) (Output, bool) {
	return NewOutputs(src, now).Of(d)
}

// ID returns the id of the record's outcome, the same for the same record
// whenever it is judged: <source topic>-<partition>-<offset>, and of a topic
// that was made anew <source topic>~<incarnation>-<partition>-<offset>.
func (d *Decision) ID() string { return string(d.appendID(nil)) }

func (d *Decision) appendID(dst []byte) []byte {
	rec := d.Record
	dst = append(dst, rec.Topic...)
	if rec.Incarnation > 1 {
		dst = strconv.AppendInt(append(dst, '~'), int64(rec.Incarnation), 10)
	}
	dst = strconv.AppendInt(append(dst, '-'), int64(rec.Partition), 10)
	return strconv.AppendInt(append(dst, '-'), rec.Offset, 10)
}

// event is the accepted event: CloudEvents 1.0 in binary mode.
func (m *Outputs) event(d *Decision) Output {
	rec := d.Record
	for _, h := range rec.Headers {
		if h.Key == "traceparent" || h.Key == "tracestate" {
			m.headers = append(m.headers, h)
		}
	}
	own := len(m.headers)
	m.header("ce_specversion", append(m.text, "1.0"...))
	m.header("ce_id", d.appendID(m.text))
	m.header("ce_source", append(append(m.text, "learnsink/"...), rec.Topic...))
	switch t := d.Tracking; {
	case t == nil:
		m.header("ce_type", append(m.text, "learnsink.intervention.upserted"...))
	case t.Delete:
		m.header("ce_type", append(m.text, "learnsink.tracking.deleted"...))
	default:
		m.header("ce_type", append(m.text, "learnsink.tracking.upserted"...))
	}
	at := m.take(appendTime(m.text, d.EventTime))
	m.headers = append(m.headers, Header{"ce_time", at})
	if t := d.Tracking; t != nil {
		registration := strconv.AppendInt(m.text, t.RegistrationID, 10)
		m.header("ce_subject", strconv.AppendInt(append(registration, '/'), t.LearningObjectID, 10))
	} else {
		m.header("ce_subject", append(m.text, d.Intervention.GUID...))
	}
	m.header("content-type", append(m.text, "application/json"...))
	return Output{Topic: m.source.AcceptedTopic, SourcePartition: rec.Partition, Key: rec.Key,
		Value: m.take(d.appendEvent(m.text, at)), Headers: m.headers, own: own}
}

// deadLetter is the input's key, value and own headers, byte for byte, and
// what was wrong with it.
func (m *Outputs) deadLetter(d *Decision) Output {
	rec := d.Record
	for _, h := range rec.Headers {
		if Own(h.Key) {
			m.headers = append(m.headers, h)
		}
	}
	own := len(m.headers)
	m.header("learnsink.id", d.appendID(m.text))
	m.header("learnsink.action", append(m.text, d.Rules.action...))
	m.header("learnsink.errors", AppendErrors(m.text, d.Errors))
	m.header("learnsink.message", appendMessages(m.text, d.Errors))
	m.header("learnsink.source.topic", append(m.text, rec.Topic...))
	m.header("learnsink.source.partition", strconv.AppendInt(m.text, int64(rec.Partition), 10))
	m.header("learnsink.source.offset", strconv.AppendInt(m.text, rec.Offset, 10))
	m.header("learnsink.source.timestamp", appendTime(m.text, d.EventTime))
	m.header(AttemptHeader, strconv.AppendInt(m.text, int64(d.attempt()), 10))
	if d.Replay != nil && d.Replay.Of != "" {
		m.header(ReplayOfHeader, append(m.text, d.Replay.Of...))
	}
	m.header("learnsink.rejected-at", appendTime(m.text, m.now))
	m.header("learnsink.rules", append(m.text, d.Rules.hash...))
	m.header("__connect.errors.topic", append(m.text, rec.Topic...))
	m.header("__connect.errors.partition", strconv.AppendInt(m.text, int64(rec.Partition), 10))
	m.header("__connect.errors.offset", strconv.AppendInt(m.text, rec.Offset, 10))
	m.header("__connect.errors.stage", append(m.text, "TASK_PUT"...))
	m.header("__connect.errors.exception.class.name", append(m.text, d.Errors[0].Code...))
	m.header("__connect.errors.exception.message", appendMessages(m.text, d.Errors))
	return Output{Topic: m.source.DeadLetterTopic, SourcePartition: rec.Partition, Key: rec.Key,
		Value: rec.Value, Headers: m.headers, deadLetter: true, own: own}
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
			o.Headers = append(o.Headers, Header{"learnsink.truncated", []byte("true")})
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

// appendMessages appends the messages as the header learnsink.message has them.
func appendMessages(dst []byte, errs []Error) []byte {
	for i := range errs {
		if i > 0 {
			dst = append(dst, " | "...)
		}
		dst = append(dst, errs[i].Message...)
	}
	return dst
}

// AppendErrors appends errors as JSON: [{"code","field"?,"value"?,"message"}].
func AppendErrors(dst []byte, errs []Error) []byte {
	dst = append(dst, '[')
	for i := range errs {
		e := &errs[i]
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendString(append(dst, `{"code":`...), string(e.Code))
		if e.Field != "" || e.Message == namelessUnknown {
			dst = appendString(append(dst, `,"field":`...), e.Field)
		}
		if e.Value != "" {
			dst = appendString(append(dst, `,"value":`...), e.Value)
		}
		dst = append(appendString(append(dst, `,"message":`...), e.Message), '}')
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

// appendEvent appends the value of the accepted event; at is the event's time, in text.
func (d *Decision) appendEvent(dst, at []byte) []byte {
	dst = appendString(append(dst, `{"version":1,"action":`...), string(d.Rules.action))
	dst = appendString(append(dst, `,"operation":`...), d.Operation())
	if t := d.Tracking; t != nil {
		dst = appendInt(append(dst, `,"key":{"registrationId":`...), t.RegistrationID)
		dst = appendInt(append(dst, `,"learnerId":`...), t.LearnerID)
		dst = appendInt(append(dst, `,"learningObjectId":`...), t.LearningObjectID)
		dst = appendString(append(dst, `,"learningObjectGuid":`...), t.LearningObjectGUID)
		dst = appendInt(append(dst, `,"sessionId":`...), t.RefSessionID)
		dst = appendString(append(dst, `,"sessionGuid":`...), t.RefSessionGUID)
		dst = appendInt(append(dst, `,"trainingId":`...), t.RefTrainingID)
	} else {
		r := d.Intervention
		dst = appendString(append(dst, `,"key":{"interventionGuid":`...), r.GUID)
		dst = appendInt(append(dst, `,"sessionId":`...), r.RefSessionID)
		dst = appendString(append(dst, `,"sessionGuid":`...), r.RefSessionGUID)
		dst = appendInt(append(dst, `,"trainingId":`...), r.RefTrainingID)
	}
	dst = d.AppendRow(append(dst, `},"row":`...))
	dst = append(dst, `,"filledIn":[`...)
	if d.Tracking != nil && d.Tracking.FilledIn {
		dst = append(dst, `"firstCompletionDate"`...)
	}
	rec := d.Record
	dst = appendString(append(dst, `],"source":{"topic":`...), rec.Topic)
	dst = appendInt(append(dst, `,"partition":`...), int64(rec.Partition))
	dst = appendInt(append(dst, `,"offset":`...), rec.Offset)
	dst = append(append(append(dst, `,"timestamp":"`...), at...), '"')
	if v, ok := rec.Header("ce_id"); ok && len(v) > 0 {
		dst = appendString(append(dst, `,"id":`...), headerText(v))
	}
	if v, ok := rec.Header("ce_source"); ok && len(v) > 0 {
		dst = appendString(append(dst, `,"sender":`...), headerText(v))
	}
	dst = appendString(append(dst, `},"rules":`...), d.Rules.hash)
	if d.Replay != nil && d.Replay.Of != "" {
		dst = appendString(append(dst, `,"replayOf":`...), d.Replay.Of)
	}
	return append(dst, '}')
}

// attempt says how often the row has been judged, this time included.
func (d *Decision) attempt() int {
	if d.Replay != nil {
		return d.Replay.Attempt
	}
	return 1
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
	if t := d.Tracking; t != nil {
		dst = appendText(append(dst, `{"candidateLogin":`...), t.CandidateLogin)
		dst = appendText(append(dst, `,"candidateRefNumber":`...), t.CandidateRefNumber)
		dst = appendText(append(dst, `,"candidateEmail":`...), t.CandidateEmail)
		dst = appendText(append(dst, `,"lovCode":`...), t.LovCode)
		dst = appendText(append(dst, `,"lovGuid":`...), t.LovGUID)
		dst = appendText(append(dst, `,"sessionGuid":`...), t.SessionGUID)
		dst = appendOptInt(append(dst, `,"sessionId":`...), t.SessionID, t.SessionID != 0)
		dst = appendText(append(dst, `,"sessionTitle":`...), t.SessionTitle)
		dst = appendText(append(dst, `,"trainingPathCode":`...), t.TrainingPathCode)
		dst = appendOptInt(append(dst, `,"trainingId":`...), t.TrainingID, t.TrainingID != 0)
		dst = appendOptInstant(append(dst, `,"firstAccessDate":`...), t.FirstAccess)
		dst = appendOptInstant(append(dst, `,"lastAccessDate":`...), t.LastAccess)
		dst = appendOptInstant(append(dst, `,"firstCompletionDate":`...), t.FirstCompletion)
		dst = appendOptFloat(append(dst, `,"progression":`...), t.Progression)
		dst = appendString(append(dst, `,"trackingStatus":`...), t.Status.String())
		dst = appendInt(append(dst, `,"timeSpent":`...), t.TimeSpent)
		dst = appendOptFloat(append(dst, `,"score":`...), t.Score)
		dst = appendInt(append(dst, `,"scoreMax":`...), int64(t.ScoreMax))
	} else {
		r := d.Intervention
		dst = appendString(append(dst, `{"interventionGuid":`...), r.GUID)
		dst = appendText(append(dst, `,"trainingGuid":`...), r.TrainingGUID)
		dst = appendText(append(dst, `,"trainingPathCode":`...), r.TrainingPathCode)
		dst = appendText(append(dst, `,"sessionGuid":`...), r.SessionGUID)
		dst = appendText(append(dst, `,"sessionTitle":`...), r.SessionTitle)
		dst = appendInstant(append(dst, `,"interventionDate":`...), r.Date)
		dst = appendInt(append(dst, `,"interventionDuration":`...), int64(r.Duration))
		dst = appendString(append(dst, `,"roomGuid":`...), r.RoomGUID)
		dst = appendString(append(dst, `,"roomLabel":`...), r.RoomLabel)
		dst = appendOptInt(append(dst, `,"roomCapacity":`...), int64(r.RoomCapacity.V), r.RoomCapacity.OK)
		dst = appendString(append(dst, `,"teacherLogin":`...), r.TeacherLogin)
		dst = appendString(append(dst, `,"interventionStatus":`...), r.StatusWord())
	}
	return append(dst, '}')
}

func appendInt(dst []byte, n int64) []byte { return strconv.AppendInt(dst, n, 10) }

func appendNull(dst []byte) []byte { return append(dst, "null"...) }

// appendText appends a text that may be absent.
func appendText(dst []byte, text string) []byte {
	if text == "" {
		return appendNull(dst)
	}
	return appendString(dst, text)
}

func appendOptInt(dst []byte, n int64, ok bool) []byte {
	if !ok {
		return appendNull(dst)
	}
	return appendInt(dst, n)
}

func appendOptFloat(dst []byte, v Opt[float64]) []byte {
	if !v.OK {
		return appendNull(dst)
	}
	return appendFloat(dst, v.V)
}

func appendOptInstant(dst []byte, t Opt[time.Time]) []byte {
	if !t.OK {
		return appendNull(dst)
	}
	return appendInstant(dst, t.V)
}

// appendFloat appends the shortest decimals that read back as v, in the form
// that encoding/json chooses.
func appendFloat(dst []byte, v float64) []byte {
	abs := math.Abs(v)
	// Most have two decimals at most. Fifteen digits tell every float64 apart
	// from its neighbours, so if these read back as v there are none shorter.
	if abs < 1e12 {
		if n := int64(abs*100 + 0.5); float64(n)/100 == abs {
			if v < 0 {
				dst = append(dst, '-')
			}
			dst = appendInt(dst, n/100)
			if tenths, hundredths := byte(n/10%10), byte(n%10); hundredths != 0 {
				dst = append(dst, '.', '0'+tenths, '0'+hundredths)
			} else if tenths != 0 {
				dst = append(dst, '.', '0'+tenths)
			}
			return dst
		}
	}
	format := byte('f')
	if abs != 0 && (abs < 1e-6 || abs >= 1e21) {
		format = 'e'
	}
	return strconv.AppendFloat(dst, v, format, -1, 64)
}

// appendInstant appends a time as a JSON string.
func appendInstant(dst []byte, t time.Time) []byte {
	return append(appendTime(append(dst, '"'), t), '"')
}

// appendTime appends a time in text: RFC 3339 UTC, fractions only if not 0.
func appendTime(dst []byte, t time.Time) []byte {
	t = t.UTC()
	year, month, day := t.Date()
	hour, minute, second := t.Clock()
	dst = append(dst, digit(year/1000), digit(year/100), digit(year/10), digit(year), '-',
		digit(int(month)/10), digit(int(month)), '-', digit(day/10), digit(day), 'T',
		digit(hour/10), digit(hour), ':', digit(minute/10), digit(minute), ':', digit(second/10), digit(second))
	if nanos := t.Nanosecond(); nanos != 0 {
		dst = append(dst, '.')
		for unit := int(1e8); nanos > 0; unit /= 10 {
			dst = append(dst, digit(nanos/unit))
			nanos %= unit
		}
	}
	return append(dst, 'Z')
}

// digit is the last decimal digit of n.
func digit(n int) byte { return '0' + byte(n%10) }

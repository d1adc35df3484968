package handlers

import (
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// The headers of a record on the replay topic, beside the original's own.
// Values are text.
const (
	ReplayOfHeader          = "learnsink.replay-of"
	AttemptHeader           = "learnsink.attempt"
	SourceTopicHeader       = "learnsink.source.topic"
	SourcePartitionHeader   = "learnsink.source.partition"
	SourceOffsetHeader      = "learnsink.source.offset"
	SourceIncarnationHeader = "learnsink.source.incarnation"
	JobHeader               = "learnsink.job"
	OverwriteHeader         = "learnsink.overwrite"
	WaitedHeader            = "learnsink.waited"
)

// Replay is what a record of the replay topic says of itself.
type Replay struct {
	// Of is the id of the rejection that is replayed; "": a row of learnsink's own.
	Of string
	// Attempt counts how often the row has been judged, this time included.
	Attempt int
	// EventTime is the original's.
	EventTime time.Time
	// SourceTopic names the source whose rules and output topics are meant.
	SourceTopic string
	// Origin is where the original stands, which is its place in the order;
	// absent of a row of learnsink's own, which stands where it is.
	Origin Opt[Origin]
	// Job and Item are the job that sends it and the item's number in it; 0: none.
	Job, Item int64
	// Overwrite is what a person saw stored, and wants this row to win over
	// though it is older: Stored.Seen of it. "": the order by event time holds.
	Overwrite string
	// Waited: it comes from the waiting room, and does not wait again.
	Waited bool
}

// Origin is where a record stands in its log.
type Origin struct {
	Partition, Incarnation int
	Offset                 int64
}

// Headers returns the record's headers, to be appended to the original's own.
func (r *Replay) Headers() []Header {
	var h []Header
	add := func(key, value string) { h = append(h, Header{key, []byte(value)}) }
	if r.Of != "" {
		add(ReplayOfHeader, r.Of)
		add(AttemptHeader, strconv.Itoa(r.Attempt))
	}
	add(EventTimeHeader, string(appendTime(nil, r.EventTime)))
	add(SourceTopicHeader, r.SourceTopic)
	if o := r.Origin.V; r.Origin.OK {
		add(SourcePartitionHeader, strconv.Itoa(o.Partition))
		add(SourceOffsetHeader, strconv.FormatInt(o.Offset, 10))
		if o.Incarnation > 1 {
			add(SourceIncarnationHeader, strconv.Itoa(o.Incarnation))
		}
	}
	if r.Job != 0 {
		h = append(h, r.JobHeader())
	}
	if r.Overwrite != "" {
		add(OverwriteHeader, r.Overwrite)
	}
	if r.Waited {
		add(WaitedHeader, "true")
	}
	return h
}

// JobHeader says which job sends the record, and which of its items it is.
func (r *Replay) JobHeader() Header {
	return Header{JobHeader, []byte(strconv.FormatInt(r.Job, 10) + "/" + strconv.FormatInt(r.Item, 10))}
}

// Own reports whether a header is a sender's own, and not one of learnsink's
// or of a tool's that speaks of dead letters.
func Own(key string) bool {
	return !strings.HasPrefix(key, "learnsink.") && !strings.HasPrefix(key, "__connect.errors.")
}

// maxID is longer than any id of an outcome: a topic's name and three numbers.
const maxID = 249 + 3*20

// ReplayOf reads what a record of the replay topic says of itself. What is
// not well-formed is as if it were not there.
func ReplayOf(rec *Record) (r Replay) {
	text := func(key string) string { v, _ := rec.Header(key); return string(v) }
	number := func(key string) (int64, bool) {
		n, err := strconv.ParseInt(text(key), 10, 64)
		return n, err == nil && n >= 0
	}
	if of := text(ReplayOfHeader); len(of) <= maxID && utf8.ValidString(of) && strings.IndexByte(of, 0) < 0 {
		r.Of = of
	}
	n, _ := number(AttemptHeader)
	r.Attempt = int(min(max(n, 1), 1<<30))
	r.EventTime, _ = time.Parse(time.RFC3339, text(EventTimeHeader))
	r.SourceTopic = text(SourceTopicHeader)
	partition, ok := number(SourcePartitionHeader)
	offset, ok2 := number(SourceOffsetHeader)
	if ok && ok2 && partition < 1<<31 {
		incarnation, _ := number(SourceIncarnationHeader)
		r.Origin = Some(Origin{int(partition), int(min(max(incarnation, 1), 1<<30)), offset})
	}
	if job, item, ok := strings.Cut(text(JobHeader), "/"); ok {
		j, err := strconv.ParseInt(job, 10, 64)
		i, err2 := strconv.ParseInt(item, 10, 64)
		if err == nil && err2 == nil {
			r.Job, r.Item = j, i
		}
	}
	r.Overwrite = text(OverwriteHeader)
	r.Waited = text(WaitedHeader) == "true"
	return r
}

// Replays says that the row's record is one of the replay topic, and what it
// says of itself. r must stay as it is for as long as what is decided of the
// row is in use.
func (w *Row) Replays(r *Replay) { w.replay = r }

// NoSource decides a record of the replay topic that names no source there is:
// no rules are meant, so these say nothing but that.
func (r *Rules) NoSource(rec *Record, eventTime time.Time, replay *Replay) Decision {
	d := Decision{Record: rec, Rules: r, EventTime: eventTime, Replay: replay}
	d.reject(Error{Code: SourceUnknown, Message: "Source [" + show(strings.ToValidUTF8(replay.SourceTopic, "\uFFFD")) + "] is unknown."})
	return d
}

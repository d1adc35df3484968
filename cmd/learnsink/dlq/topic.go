package dlq

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"learnsink/handlers"
	"learnsink/store"
)

// TopicLetter is a dead letter as it lies in a dead-letter topic.
type TopicLetter struct {
	store.Letter
	// Truncated: it did not fit the topic whole, so there is nothing to send.
	Truncated  bool
	Action     handlers.Action
	Errors     []handlers.Error
	Rules      string
	RejectedAt time.Time
}

// TopicLetterID returns the id of the dead letter that a record of a dead-letter
// topic is about, and which attempt at it; an attempt is about its original.
func TopicLetterID(rec *handlers.Record) (id string, attempt int, err error) {
	id = header(rec, "learnsink.id")
	if id == "" {
		return "", 0, fmt.Errorf("%s/%d offset %d: a record without learnsink.id is no dead letter", rec.Topic, rec.Partition, rec.Offset)
	}
	if of := header(rec, handlers.ReplayOfHeader); of != "" {
		id = of
	}
	attempt, err = strconv.Atoi(header(rec, handlers.AttemptHeader))
	if err != nil || attempt < 1 {
		return "", 0, fmt.Errorf("%s/%d offset %d: %s is no number", rec.Topic, rec.Partition, rec.Offset, handlers.AttemptHeader)
	}
	return id, attempt, nil
}

// ReadTopicLetter reads a record of a dead-letter topic.
func ReadTopicLetter(rec *handlers.Record) (f TopicLetter, err error) {
	fail := func(what string) (TopicLetter, error) {
		return TopicLetter{}, fmt.Errorf("%s/%d offset %d: %s", rec.Topic, rec.Partition, rec.Offset, what)
	}
	if f.ID, f.Attempt, err = TopicLetterID(rec); err != nil {
		return f, err
	}
	origin, ok := parseID(f.ID)
	if !ok {
		return fail("learnsink.id is no id of an outcome")
	}
	f.EventAt, err = time.Parse(time.RFC3339, header(rec, "learnsink.source.timestamp"))
	if err != nil {
		return fail("learnsink.source.timestamp is no time")
	}
	if err := json.Unmarshal([]byte(header(rec, "learnsink.errors")), &f.Errors); err != nil {
		return fail("learnsink.errors is no list of errors")
	}
	f.RejectedAt, _ = time.Parse(time.RFC3339, header(rec, "learnsink.rejected-at"))
	f.Action, f.Rules = handlers.Action(header(rec, "learnsink.action")), header(rec, "learnsink.rules")
	f.Truncated = header(rec, "learnsink.truncated") != ""
	f.State = "open"
	origin.Timestamp, origin.Key, origin.Value = f.EventAt, rec.Key, rec.Value
	origin.Headers = slices.DeleteFunc(slices.Clone(rec.Headers), func(h handlers.Header) bool { return !handlers.Own(h.Key) })
	f.Record = origin
	return f, nil
}

func header(rec *handlers.Record, key string) string {
	v, _ := rec.Header(key)
	return string(v)
}

// parseID takes the id of an outcome apart: <topic>[~<incarnation>]-<partition>-<offset>.
func parseID(id string) (at handlers.Record, ok bool) {
	last := strings.LastIndexByte(id, '-')
	middle := strings.LastIndexByte(id[:max(last, 0)], '-')
	if middle < 1 {
		return at, false
	}
	partition, err := strconv.ParseUint(id[middle+1:last], 10, 31)
	offset, err2 := strconv.ParseUint(id[last+1:], 10, 63)
	at = handlers.Record{Topic: id[:middle], Partition: int(partition), Offset: int64(offset), Incarnation: 1}
	if tilde := strings.LastIndexByte(at.Topic, '~'); tilde >= 0 {
		n, err := strconv.ParseUint(at.Topic[tilde+1:], 10, 31)
		if err != nil || n < 2 {
			return at, false
		}
		at.Topic, at.Incarnation = at.Topic[:tilde], int(n)
	}
	return at, err == nil && err2 == nil
}

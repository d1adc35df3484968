package dlq_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"learnsink/cmd/learnsink/dlq"
	"learnsink/handlers"
	"learnsink/store"
)

// deadLetter is a row as learnsink dead-letters it, at an offset of the topic.
func deadLetter(t *testing.T, rec *handlers.Record, replay *handlers.Replay, offset int64, shrunk bool) *handlers.Record {
	t.Helper()
	src := source(t, handlers.Tracking)
	row := src.Rules.Decode(rec, rec.Timestamp)
	if replay != nil {
		row.Replays(replay)
	}
	d := src.Rules.Decide(&row, handlers.NewFacts(1))
	out, ok := d.Output(src, day.Add(time.Hour))
	if !ok || d.Verdict != handlers.Rejected {
		t.Fatalf("no dead letter: %v", d.Verdict)
	}
	if shrunk {
		out, _ = out.Shrink()
	}
	return &handlers.Record{Topic: "learning.dead-letter", Offset: offset, Key: out.Key, Value: out.Value, Headers: out.Headers}
}

// A dead letter of a topic is the original again, whichever attempt it is.
func TestReadTopicLetter(t *testing.T) {
	original := &handlers.Record{Topic: "learning.tracking", Partition: 3, Offset: 17, Incarnation: 2, Timestamp: day.Add(1500 * time.Microsecond),
		Key: []byte("k"), Value: []byte(tracked("nobody", "o0", "")), Headers: []handlers.Header{{Key: "ce_source", Value: []byte("lms")}, {Key: "empty"}}}
	want := dlq.TopicLetter{
		Letter: store.Letter{ID: "learning.tracking~2-3-17", State: "open", EventAt: original.Timestamp, Attempt: 1, Record: *original},
		Action: handlers.Tracking, Rules: source(t, handlers.Tracking).Rules.Hash(), RejectedAt: day.Add(time.Hour),
		Errors: []handlers.Error{{Code: handlers.LONotFound, Field: "lovGuid", Value: "o0", Message: "Learning object version with guid [o0] is not found."},
			{Code: handlers.NoRegistration, Message: "No registration found for given parameters."}},
	}
	got, err := dlq.ReadTopicLetter(deadLetter(t, original, nil, 5, false))
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v\n%s", err, diff)
	}

	replay := &handlers.Replay{Of: "learning.tracking~2-3-17", Attempt: 3, EventTime: original.Timestamp, SourceTopic: "learning.tracking",
		Origin: handlers.Some(handlers.Origin{Partition: 3, Incarnation: 2, Offset: 17})}
	again := *original
	again.Topic, again.Partition, again.Offset, again.Incarnation = replayTopic, 0, 99, 1
	again.Headers = append(again.Headers[:2:2], replay.Headers()...)
	want.Attempt = 3
	got, err = dlq.ReadTopicLetter(deadLetter(t, &again, replay, 6, false))
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("an attempt: %v\n%s", err, diff)
	}
	if id, attempt, err := dlq.TopicLetterID(deadLetter(t, &again, replay, 6, false)); id != want.ID || attempt != 3 || err != nil {
		t.Errorf("%s %d %v", id, attempt, err)
	}

	got, err = dlq.ReadTopicLetter(deadLetter(t, original, nil, 5, true))
	if err != nil || !got.Truncated {
		t.Errorf("one that was cut is not known as such: %v", err)
	}
}

func TestReadTopicLetterRefuses(t *testing.T) {
	good := func() *handlers.Record {
		return deadLetter(t, &handlers.Record{Topic: "learning.tracking", Timestamp: day, Value: []byte("{}")}, nil, 7, false)
	}
	for key, value := range map[string]string{
		"learnsink.id": "what", "learnsink.attempt": "0", "learnsink.source.timestamp": "noon", "learnsink.errors": "{", "": "",
	} {
		rec := good()
		for i := range rec.Headers {
			if rec.Headers[i].Key == key {
				rec.Headers[i].Value = []byte(value)
			}
		}
		if key == "" {
			rec.Headers = nil
		}
		if _, err := dlq.ReadTopicLetter(rec); err == nil || !strings.Contains(err.Error(), "learning.dead-letter/0 offset 7: ") {
			t.Errorf("%s %q: %v", key, value, err)
		}
	}
	for _, id := range []string{"", "-", "--", "a-1", "a-x-1", "a-1-x", "-1-1", "a~-1-1", "a~1-1-1", "a-1--1", "a-99999999999-1"} {
		rec := good()
		for i := range rec.Headers {
			if rec.Headers[i].Key == "learnsink.id" {
				rec.Headers[i].Value = []byte(id)
			}
		}
		if f, err := dlq.ReadTopicLetter(rec); err == nil {
			t.Errorf("%q is read as %+v", id, f.Record)
		}
	}
}

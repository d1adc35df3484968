package handlers_test

import (
	"encoding/json"
	"testing"
	"time"

	"learnsink/handlers"
)

// replayed takes a record of the replay topic down the road up to its decision.
func replayed(r *handlers.Rules, value string, replay handlers.Replay) handlers.Decision {
	rec := &handlers.Record{Topic: "learning.replay", Partition: 0, Offset: 17, Timestamp: noon.Add(time.Hour), Key: []byte("ines.lopez"), Value: []byte(value),
		Headers: append([]handlers.Header{{Key: "traceparent", Value: []byte("00-ab-cd-01")}}, replay.Headers()...)}
	says := handlers.ReplayOf(rec)
	w := r.Decode(rec, handlers.EventTime(rec, true, time.Time{}))
	w.Replays(&says)
	refs := handlers.NewReferences()
	w.Refer(refs)
	return r.Decide(&w, world().Facts(refs))
}

const fine = `{"candidateLogin":"ines.lopez","lovCode":"FIRE-1","sessionGuid":"se-guid-11"}`

func TestStaleGuard(t *testing.T) {
	at := time.Date(2024, 6, 5, 12, 0, 0, 123456000, time.UTC)
	original := handlers.Replay{Of: "rows-1-40", Attempt: 2, EventTime: at, SourceTopic: "rows", Origin: handlers.Some(handlers.Origin{Partition: 1, Incarnation: 1, Offset: 40})}
	stored := func(at time.Time, topic string, partition int, offset int64) handlers.Stored {
		return handlers.Stored{Known: true, EventTime: at, SourceTopic: topic, SourcePartition: partition, SourceOffset: offset}
	}
	seen := func(s handlers.Stored) handlers.Replay {
		r := original
		r.Overwrite = s.Seen()
		return r
	}
	newer := stored(at.Add(time.Microsecond), "rows", 1, 7)
	own := original // a row of learnsink's own, as revert sends it
	own.Of, own.Origin = "", handlers.Opt[handlers.Origin]{}
	back := own
	back.Overwrite = newer.Seen()
	for name, c := range map[string]struct {
		stored     handlers.Stored
		replay     handlers.Replay
		superseded bool
	}{
		"nothing is stored":                              {handlers.Stored{}, original, false},
		"what is stored is a microsecond older":          {stored(at.Add(-time.Microsecond), "rows", 1, 99), original, false},
		"what is stored is a microsecond newer":          {newer, original, true},
		"of one time, the original stands behind":        {stored(at, "rows", 1, 39), original, false},
		"of one time, the original stands before":        {stored(at, "rows", 1, 41), original, true},
		"of one time, in a lower partition":              {stored(at, "rows", 0, 99), original, false},
		"of one time, in a higher partition":             {stored(at, "rows", 2, 0), original, true},
		"of one time, of a topic that sorts before":      {stored(at, "row", 9, 99), original, false},
		"of one time, of a topic that sorts behind":      {stored(at, "rowz", 0, 0), original, true},
		"it is what is stored: it was sent twice":        {stored(at, "rows", 1, 40), original, false},
		"what a person saw is what it replaces":          {newer, seen(newer), false},
		"something newer than what a person saw":         {stored(at.Add(time.Second), "rows", 1, 8), seen(newer), true},
		"another row of the time that a person saw":      {stored(newer.EventTime, "rows", 1, 8), seen(newer), true},
		"what a person saw has gone, and older is there": {stored(at.Add(-time.Hour), "rows", 1, 1), seen(newer), false},
		"it puts back what was there before":             {newer, back, false},
		"something else was written since":               {stored(at.Add(-time.Hour), "rows", 1, 8), back, true},
		"a row of its own stands where it is":            {stored(at, "learning.replay", 0, 16), own, false},
		"a row of its own, behind one of its own":        {stored(at, "learning.replay", 0, 18), own, true},
	} {
		t.Run(name, func(t *testing.T) {
			d := replayed(compile(t, handlers.Tracking), fine, c.replay)
			after := d.Settle(true, c.stored)
			if d.Superseded() != c.superseded {
				t.Fatalf("superseded %t over %s: %+v", d.Superseded(), c.stored.Seen(), d.Errors)
			}
			want := c.stored.Seen()
			if from, offset := d.Stands(); !c.superseded {
				want = stored(at, from.Topic, from.Partition, offset).Seen()
			}
			if after.Seen() != want {
				t.Errorf("afterwards %s, not %s", after.Seen(), want)
			}
		})
	}
	if s := newer.Seen(); s != "2024-06-05T12:00:00.123457Z|rows|1|7" || (handlers.Stored{}).Seen() != "" {
		t.Errorf("seen is %s", s)
	}
}

func TestOutputsOfReplays(t *testing.T) {
	r := compile(t, handlers.Tracking)
	replay := handlers.Replay{Of: "learning.tracking-2-42", Attempt: 3, EventTime: noon, SourceTopic: "learning.tracking", Origin: handlers.Some(handlers.Origin{Partition: 2, Incarnation: 1, Offset: 42})}
	src := source(r)
	src.Topic = "learning.replay"

	d := replayed(r, fine, replay)
	o, _ := d.Output(src, time.Time{})
	var event struct{ ReplayOf string }
	if err := json.Unmarshal(o.Value, &event); err != nil || event.ReplayOf != replay.Of {
		t.Errorf("an event with replayOf %q, %v: %s", event.ReplayOf, err, o.Value)
	}
	if h := headers(o); h["ce_id"] != "learning.replay-0-17" || h["ce_time"] != "2024-06-05T12:00:00.123Z" || h["traceparent"] != "00-ab-cd-01" || h["learnsink.job"] != "" {
		t.Errorf("headers of the event: %v", h)
	}

	d = replayed(r, `{}`, replay)
	o, _ = d.Output(src, time.Time{})
	if h := headers(o); h["learnsink.id"] != "learning.replay-0-17" || h["learnsink.attempt"] != "3" || h["learnsink.replay-of"] != replay.Of || h["learnsink.source.timestamp"] != "2024-06-05T12:00:00.123Z" {
		t.Errorf("headers of the dead letter: %v", h)
	}

	d = r.NoSource(d.Record, noon, &handlers.Replay{SourceTopic: "else\x01where", Attempt: 1})
	if len(d.Errors) != 1 || d.Errors[0] != (handlers.Error{Code: handlers.SourceUnknown, Message: `Source [else\u0001where] is unknown.`}) || d.Verdict != handlers.Rejected {
		t.Errorf("%+v", d)
	}
	if o, _ = d.Output(src, noon); headers(o)["learnsink.replay-of"] != "" {
		t.Errorf("headers of a row of no source: %v", headers(o))
	}
}

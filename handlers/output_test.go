package handlers_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"learnsink/handlers"
)

// world is the small catalogue of these tests.
func world() *handlers.Catalogue {
	c := handlers.NewCatalogue()
	c.AddLearner("Ines.Lopez", "E-77", "ines.lopez@example.net", handlers.Opt[time.Time]{})
	c.AddLearningObject("LO-guid-1", "FIRE-1", handlers.Customer)
	c.AddTraining(1, "tr-guid-1", "SAFE")
	c.AddSession(11, 1, "se-guid-11", "June")
	c.Register(handlers.LearnerRef{Login: "ines.lopez"}, 11)
	c.AddTeacher("dr.haas")
	return c
}

func compile(t testing.TB, action handlers.Action, settings ...handlers.Setting) *handlers.Rules {
	t.Helper()
	r, err := handlers.Compile(action, settings)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// judge takes a record down the road up to its decision.
func judge(r *handlers.Rules, c *handlers.Catalogue, rec *handlers.Record) handlers.Decision {
	w := r.Decode(rec, handlers.EventTime(rec, false, time.Time{}))
	refs := handlers.NewReferences()
	w.Refer(refs)
	return r.Decide(&w, c.Facts(refs))
}

var noon = time.Date(2024, 6, 5, 12, 0, 0, 123_000_000, time.UTC)

func record(value string) *handlers.Record {
	return &handlers.Record{Topic: "learning.tracking", Partition: 2, Offset: 42, Timestamp: noon, Key: []byte("ines.lopez"), Value: []byte(value),
		Headers: []handlers.Header{
			{Key: "ce_id", Value: []byte("evt-1")}, {Key: "ce_source", Value: []byte("lms/eu")},
			{Key: "traceparent", Value: []byte("00-ab-cd-01")}, {Key: "learnsink.attempt", Value: []byte("9")},
			{Key: "__connect.errors.topic", Value: []byte("old")}, {Key: "own", Value: nil},
		}}
}

func source(r *handlers.Rules) *handlers.Source {
	return &handlers.Source{Topic: "learning.tracking", Rules: r, AcceptedTopic: "learning.accepted", DeadLetterTopic: "learning.dead-letter"}
}

func headers(o handlers.Output) map[string]string {
	m := map[string]string{}
	for _, h := range o.Headers {
		if _, twice := m[h.Key]; twice {
			m[h.Key] += " TWICE"
		}
		m[h.Key] += string(h.Value)
	}
	return m
}

func TestAcceptedEvent(t *testing.T) {
	r := compile(t, handlers.Tracking)
	d := judge(r, world(), record(`{"candidateLogin":"INES.lopez","lovCode":"FIRE-1","sessionGuid":"se-guid-11","trackingStatus":"completed","score":17.50,"progression":-0}`))
	o, ok := d.Output(source(r), time.Time{})
	if !ok || o.Topic != "learning.accepted" || string(o.Key) != "ines.lopez" || o.SourcePartition != 2 {
		t.Fatalf("output %+v of %+v", o, d)
	}
	wantHeaders := map[string]string{
		"traceparent": "00-ab-cd-01", "ce_specversion": "1.0", "ce_id": "learning.tracking-2-42", "ce_source": "learnsink/learning.tracking",
		"ce_type": "learnsink.tracking.upserted", "ce_time": "2024-06-05T12:00:00.123Z", "content-type": "application/json",
		"ce_subject": headers(o)["ce_subject"],
	}
	if diff := cmp.Diff(wantHeaders, headers(o)); diff != "" {
		t.Errorf("headers (-want +got):\n%s", diff)
	}
	var got, want any
	if err := json.Unmarshal(o.Value, &got); err != nil {
		t.Fatalf("%v in %s", err, o.Value)
	}
	key := got.(map[string]any)["key"].(map[string]any)
	if subject := wantHeaders["ce_subject"]; subject != jsonText(key["registrationId"])+"/"+jsonText(key["learningObjectId"]) {
		t.Errorf("ce_subject is %q, the key %v", subject, key)
	}
	delete(key, "registrationId")
	delete(key, "learnerId")
	delete(key, "learningObjectId")
	err := json.Unmarshal([]byte(`{"version":1,"action":"tracking","operation":"upsert",
		"key":{"learningObjectGuid":"LO-guid-1","sessionId":11,"sessionGuid":"se-guid-11","trainingId":1},
		"row":{"candidateLogin":"INES.lopez","candidateRefNumber":null,"candidateEmail":null,"lovCode":"FIRE-1","lovGuid":null,
			"sessionGuid":"se-guid-11","sessionId":null,"sessionTitle":null,"trainingPathCode":null,"trainingId":null,
			"firstAccessDate":null,"lastAccessDate":null,"firstCompletionDate":"2024-06-05T00:00:00Z","progression":0,
			"trackingStatus":"completed","timeSpent":0,"score":17.5,"scoreMax":100},
		"filledIn":["firstCompletionDate"],
		"source":{"topic":"learning.tracking","partition":2,"offset":42,"timestamp":"2024-06-05T12:00:00.123Z","id":"evt-1","sender":"lms/eu"},
		"rules":"`+r.Hash()+`"}`), &want)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("value (-want +got):\n%s", diff)
	}
}

func jsonText(v any) string {
	b, _ := json.Marshal(v)
	return string(b)
}

func TestDeadLetter(t *testing.T) {
	r := compile(t, handlers.Tracking)
	rec := record(`{"sessionTitle":"June"}`)
	d := judge(r, world(), rec)
	now := time.Date(2024, 7, 1, 0, 0, 0, 0, time.UTC)
	o, ok := d.Output(source(r), now)
	if !ok || o.Topic != "learning.dead-letter" || string(o.Key) != "ines.lopez" || string(o.Value) != string(rec.Value) {
		t.Fatalf("output %+v", o)
	}
	h := headers(o)
	want := map[string]string{
		"ce_id": "evt-1", "ce_source": "lms/eu", "traceparent": "00-ab-cd-01", "own": "",
		"learnsink.id": "learning.tracking-2-42", "learnsink.action": "tracking", "learnsink.attempt": "1",
		"learnsink.source.topic": "learning.tracking", "learnsink.source.partition": "2", "learnsink.source.offset": "42",
		"learnsink.source.timestamp": "2024-06-05T12:00:00.123Z", "learnsink.rejected-at": "2024-07-01T00:00:00Z", "learnsink.rules": r.Hash(),
		"__connect.errors.topic": "learning.tracking", "__connect.errors.partition": "2", "__connect.errors.offset": "42",
		"__connect.errors.stage": "TASK_PUT", "__connect.errors.exception.class.name": "lo_reference_missing",
		"learnsink.errors": string(handlers.AppendErrors(nil, d.Errors)), "learnsink.message": h["learnsink.message"],
		"__connect.errors.exception.message": h["learnsink.message"],
	}
	if diff := cmp.Diff(want, h); diff != "" {
		t.Errorf("headers (-want +got):\n%s", diff)
	}
	var errs []handlers.Error
	if err := json.Unmarshal([]byte(h["learnsink.errors"]), &errs); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(d.Errors, errs); diff != "" {
		t.Errorf("errors (-decided +header):\n%s", diff)
	}
	if got := strings.Split(h["learnsink.message"], " | "); len(got) != 3 || got[2] != d.Errors[2].Message {
		t.Errorf("learnsink.message is %q", h["learnsink.message"])
	}
}

// size is about what an output takes in a record batch.
func size(o handlers.Output) int {
	n := len(o.Key) + len(o.Value)
	for _, h := range o.Headers {
		n += len(h.Key) + len(h.Value)
	}
	return n
}

func TestShrinkEndsSmall(t *testing.T) {
	r := compile(t, handlers.Tracking)
	huge := strings.Repeat("x", 1<<20)
	good := `{"candidateLogin":"ines.lopez","lovCode":"FIRE-1","sessionGuid":"se-guid-11"}`
	var bad strings.Builder
	for i := range 30 {
		bad.WriteString(`"` + strings.Repeat("é", 5000) + string(rune('a'+i)) + `":1,`)
	}
	for name, value := range map[string]string{"an accepted event": good, "a dead letter": "{" + bad.String() + good[1:]} {
		rec := record(value)
		rec.Key = []byte(huge)
		rec.Headers = append(rec.Headers, handlers.Header{Key: "tracestate", Value: []byte(huge)}, handlers.Header{Key: "ce_id", Value: []byte(huge)})
		d := judge(r, world(), rec)
		o, _ := d.Output(source(r), noon)
		before := len(o.Headers)
		first := o
		sizes := []int{size(o)}
		for {
			smaller, ok := o.Shrink()
			if !ok {
				break
			}
			o = smaller
			sizes = append(sizes, size(o))
		}
		if last := sizes[len(sizes)-1]; last > 6000 || len(sizes) < 3 {
			t.Errorf("%s shrinks through %v bytes", name, sizes)
		}
		if len(first.Headers) != before {
			t.Errorf("%s: Shrink changed the output it was asked of", name)
		}
		if d.Verdict == handlers.Rejected && headers(o)["learnsink.truncated"] != "true" {
			t.Errorf("%s does not say that it was truncated", name)
		}
		if id := headers(o)["learnsink.id"] + headers(o)["ce_id"]; id != "learning.tracking-2-42" {
			t.Errorf("%s lost its id: %q", name, id)
		}
	}
}

func BenchmarkJudge(b *testing.B) {
	r := compile(b, handlers.Tracking)
	c := world()
	c.Prepare()
	for name, value := range map[string]string{
		"accepted": `{"candidateLogin":"ines.lopez","lovCode":"FIRE-1","sessionTitle":"June","trainingPathCode":"SAFE","trackingStatus":"completed","progression":100,"score":17.5,"scoreMax":20,"timeSpent":600,"firstAccessDate":"2024-06-03 00:00:00","lastAccessDate":"2024-06-04 10:00:00"}`,
		"rejected": `{"candidateLogin":"nobody","lovCode":"FIRE-1","sessionTitle":"June","trainingPathCode":"SAFE","trackingStatus":"done","progression":100,"score":"17,5","firstAccessDate":"2024-06-03 00:00:00","lastAccessDate":"04.06.2024"}`,
	} {
		rec := record(value)
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				judge(r, c, rec)
			}
		})
	}
}

package oracle

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"learnsink/handlers"
	"learnsink/store/catalogue"
	"learnsink/test/rowgen"
)

// told is a story that was consumed as the rules say, in memory: what is
// expected of it, and what the output topics hold.
type told struct {
	expected *expected
	ids      *catalog
	outputs  map[string][]*kgo.Record
}

const partitions = 3

func tell(t *testing.T, n int) *told {
	t.Helper()
	facts, refs := memory(t), handlers.NewReferences()
	s := &told{newExpected(&Story{}), &catalog{registrations: map[string]int64{}, trainings: map[string]int64{}, objects: map[string]int64{}}, map[string][]*kgo.Record{}}
	next, ends, stored := map[string]int64{}, map[lane]int64{}, map[any]handlers.Stored{}
	for g := rowgen.New(rowgen.Config{Seed: 9, Bad: 0.3}); n > 0; n-- {
		rec := g.Next()
		rules, err := handlers.Compile(rec.Action, nil)
		if err != nil {
			t.Fatal(err)
		}
		source := &handlers.Source{Topic: string(rec.Action), Rules: rules, AcceptedTopic: "accepted", DeadLetterTopic: "dead"}
		r := Record(source.Topic, "x", rec)
		r.Partition = int32(PartitionOf(rec.Key, 0, partitions))
		from := place(r.Topic, r.Partition)
		r.Offset = next[from]
		next[from]++
		s.expected.add(rec, r)

		record := &handlers.Record{Topic: r.Topic, Partition: int(r.Partition), Offset: r.Offset, Timestamp: rec.EventTime, Key: r.Key, Value: r.Value}
		for _, h := range r.Headers {
			record.Headers = append(record.Headers, handlers.Header{Key: h.Key, Value: h.Value})
		}
		row := rules.Decode(record, handlers.EventTime(record, false, time.Time{}))
		row.Refer(refs)
		d := rules.Decide(&row, facts.Facts(refs))
		refs = handlers.NewReferences()
		if tr := d.Tracking; tr != nil {
			stored[tr.TrackingKey] = d.Settle(false, stored[tr.TrackingKey])
			at := rec.Tracking.Login + " " + rec.Tracking.SessionGUID
			s.ids.registrations[at], s.ids.trainings[at], s.ids.objects[rec.Tracking.LovGUID] = tr.RegistrationID, tr.RefTrainingID, tr.LearningObjectID
		} else if i := d.Intervention; i != nil {
			stored[i.GUIDFolded] = d.Settle(false, stored[i.GUIDFolded])
		}
		o, _ := d.Output(source, time.Now())
		out := &kgo.Record{Topic: o.Topic, Key: o.Key, Value: o.Value, Timestamp: time.Now(), Partition: int32(PartitionOf(o.Key, r.Partition, partitions))}
		for _, h := range o.Headers {
			out.Headers = append(out.Headers, kgo.RecordHeader{Key: h.Key, Value: h.Value})
		}
		to := lane{out.Topic, out.Partition}
		out.Offset = ends[to]
		ends[to]++
		s.outputs[out.Topic] = append(s.outputs[out.Topic], out)
	}
	return s
}

// memory is rowgen's catalogue.
func memory(t *testing.T) *handlers.Catalogue {
	t.Helper()
	dir := t.TempDir()
	if err := rowgen.WriteCatalog(dir); err != nil {
		t.Fatal(err)
	}
	folder, err := catalogue.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	c, bad, err := catalogue.LoadMemory(folder)
	if err != nil || bad != nil {
		t.Fatal(err, bad)
	}
	return c
}

// look looks at both outputs.
func (s *told) look(repeats bool) *Findings {
	f := &Findings{Repeats: map[string]int{}}
	for _, o := range outputsOf("accepted", "dead", s.ids) {
		o.expected, o.Findings, o.repeats = s.expected, f, repeats
		o.begin(partitions)
		for _, r := range s.outputs[o.topic] {
			o.take(r)
		}
		o.end()
	}
	return f
}

// The oracle finds nothing in what is right, and each fault that is planted.
func TestPlantedFaultsAreFound(t *testing.T) {
	if f := tell(t, 2000).look(false); len(f.Faults) > 0 {
		t.Fatalf("what is right is wrong: %s", f)
	}
	set := func(r *kgo.Record, key, value string) {
		for i := range r.Headers {
			if r.Headers[i].Key == key {
				r.Headers[i].Value = []byte(value)
			}
		}
	}
	for _, c := range []struct {
		name, says string
		plant      func(accepted, dead []*kgo.Record) (a, d []*kgo.Record)
	}{
		{"an event is lost", "is not there", func(a, d []*kgo.Record) ([]*kgo.Record, []*kgo.Record) { return slices.Delete(a, 50, 51), d }},
		{"a dead letter is lost", "is not there", func(a, d []*kgo.Record) ([]*kgo.Record, []*kgo.Record) { return a, d[:len(d)-1] }},
		{"an event is there twice", "is there again", func(a, d []*kgo.Record) ([]*kgo.Record, []*kgo.Record) { return append(a, a[7]), d }},
		{"a dead letter is there twice", "is there again", func(a, d []*kgo.Record) ([]*kgo.Record, []*kgo.Record) { return a, append(d, d[7]) }},
		{"an event of another record", "does not belong there", func(a, d []*kgo.Record) ([]*kgo.Record, []*kgo.Record) {
			set(a[9], "ce_id", "tracking-0-999999")
			return a, d
		}},
		{"a row is rejected that is good", "does not belong there", func(a, d []*kgo.Record) ([]*kgo.Record, []*kgo.Record) {
			set(d[3], "learnsink.id", HeaderOf(a[3], "ce_id"))
			return a, d
		}},
		{"events out of order", "comes after offset", func(a, d []*kgo.Record) ([]*kgo.Record, []*kgo.Record) {
			slices.Reverse(a)
			return a, d
		}},
		{"an event elsewhere", "is in partition", func(a, d []*kgo.Record) ([]*kgo.Record, []*kgo.Record) {
			a[5].Partition = (a[5].Partition + 1) % partitions
			return a, d
		}},
		{"another message", "learnsink.message is", func(a, d []*kgo.Record) ([]*kgo.Record, []*kgo.Record) {
			set(d[4], "learnsink.message", "It is wrong.")
			return a, d
		}},
		{"another value", "-model +topic", func(a, d []*kgo.Record) ([]*kgo.Record, []*kgo.Record) {
			a[6].Value = []byte(strings.Replace(string(a[6].Value), `"version":1`, `"version":2`, 1))
			return a, d
		}},
		{"a dead letter that is not the record", "is not the record", func(a, d []*kgo.Record) ([]*kgo.Record, []*kgo.Record) {
			d[8].Value = append(slices.Clone(d[8].Value), ' ')
			return a, d
		}},
	} {
		s := tell(t, 600)
		s.outputs["accepted"], s.outputs["dead"] = c.plant(s.outputs["accepted"], s.outputs["dead"])
		if f := s.look(false); !strings.Contains(f.String(), c.says) {
			t.Errorf("%s: found %q", c.name, f)
		}
	}
}

func TestRepeatsMayBeAllowed(t *testing.T) {
	s := tell(t, 400)
	s.outputs["accepted"] = append(s.outputs["accepted"], s.outputs["accepted"][3:9]...)
	if f := s.look(true); len(f.Faults) > 0 || f.Repeats["accepted"] != 6 {
		t.Errorf("%d repeats, %s", f.Repeats["accepted"], f)
	}
}

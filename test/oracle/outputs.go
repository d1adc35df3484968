package oracle

import (
	"context"

	"github.com/twmb/franz-go/pkg/kgo"
)

// outputs looks at an output topic, record by record as it is read: that each
// id is there once, where it must be, in order, and says the right thing.
type outputs struct {
	*expected
	*Findings
	topic, id string // the id stands in the header of that name
	repeats   bool
	belongs   func(*Outcome) bool
	compare   func(f *Findings, id string, o *Outcome, r *kgo.Record)

	partitions int
	seen       map[string]bool
	last       map[lane]int64 // the last source offset
}

// lane is what keeps its order: what one source partition sent to one output partition.
type lane struct {
	from string
	to   int32
}

// outputsOf are the looks at both output topics.
func outputsOf(accepted, deadLetters string, ids *catalog) []*outputs {
	return []*outputs{
		{topic: accepted, id: "ce_id", belongs: func(o *Outcome) bool { return o.Errors == nil }, compare: ids.event},
		{topic: deadLetters, id: "learnsink.id", belongs: func(o *Outcome) bool { return o.Errors != nil }, compare: deadLetter},
	}
}

// read looks at the whole of an output topic.
func (h *House) read(ctx context.Context, o *outputs) error {
	ends, err := Ends(ctx, h.Brokers, o.topic)
	if err != nil {
		return err
	}
	o.begin(len(ends))
	for p, end := range ends {
		for r, err := range Log(ctx, h.Brokers, o.topic, p, end, false) {
			if err != nil {
				return err
			}
			o.take(r)
		}
	}
	o.end()
	return nil
}

func (o *outputs) begin(partitions int) {
	o.partitions, o.seen, o.last = partitions, map[string]bool{}, map[lane]int64{}
}

func (o *outputs) take(r *kgo.Record) {
	id := HeaderOf(r, o.id)
	if o.seen[id] {
		if o.Repeats[o.topic]++; !o.repeats {
			o.faultf("%s: %s is there again, at partition %d, offset %d", o.topic, id, r.Partition, r.Offset)
		}
		return
	}
	o.seen[id] = true
	out, known := o.Outcomes[id]
	if !known || !o.belongs(out) {
		o.faultf("%s: %q does not belong there", o.topic, id)
		return
	}
	if want := PartitionOf(out.Log.Key, out.Log.Partition, o.partitions); int(r.Partition) != want {
		o.faultf("%s: %s is in partition %d, not %d", o.topic, id, r.Partition, want)
	}
	l := lane{place(out.Log.Topic, out.Log.Partition), r.Partition}
	if before, there := o.last[l]; there && out.Log.Offset < before {
		o.faultf("%s: %s comes after offset %d", o.topic, id, before)
	}
	o.last[l] = out.Log.Offset
	o.compare(o.Findings, id, out, r)
}

func (o *outputs) end() {
	for id, out := range o.Outcomes {
		if o.belongs(out) && !o.seen[id] {
			o.faultf("%s: %s, %s, is not there", o.topic, id, out.Kind)
		}
	}
}

// Again counts, by output topic, the records under an id that was there
// before, as a reader sees them who does not wait for commits.
func (h *House) Again(ctx context.Context) (map[string]int, error) {
	again := map[string]int{}
	for topic, header := range map[string]string{h.Accepted: "ce_id", h.DeadLetter: "learnsink.id"} {
		ends, err := Ends(ctx, h.Brokers, topic)
		if err != nil {
			return nil, err
		}
		seen := map[string]bool{}
		for p, end := range ends {
			for r, err := range Log(ctx, h.Brokers, topic, p, end, true) {
				if err != nil {
					return nil, err
				}
				id := HeaderOf(r, header)
				if seen[id] {
					again[topic]++
				}
				seen[id] = true
			}
		}
	}
	return again, nil
}

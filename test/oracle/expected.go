package oracle

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kgo"

	"learnsink/test/rowgen"
)

// Outcome is a record in the log of a source, and what must become of it.
type Outcome struct {
	rowgen.Record
	Log    *kgo.Record           // without the value, where it is accepted
	Errors []string              // the messages of its rejection; none: accepted
	Event  rowgen.StoredTracking // what an accepted tracking row left
}

// expected is what a house must hold.
type expected struct {
	World    *rowgen.World
	Outcomes map[string]*Outcome // by id
	Ends     map[string]int64    // by partition: how far its log is committed
}

func newExpected(s *Story) *expected {
	e := &expected{World: rowgen.NewWorld(), Outcomes: map[string]*Outcome{}, Ends: map[string]int64{}}
	e.World.ByEventTime = s.ByEventTime
	return e
}

// expect reads the sources and applies what they hold to a world, partition by partition.
func (h *House) expect(ctx context.Context, s *Story) (*expected, error) {
	e := newExpected(s)
	for _, topic := range h.Sources {
		ends, err := Ends(ctx, h.Brokers, topic)
		if err != nil {
			return nil, err
		}
		for p, end := range ends {
			e.Ends[place(topic, p)] = end
			from := int64(0)
			for _, g := range s.Gone {
				if g.Topic == topic && g.Partition == p {
					for _, o := range g.Outcomes {
						if o.Log.Offset >= from && (o.Log.Offset < g.Unread || o.Log.Offset >= g.To) {
							e.add(o.Record, o.Log)
						}
					}
					from = g.To
				}
			}
			for r, err := range Log(ctx, h.Brokers, topic, p, end, false) {
				if err != nil {
					return nil, err
				}
				if r.Offset < from {
					continue // read before it was deleted
				}
				rec, err := s.find(r)
				if err != nil {
					return nil, err
				}
				e.add(rec, r)
			}
		}
	}
	if len(e.Outcomes) == 0 {
		return nil, errors.New("nothing is in the source topics")
	}
	return e, nil
}

// Read returns what stands in a partition below end: to be kept before it is deleted.
func (s *Story) Read(ctx context.Context, brokers []string, topic string, partition int32, end int64) (all []*Outcome, err error) {
	for r, err := range Log(ctx, brokers, topic, partition, end, false) {
		if err != nil {
			return nil, err
		}
		rec, err := s.find(r)
		if err != nil {
			return nil, err
		}
		all = append(all, &Outcome{Record: rec, Log: r})
	}
	return all, nil
}

func (s *Story) find(r *kgo.Record) (rowgen.Record, error) {
	rec, ok := s.Records[HeaderOf(r, Header)]
	if !ok {
		return rec, fmt.Errorf("%s: nobody sent this record", ID(r))
	}
	return rec, nil
}

// add applies the next record of a partition.
func (e *expected) add(rec rowgen.Record, r *kgo.Record) {
	o := &Outcome{Record: rec, Log: r, Errors: e.World.Apply(rec, rowgen.Source{Topic: r.Topic, Partition: int(r.Partition), Offset: r.Offset})}
	if rec.Tracking != nil {
		o.Event = e.World.Tracking[rec.Tracking.TrackingKey]
	}
	if o.Errors == nil {
		o.Log = lean(r)
	}
	o.Record.Value = nil // the log has it, where it counts
	e.Outcomes[ID(r)] = o
}

// lean returns a record without its value, and without what was read with it:
// of a long run most records are accepted, and their values are the memory.
func lean(r *kgo.Record) *kgo.Record {
	c := *r
	c.Key, c.Value, c.Context = bytes.Clone(r.Key), nil, nil
	c.Headers = slices.Clone(r.Headers)
	for i := range c.Headers {
		c.Headers[i].Value = bytes.Clone(c.Headers[i].Value)
	}
	return &c
}

func place(topic string, partition int32) string { return fmt.Sprintf("%s-%d", topic, partition) }

package e2e_test

import (
	"context"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"

	"learnsink/handlers"
	"learnsink/test/oracle"
	"learnsink/test/rowgen"
)

// story is what was sent to a house.
type story struct {
	oracle.Story
}

// tell sends n records of a generator, in its order.
func (h *house) tell(s *story, g *rowgen.Generator, n int) {
	h.Helper()
	records := make([]*kgo.Record, n)
	for i := range records {
		records[i] = h.record(s, g.Next())
	}
	if err := h.kafka.ProduceSync(context.Background(), records...).FirstErr(); err != nil {
		h.Fatal(err)
	}
}

// record notes a generated record in the story, and returns it as it is sent.
func (h *house) record(s *story, rec rowgen.Record) *kgo.Record {
	if s.Records == nil {
		s.Records = map[string]rowgen.Record{}
	}
	n := strconv.Itoa(len(s.Records))
	s.Records[n] = rec
	topic := h.tracking
	if rec.Action == handlers.Intervention {
		topic = h.intervention
	}
	return oracle.Record(topic, n, rec)
}

// check holds the whole house against the story: tables, bookkeeping and both outputs.
func (h *house) check(s *story) {
	h.Helper()
	look := &oracle.House{DB: h.db, Brokers: strings.Split(h.brokers, ","), Sources: []string{h.tracking, h.intervention}, Accepted: h.accepted, DeadLetter: h.deadLetter}
	found, err := look.Check(context.Background(), &s.Story)
	if err != nil {
		h.Fatal(err)
	}
	if len(found.Faults) > 0 {
		h.Error(found)
	}
	for topic, n := range found.Repeats {
		h.Logf("%s: %d records are there again", topic, n)
	}
	if out, code := h.try("", "audit", "--deep"); code != 0 {
		h.Errorf("audit --deep: exit %d\n%s", code, out)
	}
}

// cut keeps a failure readable.
func cut(s string) string { return s[:min(len(s), 3000)] }

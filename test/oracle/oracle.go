// Package oracle holds a whole installation against what its senders told it:
// the tables to the column, the bookkeeping, and both outputs with key,
// partition, order, headers and value. The truth is the log of the sources
// itself, read by franz-go, never by the client that learnsink uses; what must
// become of a record of it, rowgen knows.
//
// What it finds are faults. An error means that it could not look: that is
// neither good nor bad, and no test may take it for good.
package oracle

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgxpool"

	"learnsink/test/rowgen"
)

// House is an installation to look at.
type House struct {
	DB      *pgxpool.Pool
	Brokers []string
	// Sources are its source topics; Accepted and DeadLetter where its outputs go.
	Sources              []string
	Accepted, DeadLetter string
	// Apart are topics whose rows somebody else answers for: they are about
	// learners of their own, and go to outputs of their own.
	Apart []string
}

// apart is Apart as a query takes it: never NULL.
func (h *House) apart() []string { return append([]string{}, h.Apart...) }

// Story is what was sent to a house.
type Story struct {
	// Records are found again by the header of that name.
	Records map[string]rowgen.Record
	// ByEventTime: the sources say `order: event-time`.
	ByEventTime bool
	// Repeats: outputs may be there more than once, the first one counts.
	Repeats bool
	// Gone is what was deleted from the logs, and so cannot be read there
	// any more. None: the logs hold all that ever was in them.
	Gone []Gone
}

// Gone is the beginning of a partition's log, as it was read before it was
// deleted.
type Gone struct {
	Outcomes []*Outcome
	// Topic, Partition, Unread, To: offsets from Unread up to To were deleted
	// before learnsink had read them. They have no outcome.
	Topic      string
	Partition  int32
	Unread, To int64
}

// Header is the name of the header that names a record in its Story.
const Header = "story"

// Findings are what is not as it must be.
type Findings struct {
	Faults []string
	More   int // faults beyond those
	// Repeats: by topic, how many outputs were there again.
	Repeats map[string]int
	// Records is how many records of the sources had an outcome to be looked for.
	Records int
}

// most is how many faults are kept: one cause often has thousands.
const most = 50

func (f *Findings) faultf(format string, args ...any) {
	if len(f.Faults) == most {
		f.More++
		return
	}
	f.Faults = append(f.Faults, fmt.Sprintf(format, args...))
}

// String lists the faults.
func (f *Findings) String() string {
	text := strings.Join(f.Faults, "\n")
	if f.More > 0 {
		text += fmt.Sprintf("\nand %d more", f.More)
	}
	return text
}

// Check holds the whole house against the story. The house is at rest: all has
// been applied and published.
func (h *House) Check(ctx context.Context, s *Story) (*Findings, error) {
	e, err := h.expect(ctx, s)
	if err != nil {
		return nil, err
	}
	ids, err := h.catalog(ctx)
	if err != nil {
		return nil, err
	}
	f := &Findings{Repeats: map[string]int{}, Records: len(e.Outcomes)}
	for _, look := range []func(context.Context, *expected, *Findings) error{
		h.tracking, h.interventions, h.rejections, h.positions, h.ledger,
	} {
		if err := look(ctx, e, f); err != nil {
			return nil, err
		}
	}
	for _, o := range outputsOf(h.Accepted, h.DeadLetter, ids) {
		o.expected, o.Findings, o.repeats = e, f, s.Repeats
		if err := h.read(ctx, o); err != nil {
			return nil, err
		}
	}
	return f, nil
}

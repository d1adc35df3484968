package main

import (
	"context"
	"fmt"
	"math/bits"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"learnsink/consumer"
	"learnsink/handlers"
	"learnsink/store"
)

// auditCommand is `audit`: proves that nothing is lost and nothing is twice.
func (a *app) auditCommand() *cobra.Command {
	var deep bool
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "prove the books, and with --deep the topics",
		Long: `audit proves, in one snapshot of the database, that every position sums up, that the
ledger leads up to it without a gap, and that every rejection has its row.

--deep also reads the source topics and the outputs, and proves that each row below the
positions has exactly one outcome there: an accepted event or a dead letter, of its own
id. A repeat of the same outcome, which publish: at-least-once may leave after a crash, is
counted and is no fault. It exits with 3 if it finds a fault.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.load()
			if err != nil {
				return err
			}
			db, err := c.openStore(cmd.Context())
			if err != nil {
				return err
			}
			defer db.Close()
			findings, err := db.Audit(cmd.Context(), store.AuditOptions{Retention: c.Retention})
			if err != nil {
				return err
			}
			var faults []string
			for _, f := range findings {
				faults = append(faults, f.String())
			}
			positions, err := db.Positions(cmd.Context())
			if err != nil {
				return err
			}
			var accepted, rejected, skipped int64
			for _, p := range positions {
				accepted, rejected, skipped = accepted+p.Accepted, rejected+p.Rejected, skipped+p.Skipped
			}
			fmt.Fprintf(a.stdout, "database: %d partitions, %d accepted, %d rejected, %d skipped; faults: %d\n",
				len(positions), accepted, rejected, skipped, len(faults))
			if deep {
				if err := a.awaitOutbox(cmd.Context(), db, positions); err != nil {
					return err
				}
				found, err := a.auditTopics(cmd.Context(), c, positions)
				if err != nil {
					return err
				}
				faults = append(faults, found...)
			}
			for _, f := range faults {
				fmt.Fprintln(a.stdout, f)
			}
			if len(faults) > 0 {
				return errFault
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&deep, "deep", false, "read the topics too, and prove that each outcome is there exactly once")
	return cmd
}

// awaitOutbox waits for what is below the positions to be published, while
// somebody is at it: an idle consumer takes a second to drop what it has published.
func (a *app) awaitOutbox(ctx context.Context, db *store.Store, positions []handlers.Position) error {
	next := map[handlers.TopicPartition]int64{}
	for _, p := range positions {
		next[p.TopicPartition] = p.NextOffset
	}
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for range 40 {
		pending, err := db.OutboxPending(ctx)
		if err != nil {
			return err
		}
		open := slices.ContainsFunc(pending, func(o store.OutboxStatus) bool { return o.From < next[o.TopicPartition] })
		if !open {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	a.warn("the outbox has batches that nobody seems to publish: is learnsink serve running?")
	return nil
}

// auditTopics reads the sources and the outputs and holds them against the
// positions, which were read before: what is applied meanwhile is beyond them.
func (a *app) auditTopics(ctx context.Context, c *config, positions []handlers.Position) (faults []string, err error) {
	client, err := c.client()
	if err != nil {
		return nil, err
	}
	defer client.Close()
	books := map[handlers.TopicPartition]*book{}
	outputs := map[string]bool{} // topic -> holds accepted events; a topic holds one kind
	for _, s := range c.Sources {
		outputs[s.AcceptedTopic], outputs[s.DeadLetterTopic] = true, false
	}
	for _, p := range positions {
		for _, s := range c.Sources {
			if s.Topic == p.Topic {
				books[p.TopicPartition] = &book{position: p}
			}
		}
		if books[p.TopicPartition] == nil {
			a.warn("%s/%d is no source of this configuration: its topics are not read", p.Topic, p.Partition)
		}
	}
	for _, b := range books {
		if err := b.readSource(ctx, client); err != nil {
			return nil, err
		}
	}
	for topic, accepted := range outputs {
		ends, err := offsets(ctx, client.StableOffsets, topic)
		if err != nil {
			return nil, err
		}
		starts, err := offsets(ctx, client.StartOffsets, topic)
		if err != nil {
			return nil, err
		}
		for partition, end := range ends {
			if starts[partition] > 0 {
				a.warn("%s/%d holds nothing before offset %d: outcomes that were there count as missing", topic, partition, starts[partition])
			}
			err := client.ReadRange(ctx, topic, partition, starts[partition], end, func(r *handlers.Record) error {
				faults = append(faults, noteOutcome(books, r, accepted)...)
				return nil
			})
			if err != nil {
				return nil, err
			}
		}
	}
	var rows, repeats int64
	for _, p := range positions {
		if b := books[p.TopicPartition]; b != nil {
			faults = append(faults, b.faults()...)
			rows, repeats = rows+b.accepted.count()+b.rejected.count(), repeats+b.repeats
		}
	}
	fmt.Fprintf(a.stdout, "topics: %d rows have their outcome; repeats: %d; faults: %d\n", rows, repeats, len(faults))
	return faults, nil
}

// noteOutcome enters an output into the book of its source partition.
func noteOutcome(books map[handlers.TopicPartition]*book, r *handlers.Record, accepted bool) []string {
	header := map[bool]string{true: "ce_id", false: "learnsink.id"}[accepted]
	id, ok := r.Header(header)
	if !ok {
		return []string{fmt.Sprintf("%s/%d offset %d: a record without %s", r.Topic, r.Partition, r.Offset, header)}
	}
	tp, offset, ok := parseID(string(id))
	b := books[tp]
	switch {
	case !ok:
		return []string{fmt.Sprintf("%s/%d offset %d: %s is no id of an outcome", r.Topic, r.Partition, r.Offset, id)}
	case b == nil: // of a source that another configuration has
	case offset < b.position.FirstOffset || offset >= max(b.end, b.position.NextOffset):
		return []string{fmt.Sprintf("%s/%d offset %d: an outcome of %s, which is no row", r.Topic, r.Partition, r.Offset, id)}
	default:
		b.note(offset, accepted)
	}
	return nil
}

// book is what is known of the offsets of one source partition, a bit each.
type book struct {
	position           handlers.Position
	rows               bitmap // the log holds a row, or a tombstone that may be ignored
	tombstones         bitmap
	accepted, rejected bitmap // an outcome is in the outputs
	repeats            int64
	// What the log holds: [start, end). What lies between the position and
	// end may have been applied since the position was read.
	start, end int64
}

// readSource enters the rows that the log still holds.
func (b *book) readSource(ctx context.Context, client *consumer.Client) error {
	p := b.position
	starts, err := offsets(ctx, client.StartOffsets, p.Topic)
	if err != nil {
		return err
	}
	ends, err := offsets(ctx, client.EndOffsets, p.Topic)
	if err != nil {
		return err
	}
	b.start, b.end = max(starts[p.Partition], p.FirstOffset), ends[p.Partition]
	return client.ReadRange(ctx, p.Topic, p.Partition, b.start, min(p.NextOffset, b.end), func(r *handlers.Record) error {
		if len(r.Value) == 0 {
			b.tombstones.set(r.Offset - p.FirstOffset)
		}
		b.rows.set(r.Offset - p.FirstOffset)
		return nil
	})
}

func (b *book) note(offset int64, accepted bool) {
	if offset >= b.position.NextOffset {
		return // applied since the position was read
	}
	at, to := offset-b.position.FirstOffset, &b.rejected
	if accepted {
		to = &b.accepted
	}
	if to.has(at) {
		b.repeats++
	}
	to.set(at)
}

// faults says what the books and the topics do not agree on.
func (b *book) faults() (faults []string) {
	p := b.position
	fault := func(offset int64, format string, args ...any) {
		const most = 20
		if len(faults) < most {
			faults = append(faults, fmt.Sprintf("%s/%d offset %d: ", p.Topic, p.Partition, offset)+fmt.Sprintf(format, args...))
		} else if len(faults) == most {
			faults = append(faults, fmt.Sprintf("%s/%d: and more", p.Topic, p.Partition))
		}
	}
	for offset := p.FirstOffset; offset < p.NextOffset; offset++ {
		at := offset - p.FirstOffset
		accepted, rejected := b.accepted.has(at), b.rejected.has(at)
		switch {
		case accepted && rejected:
			fault(offset, "has both an accepted event and a dead letter")
		case (accepted || rejected) && offset >= b.start && offset < b.end && !b.rows.has(at):
			fault(offset, "has an outcome, and is no row")
		case !accepted && !rejected && b.rows.has(at) && !b.tombstones.has(at):
			fault(offset, "is a row without an outcome")
		}
	}
	if n := b.accepted.count(); n != p.Accepted {
		fault(p.NextOffset, "up to here %d rows were accepted, %d accepted events are there", p.Accepted, n)
	}
	if n := b.rejected.count(); n != p.Rejected {
		fault(p.NextOffset, "up to here %d rows were rejected, %d dead letters are there", p.Rejected, n)
	}
	return faults
}

// bitmap is a set of small numbers.
type bitmap []uint64

func (m *bitmap) set(i int64) {
	for int64(len(*m)) <= i/64 {
		*m = append(*m, make([]uint64, max(1, len(*m)))...)
	}
	(*m)[i/64] |= 1 << (i % 64)
}

func (m bitmap) has(i int64) bool { return i/64 < int64(len(m)) && m[i/64]&(1<<(i%64)) != 0 }

func (m bitmap) count() (n int64) {
	for _, word := range m {
		n += int64(bits.OnesCount64(word))
	}
	return n
}

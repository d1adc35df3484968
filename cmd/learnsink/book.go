package main

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"learnsink/handlers"
	"learnsink/store"
)

// book is what is known of the offsets of one log of a source partition, a
// bit each.
type book struct {
	log      store.Log
	source   *handlers.Source
	replays  *handlers.Replays // nil but of the replay topic, whose rows name their sources
	position handlers.Position
	outputs  map[bool][]*output // by whether they hold accepted events
	// [first, next) was dealt with, in these stretches.
	first, next int64
	stretches   []stretch

	// What the tables say: rejected rows, as far as rejections are kept: those
	// of offsets from kept on.
	rejected bitmap
	kept     int64
	// Rows that went into the waiting room. What became of them is the outcome
	// of another record, on the replay topic.
	waited bitmap
	// Rows that may have waited before an operator set the position back over
	// them: then they had no outcome.
	mayHaveWaited bitmap
	// What the outputs hold, by whether it is an accepted event.
	seen   map[bool]tally
	beyond beyond
	// What the log holds: [start, end).
	start, end int64
	rows       bitmap
	// Rows whose outcome is not there, and that this is no fault of.
	absent bitmap
	// Batches with rows of erased persons, and how many of those are still to be met.
	erased []store.ErasedRows

	counts    counts
	forgotten map[kind]forgotten
	faults    faults
}

// counts is what a book comes to.
type counts struct {
	outcomes int64 // rows that have theirs
	repeats  int64 // of the same outcome, without an operator
	again    int64 // announced again by an operator
	silent   int64 // judged anew by an operator's will, and announced as they were before or never
	skipped  int64 // rows that an operator has skipped
	waited   int64 // rows that went into the waiting room
	unseen   int64 // rows that the log holds no longer
	erased   int64 // rows of persons who were erased
}

// beyond is an outcome of an offset that was not dealt with when the position was read.
type beyond struct {
	offset int64
	place  string
}

// kind is what became of a row.
type kind string

const (
	isAccepted kind = "accepted "
	isRejected kind = "rejected "
	isWaiting  kind = "waiting "
	isEither   kind = "" // its rejection, if it was one, is no longer kept
)

// forgotten counts rows whose outcomes the outputs no longer hold.
type forgotten struct{ rows, below int64 }

func newBook(log store.Log, source *handlers.Source, p handlers.Position, all []stretch) *book {
	b := &book{log: log, source: source, position: p, stretches: all, first: p.FirstOffset, next: p.NextOffset,
		rejected: bitmap{}, waited: bitmap{}, mayHaveWaited: bitmap{}, kept: math.MaxInt64, rows: bitmap{}, absent: bitmap{},
		seen: map[bool]tally{}, outputs: map[bool][]*output{}, forgotten: map[kind]forgotten{}}
	if len(all) > 0 {
		b.first, b.next = all[0].from, all[len(all)-1].to
	}
	b.start, b.end = b.next, b.next
	b.faults.place = fmt.Sprintf("%s/%d", b.name(), log.Partition)
	return b
}

// name is the topic's, as ids have it.
func (b *book) name() string { return idTopic(b.log.Topic, b.log.Incarnation) }

// readable: the topic holds this log, and no other.
func (b *book) readable() bool {
	return b.log.Incarnation == b.position.Incarnation && b.position.State != handlers.LogDiverged
}

// readTables reads what the database says of single offsets.
func (b *book) readTables(ctx context.Context, db *store.Store, retention time.Duration) error {
	kept, ok, err := db.JudgedSince(ctx, b.log, time.Now().Add(-retention))
	if err != nil {
		return err
	}
	if ok {
		b.kept = kept
	}
	if b.erased, err = db.ErasedRows(ctx, b.log, b.first, b.next); err != nil {
		return err
	}
	rejected, waited, err := db.RejectedOffsets(ctx, b.log, b.first, b.next)
	for _, offset := range rejected {
		b.rejected.set(offset - b.first)
	}
	for _, offset := range waited {
		b.waited.set(offset - b.first)
	}
	if err != nil {
		return err
	}
	before, err := db.WaitedBefore(ctx, b.log)
	for _, run := range before {
		for offset := max(run[0], b.first); offset < min(run[1], b.next); offset++ {
			b.mayHaveWaited.set(offset - b.first)
		}
	}
	return err
}

// kind is what the tables say became of a row.
func (b *book) kind(offset int64) kind {
	switch {
	case b.rejected.has(offset - b.first):
		return isRejected
	case b.waited.has(offset - b.first):
		return isWaiting
	case offset >= b.kept:
		return isAccepted
	}
	return isEither
}

// outcome enters an outcome that an output holds.
func (b *book) outcome(offset int64, accepted bool) {
	seen := b.seen[accepted]
	seen.add(offset - b.first)
	b.seen[accepted] = seen
}

func (b *book) has(offset int64) bool {
	return b.seen[true].of(offset-b.first) > 0 || b.seen[false].of(offset-b.first) > 0
}

// row enters a row of the log, and sees to it that its outcome is there. lane
// tells in which partition of an output it belongs.
func (b *book) row(r *handlers.Record, laneOf func(*output) int) {
	at, offset := r.Offset-b.first, r.Offset
	b.rows.set(at)
	s := stretchAt(b.stretches, offset)
	switch {
	case !s.judged:
		b.counts.skipped++
	case b.kind(offset) == isWaiting && !b.has(offset):
		b.counts.waited++
	case b.has(offset), len(r.Value) == 0 && b.kind(offset) != isRejected: // a tombstone may be ignored
	case b.ofErased(offset):
		b.counts.erased++
	case s.announced == 0, s.silent && b.mayHaveWaited.has(at):
		b.counts.silent++
	default:
		is := b.kind(offset)
		if b.lost(r, is, laneOf) {
			b.absent.set(at)
			b.forget(is, 1, offset+1)
		} else {
			b.faults.add(offset, "is a row without an outcome")
		}
	}
}

// ofErased reports whether a row without an outcome is one of those that the
// ledger says are of erased persons, and counts it among them.
func (b *book) ofErased(offset int64) bool {
	i, found := slices.BinarySearchFunc(b.erased, offset, func(e store.ErasedRows, offset int64) int {
		switch {
		case e.To <= offset:
			return -1
		case e.From > offset:
			return 1
		}
		return 0
	})
	if !found || b.erased[i].Rows == 0 {
		return false
	}
	b.erased[i].Rows--
	return true
}

// judgeErased says where the ledger counts rows of erased persons, and the
// topics have an outcome of them.
func (b *book) judgeErased() {
	for _, e := range b.erased {
		s := stretchAt(b.stretches, e.From)
		if e.Rows > 0 && e.From >= b.start && e.To <= min(b.end, s.to) && s.announced == 1 && !s.silent {
			b.faults.add(e.From, "from here to offset %d the ledger counts rows of erased persons without an outcome, and %d of them have one", e.To, e.Rows)
		}
	}
}

// lost reports whether the output that would hold a row's outcome may have
// forgotten it. Nothing of this log that its partition holds is older; and the
// output has forgotten outcomes that young. (A partition alone does not say it:
// with more of them than there were, the key's is another.)
func (b *book) lost(r *handlers.Record, is kind, laneOf func(*output) int) bool {
	source := b.source
	if b.replays != nil {
		source = b.replays.Of(r).Source
	}
	for _, o := range b.outputsOf(is) {
		if b.replays != nil && o.topic != source.AcceptedTopic && o.topic != source.DeadLetterTopic {
			continue
		}
		if l := o.lanes[laneOf(o)]; l != nil && r.Offset < l.from(b) && r.Offset < o.horizon(b) {
			return true
		}
	}
	return false
}

// outputsOf returns the outputs that may hold an outcome of a kind: one of
// each, or, of the replay topic, those of every source.
func (b *book) outputsOf(is kind) (all []*output) {
	if is != isRejected {
		all = append(all, b.outputs[true]...)
	}
	if is != isAccepted {
		all = append(all, b.outputs[false]...)
	}
	return all
}

// horizon is the offset from which on the outputs hold all outcomes of a kind.
func (b *book) horizon(is kind) (horizon int64) {
	for _, o := range b.outputsOf(is) {
		horizon = max(horizon, o.horizon(b))
	}
	return horizon
}

func (b *book) forget(is kind, rows, below int64) {
	f := b.forgotten[is]
	b.forgotten[is] = forgotten{f.rows + rows, max(f.below, below)}
}

// judge says what books and topics do not agree on.
func (b *book) judge(ctx context.Context, db *store.Store, exactly bool) error {
	for _, s := range b.stretches {
		if !s.judged {
			continue
		}
		for offset := s.from; offset < s.to; offset++ {
			b.judgeOffset(s, offset, exactly)
		}
	}
	b.judgeErased()
	if b.first >= b.start {
		return nil
	}
	return db.Ledger(ctx, b.log, b.first, b.start, func(l store.LedgerLine) error {
		b.judgeLine(l)
		return nil
	})
}

// judgeOffset judges the outcomes that are there of one offset.
func (b *book) judgeOffset(s stretch, offset int64, exactly bool) {
	at := offset - b.first
	accepted, rejected := b.seen[true].of(at), b.seen[false].of(at)
	n := accepted + rejected
	if n == 0 {
		return
	}
	b.counts.outcomes++
	if offset >= b.start && offset < b.end && !b.rows.has(at) {
		b.faults.add(offset, "has an outcome, and is no row")
	}
	if accepted > 0 && rejected > 0 && s.announced < 2 {
		b.faults.add(offset, "has both an accepted event and a dead letter")
	}
	if more := n - max(s.announced, 1); more > 0 && exactly {
		b.faults.add(offset, "has %d outcomes, and was announced %d times", n, s.announced)
	} else {
		b.counts.repeats += int64(max(more, 0))
		b.counts.again += int64(min(n, max(s.announced, 1)) - 1)
	}
	b.judgeKind(s, offset, accepted > 0, rejected > 0)
}

// judgeKind holds the kind of an outcome against the table.
func (b *book) judgeKind(s stretch, offset int64, accepted, rejected bool) {
	is := b.kind(offset)
	switch {
	case is == isEither, is == isAccepted && accepted, is == isRejected && rejected:
	case s.silent:
		b.counts.silent++
	case is == isWaiting && s.announced > 1: // the last time there was nothing to announce
	case is == isWaiting:
		b.faults.add(offset, "has an outcome, and went into the waiting room")
	case s.announced > 1 && offset < b.horizon(is): // what agreed is forgotten
	case is == isAccepted:
		b.faults.add(offset, "has a dead letter, and no line in the table rejection")
	default:
		b.faults.add(offset, "has an accepted event, and a line in the table rejection")
	}
}

// judgeLine holds the outcomes of a batch against its ledger line, where the
// log no longer says which offsets are rows.
func (b *book) judgeLine(l store.LedgerLine) {
	s := stretchAt(b.stretches, l.From)
	if l.End < l.To || l.Accepted+l.Rejected == 0 || !s.judged || s.announced == 0 || s.to < l.To {
		return // of a part of a batch the line counts nothing
	}
	from, to := l.From-b.first, l.To-b.first
	b.counts.unseen += min(l.Accepted+l.Rejected, b.start-l.From)
	accepted, rejected := b.seen[true].count(from, to), b.seen[false].count(from, to)
	if s.announced > 1 || s.silent || b.absent.count(from, to) > 0 { // kinds may differ: only the sum holds
		both := int64(0)
		for i := from; i < to; i++ {
			if b.seen[true].of(i) > 0 && b.seen[false].of(i) > 0 {
				both++
			}
		}
		b.judgeSum(l, isEither, l.Accepted+l.Rejected, accepted+rejected-both+b.absent.count(from, to))
		return
	}
	b.judgeSum(l, isAccepted, l.Accepted, accepted)
	b.judgeSum(l, isRejected, l.Rejected, rejected)
}

func (b *book) judgeSum(l store.LedgerLine, is kind, want, got int64) {
	horizon := b.horizon(is)
	switch {
	case got == want:
	case got < want && l.From < horizon:
		b.forget(is, want-got, min(horizon, l.To))
	default:
		b.faults.add(l.From, "from here to offset %d the ledger counts %d %srows, the topics hold %d", l.To, want, is, got)
	}
}

// faults are what is wrong with one log: some of them in words.
type faults struct {
	place string
	lines []string
	more  int
}

// add names a fault of an offset.
func (f *faults) add(offset int64, format string, args ...any) {
	if len(f.lines) == 20 {
		f.more++
		return
	}
	f.lines = append(f.lines, fmt.Sprintf("%s offset %d: ", f.place, offset)+fmt.Sprintf(format, args...))
}

func (f *faults) all() []string {
	if f.more == 0 {
		return f.lines
	}
	return append(f.lines, fmt.Sprintf("%s: and %d more", f.place, f.more))
}

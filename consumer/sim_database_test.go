package consumer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"learnsink/handlers"
)

// simDatabase is what PostgreSQL holds, by the rules of package store. A
// transaction has a row lock from its first statement to its end; everything
// else is one statement, which waits for the lock and happens at one moment.
type simDatabase struct {
	world      *simWorld
	catalogue  int64 // its version; 0: none was ever loaded
	partitions map[handlers.TopicPartition]*simPartition
	stored     map[handlers.TrackingKey]handlers.Stored
	lines      map[string]simLine // of the table rejection, by id

	// What has to be stored, by learner, and under which key.
	model map[int]simPlace
	keys  map[int]handlers.TrackingKey

	locks map[handlers.TopicPartition]*simTx
	life  int // raised when it is another server that answers
}

// simPartition is what the database holds of one source partition.
type simPartition struct {
	handlers.Position
	outcomes []handlers.Verdict // by offset; 0: none
	skipped  []bool             // by offset: an operator has left it out
	owed     []int              // by offset: how often it is to be announced at least
	outbox   []simEntry
}

// simEntry is an outbox entry, and the offsets that it announces.
type simEntry struct {
	handlers.OutboxEntry
	offsets []int64
}

// simTx is an open transaction of one batch.
type simTx struct {
	tp    handlers.TopicPartition
	life  int
	write func()
	keys  map[handlers.TrackingKey]handlers.Stored // that it has locked
	ended chan struct{}                            // closed then
}

func newSimDatabase(w *simWorld) *simDatabase {
	return &simDatabase{world: w, catalogue: 1, partitions: map[handlers.TopicPartition]*simPartition{},
		stored: map[handlers.TrackingKey]handlers.Stored{}, lines: map[string]simLine{}, model: map[int]simPlace{}, keys: map[int]handlers.TrackingKey{}, locks: map[handlers.TopicPartition]*simTx{}}
}

// errLocked: the statement waits for the row's lock.
type errLocked struct{ ended chan struct{} }

func (errLocked) Error() string { return "locked" }

// row is a partition's row, once it is not locked.
func (d *simDatabase) row(tp handlers.TopicPartition) (*simPartition, error) {
	if tx := d.locks[tp]; tx != nil {
		d.world.came("database: a row lock is waited for")
		return nil, errLocked{tx.ended}
	}
	return d.partitions[tp], nil
}

func (p *simPartition) extend(to int64) {
	for int64(len(p.outcomes)) < to {
		p.outcomes, p.skipped, p.owed = append(p.outcomes, 0), append(p.skipped, false), append(p.owed, 1)
	}
}

func (p *simPartition) drop(through int64) {
	p.outbox = slices.DeleteFunc(p.outbox, func(e simEntry) bool { return e.To <= through })
}

// snapshot is a copy of everything that a backup holds.
func (d *simDatabase) snapshot() *simDatabase {
	copied := &simDatabase{catalogue: d.catalogue, partitions: map[handlers.TopicPartition]*simPartition{}, stored: maps.Clone(d.stored),
		lines: maps.Clone(d.lines), model: maps.Clone(d.model), keys: maps.Clone(d.keys)}
	for tp, p := range d.partitions {
		copied.partitions[tp] = p.clone()
	}
	return copied
}

func (p *simPartition) clone() *simPartition {
	c := *p
	c.outcomes, c.skipped, c.owed, c.outbox = slices.Clone(p.outcomes), slices.Clone(p.skipped), slices.Clone(p.owed), slices.Clone(p.outbox)
	return &c
}

// goBack makes the database what it was at the snapshot; what is on its way to
// the old server is lost.
func (d *simDatabase) goBack(to *simDatabase) {
	to = to.snapshot()
	d.partitions, d.stored, d.lines, d.model, d.keys = to.partitions, to.stored, to.lines, to.model, to.keys
	d.catalogue = max(d.catalogue, to.catalogue) + 1
	d.life++
	for tp := range d.locks {
		d.unlock(tp)
	}
}

func (d *simDatabase) unlock(tp handlers.TopicPartition) {
	close(d.locks[tp].ended)
	delete(d.locks, tp)
}

// simStore is the database as a pipeline of one process reaches it.
type simStore struct{ *simPart }

// Claim is one statement.
func (s simStore) Claim(ctx context.Context, tp handlers.TopicPartition, clusterID string, start int64) (handlers.Position, error) {
	d := s.world.database
	return call(ctx, s.simPart, atDatabase, fmt.Sprint("claim ", tp.Partition), func() (handlers.Position, error) {
		p, err := d.row(tp)
		if err != nil {
			return handlers.Position{}, err
		}
		if p == nil {
			p = &simPartition{Position: handlers.Position{TopicPartition: tp, ClusterID: clusterID, FirstOffset: start, NextOffset: start,
				State: handlers.Running, Round: 1, AnnouncedSince: 1, Incarnation: 1}}
			p.extend(start)
			for o := range start {
				p.skipped[o] = true
			}
			d.partitions[tp] = p
			s.world.truths[tp].apply(p)
		}
		if p.ClusterID != clusterID {
			return handlers.Position{}, handlers.ErrClusterChanged
		}
		p.Epoch = max(p.Epoch+1, time.Now().UnixMicro())
		return p.Position, nil
	})
}

// Facts is one statement.
func (s simStore) Facts(ctx context.Context, refs *handlers.References) (*handlers.Facts, error) {
	d := s.world.database
	return call(ctx, s.simPart, atDatabase, "facts", func() (*handlers.Facts, error) {
		if d.catalogue == 0 {
			s.world.came("database: no catalogue")
			return nil, handlers.ErrNoCatalogue
		}
		facts := s.world.catalogue.Facts(refs)
		facts.Version = d.catalogue
		return facts, nil
	})
}

// Apply is a transaction: what it reads and decides under the lock of the
// position's row, and COMMIT. Where the world says so a lost reply to COMMIT is
// looked into here, as package store does; else the caller is told that it is
// unknown, which store does only where its context ends.
func (s simStore) Apply(ctx context.Context, b *handlers.Batch) (err error) {
	d, tp := s.world.database, b.TopicPartition()
	undecided := slices.Clone(b.Decisions)
	defer func() {
		if err != nil {
			copy(b.Decisions, undecided)
		}
	}()
	for {
		copy(b.Decisions, undecided)
		tx, err := call(ctx, s.simPart, atDatabase, fmt.Sprint("apply ", tp.Partition), func() (*simTx, error) { return d.begin(b) })
		if err != nil {
			return err
		}
		_, err = call(context.WithoutCancel(ctx), s.simPart, atDatabase, fmt.Sprint("COMMIT ", tp.Partition), func() (struct{}, error) { return struct{}{}, d.commit(tx) })
		if err == nil || errors.Is(err, errRolledBack) || !s.world.resolves {
			return err
		}
		committed, err := s.resolve(ctx, b)
		if committed || err != nil {
			return err
		}
	}
}

// resolve is store's: the position tells what became of a COMMIT, once its row
// can be locked.
func (s simStore) resolve(ctx context.Context, b *handlers.Batch) (committed bool, err error) {
	s.world.do("", func() { s.world.came("database: a lost COMMIT is looked into") })
	for {
		at, err := call(ctx, s.simPart, atDatabase, fmt.Sprint("resolve ", b.Partition), func() (handlers.Position, error) {
			p, err := s.world.database.row(b.TopicPartition())
			if err != nil || p == nil {
				return handlers.Position{}, err
			}
			return p.Position, nil
		})
		switch {
		case ctx.Err() != nil || errors.Is(err, errDead):
			return false, err
		case err != nil:
			pause(ctx, 50*time.Millisecond)
			continue
		case at.Epoch != b.Epoch:
			return false, handlers.ErrFenced
		case at.NextOffset == b.To:
			return true, nil
		case at.NextOffset != b.From:
			return false, handlers.ErrMoved
		}
		return false, nil
	}
}

// begin is everything of an apply but its end.
func (d *simDatabase) begin(b *handlers.Batch) (*simTx, error) {
	w, tp := d.world, b.TopicPartition()
	p, err := d.row(tp)
	switch {
	case err != nil:
		return nil, err
	case p == nil:
		return nil, handlers.ErrMoved
	case p.Epoch != b.Epoch:
		w.came("database: a batch of an older epoch")
		return nil, handlers.ErrFenced
	case p.State.Held():
		return nil, handlers.ErrHeld
	case p.NextOffset != b.From:
		return nil, handlers.ErrMoved
	case d.catalogue != b.FactsVersion && len(b.Decisions) > 0:
		w.came("database: stale facts")
		return nil, handlers.ErrStaleFacts
	}
	// Every key of the batch is locked, or none is yet.
	for i := range b.Decisions {
		row := b.Decisions[i].Tracking
		for _, other := range d.locks {
			if row == nil {
				break
			}
			if _, locked := other.keys[row.TrackingKey]; locked {
				w.came("database: a key's lock is waited for")
				return nil, errLocked{other.ended}
			}
		}
	}
	stored := map[handlers.TrackingKey]handlers.Stored{}
	after := p.clone()
	after.extend(b.To)
	for i := range b.Decisions {
		decision := &b.Decisions[i]
		if row := decision.Tracking; row != nil {
			was, seen := stored[row.TrackingKey]
			if !seen {
				was = d.stored[row.TrackingKey]
			}
			now := decision.Settle(b.Source.ByEventTime, was)
			if decision.Verdict == handlers.Accepted { // the statement says where all of its rows come from
				now.SourceTopic, now.SourcePartition = b.RowsFrom().Topic, b.RowsFrom().Partition
			}
			stored[row.TrackingKey] = now
		}
		offset := decision.Record.Offset
		if offset < b.From || offset >= b.To || after.outcomes[offset] != 0 {
			w.violated("offset %d in a batch of %d to %d has the outcome %d already", offset, b.From, b.To, after.outcomes[offset])
			return nil, errRolledBack
		}
		after.outcomes[offset] = decision.Verdict
		switch decision.Verdict {
		case handlers.Accepted:
			after.Accepted++
		case handlers.Waits:
			w.came("database: a row waits")
			after.Waiting++
		default:
			after.Rejected++
		}
	}
	after.Skipped += b.To - b.From - int64(len(b.Decisions))
	after.NextOffset = b.To
	if b.Anchor.OK {
		after.Anchor = b.Anchor
	}
	payload, err := b.Encode(b.Decisions)
	if err != nil {
		return nil, err
	}
	entry := simEntry{OutboxEntry: handlers.OutboxEntry{From: b.From, To: b.To, Payload: bytes.Clone(payload), At: time.Now()}}
	outputs, err := decodePayload(payload, &decompressor{})
	if err != nil {
		w.violated("%v", err)
	}
	for _, o := range outputs {
		id, err := publicationOf(lane{topic: o.topic}, &handlers.Record{Headers: o.forms[0].Headers})
		if err != nil {
			w.violated("%v", err)
		}
		entry.offsets = append(entry.offsets, id.offset)
	}
	published, decisions := b.Published, slices.Clone(b.Decisions)

	tx := &simTx{tp: tp, life: d.life, keys: stored, ended: make(chan struct{})}
	tx.write = func() {
		if now := d.partitions[tp].Epoch; now != b.Epoch {
			w.violated("partition %d: a batch of epoch %d is applied under epoch %d", tp.Partition, b.Epoch, now)
		}
		after.outbox = slices.Clone(d.partitions[tp].outbox) // Published needs no lock of the position's row
		after.drop(published)
		if len(payload) > 0 {
			after.outbox = append(after.outbox, entry)
		}
		d.partitions[tp] = after
		maps.Copy(d.stored, stored)
		if w.replays != nil {
			d.settleLines(tp, decisions)
		}
		w.truths[tp].apply(after)
	}
	d.locks[tp] = tx
	// A transaction whose client is silent does not keep its locks for ever.
	w.later("an idle transaction is rolled back", 6*time.Second, func() {
		if d.locks[tp] == tx {
			w.came("database: an idle transaction is rolled back")
			d.unlock(tp)
		}
	})
	return tx, nil
}

var errRolledBack = errors.New("the transaction was rolled back")

// commit is the end of an apply.
func (d *simDatabase) commit(tx *simTx) error {
	if d.locks[tx.tp] != tx || d.life != tx.life {
		return errRolledBack
	}
	tx.write()
	d.unlock(tx.tp)
	return nil
}

// Pending is one statement.
func (s simStore) Pending(ctx context.Context, tp handlers.TopicPartition) ([]handlers.OutboxEntry, error) {
	return call(ctx, s.simPart, atDatabase, fmt.Sprint("pending ", tp.Partition), func() (entries []handlers.OutboxEntry, err error) {
		if p := s.world.database.partitions[tp]; p != nil {
			for _, e := range p.outbox {
				entries = append(entries, e.OutboxEntry)
			}
		}
		return entries, nil
	})
}

// Published is one statement, which looks at the position without a lock.
func (s simStore) Published(ctx context.Context, tp handlers.TopicPartition, epoch, through int64) error {
	_, err := call(ctx, s.simPart, atDatabase, fmt.Sprint("published ", tp.Partition), func() (struct{}, error) {
		p := s.world.database.partitions[tp]
		if p == nil || p.Epoch != epoch {
			return struct{}{}, handlers.ErrFenced
		}
		p.drop(through)
		if p.State.Held() {
			return struct{}{}, handlers.ErrHeld
		}
		return struct{}{}, nil
	})
	return err
}

// SetState is one statement.
func (s simStore) SetState(ctx context.Context, tp handlers.TopicPartition, epoch int64, state handlers.State, reason string) error {
	_, err := call(ctx, s.simPart, atDatabase, fmt.Sprint("state ", tp.Partition), func() (struct{}, error) {
		p, err := s.world.database.row(tp)
		switch {
		case err != nil:
			return struct{}{}, err
		case p == nil || p.Epoch != epoch:
			return struct{}{}, handlers.ErrFenced
		case !p.State.Held():
			p.State, p.StateReason = state, reason
			s.world.came("state: " + string(state))
		}
		return struct{}{}, nil
	})
	return err
}

// What operators do, as store/operation.go does it.

// hold pauses a partition.
func (d *simDatabase) hold(p *simPartition) {
	p.State, p.StateReason = handlers.Paused, "an operator wants it so"
}

// resume lets a held partition go on; what the breaker held is let on up to end.
func (d *simDatabase) resume(p *simPartition, end int64) {
	if p.State == handlers.Breaker {
		p.BreakerBelow = max(p.BreakerBelow, end)
	}
	if p.State.Held() {
		p.State, p.StateReason = handlers.Running, ""
	}
}

// set sets a position where the claim of this epoch has taken the partition
// over and published everything.
func (d *simDatabase) set(p *simPartition, epoch, to int64, republish bool, round int) (done bool) {
	if p.Epoch != epoch || len(p.outbox) > 0 || to == p.NextOffset {
		return false
	}
	if !p.State.Held() {
		p.State, p.StateReason = handlers.Running, ""
	}
	truth := d.world.truths[p.TopicPartition]
	if to > p.NextOffset {
		p.extend(to)
		for o := p.NextOffset; o < to; o++ {
			p.skipped[o] = true
		}
		p.Skipped += to - p.NextOffset
		p.NextOffset = to
		truth.apply(p)
		return true
	}
	p.Round = max(p.Round, round) + 1
	if republish {
		p.AnnouncedSince = p.Round
		truth.republished++
		// What the database has forgotten of, having gone back, is announced
		// again too.
		for o := to; o < truth.peak; o++ {
			truth.at(o).allowed++
			if o < p.NextOffset && truth.at(o).announced > 0 {
				p.owed[o] = truth.at(o).announced + 1
			}
		}
	}
	for o := to; o < int64(len(p.outcomes)); o++ {
		p.outcomes[o], p.skipped[o] = 0, false
	}
	maps.DeleteFunc(d.lines, func(_ string, l simLine) bool { return l.tp == p.TopicPartition && l.offset >= to })
	p.FirstOffset, p.NextOffset = to, to
	p.Accepted, p.Rejected, p.Waiting, p.Skipped = 0, 0, 0, 0
	return true
}

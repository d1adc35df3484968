package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"learnsink/handlers"
)

// Errors of operators' verbs.
var (
	// ErrUnpublished: the partition's outbox is not empty, so nobody knows
	// what a published marker would say of it. Nothing was changed.
	ErrUnpublished = errors.New("the partition has batches in the outbox that are not published yet")
	// ErrNoPosition: nobody has ever claimed the partition.
	ErrNoPosition = errors.New("the partition has no position: `learnsink serve` has never claimed it")
)

// The verbs that leave a line in operation.
const (
	VerbPositionSet = "position set"
	VerbPause       = "partition pause"
	VerbResume      = "partition resume"
)

// Operator is who does something, and why.
type Operator struct{ Actor, Why string }

// Operation is what an operator did: a line of the table operation.
type Operation struct {
	ID int64
	At time.Time
	Operator
	Verb string
	handlers.TopicPartition
	Detail json.RawMessage
}

// Set returns what a `position set` did; false of another verb.
func (o *Operation) Set() (set PositionSet, ok bool, err error) {
	if o.Verb != VerbPositionSet {
		return set, false, nil
	}
	if err := json.Unmarshal(o.Detail, &set); err != nil {
		return set, false, fmt.Errorf("operation %d: %w", o.ID, err)
	}
	return set, true, nil
}

// Mode is in which way a position was set.
type Mode string

// The modes.
const (
	Forward   Mode = "forward"   // offsets are skipped
	Silent    Mode = "silent"    // back: rows are applied again, and not announced again
	Republish Mode = "republish" // back: rows are applied and announced again
	NewLog    Mode = "new-log"   // onto another log of the topic's name
)

// PositionChange is where an operator sets a position.
type PositionChange struct {
	handlers.TopicPartition
	Epoch int64 // of the claim that took the partition over
	To    int64 // the next offset to apply
	// Mode: Forward is for To beyond the position; Silent and Republish are
	// for To before it.
	Mode Mode
	// ClusterID of the log; for NewLog.
	ClusterID string
	// Published is how far outputs are known to be published, where that is
	// further than the position (a marker of Kafka's); else 0.
	Published int64
	// Round of the published marker; else 0. The round that begins is a later
	// one, also where the database has gone back since.
	Round  int
	Action handlers.Action // of the source
	Operator
}

// PositionSet is what a PositionChange has done, as operation.detail has it.
type PositionSet struct {
	Mode Mode  `json:"mode"`
	From Point `json:"from"`
	To   Point `json:"to"`
	// First is the first offset of the round that stood.
	First int64 `json:"first"`
	// Published is how far the outputs of the log were published then.
	Published int64 `json:"published"`
	// Skipped offsets; Superseded ledger lines and Dropped rejections, which
	// come again as the rows are judged again.
	Skipped    int64 `json:"skipped,omitempty"`
	Superseded int64 `json:"superseded,omitempty"`
	Dropped    int64 `json:"dropped,omitempty"`
}

// Point is where a position stands.
type Point struct {
	Offset      int64          `json:"offset"`
	Round       int            `json:"round"`
	Incarnation int            `json:"incarnation"`
	Cluster     string         `json:"cluster,omitempty"` // where it changed
	State       handlers.State `json:"state,omitempty"`   // where it changed
}

// SetPosition sets a position where an operator wants it, in one transaction,
// and says what that meant. Forward it writes a ledger line of skipped offsets.
// Backward it begins a round: lines and rejections from there on count no
// longer, since the rows are judged again. Onto another log it begins an
// incarnation. The published marker moves with it, though it lies in Kafka:
// it carries a round, and counts from position.announced_since on. The state
// is running then, unless the partition is held.
//
// Returns handlers.ErrFenced where the epoch is not the partition's any more,
// ErrUnpublished and ErrNoPosition; nothing was changed then. After an error of
// the connection, where it stands is for Positions to say.
func (s *Store) SetPosition(ctx context.Context, c PositionChange) (set PositionSet, err error) {
	defer wrap(&err, "set the position")
	err = s.operating(ctx, func(tx pgx.Tx) error {
		was, err := lockedPosition(ctx, tx, c.TopicPartition)
		if err != nil {
			return err
		}
		if was.Epoch != c.Epoch {
			return handlers.ErrFenced
		}
		var pending bool
		if err := tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM learnsink.outbox WHERE topic = $1 AND partition = $2)`, c.Topic, c.Partition).Scan(&pending); err != nil {
			return err
		}
		if pending {
			return ErrUnpublished
		}
		p, err := c.apply(was)
		if err != nil {
			return err
		}
		set = PositionSet{
			Mode: c.Mode, First: was.FirstOffset, Published: max(was.NextOffset, c.Published),
			From: Point{Offset: was.NextOffset, Round: was.Round, Incarnation: was.Incarnation},
			To:   Point{Offset: p.NextOffset, Round: p.Round, Incarnation: p.Incarnation},
		}
		if was.ClusterID != p.ClusterID {
			set.From.Cluster, set.To.Cluster = was.ClusterID, p.ClusterID
		}
		if was.State != p.State {
			set.From.State, set.To.State = was.State, p.State
		}
		switch c.Mode {
		case Forward:
			set.Skipped = c.To - was.NextOffset
			_, err = tx.Exec(ctx, insertLedger, c.Topic, c.Partition, was.NextOffset, c.To, string(c.Action), "", 0, 0, 0, set.Skipped, "[]", p.Round, p.Incarnation)
		case Silent, Republish:
			set.Superseded, set.Dropped, err = supersede(ctx, tx, was, c.To)
		}
		if err != nil {
			return err
		}
		if err := writePosition(ctx, tx, p); err != nil {
			return err
		}
		return note(ctx, tx, c.Operator, VerbPositionSet, c.TopicPartition, set)
	})
	return set, err
}

// apply returns the position as the change leaves it.
func (c *PositionChange) apply(p handlers.Position) (handlers.Position, error) {
	fits := map[Mode]bool{
		Forward:   c.To > p.NextOffset,
		Silent:    c.To < p.NextOffset && c.To >= 0,
		Republish: c.To < p.NextOffset && c.To >= 0,
		NewLog:    c.To >= 0 && c.ClusterID != "",
	}
	if !fits[c.Mode] {
		return p, fmt.Errorf("from offset %d to %d is not %q", p.NextOffset, c.To, c.Mode)
	}
	if !p.State.Held() {
		p.State, p.StateReason = handlers.Running, ""
	}
	if c.Mode == Forward {
		p.Skipped += c.To - p.NextOffset
		p.NextOffset = c.To
		return p, nil
	}
	p.Round = max(p.Round, c.Round) + 1
	p.FirstOffset, p.NextOffset = c.To, c.To
	p.Accepted, p.Rejected, p.Waiting, p.Skipped = 0, 0, 0, 0
	if c.Mode != Silent {
		p.AnnouncedSince = p.Round
	}
	if c.Mode == NewLog {
		p.Incarnation++
		p.ClusterID = c.ClusterID
		p.Anchor, p.BreakerBelow = handlers.Opt[handlers.Anchor]{}, 0 // what they say is about another log
	}
	return p, nil
}

// operating runs f in a transaction without the limit on statements: what an
// operator changes may be many rows.
func (s *Store) operating(ctx context.Context, f func(pgx.Tx) error) error {
	return s.heed(pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SET LOCAL statement_timeout = 0"); err != nil {
			return err
		}
		return f(tx)
	}))
}

// lockedPosition reads a position under its lock: nobody applies meanwhile.
func lockedPosition(ctx context.Context, tx pgx.Tx, tp handlers.TopicPartition) (handlers.Position, error) {
	rows, err := tx.Query(ctx, "SELECT "+positionColumns+" FROM learnsink.position WHERE topic = $1 AND partition = $2 FOR UPDATE", tp.Topic, tp.Partition)
	if err != nil {
		return handlers.Position{}, err
	}
	p, err := pgx.CollectExactlyOneRow(rows, scanPosition)
	if errors.Is(err, pgx.ErrNoRows) {
		err = ErrNoPosition
	}
	return p, err
}

// supersede takes back what the books say of the offsets from to on. A ledger
// line that to cuts stays as it is: it is one batch, with its counts.
func supersede(ctx context.Context, tx pgx.Tx, p handlers.Position, to int64) (lines, rejections int64, err error) {
	tag, err := tx.Exec(ctx, `UPDATE learnsink.ledger SET superseded = true
		WHERE topic = $1 AND partition = $2 AND incarnation = $3 AND from_offset >= $4 AND NOT superseded`, p.Topic, p.Partition, p.Incarnation, to)
	if err != nil {
		return 0, 0, err
	}
	lines = tag.RowsAffected()
	tag, err = tx.Exec(ctx, `DELETE FROM learnsink.rejection
		WHERE source_topic = $1 AND source_partition = $2 AND incarnation = $3 AND source_offset >= $4`, p.Topic, p.Partition, p.Incarnation, to)
	return lines, tag.RowsAffected(), err
}

// writePosition writes what an operator may change of a position.
func writePosition(ctx context.Context, tx pgx.Tx, p handlers.Position) error {
	var anchor *int64
	if p.Anchor.OK {
		anchor = &p.Anchor.V.Offset
	}
	_, err := tx.Exec(ctx, `UPDATE learnsink.position SET cluster_id = $3, first_offset = $4, next_offset = $5, accepted = $6, rejected = $7, skipped = $8,
		state = $9, state_reason = $10, incarnation = $11, round = $12, announced_since = $13, anchor_offset = $14, anchor_hash = $15, breaker_below = $16, epoch = $17, waiting = $18, updated_at = now()
		WHERE topic = $1 AND partition = $2`, p.Topic, p.Partition, p.ClusterID, p.FirstOffset, p.NextOffset, p.Accepted, p.Rejected, p.Skipped,
		p.State, storable(p.StateReason), p.Incarnation, p.Round, p.AnnouncedSince, anchor, p.Anchor.V.Hash, p.BreakerBelow, p.Epoch, p.Waiting)
	return err
}

// note writes the line of audit, in the transaction of what it speaks of. A
// topic of "" is none: it speaks of no partition.
func note(ctx context.Context, tx pgx.Tx, by Operator, verb string, tp handlers.TopicPartition, detail any) error {
	text, err := json.Marshal(detail)
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `INSERT INTO learnsink.operation (actor, verb, topic, partition, detail, why) VALUES ($1, $2, nullif($3, ''), CASE WHEN $3 <> '' THEN $4::integer END, $5::text::jsonb, $6)`,
		storable(by.Actor), verb, tp.Topic, tp.Partition, string(text), storable(by.Why))
	return err
}

// Pause holds a partition where it is until Resume, whoever owns it, and
// returns what state it was in. One that is paused stays as it is.
func (s *Store) Pause(ctx context.Context, tp handlers.TopicPartition, by Operator) (was handlers.State, err error) {
	defer wrap(&err, "pause the partition")
	err = s.operating(ctx, func(tx pgx.Tx) error {
		p, err := lockedPosition(ctx, tx, tp)
		if was = p.State; err != nil || was == handlers.Paused {
			return err
		}
		p.State, p.StateReason = handlers.Paused, by.Why
		if err := writePosition(ctx, tx, p); err != nil {
			return err
		}
		return note(ctx, tx, by, VerbPause, tp, map[string]any{"offset": p.NextOffset, "state": was})
	})
	return was, err
}

// Resume lets a held partition go on, and returns what state it was in. One
// that the breaker holds is let on up to end, the log's stable end: rows
// below it are what the operator has looked at, the breaker watches those that
// come. A partition that is not held stays as it is.
//
// The epoch is raised with it: an owner that has read that the partition is
// held cannot say so any more, and claims it anew.
func (s *Store) Resume(ctx context.Context, tp handlers.TopicPartition, end int64, by Operator) (was handlers.State, err error) {
	defer wrap(&err, "resume the partition")
	err = s.operating(ctx, func(tx pgx.Tx) error {
		p, err := lockedPosition(ctx, tx, tp)
		if was = p.State; err != nil || !was.Held() {
			return err
		}
		detail := map[string]any{"offset": p.NextOffset, "state": was}
		if was == handlers.Breaker {
			p.BreakerBelow = max(p.BreakerBelow, end)
			detail["breakerBelow"] = p.BreakerBelow
		}
		p.State, p.StateReason = handlers.Running, ""
		p.Epoch++
		if err := writePosition(ctx, tx, p); err != nil {
			return err
		}
		return note(ctx, tx, by, VerbResume, tp, detail)
	})
	return was, err
}

// Operations returns what was done to the partitions of a topic, or of every
// topic where it is "", in its order.
func (s *Store) Operations(ctx context.Context, topic string) (_ []Operation, err error) {
	defer wrap(&err, "read the operations")
	rows, err := s.pool.Query(ctx, `SELECT id, done_at, actor, why, verb, topic, partition, detail FROM learnsink.operation
		WHERE topic = $1 OR $1 = '' AND topic IS NOT NULL ORDER BY id`, topic)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (o Operation, err error) {
		var partition *int
		err = row.Scan(&o.ID, &o.At, &o.Actor, &o.Why, &o.Verb, &o.Topic, &partition, &o.Detail)
		if partition != nil {
			o.Partition = *partition
		}
		o.At = o.At.UTC()
		return o, err
	})
}

// RejectedCodes returns the codes of the stored rejections of a log within
// [from, to), by their source offsets.
func (s *Store) RejectedCodes(ctx context.Context, log Log, from, to int64) (_ map[int64][]string, err error) {
	defer wrap(&err, "read the rejections")
	rows, err := s.pool.Query(ctx, `SELECT source_offset, codes FROM learnsink.rejection
		WHERE source_topic = $1 AND source_partition = $2 AND incarnation = $3 AND source_offset >= $4 AND source_offset < $5`,
		log.Topic, log.Partition, log.Incarnation, from, to)
	if err != nil {
		return nil, err
	}
	codes := map[int64][]string{}
	var offset int64
	var of []string
	_, err = pgx.ForEachRow(rows, []any{&offset, &of}, func() error {
		codes[offset], of = of, nil
		return nil
	})
	return codes, err
}

// Settle settles decisions, in place and in their order, as Apply would, and
// writes nothing: against what is stored now, where the source's order is by
// event time.
func (s *Store) Settle(ctx context.Context, source *handlers.Source, decisions []handlers.Decision) (err error) {
	if !source.ByEventTime {
		return nil
	}
	defer wrap(&err, "read what is stored")
	tx, err := s.pool.Begin(ctx)
	if err != nil {
		return err
	}
	defer tx.Rollback(context.WithoutCancel(ctx))
	was, ask := newStored(), &pgx.Batch{}
	ask.Queue(planByKey)
	batch := &handlers.Batch{Source: source}
	was.queue(ask, batch, decisions, false)
	if err := tx.SendBatch(ctx, ask).Close(); err != nil {
		return err
	}
	settle(batch, decisions, was, nil)
	return nil
}

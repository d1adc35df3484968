package store

import (
	"context"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"learnsink/handlers"
)

const positionColumns = `topic, partition, cluster_id, first_offset, next_offset, accepted, rejected, waiting, skipped, epoch, state, state_reason, updated_at,
	incarnation, round, announced_since, anchor_offset, anchor_hash, breaker_below`

func scanPosition(row pgx.CollectableRow) (p handlers.Position, err error) {
	var anchor *int64
	var hash []byte
	err = row.Scan(&p.Topic, &p.Partition, &p.ClusterID, &p.FirstOffset, &p.NextOffset, &p.Accepted, &p.Rejected, &p.Waiting, &p.Skipped,
		&p.Epoch, &p.State, &p.StateReason, &p.UpdatedAt, &p.Incarnation, &p.Round, &p.AnnouncedSince, &anchor, &hash, &p.BreakerBelow)
	if anchor != nil {
		p.Anchor = handlers.Some(handlers.Anchor{Offset: *anchor, Hash: hash})
	}
	p.UpdatedAt = p.UpdatedAt.UTC()
	return p, err
}

// An epoch is a time as well, in microseconds. Were it only one more than the
// last, epochs would come again after the database has gone back, and whoever
// had claimed the partition in what was lost would count as its owner.
const claim = `
INSERT INTO learnsink.position AS p (topic, partition, cluster_id, first_offset, next_offset, epoch)
VALUES ($1, $2, $3, $4, $4, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint)
ON CONFLICT (topic, partition) DO UPDATE SET epoch = greatest(p.epoch + 1, excluded.epoch), claimed_at = now() WHERE p.cluster_id = excluded.cluster_id
RETURNING ` + positionColumns

// Claim makes the caller the one owner of a partition, by raising the epoch,
// and returns where the partition stands; its state is the last owner's. A
// partition that was never claimed begins at start. Returns
// handlers.ErrClusterChanged where the position belongs to another cluster. A
// claim whose reply was lost is simply made again.
func (s *Store) Claim(ctx context.Context, tp handlers.TopicPartition, clusterID string, start int64) (_ handlers.Position, err error) {
	defer wrap(&err, "claim the partition")
	rows, err := s.pool.Query(ctx, claim, tp.Topic, tp.Partition, clusterID, start)
	if err != nil {
		return handlers.Position{}, err
	}
	positions, err := pgx.CollectRows(rows, scanPosition)
	if err != nil {
		return handlers.Position{}, s.heed(err)
	}
	if len(positions) == 0 {
		return handlers.Position{}, handlers.ErrClusterChanged
	}
	return positions[0], nil
}

// SetState notes what a partition is doing and why. A state that only an
// operator ends (State.Held) stays; that is no error. Returns
// handlers.ErrFenced where epoch is not the partition's any more.
func (s *Store) SetState(ctx context.Context, tp handlers.TopicPartition, epoch int64, state handlers.State, reason string) (err error) {
	defer wrap(&err, "set the partition's state")
	tag, err := s.pool.Exec(ctx, `UPDATE learnsink.position SET state = CASE WHEN held THEN state ELSE $4 END,
		state_reason = CASE WHEN held THEN state_reason ELSE $5 END, updated_at = now()
		FROM (SELECT state IN ('paused', 'breaker') AS held FROM learnsink.position WHERE topic = $1 AND partition = $2 FOR UPDATE) AS was
		WHERE topic = $1 AND partition = $2 AND epoch = $3`, tp.Topic, tp.Partition, epoch, state, storable(reason))
	if err == nil && tag.RowsAffected() == 0 {
		return handlers.ErrFenced
	}
	return s.heed(err)
}

// Positions returns every partition that was ever claimed, by topic and partition.
func (s *Store) Positions(ctx context.Context) (_ []handlers.Position, err error) {
	defer wrap(&err, "read the positions")
	rows, err := s.pool.Query(ctx, "SELECT "+positionColumns+" FROM learnsink.position ORDER BY topic, partition")
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, scanPosition)
}

// Pending returns what the partition's committed batches still have to publish, in order.
func (s *Store) Pending(ctx context.Context, tp handlers.TopicPartition) (_ []handlers.OutboxEntry, err error) {
	defer wrap(&err, "read the outbox")
	rows, err := s.pool.Query(ctx, `SELECT from_offset, to_offset, payload, created_at FROM learnsink.outbox
		WHERE topic = $1 AND partition = $2 ORDER BY from_offset`, tp.Topic, tp.Partition)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (e handlers.OutboxEntry, err error) {
		err = row.Scan(&e.From, &e.To, &e.Payload, &e.At)
		e.At = e.At.UTC()
		return e, err
	})
}

// Published drops the partition's outbox entries that end at through or
// before: they have been published. Returns handlers.ErrFenced where epoch is
// not the partition's any more; then nothing is dropped. Returns
// handlers.ErrHeld where the partition is held; then they are dropped all the
// same. With through 0 it only says how the partition stands.
func (s *Store) Published(ctx context.Context, tp handlers.TopicPartition, epoch, through int64) (err error) {
	defer wrap(&err, "drop what was published")
	var mine, held bool
	err = s.pool.QueryRow(ctx, `
		WITH mine AS (SELECT state IN ('paused', 'breaker') AS held FROM learnsink.position WHERE topic = $1 AND partition = $2 AND epoch = $3),
		dropped AS (DELETE FROM learnsink.outbox WHERE topic = $1 AND partition = $2 AND to_offset <= $4 AND EXISTS (SELECT FROM mine))
		SELECT count(*) > 0, coalesce(bool_or(held), false) FROM mine`, tp.Topic, tp.Partition, epoch, through).Scan(&mine, &held)
	switch {
	case err == nil && !mine:
		return handlers.ErrFenced
	case err == nil && held:
		return handlers.ErrHeld
	}
	return s.heed(err)
}

// OutboxStatus is what a partition still has to publish.
type OutboxStatus struct {
	handlers.TopicPartition
	Entries  int64
	Bytes    int64 // of the payloads, compressed
	From, To int64 // the source offsets of the first and after the last
	Oldest   time.Time
}

// OutboxPending returns the partitions that have something to publish. The
// entry of an idle partition's last batch goes after a second; one that stays
// is waiting for a broker.
func (s *Store) OutboxPending(ctx context.Context) (_ []OutboxStatus, err error) {
	defer wrap(&err, "read the outbox")
	rows, err := s.pool.Query(ctx, `SELECT topic, partition, count(*), sum(length(payload))::bigint, min(from_offset), max(to_offset), min(created_at)
		FROM learnsink.outbox GROUP BY topic, partition ORDER BY topic, partition`)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (o OutboxStatus, err error) {
		err = row.Scan(&o.Topic, &o.Partition, &o.Entries, &o.Bytes, &o.From, &o.To, &o.Oldest)
		o.Oldest = o.Oldest.UTC()
		return o, err
	})
}

// heed lets go of every pooled connection once a server has turned out to be
// read-only: the next ones look for the one that writes (target_session_attrs).
func (s *Store) heed(err error) error {
	if err != nil && Classify(err) == ReadOnly {
		s.pool.Reset()
	}
	return err
}

// storable makes a text of ours one that PostgreSQL can hold.
func storable(text string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(text, "\uFFFD"), "\x00", "\uFFFD")
}

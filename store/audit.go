package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"learnsink/handlers"
)

// AuditOptions says how an audit is done.
type AuditOptions struct {
	// Retention is how long rejections are kept: of batches older than that
	// none are expected. 0: for ever.
	Retention time.Duration
}

// Finding is a fault in the books.
type Finding struct {
	handlers.TopicPartition
	From, To int64 // the source offsets in question, [From, To)
	Fault    string
}

// String names the place and the fault.
func (f Finding) String() string {
	return fmt.Sprintf("%s/%d offsets %d to %d: %s", f.Topic, f.Partition, f.From, f.To, f.Fault)
}

// Each check is a query of findings: topic, partition, from, to, fault.
const (
	auditPositions = `
SELECT topic, partition, first_offset, next_offset,
  format('the position does not sum up: first %s + accepted %s + rejected %s + waiting %s + skipped %s is not next', first_offset, accepted, rejected, waiting, skipped)
FROM learnsink.position WHERE first_offset + accepted + rejected + waiting + skipped <> next_offset OR least(accepted, rejected, waiting, skipped) < 0
ORDER BY 1, 2`

	auditLedgerGaps = `
SELECT topic, partition, least(before, from_offset), greatest(before, from_offset),
  CASE WHEN first THEN 'the ledger does not begin where the position does'
       WHEN before < from_offset THEN 'the ledger has a gap' ELSE 'the ledger counts offsets twice' END
FROM (
  SELECT g.topic, g.partition, g.from_offset, lag(g.to_offset) OVER w IS NULL AS first,
    coalesce(lag(g.to_offset) OVER w, CASE WHEN g.round = p.round THEN p.first_offset ELSE g.from_offset END) AS before
  FROM learnsink.ledger g LEFT JOIN learnsink.position p USING (topic, partition)
  WINDOW w AS (PARTITION BY g.topic, g.partition, g.round ORDER BY g.from_offset)) lines
WHERE before <> from_offset
ORDER BY 1, 2, 3`

	auditLedgerEnds = `
SELECT topic, partition, least(coalesce(max(g.to_offset), p.first_offset), p.next_offset), greatest(coalesce(max(g.to_offset), p.first_offset), p.next_offset),
  'the ledger does not end where the position is'
FROM learnsink.position p LEFT JOIN learnsink.ledger g USING (topic, partition, round)
GROUP BY topic, partition, p.first_offset, p.next_offset HAVING coalesce(max(g.to_offset), p.first_offset) <> p.next_offset
UNION ALL
SELECT topic, partition, min(from_offset), max(to_offset), 'the ledger knows a partition that has no position'
FROM learnsink.ledger g WHERE NOT EXISTS (SELECT FROM learnsink.position p WHERE (p.topic, p.partition) = (g.topic, g.partition))
GROUP BY topic, partition
ORDER BY 1, 2`

	auditLedgerRounds = `
SELECT topic, partition, from_offset, to_offset, CASE
  WHEN g.round > p.round OR g.incarnation > p.incarnation THEN 'the ledger line is of a round that the position does not know'
  WHEN superseded THEN 'the ledger line counts no longer, and is of the round that stands'
  ELSE 'the ledger line still counts, and a later round counts its offsets again' END
FROM (
  SELECT *, NOT superseded AND round < max(round) FILTER (WHERE NOT superseded)
    OVER (PARTITION BY topic, partition, incarnation ORDER BY from_offset, round) AS outdated
  FROM learnsink.ledger) g JOIN learnsink.position p USING (topic, partition)
WHERE g.round > p.round OR g.incarnation > p.incarnation OR superseded AND g.round = p.round OR outdated
   OR NOT superseded AND g.round < p.round AND g.incarnation = p.incarnation AND g.from_offset >= p.first_offset
ORDER BY 1, 2, 3`

	auditLedgerSums = `
SELECT topic, partition, p.first_offset, p.next_offset,
  format('the ledger counts accepted %s, rejected %s, waiting %s, skipped %s, the position %s, %s, %s, %s',
    sum(g.accepted), sum(g.rejected), sum(g.waiting), sum(g.skipped), p.accepted, p.rejected, p.waiting, p.skipped)
FROM learnsink.position p JOIN learnsink.ledger g USING (topic, partition, round)
GROUP BY topic, partition, p.first_offset, p.next_offset, p.accepted, p.rejected, p.waiting, p.skipped
HAVING (sum(g.accepted), sum(g.rejected), sum(g.waiting), sum(g.skipped)) <> (p.accepted, p.rejected, p.waiting, p.skipped)
ORDER BY 1, 2`

	auditLedgerLines = `
SELECT topic, partition, from_offset, to_offset, format('the ledger line counts accepted %s, rejected %s, waiting %s, skipped %s, and %s rows by sender',
  accepted, rejected, waiting, skipped, (SELECT coalesce(sum((c ->> 'rows')::bigint), 0) FROM jsonb_array_elements(counts) c))
FROM learnsink.ledger
WHERE from_offset + accepted + rejected + waiting + skipped <> to_offset
   OR accepted + rejected + waiting <> (SELECT coalesce(sum((c ->> 'rows')::bigint) FILTER (WHERE c ->> 'outcome' <> 'erased'), 0) FROM jsonb_array_elements(counts) c)
   OR skipped < (SELECT coalesce(sum((c ->> 'rows')::bigint) FILTER (WHERE c ->> 'outcome' = 'erased'), 0) FROM jsonb_array_elements(counts) c)
ORDER BY 1, 2, 3`

	// A row that has waited has a deadline, whatever became of it since. Lines
	// are looked at one by one only where a partition's sum is wrong, or
	// cannot be told: of a line that a later round has cut, some rejections
	// are that round's.
	auditRejections = `
WITH standing AS (` + standing + `),
kept AS (SELECT * FROM standing WHERE applied_at >= $1),
wrong AS (
  SELECT topic, partition, incarnation FROM kept k GROUP BY topic, partition, incarnation
  HAVING bool_or(end_offset < to_offset) OR (sum(rejected), sum(waiting)) <> (SELECT count(*) - count(deadline), count(deadline) FROM learnsink.rejection r
    WHERE r.source_topic = k.topic AND r.source_partition = k.partition AND r.incarnation = k.incarnation AND r.source_offset >= min(k.from_offset))),
lines AS (
  SELECT k.*, r.n, r.waited FROM kept k JOIN wrong USING (topic, partition, incarnation)
  CROSS JOIN LATERAL (SELECT count(*) - count(deadline) AS n, count(deadline) AS waited FROM learnsink.rejection r
    WHERE r.source_topic = k.topic AND r.source_partition = k.partition AND r.incarnation = k.incarnation
      AND r.source_offset >= k.from_offset AND r.source_offset < k.end_offset) r)
SELECT topic, partition, from_offset, end_offset, format('%s rows were rejected, %s rejections are stored', rejected, n)
FROM lines WHERE n NOT BETWEEN rejected - (to_offset - end_offset) AND rejected
UNION ALL
SELECT topic, partition, from_offset, end_offset, format('%s rows went into the waiting room, %s are stored as such', waiting, waited)
FROM lines WHERE waited NOT BETWEEN waiting - (to_offset - end_offset) AND waiting
UNION ALL
SELECT r.source_topic, r.source_partition, r.source_offset, r.source_offset + 1, 'a rejection is stored that no batch speaks of'
FROM learnsink.rejection r
LEFT JOIN (
  SELECT topic, partition, incarnation, min(low) AS low, max(high) AS high FROM (
    SELECT topic, partition, incarnation, from_offset AS low, end_offset AS high FROM standing
    UNION ALL SELECT topic, partition, incarnation, first_offset, next_offset FROM learnsink.position) judged
  GROUP BY 1, 2, 3) g ON (g.topic, g.partition, g.incarnation) = (r.source_topic, r.source_partition, r.incarnation)
WHERE g.topic IS NULL OR r.source_offset < g.low OR r.source_offset >= g.high
ORDER BY 1, 2, 3`

	// Who has left the waiting room is judged again by a job, and who is in it
	// is there for a time.
	auditWaiting = `
SELECT source_topic, source_partition, source_offset, source_offset + 1,
  CASE WHEN state = 'waiting' THEN 'a row waits for nothing, or without a deadline' ELSE 'a row has left the waiting room without a job' END
FROM learnsink.rejection
WHERE state = 'waiting' AND (deadline IS NULL OR coalesce(cardinality(waits_for), 0) = 0)
   OR deadline IS NOT NULL AND state NOT IN ('waiting', 'archived', 'erased') AND job IS NULL
ORDER BY 1, 2, 3`

	auditOutbox = `
SELECT o.topic, o.partition, o.from_offset, o.to_offset, 'the outbox speaks of offsets that no batch does'
FROM learnsink.outbox o LEFT JOIN learnsink.position p USING (topic, partition)
LEFT JOIN learnsink.ledger g ON (g.topic, g.partition, g.round, g.from_offset) = (o.topic, o.partition, p.round, o.from_offset)
WHERE g.to_offset IS DISTINCT FROM o.to_offset AND (o.topic <> 'learnsink.jobs' OR o.to_offset > (SELECT next FROM learnsink.dispatcher))
ORDER BY 1, 2, 3`

	// auditJobs speaks of jobs by the name that they have in the outbox, with
	// the job for a partition and the row's number for an offset.
	auditJobs = `
SELECT 'learnsink.jobs', i.job::integer, i.seq, i.seq + 1, format('a row is %s, of a job that has sent %s', i.state, j.sent)
FROM learnsink.job_item i JOIN learnsink.job j ON j.id = i.job
WHERE i.state = 'pending' AND (i.seq <= j.sent OR j.state IN ('cancelled', 'done')) OR i.state NOT IN ('pending', 'dropped') AND i.seq > j.sent
UNION ALL
SELECT r.source_topic, r.source_partition, r.source_offset, r.source_offset + 1, 'a dead letter is replaying, and no job has sent it or is to'
FROM learnsink.rejection r
WHERE r.state = 'replaying' AND NOT EXISTS (
  SELECT FROM learnsink.job_item i WHERE i.rejection = r.id AND i.job = r.job AND i.state IN ('pending', 'sent'))
ORDER BY 1, 2, 3`

	// What settled a dead letter was accepted, or had a dead letter of its own.
	auditReplays = `
SELECT r.source_topic, r.source_partition, r.source_offset, r.source_offset + 1, CASE
  WHEN r.settled_by IS NULL THEN 'a rejection is ' || r.state || ', and no outcome has settled it'
  ELSE format('a rejection is resolved by %s, which was rejected itself', r.settled_by) END
FROM learnsink.rejection r
WHERE r.state = 'resolved' AND (r.settled_by IS NULL OR EXISTS (SELECT FROM learnsink.rejection a WHERE a.id = r.settled_by))
   OR r.state = 'superseded' AND r.settled_by IS NULL AND r.replay_of IS NULL
ORDER BY 1, 2, 3`

	auditTracking = `
SELECT d.source_topic, d.source_partition, d.source_offset, d.source_offset + 1, 'a tracking row is stored, and remembered as deleted by this offset'
FROM learnsink.tracking_deleted d JOIN learnsink.tracking USING (registration_id, learning_object_id)
ORDER BY 1, 2, 3`
)

// Audit proves the books, in one snapshot of the database: every position
// sums up; the ledger's lines of its round follow each other without a gap up
// to it, and sum up to it; what an operator has set it back over counts once;
// every rejection that was counted has its row, and none has one that was not,
// and so has every row that went into the waiting room; what is settled was
// settled by an outcome that could.
// What is replaying is a job's. It returns what it finds wrong. That every outcome is in the topics, once,
// is for the reader of the topics to prove (RejectedOffsets, Ledger).
func (s *Store) Audit(ctx context.Context, opt AuditOptions) (findings []Finding, err error) {
	defer wrap(&err, "audit")
	since := time.Time{} // year 1: before every line
	if opt.Retention > 0 {
		since = time.Now().Add(-opt.Retention)
	}
	err = s.reading(ctx, func(tx pgx.Tx) error {
		for _, query := range []string{auditPositions, auditLedgerGaps, auditLedgerEnds, auditLedgerRounds, auditLedgerSums, auditLedgerLines, auditRejections, auditReplays, auditWaiting, auditOutbox, auditJobs, auditTracking} {
			var args []any
			if query == auditRejections {
				args = []any{since}
			}
			rows, err := tx.Query(ctx, query, args...)
			if err != nil {
				return err
			}
			var f Finding
			if _, err := pgx.ForEachRow(rows, []any{&f.Topic, &f.Partition, &f.From, &f.To, &f.Fault}, func() error {
				findings = append(findings, f)
				return nil
			}); err != nil {
				return err
			}
		}
		return nil
	})
	return findings, err
}

// Log is one log of a topic's name: what its offsets mean.
type Log struct {
	handlers.TopicPartition
	Incarnation int
}

// RejectedOffsets returns the source offsets of the stored rejections of a log
// within [from, to), in order, and beside them those of the rows that went into
// the waiting room, whatever became of them there.
func (s *Store) RejectedOffsets(ctx context.Context, log Log, from, to int64) (rejected, waited []int64, err error) {
	defer wrap(&err, "read the rejections")
	rows, err := s.pool.Query(ctx, `SELECT source_offset, deadline IS NOT NULL FROM learnsink.rejection
		WHERE source_topic = $1 AND source_partition = $2 AND incarnation = $3 AND source_offset >= $4 AND source_offset < $5 ORDER BY 1`,
		log.Topic, log.Partition, log.Incarnation, from, to)
	if err != nil {
		return nil, nil, err
	}
	var offset int64
	var has bool
	_, err = pgx.ForEachRow(rows, []any{&offset, &has}, func() error {
		if has {
			waited = append(waited, offset)
		} else {
			rejected = append(rejected, offset)
		}
		return nil
	})
	return rejected, waited, err
}

// WaitedBefore returns the batches of a log, [from, to), in which rows waited
// before an operator set the position back over them.
func (s *Store) WaitedBefore(ctx context.Context, log Log) (_ [][2]int64, err error) {
	defer wrap(&err, "read the ledger")
	rows, err := s.pool.Query(ctx, `SELECT from_offset, to_offset FROM learnsink.ledger g JOIN learnsink.position p USING (topic, partition)
		WHERE topic = $1 AND partition = $2 AND g.incarnation = $3 AND g.waiting > 0 AND g.round < p.round`, log.Topic, log.Partition, log.Incarnation)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (run [2]int64, err error) {
		err = row.Scan(&run[0], &run[1])
		return run, err
	})
}

// standing are the ledger lines that count, each up to where a later round
// begins to count again (end_offset).
const standing = `
SELECT g.*, least(g.to_offset, lead(g.from_offset) OVER w, CASE WHEN g.incarnation = p.incarnation AND g.round < p.round THEN p.first_offset END) AS end_offset
FROM learnsink.ledger g LEFT JOIN learnsink.position p USING (topic, partition)
WHERE NOT g.superseded
WINDOW w AS (PARTITION BY g.topic, g.partition, g.incarnation ORDER BY g.from_offset, g.round)`

// LedgerLine is one applied batch, or a run of offsets that an operator has skipped.
type LedgerLine struct {
	From, To int64 // source offsets [From, To)
	// End is To, or where a later round begins to count again: the counts are
	// of [From, To), the line speaks for [From, End).
	End                         int64
	Accepted, Rejected, Waiting int64
	Skipped                     int64
	AppliedAt                   time.Time
	Rules                       string // the hash of the settings it was decided by; "" of skipped offsets
}

// Ledger hands the ledger lines of a log that count, and speak for offsets
// within [from, to), to fn in order.
func (s *Store) Ledger(ctx context.Context, log Log, from, to int64, fn func(LedgerLine) error) (err error) {
	defer wrap(&err, "read the ledger")
	return s.reading(ctx, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, `SELECT from_offset, to_offset, end_offset, accepted, rejected, waiting, skipped, applied_at, rules FROM (`+standing+`) AS g
			WHERE topic = $1 AND partition = $2 AND incarnation = $3 AND end_offset > $4 AND from_offset < $5 ORDER BY from_offset`,
			log.Topic, log.Partition, log.Incarnation, from, to)
		if err != nil {
			return err
		}
		var l LedgerLine
		_, err = pgx.ForEachRow(rows, []any{&l.From, &l.To, &l.End, &l.Accepted, &l.Rejected, &l.Waiting, &l.Skipped, &l.AppliedAt, &l.Rules}, func() error {
			l.AppliedAt = l.AppliedAt.UTC()
			return fn(l)
		})
		return err
	})
}

// JudgedSince returns the first offset of a log that was judged since a time,
// as it stands; all behind it were too. False: none was.
func (s *Store) JudgedSince(ctx context.Context, log Log, since time.Time) (offset int64, ok bool, err error) {
	defer wrap(&err, "read the ledger")
	var first *int64
	err = s.reading(ctx, func(tx pgx.Tx) error {
		return tx.QueryRow(ctx, `SELECT min(from_offset) FROM learnsink.ledger
			WHERE topic = $1 AND partition = $2 AND incarnation = $3 AND applied_at >= $4 AND NOT superseded`,
			log.Topic, log.Partition, log.Incarnation, since).Scan(&first)
	})
	if err != nil || first == nil {
		return 0, false, err
	}
	return *first, true, nil
}

// CatalogueStatus is what catalogue is loaded.
type CatalogueStatus struct {
	Version  int64                   // 0: none was ever loaded
	LoadedAt handlers.Opt[time.Time] // absent: none was ever loaded
	Counts   []CatalogueCount        // in the order of their files
}

// CatalogueCount is how many of a kind there are.
type CatalogueCount struct {
	Kind string // the name of its file
	Rows int64
}

// CatalogueStatus counts the catalogue: every row, which takes a moment where there are millions.
func (s *Store) CatalogueStatus(ctx context.Context) (status CatalogueStatus, err error) {
	defer wrap(&err, "read the catalogue's status")
	err = s.reading(ctx, func(tx pgx.Tx) error {
		var at *time.Time
		if err := tx.QueryRow(ctx, "SELECT version, loaded_at FROM learnsink.catalogue_version").Scan(&status.Version, &at); err != nil {
			return err
		}
		if at != nil {
			status.LoadedAt = handlers.Some(at.UTC())
		}
		rows, err := tx.Query(ctx, `
			SELECT kind, n FROM (
			SELECT 1, 'learners', count(*) FROM learnsink.learner
			UNION ALL SELECT 2, 'learning_objects', count(*) FROM learnsink.learning_object
			UNION ALL SELECT 3, 'trainings', count(*) FROM learnsink.training
			UNION ALL SELECT 4, 'sessions', count(*) FROM learnsink.session
			UNION ALL SELECT 5, 'registrations', count(*) FROM learnsink.registration
			UNION ALL SELECT 6, 'teachers', count(*) FROM learnsink.teacher
			UNION ALL SELECT 7, 'rooms', count(*) FROM learnsink.room) AS c(i, kind, n) ORDER BY i`)
		if err != nil {
			return err
		}
		status.Counts, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (c CatalogueCount, err error) {
			err = row.Scan(&c.Kind, &c.Rows)
			return c, err
		})
		return err
	})
	return status, err
}

// CatalogueVersion returns the catalogue's version and when it was loaded
// (absent: never). It costs next to nothing: for metrics and readiness. A
// process that is asked for those forgets what it remembers of a catalogue that
// is no more, persons who were erased among it, also where it has nothing to apply.
func (s *Store) CatalogueVersion(ctx context.Context) (version int64, loadedAt handlers.Opt[time.Time], err error) {
	defer wrap(&err, "read the catalogue's version")
	var at *time.Time
	var identity int64
	err = s.pool.QueryRow(ctx, "SELECT version, loaded_at, "+catalogueIdentity+" FROM learnsink.catalogue_version").Scan(&version, &at, &identity)
	if err == nil {
		s.cache.heed(identity)
	}
	if at != nil {
		loadedAt = handlers.Some(at.UTC())
	}
	return version, loadedAt, err
}

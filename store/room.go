package store

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"time"

	"github.com/jackc/pgx/v5"

	"learnsink/handlers"
)

// Room is the waiting room, and the right to let rows out of it. Like the right
// to send the rows of jobs it is a session's advisory lock, on a connection of
// its own, and for liveness alone: two that release at once do no harm, since a
// row that is in a job is not in the room any more (CreateJob).
//
// A Room is not safe for concurrent use.
type Room struct {
	store *Store
	conn  *pgx.Conn
}

// roomLock is the advisory lock of who lets rows out of the waiting room.
const roomLock int64 = 0x726f6f6d // "room"

// LeadRoom takes the right to let rows out of the waiting room; false where
// another process has it.
func (s *Store) LeadRoom(ctx context.Context) (_ *Room, led bool, err error) {
	defer wrap(&err, "take the right to release rows that wait")
	conn, err := pgx.ConnectConfig(ctx, s.pool.Config().ConnConfig)
	if err != nil {
		return nil, false, s.heed(err)
	}
	err = conn.QueryRow(ctx, "SELECT pg_try_advisory_lock($1)", roomLock).Scan(&led)
	if err != nil || !led {
		conn.Close(context.WithoutCancel(ctx))
		return nil, false, s.heed(err)
	}
	return &Room{s, conn}, true, nil
}

// Close gives the right up.
func (r *Room) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	r.conn.Close(ctx)
}

// Look returns which catalogue there is (Facts.Version), and whether a row is
// past its deadline. It is asked over the connection that holds the right: an
// error means that this may be lost.
func (r *Room) Look(ctx context.Context) (catalogue int64, overdue bool, err error) {
	defer wrap(&err, "look into the waiting room")
	err = r.conn.QueryRow(ctx, "SELECT "+catalogueIdentity+`, EXISTS (`+selectOverdue+`) FROM learnsink.catalogue_version`).Scan(&catalogue, &overdue)
	if err == nil && !r.store.cache.of(catalogue) {
		err = r.store.catchUp(ctx) // or Facts would answer by what is remembered of the one before
	}
	return catalogue, overdue, err
}

// Facts answers references as of one catalogue.
func (r *Room) Facts(ctx context.Context, refs *handlers.References) (*handlers.Facts, error) {
	return r.store.Facts(ctx, refs)
}

const waitingColumns = `r.id, r.source_topic, r.source_partition, r.source_offset, r.incarnation, r.key, r.value, r.headers, r.event_at, r.waits_for`

func scanWaiting(row pgx.CollectableRow) (w handlers.WaitingRow, err error) {
	var headers []byte
	rec := &w.Record
	if err := row.Scan(&w.ID, &rec.Topic, &rec.Partition, &rec.Offset, &rec.Incarnation, &rec.Key, &rec.Value, &headers, &w.EventAt, &w.WaitsFor); err != nil {
		return w, err
	}
	w.EventAt = w.EventAt.UTC()
	rec.Headers = headersOf(headers)
	return w, nil
}

// waitingKinds jumps along the index from one kind to the next: the rows
// between are not looked at, however many there are.
const waitingKinds = `
WITH RECURSIVE kind AS (
  (SELECT waits_for, source_topic, 1 AS n FROM learnsink.rejection
   WHERE state = 'waiting' AND ($1::text[] IS NULL OR (waits_for, source_topic) > ($1::text[], $2::text)) ORDER BY waits_for, source_topic LIMIT 1)
  UNION ALL
  SELECT next.waits_for, next.source_topic, k.n + 1 FROM kind k CROSS JOIN LATERAL (
    SELECT waits_for, source_topic FROM learnsink.rejection
    WHERE state = 'waiting' AND (waits_for, source_topic) > (k.waits_for, k.source_topic) ORDER BY waits_for, source_topic LIMIT 1) next
  WHERE k.n < $3
)
SELECT ` + waitingColumns + ` FROM kind k CROSS JOIN LATERAL (
  SELECT * FROM learnsink.rejection WHERE state = 'waiting' AND waits_for = k.waits_for AND source_topic = k.source_topic
  ORDER BY source_partition, incarnation, source_offset LIMIT 1) r
ORDER BY k.n`

// Kinds returns, after the kind of a row (nil: from the beginning), the first
// row of each kind: of one source, and waiting for the same. At most so many.
func (r *Room) Kinds(ctx context.Context, after *handlers.WaitingRow, most int) (_ []handlers.WaitingRow, err error) {
	var names []string
	topic := ""
	if after != nil {
		names, topic = after.WaitsFor, after.Record.Topic
	}
	return r.rows(ctx, waitingKinds, names, topic, most)
}

const waitingRows = `
SELECT ` + waitingColumns + ` FROM learnsink.rejection r
WHERE state = 'waiting' AND waits_for = $1::text[] AND source_topic = $2 AND (source_partition, incarnation, source_offset) > ($3, $4, $5)
ORDER BY source_partition, incarnation, source_offset LIMIT $6`

// Rows returns the rows of a kind, in their order, that come after one of them,
// at most so many.
func (r *Room) Rows(ctx context.Context, after *handlers.WaitingRow, most int) (_ []handlers.WaitingRow, err error) {
	rec := &after.Record
	return r.rows(ctx, waitingRows, after.WaitsFor, rec.Topic, rec.Partition, rec.Incarnation, rec.Offset, most)
}

func (r *Room) rows(ctx context.Context, query string, args ...any) (rows []handlers.WaitingRow, err error) {
	defer wrap(&err, "read the waiting room")
	// By the index, whatever the statistics say of a table that was empty yesterday.
	ask := &pgx.Batch{}
	ask.Queue("BEGIN READ ONLY")
	ask.Queue(planOnce)
	ask.Queue(query, args...).Query(func(found pgx.Rows) (err error) {
		rows, err = pgx.CollectRows(found, scanWaiting)
		return err
	})
	ask.Queue("COMMIT")
	conn, err := r.store.pool.Acquire(ctx)
	if err != nil {
		return nil, err
	}
	defer release(conn)
	return rows, r.store.heed(conn.SendBatch(ctx, ask).Close())
}

// Rename notes what rows wait for by now, where that has changed since they
// were read. Rows that have left the room stay as they are.
func (r *Room) Rename(ctx context.Context, rows []handlers.WaitingRow) (err error) {
	defer wrap(&err, "note what rows wait for")
	ids, names := make([]string, len(rows)), make([]*string, len(rows))
	for i := range rows {
		ids[i], names[i] = rows[i].ID, textArray(rows[i].WaitsFor)
	}
	_, err = r.store.pool.Exec(ctx, `
		WITH locked AS MATERIALIZED (
		  SELECT r.id, u.waits_for FROM learnsink.rejection r JOIN unnest($1::text[], $2::text[]) AS u(id, waits_for) ON u.id = r.id
		  WHERE r.state = 'waiting' ORDER BY r.id FOR UPDATE OF r)
		UPDATE learnsink.rejection r SET waits_for = l.waits_for::text[] FROM locked l WHERE r.id = l.id`, ids, names)
	return r.store.heed(err)
}

// ReleaseRate is how many rows a second a job of released rows sends at most:
// as fast as the dispatcher can.
const ReleaseRate = 1_000_000

// Release puts rows of the room into a job, which sends them over the replay
// topic, and returns the job and how many those are: rows that have left the
// room by now are not among them. Without any there is no job.
func (r *Room) Release(ctx context.Context, why string, ids []string) (job, rows int64, err error) {
	return r.store.CreateJob(ctx, NewJob{Kind: JobRelease, Actor: "serve", Why: why, Rate: ReleaseRate,
		Selection: json.RawMessage(fmt.Sprintf(`{"released": %d}`, len(ids)))}, itemsOf(ids))
}

// selectOverdue: a row that has come back (its job was cancelled, or the replay
// topic would not take it) is tried again after a while.
const selectOverdue = `SELECT r.id FROM learnsink.rejection r WHERE r.state = 'waiting' AND r.deadline <= now()
  AND NOT EXISTS (SELECT FROM learnsink.job j WHERE j.id = r.job AND j.created_at > now() - interval '1 hour')`

// ReleaseOverdue puts the rows that are past their deadline into a job, at
// most so many, those that are past it longest first.
func (r *Room) ReleaseOverdue(ctx context.Context, why string, most int) (job, rows int64, err error) {
	ids, err := r.overdue(ctx, most)
	if err != nil || len(ids) == 0 {
		return 0, 0, err
	}
	return r.Release(ctx, why, ids)
}

func (r *Room) overdue(ctx context.Context, most int) (_ []string, err error) {
	defer wrap(&err, "read the waiting room")
	rows, err := r.store.pool.Query(ctx, selectOverdue+" ORDER BY r.deadline LIMIT $1", most)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

func itemsOf(ids []string) iter.Seq2[JobItem, error] {
	return func(yield func(JobItem, error) bool) {
		for _, id := range ids {
			if !yield(JobItem{Rejection: id}, nil) {
				return
			}
		}
	}
}

// WaitingFor is something that is missing, and the rows that wait for it.
type WaitingFor struct {
	Name string // personal data, where it is a learner's or a teacher's
	// Alone are the rows that wait for nothing else: what would release them.
	Alone int64
	Rows  int64
	Since time.Time // the first came
	Next  time.Time // deadline
}

// WaitingFor returns what rows wait for, what would release most of them
// first: at most so many (0: all), and how many there are in all. It reads every row of
// the room.
func (s *Store) WaitingFor(ctx context.Context, topic string, most int) (list []WaitingFor, names, rows int64, err error) {
	defer wrap(&err, "read the waiting room")
	err = s.reading(ctx, func(tx pgx.Tx) error {
		if err := tx.QueryRow(ctx, `SELECT count(*) FROM learnsink.rejection WHERE state = 'waiting' AND ($1 = '' OR source_topic = $1)`, topic).Scan(&rows); err != nil {
			return err
		}
		found, err := tx.Query(ctx, `
			SELECT name, count(*) FILTER (WHERE cardinality(waits_for) = 1), count(*), min(rejected_at), min(deadline), count(*) OVER ()
			FROM learnsink.rejection, unnest(waits_for) AS name WHERE state = 'waiting' AND ($1 = '' OR source_topic = $1)
			GROUP BY name ORDER BY 2 DESC, 3 DESC, name LIMIT nullif($2, 0)`, topic, most)
		if err != nil {
			return err
		}
		list, err = pgx.CollectRows(found, func(row pgx.CollectableRow) (w WaitingFor, err error) {
			err = row.Scan(&w.Name, &w.Alone, &w.Rows, &w.Since, &w.Next, &names)
			w.Since, w.Next = w.Since.UTC(), w.Next.UTC()
			return w, err
		})
		return err
	})
	return list, names, rows, err
}

// WaitingCount is how many rows of a source wait.
type WaitingCount struct {
	Topic  string
	Rows   int64
	Oldest time.Time // when the first of them came
}

// WaitingCounts counts the rows that wait, by source, from an index alone.
func (s *Store) WaitingCounts(ctx context.Context) (_ []WaitingCount, err error) {
	defer wrap(&err, "count the waiting room")
	rows, err := s.pool.Query(ctx, `SELECT source_topic, count(*), min(rejected_at) FROM learnsink.rejection WHERE state = 'waiting' GROUP BY source_topic ORDER BY source_topic`)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (c WaitingCount, err error) {
		err = row.Scan(&c.Topic, &c.Rows, &c.Oldest)
		c.Oldest = c.Oldest.UTC()
		return c, err
	})
}

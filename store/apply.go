package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"learnsink/handlers"
)

// commitTimeout is how long a COMMIT may take before its outcome is looked up.
// It is long, and no end of the caller's context shortens it: giving up on a
// COMMIT sends the server a cancel request, which can undo what was promised.
const commitTimeout = 30 * time.Second

// attempts is how often Apply begins again by itself, where another
// transaction was faster or PostgreSQL broke a deadlock, before it says so.
const attempts = 20

// errFaster: another transaction wrote a key first that was in no table when
// this one looked, and so could not be locked. Begin again.
var errFaster = errors.New("another transaction wrote the same keys")

// Apply writes a batch in one transaction: rows, rejections, ledger, outbox
// and position. nil means that it is committed, now or by an earlier try whose
// reply was lost; then b.Decisions are as settled (some that were accepted may
// be rejections now). After an error nothing was applied, b.Decisions are as
// they came, and the same batch may be applied again: handlers.ErrFenced,
// ErrHeld, ErrMoved and ErrStaleFacts say what to do first, all else is machinery
// (Classify). One error leaves the outcome open: ctx ended before a lost
// COMMIT could be looked up. Then the next Claim knows.
func (s *Store) Apply(ctx context.Context, b *handlers.Batch) (err error) {
	defer wrap(&err, "apply a batch")
	if err := check(b); err != nil {
		return err
	}
	undecided := slices.Clone(b.Decisions)
	defer func() {
		if err != nil {
			copy(b.Decisions, undecided)
		}
	}()
	way := s.habits.of(b.TopicPartition())
	for attempt := 1; ; attempt++ {
		copy(b.Decisions, undecided)
		err := s.apply(ctx, b, &way)
		switch {
		case err == nil:
			s.habits.learn(b.TopicPartition(), way)
			return nil
		case errors.Is(err, handlers.ErrStaleFacts):
			_ = s.catchUp(ctx) // where this fails nothing is remembered
			return err
		case errors.Is(err, errUnknown):
			committed, resolveErr := s.resolve(ctx, b)
			if resolveErr != nil {
				return fmt.Errorf("the outcome of a COMMIT is unknown: %w", resolveErr)
			}
			if committed {
				return nil
			}
		case errors.Is(err, errFaster), again(err), outOfPatience(err) && way.careful == 0:
			way.careful = carefulFor
		case Classify(err) == Data && !way.bisect:
			way.bisect, way.careful = true, max(way.careful, 1)
		default:
			return s.heed(err)
		}
		if attempt == attempts || ctx.Err() != nil {
			return s.heed(err)
		}
	}
}

// check refuses batches that cannot be right: they would be our own bugs.
func check(b *handlers.Batch) error {
	if b.From >= b.To || int64(len(b.Decisions)) > b.To-b.From {
		return fmt.Errorf("a batch of %d rows cannot stand in offsets %d to %d", len(b.Decisions), b.From, b.To)
	}
	next := b.From
	for i := range b.Decisions {
		d := &b.Decisions[i]
		if d.Record.Offset < next || d.Record.Offset >= b.To {
			return fmt.Errorf("offset %d is out of order in a batch of offsets %d to %d", d.Record.Offset, b.From, b.To)
		}
		next = d.Record.Offset + 1
	}
	return nil
}

// apply is the one transaction of a batch, in the order in which its effects
// happen. Until COMMIT a crash anywhere leaves nothing: PostgreSQL rolls back,
// and the next owner reads the same records again.
//
// Locks are taken in one order, so that batches of several partitions wait for
// each other and never in a circle: position, catalogue, tracking,
// tracking_deleted, intervention, room, rejection (of what is replayed),
// job_item, and within a table by key. The one
// exception gives up before the circle closes: tracking.go.
func (s *Store) apply(ctx context.Context, b *handlers.Batch, way *way) error {
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer release(conn)

	// One round trip takes every lock and reads what decisions need to know.
	//
	// 1. The fence. Under the lock of its row the position is compared now and
	// set at the end, with its counters, so that it sums up at every moment.
	// Nobody else can apply or claim the partition from here on.
	var epoch, next, version int64
	var held bool
	found := false
	first := &pgx.Batch{}
	first.Queue("BEGIN ISOLATION LEVEL READ COMMITTED")
	first.Queue(planFor(b))
	first.Queue(lockPosition, b.Source.Topic, b.Partition).Query(func(rows pgx.Rows) error {
		_, err := pgx.ForEachRow(rows, []any{&epoch, &next, &held}, func() error { found = true; return nil })
		return err
	})
	// 2. The catalogue stays as it is until the end of the transaction. Its
	// version is a statement of its own: one that waited for the lock would
	// read what was there before it waited.
	first.Queue(lockCatalogueShared, catalogueLock)
	first.Queue("SELECT " + catalogueIdentity + " FROM learnsink.catalogue_version").QueryRow(func(row pgx.Row) error { return row.Scan(&version) })
	// 3. The rows under the batch's keys are locked and read, in key order, as
	// far as decisions need them.
	was := newStored()
	was.queue(first, b, b.Decisions, way.careful > 0)
	if err := conn.SendBatch(ctx, first).Close(); err != nil {
		return err
	}
	switch {
	case !found:
		return fmt.Errorf("%w: it was never claimed", handlers.ErrMoved)
	case epoch != b.Epoch:
		return handlers.ErrFenced
	case held:
		return handlers.ErrHeld
	case next != b.From:
		return fmt.Errorf("%w: at %d, not %d", handlers.ErrMoved, next, b.From)
	case version != b.FactsVersion && len(b.Decisions) > 0:
		return handlers.ErrStaleFacts
	}

	// 4. Every row is settled in offset order against what its predecessors
	// left, so that a batch is worth its rows one by one. Rows that PostgreSQL
	// has turned out to refuse are sorted out first.
	refused := map[int64]struct{}{}
	if way.bisect {
		if err := findRefused(ctx, conn, b, was, b.Decisions, refused); err != nil {
			return err
		}
	}
	w := settle(b, b.Decisions, was, refused)
	var payload []byte
	if b.Encode != nil {
		if payload, err = b.Encode(b.Decisions); err != nil {
			return err
		}
	}

	// A second round trip writes it all.
	//
	// 5. Rows: the last state of each key, once. And the rejections.
	second := &pgx.Batch{}
	w.queueRows(second, way.lookFirst)
	// 6. What happened (ledger), what is still to be published (outbox; what
	// has been goes), and how far we are.
	second.Queue(insertLedger, ledgerLine(b, w)...)
	if len(payload) > 0 {
		second.Queue(insertOutbox, b.Source.Topic, b.Partition, b.From, b.To, payload)
	}
	if b.Published > 0 {
		second.Queue(dropOutbox, b.Source.Topic, b.Partition, b.Published)
	}
	second.Queue(setPosition, b.Source.Topic, b.Partition, b.Epoch, b.From, b.To, w.accepted, w.rejected, w.waiting, w.skipped,
		b.Anchor.OK, b.Anchor.V.Offset, b.Anchor.V.Hash).Exec(exactly(1))
	if err := conn.SendBatch(ctx, second).Close(); err != nil {
		return err
	}

	// 7. COMMIT, the third round trip. A crash after it leaves the batch
	// applied and its outputs in the outbox: whoever claims the partition next
	// publishes them and goes on at b.To.
	if err := commit(ctx, conn.Conn()); err != nil {
		return err
	}
	way.went(w)
	return nil
}

// errUnknown: a COMMIT was sent, and no reply says what became of it.
var errUnknown = errors.New("no reply to COMMIT")

// commit ends a transaction. errUnknown: only the database knows how it ended.
func commit(ctx context.Context, conn *pgx.Conn) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), commitTimeout)
	defer cancel()
	tag, err := conn.Exec(ctx, "COMMIT")
	var pg *pgconn.PgError
	switch {
	case err == nil && tag.String() == "COMMIT":
		return nil
	case err == nil:
		return errors.New("COMMIT rolled back") // cannot be: no statement has failed
	case errors.As(err, &pg) && pg.SeverityUnlocalized == "ERROR":
		return err
	}
	// No reply, or FATAL, which can follow a commit.
	return fmt.Errorf("%w: %w", errUnknown, err)
}

// resolve finds out whether the batch was committed, by reading its position
// on another connection FOR UPDATE: that waits for the dying transaction, where
// a plain SELECT would look past it. It tries until ctx ends.
func (s *Store) resolve(ctx context.Context, b *handlers.Batch) (committed bool, err error) {
	return backoff.Retry(ctx, func() (bool, error) {
		var epoch, next int64
		var held bool
		err := s.pool.QueryRow(ctx, lockPosition, b.Source.Topic, b.Partition).Scan(&epoch, &next, &held)
		switch {
		case errors.Is(err, pgx.ErrNoRows):
			return false, backoff.Permanent(handlers.ErrMoved)
		case err != nil:
			return false, s.heed(err)
		case epoch != b.Epoch:
			// Whether or not it landed: who claimed since goes on from what is
			// there, and publishes it.
			return false, backoff.Permanent(handlers.ErrFenced)
		case next == b.To:
			return true, nil
		case next != b.From:
			return false, backoff.Permanent(handlers.ErrMoved)
		}
		return false, nil
	}, backoff.WithBackOff(&backoff.ExponentialBackOff{InitialInterval: 50 * time.Millisecond, RandomizationFactor: 0.5,
		Multiplier: 2, MaxInterval: 5 * time.Second}), backoff.WithMaxElapsedTime(0))
}

// again reports whether PostgreSQL asks for the transaction to be run again.
func again(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && (pg.Code == "40001" || pg.Code == "40P01")
}

// outOfPatience reports whether a lock was waited for as long as lock_timeout lets.
func outOfPatience(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.Code == "55P03"
}

// findRefused bisects decisions by writing them for a try, within a savepoint
// that is always rolled back to, and notes the offsets that PostgreSQL refuses
// by themselves. Every row has passed the rules, so this is not meant to
// happen; should it, one row is rejected and the partition goes on.
func findRefused(ctx context.Context, conn *pgxpool.Conn, b *handlers.Batch, was *stored, decisions []handlers.Decision, refused map[int64]struct{}) error {
	if len(decisions) == 0 {
		return nil
	}
	if _, err := conn.Exec(ctx, "SAVEPOINT try"); err != nil {
		return err
	}
	try := &pgx.Batch{}
	settle(b, slices.Clone(decisions), was, refused).queueRows(try, false)
	err := conn.SendBatch(ctx, try).Close()
	if err != nil && Classify(err) != Data {
		return err
	}
	if _, back := conn.Exec(ctx, "ROLLBACK TO SAVEPOINT try; RELEASE SAVEPOINT try"); back != nil {
		return back
	}
	switch {
	case err == nil:
		return nil
	case len(decisions) > 1:
		half := len(decisions) / 2
		if err := findRefused(ctx, conn, b, was, decisions[:half], refused); err != nil {
			return err
		}
		return findRefused(ctx, conn, b, was, decisions[half:], refused)
	}
	code := "no SQLSTATE"
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		code = pg.Code
	}
	d := &decisions[0]
	refused[d.Record.Offset] = struct{}{}
	d.Refuse(code)
	return nil
}

// release gives a connection back, out of whatever transaction it is in.
func release(conn *pgxpool.Conn) {
	if !conn.Conn().IsClosed() && conn.Conn().PgConn().TxStatus() != 'I' {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_, _ = conn.Exec(ctx, "ROLLBACK") // if this fails, the pool closes the connection
	}
	conn.Release()
}

// exactly returns a callback that is errFaster unless a statement touched n rows.
func exactly(n int) func(pgconn.CommandTag) error {
	return func(tag pgconn.CommandTag) error {
		if tag.RowsAffected() != int64(n) {
			return errFaster
		}
		return nil
	}
}

// catalogueLock is the advisory lock between apply (shared) and the end of a
// catalogue load (exclusive).
const catalogueLock int64 = 0x6c6561726e // "learn"

const (
	// planByKey: statements go from their arrays to a table by its index, and
	// are planned anew every time. A plan that is kept was made for the table
	// as it was, empty at first, and turns quadratic as it grows; a hash join
	// reads the whole table for a few rows of it; and compiling (jit) takes
	// longer than anything here.
	planByKey = `SELECT set_config('plan_cache_mode', 'force_custom_plan', true), set_config('enable_hashjoin', 'off', true),
	set_config('enable_mergejoin', 'off', true), set_config('jit', 'off', true)`

	// planOnce is for statements whose text leaves no choice but to go by the
	// index (tracking.go): planning them took as long as 100 rows do.
	planOnce = `SELECT set_config('plan_cache_mode', 'force_generic_plan', true), set_config('enable_seqscan', 'off', true),
	set_config('enable_bitmapscan', 'off', true), set_config('jit', 'off', true)`

	// catalogueIdentity tells one catalogue from all others. The version alone
	// comes again after a restore of the database.
	catalogueIdentity = `version + coalesce((extract(epoch FROM loaded_at) * 1000000)::bigint, 0)`

	lockPosition = `SELECT epoch, next_offset, state IN ('paused', 'breaker') FROM learnsink.position WHERE topic = $1 AND partition = $2 FOR UPDATE`

	lockCatalogueShared = `SELECT pg_advisory_xact_lock_shared($1)`

	setPosition = `
UPDATE learnsink.position SET next_offset = $5, accepted = accepted + $6, rejected = rejected + $7, waiting = waiting + $8, skipped = skipped + $9, updated_at = now(),
  anchor_offset = CASE WHEN $10 THEN $11 ELSE anchor_offset END, anchor_hash = CASE WHEN $10 THEN $12 ELSE anchor_hash END
WHERE topic = $1 AND partition = $2 AND epoch = $3 AND next_offset = $4`

	insertOutbox = `INSERT INTO learnsink.outbox (topic, partition, from_offset, to_offset, payload) VALUES ($1, $2, $3, $4, $5)`

	dropOutbox = `DELETE FROM learnsink.outbox WHERE topic = $1 AND partition = $2 AND to_offset <= $3`
)

// planFor returns how the statements of a batch are planned. What settles dead
// letters leaves the planner a choice.
func planFor(b *handlers.Batch) string {
	replays := len(b.Decisions) > 0 && b.Decisions[0].Replay != nil
	if b.Source.Rules.Action() == handlers.Tracking && !replays {
		return planOnce
	}
	return planByKey
}

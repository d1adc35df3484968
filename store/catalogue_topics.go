package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"learnsink/handlers"
	"learnsink/store/catalogue"
)

const cataloguePositionColumns = `topic, partition, cluster_id, next_offset, first_end, records, bad, begun, anchor_offset, anchor_hash, state, state_reason, updated_at`

func scanCataloguePosition(row pgx.CollectableRow) (p handlers.CataloguePosition, err error) {
	var anchor *int64
	var hash []byte
	err = row.Scan(&p.Topic, &p.Partition, &p.ClusterID, &p.NextOffset, &p.FirstEnd, &p.Records, &p.Bad, &p.Begun, &anchor, &hash, &p.State, &p.StateReason, &p.UpdatedAt)
	if anchor != nil {
		p.Anchor = handlers.Some(handlers.Anchor{Offset: *anchor, Hash: hash})
	}
	p.UpdatedAt = p.UpdatedAt.UTC()
	return p, err
}

// CataloguePositions returns how far the partitions of catalogue topics have
// been read, by topic and partition.
func (s *Store) CataloguePositions(ctx context.Context) (_ []handlers.CataloguePosition, err error) {
	defer wrap(&err, "read the positions of the catalogue topics")
	rows, err := s.pool.Query(ctx, "SELECT "+cataloguePositionColumns+" FROM learnsink.catalogue_position ORDER BY topic, partition")
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, scanCataloguePosition)
}

// BeginCatalogue notes partitions of catalogue topics that were never seen, as
// they are given; the others stay where they are.
func (s *Store) BeginCatalogue(ctx context.Context, positions []handlers.CataloguePosition) (err error) {
	defer wrap(&err, "note the catalogue topics")
	b := &pgx.Batch{}
	for _, p := range positions {
		b.Queue(`INSERT INTO learnsink.catalogue_position (topic, partition, cluster_id, next_offset, first_end) VALUES ($1, $2, $3, $4, $5)
			ON CONFLICT (topic, partition) DO NOTHING`, p.Topic, p.Partition, p.ClusterID, p.NextOffset, p.FirstEnd)
	}
	return s.heed(s.pool.SendBatch(ctx, b).Close())
}

// verbReread is the verb in operation of a catalogue topic that is read again.
const verbReread = "catalog reread"

// RereadCatalogue sets a partition of a catalogue topic back to the start of
// its log: it is another log, or was cut. All that it says is written again,
// which changes nothing where it says the same. Returns handlers.ErrMoved
// where the position is not p's any more.
func (s *Store) RereadCatalogue(ctx context.Context, p handlers.CataloguePosition, clusterID string, start int64, why string) (err error) {
	defer wrap(&err, "read a catalogue topic again")
	return s.operating(ctx, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, `UPDATE learnsink.catalogue_position SET cluster_id = $4, next_offset = $5, records = 0, bad = 0, begun = begun + 1,
			anchor_offset = NULL, anchor_hash = NULL, state = 'running', state_reason = '', updated_at = now()
			WHERE topic = $1 AND partition = $2 AND next_offset = $3`, p.Topic, p.Partition, p.NextOffset, clusterID, start)
		if err != nil {
			return err
		}
		if tag.RowsAffected() == 0 {
			return handlers.ErrMoved
		}
		if _, err := tx.Exec(ctx, `DELETE FROM learnsink.catalogue_bad WHERE topic = $1 AND partition = $2`, p.Topic, p.Partition); err != nil {
			return err
		}
		return note(ctx, tx, Operator{Actor: "serve", Why: why}, verbReread, p.TopicPartition, map[string]any{"from": p.NextOffset, "to": start})
	})
}

// SetCatalogueState shows people what a partition of a catalogue topic is doing.
func (s *Store) SetCatalogueState(ctx context.Context, tp handlers.TopicPartition, state handlers.State, reason string) (err error) {
	defer wrap(&err, "set a catalogue topic's state")
	_, err = s.pool.Exec(ctx, `UPDATE learnsink.catalogue_position SET state = $3, state_reason = $4
		WHERE topic = $1 AND partition = $2 AND (state, state_reason) IS DISTINCT FROM ($3, $4)`, tp.Topic, tp.Partition, state, storable(reason))
	return s.heed(err)
}

// ApplyCatalogue writes what records of catalogue topics say, and moves their
// positions, in one transaction: all of it or nothing. topics are all the
// catalogue topics there are: once each of their partitions has come to its
// first end, consumers need not wait for the catalogue any more; without
// chunks this is all that is looked at.
//
// Where the entries change, the version of the catalogue is raised once, and
// decisions that rest on the one before are taken again. Records that say what
// is stored already raise nothing.
//
// Returns handlers.ErrMoved where a position is not where its chunk begins.
// After any error the positions tell what was written: a COMMIT may have been
// done whose reply was lost.
func (s *Store) ApplyCatalogue(ctx context.Context, topics []string, chunks []handlers.CatalogueChunk) (out handlers.CatalogueOutcome, err error) {
	defer wrap(&err, "apply catalogue records")
	l := &load{counts: map[catalogue.Kind]*LoadCount{}, refused: map[catalogue.Kind]int{}, events: readEvents(chunks)}
	err = pgx.BeginTxFunc(ctx, s.pool, pgx.TxOptions{}, func(tx pgx.Tx) error {
		l.tx = tx
		if err := l.apply(ctx, topics, chunks); err != nil {
			return err
		}
		return tx.QueryRow(ctx, `SELECT (SELECT count(*) FROM learnsink.catalogue_waiting_session) + (SELECT count(*) FROM learnsink.catalogue_waiting_registration),
			(SELECT count(*) FROM learnsink.catalogue_tombstone)`).Scan(&out.Waiting, &out.Held)
	})
	e := l.events
	out.Upserts, out.Tombstones, out.Changed, out.Version = e.upserts, e.dead, e.changed, l.version
	for _, r := range e.bad {
		out.Bad = append(out.Bad, handlers.RecordPlace{TopicPartition: r.TopicPartition, Offset: r.offset})
	}
	for _, c := range l.counts {
		out.Erased += c.Erased
	}
	return out, s.heed(err)
}

// apply is the transaction of records of topics, from top to bottom. A crash
// anywhere before the COMMIT leaves nothing; one after it leaves the positions
// behind the records, which are not read again.
func (l *load) apply(ctx context.Context, topics []string, chunks []handlers.CatalogueChunk) error {
	// 1. One at a time, whether from topics or from files. Then the fence: the
	// positions are what the chunks rest on, and stay so until the end.
	if err := l.begin(ctx); err != nil {
		return err
	}
	if err := l.lockPositions(ctx, chunks); err != nil {
		return err
	}
	erased, err := readErased(ctx, l.tx)
	if err != nil {
		return err
	}
	l.erased = erased
	// 2. What is said anew has not waited for anything.
	if err := l.forgetWaiting(ctx); err != nil {
		return err
	}
	// 3. Kind by kind, whatever a kind refers to first. Consumers see nothing
	// of it before the commit.
	for _, kind := range catalogue.Kinds() {
		n, err := l.stageEvents(ctx, kind, false)
		if err != nil {
			return err
		}
		if n > 0 {
			l.counts[kind] = &LoadCount{Kind: kind, Lines: int64(n), Erased: l.events.erased[kind]}
		}
		if kind == catalogue.Rooms {
			break
		}
		if err := l.mergeAll(ctx, kind); err != nil {
			return err
		}
	}
	// 4. How far the topics are read, and what of them says nothing.
	if err := l.setPositions(ctx, chunks); err != nil {
		return err
	}
	ready, err := l.becomesReady(ctx, topics)
	if err != nil {
		return err
	}
	if !ready && l.events.changed == 0 && l.events.dead == 0 && l.counts[catalogue.Rooms] == nil {
		return nil
	}
	// 5. From here on batches wait (load.run says why): rooms, which they
	// write too, and what nothing refers to any more.
	if _, err := l.tx.Exec(ctx, "SELECT pg_advisory_xact_lock($1)", catalogueLock); err != nil {
		return err
	}
	if err := l.mergeAll(ctx, catalogue.Rooms); err != nil {
		return err
	}
	for _, p := range prunes {
		things, err := l.dead(ctx, p.kind)
		if err != nil {
			return err
		}
		if err := l.bury(ctx, p, things); err != nil {
			return err
		}
	}
	// 6. The catalogue is another one.
	if ready || l.events.changed > 0 {
		return l.raise(ctx, ready)
	}
	return nil
}

// lockPositions locks the positions of chunks, and compares them.
func (l *load) lockPositions(ctx context.Context, chunks []handlers.CatalogueChunk) error {
	chunks = slices.Clone(chunks)
	slices.SortFunc(chunks, func(a, b handlers.CatalogueChunk) int {
		return compareTopicPartitions(a.TopicPartition, b.TopicPartition)
	})
	b := &pgx.Batch{}
	for i, c := range chunks {
		if i > 0 && c.TopicPartition == chunks[i-1].TopicPartition {
			return fmt.Errorf("two chunks of %s/%d", c.Topic, c.Partition) // would be our own bug
		}
		b.Queue(`SELECT next_offset FROM learnsink.catalogue_position WHERE topic = $1 AND partition = $2 FOR UPDATE`, c.Topic, c.Partition).
			QueryRow(func(row pgx.Row) error {
				var next int64
				err := row.Scan(&next)
				if errors.Is(err, pgx.ErrNoRows) || err == nil && next != c.From {
					return fmt.Errorf("%w: %s/%d", handlers.ErrMoved, c.Topic, c.Partition)
				}
				return err
			})
	}
	return l.tx.SendBatch(ctx, b).Close()
}

// setPositions moves the positions behind the chunks, and notes bad records:
// of each partition the last thousand.
func (l *load) setPositions(ctx context.Context, chunks []handlers.CatalogueChunk) error {
	b := &pgx.Batch{}
	bad := map[handlers.TopicPartition]int64{}
	for _, r := range l.events.bad {
		bad[r.TopicPartition]++
		b.Queue(`INSERT INTO learnsink.catalogue_bad (topic, partition, source_offset, why) VALUES ($1, $2, $3, $4)
			ON CONFLICT (topic, partition, source_offset) DO UPDATE SET why = excluded.why`, r.Topic, r.Partition, r.offset, storable(r.why))
	}
	for _, c := range chunks {
		var anchor *int64
		if c.Anchor.OK {
			anchor = &c.Anchor.V.Offset
		}
		b.Queue(`UPDATE learnsink.catalogue_position SET next_offset = $3, records = records + $4, bad = bad + $5, state = 'running', state_reason = '', updated_at = now(),
			anchor_offset = coalesce($6, anchor_offset), anchor_hash = CASE WHEN $6 IS NULL THEN anchor_hash ELSE $7 END WHERE topic = $1 AND partition = $2`,
			c.Topic, c.Partition, c.To, len(c.Records), bad[c.TopicPartition], anchor, c.Anchor.V.Hash)
		if bad[c.TopicPartition] > 0 {
			b.Queue(`DELETE FROM learnsink.catalogue_bad WHERE topic = $1 AND partition = $2 AND source_offset <= (SELECT source_offset
				FROM learnsink.catalogue_bad WHERE topic = $1 AND partition = $2 ORDER BY source_offset DESC OFFSET 1000 LIMIT 1)`, c.Topic, c.Partition)
		}
	}
	return l.tx.SendBatch(ctx, b).Close()
}

// forgetWaiting takes back what waits and is named anew.
func (l *load) forgetWaiting(ctx context.Context) error {
	if l.waits.sessions {
		var ids []int64
		for _, e := range l.events.of[catalogue.Sessions] {
			ids = append(ids, e.line.Session.ID)
		}
		if _, err := l.tx.Exec(ctx, "DELETE FROM learnsink.catalogue_waiting_session WHERE id = ANY ($1)", ids); err != nil {
			return err
		}
	}
	if l.waits.registrations {
		var keys [][]byte
		for i := range l.events.of[catalogue.Registrations] {
			keys = append(keys, waitingKey(&l.events.of[catalogue.Registrations][i].line))
		}
		if _, err := l.tx.Exec(ctx, "DELETE FROM learnsink.catalogue_waiting_registration WHERE key = ANY ($1)", keys); err != nil {
			return err
		}
	}
	return nil
}

// becomesReady reports whether the catalogue is there from now on: nobody has
// loaded one, and every topic has been read to its first end.
func (l *load) becomesReady(ctx context.Context, topics []string) (ready bool, err error) {
	err = l.tx.QueryRow(ctx, `SELECT (SELECT loaded_at IS NULL FROM learnsink.catalogue_version)
		AND count(DISTINCT topic) = cardinality($1::text[]) AND coalesce(bool_and(next_offset >= first_end), false)
		FROM learnsink.catalogue_position WHERE topic = ANY ($1)`, topics).Scan(&ready)
	return ready, err
}

// dead returns the entries that tombstones of a kind name, as far as there are such.
func (l *load) dead(ctx context.Context, kind catalogue.Kind) (things []string, err error) {
	var names []string
	var ids []int64
	for _, e := range l.events.of[kind] {
		switch {
		case !e.tombstone:
		case kind == catalogue.Trainings:
			ids = append(ids, e.line.Training.ID)
		case kind == catalogue.Sessions:
			ids = append(ids, e.line.Session.ID)
		default:
			names = append(names, e.line.Identity())
		}
	}
	if len(names)+len(ids) == 0 {
		return nil, nil
	}
	var rows pgx.Rows
	switch p := pruningOf(kind); kind {
	case catalogue.Registrations:
		return l.deadRegistrations(ctx)
	case catalogue.Trainings, catalogue.Sessions:
		rows, err = l.tx.Query(ctx, "SELECT id::text FROM learnsink."+p.table+" WHERE id = ANY ($1)", ids)
	case catalogue.Learners, catalogue.Teachers:
		rows, err = l.tx.Query(ctx, "SELECT id::text FROM learnsink."+p.table+" WHERE login_folded = ANY ($1)", names)
	default:
		rows, err = l.tx.Query(ctx, "SELECT "+p.id+"::text FROM learnsink."+p.table+" WHERE guid_folded = ANY ($1)", names)
	}
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// deadRegistrations looks up what tombstones mean as it was looked up when
// they were said.
func (l *load) deadRegistrations(ctx context.Context) ([]string, error) {
	if err := l.events.stage(ctx, l, catalogue.Registrations); err != nil {
		return nil, err
	}
	if err := l.exec(ctx, "TRUNCATE load_registrations, load_resolved"); err != nil {
		return nil, err
	}
	l.says = said{}
	if _, err := l.stageEvents(ctx, catalogue.Registrations, true); err != nil {
		return nil, err
	}
	for by, lines := range l.says.by {
		if lines > 0 {
			if err := l.exec(ctx, l.resolution(by)); err != nil {
				return nil, err
			}
		}
	}
	rows, err := l.tx.Query(ctx, `SELECT DISTINCT t.id::text FROM load_resolved s JOIN learnsink.registration t ON t.learner_id = s.learner_id AND t.session_id = s.session_id`)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// bury deletes entries that nothing refers to; the others' tombstones are kept
// until nothing does. It needs the catalogue's lock: batches wait.
func (l *load) bury(ctx context.Context, p pruning, things []string) error {
	if len(things) == 0 {
		return nil
	}
	gone, err := l.remove(ctx, p, things)
	if err != nil || len(gone) == len(things) {
		return err
	}
	_, err = l.tx.Exec(ctx, `INSERT INTO learnsink.catalogue_tombstone (kind, thing)
		SELECT $1, unnest($2::text[]) EXCEPT SELECT $1, unnest($3::text[]) ON CONFLICT (kind, thing) DO NOTHING`, p.kind, things, gone)
	return err
}

// remove deletes those of entries that nothing refers to, with their
// tombstones, and returns which.
func (l *load) remove(ctx context.Context, p pruning, things []string) (gone []string, err error) {
	learner := "0"
	switch p.kind {
	case catalogue.Learners:
		learner = "id"
	case catalogue.Registrations:
		learner = "learner_id"
	}
	rows, err := l.tx.Query(ctx, fmt.Sprintf("DELETE FROM learnsink.%s t WHERE t.%s = %s AND %s RETURNING t.%s::text, %s",
		p.table, p.id, p.among(), p.free, p.id, learner), things)
	if err != nil {
		return nil, err
	}
	var thing string
	var of int32
	if _, err := pgx.ForEachRow(rows, []any{&thing, &of}, func() error {
		gone = append(gone, thing)
		if of != 0 {
			l.events.touch(of)
		}
		return nil
	}); err != nil || len(gone) == 0 {
		return gone, err
	}
	l.events.added(p.kind, int64(len(gone)))
	if l.waits.tombstones {
		_, err = l.tx.Exec(ctx, "DELETE FROM learnsink.catalogue_tombstone WHERE kind = $1 AND thing = ANY ($2)", p.kind, gone)
	}
	return gone, err
}

// among compares the id of an entry with those in $1.
func (p pruning) among() string {
	if p.kind == catalogue.Rooms {
		return "ANY ($1::text[])"
	}
	return "ANY ($1::text[]::bigint[])"
}

// raise makes the catalogue another one, and says what of it changed if that
// is little. Whoever waits for a catalogue waits on until it is ready.
func (l *load) raise(ctx context.Context, ready bool) error {
	var was, becomes int64
	err := l.tx.QueryRow(ctx, `UPDATE learnsink.catalogue_version v SET version = v.version + 1,
		loaded_at = CASE WHEN v.loaded_at IS NULL AND NOT $1 THEN NULL ELSE now() END
		FROM (SELECT `+catalogueIdentity+` AS identity FROM learnsink.catalogue_version) o
		RETURNING v.version, o.identity, v.`+catalogueIdentity, ready).Scan(&l.version, &was, &becomes)
	if err != nil || l.events.wide || l.events.learners == nil {
		return err
	}
	learners := make([]int32, 0, len(l.events.learners))
	for id := range l.events.learners {
		learners = append(learners, id)
	}
	slices.Sort(learners)
	b := &pgx.Batch{}
	b.Queue(`INSERT INTO learnsink.catalogue_change (becomes, was, learners, objects) VALUES ($1, $2, $3, $4)`, becomes, was, learners, l.events.objects)
	b.Queue(`DELETE FROM learnsink.catalogue_change WHERE changed_at < now() - interval '5 minutes'`)
	return l.tx.SendBatch(ctx, b).Close()
}

// SweepCatalogue deletes what tombstones have named and nothing refers to any
// more, and returns how many entries those were. What is free is looked for
// without holding anybody up, and again under the catalogue's lock where there
// is any. Without rows it looks only at what other entries refer to: of
// learning objects no index tells whether rows do, and all of tracking is read.
func (s *Store) SweepCatalogue(ctx context.Context, rows bool) (swept int64, err error) {
	defer wrap(&err, "sweep the catalogue")
	for {
		n, err := s.sweep(ctx, rows)
		swept += n
		if err != nil || n == 0 {
			return swept, s.heed(err)
		}
		// What was referred to by that may be free now.
	}
}

func (s *Store) sweep(ctx context.Context, rows bool) (int64, error) {
	byEntries := []catalogue.Kind{catalogue.Learners, catalogue.Sessions, catalogue.Trainings}
	free := map[catalogue.Kind][]string{}
	found := 0
	if err := s.reading(ctx, func(tx pgx.Tx) error {
		for _, p := range prunes {
			if !rows && !slices.Contains(byEntries, p.kind) {
				continue
			}
			id := "CASE WHEN kind = $1 THEN thing::bigint END" // of other kinds it may be no number
			if p.kind == catalogue.Rooms {
				id = "thing"
			}
			rows, err := tx.Query(ctx, fmt.Sprintf(`SELECT h.thing FROM (SELECT thing, %s AS id FROM learnsink.catalogue_tombstone WHERE kind = $1) h
				LEFT JOIN learnsink.%s t ON t.%s = h.id WHERE t.%[3]s IS NULL OR %[4]s`, id, p.table, p.id, p.free), p.kind)
			if err != nil {
				return err
			}
			if free[p.kind], err = pgx.CollectRows(rows, pgx.RowTo[string]); err != nil {
				return err
			}
			found += len(free[p.kind])
		}
		return nil
	}); err != nil || found == 0 {
		return 0, err
	}
	l := &load{counts: map[catalogue.Kind]*LoadCount{}, refused: map[catalogue.Kind]int{}, events: readEvents(nil)}
	err := pgx.BeginTxFunc(ctx, s.pool, pgx.TxOptions{}, func(tx pgx.Tx) error {
		l.tx = tx
		if err := l.begin(ctx); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock($1)", catalogueLock); err != nil {
			return err
		}
		for _, p := range prunes {
			// Those that have been said anew since are dead no more.
			rows, err := tx.Query(ctx, "SELECT thing FROM learnsink.catalogue_tombstone WHERE kind = $1 AND thing = ANY ($2)", p.kind, free[p.kind])
			if err != nil {
				return err
			}
			things, err := pgx.CollectRows(rows, pgx.RowTo[string])
			if err != nil {
				return err
			}
			if len(things) == 0 {
				continue
			}
			if _, err := l.remove(ctx, p, things); err != nil {
				return err
			}
			// A prune, or an operator, may have been faster.
			if _, err := tx.Exec(ctx, fmt.Sprintf(`DELETE FROM learnsink.catalogue_tombstone h WHERE kind = $1 AND thing = ANY ($2)
				AND NOT EXISTS (SELECT FROM learnsink.%s t WHERE t.%s::text = h.thing)`, p.table, p.id), p.kind, things); err != nil {
				return err
			}
		}
		if l.events.changed > 0 {
			return l.raise(ctx, false)
		}
		return nil
	})
	return l.events.changed, err
}

// CatalogueReady reports whether a catalogue is there: loaded from files, or
// read from topics to the end that they had at first.
func (s *Store) CatalogueReady(ctx context.Context) (ready bool, err error) {
	defer wrap(&err, "read the catalogue's version")
	err = s.pool.QueryRow(ctx, "SELECT loaded_at IS NOT NULL FROM learnsink.catalogue_version").Scan(&ready)
	return ready, err
}

// BadCatalogueRecord is a record of a catalogue topic that says nothing that
// can be stored.
type BadCatalogueRecord struct {
	handlers.TopicPartition
	Offset int64
	Why    string // names columns, nothing that stands in them
	SeenAt time.Time
}

// CatalogueTopicsStatus is how the catalogue topics stand.
type CatalogueTopicsStatus struct {
	Positions []handlers.CataloguePosition
	Bad       []BadCatalogueRecord // the last that were seen
	// Waiting is how many entries of a kind wait for what they refer to, Held
	// how many tombstones of it for what refers to them to go; both in the
	// order of kinds.
	Waiting, Held []CatalogueCount
}

// CatalogueTopicsStatus tells how the catalogue topics stand, with the last bad records.
func (s *Store) CatalogueTopicsStatus(ctx context.Context, bad int) (status CatalogueTopicsStatus, err error) {
	defer wrap(&err, "read how the catalogue topics stand")
	err = s.reading(ctx, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, "SELECT "+cataloguePositionColumns+" FROM learnsink.catalogue_position ORDER BY topic, partition")
		if err != nil {
			return err
		}
		if status.Positions, err = pgx.CollectRows(rows, scanCataloguePosition); err != nil {
			return err
		}
		if rows, err = tx.Query(ctx, `SELECT topic, partition, source_offset, why, seen_at FROM learnsink.catalogue_bad
			ORDER BY seen_at DESC, topic, partition, source_offset DESC LIMIT $1`, bad); err != nil {
			return err
		}
		if status.Bad, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (b BadCatalogueRecord, err error) {
			err = row.Scan(&b.Topic, &b.Partition, &b.Offset, &b.Why, &b.SeenAt)
			b.SeenAt = b.SeenAt.UTC()
			return b, err
		}); err != nil {
			return err
		}
		counts := func(query string) ([]CatalogueCount, error) {
			rows, err := tx.Query(ctx, query)
			if err != nil {
				return nil, err
			}
			found, err := pgx.CollectRows(rows, pgx.RowToStructByPos[CatalogueCount])
			slices.SortFunc(found, func(a, b CatalogueCount) int {
				return slices.Index(catalogue.Kinds(), catalogue.Kind(a.Kind)) - slices.Index(catalogue.Kinds(), catalogue.Kind(b.Kind))
			})
			return found, err
		}
		if status.Waiting, err = counts(`SELECT kind, n FROM (SELECT 'sessions', count(*) FROM learnsink.catalogue_waiting_session
			UNION ALL SELECT 'registrations', count(*) FROM learnsink.catalogue_waiting_registration) c(kind, n) WHERE n > 0`); err != nil {
			return err
		}
		status.Held, err = counts(`SELECT kind, count(*) FROM learnsink.catalogue_tombstone GROUP BY kind`)
		return err
	})
	return status, err
}

// LeadCatalogue calls work as the one reader of the catalogue topics among all
// processes, and returns its error; led is false where another is it, and work
// was not called. check, which work is given, returns an error where the lead
// is lost, or may be. Positions are compared all the same: a reader that has
// lost the lead and does not know yet can write nothing.
func (s *Store) LeadCatalogue(ctx context.Context, work func(check func(context.Context) error) error) (led bool, err error) {
	// Beside the pool: it is held for as long as the process lives.
	conn, err := pgx.ConnectConfig(ctx, s.pool.Config().ConnConfig.Copy())
	if err != nil {
		return false, scrub(err, "take the lead in reading the catalogue topics")
	}
	defer closeSoon(conn)
	if err := conn.QueryRow(ctx, "SELECT pg_try_advisory_lock($1)", leadLock).Scan(&led); err != nil || !led {
		wrap(&err, "take the lead in reading the catalogue topics")
		return false, err
	}
	return true, work(func(ctx context.Context) (err error) {
		defer wrap(&err, "keep the lead in reading the catalogue topics")
		_, err = conn.Exec(ctx, "SELECT 1")
		return err
	})
}

// leadLock is the advisory lock of the one reader of the catalogue topics.
const leadLock int64 = 0x636174616c6f67 // "catalog"

func closeSoon(conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	_ = conn.Close(ctx)
}

func compareTopicPartitions(a, b handlers.TopicPartition) int {
	if a.Topic != b.Topic {
		if a.Topic < b.Topic {
			return -1
		}
		return 1
	}
	return a.Partition - b.Partition
}

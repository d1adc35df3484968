package store

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"learnsink/handlers"
)

// Letter is a dead letter, as far as judging it again needs to know it.
type Letter struct {
	ID    string
	State string
	// Record is the original, where it stood: its topic, partition, offset and
	// incarnation, its key, value and own headers.
	Record  handlers.Record
	EventAt time.Time
	Attempt int // how often it was judged so far
}

const letterColumns = `r.id, r.state, r.source_topic, r.source_partition, r.source_offset, r.incarnation, r.key, r.value, r.headers, r.event_at, r.attempt`

// scanLetter scans letterColumns, and what comes behind them.
func scanLetter(row pgx.CollectableRow, more ...any) (l Letter, err error) {
	var headers []byte
	rec := &l.Record
	if err := row.Scan(append([]any{&l.ID, &l.State, &rec.Topic, &rec.Partition, &rec.Offset, &rec.Incarnation, &rec.Key, &rec.Value, &headers, &l.EventAt, &l.Attempt}, more...)...); err != nil {
		return l, err
	}
	l.EventAt = l.EventAt.UTC()
	rec.Timestamp = l.EventAt
	rec.Headers = headersOf(headers)
	return l, nil
}

// LettersByID returns the dead letters of ids, in the order in which a job
// sends them. Those that are not there are left out.
func (s *Store) LettersByID(ctx context.Context, ids []string) (_ []Letter, err error) {
	defer wrap(&err, "read the dead letters")
	rows, err := s.pool.Query(ctx, `SELECT `+letterColumns+` FROM learnsink.rejection r WHERE r.id = ANY ($1::text[])
		ORDER BY r.source_topic, r.source_partition, r.incarnation, r.source_offset`, ids)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (Letter, error) { return scanLetter(row) })
}

// CompareLetters orders dead letters as a job sends them.
func CompareLetters(a, b Letter) int {
	return cmp.Or(strings.Compare(a.Record.Topic, b.Record.Topic), cmp.Compare(a.Record.Partition, b.Record.Partition),
		cmp.Compare(max(a.Record.Incarnation, 1), max(b.Record.Incarnation, 1)), cmp.Compare(a.Record.Offset, b.Record.Offset))
}

// HeldLetter is a dead letter that the table holds.
type HeldLetter struct {
	Letter
	// Of is the id by which it was looked for: its own, or, where the line of
	// the original is gone, that of the original whose attempt it is.
	Of string
}

// LettersHeld returns those dead letters of ids that the table holds, and of
// those that are gone the attempt that has taken their place.
func (s *Store) LettersHeld(ctx context.Context, ids []string) (_ []HeldLetter, err error) {
	defer wrap(&err, "read the dead letters")
	rows, err := s.pool.Query(ctx, `SELECT `+letterColumns+`, r.of FROM (
		SELECT r.*, r.id AS of FROM learnsink.rejection r WHERE r.id = ANY ($1::text[])
		UNION ALL
		(SELECT DISTINCT ON (r.replay_of) r.*, r.replay_of FROM learnsink.rejection r WHERE r.replay_of = ANY ($1::text[])
		  AND NOT EXISTS (SELECT FROM learnsink.rejection o WHERE o.id = r.replay_of) ORDER BY r.replay_of, r.attempt DESC)) r
		ORDER BY r.source_topic, r.source_partition, r.incarnation, r.source_offset`, ids)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (h HeldLetter, err error) {
		h.Letter, err = scanLetter(row, &h.Of)
		return h, err
	})
}

// LostLetter is a dead letter that the table does not hold any more, as its
// dead-letter topic has it.
type LostLetter struct {
	Letter
	Source *handlers.Source
	Errors []handlers.Error
	Rules  string // the hash of the settings it was judged by
}

// putBackLock keeps those who put dead letters back from each other.
const putBackLock int64 = 0x6c6561726f

// PutBack puts dead letters back into the table, as open ones that were
// rejected today, so that they are kept as long as others. One that is there
// stays as it is, and one of an erased person stays away. It returns how many
// were put back.
func (s *Store) PutBack(ctx context.Context, letters []LostLetter) (n int64, err error) {
	defer wrap(&err, "put dead letters back")
	if len(letters) == 0 {
		return 0, nil
	}
	err = s.operating(ctx, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock($1)", putBackLock); err != nil {
			return err
		}
		n = 0
		// What topics still hold of erased persons does not come back.
		erased, err := readErased(ctx, tx)
		if err != nil {
			return err
		}
		for page := range slices.Chunk(letters, 1000) {
			lost, err := notThere(ctx, tx, page)
			if err != nil {
				return err
			}
			lost = slices.DeleteFunc(lost, func(l LostLetter) bool {
				return erased != nil && handlers.NewNamer(l.Source.Rules.Action(), erased).Names(&l.Record)
			})
			if err := putBack(ctx, tx, lost); err != nil {
				return err
			}
			n += int64(len(lost))
		}
		return nil
	})
	return n, err
}

// notThere returns those of letters that the table does not hold.
func notThere(ctx context.Context, tx pgx.Tx, letters []LostLetter) ([]LostLetter, error) {
	ids := make([]string, len(letters))
	for i := range letters {
		ids[i] = letters[i].ID
	}
	rows, err := tx.Query(ctx, "SELECT id FROM learnsink.rejection WHERE id = ANY ($1::text[])", ids)
	if err != nil {
		return nil, err
	}
	held := map[string]bool{}
	var id string
	if _, err := pgx.ForEachRow(rows, []any{&id}, func() error { held[id] = true; return nil }); err != nil {
		return nil, err
	}
	return slices.DeleteFunc(slices.Clone(letters), func(l LostLetter) bool { return held[l.ID] }), nil
}

// putBack writes dead letters as Apply does, and what Apply would not know of them.
func putBack(ctx context.Context, tx pgx.Tx, letters []LostLetter) error {
	var ids, rules []string
	var attempts []int32
	batch := &pgx.Batch{}
	for len(letters) > 0 {
		from, of := letters[0].Record, 0
		w := &writes{batch: &handlers.Batch{Source: &handlers.Source{Topic: from.Topic, Rules: letters[0].Source.Rules}, Partition: from.Partition},
			rejections: rejectionRows{faults: newFaultRows()}}
		for of < len(letters) && letters[of].Record.Topic == from.Topic && letters[of].Record.Partition == from.Partition {
			l := &letters[of]
			w.rejections.add(&handlers.Decision{Record: &l.Record, Rules: l.Source.Rules, EventTime: l.EventAt, Verdict: handlers.Rejected, Errors: l.Errors}, false)
			ids, rules, attempts = append(ids, l.ID), append(rules, l.Rules), append(attempts, int32(l.Attempt))
			of++
		}
		w.queueRows(batch, false)
		letters = letters[of:]
	}
	batch.Queue(`UPDATE learnsink.rejection r SET attempt = u.attempt, rules = u.rules
		FROM unnest($1::text[], $2::integer[], $3::text[]) AS u(id, attempt, rules) WHERE r.id = u.id`, ids, attempts, rules)
	return tx.SendBatch(ctx, batch).Close()
}

// SelectRejections returns the ids of all that a filter means, in the order in
// which a job sends them.
func (s *Store) SelectRejections(ctx context.Context, f RejectionFilter) (ids []string, err error) {
	defer wrap(&err, "select the rejections")
	if err := f.Check(); err != nil {
		return nil, err
	}
	err = s.reading(ctx, func(tx pgx.Tx) error {
		faults, err := f.faultIDs(ctx, tx, false)
		if err != nil || faults != nil && len(faults) == 0 {
			return err
		}
		query, args := f.selectQuery(faults)
		rows, err := tx.Query(ctx, query, args...)
		if err != nil {
			return err
		}
		ids, err = pgx.CollectRows(rows, pgx.RowTo[string])
		return err
	})
	return ids, err
}

func (f *RejectionFilter) selectQuery(faults []int64) (string, []any) {
	var a sqlArgs
	where := append(append([]string{"true"}, f.onRejection(&a)...), f.shared(&a)...)
	if len(f.States) > 0 {
		var states []string
		for _, s := range f.States {
			states = append(states, string(s))
		}
		where = append(where, "r.state = ANY ("+a.add(states)+"::text[])")
	}
	if faults != nil || f.Value != "" { // one and the same error
		on := append([]string{"true"}, f.onFault(&a)...)
		if faults != nil {
			on = append(on, "f.fault = ANY ("+a.add(faults)+"::bigint[])")
		}
		where = append(where, "r.seq IN (SELECT f.seq FROM learnsink.rejection_fault f WHERE "+strings.Join(on, " AND ")+")")
	}
	return "SELECT r.id FROM learnsink.rejection r WHERE " + strings.Join(where, " AND ") +
		" ORDER BY r.source_topic, r.source_partition, r.incarnation, r.source_offset", a
}

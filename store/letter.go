package store

import (
	"context"
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

func scanLetter(row pgx.CollectableRow) (l Letter, err error) {
	var headers []byte
	rec := &l.Record
	if err := row.Scan(&l.ID, &l.State, &rec.Topic, &rec.Partition, &rec.Offset, &rec.Incarnation, &rec.Key, &rec.Value, &headers, &l.EventAt, &l.Attempt); err != nil {
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
	return pgx.CollectRows(rows, scanLetter)
}

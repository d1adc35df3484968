package store

import (
	"context"

	"github.com/jackc/pgx/v5"

	"learnsink/handlers"
	"learnsink/store/catalogue"
)

// selectErased asks who was erased, unless that is known of this catalogue: an
// erasure makes it another one.
const selectErased = `
SELECT k.secret, e.hash FROM learnsink.erased e CROSS JOIN learnsink.erased_key k
WHERE (SELECT ` + catalogueIdentity + ` FROM learnsink.catalogue_version) <> $1`

func collectErased(rows pgx.Rows, secret *[]byte, hashes *[]handlers.IdentityHash) error {
	var hash []byte
	_, err := pgx.ForEachRow(rows, []any{secret, &hash}, func() error {
		*hashes = append(*hashes, handlers.IdentityHash(hash))
		return nil
	})
	return err
}

// ErasedRows is how many rows of a batch are of persons who were erased, so
// that they have no outcome. Which ones they are nobody knows any more.
type ErasedRows struct {
	From, To int64 // source offsets [From, To)
	Rows     int64
}

// ErasedRows returns the batches of a log, within [from, to), in which there
// are rows of persons who were erased, in order.
func (s *Store) ErasedRows(ctx context.Context, log Log, from, to int64) (_ []ErasedRows, err error) {
	defer wrap(&err, "read the ledger")
	rows, err := s.pool.Query(ctx, `SELECT from_offset, end_offset, (SELECT sum((c ->> 'rows')::bigint)::bigint FROM jsonb_array_elements(counts) c WHERE c ->> 'outcome' = 'erased')
		FROM (`+standing+`) AS g WHERE topic = $1 AND partition = $2 AND incarnation = $3 AND end_offset > $4 AND from_offset < $5
		AND counts @> '[{"outcome": "erased"}]' ORDER BY from_offset`, log.Topic, log.Partition, log.Incarnation, from, to)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[ErasedRows])
}

// readErased reads who was erased.
func readErased(ctx context.Context, tx pgx.Tx) (*handlers.Erased, error) {
	var secret []byte
	var hashes []handlers.IdentityHash
	rows, err := tx.Query(ctx, selectErased, 0)
	if err == nil {
		err = collectErased(rows, &secret, &hashes)
	}
	return handlers.NewErased(secret, hashes), err
}

// ofErased reports whether a line of a catalogue file is an erased person's:
// by its key, the login. Another account may have their e-mail since.
func (l *load) ofErased(line *catalogue.Line) bool {
	switch {
	case l.erased == nil:
	case line.Learner != nil:
		return l.erased.Has(handlers.NewIdentity(handlers.LearnerLogin, line.Learner.Login))
	case line.Teacher != nil:
		return l.erased.Has(handlers.NewIdentity(handlers.TeacherLogin, line.Teacher.Login))
	}
	return false
}

// passErased takes the registrations of erased persons out: they name nobody
// whom the catalogue knows, and that is no fault of the file.
func (l *load) passErased(ctx context.Context, count *LoadCount) error {
	rows, err := l.tx.Query(ctx, `SELECT place, coalesce(r.login, ''), coalesce(r.ref, ''), coalesce(r.email, '')
FROM load_registrations r JOIN load_resolved s USING (place) WHERE s.learner_id IS NULL`)
	if err != nil {
		return err
	}
	var place int64
	var login, ref, email string
	var places []int64
	if _, err := pgx.ForEachRow(rows, []any{&place, &login, &ref, &email}, func() error {
		for _, id := range []handlers.Identity{{Kind: handlers.LearnerLogin, Text: login}, {Kind: handlers.LearnerRefNumber, Text: ref}, {Kind: handlers.LearnerEmail, Text: email}} {
			if l.erased.Has(id) {
				places = append(places, place)
				break
			}
		}
		return nil
	}); err != nil || len(places) == 0 {
		return err
	}
	count.Lines -= int64(len(places))
	count.Erased += int64(len(places))
	_, err = l.tx.Exec(ctx, "DELETE FROM load_resolved WHERE place = ANY ($1)", places)
	return err
}

package store

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"

	"github.com/jackc/pgx/v5"

	"learnsink/handlers"
)

// bulk reads the whole catalogue of learners and registrations into the cache,
// where it fits. A lookup costs PostgreSQL some 8 µs, a line of a COPY less
// than one; so once lookups of a kind have cost as much as a part of the
// reading would, it is begun, beside the work. Until it is done, and where it
// fails, lookups go on.
type bulk struct {
	misses  [kinds]int // lookups of this catalogue, by kind
	running bool
	tried   [kinds]bool // read, or too large: not again for this catalogue
	recent  []*change   // of the catalogue, small ones, the last of them to the present one

	// end stops what runs when the store is closed.
	end     context.CancelFunc
	context context.Context
	group   sync.WaitGroup
}

// bulkAfter is how many lookups of a kind are answered one by one.
const bulkAfter = 3000

func (b *bulk) forget() { b.misses, b.tried, b.recent = [kinds]int{}, [kinds]bool{}, nil }

func (b *bulk) missed(ref handlers.LearnerRef) {
	kind, _ := keyOf(ref)
	b.misses[kind]++
}

// due returns the kinds that are worth reading at once, if it is time.
func (b *bulk) due() (want [kinds]bool, due bool) {
	for kind := range bySeveral {
		want[kind] = b.misses[kind] >= bulkAfter
		due = due || want[kind] && !b.tried[kind]
	}
	return want, due && !b.running
}

// warm begins to read the catalogue at once, if that is due.
func (s *Store) warm() {
	c := &s.cache
	c.mu.Lock()
	defer c.mu.Unlock()
	want, due := c.bulk.due()
	if !due || c.bulk.context.Err() != nil {
		return
	}
	c.bulk.running = true
	for kind := range want {
		c.bulk.tried[kind] = c.bulk.tried[kind] || want[kind]
	}
	c.bulk.group.Go(func() {
		a, version, err := s.readCatalogue(c.bulk.context, want)
		if err == nil {
			err = s.catchUp(c.bulk.context) // that may be of a later catalogue than what is remembered
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.bulk.running = false
		switch {
		case err != nil: // once as many lookups more have been made
			c.bulk.forget()
		case a != nil && c.bring(a, version):
			c.whole = a
		}
	})
}

// The texts by which learners are known, each with the one learner that is
// meant: where several have it, the oldest.
var selectAllLearners = [bySeveral]string{
	byLogin: `SELECT login_folded, id FROM learnsink.learner`,
	byRefNumber: `SELECT DISTINCT ON (ref_number) ref_number, id FROM learnsink.learner WHERE ref_number IS NOT NULL
ORDER BY ref_number, created_at NULLS LAST, login_folded`,
	byEmail: `SELECT DISTINCT ON (email_folded) email_folded, id FROM learnsink.learner WHERE email_folded IS NOT NULL
ORDER BY email_folded, created_at NULLS LAST, login_folded`,
}

// readCatalogue reads all learners by the kinds that are wanted, with all
// registrations, and the learning objects; nil where that would be more than wholeBytes.
func (s *Store) readCatalogue(ctx context.Context, want [kinds]bool) (a *answers, version int64, err error) {
	defer wrap(&err, "read the catalogue")
	err = s.reading(ctx, func(tx pgx.Tx) error {
		var learners, registrations int
		var lastLearner, lastRegistration int64
		if err := tx.QueryRow(ctx, `SELECT `+catalogueIdentity+`,
  (SELECT greatest(reltuples, 0)::bigint FROM pg_class WHERE oid = 'learnsink.learner'::regclass),
  (SELECT greatest(reltuples, 0)::bigint FROM pg_class WHERE oid = 'learnsink.registration'::regclass),
  (SELECT coalesce(max(id), 0) FROM learnsink.learner), (SELECT coalesce(max(id), 0) FROM learnsink.registration)
FROM learnsink.catalogue_version`).Scan(&version, &learners, &registrations, &lastLearner, &lastRegistration); err != nil {
			return err
		}
		size := registrations*12 + learners*11 // entries, and where they begin
		for kind := range bySeveral {
			if want[kind] {
				size += learners * 40 // a text, and its slot
			}
		}
		if size > wholeBytes || !fits(lastRegistration) {
			return nil
		}
		whole := newAnswers()
		if err := whole.readPlaces(ctx, tx); err != nil {
			return err
		}
		if err := whole.readObjects(ctx, tx); err != nil {
			return err
		}
		learners += learners / 50 // an estimate, which is not to double the tables by being short
		if lastLearner <= 2*int64(learners)+1024 {
			whole.registrations.first = make([]uint32, lastLearner+1)
		} else {
			whole.registrations.grow(learners)
		}
		for kind := range bySeveral {
			if !want[kind] {
				continue
			}
			whole.learners[kind].grow(learners)
			if err := copyOut(ctx, tx, selectAllLearners[kind], func(c [][]byte) {
				id := int32(binary.BigEndian.Uint32(c[1]))
				whole.learners[kind].put(string(c[0]), id)
				whole.registrations.begin(int64(id))
			}); err != nil {
				return err
			}
			whole.complete[kind] = true
		}
		if err := copyOut(ctx, tx, `SELECT learner_id, session_id, id FROM learnsink.registration`, func(c [][]byte) {
			learner := int64(int32(binary.BigEndian.Uint32(c[0])))
			place, ok := whole.placeOf[int64(binary.BigEndian.Uint64(c[1]))]
			if !ok {
				return // of a session that is no more: nothing can refer to it
			}
			whole.registrations.begin(learner)
			whole.registrations.add(learner, place, int64(binary.BigEndian.Uint64(c[2])))
		}); err != nil {
			return err
		}
		a = whole
		return nil
	})
	return a, version, err
}

// maxObjects is how many learning objects are read at once.
const maxObjects = 50_000

// readObjects reads all learning objects, unless they are too many.
func (a *answers) readObjects(ctx context.Context, tx pgx.Tx) error {
	rows, err := tx.Query(ctx, `SELECT guid_folded, id, guid, coalesce(code, ''), provider FROM learnsink.learning_object ORDER BY guid_folded LIMIT $1`, maxObjects+1)
	if err != nil {
		return err
	}
	var key string
	var o handlers.LearningObject
	if _, err = pgx.ForEachRow(rows, []any{&key, &o.ID, &o.GUID, &o.Code, &o.Provider}, func() error {
		a.addObject(objectsByGUID, key, o)
		if o.Code != "" {
			a.addObject(objectsByCode, o.Code, o) // the first one of its code
		}
		return nil
	}); err != nil {
		return err
	}
	if a.allObjects = len(a.byGUID) <= maxObjects; !a.allObjects {
		clear(a.byGUID)
		clear(a.byCode)
	}
	return nil
}

// readPlaces reads all sessions with their trainings.
func (a *answers) readPlaces(ctx context.Context, tx pgx.Tx) error {
	rows, err := tx.Query(ctx, `SELECT `+sessionColumns+`, `+trainingColumns+` FROM learnsink.session s JOIN learnsink.training t ON t.id = s.training_id`)
	if err != nil {
		return err
	}
	trainings := map[int64]*handlers.Training{}
	var s handlers.Session
	var t handlers.Training
	_, err = pgx.ForEachRow(rows, []any{&s.ID, &s.TrainingID, &s.GUID, &s.GUIDFolded, &s.Title, &t.ID, &t.GUID, &t.GUIDFolded, &t.PathCode}, func() error {
		session := s
		if trainings[t.ID] == nil {
			training := t
			trainings[t.ID] = &training
		}
		a.placeFor(&session, trainings[t.ID])
		return nil
	})
	return err
}

// copyOut calls each with every row of a query, its columns in PostgreSQL's binary form.
func copyOut(ctx context.Context, tx pgx.Tx, query string, each func(columns [][]byte)) error {
	r := &copyReader{each: each}
	if _, err := tx.Conn().PgConn().CopyTo(ctx, r, "COPY ("+query+") TO STDOUT (FORMAT binary)"); err != nil {
		return err
	}
	if !r.ended {
		return fmt.Errorf("a COPY ended amid a row")
	}
	return nil
}

// copyReader takes the rows out of COPY's binary format, however they are cut
// into pieces. No column may be NULL.
type copyReader struct {
	each    func(columns [][]byte)
	begun   bool // the header is behind
	ended   bool
	rest    []byte // the beginning of a row
	columns [][]byte
}

const copyHeader = len("PGCOPY\n\377\r\n\000") + 4 + 4

// Write is io.Writer's.
func (r *copyReader) Write(p []byte) (int, error) {
	b := p
	if len(r.rest) > 0 {
		r.rest = append(r.rest, p...)
		b = r.rest
	}
	if !r.begun {
		if len(b) < copyHeader {
			r.rest = append(r.rest[:0], b...)
			return len(p), nil
		}
		b, r.begun = b[copyHeader:], true
	}
	for {
		n, ok := r.row(b)
		if !ok {
			break
		}
		b = b[n:]
	}
	r.rest = append(r.rest[:0], b...)
	return len(p), nil
}

// row reads the row at the front of b; false: it is not all there.
func (r *copyReader) row(b []byte) (size int, ok bool) {
	if len(b) < 2 {
		return 0, false
	}
	count, at := int16(binary.BigEndian.Uint16(b)), 2
	if count < 0 { // the end
		r.ended = true
		return len(b), false
	}
	r.columns = r.columns[:0]
	for range count {
		if len(b) < at+4 {
			return 0, false
		}
		n := int(binary.BigEndian.Uint32(b[at:]))
		if at += 4; len(b) < at+n {
			return 0, false
		}
		r.columns = append(r.columns, b[at:at+n:at+n])
		at += n
	}
	r.each(r.columns)
	return at, true
}

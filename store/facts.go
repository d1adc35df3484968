package store

import (
	"context"
	"maps"
	"slices"

	"github.com/jackc/pgx/v5"

	"learnsink/handlers"
)

// Facts answers the references of a batch as of one catalogue: from memory
// what is known there, the rest from one snapshot of the database. Returns
// handlers.ErrNoCatalogue until a catalogue has been loaded.
func (s *Store) Facts(ctx context.Context, refs *handlers.References) (facts *handlers.Facts, err error) {
	defer wrap(&err, "read the catalogue")
	f := handlers.NewFacts(0)
	rest := s.cache.answer(refs, f)
	if rest == nil {
		return f, nil
	}
	known := f.Version
	asked, err := s.ask(ctx, rest)
	if err == nil && known != 0 && asked.Version != known {
		// What is known is of another catalogue than what was asked now.
		if err := s.catchUp(ctx); err != nil {
			return nil, err
		}
		f = handlers.NewFacts(0)
		if rest = s.cache.answer(refs, f); rest == nil {
			return f, nil
		}
		known = f.Version
		asked, err = s.ask(ctx, rest)
	}
	if err == nil && known != 0 && asked.Version != known { // and it has changed again
		rest, known = refs, 0
		asked, err = s.ask(ctx, refs)
	}
	if err != nil {
		return nil, err
	}
	s.cache.keep(asked, rest)
	s.warm()
	if known == 0 {
		return asked, nil
	}
	maps.Copy(f.Learners, asked.Learners)
	maps.Copy(f.Registrations, asked.Registrations)
	maps.Copy(f.LearningObjectsByGUID, asked.LearningObjectsByGUID)
	maps.Copy(f.LearningObjectsByCode, asked.LearningObjectsByCode)
	f.Erased = asked.Erased
	f.TrainingsByGUID, f.TrainingsByPathCode, f.Sessions, f.Teachers = asked.TrainingsByGUID, asked.TrainingsByPathCode, asked.Sessions, asked.Teachers
	f.Contexts = asked.Contexts
	return f, nil
}

// FactsNow answers like Facts, by the catalogue that the database holds at this
// moment: nothing that is remembered is used, and nothing is remembered. It is
// for who applies nothing, and so would not be told of another catalogue.
func (s *Store) FactsNow(ctx context.Context, refs *handlers.References) (facts *handlers.Facts, err error) {
	defer wrap(&err, "read the catalogue")
	return s.ask(ctx, refs)
}

// ask answers references from the database in two round trips: a set-based
// query a kind, the registrations last, since they rest on which learners are
// meant.
func (s *Store) ask(ctx context.Context, refs *handlers.References) (*handlers.Facts, error) {
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Release() // a connection that is left within a transaction is closed by the pool

	f := handlers.NewFacts(0)
	erased, known := s.cache.whoWasErased()
	loaded := false
	first := &pgx.Batch{}
	first.Queue("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
	first.Queue(planByKey)
	first.Queue("SELECT " + catalogueIdentity + ", loaded_at IS NOT NULL FROM learnsink.catalogue_version").QueryRow(func(row pgx.Row) error {
		return row.Scan(&f.Version, &loaded)
	})
	var secret []byte
	var hashes []handlers.IdentityHash
	first.Queue(selectErased, known).Query(func(rows pgx.Rows) error { return collectErased(rows, &secret, &hashes) })
	queueLearners(first, refs, f)
	queueLearningObjects(first, refs, f)
	queueTrainings(first, refs, f)
	queueTeachers(first, refs, f)
	queueContexts(first, refs, f)
	if err := conn.SendBatch(ctx, first).Close(); err != nil {
		return nil, err
	}
	if f.Erased = erased; f.Version != known {
		f.Erased = handlers.NewErased(secret, hashes)
	}
	second := &pgx.Batch{}
	if loaded {
		queueRegistrations(second, f)
	}
	second.Queue("COMMIT")
	if err := conn.SendBatch(ctx, second).Close(); err != nil {
		return nil, err
	}
	if !loaded {
		return nil, handlers.ErrNoCatalogue
	}
	return f, nil
}

// Each of the three names a learner by what is said of him first: login, else
// reference number, else e-mail; what else is said must fit as well. Of
// several the oldest is meant: the order of the indexes.
const (
	selectLearnersByLogin = `
SELECT q.i, l.id
FROM unnest($1::text[], $2::text[], $3::text[]) WITH ORDINALITY AS q(login, ref, email, i)
JOIN learnsink.learner l ON l.login_folded = q.login
WHERE (q.ref = '' OR l.ref_number = q.ref) AND (q.email = '' OR l.email_folded = q.email)`

	selectLearnersByRefNumber = `
SELECT q.i, l.id
FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS q(ref, email, i)
CROSS JOIN LATERAL (
  SELECT id FROM learnsink.learner
  WHERE ref_number = q.ref AND (q.email = '' OR email_folded = q.email)
  ORDER BY created_at NULLS LAST, login_folded LIMIT 1) l`

	selectLearnersByEmail = `
SELECT q.i, l.id
FROM unnest($1::text[]) WITH ORDINALITY AS q(email, i)
CROSS JOIN LATERAL (
  SELECT id FROM learnsink.learner
  WHERE email_folded = q.email
  ORDER BY created_at NULLS LAST, login_folded LIMIT 1) l`
)

func queueLearners(b *pgx.Batch, refs *handlers.References, f *handlers.Facts) {
	var byLogin, byRef, byEmail []handlers.LearnerRef
	for ref := range refs.Learners {
		switch {
		case ref.Login != "":
			byLogin = append(byLogin, ref)
		case ref.RefNumber != "":
			byRef = append(byRef, ref)
		case ref.Email != "":
			byEmail = append(byEmail, ref)
		}
	}
	logins := func(r handlers.LearnerRef) string { return r.Login }
	refNumbers := func(r handlers.LearnerRef) string { return r.RefNumber }
	emails := func(r handlers.LearnerRef) string { return r.Email }
	queue := func(asked []handlers.LearnerRef, query string, columns ...func(handlers.LearnerRef) string) {
		if len(asked) == 0 {
			return
		}
		args := make([]any, len(columns))
		for i, column := range columns {
			texts := make([]string, len(asked))
			for j, ref := range asked {
				texts[j] = column(ref)
			}
			args[i] = texts
		}
		b.Queue(query, args...).Query(func(rows pgx.Rows) error {
			var i, id int64
			_, err := pgx.ForEachRow(rows, []any{&i, &id}, func() error {
				f.Learners[asked[i-1]] = id
				return nil
			})
			return err
		})
	}
	queue(byLogin, selectLearnersByLogin, logins, refNumbers, emails)
	queue(byRef, selectLearnersByRefNumber, refNumbers, emails)
	queue(byEmail, selectLearnersByEmail, emails)
}

const (
	selectObjectsByGUID = `
SELECT guid_folded, id, guid, coalesce(code, ''), provider
FROM learnsink.learning_object WHERE guid_folded = ANY ($1::text[])`

	selectObjectsByCode = `
SELECT q.code, o.id, o.guid, q.code, o.provider
FROM unnest($1::text[]) AS q(code)
CROSS JOIN LATERAL (
  SELECT id, guid, provider FROM learnsink.learning_object WHERE code = q.code ORDER BY guid_folded LIMIT 1) o`
)

func queueLearningObjects(b *pgx.Batch, refs *handlers.References, f *handlers.Facts) {
	queue := func(asked map[string]struct{}, query string, answers map[string]handlers.LearningObject) {
		if len(asked) == 0 {
			return
		}
		b.Queue(query, keys(asked)).Query(func(rows pgx.Rows) error {
			var key string
			var o handlers.LearningObject
			_, err := pgx.ForEachRow(rows, []any{&key, &o.ID, &o.GUID, &o.Code, &o.Provider}, func() error {
				answers[key] = o
				return nil
			})
			return err
		})
	}
	queue(refs.LearningObjectGUIDs, selectObjectsByGUID, f.LearningObjectsByGUID)
	queue(refs.LearningObjectCodes, selectObjectsByCode, f.LearningObjectsByCode)
}

const (
	trainingColumns = `t.id, coalesce(t.guid, ''), coalesce(t.guid_folded, ''), coalesce(t.path_code, '')`
	sessionColumns  = `s.id, s.training_id, coalesce(s.guid, ''), coalesce(s.guid_folded, ''), coalesce(s.title, '')`

	selectTrainings = `
SELECT ` + trainingColumns + `
FROM learnsink.training t WHERE t.guid_folded = ANY ($1::text[]) OR t.path_code = ANY ($2::text[])
ORDER BY t.id`

	selectSessions = `
SELECT ` + sessionColumns + `
FROM learnsink.session s
WHERE (s.guid_folded = ANY ($3::text[]) OR s.title = ANY ($4::text[]))
  AND s.training_id IN (
    SELECT id FROM learnsink.training WHERE guid_folded = ANY ($1::text[]) OR path_code = ANY ($2::text[]))
ORDER BY s.id`
)

func queueTrainings(b *pgx.Batch, refs *handlers.References, f *handlers.Facts) {
	if len(refs.TrainingGUIDs)+len(refs.TrainingPathCodes) == 0 {
		return
	}
	guids, codes := keys(refs.TrainingGUIDs), keys(refs.TrainingPathCodes)
	b.Queue(selectTrainings, guids, codes).Query(func(rows pgx.Rows) error {
		var t handlers.Training
		_, err := pgx.ForEachRow(rows, []any{&t.ID, &t.GUID, &t.GUIDFolded, &t.PathCode}, func() error {
			if _, asked := refs.TrainingGUIDs[t.GUIDFolded]; asked {
				f.TrainingsByGUID[t.GUIDFolded] = append(f.TrainingsByGUID[t.GUIDFolded], t)
			}
			if _, asked := refs.TrainingPathCodes[t.PathCode]; asked {
				f.TrainingsByPathCode[t.PathCode] = append(f.TrainingsByPathCode[t.PathCode], t)
			}
			return nil
		})
		return err
	})
	b.Queue(selectSessions, guids, codes, keys(refs.SessionGUIDs), keys(refs.SessionTitles)).Query(func(rows pgx.Rows) error {
		var s handlers.Session
		_, err := pgx.ForEachRow(rows, []any{&s.ID, &s.TrainingID, &s.GUID, &s.GUIDFolded, &s.Title}, func() error {
			f.Sessions[s.TrainingID] = append(f.Sessions[s.TrainingID], s)
			return nil
		})
		return err
	})
}

const selectTeachers = `SELECT login_folded, id FROM learnsink.teacher WHERE login_folded = ANY ($1::text[])`

func queueTeachers(b *pgx.Batch, refs *handlers.References, f *handlers.Facts) {
	if len(refs.Teachers) == 0 {
		return
	}
	b.Queue(selectTeachers, keys(refs.Teachers)).Query(func(rows pgx.Rows) error {
		var login string
		var id int64
		_, err := pgx.ForEachRow(rows, []any{&login, &id}, func() error {
			f.Teachers[login] = id
			return nil
		})
		return err
	})
}

// Contexts are looked up by what is said first of the session, and of the
// training: one question, one look at an index.
const (
	contextQuestions = `
FROM unnest($1::text[], $2::bigint[], $3::text[], $4::text[], $5::bigint[]) WITH ORDINALITY AS q(guid, id, title, path, training, i)
WHERE EXISTS (
  SELECT FROM learnsink.session s JOIN learnsink.training t ON t.id = s.training_id
  WHERE (q.guid = '' OR s.guid_folded = q.guid) AND (q.id = 0 OR s.id = q.id) AND (q.title = '' OR s.title = q.title)
    AND (q.path = '' OR t.path_code = q.path) AND (q.training = 0 OR t.id = q.training)`

	selectContextsByGUID  = `SELECT q.i` + contextQuestions + ` AND s.guid_folded = q.guid)`
	selectContextsByID    = `SELECT q.i` + contextQuestions + ` AND s.id = q.id)`
	selectContextsByTitle = `SELECT q.i` + contextQuestions + ` AND s.title = q.title)`

	contextTrainings = `
FROM unnest($1::text[], $2::bigint[]) WITH ORDINALITY AS q(path, training, i)
WHERE EXISTS (SELECT FROM learnsink.training t WHERE (q.path = '' OR t.path_code = q.path) AND (q.training = 0 OR t.id = q.training)`

	selectContextTrainingsByID   = `SELECT q.i` + contextTrainings + ` AND t.id = q.training)`
	selectContextTrainingsByPath = `SELECT q.i` + contextTrainings + ` AND t.path_code = q.path)`
)

func queueContexts(b *pgx.Batch, refs *handlers.References, f *handlers.Facts) {
	var byGUID, byID, byTitle, trainingByID, trainingByPath []handlers.Context
	for c := range refs.Contexts {
		f.Contexts[c] = handlers.ContextFound{}
		switch {
		case c.SessionGUID != "":
			byGUID = append(byGUID, c)
		case c.SessionID != 0:
			byID = append(byID, c)
		case c.SessionTitle != "":
			byTitle = append(byTitle, c)
		}
		switch {
		case c.TrainingID != 0:
			trainingByID = append(trainingByID, c)
		case c.TrainingPathCode != "":
			trainingByPath = append(trainingByPath, c)
		}
	}
	queue := func(asked []handlers.Context, query string, found func(*handlers.ContextFound), args ...any) {
		if len(asked) == 0 {
			return
		}
		b.Queue(query, args...).Query(func(rows pgx.Rows) error {
			var i int64
			_, err := pgx.ForEachRow(rows, []any{&i}, func() error {
				is := f.Contexts[asked[i-1]]
				found(&is)
				f.Contexts[asked[i-1]] = is
				return nil
			})
			return err
		})
	}
	guid := func(c handlers.Context) string { return c.SessionGUID }
	title := func(c handlers.Context) string { return c.SessionTitle }
	path := func(c handlers.Context) string { return c.TrainingPathCode }
	id := func(c handlers.Context) int64 { return c.SessionID }
	training := func(c handlers.Context) int64 { return c.TrainingID }
	sessions := func(asked []handlers.Context, query string) {
		queue(asked, query, func(is *handlers.ContextFound) { is.Session = true },
			each(asked, guid), each(asked, id), each(asked, title), each(asked, path), each(asked, training))
	}
	trainings := func(asked []handlers.Context, query string) {
		queue(asked, query, func(is *handlers.ContextFound) { is.Training = true }, each(asked, path), each(asked, training))
	}
	sessions(byGUID, selectContextsByGUID)
	sessions(byID, selectContextsByID)
	sessions(byTitle, selectContextsByTitle)
	trainings(trainingByID, selectContextTrainingsByID)
	trainings(trainingByPath, selectContextTrainingsByPath)
}

// each returns what a function gives of every member.
func each[T, V any](of []T, f func(T) V) []V {
	values := make([]V, len(of))
	for i, m := range of {
		values[i] = f(m)
	}
	return values
}

// Sessions and trainings are sent once, however many learners are in them.
const (
	selectRegisteredSessions = `
SELECT ` + sessionColumns + `, ` + trainingColumns + `
FROM (SELECT DISTINCT session_id FROM learnsink.registration WHERE learner_id = ANY ($1::integer[])) r
JOIN learnsink.session s ON s.id = r.session_id JOIN learnsink.training t ON t.id = s.training_id`

	selectRegistrations = `
SELECT learner_id, id, session_id FROM learnsink.registration
WHERE learner_id = ANY ($1::integer[]) ORDER BY learner_id, session_id`
)

func queueRegistrations(b *pgx.Batch, f *handlers.Facts) {
	if len(f.Learners) == 0 {
		return
	}
	learners := slices.Sorted(maps.Values(f.Learners))
	learners = slices.Compact(learners)
	sessions := map[int64]handlers.Registration{}
	b.Queue(selectRegisteredSessions, learners).Query(func(rows pgx.Rows) error {
		var s handlers.Session
		var t handlers.Training
		_, err := pgx.ForEachRow(rows, []any{&s.ID, &s.TrainingID, &s.GUID, &s.GUIDFolded, &s.Title, &t.ID, &t.GUID, &t.GUIDFolded, &t.PathCode}, func() error {
			session, training := s, t
			sessions[s.ID] = handlers.Registration{Session: &session, Training: &training}
			return nil
		})
		return err
	})
	b.Queue(selectRegistrations, learners).Query(func(rows pgx.Rows) error {
		var learner, id, session int64
		_, err := pgx.ForEachRow(rows, []any{&learner, &id, &session}, func() error {
			r := sessions[session]
			r.ID = id
			f.Registrations[learner] = append(f.Registrations[learner], r)
			return nil
		})
		return err
	})
}

// keys returns a set's members, in order: the same question is the same SQL.
func keys(set map[string]struct{}) []string {
	return slices.Sorted(maps.Keys(set))
}

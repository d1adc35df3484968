package store

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"learnsink/handlers"
	"learnsink/store/catalogue"
)

// LoadOptions says how a catalogue is loaded.
type LoadOptions struct {
	// SkipBad loads what is good; otherwise one bad line stops the load.
	SkipBad bool
	// Prune looks for what a kind's files no longer name and nothing refers
	// to. Execute removes it as well.
	Prune, Execute bool
	// MaxPrune is how many of a kind may be removed. 0: at most 5 % of it.
	MaxPrune int64
	// Step, if set, is told what is being done, a few words at a time. How far
	// the files are read is for Folder.OnRead to tell.
	Step func(step string)
}

// LoadReport is what a load did, or would have done.
type LoadReport struct {
	Version int64 // the catalogue's, after the load; 0: nothing was loaded
	Kinds   []LoadCount
	Bad     []catalogue.BadLine // in the order of kinds, files and lines
}

// LoadCount is what a load did to one kind.
type LoadCount struct {
	Kind           catalogue.Kind
	Lines          int64 // good ones
	Added, Changed int64 // what is there already, as the files say it, is neither
	// Pruned is how many a prune removes, or would; Examples are the keys of
	// the first few. Personal data: for the operator's eyes, not for logs.
	Pruned   int64
	Examples []string
}

var (
	// ErrBadLines: the load was stopped by bad lines; nothing was loaded.
	ErrBadLines = errors.New("some lines are bad, and nothing was loaded")
	// ErrPrune: a prune would remove too much, or cannot be trusted; nothing was loaded.
	ErrPrune = errors.New("refused to prune, and nothing was loaded")
)

// LoadCatalogue loads a folder of catalogue files in one transaction, or not
// at all: what they name is added or brought up to date, what they do not name
// stays (unless it is pruned). Loading the same files again changes nothing.
//
// Consumers go on meanwhile. Only for the end of the load, when rooms are
// merged, prunes done and the version raised, do their batches wait; the first
// one after it is decided again by the new catalogue.
//
// The report is useful with ErrBadLines and ErrPrune too.
func (s *Store) LoadCatalogue(ctx context.Context, folder *catalogue.Folder, opt LoadOptions) (report LoadReport, err error) {
	defer wrap(&err, "load the catalogue")
	l := &load{folder: folder, opt: opt, counts: map[catalogue.Kind]*LoadCount{}, refused: map[catalogue.Kind]int{}}
	err = pgx.BeginTxFunc(ctx, s.pool, pgx.TxOptions{}, func(tx pgx.Tx) error {
		l.tx = tx
		return l.run(ctx)
	})
	slices.SortStableFunc(l.bad, func(a, b badLine) int { return a.compare(b) })
	for _, b := range l.bad {
		report.Bad = append(report.Bad, b.line)
	}
	for _, kind := range folder.Kinds() {
		if c := l.counts[kind]; c != nil {
			report.Kinds = append(report.Kinds, *c)
		}
	}
	if err == nil {
		report.Version = l.version
	}
	return report, s.heed(err)
}

// load is one load under way.
type load struct {
	tx      pgx.Tx
	folder  *catalogue.Folder
	opt     LoadOptions
	files   []string // by number
	bad     []badLine
	counts  map[catalogue.Kind]*LoadCount
	refused map[catalogue.Kind]int // bad lines by kind
	byWhat  [3]int64               // registrations that name their learner by login, reference number, e-mail first
	version int64
}

// badLine is a bad line with its place in the order of the report.
type badLine struct {
	kind  int
	place int64
	line  catalogue.BadLine
}

func (b badLine) compare(other badLine) int {
	if b.kind != other.kind {
		return b.kind - other.kind
	}
	return int(min(max(b.place-other.place, -1), 1))
}

// A line's place is one number: the number of its file, then that of the line.
// It says which of two lines about one key holds: the later.
const placeBits = 40

func (l *load) place(line *catalogue.Line) int64 {
	if n := len(l.files); n == 0 || l.files[n-1] != line.File {
		l.files = append(l.files, line.File)
	}
	return int64(len(l.files)-1)<<placeBits | int64(line.Number)
}

func (l *load) fault(kind catalogue.Kind, place int64, why string) {
	l.refused[kind]++
	l.bad = append(l.bad, badLine{slices.Index(catalogue.Kinds(), kind), place,
		catalogue.BadLine{Kind: kind, File: l.files[place>>placeBits], Number: int(place & (1<<placeBits - 1)), Why: why}})
}

func (l *load) step(format string, args ...any) {
	if l.opt.Step != nil {
		l.opt.Step(fmt.Sprintf(format, args...))
	}
}

// run is the transaction, from top to bottom.
func (l *load) run(ctx context.Context) error {
	// The limits of consumers' statements are not for a load. One load at a
	// time: two could both find the same thing missing, and add it.
	if err := l.exec(ctx, "SET LOCAL statement_timeout = 0", "SET LOCAL lock_timeout = 0", "SET LOCAL idle_in_transaction_session_timeout = 0",
		"SET LOCAL work_mem = '128MB'", createStaging); err != nil {
		return err
	}
	if _, err := l.tx.Exec(ctx, "SELECT pg_advisory_xact_lock($1)", loadLock); err != nil {
		return err
	}
	if err := l.read(ctx); err != nil {
		return err
	}
	// Kind by kind, whatever a kind refers to first. Consumers see nothing of
	// it before the commit, and write to none of these tables.
	for _, kind := range l.folder.Kinds() {
		if kind == catalogue.Rooms {
			continue
		}
		l.step("merging %s", kind)
		if err := l.merge(ctx, kind); err != nil {
			return err
		}
	}
	if len(l.bad) > 0 && !l.opt.SkipBad {
		return ErrBadLines
	}
	// From here on batches wait. Rooms come last because batches write them as
	// well: merged earlier, one of ours and one of theirs could wait for each
	// other. Whatever a batch has written by now is seen by the prune, and
	// what is decided by the catalogue before it is refused after it.
	l.step("waiting for batches under way")
	if _, err := l.tx.Exec(ctx, "SELECT pg_advisory_xact_lock($1)", catalogueLock); err != nil {
		return err
	}
	if l.counts[catalogue.Rooms] != nil {
		if err := l.merge(ctx, catalogue.Rooms); err != nil {
			return err
		}
	}
	if l.opt.Prune {
		l.step("pruning")
		if err := l.prune(ctx); err != nil {
			return err
		}
	}
	l.step("committing")
	return l.tx.QueryRow(ctx, "UPDATE learnsink.catalogue_version SET version = version + 1, loaded_at = now() RETURNING version").Scan(&l.version)
}

func (l *load) exec(ctx context.Context, statements ...string) error {
	for _, sql := range statements {
		if _, err := l.tx.Exec(ctx, sql); err != nil {
			return err
		}
	}
	return nil
}

// loadLock is the advisory lock that loads hold from beginning to end.
const loadLock int64 = catalogueLock + 1

// createStaging makes the tables that the files are copied into.
const createStaging = `
CREATE TEMP TABLE load_learners (place bigint, login text, login_folded text COLLATE "C", ref_number text COLLATE "C", email text, email_folded text COLLATE "C", created_at timestamptz) ON COMMIT DROP;
CREATE TEMP TABLE load_learning_objects (place bigint, guid text, guid_folded text COLLATE "C", code text COLLATE "C", title text, provider text) ON COMMIT DROP;
CREATE TEMP TABLE load_trainings (place bigint, id bigint, guid text, guid_folded text COLLATE "C", path_code text COLLATE "C", title text) ON COMMIT DROP;
CREATE TEMP TABLE load_sessions (place bigint, id bigint, training_id bigint, guid text, guid_folded text COLLATE "C", title text COLLATE "C") ON COMMIT DROP;
CREATE TEMP TABLE load_registrations (place bigint, login text COLLATE "C", ref text COLLATE "C", email text COLLATE "C", session_guid text COLLATE "C", session_id bigint) ON COMMIT DROP;
CREATE TEMP TABLE load_resolved (place bigint, learner_id integer, session_id bigint) ON COMMIT DROP;
CREATE TEMP TABLE load_teachers (place bigint, login text, login_folded text COLLATE "C") ON COMMIT DROP;
CREATE TEMP TABLE load_rooms (place bigint, guid text, guid_folded text COLLATE "C", label text, capacity integer) ON COMMIT DROP;`

// staged are the columns of the staging tables in the order of cells.
var staged = map[catalogue.Kind][]string{
	catalogue.Learners:        {"place", "login", "login_folded", "ref_number", "email", "email_folded", "created_at"},
	catalogue.LearningObjects: {"place", "guid", "guid_folded", "code", "title", "provider"},
	catalogue.Trainings:       {"place", "id", "guid", "guid_folded", "path_code", "title"},
	catalogue.Sessions:        {"place", "id", "training_id", "guid", "guid_folded", "title"},
	catalogue.Registrations:   {"place", "login", "ref", "email", "session_guid", "session_id"},
	catalogue.Teachers:        {"place", "login", "login_folded"},
	catalogue.Rooms:           {"place", "guid", "guid_folded", "label", "capacity"},
}

// cells returns a good line as its staging table has it. Absent texts are
// NULL, but for those of registrations, where they take part in comparisons.
func (l *load) cells(line *catalogue.Line, place int64) []any {
	switch {
	case line.Learner != nil:
		r := line.Learner
		return []any{place, r.Login, handlers.Fold(r.Login), optional(r.RefNumber), optional(r.Email), optional(handlers.Fold(r.Email)), timestamp(r.CreatedAt)}
	case line.LearningObject != nil:
		r := line.LearningObject
		return []any{place, r.GUID, handlers.Fold(r.GUID), optional(r.Code), optional(r.Title), string(r.Provider)}
	case line.Training != nil:
		r := line.Training
		return []any{place, r.ID, optional(r.GUID), optional(handlers.Fold(r.GUID)), optional(r.PathCode), optional(r.Title)}
	case line.Session != nil:
		r := line.Session
		return []any{place, r.ID, r.TrainingID, optional(r.GUID), optional(handlers.Fold(r.GUID)), optional(r.Title)}
	case line.Registration != nil:
		r := line.Registration
		switch {
		case r.LearnerLogin != "":
			l.byWhat[0]++
		case r.LearnerRefNumber != "":
			l.byWhat[1]++
		default:
			l.byWhat[2]++
		}
		return []any{place, handlers.Fold(r.LearnerLogin), r.LearnerRefNumber, handlers.Fold(r.LearnerEmail), handlers.Fold(r.SessionGUID), r.SessionID}
	case line.Teacher != nil:
		return []any{place, line.Teacher.Login, handlers.Fold(line.Teacher.Login)}
	default:
		r := line.Room
		return []any{place, r.GUID, handlers.Fold(r.GUID), optional(r.Label), pgtype.Int4{Int32: r.Capacity.V, Valid: r.Capacity.OK}}
	}
}

func optional(text string) pgtype.Text { return pgtype.Text{String: text, Valid: text != ""} }

// read copies every good line into its kind's staging table.
func (l *load) read(ctx context.Context) error {
	for _, kind := range l.folder.Kinds() {
		l.counts[kind] = &LoadCount{Kind: kind}
	}
	var readErr error
	next, stop := iter.Pull(func(yield func(catalogue.Line) bool) {
		readErr = l.folder.Read(func(line catalogue.Line) error {
			if !yield(line) {
				return errStopped
			}
			return nil
		})
	})
	defer stop()
	line, more := next()
	for more {
		kind := line.Kind
		l.step("reading %s", kind)
		n, err := l.tx.CopyFrom(ctx, pgx.Identifier{"load_" + string(kind)}, staged[kind], pgx.CopyFromFunc(func() ([]any, error) {
			for ; more && line.Kind == kind; line, more = next() {
				place := l.place(&line)
				if line.Bad != "" {
					l.fault(kind, place, line.Bad)
					continue
				}
				cells := l.cells(&line, place)
				line, more = next()
				return cells, nil
			}
			return nil, nil
		}))
		if err != nil {
			return err
		}
		l.counts[kind].Lines += n
		if err := l.exec(ctx, "ANALYZE load_"+string(kind)); err != nil {
			return err
		}
	}
	return readErr
}

// errStopped ends a read whose lines nobody wants any more.
var errStopped = errors.New("stopped")

// merging is how a kind gets from its staging table into its own.
type merging struct {
	check  string // place and why of lines that refer to what is not there
	key    string // what is the same thing: of lines about one the last holds
	update string
	insert string
}

var mergings = map[catalogue.Kind]merging{
	catalogue.Learners: {
		key: "login_folded",
		update: `UPDATE learnsink.learner t SET login = s.login, ref_number = s.ref_number, email = s.email, email_folded = s.email_folded, created_at = s.created_at
FROM load_learners s WHERE t.login_folded = s.login_folded
AND (t.login, t.ref_number, t.email, t.email_folded, t.created_at) IS DISTINCT FROM (s.login, s.ref_number, s.email, s.email_folded, s.created_at)`,
		insert: `INSERT INTO learnsink.learner (login, login_folded, ref_number, email, email_folded, created_at)
SELECT login, login_folded, ref_number, email, email_folded, created_at FROM load_learners s
WHERE NOT EXISTS (SELECT FROM learnsink.learner t WHERE t.login_folded = s.login_folded) ORDER BY place`,
	},
	catalogue.LearningObjects: {
		key: "guid_folded",
		update: `UPDATE learnsink.learning_object t SET guid = s.guid, code = s.code, title = s.title, provider = s.provider
FROM load_learning_objects s WHERE t.guid_folded = s.guid_folded
AND (t.guid, t.code, t.title, t.provider) IS DISTINCT FROM (s.guid, s.code, s.title, s.provider)`,
		insert: `INSERT INTO learnsink.learning_object (guid, guid_folded, code, title, provider)
SELECT guid, guid_folded, code, title, provider FROM load_learning_objects s
WHERE NOT EXISTS (SELECT FROM learnsink.learning_object t WHERE t.guid_folded = s.guid_folded) ORDER BY place`,
	},
	catalogue.Trainings: {
		key: "id",
		update: `UPDATE learnsink.training t SET guid = s.guid, guid_folded = s.guid_folded, path_code = s.path_code, title = s.title
FROM load_trainings s WHERE t.id = s.id AND (t.guid, t.guid_folded, t.path_code, t.title) IS DISTINCT FROM (s.guid, s.guid_folded, s.path_code, s.title)`,
		insert: `INSERT INTO learnsink.training (id, guid, guid_folded, path_code, title)
SELECT id, guid, guid_folded, path_code, title FROM load_trainings s WHERE NOT EXISTS (SELECT FROM learnsink.training t WHERE t.id = s.id) ORDER BY id`,
	},
	catalogue.Sessions: {
		check: `SELECT place, 'there is no training with id ' || training_id FROM load_sessions s
WHERE NOT EXISTS (SELECT FROM learnsink.training t WHERE t.id = s.training_id)`,
		key: "id",
		update: `UPDATE learnsink.session t SET training_id = s.training_id, guid = s.guid, guid_folded = s.guid_folded, title = s.title
FROM load_sessions s WHERE t.id = s.id AND (t.training_id, t.guid, t.guid_folded, t.title) IS DISTINCT FROM (s.training_id, s.guid, s.guid_folded, s.title)`,
		insert: `INSERT INTO learnsink.session (id, training_id, guid, guid_folded, title)
SELECT id, training_id, guid, guid_folded, title FROM load_sessions s WHERE NOT EXISTS (SELECT FROM learnsink.session t WHERE t.id = s.id) ORDER BY id`,
	},
	catalogue.Registrations: {
		check: `SELECT place, concat_ws('; ', CASE WHEN session_id IS NULL THEN 'no session fits sessionGuid and sessionId' END,
  CASE WHEN learner_id IS NULL THEN 'no learner fits learnerLogin, learnerRefNumber and learnerEmail' END)
FROM load_resolved WHERE session_id IS NULL OR learner_id IS NULL`,
		// Ids by session: what a report on a session reads stands together.
		insert: `INSERT INTO learnsink.registration (session_id, learner_id)
SELECT DISTINCT session_id, learner_id FROM load_resolved s WHERE session_id IS NOT NULL AND learner_id IS NOT NULL
AND NOT EXISTS (SELECT FROM learnsink.registration t WHERE t.learner_id = s.learner_id AND t.session_id = s.session_id)
ORDER BY session_id, learner_id`,
	},
	catalogue.Teachers: {
		key:    "login_folded",
		update: `UPDATE learnsink.teacher t SET login = s.login FROM load_teachers s WHERE t.login_folded = s.login_folded AND t.login <> s.login`,
		insert: `INSERT INTO learnsink.teacher (login, login_folded)
SELECT login, login_folded FROM load_teachers s WHERE NOT EXISTS (SELECT FROM learnsink.teacher t WHERE t.login_folded = s.login_folded) ORDER BY place`,
	},
	catalogue.Rooms: {
		key: "guid_folded",
		// What the file leaves out stays: rows of interventions may have said it.
		update: `UPDATE learnsink.room t SET guid = s.guid, label = coalesce(s.label, t.label), capacity = coalesce(s.capacity, t.capacity)
FROM load_rooms s WHERE t.guid_folded = s.guid_folded
AND (t.guid, t.label, t.capacity) IS DISTINCT FROM (s.guid, coalesce(s.label, t.label), coalesce(s.capacity, t.capacity))`,
		insert: `INSERT INTO learnsink.room (guid, guid_folded, label, capacity)
SELECT guid, guid_folded, label, capacity FROM load_rooms s WHERE NOT EXISTS (SELECT FROM learnsink.room t WHERE t.guid_folded = s.guid_folded) ORDER BY guid_folded`,
	},
}

// Each resolves the registrations that name their learner in one way: by
// login, else by reference number, else by e-mail, as rows do. Of several
// sessions of one guid the lowest id is meant.
const (
	resolveSession = `
LEFT JOIN (SELECT guid_folded, min(id) AS id FROM learnsink.session WHERE guid_folded IS NOT NULL GROUP BY guid_folded) g ON g.guid_folded = r.session_guid
LEFT JOIN learnsink.session s ON s.id = CASE WHEN r.session_id <> 0 THEN r.session_id ELSE g.id END AND (r.session_guid = '' OR s.guid_folded = r.session_guid)`

	resolveByLogin = `
INSERT INTO load_resolved SELECT r.place, l.id, s.id FROM load_registrations r
LEFT JOIN learnsink.learner l ON l.login_folded = r.login AND (r.ref = '' OR l.ref_number = r.ref) AND (r.email = '' OR l.email_folded = r.email)` + resolveSession + `
WHERE r.login <> ''`

	resolveByRefNumber = `
INSERT INTO load_resolved SELECT r.place, l.id, s.id FROM load_registrations r
LEFT JOIN LATERAL (SELECT id FROM learnsink.learner WHERE ref_number = r.ref AND (r.email = '' OR email_folded = r.email)
  ORDER BY created_at NULLS LAST, login_folded LIMIT 1) l ON true` + resolveSession + `
WHERE r.login = '' AND r.ref <> ''`

	resolveByEmail = `
INSERT INTO load_resolved SELECT r.place, l.id, s.id FROM load_registrations r
LEFT JOIN LATERAL (SELECT id FROM learnsink.learner WHERE email_folded = r.email
  ORDER BY created_at NULLS LAST, login_folded LIMIT 1) l ON true` + resolveSession + `
WHERE r.login = '' AND r.ref = ''`
)

// merge brings a kind's table up to date with its staging table.
func (l *load) merge(ctx context.Context, kind catalogue.Kind) error {
	m, table, count := mergings[kind], "load_"+string(kind), l.counts[kind]
	if kind == catalogue.Registrations {
		// Learners of this very load are looked up: the planner has to know
		// that there are many.
		if err := l.exec(ctx, "ANALYZE learnsink.learner", "ANALYZE learnsink.session"); err != nil {
			return err
		}
		for i, resolve := range []string{resolveByLogin, resolveByRefNumber, resolveByEmail} {
			if l.byWhat[i] == 0 {
				continue
			}
			if err := l.exec(ctx, resolve); err != nil {
				return err
			}
		}
		if err := l.exec(ctx, "ANALYZE load_resolved"); err != nil {
			return err
		}
	}
	if m.check != "" {
		if err := l.check(ctx, kind, m.check, table); err != nil {
			return err
		}
	}
	if m.key != "" {
		if err := l.exec(ctx, fmt.Sprintf(`DELETE FROM %[1]s t USING (SELECT %[2]s, max(place) AS last FROM %[1]s GROUP BY %[2]s HAVING count(*) > 1) d
			WHERE t.%[2]s = d.%[2]s AND t.place < d.last`, table, m.key)); err != nil {
			return err
		}
	}
	if m.update != "" {
		tag, err := l.tx.Exec(ctx, m.update)
		if err != nil {
			return err
		}
		count.Changed = tag.RowsAffected()
	}
	tag, err := l.tx.Exec(ctx, m.insert)
	count.Added = tag.RowsAffected()
	return err
}

// check notes the lines that refer to what is not there, and takes them out.
func (l *load) check(ctx context.Context, kind catalogue.Kind, query, table string) error {
	rows, err := l.tx.Query(ctx, query)
	if err != nil {
		return err
	}
	var place int64
	var why string
	var places []int64
	if _, err := pgx.ForEachRow(rows, []any{&place, &why}, func() error {
		places = append(places, place)
		l.fault(kind, place, why)
		return nil
	}); err != nil || len(places) == 0 {
		return err
	}
	l.counts[kind].Lines -= int64(len(places))
	_, err = l.tx.Exec(ctx, "DELETE FROM "+table+" WHERE place = ANY ($1)", places)
	return err
}

// prunes remove what the files of a kind no longer name and nothing refers to,
// and return the keys. In an order in which what refers goes before what it
// refers to.
var prunes = []struct {
	kind  catalogue.Kind
	table string
	sql   string
}{
	{catalogue.Registrations, "registration", `DELETE FROM learnsink.registration t
WHERE NOT EXISTS (SELECT FROM load_resolved s WHERE s.learner_id = t.learner_id AND s.session_id = t.session_id)
AND NOT EXISTS (SELECT FROM learnsink.tracking u WHERE u.registration_id = t.id)
AND NOT EXISTS (SELECT FROM learnsink.tracking_deleted u WHERE u.registration_id = t.id)
RETURNING (SELECT login FROM learnsink.learner l WHERE l.id = t.learner_id) || ' in session ' || t.session_id`},
	{catalogue.Learners, "learner", `DELETE FROM learnsink.learner t
WHERE NOT EXISTS (SELECT FROM load_learners s WHERE s.login_folded = t.login_folded)
AND NOT EXISTS (SELECT FROM learnsink.registration u WHERE u.learner_id = t.id)
RETURNING login`},
	{catalogue.LearningObjects, "learning_object", `DELETE FROM learnsink.learning_object t
WHERE NOT EXISTS (SELECT FROM load_learning_objects s WHERE s.guid_folded = t.guid_folded)
AND NOT EXISTS (SELECT FROM learnsink.tracking u WHERE u.learning_object_id = t.id)
AND NOT EXISTS (SELECT FROM learnsink.tracking_deleted u WHERE u.learning_object_id = t.id)
RETURNING guid`},
	{catalogue.Sessions, "session", `DELETE FROM learnsink.session t
WHERE NOT EXISTS (SELECT FROM load_sessions s WHERE s.id = t.id)
AND NOT EXISTS (SELECT FROM learnsink.registration u WHERE u.session_id = t.id)
AND NOT EXISTS (SELECT FROM learnsink.intervention u WHERE u.session_id = t.id)
RETURNING id::text`},
	{catalogue.Trainings, "training", `DELETE FROM learnsink.training t
WHERE NOT EXISTS (SELECT FROM load_trainings s WHERE s.id = t.id)
AND NOT EXISTS (SELECT FROM learnsink.session u WHERE u.training_id = t.id)
RETURNING id::text`},
	{catalogue.Teachers, "teacher", `DELETE FROM learnsink.teacher t
WHERE NOT EXISTS (SELECT FROM load_teachers s WHERE s.login_folded = t.login_folded)
AND NOT EXISTS (SELECT FROM learnsink.intervention u WHERE u.teacher_id = t.id)
RETURNING login`},
	{catalogue.Rooms, "room", `DELETE FROM learnsink.room t
WHERE NOT EXISTS (SELECT FROM load_rooms s WHERE s.guid_folded = t.guid_folded)
AND NOT EXISTS (SELECT FROM learnsink.intervention u WHERE u.room_guid_folded = t.guid_folded)
RETURNING guid`},
}

const pruneExamples = 10

// prune removes what is to be pruned, within a savepoint that is rolled back
// to unless it is to be done: so what is shown is what would be removed.
func (l *load) prune(ctx context.Context) error {
	if err := l.exec(ctx, "SAVEPOINT prune"); err != nil {
		return err
	}
	var tooMuch []string
	for _, p := range prunes {
		count := l.counts[p.kind]
		if count == nil {
			continue // no file speaks of this kind
		}
		if n := l.refused[p.kind]; n > 0 {
			// What a bad line was to name would be taken for named no longer.
			return fmt.Errorf("%w: %d lines of %s are bad", ErrPrune, n, p.kind)
		}
		var before int64
		if err := l.tx.QueryRow(ctx, "SELECT count(*) FROM learnsink."+p.table).Scan(&before); err != nil {
			return err
		}
		rows, err := l.tx.Query(ctx, p.sql)
		if err != nil {
			return err
		}
		var key pgtype.Text
		if _, err := pgx.ForEachRow(rows, []any{&key}, func() error {
			if count.Pruned++; count.Pruned <= pruneExamples {
				count.Examples = append(count.Examples, key.String)
			}
			return nil
		}); err != nil {
			return err
		}
		most := l.opt.MaxPrune
		if most == 0 {
			most = before / 20
		}
		if count.Pruned > most {
			tooMuch = append(tooMuch, fmt.Sprintf("%d of %d %s", count.Pruned, before, p.kind))
		}
	}
	switch {
	case !l.opt.Execute:
		return l.exec(ctx, "ROLLBACK TO SAVEPOINT prune")
	case len(tooMuch) > 0:
		return fmt.Errorf("%w: it would remove %s", ErrPrune, strings.Join(tooMuch, ", "))
	}
	return nil
}

package store

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"learnsink/handlers"
)

// VerbErase is the verb of operation's lines about persons.
const VerbErase = "dlq erase"

// ErrSeveral: more than one account is known by what was said.
var ErrSeveral = errors.New("several accounts have it: name the one that is meant by its login")

// ErasedText stands where a person's text stood in a text that stays.
const ErasedText = "[erased]"

// Erasure is what the erasure of a person removes, or would remove.
type Erasure struct {
	ID int64 // of the line in erasure; 0: nothing was there to be erased
	// Person is learner or teacher. PersonID is their id in the catalogue, 0:
	// it does not know them. What they are said to be known by is enough then.
	Person   string
	PersonID int64
	Tables   []TableErasure // those in which there is something of them, in the order in which it goes
	// SharedRefNumber and SharedEmail: another account has it too. It goes from
	// their own, and rows that say only that are the other's, and stay.
	SharedRefNumber, SharedEmail bool
	// Namesake: there is a teacher of the login too (or a learner, of a
	// teacher's): to erase both takes a call for each.
	Namesake bool
	// Interventions are the guids of those that the teacher gives. They stay,
	// and their teacher has no name any more.
	Interventions []string
	At            time.Time
	Job           int64 // announces it; 0: nothing to announce
}

// TableErasure is how many rows of a table are concerned, and how.
type TableErasure struct {
	Table string `json:"table"`
	Rows  int64  `json:"rows"`
	What  string `json:"what"` // becomes of them
}

// NewErasure is whose erasure is asked for.
type NewErasure struct {
	handlers.Identity
	Operator
	// Execute does it. Else it is undone again, and nobody else has to wait for it.
	Execute bool
	// Announce makes the events by which those who keep copies are told, each an
	// item that is published as it is, to the topic that it names as its source.
	Announce func(*Erasure) []JobItem
}

// Erase removes a person from every table, in one transaction: all of it is
// gone, or nothing. It waits for a load that is under way, and then holds
// the catalogue's lock, so that batches wait (seconds, for a million dead letters), and raises the catalogue's
// version: what was decided before is decided again, and finds them erased.
//
//   - learner, registration, tracking, tracking_deleted, and the registrations of
//     catalogue topics that wait: their rows are deleted.
//   - teacher: the row is deleted; where interventions refer to it, which are
//     about a session as much as about them, it stays without a name instead, so
//     that nothing dangles and no report loses an intervention.
//   - rejection: a line that names them keeps its place, time and codes, or the
//     books would not sum up, and loses everything else; its state is erased.
//   - job_item: what it holds of its own goes; what is not sent never will be.
//   - operation, job, position: texts of people's in which they are named.
//   - erased: a hash of each text that they alone are known by, by which they
//     are known again.
//
// The outbox is not rewritten, or rows would be without an outcome: it empties
// itself within seconds (Unpublished).
//
// To erase somebody again erases what has come since, which is nothing.
// Returns ErrSeveral.
func (s *Store) Erase(ctx context.Context, e NewErasure) (done Erasure, err error) {
	defer wrap(&err, "erase a person")
	var named func(string) bool
	err = s.operating(ctx, func(tx pgx.Tx) error {
		if e.Execute {
			if _, err := tx.Exec(ctx, "SET LOCAL lock_timeout = 0"); err != nil {
				return err
			}
			for _, lock := range []int64{loadLock, catalogueLock} { // in the order of loads
				if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock($1)", lock); err != nil {
					return err
				}
			}
		}
		x := &eraser{tx: tx, asked: e, who: handlers.Identities{}}
		if err := x.run(ctx); err != nil {
			return err
		}
		named = x.named()
		if done = x.done; !e.Execute {
			return errPreview
		}
		return nil
	})
	switch {
	case errors.Is(err, errPreview):
		return done, nil
	case err != nil:
		return Erasure{}, err
	}
	return done, s.mendReasons(ctx, named)
}

// errPreview undoes what was only to be shown.
var errPreview = errors.New("only a preview")

// eraser is one erasure under way.
type eraser struct {
	tx    pgx.Tx
	asked NewErasure
	login string
	who   handlers.Identities // what the person alone is known by
	done  Erasure
}

func (x *eraser) run(ctx context.Context) error {
	// What is read of the clock only now is behind all that has been applied.
	if err := x.tx.QueryRow(ctx, "SELECT clock_timestamp()").Scan(&x.done.At); err != nil {
		return err
	}
	x.done.At = x.done.At.UTC()
	// Nothing of a job is sent until the end.
	if _, err := x.tx.Exec(ctx, "SELECT FROM learnsink.dispatcher FOR UPDATE"); err != nil {
		return err
	}
	steps := []func(context.Context) error{x.findLearner, x.removeLearner}
	if x.done.Person = "learner"; x.asked.Kind == handlers.TeacherLogin {
		x.done.Person = "teacher"
		steps = []func(context.Context) error{x.findTeacher, x.removeTeacher}
	}
	for _, step := range append(steps, x.emptyRejections, x.emptyItems, x.mendTexts, x.remember) {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// count notes how many rows of a table are concerned.
func (x *eraser) count(table, what string, rows int64) {
	if rows > 0 {
		x.done.Tables = append(x.done.Tables, TableErasure{table, rows, what})
	}
}

func (x *eraser) remove(ctx context.Context, table, where string, args ...any) error {
	tag, err := x.tx.Exec(ctx, "DELETE FROM learnsink."+table+" WHERE "+where, args...)
	x.count(table, "deleted", tag.RowsAffected())
	return err
}

// findLearner finds the account, and what it alone is known by.
func (x *eraser) findLearner(ctx context.Context) error {
	column := map[handlers.IdentityKind]string{
		handlers.LearnerLogin: "login_folded", handlers.LearnerRefNumber: "ref_number", handlers.LearnerEmail: "email_folded",
	}[x.asked.Kind]
	if column == "" || x.asked.Text == "" {
		return fmt.Errorf("%q says of nobody who is meant", x.asked.Kind)
	}
	rows, err := x.tx.Query(ctx, `SELECT id, login_folded, coalesce(ref_number, ''), coalesce(email_folded, ''),
  EXISTS (SELECT FROM learnsink.learner o WHERE o.ref_number = l.ref_number AND o.id <> l.id),
  EXISTS (SELECT FROM learnsink.learner o WHERE o.email_folded = l.email_folded AND o.id <> l.id)
FROM learnsink.learner l WHERE `+column+` = $1`, x.asked.Text)
	if err != nil {
		return err
	}
	var ref, email string
	found, d := 0, &x.done
	if _, err := pgx.ForEachRow(rows, []any{&d.PersonID, &x.login, &ref, &email, &d.SharedRefNumber, &d.SharedEmail}, func() error {
		found++
		return nil
	}); err != nil {
		return err
	}
	switch {
	case found > 1:
		return ErrSeveral
	case found == 0:
		x.who[x.asked.Identity] = struct{}{}
		if x.asked.Kind == handlers.LearnerLogin {
			x.login = x.asked.Text
		}
	default:
		x.knownBy(handlers.LearnerLogin, x.login, false)
		x.knownBy(handlers.LearnerRefNumber, ref, d.SharedRefNumber)
		x.knownBy(handlers.LearnerEmail, email, d.SharedEmail)
	}
	return x.tx.QueryRow(ctx, "SELECT EXISTS (SELECT FROM learnsink.teacher WHERE login_folded = $1)", x.login).Scan(&d.Namesake)
}

func (x *eraser) knownBy(kind handlers.IdentityKind, text string, shared bool) {
	if text != "" && !shared {
		x.who[handlers.Identity{Kind: kind, Text: text}] = struct{}{}
	}
}

// removeLearner deletes the account with all that hangs on it.
func (x *eraser) removeLearner(ctx context.Context) error {
	const mine = "registration_id IN (SELECT id FROM learnsink.registration WHERE learner_id = $1)"
	for _, t := range [][2]string{{"tracking", mine}, {"tracking_deleted", mine}, {"registration", "learner_id = $1"}, {"learner", "id = $1"}} {
		if err := x.remove(ctx, t[0], t[1], x.done.PersonID); err != nil {
			return err
		}
	}
	texts := map[handlers.IdentityKind]string{}
	for id := range x.who {
		texts[id.Kind] = id.Text
	}
	return x.remove(ctx, "catalogue_waiting_registration", "login = $1 OR ref = $2 OR email = $3",
		texts[handlers.LearnerLogin], texts[handlers.LearnerRefNumber], texts[handlers.LearnerEmail])
}

func (x *eraser) findTeacher(ctx context.Context) error {
	x.login = x.asked.Text
	x.who[x.asked.Identity] = struct{}{}
	err := x.tx.QueryRow(ctx, "SELECT id FROM learnsink.teacher WHERE login_folded = $1", x.login).Scan(&x.done.PersonID)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return err
	}
	return x.tx.QueryRow(ctx, "SELECT EXISTS (SELECT FROM learnsink.learner WHERE login_folded = $1)", x.login).Scan(&x.done.Namesake)
}

// removeTeacher deletes the teacher, or takes the name off. What stands in
// place of the folded login is no folded text: no row and no file can mean it.
func (x *eraser) removeTeacher(ctx context.Context) error {
	rows, err := x.tx.Query(ctx, "SELECT guid FROM learnsink.intervention WHERE teacher_id = $1 ORDER BY guid_folded", x.done.PersonID)
	if err != nil {
		return err
	}
	if x.done.Interventions, err = pgx.CollectRows(rows, pgx.RowTo[string]); err != nil {
		return err
	}
	if len(x.done.Interventions) == 0 {
		return x.remove(ctx, "teacher", "id = $1", x.done.PersonID)
	}
	tag, err := x.tx.Exec(ctx, "UPDATE learnsink.teacher SET login = 'erased-' || id, login_folded = 'ERASED-' || id WHERE id = $1", x.done.PersonID)
	x.count("teacher", fmt.Sprintf("kept without a name, for %d interventions", len(x.done.Interventions)), tag.RowsAffected())
	return err
}

// emptyRejections empties the lines that name the person. Texts are compared
// here, by the rules of rows: the database knows other ones.
func (x *eraser) emptyRejections(ctx context.Context) error {
	namers := x.namers()
	var ids []string
	if err := copyOut(ctx, x.tx, `SELECT id, action, coalesce(key, ''), coalesce(value, ''), headers::text FROM learnsink.rejection WHERE state <> 'erased'`, func(c [][]byte) {
		rec := handlers.Record{Key: c[2], Value: c[3]}
		if len(c[4]) > len("[]") {
			rec.Headers = headersOf(c[4])
		}
		if namers[handlers.Action(c[1])].Names(&rec) {
			ids = append(ids, string(c[0]))
		}
	}); err != nil || len(ids) == 0 {
		return err
	}
	tag, err := x.tx.Exec(ctx, `UPDATE learnsink.rejection SET state = 'erased', key = NULL, value = NULL, headers = '[]', history = '[]', waits_for = NULL,
  errors = '[]', sender = '', names = '{}', subject = NULL, registration = NULL
WHERE id = ANY ($1)`, ids)
	x.count("rejection", "emptied: place, time and codes stay", tag.RowsAffected())
	if err != nil {
		return err
	}
	tag, err = x.tx.Exec(ctx, emptyItem+` WHERE rejection = ANY ($1)`, ids)
	x.count("job_item", "emptied; what is not sent is not sent any more", tag.RowsAffected())
	return err
}

// emptyItem takes from an item of a job what it holds, and the item from the
// job, if it is not sent yet.
const emptyItem = `UPDATE learnsink.job_item SET key = NULL, value = NULL, headers = NULL, edit = NULL, overwrite = NULL,
  state = CASE state WHEN 'pending' THEN 'dropped' ELSE state END`

// namers ask for the person in the rows of each action. A line of an action
// that nobody knows is asked as a tracking row.
func (x *eraser) namers() map[handlers.Action]*handlers.Namer {
	return map[handlers.Action]*handlers.Namer{
		handlers.Tracking:     handlers.NewNamer(handlers.Tracking, x.who),
		handlers.Intervention: handlers.NewNamer(handlers.Intervention, x.who),
	}
}

// named asks for the person in texts of people's.
func (x *eraser) named() func(string) bool {
	namers := x.namers()
	return func(text string) bool {
		return namers[handlers.Tracking].NamesIn(text) || namers[handlers.Intervention].NamesIn(text)
	}
}

// headersOf reads what headersJSON has written.
func headersOf(text []byte) []handlers.Header {
	var list []header
	if json.Unmarshal(text, &list) != nil {
		return nil // cannot be: jsonb of ours
	}
	headers := make([]handlers.Header, len(list))
	for i, h := range list {
		headers[i] = handlers.Header{Key: textOf(h.Key, h.KeyBase64)}
		if h.Value != nil || h.ValueBase64 != nil {
			headers[i].Value = []byte(textOf(h.Value, h.ValueBase64))
		}
	}
	return headers
}

func textOf(text, encoded *string) string {
	if text != nil {
		return *text
	}
	if encoded == nil {
		return ""
	}
	b, _ := base64.StdEncoding.DecodeString(*encoded)
	return string(b)
}

// emptyItems empties the items of jobs that name the person by what they hold
// themselves: an edited dead letter, a row that was to be put back.
func (x *eraser) emptyItems(ctx context.Context) error {
	tracking, intervention := x.namers()[handlers.Tracking], x.namers()[handlers.Intervention]
	var jobs, seqs []int64
	if err := copyOut(ctx, x.tx, `SELECT job, seq, coalesce(key, ''), coalesce(value, ''), coalesce(headers, '[]')::text FROM learnsink.job_item
WHERE key IS NOT NULL OR value IS NOT NULL OR headers IS NOT NULL`, func(c [][]byte) {
		rec := handlers.Record{Key: c[2], Value: c[3], Headers: headersOf(c[4])}
		if tracking.Names(&rec) || intervention.Names(&rec) {
			jobs = append(jobs, int64(binary.BigEndian.Uint64(c[0])))
			seqs = append(seqs, int64(binary.BigEndian.Uint64(c[1])))
		}
	}); err != nil || len(jobs) == 0 {
		return err
	}
	tag, err := x.tx.Exec(ctx, emptyItem+` WHERE (job, seq) IN (SELECT * FROM unnest($1::bigint[], $2::bigint[]))`, jobs, seqs)
	x.count("job_item", "emptied; what is not sent is not sent any more", tag.RowsAffected())
	return err
}

// mendTexts takes texts of people's away in which a word names the person: why
// something was done, and what was asked for.
func (x *eraser) mendTexts(ctx context.Context) error {
	named := x.named()
	for _, t := range [...]struct{ table, object, where string }{
		{"operation", "detail", "verb <> '" + VerbPositionSet + "'"}, // whose detail is read again, and holds no such text
		{"job", "selection", "true"},
	} {
		rows, err := x.tx.Query(ctx, "SELECT id, why, "+t.object+" FROM learnsink."+t.table+" WHERE "+t.where)
		if err != nil {
			return err
		}
		type line struct {
			ID     int64
			Why    string
			Object json.RawMessage
		}
		lines, err := pgx.CollectRows(rows, pgx.RowToStructByPos[line])
		if err != nil {
			return err
		}
		mended := int64(0)
		for _, l := range lines {
			why := l.Why
			if named(why) {
				why = ErasedText
			}
			object, changed, err := mendObject(l.Object, named)
			if err != nil {
				return err
			}
			if why == l.Why && !changed {
				continue
			}
			mended++
			if _, err := x.tx.Exec(ctx, "UPDATE learnsink."+t.table+" SET why = $2, "+t.object+" = $3::text::jsonb WHERE id = $1", l.ID, why, string(object)); err != nil {
				return err
			}
		}
		x.count(t.table, "texts that name them are taken out", mended)
	}
	return nil
}

// mendReasons takes the reasons of positions away in which a word names the
// person, one by one: whoever applies a batch waits for the catalogue while it
// holds its position, so that nobody may wait for a position who holds the catalogue.
func (s *Store) mendReasons(ctx context.Context, named func(string) bool) error {
	positions, err := s.Positions(ctx)
	if err != nil {
		return err
	}
	for _, p := range positions {
		if !named(p.StateReason) {
			continue
		}
		if _, err := s.pool.Exec(ctx, "UPDATE learnsink.position SET state_reason = $4 WHERE topic = $1 AND partition = $2 AND state_reason = $3",
			p.Topic, p.Partition, p.StateReason, ErasedText); err != nil {
			return err
		}
	}
	return nil
}

// mendObject returns a JSON value with every string of it that names somebody replaced.
func mendObject(text json.RawMessage, named func(string) bool) (_ json.RawMessage, changed bool, err error) {
	var mend func(v any) any
	mend = func(v any) any {
		switch v := v.(type) {
		case string:
			if named(v) {
				changed = true
				return ErasedText
			}
		case []any:
			for i := range v {
				v[i] = mend(v[i])
			}
		case map[string]any:
			for k := range v {
				v[k] = mend(v[k])
			}
		}
		return v
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	var v any
	if err := decoder.Decode(&v); err != nil {
		return nil, false, err
	}
	if v = mend(v); !changed {
		return text, false, nil
	}
	text, err = json.Marshal(v)
	return text, true, err
}

// remember notes that the person was erased, and by what they are known again.
// Where nothing was there, and all of it is known, nothing is noted.
func (x *eraser) remember(ctx context.Context) error {
	var secret []byte
	if err := x.tx.QueryRow(ctx, "SELECT secret FROM learnsink.erased_key").Scan(&secret); err != nil {
		return err
	}
	var hashes [][]byte
	for id := range x.who {
		h := id.Hash(secret)
		hashes = append(hashes, h[:])
	}
	d := &x.done
	var known int
	if err := x.tx.QueryRow(ctx, "SELECT count(*) FROM learnsink.erased WHERE hash = ANY ($1)", hashes).Scan(&known); err != nil {
		return err
	}
	if len(d.Tables) == 0 && known == len(hashes) {
		return nil
	}
	var person *int64
	if d.PersonID != 0 {
		person = &d.PersonID
	}
	if err := x.tx.QueryRow(ctx, "INSERT INTO learnsink.erasure (person, person_id, erased_at) VALUES ($1, $2, $3) RETURNING id",
		d.Person, person, d.At).Scan(&d.ID); err != nil {
		return err
	}
	if _, err := x.tx.Exec(ctx, "INSERT INTO learnsink.erased (hash, erasure) SELECT hash, $2 FROM unnest($1::bytea[]) AS hash ON CONFLICT DO NOTHING", hashes, d.ID); err != nil {
		return err
	}
	// What is decided by the catalogue before is refused, and decided again.
	if _, err := x.tx.Exec(ctx, "UPDATE learnsink.catalogue_version SET version = version + 1"); err != nil {
		return err
	}
	if err := x.announce(ctx); err != nil {
		return err
	}
	if x.named()(x.asked.Why) {
		x.asked.Why = ErasedText
	}
	tables := map[string]int64{}
	for _, t := range d.Tables {
		tables[t.Table] += t.Rows
	}
	return note(ctx, x.tx, x.asked.Operator, VerbErase, handlers.TopicPartition{},
		map[string]any{"erasure": d.ID, "person": d.Person, "id": d.PersonID, "rows": tables, "job": d.Job})
}

// announce makes the job that tells those who keep copies.
func (x *eraser) announce(ctx context.Context) error {
	if x.asked.Announce == nil || x.done.PersonID == 0 {
		return nil // nobody has heard of them by an id
	}
	items := x.asked.Announce(&x.done)
	if len(items) == 0 {
		return nil
	}
	if err := x.tx.QueryRow(ctx, insertJob, JobAnnounce, storable(x.asked.Actor), "", "{}", DefaultJobRate).Scan(&x.done.Job); err != nil {
		return err
	}
	for i, item := range items {
		if _, err := x.tx.Exec(ctx, `INSERT INTO learnsink.job_item (job, seq, source_topic, event_at, key, value, headers) VALUES ($1, $2, $3, $4, $5, $6, $7::text::jsonb)`,
			x.done.Job, i+1, item.SourceTopic, x.done.At, item.Key, item.Value, headersJSON(item.Headers)); err != nil {
			return err
		}
	}
	_, err := x.tx.Exec(ctx, "UPDATE learnsink.job SET items = $2 WHERE id = $1", x.done.Job, len(items))
	return err
}

// Unpublished returns how many outbox entries there are from before an
// erasure. They may hold outputs of the person, and go once they are published,
// which takes serve a second or two.
func (s *Store) Unpublished(ctx context.Context, erasure time.Time) (entries int64, err error) {
	defer wrap(&err, "read the outbox")
	err = s.pool.QueryRow(ctx, "SELECT count(*) FROM learnsink.outbox WHERE created_at <= $1", erasure).Scan(&entries)
	return entries, err
}

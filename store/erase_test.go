package store_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"learnsink/handlers"
	"learnsink/store"
)

// everything is every row of every table, a line each, with bytes as they are.
func (w *world) everything() string {
	w.t.Helper()
	w.exec(`SET bytea_output = 'escape'`)
	var all strings.Builder
	for table := range strings.Lines(w.text(`SELECT relname FROM pg_class WHERE relnamespace = 'learnsink'::regnamespace AND relkind = 'r' ORDER BY 1`)) {
		table = strings.Trim(strings.TrimSpace(table), "()")
		for line := range strings.Lines(w.text(`SELECT * FROM learnsink.` + table)) {
			fmt.Fprintf(&all, "%s %s\n", table, strings.TrimSpace(line))
		}
	}
	return all.String()
}

// ines are the texts that a learner is known by, in any case.
var ines = []string{"ines.lopez", "e-77", "ines@example.net"}

// mentions returns the lines that hold one of the texts.
func mentions(all string, texts ...string) (lines []string) {
	for line := range strings.Lines(all) {
		for _, text := range texts {
			if strings.Contains(strings.ToLower(line), text) {
				lines = append(lines, strings.TrimSpace(line))
				break
			}
		}
	}
	return lines
}

// newInes makes a world in which learner 1 is Ines and everything knows of her.
func newInes(t *testing.T) (w *world, o, teaching *owner) {
	w = newWorld(t)
	w.exec(`UPDATE learnsink.learner SET login = 'Ines.Lopez', login_folded = 'ines.lopez', ref_number = 'E-77', email = 'Ines@Example.net', email_folded = 'ines@example.net' WHERE login = 'L1'`)
	src, about := source(t, handlers.Tracking), source(t, handlers.Intervention)
	o, teaching = w.claim(w.Store, src, 0), w.claim(w.Store, about, 0)
	row := func(offset int64, l string, more ...any) *handlers.Record {
		rec := record(src, offset, day, append([]any{"candidateLogin", l, "lovGuid", "o1", "sessionId", 100}, more...)...)
		rec.Key = []byte(handlers.Fold(l))
		return rec
	}
	raw := func(offset int64, key, value string, headers ...handlers.Header) *handlers.Record {
		return &handlers.Record{Topic: src.Topic, Offset: offset, Timestamp: day, Key: []byte(key), Value: []byte(value), Headers: headers}
	}
	o.apply(
		row(0, "Ines.Lopez", "score", 5),
		row(1, "Ines.Lopez", "sessionId", 101, "trackingStatus", "notAttempted"),
		row(2, "l2", "score", 7),
		row(3, "ines.lopez", "lovGuid", "nothing"),
		row(4, "l2", "lovGuid", "nothing"),
		raw(5, "E-77", `{"candidateRefNumber":"E-77","lovGuid":"nothing","sessionId":100}`),
		raw(6, "k", `ines.lopez;o1;100`),
		raw(7, "k", `{"candidatelogin":"INES.LOPEZ"}`),
		raw(8, "ines.lopez", ""),
		raw(9, "k", `{"candidateLogin":"l3","lovGuid":"x","sessionId":100}`, handlers.Header{Key: "by", Value: []byte("Ines <ines@example.net>")}),
		raw(10, "k", `{"candidateLogin":"l3","lovGuid":"x","sessionId":100}`, handlers.Header{Key: "by", Value: []byte{0xff, 0}}),
	)
	teaching.apply(
		intervene(about, 0, day, "i0", "R0"),
		intervene(about, 1, day, "i1", "R0", "teacherLogin", "T1", "trainingGuid", "nothing"),
	)
	return w, o, teaching
}

func (w *world) erase(kind handlers.IdentityKind, text string, execute bool) store.Erasure {
	w.t.Helper()
	done, err := w.Erase(context.Background(), store.NewErasure{
		Identity: handlers.NewIdentity(kind, text), Operator: store.Operator{Actor: "ann", Why: "asked by ines.lopez"}, Execute: execute,
		Announce: func(e *store.Erasure) []store.JobItem {
			return []store.JobItem{{SourceTopic: "learning.accepted", Key: []byte("7"), Value: fmt.Appendf(nil, `{"id":%d}`, e.PersonID)}}
		}})
	if err != nil {
		w.t.Fatal(err)
	}
	return done
}

func tables(e store.Erasure) string {
	var b strings.Builder
	for _, t := range e.Tables {
		fmt.Fprintf(&b, "%s %d, ", t.Table, t.Rows)
	}
	return strings.TrimSuffix(b.String(), ", ")
}

func TestEraseLearner(t *testing.T) {
	w, o, teaching := newInes(t)
	// She is in a job, in what people have written, and why a partition was paused.
	w.createJob(store.JobReplay, items("learning.tracking-0-3", "learning.tracking-0-4"))
	w.exec(`UPDATE learnsink.job_item SET edit = '{"set":{"candidateLogin":"ines.lopez"}}', value = '{"candidateLogin":"x"}' WHERE rejection = 'learning.tracking-0-3'`)
	w.exec(`INSERT INTO learnsink.job (kind, state, actor, rate, items, sent, ended_at) VALUES ('revert', 'done', 'bo', 1, 1, 1, now())`)
	w.exec(`INSERT INTO learnsink.job_item (job, seq, source_topic, event_at, key, value, headers, state) VALUES (2, 1, 'learning.tracking', now(), 'ines.lopez', '{}', '[]', 'sent')`)
	w.exec(`INSERT INTO learnsink.operation (actor, verb, detail, why) VALUES ('bo', 'dlq edit', '{"selection":{"learner":["Ines.Lopez"],"n":7}}', 'rows of ines@example.net, again')`)
	if _, err := w.Pause(t.Context(), handlers.TopicPartition{Topic: "learning.intervention"}, store.Operator{Actor: "bo", Why: "ask Ines.Lopez first"}); err != nil {
		t.Fatal(err)
	}
	w.exec(`DELETE FROM learnsink.outbox`)
	before := w.everything()
	if n := len(mentions(before, ines...)); n < 10 {
		t.Fatalf("she is in %d lines alone:\n%s", n, before)
	}

	// Shown: everything is as it was.
	shown := w.erase(handlers.LearnerEmail, " INES@example.net", false)
	if after := w.everything(); after != before {
		t.Errorf("a preview has changed\n%s\nto\n%s", before, after)
	}

	late := record(o.source, 11, day, "candidateLogin", "INES.LOPEZ", "lovGuid", "o1", "sessionId", 100)
	early := o.batch(late)

	// Done: she is nowhere, and nobody else has lost anything.
	done := w.erase(handlers.LearnerEmail, " INES@example.net", true)
	if got, want := tables(done), "tracking 1, tracking_deleted 1, registration 2, learner 1, rejection 6, job_item 1, job_item 1, operation 2"; got != want {
		t.Errorf("erased: %s\nwant: %s", got, want)
	}
	if tables(shown) != tables(done) || shown.PersonID != done.PersonID {
		t.Errorf("shown: %+v\ndone: %+v", shown, done)
	}
	after := w.everything()
	for _, line := range mentions(after, ines...) {
		t.Errorf("she is still in: %s", line)
	}
	for _, table := range []string{"rejection", "learner", "teacher", "intervention", "ledger"} {
		was, is := w.others(before, table), w.others(after, table)
		if table == "rejection" && strings.Count(is, "\n") < strings.Count(was, "\n") || table != "rejection" && was != is {
			t.Errorf("%s: was\n%s\nis\n%s", table, was, is)
		}
	}
	if got := w.text(`SELECT (SELECT count(*) FROM learnsink.tracking), (SELECT count(*) FROM learnsink.registration), (SELECT state_reason FROM learnsink.position WHERE state = 'paused')`); got != "(1,18,[erased])" {
		t.Errorf("others: %s", got)
	}
	if got := w.text(`SELECT count(*), count(DISTINCT names), max(subject), max(registration), (SELECT count(*) FROM learnsink.rejection_fault f JOIN learnsink.rejection r USING (seq) WHERE r.state = 'erased')
		FROM learnsink.rejection WHERE state = 'erased'`); got != "(6,1,,,0)" {
		t.Errorf("digests are left: %s", got)
	}
	if got, want := w.text(`SELECT id, state, codes, errors FROM learnsink.rejection WHERE state = 'erased' ORDER BY source_offset LIMIT 1`),
		`(learning.tracking-0-3,erased,{lo_not_found},[])`; got != want {
		t.Errorf("an emptied line: %s", got)
	}
	if got, want := w.text(`SELECT job, seq, state, rejection FROM learnsink.job_item WHERE job < 3 ORDER BY 1, 2`), "(1,1,dropped,learning.tracking-0-3)\n(1,2,pending,learning.tracking-0-4)\n(2,1,sent,)"; got != want {
		t.Errorf("the job: %s", got)
	}
	if got := w.text(`SELECT kind, i.source_topic, convert_from(i.value, 'UTF8') FROM learnsink.job j JOIN learnsink.job_item i ON i.job = j.id WHERE j.id = $1`, done.Job); got != fmt.Sprintf(`(announce,learning.accepted,"{""id"":%d}")`, done.PersonID) {
		t.Errorf("announced: %s", got)
	}
	w.audit()

	// Again: nothing.
	again := w.erase(handlers.LearnerEmail, "ines@example.net", true)
	if again.ID != 0 || len(again.Tables) > 0 || again.Job != 0 {
		t.Errorf("again: %+v", again)
	}
	if w.everything() != after {
		t.Error("to erase again has changed something")
	}

	// Who has judged by the catalogue before is told, and her rows are gone.
	src := o.source
	if err := o.st.Apply(t.Context(), early); !errors.Is(err, handlers.ErrStaleFacts) {
		t.Fatalf("a batch of the catalogue before: %v", err)
	}
	b := o.apply(late, record(src, 12, day, "candidateRefNumber", "E-77"), record(src, 13, day, "candidateLogin", "l4", "lovGuid", "o1", "sessionId", 100))
	for i, want := range []handlers.Verdict{handlers.Gone, handlers.Gone, handlers.Accepted} {
		if b.Decisions[i].Verdict != want {
			t.Errorf("row %d: verdict %d", i, b.Decisions[i].Verdict)
		}
	}
	if got, want := w.text(`SELECT accepted, rejected, skipped, counts FROM learnsink.ledger WHERE topic = 'learning.tracking' AND from_offset = 11`),
		`(1,0,2,"[{""day"": ""2026-03-01"", ""rows"": 1, ""sender"": """", ""outcome"": ""accepted""}, {""day"": ""2026-03-01"", ""rows"": 2, ""sender"": """", ""outcome"": ""erased""}]")`; got != want {
		t.Errorf("the ledger: %s", got)
	}
	if got := w.text(`SELECT payload FROM learnsink.outbox`); got != `("learning.tracking-0-13\\012")` {
		t.Errorf("the outbox: %s", got)
	}
	for _, line := range mentions(w.everything(), ines...) {
		t.Errorf("she is in again: %s", line)
	}
	w.audit()

	// A file that still names her does not bring her back, and is no bad file.
	report, err := load(t, w.Store, map[string]string{
		"learners.csv":      "login,refNumber,email,createdAt\nINES.lopez,E-77,ines@example.net,\nnew,E-77,,\n",
		"registrations.csv": "learnerLogin,learnerRefNumber,learnerEmail,sessionGuid,sessionId\nines.lopez,,,,100\n,,ines@example.net,,100\n,E-77,,,100\nl2,,,,100\n",
		"teachers.csv":      "login\nines.lopez\n",
	}, store.LoadOptions{})
	if err != nil {
		t.Fatal(err, report.Bad)
	}
	if got, want := brief(report), "learners 1 +1 ~0 -0; registrations 2 +1 ~0 -0; teachers 1 +1 ~0 -0"; got != want {
		t.Errorf("loaded: %s", got)
	}
	if report.Kinds[0].Erased != 1 || report.Kinds[1].Erased != 2 || report.Kinds[2].Erased != 0 {
		t.Errorf("passed over: %+v", report.Kinds)
	}
	teaching.st.Close()
}

// others are a table's lines that do not speak of Ines, without what is clock.
func (w *world) others(all, table string) string {
	var b strings.Builder
	for line := range strings.Lines(all) {
		if name, rest, _ := strings.Cut(line, " "); name == table && len(mentions(line, ines...)) == 0 && !strings.Contains(line, ",erased,") {
			b.WriteString(rest)
		}
	}
	return b.String()
}

func TestEraseTeacher(t *testing.T) {
	w, _, teaching := newInes(t)
	w.exec(`DELETE FROM learnsink.outbox`)
	report := w.text(`SELECT intervention_guid, status, room_label FROM learnsink.intervention_report`)

	if done := w.erase(handlers.TeacherLogin, "t0", true); tables(done) != "teacher 1" || fmt.Sprint(done.Interventions) != "[i0]" {
		t.Errorf("a teacher with an intervention: %+v", done)
	}
	if got := w.text(`SELECT intervention_guid, status, room_label FROM learnsink.intervention_report`); got != report || report == "" {
		t.Errorf("the report was %s, and is %s", report, got)
	}
	if done := w.erase(handlers.TeacherLogin, "T1", true); tables(done) != "teacher 1, rejection 1" || len(done.Interventions) != 0 {
		t.Errorf("a teacher without: %+v", done)
	}
	if got := w.text(`SELECT login, login_folded FROM learnsink.teacher`); got != "(erased-1,ERASED-1)" {
		t.Errorf("teachers: %s", got)
	}
	// Nobody becomes a teacher of that name.
	b := teaching.apply(
		intervene(teaching.source, 2, day, "i2", "R0"),
		intervene(teaching.source, 3, day, "i2", "R0", "teacherLogin", "erased-1"),
	)
	if b.Decisions[0].Verdict != handlers.Gone || b.Decisions[1].Verdict != handlers.Rejected {
		t.Errorf("verdicts %d, %d", b.Decisions[0].Verdict, b.Decisions[1].Verdict)
	}
	if _, err := load(t, w.Store, map[string]string{"teachers.csv": "login\nT0\nERASED-1\n"}, store.LoadOptions{}); err != nil {
		t.Fatal(err)
	}
	if got := w.text(`SELECT login, login_folded FROM learnsink.teacher ORDER BY id`); got != "(erased-1,ERASED-1)\n(ERASED-1,erased-1)" {
		t.Errorf("teachers: %s", got)
	}
	w.audit()
}

func TestEraseWhoIsMeant(t *testing.T) {
	w, _, _ := newInes(t)
	w.exec(`UPDATE learnsink.learner SET ref_number = 'E-77', email = 'ines@example.net', email_folded = 'ines@example.net' WHERE login = 'L2'`)
	for _, id := range []handlers.Identity{{Kind: handlers.LearnerRefNumber, Text: "E-77"}, {Kind: handlers.LearnerEmail, Text: "ines@example.net"}} {
		if _, err := w.Erase(t.Context(), store.NewErasure{Identity: id, Execute: true}); !errors.Is(err, store.ErrSeveral) {
			t.Errorf("%s: %v", id.Kind, err)
		}
	}
	// By the login one of them; what the other has too stays the other's.
	done := w.erase(handlers.LearnerLogin, "ines.lopez", true)
	if !done.SharedEmail || !done.SharedRefNumber {
		t.Errorf("%+v", done)
	}
	if left := mentions(w.everything(), "ines.lopez"); len(left) > 0 {
		t.Errorf("left: %s", left)
	}
	if got := w.text(`SELECT count(*) FROM learnsink.erased`); got != "(1)" {
		t.Errorf("hashes: %s", got)
	}
	if got := w.text(`SELECT state FROM learnsink.rejection WHERE source_offset = 5`); got != "(open)" {
		t.Errorf("a line that names both: %s", got)
	}
	// Whom no catalogue has known is known by what is said.
	if done := w.erase(handlers.LearnerLogin, "l3-typo", true); done.ID == 0 || done.PersonID != 0 || len(done.Tables) != 0 || done.Job != 0 {
		t.Errorf("nobody: %+v", done)
	}
	if _, err := w.Erase(t.Context(), store.NewErasure{Identity: handlers.NewIdentity(handlers.LearnerLogin, " ")}); err == nil {
		t.Error("nobody at all is erased")
	}
}

// An erasure waits for batches under way, and those that come wait for it: in
// whatever order they come, nothing of the person is left.
func TestEraseWhileApplying(t *testing.T) {
	w, o, _ := newInes(t)
	other := open(t, w.url)
	began := time.Now()
	done := make(chan error, 1)
	// A batch has its position, and waits for the catalogue that a load holds.
	tx, err := w.db.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), `SELECT pg_advisory_xact_lock(465557353070)`); err != nil { // "learn"
		t.Fatal(err)
	}
	b := o.batch(record(o.source, 11, day, "candidateLogin", "ines.lopez", "lovGuid", "o2", "sessionId", 100))
	go func() { done <- o.st.Apply(context.Background(), b) }()
	w.awaitLocks(1)
	erased := make(chan error, 1)
	go func() {
		_, err := other.Erase(context.Background(), store.NewErasure{Identity: handlers.NewIdentity(handlers.LearnerLogin, "ines.lopez"), Execute: true})
		erased <- err
	}()
	w.awaitLocks(2)
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Errorf("the batch that came first: %v", err)
	}
	if err := <-erased; err != nil {
		t.Fatal(err)
	}
	w.exec(`DELETE FROM learnsink.outbox`)
	if left := mentions(w.everything(), ines...); len(left) > 0 {
		t.Errorf("left: %s", left)
	}
	if n, err := w.Unpublished(t.Context(), began); err != nil || n != 0 {
		t.Errorf("unpublished: %d, %v", n, err)
	}
}

// awaitLocks waits until so many wait for an advisory lock.
func (w *world) awaitLocks(n int) {
	w.t.Helper()
	conn, err := pgx.Connect(context.Background(), w.url)
	if err != nil {
		w.t.Fatal(err)
	}
	defer conn.Close(context.Background())
	for end := time.Now().Add(10 * time.Second); ; {
		var waiting int
		if err := conn.QueryRow(context.Background(), `SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted`).Scan(&waiting); err != nil {
			w.t.Fatal(err)
		}
		if waiting == n {
			return
		}
		if time.Now().After(end) {
			w.t.Fatalf("%d wait, not %d", waiting, n)
		}
		time.Sleep(time.Millisecond)
	}
}

// What topics still hold of the person stays away when others are put back.
func TestErasedIsNotPutBack(t *testing.T) {
	w, o, _ := newInes(t)
	letter := func(id string, offset int64, login string) store.LostLetter {
		rec := record(o.source, offset, day, "candidateLogin", login)
		return store.LostLetter{Letter: store.Letter{ID: id, Record: *rec, EventAt: day, Attempt: 1}, Source: o.source,
			Errors: []handlers.Error{{Code: handlers.ContextMissing, Message: "x"}}, Rules: "r"}
	}
	w.erase(handlers.LearnerLogin, "ines.lopez", true)
	n, err := w.PutBack(t.Context(), []store.LostLetter{letter("learning.tracking-0-100", 100, "Ines.Lopez"), letter("learning.tracking-0-101", 101, "l2")})
	if err != nil || n != 1 {
		t.Errorf("%d put back, %v", n, err)
	}
	if got := w.text(`SELECT id FROM learnsink.rejection WHERE source_offset >= 100`); got != "(learning.tracking-0-101)" {
		t.Errorf("put back: %s", got)
	}
}

// A process with nothing to apply forgets as well, once it is asked how it is.
func TestErasedIsForgotten(t *testing.T) {
	w, _, _ := newInes(t)
	refs := handlers.NewReferences()
	ref := handlers.LearnerRef{Login: "ines.lopez"}
	refs.Learners[ref] = struct{}{}
	known := func() (bool, bool) {
		t.Helper()
		f, err := w.Facts(t.Context(), refs)
		if err != nil {
			t.Fatal(err)
		}
		_, is := f.Learners[ref]
		return is, f.Erased.Has(handlers.Identity{Kind: handlers.LearnerLogin, Text: ref.Login})
	}
	if is, erased := known(); !is || erased {
		t.Fatal("she is not known")
	}
	other := open(t, w.url)
	if _, err := other.Erase(t.Context(), store.NewErasure{Identity: handlers.NewIdentity(handlers.LearnerLogin, "ines.lopez"), Execute: true}); err != nil {
		t.Fatal(err)
	}
	if is, _ := known(); !is {
		t.Fatal("nothing is remembered: this shows nothing")
	}
	if _, _, err := w.CatalogueVersion(t.Context()); err != nil {
		t.Fatal(err)
	}
	if is, erased := known(); is || !erased {
		t.Errorf("she is remembered: %v, and erased: %v", is, erased)
	}
}

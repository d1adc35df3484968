package dlq_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"learnsink/cmd/learnsink/dlq"
	"learnsink/handlers"
	"learnsink/store"
	"learnsink/test/pgtest"
)

const clusterID = "test-cluster"

var day = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// world is a database with a small catalogue, and the sources that rows come from.
type world struct {
	*store.Store
	t       testing.TB
	db      *pgx.Conn
	sources []*handlers.Source
	next    int64 // offset of the replay topic
}

func newWorld(t testing.TB) *world {
	t.Helper()
	url := pgtest.New(t)
	s, err := store.Open(t.Context(), store.Config{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	w := &world{Store: s, t: t, db: conn,
		sources: []*handlers.Source{source(t, handlers.Tracking), source(t, handlers.Intervention)}}
	w.exec(`INSERT INTO learnsink.learner (login, login_folded) SELECT 'L' || i, 'l' || i FROM generate_series(0, 3) i`)
	w.exec(`INSERT INTO learnsink.learning_object (guid, guid_folded, provider) SELECT 'O' || i, 'o' || i, 'customer' FROM generate_series(0, 3) i`)
	w.exec(`INSERT INTO learnsink.training (id, guid, guid_folded, path_code) VALUES (10, 'T10', 't10', 'P10')`)
	w.exec(`INSERT INTO learnsink.session (id, training_id, guid, guid_folded, title) VALUES (100, 10, 'S100', 's100', 'One'), (101, 10, 'S101', 's101', 'Two')`)
	w.exec(`INSERT INTO learnsink.registration (learner_id, session_id) SELECT l.id, s.id FROM learnsink.learner l, learnsink.session s ORDER BY 1, 2`)
	w.exec(`INSERT INTO learnsink.teacher (login, login_folded) VALUES ('T0', 't0'), ('T1', 't1')`)
	w.exec(`INSERT INTO learnsink.room (guid, guid_folded, label, capacity) VALUES ('R0', 'r0', 'Room 0', 10)`)
	w.exec(`UPDATE learnsink.catalogue_version SET version = 1, loaded_at = now()`)
	return w
}

func source(t testing.TB, action handlers.Action, settings ...handlers.Setting) *handlers.Source {
	t.Helper()
	rules, err := handlers.Compile(action, settings)
	if err != nil {
		t.Fatal(err)
	}
	return &handlers.Source{Topic: "learning." + string(action), Rules: rules, AcceptedTopic: "learning.accepted", DeadLetterTopic: "learning.dead-letter"}
}

func (w *world) exec(sql string, args ...any) {
	w.t.Helper()
	if _, err := w.db.Exec(context.Background(), sql, args...); err != nil {
		w.t.Fatalf("%s: %v", sql, err)
	}
}

// contents is all that rows leave in the tables but where it came from, by
// table and key.
func (w *world) contents() map[string]map[string]any {
	w.t.Helper()
	rows, err := w.db.Query(context.Background(), `
		SELECT 'tracking ' || registration_id || ' ' || learning_object_id, to_jsonb(t) - '{registration_id,learning_object_id,event_at,source_topic,source_partition,source_offset,updated_at}'::text[] FROM learnsink.tracking t
		UNION ALL SELECT 'intervention ' || guid_folded, to_jsonb(t) - '{guid_folded,room_guid_folded,event_at,source_topic,source_partition,source_offset,updated_at}'::text[] FROM learnsink.intervention t
		UNION ALL SELECT 'room ' || guid_folded, to_jsonb(t) - '{guid,guid_folded,event_at}'::text[] FROM learnsink.room t`)
	if err != nil {
		w.t.Fatal(err)
	}
	contents := map[string]map[string]any{}
	var key string
	var row map[string]any
	if _, err := pgx.ForEachRow(rows, []any{&key, &row}, func() error { contents[key], row = row, nil; return nil }); err != nil {
		w.t.Fatal(err)
	}
	return contents
}

// columnNames are the columns of rows by those of the tables.
func columnNames() map[string]string {
	return map[string]string{"status": "trackingStatus", "progression": "progression", "score": "score", "score_max": "scoreMax", "time_spent_seconds": "timeSpent",
		"first_access_at": "firstAccessDate", "last_access_at": "lastAccessDate", "first_completion_at": "firstCompletionDate", "first_completion_filled_in": "firstCompletionFilledIn",
		"guid": "interventionGuid", "session_id": "sessionGuid", "starts_at": "interventionDate", "duration_hours": "interventionDuration", "room_guid": "roomGuid",
		"teacher_id": "teacherLogin", "label": "roomLabel", "capacity": "roomCapacity"}
}

// whatChanged compares contents: what a row did, and to which columns.
func whatChanged(before, after map[string]map[string]any) (effect dlq.Effect, columns []string) {
	effect = dlq.Nothing
	names := columnNames()
	for _, all := range []map[string]map[string]any{before, after} {
		for key := range all {
			was, now := before[key], after[key]
			for column := range all[key] {
				name := names[column]
				if strings.HasPrefix(key, "intervention") && column == "status" {
					name = "interventionStatus"
				}
				if was[column] != now[column] && !slices.Contains(columns, name) {
					columns = append(columns, name)
				}
			}
			switch room := strings.HasPrefix(key, "room"); {
			case cmp.Equal(was, now):
			case was == nil && !room:
				effect = dlq.Inserts
			case now == nil && !room:
				effect = dlq.Deletes
			case effect == dlq.Nothing:
				effect = dlq.Changes
			}
		}
	}
	slices.Sort(columns)
	return effect, columns
}

// apply applies a record at the end of its partition, as a batch of its own,
// and returns what was decided.
func (w *world) apply(src *handlers.Source, rec *handlers.Record) handlers.Decision {
	w.t.Helper()
	tp := handlers.TopicPartition{Topic: rec.Topic, Partition: rec.Partition}
	position, err := w.Claim(w.t.Context(), tp, clusterID, rec.Offset)
	if err != nil {
		w.t.Fatal(err)
	}
	refs := handlers.NewReferences()
	row := src.Rules.Decode(rec, handlers.EventTime(rec, src.EventTimeHeader, day))
	row.Refer(refs)
	var origin handlers.TopicPartition
	if rec.Topic == replayTopic {
		replay := handlers.ReplayOf(rec)
		row.Replays(&replay)
		if replay.Origin.OK {
			origin = handlers.TopicPartition{Topic: replay.SourceTopic, Partition: replay.Origin.V.Partition}
		}
	}
	facts, err := w.Facts(w.t.Context(), refs)
	if err != nil {
		w.t.Fatal(err)
	}
	b := &handlers.Batch{Source: src, Partition: rec.Partition, Origin: origin, Epoch: position.Epoch, From: position.NextOffset, To: rec.Offset + 1, FactsVersion: facts.Version,
		Round: position.Round, Incarnation: position.Incarnation, Decisions: []handlers.Decision{src.Rules.Decide(&row, facts)}}
	if err := w.Apply(w.t.Context(), b); err != nil {
		w.t.Fatal(err)
	}
	return b.Decisions[0]
}

const replayTopic = "learning.replay"

// replay puts a letter onto the replay topic, as a job does, and applies it
// there, as serve does.
func (w *world) replay(l *store.Letter, overwrite string) handlers.Decision {
	w.t.Helper()
	says := handlers.Replay{Of: l.ID, Attempt: l.Attempt + 1, EventTime: l.EventAt, SourceTopic: l.Record.Topic,
		Origin: handlers.Some(handlers.Origin{Partition: l.Record.Partition, Incarnation: 1, Offset: l.Record.Offset}), Overwrite: overwrite}
	rec := &handlers.Record{Topic: replayTopic, Offset: w.next, Timestamp: time.Now(), Key: l.Record.Key, Value: l.Record.Value, Headers: says.Headers()}
	w.next++
	src := *w.sources[slices.IndexFunc(w.sources, func(s *handlers.Source) bool { return s.Topic == l.Record.Topic })]
	src.Topic, src.ByEventTime, src.EventTimeHeader = replayTopic, true, true
	return w.apply(&src, rec)
}

// draw makes a record with a row, at random: most are right, and about few keys.
func draw(r *rand.Rand, action handlers.Action, partition int, offset int64) handlers.Record {
	pick := func(of ...any) any { return of[r.IntN(len(of))] }
	row := map[string]any{}
	maybe := func(column string, of ...any) {
		if v := pick(of...); v != nil {
			row[column] = v
		}
	}
	if action == handlers.Tracking {
		row = map[string]any{"candidateLogin": pick("l0", "L1", "l0", "l1", "nobody"), "lovGuid": pick("o0", "O1", "o0"), "sessionId": pick(100, 101)}
		maybe("trackingStatus", nil, "completed", "passed", "failed", "notAttempted", "incomplete", "completed", "junk")
		maybe("progression", nil, 50, 50.5, "100", 101)
		maybe("score", nil, nil, 1, 0.1, "-3e2")
		maybe("timeSpent", nil, 60)
		maybe("firstAccessDate", nil, nil, "2026-02-01 10:00:00")
		if row["trackingStatus"] == "completed" {
			maybe("firstCompletionDate", nil, nil, "2026-02-02 10:00:00")
		}
	} else {
		row = map[string]any{"interventionGuid": pick("I0", "i1", "i0"), "trainingGuid": "t10", "sessionGuid": pick("s100", "S101", "s100", "s9"),
			"interventionDate": pick("2026-03-05T10:00:00Z", "2026-03-06T10:00:00Z"), "interventionDuration": pick(1, 2), "roomGuid": pick("R0", "r0", "r1"),
			"roomLabel": pick("Room 0", "Hall"), "teacherLogin": pick("T0", "t0", "t1"), "interventionStatus": pick("A", "C", "A")}
		maybe("roomCapacity", nil, 10, 20)
	}
	value, _ := json.Marshal(row)
	switch r.IntN(20) {
	case 0:
		value = nil
	case 1:
		value = []byte("not json")
	}
	return handlers.Record{Topic: "learning." + string(action), Partition: partition, Offset: offset, Key: []byte("k"), Value: value,
		Timestamp: day.Add(time.Duration(r.IntN(6)) * time.Hour)}
}

// What the judge says beforehand is what comes of a replay, if nothing else
// happens between: verdicts, and what they do to which columns.
func TestJudgeIsRight(t *testing.T) {
	for _, overwrite := range []bool{false, true} {
		t.Run(fmt.Sprintf("overwrite=%t", overwrite), func(t *testing.T) {
			w := newWorld(t)
			seen := map[string]int{}
			for seed := range uint64(4) {
				r := rand.New(rand.NewPCG(seed, 6))
				w.judgeAndReplay(r, seed, overwrite, seen)
			}
			t.Logf("%v", seen)
			older := map[bool]string{false: "superseded", true: "superseded change"}[overwrite]
			for _, want := range []string{"accepted insert", "accepted change", "accepted delete", "accepted nothing", "rejected", older} {
				if seen[want] == 0 {
					t.Errorf("no row was %s", want)
				}
			}
		})
	}
}

func (w *world) judgeAndReplay(r *rand.Rand, seed uint64, overwrite bool, seen map[string]int) {
	w.t.Helper()
	w.exec("TRUNCATE learnsink.tracking, learnsink.tracking_deleted, learnsink.intervention")
	for i := range int64(12) { // what is stored
		src := w.sources[i%2]
		rec := draw(r, src.Rules.Action(), 0, int64(seed)*100+i)
		w.apply(src, &rec)
	}
	var letters []store.Letter
	for i := range int64(40) {
		src := w.sources[i/20]
		rec := draw(r, src.Rules.Action(), int(i%2), int64(seed)*100+50+i)
		letters = append(letters, store.Letter{ID: fmt.Sprint(i), State: "open", Record: rec, EventAt: rec.Timestamp, Attempt: 1})
	}
	judge := dlq.NewJudge(w.sources, replayTopic, w, w, "open")
	if overwrite {
		judge.Overwriting()
	}
	var verdicts []dlq.Verdict
	for page := range slices.Chunk(letters, 7) {
		v, err := judge.Page(w.t.Context(), page)
		if err != nil {
			w.t.Fatal(err)
		}
		verdicts = append(verdicts, v...)
	}
	for i := range verdicts {
		v := &verdicts[i]
		before := w.contents()
		overwritten := ""
		if overwrite && v.Outcome == dlq.Superseded {
			overwritten = v.Seen()
		}
		d := w.replay(v.Letter, overwritten)
		effect, columns := whatChanged(before, w.contents())
		got := outcomeOf(&d)
		want := v.Outcome
		if overwritten != "" {
			want = dlq.Accepted
		}
		if got != want {
			w.t.Errorf("seed %d, row %d: %s was foretold, it is %s (%v)", seed, i, want, got, d.Errors)
			continue
		}
		seen[strings.TrimSpace(string(v.Outcome)+" "+string(map[bool]dlq.Effect{true: v.Effect}[got == dlq.Accepted]))]++
		switch got {
		case dlq.Accepted:
			var foretold []string
			for _, d := range v.Diff {
				foretold = append(foretold, d.Column)
			}
			slices.Sort(foretold)
			if effect != v.Effect || !slices.Equal(columns, foretold) {
				w.t.Errorf("seed %d, row %d: %s of %v was foretold, it was %s of %v", seed, i, v.Effect, foretold, effect, columns)
			}
		case dlq.Rejected:
			if diff := cmp.Diff(v.Errors, d.Errors); diff != "" {
				w.t.Errorf("seed %d, row %d: -foretold +errors\n%s", seed, i, diff)
			}
			fallthrough
		default:
			if effect != dlq.Nothing {
				w.t.Errorf("seed %d, row %d: %s, and it did %s to %v", seed, i, got, effect, columns)
			}
		}
	}
}

func outcomeOf(d *handlers.Decision) dlq.Outcome {
	switch {
	case d.Verdict == handlers.Accepted:
		return dlq.Accepted
	case len(d.Errors) == 1 && d.Errors[0].Code == handlers.Superseded:
		return dlq.Superseded
	}
	return dlq.Rejected
}

// The preview is not believed: what lands between it and the replay counts,
// also where a person wanted to write over what was seen.
func TestJudgeIsNotBelieved(t *testing.T) {
	w := newWorld(t)
	src := w.sources[0]
	row := func(offset int64, at time.Time, progression int) handlers.Record {
		value := fmt.Sprintf(`{"candidateLogin":"l0","lovGuid":"o0","sessionId":100,"progression":%d}`, progression)
		return handlers.Record{Topic: src.Topic, Offset: offset, Timestamp: at, Key: []byte("k"), Value: []byte(value)}
	}
	letter := func(offset int64, at time.Time) store.Letter {
		return store.Letter{ID: fmt.Sprint("learning.tracking-0-", offset), State: "open", Record: row(offset, at, 10), EventAt: at, Attempt: 1}
	}
	judge := func(l store.Letter) *dlq.Verdict {
		t.Helper()
		verdicts, err := dlq.NewJudge(w.sources, replayTopic, w, w, "open").Page(t.Context(), []store.Letter{l})
		if err != nil {
			t.Fatal(err)
		}
		return &verdicts[0]
	}
	stored := func() string {
		return fmt.Sprint(w.contents()["tracking 1 1"]["progression"])
	}

	v := judge(letter(1, day))
	if v.Outcome != dlq.Accepted || v.Effect != dlq.Inserts {
		t.Fatalf("%s %s", v.Outcome, v.Effect)
	}
	newer := row(2, day.Add(time.Hour), 20)
	w.apply(src, &newer)
	if d := w.replay(v.Letter, ""); outcomeOf(&d) != dlq.Superseded || stored() != "20" {
		t.Errorf("an older row has won over one that came since: %s, %v, %s", outcomeOf(&d), d.Errors, stored())
	}

	v = judge(letter(1, day))
	if v.Outcome != dlq.Superseded || v.Seen() == "" || len(v.Diff) != 1 || *v.Diff[0].Stored != "20" || *v.Diff[0].Row != "10" {
		t.Fatalf("%+v", v)
	}
	newest := row(3, day.Add(2*time.Hour), 30)
	w.apply(src, &newest)
	if d := w.replay(v.Letter, v.Seen()); outcomeOf(&d) != dlq.Superseded || stored() != "30" {
		t.Errorf("written over what was never seen: %s, %v, %s", outcomeOf(&d), d.Errors, stored())
	}
	v = judge(letter(1, day))
	if d := w.replay(v.Letter, v.Seen()); outcomeOf(&d) != dlq.Accepted || stored() != "10" {
		t.Errorf("not written over what was seen: %s, %v, %s", outcomeOf(&d), d.Errors, stored())
	}
}

// What cannot be judged is said, and is nobody's fault.
func TestJudgeSays(t *testing.T) {
	w := newWorld(t)
	w.sources[0] = source(t, handlers.Tracking, handlers.Setting{Name: "tombstones", Text: "ignore"})
	at := func(topic, state string) store.Letter {
		return store.Letter{ID: topic + "-0-1", State: state, Record: handlers.Record{Topic: topic, Offset: 1}, EventAt: day}
	}
	letters := []store.Letter{at("learning.old", "open"), at("learning.tracking", "open"), at("learning.tracking", "archived"), at("learning.intervention", "open"), at("learning.old", "resolved")}
	verdicts, err := dlq.NewJudge(w.sources, replayTopic, w, w, "open").Page(t.Context(), letters)
	if err != nil {
		t.Fatal(err)
	}
	tally := dlq.NewTally()
	var got []dlq.Outcome
	for i := range verdicts {
		tally.Add(&verdicts[i])
		got = append(got, verdicts[i].Outcome)
	}
	if diff := cmp.Diff([]dlq.Outcome{dlq.Unconfigured, dlq.Ignored, dlq.NotOpen, dlq.Rejected, dlq.NotOpen}, got); diff != "" {
		t.Error(diff)
	}
	want := []dlq.GroupCount{{Group: store.Fault{Action: handlers.Intervention, Code: handlers.RecordEmpty, Message: "Record has no value."}, Rows: 1}}
	if diff := cmp.Diff(want, tally.Groups()); diff != "" {
		t.Error(diff)
	}
	if tally.Rows != 5 || tally.Unconfigured["learning.old"] != 1 || tally.NotOpen["archived"] != 1 || tally.NotOpen["resolved"] != 1 {
		t.Errorf("%+v", tally)
	}
}

// forgetful is a catalogue that knows of erased persons.
type forgetful struct {
	dlq.Catalogue
	erased *handlers.Erased
}

func (f forgetful) FactsNow(ctx context.Context, refs *handlers.References) (*handlers.Facts, error) {
	facts, err := f.Catalogue.FactsNow(ctx, refs)
	if err == nil {
		facts.Erased = f.erased
	}
	return facts, err
}

// Nothing of an erased person is sent again, whoever asks for it.
func TestJudgeForgets(t *testing.T) {
	w := newWorld(t)
	secret := []byte("secret")
	erased := handlers.NewErased(secret, []handlers.IdentityHash{handlers.NewIdentity(handlers.LearnerLogin, "Nobody").Hash(secret)})
	d, ids := file(day, tracked("nobody", "o0", ""), tracked("somebody", "o0", ""), tracked("l0", "o0", ""))
	judge := dlq.NewJudge(w.sources, replayTopic, forgetful{w, erased}, w, "open")
	p, err := dlq.NewPlan(t.Context(), judge, nil, dlq.PagesOf(t.Context(), d, ids), dlq.Sending{All: true}, func(*dlq.Verdict, []byte) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[dlq.Outcome]int64{dlq.Gone: 1, dlq.Rejected: 1, dlq.Accepted: 1}, p.Outcomes); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(ids[1:], p.IDs()); diff != "" {
		t.Error(diff)
	}
}

// A dead letter of the replay topic itself says in its headers what it was:
// whose rules are meant, and where it stands.
func TestJudgeHeirs(t *testing.T) {
	w := newWorld(t)
	stored := handlers.Record{Topic: "learning.tracking", Offset: 7, Timestamp: day, Key: []byte("k"), Value: []byte(tracked("l0", "o0", ""))}
	w.apply(w.sources[0], &stored)
	heir := func(offset int64, source string) store.Letter {
		says := handlers.Replay{Of: "learning.tracking-0-3", Attempt: 2, EventTime: day, SourceTopic: source,
			Origin: handlers.Some(handlers.Origin{Incarnation: 1, Offset: offset})}
		return store.Letter{ID: fmt.Sprint("learning.replay-0-", 90+offset), State: "open", EventAt: day, Attempt: 2,
			Record: handlers.Record{Topic: replayTopic, Offset: 90 + offset, Value: stored.Value, Headers: says.Headers()}}
	}
	letters := []store.Letter{heir(6, "learning.tracking"), heir(8, "learning.tracking"), heir(9, "learning.old"), heir(10, "")}
	verdicts, err := dlq.NewJudge(w.sources, replayTopic, w, w, "open").Page(t.Context(), letters)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, v := range verdicts {
		got = append(got, v.Source+" "+string(v.Outcome))
	}
	if diff := cmp.Diff([]string{"learning.tracking superseded", "learning.tracking accepted", "learning.old unconfigured", replayTopic + " unconfigured"}, got); diff != "" {
		t.Error(diff)
	}
}

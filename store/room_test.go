package store_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"learnsink/consumer"
	"learnsink/handlers"
	"learnsink/store"
)

// releaser lets rows out of the waiting room, as serve does.
func releaser(t testing.TB, st *store.Store, sources ...*handlers.Source) *consumer.Releaser {
	t.Helper()
	c, err := consumer.New(consumer.Config{Connection: consumer.Connection{Brokers: []string{"localhost:1"}}, Sources: sources}, nil, zerolog.Nop(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return c.Releaser(roomStore{st})
}

type roomStore struct{ *store.Store }

func (s roomStore) LeadRoom(ctx context.Context) (consumer.Room, bool, error) {
	room, led, err := s.Store.LeadRoom(ctx)
	if room == nil {
		return nil, led, err
	}
	return room, led, err
}

func (w *world) release(r *consumer.Releaser) {
	w.t.Helper()
	w.until(func() (bool, error) { return r.Once(context.Background()) })
}

// leadRoom takes the right to let rows out of the waiting room.
func (w *world) leadRoom(st *store.Store) (room *store.Room) {
	w.t.Helper()
	w.until(func() (led bool, err error) {
		room, led, err = st.LeadRoom(context.Background())
		return led, err
	})
	return room
}

// until tries until it is so: the server takes a moment to notice that who had
// the right is gone.
func (w *world) until(is func() (bool, error)) {
	w.t.Helper()
	for began := time.Now(); ; {
		switch so, err := is(); {
		case err != nil:
			w.t.Fatal(err)
		case so:
			return
		case time.Since(began) > 20*time.Second:
			w.t.Fatal("somebody else has the right to let rows out")
		}
	}
}

// changeCatalogue changes the catalogue as a load does.
func (w *world) changeCatalogue(sql string, args ...any) {
	w.t.Helper()
	w.exec(sql, args...)
	w.exec(`UPDATE learnsink.catalogue_version SET version = version + 1, loaded_at = clock_timestamp()`)
}

// sent takes at most so many rows of jobs, in their order, as the dispatcher
// does, and returns them as records of the replay topic, from an offset on;
// those of one batch are of one partition.
func (w *world) sent(offset int64, most int) (records []*handlers.Record) {
	w.t.Helper()
	rows, err := w.db.Query(w.t.Context(), `UPDATE learnsink.job_item i SET state = 'sent' FROM learnsink.rejection r
		WHERE r.id = i.rejection AND (i.job, i.seq) IN (SELECT job, seq FROM learnsink.job_item WHERE state = 'pending' ORDER BY job, seq LIMIT $1)
		RETURNING i.job, i.seq, r.id, r.source_topic, r.source_partition, r.source_offset, r.event_at, r.key, r.value, r.state`, most)
	if err != nil {
		w.t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var says handlers.Replay
		var origin handlers.Origin
		var state string
		rec := &handlers.Record{Topic: "learning.replay"}
		if err := rows.Scan(&says.Job, &says.Item, &says.Of, &says.SourceTopic, &origin.Partition, &origin.Offset, &says.EventTime, &rec.Key, &rec.Value, &state); err != nil {
			w.t.Fatal(err)
		}
		if state != "replaying" {
			w.t.Errorf("%s is in a job, and %s", says.Of, state)
		}
		origin.Incarnation = 1
		says.Attempt, says.Waited, says.Origin = 1, true, handlers.Some(origin)
		rec.Headers, rec.Timestamp = says.Headers(), day.AddDate(0, 1, 0)
		records = append(records, rec)
	}
	rows.Close()
	w.exec(`UPDATE learnsink.job j SET sent = i.sent, state = CASE WHEN i.sent = j.items THEN 'done' ELSE j.state END, ended_at = CASE WHEN i.sent = j.items THEN now() END
		FROM (SELECT job, max(seq) AS sent FROM learnsink.job_item WHERE state <> 'pending' GROUP BY job) i WHERE i.job = j.id`)
	slices.SortFunc(records, func(a, b *handlers.Record) int {
		x, y := handlers.ReplayOf(a), handlers.ReplayOf(b)
		return int(x.Job<<32+x.Item) - int(y.Job<<32+y.Item)
	})
	for i, rec := range records {
		rec.Offset = offset + int64(i)
	}
	return records
}

// replaySent applies what jobs have sent, each lane for itself.
func (o *owner) replaySent(records []*handlers.Record) {
	o.w.t.Helper()
	for len(records) > 0 {
		n, lane := 0, handlers.ReplayOf(records[0]).Origin.V.Partition
		for n < len(records) && handlers.ReplayOf(records[n]).Origin.V.Partition == lane {
			n++
		}
		o.NextOffset = o.applyJudged(func() *handlers.Batch { return o.replayBatch(records[:n]...) }).To
		records = records[n:]
	}
}

const states = `SELECT source_offset, state, waits_for FROM learnsink.rejection WHERE source_topic = 'learning.tracking' ORDER BY 1`

// A row leaves the room when what it waits for has come, in a job, and not before.
func TestRelease(t *testing.T) {
	w := newWorld(t)
	src := waitingSource(t)
	o, again := w.claim(w.Store, src, 0), w.claim(w.Store, replayTopic(src), 0)
	o.applyWaiting(
		track(src, 0, day, 1, 77),
		track(src, 1, day, 2, 77, "sessionId", 4711),
		track(src, 2, day, 3, 77),
		track(src, 3, day, 99, 1),
	)
	r := releaser(t, w.Store, src)
	w.release(r)
	if got := w.text(`SELECT count(*) FROM learnsink.job`); got != "(0)" {
		t.Errorf("nothing has come, and there are jobs: %s", got)
	}
	w.changeCatalogue(`INSERT INTO learnsink.learning_object (guid, guid_folded, provider) VALUES ('O77', 'o77', 'customer')`)
	w.release(r)
	if got, want := w.text(states), `(0,replaying,"{""learning object guid o77""}")
(1,waiting,"{""session id 4711""}")
(2,replaying,"{""learning object guid o77""}")
(3,waiting,"{""learner login l99""}")`; got != want {
		t.Errorf("in the room\n%s", got)
	}
	if got, want := w.text(`SELECT kind, state, actor, why, rate, items FROM learnsink.job`), `(release,running,serve,"the catalogue has what they waited for",1000000,2)`; got != want {
		t.Errorf("the job: %s", got)
	}
	if got, want := w.text(`SELECT seq, rejection, state FROM learnsink.job_item`), "(1,learning.tracking-0-0,pending)\n(2,learning.tracking-0-2,pending)"; got != want {
		t.Errorf("its rows: %s", got)
	}
	w.audit()
	w.release(r)
	w.release(releaser(t, open(t, w.url), src)) // another process, which knows nothing
	if got := w.text(`SELECT count(*) FROM learnsink.job`); got != "(1)" {
		t.Errorf("released twice: %s", got)
	}

	t.Run("never over a newer row of its key", func(t *testing.T) {
		o.applyWaiting(track(src, 4, day.Add(time.Hour), 3, 77, "progression", 50)) // applied meanwhile
		again.replaySent(w.sent(0, 10))
		if got, want := w.text(`SELECT l.login, t.progression, t.source_offset FROM learnsink.tracking t JOIN learnsink.registration r ON r.id = t.registration_id
			JOIN learnsink.learner l ON l.id = r.learner_id ORDER BY 1`), "(L1,,0)\n(L3,50,4)"; got != want {
			t.Errorf("stored\n%s", got)
		}
		if got, want := w.text(`SELECT source_offset, state, codes, attempt FROM learnsink.rejection WHERE source_topic = 'learning.tracking' AND source_offset IN (0, 2) ORDER BY 1`),
			"(0,resolved,{lo_not_found},1)\n(2,superseded,{superseded},1)"; got != want {
			t.Errorf("dead letters\n%s", got)
		}
		w.audit()
	})

	t.Run("step by step, as things come", func(t *testing.T) {
		w.changeCatalogue(`INSERT INTO learnsink.session (id, training_id, guid, guid_folded) VALUES (4711, 10, 'S4711', 's4711')`)
		w.release(r)
		if got, want := w.text(states+` LIMIT 1 OFFSET 1`), `(1,waiting,"{""registration of learner login l2 in session id 4711""}")`; got != want {
			t.Errorf("in the room %s", got)
		}
		w.changeCatalogue(`INSERT INTO learnsink.registration (learner_id, session_id) SELECT id, 4711 FROM learnsink.learner WHERE login = 'L2'`)
		w.release(r)
		again.replaySent(w.sent(again.NextOffset, 10))
		if got, want := w.text(`SELECT state, settled_by, attempt, deadline IS NOT NULL FROM learnsink.rejection WHERE id = 'learning.tracking-0-1'`), "(resolved,learning.replay-0-2,1,t)"; got != want {
			t.Errorf("%s", got)
		}
		w.audit()
	})

	t.Run("at the deadline it is a dead letter with the exact message", func(t *testing.T) {
		w.exec(`UPDATE learnsink.rejection SET deadline = now() WHERE state = 'waiting'`)
		w.release(r)
		if got, want := w.text(`SELECT kind, why, items FROM learnsink.job ORDER BY id DESC LIMIT 1`), `(release,"their deadline is over",1)`; got != want {
			t.Errorf("%s", got)
		}
		again.replaySent(w.sent(again.NextOffset, 10))
		if got, want := w.text(`SELECT state, codes, errors -> 0 ->> 'message', attempt FROM learnsink.rejection WHERE id = 'learning.tracking-0-3'`),
			`(open,{registration_not_found},"No registration found for given parameters.",1)`; got != want {
			t.Errorf("%s", got)
		}
		w.audit()
	})

	t.Run("a row that has come back is not sent again and again", func(t *testing.T) {
		o.applyWaiting(track(src, 5, day, 98, 1))
		w.exec(`UPDATE learnsink.rejection SET deadline = now() WHERE state = 'waiting'`)
		w.release(r)
		job := w.text(`SELECT max(id) FROM learnsink.job`)
		if err := w.CancelJob(t.Context(), 4, store.Operator{Actor: "me", Why: "test"}); err != nil {
			t.Fatal(err)
		}
		w.release(r)
		if now := w.text(`SELECT max(id) FROM learnsink.job`); now != job || job != "(4)" {
			t.Errorf("job %s after %s", now, job)
		}
		w.exec(`UPDATE learnsink.job SET created_at = now() - interval '61 minutes'`)
		w.release(r)
		if now := w.text(`SELECT max(id) FROM learnsink.job`); now == job {
			t.Error("it is never sent again")
		}
	})

	t.Run("two that release the same, each without knowing of the other", func(t *testing.T) {
		o.applyWaiting(track(src, 7, day, 97, 1))
		room := w.leadRoom(w.Store)
		defer room.Close()
		for _, want := range []int64{1, 0} {
			if _, rows, err := room.Release(t.Context(), "test", []string{"learning.tracking-0-7", "learning.tracking-0-7"}); err != nil || rows != want {
				t.Errorf("%d rows are released, not %d: %v", rows, want, err)
			}
		}
		if err := room.Rename(t.Context(), []handlers.WaitingRow{{ID: "learning.tracking-0-7", WaitsFor: []string{"x"}}}); err != nil {
			t.Fatal(err)
		}
		if got := w.text(`SELECT state, waits_for FROM learnsink.rejection WHERE id = 'learning.tracking-0-7'`); got != `(replaying,"{""learner login l97""}")` {
			t.Errorf("renamed, though it has left: %s", got)
		}
		w.audit()
	})

	t.Run("one at a time", func(t *testing.T) {
		room := w.leadRoom(w.Store)
		if led, err := releaser(t, w.Store, src).Once(t.Context()); led || err != nil {
			t.Error(led, err)
		}
		room.Close()
		w.release(r)
	})

	t.Run("rows of a source that is not configured stay until their deadline", func(t *testing.T) {
		o.applyWaiting(track(src, 8, day, 1, 78))
		other := *src
		other.Topic = "other"
		w.changeCatalogue(`INSERT INTO learnsink.learning_object (guid, guid_folded, provider) VALUES ('O78', 'o78', 'customer')`)
		w.release(releaser(t, w.Store, &other))
		if got := w.text(`SELECT state FROM learnsink.rejection WHERE id = 'learning.tracking-0-8'`); got != "(waiting)" {
			t.Errorf("%s", got)
		}
		w.exec(`UPDATE learnsink.rejection SET deadline = now() WHERE state = 'waiting'`)
		w.release(releaser(t, w.Store, &other))
		if got := w.text(`SELECT state FROM learnsink.rejection WHERE id = 'learning.tracking-0-8'`); got != "(replaying)" {
			t.Errorf("%s", got)
		}
	})
}

// What rows wait for, and how many.
func TestWaitingFor(t *testing.T) {
	w := newWorld(t)
	src := waitingSource(t)
	o := w.claim(w.Store, src, 0)
	o.applyWaiting(track(src, 0, day, 1, 77), track(src, 1, day, 2, 77, "sessionId", 4711), track(src, 2, day, 3, 77),
		track(src, 3, day, 3, 1, "sessionId", 4711), track(src, 4, day, 3, 1))
	list, names, rows, err := w.WaitingFor(t.Context(), "", 10)
	if err != nil || names != 2 || rows != 4 || len(list) != 2 {
		t.Fatal(list, names, rows, err)
	}
	for i, want := range []string{"learning object guid o77 2 3", "session id 4711 1 2"} {
		if got := fmt.Sprint(list[i].Name, " ", list[i].Alone, " ", list[i].Rows); got != want {
			t.Errorf("%s, not %s", got, want)
		}
		if list[i].Since.IsZero() || !list[i].Next.After(list[i].Since) {
			t.Errorf("%+v", list[i])
		}
	}
	if list, names, _, _ := w.WaitingFor(t.Context(), "", 1); len(list) != 1 || names != 2 {
		t.Errorf("one of them: %v of %d", list, names)
	}
	if _, _, rows, _ := w.WaitingFor(t.Context(), "other", 1); rows != 0 {
		t.Errorf("another source has %d", rows)
	}
	counts, err := w.WaitingCounts(t.Context())
	if err != nil || len(counts) != 1 || counts[0].Topic != src.Topic || counts[0].Rows != 4 || counts[0].Oldest.IsZero() {
		t.Errorf("%+v %v", counts, err)
	}
}

// Whatever comes in which order, and whenever: once all that rows refer to has
// come, and all of them have been released, the tables are worth what they
// would be had the catalogue been complete from the first, as far as the order
// of events says. At every moment the books are right.
func TestAsIfTheCatalogueHadBeenThere(t *testing.T) {
	for _, order := range []string{"event-time", "log"} {
		seed := uint64(time.Now().UnixNano())
		t.Run(order, func(t *testing.T) { asIf(t, order == "event-time", seed) })
	}
}

func asIf(t *testing.T, byEventTime bool, seed uint64) {
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	src := waitingSource(t)
	src.ByEventTime = byEventTime
	// Objects 10 to 13, learners 10 to 12 and session 200 are late.
	late := []string{`INSERT INTO learnsink.session (id, training_id, guid, guid_folded) VALUES (200, 10, 'S200', 's200')`}
	for i := 10; i < 14; i++ {
		late = append(late, fmt.Sprintf(`INSERT INTO learnsink.learning_object (guid, guid_folded, provider) VALUES ('O%d', 'o%[1]d', 'customer')`, i))
	}
	for i := 10; i < 13; i++ {
		late = append(late, fmt.Sprintf(`INSERT INTO learnsink.learner (login, login_folded) VALUES ('L%d', 'l%[1]d')`, i))
	}
	register := `INSERT INTO learnsink.registration (learner_id, session_id) SELECT l.id, s.id FROM learnsink.learner l, learnsink.session s
		WHERE l.login IN ('L1', 'L10', 'L11', 'L12') ON CONFLICT DO NOTHING`
	var records []*handlers.Record
	for i := range 90 {
		at := day.Add(time.Duration(i) * time.Minute)
		if byEventTime {
			at = day.Add(time.Duration(rng.IntN(60)) * time.Minute)
		}
		row := []any{"sessionId", []int{100, 200}[rng.IntN(2)], "progression", rng.IntN(100), "score", i}
		switch rng.IntN(8) {
		case 0:
			row = append(row, "trackingStatus", "notAttempted")
		case 1:
			row = append(row, "progression", 101) // never right
		}
		records = append(records, track(src, int64(i), at, []int{1, 10, 11, 12}[rng.IntN(4)], 9+rng.IntN(5), row...))
	}
	records = append(records, track(src, 90, day.Add(2*time.Hour), 1, 9, "sessionId", 100, "trackingStatus", "notAttempted")) // or one of a thousand stories deletes nothing

	// The world in which everything is there.
	there := newWorld(t)
	for _, sql := range late {
		there.exec(sql)
	}
	there.changeCatalogue(register)
	ideal := there.claim(there.Store, src, 0)
	ideal.apply(records...)

	// The world in which it comes bit by bit.
	w := newWorld(t)
	o, again := w.claim(w.Store, src, 0), w.claim(w.Store, replayTopic(src), 0)
	r := releaser(t, w.Store, src)
	rng.Shuffle(len(late), func(i, j int) { late[i], late[j] = late[j], late[i] })
	for rest := records; len(rest)+len(late) > 0; {
		switch n := rng.IntN(10); {
		case n < 4 && len(rest) > 0:
			n := min(1+rng.IntN(15), len(rest))
			o.applyWaiting(rest[:n]...)
			rest = rest[n:]
		case n == 4 && len(late) > 0 && rng.IntN(3) == 0:
			w.changeCatalogue(late[0])
			late = late[1:]
		case n == 5:
			w.changeCatalogue(register)
		case n == 6:
			w.release(r)
		case n == 7: // a process that knows nothing
			r = releaser(t, open(t, w.url), src)
		case n >= 8:
			again.replaySent(w.sent(again.NextOffset, rng.IntN(8)))
		}
		w.audit()
		if t.Failed() {
			return
		}
	}
	waited := w.text(`SELECT waiting FROM learnsink.position WHERE topic = 'learning.tracking'`)
	if waited == "(0)" {
		t.Fatal("nothing has waited")
	}
	w.changeCatalogue(register)
	w.release(r)
	for records := w.sent(again.NextOffset, 100); len(records) > 0; records = w.sent(again.NextOffset, 100) {
		again.replaySent(records)
	}
	w.audit()
	const stored = `SELECT l.login, o.guid, r.session_id, t.status, t.progression, t.score, t.event_at, t.source_topic, t.source_partition, t.source_offset FROM %s t
		JOIN learnsink.registration r ON r.id = t.registration_id JOIN learnsink.learner l ON l.id = r.learner_id
		JOIN learnsink.learning_object o ON o.id = t.learning_object_id ORDER BY 1, 2, 3`
	live := fmt.Sprintf(stored, "learnsink.tracking")
	deleted := strings.Replace(fmt.Sprintf(stored, "learnsink.tracking_deleted"), "t.status, t.progression, t.score, ", "", 1)
	for _, sql := range []string{live, deleted} {
		if want, got := there.text(sql), w.text(sql); want != got || want == "" {
			t.Errorf("had it all been there:\n%s\nas it came:\n%s", want, got)
		}
	}
	if got := w.text(`SELECT state, count(*) FROM learnsink.rejection WHERE deadline IS NOT NULL AND state NOT IN ('resolved', 'superseded') GROUP BY 1`); got != "" {
		t.Errorf("still there: %s", got)
	}
	// Each row that has waited has one outcome, and each rejected one its line.
	if got, want := w.text(`SELECT sum(accepted) + sum(rejected) FROM learnsink.position WHERE topic = 'learning.replay'`), waited; got != want {
		t.Errorf("%s outcomes of %s rows", got, want)
	}
}

// A COMMIT whose reply is lost, of a row that comes into the room and of one
// that leaves it: it is counted once, and released once.
func TestLostCommitsOfTheRoom(t *testing.T) {
	for name, how := range map[string]int32{
		"the COMMIT took effect and its reply was lost": passThenCut,
		"the COMMIT never arrived":                      cutAtOnce,
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			p, address := newProxy(t, w.url)
			src := waitingSource(t)
			cut := open(t, address)
			o := w.claim(cut, src, 0)
			for i := range int64(5) {
				rec := track(src, i, day, 1, 77)
				b := o.wait(o.batch(rec), rec)
				p.cut.Store(how)
				if err := o.st.Apply(t.Context(), b); err != nil {
					t.Fatal(err)
				}
				o.NextOffset = b.To
				w.audit()
			}
			if got := w.text(`SELECT next_offset, waiting, (SELECT count(*) FROM learnsink.rejection WHERE state = 'waiting') FROM learnsink.position`); got != "(5,5,5)" {
				t.Errorf("what is there: %s", got)
			}
			w.changeCatalogue(`INSERT INTO learnsink.learning_object (guid, guid_folded, provider) VALUES ('O77', 'o77', 'customer')`)
			r := releaser(t, cut, src)
			room := w.leadRoom(cut)
			if _, _, err := room.Look(t.Context()); err != nil {
				t.Fatal(err)
			}
			p.cut.Store(how)
			if _, _, err := room.Release(t.Context(), "test", []string{"learning.tracking-0-0", "learning.tracking-0-1"}); err == nil {
				t.Error("nothing was cut")
			}
			room.Close()
			w.release(r)
			w.release(r)
			if got := w.text(`SELECT count(*), count(DISTINCT rejection), (SELECT count(*) FROM learnsink.rejection WHERE state = 'replaying') FROM learnsink.job_item`); got != "(5,5,5)" {
				t.Errorf("what is released: %s", got)
			}
			w.audit()
		})
	}
}

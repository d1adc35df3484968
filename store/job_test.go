package store_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"strings"
	"testing"
	"time"

	"learnsink/handlers"
	"learnsink/store"
)

// plantRejections plants n dead letters of a topic, all alike but for their place.
func (w *world) plantRejections(topic string, partition, n int) (ids []string) {
	w.t.Helper()
	w.exec(`INSERT INTO learnsink.rejection (id, action, codes, errors, key, value, headers, source_topic, source_partition, source_offset, event_at, rules)
		SELECT $1 || '-' || $2::int || '-' || i, 'tracking', '{registration_not_found}', '[{"code":"registration_not_found","message":"No registration found for given parameters."}]',
		'k', '{}', '[{"key":"own","value":"x"}]', $1, $2::int, i, $4::timestamptz + make_interval(secs => i), 'r' FROM generate_series(0, $3::int - 1) i`, topic, partition, n, day)
	for i := range n {
		ids = append(ids, fmt.Sprintf("%s-%d-%d", topic, partition, i))
	}
	return ids
}

// items are rows of dead letters as they were.
func items(ids ...string) iter.Seq2[store.JobItem, error] {
	return func(yield func(store.JobItem, error) bool) {
		for _, id := range ids {
			if !yield(store.JobItem{Rejection: id}, nil) {
				return
			}
		}
	}
}

func (w *world) createJob(kind string, items iter.Seq2[store.JobItem, error]) (id, frozen int64) {
	w.t.Helper()
	id, frozen, err := w.CreateJob(context.Background(), store.NewJob{Kind: kind, Actor: "ann", Why: "a test"}, items)
	if err != nil {
		w.t.Fatal(err)
	}
	return id, frozen
}

func (w *world) job(id int64) store.Job {
	w.t.Helper()
	j, err := w.Job(context.Background(), id)
	if err != nil {
		w.t.Fatal(err)
	}
	return j
}

// operations are the lines that jobs have left.
func (w *world) operations() string {
	w.t.Helper()
	return w.text(`SELECT verb, actor, why, topic, partition, detail FROM learnsink.operation ORDER BY id`)
}

func TestCreateJob(t *testing.T) {
	is := func(t *testing.T, what string, got, want any) {
		t.Helper()
		if g, w := fmt.Sprint(got), fmt.Sprint(want); g != w {
			t.Errorf("%s: %s\nwant: %s", what, g, w)
		}
	}

	t.Run("the list is in the order of the log, whatever the order that was asked in", func(t *testing.T) {
		w := newWorld(t)
		b, a := w.plantRejections("b", 0, 2), append(w.plantRejections("a", 10, 1), w.plantRejections("a", 9, 11)...)
		id, frozen := w.createJob(store.JobReplay, items(b[1], a[11], a[10], a[2], b[0], a[0]))
		is(t, "frozen", frozen, 6)
		is(t, "items", w.text(`SELECT seq, rejection, source_topic, event_at = (SELECT event_at FROM learnsink.rejection WHERE id = rejection), state FROM learnsink.job_item WHERE job = $1 ORDER BY seq`, id),
			"(1,a-9-1,a,t,pending)\n(2,a-9-9,a,t,pending)\n(3,a-9-10,a,t,pending)\n(4,a-10-0,a,t,pending)\n(5,b-0-0,b,t,pending)\n(6,b-0-1,b,t,pending)")
		is(t, "rejections", w.text(`SELECT count(*), state, job FROM learnsink.rejection GROUP BY 2, 3 ORDER BY 2`), fmt.Sprintf("(8,open,)\n(6,replaying,%d)", id))
		j := w.job(id)
		is(t, "job", fmt.Sprint(j.Kind, j.State, j.Operator, j.Rate, j.JobCounts, j.EndedAt.IsZero(), j.Settled()), "replayrunning{ann a test} 500 {6 6 0 0 0 0 0} true false")
		is(t, "operation", w.operations(), fmt.Sprintf(`("job create",ann,"a test",,,"{""job"": %d, ""kind"": ""replay"", ""rate"": 500, ""rows"": 6, ""leftOut"": 0, ""selection"": {}}")`, id))
	})

	t.Run("what is not open any more is left out, and what comes twice comes once", func(t *testing.T) {
		w := newWorld(t)
		ids := w.plantRejections("a", 0, 8)
		for i, state := range []string{"replaying", "waiting", "resolved", "superseded", "quarantined", "archived"} {
			w.exec(`UPDATE learnsink.rejection SET state = $2 WHERE id = $1`, ids[i], state)
		}
		id, frozen := w.createJob(store.JobReplay, items(append([]string{ids[7], "gone-0-0", ids[6], ids[7]}, ids[:6]...)...))
		is(t, "frozen", frozen, 2)
		is(t, "items", w.text(`SELECT seq, rejection FROM learnsink.job_item WHERE job = $1 ORDER BY seq`, id), "(1,a-0-6)\n(2,a-0-7)")
		if text := w.operations(); !strings.Contains(text, `""leftOut"": 8`) {
			t.Errorf("operation: %s", text)
		}
		release, frozen := w.createJob(store.JobRelease, items(ids...))
		is(t, "released", frozen, 1)
		is(t, "released", w.text(`SELECT rejection FROM learnsink.job_item WHERE job = $1`, release), "(a-0-1)")
	})

	t.Run("an edited row and one of learnsink's own", func(t *testing.T) {
		w := newWorld(t)
		ids := w.plantRejections("a", 0, 1)
		own := []store.JobItem{
			{SourceTopic: "a", EventAt: day, Key: []byte("z"), Value: []byte("second")},
			{SourceTopic: "a", EventAt: day, Value: []byte("third"), Headers: []handlers.Header{{Key: "h", Value: []byte{0}}}},
			{Rejection: ids[0], Value: []byte("first"), Edit: json.RawMessage(`{"score":1}`), Overwrite: "seen"},
		}
		id, frozen := w.createJob(store.JobEdit, func(yield func(store.JobItem, error) bool) {
			for _, item := range own {
				if !yield(item, nil) {
					return
				}
			}
		})
		is(t, "frozen", frozen, 3)
		is(t, "items", w.text(`SELECT seq, rejection, source_topic, key, encode(value, 'escape'), headers, overwrite, edit FROM learnsink.job_item WHERE job = $1 ORDER BY seq`, id),
			`(1,a-0-0,a,,first,,seen,"{""score"": 1}")`+"\n"+`(2,,a,"\\x7a",second,,,)`+"\n"+`(3,,a,,third,"[{""key"": ""h"", ""valueBase64"": ""AA==""}]",,)`)
	})

	t.Run("without a row there is no job", func(t *testing.T) {
		w := newWorld(t)
		if id, frozen := w.createJob(store.JobReplay, items("gone-0-0")); id != 0 || frozen != 0 {
			t.Errorf("job %d of %d rows", id, frozen)
		}
		is(t, "jobs", w.text(`SELECT id FROM learnsink.job`)+w.operations(), "")
	})

	t.Run("an error amid the list undoes all of it, and is told as it is", func(t *testing.T) {
		w := newWorld(t)
		ids := w.plantRejections("a", 0, 3)
		broken := errors.New("the list broke off")
		for _, list := range []iter.Seq2[store.JobItem, error]{
			func(yield func(store.JobItem, error) bool) {
				_ = yield(store.JobItem{Rejection: ids[0]}, nil) && yield(store.JobItem{}, broken)
			},
			func(yield func(store.JobItem, error) bool) {
				_ = yield(store.JobItem{Rejection: ids[0]}, nil) && yield(store.JobItem{Value: []byte("no source")}, nil)
			},
		} {
			_, _, err := w.CreateJob(t.Context(), store.NewJob{Kind: store.JobReplay}, list)
			if err == nil || !errors.Is(err, broken) && !strings.Contains(err.Error(), "needs a source topic") {
				t.Errorf("error: %v", err)
			}
		}
		is(t, "left", w.text(`SELECT state FROM learnsink.rejection GROUP BY 1 UNION ALL SELECT id::text FROM learnsink.job`), "(open)")
		for _, j := range []store.NewJob{{Kind: "guess"}, {Kind: store.JobReplay, Rate: -1}} {
			if _, _, err := w.CreateJob(t.Context(), j, items(ids...)); err == nil {
				t.Errorf("%+v is a job", j)
			}
		}
	})

	t.Run("two at once share a list out", func(t *testing.T) {
		w := newWorld(t)
		ids := w.plantRejections("a", 0, 500)
		backwards := make([]string, len(ids))
		for i, id := range ids {
			backwards[len(ids)-1-i] = id
		}
		sums := make(chan int64, 4)
		for i := range 4 {
			list := ids
			if i%2 == 1 {
				list = backwards
			}
			go func() {
				_, frozen, err := w.CreateJob(context.Background(), store.NewJob{Kind: store.JobReplay}, items(list...))
				if err != nil {
					t.Error(err)
				}
				sums <- frozen
			}()
		}
		if sum := <-sums + <-sums + <-sums + <-sums; sum != 500 {
			t.Errorf("%d rows in all", sum)
		}
		is(t, "in two jobs", w.text(`SELECT rejection FROM learnsink.job_item GROUP BY 1 HAVING count(*) > 1`), "")
	})

	t.Run("twenty thousand rows", func(t *testing.T) {
		if testing.Short() {
			t.Skip("takes seconds")
		}
		w := newWorld(t)
		ids := w.plantRejections("a", 0, 20_000)
		began := time.Now()
		id, frozen := w.createJob(store.JobReplay, items(ids...))
		t.Logf("created in %s", time.Since(began))
		is(t, "frozen", frozen, 20_000)
		is(t, "numbers", w.text(`SELECT min(seq), max(seq), count(DISTINCT seq) FROM learnsink.job_item WHERE job = $1`, id), "(1,20000,20000)")
		if took := time.Since(began); took > time.Minute {
			t.Errorf("created in %s", took)
		}
		began = time.Now()
		if err := w.CancelJob(t.Context(), id, operator); err != nil {
			t.Fatal(err)
		}
		t.Logf("cancelled in %s", time.Since(began))
		is(t, "rejections", w.text(`SELECT state, count(*) FROM learnsink.rejection GROUP BY 1`), "(open,20000)")
		if n, err := w.DropJobs(t.Context(), time.Now().Add(time.Hour)); n != 1 || err != nil {
			t.Errorf("dropped %d jobs: %v", n, err)
		}
	})
}

// A dead letter that was superseded is sent again only to be written over what
// was seen to be newer.
func TestCreateJobOverwrites(t *testing.T) {
	w := newWorld(t)
	ids := w.plantRejections("learning.tracking", 0, 3)
	w.exec(`UPDATE learnsink.rejection SET state = 'superseded' WHERE source_offset < 2`)
	_, frozen := w.createJob(store.JobReplay, func(yield func(store.JobItem, error) bool) {
		_ = yield(store.JobItem{Rejection: ids[0]}, nil) && yield(store.JobItem{Rejection: ids[1], Overwrite: "what was seen"}, nil) &&
			yield(store.JobItem{Rejection: ids[2]}, nil)
	})
	got, want := w.text(`SELECT source_offset, state FROM learnsink.rejection ORDER BY 1`), "(0,superseded)\n(1,replaying)\n(2,replaying)"
	if frozen != 2 || got != want {
		t.Errorf("%d frozen:\n%s\nwant:\n%s", frozen, got, want)
	}
}

func TestTurnJob(t *testing.T) {
	w := newWorld(t)
	ids := w.plantRejections("a", 0, 10)
	w.exec(`UPDATE learnsink.rejection SET state = 'waiting' WHERE source_offset >= 8`)
	id, _ := w.createJob(store.JobReplay, items(ids...))
	release, _ := w.createJob(store.JobRelease, items(ids...))
	ctx := t.Context()
	turn := func(f func(context.Context, int64, store.Operator) error, id int64, state string, want error) {
		t.Helper()
		if err := f(ctx, id, operator); !errors.Is(err, want) {
			t.Fatalf("%v, not %v", err, want)
		}
		if got := w.job(id).State; got != state {
			t.Fatalf("the job is %s, not %s", got, state)
		}
	}
	turn(w.ResumeJob, id, "running", nil)
	turn(w.PauseJob, id, "paused", nil)
	turn(w.PauseJob, id, "paused", nil)
	turn(w.ResumeJob, id, "running", nil)
	turn(w.PauseJob, id, "paused", nil)

	// Three are sent; of the rest one is in another job by now, one archived.
	w.exec(`UPDATE learnsink.job_item SET state = 'sent' WHERE job = $1 AND seq <= 3`, id)
	w.exec(`UPDATE learnsink.job SET sent = 3 WHERE id = $1`, id)
	w.exec(`UPDATE learnsink.rejection SET job = 99 WHERE id = $1`, ids[4])
	w.exec(`UPDATE learnsink.rejection SET state = 'archived' WHERE id = $1`, ids[5])
	if left, err := w.JobsLeft(ctx); err != nil || left != (store.JobsLeft{Running: 1, Paused: 1, Rows: 2}) {
		t.Errorf("%+v, %v", left, err)
	}
	turn(w.CancelJob, id, "cancelled", nil)
	if j := w.job(id); j.JobCounts != (store.JobCounts{Items: 8, Sent: 3, Dropped: 5}) || j.EndedAt.IsZero() || j.Settled() {
		t.Errorf("job: %+v", j)
	}
	turn(w.CancelJob, id, "cancelled", nil)
	turn(w.PauseJob, id, "cancelled", store.ErrJobEnded)
	turn(w.ResumeJob, id, "cancelled", store.ErrJobEnded)
	turn(w.CancelJob, release, "cancelled", nil)
	if got, want := w.text(`SELECT string_agg(left(state, 2), ' ' ORDER BY source_offset) FROM learnsink.rejection`), `("re re re op re ar op op wa wa")`; got != want {
		t.Errorf("rejections: %s\nwant: %s", got, want)
	}
	w.exec(`UPDATE learnsink.job SET state = 'done' WHERE id = $1`, release)
	turn(w.CancelJob, release, "done", store.ErrJobEnded)
	if err := w.PauseJob(ctx, 77, operator); !errors.Is(err, store.ErrNoJob) {
		t.Error(err)
	}
	if _, err := w.Job(ctx, 77); !errors.Is(err, store.ErrNoJob) {
		t.Error(err)
	}
	verbs := w.text(`SELECT verb, detail ->> 'state', detail ->> 'dropped' FROM learnsink.operation ORDER BY id`)
	if want := "(\"job create\",,)\n(\"job create\",,)\n(\"job pause\",running,)\n(\"job resume\",paused,)\n(\"job pause\",running,)\n(\"job cancel\",paused,5)\n(\"job cancel\",running,2)"; verbs != want {
		t.Errorf("operations: %s", verbs)
	}
	if ops, err := w.Operations(ctx, ""); err != nil || len(ops) != 0 {
		t.Errorf("operations on partitions: %v, %v", ops, err)
	}

	jobs, err := w.Jobs(ctx)
	if err != nil || len(jobs) != 2 || jobs[0].ID != release || jobs[1].ID != id {
		t.Errorf("jobs: %+v, %v", jobs, err)
	}
	// One that has rows without an outcome stays, however old.
	w.exec(`UPDATE learnsink.job SET ended_at = now() - interval '100 days'`)
	if n, err := w.DropJobs(ctx, time.Now().AddDate(0, 0, -90)); n != 1 || err != nil {
		t.Errorf("dropped %d: %v", n, err)
	}
	if got := w.text(`SELECT id FROM learnsink.job`); got != fmt.Sprintf("(%d)", id) {
		t.Errorf("left: %s", got)
	}
}

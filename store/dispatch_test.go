package store_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"learnsink/handlers"
	"learnsink/store"
)

// onto is the replay topic.
const onto = "learning.replay"

// sending is a store's right to send the rows of jobs, claimed.
type sending struct {
	*store.Lead
	handlers.Dispatcher
	w    *world
	sent []handlers.JobRow
}

func (w *world) lead(st *store.Store) *sending {
	w.t.Helper()
	l, led, err := st.LeadDispatcher(context.Background(), onto)
	if err != nil || !led {
		w.t.Fatalf("led %v, %v", led, err)
	}
	w.t.Cleanup(l.Close)
	s := &sending{Lead: l, w: w}
	s.claim(clusterID)
	return s
}

func (s *sending) claim(cluster string) {
	s.w.t.Helper()
	var err error
	if s.Dispatcher, err = s.Claim(context.Background(), cluster); err != nil {
		s.w.t.Fatal(err)
	}
}

// step takes rows; the payload says which.
func (s *sending) step(shares ...handlers.JobShare) *handlers.Dispatch {
	s.w.t.Helper()
	d := s.dispatch(shares...)
	if err := s.Dispatch(context.Background(), d); err != nil {
		s.w.t.Fatal(err)
	}
	s.Next = d.To
	return d
}

func (s *sending) dispatch(shares ...handlers.JobShare) *handlers.Dispatch {
	return &handlers.Dispatch{Epoch: s.Epoch, From: s.Next, Shares: shares, Bytes: 1 << 20, Encode: func(rows []handlers.JobRow) ([]byte, error) {
		s.sent = rows
		var payload []byte
		for i := range rows {
			if strings.Contains(string(rows[i].Value), "too large") {
				rows[i].Unfit = true
				continue
			}
			payload = fmt.Appendf(payload, "%d/%d\n", rows[i].Replay.Job, rows[i].Replay.Item)
		}
		return payload, nil
	}}
}

// jobs are the jobs and their rows, in short.
func (w *world) jobs() string {
	w.t.Helper()
	return w.text(`SELECT j.id, j.state, j.sent, (SELECT string_agg(left(i.state, 2), ' ' ORDER BY i.seq) FROM learnsink.job_item i WHERE i.job = j.id) FROM learnsink.job j ORDER BY j.id`)
}

func (w *world) outbox() string {
	w.t.Helper()
	return w.text(`SELECT from_offset, to_offset, replace(convert_from(payload, 'UTF8'), E'\n', ' ') FROM learnsink.outbox WHERE topic = 'learnsink.jobs' ORDER BY 1`)
}

// jobFaults is what audit finds, but for dead letters that were planted.
func (w *world) jobFaults() string {
	w.t.Helper()
	findings, err := w.Audit(context.Background(), store.AuditOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
	var text []string
	for _, f := range findings {
		if !strings.Contains(f.Fault, "a rejection is stored that no batch speaks of") {
			text = append(text, f.String())
		}
	}
	return strings.Join(text, "\n")
}

func TestDispatch(t *testing.T) {
	is := func(t *testing.T, what string, got, want any) {
		t.Helper()
		if g, w := fmt.Sprint(got), fmt.Sprint(want); g != w {
			t.Errorf("%s: %s\nwant: %s", what, g, w)
		}
	}

	t.Run("step by step, of two jobs", func(t *testing.T) {
		w := newWorld(t)
		ids := w.plantRejections("a", 0, 7)
		one, _ := w.createJob(store.JobReplay, items(ids[:4]...))
		two, _ := w.createJob(store.JobReplay, items(ids[4:]...))
		s := w.lead(w.Store)
		jobs, pending, err := s.Work(t.Context())
		is(t, "work", fmt.Sprint(jobs, pending, err), fmt.Sprintf("[{%d 500 4} {%d 500 3}] false <nil>", one, two))
		d := s.step(handlers.JobShare{Job: one, Rows: 2}, handlers.JobShare{Job: two, Rows: 1})
		is(t, "moved", fmt.Sprint(d.From, d.To, len(d.Moved)), "0 3 2")
		is(t, "jobs", w.jobs(), "(1,running,2,\"se se pe pe\")\n(2,running,1,\"se pe pe\")")
		is(t, "outbox", w.outbox(), `(0,3,"1/1 1/2 2/1 ")`)
		d.Published = 0
		next := s.dispatch(handlers.JobShare{Job: one, Rows: 100}, handlers.JobShare{Job: two, Rows: 1})
		next.Published = 3
		if err := s.Dispatch(t.Context(), next); err != nil {
			t.Fatal(err)
		}
		s.Next = next.To
		is(t, "outbox", w.outbox(), `(3,6,"1/3 1/4 2/2 ")`)
		is(t, "jobs", w.jobs(), "(1,done,4,\"se se se se\")\n(2,running,2,\"se se pe\")")
		for _, m := range next.Moved {
			if m.Done != (m.Job == one) {
				t.Errorf("moved: %+v", m)
			}
		}
		if j := w.job(one); j.EndedAt.IsZero() || j.Settled() || !j.Ended() || j.Sent != 4 {
			t.Errorf("job: %+v", j)
		}
		jobs, pending, err = s.Work(t.Context())
		is(t, "work", fmt.Sprint(jobs, pending, err), fmt.Sprintf("[{%d 500 1}] true <nil>", two))
		if err := s.Published(t.Context(), s.Epoch, 6); err != nil {
			t.Fatal(err)
		}
		is(t, "outbox", w.outbox(), "")
		is(t, "faults", w.jobFaults(), "")
	})

	t.Run("what a row says of itself", func(t *testing.T) {
		w := newWorld(t)
		ids := append(w.plantRejections("a", 3, 3), w.plantRejections(onto, 1, 1)...)
		w.exec(`UPDATE learnsink.rejection SET attempt = 2 WHERE id = $1`, ids[1])
		w.exec(`UPDATE learnsink.rejection SET state = 'waiting', incarnation = 2 WHERE id = $1`, ids[2])
		w.exec(`UPDATE learnsink.rejection SET headers = '[{"key":"learnsink.source.topic","value":"b"},{"key":"own","valueBase64":"AA=="}]' WHERE id = $1`, ids[3])
		w.createJob(store.JobEdit, func(yield func(store.JobItem, error) bool) {
			_ = yield(store.JobItem{Rejection: ids[0]}, nil) &&
				yield(store.JobItem{Rejection: ids[1], Value: []byte("edited"), Overwrite: "seen"}, nil) &&
				yield(store.JobItem{Rejection: ids[3]}, nil) &&
				yield(store.JobItem{SourceTopic: "zz", EventAt: day, Value: []byte("mine")}, nil)
		})
		w.createJob(store.JobRelease, items(ids[2]))
		s := w.lead(w.Store)
		s.step(handlers.JobShare{Job: 1, Rows: 10}, handlers.JobShare{Job: 2, Rows: 10})
		var got []string
		for i := range s.sent {
			r := &s.sent[i]
			got = append(got, fmt.Sprintf("%s %s %q %+v", r.Key, r.Value, r.Headers, r.Replay))
		}
		at := func(seconds int) time.Time { return day.Add(time.Duration(seconds) * time.Second) }
		origin := func(incarnation int, offset int64) handlers.Opt[handlers.Origin] {
			return handlers.Some(handlers.Origin{Partition: 3, Incarnation: incarnation, Offset: offset})
		}
		own := []handlers.Header{{Key: "own", Value: []byte("x")}}
		want := []string{
			fmt.Sprintf("k {} %q %+v", own, handlers.Replay{Of: ids[0], Attempt: 2, EventTime: at(0), SourceTopic: "a", Origin: origin(1, 0), Job: 1, Item: 1}),
			fmt.Sprintf("k edited %q %+v", own, handlers.Replay{Of: ids[1], Attempt: 3, EventTime: at(1), SourceTopic: "a", Origin: origin(1, 1), Job: 1, Item: 2, Overwrite: "seen"}),
			fmt.Sprintf("k {} %q %+v", []handlers.Header{{Key: "learnsink.source.topic", Value: []byte("b")}, {Key: "own", Value: []byte{0}}},
				handlers.Replay{Of: ids[3], Attempt: 2, EventTime: at(0), SourceTopic: "b", Job: 1, Item: 3}),
			fmt.Sprintf(" mine %q %+v", []handlers.Header(nil), handlers.Replay{Attempt: 1, EventTime: at(0), SourceTopic: "zz", Job: 1, Item: 4}),
			fmt.Sprintf("k {} %q %+v", own, handlers.Replay{Of: ids[2], Attempt: 1, EventTime: at(2), SourceTopic: "a", Origin: origin(2, 2), Job: 2, Item: 1, Waited: true}),
		}
		is(t, "rows", strings.Join(got, "\n"), strings.Join(want, "\n"))
	})

	t.Run("what is gone, taken away or too large is dropped", func(t *testing.T) {
		w := newWorld(t)
		ids := w.plantRejections("a", 0, 6)
		w.createJob(store.JobReplay, items(ids...))
		w.exec(`DELETE FROM learnsink.rejection WHERE id = $1`, ids[0])
		w.exec(`UPDATE learnsink.rejection SET state = 'archived' WHERE id = $1`, ids[1])
		w.exec(`UPDATE learnsink.rejection SET job = 9 WHERE id = $1`, ids[2])
		w.exec(`UPDATE learnsink.rejection SET value = 'too large' WHERE id = $1`, ids[3])
		s := w.lead(w.Store)
		d := s.step(handlers.JobShare{Job: 1, Rows: 100})
		is(t, "jobs", w.jobs(), `(1,done,6,"dr dr dr dr se se")`)
		is(t, "moved", fmt.Sprint(d.From, d.To, d.Moved), "0 6 [{1 2 4 true}]")
		is(t, "rejections", w.text(`SELECT source_offset, state FROM learnsink.rejection ORDER BY 1`), "(1,archived)\n(2,replaying)\n(3,open)\n(4,replaying)\n(5,replaying)")
		is(t, "outbox", w.outbox(), `(0,6,"1/5 1/6 ")`)
	})

	t.Run("a step is no larger than its bound, and never nothing", func(t *testing.T) {
		w := newWorld(t)
		ids := w.plantRejections("a", 0, 5)
		w.exec(`UPDATE learnsink.rejection SET value = convert_to(repeat('x', 1000), 'UTF8') WHERE source_offset <> 2`)
		w.exec(`UPDATE learnsink.rejection SET value = convert_to(repeat('x', 10000), 'UTF8') WHERE source_offset = 2`)
		w.createJob(store.JobReplay, items(ids...))
		s := w.lead(w.Store)
		var tos []int64
		for range 3 {
			d := s.dispatch(handlers.JobShare{Job: 1, Rows: 100})
			d.Bytes = 2000
			if err := s.Dispatch(t.Context(), d); err != nil {
				t.Fatal(err)
			}
			s.Next = d.To
			tos = append(tos, d.To)
		}
		is(t, "steps", tos, "[2 3 5]")
		is(t, "jobs", w.jobs(), `(1,done,5,"se se se se se")`)
	})

	t.Run("a job whose last rows were erased is done", func(t *testing.T) {
		w := newWorld(t)
		w.createJob(store.JobReplay, items(w.plantRejections("a", 0, 4)...))
		w.exec(`DELETE FROM learnsink.job_item WHERE seq IN (2, 4)`)
		s := w.lead(w.Store)
		s.step(handlers.JobShare{Job: 1, Rows: 1})
		is(t, "jobs", w.jobs(), `(1,running,1,"se pe")`)
		s.step(handlers.JobShare{Job: 1, Rows: 1})
		is(t, "jobs", w.jobs(), `(1,done,3,"se se")`)
		w.createJob(store.JobReplay, items(w.plantRejections("b", 0, 1)...))
		w.exec(`DELETE FROM learnsink.job_item WHERE job = 2`)
		s.step(handlers.JobShare{Job: 2, Rows: 1})
		is(t, "jobs", w.jobs(), "(1,done,3,\"se se\")\n(2,done,0,)")
	})

	t.Run("a paused and a cancelled job give nothing", func(t *testing.T) {
		w := newWorld(t)
		ids := w.plantRejections("a", 0, 4)
		w.createJob(store.JobReplay, items(ids[:2]...))
		w.createJob(store.JobReplay, items(ids[2:]...))
		s := w.lead(w.Store)
		if err := errors.Join(w.PauseJob(t.Context(), 1, operator), w.CancelJob(t.Context(), 2, operator)); err != nil {
			t.Fatal(err)
		}
		d := s.step(handlers.JobShare{Job: 1, Rows: 10}, handlers.JobShare{Job: 2, Rows: 10})
		is(t, "moved", fmt.Sprint(d.To, d.Payload, d.Moved), "0 [] []")
		is(t, "jobs", w.jobs(), "(1,paused,0,\"pe pe\")\n(2,cancelled,0,\"dr dr\")")
		is(t, "faults", w.jobFaults(), "")
	})

	t.Run("what fails leaves everything as it was", func(t *testing.T) {
		w := newWorld(t)
		w.createJob(store.JobReplay, items(w.plantRejections("a", 0, 2)...))
		s := w.lead(w.Store)
		w.exec(`INSERT INTO learnsink.outbox (topic, partition, from_offset, to_offset, payload) VALUES ('learnsink.jobs', 0, 0, 0, '')`)
		if err := s.Dispatch(t.Context(), s.dispatch(handlers.JobShare{Job: 1, Rows: 2})); err == nil {
			t.Fatal("two entries have one number")
		}
		is(t, "jobs", w.jobs(), `(1,running,0,"pe pe")`)
		is(t, "next", w.text(`SELECT next FROM learnsink.dispatcher`), "(0)")
	})

	t.Run("who has claimed last is the one", func(t *testing.T) {
		w := newWorld(t)
		w.createJob(store.JobReplay, items(w.plantRejections("a", 0, 4)...))
		zombie := w.lead(w.Store)
		zombie.step(handlers.JobShare{Job: 1, Rows: 1})
		if _, led, err := open(t, w.url).LeadDispatcher(t.Context(), onto); led || err != nil {
			t.Fatalf("two have the right at once: %v", err)
		}
		if is, err := w.Dispatching(t.Context()); !is || err != nil {
			t.Errorf("nobody dispatches: %v", err)
		}
		// Its connection is lost, and it does not know.
		w.exec(`SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`)
		var next *sending
		for next == nil {
			if l, led, err := w.LeadDispatcher(t.Context(), onto); err != nil {
				t.Fatal(err)
			} else if led {
				t.Cleanup(l.Close)
				next = &sending{Lead: l, w: w}
				next.claim(clusterID)
			}
		}
		before := w.jobs() + w.outbox()
		ctx := t.Context()
		for what, err := range map[string]error{
			"dispatch": zombie.Dispatch(ctx, zombie.dispatch(handlers.JobShare{Job: 1, Rows: 1})), "drop": zombie.Published(ctx, zombie.Epoch, 1), "jump": zombie.Jump(ctx, zombie.Epoch, 100),
		} {
			if !errors.Is(err, handlers.ErrFenced) {
				t.Errorf("%s: %v", what, err)
			}
		}
		if _, _, err := zombie.Work(ctx); !errors.Is(err, handlers.ErrNotLeading) {
			t.Errorf("work: %v", err)
		}
		if _, err := zombie.Claim(ctx, clusterID); err == nil {
			t.Error("the zombie has claimed over a lost connection")
		}
		if err := zombie.Explain(ctx, "nonsense"); err == nil || w.text(`SELECT reason FROM learnsink.dispatcher`) != `("")` {
			t.Error("the zombie has its say")
		}
		is(t, "left", w.jobs()+w.outbox(), before)
		d := next.dispatch(handlers.JobShare{Job: 1, Rows: 1})
		d.From--
		if err := next.Dispatch(ctx, d); !errors.Is(err, handlers.ErrMoved) {
			t.Errorf("from another count: %v", err)
		}
		next.step(handlers.JobShare{Job: 1, Rows: 9})
		is(t, "jobs", w.jobs(), `(1,done,4,"se se se se")`)
		next.Close()
		for { // the server notices in its own time
			if is, err := w.Dispatching(ctx); err != nil {
				t.Fatal(err)
			} else if !is {
				break
			}
		}
	})

	t.Run("another cluster is taken when an operator has taken it", func(t *testing.T) {
		w := newWorld(t)
		w.createJob(store.JobReplay, items(w.plantRejections("a", 0, 1)...))
		s := w.lead(w.Store)
		s.claim(clusterID)
		is(t, "round", s.Round, 1)
		if _, err := s.Claim(t.Context(), "other"); !errors.Is(err, handlers.ErrClusterChanged) {
			t.Errorf("%v", err)
		}
		if err := s.Explain(t.Context(), "another cluster"); err != nil {
			t.Fatal(err)
		}
		is(t, "why it waits", w.job(1).Waits, "another cluster")
		if _, err := w.Claim(t.Context(), handlers.TopicPartition{Topic: onto}, "other", 0); err != nil {
			t.Fatal(err)
		}
		epoch := s.Epoch
		s.claim("other")
		is(t, "round", s.Round, 2)
		if s.Epoch <= epoch {
			t.Error("the epoch has not been raised")
		}
		s.claim("other")
		is(t, "round", s.Round, 2)
		if err := s.Jump(t.Context(), s.Epoch, 50); err != nil {
			t.Fatal(err)
		}
		s.claim("other")
		is(t, "next", s.Next, 50)
	})

	t.Run("audit finds what no job explains", func(t *testing.T) {
		w := newWorld(t)
		w.createJob(store.JobReplay, items(w.plantRejections("a", 0, 3)...))
		w.lead(w.Store).step(handlers.JobShare{Job: 1, Rows: 2})
		is(t, "faults", w.jobFaults(), "")
		w.exec(`UPDATE learnsink.job_item SET state = 'accepted' WHERE seq = 1`)
		w.exec(`UPDATE learnsink.job_item SET state = 'sent' WHERE seq = 3`)
		w.exec(`UPDATE learnsink.outbox SET to_offset = 5`)
		for _, want := range []string{"a dead letter is replaying, and no job has sent it or is to", "a row is sent, of a job that has sent 2", "the outbox speaks of offsets that no batch does"} {
			if !strings.Contains(w.jobFaults(), want) {
				t.Errorf("audit does not say that %s: %s", want, w.jobFaults())
			}
		}
	})
}

// TestLostDispatchCommit: whatever became of the COMMIT, every row is taken once.
func TestLostDispatchCommit(t *testing.T) {
	for name, how := range map[string]int32{"took effect": passThenCut, "never arrived": cutAtOnce, "nobody knows": passAndCutUnread} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			if how == passAndCutUnread {
				w.exec(`CREATE FUNCTION learnsink.slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.1); RETURN NULL; END'`)
				w.exec(`CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON learnsink.outbox DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION learnsink.slow()`)
			}
			p, address := newProxy(t, w.url)
			w.createJob(store.JobReplay, items(w.plantRejections("a", 0, 20)...))
			s := w.lead(open(t, address))
			for failed := 0; s.Next < 20; {
				d := s.dispatch(handlers.JobShare{Job: 1, Rows: 5})
				p.cut.Store(how)
				err := s.Dispatch(t.Context(), d)
				switch {
				case err == nil && d.To == d.From:
					t.Fatalf("nothing is left to send after %d rows", d.To)
				case err == nil:
					s.Next = d.To
				case how == passThenCut || failed > 5:
					t.Fatal(err)
				default: // nothing has happened, and it is tried again
					failed++
					p.cut.Store(0)
					s.step(handlers.JobShare{Job: 1, Rows: 5})
				}
			}
			if p.cuts.Load() < 2 {
				t.Fatalf("%d COMMITs were cut", p.cuts.Load())
			}
			if got := w.text(`SELECT next, (SELECT sum(to_offset - from_offset) FROM learnsink.outbox), (SELECT string_agg(DISTINCT state, ' ') FROM learnsink.job_item) FROM learnsink.dispatcher`); got != "(20,20,sent)" {
				t.Errorf("what is there: %s", got)
			}
		})
	}
}

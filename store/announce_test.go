package store_test

import (
	"fmt"
	"testing"

	"learnsink/handlers"
	"learnsink/store"
)

// An announcement goes as it is, to its own topic, and is done once it is sent.
func TestAnnounce(t *testing.T) {
	w, _, _ := newInes(t)
	done := w.erase(handlers.LearnerLogin, "ines.lopez", true)
	s := w.lead(w.Store)
	d := s.step(handlers.JobShare{Job: done.Job, Rows: 10})
	if len(s.sent) != 1 || s.sent[0].Topic != "learning.accepted" || string(s.sent[0].Value) != fmt.Sprintf(`{"id":%d}`, done.PersonID) || s.sent[0].Replay.Of != "" {
		t.Errorf("sent: %+v", s.sent)
	}
	if len(d.Moved) != 1 || !d.Moved[0].Done || d.Moved[0].Sent != 1 {
		t.Errorf("moved: %+v", d.Moved)
	}
	if j := w.job(done.Job); j.State != store.JobDone || j.Accepted != 1 || !j.Settled() {
		t.Errorf("the job: %+v", j)
	}
	if d = s.step(handlers.JobShare{Job: done.Job, Rows: 10}); d.To != d.From {
		t.Errorf("sent again: %+v", d)
	}
}

// A job comes to its end where the rows that it would send last are an erased
// person's.
func TestErasedAmongAJob(t *testing.T) {
	w, _, _ := newInes(t)
	id, frozen := w.createJob(store.JobReplay, items("learning.tracking-0-3", "learning.tracking-0-4", "learning.tracking-0-5", "learning.tracking-0-8"))
	if frozen != 4 {
		t.Fatalf("%d rows", frozen)
	}
	s := w.lead(w.Store)
	w.erase(handlers.LearnerLogin, "ines.lopez", true)
	d := s.step(handlers.JobShare{Job: id, Rows: 10})
	if len(s.sent) != 1 || s.sent[0].Replay.Of != "learning.tracking-0-4" || !d.Moved[0].Done {
		t.Errorf("sent %+v, moved %+v", s.sent, d.Moved)
	}
	if j := w.job(id); j.State != store.JobDone || j.Dropped != 3 || j.Sent != 1 {
		t.Errorf("the job: %+v", j)
	}
	// The same, where all of it was hers.
	id, _ = w.createJob(store.JobReplay, items("learning.tracking-0-10"))
	w.exec(`UPDATE learnsink.job_item SET state = 'dropped' WHERE job = $1`, id)
	if s.step(handlers.JobShare{Job: id, Rows: 10}); w.job(id).State != store.JobDone {
		t.Errorf("the job: %+v", w.job(id))
	}
}

package store_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"learnsink/handlers"
	"learnsink/store"
)

var operator = store.Operator{Actor: "ann", Why: "a test"}

// takeOver claims a partition as an operator's verb does: nothing is pending.
func (o *owner) takeOver() {
	o.w.t.Helper()
	p := o.w.claim(o.st, o.source, o.Partition).Position
	o.Position = p
	if err := o.st.Published(context.Background(), o.TopicPartition, o.Epoch, o.NextOffset); err != nil {
		o.w.t.Fatal(err)
	}
}

// set takes the partition over and sets its position.
func (o *owner) set(mode store.Mode, to int64) store.PositionSet {
	o.w.t.Helper()
	o.takeOver()
	set, err := o.st.SetPosition(context.Background(), o.change(mode, to))
	if err != nil {
		o.w.t.Fatal(err)
	}
	o.Position = o.w.position(o.TopicPartition)
	return set
}

func (o *owner) change(mode store.Mode, to int64) store.PositionChange {
	return store.PositionChange{TopicPartition: o.TopicPartition, Epoch: o.Epoch, To: to, Mode: mode, ClusterID: "other-cluster",
		Action: o.source.Rules.Action(), Operator: operator}
}

func (w *world) position(tp handlers.TopicPartition) handlers.Position {
	w.t.Helper()
	positions, err := w.Positions(context.Background())
	if err != nil {
		w.t.Fatal(err)
	}
	for _, p := range positions {
		if p.TopicPartition == tp {
			return p
		}
	}
	w.t.Fatalf("%v has no position", tp)
	return handlers.Position{}
}

// three applies three batches of three offsets from where the position is: a
// row that is good, one that is rejected, and an offset without a row.
func (o *owner) three() {
	o.w.t.Helper()
	for range 3 {
		n := o.NextOffset
		b := o.batch(track(o.source, n, day, int(n%10), 1), track(o.source, n+1, day, 1, 99))
		b.To = n + 3
		b.Anchor = handlers.Some(handlers.Anchor{Offset: n + 1, Hash: fmt.Append(nil, n+1)})
		if err := o.st.Apply(context.Background(), b); err != nil {
			o.w.t.Fatal(err)
		}
		o.NextOffset = b.To
	}
	o.Position = o.w.position(o.TopicPartition)
}

func TestSetPosition(t *testing.T) {
	start := func(t *testing.T) (*world, *owner) {
		w := newWorld(t)
		other := w.claim(w.Store, source(t, handlers.Tracking), 1) // stays as it is
		other.three()
		o := w.claim(w.Store, other.source, 0)
		o.three()
		t.Cleanup(func() {
			w.audit()
			if got := w.position(other.TopicPartition); got.Round != 1 || got.NextOffset != 9 || got.Accepted != 3 {
				t.Errorf("another partition has changed: %+v", got)
			}
		})
		return w, o
	}
	rejected := func(t *testing.T, w *world) string {
		t.Helper()
		return w.text(`SELECT id, incarnation FROM learnsink.rejection WHERE source_partition = 0 ORDER BY source_offset`)
	}
	is := func(t *testing.T, what string, got, want any) {
		t.Helper()
		if g, w := fmt.Sprint(got), fmt.Sprint(want); g != w {
			t.Errorf("%s: %s\nwant: %s", what, g, w)
		}
	}
	sums := func(p handlers.Position) string {
		return fmt.Sprintf("%d to %d: %d accepted, %d rejected, %d skipped; round %d since %d, incarnation %d",
			p.FirstOffset, p.NextOffset, p.Accepted, p.Rejected, p.Skipped, p.Round, p.AnnouncedSince, p.Incarnation)
	}

	t.Run("forward skips, in a ledger line", func(t *testing.T) {
		w, o := start(t)
		set := o.set(store.Forward, 20)
		is(t, "done", fmt.Sprintf("%+v", set), `{Mode:forward From:{Offset:9 Round:1 Incarnation:1 Cluster: State:} To:{Offset:20 Round:1 Incarnation:1 Cluster: State:} First:0 Published:9 Skipped:11 Superseded:0 Dropped:0}`)
		is(t, "position", sums(o.Position), "0 to 20: 3 accepted, 3 rejected, 14 skipped; round 1 since 1, incarnation 1")
		w.audit()
		o.three()
		is(t, "position", sums(o.Position), "0 to 29: 6 accepted, 6 rejected, 17 skipped; round 1 since 1, incarnation 1")
		lines := w.ledger(store.Log{TopicPartition: o.TopicPartition, Incarnation: 1}, 9, 20)
		if len(lines) != 1 || lines[0].Skipped != 11 || lines[0].Rules != "" {
			t.Errorf("ledger: %+v", lines)
		}
		is(t, "the anchor's offset", o.Anchor.V.Offset, 27)
	})

	for _, c := range []struct {
		mode  store.Mode
		since int
	}{{store.Silent, 1}, {store.Republish, 2}} {
		t.Run("back, "+string(c.mode)+": rows are judged again, and counted once", func(t *testing.T) {
			w, o := start(t)
			before := w.text(`SELECT * FROM learnsink.outcome_daily`)
			set := o.set(c.mode, 3)
			is(t, "counts", []int64{set.Skipped, set.Superseded, set.Dropped}, []int64{0, 2, 2})
			is(t, "position", sums(o.Position), fmt.Sprintf("3 to 3: 0 accepted, 0 rejected, 0 skipped; round 2 since %d, incarnation 1", c.since))
			is(t, "rejections", rejected(t, w), "(learning.tracking-0-1,1)")
			is(t, "the anchor's offset", o.Anchor.V.Offset, 7)
			w.audit()
			o.three()
			is(t, "position", sums(o.Position), fmt.Sprintf("3 to 12: 3 accepted, 3 rejected, 3 skipped; round 2 since %d, incarnation 1", c.since))
			w.audit()
			o.set(store.Silent, 9)
			is(t, "outcomes", w.text(`SELECT * FROM learnsink.outcome_daily`), before)
		})
	}

	t.Run("a batch that is cut stays, and its rows behind are counted twice", func(t *testing.T) {
		w, o := start(t)
		o.set(store.Silent, 4) // amid 3 to 5
		is(t, "rejections", rejected(t, w), "(learning.tracking-0-1,1)")
		w.audit()
		log := store.Log{TopicPartition: o.TopicPartition, Incarnation: 1}
		if lines := w.ledger(log, 0, 9); len(lines) != 2 || lines[1].From != 3 || lines[1].To != 6 || lines[1].End != 4 {
			t.Errorf("ledger: %+v", lines)
		}
		o.three()
		w.audit()
		if lines := w.ledger(log, 0, 100); len(lines) != 5 || lines[1].End != 4 || lines[4].End != 13 {
			t.Errorf("ledger: %+v", lines)
		}
		o.set(store.Republish, 1)
		w.audit()
		o.three()
	})

	t.Run("another log is another incarnation, whose ids are others", func(t *testing.T) {
		w, o := start(t)
		o.BreakerBelow = 7
		w.exec(`UPDATE learnsink.position SET breaker_below = 7, state = 'log_diverged', state_reason = 'the log is another one' WHERE partition = 0`)
		set := o.set(store.NewLog, 0)
		is(t, "from", fmt.Sprintf("%+v", set.From), "{Offset:9 Round:1 Incarnation:1 Cluster:test-cluster State:log_diverged}")
		is(t, "to", fmt.Sprintf("%+v", set.To), "{Offset:0 Round:2 Incarnation:2 Cluster:other-cluster State:running}")
		is(t, "position", sums(o.Position), "0 to 0: 0 accepted, 0 rejected, 0 skipped; round 2 since 2, incarnation 2")
		if o.Anchor.OK || o.BreakerBelow != 0 || o.ClusterID != "other-cluster" || o.State != handlers.Running || o.StateReason != "" {
			t.Errorf("position: %+v", o.Position)
		}
		is(t, "rejections", rejected(t, w), "(learning.tracking-0-1,1)\n(learning.tracking-0-4,1)\n(learning.tracking-0-7,1)")
		w.audit()
		o.three()
		if got := rejected(t, w); strings.Count(got, "\n") != 5 || !strings.Contains(got, "(learning.tracking~2-0-1,2)") {
			t.Errorf("rejections: %s", got)
		}
		w.exec(`UPDATE learnsink.position SET cluster_id = $1 WHERE partition = 0`, clusterID) // so that the test's claim finds it
		o.set(store.Republish, 3)
		is(t, "rejections", rejected(t, w), "(learning.tracking-0-1,1)\n(learning.tracking~2-0-1,2)\n(learning.tracking-0-4,1)\n(learning.tracking-0-7,1)")
		is(t, "position", sums(o.Position), "3 to 3: 0 accepted, 0 rejected, 0 skipped; round 3 since 3, incarnation 2")
	})

	t.Run("what is not so changes nothing", func(t *testing.T) {
		w, o := start(t)
		all := func() string {
			return w.text(`SELECT p::text FROM learnsink.position p UNION ALL SELECT l::text FROM learnsink.ledger l UNION ALL SELECT r.id FROM learnsink.rejection r
				UNION ALL SELECT o::text FROM learnsink.operation o ORDER BY 1`)
		}
		refuse := func(what string, c store.PositionChange, want error) {
			t.Helper()
			before := all()
			if _, err := o.st.SetPosition(t.Context(), c); err == nil || want != nil && !errors.Is(err, want) {
				t.Errorf("%s: %v, not %v", what, err, want)
			}
			is(t, what, all(), before)
		}
		refuse("with batches to publish", o.change(store.Silent, 3), store.ErrUnpublished)
		o.takeOver()
		fenced := o.change(store.Silent, 3)
		o.takeOver()
		refuse("by a fenced owner", fenced, handlers.ErrFenced)
		unknown := o.change(store.Silent, 3)
		unknown.Partition = 7
		refuse("where nobody was", unknown, store.ErrNoPosition)
		for mode, to := range map[store.Mode]int64{store.Forward: 9, store.Silent: 9, store.Republish: 10, store.NewLog: -1, "": 3} {
			refuse(string(mode), o.change(mode, to), nil)
		}
	})

	t.Run("a held partition stays held, any other goes on", func(t *testing.T) {
		w, o := start(t)
		for state, want := range map[handlers.State]handlers.State{handlers.Paused: handlers.Paused, handlers.Breaker: handlers.Breaker,
			handlers.DataLost: handlers.Running, handlers.Waiting: handlers.Running} {
			w.exec(`UPDATE learnsink.position SET state = $1, state_reason = 'so' WHERE partition = 0`, state)
			// Published says ErrHeld and drops all the same: here nothing is pending any more.
			o.Position = w.claim(o.st, o.source, 0).Position
			_ = o.st.Published(t.Context(), o.TopicPartition, o.Epoch, o.NextOffset)
			if _, err := o.st.SetPosition(t.Context(), o.change(store.Forward, o.NextOffset+1)); err != nil {
				t.Fatal(err)
			}
			if got := w.position(o.TopicPartition); got.State != want || (got.StateReason == "so") != want.Held() {
				t.Errorf("%s: %s, %q", state, got.State, got.StateReason)
			}
		}
	})

	t.Run("a round is later than the marker's, which the database may have forgotten", func(t *testing.T) {
		_, o := start(t)
		o.takeOver()
		change := o.change(store.Republish, 3)
		change.Round = 5
		set, err := o.st.SetPosition(t.Context(), change)
		if err != nil || set.To.Round != 6 {
			t.Errorf("%+v, %v", set, err)
		}
	})

	t.Run("each leaves a line", func(t *testing.T) {
		w, o := start(t)
		o.set(store.Forward, 12)
		o.set(store.Republish, 3)
		done, err := w.Operations(t.Context(), o.Topic)
		if err != nil || len(done) != 2 {
			t.Fatalf("%+v, %v", done, err)
		}
		set, ok, err := done[1].Set()
		if err != nil || !ok || set.Mode != store.Republish || set.From.Offset != 12 || set.To.Offset != 3 || set.To.Round != 2 || set.Published != 12 || set.Superseded != 3 {
			t.Errorf("%+v, %v", set, err)
		}
		if done[1].Actor != "ann" || done[1].Why != "a test" || done[1].TopicPartition != o.TopicPartition || done[1].At.IsZero() {
			t.Errorf("%+v", done[1])
		}
		if none, err := w.Operations(t.Context(), "another"); err != nil || len(none) != 0 {
			t.Errorf("of another topic: %+v, %v", none, err)
		}
	})
}

func TestPauseAndResume(t *testing.T) {
	w := newWorld(t)
	o := w.claim(w.Store, source(t, handlers.Tracking), 0)
	o.three()
	ctx, tp := t.Context(), o.TopicPartition
	expect := func(what string, was handlers.State, err error, want handlers.State, now handlers.State, operations int) {
		t.Helper()
		if err != nil || was != want {
			t.Errorf("%s: was %s, not %s (%v)", what, was, want, err)
		}
		if p := w.position(tp); p.State != now {
			t.Errorf("%s: is %s, not %s", what, p.State, now)
		}
		if done, err := w.Operations(ctx, ""); err != nil || len(done) != operations {
			t.Errorf("%s: %d operations, not %d (%v)", what, len(done), operations, err)
		}
	}
	was, err := w.Resume(ctx, tp, 50, operator)
	expect("resume what runs", was, err, handlers.Running, handlers.Running, 0)
	was, err = w.Pause(ctx, tp, operator)
	expect("pause", was, err, handlers.Running, handlers.Paused, 1)
	if p := w.position(tp); p.StateReason != "a test" || p.Epoch != o.Epoch || p.NextOffset != 9 {
		t.Errorf("paused: %+v", p)
	}
	if err := w.Apply(ctx, o.batch(track(o.source, 9, day, 1, 1))); !errors.Is(err, handlers.ErrHeld) {
		t.Errorf("apply to what is paused: %v", err)
	}
	was, err = w.Pause(ctx, tp, operator)
	expect("pause what is paused", was, err, handlers.Paused, handlers.Paused, 1)
	was, err = w.Resume(ctx, tp, 50, operator)
	expect("resume", was, err, handlers.Paused, handlers.Running, 2)
	if p := w.position(tp); p.StateReason != "" || p.BreakerBelow != 0 {
		t.Errorf("resumed: %+v", p)
	}
	if err := w.SetState(ctx, tp, o.Epoch, handlers.Breaker, "what the owner had read before"); !errors.Is(err, handlers.ErrFenced) {
		t.Errorf("an owner that still speaks of the hold: %v", err)
	}
	o.takeOver()
	o.three()
	w.exec(`UPDATE learnsink.position SET state = 'breaker', state_reason = 'a flood'`)
	was, err = w.Resume(ctx, tp, 50, operator)
	expect("let the breaker on", was, err, handlers.Breaker, handlers.Running, 3)
	if p := w.position(tp); p.BreakerBelow != 50 {
		t.Errorf("let on: %+v", p)
	}
	if _, err := w.Pause(ctx, handlers.TopicPartition{Topic: "nobody", Partition: 1}, operator); !errors.Is(err, store.ErrNoPosition) {
		t.Errorf("pause what nobody has claimed: %v", err)
	}
	w.audit()
}

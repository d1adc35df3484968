package consumer

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"learnsink/handlers"
)

// at returns the position as it is.
func (w *world) at() handlers.Position {
	w.mu.Lock()
	defer w.mu.Unlock()
	return *w.positions[tp0]
}

// pending says how many entries wait in the outbox.
func (w *world) pending() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.outbox[tp0])
}

// operate changes the position as an operator's verb does.
func (w *world) operate(change func(*handlers.Position)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change(w.positions[tp0])
}

// TestAPausedPartitionWaits: nothing is applied, what was is published, and
// after resume it goes on, without anybody's help.
func TestAPausedPartitionWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.story(0, 10)
		stop := (&incarnation{world: w}).start(t)
		time.Sleep(5 * time.Second)
		w.operate(func(p *handlers.Position) { p.State = handlers.Paused })
		w.story(10, 10)
		time.Sleep(time.Minute)
		if p := w.at(); p.NextOffset != 10 || p.State != handlers.Paused {
			t.Errorf("%+v", p)
		}
		if n := w.pending(); n > 0 {
			t.Errorf("%d entries pending", n)
		}
		w.operate(func(p *handlers.Position) { p.State = handlers.Running })
		time.Sleep(3 * time.Second)
		if p := w.at(); p.NextOffset != 20 {
			t.Errorf("%+v", p)
		}
		stop()
		w.checkDrained()
		if n := w.repeats(); n > 0 {
			t.Errorf("%d repeats", n)
		}
	})
}

// TestPausedAmidABatch: what is applied at that moment is published all the same.
func TestPausedAmidABatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.story(0, 30)
		stop := (&incarnation{world: w, hook: nth("publish", 2, 1, func() (bool, error) {
			w.operate(func(p *handlers.Position) { p.State = handlers.Paused })
			time.Sleep(time.Second)
			return true, nil
		})}).start(t)
		time.Sleep(30 * time.Second)
		w.mu.Lock()
		if at := w.positions[tp0]; at.NextOffset == 0 || at.NextOffset == w.end || len(w.outbox[tp0]) > 0 || w.committed[tp0] != at.NextOffset {
			t.Errorf("%+v, %d entries pending, committed %d", *at, len(w.outbox[tp0]), w.committed[tp0])
		}
		w.mu.Unlock()
		w.operate(func(p *handlers.Position) { p.State = handlers.Running })
		time.Sleep(10 * time.Second)
		stop()
		w.checkDrained()
	})
}

// TestAFloodTripsTheBreaker: before it is applied; the partition stays stopped
// over restarts, until an operator lets those rows on.
func TestAFloodTripsTheBreaker(t *testing.T) {
	flood := func(w *world, n int) {
		for range n {
			w.write(badRow())
		}
	}
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for i := range 40 {
			w.write(goodRow(i))
		}
		small := func(p *pipeline) { p.limits.breaker = Breaker{Rejected: 0.5, Deleted: 0.2, Window: 20} }
		run := func() (stop func(), p *pipeline) {
			p = (&incarnation{world: w}).pipeline()
			small(p)
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() { p.run(ctx); close(done) }()
			return func() { cancel(); <-done }, p
		}
		stop, p := run()
		time.Sleep(5 * time.Second)
		flood(w, 40)
		time.Sleep(10 * time.Second)
		at := w.at()
		if at.State != handlers.Breaker || at.Rejected > 10 || at.NextOffset >= 60 || !strings.Contains(at.StateReason, "record_not_json") {
			t.Errorf("%+v", at)
		}
		if s := p.progress.status(); s.State != handlers.Breaker || s.Reason != at.StateReason {
			t.Errorf("shown: %+v", s)
		}
		stop()
		stop, _ = run()
		time.Sleep(time.Minute)
		if now := w.at(); now.NextOffset != at.NextOffset || now.State != handlers.Breaker {
			t.Errorf("after a restart: %+v", now)
		}
		w.operate(func(p *handlers.Position) { p.State, p.BreakerBelow = handlers.Running, 80 })
		time.Sleep(10 * time.Second)
		if now := w.at(); now.NextOffset != 80 || now.State != handlers.Running {
			t.Errorf("let on: %+v", now)
		}
		for i := range 30 { // the flood is over: nothing of it counts any more
			w.write(goodRow(i))
		}
		time.Sleep(10 * time.Second)
		flood(w, 40)
		time.Sleep(10 * time.Second)
		if now := w.at(); now.State != handlers.Breaker || now.NextOffset < 110 {
			t.Errorf("a second flood: %+v", now)
		}
		stop()
	})
}

// TestMoreWasPublishedThanTheDatabaseKnows: the rows are applied, not
// published, and the state says so until it has caught up.
func TestMoreWasPublishedThanTheDatabaseKnows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.ahead = 10
		for i := range 20 {
			w.write(goodRow(i))
		}
		in := &incarnation{world: w, hook: nth("apply", 1, 1, func() (bool, error) {
			time.Sleep(5 * time.Second)
			return true, nil
		})}
		p := in.pipeline()
		p.publisher = ahead{in, Marker{Known: true, Through: 10, Round: 1}}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { p.run(ctx); close(done) }()
		time.Sleep(3 * time.Second)
		if s := p.progress.status(); s.State != handlers.DatabaseBehind || !strings.Contains(s.Reason, "offset 10") {
			t.Errorf("%+v", s)
		}
		time.Sleep(10 * time.Second)
		if s := p.progress.status(); s.State != handlers.Running || s.Applied != 20 || s.Published != 20 {
			t.Errorf("%+v", s)
		}
		w.mu.Lock()
		if ids := w.published["accepted"]; len(ids) != 10 || ids[0] != "rows-0-10" {
			t.Errorf("published: %v", ids)
		}
		w.mu.Unlock()
		cancel()
		<-done
	})
}

// ahead is a publisher that finds a marker.
type ahead struct {
	*incarnation
	marker Marker
}

func (a ahead) Begin(context.Context, int) (Marker, error) { return a.marker, nil }

// TestAMarkerOfAnOlderRoundDoesNotCount: an operator wants those rows
// published again.
func TestAMarkerOfAnOlderRoundDoesNotCount(t *testing.T) {
	for round, want := range map[int]int{1: 20, 2: 10, 3: 10} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.ahead = 10
			for i := range 20 {
				w.write(goodRow(i))
			}
			w.positions[tp0] = &handlers.Position{TopicPartition: tp0, ClusterID: "here", State: handlers.Running, Round: 2, AnnouncedSince: 2}
			w.outcomes[tp0] = map[int64]handlers.Verdict{}
			in := &incarnation{world: w}
			p := in.pipeline()
			p.publisher = ahead{in, Marker{Known: true, Through: 10, Round: round}}
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			p.run(ctx)
			if n := len(w.published["accepted"]); n != want {
				t.Errorf("marker of round %d: %d events published, want %d", round, n, want)
			}
		})
	}
}

// TestAnOpenTransactionIsComplainedOf once it has held rows back for a while,
// and no longer once it has ended.
func TestAnOpenTransactionIsComplainedOf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.story(0, 10)
		in := &incarnation{world: w}
		p := in.pipeline()
		log := &heldBack{fakeLog: p.log.(*fakeLog), high: 15}
		p.log = log
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { p.run(ctx); close(done) }()
		time.Sleep(30 * time.Second)
		if s := p.progress.status(); s.State != handlers.Running {
			t.Errorf("after half a minute: %+v", s)
		}
		time.Sleep(40 * time.Second)
		if s := p.progress.status(); s.State != handlers.OpenTransaction || !strings.Contains(s.Reason, "offset 10 ") {
			t.Errorf("%+v", s)
		}
		w.story(10, 5) // it is committed
		time.Sleep(5 * time.Second)
		if s := p.progress.status(); s.State != handlers.Running || s.Applied != 15 {
			t.Errorf("%+v", s)
		}
		cancel()
		<-done
		w.checkDrained()
	})
}

// heldBack is a log with a high watermark beyond what is stable.
type heldBack struct {
	*fakeLog
	high int64
}

func (l *heldBack) Read(ctx context.Context, from int64, wait time.Duration) (Chunk, error) {
	c, err := l.fakeLog.Read(ctx, from, wait)
	c.End = max(c.Stable, l.high)
	return c, err
}

// TestALogMadeAnewIsNoticed at the next claim, and after whatever kept us from
// reading.
func TestALogMadeAnewIsNoticed(t *testing.T) {
	anew := func(w *world) {
		w.mu.Lock()
		for i := range w.records {
			w.records[i].Timestamp = w.records[i].Timestamp.Add(time.Hour)
		}
		w.mu.Unlock()
	}
	check := func(t *testing.T, w *world) {
		t.Helper()
		if at := w.at(); at.State != handlers.LogDiverged || at.NextOffset != 12 {
			t.Errorf("%+v", at)
		}
	}
	t.Run("while nobody was there", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.story(0, 12)
			stop := (&incarnation{world: w}).start(t)
			time.Sleep(5 * time.Second)
			stop()
			w.story(12, 12)
			anew(w)
			stop = (&incarnation{world: w}).start(t)
			time.Sleep(5 * time.Second)
			check(t, w)
			stop()
		})
	})
	t.Run("while we read", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.story(0, 12)
			away := false
			stop := (&incarnation{world: w, hook: func(step string) (bool, error) {
				w.mu.Lock()
				defer w.mu.Unlock()
				if step == "read" && away {
					away = false
					return false, errFault
				}
				return true, nil
			}}).start(t)
			time.Sleep(5 * time.Second)
			w.mu.Lock()
			away = true
			w.mu.Unlock()
			anew(w)
			time.Sleep(time.Second)
			w.story(12, 12)
			time.Sleep(5 * time.Second)
			check(t, w)
			stop()
		})
	})
}

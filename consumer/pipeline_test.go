package consumer

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"learnsink/handlers"
)

// steps are the effects of a pipeline, and what it asks.
var steps = []string{"cluster", "start", "claim", "begin", "pending", "read", "facts", "apply", "publish", "published", "commit", "state", "verify", "moved"}

// story writes rows of every kind: good, bad, tombstones, offsets without a row.
func (w *world) story(from, n int) {
	var values [][]byte
	for i := from; i < from+n; i++ {
		switch {
		case i%5 == 2:
			values = append(values, badRow())
		case i%7 == 3:
			values = append(values, nil)
		case i%11 == 4:
			values = append(values, []byte{})
		default:
			values = append(values, goodRow(i))
		}
	}
	w.write(values...)
}

// start runs a pipeline until stop is called, which waits for it.
func (in *incarnation) start(t *testing.T) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		in.pipeline().run(ctx)
		close(done)
	}()
	return func() {
		cancel()
		<-done
	}
}

var errFault = errors.New("machinery is away")

// nth returns a hook that has f do something at the calls of a step from the
// first-th on, count times.
func nth(step string, first, count int, f func() (bool, error)) func(string) (bool, error) {
	var mu sync.Mutex
	calls := 0
	return func(s string) (bool, error) {
		if s != step {
			return true, nil
		}
		mu.Lock()
		calls++
		hit := calls > first && calls <= first+count
		mu.Unlock()
		if hit {
			return f()
		}
		return true, nil
	}
}

// TestEveryEffectFailsTwice: not done, and done but not answered; after every
// effect the world is checked, and in the end everything is where it belongs.
func TestEveryEffectFailsTwice(t *testing.T) {
	for _, step := range steps {
		for _, first := range []int{0, 1, 3} {
			for name, done := range map[string]bool{"not done": false, "done": true} {
				t.Run(fmt.Sprintf("%s %d %s", step, first, name), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						w := newWorld(t)
						w.story(0, 30)
						in := &incarnation{world: w, hook: nth(step, first, 2, func() (bool, error) { return done, errFault })}
						stop := in.start(t)
						time.Sleep(3 * time.Second)
						w.story(30, 10)
						time.Sleep(time.Minute)
						stop()
						w.checkDrained()
						// Only publishing that failed, or a commit that was
						// taken for failed, may repeat an output.
						if n := w.repeats(); n > 0 && step != "publish" && step != "apply" && step != "published" {
							t.Errorf("%d repeats", n)
						}
					})
				})
			}
		}
	}
}

// TestACrashAtAnyStepLosesNothing: the process dies before or after an
// effect, and another takes over from what is there.
func TestACrashAtAnyStepLosesNothing(t *testing.T) {
	for _, step := range steps {
		for _, first := range []int{0, 1, 2, 5} {
			for name, done := range map[string]bool{"before": false, "after": true} {
				t.Run(fmt.Sprintf("%s %s %d", name, step, first), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						w := newWorld(t)
						w.story(0, 30)
						in := &incarnation{world: w}
						in.hook = nth(step, first, 1, func() (bool, error) {
							if !done {
								in.die()
							} else {
								go in.die() // runs before anything else can: the next effect takes the lock
							}
							return done, errDead
						})
						stop := in.start(t)
						time.Sleep(10 * time.Second)
						in.die()
						stop()
						next := &incarnation{world: w}
						stop = next.start(t)
						w.story(30, 10)
						time.Sleep(10 * time.Second)
						stop()
						w.checkDrained()
					})
				})
			}
		}
	}
}

// TestAZombieIsFenced: another owner claims the partition amid any step, and
// both go on.
func TestAZombieIsFenced(t *testing.T) {
	for _, step := range steps[2:] {
		for _, first := range []int{0, 1, 3} {
			t.Run(fmt.Sprint(step, " ", first), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t)
					w.story(0, 30)
					var stopNext func()
					in := &incarnation{world: w}
					in.hook = nth(step, first, 1, func() (bool, error) {
						stopNext = (&incarnation{world: w}).start(t)
						time.Sleep(5 * time.Second) // the zombie sleeps
						return true, nil
					})
					stop := in.start(t)
					time.Sleep(10 * time.Second)
					w.story(30, 10)
					time.Sleep(10 * time.Second)
					stop()
					if stopNext == nil {
						t.Skip("the step does not come so often")
					}
					stopNext()
					w.checkDrained()
				})
			})
		}
	}
}

// TestStoppingFinishesWhatIsInFlight: nothing begins any more, what has begun
// is finished, and no output is repeated by the next owner.
func TestStoppingFinishesWhatIsInFlight(t *testing.T) {
	for _, step := range []string{"facts", "apply", "publish", "commit"} {
		t.Run(step, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.story(0, 30)
				reached := make(chan struct{})
				in := &incarnation{world: w, hook: nth(step, 2, 1, func() (bool, error) {
					close(reached)
					time.Sleep(3 * time.Second)
					return true, nil
				})}
				stop := in.start(t)
				<-reached
				began := time.Now()
				stop()
				if took := time.Since(began); took < 2*time.Second || took > 8*time.Second {
					t.Errorf("stopped after %s", took)
				}
				w.mu.Lock()
				if at := w.positions[tp0].NextOffset; w.committed[tp0] != at || len(w.outbox[tp0]) != 0 {
					t.Errorf("applied %d, committed %d, %d entries pending", at, w.committed[tp0], len(w.outbox[tp0]))
				}
				w.mu.Unlock()
				next := &incarnation{world: w}
				stop = next.start(t)
				time.Sleep(5 * time.Second)
				stop()
				w.checkDrained()
				if n := w.repeats(); n > 0 {
					t.Errorf("%d repeats", n)
				}
			})
		})
	}
	t.Run("an effect that hangs is given up after the grace", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.story(0, 30)
			p := (&incarnation{world: w}).pipeline()
			p.publisher = hangs{}
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(time.Second, cancel)
			began := time.Now()
			p.run(ctx)
			if took := time.Since(began); took != 9*time.Second {
				t.Errorf("stopped after %s", took)
			}
		})
	})
}

type hangs struct{}

func (hangs) Begin(context.Context, int) (Marker, error)                  { return Marker{Known: true}, nil }
func (hangs) Find(context.Context, []handlers.OutboxEntry) (int64, error) { return 0, nil }
func (hangs) Publish(ctx context.Context, _ []handlers.OutboxEntry) error {
	<-ctx.Done()
	return ctx.Err()
}

func TestWithoutACatalogueThePartitionWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		catalogue := w.catalogue
		w.catalogue = nil
		w.story(0, 10)
		stop := (&incarnation{world: w}).start(t)
		time.Sleep(time.Minute)
		w.mu.Lock()
		if at := w.positions[tp0]; at.NextOffset != 0 || at.State != handlers.NoCatalogue {
			t.Errorf("position %+v", *at)
		}
		w.catalogue = catalogue
		w.mu.Unlock()
		time.Sleep(time.Second) // a load is seen within a second
		w.mu.Lock()
		if at := w.positions[tp0]; at.NextOffset != w.end || at.State != handlers.Running {
			t.Errorf("position %+v", *at)
		}
		w.mu.Unlock()
		time.Sleep(2 * time.Second)
		stop()
		w.checkDrained()
	})
}

// TestAChangedCatalogueIsAskedAgain: the facts of a batch are stale by the
// time it is applied.
func TestAChangedCatalogueIsAskedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.story(0, 30)
		stop := (&incarnation{world: w, hook: nth("apply", 1, 3, func() (bool, error) {
			w.mu.Lock()
			w.version++
			w.mu.Unlock()
			return true, nil
		})}).start(t)
		time.Sleep(10 * time.Second)
		stop()
		w.checkDrained()
		if n := w.repeats(); n > 0 {
			t.Errorf("%d repeats", n)
		}
	})
}

// TestAChangedCatalogueCannotBeAskedAgain at once: the database is away just
// when the facts have turned out to be stale.
func TestAChangedCatalogueCannotBeAskedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.story(0, 30)
		var mu sync.Mutex
		away := 0
		stop := (&incarnation{world: w, hook: func(step string) (bool, error) {
			mu.Lock()
			defer mu.Unlock()
			switch {
			case step == "apply" && away == 0:
				w.mu.Lock()
				w.version++
				w.mu.Unlock()
				away = 3
			case step == "facts" && away > 1:
				away--
				return false, errFault
			}
			return true, nil
		}}).start(t)
		time.Sleep(10 * time.Second)
		stop()
		w.checkDrained()
	})
}

// slowToShow is a store that takes its time to write a state.
type slowToShow struct{ *incarnation }

func (s slowToShow) SetState(ctx context.Context, tp handlers.TopicPartition, epoch int64, state handlers.State, reason string) error {
	time.Sleep(500 * time.Millisecond)
	return s.incarnation.SetState(ctx, tp, epoch, state, reason)
}

// TestNobodyWaitsForAStateToBeShown but who shows it; and in the end it is the
// last one that is.
func TestNobodyWaitsForAStateToBeShown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		in := &incarnation{world: w}
		p := in.pipeline()
		p.store = slowToShow{in}
		l := &lease{pipeline: p, soft: t.Context()}
		if _, err := l.begin(t.Context()); err != nil {
			t.Fatal(err)
		}
		go l.complain("facts", errFault)
		synctest.Wait()
		began := time.Now()
		l.complain("apply", errFault)
		l.settle("facts")
		l.settle("apply")
		if took := time.Since(began); took > 0 {
			t.Errorf("it took %s", took)
		}
		time.Sleep(5 * time.Second)
		if at := w.at(); at.State != handlers.Running || at.StateReason != "" {
			t.Errorf("shown: %s %q", at.State, at.StateReason)
		}
	})
}

// markedPublisher has a marker and notes what is published.
type markedPublisher struct {
	marker  Marker
	entries []handlers.OutboxEntry
}

func (p *markedPublisher) Begin(context.Context, int) (Marker, error) { return p.marker, nil }
func (p *markedPublisher) Find(context.Context, []handlers.OutboxEntry) (int64, error) {
	return 0, nil
}
func (p *markedPublisher) Publish(_ context.Context, entries []handlers.OutboxEntry) error {
	p.entries = append(p.entries, entries...)
	return nil
}

// TestTheMarkerIsWrittenAnew where there is none that counts: once an operator
// sets the position back, nothing else tells what was published.
func TestTheMarkerIsWrittenAnew(t *testing.T) {
	for name, c := range map[string]struct {
		first, next  int64
		round, since int
		marker       Marker
		want         []handlers.OutboxEntry
	}{
		"nothing was ever applied":         {round: 1, since: 1},
		"it stands":                        {next: 10, marker: Marker{Known: true, Through: 8}},
		"it has expired":                   {next: 10, want: []handlers.OutboxEntry{{To: 10}}},
		"all of it is to be published":     {first: 4, next: 4, round: 3, since: 3, marker: Marker{Known: true, Through: 10, Round: 2}, want: []handlers.OutboxEntry{{To: 4}}},
		"and some of it is":                {first: 4, next: 6, round: 3, since: 3, marker: Marker{Known: true, Through: 6, Round: 3}},
		"the position was set back, gone":  {first: 4, next: 4, round: 3, want: []handlers.OutboxEntry{{To: 4}}},
		"the position was set back, known": {first: 4, next: 4, round: 3, marker: Marker{Known: true, Through: 10}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.positions[tp0] = &handlers.Position{TopicPartition: tp0, ClusterID: "here", State: handlers.Running,
					FirstOffset: c.first, NextOffset: c.next, Skipped: c.next - c.first, Round: c.round, AnnouncedSince: c.since}
				p := (&incarnation{world: w}).pipeline()
				publisher := &markedPublisher{marker: c.marker}
				p.publisher = publisher
				if _, err := (&lease{pipeline: p, soft: t.Context()}).begin(t.Context()); err != nil {
					t.Fatal(err)
				}
				if !reflect.DeepEqual(publisher.entries, c.want) {
					t.Errorf("published %+v, want %+v", publisher.entries, c.want)
				}
			})
		})
	}
}

// TestAnEntryThatTheMarkerCuts: the database has gone back to a history whose
// batches were other ones. What lies below the marker is not published again.
func TestAnEntryThatTheMarkerCuts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		var outputs []output
		for i := range 8 {
			outputs = append(outputs, output{topic: "accepted", forms: []Message{{Headers: []handlers.Header{{Key: "ce_id", Value: fmt.Appendf(nil, "rows-0-%d", i)}}}}})
		}
		p := (&incarnation{world: w}).pipeline()
		payload, err := p.packer.repack(outputs)
		if err != nil {
			t.Fatal(err)
		}
		w.positions[tp0] = &handlers.Position{TopicPartition: tp0, ClusterID: "here", State: handlers.Running, NextOffset: 8, Skipped: 8}
		w.outbox[tp0] = []handlers.OutboxEntry{{From: 0, To: 8, Payload: payload}}
		publisher := &markedPublisher{marker: Marker{Known: true, Through: 5}}
		p.publisher = publisher
		if _, err := (&lease{pipeline: p, soft: t.Context()}).begin(t.Context()); err != nil {
			t.Fatal(err)
		}
		if len(publisher.entries) != 1 || publisher.entries[0].To != 8 {
			t.Fatalf("published: %+v", publisher.entries)
		}
		rest, err := decodePayload(publisher.entries[0].Payload, &decompressor{})
		if err != nil || len(rest) != 3 || outputID(rest[0].forms[0].Headers) != "rows-0-5" {
			t.Errorf("published: %+v, %v", rest, err)
		}
	})
}

// TestTheDatabaseGoesBack: the position is lower than it was, under the same
// epoch; everything from there on is done again.
func TestTheDatabaseGoesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.story(0, 12)
		stop := (&incarnation{world: w}).start(t)
		time.Sleep(5 * time.Second)
		w.mu.Lock()
		at := w.positions[tp0]
		at.NextOffset, at.Accepted, at.Rejected, at.Skipped = 0, 0, 0, 0
		w.outcomes[tp0], w.published, w.committed[tp0] = map[int64]handlers.Verdict{}, map[string][]string{}, 0
		w.mu.Unlock()
		w.story(12, 12)
		time.Sleep(5 * time.Second)
		stop()
		w.checkDrained()
	})
}

func TestStoppedPartitionsStayAndSaySo(t *testing.T) {
	for _, state := range []handlers.State{handlers.DataLost, handlers.LogDiverged, handlers.Oversized} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.story(0, 30)
			in := &incarnation{world: w, hook: nth("read", 4, 1, func() (bool, error) {
				return false, &StopError{state, "offsets 12 to 14 are gone"}
			})}
			p := in.pipeline()
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() { p.run(ctx); close(done) }()
			time.Sleep(time.Minute)
			if s := p.progress.status(); s.State != state || s.Reason == "" {
				t.Errorf("%+v", s)
			}
			select {
			case <-done:
				t.Error("the pipeline has returned, which ends the generation")
			default:
			}
			cancel()
			<-done
			w.mu.Lock()
			defer w.mu.Unlock()
			w.checkAlways()
			if at := w.positions[tp0]; at.State != state || at.NextOffset == 0 || at.NextOffset != w.committed[tp0] || len(w.outbox[tp0]) > 0 {
				t.Errorf("%+v, committed %d, %d entries pending", *at, w.committed[tp0], len(w.outbox[tp0]))
			}
		})
	}
	t.Run("another cluster", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.positions[tp0] = &handlers.Position{TopicPartition: tp0, ClusterID: "elsewhere", Epoch: 4}
			p := (&incarnation{world: w}).pipeline()
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			p.run(ctx)
			if s := p.progress.status(); s.State != handlers.LogDiverged {
				t.Errorf("%+v", s)
			}
		})
	})
}

// TestAStoppedPartitionIsShownAsSuch though the database was away just then, or
// an operator has had it paused since.
func TestAStoppedPartitionIsShownAsSuch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.story(0, 30)
		var away atomic.Bool
		away.Store(true)
		in := &incarnation{world: w}
		in.hook = func(step string) (bool, error) {
			switch {
			case step == "read":
				return false, &StopError{handlers.DataLost, "offsets 0 to 2 are gone"}
			case step == "state" && away.Load():
				return false, errFault
			}
			return true, nil
		}
		stop := in.start(t)
		shown := func(want handlers.State) {
			t.Helper()
			if at := w.at(); at.State != want {
				t.Errorf("shown: %s, want %s", at.State, want)
			}
		}
		time.Sleep(10500 * time.Millisecond)
		shown(handlers.Running)
		away.Store(false)
		time.Sleep(time.Second)
		shown(handlers.DataLost)
		w.operate(func(p *handlers.Position) { p.State, p.StateReason = handlers.Running, "" })
		time.Sleep(time.Minute)
		shown(handlers.DataLost)
		stop()
	})
}

// TestBatches: how the log is cut, and how long a batch waits for more.
func TestBatches(t *testing.T) {
	gatherAll := func(t *testing.T, w *world, change func(*pipeline)) (sizes []int) {
		p := (&incarnation{world: w}).pipeline()
		change(p)
		g := &gatherer{lease: &lease{pipeline: p, soft: t.Context()}}
		for {
			b, err := g.gather(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if b.to == b.from {
				return sizes
			}
			sizes = append(sizes, len(b.records))
		}
	}
	check := func(name string, write func(*world), change func(*pipeline), want ...int) {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				write(w)
				if got := gatherAll(t, w, change); fmt.Sprint(got) != fmt.Sprint(want) {
					t.Errorf("batches of %v rows, want %v", got, want)
				}
			})
		})
	}
	rows := func(n int) func(*world) {
		return func(w *world) {
			for i := range n {
				w.write(goodRow(i))
			}
		}
	}
	size := len(goodRow(0)) + 1
	check("by count", rows(10), func(p *pipeline) { p.limits.rows = 4 }, 4, 4, 2)
	check("by count, of one chunk", rows(10), func(p *pipeline) { p.limits.rows = 4; p.log.(*fakeLog).chunk = 100 }, 4, 4, 2)
	check("by bytes", rows(10), func(p *pipeline) { p.limits.rows, p.limits.bytes = 100, 3*size }, 3, 3, 3, 1)
	check("a row that is larger than a batch", rows(3), func(p *pipeline) { p.limits.bytes = 1 }, 1, 1, 1)
	check("offsets without a row", func(w *world) { w.write(nil, nil, nil) }, func(*pipeline) {}, 0)
	check("rows and then none", func(w *world) { w.write(goodRow(1), nil, nil) }, func(*pipeline) {}, 1)
	t.Run("the last rows wait for more as long as the linger", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.write(goodRow(1))
			time.AfterFunc(4*time.Millisecond, func() { w.write(goodRow(2)) })
			time.AfterFunc(40*time.Millisecond, func() { w.write(goodRow(3)) })
			began := time.Now()
			p := (&incarnation{world: w}).pipeline()
			g := &gatherer{lease: &lease{pipeline: p, soft: t.Context()}}
			b, err := g.gather(t.Context())
			if err != nil || len(b.records) != 2 || time.Since(began) != 5*time.Millisecond {
				t.Errorf("%d rows after %s, %v", len(b.records), time.Since(began), err)
			}
		})
	})
	t.Run("a row is applied at once where nothing else comes", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			stop := (&incarnation{world: w}).start(t)
			time.Sleep(10 * time.Second)
			w.write(goodRow(1))
			time.Sleep(6 * time.Millisecond)
			w.mu.Lock()
			if w.committed[tp0] != 1 {
				t.Errorf("committed %d", w.committed[tp0])
			}
			w.mu.Unlock()
			stop()
		})
	})
}

// TestBatchesOverlap: facts of the next batch are asked for while this one is
// applied, and at most as many batches are on the road as are allowed.
func TestBatchesOverlap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.story(0, 200)
		var mu sync.Mutex
		facts, first := 0, true
		in := &incarnation{world: w}
		in.hook = func(step string) (bool, error) {
			mu.Lock()
			defer mu.Unlock()
			switch {
			case step == "facts":
				facts++
			case step == "apply" && first:
				first = false
				mu.Unlock()
				time.Sleep(time.Second)
				mu.Lock()
				if facts != 3 {
					t.Errorf("%d batches on the road", facts)
				}
			}
			return true, nil
		}
		stop := in.start(t)
		time.Sleep(time.Minute)
		stop()
		w.checkDrained()
	})
}

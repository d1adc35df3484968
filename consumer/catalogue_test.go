package consumer

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"
	"github.com/twmb/franz-go/pkg/kgo"

	"learnsink/handlers"
	"learnsink/test/kafkatest"
)

// catalogueWorld is a CatalogueStore in memory. Its entries are the records'
// values by topic and key; what is moved is compared as the database does.
type catalogueWorld struct {
	t  testing.TB
	mu sync.Mutex

	positions map[handlers.TopicPartition]handlers.CataloguePosition
	entries   map[string]string
	records   int // applied
	leads     bool
	ready     bool
	moved     chan struct{} // something was applied

	// fail breaks a step: whether it is done all the same, and with what error.
	fail func(step string) (do bool, err error)
}

func newCatalogueWorld(t testing.TB) *catalogueWorld {
	return &catalogueWorld{t: t, positions: map[handlers.TopicPartition]handlers.CataloguePosition{}, entries: map[string]string{}, moved: make(chan struct{}, 1000)}
}

// step does f, unless the step is broken.
func (w *catalogueWorld) step(name string, f func() error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	do, broken := true, error(nil)
	if w.fail != nil {
		do, broken = w.fail(name)
	}
	if do {
		if err := f(); err != nil {
			return err
		}
	}
	return broken
}

func (w *catalogueWorld) LeadCatalogue(ctx context.Context, work func(func(context.Context) error) error) (led bool, err error) {
	if err := w.step("lead", func() error { led, w.leads = !w.leads, true; return nil }); err != nil || !led {
		if led {
			w.leads = false // the connection is gone, and the lock with it
		}
		return false, err
	}
	defer w.step("leave", func() error { w.leads = false; return nil })
	return true, work(func(context.Context) error { return w.step("check", func() error { return nil }) })
}

func (w *catalogueWorld) BeginCatalogue(_ context.Context, positions []handlers.CataloguePosition) error {
	return w.step("begin", func() error {
		for _, p := range positions {
			if _, ok := w.positions[p.TopicPartition]; !ok {
				p.State, p.Begun = handlers.Running, 1
				w.positions[p.TopicPartition] = p
			}
		}
		return nil
	})
}

func (w *catalogueWorld) CataloguePositions(context.Context) (positions []handlers.CataloguePosition, err error) {
	err = w.step("positions", func() error {
		for _, p := range w.positions {
			positions = append(positions, p)
		}
		return nil
	})
	return positions, err
}

func (w *catalogueWorld) RereadCatalogue(_ context.Context, p handlers.CataloguePosition, clusterID string, start int64, _ string) error {
	return w.step("reread", func() error {
		now := w.positions[p.TopicPartition]
		if now.NextOffset != p.NextOffset {
			return handlers.ErrMoved
		}
		w.positions[p.TopicPartition] = handlers.CataloguePosition{TopicPartition: p.TopicPartition, ClusterID: clusterID, NextOffset: start,
			FirstEnd: now.FirstEnd, Begun: now.Begun + 1, State: handlers.Running}
		return nil
	})
}

func (w *catalogueWorld) SetCatalogueState(_ context.Context, tp handlers.TopicPartition, state handlers.State, reason string) error {
	return w.step("state", func() error {
		p := w.positions[tp]
		p.State, p.StateReason = state, reason
		w.positions[tp] = p
		return nil
	})
}

func (w *catalogueWorld) ApplyCatalogue(_ context.Context, topics []string, chunks []handlers.CatalogueChunk) (out handlers.CatalogueOutcome, err error) {
	name := "apply"
	if len(chunks) == 0 {
		name = "apply nothing"
	}
	err = w.step(name, func() error {
		for _, c := range chunks {
			if w.positions[c.TopicPartition].NextOffset != c.From {
				return handlers.ErrMoved
			}
		}
		for _, c := range chunks {
			for i, r := range c.Records {
				if r.Offset < c.From || r.Offset >= c.To || i > 0 && r.Offset <= c.Records[i-1].Offset {
					w.t.Errorf("offset %d in a chunk of %d to %d", r.Offset, c.From, c.To)
				}
				w.records++
				if key := c.Kind + " " + string(r.Key); r.Value == nil {
					delete(w.entries, key)
				} else {
					w.entries[key] = string(r.Value)
				}
			}
			p := w.positions[c.TopicPartition]
			p.NextOffset, p.State = c.To, handlers.Running
			if c.Anchor.OK {
				p.Anchor = c.Anchor
			}
			w.positions[c.TopicPartition] = p
		}
		w.ready = w.ready || len(w.positions) > 0
		for _, p := range w.positions {
			w.ready = w.ready && p.NextOffset >= p.FirstEnd
		}
		out.Changed, out.Version = 1, 1
		return nil
	})
	w.moved <- struct{}{}
	return out, err
}

func (w *catalogueWorld) SweepCatalogue(context.Context, bool) (int64, error) {
	return 0, w.step("sweep", func() error { return nil })
}

func (w *catalogueWorld) CatalogueReady(context.Context) (ready bool, err error) {
	err = w.step("ready", func() error { ready = w.ready; return nil })
	return ready, err
}

// until waits until the world is as it should be.
func (w *catalogueWorld) until(what string, is func() bool) {
	w.t.Helper()
	timeout := time.After(20 * time.Second)
	for {
		w.mu.Lock()
		done := is()
		w.mu.Unlock()
		if done {
			return
		}
		select {
		case <-w.moved:
		case <-timeout:
			w.t.Fatalf("not in 20 s: %s", what)
		}
	}
}

// catalogueStory is two topics, of which the second refers to the first.
type catalogueStory struct {
	cluster *kafkatest.Cluster
	client  *Client
	topics  []CatalogueTopic
	want    map[string]string
	said    int
}

func newCatalogueStory(t testing.TB) *catalogueStory {
	cluster := kafkatest.New(t)
	return &catalogueStory{cluster: cluster, client: newTestClient(t, cluster), want: map[string]string{}, topics: []CatalogueTopic{
		{Topic: cluster.Topic(t, "trainings", 2, "cleanup.policy", "compact"), Kind: "trainings"},
		{Topic: cluster.Topic(t, "sessions", 2, "cleanup.policy", "compact"), Kind: "sessions", After: []string{"trainings"}}}}
}

// say puts n records onto the topics, some of them tombstones.
func (s *catalogueStory) say(t testing.TB, n int) {
	t.Helper()
	var records []*kgo.Record
	for range n {
		topic := s.topics[s.said%2]
		r := &kgo.Record{Topic: topic.Topic, Partition: int32(s.said / 2 % 2), Key: []byte(fmt.Sprint(s.said % 28)), Value: []byte(fmt.Sprint(s.said))}
		name := topic.Kind + " " + string(r.Key)
		if s.want[name] = string(r.Value); s.said%5 == 4 {
			r.Value = nil
			delete(s.want, name)
		}
		records = append(records, r)
		s.said++
	}
	s.cluster.Produce(t, records...)
}

// reader is a reader in no hurry to wait.
func (s *catalogueStory) reader(w *catalogueWorld) *CatalogueReader {
	return &CatalogueReader{client: s.client, store: w, topics: s.topics, metrics: NewCatalogueMetrics(nil), logger: zerolog.Nop(), limits: catalogueLimits{
		records: 10, bytes: 1 << 20, pace: 5 * time.Millisecond, linger: time.Millisecond, backlog: time.Millisecond, wait: 10 * time.Millisecond,
		look: 100 * time.Millisecond, sweep: 50 * time.Millisecond, fetch: fetchLimits{beyondEnd: 200 * time.Millisecond},
	}}
}

// run runs a reader until the test ends; stop ends it before.
func run(t testing.TB, r *CatalogueReader) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the reader: %v", err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// Every step is broken twice: failed and not done, failed but done. Each time
// the same is to stand at the end, and every record is to count once.
func TestCatalogueStepsBreak(t *testing.T) {
	t.Parallel()
	for _, step := range []string{"lead", "begin", "positions", "apply nothing", "apply", "sweep", "check"} {
		for _, done := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, done %v", step, done), func(t *testing.T) {
				t.Parallel()
				s, w := newCatalogueStory(t), newCatalogueWorld(t)
				s.say(t, 35)
				broken := 0
				w.fail = func(name string) (bool, error) {
					if name == step && broken < 2 {
						broken++
						return done, errors.New("the machinery failed")
					}
					return true, nil
				}
				stop := run(t, s.reader(w))
				w.until("read to the end", func() bool { return w.records >= 35 && w.ready && broken == 2 })
				s.say(t, 7)
				w.until("what came later", func() bool { return w.records >= 42 })
				stop()
				if diff := cmp.Diff(s.want, w.entries); diff != "" {
					t.Error(diff)
				}
				if w.records != 42 {
					t.Errorf("%d records were applied, of 42", w.records)
				}
			})
		}
	}
}

func TestCatalogueReader(t *testing.T) {
	t.Parallel()
	t.Run("a drain ends at the end that was there", func(t *testing.T) {
		t.Parallel()
		s, w := newCatalogueStory(t), newCatalogueWorld(t)
		s.say(t, 35)
		if err := s.reader(w).Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(s.want, w.entries); diff != "" {
			t.Error(diff)
		}
		if !w.ready || w.leads {
			t.Errorf("ready %v, leads %v", w.ready, w.leads)
		}
		missing := s.reader(w)
		missing.topics = append(missing.topics, CatalogueTopic{Topic: "not.there", Kind: "rooms"})
		if err := missing.Drain(t.Context()); !errors.Is(err, ErrNoTopic) {
			t.Errorf("a topic that is not there: %v", err)
		}
	})

	t.Run("what is referred to is read first", func(t *testing.T) {
		t.Parallel()
		s, w := newCatalogueStory(t), newCatalogueWorld(t)
		s.say(t, 60)
		early := 0
		w.fail = func(name string) (bool, error) {
			if name == "apply" && len(w.entries) > 0 {
				behind := false
				sessions := false
				for tp, p := range w.positions {
					behind = behind || tp.Topic == s.topics[0].Topic && p.NextOffset < p.FirstEnd
					sessions = sessions || tp.Topic == s.topics[1].Topic && p.NextOffset > 0
				}
				if behind && sessions {
					early++
				}
			}
			return true, nil
		}
		if err := s.reader(w).Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		if early > 0 {
			t.Errorf("sessions were read before trainings were, %d times", early)
		}
	})

	t.Run("two readers, of whom one reads", func(t *testing.T) {
		t.Parallel()
		s, w := newCatalogueStory(t), newCatalogueWorld(t)
		stop := run(t, s.reader(w))
		run(t, s.reader(w))
		s.say(t, 20)
		w.until("the first ones", func() bool { return w.records == 20 })
		stop()
		s.say(t, 20)
		w.until("the others", func() bool { return w.records == 40 })
		if diff := cmp.Diff(s.want, w.entries); diff != "" {
			t.Error(diff)
		}
	})

	for name, again := range map[string]int{"shorter than it was": 3, "longer than it was": 50} {
		t.Run("a topic made anew, "+name, func(t *testing.T) {
			t.Parallel()
			s, w := newCatalogueStory(t), newCatalogueWorld(t)
			s.say(t, 40)
			stop := run(t, s.reader(w))
			w.until("read", func() bool { return w.records == 40 })
			stop()
			topic := s.topics[0].Topic
			if _, err := s.cluster.Admin().DeleteTopic(t.Context(), topic); err != nil {
				t.Fatal(err)
			}
			s.cluster.CreateTopic(t, topic, 2, "cleanup.policy", "compact")
			want := maps.Clone(w.entries)
			var records []*kgo.Record
			for i := range again {
				for p := range int32(2) {
					key := fmt.Sprintf("new-%d-%d", p, i)
					want["trainings "+key] = "anew"
					records = append(records, &kgo.Record{Topic: topic, Partition: p, Key: []byte(key), Value: []byte("anew")})
				}
			}
			s.cluster.Produce(t, records...)
			run(t, s.reader(w))
			w.until("the new ones", func() bool {
				return w.entries[fmt.Sprintf("trainings new-1-%d", again-1)] != "" && len(w.entries) >= len(want)
			})
			if diff := cmp.Diff(want, w.entries); diff != "" {
				t.Error(diff)
			}
			for p := range 2 {
				if begun := w.positions[handlers.TopicPartition{Topic: topic, Partition: p}].Begun; begun != 2 {
					t.Errorf("partition %d was begun %d times", p, begun)
				}
			}
		})
	}

	t.Run("a partition that cannot be read on holds up no other", func(t *testing.T) {
		t.Parallel()
		s, w := newCatalogueStory(t), newCatalogueWorld(t)
		s.cluster.Produce(t, &kgo.Record{Topic: s.topics[0].Topic, Key: []byte("large"), Value: make([]byte, 100_000)})
		s.say(t, 40)
		r := s.reader(w)
		r.limits.fetch.decompressed = 10_000
		run(t, r)
		stopped := handlers.TopicPartition{Topic: s.topics[0].Topic}
		w.until("all but one are read", func() bool { return w.records == 30 && w.positions[stopped].State == handlers.Oversized })
		if err := r.Drain(t.Context()); !errors.Is(err, ErrStopped) {
			t.Errorf("a drain: %v", err)
		}
	})

	t.Run("another cluster is read from its start", func(t *testing.T) {
		t.Parallel()
		s, w := newCatalogueStory(t), newCatalogueWorld(t)
		s.say(t, 20)
		tp := handlers.TopicPartition{Topic: s.topics[0].Topic}
		w.positions[tp] = handlers.CataloguePosition{TopicPartition: tp, ClusterID: "another", NextOffset: 3, FirstEnd: 3, State: handlers.Running}
		if err := s.reader(w).Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(s.want, w.entries); diff != "" {
			t.Error(diff)
		}
	})

	t.Run("a drip makes another catalogue once a while only", func(t *testing.T) {
		t.Parallel()
		s, w := newCatalogueStory(t), newCatalogueWorld(t)
		r := s.reader(w)
		r.limits.pace = 100 * time.Millisecond
		applied := 0
		w.fail = func(name string) (bool, error) {
			if name == "apply" {
				applied++
			}
			return true, nil
		}
		run(t, r)
		w.until("the topics are known", func() bool { return w.ready })
		began := time.Now()
		for range 200 {
			s.say(t, 1)
		}
		w.until("all of it", func() bool { return w.records == 200 })
		if most := int(time.Since(began)/r.limits.pace) + 2; applied > most {
			t.Errorf("%d catalogues in %s", applied, time.Since(began))
		}
		if diff := cmp.Diff(s.want, w.entries); diff != "" {
			t.Error(diff)
		}
	})

	t.Run("a topic that has grown is read whole", func(t *testing.T) {
		t.Parallel()
		s, w := newCatalogueStory(t), newCatalogueWorld(t)
		run(t, s.reader(w))
		s.say(t, 10)
		w.until("read", func() bool { return w.records == 10 })
		if _, err := s.cluster.Admin().UpdatePartitions(t.Context(), 4, s.topics[1].Topic); err != nil {
			t.Fatal(err)
		}
		s.cluster.Produce(t, &kgo.Record{Topic: s.topics[1].Topic, Partition: 3, Key: []byte("grown"), Value: []byte("x")})
		w.until("the record of a new partition", func() bool { return w.entries["sessions grown"] == "x" })
	})
}

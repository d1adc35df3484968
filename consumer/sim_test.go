package consumer

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"learnsink/handlers"
)

// TestSimulation lets many small worlds live: processes of the consumer's own
// code (from a member's assignment down to the bytes of a record batch; only
// kafka-go's group membership and connections are left out), over brokers, a
// database and senders that are in memory and go by the rules of the real ones.
//
// In a world requests and replies are lost, late, slow or repeated; processes
// crash before and after any of their effects, or sleep and go on where they
// were; partitions change hands while the last owner is still at work; the
// database goes back to a backup; catalogues are loaded; operators pause,
// resume, and set positions back and forward; senders abort; records are
// deleted before they are read; markers expire. After every effect the whole
// world is looked at (simWorld.check). Then the faults stop, and everything has
// to drain.
//
// Each world follows from its seed: LEARNSINK_SIM_SEED=n lives that one alone,
// and tells its story; LEARNSINK_SIM_SEEDS=n lives the first n. What is decided
// by the seed, and by who asks for what for which time, repeats. What hangs on
// the order in which goroutines run at one instant (the facts of two batches are
// asked for at once) does not, nor the jitter of an operator's patience. So more
// than half of the worlds repeat to the last event, and most of the others for
// long enough; of a failure in a run of many the end of its story is printed.
func TestSimulation(t *testing.T) {
	if seed := simNumber(t, "LEARNSINK_SIM_SEED", 0); seed > 0 {
		simulate(t, uint64(seed), true)
		return
	}
	seeds := simNumber(t, "LEARNSINK_SIM_SEEDS", 300)
	if testing.Short() {
		seeds = min(seeds, 40)
	}
	var next, effects atomic.Int64
	var mu sync.Mutex
	counts := map[string]int{}
	began := time.Now()
	t.Run("seeds", func(t *testing.T) {
		for range runtime.GOMAXPROCS(0) {
			t.Run("worker", func(t *testing.T) {
				t.Parallel()
				for !t.Failed() {
					seed := next.Add(1)
					if seed > int64(seeds) {
						return
					}
					w := simulate(t, uint64(seed), false)
					effects.Add(int64(w.effects))
					mu.Lock()
					for what, n := range w.counts {
						counts[what] += n
					}
					mu.Unlock()
				}
			})
		}
	})
	took := time.Since(began)
	t.Logf("%d worlds, %d effects in %s: %.0f worlds a minute", seeds, effects.Load(), took.Round(time.Millisecond), float64(seeds)/took.Minutes())
	for _, what := range slices.Sorted(maps.Keys(counts)) {
		t.Logf("%8d %s", counts[what], what)
	}
	if seeds < 1000 || t.Failed() {
		return
	}
	for _, what := range simHappens() {
		if counts[what] == 0 {
			t.Errorf("in no world there was: %s", what)
		}
	}
}

// simHappens is what has to come about in a thousand worlds: a fault that
// never comes proves nothing.
func simHappens() []string {
	happens := []string{
		"a quiet week",
		"database: a batch of an older epoch", "database: a lost COMMIT is looked into", "database: a row lock is waited for",
		"database: an idle transaction is rolled back", "database: no catalogue", "database: stale facts", "database: went back",
		"group: offset moved by a tool", "group: rebalance",
		"kafka: a batch too large", "kafka: a committed offset has expired", "kafka: a fenced producer", "kafka: a repeated batch",
		"kafka: a stale OffsetFetch", "kafka: a transaction timed out", "kafka: an open transaction is taken over", "kafka: an output topic has grown",
		"operator: pause", "operator: position forward", "operator: position republish", "operator: position silent",
		"operator: resume after breaker", "operator: resume after paused",
		"database: a row waits",
		"process: asleep", "process: crash",
		"database: a key's lock is waited for",
		"replay: accepted", "replay: superseded", "replay: rejected", "replay: of no source", "replay: overwrites what was seen",
		"replay: a dead letter is open", "replay: a dead letter is resolved", "replay: a dead letter is superseded", "replay: a dead letter is quarantined",
		"source: aborted transaction", "source: records deleted",
		"state: breaker", "state: data_lost", "state: database_behind", "state: no_catalogue", "state: running", "state: waiting",
	}
	for _, f := range simFaults {
		happens = append(happens, "request: "+string(f))
	}
	return happens
}

func simNumber(t *testing.T, name string, or int) int {
	text := os.Getenv(name)
	if text == "" {
		return or
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("%s=%s is no number", name, text)
	}
	return n
}

// simulate lives the world of one seed through to its end.
func simulate(t *testing.T, seed uint64, tell bool) (w *simWorld) {
	synctest.Test(t, func(t *testing.T) {
		w = newSimWorld(t, seed)
		w.live()
		if tell {
			fmt.Print(w.story(len(w.trace)))
		}
		if len(w.broken) > 0 {
			if !tell {
				fmt.Print(w.story(150))
			}
			t.Errorf("seed %d: %s\nrepeat: LEARNSINK_SIM_SEED=%d go test ./consumer -run TestSimulation -v", seed, strings.Join(w.broken, "\n"), seed)
		}
	})
	return w
}

// newSimWorld makes the world of one seed: how fast it is, what goes wrong.
func newSimWorld(t *testing.T, seed uint64) *simWorld {
	r := rand.New(rand.NewPCG(seed, 0))
	w := &simWorld{
		seed: seed, rand: r,
		partitions: 1 + r.IntN(3), publish: Transactional, resolves: r.IntN(2) == 0,
		slowest: []time.Duration{time.Millisecond, 20 * time.Millisecond, 200 * time.Millisecond}[r.IntN(3)],
		markers: []time.Duration{time.Millisecond, 50 * time.Millisecond, 2 * time.Second}[r.IntN(3)],
		faults:  []float64{0, 0.01, 0.03, 0.1}[r.IntN(4)],
		batch:   Batch{Rows: 1 + r.IntN(8), Linger: []time.Duration{-1, 5 * time.Millisecond}[r.IntN(2)]},
	}
	if r.IntN(6) == 0 {
		w.publish = AtLeastOnce
	}
	for _, f := range simFaults { // each world has faults of its own
		if r.IntN(2) == 0 {
			w.kinds = append(w.kinds, f)
		}
	}
	w.build(t)
	w.brokers.verifies = r.IntN(2) == 0
	if w.chance("rows wait", 2) { // and nothing comes that they wait for: how they leave is TestRoomSimulation's
		w.source.Wait = time.Hour
	}
	if r.IntN(4) == 0 {
		w.brokers.limit = 2500
	}
	if r.IntN(6) == 0 {
		w.database.catalogue = 0
	}
	return w
}

// build puts into a world what every one has.
func (w *simWorld) build(t *testing.T) {
	w.began = time.Now()
	w.truths, w.rebalance = map[handlers.TopicPartition]*simTruth{}, make(chan struct{})
	w.calls, w.counts = map[string]int{}, map[string]int{}
	w.catalogue, w.source, w.metrics = simCatalogue(), testSource(t, simSource), NewMetrics(nil)
	if w.chance("rows are sent again", 2) {
		w.replays = handlers.NewReplays(simReplay, []*handlers.Source{w.source}, simDeadLetter)
	}
	w.brokers, w.database = newSimBrokers(w), newSimDatabase(w)
	for _, n := range w.parts() {
		tp := w.tp(n)
		w.truths[tp] = &simTruth{tp: tp, order: map[lane]*simOrder{}}
	}
	for _, topic := range []string{simAccepted, simAccepted, simDeadLetter} {
		w.growTopic(topic)
	}
}

// growTopic adds a partition to an output topic, and a reader of it.
func (w *simWorld) growTopic(topic string) {
	l := lane{topic, w.brokers.topics[topic]}
	w.brokers.topics[topic]++
	w.brokers.logs[l] = newSimLog()
	w.lanes, w.readers = append(w.lanes, l), append(w.readers, newSimReader(w.brokers.logs[l]))
}

// stillWorld is one of one partition in which nothing goes wrong by itself: for
// tests that want one thing to.
func stillWorld(t *testing.T) *simWorld {
	chaos, calm := context.WithCancel(context.Background())
	calm()
	w := &simWorld{seed: 1, rand: rand.New(rand.NewPCG(1, 0)), chaos: chaos, partitions: 1, publish: Transactional,
		slowest: time.Millisecond, markers: time.Millisecond, batch: Batch{Rows: 4, Linger: -1}}
	w.build(t)
	return w
}

// live is the story of a world: things go wrong for a while, then they do not
// any more, and then everything has to come to its end.
func (w *simWorld) live() {
	chaos, calm := context.WithCancel(context.Background())
	w.chaos = chaos
	defer calm()
	within := 5*time.Second + time.Duration(w.rand.Int64N(int64(40*time.Second)))
	var senders sync.WaitGroup
	for n := range w.partitions {
		tp := handlers.TopicPartition{Topic: simSource, Partition: n}
		s := &simSender{world: w, tp: tp, log: w.brokers.logs[lane{simSource, n}], truth: w.truths[tp],
			rand: w.dice("sender", fmt.Sprint(n)), flood: w.rand.IntN(3) == 0}
		senders.Go(func() { s.run(12+s.rand.IntN(20), within) })
	}
	var desk *simDesk
	if tp := w.tp(replayPart); w.replays != nil {
		desk = &simDesk{world: w, rand: w.dice("desk", ""), log: w.brokers.logs[lane{tp.Topic, tp.Partition}], truth: w.truths[tp]}
		senders.Go(func() { desk.run(within) })
	}
	for range 1 + w.rand.IntN(3) {
		w.join()
	}
	for time.Since(w.began) < within && w.ok() {
		pause(chaos, w.span(w.rand, 50*time.Millisecond, 4*time.Second))
		w.meddle()
	}
	calm()
	senders.Wait()
	w.do("the faults stop", func() { w.database.catalogue = max(w.database.catalogue, 1) })
	for w.underWay() && w.ok() {
		time.Sleep(time.Second)
	}
	if len(w.living()) == 0 {
		w.join()
	}
	if w.database.life > 0 {
		// Epochs come again after the database went back, and so a zombie of
		// one may have shown a state that its owner knows nothing of.
		w.regroup("a last time")
	}
	left := w.finish()
	if desk != nil && left == "" {
		desk.finish()
		left = w.finish()
	}
	for _, p := range w.processes {
		p.stop()
	}
	w.going.Wait()
	if left == "" && w.ok() {
		if left = w.unfinished(); left != "" {
			w.do("", func() { w.violated("after everybody has left: %s", left) })
		}
		w.checkStored()
	}
}

// finish waits until everything has drained, and says what has not.
func (w *simWorld) finish() (left string) {
	const patience = 5 * time.Minute
	for end := time.Now().Add(patience); w.ok(); time.Sleep(time.Second) {
		if left = w.unfinished(); left == "" {
			break
		}
		if time.Now().After(end) {
			w.do("", func() { w.violated("%s after the faults have stopped: %s", patience, left) })
			break
		}
		w.repair()
	}
	return left
}

// simCatalogue knows the learners of every partition. It is dear to make, and
// nobody changes it.
var simCatalogue = sync.OnceValue(testCatalogue)

// simCodec compresses nothing: what compression does is tested elsewhere.
var simCodec = sync.OnceValue(func() *compressor {
	c, err := newCompressor(NoCompression)
	if err != nil {
		panic(err)
	}
	return c
})

// story tells what has happened: all of it, or what led up to a violation.
func (w *simWorld) story(events int) string {
	end := len(w.trace)
	for i, e := range w.trace {
		if e.who == "CHECK" {
			end = i + 1
			break
		}
	}
	if events == len(w.trace) {
		end = events
	}
	var b strings.Builder
	all := w.trace[:end]
	if events < len(w.trace) { // what repeats while nothing goes on is of no interest
		all = slices.DeleteFunc(slices.Clone(all), func(e simEvent) bool {
			return e.what == "look" || e.note == "" && (strings.HasPrefix(e.what, "published") || strings.HasPrefix(e.what, "fetch"))
		})
	}
	for _, e := range all[max(0, len(all)-events):] {
		fmt.Fprintf(&b, "%14s %-9s %-40s %s\n", e.at, e.who, e.what, e.note)
	}
	return b.String()
}

package consumer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"learnsink/handlers"
)

// world is everything a pipeline has effects on, in memory: a log, a database,
// output topics, the group's offsets. It outlives the pipelines that work in
// it, and asserts by itself what must hold at any moment.
type world struct {
	t  testing.TB
	mu sync.Mutex

	catalogue *handlers.Catalogue // nil: none was ever loaded
	version   int64
	positions map[handlers.TopicPartition]*handlers.Position
	outcomes  map[handlers.TopicPartition]map[int64]handlers.Verdict
	outbox    map[handlers.TopicPartition][]handlers.OutboxEntry
	stored    map[handlers.TrackingKey]handlers.Stored
	published map[string][]string // output topic -> ids, in order
	committed map[handlers.TopicPartition]int64
	states    []handlers.State // as they were shown
	applies   int
	ahead     int64 // outputs of offsets below it were published before this world began

	// The log of the one partition that fakeLog reads.
	records []handlers.Record
	end     int64
	grown   chan struct{} // closed when the log grows
}

func newWorld(t testing.TB) *world {
	w := &world{
		t: t, version: 1,
		positions: map[handlers.TopicPartition]*handlers.Position{},
		outcomes:  map[handlers.TopicPartition]map[int64]handlers.Verdict{},
		outbox:    map[handlers.TopicPartition][]handlers.OutboxEntry{},
		stored:    map[handlers.TrackingKey]handlers.Stored{},
		published: map[string][]string{},
		committed: map[handlers.TopicPartition]int64{},
		grown:     make(chan struct{}),
	}
	w.catalogue = testCatalogue()
	return w
}

// testCatalogue knows the learners l0 to l9 and what goodRow refers to.
func testCatalogue() *handlers.Catalogue {
	c := handlers.NewCatalogue()
	c.AddLearningObject("lo-1", "LO/1", handlers.Customer)
	c.AddTraining(1, "tr-1", "PATH")
	c.AddSession(1, 1, "se-1", "Spring")
	for i := range 10 {
		login := fmt.Sprint("l", i)
		c.AddLearner(login, "", "", handlers.Opt[time.Time]{})
		if !c.Register(handlers.LearnerRef{Login: login}, 1) {
			panic("not registered")
		}
	}
	c.Prepare()
	return c
}

func testRules(t testing.TB) *handlers.Rules {
	t.Helper()
	rules, err := handlers.Compile(handlers.Tracking, nil)
	if err != nil {
		t.Fatal(err)
	}
	return rules
}

func testSource(t testing.TB, topic string) *handlers.Source {
	return &handlers.Source{Topic: topic, Rules: testRules(t), AcceptedTopic: "accepted", DeadLetterTopic: "dead-letter"}
}

func sources(t testing.TB, topics ...string) (all []*handlers.Source) {
	for _, topic := range topics {
		all = append(all, testSource(t, topic))
	}
	return all
}

func testLogger(w io.Writer) zerolog.Logger { return zerolog.New(w).Level(zerolog.InfoLevel) }

// goodRow is a row of learner i that is accepted; badRow is not.
func goodRow(i int) []byte {
	return fmt.Appendf(nil, `{"candidateLogin":"l%d","lovGuid":"lo-1","sessionGuid":"se-1","trackingStatus":"incomplete"}`, i%10)
}

// deletingRow is a row of learner i that is accepted and deletes what is stored.
func deletingRow(i int) []byte {
	return fmt.Appendf(nil, `{"candidateLogin":"l%d","lovGuid":"lo-1","sessionGuid":"se-1","trackingStatus":"notAttempted"}`, i%10)
}

// lackingRow is a row that nothing is wrong with but that its learner is not there.
func lackingRow() []byte {
	return []byte(`{"candidateLogin":"late","lovGuid":"lo-1","sessionGuid":"se-1","trackingStatus":"incomplete"}`)
}

func badRow() []byte { return []byte(`{"candidateLogin":`) }

// The tools of a database and of the rest, each call by way of an incarnation.

// incarnation is one process that works in the world. Once it is dead nothing
// that it does has an effect.
type incarnation struct {
	*world
	// hook is asked before every effect: whether it is done, and what the
	// caller is told. nil: all goes well.
	hook func(step string) (done bool, err error)
	dead bool // guarded by world.mu
}

var errDead = errors.New("the process is dead")

// effect runs f under the world's lock, as the hook wants it.
func (in *incarnation) effect(ctx context.Context, step string, f func() error) error {
	done, fault := true, error(nil)
	if in.hook != nil {
		done, fault = in.hook(step)
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.dead {
		return errDead
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if done {
		if err := f(); err != nil {
			return err
		}
	}
	in.checkAlways()
	return fault
}

func (in *incarnation) die() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.dead = true
}

func (in *incarnation) Claim(ctx context.Context, tp handlers.TopicPartition, clusterID string, start int64) (p handlers.Position, err error) {
	err = in.effect(ctx, "claim", func() error {
		at := in.positions[tp]
		if at == nil {
			at = &handlers.Position{TopicPartition: tp, ClusterID: clusterID, FirstOffset: start, NextOffset: start, State: handlers.Running}
			in.positions[tp], in.outcomes[tp] = at, map[int64]handlers.Verdict{}
		}
		if at.ClusterID != clusterID {
			return handlers.ErrClusterChanged
		}
		at.Epoch++
		p = *at
		return nil
	})
	return p, err
}

func (in *incarnation) Facts(ctx context.Context, refs *handlers.References) (facts *handlers.Facts, err error) {
	err = in.effect(ctx, "facts", func() error {
		if in.catalogue == nil {
			return handlers.ErrNoCatalogue
		}
		facts = in.catalogue.Facts(refs)
		facts.Version = in.version
		return nil
	})
	if err != nil {
		return nil, err
	}
	return facts, nil
}

func (in *incarnation) Apply(ctx context.Context, b *handlers.Batch) error {
	return in.effect(ctx, "apply", func() error {
		tp := b.TopicPartition()
		at := in.positions[tp]
		switch {
		case at.Epoch != b.Epoch:
			return handlers.ErrFenced
		case at.State.Held():
			return handlers.ErrHeld
		case at.NextOffset != b.From:
			return handlers.ErrMoved
		case in.version != b.FactsVersion:
			return handlers.ErrStaleFacts
		}
		for i := range b.Decisions {
			d := &b.Decisions[i]
			if d.Tracking != nil {
				key := d.Tracking.TrackingKey
				in.stored[key] = d.Settle(b.Source.ByEventTime, in.stored[key])
			}
			offset := d.Record.Offset
			if offset < b.From || offset >= b.To {
				in.t.Errorf("offset %d in a batch of %d to %d", offset, b.From, b.To)
			}
			if was, twice := in.outcomes[tp][offset]; twice {
				in.t.Errorf("offset %d has an outcome already: %d", offset, was)
			}
			in.outcomes[tp][offset] = d.Verdict
			if d.Verdict == handlers.Accepted {
				at.Accepted++
			} else {
				at.Rejected++
			}
		}
		payload, err := b.Encode(b.Decisions)
		if err != nil {
			in.t.Error(err)
		}
		at.Skipped += b.To - b.From - int64(len(b.Decisions))
		at.NextOffset = b.To
		if b.Anchor.OK {
			at.Anchor = b.Anchor
		}
		in.drop(tp, b.Published)
		if len(payload) > 0 {
			in.outbox[tp] = append(in.outbox[tp], handlers.OutboxEntry{From: b.From, To: b.To, Payload: payload})
		}
		in.applies++
		return nil
	})
}

func (w *world) drop(tp handlers.TopicPartition, through int64) {
	w.outbox[tp] = slices.DeleteFunc(w.outbox[tp], func(e handlers.OutboxEntry) bool { return e.To <= through })
}

func (in *incarnation) Pending(ctx context.Context, tp handlers.TopicPartition) (entries []handlers.OutboxEntry, err error) {
	err = in.effect(ctx, "pending", func() error {
		entries = slices.Clone(in.outbox[tp])
		return nil
	})
	return entries, err
}

func (in *incarnation) Published(ctx context.Context, tp handlers.TopicPartition, epoch, through int64) error {
	return in.effect(ctx, "published", func() error {
		if in.positions[tp].Epoch != epoch {
			return handlers.ErrFenced
		}
		in.drop(tp, through)
		if in.positions[tp].State.Held() {
			return handlers.ErrHeld
		}
		return nil
	})
}

func (in *incarnation) SetState(ctx context.Context, tp handlers.TopicPartition, epoch int64, state handlers.State, reason string) error {
	return in.effect(ctx, "state", func() error {
		if at := in.positions[tp]; at.Epoch == epoch && !at.State.Held() {
			at.State, at.StateReason = state, reason
			in.states = append(in.states, state)
		}
		return nil
	})
}

func (in *incarnation) Begin(ctx context.Context, _ int) (Marker, error) {
	return Marker{Known: true}, in.effect(ctx, "begin", func() error { return nil })
}

func (in *incarnation) Find(context.Context, []handlers.OutboxEntry) (int64, error) { return 0, nil }

// Publish publishes each output by itself, so that a fault can leave half.
func (in *incarnation) Publish(ctx context.Context, entries []handlers.OutboxEntry) error {
	for _, e := range entries {
		outputs, err := decodePayload(e.Payload, &decompressor{})
		if err != nil {
			return err
		}
		for _, half := range [][]output{outputs[:len(outputs)/2], outputs[len(outputs)/2:]} {
			err := in.effect(ctx, "publish", func() error {
				for _, o := range half {
					in.published[o.topic] = append(in.published[o.topic], idOf(o.forms[0].Headers))
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func idOf(headers []handlers.Header) string {
	for _, h := range headers {
		if h.Key == "ce_id" || h.Key == "learnsink.id" {
			return string(h.Value)
		}
	}
	return ""
}

func (in *incarnation) Commit(ctx context.Context, tp handlers.TopicPartition, next, epoch int64) error {
	return in.effect(ctx, "commit", func() error {
		if in.positions[tp].Epoch == epoch { // the generation's check, as a broker makes it
			in.committed[tp] = next
		}
		return nil
	})
}

func (in *incarnation) Moved(ctx context.Context, tp handlers.TopicPartition) (int64, bool, error) {
	return 0, false, in.effect(ctx, "moved", func() error { return nil })
}

// fakeLog is the log of one partition, in chunks of a few records.
type fakeLog struct {
	*incarnation
	cluster string
	chunk   int
}

func (l *fakeLog) ClusterID(ctx context.Context) (string, error) {
	return l.cluster, l.effect(ctx, "cluster", func() error { return nil })
}

func (l *fakeLog) Start(ctx context.Context) (int64, error) {
	return 0, l.effect(ctx, "start", func() error { return nil })
}

func (l *fakeLog) Verify(ctx context.Context, anchor handlers.Anchor) error {
	return l.effect(ctx, "verify", func() error {
		if r := l.records[slices.IndexFunc(l.records, func(r handlers.Record) bool { return r.Offset == anchor.Offset })]; !bytes.Equal(fingerprint(&r), anchor.Hash) {
			return &StopError{handlers.LogDiverged, "another record"}
		}
		return nil
	})
}

func (l *fakeLog) Read(ctx context.Context, from int64, wait time.Duration) (c Chunk, err error) {
	var grown chan struct{}
	read := func() error {
		c = Chunk{From: from, Next: from, Stable: l.end, End: l.end}
		for _, r := range l.records {
			if r.Offset < from {
				continue
			}
			if len(c.Records) == l.chunk {
				break
			}
			c.Records = append(c.Records, r)
			c.Next = r.Offset + 1
		}
		if len(c.Records) < l.chunk {
			c.Next = l.end
		}
		grown = l.grown
		return nil
	}
	if err := l.effect(ctx, "read", read); err != nil {
		return Chunk{}, err
	}
	if c.Next > from || wait <= 0 {
		return c, nil
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-grown:
	case <-timer.C:
	case <-ctx.Done():
		return Chunk{}, ctx.Err()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return c, read()
}

var tp0 = handlers.TopicPartition{Topic: "rows"}

// write appends rows to the log; nil is an offset without a row, an empty
// value a tombstone.
func (w *world) write(values ...[]byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, v := range values {
		if v != nil {
			w.records = append(w.records, handlers.Record{Topic: tp0.Topic, Offset: w.end, Timestamp: time.UnixMilli(1_700_000_000_000 + w.end),
				Key: []byte("k"), Value: v})
		}
		w.end++
	}
	close(w.grown)
	w.grown = make(chan struct{})
}

// pipeline is the road of an incarnation through the world.
func (in *incarnation) pipeline() *pipeline {
	return &pipeline{
		rows:   newLentRows(),
		source: testSource(in.t, tp0.Topic), tp: tp0,
		log:   &fakeLog{incarnation: in, cluster: "here", chunk: 3},
		store: in, publisher: in, offsets: in,
		limits: pipelineLimits{rows: 4, bytes: 1 << 20, linger: 5 * time.Millisecond, poll: 250 * time.Millisecond, reclaim: 10 * time.Second,
			blocked: time.Minute, breaker: Breaker{}.orDefaults(),
			quiet: time.Second, grace: 8 * time.Second, inFlight: 3},
		packer:  &packer{codec: mustCompressor(in.t, ""), topics: &outputTopics{}},
		metrics: NewMetrics(nil), progress: newProgress(tp0), logger: zerolog.Nop(),
	}
}

// checkAlways holds after every single effect.
func (w *world) checkAlways() {
	at := w.positions[tp0]
	if at == nil {
		return
	}
	if at.FirstOffset+at.Accepted+at.Rejected+at.Skipped != at.NextOffset {
		w.t.Errorf("position does not add up: %+v", *at)
	}
	if c := w.committed[tp0]; c > at.NextOffset {
		w.t.Errorf("committed %d, applied %d", c, at.NextOffset)
	}
	for _, r := range w.records {
		if _, has := w.outcomes[tp0][r.Offset]; has != (r.Offset < at.NextOffset) {
			w.t.Errorf("offset %d has an outcome: %v; the position is %d", r.Offset, has, at.NextOffset)
		}
	}
	known := map[string]bool{}
	for offset := range w.outcomes[tp0] {
		known[fmt.Sprintf("rows-0-%d", offset)] = true
	}
	seen := map[string]bool{}
	for topic, ids := range w.published {
		last := int64(-1)
		for _, id := range ids {
			if !known[id] {
				w.t.Errorf("%s is published, and has no outcome", id)
			}
			if seen[topic+id] {
				continue // a repeat
			}
			seen[topic+id] = true
			var offset int64
			fmt.Sscanf(strings.TrimPrefix(id, "rows-0-"), "%d", &offset)
			if offset < last {
				w.t.Errorf("%s: %s is published after offset %d", topic, id, last)
			}
			last = offset
		}
	}
	// Published or pending: nothing that is applied is forgotten.
	pending := func(offset int64) bool {
		return slices.ContainsFunc(w.outbox[tp0], func(e handlers.OutboxEntry) bool { return e.From <= offset && offset < e.To })
	}
	for offset, verdict := range w.outcomes[tp0] {
		topic := map[handlers.Verdict]string{handlers.Accepted: "accepted", handlers.Rejected: "dead-letter"}[verdict]
		announced := slices.ContainsFunc(slices.Collect(maps.Keys(w.published)), func(t string) bool {
			return strings.HasPrefix(t, topic) && seen[t+fmt.Sprintf("rows-0-%d", offset)] // a source may have its own
		})
		if offset >= w.ahead && !announced && !pending(offset) {
			w.t.Errorf("offset %d is neither published nor pending", offset)
		}
	}
}

// checkDrained holds once everything is done.
func (w *world) checkDrained() {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.checkAlways()
	at := w.positions[tp0]
	if at == nil {
		w.t.Fatal("the partition was never claimed")
	}
	if at.NextOffset != w.end || w.committed[tp0] != w.end {
		w.t.Errorf("applied %d, committed %d, the log ends at %d", at.NextOffset, w.committed[tp0], w.end)
	}
	if len(w.outbox[tp0]) != 0 {
		w.t.Errorf("the outbox holds %d entries", len(w.outbox[tp0]))
	}
	if at.State != handlers.Running {
		w.t.Errorf("state %s: %s", at.State, at.StateReason)
	}
	for _, r := range w.records { // the model: each row is judged by itself
		want := handlers.Rejected
		if len(r.Value) > 0 && r.Value[len(r.Value)-1] == '}' {
			want = handlers.Accepted
		}
		if got := w.outcomes[tp0][r.Offset]; got != want {
			w.t.Errorf("offset %d: verdict %d, want %d", r.Offset, got, want)
		}
	}
}

// repeats counts outputs that are published more than once.
func (w *world) repeats() (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, ids := range w.published {
		n += len(ids) - len(slices.Collect(maps.Keys(func() map[string]bool {
			m := map[string]bool{}
			for _, id := range ids {
				m[id] = true
			}
			return m
		}())))
	}
	return n
}

package consumer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"learnsink/handlers"
)

// TestRoomSimulation lives the waiting room through, many times over: rows of
// which some come before what they refer to, catalogues that come bit by bit,
// releasers of several processes that take turns amid each other's work, fail
// before or after what they do, or are gone and come again without a memory;
// jobs that deliver late; deadlines. What releases and what judges is the code
// of production, over a database in memory. After every effect all of it is
// looked at; in the end everything is as if the catalogue had been there from
// the first, as far as the order of events says, and what is still missing is a
// dead letter with its exact message.
func TestRoomSimulation(t *testing.T) {
	worlds := simNumber(t, "LEARNSINK_SIM_SEEDS", 300)
	counts := map[string]int{}
	for seed := range uint64(worlds) {
		w := newRoomWorld(t, seed+1)
		w.live()
		if len(w.broken) > 0 {
			t.Fatalf("seed %d: %s\n%s", seed+1, strings.Join(w.broken, "\n"), strings.Join(w.trace[max(0, len(w.trace)-40):], "\n"))
		}
		for what, n := range w.counts {
			counts[what] += n
		}
	}
	for _, what := range []string{"accepted", "rejected", "superseded", "waits", "renamed", "released", "overdue", "stale facts", "failed before", "failed after", "another has the right", "amid it"} {
		if counts[what] == 0 {
			t.Errorf("in no world there was: %s", what)
		}
	}
	t.Log(counts)
}

const (
	inRoom    = "waiting"
	onTheRoad = "replaying"
)

// roomRow is a row, and what the database says of it.
type roomRow struct {
	handlers.WaitingRow
	state    string
	deadline int
	errors   []handlers.Error // as they were when it came in
	said     []handlers.Error // at last
}

// roomWorld is a database with a waiting room, and all who have to do with it.
type roomWorld struct {
	t         *testing.T
	rand      *rand.Rand
	source    *handlers.Source
	replays   *handlers.Replays
	catalogue *handlers.Catalogue
	version   int64
	late      []func(*handlers.Catalogue)
	clock     int

	coming    []*handlers.Record
	rows      map[int64]*roomRow // that have waited, by offset
	queue     []int64            // of jobs, to be delivered
	stored    map[handlers.TrackingKey]handlers.Stored
	places    map[handlers.TrackingKey][]roomPlace // of accepted rows
	position  handlers.Position
	led       bool
	releasers []*Releaser
	depth     int
	calm      bool

	counts map[string]int
	broken []string
	trace  []string
}

// roomPlace is where an accepted row stands in the order of events.
type roomPlace struct {
	at     time.Time
	offset int64
}

func (p roomPlace) compare(q roomPlace) int {
	return cmp.Or(p.at.Compare(q.at), cmp.Compare(p.offset, q.offset))
}

func newRoomWorld(t *testing.T, seed uint64) *roomWorld {
	w := &roomWorld{t: t, rand: rand.New(rand.NewPCG(seed, 1)), source: testSource(t, simSource), version: 1, rows: map[int64]*roomRow{},
		stored: map[handlers.TrackingKey]handlers.Stored{}, places: map[handlers.TrackingKey][]roomPlace{}, counts: map[string]int{}}
	w.source.Wait, w.source.ByEventTime = time.Hour, w.rand.IntN(2) == 0
	w.replays = handlers.NewReplays("again", []*handlers.Source{w.source}, "dead-letter")
	w.catalogue = handlers.NewCatalogue()
	w.catalogue.AddTraining(1, "tr-1", "PATH")
	w.catalogue.AddSession(1, 1, "se-1", "Spring")
	w.catalogue.AddLearningObject("lo-0", "", handlers.Customer)
	w.catalogue.AddLearner("l0", "", "", handlers.Opt[time.Time]{})
	register := func(c *handlers.Catalogue) {
		for l := range 4 {
			for s := range 2 {
				c.Register(handlers.LearnerRef{Login: fmt.Sprint("l", l)}, int64(s+1))
			}
		}
	}
	w.late = append(w.late, register, func(c *handlers.Catalogue) { c.AddSession(2, 1, "se-2", "Autumn") })
	for i := 1; i < 4; i++ {
		w.late = append(w.late, register,
			func(c *handlers.Catalogue) { c.AddLearner(fmt.Sprint("l", i), "", "", handlers.Opt[time.Time]{}) },
			func(c *handlers.Catalogue) { c.AddLearningObject(fmt.Sprint("lo-", i), "", handlers.Customer) })
	}
	w.rand.Shuffle(len(w.late), func(i, j int) { w.late[i], w.late[j] = w.late[j], w.late[i] })
	w.late = append(w.late, register)
	noon := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for i := range 40 {
		minutes := i // as they come, unless their order is that of events
		if w.source.ByEventTime {
			minutes = w.rand.IntN(20)
		}
		learner, object := w.rand.IntN(4), w.rand.IntN(4)
		if w.rand.IntN(10) == 0 {
			learner = 9 // who never comes
		}
		progression := w.rand.IntN(105) // not always right
		w.coming = append(w.coming, &handlers.Record{Topic: simSource, Offset: int64(i), Timestamp: noon.Add(time.Duration(minutes) * time.Minute),
			Value: fmt.Appendf(nil, `{"candidateLogin":"l%d","lovGuid":"lo-%d","sessionId":%d,"progression":%d}`, learner, object, 1+w.rand.IntN(2), progression)})
	}
	w.releasers = []*Releaser{w.releaser(), w.releaser()}
	return w
}

func (w *roomWorld) releaser() *Releaser {
	return &Releaser{store: w, sources: map[string]*handlers.Source{simSource: w.source}, metrics: NewMetrics(nil), logger: zerolog.Nop(),
		limits: releaseLimits{page: 1 + w.rand.IntN(3), job: 1 + w.rand.IntN(4)}}
}

func (w *roomWorld) came(what string) { w.counts[what]++ }

func (w *roomWorld) violated(format string, args ...any) {
	w.broken = append(w.broken, fmt.Sprintf(format, args...))
}

// live is the story of a world.
func (w *roomWorld) live() {
	for range 2000 {
		if w.meddle(); len(w.coming)+len(w.late) == 0 || len(w.broken) > 0 {
			break
		}
	}
	w.calm = true
	for len(w.coming) > 0 {
		w.apply()
	}
	for len(w.late) > 0 {
		w.load()
	}
	for range 3 { // each of them looks, and nothing fails any more
		for _, r := range w.releasers {
			w.once(r)
		}
		w.deliver(len(w.queue))
	}
	for offset, row := range w.rows {
		if never := strings.Contains(string(row.Record.Value), `"l9"`); row.state == inRoom != never && row.state != "rejected" {
			w.violated("offset %d is %s, and all has come that ever will", offset, row.state)
		}
	}
	w.clock += 1000
	w.once(w.releasers[0])
	w.deliver(len(w.queue))
	for offset, row := range w.rows {
		switch {
		case row.state == inRoom || row.state == onTheRoad:
			w.violated("offset %d is %s after its deadline", offset, row.state)
		case row.state == "rejected" && (len(row.said) == 0 || slices.ContainsFunc(row.said, func(e handlers.Error) bool { return !slices.Contains(row.errors, e) })):
			w.violated("offset %d is rejected for %v, and would have been for %v when it came", offset, row.said, row.errors)
		}
	}
	for key, places := range w.places {
		last := slices.MaxFunc(places, roomPlace.compare)
		if s := w.stored[key]; s.SourceOffset != last.offset || s.SourceTopic != simSource {
			w.violated("under %v offset %d is stored, and not %d", key, s.SourceOffset, last.offset)
		}
	}
}

// meddle does one thing.
func (w *roomWorld) meddle() {
	if w.calm || w.depth > 2 {
		return
	}
	w.depth++
	defer func() { w.depth-- }()
	w.clock++
	if w.depth > 1 {
		w.came("amid it")
	}
	switch n := w.rand.IntN(12); {
	case n < 3:
		w.apply()
	case n < 4:
		w.load()
	case n < 7:
		w.deliver(w.rand.IntN(4))
	case n < 10:
		w.once(w.releasers[w.rand.IntN(2)])
	case n < 11: // one dies, and another comes
		w.releasers[w.rand.IntN(2)] = w.releaser()
	}
	w.check()
}

// check is the look at all of it.
func (w *roomWorld) check() {
	if p := w.position; p.Accepted+p.Rejected+p.Waiting != p.NextOffset || p.Waiting != int64(len(w.rows)) {
		w.violated("the position does not sum up: %+v, %d rows have waited", p, len(w.rows))
	}
	onRoad := map[int64]int{}
	for _, offset := range w.queue {
		if onRoad[offset]++; onRoad[offset] > 1 || w.rows[offset].state != onTheRoad {
			w.violated("offset %d is %s, and %d times on the road", offset, w.rows[offset].state, onRoad[offset])
		}
	}
	for offset, row := range w.rows {
		if row.state == onTheRoad && onRoad[offset] == 0 {
			w.violated("offset %d is on the road in no job", offset)
		}
	}
}

// load has a bit more of the catalogue come.
func (w *roomWorld) load() {
	if len(w.late) == 0 {
		return
	}
	w.late[0](w.catalogue)
	w.late = w.late[1:]
	w.version++
	w.trace = append(w.trace, fmt.Sprint("catalogue ", w.version))
}

// Facts answers by the catalogue of now.
func (w *roomWorld) Facts(_ context.Context, refs *handlers.References) (*handlers.Facts, error) {
	facts := w.catalogue.Facts(refs)
	facts.Version = w.version
	w.meddle()
	return facts, w.fails("facts")
}

var errRoom = errors.New("the database is away")

func (w *roomWorld) fails(what string) error {
	if !w.calm && w.rand.IntN(15) == 0 {
		w.trace = append(w.trace, what+" fails")
		return errRoom
	}
	return nil
}

// apply takes the next rows, as a pipeline does.
func (w *roomWorld) apply() {
	n := min(1+w.rand.IntN(4), len(w.coming))
	batch, from := w.coming[:n], w.position.NextOffset
	for n > 0 {
		rows, refs := make([]handlers.Row, n), handlers.NewReferences()
		for i, rec := range batch {
			rows[i] = w.source.Rules.Decode(rec, rec.Timestamp)
			rows[i].Refer(refs)
		}
		facts, err := w.Facts(context.Background(), refs)
		if err != nil {
			return
		}
		decisions := w.source.Rules.DecideAll(rows, facts)
		err = waitFor(context.Background(), w.Facts, rows, decisions, facts)
		if w.position.NextOffset != from { // somebody else was faster
			return
		}
		if errors.Is(err, handlers.ErrStaleFacts) || err == nil && facts.Version != w.version {
			w.came("stale facts")
			continue
		}
		if err != nil {
			return
		}
		w.write(decisions)
		w.coming = w.coming[n:]
		return
	}
}

// write is the transaction of a batch.
func (w *roomWorld) write(decisions []handlers.Decision) {
	for i := range decisions {
		d := &decisions[i]
		w.settle(d, w.source.ByEventTime)
		switch d.Verdict {
		case handlers.Accepted:
			w.position.Accepted++
		case handlers.Rejected:
			w.position.Rejected++
		case handlers.Waits:
			w.came("waits")
			w.position.Waiting++
			w.rows[d.Record.Offset] = &roomRow{state: inRoom, deadline: w.clock + 20 + w.rand.IntN(300), errors: d.Errors,
				WaitingRow: handlers.WaitingRow{ID: strconv.FormatInt(d.Record.Offset, 10), Record: *d.Record, EventAt: d.EventTime, WaitsFor: d.WaitsFor}}
			if strings.Contains(string(d.Record.Value), `"l9"`) {
				w.rows[d.Record.Offset].deadline = 1000
			}
			w.trace = append(w.trace, fmt.Sprintf("%d waits for %q", d.Record.Offset, d.WaitsFor))
		}
		w.position.NextOffset++
	}
}

// settle applies a decision to what is stored.
func (w *roomWorld) settle(d *handlers.Decision, byEventTime bool) {
	if d.Verdict != handlers.Accepted {
		return
	}
	key := d.Tracking.TrackingKey
	was := w.stored[key]
	after := d.Settle(byEventTime, was)
	_, offset := d.Stands()
	here := roomPlace{d.EventTime, offset}
	w.places[key] = append(w.places[key], here)
	if d.Verdict != handlers.Accepted {
		return
	}
	if newer := (roomPlace{was.EventTime, was.SourceOffset}); was.Known && here.compare(newer) < 0 {
		w.violated("offset %d is written over offset %d, which is newer", offset, was.SourceOffset)
	}
	w.stored[key] = after
}

// deliver has the road bring so many rows of jobs, which are applied there.
func (w *roomWorld) deliver(most int) {
	for range min(most, len(w.queue)) {
		row := w.rows[w.queue[0]]
		w.queue = w.queue[1:]
		says := handlers.Replay{Of: row.ID, Attempt: 1, EventTime: row.EventAt, SourceTopic: simSource, Waited: true, Job: 1, Item: 1,
			Origin: handlers.Some(handlers.Origin{Incarnation: 1, Offset: row.Record.Offset})}
		rec := row.Record
		rec.Topic, rec.Headers = "again", says.Headers()
		lane := w.replays.Of(&rec)
		decoded, refs := make([]handlers.Row, 1), handlers.NewReferences()
		decoded[0] = lane.Source.Rules.Decode(&rec, handlers.EventTime(&rec, lane.Source.EventTimeHeader, time.Time{}))
		decoded[0].Replays(&says)
		decoded[0].Refer(refs)
		facts := w.catalogue.Facts(refs)
		decisions := lane.Source.Rules.DecideAll(decoded, facts)
		if lane.Source.Wait > 0 {
			handlers.Wait(decoded, decisions, facts)
		}
		d := &decisions[0]
		w.settle(d, lane.Source.ByEventTime)
		switch {
		case d.Superseded():
			row.state = "superseded"
		case d.Verdict == handlers.Waits:
			w.violated("offset %d waits once more", row.Record.Offset)
		default:
			row.state = map[handlers.Verdict]string{handlers.Accepted: "accepted", handlers.Rejected: "rejected"}[d.Verdict]
		}
		row.said = d.Errors
		w.came(row.state)
		w.trace = append(w.trace, fmt.Sprintf("%s is %s", row.ID, row.state))
	}
}

func (w *roomWorld) once(r *Releaser) {
	led, err := r.Once(context.Background())
	if err == nil && !led {
		w.came("another has the right")
	}
}

// The room, as a process reaches it: what it does may fail, before or after,
// and others are at work meanwhile.

// LeadRoom takes the right, which now and then two have.
func (w *roomWorld) LeadRoom(context.Context) (Room, bool, error) {
	if w.led && w.rand.IntN(3) > 0 {
		return nil, false, nil
	}
	w.led = true
	return w, true, nil
}

func (w *roomWorld) Close() { w.led = false }

func (w *roomWorld) Look(context.Context) (int64, bool, error) {
	overdue := slices.ContainsFunc(w.sorted(), func(r *roomRow) bool { return r.deadline <= w.clock })
	version := w.version
	w.meddle()
	return version, overdue, w.fails("look")
}

// sorted are the rows in the room, in the order of the index.
func (w *roomWorld) sorted() (rows []*roomRow) {
	for _, r := range w.rows {
		if r.state == inRoom {
			rows = append(rows, r)
		}
	}
	slices.SortFunc(rows, func(a, b *roomRow) int {
		return cmp.Or(slices.Compare(a.WaitsFor, b.WaitsFor), cmp.Compare(a.Record.Offset, b.Record.Offset))
	})
	return rows
}

func (w *roomWorld) Kinds(_ context.Context, after *handlers.WaitingRow, most int) (kinds []handlers.WaitingRow, _ error) {
	for _, r := range w.sorted() {
		if (after == nil || slices.Compare(r.WaitsFor, after.WaitsFor) > 0) && len(kinds) < most &&
			(len(kinds) == 0 || !slices.Equal(kinds[len(kinds)-1].WaitsFor, r.WaitsFor)) {
			kinds = append(kinds, r.WaitingRow)
		}
	}
	w.meddle()
	return kinds, w.fails("kinds")
}

func (w *roomWorld) Rows(_ context.Context, after *handlers.WaitingRow, most int) (rows []handlers.WaitingRow, _ error) {
	for _, r := range w.sorted() {
		if slices.Equal(r.WaitsFor, after.WaitsFor) && r.Record.Offset > after.Record.Offset && len(rows) < most {
			rows = append(rows, r.WaitingRow)
		}
	}
	w.meddle()
	return rows, w.fails("rows")
}

// does is an effect that may fail before or after it is done.
func (w *roomWorld) does(what string, f func()) error {
	w.meddle()
	if err := w.fails(what); err != nil {
		w.came("failed before")
		return err
	}
	f()
	w.check()
	if err := w.fails(what + ", done,"); err != nil {
		w.came("failed after")
		return err
	}
	w.meddle()
	return nil
}

func (w *roomWorld) Rename(_ context.Context, rows []handlers.WaitingRow) error {
	return w.does("rename", func() {
		for _, r := range rows {
			if row := w.row(r.ID); row.state == inRoom {
				row.WaitsFor = r.WaitsFor
				w.came("renamed")
			}
		}
	})
}

func (w *roomWorld) row(id string) *roomRow {
	offset, _ := strconv.ParseInt(id, 10, 64)
	return w.rows[offset]
}

func (w *roomWorld) Release(_ context.Context, why string, ids []string) (job, n int64, err error) {
	err = w.does("release", func() {
		for _, id := range ids {
			if row := w.row(id); row.state == inRoom { // as CreateJob looks
				row.state = onTheRoad
				w.queue = append(w.queue, row.Record.Offset)
				n++
				w.came("released")
				w.trace = append(w.trace, fmt.Sprintf("%s is released: %s", id, why))
			}
		}
	})
	return 1, n, err
}

func (w *roomWorld) ReleaseOverdue(ctx context.Context, why string, most int) (job, n int64, err error) {
	var ids []string
	for _, r := range w.sorted() {
		if r.deadline <= w.clock && len(ids) < most {
			ids = append(ids, r.ID)
			w.came("overdue")
		}
	}
	if len(ids) == 0 {
		return 0, 0, nil
	}
	return w.Release(ctx, why, ids)
}

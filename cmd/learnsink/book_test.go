package main

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"learnsink/handlers"
	"learnsink/store"
)

func set(mode store.Mode, first, from, to, published int64) store.PositionSet {
	s := store.PositionSet{Mode: mode, First: first, Published: published, From: store.Point{Offset: from, Incarnation: 1}, To: store.Point{Offset: to, Incarnation: 1}}
	if mode == store.NewLog {
		s.To.Incarnation = 2
	}
	return s
}

// How often the outcomes of each offset were announced follows from what
// operators did to the position.
func TestStretches(t *testing.T) {
	said := func(first, next int64, incarnation int, sets ...store.PositionSet) string {
		p := handlers.Position{FirstOffset: first, NextOffset: next, Incarnation: incarnation}
		var text []string
		for _, s := range stretches(legs(store.Log{Incarnation: 1}, p, sets)) {
			line := fmt.Sprintf("%d-%d:%d", s.from, s.to, s.announced)
			if !s.judged {
				line += " skipped"
			}
			if s.silent {
				line += " silent"
			}
			text = append(text, line)
		}
		return strings.Join(text, ", ")
	}
	for _, c := range []struct{ what, got, want string }{
		{"nothing was done", said(5, 100, 1), "5-100:1"},
		{"nothing was applied", said(5, 5, 1), ""},
		{"forward", said(0, 300, 1, set(store.Forward, 0, 100, 200, 100)), "0-100:1, 100-200:0 skipped, 200-300:1"},
		{"back, silently", said(40, 150, 1, set(store.Silent, 0, 100, 40, 100)), "0-40:1, 40-100:1 silent, 100-150:1"},
		{"back, silently, and on the way", said(40, 60, 1, set(store.Silent, 0, 100, 40, 100)), "0-40:1, 40-60:1 silent, 60-100:1"},
		{"back, to be announced again", said(40, 150, 1, set(store.Republish, 0, 100, 40, 100)), "0-40:1, 40-100:2, 100-150:1"},
		{"silently, and before it got there to be announced again", said(30, 150, 1, set(store.Silent, 0, 100, 20, 100), set(store.Republish, 20, 50, 30, 100)),
			"0-20:1, 20-30:1 silent, 30-50:2, 50-100:2, 100-150:1"},
		{"announced again, and before it got there silently", said(10, 150, 1, set(store.Republish, 0, 100, 20, 100), set(store.Silent, 20, 50, 10, 50)),
			"0-10:1, 10-20:1 silent, 20-50:2 silent, 50-100:2, 100-150:1"},
		{"skipped, and judged after all without a word", said(150, 260, 1, set(store.Forward, 0, 100, 200, 100), set(store.Silent, 0, 250, 150, 250)),
			"0-100:1, 100-150:0 skipped, 150-200:0 silent, 200-250:1 silent, 250-260:1"},
		{"the database had gone back", said(20, 150, 1, set(store.Republish, 0, 50, 20, 100)), "0-20:1, 20-50:2, 50-150:1"},
		{"the log before", said(0, 10, 2, set(store.Republish, 0, 100, 40, 100), set(store.NewLog, 40, 120, 0, 120)), "0-40:1, 40-100:2, 100-120:1"},
	} {
		if c.got != c.want {
			t.Errorf("%s: %s\nwant: %s", c.what, c.got, c.want)
		}
	}
}

func TestBitmapAndTally(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	m, counts, model := bitmap{}, tally{}, map[int64]int{}
	for range 5000 {
		i := r.Int64N(300)
		if r.IntN(3) == 0 {
			i += 1<<26 - 150
		}
		m.set(i)
		counts.add(i)
		model[i]++
	}
	for range 1000 {
		from := r.Int64N(400)
		to := from + r.Int64N(400)
		if r.IntN(2) == 0 {
			to += 1 << 26
		}
		var want int64
		for i := range model {
			if i >= from && i < to {
				want++
			}
		}
		if got := m.count(from, to); got != want || counts.count(from, to) != want {
			t.Fatalf("[%d, %d): %d, %d, not %d", from, to, got, counts.count(from, to), want)
		}
	}
	for i := range int64(400) {
		if counts.of(i) != model[i] || m.has(i) != (model[i] > 0) {
			t.Fatalf("%d: %d times, not %d", i, counts.of(i), model[i])
		}
	}
}

// bookOf is a book of the log of offsets 0 to 10, in which each is a row with
// an outcome in partition 0 of its output; offsets 3 and 7 were rejected.
func bookOf(sets ...store.PositionSet) *book {
	log := store.Log{TopicPartition: handlers.TopicPartition{Topic: "t"}, Incarnation: 1}
	p := handlers.Position{NextOffset: 10, Incarnation: 1, Round: 1}
	b := newBook(log, &handlers.Source{Topic: "t"}, p, stretches(legs(log, p, sets)))
	b.kept, b.start, b.end = 0, 0, 12
	for _, accepted := range []bool{true, false} {
		b.outputs[accepted] = []*output{{topic: map[bool]string{true: "a", false: "d"}[accepted], accepted: accepted, lanes: map[int]*lane{0: {first: map[*book]int64{b: 0}}}}}
	}
	for offset := range int64(10) {
		rejected := offset == 3 || offset == 7
		b.outcome(offset, !rejected)
		if rejected {
			b.rejected.set(offset)
		}
	}
	return b
}

// drop takes an outcome away.
func (b *book) drop(offset int64, accepted bool) {
	for _, m := range b.seen[accepted] {
		m[offset/pageBits][offset/64] &^= 1 << (offset % 64)
	}
}

// read enters the rows of the log but without.
func (b *book) read(without ...int64) {
	for offset := range int64(10) {
		r := &handlers.Record{Offset: offset, Value: []byte("x")}
		if !reflect.DeepEqual(without, []int64{offset}) {
			b.row(r, func(*output) int { return 0 })
		}
	}
}

func TestBookNamesFaults(t *testing.T) {
	atLeastOnce := false
	for _, c := range []struct {
		what    string
		sets    []store.PositionSet
		plant   func(*book)
		without []int64 // no row
		exactly bool
		want    string // of the faults
		counts  counts
	}{
		{what: "all is well", exactly: true, counts: counts{outcomes: 10}},
		{what: "an outcome is missing", plant: func(b *book) { b.drop(4, true) }, want: "t/0 offset 4: is a row without an outcome", counts: counts{outcomes: 9}},
		{what: "an outcome of no row", without: []int64{5}, want: "t/0 offset 5: has an outcome, and is no row", counts: counts{outcomes: 10}},
		{what: "both kinds", plant: func(b *book) { b.outcome(3, true) }, exactly: true,
			want: "t/0 offset 3: has both an accepted event and a dead letter\nt/0 offset 3: has 2 outcomes, and was announced 1 times", counts: counts{outcomes: 10}},
		{what: "a repeat, exactly once", plant: func(b *book) { b.outcome(4, true) }, exactly: true, want: "t/0 offset 4: has 2 outcomes, and was announced 1 times", counts: counts{outcomes: 10}},
		{what: "a repeat, at least once", plant: func(b *book) { b.outcome(4, true); b.outcome(4, true) }, exactly: atLeastOnce, counts: counts{outcomes: 10, repeats: 2}},
		{what: "a rejection that is in the topic alone", plant: func(b *book) { b.rejected = bitmap{}; b.rejected.set(7) }, want: "t/0 offset 3: has a dead letter, and no line in the table rejection", counts: counts{outcomes: 10}},
		{what: "… and is past its retention", plant: func(b *book) { b.rejected = bitmap{}; b.rejected.set(7); b.kept = 4 }, counts: counts{outcomes: 10}},
		{what: "a rejection that is in the table alone", plant: func(b *book) { b.rejected.set(4) }, want: "t/0 offset 4: has an accepted event, and a line in the table rejection", counts: counts{outcomes: 10}},
		{what: "announced again", sets: []store.PositionSet{set(store.Republish, 0, 10, 8, 10)}, plant: func(b *book) { b.outcome(8, true); b.outcome(9, true) }, exactly: true,
			counts: counts{outcomes: 10, again: 2}},
		{what: "announced again, as another kind", sets: []store.PositionSet{set(store.Republish, 0, 10, 7, 10)}, plant: func(b *book) { b.outcome(7, true); b.rejected = bitmap{}; b.rejected.set(3) }, exactly: true,
			counts: counts{outcomes: 10, again: 1}},
		{what: "announced once more than asked for", sets: []store.PositionSet{set(store.Republish, 0, 10, 8, 10)}, plant: func(b *book) { b.outcome(8, true); b.outcome(8, true) }, exactly: true,
			want: "t/0 offset 8: has 3 outcomes, and was announced 2 times", counts: counts{outcomes: 10}},
		{what: "judged anew in silence", sets: []store.PositionSet{set(store.Silent, 0, 10, 5, 10)}, plant: func(b *book) { b.rejected = bitmap{}; b.rejected.set(3) }, exactly: true,
			counts: counts{outcomes: 10, silent: 1}},
		{what: "announced again in spite of silence", sets: []store.PositionSet{set(store.Silent, 0, 10, 5, 10)}, plant: func(b *book) { b.outcome(6, true) }, exactly: true,
			want: "t/0 offset 6: has 2 outcomes, and was announced 1 times", counts: counts{outcomes: 10}},
		{what: "skipped", sets: []store.PositionSet{set(store.Forward, 0, 4, 6, 4)}, plant: func(b *book) { b.drop(4, true); b.drop(5, true) }, exactly: true,
			counts: counts{outcomes: 8, skipped: 2}},
		{what: "forgotten by the output", plant: func(b *book) {
			b.drop(0, true)
			b.drop(1, true)
			b.outputs[true][0].lanes[0] = &lane{start: 2, first: map[*book]int64{b: 2}}
		}, exactly: true, counts: counts{outcomes: 8}},
		{what: "the first is missing, and nothing was forgotten", plant: func(b *book) {
			b.drop(0, true)
			b.outputs[true][0].lanes[0] = &lane{first: map[*book]int64{b: 1}}
		}, want: "t/0 offset 0: is a row without an outcome", counts: counts{outcomes: 9}},
		{what: "missing, and younger than what is forgotten", plant: func(b *book) {
			b.drop(0, true)
			b.drop(4, true)
			b.outputs[true][0].lanes[0] = &lane{start: 2, first: map[*book]int64{b: 1}}
		}, want: "t/0 offset 4: is a row without an outcome", counts: counts{outcomes: 8}},
		{what: "missing where the other output has forgotten", plant: func(b *book) {
			b.drop(3, false)
			b.outputs[true][0].lanes[0] = &lane{start: 2, first: map[*book]int64{b: 4}}
		}, want: "t/0 offset 3: is a row without an outcome", counts: counts{outcomes: 9}},
	} {
		t.Run(c.what, func(t *testing.T) {
			b := bookOf(c.sets...)
			if c.plant != nil {
				c.plant(b)
			}
			b.read(c.without...)
			if err := b.judge(t.Context(), nil, c.exactly); err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(b.faults.all(), "\n"); got != c.want {
				t.Errorf("faults: %s\nwant: %s", got, c.want)
			}
			if b.counts != c.counts {
				t.Errorf("%+v, not %+v", b.counts, c.counts)
			}
		})
	}
}

// Of the replay topic each row names its source: what the outputs of another
// have forgotten is no excuse for its outcome.
func TestBookOfReplays(t *testing.T) {
	rules, err := handlers.Compile(handlers.Tracking, nil)
	if err != nil {
		t.Fatal(err)
	}
	sources := []*handlers.Source{
		{Topic: "one", Rules: rules, AcceptedTopic: "a", DeadLetterTopic: "d"},
		{Topic: "two", Rules: rules, AcceptedTopic: "a2", DeadLetterTopic: "d2"},
	}
	for _, c := range []struct{ source, want string }{
		{"one", ""}, {"two", "t/0 offset 0: is a row without an outcome"},
	} {
		b := bookOf()
		b.replays = handlers.NewReplays("t", sources, "d")
		b.outputs[true] = append(b.outputs[true], &output{topic: "a2", accepted: true, lanes: map[int]*lane{0: {first: map[*book]int64{}}}})
		b.outputs[true][0].lanes[0] = &lane{start: 2, first: map[*book]int64{b: 1}} // forgets what is before
		b.drop(0, true)
		says := handlers.Replay{SourceTopic: c.source, EventTime: time.Now()}
		b.row(&handlers.Record{Offset: 0, Value: []byte("x"), Headers: says.Headers()}, func(*output) int { return 0 })
		if got := strings.Join(b.faults.all(), "\n"); got != c.want {
			t.Errorf("of source %s: %s, not %s", c.source, got, c.want)
		}
	}
}

// Where the log has forgotten its rows, the ledger says how many there were.
func TestBookHoldsOutcomesAgainstTheLedger(t *testing.T) {
	line := store.LedgerLine{From: 0, To: 10, End: 10, Accepted: 8, Rejected: 2}
	for _, c := range []struct {
		what  string
		plant func(*book, *store.LedgerLine)
		want  string
		gone  forgotten
	}{
		{"all is well", func(*book, *store.LedgerLine) {}, "", forgotten{}},
		{"one is missing", func(b *book, _ *store.LedgerLine) { b.drop(2, true) }, "t/0 offset 0: from here to offset 10 the ledger counts 8 accepted rows, the topics hold 7", forgotten{}},
		{"one too many", func(b *book, l *store.LedgerLine) { l.Rejected, l.Skipped = 1, 1 }, "t/0 offset 0: from here to offset 10 the ledger counts 1 rejected rows, the topics hold 2", forgotten{}},
		{"two are forgotten", func(b *book, _ *store.LedgerLine) {
			b.drop(0, true)
			b.drop(1, true)
			b.outputs[true][0].lanes[0] = &lane{start: 2, first: map[*book]int64{b: 2}}
		}, "", forgotten{2, 2}},
		{"the other output has forgotten", func(b *book, _ *store.LedgerLine) {
			b.drop(0, true)
			b.outputs[false][0].lanes[0] = &lane{start: 2, first: map[*book]int64{b: 7}}
		}, "t/0 offset 0: from here to offset 10 the ledger counts 8 accepted rows, the topics hold 7", forgotten{}},
	} {
		t.Run(c.what, func(t *testing.T) {
			b, l := bookOf(), line
			b.start = 10
			c.plant(b, &l)
			b.judgeLine(l)
			if got := strings.Join(b.faults.all(), "\n"); got != c.want || b.forgotten[isAccepted] != c.gone {
				t.Errorf("faults: %s, forgotten: %v\nwant: %s, %v", got, b.forgotten[isAccepted], c.want, c.gone)
			}
		})
	}
}

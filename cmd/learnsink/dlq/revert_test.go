package dlq_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"learnsink/cmd/learnsink/dlq"
	"learnsink/handlers"
	"learnsink/store"
)

// accepted is a topic of accepted events in memory.
type accepted struct {
	events []handlers.Record
	start  [2]int64 // of its partitions: what is before is forgotten
}

// add publishes what came of a row, at a time.
func (a *accepted) add(src *handlers.Source, d *handlers.Decision, at time.Time, partition int) {
	o, ok := d.Output(src, at)
	if !ok || d.Verdict != handlers.Accepted {
		return
	}
	offset := int64(0)
	for i := range a.events {
		if a.events[i].Partition == partition {
			offset = a.events[i].Offset + 1
		}
	}
	a.events = append(a.events, handlers.Record{Topic: o.Topic, Partition: partition, Offset: offset, Timestamp: at, Key: o.Key, Value: o.Value, Headers: o.Headers})
}

func (a *accepted) holds(r *handlers.Record) bool { return r.Offset >= a.start[r.Partition] }

// Each hands out one partition after the other, as they are read.
func (a *accepted) Each(_ context.Context, _ string, fn func(*handlers.Record) error) (bool, time.Time, error) {
	var since time.Time
	for partition := range a.start {
		for i := range a.events {
			if r := &a.events[i]; r.Partition == partition && a.holds(r) {
				if r.Offset == a.start[partition] && r.Offset > 0 && r.Timestamp.After(since) {
					since = r.Timestamp
				}
				if err := fn(r); err != nil {
					return false, since, err
				}
			}
		}
	}
	return a.start == [2]int64{}, since, nil
}

// At hands out those that are asked for.
func (a *accepted) At(_ context.Context, tp handlers.TopicPartition, offsets []int64, fn func(*handlers.Record) error) error {
	for i := range a.events {
		if r := &a.events[i]; r.Partition == tp.Partition && a.holds(r) && slices.Contains(offsets, r.Offset) {
			if err := fn(r); err != nil {
				return err
			}
		}
	}
	return nil
}

// said is what a row has left under a key.
type said struct {
	bad, forgotten bool
	row            map[string]any // nil: none
}

// TestRevert: over random stories, every key that is last written in the window
// says afterwards what it said before it, and every other one is as it was.
func TestRevert(t *testing.T) {
	w := newWorld(t)
	seen := map[string]int64{}
	for seed := range uint64(40) {
		w.revertStory(rand.New(rand.NewPCG(seed, 9)), seed, seen)
		if t.Failed() {
			break
		}
	}
	t.Logf("%v", seen)
	for _, want := range []string{"put back", "deleted", "untouched", "superseded", string(dlq.LeftForgotten), string(dlq.LeftNoDelete), string(dlq.LeftSame)} {
		if seen[want] == 0 {
			t.Errorf("nothing was %s", want)
		}
	}
}

func (w *world) revertStory(r *rand.Rand, seed uint64, seen map[string]int64) {
	w.t.Helper()
	w.exec("TRUNCATE learnsink.tracking, learnsink.tracking_deleted, learnsink.intervention, learnsink.ledger")
	src := w.sources[seed%2]
	base := time.Now().UTC().Add(-time.Hour).Truncate(time.Second)
	topic := &accepted{}
	const rows, more = 20, 5
	from := r.IntN(12)
	to := from + 1 + r.IntN(rows-from)
	var sender *string
	if r.IntN(2) == 0 {
		sender = new(string)
		*sender = "bad"
	}
	history := map[string][]said{}
	of := map[int]string{} // events: the key
	write := func(i int) {
		rec := draw(r, src.Rules.Action(), i%2, int64(seed)*1000+int64(i))
		who := []string{"bad", "good"}[r.IntN(2)]
		rec.Headers = []handlers.Header{{Key: handlers.SenderHeader, Value: []byte(who)}}
		before, events := w.contents(), len(topic.events)
		d := w.apply(src, &rec)
		at := base.Add(time.Duration(i) * time.Second)
		w.exec(`UPDATE learnsink.ledger SET applied_at = $1 WHERE topic = $2 AND partition = $3 AND from_offset <= $4 AND to_offset > $4`, at, src.Topic, rec.Partition, rec.Offset)
		if topic.add(src, &d, at, r.IntN(2)); len(topic.events) == events {
			return
		}
		key := keyOf(&d)
		if before[key] != nil && history[key] == nil {
			w.t.Fatalf("%s was there before", key)
		}
		of[events] = key
		history[key] = append(history[key], said{bad: i >= from && i < to && (sender == nil || who == *sender), row: w.contents()[key]})
	}
	for i := range rows {
		write(i)
	}
	if r.IntN(3) == 0 {
		topic.start = [2]int64{int64(r.IntN(4)), int64(r.IntN(4))}
	}
	// What the topic has forgotten nobody can put back.
	nth := map[string]int{}
	for i := range topic.events {
		key := of[i]
		history[key][nth[key]].forgotten = !topic.holds(&topic.events[i])
		nth[key]++
	}

	revert := &dlq.Revert{Source: src, Accepted: []string{"learning.accepted"}, From: base.Add(time.Duration(from) * time.Second), To: base.Add(time.Duration(to) * time.Second),
		Sender: sender, Now: time.Now().UTC(), Books: w, Catalogue: w, Tables: w, Events: topic}
	counts, err := revert.Look(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	var backs []dlq.Back
	for back, err := range revert.Rows(w.t.Context(), &counts) {
		if err != nil {
			w.t.Fatal(err)
		}
		backs = append(backs, back)
	}
	sum := counts.PutBack + counts.Deleted
	for left, n := range counts.Left {
		seen[string(left)] += n
		sum += n
	}
	if sum != counts.Keys || int64(len(backs)) != counts.PutBack+counts.Deleted {
		w.t.Errorf("seed %d: %+v, and %d rows", seed, counts, len(backs))
	}
	seen["put back"], seen["deleted"] = seen["put back"]+counts.PutBack, seen["deleted"]+counts.Deleted

	// Something comes in between, and it stays.
	was := w.contents()
	between := map[string]bool{}
	for i := range r.IntN(more) {
		events := len(topic.events)
		if write(rows + i); len(topic.events) > events {
			between[of[events]] = true
		}
	}
	now := w.contents()
	for i := range backs {
		if d := w.putBack(src, &backs[i].Item); d.Verdict != handlers.Accepted {
			if seen["superseded"]++; !d.Superseded() {
				w.t.Errorf("seed %d: %s is not put back: %v", seed, backs[i].Subject, d.Errors)
			}
		}
	}
	after := w.contents()
	for key, all := range history {
		want := was[key]
		switch last := all[len(all)-1]; {
		case between[key]:
			want = now[key]
		case last.bad && !last.forgotten:
			good := lastGood(all)
			switch {
			case good != nil:
				want = good.row
			case topic.start == [2]int64{} && src.Rules.Action() == handlers.Tracking:
				want = nil
			}
		}
		if diff := cmp.Diff(bare(want), bare(after[key])); diff != "" {
			w.t.Errorf("seed %d, window %d to %d: %s -want +got\n%s", seed, from, to, key, diff)
		}
		if cmp.Equal(was[key], after[key]) {
			seen["untouched"]++
		}
	}
}

// lastGood is the last that the topic still holds, and is not taken back.
func lastGood(all []said) *said {
	for i := len(all) - 1; i >= 0; i-- {
		if !all[i].bad && !all[i].forgotten {
			return &all[i]
		}
	}
	return nil
}

// keyOf is a decision's key as contents has it.
func keyOf(d *handlers.Decision) string {
	if d.Tracking != nil {
		return fmt.Sprint("tracking ", d.Tracking.RegistrationID, " ", d.Tracking.LearningObjectID)
	}
	return "intervention " + d.Intervention.GUIDFolded
}

// bare is a row without what is not put back: that a date was filled in, and
// in which letters a guid is written.
func bare(row map[string]any) map[string]any {
	without := map[string]any{}
	for column, v := range row {
		if text, ok := v.(string); ok && strings.HasSuffix(column, "guid") {
			v = strings.ToLower(text)
		}
		if column != "first_completion_filled_in" {
			without[column] = v
		}
	}
	return without
}

// putBack sends a row as a job does, and applies it as serve does.
func (w *world) putBack(src *handlers.Source, item *store.JobItem) handlers.Decision {
	w.t.Helper()
	says := handlers.Replay{EventTime: item.EventAt, SourceTopic: item.SourceTopic, Overwrite: item.Overwrite}
	rec := &handlers.Record{Topic: replayTopic, Offset: w.next, Timestamp: time.Now(), Key: item.Key, Value: item.Value, Headers: append(item.Headers, says.Headers()...)}
	w.next++
	again := *src
	again.Topic, again.ByEventTime, again.EventTimeHeader = replayTopic, true, true
	d := w.apply(&again, rec)
	return d
}

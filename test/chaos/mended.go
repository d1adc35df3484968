package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"learnsink/test/oracle"
)

// standing is the place of a row in the order of event time: that of its own
// record, also if it was sent again.
type standing struct {
	at        time.Time
	topic     string
	partition int32
	offset    int64
}

func (s standing) String() string {
	return fmt.Sprintf("%s-%d-%d of %s", s.topic, s.partition, s.offset, s.at.Format(time.RFC3339Nano))
}

func (s standing) compare(t standing) int {
	if c := s.at.Compare(t.at); c != 0 {
		return c
	}
	if c := strings.Compare(s.topic, t.topic); c != 0 {
		return c
	}
	if s.partition != t.partition {
		return int(s.partition) - int(t.partition)
	}
	return int(s.offset - t.offset)
}

// sentRow is a row as its source's log has it.
type sentRow struct {
	deskRow
	number int
	standing
}

// letter is a line of rejection.
type letter struct {
	ID, State string
	Attempt   int
	Codes     []string
	Waited    bool
}

// item is a row of a job.
type item struct {
	Job, Seq                        int64
	Kind, Rejection, State, Outcome string
}

// said is an output of the desk's: an accepted event or a dead letter.
type said struct {
	id, replayOf string
	deleted      bool
	number       int // accepted
	at           time.Time
}

// mended is what is left of the desk's rows, as topics and tables tell it.
type mended struct {
	rows     map[string]sentRow // by id
	resent   map[string]string  // on the replay topic: "job/seq" by id
	letters  map[string]letter
	items    []item
	accepted []said
	rejected []said
	stored   []stored
}

// verdict holds what is left of the desk's rows against what was promised of them.
func (d *desk) verdict(ctx context.Context) error {
	m, err := d.read(ctx)
	if err != nil {
		return err
	}
	d.jobsKept(m)
	if d.publish == "transactional" { // else rows may be sent twice, and each time has its outcome
		d.lettersKept(m)
		d.outputsKept(m)
	}
	d.keysKept(m)
	for _, verb := range append([]string{"catalog load"}, slices.Compact(slices.Clone(verbs))...) {
		if d.did[verb] == 0 {
			d.faultf("the operator's %s never went through: give it more minutes", verb)
		}
	}
	return nil
}

// records reads the whole of a topic, past all proxies.
func (d *desk) records(ctx context.Context, topic string, each func(*kgo.Record) error) error {
	brokers := []string{d.kafka.Address}
	ends, err := oracle.Ends(ctx, brokers, topic)
	if err != nil {
		return err
	}
	for p, end := range ends {
		for r, err := range oracle.Log(ctx, brokers, topic, p, end, false) {
			if err == nil {
				err = each(r)
			}
			if err != nil {
				return fmt.Errorf("%s-%d: %w", topic, p, err)
			}
		}
	}
	return nil
}

func (d *desk) read(ctx context.Context) (*mended, error) {
	m := &mended{rows: map[string]sentRow{}, resent: map[string]string{}, letters: map[string]letter{}}
	for _, topic := range []string{late, early} {
		if err := d.records(ctx, topic, func(r *kgo.Record) error {
			var v struct{ TimeSpent int }
			if err := json.Unmarshal(r.Value, &v); err != nil {
				return err
			}
			m.rows[oracle.ID(r)] = sentRow{d.rows[v.TimeSpent], v.TimeSpent, standing{r.Timestamp.UTC(), r.Topic, r.Partition, r.Offset}}
			return nil
		}); err != nil {
			return nil, err
		}
	}
	if err := d.records(ctx, replay, func(r *kgo.Record) error {
		m.resent[oracle.ID(r)] = oracle.HeaderOf(r, "learnsink.job")
		return nil
	}); err != nil {
		return nil, err
	}
	if err := d.records(ctx, deskAccepted, func(r *kgo.Record) error {
		var v struct {
			Operation, ReplayOf string
			Row                 struct{ TimeSpent int }
			Source              struct{ Timestamp time.Time }
		}
		if err := json.Unmarshal(r.Value, &v); err != nil {
			return err
		}
		m.accepted = append(m.accepted, said{oracle.HeaderOf(r, "ce_id"), v.ReplayOf, v.Operation == "delete", v.Row.TimeSpent, v.Source.Timestamp.UTC()})
		return nil
	}); err != nil {
		return nil, err
	}
	if err := d.records(ctx, deskLetters, func(r *kgo.Record) error {
		m.rejected = append(m.rejected, said{id: oracle.HeaderOf(r, "learnsink.id"), replayOf: oracle.HeaderOf(r, "learnsink.replay-of")})
		return nil
	}); err != nil {
		return nil, err
	}
	letters, err := scan[letter](ctx, d, `SELECT id, state, attempt, codes, deadline IS NOT NULL FROM learnsink.rejection WHERE source_topic = ANY ($1)`, []string{late, early})
	if err != nil {
		return nil, err
	}
	for _, l := range letters {
		m.letters[l.ID] = l
	}
	m.items, err = scan[item](ctx, d, `SELECT i.job, i.seq, j.kind, coalesce(i.rejection, ''), i.state, coalesce(i.outcome, '')
		FROM learnsink.job_item i JOIN learnsink.job j ON j.id = i.job ORDER BY i.job, i.seq`)
	if err != nil {
		return nil, err
	}
	m.stored, err = scan[stored](ctx, d, keys, apart)
	return m, err
}

// jobsKept: every item that was sent is on the replay topic once, and its one
// outcome is that record's.
func (d *desk) jobsKept(m *mended) {
	times := map[string][]string{}
	for id, of := range m.resent {
		times[of] = append(times[of], id)
	}
	jobs := map[int64]bool{}
	for _, i := range m.items {
		jobs[i.Job] = true
		d.sentAgain[i.State]++
		name := fmt.Sprintf("%d/%d", i.Job, i.Seq)
		ids := times[name]
		delete(times, name)
		switch {
		case i.State == "pending" || i.State == "sent":
			d.broke(oneOutcome, "item %s (%s) is %s", name, i.Rejection, i.State)
		case i.State == "dropped":
			if len(ids) > 0 {
				d.broke(oneOutcome, "item %s was dropped, and is on the replay topic: %v", name, ids)
			}
		case len(ids) == 0, len(ids) > 1 && d.publish == "transactional":
			d.broke(oneOutcome, "item %s (%s) is on the replay topic %d times: %v", name, i.Rejection, len(ids), ids)
		case !slices.Contains(ids, i.Outcome):
			d.broke(oneOutcome, "item %s (%s) has the outcome %q, and is on the replay topic as %v", name, i.Rejection, i.Outcome, ids)
		}
	}
	for of, ids := range times {
		d.broke(oneOutcome, "no job has an item %q, and it is on the replay topic as %v", of, ids)
	}
	d.jobs = len(jobs)
}

// lettersKept: every dead letter is what the latest of its outcomes says.
func (d *desk) lettersKept(m *mended) {
	var seen = map[string][]item{} // sent, by dead letter, in order
	for _, i := range m.items {
		if _, known := m.letters[i.Rejection]; !known {
			d.broke(settled, "item %d/%d is of %q, which there is not", i.Job, i.Seq, i.Rejection)
		}
		if i.State != "dropped" {
			seen[i.Rejection] = append(seen[i.Rejection], i)
		}
	}
	for id, l := range m.letters {
		attempts, want := 1, "open"
		for _, i := range seen[id] {
			if i.Kind != "release" { // the first attempt of a row that waited is made when it is released
				attempts++
			}
			switch {
			case i.State == "accepted":
				want = "resolved"
			case i.State == "superseded":
				want = "superseded"
			case attempts >= 5:
				want = "quarantined"
			default:
				want = "open"
			}
		}
		if l.State != want || l.Attempt != attempts {
			d.broke(settled, "%s is %s at attempt %d, not %s at %d: %+v", id, l.State, l.Attempt, want, attempts, seen[id])
		}
		if !l.Waited {
			d.settled[l.State]++
			continue
		}
		// Released once: its outcome on the replay topic is its first.
		released := 0
		for _, i := range seen[id] {
			if i.Kind == "release" {
				released++
			}
		}
		if released != 1 {
			d.broke(roomEmptied, "%s, which is %s, was released %d times", id, l.State, released)
		}
		d.waited[l.State]++
	}
}

// outputsKept: every row was announced once, as what became of it first; what
// was sent again once more for each time, and accepted once at most.
func (d *desk) outputsKept(m *mended) {
	type out struct{ id, of, state string }
	want := map[out]int{}
	for _, i := range m.items {
		if i.State == "accepted" || i.State == "rejected" || i.State == "superseded" {
			state := "rejected"
			if i.State == "accepted" {
				state = "accepted"
			}
			want[out{i.Outcome, i.Rejection, state}] = 1
		}
	}
	for id, row := range m.rows {
		switch l, rejected := m.letters[id]; {
		case !rejected:
			want[out{id, "", "accepted"}] = 1
		case !l.Waited: // what waits is not announced
			want[out{id, "", "rejected"}] = 1
			fallthrough
		default:
			if l.State == "resolved" && row.kind == hopeless {
				d.broke(announced, "%s is resolved, and nothing can be right with it", id)
			}
		}
	}
	edited := map[string]bool{}
	for _, i := range m.items {
		edited[i.Outcome] = i.Kind == "edit"
	}
	got := map[out]int{}
	resolved := map[string]int{}
	for _, s := range m.accepted {
		got[out{s.id, s.replayOf, "accepted"}]++
		if s.replayOf != "" {
			resolved[s.replayOf]++
		}
		of := s.id
		if s.replayOf != "" {
			of = s.replayOf
		}
		if row, known := m.rows[of]; !known || row.number != s.number || !row.at.Equal(s.at) || row.kind == hopeless || row.kind == misspelt && !edited[s.id] {
			d.broke(announced, "the event %s, of %q, says row %d of %s, which is row %d, %s", s.id, s.replayOf, s.number, s.at, row.number, row.standing)
		}
	}
	for _, s := range m.rejected {
		got[out{s.id, s.replayOf, "rejected"}]++
	}
	for o, n := range want {
		if has := got[o]; has != n {
			d.broke(announced, "%s, of %q, was to be announced %s %d times, and was %d times", o.id, o.of, o.state, n, has)
		}
	}
	for o, n := range got {
		if want[o] == 0 {
			d.broke(announced, "%s, of %q, is announced %s %d times, and was not to be", o.id, o.of, o.state, n)
		}
	}
	for id, n := range resolved {
		if n != 1 {
			d.broke(announced, "%s was accepted %d times", id, n)
		}
	}
	for id, l := range m.letters {
		if l.State == "resolved" && resolved[id] == 0 {
			d.broke(announced, "%s is resolved, and no accepted event replays it", id)
		}
	}
}

// stored is what a table has of a key.
type stored struct {
	Login, Object, Session string
	Number                 int64 // -1: deleted
	At                     time.Time
	Topic                  string
	Partition              int32
	Offset                 int64
}

const keys = `SELECT l.login, o.guid, s.guid, t.number, t.event_at, t.source_topic, t.source_partition, t.source_offset FROM (
	SELECT registration_id, learning_object_id, time_spent_seconds::bigint AS number, event_at, source_topic, source_partition, source_offset FROM learnsink.tracking
	UNION ALL SELECT registration_id, learning_object_id, -1, event_at, source_topic, source_partition, source_offset FROM learnsink.tracking_deleted) t
	JOIN learnsink.registration r ON r.id = t.registration_id JOIN learnsink.learner l ON l.id = r.learner_id
	JOIN learnsink.session s ON s.id = r.session_id JOIN learnsink.learning_object o ON o.id = t.learning_object_id
	WHERE l.login LIKE 'Ann.%' OR t.source_topic = ANY ($1)`

// keysKept: of every key the newest row that was accepted is stored, whenever
// and over whichever road it came; and what is called older is older.
func (d *desk) keysKept(m *mended) {
	type newest struct {
		standing
		number int64
	}
	want := map[deskKey]newest{}
	for _, s := range m.accepted {
		of := s.id
		if s.replayOf != "" {
			of = s.replayOf
		}
		row, known := m.rows[of]
		if !known {
			continue // said already
		}
		now := newest{row.standing, int64(s.number)}
		if s.deleted {
			now.number = -1
		}
		if before, there := want[row.key]; !there || before.compare(now.standing) < 0 {
			want[row.key] = now
		}
	}
	got := map[deskKey]newest{}
	for _, s := range m.stored {
		key := deskKey{s.Login, s.Object, s.Session}
		if _, twice := got[key]; twice {
			d.broke(unharmed, "row %d is stored and deleted", s.Number)
		}
		got[key] = newest{standing{s.At.UTC(), s.Topic, s.Partition, s.Offset}, s.Number}
	}
	for key, w := range want {
		if g, there := got[key]; !there || g.compare(w.standing) != 0 || g.number != w.number {
			d.broke(unharmed, "%v has row %d, %s (there: %v), and the newest that was accepted is %d, %s", key, g.number, g.standing, there, w.number, w.standing)
		}
		delete(got, key)
	}
	for key, g := range got {
		d.broke(unharmed, "%v has row %d, %s, and none was accepted", key, g.number, g.standing)
	}
	for id, l := range m.letters {
		if !slices.Contains(l.Codes, "superseded") || l.State == "resolved" {
			continue
		}
		if row := m.rows[id]; want[row.key].compare(row.standing) <= 0 {
			d.broke(unharmed, "%s is called older than what is stored, and is not: %s", id, want[row.key].standing)
		}
	}
}

// table is what the report says of the desk.
func (d *desk) table(p func(string, ...any)) {
	for _, promise := range deskPromises {
		if d.publish != "transactional" && slices.Contains([]string{settled, announced, roomEmptied}, promise) {
			p("| %s | not asked |", promise)
			continue
		}
		p("| %s | %d |", promise, d.faults[promise])
	}
	p("\nAn operator has sent rows again meanwhile: %d jobs, their items: %s. Dead letters are now: %s; rows that had waited: %s. The sums of the waiting room were looked at %d times, and `audit` came through %d times amid it. Verbs that went through: %s; that did not: %s.",
		d.jobs, counts(d.sentAgain), counts(d.settled), counts(d.waited), d.sumLooks, d.audits, counts(d.did), counts(d.failed))
	p("Learners that came while it ran: %d of %d classes.", d.loaded-1, classes-1)
}

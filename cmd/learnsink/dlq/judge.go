// Package dlq is the desk for dead letters: what the verbs of `learnsink dlq`
// do, and what a console would call.
package dlq

import (
	"cmp"
	"context"
	"slices"

	"learnsink/handlers"
	"learnsink/store"
)

// Outcome is what would become of a dead letter, were it replayed now.
type Outcome string

// The outcomes.
const (
	Accepted Outcome = "accepted"
	Rejected Outcome = "rejected"
	// Superseded: the row is older than what is stored under its key.
	Superseded Outcome = "superseded"
	// Ignored: the settings of now pass over it (tombstones: ignore).
	Ignored Outcome = "ignored"
	// Gone: it is of a person who was erased.
	Gone Outcome = "gone"
	// Unconfigured: its source topic is no source of the configuration, so
	// nothing can be said by its rules.
	Unconfigured Outcome = "unconfigured"
	// NotOpen: it is in a state in which nothing is sent again.
	NotOpen Outcome = "not open"
)

// Outcomes returns every outcome, in the order in which they are shown.
func Outcomes() []Outcome {
	return []Outcome{Accepted, Rejected, Superseded, Ignored, Gone, Unconfigured, NotOpen}
}

// Effect is what an accepted row would do to what is stored.
type Effect string

// The effects.
const (
	Inserts Effect = "insert"
	Changes Effect = "change"
	Deletes Effect = "delete"
	Nothing Effect = "nothing" // the columns are as they were
)

// Effects returns every effect, in the order in which they are shown.
func Effects() []Effect { return []Effect{Inserts, Changes, Deletes, Nothing} }

// Verdict is what would become of one dead letter.
type Verdict struct {
	Letter  *store.Letter
	Source  string          // the source topic whose rules and outputs are meant
	Action  handlers.Action // of its source; "" where that is not configured
	Outcome Outcome
	Errors  []handlers.Error // Rejected: all that is wrong now
	Effect  Effect           // Accepted, and Superseded: what it would do, were it not older
	// Stored is what it would meet under its key: what is there now, or what
	// those before it in the selection would leave. Known is false: nothing.
	Stored handlers.Stored
	// Diff are the columns that differ, of Accepted and Superseded.
	Diff []Difference
}

// Difference is a column that a row would change. nil: nothing is there.
type Difference struct {
	Column string  `json:"column"`
	Stored *string `json:"stored"`
	Row    *string `json:"row"`
}

// Catalogue answers what rows refer to, as it is at this moment.
type Catalogue interface {
	FactsNow(ctx context.Context, refs *handlers.References) (*handlers.Facts, error)
}

// Tables tell what is stored under the keys of accepted decisions.
type Tables interface {
	Under(ctx context.Context, decisions []handlers.Decision) (*store.Under, error)
}

// Judge judges dead letters as a replay of them would: by the catalogue, the
// settings and the tables of now, with the original's event time, in the order
// by event time, and those of one key in the order in which they are given.
// It writes nothing, and promises nothing: what is decided under the row's
// lock counts.
//
// It remembers what each key would come to, and no rows. It serves one
// goroutine, and one selection.
type Judge struct {
	sources     map[string]*handlers.Source
	replayTopic string
	catalogue   Catalogue
	tables      Tables
	states      []string
	overwrite   bool

	keys          map[handlers.TrackingKey]left
	interventions map[string]left
	rooms         map[string]handlers.Opt[handlers.Room]
}

// left is what is under a key once those before have been replayed.
type left struct {
	handlers.Stored
	row *content // nil: there is no row
}

// NewJudge returns a judge by sources, of dead letters in states. replayTopic
// is where replayed rows come by: a dead letter of that topic itself says in
// its headers what it was.
func NewJudge(sources []*handlers.Source, replayTopic string, catalogue Catalogue, tables Tables, states ...string) *Judge {
	j := &Judge{
		sources: map[string]*handlers.Source{}, replayTopic: replayTopic, catalogue: catalogue, tables: tables, states: states,
		keys: map[handlers.TrackingKey]left{}, interventions: map[string]left{}, rooms: map[string]handlers.Opt[handlers.Room]{},
	}
	for _, s := range sources {
		j.sources[s.Topic] = s
	}
	return j
}

// Overwriting has the judge go on as if rows that are older than what is
// stored were to be written over it, as --overwrite-newer does. They are still
// Superseded: each is for a person to see.
func (j *Judge) Overwriting() { j.overwrite = true }

// Page judges a page of dead letters, and returns a verdict for each. The
// letters must stay as they are for as long as the verdicts are in use.
func (j *Judge) Page(ctx context.Context, letters []store.Letter) ([]Verdict, error) {
	verdicts, cases := make([]Verdict, len(letters)), []*row{}
	for i := range letters {
		r := j.rowOf(&letters[i], &verdicts[i])
		if len(cases) > 0 && (r == nil || cases[0].source != r.source) {
			if err := j.run(ctx, cases); err != nil {
				return nil, err
			}
			cases = cases[:0]
		}
		if r != nil {
			cases = append(cases, r)
		}
	}
	return verdicts, j.run(ctx, cases)
}

// row is a dead letter that is judged, as it would stand on the replay topic.
type row struct {
	source  *handlers.Source
	verdict *Verdict
	replay  handlers.Replay
}

// rowOf returns what there is to judge of a letter; nil, with the verdict, where there is nothing.
func (j *Judge) rowOf(l *store.Letter, v *Verdict) *row {
	r := &row{verdict: v, replay: handlers.Replay{SourceTopic: l.Record.Topic,
		Origin: handlers.Some(handlers.Origin{Partition: l.Record.Partition, Incarnation: l.Record.Incarnation, Offset: l.Record.Offset})}}
	if l.Record.Topic == j.replayTopic {
		r.replay = handlers.ReplayOf(&l.Record)
	}
	r.replay.Of, r.replay.Attempt, r.replay.EventTime, r.replay.Overwrite = l.ID, l.Attempt+1, l.EventAt, ""
	r.source = j.sources[r.replay.SourceTopic]
	v.Letter, v.Source = l, cmp.Or(r.replay.SourceTopic, l.Record.Topic)
	if r.source != nil {
		v.Action = r.source.Rules.Action()
	}
	switch {
	case !slices.Contains(j.states, l.State):
		v.Outcome = NotOpen
	case r.source == nil:
		v.Outcome = Unconfigured
	default:
		return r
	}
	return nil
}

// run judges rows of one source.
func (j *Judge) run(ctx context.Context, cases []*row) error {
	if len(cases) == 0 {
		return nil
	}
	rules := cases[0].source.Rules
	decoder, refs := rules.Decoder(), handlers.NewReferences()
	rows := make([]handlers.Row, len(cases))
	for i, c := range cases {
		decoder.Decode(&rows[i], &c.verdict.Letter.Record, c.replay.EventTime)
		rows[i].Replays(&c.replay)
		rows[i].Refer(refs)
	}
	facts, err := j.catalogue.FactsNow(ctx, refs)
	if err != nil {
		return err
	}
	decisions := rules.DecideAll(rows, facts)
	under, err := j.tables.Under(ctx, decisions)
	if err != nil {
		return err
	}
	for i, c := range cases {
		j.settle(c.verdict, &decisions[i], under)
	}
	return nil
}

// settle settles a decision against what is under its key, and notes what it leaves.
func (j *Judge) settle(v *Verdict, d *handlers.Decision, under *store.Under) {
	switch {
	case d.Verdict == handlers.Ignored:
		v.Outcome = Ignored
	case d.Verdict == handlers.Gone:
		v.Outcome = Gone
	case d.Verdict == handlers.Rejected:
		v.Outcome, v.Errors = Rejected, d.Errors
	case d.Tracking != nil:
		j.settleTracking(v, d, under)
	default:
		j.settleIntervention(v, d, under)
	}
}

func (j *Judge) settleTracking(v *Verdict, d *handlers.Decision, under *store.Under) {
	key := d.Tracking.TrackingKey
	was, ok := j.keys[key]
	if !ok {
		was = trackingLeft(under, key)
	}
	after, written := j.settled(v, d, was)
	var row *content
	if !d.Tracking.Delete {
		row = trackingContent(d.Tracking)
	}
	v.Effect, v.Diff = compare(was.row, row, d.Tracking.Delete)
	if written {
		j.keys[key] = left{after, row}
	}
}

func (j *Judge) settleIntervention(v *Verdict, d *handlers.Decision, under *store.Under) {
	key, roomKey := d.Intervention.GUIDFolded, d.Intervention.RoomGUIDFolded
	was, ok := j.interventions[key]
	if !ok {
		was = interventionLeft(under, key)
	}
	room, ok := j.rooms[roomKey]
	if !ok {
		room.V, room.OK = under.Rooms[roomKey]
	}
	after, written := j.settled(v, d, was)
	row, roomAfter := interventionContent(d.Intervention), d.SettleRoom(room)
	v.Effect, v.Diff = compare(was.row, row, false)
	if diff := compareRooms(room, roomAfter); len(diff) > 0 {
		v.Diff = append(v.Diff, diff...)
		if v.Effect == Nothing {
			v.Effect = Changes
		}
	}
	if written {
		j.interventions[key], j.rooms[roomKey] = left{after, row}, handlers.Some(roomAfter)
	}
}

// settled settles d against what would be stored then, and says whether it is
// written. d is accepted afterwards, whatever the verdict: what the row would
// do is for people to see.
func (j *Judge) settled(v *Verdict, d *handlers.Decision, was left) (after handlers.Stored, written bool) {
	v.Stored, v.Outcome = was.Stored, Accepted
	settled := *d
	after = settled.Settle(true, was.Stored)
	if settled.Verdict == handlers.Accepted {
		*d = settled
		return after, true
	}
	v.Outcome = Superseded
	after = d.Settle(false, was.Stored)
	return after, j.overwrite
}

// compare says what a row does to what is under its key.
func compare(was, row *content, deletes bool) (Effect, []Difference) {
	diff := was.diff(row)
	switch {
	case len(diff) == 0:
		return Nothing, nil
	case deletes:
		return Deletes, diff
	case was == nil:
		return Inserts, diff
	}
	return Changes, diff
}

// Seen names what a verdict has found under the row's key, for the row to win
// over exactly that.
func (v *Verdict) Seen() string { return v.Stored.Seen() }

// Groups returns what is wrong with the row, each thing once, as other rows
// have it too.
func (v *Verdict) Groups() (groups []store.Fault) {
	for i := range v.Errors {
		if g := store.FaultOf(v.Action, &v.Errors[i]); !slices.Contains(groups, g) {
			groups = append(groups, g)
		}
	}
	return groups
}

// Package rowgen generates tracking and intervention rows, good and bad of
// every kind, each with what must become of it. The same seed tells the same
// story. It knows the catalogue it speaks of (WriteCatalog) and, apart from
// the rules, what the tables must hold afterwards (World).
//
// A row is expected by construction: it begins as typed values, is spelled in
// one of the ways the rules allow, and is then broken in one known way.
//
// Records of one tracking key have one Kafka key, so that their order is that
// of one partition; those without a Kafka key are about learners of their own
// and belong on partition 0.
package rowgen

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"learnsink/handlers"
)

// Record is a generated record and what must become of it.
type Record struct {
	Action    handlers.Action
	Kind      string // which kind of row it is, as listed by Kinds
	Key       []byte // nil: null
	Value     []byte // nil: null
	Headers   []handlers.Header
	EventTime time.Time // the record's timestamp, to the millisecond

	Errors       []string      // the messages of its rejection; none: accepted
	Tracking     *Tracking     // accepted: what the row says
	Intervention *Intervention // accepted: what the row says
}

// TrackingKey is what a tracking row is about, as the catalogue spells it.
type TrackingKey struct{ Login, LovGUID, SessionGUID string }

// Tracking is what an accepted tracking row says. nil and a zero time are absent.
type Tracking struct {
	TrackingKey
	Status             string // the full word; notAttempted deletes
	Progression, Score *float64
	ScoreMax           int32
	TimeSpent          int64 // seconds
	First, Last        time.Time
	Completion         time.Time // absent for completed and passed: to be filled in
}

// Intervention is what an accepted intervention row says.
type Intervention struct {
	GUID, SessionGUID string
	Date              time.Time
	Duration          int32
	RoomGUID          string
	RoomLabel         string
	RoomCapacity      *int32
	Teacher           string
	Status            string // active or cancelled
}

// Config is what a generator is made of.
type Config struct {
	Seed uint64
	// Bad is the share of rows that are rejected, once every kind has been
	// there once.
	Bad float64
	// Giant: also records beyond a megabyte. Their topic must take them.
	Giant bool
	// Plain: do not begin with one record of every kind.
	Plain bool
	// Action: only rows of this action; "" is both.
	Action handlers.Action
}

// Generator tells one story. It is endless.
type Generator struct {
	cfg       Config
	r         *rand.Rand
	now       time.Time
	good, bad []kind // shares; good ones by weight
	pending   []kind // the first round: every kind once
	repeat    map[handlers.Action]Record
}

// New starts a story.
func New(cfg Config) *Generator {
	g := &Generator{cfg: cfg, r: rand.New(rand.NewPCG(cfg.Seed, 0x1ea5)),
		now: time.Date(2024, 1, 1, 8, 0, 0, 0, time.UTC), repeat: map[handlers.Action]Record{}}
	for _, k := range kinds() {
		if cfg.Action != "" && k.action != cfg.Action || k.giant && !cfg.Giant {
			continue
		}
		if !cfg.Plain {
			g.pending = append(g.pending, k)
		}
		if k.weight == 0 {
			g.bad = append(g.bad, k)
		}
		for range k.weight {
			g.good = append(g.good, k)
		}
	}
	g.r.Shuffle(len(g.pending), func(i, j int) { g.pending[i], g.pending[j] = g.pending[j], g.pending[i] })
	return g
}

// Kinds lists the kinds of rows that a story of this configuration holds.
func Kinds(cfg Config) []string {
	cfg.Plain = false
	var names []string
	for _, k := range New(cfg).pending {
		names = append(names, string(k.action)+": "+k.name)
	}
	return names
}

// Next returns the next record of the story.
func (g *Generator) Next() Record {
	k := g.good[g.r.IntN(len(g.good))]
	if len(g.pending) > 0 {
		k, g.pending = g.pending[0], g.pending[1:]
	} else if g.r.Float64() < g.cfg.Bad {
		k = g.bad[g.r.IntN(len(g.bad))]
	}
	// Every event has a time of its own: where order is by event time there is no draw.
	g.now = g.now.Add(time.Duration(1+g.r.IntN(5000)) * time.Millisecond)

	rec := Record{Action: k.action, Kind: string(k.action) + ": " + k.name, EventTime: g.now}
	var cells row
	if k.action == handlers.Tracking {
		cells = g.tracking(&rec)
	} else {
		cells = g.intervention(&rec)
	}
	k.make(g, &rec, &cells)
	if cells != nil {
		rec.Value = cells.json()
	}
	if rec.Errors != nil {
		rec.Tracking, rec.Intervention = nil, nil
	} else {
		g.repeat[k.action] = rec
	}
	return rec
}

// tracking makes a good row: typed values, and one of their spellings.
func (g *Generator) tracking(rec *Record) row {
	learner, object, session := g.r.IntN(learners), g.r.IntN(objects), g.r.IntN(sessions)
	if g.r.IntN(3) == 0 { // the hot ones
		learner, object, session = g.r.IntN(2), g.r.IntN(2), 0
	}
	t := &Tracking{TrackingKey: TrackingKey{login(learner), objectGUID(object), sessionGUID(session)}, ScoreMax: 100,
		Status: [...]string{"incomplete", "completed", "passed", "failed", "browsed"}[g.r.IntN(5)]}
	rec.Key, rec.Tracking = []byte(strings.ToLower(t.Login)), t

	c := row{}
	switch g.r.IntN(4) {
	case 0:
		c.set("candidateLogin", g.spell(t.Login))
	case 1:
		c.set("candidateRefNumber", g.number(strconv.Itoa(refNumber(learner))))
	case 2:
		c.set("candidateEmail", g.spell(email(learner)))
	case 3:
		c.set("candidateLogin", g.spell(t.Login))
		c.set("candidateEmail", g.spell(email(learner)))
	}
	switch g.r.IntN(3) {
	case 0:
		c.set("lovCode", quote(objectCode(object)))
	case 1:
		c.set("lovGuid", g.spell(t.LovGUID))
	case 2:
		c.set("lovCode", quote(objectCode(object)))
		c.set("lovGuid", g.spell(t.LovGUID))
	}
	switch g.r.IntN(4) {
	case 0:
		c.set("sessionGuid", g.spell(t.SessionGUID))
	case 1:
		c.set("sessionId", g.number(strconv.Itoa(sessionID(session))))
	case 2:
		c.set("sessionTitle", quote(sessionTitle(session)))
		c.set("trainingPathCode", quote(pathCode(session%trainings)))
	case 3:
		c.set("sessionTitle", quote(sessionTitle(session)))
		c.set("trainingId", g.number(strconv.Itoa(trainingID(session%trainings))))
	}
	if t.Status != "incomplete" || g.r.IntN(2) == 0 { // absent is incomplete
		c.set("trackingStatus", quote(t.Status))
	}
	if g.r.IntN(2) == 0 {
		c.set("progression", g.number(g.float(&t.Progression, 101)))
	}
	if g.r.IntN(2) == 0 {
		c.set("score", g.number(g.float(&t.Score, 1000)))
	}
	if g.r.IntN(2) == 0 {
		t.ScoreMax = int32(1 + g.r.IntN(1000))
		c.set("scoreMax", g.number(strconv.Itoa(int(t.ScoreMax))))
	}
	if g.r.IntN(2) == 0 {
		t.TimeSpent = int64(g.r.IntN(100_000))
		c.set("timeSpent", g.number(strconv.FormatInt(t.TimeSpent, 10)))
	}
	if g.r.IntN(2) == 0 {
		c.set("firstAccessDate", g.date(&t.First))
	}
	if g.r.IntN(2) == 0 {
		c.set("lastAccessDate", g.date(&t.Last))
	}
	if (t.Status == "completed" || t.Status == "passed") && g.r.IntN(2) == 0 {
		c.set("firstCompletionDate", g.date(&t.Completion))
	}
	g.r.Shuffle(len(c), func(i, j int) { c[i], c[j] = c[j], c[i] })
	return c
}

// intervention makes a good row. A room of many interventions always has its
// capacity given: rows of several partitions must leave one thing in any order.
func (g *Generator) intervention(rec *Record) row {
	n, session := g.r.IntN(200), g.r.IntN(sessions)
	v := &Intervention{GUID: fmt.Sprintf("iv-%d", n), SessionGUID: sessionGUID(session), Duration: int32(1 + g.r.IntN(40)),
		RoomGUID: fmt.Sprintf("room-of-%d", n), RoomLabel: fmt.Sprintf("Saal \u00e4 %d", g.r.IntN(1000)), Teacher: teacher(g.r.IntN(teachers)), Status: "active"}
	rec.Key, rec.Intervention = []byte(v.GUID), v

	c := row{}
	c.set("interventionGuid", g.spell(v.GUID))
	if g.r.IntN(2) == 0 {
		c.set("trainingGuid", g.spell(trainingGUID(session%trainings)))
	} else {
		c.set("trainingPathCode", quote(pathCode(session%trainings)))
	}
	if g.r.IntN(2) == 0 {
		c.set("sessionGuid", g.spell(v.SessionGUID))
	} else {
		c.set("sessionTitle", quote(sessionTitle(session)))
	}
	v.Date = time.Date(2017+g.r.IntN(8), time.Month(1+g.r.IntN(12)), 1+g.r.IntN(28), g.r.IntN(24), g.r.IntN(60), g.r.IntN(60), g.r.IntN(1000)*1e6, time.UTC)
	c.set("interventionDate", quote([...]string{
		v.Date.Format("2006-01-02T15:04:05.000"), v.Date.Format("20060102T150405,000Z"),
		v.Date.In(time.FixedZone("", 9000)).Format("2006-01-02T15:04:05.000-07:00"), v.Date.Format("2006-01-02T15:04:05.000-07"),
	}[g.r.IntN(4)]))
	c.set("interventionDuration", g.number(strconv.Itoa(int(v.Duration))))
	shared := g.r.IntN(2) == 0
	if shared {
		v.RoomGUID = roomGUID(g.r.IntN(rooms))
	}
	c.set("roomGuid", g.spell(v.RoomGUID))
	c.set("roomLabel", quote(v.RoomLabel))
	if shared || g.r.IntN(2) == 0 {
		capacity := int32(g.r.IntN(100))
		v.RoomCapacity = &capacity
		c.set("roomCapacity", g.number(strconv.Itoa(int(capacity))))
	}
	c.set("teacherLogin", g.spell(v.Teacher))
	if g.r.IntN(4) == 0 {
		v.Status = "cancelled"
	}
	c.set("interventionStatus", quote(map[string]string{"active": "A", "cancelled": "C"}[v.Status]))
	return c
}

// row is a JSON object in the order of its keys.
type row []struct{ name, value string }

func (c *row) set(name, value string) {
	for i := range *c {
		if (*c)[i].name == name {
			(*c)[i].value = value
			return
		}
	}
	*c = append(*c, struct{ name, value string }{name, value})
}

func (c *row) drop(names ...string) {
	kept := row{}
	for _, cell := range *c {
		if !strings.Contains(" "+strings.Join(names, " ")+" ", " "+cell.name+" ") {
			kept = append(kept, cell)
		}
	}
	*c = kept
}

func (c row) json() []byte {
	v := []byte{'{'}
	for i, cell := range c {
		if i > 0 {
			v = append(v, ',')
		}
		v = append(append(v, quote(cell.name)...), ':')
		v = append(v, cell.value...)
	}
	return append(v, '}')
}

// quote returns the text as a JSON string that says it as it is.
func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r < ' ':
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// spell returns a text that compares without regard to case in one of its spellings.
func (g *Generator) spell(s string) string {
	switch g.r.IntN(3) {
	case 0:
		s = strings.ToUpper(s)
	case 1:
		s = " \t" + s + "\u00a0"
	}
	return quote(s)
}

// number returns a number as itself or as text.
func (g *Generator) number(literal string) string {
	if g.r.IntN(2) == 0 {
		return literal
	}
	return quote(literal)
}

func (g *Generator) float(to **float64, below int) string {
	f := float64(g.r.IntN(below-1)) + float64(g.r.IntN(4))/4
	*to = &f
	return [...]string{strconv.FormatFloat(f, 'f', -1, 64), strconv.FormatFloat(f, 'f', 3, 64), strconv.FormatFloat(f, 'E', -1, 64)}[g.r.IntN(3)]
}

func (g *Generator) date(to *time.Time) string {
	*to = time.Date(2019+g.r.IntN(5), time.Month(1+g.r.IntN(12)), 1+g.r.IntN(28), 0, 0, 0, 0, time.UTC)
	if g.r.IntN(2) == 0 {
		return quote(to.Format(time.DateOnly))
	}
	*to = to.Add(time.Duration(g.r.IntN(86400)) * time.Second)
	return quote(to.Format(time.DateTime))
}

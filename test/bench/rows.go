package main

import (
	"fmt"
	"iter"
	"math/rand/v2"
	"strconv"
	"time"
)

// set is a set of rows, and with it the topic that holds them.
type set struct {
	world
	rows       int
	partitions int
	bad        float64
	seed       uint64
	// values is which values the rows have: with another number the same keys
	// come in the same order, with other values.
	values int
}

// topic is the one that holds the rows in learnsink's form.
func (s set) topic() string { return "bench.tracking." + s.suffix() }

// plainTopic is the one that holds the good rows alone, in the form of those
// who resolve nothing.
func (s set) plainTopic() string { return "bench.plain." + s.suffix() }

func (s set) suffix() string {
	return fmt.Sprintf("%d.%d.%d.%g.%d.%d", s.learners, s.rows, s.partitions, s.bad*1000, s.seed, s.values)
}

// key is of what a row speaks; both by number.
type key struct{ registration, object int }

// row is a row with all that a contender needs of it.
type row struct {
	key
	number      int
	bySession   bool // names its session by id
	status      int
	progression float64
	score       float64
	scored      bool
	timeSpent   int64
	first, last time.Time
	completion  time.Time // zero: not given
	fault       int       // 0: a good one
}

// learner is who it speaks of, by number.
func (r *row) learner() int { return r.registration / perPerson }

// at is the event's time.
func (r *row) at() time.Time { return firstEvent.Add(time.Duration(r.number) * time.Millisecond) }

var firstEvent = time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)

// statuses are the words of trackingStatus, but for notAttempted: the bare
// database only upserts.
var statuses = []string{"incomplete", "completed", "passed", "failed", "browsed"}

const (
	// faults is how many ways to be bad there are, from 1 on.
	faults = 8
	// Of the last so many rows' keys one comes again, so often.
	lately  = 5_000
	repeats = 0.2
)

// all returns the rows, one after another in the same place. Keys, faults and
// values are drawn each from a source of its own.
func (s set) all() iter.Seq[*row] {
	return func(yield func(*row) bool) {
		keys := rand.New(rand.NewPCG(s.seed, 1))
		bad := rand.New(rand.NewPCG(s.seed, 2))
		values := rand.New(rand.NewPCG(s.seed, 3+uint64(s.values)))
		var recent [lately]key
		var r row
		for i := range s.rows {
			r = row{number: i}
			if i > 0 && keys.Float64() < repeats {
				r.key = recent[keys.IntN(min(i, lately))]
			} else {
				r.registration = keys.IntN(s.registrations())
				r.object = s.object(r.registration, keys.IntN(s.perRegistration()))
			}
			recent[i%lately] = r.key
			r.bySession = keys.IntN(2) == 0
			if fault := 1 + bad.IntN(faults); bad.Float64() < s.bad {
				r.fault = fault
			}
			r.draw(values)
			if !yield(&r) {
				return
			}
		}
	}
}

// draw draws the values.
func (r *row) draw(d *rand.Rand) {
	r.status = d.IntN(len(statuses))
	r.progression = float64(d.IntN(1001)) / 10
	r.score, r.scored = float64(d.IntN(1001))/10, d.IntN(4) > 0
	r.timeSpent = int64(d.IntN(36_000))
	r.first = firstEvent.Add(-time.Duration(1+d.IntN(90*86_400)) * time.Second)
	r.last = r.first.Add(time.Duration(d.IntN(10*86_400)) * time.Second)
	if done := statuses[r.status] == "completed" || statuses[r.status] == "passed"; done && d.IntN(10) > 0 {
		r.completion = r.last.Add(-time.Duration(d.IntN(3600)) * time.Second)
	}
}

// appendKey appends the record's key: the learner, as `send` has it.
func (r *row) appendKey(b []byte) []byte {
	b = append(b, login(r.learner())...)
	if r.fault == 1 {
		b = append(b, ".nobody"...)
	}
	return b
}

const vendorTime = "2006-01-02 15:04:05"

// append appends the row as a sender of learnsink's writes it.
func (r *row) append(b []byte, w world) []byte {
	session := w.session(r.registration)
	object := objectGUID(r.object)
	first := r.first.Format(vendorTime)
	progression := r.progression
	switch r.fault { // 1, nobody: see appendKey
	case 2:
		object = guid("nothing", r.object)
	case 3:
		session = w.sessions() // one more than there are
	case 4:
		first = "2026-02-30 10:00:00"
	case 5:
		progression = 150
	case 6: // two at once
		first, progression = "yesterday", -1
	case 7:
		b = append(b, `{"Learner":"unknown column",`...)
	}
	if r.fault != 7 {
		b = append(b, '{')
	}
	b = append(b, `"candidateLogin":"`...)
	b = r.appendKey(b)
	b = append(b, `","lovGuid":"`...)
	b = append(b, object...)
	if r.bySession {
		b = append(b, `","sessionId":`...)
		b = strconv.AppendInt(b, int64(firstSession+session), 10)
	} else {
		b = append(b, `","sessionGuid":"`...)
		b = append(b, sessionGUID(session)...)
		b = append(b, '"')
	}
	b = append(b, `,"trainingPathCode":"`...)
	b = append(b, pathCode(w.training(session))...)
	b = append(b, `","trackingStatus":"`...)
	b = append(b, statuses[r.status]...)
	b = append(b, `","firstAccessDate":"`...)
	b = append(b, first...)
	b = append(b, `","lastAccessDate":"`...)
	b = r.last.AppendFormat(b, vendorTime)
	if !r.completion.IsZero() {
		b = append(b, `","firstCompletionDate":"`...)
		b = r.completion.AppendFormat(b, vendorTime)
	}
	b = append(b, `","progression":`...)
	b = strconv.AppendFloat(b, progression, 'f', -1, 64)
	b = append(b, `,"timeSpent":`...)
	b = strconv.AppendInt(b, r.timeSpent, 10)
	if r.scored {
		b = append(b, `,"score":`...)
		b = strconv.AppendFloat(b, r.score, 'f', -1, 64)
	}
	b = append(b, `,"scoreMax":100`...)
	if r.fault == 8 {
		return b // cut off
	}
	return append(b, '}')
}

// appendPlain appends the row in the form of those who resolve nothing: names
// as the columns of their table, dates as RFC 3339, the session by its guid.
func (r *row) appendPlain(b []byte, w world) []byte {
	session := w.session(r.registration)
	b = append(b, `{"candidatelogin":"`...)
	b = append(b, login(r.learner())...)
	b = append(b, `","lovguid":"`...)
	b = append(b, objectGUID(r.object)...)
	b = append(b, `","sessionguid":"`...)
	b = append(b, sessionGUID(session)...)
	b = append(b, `","trainingpathcode":"`...)
	b = append(b, pathCode(w.training(session))...)
	b = append(b, `","trackingstatus":"`...)
	b = append(b, statuses[r.status]...)
	b = append(b, `","firstaccessdate":"`...)
	b = r.first.AppendFormat(b, time.RFC3339)
	b = append(b, `","lastaccessdate":"`...)
	b = r.last.AppendFormat(b, time.RFC3339)
	if !r.completion.IsZero() {
		b = append(b, `","firstcompletiondate":"`...)
		b = r.completion.AppendFormat(b, time.RFC3339)
	}
	b = append(b, `","progression":`...)
	b = strconv.AppendFloat(b, r.progression, 'f', -1, 64)
	b = append(b, `,"timespent":`...)
	b = strconv.AppendInt(b, r.timeSpent, 10)
	if r.scored {
		b = append(b, `,"score":`...)
		b = strconv.AppendFloat(b, r.score, 'f', -1, 64)
	}
	return append(b, `,"scoremax":100}`...)
}

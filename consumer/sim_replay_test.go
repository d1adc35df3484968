package consumer

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"learnsink/handlers"
)

// Rows that are sent again: somebody at a desk who sends dead letters again
// while things go wrong, what the database makes of their outcomes, and a model
// of what is stored that knows nothing of headers.

const (
	simReplay = "again"
	// replayPart is the one partition of the replay topic, where the others
	// are numbered by the source's.
	replayPart = -1
)

// tp is a partition by its number.
func (w *simWorld) tp(n int) handlers.TopicPartition {
	if n == replayPart {
		return handlers.TopicPartition{Topic: simReplay}
	}
	return handlers.TopicPartition{Topic: simSource, Partition: n}
}

// numberOf is the number of a partition.
func numberOf(tp handlers.TopicPartition) int {
	if tp.Topic == simReplay {
		return replayPart
	}
	return tp.Partition
}

// parts are the numbers of every partition that is read.
func (w *simWorld) parts() (all []int) {
	for n := range w.partitions {
		all = append(all, n)
	}
	if w.replays != nil {
		all = append(all, replayPart)
	}
	return all
}

// simPlace is where a row stands in the order.
type simPlace struct {
	at        time.Time
	topic     string
	partition int
	offset    int64
}

func (p simPlace) before(q simPlace) bool {
	switch {
	case !p.at.Equal(q.at):
		return p.at.Before(q.at)
	case p.topic != q.topic:
		return p.topic < q.topic
	case p.partition != q.partition:
		return p.partition < q.partition
	}
	return p.offset < q.offset
}

// seen is Stored.Seen, written apart from it.
func (p simPlace) seen() string {
	return fmt.Sprintf("%s|%s|%d|%d", p.at.UTC().Format(time.RFC3339Nano), p.topic, p.partition, p.offset)
}

// simSent is what a record of the replay topic truly is.
type simSent struct {
	of      string // the dead letter; "": of no source
	attempt int
	place   simPlace
	learner int
	bad     bool      // it is rejected once more
	saw     *simPlace // what it is to win over

	// The kinds of outcome that it ever had: after the database went back it
	// may meet other rows.
	had map[handlers.Verdict]bool
}

// simLine is a line of the table rejection, as far as replays change it.
type simLine struct {
	tp      handlers.TopicPartition
	offset  int64
	state   string
	attempt int
	by      string // the outcome that settled it
	said    []string
}

func (l simLine) open() bool {
	return l.state == "open" || l.state == "replaying" || l.state == "quarantined"
}

// settled is the line after an outcome, by the rules of store/replay.go.
func (l simLine) settled(outcome, verdict string) simLine {
	known := slices.Contains(l.said, outcome) || l.by == outcome
	switch {
	case l.by == outcome:
	case verdict == "accepted" && l.state != "resolved":
	case verdict != "accepted" && l.open() && !(known && l.said[len(l.said)-1] != outcome):
	default:
		return l
	}
	if !known {
		l.attempt++
	}
	l.by = outcome
	switch {
	case verdict == "accepted":
		l.state = "resolved"
		return l
	case verdict == "superseded":
		l.state = "superseded"
	case l.attempt >= 5 || l.state == "quarantined":
		l.state, l.by = "quarantined", ""
	default:
		l.state, l.by = "open", ""
	}
	if !known {
		l.said = append(slices.Clip(l.said), outcome)
	}
	return l
}

// verdictOf is what became of a replayed row, in a word.
func verdictOf(d *handlers.Decision) string {
	switch {
	case d.Verdict == handlers.Accepted:
		return "accepted"
	case d.Superseded():
		return "superseded"
	}
	return "rejected"
}

// settleLines does what the decisions of a batch do to the table rejection, in
// its transaction, and compares them with what is true.
func (d *simDatabase) settleLines(tp handlers.TopicPartition, decisions []handlers.Decision) {
	w := d.world
	for i := range decisions {
		decision := &decisions[i]
		offset, verdict := decision.Record.Offset, verdictOf(decision)
		if tp.Topic != simReplay {
			switch truth := w.truths[tp].at(offset); decision.Verdict {
			case handlers.Accepted:
				d.model[truth.learner] = simPlace{truth.at, tp.Topic, tp.Partition, offset}
				d.keys[truth.learner] = decision.Tracking.TrackingKey
			case handlers.Waits:
				d.lines[decision.ID()] = simLine{tp: tp, offset: offset, state: "waiting", attempt: 1}
			default:
				d.lines[decision.ID()] = simLine{tp: tp, offset: offset, state: "open", attempt: 1}
			}
			continue
		}
		sent := w.truths[tp].at(offset).sent
		says := decision.Replay
		if says == nil || says.Of != sent.of || sent.of != "" && says.Attempt != sent.attempt {
			w.violated("offset %d of the replay topic is taken for %+v, and is %+v", offset, says, *sent)
			return
		}
		if want := d.modelled(sent); verdict != want {
			w.violated("offset %d of the replay topic (%s, over %s) is %s, not %s", offset, sent.place.seen(), d.model[sent.learner].seen(), verdict, want)
		}
		sent.had[decision.Verdict] = true
		w.came("replay: " + verdict)
		if verdict == "accepted" {
			if sent.saw != nil && sent.place.before(d.model[sent.learner]) {
				w.came("replay: overwrites what was seen")
			}
			d.model[sent.learner] = sent.place
			d.keys[sent.learner] = decision.Tracking.TrackingKey
		}
		if line, ok := d.lines[sent.of]; ok {
			after := line.settled(decision.ID(), verdict)
			if line.state == "resolved" && after.by != line.by {
				w.violated("%s is resolved by %s, and once more by %s", sent.of, line.by, after.by)
			}
			d.lines[sent.of] = after
			w.came("replay: a dead letter is " + after.state)
		}
	}
	for learner, place := range d.model {
		if s := d.stored[d.keys[learner]]; (simPlace{s.EventTime, s.SourceTopic, s.SourcePartition, s.SourceOffset}).seen() != place.seen() {
			w.violated("of learner %d %s is stored, and not %s", learner, s.Seen(), place.seen())
		}
	}
}

// modelled is what has to become of a row that is sent again.
func (d *simDatabase) modelled(sent *simSent) string {
	is, stored := d.model[sent.learner]
	switch {
	case sent.bad:
		return "rejected"
	case stored && sent.place.before(is) && (sent.saw == nil || sent.saw.seen() != is.seen()):
		return "superseded"
	}
	return "accepted"
}

// simDesk sends dead letters again.
type simDesk struct {
	world *simWorld
	rand  *rand.Rand
	log   *simLog
	truth *simTruth
}

// run sends some of them for a while, not always when it makes sense.
func (s *simDesk) run(within time.Duration) {
	w := s.world
	for time.Since(w.began) < within && pause(w.chaos, time.Duration(s.rand.Int64N(int64(within/10)))) {
		w.do("somebody sends rows again", func() {
			ids := s.lines(func(l simLine) bool { return l.state == "open" || l.state != "waiting" && s.rand.IntN(10) == 0 })
			for range 1 + s.rand.IntN(4) {
				switch {
				case s.rand.IntN(20) == 0:
					s.stray()
				case len(ids) > 0:
					s.send(ids[s.rand.IntN(len(ids))], s.rand.IntN(3) == 0)
				}
			}
		})
		if s.rand.IntN(8) == 0 {
			w.alter(s.truth.tp, "pause", func(p *simPartition) { w.database.hold(p) })
		}
	}
}

// finish sends every row that is still open, and this time they are good.
func (s *simDesk) finish() {
	s.world.do("what is open is sent again", func() {
		for _, id := range s.lines(func(l simLine) bool { return l.state == "open" }) {
			s.send(id, false)
		}
	})
}

// lines are the ids of some lines, in order.
func (s *simDesk) lines(which func(simLine) bool) (ids []string) {
	for id, l := range s.world.database.lines {
		if which(l) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// send puts a dead letter onto the replay topic, mended or not.
func (s *simDesk) send(id string, bad bool) {
	d := s.world.database
	line := d.lines[id]
	original := s.world.truths[line.tp].at(line.offset)
	sent := &simSent{of: id, attempt: line.attempt + 1, learner: original.learner, bad: bad, had: map[handlers.Verdict]bool{},
		place: simPlace{original.at, line.tp.Topic, line.tp.Partition, line.offset}}
	says := handlers.Replay{Of: id, Attempt: sent.attempt, EventTime: original.at, SourceTopic: line.tp.Topic,
		Origin: handlers.Some(handlers.Origin{Partition: line.tp.Partition, Incarnation: 1, Offset: line.offset}), Job: 1, Item: s.log.end + 1}
	if is, ok := d.model[original.learner]; ok && s.rand.IntN(4) == 0 {
		sent.saw, says.Overwrite = &is, is.seen()
	}
	m := Message{Key: []byte{'k', byte('0' + s.rand.IntN(6))}, Value: goodRow(original.learner), Headers: says.Headers()}
	switch {
	case bad:
		m.Value = badRow()
	case s.rand.IntN(4) == 0:
		m.Value = deletingRow(original.learner)
	}
	if line.state == "open" {
		line.state = "replaying"
		d.lines[id] = line
	}
	s.write(m, sent)
}

// stray puts a record there that names no source.
func (s *simDesk) stray() {
	s.world.came("replay: of no source")
	s.write(Message{Value: goodRow(0)}, &simSent{attempt: 1, learner: -1, bad: true, had: map[handlers.Verdict]bool{}})
}

func (s *simDesk) write(m Message, sent *simSent) {
	raw, err := encodeBatch([]Message{m}, simCodec(), time.Now())
	if err != nil {
		panic(err)
	}
	s.truth.write(s.log.append(raw), []simRow{{sent: sent}})
}

// unsettled says what of the table rejection is left to do.
func (d *simDatabase) unsettled() string {
	for id, l := range d.lines {
		if l.state == "replaying" {
			return fmt.Sprintf("%s is on its way, and everything is applied", id)
		}
	}
	return ""
}

// announces reports whether an output of a replayed row says what it should.
func (sent *simSent) announces(record *handlers.Record) error {
	of, _ := record.Header(handlers.ReplayOfHeader)
	attempt, dead := record.Header(handlers.AttemptHeader)
	if !dead {
		var event struct{ ReplayOf string }
		if err := json.Unmarshal(record.Value, &event); err != nil && len(record.Value) > 0 { // what is too large goes without
			return err
		}
		of = []byte(event.ReplayOf)
		if len(record.Value) == 0 {
			of = []byte(sent.of)
		}
	}
	if string(of) != sent.of || dead && string(attempt) != strconv.Itoa(sent.attempt) {
		return fmt.Errorf("the outcome of %s, attempt %d, is said to be of %q, attempt %q", sent.of, sent.attempt, of, attempt)
	}
	return nil
}

// simID parses the id of an outcome.
func simID(id string) (part int, offset int64, err error) {
	at := strings.LastIndexByte(id, '-')
	if at < 0 {
		return 0, 0, fmt.Errorf("%q is no id", id)
	}
	topic := id[:at]
	if offset, err = strconv.ParseInt(id[at+1:], 10, 64); err != nil {
		return 0, 0, err
	}
	if topic == simReplay+"-0" {
		return replayPart, offset, nil
	}
	part, err = strconv.Atoi(strings.TrimPrefix(topic, simSource+"-"))
	return part, offset, err
}

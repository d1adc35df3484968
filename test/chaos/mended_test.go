package main

import (
	"strings"
	"testing"
	"time"
)

// TestWhatIsLeftOfTheDesk: what is as it was promised is no fault, and each
// promise that is broken is one.
func TestWhatIsLeftOfTheDesk(t *testing.T) {
	at := time.Date(2024, 6, 1, 0, 0, 0, 0, time.UTC)
	key := deskKey{"Ann.Late1.1", "lo-1", "se-0"}
	const first, second, third, waited = late + "-0-0", late + "-0-1", late + "-0-2", early + "-0-0"
	// The first is rejected and accepted by an edit; a newer one of its key is
	// there at once; the third fails again; the last waits in vain.
	left := func() *mended {
		row := func(number int, kind rowKind, topic string, offset int64) sentRow {
			return sentRow{deskRow{kind, key}, number, standing{at.Add(time.Duration(number) * time.Second), topic, 0, offset}}
		}
		return &mended{
			rows:   map[string]sentRow{first: row(0, misspelt, late, 0), second: row(1, fine, late, 1), third: row(2, hopeless, late, 2), waited: row(3, fine, early, 0)},
			resent: map[string]string{"r-0": "1/1", "r-1": "1/2", "r-2": "2/1"},
			letters: map[string]letter{first: {first, "resolved", 2, []string{"lo_not_found"}, false}, third: {third, "open", 2, []string{"out_of_range"}, false},
				waited: {waited, "open", 1, []string{"registration_not_found"}, true}},
			items:    []item{{1, 1, "edit", first, "accepted", "r-0"}, {1, 2, "edit", third, "rejected", "r-1"}, {2, 1, "release", waited, "rejected", "r-2"}},
			accepted: []said{{"r-0", first, false, 0, at}, {second, "", false, 1, at.Add(time.Second)}},
			rejected: []said{{id: first}, {id: third}, {id: "r-1", replayOf: third}, {id: "r-2", replayOf: waited}},
			stored:   []stored{{key.login, key.object, key.session, 1, at.Add(time.Second), late, 0, 1}},
		}
	}
	for name, c := range map[string]struct {
		broken string // "": nothing
		with   func(*mended)
	}{
		"all is well":                 {"", func(*mended) {}},
		"sent twice":                  {oneOutcome, func(m *mended) { m.resent["r-3"] = "1/1" }},
		"never sent":                  {oneOutcome, func(m *mended) { delete(m.resent, "r-1") }},
		"sent for ever":               {oneOutcome, func(m *mended) { m.items[1].State = "sent" }},
		"another's outcome":           {oneOutcome, func(m *mended) { m.items[1].Outcome = "r-0" }},
		"sent by nobody":              {oneOutcome, func(m *mended) { m.resent["r-3"] = "7/1" }},
		"dropped, and sent":           {oneOutcome, func(m *mended) { m.items[1].State = "dropped" }},
		"replaying for ever":          {settled, func(m *mended) { m.letters[third] = letter{third, "replaying", 1, nil, false} }},
		"an attempt not counted":      {settled, func(m *mended) { m.letters[third] = letter{third, "open", 1, nil, false} }},
		"accepted, and not announced": {announced, func(m *mended) { m.accepted = m.accepted[1:] }},
		"announced twice":             {announced, func(m *mended) { m.accepted = append(m.accepted, m.accepted[0]) }},
		"rejected, and not announced": {announced, func(m *mended) { m.rejected = m.rejected[:2] }},
		"misspelt and not edited":     {announced, func(m *mended) { m.items[0].Kind = "replay" }},
		"a row that is lost":          {announced, func(m *mended) { m.accepted = m.accepted[:1] }},
		"an older row is stored":      {unharmed, func(m *mended) { m.stored[0] = stored{key.login, key.object, key.session, 0, at, late, 0, 0} }},
		"nothing is stored":           {unharmed, func(m *mended) { m.stored = nil }},
		"called older, and is newer":  {unharmed, func(m *mended) { m.letters[third] = letter{third, "superseded", 2, []string{"superseded"}, false} }},
		"released twice": {roomEmptied, func(m *mended) {
			m.items = append(m.items, item{3, 1, "release", waited, "rejected", "r-3"})
		}},
		"never released": {roomEmptied, func(m *mended) { m.items = m.items[:2] }},
	} {
		o := options{publish: "transactional"}
		r := newReport(o)
		d := &desk{arena: &arena{options: o, report: r}, sentAgain: map[string]int{}, settled: map[string]int{}, waited: map[string]int{}, faults: map[string]int{}}
		m := left()
		c.with(m)
		d.jobsKept(m)
		d.lettersKept(m)
		d.outputsKept(m)
		d.keysKept(m)
		if c.broken == "" && len(d.faults) > 0 || c.broken != "" && d.faults[c.broken] == 0 {
			t.Errorf("%s: %v, %s", name, d.faults, strings.Join(r.broken, "\n"))
		}
	}
}

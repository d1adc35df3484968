package main

import (
	"errors"
	"strings"
	"testing"
	"time"

	"learnsink/test/oracle"
)

// whole is the report of a run in which all went well.
func whole() *report {
	r := newReport(options{publish: "transactional", minutes: 30})
	for _, f := range r.kinds() {
		r.strikes = append(r.strikes, strike{fault: f})
	}
	r.found, r.logs = &oracle.Findings{}, &logs{}
	r.calm, r.floods = flood{took: time.Second, rows: 100}, []flood{{took: time.Second, rows: 60}}
	return r
}

func TestWhatARunComesTo(t *testing.T) {
	for _, c := range []struct {
		name string
		code int
		says string
		with func(*report)
	}{
		{"all is well", kept, "every promise was kept", func(*report) {}},
		{"the oracle found something", broken, "was BROKEN", func(r *report) { r.found.Faults = []string{"a record is lost"} }},
		{"a watcher saw something", broken, "went back", func(r *report) { r.faultf("a position went back") }},
		{"a kind never came", broken, "never came", func(r *report) { r.strikes = r.strikes[1:] }},
		{"personal data", broken, "personal data", func(r *report) { r.logs.private = []string{"zoe.l1"} }},
		{"a lost COMMIT", broken, "lost track", func(r *report) { r.logs.lost = 1 }},
		{"a goal", broken, "a goal was missed", func(r *report) { r.recovered(recovery{"x", time.Minute, time.Second}) }},
		{"throughput", broken, "a goal was missed", func(r *report) { r.floods[0].rows = 40 }},
		{"a goal of a short run", kept, "does not fail for it", func(r *report) { r.minutes = 4; r.floods[0].rows = 40 }},
		{"the chaos itself failed", unverified, "UNVERIFIED", func(r *report) { r.unverified(errors.New("no broker")) }},
		{"and it outdoes what was found", unverified, "UNVERIFIED", func(r *report) { r.faultf("lost"); r.found = nil; r.unverified(errors.New("no broker")) }},
	} {
		r := whole()
		c.with(r)
		if text := r.markdown(); r.code() != c.code || !strings.Contains(text, c.says) {
			t.Errorf("%s: code %d, %s", c.name, r.code(), text)
		}
	}
}

package main

import (
	"context"
	"strings"
	"testing"
	"time"

	"learnsink/test/pgtest"
)

// TestDemo is the README's first command.
func TestDemo(t *testing.T) {
	pgtest.Empty(t) // where no PostgreSQL can be had, this says so and skips
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	var out strings.Builder
	if err := run(ctx, options{rows: 150, seed: 1, bad: 0.1, http: "127.0.0.1:0", out: &out}); err != nil {
		t.Fatalf("%v after\n%s", err, out.String())
	}
	for _, want := range []string{
		"private PostgreSQL", "a broker in this process", "82 learners", "150 rows",
		"accepted events on learning.accepted", "dead letters on learning.dead-letter",
		"registration_not_found", "No registration found for given parameters.",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the demo does not show %q:\n%s", want, out.String())
		}
	}
}

func TestCountsMoveInPlaceOnATerminal(t *testing.T) {
	var out strings.Builder
	s := &show{w: &out, live: true}
	s.counts(1, 1, 4, false)
	s.counts(3, 1, 4, true)
	if got := out.String(); strings.Count(got, "\r") != 2 || strings.Count(got, "\n") != 1 || !strings.HasSuffix(got, "accepted 3  rejected 1\n") {
		t.Errorf("shown: %q", got)
	}
}

package main

import (
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// now sets a variable to the time: now NAME.
func now(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: now NAME")
	}
	ts.Setenv(args[0], time.Now().UTC().Format(time.RFC3339Nano))
}

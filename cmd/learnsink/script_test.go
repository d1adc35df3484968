package main

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strconv"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/text/encoding/htmlindex"
)

// code runs learnsink and expects an exit code: code 2 check --action x.
// What it prints is compared as after exec.
func code(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 {
		ts.Fatalf("usage: code N [VERB…]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec("learnsink", args[1:]...)
	got := 0
	if exit, ok := err.(*exec.ExitError); ok {
		got = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// encoded writes a file anew in another encoding: encoded latin1 FILE.
func encoded(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: encoded ENCODING FILE")
	}
	encoding, err := htmlindex.Get(args[0])
	ts.Check(err)
	text, err := encoding.NewEncoder().String(ts.ReadFile(args[1]))
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(text), 0o600))
}

// capture keeps what was printed in a variable: capture AFTER stderr '--after (.*)'.
func capture(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: capture NAME FILE PATTERN")
	}
	pattern, err := regexp.Compile(args[2])
	ts.Check(err)
	found := pattern.FindStringSubmatch(ts.ReadFile(args[1]))
	if len(found) != 2 {
		ts.Fatalf("%s is not in %s, with one group", args[2], args[1])
	}
	ts.Setenv(args[0], found[1])
}

// jsonSame compares two files of JSON values: jsonsame stdout want.jsonl.
func jsonSame(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: jsonsame FILE FILE")
	}
	if diff := cmp.Diff(values(ts, args[1]), values(ts, args[0])); diff != "" {
		ts.Fatalf("-%s +%s\n%s", args[1], args[0], diff)
	}
}

func values(ts *testscript.TestScript, file string) (all []any) {
	decoder := json.NewDecoder(bytes.NewReader([]byte(ts.ReadFile(file))))
	for {
		var v any
		err := decoder.Decode(&v)
		if err == io.EOF {
			return all
		}
		ts.Check(err)
		all = append(all, v)
	}
}

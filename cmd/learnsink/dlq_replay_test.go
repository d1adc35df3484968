package main

import (
	"errors"
	"strings"
	"testing"

	"learnsink/cmd/learnsink/dlq"
	"learnsink/store"
)

// Nobody writes over what nobody has looked at.
func TestMayOverwrite(t *testing.T) {
	for _, test := range []struct {
		what    string
		n       int64
		yes     int64
		seen    string
		preview bool
		refused string // "": it may
	}{
		{what: "nothing is overwritten"},
		{what: "a preview", n: 3, preview: true},
		{what: "a preview of many", n: 30, preview: true},
		{what: "a preview of all of them", n: 30, yes: 30, preview: true},
		{what: "a preview of others", n: 30, yes: 29, preview: true, refused: "are 30"},
		{what: "what was shown", n: 3, seen: "now"},
		{what: "many that were shown", n: 30, yes: 30, seen: "now"},
		{what: "none was shown", n: 1, refused: "1 row would be written"},
		{what: "another was shown", n: 1, seen: "then", refused: "--seen then"},
		{what: "not all were shown", n: 6, seen: "now", refused: "--yes-overwrite 6"},
		{what: "many by their number alone", n: 30, yes: 30, refused: "30 rows would be written"},
		{what: "a number of none", n: 0, yes: 3, refused: "are 0"},
	} {
		r := &replayer{flags: &sendFlags{execute: !test.preview}, overwrite: true, yes: test.yes, seen: test.seen}
		err := r.mayOverwrite(test.n, "now")
		call := callError{}
		if (err != nil) != (test.refused != "") || err != nil && (!errors.As(err, &call) || !strings.Contains(err.Error(), test.refused)) {
			t.Errorf("%s: %v", test.what, err)
		}
	}
}

// Only so many rows are shown, and of those that are left out it is said how many.
func TestRowDiffs(t *testing.T) {
	d := &rowDiffs{most: 2, overwrite: true}
	for i := range 5 {
		outcome := dlq.Superseded
		if i == 0 {
			outcome = dlq.Accepted // nothing is undone
		}
		v := dlq.Verdict{Letter: &store.Letter{ID: strings.Repeat("x", i+1)}, Outcome: outcome}
		v.Stored.Known = true
		if err := d.add(&v, nil); err != nil {
			t.Fatal(err)
		}
	}
	var out strings.Builder
	if err := d.print(&out); err != nil {
		t.Fatal(err)
	}
	if len(d.shown) != 2 || d.shown[0].ID != "xx" || !strings.HasSuffix(out.String(), "and 2 more\n") {
		t.Errorf("%+v\n%s", d.shown, &out)
	}
}

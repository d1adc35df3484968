package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var comment = regexp.MustCompile(`(?m) *#.*$`)

// FuzzConfigFile: whatever a file holds, it is a configuration or a list of
// faults, each with a place.
func FuzzConfigFile(f *testing.F) {
	f.Add("brokers: [a:1]\nsources:\n  - {topic: a, action: tracking, rules: {timeZone: no}}\n")
	f.Add("tls: on\nsasl: {mechanism: PLAIN, user: &u me, password: *u}\n")
	f.Add("a: &a [*a]\n? {b: c}\n: d\n<<: {group: x}\n")
	f.Add("- 1\n---\n\x00")
	path := filepath.Join(f.TempDir(), "learnsink.yaml")
	f.Fuzz(func(t *testing.T, text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		c := defaults()
		faults := append(c.readFile(path), c.finish()...)
		for _, fault := range faults {
			if fault.place == "" || fault.what == "" || strings.ContainsAny(fault.place, "\n") {
				t.Errorf("a fault without a place: %+v", fault)
			}
		}
		if len(faults) > 0 {
			return
		}
		// What it prints is a configuration again, and the same one.
		var once, twice strings.Builder
		if err := c.print(&once); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(once.String()), 0o600); err != nil {
			t.Fatal(err)
		}
		again := defaults()
		if faults := append(again.readFile(path), again.finish()...); len(faults) > 0 {
			t.Fatalf("%v\n%s", faults, &once)
		}
		if err := again.print(&twice); err != nil {
			t.Fatal(err)
		}
		if without := func(s string) string { return comment.ReplaceAllString(s, "") }; without(once.String()) != without(twice.String()) {
			t.Errorf("%s\nbecame\n%s", &once, &twice)
		}
	})
}

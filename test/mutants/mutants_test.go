package main

import (
	"os"
	"os/exec"
	"path"
	"strings"
	"testing"
)

// TestEveryMutantIsOne: its texts stand in today's source, each once, and what
// it makes of it compiles: that takes a few seconds a mutant, and is left to CI.
func TestEveryMutantIsOne(t *testing.T) {
	root, err := moduleRoot()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, m := range mutants {
		t.Run(m.name, func(t *testing.T) {
			if seen[m.name] || m.breaks == "" || m.by.kind == "" || len(m.edits) == 0 {
				t.Error("it is not described, or there are two")
			}
			seen[m.name] = true
			overlay, err := m.overlay(root, t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			if os.Getenv("LEARNSINK_TEST_REQUIRE") == "" {
				t.Log("not compiled: LEARNSINK_TEST_REQUIRE is not set")
				return
			}
			t.Parallel()
			cmd := exec.Command("go", "build", "-overlay", overlay, "./"+path.Dir(m.edits[0].file))
			cmd.Dir = root
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("it does not compile: %v\n%s", err, out)
			}
		})
	}
}

func TestWhatATestSaidIsFound(t *testing.T) {
	for out, want := range map[string]string{
		"=== RUN   TestX\n    x_test.go:3: a note\n--- PASS: TestY\n--- FAIL: TestX (0.00s)\n    x_test.go:7: seed 3: it is lost\n": "seed 3: it is lost",
		"    --- FAIL: TestX/a (0.00s)\n        x_test.go:7: first\n        x_test.go:8: second\n":                                  "first",
		"=== RUN   TestX\n    x_test.go:7: said before\n--- FAIL: TestX (0.00s)\n":                                                  "said before",
		"panic: index out of range\n\ngoroutine 1":                                                                                  "panic: index out of range",
		"--- FAIL: TestX (0.00s)\nFAIL\n":                                                                                           "it fails",
	} {
		if got := complaint(out); got != want {
			t.Errorf("%q, want %q, of:\n%s", got, want, out)
		}
	}
}

func TestWhatTheChaosSaidIsFound(t *testing.T) {
	for report, want := range map[string]string{
		"# Chaos: a promise was BROKEN\n\n## Broken\n\n- the fault \"x\" never came: give it more minutes\n- a zombie's write was accepted\n- more\n\n## Faults: 3\n\n- none": "a zombie's write was accepted",
		"# Chaos\n\n## Missed goals\n\n- throughput\n\n## Faults: 3\n":                                 "",
		"# Chaos\n\n## Broken\n\n- the fault \"x\" never came: give it more minutes\n\n## Faults: 3\n": "",
	} {
		if got, caught := brokenPromise(report); got != want || caught != (want != "") {
			t.Errorf("%q, %v, want %q", got, caught, want)
		}
	}
}

func TestACellIsOne(t *testing.T) {
	if got := cell("a | b\n  c" + strings.Repeat("d", 200)); strings.Contains(got, "\n") || !strings.HasPrefix(got, `a \| b cd`) || len([]rune(got)) != 160 {
		t.Error(got)
	}
}

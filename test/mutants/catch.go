package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// catcher is what has to notice a mutant.
type catcher struct {
	kind kind
	// For kind test: the package and the tests.
	pkg, run string
	// For kind chaos: what else it is told, so that what the mutant needs
	// comes often: --only FAULTS, --rate ROWS.
	only, rate string
}

type kind string

const (
	bySimulation kind = "simulation"
	byChaos      kind = "chaos"
	byTest       kind = "test"
)

// String is the catcher in the table.
func (c catcher) String() string {
	switch {
	case c.kind == byTest:
		return fmt.Sprintf("`go test ./%s -run '%s'`", c.pkg, c.run)
	case c.only != "":
		return fmt.Sprintf("%s of %q, %s rows/s", c.kind, c.only, c.rate)
	}
	return string(c.kind)
}

// hunt tries mutants.
type hunt struct {
	root, dir string
	minutes   float64
	seed      uint64
	chaos     string // the built command
}

// finding is what became of a mutant.
type finding struct {
	caught bool
	after  time.Duration
	said   string
}

// try builds learnsink with a mutant and lets its catcher loose on it. An
// error says nothing of the mutant.
func (h *hunt) try(ctx context.Context, m mutant) (finding, error) {
	dir, err := os.MkdirTemp(h.dir, m.name+"-")
	if err != nil {
		return finding{}, err
	}
	overlay, err := m.overlay(h.root, dir)
	if err != nil {
		return finding{}, err
	}
	switch m.by.kind {
	case bySimulation:
		return h.test(ctx, overlay, "consumer", "^TestSimulation$")
	case byTest:
		return h.test(ctx, overlay, m.by.pkg, m.by.run)
	}
	return h.unleash(ctx, overlay, m)
}

// command is one of the go command's, or of ours, within the module. It ends
// with ctx, and gets some time to clean up.
func (h *hunt) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = h.root
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 2 * time.Minute
	return cmd
}

// simulationSeeds is how many worlds a mutant has to survive: some minutes.
const simulationSeeds = "20000"

// test runs tests; how long it takes to compile them is not counted.
func (h *hunt) test(ctx context.Context, overlay, pkg, run string) (finding, error) {
	binary := filepath.Join(filepath.Dir(overlay), "mutant.test")
	if out, err := h.command(ctx, "go", "test", "-c", "-overlay", overlay, "-o", binary, "./"+pkg).CombinedOutput(); err != nil {
		return finding{}, fmt.Errorf("go test -c: %w\n%s", err, out)
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Minute)
	defer cancel()
	began := time.Now()
	cmd := h.command(ctx, binary, "-test.run", run, "-test.timeout", "25m", "-test.failfast")
	cmd.Dir, cmd.Env = filepath.Join(h.root, pkg), append(os.Environ(), "LEARNSINK_SIM_SEEDS="+simulationSeeds)
	out, err := cmd.CombinedOutput()
	f := finding{after: time.Since(began)}
	var exit *exec.ExitError
	switch {
	case bytes.Contains(out, []byte("panic: test timed out")):
		return f, errors.New("it took too long")
	case errors.As(err, &exit) && (bytes.Contains(out, []byte("--- FAIL")) || bytes.Contains(out, []byte("panic: "))):
		f.caught, f.said = true, complaint(string(out))
		return f, nil
	case err != nil:
		return f, fmt.Errorf("%w\n%s", err, out)
	case bytes.Contains(out, []byte("no tests to run")):
		return f, fmt.Errorf("no test %s is in %s", run, pkg)
	}
	return f, nil
}

var testLine = regexp.MustCompile(`(?m)^\s+\w+_test\.go:\d+: (.+)`)

// complaint is the first thing that a failed test said.
func complaint(out string) string {
	_, failed, _ := strings.Cut(out, "--- FAIL")
	if said := testLine.FindStringSubmatch(failed); said != nil {
		return said[1]
	}
	if _, panicked, ok := strings.Cut(out, "panic: "); ok {
		line, _, _ := strings.Cut(panicked, "\n")
		return "panic: " + line
	}
	return "it fails"
}

// unleash runs the chaos on a build with the overlay. Once it says that
// something is broken it has said enough.
func (h *hunt) unleash(ctx context.Context, overlay string, m mutant) (finding, error) {
	if h.chaos == "" {
		h.chaos = filepath.Join(h.dir, "chaos")
		if out, err := h.command(ctx, "go", "build", "-o", h.chaos, "./test/chaos").CombinedOutput(); err != nil {
			return finding{}, fmt.Errorf("go build: %w\n%s", err, out)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, time.Duration((h.minutes+7)*float64(time.Minute)))
	defer cancel()
	args := []string{"--overlay", overlay, "--mutant", m.name,
		"--minutes", strconv.FormatFloat(h.minutes, 'g', -1, 64), "--seed", strconv.FormatUint(h.seed, 10)}
	if m.by.only != "" {
		args = append(args, "--only", m.by.only, "--rate", m.by.rate)
	}
	cmd := h.command(ctx, h.chaos, args...)
	var report bytes.Buffer
	cmd.Stdout = &report
	progress, err := cmd.StderrPipe()
	if err != nil {
		return finding{}, err
	}
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return finding{}, err
	}
	var f finding
	for lines := bufio.NewScanner(io.TeeReader(progress, os.Stderr)); lines.Scan(); {
		if _, what, broken := strings.Cut(lines.Text(), "BROKEN: "); broken && !f.caught {
			f = finding{true, time.Since(began), what}
			cancel()
		}
	}
	err = cmd.Wait()
	if f.caught {
		return f, nil
	}
	f.after = time.Since(began)
	switch code := cmd.ProcessState.ExitCode(); {
	case code == 0:
		return f, nil
	case code == 1:
		f.said, f.caught = brokenPromise(report.String())
		return f, nil
	}
	return f, fmt.Errorf("the chaos could not tell: %w", err)
}

// brokenPromise is the first one that the chaos's report names. That a fault
// never came, or a goal was missed, breaks no promise.
func brokenPromise(report string) (string, bool) {
	_, list, _ := strings.Cut(report, "\n## Broken\n")
	list, _, _ = strings.Cut(list, "\n## ")
	for line := range strings.Lines(list) {
		if what, ok := strings.CutPrefix(line, "- "); ok && !strings.HasPrefix(what, "the fault ") {
			return strings.TrimSpace(what), true
		}
	}
	return "", false
}

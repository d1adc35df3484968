// Package e2e_test runs the built binary, verb by verb and process by
// process, against a broker and a PostgreSQL, and holds the tables, the
// accepted events and the dead letters against reference models written
// apart from the rules. It reads the topics with franz-go, never with the
// client that learnsink itself uses.
package e2e_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"iter"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"learnsink/test/oracle"
)

var binary string // built once

func TestMain(m *testing.M) {
	// The stories mostly wait: for a session to time out, for a road to open.
	flag.Parse()
	if err := flag.Set("test.parallel", "4"); err != nil {
		panic(err)
	}
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "learnsink-e2e-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		binary = filepath.Join(dir, "learnsink")
		args := []string{"build", "-o", binary, "learnsink/cmd/learnsink"}
		if info, ok := debug.ReadBuildInfo(); ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
			args = slices.Insert(args, 1, "-race") // as the tests are, so the binary
		}
		if out, err := exec.Command("go", args...).CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build: %v\n%s", err, out)
			return 1
		}
		return m.Run()
	}())
}

// house is one whole installation: topics, a group and a database of its own,
// and a configuration that names them.
type house struct {
	testing.TB
	brokers, database string
	dir, config       string

	tracking, intervention, accepted, deadLetter, replay, group string

	db    *pgxpool.Pool
	kafka *kgo.Client
	admin *kadm.Client

	mu   sync.Mutex
	logs bytes.Buffer // what every process wrote to stderr
	// patience is how long a verb may take.
	patience time.Duration
	// private is what no log line may hold, in lower case: logins and addresses.
	private []string
}

// newHouse configures an installation; nothing of it is migrated or created.
// extra is appended to the configuration file.
func newHouse(t testing.TB, brokers, database, extra string) *house {
	t.Helper()
	name := fmt.Sprintf("e2e-%d", time.Now().UnixNano())
	h := &house{TB: t, brokers: brokers, database: database, dir: t.TempDir(), group: name, patience: 2 * time.Minute,
		tracking: name + ".tracking", intervention: name + ".intervention", accepted: name + ".accepted", deadLetter: name + ".dead-letter", replay: name + ".replay"}
	h.config = h.file("learnsink.yaml", fmt.Sprintf("group: %s\nacceptedTopic: %s\ndeadLetterTopic: %s\nreplayTopic: %s\n%s",
		h.group, h.accepted, h.deadLetter, h.replay, strings.NewReplacer("TRACKING", h.tracking, "INTERVENTION", h.intervention).Replace(extra)))
	if !strings.Contains(extra, "sources:") {
		h.config = h.file("learnsink.yaml", h.read("learnsink.yaml")+fmt.Sprintf(
			"sources:\n  - {topic: %s, action: tracking}\n  - {topic: %s, action: intervention}\n", h.tracking, h.intervention))
	}
	var err error
	if h.db, err = pgxpool.New(t.Context(), database); err != nil {
		t.Fatal(err)
	}
	if h.kafka, err = kgo.NewClient(kgo.SeedBrokers(strings.Split(brokers, ",")...), kgo.RecordPartitioner(oracle.ByKey()), kgo.ProducerBatchMaxBytes(8<<20)); err != nil {
		t.Fatal(err)
	}
	h.admin = kadm.NewClient(h.kafka)
	t.Cleanup(func() {
		logs := h.logText()
		if strings.Contains(logs, "DATA RACE") {
			t.Error("a process had a data race")
		}
		for _, line := range strings.Split(logs, "\n") {
			for _, p := range h.private {
				if strings.Contains(strings.ToLower(line), p) {
					t.Errorf("a log line holds personal data (%s): %s", p, line)
				}
			}
		}
		if t.Failed() {
			t.Logf("logs, the end of them:\n%s", logs[max(0, len(logs)-8000):])
		}
		h.kafka.Close()
		h.db.Close()
	})
	return h
}

func (h *house) file(name, text string) string {
	h.Helper()
	path := filepath.Join(h.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		h.Fatal(err)
	}
	return path
}

func (h *house) read(name string) string {
	h.Helper()
	text, err := os.ReadFile(filepath.Join(h.dir, name))
	if err != nil {
		h.Fatal(err)
	}
	return string(text)
}

// process is a verb that runs. Its stderr is the house's log.
type process struct {
	h      *house
	cmd    *exec.Cmd
	args   []string
	stdout bytes.Buffer
	done   chan struct{}
	code   int
}

// Write takes a process's log.
func (h *house) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.logs.Write(p)
}

// start runs a verb in a process of its own, to be waited for.
func (h *house) start(stdin string, args ...string) *process {
	h.Helper()
	p := &process{h: h, args: args, done: make(chan struct{})}
	p.cmd = exec.Command(binary, args...)
	p.cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + h.dir, "TMPDIR=" + os.TempDir(),
		"LEARNSINK_CONFIG=" + h.config, "KAFKA_BROKERS=" + h.brokers, "DATABASE_URL=" + h.database,
		"LEARNSINK_HTTP=off", "LEARNSINK_LOG_FORMAT=json", "LEARNSINK_LOG_LEVEL=debug"}
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = strings.NewReader(stdin), &p.stdout, h
	if err := p.cmd.Start(); err != nil {
		h.Fatal(err)
	}
	go func() {
		var exit *exec.ExitError
		if err := p.cmd.Wait(); errors.As(err, &exit) {
			p.code = exit.ExitCode()
		} else if err != nil {
			p.code = -1
		}
		close(p.done)
	}()
	h.Cleanup(func() {
		p.signal(syscall.SIGKILL)
		<-p.done
	})
	return p
}

func (p *process) signal(s syscall.Signal) { _ = p.cmd.Process.Signal(s) }

// wait returns the exit code; a process that takes longer fails the test.
func (p *process) wait(most time.Duration) int {
	p.h.Helper()
	select {
	case <-p.done:
		return p.code
	case <-time.After(most):
		p.signal(syscall.SIGQUIT) // the goroutines, in the log
		<-p.done
		p.h.Fatalf("learnsink %s: not done after %s", strings.Join(p.args, " "), most)
		return -1
	}
}

// stop ends a serve with SIGTERM: it has ten seconds, and is expected to end well.
func (p *process) stop() {
	p.h.Helper()
	p.signal(syscall.SIGTERM)
	if code := p.wait(12 * time.Second); code != 0 {
		p.h.Errorf("learnsink %s: exit %d after SIGTERM", strings.Join(p.args, " "), code)
	}
}

// verb runs a verb to its end and expects it to succeed. It returns stdout.
func (h *house) verb(args ...string) string {
	h.Helper()
	out, code := h.try("", args...)
	if code != 0 {
		h.Fatalf("learnsink %s: exit %d\n%s", strings.Join(args, " "), code, out)
	}
	return out
}

// try runs a verb to its end, whatever that is.
func (h *house) try(stdin string, args ...string) (stdout string, code int) {
	h.Helper()
	p := h.start(stdin, args...)
	code = p.wait(h.patience)
	return p.stdout.String(), code
}

// eventually waits until what is true.
func (h *house) eventually(what string, most time.Duration, is func() bool) {
	h.Helper()
	for end := time.Now().Add(most); ; <-time.After(20 * time.Millisecond) {
		if is() {
			return
		}
		if time.Now().After(end) {
			h.Fatalf("not within %s: %s", most, what)
		}
	}
}

// number asks the database for one.
func (h *house) number(sql string, args ...any) (n int64) {
	h.Helper()
	if err := h.db.QueryRow(context.Background(), sql, args...).Scan(&n); err != nil && !errors.Is(err, pgx.ErrNoRows) {
		h.Fatalf("%s: %v", sql, err)
	}
	return n
}

// rows asks the database for lines of text, for messages and small comparisons.
func (h *house) rows(sql string, args ...any) []string {
	h.Helper()
	rows, err := h.db.Query(context.Background(), sql, args...)
	if err != nil {
		h.Fatalf("%s: %v", sql, err)
	}
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		h.Fatalf("%s: %v", sql, err)
	}
	return lines
}

// logText is what every process has written to stderr so far.
func (h *house) logText() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.logs.String()
}

// stream yields what is committed to a partition below end, in order, without markers.
func (h *house) stream(topic string, partition int32, end int64) iter.Seq[*kgo.Record] {
	return func(yield func(*kgo.Record) bool) {
		for r, err := range oracle.Log(context.Background(), strings.Split(h.brokers, ","), topic, partition, end, false) {
			if err != nil {
				h.Fatal(err)
			}
			if !yield(r) {
				return
			}
		}
	}
}

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"learnsink/test/proxy"
)

// member is a place in the group: one process of learnsink after another, each
// with the roads of the place.
type member struct {
	place   int
	arena   *arena
	kafka   *proxy.Proxy
	db      *proxy.Proxy
	metrics string // address

	mu     sync.Mutex
	binary string
	cmd    *exec.Cmd
	ended  chan struct{}
	life   int // which process it is
	since  time.Time
}

// elder is the place whose process is never killed or replaced: what it takes
// over the whole run shows whether it grows.
const elder = 0

// name is how the database knows the process that is there now.
func (m *member) name() string { return fmt.Sprintf("chaos-%d-%d", m.place, m.life) }

func (m *member) logFile() string { return m.arena.file(fmt.Sprintf("learnsink-%d.log", m.place)) }

// start starts a process in the place.
func (m *member) start() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.life++
	log, err := os.OpenFile(m.logFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	database, err := m.database(m.name())
	if err != nil {
		return err
	}
	cmd := exec.Command(m.binary, "serve")
	cmd.Env = m.arena.environment(m.kafka.Address(), database, "LEARNSINK_METRICS="+m.metrics, "LEARNSINK_HTTP=off")
	cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = log, log, &syscall.SysProcAttr{Setpgid: true}
	ended, err := m.arena.reaper.Run(cmd)
	if err != nil {
		return err
	}
	m.cmd, m.ended, m.since = cmd, ended, time.Now()
	return nil
}

// database is the road of the place to the database, under a name.
func (m *member) database(name string) (string, error) {
	database, err := url.Parse(m.arena.postgres.URL())
	if err != nil {
		return "", err
	}
	database.Host = m.db.Address()
	query := database.Query()
	query.Set("application_name", name)
	database.RawQuery = query.Encode()
	return database.String(), nil
}

func (m *member) signal(s syscall.Signal) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.cmd.Process.Signal(s); err != nil {
		return fmt.Errorf("%s: %s: %w", m.name(), s, err)
	}
	return nil
}

// kill ends the process at once.
func (m *member) kill() error {
	if err := m.signal(syscall.SIGKILL); err != nil {
		return err
	}
	<-m.ended
	return nil
}

// stop ends the process as an operator does. It has its ten seconds, and two
// for a machine that is busy, and is expected to end well: what it says else
// is a fault of learnsink.
func (m *member) stop() error {
	if err := m.signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-m.ended:
	case <-time.After(14 * time.Second):
		m.arena.faultf("%s has not ended 14 s after SIGTERM", m.name())
		_ = m.signal(syscall.SIGQUIT) // the goroutines, in the log
		select {
		case <-m.ended:
		case <-time.After(5 * time.Second):
			return m.kill()
		}
		return nil
	}
	if code := m.cmd.ProcessState.ExitCode(); code != 0 {
		m.arena.faultf("%s: exit %d after SIGTERM", m.name(), code)
	}
	return nil
}

// hasEnded: nobody told it to.
func (m *member) hasEnded() bool {
	select {
	case <-m.ended:
		return true
	default:
		return false
	}
}

var patient = &http.Client{Timeout: 3 * time.Second}

func (m *member) get(ctx context.Context, path string, read func(*bufio.Scanner)) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+m.metrics+path, nil)
	if err != nil {
		return err
	}
	reply, err := patient.Do(req)
	if err != nil {
		return err
	}
	defer reply.Body.Close()
	if reply.StatusCode != http.StatusOK {
		return errors.New(reply.Status)
	}
	lines := bufio.NewScanner(reply.Body)
	if read != nil {
		read(lines)
	}
	return lines.Err()
}

// ready waits until the process is a member of the group and all it needs answers.
func (m *member) ready(ctx context.Context, most time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	var err error
	for ctx.Err() == nil && !m.hasEnded() {
		if err = m.get(ctx, "/readyz", nil); err == nil {
			return nil
		}
		sleep(ctx, 50*time.Millisecond)
	}
	return fmt.Errorf("%s is not ready after %s: %w", m.name(), most, err)
}

// takes is how much a process takes of the machine.
type takes struct {
	at         time.Time
	place      int
	life       int
	age        time.Duration
	goroutines float64
	memory     float64 // bytes, resident
}

func (m *member) takes(ctx context.Context) (takes, error) {
	m.mu.Lock()
	t := takes{at: time.Now(), place: m.place, life: m.life, age: time.Since(m.since)}
	m.mu.Unlock()
	err := m.get(ctx, "/metrics", func(lines *bufio.Scanner) {
		for lines.Scan() {
			name, value, _ := strings.Cut(lines.Text(), " ")
			switch name {
			case "go_goroutines":
				t.goroutines, _ = strconv.ParseFloat(value, 64)
			case "process_resident_memory_bytes":
				t.memory, _ = strconv.ParseFloat(value, 64)
			}
		}
	})
	return t, err
}

// verb runs a verb of learnsink past all proxies.
func (a *arena) verb(ctx context.Context, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, a.binaries[0], args...)
	cmd.Env = a.environment(a.kafka.Address, a.postgres.URL())
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("learnsink %s: %w: %s", strings.Join(args, " "), err, tail(out))
	}
	return string(out), err
}

func (a *arena) environment(brokers, database string, more ...string) []string {
	return append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + a.dir, "TMPDIR=" + os.TempDir(), "LEARNSINK_CONFIG=" + a.file("learnsink.yaml"),
		"KAFKA_BROKERS=" + brokers, "DATABASE_URL=" + database, "LEARNSINK_LOG_FORMAT=json", "LEARNSINK_LOG_LEVEL=debug"}, more...)
}

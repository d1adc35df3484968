package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"learnsink/test/kafkaserver"
	"learnsink/test/pgserver"
	"learnsink/test/proxy"
	"learnsink/test/reaper"
	"learnsink/test/rowgen"
)

// sessionTimeout is how long a member that died keeps its partitions.
const sessionTimeout = 6 * time.Second

// arena is the whole house with everything that can be done to it.
type arena struct {
	options
	dir      string
	reaper   *reaper.Reaper
	binaries []string // two builds, between which processes are rolled
	postgres *pgserver.Server
	db       *pgxpool.Pool // past all proxies
	kafka    *kafka
	members  []*member
	sender   *sender
	watch    *watch
	vitals   *vitals
	desk     *desk
	report   *report
}

func (a *arena) file(name string) string { return filepath.Join(a.dir, name) }

// faultf notes a broken promise.
func (a *arena) faultf(format string, args ...any) { a.report.faultf(format, args...) }

// build builds learnsink, twice: the second one says another version.
func (a *arena) build(ctx context.Context) error {
	for i, more := range [][]string{nil, {"-ldflags=-X main.version=chaos-2", "-trimpath"}} {
		binary := a.file(fmt.Sprintf("learnsink-%d", i))
		args := append([]string{"build", "-o", binary}, more...)
		if a.race {
			args = append(args, "-race")
		}
		if a.overlay != "" {
			args = append(args, "-overlay", a.overlay)
		}
		if out, err := exec.CommandContext(ctx, "go", append(args, "learnsink/cmd/learnsink")...).CombinedOutput(); err != nil {
			return fmt.Errorf("go build: %w: %s", err, tail(out))
		}
		a.binaries = append(a.binaries, binary)
	}
	return nil
}

// open starts the servers, lays the roads and sets everything up; no process
// of learnsink runs yet.
func (a *arena) open(ctx context.Context) (err error) {
	if err := a.build(ctx); err != nil {
		return err
	}
	say("PostgreSQL starts")
	if a.postgres, err = pgserver.Start(ctx, pgserver.Options{Dir: a.dir}); err != nil {
		return err
	}
	if a.db, err = pgxpool.New(ctx, a.postgres.URL()); err != nil {
		return err
	}
	ports, err := kafkaserver.FreePorts(2 * a.processes)
	if err != nil {
		return err
	}
	var listeners []kafkaserver.Listener
	for i := range a.processes {
		m := &member{place: i, arena: a, metrics: fmt.Sprintf("127.0.0.1:%d", ports[a.processes+i]), binary: a.binaries[0]}
		if m.kafka, err = proxy.New(proxy.Kafka); err != nil {
			return err
		}
		if m.db, err = proxy.New(proxy.Postgres); err != nil {
			return err
		}
		m.kafka.Serve(fmt.Sprintf("127.0.0.1:%d", ports[i]))
		m.db.Serve(a.db.Config().ConnConfig.Host + fmt.Sprintf(":%d", a.db.Config().ConnConfig.Port))
		a.members = append(a.members, m)
		listeners = append(listeners, kafkaserver.Listener{Port: ports[i], Advertised: m.kafka.Address()})
	}
	say("Apache Kafka starts")
	broker, err := kafkaserver.Start(ctx, kafkaserver.Options{Dir: a.file("kafka"), Listeners: listeners, Reaper: a.reaper, Group: group, Say: say})
	if err != nil {
		return err
	}
	a.kafka = &kafka{broker}
	if err := a.furnish(ctx); err != nil {
		return err
	}
	a.watch = newWatch(a)
	a.vitals = &vitals{arena: a}
	if a.desk, err = newDesk(a); err != nil {
		return err
	}
	a.report.desk = a.desk
	a.sender, err = newSender(ctx, a.kafka.Address, a.seed, a.rate, map[string]int32{tracking: 6, intervention: 3, lost: 2}, a.watch.lag)
	return err
}

// furnish makes the schema, the catalogue and the topics.
func (a *arena) furnish(ctx context.Context) error {
	config := fmt.Sprintf(`group: %s
acceptedTopic: %s
deadLetterTopic: %s
publish: %s
sessionTimeout: %s
batch: {rows: 300}
sources:
  - {topic: %s, action: tracking}
  - {topic: %s, action: intervention}
  - {topic: %s, action: tracking}
  - {topic: %s, action: tracking, order: event-time, acceptedTopic: %s, deadLetterTopic: %s}
  - {topic: %s, action: tracking, order: event-time, acceptedTopic: %s, deadLetterTopic: %s, onMissingReference: wait, deadline: %s}
replayTopic: %s
`, group, accepted, deadLetter, a.publish, sessionTimeout, tracking, intervention, lost, late, deskAccepted, deskLetters, early, deskAccepted, deskLetters, waitingTime, replay)
	if err := os.WriteFile(a.file("learnsink.yaml"), []byte(config), 0o644); err != nil {
		return err
	}
	forever := "-1"
	for topic, partitions := range map[string]int32{tracking: 6, intervention: 3, lost: 2, accepted: 4, deadLetter: 4,
		late: 3, early: 3, replay: 3, deskAccepted: 4, deskLetters: 4} {
		if _, err := a.kafka.Admin.CreateTopic(ctx, partitions, 1, map[string]*string{"retention.ms": &forever}, topic); err != nil {
			return fmt.Errorf("create %s: %w", topic, err)
		}
	}
	if err := rowgen.WriteCatalog(a.file("catalog")); err != nil {
		return err
	}
	if err := writeClasses(a.file); err != nil {
		return err
	}
	if _, err := a.verb(ctx, "migrate"); err != nil {
		return err
	}
	if _, err := a.verb(ctx, "catalog", "load", a.file("catalog")); err != nil {
		return err
	}
	if _, err := a.verb(ctx, "catalog", "load", a.file(classFolder(0))); err != nil {
		return err
	}
	if _, err := a.db.Exec(ctx, notes); err != nil {
		return fmt.Errorf("the trigger on the ledger: %w", err)
	}
	return nil
}

// raise starts every process, and waits until all are ready.
func (a *arena) raise(ctx context.Context) error {
	for _, m := range a.members {
		if err := m.start(); err != nil {
			return err
		}
	}
	for _, m := range a.members {
		if err := m.ready(ctx, 30*time.Second); err != nil {
			return err
		}
	}
	return nil
}

// close ends what still runs, and removes the work folder if it is not to be kept.
func (a *arena) close() {
	a.reaper.Close()
	for _, m := range a.members {
		m.kafka.Close()
		m.db.Close()
	}
	if a.kafka != nil {
		a.kafka.Close()
	}
	if a.db != nil {
		a.db.Close()
	}
	if a.postgres != nil {
		if err := a.postgres.Stop(); err != nil {
			say("PostgreSQL: %v", err)
		}
	}
	if a.keep {
		say("the work folder stays: %s", a.dir)
	} else if err := os.RemoveAll(a.dir); err != nil {
		say("%v", err)
	}
}

var sayMutex sync.Mutex

// say tells how it goes, to those who wait.
func say(format string, args ...any) {
	sayMutex.Lock()
	defer sayMutex.Unlock()
	fmt.Fprintf(os.Stderr, "%s %s\n", time.Now().Format(time.TimeOnly), fmt.Sprintf(format, args...))
}

// sleep waits; it reports false where ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

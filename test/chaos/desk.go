package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"

	"learnsink/test/oracle"
)

// Topics of the desk: two sources of their own, with outputs of their own, and
// the topic of what is sent again. Of late, rows are rejected that can be
// mended; of early, rows come before their learner and wait for him.
const (
	late         = "chaos.late"
	early        = "chaos.early"
	replay       = "chaos.replay"
	deskAccepted = "chaos.desk-accepted"
	deskLetters  = "chaos.desk-dead-letter"
)

// apart are the topics that the desk answers for, and not the oracle.
var apart = []string{late, early, replay}

// waitingTime is the deadline of the waiting room.
const waitingTime = 20 * time.Second

// desk sends rows some of which are rejected at first, or wait, and works with
// them through learnsink's verbs while faults go on.
type desk struct {
	*arena
	client *kgo.Client
	r      *rand.Rand // of the operator
	rows   []deskRow  // by timeSpent, which numbers them

	did, failed map[string]int // calls of verbs
	loaded      int            // classes of learners that the catalogue knows
	sumLooks    int
	audits      int

	sentAgain map[string]int // items of jobs, by state
	settled   map[string]int // dead letters that have not waited, by state
	waited    map[string]int // rows that have waited, by state
	jobs      int

	mu     sync.Mutex
	faults map[string]int // by promise
}

// The promises of the desk, as the report has them.
const (
	oneOutcome  = "items of jobs that are not on the replay topic once, or without exactly one outcome"
	settled     = "dead letters that are not what their latest outcome says"
	announced   = "rows without exactly one first outcome, and outcomes of rows sent again that are not announced exactly once"
	unharmed    = "keys of which another row is stored than the newest that was accepted"
	roomSums    = "sums of the waiting room that did not hold, at any moment"
	roomEmptied = "rows that have waited without exactly one outcome on the replay topic"
)

var deskPromises = []string{oneOutcome, settled, announced, unharmed, roomSums, roomEmptied}

// broke notes a broken promise of the desk.
func (d *desk) broke(promise, format string, args ...any) {
	d.mu.Lock()
	d.faults[promise]++
	d.mu.Unlock()
	d.faultf("%s: %s", promise, fmt.Sprintf(format, args...))
}

// deskRow is a row that the desk has sent.
type deskRow struct {
	kind rowKind
	key  deskKey
}

// deskKey is what a row is about, as the tables spell it.
type deskKey struct{ login, object, session string }

// rowKind is what is wrong with a row.
type rowKind int

const (
	fine     rowKind = iota // nothing, once the catalogue knows the learner
	misspelt                // until an edit mends its code
	hopeless                // for ever
)

func newDesk(a *arena) (*desk, error) {
	client, err := kgo.NewClient(kgo.SeedBrokers(a.kafka.Address), kgo.RecordPartitioner(oracle.ByKey()), kgo.ProducerLinger(0),
		kgo.RetryBackoffFn(func(int) time.Duration { return 100 * time.Millisecond }))
	return &desk{arena: a, client: client, r: rand.New(rand.NewPCG(a.seed, 4)), loaded: 1, did: map[string]int{}, failed: map[string]int{},
		sentAgain: map[string]int{}, settled: map[string]int{}, waited: map[string]int{}, faults: map[string]int{}}, err
}

// Learners come in classes: the first is there from the start, the others come
// one after the other, and of one, which waits in vain, the catalogue never hears.
const (
	classes = 7
	classOf = 6 // learners in one
)

func deskLogin(topic string, class, n int) string {
	return fmt.Sprintf("Ann.%s%d.%d", map[string]string{late: "Late", early: "Wait"}[topic], class, n)
}

func classFolder(class int) string { return fmt.Sprintf("class-%d", class) }

// writeClasses writes what the catalogue gets, class by class.
func writeClasses(file func(string) string) error {
	for class := range classes {
		learners, registrations := "login,refNumber,email,createdAt\n", "learnerLogin,sessionGuid\n"
		for _, topic := range []string{late, early} {
			for n := range classOf {
				login := deskLogin(topic, class, n)
				learners += login + ",,,\n"
				registrations += login + ",se-0\n" + login + ",se-1\n"
			}
		}
		folder := file(classFolder(class))
		err := os.Mkdir(folder, 0o755)
		if err == nil {
			err = os.WriteFile(filepath.Join(folder, "learners.csv"), []byte(learners), 0o644)
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(folder, "registrations.csv"), []byte(registrations), 0o644)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// send sends some rows ten times a second until ctx ends.
func (d *desk) send(ctx context.Context) {
	defer d.client.Close()
	r := rand.New(rand.NewPCG(d.seed, 5))
	for sleep(ctx, 100*time.Millisecond) {
		var records []*kgo.Record
		for range 1 + r.IntN(4) {
			records = append(records, d.row(r))
		}
		// What becomes of a record whose sender failed, its topic tells.
		_ = d.client.ProduceSync(d.sender.life, records...).FirstErr()
	}
}

// row makes a row. A fourth of them are older than others that came before.
func (d *desk) row(r *rand.Rand) *kgo.Record {
	topic := []string{late, late, early}[r.IntN(3)]
	number, class := len(d.rows), r.IntN(classes)
	if topic == early && r.IntN(10) == 0 {
		class = classes // never
	}
	object := r.IntN(4)
	row := deskRow{key: deskKey{deskLogin(topic, class, r.IntN(classOf)), fmt.Sprintf("lo-%d", object), fmt.Sprintf("se-%d", r.IntN(2))}}
	code, progression := fmt.Sprintf("LO/%d", object), r.IntN(101)
	switch draw := r.IntN(10); {
	case draw == 0:
		row.kind, progression = hopeless, 101
	case draw < 3 && topic == late:
		row.kind, code = misspelt, fmt.Sprintf("LO%d", object)
	}
	status := []string{"incomplete", "browsed", "failed", "passed", "notAttempted"}[min(r.IntN(12), 11)%5]
	at := time.Date(2024, 6, 1, 0, 0, number, 0, time.UTC)
	if r.IntN(4) == 0 {
		at = at.Add(-time.Duration(r.IntN(600))*time.Second - time.Millisecond)
	}
	d.rows = append(d.rows, row)
	return &kgo.Record{Topic: topic, Key: []byte(strings.ToLower(row.key.login)), Timestamp: at,
		Value: fmt.Appendf(nil, `{"candidateLogin":%q,"lovCode":%q,"sessionGuid":%q,"trackingStatus":%q,"progression":%d,"timeSpent":%d}`,
			row.key.login, code, row.key.session, status, progression, number)}
}

// work is an operator's shift: until ctx ends he replays, edits, holds jobs and
// lets them go, loads what the catalogue misses, and audits. What fails
// because a server is away he does another time.
func (d *desk) work(ctx context.Context, end time.Time) {
	var looking sync.WaitGroup
	looking.Go(func() { d.lookAtRoom(ctx) })
	defer looking.Wait()
	every := time.Until(end) / (classes + 1)
	due := time.Now().Add(every)
	for sleep(ctx, 300*time.Millisecond+time.Duration(d.r.Int64N(int64(time.Second)))) {
		switch {
		case d.loaded < classes && time.Now().After(due):
			args := []string{"catalog", "load", d.file(classFolder(d.loaded))}
			if d.loaded%2 == 0 {
				args = append(args, "--replay")
			}
			if _, err := d.call(ctx, "catalog load", args...); err == nil {
				d.loaded++
				due = due.Add(every)
			}
		default:
			d.act(ctx)
		}
	}
}

// verbs are what the operator does with dead letters, some more often.
var verbs = []string{"dlq replay", "dlq replay", "dlq replay --all", "dlq edit", "dlq edit", "dlq job pause", "dlq job pause", "dlq job resume", "dlq job cancel", "audit"}

// act does one of these; every other time one that has not gone through yet.
func (d *desk) act(ctx context.Context) {
	verb := verbs[d.r.IntN(len(verbs))]
	if first := slices.IndexFunc(verbs, func(v string) bool { return d.did[v] == 0 }); first >= 0 && d.r.IntN(2) == 0 {
		verb = verbs[first]
	}
	sending := []string{"--topic", late, "--execute", "--detach", "--why", "chaos", "--rate", strconv.Itoa([]int{5, 50, 500}[d.r.IntN(3)])}
	switch verb {
	case "dlq replay":
		_, _ = d.call(ctx, verb, append([]string{"dlq", "replay", "--code", "registration_not_found"}, sending...)...)
	case "dlq replay --all":
		_, _ = d.call(ctx, verb, append([]string{"dlq", "replay", "--all"}, sending...)...)
	case "dlq edit":
		object := d.r.IntN(4)
		_, _ = d.call(ctx, verb, append([]string{"dlq", "edit", "--code", "lo_not_found", "--replace", fmt.Sprintf("lovCode:LO%d=LO/%d", object, object)}, sending...)...)
	case "dlq job pause":
		d.turn(ctx, "pause", "running")
	case "dlq job resume":
		d.turn(ctx, "resume", "paused")
	case "dlq job cancel":
		d.turn(ctx, "cancel", "paused", "running")
	case "audit":
		if out, err := d.call(ctx, verb, "audit"); err == nil {
			d.audits++
		} else if strings.Contains(out, "faults: ") && !strings.Contains(out, "faults: 0") {
			d.broke(roomSums, "audit, amid the run: %s", tail([]byte(out)))
		}
	}
}

// deskJob is what `dlq jobs` says of a job.
type deskJob struct {
	Job         int64
	Kind, State string
}

func (d *desk) listed(ctx context.Context, states ...string) (all []deskJob, err error) {
	out, err := d.call(ctx, "dlq jobs", "dlq", "jobs", "-f", "json")
	if err != nil {
		return nil, err
	}
	for text := range strings.Lines(out) {
		var j deskJob
		if !strings.HasPrefix(text, "{") {
			continue // a line of the log
		}
		if err := json.Unmarshal([]byte(text), &j); err != nil {
			return nil, fmt.Errorf("dlq jobs: %w: %s", err, text)
		}
		for _, state := range states {
			if j.State == state && j.Job != 0 {
				all = append(all, j)
			}
		}
	}
	return all, nil
}

// turn pauses, resumes or cancels one of the jobs in those states. Those of the
// waiting room are not cancelled: their rows would wait for an hour then.
func (d *desk) turn(ctx context.Context, verb string, states ...string) {
	all, err := d.listed(ctx, states...)
	if verb == "cancel" {
		all = slices.DeleteFunc(all, func(j deskJob) bool { return j.Kind == "release" })
	}
	if err != nil || len(all) == 0 {
		return
	}
	j := all[d.r.IntN(len(all))]
	_, _ = d.call(ctx, "dlq job "+verb, "dlq", "job", verb, strconv.FormatInt(j.Job, 10), "--why", "chaos")
}

// call runs a verb, half of the time over the roads of a process of learnsink.
func (d *desk) call(ctx context.Context, name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	brokers, database := d.kafka.Address, d.postgres.URL()
	if m := d.members[d.r.IntN(len(d.members))]; d.r.IntN(2) == 0 {
		var err error
		if database, err = m.database("desk"); err != nil {
			return "", err
		}
		brokers = m.kafka.Address()
	}
	cmd := exec.CommandContext(ctx, d.binaries[0], args...)
	cmd.Env = d.environment(brokers, database)
	out, err := cmd.CombinedOutput()
	if err == nil {
		d.did[name]++
		return string(out), nil
	}
	d.failed[name]++
	var exit *exec.ExitError
	if strings.Contains(string(out), "panic:") || errors.As(err, &exit) && exit.ExitCode() == 2 {
		d.faultf("learnsink %s: %v: %s", strings.Join(args, " "), err, tail(out))
	}
	if d.verbose {
		say("desk: %s: %v: %s", name, err, tail(out))
	}
	return string(out), err
}

// lookAtRoom looks again and again, past all proxies: what went into the
// waiting room is what position, ledger and rejection say it is.
func (d *desk) lookAtRoom(ctx context.Context) {
	for sleep(ctx, time.Second) {
		looking, cancel := context.WithTimeout(ctx, 3*time.Second)
		var positions, ledger, lines int64
		err := d.db.QueryRow(looking, `SELECT (SELECT coalesce(sum(waiting), 0)::bigint FROM learnsink.position),
			(SELECT coalesce(sum(waiting), 0)::bigint FROM learnsink.ledger WHERE NOT superseded),
			(SELECT count(*) FROM learnsink.rejection WHERE deadline IS NOT NULL)`).Scan(&positions, &ledger, &lines)
		cancel()
		if err != nil {
			continue // the database is away
		}
		if d.sumLooks++; positions != ledger || ledger != lines {
			d.broke(roomSums, "%d rows by position, %d by the ledger, %d dead letters with a deadline", positions, ledger, lines)
		}
	}
}

// rest lets go what is held, and waits until nothing is left to be sent, to be
// judged, or to wait for.
func (d *desk) rest(ctx context.Context) error {
	paused, err := d.listed(ctx, "paused")
	for range 3 {
		if err == nil || !sleep(ctx, time.Second) {
			break
		}
		paused, err = d.listed(ctx, "paused")
	}
	if err != nil {
		return err
	}
	for _, j := range paused {
		if _, err := d.verb(ctx, "dlq", "job", "resume", strconv.FormatInt(j.Job, 10), "--why", "the shift is over"); err != nil {
			d.faultf("a job cannot be resumed: %v", err)
		}
	}
	const most = waitingTime + 40*time.Second
	var left string
	for deadline := time.Now().Add(most); ; {
		err := d.db.QueryRow(ctx, `SELECT concat_ws(', ',
			(SELECT 'job ' || min(id) || ' is ' || min(state) FROM learnsink.job WHERE state IN ('running', 'paused') HAVING count(*) > 0),
			(SELECT count(*) || ' items are ' || state FROM learnsink.job_item WHERE state IN ('pending', 'sent') GROUP BY state ORDER BY state LIMIT 1),
			(SELECT count(*) || ' rows wait' FROM learnsink.rejection WHERE state = 'waiting' HAVING count(*) > 0))`).Scan(&left)
		if err != nil {
			return fmt.Errorf("what the desk has left: %w", err)
		}
		if left == "" {
			return d.watch.rest(ctx, 30*time.Second)
		}
		if time.Now().After(deadline) {
			d.broke(oneOutcome, "%s after the last fault: %s", most, left)
			return nil
		}
		if !sleep(ctx, 100*time.Millisecond) {
			return ctx.Err()
		}
	}
}

// scan reads what a query answers.
func scan[T any](ctx context.Context, d *desk, sql string, args ...any) ([]T, error) {
	rows, err := d.db.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[T])
}

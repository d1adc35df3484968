package main

import (
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/rogpeppe/go-internal/testscript"
	"github.com/twmb/franz-go/pkg/kgo"

	"learnsink/test/kafkatest"
	"learnsink/test/pgtest"
)

// entries puts records onto the catalogue topics, as a platform would:
// entries FILE, whose lines are ["KIND", "KEY", {…}], or null for a tombstone.
func entries(t *testing.T, cluster *kafkatest.Cluster) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		if neg || len(args) != 1 {
			ts.Fatalf("usage: entries FILE")
		}
		say(t, cluster, strings.Split(strings.TrimSpace(ts.ReadFile(args[0])), "\n")...)
	}
}

func say(t testing.TB, cluster *kafkatest.Cluster, lines ...string) {
	t.Helper()
	var records []*kgo.Record
	for _, line := range lines {
		var parts [3]json.RawMessage
		if err := json.Unmarshal([]byte(line), &parts); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		var kind, key string
		json.Unmarshal(parts[0], &kind)
		json.Unmarshal(parts[1], &key)
		r := &kgo.Record{Topic: catalogPrefix + kind, Key: []byte(key)}
		if string(parts[2]) != "null" {
			r.Value = parts[2]
		}
		records = append(records, r)
	}
	cluster.Produce(t, records...)
}

// Of two processes one reads the catalogue topics; where it ends the other
// goes on, and both judge rows by what was read.
func TestCatalogTopicsOfTwoProcesses(t *testing.T) {
	cluster := kafkatest.New(t)
	database := pgtest.New(t)
	t.Setenv("KAFKA_BROKERS", strings.Join(cluster.Brokers, ","))
	t.Setenv("DATABASE_URL", database)
	t.Setenv("LEARNSINK_CONFIG", "")
	t.Setenv("LEARNSINK_CATALOG_TOPICS", "on")
	until := untilTrue(t, database)
	db := connect(t, database)
	var stderr strings.Builder
	if got := run(t.Context(), []string{"topics", "create", "--partitions", "2", "--replication", "1"}, strings.NewReader(""), io.Discard, &stderr); got != exitDone {
		t.Fatal(stderr.String())
	}
	type process struct {
		people string
		stop   context.CancelFunc
		done   chan int
	}
	start := func() *process {
		p := &process{people: freeAddress(t), done: make(chan int, 1)}
		var ctx context.Context
		ctx, p.stop = context.WithCancel(t.Context())
		go func() {
			p.done <- run(ctx, []string{"serve", "--http", p.people}, strings.NewReader(""), io.Discard, t.Output())
		}()
		awaitReady(t, "http://"+p.people)
		return p
	}
	reads := func(p *process) bool {
		_, body := get(t, "http://"+p.people+"/metrics")
		return strings.Contains(body, "\nlearnsink_catalogue_reader 1")
	}
	first, second := start(), start()
	say(t, cluster, `["learners","ann",{"login":"ann"}]`, `["teachers","tea",{"login":"tea"}]`)
	until("ann has come", `SELECT EXISTS (SELECT FROM learnsink.learner WHERE login = 'ann')`)
	if reads(second) {
		first, second = second, first
	}
	if !reads(first) || reads(second) {
		t.Fatal("not one of two reads")
	}
	first.stop()
	if got := <-first.done; got != exitDone {
		t.Errorf("exit %d when told to stop", got)
	}
	say(t, cluster, `["learners","bob",{"login":"bob"}]`, `["learners","ann",null]`)
	until("bob has come, and ann has gone", `SELECT count(*) = 1 AND min(login) = 'bob' FROM learnsink.learner`)
	if !reads(second) {
		t.Error("nobody reads")
	}
	second.stop()
	if got := <-second.done; got != exitDone {
		t.Errorf("exit %d when told to stop", got)
	}
	var records int
	if err := db.QueryRow(t.Context(), `SELECT sum(records) FROM learnsink.catalogue_position`).Scan(&records); err != nil || records != 4 {
		t.Errorf("%d records were read, of 4: %v", records, err)
	}
}

func connect(t *testing.T, database string) *pgx.Conn {
	t.Helper()
	db, err := pgx.Connect(t.Context(), database)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close(context.Background()) })
	return db
}

// untilTrue returns what waits until a query says true.
func untilTrue(t *testing.T, database string) func(what, query string) {
	db := connect(t, database)
	return func(what, query string) {
		t.Helper()
		for begun := time.Now(); ; time.Sleep(20 * time.Millisecond) {
			var done bool
			if err := db.QueryRow(t.Context(), query).Scan(&done); err != nil {
				t.Fatal(err)
			}
			if done {
				return
			}
			if time.Since(begun) > 30*time.Second {
				t.Fatalf("not in 30 s: %s", what)
			}
		}
	}
}

// A row that waits for a registration is let out of the waiting room, and
// applied, when that comes as an event.
func TestCatalogEventReleasesWaitingRows(t *testing.T) {
	cluster := kafkatest.New(t)
	database := pgtest.New(t)
	config := filepath.Join(t.TempDir(), "learnsink.yaml")
	if err := os.WriteFile(config, []byte(`catalogTopics: on
sources: [{topic: learning.tracking, action: tracking, onMissingReference: wait}]
`), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("KAFKA_BROKERS", strings.Join(cluster.Brokers, ","))
	t.Setenv("DATABASE_URL", database)
	t.Setenv("LEARNSINK_CONFIG", config)
	until := untilTrue(t, database)
	must := func(stdin string, args ...string) {
		t.Helper()
		var stderr strings.Builder
		if got := run(t.Context(), args, strings.NewReader(stdin), io.Discard, &stderr); got != exitDone {
			t.Fatalf("learnsink %s: exit %d\n%s", strings.Join(args, " "), got, &stderr)
		}
	}
	must("", "topics", "create", "--partitions", "1", "--replication", "1")
	say(t, cluster, `["learning_objects","lo",{"guid":"lo"}]`, `["trainings","1",{"id":1}]`, `["sessions","11",{"id":11,"trainingId":1}]`)
	must(`{"candidateLogin":"ann","lovGuid":"lo","sessionId":11,"trackingStatus":"completed"}`, "send", "--action", "tracking", "-")
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan int, 1)
	go func() {
		done <- run(ctx, []string{"serve", "--http", "off"}, strings.NewReader(""), io.Discard, t.Output())
	}()
	until("the row waits", `SELECT count(*) = 1 FROM learnsink.rejection WHERE state = 'waiting'`)
	registration := `{"learnerLogin":"ann","sessionId":11}`
	say(t, cluster, `["registrations",`+strconv.Quote(registration)+`,`+registration+`]`)
	until("the registration waits, too", `SELECT count(*) = 1 FROM learnsink.catalogue_waiting_registration`)
	say(t, cluster, `["learners","ann",{"login":"ann"}]`)
	until("the row is let out, and applied", `SELECT EXISTS (SELECT FROM learnsink.tracking) AND EXISTS (SELECT FROM learnsink.rejection WHERE state = 'resolved')`)
	stop()
	if got := <-done; got != exitDone {
		t.Errorf("exit %d when told to stop", got)
	}
	must("", "audit", "--deep")
}

func TestCatalogTopicThatForgetsIsUnfit(t *testing.T) {
	for _, c := range []struct {
		policy, tombstones string
		unfit              bool
		remark             string
	}{
		{"compact", "2592000000", false, ""},
		{"delete", "2592000000", true, "cleanup.policy is delete: entries vanish that are not said again; set it to compact"},
		{"compact,delete", "2592000000", true, "cleanup.policy is compact,delete: entries vanish that are not said again; set it to compact"},
		{"compact", "86400000", false, "delete.retention.ms is 1d: a tombstone is not heard of by a learnsink that is away for longer"},
	} {
		unfit, remarks := catalogRemarks(map[string]string{"cleanup.policy": c.policy, "delete.retention.ms": c.tombstones})
		if got := strings.Join(remarks, "; "); unfit != c.unfit || got != c.remark {
			t.Errorf("%s, %s: %v, %q", c.policy, c.tombstones, unfit, got)
		}
	}
}

package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/rogpeppe/go-internal/testscript"

	"learnsink/store"
	"learnsink/test/kafkatest"
	"learnsink/test/pgtest"
)

// The stories of testdata/server have a broker and an empty database.
func TestServerScripts(t *testing.T) {
	stories, err := filepath.Glob(filepath.Join("testdata", "server", "*.txtar"))
	if err != nil || len(stories) == 0 {
		t.Fatalf("%d stories, %v", len(stories), err)
	}
	for _, story := range stories {
		t.Run(strings.TrimSuffix(filepath.Base(story), ".txtar"), func(t *testing.T) {
			t.Parallel() // they wait for much
			database, cluster := pgtest.Empty(t), kafkatest.New(t)
			testscript.Run(t, testscript.Params{
				Files: []string{story}, RequireExplicitExec: true,
				Cmds: map[string]func(*testscript.TestScript, bool, []string){"code": code, "now": now, "sql": sql, "capture": capture, "entries": entries(t, cluster), "job": makeJob},
				Setup: func(e *testscript.Env) error {
					e.Setenv("KAFKA_BROKERS", strings.Join(cluster.Brokers, ","))
					e.Setenv("DATABASE_URL", database)
					e.Setenv("LEARNSINK_LOG_FORMAT", "json")
					return nil
				},
			})
		})
	}
}

// sql runs a statement: what no verb does.
func sql(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: sql STATEMENT")
	}
	conn, err := pgx.Connect(context.Background(), ts.Getenv("DATABASE_URL"))
	ts.Check(err)
	defer conn.Close(context.Background())
	_, err = conn.Exec(context.Background(), args[0])
	ts.Check(err)
}

// makeJob makes a job of dead letters, as they were: job KIND RATE ID….
func makeJob(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 {
		ts.Fatalf("usage: job KIND RATE ID…")
	}
	rate, err := strconv.Atoi(args[1])
	ts.Check(err)
	db, err := store.Open(context.Background(), store.Config{URL: ts.Getenv("DATABASE_URL")})
	ts.Check(err)
	defer db.Close()
	_, frozen, err := db.CreateJob(context.Background(), store.NewJob{Kind: args[0], Actor: "ann", Why: "a test", Rate: rate}, func(yield func(store.JobItem, error) bool) {
		for _, id := range args[2:] {
			if !yield(store.JobItem{Rejection: id}, nil) {
				return
			}
		}
	})
	ts.Check(err)
	if frozen != int64(len(args)-2) {
		ts.Fatalf("the job has %d rows", frozen)
	}
}

// What serve shows over HTTP, and that it stops when told to.
func TestServeOverHTTP(t *testing.T) {
	t.Setenv("KAFKA_BROKERS", strings.Join(kafkatest.New(t).Brokers, ","))
	t.Setenv("DATABASE_URL", pgtest.New(t))
	t.Setenv("LEARNSINK_CONFIG", "")
	must := func(args ...string) {
		t.Helper()
		var stderr strings.Builder
		if got := run(t.Context(), args, strings.NewReader(""), io.Discard, &stderr); got != exitDone {
			t.Fatalf("learnsink %s: exit %d\n%s", strings.Join(args, " "), got, &stderr)
		}
	}
	must("topics", "create", "--partitions", "1", "--replication", "1")
	people, machines := freeAddress(t), freeAddress(t)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan int)
	go func() {
		done <- run(ctx, []string{"serve", "--http", people, "--metrics", machines}, strings.NewReader(""), io.Discard, t.Output())
	}()

	awaitReady(t, "http://"+people)
	must("healthcheck", "--http", people)
	for path, want := range map[string]string{"/healthz": "alive", "/": "http://" + people + "/check?action=tracking", "/readyz": `"ready":true`} {
		if status, body := get(t, "http://"+people+path); status != http.StatusOK || !strings.Contains(body, want) {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
	if status, _ := get(t, "http://"+machines+"/"); status != http.StatusNotFound {
		t.Errorf("the page for people is served to machines: %d", status)
	}

	for address, want := range map[string]int{people: http.StatusServiceUnavailable, machines: http.StatusNotFound} { // there is no catalogue
		response, err := http.Post("http://"+address+"/check?action=tracking", "application/x-ndjson", strings.NewReader("{}\n"))
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != want {
			t.Errorf("POST /check on %s: %d, want %d", address, response.StatusCode, want)
		}
	}

	_, metrics := get(t, "http://"+machines+"/metrics")
	for _, want := range []string{"learnsink_database_up 1", "learnsink_group_member 1", "learnsink_outbox_entries 0", "learnsink_catalogue_version 0", `learnsink_jobs{state="running"} 0`, "learnsink_job_rows_left 0", `learnsink_check_requests_total{status="503"} 1`, "go_goroutines"} {
		if !strings.Contains(metrics, "\n"+want) {
			t.Errorf("%s is not among the metrics", want)
		}
	}

	// POST /check judges by the catalogue of now, which this process, that has
	// nothing to apply, was not told of.
	row := `{"candidateLogin":"ines","lovCode":"FIRE-1","sessionGuid":"se-1"}` + "\n"
	judged := func(want string) {
		t.Helper()
		response, err := http.Post("http://"+people+"/check?action=tracking", "application/x-ndjson", strings.NewReader(row))
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		text, err := io.ReadAll(response.Body)
		if err != nil || response.StatusCode != http.StatusOK || !strings.HasPrefix(string(text), `{"line":1,"verdict":"`+want+`",`) || response.Trailer.Get("Learnsink-Rows") != "1" {
			t.Errorf("%d %v, not %s: %s", response.StatusCode, err, want, text)
		}
	}
	catalog := t.TempDir()
	load := func(files map[string]string) {
		t.Helper()
		for name, text := range files {
			if err := os.WriteFile(filepath.Join(catalog, name+".csv"), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		must("catalog", "load", catalog)
	}
	load(map[string]string{"learners": "login\nines\n", "learning_objects": "guid,code\nlo-1,FIRE-1\n", "trainings": "id,pathCode\n1,SAFE\n", "sessions": "id,guid,trainingId\n1,se-1,1\n"})
	judged("rejected")
	load(map[string]string{"registrations": "learnerLogin,sessionGuid\nines,se-1\n"})
	judged("accepted")

	stop()
	if got := <-done; got != exitDone {
		t.Errorf("exit %d when told to stop", got)
	}
	if _, err := http.Get("http://" + people + "/healthz"); err == nil {
		t.Error("it still answers")
	}
}

func freeAddress(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	response, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(body)
}

// awaitReady asks until serve is ready; what it lacks is in the failure.
func awaitReady(t *testing.T, url string) {
	t.Helper()
	last := ""
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); <-tick.C {
		response, err := http.Get(url + "/readyz")
		if err != nil {
			last = err.Error()
			continue
		}
		body, _ := io.ReadAll(response.Body)
		response.Body.Close()
		if response.StatusCode == http.StatusOK {
			return
		}
		last = fmt.Sprint(response.StatusCode, " ", string(body))
	}
	t.Fatalf("not ready: %s", last)
}

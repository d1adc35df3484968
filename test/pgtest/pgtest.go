// Package pgtest gives every test a PostgreSQL database of its own.
//
// New clones a migrated template, Empty an unmigrated one; both are dropped
// when the test ends. The server is the first of:
//
//  1. DATABASE_URL. Its user must be allowed to create databases; the
//     databases it names are not touched. A template is left there for the
//     next run (learnsink_template_…).
//  2. a private server of this machine's own binaries (pgserver.Find)
//  3. a container of postgres:17, where a Docker engine answers
//  4. a private server of binaries that are fetched once (pgserver.Fetch)
//
// Without any of them the test is skipped, and says why; where
// LEARNSINK_TEST_REQUIRE names postgres it fails. One server serves a test
// process and ends with it.
package pgtest

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/testcontainers/testcontainers-go"
	"github.com/testcontainers/testcontainers-go/log"
	"github.com/testcontainers/testcontainers-go/wait"

	"learnsink/store"
	"learnsink/test/pgserver"
)

// New returns the URL of a fresh database with learnsink's schema.
func New(t testing.TB) string {
	t.Helper()
	s := need(t)
	template, err := s.template()
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	return s.create(t, "TEMPLATE "+template)
}

// Empty returns the URL of a fresh database without any schema.
func Empty(t testing.TB) string {
	t.Helper()
	s := need(t)
	return s.create(t, s.collation)
}

// server is the one server of this test process.
type server struct {
	url       string // of a database whose user may create others
	name      string // what it is, for the log
	collation string // clauses of CREATE DATABASE
	why       string // why there is none; then all else is empty
	template  func() (string, error)
}

// One server a process: finding and starting one takes seconds. (It is state
// of the package, and has to be: tests share nothing else.)
var shared = sync.OnceValue(find)

func need(t testing.TB) *server {
	t.Helper()
	s := shared()
	if s.why == "" {
		t.Logf("pgtest: runs on %s", s.name)
		return s
	}
	if slices.Contains(strings.Split(os.Getenv("LEARNSINK_TEST_REQUIRE"), ","), "postgres") {
		t.Fatalf("pgtest: PostgreSQL is required: %s", s.why)
	}
	t.Skipf("pgtest: no PostgreSQL: %s", s.why)
	return nil
}

// find finds or starts a server, in the order of the package's comment.
func find() *server {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	s := &server{}
	s.template = sync.OnceValues(s.makeTemplate)
	var faults []error
	for _, way := range []func(context.Context) (url, name string, err error){given, local, docker, fetched} {
		url, name, err := way(ctx)
		if err == nil {
			err = s.use(ctx, url)
		}
		if err == nil {
			s.name = name
			return s
		}
		if os.Getenv("DATABASE_URL") != "" {
			// Whoever named a server wants that one, and no other in its place.
			s.why = err.Error()
			return s
		}
		faults = append(faults, err)
	}
	s.why = errors.Join(faults...).Error()
	return s
}

// use makes url the server, if it is fit. Where the server knows ICU, its
// databases sort as English does: a query that forgets COLLATE "C" shows.
func (s *server) use(ctx context.Context, url string) error {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	s.url = url
	s.collation = "TEMPLATE template0 ENCODING 'UTF8'"
	var icu bool
	if err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_collation WHERE collname = 'en-US-x-icu')").Scan(&icu); err != nil {
		return err
	}
	if icu {
		s.collation += " LOCALE_PROVIDER icu ICU_LOCALE 'en-US'"
	}
	return sweep(ctx, conn)
}

func given(context.Context) (string, string, error) {
	url := os.Getenv("DATABASE_URL")
	if url == "" {
		return "", "", errors.New("DATABASE_URL is not set")
	}
	return url, "DATABASE_URL", nil
}

func local(ctx context.Context) (string, string, error) {
	bin, found := pgserver.Find()
	if !found {
		return "", "", errors.New("no PostgreSQL 15 or later on PATH or in the usual places")
	}
	return private(ctx, bin)
}

func fetched(ctx context.Context) (string, string, error) {
	bin, err := pgserver.Fetch(ctx)
	if err != nil {
		return "", "", err
	}
	return private(ctx, bin)
}

// private starts a server that ends with this process.
func private(ctx context.Context, bin string) (string, string, error) {
	s, err := pgserver.Start(ctx, pgserver.Options{Bin: bin})
	if err != nil {
		return "", "", err
	}
	return s.URL(), s.String(), nil
}

// docker starts a container. testcontainers' reaper removes it after this
// process; where the reaper is turned off, a shell that reads a pipe of ours does.
func docker(ctx context.Context) (_, _ string, err error) {
	defer func() {
		// testcontainers panics where it cannot make out any engine.
		if r := recover(); r != nil {
			err = fmt.Errorf("docker: %v", r)
		}
		if err != nil {
			err = fmt.Errorf("docker: %w", err)
		}
	}()
	quiet := log.TestLogger(silent{})
	provider, err := testcontainers.NewDockerProvider(testcontainers.WithLogger(quiet))
	if err != nil {
		return "", "", err
	}
	defer provider.Close()
	if err := provider.Health(ctx); err != nil {
		return "", "", err
	}
	const image = "postgres:17"
	password := rand.Text()
	c, err := testcontainers.Run(ctx, image, testcontainers.WithLogger(quiet),
		testcontainers.WithEnv(map[string]string{"POSTGRES_PASSWORD": password}),
		testcontainers.WithExposedPorts("5432/tcp"),
		testcontainers.WithCmd("postgres", "-c", "fsync=off", "-c", "full_page_writes=off", "-c", "max_connections=200"),
		testcontainers.WithWaitStrategyAndDeadline(2*time.Minute,
			wait.ForLog("database system is ready to accept connections").WithOccurrence(2), wait.ForListeningPort("5432/tcp")))
	if c != nil && os.Getenv("TESTCONTAINERS_RYUK_DISABLED") != "" {
		reap := exec.Command("/bin/sh", "-c", `cat >/dev/null; docker rm -fv "$1" >/dev/null 2>&1`, "reap", c.GetContainerID())
		if _, pipeErr := reap.StdinPipe(); pipeErr == nil && reap.Start() == nil {
			go reap.Wait() // which holds on to the pipe: it closes when this process ends
		}
	}
	if err != nil {
		return "", "", errors.Join(err, testcontainers.TerminateContainer(c)) // it may have come half way
	}
	host, err := c.PortEndpoint(ctx, "5432/tcp", "")
	if err != nil {
		return "", "", err
	}
	return (&url.URL{Scheme: "postgres", User: url.UserPassword("postgres", password), Host: host,
		Path: "postgres", RawQuery: "sslmode=disable"}).String(), "a container of " + image, nil
}

// silent is a log that nobody reads.
type silent struct{ testing.TB }

func (silent) Logf(string, ...any) {}
func (silent) Helper()             {}

// makeTemplate returns the name of the migrated template, which it makes where
// it is not there. The name tells the migrations: a server that is given keeps
// one for each. It is built under another name, so that one half made is never
// taken for whole, and under a lock, since other processes want it too.
func (s *server) makeTemplate() (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	conn, err := pgx.Connect(ctx, s.url)
	if err != nil {
		return "", err
	}
	defer conn.Close(ctx)
	if _, err := conn.Exec(ctx, "SELECT pg_advisory_lock(hashtext('learnsink pgtest'))"); err != nil {
		return "", err
	}
	building := "learnsink_building"
	drop := "DROP DATABASE IF EXISTS " + building + " WITH (FORCE)"
	if _, err := conn.Exec(ctx, drop); err != nil {
		return "", err
	}
	if _, err := conn.Exec(ctx, "CREATE DATABASE "+building+" "+s.collation); err != nil {
		return "", err
	}
	at, err := database(s.url, building)
	if err != nil {
		return "", err
	}
	cfg := store.Config{URL: at, ApplicationName: "pgtest"}
	text, err := store.MigrationSQL(ctx, cfg)
	if err != nil {
		return "", err
	}
	hash := sha256.Sum256([]byte(s.collation + text))
	name := "learnsink_template_" + hex.EncodeToString(hash[:6])
	var there bool
	if err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", name).Scan(&there); err != nil {
		return "", err
	}
	if there {
		_, err := conn.Exec(ctx, drop)
		return name, err
	}
	if _, err := store.Migrate(ctx, cfg); err != nil {
		return "", err
	}
	_, err = conn.Exec(ctx, "ALTER DATABASE "+building+" RENAME TO "+name)
	return name, err
}

const testPrefix = "learnsink_test_"

// create makes a database for t, by the clauses given, and drops it when t ends.
func (s *server) create(t testing.TB, clauses string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	conn, err := pgx.Connect(ctx, s.url)
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	defer conn.Close(ctx)
	name := testPrefix + strconv.FormatInt(time.Now().Unix(), 10) + "_" + strings.ToLower(rand.Text()[:8])
	if _, err := conn.Exec(ctx, "CREATE DATABASE "+name+" "+clauses); err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		conn, err := pgx.Connect(ctx, s.url)
		if err != nil {
			t.Errorf("pgtest: %v", err)
			return
		}
		defer conn.Close(ctx)
		if _, err := conn.Exec(ctx, "DROP DATABASE "+name+" WITH (FORCE)"); err != nil {
			t.Errorf("pgtest: %v", err)
		}
	})
	at, err := database(s.url, name)
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	return at
}

// sweep drops what tests of an hour ago and more have left: they were killed.
func sweep(ctx context.Context, conn *pgx.Conn) error {
	rows, err := conn.Query(ctx, "SELECT datname FROM pg_database WHERE starts_with(datname, $1)", testPrefix)
	if err != nil {
		return err
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return err
	}
	for _, name := range names {
		made, _, _ := strings.Cut(strings.TrimPrefix(name, testPrefix), "_")
		seconds, err := strconv.ParseInt(made, 10, 64)
		if err != nil || time.Since(time.Unix(seconds, 0)) < time.Hour {
			continue
		}
		if _, err := conn.Exec(ctx, "DROP DATABASE IF EXISTS "+pgx.Identifier{name}.Sanitize()+" WITH (FORCE)"); err != nil {
			return err
		}
	}
	return nil
}

// database returns the URL with another database's name.
func database(address, name string) (string, error) {
	if !strings.Contains(address, "://") {
		return address + " dbname=" + name, nil // key=value pairs: the last one holds
	}
	u, err := url.Parse(address)
	if err != nil {
		return "", errors.New("DATABASE_URL cannot be read as a URL") // without what it holds
	}
	u.Path = "/" + name
	return u.String(), nil
}

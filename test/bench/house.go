package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"learnsink/test/kafkaserver"
	"learnsink/test/pgserver"
	"learnsink/test/reaper"
)

// bench is the house in which everything is measured.
type bench struct {
	options
	dir      string
	reaper   *reaper.Reaper
	builds   []build
	brokers  string
	database string // URL
	postgres *pgserver.Server
	db       *pgxpool.Pool // of the server's database `postgres`
	kafka    *kafkaserver.Server
	client   *kgo.Client
	admin    *kadm.Client
	runs     int // so far: their names differ

	brokerPID, postgresPID int
	topics                 map[string]bool // that have been looked at
	expectations           map[set]expectation
}

// build is a build of learnsink.
type build struct {
	name, path string
	schema     string // what its migrations are, in short
}

// open builds learnsink and starts the servers, or finds them.
func open(ctx context.Context, o options) (b *bench, err error) {
	b = &bench{options: o, topics: map[string]bool{}, expectations: map[set]expectation{}}
	if b.reaper, err = reaper.New(); err != nil {
		return nil, err
	}
	if b.dir, err = os.MkdirTemp("", "learnsink-bench-"); err != nil {
		return nil, err
	}
	house := b // where it fails, nothing is returned
	defer func() {
		if err != nil {
			house.close()
		}
	}()
	if err := os.Chmod(b.dir, 0o755); err != nil { // PostgreSQL may run as another user
		return nil, err
	}
	if err := b.startPostgres(ctx); err != nil {
		return nil, err
	}
	if err := b.startKafka(ctx); err != nil {
		return nil, err
	}
	if b.hold {
		return b, nil
	}
	return b, b.build(ctx)
}

// startPostgres starts a PostgreSQL with the settings that it has by itself:
// durable, on disk, 128 MB of shared buffers.
func (b *bench) startPostgres(ctx context.Context) (err error) {
	if b.database = os.Getenv("DATABASE_URL"); b.database == "" {
		say("PostgreSQL starts")
		if b.postgres, err = pgserver.Start(ctx, pgserver.Options{Dir: b.dir, Durable: true}); err != nil {
			return err
		}
		b.database = b.postgres.URL()
	}
	config, err := pgxpool.ParseConfig(b.database)
	if err != nil {
		return err
	}
	if b.db, err = pgxpool.NewWithConfig(ctx, config); err != nil {
		return err
	}
	var version, commit, fsync string
	if err := b.db.QueryRow(ctx, "SELECT current_setting('server_version'), current_setting('synchronous_commit'), current_setting('fsync')").Scan(&version, &commit, &fsync); err != nil {
		return fmt.Errorf("the database: %w", err)
	}
	b.postgresPID = listening(fmt.Sprintf("%s:%d", config.ConnConfig.Host, config.ConnConfig.Port))
	say("PostgreSQL %s, fsync %s, synchronous_commit %s", version, fsync, commit)
	return nil
}

func (b *bench) startKafka(ctx context.Context) (err error) {
	if b.brokers = os.Getenv("KAFKA_BROKERS"); b.brokers == "" {
		say("Apache Kafka starts")
		if b.kafka, err = kafkaserver.Start(ctx, kafkaserver.Options{Dir: filepath.Join(b.dir, "kafka"), Reaper: b.reaper, Group: "bench", Warm: true, Say: say}); err != nil {
			return err
		}
		b.brokers = b.kafka.Address
	}
	first, _, _ := strings.Cut(b.brokers, ",")
	b.brokerPID = listening(first)
	if b.client, err = kgo.NewClient(kgo.SeedBrokers(strings.Split(b.brokers, ",")...), kgo.MetadataMinAge(50*time.Millisecond)); err != nil {
		return err
	}
	b.admin = kadm.NewClient(b.client)
	if _, err := b.admin.ListBrokers(ctx); err != nil {
		return fmt.Errorf("broker at %s: %w", b.brokers, err)
	}
	return nil
}

// build builds this learnsink, as `go build` does, and takes the other builds
// that are to be measured beside it.
func (b *bench) build(ctx context.Context) error {
	path := filepath.Join(b.dir, "learnsink")
	args := []string{"build", "-o", path}
	if b.profile != "" {
		overlay, err := b.profiled()
		if err != nil {
			return err
		}
		args = append(args, "-overlay", overlay)
	}
	if out, err := exec.CommandContext(ctx, "go", append(args, "learnsink/cmd/learnsink")...).CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w: %s", err, out)
	}
	b.builds = []build{{name: learnsink, path: path}}
	for _, text := range b.binaries {
		name, path, ok := strings.Cut(text, "=")
		if !ok {
			return fmt.Errorf("--binaries: %q is not name=path", text)
		}
		path, err := filepath.Abs(path)
		if err != nil {
			return err
		}
		b.builds = append(b.builds, build{name: name, path: path})
	}
	database, err := b.create(ctx, "")
	if err != nil {
		return err
	}
	defer b.drop(context.WithoutCancel(ctx), database)
	for i := range b.builds {
		sql, err := b.verb(ctx, b.builds[i], database, "migrate", "--dry-run")
		if err != nil {
			return err
		}
		b.builds[i].schema = fmt.Sprintf("%x", sha256.Sum256(sql))[:8]
	}
	return nil
}

// verb runs a verb of learnsink to its end, and returns its standard output.
func (b *bench) verb(ctx context.Context, build build, database string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, build.path, args...)
	var complaint strings.Builder
	cmd.Env, cmd.Stderr = b.environment(database), &complaint
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("learnsink %s: %w: %s", strings.Join(args, " "), err, complaint.String())
	}
	return out, err
}

// environment is that of a process of learnsink. Go's own settings (GOGC,
// GOMAXPROCS and so on) pass through, to try them.
func (b *bench) environment(database string, more ...string) []string {
	env := append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + b.dir, "TMPDIR=" + os.TempDir(), "KAFKA_BROKERS=" + b.brokers, "DATABASE_URL=" + database}, more...)
	for _, v := range os.Environ() {
		if strings.HasPrefix(v, "GO") {
			env = append(env, v)
		}
	}
	return env
}

// create makes a database from a template, or an empty one, and returns its URL.
func (b *bench) create(ctx context.Context, template string) (string, error) {
	b.runs++
	name := fmt.Sprintf("bench_run_%d_%d", os.Getpid(), b.runs)
	sql := "CREATE DATABASE " + name
	if template != "" {
		// Copied as files, and not through the log: that would be half the bench's time.
		sql += " TEMPLATE " + template + " STRATEGY file_copy"
	}
	if _, err := b.db.Exec(ctx, sql); err != nil {
		return "", fmt.Errorf("create a database: %w", err)
	}
	return b.url(name)
}

func (b *bench) url(database string) (string, error) {
	u, err := url.Parse(b.database)
	if err != nil {
		return "", err
	}
	u.Path = "/" + database
	return u.String(), nil
}

// databaseOf is the name of the database in a URL of ours.
func databaseOf(url string) string {
	path, _, _ := strings.Cut(url[strings.LastIndexByte(url, '/')+1:], "?")
	return path
}

func (b *bench) drop(ctx context.Context, url string) {
	if _, err := b.db.Exec(ctx, "DROP DATABASE IF EXISTS "+databaseOf(url)+" WITH (FORCE)"); err != nil {
		say("drop %s: %v", databaseOf(url), err)
	}
}

// template returns the name of a database with the schema of a build, a
// catalogue and so many rows in tracking. It is made where it is not there.
func (b *bench) template(ctx context.Context, build build, w world, tableRows int) (string, error) {
	name := fmt.Sprintf("bench_%s_%d", build.schema, w.learners)
	catalogue := func(ctx context.Context, url string, conn *pgx.Conn) error {
		say("a catalogue of %d learners is made", w.learners)
		if _, err := b.verb(ctx, build, url, "migrate"); err != nil {
			return err
		}
		return b.fillCatalogue(ctx, conn, w)
	}
	fill := func(ctx context.Context, _ string, conn *pgx.Conn) error {
		say("%d rows are put into the table", tableRows)
		// The key's index is made once they are there: it takes a tenth of the time.
		return all(ctx, conn, "SET maintenance_work_mem = '1GB'; SET max_parallel_maintenance_workers = 0",
			"ALTER TABLE learnsink.tracking DROP CONSTRAINT tracking_pkey", w.fillSQL(tableRows),
			"ALTER TABLE learnsink.tracking ADD PRIMARY KEY (registration_id, learning_object_id)")
	}
	filled := fmt.Sprintf("%s_%d", name, tableRows)
	switch {
	case tableRows == 0:
		return name, b.make(ctx, name, "", catalogue)
	case w.learners > large: // no disk is wasted on one without rows
		return filled, b.make(ctx, filled, "", func(ctx context.Context, url string, conn *pgx.Conn) error {
			return errors.Join(catalogue(ctx, url, conn), fill(ctx, url, conn))
		})
	}
	if err := b.make(ctx, name, "", catalogue); err != nil {
		return "", err
	}
	return filled, b.make(ctx, filled, name, fill)
}

// large is a catalogue of gigabytes.
const large = 5_000_000

// fillCatalogue fills the catalogue; keys and indexes are made once it is there,
// or ten million learners would take all day.
func (b *bench) fillCatalogue(ctx context.Context, conn *pgx.Conn, w world) error {
	rows, err := conn.Query(ctx, `
SELECT format('ALTER TABLE %s DROP CONSTRAINT %I', conrelid::regclass, conname), format('ALTER TABLE %s ADD CONSTRAINT %I %s', conrelid::regclass, conname, pg_get_constraintdef(oid))
FROM pg_constraint WHERE contype IN ('p', 'u') AND conrelid IN ('learnsink.registration'::regclass, 'learnsink.learner'::regclass)
UNION ALL
SELECT 'DROP INDEX ' || indexrelid::regclass, pg_get_indexdef(indexrelid)
FROM pg_index WHERE indrelid IN ('learnsink.registration'::regclass, 'learnsink.learner'::regclass) AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid)`)
	if err != nil {
		return err
	}
	statements := []string{"SET synchronous_commit = off; SET maintenance_work_mem = '1GB'"}
	var drop, add string
	var again []string
	if _, err := pgx.ForEachRow(rows, []any{&drop, &add}, func() error {
		statements, again = append(statements, drop), append(again, add)
		return nil
	}); err != nil {
		return err
	}
	return all(ctx, conn, append(append(statements, w.catalogueSQL()), again...)...)
}

// dropTemplates drops what only unusual loads need: gigabytes.
func (b *bench) dropTemplates(ctx context.Context, usual load) {
	rows, err := b.db.Query(ctx, "SELECT datname FROM pg_database WHERE datname ~ '^bench_[0-9a-f]{8}_'")
	if err != nil {
		say("drop templates: %v", err)
		return
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		say("drop templates: %v", err)
		return
	}
	for _, name := range names {
		if size := name[len("bench_01234567"):]; size == fmt.Sprintf("_%d", usual.learners) || size == fmt.Sprintf("_%d_%d", usual.learners, usual.tableRows) {
			continue
		}
		if url, err := b.url(name); err == nil {
			b.drop(ctx, url)
		}
	}
}

func all(ctx context.Context, conn *pgx.Conn, statements ...string) error {
	for _, sql := range statements {
		if _, err := conn.PgConn().Exec(ctx, sql).ReadAll(); err != nil {
			return err
		}
	}
	return nil
}

// make makes a template, under another name until it is whole.
func (b *bench) make(ctx context.Context, name, from string, fill func(ctx context.Context, url string, conn *pgx.Conn) error) (err error) {
	var there bool
	if err := b.db.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", name).Scan(&there); err != nil || there {
		return err
	}
	url, err := b.create(ctx, from)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			b.drop(context.WithoutCancel(ctx), url)
			err = fmt.Errorf("make the database %s: %w", name, err)
		}
	}()
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	// Frozen, with all hints set: else the first to read a page would write it.
	err = errors.Join(fill(ctx, url, conn), all(ctx, conn, "VACUUM (FREEZE, ANALYZE)"), conn.Close(ctx))
	if err != nil {
		return err
	}
	_, err = b.db.Exec(ctx, "ALTER DATABASE "+databaseOf(url)+" RENAME TO "+name)
	return err
}

// close ends what was started, and removes what was written.
func (b *bench) close() {
	if b.client != nil {
		b.client.Close()
	}
	if b.kafka != nil {
		b.kafka.Close()
	}
	if b.db != nil {
		b.db.Close()
	}
	b.reaper.Close()
	if b.postgres != nil {
		if err := b.postgres.Stop(); err != nil {
			say("PostgreSQL: %v", err)
		}
	}
	if err := os.RemoveAll(b.dir); err != nil {
		say("%v", err)
	}
}

package store

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
)

//go:embed migrations/*.sql
var migrations embed.FS

// versionTable is goose's own, beside the tables whose version it keeps.
const versionTable = "learnsink.goose_db_version"

// ErrSchema: the database's schema is not the one that this program works
// with, or there is none yet.
var ErrSchema = errors.New("the database's schema does not fit: run `learnsink migrate`")

// Migrate brings the schema up to date and returns the names of the
// migrations that it applied; none where nothing was to be done. Several at
// once wait for each other (an advisory lock). Migrations only go forward.
func Migrate(ctx context.Context, cfg Config) (applied []string, err error) {
	defer wrap(&err, "migrate")
	db, err := openMigrations(ctx, cfg)
	if err != nil {
		return nil, err
	}
	defer db.Close()
	// goose's own locker, held around all that goose does: by itself it looks
	// for what is pending, and makes its version table for that, unlocked.
	locker, err := lock.NewPostgresSessionLocker(lock.WithLockTimeout(1, 300)) // tries once a second, for five minutes
	if err != nil {
		return nil, err
	}
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if err := locker.SessionLock(ctx, conn); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, locker.SessionUnlock(context.WithoutCancel(ctx), conn)) }()
	if _, err := conn.ExecContext(ctx, createSchema); err != nil {
		return nil, err
	}
	provider, err := newProvider(db)
	if err != nil {
		return nil, err
	}
	results, err := provider.Up(ctx)
	var partial *goose.PartialError
	if errors.As(err, &partial) {
		results = partial.Applied
	}
	for _, r := range results {
		applied = append(applied, path.Base(r.Source.Path))
	}
	return applied, err
}

const createSchema = "CREATE SCHEMA IF NOT EXISTS learnsink"

// MigrationSQL returns the SQL that Migrate would run, "" where there is
// nothing to do. It changes nothing, and works on an empty database too. What
// it leaves out is goose's bookkeeping: it is for reading, Migrate for doing.
func MigrationSQL(ctx context.Context, cfg Config) (text string, err error) {
	defer wrap(&err, "migrate")
	db, err := openMigrations(ctx, cfg)
	if err != nil {
		return "", err
	}
	defer db.Close()
	conn, err := db.Conn(ctx)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	var there bool
	if err := conn.QueryRowContext(ctx, "SELECT to_regclass($1) IS NOT NULL", versionTable).Scan(&there); err != nil {
		return "", err
	}
	var version int64
	if there {
		if err := conn.QueryRowContext(ctx, selectVersion).Scan(&version); err != nil {
			return "", err
		}
	}
	provider, err := newProvider(db)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	if !there {
		b.WriteString(createSchema + ";\n\n")
	}
	for _, source := range provider.ListSources() {
		if source.Version <= version {
			continue
		}
		file, err := migrations.ReadFile("migrations/" + path.Base(source.Path))
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&b, "-- %s\n%s\n", path.Base(source.Path), withoutGoose.Replace(string(file)))
	}
	return b.String(), nil
}

// withoutGoose takes out of a migration what only goose reads.
var withoutGoose = strings.NewReplacer("-- +goose Up\n", "", "-- +goose StatementBegin\n", "", "-- +goose StatementEnd\n", "")

// selectVersion is the version of the last migration that was applied.
const selectVersion = "SELECT coalesce(max(version_id), 0) FROM " + versionTable + " WHERE is_applied"

// CheckSchema returns an error that is ErrSchema where the schema is missing,
// or older or newer than this program.
func (s *Store) CheckSchema(ctx context.Context) (err error) {
	defer wrap(&err, "check the schema")
	var there bool
	if err := s.pool.QueryRow(ctx, "SELECT to_regclass($1) IS NOT NULL", versionTable).Scan(&there); err != nil {
		return err
	}
	if !there {
		return fmt.Errorf("%w (there is none yet)", ErrSchema)
	}
	var version int64
	if err := s.pool.QueryRow(ctx, selectVersion).Scan(&version); err != nil {
		return err
	}
	want, err := latest()
	if err != nil {
		return err
	}
	switch {
	case version < want:
		return fmt.Errorf("%w (it is at version %d, this program needs %d)", ErrSchema, version, want)
	case version > want:
		return fmt.Errorf("%w of a newer learnsink (it is at version %d, this program knows %d)", ErrSchema, version, want)
	}
	return nil
}

// latest returns the version of the last migration that this program carries.
func latest() (int64, error) {
	files, err := migrations.ReadDir("migrations")
	if err != nil {
		return 0, err
	}
	return goose.NumericComponent(files[len(files)-1].Name())
}

func newProvider(db *sql.DB) (*goose.Provider, error) {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return nil, err
	}
	return goose.NewProvider(goose.DialectPostgres, db, files,
		goose.WithTableName(versionTable), goose.WithDisableGlobalRegistry(true))
}

// openMigrations opens the database without the limits of time under which
// consumers work (a migration may take its time), and refuses one that
// learnsink cannot run on.
func openMigrations(ctx context.Context, cfg Config) (*sql.DB, error) {
	pc, err := cfg.parse(false)
	if err != nil {
		return nil, err
	}
	db := stdlib.OpenDB(*pc.ConnConfig, stdlib.OptionAfterConnect(fit))
	if err := db.PingContext(ctx); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

// fit refuses a server that is too old, and a database that cannot hold every text.
func fit(ctx context.Context, conn *pgx.Conn) error {
	var number int
	var version, encoding string
	err := conn.QueryRow(ctx, `SELECT current_setting('server_version_num')::int, current_setting('server_version'),
		pg_encoding_to_char(encoding) FROM pg_database WHERE datname = current_database()`).Scan(&number, &version, &encoding)
	switch {
	case err != nil:
		return err
	case number < 150000:
		return fmt.Errorf("PostgreSQL %s is too old: learnsink needs 15 or later", version)
	case encoding != "UTF8":
		return fmt.Errorf("the database's encoding is %s: learnsink needs UTF8 (CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0)", encoding)
	}
	return nil
}

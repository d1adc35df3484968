package store_test

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"learnsink/store"
	"learnsink/test/pgtest"
)

func TestMigrate(t *testing.T) {
	ctx := t.Context()
	t.Run("from nothing, shown first, and twice", func(t *testing.T) {
		cfg := store.Config{URL: pgtest.Empty(t)}
		s := open(t, cfg.URL)
		if err := s.CheckSchema(ctx); !errors.Is(err, store.ErrSchema) || !strings.Contains(err.Error(), "learnsink migrate") {
			t.Fatalf("an empty database: %v", err)
		}
		text, err := store.MigrationSQL(ctx, cfg)
		if err != nil || !strings.Contains(text, "CREATE SCHEMA") || !strings.Contains(text, "CREATE TABLE learnsink.tracking") || strings.Contains(text, "goose") {
			t.Fatalf("what would be run: %.200q, %v", text, err)
		}
		if err := s.CheckSchema(ctx); !errors.Is(err, store.ErrSchema) {
			t.Fatalf("a dry run changed the database: %v", err)
		}
		applied, err := store.Migrate(ctx, cfg)
		if err != nil || len(applied) == 0 || applied[0] != "001_schema.sql" {
			t.Fatalf("applied %v, %v", applied, err)
		}
		if err := s.CheckSchema(ctx); err != nil {
			t.Fatal(err)
		}
		if applied, err := store.Migrate(ctx, cfg); err != nil || len(applied) != 0 {
			t.Fatalf("the second time: %v, %v", applied, err)
		}
		if text, err := store.MigrationSQL(ctx, cfg); err != nil || text != "" {
			t.Fatalf("nothing is pending: %q, %v", text, err)
		}
	})
	t.Run("the SQL that is shown runs", func(t *testing.T) {
		address := pgtest.Empty(t)
		text, err := store.MigrationSQL(ctx, store.Config{URL: address})
		if err != nil {
			t.Fatal(err)
		}
		execute(t, address, text)
	})
	t.Run("several at once", func(t *testing.T) {
		cfg := store.Config{URL: pgtest.Empty(t)}
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				if _, err := store.Migrate(ctx, cfg); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if err := open(t, cfg.URL).CheckSchema(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Run("a schema of another version does not fit", func(t *testing.T) {
		address := pgtest.New(t)
		s := open(t, address)
		execute(t, address, "INSERT INTO learnsink.goose_db_version (version_id, is_applied) VALUES (9999, true)")
		if err := s.CheckSchema(ctx); !errors.Is(err, store.ErrSchema) || !strings.Contains(err.Error(), "newer") {
			t.Error(err)
		}
		execute(t, address, "DELETE FROM learnsink.goose_db_version WHERE version_id > 0")
		if err := s.CheckSchema(ctx); !errors.Is(err, store.ErrSchema) {
			t.Error(err)
		}
	})
	t.Run("a database that is not UTF8 is refused", func(t *testing.T) {
		address := pgtest.Empty(t)
		u, err := url.Parse(address)
		if err != nil {
			t.Skip("the address is no URL")
		}
		name := strings.TrimPrefix(u.Path, "/") + "_latin1"
		execute(t, address, "CREATE DATABASE "+name+" TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'")
		t.Cleanup(func() { execute(t, address, "DROP DATABASE "+name+" WITH (FORCE)") })
		u.Path = "/" + name
		if _, err := store.Migrate(ctx, store.Config{URL: u.String()}); err == nil || !strings.Contains(err.Error(), "LATIN1") {
			t.Error(err)
		}
	})
	t.Run("no table and no view is without its comment", func(t *testing.T) {
		w := newWorld(t)
		if got := w.text(`SELECT relname FROM pg_class WHERE relnamespace = 'learnsink'::regnamespace AND relkind IN ('r', 'v')
			AND relname !~ '^goose' AND obj_description(oid) IS NULL`); got != "" {
			t.Errorf("without a comment: %s", got)
		}
	})
}

func execute(t *testing.T, address, sql string) {
	t.Helper()
	conn, err := pgx.Connect(context.Background(), address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if _, err := conn.Exec(context.Background(), sql); err != nil {
		t.Fatal(err)
	}
}

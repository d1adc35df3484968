package store_test

import (
	"context"
	"errors"
	"fmt"
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

func TestErrors(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	t.Run("none shows what stands in a row", func(t *testing.T) {
		src := source(t, "tracking")
		o := w.claim(w.Store, src, 0)
		// A fault that no row is to blame for by itself: the ledger's line is there already.
		w.exec(`INSERT INTO learnsink.ledger VALUES ($1, 0, 0, 1, now(), 'secret', 'secret', 0, 0, 1, '[]')`, src.Topic)
		err := o.st.Apply(ctx, o.batch(track(src, 0, day, 1, 1)))
		if store.Classify(err) != store.Data {
			t.Errorf("%v is %v", err, store.Classify(err))
		}
		for _, text := range []string{err.Error(), fmt.Sprintf("%+v", err), fmt.Sprintf("%#v", err)} {
			if strings.Contains(text, src.Topic) || strings.Contains(text, "secret") || !strings.Contains(text, "23505") {
				t.Errorf("shows the row, or not the SQLSTATE: %s", text)
			}
		}
	})
	t.Run("a missing table names migrate", func(t *testing.T) {
		s := open(t, pgtest.Empty(t))
		_, err := s.Positions(ctx)
		if store.Classify(err) != store.Permanent || !strings.Contains(err.Error(), "learnsink migrate") {
			t.Errorf("%v is %v", err, store.Classify(err))
		}
	})
	t.Run("a database that is away is transient", func(t *testing.T) {
		s := open(t, "postgres://nobody:verysecret@127.0.0.1:1/nowhere")
		err := s.Ping(ctx)
		if store.Classify(err) != store.Transient || strings.Contains(fmt.Sprintf("%+v", err), "verysecret") {
			t.Errorf("%v is %v", err, store.Classify(err))
		}
	})
	t.Run("an address that cannot be read does not show its password", func(t *testing.T) {
		_, err := store.Open(ctx, store.Config{URL: "postgres://u:verysecret@host:port/db"})
		if err == nil || strings.Contains(fmt.Sprintf("%+v", err), "verysecret") {
			t.Error(err)
		}
	})
	t.Run("a read-only server is known as such", func(t *testing.T) {
		s := open(t, w.url+"&default_transaction_read_only=on")
		err := s.SetState(ctx, w.claim(w.Store, source(t, "tracking"), 7).TopicPartition, 1, "waiting", "")
		if store.Classify(err) != store.ReadOnly || !strings.Contains(err.Error(), "target_session_attrs") {
			t.Errorf("%v is %v", err, store.Classify(err))
		}
	})
}

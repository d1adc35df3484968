package pgtest_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"

	"learnsink/test/pgtest"
)

func TestDatabases(t *testing.T) {
	tables := func(url string) (n int) {
		conn, err := pgx.Connect(t.Context(), url)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(context.Background())
		if err := conn.QueryRow(t.Context(), "SELECT count(*) FROM pg_tables WHERE schemaname = 'learnsink'").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	first, second, empty := pgtest.New(t), pgtest.New(t), pgtest.Empty(t)
	if first == second {
		t.Fatal("two tests were given one database")
	}
	if tables(first) == 0 || tables(second) == 0 {
		t.Fatal("a new database has no schema")
	}
	if tables(empty) != 0 {
		t.Fatal("an empty database has a schema")
	}
}

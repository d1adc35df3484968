package store_test

import (
	"encoding/json"
	"testing"

	"github.com/jackc/pgx/v5"

	"learnsink/store"
	"learnsink/test/pgtest"
)

// TestColumns holds that PostgreSQL reads out of columns what was put in.
func TestColumns(t *testing.T) {
	conn, err := pgx.Connect(t.Context(), pgtest.New(t))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	if err := store.TakeColumns(t.Context(), conn); err != nil {
		t.Fatal(err)
	}
	for _, c := range store.ColumnCases() {
		t.Run(c.Name, func(t *testing.T) {
			var got json.RawMessage
			if err := conn.QueryRow(t.Context(), "SELECT to_json($1::"+c.Array+")", c.Column).Scan(&got); err != nil {
				t.Fatal(err)
			}
			if string(got) != c.Want {
				t.Errorf("PostgreSQL read %s, want %s", got, c.Want)
			}
		})
	}
	// What is no column still goes the usual way.
	var n int
	if err := conn.QueryRow(t.Context(), "SELECT cardinality($1::bigint[])", []int64{1, 2, 3}).Scan(&n); err != nil || n != 3 {
		t.Errorf("a slice: %d, %v", n, err)
	}
}

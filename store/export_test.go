package store

import (
	"context"
	"math"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"learnsink/handlers"
)

// TakeColumns is takeColumns.
var TakeColumns = takeColumns

// ColumnCase is a column, and what PostgreSQL has to read out of it, as JSON.
type ColumnCase struct {
	Name, Array, Want string
	Column            any
}

// ColumnCases are columns of every type.
func ColumnCases() (cases []ColumnCase) {
	for _, c := range []struct {
		name, array, want string
		element           uint32
		put               func(*column)
	}{
		{"bigint", "bigint[]", `[1,-9223372036854775808,null]`, pgtype.Int8OID, func(c *column) { c.int64(1); c.int64(math.MinInt64); c.null() }},
		{"integer", "integer[]", `[2147483647,-1]`, pgtype.Int4OID, func(c *column) { c.int32(math.MaxInt32); c.int32(-1) }},
		{"text", "text[]", `["","é\"{},\\",null]`, pgtype.TextOID, func(c *column) { c.text(""); c.text(`é"{},\`); c.null() }},
		{"float8", "float8[]", `[0.1,-1.7976931348623157e+308,null]`, pgtype.Float8OID, func(c *column) {
			c.float(handlers.Some(0.1))
			c.float(handlers.Some(-math.MaxFloat64))
			c.float(handlers.Opt[float64]{})
		}},
		{"timestamptz", "timestamptz[]", `["0001-01-01T00:00:00+00:00","1999-12-31T23:59:59.999999+00:00","9999-12-31T23:59:59.999999+00:00",null]`, pgtype.TimestamptzOID, func(c *column) {
			c.time(time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC))
			c.time(time.Date(1999, 12, 31, 23, 59, 59, 999999000, time.UTC))
			c.optTime(handlers.Some(time.Date(9999, 12, 31, 23, 59, 59, 999999999, time.UTC)))
			c.optTime(handlers.Opt[time.Time]{})
		}},
		{"boolean", "boolean[]", `[true,false]`, pgtype.BoolOID, func(c *column) { c.bool(true); c.bool(false) }},
		{"none", "text[]", `[]`, pgtype.TextOID, func(*column) {}},
	} {
		column := columnOf(c.element, 1, 8)
		c.put(&column)
		cases = append(cases, ColumnCase{c.name, c.array, c.want, &column})
	}
	return cases
}

// ReadWhole has the store read the catalogue at once.
func ReadWhole(t testing.TB, s *Store) {
	t.Helper()
	whole, version, err := s.readCatalogue(t.Context(), [kinds]bool{byLogin: true, byRefNumber: true, byEmail: true})
	if err != nil || whole == nil {
		t.Fatalf("read the catalogue at once: %v, %v", whole, err)
	}
	s.cache.heed(version)
	s.cache.whole = whole
}

// Age makes the young generation of what is remembered the old one.
func Age(s *Store) { s.cache.old, s.cache.young = s.cache.young, newAnswers() }

// LooksFirst reports whether the next batch of a partition is expected to change little.
func LooksFirst(s *Store, tp handlers.TopicPartition) bool { return s.habits.of(tp).lookFirst }

// Careful makes the next batches of a partition lock every key first.
func Careful(s *Store, tp handlers.TopicPartition, batches int) {
	s.habits.learn(tp, way{careful: batches + 1})
}

// CatchUp brings what is remembered up to the catalogue that the database holds.
func CatchUp(s *Store) error { return s.catchUp(context.Background()) }

// Remembered returns how many learners that are asked for are remembered.
func Remembered(s *Store, refs *handlers.References) (n int) {
	for ref := range refs.Learners {
		if _, from := s.cache.learner(ref); from != nil {
			n++
		}
	}
	return n
}

// ReadWholeMeanwhile has the store read the catalogue at once, and bring it up
// to what it has become meanwhile.
func ReadWholeMeanwhile(t testing.TB, s *Store, meanwhile func()) {
	t.Helper()
	whole, version, err := s.readCatalogue(t.Context(), [kinds]bool{byLogin: true, byRefNumber: true, byEmail: true})
	if err != nil {
		t.Fatal(err)
	}
	s.cache.heed(version)
	meanwhile()
	if !s.cache.bring(whole, version) {
		t.Fatal("it is not known what has changed")
	}
	s.cache.whole = whole
}

// ListQuery is the query of a page of what a filter means.
func ListQuery(t testing.TB, s *Store, f RejectionFilter, page Page) (string, []any) {
	t.Helper()
	var query string
	var args []any
	err := s.reading(t.Context(), func(tx pgx.Tx) error {
		faults, err := f.faultIDs(t.Context(), tx, false)
		if err != nil {
			return err
		}
		after, err := page.cursor()
		if err != nil {
			return err
		}
		few, err := f.few(t.Context(), tx, faults)
		query, args = f.listQuery(faults, after, page.Limit, few)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return query, args
}

// PlanPages is how the queries of pages are planned.
const PlanPages = planPages

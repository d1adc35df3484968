package main

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"learnsink/handlers"
)

func sumOf(t *testing.T, s *summary) string {
	t.Helper()
	var b strings.Builder
	if err := s.print(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// Values are taken out, columns stay apart, the commonest message comes first.
func TestSummary(t *testing.T) {
	s := newSummary()
	s.add(1, nil)
	for line := 2; line <= 1200; line++ {
		value := fmt.Sprintf("LO-%d", line)
		errors := []handlers.Error{{Code: handlers.LONotFound, Field: "lovCode", Value: value, Message: "Learning object version with code [" + value + "] is not found."}}
		if line%600 == 0 {
			for _, field := range []string{"firstAccessDate", "lastAccessDate"} {
				errors = append(errors, handlers.Error{Code: handlers.DateTimeMismatch, Field: field, Value: "x", Message: "Your dateTime information mismatches preset dateTimeFormat"})
			}
		}
		s.add(line, errors)
	}
	const want = `1200 rows, 1199 rejected:
rows  first lines  message
1199  2, 3, 4, …   Learning object version with code [ ] is not found. (lovCode)
   2  600, 1200    Your dateTime information mismatches preset dateTimeFormat (firstAccessDate)
   2  600, 1200    Your dateTime information mismatches preset dateTimeFormat (lastAccessDate)
`
	if diff := cmp.Diff(want, sumOf(t, s)); diff != "" {
		t.Error(diff)
	}
}

// Kinds without end, as a sender's columns may make them, are counted and not kept.
func TestSummaryIsBounded(t *testing.T) {
	s := newSummary()
	const n = summaryKinds + 500
	for line := 1; line <= n; line++ {
		column := fmt.Sprintf("column%d", line)
		s.add(line, []handlers.Error{{Code: handlers.ColumnUnknown, Field: column, Value: "v", Message: "Column [" + column + "] is unknown."}})
	}
	got := sumOf(t, s)
	if lines := strings.Count(got, "\n"); len(s.kinds) != summaryKinds || lines != 2+summaryShown+1 {
		t.Errorf("%d kinds, %d lines", len(s.kinds), lines)
	}
	if !strings.HasSuffix(got, fmt.Sprintf("\n%d  more messages, of other kinds\n", n-summaryShown)) {
		t.Error(got)
	}
}

// However rows are divided among chunks, they come to the same sum.
func TestSummaryOfChunks(t *testing.T) {
	random := rand.New(rand.NewPCG(6, 6))
	type told struct {
		line   int
		errors []handlers.Error
	}
	var all []told
	for line := range 5000 {
		var errors []handlers.Error
		for range random.IntN(3) {
			column := fmt.Sprintf("column%d", random.IntN(1+random.IntN(3000)))
			errors = append(errors, handlers.Error{Code: handlers.ColumnUnknown, Field: column, Message: "Column [" + column + "] is unknown."})
		}
		all = append(all, told{line + 1, errors})
	}
	byField := func(a, b kindOfError) int { return strings.Compare(a.field, b.field) }
	var first *summary
	whole := newSummary()
	for _, row := range all {
		whole.add(row.line, row.errors)
	}
	for i := range 10 {
		merged, part := newSummary(), newSummary()
		size := rand.New(rand.NewPCG(6, uint64(i/2))) // each division twice
		for _, row := range all {
			part.add(row.line, row.errors)
			if size.IntN(700) == 0 {
				merged.merge(part)
				part.reset()
			}
		}
		merged.merge(part)
		if len(merged.kinds) != summaryKinds {
			t.Fatalf("%d kinds: they would all fit", len(merged.kinds))
		}
		if i%2 == 0 {
			first = merged
		} else if diff := cmp.Diff(slices.SortedFunc(maps.Keys(first.kinds), byField), slices.SortedFunc(maps.Keys(merged.kinds), byField), cmp.AllowUnexported(kindOfError{})); diff != "" {
			t.Errorf("which kinds are kept is chance:\n%s", diff)
		}
		if merged.rows != whole.rows || merged.rejected != whole.rejected {
			t.Fatalf("%d of %d, not %d of %d", merged.rejected, merged.rows, whole.rejected, whole.rows)
		}
		if diff := cmp.Diff(sumOf(t, whole), sumOf(t, merged)); diff != "" {
			t.Error(diff)
		}
	}
}

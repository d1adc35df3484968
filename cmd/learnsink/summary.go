package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"learnsink/handlers"
)

// summary sums a file's rejections up by what is wrong: by the message with
// its values taken out.
type summary struct {
	rows, rejected int64
	kinds          map[kindOfError]*tellings
	beyond         int64 // messages of kinds that came after so many others
}

// kindOfError is what errors that are told together have in common.
type kindOfError struct {
	code    handlers.Code
	field   string
	message string
}

// tellings is how often a kind was told, and where first.
type tellings struct {
	rows  int64
	lines []int // ascending
}

// How many kinds are kept apart and printed, and how many lines are named for
// each. Kinds are bounded: a column's name is the sender's.
const (
	summaryKinds = 1000
	summaryLines = 3
	summaryShown = 20
)

func newSummary() *summary { return &summary{kinds: map[kindOfError]*tellings{}} }

// reset empties a summary for the next rows.
func (s *summary) reset() {
	clear(s.kinds)
	s.rows, s.rejected, s.beyond = 0, 0, 0
}

// add counts a row: rejected for errors, or accepted. Lines ascend.
func (s *summary) add(line int, errors []handlers.Error) {
	s.rows++
	if len(errors) == 0 {
		return
	}
	s.rejected++
	for _, e := range errors {
		s.tell(kindOfError{e.Code, e.Field, e.Template()}, 1, line)
	}
}

// merge adds what was counted of the rows that follow.
func (s *summary) merge(next *summary) {
	s.rows += next.rows
	s.rejected += next.rejected
	s.beyond += next.beyond
	kinds := maps.Keys(next.kinds)
	if len(s.kinds)+len(next.kinds) > summaryKinds { // there is not room for all: those that came first
		kinds = slices.Values(slices.SortedFunc(kinds, func(a, b kindOfError) int {
			return cmp.Or(slices.Compare(next.kinds[a].lines, next.kinds[b].lines), cmp.Compare(a.message, b.message), cmp.Compare(a.field, b.field))
		}))
	}
	for kind := range kinds {
		s.tell(kind, next.kinds[kind].rows, next.kinds[kind].lines...)
	}
}

func (s *summary) tell(kind kindOfError, rows int64, lines ...int) {
	t := s.kinds[kind]
	if t == nil {
		if len(s.kinds) == summaryKinds {
			s.beyond += rows
			return
		}
		t = &tellings{}
		s.kinds[kind] = t
	}
	t.rows += rows
	t.lines = append(t.lines, lines[:min(len(lines), summaryLines-len(t.lines))]...)
}

// print prints the summary, the commonest kind first.
func (s *summary) print(out io.Writer) error {
	if s.rejected == 0 {
		_, err := fmt.Fprintf(out, "%d rows, none rejected\n", s.rows)
		return err
	}
	type told struct {
		kindOfError
		*tellings
	}
	var all []told
	for kind, t := range s.kinds {
		all = append(all, told{kind, t})
	}
	slices.SortFunc(all, func(a, b told) int {
		return cmp.Or(cmp.Compare(b.rows, a.rows), slices.Compare(a.lines, b.lines), cmp.Compare(a.message, b.message), cmp.Compare(a.field, b.field), cmp.Compare(a.code, b.code))
	})
	beyond := s.beyond
	for _, t := range all[min(len(all), summaryShown):] {
		beyond += t.rows
	}
	all = all[:min(len(all), summaryShown)]

	var text strings.Builder
	fmt.Fprintf(&text, "%d rows, %d rejected:\n", s.rows, s.rejected)
	width := len("rows")
	places := make([]string, len(all))
	place := len("first lines")
	for i, t := range all {
		width = max(width, len(strconv.FormatInt(t.rows, 10)))
		for j, line := range t.lines {
			if j > 0 {
				places[i] += ", "
			}
			places[i] += strconv.Itoa(line)
		}
		if t.rows > int64(len(t.lines)) {
			places[i] += ", …"
		}
		place = max(place, len([]rune(places[i])))
	}
	fmt.Fprintf(&text, "%*s  %-*s  message\n", width, "rows", place, "first lines")
	for i, t := range all {
		fmt.Fprintf(&text, "%*d  %-*s  %s", width, t.rows, place, places[i], t.message)
		if t.field != "" && !strings.Contains(t.message, t.field) {
			fmt.Fprintf(&text, " (%s)", t.field)
		}
		text.WriteByte('\n')
	}
	if beyond > 0 {
		fmt.Fprintf(&text, "%*d  more messages, of other kinds\n", width, beyond)
	}
	_, err := io.WriteString(out, text.String())
	return err
}

package catalogue

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"learnsink/handlers"
)

// Lengths in characters, as rules.md has them for the rows that refer to these.
const (
	maxText = 255
	maxGUID = 40
)

// columnsOf returns the columns of a kind, in the order in which parse reads them.
func columnsOf(kind Kind) []string {
	switch kind {
	case Learners:
		return []string{"login", "refNumber", "email", "createdAt"}
	case LearningObjects:
		return []string{"guid", "code", "title", "provider"}
	case Trainings:
		return []string{"id", "guid", "pathCode", "title"}
	case Sessions:
		return []string{"id", "guid", "title", "trainingId"}
	case Registrations:
		return []string{"learnerLogin", "learnerRefNumber", "learnerEmail", "sessionGuid", "sessionId"}
	case Teachers:
		return []string{"login"}
	case Rooms:
		return []string{"guid", "label", "capacity"}
	}
	panic("no such kind: " + string(kind))
}

// missingColumns says which of the columns that a line of the kind cannot do
// without are not there, or "".
func missingColumns(kind Kind, columns []string, there func(column int) bool) string {
	var missing []string
	need := func(name string, columns ...int) {
		for _, column := range columns {
			if there(column) {
				return
			}
		}
		missing = append(missing, name)
	}
	switch kind {
	case Sessions:
		need("id", 0)
		need("trainingId", 3)
	case Registrations:
		need("learnerLogin, learnerRefNumber or learnerEmail", 0, 1, 2)
		need("sessionGuid or sessionId", 3, 4)
	default:
		need(columns[0], 0)
	}
	return strings.Join(missing, " and ")
}

// parse reads the cells of a line, by column, into its typed row, or says all
// that is wrong with them.
func (l *Line) parse(columns, cells []string) {
	for i, cell := range cells {
		cells[i] = strings.TrimSpace(cell)
	}
	c := reader{columns: columns, cells: cells}
	if missing := missingColumns(l.Kind, columns, func(i int) bool { return cells[i] != "" }); missing != "" {
		c.fault("%s is empty", missing)
	}
	switch l.Kind {
	case Learners:
		l.Learner = &Learner{c.text(0), c.text(1), c.text(2), c.time(3)}
	case LearningObjects:
		l.LearningObject = &LearningObject{c.guid(0), c.text(1), c.text(2), c.provider(3)}
	case Trainings:
		l.Training = &Training{c.id(0), c.guid(1), c.text(2), c.text(3)}
	case Sessions:
		l.Session = &Session{c.id(0), c.guid(1), c.text(2), c.id(3)}
	case Registrations:
		l.Registration = &Registration{c.text(0), c.text(1), c.text(2), c.guid(3), c.id(4)}
	case Teachers:
		l.Teacher = &Teacher{c.text(0)}
	case Rooms:
		l.Room = &Room{c.guid(0), c.text(1), c.capacity(2)}
	}
	if len(c.faults) > 0 {
		*l = Line{Kind: l.Kind, File: l.File, Number: l.Number, Bad: strings.Join(c.faults, "; ")}
	}
}

// reader reads single cells, and gathers what is wrong with them.
type reader struct {
	columns []string
	cells   []string
	faults  []string
}

func (c *reader) fault(format string, args ...any) {
	c.faults = append(c.faults, fmt.Sprintf(format, args...))
}

func (c *reader) text(i int) string { return c.upTo(i, maxText) }
func (c *reader) guid(i int) string { return c.upTo(i, maxGUID) }

func (c *reader) upTo(i, characters int) string {
	cell := c.cells[i]
	switch {
	case !utf8.ValidString(cell):
		c.fault("%s is not UTF-8", c.columns[i])
	case strings.ContainsRune(cell, 0):
		c.fault("%s holds a character that cannot be stored", c.columns[i])
	case len(cell) > characters && utf8.RuneCountInString(cell) > characters:
		c.fault("%s is longer than %d characters", c.columns[i], characters)
	}
	return cell
}

// integer reads digits; lo is where it begins, hi where it ends.
func (c *reader) integer(i int, lo, hi int64) (int64, bool) {
	cell := c.cells[i]
	if cell == "" {
		return 0, false
	}
	n, err := strconv.ParseInt(cell, 10, 64)
	if err != nil || n < lo || n > hi || cell[0] == '+' {
		c.fault("%s is not an integer from %d to %d", c.columns[i], lo, hi)
		return 0, false
	}
	return n, true
}

func (c *reader) id(i int) int64 {
	n, _ := c.integer(i, 1, math.MaxInt64)
	return n
}

func (c *reader) capacity(i int) handlers.Opt[int32] {
	n, ok := c.integer(i, 0, math.MaxInt32)
	return handlers.Opt[int32]{V: int32(n), OK: ok}
}

func (c *reader) time(i int) handlers.Opt[time.Time] {
	cell := c.cells[i]
	if cell == "" {
		return handlers.Opt[time.Time]{}
	}
	t, err := time.Parse(time.RFC3339, cell)
	if err != nil {
		t, err = time.Parse(time.DateOnly, cell) // its midnight, UTC
	}
	t = t.UTC().Truncate(time.Microsecond)
	if err != nil || t.Year() < 1 || t.Year() > 9999 {
		c.fault("%s is not a time in RFC 3339 (2006-01-02T15:04:05Z) nor a date", c.columns[i])
		return handlers.Opt[time.Time]{}
	}
	return handlers.Some(t)
}

func (c *reader) provider(i int) handlers.Provider {
	switch provider := handlers.Provider(c.cells[i]); provider {
	case "":
		return handlers.Customer
	case handlers.Customer, handlers.CrossKnowledge, handlers.EasyQuizz:
		return provider
	}
	c.fault("%s is not %s, %s or %s", c.columns[i], handlers.Customer, handlers.CrossKnowledge, handlers.EasyQuizz)
	return ""
}

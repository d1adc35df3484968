package store

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"strconv"
	"unicode/utf8"

	"learnsink/handlers"
)

// digest is by what texts are compared and counted that are kept in one place
// only: learnsink.digest in SQL.
func digest(text string) int64 {
	sum := sha256.Sum256([]byte(text))
	return int64(binary.BigEndian.Uint64(sum[:8]))
}

// optDigest is NULL of no text.
func optDigest(text string) *int64 {
	if text == "" {
		return nil
	}
	d := digest(text)
	return &d
}

// Fault is what is wrong with rows, whatever stands in them.
type Fault struct {
	Action  handlers.Action
	Code    handlers.Code
	Field   string // "": no single column is to blame
	Message string // with its values taken out
}

// maxField is how much of a column's name tells faults apart: senders can
// invent columns.
const maxField = 80

// FaultOf is what an error that PostgreSQL can store says of all rows that have it.
func FaultOf(action handlers.Action, e *handlers.Error) Fault {
	return Fault{action, e.Code, shortField(e.Field), e.Template()}
}

func shortField(field string) string {
	if utf8.RuneCountInString(field) <= maxField {
		return field
	}
	return string([]rune(field)[:maxField]) + "…"
}

// Key names the fault: short, and the same in every database.
func (f Fault) Key() string { return faultKey(f.id()) }

// id is the fault's id in the table fault: 48 bits of a digest.
func (f Fault) id() int64 {
	sum := sha256.Sum256([]byte(string(f.Action) + "\n" + string(f.Code) + "\n" + f.Field + "\n" + f.Message))
	return int64(binary.BigEndian.Uint64(sum[:8]) >> 16)
}

func faultKey(id int64) string { return fmt.Sprintf("%012x", id) }

// parseFaultKey returns the id that a key names; false: it is no key.
func parseFaultKey(key string) (id int64, ok bool) {
	n, err := strconv.ParseUint(key, 16, 48)
	return int64(n), err == nil && len(key) == 12
}

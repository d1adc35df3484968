package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Class is what kind of failure an error is, and so what to do about it.
type Class uint8

// The classes of failures.
const (
	// Transient: it goes by itself. Back off, take a new connection, try again.
	Transient Class = iota + 1
	// ReadOnly: the server takes no writes. Connect again, to the one that does.
	ReadOnly
	// Permanent: somebody has to act (a missing table, a wrong password).
	Permanent
	// Full: disk or memory is used up. Somebody has to act, or to wait.
	Full
	// Data: PostgreSQL refuses a row.
	Data
)

// String returns the class in a word: for logs and metrics.
func (c Class) String() string {
	return [...]string{"", "transient", "read-only", "permanent", "full", "data"}[c]
}

// Classify judges an error of this package or of pgx. It is the one place
// that knows SQLSTATEs. Whatever is no error of the server's is transient: a
// connection that broke, a timeout.
func Classify(err error) Class {
	var e *Error
	if errors.As(err, &e) {
		return e.Class
	}
	if errors.Is(err, ErrSchema) {
		return Permanent
	}
	var parse *pgconn.ParseConfigError
	if errors.As(err, &parse) {
		return Permanent
	}
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		// A value that pgx cannot put on the wire, and a message that is too
		// long for it: errors of the client's, known by their words alone.
		if text := fmt.Sprint(err); strings.Contains(text, "failed to encode args") || strings.Contains(text, "message body too large") {
			return Data
		}
		return Transient
	}
	switch code := pg.Code; {
	case code == "25006":
		return ReadOnly
	case code == "23514" && pg.ConstraintName == "", // "no partition of relation … found for row"
		code == "57P04": // the database is gone
		return Permanent
	case strings.HasPrefix(code, "22"), strings.HasPrefix(code, "23"), strings.HasPrefix(code, "54"),
		code == "21000", code == "44000", code == "P0001":
		return Data
	case code == "53100", code == "53400", code == "58030":
		return Full
	case strings.HasPrefix(code, "08"), strings.HasPrefix(code, "40"), strings.HasPrefix(code, "53"), strings.HasPrefix(code, "57"),
		code == "55P03", code == "25P03", code == "25P04",
		code == "26000", code == "42P05", // prepared statements behind a pooler
		code == "0A000" && strings.Contains(pg.Message, "cached plan"):
		return Transient
	}
	return Permanent
}

// Error is a failure of the database. It shows what was being done, the
// SQLSTATE, a hint, and the server's words only where they can hold nothing
// of a row: no Detail, no Where, and of errors about data no message either.
type Error struct {
	Op    string // what was being done
	Code  string // the SQLSTATE; "" for a failure on this side of the connection
	Class Class
	text  string
	cause error
}

// Error returns the failure in words.
func (e *Error) Error() string { return e.Op + ": " + e.text }

// Unwrap returns what stood behind a failure on this side of the connection (a
// context that ended, a network error); nil for one of the server's, whose
// fields hold rows.
func (e *Error) Unwrap() error { return e.cause }

// hints are words to operators by SQLSTATE.
var hints = map[string]string{
	"25006": "the server is read-only: name every host in the URL and add target_session_attrs=read-write",
	"28000": "check user and pg_hba.conf",
	"28P01": "check user and password",
	"3D000": "the database has to be created first",
	"3F000": "run `learnsink migrate`",
	"42P01": "run `learnsink migrate`",
	"42703": "run `learnsink migrate`",
	"42883": "run `learnsink migrate`",
	"42501": "the user needs more rights on schema learnsink; for `migrate` CREATE on the database",
	"53100": "the server's disk is full",
	"53300": "the server has no connection left: lower the pool's, or raise max_connections",
	"55P03": "another transaction holds the lock",
	"57014": "the statement took longer than statement_timeout",
}

// wrap makes an Error of *err, in words about what was being done. Errors of
// the vocabulary (handlers.Err…, ErrSchema) and those wrapped before pass
// through with the words in front.
func wrap(err *error, op string) {
	if *err != nil {
		*err = scrub(*err, op)
	}
}

func scrub(err error, op string) error {
	var mine *Error
	if errors.As(err, &mine) {
		return &Error{Op: op + ": " + mine.Op, Code: mine.Code, Class: mine.Class, text: mine.text, cause: mine.cause}
	}
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		e := &Error{Op: op, Code: pg.Code, Class: Classify(pg)}
		e.text = pg.Severity + ": " + pg.Message
		if e.Class == Data {
			e.text = pg.Severity + ": the database refused a row" // the message may quote it
		}
		if pg.ConstraintName != "" {
			e.text += fmt.Sprintf(" (constraint %s)", pg.ConstraintName)
		}
		e.text += " (SQLSTATE " + pg.Code + ")"
		if hint := hints[pg.Code]; hint != "" {
			e.text += ": " + hint
		}
		return e
	}
	if Classify(err) == Data {
		return &Error{Op: op, Class: Data, text: "a value cannot be sent to the database"} // the message may quote it
	}
	var network net.Error
	var connect *pgconn.ConnectError
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.As(err, &network) || errors.As(err, &connect) || errors.Is(err, pgx.ErrTxClosed) || pgconn.Timeout(err) {
		return &Error{Op: op, Class: Transient, text: err.Error(), cause: err}
	}
	return fmt.Errorf("%s: %w", op, err)
}

package store

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
)

// FuzzClassify: every error has a class, the same one however it is wrapped,
// and no error about data shows what the server said of the row.
func FuzzClassify(f *testing.F) {
	for _, code := range strings.Fields("08006 0A000 21000 22001 2200N 22P02 23503 23514 25006 28P01 40001 42P01 44000 53100 54000 55P03 57014 57P04 58030 P0001 XX000") {
		f.Add(code, "ERROR", "the message", "tracking_status_check", true)
		f.Add(code, "FATAL", "cached plan must not change result type", "", true)
	}
	f.Add("", "", "failed to encode args[3]: the value", "", false)
	f.Add("", "", "message body too large", "", false)
	f.Fuzz(func(t *testing.T, code, severity, message, constraint string, server bool) {
		// What a row says is made recognisable, wherever the server repeats it.
		const secret = "\x01row\x02"
		hide := strings.NewReplacer("\x01", "", "\x02", "")
		code, severity, constraint = hide.Replace(code), hide.Replace(severity), hide.Replace(constraint)
		cause := error(&pgconn.PgError{Severity: severity, SeverityUnlocalized: severity, Code: code, Message: message + secret,
			ConstraintName: constraint, Detail: "Key (email)=(" + secret + ")", Hint: secret, Where: secret, InternalQuery: secret})
		if !server {
			cause = errors.New(message + secret)
		}
		class := Classify(cause)
		if class < Transient || class > Data || class.String() == "" {
			t.Fatalf("%v is of no class: %d", cause, class)
		}
		err := cause
		for range 3 {
			if err = fmt.Errorf("around it: %w", err); Classify(err) != class {
				t.Fatalf("wrapped it is %v, and was %v", Classify(err), class)
			}
			wrap(&err, "apply a batch")
			if Classify(err) != class {
				t.Fatalf("scrubbed it is %v, and was %v", Classify(err), class)
			}
		}
		for _, text := range []string{err.Error(), fmt.Sprintf("%+v", err), fmt.Sprintf("%#v", err)} {
			if strings.Contains(text, secret) && (class == Data || strings.Count(text, secret) > 1 && server) {
				t.Fatalf("%v shows the row: %s", class, text)
			}
			if class == Data && server && code != "" && !strings.Contains(text, code) && !strings.Contains(text, fmt.Sprintf("%q", code)) {
				t.Fatalf("no SQLSTATE: %s", text)
			}
		}
		for next := err; next != nil; next = errors.Unwrap(next) {
			if class == Data && strings.Contains(next.Error(), secret) {
				t.Fatalf("unwrapped it shows the row: %v", next)
			}
		}
	})
}

// TestEverySQLSTATEHasAClass: those of any two letters, also that no server has yet.
func TestEverySQLSTATEHasAClass(t *testing.T) {
	const letters = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	for _, a := range letters {
		for _, b := range letters {
			for _, rest := range []string{"000", "001", "006", "P01", "P02", "P04", "ZZZ"} {
				code := string(a) + string(b) + rest
				if class := Classify(&pgconn.PgError{Code: code}); class < Transient || class > Data {
					t.Errorf("%s is of no class: %d", code, class)
				}
			}
		}
	}
}

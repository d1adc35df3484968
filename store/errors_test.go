package store_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"learnsink/store"
	"learnsink/test/pgtest"
)

func TestClassify(t *testing.T) {
	for class, codes := range map[store.Class]string{
		store.Transient: "08006 08P01 40001 40P01 40003 53200 53300 55P03 57014 57P01 57P02 57P03 57P05 25P03 25P04 26000 42P05",
		store.ReadOnly:  "25006",
		store.Permanent: "42P01 42703 42501 28P01 28000 3D000 3F000 57P04 42883 0A000 428C9 XX000 F0000",
		store.Full:      "53100 53400 58030",
		store.Data:      "22001 22003 22007 22021 22P02 22P05 23502 23503 23505 23P01 21000 54000 54001 P0001 44000 2200N",
	} {
		for _, code := range strings.Fields(codes) {
			err := fmt.Errorf("wrapped: %w", &pgconn.PgError{Severity: "ERROR", Code: code})
			if got := store.Classify(err); got != class {
				t.Errorf("%s is %v, want %v", code, got, class)
			}
		}
	}
	for want, err := range map[store.Class]error{
		store.Data:      &pgconn.PgError{Code: "23514", ConstraintName: "tracking_status_check"},
		store.Permanent: &pgconn.PgError{Code: "23514", Message: "no partition of relation found for row"},
		store.Transient: &pgconn.PgError{Code: "0A000", Message: "cached plan must not change result type"},
	} {
		if got := store.Classify(err); got != want {
			t.Errorf("%v is %v, want %v", err, got, want)
		}
	}
	for _, err := range []error{io.ErrUnexpectedEOF, context.DeadlineExceeded, errors.New("conn closed")} {
		if got := store.Classify(err); got != store.Transient {
			t.Errorf("%v is %v", err, got)
		}
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

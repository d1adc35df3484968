package e2e_test

import (
	"context"
	"net/url"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kversion"

	"learnsink/test/pgtest"
	"learnsink/test/rowgen"
)

// A failover to a database that lacks the last commits: the rows are applied
// again, and nothing is published a second time.
func TestTheDatabaseGoesBack(t *testing.T) {
	t.Parallel()
	eachKafka(t, func(t *testing.T, brokers string) {
		h, s := rowgenHouse(t, brokers, "batch: {rows: 100}\n"), &story{}
		g := rowgen.New(rowgen.Config{Seed: 21, Bad: 0.1, Plain: true})
		h.tell(s, g, 800)
		h.drain()
		before := h.snapshot()
		h.tell(s, g, 700)
		h.drain()
		h.useDatabase(before)
		h.tell(s, g, 300)
		p := h.start("", "serve")
		h.caughtUp(60 * time.Second)
		p.stop()
		if !strings.Contains(h.logText(), "more was published than the database knows of") {
			t.Error("nobody noticed that the database went back")
		}
		h.check(s)
	})
}

// snapshot copies the database as it is now, and returns the copy's address.
func (h *house) snapshot() string {
	h.Helper()
	ctx := context.Background()
	was := h.db.Config().ConnConfig.Database
	name := was + "_before"
	h.db.Close()
	admin, err := pgx.Connect(ctx, withDatabase(h, h.database, "postgres"))
	if err != nil {
		h.Fatal(err)
	}
	defer admin.Close(ctx)
	if _, err := admin.Exec(ctx, "CREATE DATABASE "+pgx.Identifier{name}.Sanitize()+" TEMPLATE "+pgx.Identifier{was}.Sanitize()); err != nil {
		h.Fatal(err)
	}
	h.Cleanup(func() {
		if admin, err := pgx.Connect(ctx, withDatabase(h, h.database, "postgres")); err == nil {
			defer admin.Close(ctx)
			_, _ = admin.Exec(ctx, "DROP DATABASE "+pgx.Identifier{name}.Sanitize()+" WITH (FORCE)")
		}
	})
	h.useDatabase(h.database)
	return withDatabase(h, h.database, name)
}

// useDatabase has every process from here on work on another database.
func (h *house) useDatabase(address string) {
	h.Helper()
	db, err := pgxpool.New(context.Background(), address)
	if err != nil {
		h.Fatal(err)
	}
	h.db.Close()
	h.db, h.database = db, address
}

func withDatabase(h *house, address, name string) string {
	h.Helper()
	u, err := url.Parse(address)
	if err != nil {
		h.Fatal(err)
	}
	u.Path = "/" + name
	return u.String()
}

// The marker of what is published is gone (it expires with the group's
// retention) while the outbox holds entries that were published: they are
// found in the outputs.
func TestTheMarkerIsGone(t *testing.T) {
	t.Parallel()
	eachKafka(t, func(t *testing.T, brokers string) {
		h, s := rowgenHouse(t, brokers, "batch: {rows: 20, linger: 5ms}\n"), &story{}
		const n = 3000
		h.tell(s, rowgen.New(rowgen.Config{Seed: 22, Bad: 0.1, Plain: true}), n)
		gone, pending := 0, int64(0)
		for kills := range 5 {
			p := h.start("", "serve", "--drain")
			goal := int64(n * (kills + 1) / 8)
			h.eventually("some rows applied", 30*time.Second, func() bool { return h.applied() >= goal })
			p.signal(syscall.SIGKILL)
			<-p.done
			h.forgetMembers()
			pending += h.number(`SELECT count(*) FROM learnsink.outbox`)
			// A transaction that the process left open holds the marker until it is aborted.
			if _, err := h.admin.DeleteGroup(context.Background(), h.group+".published"); err == nil {
				gone++
			}
		}
		h.drain()
		h.check(s)
		if gone == 0 || pending == 0 {
			t.Errorf("the marker was gone %d times, with %d entries pending: too few to tell anything", gone, pending)
		}
	})
}

// Kafka's own tool sets the group's offset: it is reported, and decides nothing.
func TestTheGroupsOffsetIsMoved(t *testing.T) {
	t.Parallel()
	eachKafka(t, func(t *testing.T, brokers string) {
		h, s := rowgenHouse(t, brokers, ""), &story{}
		g := rowgen.New(rowgen.Config{Seed: 23, Bad: 0.1, Plain: true})
		h.tell(s, g, 300)
		h.drain()
		h.forgetMembers()
		to := kadm.Offsets{}
		to.AddOffset(h.tracking, 0, 0, -1)
		if err := h.admin.CommitAllOffsets(context.Background(), h.group, to); err != nil {
			t.Fatal(err)
		}
		h.tell(s, g, 300)
		h.drain()
		if !strings.Contains(h.logText(), "somebody has moved the group's offset") {
			t.Error("nobody noticed that the group's offset was moved")
		}
		h.check(s)
	})
}

// A broker without transactions is named at the start.
func TestABrokerWithoutTransactions(t *testing.T) {
	t.Parallel()
	old := kversion.Stable()
	for _, key := range []int16{22, 24, 25, 26, 28} {
		old.SetMaxKeyVersion(key, -1)
	}
	broker, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.MaxVersions(old))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(broker.Close)
	brokers := strings.Join(broker.ListenAddrs(), ",")
	h := newHouse(t, brokers, pgtest.New(t), "")
	h.topics(1)
	if _, code := h.try("", "serve"); code != 1 {
		t.Errorf("exit %d", code)
	}
	for _, want := range []string{"knows no transactions", "publish: at-least-once"} {
		if !strings.Contains(h.logText(), want) {
			t.Errorf("not said: %s", want)
		}
	}
	h = rowgenHouse(t, brokers, "publish: at-least-once\n")
	s := &story{}
	h.tell(s, rowgen.New(rowgen.Config{Seed: 24, Bad: 0.1, Plain: true}), 300)
	h.drain()
	h.check(s)
}

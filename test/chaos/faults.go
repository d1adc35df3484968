package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"learnsink/test/proxy"
)

// faults are all that is done. Those that take long come less often.
var faults = []*fault{
	{name: "process killed", weight: 6, do: killProcess,
		how: "SIGKILL to a process, another one in its place within 2 s; its partitions are awaited"},
	{name: "process asleep past its session", weight: 3, do: asleep(sessionTimeout+time.Second, sessionTimeout+3*time.Second),
		how: "SIGSTOP for 7 to 9 s, the session is 6 s; then SIGCONT: a zombie"},
	{name: "process dozing", weight: 6, do: asleep(500*time.Millisecond, 3*time.Second),
		how: "SIGSTOP for 0.5 to 3 s, within the session"},
	{name: "broker killed", weight: 2, do: killBroker,
		how: "SIGKILL to Apache Kafka, started again on its data within 2 s"},
	{name: "broker restarted", weight: 1, do: restartBroker,
		how: "SIGTERM to Apache Kafka, started again on its data within 2 s; transactions are open, but none is just being committed"},
	{name: "database killed", weight: 4, do: killDatabase,
		how: "SIGKILL to PostgreSQL's postmaster, started again on its data within 2 s"},
	{name: "database ends connections", weight: 8, do: terminate,
		how: "pg_terminate_backend for every connection of learnsink, amid whatever it does"},
	{name: "broker connections cut", weight: 8, do: cutAll(func(m *member) *proxy.Proxy { return m.kafka }),
		how: "every connection to the broker is cut, of one process or of all, with a FIN or a RST"},
	{name: "database connections cut", weight: 8, do: cutAll(func(m *member) *proxy.Proxy { return m.db }),
		how: "every connection to the database is cut, of one process or of all, with a FIN or a RST"},
	{name: "COMMIT done, reply lost", weight: 10, do: cutAt(proxy.Commit, true, func(m *member) *proxy.Proxy { return m.db }),
		how: "the database commits, and the connection is cut at a byte of its reply"},
	{name: "COMMIT cut off", weight: 6, do: cutAt(proxy.Commit, false, func(m *member) *proxy.Proxy { return m.db }),
		how: "the connection is cut at a byte of COMMIT itself"},
	{name: "COMMIT under way, connection cut", weight: 4, do: commitUnderWay,
		how: "the connection is cut as soon as the database has COMMIT, which takes it 200 ms here: who looks too soon takes it for not done"},
	{name: "EndTxn done, reply lost", weight: 10, publish: "transactional", do: cutAt(proxy.EndTxn, true, func(m *member) *proxy.Proxy { return m.kafka }),
		how: "the broker ends the transaction, and the connection is cut at a byte of its reply"},
	{name: "EndTxn cut off", weight: 6, publish: "transactional", do: cutAt(proxy.EndTxn, false, func(m *member) *proxy.Proxy { return m.kafka }),
		how: "the connection is cut at a byte of EndTxn itself"},
	{name: "marker written, reply lost", weight: 6, publish: "transactional", do: cutAt(proxy.TxnOffsetCommit, true, func(m *member) *proxy.Proxy { return m.kafka }),
		how: "the broker takes TxnOffsetCommit, and the connection is cut at a byte of its reply"},
	{name: "outputs written, reply lost", weight: 8, do: cutAt(proxy.Produce, true, func(m *member) *proxy.Proxy { return m.kafka }),
		how: "the broker takes Produce, and the connection is cut at a byte of its reply"},
	{name: "broker far away", weight: 4, do: slow(func(m *member) *proxy.Proxy { return m.kafka }),
		how: "100 to 400 ms more each way to the broker, for 2 to 4 s"},
	{name: "database far away", weight: 4, do: slow(func(m *member) *proxy.Proxy { return m.db }),
		how: "100 to 400 ms more each way to the database, for 2 to 4 s"},
	{name: "broker out of reach past the session", weight: 2, do: stall(sessionTimeout+time.Second, sessionTimeout+3*time.Second, func(m *member) *proxy.Proxy { return m.kafka }),
		how: "for 7 to 9 s nothing passes between one process and the broker; the database is there: a zombie that does not sleep"},
	{name: "database out of reach", weight: 3, do: stall(3*time.Second, 6*time.Second, func(m *member) *proxy.Proxy { return m.db }),
		how: "for 3 to 6 s nothing passes between one process and the database"},
	{name: "positions locked", weight: 3, do: lock(`SELECT FROM learnsink.position WHERE partition % 2 = $1 ORDER BY topic, partition FOR UPDATE`),
		how: "a stranger holds the rows of half of the positions for 2 to 5 s; learnsink waits for a lock for 3 s"},
	{name: "rows locked", weight: 3, do: lock(`SELECT FROM learnsink.tracking WHERE registration_id % 2 = $1 ORDER BY registration_id, learning_object_id FOR UPDATE`),
		how: "a stranger holds half of the rows of tracking for 2 to 5 s"},
	{name: "rebalance storm", weight: 2, do: storm,
		how: "processes leave and come, six times within a few seconds"},
	{name: "partition added", weight: 2, do: grow,
		how: "a source topic gets another partition, and keys that live there"},
	{name: "rows deleted ahead of the position", weight: 1, do: lose,
		how: "rows of a source are deleted (DeleteRecords) before any process could read them; its partition has to stop with data_lost and the exact range, the others go on; then `position set --to beginning`"},
	{name: "rolling change", weight: 1, do: roll,
		how: "process after process ends by SIGTERM and another build takes its place, while rows are in flight"},
}

func killProcess(ctx context.Context, n *nemesis) (string, error) {
	m := n.victim()
	who := m.name()
	at, err := n.now(ctx)
	if err != nil {
		return "", err
	}
	if err := m.kill(); err != nil {
		return "", err
	}
	n.killed = append(n.killed, killed{who, at})
	sleep(ctx, n.between(0, 2*time.Second))
	if err := m.start(); err != nil {
		return "", err
	}
	// The next fault comes once its partitions are another's, so that the time
	// that takes is that of this one.
	for deadline := time.Now().Add(sessionTimeout + 6*time.Second); time.Now().Before(deadline); {
		all, err := claims(ctx, n.db)
		if err != nil {
			return "", err
		}
		if took, never := takeOvers(all, who, at); len(took) > 0 && never == 0 {
			break
		}
		sleep(ctx, 100*time.Millisecond)
	}
	return who, nil
}

// asleep stops a process for a while.
func asleep(lo, hi time.Duration) func(context.Context, *nemesis) (string, error) {
	return func(ctx context.Context, n *nemesis) (string, error) {
		m, d := n.victim(), n.between(lo, hi)
		if err := m.signal(syscall.SIGSTOP); err != nil {
			return "", err
		}
		sleep(ctx, d)
		return fmt.Sprintf("%s for %s", m.name(), d.Round(time.Millisecond)), m.signal(syscall.SIGCONT)
	}
}

func killBroker(ctx context.Context, n *nemesis) (string, error) {
	if err := n.kafka.End(ctx, syscall.SIGKILL); err != nil {
		return "", err
	}
	return n.startBroker(ctx)
}

// restartBroker ends the broker in good order. A broker that is alone leaves
// its partitions without a leader then, and forgets the markers of transactions
// that it is just committing: so nothing new reaches it from a
// moment before, and what it has prepared it may finish.
func restartBroker(ctx context.Context, n *nemesis) (string, error) {
	resume := n.sender.pause()
	defer resume()
	for _, m := range n.members {
		m.kafka.Stall()
	}
	defer func() {
		for _, m := range n.members {
			m.kafka.Cut(false)
			m.kafka.GoOn()
		}
	}()
	sleep(ctx, 100*time.Millisecond) // what was just passing has passed
	if err := n.kafka.nothingPrepared(ctx); err != nil {
		return "", err
	}
	if err := n.kafka.End(ctx, syscall.SIGTERM); err != nil {
		return "", err
	}
	for _, m := range n.members {
		m.kafka.Cut(false)
		m.kafka.GoOn()
	}
	resume()
	return n.startBroker(ctx)
}

func (n *nemesis) startBroker(ctx context.Context) (string, error) {
	away := n.between(0, 2*time.Second)
	sleep(ctx, away)
	if err := n.kafka.Start(); err != nil {
		return "", err
	}
	if err := n.kafka.Answers(ctx); err != nil {
		return "", err
	}
	return fmt.Sprintf("away for %s and its start", away.Round(time.Millisecond)), n.recovers(ctx, "broker")
}

func killDatabase(ctx context.Context, n *nemesis) (string, error) {
	if err := n.postgres.Kill(); err != nil {
		return "", err
	}
	away := n.between(0, 2*time.Second)
	sleep(ctx, away)
	if err := n.postgres.Restart(ctx); err != nil {
		return "", err
	}
	n.db.Reset()
	return fmt.Sprintf("away for %s and its start", away.Round(time.Millisecond)), n.recovers(ctx, "database")
}

func terminate(ctx context.Context, n *nemesis) (string, error) {
	var ended int
	err := n.db.QueryRow(ctx, `SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name LIKE 'chaos-%'`).Scan(&ended)
	return fmt.Sprintf("%d connections", ended), err
}

func cutAll(of func(*member) *proxy.Proxy) func(context.Context, *nemesis) (string, error) {
	return func(_ context.Context, n *nemesis) (string, error) {
		members, who := n.some()
		hard, cut := n.r.IntN(2) == 0, 0
		for _, m := range members {
			cut += of(m).Cut(hard)
		}
		return fmt.Sprintf("%d connections of %s", cut, who), nil
	}
}

// cutAt sets a trap on the roads of every process, waits until it has sprung
// three times, and takes it away.
func cutAt(is proxy.What, reply bool, of func(*member) *proxy.Proxy) func(context.Context, *nemesis) (string, error) {
	return func(ctx context.Context, n *nemesis) (string, error) {
		// A reply cut at its beginning is the deed of which nobody hears: half of them are.
		at := n.r.Float64()
		if n.r.IntN(2) == 0 {
			at = 0
		}
		return fmt.Sprintf("at %.0f %% of its bytes", 100*at), n.trap(ctx, of, proxy.Trap{Is: is, Reply: reply, At: at})
	}
}

// trap waits until traps on the roads of all members have sprung three times.
func (n *nemesis) trap(ctx context.Context, of func(*member) *proxy.Proxy, t proxy.Trap) error {
	t.Times = 3
	sprung := make(chan struct{}, t.Times*len(n.members))
	t.Sprung = func() { sprung <- struct{}{} }
	for _, m := range n.members {
		of(m).SetTrap(t)
	}
	defer func() {
		for _, m := range n.members {
			of(m).RemoveTrap()
		}
	}()
	patience := time.NewTimer(15 * time.Second)
	defer patience.Stop()
	for range t.Times {
		select {
		case <-sprung:
		case <-patience.C:
			return fmt.Errorf("nothing came into the trap within 15 s (lag %d)", n.watch.lag())
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// A COMMIT that takes its time, as a slow disk or a standby makes it.
const (
	slowCommits = `CREATE FUNCTION public.slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.2); RETURN NULL; END';
		CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON learnsink.ledger DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION public.slow()`
	quickCommits = `DROP FUNCTION public.slow() CASCADE`
)

func commitUnderWay(ctx context.Context, n *nemesis) (string, error) {
	if _, err := n.db.Exec(ctx, slowCommits); err != nil {
		return "", err
	}
	err := n.trap(ctx, func(m *member) *proxy.Proxy { return m.db }, proxy.Trap{Is: proxy.Commit, At: 1})
	_, quick := n.db.Exec(ctx, quickCommits)
	return "thrice", errors.Join(err, quick)
}

func slow(of func(*member) *proxy.Proxy) func(context.Context, *nemesis) (string, error) {
	return func(ctx context.Context, n *nemesis) (string, error) {
		members, who := n.some()
		latency, d := n.between(100*time.Millisecond, 400*time.Millisecond), n.between(2*time.Second, 4*time.Second)
		for _, m := range members {
			of(m).SetLatency(latency)
		}
		sleep(ctx, d)
		for _, m := range members {
			of(m).SetLatency(0)
		}
		return fmt.Sprintf("%s for %s, %s", latency.Round(time.Millisecond), d.Round(time.Millisecond), who), nil
	}
}

// stall lets nothing pass on the roads of one process; new ones lead nowhere either.
func stall(lo, hi time.Duration, of func(*member) *proxy.Proxy) func(context.Context, *nemesis) (string, error) {
	return func(ctx context.Context, n *nemesis) (string, error) {
		m, d, drop := n.victim(), n.between(lo, hi), n.r.IntN(2) == 0
		of(m).Stall()
		sleep(ctx, d)
		if drop { // what was on its way is lost
			of(m).Cut(true)
		}
		of(m).GoOn()
		return fmt.Sprintf("%s for %s, what was on its way is lost: %v", m.name(), d.Round(time.Millisecond), drop), nil
	}
}

// lock holds rows for a while. Should it come into a circle with learnsink,
// and be the one that PostgreSQL sends away, it tries again.
func lock(sql string) func(context.Context, *nemesis) (string, error) {
	return func(ctx context.Context, n *nemesis) (string, error) {
		half, d := n.r.IntN(2), n.between(2*time.Second, 5*time.Second)
		for {
			var held int64
			err := pgx.BeginFunc(ctx, n.db, func(tx pgx.Tx) error {
				tag, err := tx.Exec(ctx, sql, half)
				if held = tag.RowsAffected(); err == nil {
					sleep(ctx, d)
				}
				return err
			})
			var pg *pgconn.PgError
			if errors.As(err, &pg) && pg.Code == deadlock {
				continue
			}
			return fmt.Sprintf("%d rows for %s", held, d.Round(time.Millisecond)), err
		}
	}
}

const deadlock = "40P01"

func storm(ctx context.Context, n *nemesis) (string, error) {
	var who []string
	for range 3 {
		m := n.victim()
		who = append(who, m.name())
		if err := m.stop(); err != nil {
			return "", err
		}
		sleep(ctx, n.between(0, 500*time.Millisecond))
		if err := m.start(); err != nil {
			return "", err
		}
		sleep(ctx, n.between(200*time.Millisecond, time.Second))
	}
	return strings.Join(who, ", "), nil
}

func grow(ctx context.Context, n *nemesis) (string, error) {
	topic := []string{tracking, intervention}[n.grows%2]
	n.grows++
	topics, err := n.kafka.Admin.ListTopics(ctx, topic)
	if err != nil {
		return "", err
	}
	partitions := len(topics[topic].Partitions) + 1
	if _, err := n.kafka.Admin.UpdatePartitions(ctx, partitions, topic); err != nil {
		return "", err
	}
	for { // until it can be written to
		ends, err := n.kafka.Admin.ListCommittedOffsets(ctx, topic)
		if err == nil && ends.Error() == nil && len(ends[topic]) == partitions {
			break
		}
		if !sleep(ctx, 50*time.Millisecond) {
			return "", ctx.Err()
		}
	}
	sleep(ctx, 2*newsAge) // or the sender's clients refuse to write there
	n.sender.grown(topic, int32(partitions))
	return fmt.Sprintf("%s has %d now", topic, partitions), nil
}

func roll(ctx context.Context, n *nemesis) (string, error) {
	n.rolled = 1 - n.rolled
	for _, m := range n.members {
		if m.place == elder {
			continue
		}
		if err := m.stop(); err != nil {
			return "", err
		}
		m.binary = n.binaries[n.rolled]
		if err := m.start(); err != nil {
			return "", err
		}
		if err := m.ready(ctx, 20*time.Second); err != nil {
			n.faultf("a rolling change does not get on: %v", err)
		}
	}
	return fmt.Sprintf("to build %d", n.rolled+1), nil
}

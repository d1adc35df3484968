package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"learnsink/handlers"
	"learnsink/test/oracle"
	"learnsink/test/pgtest"
	"learnsink/test/rowgen"
)

// rowgenHouse is a house of generated rows, migrated, with its topics and its
// catalogue. The source topics take records beyond a megabyte, the outputs do not.
func rowgenHouse(t *testing.T, brokers string, extra string) *house {
	t.Helper()
	h := newHouse(t, brokers, pgtest.New(t), extra)
	h.private = []string{"zoe.l", "zo\u00e9.l", "mail.example", "dr.haas", "nobody.keyed"}
	h.topics(3)
	h.catalog()
	return h
}

func (h *house) topics(partitions int32) {
	h.Helper()
	ctx := context.Background()
	forever, big, usual := "-1", "8388608", "1048588"
	for _, topic := range []string{h.tracking, h.intervention, h.accepted, h.deadLetter} {
		most := &big
		if topic == h.accepted || topic == h.deadLetter {
			most = &usual
		}
		if _, err := h.admin.CreateTopic(ctx, partitions, 1, map[string]*string{"retention.ms": &forever, "max.message.bytes": most}, topic); err != nil {
			h.Fatal(err)
		}
	}
	h.Cleanup(func() {
		_, _ = h.admin.DeleteTopics(ctx, h.tracking, h.intervention, h.accepted, h.deadLetter)
		_, _ = h.admin.DeleteGroups(ctx, h.group)
	})
}

func (h *house) catalog() {
	h.Helper()
	dir := filepath.Join(h.dir, "catalog")
	if err := rowgen.WriteCatalog(dir); err != nil {
		h.Fatal(err)
	}
	h.verb("catalog", "load", dir)
}

// forgetMembers makes the group forget its members at once, as their session timeouts would.
func (h *house) forgetMembers() {
	h.Helper()
	groups, err := h.admin.DescribeGroups(context.Background(), h.group)
	if err != nil {
		h.Fatal(err)
	}
	for _, member := range groups[h.group].Members {
		leave := kmsg.NewPtrLeaveGroupRequest()
		leave.Group, leave.MemberID = h.group, member.MemberID
		one := kmsg.NewLeaveGroupRequestMember()
		one.MemberID = member.MemberID
		leave.Members = append(leave.Members, one)
		if _, err := leave.RequestWith(context.Background(), h.kafka); err != nil {
			h.Fatal(err)
		}
	}
}

// drain runs serve --drain to its end.
func (h *house) drain() {
	h.Helper()
	h.verb("serve", "--drain")
}

// caughtUp waits until a running serve has applied and published all there is.
func (h *house) caughtUp(most time.Duration) {
	h.Helper()
	ends, err := h.admin.ListCommittedOffsets(context.Background(), h.tracking, h.intervention)
	if err != nil {
		h.Fatal(err)
	}
	var want int64
	ends.Each(func(o kadm.ListedOffset) { want += o.Offset })
	h.eventually("all rows applied and the outbox empty", most, func() bool {
		return h.applied() == want && h.number(`SELECT count(*) FROM learnsink.outbox`) == 0
	})
}

func (h *house) applied() int64 {
	return h.number(`SELECT coalesce(sum(next_offset), 0)::bigint FROM learnsink.position`)
}

func TestEveryKindOfRow(t *testing.T) {
	t.Parallel()
	eachKafka(t, func(t *testing.T, brokers string) {
		h, s := rowgenHouse(t, brokers, ""), &story{}
		h.tell(s, rowgen.New(rowgen.Config{Seed: 1, Bad: 0.2, Giant: true}), 1000)
		h.drain()
		h.check(s)

		// A second drain has nothing to do; more rows later are taken up where it ended.
		h.drain()
		h.tell(s, rowgen.New(rowgen.Config{Seed: 2, Bad: 0.2, Plain: true}), 500)
		h.drain()
		h.check(s)
	})
}

func TestOrderByEventTime(t *testing.T) {
	t.Parallel()
	eachKafka(t, func(t *testing.T, brokers string) {
		h := rowgenHouse(t, brokers, `sources:
  - {topic: TRACKING, action: tracking, order: event-time}
  - {topic: INTERVENTION, action: intervention, order: event-time}
`)
		s := &story{oracle.Story{ByEventTime: true}}
		h.tell(s, rowgen.New(rowgen.Config{Seed: 3, Bad: 0.1}), 2000)
		h.drain()
		h.check(s)
		if n := h.number(`SELECT count(*) FROM learnsink.rejection WHERE codes = '{superseded}'`); n == 0 {
			t.Error("no row was superseded")
		}
	})
}

// Senders that use transactions: what they abort never was, markers are no rows.
func TestTransactionsOfSenders(t *testing.T) {
	t.Parallel()
	eachKafka(t, func(t *testing.T, brokers string) {
		h, s := rowgenHouse(t, brokers, ""), &story{}
		sender, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(brokers, ",")...), kgo.RecordPartitioner(oracle.ByKey()), kgo.TransactionalID(h.group+".sender"))
		if err != nil {
			t.Fatal(err)
		}
		defer sender.Close()
		g, ctx := rowgen.New(rowgen.Config{Seed: 4, Bad: 0.1, Plain: true}), context.Background()
		for n := range 12 {
			if err := sender.BeginTransaction(); err != nil {
				t.Fatal(err)
			}
			var records []*kgo.Record
			for range 40 {
				records = append(records, h.record(s, g.Next()))
			}
			if err := sender.ProduceSync(ctx, records...).FirstErr(); err != nil {
				t.Fatal(err)
			}
			if err := sender.EndTransaction(ctx, kgo.TransactionEndTry(n%3 != 0)); err != nil {
				t.Fatal(err)
			}
		}
		h.drain()
		h.check(s)
		if n := h.number(`SELECT sum(skipped)::bigint FROM learnsink.position`); n < 160 {
			t.Errorf("%d offsets skipped: the aborted records are 160, and there are markers", n)
		}
	})
}

func TestKilledAtAnyMoment(t *testing.T) {
	t.Parallel()
	eachKafka(t, func(t *testing.T, brokers string) { killedAtAnyMoment(t, brokers, "transactional", &story{}) })
}

// The same where the brokers know no transactions: outputs may be there again,
// under the same ids, and nothing else differs.
func TestKilledAtAnyMomentAtLeastOnce(t *testing.T) {
	t.Parallel()
	eachKafka(t, func(t *testing.T, brokers string) {
		killedAtAnyMoment(t, brokers, "at-least-once", &story{oracle.Story{Repeats: true}})
	})
}

func killedAtAnyMoment(t *testing.T, brokers, publish string, s *story) {
	h := rowgenHouse(t, brokers, "publish: "+publish+"\nbatch: {rows: 50, linger: 5ms}\n")
	const n = 4000
	h.tell(s, rowgen.New(rowgen.Config{Seed: 5, Bad: 0.1, Plain: true}), n)
	for kills := range 5 {
		p := h.start("", "serve", "--drain")
		goal := int64(n * (kills + 1) / 8)
		h.eventually("some rows applied", 30*time.Second, func() bool { return h.applied() >= goal })
		p.signal(syscall.SIGKILL)
		<-p.done
		if kills > 0 { // once the group is left to find out by itself, by its session timeout
			h.forgetMembers()
		}
	}
	h.drain()
	h.check(s)
}

func TestStoppedGracefully(t *testing.T) {
	t.Parallel()
	eachKafka(t, func(t *testing.T, brokers string) {
		h, s := rowgenHouse(t, brokers, "batch: {rows: 100}\n"), &story{}
		g := rowgen.New(rowgen.Config{Seed: 6, Bad: 0.1, Plain: true})
		h.tell(s, g, 2000)
		for range 3 {
			p, before := h.start("", "serve"), h.applied()
			h.eventually("some rows applied", 30*time.Second, func() bool { return h.applied() > before })
			p.stop()
			if n := h.number(`SELECT count(*) FROM learnsink.outbox`); n != 0 {
				t.Errorf("%d entries left in the outbox", n)
			}
			h.tell(s, g, 300)
		}
		h.drain()
		h.check(s)
	})
}

func TestTwoMembersAndARebalance(t *testing.T) {
	t.Parallel()
	eachKafka(t, func(t *testing.T, brokers string) {
		h := rowgenHouse(t, brokers, "batch: {rows: 100}\n")
		s := &story{}
		g := rowgen.New(rowgen.Config{Seed: 7, Bad: 0.1, Plain: true})
		h.tell(s, g, 1000)
		first := h.start("", "serve")
		h.eventually("some rows applied", 30*time.Second, func() bool { return h.applied() > 0 })
		claimed := h.number(`SELECT max(epoch) FROM learnsink.position`)
		second := h.start("", "serve")
		h.tell(s, g, 1000)
		h.eventually("the second member has claimed partitions", 40*time.Second, func() bool {
			return h.number(`SELECT count(*) FROM learnsink.position WHERE epoch > $1`, claimed) >= 3
		})
		h.caughtUp(40 * time.Second)
		h.tell(s, g, 500)
		first.stop()
		h.tell(s, g, 500)
		h.caughtUp(40 * time.Second)
		second.stop()
		h.check(s)
	})
}

// Machinery that fails rejects nothing: the rows wait.
func TestDatabaseAway(t *testing.T) {
	t.Parallel()
	eachKafka(t, func(t *testing.T, brokers string) {
		h := rowgenHouse(t, brokers, "batch: {rows: 100}\n")
		road := newRoad(t, h.database)
		direct := h.database
		s, g := &story{}, rowgen.New(rowgen.Config{Seed: 8, Bad: 0.1, Plain: true})
		h.tell(s, g, 2000)
		h.database = road.url
		p := h.start("", "serve")
		for range 3 {
			before := h.applied()
			h.eventually("some rows applied", 40*time.Second, func() bool { return h.applied() > before })
			road.cut()
			h.tell(s, g, 500)
			road.refused(t) // it has tried, and found the door shut
			road.open()
		}
		h.caughtUp(40 * time.Second)
		p.stop()
		h.database = direct
		h.check(s)
	})
}

// Connections that the server ends under a transaction, as a restart does.
func TestDatabaseConnectionsTerminated(t *testing.T) {
	t.Parallel()
	eachKafka(t, func(t *testing.T, brokers string) {
		h := rowgenHouse(t, brokers, "batch: {rows: 50}\n")
		s, g := &story{}, rowgen.New(rowgen.Config{Seed: 9, Bad: 0.1, Plain: true})
		h.tell(s, g, 3000)
		p := h.start("", "serve")
		for range 8 {
			before := h.applied()
			h.eventually("some rows applied", 40*time.Second, func() bool { return h.applied() > before || before == 3000 })
			h.number(`SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name <> ''`)
		}
		h.caughtUp(40 * time.Second)
		p.stop()
		h.check(s)
	})
}

// COMMITs that the server has done and nobody hears of: no row is applied twice, none is lost.
func TestCommitRepliesLost(t *testing.T) {
	t.Parallel()
	eachKafka(t, func(t *testing.T, brokers string) {
		h := rowgenHouse(t, brokers, "batch: {rows: 50}\n")
		road := newRoad(t, h.database)
		direct := h.database
		s := &story{}
		h.tell(s, rowgen.New(rowgen.Config{Seed: 14, Bad: 0.1, Plain: true}), 3000)
		h.database = road.url
		road.loseReplies(4)
		h.drain()
		h.database = direct
		h.check(s)
		if lost := road.loseReplies(0); lost < 5 {
			t.Errorf("%d replies were lost: too few to tell anything", lost)
		}
	})
}

func TestNoCatalogueYet(t *testing.T) {
	t.Parallel()
	eachKafka(t, func(t *testing.T, brokers string) {
		h, s := newHouse(t, brokers, pgtest.New(t), ""), &story{}
		h.topics(2)
		h.tell(s, rowgen.New(rowgen.Config{Seed: 10, Bad: 0.1}), 300)
		p := h.start("", "serve")
		h.eventually("the partitions say that they wait for a catalogue", 30*time.Second, func() bool {
			return h.number(`SELECT count(*) FROM learnsink.position WHERE state = 'no_catalogue'`) > 0
		})
		if n := h.applied() + h.number(`SELECT count(*) FROM learnsink.rejection`); n != 0 {
			t.Errorf("%d rows were judged without a catalogue", n)
		}
		h.catalog()
		h.caughtUp(30 * time.Second)
		p.stop()
		h.check(s)
	})
}

// A load while rows come: what was unknown is known for every row after it.
func TestCatalogueLoadedWhileRunning(t *testing.T) {
	t.Parallel()
	eachKafka(t, func(t *testing.T, brokers string) {
		h, s := rowgenHouse(t, brokers, ""), &story{}
		p := h.start("", "serve")
		row := func(kind string, errors []string) rowgen.Record {
			return rowgen.Record{Action: handlers.Tracking, Kind: kind, Key: []byte("new"), EventTime: time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC), Errors: errors,
				Value: []byte(`{"candidateLogin":"New.One","lovGuid":"lo-1","sessionGuid":"se-1"}`)}
		}
		send := func(rec rowgen.Record) {
			if err := h.kafka.ProduceSync(context.Background(), h.record(s, rec)).FirstErr(); err != nil {
				t.Fatal(err)
			}
			h.caughtUp(30 * time.Second)
		}
		send(row("before the load", []string{"No registration found for given parameters."}))
		dir := filepath.Join(h.dir, "more")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		h.file("more/learners.csv", "login,refNumber,email,createdAt\nnew.one,,,\n")
		h.file("more/registrations.csv", "learnerLogin,sessionGuid\nNEW.ONE,se-1\n")
		h.verb("catalog", "load", dir)
		after := row("after the load", nil)
		after.Tracking = &rowgen.Tracking{TrackingKey: rowgen.TrackingKey{Login: "new.one", LovGUID: "lo-1", SessionGUID: "se-1"}, Status: "incomplete", ScoreMax: 100}
		send(after)
		p.stop()
		h.check(s)
	})
}

// Topics that are not there yet are waited for, sources and outputs alike.
func TestTopicsComeLater(t *testing.T) {
	t.Parallel()
	eachKafka(t, func(t *testing.T, brokers string) {
		h, s := newHouse(t, brokers, pgtest.New(t), ""), &story{}
		h.catalog()
		p := h.start("", "serve")
		h.eventually("it says that it waits for its topics", 30*time.Second, func() bool { return strings.Contains(h.logText(), h.tracking+`"`) })
		h.topics(2)
		h.tell(s, rowgen.New(rowgen.Config{Seed: 15, Bad: 0.1, Plain: true}), 300)
		h.caughtUp(60 * time.Second)
		p.stop()
		h.check(s)
	})
}

// Partitions that are added are taken up.
func TestPartitionsAdded(t *testing.T) {
	t.Parallel()
	eachKafka(t, func(t *testing.T, brokers string) {
		h, s := rowgenHouse(t, brokers, ""), &story{}
		p := h.start("", "serve")
		g := rowgen.New(rowgen.Config{Seed: 16, Bad: 0.1, Plain: true})
		h.tell(s, g, 300)
		h.caughtUp(30 * time.Second)
		if _, err := h.admin.UpdatePartitions(context.Background(), 5, h.tracking, h.intervention); err != nil {
			t.Fatal(err)
		}
		for _, topic := range []string{h.tracking, h.intervention} {
			h.eventually("five partitions", 20*time.Second, func() bool {
				ends, err := h.admin.ListCommittedOffsets(context.Background(), topic)
				return err == nil && len(ends[topic]) == 5
			})
		}
		h.kafka.PurgeTopicsFromProducing(h.tracking, h.intervention) // else it sends to three for a while
		h.tell(s, g, 1000)
		h.caughtUp(90 * time.Second)
		p.stop()
		h.verb("audit", "--deep") // the order of a key that has moved is nobody's: the models say nothing of it
		if n := h.number(`SELECT count(*) FROM learnsink.position WHERE partition > 2 AND next_offset > 0`); n == 0 {
			t.Error("nothing was read from the new partitions")
		}
	})
}

// A record's time that no calendar knows counts as none.
func TestTimesThatAreNone(t *testing.T) {
	t.Parallel()
	eachKafka(t, func(t *testing.T, brokers string) {
		h := rowgenHouse(t, brokers, "")
		row := []byte(`{"candidateLogin":"zo\u00e9.l1","lovGuid":"lo-1","sessionGuid":"se-1","trackingStatus":"passed"}`)
		for _, at := range []time.Time{time.UnixMilli(-1), time.UnixMilli(-62_200_000_000_000), time.UnixMilli(0)} {
			r := &kgo.Record{Topic: h.tracking, Key: []byte("zo\u00e9.l1"), Value: row, Timestamp: at}
			if err := h.kafka.ProduceSync(context.Background(), r).FirstErr(); err != nil {
				t.Fatal(err)
			}
		}
		h.drain()
		h.verb("audit", "--deep")
		if n := h.number(`SELECT sum(accepted)::bigint FROM learnsink.position`); n != 3 {
			t.Errorf("%d rows accepted of 3: %q", n, h.rows(`SELECT errors::text FROM learnsink.rejection`))
		}
	})
}

// The quick start: every verb once, as README tells it, with rows from files.
func TestQuickStart(t *testing.T) {
	t.Parallel()
	eachKafka(t, func(t *testing.T, brokers string) {
		h := newHouse(t, brokers, pgtest.Empty(t), "")
		if out, code := h.try("", "serve", "--drain"); code != 1 {
			t.Errorf("serve without a schema: exit %d\n%s", code, out)
		}
		if !strings.Contains(h.logText(), "migrate") {
			t.Error("serve without a schema does not name migrate")
		}
		if out := h.verb("migrate", "--dry-run"); !strings.Contains(out, "CREATE TABLE learnsink.tracking") {
			t.Errorf("migrate --dry-run prints %.200q", out)
		}
		h.verb("migrate")
		h.verb("migrate") // again: nothing to do
		h.verb("topics", "create")
		h.verb("topics", "check")
		h.Cleanup(func() {
			_, _ = h.admin.DeleteTopics(context.Background(), h.tracking, h.intervention, h.accepted, h.deadLetter)
			_, _ = h.admin.DeleteGroups(context.Background(), h.group)
		})
		h.catalog()
		if out := h.verb("catalog", "status"); !strings.Contains(out, "learn") {
			t.Errorf("catalog status prints %q", out)
		}
		rows := h.file("rows.jsonl", `{"candidateLogin":"zoé.l1","lovCode":"LO/1","sessionGuid":"se-1","trackingStatus":"completed","lastAccessDate":"2024-06-03"}
{"candidateLogin":"zoé.l2","lovCode":"LO/404","sessionGuid":"se-1"}
`)
		out, code := h.try("", "check", "--action", "tracking", "--catalog", filepath.Join(h.dir, "catalog"), rows)
		if code != 3 || !strings.Contains(out, "Learning object version with code [LO/404] is not found.") {
			t.Errorf("check: exit %d, %s", code, out)
		}
		csv := h.file("rows.csv", "candidateRefNumber;lovGuid;sessionId;trackingStatus;ignoredColumn\n50003;lo-3;103;passed;2024-02-29T10:00:00Z\n")
		address := freeAddress(t)
		serve := h.start("", "serve", "--http", address)
		h.eventually("it says that it is ready", 30*time.Second, func() bool {
			_, code := h.try("", "healthcheck", "--http", address)
			return code == 0 && get(address, "/readyz") != ""
		})
		if out, code := h.try("", "send", "--action", "tracking", "--wait", rows); code != 3 || !strings.Contains(out, "LO/404") {
			t.Errorf("send --wait: exit %d, %s", code, out)
		}
		h.verb("send", "--action", "tracking", "--wait", "--delimiter", ";", "--event-time", "ignoredColumn", csv)
		if out, code := h.try(`{"interventionGuid":"iv-1"}`, "send", "--action", "intervention", "--wait"); code != 3 || !strings.Contains(out, "Field [roomGuid] is empty.") {
			t.Errorf("send --wait: exit %d, %s", code, out)
		}
		h.caughtUp(20 * time.Second)
		for _, want := range []string{"learnsink_", `action="tracking"`} {
			if text := get(address, "/metrics"); !strings.Contains(text, want) || strings.Contains(text, "LO/404") {
				t.Errorf("/metrics without %s, or with what rows say:\n%s", want, text)
			}
		}
		if out := h.verb("status"); !strings.Contains(out, h.tracking) {
			t.Errorf("status prints %s", out)
		}
		serve.stop()
		want := "zo\u00e9.l1 lo-1 completed|zo\u00e9.l3 lo-3 passed"
		if got := strings.ToLower(strings.Join(h.rows(`SELECT learner_login || ' ' || learning_object_guid || ' ' || status FROM learnsink.tracking_report ORDER BY 1`), "|")); got != want {
			t.Errorf("tracking_report holds %s", got)
		}
		if out := h.verb("tail", "-o", "beginning", "-e", "-f", "json"); strings.Count(out, "\n") != 2 {
			t.Errorf("tail prints %s", out)
		}
		if out := h.verb("tail", "--dead-letter", "-o", "beginning", "-e", "-f", "value"); strings.Count(out, "\n") != 2 {
			t.Errorf("tail --dead-letter prints %s", out)
		}
		h.verb("audit", "--deep")
		for _, line := range strings.Split(strings.TrimSpace(h.verb("config", "print")), "\n") {
			if strings.Contains(line, "password=") {
				t.Errorf("config print shows a secret: %s", line)
			}
		}
	})
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// get returns what a page says; "" where it is not there or not well.
func get(address, path string) string {
	reply, err := http.Get("http://" + address + path)
	if err != nil {
		return ""
	}
	defer reply.Body.Close()
	text, err := io.ReadAll(reply.Body)
	if err != nil || reply.StatusCode != http.StatusOK {
		return ""
	}
	return string(text) + " "
}

// audit finds what is not as it should be: it is no mere formality.
func TestAuditFindsWhatWasTamperedWith(t *testing.T) {
	t.Parallel()
	eachKafka(t, func(t *testing.T, brokers string) {
		h, s := rowgenHouse(t, brokers, ""), &story{}
		h.tell(s, rowgen.New(rowgen.Config{Seed: 11, Bad: 0.2, Plain: true}), 200)
		h.drain()
		h.verb("audit", "--deep")
		// An event that belongs to no row.
		forged := &kgo.Record{Topic: h.accepted, Value: []byte(`{}`), Headers: []kgo.RecordHeader{{Key: "ce_id", Value: fmt.Appendf(nil, "%s-0-%d", h.tracking, 1<<40)}}}
		if err := h.kafka.ProduceSync(context.Background(), forged).FirstErr(); err != nil {
			t.Fatal(err)
		}
		if out, code := h.try("", "audit", "--deep"); code != 3 {
			t.Errorf("audit --deep with a forged event: exit %d\n%s", code, out)
		}
		if _, err := h.db.Exec(context.Background(), `DELETE FROM learnsink.rejection WHERE id = (SELECT min(id) FROM learnsink.rejection)`); err != nil {
			t.Fatal(err)
		}
		if out, code := h.try("", "audit"); code != 3 {
			t.Errorf("audit with a rejection gone: exit %d\n%s", code, out)
		}
	})
}

// check says of every row what serve makes of it.
func TestCheckSaysWhatServeDoes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := rowgen.WriteCatalog(dir); err != nil {
		t.Fatal(err)
	}
	h := &house{TB: t, dir: dir, patience: time.Minute}
	for _, action := range []handlers.Action{handlers.Tracking, handlers.Intervention} {
		g := rowgen.New(rowgen.Config{Seed: 12, Bad: 0.3, Action: action})
		var lines []byte
		var want [][]string
		for range 600 {
			rec := g.Next()
			if len(rec.Value) == 0 || bytes.ContainsAny(rec.Value, "\n\r") {
				continue // no line of a file
			}
			lines = append(append(lines, rec.Value...), '\n')
			want = append(want, rec.Errors)
		}
		out, code := h.try(string(lines), "check", "--action", string(action), "--catalog", dir, "-")
		if code != 3 {
			t.Fatalf("exit %d: %s", code, cut(h.logText()))
		}
		d := json.NewDecoder(strings.NewReader(out))
		for n, errors := range want {
			var v struct {
				Line    int
				Verdict string
				Errors  []handlers.Error
			}
			if err := d.Decode(&v); err != nil {
				t.Fatal(err)
			}
			if v.Line != n+1 || (v.Verdict == "rejected") != (errors != nil) || strings.Join(oracle.Messages(v.Errors), "|") != strings.Join(errors, "|") {
				t.Errorf("line %d: %s %q, not %q", v.Line, v.Verdict, oracle.Messages(v.Errors), errors)
			}
		}
	}
}

package e2e_test

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"hash"
	"iter"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"

	"learnsink/handlers"
	"learnsink/test/oracle"
	"learnsink/test/oulad"
	"learnsink/test/pgtest"
)

// Real learners' rows, by the verbs a user would use, are what the model says:
// to the row in the tables, to the record in both topics. Everything but the
// stored rows is streamed, so that the whole dataset fits too.
func TestOULAD(t *testing.T) {
	dir := os.Getenv(oulad.Env)
	if dir == "" {
		t.Parallel() // else the time that it takes is worth something
		dir = t.TempDir()
		if err := oulad.WriteSample(dir, 1, 2000); err != nil {
			t.Fatal(err)
		}
		t.Logf("%s is not set: a small made-up sample takes its place", oulad.Env)
	}
	eachKafka(t, func(t *testing.T, brokers string) {
		d, err := oulad.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		h := newHouse(t, brokers, pgtest.New(t), "sources:\n  - {topic: TRACKING, action: tracking, eventTime: header}\n  - {topic: INTERVENTION, action: intervention}\n")
		h.private, h.patience = []string{"student-"}, 12*time.Hour
		h.topics(3)
		catalog, file := filepath.Join(h.dir, "catalog"), filepath.Join(h.dir, "rows.jsonl")
		if err := d.WriteCatalog(catalog); err != nil {
			t.Fatal(err)
		}
		n, want := writeRows(t, d, file)

		timed := func(args ...string) time.Duration {
			begin, p := time.Now(), h.start("", args...)
			if code := p.wait(h.patience); code != 0 {
				t.Fatalf("learnsink %s: exit %d\n%s", strings.Join(args, " "), code, p.stdout.String())
			}
			took := time.Since(begin)
			t.Logf("%-15s %8s", strings.Join(args[:2], " "), took.Round(time.Millisecond))
			return took
		}
		timed("catalog", "load", catalog)
		timed("send", "--action", "tracking", "--event-time", "ignoredColumn", file)
		took := timed("serve", "--drain")
		t.Logf("%d rows applied and published: %.0f rows/s", n, float64(n)/took.Seconds())

		m, err := oulad.LoadModel(catalog)
		if err != nil {
			t.Fatal(err)
		}
		for p := range int32(3) {
			got := h.checkOULADPartition(m, p)
			if got != want[p] {
				t.Errorf("partition %d of the source does not hold the rows as they were sent", p)
			}
		}
		h.checkOULADTables(m)
		timed("audit", "--deep")
	})
}

// digest is a hash over rows in their order.
type digest struct{ hash.Hash }

func (d digest) add(key []byte, at string, value []byte) {
	fmt.Fprintf(d, "%d %s %s %s\n", len(value), key, at, value)
}

func (d digest) String() string { return fmt.Sprintf("%x", d.Sum(nil)) }

// writeRows writes the rows to a file, and returns their number and a digest
// of what each of three partitions must hold.
func writeRows(t *testing.T, d *oulad.Dataset, path string) (n int, want [3]string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := bufio.NewWriter(f)
	var digests [3]digest
	for p := range digests {
		digests[p] = digest{sha256.New()}
	}
	for row, err := range d.Rows() {
		if err != nil {
			t.Fatal(err)
		}
		n++
		digests[oracle.PartitionOf([]byte(row.Key), 0, 3)].add([]byte(row.Key), row.EventTime.Format(time.RFC3339), row.Value)
		w.Write(append(row.Value, '\n')) // Flush tells
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	for p := range digests {
		want[p] = digests[p].String()
	}
	return n, want
}

// checkOULADPartition walks a partition of the source and both outputs side by
// side: same partitions, same order. It returns the digest of the source.
func (h *house) checkOULADPartition(m *oulad.Model, p int32) string {
	h.Helper()
	ends := map[string]int64{}
	for _, topic := range []string{h.tracking, h.accepted, h.deadLetter} {
		listed, err := h.admin.ListCommittedOffsets(context.Background(), topic)
		if err != nil {
			h.Fatal(err)
		}
		ends[topic] = listed[topic][p].Offset
	}
	accepted, stopAccepted := iter.Pull(h.stream(h.accepted, p, ends[h.accepted]))
	dead, stopDead := iter.Pull(h.stream(h.deadLetter, p, ends[h.deadLetter]))
	defer stopAccepted()
	defer stopDead()
	source, wrong := digest{sha256.New()}, 0
	for r := range h.stream(h.tracking, p, ends[h.tracking]) {
		text := oracle.HeaderOf(r, handlers.EventTimeHeader)
		source.add(r.Key, text, r.Value)
		at, err := time.Parse(time.RFC3339, text)
		if err != nil {
			h.Fatal(err)
		}
		want, err := m.Apply(int(p), r.Offset, at, r.Value)
		if err != nil {
			h.Fatal(err)
		}
		next, id := accepted, "ce_id"
		if want.Messages != nil {
			next, id = dead, "learnsink.id"
		}
		out, ok := next()
		if !ok || oracle.HeaderOf(out, id) != oracle.ID(r) {
			h.Fatalf("%s: its outcome is not where it must be (there is one: %v)", oracle.ID(r), ok)
		}
		diff := compareOULADOutput(want, out)
		if diff != "" && wrong < 10 {
			wrong++
			h.Errorf("%s (-model +topic):\n%s", oracle.ID(r), diff)
		}
	}
	if out, more := accepted(); more {
		h.Errorf("accepted partition %d has more: %s", p, oracle.HeaderOf(out, "ce_id"))
	}
	if out, more := dead(); more {
		h.Errorf("dead-letter partition %d has more: %s", p, oracle.HeaderOf(out, "learnsink.id"))
	}
	return source.String()
}

func compareOULADOutput(want oulad.Outcome, out *kgo.Record) string {
	if want.Messages != nil {
		return cmp.Diff(strings.Join(want.Messages, " | "), oracle.HeaderOf(out, "learnsink.message"))
	}
	var v oracle.Event
	if err := json.Unmarshal(out.Value, &v); err != nil {
		return err.Error()
	}
	zero := func(t *time.Time) time.Time {
		if t == nil {
			return time.Time{}
		}
		return *t
	}
	got := oulad.Tracked{Status: v.Row.Status, Score: v.Row.Score, ScoreMax: int(v.Row.ScoreMax), First: zero(v.Row.First), Last: zero(v.Row.Last),
		Completion: zero(v.Row.Completion), FilledIn: len(v.FilledIn) == 1, EventAt: v.Source.Timestamp,
		SourcePartition: int64(v.Source.Partition), SourceOffset: v.Source.Offset}
	if want.Key.SessionGUID != v.Key.SessionGUID || want.Key.LovCode != strings.SplitN(v.Key.LearningObjectGUID, "-", 2)[1] {
		return fmt.Sprintf("it is about %+v", v.Key)
	}
	if reflect.DeepEqual(want.Row, got) {
		return ""
	}
	return cmp.Diff(want.Row, got)
}

func (h *house) checkOULADTables(m *oulad.Model) {
	h.Helper()
	rows, wrong := 0, 0
	err := oracle.Query(context.Background(), h.db, `SELECT l.ref_number, o.code, s.guid, t.status, t.progression IS NULL AND t.time_spent_seconds = 0, t.score, t.score_max,
			t.first_access_at, t.last_access_at, t.first_completion_at, t.first_completion_filled_in, t.event_at, t.source_partition, t.source_offset
		FROM learnsink.tracking t JOIN learnsink.registration r ON r.id = t.registration_id JOIN learnsink.learner l ON l.id = r.learner_id
		JOIN learnsink.session s ON s.id = r.session_id JOIN learnsink.learning_object o ON o.id = t.learning_object_id`, func(r pgx.Rows) error {
		var k oulad.Key
		var got oulad.Tracked
		var rest bool
		if err := r.Scan(&k.RefNumber, &k.LovCode, &k.SessionGUID, &got.Status, &rest, &got.Score, &got.ScoreMax, oracle.Stamp(&got.First), oracle.Stamp(&got.Last),
			oracle.Stamp(&got.Completion), &got.FilledIn, oracle.Stamp(&got.EventAt), &got.SourcePartition, &got.SourceOffset); err != nil {
			return err
		}
		rows++
		if want, known := m.Tracking[k]; !known || !rest || !reflect.DeepEqual(want, got) {
			if wrong++; wrong < 10 {
				h.Errorf("tracking %+v (-model +table):\n%s", k, cmp.Diff(want, got))
			}
		}
		return nil
	})
	if err != nil {
		h.Fatal(err)
	}
	if rows != len(m.Tracking) {
		h.Errorf("tracking has %d rows, the model %d", rows, len(m.Tracking))
	}
	if n := h.number(`SELECT count(*) FROM learnsink.tracking_deleted`); n != 0 {
		h.Errorf("tracking_deleted has %d rows", n)
	}
	var accepted, rejected int64
	for p, want := range m.Partitions {
		accepted, rejected = accepted+want.Accepted, rejected+want.Rejected
		if n := h.number(`SELECT count(*) FROM learnsink.position WHERE topic = $1 AND partition = $2 AND accepted = $3 AND rejected = $4 AND skipped = 0 AND next_offset = $3 + $4`,
			h.tracking, p, want.Accepted, want.Rejected); n != 1 {
			h.Errorf("position of partition %d is not %+v", p, *want)
		}
	}
	if n := h.number(`SELECT count(*) FROM learnsink.rejection`); n != rejected {
		h.Errorf("rejection has %d rows, the model %d", n, rejected)
	}
	h.Logf("%d rows stored of %d accepted; %d rejected", rows, accepted, rejected)
}

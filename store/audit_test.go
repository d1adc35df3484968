package store_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"learnsink/handlers"
	"learnsink/store"
)

func TestAudit(t *testing.T) {
	w := newWorld(t)
	src := source(t, handlers.Tracking)
	for p := range 2 {
		o := w.claim(w.Store, src, p)
		for i := range int64(3) {
			o.apply(track(src, i*3, day, int(i), 1), track(src, i*3+1, day, 1, 99)) // and one offset skipped
		}
	}
	w.audit()
	log := store.Log{TopicPartition: handlers.TopicPartition{Topic: src.Topic, Partition: 1}, Incarnation: 1}
	if got, _, err := w.RejectedOffsets(t.Context(), log, 2, 8); err != nil || !slices.Equal(got, []int64{4, 7}) {
		t.Errorf("rejected offsets: %v, %v", got, err)
	}
	if got := w.ledger(log, 3, 4); len(got) != 1 || got[0].From != 2 || got[0].To != 5 || got[0].End != 5 || got[0].Skipped != 1 {
		t.Errorf("ledger: %+v", got)
	}
	w.exec(`ALTER TABLE learnsink.position DROP CONSTRAINT position_sum`)

	const one = `topic = 'learning.tracking' AND partition = 1`
	for _, c := range []struct{ fault, plant, repair, want string }{
		{"a position that does not sum up", `UPDATE learnsink.position SET skipped = skipped + 1 WHERE ` + one,
			`UPDATE learnsink.position SET skipped = skipped - 1 WHERE ` + one, "learning.tracking/1 offsets 0 to 8: the position does not sum up"},
		{"a position ahead of its ledger", `UPDATE learnsink.position SET next_offset = 9, skipped = skipped + 1 WHERE ` + one,
			`UPDATE learnsink.position SET next_offset = 8, skipped = skipped - 1 WHERE ` + one, "learning.tracking/1 offsets 8 to 9: the ledger does not end where the position is"},
		{"a ledger line gone", `CREATE TABLE kept AS SELECT * FROM learnsink.ledger WHERE from_offset = 2 AND ` + one + `; DELETE FROM learnsink.ledger WHERE from_offset = 2 AND ` + one,
			`INSERT INTO learnsink.ledger SELECT * FROM kept; DROP TABLE kept`, "learning.tracking/1 offsets 2 to 5: the ledger has a gap"},
		{"the first ledger line gone", `CREATE TABLE kept AS SELECT * FROM learnsink.ledger WHERE from_offset = 0 AND ` + one + `; DELETE FROM learnsink.ledger WHERE from_offset = 0 AND ` + one,
			`INSERT INTO learnsink.ledger SELECT * FROM kept; DROP TABLE kept`, "learning.tracking/1 offsets 0 to 2: the ledger does not begin where the position does"},
		{"a ledger line that miscounts", `UPDATE learnsink.ledger SET accepted = accepted + 1, skipped = skipped - 1 WHERE from_offset = 2 AND ` + one,
			`UPDATE learnsink.ledger SET accepted = accepted - 1, skipped = skipped + 1 WHERE from_offset = 2 AND ` + one, "learning.tracking/1 offsets 2 to 5: the ledger line counts accepted 2"},
		{"a rejection gone", `CREATE TABLE kept AS SELECT * FROM learnsink.rejection WHERE id = 'learning.tracking-1-4'; DELETE FROM learnsink.rejection WHERE id = 'learning.tracking-1-4'`,
			`INSERT INTO learnsink.rejection SELECT * FROM kept; DROP TABLE kept`, "learning.tracking/1 offsets 2 to 5: 1 rows were rejected, 0 rejections are stored"},
		{"a rejection that nobody counted", `UPDATE learnsink.rejection SET source_offset = 77 WHERE id = 'learning.tracking-1-4'`,
			`UPDATE learnsink.rejection SET source_offset = 4 WHERE id = 'learning.tracking-1-4'`, "learning.tracking/1 offsets 77 to 78: a rejection is stored that no batch speaks of"},
		{"a rejection that nothing has resolved", `UPDATE learnsink.rejection SET state = 'resolved' WHERE id = 'learning.tracking-1-4'`,
			`UPDATE learnsink.rejection SET state = 'open' WHERE id = 'learning.tracking-1-4'`, "learning.tracking/1 offsets 4 to 5: a rejection is resolved, and no outcome has settled it"},
		{"a rejection that another has resolved", `UPDATE learnsink.rejection SET state = 'resolved', settled_by = 'learning.tracking-1-7' WHERE id = 'learning.tracking-1-4'`,
			`UPDATE learnsink.rejection SET state = 'open', settled_by = NULL WHERE id = 'learning.tracking-1-4'`, "learning.tracking/1 offsets 4 to 5: a rejection is resolved by learning.tracking-1-7, which was rejected itself"},
		{"an outbox entry of no batch", `UPDATE learnsink.outbox SET to_offset = 6 WHERE from_offset = 2 AND ` + one,
			`UPDATE learnsink.outbox SET to_offset = 5 WHERE from_offset = 2 AND ` + one, "learning.tracking/1 offsets 2 to 6: the outbox speaks of offsets that no batch does"},
		{"a row that is there and deleted", `INSERT INTO learnsink.tracking_deleted SELECT registration_id, event_at, source_offset, learning_object_id, source_partition, source_topic FROM learnsink.tracking LIMIT 1`,
			`DELETE FROM learnsink.tracking_deleted`, "remembered as deleted"},
	} {
		t.Run(c.fault, func(t *testing.T) {
			w.exec(c.plant)
			findings, err := w.Audit(t.Context(), store.AuditOptions{Retention: 24 * time.Hour})
			w.exec(c.repair)
			if err != nil {
				t.Fatal(err)
			}
			if text := fmt.Sprint(findings); !strings.Contains(text, c.want) || len(findings) > 3 {
				t.Errorf("found: %s\nwant: %s", text, c.want)
			}
			w.audit()
		})
	}
	t.Run("rejections past their retention are not missed", func(t *testing.T) {
		w.exec(`UPDATE learnsink.ledger SET applied_at = now() - interval '91 days'`)
		w.exec(`UPDATE learnsink.rejection SET rejected_at = now() - interval '91 days'`)
		if n, err := w.DropRejections(t.Context(), time.Now().AddDate(0, 0, -90)); err != nil || n != 6 {
			t.Fatalf("dropped %d, %v", n, err)
		}
		if findings, err := w.Audit(t.Context(), store.AuditOptions{Retention: 90 * 24 * time.Hour}); err != nil || len(findings) != 0 {
			t.Errorf("found %v, %v", findings, err)
		}
		if findings, err := w.Audit(t.Context(), store.AuditOptions{}); err != nil || len(findings) == 0 {
			t.Errorf("for ever: found %v, %v", findings, err)
		}
	})
}

// What operators have set back, or onto another log, is proved as well.
func TestAuditAcrossRounds(t *testing.T) {
	w := newWorld(t)
	o := w.claim(w.Store, source(t, handlers.Tracking), 0)
	o.three()
	o.set(store.Silent, 4) // amid the batch of offsets 3 to 6
	o.three()
	o.set(store.NewLog, 0)
	o.three()
	w.audit()

	for _, c := range []struct{ fault, plant, repair, want string }{
		{"a line that counts although a later round counts it again", `UPDATE learnsink.ledger SET superseded = false WHERE (round, from_offset) = (1, 6)`,
			`UPDATE learnsink.ledger SET superseded = true WHERE (round, from_offset) = (1, 6)`, "learning.tracking/0 offsets 6 to 9: the ledger line still counts"},
		{"a line of the round that stands and does not count", `UPDATE learnsink.ledger SET superseded = true WHERE (round, from_offset) = (3, 3)`,
			`UPDATE learnsink.ledger SET superseded = false WHERE (round, from_offset) = (3, 3)`, "learning.tracking/0 offsets 3 to 6: the ledger line counts no longer"},
		{"a line of a round that nobody began", `UPDATE learnsink.ledger SET round = 9 WHERE (round, from_offset) = (3, 6)`,
			`UPDATE learnsink.ledger SET round = 3 WHERE (round, from_offset) = (9, 6)`, "learning.tracking/0 offsets 6 to 9: the ledger line is of a round that the position does not know"},
		{"a line of an earlier round gone", `CREATE TABLE kept AS SELECT * FROM learnsink.ledger WHERE (round, from_offset) = (2, 7); DELETE FROM learnsink.ledger WHERE (round, from_offset) = (2, 7)`,
			`INSERT INTO learnsink.ledger SELECT * FROM kept; DROP TABLE kept`, "learning.tracking/0 offsets 7 to 10: the ledger has a gap"},
		{"a rejection of the log before gone", `CREATE TABLE kept AS SELECT * FROM learnsink.rejection WHERE id = 'learning.tracking-0-8'; DELETE FROM learnsink.rejection WHERE id = 'learning.tracking-0-8'`,
			`INSERT INTO learnsink.rejection SELECT * FROM kept; DROP TABLE kept`, "learning.tracking/0 offsets 7 to 10: 1 rows were rejected, 0 rejections are stored"},
		{"a rejection too many where a batch is cut", `INSERT INTO learnsink.rejection (id, action, codes, errors, headers, source_topic, source_partition, source_offset, event_at, rules)
			SELECT 'more-' || n, 'tracking', '{}', '[]', '[]', 'learning.tracking', 0, 3, now(), '' FROM generate_series(1, 2) n`,
			`DELETE FROM learnsink.rejection WHERE id LIKE 'more-%'`, "learning.tracking/0 offsets 3 to 4: 1 rows were rejected, 2 rejections are stored"},
		{"a rejection of a log that is not", `UPDATE learnsink.rejection SET incarnation = 3 WHERE id = 'learning.tracking~2-0-1'`,
			`UPDATE learnsink.rejection SET incarnation = 2 WHERE id = 'learning.tracking~2-0-1'`, "learning.tracking/0 offsets 1 to 2: a rejection is stored that no batch speaks of"},
	} {
		t.Run(c.fault, func(t *testing.T) {
			w.exec(c.plant)
			findings, err := w.Audit(t.Context(), store.AuditOptions{})
			w.exec(c.repair)
			if err != nil {
				t.Fatal(err)
			}
			if text := fmt.Sprint(findings); !strings.Contains(text, c.want) || len(findings) > 4 {
				t.Errorf("found: %s\nwant: %s", text, c.want)
			}
			w.audit()
		})
	}
}

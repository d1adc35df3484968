package dlq_test

import (
	"fmt"
	"testing"

	"learnsink/cmd/learnsink/dlq"
	"learnsink/store"
)

// BenchmarkJudge judges a selection as dlq replay does: ids in their order,
// rows page by page.
func BenchmarkJudge(b *testing.B) {
	w := newWorld(b)
	const rows = 10_000
	w.exec(`INSERT INTO learnsink.learner (login, login_folded) SELECT 'm' || i, 'm' || i FROM generate_series(1, $1) i`, rows)
	w.exec(`INSERT INTO learnsink.registration (learner_id, session_id) SELECT id, 100 FROM learnsink.learner WHERE login LIKE 'm%'`)
	w.exec(`INSERT INTO learnsink.rejection (id, action, codes, errors, key, value, headers, source_topic, source_partition, source_offset, event_at, rules)
		SELECT 'learning.tracking-0-' || i, 'tracking', '{registration_not_found}', '[{"code":"registration_not_found","message":"No registration found for given parameters."}]', 'k',
		  convert_to(format('{"candidateLogin":"m%s","lovGuid":"o%s","sessionId":100,"progression":%s,"trackingStatus":"completed","score":12}', i, i % 5, i % 100), 'UTF8'),
		  '[]', 'learning.tracking', 0, i, $2, 'x' FROM generate_series(1, $1) i`, rows, day)
	w.exec(`ANALYZE`)
	for b.Loop() {
		ids, err := w.SelectRejections(b.Context(), store.RejectionFilter{States: []store.RejectionState{store.RejectionOpen}})
		if err != nil || len(ids) != rows {
			b.Fatalf("%d ids, %v", len(ids), err)
		}
		judge := dlq.NewJudge(w.sources, replayTopic, w, w, "open")
		p, err := dlq.NewPlan(b.Context(), judge, nil, dlq.PagesOf(b.Context(), w, ids), dlq.Sending{}, func(*dlq.Verdict, []byte) error { return nil })
		if err != nil || p.Send() != rows*4/5 {
			b.Fatal(fmt.Sprint(p.Outcomes, p.Groups()), err)
		}
	}
	b.ReportMetric(float64(rows)*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
}

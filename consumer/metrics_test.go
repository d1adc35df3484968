package consumer

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"
	"github.com/twmb/franz-go/pkg/kgo"

	"learnsink/handlers"
	"learnsink/test/kafkatest"
)

// exposes expects lines of what a scrape gets.
func exposes(t *testing.T, reg prometheus.Gatherer, want string) {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	for _, f := range families {
		if _, err := expfmt.MetricFamilyToText(&got, f); err != nil {
			t.Fatal(err)
		}
	}
	for line := range strings.Lines(strings.TrimLeft(want, "\n")) {
		if !strings.Contains(got.String(), "\n"+line) && !strings.HasPrefix(got.String(), line) {
			t.Errorf("no line %s", line)
		}
	}
	if t.Failed() {
		t.Log(got.String())
	}
}

func TestMetricsAndTheLog(t *testing.T) {
	cluster := kafkatest.New(t)
	g := newGroupTest(t, cluster, 1, "learning.rows")
	records := []*kgo.Record{{Topic: "learning.rows", Value: badRow()}, {Topic: "learning.rows", Value: nil}}
	for i := range 8 {
		records = append(records, &kgo.Record{Topic: "learning.rows", Value: goodRow(i)})
	}
	cluster.Produce(t, records...)
	reg := prometheus.NewPedanticRegistry()
	var log bytes.Buffer
	c, err := New(g.config, &incarnation{world: g.world}, testLogger(&log), NewMetrics(reg))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := c.Drain(ctx); err != nil {
		t.Fatal(err)
	}
	want := `
# HELP learnsink_rows_total Rows that were applied, by action and outcome (accepted, rejected, waiting, ignored).
# TYPE learnsink_rows_total counter
learnsink_rows_total{action="tracking",outcome="accepted"} 8
learnsink_rows_total{action="tracking",outcome="ignored"} 0
learnsink_rows_total{action="tracking",outcome="rejected"} 2
learnsink_rows_total{action="tracking",outcome="waiting"} 0
# HELP learnsink_rejections_total Errors of rejected rows, by action and code; a row may have several.
# TYPE learnsink_rejections_total counter
learnsink_rejections_total{action="tracking",code="record_empty"} 1
learnsink_rejections_total{action="tracking",code="record_not_json"} 1
# HELP learnsink_records_total Records that were read from source topics, by topic.
# TYPE learnsink_records_total counter
learnsink_records_total{topic="learning.rows"} 10
# HELP learnsink_group_member 1 while this process has its place in the group.
# TYPE learnsink_group_member gauge
learnsink_group_member 0
learnsink_absent_columns_total{action="tracking",column="score"} 8
`
	exposes(t, reg, want)
	batches := 0
	for line := range strings.Lines(log.String()) {
		if !strings.Contains(line, `"message":"batch"`) {
			continue
		}
		batches++
		for _, field := range []string{`"topic":"learning.rows"`, `"partition":0`, `"from":`, `"to":`, `"accepted":`, `"rejected":`, `"skipped":`, `"apply":`} {
			if !strings.Contains(line, field) {
				t.Errorf("a batch's line has no %s: %s", field, line)
			}
		}
	}
	if batches == 0 || strings.Contains(log.String(), "candidateLogin") {
		t.Error(log.String())
	}
}

func TestLagGrowsWhileNothingMoves(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	m := NewMetrics(reg)
	p := newProgress(tp0)
	m.board.assign([]*progress{p})
	p.departed(&batch{from: 3, to: 7, records: []handlers.Record{{Timestamp: time.Now().Add(-time.Hour)}}})
	p.update(func(p *progress) { p.Stable, p.Applied, p.State = 10, 3, handlers.Waiting })
	offsets, age := p.lag(time.Now())
	if offsets != 7 || age < time.Hour || age > time.Hour+time.Minute {
		t.Errorf("lag %d, %s", offsets, age)
	}
	want := `
# HELP learnsink_lag_records Offsets between what is applied and the stable end of an assigned source partition.
# TYPE learnsink_lag_records gauge
learnsink_lag_records{partition="0",topic="rows"} 7
# HELP learnsink_partition_state 1 for the state that an assigned source partition is in, 0 for the others.
# TYPE learnsink_partition_state gauge
learnsink_partition_state{partition="0",state="data_lost",topic="rows"} 0
learnsink_partition_state{partition="0",state="log_diverged",topic="rows"} 0
learnsink_partition_state{partition="0",state="no_catalogue",topic="rows"} 0
learnsink_partition_state{partition="0",state="oversized",topic="rows"} 0
learnsink_partition_state{partition="0",state="running",topic="rows"} 0
learnsink_partition_state{partition="0",state="waiting",topic="rows"} 1
`
	exposes(t, reg, want)
	p.arrived(7)
	if offsets, age := p.lag(time.Now()); offsets != 3 || age != 0 {
		t.Errorf("lag %d, %s", offsets, age)
	}
}

package consumer

import (
	"errors"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"learnsink/handlers"
)

// Metrics are what the consumer counts. Labels come from the configuration,
// the rules' codes and the actions' columns, never from rows.
type Metrics struct {
	records    *prometheus.CounterVec
	skipped    *prometheus.CounterVec
	rows       *prometheus.CounterVec
	rejections *prometheus.CounterVec
	absent     *prometheus.CounterVec
	batchRows  prometheus.Histogram
	batchBytes prometheus.Histogram
	stages     *prometheus.HistogramVec
	failures   *prometheus.CounterVec
	moved      *prometheus.CounterVec
	released   *prometheus.CounterVec
	corrupted  *prometheus.CounterVec
	lastEvent  *prometheus.GaugeVec
	rebalances prometheus.Counter
	jobRows    *prometheus.CounterVec
	// dispatching is of the process, not of a job.
	dispatching prometheus.Gauge
	board       *board
}

// NewMetrics makes the metrics and registers them; a nil Registerer leaves
// them unregistered. One Metrics serves one Consumer.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "learnsink", Name: name, Help: help}, labels)
	}
	m := &Metrics{
		records: counter("records_total", "Records that were read from source topics, by topic.", "topic"),
		skipped: counter("offsets_skipped_total",
			"Offsets of source topics that hold no row, by topic and reason (marker of a transaction, aborted, compacted, ignored tombstone).", "topic", "reason"),
		rows:       counter("rows_total", "Rows that were applied, by action and outcome (accepted, rejected, waiting, ignored).", "action", "outcome"),
		rejections: counter("rejections_total", "Errors of rejected rows, by action and code; a row may have several.", "action", "code"),
		absent:     counter("absent_columns_total", "Rows that did not give a column, by action and column.", "action", "column"),
		batchRows: prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: "learnsink", Name: "batch_rows",
			Help: "Rows of an applied batch.", Buckets: []float64{0, 1, 10, 50, 100, 250, 500, 1000, 2000, 4000, 8000}}),
		batchBytes: prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: "learnsink", Name: "batch_bytes",
			Help: "Bytes of keys, values and headers of an applied batch.", Buckets: prometheus.ExponentialBuckets(1<<10, 4, 9)}),
		stages: prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: "learnsink", Name: "stage_seconds",
			Help:    "Time that a batch spent in a stage of its road (decode, facts, decide, apply, publish, commit), waiting for its turn not included.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2.5, 12)}, []string{"stage"}),
		failures: counter("failures_total", "Attempts that failed because machinery (a broker, the database) did, by stage; dispatch is sending the rows of jobs.", "stage"),
		released: counter("rows_released_total", "Rows that were let out of the waiting room, by why (catalogue: what they waited for has come; deadline).", "why"),
		moved: counter("group_offset_moved_total",
			"Times that the group's offset was found moved by somebody else, by source topic. It decides nothing.", "topic"),
		corrupted: counter("corrupt_batches_total",
			"Record batches of source topics that could not be read, each time anew, by topic and fault (corrupt, old_format, oversized).", "topic", "fault"),
		lastEvent: prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: "learnsink", Name: "last_event_timestamp_seconds",
			Help: "The time of the latest event that was applied, by source topic, in seconds since 1970."}, []string{"topic"}),
		rebalances: prometheus.NewCounter(prometheus.CounterOpts{Namespace: "learnsink", Name: "generations_total",
			Help: "Group generations that this process has had a place in."}),
		jobRows: counter("job_rows_total", "Rows of jobs that this process has sent to the replay topic, or dropped because what was to be sent is gone or too large.", "what"),
		dispatching: prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "learnsink", Name: "dispatching",
			Help: "1 while this process is the one that sends the rows of jobs."}),
		board: &board{},
	}
	if reg != nil {
		reg.MustRegister(m.records, m.skipped, m.rows, m.rejections, m.absent, m.batchRows, m.batchBytes,
			m.stages, m.failures, m.corrupted, m.moved, m.released, m.lastEvent, m.rebalances, newPartitionCollector(m.board),
			m.jobRows, m.dispatching)
	}
	return m
}

// stage measures one stage; the func it returns ends it.
func (m *Metrics) stage(name string) func() time.Duration {
	began := time.Now()
	return func() time.Duration {
		took := time.Since(began)
		m.stages.WithLabelValues(name).Observe(took.Seconds())
		return took
	}
}

// refused counts a record batch that could not be read.
func (m *Metrics) refused(topic string, err error) {
	if m == nil {
		return
	}
	fault := "corrupt"
	switch {
	case errors.Is(err, ErrOversized):
		fault = "oversized"
	case errors.Is(err, ErrOldFormat):
		fault = "old_format"
	}
	m.corrupted.WithLabelValues(topic, fault).Inc()
}

// passed counts the offsets of a chunk that hold no record.
func (m *Metrics) passed(topic string, c *Chunk) {
	if m == nil {
		return
	}
	compacted := c.Next - c.From - int64(len(c.Records)) - c.Markers - c.Aborted
	for reason, n := range map[string]int64{"marker": c.Markers, "aborted": c.Aborted, "compacted": compacted} {
		if n > 0 {
			m.skipped.WithLabelValues(topic, reason).Add(float64(n))
		}
	}
}

// outcomes is what became of the rows of a batch.
type outcomes struct{ accepted, rejected, waiting int }

func (o outcomes) rows() int64 { return int64(o.accepted + o.rejected + o.waiting) }

// applied counts a batch that has been applied.
func (m *Metrics) applied(b *batch, decisions []handlers.Decision, ignored int) (n outcomes) {
	topic, action := b.source.Topic, string(b.source.Rules.Action())
	var latest time.Time
	codes, erased := map[handlers.Code]int{}, 0
	for i := range decisions {
		d := &decisions[i]
		if d.EventTime.After(latest) {
			latest = d.EventTime
		}
		switch d.Verdict {
		case handlers.Accepted:
			n.accepted++
			continue
		case handlers.Waits:
			n.waiting++
			continue
		case handlers.Gone:
			erased++
			continue
		case handlers.Ignored:
			ignored++
			continue
		}
		n.rejected++
		for j := range d.Errors {
			codes[d.Errors[j].Code]++
		}
	}
	for code, n := range codes {
		m.rejections.WithLabelValues(action, string(code)).Add(float64(n))
	}
	m.records.WithLabelValues(topic).Add(float64(len(b.records)))
	m.skipped.WithLabelValues(topic, "ignored").Add(float64(ignored))
	m.rows.WithLabelValues(action, "accepted").Add(float64(n.accepted))
	m.rows.WithLabelValues(action, "rejected").Add(float64(n.rejected))
	m.rows.WithLabelValues(action, "waiting").Add(float64(n.waiting))
	m.rows.WithLabelValues(action, "ignored").Add(float64(ignored))
	m.rows.WithLabelValues(action, "erased").Add(float64(erased))
	m.batchRows.Observe(float64(len(b.records)))
	m.batchBytes.Observe(float64(b.bytes))
	if !latest.IsZero() {
		m.lastEvent.WithLabelValues(topic).Set(float64(latest.UnixMilli()) / 1000)
	}
	return n
}

// absences counts the columns that rows left out.
func (m *Metrics) absences(action string, columns map[string]int) {
	for column, n := range columns {
		m.absent.WithLabelValues(action, column).Add(float64(n))
	}
}

// partitionCollector tells of the assigned partitions as they are when asked,
// so that a lag grows while nothing moves.
type partitionCollector struct {
	board                                     *board
	lag, age, applied, published, pending, is *prometheus.Desc
	member                                    *prometheus.Desc
}

func newPartitionCollector(b *board) *partitionCollector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("learnsink_"+name, help, labels, nil)
	}
	return &partitionCollector{
		board:     b,
		lag:       desc("lag_records", "Offsets between what is applied and the stable end of an assigned source partition.", "topic", "partition"),
		age:       desc("lag_seconds", "How long the first row that is not yet applied has been in the log of an assigned source partition; 0 without lag.", "topic", "partition"),
		applied:   desc("applied_offset", "The next offset to apply of an assigned source partition.", "topic", "partition"),
		published: desc("published_offset", "The next offset to publish of an assigned source partition.", "topic", "partition"),
		pending:   desc("outbox_pending", "Batches of an assigned source partition that are applied and not yet published.", "topic", "partition"),
		is:        desc("partition_state", "1 for the state that an assigned source partition is in, 0 for the others.", "topic", "partition", "state"),
		member:    desc("group_member", "1 while this process has its place in the group."),
	}
}

// Describe tells what Collect gives.
func (c *partitionCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.lag, c.age, c.applied, c.published, c.pending, c.is, c.member} {
		ch <- d
	}
}

// Collect gives the state of each assigned partition.
func (c *partitionCollector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	yes := map[bool]float64{true: 1}
	now := time.Now()
	member, partitions := c.board.all()
	gauge(c.member, yes[member])
	for _, p := range partitions {
		s := p.status()
		lag, age := p.lag(now)
		topic, partition := s.Topic, strconv.Itoa(s.Partition)
		gauge(c.lag, float64(lag), topic, partition)
		gauge(c.age, age.Seconds(), topic, partition)
		gauge(c.applied, float64(s.Applied), topic, partition)
		gauge(c.published, float64(s.Published), topic, partition)
		gauge(c.pending, float64(s.Pending), topic, partition)
		for _, state := range handlers.States() {
			gauge(c.is, yes[s.State == state], topic, partition, string(state))
		}
	}
}

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"learnsink/consumer"
	"learnsink/handlers"
	"learnsink/store"
)

// deep is `audit --deep`: the topics held against the books.
type deep struct {
	app       *app
	config    *config
	client    *consumer.Client
	db        *store.Store
	positions []handlers.Position               // as they were at the beginning: what comes later is not judged
	books     map[handlers.TopicPartition]*book // by the topic's name as ids have it
	outputs   []*output
	faults    []string
}

// output is a topic of outcomes, of one kind.
type output struct {
	topic    string
	accepted bool
	lanes    map[int]*lane // its partitions
}

// lane is one partition of an output topic.
type lane struct {
	start int64           // what was before it, the topic has forgotten
	first map[*book]int64 // the first offset of each log whose outcome is there
}

// auditTopics reads the sources and the outputs and holds them against the
// positions, which were read before: what is applied meanwhile is beyond them.
// The sources are read last, so that every outcome that was seen has its row
// in what is read then.
func (a *app) auditTopics(ctx context.Context, c *config, db *store.Store, positions []handlers.Position) ([]string, error) {
	client, err := c.client()
	if err != nil {
		return nil, err
	}
	defer client.Close()
	d := &deep{app: a, config: c, client: client, db: db, positions: positions, books: map[handlers.TopicPartition]*book{}}
	for _, step := range []func(context.Context) error{d.open, d.readOutputs, d.readSources, d.closeChanged} {
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	for _, b := range d.inOrder() {
		if err := b.judge(ctx, db, c.Publish == string(consumer.Transactional)); err != nil {
			return nil, err
		}
		d.faults = append(d.faults, b.faults.all()...)
	}
	d.report()
	return d.faults, nil
}

// open makes a book for every log that the positions' partitions have had.
func (d *deep) open(ctx context.Context) error {
	cluster, err := clusterID(ctx, d.client)
	if err != nil {
		return err
	}
	operations, err := d.db.Operations(ctx, "")
	if err != nil {
		return err
	}
	sets, err := positionSets(operations)
	if err != nil {
		return err
	}
	for _, p := range d.positions {
		source := d.config.sourceNamed(p.Topic)
		switch {
		case source == nil:
			d.app.warn("%s/%d is no source of this configuration: its topics are not read", p.Topic, p.Partition)
			continue
		case p.ClusterID != cluster:
			d.app.warn("%s/%d belongs to another Kafka cluster: its topics are not read", p.Topic, p.Partition)
			continue
		}
		for incarnation := 1; incarnation <= p.Incarnation; incarnation++ {
			log := store.Log{TopicPartition: p.TopicPartition, Incarnation: incarnation}
			all := stretches(legs(log, p, sets[p.TopicPartition]))
			if len(all) == 0 && incarnation < p.Incarnation {
				continue
			}
			b := newBook(log, source, p, all)
			if replays := d.config.replays(); replays != nil && replays.Topic == p.Topic {
				b.replays = replays
			}
			if err := b.readTables(ctx, d.db, d.config.Retention); err != nil {
				return err
			}
			d.books[handlers.TopicPartition{Topic: idTopic(p.Topic, incarnation), Partition: p.Partition}] = b
		}
	}
	return nil
}

// idTopic is a topic's name as the ids of outcomes have it.
func idTopic(topic string, incarnation int) string {
	if incarnation > 1 {
		topic += fmt.Sprintf("~%d", incarnation)
	}
	return topic
}

// positionSets returns what operators did to the positions, by partition and in order.
func positionSets(operations []store.Operation) (map[handlers.TopicPartition][]store.PositionSet, error) {
	sets := map[handlers.TopicPartition][]store.PositionSet{}
	for i := range operations {
		set, ok, err := operations[i].Set()
		if err != nil {
			return nil, err
		}
		if ok {
			sets[operations[i].TopicPartition] = append(sets[operations[i].TopicPartition], set)
		}
	}
	return sets, nil
}

func clusterID(ctx context.Context, client *consumer.Client) (id string, err error) {
	err = patiently(ctx, func(ctx context.Context) error {
		id, err = client.ClusterID(ctx)
		return err
	})
	return id, err
}

// readOutputs enters every outcome into the book of its log.
func (d *deep) readOutputs(ctx context.Context) error {
	kinds := map[string]bool{} // topic -> holds accepted events; a topic holds one kind
	for _, s := range d.config.Sources {
		kinds[s.AcceptedTopic], kinds[s.DeadLetterTopic] = true, false
	}
	for _, topic := range slices.Sorted(maps.Keys(kinds)) {
		o := &output{topic: topic, accepted: kinds[topic], lanes: map[int]*lane{}}
		d.outputs = append(d.outputs, o)
		for _, b := range d.books {
			if b.replays != nil || topic == b.source.AcceptedTopic || topic == b.source.DeadLetterTopic {
				b.outputs[o.accepted] = append(b.outputs[o.accepted], o)
			}
		}
		ends, err := d.settled(ctx, topic)
		if err != nil {
			return err
		}
		for partition, end := range ends {
			l := &lane{first: map[*book]int64{}}
			o.lanes[partition] = l
			l.start, err = d.readLog(ctx, topic, partition, 0, end, func(r *handlers.Record) error {
				d.enter(o, l, r)
				return nil
			}, func() { clear(l.first) })
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// settled returns the stable ends of an output, once they have come to where
// the topic ends now: what is published is seen a moment later, when the
// brokers have written that its transaction is committed.
func (d *deep) settled(ctx context.Context, topic string) (map[int]int64, error) {
	ends, err := offsets(ctx, d.client.EndOffsets, topic)
	if err != nil {
		return nil, err
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for began := time.Now(); ; {
		stable, err := offsets(ctx, d.client.StableOffsets, topic)
		if err != nil {
			return nil, err
		}
		behind := slices.ContainsFunc(slices.Collect(maps.Keys(ends)), func(p int) bool { return stable[p] < ends[p] })
		if !behind {
			return stable, nil
		}
		if time.Since(began) > openPatience {
			d.app.warn("%s has a transaction that nobody ends: what is behind it is not read", topic)
			return stable, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// openPatience is longer than the brokers leave a transaction open that nobody ends.
const openPatience = 45 * time.Second

// readLog hands the records of [from, end) of a log to fn, and returns the
// offset from which on the log has held them all. Where retention is faster
// than reading, lost is told that what was read so far is not all there was.
func (d *deep) readLog(ctx context.Context, topic string, partition int, from, end int64, fn func(*handlers.Record) error, lost func()) (int64, error) {
	start := from
	for {
		starts, err := offsets(ctx, d.client.StartOffsets, topic)
		if err != nil {
			return 0, err
		}
		if first := starts[partition]; first > from {
			start, from = first, first
			lost()
		}
		err = d.client.ReadRange(ctx, topic, partition, from, end, func(r *handlers.Record) error {
			from = r.Offset + 1
			return fn(r)
		})
		var stop *consumer.StopError
		if !errors.As(err, &stop) || stop.State != handlers.DataLost {
			return start, err
		}
	}
}

// enter enters an output into the book of its log.
func (d *deep) enter(o *output, l *lane, r *handlers.Record) {
	if kind, _ := r.Header("ce_type"); o.accepted && string(kind) == handlers.PersonErased {
		return // of no row
	}
	header := map[bool]string{true: "ce_id", false: "learnsink.id"}[o.accepted]
	id, ok := r.Header(header)
	if !ok {
		d.faults = append(d.faults, fmt.Sprintf("%s/%d offset %d: a record without %s", r.Topic, r.Partition, r.Offset, header))
		return
	}
	tp, offset, ok := parseID(string(id))
	b := d.books[tp]
	switch {
	case !ok:
		d.faults = append(d.faults, fmt.Sprintf("%s/%d offset %d: %s is no id of an outcome", r.Topic, r.Partition, r.Offset, id))
	case b == nil: // of a source that another configuration has
	case offset < b.first:
		d.faults = append(d.faults, fmt.Sprintf("%s/%d offset %d: an outcome of %s, which is no row", r.Topic, r.Partition, r.Offset, id))
	case offset >= b.next: // applied since the positions were read, or the database has gone back
		if offset >= b.beyond.offset {
			b.beyond = beyond{offset, fmt.Sprintf("%s/%d offset %d", r.Topic, r.Partition, r.Offset)}
		}
	default:
		if _, there := l.first[b]; !there {
			l.first[b] = offset
		}
		b.outcome(offset, o.accepted)
	}
}

// readSources enters the rows that the logs still hold.
func (d *deep) readSources(ctx context.Context) error {
	for _, b := range d.inOrder() {
		if !b.readable() {
			continue
		}
		ends, err := offsets(ctx, d.client.EndOffsets, b.log.Topic)
		if err != nil {
			return err
		}
		b.end = ends[b.log.Partition]
		if b.beyond.offset >= b.end && b.beyond.place != "" {
			d.faults = append(d.faults, fmt.Sprintf("%s: an outcome of %s/%d offset %d, which is no row", b.beyond.place, b.name(), b.log.Partition, b.beyond.offset))
		}
		choose := map[*output]func([]byte) int{}
		for _, o := range d.outputs {
			choose[o] = consumer.Partitioner(len(o.lanes))
		}
		b.start, err = d.readLog(ctx, b.log.Topic, b.log.Partition, b.first, min(b.next, b.end), func(r *handlers.Record) error {
			b.row(r, func(o *output) int {
				if r.Key == nil {
					return r.Partition % len(o.lanes)
				}
				return choose[o](r.Key)
			})
			return nil
		}, func() {})
		if err != nil {
			return err
		}
	}
	return nil
}

// horizon is the offset of a log from which on an output holds all its
// outcomes. Each partition of an output holds them in their order, so what it
// has forgotten is below the first that it has.
func (o *output) horizon(b *book) (horizon int64) {
	for _, l := range o.lanes {
		if l.start > 0 {
			horizon = max(horizon, l.from(b))
		}
	}
	return horizon
}

// from is the first offset of a log whose outcome is there.
func (l *lane) from(b *book) int64 {
	if first, ok := l.first[b]; ok {
		return first
	}
	return math.MaxInt64
}

// closeChanged closes the books of partitions that an operator has set
// meanwhile: what was read is of two minds.
func (d *deep) closeChanged(ctx context.Context) error {
	now, err := d.db.Positions(ctx)
	if err != nil {
		return err
	}
	rounds := map[handlers.TopicPartition]int{}
	for _, p := range now {
		rounds[p.TopicPartition] = p.Round
	}
	for _, p := range d.positions {
		if rounds[p.TopicPartition] == p.Round {
			continue
		}
		d.app.warn("%s/%d was set by an operator meanwhile and is not judged: run audit again", p.Topic, p.Partition)
		for id, b := range d.books {
			if b.log.TopicPartition == p.TopicPartition {
				delete(d.books, id)
			}
		}
	}
	return nil
}

func (d *deep) inOrder() []*book {
	return slices.SortedFunc(maps.Values(d.books), func(a, b *book) int {
		return cmp.Or(cmp.Compare(a.log.Topic, b.log.Topic), cmp.Compare(a.log.Partition, b.log.Partition), cmp.Compare(a.log.Incarnation, b.log.Incarnation))
	})
}

// report prints what was proved, and by what.
func (d *deep) report() {
	var sum counts
	for _, b := range d.books {
		sum.outcomes += b.counts.outcomes
		sum.repeats += b.counts.repeats
		sum.again += b.counts.again
		sum.silent += b.counts.silent
		sum.skipped += b.counts.skipped
		sum.erased += b.counts.erased
		sum.waited += b.counts.waited
	}
	out := d.app.stdout
	fmt.Fprintf(out, "topics: %d rows have their outcome; repeats: %d; faults: %d\n", sum.outcomes, sum.repeats, len(d.faults))
	for _, line := range []struct {
		n    int64
		what string
	}{
		{sum.again, "outcomes were announced again, as an operator asked (position set --republish)"},
		{sum.silent, "rows were judged anew, and what became of them was not announced, as an operator asked (position set --silent)"},
		{sum.skipped, "rows have no outcome: an operator has skipped them (position set)"},
		{sum.erased, "rows have no outcome: they are of persons who were erased (dlq erase)"},
		{sum.waited, "rows went into the waiting room: they have no outcome yet, or it is that of a row of the replay topic"},
	} {
		if line.n > 0 {
			fmt.Fprintf(out, "topics: %d %s\n", line.n, line.what)
		}
	}
	for _, b := range d.inOrder() {
		for _, is := range []kind{isAccepted, isRejected, isEither} {
			if f := b.forgotten[is]; f.rows > 0 {
				fmt.Fprintf(out, "%s: %d %srows of %s/%d below offset %d are proved by the ledger alone\n",
					b.beginnings(is), f.rows, is, b.name(), b.log.Partition, f.below)
			}
		}
		switch n := b.counts.unseen; {
		case n > 0 && b.readable():
			fmt.Fprintf(out, "%s/%d holds nothing before offset %d: which offsets before it were rows is the ledger's word alone (%d rows)\n",
				b.log.Topic, b.log.Partition, b.start, n)
		case n > 0:
			fmt.Fprintf(out, "%s/%d is no longer the log that it was: which of its offsets were rows is the ledger's word alone (%d rows)\n",
				b.name(), b.log.Partition, n)
		}
	}
}

// beginnings says what the outputs of a kind have forgotten.
func (b *book) beginnings(is kind) string {
	var all []string
	for _, o := range b.outputsOf(is) {
		for _, partition := range slices.Sorted(maps.Keys(o.lanes)) {
			if start := o.lanes[partition].start; start > 0 {
				all = append(all, fmt.Sprintf("%s/%d holds nothing before offset %d", o.topic, partition, start))
			}
		}
	}
	return strings.Join(all, ", ")
}

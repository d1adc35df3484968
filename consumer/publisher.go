package consumer

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"learnsink/handlers"
)

// Publisher publishes the outbox of one source partition under one claim.
//
// It is called by one goroutine at a time: Begin, then Publish with entries in
// the order of their offsets. After an error of Publish it is unknown what was
// published, and Begin has to be called again before anything else; it does
// not retry by itself.
type Publisher interface {
	// Begin makes sure that no earlier publisher of the partition can publish
	// any more, where it can, and says how far they came. What is published
	// from here on is of the position's round.
	Begin(ctx context.Context, round int) (Marker, error)
	// Find looks the entries up in the outputs: for a marker that is gone. It
	// returns the offset below which everything is there.
	Find(ctx context.Context, entries []handlers.OutboxEntry) (through int64, err error)
	// Publish returns nil once every output of the entries is acknowledged by
	// all in-sync replicas, in order within each output partition.
	Publish(ctx context.Context, entries []handlers.OutboxEntry) error
}

// Marker says how far the outputs of a source partition are published.
type Marker struct {
	// Known: there is a marker, or there never is one.
	Known bool
	// Through: every output of source offsets below it is published.
	Through int64
	// Round of the position that it was written under.
	Round int
}

// cluster is what publishing needs of the brokers. Client is one.
type cluster interface {
	partitionCount(ctx context.Context, topic string) (int, error)
	maxMessageBytes(ctx context.Context, topic string) (int, error)
	// produce writes an encoded record batch to each of some output partitions;
	// transactionalID is "" for batches of no transaction. Where errs has
	// nothing the batch is written; where it has ErrTooLarge it is not; any
	// other error leaves that unknown.
	produce(ctx context.Context, transactionalID string, batches map[lane]wireBatch) (offsets map[lane]int64, errs map[lane]error)
	// scan hands fn what is committed to a topic since a time.
	scan(ctx context.Context, topic string, since time.Time, fn func(*handlers.Record) error) error

	// Transactions, each a request of Kafka's.
	initProducer(ctx context.Context, transactionalID string) (*producer, error)
	marker(ctx context.Context, group string, tp handlers.TopicPartition) (Marker, error)
	addPartitions(ctx context.Context, p *producer, lanes []lane) error
	addGroup(ctx context.Context, p *producer, group string) error
	addMarker(ctx context.Context, p *producer, group string, tp handlers.TopicPartition, m Marker) error
	endTransaction(ctx context.Context, p *producer) error
}

// outputTopics remembers what the output topics are like.
type outputTopics struct {
	cluster cluster
	mu      sync.Mutex
	known   map[string]outputTopic
}

// outputTopic is what is known of an output topic.
type outputTopic struct {
	partitions int                  // 0: not known
	choose     func(key []byte) int // among them
	limit      int                  // max.message.bytes
	asked      time.Time            // for the limit
}

// limitLife is how long a topic's limit is believed.
const limitLife = time.Minute

// leastLimit is one to the size of a record batch that any topic should have.
const leastLimit = 16 << 10

// of returns what a topic is like; its limit is asked for where it is older than life.
func (o *outputTopics) of(ctx context.Context, topic string, life time.Duration) (outputTopic, error) {
	t := o.remembered(topic)
	partitions, err := o.cluster.partitionCount(ctx, topic)
	if err != nil {
		return t, fmt.Errorf("output topic: %w", err)
	}
	if partitions != t.partitions {
		t.partitions, t.choose = partitions, partitioner(partitions)
	}
	if time.Since(t.asked) >= life {
		if t.limit, err = o.cluster.maxMessageBytes(ctx, topic); err != nil {
			return t, err
		}
		t.asked = time.Now()
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.known == nil {
		o.known = map[string]outputTopic{}
	}
	o.known[topic] = t
	return t, nil
}

// remembered returns what a topic was like when it was last published to. It
// asks no broker: whoever packs has a transaction of the database open. What
// has changed since, or was not known, is for the publication to see.
func (o *outputTopics) remembered(topic string) outputTopic {
	o.mu.Lock()
	defer o.mu.Unlock()
	if t, ok := o.known[topic]; ok {
		return t
	}
	return outputTopic{limit: leastLimit}
}

// partition is the one of an output: that of its key, whatever form of it goes out.
func (t *outputTopic) partition(sourcePartition int, key []byte) int {
	switch {
	case t.partitions == 0:
		return 0
	case key == nil:
		return sourcePartition % t.partitions
	}
	return t.choose(key)
}

// outlet sends what outbox entries hold.
type outlet struct {
	cluster cluster
	codec   *compressor
	topics  *outputTopics
	undo    decompressor
}

// lane is one output partition.
type lane struct {
	topic     string
	partition int
}

// freight is what one output partition still has to take.
type freight struct {
	lane
	most  int // the topic's limit, in bytes
	limit int // of the next batch
	cargo []cargo

	batch []byte // the next one
	taken int    // how many outputs it holds
}

// cargo is a parcel, or outputs that are to be packed.
type cargo struct {
	parcel  *parcel // nil: outputs
	outputs []output
	size    int // of the parcels that they came in, where they are still to go there
}

// fewBytes: parcels that are no larger together are made one. To pack them
// anew takes less than a request for each.
const fewBytes = 16 << 10

func (f *freight) put(c cargo, undo *decompressor) error {
	if n := len(f.cargo); n > 0 {
		last := &f.cargo[n-1]
		if last.parcel == nil && c.parcel == nil || last.size+c.size <= fewBytes {
			if err := errors.Join(last.open(undo), c.open(undo)); err != nil {
				return err
			}
			last.outputs, last.size = append(last.outputs, c.outputs...), last.size+c.size
			return nil
		}
	}
	f.cargo = append(f.cargo, c)
	return nil
}

// open makes a parcel the outputs that it holds.
func (c *cargo) open(undo *decompressor) (err error) {
	if c.parcel != nil {
		c.outputs, err = c.parcel.open(undo, math.MaxInt32)
		c.parcel = nil
	}
	return err
}

// load sorts what the entries hold by output partition.
func (o *outlet) load(ctx context.Context, entries []handlers.OutboxEntry) ([]*freight, error) {
	l := &loading{outlet: o, lanes: map[lane]*freight{}, topics: map[string]outputTopic{}}
	for _, e := range entries {
		if err := l.entry(ctx, e.Payload); err != nil {
			return nil, fmt.Errorf("offsets %d to %d: %w", e.From, e.To-1, err)
		}
	}
	return l.load, nil
}

// loading is a load that is being put together.
type loading struct {
	*outlet
	load   []*freight
	lanes  map[lane]*freight
	topics map[string]outputTopic // as they are now
}

// entry loads an entry: its parcels as they are, unless the number of a
// topic's partitions is not the one that they were packed for.
func (l *loading) entry(ctx context.Context, raw []byte) error {
	p, err := readPayload(raw, &l.undo)
	if err != nil {
		return err
	}
	packed := p.parcels != nil
	for i := range p.parcels {
		t, err := l.topic(ctx, p.parcels[i].topic)
		if err != nil {
			return err
		}
		packed = packed && t.partitions == p.parcels[i].partitions
	}
	if packed {
		for i := range p.parcels {
			parcel := &p.parcels[i]
			if err := l.lane(parcel.lane).put(cargo{parcel: parcel, size: parcel.size()}, &l.undo); err != nil {
				return err
			}
		}
		return nil
	}
	outputs, err := p.open(&l.undo, math.MaxInt32)
	if err != nil {
		return err
	}
	for i := range outputs {
		out := &outputs[i]
		t, err := l.topic(ctx, out.topic)
		if err != nil {
			return err
		}
		at := lane{out.topic, t.partition(out.sourcePartition, out.forms[0].Key)}
		if err := l.lane(at).put(cargo{outputs: outputs[i : i+1 : i+1]}, nil); err != nil {
			return err
		}
	}
	return nil
}

func (l *loading) topic(ctx context.Context, name string) (outputTopic, error) {
	t, ok := l.topics[name]
	if ok {
		return t, nil
	}
	t, err := l.outlet.topics.of(ctx, name, limitLife)
	if err == nil {
		l.topics[name] = t
	}
	return t, err
}

func (l *loading) lane(at lane) *freight {
	f := l.lanes[at]
	if f == nil {
		limit := l.topics[at.topic].limit
		f = &freight{lane: at, most: limit, limit: limit}
		l.lanes[at], l.load = f, append(l.load, f)
	}
	return f
}

// send writes a load, in rounds of a batch each: Kafka takes one batch of a
// partition in a request.
func (o *outlet) send(ctx context.Context, load []*freight, from *producer) error {
	for {
		load = slices.DeleteFunc(load, func(f *freight) bool { return len(f.cargo) == 0 })
		if len(load) == 0 {
			return nil
		}
		round, err := o.pack(load)
		if err != nil {
			return err
		}
		now := time.Now()
		batches := make(map[lane]wireBatch, len(round))
		for _, f := range round {
			batches[f.lane] = from.sign(f.lane, f.batch, now)
		}
		_, errs := o.cluster.produce(ctx, from.transactionalID, batches)
		for _, f := range round {
			err := errs[f.lane]
			switch {
			case errors.Is(err, ErrTooLarge):
				// Somebody lowered the limit, or the broker compresses worse than we do.
				t, err := o.topics.of(ctx, f.topic, 0)
				if err != nil {
					return err
				}
				f.most, f.limit = t.limit, min(t.limit, len(f.batch)-1)
			case err != nil:
				return err
			default:
				from.advance(f.lane, f.taken)
				f.sent()
			}
		}
	}
}

// sent takes the next batch off.
func (f *freight) sent() {
	if c := &f.cargo[0]; f.taken < len(c.outputs) {
		c.outputs = c.outputs[f.taken:]
	} else {
		f.cargo = f.cargo[1:]
	}
	f.limit = f.most
}

// roundBytes bounds a round, well below what brokers take in a request.
const roundBytes = 16 << 20

// pack makes the next batch ready of as many of the load as a round holds, one at least.
func (o *outlet) pack(load []*freight) (round []*freight, err error) {
	room := roundBytes
	for _, f := range load {
		if room -= f.most; room < 0 && len(round) > 0 {
			break
		}
		round = append(round, f)
	}
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0))
	for _, f := range round {
		g.Go(func() error { return f.pack(o.codec) })
	}
	return round, g.Wait()
}

// pack makes the next batch ready: a parcel's as it is, if it fits, or as many
// outputs as a batch holds; and of one that does not fit by itself a smaller form.
func (f *freight) pack(codec *compressor) (err error) {
	c := &f.cargo[0]
	if p := c.parcel; p != nil && len(p.forms[0]) <= f.limit {
		f.batch, f.taken = p.forms[0], p.records()
		return nil
	}
	if err := c.open(&decompressor{}); err != nil {
		return err
	}
	for {
		f.batch, f.taken, err = packBatch(forms(c.outputs), codec, f.limit, time.UnixMilli(0))
		if err != nil || f.taken > 0 {
			return err
		}
		out := &c.outputs[0]
		if len(out.forms) == 1 {
			return fmt.Errorf("an output for %s: %w, which is %d bytes", f.topic, ErrTooLarge, f.limit)
		}
		out.forms = out.forms[1:]
	}
}

// forms returns the largest form of each output.
func forms(outputs []output) iter.Seq[*Message] {
	return func(yield func(*Message) bool) {
		for i := range outputs {
			if !yield(&outputs[i].forms[0]) {
				return
			}
		}
	}
}

// plainPublisher publishes at least once: after an error, outputs may appear
// again, with the ids they had.
type plainPublisher struct{ outlet }

// Begin has nobody to fence off and nothing to know.
func (p *plainPublisher) Begin(context.Context, int) (Marker, error) { return Marker{Known: true}, nil }

// Find is not asked, as no marker is ever gone.
func (p *plainPublisher) Find(context.Context, []handlers.OutboxEntry) (int64, error) { return 0, nil }

// Publish sends the outputs.
func (p *plainPublisher) Publish(ctx context.Context, entries []handlers.OutboxEntry) error {
	load, err := p.load(ctx, entries)
	if err != nil {
		return err
	}
	return p.send(ctx, load, &producer{id: nobody, epoch: nobody})
}

package consumer

import (
	"context"
	"errors"
	"fmt"
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
	produce(ctx context.Context, transactionalID string, batches map[lane][]byte) (offsets map[lane]int64, errs map[lane]error)
	// scan hands fn what is committed to a topic since a time.
	scan(ctx context.Context, topic string, since time.Time, fn func(*handlers.Record) error) error

	// Transactions, each a request of Kafka's.
	initProducer(ctx context.Context, transactionalID string) (*producer, error)
	marker(ctx context.Context, group string, tp handlers.TopicPartition) (Marker, error)
	addPartitions(ctx context.Context, p *producer, lanes []lane) error
	addMarker(ctx context.Context, p *producer, group string, tp handlers.TopicPartition, m Marker) error
	endTransaction(ctx context.Context, p *producer) error
}

// outputLimits knows the max.message.bytes of the output topics.
type outputLimits struct {
	cluster cluster
	mu      sync.Mutex
	known   map[string]outputLimit
}

type outputLimit struct {
	bytes int
	asked time.Time
}

// limitLife is how long a topic's limit is believed.
const limitLife = time.Minute

// of returns a topic's limit, asked for again where it is older than life.
func (l *outputLimits) of(ctx context.Context, topic string, life time.Duration) (int, error) {
	if known, ok := l.remembered(topic); ok && time.Since(known.asked) < life {
		return known.bytes, nil
	}
	bytes, err := l.cluster.maxMessageBytes(ctx, topic)
	if err != nil {
		return 0, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.known == nil {
		l.known = map[string]outputLimit{}
	}
	l.known[topic] = outputLimit{bytes, time.Now()}
	return bytes, nil
}

func (l *outputLimits) remembered(topic string) (outputLimit, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	known, ok := l.known[topic]
	return known, ok
}

// comfortable is a size that fits a topic with room to spare, even should its
// limit come down to a quarter; it never asks the broker. An output that is
// larger takes its smaller forms with it into the outbox.
func (l *outputLimits) comfortable(topic string) int {
	if known, ok := l.remembered(topic); ok {
		return known.bytes / 4
	}
	return 4 << 10
}

// outlet turns outbox entries into record batches.
type outlet struct {
	cluster cluster
	codec   *compressor
	limits  *outputLimits
	undo    decompressor
}

// lane is one output partition.
type lane struct {
	topic     string
	partition int
}

// lanes sorts what the entries hold by output partition.
func (o *outlet) lanes(ctx context.Context, entries []handlers.OutboxEntry) (map[lane][]output, error) {
	lanes := map[lane][]output{}
	choose := map[string]func(key []byte) int{}
	counts := map[string]int{}
	for _, e := range entries {
		outputs, err := decodePayload(e.Payload, &o.undo)
		if err != nil {
			return nil, fmt.Errorf("offsets %d to %d: %w", e.From, e.To-1, err)
		}
		for _, out := range outputs {
			if counts[out.topic] == 0 {
				n, err := o.cluster.partitionCount(ctx, out.topic)
				if err != nil {
					return nil, fmt.Errorf("output topic: %w", err)
				}
				counts[out.topic], choose[out.topic] = n, partitioner(n)
			}
			// The partition is that of the whole output, whatever form of it goes out.
			l := lane{out.topic, out.sourcePartition % counts[out.topic]}
			if key := out.forms[0].Key; key != nil {
				l.partition = choose[out.topic](key)
			}
			lanes[l] = append(lanes[l], out)
		}
	}
	return lanes, nil
}

// freight is what one output partition still has to take.
type freight struct {
	lane
	outputs  []output
	messages []Message // what of each output is to be sent: its largest form that fits
	done     int       // how many are written
	most     int       // the topic's limit, in bytes
	limit    int       // of the next batch

	batch []byte // the next one
	taken int    // how many messages it holds
}

// send writes what all lanes hold, in rounds of a batch each. produce is asked
// to write one round.
func (o *outlet) send(ctx context.Context, lanes map[lane][]output, produce func(ctx context.Context, round []*freight) map[lane]error) error {
	var load []*freight
	for l, outputs := range lanes {
		most, err := o.limits.of(ctx, l.topic, limitLife)
		if err != nil {
			return err
		}
		f := &freight{lane: l, outputs: outputs, messages: make([]Message, len(outputs)), most: most, limit: most}
		for i := range outputs {
			f.messages[i] = outputs[i].forms[0]
		}
		load = append(load, f)
	}
	for {
		load = slices.DeleteFunc(load, func(f *freight) bool { return f.done == len(f.messages) })
		if len(load) == 0 {
			return nil
		}
		round, err := o.pack(load)
		if err != nil {
			return err
		}
		errs := produce(ctx, round)
		for _, f := range round {
			err := errs[f.lane]
			switch {
			case errors.Is(err, ErrTooLarge):
				// Somebody lowered the limit, or the broker compresses worse than we do.
				if f.most, err = o.limits.of(ctx, f.topic, 0); err != nil {
					return err
				}
				f.limit = min(f.most, len(f.batch)-1)
			case err != nil:
				return err
			default:
				f.done, f.limit = f.done+f.taken, f.most
			}
		}
	}
}

// roundBytes bounds a round, well below what brokers take in a request.
const roundBytes = 16 << 20

// pack encodes the next batch of as many of the load as a round holds, one at least.
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

// pack encodes the next batch: as many outputs as it holds, and of one that
// does not fit by itself a smaller form.
func (f *freight) pack(codec *compressor) (err error) {
	for {
		f.batch, f.taken, err = packBatch(f.messages[f.done:], codec, f.limit, time.Now())
		if err != nil || f.taken > 0 {
			return err
		}
		out := &f.outputs[f.done]
		if len(out.forms) == 1 {
			return fmt.Errorf("an output for %s: %w, which is %d bytes", f.topic, ErrTooLarge, f.limit)
		}
		out.forms = out.forms[1:]
		f.messages[f.done] = out.forms[0]
	}
}

// batchesOf returns a round's batches by their output partitions.
func batchesOf(round []*freight) map[lane][]byte {
	batches := make(map[lane][]byte, len(round))
	for _, f := range round {
		batches[f.lane] = f.batch
	}
	return batches
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
	lanes, err := p.lanes(ctx, entries)
	if err != nil {
		return err
	}
	return p.send(ctx, lanes, func(ctx context.Context, round []*freight) map[lane]error {
		_, errs := p.cluster.produce(ctx, "", batchesOf(round))
		return errs
	})
}

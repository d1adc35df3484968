package consumer

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"learnsink/handlers"
)

// Publisher publishes the outbox of one source partition under one claim.
//
// It is called by one goroutine at a time, first Begin, then Publish with
// entries in the order of their offsets. It does not retry: whoever calls it
// does, with the same entries. What comes of an error is unknown; calling
// again may publish the same outputs a second time, under the same ids.
type Publisher interface {
	// Begin takes over from the last owner. A publisher that can fences that
	// one off here, and returns the offset below which everything is known to
	// be published; 0 where it cannot know.
	Begin(ctx context.Context) (through int64, err error)
	// Publish returns nil once every output of the entries is acknowledged by
	// all in-sync replicas, in order within each output partition.
	Publish(ctx context.Context, entries []handlers.OutboxEntry) error
}

// outputLimits knows the max.message.bytes of the output topics.
type outputLimits struct {
	client *Client
	mu     sync.Mutex
	known  map[string]outputLimit
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
	bytes, err := l.client.maxMessageBytes(ctx, topic)
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

// plainPublisher publishes at least once: after an error, outputs may appear
// again, with the ids they had.
type plainPublisher struct {
	client *Client
	codec  *compressor
	limits *outputLimits
	undo   decompressor
}

// Begin has nobody to fence off and nothing to know.
func (p *plainPublisher) Begin(context.Context) (int64, error) { return 0, nil }

// lane is one output partition.
type lane struct {
	topic     string
	partition int
}

// Publish sends the outputs, one request in flight per output partition.
func (p *plainPublisher) Publish(ctx context.Context, entries []handlers.OutboxEntry) error {
	lanes := map[lane][]output{}
	choose := map[string]func(key []byte) int{}
	counts := map[string]int{}
	for _, e := range entries {
		outputs, err := decodePayload(e.Payload, &p.undo)
		if err != nil {
			return fmt.Errorf("offsets %d to %d: %w", e.From, e.To-1, err)
		}
		for _, o := range outputs {
			if counts[o.topic] == 0 {
				n, err := p.client.partitionCount(ctx, o.topic)
				if err != nil {
					return fmt.Errorf("output topic: %w", err)
				}
				counts[o.topic], choose[o.topic] = n, partitioner(n)
			}
			// The partition is that of the whole output, whatever form of it goes out.
			l := lane{o.topic, o.sourcePartition % counts[o.topic]}
			if key := o.forms[0].Key; key != nil {
				l.partition = choose[o.topic](key)
			}
			lanes[l] = append(lanes[l], o)
		}
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(16)
	for l, outputs := range lanes {
		g.Go(func() error { return p.send(ctx, l, outputs) })
	}
	return g.Wait()
}

// send writes the outputs of one output partition, in record batches that its
// topic takes.
func (p *plainPublisher) send(ctx context.Context, l lane, outputs []output) error {
	most, err := p.limits.of(ctx, l.topic, limitLife)
	if err != nil {
		return err
	}
	messages := make([]Message, len(outputs))
	for i := range outputs {
		messages[i] = outputs[i].forms[0]
	}
	for done, limit := 0, most; done < len(messages); {
		batch, taken, err := packBatch(messages[done:], p.codec, limit, time.Now())
		if err != nil {
			return err
		}
		if taken == 0 {
			o := &outputs[done]
			if len(o.forms) == 1 {
				return fmt.Errorf("an output for %s: %w, which is %d bytes", l.topic, ErrTooLarge, limit)
			}
			o.forms = o.forms[1:]
			messages[done] = o.forms[0]
			continue
		}
		_, err = p.client.produceBatch(ctx, l.topic, l.partition, batch)
		switch {
		case errors.Is(err, ErrTooLarge):
			// Somebody lowered the limit, or the broker compresses worse than we do.
			if most, err = p.limits.of(ctx, l.topic, 0); err != nil {
				return err
			}
			limit = min(most, len(batch)-1)
		case err != nil:
			return err
		default:
			done, limit = done+taken, most
		}
	}
	return nil
}

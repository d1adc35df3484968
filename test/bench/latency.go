package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"
)

// Latency, from a row's produce call to its visibility: in the table (its
// partition's position has passed it, which the same transaction does), and in
// a reader of the accepted topic (read_committed, fetch.min.bytes 1).

// arrivals are when rows were sent and seen, since the begin: by partition, and
// within it by offset.
type arrivals struct {
	mu     sync.Mutex
	sent   [][]time.Duration
	read   [][]time.Duration // 0: not yet
	stored [][]progress
	reads  int
}

// progress is how far a partition was applied when somebody looked.
type progress struct {
	at   time.Duration
	next int64
}

func newArrivals(partitions int) *arrivals {
	return &arrivals{sent: make([][]time.Duration, partitions), read: make([][]time.Duration, partitions), stored: make([][]progress, partitions)}
}

// note notes a time; what lies between is not there yet.
func note(times *[]time.Duration, offset int64, at time.Duration) {
	for int64(len(*times)) <= offset {
		*times = append(*times, 0)
	}
	(*times)[offset] = at
}

// count returns how many rows are seen in the table, and in the topic.
func (a *arrivals) count() (stored, read int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, p := range a.stored {
		if len(p) > 0 {
			stored += int(p[len(p)-1].next)
		}
	}
	return stored, a.reads
}

// latencies returns, in seconds, how long the rows sent from a time on took.
func (a *arrivals) latencies(from time.Duration) (stored, read []float64) {
	for p, sent := range a.sent {
		steps := a.stored[p]
		for offset, at := range sent {
			for len(steps) > 0 && steps[0].next <= int64(offset) {
				steps = steps[1:]
			}
			if at < from || len(steps) == 0 {
				continue
			}
			stored = append(stored, (steps[0].at - at).Seconds())
			if offset < len(a.read[p]) && a.read[p][offset] != 0 {
				read = append(read, (a.read[p][offset] - at).Seconds())
			}
		}
	}
	return stored, read
}

// crowd is how many rows are made before the clock runs; where more are sent,
// they come again.
const crowd = 300_000

// latency sends rows at a rate for a while to a learnsink that is running, and
// measures how long they are on the road. The first fifth of the time does not
// count: statements are prepared in it, and caches filled.
func (b *bench) latency(ctx context.Context, build build, l load, rate float64, lasting time.Duration) (stored, read result, err error) {
	template, err := b.template(ctx, build, l.world, l.tableRows)
	if err != nil {
		return stored, read, err
	}
	database, err := b.create(ctx, template)
	if err != nil {
		return stored, read, err
	}
	defer b.drop(context.WithoutCancel(ctx), database)
	db, err := pgx.Connect(ctx, database)
	if err != nil {
		return stored, read, err
	}
	defer db.Close(context.WithoutCancel(ctx))
	b.runs++
	run := fmt.Sprintf("%d-%d", os.Getpid(), b.runs)
	topic, accepted, deadLetter := "bench.live."+run, "bench.accepted."+run, "bench.dead-letter."+run
	for _, topic := range []string{topic, accepted, deadLetter} {
		if err := b.createTopic(ctx, topic, l.partitions); err != nil {
			return stored, read, err
		}
	}
	defer b.dropTopics(context.WithoutCancel(ctx), topic, accepted, deadLetter)
	config := filepath.Join(b.dir, run+".yaml")
	if err := os.WriteFile(config, []byte(b.settings(l, topic, run)), 0o644); err != nil {
		return stored, read, err
	}
	if err := all(ctx, db, "VACUUM ANALYZE", "CHECKPOINT"); err != nil {
		return stored, read, err
	}
	total := int(rate * lasting.Seconds())
	records := l.set.records(min(total, crowd))
	c, err := b.serve(build, config, database, "--http", "off")
	if err != nil {
		return stored, read, err
	}
	defer c.kill()
	if err := claimed(ctx, db, topic, l.partitions, c); err != nil {
		return stored, read, err
	}

	a := newArrivals(l.partitions)
	watching, stopWatching := context.WithCancel(ctx)
	defer stopWatching()
	group, watching := errgroup.WithContext(watching)
	began := time.Now()
	group.Go(func() error { return a.watchTable(watching, database, topic, began) })
	group.Go(func() error { return a.watchTopic(watching, b.brokers, accepted, began) })
	meter, err := b.meter(ctx, db)
	if err != nil {
		return stored, read, err
	}
	if err := a.send(ctx, b, topic, records, total, rate, began); err != nil {
		return stored, read, err
	}
	sent := time.Since(began)
	// All is to arrive before it is counted.
	good := 0
	for i := range total {
		if !records[i%len(records)].fault {
			good++
		}
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		s, r := a.count()
		if s == total && r == good {
			break
		}
		if err := errors.Join(c.look(), ctx.Err()); err != nil {
			return stored, read, err
		}
		if time.Now().After(deadline) {
			return stored, read, fmt.Errorf("of %d rows, %d good ones, %d are stored and %d read a minute after the last was sent", total, good, s, r)
		}
	}
	if err := meter.read(ctx, &stored, total); err != nil {
		return stored, read, err
	}
	stopWatching()
	if err := group.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return stored, read, err
	}
	if err := c.look(); err != nil {
		return stored, read, err
	}
	stored.Rows, stored.Rate, stored.Memory = total, float64(total)/sent.Seconds(), c.memory
	stored.Client = treeCPU(c.cmd.Process.Pid).Seconds() / (float64(total) / 1e6)
	stored.Contender, read.Contender = build.name, build.name
	stored.Phase, read.Phase = "in the table", "read_committed"
	read.Rows, read.Rate = good, stored.Rate
	inTable, inTopic := a.latencies(lasting / 5)
	stored.P50, stored.P99 = quantiles(inTable)
	read.P50, read.P99 = quantiles(inTopic)
	return stored, read, nil
}

func quantiles(values []float64) (p50, p99 float64) {
	if len(values) == 0 {
		return 0, 0
	}
	slices.Sort(values)
	return values[len(values)/2], values[len(values)*99/100]
}

// claimed waits until the positions of all partitions are taken.
func claimed(ctx context.Context, db *pgx.Conn, topic string, partitions int, c *child) error {
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		var n int
		if err := db.QueryRow(ctx, "SELECT count(*) FROM learnsink.position WHERE topic = $1", topic).Scan(&n); err != nil {
			return err
		}
		if n == partitions {
			return nil
		}
		if err := c.look(); err != nil {
			return err
		}
	}
	return errors.New("learnsink does not take the partitions")
}

// ready is a record that only has to be sent.
type ready struct {
	key, value []byte
	fault      bool
}

// records makes the first n rows of a set.
func (s set) records(n int) []ready {
	s.rows = n
	records := make([]ready, 0, n)
	for r := range s.all() {
		records = append(records, ready{r.appendKey(nil), r.append(make([]byte, 0, 400), s.world), r.fault != 0})
	}
	return records
}

// send sends the rows evenly: every two milliseconds those whose time has come.
func (a *arrivals) send(ctx context.Context, b *bench, topic string, records []ready, total int, rate float64, began time.Time) error {
	client, err := b.producer(kgo.DefaultProduceTopic(topic), kgo.MaxBufferedRecords(1<<20))
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for i := 0; i < total; {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
		for due := min(total, int(time.Since(began).Seconds()*rate)); i < due; i++ {
			at := time.Since(began)
			from := &records[i%len(records)]
			client.Produce(ctx, &kgo.Record{Key: from.key, Value: from.value}, func(r *kgo.Record, err error) {
				if err != nil {
					cancel(fmt.Errorf("send: %w", err))
					return
				}
				a.mu.Lock()
				defer a.mu.Unlock()
				note(&a.sent[r.Partition], r.Offset, at)
			})
		}
	}
	if err := client.Flush(ctx); err != nil {
		return context.Cause(ctx)
	}
	return nil
}

// watchTable looks every five milliseconds how far the partitions are applied.
func (a *arrivals) watchTable(ctx context.Context, database, topic string, began time.Time) error {
	db, err := pgx.Connect(ctx, database)
	if err != nil {
		return err
	}
	defer db.Close(context.WithoutCancel(ctx))
	next := make([]int64, len(a.stored))
	for tick := time.NewTicker(5 * time.Millisecond); ; {
		select {
		case <-ctx.Done():
			tick.Stop()
			return ctx.Err()
		case <-tick.C:
		}
		rows, err := db.Query(ctx, "SELECT partition, next_offset FROM learnsink.position WHERE topic = $1", topic)
		if err != nil {
			return err
		}
		var partition int
		var offset int64
		if _, err := pgx.ForEachRow(rows, []any{&partition, &offset}, func() error {
			if next[partition] == offset {
				return nil
			}
			next[partition] = offset
			a.mu.Lock()
			defer a.mu.Unlock()
			a.stored[partition] = append(a.stored[partition], progress{time.Since(began), offset})
			return nil
		}); err != nil {
			return err
		}
	}
}

// watchTopic reads the accepted events as they come.
func (a *arrivals) watchTopic(ctx context.Context, brokers, topic string, began time.Time) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(brokers, ",")...), kgo.ConsumeTopics(topic), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.FetchMinBytes(1),
		kgo.FetchMaxWait(500*time.Millisecond), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		return err
	}
	defer client.Close()
	for {
		fetches := client.PollFetches(ctx)
		at := time.Since(began)
		if err := errors.Join(ctx.Err(), fetches.Err()); err != nil {
			return err
		}
		a.mu.Lock()
		var wrong error
		fetches.EachRecord(func(r *kgo.Record) {
			partition, offset, err := sourceOf(r)
			if err != nil {
				wrong = err
				return
			}
			if offset < int64(len(a.read[partition])) && a.read[partition][offset] != 0 {
				wrong = fmt.Errorf("%d/%d is announced twice", partition, offset)
				return
			}
			a.reads++
			note(&a.read[partition], offset, at)
		})
		a.mu.Unlock()
		if wrong != nil {
			return wrong
		}
	}
}

// sourceOf returns where the row of an accepted event was: its id is topic-partition-offset.
func sourceOf(r *kgo.Record) (partition int, offset int64, err error) {
	for _, h := range r.Headers {
		if h.Key != "ce_id" {
			continue
		}
		id := string(h.Value)
		last := strings.LastIndexByte(id, '-')
		if last < 0 {
			break
		}
		offset, err = strconv.ParseInt(id[last+1:], 10, 64)
		if err != nil {
			return 0, 0, err
		}
		partition, err = strconv.Atoi(id[strings.LastIndexByte(id[:last], '-')+1 : last])
		return partition, offset, err
	}
	return 0, 0, fmt.Errorf("an accepted event without a fitting ce_id in %s/%d at %d", r.Topic, r.Partition, r.Offset)
}

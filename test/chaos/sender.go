package main

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"learnsink/handlers"
	"learnsink/test/oracle"
	"learnsink/test/rowgen"
)

// Topics of the run. lost is a tracking source of its own, from which rows are
// deleted before they are read.
const (
	tracking     = "chaos.tracking"
	intervention = "chaos.intervention"
	lost         = "chaos.lost"
	accepted     = "chaos.accepted"
	deadLetter   = "chaos.dead-letter"
)

// group is the consumer group of learnsink.
const group = "chaos"

var sources = []string{tracking, intervention, lost}

// sender tells a seeded story, and knows the truth of it. It sends by clients
// of every compression, plainly and in transactions, of which it aborts some.
type sender struct {
	life   context.Context
	broker string
	r      *rand.Rand
	main   *rowgen.Generator
	apart  *rowgen.Generator // for the topic lost
	plain  []*kgo.Client
	atomic []*atomicSender

	rate atomic.Int64 // rows a second; 0: as fast as it goes, while the lag is small
	lag  func() int64

	mu         sync.Mutex
	story      *oracle.Story
	partitions map[string]int32
	first      map[string]int32 // how many partitions there were at first
	home       map[string]int32 // partition by topic and key
	reserve    map[string][]string
	tally      tally
	alone      sync.Mutex // held while a batch is sent
}

// tally is what was sent, as the sender meant it.
type tally struct {
	Rows, Batches, Transactions, Aborted, Failed int
	Compression                                  map[string]int
	Last                                         error // that came of a batch
}

// atomicSender sends transactions, one at a time.
type atomicSender struct {
	id     string
	codec  kgo.CompressionCodec
	client *kgo.Client
	busy   chan struct{} // holds one token while nobody uses it
}

// newsAge is after how long every client knows of a partition that was added.
const newsAge = time.Second

var codecs = []struct {
	name  string
	codec kgo.CompressionCodec
}{{"none", kgo.NoCompression()}, {"gzip", kgo.GzipCompression()}, {"snappy", kgo.SnappyCompression()}, {"lz4", kgo.Lz4Compression()}, {"zstd", kgo.ZstdCompression()}}

// newSender: ctx is that of the whole run; what is sent is tried until it ends.
func newSender(ctx context.Context, broker string, seed uint64, rate int, partitions map[string]int32, lag func() int64) (*sender, error) {
	s := &sender{
		life: ctx, broker: broker, r: rand.New(rand.NewPCG(seed, 1)), lag: lag,
		main:       rowgen.New(rowgen.Config{Seed: seed, Bad: 0.12}),
		apart:      rowgen.New(rowgen.Config{Seed: seed + 1, Bad: 0.01, Plain: true, Action: handlers.Tracking}), // most of its good rows are left out
		story:      &oracle.Story{Records: map[string]rowgen.Record{}},
		partitions: maps.Clone(partitions), first: partitions, home: map[string]int32{}, reserve: map[string][]string{},
		tally: tally{Compression: map[string]int{}},
	}
	s.rate.Store(int64(rate))
	// Some keys are kept back, for partitions that are added: a key never moves.
	for n := firstReserved; n < firstApart; n++ {
		s.reserve[tracking] = append(s.reserve[tracking], learnerKey(n))
	}
	for n := firstReservedIntervention; n < interventions; n++ {
		s.reserve[intervention] = append(s.reserve[intervention], fmt.Sprintf("iv-%d", n))
	}
	for i, c := range codecs {
		plain, err := s.client(c.codec)
		if err != nil {
			return nil, err
		}
		s.plain = append(s.plain, plain)
		a := &atomicSender{id: fmt.Sprintf("chaos-sender-%d", i), codec: c.codec, busy: make(chan struct{}, 1)}
		a.busy <- struct{}{}
		s.atomic = append(s.atomic, a)
	}
	return s, nil
}

// Of rowgen's 40 learners some have no row until a partition is added, and
// some only in the topic lost; of its 200 interventions the last ones wait too.
const (
	firstReserved             = 28
	firstApart                = 36
	learners                  = 40
	firstReservedIntervention = 150
	interventions             = 200
)

func learnerKey(n int) string { return fmt.Sprintf("zo\u00e9.l%d", n) }

// learnerOf is which learner a key is of; -1: none.
func learnerOf(key []byte) int {
	digits, ok := strings.CutPrefix(string(key), "zo\u00e9.l")
	n, err := strconv.Atoi(digits)
	if !ok || err != nil {
		return -1
	}
	return n
}

func (s *sender) client(codec kgo.CompressionCodec, more ...kgo.Opt) (*kgo.Client, error) {
	return kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(s.broker), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchCompression(codec),
		kgo.ProducerLinger(0), kgo.MetadataMinAge(100 * time.Millisecond), kgo.MetadataMaxAge(newsAge),
		kgo.RetryBackoffFn(func(int) time.Duration { return 100 * time.Millisecond }), // rows come as soon as the broker is back
	}, more...)...)
}

// run sends until ctx ends; then it ends what it has begun.
func (s *sender) run(ctx context.Context) {
	var held sync.WaitGroup
	began, due := time.Now(), 0.0
	for ctx.Err() == nil {
		rate := s.rate.Load()
		n := 1 + s.r.IntN(60)
		if rate == 0 {
			if n = 500; s.lag() > backlog {
				sleep(ctx, 20*time.Millisecond)
				continue
			}
		} else {
			due += time.Since(began).Seconds() * float64(rate)
			began = time.Now()
			due = min(due, float64(rate)) // what could not be sent for long is not made up for
			if due < float64(n) {
				sleep(ctx, 10*time.Millisecond)
				continue
			}
			due -= float64(n)
		}
		if rate == 0 {
			began, due = time.Now(), 0
		}
		s.alone.Lock()
		s.batch(s.records(n), &held)
		s.alone.Unlock()
	}
	held.Wait()
	for _, a := range s.atomic {
		<-a.busy
		a.forget()
	}
	for _, c := range s.plain {
		c.Close()
	}
}

// backlog is how many rows a flood keeps ahead of those who read.
const backlog = 10_000

// batch sends records one way or another.
func (s *sender) batch(records []*kgo.Record, held *sync.WaitGroup) {
	way, codec := s.r.IntN(10), s.r.IntN(len(codecs))
	abort, hold := s.r.IntN(4) == 0, s.r.IntN(20) == 0
	wait := time.Duration(s.r.IntN(1500)) * time.Millisecond
	s.mu.Lock()
	s.tally.Batches++
	s.tally.Compression[codecs[codec].name] += len(records)
	s.mu.Unlock()
	if way < 6 {
		s.sent(s.plain[codec].ProduceSync(s.life, records...).FirstErr())
		return
	}
	a := s.atomic[codec]
	<-a.busy
	if err := a.begin(s, records); err != nil {
		s.sent(err)
		a.forget()
		a.busy <- struct{}{}
		return
	}
	s.mu.Lock()
	if s.tally.Transactions++; abort {
		s.tally.Aborted++
	}
	s.mu.Unlock()
	end := func() {
		err := a.client.EndTransaction(s.life, kgo.TransactionEndTry(!abort))
		if s.sent(err); err != nil {
			a.forget()
		}
		a.busy <- struct{}{}
	}
	if !hold {
		end()
		return
	}
	held.Go(func() { // readers have to wait for it
		time.Sleep(wait)
		end()
	})
}

// begin sends records in a transaction, and leaves it open.
func (a *atomicSender) begin(s *sender, records []*kgo.Record) error {
	if a.client == nil {
		var err error
		if a.client, err = s.client(a.codec, kgo.TransactionalID(a.id), kgo.TransactionTimeout(10*time.Second)); err != nil {
			return err
		}
	}
	if err := a.client.BeginTransaction(); err != nil {
		return err
	}
	return a.client.ProduceSync(s.life, records...).FirstErr()
}

// forget lets go of a client of which nobody knows where it stands. The next
// one of its id ends what it has left open.
func (a *atomicSender) forget() {
	if a.client != nil {
		a.client.Close()
		a.client = nil
	}
}

// sent counts what failed. Whether it was written all the same, the log tells.
func (s *sender) sent(err error) {
	if err != nil {
		s.mu.Lock()
		s.tally.Failed++
		s.tally.Last = err
		s.mu.Unlock()
	}
}

// records makes the next n records of the story.
func (s *sender) records(n int) (all []*kgo.Record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(all) < n {
		if s.r.IntN(20) == 0 {
			all = append(all, s.apartRecord(s.r.Int32N(s.partitions[lost])))
			continue
		}
		rec := s.main.Next()
		topic := tracking
		if rec.Action == handlers.Intervention {
			topic = intervention
		}
		if p, ok := s.place(topic, rec); ok {
			all = append(all, s.note(topic, p, rec))
		}
	}
	return all
}

// apartRecord makes the next record for the topic lost. Its learners' partition
// is settled by their numbers; a row that is rejected may be anywhere.
func (s *sender) apartRecord(p int32) *kgo.Record {
	for {
		rec := s.apart.Next()
		n := learnerOf(rec.Key)
		if rec.Errors != nil || n >= firstApart && int32(n)%s.partitions[lost] == p {
			return s.note(lost, p, rec)
		}
	}
}

// place says in which partition a record belongs; false: its key is kept back.
func (s *sender) place(topic string, rec rowgen.Record) (int32, bool) {
	n := s.partitions[topic]
	switch {
	case rec.Errors != nil && rec.Key == nil:
		return s.r.Int32N(n), true
	case rec.Errors != nil: // of no consequence for its key
		return int32(oracle.PartitionOf(rec.Key, 0, int(s.first[topic]))), true
	case rec.Key == nil:
		return 0, true
	}
	if topic == tracking && learnerOf(rec.Key) >= firstApart {
		return 0, false
	}
	for _, key := range s.reserve[topic] {
		if key == string(rec.Key) {
			return 0, false
		}
	}
	home := topic + " " + string(rec.Key)
	if _, known := s.home[home]; !known {
		s.home[home] = int32(oracle.PartitionOf(rec.Key, 0, int(s.first[topic])))
	}
	return s.home[home], true
}

// note takes a record into the story, and returns it as it is sent.
func (s *sender) note(topic string, p int32, rec rowgen.Record) *kgo.Record {
	name := strconv.Itoa(len(s.story.Records))
	r := oracle.Record(topic, name, rec)
	r.Partition = p
	rec.Key, rec.Value, rec.Headers = nil, nil, nil // the log has them
	s.story.Records[name] = rec
	s.tally.Rows++
	return r
}

// grown: a topic has another partition. Keys that were kept back live there from now on.
func (s *sender) grown(topic string, n int32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.partitions[topic] = n
	keys := s.reserve[topic]
	some := min(len(keys), map[string]int{tracking: 2, intervention: 10}[topic])
	for _, key := range keys[:some] {
		s.home[topic+" "+key] = n - 1
	}
	s.reserve[topic] = keys[some:]
}

// pause waits until nothing is being sent and no transaction is open, and
// keeps it so until resume is called, once or more.
func (s *sender) pause() (resume func()) {
	s.alone.Lock()
	for _, a := range s.atomic {
		<-a.busy
	}
	return sync.OnceFunc(func() {
		for _, a := range s.atomic {
			a.busy <- struct{}{}
		}
		s.alone.Unlock()
	})
}

// sendApart sends n records to a partition of the topic lost while the sender
// pauses, and returns once they are all there.
func (s *sender) sendApart(ctx context.Context, p int32, n int) error {
	s.mu.Lock()
	var records []*kgo.Record
	for range n {
		records = append(records, s.apartRecord(p))
	}
	s.mu.Unlock()
	return s.plain[0].ProduceSync(ctx, records...).FirstErr()
}

// counted returns what was sent so far.
func (s *sender) counted() tally {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tally
}

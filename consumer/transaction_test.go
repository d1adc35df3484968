package consumer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/segmentio/kafka-go"

	"learnsink/handlers"
)

// press is a transactional publisher over the brokers of a still world.
type press struct {
	*transactionalPublisher
	t      *testing.T
	world  *simWorld
	client *Client
	packer *packer
}

func newPress(t *testing.T, w *simWorld, name string) *press {
	c := w.newProcess(name).consumer(0)
	return &press{c.publisher(handlers.TopicPartition{Topic: simSource}).(*transactionalPublisher), t, w, c.client, c.packer}
}

// entry is one of the outbox: an accepted event for each of the offsets, of so
// many bytes, and a dead letter for each odd one.
func (p *press) entry(from, to int64, bytes int) handlers.OutboxEntry {
	p.t.Helper()
	p.world.mu.Lock()
	defer p.world.mu.Unlock()
	var outputs []output
	truth := p.world.truths[p.tp]
	truth.peak = to
	for o := from; o < to; o++ {
		topic, header, verdict := simAccepted, "ce_id", handlers.Accepted
		if o%2 == 1 {
			topic, header, verdict = simDeadLetter, "learnsink.id", handlers.Rejected
		}
		truth.at(o).applied, truth.at(o).verdict = true, verdict
		id := []handlers.Header{{Key: header, Value: fmt.Appendf(nil, "%s-0-%d", simSource, o)}}
		forms := []Message{
			{Key: []byte("k"), Value: []byte(strings.Repeat("v", bytes)), Headers: id},
			{Key: []byte("k"), Value: []byte("small"), Headers: id},
		}
		if bytes < 1000 {
			forms = forms[:1]
		}
		outputs = append(outputs, output{topic: topic, forms: forms})
	}
	payload, err := p.packer.repack(outputs)
	if err != nil {
		p.t.Fatal(err)
	}
	return handlers.OutboxEntry{From: from, To: to, Payload: payload, At: time.Now()}
}

func (p *press) begin() Marker {
	p.t.Helper()
	m, err := p.Begin(p.t.Context(), 1)
	if err != nil {
		p.t.Fatal(err)
	}
	return m
}

func (p *press) publish(entries ...handlers.OutboxEntry) {
	p.t.Helper()
	if err := p.Publish(p.t.Context(), entries); err != nil {
		p.t.Fatal(err)
	}
}

// seen are the offsets that a read_committed reader of a topic has seen, in order.
func (p *press) seen(topic string) (offsets []int64) {
	p.t.Helper()
	time.Sleep(time.Minute) // until every marker is written
	p.world.mu.Lock()
	defer p.world.mu.Unlock()
	for l, log := range p.world.brokers.logs {
		if l.topic != topic {
			continue
		}
		err := newSimReader(log).read(func(r *handlers.Record) {
			id, err := publicationOf(l, r)
			if err != nil {
				p.t.Error(err)
			}
			offsets = append(offsets, id.offset)
		})
		if err != nil {
			p.t.Error(err)
		}
	}
	if len(p.world.broken) > 0 {
		p.t.Error(p.world.broken)
	}
	return offsets
}

func (p *press) transaction() *simTransaction { return p.world.brokers.transactions[p.id] }

func still(t *testing.T, f func(*testing.T, *simWorld)) {
	synctest.Test(t, func(t *testing.T) {
		w := stillWorld(t)
		f(t, w)
		w.going.Wait()
	})
}

func TestEntriesShareATransaction(t *testing.T) {
	still(t, func(t *testing.T, w *simWorld) {
		p := newPress(t, w, "p")
		if m := p.begin(); m.Known {
			t.Errorf("marker %+v", m)
		}
		p.publish(p.entry(0, 4, 10), p.entry(4, 5, 10), p.entry(7, 10, 10))
		if n := p.transaction().number; n != 1 {
			t.Errorf("%d transactions", n)
		}
		if got := fmt.Sprint(p.seen(simAccepted), p.seen(simDeadLetter)); got != "[0 2 4 8] [1 3 7 9]" {
			t.Errorf("seen: %s", got)
		}
		if m := p.begin(); m != (Marker{Known: true, Through: 10, Round: 1}) {
			t.Errorf("marker %+v", m)
		}
	})
}

// TestSequencesGoOn within each output partition, over batches and
// transactions of one session, and begin anew with the next.
func TestSequencesGoOn(t *testing.T) {
	still(t, func(t *testing.T, w *simWorld) {
		w.brokers.limit = 1000 // some messages a batch
		p := newPress(t, w, "p")
		p.begin()
		p.publish(p.entry(0, 20, 200))
		p.publish(p.entry(20, 41, 200))
		var accepted lane
		for l := range p.producer.sequences {
			if l.topic == simAccepted {
				accepted = l
			}
		}
		if got := p.producer.sequences[accepted]; got != 21 {
			t.Errorf("the next sequence is %d", got)
		}
		if got := p.producer.sequences[lane{simDeadLetter, 0}]; got != 20 {
			t.Errorf("the next sequence is %d", got)
		}
		if n := len(w.brokers.logs[accepted].batches); n < 6 {
			t.Errorf("%d batches", n)
		}
		epoch := p.producer.epoch
		p.begin()
		p.publish(p.entry(41, 43, 100))
		if p.producer.epoch != epoch+1 || p.producer.sequences[accepted] != 1 {
			t.Errorf("epoch %d, sequences %v", p.producer.epoch, p.producer.sequences)
		}
		if seen := p.seen(simAccepted); len(seen) != 22 || !slices.IsSorted(seen) {
			t.Errorf("seen: %v", seen)
		}
	})
	t.Run("after the last number comes 0", func(t *testing.T) {
		p := &producer{sequences: map[lane]int32{{}: 1<<31 - 3}}
		p.advance(lane{}, 5)
		if got := p.sequences[lane{}]; got != 2 {
			t.Errorf("%d", got)
		}
	})
}

// TestALimitThatCameDownAmidATransaction: the broker says that a batch is too
// large, and smaller forms go out instead, in the same transaction.
func TestALimitThatCameDownAmidATransaction(t *testing.T) {
	still(t, func(t *testing.T, w *simWorld) {
		p := newPress(t, w, "p")
		p.begin()
		p.publish(p.entry(0, 2, 3000))
		w.do("", func() { w.brokers.limit = 1000 }) // which is remembered as 1 MiB
		p.publish(p.entry(2, 8, 3000), p.entry(8, 9, 10))
		if n := p.transaction().number; n != 2 {
			t.Errorf("%d transactions", n)
		}
		if got := fmt.Sprint(p.seen(simAccepted), p.seen(simDeadLetter)); got != "[0 2 4 6 8] [1 3 5 7]" {
			t.Errorf("seen: %s", got)
		}
		largest := 0
		for _, log := range w.brokers.logs {
			for _, b := range log.batches[min(1, len(log.batches)):] {
				if binary.BigEndian.Uint16(b.raw[atAttributes:])&attrControl == 0 {
					largest = max(largest, len(b.raw))
				}
			}
		}
		if largest > 1000 {
			t.Errorf("a batch of %d bytes", largest)
		}
	})
	t.Run("where no form fits, nothing is published", func(t *testing.T) {
		still(t, func(t *testing.T, w *simWorld) {
			p := newPress(t, w, "p")
			p.begin()
			w.do("", func() { w.brokers.limit = 70 })
			if err := p.Publish(t.Context(), []handlers.OutboxEntry{p.entry(0, 2, 10)}); !errors.Is(err, ErrTooLarge) {
				t.Errorf("%v", err)
			}
			if err := p.Publish(t.Context(), []handlers.OutboxEntry{p.entry(0, 2, 10)}); !errors.Is(err, errNoSession) {
				t.Errorf("the session goes on: %v", err)
			}
			if m := p.begin(); m.Known {
				t.Errorf("marker %+v", m)
			}
			if got := p.seen(simAccepted); len(got) > 0 {
				t.Errorf("seen: %v", got)
			}
		})
	})
}

// TestTheMarkerAlone is written where there is nothing to publish with it.
func TestTheMarkerAlone(t *testing.T) {
	still(t, func(t *testing.T, w *simWorld) {
		p := newPress(t, w, "p")
		p.begin()
		w.truths[p.tp].peak = 12
		p.publish(handlers.OutboxEntry{To: 12})
		if m := p.begin(); m != (Marker{Known: true, Through: 12, Round: 1}) {
			t.Errorf("marker %+v", m)
		}
	})
}

// TestTheMarkersRoundNeverGoesBack, though the database's has.
func TestTheMarkersRoundNeverGoesBack(t *testing.T) {
	still(t, func(t *testing.T, w *simWorld) {
		p := newPress(t, w, "p")
		for _, round := range []int{4, 2, 3, 5} {
			if _, err := p.Begin(t.Context(), round); err != nil {
				t.Fatal(err)
			}
			p.publish(handlers.OutboxEntry{To: int64(10 + round)})
			if m := p.begin(); m != (Marker{Known: true, Through: int64(10 + round), Round: max(4, round)}) {
				t.Errorf("round %d: marker %+v", round, m)
			}
		}
	})
}

// TestFindTellsWhatIsThere where the marker is gone.
func TestFindTellsWhatIsThere(t *testing.T) {
	for name, c := range map[string]struct {
		published int // of three entries
		half      bool
		later     time.Duration
		want      int64
	}{
		"none":                        {0, false, 0, 0},
		"one":                         {1, false, 0, 4},
		"all":                         {3, false, 0, 10},
		"one, and one that was open":  {1, true, 0, 4},
		"all, long ago":               {3, false, time.Hour, 10},
		"none, and one that was open": {0, true, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			still(t, func(t *testing.T, w *simWorld) {
				p := newPress(t, w, "p")
				p.begin()
				entries := []handlers.OutboxEntry{p.entry(0, 4, 10), p.entry(4, 8, 10), p.entry(8, 10, 10)}
				for _, e := range entries[:c.published] {
					p.publish(e)
				}
				if c.half { // its process dies before the end
					load, err := p.load(t.Context(), entries[c.published:c.published+1])
					if err != nil {
						t.Fatal(err)
					}
					var into []lane
					for _, f := range load {
						into = append(into, f.lane)
					}
					if err := p.client.addPartitions(t.Context(), p.producer, into); err != nil {
						t.Fatal(err)
					}
					if err := p.send(t.Context(), load, p.producer); err != nil {
						t.Fatal(err)
					}
				}
				time.Sleep(time.Second + c.later) // and the markers are written
				w.do("", func() { delete(w.brokers.offsets, MarkerGroup(simGroup)) })
				next := newPress(t, w, "next")
				if m := next.begin(); m.Known {
					t.Fatalf("marker %+v", m)
				}
				if through, err := next.Find(t.Context(), entries); err != nil || through != c.want {
					t.Errorf("through %d, %v; want %d", through, err, c.want)
				}
			})
		})
	}
}

// TestATransactionThatIsBeingEndedIsWaitedFor a while.
func TestATransactionThatIsBeingEndedIsWaitedFor(t *testing.T) {
	for markers, patient := range map[time.Duration]bool{time.Second: true, time.Minute: false} {
		t.Run(fmt.Sprint("markers after ", markers), func(t *testing.T) {
			still(t, func(t *testing.T, w *simWorld) {
				p := newPress(t, w, "p")
				p.begin()
				p.publish(p.entry(0, 4, 10))
				// As if a broker were slow: until then it is being ended.
				x := p.transaction()
				w.going.Wait()
				w.do("", func() { x.state = simPrepared })
				w.later("its markers are written", markers, func() { x.state = simComplete })

				err := p.Publish(t.Context(), []handlers.OutboxEntry{p.entry(4, 6, 10)})
				if (err == nil) != patient || !patient && !errors.Is(err, kafka.ConcurrentTransactions) {
					t.Fatalf("publish: %v", err)
				}
				if !patient {
					if _, err := p.Begin(t.Context(), 1); !errors.Is(err, kafka.ConcurrentTransactions) {
						t.Errorf("begin: %v", err)
					}
					time.Sleep(markers)
					p.begin()
					p.publish(p.entry(4, 6, 10))
				}
				if got := fmt.Sprint(p.seen(simAccepted)); got != "[0 2 4]" {
					t.Errorf("seen: %s", got)
				}
			})
		})
	}
}

// TestWhoeverIsTakenOverPublishesNothing: its transaction is aborted, and
// whatever it sends after that fails.
func TestWhoeverIsTakenOverPublishesNothing(t *testing.T) {
	still(t, func(t *testing.T, w *simWorld) {
		zombie, next := newPress(t, w, "zombie"), newPress(t, w, "next")
		zombie.begin()
		zombie.publish(zombie.entry(0, 2, 10))
		next.begin()
		if err := zombie.Publish(t.Context(), []handlers.OutboxEntry{zombie.entry(2, 4, 10)}); !errors.Is(err, kafka.InvalidProducerEpoch) {
			t.Errorf("%v", err)
		}
		next.publish(next.entry(2, 4, 10))
		if got := fmt.Sprint(next.seen(simAccepted), next.seen(simDeadLetter)); got != "[0 2] [1 3]" {
			t.Errorf("seen: %s", got)
		}
	})
}

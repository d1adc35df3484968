package consumer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kgo"

	"learnsink/handlers"
	"learnsink/test/kafkatest"
)

// publishing is a source partition's publishing, without the rest of the house.
type publishing struct {
	*kafkatest.Cluster
	client   *Client
	group    string
	tp       handlers.TopicPartition
	accepted string
	packer   *packer
}

func newPublishing(t *testing.T, cluster *kafkatest.Cluster) *publishing {
	client := newTestClient(t, cluster)
	p := &publishing{cluster, client, kafkatest.Name("group"),
		handlers.TopicPartition{Topic: cluster.Topic(t, "rows", 2)}, cluster.Topic(t, "accepted", 3),
		&packer{codec: mustCompressor(t, ""), topics: &outputTopics{cluster: client}}}
	until(t, "a new topic has its leaders, and a new group its coordinator", func() bool {
		_, topic := p.client.StableOffsets(t.Context(), p.accepted)
		_, group := p.client.marker(t.Context(), MarkerGroup(p.group), p.tp)
		return topic == nil && group == nil
	})
	return p
}

func (p *publishing) publisher(t *testing.T) *transactionalPublisher {
	o := outlet{cluster: p.client, codec: p.packer.codec, topics: p.packer.topics}
	return newTransactionalPublisher(o, p.group, p.tp)
}

// entry is an outbox entry with an output for each offset.
func (p *publishing) entry(t *testing.T, from, to int64) handlers.OutboxEntry {
	t.Helper()
	var outputs []output
	for offset := from; offset < to; offset++ {
		outputs = append(outputs, output{topic: p.accepted, forms: []Message{{
			Key: fmt.Appendf(nil, "k%d", offset%7), Value: []byte("{}"),
			Headers: []handlers.Header{{Key: "ce_id", Value: fmt.Append(nil, offset)}},
		}}})
	}
	payload, err := p.packer.repack(outputs)
	if err != nil {
		t.Fatal(err)
	}
	return handlers.OutboxEntry{From: from, To: to, Payload: payload, At: time.Now()}
}

// ids returns what is there of the outputs, sorted: as committed, or all of it.
func (p *publishing) ids(t *testing.T, isolation kgo.IsolationLevel) (ids []string) {
	t.Helper()
	ends, err := p.Admin().ListEndOffsets(t.Context(), p.accepted)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		t.Fatal(err)
	}
	reader := p.Producer(t, kgo.FetchIsolationLevel(isolation), kgo.ConsumeTopics(p.accepted), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	for {
		ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
		fetches := reader.PollFetches(ctx)
		cancel()
		records := fetches.Records()
		for _, r := range records {
			ids = append(ids, outputID([]handlers.Header{{Key: r.Headers[0].Key, Value: r.Headers[0].Value}}))
		}
		if len(records) == 0 {
			slices.Sort(ids)
			return ids
		}
	}
}

func span(from, to int) (ids []string) {
	for i := from; i < to; i++ {
		ids = append(ids, fmt.Sprint(i))
	}
	slices.Sort(ids)
	return ids
}

// TestATransactionCarriesTheMarker: several entries, their outputs and the
// marker come together.
func TestATransactionCarriesTheMarker(t *testing.T) {
	t.Parallel()
	clusters(t, func(t *testing.T, cluster *kafkatest.Cluster) {
		p, ctx := newPublishing(t, cluster), t.Context()
		pub := p.publisher(t)
		if m, err := pub.Begin(ctx, 4); err != nil || m.Known {
			t.Fatalf("%+v, %v", m, err)
		}
		for from := int64(0); from < 100; from += 20 { // one session, several transactions
			if err := pub.Publish(ctx, []handlers.OutboxEntry{p.entry(t, from, from+10), p.entry(t, from+10, from+20)}); err != nil {
				t.Fatal(err)
			}
		}
		m, err := p.publisher(t).Begin(ctx, 5)
		if want := (Marker{Known: true, Through: 100, Round: 4}); err != nil || m != want {
			t.Errorf("marker %+v, %v; want %+v", m, err, want)
		}
		if got := p.ids(t, kgo.ReadCommitted()); !slices.Equal(got, span(0, 100)) {
			t.Errorf("%v", got)
		}
	})
}

// TestAZombieCannotPublish: whoever begins later has the outputs for itself,
// and what the zombie had under way never was.
func TestAZombieCannotPublish(t *testing.T) {
	t.Parallel()
	clusters(t, func(t *testing.T, cluster *kafkatest.Cluster) {
		p, ctx := newPublishing(t, cluster), t.Context()
		zombie, owner := p.publisher(t), p.publisher(t)
		if _, err := zombie.Begin(ctx, 1); err != nil {
			t.Fatal(err)
		}
		if err := zombie.Publish(ctx, []handlers.OutboxEntry{p.entry(t, 0, 10)}); err != nil {
			t.Fatal(err)
		}
		// It falls asleep amid a transaction: the outputs are written, the end is not.
		amid := &asleep{cluster: p.client, wake: make(chan struct{}), fell: make(chan struct{})}
		zombie.cluster = amid
		woken := make(chan error, 1)
		go func() { woken <- zombie.Publish(ctx, []handlers.OutboxEntry{p.entry(t, 10, 20)}) }()
		<-amid.fell
		m, err := owner.Begin(ctx, 1)
		if err != nil || m.Through != 10 {
			t.Fatalf("%+v, %v", m, err)
		}
		if err := owner.Publish(ctx, []handlers.OutboxEntry{p.entry(t, 10, 30)}); err != nil {
			t.Fatal(err)
		}
		close(amid.wake)
		if err := <-woken; !errors.Is(err, kafka.InvalidProducerEpoch) && !errors.Is(err, kafka.Error(90)) {
			t.Errorf("the zombie is told %v", err)
		}
		if got := p.ids(t, kgo.ReadCommitted()); !slices.Equal(got, span(0, 30)) {
			t.Errorf("%v", got)
		}
		if all := p.ids(t, kgo.ReadUncommitted()); len(all) != 40 {
			t.Errorf("%d outputs for read_uncommitted readers: the zombie had none under way", len(all))
		}
	})
}

// asleep is a cluster whose caller falls asleep before it ends a transaction.
type asleep struct {
	cluster
	fell, wake chan struct{}
}

func (a *asleep) endTransaction(ctx context.Context, p *producer) error {
	close(a.fell)
	<-a.wake
	return a.cluster.endTransaction(ctx, p)
}

// TestTheReplyToTheEndIsLost: whether the transaction was committed or not,
// the marker says, once the publishing is taken over anew.
func TestTheReplyToTheEndIsLost(t *testing.T) {
	t.Parallel()
	clusters(t, func(t *testing.T, cluster *kafkatest.Cluster) {
		p, ctx := newPublishing(t, cluster), t.Context()
		for i, done := range []bool{true, false, true, true, false} {
			from := int64(i * 10)
			pub := p.publisher(t)
			m, err := pub.Begin(ctx, 1)
			if err != nil || m.Through != from {
				t.Fatalf("%+v, %v; want %d", m, err, from)
			}
			pub.cluster = &unheard{p.client, done}
			entry := p.entry(t, from, from+10)
			if err := pub.Publish(ctx, []handlers.OutboxEntry{entry}); !errors.Is(err, errFault) {
				t.Fatal(err)
			}
			if err := pub.Publish(ctx, []handlers.OutboxEntry{entry}); !errors.Is(err, errNoSession) {
				t.Errorf("publishing goes on after an uncertain reply: %v", err)
			}
			pub.cluster = p.client
			if m, err = pub.Begin(ctx, 1); err != nil || (m.Through == from+10) != done {
				t.Fatalf("done: %v, marker %+v, %v", done, m, err)
			}
			if !done {
				if err := pub.Publish(ctx, []handlers.OutboxEntry{entry}); err != nil {
					t.Fatal(err)
				}
			}
		}
		if got := p.ids(t, kgo.ReadCommitted()); !slices.Equal(got, span(0, 50)) {
			t.Errorf("%v", got)
		}
	})
}

// unheard is a cluster whose replies to the end of a transaction are lost.
type unheard struct {
	cluster
	done bool
}

func (u *unheard) endTransaction(ctx context.Context, p *producer) error {
	if u.done {
		if err := u.cluster.endTransaction(ctx, p); err != nil {
			return err
		}
	}
	return errFault
}

// TestFindWithoutAMarker: what was published is found by its ids, also behind
// a transaction of another partition's that is still open.
func TestFindWithoutAMarker(t *testing.T) {
	t.Parallel()
	clusters(t, func(t *testing.T, cluster *kafkatest.Cluster) {
		p, ctx := newPublishing(t, cluster), t.Context()
		entries := []handlers.OutboxEntry{p.entry(t, 0, 10), p.entry(t, 10, 20), p.entry(t, 20, 30)}
		for _, published := range []int{0, 1, 2, 3} {
			other := *p
			other.tp.Partition = 1 // another transactional id
			amid := &asleep{cluster: p.client, wake: make(chan struct{}), fell: make(chan struct{})}
			neighbour := other.publisher(t)
			if _, err := neighbour.Begin(ctx, 1); err != nil {
				t.Fatal(err)
			}
			neighbour.cluster = amid
			ended := make(chan error, 1)
			go func() { ended <- neighbour.Publish(ctx, []handlers.OutboxEntry{p.entry(t, 1000, 1020)}) }()
			<-amid.fell
			time.AfterFunc(300*time.Millisecond, func() { close(amid.wake) })
			pub := p.publisher(t)
			if _, err := pub.Begin(ctx, 1); err != nil {
				t.Fatal(err)
			}
			if published > 0 {
				if err := pub.Publish(ctx, entries[published-1:published]); err != nil {
					t.Fatal(err)
				}
			}
			pub = p.publisher(t)
			if _, err := pub.Begin(ctx, 1); err != nil {
				t.Fatal(err)
			}
			if through, err := pub.Find(ctx, entries); err != nil || through != int64(published*10) {
				t.Errorf("found up to %d, %v; want %d", through, err, published*10)
			}
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
	})
}

package consumer

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/segmentio/kafka-go"
	"golang.org/x/sync/errgroup"

	"learnsink/handlers"
)

// transactionalPublisher publishes exactly once for readers that are
// read_committed: outputs and the marker that says how far they go are
// committed together, in a transaction of Kafka's.
//
// The transactional id belongs to the source partition, not to the process.
// So whoever publishes a partition next takes the id over, and that ends what
// its predecessor had open and fences it off: a zombie's requests fail.
type transactionalPublisher struct {
	outlet
	tp      handlers.TopicPartition
	id      string // the transactional id
	markers string // the group whose offset of tp is the marker
	round   int    // of the position
	// producer is nil where Begin has to come first.
	producer *producer
}

// newTransactionalPublisher: the transactional id is <group>.<topic>.<partition>,
// the marker the offset that the group <group>.published has committed.
func newTransactionalPublisher(o outlet, group string, tp handlers.TopicPartition) *transactionalPublisher {
	return &transactionalPublisher{outlet: o, tp: tp,
		id: group + "." + tp.Topic + "." + strconv.Itoa(tp.Partition), markers: MarkerGroup(group)}
}

// MarkerGroup names the group whose committed offsets say how far the outputs
// of each source partition are published. It never has a member.
func MarkerGroup(group string) string { return group + ".published" }

// producer is one session of a transactional id; or nobody's.
type producer struct {
	transactionalID string
	id              int64
	epoch           int16
	sequences       map[lane]int32 // the next one of each output partition
}

// nobody is the id, and the epoch, of the producer of what is no part of a
// transaction: it has no sequences.
const nobody = -1

// sign makes an encoded batch the next one of the producer's in a lane, sent
// at a time. All its records are of that time: what is packed is of none. The
// batch itself stays as it is: a request that was given up may still be
// reading it.
func (p *producer) sign(l lane, batch []byte, at time.Time) wireBatch {
	b := wireBatch{bytes.Clone(batch[:batchHeader]), batch[batchHeader:]}
	binary.BigEndian.PutUint64(b.head[atFirstTimestamp:], uint64(at.UnixMilli()))
	binary.BigEndian.PutUint64(b.head[atMaxTimestamp:], uint64(at.UnixMilli()))
	if p.id == nobody {
		patchBatch(b.head, b.rest, nobody, nobody, nobody, false)
	} else {
		patchBatch(b.head, b.rest, p.id, p.epoch, p.sequences[l], true)
	}
	return b
}

// Begin takes the transactional id over, and then reads the marker. In this
// order only: InitProducerID fences the last publisher and finishes what it
// had open, and before that the marker is not certain (straight after an
// EndTxn, Kafka shows the one before).
func (p *transactionalPublisher) Begin(ctx context.Context, round int) (Marker, error) {
	p.producer, p.round = nil, round
	session, err := p.cluster.initProducer(ctx, p.id)
	if err != nil {
		return Marker{}, err
	}
	marker, err := p.cluster.marker(ctx, p.markers, p.tp)
	if err != nil {
		return Marker{}, err
	}
	// A round that the database has forgotten, having gone back, is not to come
	// again: what counts as of it would count for another.
	p.producer, p.round = session, max(round, marker.Round)
	return marker, nil
}

// errNoSession: our own mistake.
var errNoSession = errors.New("publishing without a session")

// Publish is one transaction for all of the entries. A crash anywhere before
// its end leaves it open: the next Begin aborts it, and no read_committed
// reader ever sees it. A crash after its end leaves the marker: the next Begin
// reads it, and nothing is published a second time. An error leaves unknown
// which of both it is; the session is given up, and the next Begin knows.
func (p *transactionalPublisher) Publish(ctx context.Context, entries []handlers.OutboxEntry) error {
	session := p.producer
	p.producer = nil
	if session == nil {
		return errNoSession
	}
	load, err := p.load(ctx, entries)
	if err != nil {
		return err
	}
	into := make([]lane, len(load))
	for i, f := range load {
		into[i] = f.lane
	}
	if len(into) > 0 { // else it is the marker alone
		if err := p.cluster.addPartitions(ctx, session, into); err != nil {
			return err
		}
	}
	// While the outputs are on their way the marker's group joins in. (Not so
	// the marker: the broker would refuse whichever came second.)
	var group errgroup.Group
	group.Go(func() error { return p.cluster.addGroup(ctx, session, p.markers) })
	err = p.send(ctx, load, session)
	if err := errors.Join(err, group.Wait()); err != nil {
		return err
	}
	marker := Marker{Known: true, Through: entries[len(entries)-1].To, Round: p.round}
	if err := p.cluster.addMarker(ctx, session, p.markers, p.tp, marker); err != nil {
		return err
	}
	if err := p.cluster.endTransaction(ctx, session); err != nil {
		return err
	}
	p.producer = session
	return nil
}

// advance moves a sequence on; after the largest int32 it goes on at 0.
func (p *producer) advance(l lane, records int) {
	if p.id == nobody {
		return
	}
	p.sequences[l] = int32((int64(p.sequences[l]) + int64(records)) & (1<<31 - 1))
}

// findSlack is how much the database's clock may be ahead of ours: outputs
// carry the time of publication by ours.
const findSlack = 10 * time.Minute

// Find reads what was published since the first entry was written. An entry
// counts as published where every output of it is there.
func (p *transactionalPublisher) Find(ctx context.Context, entries []handlers.OutboxEntry) (through int64, err error) {
	missing := make([]map[string]bool, len(entries)) // ids of each entry
	topics := map[string]bool{}
	for i, e := range entries {
		outputs, err := decodePayload(e.Payload, &p.undo)
		if err != nil {
			return 0, fmt.Errorf("offsets %d to %d: %w", e.From, e.To-1, err)
		}
		missing[i] = map[string]bool{}
		for _, o := range outputs {
			missing[i][outputID(o.forms[0].Headers)] = true
			topics[o.topic] = true
		}
	}
	for _, topic := range slices.Sorted(maps.Keys(topics)) {
		if err := p.cluster.scan(ctx, topic, entries[0].At.Add(-findSlack), func(r *handlers.Record) error {
			id := outputID(r.Headers)
			for _, ids := range missing {
				delete(ids, id)
			}
			return nil
		}); err != nil {
			return 0, err
		}
	}
	for i, e := range entries {
		if len(missing[i]) > 0 {
			break
		}
		through = e.To
	}
	return through, nil
}

// outputID returns the id that an accepted event or a dead letter carries, or
// of a job's row the job and its number. Of several headers the last counts: a
// sender's own come first.
func outputID(headers []handlers.Header) (id string) {
	for _, h := range headers {
		if h.Key == "ce_id" || h.Key == "learnsink.id" || h.Key == handlers.JobHeader {
			id = string(h.Value)
		}
	}
	return id
}

// transactionTimeout is how long the coordinator leaves a transaction open
// that nobody ends: for so long it may hold back read_committed readers of the
// outputs, if no other process takes the partition over before.
const transactionTimeout = 30 * time.Second

// patience with a coordinator that is just finishing the transaction before.
const (
	concurrentPause = 2 * time.Millisecond // at first; then twice as long each time
	concurrentMost  = 5 * time.Second
)

// unlessConcurrent tries op again while the coordinator is coming up, or still
// busy with the transaction before: certain answers, nothing was done.
func unlessConcurrent(ctx context.Context, op func() error) error {
	for end, wait := time.Now().Add(concurrentMost), concurrentPause; ; wait *= 2 {
		err := op()
		again := errors.Is(err, kafka.ConcurrentTransactions) || errors.Is(err, kafka.GroupLoadInProgress) ||
			errors.Is(err, kafka.GroupCoordinatorNotAvailable) || errors.Is(err, kafka.NotCoordinatorForGroup)
		if !again || time.Now().After(end) || !pause(ctx, min(wait, 50*time.Millisecond)) {
			return err
		}
	}
}

func (c *Client) initProducer(ctx context.Context, transactionalID string) (*producer, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	p := &producer{transactionalID: transactionalID, sequences: map[lane]int32{}}
	err := unlessConcurrent(ctx, func() error {
		response, err := c.kafka.InitProducerID(ctx, &kafka.InitProducerIDRequest{
			TransactionalID: transactionalID, TransactionTimeoutMs: int(transactionTimeout.Milliseconds()),
			ProducerID: -1, ProducerEpoch: -1, // a new session, whatever came before
		})
		if err == nil {
			err = response.Error
		}
		if err == nil {
			p.id, p.epoch = int64(response.Producer.ProducerID), int16(response.Producer.ProducerEpoch)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("take over the transactional id %s: %w", transactionalID, err)
	}
	return p, nil
}

func (c *Client) addPartitions(ctx context.Context, p *producer, lanes []lane) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	topics := map[string][]kafka.AddPartitionToTxn{}
	for _, l := range lanes {
		topics[l.topic] = append(topics[l.topic], kafka.AddPartitionToTxn{Partition: l.partition})
	}
	err := unlessConcurrent(ctx, func() error {
		response, err := c.kafka.AddPartitionsToTxn(ctx, &kafka.AddPartitionsToTxnRequest{
			TransactionalID: p.transactionalID, ProducerID: int(p.id), ProducerEpoch: int(p.epoch), Topics: topics,
		})
		if err != nil {
			return err
		}
		for _, partitions := range response.Topics {
			for _, partition := range partitions {
				if partition.Error != nil {
					return partition.Error
				}
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("begin the transaction of %s: %w", p.transactionalID, err)
	}
	return nil
}

// markerMetadata is what the marker's offset carries: its round.
const markerMetadata = "ls1:"

func (c *Client) addGroup(ctx context.Context, p *producer, group string) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	err := unlessConcurrent(ctx, func() error {
		response, err := c.kafka.AddOffsetsToTxn(ctx, &kafka.AddOffsetsToTxnRequest{
			TransactionalID: p.transactionalID, ProducerID: int(p.id), ProducerEpoch: int(p.epoch), GroupID: group,
		})
		if err == nil {
			err = response.Error
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("add the marker of %s: %w", p.transactionalID, err)
	}
	return nil
}

func (c *Client) addMarker(ctx context.Context, p *producer, group string, tp handlers.TopicPartition, m Marker) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	committed, err := c.kafka.TxnOffsetCommit(ctx, &kafka.TxnOffsetCommitRequest{
		TransactionalID: p.transactionalID, ProducerID: int(p.id), ProducerEpoch: int(p.epoch), GroupID: group,
		GenerationID: -1, // the group has no members
		Topics: map[string][]kafka.TxnOffsetCommit{tp.Topic: {{
			Partition: tp.Partition, Offset: m.Through, Metadata: markerMetadata + strconv.Itoa(m.Round),
		}}},
	})
	if err == nil {
		for _, partition := range committed.Topics[tp.Topic] {
			err = errors.Join(err, partition.Error)
		}
	}
	if err != nil {
		return fmt.Errorf("write the marker of %s: %w", p.transactionalID, err)
	}
	return nil
}

func (c *Client) endTransaction(ctx context.Context, p *producer) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	response, err := c.kafka.EndTxn(ctx, &kafka.EndTxnRequest{
		TransactionalID: p.transactionalID, ProducerID: int(p.id), ProducerEpoch: int(p.epoch), Committed: true,
	})
	if err == nil {
		err = response.Error
	}
	if err != nil {
		return fmt.Errorf("commit the transaction of %s: %w", p.transactionalID, err)
	}
	return nil
}

// marker reads the marker of one source partition.
func (c *Client) marker(ctx context.Context, group string, tp handlers.TopicPartition) (Marker, error) {
	var offsets map[handlers.TopicPartition]groupOffset
	err := unlessConcurrent(ctx, func() (err error) {
		offsets, err = c.committed(ctx, group, map[string][]int{tp.Topic: {tp.Partition}})
		return err
	})
	if err != nil {
		return Marker{}, err
	}
	at, known := offsets[tp]
	if !known {
		return Marker{}, nil
	}
	text, ours := strings.CutPrefix(at.metadata, markerMetadata)
	round, err := strconv.Atoi(text)
	if !ours || err != nil {
		return Marker{}, fmt.Errorf("the published marker of %s/%d (group %s) was written by somebody else: %q", tp.Topic, tp.Partition, group, at.metadata)
	}
	return Marker{Known: true, Through: at.offset, Round: round}, nil
}

// Markers returns the published markers of the topics' partitions; those
// without one are not in the map.
func (c *Client) Markers(ctx context.Context, group string, topics ...string) (map[handlers.TopicPartition]Marker, error) {
	offsets, err := c.groupOffsets(ctx, MarkerGroup(group), topics...)
	if err != nil {
		return nil, err
	}
	markers := make(map[handlers.TopicPartition]Marker, len(offsets))
	for tp, at := range offsets {
		round, _ := strconv.Atoi(strings.TrimPrefix(at.metadata, markerMetadata))
		markers[tp] = Marker{Known: true, Through: at.offset, Round: round}
	}
	return markers, nil
}

// scan reads all partitions of a topic from a time on up to their end. Where
// somebody's open transaction holds back what is behind it, it waits for that.
func (c *Client) scan(ctx context.Context, topic string, since time.Time, fn func(*handlers.Record) error) error {
	from, err := c.OffsetsAt(ctx, topic, since)
	if err != nil {
		return err
	}
	to, err := c.EndOffsets(ctx, topic)
	if err != nil {
		return err
	}
	for _, partition := range slices.Sorted(maps.Keys(from)) {
		start := from[partition]
		if err := c.ReadRange(ctx, topic, partition, start, to[partition], fn); err != nil {
			return err
		}
	}
	return nil
}

// transactionRequests are the requests that publishing in transactions needs,
// by Kafka's numbers for them.
var transactionRequests = map[int]string{
	22: "InitProducerId", 24: "AddPartitionsToTxn", 25: "AddOffsetsToTxn", 26: "EndTxn", 28: "TxnOffsetCommit",
}

// ErrNoTransactions: the broker knows no transactions.
var ErrNoTransactions = errors.New("the broker knows no transactions: set `publish: at-least-once`, and have readers drop repeats by id")

// checkTransactions asks a broker whether it knows transactions.
func (c *Client) checkTransactions(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	response, err := c.kafka.ApiVersions(ctx, &kafka.ApiVersionsRequest{Addr: c.addr})
	if err == nil {
		err = response.Error
	}
	if err != nil {
		return err
	}
	known := map[int]bool{}
	for _, api := range response.ApiKeys {
		known[api.ApiKey] = true
	}
	for key, name := range transactionRequests {
		if !known[key] {
			return fmt.Errorf("%w (there is no %s)", ErrNoTransactions, name)
		}
	}
	return nil
}

package consumer

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/addoffsetstotxn"
	"github.com/segmentio/kafka-go/protocol/addpartitionstotxn"
	"github.com/segmentio/kafka-go/protocol/describeconfigs"
	"github.com/segmentio/kafka-go/protocol/endtxn"
	"github.com/segmentio/kafka-go/protocol/fetch"
	"github.com/segmentio/kafka-go/protocol/initproducerid"
	"github.com/segmentio/kafka-go/protocol/listoffsets"
	"github.com/segmentio/kafka-go/protocol/metadata"
	"github.com/segmentio/kafka-go/protocol/offsetcommit"
	"github.com/segmentio/kafka-go/protocol/offsetfetch"
	"github.com/segmentio/kafka-go/protocol/produce"
	"github.com/segmentio/kafka-go/protocol/rawproduce"
	"github.com/segmentio/kafka-go/protocol/txnoffsetcommit"

	"learnsink/handlers"
)

// simBrokers is a Kafka cluster by the rules of the protocol that kafka-go
// speaks (InitProducerId up to v4, EndTxn up to v3: an epoch lasts until the
// next InitProducerId, whatever number of transactions that is).
//
//   - A transactional id has one producer id and epoch. InitProducerId raises
//     the epoch; first it aborts what is open and lets a transaction that is
//     being committed come to its end, answering ConcurrentTransactions.
//   - EndTxn is answered when the outcome is certain. The markers reach the
//     partitions, and the committed offset its readers, only afterwards, each
//     in its own time: so an OffsetFetch straight after EndTxn may be stale.
//   - Partitions check epochs and sequences for themselves, and know of a newer
//     epoch only by a marker or a batch of it.
//   - A transaction that stays open is aborted after its timeout, and its
//     producer fenced.
//   - A committed offset expires.
type simBrokers struct {
	world        *simWorld
	topics       map[string]int // partitions of each topic
	limit        int            // max.message.bytes
	cleanup      string         // cleanup.policy
	verifies     bool           // brokers since 3.6 ask the coordinator whether a batch's transaction is open
	logs         map[lane]*simLog
	transactions map[string]*simTransaction // by transactional id
	producers    int64
	offsets      map[string]map[handlers.TopicPartition]simOffset // by group
	// The coordinator of the one group that has members.
	generation int
	members    map[string]bool
	overtaken  map[handlers.TopicPartition]bool // the last commit came late, after one that was sent later
}

// simTransaction is a transactional id as its coordinator knows it.
type simTransaction struct {
	producerID int64
	epoch      int16
	state      simTransactionState
	committed  bool // where it is or was being ended
	number     int  // of the transaction
	timeout    time.Duration
	lanes      []lane
	groups     []string
	offsets    map[string]map[handlers.TopicPartition]simOffset
}

type simTransactionState int

const (
	simEmpty simTransactionState = iota
	simOngoing
	simPrepared // its outcome is certain, markers are being written
	simComplete
)

// simOffset is an offset that a group has committed.
type simOffset struct {
	groupOffset
	at time.Time
}

// offsetLife is how long a committed offset of a group without members lives.
const offsetLife = 7 * 24 * time.Hour

func newSimBrokers(w *simWorld) *simBrokers {
	b := &simBrokers{
		world: w, limit: 1 << 20, cleanup: "delete", logs: map[lane]*simLog{}, transactions: map[string]*simTransaction{},
		offsets: map[string]map[handlers.TopicPartition]simOffset{}, members: map[string]bool{}, overtaken: map[handlers.TopicPartition]bool{},
		topics: map[string]int{simSource: w.partitions},
	}
	if w.replays != nil {
		b.topics[simReplay] = 1
	}
	for topic, n := range b.topics {
		for p := range n {
			b.logs[lane{topic, p}] = newSimLog()
		}
	}
	return b
}

func (b *simBrokers) newProducer() int64 {
	b.producers++
	return b.producers
}

// simWire is the brokers as a pipeline of one process reaches them.
type simWire struct{ *simPart }

// CloseIdleConnections has none to close.
func (simWire) CloseIdleConnections() {}

// RoundTrip is one request.
func (n simWire) RoundTrip(ctx context.Context, _ net.Addr, request kafka.Request) (kafka.Response, error) {
	b := n.world.brokers
	var serve func() protocol.Message
	name, wait := "", time.Duration(0)
	switch r := request.(type) {
	case *metadata.Request:
		name, serve = "metadata", func() protocol.Message { return b.metadata(r) }
	case *describeconfigs.Request:
		name, serve = "configs", func() protocol.Message { return b.configs(r) }
	case *listoffsets.Request:
		name, serve = "list offsets", func() protocol.Message { return b.list(r) }
	case *fetch.Request:
		p := &r.Topics[0].Partitions[0]
		name, serve = "fetch "+r.Topics[0].Topic+strconv.Itoa(int(p.Partition)), func() protocol.Message { return b.fetch(r) }
		wait = time.Duration(r.MaxWaitTime) * time.Millisecond
	case *offsetfetch.Request:
		name, serve = "offset fetch", func() protocol.Message { return b.committed(r) }
	case *offsetcommit.Request:
		name, serve = "offset commit", func() protocol.Message { return b.commit(r) }
	case *initproducerid.Request:
		name, serve = "init producer "+r.TransactionalID, func() protocol.Message { return b.initProducer(r) }
	case *addpartitionstotxn.Request:
		name, serve = "add partitions "+r.TransactionalID, func() protocol.Message { return b.addPartitions(r) }
	case *rawproduce.Request:
		batches, lanes := map[lane][]byte{}, []string(nil)
		for _, t := range r.Topics {
			for _, p := range t.Partitions {
				raw, err := io.ReadAll(p.RecordSet.Reader)
				if err != nil {
					return nil, err
				}
				l := lane{t.Topic, int(p.Partition)}
				batches[l] = raw[4:] // what is before it is its length
				lanes = append(lanes, l.topic+strconv.Itoa(l.partition))
			}
		}
		slices.Sort(lanes)
		name, serve = "produce "+strings.Join(lanes, " "), func() protocol.Message { return b.produce(r.TransactionalID, batches) }
	case *addoffsetstotxn.Request:
		name, serve = "add offsets "+r.TransactionalID, func() protocol.Message { return b.addOffsets(r) }
	case *txnoffsetcommit.Request:
		name, serve = "offsets "+r.TransactionalID, func() protocol.Message { return b.addOffset(r) }
	case *endtxn.Request:
		name, serve = "end "+r.TransactionalID, func() protocol.Message { return b.endTransaction(r) }
	default:
		return nil, fmt.Errorf("no broker of the simulation serves %T", request)
	}
	type answer struct {
		protocol.Message
		grown chan struct{} // closed once there is more to fetch
	}
	for deadline := time.Now().Add(wait); ; {
		a, err := call(ctx, n.simPart, atKafka, name, func() (answer, error) {
			a := answer{Message: serve()}
			if r, fetches := request.(*fetch.Request); fetches {
				a.grown = b.logs[lane{r.Topics[0].Topic, int(r.Topics[0].Partitions[0].Partition)}].grown
			}
			return a, nil
		})
		if err != nil {
			return nil, err
		}
		f, fetched := a.Message.(*fetchResponse)
		if !fetched || f.Topics[0].Partitions[0].ErrorCode != 0 || len(f.Topics[0].Partitions[0].RecordSet) > 0 || !time.Now().Before(deadline) {
			return a.Message, nil
		}
		timer := time.NewTimer(time.Until(deadline)) // nothing is there yet: the broker waits
		select {
		case <-a.grown:
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
}

func (b *simBrokers) metadata(r *metadata.Request) protocol.Message {
	m := &metadata.Response{ClusterID: simCluster, Brokers: []metadata.ResponseBroker{{NodeID: 1}, {NodeID: 2}}}
	for _, name := range r.TopicNames {
		t := metadata.ResponseTopic{Name: name, Partitions: make([]metadata.ResponsePartition, b.topics[name])}
		for i := range t.Partitions {
			t.Partitions[i].PartitionIndex, t.Partitions[i].LeaderID = int32(i), int32(1+i%2)
		}
		m.Topics = append(m.Topics, t)
	}
	return m
}

func (b *simBrokers) configs(r *describeconfigs.Request) protocol.Message {
	return &describeconfigs.Response{Resources: []describeconfigs.ResponseResource{{
		ResourceType: r.Resources[0].ResourceType, ResourceName: r.Resources[0].ResourceName,
		ConfigEntries: []describeconfigs.ResponseConfigEntry{
			{ConfigName: "max.message.bytes", ConfigValue: strconv.Itoa(b.limit)},
			{ConfigName: "cleanup.policy", ConfigValue: b.cleanup},
		},
	}}}
}

func (b *simBrokers) list(r *listoffsets.Request) protocol.Message {
	topic := listoffsets.ResponseTopic{Topic: r.Topics[0].Topic}
	for _, p := range r.Topics[0].Partitions {
		log := b.logs[lane{topic.Topic, int(p.Partition)}]
		at := listoffsets.ResponsePartition{Partition: p.Partition, Timestamp: p.Timestamp}
		switch {
		case p.Timestamp == kafka.FirstOffset:
			at.Offset = log.start
		case p.Timestamp == kafka.LastOffset && r.IsolationLevel == int8(kafka.ReadCommitted):
			at.Offset = log.stable()
		case p.Timestamp == kafka.LastOffset:
			at.Offset = log.end
		default:
			at.Offset = log.at(time.UnixMilli(p.Timestamp))
		}
		topic.Partitions = append(topic.Partitions, at)
	}
	return &listoffsets.Response{Topics: []listoffsets.ResponseTopic{topic}}
}

func (b *simBrokers) fetch(r *fetch.Request) protocol.Message {
	asked := &r.Topics[0].Partitions[0]
	log := b.logs[lane{r.Topics[0].Topic, int(asked.Partition)}]
	p := fetchPartition{Partition: asked.Partition, HighWatermark: log.end, LastStableOffset: log.stable(), LogStartOffset: log.start}
	if asked.FetchOffset < log.start || asked.FetchOffset > log.end {
		p.ErrorCode = int16(kafka.OffsetOutOfRange)
	} else {
		raw, aborted := log.read(asked.FetchOffset, 2)
		p.RecordSet = raw
		for _, a := range aborted {
			p.AbortedTransactions = append(p.AbortedTransactions, fetch.ResponseTransaction{ProducerID: a.producerID, FirstOffset: a.firstOffset})
		}
	}
	return &fetchResponse{Topics: []fetchTopic{{Topic: r.Topics[0].Topic, Partitions: []fetchPartition{p}}}}
}

func (b *simBrokers) produce(id string, batches map[lane][]byte) protocol.Message {
	response := &produce.Response{}
	for l, raw := range batches {
		base, code := b.append(id, l, raw)
		response.Topics = append(response.Topics, produce.ResponseTopic{Topic: l.topic, Partitions: []produce.ResponsePartition{
			{Partition: int32(l.partition), BaseOffset: base, ErrorCode: int16(code), LogAppendTime: -1},
		}})
	}
	return response
}

// append puts a batch into one output partition.
func (b *simBrokers) append(id string, l lane, raw []byte) (base int64, code kafka.Error) {
	if len(raw) > b.limit {
		b.world.came("kafka: a batch too large")
		return -1, kafka.MessageSizeTooLarge
	}
	log, x := b.logs[l], b.transactions[id]
	producer := log.producer(int64(binary.BigEndian.Uint64(raw[atProducerID:])))
	if id != "" && b.verifies && producer.first < 0 && (x == nil || x.state != simOngoing || !slices.Contains(x.lanes, l) || log.producers[x.producerID] != producer) {
		return -1, kafka.InvalidTransactionState
	}
	before := log.end
	if base, code = log.produce(raw); code != 0 {
		return base, code
	}
	if log.end == before {
		b.world.came("kafka: a repeated batch")
		return base, 0
	}
	ids, err := publications(l, log.batches[len(log.batches)-1].raw)
	if err != nil {
		b.world.violated("%v", err)
	}
	if id == "" {
		b.world.announce(ids)
	} else {
		producer.ids = append(producer.ids, ids...)
	}
	return base, 0
}

// Transactions.

func (b *simBrokers) initProducer(r *initproducerid.Request) protocol.Message {
	answer := func(code kafka.Error) protocol.Message {
		return &initproducerid.Response{ErrorCode: int16(code), ProducerID: -1, ProducerEpoch: -1}
	}
	x := b.transactions[r.TransactionalID]
	if x == nil {
		x = &simTransaction{producerID: b.newProducer(), epoch: -1}
		if b.world.chance("an epoch near its end", 4) {
			x.epoch = math.MaxInt16 - 4
		}
		b.transactions[r.TransactionalID] = x
	}
	switch x.state {
	case simOngoing:
		b.world.came("kafka: an open transaction is taken over")
		x.epoch++
		b.end(x, false)
		return answer(kafka.ConcurrentTransactions)
	case simPrepared:
		return answer(kafka.ConcurrentTransactions)
	}
	if x.epoch++; x.epoch >= math.MaxInt16-1 {
		x.producerID, x.epoch = b.newProducer(), 0
	}
	x.state, x.timeout = simEmpty, time.Duration(r.TransactionTimeoutMs)*time.Millisecond
	return &initproducerid.Response{ProducerID: x.producerID, ProducerEpoch: x.epoch}
}

// open finds the transaction that a request is about, and begins it where none is open.
func (b *simBrokers) open(id string, producerID int64, epoch int16) (*simTransaction, kafka.Error) {
	x := b.transactions[id]
	switch {
	case x == nil || x.producerID != producerID:
		return nil, kafka.InvalidProducerIDMapping
	case x.epoch != epoch:
		b.world.came("kafka: a fenced producer")
		return nil, kafka.InvalidProducerEpoch
	case x.state == simPrepared:
		return nil, kafka.ConcurrentTransactions
	case x.state == simOngoing:
		return x, 0
	}
	x.state, x.lanes, x.groups, x.offsets = simOngoing, nil, nil, map[string]map[handlers.TopicPartition]simOffset{}
	x.number++
	number := x.number
	b.world.later("a transaction times out", x.timeout, func() {
		if x.number == number && x.state == simOngoing {
			b.world.came("kafka: a transaction timed out")
			x.epoch++
			b.end(x, false)
		}
	})
	return x, 0
}

func (b *simBrokers) addPartitions(r *addpartitionstotxn.Request) protocol.Message {
	x, code := b.open(r.TransactionalID, r.ProducerID, r.ProducerEpoch)
	response := &addpartitionstotxn.Response{}
	for _, t := range r.Topics {
		result := addpartitionstotxn.ResponseResult{Name: t.Name}
		for _, p := range t.Partitions {
			result.Results = append(result.Results, addpartitionstotxn.ResponsePartition{PartitionIndex: p, ErrorCode: int16(code)})
			if l := (lane{t.Name, int(p)}); code == 0 && !slices.Contains(x.lanes, l) {
				x.lanes = append(x.lanes, l)
			}
		}
		response.Results = append(response.Results, result)
	}
	return response
}

func (b *simBrokers) addOffsets(r *addoffsetstotxn.Request) protocol.Message {
	x, code := b.open(r.TransactionalID, r.ProducerID, r.ProducerEpoch)
	if code == 0 && !slices.Contains(x.groups, r.GroupID) {
		x.groups = append(x.groups, r.GroupID)
	}
	return &addoffsetstotxn.Response{ErrorCode: int16(code)}
}

func (b *simBrokers) addOffset(r *txnoffsetcommit.Request) protocol.Message {
	x, code := b.transactions[r.TransactionalID], kafka.Error(0)
	switch {
	case x == nil || x.producerID != r.ProducerID:
		code = kafka.InvalidProducerIDMapping
	case x.epoch != r.ProducerEpoch:
		code = kafka.InvalidProducerEpoch
	case x.state != simOngoing || !slices.Contains(x.groups, r.GroupID):
		code = kafka.InvalidTransactionState
	}
	topic := &r.Topics[0]
	p := &topic.Partitions[0]
	if code == 0 {
		if x.offsets[r.GroupID] == nil {
			x.offsets[r.GroupID] = map[handlers.TopicPartition]simOffset{}
		}
		x.offsets[r.GroupID][handlers.TopicPartition{Topic: topic.Name, Partition: int(p.Partition)}] =
			simOffset{groupOffset{p.CommittedOffset, p.CommittedMetadata}, time.Now()}
	}
	return &txnoffsetcommit.Response{Topics: []txnoffsetcommit.ResponseTopic{{Name: topic.Name, Partitions: []txnoffsetcommit.ResponsePartition{
		{Partition: p.Partition, ErrorCode: int16(code)},
	}}}}
}

func (b *simBrokers) endTransaction(r *endtxn.Request) protocol.Message {
	x := b.transactions[r.TransactionalID]
	code := kafka.Error(0)
	switch {
	case x == nil || x.producerID != r.ProducerID:
		code = kafka.InvalidProducerIDMapping
	case x.epoch != r.ProducerEpoch:
		b.world.came("kafka: a fenced producer")
		code = kafka.InvalidProducerEpoch
	case x.state == simOngoing:
		b.end(x, r.Committed)
	case x.state == simPrepared && x.committed == r.Committed:
		code = kafka.ConcurrentTransactions
	case x.state == simComplete && x.committed == r.Committed: // it is over already
	default:
		code = kafka.InvalidTransactionState
	}
	return &endtxn.Response{ErrorCode: int16(code)}
}

// end settles a transaction; the markers follow one by one.
func (b *simBrokers) end(x *simTransaction, committed bool) {
	x.state, x.committed = simPrepared, committed
	id, epoch, number := x.producerID, x.epoch, x.number
	if committed {
		for _, l := range x.lanes {
			b.world.announce(b.logs[l].producer(id).ids)
		}
	}
	var writes []func()
	for _, l := range x.lanes {
		writes = append(writes, func() { b.logs[l].mark(id, epoch, committed) })
	}
	for _, group := range x.groups {
		offsets := x.offsets[group]
		writes = append(writes, func() {
			for tp, at := range offsets {
				if committed {
					b.commitOffset(group, tp, at)
				}
			}
		})
	}
	roll := b.world.dice("markers", fmt.Sprint(id, " ", number))
	roll.Shuffle(len(writes), func(i, j int) { writes[i], writes[j] = writes[j], writes[i] })
	b.world.goes(func() {
		for _, write := range writes {
			time.Sleep(b.world.span(roll, 100*time.Microsecond, b.world.markers))
			b.world.do("a marker is written", write)
		}
		b.world.do("a transaction is complete", func() { x.state = simComplete })
	})
}

// Offsets of groups.

func (b *simBrokers) commitOffset(group string, tp handlers.TopicPartition, at simOffset) {
	if b.offsets[group] == nil {
		b.offsets[group] = map[handlers.TopicPartition]simOffset{}
	}
	b.offsets[group][tp] = at
}

// offset is a group's, where it has not expired.
func (b *simBrokers) offset(group string, tp handlers.TopicPartition) (groupOffset, bool) {
	at, ok := b.offsets[group][tp]
	if ok && time.Since(at.at) > offsetLife {
		b.world.came("kafka: a committed offset has expired")
		delete(b.offsets[group], tp)
		ok = false
	}
	return at.groupOffset, ok
}

func (b *simBrokers) committed(r *offsetfetch.Request) protocol.Message {
	topic := offsetfetch.ResponseTopic{Name: r.Topics[0].Name}
	for _, p := range r.Topics[0].PartitionIndexes {
		at := offsetfetch.ResponsePartition{PartitionIndex: p, CommittedOffset: -1}
		tp := handlers.TopicPartition{Topic: topic.Name, Partition: int(p)}
		if offset, ok := b.offset(r.GroupID, tp); ok {
			at.CommittedOffset, at.Metadata = offset.offset, offset.metadata
		}
		for _, x := range b.transactions {
			if _, pending := x.offsets[r.GroupID][tp]; pending && x.state == simPrepared && x.committed {
				b.world.came("kafka: a stale OffsetFetch")
			}
		}
		topic.Partitions = append(topic.Partitions, at)
	}
	return &offsetfetch.Response{Topics: []offsetfetch.ResponseTopic{topic}}
}

func (b *simBrokers) commit(r *offsetcommit.Request) protocol.Message {
	topic := &r.Topics[0]
	p := &topic.Partitions[0]
	code := kafka.Error(0)
	switch {
	case !b.members[r.MemberID]:
		code = kafka.UnknownMemberId
	case int(r.GenerationID) != b.generation:
		code = kafka.IllegalGeneration
	default:
		tp := handlers.TopicPartition{Topic: topic.Name, Partition: int(p.PartitionIndex)}
		b.overtaken[tp] = b.offsets[r.GroupID][tp].metadata == p.CommittedMetadata && p.CommittedOffset < b.offsets[r.GroupID][tp].offset
		b.commitOffset(r.GroupID, tp, simOffset{groupOffset{p.CommittedOffset, p.CommittedMetadata}, time.Now()})
	}
	return &offsetcommit.Response{Topics: []offsetcommit.ResponseTopic{{Name: topic.Name, Partitions: []offsetcommit.ResponsePartition{
		{PartitionIndex: p.PartitionIndex, ErrorCode: int16(code)},
	}}}}
}

// simPublication is one output in an output partition.
type simPublication struct {
	lane
	source int // partition
	offset int64
}

// publications reads the ids out of a record batch.
func publications(l lane, raw []byte) (ids []simPublication, err error) {
	set := recordSet{maxBytes: 1 << 24, codecs: &decompressor{}}
	set.fill(raw, nil)
	chunk, _, err := set.next(0)
	for i := range chunk.Records {
		p, parsed := publicationOf(l, &chunk.Records[i])
		err = errors.Join(err, parsed)
		ids = append(ids, p)
	}
	return ids, err
}

func publicationOf(l lane, r *handlers.Record) (p simPublication, err error) {
	id := outputID(r.Headers)
	p.lane = l
	if p.source, p.offset, err = simID(id); err != nil {
		return p, fmt.Errorf("an output of %s has the id %q", l.topic, id)
	}
	return p, nil
}

package consumer

import (
	"cmp"
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/segmentio/kafka-go"

	"learnsink/handlers"
)

// simLog is one partition of a topic as its leader holds it: record batches of
// format v2, byte for byte, and what it knows of their producers.
type simLog struct {
	start, end int64
	batches    []simRecordBatch
	producers  map[int64]*simProducer
	aborted    []simAborted
	grown      chan struct{} // closed when the log grows
}

type simRecordBatch struct {
	base, last int64
	at         time.Time // of its newest record
	raw        []byte
}

// simProducer is what a partition knows of a producer id.
type simProducer struct {
	epoch  int16
	next   int32            // sequence
	recent map[int32]int64  // base offset of a batch that is there, by its first sequence
	first  int64            // offset of the open transaction, -1: none is open
	ids    []simPublication // what the open transaction holds
}

// simAborted is a transaction that was aborted, and where its marker lies.
type simAborted struct {
	abortedTxn
	last int64
}

func newSimLog() *simLog {
	return &simLog{producers: map[int64]*simProducer{}, grown: make(chan struct{})}
}

// append puts a batch at the log's end, as it came.
func (l *simLog) append(raw []byte) (base int64) {
	base = l.end
	raw = append([]byte(nil), raw...)
	binary.BigEndian.PutUint64(raw, uint64(base))
	delta := int64(binary.BigEndian.Uint32(raw[atLastOffsetDelta:]))
	at := time.UnixMilli(int64(binary.BigEndian.Uint64(raw[atMaxTimestamp:])))
	l.batches = append(l.batches, simRecordBatch{base, base + delta, at, raw})
	l.end = base + delta + 1
	close(l.grown)
	l.grown = make(chan struct{})
	return base
}

func (l *simLog) producer(id int64) *simProducer {
	p := l.producers[id]
	if p == nil {
		p = &simProducer{epoch: -1, first: -1, recent: map[int32]int64{}}
		l.producers[id] = p
	}
	return p
}

// produce takes a batch of a producer with an id: its epoch and sequence decide
// whether it is taken, is there already, or comes from somebody who is fenced.
func (l *simLog) produce(raw []byte) (base int64, code kafka.Error) {
	id := int64(binary.BigEndian.Uint64(raw[atProducerID:]))
	epoch := int16(binary.BigEndian.Uint16(raw[atProducerEpoch:]))
	sequence := int32(binary.BigEndian.Uint32(raw[atBaseSequence:]))
	count := int32(binary.BigEndian.Uint32(raw[atCount:]))
	if id < 0 {
		return l.append(raw), 0
	}
	p := l.producer(id)
	switch {
	case epoch < p.epoch:
		return -1, kafka.InvalidProducerEpoch
	case epoch > p.epoch:
		if sequence != 0 {
			return -1, kafka.OutOfOrderSequenceNumber
		}
		p.epoch, p.next, p.recent = epoch, 0, map[int32]int64{}
	}
	if sequence != p.next {
		if base, there := p.recent[sequence]; there && sequence < p.next {
			return base, 0 // a repeat
		}
		return -1, kafka.OutOfOrderSequenceNumber
	}
	base = l.append(raw)
	p.recent[sequence] = base
	p.next += count
	if raw[atAttributes+1]&attrTransactional != 0 && p.first < 0 {
		p.first = base
	}
	return base, 0
}

// mark ends the producer's transaction here: the marker of the coordinator.
func (l *simLog) mark(id int64, epoch int16, committed bool) {
	kind := byte(0)
	if committed {
		kind = 1
	}
	raw, err := encodeBatch([]Message{{Key: []byte{0, 0, 0, kind}, Value: make([]byte, 6)}}, simCodec(), time.Now())
	if err != nil {
		panic(err)
	}
	raw[atAttributes+1] |= attrControl
	patchBatch(raw, nil, id, epoch, -1, true)
	base := l.append(raw)
	p := l.producer(id)
	if !committed && p.first >= 0 {
		l.aborted = append(l.aborted, simAborted{abortedTxn{id, p.first}, base})
	}
	if epoch > p.epoch {
		p.epoch, p.next, p.recent = epoch, 0, map[int32]int64{}
	}
	p.first, p.ids = -1, nil
}

// stable is the end that a read_committed reader can reach.
func (l *simLog) stable() int64 {
	stable := l.end
	for _, p := range l.producers {
		if p.first >= 0 {
			stable = min(stable, p.first)
		}
	}
	return stable
}

// at is the first offset of a time or later, -1 where there is none.
func (l *simLog) at(t time.Time) int64 {
	for _, b := range l.batches {
		if !b.at.Before(t) {
			return max(b.base, l.start)
		}
	}
	return -1
}

// read returns up to most whole batches from the one that holds offset from,
// below the stable end, and the aborted transactions among them.
func (l *simLog) read(from int64, most int) (raw []byte, aborted []abortedTxn) {
	stable, upTo := l.stable(), from
	for _, b := range l.batches {
		if b.last < from {
			continue
		}
		if b.base >= stable || most == 0 {
			break
		}
		raw = append(raw, b.raw...)
		upTo = b.last + 1
		most--
	}
	for _, a := range l.aborted {
		if a.last >= from && a.firstOffset < upTo {
			aborted = append(aborted, a.abortedTxn)
		}
	}
	return raw, aborted
}

// forget deletes the records below an offset, as retention does.
func (l *simLog) forget(below int64) {
	l.start = min(max(l.start, below), l.end)
	for len(l.batches) > 0 && l.batches[0].last < l.start {
		l.batches = l.batches[1:]
	}
}

// simReader is a read_committed reader of one partition, as those of the
// outputs are: what it has read it has read for good.
type simReader struct {
	log  *simLog
	next int64
	set  recordSet
}

func newSimReader(log *simLog) *simReader {
	return &simReader{log: log, set: recordSet{maxBytes: 1 << 24, codecs: &decompressor{}}}
}

// read hands fn what is there by now.
func (r *simReader) read(fn func(*handlers.Record)) error {
	for stable := r.log.stable(); r.next < stable; {
		raw, aborted := r.log.read(r.next, -1)
		slices.SortFunc(aborted, func(a, b abortedTxn) int { return cmp.Compare(a.firstOffset, b.firstOffset) })
		r.set.fill(raw, aborted)
		for {
			chunk, ok, err := r.set.next(r.next)
			if err != nil {
				return err
			}
			if !ok {
				break
			}
			for i := range chunk.Records {
				fn(&chunk.Records[i])
			}
			r.next = chunk.Next
		}
	}
	return nil
}

// simRow is what the log holds at an offset, as the model judges it.
type simRow struct {
	verdict handlers.Verdict // 0: no row: a marker, or a record that was aborted or is not committed yet
	learner int
	deletes bool
	at      time.Time // the record's
	sent    *simSent  // of the replay topic: what it is; its verdict hangs on what is stored
}

// simSender writes to one source partition until its rows are all out.
type simSender struct {
	world *simWorld
	tp    handlers.TopicPartition
	log   *simLog
	truth *simTruth
	rand  *rand.Rand
	flood bool // once, a run of rows of one kind
	id    int64
	epoch int16
	next  int32
}

// learnersEach is how many learners a source partition has for its own, so
// that what is stored in the end rests on the order of one partition alone.
const learnersEach = 3

func (s *simSender) row(kind int) (Message, simRow) {
	learner := s.tp.Partition*learnersEach + s.rand.IntN(learnersEach)
	m := Message{Key: []byte{'k', byte('0' + s.rand.IntN(6))}}
	row := simRow{verdict: handlers.Accepted, learner: learner}
	switch {
	case kind < 2:
		m.Value, row.verdict = badRow(), handlers.Rejected
	case kind < 3: // a tombstone, which this source does not ignore
		row.verdict = handlers.Rejected
	case kind < 4:
		m.Value, row.deletes = deletingRow(learner), true
	case kind < 6 && s.world.source.Wait > 0:
		m.Value, row.verdict = lackingRow(), handlers.Waits
	default:
		m.Value = goodRow(learner)
	}
	return m, row
}

// run writes rows for a while, some in transactions, some of which are aborted.
func (s *simSender) run(rows int, within time.Duration) {
	s.world.do("", func() { s.id = s.world.brokers.newProducer() })
	floodAt := -1
	if s.flood {
		floodAt = s.rand.IntN(rows)
	}
	type written struct {
		base int64
		rows []simRow
	}
	for done := 0; done < rows; {
		s.pause(2 * within / time.Duration(rows))
		transactional, committed := s.rand.IntN(4) == 0, s.rand.IntN(3) > 0
		var open []written
		for range 1 + s.rand.IntN(2) {
			var messages []Message
			var judged []simRow
			for range 1 + s.rand.IntN(4) {
				kind := s.rand.IntN(20)
				if floodAt >= 0 && done >= floodAt && done < floodAt+12 {
					kind = 0
				}
				m, row := s.row(kind)
				messages, judged = append(messages, m), append(judged, row)
				done++
			}
			now := time.Now()
			for i := range judged {
				judged[i].at = time.UnixMilli(now.UnixMilli()).UTC()
			}
			raw, err := encodeBatch(messages, simCodec(), now)
			if err != nil {
				panic(err)
			}
			s.world.do("a sender writes", func() {
				if !transactional {
					s.truth.write(s.log.append(raw), judged)
					return
				}
				patchBatch(raw, nil, s.id, s.epoch, s.next, true)
				base, code := s.log.produce(raw)
				if code != 0 {
					panic(code)
				}
				s.next += int32(len(judged))
				open = append(open, written{base, judged})
			})
			if transactional {
				s.pause(4 * time.Second)
			}
		}
		if transactional {
			s.world.do("a sender ends its transaction", func() {
				for _, w := range open {
					if committed {
						s.truth.write(w.base, w.rows)
					} else {
						s.world.came("source: aborted transaction")
					}
				}
				s.log.mark(s.id, s.epoch, committed)
				s.truth.reach(s.log.end)
			})
		}
	}
}

// pause waits as long as most; not at all once the faults have stopped.
func (s *simSender) pause(most time.Duration) {
	pause(s.world.chaos, time.Duration(s.rand.Int64N(int64(most))))
}

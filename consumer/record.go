package consumer

// The record batch, format v2: what a fetch response's record set and a
// produce request hold. Decoded and encoded here, not by kafka-go, because its
// decoder drops lastOffsetDelta (a compacted tail cannot be passed), checks no
// CRC, bounds no decompression, and its encoder cannot be patched for
// transactions.
//
//	 0 base offset int64        21 attributes int16           57 record count int32
//	 8 length of the rest int32 23 last offset delta int32    61 records
//	12 leader epoch int32       27 first timestamp int64
//	16 magic int8               35 max timestamp int64
//	17 CRC-32C of 21… uint32    43 producer id int64, 51 epoch int16, 53 base sequence int32

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"math/bits"
	"time"

	"learnsink/handlers"
)

const (
	batchHeader    = 61 // bytes before the records
	batchLengthEnd = 12 // bytes that the length does not count

	atLength          = 8
	atLeader          = 12
	atMagic           = 16
	atCRC             = 17
	atAttributes      = 21
	atLastOffsetDelta = 23
	atFirstTimestamp  = 27
	atMaxTimestamp    = 35
	atProducerID      = 43
	atProducerEpoch   = 51
	atBaseSequence    = 53
	atCount           = 57

	attrCompression   = 0x07
	attrLogAppendTime = 0x08
	attrTransactional = 0x10
	attrControl       = 0x20
)

// Errors of decoding. None of them is about a row: the log, the wire or the
// broker is not as it should be, so all of them stop or delay the partition.
var (
	// ErrCorrupt: a record batch contradicts its checksum or itself.
	ErrCorrupt = errors.New("corrupt record batch")
	// ErrOldFormat: a message set of format 0 or 1, which brokers before 0.11 wrote.
	ErrOldFormat = errors.New("message format v0 or v1 is not read: rewrite the topic in format v2")
	// ErrOversized: a record batch decompresses to more than the cap.
	ErrOversized = errors.New("record batch decompresses beyond the cap")
)

func corrupt(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrCorrupt}, args...)...)
}

// abortedTxn is one line of a fetch response's list of aborted transactions.
type abortedTxn struct {
	producerID  int64
	firstOffset int64
}

// Chunk is what one step of reading gives: the rows of the offsets [From, Next).
type Chunk struct {
	// From is the offset that was asked for; Next is where reading goes on.
	// Equal: nothing was there.
	From, Next int64
	// Records in offset order; fewer than Next-From where offsets hold no
	// row (transaction markers, aborted or compacted records).
	Records []handlers.Record
	// Hole is how many offsets from From on no record batch covers; Markers
	// and Aborted how many lie in control batches, and in batches of
	// transactions that were aborted. What else holds no record is compacted.
	Hole, Markers, Aborted int64
	// Bytes is about what the records take in memory.
	Bytes int
	// Stable is the last stable offset as the broker last told it: the end
	// that a read_committed reader can reach. End is the high watermark.
	Stable, End int64
}

// recordSet walks the record batches of one partition in one fetch response.
type recordSet struct {
	topic     string
	partition int
	raw       []byte       // what is not decoded yet
	aborted   []abortedTxn // in order of first offset
	aborting  map[int64]struct{}
	maxBytes  int // cap on what one batch may decompress to
	codecs    *decompressor
	leader    int32 // epoch of the leader that wrote the batch last walked past; -1 unknown
	open      openBatch
}

// openBatch is a record batch that is being handed out.
type openBatch struct {
	base, lastDelta int64
	first, appended int64 // timestamps; appended: the broker's for all records, -1 where each has its own
	previous        int64 // offset delta of the last record decoded
	count           int   // records that are not decoded yet
	rest            cursor
}

// fill replaces what is left by a response's record set.
func (s *recordSet) fill(raw []byte, aborted []abortedTxn) {
	s.raw, s.aborted, s.aborting, s.open = raw, aborted, nil, openBatch{}
}

// chunkRecords is how many records are handed out at once: a batch of a few
// kilobytes can hold millions of empty ones.
const chunkRecords = 5000

// next returns the rows from offset from on of one record batch, or of a part
// of one. It reports false where no whole batch is left: the last one of a
// response may be cut off, and is fetched again.
func (s *recordSet) next(from int64) (Chunk, bool, error) {
	if s.open.count > 0 {
		chunk := Chunk{From: from}
		err := s.decodeRecords(&chunk)
		return chunk, err == nil, err
	}
	b := s.raw
	if len(b) < batchHeader {
		// A v0 or v1 message set may be shorter than a v2 header.
		if len(b) > 16 && b[16] < 2 {
			return Chunk{}, false, ErrOldFormat
		}
		return Chunk{}, false, nil
	}
	base := int64(binary.BigEndian.Uint64(b))
	length := int(int32(binary.BigEndian.Uint32(b[8:])))
	switch magic := b[16]; {
	case magic < 2:
		return Chunk{}, false, ErrOldFormat
	case magic > 2:
		return Chunk{}, false, corrupt("unknown format %d at offset %d", magic, base)
	}
	if length < batchHeader-batchLengthEnd {
		return Chunk{}, false, corrupt("length %d at offset %d", length, base)
	}
	if length > len(b)-batchLengthEnd {
		return Chunk{}, false, nil
	}
	b = b[: batchLengthEnd+length : batchLengthEnd+length]
	if crc := binary.BigEndian.Uint32(b[atCRC:]); crc != crc32.Checksum(b[atAttributes:], castagnoli()) {
		return Chunk{}, false, corrupt("checksum at offset %d", base)
	}
	delta := int64(int32(binary.BigEndian.Uint32(b[atLastOffsetDelta:])))
	if base < 0 || delta < 0 || base > math.MaxInt64-1-delta {
		return Chunk{}, false, corrupt("offsets %d+%d", base, delta)
	}
	s.leader = int32(binary.BigEndian.Uint32(b[atLeader:]))
	s.raw = s.raw[len(b):]

	chunk := Chunk{From: from, Next: max(from, base+delta+1), Hole: max(0, base-from)}
	attributes := binary.BigEndian.Uint16(b[atAttributes:])
	producer := int64(binary.BigEndian.Uint64(b[atProducerID:]))
	for len(s.aborted) > 0 && s.aborted[0].firstOffset <= base+delta {
		if s.aborting == nil {
			s.aborting = map[int64]struct{}{}
		}
		s.aborting[s.aborted[0].producerID] = struct{}{}
		s.aborted = s.aborted[1:]
	}
	switch _, dead := s.aborting[producer]; {
	case attributes&attrControl != 0:
		// A marker ends its producer's transaction, whichever way.
		delete(s.aborting, producer)
		chunk.Markers = chunk.Next - from - chunk.Hole
		return chunk, true, nil
	case attributes&attrTransactional != 0 && dead:
		chunk.Aborted = chunk.Next - from - chunk.Hole
		return chunk, true, nil
	case base+delta < from:
		return chunk, true, nil
	}

	body, err := s.codecs.decompress(int(attributes&attrCompression), b[batchHeader:], s.maxBytes)
	if err != nil {
		return Chunk{}, false, fmt.Errorf("record batch at offset %d: %w", base, err)
	}
	count := int(int32(binary.BigEndian.Uint32(b[atCount:])))
	if count < 0 || count > len(body)/leastRecord || count == 0 && len(body) > 0 {
		return Chunk{}, false, corrupt("%d records in %d bytes at offset %d", count, len(body), base)
	}
	if count == 0 { // all of them are compacted away
		return chunk, true, nil
	}
	s.open = openBatch{base: base, lastDelta: delta, first: int64(binary.BigEndian.Uint64(b[atFirstTimestamp:])),
		appended: -1, previous: -1, count: count, rest: cursor{b: body}}
	if attributes&attrLogAppendTime != 0 {
		s.open.appended = int64(binary.BigEndian.Uint64(b[atMaxTimestamp:]))
	}
	chunk.Next = from
	err = s.decodeRecords(&chunk)
	return chunk, err == nil, err
}

// leastRecord is the size of the smallest record: length, attributes, two
// deltas, null key, null value, no headers.
const leastRecord = 7

// decodeRecords moves records from the open batch to chunk, and says where
// reading goes on.
func (s *recordSet) decodeRecords(chunk *Chunk) error {
	o := &s.open
	n := min(o.count, chunkRecords)
	chunk.Records = make([]handlers.Record, 0, n)
	// Headers without text take twenty times in memory what they take in the
	// batch, so the cap is on what is handed out as well.
	for i := 0; i < n && chunk.Bytes <= s.most(); i++ {
		r := cursor{b: o.rest.bytes(o.rest.varint())}
		r.skip(1) // attributes, unused
		timeDelta, offsetDelta := r.varlong(), r.varint()
		record := handlers.Record{Topic: s.topic, Partition: s.partition, Offset: o.base + offsetDelta}
		switch {
		case o.appended >= 0:
			record.Timestamp = timestamp(o.appended)
		case o.first >= 0:
			record.Timestamp = timestamp(o.first + timeDelta)
		}
		record.Key = r.nullable()
		record.Value = r.nullable()
		headers := r.varint()
		if headers < 0 || headers > int64(len(r.b)/2) { // a header is two bytes at least
			return corrupt("%d headers after offset %d", headers, o.base+o.previous)
		}
		if headers*headerSize > int64(s.most()) {
			return fmt.Errorf("%w of %d bytes (%d headers after offset %d)", ErrOversized, s.maxBytes, headers, o.base+o.previous)
		}
		if headers > 0 {
			record.Headers = make([]handlers.Header, headers)
			for h := range record.Headers {
				record.Headers[h] = handlers.Header{Key: string(r.bytes(r.varint())), Value: r.nullable()}
			}
		}
		if r.bad || o.rest.bad || len(r.b) > 0 {
			return corrupt("the record after offset %d does not fit its length", o.base+o.previous)
		}
		if offsetDelta <= o.previous || offsetDelta > o.lastDelta {
			return corrupt("offset delta %d after %d of %d at offset %d", offsetDelta, o.previous, o.lastDelta, o.base)
		}
		o.previous = offsetDelta
		o.count--
		if record.Offset < chunk.From {
			continue // the batch begins before the wanted offset
		}
		chunk.Bytes += sizeOf(&record)
		chunk.Records = append(chunk.Records, record)
	}
	chunk.Next = max(chunk.From, o.base+o.previous+1)
	if o.count == 0 {
		if len(o.rest.b) > 0 {
			return corrupt("%d bytes after the last record at offset %d", len(o.rest.b), o.base)
		}
		chunk.Next = max(chunk.From, o.base+o.lastDelta+1)
		o.rest.b = nil
	}
	return nil
}

// most is how many bytes of records are handed out at once, one record aside.
func (s *recordSet) most() int { return max(s.maxBytes, 1<<20) }

// headerSize is what a decoded header takes, its text and value aside.
const headerSize = 40

// sizeOf is about what a record takes in memory.
func sizeOf(r *handlers.Record) int {
	n := len(r.Key) + len(r.Value) + headerSize*len(r.Headers)
	for i := range r.Headers {
		n += len(r.Headers[i].Key) + len(r.Headers[i].Value)
	}
	return n
}

// timestamp turns Kafka's milliseconds into a time; -1, the mark of none, into the zero time.
func timestamp(millis int64) time.Time {
	if millis < 0 {
		return time.Time{}
	}
	return time.UnixMilli(millis).UTC()
}

// cursor reads from the front of b. After a reading beyond the end bad is set
// and everything is zero.
type cursor struct {
	b   []byte
	bad bool
}

// varint reads a zigzag varint of 32 bits: a length, a count, a delta of offsets.
func (c *cursor) varint() int64 {
	before := len(c.b)
	v := c.varlong()
	if before-len(c.b) > binary.MaxVarintLen32 || v != int64(int32(v)) {
		c.bad, c.b = true, nil
		return 0
	}
	return v
}

// varlong reads a zigzag varint of 64 bits.
func (c *cursor) varlong() int64 {
	v, n := binary.Varint(c.b)
	if n <= 0 {
		c.bad, c.b = true, nil
		return 0
	}
	c.b = c.b[n:]
	return v
}

func (c *cursor) uvarint() uint64 {
	v, n := binary.Uvarint(c.b)
	if n <= 0 {
		c.bad, c.b = true, nil
		return 0
	}
	c.b = c.b[n:]
	return v
}

func (c *cursor) skip(n int64) { c.bytes(n) }

// bytes returns the next n bytes, not copied.
func (c *cursor) bytes(n int64) []byte {
	if n < 0 || n > int64(len(c.b)) {
		c.bad, c.b = true, nil
		return nil
	}
	v := c.b[:n:n]
	c.b = c.b[n:]
	return v
}

// nullable returns the next bytes with their length in front. -1 is null; and
// so is whatever else is negative, as the Java client has it.
func (c *cursor) nullable() []byte {
	n := c.varint()
	if n < 0 {
		return nil
	}
	if v := c.bytes(n); v != nil {
		return v
	}
	return []byte{}
}

// Message is a record that is to be produced.
type Message struct {
	Key     []byte // nil: null
	Value   []byte // nil: a tombstone
	Headers []handlers.Header
	// Timestamp; zero: the time of sending.
	Timestamp time.Time
}

func (m *Message) size() int {
	n := 32 + len(m.Key) + len(m.Value) // lengths, deltas and the like
	for i := range m.Headers {
		n += 10 + len(m.Headers[i].Key) + len(m.Headers[i].Value)
	}
	return n
}

// recordBatch is a record batch in the making. The zero value is empty.
type recordBatch struct {
	records       []byte
	count         int
	first, latest int64 // timestamps, in milliseconds
}

// add takes a message, of a time in milliseconds. It reports false, and takes
// nothing, where the batch would then be larger than limit bytes should it not
// compress at all; a first message it takes whatever its size.
func (b *recordBatch) add(m *Message, at int64, limit int) bool {
	if b.count == 0 {
		b.first, b.latest = at, at
	}
	delta, n := at-b.first, int64(b.count)
	size := 1 + varintSize(delta) + varintSize(n) + nullableSize(m.Key) + nullableSize(m.Value) + varintSize(int64(len(m.Headers)))
	for i := range m.Headers {
		h := &m.Headers[i]
		size += varintSize(int64(len(h.Key))) + len(h.Key) + nullableSize(h.Value)
	}
	if b.count > 0 && batchHeader+len(b.records)+varintSize(int64(size))+size > limit {
		return false
	}
	r := binary.AppendVarint(b.records, int64(size))
	r = append(r, 0) // attributes
	r = binary.AppendVarint(r, delta)
	r = binary.AppendVarint(r, n)
	r = appendNullable(r, m.Key)
	r = appendNullable(r, m.Value)
	r = binary.AppendVarint(r, int64(len(m.Headers)))
	for i := range m.Headers {
		h := &m.Headers[i]
		r = binary.AppendVarint(r, int64(len(h.Key)))
		r = append(r, h.Key...)
		r = appendNullable(r, h.Value)
	}
	b.records, b.latest, b.count = r, max(b.latest, at), b.count+1
	return true
}

// seal appends the encoded batch to out and begins anew. The batch is
// nobody's: patchBatch makes it a producer's.
func (b *recordBatch) seal(out []byte, codec *compressor) ([]byte, error) {
	start := len(out)
	out, used, err := codec.compress(append(out, make([]byte, batchHeader)...), b.records)
	if err != nil {
		return nil, err
	}
	batch := out[start:]
	if len(batch)-batchLengthEnd > math.MaxInt32 {
		return nil, fmt.Errorf("a record batch of %d bytes", len(batch))
	}
	put := binary.BigEndian
	put.PutUint32(batch[atLength:], uint32(len(batch)-batchLengthEnd))
	put.PutUint32(batch[atLeader:], math.MaxUint32) // leader epoch -1: the broker's to set
	batch[atMagic] = 2
	put.PutUint16(batch[atAttributes:], uint16(used))
	put.PutUint32(batch[atLastOffsetDelta:], uint32(b.count-1))
	put.PutUint64(batch[atFirstTimestamp:], uint64(b.first))
	put.PutUint64(batch[atMaxTimestamp:], uint64(b.latest))
	put.PutUint32(batch[atCount:], uint32(b.count))
	patchBatch(batch[:batchHeader], batch[batchHeader:], nobody, nobody, nobody, false)
	b.records, b.count = b.records[:0], 0
	return out, nil
}

// patchBatch puts a producer's identity into the head of an encoded batch, and
// renews its checksum.
func patchBatch(head, rest []byte, producerID int64, epoch int16, sequence int32, transactional bool) {
	put := binary.BigEndian
	put.PutUint64(head[atProducerID:], uint64(producerID))
	put.PutUint16(head[atProducerEpoch:], uint16(epoch))
	put.PutUint32(head[atBaseSequence:], uint32(sequence))
	if transactional {
		head[atAttributes+1] |= attrTransactional
	}
	put.PutUint32(head[atCRC:], checksum(head, rest))
}

// checksum of an encoded batch, which may be in two pieces.
func checksum(head, rest []byte) uint32 {
	return crc32.Update(crc32.Checksum(head[atAttributes:], castagnoli()), castagnoli(), rest)
}

// varintSize is how many bytes a zigzag varint takes.
func varintSize(v int64) int {
	return (bits.Len64(uint64(v<<1^v>>63)|1) + 6) / 7
}

// nullableSize is how many bytes appendNullable appends.
func nullableSize(v []byte) int {
	if v == nil {
		return 1
	}
	return varintSize(int64(len(v))) + len(v)
}

func appendNullable(b, v []byte) []byte {
	if v == nil {
		return binary.AppendVarint(b, -1)
	}
	b = binary.AppendVarint(b, int64(len(v)))
	return append(b, v...)
}

// castagnoli returns the table of CRC-32C; the standard library makes it once.
func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

package consumer

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/snappy"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"learnsink/handlers"
)

func set(raw []byte, aborted ...abortedTxn) *recordSet {
	return &recordSet{topic: "t", partition: 3, raw: raw, aborted: aborted, maxBytes: 64 << 20, codecs: &decompressor{}}
}

// all decodes everything from an offset on.
func (s *recordSet) all(from int64) (records []handlers.Record, next int64, err error) {
	for {
		chunk, ok, err := s.next(from)
		if err != nil || !ok {
			return records, from, err
		}
		records, from = append(records, chunk.Records...), chunk.Next
	}
}

func mustCompressor(t testing.TB, c Compression) *compressor {
	t.Helper()
	codec, err := newCompressor(c)
	if err != nil {
		t.Fatal(err)
	}
	return codec
}

// encodeBatch returns messages as one record batch.
func encodeBatch(messages []Message, codec *compressor, now time.Time) ([]byte, error) {
	var b recordBatch
	for i := range messages {
		at := now
		if !messages[i].Timestamp.IsZero() {
			at = messages[i].Timestamp
		}
		b.add(&messages[i], at.UnixMilli(), math.MaxInt)
	}
	return b.seal(nil, codec)
}

func mustEncode(t testing.TB, c Compression, messages ...Message) []byte {
	t.Helper()
	b, err := encodeBatch(messages, mustCompressor(t, c), time.UnixMilli(1_700_000_000_123))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// at moves an encoded batch to a base offset.
func at(b []byte, base int64) []byte {
	b = bytes.Clone(b)
	binary.BigEndian.PutUint64(b, uint64(base))
	return b
}

// edit changes an encoded batch and renews its checksum.
func edit(b []byte, f func(b []byte)) []byte {
	b = bytes.Clone(b)
	f(b)
	binary.BigEndian.PutUint32(b[atCRC:], crc32.Checksum(b[atAttributes:], castagnoli()))
	return b
}

// someMessages are seeded messages of every shape.
func someMessages(seed uint64, n int) []Message {
	r := rand.New(rand.NewPCG(seed, 1))
	bits := func() []byte {
		switch r.IntN(4) {
		case 0:
			return nil
		case 1:
			return []byte{}
		case 2:
			return bytes.Repeat([]byte("learning "), r.IntN(200))
		}
		b := make([]byte, r.IntN(100))
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		return b
	}
	messages := make([]Message, n)
	for i := range messages {
		m := Message{Key: bits(), Value: bits(), Timestamp: time.UnixMilli(1_600_000_000_000 + r.Int64N(1e9)).UTC()}
		for range r.IntN(4) {
			m.Headers = append(m.Headers, handlers.Header{Key: fmt.Sprint("h", r.IntN(9)), Value: bits()})
		}
		messages[i] = m
	}
	return messages
}

func asRecords(messages []Message, base int64) []handlers.Record {
	var records []handlers.Record
	for i, m := range messages {
		records = append(records, handlers.Record{Topic: "t", Partition: 3, Offset: base + int64(i),
			Timestamp: m.Timestamp, Key: m.Key, Value: m.Value, Headers: m.Headers})
	}
	return records
}

// same compares by DeepEqual: cmp takes seconds for a few hundred records.
func same(t *testing.T, want, got []handlers.Record) {
	t.Helper()
	if len(want) != len(got) {
		t.Fatalf("%d records, want %d", len(got), len(want))
	}
	for i := range want {
		if !reflect.DeepEqual(want[i], got[i]) {
			t.Fatalf("record %d is %v, want %v", i, got[i], want[i])
		}
	}
}

func TestEncodedBatchesDecodeToWhatTheyHold(t *testing.T) {
	for _, c := range []Compression{NoCompression, SnappyCompression, LZ4Compression, ZstdCompression} {
		for _, n := range []int{1, 2, 100, 12_000} {
			t.Run(fmt.Sprint(c, n), func(t *testing.T) {
				messages := someMessages(uint64(n), n)
				raw := at(mustEncode(t, c, messages...), 1000)
				got, next, err := set(raw).all(0)
				if err != nil {
					t.Fatal(err)
				}
				if next != 1000+int64(n) {
					t.Errorf("next = %d", next)
				}
				same(t, asRecords(messages, 1000), got)
			})
		}
	}
}

// Another client's eyes on what we write.
func TestEncodedBatchesAreWhatOtherClientsRead(t *testing.T) {
	messages := someMessages(7, 300)
	for _, c := range []Compression{NoCompression, SnappyCompression, LZ4Compression, ZstdCompression} {
		raw := at(mustEncode(t, c, messages...), 40)
		theirs, err := franz(raw, 0)
		if err != nil {
			t.Fatal(err)
		}
		same(t, asRecords(messages, 40), theirs)
		var rs protocol.RecordSet
		if _, err := rs.ReadFrom(bytes.NewReader(append(binary.BigEndian.AppendUint32(nil, uint32(len(raw))), raw...))); err != nil {
			t.Error(c, "kafka-go:", err)
		}
	}
}

// franz decodes a record set with franz-go.
func franz(raw []byte, from int64) ([]handlers.Record, error) {
	fetched := kmsg.NewFetchResponseTopicPartition()
	fetched.Partition, fetched.RecordBatches = 3, raw
	fetched.LastStableOffset = 1 << 60
	p, _ := kgo.ProcessFetchPartition(kgo.ProcessFetchPartitionOpts{Offset: from, Topic: "t", Partition: 3,
		IsolationLevel: kgo.ReadCommitted()}, &fetched, kgo.DefaultDecompressor(), nil)
	var records []handlers.Record
	for _, r := range p.Records {
		record := handlers.Record{Topic: r.Topic, Partition: int(r.Partition), Offset: r.Offset, Timestamp: r.Timestamp.UTC(), Key: r.Key, Value: r.Value}
		for _, h := range r.Headers {
			record.Headers = append(record.Headers, handlers.Header{Key: h.Key, Value: h.Value})
		}
		records = append(records, record)
	}
	return records, p.Err
}

func TestEveryCompressionIsRead(t *testing.T) {
	messages := someMessages(3, 50)
	plain := mustEncode(t, NoCompression, messages...)
	body := plain[batchHeader:]
	var gz bytes.Buffer
	w := gzip.NewWriter(&gz)
	w.Write(body)
	w.Close()
	chunked := []byte(xerial + "\x00\x00\x00\x01\x00\x00\x00\x01")
	for rest := body; len(rest) > 0; {
		n := min(len(rest), 1000)
		block := snappy.Encode(nil, rest[:n])
		chunked = append(binary.BigEndian.AppendUint32(chunked, uint32(len(block))), block...)
		rest = rest[n:]
	}
	for name, c := range map[string]struct {
		codec byte
		body  []byte
	}{
		"gzip":          {codecGzip, gz.Bytes()},
		"snappy":        {codecSnappy, snappy.Encode(nil, body)},
		"snappy xerial": {codecSnappy, chunked},
	} {
		t.Run(name, func(t *testing.T) {
			raw := append(bytes.Clone(plain[:batchHeader]), c.body...)
			binary.BigEndian.PutUint32(raw[8:], uint32(len(raw)-batchLengthEnd))
			raw = edit(raw, func(b []byte) { b[atAttributes+1] = c.codec })
			got, _, err := set(raw).all(0)
			if err != nil {
				t.Fatal(err)
			}
			same(t, asRecords(messages, 0), got)
		})
	}
}

func TestReadingPassesWhatHoldsNoRow(t *testing.T) {
	three := mustEncode(t, NoCompression, Message{Value: []byte("a")}, Message{Value: []byte("b")}, Message{Value: []byte("c")})
	txn := func(base, producer int64) []byte {
		b := at(three, base)
		patchBatch(b, nil, producer, 0, 0, true)
		return b
	}
	marker := func(base, producer int64) []byte {
		b := at(mustEncode(t, NoCompression, Message{Key: []byte{0, 0, 0, 0}, Value: []byte{0, 0, 0, 0, 0, 0}}), base)
		return edit(b, func(b []byte) {
			binary.BigEndian.PutUint64(b[atProducerID:], uint64(producer))
			b[atAttributes+1] |= attrControl | attrTransactional
		})
	}
	offsets := func(t *testing.T, s *recordSet, from int64) (got []int64, next int64) {
		t.Helper()
		records, next, err := s.all(from)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range records {
			got = append(got, r.Offset)
		}
		return got, next
	}
	join := func(bs ...[]byte) []byte { return bytes.Join(bs, nil) }
	for name, c := range map[string]struct {
		set  *recordSet
		from int64
		want []int64
		next int64
	}{
		"a batch that begins before the wanted offset": {set(at(three, 10)), 11, []int64{11, 12}, 13},
		"a marker":                                        {set(join(at(three, 0), marker(3, 5), at(three, 4))), 0, []int64{0, 1, 2, 4, 5, 6}, 7},
		"an aborted transaction":                          {set(join(txn(0, 5), marker(3, 5), at(three, 4)), abortedTxn{5, 0}), 0, []int64{4, 5, 6}, 7},
		"another producer's transaction":                  {set(join(txn(0, 6), txn(3, 5), marker(6, 5)), abortedTxn{5, 3}), 0, []int64{0, 1, 2}, 7},
		"the same producer's committed transaction after": {set(join(txn(0, 5), marker(3, 5), txn(4, 5)), abortedTxn{5, 0}), 0, []int64{4, 5, 6}, 7},
		"the same producer's committed transaction first": {set(join(txn(0, 5), marker(3, 5), txn(4, 5)), abortedTxn{5, 4}), 0, []int64{0, 1, 2}, 7},
		"a compacted tail": {set(edit(at(three, 0), func(b []byte) { binary.BigEndian.PutUint32(b[atLastOffsetDelta:], 9) })),
			0, []int64{0, 1, 2}, 10},
		"a batch that is compacted away": {set(edit(at(three[:batchHeader], 0), func(b []byte) {
			binary.BigEndian.PutUint32(b[8:], batchHeader-batchLengthEnd)
			binary.BigEndian.PutUint32(b[atCount:], 0)
		})), 0, nil, 3},
		"a last batch that is cut off":  {set(join(at(three, 0), at(three, 3)[:70])), 0, []int64{0, 1, 2}, 3},
		"a last header that is cut off": {set(join(at(three, 0), at(three, 3)[:20])), 0, []int64{0, 1, 2}, 3},
	} {
		t.Run(name, func(t *testing.T) {
			got, next := offsets(t, c.set, c.from)
			if !reflect.DeepEqual(got, c.want) || next != c.next {
				t.Errorf("offsets %v next %d, want %v next %d", got, next, c.want, c.next)
			}
		})
	}
}

func TestTimestamps(t *testing.T) {
	b := mustEncode(t, NoCompression, Message{Timestamp: time.UnixMilli(1000)}, Message{Timestamp: time.UnixMilli(5000)})
	times := func(b []byte) (got []int64) {
		records, _, err := set(b).all(0)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range records {
			if r.Timestamp.IsZero() {
				got = append(got, -1)
			} else {
				got = append(got, r.Timestamp.UnixMilli())
			}
		}
		return got
	}
	appended := edit(b, func(b []byte) { b[atAttributes+1] |= attrLogAppendTime })
	none := edit(b, func(b []byte) { binary.BigEndian.PutUint64(b[atFirstTimestamp:], 1<<64-1) })
	for name, c := range map[string]struct {
		batch []byte
		want  []int64
	}{"of each record": {b, []int64{1000, 5000}}, "of the broker": {appended, []int64{5000, 5000}}, "none": {none, []int64{-1, -1}}} {
		if got := times(c.batch); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

func TestSpoiltBatchesAreNamed(t *testing.T) {
	b := mustEncode(t, NoCompression, someMessages(1, 10)...)
	for name, c := range map[string]struct {
		raw  []byte
		want error
	}{
		"a flipped bit":         {func() []byte { x := bytes.Clone(b); x[100] ^= 1; return x }(), ErrCorrupt},
		"format 1":              {edit(b, func(b []byte) { b[16] = 1 }), ErrOldFormat},
		"format 0, short":       {append(make([]byte, 16), 0, 1, 2, 3), ErrOldFormat},
		"format 3":              {edit(b, func(b []byte) { b[16] = 3 }), ErrCorrupt},
		"too many records":      {edit(b, func(b []byte) { binary.BigEndian.PutUint32(b[atCount:], 1<<30) }), ErrCorrupt},
		"too few records":       {edit(b, func(b []byte) { binary.BigEndian.PutUint32(b[atCount:], 9) }), ErrCorrupt},
		"a negative count":      {edit(b, func(b []byte) { binary.BigEndian.PutUint32(b[atCount:], 1<<31) }), ErrCorrupt},
		"a negative length":     {edit(b, func(b []byte) { binary.BigEndian.PutUint32(b[8:], 1<<31) }), ErrCorrupt},
		"offsets that overflow": {edit(b, func(b []byte) { binary.BigEndian.PutUint64(b, 1<<63-2) }), ErrCorrupt},
		"a last offset too low": {edit(b, func(b []byte) { binary.BigEndian.PutUint32(b[atLastOffsetDelta:], 3) }), ErrCorrupt},
		"unknown compression":   {edit(b, func(b []byte) { b[atAttributes+1] |= 5 }), ErrCorrupt},
		"no zstd":               {edit(b, func(b []byte) { b[atAttributes+1] |= codecZstd }), ErrCorrupt},
		"no lz4":                {edit(b, func(b []byte) { b[atAttributes+1] |= codecLZ4 }), ErrCorrupt},
		"no gzip":               {edit(b, func(b []byte) { b[atAttributes+1] |= codecGzip }), ErrCorrupt},
	} {
		t.Run(name, func(t *testing.T) {
			if _, _, err := set(c.raw).all(0); !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
		})
	}
}

func TestBombsAreRefused(t *testing.T) {
	const limit = 1 << 20
	zeros := make([]byte, 64<<20)
	bomb := func(codec byte, body []byte) []byte {
		raw := append(bytes.Clone(mustEncode(t, NoCompression, Message{})[:batchHeader]), body...)
		binary.BigEndian.PutUint32(raw[8:], uint32(len(raw)-batchLengthEnd))
		return edit(raw, func(b []byte) { b[atAttributes+1] = codec })
	}
	zstd, _, _ := mustCompressor(t, ZstdCompression).compress(nil, zeros)
	lz4, _, _ := mustCompressor(t, LZ4Compression).compress(nil, zeros)
	var gz bytes.Buffer
	w := gzip.NewWriter(&gz)
	w.Write(zeros)
	w.Close()
	block := snappy.Encode(nil, zeros[:limit/2])
	chunks := []byte(xerial + "\x00\x00\x00\x01\x00\x00\x00\x01")
	for range 3 {
		chunks = append(binary.BigEndian.AppendUint32(chunks, uint32(len(block))), block...)
	}
	for name, raw := range map[string][]byte{
		"zstd": bomb(codecZstd, zstd), "lz4": bomb(codecLZ4, lz4), "gzip": bomb(codecGzip, gz.Bytes()),
		"snappy": bomb(codecSnappy, snappy.Encode(nil, zeros)), "snappy xerial": bomb(codecSnappy, chunks),
	} {
		t.Run(name, func(t *testing.T) {
			s := set(raw)
			s.maxBytes = limit
			if _, _, err := s.all(0); !errors.Is(err, ErrOversized) {
				t.Errorf("%v, want %v", err, ErrOversized)
			}
		})
	}
	t.Run("very many empty records come in parts", func(t *testing.T) {
		raw := mustEncode(t, ZstdCompression, make([]Message, 100_000)...)
		s := set(raw)
		chunk, ok, err := s.next(0)
		if err != nil || !ok || len(chunk.Records) != chunkRecords || chunk.Next != chunkRecords {
			t.Errorf("%d records, next %d, %v, %v", len(chunk.Records), chunk.Next, ok, err)
		}
		if _, next, err := s.all(chunk.Next); err != nil || next != 100_000 {
			t.Errorf("next %d, %v", next, err)
		}
	})
}

// A header without text is two bytes in a batch, and headerSize in memory.
func TestManyHeadersComeInParts(t *testing.T) {
	const limit = 1 << 20
	messages := make([]Message, 40)
	for i := range messages {
		messages[i].Headers = make([]handlers.Header, 10_000)
	}
	s := set(mustEncode(t, ZstdCompression, messages...))
	s.maxBytes = limit
	records, parts := 0, 0
	for next := int64(0); next < 40; parts++ {
		chunk, ok, err := s.next(next)
		if err != nil || !ok {
			t.Fatal(ok, err)
		}
		if held := 10_000 * headerSize * len(chunk.Records); held > 2*limit || chunk.Bytes < held {
			t.Errorf("%d records of %d bytes at once, said to be %d", len(chunk.Records), held, chunk.Bytes)
		}
		records, next = records+len(chunk.Records), chunk.Next
	}
	if records != 40 {
		t.Errorf("%d records in %d parts", records, parts)
	}
}

func TestPatchedBatchesAreTransactional(t *testing.T) {
	b := mustEncode(t, ZstdCompression, someMessages(5, 20)...)
	patchBatch(b, nil, 77, 3, 12, true)
	got, _, err := set(b).all(0)
	if err != nil || len(got) != 20 {
		t.Fatalf("%d records, %v", len(got), err)
	}
	var batch kmsg.RecordBatch
	if err := batch.ReadFrom(b); err != nil {
		t.Fatal(err)
	}
	if batch.ProducerID != 77 || batch.ProducerEpoch != 3 || batch.FirstSequence != 12 || batch.Attributes&attrTransactional == 0 {
		t.Errorf("%+v", batch)
	}
}

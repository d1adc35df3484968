package consumer

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"testing"

	"github.com/segmentio/kafka-go/protocol"
	"github.com/twmb/franz-go/pkg/kmsg"

	"learnsink/handlers"
)

// Fuzz with -fuzzminimizetime 1x: coverage varies too much to minimize by.

const fuzzCap = 1 << 20 // on what a batch may decompress to

// FuzzRecordSet holds the decoder against two others: kmsg's, with what a batch
// promises about itself checked here (both read the same, or both refuse), and
// kafka-go's and kgo's where ours reads (they refuse less, or other things).
func FuzzRecordSet(f *testing.F) {
	for _, c := range []Compression{NoCompression, SnappyCompression, LZ4Compression, ZstdCompression} {
		f.Add(at(mustEncode(f, c, someMessages(2, 5)...), 10), int64(0), true)
	}
	two := append(mustEncode(f, NoCompression, someMessages(4, 3)...), at(mustEncode(f, ZstdCompression, someMessages(6, 2)...), 3)...)
	f.Add(two, int64(1), true)
	f.Add(two[:len(two)-5], int64(0), false)
	f.Fuzz(func(t *testing.T, raw []byte, from int64, mend bool) {
		if from < 0 {
			return
		}
		raw = bytes.Clone(raw)
		if mend { // so that the fuzzer gets past the checksum
			eachBatch(raw, func(b []byte) bool { renew(b); return true })
		}
		differ(t, raw, from)
	})
}

// FuzzRecords gets past the header too: body is what stands after one.
func FuzzRecords(f *testing.F) {
	for seed := range uint64(4) {
		body := mustEncode(f, NoCompression, someMessages(seed, 3)...)[batchHeader:]
		f.Add(body, int64(0), uint8(seed), uint16(0), uint32(2), uint32(3))
	}
	codec := mustCompressor(f, ZstdCompression)
	f.Fuzz(func(t *testing.T, body []byte, base int64, compression uint8, attributes uint16, lastDelta, count uint32) {
		var number int
		var err error
		b := make([]byte, batchHeader)
		switch compression % 4 {
		case codecGzip, codecSnappy:
			b, number = append(b, compressed(t, int(compression%4), body)...), int(compression%4)
		case codecLZ4:
			b, number, err = codec.compress(b, body)
		default:
			b = append(b, body...)
		}
		if err != nil {
			t.Fatal(err)
		}
		put := binary.BigEndian
		put.PutUint64(b, uint64(base))
		put.PutUint32(b[8:], uint32(len(b)-batchLengthEnd))
		b[16] = 2
		put.PutUint16(b[atAttributes:], attributes&^attrCompression|uint16(number))
		put.PutUint32(b[atLastOffsetDelta:], lastDelta)
		put.PutUint32(b[atCount:], count)
		renew(b)
		differ(t, b, 0)
	})
}

// renew makes a batch's checksum right.
func renew(b []byte) {
	binary.BigEndian.PutUint32(b[atCRC:], crc32.Checksum(b[atAttributes:], castagnoli()))
}

// eachBatch hands out the whole batches of a record set while f wants them; it
// returns what is left.
func eachBatch(raw []byte, f func(b []byte) bool) []byte {
	for len(raw) >= batchHeader {
		n := int(int32(binary.BigEndian.Uint32(raw[8:])))
		if n < batchHeader-batchLengthEnd || n > len(raw)-batchLengthEnd || !f(raw[:batchLengthEnd+n]) {
			break
		}
		raw = raw[batchLengthEnd+n:]
	}
	return raw
}

// differ decodes a record set by ours and by the others.
func differ(t *testing.T, raw []byte, from int64) {
	s := set(raw)
	s.maxBytes = fuzzCap
	var ours []handlers.Record
	var err error
	next, last := from, from-1
	for {
		var chunk Chunk
		var ok bool
		if chunk, ok, err = s.next(next); err != nil || !ok {
			break
		}
		if chunk.Next < next || chunk.From != next {
			t.Fatalf("reading goes from %d to %d", next, chunk.Next)
		}
		if chunk.Bytes > 3*fuzzCap || len(chunk.Records) > chunkRecords {
			t.Fatalf("%d bytes, %d records at once", chunk.Bytes, len(chunk.Records))
		}
		for _, r := range chunk.Records {
			if r.Offset <= last || r.Offset >= chunk.Next {
				t.Fatalf("offset %d after %d, next is %d", r.Offset, last, chunk.Next)
			}
			last = r.Offset
		}
		ours, next = append(ours, chunk.Records...), chunk.Next
	}
	if errors.Is(err, ErrOversized) {
		return // the others know no cap
	}

	theirs, theirNext, lax, theirErr := reference(raw, from)
	if lax && err != nil {
		return
	}
	if (err == nil) != (theirErr == nil) {
		t.Fatalf("ours: %v, kmsg: %v", err, theirErr)
	}
	// Also what comes before an error is the same; ours hands it out in parts.
	if len(ours) < len(theirs) || err == nil && (len(ours) != len(theirs) || next != theirNext) {
		t.Fatalf("%d records, next %d; kmsg has %d, next %d", len(ours), next, len(theirs), theirNext)
	}
	same(t, theirs, ours[:len(theirs)])
	if err != nil {
		return
	}

	segment, err := viaKafkaGo(raw, from)
	if err != nil {
		t.Fatal("kafka-go: ", err)
	}
	alike(t, "kafka-go", segment, ours)
	if kgo, err := franz(raw, from); err == nil && len(kgo) == len(ours) { // it leaves out what it finds strange
		alike(t, "kgo", kgo, ours)
	}
	flip(t, raw)
}

// flip damages every batch a little, and expects to hear of it.
func flip(t *testing.T, raw []byte) {
	eachBatch(raw, func(b []byte) bool {
		b = bytes.Clone(b)
		// A place that depends on the input, so that over many inputs it is every place.
		sum := crc32.ChecksumIEEE(b)
		b[atCRC+int(sum>>3)%(len(b)-atCRC)] ^= 1 << (sum & 7)
		if _, _, err := set(b).next(0); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("a flipped bit: %v", err)
		}
		return true
	})
}

// reference is what a record set holds by kmsg's decoders: the records before
// the first batch that breaks a promise, where reading goes on, and the promise.
// lax: some record is not as kmsg would write it, such as one of -1 headers,
// which kmsg takes for none; Java and ours refuse that.
func reference(raw []byte, from int64) (records []handlers.Record, next int64, lax bool, err error) {
	next = from
	undo := &decompressor{} // held against another one by FuzzDecompress
	rest := eachBatch(raw, func(raw []byte) bool {
		var b kmsg.RecordBatch
		if err = b.ReadFrom(raw); err != nil {
			return false
		}
		end := b.FirstOffset + int64(b.LastOffsetDelta)
		switch {
		case b.Magic != 2:
			err = fmt.Errorf("magic %d", b.Magic)
		case b.CRC != int32(crc32.Checksum(raw[atAttributes:], castagnoli())):
			err = errors.New("CRC")
		case b.FirstOffset < 0 || b.LastOffsetDelta < 0 || end < 0 || end+1 < 0:
			err = errors.New("offsets")
		case b.Attributes&attrControl != 0 || end < next:
			next = max(next, end+1)
			return true
		}
		if err != nil {
			return false
		}
		var body []byte
		if body, err = undo.decompress(int(b.Attributes&attrCompression), b.Records, fuzzCap); err != nil {
			return false
		}
		var of []handlers.Record
		var odd bool
		of, odd, err = recordsOf(&b, body)
		if lax = lax || odd; err != nil {
			return false
		}
		for _, r := range of {
			if r.Offset >= next {
				records = append(records, r)
			}
		}
		next = max(next, end+1)
		return true
	})
	switch {
	case err != nil:
	case len(rest) > 16 && rest[16] < 2:
		err = ErrOldFormat
	case len(rest) >= batchHeader && (rest[16] > 2 || int32(binary.BigEndian.Uint32(rest[8:])) < batchHeader-batchLengthEnd):
		err = errors.New("header")
	}
	return records, next, lax, err
}

func recordsOf(b *kmsg.RecordBatch, body []byte) (records []handlers.Record, lax bool, err error) {
	previous := int32(-1)
	for range b.NumRecords {
		length, n := binary.Varint(body)
		if n <= 0 || n > binary.MaxVarintLen32 || length < 0 || length > int64(len(body)-n) {
			return nil, lax, errors.New("length of a record")
		}
		var r kmsg.Record
		if err := r.ReadFrom(body[:n+int(length)]); err != nil {
			return nil, lax, err
		}
		lax = lax || !bytes.Equal(body[:n+int(length)], r.AppendTo(nil))
		body = body[n+int(length):]
		if r.OffsetDelta <= previous || r.OffsetDelta > b.LastOffsetDelta {
			return nil, lax, errors.New("offset of a record")
		}
		previous = r.OffsetDelta
		record := handlers.Record{Topic: "t", Partition: 3, Offset: b.FirstOffset + int64(r.OffsetDelta), Key: r.Key, Value: r.Value}
		switch {
		case b.Attributes&attrLogAppendTime != 0 && b.MaxTimestamp >= 0:
			record.Timestamp = timestamp(b.MaxTimestamp)
		case b.FirstTimestamp >= 0:
			record.Timestamp = timestamp(b.FirstTimestamp + r.TimestampDelta64)
		}
		for _, h := range r.Headers {
			record.Headers = append(record.Headers, handlers.Header{Key: h.Key, Value: h.Value})
		}
		records = append(records, record)
	}
	if len(body) > 0 || b.NumRecords < 0 {
		return nil, lax, errors.New("count of records")
	}
	return records, lax, nil
}

// viaKafkaGo decodes with kafka-go, a batch at a time: of several it names no
// error after the first.
func viaKafkaGo(raw []byte, from int64) (records []handlers.Record, err error) {
	eachBatch(raw, func(b []byte) bool {
		end := int64(binary.BigEndian.Uint64(b)) + int64(binary.BigEndian.Uint32(b[atLastOffsetDelta:]))
		defer func() { from = max(from, end+1) }()
		if binary.BigEndian.Uint16(b[atAttributes:])&attrControl != 0 || end < from {
			return true // not looked into
		}
		var rs protocol.RecordSet
		if _, err = rs.ReadFrom(bytes.NewReader(append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...))); err != nil {
			return false
		}
		for {
			var r *protocol.Record
			switch r, err = rs.Records.ReadRecord(); {
			case errors.Is(err, io.EOF):
				err = nil
				return true
			case err != nil:
				return false
			}
			record := handlers.Record{Offset: r.Offset}
			record.Key, _ = protocol.ReadAll(r.Key)
			record.Value, _ = protocol.ReadAll(r.Value)
			for _, h := range r.Headers {
				record.Headers = append(record.Headers, handlers.Header{Key: h.Key, Value: h.Value})
			}
			if record.Offset >= from {
				records = append(records, record)
			}
		}
	})
	return records, err
}

// alike compares what every client has a word for: not null against empty, nor times.
func alike(t *testing.T, whose string, theirs, ours []handlers.Record) {
	t.Helper()
	if len(theirs) != len(ours) {
		t.Fatalf("%d records, %s has %d", len(ours), whose, len(theirs))
	}
	for i := range ours {
		a, b := &ours[i], &theirs[i]
		if a.Offset != b.Offset || !bytes.Equal(a.Key, b.Key) || !bytes.Equal(a.Value, b.Value) ||
			!slices.EqualFunc(a.Headers, b.Headers, func(a, b handlers.Header) bool { return a.Key == b.Key && bytes.Equal(a.Value, b.Value) }) {
			t.Fatalf("record %d: %v, %s has %v", i, *a, whose, *b)
		}
	}
}

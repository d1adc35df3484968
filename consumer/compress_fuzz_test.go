package consumer

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/snappy"
	"github.com/pierrec/lz4/v4"
	"github.com/twmb/franz-go/pkg/kgo"
)

// codecXerial is snappy in snappy-java's chunks: no codec of Kafka's, it has
// the number of snappy.
const codecXerial = 5

// compressed compresses as other clients do.
func compressed(t testing.TB, codec int, body []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	switch codec {
	case codecGzip:
		w := gzip.NewWriter(&out)
		w.Write(body)
		w.Close()
	case codecSnappy:
		return snappy.Encode(nil, body)
	case codecXerial:
		out.WriteString(xerial + "\x00\x00\x00\x01\x00\x00\x00\x01")
		for len(body) > 0 {
			n := min(len(body), 1000)
			block := snappy.Encode(nil, body[:n])
			out.Write(binary.BigEndian.AppendUint32(nil, uint32(len(block))))
			out.Write(block)
			body = body[n:]
		}
	case codecLZ4:
		w := lz4.NewWriter(&out)
		w.Write(body)
		w.Close()
	case codecZstd:
		return mustCompressor(t, ZstdCompression).zstd.EncodeAll(body, nil)
	default:
		return body
	}
	return out.Bytes()
}

// FuzzDecompress feeds each codec data that is not, or hardly, what it expects:
// it never gives more than the cap, says the same with and without a past, and
// reads what kgo reads. And what was compressed comes out as it was, if it may.
func FuzzDecompress(f *testing.F) {
	for codec := range codecXerial + 1 {
		f.Add([]byte("learning record, learning record, learning record"), uint8(codec), uint16(1000), false)
		f.Add(compressed(f, codec, bytes.Repeat([]byte("learning record "), 40)), uint8(codec), uint16(1000), true)
	}
	used, theirs := &decompressor{}, kgo.DefaultDecompressor()
	f.Fuzz(func(t *testing.T, data []byte, which uint8, limit uint16, raw bool) {
		codec := int(which % (codecXerial + 1))
		number := codec
		if codec == codecXerial {
			number = codecSnappy
		}
		if raw {
			// The wire is held to a cap elsewhere.
			if codec == codecNone {
				return
			}
			out, err := used.decompress(number, data, int(limit))
			again, againErr := (&decompressor{}).decompress(number, data, int(limit))
			if !bytes.Equal(out, again) || (err == nil) != (againErr == nil) || errors.Is(err, ErrOversized) != errors.Is(againErr, ErrOversized) {
				t.Fatalf("%d bytes, %v; without a past %d bytes, %v", len(out), err, len(again), againErr)
			}
			if err != nil {
				if !errors.Is(err, ErrOversized) && !errors.Is(err, ErrCorrupt) {
					t.Fatalf("an error without a name: %v", err)
				}
				return
			}
			if len(out) > int(limit) {
				t.Fatalf("%d bytes, the cap is %d", len(out), limit)
			}
			if other, err := theirs.Decompress(data, kgo.CompressionCodecType(number)); err == nil && !bytes.Equal(out, other) {
				t.Fatalf("%q, kgo has %q", out, other)
			}
			return
		}
		packed := compressed(t, codec, data)
		out, err := used.decompress(number, packed, len(data))
		if err != nil || !bytes.Equal(out, data) {
			t.Fatalf("%q, %v, want %q", out, err, data)
		}
		if codec != codecNone && len(data) > 0 {
			if _, err := used.decompress(number, packed, len(data)-1); !errors.Is(err, ErrOversized) {
				t.Fatalf("a byte more than the cap: %v", err)
			}
		}
	})
}

// TestLZ4Frames holds that frames as their clients write them are taken apart
// here, and not left to the library, and that their checksums count.
func TestLZ4Frames(t *testing.T) {
	for _, n := range []int{1, 3, 4, 15, 16, 17, 1000, 100_000, 5 << 20} {
		body := bytes.Repeat([]byte("learning record, "), n/17+1)[:n]
		for _, sums := range []bool{true, false} {
			var frame bytes.Buffer
			w := lz4.NewWriter(&frame)
			if err := w.Apply(lz4.ChecksumOption(sums)); err != nil {
				t.Fatal(err)
			}
			w.Write(body)
			w.Close()
			if out, ok := decompressLZ4(frame.Bytes(), n); !ok || !bytes.Equal(out, body) {
				t.Errorf("%d bytes, checksum %t: taken apart %t", n, sums, ok)
			}
			spoilt := bytes.Clone(frame.Bytes())
			if spoilt[len(spoilt)-1] ^= 1; !sums {
				spoilt[6] ^= 1 // the header's
			}
			if _, ok := decompressLZ4(spoilt, n); ok {
				t.Errorf("%d bytes, checksum %t: a wrong one is let pass", n, sums)
			}
		}
	}
}

package consumer

import (
	"bytes"
	"encoding/binary"
	"reflect"
	"testing"
)

// FuzzPayload: what is no payload is an error, what is one can be packed
// again, and comes out the same.
func FuzzPayload(f *testing.F) {
	for i, c := range []Compression{NoCompression, SnappyCompression, LZ4Compression, ZstdCompression} {
		outputs := someOutputs(uint64(i), 3)
		payload, err := packerFor(f, c, i, 2000).repack(outputs)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(payload)
		f.Add(encodeOutputs(f, outputs, mustCompressor(f, c)))
	}
	f.Add([]byte{})
	f.Add([]byte{payloadOfOutputs})
	f.Add([]byte{payloadOfBatches})
	f.Add([]byte{payloadOfBatches, 0, 0, 0, 0, 3, 1, 't', 1, 0, 0}) // a parcel without forms
	plain, undo := packerFor(f, NoCompression, 2, 2000), &decompressor{}
	f.Fuzz(func(t *testing.T, raw []byte) {
		raw = bytes.Clone(raw)
		switch {
		case len(raw) > 1 && raw[0] == payloadOfOutputs && raw[1] != codecNone: // bombs are FuzzDecompress's
			body, err := undo.decompress(int(raw[1]), raw[2:], fuzzCap)
			if err != nil {
				return
			}
			raw = append([]byte{payloadOfOutputs, codecNone}, body...)
		case len(raw) > 0 && raw[0] == payloadOfBatches:
			mendPayload(raw)
		}
		p, err := readPayload(raw, undo)
		if err != nil {
			if p.outputs != nil || p.parcels != nil {
				t.Fatalf("%v beside %v", p, err)
			}
			return
		}
		records := len(p.outputs)
		for i := range p.parcels {
			records += p.parcels[i].records()
		}
		outputs, err := p.open(undo, fuzzCap)
		if err != nil {
			return
		}
		if len(outputs) != records {
			t.Fatalf("%d outputs of %d", len(outputs), records)
		}
		last := int64(-1)
		for i := range outputs {
			at, err := outputs[i].place()
			if err != nil || at.job != 0 || at.offset <= last || outputs[i].sourcePartition != outputs[0].sourcePartition {
				return // none of ours
			}
			last = at.offset
		}
		again, err := plain.repack(outputs)
		if err != nil {
			t.Fatal(err)
		}
		back, err := decodePayload(again, undo)
		if err != nil || len(outputs) > 0 && !reflect.DeepEqual(outputs, back) {
			t.Fatalf("%v comes back as %v, %v", outputs, back, err)
		}
	})
}

// mendPayload makes the checksums right of what looks like the batches of a
// payload, so that the fuzzer gets past them.
func mendPayload(raw []byte) {
	for at := 0; at+batchHeader <= len(raw); at++ {
		b := raw[at:]
		n := batchLengthEnd + int(int32(binary.BigEndian.Uint32(b[8:])))
		if b[16] == 2 && n >= batchHeader && n <= len(b) {
			renew(b[:n])
			at += n - 1
		}
	}
}

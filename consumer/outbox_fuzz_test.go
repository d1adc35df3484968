package consumer

import (
	"bytes"
	"fmt"
	"reflect"
	"testing"
	"time"
)

// FuzzPayload: what is no payload is an error, what is one can be written
// again, and comes out the same.
func FuzzPayload(f *testing.F) {
	for i, c := range []Compression{NoCompression, LZ4Compression, ZstdCompression} {
		var outputs []output
		for j, m := range someMessages(uint64(i), 3) {
			m.Timestamp = time.Time{}
			outputs = append(outputs, output{topic: fmt.Sprint("out", j%2), sourcePartition: j, forms: []Message{m, {Key: m.Key}}[:1+j%2]})
		}
		payload, err := encodePayload(outputs, mustCompressor(f, c))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(payload)
	}
	f.Add([]byte{})
	f.Add([]byte{payloadVersion})
	plain, undo := mustCompressor(f, NoCompression), &decompressor{}
	f.Fuzz(func(t *testing.T, payload []byte) {
		if len(payload) > 1 && payload[1] != codecNone { // bombs are FuzzDecompress's
			body, err := undo.decompress(int(payload[1]), payload[2:], fuzzCap)
			if err != nil {
				return
			}
			payload = append([]byte{payload[0], codecNone}, body...)
		}
		outputs, err := decodePayload(bytes.Clone(payload), undo)
		if err != nil {
			if outputs != nil {
				t.Fatalf("%d outputs beside %v", len(outputs), err)
			}
			return
		}
		again, err := encodePayload(outputs, plain)
		if err != nil {
			t.Fatal(err)
		}
		back, err := decodePayload(again, undo)
		if err != nil || len(outputs) > 0 && !reflect.DeepEqual(outputs, back) {
			t.Fatalf("%v comes back as %v, %v", outputs, back, err)
		}
	})
}

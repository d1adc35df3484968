package consumer

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"learnsink/handlers"
)

// encodeOutputs writes a payload of version 1, as it was written before there
// was another.
func encodeOutputs(t testing.TB, outputs []output, codec *compressor) []byte {
	var topics []string
	for i := range outputs {
		if !slices.Contains(topics, outputs[i].topic) {
			topics = append(topics, outputs[i].topic)
		}
	}
	optional := func(b, v []byte) []byte {
		if v == nil {
			return append(b, 0)
		}
		return append(binary.AppendUvarint(b, uint64(len(v))+1), v...)
	}
	body := binary.AppendUvarint(nil, uint64(len(topics)))
	for _, topic := range topics {
		body = appendText(body, topic)
	}
	body = binary.AppendUvarint(body, uint64(len(outputs)))
	for _, o := range outputs {
		body = binary.AppendUvarint(body, uint64(slices.Index(topics, o.topic)))
		body = binary.AppendUvarint(body, uint64(o.sourcePartition))
		body = binary.AppendUvarint(body, uint64(len(o.forms)))
		for _, m := range o.forms {
			body = optional(body, m.Key)
			body = optional(body, m.Value)
			body = binary.AppendUvarint(body, uint64(len(m.Headers)))
			for _, h := range m.Headers {
				body = appendText(body, h.Key)
				body = optional(body, h.Value)
			}
		}
	}
	payload, used, err := codec.compress([]byte{payloadOfOutputs, 0}, body)
	if err != nil {
		t.Fatal(err)
	}
	payload[1] = byte(used)
	return payload
}

// someOutputs are for two topics, some with smaller forms, of the offsets from
// 0 on of one source partition.
func someOutputs(seed uint64, n int) (outputs []output) {
	for i, m := range someMessages(seed, n) {
		m.Timestamp = time.Time{}
		m.Headers = append(m.Headers, handlers.Header{Key: "ce_id", Value: fmt.Appendf(nil, "some-rows-3-%d", i)})
		forms := []Message{m, {Key: m.Key}, {}}
		if i%5 > 0 {
			forms = forms[:1]
		}
		outputs = append(outputs, output{topic: fmt.Sprint("out", i%2), sourcePartition: 3, forms: forms})
	}
	return outputs
}

// packerFor packs for topics of so many partitions.
func packerFor(t testing.TB, c Compression, partitions, limit int) *packer {
	topics := map[string]outputTopic{}
	for _, name := range []string{"out0", "out1"} {
		topics[name] = outputTopic{partitions: partitions, choose: partitioner(max(partitions, 1)), limit: limit}
	}
	return &packer{codec: mustCompressor(t, c), topics: &outputTopics{known: topics}}
}

func TestPayloadsHoldWhatWasPacked(t *testing.T) {
	for _, c := range []Compression{NoCompression, SnappyCompression, LZ4Compression, ZstdCompression} {
		for _, partitions := range []int{0, 1, 5} {
			t.Run(fmt.Sprint(c, " for ", partitions), func(t *testing.T) {
				want := someOutputs(9, 200)
				p := packerFor(t, c, partitions, 2000)
				payload, err := p.repack(want)
				if err != nil {
					t.Fatal(err)
				}
				again, err := p.repack(want)
				if err != nil || !bytes.Equal(payload, again) {
					t.Errorf("the same outputs make another payload (%v)", err)
				}
				got, err := decodePayload(payload, &decompressor{})
				if err != nil {
					t.Fatal(err)
				}
				if !reflect.DeepEqual(want, got) {
					t.Errorf("another payload: %d outputs\n%v\n%v", len(got), want, got)
				}
				undo := &decompressor{}
				for n := 1; n < len(payload); n += 1 + len(payload)/997 {
					if _, err := decodePayload(payload[:n], undo); err == nil {
						t.Fatalf("cut at %d of %d: no error", n, len(payload))
					}
				}
				read, err := readPayload(payload, undo)
				if err != nil {
					t.Fatal(err)
				}
				for i := range read.parcels {
					if p := &read.parcels[i]; len(p.forms) == 1 && p.records() > 1 && len(p.forms[0]) > 2000 {
						t.Errorf("a batch of %d bytes", len(p.forms[0]))
					}
				}
			})
		}
	}
	for _, payload := range [][]byte{{9, 0}, {0}} {
		if _, err := decodePayload(payload, &decompressor{}); err == nil || !strings.Contains(err.Error(), fmt.Sprint("version ", payload[0])) {
			t.Error(err)
		}
	}
	if payload, err := packerFor(t, "", 1, 2000).repack(nil); payload != nil || err != nil {
		t.Error(payload, err)
	}
	if payload, err := packerFor(t, "", 1, 2000).begin(7).end(); payload != nil || err != nil {
		t.Error(payload, err)
	}
}

// TestPayloadsOfVersion1 can be read, and cut: an outbox may hold some when a
// newer program takes over.
func TestPayloadsOfVersion1(t *testing.T) {
	for _, c := range []Compression{NoCompression, SnappyCompression, LZ4Compression, ZstdCompression} {
		want := someOutputs(10, 100)
		payload := encodeOutputs(t, want, mustCompressor(t, c))
		got, err := decodePayload(payload, &decompressor{})
		if err != nil || !reflect.DeepEqual(want, got) {
			t.Errorf("another payload, %v", err)
		}
		undo := &decompressor{}
		for n := 1; n < len(payload); n += 1 + len(payload)/97 {
			if _, err := decodePayload(payload[:n], undo); err == nil {
				t.Fatalf("cut at %d of %d: no error", n, len(payload))
			}
		}
		rest, err := packerFor(t, c, 4, 2000).cut(payload, 60)
		if err != nil {
			t.Fatal(err)
		}
		if got, err = decodePayload(rest, undo); err != nil || !reflect.DeepEqual(want[60:], got) {
			t.Errorf("%d of 40 outputs are left, %v", len(got), err)
		}
	}
}

// TestASpoiltPayloadIsAnError wherever a byte of it is another one, if it is
// not one of a topic's name or of a number that any may be.
func TestASpoiltPayloadIsAnError(t *testing.T) {
	payload, err := packerFor(t, ZstdCompression, 2, 2000).repack(someOutputs(11, 20))
	if err != nil {
		t.Fatal(err)
	}
	undo, passed := &decompressor{}, 0
	for i := range payload {
		spoilt := bytes.Clone(payload)
		spoilt[i] ^= 0x10
		if outputs, err := decodePayload(spoilt, undo); err == nil {
			if passed++; len(outputs) != 20 {
				t.Errorf("byte %d: %d outputs", i, len(outputs))
			}
		}
	}
	// Source partition; of a parcel its topic, partitions and partition; of a
	// batch what the checksum does not cover: base offset and leader epoch.
	p, err := readPayload(payload, undo)
	if err != nil {
		t.Fatal(err)
	}
	most := 1
	for i := range p.parcels {
		most += len("out0") + 2 + 12*len(p.parcels[i].forms)
	}
	if passed > most {
		t.Errorf("%d of %d bytes may be anything; at most %d should be", passed, len(payload), most)
	}
}

// TestAPackingTakesWhatItNeedsOfAnOutput and keeps nothing of it: its memory
// may hold the next one as soon as add returns.
func TestAPackingTakesWhatItNeedsOfAnOutput(t *testing.T) {
	p := packerFor(t, ZstdCompression, 3, 4000)
	b := p.begin(0)
	value := make([]byte, 5000)
	for i := range 100 {
		for j := range value {
			value[j] = byte('a' + i%26)
		}
		o := handlers.Output{Topic: "out0", Key: value[:3], Value: value[:10+i*40],
			Headers: []handlers.Header{{Key: "ce_id", Value: fmt.Appendf(nil, "rows-0-%d", i)}}}
		b.add(o)
	}
	payload, err := b.end()
	if err != nil {
		t.Fatal(err)
	}
	outputs, err := decodePayload(payload, &decompressor{})
	if err != nil || len(outputs) != 100 {
		t.Fatalf("%d outputs, %v", len(outputs), err)
	}
	for i, o := range outputs {
		c := byte('a' + i%26)
		if m := o.forms[0]; len(m.Value) != 10+i*40 || !bytes.Equal(m.Value, bytes.Repeat([]byte{c}, len(m.Value))) || !bytes.Equal(m.Key, []byte{c, c, c}) {
			t.Errorf("output %d: key %q, %d bytes", i, m.Key, len(m.Value))
		}
		if small := o.forms[0].size() <= 1000; small != (len(o.forms) == 1) {
			t.Errorf("output %d of %d bytes has %d forms", i, o.forms[0].size(), len(o.forms))
		}
	}
}

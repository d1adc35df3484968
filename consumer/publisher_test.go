package consumer

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"learnsink/handlers"
)

// keyed is an entry of accepted events, with keys that differ.
func (p *press) keyed(from, to int64, pack func([]output) ([]byte, error)) handlers.OutboxEntry {
	p.t.Helper()
	p.world.mu.Lock()
	defer p.world.mu.Unlock()
	var outputs []output
	truth := p.world.truths[p.tp]
	truth.peak = max(truth.peak, to)
	for o := from; o < to; o++ {
		truth.at(o).applied, truth.at(o).verdict = true, handlers.Accepted
		outputs = append(outputs, output{topic: simAccepted, forms: []Message{{
			Key: keyOf(o), Value: []byte(strings.Repeat("v", 100)),
			Headers: []handlers.Header{{Key: "ce_id", Value: fmt.Appendf(nil, "%s-0-%d", simSource, o)}},
		}}})
	}
	payload, err := pack(outputs)
	if err != nil {
		p.t.Fatal(err)
	}
	return handlers.OutboxEntry{From: from, To: to, Payload: payload, At: time.Now()}
}

func keyOf(offset int64) []byte { return fmt.Appendf(nil, "k%d", offset%17) }

func (p *press) version1(outputs []output) ([]byte, error) {
	return encodeOutputs(p.t, outputs, simCodec()), nil
}

// batches returns what is in the output partitions of accepted events, markers
// left out.
func (p *press) batches() map[int][][]byte {
	p.world.mu.Lock()
	defer p.world.mu.Unlock()
	found := map[int][][]byte{}
	for l, log := range p.world.brokers.logs {
		for _, b := range log.batches {
			if l.topic == simAccepted && binary.BigEndian.Uint16(b.raw[atAttributes:])&attrControl == 0 {
				found[l.partition] = append(found[l.partition], b.raw)
			}
		}
	}
	return found
}

// check holds the outputs of the offsets from from on against where they
// should be: in the partitions of their keys among so many, in order.
func (p *press) check(from, to int64, partitions int) {
	p.t.Helper()
	time.Sleep(time.Minute) // until every marker is written
	choose := partitioner(partitions)
	want := make([][]int64, partitions)
	for o := from; o < to; o++ {
		n := choose(keyOf(o))
		want[n] = append(want[n], o)
	}
	p.world.mu.Lock()
	defer p.world.mu.Unlock()
	for n := range partitions {
		var got []int64
		err := newSimReader(p.world.brokers.logs[lane{simAccepted, n}]).read(func(r *handlers.Record) {
			id, err := publicationOf(lane{}, r)
			if err != nil {
				p.t.Error(err)
			}
			if id.offset >= from {
				got = append(got, id.offset)
			}
		})
		if err != nil || !slices.Equal(got, want[n]) {
			p.t.Errorf("partition %d of %d holds %v, not %v (%v)", n, partitions, got, want[n], err)
		}
	}
}

// TestBatchesAreStoredAsTheyWerePacked: publication changes nothing of them
// but whose and of when they are.
func TestBatchesAreStoredAsTheyWerePacked(t *testing.T) {
	for _, publish := range []Publish{Transactional, AtLeastOnce} {
		t.Run(string(publish), func(t *testing.T) {
			still(t, func(t *testing.T, w *simWorld) {
				p := newPress(t, w, "p")
				publisher := Publisher(p)
				if publish == AtLeastOnce {
					publisher = &plainPublisher{outlet{cluster: p.client, codec: p.packer.codec, topics: p.packer.topics}}
				}
				send := func(e handlers.OutboxEntry) {
					if err := publisher.Publish(t.Context(), []handlers.OutboxEntry{e}); err != nil {
						t.Fatal(err)
					}
				}
				p.begin()
				send(p.keyed(0, 10, p.packer.repack)) // from here on the topic is known
				time.Sleep(time.Hour)
				entry := p.keyed(10, 400, p.packer.repack)
				packed, err := readPayload(bytes.Clone(entry.Payload), nil)
				if err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Hour)
				kept := bytes.Clone(entry.Payload)
				send(entry)
				if !bytes.Equal(kept, entry.Payload) {
					t.Error("the entry is another one afterwards")
				}
				stored := p.batches()
				for _, parcel := range packed.parcels {
					batches := stored[parcel.partition]
					last := batches[len(batches)-1]
					if sent := parcel.forms[0]; !bytes.Equal(sent[batchHeader:], last[batchHeader:]) {
						t.Errorf("partition %d: another batch", parcel.partition)
					}
					if at := time.UnixMilli(int64(binary.BigEndian.Uint64(last[atMaxTimestamp:]))); time.Since(at) > time.Minute {
						t.Errorf("partition %d: of %s, sent at %s", parcel.partition, at, time.Now())
					}
					set := recordSet{maxBytes: 1 << 20, codecs: &decompressor{}}
					set.fill(last, nil)
					chunk, ok, err := set.next(0)
					if !ok || err != nil {
						t.Fatal(err)
					}
					for _, r := range chunk.Records {
						if time.Since(r.Timestamp) > time.Minute {
							t.Fatalf("a record of %s, sent at %s", r.Timestamp, time.Now())
						}
					}
				}
				p.check(0, 400, 2)
			})
		})
	}
}

// TestATopicThatHasGrown since its outputs were packed gets them where their
// keys belong now, in the order of their offsets.
func TestATopicThatHasGrown(t *testing.T) {
	still(t, func(t *testing.T, w *simWorld) {
		p := newPress(t, w, "p")
		p.begin()
		p.publish(p.keyed(0, 100, p.packer.repack))
		p.check(0, 100, 2)
		entries := []handlers.OutboxEntry{p.keyed(100, 200, p.packer.repack), p.keyed(200, 300, p.packer.repack)}
		w.do("", func() {
			for range 3 {
				w.growTopic(simAccepted)
			}
		})
		p.publish(entries...)
		p.check(100, 300, 5)
		p.publish(p.keyed(300, 400, p.packer.repack))
		p.check(100, 400, 5)
	})
}

// TestALimitThatCameDown after outputs were packed, for good or between two
// questions for it.
func TestALimitThatCameDown(t *testing.T) {
	for name, later := range map[string]time.Duration{"just now": 0, "long ago": time.Hour} {
		t.Run(name, func(t *testing.T) {
			still(t, func(t *testing.T, w *simWorld) {
				p := newPress(t, w, "p")
				p.begin()
				p.publish(p.keyed(0, 10, p.packer.repack))
				entries := []handlers.OutboxEntry{p.keyed(10, 500, p.packer.repack), p.keyed(500, 1000, p.packer.repack)}
				w.do("", func() { w.brokers.limit = 1000 })
				time.Sleep(later)
				p.publish(entries...)
				p.check(0, 1000, 2)
				if refused := w.counts["kafka: a batch too large"] > 0; refused != (later == 0) {
					t.Errorf("the broker refused a batch: %v", refused)
				}
				for n, batches := range p.batches() {
					for _, b := range batches[1:] {
						if len(b) > 1000 {
							t.Errorf("partition %d: a batch of %d bytes", n, len(b))
						}
					}
				}
			})
		})
	}
}

// TestEntriesOfVersion1 that an older program has left are published, among
// newer ones.
func TestEntriesOfVersion1(t *testing.T) {
	still(t, func(t *testing.T, w *simWorld) {
		p := newPress(t, w, "p")
		p.begin()
		p.publish(p.keyed(0, 100, p.version1))
		p.publish(p.keyed(100, 200, p.packer.repack), p.keyed(200, 300, p.version1), p.keyed(300, 400, p.packer.repack))
		p.check(0, 400, 2)
	})
}

// TestSmallParcelsThatWaitAreOneBatch: a request for each would take longer.
func TestSmallParcelsThatWaitAreOneBatch(t *testing.T) {
	still(t, func(t *testing.T, w *simWorld) {
		p := newPress(t, w, "p")
		p.begin()
		p.publish(p.keyed(0, 10, p.packer.repack))
		var entries []handlers.OutboxEntry
		for o := int64(10); o < 100; o += 3 {
			entries = append(entries, p.keyed(o, o+3, p.packer.repack))
		}
		p.publish(entries...)
		p.check(0, 100, 2)
		for n, batches := range p.batches() {
			if len(batches) != 2 {
				t.Errorf("partition %d: %d batches", n, len(batches))
			}
		}
	})
}

// TestSpoiltEntriesAreNotPublished, none of them.
func TestSpoiltEntriesAreNotPublished(t *testing.T) {
	still(t, func(t *testing.T, w *simWorld) {
		p := newPress(t, w, "p")
		p.begin()
		p.publish(p.keyed(0, 10, p.packer.repack))
		whole, spoilt := p.keyed(10, 20, p.packer.repack), p.keyed(20, 600, p.packer.repack) // too much to be packed anew
		spoilt.Payload[len(spoilt.Payload)-1] ^= 1
		if err := p.Publish(t.Context(), []handlers.OutboxEntry{whole, spoilt}); err == nil || !strings.Contains(err.Error(), "offsets 20 to 599") {
			t.Errorf("%v", err)
		}
		p.begin()
		p.check(0, 10, 2)
	})
}

// TestRoomInABatchIsKnownBeforehand: what add takes fits, to the byte, though
// nothing compress; and nothing more would have.
func TestRoomInABatchIsKnownBeforehand(t *testing.T) {
	messages := someMessages(12, 300)
	for i := range messages {
		messages[i].Timestamp = time.Time{}
	}
	for limit := 100; limit < 3000; limit += 37 {
		for n := 0; n < len(messages); {
			batch, taken, err := packBatch(pointers(messages[n:]), simCodec(), limit, time.Now())
			if err != nil {
				t.Fatal(err)
			}
			if taken == 0 {
				batch, _, err = packBatch(pointers(messages[n:n+1]), simCodec(), math.MaxInt, time.Now())
				if err != nil || len(batch) <= limit {
					t.Fatalf("%d bytes would have fitted in %d, %v", len(batch), limit, err)
				}
				n++
				continue
			}
			if n+taken < len(messages) {
				more, _, err := packBatch(pointers(messages[n:n+taken+1]), simCodec(), math.MaxInt, time.Now())
				if err != nil || len(batch) > limit || len(more) <= limit {
					t.Fatalf("%d bytes, and %d with one more; the limit is %d (%v)", len(batch), len(more), limit, err)
				}
			}
			n += taken
		}
	}
}

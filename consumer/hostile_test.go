package consumer

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net"
	"runtime/metrics"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/fetch"

	"learnsink/handlers"
)

// spoiltBroker answers every fetch with what serve returns.
type spoiltBroker struct {
	serve func(from int64) (recordSet []byte, end int64)
}

func (b *spoiltBroker) RoundTrip(ctx context.Context, _ net.Addr, request protocol.Message) (protocol.Message, error) {
	r := request.(*fetch.Request)
	raw, end := b.serve(r.Topics[0].Partitions[0].FetchOffset)
	if len(raw) == 0 && !pause(ctx, time.Duration(r.MaxWaitTime)*time.Millisecond) {
		return nil, ctx.Err()
	}
	return &fetchResponse{Topics: []fetchTopic{{Partitions: []fetchPartition{{LastStableOffset: end, RecordSet: raw}}}}}, nil
}

func (*spoiltBroker) CloseIdleConnections() {}

func (b *spoiltBroker) log(limits fetchLimits) *partitionLog {
	return newPartitionLog(&Client{transport: b}, tp0, limits)
}

// spoiltLog reads from a spoilt broker, in a world whose metadata is sound.
type spoiltLog struct {
	*fakeLog
	rows *partitionLog
}

func (l spoiltLog) Read(ctx context.Context, from int64, wait time.Duration) (Chunk, error) {
	return l.rows.Read(ctx, from, wait)
}

// hostile makes frames that no reader may take for rows, from a seed.
type hostile struct {
	*rand.Rand
	sound [][]byte // batches, one a codec
	bombs [][]byte
}

// hostileCap is the cap that the bombs exceed.
const hostileCap = 1 << 20

func newHostile(t testing.TB, seed uint64) *hostile {
	h := &hostile{Rand: rand.New(rand.NewPCG(seed, 0))}
	plain := mustEncode(t, NoCompression, someMessages(seed, 20)...)
	for codec := range codecXerial + 1 {
		h.sound = append(h.sound, reframe(plain, codec, compressed(t, codec, plain[batchHeader:])))
		if codec != codecNone { // what is not compressed is bound by the fetch
			for _, size := range []int{hostileCap + 1, 16 * hostileCap} {
				h.bombs = append(h.bombs, reframe(plain, codec, compressed(t, codec, make([]byte, size))))
			}
		}
		h.bombs = append(h.bombs, edit(reframe(plain, codec, compressed(t, codec, manyHeaders())), func(b []byte) {
			binary.BigEndian.PutUint32(b[atCount:], 1)
		}))
	}
	return h
}

// manyHeaders is a record of more headers than hostileCap allows, each of two bytes.
func manyHeaders() []byte {
	const n = hostileCap/headerSize + 1
	r := binary.AppendVarint([]byte{0, 0, 0, 1, 1}, n)
	r = append(r, make([]byte, 2*n)...)
	return append(binary.AppendVarint(nil, int64(len(r))), r...)
}

// reframe puts a body behind a batch's header.
func reframe(batch []byte, codec int, body []byte) []byte {
	b := append(bytes.Clone(batch[:batchHeader]), body...)
	binary.BigEndian.PutUint32(b[8:], uint32(len(b)-batchLengthEnd))
	if codec == codecXerial {
		codec = codecSnappy
	}
	return edit(b, func(b []byte) { b[atAttributes+1] = byte(codec) })
}

// frame returns a record set and the error that it is.
func (h *hostile) frame() ([]byte, error) {
	plain := h.sound[codecNone]
	any := h.sound[h.IntN(len(h.sound))]
	number := func(at int, values ...int32) func(b []byte) {
		v := values[h.IntN(len(values))]
		return func(b []byte) { binary.BigEndian.PutUint32(b[at:], uint32(v)) }
	}
	switch h.IntN(12) {
	case 0: // bits that flip
		b := bytes.Clone(any)
		for _, i := range h.Perm(len(b) - atCRC)[:1+h.IntN(8)] {
			b[atCRC+i] ^= 1 << h.IntN(8)
		}
		return b, ErrCorrupt
	case 1: // nothing whole
		return any[:1+h.IntN(len(any)-1)], ErrCorrupt
	case 2: // a length that lies
		b := bytes.Clone(any)
		number(8, -1, 0, 48, 49, int32(len(b)-13), int32(len(b)-11), math.MaxInt32, math.MinInt32, h.Int32N(int32(len(b)-12)))(b)
		return b, ErrCorrupt
	case 3: // a count that lies
		return edit(any, number(atCount, -1, 0, 1, 19, 21, 4000, math.MaxInt32, math.MinInt32, 21+h.Int32())), ErrCorrupt
	case 4: // a last offset that lies
		return edit(any, number(atLastOffsetDelta, -1, 0, 18, math.MinInt32, h.Int32N(19))), ErrCorrupt
	case 5: // another format
		b := bytes.Clone(any)
		if b[16] = byte(h.IntN(255)); b[16] >= 2 {
			b[16]++
			return b, ErrCorrupt
		}
		return b, ErrOldFormat
	case 6: // offsets that no log has
		b := bytes.Clone(any)
		binary.BigEndian.PutUint64(b, []uint64{1 << 63, math.MaxUint64, math.MaxInt64, math.MaxInt64 - 19, 1<<63 | h.Uint64()}[h.IntN(5)])
		return b, ErrCorrupt
	case 7: // a codec that lies
		codec := byte(1 + h.IntN(attrCompression))
		return edit(plain, func(b []byte) { b[atAttributes+1] = codec }), ErrCorrupt
	case 8: // a body that is cut, or goes on
		b := h.sound[codecGzip+h.IntN(codecXerial)]
		body := b[batchHeader : len(b)-1-h.IntN(min(40, len(b)-batchHeader-1))]
		if h.IntN(4) == 0 {
			b, body = plain, append(bytes.Clone(plain[batchHeader:]), make([]byte, 1+h.IntN(100))...)
		}
		return edit(reframe(b, codecNone, body), func(c []byte) { c[atAttributes+1] = b[atAttributes+1] }), ErrCorrupt
	case 9: // a record that lies
		b := reframe(plain, codecNone, h.lyingRecord())
		return edit(b, number(atCount, 1)), ErrCorrupt
	case 10: // noise
		b := make([]byte, 17+h.IntN(2000))
		for i := range b {
			b[i] = byte(h.Uint32())
		}
		b[8] &= 0x7f // of positive length, and longer than this
		b[8] |= 0x40
		if b[16] < 2 {
			return b, ErrOldFormat
		}
		return b, ErrCorrupt
	}
	return h.bombs[h.IntN(len(h.bombs))], ErrOversized
}

// lyingRecord is a record one of whose lengths is not true.
func (h *hostile) lyingRecord() []byte {
	key, value, count, headerKey, length := int64(3), int64(5), int64(1), int64(1), int64(0)
	lie := []int64{-1 << 40, math.MinInt32, -2, 6, 100, math.MaxInt32, 1 << 40, math.MaxInt64}[h.IntN(8)]
	*[]*int64{&key, &value, &count, &headerKey, &length}[h.IntN(5)] = lie
	r := []byte{0, 0, 0}
	r = append(binary.AppendVarint(r, key), "key"...)
	r = append(binary.AppendVarint(r, value), "value"...)
	r = binary.AppendVarint(r, count)
	r = append(binary.AppendVarint(r, headerKey), "h\x02v"...)
	if length == 0 {
		length = int64(len(r))
	}
	return append(binary.AppendVarint(nil, length), r...)
}

// TestHostileFrames sends ten thousand frames down the whole road that no
// broker should send, and bombs: they change nothing but a counter and what
// the partition's state says; and then the rows are read.
func TestHostileFrames(t *testing.T) {
	frames := 10_000
	if testing.Short() {
		frames = 1000
	}
	const seed = 8
	h := newHostile(t, seed)
	var good []Message
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for i := range 12 {
			value := goodRow(i)
			if i%5 == 2 {
				value = badRow()
			}
			w.write(value)
			good = append(good, Message{Key: []byte("k"), Value: value, Timestamp: time.UnixMilli(1_700_000_000_000)})
		}
		sound := mustEncode(t, ZstdCompression, good...)

		want := map[string]int{}
		var mu sync.Mutex // guards what serve and the test both see
		sent, most, last, mended := 0, uint64(0), uint64(0), false
		var lastFrame []byte
		broker := &spoiltBroker{serve: func(from int64) ([]byte, int64) {
			mu.Lock()
			defer mu.Unlock()
			if from != 0 && !mended {
				t.Errorf("after frame %d the position is %d: %x", sent, from, lastFrame)
			}
			now := allocated()
			if last > 0 {
				most = max(most, now-last)
			}
			last = now
			switch {
			case sent < frames:
				frame, fault := h.frame()
				for name, err := range map[string]error{"corrupt": ErrCorrupt, "old_format": ErrOldFormat, "oversized": ErrOversized} {
					if errors.Is(fault, err) {
						want[name]++
					}
				}
				sent++
				lastFrame = frame
				last = allocated()
				return frame, w.end
			case mended && from < w.end:
				return sound, w.end
			}
			return nil, w.end
		}}
		reg := prometheus.NewRegistry()
		count := NewMetrics(reg)
		in := &incarnation{world: w}
		work := func() (p *pipeline, stop func()) {
			p = in.pipeline()
			log := broker.log(fetchLimits{decompressed: hostileCap})
			log.metrics, p.metrics = count, count
			p.log = spoiltLog{p.log.(*fakeLog), log}
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() { p.run(ctx); close(done) }()
			return p, func() { cancel(); <-done }
		}
		done := func() bool {
			mu.Lock()
			defer mu.Unlock()
			return sent == frames
		}
		for !done() && !t.Failed() {
			p, stop := work()
			for p.progress.status().State != handlers.Oversized && !done() {
				time.Sleep(10 * time.Second)
			}
			stop() // what is oversized waits for somebody: here it is a broker that mends
			at := w.positions[tp0]
			if at.NextOffset != 0 || at.Accepted+at.Rejected+at.Skipped != 0 || len(w.outcomes[tp0])+len(w.outbox[tp0])+len(w.stored)+
				len(w.published)+int(w.committed[tp0]) > 0 {
				t.Fatalf("frame %d of seed %d changes something: %+v %v: %x", sent, seed, at, w.outcomes, lastFrame)
			}
		}
		for fault, n := range want {
			exposes(t, reg, fmt.Sprintf("learnsink_corrupt_batches_total{fault=%q,topic=\"rows\"} %d\n", fault, n))
		}
		t.Logf("%v; at most %d bytes were allocated for a frame", want, most)
		if most > 24*hostileCap { // an lz4 block takes four by itself; a bomb of 16 would take 32 and more
			t.Errorf("%d bytes were allocated for a frame, the cap is %d", most, hostileCap)
		}

		mended = true
		_, stop := work()
		time.Sleep(time.Minute)
		stop()
		w.checkDrained()
	})
}

// allocated is how many bytes this process has ever allocated.
func allocated() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

// TestWhatCannotBeReadIsNotPassed: whoever asks again is told again.
func TestWhatCannotBeReadIsNotPassed(t *testing.T) {
	three := mustEncode(t, NoCompression, make([]Message, 3)...)
	bomb := reframe(three, codecZstd, compressed(t, codecZstd, make([]byte, hostileCap+1)))
	for name, c := range map[string]struct {
		spoilt []byte
		want   error
	}{
		"a bomb":        {bomb, ErrOversized},
		"many headers":  {reframe(three, codecNone, manyHeaders()), ErrOversized},
		"a flipped bit": {edit(three, func(b []byte) { b[len(b)-1] ^= 1 }), ErrCorrupt},
	} {
		t.Run(name, func(t *testing.T) {
			all := bytes.Join([][]byte{three, at(c.spoilt, 3), at(three, 6)}, nil)
			broker := &spoiltBroker{serve: func(from int64) ([]byte, int64) { return all[from/3*int64(len(three)):], 9 }}
			log := broker.log(fetchLimits{decompressed: hostileCap})
			if chunk, err := log.Read(t.Context(), 0, 0); err != nil || chunk.Next != 3 {
				t.Fatalf("%+v, %v", chunk, err)
			}
			for range 3 {
				chunk, err := log.Read(t.Context(), 3, 0)
				var stop *StopError
				if err == nil || errors.As(err, &stop) != errors.Is(c.want, ErrOversized) || stop == nil && !errors.Is(err, c.want) {
					t.Fatalf("%+v, %v, want %v", chunk, err, c.want)
				}
			}
		})
	}
}

// TestACutOffBatchIsReadAgain, but not one that is all there is.
func TestACutOffBatchIsReadAgain(t *testing.T) {
	three := mustEncode(t, NoCompression, make([]Message, 3)...)
	both := append(bytes.Clone(three), at(three, 3)...)
	n := 0
	broker := &spoiltBroker{serve: func(from int64) ([]byte, int64) {
		n++
		return both[from/3*int64(len(three)) : len(both)-1], 6
	}}
	log := broker.log(fetchLimits{})
	if chunk, err := log.Read(t.Context(), 0, 0); err != nil || chunk.Next != 3 || n != 1 {
		t.Fatalf("%+v, %v", chunk, err)
	}
	if chunk, err := log.Read(t.Context(), 3, 0); !errors.Is(err, ErrCorrupt) || n != 2 {
		t.Fatalf("%+v, %v", chunk, err)
	}
}

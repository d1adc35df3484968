package consumer

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"

	"learnsink/handlers"
)

// The payload of an outbox entry: what one batch has to publish, as the very
// record batches that Kafka is to store.
//
//	byte    version, 2
//	uint32  outputs
//	uvarint source partition
//	parcels up to the end, each:
//	        text topic, uvarint how many partitions it has (0: not known), uvarint partition,
//	        uvarint forms, each a record batch
//
// A text is its uvarint length and its bytes; a record batch tells its own
// length. Record batches are nobody's and of no time until they are sent.
//
// Version 1 held outputs, to be packed at publication:
//
//	byte    version, 1
//	byte    Kafka's number of the compression of the rest
//	uvarint topics, each a text
//	uvarint outputs, each: uvarint topic, uvarint source partition, uvarint forms,
//	        each form: key, value, uvarint headers, each a text and a value
//
// A key or value is the uvarint length + 1 and its bytes, 0 for null.
const (
	payloadOfOutputs = 1
	payloadOfBatches = 2
)

// output is one record to publish. Where it is so large that it may not fit
// its topic, smaller forms of it follow the first: the limit is the topic's
// at the time of publication, which may be long after the batch was applied.
type output struct {
	topic           string
	sourcePartition int
	forms           []Message
}

// parcel is a run of outputs that go to one output partition: a record batch,
// or the forms of one output, each a record batch.
type parcel struct {
	lane
	partitions      int // of the topic, among which the lane was chosen; 0: they were not known
	sourcePartition int
	forms           [][]byte
}

// records is how many outputs a parcel holds.
func (p *parcel) records() int { return int(binary.BigEndian.Uint32(p.forms[0][atCount:])) }

func (p *parcel) size() (n int) {
	for _, b := range p.forms {
		n += len(b)
	}
	return n
}

// payload is one that has been read: of version 1 outputs, of version 2 parcels.
type payload struct {
	outputs []output
	parcels []parcel
}

// packer packs outputs into payloads. It is safe for concurrent use.
type packer struct {
	codec  *compressor
	topics *outputTopics
	mu     sync.Mutex
	idle   []*packing // their buffers have grown to what a payload takes
}

// idlePackings is how many are kept: about as many as there are payloads in
// the making at once. (A sync.Pool would forget them with every collection,
// of which there is one every few batches.)
const idlePackings = 4

// idleBytes is how large a buffer may be to be kept.
const idleBytes = 4 << 20

// packing is a payload in the making.
type packing struct {
	packer  *packer
	topics  []packedTopic
	forms   []Message
	payload []byte
	outputs int
	err     error // the first one
}

// packedTopic is an output topic as it was known when the packing began.
type packedTopic struct {
	name string
	outputTopic
	lanes []recordBatch // by partition
}

// begin begins the payload of a batch of one source partition. It asks no broker.
func (p *packer) begin(sourcePartition int) *packing {
	b := p.take()
	for i := range b.topics {
		b.topics[i].renew(p.topics)
	}
	b.payload = append(b.payload[:0], payloadOfBatches, 0, 0, 0, 0) // outputs: end knows how many
	b.payload = binary.AppendUvarint(b.payload, uint64(sourcePartition))
	return b
}

func (p *packer) take() *packing {
	p.mu.Lock()
	defer p.mu.Unlock()
	if last := len(p.idle) - 1; last >= 0 {
		b := p.idle[last]
		p.idle = p.idle[:last]
		return b
	}
	return &packing{packer: p}
}

// give takes a packing back that is over.
func (p *packer) give(b *packing) {
	clear(b.forms[:cap(b.forms)])
	for i := range b.topics {
		for l := range b.topics[i].lanes {
			if batch := &b.topics[i].lanes[l]; cap(batch.records) > idleBytes {
				batch.records = nil
			}
		}
	}
	if cap(b.payload) > idleBytes {
		b.payload = nil
	}
	b.outputs = 0
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.idle) < idlePackings {
		p.idle = append(p.idle, b)
	}
}

func (b *packing) topic(name string) *packedTopic {
	for i := range b.topics {
		if b.topics[i].name == name {
			return &b.topics[i]
		}
	}
	b.topics = append(b.topics, packedTopic{name: name})
	t := &b.topics[len(b.topics)-1]
	t.renew(b.packer.topics)
	return t
}

// renew takes what is known of the topic by now.
func (t *packedTopic) renew(topics *outputTopics) {
	t.outputTopic = topics.remembered(t.name)
	if n := max(t.partitions, 1); n != len(t.lanes) {
		t.lanes = make([]recordBatch, n)
	}
}

// add takes an output, and keeps nothing of it. Where it is larger than what
// fits its topic with room to spare, even should the limit come down to a
// quarter, it takes its smaller forms along.
func (b *packing) add(o handlers.Output) {
	t := b.topic(o.Topic)
	b.forms = b.forms[:0]
	for more := true; more; o, more = o.Shrink() {
		b.forms = append(b.forms, Message{Key: o.Key, Value: o.Value, Headers: o.Headers})
		if b.forms[0].size() <= t.limit/4 {
			break
		}
	}
	b.put(t, o.SourcePartition, b.forms)
}

// put puts an output, in all its forms, into the next parcel of its lane.
func (b *packing) put(t *packedTopic, sourcePartition int, forms []Message) {
	b.outputs++
	partition := t.partition(sourcePartition, forms[0].Key)
	batch := &t.lanes[partition]
	if len(forms) == 1 && batch.add(&forms[0], 0, t.limit) {
		return
	}
	b.close(t, partition)
	if len(forms) == 1 {
		batch.add(&forms[0], 0, t.limit)
		return
	}
	b.parcel(t, partition, len(forms))
	for i := range forms {
		batch.add(&forms[i], 0, t.limit)
		b.seal(batch)
	}
}

// close ends what a lane has gathered as a parcel.
func (b *packing) close(t *packedTopic, partition int) {
	if batch := &t.lanes[partition]; batch.count > 0 {
		b.parcel(t, partition, 1)
		b.seal(batch)
	}
}

// parcel begins a parcel; its forms come next.
func (b *packing) parcel(t *packedTopic, partition, forms int) {
	p := appendText(b.payload, t.name)
	p = binary.AppendUvarint(p, uint64(t.partitions))
	p = binary.AppendUvarint(p, uint64(partition))
	b.payload = binary.AppendUvarint(p, uint64(forms))
}

func (b *packing) seal(batch *recordBatch) {
	payload, err := batch.seal(b.payload, b.packer.codec)
	if err != nil {
		b.err = err
		return
	}
	b.payload = payload
}

// end returns the payload: nil where nothing was added.
func (b *packing) end() ([]byte, error) {
	for i := range b.topics {
		for partition := range b.topics[i].lanes {
			b.close(&b.topics[i], partition)
		}
	}
	if b.err != nil {
		return nil, b.err
	}
	var payload []byte
	if b.outputs > 0 {
		binary.BigEndian.PutUint32(b.payload[1:], uint32(b.outputs))
		payload = bytes.Clone(b.payload)
	}
	b.packer.give(b)
	return payload, nil
}

// repack returns the payload of outputs of one source partition, such as open returns.
func (p *packer) repack(outputs []output) ([]byte, error) {
	if len(outputs) == 0 {
		return nil, nil
	}
	b := p.begin(outputs[0].sourcePartition)
	for i := range outputs {
		b.put(b.topic(outputs[i].topic), outputs[i].sourcePartition, outputs[i].forms)
	}
	return b.end()
}

// cut returns the payload without the outputs of offsets below from.
func (p *packer) cut(payload []byte, from int64) ([]byte, error) {
	outputs, err := decodePayload(payload, &decompressor{})
	if err != nil {
		return nil, err
	}
	rest := outputs[:0]
	for i := range outputs {
		at, err := outputs[i].place()
		if err != nil {
			return nil, err
		}
		if at.offset >= from {
			rest = append(rest, outputs[i])
		}
	}
	return p.repack(rest)
}

// outputPlace is where an output belongs among those of its payload.
type outputPlace struct{ job, offset int64 }

// place is the offset of the row whose outcome the output tells, or the job
// that sends the row again and its number there.
func (o *output) place() (at outputPlace, err error) {
	id := outputID(o.forms[0].Headers)
	number := id[strings.LastIndexByte(id, '-')+1:]
	if job, seq, ok := strings.Cut(id, "/"); ok && number == id {
		if at.job, err = strconv.ParseInt(job, 10, 64); err == nil {
			number = seq
		}
	}
	if at.offset, err = strconv.ParseInt(number, 10, 64); err != nil {
		return at, fmt.Errorf("an output has the id %q: %w", id, ErrCorrupt)
	}
	return at, nil
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// readPayload reads a payload, and checks the checksums of its batches but
// opens none of them. Its errors mean that the outbox was written by another
// version, or spoilt.
func readPayload(b []byte, codec *decompressor) (p payload, err error) {
	switch {
	case len(b) == 0:
		return p, nil
	case b[0] == payloadOfOutputs:
		p.outputs, err = decodeOutputs(b[1:], codec)
	case b[0] == payloadOfBatches:
		p, err = readParcels(b[1:])
	default:
		err = fmt.Errorf("version %d: this program reads versions %d and %d", b[0], payloadOfOutputs, payloadOfBatches)
	}
	if err != nil {
		return payload{}, fmt.Errorf("outbox payload: %w", err)
	}
	return p, nil
}

// readParcels reads a payload of version 2 from behind its version on.
func readParcels(b []byte) (p payload, err error) {
	if len(b) < 4 {
		return p, ErrCorrupt
	}
	outputs := int64(binary.BigEndian.Uint32(b))
	c := &payloadCursor{cursor{b: b[4:]}}
	sourcePartition := c.number()
	for len(c.b) > 0 && !c.bad {
		parcel := parcel{lane: lane{topic: c.text()}, partitions: c.number(), sourcePartition: sourcePartition}
		parcel.partition = c.number()
		parcel.forms = make([][]byte, c.count())
		for i := range parcel.forms {
			parcel.forms[i] = c.batch()
		}
		if c.bad || len(parcel.forms) == 0 || len(parcel.forms) > 1 && parcel.records() != 1 {
			return payload{}, ErrCorrupt
		}
		outputs -= int64(parcel.records())
		p.parcels = append(p.parcels, parcel)
	}
	if c.bad || outputs != 0 {
		return payload{}, ErrCorrupt
	}
	return p, nil
}

// open returns the outputs that a payload holds, in the order of their
// offsets. limit is on what a record batch may decompress to.
func (p *payload) open(codec *decompressor, limit int) ([]output, error) {
	outputs := p.outputs
	for i := range p.parcels {
		held, err := p.parcels[i].open(codec, limit)
		if err != nil {
			return nil, fmt.Errorf("outbox payload: %w", err)
		}
		outputs = append(outputs, held...)
	}
	if len(p.parcels) < 2 {
		return outputs, nil
	}
	// Within a lane they are in order.
	places := make(map[*Message]outputPlace, len(outputs)) // by the first form
	for i := range outputs {
		at, err := outputs[i].place()
		if err != nil {
			return nil, fmt.Errorf("outbox payload: %w", err)
		}
		places[&outputs[i].forms[0]] = at
	}
	slices.SortStableFunc(outputs, func(a, b output) int {
		one, other := places[&a.forms[0]], places[&b.forms[0]]
		return cmp.Or(cmp.Compare(one.job, other.job), cmp.Compare(one.offset, other.offset))
	})
	return outputs, nil
}

// open returns the outputs that a parcel holds, in order.
func (p *parcel) open(codec *decompressor, limit int) (outputs []output, err error) {
	set := recordSet{maxBytes: limit, codecs: codec}
	var messages []Message
	for _, batch := range p.forms {
		before := len(messages)
		set.fill(batch, nil)
		for from := int64(0); ; {
			chunk, ok, err := set.next(from)
			if err != nil {
				return nil, err
			}
			if !ok {
				break
			}
			for i := range chunk.Records {
				r := &chunk.Records[i]
				messages = append(messages, Message{Key: r.Key, Value: r.Value, Headers: r.Headers})
			}
			from = chunk.Next
		}
		if len(messages)-before != p.records() {
			return nil, corrupt("a parcel of %d records holds %d", p.records(), len(messages)-before)
		}
	}
	if len(p.forms) > 1 {
		return []output{{topic: p.topic, sourcePartition: p.sourcePartition, forms: messages}}, nil
	}
	outputs = make([]output, len(messages))
	for i := range messages {
		outputs[i] = output{topic: p.topic, sourcePartition: p.sourcePartition, forms: messages[i : i+1 : i+1]}
	}
	return outputs, nil
}

// decodePayload returns the outputs that a payload holds, in the order of
// their offsets.
func decodePayload(b []byte, codec *decompressor) ([]output, error) {
	p, err := readPayload(b, codec)
	if err != nil {
		return nil, err
	}
	return p.open(codec, math.MaxInt32)
}

// decodeOutputs reads a payload of version 1 from behind its version on.
func decodeOutputs(b []byte, codec *decompressor) ([]output, error) {
	if len(b) == 0 {
		return nil, ErrCorrupt
	}
	body, err := codec.decompress(int(b[0]), b[1:], math.MaxInt32)
	if err != nil {
		return nil, err
	}
	c := &payloadCursor{cursor{b: body}}
	topics := make([]string, c.count())
	for i := range topics {
		topics[i] = c.text()
	}
	outputs := make([]output, c.count())
	for i := range outputs {
		topic, partition := c.uvarint(), c.number()
		if topic >= uint64(len(topics)) {
			return nil, ErrCorrupt
		}
		o := output{topic: topics[topic], sourcePartition: partition, forms: make([]Message, c.count())}
		for f := range o.forms {
			m := Message{Key: c.optional(), Value: c.optional()}
			if n := c.count(); n > 0 {
				m.Headers = make([]handlers.Header, n)
			}
			for h := range m.Headers {
				m.Headers[h] = handlers.Header{Key: c.text(), Value: c.optional()}
			}
			o.forms[f] = m
		}
		if c.bad || len(o.forms) == 0 {
			return nil, ErrCorrupt
		}
		outputs[i] = o
	}
	if c.bad || len(c.b) > 0 {
		return nil, ErrCorrupt
	}
	return outputs, nil
}

type payloadCursor struct{ cursor }

// number reads one that an int32 holds.
func (c *payloadCursor) number() int {
	n := c.uvarint()
	if n > math.MaxInt32 {
		c.bad, c.b = true, nil
		return 0
	}
	return int(n)
}

// count reads a number of things that take a byte each at least.
func (c *payloadCursor) count() int {
	n := c.uvarint()
	if n > uint64(len(c.b)) {
		c.bad, c.b = true, nil
		return 0
	}
	return int(n)
}

func (c *payloadCursor) text() string { return string(c.bytes(int64(c.count()))) }

func (c *payloadCursor) optional() []byte {
	n := c.uvarint()
	if n == 0 {
		return nil
	}
	if v := c.bytes(int64(min(n-1, math.MaxInt64))); v != nil {
		return v
	}
	return []byte{}
}

// batch reads a record batch: whole, of some records, nobody's.
func (c *payloadCursor) batch() []byte {
	if len(c.b) < batchHeader {
		c.bad, c.b = true, nil
		return nil
	}
	b := c.bytes(batchLengthEnd + int64(int32(binary.BigEndian.Uint32(c.b[atLength:]))))
	if len(b) < batchHeader {
		c.bad, c.b = true, nil
		return nil
	}
	count := int32(binary.BigEndian.Uint32(b[atCount:]))
	if b[atMagic] != 2 || binary.BigEndian.Uint16(b[atAttributes:])&^attrCompression != 0 ||
		count < 1 || binary.BigEndian.Uint32(b[atLastOffsetDelta:]) != uint32(count-1) ||
		binary.BigEndian.Uint32(b[atCRC:]) != checksum(b[:batchHeader], b[batchHeader:]) {
		c.bad, c.b = true, nil
		return nil
	}
	return b
}

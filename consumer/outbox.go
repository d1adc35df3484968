package consumer

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"learnsink/handlers"
)

// The payload of an outbox entry: what one batch has to publish.
//
//	byte    version, 1
//	byte    Kafka's number of the compression of the rest
//	uvarint topics, each a text
//	uvarint outputs, each: uvarint topic, uvarint source partition, uvarint forms,
//	        each form: key, value, uvarint headers, each a text and a value
//
// A text is its uvarint length and its bytes; a key or value is the uvarint
// length + 1 and its bytes, 0 for null.
const payloadVersion = 1

// output is one record to publish. Where it is so large that it may not fit
// its topic, smaller forms of it follow the first: the limit is the topic's
// at the time of publication, which may be long after the batch was applied.
type output struct {
	topic           string
	sourcePartition int
	forms           []Message
}

// ladder returns an output with all its smaller forms where it is larger than
// enough bytes, else alone.
func ladder(o handlers.Output, enough int) output {
	out := output{topic: o.Topic, sourcePartition: o.SourcePartition}
	for more := true; more; o, more = o.Shrink() {
		out.forms = append(out.forms, Message{Key: o.Key, Value: o.Value, Headers: o.Headers})
		if out.forms[0].size() <= enough {
			break
		}
	}
	return out
}

func encodePayload(outputs []output, codec *compressor) ([]byte, error) {
	if len(outputs) == 0 {
		return nil, nil
	}
	var topics []string
	for i := range outputs {
		if !slices.Contains(topics, outputs[i].topic) {
			topics = append(topics, outputs[i].topic)
		}
	}
	body := binary.AppendUvarint(nil, uint64(len(topics)))
	for _, t := range topics {
		body = appendText(body, t)
	}
	body = binary.AppendUvarint(body, uint64(len(outputs)))
	for i := range outputs {
		o := &outputs[i]
		body = binary.AppendUvarint(body, uint64(slices.Index(topics, o.topic)))
		body = binary.AppendUvarint(body, uint64(o.sourcePartition))
		body = binary.AppendUvarint(body, uint64(len(o.forms)))
		for f := range o.forms {
			m := &o.forms[f]
			body = appendOptional(body, m.Key)
			body = appendOptional(body, m.Value)
			body = binary.AppendUvarint(body, uint64(len(m.Headers)))
			for _, h := range m.Headers {
				body = appendText(body, h.Key)
				body = appendOptional(body, h.Value)
			}
		}
	}
	payload, used, err := codec.compress([]byte{payloadVersion, 0}, body)
	if err != nil {
		return nil, err
	}
	payload[1] = byte(used)
	return payload, nil
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendOptional(b, v []byte) []byte {
	if v == nil {
		return append(b, 0)
	}
	return append(binary.AppendUvarint(b, uint64(len(v))+1), v...)
}

// decodePayload undoes encodePayload. Its errors mean that the outbox was
// written by another version, or spoilt.
func decodePayload(payload []byte, codec *decompressor) ([]output, error) {
	if len(payload) == 0 {
		return nil, nil
	}
	if len(payload) < 2 {
		return nil, fmt.Errorf("outbox payload: %w", ErrCorrupt)
	}
	if payload[0] != payloadVersion {
		return nil, fmt.Errorf("outbox payload of version %d: this program reads version %d", payload[0], payloadVersion)
	}
	body, err := codec.decompress(int(payload[1]), payload[2:], math.MaxInt32)
	if err != nil {
		return nil, fmt.Errorf("outbox payload: %w", err)
	}
	c := &payloadCursor{cursor{b: body}}
	topics := make([]string, c.count())
	for i := range topics {
		topics[i] = c.text()
	}
	outputs := make([]output, c.count())
	for i := range outputs {
		topic, partition := c.uvarint(), c.uvarint()
		if topic >= uint64(len(topics)) || partition > math.MaxInt32 {
			c.bad = true
			break
		}
		o := output{topic: topics[topic], sourcePartition: int(partition), forms: make([]Message, c.count())}
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
		if len(o.forms) == 0 {
			c.bad = true
		}
		outputs[i] = o
	}
	if c.bad || len(c.b) > 0 {
		return nil, fmt.Errorf("outbox payload: %w", ErrCorrupt)
	}
	return outputs, nil
}

// cutPayload returns the payload without the outputs of offsets below from.
func cutPayload(payload []byte, from int64, codec *compressor) ([]byte, error) {
	outputs, err := decodePayload(payload, &decompressor{})
	if err != nil {
		return nil, err
	}
	rest := outputs[:0]
	for _, o := range outputs {
		id := outputID(o.forms[0].Headers)
		offset, err := strconv.ParseInt(id[strings.LastIndexByte(id, '-')+1:], 10, 64)
		if err != nil {
			return nil, fmt.Errorf("an output has the id %q: %w", id, ErrCorrupt)
		}
		if offset >= from {
			rest = append(rest, o)
		}
	}
	return encodePayload(rest, codec)
}

type payloadCursor struct{ cursor }

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

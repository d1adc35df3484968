package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"testing"
)

// request is one of Kafka's requests, as it goes over the wire.
func request(key what, id int32, body string) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(8+len(body)))
	b = binary.BigEndian.AppendUint16(b, uint16(key))
	b = binary.BigEndian.AppendUint16(b, 3) // version
	return append(binary.BigEndian.AppendUint32(b, uint32(id)), body...)
}

func reply(id int32, body string) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(4+len(body)))
	return append(binary.BigEndian.AppendUint32(b, uint32(id)), body...)
}

// said is one of PostgreSQL's messages with a letter.
func said(letter byte, text string) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{letter}, uint32(4+len(text))), text...)
}

func TestMessagesAreToldApart(t *testing.T) {
	hello := append(binary.BigEndian.AppendUint32(nil, 12), "\x00\x03\x00\x00user"...)
	for _, c := range []struct {
		name  string
		split splitter
		wire  [][]byte
		is    []what
	}{
		{"kafka's requests", kafkaDialect.requests(), [][]byte{request(produce, 1, "xyz"), request(endTxn, 2, ""), request(txnOffset, 3, "a")}, []what{produce, endTxn, txnOffset}},
		{"kafka's replies", kafkaDialect.replies(), [][]byte{reply(1, ""), reply(2, "body")}, []what{other, other}},
		{"what is said to PostgreSQL", postgresDialect.requests(), [][]byte{hello, said('Q', "COMMIT\x00"), said('Q', "commit\x00"), said('Q', "SELECT 1\x00"), said('P', "COMMIT\x00"), said('X', "")},
			[]what{other, commit, commit, other, other, other}},
		{"what PostgreSQL says", postgresDialect.replies(), [][]byte{said('R', "\x00\x00\x00\x00"), said('C', "SELECT 1\x00"), said('C', "COMMIT\x00"), said('C', "ROLLBACK\x00"), said('Z', "I")},
			[]what{other, other, commit, other, other}},
	} {
		r := bufio.NewReader(bytes.NewReader(bytes.Join(c.wire, nil)))
		for i, wire := range c.wire {
			m, err := c.split(r)
			if err != nil || m.size != len(wire) || m.is != c.is[i] {
				t.Fatalf("%s, message %d: %+v, %v; of %d bytes, %d", c.name, i, m, err, len(wire), c.is[i])
			}
			if _, err := r.Discard(m.size); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestWhatIsNoMessageIsSaid(t *testing.T) {
	r := bufio.NewReader(bytes.NewReader([]byte("GET / HTTP/1.1\r\n\r\n")))
	if _, err := kafkaDialect.requests()(r); !errors.Is(err, errThread) {
		t.Errorf("it was taken for a message: %v", err)
	}
}

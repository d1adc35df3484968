package proxy

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"testing"
)

// request is one of Kafka's requests, as it goes over the wire.
func request(key What, id int32, body string) []byte {
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
	requests := func(d Dialect) splitter { split, _ := d(); return split }
	replies := func(d Dialect) splitter { _, split := d(); return split }
	hello, encrypts := []byte("\x00\x00\x00\x0c\x00\x03\x00\x00user"), []byte("\x00\x00\x00\x08\x04\xd2\x16\x2f")
	for _, c := range []struct {
		name  string
		split splitter
		wire  [][]byte
		is    []What
	}{
		{"kafka's requests", requests(Kafka), [][]byte{request(Produce, 1, "xyz"), request(EndTxn, 2, ""), request(TxnOffsetCommit, 3, "a")}, []What{Produce, EndTxn, TxnOffsetCommit}},
		{"kafka's replies", replies(Kafka), [][]byte{reply(1, ""), reply(2, "body")}, []What{other, other}},
		{"what is said to PostgreSQL", requests(Postgres), [][]byte{hello, said('Q', "COMMIT\x00"), said('Q', "commit\x00"), said('Q', "SELECT 1\x00"), said('P', "COMMIT\x00"), said('X', "")},
			[]What{other, Commit, Commit, other, other, other}},
		{"what PostgreSQL says", replies(Postgres), [][]byte{said('R', "\x00\x00\x00\x00"), said('C', "SELECT 1\x00"), said('C', "COMMIT\x00"), said('C', "ROLLBACK\x00"), said('Z', "I")},
			[]What{other, other, Commit, other, other}},
		{"somebody asks whether it encrypts", requests(Postgres), [][]byte{encrypts, hello, said('Q', "COMMIT\x00")}, []What{other, other, Commit}},
	} {
		splits(t, c.name, c.split, c.wire, c.is)
	}
	ask, answer := Postgres()
	splits(t, "a question", ask, [][]byte{encrypts}, []What{other})
	splits(t, "answered with no", answer, [][]byte{[]byte("N"), said('C', "COMMIT\x00")}, []What{other, Commit})
	ask, answer = Postgres()
	splits(t, "a question", ask, [][]byte{encrypts}, []What{other})
	splits(t, "answered with yes", answer, [][]byte{[]byte("S"), []byte("\x16\x03\x03\x00\x7a")}, []What{other, other})
	splits(t, "and all is secret", ask, [][]byte{[]byte("\x16\x03\x01\x02")}, []What{other})
}

// splits holds what a splitter says against what is on the wire.
func splits(t *testing.T, name string, split splitter, wire [][]byte, is []What) {
	t.Helper()
	r := bufio.NewReader(bytes.NewReader(bytes.Join(wire, nil)))
	for i := range wire {
		if _, err := r.Peek(1); err != nil {
			t.Fatal(err)
		}
		m, err := split(r)
		if err != nil || m.size != len(wire[i]) || m.is != is[i] {
			t.Fatalf("%s, message %d: %+v, %v; of %d bytes, %d", name, i, m, err, len(wire[i]), is[i])
		}
		if _, err := r.Discard(m.size); err != nil {
			t.Fatal(err)
		}
	}
}

func TestWhatIsNoMessageIsSaid(t *testing.T) {
	r := bufio.NewReader(bytes.NewReader([]byte("GET / HTTP/1.1\r\n\r\n")))
	split, _ := Kafka()
	if _, err := split(r); !errors.Is(err, errThread) {
		t.Errorf("it was taken for a message: %v", err)
	}
}

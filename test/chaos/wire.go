package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
)

// message is one message of a protocol, of which only the beginning has been
// looked at.
type message struct {
	size int // all of it
	is   what
	id   int32 // Kafka's correlation id: a reply has that of its request
}

// what a message is, as far as a trap may ask for it.
type what int

const (
	other     what = -1
	commit    what = -2 // PostgreSQL: COMMIT, and the reply that says it is done (or is not)
	produce   what = 0  // Kafka's own numbers of its requests
	joinGroup what = 11
	txnOffset what = 28
	endTxn    what = 26
)

// splitter looks at the next message without taking it.
type splitter func(*bufio.Reader) (message, error)

// dialect is how the bytes of a protocol fall into messages. Each connection
// has splitters of its own.
type dialect struct {
	requests, replies func() splitter
}

// kafkaDialect: a length, then, of a request, its number, version and
// correlation id; of a reply the correlation id.
var kafkaDialect = dialect{
	requests: func() splitter {
		return func(r *bufio.Reader) (message, error) {
			head, err := r.Peek(12)
			if err != nil {
				return message{}, err
			}
			return framed(message{size: 4 + int(binary.BigEndian.Uint32(head)), is: what(binary.BigEndian.Uint16(head[4:])), id: int32(binary.BigEndian.Uint32(head[8:]))})
		}
	},
	replies: func() splitter {
		return func(r *bufio.Reader) (message, error) {
			head, err := r.Peek(8)
			if err != nil {
				return message{}, err
			}
			return framed(message{size: 4 + int(binary.BigEndian.Uint32(head)), is: other, id: int32(binary.BigEndian.Uint32(head[4:]))})
		}
	},
}

// postgresDialect: a letter and a length; only what a client says first has no
// letter. Without TLS.
var postgresDialect = dialect{
	requests: func() splitter {
		first := true
		return func(r *bufio.Reader) (message, error) {
			if first {
				head, err := r.Peek(4)
				if err != nil {
					return message{}, err
				}
				first = false
				return framed(message{size: int(binary.BigEndian.Uint32(head)), is: other})
			}
			return lettered(r, 'Q', []byte("COMMIT\x00"))
		}
	},
	replies: func() splitter {
		return func(r *bufio.Reader) (message, error) { return lettered(r, 'C', []byte("COMMIT\x00")) }
	},
}

// lettered looks at a message of PostgreSQL; it is a commit where the letter
// and the text are those.
func lettered(r *bufio.Reader, letter byte, text []byte) (message, error) {
	head, err := r.Peek(5)
	if err != nil {
		return message{}, err
	}
	m := message{size: 1 + int(binary.BigEndian.Uint32(head[1:])), is: other}
	if head[0] == letter && m.size == len(head)+len(text) {
		if head, err = r.Peek(m.size); err != nil {
			return message{}, err
		}
		if bytes.EqualFold(head[5:], text) {
			m.is = commit
		}
	}
	return framed(m)
}

// framed refuses what can be no message: we have lost the thread.
func framed(m message) (message, error) {
	if m.size < 4 || m.size > 256<<20 {
		return message{}, fmt.Errorf("a message of %d bytes: %w", m.size, errThread)
	}
	return m, nil
}

// errThread: what we took for a message is none.
var errThread = fmt.Errorf("the thread is lost: %w", io.ErrUnexpectedEOF)

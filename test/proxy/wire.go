package proxy

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"sync/atomic"
)

// message is one message of a protocol, of which only the beginning has been
// looked at.
type message struct {
	size int // all of it
	is   What
	id   int32 // Kafka's correlation id: a reply has that of its request
}

// What a message is, as far as a Trap may ask for it.
type What int

const (
	other  What = -1
	Commit What = -2 // PostgreSQL's COMMIT, and the reply that says it is done

	Produce         What = 0 // Kafka's own numbers of its requests
	EndTxn          What = 26
	TxnOffsetCommit What = 28
)

// splitter looks at the next message without taking it.
type splitter func(*bufio.Reader) (message, error)

// Dialect is how the bytes of a protocol fall into messages: it gives each
// connection splitters of its own.
type Dialect func() (requests, replies splitter)

// Kafka is a length, then, of a request, its number, version and
// correlation id; of a reply the correlation id.
func Kafka() (requests, replies splitter) {
	requests = func(r *bufio.Reader) (message, error) {
		head, err := r.Peek(12)
		if err != nil {
			return message{}, err
		}
		return framed(message{size: 4 + int(binary.BigEndian.Uint32(head)), is: What(binary.BigEndian.Uint16(head[4:])), id: int32(binary.BigEndian.Uint32(head[8:]))})
	}
	replies = func(r *bufio.Reader) (message, error) {
		head, err := r.Peek(8)
		if err != nil {
			return message{}, err
		}
		return framed(message{size: 4 + int(binary.BigEndian.Uint32(head)), is: other, id: int32(binary.BigEndian.Uint32(head[4:]))})
	}
	return requests, replies
}

// Postgres is a letter and a length; only what a client says first has no
// letter. It may first ask whether the server encrypts, and gets a letter
// alone; if it is yes, nothing can be told apart any more.
func Postgres() (requests, replies splitter) {
	var asked, secret atomic.Bool
	var begun bool
	text := []byte("COMMIT\x00")
	requests = func(r *bufio.Reader) (message, error) {
		switch {
		case secret.Load():
			return message{size: r.Buffered(), is: other}, nil
		case begun:
			return lettered(r, 'Q', text)
		}
		head, err := r.Peek(8)
		if err != nil {
			return message{}, err
		}
		const encrypts, encryptsGSS = 80877103, 80877104
		code := binary.BigEndian.Uint32(head[4:])
		if begun = code != encrypts && code != encryptsGSS; !begun {
			asked.Store(true)
		}
		return framed(message{size: int(binary.BigEndian.Uint32(head)), is: other})
	}
	replies = func(r *bufio.Reader) (message, error) {
		switch {
		case secret.Load():
			return message{size: r.Buffered(), is: other}, nil
		case asked.Swap(false):
			letter, err := r.Peek(1)
			if err != nil {
				return message{}, err
			}
			secret.Store(letter[0] != 'N')
			return message{size: 1, is: other}, nil
		}
		return lettered(r, 'C', text)
	}
	return requests, replies
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
			m.is = Commit
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

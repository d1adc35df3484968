package e2e_test

import (
	"bytes"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// road is a TCP road to a server that can be cut and opened again.
type road struct {
	url    string // the server's, by this road
	listen net.Listener
	target string

	mu    sync.Mutex
	shut  bool
	conns map[net.Conn]bool
	knock chan struct{} // somebody came while it was shut
	// loseEvery: of every so many COMMITs the reply is lost: the server does
	// it, and the client never hears. 0: none.
	loseEvery, commits, lost int
}

func newRoad(t *testing.T, address string) *road {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal("DATABASE_URL is no URL")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &road{listen: l, target: u.Host, conns: map[net.Conn]bool{}, knock: make(chan struct{}, 1)}
	if u.Port() == "" {
		r.target = net.JoinHostPort(u.Hostname(), "5432")
	}
	u.Host = l.Addr().String()
	r.url = u.String()
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			go r.carry(in)
		}
	}()
	t.Cleanup(func() { l.Close(); r.cut() })
	return r
}

func (r *road) carry(in net.Conn) {
	defer in.Close()
	r.mu.Lock()
	if r.shut {
		r.mu.Unlock()
		select {
		case r.knock <- struct{}{}:
		default:
		}
		return
	}
	out, err := net.Dial("tcp", r.target)
	if err != nil {
		r.mu.Unlock()
		return
	}
	r.conns[in], r.conns[out] = true, true
	r.mu.Unlock()
	defer out.Close()
	var deaf atomic.Bool // what the server says from now on is not passed on
	go func() {
		for buf := make([]byte, 1<<16); ; {
			n, err := in.Read(buf)
			if n > 0 && r.loses(buf[:n]) {
				deaf.Store(true)
				_, _ = out.Write(buf[:n])
				return
			}
			if _, failed := out.Write(buf[:n]); err != nil || failed != nil {
				out.Close()
				return
			}
		}
	}()
	for buf := make([]byte, 1<<16); ; {
		n, err := out.Read(buf)
		if err != nil || deaf.Load() { // the server has answered: it is done
			break
		}
		if _, err := in.Write(buf[:n]); err != nil {
			break
		}
	}
	r.mu.Lock()
	delete(r.conns, in)
	delete(r.conns, out)
	r.mu.Unlock()
}

// loseReplies loses the reply of one COMMIT in so many, of none with 0, and
// returns how many it has lost before.
func (r *road) loseReplies(every int) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.loseEvery = every
	return r.lost
}

// loses reports whether these bytes bring a COMMIT whose reply is to be lost.
func (r *road) loses(b []byte) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.loseEvery == 0 || !bytes.Contains(bytes.ToLower(b), []byte("commit")) {
		return false
	}
	r.commits++
	if r.commits%r.loseEvery != 0 {
		return false
	}
	r.lost++
	return true
}

// cut breaks every connection and takes no new one.
func (r *road) cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.shut = true
	for c := range r.conns {
		c.Close()
	}
	select {
	case <-r.knock: // of an earlier cut
	default:
	}
}

// open lets everybody through again.
func (r *road) open() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.shut = false
}

// refused waits until somebody has come to the shut road.
func (r *road) refused(t *testing.T) {
	t.Helper()
	select {
	case <-r.knock:
	case <-time.After(30 * time.Second):
		t.Fatal("nobody tried the road while it was shut")
	}
}

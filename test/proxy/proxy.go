// Package proxy lays a TCP road to a server that can be made worse: shut, cut,
// slowed down, stalled, or cut at a chosen byte of a chosen message of Kafka's
// or PostgreSQL's.
package proxy

import (
	"bufio"
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

// Proxy is such a road. It carries nothing before Serve.
type Proxy struct {
	listen  net.Listener
	target  string
	dialect Dialect
	refused chan struct{}

	mu      sync.Mutex
	links   map[*link]bool
	shut    bool
	latency time.Duration
	stalled chan struct{} // closed when it goes on; nil: it does not stall
	trap    *trap
	broken  error // we did not understand what we carried
}

// link is one connection on its way.
type link struct {
	*Proxy
	client, server net.Conn
	ended          chan struct{}
	end            sync.Once

	mu      sync.Mutex
	awaited *caught
}

// Trap cuts connections at a chosen byte of a chosen message.
type Trap struct {
	Is    What
	Reply bool // the request passes, and its reply is cut; else the request itself
	// At is which byte: 0 is before the first one, 1 after the last one. A
	// reply cut at 0 is a deed done of which nobody hears; a request cut at 1
	// is one that is just being done.
	At float64
	// Every: of so many such messages one is taken. 0 and 1: each.
	Every int
	// Times is how often it springs; 0: without an end.
	Times int
	// Sprung is called each time, once the connection is cut.
	Sprung func()
}

// trap is a Trap that is set.
type trap struct {
	Trap
	seen, sprung int
}

// takes reports whether it springs for this message.
func (t *trap) takes(m message) bool {
	if t == nil || t.Is != m.is || t.Times > 0 && t.sprung == t.Times {
		return false
	}
	if t.seen++; t.Every > 1 && t.seen%t.Every != 0 {
		return false
	}
	t.sprung++
	return true
}

// caught is a request that has passed, the reply of which is to be cut.
type caught struct {
	message
	at     float64
	sprung func()
}

// New opens a road at an address of its own.
func New(d Dialect) (*Proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	return &Proxy{listen: l, dialect: d, refused: make(chan struct{}, 1), links: map[*link]bool{}}, nil
}

// Address is where the road begins.
func (p *Proxy) Address() string { return p.listen.Addr().String() }

// Serve carries connections to target, until Close.
func (p *Proxy) Serve(target string) {
	p.target = target
	go func() {
		for {
			client, err := p.listen.Accept()
			if err != nil {
				return
			}
			go p.carry(client)
		}
	}()
}

// Close ends the road and every connection on it.
func (p *Proxy) Close() {
	_ = p.listen.Close()
	p.Cut(false)
}

func (p *Proxy) carry(client net.Conn) {
	server, err := net.DialTimeout("tcp", p.target, 5*time.Second)
	if err != nil {
		client.Close()
		return
	}
	l := &link{Proxy: p, client: client, server: server, ended: make(chan struct{})}
	p.mu.Lock()
	shut := p.shut
	p.links[l] = true
	p.mu.Unlock()
	if shut {
		l.cut(false)
		select {
		case p.refused <- struct{}{}:
		default:
		}
		return
	}
	requests, replies := p.dialect()
	go l.forward(client, server, requests, true)
	l.forward(server, client, replies, false)
}

// forward carries messages one way until the connection ends.
func (l *link) forward(from, to net.Conn, split splitter, requests bool) {
	defer l.cut(false)
	r := bufio.NewReaderSize(from, 1<<16)
	for {
		fresh := r.Buffered() == 0
		if _, err := r.Peek(1); err != nil {
			return
		}
		if !l.hold(fresh) {
			return
		}
		m, err := split(r)
		if err != nil {
			if errors.Is(err, errThread) {
				l.lose(err)
			}
			return
		}
		look := l.answered
		if requests {
			look = l.asked
		}
		pass, sprung := look(m)
		if _, err := io.CopyN(to, r, int64(pass)); err != nil {
			return
		}
		if sprung != nil {
			l.cut(pass%2 == 0 && pass < m.size) // now a FIN, now a RST, which would take back what has just passed
			sprung()
			return
		}
	}
}

// hold waits as long as the road is slow or stalled; false: it has ended.
// Latency is that of what comes after a silence, not of every message.
func (l *link) hold(fresh bool) bool {
	l.Proxy.mu.Lock()
	latency, stalled := l.latency, l.stalled
	l.Proxy.mu.Unlock()
	if stalled != nil {
		select {
		case <-stalled:
		case <-l.ended:
			return false
		}
	}
	if fresh && latency > 0 {
		timer := time.NewTimer(latency)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-l.ended:
			return false
		}
	}
	return true
}

// asked returns how much of a request is to pass; sprung: and then the
// connection is to be cut.
func (l *link) asked(m message) (pass int, sprung func()) {
	l.Proxy.mu.Lock()
	defer l.Proxy.mu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.trap
	if l.awaited != nil || !t.takes(m) {
		return m.size, nil
	}
	if t.Reply {
		l.awaited = &caught{m, t.At, t.Sprung}
		return m.size, nil
	}
	return int(t.At * float64(m.size)), t.Sprung
}

// answered is asked for replies.
func (l *link) answered(m message) (pass int, sprung func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.awaited
	if c == nil || c.is == Commit && m.is != Commit || c.is != Commit && c.id != m.id {
		return m.size, nil
	}
	l.awaited = nil
	return int(c.at * float64(m.size)), c.sprung
}

// cut ends the connection: with a FIN, or, hard, with a RST.
func (l *link) cut(hard bool) {
	l.end.Do(func() {
		if hard {
			for _, c := range []net.Conn{l.client, l.server} {
				if tcp, ok := c.(*net.TCPConn); ok {
					_ = tcp.SetLinger(0)
				}
			}
		}
		_ = l.client.Close()
		_ = l.server.Close()
		close(l.ended)
		l.Proxy.mu.Lock()
		delete(l.links, l)
		l.Proxy.mu.Unlock()
	})
}

func (l *link) lose(err error) {
	l.Proxy.mu.Lock()
	defer l.Proxy.mu.Unlock()
	l.broken = err
}

// Cut ends every connection, with a FIN or, hard, with a RST, and returns how many there were.
func (p *Proxy) Cut(hard bool) int {
	p.mu.Lock()
	var links []*link
	for l := range p.links {
		links = append(links, l)
	}
	p.mu.Unlock()
	for _, l := range links {
		l.cut(hard)
	}
	return len(links)
}

// SetShut turns newcomers away, or lets them in again.
func (p *Proxy) SetShut(shut bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.shut = shut
}

// SetLatency makes the road longer, each way.
func (p *Proxy) SetLatency(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.latency = d
}

// Stall stops everything on its way; nothing is lost, it comes later.
func (p *Proxy) Stall() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stalled == nil {
		p.stalled = make(chan struct{})
	}
}

// GoOn ends a stall.
func (p *Proxy) GoOn() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stalled != nil {
		close(p.stalled)
		p.stalled = nil
	}
}

// SetTrap sets a trap, in place of the one before.
func (p *Proxy) SetTrap(t Trap) {
	if t.Sprung == nil {
		t.Sprung = func() {}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.trap = &trap{Trap: t}
}

// RemoveTrap takes the trap away.
func (p *Proxy) RemoveTrap() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.trap = nil
}

// Refused is told when somebody was turned away.
func (p *Proxy) Refused() <-chan struct{} { return p.refused }

// Fault returns what the proxy did not understand: its messages are none then.
func (p *Proxy) Fault() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.broken
}

package main

import (
	"bufio"
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

// proxy is a TCP road to a server that can be made worse: shut, cut, slowed
// down, stalled, or cut at a chosen byte of a chosen message.
type proxy struct {
	listen  net.Listener
	target  string
	dialect dialect

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
	*proxy
	client, server net.Conn
	ended          chan struct{}
	end            sync.Once

	mu      sync.Mutex
	awaited *caught
}

// trap cuts connections at a chosen byte of a chosen message.
type trap struct {
	is    what
	reply bool // the request passes, and its reply is cut; else the request itself
	// at is which byte: 0 is before the first one, towards 1 the last one. A
	// reply cut at 0 is a deed done of which nobody hears.
	at    float64
	times int // how often it springs
	// sprung is told each time.
	sprung chan struct{}
}

// caught is a request that has passed, the reply of which is to be cut.
type caught struct {
	message
	at   float64
	told chan struct{}
}

func newProxy(d dialect) (*proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	return &proxy{listen: l, dialect: d, links: map[*link]bool{}}, nil
}

func (p *proxy) address() string { return p.listen.Addr().String() }

// serve carries connections to target, until the proxy is closed.
func (p *proxy) serve(target string) {
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

func (p *proxy) close() {
	_ = p.listen.Close()
	p.cut(false)
}

func (p *proxy) carry(client net.Conn) {
	server, err := net.DialTimeout("tcp", p.target, 5*time.Second)
	if err != nil {
		client.Close()
		return
	}
	l := &link{proxy: p, client: client, server: server, ended: make(chan struct{})}
	p.mu.Lock()
	shut := p.shut
	p.links[l] = true
	p.mu.Unlock()
	if shut {
		l.cut(false)
		return
	}
	go l.forward(client, server, p.dialect.requests(), true)
	l.forward(server, client, p.dialect.replies(), false)
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
		pass, told := look(m)
		if _, err := io.CopyN(to, r, int64(pass)); err != nil {
			return
		}
		if told != nil {
			l.cut(pass%2 == 0) // now a FIN, now a RST
			told <- struct{}{}
			return
		}
	}
}

// hold waits as long as the road is slow or stalled; false: it has ended.
// Latency is that of what comes after a silence, not of every message.
func (l *link) hold(fresh bool) bool {
	l.proxy.mu.Lock()
	latency, stalled := l.latency, l.stalled
	l.proxy.mu.Unlock()
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

// asked returns how much of a request is to pass; told: and then the
// connection is to be cut.
func (l *link) asked(m message) (pass int, told chan struct{}) {
	l.proxy.mu.Lock()
	defer l.proxy.mu.Unlock()
	t := l.trap
	if t == nil || t.is != m.is || t.times == 0 {
		return m.size, nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.awaited != nil {
		return m.size, nil
	}
	t.times--
	if t.reply {
		l.awaited = &caught{m, t.at, t.sprung}
		return m.size, nil
	}
	return int(t.at * float64(m.size)), t.sprung
}

// answered is asked for replies.
func (l *link) answered(m message) (pass int, told chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.awaited
	if c == nil || c.is == commit && m.is != commit || c.is != commit && c.id != m.id {
		return m.size, nil
	}
	l.awaited = nil
	return int(c.at * float64(m.size)), c.told
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
		l.proxy.mu.Lock()
		delete(l.links, l)
		l.proxy.mu.Unlock()
	})
}

func (l *link) lose(err error) {
	l.proxy.mu.Lock()
	defer l.proxy.mu.Unlock()
	l.broken = err
}

// cut ends every connection, and returns how many there were.
func (p *proxy) cut(hard bool) int {
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

// setShut turns newcomers away, or lets them in again.
func (p *proxy) setShut(shut bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.shut = shut
}

func (p *proxy) setLatency(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.latency = d
}

// stall stops everything on its way; nothing is lost, it comes later.
func (p *proxy) stall() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stalled == nil {
		p.stalled = make(chan struct{})
	}
}

// goOn ends a stall.
func (p *proxy) goOn() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stalled != nil {
		close(p.stalled)
		p.stalled = nil
	}
}

// setTrap sets a trap; nil takes it away.
func (p *proxy) setTrap(t *trap) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.trap = t
}

// fault returns what the proxy did not understand.
func (p *proxy) fault() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.broken
}

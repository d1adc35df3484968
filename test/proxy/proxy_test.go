package proxy

import (
	"bytes"
	"io"
	"net"
	"testing"
	"time"
)

// server answers each of Kafka's requests with a reply of ten bytes more, and
// tells the numbers of those that it got whole.
func server(t *testing.T) (address string, got chan What) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	got = make(chan What, 100)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				for {
					head := make([]byte, 12)
					if _, err := io.ReadFull(c, head); err != nil {
						return
					}
					body := make([]byte, int(head[3])-8)
					if _, err := io.ReadFull(c, body); err != nil {
						return
					}
					got <- What(head[5])
					if _, err := c.Write(reply(int32(head[11]), "0123456789")); err != nil {
						return
					}
				}
			}()
		}
	}()
	return l.Addr().String(), got
}

// through returns a proxy before a server, and a connection through it.
func through(t *testing.T) (p *Proxy, c net.Conn, got chan What) {
	t.Helper()
	address, got := server(t)
	p, err := New(Kafka)
	if err != nil {
		t.Fatal(err)
	}
	p.Serve(address)
	t.Cleanup(p.Close)
	return p, dial(t, p), got
}

func dial(t *testing.T, p *Proxy) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", p.Address())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	return c
}

// send sends and returns what comes back until the connection is cut or n bytes are there.
func send(t *testing.T, c net.Conn, n int, requests ...[]byte) []byte {
	t.Helper()
	_, _ = c.Write(bytes.Join(requests, nil)) // a cut is seen in what comes back
	back := make([]byte, n)
	read, _ := io.ReadFull(c, back)
	return back[:read]
}

func TestAReplyIsCutAtItsByte(t *testing.T) {
	p, c, got := through(t)
	sprung := make(chan struct{}, 1)
	p.SetTrap(Trap{Is: EndTxn, Reply: true, At: 0.5, Times: 1, Sprung: func() { sprung <- struct{}{} }})
	// Requests are on their way together: only the one reply is cut, amid.
	back := send(t, c, 1000, request(Produce, 1, "ab"), request(EndTxn, 2, "c"), request(Produce, 3, ""))
	whole := reply(1, "0123456789")
	if want := append(whole, reply(2, "0123456789")[:9]...); !bytes.Equal(back, want) {
		t.Errorf("came back: %q, not %q", back, want)
	}
	<-sprung
	if first, second := <-got, <-got; first != Produce || second != EndTxn {
		t.Errorf("the server got %d and %d", first, second)
	}
	// The trap has sprung as often as it was to: the next one passes.
	if back := send(t, dial(t, p), 18, request(EndTxn, 4, "")); !bytes.Equal(back, reply(4, "0123456789")) {
		t.Errorf("came back: %q", back)
	}
}

func TestARequestIsCutAtItsByte(t *testing.T) {
	p, c, got := through(t)
	sprung := make(chan struct{}, 1)
	p.SetTrap(Trap{Is: EndTxn, At: 0.9, Times: 1, Sprung: func() { sprung <- struct{}{} }})
	if back := send(t, c, 100, request(EndTxn, 2, "body")); len(back) != 0 {
		t.Errorf("came back: %q", back)
	}
	<-sprung
	select {
	case is := <-got:
		t.Errorf("the server got request %d whole", is)
	default:
	}
}

func TestARequestPassesWholeBeforeTheCut(t *testing.T) {
	p, c, got := through(t)
	p.SetTrap(Trap{Is: EndTxn, At: 1, Times: 1})
	send(t, c, 100, request(EndTxn, 2, "body")) // what comes back before the cut may come
	if is := <-got; is != EndTxn {
		t.Errorf("the server got request %d", is)
	}
}

func TestARoadCanBeCutShutAndStalled(t *testing.T) {
	p, c, _ := through(t)
	if back := send(t, c, 18, request(Produce, 1, "")); len(back) != 18 {
		t.Fatalf("came back: %q", back)
	}
	if n := p.Cut(true); n != 1 {
		t.Errorf("%d connections were cut", n)
	}
	if back := send(t, c, 18, request(Produce, 2, "")); len(back) != 0 {
		t.Errorf("came back over a connection that was cut: %q", back)
	}
	p.SetShut(true)
	if back := send(t, dial(t, p), 18, request(Produce, 3, "")); len(back) != 0 {
		t.Errorf("came back over a road that is shut: %q", back)
	}
	p.SetShut(false)

	p.Stall()
	c = dial(t, p)
	_ = c.SetDeadline(time.Now().Add(100 * time.Millisecond))
	if back := send(t, c, 18, request(Produce, 4, "")); len(back) != 0 {
		t.Errorf("came back over a road that is stalled: %q", back)
	}
	p.GoOn()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if back := send(t, c, 18); !bytes.Equal(back, reply(4, "0123456789")) {
		t.Errorf("what was on its way has not come: %q", back)
	}
	p.SetLatency(50 * time.Millisecond)
	began := time.Now()
	if back := send(t, c, 18, request(Produce, 5, "")); len(back) != 18 || time.Since(began) < 100*time.Millisecond {
		t.Errorf("%q came back in %s", back, time.Since(began))
	}
	if err := p.Fault(); err != nil {
		t.Error(err)
	}
}

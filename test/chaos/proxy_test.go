package main

import (
	"bytes"
	"io"
	"net"
	"testing"
	"time"
)

// server answers each of Kafka's requests with a reply of ten bytes more, and
// tells the numbers of those that it got whole.
func server(t *testing.T) (address string, got chan what) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	got = make(chan what, 100)
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
					got <- what(head[5])
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
func through(t *testing.T) (p *proxy, c net.Conn, got chan what) {
	t.Helper()
	address, got := server(t)
	p, err := newProxy(kafkaDialect)
	if err != nil {
		t.Fatal(err)
	}
	p.serve(address)
	t.Cleanup(p.close)
	return p, dial(t, p), got
}

func dial(t *testing.T, p *proxy) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", p.address())
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
	p.setTrap(&trap{is: endTxn, reply: true, at: 0.5, times: 1, sprung: sprung})
	// Requests are on their way together: only the one reply is cut, amid.
	back := send(t, c, 1000, request(produce, 1, "ab"), request(endTxn, 2, "c"), request(produce, 3, ""))
	whole := reply(1, "0123456789")
	if want := append(whole, reply(2, "0123456789")[:9]...); !bytes.Equal(back, want) {
		t.Errorf("came back: %q, not %q", back, want)
	}
	<-sprung
	if first, second := <-got, <-got; first != produce || second != endTxn {
		t.Errorf("the server got %d and %d", first, second)
	}
	// The trap has sprung as often as it was to: the next one passes.
	if back := send(t, dial(t, p), 18, request(endTxn, 4, "")); !bytes.Equal(back, reply(4, "0123456789")) {
		t.Errorf("came back: %q", back)
	}
}

func TestARequestIsCutAtItsByte(t *testing.T) {
	p, c, got := through(t)
	sprung := make(chan struct{}, 1)
	p.setTrap(&trap{is: endTxn, at: 0.9, times: 1, sprung: sprung})
	if back := send(t, c, 100, request(endTxn, 2, "body")); len(back) != 0 {
		t.Errorf("came back: %q", back)
	}
	<-sprung
	select {
	case is := <-got:
		t.Errorf("the server got request %d whole", is)
	default:
	}
}

func TestARoadCanBeCutShutAndStalled(t *testing.T) {
	p, c, _ := through(t)
	if back := send(t, c, 18, request(produce, 1, "")); len(back) != 18 {
		t.Fatalf("came back: %q", back)
	}
	if n := p.cut(true); n != 1 {
		t.Errorf("%d connections were cut", n)
	}
	if back := send(t, c, 18, request(produce, 2, "")); len(back) != 0 {
		t.Errorf("came back over a connection that was cut: %q", back)
	}
	p.setShut(true)
	if back := send(t, dial(t, p), 18, request(produce, 3, "")); len(back) != 0 {
		t.Errorf("came back over a road that is shut: %q", back)
	}
	p.setShut(false)

	p.stall()
	c = dial(t, p)
	_ = c.SetDeadline(time.Now().Add(100 * time.Millisecond))
	if back := send(t, c, 18, request(produce, 4, "")); len(back) != 0 {
		t.Errorf("came back over a road that is stalled: %q", back)
	}
	p.goOn()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if back := send(t, c, 18); !bytes.Equal(back, reply(4, "0123456789")) {
		t.Errorf("what was on its way has not come: %q", back)
	}
	p.setLatency(50 * time.Millisecond)
	began := time.Now()
	if back := send(t, c, 18, request(produce, 5, "")); len(back) != 18 || time.Since(began) < 100*time.Millisecond {
		t.Errorf("%q came back in %s", back, time.Since(began))
	}
	if err := p.fault(); err != nil {
		t.Error(err)
	}
}

package store_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"learnsink/handlers"
	"learnsink/store"
)

// proxy stands between a store and its database. Armed, it cuts the first
// connection that sends a COMMIT: after passing the COMMIT on (and reading the
// reply, so that it surely took effect), or instead.
type proxy struct {
	listener net.Listener
	server   string
	cut      atomic.Int32 // 0: not armed
	cuts     atomic.Int32 // how many were cut
	after    atomic.Int32 // the connection is cut at so many sendings from now on; 0: not armed
	mu       sync.Mutex
	conns    []net.Conn
}

const (
	passThenCut = 1 + iota
	cutAtOnce
	passAndCutUnread // passes the COMMIT on and cuts without waiting for its effect
)

func newProxy(t *testing.T, address string) (*proxy, string) {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil || u.Host == "" {
		t.Skip("the database's address is not one to put a proxy before")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{listener: l, server: u.Host}
	go p.run()
	t.Cleanup(func() {
		l.Close()
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, c := range p.conns {
			c.Close()
		}
	})
	u.Host = l.Addr().String()
	return p, u.String()
}

func (p *proxy) run() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", p.server)
		if err != nil {
			client.Close()
			continue
		}
		p.mu.Lock()
		p.conns = append(p.conns, client, server)
		p.mu.Unlock()
		cut := make(chan struct{})
		go p.up(client, server, cut)
		go p.down(client, server, cut)
	}
}

// up passes the client's bytes on, and looks for a COMMIT among them.
func (p *proxy) up(client, server net.Conn, cut chan struct{}) {
	defer server.Close()
	buf := make([]byte, 1<<16)
	for {
		n, err := client.Read(buf)
		if p.after.Load() > 0 && p.after.Add(-1) == 0 {
			p.cuts.Add(1)
			client.Close()
			return
		}
		if commits(buf[:n]) {
			switch how := p.cut.Swap(0); how {
			case passThenCut:
				close(cut) // down ends with the next reply
				p.cuts.Add(1)
			case cutAtOnce, passAndCutUnread:
				p.cuts.Add(1)
				if how == passAndCutUnread {
					_, _ = server.Write(buf[:n])
				}
				client.Close()
				return
			}
		}
		if _, werr := server.Write(buf[:n]); err != nil || werr != nil {
			return
		}
	}
}

// commits reports whether a message is a COMMIT.
func commits(message []byte) bool {
	const head = "Q\x00\x00\x00\x0b"
	return bytes.HasPrefix(message, []byte(head)) && len(message) >= len(head)+6 && bytes.EqualFold(message[len(head):len(head)+6], []byte("COMMIT"))
}

func (p *proxy) down(client, server net.Conn, cut chan struct{}) {
	defer client.Close()
	buf := make([]byte, 1<<16)
	for {
		n, err := server.Read(buf)
		select {
		case <-cut:
			return
		default:
		}
		if _, werr := io.Copy(client, bytes.NewReader(buf[:n])); err != nil || werr != nil {
			return
		}
	}
}

func TestLostCommit(t *testing.T) {
	for name, how := range map[string]int32{
		"the COMMIT took effect and its reply was lost": passThenCut,
		"the COMMIT never arrived":                      cutAtOnce,
		"nobody knows how far the COMMIT came":          passAndCutUnread,
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			p, address := newProxy(t, w.url)
			src := source(t, handlers.Tracking)
			if how == passAndCutUnread {
				// A COMMIT that takes its time: who looks past it sees nothing yet.
				w.exec(`CREATE FUNCTION learnsink.slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.1); RETURN NULL; END'`)
				w.exec(`CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON learnsink.ledger DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION learnsink.slow()`)
			}
			o := w.claim(open(t, address), src, 0)
			for i := range int64(10) {
				b := o.batch(track(src, i, day, int(i), 1))
				p.cut.Store(how)
				if err := o.st.Apply(t.Context(), b); err != nil {
					t.Fatal(err)
				}
				o.NextOffset = b.To
			}
			if p.cuts.Load() != 10 {
				t.Fatalf("%d COMMITs were cut, not 10", p.cuts.Load())
			}
			if got := w.text(`SELECT next_offset, accepted, (SELECT count(*) FROM learnsink.tracking), (SELECT count(*) FROM learnsink.ledger) FROM learnsink.position`); got != "(10,10,10,10)" {
				t.Errorf("what is there: %s", got)
			}
			w.audit()
		})
	}
	t.Run("somebody else claimed meanwhile", func(t *testing.T) {
		w := newWorld(t)
		p, address := newProxy(t, w.url)
		src := source(t, handlers.Tracking)
		o := w.claim(open(t, address), src, 0)
		b := o.batch(track(src, 0, day, 1, 1))
		encode := b.Encode
		w.exec(`CREATE FUNCTION learnsink.claimed() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.epoch := NEW.epoch + 1; RETURN NEW; END'`)
		b.Encode = func(ds []handlers.Decision) ([]byte, error) {
			p.cut.Store(passThenCut)
			return encode(ds)
		}
		w.exec(`CREATE TRIGGER claimed BEFORE UPDATE ON learnsink.position FOR EACH ROW EXECUTE FUNCTION learnsink.claimed()`)
		if err := o.st.Apply(t.Context(), b); err == nil || !strings.Contains(err.Error(), handlers.ErrFenced.Error()) {
			t.Fatalf("%v, want ErrFenced", err)
		}
	})
	t.Run("the caller's time is up before it can be known", func(t *testing.T) {
		w := newWorld(t)
		p, address := newProxy(t, w.url)
		src := source(t, handlers.Tracking)
		o := w.claim(open(t, address), src, 0)
		b := o.batch(track(src, 0, day, 1, 1))
		ctx, cancel := context.WithCancel(t.Context())
		encode := b.Encode
		b.Encode = func(ds []handlers.Decision) ([]byte, error) {
			p.cut.Store(passThenCut)
			p.listener.Close() // nobody comes through any more
			time.AfterFunc(300*time.Millisecond, cancel)
			return encode(ds)
		}
		err := o.st.Apply(ctx, b)
		if err == nil || store.Classify(err) != store.Transient {
			t.Fatalf("%v, want a transient error", err)
		}
		if b.Decisions[0].Tracking == nil {
			t.Error("the decisions are not as they came")
		}
		if got := w.text(`SELECT next_offset FROM learnsink.position`); got != "(1)" {
			t.Errorf("the COMMIT took effect: %s", got)
		}
	})
}

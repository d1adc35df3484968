package e2e_test

import (
	"net"
	"net/url"
	"sync/atomic"
	"testing"
	"time"

	"learnsink/test/proxy"
)

// road is a road to the database that can be cut and opened again.
type road struct {
	*proxy.Proxy
	url  string // the server's, by this road
	lost atomic.Int64
}

func newRoad(t *testing.T, address string) *road {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal("DATABASE_URL is no URL")
	}
	p, err := proxy.New(proxy.Postgres)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	target := u.Host
	if u.Port() == "" {
		target = net.JoinHostPort(u.Hostname(), "5432")
	}
	p.Serve(target)
	u.Host = p.Address()
	return &road{Proxy: p, url: u.String()}
}

// loseReplies loses the reply of one COMMIT in so many, of none with 0, and
// returns how many it has lost before.
func (r *road) loseReplies(every int) int {
	if r.RemoveTrap(); every > 0 {
		r.SetTrap(proxy.Trap{Is: proxy.Commit, Reply: true, Every: every, Sprung: func() { r.lost.Add(1) }})
	}
	return int(r.lost.Load())
}

// cut breaks every connection and takes no new one.
func (r *road) cut() {
	r.SetShut(true)
	r.Cut(false)
	select {
	case <-r.Refused(): // of an earlier cut
	default:
	}
}

// open lets everybody through again.
func (r *road) open() { r.SetShut(false) }

// refused waits until somebody has come to the shut road.
func (r *road) refused(t *testing.T) {
	t.Helper()
	select {
	case <-r.Refused():
	case <-time.After(30 * time.Second):
		t.Fatal("nobody tried the road while it was shut")
	}
}

package e2e_test

import (
	"net"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"learnsink/test/rowgen"
)

// A broker that goes away and comes back with its data: what was read before
// is published, what comes after is read, nothing is rejected for it. A real
// broker is not ours to stop.
func TestBrokerAway(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port, dir := l.Addr().(*net.TCPAddr).Port, t.TempDir()
	l.Close()
	var broker *kfake.Cluster
	start := func() {
		t.Helper()
		if broker, err = kfake.NewCluster(kfake.NumBrokers(1), kfake.Ports(port), kfake.DataDir(dir),
			kfake.BrokerConfigs(map[string]string{"group.initial.rebalance.delay.ms": "0"})); err != nil {
			t.Fatal(err)
		}
	}
	start()
	t.Cleanup(func() { broker.Close() })
	h := rowgenHouse(t, strings.Join(broker.ListenAddrs(), ","), "batch: {rows: 100}\n")
	s, g := &story{}, rowgen.New(rowgen.Config{Seed: 13, Bad: 0.1, Plain: true})
	h.tell(s, g, 3000)
	p := h.start("", "serve")
	for range 3 {
		before := h.applied()
		h.eventually("some rows applied", 40*time.Second, func() bool { return h.applied() > before })
		broker.Close()
		h.eventually("the position stands still", 20*time.Second, func() bool {
			n := h.applied()
			<-time.After(200 * time.Millisecond)
			return h.applied() == n
		})
		start()
		h.tell(s, g, 500)
	}
	h.caughtUp(60 * time.Second)
	p.stop()
	h.check(s)
}

package main

import (
	"context"
	"fmt"
	"strings"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"learnsink/test/oracle"
)

// lose deletes rows from a source before they are read. The partition has to
// stop there, name exactly what is gone, and leave the others alone; then an
// operator sets it to where the log begins now.
func lose(ctx context.Context, n *nemesis) (string, error) {
	p := partition{lost, n.r.Int32N(2)}
	unread := 100 + n.r.IntN(200)
	gone, err := n.deleteAhead(ctx, p, unread)
	if err != nil {
		return "", err
	}
	// What is stopped stands still, and so can be read at leisure.
	stopped := func(s stand) bool { return s.state == "data_lost" }
	if !n.awaits(ctx, 30*time.Second, func() bool { return stopped(n.watch.of(p)) }) {
		n.faultf("rows %d to %d of %s were deleted ahead of it, and 30 s later it is %+v, not data_lost", n.watch.of(p).next, gone.To-1, p, n.watch.of(p))
		return "", nil
	}
	at := n.watch.of(p)
	gone.Unread = at.next
	if want := fmt.Sprintf("offsets %d to %d ", gone.Unread, gone.To-1); !strings.Contains(at.reason, want) {
		n.faultf("%s is data_lost, but its reason does not name %s: %s", p, want, at.reason)
	}
	before := n.watch.progress()
	if !n.awaits(ctx, 30*time.Second, func() bool { return n.watch.progress() > before }) {
		n.faultf("%s is data_lost, and the other partitions stand still too", p)
	}
	n.sender.mu.Lock()
	n.sender.story.Gone = append(n.sender.story.Gone, gone)
	n.sender.mu.Unlock()
	if out, err := n.verb(ctx, "position", "set", "--topic", p.topic, "--partition", fmt.Sprint(p.n), "--to", "beginning", "--execute", "--why", "chaos"); err != nil {
		n.faultf("an operator cannot go on after lost rows: %v: %s", err, out)
		return "", nil
	}
	if !n.awaits(ctx, 30*time.Second, func() bool { s := n.watch.of(p); return s.next > gone.To && !stopped(s) }) {
		n.faultf("%s was set to the beginning of its log, and 30 s later it is %+v", p, n.watch.of(p))
	}
	return fmt.Sprintf("offsets %d to %d of %s", gone.Unread, gone.To-1, p), nil
}

// deleteAhead sends rows that nobody can read, and deletes most of them.
func (n *nemesis) deleteAhead(ctx context.Context, p partition, unread int) (gone oracle.Gone, err error) {
	resume := n.sender.pause()
	defer resume()
	if err := n.kafka.stable(ctx, p); err != nil {
		return gone, err
	}
	// Asleep and without connections: not even a request in flight can bring them.
	for _, m := range n.members {
		if err := m.signal(syscall.SIGSTOP); err != nil {
			return gone, err
		}
		m.kafka.SetShut(true)
		m.kafka.Cut(true)
	}
	defer func() {
		for _, m := range n.members {
			m.kafka.SetShut(false)
			if failed := m.signal(syscall.SIGCONT); err == nil {
				err = failed
			}
		}
	}()
	if err := n.sender.sendApart(ctx, p.n, unread); err != nil {
		return gone, fmt.Errorf("send to %s: %w", p, err)
	}
	ends, _, err := n.kafka.committed(ctx, p.topic)
	if err != nil {
		return gone, err
	}
	const left = 20
	gone = oracle.Gone{Topic: p.topic, Partition: p.n, To: ends[p] - left}
	if gone.Outcomes, err = n.sender.story.Read(ctx, []string{n.kafka.Address}, p.topic, p.n, ends[p]); err != nil {
		return gone, err
	}
	offsets := kadm.Offsets{}
	offsets.AddOffset(p.topic, p.n, gone.To, -1)
	deleted, err := n.kafka.Admin.DeleteRecords(ctx, offsets)
	if err == nil {
		err = deleted.Error()
	}
	return gone, err
}

// awaits waits until something is so; false: it is not within that time.
func (n *nemesis) awaits(ctx context.Context, most time.Duration, is func() bool) bool {
	for deadline := time.Now().Add(most); !is(); {
		if time.Now().After(deadline) || !sleep(ctx, 50*time.Millisecond) {
			return false
		}
	}
	return true
}

package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"learnsink/test/proxy"
)

// fault is one kind of what is done to learnsink.
type fault struct {
	name string
	how  string
	// weight is how often it comes, once every kind has been there.
	weight int
	// publish: only where learnsink publishes so; "" always.
	publish string
	// do does it and undoes it, and says what exactly it did. An error is the
	// chaos's own: then nothing can be concluded from the run.
	do func(ctx context.Context, n *nemesis) (detail string, err error)
}

// strike is a fault that came.
type strike struct {
	fault  *fault
	detail string
	began  time.Time
	took   time.Duration
}

// nemesis does fault after fault.
type nemesis struct {
	*arena
	r       *rand.Rand
	strikes []strike
	killed  []killed
	rolled  int // which binary is the next
	grows   int // how many partitions were added
}

// killed is a process that was killed.
type killed struct {
	who string
	at  time.Time
}

// schedule yields kinds of faults: each once, in any order, then one after
// another by their weights.
func schedule(r *rand.Rand, kinds []*fault) func() *fault {
	first := slices.Clone(kinds)
	r.Shuffle(len(first), func(i, j int) { first[i], first[j] = first[j], first[i] })
	total := 0
	for _, f := range kinds {
		total += f.weight
	}
	return func() *fault {
		if len(first) > 0 {
			f := first[0]
			first = first[1:]
			return f
		}
		n := r.IntN(total)
		for _, f := range kinds {
			if n -= f.weight; n < 0 {
				return f
			}
		}
		panic("unreachable: the weights add up")
	}
}

// kinds are the faults that come in a run.
func (o options) kinds() (all []*fault) {
	for _, f := range faults {
		if (f.publish == "" || f.publish == o.publish) && (o.only == "" || slices.Contains(strings.Split(o.only, ";"), f.name)) {
			all = append(all, f)
		}
	}
	return all
}

// run does faults until the time is over. What it leaves is whole again.
func (n *nemesis) run(ctx context.Context, end time.Time) error {
	next := schedule(n.r, n.kinds())
	for time.Now().Before(end) {
		f := next()
		began := time.Now()
		detail, err := f.do(ctx, n)
		if err != nil {
			return fmt.Errorf("fault %q: %w", f.name, err)
		}
		s := strike{f, detail, began, time.Since(began)}
		n.strikes = append(n.strikes, s)
		n.report.strikes = append(n.report.strikes, s)
		if n.verbose {
			say("%3d %s: %s (%s; lag %d)", len(n.strikes), f.name, detail, s.took.Round(10*time.Millisecond), n.watch.lag())
		}
		if err := n.sound(); err != nil {
			return err
		}
		// So that faults come upon work that goes on, and on what others have left.
		if !sleep(ctx, n.between(200*time.Millisecond, 1500*time.Millisecond)) {
			return ctx.Err()
		}
	}
	return nil
}

// sound: processes run, unless we ended them, and the proxies understand what they carry.
func (n *nemesis) sound() error {
	for _, m := range n.members {
		if m.hasEnded() {
			n.faultf("%s has ended by itself: %s", m.name(), m.cmd.ProcessState)
			if err := m.start(); err != nil {
				return err
			}
		}
		for _, p := range []*proxy.Proxy{m.kafka, m.db} {
			if err := p.Fault(); err != nil {
				return fmt.Errorf("a proxy of place %d: %w", m.place, err)
			}
		}
	}
	return nil
}

// between draws a time.
func (n *nemesis) between(lo, hi time.Duration) time.Duration {
	return lo + time.Duration(n.r.Int64N(int64(hi-lo)))
}

// victim draws a member, the elder not.
func (n *nemesis) victim() *member { return n.members[1+n.r.IntN(len(n.members)-1)] }

// some draws a member, or all of them.
func (n *nemesis) some() (members []*member, who string) {
	if n.r.IntN(2) == 0 {
		return n.members, "all"
	}
	m := n.members[n.r.IntN(len(n.members))]
	return []*member{m}, m.name()
}

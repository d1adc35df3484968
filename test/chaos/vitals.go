package main

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// vitals are what the processes take of the machine, over time.
type vitals struct {
	arena *arena
	taken []takes // of the elder
	most  takes   // of all
}

func (v *vitals) run(ctx context.Context) {
	for ; ctx.Err() == nil; sleep(ctx, 2*time.Second) {
		for _, m := range v.arena.members {
			asking, cancel := context.WithTimeout(ctx, time.Second)
			t, err := m.takes(asking)
			cancel()
			if err != nil || t.goroutines == 0 {
				continue // it is being killed, or sleeps
			}
			if m.place == elder {
				v.taken = append(v.taken, t)
			}
			v.most.memory, v.most.goroutines = max(v.most.memory, t.memory), max(v.most.goroutines, t.goroutines)
		}
	}
}

const (
	megabyte = 1 << 20
	// What memory and goroutines may grow by, whatever they were: a process
	// has more of both while it owns more partitions.
	tolerated           = 64 * megabyte
	toleratedGoroutines = 64
)

// level compares the beginning of the chaos with its end, as the elder took
// it: the medians of the second and of the last fifth of what was measured.
// The first fifth is the calm, and warming up.
func level(taken []takes) (early, late takes, err error) {
	fifth := len(taken) / 5
	if fifth < 5 {
		return early, late, fmt.Errorf("%d measurements of memory and goroutines are too few", len(taken))
	}
	early, late = median(taken[fifth:2*fifth]), median(taken[len(taken)-fifth:])
	return early, late, nil
}

// grown says what has clearly grown; "" is nothing.
func grown(early, late takes) string {
	switch {
	case late.memory > 1.5*early.memory && late.memory-early.memory > tolerated:
		return fmt.Sprintf("memory has grown from %.0f to %.0f MiB", early.memory/megabyte, late.memory/megabyte)
	case late.goroutines > 2*early.goroutines && late.goroutines-early.goroutines > toleratedGoroutines:
		return fmt.Sprintf("goroutines have grown from %.0f to %.0f", early.goroutines, late.goroutines)
	}
	return ""
}

func median(of []takes) takes {
	middle := func(get func(takes) float64) float64 {
		var all []float64
		for _, t := range of {
			all = append(all, get(t))
		}
		slices.Sort(all)
		return all[len(all)/2]
	}
	return takes{memory: middle(func(t takes) float64 { return t.memory }), goroutines: middle(func(t takes) float64 { return t.goroutines })}
}

package main

import "testing"

func TestGrowthIsTold(t *testing.T) {
	for _, c := range []struct {
		name              string
		memory, goroutine float64 // at the end; at the beginning 100 MiB and 30
		want              bool
	}{
		{"level", 101, 31, false}, {"a little", 140, 50, false}, {"memory", 170, 30, true}, {"more partitions", 100, 70, false}, {"goroutines", 100, 100, true},
	} {
		var taken []takes
		for n := range 100 {
			share := float64(n) / 99
			taken = append(taken, takes{memory: (100 + (c.memory-100)*share) * megabyte, goroutines: 30 + (c.goroutine-30)*share})
		}
		for n := 80; n < 100; n++ {
			taken[n] = takes{memory: c.memory * megabyte, goroutines: c.goroutine}
		}
		for n := range 40 {
			taken[n] = takes{memory: 100 * megabyte, goroutines: 30}
		}
		early, late, err := level(taken)
		if err != nil {
			t.Fatal(err)
		}
		if what := grown(early, late); (what != "") != c.want {
			t.Errorf("%s: %q", c.name, what)
		}
	}
	if _, _, err := level(make([]takes, 10)); err == nil {
		t.Error("ten measurements are enough")
	}
}

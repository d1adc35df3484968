package handlers

import (
	"math"
	"math/rand/v2"
	"strconv"
	"testing"
	"time"
)

// FuzzParseFloat holds the short ways of numbers, in and out, against strconv.
func FuzzParseFloat(f *testing.F) {
	for _, s := range []string{"", "0", "-0", "-0.0", "17.5", "0.07", "1.005", "100", "-3.10", "0.1e1", "999999999999.99", "123456789012345", "0.00000000000001", "9007199254740993", "1e400", "01", "1.", ".5", "-", "1e", "1e+"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		v, ok := parseFloat(s)
		if n := numberLength(s); ok && n != len(s) {
			t.Fatalf("%q is read, and is no number", s)
		}
		if !ok {
			return
		}
		if want, err := strconv.ParseFloat(s, 64); err != nil || v != want || math.Signbit(v) && v == 0 {
			t.Fatalf("%q is read as %v, want %v, %v", s, v, want, err)
		}
		checkFloat(t, v)
	})
}

func TestAppendFloat(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		v := math.Float64frombits(r.Uint64())
		if v-v == 0 { // finite
			checkFloat(t, v)
		}
		n := r.Int64N(1 << (1 + r.Uint64N(53)))
		for power := 1.0; power <= 1e6; power *= 10 {
			checkFloat(t, float64(n)/power)
			checkFloat(t, -float64(n+1)/power)
			checkFloat(t, math.Nextafter(float64(n)/power, 1e300))
		}
	}
}

func checkFloat(t *testing.T, v float64) {
	t.Helper()
	format := byte('f')
	if abs := math.Abs(v); abs != 0 && (abs < 1e-6 || abs >= 1e21) {
		format = 'e'
	}
	if got, want := string(appendFloat(nil, v)), strconv.FormatFloat(v, format, -1, 64); got != want {
		t.Fatalf("%v is written as %s, want %s", v, got, want)
	}
}

func TestAppendTime(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	first, last := time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
	times := []time.Time{first, last, last.Add(time.Second - time.Nanosecond), time.Unix(0, 0)}
	for range 20_000 {
		s := first.Unix() + r.Int64N(last.Unix()-first.Unix())
		nanos := r.Int64N(1e9)
		times = append(times, time.Unix(s, 0), time.Unix(s, nanos), time.Unix(s, nanos/1e6*1e6), time.Unix(s, nanos/1e3*1e3))
	}
	for _, at := range times {
		if got, want := string(appendTime(nil, at)), at.UTC().Format(time.RFC3339Nano); got != want {
			t.Fatalf("%s is written as %s", want, got)
		}
	}
}

package handlers

import (
	"fmt"
	"math/big"
	"strings"
	"testing"
)

func TestTimeSpent(t *testing.T) {
	const bad, out = -1, -2
	for _, c := range []struct {
		format timeSpentFormat
		value  string
		want   int64
	}{
		{rawSeconds, "0", 0},
		{rawSeconds, "-0", 0},
		{rawSeconds, "5115", 5115},
		{rawSeconds, "007", 7},
		{rawSeconds, "2147483647", 2147483647},
		{rawSeconds, "2147483648", out},
		{rawSeconds, "-1", out},
		{rawSeconds, "99999999999999999999999999", out},
		{rawSeconds, "-99999999999999999999999999", out},
		{rawSeconds, "", bad},
		{rawSeconds, "-", bad},
		{rawSeconds, "+5", bad},
		{rawSeconds, "5.0", bad},
		{rawSeconds, "5e2", bad},
		{rawSeconds, "5 ", bad},
		{rawSeconds, "0x10", bad},
		{rawSeconds, "٣", bad},

		{rawMinutes, "0", 0},
		{rawMinutes, "85", 5100},
		{rawMinutes, "85.25", 5115},
		{rawMinutes, "85.2", 5112},
		{rawMinutes, "0.01", 1}, // 0.6 s
		{rawMinutes, "0.02", 1}, // 1.2 s
		{rawMinutes, "0.99", 59},
		{rawMinutes, "-0.00", 0},
		{rawMinutes, "-0.01", out},
		{rawMinutes, "-3", out},
		{rawMinutes, "35791394.12", 2147483647},
		{rawMinutes, "35791394.13", out},
		{rawMinutes, "99999999999999999999999999.99", out},
		{rawMinutes, "85.255", bad},
		{rawMinutes, "85.", bad},
		{rawMinutes, ".5", bad},
		{rawMinutes, "85,5", bad},
		{rawMinutes, "1e2", bad},
		{rawMinutes, "1:30", bad},

		{isoTime, "PT1H25M15S", 5115},
		{isoTime, "P1DT1S", 86401},
		{isoTime, "P2D", 172800},
		{isoTime, "PT90M", 5400},
		{isoTime, "PT1H15S", 3615},
		{isoTime, "PT0S", 0},
		{isoTime, "-PT0S", 0},
		{isoTime, "-PT5S", out},
		{isoTime, "PT2147483647S", 2147483647},
		{isoTime, "PT2147483648S", out},
		{isoTime, "P99999999999999999999D", out},
		{isoTime, "P", bad},
		{isoTime, "PT", bad},
		{isoTime, "P1DT", bad},
		{isoTime, "PT1", bad},
		{isoTime, "1H", bad},
		{isoTime, "T1H", bad},
		{isoTime, "P1H", bad},
		{isoTime, "PT1D", bad},
		{isoTime, "PT1S1M", bad},
		{isoTime, "PT1H1H", bad},
		{isoTime, "PT1HT1M", bad},
		{isoTime, "P1W", bad},
		{isoTime, "P1M", bad},
		{isoTime, "P1Y", bad},
		{isoTime, "PT1.5S", bad},
		{isoTime, "PT1,5H", bad},
		{isoTime, "pt1h", bad},
		{isoTime, "PT-5S", bad},
		{isoTime, "PT1H ", bad},

		{padded, "001:25", 5100},
		{padded, "000:00", 0},
		{padded, "1234:59", 1234*3600 + 59*60},
		{padded, "596523:14", 2147483640},
		{padded, "596523:15", out},
		{padded, "-001:25", out},
		{padded, "-000:00", 0},
		{padded, "99999999999999999999:00", out},
		{padded, "01:25", bad},
		{padded, "001:60", bad},
		{padded, "001:5", bad},
		{padded, "001:255", bad},
		{padded, "00125", bad},
		{padded, "001:25:15", bad},
		{padded, "001.25", bad},

		{paddedHH, "01:25", 5100},
		{paddedHH, "001:25", 5100},
		{paddedHH, "123:00", 442800},
		{paddedHH, "-01:00", out},
		{paddedHH, "1:25", bad},
		{paddedHH, "01:60", bad},
		{paddedHH, "0125", bad},
		{paddedHH, ":25", bad},
	} {
		t.Run(fmt.Sprintf("%s reads %s", c.format, c.value), func(t *testing.T) {
			got, res := c.format.parse(c.value)
			switch res {
			case malformed:
				got = bad
			case beyond:
				got = out
			}
			if got != c.want {
				t.Errorf("got %d, want %d", got, c.want)
			}
		})
	}
}

func TestTimeSpentFormatNames(t *testing.T) {
	for f := range timeSpentFormats {
		if got, ok := parseTimeSpentFormat(f.String()); !ok || got != f {
			t.Errorf("%s: %v", f, got)
		}
	}
	if _, ok := parseTimeSpentFormat("seconds"); ok {
		t.Error("an unknown format has been found")
	}
}

func FuzzTimeSpent(f *testing.F) {
	for _, seed := range []string{"5115", "-1", "85.25", "PT1H25M15S", "-P1DT5S", "001:25", "01:25", "99999999999999999999", "9223372036854775808.99"} {
		for format := range timeSpentFormats {
			f.Add(uint8(format), seed)
		}
	}
	f.Fuzz(func(t *testing.T, n uint8, value string) {
		format := timeSpentFormat(n) % timeSpentFormats
		seconds, res := format.parse(value)
		if seconds < 0 || seconds > maxTimeSpent || res != parsed && seconds != 0 {
			t.Fatalf("%s %q: %d, %d", format, value, seconds, res)
		}
		if format != rawSeconds && format != rawMinutes {
			return
		}
		// Numbers, held against exact arithmetic.
		if strings.ContainsAny(value, "eE_/+xXpPbBoOnN") || strings.HasPrefix(strings.TrimPrefix(value, "-"), ".") || strings.HasSuffix(value, ".") || len(value) > 100 {
			return
		}
		exact, ok := new(big.Rat).SetString(value)
		if !ok {
			if res != malformed {
				t.Fatalf("%s reads %q", format, value)
			}
			return
		}
		_, decimals, point := strings.Cut(value, ".")
		if len(decimals) > 2 || point && format == rawSeconds {
			if res != malformed {
				t.Fatalf("%s reads %q", format, value)
			}
			return
		}
		negative := exact.Sign() < 0
		if format == rawMinutes {
			exact.Mul(exact, big.NewRat(60, 1)).Add(exact, big.NewRat(1, 2))
		}
		whole := new(big.Int).Div(exact.Num(), exact.Denom())
		fits := !negative && whole.Cmp(big.NewInt(maxTimeSpent)) <= 0
		if fits != (res == parsed) || fits && whole.Int64() != seconds {
			t.Fatalf("%s %q: %d, %d", format, value, seconds, res)
		}
	})
}

package handlers

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"
	"time"
)

// zone loads a time zone or fails the test.
func zone(t testing.TB, name string) *clocks {
	t.Helper()
	clocks, ok := loadZone(name)
	if !ok {
		t.Fatalf("zone %s is not known", name)
	}
	return clocks
}

// shown formats what a reader of dates answered.
func shown(at time.Time, ok bool) string {
	if !ok {
		return "mismatch"
	}
	if at.Location() != time.UTC {
		return "not in UTC: " + at.String()
	}
	return at.Format(time.RFC3339Nano)
}

const defaultFormat = "YYYY-MM-DD hh:ii:ss"

func TestDateTimeFormat(t *testing.T) {
	for _, c := range []struct {
		format, defaultTime, zone string
		value, want               string
	}{
		// The default format.
		{defaultFormat, "", "", "2024-06-03 10:20:30", "2024-06-03T10:20:30Z"},
		{defaultFormat, "", "", "2024-06-03", "2024-06-03T00:00:00Z"},
		{defaultFormat, "08:30:15", "", "2024-06-03", "2024-06-03T08:30:15Z"},
		{defaultFormat, "08:30:15", "", "2024-06-03 10:20:30", "2024-06-03T10:20:30Z"},
		{defaultFormat, "", "", "2024-06-03 ", "mismatch"}, // white space around a value is gone before
		{defaultFormat, "", "", "2024-06-03 10", "mismatch"},
		{defaultFormat, "", "", "2024-06-03 10:20", "mismatch"},
		{defaultFormat, "", "", "2024-06-03 10:20:", "mismatch"},
		{defaultFormat, "", "", "2024-06-03 10:20:3", "mismatch"},
		{defaultFormat, "", "", "2024-06-03T10:20:30", "mismatch"},
		{defaultFormat, "", "", "2024-06-03 10:20:30Z", "mismatch"},
		{defaultFormat, "", "", "2024-06-03 10:20:30.5", "mismatch"},
		{defaultFormat, "", "", "2024-6-3 10:20:30", "mismatch"},
		{defaultFormat, "", "", "2024/06/03 10:20:30", "mismatch"},
		{defaultFormat, "", "", "2024-06", "mismatch"},
		{defaultFormat, "", "", "2024", "mismatch"},
		{defaultFormat, "", "", "", "mismatch"},
		{defaultFormat, "", "", "٢٠٢٤-06-03", "mismatch"},
		{defaultFormat, "", "", "+024-06-03", "mismatch"},
		// Real dates, years and times only.
		{defaultFormat, "", "", "2024-02-29", "2024-02-29T00:00:00Z"},
		{defaultFormat, "", "", "2019-02-29", "mismatch"},
		{defaultFormat, "", "", "1900-02-29", "mismatch"},
		{defaultFormat, "", "", "2000-02-29", "2000-02-29T00:00:00Z"},
		{defaultFormat, "", "", "2024-04-31", "mismatch"},
		{defaultFormat, "", "", "2024-13-01", "mismatch"},
		{defaultFormat, "", "", "2024-00-01", "mismatch"},
		{defaultFormat, "", "", "2024-01-00", "mismatch"},
		{defaultFormat, "", "", "0000-01-01", "mismatch"},
		{defaultFormat, "", "", "0001-01-01", "0001-01-01T00:00:00Z"},
		{defaultFormat, "", "", "9999-12-31 23:59:59", "9999-12-31T23:59:59Z"},
		{defaultFormat, "", "", "2024-06-03 24:00:00", "mismatch"},
		{defaultFormat, "", "", "2024-06-03 23:60:00", "mismatch"},
		{defaultFormat, "", "", "2024-06-03 23:59:60", "mismatch"},
		// A year that only UTC leaves.
		{defaultFormat, "", "Asia/Tokyo", "0001-01-01 00:00:00", "mismatch"},
		{defaultFormat, "", "America/New_York", "9999-12-31 23:00:00", "mismatch"},
		// Letters in any case, single letters, any order.
		{"yyyy-mm-dd HH:II:SS", "", "", "2024-06-03 10:20:30", "2024-06-03T10:20:30Z"},
		{"dD/Mm/YyYy hH:iI", "", "", "03/06/2024 10:20", "2024-06-03T10:20:00Z"},
		{"D/M/YYYY h:i:s", "", "", "3/6/2024 1:2:3", "2024-06-03T01:02:03Z"},
		{"D/M/YYYY h:i:s", "", "", "03/12/2024 01:22:03", "2024-12-03T01:22:03Z"},
		{"D/M/YYYY", "", "", "3/123/2024", "mismatch"},
		{"D/M/YYYY", "", "", "//2024", "mismatch"},
		{"MM.DD.YYYY", "", "", "12.31.2023", "2023-12-31T00:00:00Z"},
		{"YYYY, MM; DD_hh,ii", "", "", "2024, 06; 03_10,20", "2024-06-03T10:20:00Z"},
		{"YYYY, MM; DD_hh,ii", "07:00:01", "", "2024, 06; 03", "2024-06-03T07:00:01Z"},
		{"YYYY, MM; DD_hh,ii", "07:00:01", "", "2024, 06; 03_", "mismatch"},
		// Without separators.
		{"YYYYMMDDHHIISS", "", "", "20240603102030", "2024-06-03T10:20:30Z"},
		{"YYYYMMDDHHIISS", "", "", "20240603", "2024-06-03T00:00:00Z"},
		{"YYYYMMDDHHIISS", "", "", "2024060310", "mismatch"},
		{"YYYYMMDDHHIISS", "", "", "202406031020301", "mismatch"},
		{"YYYYMD", "", "", "20241231", "2024-12-31T00:00:00Z"},
		{"YYYYMD", "", "", "2024111", "2024-11-01T00:00:00Z"}, // the longer reading first
		{"YYYYMD", "", "", "2024630", "2024-06-30T00:00:00Z"}, // there is no month 63
		{"YYYYMD", "", "", "202463", "2024-06-03T00:00:00Z"},
		{"YYYYMD", "", "", "2023229", "mismatch"},
		// Parts that are not in the format.
		{"YYYY-MM-DD hh:ii", "09:08:07", "", "2024-06-03 10:20", "2024-06-03T10:20:00Z"},
		{"YYYY-MM-DD hh", "09:08:07", "", "2024-06-03 10", "2024-06-03T10:00:00Z"},
		{"YYYY-MM-DD ss", "09:08:07", "", "2024-06-03 10", "2024-06-03T00:00:10Z"},
		{"YYYY-MM-DD", "09:08:07", "", "2024-06-03", "2024-06-03T09:08:07Z"},
		{"YYYY-MM-DD", "", "", "2024-06-03 10:20:30", "mismatch"},
		// The time first: such a value cannot stop after its date.
		{"hh:ii DD/MM/YYYY", "", "", "10:20 03/06/2024", "2024-06-03T10:20:00Z"},
		{"hh:ii DD/MM/YYYY", "", "", "03/06/2024", "mismatch"},
		{"hh DD/MM/YYYY ii", "", "", "10 03/06/2024", "mismatch"},
		// Time zones. What a clock change skips has the offset before it; what occurs twice is the first.
		{defaultFormat, "", "America/Sao_Paulo", "2024-06-03 10:00:00", "2024-06-03T13:00:00Z"},
		{defaultFormat, "", "Europe/Paris", "2024-03-31 01:59:59", "2024-03-31T00:59:59Z"},
		{defaultFormat, "", "Europe/Paris", "2024-03-31 02:00:00", "2024-03-31T01:00:00Z"},
		{defaultFormat, "", "Europe/Paris", "2024-03-31 02:30:00", "2024-03-31T01:30:00Z"},
		{defaultFormat, "", "Europe/Paris", "2024-03-31 03:00:00", "2024-03-31T01:00:00Z"},
		{defaultFormat, "", "Europe/Paris", "2024-10-27 02:00:00", "2024-10-27T00:00:00Z"},
		{defaultFormat, "", "Europe/Paris", "2024-10-27 02:59:59", "2024-10-27T00:59:59Z"},
		{defaultFormat, "", "Europe/Paris", "2024-10-27 03:00:00", "2024-10-27T02:00:00Z"},
		{defaultFormat, "", "America/New_York", "2024-03-10 02:30:00", "2024-03-10T07:30:00Z"},
		{defaultFormat, "", "America/New_York", "2024-11-03 01:30:00", "2024-11-03T05:30:00Z"},
		{defaultFormat, "", "America/Sao_Paulo", "2018-11-04", "2018-11-04T03:00:00Z"}, // no midnight that day
		{defaultFormat, "", "America/Sao_Paulo", "2018-02-17 23:30:00", "2018-02-18T01:30:00Z"},
		{defaultFormat, "", "Australia/Lord_Howe", "2024-10-06 02:15:00", "2024-10-05T15:45:00Z"}, // half an hour
		{defaultFormat, "", "Australia/Lord_Howe", "2024-04-07 01:45:00", "2024-04-06T14:45:00Z"},
		{defaultFormat, "", "Europe/Dublin", "2024-10-27 01:30:00", "2024-10-27T00:30:00Z"}, // negative daylight saving
		{defaultFormat, "", "Pacific/Apia", "2011-12-29 23:59:59", "2011-12-30T09:59:59Z"},
		{defaultFormat, "", "Pacific/Apia", "2011-12-30 12:00:00", "2011-12-30T22:00:00Z"}, // a day that was not
		{defaultFormat, "", "Pacific/Apia", "2011-12-31 00:00:00", "2011-12-30T10:00:00Z"},
		{defaultFormat, "", "Pacific/Kwajalein", "1993-08-21 12:00:00", "1993-08-22T00:00:00Z"},
		{defaultFormat, "", "America/Juneau", "1867-10-18 12:00:00", "1867-10-17T20:57:41Z"}, // a day twice
		{defaultFormat, "", "Asia/Kathmandu", "2024-06-03 10:00:00", "2024-06-03T04:15:00Z"},
		{defaultFormat, "", "America/New_York", "2099-07-01 12:00:00", "2099-07-01T16:00:00Z"}, // beyond the tables
		{defaultFormat, "", "America/New_York", "2099-03-08 02:30:00", "2099-03-08T07:30:00Z"},
		{defaultFormat, "", "America/New_York", "2040-12-31 12:00:00", "2040-12-31T17:00:00Z"}, // the 366th day
		{defaultFormat, "", "Australia/Lord_Howe", "2041-01-01 00:00:00", "2040-12-31T13:00:00Z"},
		{defaultFormat, "", "Europe/Paris", "1800-01-01 00:00:00", "1799-12-31T23:50:39Z"},
	} {
		if c.defaultTime == "" {
			c.defaultTime = "00:00:00"
		}
		if c.zone == "" {
			c.zone = "UTC"
		}
		t.Run(fmt.Sprintf("%s reads %s in %s", c.format, c.value, c.zone), func(t *testing.T) {
			clock, ok := parseClock(c.defaultTime)
			if !ok {
				t.Fatal("defaultTime", c.defaultTime)
			}
			f, err := compileDateTimeFormat(c.format, clock, zone(t, c.zone))
			if err != nil {
				t.Fatal(err)
			}
			if got := shown(f.parse(c.value)); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

func TestDateTimeFormatFaults(t *testing.T) {
	for _, format := range []string{
		"", " ", "YYYY", "YYYY-MM", "hh:ii:ss", "YYYY-MM hh:ii", // no whole date
		"YY-MM-DD", "YYY-MM-DD", "YYYYY-MM-DD", "Y-M-D", "YYYY-MMM-DD", "YYYY-MM-DDD", "YYYY-MM-DD hhh",
		"YYYY-MM-DD MM", "YYYYYYYY-MM-DD", "YYYY-MM-DD hh:mm:ss", "YYYY-MMMM-DD", "YYYY-DD-D-MM", // a part twice
		"YYYY-MM-DDThh:ii:ss", "YYYY-MM-DD hh:nn", "%Y-%m-%d", "YYYY\\MM\\DD", "YYYY-MM-DD+hh", "ÝYYY-MM-DD", "YYYY\tMM\tDD", "ISO8601",
		"-YYYY-MM-DD", "YYYY.MM.DD.", // a separator with nothing to separate
	} {
		want := "[dateTimeFormat] the given date format [" + format + "] is not valid. It should only contain the following characters (case insensitive): 'YMDHIS /_.:;,-'"
		if _, err := compileDateTimeFormat(format, civil{}, utc()); err == nil || err.Error() != want {
			t.Errorf("%q:\n got %v\nwant %s", format, err, want)
		}
	}
}

func TestParseClock(t *testing.T) {
	for text, want := range map[string]bool{
		"00:00:00": true, "23:59:59": true, "08:30:15": true,
		"": false, "8:30:15": false, "08:30": false, "24:00:00": false, "08:60:00": false, "08:00:60": false, "08.30.15": false, "08:30:1x": false, "08:30:150": false,
	} {
		if _, ok := parseClock(text); ok != want {
			t.Errorf("%q: %v", text, ok)
		}
	}
}

func TestParseISO8601(t *testing.T) {
	for _, c := range []struct{ zone, value, want string }{
		{"UTC", "2017-11-08", "2017-11-08T00:00:00Z"},
		{"UTC", "20171108", "2017-11-08T00:00:00Z"},
		{"Europe/Paris", "2017-11-08", "2017-11-07T23:00:00Z"},
		{"Europe/Paris", "20171108T1030", "2017-11-08T09:30:00Z"},
		{"UTC", "2017-11-08T10:30", "2017-11-08T10:30:00Z"},
		{"UTC", "2017-11-08T10:30:15", "2017-11-08T10:30:15Z"},
		{"UTC", "20171108T103015", "2017-11-08T10:30:15Z"},
		{"UTC", "2017-11-08T10:30:15.5", "2017-11-08T10:30:15.5Z"},
		{"UTC", "2017-11-08T10:30:15,25", "2017-11-08T10:30:15.25Z"},
		{"UTC", "20171108T103015,123456789Z", "2017-11-08T10:30:15.123456Z"}, // cut, not rounded
		{"UTC", "2017-11-08T10:30:15.9999999Z", "2017-11-08T10:30:15.999999Z"},
		{"UTC", "2017-11-08T10:30:15.0000009Z", "2017-11-08T10:30:15Z"},
		{"Europe/Paris", "2017-11-08T10:30Z", "2017-11-08T10:30:00Z"},
		{"UTC", "2017-11-08T10:30+02:00", "2017-11-08T08:30:00Z"},
		{"UTC", "2017-11-08T10:30+0200", "2017-11-08T08:30:00Z"},
		{"UTC", "2017-11-08T10:30+02", "2017-11-08T08:30:00Z"},
		{"UTC", "2017-11-08T10:30:15.5-03:30", "2017-11-08T14:00:15.5Z"},
		{"UTC", "20171108T1030-0330", "2017-11-08T14:00:00Z"},
		{"UTC", "20171108T1030-03:30", "2017-11-08T14:00:00Z"},
		{"UTC", "20171108T103015+05", "2017-11-08T05:30:15Z"},
		{"Europe/Paris", "2017-11-08Z", "2017-11-08T00:00:00Z"},
		{"UTC", "2017-11-08+02:00", "2017-11-07T22:00:00Z"},
		// The end of a day.
		{"UTC", "2017-11-08T24:00:00", "2017-11-09T00:00:00Z"},
		{"UTC", "2017-12-31T24:00", "2018-01-01T00:00:00Z"},
		{"UTC", "20171108T240000,000+0100", "2017-11-08T23:00:00Z"},
		{"America/Sao_Paulo", "2018-11-03T24:00:00", "2018-11-04T03:00:00Z"}, // a midnight that is skipped
		{"UTC", "2017-11-08T24:00:01", "mismatch"},
		{"UTC", "2017-11-08T24:01", "mismatch"},
		{"UTC", "2017-11-08T24:00:00.1", "mismatch"},
		{"UTC", "2017-11-08T24:00:00.0000001", "mismatch"},
		{"UTC", "2017-11-08T25:00", "mismatch"},
		{"UTC", "9999-12-31T24:00:00", "mismatch"},
		{"UTC", "9999-12-31T23:30-01:00", "mismatch"},
		{"UTC", "0001-01-01T00:30+01:00", "mismatch"},
		// Clock changes.
		{"Europe/Paris", "2024-03-31T02:30", "2024-03-31T01:30:00Z"},
		{"Europe/Paris", "2024-10-27T02:30:00.5", "2024-10-27T00:30:00.5Z"},
		{"Pacific/Apia", "2011-12-30", "2011-12-30T10:00:00Z"},
		// Not valid.
		{"UTC", "", "mismatch"},
		{"UTC", "10 June", "mismatch"},
		{"UTC", "2017-11", "mismatch"},
		{"UTC", "2017", "mismatch"},
		{"UTC", "201711", "mismatch"},
		{"UTC", "2017-11-8", "mismatch"},
		{"UTC", "17-11-08", "mismatch"},
		{"UTC", "+2017-11-08", "mismatch"},
		{"UTC", "2019-02-29", "mismatch"},
		{"UTC", "0000-01-01", "mismatch"},
		{"UTC", "2017-W45-3", "mismatch"},
		{"UTC", "2017W453", "mismatch"},
		{"UTC", "2017-312", "mismatch"},
		{"UTC", "2017312", "mismatch"},
		{"UTC", "2017-1108", "mismatch"},
		{"UTC", "201711-08", "mismatch"},
		{"UTC", "2017-11-08T1030", "mismatch"}, // mixed
		{"UTC", "20171108T10:30", "mismatch"},
		{"UTC", "2017-11-08T10:3015", "mismatch"},
		{"UTC", "20171108T1030:15", "mismatch"},
		{"UTC", "2017-11-08 10:30", "mismatch"},
		{"UTC", "2017-11-08t10:30", "mismatch"},
		{"UTC", "2017-11-08T10:30z", "mismatch"},
		{"UTC", "2017-11-08T", "mismatch"},
		{"UTC", "2017-11-08T10", "mismatch"},
		{"UTC", "2017-11-08T10:", "mismatch"},
		{"UTC", "2017-11-08T10:30:", "mismatch"},
		{"UTC", "2017-11-08T10:30:15.", "mismatch"},
		{"UTC", "2017-11-08T10:30:15.Z", "mismatch"},
		{"UTC", "2017-11-08T10:30.5", "mismatch"},
		{"UTC", "2017-11-08T10:60", "mismatch"},
		{"UTC", "2017-11-08T23:59:60", "mismatch"},
		{"UTC", "2017-11-08T10:30+2", "mismatch"},
		{"UTC", "2017-11-08T10:30+02:0", "mismatch"},
		{"UTC", "2017-11-08T10:30+02:", "mismatch"},
		{"UTC", "2017-11-08T10:30+02:60", "mismatch"},
		{"UTC", "2017-11-08T10:30+24:00", "mismatch"},
		{"UTC", "2017-11-08T10:30+", "mismatch"},
		{"UTC", "2017-11-08T10:30ZZ", "mismatch"},
		{"UTC", "2017-11-08T1:30:00Z", "mismatch"},
		{"UTC", "2017-11-08T10:30 +02:00", "mismatch"},
		{"UTC", "2017-11-08T10:30Europe/Paris", "mismatch"},
	} {
		t.Run(c.value+" in "+c.zone, func(t *testing.T) {
			if got := shown(parseISO8601(c.value, zone(t, c.zone))); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

// TestWallIsTimeDate holds the arithmetic of wall against package time's, day by day.
func TestWallIsTimeDate(t *testing.T) {
	for want := time.Date(1, 1, 1, 23, 59, 58, 0, time.UTC); want.Year() <= 9999; want = want.AddDate(0, 0, 1) {
		year, month, day := want.Date()
		c := civil{year, int(month), day, 23, 59, 58}
		if got := c.wall(); got != want {
			t.Fatalf("%v is %s, want %s", c, got, want)
		}
	}
}

// TestLocalInstant holds localInstant against an oracle that tries every
// offset a zone has around a wall time, at every change of some zones.
func TestLocalInstant(t *testing.T) {
	for _, name := range []string{
		"UTC", "Europe/Paris", "Europe/Dublin", "America/New_York", "America/Sao_Paulo", "America/St_Johns", "Australia/Lord_Howe",
		"Pacific/Apia", "Pacific/Kwajalein", "Pacific/Kiritimati", "Africa/Casablanca", "Africa/Monrovia", "America/Juneau", "Asia/Manila",
		"Asia/Kathmandu", "Asia/Pyongyang", "America/Caracas", "Antarctica/Troll", "Antarctica/Casey", "Asia/Gaza",
	} {
		clocks := zone(t, name)
		loc := clocks.Location
		for at := time.Date(1840, 1, 1, 0, 0, 0, 0, time.UTC).In(loc); ; {
			_, end := at.ZoneBounds()
			if end.IsZero() || end.Year() > 2045 {
				break
			}
			if !end.After(at) { // the 366th day of a year, see localInstant
				at = at.Add(24 * time.Hour)
				continue
			}
			_, before := end.Add(-time.Second).Zone()
			_, after := end.Zone()
			for _, offset := range []int{before, after} {
				edge := end.UTC().Add(time.Duration(offset) * time.Second)
				for _, d := range []time.Duration{-24 * time.Hour, -time.Hour, -20 * time.Minute, -time.Second, 0, time.Second, 20 * time.Minute, time.Hour, 24 * time.Hour} {
					wall := edge.Add(d)
					want := oracleInstant(wall, loc)
					if got := localInstant(wall, loc); !got.Equal(want) {
						t.Errorf("%s %s: got %s, want %s", name, wall.Format(time.DateTime), got, want)
					}
					if got := clocks.instant(wall); got != want {
						t.Errorf("%s %s: got %s by the table, want %s", name, wall.Format(time.DateTime), got, want)
					}
				}
			}
			at = end
		}
	}
}

// TestClocks holds the tables of all zones against package time, from before
// their first change to behind their end.
func TestClocks(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, name := range []string{"UTC", "Europe/Paris", "Africa/Casablanca", "Asia/Gaza", "America/New_York", "Pacific/Apia", "Australia/Lord_Howe", "Asia/Tokyo", "Etc/GMT+12"} {
		c := zone(t, name)
		for range 1000 {
			at := time.Unix(r.Int64N(1<<33)-1<<32, 0).UTC() // 1833 to 2106
			year, month, day := at.In(c.Location).Date()
			hour, minute, second := at.In(c.Location).Clock()
			if got, want := c.wall(at), time.Date(year, month, day, hour, minute, second, 0, time.UTC); got != want {
				t.Errorf("%s: at %s clocks show %s, want %s", name, at, got, want)
			}
			if got, want := c.instant(at), localInstant(at, c.Location); !got.Equal(want) {
				t.Errorf("%s: clocks show %s at %s, want %s", name, at, got, want)
			}
		}
		for _, year := range []int{1, 2, 1500, 2099, 2100, 2101, 9998, 9999} {
			for day := range 365 * 24 {
				at := time.Date(year, 1, 1, day, 0, 0, 0, time.UTC)
				if got, want := c.instant(at), localInstant(at, c.Location); !got.Equal(want) {
					t.Errorf("%s: clocks show %s at %s, want %s", name, at, got, want)
				}
			}
		}
	}
}

// oracleInstant is localInstant, slow and plain.
func oracleInstant(wall time.Time, loc *time.Location) time.Time {
	var first time.Time
	offsets := map[int]bool{}
	for h := -30 * 4; h <= 30*4; h++ {
		_, offset := wall.Add(time.Duration(h) * 15 * time.Minute).In(loc).Zone()
		offsets[offset] = true
	}
	for offset := range offsets {
		at := wall.Add(-time.Duration(offset) * time.Second)
		if _, o := at.In(loc).Zone(); o == offset && (first.IsZero() || at.Before(first)) {
			first = at
		}
	}
	if !first.IsZero() {
		return first
	}
	// Skipped: the last instant that shows less than wall has the offset before the change.
	low, high := wall.Add(-30*time.Hour), wall.Add(30*time.Hour)
	for high.Sub(low) > time.Nanosecond {
		middle := low.Add(high.Sub(low) / 2)
		_, offset := middle.In(loc).Zone()
		if middle.Add(time.Duration(offset) * time.Second).Before(wall) {
			low = middle
		} else {
			high = middle
		}
	}
	_, offset := low.In(loc).Zone()
	return wall.Add(-time.Duration(offset) * time.Second)
}

func TestDateTimeDoesNotAllocate(t *testing.T) {
	f, err := compileDateTimeFormat(defaultFormat, civil{}, zone(t, "America/Sao_Paulo"))
	if err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(100, func() {
		f.parse("2024-06-03 10:20:30")
		parseISO8601("2024-06-03T10:20:30.5+02:00", f.clocks)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzDateTime(f *testing.F) {
	for _, seed := range [][3]string{
		{defaultFormat, "2024-06-03 10:20:30", "UTC"}, {defaultFormat, "2024-06-03", "Europe/Paris"}, {"D/M/YYYY h:i:s", "3/6/2024 1:2:3", "Pacific/Apia"},
		{"YYYYMMDDHHIISS", "20240603102030", "America/New_York"}, {"YYYYMDhis", "202411111", "UTC"}, {"hh DD/MM/YYYY ii", "10 03/06/2024", "UTC"},
	} {
		f.Add(seed[0], seed[1], seed[2])
	}
	f.Fuzz(func(t *testing.T, format, value, zone string) {
		loc, known := loadZone(zone)
		if !known {
			return
		}
		clock := civil{partHour: 12, partMinute: 34, partSecond: 56}
		d, err := compileDateTimeFormat(format, clock, loc)
		if err != nil {
			return
		}
		at, ok := d.parse(value)
		if !ok {
			return
		}
		if y := at.Year(); y < 1 || y > 9999 || at.Location() != time.UTC {
			t.Fatalf("%q: %v", value, at)
		}
		// What has every part in full reads back as it was written.
		if upper := strings.ToUpper(strings.TrimSpace(format)); loc.Location == time.UTC && len(value) == len(upper) {
			for _, part := range []string{"MM", "DD", "HH", "II", "SS"} {
				if !strings.Contains(upper, part) {
					return
				}
			}
			layout := strings.NewReplacer("YYYY", "2006", "MM", "01", "DD", "02", "HH", "15", "II", "04", "SS", "05").Replace(upper)
			if layout = strings.ReplaceAll(layout, "_2", "\x002"); strings.ContainsAny(layout, ".,\x00") {
				return // a layout of package time reads these its own way
			}
			if back := at.Format(layout); back != value {
				t.Fatalf("%q of %q reads back as %q", value, format, back)
			}
		}
	})
}

var rfc3339 = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]([01]\d|2[0-3]):[0-5]\d)$`)

func FuzzISO8601(f *testing.F) {
	for _, seed := range []string{"2017-11-08", "20171108T1030", "2017-11-08T10:30:15.123456789+02:00", "20171108T240000,000-03", "2017-11-08T10:30:15Z", "2017-W45-3"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		at, ok := parseISO8601(value, utc())
		// RFC 3339 is a part of what is read; package time reads some more.
		if std, err := time.Parse(time.RFC3339, value); err == nil && rfc3339.MatchString(value) {
			_, fits := inYears(std.UTC())
			if fits != ok || ok && !at.Equal(std.Truncate(time.Microsecond)) {
				t.Fatalf("%q: got %v, %v; package time says %v", value, at, ok, std)
			}
		}
		if !ok {
			return
		}
		if y := at.Year(); y < 1 || y > 9999 || at.Nanosecond()%1000 != 0 {
			t.Fatalf("%q: %v", value, at)
		}
		again, ok := parseISO8601(at.Format("2006-01-02T15:04:05.999999Z07:00"), zone(t, "Asia/Tokyo"))
		if !ok || !again.Equal(at) {
			t.Fatalf("%q: %v reads back as %v", value, at, again)
		}
	})
}

func BenchmarkDateTime(b *testing.B) {
	for _, name := range []string{"UTC", "Europe/Paris"} {
		f, err := compileDateTimeFormat(defaultFormat, civil{}, zone(b, name))
		if err != nil {
			b.Fatal(err)
		}
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				f.parse("2024-06-03 10:20:30")
			}
		})
	}
}

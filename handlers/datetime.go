package handlers

import (
	"fmt"
	"strings"
	"time"
)

// isoFormat is the dateTimeFormat that reads dates as interventionDate does;
// its compiled form is a nil *dateTimeFormat and parseISO8601.
const isoFormat = "iso8601"

// The parts of a date and time, as indexes of a civil.
const (
	partYear = iota
	partMonth
	partDay
	partHour
	partMinute
	partSecond
	parts
)

// civil is a date and time as a wall shows it, without a zone.
type civil [parts]int

// real reports whether the date is in the calendar, years 0001 to 9999, and
// the time on a clock: hours to 23, minutes and seconds to 59.
func (c *civil) real() bool {
	return c[partYear] >= 1 && c[partYear] <= 9999 &&
		c[partMonth] >= 1 && c[partMonth] <= 12 &&
		c[partDay] >= 1 && c[partDay] <= daysIn(c[partYear], c[partMonth]) &&
		c[partHour] <= 23 && c[partMinute] <= 59 && c[partSecond] <= 59
}

func daysIn(year, month int) int {
	switch month {
	case 2:
		if year%4 == 0 && (year%100 != 0 || year%400 == 0) {
			return 29
		}
		return 28
	case 4, 6, 9, 11:
		return 30
	}
	return 31
}

// wall is the civil time as if it were UTC's: the form in which localInstant takes it.
func (c *civil) wall() time.Time {
	// time.Date would take three times as long: it knows of dates that are not
	// real, and of zones. A year begins in March here, so that it ends in its leap day.
	year, month := c[partYear], c[partMonth]-3
	if month < 0 {
		year, month = year-1, month+12
	}
	days := 365*year + year/4 - year/100 + year/400 + (153*month+2)/5 + c[partDay] - 719469 // since 1970-01-01
	seconds := days*86400 + c[partHour]*3600 + c[partMinute]*60 + c[partSecond]
	return time.Unix(int64(seconds), 0).UTC()
}

// dateTimeFormat is a compiled dateTimeFormat with what completes its values.
type dateTimeFormat struct {
	steps    []formatStep
	dateOnly int   // before this step a value may stop, its date being complete and no time part read; -1: nowhere
	midnight civil // defaultTime, in the time parts
	clocks   *clocks
	text     string // upper case; for the hash of the settings
}

// formatStep reads one separator or one part.
type formatStep struct {
	separator byte // 0: a part
	part      uint8
	digits    uint8 // 4 or 2; 1: one or two
}

// compileDateTimeFormat compiles a format of rules.md. defaultTime holds
// its hour, minute and second. The error is the vendor's configuration error, to the character.
func compileDateTimeFormat(format string, defaultTime civil, clocks *clocks) (*dateTimeFormat, error) {
	f := &dateTimeFormat{dateOnly: -1, midnight: defaultTime, clocks: clocks, text: strings.ToUpper(strings.TrimSpace(format))}
	invalid := fmt.Errorf("[dateTimeFormat] the given date format [%s] is not valid. It should only contain the following characters (case insensitive): 'YMDHIS /_.:;,-'", format)
	var seen [parts]bool
	for rest := f.text; rest != ""; {
		if strings.IndexByte(" /_.:;,-", rest[0]) >= 0 {
			f.steps = append(f.steps, formatStep{separator: rest[0]})
			rest = rest[1:]
			continue
		}
		part := strings.IndexByte("YMDHIS", rest[0])
		digits := 1
		for digits < len(rest) && digits < 4 && rest[digits] == rest[0] {
			digits++
		}
		switch {
		case part < 0 || seen[part]:
			return nil, invalid
		case part == partYear && digits != 4, part != partYear && digits > 2:
			return nil, invalid
		}
		seen[part] = true
		f.steps = append(f.steps, formatStep{part: uint8(part), digits: uint8(digits)})
		rest = rest[digits:]
	}
	if !seen[partYear] || !seen[partMonth] || !seen[partDay] {
		return nil, invalid
	}
	if f.steps[0].separator != 0 || f.steps[len(f.steps)-1].separator != 0 {
		return nil, invalid // separators stand between parts
	}
	for i, date := 0, 0; i < len(f.steps); i++ {
		if f.steps[i].separator != 0 {
			continue
		}
		if f.steps[i].part >= partHour {
			break
		}
		if date++; date == 3 {
			f.dateOnly = i + 1
		}
	}
	return f, nil
}

// parse reads a trimmed value and returns its instant in UTC; false: it does
// not fit the format, is no real date, or lies outside the years 0001 to 9999.
func (f *dateTimeFormat) parse(text string) (time.Time, bool) {
	var c civil
	if !f.read(0, text, &c) {
		return time.Time{}, false
	}
	return inYears(f.clocks.instant(c.wall()))
}

// read reads text from step i on into c. Where a single letter could take one digit
// or two, which matters only without a separator behind it, the longer
// reading that makes a real date is meant.
func (f *dateTimeFormat) read(i int, text string, c *civil) bool {
	for ; i < len(f.steps) && text != ""; i++ {
		step := &f.steps[i]
		if step.separator != 0 {
			if text[0] != step.separator {
				return false
			}
			text = text[1:]
			continue
		}
		v, rest, ok := takeDigits(text, int(max(step.digits, 2)))
		if step.digits == 1 {
			if ok {
				longer := *c
				longer[step.part] = v
				if f.read(i+1, rest, &longer) {
					*c = longer
					return true
				}
			}
			v, rest, ok = takeDigits(text, 1)
		}
		if !ok {
			return false
		}
		c[step.part], text = v, rest
	}
	if text != "" {
		return false
	}
	switch i {
	case f.dateOnly:
		copy(c[partHour:], f.midnight[partHour:])
	case len(f.steps):
	default:
		return false
	}
	return c.real()
}

// parseISO8601 reads a trimmed value by the rules of interventionDate and
// returns its instant in UTC, cut to microseconds; clocks are meant where the
// value has no offset. False: it is not valid, or outside the years 0001 to 9999.
func parseISO8601(text string, clocks *clocks) (time.Time, bool) {
	var c civil
	var ok [3]bool
	c[partYear], text, ok[0] = takeDigits(text, 4)
	extended := text != "" && text[0] == '-'
	if extended {
		text = text[1:]
	}
	c[partMonth], text, ok[1] = takeDigits(text, 2)
	if extended {
		if text == "" || text[0] != '-' {
			return time.Time{}, false
		}
		text = text[1:]
	}
	c[partDay], text, ok[2] = takeDigits(text, 2)
	if ok != [3]bool{true, true, true} {
		return time.Time{}, false
	}

	var fraction time.Duration
	var exact bool
	if text != "" && text[0] == 'T' {
		if text, fraction, exact, ok[0] = takeTime(text[1:], extended, &c); !ok[0] {
			return time.Time{}, false
		}
	}
	nextDay := c[partHour] == 24
	if nextDay {
		if c[partMinute] != 0 || c[partSecond] != 0 || !exact {
			return time.Time{}, false
		}
		c[partHour] = 0
	}
	if !c.real() {
		return time.Time{}, false
	}
	wall := c.wall().Add(fraction)
	if nextDay {
		wall = wall.Add(24 * time.Hour)
	}
	if text == "" {
		return inYears(clocks.instant(wall))
	}
	offset, valid := parseOffset(text)
	if !valid {
		return time.Time{}, false
	}
	return inYears(wall.Add(-offset))
}

// takeTime reads hh:mm[:ss[.fff]] or, not extended, hhmm[ss[.fff]] from the
// front of text into c. The fraction is cut to microseconds; exact tells that
// it is 0 to the last digit.
func takeTime(text string, extended bool, c *civil) (rest string, fraction time.Duration, exact, ok bool) {
	if c[partHour], text, ok = takeDigits(text, 2); !ok {
		return text, 0, false, false
	}
	if extended {
		if text == "" || text[0] != ':' {
			return text, 0, false, false
		}
		text = text[1:]
	}
	if c[partMinute], text, ok = takeDigits(text, 2); !ok {
		return text, 0, false, false
	}
	switch {
	case text == "":
		return text, 0, true, true
	case extended && text[0] == ':':
		text = text[1:]
	case !extended && isDigit(text[0]):
	default:
		return text, 0, true, true // an offset follows, or the value is not valid
	}
	if c[partSecond], text, ok = takeDigits(text, 2); !ok {
		return text, 0, false, false
	}
	exact = true
	if text == "" || text[0] != '.' && text[0] != ',' {
		return text, 0, exact, true
	}
	text = text[1:]
	if text == "" || !isDigit(text[0]) {
		return text, 0, false, false
	}
	for unit := 100 * time.Millisecond; text != "" && isDigit(text[0]); unit /= 10 {
		if text[0] != '0' {
			exact = false
		}
		if unit >= time.Microsecond {
			fraction += time.Duration(text[0]-'0') * unit
		}
		text = text[1:]
	}
	return text, fraction, exact, true
}

// parseOffset reads Z, ±hh:mm, ±hhmm or ±hh.
func parseOffset(text string) (time.Duration, bool) {
	if text == "Z" {
		return 0, true
	}
	sign := time.Duration(1)
	switch text[0] {
	case '+':
	case '-':
		sign = -1
	default:
		return 0, false
	}
	hours, text, ok := takeDigits(text[1:], 2)
	if !ok || hours > 23 {
		return 0, false
	}
	minutes := 0
	if text != "" {
		if text[0] == ':' {
			text = text[1:]
		}
		if minutes, text, ok = takeDigits(text, 2); !ok || minutes > 59 || text != "" {
			return 0, false
		}
	}
	return sign * (time.Duration(hours)*time.Hour + time.Duration(minutes)*time.Minute), true
}

// localInstant returns the instant at which clocks in loc show wall (a civil
// time held as UTC). A local time that a clock change skips is read with the
// offset before the change, one that occurs twice is the first of the two;
// time.Date promises neither. It walks the zone's periods around wall, so that
// changes of any size, a skipped day included, come out right.
func localInstant(wall time.Time, loc *time.Location) time.Time {
	if loc == time.UTC {
		return wall
	}
	// No offset reaches 24 hours: a day earlier clocks show less than wall.
	var before, start time.Time
	for probe := wall.Add(-24 * time.Hour).In(loc); ; {
		_, offset := probe.Zone()
		end := nextChange(probe)
		t := wall.Add(-time.Duration(offset) * time.Second)
		if !before.IsZero() && t.Before(start) {
			return before // skipped: the last period ended before wall, this one begins after it
		}
		if end.IsZero() || t.Before(end) {
			return t
		}
		before, start, probe = t, end, end
	}
}

// nextChange returns when the clocks of t's zone are changed next; zero: never.
func nextChange(t time.Time) time.Time {
	_, end := t.ZoneBounds()
	if !end.IsZero() && !end.After(t) {
		// Beyond its tables, package time takes every year to have 365
		// days and says so on the 366th. No clock changes near it.
		end = t.Add(24 * time.Hour)
	}
	return end
}

// inYears reports whether t lies in the years 0001 to 9999, as every stored time does.
func inYears(t time.Time) (time.Time, bool) {
	const year1, year10000 = -62135596800, 253402300800 // Unix seconds
	if s := t.Unix(); s < year1 || s >= year10000 {
		return time.Time{}, false
	}
	return t, true
}

// today returns 00:00:00 in timeZone of the day that t falls on there, in UTC.
// Only where that lies before the year 1 it is t itself, for want of a storable day.
func (r *Rules) today(t time.Time) time.Time {
	start, ok := inYears(r.clocks.instant(r.clocks.wall(t).Truncate(24 * time.Hour)))
	if !ok {
		return t
	}
	return start
}

// parseClock reads defaultTime, hh:ii:ss, into the time parts of a civil.
func parseClock(text string) (civil, bool) {
	var c civil
	if len(text) != len("hh:ii:ss") || text[2] != ':' || text[5] != ':' {
		return c, false
	}
	var h, m, s bool
	c[partHour], _, h = takeDigits(text, 2)
	c[partMinute], _, m = takeDigits(text[3:], 2)
	c[partSecond], _, s = takeDigits(text[6:], 2)
	return c, h && m && s && c[partHour] <= 23 && c[partMinute] <= 59 && c[partSecond] <= 59
}

// takeDigits reads exactly n ASCII digits from the front of text.
func takeDigits(text string, n int) (v int, rest string, ok bool) {
	if len(text) < n {
		return 0, text, false
	}
	for i := range n {
		if !isDigit(text[i]) {
			return 0, text, false
		}
		v = v*10 + int(text[i]-'0')
	}
	return v, text[n:], true
}

func isDigit(b byte) bool { return '0' <= b && b <= '9' }

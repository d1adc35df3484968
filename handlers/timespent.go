package handlers

import "strings"

// timeSpentFormat is a timeGlobalFormat: how timeSpent is written.
type timeSpentFormat uint8

// The formats.
const (
	rawSeconds timeSpentFormat = iota // 5115
	rawMinutes                        // 85.25
	isoTime                           // PT1H25M15S
	padded                            // 001:25
	paddedHH                          // 01:25
	timeSpentFormats
)

// String returns the format's name in settings and messages.
func (f timeSpentFormat) String() string {
	return [timeSpentFormats]string{"rawSeconds", "rawMinutes", "iso-8601", "padded", "paddedhh"}[f]
}

// parseTimeSpentFormat finds a format by its name.
func parseTimeSpentFormat(name string) (timeSpentFormat, bool) {
	for f := range timeSpentFormats {
		if f.String() == name {
			return f, true
		}
	}
	return 0, false
}

// maxTimeSpent is the most seconds that timeSpent holds.
const maxTimeSpent = 1<<31 - 1

// parse reads a trimmed value as seconds, 0 to maxTimeSpent.
func (f timeSpentFormat) parse(text string) (seconds int64, res parseResult) {
	negative := text != "" && text[0] == '-'
	if negative {
		text = text[1:]
	}
	var ok bool
	switch f {
	case rawSeconds:
		seconds, text, ok = takeNumber(text)
		ok = ok && text == ""
	case rawMinutes:
		return parseMinutes(text, negative)
	case isoTime:
		seconds, ok = parseISODuration(text)
	case padded:
		seconds, ok = parsePadded(text, 3)
	case paddedHH:
		seconds, ok = parsePadded(text, 2)
	}
	switch {
	case !ok:
		return 0, malformed
	case negative && seconds > 0, seconds > maxTimeSpent:
		return 0, beyond
	}
	return seconds, parsed
}

// parseMinutes reads minutes with up to two decimals, rounded half up to seconds.
func parseMinutes(text string, negative bool) (int64, parseResult) {
	minutes, text, ok := takeNumber(text)
	if !ok {
		return 0, malformed
	}
	hundredths := 0
	if text != "" {
		decimals := len(text) - 1
		if text[0] != '.' || decimals < 1 || decimals > 2 {
			return 0, malformed
		}
		if hundredths, _, ok = takeDigits(text[1:], decimals); !ok {
			return 0, malformed
		}
		if decimals == 1 {
			hundredths *= 10
		}
	}
	seconds := minutes*60 + int64(hundredths*60+50)/100
	if seconds > maxTimeSpent || negative && (minutes > 0 || hundredths > 0) {
		return 0, beyond
	}
	return seconds, parsed
}

// parseISODuration reads P[nD][T[nH][nM][nS]], at least one of them, and one
// behind a T. Weeks, months and years are not read: a month is no number of seconds.
func parseISODuration(text string) (seconds int64, ok bool) {
	if text == "" || text[0] != 'P' {
		return 0, false
	}
	date, clock, timed := strings.Cut(text[1:], "T")
	if seconds, date, ok = takeUnit(date, 'D', 86400); date != "" {
		return 0, false
	}
	if !timed {
		return seconds, ok
	}
	if clock == "" {
		return 0, false
	}
	for _, unit := range [...]struct {
		letter  byte
		seconds int64
	}{{'H', 3600}, {'M', 60}, {'S', 1}} {
		var n int64
		n, clock, _ = takeUnit(clock, unit.letter, unit.seconds)
		seconds += n
	}
	return seconds, clock == ""
}

// takeUnit reads a number and its unit's letter from the front of text, if
// they are there, and returns it in seconds.
func takeUnit(text string, letter byte, unit int64) (seconds int64, rest string, ok bool) {
	n, rest, ok := takeNumber(text)
	if !ok || rest == "" || rest[0] != letter {
		return 0, text, false
	}
	return n * unit, rest[1:], true
}

// parsePadded reads hours of at least so many digits, a colon, and minutes 00 to 59.
func parsePadded(text string, digits int) (seconds int64, ok bool) {
	hours, rest, ok := takeNumber(text)
	if !ok || len(text)-len(rest) < digits || len(rest) != 3 || rest[0] != ':' {
		return 0, false
	}
	minutes, _, ok := takeDigits(rest[1:], 2)
	return hours*3600 + int64(minutes)*60, ok && minutes <= 59
}

// numberCap is where takeNumber stops counting: far beyond every range, and
// far enough below overflow for any unit here.
const numberCap = 1 << 40

// takeNumber reads one or more ASCII digits from the front of text. Numbers
// above numberCap are read as numberCap.
func takeNumber(text string) (n int64, rest string, ok bool) {
	i := 0
	for ; i < len(text) && isDigit(text[i]); i++ {
		n = min(n*10+int64(text[i]-'0'), numberCap)
	}
	return n, text[i:], i > 0
}

package handlers

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Fold returns the canonical form of s under Unicode simple folding:
// Fold(a) == Fold(b) exactly where strings.EqualFold(a, b). ASCII letters, and
// whatever folds to one, become lower case. Logins, e-mails and GUIDs are
// compared by it.
func Fold(s string) string {
	upper := false
	for i := range len(s) {
		c := s[i]
		if c >= utf8.RuneSelf {
			return strings.Map(foldRune, s)
		}
		upper = upper || 'A' <= c && c <= 'Z'
	}
	if !upper {
		return s
	}
	var most [maxText]byte // no login, e-mail or GUID is longer, where it is of ASCII
	b := append(most[:0], s...)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}

// foldRune returns the representative of r's folding orbit: the lower case of
// its least member, if that is in the orbit itself, else the least member.
func foldRune(r rune) rune {
	if r < utf8.RuneSelf {
		if 'A' <= r && r <= 'Z' {
			r += 'a' - 'A'
		}
		return r // the orbits of ASCII letters all have an ASCII lower case
	}
	least := r
	for o := unicode.SimpleFold(r); o != r; o = unicode.SimpleFold(o) {
		least = min(least, o)
	}
	lower := unicode.ToLower(least)
	for o := unicode.SimpleFold(least); o != least; o = unicode.SimpleFold(o) {
		if o == lower {
			return lower
		}
	}
	return least
}

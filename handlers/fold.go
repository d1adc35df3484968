package handlers

import (
	"encoding/binary"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Fold returns the canonical form of s under Unicode simple folding:
// Fold(a) == Fold(b) exactly where strings.EqualFold(a, b). ASCII letters, and
// whatever folds to one, become lower case. Logins, e-mails and GUIDs are
// compared by it.
func Fold(s string) string {
	var most [64]byte // it may be longer
	folded, changed := appendFolded(most[:0], s)
	if !changed {
		return s
	}
	return string(folded)
}

// foldAll folds several texts, which then share memory.
func foldAll(texts *[4]string) {
	var most [256]byte // they may be longer
	var ends [len(texts)]int
	all, changed := most[:0], false
	for i, s := range texts {
		var c bool
		all, c = appendFolded(all, s)
		ends[i], changed = len(all), changed || c
	}
	if !changed {
		return
	}
	folded, from := string(all), 0
	for i, end := range ends {
		texts[i], from = folded[from:end], end
	}
}

// appendFolded appends Fold(s), and tells whether it may be another text than s.
func appendFolded(dst []byte, s string) (_ []byte, changed bool) {
	from, hits, i := len(dst), uint64(0), 0
	for ; i+8 <= len(s); i += 8 {
		v := eight(s, i)
		if v&high != 0 {
			return append(dst[:from], strings.Map(foldRune, s)...), true
		}
		// Addition carries into the high bit of bytes from 'A' on, less those beyond 'Z'.
		upper := (v + each*(0x80-'A')) &^ (v + each*(0x7f-'Z')) & high
		hits |= upper
		dst = binary.LittleEndian.AppendUint64(dst, v|upper>>2) // 0x80>>2 is what makes it lower case
	}
	for ; i < len(s); i++ {
		c := s[i]
		if c >= utf8.RuneSelf {
			return append(dst[:from], strings.Map(foldRune, s)...), true
		}
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
			hits = 1
		}
		dst = append(dst, c)
	}
	return dst, hits != 0
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

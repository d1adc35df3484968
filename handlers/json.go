package handlers

import (
	"math/bits"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// A JSON scanner for rows: one flat object of strings and numbers. It is our
// own because the rules ask for more than decoders tell (number literals as
// they stand, duplicate keys, lone surrogates) and because it is on the hot
// road: a record is copied once into a string and every plain text is a part
// of that string.

// token is what kind of value a member has.
type token uint8

const (
	tokenNull token = iota
	tokenString
	tokenNumber
	tokenBool
)

// scanner reads s from i on. Every method leaves i behind what it read.
type scanner struct {
	s   string
	i   int
	bad bool // no object, or one that does not end
}

func (p *scanner) space() {
	for p.i < len(p.s) && p.s[p.i] <= ' ' {
		switch p.s[p.i] {
		case ' ', '\t', '\n', '\r':
			p.i++
		default:
			return
		}
	}
}

// take reads the byte c, where it is the next one.
func (p *scanner) take(c byte) bool {
	if p.i < len(p.s) && p.s[p.i] == c {
		p.i++
		return true
	}
	return false
}

// open goes into the object that the text is; false: to no member.
func (p *scanner) open() bool {
	p.space()
	if !p.take('{') {
		p.bad = true
		return false
	}
	p.space()
	return !p.take('}')
}

// more goes on behind a value, to the next member; false: there is none.
func (p *scanner) more() bool {
	p.space()
	if p.take(',') {
		p.space()
		return true
	}
	p.bad = p.bad || !p.take('}')
	return false
}

// name reads a member's name and its colon.
func (p *scanner) name() (string, bool) {
	name, ok := p.text()
	if !ok {
		return "", false
	}
	p.space()
	if !p.take(':') {
		return "", false
	}
	p.space()
	return name, true
}

// end reports whether the object was well-formed, and is all there is.
func (p *scanner) end() bool {
	p.space()
	return !p.bad && p.i == len(p.s)
}

// value reads a plain value; a nested one is no value of a row.
func (p *scanner) value() (t token, text string, ok bool) {
	if p.i == len(p.s) {
		return 0, "", false
	}
	switch c := p.s[p.i]; {
	case c == '"':
		text, ok = p.text()
		return tokenString, text, ok
	case c == '-' || '0' <= c && c <= '9':
		n := numberLength(p.s[p.i:])
		text = p.s[p.i : p.i+n]
		p.i += n
		return tokenNumber, text, n > 0
	case p.word("null"):
		return tokenNull, "", true
	case p.word("true"):
		return tokenBool, "true", true
	case p.word("false"):
		return tokenBool, "false", true
	}
	return tokenNull, "", false
}

func (p *scanner) word(w string) bool {
	if len(p.s)-p.i >= len(w) && p.s[p.i:p.i+len(w)] == w {
		p.i += len(w)
		return true
	}
	return false
}

// text reads a string and gives what it means; a lone surrogate is an error.
func (p *scanner) text() (string, bool) {
	if !p.take('"') {
		return "", false
	}
	from := p.i
	p.i = plainTo(p.s, p.i)
	if p.take('"') {
		return p.s[from : p.i-1], true
	}
	return p.escaped(from)
}

// escaped goes on with a string that began at from and is plain up to i.
func (p *scanner) escaped(from int) (string, bool) {
	b := make([]byte, 0, 2*(p.i-from)+16)
	for {
		b = append(b, p.s[from:p.i]...)
		if p.take('"') {
			return string(b), true
		}
		if !p.take('\\') || p.i == len(p.s) {
			return "", false
		}
		c := p.s[p.i]
		p.i++
		switch c {
		case '"', '\\', '/':
			b = append(b, c)
		case 'b':
			b = append(b, '\b')
		case 'f':
			b = append(b, '\f')
		case 'n':
			b = append(b, '\n')
		case 'r':
			b = append(b, '\r')
		case 't':
			b = append(b, '\t')
		case 'u':
			r, ok := p.hex4()
			if !ok {
				return "", false
			}
			if utf16.IsSurrogate(r) {
				if !p.word(`\u`) {
					return "", false
				}
				low, ok := p.hex4()
				if r = utf16.DecodeRune(r, low); !ok || r == utf8.RuneError {
					return "", false
				}
			}
			b = utf8.AppendRune(b, r)
		default:
			return "", false
		}
		from = p.i
		p.i = plainTo(p.s, p.i)
	}
}

// hex4 reads four hexadecimal digits.
func (p *scanner) hex4() (rune, bool) {
	if len(p.s)-p.i < 4 {
		return 0, false
	}
	n, err := strconv.ParseUint(p.s[p.i:p.i+4], 16, 16)
	if err != nil {
		return 0, false
	}
	p.i += 4
	return rune(n), true
}

// skip passes over any well-formed value, however deep, without recursion:
// depth costs one byte a level, which the record has paid for already.
func (p *scanner) skip() bool {
	var open []byte // the brackets still to be closed
	for {
		p.space()
		if p.i == len(p.s) {
			return false
		}
		switch c := p.s[p.i]; c {
		case '{', '[':
			p.i++
			p.space()
			if !p.take(c + 2) { // ASCII: { } and [ ] are two apart
				open = append(open, c+2)
				if c == '{' && !p.skipName() {
					return false
				}
				continue
			}
		case '"':
			if !p.skipText() {
				return false
			}
		default:
			if _, _, ok := p.value(); !ok {
				return false
			}
		}
		// A value has ended: so do the brackets that close here.
		for {
			if len(open) == 0 {
				return true
			}
			p.space()
			last := open[len(open)-1]
			if p.take(last) {
				open = open[:len(open)-1]
				continue
			}
			if !p.take(',') || last == '}' && !p.skipName() {
				return false
			}
			break
		}
	}
}

// skipName passes over a member's name and its colon.
func (p *scanner) skipName() bool {
	p.space()
	if !p.skipText() {
		return false
	}
	p.space()
	return p.take(':')
}

// skipText passes over a string; its escapes must be well-formed, but what
// they mean is not looked at.
func (p *scanner) skipText() bool {
	if !p.take('"') {
		return false
	}
	for {
		p.i = plainTo(p.s, p.i)
		if p.take('"') {
			return true
		}
		if !p.take('\\') || p.i == len(p.s) {
			return false
		}
		switch p.s[p.i] {
		case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
			p.i++
		case 'u':
			p.i++
			if _, ok := p.hex4(); !ok {
				return false
			}
		default:
			return false
		}
	}
}

// numberLength returns how long the JSON number at the start of s is; 0: none.
func numberLength(s string) int {
	i := 0
	if i < len(s) && s[i] == '-' {
		i++
	}
	if i < len(s) && s[i] == '0' {
		i++
	} else if i = digitsTo(s, i); i == 0 || !isDigit(s[i-1]) {
		return 0
	}
	if i < len(s) && s[i] == '.' {
		if i = digitsTo(s, i+1); s[i-1] == '.' {
			return 0
		}
	}
	if i < len(s) && (s[i] == 'e' || s[i] == 'E') {
		i++
		if i < len(s) && (s[i] == '+' || s[i] == '-') {
			i++
		}
		if i = digitsTo(s, i); !isDigit(s[i-1]) {
			return 0
		}
	}
	return i
}

// digitsTo returns where the digits of s from i on end.
func digitsTo(s string, i int) int {
	for i < len(s) && isDigit(s[i]) {
		i++
	}
	return i
}

// plainTo returns where s, from i on, first has what a JSON string cannot hold
// as it is: a quote, a backslash or a control character; len(s): nowhere.
func plainTo(s string, i int) int {
	from := i
	for ; i+8 <= len(s); i += 8 {
		if hits := special(eight(s, i)); hits != 0 {
			return i + bits.TrailingZeros64(hits)/8
		}
	}
	if last := len(s) - 8; from <= last { // in which is what is left, and the plain bytes before it
		if hits := special(eight(s, last)); hits != 0 {
			return last + bits.TrailingZeros64(hits)/8
		}
		return len(s)
	}
	for ; i < len(s); i++ {
		if c := s[i]; c < 0x20 || c == '"' || c == '\\' {
			break
		}
	}
	return i
}

// special returns the high bit of every byte of v that is a quote, a backslash
// or a control character. Subtraction borrows into it where the byte is less
// than what is taken from it. A borrow may reach on into later bytes: only the
// first hit is sure to be one.
func special(v uint64) uint64 {
	quote, backslash := v^each*'"', v^each*'\\'
	return ((v-each*0x20)&^v | (quote-each)&^quote | (backslash-each)&^backslash) & high
}

// For texts that are read eight bytes at once: each, times a byte, is that
// byte eight times; high is the high bit of each.
const each, high = 0x0101010101010101, 0x8080808080808080

// eight returns the bytes of s from i on, the first one lowest.
func eight(s string, i int) uint64 {
	s = s[i : i+8]
	return uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 |
		uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56
}

// appendString appends s, which is valid UTF-8, as a JSON string.
func appendString(dst []byte, s string) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	for {
		n := plainTo(s, 0)
		dst = append(dst, s[:n]...)
		if n == len(s) {
			return append(dst, '"')
		}
		switch c := s[n]; c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\n':
			dst = append(dst, `\n`...)
		case '\r':
			dst = append(dst, `\r`...)
		case '\t':
			dst = append(dst, `\t`...)
		default:
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
		s = s[n+1:]
	}
}

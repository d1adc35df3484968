package handlers

import (
	"errors"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// A JSON scanner for rows: one flat object of strings and numbers. It is our
// own because the rules ask for more than decoders tell (number literals as
// they stand, duplicate keys, lone surrogates) and because it is on the hot
// road: a record is copied once into a string and every plain text is a part
// of that string.

// errNotJSON is all that is ever wrong: the rejection says no more.
var errNotJSON = errors.New("not a JSON object of plain values")

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
	s string
	i int
}

func (p *scanner) space() {
	for p.i < len(p.s) {
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

// object reads a whole text that is one JSON object. For each member it asks
// look(name) whether the value matters; if so, member gets it, else the value
// is passed over.
func (p *scanner) object(look func(name string) bool, member func(name string, t token, text string)) error {
	p.space()
	if !p.take('{') {
		return errNotJSON
	}
	p.space()
	if !p.take('}') {
		for {
			p.space()
			name, ok := p.text()
			if !ok {
				return errNotJSON
			}
			p.space()
			if !p.take(':') {
				return errNotJSON
			}
			p.space()
			if look(name) {
				t, text, ok := p.value()
				if !ok {
					return errNotJSON
				}
				member(name, t, text)
			} else if !p.skip() {
				return errNotJSON
			}
			p.space()
			if p.take('}') {
				break
			}
			if !p.take(',') {
				return errNotJSON
			}
		}
	}
	p.space()
	if p.i != len(p.s) {
		return errNotJSON
	}
	return nil
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
	start := p.i
	for p.i < len(p.s) {
		switch c := p.s[p.i]; {
		case c == '"':
			p.i++
			return p.s[start : p.i-1], true
		case c == '\\':
			return p.escaped(start)
		case c < 0x20:
			return "", false
		}
		p.i++
	}
	return "", false
}

// escaped goes on with a string that began at start and has an escape at i.
func (p *scanner) escaped(start int) (string, bool) {
	b := append(make([]byte, 0, 2*(p.i-start)+16), p.s[start:p.i]...)
	for p.i < len(p.s) {
		c := p.s[p.i]
		p.i++
		switch {
		case c == '"':
			return string(b), true
		case c < 0x20:
			return "", false
		case c != '\\':
			b = append(b, c)
			continue
		}
		if p.i == len(p.s) {
			return "", false
		}
		c = p.s[p.i]
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
	}
	return "", false
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
	for p.i < len(p.s) {
		c := p.s[p.i]
		p.i++
		switch {
		case c == '"':
			return true
		case c < 0x20:
			return false
		case c == '\\':
			if p.i == len(p.s) {
				return false
			}
			switch c = p.s[p.i]; c {
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
	return false
}

// numberLength returns how long the JSON number at the start of s is; 0: none.
func numberLength(s string) int {
	i := 0
	digits := func() bool {
		from := i
		for i < len(s) && '0' <= s[i] && s[i] <= '9' {
			i++
		}
		return i > from
	}
	if i < len(s) && s[i] == '-' {
		i++
	}
	if i < len(s) && s[i] == '0' {
		i++
	} else if !digits() {
		return 0
	}
	if i < len(s) && s[i] == '.' {
		i++
		if !digits() {
			return 0
		}
	}
	if i < len(s) && (s[i] == 'e' || s[i] == 'E') {
		i++
		if i < len(s) && (s[i] == '+' || s[i] == '-') {
			i++
		}
		if !digits() {
			return 0
		}
	}
	return i
}

// appendString appends s, which is valid UTF-8, as a JSON string.
func appendString(dst []byte, s string) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	from := 0
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c >= 0x20 && c != '"' && c != '\\' {
			continue
		}
		dst = append(dst, s[from:i]...)
		from = i + 1
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\n':
			dst = append(dst, `\n`...)
		case '\r':
			dst = append(dst, `\r`...)
		case '\t':
			dst = append(dst, `\t`...)
		default:
			dst = append(dst, `\u00`...)
			dst = append(dst, hex[c>>4], hex[c&15])
		}
	}
	dst = append(dst, s[from:]...)
	return append(dst, '"')
}

package main

import (
	"bytes"
	"unicode/utf8"
)

// plainTexts reads the texts (textOf) of some columns of a row into texts, by
// their names' order, many times faster than encoding/json, if the row is an
// object of plain texts, numbers and words: without an escape, a value of
// several parts, or a fault. Otherwise it reports false; what it left in texts
// is void. Of a column that stands twice the last holds, as in encoding/json.
func plainTexts(row []byte, names, texts []string) bool {
	p := plainRow{row}
	if !p.take('{') {
		return false
	}
	if p.take('}') {
		return p.ended()
	}
	for {
		if !p.take('"') {
			return false
		}
		name, ok := p.text()
		if !ok || !p.take(':') {
			return false
		}
		var value []byte
		switch {
		case p.take('"'):
			value, ok = p.text()
		case p.word("null"), p.word("true"), p.word("false"):
		default:
			value, ok = p.number()
		}
		if !ok {
			return false
		}
		for i := range names {
			if names[i] == string(name) {
				texts[i] = string(bytes.TrimSpace(value))
			}
		}
		if p.take(',') {
			continue
		}
		return p.take('}') && p.ended()
	}
}

// plainRow is what is left of a row to be read.
type plainRow struct{ rest []byte }

func (p *plainRow) space() {
	i := 0
	for i < len(p.rest) && (p.rest[i] == ' ' || p.rest[i] == '\t' || p.rest[i] == '\r' || p.rest[i] == '\n') {
		i++
	}
	p.rest = p.rest[i:]
}

// take takes c, and the space before it.
func (p *plainRow) take(c byte) bool {
	p.space()
	if len(p.rest) == 0 || p.rest[0] != c {
		return false
	}
	p.rest = p.rest[1:]
	return true
}

func (p *plainRow) ended() bool {
	p.space()
	return len(p.rest) == 0
}

// text takes a text and its closing quote.
func (p *plainRow) text() ([]byte, bool) {
	ascii := true
	for i, c := range p.rest {
		switch {
		case c == '"':
			text := p.rest[:i]
			p.rest = p.rest[i+1:]
			return text, ascii || utf8.Valid(text)
		case c == '\\' || c < ' ':
			return nil, false
		case c >= utf8.RuneSelf:
			ascii = false
		}
	}
	return nil, false
}

func (p *plainRow) word(w string) bool {
	if len(p.rest) < len(w) || string(p.rest[:len(w)]) != w {
		return false
	}
	p.rest = p.rest[len(w):]
	return true
}

// number takes a number, whose literal it returns.
func (p *plainRow) number() ([]byte, bool) {
	all := p.rest
	p.word("-")
	zero := len(p.rest) > 0 && p.rest[0] == '0'
	n := p.digits()
	ok := n == 1 || n > 1 && !zero
	if p.word(".") {
		ok = ok && p.digits() > 0
	}
	if p.word("e") || p.word("E") {
		_ = p.word("+") || p.word("-")
		ok = ok && p.digits() > 0
	}
	return all[:len(all)-len(p.rest)], ok
}

func (p *plainRow) digits() int {
	i := 0
	for i < len(p.rest) && '0' <= p.rest[i] && p.rest[i] <= '9' {
		i++
	}
	p.rest = p.rest[i:]
	return i
}

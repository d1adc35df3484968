package catalogue

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// readJSONL visits the lines of a JSONL file.
func (f file) readJSONL(r io.Reader, visit func(Line) error) error {
	in := bufio.NewScanner(r)
	in.Buffer(make([]byte, 256<<10), math.MaxInt)
	columns := columnsOf(f.kind)
	cells := make([]string, len(columns))
	for number := 1; in.Scan(); number++ {
		text := in.Bytes()
		if number == 1 {
			text = bytes.TrimPrefix(text, bom)
		}
		if len(bytes.TrimSpace(text)) == 0 {
			continue
		}
		line := Line{Kind: f.kind, File: f.path, Number: number}
		clear(cells)
		if line.Bad = jsonCells(text, columns, cells); line.Bad == "" {
			line.parse(columns, cells)
		}
		if err := visit(line); err != nil {
			return err
		}
	}
	if err := in.Err(); err != nil {
		return fmt.Errorf("%s: %w", f.path, err)
	}
	return nil
}

// plainObject does what object does, many times faster, if there is nothing
// but texts without escapes, integers and nulls in the object, and nothing
// wrong with it. Otherwise it reports false; what it left in cells is void.
func plainObject(text string, columns, cells []string) bool {
	p := plainScanner{text}
	if !utf8.ValidString(text) || !p.take('{') {
		return false
	}
	if p.take('}') {
		return p.ended()
	}
	given := 0 // a bit a column
	for {
		if !p.take('"') {
			return false
		}
		name, ok := p.text()
		at := slices.Index(columns, name)
		if !ok || at < 0 || given&(1<<at) != 0 || !p.take(':') {
			return false
		}
		given |= 1 << at
		if p.take('"') {
			cells[at], ok = p.text()
		} else {
			cells[at], ok = p.integerOrNull()
		}
		switch {
		case !ok:
			return false
		case p.take(','):
		default:
			return p.take('}') && p.ended()
		}
	}
}

// plainScanner reads JSON as far as plainObject goes.
type plainScanner struct{ rest string }

func (p *plainScanner) space() {
	i := 0
	for i < len(p.rest) && (p.rest[i] == ' ' || p.rest[i] == '\t' || p.rest[i] == '\r' || p.rest[i] == '\n') {
		i++
	}
	p.rest = p.rest[i:]
}

// take takes c, and the space before it.
func (p *plainScanner) take(c byte) bool {
	p.space()
	if p.rest == "" || p.rest[0] != c {
		return false
	}
	p.rest = p.rest[1:]
	return true
}

func (p *plainScanner) ended() bool {
	p.space()
	return p.rest == ""
}

// text takes a text and its closing quote.
func (p *plainScanner) text() (string, bool) {
	for i := range len(p.rest) {
		switch c := p.rest[i]; {
		case c == '"':
			text := p.rest[:i]
			p.rest = p.rest[i+1:]
			return text, true
		case c == '\\' || c < ' ':
			return "", false
		}
	}
	return "", false
}

// integerOrNull takes an integer, whose text it returns, or null.
func (p *plainScanner) integerOrNull() (string, bool) {
	p.space()
	if rest, ok := strings.CutPrefix(p.rest, "null"); ok {
		p.rest = rest
		return "", true
	}
	i := 0
	for i < len(p.rest) && '0' <= p.rest[i] && p.rest[i] <= '9' {
		i++
	}
	number := p.rest[:i]
	p.rest = p.rest[i:]
	return number, i > 0 && (number == "0" || number[0] != '0')
}

// object reads a JSON object of strings and numbers into cells, by column, and
// says what is wrong with it.
func object(text []byte, columns, cells []string) (bad string) {
	const notObject = "not a JSON object"
	if !utf8.Valid(text) {
		return "not UTF-8"
	}
	if !json.Valid(text) { // once and strictly; the tokens below are then well-formed
		return notObject
	}
	if bytes.Contains(text, []byte(`\u`)) && loneSurrogate(text) {
		return "a \\u escape is half a character"
	}
	tokens := json.NewDecoder(bytes.NewReader(text))
	tokens.UseNumber()
	if start, _ := tokens.Token(); start != json.Delim('{') {
		return notObject
	}
	given := make([]bool, len(columns))
	for tokens.More() {
		token, _ := tokens.Token()
		name, _ := token.(string)
		at := slices.Index(columns, name)
		if at < 0 {
			return fmt.Sprintf("column %q is unknown: expected %s", name, strings.Join(columns, ", "))
		}
		if given[at] {
			return fmt.Sprintf("column %q stands twice", name)
		}
		given[at] = true
		value, _ := tokens.Token()
		switch value := value.(type) {
		case nil:
		case string:
			cells[at] = value
		case json.Number:
			cells[at] = value.String()
		default:
			return fmt.Sprintf("%s is neither text nor a number", name)
		}
	}
	return ""
}

// loneSurrogate reports whether valid JSON escapes one half of a surrogate
// pair, which encoding/json would silently turn into U+FFFD.
func loneSurrogate(text []byte) bool {
	unit := func(at int) (uint64, bool) {
		if at+6 > len(text) || text[at] != '\\' || text[at+1] != 'u' {
			return 0, false
		}
		u, err := strconv.ParseUint(string(text[at+2:at+6]), 16, 16)
		return u, err == nil
	}
	for i := 0; i < len(text); i++ {
		if text[i] != '\\' {
			continue
		}
		high, ok := unit(i)
		if !ok {
			i++ // another escape: its second byte is no backslash of ours
			continue
		}
		i += 5
		if high < 0xd800 || high > 0xdfff {
			continue
		}
		low, ok := unit(i + 1)
		if high > 0xdbff || !ok || low < 0xdc00 || low > 0xdfff {
			return true
		}
		i += 6
	}
	return false
}

package rows

import "bytes"

// The two halves of reading RFC 4180. quotes finds where a record ends, line by
// line, in the one goroutine that reads; cells takes it apart in whichever
// goroutine judges it. (encoding/csv does both at once, gives back neither the
// text of a record nor what stood before a fault, and rewrites line ends.)

// quotes follows the quotes of one record over its lines.
type quotes struct {
	quoted bool // within a quoted cell
}

// open reads the record's next line and reports whether the record goes on
// after it. A quote where none may stand ends the record with its line, so
// that one bad line does not swallow those after it.
func (q *quotes) open(line, comma []byte) bool {
	i := 0
	for {
		if q.quoted {
			end := bytes.IndexByte(line[i:], '"')
			if end < 0 {
				return true
			}
			i += end + 1
			if i < len(line) && line[i] == '"' { // a doubled quote is one quote
				i++
				continue
			}
			q.quoted = false
			if !bytes.HasPrefix(line[i:], comma) {
				return false // the line's end, or text after a closing quote
			}
			i += len(comma)
		}
		if i < len(line) && line[i] == '"' {
			q.quoted = true
			i++
			continue
		}
		next := bytes.Index(line[i:], comma)
		if next < 0 {
			return false
		}
		if bytes.IndexByte(line[i:i+next], '"') >= 0 {
			return false
		}
		i += next + len(comma)
	}
}

// cells takes the text of a record apart.
type cells struct {
	text, comma []byte
	ended       bool

	cell    []byte // as it stands, without its quotes
	doubled bool   // there are doubled quotes in it
	broken  bool   // the text is no CSV; next returned false for it
}

// next finds the next cell.
func (c *cells) next() bool {
	if c.ended || c.broken {
		return false
	}
	c.doubled = false
	if len(c.text) > 0 && c.text[0] == '"' {
		return c.nextQuoted()
	}
	end := bytes.Index(c.text, c.comma)
	if end < 0 {
		end, c.ended = len(c.text), true
	}
	c.cell = c.text[:end]
	c.broken = bytes.IndexByte(c.cell, '"') >= 0
	c.skip(end)
	return !c.broken
}

func (c *cells) nextQuoted() bool {
	for i := 1; ; {
		end := bytes.IndexByte(c.text[i:], '"')
		if end < 0 {
			c.broken = true
			return false
		}
		i += end + 1
		if i < len(c.text) && c.text[i] == '"' {
			c.doubled = true
			i++
			continue
		}
		c.cell = c.text[1 : i-1]
		c.ended = i == len(c.text)
		c.broken = !c.ended && !bytes.HasPrefix(c.text[i:], c.comma)
		c.skip(i)
		return !c.broken
	}
}

func (c *cells) skip(cell int) {
	if !c.ended {
		c.text = c.text[min(cell+len(c.comma), len(c.text)):]
	}
}

// value appends what the cell means.
func (c *cells) value(dst []byte) []byte {
	if !c.doubled {
		return append(dst, c.cell...)
	}
	return append(dst, bytes.ReplaceAll(c.cell, []byte(`""`), []byte(`"`))...)
}

// Package rows reads files of rows, JSONL or CSV, for the verbs that judge and
// send them. It gives each row its place and its own text, and makes of it the
// JSON that a record of a source topic would hold; what the row means is not
// its business. No line is too long, and no line ends the reading of a file.
package rows

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/encoding/htmlindex"
	"golang.org/x/text/encoding/unicode"
	"golang.org/x/text/transform"
)

// Format is how a file of rows is written.
type Format struct {
	// CSV: RFC 4180, the first line names the columns. Otherwise JSONL: a
	// JSON object a line.
	CSV bool
	// Delimiter stands between the cells of a CSV line.
	Delimiter rune
	// Encoding is a name of the WHATWG's list, such as windows-1252; "" and
	// utf-8 are UTF-8, whose faults are left in for the row to be judged by.
	// A byte order mark says more than this does.
	Encoding string
}

// NewFormat tells the format of the file called name ("-" or "" is standard
// input) from what its user says of it: format is jsonl, csv or "" (by the
// name's ending: .csv and, with tabs, .tsv; all else is JSONL), delimiter one
// character, tab or "" (a comma), encoding as in Format. An error is the user's.
func NewFormat(name, format, delimiter, encoding string) (Format, error) {
	f := Format{Delimiter: ',', Encoding: encoding}
	ending := strings.ToLower(filepath.Ext(name))
	switch format {
	case "csv":
		f.CSV = true
	case "jsonl":
	case "":
		f.CSV = ending == ".csv" || ending == ".tsv"
	default:
		return Format{}, fmt.Errorf("format %q is not jsonl or csv", format)
	}
	if ending == ".tsv" {
		f.Delimiter = '\t'
	}
	switch delimiter {
	case "":
	case "tab", `\t`:
		f.Delimiter = '\t'
	default:
		if !f.CSV {
			return Format{}, errors.New("a delimiter is for CSV: say --format csv")
		}
		r, size := utf8.DecodeRuneInString(delimiter)
		if size != len(delimiter) || r == utf8.RuneError || strings.ContainsRune("\"\r\n\x00", r) {
			return Format{}, fmt.Errorf("delimiter %q is not one character (or tab)", delimiter)
		}
		f.Delimiter = r
	}
	if encoding != "" {
		if _, err := htmlindex.Get(encoding); err != nil {
			return Format{}, fmt.Errorf("encoding %q is not known: say utf-8, windows-1252, iso-8859-15, utf-16le …", encoding)
		}
	}
	return f, nil
}

// Record is one row as the file has it.
type Record struct {
	Line int    // the physical line where it starts, from 1
	Text []byte // in UTF-8, without its line's end; valid until the next call of Next
}

// Reader reads the records of a file in their order.
type Reader struct {
	in     *bufio.Reader
	csv    bool
	comma  []byte
	read   int      // physical lines read
	text   []byte   // of the record at hand, where it spans buffers or lines
	header []string // CSV: the columns; nil before the header is read
	keys   [][]byte // CSV: the header's names as JSON, with what stands before and after them

	keyBytes int // what the keys add to a row, and the quotes of its values
}

// NewReader reads from in, whose bytes are in the format f.
func NewReader(in io.Reader, f Format) *Reader {
	r := &Reader{csv: f.CSV, comma: utf8.AppendRune(nil, f.Delimiter)}
	r.in = bufio.NewReaderSize(decoded(bufio.NewReader(in), f.Encoding), 256<<10)
	return r
}

// decoded turns in into UTF-8 without a byte order mark. Bytes that already
// are, or claim to be, UTF-8 go through untouched.
func decoded(in *bufio.Reader, name string) io.Reader {
	start, _ := in.Peek(3)
	switch {
	case bytes.Equal(start, []byte("\xef\xbb\xbf")):
		in.Discard(3)
		return in
	case bytes.HasPrefix(start, []byte("\xff\xfe")), bytes.HasPrefix(start, []byte("\xfe\xff")):
		return transform.NewReader(in, unicode.BOMOverride(transform.Nop))
	}
	encoding, err := htmlindex.Get(name)
	if err != nil || encoding == unicode.UTF8 {
		return in
	}
	return transform.NewReader(in, encoding.NewDecoder())
}

// Next returns the next record, and io.EOF after the last. Blank lines are
// passed over. Another error is of the file, or of its CSV header.
func (r *Reader) Next() (Record, error) {
	if r.csv && r.header == nil {
		if err := r.readHeader(); err != nil {
			return Record{}, err
		}
	}
	return r.next()
}

// Header returns the column names of a CSV file once Next was called.
func (r *Reader) Header() []string { return r.header }

func (r *Reader) readHeader() error {
	record, err := r.next()
	if err == io.EOF {
		return io.EOF
	}
	if err != nil {
		return err
	}
	var name []byte
	c := cells{text: record.Text, comma: r.comma}
	for c.next() {
		name = c.value(name[:0])
		r.header = append(r.header, string(name))
		key, err := json.Marshal(string(name))
		if err != nil {
			return err
		}
		before := byte(',')
		if len(r.keys) == 0 {
			before = '{'
		}
		r.keys = append(r.keys, append(append([]byte{before}, key...), ':'))
		r.keyBytes += len(key) + len(`,:""}`)
	}
	if c.broken {
		return fmt.Errorf("line %d: the header is not CSV", record.Line)
	}
	if !utf8.Valid(record.Text) {
		return fmt.Errorf("line %d: the header is not UTF-8: say --encoding", record.Line)
	}
	if bytes.ContainsRune(record.Text, '\r') {
		return fmt.Errorf("line %d: the header holds a carriage return: lines are to end in LF or CRLF", record.Line)
	}
	return nil
}

// next gathers one record: a line, or as many as a quoted cell spans.
func (r *Reader) next() (Record, error) {
	for {
		line, err := r.line()
		if err != nil {
			return Record{}, err
		}
		if r.blank(line) {
			continue
		}
		record := Record{Line: r.read, Text: line}
		if !r.csv {
			record.Text = withoutEnd(line)
			return record, nil
		}
		var q quotes
		if !q.open(line, r.comma) {
			record.Text = withoutEnd(line)
			return record, nil
		}
		r.text = append(r.text[:0], line...) // line may already be r.text: then nothing moves
		for {
			more, err := r.moreText()
			if err == io.EOF {
				break // the quote is never closed: the record is what there is
			}
			if err != nil {
				return Record{}, err
			}
			if !q.open(more, r.comma) {
				break
			}
		}
		record.Text = withoutEnd(r.text)
		return record, nil
	}
}

// line returns the next physical line with its end; io.EOF where there is none.
func (r *Reader) line() ([]byte, error) {
	line, err := r.in.ReadSlice('\n')
	if err == bufio.ErrBufferFull {
		r.text = append(r.text[:0], line...)
		err = r.restOfLine()
		line = r.text
	}
	return r.count(line, err)
}

// moreText appends the next physical line to the text at hand and returns that line.
func (r *Reader) moreText() ([]byte, error) {
	from := len(r.text)
	err := r.restOfLine()
	return r.count(r.text[from:], err)
}

func (r *Reader) restOfLine() error {
	for {
		part, err := r.in.ReadSlice('\n')
		r.text = append(r.text, part...)
		if err != bufio.ErrBufferFull {
			return err
		}
	}
}

// count counts a line that was read; the last one may lack its end.
func (r *Reader) count(line []byte, err error) ([]byte, error) {
	if err == io.EOF && len(line) > 0 {
		err = nil
	}
	if err != nil {
		return nil, err
	}
	r.read++
	return line, nil
}

// blank reports whether a line holds nothing: with tabs between its cells,
// tabs are something.
func (r *Reader) blank(line []byte) bool {
	return len(bytes.TrimSpace(line)) == 0 && !(r.csv && bytes.Contains(line, r.comma))
}

func withoutEnd(line []byte) []byte {
	return bytes.TrimSuffix(bytes.TrimSuffix(line, []byte("\n")), []byte("\r"))
}

// Value returns the value that a record of a source topic has for a row of
// this text: JSONL is text itself; of CSV it is an object that holds every cell
// as a string, or, where the line is no CSV or has too many or too few cells,
// its text as one JSON string, which is no object and will be judged as that.
// It may be called from several goroutines once Next was called.
func (r *Reader) Value(text []byte) []byte {
	if !r.csv {
		return text
	}
	dst := make([]byte, 0, len(text)+r.keyBytes)
	c := cells{text: text, comma: r.comma}
	i := 0
	for ; c.next(); i++ {
		if i == len(r.keys) {
			c.broken = true
			break
		}
		dst = append(dst, r.keys[i]...)
		dst = append(dst, '"')
		if c.doubled || !plain(c.cell) {
			dst = escape(dst, c.value(nil))
		} else {
			dst = append(dst, c.cell...)
		}
		dst = append(dst, '"')
	}
	if c.broken || i < len(r.keys) {
		dst = append(dst[:0], '"')
		return append(escape(dst, text), '"')
	}
	return append(dst, '}')
}

// plain reports whether a cell can stand in a JSON string as it is.
func plain(cell []byte) bool {
	for _, c := range cell {
		if c < 0x20 || c == '"' || c == '\\' {
			return false
		}
	}
	return true
}

// escape appends text as the inside of a JSON string. Bytes that are not UTF-8
// stay, so that the row is judged by them.
func escape(dst, text []byte) []byte {
	for _, c := range text {
		switch {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c < 0x20:
			dst = fmt.Appendf(dst, `\u%04x`, c)
		default:
			dst = append(dst, c)
		}
	}
	return dst
}

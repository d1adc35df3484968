// Package rows reads files of rows, JSONL or CSV, for the verbs that judge and
// send them. It gives each row its place and its own text, and makes of it the
// JSON that a record of a source topic would hold; what the row means is not
// its business. No line is too long, and no line ends the reading of a file.
package rows

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/encoding/htmlindex"
	"golang.org/x/text/encoding/unicode"
	"golang.org/x/text/transform"
)

// Format is how a file of rows is written.
type Format struct {
	// CSV: RFC 4180, the first line names the columns unless Columns do.
	// Otherwise JSONL: a JSON object a line.
	CSV bool
	// Columns say which cell of a CSV line is which column of a row; those that
	// they do not speak of are left out.
	Columns []Column
	// InOrder: Columns are all the cells of a line, from the first to the last.
	// The first line is passed over unseen, if it is no row.
	InOrder bool
	// NoHeader: the first line is a row. Columns go by position then.
	NoHeader bool
	// Delimiter stands between the cells of a CSV line.
	Delimiter rune
	// Encoding is a name of the WHATWG's list, such as windows-1252; "" and
	// utf-8 are UTF-8, whose faults are left in for the row to be judged by.
	// A byte order mark says more than this does.
	Encoding string
}

// Column is a cell of a CSV line and the column of a row that it is.
type Column struct {
	Name     string // in the first line; "": by Position
	Position int    // from 1
	As       string // "": left out
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
		if err := CheckEncoding(encoding); err != nil {
			return Format{}, err
		}
	}
	return f, nil
}

// CheckEncoding refuses the name of an encoding that is not known.
func CheckEncoding(name string) error {
	if _, err := htmlindex.Get(name); err != nil {
		return fmt.Errorf("encoding %q is not known: say utf-8, windows-1252, iso-8859-15, utf-16le …", name)
	}
	return nil
}

// Record is one row as the file has it.
type Record struct {
	Line int    // the physical line where it starts, from 1
	Text []byte // in UTF-8, without its line's end; valid until the next call of Next
}

// Reader reads the records of a file in their order.
type Reader struct {
	in     *bufio.Reader
	format Format
	comma  []byte
	read   int    // physical lines read
	text   []byte // of the record at hand, where it spans buffers or lines

	// CSV, once ready: the header is read, or is not there.
	ready  bool
	header []string // the rows' columns
	keys   [][]byte // by cell: the column's name as JSON, with what stands before and after it; nil: left out
	doubts []string

	keyBytes int // what the keys add to a row, and the quotes of its values
}

// NewReader reads from in, whose bytes are in the format f.
func NewReader(in io.Reader, f Format) *Reader {
	r := &Reader{format: f, comma: utf8.AppendRune(nil, f.Delimiter)}
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
	if r.format.CSV && !r.ready {
		if err := r.readHeader(); err != nil {
			return Record{}, err
		}
		r.ready = true
	}
	return r.next()
}

// Header returns the columns of a CSV file's rows once Next was called.
func (r *Reader) Header() []string { return r.header }

// Doubts returns what a person should know about the first line of a CSV file,
// once Next was called: why every row may be other than was meant.
func (r *Reader) Doubts() []string { return r.doubts }

// readHeader reads the first line, where it is no row, and finds which cell is
// which column.
func (r *Reader) readHeader() error {
	var names []string
	line := 0
	if !r.format.NoHeader {
		record, err := r.next()
		if err != nil {
			return err
		}
		line = record.Line
		if names, err = r.names(record); err != nil && !r.format.InOrder {
			return err
		}
	}
	switch {
	case r.format.InOrder:
		r.doubtOrder(names)
		for _, c := range r.format.Columns {
			r.addCell(c.As)
		}
	case r.format.Columns != nil:
		return r.choose(names, line)
	default:
		for i, name := range names {
			if slices.Contains(names[:i], name) {
				r.doubt("the header names column %q twice", name)
			}
			r.addCell(name)
		}
	}
	return nil
}

// names takes the first line apart.
func (r *Reader) names(record Record) (names []string, err error) {
	var name []byte
	c := cells{text: record.Text, comma: r.comma}
	for c.next() {
		name = c.value(name[:0])
		names = append(names, string(name))
	}
	if c.broken {
		return nil, fmt.Errorf("line %d: the header is not CSV", record.Line)
	}
	if !utf8.Valid(record.Text) {
		return nil, fmt.Errorf("line %d: the header is not UTF-8: say --encoding", record.Line)
	}
	if bytes.ContainsRune(record.Text, '\r') {
		return nil, fmt.Errorf("line %d: the header holds a carriage return: lines are to end in LF or CRLF", record.Line)
	}
	return names, nil
}

// choose finds the columns that are wanted among those of the file.
func (r *Reader) choose(names []string, line int) error {
	var as []string // by cell
	take := func(cell int, c Column) error {
		for len(as) <= cell {
			as = append(as, "")
		}
		if as[cell] != "" {
			return fmt.Errorf("line %d: column %d of the file is mapped twice, to %s and to %s: keep one", line, cell+1, as[cell], c.As)
		}
		as[cell] = c.As
		return nil
	}
	for _, c := range r.format.Columns {
		cell := c.Position - 1
		if c.Name != "" {
			is := func(name string) bool { return strings.TrimSpace(name) == c.Name }
			if cell = slices.IndexFunc(names, is); cell < 0 {
				return fmt.Errorf("line %d: the header has no column %q, which is mapped to %s: it has %s", line, c.Name, c.As, strings.Join(names, ", "))
			}
			if slices.ContainsFunc(names[cell+1:], is) {
				return fmt.Errorf("line %d: the header names column %q twice, and it is mapped to %s: map it by its position", line, c.Name, c.As)
			}
		} else if !r.format.NoHeader && cell >= len(names) {
			return fmt.Errorf("line %d: the header has %d columns, and column %d is mapped to %s: is the delimiter right?", line, len(names), c.Position, c.As)
		}
		if err := take(cell, c); err != nil {
			return err
		}
	}
	var left []string
	for i, name := range names {
		if i >= len(as) {
			as = append(as, "")
		}
		if as[i] == "" {
			left = append(left, strconv.Quote(name))
		}
	}
	if left != nil {
		r.doubt("the mapping leaves out %s", strings.Join(left, ", "))
	}
	for _, name := range as {
		r.addCell(name)
	}
	return nil
}

// addCell notes which column the next cell is; "" where the mapping leaves it out.
func (r *Reader) addCell(column string) {
	if column == "" && r.format.Columns != nil {
		r.keys = append(r.keys, nil)
		return
	}
	key := escape([]byte{'"'}, []byte(column))
	before := byte(',')
	if len(r.header) == 0 {
		before = '{'
	}
	r.header = append(r.header, column)
	r.keys = append(r.keys, append(append([]byte{before}, key...), '"', ':'))
	r.keyBytes += len(key) + len(`"",:""}`)
}

// doubtOrder compares a first line that is passed over with the columns in order.
func (r *Reader) doubtOrder(names []string) {
	if names == nil {
		return
	}
	if len(names) != len(r.format.Columns) {
		r.doubt("the first line has %d columns, and the mapping %d: is the delimiter right?", len(names), len(r.format.Columns))
		return
	}
	for i, c := range r.format.Columns {
		other := slices.IndexFunc(r.format.Columns, func(c Column) bool { return c.As != "" && c.As == strings.TrimSpace(names[i]) })
		if other >= 0 && other != i {
			r.doubt("column %d is %s by the first line, and by the mapping %s", i+1, r.format.Columns[other].As, cmp.Or(c.As, "ignored"))
		}
	}
}

func (r *Reader) doubt(format string, args ...any) {
	r.doubts = append(r.doubts, fmt.Sprintf(format, args...))
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
		if !r.format.CSV {
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
	return len(bytes.TrimSpace(line)) == 0 && !(r.format.CSV && bytes.Contains(line, r.comma))
}

func withoutEnd(line []byte) []byte {
	return bytes.TrimSuffix(bytes.TrimSuffix(line, []byte("\n")), []byte("\r"))
}

// Value returns the value that a record of a source topic has for a row of
// this text: JSONL is text itself; of CSV it is an object that holds every cell
// (that is not left out) as a string, or, where the line is no CSV or has too many or too few cells,
// its text as one JSON string, which is no object and will be judged as that.
// It may be called from several goroutines once Next was called.
func (r *Reader) Value(text []byte) []byte {
	if !r.format.CSV {
		return text
	}
	dst := make([]byte, 0, len(text)+r.keyBytes)
	c := cells{text: text, comma: r.comma}
	i := 0
	for ; c.next(); i++ {
		if i >= len(r.keys) {
			if loose := r.format.NoHeader && !r.format.InOrder; loose {
				continue // how many cells a line has, nothing says
			}
			c.broken = true
			break
		}
		if r.keys[i] == nil {
			continue
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

package catalogue

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"errors"
	"io"
	"strings"
)

// csvReader reads the records of a CSV file as encoding/csv does, several
// times faster: a line whose quotes, if any, enclose whole cells and nothing
// odd, as nearly all do, it takes apart itself. Whatever else stands there (a
// doubled quote, a cell of several lines, a fault) is encoding/csv's to read,
// from the same buffer.
type csvReader struct {
	in    *bufio.Reader
	line  int // physical lines read
	cells []string

	odd     *csv.Reader
	oddLine int // physical lines that odd has read
}

func newCSVReader(in *bufio.Reader) *csvReader {
	r := &csvReader{in: in, odd: csv.NewReader(in)} // in is large enough to be taken as it is: nothing is read ahead
	r.odd.ReuseRecord = true
	r.odd.FieldsPerRecord = -1
	return r
}

// read returns the cells of the next record and the physical line where it
// starts, also of a *csv.ParseError; io.EOF after the last. The slice is valid
// until the next call, the texts for ever.
func (r *csvReader) read() (cells []string, line int, err error) {
	for {
		text, err := r.peekLine()
		if err == io.EOF || err == bufio.ErrBufferFull {
			return r.readOdd()
		}
		if err != nil {
			return nil, 0, err
		}
		bare := bytes.TrimSuffix(text[:len(text)-1], []byte{'\r'})
		if len(bare) > 0 && !r.split(string(bare)) {
			return r.readOdd()
		}
		r.line++
		r.in.Discard(len(text))
		if len(bare) > 0 {
			return r.cells, r.line, nil
		}
	}
}

// peekLine returns the next line with its end; io.EOF where it has none,
// bufio.ErrBufferFull where it is longer than the buffer.
func (r *csvReader) peekLine() ([]byte, error) {
	for searched := 0; ; {
		buffered, _ := r.in.Peek(r.in.Buffered())
		if end := bytes.IndexByte(buffered[searched:], '\n'); end >= 0 {
			return buffered[:searched+end+1], nil
		}
		searched = len(buffered)
		if _, err := r.in.Peek(searched + 1); err != nil {
			return nil, err
		}
	}
}

// split takes a line apart, unless there is something odd about its quotes.
func (r *csvReader) split(line string) bool {
	r.cells = r.cells[:0]
	if strings.IndexByte(line, '"') < 0 {
		for {
			cell, rest, more := strings.Cut(line, ",")
			r.cells = append(r.cells, cell)
			if !more {
				return true
			}
			line = rest
		}
	}
	for {
		var cell string
		var more bool
		if strings.HasPrefix(line, `"`) {
			end := 1 + strings.IndexByte(line[1:], '"')
			if end == 0 {
				return false
			}
			cell, line = line[1:end], line[end+1:]
			if more = line != ""; more && line[0] != ',' {
				return false
			}
			line = strings.TrimPrefix(line, ",")
		} else {
			cell, line, more = strings.Cut(line, ",")
			if strings.IndexByte(cell, '"') >= 0 {
				return false
			}
		}
		r.cells = append(r.cells, cell)
		if !more {
			return true
		}
	}
}

// readOdd has encoding/csv read the next record.
func (r *csvReader) readOdd() (cells []string, line int, err error) {
	cells, err = r.odd.Read()
	before, start, end := r.oddLine, 0, 0 // as odd counts
	var fault *csv.ParseError
	switch {
	case errors.As(err, &fault):
		start, end = fault.StartLine, fault.Line
	case err != nil:
		return nil, 0, err
	default:
		start, _ = r.odd.FieldPos(0)
		end, _ = r.odd.FieldPos(len(cells) - 1)
		end += strings.Count(cells[len(cells)-1], "\n")
	}
	line = r.line + start - before
	r.line += end - before
	r.oddLine = end
	return cells, line, err
}

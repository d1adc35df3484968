package catalogue

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

var bom = []byte("\xef\xbb\xbf")

// readCSV visits the lines of a CSV file. encoding/csv reads RFC 4180 but
// counts a missing cell only against the first record; we count for every one.
func (f file) readCSV(r io.Reader, visit func(Line) error) error {
	in := bufio.NewReaderSize(r, 256<<10)
	if start, _ := in.Peek(len(bom)); bytes.Equal(start, bom) {
		in.Discard(len(bom))
	}
	records := csv.NewReader(in)
	records.ReuseRecord = true
	records.FieldsPerRecord = -1

	header, err := records.Read()
	if err == io.EOF {
		return fmt.Errorf("%s:1: no header line: expected %s", f.path, strings.Join(columnsOf(f.kind), ","))
	}
	if err != nil {
		return f.headerFault(err)
	}
	line, _ := records.FieldPos(0)
	columns, err := f.header(line, header)
	if err != nil {
		return err
	}

	cells := make([]string, len(columnsOf(f.kind)))
	for {
		record, err := records.Read()
		if err == io.EOF {
			return nil
		}
		line := Line{Kind: f.kind, File: f.path}
		var fault *csv.ParseError
		switch {
		case errors.As(err, &fault):
			line.Number = fault.StartLine
			line.Bad = "not CSV: " + fault.Err.Error()
		case err != nil:
			return fmt.Errorf("%s: %w", f.path, err)
		default:
			line.Number, _ = records.FieldPos(0)
			if len(record) == 1 && len(columns) > 1 && strings.TrimSpace(record[0]) == "" {
				continue // a blank line that holds a blank
			}
			if len(record) != len(columns) {
				line.Bad = fmt.Sprintf("%d cells, the header has %d", len(record), len(columns))
				break
			}
			clear(cells)
			for i, column := range columns {
				cells[column] = record[i]
			}
			line.parse(cells)
		}
		if err := visit(line); err != nil {
			return err
		}
	}
}

func (f file) headerFault(err error) error {
	var fault *csv.ParseError
	if errors.As(err, &fault) {
		return fmt.Errorf("%s:%d: header line is not CSV: %w", f.path, fault.StartLine, fault.Err)
	}
	return fmt.Errorf("%s: %w", f.path, err)
}

// header returns for each cell of the header the index of its column, or all
// that is wrong with it.
func (f file) header(line int, names []string) ([]int, error) {
	known := columnsOf(f.kind)
	columns := make([]int, len(names))
	given := make([]bool, len(known))
	var faults []error
	for i, name := range names {
		at := slices.Index(known, strings.TrimSpace(name))
		switch {
		case at < 0:
			faults = append(faults, fmt.Errorf("%s:%d: column %q is unknown: the columns of %s are %s",
				f.path, line, name, f.kind, strings.Join(known, ", ")))
			continue
		case given[at]:
			faults = append(faults, fmt.Errorf("%s:%d: column %q stands twice", f.path, line, known[at]))
		}
		columns[i], given[at] = at, true
	}
	if missing := missingColumns(f.kind, func(i int) bool { return given[i] }); missing != "" {
		faults = append(faults, fmt.Errorf("%s:%d: header line lacks %s", f.path, line, missing))
	}
	return columns, errors.Join(faults...)
}

// readJSONL visits the lines of a JSONL file.
func (f file) readJSONL(r io.Reader, visit func(Line) error) error {
	in := bufio.NewScanner(r)
	in.Buffer(make([]byte, 256<<10), math.MaxInt)
	cells := make([]string, len(columnsOf(f.kind)))
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
		if bad := object(text, columnsOf(f.kind), cells); bad != "" {
			line.Bad = bad
		} else {
			line.parse(cells)
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

package catalogue

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

var bom = []byte("\xef\xbb\xbf")

// readCSV visits the lines of a CSV file. encoding/csv would count a missing
// cell only against the first record; we count for every one.
func (f file) readCSV(r io.Reader, visit func(Line) error) error {
	in := bufio.NewReaderSize(r, 256<<10)
	if start, _ := in.Peek(len(bom)); bytes.Equal(start, bom) {
		in.Discard(len(bom))
	}
	known := columnsOf(f.kind)
	records := newCSVReader(in)
	header, number, err := records.read()
	if err == io.EOF {
		return fmt.Errorf("%s:1: no header line: expected %s", f.path, strings.Join(known, ","))
	}
	if err != nil {
		return f.headerFault(number, err)
	}
	columns, err := f.header(number, header)
	if err != nil {
		return err
	}

	cells := make([]string, len(known))
	for {
		record, number, err := records.read()
		if err == io.EOF {
			return nil
		}
		line := Line{Kind: f.kind, File: f.path, Number: number}
		var fault *csv.ParseError
		switch {
		case errors.As(err, &fault):
			line.Bad = "not CSV: " + fault.Err.Error()
		case err != nil:
			return fmt.Errorf("%s: %w", f.path, err)
		case len(record) == 1 && len(columns) > 1 && strings.TrimSpace(record[0]) == "":
			continue // a blank line that holds a blank
		case len(record) != len(columns):
			line.Bad = fmt.Sprintf("%d cells, the header has %d", len(record), len(columns))
		default:
			clear(cells)
			for i, column := range columns {
				cells[column] = record[i]
			}
			line.parse(known, cells)
		}
		if err := visit(line); err != nil {
			return err
		}
	}
}

func (f file) headerFault(line int, err error) error {
	var fault *csv.ParseError
	if errors.As(err, &fault) {
		return fmt.Errorf("%s:%d: header line is not CSV: %w", f.path, line, fault.Err)
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
	if missing := missingColumns(f.kind, known, func(i int) bool { return given[i] }); missing != "" {
		faults = append(faults, fmt.Errorf("%s:%d: header line lacks %s", f.path, line, missing))
	}
	return columns, errors.Join(faults...)
}

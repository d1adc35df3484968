package main

import (
	"bufio"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"
)

// formatHelp says in a verb's help what -f does.
const formatHelp = `
-f table is for people, json is one object a line, and csv is safe to open in a spreadsheet:
a cell that would be taken for a formula begins with '.`

// formatFlag adds -f to a verb.
func formatFlag(cmd *cobra.Command, form *string) {
	cmd.Flags().StringVarP(form, "format", "f", "table", "table, json or csv")
}

// printColumn is a column of what a verb of dlq prints for each T.
type printColumn[T any] struct {
	name string // in csv; in a table in capitals
	text func(*T) string
	// only: "table" or "csv", where the other goes without; "": both.
	only string
}

// printer prints values of T as -f asks: tables and csv by their columns, json
// as encoding/json has them. Tables are printed by close.
type printer[T any] struct {
	form    string
	columns []printColumn[T]
	// notes are lines below that of a value in a table; nil: none.
	notes func(*T) []string

	out   *bufio.Writer
	csv   *csv.Writer
	json  *json.Encoder
	lines []printedLine
}

type printedLine struct{ cells, notes []string }

// newPrinter returns a printer, or an error of the call.
func newPrinter[T any](out io.Writer, form string, columns []printColumn[T]) (*printer[T], error) {
	p := &printer[T]{form: form, out: bufio.NewWriter(out)}
	p.columns = slices.DeleteFunc(slices.Clone(columns), func(c printColumn[T]) bool { return c.only != "" && c.only != form })
	switch form {
	case "table":
	case "json":
		p.json = json.NewEncoder(p.out)
		p.json.SetEscapeHTML(false)
	case "csv":
		p.csv = csv.NewWriter(p.out)
		return p, p.csv.Write(p.names())
	default:
		return nil, badCall("-f %q is not table, json or csv", form)
	}
	return p, nil
}

func (p *printer[T]) names() []string {
	var names []string
	for _, c := range p.columns {
		names = append(names, c.name)
	}
	return names
}

// print prints a value; in a table, once it is closed.
func (p *printer[T]) print(v *T) error {
	if p.json != nil {
		return p.json.Encode(v)
	}
	cells := make([]string, len(p.columns))
	for i, c := range p.columns {
		cells[i] = c.text(v)
	}
	if p.csv != nil {
		for i := range cells {
			cells[i] = spreadsheetSafe(cells[i])
		}
		return p.csv.Write(cells)
	}
	for i := range cells {
		cells[i] = cut(printable(cells[i]), maxCell)
		if cells[i] == "" {
			cells[i] = "-"
		}
	}
	line := printedLine{cells: cells}
	if p.notes != nil {
		for _, note := range p.notes(v) {
			line.notes = append(line.notes, printable(note))
		}
	}
	p.lines = append(p.lines, line)
	return nil
}

// printAll prints values and closes.
func (p *printer[T]) printAll(all []T) error {
	for i := range all {
		if err := p.print(&all[i]); err != nil {
			return err
		}
	}
	return p.close()
}

// close ends what is printed.
func (p *printer[T]) close() error {
	switch {
	case p.csv != nil:
		p.csv.Flush()
		if err := p.csv.Error(); err != nil {
			return err
		}
	case p.form == "table":
		p.table()
	}
	return p.out.Flush()
}

// table prints the lines, each column as wide as its widest cell.
func (p *printer[T]) table() {
	titles := p.names()
	for i := range titles {
		titles[i] = title(titles[i])
	}
	lines := append([]printedLine{{cells: titles}}, p.lines...)
	widths := make([]int, len(titles))
	for _, l := range lines {
		for i, cell := range l.cells {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	for _, l := range lines {
		for i, cell := range l.cells {
			p.out.WriteString(cell)
			if i < len(l.cells)-1 {
				p.out.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell)+2))
			}
		}
		p.out.WriteByte('\n')
		for _, note := range l.notes {
			p.out.WriteString("    " + note + "\n")
		}
	}
}

// title is a column's name in a table: rejectedAt is REJECTED AT.
func title(name string) string {
	var b strings.Builder
	for _, r := range name {
		if unicode.IsUpper(r) {
			b.WriteByte(' ')
		}
		b.WriteRune(unicode.ToUpper(r))
	}
	return b.String()
}

// maxCell is how many characters of a cell a table shows.
const maxCell = 200

// cut returns the first n characters of a text, and … where there are more.
func cut(text string, n int) string {
	if utf8.RuneCountInString(text) <= n {
		return text
	}
	return string([]rune(text)[:n-1]) + "…"
}

// printable writes out what would move a terminal's cursor, or change its
// colours: rows are written by strangers.
func printable(text string) string {
	if strings.IndexFunc(text, unprintable) < 0 {
		return text
	}
	var b strings.Builder
	for _, r := range text {
		switch {
		case !unprintable(r):
			b.WriteRune(r)
		case r > 0xffff:
			fmt.Fprintf(&b, `\U%08x`, r)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}

func unprintable(r rune) bool { return r != ' ' && !unicode.IsPrint(r) }

// spreadsheetSafe keeps a cell from being a formula.
func spreadsheetSafe(cell string) string {
	if cell != "" && strings.ContainsRune("=+-@\t\r\n", rune(cell[0])) {
		return "'" + cell
	}
	return cell
}

// moment is a time as all formats have it: RFC 3339, UTC, to the second in
// tables. The zero time is "".
func moment(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

// optTime is a time for JSON: null where it is zero.
func optTime(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

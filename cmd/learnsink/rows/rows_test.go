package rows_test

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"learnsink/cmd/learnsink/rows"
)

// row is a record with the value made of it.
type row struct {
	Line  int
	Text  string
	Value string
}

func read(t testing.TB, name, delimiter, encoding, text string) []row {
	t.Helper()
	f, err := rows.NewFormat(name, "", delimiter, encoding)
	if err != nil {
		t.Fatal(err)
	}
	got, err := readAll(rows.NewReader(strings.NewReader(text), f))
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func readAll(r *rows.Reader) ([]row, error) {
	var all []row
	for {
		record, err := r.Next()
		if err == io.EOF {
			return all, nil
		}
		if err != nil {
			return all, err
		}
		all = append(all, row{record.Line, string(record.Text), string(r.Value(record.Text))})
	}
}

func TestRead(t *testing.T) {
	for _, c := range []struct {
		name                           string
		file, delimiter, encoding, was string
		want                           []row
	}{
		{name: "JSONL goes through as it stands", file: "x.jsonl", was: "{\"a\":1}\r\n\n  \t\nnot json\n{}",
			want: []row{{1, `{"a":1}`, `{"a":1}`}, {4, "not json", "not json"}, {5, "{}", "{}"}}},
		{name: "a byte order mark is no part of the first row", file: "x", was: "\ufeff{}\n",
			want: []row{{1, "{}", "{}"}}},
		{name: "bytes that are not UTF-8 stay for the row to be judged by", file: "x", encoding: "utf-8", was: "\xff\n",
			want: []row{{1, "\xff", "\xff"}}},
		{name: "the header names the columns", file: "x.csv", was: "a,b\n1,\n",
			want: []row{{2, "1,", `{"a":"1","b":""}`}}},
		{name: "a mark, CRLF and blank lines around a header", file: "x.CSV", was: "\ufeff\r\n\r\na,b\r\n \r\n1,2\r\n",
			want: []row{{5, "1,2", `{"a":"1","b":"2"}`}}},
		{name: "quoted cells hold delimiters, quotes and lines", file: "x.csv", was: "a,b\n\"1,\"\"x\"\"\",\"two\r\nlines\n\"\n3,4",
			want: []row{{2, "\"1,\"\"x\"\"\",\"two\r\nlines\n\"", `{"a":"1,\"x\"","b":"two\u000d\u000alines\u000a"}`}, {5, "3,4", `{"a":"3","b":"4"}`}}},
		{name: "too few and too many cells are no objects", file: "x.csv", was: "a,b\n1\n1,2,3\n1,2\n",
			want: []row{{2, "1", `"1"`}, {3, "1,2,3", `"1,2,3"`}, {4, "1,2", `{"a":"1","b":"2"}`}}},
		{name: "a cell that is an object does not become the row", file: "x.csv", was: "a,b\n{}\n",
			want: []row{{2, "{}", `"{}"`}}},
		{name: "a stray quote spoils its own line only", file: "x.csv", was: "a,b\n1\"x,\"2\n\"1\"x,2\n1,2\n",
			want: []row{{2, `1"x,"2`, `"1\"x,\"2"`}, {3, `"1"x,2`, `"\"1\"x,2"`}, {4, "1,2", `{"a":"1","b":"2"}`}}},
		{name: "a quote that is never closed takes the rest", file: "x.csv", was: "a,b\n1,\"2\n3,4\n",
			want: []row{{2, "1,\"2\n3,4", `"1,\"2\u000a3,4"`}}},
		{name: "an empty quoted cell", file: "x.csv", was: "a,b\n\"\",\"\"\n",
			want: []row{{2, `"",""`, `{"a":"","b":""}`}}},
		{name: "one column", file: "x.csv", was: "a\n1\n\n\"\"\n",
			want: []row{{2, "1", `{"a":"1"}`}, {4, `""`, `{"a":""}`}}},
		{name: "a semicolon between the cells", file: "x.csv", delimiter: ";", was: "a;b\n1,5;2\n",
			want: []row{{2, "1,5;2", `{"a":"1,5","b":"2"}`}}},
		{name: "a delimiter beyond ASCII", file: "x.csv", delimiter: "§", was: "a§b\n\"1\"§2\n",
			want: []row{{2, `"1"§2`, `{"a":"1","b":"2"}`}}},
		{name: "tabs by the ending; a line of tabs is not blank", file: "x.tsv", was: "a\tb\n\t\n1\t2\n",
			want: []row{{2, "\t", `{"a":"","b":""}`}, {3, "1\t2", `{"a":"1","b":"2"}`}}},
		{name: "windows-1252", file: "x.csv", encoding: "windows-1252", was: "a\n\x80\xe9\n",
			want: []row{{2, "€é", `{"a":"€é"}`}}},
		{name: "UTF-16 by its mark", file: "x.csv", was: "\xff\xfea\x00\n\x00\xac\x20\n\x00",
			want: []row{{2, "€", `{"a":"€"}`}}},
		{name: "UTF-16 by its name", file: "x", encoding: "utf-16be", was: "\x00{\x00}\x00\n",
			want: []row{{1, "{}", "{}"}}},
		{name: "names and cells are escaped", file: "x.csv", was: "\"a\"\"b\",c\\d\n\x01,\\\n",
			want: []row{{2, "\x01,\\", `{"a\"b":"\u0001","c\\d":"\\"}`}}},
		{name: "nothing at all", file: "x.csv", was: ""},
		{name: "a header alone", file: "x.csv", was: "a,b"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, read(t, c.file, c.delimiter, c.encoding, c.was)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestLinesOfAnyLength(t *testing.T) {
	long := strings.Repeat("x", 3<<20)
	want := []row{{2, long, `{"a":"` + long + `"}`}, {3, "1", `{"a":"1"}`}, {4, "\"" + long + "\n" + long + "\"", `{"a":"` + long + `\u000a` + long + `"}`}, {6, long, `{"a":"` + long + `"}`}}
	got := read(t, "x.csv", "", "", "a\n"+long+"\n1\n\""+long+"\n"+long+"\"\n"+long)
	if !cmp.Equal(want, got) {
		t.Errorf("%d rows", len(got))
		for i := range got {
			t.Errorf("%d: line %d, %d bytes", i, got[i].Line, len(got[i].Text))
		}
	}
}

func TestFaultsOfTheFile(t *testing.T) {
	for text, want := range map[string]string{
		"\n\"a\n":     "line 2: the header is not CSV",
		"a,\"b\"c\n":  "line 1: the header is not CSV",
		"a,\xff\n1,2": "line 1: the header is not UTF-8: say --encoding",
		"a,b\r1,2\r":  "line 1: the header holds a carriage return: lines are to end in LF or CRLF",
	} {
		_, err := rows.NewReader(strings.NewReader(text), rows.Format{CSV: true, Delimiter: ','}).Next()
		if err == nil || err.Error() != want {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
	broken := io.MultiReader(strings.NewReader("a\n1\n"), iotest.ErrReader(io.ErrClosedPipe))
	got, err := readAll(rows.NewReader(broken, rows.Format{CSV: true, Delimiter: ','}))
	if err != io.ErrClosedPipe || len(got) != 1 {
		t.Errorf("a file that breaks off: %v, %v", got, err)
	}
}

// What a mapping makes of lines, and what it gives a person to think about.
func TestMapping(t *testing.T) {
	named := func(pairs ...string) (columns []rows.Column) {
		for i := 0; i < len(pairs); i += 2 {
			columns = append(columns, rows.Column{Name: pairs[i], As: pairs[i+1]})
		}
		return columns
	}
	ordered := func(names ...string) (columns []rows.Column) {
		for i, name := range names {
			columns = append(columns, rows.Column{Position: i + 1, As: name})
		}
		return columns
	}
	for _, c := range []struct {
		name    string
		format  rows.Format
		file    string
		want    []row
		header  string
		doubts  []string
		wantErr string
	}{
		{name: "in order, the first line passed over", format: rows.Format{Columns: ordered("", "a", "", "b"), InOrder: true},
			file: "w,x,y,z\n1,2,3,\"4\"\"\"\n1,2,3\n1,2,3,4,5\n", header: "a b",
			want: []row{{2, `1,2,3,"4"""`, `{"a":"2","b":"4\""}`}, {3, "1,2,3", `"1,2,3"`}, {4, "1,2,3,4,5", `"1,2,3,4,5"`}}},
		{name: "in order, the first line a row", format: rows.Format{Columns: ordered("a", "b"), InOrder: true, NoHeader: true},
			file: "\n1,2\n1,2,3\n", header: "a b", want: []row{{2, "1,2", `{"a":"1","b":"2"}`}, {3, "1,2,3", `"1,2,3"`}}},
		{name: "a first line that is no CSV, and is none of ours", format: rows.Format{Columns: ordered("a", "b"), InOrder: true},
			file: "\"Export\" of \xff June\n1,2\n", header: "a b", want: []row{{2, "1,2", `{"a":"1","b":"2"}`}}},
		{name: "a first line of another length", format: rows.Format{Columns: ordered("a", "b"), InOrder: true},
			file: "a;b\n1;2\n", header: "a b", want: []row{{2, "1;2", `"1;2"`}},
			doubts: []string{"the first line has 1 columns, and the mapping 2: is the delimiter right?"}},
		{name: "a first line that says otherwise", format: rows.Format{Columns: ordered("a", "b", ""), InOrder: true},
			file: "b, a,a\n", header: "a b",
			doubts: []string{"column 1 is b by the first line, and by the mapping a", "column 2 is a by the first line, and by the mapping b", "column 3 is a by the first line, and by the mapping ignored"}},
		{name: "by name, in any order, the rest left out", format: rows.Format{Columns: named("Login", "a", "Note", "b")},
			file: "Mail, Note ,\"Login\",Mail\n1,2,3,4\n1,2\n", header: "b a",
			want:   []row{{2, "1,2,3,4", `{"b":"2","a":"3"}`}, {3, "1,2", `"1,2"`}},
			doubts: []string{`the mapping leaves out "Mail", "Mail"`}},
		{name: "by position, with a header", format: rows.Format{Columns: []rows.Column{{Position: 2, As: "a"}, {Name: "x", As: "b"}}},
			file: "x,x y\n1,2\n", header: "b a", want: []row{{2, "1,2", `{"b":"1","a":"2"}`}}},
		{name: "by position, without one: more cells are nobody's", format: rows.Format{Columns: []rows.Column{{Position: 2, As: "a"}}, NoHeader: true},
			file: "1,2\n1,2,3\n1\n1,2,\"3\"x\n", header: "a",
			want: []row{{1, "1,2", `{"a":"2"}`}, {2, "1,2,3", `{"a":"2"}`}, {3, "1", `"1"`}, {4, `1,2,"3"x`, `"1,2,\"3\"x"`}}},
		{name: "a name that is not there", format: rows.Format{Columns: named("Login", "a")}, file: "\nlogin,b\n1,2\n",
			wantErr: `line 2: the header has no column "Login", which is mapped to a: it has login, b`},
		{name: "a name that is there twice", format: rows.Format{Columns: named("x", "a")}, file: "x,b,x\n1,2,3\n",
			wantErr: `line 1: the header names column "x" twice, and it is mapped to a: map it by its position`},
		{name: "a position beyond", format: rows.Format{Columns: []rows.Column{{Position: 3, As: "a"}}}, file: "x;y;z\n",
			wantErr: "line 1: the header has 1 columns, and column 3 is mapped to a: is the delimiter right?"},
		{name: "a name and a position of one column", format: rows.Format{Columns: []rows.Column{{Position: 1, As: "a"}, {Name: "x", As: "b"}}}, file: "x,y\n",
			wantErr: "line 1: column 1 of the file is mapped twice, to a and to b: keep one"},
		{name: "a header that is no CSV", format: rows.Format{Columns: named("x", "a")}, file: "\"x\n", wantErr: "line 1: the header is not CSV"},
		{name: "nothing at all", format: rows.Format{Columns: named("x", "a")}, file: ""},
		{name: "no mapping, a column twice", format: rows.Format{}, file: "a,b,a\n1,2,3\n", header: "a b a",
			want:   []row{{2, "1,2,3", `{"a":"1","b":"2","a":"3"}`}},
			doubts: []string{`the header names column "a" twice`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.format.CSV, c.format.Delimiter = true, ','
			r := rows.NewReader(strings.NewReader(c.file), c.format)
			got, err := readAll(r)
			if fmt.Sprint(err) != orNil(c.wantErr) {
				t.Fatalf("%v, want %s", err, c.wantErr)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
			if header := strings.Join(r.Header(), " "); err == nil && header != c.header {
				t.Errorf("header %q, want %q", header, c.header)
			}
			if diff := cmp.Diff(c.doubts, r.Doubts()); err == nil && diff != "" {
				t.Error(diff)
			}
		})
	}
}

// FuzzMapping: whatever the bytes, a value is an object with the columns of
// the mapping and no others, or a JSON string; and columns in order that leave
// nothing out say what a header of those names says.
func FuzzMapping(f *testing.F) {
	f.Add("a,b,c\n1,2,3\n\"x\ny\",\"\"\"\",\n", true, true)
	f.Add("1;2\n1,2,3\n1,2,3,4", false, true)
	f.Add("x,a\n1,2,3\n4,5", true, false)
	f.Fuzz(func(t *testing.T, text string, header, inOrder bool) {
		columns := []rows.Column{{Position: 1, As: "a"}, {Position: 2}, {Position: 3, As: "c"}}
		format := rows.Format{CSV: true, Delimiter: ',', Columns: columns, InOrder: inOrder, NoHeader: !header}
		if !inOrder {
			format.Columns = []rows.Column{{Position: 1, As: "a"}, {Position: 3, As: "c"}}
		}
		got, err := readAll(rows.NewReader(strings.NewReader(text), format))
		if err != nil {
			return
		}
		var reference []row
		if inOrder && !header {
			reference, err = readAll(rows.NewReader(strings.NewReader("a,b,c\n"+text), rows.Format{CSV: true, Delimiter: ','}))
			if strings.HasPrefix(text, "\xef\xbb\xbf") || strings.HasPrefix(text, "\xff\xfe") || strings.HasPrefix(text, "\xfe\xff") {
				reference = nil // a mark is one only at the beginning
			} else if err != nil || len(reference) != len(got) {
				t.Fatalf("%v: %d rows, %d with a header", err, len(got), len(reference))
			}
		}
		for i, row := range got {
			var value any
			if err := json.Unmarshal([]byte(row.Value), &value); err != nil {
				t.Fatalf("%q: %v", row.Value, err)
			}
			object, ok := value.(map[string]any)
			if ok && (len(object) != 2 || object["a"] == nil || object["c"] == nil) {
				t.Fatalf("%q", row.Value)
			}
			if reference == nil {
				continue
			}
			var full any
			if err := json.Unmarshal([]byte(reference[i].Value), &full); err != nil {
				t.Fatal(err)
			}
			if whole, isObject := full.(map[string]any); isObject != ok || ok && (whole["a"] != object["a"] || whole["c"] != object["c"]) {
				t.Fatalf("%q, with a header %q", row.Value, reference[i].Value)
			}
		}
	})
}

func TestNewFormat(t *testing.T) {
	for _, c := range []struct{ name, format, delimiter, encoding, want string }{
		{"x.csv", "", "", "", ""},
		{"x.csv", "jsonl", "", "", ""},
		{"-", "csv", "tab", "latin1", ""},
		{"-", "xml", "", "", `format "xml" is not jsonl or csv`},
		{"-", "", ";", "", "a delimiter is for CSV: say --format csv"},
		{"x.csv", "", ";;", "", `delimiter ";;" is not one character (or tab)`},
		{"x.csv", "", `"`, "", `delimiter "\"" is not one character (or tab)`},
		{"x.csv", "", "", "klingon", `encoding "klingon" is not known: say utf-8, windows-1252, iso-8859-15, utf-16le …`},
	} {
		_, err := rows.NewFormat(c.name, c.format, c.delimiter, c.encoding)
		if got := fmt.Sprint(err); got != c.want && !(err == nil && c.want == "") {
			t.Errorf("%+v: %s", c, got)
		}
	}
}

// FuzzCSV: whatever the bytes, reading ends, lines ascend, a value is an
// object with as many members as the header has names or a JSON string, and
// where encoding/csv reads a file without a fault, we read the same cells.
func FuzzCSV(f *testing.F) {
	f.Add("a,b\n1,2\n\"x\ny\",\"\"\"\"\n")
	f.Add("a;b\n\"1\n2")
	f.Add("\ufeffa\r\n\r\n\"\r\n\"\r\n")
	f.Fuzz(func(t *testing.T, text string) {
		r := rows.NewReader(strings.NewReader(text), rows.Format{CSV: true, Delimiter: ','})
		got, err := readAll(r)
		if err != nil {
			return
		}
		last, broken := 0, false
		var objects []map[string]any
		for _, row := range got {
			if row.Line <= last {
				t.Errorf("line %d after %d", row.Line, last)
			}
			last = row.Line
			var value any
			if err := json.Unmarshal([]byte(row.Value), &value); err != nil {
				t.Fatalf("%q: %v", row.Value, err)
			}
			object, ok := value.(map[string]any)
			broken = broken || !ok
			objects = append(objects, object)
		}
		if broken || strings.ContainsAny(text, "\r\ufffd\ufeff") || !json.Valid(mustJSON(text)) {
			return
		}
		reference := csv.NewReader(strings.NewReader(text))
		header, err := reference.Read()
		if err != nil || !cmp.Equal(header, r.Header()) {
			return // encoding/csv passes over no line of blanks; ours does
		}
		for _, object := range objects {
			record, err := reference.Read()
			if err != nil {
				return
			}
			if len(record) == 1 && strings.TrimSpace(record[0]) == "" {
				return
			}
			for i, name := range header {
				if slices.Index(header[i+1:], name) < 0 && object[name] != strings.ToValidUTF8(record[i], "\ufffd") {
					t.Errorf("column %q: %q, encoding/csv has %q", name, object[name], record[i])
				}
			}
		}
	})
}

func orNil(text string) string {
	if text == "" {
		return "<nil>"
	}
	return text
}

func mustJSON(text string) []byte {
	b, _ := json.Marshal(text)
	return b
}

func BenchmarkCSV(b *testing.B) {
	var text bytes.Buffer
	text.WriteString("candidateLogin,lovCode,sessionGuid,trackingStatus,progression,score,scoreMax,timeSpent,firstAccessDate,lastAccessDate\n")
	for i := range 10_000 {
		fmt.Fprintf(&text, "learner-%d,FIRE-1,se-guid-11,completed,100,17.5,20,600,2024-06-03,\"2024-06-04 10:00:00\"\n", i)
	}
	n := 0
	for b.Loop() {
		r := rows.NewReader(bytes.NewReader(text.Bytes()), rows.Format{CSV: true, Delimiter: ','})
		for {
			record, err := r.Next()
			if err != nil {
				break
			}
			r.Value(record.Text)
			n++
		}
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "rows/s")
}

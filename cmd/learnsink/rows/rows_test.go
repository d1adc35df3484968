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

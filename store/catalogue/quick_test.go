package catalogue

import (
	"bufio"
	"encoding/csv"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

// FuzzCSVReader holds what we take apart ourselves against encoding/csv: every
// record, every fault, and the lines where they start.
func FuzzCSVReader(f *testing.F) {
	for _, text := range []string{
		"a,b\nc,d\n", "a,b\r\n\r\n,\r\nc", "\"a\",\"b,c\"\n\"d\"\"e\",f\n\"two\nlines\",g\nh,i\n", "a,\"b\r\nc\"\r\n\r\nd,e\r\n",
		"a\"b\nc\n", "\"a\"b,c\nd,e\n\"f\ng\"h\ni\n", "\"never closed\na,b\n", "\"a\",\n,\"\"\n\"\"\n", "a\r\r\nb\r", "\n\n\n\"a\"\"\"\n\n\nb\n",
		strings.Repeat("x", 100) + ",y\nz\n", "\xff,\"\xfe\"\n\x00\n",
	} {
		f.Add(text)
	}
	type record struct {
		cells []string
		line  int
		fault error
	}
	f.Fuzz(func(t *testing.T, text string) {
		var want []record
		theirs := csv.NewReader(strings.NewReader(text))
		theirs.FieldsPerRecord = -1
		for {
			cells, err := theirs.Read()
			var fault *csv.ParseError
			if errors.As(err, &fault) {
				want = append(want, record{line: fault.StartLine, fault: fault.Err})
				continue
			}
			if err != nil {
				break
			}
			line, _ := theirs.FieldPos(0)
			want = append(want, record{cells: cells, line: line})
		}
		for name, in := range map[string]io.Reader{"whole": strings.NewReader(text), "byte by byte": iotest.OneByteReader(strings.NewReader(text))} {
			ours := newCSVReader(bufio.NewReaderSize(in, 4096))
			for i := 0; ; i++ {
				cells, line, err := ours.read()
				if err == io.EOF {
					if i != len(want) {
						t.Fatalf("%s: %d records, want %d", name, i, len(want))
					}
					break
				}
				got := record{cells: cells, line: line}
				var fault *csv.ParseError
				if errors.As(err, &fault) {
					got = record{line: line, fault: fault.Err}
				} else if err != nil {
					t.Fatal(err)
				}
				if i >= len(want) || !slices.Equal(got.cells, want[i].cells) || got.line != want[i].line || got.fault != want[i].fault {
					t.Fatalf("%s: record %d: %+v\nwant %+v", name, i, got, want[min(i, len(want)-1)])
				}
			}
		}
	})
}

// What a disk says is not taken for the end of the file.
func TestCSVReaderReportsErrors(t *testing.T) {
	broken := errors.New("broken")
	for _, text := range []string{"", "a,b\nc", "a,b\n\"c\nd"} {
		r := newCSVReader(bufio.NewReaderSize(io.MultiReader(strings.NewReader(text), iotest.ErrReader(broken)), 4096))
		var err error
		for err == nil {
			_, _, err = r.read()
		}
		if !errors.Is(err, broken) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// FuzzPlainObject holds the quick way of reading an object against the whole one.
func FuzzPlainObject(f *testing.F) {
	for _, text := range []string{
		`{"login":"a","refNumber":77,"email":null}`, ` { "login" : "a" , "email" : "" } `, `{}`, `{"login":"a","login":"b"}`, `{"login":-1}`, `{"login":01}`,
		`{"login":1.5e3}`, `{"login":"\u00e9"}`, "{\"login\":\"\xff\"}", `{"login":"a",}`, `{"login":"a"}x`, `{"login":nullx}`, `{"login":"é"}`, "{\"login\":\"\t\"}",
		`{"name":"a"}`, `{"login":true}`, `{"login":{}}`, `[]`, ``, `{`, `{"login"`, `{"login":`, `{"login":"a"`, `{"login":1`,
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		columns := columnsOf(Learners)
		quick, whole := make([]string, len(columns)), make([]string, len(columns))
		if !plainObject(text, columns, quick) {
			return
		}
		if bad := object([]byte(text), columns, whole); bad != "" || !slices.Equal(quick, whole) {
			t.Errorf("%q; the whole way %q, %s", quick, whole, bad)
		}
	})
}

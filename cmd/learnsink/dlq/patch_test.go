package dlq_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"learnsink/cmd/learnsink/dlq"
)

func patch(t testing.TB, steps ...string) (p dlq.Patch) {
	t.Helper()
	for _, step := range steps {
		kind, text, _ := strings.Cut(step, " ")
		op, err := dlq.ParseOp(dlq.OpKind(kind), text)
		if err != nil {
			t.Fatal(err)
		}
		p = append(p, op)
	}
	return p
}

func TestPatch(t *testing.T) {
	for _, test := range []struct {
		name, row string
		steps     []string
		want      string
	}{
		{"a value is set where it stands", `{ "a" : "1" ,"b":2}`, []string{"set a=x"}, `{ "a" : "x" ,"b":2}`},
		{"a number stays a number", `{"a":1,"b":2.50}`, []string{"set b=3e2"}, `{"a":1,"b":3e2}`},
		{"unless it is none", `{"a":1}`, []string{"set a=01"}, `{"a":"01"}`},
		{"a text stays a text", `{"a":"1"}`, []string{"set a=2"}, `{"a":"2"}`},
		{"null, true and what is nested become text", `{"a":null,"b":true,"c":{"d":[1]}}`, []string{"set a=1", "set b=true", "set c="}, `{"a":"1","b":"true","c":""}`},
		{"what is set already stays as it is spelt", `{"a":"\u0041","b":1}`, []string{"set a=A", "set b=1"}, `{"a":"\u0041","b":1}`},
		{"a new column goes behind the last", `{"a":1 }`, []string{"set b=x"}, `{"a":1,"b":"x" }`},
		{"and into an empty object", ` { } `, []string{"set b=x"}, ` { "b":"x"} `},
		{"quotes and the like are escaped, and no more than that", `{}`, []string{"set a=\"<é>\\\n"}, `{"a":"\"<é>\\\n"}`},
		{"only the first = counts", `{}`, []string{"set a=b=c"}, `{"a":"b=c"}`},
		{"a backslash takes its meaning", `{"a=b":1}`, []string{`set a\=b=\=`}, `{"a=b":"\\="}`},
		{"a column is known however its name is spelt", `{"\u0061":1}`, []string{"set a=2"}, `{"\u0061":2}`},
		{"set makes one of two", `{"a":1,"b":0,"a":3,"a":4}`, []string{"set a=2"}, `{"a":2,"b":0}`},
		{"remove the first", "{\"a\":1,\n \"b\":2}", []string{"remove a"}, `{"b":2}`},
		{"remove the last", "{\"a\":1,\n \"b\":2 }", []string{"remove b"}, `{"a":1 }`},
		{"remove one between", "{\"a\":1,\n \"b\":2,  \"c\":3}", []string{"remove b"}, "{\"a\":1,\n \"c\":3}"},
		{"remove all", `{"a":1,"a":2}`, []string{"remove a"}, `{}`},
		{"remove what is not there", `{ "b" : 1 }`, []string{"remove a"}, `{ "b" : 1 }`},
		{"replace a value", `{"a":" x ","b":"x"}`, []string{"replace a:x=y:z"}, `{"a":"y:z","b":"x"}`},
		{"replace a number by its literal", `{"a":5.0}`, []string{"replace a:5=6"}, `{"a":5.0}`},
		{"replace leaves other values alone", `{"a":"xy"}`, []string{"replace a:x=y"}, `{"a":"xy"}`},
		{"replace with a colon and an equals sign in the old value", `{"a":"1:2=3"}`, []string{`replace a:1:2\=3=4`}, `{"a":"4"}`},
		{"invalid UTF-8 elsewhere stays", "{\"a\":\"\xff\",\"b\":1}", []string{"set b=2"}, "{\"a\":\"\xff\",\"b\":2}"},
		{"invalid UTF-8 can be mended", "{\"a\":\"\xff\"}", []string{"set a=x"}, `{"a":"x"}`},
		{"step by step", `{"a":1}`, []string{"set b=1", "replace b:1=2", "remove a"}, `{"b":"2"}`},
	} {
		t.Run(test.name, func(t *testing.T) {
			row := []byte(test.row)
			got, changed, err := patch(t, test.steps...).Apply(row)
			if err != nil || string(got) != test.want || changed != (test.row != test.want) {
				t.Errorf("%s, %t, %v; want %s", got, changed, err, test.want)
			}
			if string(row) != test.row {
				t.Errorf("the row itself is %s now", row)
			}
		})
	}
	for _, row := range []string{"", "[]", "null", "1", `"x"`, "{", `{"a"}`, `{"a":}`, `{"a":1,}`, `{"a":1}x`, `{"a":1}{}`, `{,}`, "\xef\xbb\xbf{}"} {
		if got, changed, err := patch(t, "set a=x").Apply([]byte(row)); !errors.Is(err, dlq.ErrNoObject) || changed || string(got) != row {
			t.Errorf("%q: %q, %t, %v", row, got, changed, err)
		}
	}
}

func TestParseOp(t *testing.T) {
	for _, bad := range []string{"set a", "set =x", "set ", "remove ", "replace a", "replace a:b", "replace a=b", "replace :a=b", "replace a:=b", "set a=\xff", "whole x"} {
		kind, text, _ := strings.Cut(bad, " ")
		if op, err := dlq.ParseOp(dlq.OpKind(kind), text); err == nil {
			t.Errorf("%s: %+v", bad, op)
		}
	}
	p := patch(t, "set a=secret", "remove b", "set a=other", "replace c:old=new")
	if diff := cmp.Diff([]string{"set a", "remove b", "replace c"}, p.Columns()); diff != "" {
		t.Error(diff)
	}
}

// FuzzPatch holds patches against what encoding/json says that they come to,
// and what they must leave alone against the row's own bytes.
func FuzzPatch(f *testing.F) {
	for _, row := range []string{`{"a":1,"b":"x"}`, ` { "a" : null , "c":[1,{"a":2}] } `, `{"a":1,"a":2}`, `{}`, `[]`, "{\"\\u0061\":\"\\ud83d\\ude00\",\n\"b\":-0.1e+5}"} {
		f.Add([]byte(row), "a", "x", "y")
		f.Add([]byte(row), "b", "-0.1e+5", "1")
	}
	f.Fuzz(func(t *testing.T, row []byte, column, old, value string) {
		set, err := dlq.ParseOp(dlq.Set, strings.NewReplacer(`\`, `\\`, `=`, `\=`).Replace(column)+"="+value)
		if err != nil {
			return
		}
		if set.Column != column || *set.Value != value {
			t.Fatalf("%q=%q is read as %q=%q", column, value, set.Column, *set.Value)
		}
		var was map[string]json.RawMessage
		isObject := json.Unmarshal(row, &was) == nil && bytes.HasPrefix(bytes.TrimLeft(row, " \t\r\n"), []byte("{"))
		for _, op := range []dlq.Op{set, {Op: dlq.Remove, Column: column}, {Op: dlq.Replace, Column: column, Old: &old, Value: &value}} {
			got, changed, err := dlq.Patch{op}.Apply(row)
			if (err == nil) != isObject {
				t.Fatalf("%q: %v", row, err)
			}
			if err != nil {
				continue
			}
			var now map[string]json.RawMessage
			if err := json.Unmarshal(got, &now); err != nil {
				t.Fatalf("%s %q of %q: %q: %v", op.Op, column, row, got, err)
			}
			if changed == bytes.Equal(row, got) {
				t.Fatalf("%q to %q: changed %t", row, got, changed)
			}
			for name, v := range was {
				if name != column && !bytes.Equal(now[name], v) {
					t.Fatalf("%s %q of %q: %q", op.Op, column, row, got)
				}
			}
			_, there := was[column]
			switch text := reads(now[column]); {
			case op.Op == dlq.Set && (text != value || len(now) != len(was)+map[bool]int{false: 1}[there]):
				t.Fatalf("set %q=%q of %q: %q", column, value, row, got)
			case op.Op == dlq.Remove && (now[column] != nil || len(now) != len(was)-map[bool]int{true: 1}[there]):
				t.Fatalf("remove %q of %q: %q", column, row, got)
			case op.Op == dlq.Replace && len(now) != len(was),
				op.Op == dlq.Replace && there && strings.TrimSpace(reads(was[column])) == strings.TrimSpace(old) && text != value:
				t.Fatalf("replace %q:%q=%q of %q: %q", column, old, value, row, got)
			}
			again, _, err := dlq.Patch{op}.Apply(got)
			if err != nil || op.Op != dlq.Replace && !bytes.Equal(again, got) {
				t.Fatalf("%s %q of %q twice: %q, then %q, %v", op.Op, column, row, got, again, err)
			}
		}
	})
}

// reads is what encoding/json reads a value as: a string's text, else as it is written.
func reads(value json.RawMessage) string {
	var text string
	if bytes.HasPrefix(value, []byte(`"`)) && json.Unmarshal(value, &text) == nil {
		return text
	}
	return string(value)
}

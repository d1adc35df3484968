package handlers

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestScannerSkipsAnyDepthWithoutRecursion(t *testing.T) {
	const depth = 200_000
	for _, nested := range []string{
		strings.Repeat("[", depth) + strings.Repeat("]", depth),
		strings.Repeat(`{"a":`, depth) + "1" + strings.Repeat("}", depth),
		strings.Repeat(`[{"a":`, depth) + "null" + strings.Repeat("}]", depth),
	} {
		p := scanner{s: nested}
		if !p.skip() || p.i != len(nested) {
			t.Errorf("a well-formed value of depth %d was not passed over", depth)
		}
		p = scanner{s: nested[:len(nested)-1]}
		if p.skip() {
			t.Errorf("a value that lacks its last bracket was passed over")
		}
	}
}

// FuzzSkip holds skip against encoding/json, which knows what is well-formed.
func FuzzSkip(f *testing.F) {
	for _, s := range []string{`{}`, `[]`, `[1,]`, `{"a":1,}`, `{"a"}`, `"\ud800"`, `[[1,2],{"b":[]}]`, `01`, `1e5`, `-`, `nul`, `[1 2]`, "\"\x01\""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if strings.Count(s, "[")+strings.Count(s, "{") > 5000 {
			return // deeper than encoding/json goes
		}
		p := scanner{s: s}
		ok := p.skip()
		p.space()
		if got, want := ok && p.i == len(s), json.Valid([]byte(s)); got != want {
			t.Errorf("skip says %v of %q, encoding/json %v", got, s, want)
		}
	})
}

func FuzzAppendString(f *testing.F) {
	f.Add("a\"b\\c\x00\x1f\x7f\u2028")
	f.Fuzz(func(t *testing.T, s string) {
		s = strings.ToValidUTF8(s, "")
		var back string
		if err := json.Unmarshal(appendString(nil, s), &back); err != nil || back != s {
			t.Errorf("%q came back as %q, %v", s, back, err)
		}
	})
}

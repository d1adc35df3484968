package main

import (
	"encoding/json"
	"slices"
	"testing"
)

// FuzzPlainTexts holds the quick way of reading columns against encoding/json.
func FuzzPlainTexts(f *testing.F) {
	for _, row := range []string{
		`{"a":"x","b":7,"c":null}`, ` { "a" : " x " , "z" : -1.5e+3 , "b" : true } `, `{}`, `{"a":"x","a":"y"}`, `{"a":"x","a":null}`, `{"b":01}`, `{"b":1.}`,
		`{"b":-}`, `{"b":1e}`, `{"a":"\u00e9"}`, "{\"a\":\"\xff\"}", "{\"\xff\":1,\"a\":\"x\"}", `{"a":"x",}`, `{"a":"x"}x`, `{"a":nullx}`, `{"a":"é "}`, "{\"a\":\"\t\"}",
		`{"a":{}}`, `{"a":[1]}`, `[]`, `null`, ``, `{`, `{"a"`, `{"a":`, `{"a":"x"`, `{"b":1`, `{"b":0.5}`, "\ufeff{\"a\":1}",
	} {
		f.Add(row)
	}
	f.Fuzz(func(t *testing.T, row string) {
		names, texts := []string{"a", "b", "c"}, make([]string, 3)
		if !plainTexts([]byte(row), names, texts) {
			return
		}
		var columns map[string]json.RawMessage
		if err := json.Unmarshal([]byte(row), &columns); err != nil {
			t.Fatal(err)
		}
		want := []string{textOf(columns["a"]), textOf(columns["b"]), textOf(columns["c"])}
		if !slices.Equal(texts, want) {
			t.Errorf("%q, want %q", texts, want)
		}
	})
}

func TestPlainRowsAreReadTheQuickWay(t *testing.T) {
	texts := make([]string, 1)
	if !plainTexts([]byte(`{"lovGuid":"lo-1","score":12.5,"candidateLogin":" Inès ","x":null}`+"\r"), []string{"candidateLogin"}, texts) || texts[0] != "Inès" {
		t.Errorf("%q", texts)
	}
}

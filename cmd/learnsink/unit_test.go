package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"learnsink/handlers"
)

func TestMaskURLShowsNoPassword(t *testing.T) {
	for in, want := range map[string]string{
		"":                                    "",
		"postgres://db/learn":                 "postgres://db/learn",
		"postgres://me@db/learn":              "postgres://me@db/learn",
		"postgres://me:s3cret@db:5432/learn":  "postgres://me:***@db:5432/learn",
		"postgres://me:s3@cret@a,b/learn?x=y": "postgres://me:***@a,b/learn?x=y",
		"postgres://db/learn?user=me&password=s3cret&sslmode=require": "postgres://db/learn?user=me&password=***&sslmode=require",
		"postgres://db/learn?sslpassword=s3cret":                      "postgres://db/learn?sslpassword=***",
		"host=db password=s3cret user=me":                             "host=db password=*** user=me",
		`host=db PASSWORD = 's3 \'cret' user=me`:                      "host=db PASSWORD = *** user=me",
	} {
		if got := maskURL(in); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}

func TestKeysOfRows(t *testing.T) {
	for _, c := range []struct {
		name, action, column, value, want string
	}{
		{"the login comes first, folded", "tracking", "", `{"candidateEmail":"e","candidateLogin":" Inès.L ","candidateRefNumber":"R"}`, "inès.l"},
		{"then the reference number", "tracking", "", `{"candidateEmail":"e","candidateLogin":"  ","candidateRefNumber":50003}`, "50003"},
		{"then the e-mail", "tracking", "", `{"candidateEmail":"E@x","candidateLogin":null}`, "e@x"},
		{"none of them", "tracking", "", `{"lovCode":"x"}`, ""},
		{"an intervention's guid", "intervention", "", `{"interventionGuid":"IV-1"}`, "iv-1"},
		{"a column as it stands", "tracking", "lovCode", `{"lovCode":"FIRE","candidateLogin":"x"}`, "FIRE"},
		{"what is no object has no key", "tracking", "", `not json`, ""},
		{"a value of another type is no key", "tracking", "", `{"candidateLogin":{"a":1},"candidateEmail":true}`, ""},
	} {
		s := sender{action: handlers.Action(c.action), key: c.column}
		m, err := s.message([]byte(c.value))
		if err != nil || string(m.Key) != c.want || (m.Key == nil) != (c.want == "") {
			t.Errorf("%s: key %q (%v), want %q", c.name, m.Key, err, c.want)
		}
		if string(m.Value) != c.value {
			t.Errorf("%s: the value was changed: %s", c.name, m.Value)
		}
	}
}

func TestEventTimeBecomesAHeader(t *testing.T) {
	s := sender{action: handlers.Tracking, eventTime: "at"}
	m, err := s.message([]byte(`{"at":"2024-06-05T12:00:00Z"}`))
	want := []handlers.Header{{Key: "learnsink.event-time", Value: []byte("2024-06-05T12:00:00Z")}}
	if err != nil || !cmp.Equal(want, m.Headers) {
		t.Errorf("%v, %v", m.Headers, err)
	}
	if m, err := s.message([]byte(`{"at":""}`)); err != nil || m.Headers != nil {
		t.Errorf("a blank time: %v, %v", m.Headers, err)
	}
	if _, err := s.message([]byte(`{"at":"yesterday"}`)); err == nil || strings.Contains(err.Error(), "yesterday") {
		t.Errorf("a time that is none: %v", err)
	}
}

func TestParseID(t *testing.T) {
	tp, offset, ok := parseID("learning.tracking-v2-3-4711")
	if !ok || tp.Topic != "learning.tracking-v2" || tp.Partition != 3 || offset != 4711 {
		t.Errorf("%v %d %v", tp, offset, ok)
	}
	for _, id := range []string{"", "x", "x-1", "x--1", "x-1-", "x-a-1", "x-1-+1", "x-1-99999999999999999999"} {
		if tp, offset, ok := parseID(id); ok {
			t.Errorf("%q: %v %d", id, tp, offset)
		}
	}
}

// Rows of a topic that was made anew have ids that say so.
func TestOutcomesOfARecreatedTopicAreFollowed(t *testing.T) {
	w := &waiter{topic: "t", lines: map[place]int{{1, 5}: 1, {1, 6}: 2}, news: make(chan struct{}, 1)}
	for _, id := range []string{"t~2-1-5", "t-1-6", "u~2-1-5", "t2-1-5"} {
		w.outcome(id, &handlers.Record{})
	}
	if w.accepted != 2 || len(w.lines) != 0 {
		t.Errorf("%d accepted, %d without an outcome", w.accepted, len(w.lines))
	}
}

func TestParseStart(t *testing.T) {
	for in, want := range map[string]start{
		"beginning":              {which: 'b'},
		"end":                    {which: 'e'},
		"-10":                    {which: '-', back: 10},
		"10":                     {which: 'n', at: 10},
		"s@1717588800000":        {which: '@', time: time.UnixMilli(1717588800000)},
		"s@2024-06-05T12:00:00Z": {which: '@', time: time.Date(2024, 6, 5, 12, 0, 0, 0, time.UTC)},
	} {
		if got, err := parseStart(in); err != nil || got.which != want.which || got.at != want.at || got.back != want.back || !got.time.Equal(want.time) {
			t.Errorf("%s: %+v, %v", in, got, err)
		}
	}
}

func TestForms(t *testing.T) {
	r := &handlers.Record{Topic: "t", Partition: 1, Offset: 2, Timestamp: time.UnixMilli(1717588800000), Key: []byte("k"), Value: []byte("{ \"a\": 1 }"),
		Headers: []handlers.Header{{Key: "h", Value: []byte("<1>")}, {Key: "n"}}}
	for form, want := range map[string]string{
		"value":                "{ \"a\": 1 }\n",
		"%k %v":                "k { \"a\": 1 }\n",
		`%t/%p@%o\t%T %h %%\n`: "t/1@2\t1717588800000 h=<1>,n= %\n",
		"json":                 `{"topic":"t","partition":1,"offset":2,"timestamp":"2024-06-05T12:00:00Z","key":"k","headers":{"h":"<1>","n":null},"value":{"a":1}}` + "\n",
	} {
		print, err := parseForm(form)
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		if print(&b, r); b.String() != want {
			t.Errorf("%s: %q, want %q", form, b.String(), want)
		}
	}
	for value, want := range map[string]string{"plain": `"plain"`, "\xff": "null", "": `""`} {
		var b bytes.Buffer
		printJSON(&b, &handlers.Record{Value: []byte(value)})
		var got struct{ Value json.RawMessage }
		if err := json.Unmarshal(b.Bytes(), &got); err != nil || string(got.Value) != want {
			t.Errorf("%q: %s (%v)", value, b.String(), err)
		}
	}
}

// The schemas name the columns that the rules know, no more and no fewer.
func TestSchemasNameTheColumns(t *testing.T) {
	for _, action := range []handlers.Action{handlers.Tracking, handlers.Intervention} {
		text, err := schemas.ReadFile("schemas/" + string(action) + "-row.json")
		if err != nil {
			t.Fatal(err)
		}
		var schema struct{ Properties map[string]any }
		if err := json.Unmarshal(text, &schema); err != nil {
			t.Fatal(err)
		}
		rules, err := handlers.Compile(action, nil)
		if err != nil {
			t.Fatal(err)
		}
		row := map[string]any{}
		for name := range schema.Properties {
			row[name] = "x"
		}
		value, _ := json.Marshal(row)
		decoded := rules.Decode(&handlers.Record{Value: value}, time.Unix(0, 0))
		for column := range rules.Absent([]handlers.Row{decoded}) {
			t.Errorf("%s: the schema lacks %s", action, column)
		}
		d := rules.Decide(&decoded, handlers.NewFacts(1))
		for _, e := range d.Errors {
			if e.Code == "column_unknown" {
				t.Errorf("%s: %s", action, e.Message)
			}
		}
	}
}

// The example of every setting is complete: what is not shown there, if only
// as a comment, is lost on people.
func TestExampleConfigurationIsComplete(t *testing.T) {
	path := filepath.Join("..", "..", "deploy", "learnsink.example.yaml")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range settings() {
		name := s.key[strings.LastIndexByte(s.key, '.')+1:]
		if s.key != "sasl.password" && !strings.Contains(string(text), name+":") { // a password is better in a file of its own
			t.Errorf("%s is not in %s", s.key, path)
		}
	}
}

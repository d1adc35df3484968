package handlers_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
	"go.yaml.in/yaml/v3"

	"learnsink/handlers"
	"learnsink/store/catalogue"
)

var update = flag.Bool("update", false, "rewrite the verdicts in testdata/*/*.txtar; the claims above the rows still have to hold")

// A golden case is testdata/ACTION/*.txtar:
//
//	what it is about
//	-- rules.yaml --       settings, or rules.xml; the defaults without either
//	-- event-time --       RFC 3339; noon of 2024-06-05 without it
//	-- wait --             rows wait for what is missing, as with onMissingReference: wait
//	-- catalog/X.csv --    a catalogue of its own, instead of testdata/catalog
//	-- rows.jsonl --       a row a line; !"…" is a quoted Go string, for what a text file cannot hold;
//	                       `# CLAIM` or `# CLAIM: why` above a row is what must become of it
//	-- want.jsonl --       the verdicts as `check` prints them
//
// A claim is `accepted`, `delete` (accepted, as one), `ignored`, `waits NAME; NAME` or the codes of the
// rejection in their order, each with the column to blame: `field_empty(score)`.
// It is written by hand from rules.md, and stands when -update rewrites the verdicts.
func TestGolden(t *testing.T) {
	shared := loadCatalogue(t, filepath.Join("testdata", "catalog"))
	codes, settings := map[string]bool{}, map[string]bool{}
	for _, action := range []handlers.Action{handlers.Tracking, handlers.Intervention} {
		files, err := filepath.Glob(filepath.Join("testdata", string(action), "*.txtar"))
		if err != nil || len(files) == 0 {
			t.Fatal("no cases:", err)
		}
		for _, file := range files {
			t.Run(string(action)+"/"+strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
				golden(t, action, file, shared, codes, settings)
			})
		}
	}
	if t.Failed() {
		return
	}
	// Every message and every setting of rules.md has its case; superseded is none of check's.
	for _, code := range strings.Fields("record_not_json record_empty column_unknown value_type value_too_long value_out_of_range text_not_storable field_empty " +
		"lo_reference_missing learner_reference_missing context_missing datetime_mismatch status_unknown lo_not_found lo_provided_by_crossknowledge " +
		"lo_is_easyquizz registration_not_found completion_without_completed first_completion_before_first_access first_completion_after_last_access " +
		"last_access_before_first_access first_completion_after_now last_access_after_now first_completion_missing " +
		"training_guid_not_found training_path_code_not_found session_guid_not_found session_title_not_found date_not_valid teacher_not_found status_invalid") {
		if !codes[code] {
			t.Errorf("no case shows %s", code)
		}
	}
	for _, name := range strings.Fields("defaultScoreMax dateTimeFormat defaultTime timeZone timeGlobalFormat trackingStatus interventionStatus " +
		"mandatory fields strictDates completionDefault unknownColumns ignoredColumns tombstones") {
		if !settings[name] {
			t.Errorf("no case has the setting %s", name)
		}
	}
}

func golden(t *testing.T, action handlers.Action, file string, shared *handlers.Catalogue, codes, settings map[string]bool) {
	archive, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	sections := map[string]*txtar.File{}
	own := map[string][]byte{}
	for i := range archive.Files {
		f := &archive.Files[i]
		if dir, name := path.Split(f.Name); dir == "catalog/" {
			own[name] = f.Data
		} else {
			sections[f.Name] = f
		}
	}
	catalog := shared
	if len(own) > 0 {
		dir := t.TempDir()
		for name, data := range own {
			if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		catalog = loadCatalogue(t, dir)
	}
	at := time.Date(2024, 6, 5, 12, 0, 0, 0, time.UTC)
	if s := sections["event-time"]; s != nil {
		if at, err = time.Parse(time.RFC3339, strings.TrimSpace(string(s.Data))); err != nil {
			t.Fatal(err)
		}
	}
	var written []handlers.Setting
	switch {
	case sections["rules.yaml"] != nil:
		written = readYAML(t, sections["rules.yaml"].Data)
	case sections["rules.xml"] != nil:
		if written, err = handlers.ParseXML(action, sections["rules.xml"].Data); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range written {
		settings[s.Name] = true
	}
	rules, err := handlers.Compile(action, written)
	if err != nil {
		t.Fatal(err)
	}

	var got bytes.Buffer
	claim := ""
	for i, line := range strings.Split(string(sections["rows.jsonl"].Data), "\n") {
		if text, ok := strings.CutPrefix(line, "# "); ok {
			claim = text
			continue
		}
		if line == "" {
			continue
		}
		rec := &handlers.Record{Topic: "rows", Offset: int64(i), Timestamp: at, Value: []byte(line)}
		if quoted, ok := strings.CutPrefix(line, "!"); ok {
			raw, err := strconv.Unquote(quoted)
			if err != nil {
				t.Fatalf("%s: row %d: %v", file, i+1, err)
			}
			rec.Value = []byte(raw)
		}
		d := judge(rules, catalog, rec)
		if sections["wait"] != nil {
			d = judgeWaiting(t, rules, catalog, rec)
		}
		if got, want := became(d), claimed(claim); claim != "" && got != want {
			t.Errorf("%s: row %d\n got %s\nwant %s", file, i+1, got, want)
		}
		claim = ""
		for _, e := range d.Errors {
			codes[string(e.Code)] = true
		}
		got.Write(verdict(i+1, &d))
	}

	want := sections["want.jsonl"]
	if *update && filepath.Base(file) != "acceptance.txtar" { // which is not ours to rewrite
		if want == nil {
			archive.Files = append(archive.Files, txtar.File{Name: "want.jsonl"})
			want = &archive.Files[len(archive.Files)-1]
		}
		want.Data = got.Bytes()
		if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(jsonLines(t, want.Data), jsonLines(t, got.Bytes())); diff != "" {
		t.Errorf("%s (-want +got):\n%s", file, diff)
	}
}

// became is what a claim says of a decision.
func became(d handlers.Decision) string {
	switch {
	case d.Verdict == handlers.Ignored:
		return "ignored"
	case d.Verdict == handlers.Accepted && d.Operation() == "delete":
		return "delete"
	case d.Verdict == handlers.Accepted:
		return "accepted"
	case d.Verdict == handlers.Waits:
		return "waits " + strings.Join(d.WaitsFor, "; ")
	}
	var codes []string
	for _, e := range d.Errors {
		code := string(e.Code)
		if e.Field != "" {
			code += "(" + e.Field + ")"
		}
		codes = append(codes, code)
	}
	return strings.Join(codes, " ")
}

// claimed is a claim without its reason.
func claimed(claim string) string {
	codes, _, _ := strings.Cut(claim, ": ")
	return strings.TrimSpace(codes)
}

// verdict is the line that check prints.
func verdict(line int, d *handlers.Decision) []byte {
	b := fmt.Appendf(nil, `{"line":%d,"verdict":`, line)
	switch d.Verdict {
	case handlers.Accepted:
		b = fmt.Appendf(b, `"accepted","operation":%q,"row":`, d.Operation())
		b = d.AppendRow(b)
	case handlers.Rejected:
		b = append(b, `"rejected","errors":`...)
		b = handlers.AppendErrors(b, d.Errors)
	case handlers.Waits:
		names, _ := json.Marshal(d.WaitsFor)
		b = append(append(append(b, `"waiting","waitsFor":`...), names...), `,"errors":`...)
		b = handlers.AppendErrors(b, d.Errors)
	case handlers.Ignored:
		b = append(b, `"ignored"`...)
	}
	return append(b, "}\n"...)
}

// jsonLines reads verdicts as JSON values: the order of keys is free, numbers are their literals.
func jsonLines(t *testing.T, data []byte) (values []any) {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	for d.More() {
		var v any
		if err := d.Decode(&v); err != nil {
			t.Fatal(err)
		}
		values = append(values, v)
	}
	return values
}

func loadCatalogue(t testing.TB, dir string) *handlers.Catalogue {
	t.Helper()
	folder, err := catalogue.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	c, bad, err := catalogue.LoadMemory(folder)
	if err != nil || len(bad) > 0 {
		t.Fatal(bad, err)
	}
	return c
}

// readYAML reads settings as the configuration does: every scalar as its text.
func readYAML(t *testing.T, data []byte) []handlers.Setting {
	t.Helper()
	var doc yaml.Node
	if err := yaml.Unmarshal(data, &doc); err != nil || len(doc.Content) == 0 {
		t.Fatal("rules.yaml:", err)
	}
	var settings func(*yaml.Node) []handlers.Setting
	one := func(name string, n *yaml.Node) handlers.Setting {
		s := handlers.Setting{Name: name, Line: n.Line, Text: n.Value}
		if n.Kind != yaml.ScalarNode {
			s.Words = settings(n)
		}
		return s
	}
	settings = func(n *yaml.Node) []handlers.Setting {
		all := []handlers.Setting{}
		if n.Kind == yaml.SequenceNode {
			for _, item := range n.Content {
				all = append(all, one("", item))
			}
			return all
		}
		for i := 0; i < len(n.Content); i += 2 {
			all = append(all, one(n.Content[i].Value, n.Content[i+1]))
		}
		return all
	}
	return settings(doc.Content[0])
}

// rowsOf returns all rows of the golden cases of an action: seeds for fuzzing.
func rowsOf(t testing.TB, action handlers.Action) (rows []string) {
	files, err := filepath.Glob(filepath.Join("testdata", string(action), "*.txtar"))
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]bool{}
	for _, file := range files {
		archive, err := txtar.ParseFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range archive.Files {
			for line := range strings.SplitSeq(string(f.Data), "\n") {
				if f.Name == "rows.jsonl" && line != "" && !strings.HasPrefix(line, "# ") && !strings.HasPrefix(line, "!") {
					all[line] = true
				}
			}
		}
	}
	return slices.Sorted(maps.Keys(all))
}

package handlers_test

import (
	"bytes"
	"encoding/json"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"learnsink/handlers"
)

// FuzzDecode holds what is a row against encoding/json.
func FuzzDecode(f *testing.F) {
	for _, row := range rowsOf(f, handlers.Tracking) {
		f.Add([]byte(row))
	}
	rules := []*handlers.Rules{
		compile(f, handlers.Tracking),
		compile(f, handlers.Tracking, handlers.Setting{Name: "unknownColumns", Text: "ignore"}),
	}
	c := handlers.NewCatalogue()
	decoders := []*handlers.Decoder{rules[0].Decoder(), rules[1].Decoder()}
	f.Fuzz(func(t *testing.T, value []byte) {
		if len(value) == 0 || bytes.Count(value, []byte("["))+bytes.Count(value, []byte("{")) > 5000 {
			return // encoding/json has a limit of depth
		}
		for i, r := range rules {
			d := judge(r, c, record(string(value)))
			notJSON := d.Verdict == handlers.Rejected && d.Errors[0].Code == handlers.RecordNotJSON
			if want := !isRow(value, i == 1); notJSON != want {
				t.Fatalf("record_not_json is %v, and should be %v: %q", notJSON, want, value)
			}
			for range 2 { // behind another row, and behind one of the same columns
				var row handlers.Row
				decoders[i].Decode(&row, d.Record, d.EventTime)
				again := r.Decide(&row, handlers.NewFacts(1))
				same(t, "what a row is read as depends on the one before", d, again)
			}
		}
	})
}

// isRow is the oracle: a JSON object of plain values, by encoding/json.
func isRow(value []byte, ignoreUnknown bool) bool {
	if !utf8.Valid(value) || !json.Valid(value) {
		return false
	}
	known := map[string]bool{}
	for _, name := range strings.Fields("candidateLogin candidateRefNumber candidateEmail lovCode lovGuid sessionGuid sessionId sessionTitle trainingPathCode trainingId " +
		"firstAccessDate lastAccessDate firstCompletionDate progression trackingStatus timeSpent score scoreMax") {
		known[name] = true
	}
	d := json.NewDecoder(bytes.NewReader(value))
	if open, err := d.Token(); err != nil || open != json.Delim('{') {
		return false
	}
	seen := map[string]bool{}
	for d.More() {
		from := d.InputOffset()
		key, err := d.Token()
		if err != nil {
			return false
		}
		if loneSurrogate(value[from:d.InputOffset()]) || seen[key.(string)] {
			return false
		}
		name := key.(string)
		seen[name] = true
		var raw json.RawMessage
		if err := d.Decode(&raw); err != nil {
			return false
		}
		if name == "ignoredColumn" || ignoreUnknown && !known[name] {
			continue
		}
		if raw[0] == '{' || raw[0] == '[' || loneSurrogate(raw) {
			return false
		}
	}
	if _, err := d.Token(); err != nil {
		return false
	}
	_, err := d.Token()
	return err == io.EOF
}

// loneSurrogate reports whether a JSON text escapes half a character.
func loneSurrogate(raw []byte) bool {
	surrogate := func(s []byte) (high, low bool) {
		if len(s) < 6 || s[0] != '\\' || s[1] != 'u' || s[2] != 'd' && s[2] != 'D' {
			return false, false
		}
		third := s[3] | 0x20
		return '8' <= third && third <= '9' || third == 'a' || third == 'b', third >= 'c' && third <= 'f'
	}
	for i := 0; i < len(raw); i++ {
		if raw[i] != '\\' {
			continue
		}
		high, low := surrogate(raw[i:])
		if low {
			return true
		}
		if high {
			if _, low := surrogate(raw[i+6:]); !low {
				return true
			}
			i += 11
			continue
		}
		i++ // whatever is escaped, a backslash too
	}
	return false
}

// FuzzDecide: every record gets exactly one verdict, a rejection says why, and
// what is accepted can be stored.
func FuzzDecide(f *testing.F) {
	c := loadCatalogue(f, filepath.Join("testdata", "catalog"))
	set := func(name, text string) handlers.Setting { return handlers.Setting{Name: name, Text: text} }
	rules := []*handlers.Rules{
		compile(f, handlers.Tracking),
		compile(f, handlers.Tracking, set("dateTimeFormat", "iso8601"), set("timeGlobalFormat", "iso-8601"), set("strictDates", "yes"), set("timeZone", "Pacific/Apia"), set("unknownColumns", "ignore")),
		compile(f, handlers.Tracking, set("dateTimeFormat", "D/M/YYYYhis"), set("timeGlobalFormat", "rawMinutes"), set("timeZone", "America/New_York"), set("tombstones", "ignore")),
		compile(f, handlers.Intervention),
		compile(f, handlers.Intervention, set("timeZone", "Australia/Lord_Howe"), handlers.Setting{Name: "ignoredColumns", Words: []handlers.Setting{{Text: "x"}}}),
	}
	for i := range rules {
		for _, row := range rowsOf(f, rules[i].Action()) {
			f.Add(uint8(i), row, int64(0))
		}
	}
	f.Fuzz(func(t *testing.T, n uint8, value string, seconds int64) {
		r := rules[int(n)%len(rules)]
		rec := record(value)
		if at := noon.Add(time.Duration(seconds) * time.Second); at.Year() >= 1 && at.Year() <= 9999 {
			rec.Timestamp = at
		}
		d := judge(r, c, rec)
		checkDecision(t, &d)
		var after handlers.Stored
		d.Settle(true, after)
		checkDecision(t, &d)
		d.Settle(true, handlers.Stored{Known: true, EventTime: noon, SourceTopic: "x", Done: true, FirstCompletion: handlers.Some(noon)})
		checkDecision(t, &d)
		if o, ok := d.Output(source(r), noon); ok == (d.Verdict == handlers.Ignored) {
			t.Fatalf("%+v publishes %+v", d, o)
		} else if d.Verdict == handlers.Accepted && !json.Valid(o.Value) {
			t.Fatalf("no JSON: %s", o.Value)
		}
	})
}

func checkDecision(t *testing.T, d *handlers.Decision) {
	t.Helper()
	fail := func(why string) {
		t.Helper()
		t.Fatalf("%s: %+v %+v %+v of %q", why, d.Errors, d.Tracking, d.Intervention, d.Record.Value)
	}
	switch d.Verdict {
	case handlers.Ignored:
		if len(d.Record.Value) > 0 || d.Errors != nil || d.Tracking != nil || d.Intervention != nil {
			fail("ignored")
		}
	case handlers.Rejected:
		if len(d.Errors) == 0 || d.Tracking != nil || d.Intervention != nil {
			fail("rejected")
		}
		for _, e := range d.Errors {
			if e.Code == "" || e.Message == "" || strings.ContainsFunc(e.Message+e.Value, func(r rune) bool { return r < 0x20 || r == 0x7f }) || !utf8.ValidString(e.Message+e.Value+e.Field) {
				fail("error")
			}
		}
		if !json.Valid(handlers.AppendErrors(nil, d.Errors)) {
			fail("errors are no JSON")
		}
	case handlers.Accepted:
		if d.Errors != nil || (d.Tracking == nil) == (d.Intervention == nil) {
			fail("accepted")
		}
		if !json.Valid(d.AppendRow(nil)) {
			fail("the row is no JSON")
		}
		if why := unstorable(d); why != "" {
			fail(why)
		}
	default:
		fail("no verdict")
	}
}

// unstorable says what of an accepted row a database could not take.
func unstorable(d *handlers.Decision) string {
	text := func(s string, most int) bool {
		return utf8.ValidString(s) && utf8.RuneCountInString(s) <= most && !strings.Contains(s, "\x00") && s == strings.TrimSpace(s)
	}
	instant := func(t handlers.Opt[time.Time]) bool {
		return !t.OK || t.V.Location() == time.UTC && t.V.Year() >= 1 && t.V.Year() <= 9999 && t.V.Nanosecond()%1000 == 0
	}
	if r := d.Tracking; r != nil {
		for _, s := range []string{r.CandidateLogin, r.CandidateRefNumber, r.CandidateEmail, r.LovCode, r.SessionTitle, r.TrainingPathCode} {
			if !text(s, 255) {
				return "text"
			}
		}
		finite := func(v handlers.Opt[float64]) bool { return v.V-v.V == 0 }
		switch {
		case !text(r.LovGUID, 40) || !text(r.SessionGUID, 40):
			return "guid"
		case !instant(r.FirstAccess) || !instant(r.LastAccess) || !instant(r.FirstCompletion):
			return "date"
		case r.Status < handlers.NotAttempted || r.Status > handlers.Browsed || r.Delete != (r.Status == handlers.NotAttempted):
			return "status"
		case r.FirstCompletion.OK != r.Status.Done():
			return "completion"
		case r.ScoreMax < 1 || r.TimeSpent < 0 || r.TimeSpent > 1<<31-1 || r.SessionID < 0 || r.TrainingID < 0:
			return "range"
		case !finite(r.Score) || !finite(r.Progression) || r.Progression.V < 0 || r.Progression.V > 100:
			return "number"
		case r.RegistrationID == 0 || r.LearningObjectID == 0 || r.LearnerID == 0 || r.RefSessionID == 0 || r.RefTrainingID == 0:
			return "reference"
		case r.FilledIn && !r.FirstCompletion.OK:
			return "filled in"
		}
		return ""
	}
	r := d.Intervention
	switch {
	case r.GUID == "" || !text(r.GUID, 40) || !text(r.GUIDFolded, 40) || r.RoomGUID == "" || !text(r.RoomGUID, 40) || !text(r.RoomGUIDFolded, 40) || !text(r.TrainingGUID, 40) || !text(r.SessionGUID, 40):
		return "guid"
	case r.RoomLabel == "" || !text(r.RoomLabel, 255) || !text(r.TrainingPathCode, 255) || !text(r.SessionTitle, 255) || !text(r.TeacherLogin, 255):
		return "text"
	case !instant(handlers.Some(r.Date)):
		return "date"
	case r.Duration < 1 || r.RoomCapacity.V < 0:
		return "range"
	case r.TeacherID == 0 || r.RefSessionID == 0 || r.RefTrainingID == 0:
		return "reference"
	}
	return ""
}

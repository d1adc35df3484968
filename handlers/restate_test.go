package handlers_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"learnsink/handlers"
)

// randomRules are rules that say the same things in other words; exact: they
// can say every second of every date and time spent.
func randomRules(t *testing.T, r *rand.Rand, action handlers.Action) (rules *handlers.Rules, exact bool) {
	t.Helper()
	pick := func(words ...string) string { return words[r.IntN(len(words))] }
	zone := handlers.Setting{Name: "timeZone", Text: pick("UTC", "Europe/Paris", "America/Sao_Paulo", "Pacific/Apia", "Asia/Kolkata")}
	if action == handlers.Intervention {
		return compile(t, action, zone, handlers.Setting{Name: "interventionStatus", Words: []handlers.Setting{{Name: "active", Text: pick("A", "on")}, {Name: "cancelled", Text: pick("C", "off")}}}), true
	}
	spent := pick("rawSeconds", "rawMinutes", "iso-8601", "padded", "paddedhh")
	format := pick("YYYY-MM-DD hh:ii:ss", "D/M/YYYY H:I:S", "YYYYMDHIS", "hh:ii:ss DD.MM.YYYY", "iso8601", "YYYYMMDDhhiiss", "YYYY-MM-DD", "DD/MM/YYYY hh:ii")
	exact = !strings.HasPrefix(spent, "padded") && (strings.ContainsAny(format, "sS") || format == "iso8601")
	words := []handlers.Setting{}
	for s := handlers.NotAttempted; s <= handlers.Browsed; s++ {
		words = append(words, handlers.Setting{Name: s.String(), Text: pick("", "w"+s.String()[:2])})
	}
	return compile(t, action, zone,
		handlers.Setting{Name: "dateTimeFormat", Text: format}, handlers.Setting{Name: "defaultTime", Text: pick("00:00:00", "12:30:00")},
		handlers.Setting{Name: "timeGlobalFormat", Text: spent}, handlers.Setting{Name: "trackingStatus", Words: words},
		handlers.Setting{Name: "defaultScoreMax", Text: pick("100", "20")}, handlers.Setting{Name: "completionDefault", Text: pick("keep", "today")}), exact
}

// TestRestate: what an accepted event said is said again in the words of any
// settings, and then the same is decided of it, at whatever time; or it is said
// that these settings cannot say it.
func TestRestate(t *testing.T) {
	said, unsaid := 0, map[string]int{}
	stories(t, func(t *testing.T, r *rand.Rand, rules *handlers.Rules, c *handlers.Catalogue, records []*handlers.Record) {
		again, exact := randomRules(t, r, rules.Action())
		for _, rec := range records {
			if rules.Action() == handlers.Tracking {
				addDates(r, rec)
			}
			d := decide(rules, c, rec, rec.Timestamp)
			o, ok := d.Output(source(rules), noon)
			if !ok || d.Verdict != handlers.Accepted {
				continue
			}
			event, err := handlers.ReadEvent(o.Value)
			if err != nil {
				t.Fatal(err)
			}
			if !event.Same(&d) {
				t.Fatalf("read back as another row:\n%s\n%+v", o.Value, d)
			}
			value, err := again.Restate(event)
			if err != nil {
				unsaid[err.Error()]++
				if exact {
					t.Errorf("%s\nof %s", err, o.Value)
				}
				continue
			}
			said++
			back := decide(again, c, &handlers.Record{Topic: "rows", Value: value}, noon.AddDate(3, 0, 0))
			if !event.Same(&back) {
				t.Fatalf("%s\nis said as %s\nand that is %+v %+v", o.Value, value, back.Tracking, back.Errors)
			}
			if was := event.Tracking; was != nil && (back.Tracking.LearnerID != was.LearnerID || back.Tracking.RefSessionID != was.RefSessionID) {
				t.Errorf("it is another's: %+v", back.Tracking)
			}
		}
	})
	if said < 500 || len(unsaid) < 4 {
		t.Errorf("%d rows were said again, and not: %v", said, unsaid)
	}
}

// addDates gives a row dates to the second, some about the time that clocks change.
func addDates(r *rand.Rand, rec *handlers.Record) {
	var row map[string]any
	if json.Unmarshal(rec.Value, &row) != nil {
		panic("a story tells of no row")
	}
	if r.IntN(2) == 0 {
		day := time.Date(2024, time.Month(1+r.IntN(12)), 1+r.IntN(31), r.IntN(24), r.IntN(60), r.IntN(60), 0, time.UTC)
		row["lastAccessDate"] = day.Format(time.DateTime)
	}
	if r.IntN(2) == 0 {
		row["timeSpent"] = r.IntN(1 << r.IntN(31))
	}
	rec.Value, _ = json.Marshal(row)
}

func decide(rules *handlers.Rules, c *handlers.Catalogue, rec *handlers.Record, at time.Time) handlers.Decision {
	row, refs := rules.Decode(rec, at), handlers.NewReferences()
	row.Refer(refs)
	return rules.Decide(&row, c.Facts(refs))
}

// The local hour that a zone has twice is read as its first: no text says the second.
func TestRestateTwice(t *testing.T) {
	rules := compile(t, handlers.Tracking, handlers.Setting{Name: "timeZone", Text: "Europe/Paris"})
	for text, want := range map[string]string{
		"2024-10-27T00:30:00Z": `{"trackingStatus":"incomplete","lastAccessDate":"2024-10-27 02:30:00","timeSpent":"0"}`,
		"2024-10-27T01:30:00Z": "the source's dateTimeFormat cannot say its lastAccessDate",
	} {
		at, err := time.Parse(time.RFC3339, text)
		if err != nil {
			t.Fatal(err)
		}
		value, err := rules.Restate(&handlers.Event{Action: handlers.Tracking, Tracking: &handlers.TrackingRow{Status: handlers.Incomplete, LastAccess: handlers.Some(at)}})
		if got := string(value); err == nil && got != want || err != nil && err.Error() != want {
			t.Errorf("%s is said as %s, %v", text, got, err)
		}
	}
}

func TestRestateFields(t *testing.T) {
	list := func(name string, columns ...string) handlers.Setting {
		s := handlers.Setting{Name: name}
		for _, c := range columns {
			s.Words = append(s.Words, handlers.Setting{Text: c})
		}
		return s
	}
	rules := compile(t, handlers.Tracking, list("fields", "candidateLogin", "lovCode", "sessionGuid", "trackingStatus"))
	row := handlers.TrackingRow{CandidateLogin: "a\"b", LovCode: "1752", SessionGUID: "g", Status: handlers.Failed, ScoreMax: 100}
	event := &handlers.Event{Action: handlers.Tracking, Tracking: &row}
	if value, err := rules.Restate(event); err != nil || string(value) != `{"candidateLogin":"a\"b","lovCode":"1752","sessionGuid":"g","trackingStatus":"failed"}` {
		t.Errorf("%s, %v", value, err)
	}
	row.Score = handlers.Some(7.0)
	if _, err := rules.Restate(event); fmt.Sprint(err) != "the source's settings know no column score" {
		t.Errorf("a column that is not listed: %v", err)
	}
	if _, err := rules.Restate(&handlers.Event{Action: handlers.Intervention, Intervention: &handlers.InterventionRow{}}); err == nil {
		t.Error("a row of another action is said")
	}
	for _, bad := range []string{``, `{}`, `{"version":2}`, `{"version":1,"action":"x"}`, `{"version":1,"action":"tracking","row":{"trackingStatus":"x"}}`} {
		if _, err := handlers.ReadEvent([]byte(bad)); err == nil {
			t.Errorf("%s is an event", bad)
		}
	}
}

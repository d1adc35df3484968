package handlers

import (
	"strings"
	"testing"
	"time"
)

// setting, listed and mapped make settings as YAML would give them.
func setting(name, text string) Setting { return Setting{Name: name, Text: text} }

func listed(name string, items ...string) Setting {
	s := Setting{Name: name, Words: []Setting{}}
	for _, item := range items {
		s.Words = append(s.Words, Setting{Text: item})
	}
	return s
}

func mapped(name string, pairs ...string) Setting {
	s := Setting{Name: name, Words: []Setting{}}
	for i := 0; i < len(pairs); i += 2 {
		s.Words = append(s.Words, Setting{Name: pairs[i], Text: pairs[i+1]})
	}
	return s
}

func compiled(t testing.TB, action Action, settings ...Setting) *Rules {
	t.Helper()
	r, err := Compile(action, settings)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestCompileDefaults(t *testing.T) {
	r := compiled(t, Tracking)
	if r.Action() != Tracking || r.defaultScoreMax != 100 || r.timeSpent != rawSeconds || r.clocks.Location != time.UTC || r.dateTime == nil ||
		r.strictDates || !r.keepCompletion || r.ignoreUnknown || r.ignoreTombstones || r.listed != nil || len(r.ignoredColumns) != 0 || len(r.Hash()) != 12 {
		t.Errorf("tracking: %+v", r)
	}
	for s := NotAttempted; s <= Browsed; s++ {
		if r.statuses[s.String()] != s {
			t.Errorf("%s: %v", s, r.statuses)
		}
	}
	r = compiled(t, Intervention)
	if r.activeWord != "A" || r.cancelledWord != "C" || r.clocks.Location != time.UTC || r.dateTime != nil {
		t.Errorf("intervention: %+v", r)
	}
	var mandatory []string
	for i, on := range r.mandatory {
		if on {
			mandatory = append(mandatory, r.table.columns[i].name)
		}
	}
	if got := strings.Join(mandatory, " "); got != "interventionGuid interventionDate interventionDuration roomGuid roomLabel teacherLogin interventionStatus" {
		t.Error(got)
	}
}

func TestCompile(t *testing.T) {
	r := compiled(t, Tracking,
		setting("defaultScoreMax", " 20 "), setting("dateTimeFormat", "iso8601"), setting("timeZone", "America/Sao_Paulo"), setting("defaultTime", "11:00:00"),
		setting("timeGlobalFormat", "paddedhh"), mapped("trackingStatus", "completed", " c ", "passed", "", "notAttempted", "completed"),
		listed("mandatory", "score"), listed("fields", "score", "candidateLogin", "timeSpent", "lovGuid"), setting("strictDates", "True"),
		setting("completionDefault", "today"), setting("unknownColumns", "ignore"), listed("ignoredColumns", "comment", "timeSpent", "ignoredColumn"), setting("tombstones", "ignore"))
	if r.defaultScoreMax != 20 || r.dateTime != nil || r.clocks.String() != "America/Sao_Paulo" || r.timeSpent != paddedHH || !r.strictDates || r.keepCompletion || !r.ignoreUnknown || !r.ignoreTombstones {
		t.Errorf("%+v", r)
	}
	if len(r.statuses) != 6 || r.statuses["c"] != Completed || r.statuses["completed"] != NotAttempted || r.statuses["passed"] != Passed {
		t.Errorf("words: %v", r.statuses)
	}
	var known []string
	for i, on := range r.listed {
		if on {
			known = append(known, r.table.columns[i].name)
		}
	}
	if got := strings.Join(known, " "); got != "candidateLogin lovGuid score ignoredColumn" {
		t.Errorf("fields: %s", got)
	}
	if _, ok := r.ignoredColumns["comment"]; !ok || len(r.ignoredColumns) != 2 {
		t.Errorf("ignored: %v", r.ignoredColumns)
	}
	r = compiled(t, Intervention, mapped("interventionStatus", "cancelled", "X", "active", ""))
	if r.activeWord != "A" || r.cancelledWord != "X" {
		t.Errorf("%q, %q", r.activeWord, r.cancelledWord)
	}
	for _, word := range []string{"yes", "true", "Yes", "TRUE"} {
		if !compiled(t, Tracking, setting("strictDates", word)).strictDates {
			t.Error(word)
		}
	}
}

func TestCompileFaults(t *testing.T) {
	for _, c := range []struct {
		action Action
		s      Setting
		want   string // what the error says of it
	}{
		{Tracking, setting("colour", "red"), "colour is no setting of the action tracking: take it out, or write one of completionDefault, dateTimeFormat, defaultScoreMax, defaultTime, fields, ignoredColumns, mandatory, strictDates, timeGlobalFormat, timeZone, tombstones, trackingStatus, unknownColumns"},
		{Tracking, setting("timezone", "UTC"), "timezone is no setting"},
		{Tracking, mapped("interventionStatus", "active", "X"), "is no setting of the action tracking"},
		{Intervention, setting("strictDates", "yes"), "strictDates is no setting of the action intervention"},
		{Intervention, setting("dateTimeFormat", "iso8601"), "is no setting"},
		{Intervention, setting("defaultScoreMax", "1"), "is no setting"},
		{Intervention, mapped("trackingStatus", "completed", "c"), "is no setting"},
		{Tracking, setting("timeZone", ""), "timeZone [] is not known: write a name of the TZ database"},
		{Tracking, setting("timeZone", "Local"), "timeZone [Local] is not known"},
		{Tracking, setting("timeZone", "localtime"), "[localtime] is not known"},
		{Tracking, setting("timeZone", "right/UTC"), "[right/UTC] is not known"},
		{Intervention, setting("timeZone", "Mars/Olympus"), "timeZone [Mars/Olympus] is not known"},
		{Tracking, setting("timeZone", "../etc/passwd"), "is not known"},
		{Tracking, setting("timeZone", "+02:00"), "is not known"},
		{Tracking, listed("timeZone", "UTC"), "timeZone is given a list or a mapping: write one value"},
		{Tracking, setting("defaultScoreMax", "0"), "defaultScoreMax [0] is not valid: write a whole number, 1 to 2147483647"},
		{Tracking, setting("defaultScoreMax", "-5"), "[-5] is not valid"},
		{Tracking, setting("defaultScoreMax", "2147483648"), "is not valid"},
		{Tracking, setting("defaultScoreMax", "20.0"), "is not valid"},
		{Tracking, setting("defaultScoreMax", ""), "[] is not valid"},
		{Tracking, setting("dateTimeFormat", "YYYY-MM-DDThh:ii"), "[dateTimeFormat] the given date format [YYYY-MM-DDThh:ii] is not valid. It should only contain the following characters (case insensitive): 'YMDHIS /_.:;,-'"},
		{Tracking, setting("dateTimeFormat", ""), "[dateTimeFormat] the given date format [] is not valid."},
		{Tracking, setting("dateTimeFormat", "ISO8601"), "[dateTimeFormat] the given date format [ISO8601] is not valid."},
		{Tracking, setting("defaultTime", "8:00"), "defaultTime [8:00] is not valid: write hh:ii:ss"},
		{Tracking, setting("defaultTime", "24:00:00"), "is not valid"},
		{Tracking, setting("timeGlobalFormat", "seconds"), "timeGlobalFormat [seconds] is not known: write one of rawSeconds, rawMinutes, iso-8601, padded, paddedhh"},
		{Tracking, setting("timeGlobalFormat", ""), "is not known"},
		{Tracking, setting("trackingStatus", "c"), "trackingStatus [c] is one value: write a mapping"},
		{Tracking, listed("trackingStatus", "c"), "trackingStatus is a list: write a mapping"},
		{Tracking, mapped("trackingStatus", "done", "c"), "trackingStatus has no status [done]: write one of notAttempted, incomplete, completed, passed, failed, browsed"},
		{Tracking, mapped("trackingStatus", "completed", "c", "completed", "d"), "trackingStatus gives [completed] twice"},
		{Tracking, mapped("trackingStatus", "completed", "c", "failed", "c"), "trackingStatus has one word, [c], for completed and failed: give each its own"},
		{Tracking, mapped("trackingStatus", "completed", "passed"), "has one word, [passed], for completed and passed"},
		{Intervention, mapped("interventionStatus", "active", "C"), "interventionStatus has one word, [C], for active and cancelled"},
		{Intervention, mapped("interventionStatus", "completed", "C"), "has no status [completed]"},
		{Tracking, setting("strictDates", "maybe"), "strictDates [maybe] is not known: write yes or no"},
		{Tracking, setting("strictDates", ""), "strictDates [] is not known"},
		{Tracking, setting("completionDefault", "now"), "completionDefault [now] is not known: write today or keep"},
		{Tracking, setting("unknownColumns", "warn"), "unknownColumns [warn] is not known: write reject or ignore"},
		{Intervention, setting("tombstones", "delete"), "tombstones [delete] is not known: write reject or ignore"},
		{Tracking, listed("mandatory", "grade"), "mandatory names [grade], which is no column of the action tracking"},
		{Tracking, listed("mandatory", "Score"), "mandatory names [Score]"},
		{Tracking, listed("mandatory", "ignoredColumn"), "which is always ignored"},
		{Tracking, setting("mandatory", "score"), "mandatory [score] is one value: write a list, [score]"},
		{Tracking, mapped("mandatory", "score", "yes"), "mandatory is not a plain list"},
		{Tracking, listed("fields", "score", "grade"), "fields names [grade], which is no column"},
		{Tracking, listed("ignoredColumns", ""), "ignoredColumns names a column that has no name"},
		{Intervention, listed("ignoredColumns", "roomGuid"), "ignoredColumns names [roomGuid], which the action intervention cannot do without"},
	} {
		t.Run(c.want, func(t *testing.T) {
			c.s.Line = 7
			_, err := Compile(c.action, []Setting{c.s})
			if err == nil || !strings.HasPrefix(err.Error(), "line 7: ") || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v", err)
			}
			if err != nil && strings.Contains(err.Error(), "\n") {
				t.Errorf("more than one fault: %v", err)
			}
		})
	}
	if _, err := Compile("enrolment", nil); err == nil || !strings.Contains(err.Error(), "enrolment") {
		t.Error(err)
	}
	for _, pair := range [][]Setting{
		{listed("mandatory", "score"), listed("fields", "candidateLogin")},
		{listed("mandatory", "score"), listed("ignoredColumns", "score")},
		{setting("tombstones", "ignore"), setting("tombstones", "ignore")},
	} {
		if _, err := Compile(Tracking, pair); err == nil {
			t.Errorf("%v compiles", pair)
		}
	}
}

func TestCompileSaysEveryFault(t *testing.T) {
	_, err := Compile(Tracking, []Setting{
		{Name: "timeZone", Line: 2, Text: "Local"}, {Name: "dateTimeFormat", Line: 3, Text: "%Y"}, {Name: "nonsense", Line: 4},
		{Name: "mandatory", Line: 5, Words: []Setting{{Line: 6, Text: "a"}, {Line: 7, Text: "b\nc"}}},
	})
	if err == nil {
		t.Fatal("compiles")
	}
	var places []string
	for line := range strings.SplitSeq(err.Error(), "\n") {
		place, _, _ := strings.Cut(line, ":")
		places = append(places, place)
	}
	if got := strings.Join(places, " "); got != "line 2 line 4 line 3 line 6 line 7" {
		t.Errorf("%s in\n%v", got, err)
	}
}

func TestHash(t *testing.T) {
	hash := func(action Action, settings ...Setting) string { return compiled(t, action, settings...).Hash() }
	defaults := hash(Tracking)
	for name, settings := range map[string][]Setting{
		"defaults written out": {
			setting("defaultScoreMax", "0100"), setting("dateTimeFormat", "yyyy-mm-dd HH:ii:SS"), setting("timeZone", "UTC"), setting("defaultTime", "00:00:00"),
			setting("timeGlobalFormat", "rawSeconds"), mapped("trackingStatus", "completed", "completed", "failed", ""), listed("mandatory"), listed("fields"),
			setting("strictDates", "no"), setting("completionDefault", "keep"), setting("unknownColumns", "reject"), listed("ignoredColumns"), setting("tombstones", "reject"),
		},
		"every column named": {listed("fields", "scoreMax", "score", "timeSpent", "trackingStatus", "progression", "firstCompletionDate", "lastAccessDate", "firstAccessDate", "trainingId",
			"trainingPathCode", "sessionTitle", "sessionId", "sessionGuid", "lovGuid", "lovCode", "candidateEmail", "candidateRefNumber", "candidateLogin")},
		"what is ignored anyway": {listed("ignoredColumns", "ignoredColumn")},
	} {
		if got := hash(Tracking, settings...); got != defaults {
			t.Errorf("%s: another hash than the defaults'", name)
		}
	}
	a := hash(Tracking, listed("mandatory", "score", "progression"), listed("ignoredColumns", "y", "x"))
	b := hash(Tracking, listed("ignoredColumns", "x", "y", "x"), listed("mandatory", "progression", "score"))
	if a != b {
		t.Error("the order of settings counts")
	}
	seen := map[string]string{defaults: "defaults", a: "lists", hash(Intervention): "intervention"}
	if len(seen) != 3 {
		t.Error("two actions or settings have one hash")
	}
	for _, s := range []Setting{
		setting("defaultScoreMax", "20"), setting("dateTimeFormat", "iso8601"), setting("dateTimeFormat", "YYYY-M-DD"), setting("timeZone", "Europe/Paris"), setting("defaultTime", "00:00:01"),
		setting("timeGlobalFormat", "padded"), mapped("trackingStatus", "completed", "c"), listed("mandatory", "score"), listed("fields", "score"),
		setting("strictDates", "yes"), setting("completionDefault", "today"), setting("unknownColumns", "ignore"), listed("ignoredColumns", "score"), setting("tombstones", "ignore"),
	} {
		h := hash(Tracking, s)
		if other, twice := seen[h]; twice {
			t.Errorf("%v has the hash of %s", s, other)
		}
		seen[h] = s.Name
	}
	for _, s := range []Setting{setting("timeZone", "Europe/Paris"), mapped("interventionStatus", "active", "X"), listed("mandatory", "roomCapacity")} {
		h := hash(Intervention, s)
		if other, twice := seen[h]; twice {
			t.Errorf("%v has the hash of %s", s, other)
		}
		seen[h] = s.Name
	}
}

package rowgen

import (
	"fmt"
	"strings"
	"time"

	"learnsink/handlers"
)

// kind is a kind of row: how a good one is changed into it, and what is then
// expected. Weight 0: it is rejected.
type kind struct {
	action handlers.Action
	name   string
	weight int
	giant  bool
	make   func(g *Generator, rec *Record, c *row)
}

// set gives a column another value, and the messages that follow.
func set(column, value string, messages ...string) func(*Generator, *Record, *row) {
	return func(_ *Generator, rec *Record, c *row) {
		c.set(column, value)
		rec.Errors = messages
	}
}

// drop takes columns away, and names the messages that follow.
func drop(columns string, messages ...string) func(*Generator, *Record, *row) {
	return func(_ *Generator, rec *Record, c *row) {
		c.drop(strings.Fields(columns)...)
		rec.Errors = messages
	}
}

// raw replaces the whole value.
func raw(value string, message string) func(*Generator, *Record, *row) {
	return func(_ *Generator, rec *Record, c *row) {
		*c, rec.Value, rec.Errors = nil, []byte(value), []string{message}
	}
}

const (
	notJSON         = "Record is not a JSON object."
	empty           = "Record has no value."
	noObject        = "At least one of these element must be present: learning object version code or GUID."
	noLearner       = "At least one of these element must be present: learner login, reference number or email."
	noContext       = `At least one of the following to provide a precise context : "session GUID" or the couple "session title" & "training code".'`
	badDate         = "Your dateTime information mismatches preset dateTimeFormat"
	noRegistration  = "No registration found for given parameters."
	crossKnowledge  = "This learning object is provided by CrossKnowledge, and this report cannot be updated."
	easyQuizz       = "This learning object is an EasyQuizz, and this report cannot be updated."
	notCompleted    = "You cannot set a first completion date if the LO is not completed."
	statusExpected  = "[notAttempted], [incomplete], [completed], [passed], [failed] or [browsed] expected."
	learnerColumns  = "candidateLogin candidateRefNumber candidateEmail"
	objectColumns   = "lovCode lovGuid"
	contextColumns  = "sessionGuid sessionId sessionTitle trainingPathCode trainingId"
	trainingColumns = "trainingGuid trainingPathCode"
	sessionColumns  = "sessionGuid sessionTitle"
)

func kinds() []kind {
	var all []kind
	add := func(action handlers.Action, name string, weight int, make func(*Generator, *Record, *row)) {
		all = append(all, kind{action: action, name: name, weight: weight, make: make})
	}
	giant := func(name string, make func(*Generator, *Record, *row)) {
		all = append(all, kind{action: handlers.Tracking, name: name, giant: true, make: make})
	}
	asIs := func(*Generator, *Record, *row) {}

	// What cannot be read, whatever the action.
	for _, action := range []handlers.Action{handlers.Tracking, handlers.Intervention} {
		for _, v := range [][2]string{
			{"words", "not json"},
			{"an array", `[{"candidateLogin":"a"}]`},
			{"a string", `"candidateLogin"`},
			{"cut off", `{"candidateLogin":"a","lovCode":`},
			{"trailing data", `{"lovCode":"a"} {}`},
			{"invalid UTF-8", "{\"lovCode\":\"a\xff\xfe\"}"},
			{"a lone surrogate", `{"lovCode":"\ud800"}`},
			{"a low surrogate", `{"lovCode":"\udc00\ud800"}`},
			{"a duplicate key", `{"lovCode":"a","lovCode":"b"}`},
			{"a nested value", `{"lovCode":{"a":1},"roomLabel":["b"]}`},
			{"depth 20000", `{"lovCode":` + strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000) + `}`},
			{"open depth 20000", strings.Repeat(`{"lovCode":`, 20_000)},
			{"a bare NaN", `{"score":NaN,"roomCapacity":NaN}`},
			{"a bare Infinity", `{"score":-Infinity,"roomCapacity":-Infinity}`},
			{"a leading zero", `{"score":012,"roomCapacity":012}`},
			{"a control byte", "{\"lovCode\":\"a\x01b\"}"},
			{"a raw NUL", "{\"lovCode\":\"a\x00b\"}"},
			{"binary", "\x00\x01\x02\xff\xfe\xfd"},
			{"single quotes", `{'lovCode':'a'}`},
			{"an unended string", `{"lovCode":"a`},
		} {
			add(action, v[0], 0, raw(v[1], notJSON))
		}
		add(action, "a tombstone", 0, func(_ *Generator, rec *Record, c *row) {
			*c, rec.Value, rec.Errors = nil, nil, []string{empty}
		})
		add(action, "nothing at all", 0, func(_ *Generator, rec *Record, c *row) {
			*c, rec.Key, rec.Value, rec.Errors = nil, nil, nil, []string{empty}
		})
		add(action, "no bytes", 0, raw("", empty))
		add(action, "no bytes under a binary key", 0, func(_ *Generator, rec *Record, c *row) {
			*c, rec.Key, rec.Value, rec.Errors = nil, []byte("\x00\xff\xfe"), []byte{}, []string{empty}
		})
		add(action, "unreadable with hostile headers", 0, func(_ *Generator, rec *Record, c *row) {
			raw("{", notJSON)(nil, rec, c)
			rec.Headers = []handlers.Header{{Key: "a\x00\xff", Value: []byte("\x00\xff")}, {Key: "", Value: nil}, {Key: "twice", Value: []byte("1")},
				{Key: "twice", Value: []byte("2")}, {Key: "learnsink.id", Value: []byte("forged")}, {Key: "__connect.errors.topic", Value: []byte("forged")}}
		})
		add(action, "an unknown column", 0, set("Score", "1", "Column [Score] is unknown."))
		add(action, "a hostile unknown column", 0, set("a\x00\x01'%", "null", `Column [a\u0000\u0001'%] is unknown.`))
		add(action, "a long unknown column", 0, set(strings.Repeat("\u00e9", 300), "1", "Column ["+strings.Repeat("\u00e9", 80)+"\u2026] is unknown."))
		add(action, "many unknown columns", 0, func(_ *Generator, rec *Record, c *row) {
			for i := range 25 {
				c.set(fmt.Sprintf("x%d", i), "null")
				if i < 20 {
					rec.Errors = append(rec.Errors, fmt.Sprintf("Column [x%d] is unknown.", i))
				}
			}
			rec.Errors = append(rec.Errors, "And [5] more columns are unknown.")
		})
		add(action, "an ignored column", 1, set("ignoredColumn", `"\u0000"`))
		add(action, "a nested ignored column", 1, set("ignoredColumn", `{"a":`+strings.Repeat("[", 50)+strings.Repeat("]", 50)+`}`))
		add(action, "plain", 40, asIs)
		add(action, "again", 8, func(g *Generator, rec *Record, c *row) {
			if before, ok := g.repeat[action]; ok { // the same bytes, another time
				at := rec.EventTime
				*rec, *c = before, nil
				rec.EventTime, rec.Kind = at, string(action)+": again"
			}
		})
		add(action, "late", 2, func(_ *Generator, rec *Record, _ *row) { rec.EventTime = rec.EventTime.Add(-36 * time.Hour) })
		add(action, "headers", 4, func(_ *Generator, rec *Record, _ *row) {
			rec.Headers = []handlers.Header{{Key: "ce_id", Value: []byte("id-1")}, {Key: "ce_source", Value: []byte("/lms")}, {Key: "nothing", Value: nil},
				{Key: "traceparent", Value: []byte("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")}, {Key: "bytes", Value: []byte("\x00\xff")}}
		})
	}

	t := handlers.Tracking
	add(t, "a delete", 8, func(_ *Generator, rec *Record, c *row) {
		c.set("trackingStatus", `"notAttempted"`)
		c.drop("firstCompletionDate")
		rec.Tracking.Status, rec.Tracking.Completion = "notAttempted", time.Time{}
	})
	add(t, "no key", 2, func(g *Generator, rec *Record, c *row) {
		c.drop(strings.Fields(learnerColumns + " " + contextColumns)...)
		c.set("candidateLogin", g.spell(noKey))
		c.set("sessionGuid", g.spell(sessionGUID(0)))
		rec.Key, rec.Tracking.Login, rec.Tracking.SessionGUID = nil, noKey, sessionGUID(0)
	})
	add(t, "a huge score", 2, func(_ *Generator, rec *Record, c *row) {
		huge := 1e300
		c.set("score", `"1e+300"`)
		rec.Tracking.Score = &huge
	})
	add(t, "blank and null columns", 4, func(_ *Generator, rec *Record, c *row) {
		c.set("score", "null")
		c.set("progression", `" \u2003\t"`)
		c.set("timeSpent", `""`)
		rec.Tracking.Score, rec.Tracking.Progression, rec.Tracking.TimeSpent = nil, nil, 0
	})
	for _, v := range [][2]string{{"true", "true"}, {`"12,5"`, "12,5"}, {`"NaN"`, "NaN"}, {`"Infinity"`, "Infinity"}, {`"1_000"`, "1_000"}, {`"0x10"`, "0x10"},
		{"1e200000", "1e200000"}, {`"1e400"`, "1e400"}, {`"1."`, "1."}, {`"a\u0000\u0010"`, `a\u0000\u0010`},
		{quote(strings.Repeat("\U0001F600", 90)), strings.Repeat("\U0001F600", 80) + "\u2026"}} {
		add(t, "score "+v[1], 0, set("score", v[0], "Field [score] has invalid value ["+v[1]+"], number expected."))
	}
	for _, v := range [][2]string{{"12.0", "12.0"}, {"1e3", "1e3"}, {`"twelve"`, "twelve"}, {"false", "false"}} {
		add(t, "scoreMax "+v[1], 0, set("scoreMax", v[0], "Field [scoreMax] has invalid value ["+v[1]+"], integer expected."))
	}
	for _, v := range []string{"0", "-1", "2147483648", "99999999999999999999999999"} {
		add(t, "scoreMax "+v, 0, set("scoreMax", v, "Field [scoreMax] has invalid value ["+v+"], [1] to [2147483647] expected."))
	}
	for _, v := range []string{"100.5", "-0.001", "1e300"} {
		add(t, "progression "+v, 0, set("progression", v, "Field [progression] has invalid value ["+v+"], [0] to [100] expected."))
	}
	for _, v := range []string{"-1", "2147483648"} {
		add(t, "timeSpent "+v, 0, set("timeSpent", v, "Field [timeSpent] has invalid value ["+v+"], [0] to [2147483647] expected."))
	}
	add(t, "timeSpent in words", 0, set("timeSpent", `"1h"`, "Field [timeSpent] has invalid value [1h], [rawSeconds] expected."))
	add(t, "a session id beyond 64 bits", 0, func(g *Generator, rec *Record, c *row) {
		c.set("sessionGuid", quote(rec.Tracking.SessionGUID))
		c.set("sessionId", "9223372036854775808")
		rec.Errors = []string{"Field [sessionId] has invalid value [9223372036854775808], [1] to [9223372036854775807] expected."}
	})
	add(t, "a title that is a boolean", 0, func(g *Generator, rec *Record, c *row) {
		c.set("sessionGuid", quote(rec.Tracking.SessionGUID))
		c.set("sessionTitle", "true")
		rec.Errors = []string{"Field [sessionTitle] has invalid value [true], text expected."}
	})
	add(t, "a code too long", 0, set("lovCode", quote(strings.Repeat("\u00e9", 256)), "Field [lovCode] is longer than [255] characters."))
	add(t, "a GUID too long", 0, set("lovGuid", quote(strings.Repeat("g", 41)), "Field [lovGuid] is longer than [40] characters."))
	add(t, "NUL in a code", 0, set("lovCode", `"a\u0000b"`, "Field [lovCode] holds a character that cannot be stored."))
	add(t, "no learner", 0, drop(learnerColumns, noLearner))
	add(t, "no learning object", 0, drop(objectColumns, noObject))
	add(t, "no context", 0, drop(contextColumns, noContext))
	add(t, "a title without a training", 0, func(_ *Generator, rec *Record, c *row) {
		c.drop(strings.Fields(contextColumns)...)
		c.set("sessionTitle", quote(sessionTitle(0)))
		rec.Errors = []string{noContext}
	})
	for _, v := range []string{"0000-01-01", "2024-02-30", "2019-02-29 10:00:00", "10000-01-01", "yesterday", "2024-01-01T00:00:00Z", "2024-01-01 24:00:01", "294277-01-01"} {
		add(t, "the date "+v, 0, set("lastAccessDate", quote(v), badDate))
	}
	add(t, "two bad dates", 0, func(_ *Generator, rec *Record, c *row) {
		c.set("lastAccessDate", `"-4714-01-01"`)
		c.set("firstAccessDate", `"2024-13-01"`)
		rec.Errors = []string{badDate, badDate}
	})
	add(t, "an unknown status", 0, func(_ *Generator, rec *Record, c *row) {
		c.drop("firstCompletionDate")
		c.set("trackingStatus", `"Completed"`) // words compare exactly
		rec.Errors = []string{"Status has invalid value [Completed], " + statusExpected}
	})
	add(t, "an unknown code", 0, func(_ *Generator, rec *Record, c *row) {
		c.drop(strings.Fields(objectColumns)...)
		c.set("lovCode", `"lo/1"`) // codes compare exactly
		rec.Errors = []string{"Learning object version with code [lo/1] is not found."}
	})
	add(t, "an unknown guid", 0, set("lovGuid", `"lo-404"`, "Learning object version with guid [lo-404] is not found."))
	for _, v := range [][2]string{{crossGUID, crossKnowledge}, {quizzGUID, easyQuizz}} {
		add(t, "the learning object "+v[0], 0, func(g *Generator, rec *Record, c *row) {
			c.drop(strings.Fields(objectColumns)...)
			c.set("lovGuid", g.spell(v[0]))
			rec.Errors = []string{v[1]}
		})
	}
	add(t, "an unknown learner", 0, set("candidateRefNumber", `"0"`, noRegistration))
	add(t, "an unknown session", 0, set("sessionGuid", `"se-404"`, noRegistration))
	add(t, "another's training", 0, set("trainingPathCode", quote(otherPath), noRegistration))
	add(t, "a learner without registration", 0, func(g *Generator, rec *Record, c *row) {
		c.drop(strings.Fields(learnerColumns)...)
		c.set("candidateLogin", g.spell(unregistered))
		rec.Errors = []string{noRegistration}
	})
	add(t, "completion without completed", 0, func(_ *Generator, rec *Record, c *row) {
		c.set("firstCompletionDate", `"2024-01-01"`)
		c.set("trackingStatus", `"browsed"`)
		rec.Errors = []string{notCompleted}
	})
	add(t, "all at once", 0, func(_ *Generator, rec *Record, c *row) {
		*c = row{}
		c.set("nope", "1")
		c.set("lovGuid", quote(crossGUID))
		c.set("candidateLogin", `"who"`)
		c.set("sessionGuid", `"se-404"`)
		c.set("progression", "101")
		c.set("score", `"12,5"`)
		c.set("lastAccessDate", `"soon"`)
		c.set("firstCompletionDate", `"2024-01-01"`)
		rec.Errors = []string{"Column [nope] is unknown.", "Field [progression] has invalid value [101], [0] to [100] expected.",
			"Field [score] has invalid value [12,5], number expected.", badDate, crossKnowledge, noRegistration, notCompleted}
	})

	v := handlers.Intervention
	for _, column := range strings.Fields("interventionGuid interventionDate interventionDuration roomGuid roomLabel teacherLogin interventionStatus") {
		add(v, "no "+column, 0, drop(column, "Field ["+column+"] is empty."))
	}
	add(v, "no training", 0, drop(trainingColumns, "Field [trainingGuid or trainingPathCode] is empty."))
	add(v, "no session", 0, drop(sessionColumns, "Field [sessionGuid or sessionTitle] is empty."))
	add(v, "nothing but braces", 0, func(_ *Generator, rec *Record, c *row) {
		*c = row{}
		for _, field := range []string{"interventionGuid", "trainingGuid or trainingPathCode", "sessionGuid or sessionTitle", "interventionDate",
			"interventionDuration", "roomGuid", "roomLabel", "teacherLogin", "interventionStatus"} {
			rec.Errors = append(rec.Errors, "Field ["+field+"] is empty.")
		}
	})
	add(v, "a duration of none", 0, set("interventionDuration", "0", "Field [interventionDuration] has invalid value [0], [1] to [2147483647] expected."))
	add(v, "a duration in words", 0, set("interventionDuration", `"PT2H"`, "Field [interventionDuration] has invalid value [PT2H], integer expected."))
	add(v, "a capacity below none", 0, set("roomCapacity", "-1", "Field [roomCapacity] has invalid value [-1], [0] to [2147483647] expected."))
	add(v, "NUL in a label", 0, set("roomLabel", `"\u0000"`, "Field [roomLabel] holds a character that cannot be stored."))
	add(v, "a label too long", 0, set("roomLabel", quote(strings.Repeat("x", 256)), "Field [roomLabel] is longer than [255] characters."))
	add(v, "an unknown training guid", 0, func(_ *Generator, rec *Record, c *row) {
		c.drop(strings.Fields(trainingColumns)...)
		c.set("trainingGuid", `"tr-404"`)
		rec.Errors = []string{"Training with guid [tr-404] is not found."}
	})
	add(v, "an unknown path code", 0, func(_ *Generator, rec *Record, c *row) {
		c.drop(strings.Fields(trainingColumns)...)
		c.set("trainingPathCode", `"path-0"`)
		rec.Errors = []string{"Training with path code [path-0] is not found."}
	})
	add(v, "an unknown session guid", 0, func(_ *Generator, rec *Record, c *row) {
		c.drop("sessionTitle")
		c.set("sessionGuid", `"se-404"`)
		rec.Errors = []string{"Session with guid [se-404] is not found for this training."}
	})
	add(v, "another training's title", 0, func(_ *Generator, rec *Record, c *row) {
		c.drop("sessionGuid", "trainingGuid")
		c.set("trainingPathCode", quote(otherPath))
		c.set("sessionTitle", quote(sessionTitle(0)))
		rec.Errors = []string{"Session with title [" + sessionTitle(0) + "] is not found for this training."}
	})
	for _, date := range []string{"2017-02-30", "0000-01-01", "2017-11-08T24:00:01", "2017-11-08T10:00:60", "2017-W45-3", "2017-312", "2017-11-08 10:00", "20171108T10:00", "10000-01-01", "tomorrow"} {
		add(v, "the date "+date, 0, set("interventionDate", quote(date), "Date ["+date+"] not valid."))
	}
	add(v, "an unknown teacher", 0, set("teacherLogin", `"nobody"`, "Teacher with login [nobody] is not found."))
	add(v, "an unknown status", 0, set("interventionStatus", `"a"`, "Status has invalid value [a], [A] or [C] expected."))

	// Beyond a megabyte.
	mega := strings.Repeat("m", 1<<20)
	giant("a giant that is no JSON", raw(mega, notJSON))
	giant("a giant e-mail", set("candidateEmail", quote(mega), "Field [candidateEmail] is longer than [255] characters."))
	giant("a giant number", set("score", strings.Repeat("9", 1<<20), "Field [score] has invalid value ["+strings.Repeat("9", 80)+"\u2026], number expected."))
	giant("a giant unknown column", set(mega, "1", "Column ["+mega[:80]+"\u2026] is unknown."))
	giant("a giant key", func(_ *Generator, rec *Record, c *row) {
		rec.Key = []byte(mega)
		raw("{", notJSON)(nil, rec, c)
	})
	return all
}

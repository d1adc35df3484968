package catalogue_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"learnsink/handlers"
	"learnsink/store/catalogue"
)

// write makes a folder of files, by name.
func write(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// read opens a folder of files and returns every line, without its folder.
func read(t testing.TB, files map[string]string) []catalogue.Line {
	t.Helper()
	folder, err := catalogue.Open(write(t, files))
	if err != nil {
		t.Fatal(err)
	}
	var lines []catalogue.Line
	err = folder.Read(func(line catalogue.Line) error {
		line.File = filepath.Base(line.File)
		lines = append(lines, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

// one reads the one line of a file.
func one(t testing.TB, name, text string) catalogue.Line {
	t.Helper()
	lines := read(t, map[string]string{name: text})
	if len(lines) != 1 {
		t.Fatalf("%d lines in %q, want 1", len(lines), text)
	}
	return lines[0]
}

func TestEveryKindIsTyped(t *testing.T) {
	got := read(t, map[string]string{
		"rooms.csv":            "guid,label,capacity\nR-1,Atrium,40\nR-2,,\n",
		"teachers.csv":         "login\ndr.haas\n",
		"registrations.csv":    "learnerEmail,sessionId\nines@example.net,11\n",
		"sessions.csv":         "id,guid,title,trainingId\n11,se-11,June,1\n",
		"trainings.csv":        "id,guid,pathCode,title\n1,tr-1,SAFE,Safety first\n",
		"learning_objects.csv": "guid,code,title,provider\nlo-1,FIRE-1,Fire drill,\nlo-2,CK-9,Negotiation,crossknowledge\n",
		"learners.csv":         "login,refNumber,email,createdAt\nines,E-77,ines@example.net,2019-03-01T10:00:00.1234567+02:00\nkwame,,,2019-04-01\n",
	})
	want := []catalogue.Line{
		{Kind: "learners", File: "learners.csv", Number: 2, Learner: &catalogue.Learner{Login: "ines", RefNumber: "E-77", Email: "ines@example.net",
			CreatedAt: handlers.Some(time.Date(2019, 3, 1, 8, 0, 0, 123456000, time.UTC))}},
		{Kind: "learners", File: "learners.csv", Number: 3, Learner: &catalogue.Learner{Login: "kwame",
			CreatedAt: handlers.Some(time.Date(2019, 4, 1, 0, 0, 0, 0, time.UTC))}},
		{Kind: "learning_objects", File: "learning_objects.csv", Number: 2, LearningObject: &catalogue.LearningObject{GUID: "lo-1", Code: "FIRE-1", Title: "Fire drill", Provider: handlers.Customer}},
		{Kind: "learning_objects", File: "learning_objects.csv", Number: 3, LearningObject: &catalogue.LearningObject{GUID: "lo-2", Code: "CK-9", Title: "Negotiation", Provider: handlers.CrossKnowledge}},
		{Kind: "trainings", File: "trainings.csv", Number: 2, Training: &catalogue.Training{ID: 1, GUID: "tr-1", PathCode: "SAFE", Title: "Safety first"}},
		{Kind: "sessions", File: "sessions.csv", Number: 2, Session: &catalogue.Session{ID: 11, GUID: "se-11", Title: "June", TrainingID: 1}},
		{Kind: "registrations", File: "registrations.csv", Number: 2, Registration: &catalogue.Registration{LearnerEmail: "ines@example.net", SessionID: 11}},
		{Kind: "teachers", File: "teachers.csv", Number: 2, Teacher: &catalogue.Teacher{Login: "dr.haas"}},
		{Kind: "rooms", File: "rooms.csv", Number: 2, Room: &catalogue.Room{GUID: "R-1", Label: "Atrium", Capacity: handlers.Some(int32(40))}},
		{Kind: "rooms", File: "rooms.csv", Number: 3, Room: &catalogue.Room{GUID: "R-2"}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestJSONLSaysWhatCSVSays(t *testing.T) {
	got := read(t, map[string]string{
		"learners.jsonl": "\ufeff" + `{"login":" ines ","refNumber":77,"email":null,"createdAt":"2019-03-01"}` + "\r\n\n" + `{"login":"\ud83d\ude00"}`,
		"sessions.jsonl": `{"id":11,"trainingId":"1"}`,
	})
	want := []catalogue.Line{
		{Kind: "learners", File: "learners.jsonl", Number: 1, Learner: &catalogue.Learner{Login: "ines", RefNumber: "77",
			CreatedAt: handlers.Some(time.Date(2019, 3, 1, 0, 0, 0, 0, time.UTC))}},
		{Kind: "learners", File: "learners.jsonl", Number: 3, Learner: &catalogue.Learner{Login: "😀"}},
		{Kind: "sessions", File: "sessions.jsonl", Number: 1, Session: &catalogue.Session{ID: 11, TrainingID: 1}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestBadLinesAreNamedAndNeverEndTheRead(t *testing.T) {
	long := strings.Repeat("ü", 41)
	for _, c := range []struct{ name, file, text, want string }{
		{"too few cells", "learners.csv", "login,email\nines\n", "1 cells, the header has 2"},
		{"too many cells", "teachers.csv", "login\na,b\n", "2 cells, the header has 1"},
		{"a quote within a cell", "teachers.csv", "login\na\"b\n", `not CSV: bare " in non-quoted-field`},
		{"text after a closing quote", "teachers.csv", "login\n\"a\"b\n", `not CSV: extraneous or missing " in quoted-field`},
		{"a key that is blank", "learners.csv", "login,email\n \u00a0,x@example.net\n", "login is empty"},
		{"an id that is no number", "trainings.csv", "id\none\n", "id is not an integer from 1 to 9223372036854775807"},
		{"an id of 0", "trainings.csv", "id\n0\n", "id is not an integer from 1 to 9223372036854775807"},
		{"an id beyond 64 bits", "trainings.csv", "id\n9223372036854775808\n", "id is not an integer from 1 to 9223372036854775807"},
		{"an id with a sign", "trainings.csv", "id\n+1\n", "id is not an integer from 1 to 9223372036854775807"},
		{"a session of no training", "sessions.csv", "id,trainingId\n11,\n", "trainingId is empty"},
		{"a registration of nobody", "registrations.csv", "learnerLogin,sessionGuid\n,se-11\n", "learnerLogin, learnerRefNumber or learnerEmail is empty"},
		{"a registration in nothing", "registrations.csv", "learnerLogin,sessionGuid\nines,\n", "sessionGuid or sessionId is empty"},
		{"a guid of 41 characters", "rooms.csv", "guid\n" + long + "\n", "guid is longer than 40 characters"},
		{"a login of 256 characters", "teachers.csv", "login\n" + strings.Repeat("x", 256) + "\n", "login is longer than 255 characters"},
		{"U+0000", "teachers.csv", "login\na\x00b\n", "login holds a character that cannot be stored"},
		{"bytes that are not UTF-8", "teachers.csv", "login\na\xffb\n", "login is not UTF-8"},
		{"a provider of another word", "learning_objects.csv", "guid,provider\nlo,CUSTOMER\n", "provider is not customer, crossknowledge or easyquizz"},
		{"a day that is not", "learners.csv", "login,createdAt\nines,2019-02-29\n", "createdAt is not a time in RFC 3339 (2006-01-02T15:04:05Z) nor a date"},
		{"a time beyond the calendar", "learners.csv", "login,createdAt\nines,0001-01-01T00:00:00+01:00\n", "createdAt is not a time in RFC 3339 (2006-01-02T15:04:05Z) nor a date"},
		{"a room without a number", "rooms.csv", "guid,capacity\nr,many\n", "capacity is not an integer from 0 to 2147483647"},
		{"two faults at once", "sessions.csv", "id,trainingId\nx,y\n", "id is not an integer from 1 to 9223372036854775807; trainingId is not an integer from 1 to 9223372036854775807"},
		{"no object", "teachers.jsonl", "[1]\n", "not a JSON object"},
		{"two values", "teachers.jsonl", "{}{}\n", "not a JSON object"},
		{"JSON that is not UTF-8", "teachers.jsonl", "{\"login\":\"\xff\"}\n", "not UTF-8"},
		{"half a character", "teachers.jsonl", `{"login":"\\\ud83dx"}`, `a \u escape is half a character`},
		{"an unknown column in JSON", "teachers.jsonl", `{"name":"x"}`, `column "name" is unknown: expected login`},
		{"a column twice in JSON", "teachers.jsonl", `{"login":"x","login":"y"}`, `column "login" stands twice`},
		{"a value of another type", "teachers.jsonl", `{"login":true}`, "login is neither text nor a number"},
		{"an empty object", "teachers.jsonl", `{}`, "login is empty"},
	} {
		t.Run(c.name, func(t *testing.T) {
			line := one(t, c.file, c.text)
			if line.Bad != c.want {
				t.Errorf("bad: %q, want %q", line.Bad, c.want)
			}
			if strings.HasSuffix(c.file, ".csv") != (line.Number == 2) {
				t.Errorf("line %d", line.Number)
			}
			good := "good\n"
			switch c.file {
			case "teachers.csv":
			case "teachers.jsonl":
				good = "{\"login\":\"good\"}\n"
			default:
				return
			}
			lines := read(t, map[string]string{c.file: strings.TrimSuffix(c.text, "\n") + "\n" + good})
			if len(lines) != 2 || lines[1].Teacher == nil || lines[1].Teacher.Login != "good" {
				t.Errorf("the line after it: %+v", lines)
			}
		})
	}
}

func TestALineIsCountedWhereItStarts(t *testing.T) {
	lines := read(t, map[string]string{
		"learning_objects.csv": "\ufeffguid,title\r\n\r\nlo-1,\"two\nlines\"\r\nlo-2,\"say \"\"hi\"\"\"\r\n",
	})
	if len(lines) != 2 || lines[0].Number != 3 || lines[1].Number != 5 {
		t.Fatalf("%+v", lines)
	}
	if got := lines[0].LearningObject.Title; got != "two\nlines" {
		t.Errorf("title %q", got)
	}
	if got := lines[1].LearningObject.Title; got != `say "hi"` {
		t.Errorf("title %q", got)
	}
}

func TestHeaderFaultsAreAllNamed(t *testing.T) {
	dir := write(t, map[string]string{
		"learners.csv":      "email,e-mail,email\nx,y,z\n",
		"registrations.csv": "learnerLogin\nx\n",
		"teachers.csv":      "",
		"rooms.csv":         "gu\"id\n",
	})
	_, err := catalogue.Open(dir, filepath.Join(dir, "absent"))
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{
		`learners.csv:1: column "e-mail" is unknown: the columns of learners are login, refNumber, email, createdAt`,
		`learners.csv:1: column "email" stands twice`,
		`learners.csv:1: header line lacks login`,
		`registrations.csv:1: header line lacks sessionGuid or sessionId`,
		`teachers.csv:1: no header line: expected login`,
		`rooms.csv:1: header line is not CSV`,
		`absent: no such file or directory`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in\n%v", want, err)
		}
	}
}

func TestWhichFilesAreRead(t *testing.T) {
	dir := write(t, map[string]string{
		"teachers.csv": "login\n", "teacher.csv": "login\n", "README.md": "",
		"learners.JSONL": `{"login":"x"}`,
	})
	folder, err := catalogue.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(folder.Kinds()); got != "[learners teachers]" {
		t.Errorf("kinds %s", got)
	}
	if got := folder.Passed(); len(got) != 1 || filepath.Base(got[0]) != "teacher.csv" {
		t.Errorf("passed %s", got)
	}
	var bytes int
	folder.OnRead = func(n int) { bytes += n }
	for range 2 {
		if err := folder.Read(func(catalogue.Line) error { return nil }); err != nil {
			t.Fatal(err)
		}
	}
	if int64(bytes) != 2*folder.Size() || bytes == 0 {
		t.Errorf("%d bytes read in two reads of %d", bytes, folder.Size())
	}

	if _, err := catalogue.Open(filepath.Join(dir, "teachers.csv")); err != nil {
		t.Errorf("a file by its path: %v", err)
	}
	if _, err := catalogue.Open(filepath.Join(dir, "teacher.csv")); err == nil {
		t.Error("a file of another name was taken")
	}
	if _, err := catalogue.Open(t.TempDir()); err == nil {
		t.Error("a folder without a catalogue was taken")
	}
}

func TestAnErrorOfTheVisitorEndsTheRead(t *testing.T) {
	folder, err := catalogue.Open(write(t, map[string]string{"teachers.csv": "login\na\nb\n"}))
	if err != nil {
		t.Fatal(err)
	}
	stop := fmt.Errorf("stop")
	visits := 0
	if err := folder.Read(func(catalogue.Line) error { visits++; return stop }); err != stop || visits != 1 {
		t.Errorf("%v after %d visits", err, visits)
	}
}

// FuzzRead: whatever stands in a file, a read ends, and every line is either
// bad or exactly what its kind says.
func FuzzRead(f *testing.F) {
	f.Add("learners.csv", "login,refNumber,email,createdAt\na,b,c,2019-03-01\n")
	f.Add("sessions.csv", "id,trainingId,title\n1,1,\"x\ny\"\n\"2,3\n")
	f.Add("registrations.jsonl", `{"learnerLogin":"a","sessionId":1}`)
	f.Add("rooms.jsonl", "{\"guid\":\"\\ud800\"}\n{}\n\n[")
	f.Fuzz(func(t *testing.T, name, text string) {
		if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") || len(name) > 100 {
			return // no name of a file
		}
		folder, err := catalogue.Open(write(t, map[string]string{name: text}))
		if err != nil {
			return
		}
		last := 0
		err = folder.Read(func(line catalogue.Line) error {
			if line.Number <= last {
				t.Errorf("line %d after %d", line.Number, last)
			}
			last = line.Number
			if typed := typed(line); (line.Bad == "") != (typed == 1) || typed > 1 {
				t.Errorf("bad %q, %d rows: %+v", line.Bad, typed, line)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	})
}

func typed(line catalogue.Line) int {
	n := 0
	for _, there := range []bool{line.Learner != nil, line.LearningObject != nil, line.Training != nil,
		line.Session != nil, line.Registration != nil, line.Teacher != nil, line.Room != nil} {
		if there {
			n++
		}
	}
	return n
}

func BenchmarkRead(b *testing.B) {
	for _, form := range []struct{ name, header, line string }{
		{"learners.csv", "login,refNumber,email,createdAt\n", "learner-%d,E-%[1]d,learner-%[1]d@example.net,2019-03-01T08:00:00Z\n"},
		{"learners.jsonl", "", `{"login":"learner-%d","refNumber":"E-%[1]d","email":"learner-%[1]d@example.net","createdAt":"2019-03-01T08:00:00Z"}` + "\n"},
	} {
		b.Run(form.name, func(b *testing.B) {
			var text strings.Builder
			text.WriteString(form.header)
			for i := range 10_000 {
				fmt.Fprintf(&text, form.line, i)
			}
			folder, err := catalogue.Open(write(b, map[string]string{form.name: text.String()}))
			if err != nil {
				b.Fatal(err)
			}
			lines := 0
			for b.Loop() {
				if err := folder.Read(func(catalogue.Line) error { lines++; return nil }); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(lines)/b.Elapsed().Seconds(), "lines/s")
		})
	}
}

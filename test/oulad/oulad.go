// Package oulad turns the Open University Learning Analytics Dataset
// (Kuzilek, Hlosta, Zdrahal, Scientific Data 4, 170171, 2017; CC BY 4.0) into
// what learnsink reads: a catalogue folder and a stream of tracking rows.
//
// How it maps: a module is a training by its path code, a presentation a
// session of it by its title, id_student a learner's reference number, a
// registration a registration (an unregistration ends none), an assessment
// and a site of the learning environment learning objects by their codes. A
// day is counted from the presentation's start, 1 October (J) or 1 February
// (B); it can be negative.
//
// A result is one row: a score of 100, passed from 40 on, else failed; a
// banked or blank one has no score and is incomplete. A click row is the
// consolidated row so far of its student and site, so the same key comes
// again and again. A row's own time is in ignoredColumn, which the rules pass
// over and `learnsink send --event-time ignoredColumn` makes the event's time.
package oulad

import (
	"encoding/csv"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Env names the environment variable with the folder of the dataset.
const Env = "LEARNSINK_OULAD"

// Dataset is a folder with the dataset's CSV files, whole or in part.
type Dataset struct {
	dir         string
	courses     []course // in the file's order
	starts      map[presentation]time.Time
	assessments map[string]presentation // by id_assessment
}

type presentation struct{ module, name string }

type course struct {
	presentation
	sessionID, trainingID int
}

// Row is one tracking row as `learnsink send` puts it on the topic.
type Row struct {
	Key       string // the learner's reference number
	EventTime time.Time
	Value     []byte // JSON; it is the caller's
}

// Open reads the small files of the dataset in dir.
func Open(dir string) (*Dataset, error) {
	d := &Dataset{dir: dir, starts: map[presentation]time.Time{}, assessments: map[string]presentation{}}
	trainings := map[string]int{}
	for rec, err := range d.read("courses", "code_module", "code_presentation") {
		if err != nil {
			return nil, err
		}
		p := presentation{rec[0], rec[1]}
		start, err := startOf(p)
		if err != nil {
			return nil, err
		}
		if trainings[p.module] == 0 {
			trainings[p.module] = len(trainings) + 1
		}
		d.starts[p] = start
		d.courses = append(d.courses, course{p, len(d.courses) + 1, trainings[p.module]})
	}
	for rec, err := range d.read("assessments", "id_assessment", "code_module", "code_presentation") {
		if err != nil {
			return nil, err
		}
		d.assessments[rec[0]] = presentation{rec[1], rec[2]}
	}
	return d, nil
}

// startOf returns the day 0 of a presentation: 2013J starts on 1 October 2013, 2013B on 1 February.
func startOf(p presentation) (time.Time, error) {
	if len(p.name) == 5 {
		year, err := strconv.Atoi(p.name[:4])
		month, known := map[byte]time.Month{'B': time.February, 'J': time.October}[p.name[4]]
		if err == nil && known {
			return time.Date(year, month, 1, 0, 0, 0, 0, time.UTC), nil
		}
	}
	return time.Time{}, fmt.Errorf("courses.csv: presentation %q is not a year with B or J", p.name)
}

// WriteCatalog writes the catalogue of the dataset into dir, in the format of
// `learnsink catalog load`. It holds one number for each student in memory.
func (d *Dataset) WriteCatalog(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	seen := map[string]bool{}
	for _, file := range []struct {
		name, header string
		write        func(line func(cells ...string)) error
	}{
		{"trainings", "id,guid,pathCode,title", func(line func(...string)) error {
			written := 0
			for _, c := range d.courses {
				if c.trainingID > written {
					line(strconv.Itoa(c.trainingID), "module-"+c.module, c.module, "Module "+c.module)
					written = c.trainingID
				}
			}
			return nil
		}},
		{"sessions", "id,guid,title,trainingId", func(line func(...string)) error {
			for _, c := range d.courses {
				line(strconv.Itoa(c.sessionID), c.guid(), c.name, strconv.Itoa(c.trainingID))
			}
			return nil
		}},
		{"learning_objects", "guid,code,title,provider", func(line func(...string)) error {
			for rec, err := range d.read("assessments", "id_assessment", "assessment_type") {
				if err != nil {
					return err
				}
				line("assessment-"+rec[0], rec[0], rec[1], "customer")
			}
			for rec, err := range d.read("vle", "id_site", "activity_type") {
				if err != nil {
					return err
				}
				line("site-"+rec[0], rec[0], rec[1], "customer")
			}
			return nil
		}},
		{"learners", "login,refNumber,email,createdAt", func(line func(...string)) error {
			for rec, err := range d.read("studentRegistration", "id_student") {
				if err != nil {
					return err
				}
				if !seen[rec[0]] {
					seen[rec[0]] = true
					line("student-"+rec[0], rec[0], "", "")
				}
			}
			return nil
		}},
		{"registrations", "learnerRefNumber,sessionGuid", func(line func(...string)) error {
			for rec, err := range d.read("studentRegistration", "id_student", "code_module", "code_presentation") {
				if err != nil {
					return err
				}
				line(rec[0], presentation{rec[1], rec[2]}.guid())
			}
			return nil
		}},
		{"teachers", "login", func(func(...string)) error { return nil }},
		{"rooms", "guid,label,capacity", func(func(...string)) error { return nil }},
	} {
		f, err := os.Create(filepath.Join(dir, file.name+".csv"))
		if err != nil {
			return err
		}
		w := csv.NewWriter(f)
		w.Write(strings.Split(file.header, ",")) // w keeps its first error
		err = file.write(func(cells ...string) { w.Write(cells) })
		w.Flush()
		for _, e := range []error{w.Error(), f.Close()} {
			if err == nil {
				err = e
			}
		}
		if err != nil {
			return fmt.Errorf("%s: %w", file.name, err)
		}
	}
	return nil
}

func (p presentation) guid() string { return p.module + "-" + p.name }

// Rows yields the tracking rows: the results in the file's order, then the
// clicks in theirs. In memory it holds the first day of each student and site.
func (d *Dataset) Rows() iter.Seq2[Row, error] {
	return func(yield func(Row, error) bool) {
		for rec, err := range d.read("studentAssessment", "id_assessment", "id_student", "date_submitted", "is_banked", "score") {
			var row Row
			if err == nil {
				row, err = d.result(rec)
			}
			if !yield(row, err) || err != nil {
				return
			}
		}
		firstDays := map[[2]int32]int16{} // by id_student, id_site
		for rec, err := range d.read("studentVle", "code_module", "code_presentation", "id_student", "id_site", "date") {
			var row Row
			if err == nil {
				row, err = d.click(rec, firstDays)
			}
			if !yield(row, err) || err != nil {
				return
			}
		}
	}
}

func (d *Dataset) result(rec []string) (Row, error) {
	id, student, banked, score := rec[0], rec[1], rec[3] == "1", rec[4]
	p, known := d.assessments[id]
	if !known {
		return Row{}, fmt.Errorf("studentAssessment.csv: assessment %s is not in assessments.csv", id)
	}
	day, err := strconv.Atoi(rec[2])
	if err != nil {
		return Row{}, fmt.Errorf("studentAssessment.csv: %w", err)
	}
	at := d.starts[p].AddDate(0, 0, day)
	status := "incomplete"
	if points, err := strconv.ParseFloat(score, 64); err == nil && !banked { // a blank is "" or "?"
		status = "failed"
		if points >= 40 {
			status = "passed"
		}
	}
	v := begin(p, student, id)
	v = appendDay(v, "lastAccessDate", at)
	v = append(v, `,"trackingStatus":"`+status+`"`...)
	if status != "incomplete" {
		v = append(v, `,"score":`+score+`,"scoreMax":100`...)
	}
	return finish(v, student, at), nil
}

func (d *Dataset) click(rec []string, firstDays map[[2]int32]int16) (Row, error) {
	p, student, site := presentation{rec[0], rec[1]}, rec[2], rec[3]
	start, known := d.starts[p]
	if !known {
		return Row{}, fmt.Errorf("studentVle.csv: presentation %s is not in courses.csv", p.guid())
	}
	var n [3]int64
	for i, text := range rec[2:5] {
		var err error
		if n[i], err = strconv.ParseInt(text, 10, 32); err != nil {
			return Row{}, fmt.Errorf("studentVle.csv: %w", err)
		}
	}
	key, day := [2]int32{int32(n[0]), int32(n[1])}, int16(n[2])
	first, seen := firstDays[key]
	if !seen || day < first {
		first = day
		firstDays[key] = day
	}
	at := start.AddDate(0, 0, int(day))
	v := begin(p, student, site)
	v = appendDay(v, "firstAccessDate", start.AddDate(0, 0, int(first)))
	v = appendDay(v, "lastAccessDate", at)
	v = append(v, `,"trackingStatus":"incomplete"`...)
	return finish(v, student, at), nil
}

// begin starts a row with what it refers to. The code stays the number that it is in the files.
func begin(p presentation, student, object string) []byte {
	v := make([]byte, 0, 320)
	v = append(v, `{"candidateRefNumber":"`+student+`","lovCode":`+object...)
	return append(v, `,"sessionTitle":"`+p.name+`","trainingPathCode":"`+p.module+`"`...)
}

// finish ends a row with the event's own time.
func finish(v []byte, student string, at time.Time) Row {
	v = append(v, `,"ignoredColumn":"`...)
	v = at.AppendFormat(v, time.RFC3339)
	return Row{Key: student, EventTime: at, Value: append(v, `"}`...)}
}

func appendDay(v []byte, column string, day time.Time) []byte {
	v = append(v, `,"`+column+`":"`...)
	v = day.AppendFormat(v, time.DateOnly)
	return append(v, '"')
}

// read yields the named columns of a file, line by line; the slice is used again.
func (d *Dataset) read(file string, columns ...string) iter.Seq2[[]string, error] {
	return func(yield func([]string, error) bool) {
		if err := d.readTo(file, columns, func(rec []string) bool { return yield(rec, nil) }); err != nil {
			yield(nil, fmt.Errorf("%s.csv: %w", file, err))
		}
	}
}

func (d *Dataset) readTo(file string, columns []string, yield func([]string) bool) error {
	f, err := os.Open(filepath.Join(d.dir, file+".csv"))
	if err != nil {
		return err
	}
	defer f.Close()
	r := csv.NewReader(f)
	r.ReuseRecord = true
	header, err := r.Read()
	if err != nil {
		return err
	}
	at, rec := make([]int, len(columns)), make([]string, len(columns))
	for i, column := range columns {
		at[i] = -1
		for j, name := range header {
			if name == column {
				at[i] = j
			}
		}
		if at[i] < 0 {
			return fmt.Errorf("no column %s", column)
		}
	}
	for {
		line, err := r.Read()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		for i, j := range at {
			rec[i] = line[j]
		}
		if !yield(rec) {
			return nil
		}
	}
}

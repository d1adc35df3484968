package oulad_test

import (
	"encoding/csv"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"learnsink/test/oulad"
)

// A part small enough to be worked out by hand: negative days, a banked and a
// blank result, a site clicked twice on one day and again later.
var byHand = map[string]string{
	"courses":             "code_module,code_presentation,module_presentation_length\nAAA,2013J,268\nAAA,2014B,240\nBBB,2013J,268\n",
	"assessments":         "code_module,code_presentation,id_assessment,assessment_type,date,weight\nAAA,2013J,1752,TMA,19,10\nAAA,2014B,1753,Exam,,100\n",
	"vle":                 "id_site,code_module,code_presentation,activity_type,week_from,week_to\n546,AAA,2013J,resource,,\n",
	"studentRegistration": "code_module,code_presentation,id_student,date_registration,date_unregistration\nAAA,2013J,7,-159,12\nAAA,2014B,7,-9,\nAAA,2014B,8,,\n",
	"studentAssessment":   "id_assessment,id_student,date_submitted,is_banked,score\n1752,7,18,0,78\n1753,7,-1,1,60\n1753,8,27,0,\n1753,8,28,0,39\n1753,9,28,0,40\n",
	"studentVle":          "code_module,code_presentation,id_student,id_site,date,sum_click\nAAA,2013J,7,546,-10,4\nAAA,2013J,7,546,-10,1\nAAA,2013J,7,546,2,1\n",
}

func open(t *testing.T, dir string) *oulad.Dataset {
	t.Helper()
	d, err := oulad.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func hand(t *testing.T) *oulad.Dataset {
	dir := t.TempDir()
	for file, text := range byHand {
		if err := os.WriteFile(filepath.Join(dir, file+".csv"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return open(t, dir)
}

func TestRowsAreAsTheReadmeMapsThem(t *testing.T) {
	var got []string
	for row, err := range hand(t).Rows() {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, row.Key+" "+row.EventTime.Format(time.DateOnly)+" "+string(row.Value))
	}
	want := strings.Split(strings.TrimSpace(`
7 2013-10-19 {"candidateRefNumber":"7","lovCode":1752,"sessionTitle":"2013J","trainingPathCode":"AAA","lastAccessDate":"2013-10-19","trackingStatus":"passed","score":78,"scoreMax":100,"ignoredColumn":"2013-10-19T00:00:00Z"}
7 2014-01-31 {"candidateRefNumber":"7","lovCode":1753,"sessionTitle":"2014B","trainingPathCode":"AAA","lastAccessDate":"2014-01-31","trackingStatus":"incomplete","ignoredColumn":"2014-01-31T00:00:00Z"}
8 2014-02-28 {"candidateRefNumber":"8","lovCode":1753,"sessionTitle":"2014B","trainingPathCode":"AAA","lastAccessDate":"2014-02-28","trackingStatus":"incomplete","ignoredColumn":"2014-02-28T00:00:00Z"}
8 2014-03-01 {"candidateRefNumber":"8","lovCode":1753,"sessionTitle":"2014B","trainingPathCode":"AAA","lastAccessDate":"2014-03-01","trackingStatus":"failed","score":39,"scoreMax":100,"ignoredColumn":"2014-03-01T00:00:00Z"}
9 2014-03-01 {"candidateRefNumber":"9","lovCode":1753,"sessionTitle":"2014B","trainingPathCode":"AAA","lastAccessDate":"2014-03-01","trackingStatus":"passed","score":40,"scoreMax":100,"ignoredColumn":"2014-03-01T00:00:00Z"}
7 2013-09-21 {"candidateRefNumber":"7","lovCode":546,"sessionTitle":"2013J","trainingPathCode":"AAA","firstAccessDate":"2013-09-21","lastAccessDate":"2013-09-21","trackingStatus":"incomplete","ignoredColumn":"2013-09-21T00:00:00Z"}
7 2013-09-21 {"candidateRefNumber":"7","lovCode":546,"sessionTitle":"2013J","trainingPathCode":"AAA","firstAccessDate":"2013-09-21","lastAccessDate":"2013-09-21","trackingStatus":"incomplete","ignoredColumn":"2013-09-21T00:00:00Z"}
7 2013-10-03 {"candidateRefNumber":"7","lovCode":546,"sessionTitle":"2013J","trainingPathCode":"AAA","firstAccessDate":"2013-09-21","lastAccessDate":"2013-10-03","trackingStatus":"incomplete","ignoredColumn":"2013-10-03T00:00:00Z"}
`), "\n")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestTheModelByHand(t *testing.T) {
	d, catalog := hand(t), t.TempDir()
	if err := d.WriteCatalog(catalog); err != nil {
		t.Fatal(err)
	}
	m, err := oulad.LoadModel(catalog)
	if err != nil {
		t.Fatal(err)
	}
	var rejected []string
	var offset int64
	for row, err := range d.Rows() {
		if err != nil {
			t.Fatal(err)
		}
		outcome, err := m.Apply(3, offset, row.EventTime, row.Value)
		if err != nil {
			t.Fatal(err)
		}
		rejected = append(rejected, outcome.Messages...)
		offset++
	}
	day := func(s string) (at time.Time) { at, _ = time.Parse(time.DateOnly, s); return }
	points := func(f float64) *float64 { return &f }
	want := map[oulad.Key]oulad.Tracked{
		{RefNumber: "7", LovCode: "1752", SessionGUID: "AAA-2013J"}: {Status: "passed", Score: points(78), ScoreMax: 100, Last: day("2013-10-19"),
			Completion: day("2013-10-19"), FilledIn: true, EventAt: day("2013-10-19"), SourcePartition: 3, SourceOffset: 0},
		{RefNumber: "7", LovCode: "1753", SessionGUID: "AAA-2014B"}: {Status: "incomplete", ScoreMax: 100, Last: day("2014-01-31"),
			EventAt: day("2014-01-31"), SourcePartition: 3, SourceOffset: 1},
		{RefNumber: "8", LovCode: "1753", SessionGUID: "AAA-2014B"}: {Status: "failed", Score: points(39), ScoreMax: 100, Last: day("2014-03-01"),
			EventAt: day("2014-03-01"), SourcePartition: 3, SourceOffset: 3},
		{RefNumber: "7", LovCode: "546", SessionGUID: "AAA-2013J"}: {Status: "incomplete", ScoreMax: 100, First: day("2013-09-21"), Last: day("2013-10-03"),
			EventAt: day("2013-10-03"), SourcePartition: 3, SourceOffset: 7},
	}
	if diff := cmp.Diff(want, m.Tracking); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"No registration found for given parameters."}, rejected); diff != "" { // student 9
		t.Error(diff)
	}
	if got := *m.Partitions[3]; got != (oulad.Counters{Accepted: 7, Rejected: 1}) {
		t.Errorf("partition 3: %+v", got)
	}
}

func TestTheSampleHoldsEveryOutcome(t *testing.T) {
	dir, catalog := t.TempDir(), t.TempDir()
	if err := oulad.WriteSample(dir, 1, 500); err != nil {
		t.Fatal(err)
	}
	d := open(t, dir)
	if err := d.WriteCatalog(catalog); err != nil {
		t.Fatal(err)
	}
	m, err := oulad.LoadModel(catalog)
	if err != nil {
		t.Fatal(err)
	}
	count := map[string]int{}
	for row, err := range d.Rows() {
		if err != nil {
			t.Fatal(err)
		}
		outcome, err := m.Apply(0, 0, row.EventTime, row.Value)
		if err != nil {
			t.Fatal(err)
		}
		count[outcome.Row.Status]++
		for _, message := range outcome.Messages {
			count[strings.Fields(message)[0]]++
		}
	}
	for _, what := range []string{"passed", "failed", "incomplete", "No", "Learning"} {
		if count[what] == 0 {
			t.Errorf("no row of kind %s: %v", what, count)
		}
	}
}

// The real thing, where it is at hand.
func TestTheRealDataset(t *testing.T) {
	dir := os.Getenv(oulad.Env)
	if dir == "" {
		t.Skip(oulad.Env + " is not set")
	}
	lines := 0
	for _, file := range []string{"studentAssessment.csv", "studentVle.csv"} {
		f, err := os.Open(filepath.Join(dir, file))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for r := csv.NewReader(f); ; lines++ {
			if _, err := r.Read(); err != nil {
				break
			}
		}
		lines-- // the header
	}
	rows := 0
	for _, err := range open(t, dir).Rows() {
		if err != nil {
			t.Fatal(err)
		}
		rows++
	}
	if rows != lines {
		t.Errorf("%d rows of %d lines", rows, lines)
	}
	t.Logf("%d rows", rows)
}

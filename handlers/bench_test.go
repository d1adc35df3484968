package handlers_test

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"learnsink/handlers"
)

// benchRows is how many rows the benchmarks take down the road at once, as the consumer does with a batch.
const benchRows = 1000

// benchCatalogue holds what the rows of benchKinds refer to.
func benchCatalogue() *handlers.Catalogue {
	c := handlers.NewCatalogue()
	c.AddTraining(7, "9f0c6a52-0c37-4f0a-9d1e-000000000007", "SAFETY-2024")
	for s := range int64(10) {
		c.AddSession(100+s, 7, fmt.Sprintf("5E55-10A0-42b1-8c7e-%012d", s), fmt.Sprint("Safety at work, week ", s))
	}
	for l := range 500 {
		login := fmt.Sprintf("firstname.lastname%04d", l)
		c.AddLearner(login, fmt.Sprint("E-", l), login+"@example.net", handlers.Opt[time.Time]{})
		c.Register(handlers.LearnerRef{Login: login}, 100+int64(l%10))
	}
	for o := range 50 {
		c.AddLearningObject(fmt.Sprintf("10B1EC70-51c1-4a0e-b6f2-%012d", o), fmt.Sprint("FIRE-", o), handlers.Customer)
	}
	c.AddTeacher("dr.haas")
	c.Prepare()
	return c
}

var benchKinds = []struct {
	name   string
	action handlers.Action
	value  func(i int) string
}{
	{"tracking", handlers.Tracking, func(i int) string {
		return fmt.Sprintf(`{"candidateLogin":"Firstname.Lastname%04d","candidateEmail":"firstname.lastname%04[1]d@example.net","lovGuid":"10B1EC70-51c1-4a0e-b6f2-%012d",`+
			`"sessionGuid":"5E55-10A0-42b1-8c7e-%012d","firstAccessDate":"2024-06-03 08:15:00","lastAccessDate":"2024-06-04 10:%02d:59","progression":%d,`+
			`"trackingStatus":"%s","timeSpent":%d,"score":%d.5,"scoreMax":20}`,
			i%500, i%50, i%10, i%60, i%101, []string{"completed", "incomplete", "passed", "failed"}[i%4], 60*i, i%20)
	}},
	{"rejected", handlers.Tracking, func(i int) string {
		return fmt.Sprintf(`{"candidateLogin":"nobody%04d","candidateEmail":"firstname.lastname%04[1]d@example.net","lovGuid":"10B1EC70-51c1-4a0e-b6f2-%012d",`+
			`"sessionGuid":"5E55-10A0-42b1-8c7e-%012d","firstAccessDate":"2024-06-03 08:15:00","lastAccessDate":"04.06.2024 10:%02d","progression":%d,`+
			`"trackingStatus":"completed","timeSpent":%d,"score":"%d,5","scoreMax":20}`,
			i%500, i%50, i%10, i%60, i%101, 60*i, i%20)
	}},
	{"intervention", handlers.Intervention, func(i int) string {
		return fmt.Sprintf(`{"interventionGuid":"1A7E54E0-10A0-42b1-8c7e-%012d","trainingPathCode":"SAFETY-2024","sessionTitle":"Safety at work, week %d",`+
			`"interventionDate":"2024-06-03T08:%02d:00+02:00","interventionDuration":%d,"roomGuid":"4006-10A0-%04d","roomLabel":"Room \"%[5]d\" – first floor","roomCapacity":"30",`+
			`"teacherLogin":"Dr.Haas","interventionStatus":"A"}`,
			i, i%10, i%60, 1+i%8, i%30)
	}},
}

// BenchmarkRow takes rows of each kind down the road, stage by stage.
func BenchmarkRow(b *testing.B) {
	catalogue := benchCatalogue()
	for _, kind := range benchKinds {
		rules := compile(b, kind.action)
		records := make([]handlers.Record, benchRows)
		for i := range records {
			records[i] = handlers.Record{Topic: "learning.tracking", Partition: 2, Offset: 1_000_000 + int64(i), Timestamp: noon.Add(time.Duration(i) * 77 * time.Millisecond),
				Key: fmt.Append(nil, "firstname.lastname", i%500), Value: []byte(kind.value(i))}
		}
		src := source(rules)

		rows := make([]handlers.Row, benchRows)
		decode := func() {
			decoder := rules.Decoder()
			for i := range records {
				decoder.Decode(&rows[i], &records[i], handlers.EventTime(&records[i], false, noon))
			}
		}
		refs := handlers.NewReferences()
		refer := func() {
			refs = handlers.NewReferences()
			for i := range rows {
				rows[i].Refer(refs)
			}
		}
		var facts *handlers.Facts
		var decisions []handlers.Decision
		decide := func() { decisions = rules.DecideAll(rows, facts) }
		output := func() {
			outputs := handlers.NewOutputs(src, noon)
			for i := range decisions {
				outputs.Of(&decisions[i])
			}
		}
		absent := func() { rules.Absent(rows) }

		decode()
		refer()
		facts = catalogue.Facts(refs)
		decide()
		output()
		for i := range decisions {
			if want := kind.name == "rejected"; (decisions[i].Verdict == handlers.Rejected) != want {
				b.Fatalf("%s: %+v of %s", kind.name, decisions[i].Errors, records[i].Value)
			}
		}
		for _, stage := range []struct {
			name string
			run  func()
		}{
			{"decode", decode}, {"refer", refer}, {"decide", decide}, {"output", output}, {"absent", absent},
			{"all", func() { decode(); refer(); decide(); output(); absent() }},
		} {
			b.Run(kind.name+"/"+stage.name, func(b *testing.B) {
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				for b.Loop() {
					stage.run()
				}
				runtime.ReadMemStats(&after)
				n := float64(b.N) * benchRows
				b.ReportMetric(float64(b.Elapsed())/n, "ns/row")
				b.ReportMetric(float64(after.Mallocs-before.Mallocs)/n, "allocs/row")
				b.ReportMetric(float64(after.TotalAlloc-before.TotalAlloc)/n, "B/row")
				b.ReportMetric(0, "ns/op")
			})
		}
	}
}

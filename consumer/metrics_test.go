package consumer

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"learnsink/handlers"
)

func TestAbsencesAreCountedByColumn(t *testing.T) {
	rules, err := handlers.Compile(handlers.Intervention, nil)
	if err != nil {
		t.Fatal(err)
	}
	reg := prometheus.NewRegistry()
	m := NewMetrics(reg)
	var rows []handlers.Row
	for _, value := range []string{`{"roomGuid":"r","roomLabel":" "}`, `{"roomGuid":"r","roomLabel":"Atrium"}`, `no row`} {
		rows = append(rows, rules.Decode(&handlers.Record{Value: []byte(value)}, handlers.Record{}.Timestamp))
	}
	m.absences("intervention", rows)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		if f.GetName() == "learnsink_absent_columns_total" {
			for _, metric := range f.Metric {
				for _, label := range metric.Label {
					if label.GetName() == "column" {
						got[label.GetValue()] = metric.Counter.GetValue()
					}
				}
			}
		}
	}
	if got["roomGuid"] != 0 || got["roomLabel"] != 1 || got["teacherLogin"] != 2 || got["ignoredColumn"] != 0 || len(got) != 11 {
		t.Errorf("counted %v", got)
	}
}

// Package deploy_test holds what operators are given against the program.
package deploy_test

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"go.yaml.in/yaml/v3"

	"learnsink/consumer"
)

// learnsink runs the program and returns what it prints.
func learnsink(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.Command("go", append([]string{"run", "../cmd/learnsink"}, args...)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("learnsink %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func TestExampleConfiguration(t *testing.T) {
	t.Run("has no fault", func(t *testing.T) {
		learnsink(t, "config", "check", "-c", "learnsink.example.yaml")
	})
	t.Run("says the defaults", func(t *testing.T) {
		// linger apart from nothing: the example writes out what is in force without it.
		t.Setenv("DATABASE_URL", "postgres://learnsink@localhost/learnsink")
		if with, without := learnsink(t, "config", "print", "-c", "learnsink.example.yaml"), learnsink(t, "config", "print"); effective(t, with) != effective(t, without) {
			t.Errorf("the example changes something:\n%s\nwithout it:\n%s", with, without)
		}
	})
}

// effective is a printed configuration without its sources, whose settings the
// example spells out.
func effective(t *testing.T, printed string) string {
	t.Helper()
	var c map[string]any
	if err := yaml.Unmarshal([]byte(printed), &c); err != nil {
		t.Fatal(err)
	}
	delete(c, "sources")
	text, err := yaml.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// The example of the vendor's import configuration reads the file beside it:
// two rows are as they should be, and two are not.
func TestExampleImport(t *testing.T) {
	cmd := exec.Command("go", "run", "../cmd/learnsink", "check", "--action", "tracking", "--catalog", "example/catalog", "--import-config", "example/import.xml", "example/tracking.csv")
	out, _ := cmd.CombinedOutput() // the exit code is that of go run
	for verdict, want := range map[string]int{`"verdict":"accepted"`: 2, `"verdict":"rejected"`: 2, "datetime_mismatch": 1, "lo_provided_by_crossknowledge": 1, `"lastAccessDate":"2024-06-04T08:00:00Z"`: 1, `"scoreMax":20`: 2, "Martin": 0} {
		if n := strings.Count(string(out), verdict); n != want {
			t.Errorf("%s: %d times, want %d\n%s", verdict, n, want, out)
		}
	}
}

// describing is a Registerer that notes what it is given.
type describing struct{ names map[string]bool }

func (d describing) Register(c prometheus.Collector) error {
	descs := make(chan *prometheus.Desc, 100)
	c.Describe(descs)
	close(descs)
	name := regexp.MustCompile(`fqName: "([^"]+)"`)
	for desc := range descs {
		d.names[name.FindStringSubmatch(desc.String())[1]] = true
	}
	return nil
}

func (d describing) MustRegister(cs ...prometheus.Collector) {
	for _, c := range cs {
		_ = d.Register(c)
	}
}

func (describing) Unregister(prometheus.Collector) bool { return false }

func TestAlertsAskForMetricsThatExist(t *testing.T) {
	there := describing{map[string]bool{}}
	consumer.NewMetrics(there)
	consumer.NewCatalogueMetrics(there)
	collector, err := os.ReadFile("../cmd/learnsink/web.go") // what is asked of the database, by the main package
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`desc\("([a-z_]+)"`).FindAllSubmatch(collector, -1) {
		there.names["learnsink_"+string(m[1])] = true
	}
	for _, file := range []string{"alerts.yaml", "RUNBOOK.md"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		asked := regexp.MustCompile(`learnsink_[a-z_]+`).FindAllString(string(text), -1)
		if len(asked) == 0 {
			t.Errorf("%s names no metric", file)
		}
		for _, name := range asked {
			if !there.names[name] {
				t.Errorf("%s names %s, which learnsink does not have", file, name)
			}
		}
	}
	var alerts struct {
		Groups []struct {
			Rules []struct {
				Alert, Expr string
				Annotations map[string]string
			}
		}
	}
	text, _ := os.ReadFile("alerts.yaml")
	if err := yaml.Unmarshal(text, &alerts); err != nil {
		t.Fatal(err)
	}
	runbook, _ := os.ReadFile("RUNBOOK.md")
	for _, r := range alerts.Groups[0].Rules {
		_, section, _ := strings.Cut(r.Annotations["runbook"], ", ")
		if !strings.Contains(string(runbook), "\n## "+section+"\n") {
			t.Errorf("alert %s points to %q, which the runbook does not have", r.Alert, section)
		}
	}
}

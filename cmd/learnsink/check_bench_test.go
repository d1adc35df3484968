package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// BenchmarkCheckRows is `check` of a file of LEARNSINK_BENCH_ROWS (100,000) tracking rows, as
// the verb does it: the file and a catalogue of 20,000 learners read from
// disk, the verdicts written to one. Every twentieth row is rejected, in one
// of four ways; once all of them are.
func BenchmarkCheckRows(b *testing.B) {
	const learners = 20_000
	n := 100_000
	if asked, err := strconv.Atoi(os.Getenv("LEARNSINK_BENCH_ROWS")); err == nil {
		n = asked
	}
	dir := b.TempDir()
	write := func(name string, lines func(w io.Writer)) string {
		b.Helper()
		path := filepath.Join(dir, name)
		file, err := os.Create(path)
		if err != nil {
			b.Fatal(err)
		}
		w := bufio.NewWriterSize(file, 1<<20)
		lines(w)
		if err := errors.Join(w.Flush(), file.Close()); err != nil {
			b.Fatal(err)
		}
		return path
	}
	catalog := filepath.Join(dir, "catalog")
	if err := os.Mkdir(catalog, 0o755); err != nil {
		b.Fatal(err)
	}
	write("catalog/learners.csv", func(w io.Writer) {
		fmt.Fprintln(w, "login,refNumber")
		for i := range learners {
			fmt.Fprintf(w, "anna.almeida.%d,%d\n", i, 50_000+i)
		}
	})
	write("catalog/registrations.csv", func(w io.Writer) {
		fmt.Fprintln(w, "learnerLogin,sessionGuid")
		for i := range learners {
			fmt.Fprintf(w, "anna.almeida.%d,se-%d\n", i, i%10)
		}
	})
	write("catalog/trainings.csv", func(w io.Writer) { fmt.Fprint(w, "id,pathCode\n1,SAFE\n") })
	write("catalog/sessions.csv", func(w io.Writer) {
		fmt.Fprintln(w, "id,guid,trainingId")
		for i := range 10 {
			fmt.Fprintf(w, "%d,se-%d,1\n", 100+i, i)
		}
	})
	write("catalog/learning_objects.csv", func(w io.Writer) { fmt.Fprint(w, "guid,code\nlo-1,FIRE-1\n") })
	config := write("import.xml", func(w io.Writer) {
		fmt.Fprint(w, `<import-config><columnsMapping><candidateLogin/><ignoredColumn/><lovCode/><sessionGuid/><trackingStatus/><progression/><score/><timeSpent/><firstAccessDate/><lastAccessDate/></columnsMapping></import-config>`)
	})

	// row gives the cells of row i; a bad one says what nothing fits.
	row := func(i int, bad bool) (login, code, session, score, last string) {
		learner := i * 7919 % learners
		login, code, session, score, last = fmt.Sprintf("anna.almeida.%d", learner), "FIRE-1", fmt.Sprintf("se-%d", learner%10), "17.5", "2025-04-02 17:45:30"
		if bad {
			switch i / 20 % 4 {
			case 0:
				login = "nobody.of.that.name"
			case 1:
				code = fmt.Sprintf("LO-%d", i)
			case 2:
				score = "17,5"
			case 3:
				last = "yesterday"
			}
		}
		return
	}
	jsonl := func(share int) func(io.Writer) {
		return func(w io.Writer) {
			for i := range n {
				login, code, session, score, last := row(i, i%share == 0)
				fmt.Fprintf(w, `{"candidateLogin":"%s","lovCode":"%s","sessionGuid":"%s","trackingStatus":"completed","progression":"%d","score":"%s","timeSpent":%d,"firstAccessDate":"2025-03-01 08:15:00","lastAccessDate":"%s"}`+"\n",
					login, code, session, i%101, score, i%36_000, last)
			}
		}
	}
	few := write("few.jsonl", jsonl(20))
	all := write("all.jsonl", jsonl(1))
	csv := write("few.csv", func(w io.Writer) {
		fmt.Fprintln(w, "login;name;code;session;status;progress;score;seconds;first;last")
		for i := range n {
			login, code, session, score, last := row(i, i%20 == 0)
			fmt.Fprintf(w, "%s;\"Almeida; Anna\";%s;%s;completed;%d;%s;%d;2025-03-01 08:15:00;%s\n", login, code, session, i%101, score, i%36_000, last)
		}
	})
	for _, c := range []struct {
		name     string
		rejected int
		args     []string
	}{
		{"jsonl", n / 20, []string{few}},
		{"jsonl/summary-only", n / 20, []string{"--summary-only", few}},
		{"jsonl/all-rejected", n, []string{all}},
		{"csv/import-config", n / 20, []string{"--import-config", config, csv}},
	} {
		b.Run(c.name, func(b *testing.B) {
			before := cpu(b)
			for b.Loop() {
				out, err := os.Create(filepath.Join(dir, "verdicts"))
				if err != nil {
					b.Fatal(err)
				}
				var stderr strings.Builder
				args := append([]string{"check", "--action", "tracking", "--catalog", catalog}, c.args...)
				if exit := run(b.Context(), args, nil, out, &stderr); exit != exitFault {
					b.Fatalf("exit %d: %s", exit, &stderr)
				}
				if err := out.Close(); err != nil {
					b.Fatal(err)
				}
				text, err := os.ReadFile(out.Name())
				if err != nil {
					b.Fatal(err)
				}
				if sum := fmt.Sprintf("%d rows, %d rejected:\n", n, c.rejected); !strings.Contains(stderr.String()+string(text[:min(len(text), 100)]), sum) {
					b.Fatalf("%s", &stderr)
				}
				if lines := bytes.Count(text, []byte("\n")); lines != n && c.name != "jsonl/summary-only" {
					b.Fatalf("%d verdicts", lines)
				}
			}
			b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
			b.ReportMetric((cpu(b)-before).Seconds()/float64(b.N), "cpu-s/op")
		})
	}
}

// cpu is the processor's time that this process has had: it says more than the
// clock where others work on the machine.
func cpu(b *testing.B) time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

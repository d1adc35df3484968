package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"learnsink/test/kafkatest"
	"learnsink/test/pgtest"
)

// walk is where README tells how one gets from the alarm to mended: a
// transcript, commands behind $ and what they print.
var walk = regexp.MustCompile("(?s)### From the alarm to mended\n.*?```\n(.*?)```")

// TestREADMEWalk types what README types, and holds what it prints against
// what README shows, but for times and the width of columns.
func TestREADMEWalk(t *testing.T) {
	readme, err := os.ReadFile(filepath.Join("..", "..", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	found := walk.FindSubmatch(readme)
	if found == nil {
		t.Fatal("README has no walk")
	}
	t.Setenv("KAFKA_BROKERS", strings.Join(kafkatest.New(t).Brokers, ","))
	t.Setenv("DATABASE_URL", pgtest.New(t))
	t.Setenv("LEARNSINK_CONFIG", "")
	t.Chdir(t.TempDir())
	theNightBefore(t)

	ctx, stop := context.WithCancel(t.Context())
	done := make(chan int)
	go func() {
		done <- run(ctx, []string{"serve", "--http", "off"}, strings.NewReader(""), io.Discard, t.Output())
	}()
	defer func() { stop(); <-done }()

	commands := strings.Split(string(found[1]), "$ learnsink ")
	if len(commands) < 8 || commands[0] != "" {
		t.Fatalf("the walk has %d commands, and begins with %q", len(commands)-1, commands[0])
	}
	for _, c := range commands[1:] {
		typed, shown, _ := strings.Cut(c, "\n")
		var stdout, stderr strings.Builder
		run(t.Context(), taken(typed), strings.NewReader(""), &stdout, &stderr)
		if diff := cmp.Diff(asShown(shown), asShown(stdout.String())); diff != "" {
			t.Errorf("learnsink %s: -README +now\n%s\nin full:\n%s%s", typed, diff, &stdout, &stderr)
		}
	}
}

// theNightBefore is what the walk finds: 40 learners of a session whose
// registrations have not come, and three rows of a sender that misspells a code.
func theNightBefore(t *testing.T) {
	t.Helper()
	must := func(args ...string) {
		t.Helper()
		var stderr strings.Builder
		if got := run(t.Context(), args, strings.NewReader(""), io.Discard, &stderr); got != exitDone {
			t.Fatalf("learnsink %s: exit %d\n%s", strings.Join(args, " "), got, &stderr)
		}
	}
	write := func(path, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var learners, registrations, rows strings.Builder
	learners.WriteString("login\nines.lopez\n")
	registrations.WriteString("learnerLogin,sessionGuid\n")
	for i := range 40 {
		fmt.Fprintf(&learners, "l%02d\n", i)
		fmt.Fprintf(&registrations, "l%02d,se-12\n", i)
		fmt.Fprintf(&rows, `{"candidateLogin":"l%02d","lovCode":"FIRE-1","sessionGuid":"se-12","progression":%d}`+"\n", i, i)
	}
	for _, guid := range []string{"se-11", "se-13", "se-14"} {
		fmt.Fprintf(&rows, `{"candidateLogin":"ines.lopez","lovCode":"FIRE1","sessionGuid":"%s","trackingStatus":"completed"}`+"\n", guid)
	}
	write("catalog/learners.csv", learners.String())
	write("catalog/learning_objects.csv", "guid,code,title\nlo-1,FIRE-1,Fire drill\n")
	write("catalog/trainings.csv", "id,guid,pathCode,title\n1,tr-1,SAFE,Safety\n")
	write("catalog/sessions.csv", "id,guid,title,trainingId\n11,se-11,May,1\n12,se-12,June,1\n13,se-13,July,1\n14,se-14,August,1\n")
	write("catalog/registrations.csv", "learnerLogin,sessionGuid\nines.lopez,se-11\nines.lopez,se-13\nines.lopez,se-14\n")
	write("tonight/registrations.csv", registrations.String())
	write("rows.jsonl", rows.String())
	write("newer.jsonl", `{"candidateLogin":"ines.lopez","lovCode":"FIRE-1","sessionGuid":"se-14","trackingStatus":"passed","score":90}`+"\n")
	must("topics", "create", "--partitions", "1", "--replication", "1")
	must("catalog", "load", "catalog")
	must("send", "--action", "tracking", "rows.jsonl")
	must("send", "--action", "tracking", "newer.jsonl")
	must("serve", "--drain")
}

var (
	aTime = regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z`)
	// How many transactions a job takes is a matter of time.
	skipped = regexp.MustCompile(`\d+ skipped`)
	blanks  = regexp.MustCompile(`[ \t]+`)
)

// asShown is what was printed without times, markers and the width of columns.
func asShown(text string) []string {
	text = blanks.ReplaceAllString(skipped.ReplaceAllString(aTime.ReplaceAllString(text, "TIME"), "SKIPPED"), " ")
	return strings.Split(strings.TrimSpace(text), "\n")
}

// taken takes a command line apart: at blanks, but within single quotes.
func taken(line string) (args []string) {
	for i, part := range strings.Split(line, "'") {
		if i%2 == 1 {
			args = append(args, part)
		} else {
			args = append(args, strings.Fields(part)...)
		}
	}
	return args
}

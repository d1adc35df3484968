package main

import (
	"bufio"
	"fmt"
	"os"
	"regexp"
	"strings"
)

// logs is what the processes' logs say.
type logs struct {
	lines, fenced int
	lost          int      // positions that their owner found elsewhere than it had left them
	private       []string // lines with personal data
	crashes       []string // panics and data races
}

// private is what no log line may hold, in lower case: logins, addresses and
// reference numbers of the catalogue, and what rows say.
var private = []string{"zoe.l", "zo\u00e9.l", `zo\u00e9.l`, "mail.example", "dr.haas", "ann.late", "ann.wait", "nobody.keyed", "no.session", "a.second.", "saal ", `"iv-`, "room-of-", "candidatelogin\\\":", "candidatelogin\":"}

// A reference number is a number like others: it tells by what stands before it.
var refNumber = regexp.MustCompile(`(?i)ref_?number[^0-9a-z]{1,6}500[0-3][0-9]\b`)

// readLogs looks through the logs of all processes.
func readLogs(files []string) (*logs, error) {
	l := &logs{}
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		lines := bufio.NewScanner(f)
		lines.Buffer(nil, 64<<20)
		for lines.Scan() {
			l.take(lines.Text())
		}
		_ = f.Close()
		if err := lines.Err(); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return l, nil
}

func (l *logs) take(line string) {
	l.lines++
	if strings.Contains(line, "another owner has claimed") || strings.Contains(line, "fenced") {
		l.fenced++
	}
	if strings.Contains(line, "the position is not where it was left") {
		l.lost++
	}
	if strings.HasPrefix(line, "panic:") || strings.HasPrefix(line, "fatal error:") || strings.Contains(line, "DATA RACE") {
		l.crashes = append(l.crashes, line)
	}
	low := strings.ToLower(line)
	for _, p := range private {
		if strings.Contains(low, p) {
			l.private = append(l.private, line)
			return
		}
	}
	if refNumber.MatchString(line) {
		l.private = append(l.private, line)
	}
}

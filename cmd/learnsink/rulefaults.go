package main

import (
	"regexp"
	"strings"
)

var ruleLine = regexp.MustCompile(`^line (\d+): `)

// ruleFaults places the faults of a file of settings: every line of the error
// that begins with one.
func ruleFaults(path string, err error) (faults configError) {
	for line := range strings.SplitSeq(err.Error(), "\n") {
		place, what := path, line
		if m := ruleLine.FindStringSubmatch(line); m != nil {
			place, what = path+":"+m[1], line[len(m[0]):]
		}
		faults = append(faults, fault{place, what})
	}
	return faults
}

package main

import "testing"

func TestPersonalDataIsTold(t *testing.T) {
	for line, want := range map[string]bool{
		`{"level":"info","topic":"chaos.tracking","partition":3,"from":50012,"to":50039,"message":"batch"}`: false,
		`{"error":"learner ZOÉ.L12 is not found"}`:                                                          true,
		`{"error":"zo\u00e9.l1"}`:                       true,
		`{"error":"no account of ZOE.L7@MAIL.EXAMPLE"}`: true,
		`{"error":"candidateRefNumber \"50012\""}`:      true,
		`{"error":"{\"candidateLogin\":\"x\"}"}`:        true,
		`{"transaction":"chaos.chaos.tracking.1"}`:      false,
	} {
		l := &logs{}
		l.take(line)
		if (len(l.private) == 1) != want {
			t.Errorf("%s: %v", line, !want)
		}
	}
	l := &logs{}
	l.take("WARNING: DATA RACE")
	l.take("panic: runtime error")
	l.take(`{"message":"another owner has claimed the partition: given up for now"}`)
	l.take(`{"message":"the position is not where it was left: the partition is claimed again"}`)
	if len(l.crashes) != 2 || l.fenced != 1 || l.lost != 1 || l.lines != 4 {
		t.Errorf("%+v", l)
	}
}

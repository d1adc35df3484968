package main

import (
	"testing"

	"learnsink/test/oracle"
)

// Rows of one key are in one partition, whatever is added: their order is
// then that of the log. Rows that are rejected may be anywhere.
func TestAKeyNeverMoves(t *testing.T) {
	s, err := newSender(t.Context(), "127.0.0.1:1", 3, 100, map[string]int32{tracking: 6, intervention: 3, lost: 2}, nil)
	if err != nil {
		t.Fatal(err)
	}
	home, in := map[string]int32{}, map[partition]int{}
	for round := range int32(5) {
		for _, r := range s.records(3000) {
			in[partition{r.Topic, r.Partition}]++
			rec, known := s.story.Records[oracle.HeaderOf(r, oracle.Header)]
			if !known {
				t.Fatal("a record that is not in the story")
			}
			if rec.Errors != nil {
				continue
			}
			of := -1
			if rec.Tracking != nil {
				of = learnerOf(r.Key)
			}
			if (r.Topic == lost) != (of >= firstApart) {
				t.Fatalf("a row of %q is in %s", r.Key, r.Topic)
			}
			key := r.Topic + string(r.Key)
			if before, there := home[key]; there && before != r.Partition {
				t.Fatalf("%q was in partition %d, and is in %d", key, before, r.Partition)
			}
			home[key] = r.Partition
		}
		s.grown(tracking, 7+round)
		s.grown(intervention, 4+round)
	}
	for _, p := range []partition{{tracking, 5}, {tracking, 6}, {tracking, 9}, {intervention, 2}, {intervention, 3}, {intervention, 6}, {lost, 0}, {lost, 1}} {
		if in[p] == 0 {
			t.Errorf("nothing is sent to %s", p)
		}
	}
}

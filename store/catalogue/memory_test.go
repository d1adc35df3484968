package catalogue_test

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"learnsink/handlers"
	"learnsink/store/catalogue"
)

func TestLoadMemory(t *testing.T) {
	folder, err := catalogue.Open(write(t, map[string]string{
		"learners.csv":      "login,refNumber,email,createdAt\nyoung,E-1,Same@example.net,2020-01-01\nold,E-1,same@example.net,2019-01-01\n",
		"trainings.csv":     "id,guid\n1,tr-1\n",
		"sessions.csv":      "id,guid,title,trainingId\n12,SE-1,Later,1\n11,se-1,June,1\n13,se-3,,2\n",
		"teachers.csv":      "login\nDr.Haas\n,\n",
		"registrations.csv": "learnerLogin,learnerEmail,sessionGuid,sessionId\n,SAME@example.net,Se-1,\nyoung,,,12\nyoung,,se-1,13\nnobody,,se-9,\nold,same@example.net,se-1,12\n",
	}))
	if err != nil {
		t.Fatal(err)
	}
	c, bad, err := catalogue.LoadMemory(folder)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, b := range bad {
		b.File = filepath.Base(b.File)
		got = append(got, b.String())
	}
	want := []string{
		"sessions.csv:4: there is no training with id 2",
		"registrations.csv:4: no session fits sessionGuid and sessionId",
		"registrations.csv:5: no session fits sessionGuid and sessionId; no learner fits learnerLogin, learnerRefNumber and learnerEmail",
		"teachers.csv:3: 2 cells, the header has 1",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}

	refs := handlers.NewReferences()
	old, young := handlers.LearnerRef{Login: "old"}, handlers.LearnerRef{Login: "young"}
	refs.Learners[old], refs.Learners[young] = struct{}{}, struct{}{}
	refs.Teachers["dr.haas"] = struct{}{}
	facts := c.Facts(refs)
	sessionsOf := func(ref handlers.LearnerRef) string {
		var ids []int64
		for _, r := range facts.Registrations[facts.Learners[ref]] {
			ids = append(ids, r.Session.ID)
		}
		return fmt.Sprint(ids)
	}
	if got := sessionsOf(old); got != "[11 12]" {
		t.Errorf("an e-mail of two means the oldest account, a guid of two the lowest id: old is in %s", got)
	}
	if got := sessionsOf(young); got != "[12]" {
		t.Errorf("young is in %s", got)
	}
	if facts.Teachers["dr.haas"] == 0 {
		t.Error("no teacher")
	}
}

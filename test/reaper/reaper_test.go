package reaper_test

import (
	"os/exec"
	"testing"
	"time"

	"learnsink/test/reaper"
)

func TestWhatRunsEndsWithUs(t *testing.T) {
	r, err := reaper.New()
	if err != nil {
		t.Fatal(err)
	}
	short, err := r.Run(exec.Command("true"))
	if err != nil {
		t.Fatal(err)
	}
	<-short
	long, err := r.Run(exec.Command("sleep", "600"))
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-long:
		t.Fatal("it has ended by itself")
	case <-time.After(50 * time.Millisecond):
	}
	r.Close()
	<-long
}

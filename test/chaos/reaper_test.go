package main

import (
	"os/exec"
	"testing"
	"time"
)

func TestWhatRunsEndsWithUs(t *testing.T) {
	r, err := newReaper()
	if err != nil {
		t.Fatal(err)
	}
	short, err := r.run(exec.Command("true"))
	if err != nil {
		t.Fatal(err)
	}
	<-short
	long, err := r.run(exec.Command("sleep", "600"))
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-long:
		t.Fatal("it has ended by itself")
	case <-time.After(50 * time.Millisecond):
	}
	r.close()
	<-long
}

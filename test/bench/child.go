package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// child is a process that is measured.
type child struct {
	cmd      *exec.Cmd
	ended    chan struct{}
	log      string
	memory   float64 // MB, at its peak
	profiled bool    // is writing one
}

// spawn starts the process: it outlives nobody. What it says goes into its
// log, unless its standard output goes elsewhere.
func (b *bench) spawn(c *child) error {
	log, err := os.Create(c.log)
	if err != nil {
		return err
	}
	defer log.Close()
	if c.cmd.Stdout == nil {
		c.cmd.Stdout = log
	}
	c.cmd.Stderr, c.cmd.SysProcAttr = log, &syscall.SysProcAttr{Setpgid: true}
	c.ended, err = b.reaper.Run(c.cmd)
	return err
}

// look notes what the process takes; that it has ended is an error where it ended badly.
func (c *child) look() error {
	c.remember()
	if c.over() {
		return c.outcome()
	}
	return nil
}

// over says whether the process has ended.
func (c *child) over() bool {
	select {
	case <-c.ended:
		return true
	default:
		return false
	}
}

// remember notes the most memory that the process has had.
func (c *child) remember() {
	if m := float64(peakMemory(c.cmd.Process.Pid)) / 1e6; m > 0 {
		c.memory = m
	}
}

func (c *child) outcome() error {
	if code := c.cmd.ProcessState.ExitCode(); code != 0 {
		text, _ := os.ReadFile(c.log)
		s := strings.TrimSpace(string(text))
		return fmt.Errorf("exit %d: %s", code, s[max(0, len(s)-3000):])
	}
	return nil
}

// wait waits until the process has ended by itself.
func (c *child) wait(ctx context.Context) error {
	timeout := time.NewTimer(time.Minute)
	defer timeout.Stop()
	for {
		select {
		case <-c.ended:
			return c.outcome()
		case <-time.After(20 * time.Millisecond):
			if err := c.look(); err != nil {
				return err
			}
		case <-timeout.C:
			return errors.New("it does not end, though everything is done")
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// cpu is what the process took, in seconds.
func (c *child) cpu() float64 {
	return (c.cmd.ProcessState.UserTime() + c.cmd.ProcessState.SystemTime()).Seconds()
}

func (c *child) kill() {
	if !c.over() {
		_ = c.cmd.Process.Kill() // it may be ending just now
		<-c.ended
	}
}

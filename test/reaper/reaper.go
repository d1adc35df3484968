// Package reaper runs processes that outlive nobody: servers and programs that
// a test starts end with it, however it ended.
package reaper

import (
	"fmt"
	"io"
	"os/exec"
	"sync"
	"syscall"
)

// Reaper kills what we have started when we are gone, however we ended: a
// shell reads the pids from a pipe that we hold, and its end is ours.
type Reaper struct {
	mu      sync.Mutex
	pipe    io.WriteCloser
	done    chan struct{}
	running sync.WaitGroup
}

const reap = `
while read -r sign pid; do
  case $sign in
    +) pids="$pids $pid" ;;
    -) left=; for p in $pids; do [ "$p" = "$pid" ] || left="$left $p"; done; pids=$left ;;
  esac
done
for p in $pids; do kill -9 "$p" 2>/dev/null; done
exit 0`

// New starts the shell that watches.
func New() (*Reaper, error) {
	cmd := exec.Command("/bin/sh", "-c", reap)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a Ctrl-C is for us
	pipe, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	r := &Reaper{pipe: pipe, done: make(chan struct{})}
	go func() {
		_ = cmd.Wait()
		close(r.done)
	}()
	return r, nil
}

// Run starts a process, which outlives us in no case. The channel is closed
// once it has ended.
func (r *Reaper) Run(cmd *exec.Cmd) (ended chan struct{}, err error) {
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	r.tell("+", cmd.Process.Pid)
	ended = make(chan struct{})
	r.running.Go(func() {
		_ = cmd.Wait() // how it ended stands in its ProcessState
		r.tell("-", cmd.Process.Pid)
		close(ended)
	})
	return ended, nil
}

func (r *Reaper) tell(sign string, pid int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, _ = fmt.Fprintln(r.pipe, sign, pid)
}

// Close kills what is still running, and waits for it.
func (r *Reaper) Close() {
	r.mu.Lock()
	_ = r.pipe.Close()
	r.mu.Unlock()
	<-r.done
	r.running.Wait()
}

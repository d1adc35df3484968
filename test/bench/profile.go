package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// profileVariable tells a profiled build where its profiles go.
const profileVariable = "LEARNSINK_BENCH_PROFILE"

// profiler is put into cmd/learnsink by `go build -overlay` for --profile, and
// stands in no other build: it notes where the CPU goes, from the start until
// it is told by a signal that nine tenths of the rows are applied.
const profiler = `package main

import (
	"os"
	"os/signal"
	"runtime"
	"runtime/pprof"
	"syscall"
)

func init() {
	prefix := os.Getenv("` + profileVariable + `")
	if prefix == "" {
		return
	}
	file, err := os.Create(prefix + ".cpu.prof")
	if err != nil {
		panic(err)
	}
	told := make(chan os.Signal, 1)
	signal.Notify(told, syscall.SIGUSR2)
	runtime.MemProfileRate = 64 << 10
	if err := pprof.StartCPUProfile(file); err != nil {
		panic(err)
	}
	go func() {
		<-told
		pprof.StopCPUProfile()
		file.Close()
		if file, err := os.Create(prefix + ".allocs.prof"); err == nil {
			pprof.Lookup("allocs").WriteTo(file, 0)
			file.Close()
		}
	}()
}
`

// profiled writes the overlay of a profiled build, and returns its name.
func (b *bench) profiled() (string, error) {
	out, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("go env GOMOD: %w", err)
	}
	if err := os.MkdirAll(b.profile, 0o755); err != nil {
		return "", err
	}
	source := filepath.Join(b.dir, "profiler.go")
	if err := os.WriteFile(source, []byte(profiler), 0o644); err != nil {
		return "", err
	}
	target := filepath.Join(filepath.Dir(strings.TrimSpace(string(out))), "cmd", "learnsink", "bench_profiler.go")
	text, err := json.Marshal(map[string]map[string]string{"Replace": {target: source}})
	if err != nil {
		return "", err
	}
	overlay := filepath.Join(b.dir, "overlay.json")
	return overlay, os.WriteFile(overlay, text, 0o644)
}

// enoughProfile ends the profile of a profiled process.
func (c *child) enoughProfile() {
	if c.profiled {
		c.profiled = false
		_ = c.cmd.Process.Signal(syscall.SIGUSR2)
	}
}

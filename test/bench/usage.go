package main

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// What processes took of the machine, by /proc; where there is none, zero.

// tick is the unit of the times in /proc: 100 a second on every Linux that Go runs on.
const tick = 10 * time.Millisecond

// stat is what /proc says of a process.
type stat struct {
	parent         int
	own, inherited time.Duration // CPU: its own, and its ended children's
}

func readStat(pid int) (s stat, ok bool) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return s, false
	}
	_, rest, _ := bytes.Cut(text, []byte(") ")) // its name may hold anything
	if i := bytes.LastIndex(text, []byte(") ")); i >= 0 {
		rest = text[i+2:]
	}
	f := strings.Fields(string(rest))
	if len(f) < 15 {
		return s, false
	}
	number := func(i int) int { n, _ := strconv.Atoi(f[i]); return n }
	s.parent = number(1)
	s.own = time.Duration(number(11)+number(12)) * tick
	s.inherited = time.Duration(number(13)+number(14)) * tick
	return s, true
}

// treeCPU is the CPU that a process and all that came from it have taken.
func treeCPU(root int) (sum time.Duration) {
	if root == 0 {
		return 0
	}
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	stats := map[int]stat{}
	for _, dir := range dirs {
		pid, _ := strconv.Atoi(filepath.Base(dir))
		if s, ok := readStat(pid); ok {
			stats[pid] = s
		}
	}
	for pid, s := range stats {
		for at := pid; at > 1; at = stats[at].parent {
			if at == root {
				sum += s.own + s.inherited
				break
			}
		}
	}
	return sum
}

// peakMemory is the most that a process has had resident, in bytes. The usage
// that its parent is told of starts with the parent's own, and is no good.
func peakMemory(pid int) int64 {
	file, err := os.Open(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if kib, ok := strings.CutPrefix(lines.Text(), "VmHWM:"); ok {
			n, _ := strconv.ParseInt(strings.Fields(kib)[0], 10, 64)
			return n << 10
		}
	}
	return 0
}

// listening returns the process that listens on a port of this machine; 0: none that can be seen.
func listening(address string) int {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return 0
	}
	n, _ := strconv.Atoi(port)
	inodes := map[string]bool{}
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		text, _ := os.ReadFile(table)
		for line := range strings.Lines(string(text)) {
			if f := strings.Fields(line); len(f) > 9 && f[3] == "0A" && strings.HasSuffix(f[1], fmt.Sprintf(":%04X", n)) {
				inodes["socket:["+f[9]+"]"] = true
			}
		}
	}
	found := 0
	files, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, file := range files {
		if target, err := os.Readlink(file); err == nil && inodes[target] {
			pid, _ := strconv.Atoi(strings.Split(file, "/")[2])
			if found == 0 || pid < found { // the parent, where children hold it too
				found = pid
			}
		}
	}
	return found
}

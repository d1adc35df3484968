package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// mutant is one way to break learnsink.
type mutant struct {
	name   string
	breaks string
	by     catcher // what has to notice
	edits  []edit
}

// edit replaces a text that stands in a file exactly once.
type edit struct{ file, old, new string }

// moduleRoot is the folder of go.mod.
func moduleRoot() (string, error) {
	out, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("go env GOMOD: %w", err)
	}
	mod := strings.TrimSpace(string(out))
	if filepath.Base(mod) != "go.mod" {
		return "", errors.New("not within learnsink's module")
	}
	return filepath.Dir(mod), nil
}

// files returns what the mutant makes of the files that it changes, by path
// from root.
func (m *mutant) files(root string) (map[string]string, error) {
	files := map[string]string{}
	for _, e := range m.edits {
		text, begun := files[e.file]
		if !begun {
			b, err := os.ReadFile(filepath.Join(root, e.file))
			if err != nil {
				return nil, err
			}
			text = string(b)
		}
		if n := strings.Count(text, e.old); n != 1 {
			return nil, fmt.Errorf("%s: this stands %d times in %s, and not once:\n%s", m.name, n, e.file, e.old)
		}
		files[e.file] = strings.Replace(text, e.old, e.new, 1)
	}
	return files, nil
}

// overlay writes the changed files and the list of them that `go build
// -overlay` reads into a folder, and returns the list's name.
func (m *mutant) overlay(root, dir string) (string, error) {
	files, err := m.files(root)
	if err != nil {
		return "", err
	}
	replace := map[string]string{}
	for file, text := range files {
		changed := filepath.Join(dir, strings.ReplaceAll(file, "/", "_"))
		if err := os.WriteFile(changed, []byte(text), 0o644); err != nil {
			return "", err
		}
		replace[filepath.Join(root, file)] = changed
	}
	list, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	name := filepath.Join(dir, "overlay.json")
	return name, os.WriteFile(name, list, 0o644)
}

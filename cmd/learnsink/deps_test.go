package main

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// The import rules of the house: what a room may know, and why.
func TestImportRules(t *testing.T) {
	for _, rule := range []struct {
		pkg    string
		never  []string // import paths, and everything below them
		reason string
	}{
		{"learnsink/handlers", []string{"learnsink/store", "learnsink/consumer", "net", "database/sql", "github.com", "golang.org", "go.yaml.in"},
			"the rules are pure: the same records, catalogue and settings give the same decisions, with the standard library alone"},
		{"learnsink/store", []string{"learnsink/consumer", "github.com/segmentio", "github.com/rs/zerolog"},
			"the store knows SQL and never Kafka; it returns errors and logs nothing"},
		{"learnsink/store/catalogue", []string{"github.com/jackc", "database/sql"},
			"the catalogue's files are read without a database, so that check needs none"},
		{"learnsink/consumer", []string{"learnsink/store", "github.com/jackc", "database/sql"},
			"the consumer declares what it needs of a store and never sees SQL: its tests break every effect in memory"},
		{"learnsink/cmd/learnsink", []string{"testing", "learnsink/test", "github.com/testcontainers", "github.com/twmb", "github.com/fergusstrange", "github.com/google/go-cmp", "github.com/rogpeppe"},
			"the production binary links no test code, no in-process broker and no private PostgreSQL"},
	} {
		for _, dep := range deps(t, rule.pkg) {
			for _, never := range rule.never {
				if dep == never || strings.HasPrefix(dep, never+"/") {
					t.Errorf("%s imports %s (go list -deps): %s", rule.pkg, dep, rule.reason)
				}
			}
		}
	}
}

// deps lists what a package imports, directly or not; the standard library's
// own inner packages are its own business.
func deps(t *testing.T, pkg string) []string {
	out, err := exec.Command("go", "list", "-deps", pkg).Output()
	if err != nil {
		t.Fatalf("go list -deps %s: %v", pkg, err)
	}
	list := strings.Fields(string(out))
	if !slices.Contains(list, pkg) {
		t.Fatalf("go list -deps %s lists %d packages without it", pkg, len(list))
	}
	return list
}

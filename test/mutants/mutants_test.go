package main

import (
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"testing"
)

// TestEveryMutantIsOne: its texts stand in today's source, each once, and what
// it makes of it compiles.
func TestEveryMutantIsOne(t *testing.T) {
	root, err := moduleRoot()
	if err != nil {
		t.Fatal(err)
	}
	compile := newCompiler(t, root)
	seen := map[string]bool{}
	for _, m := range mutants {
		t.Run(m.name, func(t *testing.T) {
			if seen[m.name] || m.breaks == "" || m.by.kind == "" || len(m.edits) == 0 {
				t.Error("it is not described, or there are two")
			}
			seen[m.name] = true
			files, err := m.files(root)
			if err != nil {
				t.Fatal(err)
			}
			if err := compile.check(files); err != nil {
				t.Errorf("it does not compile: %v", err)
			}
		})
	}
}

// compiler checks packages as the compiler does, in milliseconds: what they
// import has been compiled before, once for all mutants.
type compiler struct {
	root  string
	files map[string][]string // by package
	types types.Config
	set   *token.FileSet
}

func newCompiler(t *testing.T, root string) *compiler {
	exports, packages := map[string]string{}, map[string][]string{}
	dirs := map[string]bool{}
	for _, m := range mutants {
		for _, e := range m.edits {
			dirs["./"+path.Dir(e.file)] = true
		}
	}
	args := []string{"list", "-export", "-deps", "-f", "{{.ImportPath}}|{{.Export}}|{{join .GoFiles \",\"}}"}
	for dir := range dirs {
		args = append(args, dir)
	}
	cmd := exec.Command("go", args...)
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list -export: %v", err)
	}
	for line := range strings.Lines(string(out)) {
		f := strings.Split(strings.TrimSpace(line), "|")
		exports[f[0]] = f[1]
		if dir, ours := strings.CutPrefix(f[0], "learnsink/"); ours {
			packages[dir] = strings.Split(f[2], ",")
		}
	}
	set := token.NewFileSet()
	lookup := func(path string) (io.ReadCloser, error) { return os.Open(exports[path]) }
	return &compiler{root, packages, types.Config{Importer: importer.ForCompiler(set, "gc", lookup)}, set}
}

// check returns why the packages do not compile that the changed files belong to.
func (c *compiler) check(changed map[string]string) (err error) {
	packages := map[string]bool{}
	for file := range changed {
		packages[path.Dir(file)] = true
	}
	for dir := range packages {
		var parsed []*ast.File
		for _, name := range c.files[dir] {
			var text any // nil: what stands in the file
			if mutated, ok := changed[path.Join(dir, name)]; ok {
				text = mutated
			}
			f, err := parser.ParseFile(c.set, filepath.Join(c.root, dir, name), text, parser.SkipObjectResolution)
			if err != nil {
				return err
			}
			parsed = append(parsed, f)
		}
		if _, err := c.types.Check("learnsink/"+dir, c.set, parsed, nil); err != nil {
			return err
		}
	}
	return nil
}

func TestWhatDoesNotCompileIsNoMutant(t *testing.T) {
	root, err := moduleRoot()
	if err != nil {
		t.Fatal(err)
	}
	compile := newCompiler(t, root)
	for name, e := range map[string]edit{
		"an unused variable": {record, "	base := int64(binary.BigEndian.Uint64(b))\n", "	base, x := int64(binary.BigEndian.Uint64(b)), 0\n"},
		"another type":       {rows, "	return keys\n}", "	return len(keys)\n}"},
		"an unused import":   {rows, "import (\n", "import (\n	\"os\"\n"},
	} {
		files, err := (&mutant{edits: []edit{e}}).files(root)
		if err != nil {
			t.Fatal(err)
		}
		if compile.check(files) == nil {
			t.Errorf("%s compiles", name)
		}
	}
	if _, err := (&mutant{edits: []edit{{record, "package consumer\n", ""}, {record, "package consumer\n", ""}}}).files(root); err == nil {
		t.Error("a text that is not there: no error")
	}
}

func TestWhatATestSaidIsFound(t *testing.T) {
	for out, want := range map[string]string{
		"--- FAIL: TestX (0.00s)\n    x_test.go:7: seed 3: it is lost\n        repeat: so\n":       "seed 3: it is lost",
		"    --- FAIL: TestX/a (0.00s)\n        x_test.go:7: first\n        x_test.go:8: second\n": "first",
		"panic: index out of range\n\ngoroutine 1":                                                 "panic: index out of range",
		"--- FAIL: TestX (0.00s)\nFAIL\n":                                                          "it fails",
	} {
		if got := complaint(out); got != want {
			t.Errorf("%q, want %q, of:\n%s", got, want, out)
		}
	}
}

func TestWhatTheChaosSaidIsFound(t *testing.T) {
	for report, want := range map[string]string{
		"# Chaos: a promise was BROKEN\n\n## Broken\n\n- the fault \"x\" never came: give it more minutes\n- a zombie's write was accepted\n- more\n\n## Faults: 3\n\n- none": "a zombie's write was accepted",
		"# Chaos\n\n## Missed goals\n\n- throughput\n\n## Faults: 3\n":                                 "",
		"# Chaos\n\n## Broken\n\n- the fault \"x\" never came: give it more minutes\n\n## Faults: 3\n": "",
	} {
		if got, caught := brokenPromise(report); got != want || caught != (want != "") {
			t.Errorf("%q, %v, want %q", got, caught, want)
		}
	}
}

func TestACellIsOne(t *testing.T) {
	if got := cell("a | b\n  c" + strings.Repeat("d", 200)); strings.Contains(got, "\n") || !strings.HasPrefix(got, `a \| b cd`) || len([]rune(got)) != 160 {
		t.Error(got)
	}
}

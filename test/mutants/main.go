// Mutants breaks learnsink on purpose, one way at a time, and sees whether the
// simulation or the chaos notices: a test that cannot fail proves nothing.
//
//	go run ./test/mutants            # all of them, and none first
//	go run ./test/mutants NAME…      # some
//	go run ./test/mutants --list
//	go run ./test/mutants --by simulation
//
// It prints a table of Markdown: what was broken, what noticed, how soon, what
// it said. Exit 1 where a mutant survives, or what is whole is found broken;
// exit 2 where one could not be tried.
//
// No mutant stands in a package that is built: the table has the texts, and
// `go build -overlay` puts them in.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout)
	stop()
	os.Exit(code)
}

func run(ctx context.Context, args []string, out io.Writer) int {
	flags := flag.NewFlagSet("mutants", flag.ContinueOnError)
	list := flags.Bool("list", false, "only say what there is")
	by := flags.String("by", "", "only those that this is to catch: simulation, chaos or test")
	minutes := flags.Float64("minutes", 3, "how long the chaos goes on")
	seed := flags.Uint64("seed", 1, "the chaos's seed")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	root, err := moduleRoot()
	if err != nil {
		return fail(err)
	}
	chosen, err := choose(flags.Args(), *by)
	if err != nil {
		return fail(err)
	}
	if *list {
		fmt.Fprintln(out, "| mutant | what it breaks | caught by |\n|---|---|---|")
		for _, m := range chosen {
			fmt.Fprintf(out, "| %s | %s | %s |\n", m.name, m.breaks, m.by)
		}
		return 0
	}
	h := &hunt{root: root, minutes: *minutes, seed: *seed}
	if h.dir, err = os.MkdirTemp("", "learnsink-mutants-"); err != nil {
		return fail(err)
	}
	defer os.RemoveAll(h.dir)
	if len(flags.Args()) == 0 {
		chosen = append(controls(chosen), chosen...)
	}
	code := 0
	fmt.Fprintln(out, "| mutant | what it breaks | caught by | after | it said |\n|---|---|---|--:|---|")
	for _, m := range chosen {
		found, err := h.try(ctx, m)
		after, said := found.after.Round(100*time.Millisecond).String(), found.said
		switch {
		case ctx.Err() != nil:
			return fail(ctx.Err())
		case err != nil:
			code, after, said = 2, "", "COULD NOT BE TRIED: "+err.Error()
		case len(m.edits) == 0 && found.caught:
			code, said = max(code, 1), "BROKEN WITHOUT A MUTANT: "+said
		case len(m.edits) == 0:
			said = "nothing, as is right"
		case !found.caught:
			code, said = max(code, 1), "SURVIVED"
		}
		fmt.Fprintf(out, "| %s | %s | %s | %s | %s |\n", m.name, m.breaks, m.by, after, cell(said))
	}
	return code
}

// choose returns the mutants of these names, or all of them.
func choose(names []string, by string) (chosen []mutant, err error) {
	for _, m := range mutants {
		if (len(names) == 0 || slices.Contains(names, m.name)) && (by == "" || string(m.by.kind) == by) {
			chosen = append(chosen, m)
		}
	}
	for _, name := range names {
		if !slices.ContainsFunc(mutants, func(m mutant) bool { return m.name == name }) {
			err = errors.Join(err, fmt.Errorf("there is no mutant %q", name))
		}
	}
	return chosen, err
}

// controls are runs of what catches the chosen, with nothing to catch.
func controls(chosen []mutant) (runs []mutant) {
	for _, m := range chosen {
		if !slices.ContainsFunc(runs, func(c mutant) bool { return c.by == m.by }) {
			runs = append(runs, mutant{name: "none", breaks: "nothing", by: m.by})
		}
	}
	return runs
}

// cell makes a text fit for a table.
func cell(s string) string {
	s = strings.ReplaceAll(strings.Join(strings.Fields(s), " "), "|", `\|`)
	if r := []rune(s); len(r) > 160 {
		s = string(r[:159]) + "…"
	}
	return s
}

func fail(err error) int {
	fmt.Fprintln(os.Stderr, "mutants:", err)
	return 2
}

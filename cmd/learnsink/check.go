package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/spf13/cobra"

	"learnsink/handlers"
	"learnsink/store"
	"learnsink/store/catalogue"
)

// checkCommand is `check`: what would become of rows, writing nothing.
func (a *app) checkCommand() *cobra.Command {
	var file rowFile
	var action, catalog, rules, at, form string
	var quiet, summaryOnly bool
	cmd := &cobra.Command{
		Use:   "check --action ACTION [flags] [FILE]",
		Short: "judge rows and write nothing",
		Long: `check judges the rows of FILE (JSONL, or CSV by its ending; standard input where there is
none, or -) and prints a JSON line for each:

  {"line":1,"verdict":"accepted","operation":"upsert","row":{…}}
  {"line":2,"verdict":"rejected","errors":[{"code":…,"field":…,"value":…,"message":…}]}

At the end standard error has a sum by message, the values taken out: how many rows, and
the first of their lines.

Every row is judged by itself, as if nothing were stored. What rows refer to is looked up
in --catalog, else in the database. It exits with 3 if a row is rejected.

--import-config takes the vendor's own import configuration: how FILE is written, which of
its columns is which, and the settings of its <actions>. FILE is CSV then; the delimiter is
a semicolon unless it says otherwise, as with the vendor.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			now, err := eventTime(at)
			if err != nil {
				return err
			}
			if form != "json" && form != "vendor" {
				return badCall("--format-errors %q is not json or vendor", form)
			}
			if quiet && summaryOnly {
				return badCall("--quiet leaves the sum out, and --summary-only prints nothing else: say one of them")
			}
			action, err := parseAction(action)
			if err != nil {
				return err
			}
			if err := file.readImport(action); err != nil {
				return err
			}
			judge, err := a.rules(action, rules, file.config)
			if err != nil {
				return err
			}
			in, err := file.open(a, args)
			if err != nil {
				return err
			}
			defer in.Close()
			facts, done, err := a.facts(cmd.Context(), catalog)
			if err != nil {
				return err
			}
			defer done()
			c := checker{rules: judge, facts: facts, now: now, rows: in.Reader, vendor: form == "vendor", silent: summaryOnly}
			sum, err := c.run(cmd.Context(), a.stdout)
			if err != nil {
				return err
			}
			a.warnOfHeader(in.Reader)
			switch {
			case summaryOnly:
				err = sum.print(a.stdout)
			case !quiet:
				err = sum.print(a.stderr)
			}
			if err == nil && sum.rejected > 0 {
				return errFault
			}
			return err
		},
	}
	flags := cmd.Flags()
	actionFlag(cmd, &action)
	flags.StringVar(&catalog, "catalog", "", "folder of catalogue files to look references up in; no database is needed then")
	flags.StringVar(&rules, "rules", "", "file of settings, YAML or the vendor's XML (default: those of the configuration's source of this action)")
	flags.StringVar(&at, "event-time", "", "the rows' own time, RFC 3339: it fixes what today is (default: now)")
	flags.StringVar(&form, "format-errors", "json", "json, or vendor: Line number:4,ERROR,<row>,<message>, a line a message")
	flags.BoolVarP(&quiet, "quiet", "q", false, "no sum of the messages at the end, on standard error")
	flags.BoolVar(&summaryOnly, "summary-only", false, "only that sum, on standard output")
	file.flags(cmd)
	return cmd
}

// actionFlag adds --action, which a verb cannot do without (parseAction says
// so: cobra's own check of required flags cannot be told from a failure).
func actionFlag(cmd *cobra.Command, action *string) {
	cmd.Flags().StringVar(action, "action", "", "what the rows mean: tracking or intervention (required)")
	cmd.RegisterFlagCompletionFunc("action", cobra.FixedCompletions([]string{string(handlers.Tracking), string(handlers.Intervention)}, cobra.ShellCompDirectiveNoFileComp))
}

func parseAction(name string) (handlers.Action, error) {
	switch action := handlers.Action(name); action {
	case handlers.Tracking, handlers.Intervention:
		return action, nil
	case "":
		return "", badCall("--action is missing: say %s or %s", handlers.Tracking, handlers.Intervention)
	}
	return "", badCall("--action %q is not %s or %s", name, handlers.Tracking, handlers.Intervention)
}

// eventTime reads --event-time.
func eventTime(text string) (time.Time, error) {
	if text == "" {
		return time.Now().UTC().Truncate(time.Microsecond), nil
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil || t.UTC().Year() < 1 || t.UTC().Year() > 9999 {
		return t, badCall("--event-time %q is not RFC 3339, such as 2024-06-05T12:00:00Z", text)
	}
	return t.UTC().Truncate(time.Microsecond), nil
}

// rules returns the rules of an action: those of a file, else those of an
// import configuration, else those of the configuration's first source of that
// action, else the defaults.
func (a *app) rules(action handlers.Action, file string, config *imported) (*handlers.Rules, error) {
	if file != "" {
		settings, faults := readRules(file, action)
		rules, err := handlers.Compile(action, settings)
		if err != nil {
			faults = append(faults, ruleFaults(file, err)...)
		}
		if len(faults) > 0 {
			return nil, callError{inOrder(faults)}
		}
		return rules, nil
	}
	if config != nil && config.rules != nil {
		return config.rules, nil
	}
	c, err := a.load()
	if err != nil {
		return nil, err
	}
	if source := c.source(action); source != nil {
		return source.Rules, nil
	}
	return handlers.Compile(action, nil)
}

// factsFunc answers what rows refer to. It is called concurrently.
type factsFunc func(context.Context, *handlers.References) (*handlers.Facts, error)

// facts answers from a folder of catalogue files, else from the database.
func (a *app) facts(ctx context.Context, folder string) (factsFunc, func(), error) {
	if folder != "" {
		c, err := a.readCatalogue(folder)
		if err != nil {
			return nil, nil, err
		}
		return func(_ context.Context, refs *handlers.References) (*handlers.Facts, error) { return c.Facts(refs), nil }, func() {}, nil
	}
	c, err := a.load()
	if err != nil {
		return nil, nil, err
	}
	s, err := c.openStore(ctx)
	if err != nil {
		return nil, nil, err
	}
	return forSenders(s.Facts), s.Close, nil
}

// forSenders says nothing of persons who were erased: to those who check their
// rows they are persons whom the catalogue does not know.
func forSenders(facts factsFunc) factsFunc {
	return func(ctx context.Context, refs *handlers.References) (*handlers.Facts, error) {
		f, err := facts(ctx, refs)
		if err == nil {
			f.Erased = nil
		}
		return f, err
	}
}

// readCatalogue loads a folder into memory; a bad line is an error, since
// verdicts would rest on it.
func (a *app) readCatalogue(folder string) (*handlers.Catalogue, error) {
	files, err := catalogue.Open(folder)
	if err != nil {
		return nil, callIfAbsent(err)
	}
	a.namePassed(files)
	c, bad, err := catalogue.LoadMemory(files)
	if err != nil {
		return nil, err
	}
	a.nameBadLines(bad)
	if len(bad) > 0 {
		return nil, fmt.Errorf("the catalogue has bad lines: %d", len(bad))
	}
	return c, nil
}

// namePassed warns of files that may be catalogue files with misspelt names.
func (a *app) namePassed(files *catalogue.Folder) {
	for _, path := range files.Passed() {
		a.warn("%s is no catalogue file by its name and is passed over", path)
	}
}

// nameBadLines prints the bad lines of a catalogue.
func (a *app) nameBadLines(bad []catalogue.BadLine) {
	for _, b := range bad {
		fmt.Fprintln(a.stderr, b)
	}
}

// callIfAbsent makes of a file that is not there an error of the call.
func callIfAbsent(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return callError{err}
	}
	return err
}

// openStore opens the database of the configuration, and checks its schema.
func (c *config) openStore(ctx context.Context) (*store.Store, error) {
	s, err := store.Open(ctx, c.store())
	if err != nil {
		return nil, callError{err}
	}
	if err := s.CheckSchema(ctx); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

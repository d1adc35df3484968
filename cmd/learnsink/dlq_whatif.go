package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"learnsink/cmd/learnsink/dlq"
	"learnsink/handlers"
	"learnsink/store"
)

// dlqWhatIfCommand is `dlq what-if`.
func (a *app) dlqWhatIfCommand() *cobra.Command {
	var sel dlqSelection
	var file, form string
	cmd := &cobra.Command{
		Use:   "what-if --rules FILE [--action ACTION] [flags]",
		Short: "what changed settings would make of open dead letters",
		Long: `what-if judges open dead letters by the settings of FILE (YAML, or the vendor's XML), and says
which would pass that do not today, which would still fail and with what, and which would
fail that would pass today. Nothing is sent, and no setting is changed.

FILE is about one action; it is judged for both only where it is settings of both, and
--action does not say which.
` + selectionHelp + "\n" + formatHelp,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if !slices.Contains([]string{"table", "json", "csv"}, form) {
				return badCall("-f %q is not table, json or csv", form)
			}
			filter, err := sel.filter()
			if err != nil {
				return err
			}
			rules, err := whatIfRules(file, filter.Action)
			if err != nil {
				return err
			}
			return a.whatIf(cmd.Context(), filter, rules, form)
		},
	}
	sel.add(cmd, store.RejectionOpen)
	flags := cmd.Flags()
	flags.StringVar(&file, "rules", "", "file of settings, YAML or the vendor's XML (required)")
	formatFlag(cmd, &form)
	return cmd
}

// whatIfRules compiles a file of settings, for the action that it is about.
func whatIfRules(file string, only handlers.Action) (map[handlers.Action]*handlers.Rules, error) {
	if file == "" {
		return nil, badCall("--rules is missing: say the file of settings")
	}
	actions := []handlers.Action{handlers.Tracking, handlers.Intervention}
	if only != "" {
		actions = []handlers.Action{only}
	}
	all := map[handlers.Action]*handlers.Rules{}
	var faults configError
	for _, action := range actions {
		settings, wrong := readRules(file, action)
		rules, err := handlers.Compile(action, settings)
		if err != nil {
			wrong = append(wrong, ruleFaults(file, err)...)
		}
		if len(wrong) == 0 {
			all[action] = rules
		} else if len(faults) == 0 || len(wrong) < len(faults) {
			faults = wrong // of the action that it is likelier meant for
		}
	}
	if len(all) == 0 {
		return nil, callError{inOrder(faults)}
	}
	return all, nil
}

// whatIf judges what a filter means by other rules.
func (a *app) whatIf(ctx context.Context, filter store.RejectionFilter, rules map[handlers.Action]*handlers.Rules, form string) error {
	c, err := a.load()
	if err != nil {
		return err
	}
	db, err := c.openStore(ctx)
	if err != nil {
		return err
	}
	defer db.Close()
	ids, err := db.SelectRejections(ctx, filter)
	if err != nil {
		return err
	}
	open := string(store.RejectionOpen)
	today := dlq.NewJudge(c.Sources, c.replayTopic(), db, db, open)
	then := dlq.NewJudge(dlq.With(c.Sources, rules), c.replayTopic(), db, db, open)
	w, err := dlq.NewWhatIf(ctx, today, then, dlq.PagesOf(ctx, db, ids))
	if err != nil {
		return err
	}
	switch form {
	case "json":
		encoder := json.NewEncoder(a.stdout)
		encoder.SetEscapeHTML(false)
		return encoder.Encode(showWhatIf(w))
	case "csv":
		return printJudgedLines(a.stdout, whatIfLines(w))
	}
	return a.printWhatIf(w)
}

// printWhatIf says it to a person.
func (a *app) printWhatIf(w *dlq.WhatIf) error {
	say := func(n int64, what string) {
		if n > 0 {
			fmt.Fprintf(a.stdout, "%7d  %s\n", n, what)
		}
	}
	isNew := func(g store.Fault) string {
		if w.IsNew(g) {
			return " (none fails with that today)"
		}
		return ""
	}
	fmt.Fprintf(a.stdout, "%s, judged by the changed settings and by those of now:\n", counted(w.Rows, "dead letter"))
	say(w.Passes, "would pass, and do not today")
	say(w.StillFails, "would still fail:")
	if err := printGroups(a.stdout, w.Still(), isNew); err != nil {
		return err
	}
	say(w.NewlyFails, "would fail, and would pass today:")
	if err := printGroups(a.stdout, w.Newly(), func(store.Fault) string { return "" }); err != nil {
		return err
	}
	say(w.PassesToday, "would pass today already: `learnsink dlq replay` sends them")
	say(w.NotJudged, "are not judged: the settings are not for them, or they are not open")
	return nil
}

// whatIfShown is what-if as JSON has it.
type whatIfShown struct {
	Rows        int64            `json:"rows"`
	Passes      int64            `json:"passes"`
	StillFails  int64            `json:"stillFails"`
	NewlyFails  int64            `json:"newlyFails"`
	PassesToday int64            `json:"passesToday"`
	NotJudged   int64            `json:"notJudged"`
	Still       []dlq.GroupCount `json:"still"`
	Newly       []dlq.GroupCount `json:"newly"`
}

func showWhatIf(w *dlq.WhatIf) *whatIfShown {
	return &whatIfShown{w.Rows, w.Passes, w.StillFails, w.NewlyFails, w.PassesToday, w.NotJudged, w.Still(), w.Newly()}
}

// whatIfLines is what-if line by line.
func whatIfLines(w *dlq.WhatIf) []judgedLine {
	lines := []judgedLine{{What: "passes", Rows: w.Passes}, {What: "still fails", Rows: w.StillFails}}
	lines = append(lines, groupLines("still fails with", w.Still())...)
	lines = append(lines, judgedLine{What: "newly fails", Rows: w.NewlyFails})
	lines = append(lines, groupLines("newly fails with", w.Newly())...)
	return append(lines, judgedLine{What: "passes today", Rows: w.PassesToday}, judgedLine{What: "not judged", Rows: w.NotJudged})
}

package main

import (
	"errors"
	"os"

	"github.com/spf13/cobra"

	"learnsink/cmd/learnsink/dlq"
	"learnsink/store"
)

// dlqEditCommand is `dlq edit`.
func (a *app) dlqEditCommand() *cobra.Command {
	var sel dlqSelection
	var f sendFlags
	var r replayer
	var patch dlq.Patch
	var file string
	cmd := &cobra.Command{
		Use:   "edit [ID…] --set COLUMN=VALUE --remove COLUMN --replace COLUMN:OLD=NEW [flags]",
		Short: "mend dead letters, and send them again",
		Long: `edit patches the rows of dead letters, shows the first of them as they were and as they would
be, and judges them as replay does. With --execute those are sent that would be accepted
(--all: all that the edit changes). The dead letter stays as it was; what was sent instead of
it, by whom and why, is kept with the job.

  --set COLUMN=VALUE           the value, whatever stands there, if anything
  --remove COLUMN              the column is absent then
  --replace COLUMN:OLD=NEW     the value, where OLD stands there
  --row FILE                   the whole row, of one dead letter

They may be given again, and are done in their order. A backslash takes the meaning of a
= or : in COLUMN and OLD. What they do not touch stays as it was, byte for byte. A number
stays one if VALUE is one; all else becomes a text, which means the same.

It exits with 3 if some of the rows were rejected again.
` + selectionHelp + "\n" + formatHelp,
		RunE: func(cmd *cobra.Command, args []string) error {
			r.app, r.flags = a, &f
			if err := errors.Join(f.check(), r.check()); err != nil {
				return err
			}
			var err error
			if r.edit, err = newEdit(patch, file); err != nil {
				return err
			}
			filter, err := sel.filter(args...)
			if err != nil {
				return err
			}
			if file != "" && len(filter.IDs) != 1 {
				return badCall("--row %s is one row: give the one id that it is for", file)
			}
			return r.run(cmd.Context(), named(filter, cmd))
		},
	}
	sel.add(cmd, store.RejectionOpen)
	f.add(cmd)
	flags := cmd.Flags()
	flags.Var(&patchFlag{&patch, dlq.Set}, "set", "COLUMN=VALUE: give a column a value")
	flags.Var(&patchFlag{&patch, dlq.Remove}, "remove", "COLUMN: take a column out")
	flags.Var(&patchFlag{&patch, dlq.Replace}, "replace", "COLUMN:OLD=NEW: change a value where it is OLD")
	flags.StringVar(&file, "row", "", "FILE that holds the whole row")
	flags.BoolVar(&r.all, "all", false, "send what would fail, too")
	return cmd
}

// patchFlag is a step of a patch: the flags are one list, in the order in
// which they are typed.
type patchFlag struct {
	patch *dlq.Patch
	kind  dlq.OpKind
}

func (f *patchFlag) Set(text string) error {
	op, err := dlq.ParseOp(f.kind, text)
	if err != nil {
		return err
	}
	*f.patch = append(*f.patch, op)
	return nil
}

func (f *patchFlag) String() string { return "" }
func (f *patchFlag) Type() string   { return "string" }

// newEdit is the edit that was typed.
func newEdit(patch dlq.Patch, file string) (*dlq.Edit, error) {
	switch {
	case file == "" && len(patch) == 0:
		return nil, badCall("nothing is edited: say --set, --remove, --replace or --row")
	case file == "":
		return &dlq.Edit{Patch: patch}, nil
	case len(patch) > 0:
		return nil, badCall("--row %s is the whole row: leave out --set, --remove and --replace", file)
	}
	value, err := os.ReadFile(file)
	if err != nil {
		return nil, callIfAbsent(err)
	}
	if len(value) == 0 {
		return nil, badCall("--row %s is empty: it would be no row", file)
	}
	return &dlq.Edit{Value: value}, nil
}

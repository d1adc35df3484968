package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"learnsink/store"
)

// dlqReleaseCommand is `dlq release`: quarantined rows may be replayed again.
func (a *app) dlqReleaseCommand() *cobra.Command {
	var selection dlqSelection
	var why string
	var execute bool
	cmd := &cobra.Command{
		Use:   "release [ID…] --why TEXT [--execute]",
		Short: "let dead letters out of quarantine",
		Long: `release opens rows again that are quarantined: they have failed five times, and are replayed no
more until a person has looked at them. Their attempts go on being counted: a released row
that fails again is quarantined at once. Without --execute it only says how many there are.
` + selectionHelp,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			f, err := selection.filter(args...)
			switch {
			case err != nil:
				return err
			case cmd.Flags().Changed("state"):
				return badCall("--state: only quarantined rows are released")
			case !f.Selects():
				return badCall("nothing says which rows: ids, --group or another of the flags")
			case strings.TrimSpace(why) == "":
				return badCall("--why is missing: say what has been looked at")
			}
			return a.withStore(cmd.Context(), func(db *store.Store) error {
				if !execute {
					ids, err := db.Selected(cmd.Context(), f)
					if err != nil {
						return err
					}
					fmt.Fprintf(a.stdout, "%d quarantined rows would be open again\n", len(ids))
					a.notDone(execute)
					return nil
				}
				n, err := db.ReleaseRejections(cmd.Context(), f, store.Operator{Actor: actor(), Why: why})
				if err != nil {
					return err
				}
				fmt.Fprintf(a.stdout, "%d rows are open again\n", n)
				return nil
			})
		},
	}
	selection.add(cmd, store.RejectionQuarantined)
	cmd.Flags().StringVar(&why, "why", "", "the reason, for those who read it later (required)")
	cmd.Flags().BoolVar(&execute, "execute", false, "do it; else it is only shown")
	return cmd
}

package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"learnsink/store"
)

// migrateCommand is `migrate`: brings the schema up to date.
func (a *app) migrateCommand() *cobra.Command {
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "migrate",
		Short: "bring the database's schema up to date",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.load()
			if err != nil {
				return err
			}
			if db, err := store.Open(cmd.Context(), c.store()); err != nil { // it connects lazily: an address that is none
				return callError{err}
			} else {
				db.Close()
			}
			if dryRun {
				sql, err := store.MigrationSQL(cmd.Context(), c.store())
				if err != nil {
					return err
				}
				_, err = fmt.Fprint(a.stdout, sql)
				return err
			}
			applied, err := store.Migrate(cmd.Context(), c.store())
			for _, name := range applied {
				fmt.Fprintf(a.stdout, "applied %s\n", name)
			}
			if err == nil && len(applied) == 0 {
				a.warn("the schema is up to date")
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "print the SQL and change nothing")
	return cmd
}

package main

import (
	"embed"
	"strings"

	"github.com/spf13/cobra"
)

//go:embed schemas/*.json
var schemas embed.FS

// schemaCommand is `schema`: JSON Schemas of what goes in and comes out.
func (a *app) schemaCommand() *cobra.Command {
	names := []string{"tracking-row", "intervention-row", "accepted-event", "dead-letter-errors"}
	return &cobra.Command{
		Use:   "schema NAME",
		Short: "print a JSON Schema",
		Long: `schema prints the JSON Schema (2020-12) of what goes in and comes out:

  tracking-row, intervention-row   the value of a record of a source topic, settings at their defaults
  accepted-event                   the value of an accepted event
  dead-letter-errors               the header learnsink.errors of a dead letter

Without NAME it prints all of them, in one object by these names.`,
		Args:      cobra.MatchAll(cobra.MaximumNArgs(1), cobra.OnlyValidArgs),
		ValidArgs: names,
		RunE: func(_ *cobra.Command, args []string) error {
			var out strings.Builder
			if len(args) == 1 {
				text, err := schemas.ReadFile("schemas/" + args[0] + ".json")
				if err != nil {
					return err
				}
				out.Write(text)
			} else {
				for i, name := range names {
					text, err := schemas.ReadFile("schemas/" + name + ".json")
					if err != nil {
						return err
					}
					out.WriteString([]string{"{\n", ",\n"}[min(i, 1)] + `"` + name + `": ` + strings.TrimSpace(string(text)))
				}
				out.WriteString("\n}\n")
			}
			_, err := a.stdout.Write([]byte(out.String()))
			return err
		},
	}
}

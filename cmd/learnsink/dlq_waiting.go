package main

import (
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"learnsink/store"
)

// dlqWaitingCommand is `dlq waiting`: what rows wait for.
func (a *app) dlqWaitingCommand() *cobra.Command {
	var form, topic string
	var most int
	cmd := &cobra.Command{
		Use:   "waiting [-f table|json|csv]",
		Short: "show what rows in the waiting room wait for, and what would release most of them first",
		Long: `waiting shows what is missing in the catalogue, of rows of sources that say
onMissingReference: wait: how many rows that would release (those that wait for nothing
else), how many wait for it in all, since when, and when the first of them has its deadline.
When it has come, learnsink serve releases them. Names of learners and teachers are as rows
have them.
` + formatHelp,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			p, err := newPrinter(a.stdout, form, waitingColumns())
			if err != nil {
				return err
			}
			if most < 0 {
				return badCall("--limit is not negative")
			}
			return a.withStore(cmd.Context(), func(db *store.Store) error {
				list, names, rows, err := db.WaitingFor(cmd.Context(), topic, most)
				if err != nil {
					return err
				}
				shown := []waitingShown{}
				for i := range list {
					w := &list[i]
					shown = append(shown, waitingShown{w.Name, w.Alone, w.Rows, w.Since, w.Next})
				}
				if err := p.printAll(shown); err != nil {
					return err
				}
				if form == "table" {
					fmt.Fprintf(a.stdout, "%d rows wait for %d things\n", rows, names)
				}
				if more := names - int64(len(list)); more > 0 {
					a.warn("%d more things are waited for: --limit 0 shows all", more)
				}
				return nil
			})
		},
	}
	formatFlag(cmd, &form)
	cmd.Flags().StringVar(&topic, "topic", "", "rows of this source topic alone")
	cmd.Flags().IntVar(&most, "limit", 50, "so many at most; 0: all")
	return cmd
}

// waitingShown is something that is waited for, as json has it.
type waitingShown struct {
	WaitsFor     string    `json:"waitsFor"`
	WouldRelease int64     `json:"wouldRelease"`
	Rows         int64     `json:"rows"`
	Since        time.Time `json:"since"`
	NextDeadline time.Time `json:"nextDeadline"`
}

func waitingColumns() []printColumn[waitingShown] {
	return []printColumn[waitingShown]{
		{name: "waitsFor", text: func(w *waitingShown) string { return w.WaitsFor }},
		{name: "wouldRelease", text: func(w *waitingShown) string { return strconv.FormatInt(w.WouldRelease, 10) }},
		{name: "rows", text: func(w *waitingShown) string { return strconv.FormatInt(w.Rows, 10) }},
		{name: "since", text: func(w *waitingShown) string { return moment(w.Since) }},
		{name: "nextDeadline", text: func(w *waitingShown) string { return moment(w.NextDeadline) }},
	}
}

package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"learnsink/cmd/learnsink/dlq"
	"learnsink/handlers"
	"learnsink/store"
)

// dlqListCommand is `dlq list`.
func (a *app) dlqListCommand() *cobra.Command {
	var selection dlqSelection
	var form string
	var page store.Page
	cmd := &cobra.Command{
		Use:   "list [-f table|json|csv] [--limit N] [--after CURSOR]",
		Short: "list dead letters, the newest first, a page at a time",
		Long: `list lists rejected rows, the newest first. Where there are more than --limit, the cursor of
the page that follows is printed on stderr; --after goes on from it. Rows that come
meanwhile do not move a page.
` + selectionHelp + "\n" + formatHelp,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			f, err := selection.filter()
			if err != nil {
				return err
			}
			p, err := newPrinter(a.stdout, form, listColumns())
			if err != nil {
				return err
			}
			if page.Limit < 1 || page.Limit > maxPage {
				return badCall("--limit %d is not from 1 to %d", page.Limit, maxPage)
			}
			if err := page.Check(); err != nil {
				return badCall("--after: %w", err)
			}
			return a.withStore(cmd.Context(), func(db *store.Store) error {
				list, next, err := db.Rejections(cmd.Context(), f, page)
				if err != nil {
					return err
				}
				shown := []listShown{}
				for i := range list {
					shown = append(shown, showListed(&list[i]))
				}
				if err := p.printAll(shown); err != nil {
					return err
				}
				if next != "" {
					fmt.Fprintf(a.stderr, "there are more: --after %s\n", next)
				}
				return nil
			})
		},
	}
	selection.add(cmd, store.RejectionOpen, store.RejectionQuarantined)
	formatFlag(cmd, &form)
	cmd.Flags().IntVar(&page.Limit, "limit", 50, "so many rows at most")
	cmd.Flags().StringVar(&page.After, "after", "", "go on behind this cursor")
	return cmd
}

// maxPage is how many rows a page holds at most.
const maxPage = 10_000

// listShown is a rejection in a list, as json has it: without the row.
type listShown struct {
	ID         string               `json:"id"`
	State      store.RejectionState `json:"state"`
	Action     handlers.Action      `json:"action"`
	Attempt    int                  `json:"attempt"`
	RejectedAt time.Time            `json:"rejectedAt"`
	EventAt    time.Time            `json:"eventAt"`
	About      string               `json:"about"` // the learner, or the intervention, as the row says it
	Sender     string               `json:"sender"`
	Topic      string               `json:"topic"`
	Partition  int                  `json:"partition"`
	Offset     int64                `json:"offset"`
	Job        int64                `json:"job,omitempty"`
	ReplayOf   string               `json:"replayOf,omitempty"`
	WaitsFor   []string             `json:"waitsFor,omitempty"`
	Deadline   *time.Time           `json:"deadline,omitempty"`
	Errors     []handlers.Error     `json:"errors"`
}

func showListed(r *store.Rejection) listShown {
	return listShown{ID: r.ID, State: r.State, Action: r.Action, Attempt: r.Attempt, RejectedAt: r.RejectedAt, EventAt: r.EventAt, About: dlq.About(r),
		Sender: r.Sender, Topic: r.SourceTopic, Partition: r.Partition, Offset: r.Offset, Job: r.Job, ReplayOf: r.ReplayOf, WaitsFor: r.WaitsFor,
		Deadline: optTime(r.Deadline), Errors: r.Errors}
}

func listColumns() []printColumn[listShown] {
	type column = printColumn[listShown]
	return []column{
		{name: "id", text: func(r *listShown) string { return r.ID }},
		{name: "state", text: func(r *listShown) string { return string(r.State) }},
		{name: "action", text: func(r *listShown) string { return string(r.Action) }, only: "csv"},
		{name: "attempt", text: func(r *listShown) string { return strconv.Itoa(r.Attempt) }},
		{name: "rejectedAt", text: func(r *listShown) string { return moment(r.RejectedAt) }},
		{name: "eventAt", text: func(r *listShown) string { return moment(r.EventAt) }, only: "csv"},
		{name: "about", text: func(r *listShown) string { return r.About }},
		{name: "sender", text: func(r *listShown) string { return r.Sender }},
		{name: "topic", text: func(r *listShown) string { return r.Topic }, only: "csv"},
		{name: "partition", text: func(r *listShown) string { return strconv.Itoa(r.Partition) }, only: "csv"},
		{name: "offset", text: func(r *listShown) string { return strconv.FormatInt(r.Offset, 10) }, only: "csv"},
		{name: "codes", text: func(r *listShown) string {
			var codes []string
			for _, e := range r.Errors {
				codes = append(codes, string(e.Code))
			}
			return strings.Join(codes, " ")
		}, only: "csv"},
		{name: "messages", text: func(r *listShown) string { return messages(r.Errors) }},
	}
}

// messages joins messages as a dead letter's headers do.
func messages(errs []handlers.Error) string {
	var all []string
	for _, e := range errs {
		all = append(all, e.Message)
	}
	return strings.Join(all, " | ")
}

package main

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"learnsink/cmd/learnsink/dlq"
	"learnsink/handlers"
	"learnsink/store"
)

// dlqGroupsCommand is `dlq groups`: what is wrong, not which rows.
func (a *app) dlqGroupsCommand() *cobra.Command {
	var selection dlqSelection
	var form string
	var most, top int
	cmd := &cobra.Command{
		Use:   "groups [-f table|json|csv]",
		Short: "show what is wrong with dead letters, the commonest first",
		Long: `groups shows what is wrong with the rows that were rejected: action, code, column and
message, without the values; how many rows, how many learners (tracking) or interventions
they touch, since when, which values and senders most. A row with two messages stands in
two groups. GROUP is the key by which --group of the other verbs means one.
` + selectionHelp + "\n" + formatHelp,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			f, err := selection.filter()
			if err != nil {
				return err
			}
			p, err := newPrinter(a.stdout, form, groupColumns())
			if err != nil {
				return err
			}
			p.notes = groupNotes
			if most < 0 || top < 0 {
				return badCall("--limit and --top are not negative")
			}
			return a.withStore(cmd.Context(), func(db *store.Store) error {
				groups, err := db.RejectionGroups(cmd.Context(), f, store.GroupOptions{Most: most, Top: top})
				if err != nil {
					return err
				}
				shown := []groupShown{}
				for i := range groups {
					shown = append(shown, showGroup(&groups[i]))
				}
				return p.printAll(shown)
			})
		},
	}
	selection.add(cmd, store.RejectionOpen, store.RejectionQuarantined)
	formatFlag(cmd, &form)
	cmd.Flags().IntVar(&most, "limit", 50, "so many groups at most; 0: all")
	cmd.Flags().IntVar(&top, "top", 3, "so many values and senders of each at most")
	return cmd
}

// withStore runs a verb that needs the database alone.
func (a *app) withStore(ctx context.Context, f func(*store.Store) error) error {
	c, err := a.load()
	if err != nil {
		return err
	}
	db, err := c.openStore(ctx)
	if err != nil {
		return err
	}
	defer db.Close()
	return f(db)
}

// groupShown is a group as json has it.
type groupShown struct {
	Group     string          `json:"group"`
	Action    handlers.Action `json:"action"`
	Code      handlers.Code   `json:"code"`
	Field     string          `json:"field,omitempty"`
	Message   string          `json:"message"`
	Rows      int64           `json:"rows"`
	Touched   int64           `json:"touched"` // learners, or interventions
	FirstSeen time.Time       `json:"firstSeen"`
	LastSeen  time.Time       `json:"lastSeen"`
	Summary   string          `json:"summary,omitempty"`
	Distinct  int64           `json:"distinctValues"`
	Values    []shareShown    `json:"topValues"`
	Senders   []shareShown    `json:"topSenders"`
	Latest    string          `json:"latest"` // the id of the newest
	group     *store.RejectionGroup
}

// shareShown is how many rows have a value, or come from a sender ("": none said).
type shareShown struct {
	Text string `json:"text"`
	Rows int64  `json:"rows"`
}

func showGroup(g *store.RejectionGroup) groupShown {
	shares := func(of []store.Share) []shareShown {
		all := []shareShown{}
		for _, s := range of {
			all = append(all, shareShown(s))
		}
		return all
	}
	return groupShown{Group: g.Key(), Action: g.Action, Code: g.Code, Field: g.Field, Message: g.Message, Rows: g.Rows, Touched: g.Subjects,
		FirstSeen: g.First, LastSeen: g.Last, Summary: dlq.Summary(g), Distinct: g.Distinct, Values: shares(g.Values), Senders: shares(g.Senders), Latest: g.Latest, group: g}
}

func groupColumns() []printColumn[groupShown] {
	type column = printColumn[groupShown]
	return []column{
		{name: "group", text: func(g *groupShown) string { return g.Group }},
		{name: "rows", text: func(g *groupShown) string { return strconv.FormatInt(g.Rows, 10) }},
		{name: "touched", text: func(g *groupShown) string { return strconv.FormatInt(g.Touched, 10) }},
		{name: "action", text: func(g *groupShown) string { return string(g.Action) }},
		{name: "code", text: func(g *groupShown) string { return string(g.Code) }},
		{name: "field", text: func(g *groupShown) string { return g.Field }},
		{name: "firstSeen", text: func(g *groupShown) string { return moment(g.FirstSeen) }},
		{name: "lastSeen", text: func(g *groupShown) string { return moment(g.LastSeen) }},
		{name: "message", text: func(g *groupShown) string { return g.Message }},
		{name: "summary", text: func(g *groupShown) string { return g.Summary }, only: "csv"},
		{name: "distinctValues", text: func(g *groupShown) string { return strconv.FormatInt(g.Distinct, 10) }, only: "csv"},
		{name: "topValues", text: func(g *groupShown) string { return dlq.Shares(g.group.Values, "") }, only: "csv"},
		{name: "topSenders", text: func(g *groupShown) string { return dlq.Shares(g.group.Senders, "no sender") }, only: "csv"},
		{name: "latest", text: func(g *groupShown) string { return g.Latest }, only: "csv"},
	}
}

// groupNotes are the lines below a group in a table.
func groupNotes(g *groupShown) (notes []string) {
	if g.Summary != "" {
		notes = append(notes, g.Summary)
	}
	for _, v := range g.Values {
		notes = append(notes, fmt.Sprintf("%6d  %s", v.Rows, cut(v.Text, maxCell)))
	}
	if more := g.Distinct - int64(len(g.Values)); more > 0 && len(g.Values) > 0 {
		notes = append(notes, fmt.Sprintf("%6s  and %d more", "", more))
	}
	if len(g.Senders) > 0 {
		notes = append(notes, "from "+dlq.Shares(g.group.Senders, "no sender"))
	}
	return notes
}

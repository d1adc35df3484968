package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"learnsink/handlers"
	"learnsink/store"
)

// dlqEraseCommand is `dlq erase`.
func (a *app) dlqEraseCommand() *cobra.Command {
	var learner, teacher, by, why, form string
	var execute bool
	cmd := &cobra.Command{
		Use:   "erase (--learner L | --teacher L) --why W",
		Short: "remove a person from every table",
		Long: `erase removes a learner or a teacher from every table, the outbox and the jobs: what goes is
shown, table by table, and done with --execute, in one transaction. Batches wait meanwhile.

A person is named by login; a learner also --by ref (reference number) or --by email. One
whom the catalogue does not know is known by what is said: dead letters that name nobody
else go all the same. What another account has too, an e-mail say, stays the other's.

Keyed hashes are kept of what the person alone was known by. Rows that name them from then
on have the outcome erased: counted, and stored nowhere; catalogue files that name them do
not bring them back. Whoever keeps a copy of accepted events is told by an event,
learnsink.person.erased, which serve publishes.

What Kafka's topics hold stays until their retention is over, and so do backups.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			who, err := identity(learner, teacher, by)
			switch {
			case err != nil:
				return err
			case strings.TrimSpace(why) == "":
				return badCall("--why is missing: say who has asked for it, without naming the person")
			}
			c, err := a.load()
			if err != nil {
				return err
			}
			db, err := c.openStore(cmd.Context())
			if err != nil {
				return err
			}
			defer db.Close()
			done, err := db.Erase(cmd.Context(), store.NewErasure{
				Identity: who, Operator: store.Operator{Actor: actor(), Why: why}, Execute: execute, Announce: c.announceErasure,
			})
			if err != nil {
				return err
			}
			if err := a.showErasure(c, &done, form, execute); err != nil || !execute {
				return err
			}
			return a.awaitErased(cmd.Context(), db, done.At, form)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&learner, "learner", "", "the learner's login, or what --by says")
	flags.StringVar(&teacher, "teacher", "", "the teacher's login")
	flags.StringVar(&by, "by", "login", "what --learner is: login, ref or email")
	flags.StringVar(&why, "why", "", "the reason, for those who read it later (required)")
	formatFlag(cmd, &form)
	flags.BoolVar(&execute, "execute", false, "do it; else it is only shown")
	return cmd
}

// identity is who is meant by the flags.
func identity(learner, teacher, by string) (handlers.Identity, error) {
	kind := map[string]handlers.IdentityKind{"login": handlers.LearnerLogin, "ref": handlers.LearnerRefNumber, "email": handlers.LearnerEmail}[by]
	text := learner
	switch {
	case (learner == "") == (teacher == ""):
		return handlers.Identity{}, badCall("say --learner or --teacher, one of them")
	case kind == "":
		return handlers.Identity{}, badCall("--by %q is not login, ref or email", by)
	case teacher != "" && by != "login":
		return handlers.Identity{}, badCall("a teacher is known by the login alone: leave out --by")
	case teacher != "":
		kind, text = handlers.TeacherLogin, teacher
	}
	who := handlers.NewIdentity(kind, text)
	if who.Text == "" {
		return who, badCall("a blank names nobody")
	}
	return who, nil
}

// announceErasure makes the events for every topic of accepted events.
func (c *config) announceErasure(e *store.Erasure) (items []store.JobItem) {
	told := map[string]bool{}
	for _, s := range c.Sources {
		if told[s.AcceptedTopic] {
			continue
		}
		told[s.AcceptedTopic] = true
		for _, event := range handlers.ErasedEvents(e.ID, e.Person, e.PersonID, e.Interventions, e.At) {
			items = append(items, store.JobItem{SourceTopic: s.AcceptedTopic, Key: event.Key, Value: event.Value, Headers: event.Headers})
		}
	}
	return items
}

// showErasure prints what goes, or has gone. It names nobody: whoever calls
// knows whom they have named, and the page may be kept.
func (a *app) showErasure(c *config, e *store.Erasure, form string, execute bool) error {
	p, err := newPrinter(a.stdout, form, []printColumn[store.TableErasure]{
		{name: "table", text: func(t *store.TableErasure) string { return t.Table }},
		{name: "rows", text: func(t *store.TableErasure) string { return fmt.Sprint(t.Rows) }},
		{name: "what", text: func(t *store.TableErasure) string { return t.What }},
	})
	if err != nil {
		return err
	}
	if form != "table" {
		return p.printAll(e.Tables)
	}
	person := fmt.Sprintf("The %s with id %d", e.Person, e.PersonID)
	if e.PersonID == 0 {
		person = fmt.Sprintf("A %s whom the catalogue does not know", e.Person)
	}
	switch {
	case e.ID == 0:
		fmt.Fprintf(a.stdout, "%s: nothing is left to be erased, and rows of theirs are known again\n", person)
	case execute:
		fmt.Fprintf(a.stdout, "%s is erased (erasure %d)\n", person, e.ID)
	default:
		fmt.Fprintf(a.stdout, "%s would be erased\n", person)
	}
	if len(e.Tables) > 0 {
		if err := p.printAll(e.Tables); err != nil {
			return err
		}
	}
	if e.SharedRefNumber {
		fmt.Fprintln(a.stdout, "another account has the reference number too: rows that say only that are the other's, and stay")
	}
	if e.SharedEmail {
		fmt.Fprintln(a.stdout, "another account has the e-mail too: rows that say only that are the other's, and stay")
	}
	if e.Namesake {
		other := map[string]string{"learner": "teacher", "teacher": "learner"}[e.Person]
		fmt.Fprintf(a.stdout, "there is a %s of that login too, who stays: --%s erases them\n", other, other)
	}
	fmt.Fprintf(a.stdout, "what topics hold stays there until their retention is over (%s), and so do backups\n", strings.Join(c.topics(), ", "))
	if e.Job > 0 && execute {
		fmt.Fprintf(a.stdout, "job %d tells those who keep copies: learnsink serve publishes %s\n", e.Job, handlers.PersonErased)
	}
	a.notDone(execute)
	return nil
}

// erasePatience is how long what was in the outbox before an erasure may take
// to be published, while somebody is at it.
const erasePatience = 15 * time.Second

// awaitErased waits until nothing is left in the outbox from before.
func (a *app) awaitErased(ctx context.Context, db *store.Store, at time.Time, form string) error {
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for began := time.Now(); ; {
		entries, err := db.Unpublished(ctx, at)
		switch {
		case err != nil:
			return err
		case entries == 0:
			if form == "table" {
				fmt.Fprintln(a.stdout, "nothing in the outbox is from before")
			}
			return nil
		case time.Since(began) > erasePatience:
			return fmt.Errorf("the tables are done; in the outbox %d batches are from before, and may still hold outputs of the person: they go once learnsink serve has published them: run it, and then this again", entries)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

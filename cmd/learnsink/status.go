package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"learnsink/consumer"
	"learnsink/handlers"
	"learnsink/store"
)

// statusCommand is `status`: how far everything is.
func (a *app) statusCommand() *cobra.Command {
	var form string
	cmd := &cobra.Command{
		Use:   "status",
		Short: "show positions, lag, states, the outbox and the catalogue's age",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if form != "table" && form != "json" {
				return badCall("-f %q is not table or json", form)
			}
			c, client, err := a.kafka()
			if err != nil {
				return err
			}
			defer client.Close()
			db, err := c.openStore(cmd.Context())
			if err != nil {
				return err
			}
			defer db.Close()
			s, err := readStatus(cmd.Context(), c, client, db)
			if s == nil {
				return err
			}
			if form == "json" {
				encoder := json.NewEncoder(a.stdout)
				encoder.SetIndent("", "  ")
				return errors.Join(err, encoder.Encode(s))
			}
			return errors.Join(err, s.table(a.stdout))
		},
	}
	cmd.Flags().StringVarP(&form, "format", "f", "table", "table or json")
	return cmd
}

// status is what `status` shows.
type status struct {
	Group      string            `json:"group"`
	Partitions []partitionStatus `json:"partitions"`
	Outbox     []outboxStatus    `json:"outbox"`
	Catalogue  catalogueStatus   `json:"catalogue"`
}

// partitionStatus is one source partition. What is not known is null: it was
// never claimed, or the brokers are away.
type partitionStatus struct {
	Topic     string         `json:"topic"`
	Partition int            `json:"partition"`
	State     handlers.State `json:"state"` // "" = never claimed
	Reason    string         `json:"reason,omitempty"`
	First     *int64         `json:"first"`
	Next      *int64         `json:"next"`
	Accepted  int64          `json:"accepted"`
	Rejected  int64          `json:"rejected"`
	Waiting   int64          `json:"waiting"` // rows that went into the waiting room
	Skipped   int64          `json:"skipped"`
	Committed *int64         `json:"committed"`
	Stable    *int64         `json:"stable"`
	Lag       *int64         `json:"lag"` // offsets from next to the stable end
	UpdatedAt *time.Time     `json:"updatedAt"`
}

type outboxStatus struct {
	Topic     string    `json:"topic"`
	Partition int       `json:"partition"`
	Entries   int64     `json:"entries"`
	Bytes     int64     `json:"bytes"`
	From      int64     `json:"from"`
	To        int64     `json:"to"`
	Oldest    time.Time `json:"oldest"`
}

type catalogueStatus struct {
	Version    int64      `json:"version"`
	LoadedAt   *time.Time `json:"loadedAt"` // null: never
	AgeSeconds *float64   `json:"ageSeconds"`
}

// readStatus asks the database and the brokers. Without brokers it returns
// what the database knows, and an error.
func readStatus(ctx context.Context, c *config, client *consumer.Client, db *store.Store) (*status, error) {
	s := &status{Group: c.Group, Partitions: []partitionStatus{}, Outbox: []outboxStatus{}}
	positions, err := db.Positions(ctx)
	if err != nil {
		return nil, err
	}
	pending, err := db.OutboxPending(ctx)
	if err != nil {
		return nil, err
	}
	version, loaded, err := db.CatalogueVersion(ctx)
	if err != nil {
		return nil, err
	}
	s.Catalogue.Version = version
	if loaded.OK {
		age := time.Since(loaded.V).Round(time.Second).Seconds()
		s.Catalogue.LoadedAt, s.Catalogue.AgeSeconds = &loaded.V, &age
	}
	for _, p := range pending {
		s.Outbox = append(s.Outbox, outboxStatus{p.Topic, p.Partition, p.Entries, p.Bytes, p.From, p.To, p.Oldest})
	}
	all := map[handlers.TopicPartition]*partitionStatus{}
	for _, p := range positions {
		all[p.TopicPartition] = &partitionStatus{Topic: p.Topic, Partition: p.Partition, State: p.State, Reason: p.StateReason,
			First: &p.FirstOffset, Next: &p.NextOffset, Accepted: p.Accepted, Rejected: p.Rejected, Waiting: p.Waiting, Skipped: p.Skipped, UpdatedAt: &p.UpdatedAt}
	}
	err = patiently(ctx, func(ctx context.Context) error { return addLog(ctx, c, client, all) })
	for _, p := range all {
		s.Partitions = append(s.Partitions, *p)
	}
	slices.SortFunc(s.Partitions, func(a, b partitionStatus) int {
		return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
	})
	return s, err
}

// addLog adds what the brokers know of the sources.
func addLog(ctx context.Context, c *config, client *consumer.Client, all map[handlers.TopicPartition]*partitionStatus) error {
	counts, err := client.Partitions(ctx, c.reads()...)
	if err != nil {
		return err
	}
	for topic := range counts {
		ends, err := client.StableOffsets(ctx, topic)
		if err != nil {
			return err
		}
		for partition, end := range ends {
			tp := handlers.TopicPartition{Topic: topic, Partition: partition}
			if all[tp] == nil {
				all[tp] = &partitionStatus{Topic: topic, Partition: partition}
			}
			p := all[tp]
			p.Stable = &end
			if p.Next != nil {
				lag := max(end-*p.Next, 0)
				p.Lag = &lag
			}
		}
	}
	committed, err := client.GroupOffsets(ctx, c.Group, c.reads()...)
	if err != nil {
		return err
	}
	for tp, offset := range committed {
		if all[tp] != nil {
			all[tp].Committed = &offset
		}
	}
	return nil
}

// table prints a status for people.
func (s *status) table(w io.Writer) error {
	number := func(n *int64) string {
		if n == nil {
			return "-"
		}
		return strconv.FormatInt(*n, 10)
	}
	out := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(out, "TOPIC\tPARTITION\tSTATE\tNEXT\tSTABLE END\tLAG\tACCEPTED\tREJECTED\tWAITING\tSKIPPED\tCOMMITTED")
	for _, p := range s.Partitions {
		state := string(cmp.Or(p.State, "unclaimed"))
		if p.Reason != "" {
			state += ": " + p.Reason
		}
		fmt.Fprintf(out, "%s\t%d\t%s\t%s\t%s\t%s\t%d\t%d\t%d\t%d\t%s\n", p.Topic, p.Partition, state,
			number(p.Next), number(p.Stable), number(p.Lag), p.Accepted, p.Rejected, p.Waiting, p.Skipped, number(p.Committed))
	}
	var entries int64
	for _, o := range s.Outbox {
		entries += o.Entries
	}
	fmt.Fprintf(out, "\ngroup\t%s\noutbox\t%d batches to publish\n", s.Group, entries)
	if s.Catalogue.LoadedAt == nil {
		fmt.Fprintln(out, "catalogue\tnever loaded: learnsink catalog load DIR")
	} else {
		fmt.Fprintf(out, "catalogue\tversion %d, loaded %s ago\n", s.Catalogue.Version, time.Since(*s.Catalogue.LoadedAt).Round(time.Second))
	}
	return out.Flush()
}

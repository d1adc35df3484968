package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"learnsink/consumer"
	"learnsink/handlers"
	"learnsink/store"
)

// positionCommand is `position show` and `position set`.
func (a *app) positionCommand() *cobra.Command {
	cmd := group(&cobra.Command{Use: "position", Short: "show how far source partitions have come, or set it"})
	cmd.AddCommand(a.positionShowCommand(), a.positionSetCommand())
	return cmd
}

func (a *app) positionShowCommand() *cobra.Command {
	var topic, form string
	var history bool
	cmd := &cobra.Command{
		Use:   "show",
		Short: "show every partition's position, and what operators did to it",
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
			shown, err := showPositions(cmd.Context(), c, client, db, topic)
			if shown == nil {
				return err
			}
			var done []operationShown
			if history {
				operations, err := db.Operations(cmd.Context(), topic)
				if err != nil {
					return err
				}
				if done, err = showOperations(operations); err != nil {
					return err
				}
			}
			if form == "json" {
				encoder := json.NewEncoder(a.stdout)
				encoder.SetIndent("", "  ")
				return errors.Join(err, encoder.Encode(struct {
					Partitions []positionShown  `json:"partitions"`
					History    []operationShown `json:"history,omitempty"`
				}{shown, done}))
			}
			return errors.Join(err, tabulate(a.stdout, shown, done))
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&topic, "topic", "", "of this source topic alone")
	flags.StringVarP(&form, "format", "f", "table", "table or json")
	flags.BoolVar(&history, "history", false, "what operators did, too")
	return cmd
}

// positionShown is one partition's position. What is not known is null.
type positionShown struct {
	Topic       string         `json:"topic"`
	Partition   int            `json:"partition"`
	State       handlers.State `json:"state"`
	Reason      string         `json:"reason,omitempty"`
	Incarnation int            `json:"incarnation"`
	Round       int            `json:"round"`
	First       int64          `json:"first"`
	Next        int64          `json:"next"`
	Epoch       int64          `json:"epoch"`
	Published   *int64         `json:"published"` // where the published marker stands and counts
	Committed   *int64         `json:"committed"`
	LogStart    *int64         `json:"logStart"`
	Stable      *int64         `json:"stable"`
	Lag         *int64         `json:"lag"`
	Anchor      *int64         `json:"anchor"`
	ClusterID   string         `json:"clusterId"`
	UpdatedAt   time.Time      `json:"updatedAt"`
}

// showPositions asks the database and the brokers. Without brokers it returns
// what the database knows, and an error.
func showPositions(ctx context.Context, c *config, client *consumer.Client, db *store.Store, topic string) ([]positionShown, error) {
	positions, err := db.Positions(ctx)
	if err != nil {
		return nil, err
	}
	shown := []positionShown{}
	for _, p := range positions {
		if topic != "" && p.Topic != topic {
			continue
		}
		s := positionShown{Topic: p.Topic, Partition: p.Partition, State: p.State, Reason: p.StateReason, Incarnation: p.Incarnation, Round: p.Round,
			First: p.FirstOffset, Next: p.NextOffset, Epoch: p.Epoch, ClusterID: p.ClusterID, UpdatedAt: p.UpdatedAt}
		if p.Anchor.OK {
			s.Anchor = &p.Anchor.V.Offset
		}
		shown = append(shown, s)
	}
	return shown, patiently(ctx, func(ctx context.Context) error {
		l, err := readLogs(ctx, c, client, topic)
		if err != nil {
			return err
		}
		for i := range shown {
			l.addTo(&shown[i], positions)
		}
		return nil
	})
}

// logs is what the brokers know of source partitions.
type logs struct {
	cluster                       string
	start, stable, end, committed map[handlers.TopicPartition]int64
	markers                       map[handlers.TopicPartition]consumer.Marker
}

// readLogs asks the brokers about one source topic, or all of them.
func readLogs(ctx context.Context, c *config, client *consumer.Client, topic string) (*logs, error) {
	topics := c.reads()
	if topic != "" {
		topics = []string{topic}
	}
	cluster, err := client.ClusterID(ctx)
	if err != nil {
		return nil, err
	}
	l := &logs{cluster: cluster, start: map[handlers.TopicPartition]int64{}, stable: map[handlers.TopicPartition]int64{}, end: map[handlers.TopicPartition]int64{}}
	counts, err := client.Partitions(ctx, topics...)
	if err != nil {
		return nil, err
	}
	for topic := range counts {
		for _, ask := range []struct {
			of   func(context.Context, string) (map[int]int64, error)
			into map[handlers.TopicPartition]int64
		}{{client.StartOffsets, l.start}, {client.StableOffsets, l.stable}, {client.EndOffsets, l.end}} {
			offsets, err := ask.of(ctx, topic)
			if err != nil {
				return nil, err
			}
			for partition, offset := range offsets {
				ask.into[handlers.TopicPartition{Topic: topic, Partition: partition}] = offset
			}
		}
	}
	if l.committed, err = client.GroupOffsets(ctx, c.Group, topics...); err != nil {
		return nil, err
	}
	return l, l.readMarkers(ctx, c, client, topics...)
}

// readMarkers reads the published markers; with publish: at-least-once nobody
// else does, and they may be old.
func (l *logs) readMarkers(ctx context.Context, c *config, client *consumer.Client, topics ...string) (err error) {
	if c.Publish == string(consumer.Transactional) {
		l.markers, err = client.Markers(ctx, c.Group, topics...)
	}
	return err
}

// published returns where the published marker of a position stands; false
// where there is none that counts.
func (l *logs) published(p handlers.Position) (through int64, counts bool) {
	m, ok := l.markers[p.TopicPartition]
	return m.Through, ok && m.Round >= p.AnnouncedSince
}

// addTo adds what the brokers know to a position that is shown.
func (l *logs) addTo(s *positionShown, positions []handlers.Position) {
	tp := handlers.TopicPartition{Topic: s.Topic, Partition: s.Partition}
	known := func(offsets map[handlers.TopicPartition]int64) *int64 {
		if offset, ok := offsets[tp]; ok {
			return &offset
		}
		return nil
	}
	s.LogStart, s.Stable, s.Committed = known(l.start), known(l.stable), known(l.committed)
	if s.Stable != nil {
		lag := max(*s.Stable-s.Next, 0)
		s.Lag = &lag
	}
	for _, p := range positions {
		if through, counts := l.published(p); p.TopicPartition == tp && counts {
			s.Published = &through
		}
	}
}

// operationShown is a line of what operators did.
type operationShown struct {
	At        time.Time       `json:"at"`
	Actor     string          `json:"actor"`
	Verb      string          `json:"verb"`
	Topic     string          `json:"topic"`
	Partition int             `json:"partition"`
	Why       string          `json:"why,omitempty"`
	Detail    json.RawMessage `json:"detail"`
	what      string          // the detail in words
}

func showOperations(operations []store.Operation) ([]operationShown, error) {
	shown := []operationShown{}
	for i := range operations {
		o := &operations[i]
		set, ok, err := o.Set()
		if err != nil {
			return nil, err
		}
		what := string(o.Detail)
		if ok {
			what = fmt.Sprintf("%s from %d to %d, round %d", set.Mode, set.From.Offset, set.To.Offset, set.To.Round)
		}
		shown = append(shown, operationShown{o.At, o.Actor, o.Verb, o.Topic, o.Partition, o.Why, o.Detail, what})
	}
	return shown, nil
}

// tabulate prints positions and operations for people.
func tabulate(w io.Writer, positions []positionShown, operations []operationShown) error {
	number := func(n *int64) string {
		if n == nil {
			return "-"
		}
		return strconv.FormatInt(*n, 10)
	}
	out := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(out, "TOPIC\tPARTITION\tSTATE\tINCARNATION\tROUND\tFIRST\tNEXT\tPUBLISHED\tCOMMITTED\tLOG START\tSTABLE END\tLAG\tANCHOR\tEPOCH\tUPDATED")
	for _, p := range positions {
		state := string(p.State)
		if p.Reason != "" {
			state += ": " + p.Reason
		}
		fmt.Fprintf(out, "%s\t%d\t%s\t%d\t%d\t%d\t%d\t%s\t%s\t%s\t%s\t%s\t%s\t%d\t%s\n", p.Topic, p.Partition, state, p.Incarnation, p.Round, p.First, p.Next,
			number(p.Published), number(p.Committed), number(p.LogStart), number(p.Stable), number(p.Lag), number(p.Anchor), p.Epoch, p.UpdatedAt.Format(time.RFC3339))
	}
	if operations != nil {
		fmt.Fprintln(out, "\nDONE AT\tBY\tVERB\tTOPIC\tPARTITION\tWHAT\tWHY")
	}
	for _, o := range operations {
		fmt.Fprintf(out, "%s\t%s\t%s\t%s\t%d\t%s\t%s\n", o.At.Format(time.RFC3339), oneLine(o.Actor), o.Verb, o.Topic, o.Partition, o.what, cmp.Or(oneLine(o.Why), "-"))
	}
	return out.Flush()
}

// oneLine keeps what people have written within its cell.
func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }

// sourceNamed returns the source of a topic; nil where there is none. That of
// the replay topic stands for all of them.
func (c *config) sourceNamed(topic string) *handlers.Source {
	if replays := c.replays(); replays != nil && topic == replays.Topic {
		return replays.None
	}
	for _, s := range c.Sources {
		if s.Topic == topic {
			return s
		}
	}
	return nil
}

package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"learnsink/consumer"
	"learnsink/handlers"
	"learnsink/store"
)

// positionSetCommand is `position set`.
func (a *app) positionSetCommand() *cobra.Command {
	var f operatorFlags
	var s setter
	var to string
	cmd := &cobra.Command{
		Use:   "set --topic TOPIC [--partition N|all] --to OFFSET|beginning|end|TIME [flags]",
		Short: "set the next offset that is applied",
		Long: `set moves the positions of source partitions, while learnsink serve runs or not. --to is an
offset, the beginning or the (stable) end of the log, or a time (RFC 3339): the first row
written at or after it.

Forward, the rows between are skipped: they have no outcome. Backward, they are judged
again, by the settings and the catalogue of now, and it has to be said which:

  --republish   they are announced again, under the ids that they have
  --silent      what was announced of them stays, and nothing is announced again

--new-log says that the log is another one than the position speaks of (the topic was made
anew, or learnsink was pointed at another cluster): its rows are all new, and their ids
carry the incarnation, as in learning.tracking~2-0-17.

Without --execute it only shows what would be done, and which rows would be judged
otherwise than they were.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := errors.Join(f.check(), s.check()); err != nil {
				return err
			}
			var err error
			if s.target, err = parseTarget(to); err != nil {
				return err
			}
			s.app, s.flags = a, &f
			return s.run(cmd.Context())
		},
	}
	f.add(cmd)
	flags := cmd.Flags()
	flags.StringVar(&to, "to", "", "offset, beginning, end, or time (RFC 3339) (required)")
	flags.BoolVar(&s.republish, "republish", false, "backward: announce the rows again")
	flags.BoolVar(&s.silent, "silent", false, "backward: announce nothing again")
	flags.BoolVar(&s.newLog, "new-log", false, "the log is another one than the position speaks of")
	return cmd
}

// target is where --to points.
type target struct {
	which byte // b eginning, e nd, @ time, n umber
	at    int64
	time  time.Time
}

func parseTarget(text string) (target, error) {
	switch text {
	case "":
		return target{}, badCall("--to is missing: say an offset, beginning, end, or a time (RFC 3339)")
	case "beginning":
		return target{which: 'b'}, nil
	case "end":
		return target{which: 'e'}, nil
	}
	if n, err := strconv.ParseInt(text, 10, 64); err == nil && n >= 0 {
		return target{which: 'n', at: n}, nil
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return target{}, badCall("--to %q is not an offset, beginning, end, or a time such as 2024-06-05T12:00:00Z", text)
	}
	return target{which: '@', time: t}, nil
}

// setter sets positions.
type setter struct {
	app                       *app
	flags                     *operatorFlags
	target                    target
	republish, silent, newLog bool

	config *config
	db     *store.Store
	client *consumer.Client
	// takeOver makes this process a partition's owner (consumer.TakeOver).
	takeOver func(ctx context.Context, tp handlers.TopicPartition, clusterID string) (handlers.Position, error)
}

func (s *setter) check() error {
	switch {
	case s.republish && s.silent:
		return badCall("--republish and --silent: say one of them")
	case s.newLog && (s.republish || s.silent):
		return badCall("--new-log: the rows of another log are all new, and announced: leave out --republish and --silent")
	}
	return nil
}

// takeOverPatience is how long the brokers and the database may take to let a
// partition be taken over.
const takeOverPatience = time.Minute

// run previews every partition, and then, one by one, sets it.
func (s *setter) run(ctx context.Context) (err error) {
	if s.config, err = s.app.load(); err != nil {
		return err
	}
	source := s.config.sourceNamed(s.flags.topic)
	if source == nil {
		return badCall("--topic %q is no source of this configuration", s.flags.topic)
	}
	if s.db, err = s.config.openStore(ctx); err != nil {
		return err
	}
	defer s.db.Close()
	log := s.app.logger(s.config).Level(max(s.config.LogLevel, zerolog.WarnLevel))
	worker, err := consumer.New(s.config.consumer(), s.db, log, nil)
	if err != nil {
		return callError{err}
	}
	s.client, s.takeOver = worker.Client(), worker.TakeOver
	defer s.client.Close()

	positions, err := s.db.Positions(ctx)
	if err != nil {
		return err
	}
	chosen, err := s.flags.choose(positions)
	if err != nil {
		return err
	}
	l, to, err := s.ask(ctx)
	if err != nil {
		return err
	}
	var faults []error
	var plans []*plan
	for _, p := range chosen {
		plan, err := s.plan(l, source, p, to, false)
		if err != nil {
			faults = append(faults, fmt.Errorf("%s/%d: %w", p.Topic, p.Partition, err))
			continue
		}
		plans = append(plans, plan)
		if err := s.preview(ctx, plan); err != nil {
			return err
		}
	}
	if len(faults) > 0 {
		return errors.Join(faults...)
	}
	s.app.notDone(s.flags.execute)
	if !s.flags.execute {
		return nil
	}
	for _, plan := range plans {
		if err := s.set(ctx, l, plan); err != nil {
			return fmt.Errorf("%s/%d: %w", plan.position.Topic, plan.position.Partition, err)
		}
	}
	return nil
}

// ask asks the brokers about the topic, and where in each partition --to is.
func (s *setter) ask(ctx context.Context) (l *logs, to map[int]int64, err error) {
	err = patiently(ctx, func(ctx context.Context) error {
		if l, err = readLogs(ctx, s.config, s.client, s.flags.topic); err != nil {
			return err
		}
		switch s.target.which {
		case 'b':
			to, err = s.client.StartOffsets(ctx, s.flags.topic)
		case '@':
			to, err = s.client.OffsetsAt(ctx, s.flags.topic, s.target.time)
		default:
			to, err = s.client.StableOffsets(ctx, s.flags.topic)
		}
		for partition := range to {
			if s.target.which == 'n' {
				to[partition] = s.target.at
			}
		}
		return err
	})
	return l, to, err
}

// plan is what setting one position comes to.
type plan struct {
	source     *handlers.Source
	position   handlers.Position
	to         int64
	mode       store.Mode // "": it stands there already
	start, end int64      // what the log holds, as read_committed readers see it
	cluster    string
	published  int64 // where the marker stands and counts, else 0
}

// plan finds out what setting a position comes to, or why it is refused; taken
// says whether the partition was taken over for it.
func (s *setter) plan(l *logs, source *handlers.Source, p handlers.Position, to map[int]int64, taken bool) (*plan, error) {
	tp := p.TopicPartition
	published, counts := l.published(p)
	if !counts {
		published = 0
	}
	n := &plan{source: source, position: p, start: l.start[tp], end: l.stable[tp], cluster: l.cluster, published: published}
	var there bool
	if n.to, there = to[p.Partition]; !there {
		return nil, errors.New("the topic has no such partition")
	}
	switch {
	case n.to < n.start || n.to > n.end:
		return nil, badCall("offset %d is not in the log, which holds %d to %d", n.to, n.start, n.end)
	case s.newLog:
		n.mode = store.NewLog
		return n, nil
	case p.ClusterID != l.cluster:
		return nil, badCall("the position is of the cluster %s, and this is %s: point learnsink back, or say --new-log if the topic here takes its place", p.ClusterID, l.cluster)
	case p.State == handlers.LogDiverged:
		return nil, badCall("the log is not the one that was applied (%s): say --new-log if its rows are to be taken as new ones", p.StateReason)
	case p.NextOffset > l.end[tp]:
		return nil, badCall("the position is at %d, past the end of the log at %d, which is another one then, or was cut: say --new-log if its rows are to be taken as new ones", p.NextOffset, l.end[tp])
	case n.to > p.NextOffset:
		n.mode = store.Forward
	case n.to == p.NextOffset:
	case s.republish:
		n.mode = store.Republish
	case !s.silent:
		return nil, badCall("from offset %d back to %d: say --republish (the rows are judged and announced again, under the ids that they have) or --silent (they are judged again; what was announced stays, and nothing is announced again)", p.NextOffset, n.to)
	case !s.marked(counts, taken):
		return nil, errNoMarker(s.config)
	default:
		n.mode = store.Silent
	}
	return n, nil
}

// marked reports whether there is, or will be, a published marker that says
// what was announced: taking the partition over writes one that is gone.
func (s *setter) marked(counts, taken bool) bool {
	return s.config.Publish == string(consumer.Transactional) && (counts || !taken)
}

// errNoMarker says why nothing can be kept silent.
func errNoMarker(c *config) error {
	if c.Publish == string(consumer.AtLeastOnce) {
		return badCall("--silent: publish: at-least-once keeps no published marker, so nothing tells what was announced: say --republish; the ids are the same, and readers drop repeats by them")
	}
	return badCall("--silent: there is no published marker, so nothing tells what was announced: say --republish; the ids are the same")
}

// preview shows what a plan comes to.
func (s *setter) preview(ctx context.Context, n *plan) error {
	p, say := n.position, s.say
	if n.mode == "" {
		say("%s/%d is at offset %d already", p.Topic, p.Partition, p.NextOffset)
		return nil
	}
	say("%s/%d: from offset %d to %d; the log holds %d to %d", p.Topic, p.Partition, p.NextOffset, n.to, n.start, n.end)
	if p.State.Held() {
		say("  it stays %s until `learnsink partition resume`", p.State)
	}
	switch n.mode {
	case store.Forward:
		say("  forward: %d offsets are skipped, %d of which the log holds; their rows will have no outcome", n.to-p.NextOffset, n.to-max(p.NextOffset, min(n.start, n.to)))
		return nil
	case store.NewLog:
		say("  another log: the rows from offset %d on are new ones, with ids such as %s-%d-%d", n.to, idTopic(p.Topic, p.Incarnation+1), p.Partition, n.to)
		return nil
	case store.Republish:
		say("  back by %d offsets: their rows are judged again, and announced again under the ids that they have", p.NextOffset-n.to)
	case store.Silent:
		say("  back by %d offsets: their rows are judged again; what was announced of them stays, and nothing is announced again", p.NextOffset-n.to)
	}
	if err := s.previewCut(ctx, n); err != nil {
		return err
	}
	return s.previewVerdicts(ctx, n)
}

func (s *setter) say(format string, args ...any) { fmt.Fprintf(s.app.stdout, format+"\n", args...) }

// previewCut says whose rows outcome_daily will count twice.
func (s *setter) previewCut(ctx context.Context, n *plan) error {
	return s.db.Ledger(ctx, n.log(), n.to, n.to+1, func(l store.LedgerLine) error {
		if l.From < n.to && l.Accepted+l.Rejected+l.Waiting > 0 {
			s.say("  the batch of offsets %d to %d stays in the ledger: outcome_daily counts its rows from %d on twice", l.From, l.To-1, n.to)
		}
		return nil
	})
}

// log names the log that the position is of.
func (n *plan) log() store.Log {
	return store.Log{TopicPartition: n.position.TopicPartition, Incarnation: n.position.Incarnation}
}

// set takes a partition over and sets its position. The owner that is fenced
// off by that claims it again, soon: then it is tried once more.
func (s *setter) set(ctx context.Context, l *logs, n *plan) error {
	if n.mode == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, takeOverPatience)
	defer cancel()
	for {
		err := s.trySet(ctx, l, n)
		if !errors.Is(err, handlers.ErrFenced) || ctx.Err() != nil {
			return err
		}
	}
}

// trySet plans once more what was planned, since the position may have gone
// on: an owner that runs applies until it is fenced. It is quick about it.
func (s *setter) trySet(ctx context.Context, l *logs, n *plan) error {
	p, err := s.takeOver(ctx, n.position.TopicPartition, n.position.ClusterID)
	if err != nil {
		return err
	}
	if err := l.readMarkers(ctx, s.config, s.client, p.Topic); err != nil {
		return err
	}
	if n.mode == store.Forward && p.NextOffset >= n.to {
		s.say("%s/%d has come to offset %d by itself", p.Topic, p.Partition, p.NextOffset)
		return nil
	}
	l.end[p.TopicPartition] = max(l.end[p.TopicPartition], p.NextOffset) // the log has grown with it
	now, err := s.plan(l, n.source, p, map[int]int64{p.Partition: n.to}, true)
	if err != nil {
		return fmt.Errorf("it has changed since it was looked at: %w", err)
	}
	done, err := s.db.SetPosition(ctx, store.PositionChange{
		TopicPartition: p.TopicPartition, Epoch: p.Epoch, To: now.to, Mode: now.mode, ClusterID: now.cluster, Published: now.published,
		Round: l.markers[p.TopicPartition].Round, Action: n.source.Rules.Action(), Operator: s.flags.operator(),
	})
	if err != nil {
		return err
	}
	held := ""
	if p.State.Held() {
		held = ", and stays " + string(p.State)
	}
	s.say("%s/%d is set from offset %d to %d: round %d, incarnation %d%s", p.Topic, p.Partition,
		done.From.Offset, done.To.Offset, done.To.Round, done.To.Incarnation, held)
	return nil
}

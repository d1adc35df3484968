package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/spf13/cobra"

	"learnsink/cmd/learnsink/dlq"
	"learnsink/consumer"
	"learnsink/handlers"
	"learnsink/store"
)

// fromTopic is where dead letters are read that the table does not hold.
type fromTopic struct {
	set      bool
	from, to string
}

func (f *fromTopic) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.BoolVar(&f.set, "from-topic", false, "replay dead letters that the table does not hold any more, from the dead-letter topics")
	flags.StringVar(&f.from, "from", "", "with --from-topic: from an offset, beginning, or a time (RFC 3339) on (default: beginning)")
	flags.StringVar(&f.to, "to", "", "with --from-topic: up to an offset, end, or a time, which is not meant any more (default: end)")
}

func (f *fromTopic) check() error {
	if f.from != "" || f.to != "" {
		return badCall("--from and --to are about dead-letter topics: say --from-topic, or --since and --until for when rows were rejected")
	}
	return nil
}

// fromTopicBytes bounds what is kept in memory of dead letters that are read
// from topics.
const fromTopicBytes = 256 << 20

// runFromTopic replays dead letters from topics.
func (r *replayer) runFromTopic(ctx context.Context, f *fromTopic, sel *dlqSelection, args []string) error {
	filter, err := sel.filter(args...)
	if err != nil {
		return err
	}
	rest := filter
	rest.IDs, rest.Topic, rest.States = nil, "", nil
	if rest.Selects() {
		return badCall("--from-topic takes ids, --topic, --from and --to alone: a topic cannot be asked for more")
	}
	from, err := parseBound("--from", f.from, "beginning")
	if err != nil {
		return err
	}
	to, err := parseBound("--to", f.to, "end")
	if err != nil {
		return err
	}
	if err := r.open(ctx); err != nil {
		return err
	}
	defer r.db.Close()
	client, err := r.config.client()
	if err != nil {
		return err
	}
	defer client.Close()
	s := &topicSearch{client: client, db: r.db, from: from, to: to, newest: map[string]newestAttempt{}}
	for _, id := range filter.IDs {
		if s.ids == nil {
			s.ids = map[string]bool{}
		}
		s.ids[id] = true
	}
	if s.topics = deadLetterTopics(r.config.Sources); filter.Topic != "" {
		s.topics = []string{filter.Topic}
	}
	found, err := s.find(ctx)
	if err != nil {
		return err
	}
	plan, diffs, err := r.plan(ctx, found.pages())
	if err != nil {
		return err
	}
	r.refused = found.refused
	asked := map[string]any{"fromTopic": s.topics}
	for name, text := range map[string]string{"from": f.from, "to": f.to} {
		if text != "" {
			asked[name] = text
		}
	}
	if len(filter.IDs) > 0 {
		asked["ids"] = len(filter.IDs)
	}
	selection, err := json.Marshal(asked)
	if err != nil {
		return err
	}
	r.prepare = func(ctx context.Context, plan *dlq.Plan) error { return found.putBack(ctx, r, plan) }
	return r.finish(ctx, plan, diffs, selection)
}

// deadLetterTopics returns the dead-letter topics of sources.
func deadLetterTopics(sources []*handlers.Source) (topics []string) {
	for _, s := range sources {
		if !slices.Contains(topics, s.DeadLetterTopic) {
			topics = append(topics, s.DeadLetterTopic)
		}
	}
	return topics
}

// parseBound reads --from or --to as `position set --to` does.
func parseBound(flag, text, otherwise string) (target, error) {
	if text == "" {
		text = otherwise
	}
	t, err := parseTarget(text)
	if err != nil {
		return t, badCall("%s %q is not an offset, beginning, end, or a time such as 2024-06-05T12:00:00Z", flag, text)
	}
	return t, nil
}

// topicSearch looks for dead letters in topics.
type topicSearch struct {
	client   *consumer.Client
	db       *store.Store
	topics   []string
	from, to target
	ids      map[string]bool // these; nil: all

	newest map[string]newestAttempt
}

// newestAttempt is where the newest attempt of a dead letter lies.
type newestAttempt struct {
	handlers.TopicPartition
	offset  int64
	attempt int
}

// topicFinds are what was found.
type topicFinds struct {
	letters []store.Letter
	found   map[string]dlq.TopicLetter // by id, those that the table does not hold
	refused []string
}

// find reads the topics twice: which attempts there are, and then the newest
// of each id that the table does not hold.
func (s *topicSearch) find(ctx context.Context) (*topicFinds, error) {
	f := &topicFinds{found: map[string]dlq.TopicLetter{}}
	refuse := func(format string, args ...any) { f.refused = append(f.refused, fmt.Sprintf(format, args...)) }
	strange := 0
	err := s.each(ctx, func(rec *handlers.Record) error {
		id, attempt, err := dlq.TopicLetterID(rec)
		if err != nil {
			if strange++; strange <= 5 {
				refuse("%v", err)
			}
			return nil
		}
		if s.ids != nil && !s.ids[id] {
			return nil
		}
		if n, ok := s.newest[id]; !ok || attempt >= n.attempt {
			s.newest[id] = newestAttempt{handlers.TopicPartition{Topic: rec.Topic, Partition: rec.Partition}, rec.Offset, attempt}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if strange > 5 {
		refuse("and %d more records that are no dead letters", strange-5)
	}
	for _, id := range slices.Sorted(maps.Keys(s.ids)) {
		if _, ok := s.newest[id]; !ok {
			refuse("%s: no dead letter of that id is there", id)
		}
	}
	if err := s.held(ctx, f); err != nil {
		return nil, err
	}
	bytes := 0
	err = s.each(ctx, func(rec *handlers.Record) error {
		id, _, err := dlq.TopicLetterID(rec)
		n, ok := s.newest[id]
		if err != nil || !ok || n.TopicPartition != (handlers.TopicPartition{Topic: rec.Topic, Partition: rec.Partition}) || n.offset != rec.Offset {
			return nil
		}
		found, err := dlq.ReadTopicLetter(rec)
		switch {
		case err != nil:
			refuse("%v", err)
			return nil
		case found.Truncated:
			refuse("%s: it lies in %s/%d at offset %d without its value, which did not fit: it has to be sent again by its sender", id, rec.Topic, rec.Partition, rec.Offset)
			return nil
		}
		if bytes += len(rec.Key) + len(rec.Value); bytes > fromTopicBytes {
			return badCall("these are more than %d MB of dead letters: take fewer at once, by --from and --to", fromTopicBytes>>20)
		}
		f.found[id] = found
		f.letters = append(f.letters, found.Letter)
		return nil
	})
	slices.SortFunc(f.letters, store.CompareLetters)
	return f, err
}

// held takes those that the table holds from there: they are not looked for any more.
func (s *topicSearch) held(ctx context.Context, f *topicFinds) error {
	for ids := range slices.Chunk(slices.Sorted(maps.Keys(s.newest)), 1000) {
		letters, err := s.db.LettersHeld(ctx, ids)
		if err != nil {
			return err
		}
		for i := range letters {
			l := &letters[i]
			delete(s.newest, l.Of)
			f.letters = append(f.letters, l.Letter)
		}
	}
	return nil
}

// each reads what the topics hold between from and to, read_committed.
func (s *topicSearch) each(ctx context.Context, fn func(*handlers.Record) error) error {
	for _, topic := range s.topics {
		starts, err := s.client.StartOffsets(ctx, topic)
		if err != nil {
			return err
		}
		ends, err := s.client.StableOffsets(ctx, topic)
		if err != nil {
			return err
		}
		from, err := s.from.offsets(ctx, s.client, topic, starts, ends)
		if err != nil {
			return err
		}
		to, err := s.to.offsets(ctx, s.client, topic, starts, ends)
		if err != nil {
			return err
		}
		for _, p := range slices.Sorted(maps.Keys(ends)) {
			if err := s.client.ReadRange(ctx, topic, p, max(from[p], starts[p]), min(to[p], ends[p]), fn); err != nil {
				return err
			}
		}
	}
	return nil
}

// offsets returns where a target is in each partition of a topic.
func (t target) offsets(ctx context.Context, client *consumer.Client, topic string, starts, ends map[int]int64) (map[int]int64, error) {
	switch t.which {
	case 'b':
		return starts, nil
	case 'e':
		return ends, nil
	case '@':
		return client.OffsetsAt(ctx, topic, t.time)
	}
	at := map[int]int64{}
	for p := range ends {
		at[p] = t.at
	}
	return at, nil
}

// pages hands out what was found, in the order in which a job sends it.
func (f *topicFinds) pages() dlq.Pages {
	return func(yield func([]store.Letter, error) bool) {
		for page := range slices.Chunk(f.letters, 1000) {
			if !yield(page, nil) {
				return
			}
		}
	}
}

// putBack puts those of a plan back into the table that it does not hold.
func (f *topicFinds) putBack(ctx context.Context, r *replayer, plan *dlq.Plan) error {
	var lost []store.LostLetter
	for _, id := range plan.IDs() {
		if found, ok := f.found[id]; ok {
			lost = append(lost, store.LostLetter{Letter: found.Letter, Source: r.config.sourceNamed(found.Record.Topic), Errors: found.Errors, Rules: found.Rules})
		}
	}
	n, err := r.db.PutBack(ctx, lost)
	if err == nil && n > 0 {
		r.app.warn("%s put back into the table", counted(n, "dead letter"))
	}
	return err
}

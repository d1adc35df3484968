package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"learnsink/handlers"
	"learnsink/store"
)

// verdicts compares what rows were judged to be with what they would be now.
type verdicts struct {
	source    *handlers.Source
	replays   *handlers.Replays // nil but of the replay topic, where each row names its source
	log       store.Log
	db        *store.Store
	stretches []stretch
	kept      int64 // before it, what was rejected is no longer known
	now       time.Time

	rows, fresh, unknown int64 // judged; that an operator had skipped; whose verdict is no longer known
	changed              int64
	lines                []string // of the first that changed
}

// How many rows are judged by one question to the catalogue, and how many
// changed verdicts are listed.
const (
	verdictRows  = 1000
	verdictsMost = 20
)

// previewVerdicts judges the rows that a plan goes back over, as serve would,
// and lists those whose verdict would be another.
func (s *setter) previewVerdicts(ctx context.Context, n *plan) error {
	p := n.position
	operations, err := s.db.Operations(ctx, p.Topic)
	if err != nil {
		return err
	}
	sets, err := positionSets(operations)
	if err != nil {
		return err
	}
	v := &verdicts{source: n.source, log: n.log(), db: s.db, now: time.Now(), kept: p.NextOffset,
		stretches: stretches(legs(n.log(), p, sets[p.TopicPartition]))}
	if replays := s.config.replays(); replays != nil && replays.Topic == p.Topic {
		v.replays = replays
	}
	kept, ok, err := s.db.JudgedSince(ctx, v.log, v.now.Add(-s.config.Retention))
	if err != nil {
		return err
	}
	if ok {
		v.kept = kept
	}
	var records []handlers.Record
	flush := func() error {
		defer func() { records = records[:0] }()
		return v.judge(ctx, records)
	}
	err = s.client.ReadRange(ctx, p.Topic, p.Partition, n.to, min(p.NextOffset, n.end), func(r *handlers.Record) error {
		if records = append(records, *r); len(records) < verdictRows {
			return nil
		}
		return flush()
	})
	if err == nil {
		err = flush()
	}
	if err != nil {
		return err
	}
	v.print(s.say)
	return nil
}

// judge judges rows and compares.
func (v *verdicts) judge(ctx context.Context, records []handlers.Record) error {
	for len(records) > 0 {
		source, n := v.source, len(records)
		if v.replays != nil {
			source, n = v.replays.Of(&records[0]).Source, 1
			for n < len(records) && v.replays.Of(&records[n]).Source == source {
				n++
			}
		}
		if err := v.judgeOf(ctx, source, records[:n]); err != nil {
			return err
		}
		records = records[n:]
	}
	return nil
}

// judgeOf is judge, of rows of one source.
func (v *verdicts) judgeOf(ctx context.Context, source *handlers.Source, records []handlers.Record) error {
	decoder, refs := source.Rules.Decoder(), handlers.NewReferences()
	rows := make([]handlers.Row, len(records))
	for i := range records {
		records[i].Incarnation = v.log.Incarnation
		decoder.Decode(&rows[i], &records[i], handlers.EventTime(&records[i], source.EventTimeHeader, v.now))
		if v.replays != nil {
			says := handlers.ReplayOf(&records[i])
			rows[i].Replays(&says)
		}
		rows[i].Refer(refs)
	}
	facts, err := v.db.Facts(ctx, refs)
	if err != nil {
		return err
	}
	decisions := source.Rules.DecideAll(rows, facts)
	if v.replays != nil && source == v.replays.None {
		for i := range decisions {
			decisions[i] = source.Rules.NoSource(decisions[i].Record, decisions[i].EventTime, decisions[i].Replay)
		}
	}
	if err := v.db.Settle(ctx, source, decisions); err != nil {
		return err
	}
	were, err := v.db.RejectedCodes(ctx, v.log, records[0].Offset, records[len(records)-1].Offset+1)
	if err != nil {
		return err
	}
	for i := range decisions {
		v.compare(&decisions[i], were[records[i].Offset])
	}
	return nil
}

// compare compares a decision with the codes that the row was rejected with.
func (v *verdicts) compare(d *handlers.Decision, codes []string) {
	offset := d.Record.Offset
	v.rows++
	switch {
	case !stretchAt(v.stretches, offset).judged:
		v.fresh++
		return
	case codes == nil && (offset < v.kept || d.Verdict == handlers.Gone): // it may have been erased before, or accepted
		v.unknown++
		return
	case slices.Equal(codes, []string{string(handlers.DatabaseRefused)}) && d.Verdict == handlers.Accepted:
		return // the database alone can tell, and will
	}
	was, now := v.text(codes, len(d.Record.Value) == 0 && d.Verdict == handlers.Ignored), v.text(codesOf(d), d.Verdict == handlers.Ignored)
	if d.Verdict == handlers.Gone {
		now = "erased"
	}
	if was == now {
		return
	}
	if v.changed++; v.changed <= verdictsMost {
		v.lines = append(v.lines, fmt.Sprintf("    offset %d: %s, now %s", offset, was, now))
	}
}

// codesOf returns the codes of a rejection, each once, as the table has them.
func codesOf(d *handlers.Decision) (codes []string) {
	for _, e := range d.Errors {
		if !slices.Contains(codes, string(e.Code)) {
			codes = append(codes, string(e.Code))
		}
	}
	return codes
}

// text says what became of a row with these codes.
func (v *verdicts) text(codes []string, ignored bool) string {
	lacking := !slices.ContainsFunc(codes, func(c string) bool { return !handlers.Code(c).Lacking() })
	switch {
	case len(codes) > 0 && lacking && v.source.Wait > 0:
		return "waiting (" + strings.Join(codes, ", ") + ")"
	case len(codes) > 0:
		return "rejected (" + strings.Join(codes, ", ") + ")"
	case ignored:
		return "ignored"
	}
	return "accepted"
}

func (v *verdicts) print(say func(format string, args ...any)) {
	if v.fresh > 0 {
		say("  %d rows were skipped before, and are judged for the first time", v.fresh)
	}
	if v.unknown > 0 {
		say("  of %d rows before offset %d it is not known whether they were rejected: rejections are not kept that long", v.unknown, v.kept)
	}
	say("  %d of %d rows would be judged otherwise than they were", v.changed, v.rows)
	for _, line := range v.lines {
		say("%s", line)
	}
	if more := v.changed - int64(len(v.lines)); more > 0 {
		say("    and %d more", more)
	}
}

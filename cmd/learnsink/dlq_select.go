package main

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"learnsink/handlers"
	"learnsink/store"
)

// dlqSelection are the flags by which the verbs of dlq are told which
// rejections are meant. All that is given has to fit.
type dlqSelection struct {
	ids, groups, states, codes, fields []string
	action, value, learner, teacher    string
	sender                             string
	since, until                       string
	topic, partition, offsets          string
	job                                int64

	cmd   *cobra.Command
	usual []store.RejectionState
}

// selectionHelp says in a verb's help what the flags do.
const selectionHelp = `
Which rejections: all that is given has to fit, of a flag given several times one. --group,
--code, --field and --value are about one and the same message. --learner is a login, a
reference number or an e-mail, --teacher a login, as rows say it. --since and --until are
when rows were rejected: a time (RFC 3339, or a date, in UTC) or how long ago (90m, 2h, 7d).`

// add adds the flags. states are those that are meant unless --state says others.
func (s *dlqSelection) add(cmd *cobra.Command, states ...store.RejectionState) {
	s.cmd, s.usual = cmd, states
	flags := cmd.Flags()
	flags.StringArrayVar(&s.ids, "id", nil, "this rejection (may be repeated)")
	flags.StringArrayVar(&s.groups, "group", nil, "of this group: the key that dlq groups prints (may be repeated)")
	flags.StringSliceVar(&s.states, "state", nil, "in one of these states, or all (default "+strings.Join(words(states), ",")+")")
	flags.StringVar(&s.action, "action", "", "tracking or intervention")
	flags.StringSliceVar(&s.codes, "code", nil, "with one of these codes")
	flags.StringArrayVar(&s.fields, "field", nil, "with a message that blames this column (may be repeated)")
	flags.StringVar(&s.value, "value", "", "with a message about this value, as dlq groups and dlq show print it")
	flags.StringVar(&s.sender, "sender", "", "from this sender (ce_source); '' is those that name none")
	flags.StringVar(&s.learner, "learner", "", "about this learner")
	flags.StringVar(&s.teacher, "teacher", "", "about this teacher")
	flags.StringVar(&s.since, "since", "", "rejected since")
	flags.StringVar(&s.until, "until", "", "rejected before")
	flags.StringVar(&s.topic, "topic", "", "from this source topic")
	flags.StringVar(&s.partition, "partition", "", "from this partition of --topic")
	flags.StringVar(&s.offsets, "offset", "", "from these offsets of --topic: N, FROM..TO, FROM.. or ..TO, both included")
	flags.Int64Var(&s.job, "job", 0, "sent by this job last")
}

// filter reads the flags, and ids given as arguments. An error is one of the call.
func (s *dlqSelection) filter(args ...string) (f store.RejectionFilter, err error) {
	f = store.RejectionFilter{IDs: slices.Concat(args, s.ids), Groups: s.groups, Action: handlers.Action(s.action), Fields: s.fields,
		Value: s.value, Learner: s.learner, Teacher: s.teacher, Topic: s.topic, Job: s.job}
	for _, code := range s.codes {
		f.Codes = append(f.Codes, handlers.Code(code))
	}
	if s.cmd.Flags().Changed("sender") {
		f.Sender = &s.sender
	}
	f.States = s.usual
	if s.cmd.Flags().Changed("state") {
		f.States = nil
		for _, state := range s.states {
			f.States = append(f.States, store.RejectionState(state))
		}
		if slices.Equal(s.states, []string{"all"}) {
			f.States = nil
		}
	}
	now := time.Now()
	if f.Since, err = parseWhen("--since", s.since, now); err != nil {
		return f, err
	}
	if f.Until, err = parseWhen("--until", s.until, now); err != nil {
		return f, err
	}
	if s.partition != "" {
		n, err := strconv.ParseInt(s.partition, 10, 32)
		if err != nil || n < 0 {
			return f, badCall("--partition %q is not the number of a partition", s.partition)
		}
		partition := int(n)
		f.Partition = &partition
	}
	if f.From, f.To, err = parseOffsets(s.offsets); err != nil {
		return f, err
	}
	if err := f.Check(); err != nil {
		return f, callError{err}
	}
	return f, nil
}

// words are states as flags have them.
func words(states []store.RejectionState) []string {
	if len(states) == 0 {
		return []string{"all"}
	}
	var all []string
	for _, s := range states {
		all = append(all, string(s))
	}
	return all
}

// parseWhen reads a time, or how long before now. "" is none.
func parseWhen(flag, text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if t, err := time.Parse(layout, text); err == nil {
			return t, nil
		}
	}
	if days, ok := strings.CutSuffix(text, "d"); ok {
		if n, err := strconv.ParseUint(days, 10, 15); err == nil {
			return now.AddDate(0, 0, -int(n)), nil
		}
	}
	if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	return time.Time{}, badCall("%s %q is not a time such as 2026-03-01 or 2026-03-01T08:00:00Z, or how long ago, such as 90m, 2h or 7d", flag, text)
}

// parseOffsets reads N, FROM..TO, FROM.. or ..TO. "" is all.
func parseOffsets(text string) (from, to *int64, err error) {
	if text == "" {
		return nil, nil, nil
	}
	first, last, ranged := strings.Cut(text, "..")
	if !ranged {
		last = first
	}
	bad := badCall("--offset %q is not N, FROM..TO, FROM.. or ..TO", text)
	read := func(text string) (*int64, error) {
		if text == "" {
			return nil, nil
		}
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || n < 0 {
			return nil, bad
		}
		return &n, nil
	}
	if from, err = read(first); err != nil {
		return nil, nil, err
	}
	if to, err = read(last); err != nil {
		return nil, nil, err
	}
	if from == nil && to == nil || from != nil && to != nil && *from > *to {
		return nil, nil, bad
	}
	return from, to, nil
}

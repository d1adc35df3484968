package main

import (
	"fmt"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"learnsink/handlers"
	"learnsink/store"
)

// operatorFlags are what the verbs take by which an operator changes
// partitions: each is previewed, done with --execute, and noted.
type operatorFlags struct {
	topic, partition, why string
	execute               bool
}

func (f *operatorFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.topic, "topic", "", "the source topic (required)")
	flags.StringVar(&f.partition, "partition", "all", "one partition, or all of the topic's")
	flags.StringVar(&f.why, "why", "", "the reason, for those who read it later")
	flags.BoolVar(&f.execute, "execute", false, "do it; else it is only shown")
}

// check refuses a call that cannot be meant.
func (f *operatorFlags) check() error {
	if f.topic == "" {
		return badCall("--topic is missing: say which source topic")
	}
	if f.partition != "all" {
		if n, err := strconv.Atoi(f.partition); err != nil || n < 0 {
			return badCall("--partition %q is not the number of a partition, or all", f.partition)
		}
	}
	return nil
}

// operator is who calls, and why.
func (f *operatorFlags) operator() store.Operator { return store.Operator{Actor: actor(), Why: f.why} }

// choose returns the positions that are meant.
func (f *operatorFlags) choose(positions []handlers.Position) (chosen []handlers.Position, err error) {
	var topics []string
	for _, p := range positions {
		if p.Topic == f.topic && (f.partition == "all" || strconv.Itoa(p.Partition) == f.partition) {
			chosen = append(chosen, p)
		}
		if !slices.Contains(topics, p.Topic) {
			topics = append(topics, p.Topic)
		}
	}
	switch {
	case len(chosen) > 0:
		return chosen, nil
	case len(topics) == 0:
		return nil, badCall("nothing has a position yet: `learnsink serve` has not begun")
	case !slices.Contains(topics, f.topic):
		return nil, badCall("--topic %q has no position; there are those of %s", f.topic, strings.Join(topics, ", "))
	}
	return nil, badCall("partition %s of %s has no position: `learnsink serve` has never claimed it", f.partition, f.topic)
}

// actor is the user of this machine.
func actor() string {
	if u, err := user.Current(); err == nil && u.Username != "" {
		return u.Username
	}
	return fmt.Sprintf("uid %d", os.Getuid())
}

// notDone says what a preview has not done.
func (a *app) notDone(execute bool) {
	if !execute {
		fmt.Fprintln(a.stdout, "nothing was done: --execute does it")
	}
}

package main

import (
	"context"
	"fmt"
	"time"

	"learnsink/test/oracle"
)

// verdict looks at what is left, once everything has stopped: by another Kafka
// client, and past all proxies.
func (a *arena) verdict(ctx context.Context, n *nemesis) error {
	r := a.report
	say("the oracle looks")
	began := time.Now()
	house := &oracle.House{DB: a.db, Brokers: []string{a.kafka.Address}, Sources: sources, Accepted: accepted, DeadLetter: deadLetter, Apart: apart}
	story := a.sender.story
	story.Repeats = a.publish == "at-least-once"
	found, err := house.Check(ctx, story)
	if err != nil {
		return fmt.Errorf("the oracle: %w", err)
	}
	r.found = found
	if r.again, err = house.Again(ctx); err != nil {
		return fmt.Errorf("the oracle, uncommitted: %w", err)
	}
	say("the oracle has looked at %d records in %s", found.Records, time.Since(began).Round(time.Millisecond))

	if err := a.desk.verdict(ctx); err != nil {
		return fmt.Errorf("the look at what was sent again: %w", err)
	}

	torn, err := a.kafka.torn()
	if err != nil {
		return err
	}
	if len(torn) > 0 {
		return fmt.Errorf("kafka has completed %d transactions without their markers: %s", len(torn), torn[0])
	}
	all, err := lines(ctx, a.db, time.Time{})
	if err != nil {
		return fmt.Errorf("the notes on the ledger: %w", err)
	}
	r.batches = len(all)
	r.zombies = zombies(all)
	for _, z := range r.zombies {
		a.faultf("a zombie's write was accepted: %s, offsets %d to %d under epoch %d by %s", z.partition, z.from, z.to-1, z.epoch, z.who)
	}
	claimed, err := claims(ctx, a.db)
	if err != nil {
		return fmt.Errorf("the notes on the claims: %w", err)
	}
	for _, k := range n.killed {
		took, never := takeOvers(claimed, k.who, k.at)
		for _, d := range took {
			r.recovered(recovery{"process killed: partition taken over", d, takeOverGoal})
		}
		if never > 0 {
			a.faultf("%d partitions of %s, which was killed, were never taken over", never, k.who)
		}
	}
	if r.early, r.late, err = level(a.vitals.taken); err != nil {
		return err
	}
	r.most = a.vitals.most
	if what := grown(r.early, r.late); what != "" {
		a.faultf("%s", what)
	}
	var files []string
	for _, m := range a.members {
		files = append(files, m.logFile())
	}
	if r.logs, err = readLogs(files); err != nil {
		return err
	}
	if a.watch.looks == 0 {
		return fmt.Errorf("nobody has looked at the positions")
	}
	r.looks, r.back, r.deadlocks = a.watch.looks, a.watch.back, a.watch.deadlocks.sum
	// learnsink's own audit has to come to the same: it is no part of the proof.
	if _, err := a.verb(ctx, "audit", "--deep"); err != nil {
		a.faultf("%v", err)
	}
	return nil
}

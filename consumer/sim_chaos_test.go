package consumer

import (
	"context"
	"fmt"
	"time"

	"learnsink/handlers"
)

// ok: nothing was violated so far.
func (w *simWorld) ok() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.broken) == 0
}

// living returns the processes that are not dead and not about to leave.
func (w *simWorld) living() (living []*simProcess) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range w.processes {
		if !p.dead && p.ctx.Err() == nil {
			living = append(living, p)
		}
	}
	return living
}

// meddle does one thing to the world, as whoever runs it may, or as happens.
func (w *simWorld) meddle() {
	living := w.living()
	var p *simProcess
	if len(living) > 0 {
		p = living[w.rand.IntN(len(living))]
	}
	tp := handlers.TopicPartition{Topic: simSource, Partition: w.rand.IntN(w.partitions)}
	at := w.rand.Float64() // where in what is possible
	share := func(p handlers.Position) int64 { return int64(at * float64(p.NextOffset)) }
	switch dice := w.rand.IntN(100); {
	case p == nil || dice < 8 && len(living) < 4:
		w.join()
	case dice < 14 && len(living) > 1: // a rollout
		p.stop()
		w.goes(func() { <-p.done; p.leave() })
	case dice < 18:
		p.crash("anywhere")
	case dice < 26:
		p.nap(w.span(w.rand, time.Second, 40*time.Second), "anywhere")
	case dice < 32:
		w.regroup("by chance")
	case dice < 38:
		w.do("a backup is made", func() { w.backups = append(w.backups, w.database.snapshot()) })
	case dice < 44 && len(w.backups) > 0:
		w.do("the database goes back", func() {
			w.came("database: went back")
			w.event("chaos", "the database goes back", "")
			n := w.rand.IntN(len(w.backups))
			w.database.goBack(w.backups[n])
			w.backups = w.backups[:n+1] // later ones are of a history that never was
		})
	case dice < 50:
		w.do("a catalogue is loaded", func() { w.database.catalogue++ })
	case dice < 56:
		w.alter(tp, "pause", func(p *simPartition) { w.database.hold(p) })
	case dice < 64:
		w.repair()
	case dice < 70:
		w.goes(func() { w.setPosition(tp, false, share) })
	case dice < 76:
		w.goes(func() { w.setPosition(tp, true, share) })
	case dice < 80:
		w.do("records are deleted", func() {
			w.came("source: records deleted")
			log := w.brokers.logs[lane{simSource, tp.Partition}]
			log.forget(log.start + int64(at*float64(log.stable()-log.start)))
		})
	case dice < 84:
		w.do("somebody moves the group's offset", func() {
			w.came("group: offset moved by a tool")
			w.brokers.commitOffset(simGroup, tp, simOffset{groupOffset{offset: w.rand.Int64N(100)}, time.Now()})
		})
	case dice < 86:
		w.week()
	case dice < 89:
		w.do("the topics' limit changes", func() { w.brokers.limit = 2500 + (1<<20-2500)*w.rand.IntN(2) })
	case dice < 92:
		topic := []string{simAccepted, simDeadLetter}[w.rand.IntN(2)]
		w.do("an output topic grows", func() {
			// (At least once, what is half published then comes again in other
			// partitions, and so may come behind what was after it.)
			if w.brokers.topics[topic] < 5 && w.publish == Transactional {
				w.came("kafka: an output topic has grown")
				w.growTopic(topic)
			}
		})
	default: // things just go on
	}
}

// week is one in which nobody works: everything that expires does.
//
// Two things are known, and open; both take a partition that nobody works on
// for a week just then. While a position is behind the marker (the database
// went back, or an operator has set it back silently), nothing but the marker
// says what is published above the position: once it has expired those rows are
// announced again. And batches that are to be announced once more, and wait
// for that in the outbox, are taken for published where the first time was
// minutes before: the tail of the outputs has their ids.
func (w *simWorld) week() {
	for _, p := range w.living() {
		p.crash("a week off")
	}
	for w.underWay() {
		time.Sleep(time.Second)
	}
	open := false
	w.do("", func() {
		w.came("a quiet week")
		for tp, marker := range w.brokers.offsets[MarkerGroup(simGroup)] {
			p := w.database.partitions[tp]
			open = open || p == nil || marker.offset > p.NextOffset || p.AnnouncedSince > 1 && len(p.outbox) > 0
		}
		for _, p := range w.processes {
			p.evicted = true
		}
		w.backups = nil // nobody goes back so far
	})
	if !open {
		time.Sleep(8 * 24 * time.Hour)
	}
	w.join()
}

// alter changes a partition's row as an operator does.
func (w *simWorld) alter(tp handlers.TopicPartition, what string, f func(*simPartition)) {
	w.do("an operator: "+what, func() {
		if p, err := w.database.row(tp); err == nil && p != nil {
			w.came("operator: " + what)
			w.event("operator", what, fmt.Sprint(tp.Partition))
			f(p)
		}
	})
}

// setPosition takes a partition over and sets its position, as `learnsink
// position set` does.
func (w *simWorld) setPosition(tp handlers.TopicPartition, republish bool, to func(handlers.Position) int64) {
	w.mu.Lock()
	w.operators++
	operator := w.newProcess(fmt.Sprint("op", w.operators))
	w.mu.Unlock()
	defer operator.stop()
	ctx, cancel := context.WithTimeout(operator.ctx, 30*time.Second)
	defer cancel()
	consumer := operator.consumer(numberOf(tp))
	claimed, err := consumer.TakeOver(ctx, tp, simCluster)
	if err != nil {
		w.do("", func() { w.event(operator.name, "take over", err.Error()) })
		return
	}
	markers, err := consumer.client.Markers(ctx, simGroup, simSource)
	if err != nil {
		return
	}
	target := to(claimed)
	_, _ = call(ctx, consumer.store.(simStore).simPart, atDatabase, "set position", func() (struct{}, error) {
		p, err := w.database.row(tp)
		if err != nil || p == nil {
			return struct{}{}, err
		}
		kind := "forward"
		if target < p.NextOffset {
			kind = map[bool]string{true: "republish", false: "silent"}[republish]
		}
		from := p.NextOffset
		if w.database.set(p, claimed.Epoch, target, republish, markers[tp].Round) {
			w.came("operator: position " + kind)
			w.event(operator.name, "position "+kind, fmt.Sprintf("%d: %d to %d", tp.Partition, from, target))
		}
		return struct{}{}, nil
	})
}

// repair is what an operator does about partitions that do not go on by
// themselves.
func (w *simWorld) repair() {
	for _, n := range w.parts() {
		tp := w.tp(n)
		log := w.brokers.logs[lane{tp.Topic, tp.Partition}]
		var state handlers.State
		w.alter(tp, "look", func(p *simPartition) {
			state = p.State
			if state.Held() {
				w.came("operator: resume after " + string(state))
				w.database.resume(p, log.stable())
			}
		})
		if state == handlers.DataLost {
			w.setPosition(tp, false, func(position handlers.Position) int64 { return max(position.NextOffset, log.start) })
		}
	}
}

package consumer

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v5"

	"learnsink/handlers"
)

// trouble is what a stage shows while it cannot go on.
type trouble struct {
	state  handlers.State
	reason string
}

// attempt brings one effect about: it tries until it succeeds, waiting longer
// and longer in between, without a limit in time but visibly. It returns an
// error only where trying again is of no use, or the lease ends.
func (l *lease) attempt(ctx context.Context, stage string, effect func(context.Context) error) error {
	waits := newBackOff()
	waits.RandomizationFactor = l.limits.jitter
	waits.Reset()
	for {
		err := effect(ctx)
		switch {
		case err == nil:
			l.settle(stage)
			return nil
		case final(err):
			return err
		case ctx.Err() != nil:
			return fmt.Errorf("%s: %w", stage, context.Cause(ctx))
		}
		l.metrics.failures.WithLabelValues(stage).Inc()
		l.complain(stage, err)
		wait := waits.NextBackOff()
		if wait == backoff.Stop {
			wait = waits.MaxInterval
		}
		if errors.Is(err, handlers.ErrNoCatalogue) {
			wait = min(wait, 500*time.Millisecond) // a load is seen within a second
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-l.soft.Done():
		case <-ctx.Done():
		}
		timer.Stop()
		if l.soft.Err() != nil {
			return fmt.Errorf("%s: %w: %w", stage, errGivenUp, err)
		}
	}
}

// final reports whether an error ends the lease.
func final(err error) bool {
	var stop *StopError
	return errors.As(err, &stop) || errors.Is(err, handlers.ErrFenced) || errors.Is(err, handlers.ErrHeld) ||
		errors.Is(err, handlers.ErrMoved) || errors.Is(err, handlers.ErrClusterChanged)
}

// complain shows that a stage is waiting for machinery.
func (l *lease) complain(stage string, err error) {
	state, reason := handlers.Waiting, stage+": "+err.Error()
	if errors.Is(err, handlers.ErrNoCatalogue) {
		state, reason = handlers.NoCatalogue, err.Error()
	}
	if l.trouble(stage, state, reason) {
		l.logger.Warn().Str("stage", stage).Err(err).Msg("waiting")
	}
}

// trouble notes what a stage has, until it is settled, and shows it. It
// reports whether that is new.
func (l *lease) trouble(stage string, state handlers.State, reason string) (fresh bool) {
	t := trouble{state, reason}
	l.mu.Lock()
	if l.troubles == nil {
		l.troubles = map[string]trouble{}
	}
	fresh = l.troubles[stage] != t
	l.troubles[stage] = t
	l.mu.Unlock()
	l.reveal()
	return fresh
}

// settle: a stage has succeeded.
func (l *lease) settle(stage string) {
	l.mu.Lock()
	_, troubled := l.troubles[stage]
	delete(l.troubles, stage)
	quiet := !troubled && l.shown.state == handlers.Running
	l.mu.Unlock()
	if !quiet {
		l.reveal()
	}
	if troubled {
		l.logger.Info().Str("stage", stage).Msg("going on")
	}
}

// reveal shows the first trouble there is, or that the partition is running.
// Nobody waits for the database to hear of it: whoever is at it already looks
// once more.
func (l *lease) reveal() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stale = true
	if l.showing {
		return
	}
	l.showing = true
	for l.stale {
		l.stale = false
		now := trouble{state: handlers.Running}
		for _, stage := range [...]string{"claim", "read", "facts", "apply", "publish", "commit", "behind", "upstream"} {
			if t, ok := l.troubles[stage]; ok {
				now = t
				break
			}
		}
		l.mu.Unlock()
		l.show(now.state, now.reason)
		l.mu.Lock()
	}
	l.showing = false
}

// show tells people what the partition is doing, as well as that can be done:
// the database may be what is away.
func (l *lease) show(state handlers.State, reason string) {
	const longest = 500
	if len(reason) > longest {
		reason = reason[:longest]
	}
	l.progress.update(func(p *progress) { p.State, p.Reason = state, reason })
	l.mu.Lock()
	same := l.shown == trouble{state, reason}
	l.mu.Unlock()
	if same || l.position.Epoch == 0 { // not claimed yet: nothing to write under
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(l.soft), time.Second)
	defer cancel()
	now := trouble{state, reason}
	if err := l.store.SetState(ctx, l.tp, l.position.Epoch, state, reason); err != nil {
		now = trouble{} // it may have been written all the same: the next success shows it anew
	}
	l.mu.Lock()
	l.shown = now
	l.mu.Unlock()
}

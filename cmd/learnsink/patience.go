package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v5"

	"learnsink/consumer"
)

// patiently asks the brokers until they answer, for ten seconds at most: a
// topic that is new or a leader that has moved takes them a moment. A topic
// that is not there is told at once, with what to do about it.
func patiently(ctx context.Context, ask func(context.Context) error) error {
	asking, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var last error
	_, err := backoff.Retry(asking, func() (struct{}, error) {
		if last = ask(asking); errors.Is(last, consumer.ErrNoTopic) {
			return struct{}{}, backoff.Permanent(last)
		}
		return struct{}{}, last
	}, backoff.WithBackOff(backoff.NewConstantBackOff(250*time.Millisecond)), backoff.WithMaxElapsedTime(0))
	switch {
	case err == nil || ctx.Err() != nil:
		return err
	case errors.Is(last, consumer.ErrNoTopic):
		return fmt.Errorf("%w: run `learnsink topics create`", last)
	}
	return last // says more than that the time was up
}

// offsets asks for an offset of each partition of a topic.
func offsets(ctx context.Context, of func(context.Context, string) (map[int]int64, error), topic string) (found map[int]int64, err error) {
	err = patiently(ctx, func(ctx context.Context) error {
		found, err = of(ctx, topic)
		return err
	})
	return found, err
}

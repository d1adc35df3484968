package consumer

import (
	"context"
	"errors"
	"time"

	"github.com/rs/zerolog"

	"learnsink/handlers"
)

// Store is what a pipeline needs of a database. Errors that are none of
// handlers' sentinels are machinery: the pipeline waits and tries again.
type Store interface {
	// Claim makes the caller the owner of a partition and raises its epoch.
	// start is the first offset of a partition that was never claimed.
	Claim(ctx context.Context, tp handlers.TopicPartition, clusterID string, start int64) (handlers.Position, error)
	// Facts answers a batch's questions; ErrNoCatalogue where no catalogue was ever loaded.
	Facts(ctx context.Context, refs *handlers.References) (*handlers.Facts, error)
	// Apply writes a batch in one transaction; nil means committed. ErrFenced,
	// ErrHeld, ErrMoved and ErrStaleFacts mean that nothing was. It settles
	// the batch's decisions in place.
	Apply(ctx context.Context, b *handlers.Batch) error
	// Pending returns the outbox entries of a partition, in order of their offsets.
	Pending(ctx context.Context, tp handlers.TopicPartition) ([]handlers.OutboxEntry, error)
	// Published drops the outbox entries below through, and says how the
	// partition stands: ErrFenced where the epoch is no longer its, ErrHeld
	// where it is held.
	Published(ctx context.Context, tp handlers.TopicPartition, epoch, through int64) error
	// SetState shows people what a partition is doing, if the epoch is still
	// the partition's. Of a held partition it changes nothing.
	SetState(ctx context.Context, tp handlers.TopicPartition, epoch int64, state handlers.State, reason string) error
}

// Log reads one source partition, read_committed.
type Log interface {
	// ClusterID names the Kafka cluster.
	ClusterID(ctx context.Context) (string, error)
	// Start returns the first offset that the log holds.
	Start(ctx context.Context) (int64, error)
	// Read returns what is there from an offset on, waiting for at most wait
	// where that is nothing (then Next is From). A *StopError says that going
	// on is not possible; any other error that it may be later.
	Read(ctx context.Context, from int64, wait time.Duration) (Chunk, error)
	// Verify returns a *StopError where the log holds another record at the
	// anchor than the one that was applied: then it is another log.
	Verify(ctx context.Context, anchor handlers.Anchor) error
}

// Offsets is the group's offset, which is for people and their tools: where a
// partition goes on is for the Store to say.
type Offsets interface {
	Commit(ctx context.Context, tp handlers.TopicPartition, next, epoch int64) error
	// Moved returns the group's offset where somebody else has committed it
	// (Kafka's own tool does so).
	Moved(ctx context.Context, tp handlers.TopicPartition) (to int64, moved bool, err error)
}

// pipeline is the road of one assigned source partition.
type pipeline struct {
	source    *handlers.Source
	replays   *handlers.Replays // nil but on the replay topic, where each batch has its own source
	tp        handlers.TopicPartition
	log       Log
	store     Store
	publisher Publisher
	offsets   Offsets
	limits    pipelineLimits
	packer    *packer
	rows      lentRows
	metrics   *Metrics
	progress  *progress
	logger    zerolog.Logger
}

// pipelineLimits bound a pipeline.
type pipelineLimits struct {
	rows, bytes int           // of a batch
	linger      time.Duration // for more rows, once there is no backlog
	poll        time.Duration // how long a read waits for the first row
	quiet       time.Duration // after which published entries are dropped without waiting for the next batch, and how often a quiet or stopped partition is looked after
	grace       time.Duration // for what is in flight when the pipeline is to end
	reclaim     time.Duration // after which a partition that another owner has claimed is claimed again
	blocked     time.Duration // after which a sender's open transaction is complained of
	inFlight    int           // batches on the road at once
	breaker     Breaker
	jitter      float64 // by which share of it a wait between two attempts is shorter or longer
}

// gatherTime bounds how long a batch gathers where many offsets hold no row.
const gatherTime = time.Second

// errGivenUp: the pipeline is to end, and what it was waiting for is away.
var errGivenUp = errors.New("given up because the partition is to be left")

// run works on the partition until ctx ends. What is in flight then is
// finished, within limits.grace. A partition that cannot go on stays where it
// is, visibly, until an operator acts or ctx ends: run never returns early,
// because that would end the generation for every partition of the member.
func (p *pipeline) run(ctx context.Context) {
	told := ""
	for ctx.Err() == nil {
		l := &lease{pipeline: p, soft: ctx}
		err := l.hold()
		var stop *StopError
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, handlers.ErrMoved):
			p.logger.Warn().Msg("the position is not where it was left: the partition is claimed again")
			pause(ctx, 100*time.Millisecond)
			continue
		case errors.Is(err, handlers.ErrFenced):
			// Where somebody else owns the partition by now, this generation
			// is over and will be noticed to be. As long as the group says
			// that the partition is ours, somebody has to be at it: the other
			// may be a member that slept through its generation's end and
			// claimed it on waking, or an operator.
			l.show(handlers.Waiting, "another owner has claimed the partition")
			p.logger.Warn().Dur("again", p.limits.reclaim).Msg("another owner has claimed the partition: given up for now")
			pause(ctx, p.limits.reclaim)
			continue
		case errors.Is(err, handlers.ErrHeld) && !l.position.State.Held():
			continue // held while we were at it: the claim reads why
		case errors.Is(err, handlers.ErrHeld):
			stop = &StopError{l.position.State, l.position.StateReason}
		case errors.Is(err, handlers.ErrClusterChanged):
			stop = &StopError{handlers.LogDiverged, err.Error()}
		case errors.As(err, &stop):
		default: // only what attempt lets through comes here
			p.logger.Error().Err(err).Msg("the partition is claimed again after an error that nobody foresaw")
			pause(ctx, time.Second)
			continue
		}
		if stop.State.Held() {
			// It stands in the database, and may be another by now.
			p.progress.update(func(p *progress) { p.State, p.Reason = stop.State, stop.Reason })
		} else {
			l.show(stop.State, stop.Reason)
		}
		if stop.Error() != told {
			told = stop.Error()
			p.logger.Error().Str("state", string(stop.State)).Str("reason", stop.Reason).Msg("the partition is stopped")
		}
		l.rest(ctx, stop)
	}
}

// pause waits; it reports false where ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

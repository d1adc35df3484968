package consumer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/fetch"

	"learnsink/handlers"
)

// registerFetch tells kafka-go to hand a fetch response's record set over as
// the bytes they are. It holds for the whole process, and is the one piece of
// package state in the house: kafka.Client.Fetch cannot be used beside it,
// nor is it anywhere. Every transport of this package is made after it.
var registerFetch = sync.OnceFunc(func() { protocol.Register(&fetch.Request{}, &fetchResponse{}) })

// fetchResponse is kafka-go's fetch.Response with an undecoded record set.
type fetchResponse struct {
	ThrottleTimeMs int32        `kafka:"min=v1,max=v11"`
	ErrorCode      int16        `kafka:"min=v7,max=v11"`
	SessionID      int32        `kafka:"min=v7,max=v11"`
	Topics         []fetchTopic `kafka:"min=v0,max=v11"`
}

// ApiKey makes it a message of kafka-go's.
func (*fetchResponse) ApiKey() protocol.ApiKey { return protocol.Fetch }

type fetchTopic struct {
	Topic      string           `kafka:"min=v0,max=v11"`
	Partitions []fetchPartition `kafka:"min=v0,max=v11"`
}

type fetchPartition struct {
	Partition            int32                       `kafka:"min=v0,max=v11"`
	ErrorCode            int16                       `kafka:"min=v0,max=v11"`
	HighWatermark        int64                       `kafka:"min=v0,max=v11"`
	LastStableOffset     int64                       `kafka:"min=v4,max=v11"`
	LogStartOffset       int64                       `kafka:"min=v5,max=v11"`
	AbortedTransactions  []fetch.ResponseTransaction `kafka:"min=v4,max=v11"`
	PreferredReadReplica int32                       `kafka:"min=v11,max=v11"`
	RecordSet            []byte                      `kafka:"min=v0,max=v11"`
}

// StopError is why a partition cannot go on by itself.
type StopError struct {
	State  handlers.State // DataLost, LogDiverged or Oversized
	Reason string         // names the offsets
}

// Error names the state and the reason.
func (e *StopError) Error() string { return string(e.State) + ": " + e.Reason }

// errBeyondEnd: the wanted offset is past the log's end, which may be a
// follower's that lags behind and has just become the leader.
var errBeyondEnd = errors.New("the next offset is past the end of the log")

// fetchLimits bound what reading takes.
type fetchLimits struct {
	// bytes asked for in one fetch; the first record batch comes whole whatever its size.
	bytes int
	// decompressed is the cap on what one record batch may decompress to.
	decompressed int
	// beyondEnd is how long an offset past the end may stay there.
	beyondEnd time.Duration
}

func (l fetchLimits) orDefaults() fetchLimits {
	if l.bytes <= 0 {
		l.bytes = 2 << 20
	}
	if l.decompressed <= 0 {
		l.decompressed = 64 << 20
	}
	if l.beyondEnd <= 0 {
		l.beyondEnd = time.Minute
	}
	return l
}

// partitionLog reads one partition, read_committed. It serves one goroutine.
type partitionLog struct {
	client  *Client
	tp      handlers.TopicPartition
	limits  fetchLimits
	metrics *Metrics // nil: nobody counts

	set    recordSet // what the last response still holds
	next   int64     // the offset that set goes on at
	stable int64
	end    int64
	leader int32 // the latest leader's epoch of the batches that were read
	// strict: a hole in the log is none to jump over.
	strict bool
	// beyond is since when the wanted offset has been past the end.
	beyond time.Time
}

func newPartitionLog(client *Client, tp handlers.TopicPartition, limits fetchLimits) *partitionLog {
	limits = limits.orDefaults()
	return &partitionLog{
		client: client, tp: tp, limits: limits,
		set: recordSet{topic: tp.Topic, partition: tp.Partition, maxBytes: limits.decompressed, codecs: &decompressor{}},
	}
}

// ClusterID names the Kafka cluster.
func (l *partitionLog) ClusterID(ctx context.Context) (string, error) { return l.client.ClusterID(ctx) }

// Start returns the first offset that the log holds.
func (l *partitionLog) Start(ctx context.Context) (int64, error) {
	start, _, err := l.client.bounds(ctx, l.tp)
	return start, err
}

// Read returns the rows from offset from on: one record batch's. Where
// nothing is there yet it waits for at most wait, and returns a chunk whose
// Next is from. A *StopError means that reading on is not possible; any other
// error that it may be later.
func (l *partitionLog) Read(ctx context.Context, from int64, wait time.Duration) (Chunk, error) {
	if from != l.next {
		l.set.fill(nil, nil)
		l.next, l.leader = from, -1
	}
	for fetched := false; ; {
		chunk, ok, err := l.set.next(from)
		if err == nil && !ok && fetched && len(l.set.raw) > 0 {
			// The last batch of a response may be cut off, but not the only one.
			err = corrupt("a response without a whole batch")
		}
		if l.set.leader >= 0 && l.set.leader < l.leader {
			// Leaders follow each other within one log.
			return Chunk{}, &StopError{handlers.LogDiverged, fmt.Sprintf(
				"the rows from offset %d on are of an older leader (epoch %d) than those before them (%d): the topic was made anew, or its log was cut and written again",
				from, l.set.leader, l.leader)}
		}
		l.leader = max(l.leader, l.set.leader)
		switch {
		case err != nil:
			// What the wire spoilt may come whole next time. And whoever asks
			// again is told the same again: what comes after is not handed out.
			l.set.fill(nil, nil)
			l.metrics.refused(l.tp.Topic, err)
			if errors.Is(err, ErrOversized) {
				return Chunk{}, &StopError{handlers.Oversized, err.Error()}
			}
			return Chunk{}, fmt.Errorf("read %s/%d at offset %d: %w", l.tp.Topic, l.tp.Partition, from, err)
		case ok && chunk.Next == from: // a batch, or a part of one, that lies before from
			continue
		case ok && chunk.Hole > 0 && l.strict:
			if err := l.hole(ctx, from, from+chunk.Hole); err != nil {
				l.set.fill(nil, nil)
				return Chunk{}, err
			}
			fallthrough
		case ok:
			l.next = chunk.Next
			l.metrics.passed(l.tp.Topic, &chunk)
			chunk.Stable, chunk.End = max(l.stable, chunk.Next), max(l.end, chunk.Next)
			return chunk, nil
		case fetched:
			return Chunk{From: from, Next: from, Stable: max(l.stable, from), End: max(l.end, from)}, nil
		}
		if err := l.fetch(ctx, from, wait); err != nil {
			return Chunk{}, err
		}
		fetched = true
	}
}

// fetch fills set with one response.
func (l *partitionLog) fetch(ctx context.Context, from int64, wait time.Duration) error {
	// Only a deadline ends a request on the wire, a cancelled context does not.
	ctx, cancel := context.WithTimeout(ctx, wait+requestTimeout)
	defer cancel()
	response, err := l.client.transport.RoundTrip(ctx, l.client.addr, &fetch.Request{
		ReplicaID:   -1,
		MaxWaitTime: int32(wait.Milliseconds()),
		MinBytes:    1,
		// The partition's limit is what counts. Were the request's reached,
		// kfake would leave out the list of aborted transactions.
		MaxBytes:       math.MaxInt32,
		IsolationLevel: int8(kafka.ReadCommitted),
		SessionEpoch:   -1,
		Topics: []fetch.RequestTopic{{Topic: l.tp.Topic, Partitions: []fetch.RequestPartition{{
			Partition:          int32(l.tp.Partition),
			CurrentLeaderEpoch: -1,
			FetchOffset:        from,
			LogStartOffset:     -1,
			PartitionMaxBytes:  int32(l.limits.bytes),
		}}}},
	})
	if err != nil {
		return fmt.Errorf("fetch %s/%d: %w", l.tp.Topic, l.tp.Partition, err)
	}
	r := response.(*fetchResponse)
	if r.ErrorCode != 0 {
		return fmt.Errorf("fetch %s/%d: %w", l.tp.Topic, l.tp.Partition, kafka.Error(r.ErrorCode))
	}
	if len(r.Topics) != 1 || len(r.Topics[0].Partitions) != 1 {
		return fmt.Errorf("fetch %s/%d: the response holds another partition", l.tp.Topic, l.tp.Partition)
	}
	p := &r.Topics[0].Partitions[0]
	switch err := kafka.Error(p.ErrorCode); err {
	case 0:
	case kafka.OffsetOutOfRange:
		return l.outOfRange(ctx, from)
	default:
		return fmt.Errorf("fetch %s/%d: %w", l.tp.Topic, l.tp.Partition, err)
	}
	l.beyond = time.Time{}
	l.stable, l.end = p.LastStableOffset, p.HighWatermark
	aborted := make([]abortedTxn, len(p.AbortedTransactions))
	for i, a := range p.AbortedTransactions {
		aborted[i] = abortedTxn{a.ProducerID, a.FirstOffset}
	}
	slices.SortFunc(aborted, func(a, b abortedTxn) int { return cmp.Compare(a.firstOffset, b.firstOffset) })
	l.set.fill(p.RecordSet, aborted)
	return nil
}

// hole judges offsets within the log that no record batch covers. Compaction
// leaves some; in a topic that is not compacted rows are missing there.
func (l *partitionLog) hole(ctx context.Context, from, to int64) error {
	compacted, err := l.client.compacted(ctx, l.tp.Topic)
	if err != nil || compacted {
		return err
	}
	return &StopError{handlers.DataLost, fmt.Sprintf("offsets %d to %d are missing within the log, which goes on at %d", from, to-1, to)}
}

// outOfRange tells a log that has lost its beginning from one that has not
// reached the offset.
func (l *partitionLog) outOfRange(ctx context.Context, from int64) error {
	start, end, err := l.client.bounds(ctx, l.tp)
	if err != nil {
		return err
	}
	switch {
	case from < start:
		return &StopError{handlers.DataLost, fmt.Sprintf("offsets %d to %d are no longer in the log, which begins at %d", from, start-1, start)}
	case from <= end:
		return fmt.Errorf("fetch %s/%d: %w", l.tp.Topic, l.tp.Partition, kafka.OffsetOutOfRange) // it has moved since
	}
	if l.beyond.IsZero() {
		l.beyond = time.Now()
	}
	if time.Since(l.beyond) >= l.limits.beyondEnd {
		return &StopError{handlers.LogDiverged, fmt.Sprintf("the next offset is %d, but the log ends at %d: another log, or it was cut", from, end)}
	}
	return fmt.Errorf("%w: %d, and it ends at %d", errBeyondEnd, from, end)
}

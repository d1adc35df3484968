// Package handlers holds the vocabulary of learnsink and the action rules.
//
// It is pure: no clock, no input or output, no goroutine, no package state.
// Facts about the world come in as values (Facts, Stored), time comes from
// the event. The same records, catalogue and settings give the same decisions,
// whenever and however often they are judged.
//
// The road of a record through this package:
//
//	Rules.Decode    bytes -> Row        what the row says, and what is wrong with it by itself
//	Row.Refer       Row -> References   what the row asks the catalogue for
//	Rules.Decide    Row + Facts -> Decision   every message of a rejection, or the typed row
//	Decision.Settle Decision + Stored -> what is left to the row under its key
//	Outputs.Of      Decision -> Output  the accepted event or the dead letter
//
// Words: a rejection is about data and becomes a dead letter; an error is
// about machinery and never does.
package handlers

import (
	"errors"
	"time"
)

// Action names what rows of a source mean; rules.md has one section for each.
type Action string

// The two actions.
const (
	Tracking     Action = "tracking"
	Intervention Action = "intervention"
)

// Header is one header of a record. A nil Value is Kafka's null.
type Header struct {
	Key   string
	Value []byte
}

// Record is one record of a source topic, as the log holds it.
type Record struct {
	Topic     string
	Partition int
	Offset    int64
	// Incarnation tells logs of one name apart: a topic that was deleted and
	// made anew, and accepted by an operator, counts 2. 0 and 1 are the first.
	Incarnation int
	Timestamp   time.Time // zero: the record carries none
	Key         []byte    // nil: null
	Value       []byte    // nil: a tombstone
	Headers     []Header
}

// SenderHeader is the record header that names the sender, as CloudEvents have it.
const SenderHeader = "ce_source"

// Header returns the value of the last header named key, and whether there is one.
func (r *Record) Header(key string) ([]byte, bool) {
	for i := len(r.Headers) - 1; i >= 0; i-- {
		if r.Headers[i].Key == key {
			return r.Headers[i].Value, true
		}
	}
	return nil, false
}

// Opt is a value that may be absent.
type Opt[T any] struct {
	V  T
	OK bool
}

// Some returns a present value.
func Some[T any](v T) Opt[T] { return Opt[T]{V: v, OK: true} }

// TopicPartition names one partition of a topic.
type TopicPartition struct {
	Topic     string
	Partition int
}

// Source is a topic of rows with what its rows mean and where their outcomes go.
type Source struct {
	Topic           string
	Rules           *Rules // the action and its settings
	AcceptedTopic   string
	DeadLetterTopic string
	// ByEventTime: `order: event-time`. A row older by (event time, topic,
	// partition, offset) than what is stored under its key is superseded.
	// Otherwise the record applied last wins.
	ByEventTime bool
	// EventTimeHeader: `eventTime: header`. The header learnsink.event-time
	// (RFC 3339) is the event's time, where it is there and well-formed.
	EventTimeHeader bool
	// Wait: `onMissingReference: wait`. A row that nothing is wrong with but
	// that the catalogue does not know yet what it refers to waits for that,
	// this long at most. 0: it is rejected.
	Wait time.Duration
}

// Position is how far one source partition has been applied, as the database
// knows it: the truth. FirstOffset+Accepted+Rejected+Waiting+Skipped = NextOffset, always.
type Position struct {
	TopicPartition
	ClusterID   string
	FirstOffset int64
	NextOffset  int64 // the next offset to apply
	Accepted    int64
	Rejected    int64
	Waiting     int64 // rows that went into the waiting room
	Skipped     int64 // offsets that hold no row: markers, aborted or compacted records, ignored tombstones
	Epoch       int64 // the fence: raised by every claim
	State       State
	StateReason string
	UpdatedAt   time.Time

	// Incarnation of the log; Record.Incarnation of its records.
	Incarnation int
	// Round is raised when an operator sets the position back, or onto
	// another log; FirstOffset and the counters are this round's.
	Round int
	// AnnouncedSince: a published marker counts if its round is not below
	// this one. Of older ones the outputs are to be published again.
	AnnouncedSince int
	// Anchor is the last record that was applied; absent: none was.
	Anchor Opt[Anchor]
	// BreakerBelow: rows below this offset are let on by the breaker.
	BreakerBelow int64
}

// Anchor is by what a log is known again: a record of it.
type Anchor struct {
	Offset int64
	Hash   []byte // of the record's timestamp, key and value
}

// State is what a partition is doing, shown by status and metrics.
type State string

// The states of a partition.
const (
	Running     State = "running"
	Waiting     State = "waiting"      // machinery is away; StateReason says what
	NoCatalogue State = "no_catalogue" // no catalogue was ever loaded
	DataLost    State = "data_lost"    // the log no longer holds the next offset
	LogDiverged State = "log_diverged" // the next offset is past the log's end, or the log is another one
	Oversized   State = "oversized"    // a record batch decompresses to more than the cap

	DatabaseBehind  State = "database_behind"           // more was published than the database knows of: it is applied again, and not published again
	OpenTransaction State = "open_transaction_upstream" // a sender's transaction holds the rows behind it back
	Breaker         State = "breaker"                   // a flood of rejections or deletions: an operator has to let it on
	Paused          State = "paused"                    // by an operator
)

// States returns every state.
func States() []State {
	return []State{Running, Waiting, NoCatalogue, DatabaseBehind, OpenTransaction, DataLost, LogDiverged, Oversized, Breaker, Paused}
}

// Stopped reports whether the partition stays where it is until an operator acts.
func (s State) Stopped() bool { return s == DataLost || s == LogDiverged || s == Oversized || s.Held() }

// Held reports whether only an operator takes the partition out of the state:
// no owner does so by claiming it.
func (s State) Held() bool { return s == Breaker || s == Paused }

// Batch is a run of consecutive offsets of one source partition, decided and
// ready to be applied as one.
type Batch struct {
	Source    *Source
	Partition int
	// Origin is where the rows come from, as what is stored of them says, with
	// Decision.Stands for the offset. The zero value: from the source
	// partition itself; on the replay topic from where their originals stand.
	Origin   TopicPartition
	Epoch    int64 // of the claim that read it
	From, To int64 // offsets [From, To)
	// Decisions has one entry for each record that is a row, in offset order.
	// To-From-len(Decisions) offsets are skipped.
	Decisions    []Decision
	FactsVersion int64 // Facts.Version that the decisions rest on
	// Round and Incarnation of the position that was claimed.
	Round, Incarnation int
	// Anchor is the batch's last record; absent: it has none, and the
	// position keeps the one it has.
	Anchor Opt[Anchor]
	// Published is the next offset below which every outbox entry of this
	// partition has been published: apply drops them. 0: none.
	Published int64
	// Encode turns the settled decisions into the outbox entry's payload; it
	// is called once inside the apply transaction, and may be called again if
	// that is repeated. An empty payload makes no entry.
	Encode func([]Decision) ([]byte, error)
}

// TopicPartition names the batch's source partition.
func (b *Batch) TopicPartition() TopicPartition {
	return TopicPartition{b.Source.Topic, b.Partition}
}

// RowsFrom names the partition that the batch's rows come from.
func (b *Batch) RowsFrom() TopicPartition {
	if b.Origin != (TopicPartition{}) {
		return b.Origin
	}
	return b.TopicPartition()
}

// OutboxEntry is what a committed batch still has to publish.
type OutboxEntry struct {
	From, To int64 // the source offsets it speaks for, [From, To)
	Payload  []byte
	At       time.Time // when it was written, by the database's clock
}

// Errors by which a store tells a consumer what became of a claim or a batch.
// Anything else that a store returns is machinery: back off and try again.
var (
	// ErrFenced: another claim of the partition has a higher epoch. Stop; nothing was applied.
	ErrFenced = errors.New("partition was claimed by another owner")
	// ErrHeld: an operator has paused the partition, or the breaker has. Nothing was applied.
	ErrHeld = errors.New("partition is held")
	// ErrMoved: the position is not where the batch begins, under the same
	// epoch (the database went back, or an earlier commit had landed after
	// all). Claim again and go on from there; nothing was applied.
	ErrMoved = errors.New("position is not where the batch begins")
	// ErrStaleFacts: the catalogue changed since the facts were read. Read
	// them again and decide again; nothing was applied.
	ErrStaleFacts = errors.New("catalogue changed since the facts were read")
	// ErrNoCatalogue: no catalogue was ever loaded. Wait.
	ErrNoCatalogue = errors.New("no catalogue has been loaded yet: run `learnsink catalog load DIR`")
	// ErrClusterChanged: the position belongs to another Kafka cluster.
	ErrClusterChanged = errors.New("position belongs to another Kafka cluster")
)

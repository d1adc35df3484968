package handlers

import "errors"

// JobsLog names, in the outbox, what jobs send: it is no topic's log but the
// count of the rows that have gone (Dispatcher.Next).
func JobsLog() TopicPartition { return TopicPartition{"learnsink.jobs", 0} }

// Dispatcher is how far the rows of jobs have gone onto the replay topic, as
// the database knows it. One process at a time moves it.
type Dispatcher struct {
	Epoch int64 // the fence: raised by every claim
	Next  int64 // the number of the next row to go
	// Round is raised with another cluster: a published marker of a round
	// before it speaks of a replay topic that is no longer meant.
	Round int
}

// RunningJob is a job that has rows to send.
type RunningJob struct {
	ID   int64
	Rate int // rows a second, at most
	Left int64
}

// JobShare is how many of a job's rows are to go now, at most.
type JobShare struct{ Job, Rows int64 }

// Dispatch is some rows of jobs that go together. They are marked as sent, and
// put into the outbox, in one transaction.
type Dispatch struct {
	Epoch     int64      // of the claim
	From      int64      // Dispatcher.Next, as the caller knows it
	Shares    []JobShare // at most one of each job, by job
	Bytes     int        // of keys, values and headers at most; one row may be larger
	Published int64      // outbox entries that end at it or before are published, and dropped. 0: none
	// Encode turns the rows, in their order, into the outbox entry's payload,
	// and marks those that cannot go.
	Encode func([]JobRow) ([]byte, error)

	// What came of it: the rows' numbers are [From, To); To = From where there
	// were none.
	To      int64
	Payload []byte
	Moved   []JobMoved // by job
}

// JobMoved is how a Dispatch has moved a job.
type JobMoved struct {
	Job           int64
	Sent, Dropped int64
	Done          bool // it has nothing left to send
}

// JobRow is a row on its way to the replay topic, or an announcement.
type JobRow struct {
	Key, Value []byte
	Headers    []Header // the original's, its own and others
	Replay     Replay   // what the record says of itself
	// Topic is where it goes as it is, as an announcement. "": it is a row, and
	// goes to the replay topic.
	Topic string
	// Unfit: it cannot go, because the replay topic takes nothing so large.
	Unfit bool
}

// ErrNotLeading: the connection that holds the right to dispatch is lost.
var ErrNotLeading = errors.New("the right to send the rows of jobs is lost")

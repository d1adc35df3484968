package store

import (
	"sync"

	"learnsink/handlers"
)

// way is how a batch is written. All ways lead to the same; which is the
// shortest, the batches before tell.
type way struct {
	// careful: all keys are locked first, in their order, for as many batches.
	careful int
	// lookFirst: most rows are expected to be there as they are.
	lookFirst bool
	// bisect: PostgreSQL has refused a row of this batch.
	bisect bool
}

// carefulFor is how many batches are careful after one that met another transaction.
const carefulFor = 100

// went notes how a batch turned out.
func (w *way) went(done *writes) {
	if n := int64(done.tracking.upserts.n()); n > 0 {
		w.lookFirst = done.tracking.upserted*2 < n
	}
}

// habits remember how the last batch of each partition was best written.
type habits struct {
	mu   sync.Mutex
	ways map[handlers.TopicPartition]way
}

// of returns how the next batch is to be written.
func (h *habits) of(tp handlers.TopicPartition) way {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.ways[tp]
}

// learn notes how a batch was written.
func (h *habits) learn(tp handlers.TopicPartition, w way) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ways == nil {
		h.ways = map[handlers.TopicPartition]way{}
	}
	h.ways[tp] = way{careful: max(w.careful-1, 0), lookFirst: w.lookFirst}
}

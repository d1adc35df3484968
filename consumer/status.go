package consumer

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"learnsink/handlers"
)

// Status is what this process is doing, for readiness and for people.
type Status struct {
	// Member: the group has given this process its place. Nothing is
	// consumed without.
	Member bool
	// Partitions that are assigned to this process, in order.
	Partitions []PartitionStatus
}

// PartitionStatus is one assigned source partition.
type PartitionStatus struct {
	handlers.TopicPartition
	State  handlers.State
	Reason string
	// Applied, Published and Committed are next offsets: everything below is
	// in the database, in the output topics, in the group's offset.
	Applied, Published, Committed int64
	// Stable is the stable end as the broker last told it.
	Stable int64
	// Pending is how many batches are applied and not yet published.
	Pending int
}

// progress is a partition's status while it is being worked on.
type progress struct {
	mu sync.Mutex
	PartitionStatus
	reading bool        // the log has answered: the position is one that it holds
	flight  []departure // batches that are read and not yet applied
}

// departure is when the first row of a batch was written to the log.
type departure struct {
	to    int64
	first time.Time
}

// departed notes a batch that goes on its road.
func (p *progress) departed(b *batch) {
	if len(b.records) > 0 {
		p.update(func(p *progress) { p.flight = append(p.flight, departure{b.to, b.records[0].Timestamp}) })
	}
}

// arrived notes that everything below next is applied.
func (p *progress) arrived(next int64) {
	p.update(func(p *progress) {
		p.Applied = next
		for len(p.flight) > 0 && p.flight[0].to <= next {
			p.flight = p.flight[1:]
		}
	})
}

func newProgress(tp handlers.TopicPartition) *progress {
	return &progress{PartitionStatus: PartitionStatus{TopicPartition: tp, State: handlers.Running}}
}

func (p *progress) update(f func(*progress)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f(p)
}

func (p *progress) status() PartitionStatus {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.PartitionStatus
}

// lag returns how many offsets lie between what is applied and the stable
// end, and how long the first of them has been there.
func (p *progress) lag(now time.Time) (offsets int64, age time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	offsets = max(p.Stable-p.Applied, 0)
	if len(p.flight) > 0 && !p.flight[0].first.IsZero() {
		age = max(now.Sub(p.flight[0].first), 0)
	}
	return offsets, age
}

// board holds the progress of every assigned partition.
type board struct {
	mu         sync.Mutex
	member     bool
	partitions map[handlers.TopicPartition]*progress
}

// assign replaces what is assigned.
func (b *board) assign(partitions []*progress) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.member = true
	b.partitions = make(map[handlers.TopicPartition]*progress, len(partitions))
	for _, p := range partitions {
		b.partitions[p.TopicPartition] = p
	}
}

// leave: the member has no place in the group until the next assign.
func (b *board) leave() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.member, b.partitions = false, nil
}

func (b *board) all() (member bool, partitions []*progress) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, p := range b.partitions {
		partitions = append(partitions, p)
	}
	slices.SortFunc(partitions, func(a, b *progress) int {
		return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
	})
	return b.member, partitions
}

func (b *board) status() Status {
	member, partitions := b.all()
	s := Status{Member: member}
	for _, p := range partitions {
		s.Partitions = append(s.Partitions, p.status())
	}
	return s
}

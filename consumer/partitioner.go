package consumer

// Partitioner returns the choice of a topic of count partitions for a key that
// is not null, as outputs are sorted: the Java client's murmur2.
func Partitioner(count int) func(key []byte) int { return partitioner(count) }

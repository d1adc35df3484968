package handlers

import "time"

// CataloguePosition is how far one partition of a catalogue topic has been
// read, as the database knows it.
type CataloguePosition struct {
	TopicPartition
	ClusterID  string
	NextOffset int64 // the next offset to read
	// FirstEnd is the end that the partition had when it was first seen.
	// Until every one has come to its own, consumers wait for the catalogue.
	FirstEnd int64
	Records  int64 // read since it was begun at the start
	Bad      int64 // of those, the ones that say nothing that can be stored
	Begun    int   // how often it was read from the start
	// Anchor is the last record that was read; absent: none was.
	Anchor      Opt[Anchor]
	State       State
	StateReason string
	UpdatedAt   time.Time
}

// CatalogueChunk is a run of consecutive offsets of one partition of a
// catalogue topic.
type CatalogueChunk struct {
	TopicPartition
	// Kind is what the topic's records are: the name of the kind's file.
	Kind     string
	From, To int64    // offsets [From, To)
	Records  []Record // those of them that hold one, in order
	// Anchor is the chunk's last record; absent: it has none.
	Anchor Opt[Anchor]
}

// CatalogueOutcome is what became of records of catalogue topics.
type CatalogueOutcome struct {
	// Upserts and Tombstones are the records that were read as such; of
	// several about one key the last holds. Bad are the others, Erased those
	// upserts that are of persons who were erased, and left out.
	Upserts, Tombstones, Erased int64
	Bad                         []RecordPlace
	// Changed are the entries of the catalogue that were added, changed or deleted.
	Changed int64
	// Waiting is how many refer to what is not there yet, and wait for it;
	// Held how many tombstones wait until nothing refers to what they name.
	Waiting, Held int64
	// Version is the catalogue's, raised by this; 0: nothing was.
	Version int64
}

// RecordPlace is where a record stands.
type RecordPlace struct {
	TopicPartition
	Offset int64
}

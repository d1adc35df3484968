package handlers

// Replays are the sources as their rows are treated when they are sent again,
// on the replay topic: the rules and the outputs of the original's source,
// and always in the order of event time.
type Replays struct {
	Topic string
	// None is the source of records that name none there is. Its rules say
	// just that (Rules.NoSource).
	None   *Source
	byName map[string]*Source // by the topic of the original
}

// Lane is what rows of the replay topic that are applied as one batch have in common.
type Lane struct {
	Source *Source
	// Origin is the partition that their originals stand in; zero: rows of
	// learnsink's own, which stand where they are.
	Origin TopicPartition
}

// NewReplays makes them of the sources, one at least. deadLetterTopic takes
// what names no source.
func NewReplays(topic string, sources []*Source, deadLetterTopic string) *Replays {
	r := &Replays{Topic: topic, byName: map[string]*Source{}}
	for _, s := range sources {
		again := *s
		again.Topic, again.ByEventTime, again.EventTimeHeader = topic, true, true
		again.Wait = 0 // who sends a row again wants to know now; and who has waited has waited
		r.byName[s.Topic] = &again
	}
	none := *r.byName[sources[0].Topic]
	none.DeadLetterTopic = deadLetterTopic
	r.None = &none
	return r
}

// Source returns the source of originals of that topic, as it is when they
// are sent again; None where there is none.
func (r *Replays) Source(topic string) *Source {
	if s := r.byName[topic]; s != nil {
		return s
	}
	return r.None
}

// Of returns the lane of a record of the replay topic.
func (r *Replays) Of(rec *Record) Lane {
	says := ReplayOf(rec)
	l := Lane{Source: r.Source(says.SourceTopic)}
	if l.Source != r.None && says.Origin.OK {
		l.Origin = TopicPartition{says.SourceTopic, says.Origin.V.Partition}
	}
	return l
}

package handlers

// Settle brings an accepted decision in line with what is stored under its
// key, read under that row's lock, and returns what is stored afterwards.
//
// byEventTime asks for order by event time: a row older than what is stored
// becomes a rejection (superseded). With completionDefault: keep, a completed
// row without a first completion keeps the one that is stored for a completed
// or passed row already: the first is the first.
//
// Settle changes the Decision and never what its pointers lead to, so that a
// transaction that has to be repeated can start from a copy of the decision.
func (d *Decision) Settle(byEventTime bool, s Stored) Stored {
	if d.Verdict != Accepted {
		return s
	}
	if byEventTime && s.Known && d.olderThan(s) {
		d.reject(plain(Superseded))
		return s
	}
	after := Stored{
		Known:           true,
		EventTime:       d.EventTime,
		SourceTopic:     d.Record.Topic,
		SourcePartition: d.Record.Partition,
		SourceOffset:    d.Record.Offset,
	}
	if d.Tracking == nil || d.Tracking.Delete {
		return after
	}
	if d.Tracking.FilledIn && d.Rules.keepCompletion && s.Done && s.FirstCompletion.OK {
		kept := *d.Tracking
		kept.FirstCompletion = s.FirstCompletion
		d.Tracking = &kept
	}
	after.Done, after.FirstCompletion = d.Tracking.Status.Done(), d.Tracking.FirstCompletion
	return after
}

// NeedsStored reports whether Settle asks what is stored, for the first row
// of its key in a batch. What is stored is nothing to all other rows: they say
// it all.
func (d *Decision) NeedsStored(byEventTime bool) bool {
	return d.Verdict == Accepted && (byEventTime || d.Tracking == nil || d.Tracking.FilledIn && d.Rules.keepCompletion)
}

// olderThan compares by event time, topic, partition and offset.
func (d *Decision) olderThan(s Stored) bool {
	r := d.Record
	switch {
	case !d.EventTime.Equal(s.EventTime):
		return d.EventTime.Before(s.EventTime)
	case r.Topic != s.SourceTopic:
		return r.Topic < s.SourceTopic
	case r.Partition != s.SourcePartition:
		return r.Partition < s.SourcePartition
	}
	return r.Offset < s.SourceOffset
}

// SettleRoom returns the room of an accepted intervention row as it is
// afterwards: of two rows about one room the later event wins, of two of one
// time the one applied later. The label is replaced, the capacity where given.
func (d *Decision) SettleRoom(stored Opt[Room]) Room {
	row := d.Intervention
	if !stored.OK {
		return Room{row.RoomGUID, row.RoomGUIDFolded, row.RoomLabel, row.RoomCapacity, Some(d.EventTime)}
	}
	room := stored.V
	if room.EventAt.OK && d.EventTime.Before(room.EventAt.V) {
		return room
	}
	room.Label, room.EventAt = row.RoomLabel, Some(d.EventTime)
	if row.RoomCapacity.OK {
		room.Capacity = row.RoomCapacity
	}
	return room
}

package handlers

import "strconv"

// Settle brings an accepted decision in line with what is stored under its
// key, read under that row's lock, and returns what is stored afterwards.
//
// byEventTime asks for order by event time: a row older than what is stored
// becomes a rejection (superseded). With completionDefault: keep, a completed
// row without a first completion keeps the one that is stored for a completed
// or passed row already: the first is the first. A replayed row stands in the
// order where its original does; it wins over exactly what a person saw stored
// and told it to replace (Replay.Overwrite), and over nothing newer. One that puts something
// back, of learnsink's own, wins over exactly that and nothing else.
//
// Settle changes the Decision and never what its pointers lead to, so that a
// transaction that has to be repeated can start from a copy of the decision.
func (d *Decision) Settle(byEventTime bool, s Stored) Stored {
	if d.Verdict != Accepted {
		return s
	}
	if byEventTime && s.Known && (d.olderThan(s) || d.putsBack()) && !d.overwrites(s) {
		d.reject(plain(Superseded))
		return s
	}
	from, offset := d.Stands()
	after := Stored{
		Known:           true,
		EventTime:       d.EventTime,
		SourceTopic:     from.Topic,
		SourcePartition: from.Partition,
		SourceOffset:    offset,
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

// Stands returns where a row stands in the order, and what is stored of it
// says that it comes from: where its record is, or, of a replayed one, where
// its original is.
func (d *Decision) Stands() (TopicPartition, int64) {
	if r := d.Replay; r != nil && r.Origin.OK {
		return TopicPartition{r.SourceTopic, r.Origin.V.Partition}, r.Origin.V.Offset
	}
	return TopicPartition{d.Record.Topic, d.Record.Partition}, d.Record.Offset
}

// olderThan compares by event time, topic, partition and offset.
func (d *Decision) olderThan(s Stored) bool {
	if !d.EventTime.Equal(s.EventTime) {
		return d.EventTime.Before(s.EventTime)
	}
	switch from, offset := d.Stands(); {
	case from.Topic != s.SourceTopic:
		return from.Topic < s.SourceTopic
	case from.Partition != s.SourcePartition:
		return from.Partition < s.SourcePartition
	default:
		return offset < s.SourceOffset
	}
}

// overwrites reports whether what is stored is the very thing that a person
// saw, and wants this row to win over.
func (d *Decision) overwrites(s Stored) bool {
	return d.Replay != nil && d.Replay.Overwrite != "" && d.Replay.Overwrite == s.Seen()
}

// putsBack reports whether the row is one of learnsink's own that is meant for
// what was seen stored, and for nothing else: what was written since stays, be
// it of an older event.
func (d *Decision) putsBack() bool {
	return d.Replay != nil && d.Replay.Of == "" && d.Replay.Overwrite != ""
}

// Seen names what is stored for Replay.Overwrite, so that it is known again:
// "<event time>|<topic>|<partition>|<offset>". "": nothing is stored.
func (s Stored) Seen() string {
	if !s.Known {
		return ""
	}
	b := append(appendTime(nil, s.EventTime), '|')
	b = append(append(b, s.SourceTopic...), '|')
	b = append(strconv.AppendInt(b, int64(s.SourcePartition), 10), '|')
	return string(strconv.AppendInt(b, s.SourceOffset, 10))
}

// Superseded reports whether a row was rejected for the one reason that
// something newer is stored.
func (d *Decision) Superseded() bool {
	return d.Verdict == Rejected && len(d.Errors) == 1 && d.Errors[0].Code == Superseded
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

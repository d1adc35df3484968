package store

import (
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"learnsink/handlers"
)

// stored is what was in the tables under the keys of a batch, as far as it was
// looked at, and locked.
type stored struct {
	tracking      map[handlers.TrackingKey]trackingWas // an entry for each key that was looked for
	interventions map[string]handlers.Stored           // by folded guid
	rooms         map[string]handlers.Room             // by folded guid
}

func newStored() *stored {
	return &stored{
		tracking:      map[handlers.TrackingKey]trackingWas{},
		interventions: map[string]handlers.Stored{},
		rooms:         map[string]handlers.Room{},
	}
}

// queue asks for what is stored under the keys of decisions, into s, and locks
// it: table by table, and in the order of keys. all: also of those whose
// decisions do not need it.
func (s *stored) queue(b *pgx.Batch, batch *handlers.Batch, decisions []handlers.Decision, all bool) {
	s.queueTracking(b, batch, decisions, all)
	s.queueInterventions(b, decisions)
}

// writes is what a batch leaves in the tables.
type writes struct {
	batch *handlers.Batch

	accepted, rejected, waiting, skipped int64

	tracking                                 trackingWrites
	interventionUpdates, interventionInserts interventionRows
	roomUpdates, roomInserts                 roomRows
	rejections                               rejectionRows
	replays                                  replayRows
}

// settle settles decisions, those of one key in the order of their offsets,
// against what was stored and what their predecessors leave, and collects what
// has to be written: the last state of each key, by key. The rejections of
// refused offsets go without what PostgreSQL might have refused.
func settle(b *handlers.Batch, decisions []handlers.Decision, was *stored, refused map[int64]struct{}) *writes {
	w := &writes{batch: b, rejections: rejectionRows{faults: newFaultRows()}}
	order := byKey(decisions)
	w.tracking = newTrackingWrites(len(order))
	ofOneKey(decisions, order, func(key handlers.TrackingKey, run []int) {
		was, looked := was.tracking[key]
		now := was.Stored
		var last *handlers.Decision
		for _, i := range run {
			d := &decisions[i]
			if now = d.Settle(b.Source.ByEventTime, now); d.Verdict == handlers.Accepted {
				last = d
			}
		}
		if last != nil {
			w.tracking.add(last, was, looked)
		}
	})
	w.settleInterventions(decisions, was)

	for i := range decisions {
		switch d := &decisions[i]; d.Verdict {
		case handlers.Accepted:
			w.accepted++
		case handlers.Rejected:
			w.rejected++
			_, bare := refused[d.Record.Offset]
			w.rejections.add(d, bare)
		case handlers.Waits:
			w.waiting++
			w.rejections.add(d, false)
		}
		w.replays.add(&decisions[i])
	}
	w.skipped = b.To - b.From - w.accepted - w.rejected - w.waiting
	return w
}

// settleInterventions is settle for the decisions about interventions.
func (w *writes) settleInterventions(decisions []handlers.Decision, was *stored) {
	type change struct {
		now  handlers.Stored
		last *handlers.Decision
	}
	interventions := map[string]change{}
	rooms := map[string]handlers.Room{}
	for i := range decisions {
		d := &decisions[i]
		if d.Verdict != handlers.Accepted || d.Intervention == nil {
			continue
		}
		key := d.Intervention.GUIDFolded
		c, ok := interventions[key]
		if !ok {
			c.now = was.interventions[key]
		}
		if c.now = d.Settle(w.batch.Source.ByEventTime, c.now); d.Verdict == handlers.Accepted {
			c.last = d
			key := d.Intervention.RoomGUIDFolded
			room, ok := rooms[key]
			if !ok {
				room, ok = was.rooms[key]
			}
			rooms[key] = d.SettleRoom(handlers.Opt[handlers.Room]{V: room, OK: ok})
		}
		interventions[key] = c
	}
	for _, key := range sortedKeys(interventions) {
		switch d := interventions[key].last; {
		case d == nil:
		case was.interventions[key].Known:
			w.interventionUpdates.add(d)
		default:
			w.interventionInserts.add(d)
		}
	}
	for _, key := range sortedKeys(rooms) {
		switch room, ok := was.rooms[key]; {
		case !ok:
			w.roomInserts.add(rooms[key])
		case rooms[key] != room:
			w.roomUpdates.add(rooms[key])
		}
	}
}

// queueRows queues what the rows leave: table by table in the order of locks.
// An intervention or a room that was locked is written for sure. One that was
// not there is inserted, and whether that went in tells whether another
// transaction was faster.
func (w *writes) queueRows(b *pgx.Batch, lookFirst bool) {
	w.tracking.queue(b, w.args(nil), lookFirst)
	if n := len(w.interventionUpdates.guidFolded); n > 0 {
		b.Queue(updateInterventions, w.args(w.interventionUpdates.args())...).Exec(exactly(n))
	}
	if n := len(w.interventionInserts.guidFolded); n > 0 {
		b.Queue(insertInterventions, w.args(w.interventionInserts.args())...).Exec(exactly(n))
	}
	if n := len(w.roomUpdates.guidFolded); n > 0 {
		b.Queue(updateRooms, w.roomUpdates.args()...).Exec(exactly(n))
	}
	if n := len(w.roomInserts.guidFolded); n > 0 {
		b.Queue(insertRooms, w.roomInserts.args()...).Exec(exactly(n))
	}
	w.replays.queueLocks(b)
	if len(w.rejections.id) > 0 {
		rules := w.batch.Source.Rules
		b.Queue(insertFaults, w.rejections.faults.faultArgs()...)
		args := append([]any{w.batch.Source.Topic, w.batch.Partition}, w.rejections.args()...)
		args = append(args, string(rules.Action()), rules.Hash(), quarantinedFrom, digest(w.batch.Source.Topic), w.batch.Source.Wait)
		b.Queue(insertRejections, append(args, w.rejections.faults.lineArgs()...)...)
	}
	w.replays.queue(b)
}

// args returns the arguments of a statement about rows that say where they come from: topic, partition, columns.
func (w *writes) args(columns []any) []any {
	from := w.batch.RowsFrom()
	return slices.Clip(append([]any{from.Topic, from.Partition}, columns...))
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, strings.Compare)
	return keys
}

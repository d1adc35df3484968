package dlq

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"
	"time"

	"learnsink/handlers"
	"learnsink/store"
)

// Revert takes back what a source has written in a window of time: for every
// key that it wrote last then, what the last accepted event before it said is
// put back, and where there was none the row is deleted.
//
// The window is of when rows were applied, by the database's clock: "the bad
// deploy was out from two to half past three". Event times may be of any day.
// What was accepted is read from the topics of accepted events, as far back as
// they reach: a key whose event before may be older than that is left alone,
// and so is one that was written since.
type Revert struct {
	Source   *handlers.Source // whose rows are taken back, by whose rules rows are put back
	Accepted []string         // topics in which accepted events of its action are
	From, To time.Time        // applied in [From, To)
	Sender   *string          // of this sender's rows alone (ce_source; "": those that name none); nil: of all
	// Now is the event time of the rows that put back.
	Now time.Time

	Books     Books
	Catalogue Catalogue
	Tables    Tables
	Events    Events

	windows []store.Window
	keys    map[string]*reverting // by the subject of events
	whole   bool                  // the topics hold every event that there ever was
}

// Books tell what was applied when, and what is stored of it.
type Books interface {
	AppliedBetween(ctx context.Context, topic string, from, to time.Time) ([]store.Window, int64, error)
	WrittenIn(ctx context.Context, action handlers.Action, topic string, windows []store.Window, fn func(store.Written)) error
	Places(ctx context.Context, keys []handlers.TrackingKey) (map[handlers.TrackingKey]handlers.TrackingRow, error)
}

// Events read a topic of accepted events, up to where it ends now.
type Events interface {
	// Each hands every record to fn. whole: from the first that there ever was;
	// else the topic holds all since a time.
	Each(ctx context.Context, topic string, fn func(*handlers.Record) error) (whole bool, since time.Time, err error)
	// At hands the records at these offsets of a partition, in order, to fn.
	// What is no longer there it leaves out.
	At(ctx context.Context, tp handlers.TopicPartition, offsets []int64, fn func(*handlers.Record) error) error
}

// Left says why a key that was written in the window is left alone.
type Left string

// Why keys are left alone.
const (
	LeftSince     Left = "was written since"
	LeftForgotten Left = "what was there before is older than the accepted topic reaches"
	LeftUnknown   Left = "the accepted topic does not hold the event that wrote it"
	LeftNoDelete  Left = "there was nothing before, and an intervention cannot be deleted"
	LeftUnsayable Left = "the source's settings cannot say it: " // and why
	LeftRejected  Left = "it would be rejected now: "            // and with what
	LeftOther     Left = "the row that was there would mean another one now"
	LeftErased    Left = "it is of a person who was erased"
	LeftSame      Left = "what was there before says the same"
)

// Back is a row that is put back.
type Back struct {
	Item    store.JobItem
	Subject string // of the key, as events have it
	Deletes bool
	Diff    []Difference // from what is stored to what is put back
}

// RevertCounts are what a revert comes to.
type RevertCounts struct {
	Rows    int64          `json:"rows"` // accepted in the window, of whatever sender
	Keys    int64          `json:"keys"` // that were written last in the window
	PutBack int64          `json:"putBack"`
	Deleted int64          `json:"deleted"`
	Left    map[Left]int64 `json:"left"`
	// Reach is since when topics of accepted events hold them all; those that
	// hold every one are not named.
	Reach map[string]time.Time `json:"reach,omitempty"`
}

// at is where an event stands.
type at struct {
	time      int64 // of publication, by which partitions are put in order
	topic     int32 // which of Accepted
	partition int32
	offset    int64
}

func (a at) compare(b at) int {
	return cmp.Or(cmp.Compare(a.time, b.time), cmp.Compare(a.topic, b.topic), cmp.Compare(a.partition, b.partition), cmp.Compare(a.offset, b.offset))
}

// reverting is a key that was written in the window.
type reverting struct {
	written store.Written
	bad     at   // the event of what is stored, and is to be taken back
	good    at   // the last event of all that are not
	another bool // what is stored is another sender's
	replays bool // what is stored was replayed: written since
}

// Look finds the keys, and for each what was there before. It reads the whole
// topics of accepted events, and remembers a few dozen bytes of each key.
func (r *Revert) Look(ctx context.Context) (counts RevertCounts, err error) {
	counts.Left, counts.Reach = map[Left]int64{}, map[string]time.Time{}
	r.windows, counts.Rows, err = r.Books.AppliedBetween(ctx, r.Source.Topic, r.From, r.To)
	if err != nil {
		return counts, err
	}
	r.keys, r.whole = map[string]*reverting{}, true
	err = r.Books.WrittenIn(ctx, r.Source.Rules.Action(), r.Source.Topic, r.windows, func(w store.Written) {
		r.keys[r.subject(&w)] = &reverting{written: w}
	})
	if err != nil || len(r.keys) == 0 {
		return counts, err
	}
	for i, topic := range r.Accepted {
		whole, since, err := r.Events.Each(ctx, topic, func(rec *handlers.Record) error { return r.enter(int32(i), rec) })
		if err != nil {
			return counts, err
		}
		if !whole {
			r.whole, counts.Reach[topic] = false, since
		}
	}
	for subject, k := range r.keys {
		if k.another {
			delete(r.keys, subject)
		}
	}
	counts.Keys = int64(len(r.keys))
	return counts, nil
}

// subject is the key's as ce_subject has it; of interventions folded.
func (r *Revert) subject(w *store.Written) string {
	if w.GUIDFolded != "" {
		return w.GUIDFolded
	}
	return strconv.FormatInt(w.RegistrationID, 10) + "/" + strconv.FormatInt(w.LearningObjectID, 10)
}

// enter notes an event of one of the keys.
func (r *Revert) enter(topic int32, rec *handlers.Record) error {
	kind, _ := rec.Header("ce_type")
	if !strings.HasPrefix(string(kind), "learnsink."+string(r.Source.Rules.Action())+".") {
		return nil
	}
	subject, _ := rec.Header("ce_subject")
	k := r.keys[handlers.Fold(string(subject))]
	if k == nil {
		return nil
	}
	here := at{rec.Timestamp.UnixMilli(), topic, int32(rec.Partition), rec.Offset}
	id, _ := rec.Header("ce_id")
	source, of, ok := originOf(string(id))
	var event struct {
		ReplayOf string
		Source   struct{ Sender string }
	}
	// Of the source's own rows the header says it all, unless a sender is asked for.
	if mine := ok && source == r.Source.Topic; !mine || r.Sender != nil {
		if json.Unmarshal(rec.Value, &event) != nil {
			return fmt.Errorf("%s/%d offset %d is no accepted event", rec.Topic, rec.Partition, rec.Offset)
		}
	}
	stands := of
	if replayed, origin, ok := originOf(event.ReplayOf); ok {
		source, stands = replayed, origin
	}
	stored := source == r.Source.Topic && stands.Partition == k.written.SourcePartition && stands.Offset == k.written.SourceOffset
	taken := ok && event.ReplayOf == "" && source == r.Source.Topic && r.within(of) && (r.Sender == nil || event.Source.Sender == *r.Sender)
	switch {
	case stored && taken:
		k.bad = here
	case taken: // one before what is stored
	case k.good.compare(here) < 0:
		k.good = here
		fallthrough
	default:
		k.another = k.another || stored && event.ReplayOf == ""
		k.replays = k.replays || stored && event.ReplayOf != ""
	}
	return nil
}

// within reports whether a row was applied in the window.
func (r *Revert) within(of handlers.Origin) bool {
	_, found := slices.BinarySearchFunc(r.windows, of, func(w store.Window, of handlers.Origin) int {
		switch {
		case w.Partition != of.Partition:
			return cmp.Compare(w.Partition, of.Partition)
		case w.Incarnation != of.Incarnation:
			return cmp.Compare(w.Incarnation, of.Incarnation)
		case w.To <= of.Offset:
			return -1
		case w.From > of.Offset:
			return 1
		}
		return 0
	})
	return found
}

// originOf takes the id of an outcome apart: <topic>[~<incarnation>]-<partition>-<offset>.
func originOf(id string) (topic string, of handlers.Origin, ok bool) {
	last := strings.LastIndexByte(id, '-')
	if last < 0 {
		return "", of, false
	}
	middle := strings.LastIndexByte(id[:last], '-')
	if middle < 0 {
		return "", of, false
	}
	topic, of.Incarnation = id[:middle], 1
	if tilde := strings.LastIndexByte(topic, '~'); tilde >= 0 {
		if n, err := strconv.Atoi(topic[tilde+1:]); err == nil {
			topic, of.Incarnation = topic[:tilde], n
		}
	}
	partition, err := strconv.ParseUint(id[middle+1:last], 10, 31)
	offset, err2 := strconv.ParseUint(id[last+1:], 10, 63)
	of.Partition, of.Offset = int(partition), int64(offset)
	return topic, of, err == nil && err2 == nil
}

// backChunk is how many rows are judged together.
const backChunk = 1000

// Rows hands out the rows that put back, judged by the catalogue, the settings
// and the tables of now; keys that are left alone are counted in counts, which
// is complete once it has come to its end. It may be called again.
func (r *Revert) Rows(ctx context.Context, counts *RevertCounts) iter.Seq2[Back, error] {
	return func(yield func(Back, error) bool) {
		counts.PutBack, counts.Deleted, counts.Left = 0, 0, map[Left]int64{}
		wanted := r.wanted(counts)
		chunk := make([]*backRow, 0, backChunk)
		flush := func() error {
			defer func() { chunk = chunk[:0] }()
			return r.judge(ctx, chunk, counts, yield)
		}
		for _, tp := range sortedPlaces(wanted) {
			keys := wanted[tp]
			offsets := make([]int64, 0, len(keys))
			for offset := range keys {
				offsets = append(offsets, offset)
			}
			slices.Sort(offsets)
			err := r.Events.At(ctx, tp, offsets, func(rec *handlers.Record) error {
				event, err := handlers.ReadEvent(rec.Value)
				if err != nil {
					return fmt.Errorf("%s/%d offset %d is no accepted event: %w", rec.Topic, rec.Partition, rec.Offset, err)
				}
				chunk = append(chunk, &backRow{reverting: keys[rec.Offset], key: rec.Key, event: event})
				delete(keys, rec.Offset)
				if len(chunk) < backChunk {
					return nil
				}
				return flush()
			})
			if err == nil {
				err = flush()
			}
			counts.Left[LeftForgotten] += int64(len(keys)) // meanwhile
			if errors.Is(err, errStopped) {
				return
			}
			if err != nil {
				yield(Back{}, err)
				return
			}
		}
	}
}

// errStopped: whoever asks for rows has enough.
var errStopped = errors.New("stopped")

// wanted says which events are to be read, by their place: of a key that had
// nothing before, the one that is taken back, which says how rows name it.
func (r *Revert) wanted(counts *RevertCounts) map[handlers.TopicPartition]map[int64]*reverting {
	wanted := map[handlers.TopicPartition]map[int64]*reverting{}
	for _, k := range r.keys {
		from := k.good
		switch {
		case k.replays:
			counts.Left[LeftSince]++
			continue
		case k.bad == (at{}):
			counts.Left[LeftUnknown]++
			continue
		case k.good == (at{}) && !r.whole:
			counts.Left[LeftForgotten]++
			continue
		case k.good == (at{}) && r.Source.Rules.Action() == handlers.Intervention:
			counts.Left[LeftNoDelete]++
			continue
		case k.good == (at{}):
			from = k.bad
		}
		tp := handlers.TopicPartition{Topic: r.Accepted[from.topic], Partition: int(from.partition)}
		if wanted[tp] == nil {
			wanted[tp] = map[int64]*reverting{}
		}
		wanted[tp][from.offset] = k
	}
	return wanted
}

func sortedPlaces(wanted map[handlers.TopicPartition]map[int64]*reverting) (places []handlers.TopicPartition) {
	for tp := range wanted {
		places = append(places, tp)
	}
	slices.SortFunc(places, func(a, b handlers.TopicPartition) int {
		return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
	})
	return places
}

// backRow is a key on its way to a row.
type backRow struct {
	*reverting
	key   []byte
	event *handlers.Event

	want     *handlers.Event // what is to be there afterwards
	decision handlers.Decision
	value    []byte
	left     Left
	done     bool
}

// variant is a way to say a row.
type variant func(b *backRow, place handlers.TrackingRow, known bool) (*handlers.Event, bool)

// variants are the ways in which a row is tried to be said, one after the
// other: as it was sent; and by what the catalogue calls the thing today,
// where texts have come to mean another one.
func variants() []variant {
	return []variant{
		func(b *backRow, _ handlers.TrackingRow, _ bool) (*handlers.Event, bool) { return b.want, true },
		func(b *backRow, place handlers.TrackingRow, known bool) (*handlers.Event, bool) {
			if b.want.Tracking == nil || !known {
				return nil, false
			}
			row := *b.want.Tracking
			row.CandidateLogin, row.CandidateRefNumber, row.CandidateEmail = place.CandidateLogin, "", ""
			row.LovCode, row.LovGUID = "", place.LovGUID
			row.SessionGUID, row.SessionID, row.SessionTitle, row.TrainingPathCode, row.TrainingID = "", place.SessionID, "", "", 0
			said := *b.want
			said.Tracking = &row
			return &said, true
		},
	}
}

// judge makes rows of a chunk, and hands those out that put something back.
func (r *Revert) judge(ctx context.Context, chunk []*backRow, counts *RevertCounts, yield func(Back, error) bool) error {
	var keys []handlers.TrackingKey
	for _, b := range chunk {
		b.want = b.event
		if b.good == (at{}) {
			b.want = deletion(b.event)
		}
		if b.want.Tracking != nil {
			keys = append(keys, b.want.Tracking.TrackingKey)
		}
	}
	places, err := r.Books.Places(ctx, keys)
	if err != nil {
		return err
	}
	for _, v := range variants() {
		if err := r.try(ctx, chunk, places, v); err != nil {
			return err
		}
	}
	decisions := make([]handlers.Decision, 0, len(chunk))
	for _, b := range chunk {
		if b.done {
			decisions = append(decisions, b.decision)
		}
	}
	under, err := r.Tables.Under(ctx, decisions)
	if err != nil {
		return err
	}
	for _, b := range chunk {
		back, ok := r.back(b, under)
		switch {
		case !ok:
			counts.Left[b.left]++
			continue
		case back.Deletes:
			counts.Deleted++
		default:
			counts.PutBack++
		}
		if !yield(back, nil) {
			return errStopped
		}
	}
	return nil
}

// deletion is the row that deletes what an event wrote.
func deletion(e *handlers.Event) *handlers.Event {
	was := e.Tracking
	gone := *e
	gone.Delete = true
	gone.Tracking = &handlers.TrackingRow{TrackingKey: was.TrackingKey, Delete: true, Status: handlers.NotAttempted,
		CandidateLogin: was.CandidateLogin, CandidateRefNumber: was.CandidateRefNumber, CandidateEmail: was.CandidateEmail,
		LovCode: was.LovCode, LovGUID: was.LovGUID, SessionGUID: was.SessionGUID, SessionID: was.SessionID, SessionTitle: was.SessionTitle,
		TrainingPathCode: was.TrainingPathCode, TrainingID: was.TrainingID}
	return &gone
}

// try says what is not said yet in one way, and decides it.
func (r *Revert) try(ctx context.Context, chunk []*backRow, places map[handlers.TrackingKey]handlers.TrackingRow, v variant) error {
	rules := r.Source.Rules
	decoder, refs := rules.Decoder(), handlers.NewReferences()
	var of []*backRow
	var rows []handlers.Row
	for _, b := range chunk {
		if b.done {
			continue
		}
		var place handlers.TrackingRow
		known := false
		if b.want.Tracking != nil {
			place, known = places[b.want.Tracking.TrackingKey]
		}
		said, ok := v(b, place, known)
		if !ok {
			continue
		}
		value, err := rules.Restate(said)
		if err != nil {
			b.left = LeftUnsayable + Left(err.Error())
			continue
		}
		b.value = value
		of, rows = append(of, b), append(rows, handlers.Row{})
	}
	for i, b := range of {
		decoder.Decode(&rows[i], &handlers.Record{Topic: r.Source.Topic, Timestamp: r.Now, Key: b.key, Value: b.value}, r.Now)
		rows[i].Refer(refs)
	}
	if len(rows) == 0 {
		return nil
	}
	facts, err := r.Catalogue.FactsNow(ctx, refs)
	if err != nil {
		return err
	}
	for i, d := range rules.DecideAll(rows, facts) {
		b := of[i]
		switch {
		case b.want.Same(&d):
			b.decision, b.done = d, true
		case d.Verdict == handlers.Gone:
			b.left = LeftErased
		case d.Verdict == handlers.Accepted:
			b.left = LeftOther
		case len(d.Errors) > 0:
			b.left = LeftRejected + Left(d.Errors[0].Code)
		default:
			b.left = LeftOther
		}
	}
	return nil
}

// back is the row that puts a key back, unless it is left alone after all.
func (r *Revert) back(b *backRow, under *store.Under) (back Back, ok bool) {
	if !b.done {
		return back, false
	}
	var was left
	var now *content
	if t := b.decision.Tracking; t != nil {
		was = trackingLeft(under, t.TrackingKey)
		if !t.Delete {
			now = trackingContent(t)
		}
	} else {
		was = interventionLeft(under, b.decision.Intervention.GUIDFolded)
		now = interventionContent(b.decision.Intervention)
	}
	if was.Seen() != b.written.Seen() {
		b.left = LeftSince
		return back, false
	}
	diff := was.row.diff(now)
	// That a date was filled in is not put back: the row gives it.
	if len(diff) == 0 || len(diff) == 1 && diff[0].Column == "firstCompletionFilledIn" {
		b.left = LeftSame
		return back, false
	}
	return Back{
		Subject: r.subject(&b.written), Deletes: b.want.Delete, Diff: diff,
		Item: store.JobItem{SourceTopic: r.Source.Topic, Key: b.key, Value: b.value, EventAt: r.Now, Overwrite: b.written.Seen(),
			Headers: []handlers.Header{{Key: handlers.SenderHeader, Value: []byte(RevertSender)}}},
	}, true
}

// RevertSender is the sender of rows that put back.
const RevertSender = "learnsink/revert"

// Selection is what was asked for, as a job keeps it.
func (r *Revert) Selection() json.RawMessage {
	said := map[string]any{"source": r.Source.Topic, "from": r.From.UTC(), "to": r.To.UTC()}
	if r.Sender != nil {
		said["sender"] = *r.Sender
	}
	text, err := json.Marshal(said)
	if err != nil { // texts and times alone: cannot be
		return json.RawMessage("{}")
	}
	return text
}

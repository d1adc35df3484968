package consumer

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/rs/zerolog"

	"learnsink/handlers"
)

// Room is the waiting room, and the right to let rows out of it, which one
// process at a time has. That no row is let out twice does not rest on it, but
// on Release. Nothing of it is called by two goroutines at once.
type Room interface {
	// Look returns which catalogue there is, and whether a row is past its
	// deadline; an error where the right may be lost.
	Look(ctx context.Context) (catalogue int64, overdue bool, err error)
	// Facts answers references as of one catalogue.
	Facts(ctx context.Context, refs *handlers.References) (*handlers.Facts, error)
	// Kinds returns the first row of each kind (of one source, waiting for the
	// same) that comes after the kind of a row; nil: from the beginning.
	Kinds(ctx context.Context, after *handlers.WaitingRow, most int) ([]handlers.WaitingRow, error)
	// Rows returns the rows of a kind that come after one of them, in order.
	Rows(ctx context.Context, after *handlers.WaitingRow, most int) ([]handlers.WaitingRow, error)
	// Rename notes what rows wait for by now.
	Rename(ctx context.Context, rows []handlers.WaitingRow) error
	// Release puts those rows that are still in the room into a job, in one
	// transaction, and returns how many those are.
	Release(ctx context.Context, why string, ids []string) (job, rows int64, err error)
	// ReleaseOverdue does so with rows that are past their deadline.
	ReleaseOverdue(ctx context.Context, why string, most int) (job, rows int64, err error)
	// Close gives the right up.
	Close()
}

// RoomStore is where the waiting room is.
type RoomStore interface {
	// LeadRoom takes the right to let rows out; false where another process has it.
	LeadRoom(ctx context.Context) (Room, bool, error)
}

// Releaser lets rows out of the waiting room: when the catalogue has what they
// wait for, and at their deadline. They go over the replay topic, as rows of a
// job, and are judged there once more, under the locks of what they change; so
// what is decided here is no more than whether it is worth while.
//
// All rows of a kind lack the same, so the first of each tells of them all:
// what a load of the catalogue costs goes by how many things are missing, and
// not by how many rows wait for them.
type Releaser struct {
	store   RoomStore
	sources map[string]*handlers.Source // by topic
	limits  releaseLimits
	metrics *Metrics
	logger  zerolog.Logger
	// judged is the catalogue by which every row that waits has been judged:
	// one that comes into the room later was judged by it, or by a later one.
	judged int64
}

// releaseLimits bound a Releaser.
type releaseLimits struct {
	page    int           // rows that are judged at once
	job     int           // rows of a job
	tick    time.Duration // from one look to the next
	standby time.Duration // after which another process may be gone
	share   int           // it rests this many times as long as the rows took to judge
	rest    time.Duration // and no longer than this
}

// Releaser makes what lets the rows of the consumer's sources out of the
// waiting room.
func (c *Consumer) Releaser(store RoomStore) *Releaser {
	return &Releaser{store: store, sources: c.sources, metrics: c.metrics, logger: c.logger, limits: releaseLimits{
		page: 2000, job: 50_000, tick: 500 * time.Millisecond, standby: 2 * time.Second, share: 4, rest: time.Minute}}
}

// Run lets rows out until ctx ends. Whatever fails is tried again.
func (r *Releaser) Run(ctx context.Context) error {
	waits := newBackOff()
	for ctx.Err() == nil {
		wait := r.limits.standby
		if err := r.lead(ctx, waits.Reset); err != nil && ctx.Err() == nil {
			r.metrics.failures.WithLabelValues("release").Inc()
			r.logger.Warn().Err(err).Msg("rows that wait are not released for now")
			wait = waits.NextBackOff()
		}
		pause(ctx, wait)
	}
	return nil
}

// lead lets rows out for as long as this process has the right to. It returns
// nil at once where another has it.
func (r *Releaser) lead(ctx context.Context, well func()) error {
	room, led, err := r.store.LeadRoom(ctx)
	if err != nil || !led {
		return err
	}
	defer room.Close()
	for ctx.Err() == nil {
		took, err := r.look(ctx, room)
		if err != nil {
			return err
		}
		well()
		// Catalogues may come one after the other, and there may be much that is
		// missing: the rows that do not wait have the database most of the time.
		pause(ctx, max(r.limits.tick, min(time.Duration(r.limits.share)*took, r.limits.rest)))
	}
	return nil
}

// Once lets out what may go, once; false where another process has the right to.
func (r *Releaser) Once(ctx context.Context) (bool, error) {
	room, led, err := r.store.LeadRoom(ctx)
	if err != nil || !led {
		return false, err
	}
	defer room.Close()
	_, err = r.look(ctx, room)
	return true, err
}

// look lets out what may go now, and returns how long it took to judge.
func (r *Releaser) look(ctx context.Context, room Room) (took time.Duration, err error) {
	catalogue, overdue, err := room.Look(ctx)
	if err != nil {
		return 0, err
	}
	if catalogue != r.judged {
		began := time.Now()
		if err := r.judge(ctx, room); err != nil {
			return 0, err
		}
		r.judged, took = catalogue, time.Since(began)
	}
	if overdue {
		err = r.overdue(ctx, room)
	}
	return took, err
}

// overdue lets the rows out that are past their deadline: they are judged for
// the last time, and are dead letters like any other then, unless what they
// waited for has just come.
func (r *Releaser) overdue(ctx context.Context, room Room) error {
	for {
		job, rows, err := room.ReleaseOverdue(ctx, "their deadline is over", r.limits.job)
		if err != nil || rows == 0 {
			return err
		}
		r.released("deadline", job, rows)
	}
}

// judge judges whatever waits by the catalogue of now: the first row of each
// kind, and where something has come of it, all of them. A crash amid it
// leaves some rows released, each in one transaction, and the others in the
// room: the next one begins anew.
func (r *Releaser) judge(ctx context.Context, room Room) error {
	out := &release{Releaser: r, room: room}
	var last *handlers.WaitingRow
	for {
		kinds, err := room.Kinds(ctx, last, r.limits.page)
		if err != nil {
			return err
		}
		became, err := r.decide(ctx, room, kinds)
		if err != nil {
			return err
		}
		for i := range kinds {
			if became[i].changed {
				if err := out.kind(ctx, &kinds[i]); err != nil {
					return err
				}
			}
		}
		if len(kinds) < r.limits.page {
			return out.send(ctx)
		}
		last = &kinds[len(kinds)-1]
	}
}

// release is rows on their way into a job.
type release struct {
	*Releaser
	room Room
	ids  []string
}

// kind judges every row of a kind.
func (o *release) kind(ctx context.Context, first *handlers.WaitingRow) error {
	page := []handlers.WaitingRow{*first}
	for {
		became, err := o.decide(ctx, o.room, page)
		if err != nil {
			return err
		}
		var renamed []handlers.WaitingRow
		for i := range page {
			switch b := &became[i]; {
			case b.changed && b.waitsFor == nil:
				o.ids = append(o.ids, page[i].ID)
			case b.changed:
				renamed = append(renamed, handlers.WaitingRow{ID: page[i].ID, WaitsFor: b.waitsFor})
			}
		}
		if len(renamed) > 0 {
			if err := o.room.Rename(ctx, renamed); err != nil {
				return err
			}
		}
		if len(o.ids) >= o.limits.job {
			if err := o.send(ctx); err != nil {
				return err
			}
		}
		last := page[len(page)-1]
		if page, err = o.room.Rows(ctx, &last, o.limits.page); err != nil || len(page) == 0 {
			return err
		}
	}
}

// send puts what has been found so far into a job.
func (o *release) send(ctx context.Context) error {
	if len(o.ids) == 0 {
		return nil
	}
	job, rows, err := o.room.Release(ctx, "the catalogue has what they waited for", o.ids)
	if err != nil {
		return err
	}
	o.ids = o.ids[:0]
	if rows > 0 {
		o.released("catalogue", job, rows)
	}
	return nil
}

func (r *Releaser) released(why string, job, rows int64) {
	r.metrics.released.WithLabelValues(why).Add(float64(rows))
	r.logger.Info().Int64("job", job).Int64("rows", rows).Str("because", why).Msg("rows that waited are released")
}

// became is what a row that waits would be now.
type became struct {
	changed  bool     // it does not wait for what it did
	waitsFor []string // nil: it does not wait any more
}

// decide says what rows would be, each by the rules of its source. One whose
// source is not configured stays as it is, until its deadline.
func (r *Releaser) decide(ctx context.Context, room Room, rows []handlers.WaitingRow) ([]became, error) {
	all := make([]became, len(rows))
	of := map[string][]int{}
	for i := range rows {
		of[rows[i].Record.Topic] = append(of[rows[i].Record.Topic], i)
	}
	for topic, indexes := range of {
		source := r.sources[topic]
		if source == nil {
			continue
		}
		decisions, err := decideWaiting(ctx, room, source, rows, indexes)
		if err != nil {
			return nil, err
		}
		for n, i := range indexes {
			d := &decisions[n]
			if d.Verdict == handlers.Waits {
				all[i] = became{!slices.Equal(d.WaitsFor, rows[i].WaitsFor), d.WaitsFor}
			} else {
				all[i] = became{changed: true}
			}
		}
	}
	return all, nil
}

// decideWaiting decides some of rows, all of one source, by one catalogue.
func decideWaiting(ctx context.Context, room Room, source *handlers.Source, rows []handlers.WaitingRow, indexes []int) ([]handlers.Decision, error) {
	decoder, refs := source.Rules.Decoder(), handlers.NewReferences()
	decoded := make([]handlers.Row, len(indexes))
	for n, i := range indexes {
		decoder.Decode(&decoded[n], &rows[i].Record, rows[i].EventAt)
		decoded[n].Refer(refs)
	}
	for {
		facts, err := room.Facts(ctx, refs)
		if err != nil {
			return nil, err
		}
		decisions := source.Rules.DecideAll(decoded, facts)
		err = waitFor(ctx, room.Facts, decoded, decisions, facts)
		if !errors.Is(err, handlers.ErrStaleFacts) {
			return decisions, err
		}
	}
}

// waitFor makes those rows wait that lack nothing but what they refer to. What
// exactly that is takes one more question, which is asked of them alone;
// ErrStaleFacts where the answer is of another catalogue.
func waitFor(ctx context.Context, ask func(context.Context, *handlers.References) (*handlers.Facts, error),
	rows []handlers.Row, decisions []handlers.Decision, facts *handlers.Facts) error {
	refs, any := handlers.Lacking(rows, decisions)
	if !any {
		return nil
	}
	if len(refs.Contexts) > 0 {
		more, err := ask(ctx, refs)
		if err != nil {
			return err
		}
		if more.Version != facts.Version {
			return handlers.ErrStaleFacts
		}
		facts.Contexts = more.Contexts
	}
	handlers.Wait(rows, decisions, facts)
	return nil
}

package store

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"learnsink/handlers"
)

// RejectionGroup is what rejections have in common that have one fault. A
// row with two errors stands in two groups.
type RejectionGroup struct {
	Fault
	Rows        int64
	Subjects    int64 // learners, or interventions, touched
	First, Last time.Time
	// Senders and Values are the most frequent, most of them first; Distinct
	// is how many different values there are. A value of registration_not_found is a registration.
	Senders, Values []Share
	Distinct        int64
	Latest          string // the id of the newest
}

// Share is how many rows have a text.
type Share struct {
	Text string
	Rows int64
}

// GroupOptions bounds what is told of groups.
type GroupOptions struct {
	Most int // groups, the largest first. 0: all
	Top  int // senders and values of each. 0: none
}

// RejectionGroups groups the rejections that a filter means by what is wrong
// with them, the largest group first, in one snapshot of the database.
//
// The counting is done here: a million narrow lines are read and counted while
// the server has hardly begun to sort out what is distinct among them.
func (s *Store) RejectionGroups(ctx context.Context, f RejectionFilter, opt GroupOptions) (groups []RejectionGroup, err error) {
	defer wrap(&err, "group the rejections")
	if err := f.Check(); err != nil {
		return nil, err
	}
	err = s.reading(ctx, func(tx pgx.Tx) error {
		faults, err := f.faultIDs(ctx, tx, true)
		if err != nil || faults != nil && len(faults) == 0 {
			return err
		}
		t, err := s.tally(ctx, tx, f, faults)
		if err != nil {
			return err
		}
		largest := t.largest(opt.Most)
		if err := t.describe(ctx, tx, largest, opt.Top); err != nil {
			return err
		}
		groups = make([]RejectionGroup, len(largest))
		for i, g := range largest {
			groups[i] = g.RejectionGroup
		}
		return nil
	})
	return groups, err
}

// Lines are read over several connections at once, where they are many.
const (
	tallyLanes  = 2
	tallyBlocks = 2000 // 16 MB
)

// tally counts what a filter means: over this connection and, of the same
// snapshot, others, each a stretch of the table.
func (s *Store) tally(ctx context.Context, tx pgx.Tx, f RejectionFilter, faults []int64) (*tally, error) {
	var snapshot string
	var blocks int64
	if err := tx.QueryRow(ctx, `SELECT pg_export_snapshot(), pg_relation_size('learnsink.rejection_fault') / current_setting('block_size')::bigint`).Scan(&snapshot, &blocks); err != nil {
		return nil, err
	}
	lanes := int64(1)
	if blocks >= tallyBlocks && len(f.onRejection(&sqlArgs{})) == 0 && f.Value == "" {
		lanes = tallyLanes
	}
	tallies := make([]*tally, lanes)
	g, ctx := errgroup.WithContext(ctx)
	for lane := range lanes {
		count := func(tx pgx.Tx) (err error) {
			stretch := ""
			if lanes > 1 {
				stretch = fmt.Sprintf(" AND f.ctid >= '(%d,0)'::tid", lane*blocks/lanes)
				if lane < lanes-1 {
					stretch += fmt.Sprintf(" AND f.ctid < '(%d,0)'::tid", (lane+1)*blocks/lanes)
				}
			}
			tallies[lane], err = f.tally(ctx, tx, faults, stretch)
			return err
		}
		g.Go(func() error {
			if lane == 0 {
				return count(tx)
			}
			return pgx.BeginTxFunc(ctx, s.pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
				if _, err := tx.Exec(ctx, "SET TRANSACTION SNAPSHOT '"+snapshot+"'"); err != nil {
					return err
				}
				if _, err := tx.Exec(ctx, "SET LOCAL statement_timeout = 0"); err != nil {
					return err
				}
				return count(tx)
			})
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	for _, t := range tallies[1:] {
		tallies[0].merge(t)
	}
	return tallies[0], nil
}

// tally reads the lines of a stretch and counts them.
func (f *RejectionFilter) tally(ctx context.Context, tx pgx.Tx, faults []int64, stretch string) (*tally, error) {
	if _, err := tx.Exec(ctx, `SELECT set_config('jit', 'off', true), set_config('max_parallel_workers_per_gather', '0', true), set_config('plan_cache_mode', 'force_custom_plan', true)`); err != nil {
		return nil, err
	}
	var a sqlArgs
	where := append([]string{"true"}, f.onFault(&a)...)
	if faults != nil {
		where = append(where, "f.fault = ANY ("+a.add(faults)+"::bigint[])")
	}
	from := "learnsink.rejection_fault f"
	if more := f.onRejection(&a); len(more) > 0 {
		from, where = from+" JOIN learnsink.rejection r USING (seq)", append(where, more...)
	}
	rows, err := tx.Query(ctx, "SELECT f.fault, f.seq, f.rejected_at, f.sender, f.subject, f.value FROM "+from+" WHERE "+strings.Join(where, " AND ")+stretch, a...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	t := newTally()
	for rows.Next() {
		raw := rows.RawValues()
		for i, v := range raw {
			if len(v) != 8 && (i < 4 || v != nil) {
				return nil, fmt.Errorf("column %d of rejection_fault came in %d bytes, not in 8", i, len(v))
			}
		}
		t.add(raw)
	}
	return t, rows.Err()
}

// tally is groups on their way: what is counted is digests, and a text is
// looked up in one row of those that have it.
type tally struct {
	groups                    map[int64]*tallied
	last                      *tallied // most lines are of the fault of the line before
	subjects, senders, values counts
}

type tallied struct {
	RejectionGroup
	id              int64
	first, last     int64 // as PostgreSQL has them: microseconds since 2000
	newest          int64 // seq
	senders, values []count64
}

func newTally() *tally { return &tally{groups: map[int64]*tallied{}} }

// add counts a line: fault, seq, rejected_at, sender, subject, value.
func (t *tally) add(raw [][]byte) {
	number := func(i int) int64 { return int64(binary.BigEndian.Uint64(raw[i])) }
	fault, seq, at := number(0), number(1), number(2)
	g := t.last
	if g == nil || g.id != fault {
		if g = t.groups[fault]; g == nil {
			g = &tallied{id: fault, first: at, last: at}
			t.groups[fault] = g
		}
		t.last = g
	}
	g.Rows++
	g.first, g.last, g.newest = min(g.first, at), max(g.last, at), max(g.newest, seq)
	t.senders.add(count64{fault: fault, digest: number(3), rows: 1, seq: seq})
	if raw[4] != nil {
		t.subjects.add(count64{fault: fault, digest: number(4), rows: 1, seq: seq})
	}
	if raw[5] != nil {
		t.values.add(count64{fault: fault, digest: number(5), rows: 1, seq: seq})
	}
}

// merge adds what another has counted.
func (t *tally) merge(other *tally) {
	for id, g := range other.groups {
		into := t.groups[id]
		if into == nil {
			t.groups[id] = g
			continue
		}
		into.Rows += g.Rows
		into.first, into.last, into.newest = min(into.first, g.first), max(into.last, g.last), max(into.newest, g.newest)
	}
	for _, both := range [][2]*counts{{&t.subjects, &other.subjects}, {&t.senders, &other.senders}, {&t.values, &other.values}} {
		both[0].grow(both[1].used)
		for _, c := range both[1].all() {
			both[0].add(c)
		}
	}
}

// largest returns the groups with the most rows, 0: all of them, with what was
// counted for each.
func (t *tally) largest(most int) []*tallied {
	for _, g := range t.groups {
		g.First, g.Last = fromPostgres(g.first), fromPostgres(g.last)
	}
	for _, c := range t.subjects.all() {
		t.groups[c.fault].Subjects++
	}
	for _, c := range t.senders.all() {
		g := t.groups[c.fault]
		g.senders = append(g.senders, c)
	}
	for _, c := range t.values.all() {
		g := t.groups[c.fault]
		g.Distinct++
		// The few of a group that come first are all that is told.
		if len(g.values) == 2*maxTop {
			slices.SortFunc(g.values, byRows)
			g.values = g.values[:maxTop]
		}
		g.values = append(g.values, c)
	}
	all := slices.Collect(maps.Values(t.groups))
	slices.SortFunc(all, func(a, b *tallied) int { return cmp.Or(cmp.Compare(b.Rows, a.Rows), cmp.Compare(a.id, b.id)) })
	if most > 0 && len(all) > most {
		all = all[:most]
	}
	return all
}

// maxTop is how many senders and values of a group can be asked for.
const maxTop = 100

func byRows(a, b count64) int { return cmp.Or(cmp.Compare(b.rows, a.rows), cmp.Compare(b.seq, a.seq)) }

// fromPostgres reads a timestamptz.
func fromPostgres(micros int64) time.Time {
	return time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(micros) * time.Microsecond)
}

// count64 is how many lines of a fault have a digest; seq is the newest of them.
type count64 struct{ fault, digest, rows, seq int64 }

// counts is a hash table of what is counted, open to a million of them: a map
// of Go's takes three times as long.
type counts struct {
	table []count64 // rows = 0: free
	used  int
}

func (c *counts) add(n count64) {
	c.grow(1)
	mask := uint64(len(c.table) - 1)
	for i := mix(n); ; i++ {
		switch t := &c.table[i&mask]; {
		case t.rows == 0:
			*t = n
			c.used++
			return
		case t.digest == n.digest && t.fault == n.fault:
			t.rows += n.rows
			t.seq = max(t.seq, n.seq)
			return
		}
	}
}

// grow makes room for so many more. What comes in the order of another table
// needs it beforehand: it would fill one end of a small table only.
func (c *counts) grow(more int) {
	size := max(64, len(c.table))
	for 3*size < 4*(c.used+more) {
		size *= 2
	}
	if size == len(c.table) {
		return
	}
	old := c.all()
	c.table, c.used = make([]count64, size), 0
	for _, n := range old {
		c.add(n)
	}
}

// mix spreads digests, which senders may have a say in, and the faults' ids.
func mix(n count64) uint64 {
	h := (uint64(n.digest) ^ uint64(n.fault)*0x9e3779b97f4a7c15) * 0xbf58476d1ce4e5b9
	return h ^ h>>32
}

// all returns what is counted, in no order.
func (c *counts) all() []count64 {
	all := make([]count64, 0, c.used)
	for _, n := range c.table {
		if n.rows > 0 {
			all = append(all, n)
		}
	}
	return all
}

// describe looks up the texts: of each fault, and of each digest in one of its rows.
func (t *tally) describe(ctx context.Context, tx pgx.Tx, groups []*tallied, top int) error {
	top = min(top, maxTop)
	var ids, seqs []int64
	for _, g := range groups {
		slices.SortFunc(g.senders, byRows)
		slices.SortFunc(g.values, byRows)
		g.senders, g.values = g.senders[:min(top, len(g.senders))], g.values[:min(top, len(g.values))]
		ids, seqs = append(ids, g.id), append(seqs, g.newest)
		for _, c := range append(slices.Clip(g.senders), g.values...) {
			seqs = append(seqs, c.seq)
		}
	}
	rows, err := tx.Query(ctx, "SELECT id, action, code, field, message FROM learnsink.fault WHERE id = ANY ($1::bigint[])", ids)
	if err != nil {
		return err
	}
	var id int64
	var fault Fault
	if _, err := pgx.ForEachRow(rows, []any{&id, &fault.Action, &fault.Code, &fault.Field, &fault.Message}, func() error {
		t.groups[id].Fault = fault
		return nil
	}); err != nil {
		return err
	}
	if rows, err = tx.Query(ctx, "SELECT "+rejectionColumns+" FROM learnsink.rejection r WHERE seq = ANY ($1::bigint[])", seqs); err != nil {
		return err
	}
	list, err := pgx.CollectRows(rows, scanRejection)
	if err != nil {
		return err
	}
	bySeq := map[int64]*Rejection{}
	for i := range list {
		bySeq[list[i].Seq] = &list[i]
	}
	for _, g := range groups {
		if r := bySeq[g.newest]; r != nil {
			g.Latest = r.ID
		}
		for _, c := range g.senders {
			if r := bySeq[c.seq]; r != nil {
				g.Senders = append(g.Senders, Share{r.Sender, c.rows})
			}
		}
		for _, c := range g.values {
			if r := bySeq[c.seq]; r != nil {
				g.Values = append(g.Values, Share{r.valueOf(g.Fault), c.rows})
			}
		}
	}
	return nil
}

// valueOf is the value of the row that a fault is about.
func (r *Rejection) valueOf(f Fault) string {
	if f.Code == handlers.NoRegistration {
		about := handlers.AboutRow(r.Action, r.Value)
		return storable(about.Registration)
	}
	for i := range r.Errors {
		if FaultOf(r.Action, &r.Errors[i]) == f {
			return r.Errors[i].Value
		}
	}
	return ""
}

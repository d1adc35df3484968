package oracle

import (
	"context"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
)

// counts is what a partition's bookkeeping comes to.
type counts struct{ Accepted, Rejected, Sum int64 }

// counts returns what each partition must come to.
func (e *expected) counts() map[string]counts {
	want := map[string]counts{}
	for at, end := range e.Ends {
		want[at] = counts{Sum: end}
	}
	for _, o := range e.Outcomes {
		at := place(o.Log.Topic, o.Log.Partition)
		c := want[at]
		if o.Errors == nil {
			c.Accepted++
		} else {
			c.Rejected++
		}
		want[at] = c
	}
	return want
}

// positions holds position and outbox against what the sources hold.
func (h *House) positions(ctx context.Context, e *expected, f *Findings) error {
	want, got := e.counts(), map[string]counts{}
	err := Query(ctx, h.DB, `SELECT topic || '-' || partition, accepted, rejected, first_offset + accepted + rejected + waiting + skipped FROM learnsink.position
		WHERE first_offset + accepted + rejected + waiting + skipped = next_offset AND state = 'running' AND topic <> ALL ($1)`, func(rows pgx.Rows) error {
		var at string
		var c counts
		err := rows.Scan(&at, &c.Accepted, &c.Rejected, &c.Sum)
		got[at] = c
		return err
	}, h.apart())
	if diff := cmp.Diff(want, got); diff != "" && err == nil {
		f.faultf("position (-model +table):\n%s", cut(diff))
	}
	return err
}

// ledger holds the ledger against what the sources hold: its lines follow each
// other without a gap, and every row counts once.
func (h *House) ledger(ctx context.Context, e *expected, f *Findings) error {
	got := map[string]counts{}
	err := Query(ctx, h.DB, `SELECT topic || '-' || partition, sum(accepted)::bigint, sum(rejected)::bigint, sum(to_offset - from_offset)::bigint,
			sum((SELECT coalesce(sum((c ->> 'rows')::bigint), 0) FROM jsonb_array_elements(counts) c))::bigint,
			max(to_offset), bool_or(gap) FROM (SELECT *, from_offset <> coalesce(lag(to_offset) OVER (PARTITION BY topic, partition ORDER BY from_offset), 0) AS gap
			FROM learnsink.ledger WHERE NOT superseded AND topic <> ALL ($1)) l GROUP BY 1`, func(rows pgx.Rows) error {
		var at string
		var c counts
		var counted, end int64
		var gap bool
		err := rows.Scan(&at, &c.Accepted, &c.Rejected, &c.Sum, &counted, &end, &gap)
		got[at] = c
		if gap || counted != c.Accepted+c.Rejected || end != c.Sum {
			f.faultf("ledger of %s: %+v, counts of %d rows, up to %d, a gap %v", at, c, counted, end, gap)
		}
		return err
	}, h.apart())
	if err != nil {
		return err
	}
	for at, c := range e.counts() {
		if c != got[at] {
			f.faultf("ledger of %s: %+v, not %+v", at, got[at], c)
		}
	}
	return nil
}

package consumer

import (
	"context"
	"fmt"
	"slices"
	"time"

	"learnsink/handlers"
)

// gatherer cuts the log into batches.
type gatherer struct {
	*lease
	next int64 // the offset that the next batch begins at
	left Chunk // what was read and did not fit the last batch

	// anchor is the last record that was taken. It is compared with the log
	// whenever there is a doubt that the log is still the same: at first, and
	// after whatever kept us from reading.
	anchor handlers.Opt[handlers.Anchor]
	doubt  bool
	// blocked is since when a sender's open transaction has been all there is.
	blocked time.Time
}

// gather returns the next batch: as many rows as are there, at most
// limits.rows or limits.bytes (one row at least). It waits limits.poll for the
// first; once there is no backlog it lingers for more rows, as long as
// limits.linger. A batch without offsets means that nothing is there.
func (g *gatherer) gather(ctx context.Context) (*batch, error) {
	began := time.Now()
	b := &batch{source: g.source, from: g.next, to: g.next, read: began}
	var deadline time.Time // until which more rows are waited for
	for {
		if g.left.Next <= g.next {
			wait := g.limits.poll
			if b.to > b.from {
				if wait = 0; !deadline.IsZero() {
					wait = time.Until(deadline)
				}
			}
			err := g.attempt(ctx, "read", func(ctx context.Context) error { return g.read(ctx, max(wait, 0)) })
			if err != nil {
				if b.to > b.from { // the error comes again, after the batch
					return b, nil
				}
				return nil, err
			}
			g.progress.update(func(p *progress) {
				p.Stable, p.reading = g.left.Stable, true
			})
		}
		full := g.take(b)
		g.watch()
		switch now := time.Now(); {
		case full, b.to == b.from:
			return b, nil
		case g.next < g.left.Stable && now.Sub(began) < gatherTime:
			deadline = time.Time{} // a backlog: read on at once
		case g.next < g.left.Stable, len(b.records) == 0:
			return b, nil
		case deadline.IsZero():
			if deadline = now.Add(g.limits.linger); g.limits.linger <= 0 {
				return b, nil
			}
		case !now.Before(deadline):
			return b, nil
		}
	}
}

// read reads on, once it is certain that the log is still the same.
func (g *gatherer) read(ctx context.Context, wait time.Duration) (err error) {
	if g.doubt && g.anchor.OK {
		if err := g.log.Verify(ctx, g.anchor.V); err != nil {
			return err
		}
	}
	g.left, err = g.log.Read(ctx, g.next, wait)
	g.doubt = err != nil
	return err
}

// watch complains of a transaction of a sender's that stays open, and holds
// back whatever is behind its first record.
func (g *gatherer) watch() {
	switch {
	case g.next < g.left.Stable || g.left.Stable >= g.left.End:
		if !g.blocked.IsZero() {
			g.blocked = time.Time{}
			g.settle("upstream")
		}
	case g.blocked.IsZero():
		g.blocked = time.Now()
	case time.Since(g.blocked) >= g.limits.blocked:
		g.trouble("upstream", handlers.OpenTransaction, fmt.Sprintf(
			"a sender's transaction has been open since %s at the latest: offset %d and what is behind it wait for its end",
			g.blocked.UTC().Format(time.RFC3339), g.next))
	}
}

// take moves rows from what was read into a batch; it reports whether the
// batch is full. Rows of two sources, or whose originals stand in two
// partitions, are of two batches.
func (g *gatherer) take(b *batch) (full bool) {
	n := 0
	for n < len(g.left.Records) {
		size, first := sizeOf(&g.left.Records[n]), len(b.records)+n == 0
		if !first && (len(b.records)+n >= g.limits.rows || b.bytes+size > g.limits.bytes) {
			full = true
			break
		}
		if g.replays != nil {
			lane := g.replays.Of(&g.left.Records[n])
			if first {
				b.source, b.origin = lane.Source, lane.Origin
			} else if full = lane != (handlers.Lane{Source: b.source, Origin: b.origin}); full {
				break
			}
		}
		b.bytes += size
		n++
	}
	if len(b.records) == 0 {
		b.records = g.left.Records[:n:n] // one chunk is enough, often
	} else {
		b.records = append(slices.Grow(b.records, g.limits.rows-len(b.records)), g.left.Records[:n]...)
	}
	if n > 0 {
		g.anchor = anchorOf(g.left.Records[:n])
	}
	g.left.Records = g.left.Records[n:]
	if full { // up to the first row that did not fit
		b.to = g.left.Records[0].Offset
	} else {
		b.to = g.left.Next
	}
	g.next = b.to
	return full || len(b.records) >= g.limits.rows
}

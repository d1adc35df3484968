package main

import (
	"bufio"
	"context"
	"io"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"learnsink/cmd/learnsink/rows"
	"learnsink/handlers"
)

// checker judges a file of rows.
type checker struct {
	rules  *handlers.Rules
	facts  factsFunc
	now    time.Time
	rows   *rows.Reader
	vendor bool
	silent bool // no verdicts, only the sum
	// gate, if there is one, holds a value while rows are judged: of all who
	// share it one judges at a time.
	gate chan struct{}
	used sync.Pool // chunks that have been printed
}

// chunk is a stretch of rows that are judged together.
type chunk struct {
	lines []int
	ends  []int  // where each row's text ends in text
	text  []byte // the rows' texts, one after the other

	verdicts []byte // what is printed of them
	sum      *summary
	done     chan struct{} // takes one value once the verdicts are there

	// What judging takes, kept with the chunk for the next rows.
	records []handlers.Record
	decoded []handlers.Row
}

// A chunk is closed at so many rows or bytes, whichever comes first.
const (
	chunkRows  = 1000
	chunkBytes = 1 << 20
)

// run judges every row and prints the verdicts in the rows' order; it returns
// what they come to. One goroutine reads, some judge, one prints.
func (c *checker) run(ctx context.Context, out io.Writer) (sum *summary, err error) {
	sum = newSummary()
	g, ctx := errgroup.WithContext(ctx)
	workers := runtime.GOMAXPROCS(0)
	if c.gate != nil {
		workers = 1
	}
	toJudge, toPrint := make(chan *chunk), make(chan *chunk, 2*workers)
	g.Go(func() error {
		defer close(toJudge)
		defer close(toPrint)
		for {
			next, err := c.read()
			if next != nil {
				for _, to := range []chan *chunk{toPrint, toJudge} {
					select {
					case to <- next:
					case <-ctx.Done():
						return ctx.Err()
					}
				}
			}
			if err == io.EOF {
				return nil
			}
			if err != nil {
				return err
			}
		}
	})
	for range workers {
		g.Go(func() error {
			for next := range toJudge {
				if err := c.judge(ctx, next); err != nil {
					return err
				}
				next.done <- struct{}{}
			}
			return nil
		})
	}
	g.Go(func() error {
		w := bufio.NewWriterSize(out, 256<<10)
		for next := range toPrint {
			select {
			case <-next.done:
			case <-ctx.Done():
				return ctx.Err()
			}
			sum.merge(next.sum)
			if _, err := w.Write(next.verdicts); err != nil {
				return err
			}
			c.used.Put(next)
			if len(toPrint) == 0 { // nobody is behind: who watches wants to see it
				if err := w.Flush(); err != nil {
					return err
				}
			}
		}
		return w.Flush()
	})
	err = g.Wait()
	return sum, err
}

// read gathers the next chunk; nil where there are no more rows. An error
// comes with the rows before it.
func (c *checker) read() (*chunk, error) {
	next, ok := c.used.Get().(*chunk)
	if !ok {
		next = &chunk{done: make(chan struct{}, 1), sum: newSummary()}
	}
	next.lines, next.ends, next.text, next.verdicts = next.lines[:0], next.ends[:0], next.text[:0], next.verdicts[:0]
	next.sum.reset()
	var err error
	for len(next.lines) < chunkRows && len(next.text) < chunkBytes {
		var row rows.Record
		if row, err = c.rows.Next(); err != nil {
			break
		}
		next.lines = append(next.lines, row.Line)
		next.text = append(next.text, row.Text...)
		next.ends = append(next.ends, len(next.text))
	}
	if len(next.lines) == 0 {
		return nil, err
	}
	return next, err
}

// judge decides the rows of a chunk, by one question to the catalogue.
func (c *checker) judge(ctx context.Context, k *chunk) error {
	if c.gate != nil {
		select {
		case c.gate <- struct{}{}:
			defer func() { <-c.gate }()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	k.records = slices.Grow(k.records[:0], len(k.lines))[:len(k.lines)]
	k.decoded = slices.Grow(k.decoded[:0], len(k.lines))[:len(k.lines)]
	decoder, refs := c.rules.Decoder(), handlers.NewReferences()
	for i := range k.lines {
		k.records[i] = handlers.Record{Timestamp: c.now, Value: c.rows.Value(k.row(i))}
		decoder.Decode(&k.decoded[i], &k.records[i], c.now)
		k.decoded[i].Refer(refs)
	}
	facts, err := c.facts(ctx, refs)
	if err != nil {
		return err
	}
	// Rows of an erased person are refused for what is wrong with them, as
	// those of anybody who is not in the catalogue: who was erased is not told.
	facts.Erased = nil
	for i, decision := range c.rules.DecideAll(k.decoded, facts) {
		k.sum.add(k.lines[i], decision.Errors)
		switch {
		case c.silent:
		case c.vendor:
			k.verdicts = appendVendor(k.verdicts, k.lines[i], k.row(i), &decision)
		default:
			k.verdicts = appendVerdict(k.verdicts, k.lines[i], &decision)
		}
	}
	return nil
}

// row returns the text of the chunk's row i.
func (k *chunk) row(i int) []byte {
	if i == 0 {
		return k.text[:k.ends[0]]
	}
	return k.text[k.ends[i-1]:k.ends[i]]
}

// appendVerdict appends the JSON line of a row.
func appendVerdict(dst []byte, line int, d *handlers.Decision) []byte {
	dst = strconv.AppendInt(append(dst, `{"line":`...), int64(line), 10)
	switch d.Verdict {
	case handlers.Accepted:
		dst = append(append(dst, `,"verdict":"accepted","operation":"`...), d.Operation()...)
		dst = d.AppendRow(append(dst, `","row":`...))
	case handlers.Rejected:
		dst = handlers.AppendErrors(append(dst, `,"verdict":"rejected","errors":`...), d.Errors)
	}
	return append(dst, "}\n"...)
}

// appendVendor appends a rejected row's messages as the vendor's log has them,
// a line each: the lines of a row that spans several are joined by blanks.
func appendVendor(dst []byte, line int, row []byte, d *handlers.Decision) []byte {
	for _, e := range d.Errors {
		dst = strconv.AppendInt(append(dst, "Line number:"...), int64(line), 10)
		dst = append(dst, ",ERROR,"...)
		from := len(dst)
		dst = append(dst, row...)
		for i, b := range dst[from:] {
			if b == '\n' || b == '\r' {
				dst[from+i] = ' '
			}
		}
		dst = append(append(append(dst, ','), e.Message...), '\n')
	}
	return dst
}

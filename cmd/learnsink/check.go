package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"learnsink/cmd/learnsink/rows"
	"learnsink/handlers"
	"learnsink/store"
	"learnsink/store/catalogue"
)

// checkCommand is `check`: what would become of rows, writing nothing.
func (a *app) checkCommand() *cobra.Command {
	var file rowFile
	var action, catalog, rules, at, form string
	cmd := &cobra.Command{
		Use:   "check --action ACTION [flags] [FILE]",
		Short: "judge rows and write nothing",
		Long: `check judges the rows of FILE (JSONL, or CSV by its ending; standard input where there is
none, or -) and prints a JSON line for each:

  {"line":1,"verdict":"accepted","operation":"upsert","row":{…}}
  {"line":2,"verdict":"rejected","errors":[{"code":…,"field":…,"value":…,"message":…}]}

Every row is judged by itself, as if nothing were stored. What rows refer to is looked up
in --catalog, else in the database. It exits with 3 if a row is rejected.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			now, err := eventTime(at)
			if err != nil {
				return err
			}
			if form != "json" && form != "vendor" {
				return badCall("--format-errors %q is not json or vendor", form)
			}
			judge, err := a.rules(action, rules)
			if err != nil {
				return err
			}
			in, err := file.open(a, args)
			if err != nil {
				return err
			}
			defer in.Close()
			facts, done, err := a.facts(cmd.Context(), catalog)
			if err != nil {
				return err
			}
			defer done()
			c := checker{rules: judge, facts: facts, now: now, rows: in.Reader, vendor: form == "vendor"}
			rejected, err := c.run(cmd.Context(), a.stdout)
			if err != nil {
				return err
			}
			a.warnOfHeader(in.Reader)
			if rejected > 0 {
				return errFault
			}
			return nil
		},
	}
	flags := cmd.Flags()
	actionFlag(cmd, &action)
	flags.StringVar(&catalog, "catalog", "", "folder of catalogue files to look references up in; no database is needed then")
	flags.StringVar(&rules, "rules", "", "file of settings, YAML or the vendor's XML (default: those of the configuration's source of this action)")
	flags.StringVar(&at, "event-time", "", "the rows' own time, RFC 3339: it fixes what today is (default: now)")
	flags.StringVar(&form, "format-errors", "json", "json, or vendor: Line number:4,ERROR,<row>,<message>, a line a message")
	file.flags(cmd)
	return cmd
}

// actionFlag adds --action, which a verb cannot do without (parseAction says
// so: cobra's own check of required flags cannot be told from a failure).
func actionFlag(cmd *cobra.Command, action *string) {
	cmd.Flags().StringVar(action, "action", "", "what the rows mean: tracking or intervention (required)")
	cmd.RegisterFlagCompletionFunc("action", cobra.FixedCompletions([]string{string(handlers.Tracking), string(handlers.Intervention)}, cobra.ShellCompDirectiveNoFileComp))
}

func parseAction(name string) (handlers.Action, error) {
	switch action := handlers.Action(name); action {
	case handlers.Tracking, handlers.Intervention:
		return action, nil
	case "":
		return "", badCall("--action is missing: say %s or %s", handlers.Tracking, handlers.Intervention)
	}
	return "", badCall("--action %q is not %s or %s", name, handlers.Tracking, handlers.Intervention)
}

// eventTime reads --event-time.
func eventTime(text string) (time.Time, error) {
	if text == "" {
		return time.Now().UTC().Truncate(time.Microsecond), nil
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil || t.UTC().Year() < 1 || t.UTC().Year() > 9999 {
		return t, badCall("--event-time %q is not RFC 3339, such as 2024-06-05T12:00:00Z", text)
	}
	return t.UTC().Truncate(time.Microsecond), nil
}

// rules returns the rules of an action: those of a file, else those of the
// configuration's first source of that action, else the defaults.
func (a *app) rules(name, file string) (*handlers.Rules, error) {
	action, err := parseAction(name)
	if err != nil {
		return nil, err
	}
	if file != "" {
		settings, faults := readRules(file, action)
		rules, err := handlers.Compile(action, settings)
		if err != nil {
			faults = append(faults, ruleFaults(file, err)...)
		}
		if len(faults) > 0 {
			return nil, callError{inOrder(faults)}
		}
		return rules, nil
	}
	c, err := a.load()
	if err != nil {
		return nil, err
	}
	if source := c.source(action); source != nil {
		return source.Rules, nil
	}
	return handlers.Compile(action, nil)
}

// factsFunc answers what rows refer to. It is called concurrently.
type factsFunc func(context.Context, *handlers.References) (*handlers.Facts, error)

// facts answers from a folder of catalogue files, else from the database.
func (a *app) facts(ctx context.Context, folder string) (factsFunc, func(), error) {
	if folder != "" {
		c, err := a.readCatalogue(folder)
		if err != nil {
			return nil, nil, err
		}
		return func(_ context.Context, refs *handlers.References) (*handlers.Facts, error) { return c.Facts(refs), nil }, func() {}, nil
	}
	s, err := a.openStore(ctx)
	if err != nil {
		return nil, nil, err
	}
	return s.Facts, s.Close, nil
}

// readCatalogue loads a folder into memory; a bad line is an error, since
// verdicts would rest on it.
func (a *app) readCatalogue(folder string) (*handlers.Catalogue, error) {
	files, err := catalogue.Open(folder)
	if err != nil {
		return nil, callIfAbsent(err)
	}
	a.namePassed(files)
	c, bad, err := catalogue.LoadMemory(files)
	if err != nil {
		return nil, err
	}
	a.nameBadLines(bad)
	if len(bad) > 0 {
		return nil, fmt.Errorf("the catalogue has bad lines: %d", len(bad))
	}
	return c, nil
}

// namePassed warns of files that may be catalogue files with misspelt names.
func (a *app) namePassed(files *catalogue.Folder) {
	for _, path := range files.Passed() {
		a.warn("%s is no catalogue file by its name and is passed over", path)
	}
}

// nameBadLines prints the bad lines of a catalogue.
func (a *app) nameBadLines(bad []catalogue.BadLine) {
	for _, b := range bad {
		fmt.Fprintln(a.stderr, b)
	}
}

// callIfAbsent makes of a file that is not there an error of the call.
func callIfAbsent(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return callError{err}
	}
	return err
}

// openStore opens the database of the configuration, and checks its schema.
func (a *app) openStore(ctx context.Context) (*store.Store, error) {
	c, err := a.load()
	if err != nil {
		return nil, err
	}
	s, err := store.Open(ctx, c.store())
	if err != nil {
		return nil, callError{err}
	}
	if err := s.CheckSchema(ctx); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// rowFile is a file of rows as check and send are told of it.
type rowFile struct {
	format, delimiter, encoding string
}

func (f *rowFile) flags(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.format, "format", "", "jsonl or csv (default: by FILE's ending)")
	flags.StringVar(&f.delimiter, "delimiter", "", "what stands between the cells of CSV: one character, or tab (default: a comma)")
	flags.StringVar(&f.encoding, "encoding", "", "the file's encoding, such as windows-1252 (default: utf-8)")
}

// openRows is a file of rows being read.
type openRows struct {
	*rows.Reader
	io.Closer
	size int64 // bytes; 0: not known
}

// open opens the file that the call names, or standard input. progress, if
// there is one, is told of every stretch of bytes read.
func (f *rowFile) open(a *app, args []string, progress ...io.Writer) (*openRows, error) {
	name := "-"
	if len(args) > 0 {
		name = args[0]
	}
	format, err := rows.NewFormat(name, f.format, f.delimiter, f.encoding)
	if err != nil {
		return nil, callError{err}
	}
	opened := &openRows{Closer: io.NopCloser(nil)}
	in := a.stdin
	if name != "-" {
		file, err := os.Open(name)
		if err != nil {
			return nil, callIfAbsent(err)
		}
		if info, err := file.Stat(); err == nil && info.IsDir() {
			file.Close()
			return nil, badCall("%s is a folder", name)
		} else if err == nil {
			opened.size = info.Size()
		}
		in, opened.Closer = file, file
	}
	for _, p := range progress {
		in = io.TeeReader(in, p)
	}
	opened.Reader = rows.NewReader(in, format)
	return opened, nil
}

// warnOfHeader says where a CSV header names a column twice: every row of it
// is rejected, and would not say why.
func (a *app) warnOfHeader(r *rows.Reader) {
	header := r.Header()
	for i, name := range header {
		if slices.Contains(header[:i], name) {
			a.warn("the header names column %q twice", name)
		}
	}
}

// checker judges a file of rows.
type checker struct {
	rules  *handlers.Rules
	facts  factsFunc
	now    time.Time
	rows   *rows.Reader
	vendor bool
	used   sync.Pool // chunks that have been printed
}

// chunk is a stretch of rows that are judged together.
type chunk struct {
	lines []int
	ends  []int  // where each row's text ends in text
	text  []byte // the rows' texts, one after the other

	verdicts []byte // what is printed of them
	rejected int
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
// how many were rejected. One goroutine reads, some judge, one prints.
func (c *checker) run(ctx context.Context, out io.Writer) (rejected int, err error) {
	g, ctx := errgroup.WithContext(ctx)
	workers := runtime.GOMAXPROCS(0)
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
			rejected += next.rejected
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
	return rejected, err
}

// read gathers the next chunk; nil where there are no more rows. An error
// comes with the rows before it.
func (c *checker) read() (*chunk, error) {
	next, ok := c.used.Get().(*chunk)
	if !ok {
		next = &chunk{done: make(chan struct{}, 1)}
	}
	next.lines, next.ends, next.text, next.verdicts, next.rejected = next.lines[:0], next.ends[:0], next.text[:0], next.verdicts[:0], 0
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
	k.records = slices.Grow(k.records[:0], len(k.lines))[:len(k.lines)]
	k.decoded = slices.Grow(k.decoded[:0], len(k.lines))[:len(k.lines)]
	refs := handlers.NewReferences()
	for i := range k.lines {
		k.records[i] = handlers.Record{Timestamp: c.now, Value: c.rows.Value(k.row(i))}
		k.decoded[i] = c.rules.Decode(&k.records[i], c.now)
		k.decoded[i].Refer(refs)
	}
	facts, err := c.facts(ctx, refs)
	if err != nil {
		return err
	}
	for i := range k.lines {
		decision := c.rules.Decide(&k.decoded[i], facts)
		if decision.Verdict == handlers.Rejected {
			k.rejected++
		}
		if c.vendor {
			k.verdicts = appendVendor(k.verdicts, k.lines[i], k.row(i), &decision)
		} else {
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

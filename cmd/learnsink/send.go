package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"

	"learnsink/cmd/learnsink/rows"
	"learnsink/consumer"
	"learnsink/handlers"
)

// sendCommand is `send`: rows from a file onto a source topic.
func (a *app) sendCommand() *cobra.Command {
	var file rowFile
	var s sender
	var action, topic string
	var wait, quiet bool
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "send --action ACTION [flags] [FILE]",
		Short: "put rows onto a source topic",
		Long: `send puts the rows of FILE (JSONL, or CSV by its ending; standard input where there is none,
or -) onto the source topic of their action. The key is the first of login, reference
number and e-mail that is there, folded (tracking), or the interventionGuid, folded:
rows of one learner or intervention keep their order.

--import-config takes the vendor's own import configuration for how FILE is written and
which of its columns is which; the settings that rows are judged by are the source's.

--wait follows the outputs until each row has its outcome, then prints the rejections as
check does, and a sum by message on standard error, and exits with 3 if there are any.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			action, err := parseAction(action)
			if err != nil {
				return err
			}
			if timeout <= 0 {
				return badCall("--timeout is to be more than 0")
			}
			if err := file.readImport(action); err != nil {
				return err
			}
			c, client, err := a.kafka()
			if err != nil {
				return err
			}
			defer client.Close()
			if s.source, err = c.sourceOf(action, topic); err != nil {
				return err
			}
			if s.eventTime != "" && !s.source.EventTimeHeader {
				a.warn("source %s does not say eventTime: header, so --event-time changes nothing there", s.source.Topic)
			}
			if file.config != nil && file.config.rules != nil && file.config.rules.Hash() != s.source.Rules.Hash() {
				a.warn("the settings in %s are not those of source %s, by which the rows will be judged", file.importConfig, s.source.Topic)
			}
			bar := a.progress("rows")
			in, err := file.open(a, args, bar)
			if err != nil {
				return err
			}
			defer in.Close()
			bar.ChangeMax64(cmp.Or(in.size, -1))
			s.client, s.rows, s.action = client, in.Reader, action
			// Sending goes on trying for as long as it takes; that somebody is
			// there to send to is found out before.
			if _, err := offsets(cmd.Context(), client.EndOffsets, s.source.Topic); err != nil {
				return err
			}
			if !wait {
				err := s.send(cmd.Context(), func(int, consumer.Produced) {})
				bar.Exit()
				if err == nil { // else the file may still be read
					a.warnOfHeader(in.Reader)
				}
				a.warn("sent %d rows to %s", s.sent, s.source.Topic)
				return err
			}
			return a.sendAndWait(cmd.Context(), &s, bar, timeout, quiet)
		},
	}
	flags := cmd.Flags()
	actionFlag(cmd, &action)
	flags.StringVar(&topic, "topic", "", "the source topic, where the configuration has several of the action")
	flags.StringVar(&s.key, "key", "", "the column whose text is the key")
	flags.StringVar(&s.eventTime, "event-time", "", "the column whose text (RFC 3339) becomes the header "+handlers.EventTimeHeader)
	flags.BoolVar(&wait, "wait", false, "follow the outputs until each row has its outcome, and print the rejections")
	flags.BoolVarP(&quiet, "quiet", "q", false, "with --wait: no sum of the messages at the end, on standard error")
	flags.DurationVar(&timeout, "timeout", time.Minute, "with --wait: give up after so long without another outcome")
	file.flags(cmd)
	return cmd
}

// sourceOf returns the source of an action, or the one of that topic.
func (c *config) sourceOf(action handlers.Action, topic string) (*handlers.Source, error) {
	for _, s := range c.Sources {
		if s.Rules.Action() == action && (topic == "" || s.Topic == topic) {
			return s, nil
		}
	}
	if topic != "" {
		return nil, badCall("--topic %q is no source of %s", topic, action)
	}
	return nil, badCall("the configuration has no source of %s", action)
}

// progress shows how far a file is read, where a person is looking.
func (a *app) progress(what string) *progressbar.ProgressBar {
	out := io.Discard
	if a.terminal(a.stderr) {
		out = a.stderr
	}
	// No spinner that turns by itself: its goroutine looks at the bar without the bar's lock.
	return progressbar.NewOptions64(-1, progressbar.OptionSetWriter(out), progressbar.OptionSetDescription(what), progressbar.OptionSetSpinnerChangeInterval(0),
		progressbar.OptionShowBytes(true), progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionClearOnFinish())
}

// sender puts the rows of a file onto a topic.
type sender struct {
	client         *consumer.Client
	rows           *rows.Reader
	action         handlers.Action
	source         *handlers.Source
	key, eventTime string // columns; "" = none
	sent           int

	names, texts []string // the columns that are looked at, and what stands there
}

// shipment is what is produced at once.
type shipment struct {
	messages []consumer.Message
	lines    []int
	size     int
	err      error // why nothing comes after it
}

// A shipment is closed at so many rows, or bytes.
const (
	sendRows  = 10_000
	sendBytes = 4 << 20
)

// send sends every row, in order, and tells sent of each, by its line. The
// next rows are read while those before them are on their way.
func (s *sender) send(ctx context.Context, sent func(line int, at consumer.Produced)) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop() // whoever reads may be waiting for standard input, and is not waited for
	shipments := make(chan shipment, 1)
	go s.read(ctx, shipments)
	for {
		var next shipment
		select {
		case next = <-shipments:
		case <-ctx.Done():
			return ctx.Err()
		}
		if len(next.messages) > 0 {
			produced, err := s.client.Produce(ctx, s.source.Topic, next.messages)
			if err != nil {
				return errors.Join(next.err, err)
			}
			for i, at := range produced {
				sent(next.lines[i], at)
			}
			s.sent += len(produced)
		}
		switch next.err {
		case nil:
		case io.EOF:
			return nil
		default:
			return next.err
		}
	}
}

// read makes shipments of the rows. The last one has an error: io.EOF at the end.
func (s *sender) read(ctx context.Context, shipments chan<- shipment) {
	var values []byte // room for the values of many rows
	for {
		var next shipment
		for next.err == nil && len(next.messages) < sendRows && next.size < sendBytes {
			var record rows.Record
			if record, next.err = s.rows.Next(); next.err != nil {
				break
			}
			if next.err = s.checkColumns(); next.err != nil {
				break
			}
			value := s.rows.Value(record.Text)
			if cap(values)-len(values) < len(value) {
				values = make([]byte, 0, max(1<<20, len(value)))
			}
			from := len(values)
			values = append(values, value...)
			message, err := s.message(values[from:len(values):len(values)])
			if err != nil {
				next.err = fmt.Errorf("line %d: %w", record.Line, err)
				break
			}
			next.messages, next.lines, next.size = append(next.messages, message), append(next.lines, record.Line), next.size+len(value)
		}
		select {
		case shipments <- next:
		case <-ctx.Done():
			return
		}
		if next.err != nil {
			return
		}
	}
}

// checkColumns refuses a column that a CSV file does not have.
func (s *sender) checkColumns() error {
	header := s.rows.Header()
	for flag, column := range map[string]string{"--key": s.key, "--event-time": s.eventTime} {
		if column != "" && header != nil && !slices.Contains(header, column) {
			return badCall("%s %q is no column of the file: it has %s", flag, column, strings.Join(header, ", "))
		}
	}
	return nil
}

// message makes the message of a row. One whose columns cannot be read has no
// key: it is rejected, whichever partition it is in.
func (s *sender) message(value []byte) (consumer.Message, error) {
	m := consumer.Message{Value: value}
	if s.names == nil {
		switch {
		case s.key != "":
			s.names = []string{s.key}
		case s.action == handlers.Intervention:
			s.names = []string{"interventionGuid"}
		default:
			s.names = []string{"candidateLogin", "candidateRefNumber", "candidateEmail"}
		}
		if s.eventTime != "" {
			s.names = append(s.names, s.eventTime)
		}
		s.texts = make([]string, len(s.names))
	}
	clear(s.texts)
	if !plainTexts(value, s.names, s.texts) {
		var columns map[string]json.RawMessage
		if json.Unmarshal(value, &columns) != nil {
			return m, nil
		}
		for i, name := range s.names {
			s.texts[i] = textOf(columns[name])
		}
	}
	keys := s.texts
	if s.eventTime != "" {
		last := len(s.texts) - 1
		keys = s.texts[:last]
		if at := s.texts[last]; at != "" {
			if _, err := time.Parse(time.RFC3339, at); err != nil {
				return m, fmt.Errorf("column %s is not a time in RFC 3339", s.eventTime)
			}
			m.Headers = []handlers.Header{{Key: handlers.EventTimeHeader, Value: []byte(at)}}
		}
	}
	key := cmp.Or(keys...)
	if s.key == "" {
		key = handlers.Fold(key)
	}
	m.Key = keyOf(key)
	return m, nil
}

func keyOf(text string) []byte {
	if text == "" {
		return nil
	}
	return []byte(text)
}

// textOf is the text of a value: a string's, or a number's literal, trimmed.
func textOf(raw json.RawMessage) string {
	var text string
	if len(raw) == 0 || raw[0] != '"' {
		if len(raw) > 0 && strings.IndexByte("-0123456789", raw[0]) >= 0 {
			text = string(raw)
		}
	} else if json.Unmarshal(raw, &text) != nil {
		return ""
	}
	return strings.TrimSpace(text)
}

// sendAndWait sends the rows and follows the outputs until each has its outcome.
func (a *app) sendAndWait(ctx context.Context, s *sender, bar *progressbar.ProgressBar, timeout time.Duration, quiet bool) error {
	following, stop := context.WithCancel(ctx)
	defer stop()
	w := &waiter{topic: s.source.Topic, lines: map[place]int{}, early: map[place]verdict{}, news: make(chan struct{}, 1)}
	failed, err := w.follow(following, s.client, s.source)
	if err != nil {
		return err
	}
	err = s.send(ctx, w.sent)
	bar.Exit()
	if err != nil {
		return err
	}
	a.warnOfHeader(s.rows)
	err = w.wait(ctx, timeout, failed)
	rejected := w.rejected()
	sum := newSummary()
	sum.rows = int64(w.accepted)
	for _, r := range rejected {
		var errs []handlers.Error
		if json.Unmarshal([]byte(r.errors), &errs) == nil {
			sum.add(r.line, errs)
		}
		if _, err := fmt.Fprintf(a.stdout, "{\"line\":%d,\"verdict\":\"rejected\",\"errors\":%s}\n", r.line, r.errors); err != nil {
			return err
		}
	}
	a.warn("sent %d rows to %s: %d accepted, %d rejected", s.sent, s.source.Topic, w.accepted, len(rejected))
	if len(rejected) > 0 && !quiet {
		err = errors.Join(err, sum.print(a.stderr))
	}
	switch {
	case err != nil:
		return err
	case len(rejected) > 0:
		return errFault
	}
	return nil
}

// place is where in the source topic a row lies.
type place struct {
	partition int
	offset    int64
}

// verdict is the outcome of a row: accepted, or with errors.
type verdict struct {
	line   int
	errors string // of a rejection, JSON; "" = accepted
}

// waiter matches outcomes with the rows that were sent.
type waiter struct {
	topic string
	news  chan struct{} // an outcome has come

	mu       sync.Mutex
	lines    map[place]int     // sent, and without an outcome
	early    map[place]verdict // outcomes of what is not (yet) known to be ours; nil once all is sent
	accepted int
	refused  []verdict
}

// follow reads both outputs of a source from their present ends on; what fails
// for good comes through failed.
func (w *waiter) follow(ctx context.Context, client *consumer.Client, source *handlers.Source) (failed <-chan error, err error) {
	errs := make(chan error, 1)
	for topic, header := range map[string]string{source.AcceptedTopic: "ce_id", source.DeadLetterTopic: "learnsink.id"} {
		ends, err := offsets(ctx, client.StableOffsets, topic)
		if err != nil {
			return nil, err
		}
		for partition, end := range ends {
			go func() {
				err := client.Tail(ctx, topic, partition, end, func(r *handlers.Record) error {
					if id, ok := r.Header(header); ok {
						w.outcome(string(id), r)
					}
					return nil
				})
				select {
				case errs <- err:
				default: // one is enough
				}
			}()
		}
	}
	return errs, nil
}

// sent notes a row that was sent; its outcome may have come already.
func (w *waiter) sent(line int, at consumer.Produced) {
	w.mu.Lock()
	defer w.mu.Unlock()
	p := place{at.Partition, at.Offset}
	if v, ok := w.early[p]; ok {
		delete(w.early, p)
		w.settle(line, v)
		return
	}
	w.lines[p] = line
}

// outcome notes an outcome; one that was announced before is not counted again.
func (w *waiter) outcome(id string, r *handlers.Record) {
	tp, offset, ok := parseID(id)
	if topic, _, _ := strings.Cut(tp.Topic, "~"); !ok || topic != w.topic { // of a topic that was made anew it is topic~2
		return
	}
	p := place{tp.Partition, offset}
	var v verdict
	if errors, ok := r.Header("learnsink.errors"); ok {
		v.errors = string(errors)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	line, ours := w.lines[p]
	switch {
	case ours:
		delete(w.lines, p)
		w.settle(line, v)
		select {
		case w.news <- struct{}{}:
		default:
		}
	case w.early != nil:
		w.early[p] = v
	}
}

func (w *waiter) settle(line int, v verdict) {
	if v.errors == "" {
		w.accepted++
		return
	}
	v.line = line
	w.refused = append(w.refused, v)
}

// wait returns once every row has its outcome. All rows have been sent.
func (w *waiter) wait(ctx context.Context, timeout time.Duration, failed <-chan error) error {
	w.mu.Lock()
	w.early = nil
	w.mu.Unlock()
	quiet := time.NewTimer(timeout)
	defer quiet.Stop()
	for {
		w.mu.Lock()
		open := len(w.lines)
		w.mu.Unlock()
		if open == 0 {
			return nil
		}
		select {
		case <-w.news:
			quiet.Reset(timeout)
		case <-quiet.C:
			return fmt.Errorf("rows without an outcome: %d, and none came for %s: is learnsink serve running?", open, timeout)
		case err := <-failed:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// rejected returns the rejections in the order of their lines.
func (w *waiter) rejected() []verdict {
	w.mu.Lock()
	defer w.mu.Unlock()
	slices.SortFunc(w.refused, func(a, b verdict) int { return cmp.Compare(a.line, b.line) })
	return w.refused
}

// parseID takes the id of an outcome apart: <source topic>-<partition>-<offset>.
// The topic is as the id has it: with ~2, ~3 … where it was made anew.
func parseID(id string) (tp handlers.TopicPartition, offset int64, ok bool) {
	last := strings.LastIndexByte(id, '-')
	if last < 0 {
		return tp, 0, false
	}
	middle := strings.LastIndexByte(id[:last], '-')
	if middle < 0 {
		return tp, 0, false
	}
	partition, err := strconv.ParseUint(id[middle+1:last], 10, 31)
	if err != nil {
		return tp, 0, false
	}
	n, err := strconv.ParseUint(id[last+1:], 10, 63)
	return handlers.TopicPartition{Topic: id[:middle], Partition: int(partition)}, int64(n), err == nil
}

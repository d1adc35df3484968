package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"learnsink/consumer"
	"learnsink/handlers"
)

// tailCommand is `tail`: accepted events, or dead letters, as they come.
func (a *app) tailCommand() *cobra.Command {
	var t tail
	var from, form string
	var deadLetters bool
	cmd := &cobra.Command{
		Use:   "tail",
		Short: "print accepted events as they come",
		Long: `tail prints the accepted events of every source as they come (--dead-letter: the dead
letters), read_committed; those of one partition in their order.

  -o beginning|end|-N|N|s@TIME   from the first, the next, the last N of each partition,
                                 offset N, or a time (RFC 3339, or milliseconds since 1970)
  -n N                           end after N records
  -e                             end where the topics end now
  -f json|value|FORMAT           a JSON object a line; the value; or a text in which %k is
                                 the key, %v the value, %t %p %o topic, partition and
                                 offset, %T the timestamp in milliseconds, %h the headers,
                                 %% a percent sign, \n and \t what they are in C`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			start, err := parseStart(from)
			if err != nil {
				return err
			}
			if t.print, err = parseForm(form); err != nil {
				return err
			}
			c, client, err := a.kafka()
			if err != nil {
				return err
			}
			defer client.Close()
			topics := map[string]bool{}
			for _, s := range c.Sources {
				if deadLetters {
					topics[s.DeadLetterTopic] = true
				} else {
					topics[s.AcceptedTopic] = true
				}
			}
			t.client, t.out = client, bufio.NewWriter(a.stdout)
			return t.run(cmd.Context(), topics, start)
		},
	}
	flags := cmd.Flags()
	flags.BoolVar(&deadLetters, "dead-letter", false, "dead letters instead of accepted events")
	flags.StringVarP(&from, "offset", "o", "end", "where to begin: beginning, end, -N, N or s@TIME")
	flags.IntVarP(&t.most, "count", "n", 0, "end after so many records (default: never)")
	flags.BoolVarP(&t.toEnd, "exit", "e", false, "end where the topics end now")
	flags.StringVarP(&form, "format", "f", "json", "json, value, or a text such as '%k %v'")
	return cmd
}

// start is where in each partition a tail begins.
type start struct {
	back  int64 // the last so many
	at    int64 // an offset
	time  time.Time
	which byte // b eginning, e nd, - back, @ time, n umber
}

func parseStart(text string) (start, error) {
	bad := badCall("-o %q is not beginning, end, -N, N or s@TIME (RFC 3339, or milliseconds since 1970)", text)
	switch text {
	case "beginning":
		return start{which: 'b'}, nil
	case "end":
		return start{which: 'e'}, nil
	}
	if at, ok := strings.CutPrefix(text, "s@"); ok {
		if ms, err := strconv.ParseInt(at, 10, 64); err == nil {
			return start{which: '@', time: time.UnixMilli(ms)}, nil
		}
		t, err := time.Parse(time.RFC3339, at)
		if err != nil {
			return start{}, bad
		}
		return start{which: '@', time: t}, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	switch {
	case err != nil:
		return start{}, bad
	case strings.HasPrefix(text, "-"):
		return start{which: '-', back: -n}, nil
	}
	return start{which: 'n', at: n}, nil
}

// offsets returns where each partition of a topic begins.
func (s start) offsets(ctx context.Context, client *consumer.Client, topic string, ends map[int]int64) (map[int]int64, error) {
	if s.which == '@' {
		return client.OffsetsAt(ctx, topic, s.time)
	}
	first, err := offsets(ctx, client.StartOffsets, topic)
	if err != nil {
		return nil, err
	}
	from := map[int]int64{}
	for p, end := range ends {
		switch s.which {
		case 'b':
			from[p] = first[p]
		case 'e':
			from[p] = end
		case '-':
			if from[p], err = lastOf(ctx, client, topic, p, first[p], end, s.back); err != nil {
				return nil, err
			}
		case 'n':
			from[p] = max(first[p], s.at)
		}
	}
	return from, nil
}

// lastOf returns the offset of the n-th record before end. Offsets hold other
// things than records too (every transaction ends with a marker), so it looks
// further back until there are enough.
func lastOf(ctx context.Context, client *consumer.Client, topic string, partition int, first, end, n int64) (int64, error) {
	for span := n; ; span *= 2 {
		from := max(first, end-span)
		var there []int64
		err := client.ReadRange(ctx, topic, partition, from, end, func(r *handlers.Record) error {
			there = append(there, r.Offset)
			return nil
		})
		switch {
		case err != nil:
			return 0, err
		case int64(len(there)) >= n && n > 0:
			return there[int64(len(there))-n], nil
		case from == first, n <= 0:
			return from, nil
		}
	}
}

// tail prints records of several partitions as they come.
type tail struct {
	client *consumer.Client
	most   int
	toEnd  bool
	print  func(*bytes.Buffer, *handlers.Record)

	mu      sync.Mutex
	out     *bufio.Writer
	buffer  bytes.Buffer
	printed int
}

// errEnough ends a tail that has printed what it was to print.
var errEnough = errors.New("enough")

func (t *tail) run(ctx context.Context, topics map[string]bool, s start) error {
	g, run := errgroup.WithContext(ctx)
	for topic := range topics {
		ends, err := offsets(ctx, t.client.StableOffsets, topic)
		if err != nil {
			return err
		}
		from, err := s.offsets(ctx, t.client, topic, ends)
		if err != nil {
			return err
		}
		for p, offset := range from {
			g.Go(func() error {
				if t.toEnd {
					return t.client.ReadRange(run, topic, p, offset, ends[p], t.show)
				}
				return t.client.Tail(run, topic, p, offset, t.show)
			})
		}
	}
	err := g.Wait()
	if flushed := t.out.Flush(); err == nil {
		err = flushed
	}
	if errors.Is(err, errEnough) || ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil // enough, or told to stop
	}
	return err
}

func (t *tail) show(r *handlers.Record) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.most > 0 && t.printed == t.most {
		return errEnough
	}
	t.printed++
	t.buffer.Reset()
	t.print(&t.buffer, r)
	if _, err := t.out.Write(t.buffer.Bytes()); err != nil {
		return err
	}
	if !t.toEnd || t.printed == t.most {
		if err := t.out.Flush(); err != nil {
			return err
		}
	}
	if t.printed == t.most {
		return errEnough
	}
	return nil
}

// parseForm returns what prints a record as -f asks.
func parseForm(form string) (func(*bytes.Buffer, *handlers.Record), error) {
	switch form {
	case "json":
		return printJSON, nil
	case "value":
		return func(b *bytes.Buffer, r *handlers.Record) { b.Write(r.Value); b.WriteByte('\n') }, nil
	}
	if !strings.Contains(form, "%") {
		return nil, badCall("-f %q is not json, value, or a text with %%k, %%v, %%t, %%p, %%o, %%T or %%h", form)
	}
	form = strings.NewReplacer(`\\`, `\`, `\n`, "\n", `\t`, "\t").Replace(form)
	if !strings.HasSuffix(form, "\n") {
		form += "\n"
	}
	for i := 0; i < len(form); i++ {
		if form[i] != '%' {
			continue
		}
		if i++; i == len(form) || !strings.ContainsRune("kvtpoTh%", rune(form[i])) {
			return nil, badCall("-f: after %% comes one of k, v, t, p, o, T, h and %%")
		}
	}
	return func(b *bytes.Buffer, r *handlers.Record) {
		for i := 0; i < len(form); i++ {
			if form[i] != '%' {
				b.WriteByte(form[i])
				continue
			}
			i++
			switch form[i] {
			case 'k':
				b.Write(r.Key)
			case 'v':
				b.Write(r.Value)
			case 't':
				b.WriteString(r.Topic)
			case 'p':
				fmt.Fprint(b, r.Partition)
			case 'o':
				fmt.Fprint(b, r.Offset)
			case 'T':
				fmt.Fprint(b, r.Timestamp.UnixMilli())
			case 'h':
				for i, h := range r.Headers {
					if i > 0 {
						b.WriteByte(',')
					}
					fmt.Fprintf(b, "%s=%s", h.Key, h.Value)
				}
			case '%':
				b.WriteByte('%')
			}
		}
	}, nil
}

// printed is a record as -f json has it. What is no text is in base64.
type printed struct {
	Topic       string             `json:"topic"`
	Partition   int                `json:"partition"`
	Offset      int64              `json:"offset"`
	Timestamp   time.Time          `json:"timestamp"`
	Key         *string            `json:"key"`
	KeyBase64   []byte             `json:"keyBase64,omitempty"`
	Headers     map[string]*string `json:"headers"` // of several of one name the last
	Value       json.RawMessage    `json:"value"`   // JSON as it is, other text as a string
	ValueBase64 []byte             `json:"valueBase64,omitempty"`
}

func printJSON(b *bytes.Buffer, r *handlers.Record) {
	p := printed{Topic: r.Topic, Partition: r.Partition, Offset: r.Offset, Timestamp: r.Timestamp.UTC(), Headers: map[string]*string{}, Value: json.RawMessage("null")}
	if utf8.Valid(r.Key) {
		p.Key = textOrNull(r.Key)
	} else {
		p.KeyBase64 = r.Key
	}
	for _, h := range r.Headers {
		p.Headers[h.Key] = textOrNull(h.Value)
	}
	switch {
	case r.Value == nil:
	case !utf8.Valid(r.Value):
		p.ValueBase64 = r.Value
	case json.Valid(r.Value):
		p.Value = r.Value // Encode makes one line of it
	default:
		p.Value, _ = json.Marshal(string(r.Value))
	}
	encoder := json.NewEncoder(b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(p); err != nil { // texts and numbers alone: cannot fail
		fmt.Fprintf(b, "{\"error\":%q}\n", err)
	}
}

func textOrNull(b []byte) *string {
	if b == nil {
		return nil
	}
	text := string(b)
	return &text
}

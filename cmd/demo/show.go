package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"learnsink/consumer"
	"learnsink/handlers"
)

// show writes what happens for a person to read.
type show struct {
	w     io.Writer
	live  bool
	began time.Time // of the step or the stream that is under way
	said  time.Time // when counts were last written
}

// step names what is being brought up; done says what it is.
func (s *show) step(name string) {
	s.began = time.Now()
	fmt.Fprintf(s.w, "  %-12s", name)
}

func (s *show) done(what string) {
	fmt.Fprintf(s.w, "%s  (%s)\n", what, time.Since(s.began).Round(10*time.Millisecond))
}

func (s *show) heading(text string) {
	s.began, s.said = time.Now(), time.Time{}
	fmt.Fprintf(s.w, "\n%s\n%s\n", text, strings.Repeat("─", len(text)))
}

// counts shows how far the stream is: moving in place on a terminal, else a line a second.
func (s *show) counts(accepted, rejected, of int64, last bool) {
	if !s.live && !last && time.Since(s.said) < time.Second {
		return
	}
	s.said = time.Now()
	const width = 40
	done := int(width * min(accepted+rejected, of) / of)
	line := fmt.Sprintf("  %s%s  accepted %d  rejected %d", strings.Repeat("█", done), strings.Repeat("░", width-done), accepted, rejected)
	end := "\n"
	if s.live && !last {
		end = ""
	}
	start := ""
	if s.live {
		start = "\r\x1b[K"
	}
	fmt.Fprint(s.w, start, line, end)
}

// group is the dead letters of one kind.
type group struct {
	code    string
	count   int
	message string // an example
	id      string // of that dead letter
}

// outcomes reads what was published, as any consumer of the topics could, and
// shows the rejections by kind, each with the message its sender gets.
func outcomes(ctx context.Context, client *consumer.Client, show *show) error {
	groups := map[string]*group{}
	deadLetters := 0
	err := readAll(ctx, client, deadLetterTopic, func(rec *handlers.Record) error {
		text, _ := rec.Header("learnsink.errors")
		var errs []handlers.Error
		if err := json.Unmarshal(text, &errs); err != nil {
			return fmt.Errorf("header learnsink.errors of offset %d: %w", rec.Offset, err)
		}
		id, _ := rec.Header("learnsink.id")
		deadLetters++
		for _, e := range errs {
			g := groups[string(e.Code)]
			if g == nil {
				g = &group{code: string(e.Code), message: e.Message, id: string(id)}
				groups[string(e.Code)] = g
			}
			g.count++
		}
		return nil
	})
	if err != nil {
		return err
	}
	events := 0
	if err := readAll(ctx, client, acceptedTopic, func(*handlers.Record) error { events++; return nil }); err != nil {
		return err
	}
	show.heading(fmt.Sprintf("%d accepted events on %s, %d dead letters on %s", events, acceptedTopic, deadLetters, deadLetterTopic))
	sorted := make([]*group, 0, len(groups))
	for _, g := range groups {
		sorted = append(sorted, g)
	}
	slices.SortFunc(sorted, func(a, b *group) int {
		return cmp.Or(cmp.Compare(b.count, a.count), strings.Compare(a.code, b.code))
	})
	for _, g := range sorted {
		fmt.Fprintf(show.w, "%6d × %-36s e.g. %s\n         %s\n", g.count, g.code, g.id, shortened(g.message, 110))
	}
	return nil
}

// shortened cuts a message for a line of the show.
func shortened(s string, n int) string {
	if r := []rune(s); len(r) > n {
		return string(r[:n]) + "…"
	}
	return s
}

// readAll reads a topic up to the end it has now.
func readAll(ctx context.Context, client *consumer.Client, topic string, fn func(*handlers.Record) error) error {
	starts, err := client.StartOffsets(ctx, topic)
	if err != nil {
		return err
	}
	ends, err := client.StableOffsets(ctx, topic)
	if err != nil {
		return err
	}
	for p, end := range ends {
		if starts[p] >= end {
			continue
		}
		if err := client.ReadRange(ctx, topic, p, starts[p], end, fn); err != nil {
			return err
		}
	}
	return nil
}

// whereToLook says what can be looked at, while it is there.
func (s *show) whereToLook(databaseURL, http, brokers string, kept bool) {
	if !kept {
		s.heading("Everything is taken down again")
		fmt.Fprintf(s.w, "  --keep       leaves it up, to look around with psql, the HTTP address and any Kafka tool\n")
		fmt.Fprintf(s.w, "  README.md    has the guarantees, the configuration and the verbs\n")
		return
	}
	s.heading("Where to look (Ctrl-C ends it)")
	fmt.Fprintf(s.w, "  psql '%s' -c 'select * from learnsink.tracking_report limit 20'\n", databaseURL)
	fmt.Fprintf(s.w, "  psql '%s' -c 'select id, codes, errors from learnsink.rejection limit 20'\n", databaseURL)
	fmt.Fprintf(s.w, "  curl http://%s/metrics\n", http)
	fmt.Fprintf(s.w, "  go run ./cmd/learnsink status --brokers %s --database-url '%s'\n", brokers, databaseURL)
	fmt.Fprintf(s.w, "  go run ./cmd/learnsink tail --brokers %s -o -5 -e\n", brokers)
}

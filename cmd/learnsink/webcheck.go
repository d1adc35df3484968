package main

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"mime"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/rs/zerolog"

	"learnsink/cmd/learnsink/rows"
	"learnsink/handlers"
)

// webCheck answers POST /check: what `check` says of rows, for a sender who
// has no catalogue. It writes nothing, and it never holds the consumer up: it
// has its own few connections, judges in one goroutine at a time whoever asks,
// remembers nothing, and refuses what is more than that can bear.
type webCheck struct {
	config  *config
	facts   factsFunc
	log     zerolog.Logger
	metrics *webCheckMetrics
	bounds  webCheckBounds
	now     func() time.Time // for the tokens

	places chan struct{} // a value for each request under way
	gate   chan struct{} // a value while rows are judged
	tokens bucket
}

// webCheckBounds is what POST /check bears.
type webCheckBounds struct {
	bytes  int64         // of a body, packed and unpacked
	rows   int           // of a body
	places int           // requests under way, slow ones included
	burst  int           // requests at once, after a quiet time
	refill time.Duration // until there may be one more
	read   time.Duration // for the whole of a body
	answer time.Duration // for judging it and for sending the answer
}

func defaultWebCheckBounds() webCheckBounds {
	return webCheckBounds{bytes: 10 << 20, rows: 100_000, places: 4, burst: 10, refill: time.Second, read: 30 * time.Second, answer: time.Minute}
}

// webCheckMetrics are what POST /check counts.
type webCheckMetrics struct {
	requests *prometheus.CounterVec
	rows     *prometheus.CounterVec
}

func newWebCheckMetrics(r prometheus.Registerer) *webCheckMetrics {
	counter := func(name, help, label string) *prometheus.CounterVec {
		return promauto.With(r).NewCounterVec(prometheus.CounterOpts{Namespace: "learnsink", Subsystem: "check", Name: name, Help: help}, []string{label})
	}
	return &webCheckMetrics{
		requests: counter("requests_total", "Requests of POST /check, by the status of their answer; 499: the client left.", "status"),
		rows:     counter("rows_total", "Rows judged for POST /check, by verdict.", "verdict"),
	}
}

func newWebCheck(c *config, facts factsFunc, log zerolog.Logger, metrics *webCheckMetrics, bounds webCheckBounds) *webCheck {
	return &webCheck{config: c, facts: facts, log: log, metrics: metrics, bounds: bounds, now: time.Now,
		places: make(chan struct{}, bounds.places), gate: make(chan struct{}, 1), tokens: bucket{size: bounds.burst, refill: bounds.refill}}
}

// refusal is an answer that is no verdicts.
type refusal struct {
	status int
	text   string
	retry  time.Duration // with 429 and 503: when to try again
}

func refuse(status int, format string, args ...any) *refusal {
	return &refusal{status: status, text: fmt.Sprintf(format, args...)}
}

// clientLeft is the status that is counted where nobody waits for an answer.
const clientLeft = 499

// ServeHTTP answers a request. The counts come as trailers, since the verdicts
// are sent as they are found.
func (w *webCheck) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	sum, source, refused := w.answer(rw, r)
	status := http.StatusOK
	if refused != nil {
		status = refused.status
	}
	w.metrics.requests.WithLabelValues(strconv.Itoa(status)).Inc()
	switch {
	case refused == nil:
		w.metrics.rows.WithLabelValues("accepted").Add(float64(sum.rows - sum.rejected))
		w.metrics.rows.WithLabelValues("rejected").Add(float64(sum.rejected))
		w.log.Info().Str("source", source.Topic).Int64("rows", sum.rows).Int64("rejected", sum.rejected).Msg("rows checked over HTTP")
	case status == clientLeft:
		// Whatever was sent is cut short, so that nobody takes it for the whole.
		panic(http.ErrAbortHandler)
	default:
		w.log.Debug().Int("status", status).Msg("check over HTTP refused")
		refused.write(rw)
	}
}

func (f *refusal) write(rw http.ResponseWriter) {
	header := rw.Header()
	header.Set("Content-Type", "application/json")
	header.Set("Cache-Control", "no-store")
	if f.retry > 0 {
		header.Set("Retry-After", strconv.Itoa(int(math.Ceil(f.retry.Seconds()))))
	}
	rw.WriteHeader(f.status)
	json.NewEncoder(rw).Encode(struct {
		Status int    `json:"status"`
		Error  string `json:"error"`
	}{f.status, f.text})
}

// answer judges a request's rows and sends the verdicts.
func (w *webCheck) answer(rw http.ResponseWriter, r *http.Request) (*summary, *handlers.Source, *refusal) {
	asked, refused := w.read(r)
	if refused != nil {
		return nil, nil, refused
	}
	select {
	case w.places <- struct{}{}:
		defer func() { <-w.places }()
	default:
		return nil, nil, &refusal{http.StatusTooManyRequests, fmt.Sprintf("%d checks are under way, and there may be no more: try again", w.bounds.places), time.Second}
	}
	if wait := w.tokens.take(w.now()); wait > 0 {
		return nil, nil, &refusal{http.StatusTooManyRequests, "there were many checks of late: try again", wait}
	}
	body, refused := w.body(rw, r)
	if refused != nil {
		return nil, nil, refused
	}
	doubts, refused := w.look(body, asked.format)
	if refused != nil {
		return nil, nil, refused
	}
	sum, refused := w.judge(rw, r, asked, body, doubts)
	return sum, asked.source, refused
}

// webCheckCall is what a request asks for.
type webCheckCall struct {
	source *handlers.Source
	now    time.Time
	format rows.Format
}

// read reads what is asked for: the query and the type of the body.
func (w *webCheck) read(r *http.Request) (asked webCheckCall, refused *refusal) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return asked, refuse(http.StatusBadRequest, "the query cannot be read: %v", err)
	}
	known := []string{"action", "topic", "event-time", "format", "delimiter", "encoding"}
	for name, values := range query {
		if !slices.Contains(known, name) {
			return asked, refuse(http.StatusBadRequest, "%q is not known in the query: %s are", name, strings.Join(known, ", "))
		}
		if len(values) > 1 {
			return asked, refuse(http.StatusBadRequest, "%s is in the query twice: keep one", name)
		}
	}
	action := handlers.Action(query.Get("action"))
	if action != handlers.Tracking && action != handlers.Intervention {
		return asked, refuse(http.StatusBadRequest, "action=%s in the query is needed, or action=%s", handlers.Tracking, handlers.Intervention)
	}
	topic := query.Get("topic")
	if asked.source, err = w.config.sourceOf(action, topic); err != nil {
		return asked, refuse(http.StatusBadRequest, "there is no source of %s%s: take action and topic from those of the configuration", action, ofTopic(topic))
	}
	if asked.now, err = eventTime(query.Get("event-time")); err != nil {
		return asked, refuse(http.StatusBadRequest, "event-time is not RFC 3339, such as 2024-06-05T12:00:00Z (a + is written %%2B)")
	}
	format, encoding := query.Get("format"), query.Get("encoding")
	kind, parameters, err := mime.ParseMediaType(cmp.Or(r.Header.Get("Content-Type"), "application/x-ndjson"))
	known = []string{"application/x-ndjson", "application/jsonl", "application/json", "text/csv"}
	if format == "" {
		if err != nil || !slices.Contains(known, kind) {
			return asked, refuse(http.StatusUnsupportedMediaType, "the body's Content-Type is none of %s: send one of these, or say format=jsonl or format=csv in the query", strings.Join(known, ", "))
		}
		format = "jsonl"
		if kind == "text/csv" {
			format = "csv"
		}
	}
	if asked.format, err = rows.NewFormat("", format, query.Get("delimiter"), cmp.Or(encoding, parameters["charset"])); err != nil {
		return asked, refuse(http.StatusBadRequest, "%v", err)
	}
	switch packing := r.Header.Get("Content-Encoding"); packing {
	case "", "identity", "gzip":
	default:
		return asked, refuse(http.StatusUnsupportedMediaType, "the body's Content-Encoding is neither gzip nor none: send it so")
	}
	if r.ContentLength > w.bounds.bytes {
		return asked, w.tooLarge()
	}
	return asked, nil
}

func ofTopic(topic string) string {
	if topic == "" {
		return ""
	}
	return fmt.Sprintf(" with the topic %q", topic)
}

func (w *webCheck) tooLarge() *refusal {
	return refuse(http.StatusRequestEntityTooLarge, "the body has more than %d bytes, unpacked: send it in parts, or run `learnsink check`", w.bounds.bytes)
}

// body reads the whole body, unpacked. It has to be there in time and no
// larger than is borne, before anything is said of it.
func (w *webCheck) body(rw http.ResponseWriter, r *http.Request) ([]byte, *refusal) {
	control := http.NewResponseController(rw)
	_ = control.SetReadDeadline(time.Now().Add(w.bounds.read))
	packed := http.MaxBytesReader(rw, r.Body, w.bounds.bytes)
	var in io.Reader = packed
	var err error
	if r.Header.Get("Content-Encoding") == "gzip" {
		if in, err = gzip.NewReader(packed); err != nil {
			return nil, w.unread(r, err)
		}
	}
	body, err := io.ReadAll(io.LimitReader(in, w.bounds.bytes+1))
	switch {
	case err != nil:
		return nil, w.unread(r, err)
	case int64(len(body)) > w.bounds.bytes:
		return nil, w.tooLarge()
	}
	// Who leaves from now on is noticed by reading on, for as long as it takes.
	_ = control.SetReadDeadline(time.Time{})
	return body, nil
}

// unread says why a body could not be read.
func (w *webCheck) unread(r *http.Request, err error) *refusal {
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return w.tooLarge()
	case errors.Is(err, os.ErrDeadlineExceeded):
		return refuse(http.StatusRequestTimeout, "the body did not come within %s: send it in parts", w.bounds.read)
	case r.Context().Err() != nil:
		return refuse(clientLeft, "")
	}
	return refuse(http.StatusBadRequest, "the body cannot be read: it breaks off, or is not packed as it says")
}

// look reads the rows once before they are judged: that there are not too many
// and that the file is one is known before the answer begins.
func (w *webCheck) look(body []byte, format rows.Format) (doubts []string, refused *refusal) {
	in := rows.NewReader(bytes.NewReader(body), format)
	for n := 0; ; n++ {
		switch _, err := in.Next(); {
		case err == io.EOF:
			return in.Doubts(), nil
		case err != nil:
			return nil, refuse(http.StatusBadRequest, "%v", err)
		case n == w.bounds.rows:
			return nil, refuse(http.StatusRequestEntityTooLarge, "the body has more than %d rows: send it in parts, or run `learnsink check`", w.bounds.rows)
		}
	}
}

// judge judges the rows and sends the verdicts as they are found. What fails
// before the first of them is refused; after that the answer is cut short.
func (w *webCheck) judge(rw http.ResponseWriter, r *http.Request, asked webCheckCall, body []byte, doubts []string) (*summary, *refusal) {
	ctx, cancel := context.WithTimeout(r.Context(), w.bounds.answer)
	defer cancel()
	control := http.NewResponseController(rw)
	_ = control.SetWriteDeadline(time.Now().Add(w.bounds.answer))
	header := rw.Header()
	out := &firstWrite{Writer: rw, first: func() {
		header.Set("Content-Type", "application/x-ndjson")
		header.Set("Cache-Control", "no-store")
		header.Set("X-Content-Type-Options", "nosniff")
		header.Set("Trailer", "Learnsink-Rows, Learnsink-Accepted, Learnsink-Rejected")
		for _, doubt := range doubts {
			header.Add("Learnsink-Warning", plainHeader(doubt))
		}
		rw.WriteHeader(http.StatusOK)
	}}
	c := checker{rules: asked.source.Rules, facts: w.facts, now: asked.now, rows: rows.NewReader(bytes.NewReader(body), asked.format), gate: w.gate}
	sum, err := c.run(ctx, out)
	switch {
	case err == nil:
	case out.started || r.Context().Err() != nil:
		return nil, refuse(clientLeft, "")
	case errors.Is(err, handlers.ErrNoCatalogue):
		return nil, &refusal{http.StatusServiceUnavailable, "no catalogue has been loaded yet, and rows cannot be judged without", time.Minute}
	default:
		w.log.Warn().Err(err).Msg("check over HTTP: the catalogue cannot be read")
		return nil, &refusal{http.StatusServiceUnavailable, "the catalogue cannot be read now: try again", 5 * time.Second}
	}
	out.begin() // there may have been no rows
	header.Set("Learnsink-Rows", strconv.FormatInt(sum.rows, 10))
	header.Set("Learnsink-Accepted", strconv.FormatInt(sum.rows-sum.rejected, 10))
	header.Set("Learnsink-Rejected", strconv.FormatInt(sum.rejected, 10))
	_ = control.Flush()
	_ = control.SetWriteDeadline(time.Time{}) // the next request of this connection has its own
	return sum, nil
}

// firstWrite calls first before anything is written.
type firstWrite struct {
	io.Writer
	first   func()
	started bool
}

func (w *firstWrite) begin() {
	if !w.started {
		w.started = true
		w.first()
	}
}

func (w *firstWrite) Write(p []byte) (int, error) {
	w.begin()
	return w.Writer.Write(p)
}

// plainHeader is a text as a header can hold it.
func plainHeader(text string) string {
	if runes := []rune(text); len(runes) > 300 {
		text = string(runes[:300]) + "..."
	}
	text = strconv.QuoteToASCII(text)
	return strings.ReplaceAll(text[1:len(text)-1], `\"`, `"`)
}

// bucket holds tokens: a few at once, and then one from time to time.
type bucket struct {
	size   int
	refill time.Duration

	mu   sync.Mutex
	full time.Time // when it has all its tokens again
}

// take takes a token, or says how long until there is one.
func (b *bucket) take(now time.Time) (wait time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.full.Before(now) {
		b.full = now
	}
	if wait := b.full.Sub(now) + b.refill - time.Duration(b.size)*b.refill; wait > 0 {
		return wait
	}
	b.full = b.full.Add(b.refill)
	return 0
}

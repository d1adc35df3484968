package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"learnsink/handlers"
	"learnsink/store"
	"learnsink/test/pgtest"
	"learnsink/test/rowgen"
)

// checking is POST /check over HTTP, with a small world in memory.
type checking struct {
	*webCheck
	url      string
	server   *httptest.Server
	log      *bytes.Buffer
	registry *prometheus.Registry
}

// counted is how many requests were counted with a status.
func (w *checking) counted(t *testing.T, status string) float64 {
	t.Helper()
	families, err := w.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == "learnsink_check_requests_total" && m.GetLabel()[0].GetValue() == status {
				return m.GetCounter().GetValue()
			}
		}
	}
	return 0
}

// newChecking opens it; change, if any, changes it before.
func newChecking(t *testing.T, change func(*webCheck)) *checking {
	t.Helper()
	a := &app{configFile: filepath.Join(t.TempDir(), "learnsink.yaml"), flags: map[string]string{}}
	config := "sources:\n- {topic: rows, action: tracking}\n- {topic: other, action: tracking, rules: {defaultScoreMax: 20}}\n"
	if err := os.WriteFile(a.configFile, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := a.load()
	if err != nil {
		t.Fatal(err)
	}
	log, registry := &bytes.Buffer{}, prometheus.NewRegistry()
	w := &checking{webCheck: newWebCheck(c, inMemory(), zerolog.New(zerolog.SyncWriter(log)), newWebCheckMetrics(registry), defaultWebCheckBounds()), log: log, registry: registry}
	if change != nil {
		change(w.webCheck)
	}
	web := &web{config: c, check: w.webCheck}
	people := http.NewServeMux()
	web.people(people)
	server := httptest.NewServer(people)
	t.Cleanup(server.Close)
	w.url, w.server = server.URL+"/check", server
	return w
}

// ask sends a request and reads the whole answer.
func (w *checking) ask(t *testing.T, query string, header http.Header, body io.Reader) (*http.Response, string, error) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, w.url+"?"+query, body)
	if err != nil {
		t.Fatal(err)
	}
	for name := range header {
		r.Header.Set(name, header.Get(name))
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		return nil, "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return response, string(text), err
}

func packed(t *testing.T, text []byte) *bytes.Buffer {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write(text); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return &b
}

const (
	goodRow = `{"candidateLogin":"learner-1","lovCode":"FIRE-1","sessionGuid":"se-1"}` + "\n"
	badRow  = `{"candidateLogin":"secret-login","lovCode":"FIRE-1","sessionGuid":"se-1"}` + "\n"
)

// unsized hides a body's length: it is sent in chunks.
type unsized struct{ io.Reader }

func TestWebCheckStatuses(t *testing.T) {
	csv, gz := http.Header{"Content-Type": {"text/csv"}}, http.Header{"Content-Encoding": {"gzip"}}
	const limit = 1000
	fill := func(n int) string { return goodRow + strings.Repeat(" ", n-len(goodRow)) }
	bomb := bytes.Repeat(packed(t, make([]byte, 1<<20)).Bytes(), 100)
	half := packed(t, []byte(strings.Repeat(goodRow, 10))).Bytes()
	half = half[:len(half)/2]
	for _, c := range []struct {
		name   string
		query  string
		header http.Header
		body   io.Reader
		status int
		want   string // in the answer
	}{
		{"rows", "action=tracking", nil, strings.NewReader(goodRow + badRow), 200, `{"line":2,"verdict":"rejected"`},
		{"no rows at all", "action=tracking", nil, nil, 200, ""},
		{"the settings of another topic", "action=tracking&topic=other", nil, strings.NewReader(goodRow), 200, `"scoreMax":20`},
		{"CSV", "action=tracking", csv, strings.NewReader("candidateLogin,lovCode,sessionGuid\nlearner-1,FIRE-1,se-1\n"), 200, `{"line":2,"verdict":"accepted"`},
		{"CSV in another encoding and form", "action=tracking&delimiter=tab", http.Header{"Content-Type": {"text/csv; charset=iso-8859-1"}}, strings.NewReader("candidateLogin\tlovCode\nlearner-\xe9\t\n"), 200, `"code":"lo_reference_missing"`},
		{"a format that says more than the type", "action=tracking&format=csv", http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}, strings.NewReader("lovCode\nx\n"), 200, `"line":2`},
		{"packed", "action=tracking", gz, packed(t, []byte(goodRow)), 200, `"verdict":"accepted"`},
		{"as large as may be", "action=tracking", nil, strings.NewReader(fill(limit)), 200, `"verdict":"accepted"`},
		{"as large as may be, in chunks", "action=tracking", nil, unsized{strings.NewReader(fill(limit))}, 200, `"verdict":"accepted"`},
		{"as large as may be, packed", "action=tracking", gz, packed(t, []byte(fill(limit))), 200, `"verdict":"accepted"`},
		{"as many rows as may be", "action=tracking", nil, strings.NewReader(strings.Repeat("{}\n", 20)), 200, `{"line":20,`},
		{"the rows' own time", "action=tracking&event-time=2024-06-05T12:00:00%2B02:00", nil, strings.NewReader(strings.Replace(goodRow, "{", `{"trackingStatus":"passed",`, 1)), 200, `"firstCompletionDate":"2024-06-05T00:00:00Z"`},

		{"no action", "", nil, strings.NewReader(goodRow), 400, "action=tracking in the query is needed"},
		{"another action", "action=enrolment", nil, strings.NewReader(goodRow), 400, "action=tracking in the query is needed"},
		{"an action without a source", "action=intervention", nil, strings.NewReader(goodRow), 400, "there is no source of intervention"},
		{"another's topic", "action=tracking&topic=nowhere", nil, strings.NewReader(goodRow), 400, `there is no source of tracking with the topic \"nowhere\"`},
		{"what is not known", "action=tracking&Topic=rows", nil, strings.NewReader(goodRow), 400, `\"Topic\" is not known in the query`},
		{"twice the same", "action=tracking&action=tracking", nil, strings.NewReader(goodRow), 400, "action is in the query twice"},
		{"no query", "action=%zz", nil, strings.NewReader(goodRow), 400, "the query cannot be read"},
		{"no time", "action=tracking&event-time=today", nil, strings.NewReader(goodRow), 400, "event-time is not RFC 3339"},
		{"another format", "action=tracking&format=xml", nil, strings.NewReader(goodRow), 400, `format \"xml\" is not jsonl or csv`},
		{"another encoding", "action=tracking&encoding=klingon", nil, strings.NewReader(goodRow), 400, `encoding \"klingon\" is not known`},
		{"a header that is none", "action=tracking", csv, strings.NewReader("\"a\"b\n"), 400, "line 1: the header is not CSV"},
		{"not packed as it says", "action=tracking", gz, strings.NewReader(goodRow), 400, "is not packed as it says"},
		{"packed, and broken off", "action=tracking", gz, bytes.NewReader(half), 400, "it breaks off"},

		{"a byte too large", "action=tracking", nil, strings.NewReader(fill(limit + 1)), 413, "the body has more than 1000 bytes"},
		{"a byte too large, in chunks", "action=tracking", nil, unsized{strings.NewReader(fill(limit + 1))}, 413, "the body has more than 1000 bytes"},
		{"a byte too large, packed", "action=tracking", gz, packed(t, []byte(fill(limit+1))), 413, "the body has more than 1000 bytes"},
		{"a bomb that is large itself", "action=tracking", gz, bytes.NewReader(bomb), 413, "the body has more than 1000 bytes"},
		{"a row too many", "action=tracking", nil, strings.NewReader(strings.Repeat("{}\n", 21)), 413, "the body has more than 20 rows"},
		{"what curl says by itself", "action=tracking", http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}, strings.NewReader(goodRow), 415, "send one of these, or say format=jsonl"},
		{"no type", "action=tracking", http.Header{"Content-Type": {"/"}}, strings.NewReader(goodRow), 415, "Content-Type is none of"},
		{"packed otherwise", "action=tracking", http.Header{"Content-Encoding": {"br"}}, strings.NewReader(goodRow), 415, "neither gzip nor none"},
		{"from another site's page", "action=tracking", http.Header{"Sec-Fetch-Site": {"cross-site"}}, strings.NewReader(goodRow), 403, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newChecking(t, func(w *webCheck) { w.bounds.bytes, w.bounds.rows = limit, 20 })
			response, text, err := w.ask(t, c.query, c.header, c.body)
			if err != nil {
				t.Fatal(err)
			}
			if response.StatusCode != c.status || !strings.Contains(text, c.want) {
				t.Fatalf("%d %s", response.StatusCode, text)
			}
			if c.status != 403 {
				if n := w.counted(t, fmt.Sprint(c.status)); n != 1 {
					t.Errorf("counted %v times", n)
				}
			}
			if c.status == 200 {
				if got := response.Header.Get("Content-Type"); got != "application/x-ndjson" {
					t.Error(got)
				}
				if got, want := response.Trailer.Get("Learnsink-Rows"), fmt.Sprint(strings.Count(text, "\n")); got != want {
					t.Errorf("%s rows, want %s", got, want)
				}
				if got, want := response.Trailer.Get("Learnsink-Rejected"), fmt.Sprint(strings.Count(text, `"verdict":"rejected"`)); got != want {
					t.Errorf("%s rejected, want %s", got, want)
				}
			} else if c.status != 403 {
				var refused struct {
					Status int
					Error  string
				}
				if err := json.Unmarshal([]byte(text), &refused); err != nil || refused.Status != c.status || refused.Error == "" {
					t.Errorf("%v: %s", err, text)
				}
			}
			if log := w.log.String(); strings.Contains(log, "learner") || strings.Contains(log, "secret") || strings.Contains(log, "FIRE") {
				t.Errorf("the log knows the body: %s", log)
			}
		})
	}
}

// A small body that unpacks to ever more is given up at the bound, and what it
// unpacks to is never there as a whole.
func TestWebCheckBomb(t *testing.T) {
	bomb := bytes.Repeat(packed(t, make([]byte, 1<<20)).Bytes(), 1<<10) // a gigabyte, in a thousand members
	w := newChecking(t, nil)
	if int64(len(bomb)) > w.bounds.bytes {
		t.Fatalf("the bomb has %d bytes", len(bomb))
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	response, text, err := w.ask(t, "action=tracking", http.Header{"Content-Encoding": {"gzip"}}, bytes.NewReader(bomb))
	runtime.ReadMemStats(&after)
	if err != nil {
		t.Fatal(err)
	}
	if response.StatusCode != 413 {
		t.Errorf("%d %s", response.StatusCode, text)
	}
	if n := after.TotalAlloc - before.TotalAlloc; n > 128<<20 {
		t.Errorf("%d MB were taken for it", n>>20)
	}
}

// What says beforehand that it is too large is refused before it is sent.
func TestWebCheckRefusesBySize(t *testing.T) {
	w := newChecking(t, nil)
	conn, err := net.Dial("tcp", w.server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "POST /check?action=tracking HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n", w.bounds.bytes+1)
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("%d", response.StatusCode)
	}
}

func TestWebCheckWarnsOfAHeader(t *testing.T) {
	w := newChecking(t, nil)
	long := strings.Repeat("é", 1000)
	response, text, err := w.ask(t, "action=tracking&format=csv", nil, strings.NewReader("a,b,a,\""+long+"\",\""+long+"\"\n1,2,3,4,5\n"))
	if err != nil {
		t.Fatal(err)
	}
	warnings := response.Header.Values("Learnsink-Warning")
	if response.StatusCode != 200 || !strings.Contains(text, "record_not_json") || len(warnings) != 2 || warnings[0] != `the header names column "a" twice` || len(warnings[1]) > 2000 {
		t.Errorf("%d %q\n%s", response.StatusCode, warnings, text)
	}
}

// Whoever is slow to send is told so, and gives the place back.
func TestWebCheckSlowSender(t *testing.T) {
	w := newChecking(t, func(w *webCheck) { w.bounds.read, w.places = 200*time.Millisecond, make(chan struct{}, 1) })
	conn, err := net.Dial("tcp", w.server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "POST /check?action=tracking HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-ndjson\r\nContent-Length: 100\r\n\r\n{")
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if text, _ := io.ReadAll(response.Body); response.StatusCode != http.StatusRequestTimeout || !strings.Contains(string(text), "did not come within 200ms") {
		t.Errorf("%d %s", response.StatusCode, text)
	}
	if response, text, err := w.ask(t, "action=tracking", nil, strings.NewReader(goodRow)); err != nil || response.StatusCode != 200 {
		t.Errorf("after it: %v %s", err, text)
	}
}

// Whoever is slow to read holds nobody up either: others are judged meanwhile.
func TestWebCheckSlowReader(t *testing.T) {
	w := newChecking(t, func(w *webCheck) { w.bounds.answer = 20 * time.Second })
	conn, err := net.Dial("tcp", w.server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	body := strings.Repeat(goodRow, 90_000) // some 45 MB of verdicts
	fmt.Fprintf(conn, "POST /check?action=tracking HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	if _, err := conn.Read(make([]byte, 1)); err != nil { // the answer has begun, and we read no more of it
		t.Fatal(err)
	}
	for range 3 {
		if response, text, err := w.ask(t, "action=tracking", nil, strings.NewReader(goodRow)); err != nil || response.StatusCode != 200 {
			t.Fatalf("%v %s", err, text)
		}
	}
}

// A token bucket: a few at once, then one from time to time.
func TestWebCheckRate(t *testing.T) {
	now := time.Unix(1717588800, 0)
	w := newChecking(t, func(w *webCheck) {
		w.now = func() time.Time { return now }
		w.tokens = bucket{size: 3, refill: 2500 * time.Millisecond}
	})
	ask := func(want int) *http.Response {
		t.Helper()
		response, text, err := w.ask(t, "action=tracking", nil, strings.NewReader(goodRow))
		if err != nil {
			t.Fatal(err)
		}
		if response.StatusCode != want {
			t.Fatalf("%d %s, want %d", response.StatusCode, text, want)
		}
		return response
	}
	for range 3 {
		ask(200)
	}
	if again := ask(429).Header.Get("Retry-After"); again != "3" { // 2.5 s, in whole ones
		t.Errorf("Retry-After: %q", again)
	}
	if response, _, err := w.ask(t, "action=no", nil, nil); err != nil || response.StatusCode != 400 {
		t.Errorf("a call that is wrong needs no token: %v", err)
	}
	now = now.Add(2500 * time.Millisecond)
	ask(200)
	ask(429)
	now = now.Add(time.Hour) // a long quiet time is worth no more than a short one
	for range 3 {
		ask(200)
	}
	ask(429)
}

// A flood: so many have a place, one is judged at a time, all others are told
// at once to come again.
func TestWebCheckFlood(t *testing.T) {
	judging, most := atomic.Int32{}, atomic.Int32{}
	hold := make(chan struct{})
	w := newChecking(t, func(w *webCheck) {
		w.bounds.places, w.places = 3, make(chan struct{}, 3)
		w.tokens.size = 1000
		facts := w.facts
		w.facts = func(ctx context.Context, refs *handlers.References) (*handlers.Facts, error) {
			n := judging.Add(1)
			defer judging.Add(-1)
			for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
			}
			select {
			case <-hold:
			case <-ctx.Done():
				return nil, ctx.Err()
			}
			return facts(ctx, refs)
		}
	})
	const flood = 40
	var refused sync.WaitGroup
	refused.Add(flood - 3)
	var all sync.WaitGroup
	var judged atomic.Int32
	for range flood {
		all.Go(func() {
			response, text, err := w.ask(t, "action=tracking", nil, strings.NewReader(goodRow))
			switch {
			case err != nil:
				t.Error(err)
			case response.StatusCode == 200 && strings.Contains(text, "accepted"):
				judged.Add(1)
			case response.StatusCode == 429 && response.Header.Get("Retry-After") == "1" && strings.Contains(text, "3 checks are under way"):
				refused.Done()
			default:
				t.Errorf("%d %s", response.StatusCode, text)
			}
		})
	}
	refused.Wait() // while three hold their places
	close(hold)
	all.Wait()
	if judged.Load() != 3 || most.Load() != 1 {
		t.Errorf("%d judged, %d at a time", judged.Load(), most.Load())
	}
}

// Who leaves is not worked for any longer, and gives place and gate back.
func TestWebCheckClientLeaves(t *testing.T) {
	begun, ended := make(chan struct{}), make(chan error, 1)
	w := newChecking(t, nil)
	facts := w.facts
	first := true
	w.facts = func(ctx context.Context, refs *handlers.References) (*handlers.Facts, error) {
		if first {
			first = false
			close(begun)
			<-ctx.Done()
			ended <- ctx.Err()
			return nil, ctx.Err()
		}
		return facts(ctx, refs)
	}
	ctx, leave := context.WithCancel(t.Context())
	go func() {
		<-begun
		leave()
	}()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, w.url+"?action=tracking", strings.NewReader(goodRow))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := http.DefaultClient.Do(r); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("work ended with %v", err)
	}
	if response, text, err := w.ask(t, "action=tracking", nil, strings.NewReader(goodRow)); err != nil || response.StatusCode != 200 {
		t.Errorf("the next one: %v %s", err, text)
	}
	w.server.Close() // every request has ended
	if n := w.counted(t, "499"); n != 1 {
		t.Errorf("counted %v times", n)
	}
}

// Without a database there are no verdicts; one that goes in the midst of an
// answer cuts it short, so that it is not taken for the whole.
func TestWebCheckWithoutFacts(t *testing.T) {
	away := errors.New("secret: the database is away")
	for _, c := range []struct {
		name  string
		err   error
		after int
		want  string
		again string
	}{
		{"no catalogue", handlers.ErrNoCatalogue, 0, "no catalogue has been loaded yet", "60"},
		{"no database", away, 0, "the catalogue cannot be read now: try again", "5"},
		{"no database any more", away, 3, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newChecking(t, nil)
			facts, n := w.facts, 0
			w.facts = func(ctx context.Context, refs *handlers.References) (*handlers.Facts, error) {
				if n++; n > c.after {
					return nil, c.err
				}
				return facts(ctx, refs)
			}
			response, text, err := w.ask(t, "action=tracking", nil, strings.NewReader(strings.Repeat(goodRow, 10*chunkRows)))
			if c.after > 0 {
				if err == nil {
					t.Errorf("%d lines as if they were all", strings.Count(text, "\n"))
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if response.StatusCode != 503 || !strings.Contains(text, c.want) || response.Header.Get("Retry-After") != c.again || strings.Contains(text, "secret") {
				t.Errorf("%d %s", response.StatusCode, text)
			}
		})
	}
	t.Run("no answer in time", func(t *testing.T) {
		w := newChecking(t, func(w *webCheck) {
			w.bounds.answer = 100 * time.Millisecond
			w.facts = func(ctx context.Context, _ *handlers.References) (*handlers.Facts, error) {
				<-ctx.Done()
				return nil, ctx.Err()
			}
		})
		response, text, err := w.ask(t, "action=tracking", nil, strings.NewReader(goodRow))
		if err == nil && response.StatusCode != 503 {
			t.Errorf("%d %s", response.StatusCode, text)
		}
	})
}

// POST /check says what `check` says, byte for byte, over generated rows good
// and bad of every kind, by the database and by the files of its catalogue.
func TestWebCheckIsCheck(t *testing.T) {
	dir := t.TempDir()
	if err := rowgen.WriteCatalog(dir); err != nil {
		t.Fatal(err)
	}
	t.Setenv("DATABASE_URL", pgtest.New(t))
	t.Setenv("LEARNSINK_CONFIG", "")
	verb := func(want int, stdin string, args ...string) string {
		t.Helper()
		var stdout, stderr strings.Builder
		if got := run(t.Context(), args, strings.NewReader(stdin), &stdout, &stderr); got != want {
			t.Fatalf("learnsink %s: exit %d\n%s", strings.Join(args, " "), got, &stderr)
		}
		return stdout.String()
	}
	verb(exitDone, "", "catalog", "load", dir)
	db, err := store.Open(t.Context(), store.Config{URL: os.Getenv("DATABASE_URL"), MaxConns: 2})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	c, err := (&app{flags: map[string]string{}}).load()
	if err != nil {
		t.Fatal(err)
	}
	w := newChecking(t, func(w *webCheck) { w.config, w.facts, w.tokens.size = c, db.FactsNow, 1000 })
	const at = "2024-06-05T12:00:00Z"
	for _, action := range []handlers.Action{handlers.Tracking, handlers.Intervention} {
		g := rowgen.New(rowgen.Config{Seed: 6, Bad: 0.3, Action: action})
		var lines, csv bytes.Buffer
		for range 5000 {
			if rec := g.Next(); len(rec.Value) > 0 && !bytes.ContainsAny(rec.Value, "\n\r") {
				lines.Write(rec.Value)
				lines.WriteByte('\n')
			}
		}
		fmt.Fprintln(&csv, "interventionGuid;candidateLogin;lovCode;sessionGuid;score;trackingStatus;roomLabel")
		for i := range 3000 {
			fmt.Fprintf(&csv, "iv-%d;Zo\u00e9.L%d;LO/%d;se-%d;\"%d\"\"\n\";passed;\n", i, i%50, i%14, i%7, i)
		}
		for format, body := range map[string]string{"jsonl": lines.String(), "csv": csv.String()} {
			args := []string{"check", "--action", string(action), "--event-time", at, "--format", format}
			if format == "csv" {
				args = append(args, "--delimiter", ";")
			}
			want := verb(exitFault, body, args...)
			if files := verb(exitFault, body, append(args, "--catalog", dir)...); files != want {
				t.Fatalf("%s %s: by the files another verdict than by the database", action, format)
			}
			query := "action=" + string(action) + "&event-time=" + at + "&format=" + format
			if format == "csv" {
				query += "&delimiter=%3B"
			}
			response, got, err := w.ask(t, query, nil, strings.NewReader(body))
			if err != nil || response.StatusCode != 200 {
				t.Fatalf("%v %s", err, got)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s %s:\n%s", action, format, diff)
			}
			if n := strings.Count(want, "\n"); n < 3000 || !strings.Contains(want, `"verdict":"accepted"`) && format == "jsonl" {
				t.Fatalf("%d verdicts", n)
			}
		}
	}
}

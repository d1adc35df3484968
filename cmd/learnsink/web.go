package main

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"learnsink/consumer"
	"learnsink/store"
)

//go:embed index.html
var indexPage string

// web is what serve shows over HTTP.
type web struct {
	config   *config
	db       *store.Store
	worker   *consumer.Consumer
	registry *prometheus.Registry
	log      zerolog.Logger
	check    http.Handler // POST /check
}

// listener is an open address and what it serves.
type listener struct {
	net.Listener
	handler http.Handler
}

// listen opens the addresses that are asked for: the one for people and the
// one for machines alone.
func (w *web) listen(ctx context.Context) (open []listener, err error) {
	machines := http.NewServeMux()
	w.machines(machines)
	people := http.NewServeMux()
	w.machines(people)
	w.people(people)
	for _, l := range []struct {
		address string
		handler http.Handler
	}{{w.config.HTTP, people}, {w.config.Metrics, machines}} {
		if l.address == "off" {
			continue
		}
		var lc net.ListenConfig
		opened, err := lc.Listen(ctx, "tcp", l.address)
		if err != nil {
			for _, l := range open {
				l.Close()
			}
			return nil, err
		}
		w.log.Info().Stringer("address", opened.Addr()).Msg("listening for HTTP")
		open = append(open, listener{opened, l.handler})
	}
	return open, nil
}

// serve answers until ctx ends; then requests in flight have a second.
func (w *web) serve(ctx context.Context, open []listener) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, l := range open {
		server := &http.Server{Handler: l.handler, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute}
		g.Go(func() error {
			if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				return err
			}
			return nil
		})
		g.Go(func() error {
			<-ctx.Done()
			stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			defer cancel()
			if server.Shutdown(stop) != nil {
				return server.Close()
			}
			return nil
		})
	}
	return g.Wait()
}

// people adds what people and senders ask for.
func (w *web) people(mux *http.ServeMux) {
	page := template.Must(template.New("index").Parse(indexPage))
	mux.HandleFunc("GET /{$}", func(rw http.ResponseWriter, r *http.Request) { w.index(rw, r, page) })
	// The page of another site does not ask in the name of whoever looks at it.
	mux.Handle("POST /check", http.NewCrossOriginProtection().Handler(w.check))
}

// machines adds what machines ask for.
func (w *web) machines(mux *http.ServeMux) {
	mux.Handle("GET /metrics", promhttp.HandlerFor(w.registry, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError}))
	mux.HandleFunc("GET /healthz", func(rw http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(rw, "alive")
	})
	mux.HandleFunc("GET /readyz", func(rw http.ResponseWriter, r *http.Request) {
		ready := w.ready(r.Context())
		rw.Header().Set("Content-Type", "application/json")
		if !ready.Ready {
			rw.WriteHeader(http.StatusServiceUnavailable)
		}
		json.NewEncoder(rw).Encode(ready)
	})
}

// readiness is what /readyz answers: what serve cannot work without. A stopped
// partition is none of it, or no fix could roll out.
type readiness struct {
	Ready    bool   `json:"ready"`
	Database string `json:"database"` // ok, or what is wrong
	Brokers  string `json:"brokers"`
	Group    string `json:"group"`
}

func (w *web) ready(ctx context.Context) readiness {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	var r readiness
	var g errgroup.Group
	g.Go(func() error { r.Database = okOr(w.db.CheckSchema(ctx)); return nil })
	g.Go(func() error { r.Brokers = okOr(w.worker.Client().Ping(ctx)); return nil })
	g.Wait()
	r.Group = "ok"
	if !w.worker.Status().Member {
		r.Group = "not yet a member of the group"
	}
	r.Ready = r.Database == "ok" && r.Brokers == "ok" && r.Group == "ok"
	return r
}

func okOr(err error) string {
	if err != nil {
		return err.Error()
	}
	return "ok"
}

// index is the page for people.
func (w *web) index(rw http.ResponseWriter, r *http.Request, page *template.Template) {
	header := rw.Header()
	header.Set("Content-Type", "text/html; charset=utf-8")
	header.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'")
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Cache-Control", "no-store")
	err := page.Execute(rw, struct {
		Version string
		Host    string
		Config  *config
		Ready   readiness
		Status  consumer.Status
	}{buildVersion(), r.Host, w.config, w.ready(r.Context()), w.worker.Status()})
	if err != nil {
		w.log.Debug().Err(err).Msg("index page")
	}
}

// port is the port of an address; "" of off.
func port(address string) string {
	_, port, _ := net.SplitHostPort(address)
	return port
}

// storeCollector tells of the database when asked: the catalogue's age and
// everything that waits in the outbox, other members' partitions included.
type storeCollector struct {
	db                               *store.Store
	up, age, version, oldest, outbox *prometheus.Desc
	waiting, waitingOldest           *prometheus.Desc
	jobs, jobRows                    *prometheus.Desc
}

func newStoreCollector(db *store.Store) *storeCollector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("learnsink_"+name, help, labels, nil)
	}
	return &storeCollector{
		db:      db,
		up:      desc("database_up", "1 while the database answers; without it the figures that it has are missing."),
		age:     desc("catalogue_age_seconds", "How long ago the catalogue was loaded; missing where it never was."),
		version: desc("catalogue_version", "The catalogue's version: how often it was loaded."),
		outbox:  desc("outbox_entries", "Batches in the outbox, of all partitions: applied and not known to be published."),
		oldest:  desc("outbox_oldest_seconds", "Age of the oldest entry in the outbox; 0 where there is none."),
		waiting: desc("waiting_rows", "Rows that wait for what they refer to, by source topic; missing where none do.", "topic"),
		waitingOldest: desc("waiting_oldest_seconds",
			"How long ago the first of the rows that wait came in, by source topic; missing where none do.", "topic"),
		jobs:    desc("jobs", "Jobs that send rows again and have not ended, by state (running, paused).", "state"),
		jobRows: desc("job_rows_left", "Rows that running jobs have not sent yet."),
	}
}

// Describe tells what Collect gives.
func (c *storeCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.up, c.age, c.version, c.outbox, c.oldest, c.waiting, c.waitingOldest, c.jobs, c.jobRows} {
		ch <- d
	}
}

// Collect asks the database, for two seconds at most.
func (c *storeCollector) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	version, loaded, err := c.db.CatalogueVersion(ctx)
	if err != nil {
		gauge(c.up, 0)
		return
	}
	pending, err := c.db.OutboxPending(ctx)
	if err != nil {
		gauge(c.up, 0)
		return
	}
	gauge(c.up, 1)
	gauge(c.version, float64(version))
	if loaded.OK {
		gauge(c.age, time.Since(loaded.V).Seconds())
	}
	var entries int64
	var oldest time.Duration
	for _, p := range pending {
		entries += p.Entries
		oldest = max(oldest, time.Since(p.Oldest))
	}
	gauge(c.outbox, float64(entries))
	gauge(c.oldest, oldest.Seconds())
	if left, err := c.db.JobsLeft(ctx); err == nil {
		gauge(c.jobs, float64(left.Running), "running")
		gauge(c.jobs, float64(left.Paused), "paused")
		gauge(c.jobRows, float64(left.Rows))
	}
	waiting, err := c.db.WaitingCounts(ctx)
	if err != nil {
		return // the others are there, and these are late
	}
	for _, w := range waiting {
		gauge(c.waiting, float64(w.Rows), w.Topic)
		gauge(c.waitingOldest, time.Since(w.Oldest).Seconds(), w.Topic)
	}
}

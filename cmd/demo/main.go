// Command demo shows learnsink at work with nothing installed: a Kafka broker
// in this process, a private PostgreSQL, a small catalogue, a stream of rows
// good and bad, and the real consumer between them.
//
// The broker and the database go when it ends, and leave nothing behind. It is
// a program of its own so that the production binary links neither.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/rs/zerolog"
	"github.com/twmb/franz-go/pkg/kfake"
	"golang.org/x/sync/errgroup"
	"golang.org/x/term"

	"learnsink/consumer"
	"learnsink/handlers"
	"learnsink/store"
	"learnsink/store/catalogue"
	"learnsink/test/pgserver"
	"learnsink/test/rowgen"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	opt := options{out: os.Stdout, live: term.IsTerminal(int(os.Stdout.Fd()))}
	flag.IntVar(&opt.rows, "rows", 3000, "how many rows to send")
	flag.Uint64Var(&opt.seed, "seed", 1, "which story the rows tell; the same seed, the same rows")
	flag.Float64Var(&opt.bad, "bad", 0.05, "the share of rows that are wrong")
	flag.StringVar(&opt.http, "http", "127.0.0.1:0", "where /metrics is served; port 0: a free one")
	flag.BoolVar(&opt.keep, "keep", false, "stay up afterwards, to look around, until Ctrl-C")
	flag.Parse()
	if flag.NArg() > 0 || opt.rows < 1 {
		fmt.Fprintln(os.Stderr, "demo: --rows takes a number from 1 on, and there are no arguments")
		flag.Usage()
		os.Exit(2)
	}
	if err := run(ctx, opt); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// options are the flags, and where the show goes.
type options struct {
	rows int
	seed uint64
	bad  float64
	http string
	keep bool
	out  io.Writer
	live bool // out is a terminal: counts move in place
}

// The topics of the demo; the defaults of learnsink.
const (
	trackingTopic     = "learning.tracking"
	interventionTopic = "learning.intervention"
	acceptedTopic     = "learning.accepted"
	deadLetterTopic   = "learning.dead-letter"
	partitions        = 3
)

// run is the whole show: everything up, rows in, outcomes out, everything down.
func run(ctx context.Context, opt options) (err error) {
	show := &show{w: opt.out, live: opt.live}

	// The servers.
	show.step("PostgreSQL")
	pg, err := pgserver.Start(ctx, pgserver.Options{})
	if err != nil {
		return fmt.Errorf("%w\nThe demo looks for PostgreSQL's initdb and postgres on this machine, and fetches a server once where there are none", err)
	}
	defer func() { err = errors.Join(err, pg.Stop()) }()
	show.done(pg.String())

	show.step("Kafka")
	broker, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(partitions, trackingTopic, interventionTopic, acceptedTopic, deadLetterTopic),
		kfake.GroupMinSessionTimeout(100*time.Millisecond), kfake.BrokerConfigs(map[string]string{"group.initial.rebalance.delay.ms": "0"}))
	if err != nil {
		return err
	}
	defer broker.Close()
	show.done("a broker in this process, on " + broker.ListenAddrs()[0])

	// The schema and the catalogue, as `learnsink migrate` and `catalog load` would.
	show.step("schema")
	applied, err := store.Migrate(ctx, store.Config{URL: pg.URL()})
	if err != nil {
		return err
	}
	show.done(fmt.Sprintf("%d migrations", len(applied)))
	db, err := store.Open(ctx, store.Config{URL: pg.URL()})
	if err != nil {
		return err
	}
	defer db.Close()
	show.step("catalogue")
	loaded, err := loadCatalogue(ctx, db)
	if err != nil {
		return err
	}
	show.done(loaded)

	// The real consumer, with its metrics and health over HTTP.
	sources, err := defaultSources()
	if err != nil {
		return err
	}
	registry := prometheus.NewRegistry()
	connection := consumer.Connection{Brokers: broker.ListenAddrs(), ClientID: "learnsink-demo"}
	c, err := consumer.New(consumer.Config{Connection: connection, Sources: sources}, db, zerolog.Nop(), consumer.NewMetrics(registry))
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", opt.http)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return c.Run(ctx) })
	g.Go(func() error {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	g.Go(func() error {
		<-ctx.Done()
		return server.Close()
	})
	g.Go(func() error {
		defer cancel()
		client, err := consumer.NewClient(connection)
		if err != nil {
			return err
		}
		defer client.Close()
		if err := stream(ctx, opt, client, db, show); err != nil {
			return err
		}
		if err := outcomes(ctx, client, show); err != nil {
			return err
		}
		show.whereToLook(pg.URL(), listener.Addr().String(), broker.ListenAddrs()[0], opt.keep)
		if opt.keep {
			<-ctx.Done()
		}
		return nil
	})
	if err := g.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// loadCatalogue loads what the story's rows refer to, and says how much of each kind.
func loadCatalogue(ctx context.Context, db *store.Store) (loaded string, err error) {
	dir, err := os.MkdirTemp("", "learnsink-demo-")
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := rowgen.WriteCatalog(dir); err != nil {
		return "", err
	}
	folder, err := catalogue.Open(dir)
	if err != nil {
		return "", err
	}
	report, err := db.LoadCatalogue(ctx, folder, store.LoadOptions{})
	if err != nil {
		return "", err
	}
	var counts []string
	for _, k := range report.Kinds {
		counts = append(counts, fmt.Sprintf("%d %s", k.Lines, strings.ReplaceAll(string(k.Kind), "_", " ")))
	}
	return strings.Join(counts, ", "), nil
}

// defaultSources are the two sources that learnsink has without a configuration.
func defaultSources() ([]*handlers.Source, error) {
	var sources []*handlers.Source
	for action, topic := range map[handlers.Action]string{handlers.Tracking: trackingTopic, handlers.Intervention: interventionTopic} {
		rules, err := handlers.Compile(action, nil)
		if err != nil {
			return nil, err
		}
		sources = append(sources, &handlers.Source{Topic: topic, Rules: rules, AcceptedTopic: acceptedTopic, DeadLetterTopic: deadLetterTopic})
	}
	return sources, nil
}

// stream sends the story's rows, a few at a time so that one can watch, and
// returns once every one of them has its outcome.
func stream(ctx context.Context, opt options, client *consumer.Client, db *store.Store, show *show) error {
	show.heading(fmt.Sprintf("%d rows", opt.rows))
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		story := rowgen.New(rowgen.Config{Seed: opt.seed, Bad: opt.bad})
		pace := time.NewTicker(100 * time.Millisecond)
		defer pace.Stop()
		for sent := 0; sent < opt.rows; {
			some := map[string][]consumer.Message{}
			for range min(opt.rows-sent, max(20, opt.rows/40)) {
				r := story.Next()
				topic := trackingTopic
				if r.Action == handlers.Intervention {
					topic = interventionTopic
				}
				some[topic] = append(some[topic], consumer.Message{Key: r.Key, Value: r.Value, Headers: r.Headers, Timestamp: r.EventTime})
				sent++
			}
			for topic, messages := range some {
				if _, err := client.Produce(ctx, topic, messages); err != nil {
					return err
				}
			}
			select {
			case <-pace.C:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	g.Go(func() error {
		look := time.NewTicker(200 * time.Millisecond)
		defer look.Stop()
		for {
			positions, err := db.Positions(ctx)
			if err != nil {
				return err
			}
			var accepted, rejected, skipped int64
			for _, p := range positions {
				accepted += p.Accepted
				rejected += p.Rejected
				skipped += p.Skipped
			}
			finished := accepted+rejected+skipped >= int64(opt.rows)
			show.counts(accepted, rejected, int64(opt.rows), finished)
			if finished {
				return nil
			}
			select {
			case <-look.C:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	})
	return g.Wait()
}

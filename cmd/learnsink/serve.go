package main

import (
	"context"
	"errors"
	"os"
	"runtime/debug"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/rs/zerolog"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"learnsink/consumer"
	"learnsink/store"
)

// serveCommand is `serve`: the main job.
func (a *app) serveCommand() *cobra.Command {
	var drain bool
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "consume, apply and publish",
		Long: `serve consumes the source topics, applies their rows and publishes what became of them,
until it is told to stop (SIGTERM, SIGINT): then it finishes what is in flight, in 10 s
at most.

--http serves /metrics, /healthz, /readyz, POST /check and a page for people; --metrics the
first three alone, on any address. A broker, a database, a source topic or a catalogue that is not
there is waited for; a schema that does not fit ends it.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.load()
			if err != nil {
				return err
			}
			a.chooseListeners(c, drain)
			return a.serve(cmd.Context(), c, drain)
		},
	}
	flags := cmd.Flags()
	flags.Var(&settingFlag{a, "http"}, "http", "address of metrics, health and the page for people, or off (LEARNSINK_HTTP; default 127.0.0.1:8080)")
	flags.Var(&settingFlag{a, "metrics"}, "metrics", "address of metrics and health alone (LEARNSINK_METRICS; default off)")
	flags.BoolVar(&drain, "drain", false, "end once every source is applied and published up to the end that it has now; no HTTP unless asked for")
	return cmd
}

// memoryLimit is what Go's memory is held to, by collecting more often, where
// GOMEMLIMIT says nothing: half of it is the catalogue, remembered, and what is
// on the road at full load comes to a quarter.
const memoryLimit = 224 << 20

// chooseListeners settles what listens: with --drain nothing that no flag asks
// for; and where --metrics takes the port of the page for people, which nobody
// asked for, that gives way.
func (a *app) chooseListeners(c *config, drain bool) {
	if _, asked := a.flags["http"]; drain && !asked {
		c.HTTP = "off"
	}
	if _, asked := a.flags["metrics"]; drain && !asked {
		c.Metrics = "off"
	}
	if c.origins["http"] == "" && port(c.HTTP) == port(c.Metrics) {
		c.HTTP = "off"
	}
}

// consumer says what is consumed and how.
func (c *config) consumer() consumer.Config {
	linger := c.BatchLinger
	if linger == 0 {
		linger = -1 // not at all: the consumer's 0 is its default
	}
	breaker := c.Breaker
	breaker.Off = c.breaker == "off"
	connection := c.Kafka
	for _, t := range c.catalogTopics() {
		connection.Topics = append(connection.Topics, t.Topic)
	}
	return consumer.Config{
		Breaker:    breaker,
		Connection: connection,
		Group:      c.Group,
		Sources:    c.Sources,

		ReplayTopic: c.replayTopic(), DeadLetterTopic: c.strayTopic(),

		Batch:   consumer.Batch{Rows: c.BatchRows, Bytes: c.BatchBytes, Linger: linger},
		Publish: consumer.Publish(c.Publish),
		// The heartbeat goes with it: 3 s, or a third.
		SessionTimeout: c.SessionTimeout,
	}
}

// serve is the whole wiring. It ends with ctx, or, to drain, when all is done.
func (a *app) serve(ctx context.Context, c *config, drain bool) error {
	log := a.logger(c)
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(memoryLimit)
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))

	db, err := store.Open(ctx, c.store())
	if err != nil {
		return callError{err}
	}
	defer db.Close()
	worker, err := consumer.New(c.consumer(), db, log, consumer.NewMetrics(registry))
	if err != nil {
		return callError{err}
	}
	registry.MustRegister(newStoreCollector(db))
	var reader *consumer.CatalogueReader
	if topics := c.catalogTopics(); topics != nil {
		reader = worker.CatalogueReader(db, topics, consumer.NewCatalogueMetrics(registry))
	}

	// Rows that are only judged have two connections of their own: they never
	// wait for the consumer's, nor it for them.
	checking, err := store.Open(ctx, store.Config{URL: c.DatabaseURL, ApplicationName: "learnsink check", MaxConns: 2})
	if err != nil {
		return callError{err}
	}
	defer checking.Close()

	web := &web{config: c, db: db, worker: worker, registry: registry, log: log,
		check: newWebCheck(c, forSenders(checking.FactsNow), log, newWebCheckMetrics(registry), defaultWebCheckBounds())}
	listening, err := web.listen(ctx)
	if err != nil {
		return err
	}
	log.Info().Str("version", buildVersion()).Strs("brokers", c.Kafka.Brokers).Stringer("database", db).Str("group", c.Group).
		Strs("sources", c.reads()).Msg("learnsink starts")

	// The web outlives the consumer: how a stop goes can be watched.
	webContext, stopWeb := context.WithCancel(context.WithoutCancel(ctx))
	defer stopWeb()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return web.serve(webContext, listening) })
	g.Go(func() error {
		defer stopWeb()
		if err := awaitSchema(ctx, db, log); err != nil {
			if ctx.Err() != nil && !drain {
				return nil // told to stop while waiting
			}
			return err
		}
		if setting, err := db.SynchronousCommit(ctx); err == nil && setting == "off" {
			log.Warn().Msg("synchronous_commit is off: a crash of the database takes commits back; they are caught up from the log as long as it holds those rows")
		}
		if drain {
			if reader != nil { // what rows refer to first
				if err := reader.Drain(ctx); err != nil {
					return err
				}
			}
			return worker.Drain(ctx)
		}
		g, ctx := errgroup.WithContext(ctx)
		g.Go(func() error { return worker.Run(ctx) })
		if reader != nil {
			g.Go(func() error { return reader.Run(ctx) })
		}
		if c.replayTopic() != "" {
			g.Go(func() error { return worker.Releaser(roomStore{db}).Run(ctx) })
			g.Go(func() error { return worker.Dispatcher(jobStore{db}).Run(ctx) })
		}
		g.Go(func() error { return keep(ctx, db, c.Retention, log) })
		return g.Wait()
	})
	err = g.Wait()
	if err == nil {
		log.Info().Msg("learnsink has stopped")
	}
	return err
}

// roomStore is the store as the consumer's releaser wants it.
type roomStore struct{ *store.Store }

// LeadRoom takes the right to let rows out of the waiting room.
func (s roomStore) LeadRoom(ctx context.Context) (consumer.Room, bool, error) {
	room, led, err := s.Store.LeadRoom(ctx)
	if room == nil {
		return nil, led, err // and no interface that holds nil
	}
	return room, led, err
}

// jobStore is the store as the consumer's dispatcher wants it.
type jobStore struct{ *store.Store }

// LeadDispatcher takes the right to send the rows of jobs.
func (s jobStore) LeadDispatcher(ctx context.Context, replayTopic string) (consumer.Lead, bool, error) {
	lead, led, err := s.Store.LeadDispatcher(ctx, replayTopic)
	if lead == nil {
		return nil, led, err // and no interface that holds nil
	}
	return lead, led, err
}

// awaitSchema returns once the database answers and its schema fits. One that
// does not fit is an error; a database that is away is waited for.
func awaitSchema(ctx context.Context, db *store.Store, log zerolog.Logger) error {
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		err := db.CheckSchema(ctx)
		switch {
		case errors.Is(err, store.ErrSchema):
			return struct{}{}, backoff.Permanent(err)
		case err != nil && ctx.Err() == nil:
			log.Warn().Err(err).Msg("waiting for the database")
		}
		return struct{}{}, err
	}, backoff.WithBackOff(&backoff.ExponentialBackOff{
		InitialInterval: 100 * time.Millisecond, RandomizationFactor: 0.5, Multiplier: 2, MaxInterval: 10 * time.Second,
	}), backoff.WithMaxElapsedTime(0))
	return err
}

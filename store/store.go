// Package store is everything that knows pgx and SQL: facts for a batch,
// apply, outbox, positions, the catalogue, migrations and read queries.
//
// # The transaction protocol
//
// position.next_offset is the truth of how far a source partition has been
// applied; position.epoch is the fence. Claim raises the epoch. Apply writes a
// batch in one transaction that begins with a compare-and-set of the position
// under that epoch, so a batch is applied once or not at all, whoever tries,
// however often. What a batch has to publish is committed with it (outbox).
//
// Facts answers from memory (cache.go) or from one snapshot of the catalogue,
// and says of which catalogue that is. Apply holds the catalogue's advisory
// lock shared and refuses a batch that was decided by another one.
// LoadCatalogue takes that lock exclusively, and only at its end.
//
// # Non-obvious
//
//   - A COMMIT whose reply is lost is unknown, whatever pgconn.SafeToRetry
//     says: the position row, read FOR UPDATE on another connection, tells
//     (TestLostCommit).
//   - A key that is in no table cannot be locked. Where a decision rests on its
//     not being there, whoever writes it first wins; the other sees a count
//     that is not what it asked for, and begins again (TestRace). All other
//     tracking keys are written without a look (tracking.go).
//   - unnest pads arrays of unequal length with NULL, without an error: rows
//     are collected by types that append to all their arrays at once.
//   - No error of this package shows what stands in a row (Error).
package store

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Config says which database, and how to be known there.
type Config struct {
	// URL is the database's address (postgres://… or key=value pairs), with
	// several hosts and target_session_attrs if need be. Empty: the PG*
	// variables of the environment.
	URL string
	// ApplicationName is how pg_stat_activity shows the connections. Empty: learnsink.
	ApplicationName string
	// MaxConns bounds the connections. 0: what the URL says (pool_max_conns),
	// else pgx's default, the number of CPUs and at least 4.
	MaxConns int
}

// Limits of the server's patience with a statement, a lock and an idle
// transaction of a consumer. They free what a dead client holds, and turn a
// wait without end into an error that is tried again. The URL may say others.
const (
	statementTimeout = 8 * time.Second
	lockTimeout      = 3 * time.Second
	idleTimeout      = 15 * time.Second
)

// parse reads the address. limits: with the limits of time above.
func (c Config) parse(limits bool) (*pgxpool.Config, error) {
	pc, err := pgxpool.ParseConfig(c.URL)
	if err != nil {
		return nil, err
	}
	if c.MaxConns > 0 {
		pc.MaxConns = int32(c.MaxConns)
	}
	params := pc.ConnConfig.RuntimeParams
	setDefault := func(name, value string) {
		if _, ok := params[name]; !ok {
			params[name] = value
		}
	}
	if c.ApplicationName != "" {
		params["application_name"] = c.ApplicationName
	}
	setDefault("application_name", "learnsink")
	setDefault("timezone", "UTC")
	setDefault("default_transaction_isolation", "read committed")
	if limits {
		setDefault("statement_timeout", milliseconds(statementTimeout))
		setDefault("lock_timeout", milliseconds(lockTimeout))
		setDefault("idle_in_transaction_session_timeout", milliseconds(idleTimeout))
	}
	if pc.ConnConfig.ConnectTimeout == 0 {
		pc.ConnConfig.ConnectTimeout = 10 * time.Second
	}
	// A server that vanished without a word is noticed within half a minute.
	pc.ConnConfig.DialFunc = (&net.Dialer{
		Timeout:         pc.ConnConfig.ConnectTimeout,
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3},
	}).DialContext
	return pc, nil
}

func milliseconds(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }

// Store is an open database. It is safe for concurrent use.
type Store struct {
	pool   *pgxpool.Pool
	config Config
	habits habits
	cache  cache
}

// Open returns a store. It connects lazily: a database that is away is no
// error of Open's, a config that cannot be read is.
func Open(ctx context.Context, cfg Config) (s *Store, err error) {
	defer wrap(&err, "open the database")
	pc, err := cfg.parse(true)
	if err != nil {
		return nil, err
	}
	pc.AfterConnect = takeColumns
	pool, err := pgxpool.NewWithConfig(ctx, pc)
	if err != nil {
		return nil, err
	}
	s = &Store{pool: pool, config: cfg}
	s.cache.bulk.context, s.cache.bulk.end = context.WithCancel(context.WithoutCancel(ctx))
	return s, nil
}

// Close closes every connection, once those in use are given back.
func (s *Store) Close() {
	s.cache.bulk.end()
	s.cache.bulk.group.Wait()
	s.pool.Close()
}

// Ping reports whether the database answers.
func (s *Store) Ping(ctx context.Context) (err error) {
	defer wrap(&err, "reach the database")
	return s.pool.Ping(ctx)
}

// SynchronousCommit returns the setting of that name, as it is for this
// program's transactions: off lets a crash of the server take commits back.
func (s *Store) SynchronousCommit(ctx context.Context) (setting string, err error) {
	defer wrap(&err, "read a setting")
	err = s.pool.QueryRow(ctx, "SHOW synchronous_commit").Scan(&setting)
	return setting, err
}

// reading runs f in a read-only transaction of one snapshot, without the limit
// on statements: for the read queries of operators, which may take their time.
func (s *Store) reading(ctx context.Context, f func(pgx.Tx) error) error {
	return pgx.BeginTxFunc(ctx, s.pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SET LOCAL statement_timeout = 0"); err != nil {
			return err
		}
		return f(tx)
	})
}

// String names the database without its password: for logs.
func (s *Store) String() string {
	c := s.pool.Config().ConnConfig
	return fmt.Sprintf("%s:%d/%s", c.Host, c.Port, c.Database)
}

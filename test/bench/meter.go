package main

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
)

// result is what was measured of one contender in one phase.
type result struct {
	Scenario  string
	Case      string // within the scenario
	Contender string
	Phase     string
	Turn      int // the same of all contenders that took turns
	Rows      int
	Rate      float64 // rows a second, from the first applied to the last applied and announced
	Applied   float64 `json:",omitempty"` // the same, to the last applied
	Whole     float64 `json:",omitempty"` // the same, from the start of the process to its end
	First     float64 `json:",omitempty"` // seconds from the start of the process to the first row applied
	Client    float64 // CPU seconds per million rows
	Postgres  float64
	Broker    float64
	WAL       float64 // bytes per row
	Memory    float64 `json:",omitempty"` // MB, the client's peak
	P50, P99  float64 `json:",omitempty"` // seconds
}

// meter reads what the servers have taken.
type meter struct {
	bench            *bench
	db               *pgx.Conn
	postgres, broker time.Duration
	wal              string
}

func (b *bench) meter(ctx context.Context, db *pgx.Conn) (*meter, error) {
	m := &meter{bench: b, db: db}
	if err := db.QueryRow(ctx, "SELECT pg_current_wal_lsn()::text").Scan(&m.wal); err != nil {
		return nil, err
	}
	m.postgres, m.broker = treeCPU(b.postgresPID), treeCPU(b.brokerPID)
	return m, nil
}

// read notes in r what has been taken since, per row.
func (m *meter) read(ctx context.Context, r *result, rows int) error {
	millions := float64(rows) / 1e6
	r.Postgres = (treeCPU(m.bench.postgresPID) - m.postgres).Seconds() / millions
	r.Broker = (treeCPU(m.bench.brokerPID) - m.broker).Seconds() / millions
	var wal int64
	if err := m.db.QueryRow(ctx, "SELECT (pg_current_wal_lsn() - $1::pg_lsn)::bigint", m.wal).Scan(&wal); err != nil {
		return err
	}
	r.WAL = float64(wal) / float64(rows)
	return nil
}

package main

import (
	"context"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// notes are triggers of ours: which process claimed which partition when, and
// on the ledger which applied what, under which epoch, and when. The epoch is the position's, in the same transaction
// and under its lock; so two writers under one epoch are a zombie that got
// through the fence.
const notes = `
CREATE SCHEMA chaos;
CREATE TABLE chaos.applied (id bigint GENERATED ALWAYS AS IDENTITY, topic text, partition int, from_offset bigint, to_offset bigint, epoch bigint, who text, at timestamptz);
CREATE INDEX ON chaos.applied (at);
CREATE FUNCTION chaos.note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO chaos.applied (topic, partition, from_offset, to_offset, epoch, who, at)
  SELECT NEW.topic, NEW.partition, NEW.from_offset, NEW.to_offset, p.epoch, current_setting('application_name'), clock_timestamp()
  FROM learnsink.position p WHERE p.topic = NEW.topic AND p.partition = NEW.partition;
  RETURN NULL;
END $$;
CREATE TRIGGER note AFTER INSERT ON learnsink.ledger FOR EACH ROW EXECUTE FUNCTION chaos.note();
CREATE TABLE chaos.claimed (id bigint GENERATED ALWAYS AS IDENTITY, topic text, partition int, epoch bigint, who text, at timestamptz);
CREATE FUNCTION chaos.claim() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO chaos.claimed (topic, partition, epoch, who, at)
  VALUES (NEW.topic, NEW.partition, NEW.epoch, current_setting('application_name'), clock_timestamp());
  RETURN NULL;
END $$;
CREATE TRIGGER claim AFTER INSERT OR UPDATE OF epoch ON learnsink.position FOR EACH ROW EXECUTE FUNCTION chaos.claim()`

// line is a line of the ledger.
type line struct {
	partition
	from, to, epoch int64
	who             string
	at              time.Time
}

// lines returns what was noted since a moment, in the order in which it happened.
func lines(ctx context.Context, db *pgxpool.Pool, since time.Time) ([]line, error) {
	rows, err := db.Query(ctx, `SELECT topic, partition, from_offset, to_offset, epoch, who, at FROM chaos.applied WHERE at >= $1 ORDER BY id`, since)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (l line, err error) {
		err = row.Scan(&l.topic, &l.n, &l.from, &l.to, &l.epoch, &l.who, &l.at)
		return l, err
	})
}

// zombies returns the lines that no owner of their partition can have written:
// under an epoch that is another's, below one that was there, or over offsets
// that were applied before.
func zombies(all []line) (found []line) {
	type tenure struct {
		partition
		epoch int64
	}
	owner, last := map[tenure]string{}, map[partition]line{}
	for _, l := range all {
		t := tenure{l.partition, l.epoch}
		before, there := last[l.partition]
		// A line that no process wrote is an operator's, who does not own anything.
		if !strings.HasPrefix(l.who, "chaos-") {
			l.who = owner[t]
		}
		if who, owned := owner[t]; owned && who != l.who || there && (l.epoch < before.epoch || l.from < before.to) {
			found = append(found, l)
			continue
		}
		if l.who != "" {
			owner[t] = l.who
		}
		last[l.partition] = l
	}
	return found
}

// claim is a partition that a process has made its own.
type claim struct {
	partition
	who string
	at  time.Time
}

// claims returns what processes have claimed, in the order in which it happened.
func claims(ctx context.Context, db *pgxpool.Pool) ([]claim, error) {
	rows, err := db.Query(ctx, `SELECT topic, partition, who, at FROM chaos.claimed WHERE who LIKE 'chaos-%' ORDER BY id`)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (c claim, err error) {
		err = row.Scan(&c.topic, &c.n, &c.who, &c.at)
		return c, err
	})
}

// takeOvers returns how long it took, after a process was killed, until each
// of its partitions was another's. (Until a row was applied would tell when the
// next row came, too.)
func takeOvers(all []claim, who string, killed time.Time) (took []time.Duration, never int) {
	owned := map[partition]bool{}
	for _, l := range all {
		if l.at.Before(killed) {
			owned[l.partition] = l.who == who
		} else if owned[l.partition] && l.who != who {
			took = append(took, l.at.Sub(killed))
			owned[l.partition] = false
		}
	}
	for _, still := range owned {
		if still {
			never++
		}
	}
	return took, never
}

// first returns when the first line after a moment was written; false: none was.
func first(ctx context.Context, db *pgxpool.Pool, since time.Time) (at time.Time, found bool, err error) {
	err = db.QueryRow(ctx, `SELECT coalesce(min(at), 'epoch') FROM chaos.applied WHERE at > $1`, since).Scan(&at)
	return at, err == nil && at.After(since), err
}

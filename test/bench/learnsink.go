package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5"
)

// load is what is to be written, and onto what.
type load struct {
	set
	tableRows int
	processes int
}

// Phases of a run, each on what the one before it has left.
const (
	fresh    = "new"      // keys that are not there yet, but for the rows' own repeats
	existing = "existing" // the same keys with other values
	replay   = "replay"   // the same rows of the same topic once more: nothing changes
)

// runLearnsink measures a build of learnsink on the whole road: rules, facts,
// tables, accepted events and dead letters.
func (b *bench) runLearnsink(ctx context.Context, build build, l load, phases []string, take func(result)) error {
	template, err := b.template(ctx, build, l.world, l.tableRows)
	if err != nil {
		return err
	}
	database, err := b.create(ctx, template)
	if err != nil {
		return err
	}
	defer b.drop(context.WithoutCancel(ctx), database)
	db, err := pgx.Connect(ctx, database)
	if err != nil {
		return err
	}
	defer db.Close(context.WithoutCancel(ctx))
	for _, phase := range phases {
		s := l.set
		if phase != fresh {
			s.values++
		}
		topic, err := b.prepare(ctx, s, false)
		if err != nil {
			return err
		}
		if phase == replay {
			// As if another database had been connected to the topic, which holds the
			// rows already: everything is judged, written and announced again.
			if err := all(ctx, db, "TRUNCATE learnsink.position, learnsink.outbox, learnsink.ledger, learnsink.rejection"); err != nil {
				return err
			}
		}
		r, err := b.drain(ctx, build, database, db, l, s, topic)
		if err != nil {
			return fmt.Errorf("%s, %s: %w", build.name, phase, err)
		}
		r.Contender, r.Phase = build.name, phase
		take(r)
	}
	return nil
}

// settings is learnsink's configuration for a run.
func (b *bench) settings(l load, topic, run string) string {
	text := fmt.Sprintf("group: bench-%[2]s\nacceptedTopic: bench.accepted.%[2]s\ndeadLetterTopic: bench.dead-letter.%[2]s\nsources: [{topic: %[1]s, action: tracking}]\n", topic, run)
	if l.bad > 0.2 {
		text += "breaker: off\n"
	}
	return text + b.yaml + "\n"
}

// drain lets learnsink work off a topic.
func (b *bench) drain(ctx context.Context, build build, database string, db *pgx.Conn, l load, s set, topic string) (r result, err error) {
	b.runs++
	run := fmt.Sprintf("%d-%d", os.Getpid(), b.runs)
	outputs := []string{"bench.accepted." + run, "bench.dead-letter." + run}
	for _, topic := range outputs {
		if err := b.createTopic(ctx, topic, l.partitions); err != nil {
			return r, err
		}
	}
	defer b.dropTopics(context.WithoutCancel(ctx), outputs...)
	config := filepath.Join(b.dir, run+".yaml")
	if err := os.WriteFile(config, []byte(b.settings(l, topic, run)), 0o644); err != nil {
		return r, err
	}
	if err := all(ctx, db, "VACUUM ANALYZE", "CHECKPOINT"); err != nil {
		return r, err
	}
	meter, err := b.meter(ctx, db)
	if err != nil {
		return r, err
	}
	started := time.Now()
	var children []*child
	for range l.processes {
		c, err := b.serve(build, config, database, "--drain")
		if err != nil {
			return r, err
		}
		defer c.kill()
		children = append(children, c)
	}
	// 1. Until every row is applied, and announced.
	var applied, published time.Time
	alive := started // the last time that a process was seen running
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	for published.IsZero() {
		select {
		case <-ctx.Done():
			return r, ctx.Err()
		case <-poll.C:
		}
		var done, waiting int64
		if err := db.QueryRow(ctx, "SELECT (SELECT coalesce(sum(accepted + rejected + skipped), 0)::bigint FROM learnsink.position WHERE topic = $1), (SELECT count(*) FROM learnsink.outbox)", topic).
			Scan(&done, &waiting); err != nil {
			return r, err
		}
		running := 0
		for _, c := range children {
			if err := c.look(); err != nil {
				return r, err
			}
			if !c.over() {
				running++
			}
			if done*10 >= int64(s.rows)*9 {
				c.enoughProfile()
			}
		}
		if done >= int64(s.rows) {
			if applied.IsZero() {
				applied = time.Now()
			}
			if waiting == 0 {
				published = time.Now()
			}
		}
		if running > 0 {
			alive = time.Now()
		} else if published.IsZero() && time.Since(alive) > time.Second { // of which the database tells no more than before
			return r, fmt.Errorf("learnsink has ended, and %d of %d rows are applied, %d batches still to be announced", done, s.rows, waiting)
		}
	}
	// 2. Until the processes have ended by themselves.
	for _, c := range children {
		if err := c.wait(ctx); err != nil {
			return r, err
		}
		r.Client += c.cpu()
		r.Memory = max(r.Memory, c.memory)
	}
	ended := time.Now()
	if err := meter.read(ctx, &r, s.rows); err != nil {
		return r, err
	}
	r.Client /= float64(s.rows) / 1e6
	var first time.Time
	var accepted, rejected int64
	if err := db.QueryRow(ctx, "SELECT min(applied_at), sum(accepted), sum(rejected) FROM learnsink.ledger WHERE topic = $1 AND NOT superseded", topic).
		Scan(&first, &accepted, &rejected); err != nil {
		return r, err
	}
	// 3. Whether it is what it must be.
	want, bad := b.expected(s)
	if accepted != int64(s.rows)-bad || rejected != bad {
		return r, fmt.Errorf("%d rows were accepted and %d rejected, and not %d and %d", accepted, rejected, int64(s.rows)-bad, bad)
	}
	var rejections int64
	if err := db.QueryRow(ctx, "SELECT count(*) FROM learnsink.rejection WHERE source_topic = $1", topic).Scan(&rejections); err != nil {
		return r, err
	}
	if rejections != bad {
		return r, fmt.Errorf("rejection holds %d of %d bad rows", rejections, bad)
	}
	if err := holds(ctx, db, want); err != nil {
		return r, err
	}
	if b.quick {
		if err := b.audit(ctx, build, config, database); err != nil {
			return r, err
		}
	}
	r.Rows = s.rows
	r.Rate = float64(s.rows) / published.Sub(first).Seconds()
	r.Applied = float64(s.rows) / applied.Sub(first).Seconds()
	r.Whole = float64(s.rows) / ended.Sub(started).Seconds()
	r.First = first.Sub(started).Seconds()
	return r, nil
}

// audit has learnsink prove its books, and that each row is announced once.
func (b *bench) audit(ctx context.Context, build build, config, database string) error {
	_, err := b.verb(ctx, build, database, "-c", config, "audit", "--deep")
	return err
}

// serve starts `learnsink serve`.
func (b *bench) serve(build build, config, database string, args ...string) (*child, error) {
	b.runs++
	c := &child{log: filepath.Join(b.dir, fmt.Sprintf("learnsink-%d.log", b.runs))}
	c.cmd = exec.Command(build.path, append([]string{"-c", config, "serve"}, args...)...)
	c.cmd.Env = b.environment(database)
	if b.profile != "" && build.name == learnsink {
		prefix, err := filepath.Abs(filepath.Join(b.profile, fmt.Sprintf("%03d", b.runs)))
		if err != nil {
			return nil, err
		}
		c.profiled = true
		c.cmd.Env = append(c.cmd.Env, profileVariable+"="+prefix)
	}
	return c, b.spawn(c)
}

package main

import (
	"context"
	"crypto/md5"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"
)

// What the contenders that resolve nothing share: a table with the text keys
// as they come, which is empty at first, to their advantage.

const plainTable = `
CREATE TABLE tracking (
  candidatelogin text NOT NULL, lovguid text NOT NULL, sessionguid text NOT NULL, trainingpathcode text, trackingstatus text,
  progression float8, score float8, scoremax integer, timespent bigint,
  firstaccessdate timestamptz, lastaccessdate timestamptz, firstcompletiondate timestamptz,
  PRIMARY KEY (candidatelogin, lovguid, sessionguid))`

// plainKey is a key of the table.
type plainKey struct{ login, object, session string }

func (s set) plainKey(k key) plainKey {
	return plainKey{login(k.registration / perPerson), objectGUID(k.object), sessionGUID(s.session(k.registration))}
}

// hash is the same in SQL: see plainHolds.
func (k plainKey) hash() int64 {
	sum := md5.Sum([]byte(k.login + k.object + k.session))
	return int64(binary.BigEndian.Uint32(sum[:]))
}

// plainHolds looks whether the table holds what the good rows leave.
func (b *bench) plainHolds(ctx context.Context, db *pgx.Conn, s set) error {
	last := map[key]int64{}
	for r := range s.all() {
		if r.fault == 0 {
			last[r.key] = r.timeSpent
		}
	}
	var want, got sum
	for k, timeSpent := range last {
		want.rows++
		want.keys += s.plainKey(k).hash()
		want.values += timeSpent
	}
	if err := db.QueryRow(ctx, "SELECT count(*), coalesce(sum(('x' || substr(md5(candidatelogin || lovguid || sessionguid), 1, 8))::bit(32)::bigint), 0)::bigint, coalesce(sum(timespent), 0)::bigint FROM tracking").
		Scan(&got.rows, &got.keys, &got.values); err != nil {
		return err
	}
	if got != want {
		return fmt.Errorf("the table does not hold what it must: %+v, and not %+v", got, want)
	}
	return nil
}

// milestones are the rows by which one sees, from outside, that a contender
// has stored its first row and its last: those of each partition. What is read
// of a partition is stored in its order.
type milestones struct{ first, last []milestone }

type milestone struct {
	plainKey
	timeSpent, lastAccess int64
}

func (s set) milestones() (m milestones) {
	partitioner := kgo.StickyKeyPartitioner(nil).ForTopic("")
	first, last := map[int]*milestone{}, map[int]*milestone{}
	for r := range s.all() {
		if r.fault != 0 {
			continue
		}
		p := partitioner.Partition(&kgo.Record{Key: r.appendKey(nil)}, s.partitions)
		one := &milestone{s.plainKey(r.key), r.timeSpent, r.last.Unix()}
		if first[p] == nil {
			first[p] = one
		}
		last[p] = one
	}
	for p := range last {
		m.first, m.last = append(m.first, *first[p]), append(m.last, *last[p])
	}
	return m
}

// stored says whether the table holds the row, exactly or at least another one
// than before under its key.
func (m *milestone) stored(ctx context.Context, db *pgx.Conn, exactly bool, before map[plainKey]int64) (bool, error) {
	var timeSpent, lastAccess int64
	err := db.QueryRow(ctx, "SELECT timespent, extract(epoch FROM lastaccessdate)::bigint FROM tracking WHERE candidatelogin = $1 AND lovguid = $2 AND sessionguid = $3",
		m.login, m.object, m.session).Scan(&timeSpent, &lastAccess)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return false, nil
	case err != nil:
		return false, err
	case exactly:
		return timeSpent == m.timeSpent && lastAccess == m.lastAccess, nil
	}
	was, there := before[m.plainKey]
	return !there || lastAccess != was, nil // a later row of the key may have come already
}

// watch waits until a contender has stored its first row, and then its last.
// fails is asked whether there is still something to wait for.
func (m *milestones) watch(ctx context.Context, db *pgx.Conn, before map[plainKey]int64, fails func() error, atFirst func() error) (first, last time.Time, err error) {
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	for left := m.last; len(left) > 0; {
		select {
		case <-ctx.Done():
			return first, last, ctx.Err()
		case <-poll.C:
		}
		if first.IsZero() {
			for i := range m.first {
				ok, err := m.first[i].stored(ctx, db, false, before)
				if err != nil {
					return first, last, err
				}
				if ok {
					first = time.Now()
					if err := atFirst(); err != nil {
						return first, last, err
					}
					break
				}
			}
		}
		for len(left) > 0 {
			ok, err := left[0].stored(ctx, db, true, nil)
			if err != nil {
				return first, last, err
			}
			if !ok {
				break
			}
			left = left[1:]
		}
		if err := fails(); err != nil {
			return first, last, err
		}
	}
	return first, time.Now(), nil
}

// plainContender starts what is to store the rows of a topic, in the database.
type plainContender func(ctx context.Context, topic, database string, s set) (*child, error)

// runPlain measures a contender that resolves nothing.
func (b *bench) runPlain(ctx context.Context, name string, start plainContender, s set, phases []string, take func(result)) error {
	database, err := b.create(ctx, "")
	if err != nil {
		return err
	}
	defer b.drop(context.WithoutCancel(ctx), database)
	db, err := pgx.Connect(ctx, database)
	if err != nil {
		return err
	}
	defer db.Close(context.WithoutCancel(ctx))
	if err := all(ctx, db, plainTable); err != nil {
		return err
	}
	for _, phase := range phases {
		if phase == replay {
			continue
		}
		s := s
		if phase == existing {
			s.values++
		}
		r, err := b.watchPlain(ctx, start, database, db, s, phase == existing)
		if err != nil {
			return fmt.Errorf("%s, %s: %w", name, phase, err)
		}
		r.Contender, r.Phase = name, phase
		take(r)
	}
	return nil
}

func (b *bench) watchPlain(ctx context.Context, start plainContender, database string, db *pgx.Conn, s set, again bool) (r result, err error) {
	topic, err := b.prepare(ctx, s, true)
	if err != nil {
		return r, err
	}
	m := s.milestones()
	before := map[plainKey]int64{} // the times of the last access
	if again {
		for _, m := range m.first {
			var lastAccess int64
			if err := db.QueryRow(ctx, "SELECT extract(epoch FROM lastaccessdate)::bigint FROM tracking WHERE candidatelogin = $1 AND lovguid = $2 AND sessionguid = $3",
				m.login, m.object, m.session).Scan(&lastAccess); err != nil {
				return r, err
			}
			before[m.plainKey] = lastAccess
		}
	}
	if err := all(ctx, db, "VACUUM ANALYZE tracking", "CHECKPOINT"); err != nil {
		return r, err
	}
	started := time.Now()
	c, err := start(ctx, topic, database, s)
	if err != nil {
		return r, err
	}
	defer c.kill()
	var meter *meter
	var cpu time.Duration
	first, last, err := m.watch(ctx, db, before, c.look, func() (err error) {
		cpu = treeCPU(c.cmd.Process.Pid)
		meter, err = b.meter(ctx, db)
		return err
	})
	if err != nil {
		text, _ := os.ReadFile(c.log)
		complaint := strings.TrimSpace(string(text))
		return r, fmt.Errorf("%w: %s", err, complaint[max(0, len(complaint)-2000):])
	}
	good := 0
	for row := range s.all() {
		if row.fault == 0 {
			good++
		}
	}
	r.Rows, r.Rate, r.First = good, float64(good)/last.Sub(first).Seconds(), first.Sub(started).Seconds()
	r.Client = (treeCPU(c.cmd.Process.Pid) - cpu).Seconds() / (float64(good) / 1e6)
	if err := meter.read(ctx, &r, good); err != nil {
		return r, err
	}
	if err := c.look(); err != nil {
		return r, err
	}
	r.Memory = c.memory
	c.kill()
	return r, b.plainHolds(ctx, db, s)
}

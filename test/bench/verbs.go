package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/segmentio/kafka-go"
)

// The verbs that people wait for: check, catalog load, send.

// verbRows is how many rows `check` and `send` get: seconds of work.
const verbRows = 300_000

// timed runs a verb of learnsink to its end, its standard output into a file.
func (b *bench) timed(ctx context.Context, build build, database, out string, fine int, args ...string) (took time.Duration, c *child, err error) {
	b.runs++
	c = &child{log: filepath.Join(b.dir, fmt.Sprintf("verb-%d.log", b.runs))}
	c.cmd = exec.Command(build.path, args...)
	c.cmd.Env = b.environment(database)
	file, err := os.Create(out)
	if err != nil {
		return 0, nil, err
	}
	defer file.Close()
	started := time.Now()
	c.cmd.Stdout = file
	if err := b.spawn(c); err != nil {
		return 0, nil, err
	}
	defer c.kill()
	for {
		select {
		case <-c.ended:
			took = time.Since(started)
			if c.cmd.ProcessState.ExitCode() != fine {
				return took, c, fmt.Errorf("learnsink %s: %w", strings.Join(args, " "), errors.Join(c.outcome(), errors.New("not the exit that was expected")))
			}
			return took, c, nil
		case <-time.After(10 * time.Millisecond):
			c.remember()
		case <-ctx.Done():
			return 0, nil, ctx.Err()
		}
	}
}

// rowFile writes the rows of a set as JSONL.
func (b *bench) rowFile(s set) (path string, err error) {
	path = filepath.Join(b.dir, s.topic()+".jsonl")
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	file, err := os.Create(path)
	if err != nil {
		return "", err
	}
	out := bufio.NewWriterSize(file, 1<<20)
	var line []byte
	for r := range s.all() {
		line = append(r.append(line[:0], s.world), '\n')
		_, _ = out.Write(line) // Flush tells
	}
	return path, errors.Join(out.Flush(), file.Close())
}

// catalogueFiles writes the catalogue as `catalog load` reads it.
func (b *bench) catalogueFiles(w world) (dir string, lines int, err error) {
	lines = w.learners + objects + w.trainings() + w.sessions() + w.registrations()
	dir = filepath.Join(b.dir, fmt.Sprintf("catalogue-%d", w.learners))
	if _, err := os.Stat(dir); err == nil {
		return dir, lines, nil
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return "", 0, err
	}
	write := func(name, header string, n int, line func(b []byte, i int) []byte) {
		file, createErr := os.Create(filepath.Join(dir, name+".csv"))
		if createErr != nil {
			err = errors.Join(err, createErr)
			return
		}
		out := bufio.NewWriterSize(file, 1<<20)
		fmt.Fprintln(out, header)
		var text []byte
		for i := range n {
			text = append(line(text[:0], i), '\n')
			_, _ = out.Write(text) // Flush tells
		}
		err = errors.Join(err, out.Flush(), file.Close())
	}
	created := time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	write("learners", "login,refNumber,email,createdAt", w.learners, func(b []byte, i int) []byte {
		l := login(i)
		return fmt.Appendf(b, "%s,%d,%s@mail.example,%s", l, 10_000_000+i, l, created.Add(time.Duration(i)*time.Second).Format(time.RFC3339))
	})
	write("learning_objects", "guid,code,title,provider", objects, func(b []byte, i int) []byte {
		return fmt.Appendf(b, "%s,LO-%d,Learning object %d,", objectGUID(i), i, i)
	})
	write("trainings", "id,guid,pathCode,title", w.trainings(), func(b []byte, i int) []byte {
		return fmt.Appendf(b, "%d,%s,%s,Training %d", firstTraining+i, guid("training", i), pathCode(i), i)
	})
	write("sessions", "id,guid,title,trainingId", w.sessions(), func(b []byte, i int) []byte {
		return fmt.Appendf(b, "%d,%s,Session %d,%d", firstSession+i, sessionGUID(i), i, firstTraining+w.training(i))
	})
	sessions := make([]string, w.sessions())
	for i := range sessions {
		sessions[i] = sessionGUID(i)
	}
	write("registrations", "learnerLogin,sessionGuid", w.registrations(), func(b []byte, i int) []byte {
		return fmt.Appendf(b, "%s,%s", login(i/perPerson), sessions[w.session(i)])
	})
	return dir, lines, err
}

// What `check` looks references up in.
const (
	checkDatabase = "catalogue from the database"
	checkFiles    = "catalogue from files"
)

// check measures `check`: a file of rows against one of a single row, so that
// what it takes to start and to read the catalogue does not count.
func (b *bench) check(ctx context.Context, build build, l load, take func(result)) error {
	template, err := b.template(ctx, build, l.world, 0)
	if err != nil {
		return err
	}
	database, err := b.url(template)
	if err != nil {
		return err
	}
	catalogue, _, err := b.catalogueFiles(l.world)
	if err != nil {
		return err
	}
	s, one := l.set, l.set
	s.rows, one.rows, one.bad = min(s.rows, verbRows), 1, 0
	many, err := b.rowFile(s)
	if err != nil {
		return err
	}
	single, err := b.rowFile(one)
	if err != nil {
		return err
	}
	_, bad := b.expected(s)
	fault := 0
	if bad > 0 {
		fault = 3
	}
	for name, args := range map[string][]string{checkDatabase: nil, checkFiles: {"--catalog", catalogue}} {
		out := filepath.Join(b.dir, "verdicts")
		args := append([]string{"check", "--action", "tracking"}, args...)
		idle, _, err := b.timed(ctx, build, database, out, 0, append(args, single)...)
		if err != nil {
			return err
		}
		took, c, err := b.timed(ctx, build, database, out, fault, append(args, many)...)
		if err != nil {
			return err
		}
		verdicts, err := os.ReadFile(out)
		if err != nil {
			return err
		}
		if n, r := bytes.Count(verdicts, []byte{'\n'}), bytes.Count(verdicts, []byte(`"verdict":"rejected"`)); n != s.rows || int64(r) != bad {
			return fmt.Errorf("check judged %d rows of %d, and rejected %d of %d", n, s.rows, r, bad)
		}
		take(result{Contender: build.name, Phase: name, Rows: s.rows, Rate: float64(s.rows) / max(took-idle, time.Millisecond).Seconds(), Whole: float64(s.rows) / took.Seconds(),
			Client: c.cpu() / (float64(s.rows) / 1e6), Memory: c.memory})
	}
	return nil
}

// copyTables are what a bare COPY fills: the files' own columns.
const copyTables = `
CREATE TABLE learners (login text COLLATE "C" NOT NULL, ref_number text COLLATE "C", email text COLLATE "C", created_at timestamptz);
CREATE TABLE learning_objects (guid text COLLATE "C" NOT NULL, code text COLLATE "C", title text, provider text);
CREATE TABLE trainings (id bigint NOT NULL, guid text COLLATE "C", path_code text COLLATE "C", title text);
CREATE TABLE sessions (id bigint NOT NULL, guid text COLLATE "C", title text COLLATE "C", training_id bigint);
CREATE TABLE registrations (learner_login text COLLATE "C" NOT NULL, session_guid text COLLATE "C" NOT NULL)`

// copyIndexes are what the catalogue has on these columns.
const copyIndexes = `
ALTER TABLE learners ADD PRIMARY KEY (login);
CREATE INDEX ON learners (ref_number, created_at, login); CREATE INDEX ON learners (email, created_at, login);
ALTER TABLE learning_objects ADD PRIMARY KEY (guid); CREATE INDEX ON learning_objects (code, guid);
ALTER TABLE trainings ADD PRIMARY KEY (id); CREATE INDEX ON trainings (guid); CREATE INDEX ON trainings (path_code);
ALTER TABLE sessions ADD PRIMARY KEY (id); CREATE INDEX ON sessions (training_id); CREATE INDEX ON sessions (guid); CREATE INDEX ON sessions (title, training_id);
ALTER TABLE registrations ADD PRIMARY KEY (learner_login, session_guid); CREATE INDEX ON registrations (session_guid)`

// Contenders of `catalog load`.
const (
	copyBare    = "COPY, no index"
	copyIndexed = "COPY, indexed"
)

// catalogLoad measures `catalog load` into an empty catalogue, and a bare COPY
// of the same files into tables with no index, and with the catalogue's.
func (b *bench) catalogLoad(ctx context.Context, build build, w world, take func(result)) error {
	dir, lines, err := b.catalogueFiles(w)
	if err != nil {
		return err
	}
	run := func(name string, load func(database string, db *pgx.Conn) (result, error)) error {
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
		r, err := load(database, db)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		r.Contender, r.Rows = name, lines
		take(r)
		return nil
	}
	measure := func(db *pgx.Conn, do func() (time.Duration, error)) (r result, err error) {
		if err := all(ctx, db, "CHECKPOINT"); err != nil {
			return r, err
		}
		meter, err := b.meter(ctx, db)
		if err != nil {
			return r, err
		}
		took, err := do()
		if err != nil {
			return r, err
		}
		r.Rate = float64(lines) / took.Seconds()
		return r, meter.read(ctx, &r, lines)
	}
	if err := run(build.name, func(database string, db *pgx.Conn) (r result, err error) {
		if _, err := b.verb(ctx, build, database, "migrate"); err != nil {
			return r, err
		}
		var c *child
		r, err = measure(db, func() (took time.Duration, err error) {
			took, c, err = b.timed(ctx, build, database, filepath.Join(b.dir, "loaded"), 0, "catalog", "load", dir)
			return took, err
		})
		if err != nil {
			return r, err
		}
		r.Client, r.Memory = c.cpu()/(float64(lines)/1e6), c.memory
		var got int
		if err := db.QueryRow(ctx, "SELECT (SELECT count(*) FROM learnsink.learner) + (SELECT count(*) FROM learnsink.registration)").Scan(&got); err != nil {
			return r, err
		}
		if want := w.learners + w.registrations(); got != want {
			return r, fmt.Errorf("%d learners and registrations were loaded, and not %d", got, want)
		}
		return r, nil
	}); err != nil {
		return err
	}
	for _, name := range []string{copyBare, copyIndexed} {
		if err := run(name, func(_ string, db *pgx.Conn) (r result, err error) {
			if err := all(ctx, db, copyTables); err != nil {
				return r, err
			}
			if name == copyIndexed {
				if err := all(ctx, db, copyIndexes); err != nil {
					return r, err
				}
			}
			return measure(db, func() (time.Duration, error) { return copyFiles(ctx, db, dir) })
		}); err != nil {
			return err
		}
	}
	return nil
}

// copyFiles copies the files of a catalogue into tables of their names, in one transaction.
func copyFiles(ctx context.Context, db *pgx.Conn, dir string) (took time.Duration, err error) {
	started := time.Now()
	if err := all(ctx, db, "BEGIN"); err != nil {
		return 0, err
	}
	for _, name := range []string{"learners", "learning_objects", "trainings", "sessions", "registrations"} {
		file, err := os.Open(filepath.Join(dir, name+".csv"))
		if err != nil {
			return 0, err
		}
		_, err = db.PgConn().CopyFrom(ctx, file, "COPY "+name+" FROM STDIN (FORMAT csv, HEADER)")
		if err := errors.Join(err, file.Close()); err != nil {
			return 0, err
		}
	}
	err = all(ctx, db, "COMMIT")
	return time.Since(started), err
}

// send measures `send` of a file beside kafka-go's Writer, to which the same
// messages are given ready-made, uncompressed and as `send` compresses them.
func (b *bench) send(ctx context.Context, build build, l load, take func(result)) error {
	s := l.set
	s.rows, s.bad = min(s.rows, verbRows), 0
	path, err := b.rowFile(s)
	if err != nil {
		return err
	}
	template, err := b.template(ctx, build, l.world, 0) // it asks no database, but has to know of one
	if err != nil {
		return err
	}
	database, err := b.url(template)
	if err != nil {
		return err
	}
	run := func(name string, send func(topic string) (result, error)) error {
		b.runs++
		topic := fmt.Sprintf("bench.sent.%d-%d", os.Getpid(), b.runs)
		if err := b.createTopic(ctx, topic, s.partitions); err != nil {
			return err
		}
		defer b.dropTopics(context.WithoutCancel(ctx), topic)
		r, err := send(topic)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		_, sum, err := b.ends(ctx, topic)
		if err != nil {
			return err
		}
		if sum != int64(s.rows) {
			return fmt.Errorf("%s sent %d rows of %d", name, sum, s.rows)
		}
		r.Contender, r.Rows = name, s.rows
		take(r)
		return nil
	}
	if err := run(build.name, func(topic string) (r result, err error) {
		config := filepath.Join(b.dir, "send.yaml")
		if err := os.WriteFile(config, []byte(b.settings(l, topic, "send")), 0o644); err != nil {
			return r, err
		}
		took, c, err := b.timed(ctx, build, database, filepath.Join(b.dir, "sent"), 0, "-c", config, "send", "--action", "tracking", path)
		if err != nil {
			return r, err
		}
		return result{Rate: float64(s.rows) / took.Seconds(), Client: c.cpu() / (float64(s.rows) / 1e6), Memory: c.memory}, nil
	}); err != nil {
		return err
	}
	records := s.records(s.rows)
	for name, codec := range map[string]kafka.Compression{writerPlain: 0, writerZstd: kafka.Zstd} {
		if err := run(name, func(topic string) (r result, err error) {
			messages := make([]kafka.Message, len(records))
			for i, record := range records {
				messages[i] = kafka.Message{Key: record.key, Value: record.value}
			}
			transport := &kafka.Transport{} // the default one remembers for seconds which topics there are
			defer transport.CloseIdleConnections()
			writer := &kafka.Writer{Transport: transport, Addr: kafka.TCP(strings.Split(b.brokers, ",")...), Topic: topic,
				Balancer: kafka.Murmur2Balancer{}, BatchSize: 2_000, BatchTimeout: 5 * time.Millisecond, RequiredAcks: kafka.RequireAll, Compression: codec}
			before, started := ownCPU(), time.Now()
			for len(messages) > 0 {
				n := min(len(messages), 20_000)
				if err := writer.WriteMessages(ctx, messages[:n]...); err != nil {
					return r, err
				}
				messages = messages[n:]
			}
			if err := writer.Close(); err != nil {
				return r, err
			}
			return result{Rate: float64(s.rows) / time.Since(started).Seconds(), Client: (ownCPU() - before).Seconds() / (float64(s.rows) / 1e6)}, nil
		}); err != nil {
			return err
		}
	}
	return nil
}

// Contenders of `send`.
const (
	writerPlain = "kafka-go Writer"
	writerZstd  = "kafka-go Writer, zstd"
)

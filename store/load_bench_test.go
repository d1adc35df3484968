package store_test

import (
	"bufio"
	"context"
	"crypto/md5"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"learnsink/store"
	"learnsink/store/catalogue"
	"learnsink/test/pgtest"
)

// BenchmarkLoadCatalogue loads a catalogue of LEARNSINK_BENCH_LEARNERS learners
// (10,000), three registrations each, 5,000 learning objects, a session for
// every hundred learners and a training for every ten sessions:
//
//   - bare: COPY FROM STDIN of the same CSV files, in one transaction, into
//     tables of the files' own columns with the catalogue's indexes on them;
//     beside it with the indexes made after the COPYs, and without any.
//   - first: into an empty catalogue.
//   - again: the same files once more.
//   - few: files in which one learner in a thousand has changed, and one
//     registration in a thousand is another.
//
// Only a durable server of default settings (DATABASE_URL) tells anything.
func BenchmarkLoadCatalogue(b *testing.B) {
	learners := 10_000
	if n, err := strconv.Atoi(os.Getenv("LEARNSINK_BENCH_LEARNERS")); err == nil {
		learners = n
	}
	same, changed := b.TempDir(), b.TempDir()
	lines := writeBenchCatalogue(b, same, learners, false)
	writeBenchCatalogue(b, changed, learners, true)
	for _, c := range []struct {
		name string
		run  func(b *testing.B)
	}{
		{"bare", func(b *testing.B) { loadBare(b, same, bareTables+";"+bareIndexes, "") }},
		{"bare-indexed-after", func(b *testing.B) { loadBare(b, same, bareTables, bareIndexes) }},
		{"bare-unindexed", func(b *testing.B) { loadBare(b, same, bareTables, "") }},
		{"first", func(b *testing.B) { loadBench(b, "", same) }},
		{"again", func(b *testing.B) { loadBench(b, same, same) }},
		{"few", func(b *testing.B) { loadBench(b, same, changed) }},
	} {
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				c.run(b)
				b.StartTimer()
			}
			b.ReportMetric(float64(lines)*float64(b.N)/b.Elapsed().Seconds(), "lines/s")
		})
	}
}

// loadBench loads a folder, after another one where one is named. The timer runs for the last load.
func loadBench(b *testing.B, before, dir string) {
	url := pgtest.New(b)
	s, err := store.Open(b.Context(), store.Config{URL: url})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	once := func(dir string) {
		folder, err := catalogue.Open(dir)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := s.LoadCatalogue(b.Context(), folder, store.LoadOptions{}); err != nil {
			b.Fatal(err)
		}
	}
	if before != "" {
		once(before)
	}
	checkpoint(b, url)
	b.StartTimer()
	once(dir)
	b.StopTimer()
}

// checkpoint leaves nothing of what was before to be written.
func checkpoint(b *testing.B, url string) {
	conn, err := pgx.Connect(b.Context(), url)
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close(b.Context())
	if _, err := conn.Exec(b.Context(), "CHECKPOINT"); err != nil {
		b.Fatal(err)
	}
}

// The files' own columns, and the catalogue's indexes on these.
const (
	bareTables = `
CREATE TABLE learners (login text COLLATE "C" NOT NULL, ref_number text COLLATE "C", email text COLLATE "C", created_at timestamptz);
CREATE TABLE learning_objects (guid text COLLATE "C" NOT NULL, code text COLLATE "C", title text);
CREATE TABLE trainings (id bigint NOT NULL, guid text COLLATE "C", path_code text COLLATE "C", title text);
CREATE TABLE sessions (id bigint NOT NULL, guid text COLLATE "C", title text COLLATE "C", training_id bigint);
CREATE TABLE registrations (learner_login text COLLATE "C" NOT NULL, session_guid text COLLATE "C" NOT NULL)`
	bareIndexes = `
ALTER TABLE learners ADD PRIMARY KEY (login);
CREATE INDEX ON learners (ref_number, created_at, login); CREATE INDEX ON learners (email, created_at, login);
ALTER TABLE learning_objects ADD PRIMARY KEY (guid); CREATE INDEX ON learning_objects (code, guid);
ALTER TABLE trainings ADD PRIMARY KEY (id); CREATE INDEX ON trainings (guid); CREATE INDEX ON trainings (path_code);
ALTER TABLE sessions ADD PRIMARY KEY (id); CREATE INDEX ON sessions (training_id); CREATE INDEX ON sessions (guid); CREATE INDEX ON sessions (title, training_id);
ALTER TABLE registrations ADD PRIMARY KEY (learner_login, session_guid); CREATE INDEX ON registrations (session_guid)`
)

// loadBare copies a folder. tables and then go before and after it; the timer
// runs for the COPYs, the rest of their transaction, and then.
func loadBare(b *testing.B, dir, tables, then string) {
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, pgtest.Empty(b))
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close(ctx)
	if _, err := conn.Exec(ctx, tables); err != nil {
		b.Fatal(err)
	}
	if _, err := conn.Exec(ctx, "CHECKPOINT"); err != nil {
		b.Fatal(err)
	}
	b.StartTimer()
	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		for table, columns := range map[string]string{
			"learners": "login, ref_number, email, created_at", "learning_objects": "guid, code, title", "trainings": "id, guid, path_code, title",
			"sessions": "id, guid, title, training_id", "registrations": "learner_login, session_guid",
		} {
			file, err := os.Open(filepath.Join(dir, table+".csv"))
			if err != nil {
				return err
			}
			defer file.Close()
			if _, err := conn.PgConn().CopyFrom(ctx, file, fmt.Sprintf("COPY %s (%s) FROM STDIN (FORMAT csv, HEADER)", table, columns)); err != nil {
				return err
			}
		}
		_, err := conn.Exec(ctx, then)
		return err
	})
	b.StopTimer()
	if err != nil {
		b.Fatal(err)
	}
}

// writeBenchCatalogue writes the files and returns how many lines they have.
func writeBenchCatalogue(b *testing.B, dir string, learners int, changed bool) (lines int) {
	given := strings.Fields("anna bruno charlotte daniel elena francois gabriela hugo isabelle joaquim katharina laurent madeleine nicolas olivia philippe")
	family := strings.Fields("almeida bernard carvalho dubois esposito fournier garcia hernandez ivanova jansen kowalski lefebvre moreau nguyen oliveira petit")
	login := func(i int) string { return fmt.Sprintf("%s.%s.%d", given[i%16], family[i/16%16], i) }
	guid := func(kind string, i int) string {
		sum := md5.Sum(fmt.Appendf(nil, "%s%d", kind, i))
		return fmt.Sprintf("%x-%x-%x-%x-%x", sum[:4], sum[4:6], sum[6:8], sum[8:10], sum[10:])
	}
	sessions := max(3, learners/100)
	trainings := max(1, sessions/10)
	write := func(kind, header string, n int, line func(i int) string) {
		file, err := os.Create(filepath.Join(dir, kind+".csv"))
		if err != nil {
			b.Fatal(err)
		}
		w := bufio.NewWriter(file)
		fmt.Fprintln(w, header)
		for i := range n {
			fmt.Fprintln(w, line(i))
		}
		if err := w.Flush(); err != nil {
			b.Fatal(err)
		}
		if err := file.Close(); err != nil {
			b.Fatal(err)
		}
		lines += n
	}
	other := func(i int) int { // 1 for one in a thousand, where they have changed
		if changed && i%1000 == 7 {
			return 1
		}
		return 0
	}
	write("learners", "login,refNumber,email,createdAt", learners, func(i int) string {
		return fmt.Sprintf("%s,%d,%s@mail.example,2020-01-%02dT%02d:%02d:%02dZ", login(i), 10_000_000+i+other(i)*learners, login(i), i/86400%28+1, i/3600%24, i/60%60, i%60)
	})
	write("learning_objects", "guid,code,title", 5000, func(i int) string { return fmt.Sprintf("%s,LO-%d,Learning object %[2]d", guid("object", i), i) })
	write("trainings", "id,guid,pathCode,title", trainings, func(i int) string {
		return fmt.Sprintf("%d,%s,PATH-%05d,Training %[3]d", 100+i, guid("training", i), i)
	})
	write("sessions", "id,guid,title,trainingId", sessions, func(i int) string {
		return fmt.Sprintf("%d,%s,Session %d,%d", 1000+i, guid("session", i), i, 100+i%trainings)
	})
	guids := make([]string, sessions)
	for i := range guids {
		guids[i] = guid("session", i)
	}
	write("registrations", "learnerLogin,sessionGuid", 3*learners, func(i int) string {
		return login(i/3) + "," + guids[(i/3*31+i%3*(sessions/3)+other(i))%sessions]
	})
	return lines
}

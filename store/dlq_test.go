package store_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"learnsink/handlers"
	"learnsink/store"
)

// wrongRows are rows that are wrong in every way that has a message of its
// own, and some that try to be taken for something else by their brackets.
func wrongRows() (tracking, intervention []map[string]any) {
	good := func(more ...any) map[string]any {
		row := map[string]any{"candidateLogin": "l1", "lovGuid": "o1", "sessionId": 100}
		for i := 0; i < len(more); i += 2 {
			row[more[i].(string)] = more[i+1]
		}
		return row
	}
	long := strings.Repeat("ä", 300)
	tracking = []map[string]any{
		{}, good("progression", 101), good("progression", "a] to [b"), good("progression", -1), good("scoreMax", 0), good("scoreMax", "x"),
		good("timeSpent", "99999999999"), good("timeSpent", "[rawSeconds] expected."), good("score", true), good("score", "Field [score] has invalid value [1"),
		good("sessionTitle", long), good("lovCode", "C1"), good("lovGuid", "[guid] is not found."), good("lovGuid", "o9999"), good("lovGuid", "ÄÖ"), good("lovGuid", "äö"),
		good("candidateLogin", "Nobody"), good("candidateLogin", "nobody", "candidateEmail", "N@x", "sessionGuid", "S100"), good("candidateLogin", "ÉTIENNE"),
		good("candidateLogin", "a\x00b"), good("firstAccessDate", "[2]"), good("firstAccessDate", "2026-02-30"), good("lastAccessDate", "]"),
		good("trackingStatus", "done"), good("trackingStatus", "[completed]"), good("firstCompletionDate", "2026-01-01"),
		good("Column [x] is unknown.", "x"), good("x", "x"), good(strings.Repeat("n", 200), 1), good("\x00", 1), good("", "["),
		{"candidateLogin": "l1"}, {"lovGuid": "o1"}, {"candidateRefNumber": "R-1", "lovGuid": "o1", "sessionId": 7},
	}
	many := good()
	for i := range 30 {
		many[fmt.Sprintf("column%d", i)] = i
	}
	tracking = append(tracking, many)
	iv := func(more ...any) map[string]any {
		row := map[string]any{"interventionGuid": "iv", "trainingGuid": "T10", "sessionGuid": "s100", "interventionDate": "2026-03-05", "interventionDuration": 2,
			"roomGuid": "r", "roomLabel": "R", "teacherLogin": "T0", "interventionStatus": "A"}
		for i := 0; i < len(more); i += 2 {
			row[more[i].(string)] = more[i+1]
		}
		return row
	}
	intervention = []map[string]any{
		{}, iv("trainingGuid", "["), iv("trainingPathCode", "]"), iv("sessionGuid", "no"), iv("sessionTitle", "[v]"), iv("interventionDate", "[A]"),
		iv("teacherLogin", "NOBODY"), iv("teacherLogin", "nobody"), iv("interventionStatus", "[A] or [C"), iv("interventionDuration", 0), iv("roomCapacity", -1), iv("interventionGuid", strings.Repeat("g", 41)),
	}
	return tracking, intervention
}

// reject applies all of wrongRows, from some senders, and rows that are none.
func reject(w *world) {
	w.t.Helper()
	tracking, intervention := wrongRows()
	for _, of := range []struct {
		action handlers.Action
		rows   []map[string]any
	}{{handlers.Tracking, tracking}, {handlers.Intervention, intervention}} {
		src := source(w.t, of.action)
		o := w.claim(w.Store, src, 1)
		var records []*handlers.Record
		for i, row := range of.rows {
			value, err := json.Marshal(row)
			if err != nil {
				w.t.Fatal(err)
			}
			rec := &handlers.Record{Topic: src.Topic, Offset: int64(i), Timestamp: day.Add(time.Duration(i) * time.Minute), Value: value, Key: []byte("k")}
			if i%3 > 0 {
				rec.Headers = []handlers.Header{{Key: "ce_source", Value: []byte("first")}, {Key: "ce_source", Value: []byte(fmt.Sprintf("lms/%d", i%3))}}
			}
			records = append(records, rec)
		}
		for _, value := range []string{"", "not json", "[1]", "\xff", `{"candidateLogin":"l1","a":{`, `{"a":1}{`} {
			records = append(records, &handlers.Record{Topic: src.Topic, Offset: int64(len(records)), Timestamp: day, Value: []byte(value)})
		}
		b := o.apply(records...)
		for i := range b.Decisions {
			if b.Decisions[i].Verdict != handlers.Rejected {
				w.t.Fatalf("%s row %d is not rejected", of.action, i)
			}
		}
	}
}

// faultLines are the lines of rejection_fault, as they should be read.
const faultLines = `SELECT r.id, f.fault, k.action, k.code, k.field, k.message, f.subject, f.value, f.sender, f.topic, f.rejected_at, f.partition, f.state
	FROM learnsink.rejection_fault f JOIN learnsink.rejection r USING (seq) LEFT JOIN learnsink.fault k ON k.id = f.fault ORDER BY r.id, f.fault`

func TestFaults(t *testing.T) {
	w := newWorld(t)
	reject(w)

	t.Run("Go and SQL say the same", func(t *testing.T) {
		byGo := w.text(faultLines)
		if n := strings.Count(byGo, "\n"); n < 60 {
			t.Fatalf("%d faults only:\n%s", n, byGo)
		}
		w.exec(`DELETE FROM learnsink.rejection_fault; DELETE FROM learnsink.fault`)
		w.exec(`CREATE TABLE kept AS SELECT * FROM learnsink.rejection; DELETE FROM learnsink.rejection; INSERT INTO learnsink.rejection SELECT * FROM kept; DROP TABLE kept`)
		if diff := cmp.Diff(byGo, w.text(faultLines)); diff != "" {
			t.Errorf("-Go +SQL\n%s", diff)
		}
	})
	t.Run("a template holds no value", func(t *testing.T) {
		for _, text := range []string{"9999", "[2]", "NOBODY", "a] to [b", "o9999", "done", "99999999999"} {
			if found := w.text(`SELECT message FROM learnsink.fault WHERE strpos(message, $1) > 0`, text); found != "" {
				t.Errorf("%q is in %s", text, found)
			}
		}
		for _, want := range []string{"Field [progression] has invalid value [ ], [0] to [100] expected.", "Field [timeSpent] has invalid value [ ], [rawSeconds] expected.",
			"Field [sessionTitle] is longer than [255] characters.", "Learning object version with guid [ ] is not found.", "And [ ] more columns are unknown.", "Column [x] is unknown.",
			"Status has invalid value [ ], [notAttempted], [incomplete], [completed], [passed], [failed] or [browsed] expected.", "Status has invalid value [ ], [A] or [C] expected."} {
			if w.text(`SELECT 1 FROM learnsink.fault WHERE message = $1`, want) == "" {
				t.Errorf("no fault says %s", want)
			}
		}
	})
	one := func() string {
		return w.text(`SELECT k.code, f.state, f.subject IS NULL, f.value = learnsink.digest('x') FROM learnsink.rejection_fault f
			JOIN learnsink.rejection r USING (seq) JOIN learnsink.fault k ON k.id = f.fault WHERE r.id = 'learning.tracking-1-1' ORDER BY 1`)
	}
	if got := one(); got != "(value_out_of_range,o,f,f)" {
		t.Fatalf("%s", got)
	}
	for _, c := range []struct{ done, sql, want string }{
		{"a state changes", `UPDATE learnsink.rejection SET state = 'resolved' WHERE id = 'learning.tracking-1-1'`, "(value_out_of_range,d,f,f)"},
		{"an attempt fails with something else", `UPDATE learnsink.rejection SET state = 'open', attempt = 2, errors = '[{"code":"record_empty","message":"Record has no value."},{"code":"lo_not_found","field":"lovCode","value":"x","message":"Learning object version with code [x] is not found."}]'
			WHERE id = 'learning.tracking-1-1'`, "(lo_not_found,o,f,t)\n(record_empty,o,f,)"},
		{"nothing that faults know changes", `UPDATE learnsink.rejection SET attempt = 3 WHERE id = 'learning.tracking-1-1'`, "(lo_not_found,o,f,t)\n(record_empty,o,f,)"},
		{"the person is erased", `UPDATE learnsink.rejection SET state = 'erased', value = NULL, errors = '[{"code":"lo_not_found","field":"lovCode","message":"Learning object version with code [] is not found."}]' WHERE id = 'learning.tracking-1-1'`, "(lo_not_found,e,t,)"},
		{"the line goes", `DELETE FROM learnsink.rejection WHERE id = 'learning.tracking-1-1'`, ""},
	} {
		w.exec(c.sql)
		if got := one(); got != c.want {
			t.Errorf("%s:\n%s\nwant\n%s", c.done, got, c.want)
		}
	}
	if left := w.text(`SELECT seq FROM learnsink.rejection_fault f WHERE NOT EXISTS (SELECT FROM learnsink.rejection r WHERE r.seq = f.seq)`); left != "" {
		t.Errorf("faults of no rejection: %s", left)
	}
}

// What 004 makes of a table that was there before it is what learnsink writes
// now, as far as SQL can fold.
func TestGroupsBackfilled(t *testing.T) {
	w := newWorld(t)
	reject(w)
	// What SQL cannot read as Go does: ÉTIENNE, U+0000, and what comes before a fault.
	const strange = `(position('\xc389'::bytea IN r.value) > 0 OR position('\\u0000'::bytea IN r.value) > 0 OR r.codes = '{record_not_json}')`
	const about = `SELECT r.id, r.sender, r.names, r.subject, r.registration FROM learnsink.rejection r WHERE NOT ` + strange + ` ORDER BY r.id`
	const faults = `SELECT l.* FROM (` + faultLines + `) l JOIN learnsink.rejection r USING (id) WHERE NOT ` + strange
	if n := w.text(`SELECT count(*) FROM learnsink.rejection r WHERE ` + strange); n != "(13)" {
		t.Fatalf("%s rows are strange to SQL", n)
	}
	lines, columns := w.text(faults), w.text(about)
	w.exec(`DROP TRIGGER rejection_inserted ON learnsink.rejection; DROP TRIGGER rejection_updated ON learnsink.rejection; DROP TRIGGER rejection_deleted ON learnsink.rejection;
		DROP TRIGGER rejection_erased ON learnsink.rejection; DROP TABLE learnsink.fault, learnsink.rejection_fault;
		DROP FUNCTION learnsink.rejection_written, learnsink.rejection_gone, learnsink.rejection_erased, learnsink.faults_of, learnsink.state_letter, learnsink.message_template, learnsink.digest;
		ALTER TABLE learnsink.rejection DROP COLUMN seq, DROP COLUMN sender, DROP COLUMN names, DROP COLUMN subject, DROP COLUMN registration;
		CREATE INDEX rejection_state ON learnsink.rejection (state); CREATE INDEX rejection_codes ON learnsink.rejection (codes)`)
	text, err := os.ReadFile("migrations/004_groups.sql")
	if err != nil {
		t.Fatal(err)
	}
	w.exec(string(text))
	if diff := cmp.Diff(lines, w.text(faults)); diff != "" {
		t.Errorf("-written +backfilled\n%s", diff)
	}
	if diff := cmp.Diff(columns, w.text(about)); diff != "" {
		t.Errorf("-written +backfilled\n%s", diff)
	}
	if got := w.text(`SELECT count(*) = max(seq) AND min(seq) = 1 AND count(*) < nextval('learnsink.rejection_seq_seq') FROM learnsink.rejection`); got != "(t)" {
		t.Errorf("the order: %s", got)
	}
}

// model is what a filter means, row by row.
func model(r *store.Rejection, f *store.RejectionFilter) bool {
	about := handlers.AboutRow(r.Action, r.Value)
	one := func(set bool, fits bool) bool { return !set || fits }
	fits := one(len(f.IDs) > 0, slices.Contains(f.IDs, r.ID)) && one(len(f.States) > 0, slices.Contains(f.States, r.State)) && one(f.Action != "", r.Action == f.Action) &&
		one(f.Sender != nil, f.Sender != nil && r.Sender == *f.Sender) && one(f.Topic != "", r.SourceTopic == f.Topic) &&
		one(f.Partition != nil, f.Partition != nil && r.Partition == *f.Partition) &&
		one(f.From != nil, f.From != nil && r.Offset >= *f.From) && one(f.To != nil, f.To != nil && r.Offset <= *f.To) &&
		one(!f.Since.IsZero(), !r.RejectedAt.Before(f.Since)) && one(!f.Until.IsZero(), r.RejectedAt.Before(f.Until)) && one(f.Job != 0, r.Job == f.Job) &&
		one(f.Learner != "", strings.EqualFold(about.Learner.Login, f.Learner) || strings.EqualFold(about.Learner.Email, f.Learner) || about.Learner.RefNumber == f.Learner) &&
		one(f.Teacher != "", strings.EqualFold(about.Teacher, f.Teacher))
	return fits && slices.ContainsFunc(r.Errors, func(e handlers.Error) bool { return modelError(r, &about, f, &e) })
}

func modelError(r *store.Rejection, about *handlers.About, f *store.RejectionFilter, e *handlers.Error) bool {
	fault := store.FaultOf(r.Action, e)
	value := e.Value
	if e.Code == handlers.NoRegistration {
		value = about.Registration
	}
	return (len(f.Groups) == 0 || slices.Contains(f.Groups, fault.Key())) && (len(f.Codes) == 0 || slices.Contains(f.Codes, e.Code)) &&
		(len(f.Fields) == 0 || slices.Contains(f.Fields, fault.Field)) && (f.Value == "" || f.Value == value)
}

// drawFilter draws a filter that is likely to mean something.
func drawFilter(rng *rand.Rand, all []store.Rejection) (f store.RejectionFilter) {
	r := &all[rng.IntN(len(all))]
	about := handlers.AboutRow(r.Action, r.Value)
	e := &r.Errors[rng.IntN(len(r.Errors))]
	for range 1 + rng.IntN(3) {
		switch rng.IntN(16) {
		case 0:
			f.IDs = []string{r.ID, all[rng.IntN(len(all))].ID, "no-0-1"}
		case 1:
			f.States = []store.RejectionState{r.State}
		case 2:
			f.States = []store.RejectionState{store.RejectionOpen, store.RejectionQuarantined}
		case 3:
			f.Action = r.Action
		case 4:
			f.Groups = []string{store.FaultOf(r.Action, e).Key()}
		case 5:
			f.Codes = []handlers.Code{e.Code, all[rng.IntN(len(all))].Errors[0].Code}
		case 6:
			f.Fields = []string{e.Field}
		case 7:
			f.Value = e.Value
		case 8:
			f.Value = about.Registration
		case 9:
			f.Sender = &r.Sender
		case 10:
			f.Learner = strings.ToUpper(about.Subject())
		case 11:
			f.Since = r.RejectedAt
		case 12:
			f.Until = r.RejectedAt
		case 13:
			f.Topic, f.Partition = r.SourceTopic, &r.Partition
		case 14:
			f.Topic, f.From, f.To = r.SourceTopic, new(int64), &r.Offset
		case 15:
			f.Teacher, f.Job = about.Teacher, r.Job
		}
	}
	if !f.Since.IsZero() && !f.Until.IsZero() {
		f.Until = time.Time{}
	}
	return f
}

// Whatever is asked for: the pages hold it, newest first, and so does the
// selection; the groups count it.
func TestRejectionFilters(t *testing.T) {
	w := newWorld(t)
	reject(w)
	w.exec(`UPDATE learnsink.rejection SET rejected_at = '2026-03-01T12:00:00Z'::timestamptz - source_offset / 2 * interval '1 minute'`)
	w.exec(`UPDATE learnsink.rejection SET state = (ARRAY['open', 'quarantined', 'resolved', 'archived'])[1 + source_offset % 4], job = nullif(source_offset % 3, 0)`)
	all := slices.Collect(func(yield func(store.Rejection) bool) {
		for r, err := range w.EachRejection(t.Context(), store.RejectionFilter{}) {
			if err != nil {
				t.Fatal(err)
			}
			if !yield(r) {
				return
			}
		}
	})
	if n := w.text(`SELECT count(*) FROM learnsink.rejection`); n != fmt.Sprintf("(%d)", len(all)) {
		t.Fatalf("%d of %s", len(all), n)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	found := 0
	for range 300 {
		f := drawFilter(rng, all)
		var want []string
		for i := range all {
			if model(&all[i], &f) {
				want = append(want, all[i].ID)
			}
		}
		var got []string
		for page := (store.Page{Limit: 1 + rng.IntN(9)}); ; {
			list, next, err := w.Rejections(t.Context(), f, page)
			if err != nil {
				t.Fatalf("%s: %v", f.Selection(), err)
			}
			for i := range list {
				got = append(got, list[i].ID)
			}
			if page.After = next; next == "" {
				break
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("%+v: -want +pages\n%s", f, diff)
		}
		selected, err := w.Selected(t.Context(), f)
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(want)
		slices.Sort(selected)
		if !slices.Equal(want, selected) {
			t.Fatalf("%+v: selected %v, want %v", f, selected, want)
		}
		groupsFit(t, w, all, f)
		found += len(want)
	}
	if found < 1000 {
		t.Errorf("the filters found %d rows only", found)
	}
}

// groupsFit holds groups against counting by hand.
func groupsFit(t *testing.T, w *world, all []store.Rejection, f store.RejectionFilter) {
	t.Helper()
	type counted struct {
		rows             int64
		subjects, values map[string]int64
		senders          map[string]int64
		first, last      time.Time
	}
	want := map[store.Fault]*counted{}
	for i := range all {
		r := &all[i]
		if !model(r, &f) {
			continue
		}
		about := handlers.AboutRow(r.Action, r.Value)
		for _, e := range r.Errors {
			if !modelError(r, &about, &f, &e) {
				continue
			}
			c := want[store.FaultOf(r.Action, &e)]
			if c == nil {
				c = &counted{subjects: map[string]int64{}, values: map[string]int64{}, senders: map[string]int64{}, first: r.RejectedAt, last: r.RejectedAt}
				want[store.FaultOf(r.Action, &e)] = c
			}
			c.rows++
			c.senders[r.Sender]++
			if s := about.Subject(); s != "" {
				c.subjects[s]++
			}
			value := e.Value
			if e.Code == handlers.NoRegistration {
				value = about.Registration
			}
			if value != "" {
				c.values[value]++
			}
			if r.RejectedAt.Before(c.first) {
				c.first = r.RejectedAt
			}
			if r.RejectedAt.After(c.last) {
				c.last = r.RejectedAt
			}
		}
	}
	groups, err := w.RejectionGroups(t.Context(), f, store.GroupOptions{Top: 50})
	if err != nil {
		t.Fatal(err)
	}
	if len(groups) != len(want) {
		t.Fatalf("%+v: %d groups, want %d", f, len(groups), len(want))
	}
	for i, g := range groups {
		c := want[g.Fault]
		if c == nil {
			t.Fatalf("%+v: no row has %+v", f, g.Fault)
		}
		shares := func(of []store.Share) map[string]int64 {
			m := map[string]int64{}
			for _, s := range of {
				m[s.Text] += s.Rows
			}
			return m
		}
		if g.Rows != c.rows || g.Subjects != int64(len(c.subjects)) || g.Distinct != int64(len(c.values)) || !g.First.Equal(c.first) || !g.Last.Equal(c.last) ||
			!maps.Equal(shares(g.Senders), c.senders) || !maps.Equal(shares(g.Values), c.values) {
			t.Fatalf("%+v: %+v, want %+v", f, g, c)
		}
		if i > 0 && groups[i-1].Rows < g.Rows {
			t.Fatalf("%+v: group %d is larger than the one before", f, i)
		}
	}
}

// plant puts n rejections into the tables, as a bad night leaves them: a few
// faults that have most of the rows, many learners and values, some senders.
func plant(w *world, n int) {
	w.t.Helper()
	w.exec(`ALTER TABLE learnsink.rejection DISABLE TRIGGER USER`)
	w.exec(`INSERT INTO learnsink.rejection (id, action, codes, errors, key, value, headers, source_topic, source_partition, source_offset, event_at, rejected_at, rules, sender, names, subject, registration)
		SELECT 'planted-' || i % 6 || '-' || i, 'tracking', ARRAY[e ->> 'code'], jsonb_build_array(e), convert_to('l' || l, 'UTF8'),
		  convert_to(format('{"candidateLogin":"l%s","lovGuid":"v%s","sessionGuid":"s%s","trackingStatus":"completed","timeSpent":%s,"progression":100}', l, v, v % 900, i), 'UTF8'),
		  '[{"key":"ce_id","value":"123456"}]', 'planted', i % 6, i, '2026-03-01T00:00:00Z', '2026-03-01T00:00:00Z'::timestamptz + i * interval '1 second', 'abc',
		  CASE WHEN i % 997 = 0 THEN 'rare' ELSE 'lms/' || i % 7 END, ARRAY[learnsink.digest('l' || l), learnsink.digest('sender' || chr(10) || CASE WHEN i % 997 = 0 THEN 'rare' ELSE 'lms/' || i % 7 END)], learnsink.digest('l' || l), learnsink.digest(format('candidateLogin l%s, sessionGuid s%s', l, v % 900))
		FROM (SELECT i, (i::bigint * 7919 % 200003)::integer AS l, (i::bigint * 104729 % (1 + i::bigint * 31 % 50021))::integer AS v FROM generate_series(1, $1::integer) i) g
		CROSS JOIN LATERAL (SELECT CASE
		  WHEN i % 10 < 4 THEN '{"code":"registration_not_found","message":"No registration found for given parameters."}'::jsonb
		  WHEN i % 10 < 7 THEN jsonb_build_object('code', 'lo_not_found', 'field', 'lovGuid', 'value', 'v' || v, 'message', 'Learning object version with guid [v' || v || '] is not found.')
		  ELSE jsonb_build_object('code', 'column_unknown', 'field', 'column' || i % 37, 'value', 'v' || v, 'message', 'Column [column' || i % 37 || '] is unknown.') END AS e) AS e`, n)
	w.exec(`INSERT INTO learnsink.fault SELECT DISTINCT f.fault, 'tracking', f.code, f.field, f.message FROM learnsink.rejection r
		CROSS JOIN LATERAL learnsink.faults_of(r.action, r.errors, r.registration) f WHERE r.source_topic = 'planted' AND r.source_offset < 4000 ON CONFLICT DO NOTHING`)
	w.exec(`INSERT INTO learnsink.rejection_fault (seq, fault, subject, value, sender, topic, rejected_at, partition, state)
		SELECT r.seq, f.fault, r.subject, f.value, learnsink.digest(r.sender), learnsink.digest(r.source_topic), r.rejected_at, r.source_partition, 'o'
		FROM learnsink.rejection r CROSS JOIN LATERAL learnsink.faults_of(r.action, r.errors, r.registration) f WHERE r.source_topic = 'planted'`)
	w.exec(`ALTER TABLE learnsink.rejection ENABLE TRIGGER USER`)
}

// A page is read off an index, wherever in a large table it lies: no table is
// scanned, and no more is sorted than the pages that it is put together of.
func TestPagesAreNotScanned(t *testing.T) {
	w := newWorld(t)
	const n = 60_000
	plant(w, n)
	w.exec(`ANALYZE`)
	group := strings.Trim(w.text(`SELECT lpad(to_hex(id), 12, '0') FROM learnsink.fault WHERE code = 'registration_not_found'`), "()")
	sender, rare, nobody, partition, from, to := "lms/3", "rare", "nobody", 2, int64(30_000), int64(30_100)
	open := []store.RejectionState{store.RejectionOpen, store.RejectionQuarantined}
	const limit = 50
	_, deep, err := w.Rejections(t.Context(), store.RejectionFilter{Until: time.Date(2026, 3, 1, 0, 0, n/2, 0, time.UTC)}, store.Page{Limit: limit})
	if err != nil || deep == "" {
		t.Fatal(deep, err)
	}
	for name, c := range map[string]struct {
		f    store.RejectionFilter
		rows int // that there are to find; at most a page
	}{
		"all":                    {store.RejectionFilter{}, limit},
		"state":                  {store.RejectionFilter{States: open}, limit},
		"a state without rows":   {store.RejectionFilter{States: []store.RejectionState{store.RejectionArchived}}, 0},
		"group":                  {store.RejectionFilter{States: open, Groups: []string{group}}, limit},
		"code of many faults":    {store.RejectionFilter{States: open, Codes: []handlers.Code{handlers.ColumnUnknown}}, limit},
		"field":                  {store.RejectionFilter{States: open, Fields: []string{"column3"}}, limit},
		"value":                  {store.RejectionFilter{States: open, Value: "v77"}, 1},
		"sender":                 {store.RejectionFilter{States: open, Sender: &sender}, limit},
		"a sender with few rows": {store.RejectionFilter{States: open, Sender: &rare}, limit},
		"a sender without rows":  {store.RejectionFilter{States: open, Sender: &nobody}, 0},
		"learner":                {store.RejectionFilter{States: open, Learner: "L7919"}, 1},
		"offsets":                {store.RejectionFilter{States: open, Topic: "planted", Partition: &partition, From: &from, To: &to}, 16},
		"partition":              {store.RejectionFilter{States: open, Topic: "planted", Partition: &partition}, limit},
		"group of a sender":      {store.RejectionFilter{States: open, Groups: []string{group}, Sender: &sender}, limit},
		"ids":                    {store.RejectionFilter{IDs: []string{"planted-1-1", "planted-2-2"}}, 2},
		"job":                    {store.RejectionFilter{Job: 7}, 0},
		"since":                  {store.RejectionFilter{States: open, Since: day}, limit / 2},
		"until":                  {store.RejectionFilter{States: open, Until: time.Date(2026, 3, 1, 0, 10, 0, 0, time.UTC)}, limit},
		"group since":            {store.RejectionFilter{States: open, Groups: []string{group}, Since: time.Date(2026, 3, 1, 16, 39, 0, 0, time.UTC)}, 20},
	} {
		t.Run(name, func(t *testing.T) {
			for _, after := range []string{"", deep} {
				query, args := store.ListQuery(t, w.Store, c.f, store.Page{Limit: limit, After: after})
				read, sorted := explain(t, w, query, args)
				if read > 50*limit || sorted > 50*limit {
					t.Errorf("after %q: a node of the plan reads %d rows, %d are sorted", after, read, sorted)
				}
			}
			list, _, err := w.Rejections(t.Context(), c.f, store.Page{Limit: limit})
			if err != nil || len(list) < c.rows || c.rows == 0 && len(list) > 0 {
				t.Errorf("%d rows, want %d; %v", len(list), c.rows, err)
			}
		})
	}
}

// explain runs a query of a page, and returns the most rows that any node of
// its plan has read (those that a filter took away included), and the most that
// one has sorted. A scan of a table fails the test.
func explain(t *testing.T, w *world, query string, args []any) (read, sorted int) {
	t.Helper()
	type node struct {
		Type     string  `json:"Node Type"`
		Relation string  `json:"Relation Name"`
		Rows     float64 `json:"Actual Rows"`
		Loops    float64 `json:"Actual Loops"`
		Filtered float64 `json:"Rows Removed by Filter"`
		Joined   float64 `json:"Rows Removed by Join Filter"`
		Recheck  float64 `json:"Rows Removed by Index Recheck"`
		Plans    []node
	}
	var plans []struct{ Plan node }
	err := pgx.BeginFunc(context.Background(), w.db, func(tx pgx.Tx) error {
		if _, err := tx.Exec(context.Background(), store.PlanPages); err != nil {
			return err
		}
		return tx.QueryRow(context.Background(), "EXPLAIN (ANALYZE, FORMAT JSON) "+query, args...).Scan(&plans)
	})
	if err != nil {
		t.Fatal(err)
	}
	var look func(n node)
	look = func(n node) {
		if n.Type == "Seq Scan" {
			t.Errorf("a Seq Scan of %s", n.Relation)
		}
		rows := int((n.Rows + n.Filtered + n.Joined + n.Recheck) * n.Loops)
		read = max(read, rows)
		for _, p := range n.Plans {
			if strings.Contains(n.Type, "Sort") {
				sorted = max(sorted, int(p.Rows*p.Loops))
			}
			look(p)
		}
	}
	look(plans[0].Plan)
	return read, sorted
}

func TestReleaseRejections(t *testing.T) {
	w := newWorld(t)
	reject(w)
	w.exec(`UPDATE learnsink.rejection SET state = 'quarantined', attempt = 5 WHERE source_offset < 3`)
	n, err := w.ReleaseRejections(t.Context(), store.RejectionFilter{Action: handlers.Tracking, Learner: "L1"}, store.Operator{Actor: "me", Why: "looked at"})
	if err != nil || n != 2 {
		t.Fatalf("%d, %v", n, err)
	}
	if got := w.text(`SELECT id, state, attempt FROM learnsink.rejection WHERE attempt = 5 ORDER BY 1`); got != `(learning.intervention-1-0,quarantined,5)
(learning.intervention-1-1,quarantined,5)
(learning.intervention-1-2,quarantined,5)
(learning.tracking-1-0,quarantined,5)
(learning.tracking-1-1,open,5)
(learning.tracking-1-2,open,5)` {
		t.Errorf("%s", got)
	}
	if got := w.text(`SELECT actor, verb, why, detail FROM learnsink.operation`); got != `(me,"dlq release","looked at","{""rows"": 2, ""selection"": {""action"": ""tracking"", ""states"": [""quarantined""], ""learner"": true}}")` {
		t.Errorf("%s", got)
	}
	if n, err := w.ReleaseRejections(t.Context(), store.RejectionFilter{Action: handlers.Tracking, Learner: "L1"}, store.Operator{}); n != 0 || err != nil {
		t.Errorf("again: %d, %v", n, err)
	}
	if got := w.text(`SELECT count(*) FROM learnsink.operation`); got != "(1)" {
		t.Errorf("%s operations", got)
	}
}

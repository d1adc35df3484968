package store_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"learnsink/handlers"
	"learnsink/store"
	"learnsink/store/catalogue"
	"learnsink/test/pgtest"
)

// folder writes catalogue files, given as name and text.
func folder(t *testing.T, files map[string]string) *catalogue.Folder {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	f, err := catalogue.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// small is a catalogue of every kind.
func small() map[string]string {
	return map[string]string{
		"learners.csv":         "login,refNumber,email,createdAt\nAnn,r1,Ann@x.org,2020-01-01T00:00:00Z\nbob,r2,,\ncy,r2,bob@x.org,2019-01-01T00:00:00Z\n",
		"learning_objects.csv": "guid,code,title,provider\nLO-1,c1,One,\nLO-2,c1,Two,easyquizz\n",
		"trainings.csv":        "id,guid,pathCode,title\n10,T-10,P10,Training\n11,t-10,P10,Same guid\n",
		"sessions.csv":         "id,guid,title,trainingId\n100,S-1,First,10\n101,s-1,Second,11\n",
		"registrations.csv":    "learnerLogin,learnerRefNumber,learnerEmail,sessionGuid,sessionId\nANN,,,s-1,\n,r2,,,101\n,,BOB@x.org,S-1,101\nbob,r2,,,100\n",
		"teachers.jsonl":       `{"login":"Tea"}` + "\n",
		"rooms.csv":            "guid,label,capacity\nR-1,Room,12\n",
	}
}

func load(t *testing.T, s *store.Store, files map[string]string, opt store.LoadOptions) (store.LoadReport, error) {
	t.Helper()
	return s.LoadCatalogue(t.Context(), folder(t, files), opt)
}

// brief is a report in a line: lines +added ~changed -pruned of every kind.
func brief(r store.LoadReport) string {
	var b strings.Builder
	for _, c := range r.Kinds {
		fmt.Fprintf(&b, "%s %d +%d ~%d -%d; ", c.Kind, c.Lines, c.Added, c.Changed, c.Pruned)
	}
	return strings.TrimSuffix(b.String(), "; ")
}

func TestLoadCatalogue(t *testing.T) {
	ctx := t.Context()
	t.Run("a folder is loaded, and again without effect", func(t *testing.T) {
		w := &world{t: t, url: pgtest.New(t)}
		w.Store = open(t, w.url)
		w.connect()
		if _, err := w.Facts(ctx, handlers.NewReferences()); !errors.Is(err, handlers.ErrNoCatalogue) {
			t.Fatalf("before any load: %v", err)
		}
		var steps []string
		report, err := load(t, w.Store, small(), store.LoadOptions{Step: func(s string) { steps = append(steps, s) }})
		if err != nil {
			t.Fatal(err)
		}
		if got, want := brief(report), "learners 3 +3 ~0 -0; learning_objects 2 +2 ~0 -0; trainings 2 +2 ~0 -0; sessions 2 +2 ~0 -0; registrations 4 +3 ~0 -0; teachers 1 +1 ~0 -0; rooms 1 +1 ~0 -0"; got != want {
			t.Errorf("report: %s\nwant %s", got, want)
		}
		if report.Version != 1 || len(steps) < 10 {
			t.Errorf("version %d, steps %q", report.Version, steps)
		}
		got := w.text(`SELECT login, session_id FROM learnsink.registration r JOIN learnsink.learner l ON l.id = learner_id ORDER BY 1, 2`)
		if want := "(Ann,100)\n(bob,100)\n(cy,101)"; got != want {
			t.Errorf("registrations: %s", got)
		}
		dump := func() string {
			return w.text(`SELECT (SELECT jsonb_agg(l ORDER BY id) FROM learnsink.learner l), (SELECT jsonb_agg(l ORDER BY id) FROM learnsink.registration l),
				(SELECT jsonb_agg(l ORDER BY id) FROM learnsink.learning_object l), (SELECT jsonb_agg(l ORDER BY id) FROM learnsink.session l)`)
		}
		before := dump()
		if report, err = load(t, w.Store, small(), store.LoadOptions{}); err != nil {
			t.Fatal(err)
		}
		if got, want := brief(report), "learners 3 +0 ~0 -0; learning_objects 2 +0 ~0 -0; trainings 2 +0 ~0 -0; sessions 2 +0 ~0 -0; registrations 4 +0 ~0 -0; teachers 1 +0 ~0 -0; rooms 1 +0 ~0 -0"; got != want || report.Version != 2 {
			t.Errorf("the second time, version %d: %s", report.Version, got)
		}
		if dump() != before {
			t.Error("the second load changed the tables")
		}
		changed := small()
		changed["learners.csv"] = "login,refNumber,email,createdAt\nANN,,,\nnew,,,\nann,r9,a@x.org,\n" // the later line holds
		changed["rooms.csv"] = "guid,label\nr-1,Renamed\n"
		if report, err = load(t, w.Store, changed, store.LoadOptions{}); err != nil {
			t.Fatal(err)
		}
		if got := w.text(`SELECT login, ref_number, email, created_at FROM learnsink.learner ORDER BY login COLLATE "C"`); !strings.HasPrefix(got, "(ann,r9,a@x.org,)") {
			t.Errorf("learners: %s", got)
		}
		if got := w.text(`SELECT guid, label, capacity FROM learnsink.room`); got != "(r-1,Renamed,12)" {
			t.Errorf("room: %s", got)
		}
		status, err := w.CatalogueStatus(ctx)
		if err != nil || status.Version != 3 || !status.LoadedAt.OK || fmt.Sprint(status.Counts) != "[{learners 4} {learning_objects 2} {trainings 2} {sessions 2} {registrations 3} {teachers 1} {rooms 1}]" {
			t.Errorf("status: %+v, %v", status, err)
		}
	})

	t.Run("times, numbers and texts arrive as they are", func(t *testing.T) {
		w := newWorld(t)
		if _, err := load(t, w.Store, map[string]string{
			"learners.csv": "login,createdAt\na,0001-01-01\nb,1969-12-31T23:59:59.999999Z\nc,9999-12-31T23:59:59.999999Z\nd,\nÉ,2000-01-01\n",
			"rooms.csv":    "guid,label,capacity\nx,\"a,\nb\",2147483647\ny,\"say \"\"hi\"\"\",0\n",
		}, store.LoadOptions{}); err != nil {
			t.Fatal(err)
		}
		if got, want := w.text(`SELECT login_folded, created_at AT TIME ZONE 'UTC' FROM learnsink.learner WHERE login_folded !~ '^l' ORDER BY 1`),
			"(a,\"0001-01-01 00:00:00\")\n(b,\"1969-12-31 23:59:59.999999\")\n(c,\"9999-12-31 23:59:59.999999\")\n(d,)\n(é,\"2000-01-01 00:00:00\")"; got != want {
			t.Errorf("learners: %s\nwant %s", got, want)
		}
		if got, want := w.text(`SELECT label, capacity FROM learnsink.room WHERE guid IN ('x', 'y') ORDER BY guid`), "(\"a,\nb\",2147483647)\n(\"say \"\"hi\"\"\",0)"; got != want {
			t.Errorf("rooms: %s\nwant %s", got, want)
		}
	})

	t.Run("every bad line is named, and none is loaded unless asked for", func(t *testing.T) {
		w := newWorld(t)
		files := small()
		files["learners.csv"] += "x,y\n"
		files["sessions.csv"] += "102,S-2,Third,99\n"
		files["registrations.csv"] += "nobody,,,s-9,\nann,r2,,,100\nann,,,S-1,77\n"
		before := w.text(`SELECT (SELECT count(*) FROM learnsink.learner), (SELECT version FROM learnsink.catalogue_version)`)
		report, err := load(t, w.Store, files, store.LoadOptions{})
		if !errors.Is(err, store.ErrBadLines) || report.Version != 0 {
			t.Fatalf("version %d, %v", report.Version, err)
		}
		var bad []string
		for _, b := range report.Bad {
			bad = append(bad, strings.Replace(b.String(), filepath.Dir(b.File)+"/", "", 1))
		}
		want := []string{
			bad[0], // the reader's own words
			"sessions.csv:4: there is no training with id 99",
			"registrations.csv:6: no session fits sessionGuid and sessionId; no learner fits learnerLogin, learnerRefNumber and learnerEmail",
			"registrations.csv:7: no learner fits learnerLogin, learnerRefNumber and learnerEmail",
			"registrations.csv:8: no session fits sessionGuid and sessionId",
		}
		if !slices.Equal(bad, want) || !strings.HasPrefix(bad[0], "learners.csv:5: ") {
			t.Errorf("bad lines: %q\nwant %q", bad, want)
		}
		if after := w.text(`SELECT (SELECT count(*) FROM learnsink.learner), (SELECT version FROM learnsink.catalogue_version)`); after != before {
			t.Errorf("something was loaded: %s, was %s", after, before)
		}
		if report, err = load(t, w.Store, files, store.LoadOptions{SkipBad: true}); err != nil || len(report.Bad) != 5 || report.Kinds[4].Lines != 4 {
			t.Errorf("the rest: %+v, %v", report, err)
		}
		if _, err := load(t, w.Store, files, store.LoadOptions{SkipBad: true, Prune: true, MaxPrune: 1000}); !errors.Is(err, store.ErrPrune) {
			t.Errorf("a prune by files with bad lines: %v", err)
		}
	})

	t.Run("a prune is shown, limited, and spares what is referred to", func(t *testing.T) {
		w := newWorld(t)
		src := source(t, handlers.Tracking)
		w.claim(w.Store, src, 0).apply(track(src, 0, day, 1, 1), track(src, 1, day, 2, 2, "trackingStatus", "notAttempted"))
		ivs := source(t, handlers.Intervention)
		w.claim(w.Store, ivs, 0).apply(intervene(ivs, 0, day, "I1", "R7"))
		counts := func() string {
			return w.text(`SELECT (SELECT count(*) FROM learnsink.learner), (SELECT count(*) FROM learnsink.learning_object), (SELECT count(*) FROM learnsink.training),
				(SELECT count(*) FROM learnsink.session), (SELECT count(*) FROM learnsink.registration), (SELECT count(*) FROM learnsink.teacher), (SELECT count(*) FROM learnsink.room)`)
		}
		before := counts()
		if before != "(10,10,1,2,20,2,2)" {
			t.Fatal(before)
		}
		files := map[string]string{
			"learners.csv": "login\nL0\n", "learning_objects.csv": "guid\nO0\n", "trainings.csv": "id\n12\n", "sessions.csv": "id,trainingId\n100,10\n",
			"registrations.csv": "learnerLogin,sessionId\nL0,100\n", "teachers.csv": "login\nT9\n", "rooms.csv": "guid\nR5\n",
		}
		if _, err := load(t, w.Store, map[string]string{"trainings.csv": "id\n10\n"}, store.LoadOptions{}); err != nil {
			t.Fatal(err)
		}
		report, err := load(t, w.Store, files, store.LoadOptions{Prune: true})
		if err != nil {
			t.Fatal(err)
		}
		want := "learners 1 +0 ~0 -7; learning_objects 1 +0 ~0 -7; trainings 1 +1 ~0 -0; sessions 1 +0 ~1 -1; registrations 1 +0 ~0 -17; teachers 1 +1 ~0 -1; rooms 1 +1 ~0 -1"
		if got := brief(report); got != want {
			t.Errorf("shown: %s\nwant   %s", got, want)
		}
		if got := counts(); got != "(10,10,2,2,20,3,3)" {
			t.Errorf("showing removed something: %s", got)
		}
		if len(report.Kinds[0].Examples) != 7 || report.Kinds[0].Examples[0] == "" || len(report.Kinds[4].Examples) != 10 {
			t.Errorf("examples: %+v", report.Kinds)
		}
		if _, err := load(t, w.Store, files, store.LoadOptions{Prune: true, Execute: true}); !errors.Is(err, store.ErrPrune) || !strings.Contains(err.Error(), "17 of 20 registrations") {
			t.Errorf("more than 5 %%: %v", err)
		}
		if got := counts(); got != "(10,10,2,2,20,3,3)" {
			t.Errorf("a refused prune removed something: %s", got)
		}
		if _, err := load(t, w.Store, files, store.LoadOptions{Prune: true, Execute: true, MaxPrune: 17}); err != nil {
			t.Fatal(err)
		}
		if got := counts(); got != "(3,3,2,1,3,2,2)" {
			t.Errorf("after the prune: %s", got)
		}
		if got := w.text(`SELECT count(*) FROM learnsink.tracking_report`); got != "(1)" {
			t.Errorf("the report lost a row: %s", got)
		}
		w.audit()
	})

	t.Run("a load waits for a batch under way, and the next one is decided again", func(t *testing.T) {
		w := newWorld(t)
		src := source(t, handlers.Tracking)
		o := w.claim(w.Store, src, 0)
		b := o.batch(track(src, 0, day, 1, 1))
		loaded := make(chan error, 1)
		encode := b.Encode
		b.Encode = func(ds []handlers.Decision) ([]byte, error) { // within the transaction
			reached := make(chan struct{})
			go func() {
				_, err := w.LoadCatalogue(context.Background(), folder(t, map[string]string{"teachers.csv": "login\nnew\n"}),
					store.LoadOptions{Step: func(s string) {
						if strings.HasPrefix(s, "waiting") {
							close(reached)
						}
					}})
				loaded <- err
			}()
			<-reached
			return encode(ds)
		}
		next := o.batch(track(src, 1, day, 1, 1))
		next.From = 1
		if err := w.Apply(ctx, b); err != nil {
			t.Fatal(err)
		}
		if err := <-loaded; err != nil {
			t.Fatal(err)
		}
		if err := w.Apply(ctx, next); !errors.Is(err, handlers.ErrStaleFacts) {
			t.Errorf("decided by the catalogue before: %v", err)
		}
		o.NextOffset = 1
		o.apply(track(src, 1, day, 1, 1))
	})
}

// Who applies nothing is not told of a load, and asks by FactsNow: Facts still
// answers by what it remembers, which apply would refuse.
func TestFactsNow(t *testing.T) {
	w := newWorld(t)
	ref := handlers.LearnerRef{Login: "l1"}
	registrations := func(ask func(context.Context, *handlers.References) (*handlers.Facts, error)) int {
		t.Helper()
		f, err := ask(t.Context(), &handlers.References{Learners: map[handlers.LearnerRef]struct{}{ref: {}}})
		if err != nil {
			t.Fatal(err)
		}
		return len(f.Registrations[f.Learners[ref]])
	}
	if remembered, now := registrations(w.Facts), registrations(w.FactsNow); remembered != 2 || now != 2 {
		t.Fatalf("%d and %d registrations, 2 there are", remembered, now)
	}
	w.exec(`DELETE FROM learnsink.registration WHERE session_id = 101`)
	w.exec(`UPDATE learnsink.catalogue_version SET version = 2, loaded_at = now()`)
	if remembered, now := registrations(w.Facts), registrations(w.FactsNow); remembered != 2 || now != 1 {
		t.Errorf("%d registrations are remembered, 2 were; %d there are now, not 1", remembered, now)
	}
	w.exec(`UPDATE learnsink.catalogue_version SET loaded_at = NULL`)
	if _, err := w.FactsNow(t.Context(), handlers.NewReferences()); !errors.Is(err, handlers.ErrNoCatalogue) {
		t.Errorf("without a catalogue: %v", err)
	}
}

// TestFactsConform holds the database's answers against those of the catalogue
// in memory, on random catalogues that share everything that may be shared.
func TestFactsConform(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	some := func(n int, prefix string) string { // often absent, often shared, in any case
		s := fmt.Sprintf("%s%d", prefix, rng.IntN(n))
		switch rng.IntN(4) {
		case 0:
			return ""
		case 1:
			return strings.ToUpper(s)
		}
		return s
	}
	kinds := map[handlers.ContextFound]int{}
	for round := range 4 {
		onlyLogins, onlyGUIDs := round%2 == 1, round >= 2 // registrations are resolved in other ways then
		files := map[string]string{}
		line := func(file, format string, args ...any) { files[file] += fmt.Sprintf(format+"\n", args...) }
		line("learners.csv", "login,refNumber,email,createdAt")
		line("learning_objects.csv", "guid,code,title,provider")
		line("trainings.csv", "id,guid,pathCode,title")
		line("sessions.csv", "id,guid,title,trainingId")
		line("registrations.csv", "learnerLogin,learnerRefNumber,learnerEmail,sessionGuid,sessionId")
		line("teachers.csv", "login")
		for i := range 30 {
			created := ""
			if rng.IntN(3) > 0 {
				created = day.AddDate(0, 0, rng.IntN(3)).Format(time.RFC3339)
			}
			line("learners.csv", "%s%d,%s,%s,%s", []string{"ß", "K", "ſ", "login"}[rng.IntN(4)], i, some(6, "ref"), some(6, "mail@é"), created)
		}
		for i := range 8 {
			line("learning_objects.csv", "%s%d,%s,,%s", []string{"g", "G"}[rng.IntN(2)], i, some(3, "code"), []string{"", "easyquizz"}[rng.IntN(2)])
			line("trainings.csv", "%d,%s,%s,", i+1, some(4, "tg"), some(4, "path"))
			line("teachers.csv", "%s", "t"+fmt.Sprint(rng.IntN(6)))
		}
		for i := range 20 {
			line("sessions.csv", "%d,%s,%s,%d", i+1, some(6, "sg"), some(6, "title"), 1+rng.IntN(9)) // 9: no such training
		}
		for range 80 {
			login, ref, email, id := "", some(6, "ref"), some(6, "mail@é"), ""
			if rng.IntN(2) == 0 {
				login = fmt.Sprintf("login%d", rng.IntN(30))
				if onlyLogins {
					ref, email = "", ""
				}
			}
			if rng.IntN(2) == 0 && !onlyGUIDs {
				id = fmt.Sprint(1 + rng.IntN(22))
			}
			line("registrations.csv", "%s,%s,%s,%s,%s", login, ref, email, some(6, "sg"), id)
		}

		memory, bad, err := catalogue.LoadMemory(folder(t, files))
		if err != nil {
			t.Fatal(err)
		}
		url := pgtest.New(t)
		s := open(t, url)
		report, err := load(t, s, files, store.LoadOptions{SkipBad: true})
		if err != nil {
			t.Fatal(err)
		}
		whys := func(bad []catalogue.BadLine) (all []string) {
			for _, b := range bad {
				all = append(all, fmt.Sprint(filepath.Base(b.File), ":", b.Number, ": ", b.Why))
			}
			return all
		}
		if diff := cmp.Diff(whys(bad), whys(report.Bad)); diff != "" {
			t.Errorf("bad lines (-memory +database, seed %d):\n%s", seed, diff)
		}

		refs := handlers.NewReferences()
		for i := range 30 {
			for _, prefix := range []string{"ß", "K", "ſ", "login"} {
				refs.Learners[handlers.LearnerRef{Login: handlers.Fold(fmt.Sprint(prefix, i))}] = struct{}{}
			}
		}
		for range 200 {
			ref := handlers.LearnerRef{RefNumber: some(7, "ref"), Email: handlers.Fold(some(7, "mail@é"))}
			if rng.IntN(2) == 0 {
				ref.Login = fmt.Sprintf("login%d", rng.IntN(31))
			}
			if ref != (handlers.LearnerRef{}) {
				refs.Learners[ref] = struct{}{}
			}
		}
		for i := range 10 {
			refs.LearningObjectGUIDs[fmt.Sprint("g", i)] = struct{}{}
			refs.LearningObjectCodes[fmt.Sprint("code", i)] = struct{}{}
			refs.TrainingGUIDs[fmt.Sprint("tg", i)] = struct{}{}
			refs.TrainingPathCodes[fmt.Sprint("path", i)] = struct{}{}
			refs.SessionGUIDs[fmt.Sprint("sg", i/2)] = struct{}{}
			refs.SessionTitles[fmt.Sprint("title", i/3)] = struct{}{}
			refs.Teachers[fmt.Sprint("t", i)] = struct{}{}
		}
		for range 300 {
			c := handlers.Context{SessionGUID: handlers.Fold(some(7, "sg")), SessionTitle: some(7, "title"), TrainingPathCode: some(6, "path")}
			if rng.IntN(3) == 0 {
				c.SessionID = int64(rng.IntN(12))
			}
			if rng.IntN(3) == 0 {
				c.TrainingID = int64(rng.IntN(12))
			}
			if c.SessionGUID != "" || c.SessionTitle != "" || c.SessionID != 0 {
				refs.Contexts[c] = struct{}{}
			}
		}
		got, err := s.Facts(t.Context(), refs)
		if err != nil {
			t.Fatal(err)
		}
		// However it is remembered, the answers are the same, ids and all.
		remembered := func(how string, s *store.Store) {
			t.Helper()
			again, err := s.Facts(t.Context(), refs)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(got, again, cmpopts.EquateEmpty()); diff != "" {
				t.Fatalf("facts %s (-asked +remembered, seed %d):\n%s", how, seed, diff)
			}
		}
		remembered("asked twice", s)
		half := handlers.NewReferences()
		for ref := range refs.Learners {
			if rng.IntN(2) == 0 {
				half.Learners[ref] = struct{}{}
			}
		}
		for guid := range refs.LearningObjectGUIDs {
			half.LearningObjectGUIDs[guid] = struct{}{}
			break
		}
		halves := open(t, url)
		if _, err := halves.Facts(t.Context(), half); err != nil {
			t.Fatal(err)
		}
		remembered("half known", halves)
		whole := open(t, url)
		store.ReadWhole(t, whole)
		remembered("of a catalogue read at once", whole)
		store.Age(whole)
		remembered("of the old generation", whole)
		store.Age(s)
		remembered("of the old generation alone", s)

		want := memory.Facts(refs)
		normal(got)
		normal(want)
		if len(want.Learners) < 30 || len(want.Registrations) == 0 || len(want.Sessions) == 0 {
			t.Fatalf("the catalogue says too little to test by: %d learners", len(want.Learners))
		}
		for _, found := range want.Contexts {
			kinds[found]++
		}
		if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("facts (-memory +database, seed %d):\n%s", seed, diff)
		}
	}
	if len(kinds) < 4 {
		t.Fatalf("the contexts say too little to test by: %v", kinds)
	}
}

// normal gives the things of facts ids that do not depend on who gave them:
// a learner's is his place among the folded logins, a registration has none.
func normal(f *handlers.Facts) {
	f.Version = 0
	var logins []string
	for ref := range f.Learners {
		if ref.RefNumber == "" && ref.Email == "" {
			logins = append(logins, ref.Login)
		}
	}
	slices.Sort(logins)
	ids := map[int64]int64{}
	for i, login := range logins {
		ids[f.Learners[handlers.LearnerRef{Login: login}]] = int64(i + 1)
	}
	for ref, id := range f.Learners {
		f.Learners[ref] = ids[id]
	}
	registrations := map[int64][]handlers.Registration{}
	for id, regs := range f.Registrations {
		for i := range regs {
			regs[i].ID = 0
		}
		if len(regs) > 0 {
			registrations[ids[id]] = regs
		}
	}
	f.Registrations = registrations
	for _, objects := range []map[string]handlers.LearningObject{f.LearningObjectsByGUID, f.LearningObjectsByCode} {
		for key, o := range objects {
			o.ID = 0
			objects[key] = o
		}
	}
	for id, sessions := range f.Sessions {
		if len(sessions) == 0 {
			delete(f.Sessions, id)
		}
	}
	for login := range f.Teachers {
		f.Teachers[login] = 0
	}
}

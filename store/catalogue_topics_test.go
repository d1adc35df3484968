package store_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"learnsink/handlers"
	"learnsink/store"
	"learnsink/store/catalogue"
	"learnsink/test/pgtest"
)

// topics are the catalogue topics as they lie in Kafka, and how far each
// partition has been read.
type topics struct {
	w    *world
	logs map[handlers.TopicPartition][]handlers.Record
	next map[handlers.TopicPartition]int64
}

// newTopics makes empty topics of so many partitions over an empty database.
func newTopics(t testing.TB, partitions int) *topics {
	t.Helper()
	w := &world{t: t, url: pgtest.New(t)}
	w.Store = open(t, w.url)
	w.connect()
	k := &topics{w: w, logs: map[handlers.TopicPartition][]handlers.Record{}, next: map[handlers.TopicPartition]int64{}}
	for _, kind := range catalogue.Kinds() {
		for p := range partitions {
			k.logs[handlers.TopicPartition{Topic: topicOf(kind), Partition: p}] = nil
		}
	}
	return k
}

func topicOf(kind catalogue.Kind) string { return "learning.catalog." + string(kind) }

func topicNames() (names []string) {
	for _, kind := range catalogue.Kinds() {
		names = append(names, topicOf(kind))
	}
	return names
}

// say appends a record; value "" is a tombstone.
func (k *topics) say(kind catalogue.Kind, key, value string) {
	partitions := len(k.logs) / len(catalogue.Kinds())
	hash := fnv.New32a()
	hash.Write([]byte(key))
	tp := handlers.TopicPartition{Topic: topicOf(kind), Partition: int(hash.Sum32()) % partitions}
	r := handlers.Record{Topic: tp.Topic, Partition: tp.Partition, Offset: int64(len(k.logs[tp])), Timestamp: day, Key: []byte(key)}
	if value != "" {
		r.Value = []byte(value)
	}
	k.logs[tp] = append(k.logs[tp], r)
}

// begin notes the topics as they are.
func (k *topics) begin() {
	k.w.t.Helper()
	var positions []handlers.CataloguePosition
	for tp, log := range k.logs {
		positions = append(positions, handlers.CataloguePosition{TopicPartition: tp, ClusterID: clusterID, FirstEnd: int64(len(log))})
	}
	if err := k.w.BeginCatalogue(k.w.t.Context(), positions); err != nil {
		k.w.t.Fatal(err)
	}
}

// chunk is what lies between two offsets.
func (k *topics) chunk(tp handlers.TopicPartition, from, to int64) handlers.CatalogueChunk {
	return handlers.CatalogueChunk{TopicPartition: tp, Kind: strings.TrimPrefix(tp.Topic, "learning.catalog."), From: from, To: to, Records: k.logs[tp][from:to]}
}

// apply applies chunks and moves on.
func (k *topics) apply(chunks ...handlers.CatalogueChunk) handlers.CatalogueOutcome {
	k.w.t.Helper()
	out, err := k.w.ApplyCatalogue(k.w.t.Context(), topicNames(), chunks)
	if err != nil {
		k.w.t.Fatal(err)
	}
	for _, c := range chunks {
		k.next[c.TopicPartition] = c.To
	}
	return out
}

// read reads all that is there, as one batch.
func (k *topics) read() handlers.CatalogueOutcome {
	k.w.t.Helper()
	var chunks []handlers.CatalogueChunk
	for tp, log := range k.logs {
		if n := int64(len(log)); n > k.next[tp] {
			chunks = append(chunks, k.chunk(tp, k.next[tp], n))
		}
	}
	return k.apply(chunks...)
}

// again reads a partition from its start.
func (k *topics) again(tp handlers.TopicPartition) {
	k.w.t.Helper()
	p := handlers.CataloguePosition{TopicPartition: tp, NextOffset: k.next[tp]}
	if err := k.w.RereadCatalogue(k.w.t.Context(), p, clusterID, 0, "a test"); err != nil {
		k.w.t.Fatal(err)
	}
	k.next[tp] = 0
}

// entries are all of a catalogue, by what it is known outside.
func (w *world) entries() string {
	w.t.Helper()
	return w.text(`SELECT * FROM (
		SELECT 1, (to_jsonb(t) - 'id')::text FROM learnsink.learner t
		UNION ALL SELECT 2, (to_jsonb(t) - 'id')::text FROM learnsink.learning_object t
		UNION ALL SELECT 3, to_jsonb(t)::text FROM learnsink.training t
		UNION ALL SELECT 4, to_jsonb(t)::text FROM learnsink.session t
		UNION ALL SELECT 5, login_folded || ' in ' || session_id FROM learnsink.registration JOIN learnsink.learner l ON l.id = learner_id
		UNION ALL SELECT 6, (to_jsonb(t) - 'id')::text FROM learnsink.teacher t
		UNION ALL SELECT 7, to_jsonb(t)::text FROM learnsink.room t) a ORDER BY 1, 2`)
}

// waiting is all that is between the topics and the catalogue.
func (w *world) waiting() string {
	return w.text(`SELECT 'session', id::text FROM learnsink.catalogue_waiting_session UNION ALL
		SELECT 'registration', concat_ws(' ', login, ref, email, session_guid, session_id) FROM learnsink.catalogue_waiting_registration UNION ALL
		SELECT 'tombstone', kind || ' ' || thing FROM learnsink.catalogue_tombstone ORDER BY 1, 2`)
}

// story is what a platform says over time: for every kind entries that come,
// change, go and come again. What is left at the end refers to nothing that is
// not there; on the way it may.
type story struct {
	rng   *rand.Rand
	facts map[catalogue.Kind]map[string]string // key -> value
	say   func(kind catalogue.Kind, key, value string)
}

func (s *story) put(kind catalogue.Kind, key string, value map[string]any) {
	text, err := json.Marshal(value)
	if err != nil {
		panic(err)
	}
	if s.facts[kind] == nil {
		s.facts[kind] = map[string]string{}
	}
	s.facts[kind][key] = string(text)
	s.say(kind, key, string(text))
}

func (s *story) drop(kind catalogue.Kind, key string) {
	delete(s.facts[kind], key)
	s.say(kind, key, "")
}

const people, lessons = 6, 5

// step says one thing.
func (s *story) step() {
	i := s.rng.IntN(people)
	switch s.rng.IntN(10) {
	case 0, 1:
		s.learner(i)
	case 2:
		s.drop(catalogue.Learners, fmt.Sprintf("L%d", i))
	case 3:
		s.training(10 + s.rng.IntN(3))
	case 4:
		s.session(100 + s.rng.IntN(lessons))
	case 5, 6:
		s.registration(i, 100+s.rng.IntN(lessons))
	case 7:
		key := registrationKey(i, 100+s.rng.IntN(lessons))
		s.drop(catalogue.Registrations, key)
	case 8:
		key := fmt.Sprintf("o-%d", i)
		if s.rng.IntN(3) == 0 {
			s.drop(catalogue.LearningObjects, key)
		} else {
			s.put(catalogue.LearningObjects, key, map[string]any{"guid": key, "code": s.rng.IntN(3), "provider": []any{nil, "easyquizz"}[s.rng.IntN(2)]})
		}
		if s.rng.IntN(3) == 0 {
			s.drop(catalogue.Teachers, "T"+key)
		} else {
			s.put(catalogue.Teachers, "T"+key, map[string]any{"login": "t" + key})
		}
		switch s.rng.IntN(3) {
		case 0:
			s.drop(catalogue.Rooms, key)
		case 1:
			s.put(catalogue.Rooms, key, map[string]any{"guid": key, "label": s.rng.IntN(9)})
		default:
			s.put(catalogue.Rooms, key, map[string]any{"guid": key, "capacity": s.rng.IntN(9)})
		}
	case 9:
		if s.rng.IntN(2) == 0 {
			s.drop(catalogue.Sessions, fmt.Sprint(100+s.rng.IntN(lessons)))
		} else {
			s.drop(catalogue.Trainings, fmt.Sprint(10+s.rng.IntN(3)))
		}
	}
}

func (s *story) learner(i int) {
	s.put(catalogue.Learners, fmt.Sprintf("L%d", i), map[string]any{"login": fmt.Sprintf("l%d", i), "refNumber": fmt.Sprintf("r%d", i),
		"email": fmt.Sprintf("E%d@x.org", i), "createdAt": fmt.Sprintf("20%02d-01-01", 10+s.rng.IntN(9))})
}

func (s *story) training(id int) {
	s.put(catalogue.Trainings, fmt.Sprint(id), map[string]any{"id": id, "guid": fmt.Sprintf("t-%d", id), "title": fmt.Sprint(s.rng.IntN(9))})
}

func (s *story) session(id int) {
	s.put(catalogue.Sessions, fmt.Sprint(id), map[string]any{"id": id, "guid": fmt.Sprintf("S-%d", id), "title": fmt.Sprint(s.rng.IntN(9)), "trainingId": 10 + s.rng.IntN(3)})
}

// registrationKey names each registration in a way of its own.
func registrationKey(learner, session int) string {
	who := []string{fmt.Sprintf(`"learnerLogin":"l%d"`, learner), fmt.Sprintf(`"learnerRefNumber":"r%d"`, learner), fmt.Sprintf(`"learnerEmail":"e%d@X.org"`, learner)}[(learner+session)%3]
	where := []string{fmt.Sprintf(`"sessionId":%d`, session), fmt.Sprintf(`"sessionGuid":"s-%d"`, session)}[(learner+session)%2]
	return "{" + who + "," + where + "}"
}

func (s *story) registration(learner, session int) {
	key := registrationKey(learner, session)
	var value map[string]any
	if err := json.Unmarshal([]byte(key), &value); err != nil {
		panic(err)
	}
	s.put(catalogue.Registrations, key, value)
}

// close has the last word: nothing that is left refers to what is not there.
func (s *story) close() {
	has := func(kind catalogue.Kind, key string) bool { _, ok := s.facts[kind][key]; return ok }
	for id := range lessons {
		key := fmt.Sprint(100 + id)
		var of struct{ TrainingID int }
		if has(catalogue.Sessions, key) && json.Unmarshal([]byte(s.facts[catalogue.Sessions][key]), &of) == nil && !has(catalogue.Trainings, fmt.Sprint(of.TrainingID)) {
			if s.rng.IntN(2) == 0 {
				s.training(of.TrainingID)
			} else {
				s.drop(catalogue.Sessions, key)
			}
		}
	}
	for l := range people {
		for id := range lessons {
			key := registrationKey(l, 100+id)
			if has(catalogue.Registrations, key) && (!has(catalogue.Learners, fmt.Sprintf("L%d", l)) || !has(catalogue.Sessions, fmt.Sprint(100+id))) {
				s.drop(catalogue.Registrations, key)
			}
		}
	}
}

// files are the facts as catalogue files.
func (s *story) files() map[string]string {
	files := map[string]string{}
	for kind, facts := range s.facts {
		for _, key := range slices.Sorted(maps.Keys(facts)) {
			files[string(kind)+".jsonl"] += facts[key] + "\n"
		}
	}
	return files
}

// Whatever is read first and however it is cut into batches, and were any of
// it read twice: at the end stands what a load of the same facts from files
// makes of an empty database, and nothing is left waiting.
func TestCatalogueTopicsEqualFiles(t *testing.T) {
	for seed := range uint64(5) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 6))
			k := newTopics(t, 2)
			s := &story{rng, map[catalogue.Kind]map[string]string{}, k.say}
			for range 120 {
				s.step()
			}
			s.close()
			k.begin()
			parts := slices.SortedFunc(maps.Keys(k.logs), func(a, b handlers.TopicPartition) int {
				return strings.Compare(fmt.Sprint(a), fmt.Sprint(b))
			})
			rereads := 0
			for left := true; left; {
				left = false
				var chunks []handlers.CatalogueChunk
				for _, tp := range parts {
					end := int64(len(k.logs[tp]))
					if k.next[tp] < end {
						left = true
						if rng.IntN(2) == 0 {
							chunks = append(chunks, k.chunk(tp, k.next[tp], k.next[tp]+1+rng.Int64N(min(20, end-k.next[tp]))))
						}
					}
				}
				k.apply(chunks...)
				switch rng.IntN(12) {
				case 0:
					if _, err := k.w.SweepCatalogue(t.Context(), false); err != nil {
						t.Fatal(err)
					}
				case 1:
					if rereads++; rereads < 4 {
						k.again(parts[rng.IntN(len(parts))])
					}
				}
			}
			if _, err := k.w.SweepCatalogue(t.Context(), false); err != nil {
				t.Fatal(err)
			}
			if waiting := k.w.waiting(); waiting != "" {
				t.Errorf("left between topics and catalogue: %s", waiting)
			}
			if ready, err := k.w.CatalogueReady(t.Context()); !ready || err != nil {
				t.Errorf("every topic is read, but the catalogue is not there: %v", err)
			}

			other := &world{t: t, url: pgtest.New(t)}
			other.Store = open(t, other.url)
			other.connect()
			if _, err := load(t, other.Store, s.files(), store.LoadOptions{}); err != nil {
				t.Fatal(err)
			}
			want := other.entries()
			if diff := cmp.Diff(want, k.w.entries()); diff != "" {
				t.Errorf("files (-) and topics (+):\n%s", diff)
			}
			if strings.Count(want, "\n") < 8 {
				t.Errorf("a story of next to nothing: %s", want)
			}

			// All of it once more changes nothing, at the end of each topic.
			for _, tp := range parts {
				k.again(tp)
			}
			k.read()
			if _, err := k.w.SweepCatalogue(t.Context(), false); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, k.w.entries()); diff != "" {
				t.Errorf("read again:\n%s", diff)
			}
		})
	}
}

// seed says a catalogue of one of each.
func (k *topics) seed() {
	k.say(catalogue.Learners, "ann", `{"login":"Ann","email":"ann@x.org"}`)
	k.say(catalogue.LearningObjects, "o1", `{"guid":"O1","code":"C1"}`)
	k.say(catalogue.Trainings, "10", `{"id":10,"guid":"t-10"}`)
	k.say(catalogue.Sessions, "100", `{"id":100,"trainingId":10,"guid":"s-100"}`)
	k.say(catalogue.Registrations, `{"learnerLogin":"ANN","sessionId":100}`, `{"sessionId":100,"learnerLogin":"ann"}`)
	k.say(catalogue.Teachers, "tea", `{"login":"tea"}`)
	k.say(catalogue.Rooms, "r1", `{"guid":"R1","label":"One","capacity":7}`)
}

func TestCatalogueTopics(t *testing.T) {
	ctx := t.Context()
	t.Run("consumers wait until every topic is read to its first end", func(t *testing.T) {
		k := newTopics(t, 1)
		k.seed()
		k.begin()
		k.say(catalogue.Teachers, "later", `{"login":"later"}`)
		for _, kind := range catalogue.Kinds() {
			if _, err := k.w.Facts(ctx, handlers.NewReferences()); !errors.Is(err, handlers.ErrNoCatalogue) {
				t.Fatalf("before %s: %v", kind, err)
			}
			out := k.apply(k.chunk(handlers.TopicPartition{Topic: topicOf(kind)}, 0, 1))
			if out.Upserts != 1 || out.Changed != 1 || out.Version == 0 {
				t.Errorf("%s: %+v", kind, out)
			}
		}
		if _, err := k.w.Facts(ctx, handlers.NewReferences()); err != nil {
			t.Errorf("all are at their first end: %v", err)
		}
		version, _, _ := k.w.CatalogueVersion(ctx)
		for range 2 { // what is stored already makes no new catalogue
			k.again(handlers.TopicPartition{Topic: topicOf(catalogue.Learners)})
			if out := k.apply(k.chunk(handlers.TopicPartition{Topic: topicOf(catalogue.Learners)}, 0, 1)); out.Version != 0 || out.Changed != 0 {
				t.Errorf("read again: %+v", out)
			}
		}
		if again, _, _ := k.w.CatalogueVersion(ctx); again != version {
			t.Errorf("version %d, then %d", version, again)
		}
	})

	t.Run("empty topics are a catalogue", func(t *testing.T) {
		k := newTopics(t, 1)
		if out := k.apply(); out.Version != 0 {
			t.Errorf("before the topics are known: %+v", out)
		}
		k.begin()
		if out := k.apply(); out.Version != 1 {
			t.Errorf("nothing in any topic: %+v", out)
		}
	})

	t.Run("what rows refer to outlives its tombstone", func(t *testing.T) {
		k := newTopics(t, 1)
		k.seed()
		k.begin()
		k.read()
		track, intervention := source(t, handlers.Tracking), source(t, handlers.Intervention)
		k.w.claim(k.w.Store, track, 0).apply(record(track, 0, day, "candidateLogin", "ann", "lovGuid", "o1", "sessionId", 100))
		k.w.claim(k.w.Store, intervention, 0).apply(record(intervention, 0, day, "interventionGuid", "i1", "trainingGuid", "t-10", "sessionGuid", "s-100",
			"interventionDate", "2026-03-05T10:00:00Z", "interventionDuration", 2, "roomGuid", "r1", "roomLabel", "One", "teacherLogin", "tea", "interventionStatus", "A"))
		before := k.w.entries()
		k.say(catalogue.Registrations, `{"learnerLogin":"ann","sessionId":100}`, "")
		for kind, key := range map[catalogue.Kind]string{catalogue.Learners: "ANN", catalogue.LearningObjects: "o1", catalogue.Trainings: "10",
			catalogue.Sessions: "100", catalogue.Teachers: "tea", catalogue.Rooms: "r1"} {
			k.say(kind, key, "")
		}
		out := k.read()
		if out.Tombstones != 7 || out.Held != 7 || out.Changed != 0 || out.Version != 0 {
			t.Errorf("%+v", out)
		}
		if swept, err := k.w.SweepCatalogue(ctx, true); swept != 0 || err != nil {
			t.Errorf("swept %d, %v", swept, err)
		}
		if got := k.w.entries(); got != before {
			t.Errorf("a tombstone took what is referred to:\n%s", cmp.Diff(before, got))
		}
		k.w.audit()

		// Said anew it is dead no more; the rest goes when the rows do.
		k.say(catalogue.Teachers, "tea", `{"login":"tea"}`)
		k.say(catalogue.LearningObjects, "o1", `{"guid":"O1","code":"C1"}`)
		if out := k.read(); out.Held != 5 {
			t.Errorf("two are said anew: %+v", out)
		}
		k.w.exec("DELETE FROM learnsink.tracking")
		k.w.exec("DELETE FROM learnsink.intervention")
		if swept, err := k.w.SweepCatalogue(ctx, true); swept != 5 || err != nil {
			t.Errorf("swept %d, %v", swept, err)
		}
		if got := k.w.waiting(); got != "" {
			t.Errorf("left: %s", got)
		}
		if got := k.w.text("SELECT count(*) FROM learnsink.teacher UNION ALL SELECT count(*) FROM learnsink.learning_object"); got != "(1)\n(1)" {
			t.Errorf("what was said anew: %s", got)
		}
	})

	t.Run("what comes before that which it refers to waits for it", func(t *testing.T) {
		k := newTopics(t, 1)
		k.begin()
		k.say(catalogue.Registrations, `{"learnerEmail":"ann@x.org","sessionGuid":"S-100"}`, `{"learnerEmail":"Ann@x.org","sessionGuid":"s-100"}`)
		k.say(catalogue.Registrations, `{"learnerLogin":"bob","sessionId":100}`, `{"learnerLogin":"bob","sessionId":100}`)
		if out := k.read(); out.Waiting != 2 || out.Changed != 0 {
			t.Errorf("%+v", out)
		}
		k.say(catalogue.Sessions, "100", `{"id":100,"trainingId":10,"guid":"s-100","title":"first"}`)
		k.say(catalogue.Learners, "ann", `{"login":"Ann","email":"ann@x.org"}`)
		if out := k.read(); out.Waiting != 3 {
			t.Errorf("a session without its training: %+v", out)
		}
		k.say(catalogue.Sessions, "100", `{"id":100,"trainingId":10,"guid":"s-100","title":"second"}`)
		k.read()
		k.say(catalogue.Trainings, "10", `{"id":10}`)
		if out := k.read(); out.Waiting != 1 || out.Changed != 3 { // bob's is left
			t.Errorf("the training has come: %+v", out)
		}
		if got, want := k.w.text("SELECT id, title FROM learnsink.session"), "(100,second)"; got != want {
			t.Errorf("session %s, want %s", got, want)
		}
		k.say(catalogue.Registrations, `{"learnerLogin":"BOB","sessionId":100}`, "")
		if out := k.read(); out.Waiting != 0 {
			t.Errorf("what waits is taken back by its tombstone: %+v", out)
		}
		k.say(catalogue.Learners, "bob", `{"login":"bob"}`)
		k.read()
		if got := k.w.text("SELECT login_folded FROM learnsink.registration JOIN learnsink.learner l ON l.id = learner_id"); got != "(ann)" {
			t.Errorf("registered: %s", got)
		}
	})

	t.Run("files end the waiting, and take tombstones back", func(t *testing.T) {
		k := newTopics(t, 1)
		k.seed()
		k.say(catalogue.Registrations, `{"learnerLogin":"bob","sessionId":101}`, `{"learnerLogin":"bob","sessionId":101}`)
		k.say(catalogue.Sessions, "101", `{"id":101,"trainingId":11}`)
		k.say(catalogue.Sessions, "102", `{"id":102,"trainingId":12,"title":"topic"}`)
		k.begin()
		k.read()
		k.say(catalogue.Learners, "ann", "") // her registration refers to her
		if out := k.read(); out.Waiting != 3 || out.Held != 1 {
			t.Fatalf("%+v", out)
		}
		if _, err := load(t, k.w.Store, map[string]string{"trainings.csv": "id\n11\n12\n", "learners.csv": "login\nbob\nANN\n"}, store.LoadOptions{}); err != nil {
			t.Fatal(err)
		}
		if got := k.w.waiting(); got != "" {
			t.Errorf("left: %s", got)
		}
		if got, want := k.w.text("SELECT login_folded, session_id FROM learnsink.registration JOIN learnsink.learner l ON l.id = learner_id ORDER BY 1"), "(ann,100)\n(bob,101)"; got != want {
			t.Errorf("registered: %s, want %s", got, want)
		}
		// The last that speaks wins, whichever it is.
		k.say(catalogue.Sessions, "102", `{"id":102,"trainingId":13,"title":"waits"}`)
		k.read()
		if _, err := load(t, k.w.Store, map[string]string{"sessions.csv": "id,trainingId,title\n102,12,file\n"}, store.LoadOptions{}); err != nil {
			t.Fatal(err)
		}
		k.say(catalogue.Trainings, "13", `{"id":13}`)
		k.read()
		if got, want := k.w.text("SELECT training_id, title FROM learnsink.session WHERE id = 102"), "(12,file)"; got != want {
			t.Errorf("session: %s, want %s", got, want)
		}
	})

	t.Run("a bad record is named and stops nothing", func(t *testing.T) {
		k := newTopics(t, 1)
		k.begin()
		for _, c := range []struct {
			kind             catalogue.Kind
			key, value, want string
		}{
			{catalogue.Learners, "ann", `{"login":"bob"}`, "the record's key names another login than its value"},
			{catalogue.Learners, "ann", `{"email":"x"}`, "login is empty"},
			{catalogue.Learners, " ", `{"login":"bob"}`, "the record's key: login is empty"},
			{catalogue.Learners, "ann", `[]`, "not a JSON object"},
			{catalogue.Sessions, "x", "", "the record's key: id is not an integer from 1 to 9223372036854775807"},
			{catalogue.Sessions, "1", `{"id":1}`, "trainingId is empty"},
			{catalogue.Rooms, strings.Repeat("x", 41), "", "the record's key: guid is longer than 40 characters"},
			{catalogue.Registrations, "ann|100", "", "the record's key: not a JSON object"},
			{catalogue.Registrations, `{"learnerLogin":"ann"}`, "", "the record's key: sessionGuid or sessionId is empty"},
			{catalogue.Registrations, `{"learnerLogin":"ann","sessionId":1}`, `{"learnerLogin":"ann","sessionId":2}`, "the record's key names another learner or session than its value"},
			{catalogue.LearningObjects, "o", `{"guid":"o","provider":"me"}`, "provider is not customer, crossknowledge or easyquizz"},
		} {
			k.say(c.kind, c.key, c.value)
			k.say(catalogue.Teachers, "t", `{"login":"t"}`)
			if out := k.read(); len(out.Bad) != 1 || out.Upserts != 1 {
				t.Errorf("%s %q %s: %+v", c.kind, c.key, c.value, out)
			}
			status, err := k.w.CatalogueTopicsStatus(ctx, 1)
			if err != nil {
				t.Fatal(err)
			}
			if got := status.Bad[0]; got.Why != c.want || got.Topic != topicOf(c.kind) {
				t.Errorf("%s %q %s: %s, want %s", c.kind, c.key, c.value, got.Why, c.want)
			}
		}
		if got := k.w.text("SELECT sum(bad), sum(records) FROM learnsink.catalogue_position"); got != "(11,22)" {
			t.Errorf("counted: %s", got)
		}
	})

	t.Run("of bad records the last thousand are kept", func(t *testing.T) {
		k := newTopics(t, 1)
		k.begin()
		for i := range 1200 {
			k.say(catalogue.Teachers, fmt.Sprint(i), "[]")
		}
		k.read()
		if got := k.w.text("SELECT count(*), min(source_offset) FROM learnsink.catalogue_bad"); got != "(1000,200)" {
			t.Errorf("kept: %s", got)
		}
	})

	t.Run("what another reader has read is not read twice", func(t *testing.T) {
		k := newTopics(t, 1)
		k.seed()
		k.begin()
		k.read()
		tp := handlers.TopicPartition{Topic: topicOf(catalogue.Rooms)}
		k.w.exec("DELETE FROM learnsink.room")
		if _, err := k.w.ApplyCatalogue(ctx, topicNames(), []handlers.CatalogueChunk{k.chunk(tp, 0, 1)}); !errors.Is(err, handlers.ErrMoved) {
			t.Errorf("applied twice: %v", err)
		}
		if got := k.w.text("SELECT count(*) FROM learnsink.room"); got != "(0)" {
			t.Errorf("rooms: %s", got)
		}
		p := handlers.CataloguePosition{TopicPartition: tp, NextOffset: 7}
		if err := k.w.RereadCatalogue(ctx, p, clusterID, 0, ""); !errors.Is(err, handlers.ErrMoved) {
			t.Errorf("set back by one who does not know where it is: %v", err)
		}
	})

	t.Run("one leads at a time", func(t *testing.T) {
		w := newWorld(t)
		other := open(t, w.url)
		nobody := func(func(context.Context) error) error { t.Error("two lead"); return nil }
		led, err := w.LeadCatalogue(ctx, func(check func(context.Context) error) error {
			if led, err := other.LeadCatalogue(ctx, nobody); led || err != nil {
				t.Errorf("a second one: %v, %v", led, err)
			}
			if err := check(ctx); err != nil {
				t.Error(err)
			}
			w.exec(`SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND pid <> pg_backend_pid()`)
			return check(ctx)
		})
		if !led || err == nil {
			t.Errorf("a lead that is lost passes for one: %v, %v", led, err)
		}
		if led, err := other.LeadCatalogue(ctx, func(check func(context.Context) error) error { return check(ctx) }); !led || err != nil {
			t.Errorf("after the first: %v, %v", led, err)
		}
	})

	t.Run("an erased person does not come back", func(t *testing.T) {
		k := newTopics(t, 1)
		k.seed()
		k.say(catalogue.Registrations, `{"learnerLogin":"ann","sessionId":101}`, `{"learnerLogin":"ann","sessionId":101}`)
		k.begin()
		k.read()
		k.w.erase(handlers.LearnerLogin, "ann", true)
		if got := k.w.waiting(); got != "" {
			t.Errorf("waiting: %s", got)
		}
		k.say(catalogue.Learners, "ann", `{"login":"ANN","email":"new@x.org"}`)
		k.say(catalogue.Learners, "bob", `{"login":"bob"}`)
		k.say(catalogue.Registrations, `{"learnerLogin":"ann","sessionId":100}`, `{"learnerLogin":"ann","sessionId":100}`)
		if out := k.read(); out.Erased != 2 || out.Waiting != 0 || out.Changed != 1 {
			t.Errorf("%+v", out)
		}
		if got := k.w.text("SELECT login FROM learnsink.learner"); got != "(bob)" {
			t.Errorf("learners: %s", got)
		}
	})

	t.Run("a room's record is the whole of it", func(t *testing.T) {
		k := newTopics(t, 1)
		k.seed()
		k.say(catalogue.Rooms, "r1", `{"guid":"R1","label":"Two"}`)
		k.begin()
		tp := handlers.TopicPartition{Topic: topicOf(catalogue.Rooms)}
		k.apply(k.chunk(tp, 0, 1))
		k.apply(k.chunk(tp, 1, 2))
		if got := k.w.text("SELECT label, capacity FROM learnsink.room"); got != "(Two,)" {
			t.Errorf("room: %s", got)
		}
	})
}

// What is remembered answers as the database does, whatever events change.
func TestRememberedHeedsEvents(t *testing.T) {
	for seed := range uint64(2) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			ctx := t.Context()
			rng := rand.New(rand.NewPCG(seed, 66))
			k := newTopics(t, 1)
			s := &story{rng, map[catalogue.Kind]map[string]string{}, k.say}
			for range 60 {
				s.step()
			}
			k.begin()
			k.read()
			reader := open(t, k.w.url)
			refs := func() *handlers.References {
				refs := handlers.NewReferences()
				for i := range people {
					for _, ref := range []handlers.LearnerRef{{Login: fmt.Sprintf("l%d", i)}, {RefNumber: fmt.Sprintf("r%d", i)}, {Email: fmt.Sprintf("e%d@x.org", i)},
						{Login: fmt.Sprintf("l%d", i), Email: fmt.Sprintf("e%d@x.org", i)}} {
						if rng.IntN(3) > 0 {
							refs.Learners[ref] = struct{}{}
						}
					}
					refs.LearningObjectGUIDs[fmt.Sprintf("o-%d", i)] = struct{}{}
					refs.LearningObjectCodes[fmt.Sprint(i%3)] = struct{}{}
				}
				return refs
			}
			remembered := 0
			for step := range 40 {
				for range 1 + rng.IntN(2) {
					s.step()
					if rng.IntN(4) == 0 { // who goes by whose reference number changes
						i := rng.IntN(people)
						s.put(catalogue.Learners, fmt.Sprintf("L%d", i), map[string]any{"login": fmt.Sprintf("l%d", i), "refNumber": fmt.Sprintf("r%d", rng.IntN(people)),
							"email": fmt.Sprintf("E%d@x.org", rng.IntN(people)), "createdAt": fmt.Sprintf("20%02d-01-01", 10+rng.IntN(9))})
					}
				}
				k.read()
				switch rng.IntN(12) {
				case 0:
					store.ReadWhole(t, reader)
				case 1:
					store.Age(reader)
				}
				if err := store.CatchUp(reader); err != nil {
					t.Fatal(err)
				}
				asked := refs()
				known, err := reader.Facts(ctx, asked)
				if err != nil {
					t.Fatal(err)
				}
				fresh, err := reader.FactsNow(ctx, asked)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(fresh.Learners, known.Learners); diff != "" {
					t.Fatalf("step %d, learners, from the database (-) and as remembered (+):\n%s", step, diff)
				}
				if diff := cmp.Diff(fresh.Registrations, known.Registrations, cmpopts.EquateEmpty()); diff != "" {
					t.Fatalf("step %d, registrations, from the database (-) and as remembered (+):\n%s", step, diff)
				}
				if diff := cmp.Diff(fresh.LearningObjectsByGUID, known.LearningObjectsByGUID) + cmp.Diff(fresh.LearningObjectsByCode, known.LearningObjectsByCode); diff != "" {
					t.Fatalf("step %d, learning objects:\n%s", step, diff)
				}
				if known.Version != fresh.Version {
					t.Fatalf("step %d: facts of catalogue %d, not %d", step, known.Version, fresh.Version)
				}
				remembered += store.Remembered(reader, asked)
			}
			if remembered == 0 {
				t.Error("nothing was ever remembered")
			}
		})
	}
}

// A drip of events leaves what it does not touch remembered, also in what is
// read of the whole catalogue meanwhile.
func TestEventsForgetLittle(t *testing.T) {
	k := newTopics(t, 1)
	k.seed()
	for i := range 100 {
		k.say(catalogue.Learners, fmt.Sprintf("l%d", i), fmt.Sprintf(`{"login":"l%d"}`, i))
	}
	k.begin()
	k.read()
	all := handlers.NewReferences()
	for i := range 100 {
		all.Learners[handlers.LearnerRef{Login: fmt.Sprintf("l%d", i)}] = struct{}{}
	}
	reader := open(t, k.w.url)
	if _, err := reader.Facts(t.Context(), all); err != nil {
		t.Fatal(err)
	}
	say := func(lines int) {
		for i := range lines {
			k.say(catalogue.Registrations, fmt.Sprintf(`{"learnerLogin":"l%d","sessionId":100}`, i), fmt.Sprintf(`{"learnerLogin":"l%d","sessionId":100}`, i))
			k.read()
		}
		if err := store.CatchUp(reader); err != nil {
			t.Fatal(err)
		}
	}
	say(3)
	if got := store.Remembered(reader, all); got != 97 {
		t.Errorf("%d of 100 are remembered after 3 events", got)
	}
	k.say(catalogue.Sessions, "100", `{"id":100,"trainingId":10,"title":"moved"}`)
	k.read()
	if err := store.CatchUp(reader); err != nil {
		t.Fatal(err)
	}
	if got := store.Remembered(reader, all); got != 0 {
		t.Errorf("%d are remembered after a session was changed, which they may be in", got)
	}
	// What is read at once of one catalogue is brought up to the next.
	store.ReadWholeMeanwhile(t, reader, func() { say(5) })
	if got := store.Remembered(reader, all); got != 98 { // three are registered already
		t.Errorf("%d of 100 are remembered of the whole, read while 2 came", got)
	}
}

// A crash at every step of a batch leaves nothing of it, one after the COMMIT
// all: and the positions say which.
func TestCatalogueTopicsCrash(t *testing.T) {
	ctx := t.Context()
	k := newTopics(t, 1)
	k.seed()
	k.begin()
	k.read()
	p, url := newProxy(t, k.w.url)
	before := k.w.entries() + k.w.waiting()
	// Something of everything: entries of each kind, a session and a
	// registration that wait, one that has waited, tombstones followed and held.
	k.say(catalogue.Learners, "new", `{"login":"new"}`)
	k.say(catalogue.Teachers, "new", `{"login":"new"}`)
	k.say(catalogue.Trainings, "11", `{"id":11}`)
	k.say(catalogue.Sessions, "101", `{"id":101,"trainingId":11}`)
	k.say(catalogue.Sessions, "102", `{"id":102,"trainingId":12}`)
	k.say(catalogue.Registrations, `{"learnerLogin":"new","sessionId":101}`, `{"learnerLogin":"new","sessionId":101}`)
	k.say(catalogue.Registrations, `{"learnerLogin":"none","sessionId":101}`, `{"learnerLogin":"none","sessionId":101}`)
	k.say(catalogue.Rooms, "r2", `{"guid":"r2"}`)
	k.say(catalogue.Rooms, "r1", "")
	k.say(catalogue.Learners, "ann", "")
	k.say(catalogue.LearningObjects, "o1", "[]")
	var chunks []handlers.CatalogueChunk
	for tp, log := range k.logs {
		if n := int64(len(log)); n > k.next[tp] {
			chunks = append(chunks, k.chunk(tp, k.next[tp], n))
		}
	}
	moved := func() bool {
		return k.w.text("SELECT next_offset FROM learnsink.catalogue_position WHERE topic ~ 'sessions'") != "(1)"
	}
	crashes := 0
	for n := int32(1); ; n++ {
		s := open(t, url)
		if err := s.Ping(ctx); err != nil {
			t.Fatal(err)
		}
		p.after.Store(n)
		_, err := s.ApplyCatalogue(ctx, topicNames(), chunks)
		p.after.Store(0)
		s.Close()
		if err == nil {
			break
		}
		if crashes++; moved() {
			t.Fatalf("cut at message %d: the positions moved: %v", n, err)
		}
		if got := k.w.entries() + k.w.waiting(); got != before {
			t.Fatalf("cut at message %d: %s", n, cmp.Diff(before, got))
		}
	}
	if crashes < 20 || !moved() {
		t.Errorf("%d crashes, moved %v", crashes, moved())
	}
	after := k.w.entries() + k.w.waiting()
	for _, want := range []string{"new in 101", "(session,102)", "(registration,\"none 101\")", "tombstone"} {
		if !strings.Contains(after, want) {
			t.Errorf("%s is not there:\n%s", want, after)
		}
	}

	// A COMMIT that was done, and whose reply was lost.
	k.next[handlers.TopicPartition{Topic: topicOf(catalogue.Teachers)}] = 2
	k.say(catalogue.Teachers, "last", `{"login":"last"}`)
	s := open(t, url)
	p.cut.Store(passThenCut)
	c := k.chunk(handlers.TopicPartition{Topic: topicOf(catalogue.Teachers)}, 2, 3)
	if _, err := s.ApplyCatalogue(ctx, topicNames(), []handlers.CatalogueChunk{c}); err == nil {
		t.Error("the reply was lost, and nobody says so")
	}
	if got := k.w.text("SELECT next_offset FROM learnsink.catalogue_position WHERE topic ~ 'teachers'"); got != "(3)" {
		t.Errorf("the position: %s", got)
	}
	if _, err := s.ApplyCatalogue(ctx, topicNames(), []handlers.CatalogueChunk{c}); !errors.Is(err, handlers.ErrMoved) {
		t.Errorf("again: %v", err)
	}
}

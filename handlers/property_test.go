package handlers_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"learnsink/handlers"
)

// What rules.md promises of rows one after another, held over random stories.

// tables is what a database would hold: the plainest that can settle decisions.
type tables struct {
	byEventTime  bool
	tracking     map[handlers.TrackingKey]handlers.TrackingRow
	intervention map[string]handlers.InterventionRow
	stored       map[any]handlers.Stored
	rooms        map[string]handlers.Room
}

func newTables(byEventTime bool) *tables {
	return &tables{byEventTime, map[handlers.TrackingKey]handlers.TrackingRow{}, map[string]handlers.InterventionRow{}, map[any]handlers.Stored{}, map[string]handlers.Room{}}
}

// apply settles a decision against the tables, and writes what is left of it.
func (w *tables) apply(d handlers.Decision) handlers.Decision {
	if d.Verdict != handlers.Accepted {
		return d
	}
	var key any
	if d.Tracking != nil {
		key = d.Tracking.TrackingKey
	} else {
		key = d.Intervention.GUIDFolded
	}
	w.stored[key] = d.Settle(w.byEventTime, w.stored[key])
	switch {
	case d.Verdict != handlers.Accepted:
	case d.Intervention != nil:
		w.intervention[d.Intervention.GUIDFolded] = *d.Intervention
		folded := d.Intervention.RoomGUIDFolded
		room, ok := w.rooms[folded]
		w.rooms[folded] = d.SettleRoom(handlers.Opt[handlers.Room]{V: room, OK: ok})
	case d.Tracking.Delete:
		delete(w.tracking, d.Tracking.TrackingKey)
	default:
		w.tracking[d.Tracking.TrackingKey] = *d.Tracking
	}
	return d
}

// rows is what analysts see.
func (w *tables) rows() any {
	return map[string]any{"tracking": w.tracking, "intervention": w.intervention, "rooms": w.rooms}
}

// story makes n random rows about few things, so that many have one key.
func story(action handlers.Action, r *rand.Rand, n int) (records []*handlers.Record) {
	pick := func(words ...any) any { return words[r.IntN(len(words))] }
	for i := range n {
		row := map[string]any{}
		set := func(name string, words ...any) {
			if w := pick(words...); w != nil {
				row[name] = w
			}
		}
		if action == handlers.Tracking {
			set("candidateLogin", "ines.lopez", "INES.lopez", "kwame", "who")
			set("lovCode", "FIRE-1", "FIRE-1", 1752, "CK-9")
			set("sessionGuid", "se-guid-11", "SE-GUID-11", "se-guid-12", nil)
			set("sessionId", nil, nil, nil, 13)
			set("trackingStatus", nil, "notAttempted", "incomplete", "completed", "completed", "passed", "failed", "x")
			set("firstAccessDate", nil, "2024-06-01", "2024-06-02 10:00:00")
			set("firstCompletionDate", nil, nil, nil, "2024-06-03")
			set("progression", nil, 0, "50.5", 100, 101)
			set("score", nil, 17.5, -1)
			set("scoreMax", nil, 20)
			set("timeSpent", nil, 600)
		} else {
			set("interventionGuid", "iv-1", "IV-1", "iv-2")
			set("trainingGuid", "tr-guid-1")
			set("sessionTitle", "June", "July")
			set("interventionDate", "2024-06-10", "2024-06-11T10:00")
			set("interventionDuration", 7, 8, 0)
			set("roomGuid", "r1", "R1", "r2")
			set("roomLabel", "Atrium", "Hall", fmt.Sprint("Room ", i))
			set("roomCapacity", nil, nil, 10, 20)
			set("teacherLogin", "dr.haas")
			set("interventionStatus", "A", "C")
		}
		value, err := json.Marshal(row)
		if err != nil {
			panic(err)
		}
		records = append(records, &handlers.Record{Topic: "rows", Offset: int64(i), Value: value,
			Timestamp: time.Date(2024, 6, 5, 12, 0, 0, 0, time.UTC).Add(time.Duration(r.IntN(96)) * time.Hour)})
	}
	return records
}

// stories runs a claim over random stories, under rules that keep a first completion and such that do not.
func stories(t *testing.T, claim func(t *testing.T, r *rand.Rand, rules *handlers.Rules, c *handlers.Catalogue, records []*handlers.Record)) {
	c := loadCatalogue(t, filepath.Join("testdata", "catalog"))
	for _, rules := range []*handlers.Rules{
		compile(t, handlers.Tracking),
		compile(t, handlers.Tracking, handlers.Setting{Name: "completionDefault", Text: "today"}, handlers.Setting{Name: "timeZone", Text: "Pacific/Apia"}),
		compile(t, handlers.Intervention),
	} {
		for seed := range uint64(30) {
			t.Run(fmt.Sprintf("%s %s seed %d", rules.Action(), rules.Hash(), seed), func(t *testing.T) {
				r := rand.New(rand.NewPCG(seed, 1))
				claim(t, r, rules, c, story(rules.Action(), r, 40))
			})
		}
	}
}

// same tells two values apart; cmp is slow where they are the same, and reads well where they are not.
func same(t *testing.T, what string, want, got any) {
	t.Helper()
	if reflect.DeepEqual(want, got) {
		return
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("%s (-want +got):\n%s", what, diff)
	}
}

// TestDecoder: whatever rows were before, a row is read as it is read alone.
func TestDecoder(t *testing.T) {
	c := loadCatalogue(t, filepath.Join("testdata", "catalog"))
	for _, rules := range []*handlers.Rules{
		compile(t, handlers.Tracking),
		compile(t, handlers.Tracking, handlers.Setting{Name: "unknownColumns", Text: "ignore"}, handlers.Setting{Name: "fields", Words: []handlers.Setting{{Text: "candidateLogin"}, {Text: "lovCode"}, {Text: "sessionGuid"}, {Text: "score"}}}),
		compile(t, handlers.Intervention),
	} {
		r := rand.New(rand.NewPCG(1, 1))
		rows := rowsOf(t, rules.Action())
		for _, rec := range story(rules.Action(), r, 50) {
			rows = append(rows, string(rec.Value))
		}
		decoder := rules.Decoder()
		for range 5000 {
			rec := record(rows[r.IntN(len(rows))])
			for range 1 + r.IntN(2) {
				var row handlers.Row
				decoder.Decode(&row, rec, noon)
				refs := handlers.NewReferences()
				row.Refer(refs)
				same(t, "depends on the rows before", judge(rules, c, rec), rules.Decide(&row, c.Facts(refs)))
			}
		}
	}
}

func TestTheSameRowTenTimesLeavesWhatOnceLeaves(t *testing.T) {
	stories(t, func(t *testing.T, r *rand.Rand, rules *handlers.Rules, c *handlers.Catalogue, records []*handlers.Record) {
		w := newTables(false)
		for _, rec := range records {
			first := w.apply(judge(rules, c, rec))
			after := fmt.Sprintf("%+v", w.rows())
			for range 9 {
				again := w.apply(judge(rules, c, rec))
				same(t, "verdict", first.Verdict, again.Verdict)
			}
			same(t, "tables", after, fmt.Sprintf("%+v", w.rows()))
		}
	})
}

func TestARowSentAgainKeepsItsFirstCompletion(t *testing.T) {
	c := loadCatalogue(t, filepath.Join("testdata", "catalog"))
	for setting, want := range map[string]string{"keep": "2024-06-05", "today": "2024-06-08"} {
		rules := compile(t, handlers.Tracking, handlers.Setting{Name: "completionDefault", Text: setting})
		w := newTables(false)
		at := time.Date(2024, 6, 5, 12, 0, 0, 0, time.UTC)
		var d handlers.Decision
		for i, status := range []string{"completed", "passed", "completed", "completed"} {
			rec := &handlers.Record{Topic: "rows", Offset: int64(i), Timestamp: at.AddDate(0, 0, i),
				Value: []byte(`{"candidateLogin":"ines.lopez","lovCode":"FIRE-1","sessionId":11,"trackingStatus":"` + status + `"}`)}
			d = w.apply(judge(rules, c, rec))
		}
		if got := d.Tracking.FirstCompletion.V.Format(time.DateOnly); got != want || !d.Tracking.FilledIn {
			t.Errorf("%s: %s, filled in %v", setting, got, d.Tracking.FilledIn)
		}
		// A status in between that is not completed or passed ends it, and so does a date of the row's own.
		for i, c2 := range []struct{ row, want string }{
			{`"trackingStatus":"failed"`, ""},
			{`"trackingStatus":"completed"`, "2024-06-10"},
			{`"trackingStatus":"completed","firstCompletionDate":"2020-01-01"`, "2020-01-01"},
			{`"trackingStatus":"notAttempted"`, ""},
			{`"trackingStatus":"completed"`, "2024-06-13"},
		} {
			rec := &handlers.Record{Topic: "rows", Offset: int64(10 + i), Timestamp: at.AddDate(0, 0, 4+i),
				Value: []byte(`{"candidateLogin":"ines.lopez","lovCode":"FIRE-1","sessionId":11,` + c2.row + `}`)}
			d = w.apply(judge(rules, c, rec))
			got := ""
			if d.Tracking.FirstCompletion.OK {
				got = d.Tracking.FirstCompletion.V.Format(time.DateOnly)
			}
			if got != c2.want {
				t.Errorf("%s, then %s: %q, want %q", setting, c2.row, got, c2.want)
			}
		}
	}
}

func TestTheLastRowOfAKeyWinsAndWhatItLeavesOutIsReset(t *testing.T) {
	stories(t, func(t *testing.T, r *rand.Rand, rules *handlers.Rules, c *handlers.Catalogue, records []*handlers.Record) {
		w := newTables(false)
		last := map[handlers.TrackingKey]handlers.Decision{}
		lastIntervention := map[string]handlers.InterventionRow{}
		for _, rec := range records {
			d := judge(rules, c, rec)
			if settled := w.apply(d); settled.Tracking != nil {
				last[d.Tracking.TrackingKey] = d
			} else if settled.Intervention != nil {
				lastIntervention[d.Intervention.GUIDFolded] = *d.Intervention
			}
		}
		same(t, "interventions", lastIntervention, w.intervention)
		for key, d := range last {
			got, there := w.tracking[key]
			if d.Tracking.Delete {
				if there {
					t.Fatalf("%v was deleted", key)
				}
				continue
			}
			want := *d.Tracking // as decided by itself, as if nothing had been stored
			if want.FilledIn {
				want.FirstCompletion = got.FirstCompletion // an earlier one may have been kept
			}
			same(t, "row", want, got)
		}
	})
}

func TestABatchIsWorthItsRowsOneByOne(t *testing.T) {
	stories(t, func(t *testing.T, r *rand.Rand, rules *handlers.Rules, c *handlers.Catalogue, records []*handlers.Record) {
		refs := handlers.NewReferences()
		var decoded []handlers.Row
		for _, rec := range records {
			w := rules.Decode(rec, handlers.EventTime(rec, false, time.Time{}))
			w.Refer(refs)
			decoded = append(decoded, w)
		}
		facts := c.Facts(refs)
		batch, single := newTables(true), newTables(true)
		for i := range decoded {
			together := batch.apply(rules.Decide(&decoded[i], facts))
			alone := single.apply(judge(rules, c, records[i]))
			together.Rules, alone.Rules = nil, nil
			same(t, "decision", alone, together)
		}
		same(t, "tables", single.rows(), batch.rows())
	})
}

func TestByEventTimeTheOrderOfArrivalDoesNotMatter(t *testing.T) {
	stories(t, func(t *testing.T, r *rand.Rand, rules *handlers.Rules, c *handlers.Catalogue, records []*handlers.Record) {
		if rules.Action() == handlers.Tracking && rules.Hash() == compile(t, handlers.Tracking).Hash() {
			return // a first completion that is kept is the first that arrived
		}
		inOrder, shuffled := newTables(true), newTables(true)
		for _, rec := range records {
			inOrder.apply(judge(rules, c, rec))
		}
		superseded := 0
		for _, i := range r.Perm(len(records)) {
			d := shuffled.apply(judge(rules, c, records[i]))
			if d.Verdict == handlers.Rejected && d.Errors[0].Code == handlers.Superseded {
				superseded++
			}
		}
		same(t, "tracking", inOrder.tracking, shuffled.tracking)
		same(t, "interventions", inOrder.intervention, shuffled.intervention)
		if superseded == 0 {
			t.Log("nothing was superseded")
		}
	})
}

func TestDecisionsAreDeterministic(t *testing.T) {
	stories(t, func(t *testing.T, r *rand.Rand, rules *handlers.Rules, c *handlers.Catalogue, records []*handlers.Record) {
		now := time.Date(2024, 6, 9, 0, 0, 0, 0, time.UTC)
		src := source(rules)
		for _, rec := range records {
			a, b := judge(rules, c, rec), judge(rules, c, rec)
			oa, _ := a.Output(src, now)
			ob, _ := b.Output(src, now)
			if !slices.Equal(a.Errors, b.Errors) || string(oa.Value) != string(ob.Value) || !reflect.DeepEqual(oa.Headers, ob.Headers) {
				t.Fatalf("%+v, then %+v", a, b)
			}
		}
	})
}

// TestWhichOfSeveral: what no verdict shows: which of several things that fit is meant.
func TestWhichOfSeveral(t *testing.T) {
	c := handlers.NewCatalogue()
	c.AddLearner("old", "R", "", handlers.Some(noon.AddDate(-2, 0, 0)))
	c.AddLearner("new", "R", "", handlers.Some(noon.AddDate(-1, 0, 0)))
	for _, guid := range []string{"lo-c", "LO-B", "lo-d"} {
		c.AddLearningObject(guid, "DUP", handlers.Customer)
	}
	for id := int64(9); id >= 7; id-- { // the later added, the lower
		c.AddTraining(id, "tr", "PATH")
		c.AddSession(10*id+1, id, "se", "Same")
		c.AddSession(10*id, id, "se", "Same")
	}
	for _, login := range []string{"new", "old"} {
		for _, id := range []int64{91, 90, 81, 80, 71} {
			c.Register(handlers.LearnerRef{Login: login}, id)
		}
	}
	old := c.Learner(handlers.LearnerRef{Login: "old"})
	rules := compile(t, handlers.Tracking)
	for _, claim := range []struct {
		context string
		session int64
	}{
		{`"sessionGuid":"SE"`, 71},
		{`"sessionTitle":"Same","trainingPathCode":"PATH"`, 71},
		{`"sessionTitle":"Same","trainingId":8`, 80},
		{`"sessionGuid":"se","trainingId":9`, 90},
		{`"sessionId":91`, 91},
	} {
		d := judge(rules, c, record(`{"candidateRefNumber":"R","lovCode":"DUP",`+claim.context+`}`))
		if d.Verdict != handlers.Accepted || d.Tracking.RefSessionID != claim.session || d.Tracking.LearnerID != old || d.Tracking.LearningObjectGUID != "LO-B" {
			t.Errorf("%s: %+v %+v", claim.context, d.Errors, d.Tracking)
		}
	}
	c.AddTeacher("t")
	rules = compile(t, handlers.Intervention)
	for _, claim := range []struct {
		reference string
		session   int64
	}{
		{`"trainingGuid":"TR","sessionGuid":"SE"`, 70},
		{`"trainingPathCode":"PATH","sessionTitle":"Same"`, 70},
		{`"trainingGuid":"tr","trainingPathCode":"PATH","sessionGuid":"se","sessionTitle":"Same"`, 70},
	} {
		d := judge(rules, c, record(`{"interventionGuid":"i","interventionDate":"2024-06-10","interventionDuration":1,"roomGuid":"r","roomLabel":"R","teacherLogin":"T","interventionStatus":"A",`+claim.reference+`}`))
		if d.Verdict != handlers.Accepted || d.Intervention.RefSessionID != claim.session || d.Intervention.RefTrainingID != 7 {
			t.Errorf("%s: %+v %+v", claim.reference, d.Errors, d.Intervention)
		}
	}
}

func TestTheRoomOfTheLaterEventWins(t *testing.T) {
	c := loadCatalogue(t, filepath.Join("testdata", "catalog"))
	rules := compile(t, handlers.Intervention)
	row := func(guid, label, capacity string, day int) handlers.Decision {
		return judge(rules, c, &handlers.Record{Timestamp: noon.AddDate(0, 0, day), Value: []byte(`{"interventionGuid":"` + guid + `","trainingGuid":"tr-guid-1","sessionGuid":"se-guid-11",
			"interventionDate":"2024-06-10","interventionDuration":1,"roomGuid":"R1","roomLabel":"` + label + `","roomCapacity":` + capacity + `,"teacherLogin":"dr.haas","interventionStatus":"A"}`)})
	}
	w := newTables(false)
	for _, step := range []struct {
		guid, label, capacity string
		day                   int
		want                  string
		wantCapacity          int32 // -1: none
	}{
		{"a", "Atrium", "null", 5, "Atrium", -1},
		{"b", "Hall", "30", 6, "Hall", 30},
		{"a", "Atrium", "10", 4, "Hall", 30}, // an older event
		{"c", "Aula", "null", 6, "Aula", 30}, // of one time the one applied later; no capacity, none replaced
		{"c", "Aula", "0", 7, "Aula", 0},
	} {
		if d := w.apply(row(step.guid, step.label, step.capacity, step.day)); d.Verdict != handlers.Accepted {
			t.Fatalf("%+v", d.Errors)
		}
		room := w.rooms["r1"]
		capacity := int32(-1)
		if room.Capacity.OK {
			capacity = room.Capacity.V
		}
		if room.Label != step.want || capacity != step.wantCapacity {
			t.Errorf("after %+v: %+v", step, room)
		}
	}
}

func TestSupersededComparesTimeTopicPartitionOffset(t *testing.T) {
	c := loadCatalogue(t, filepath.Join("testdata", "catalog"))
	rules := compile(t, handlers.Tracking)
	at := func(topic string, partition int, offset int64, day int, status string) handlers.Decision {
		return judge(rules, c, &handlers.Record{Topic: topic, Partition: partition, Offset: offset, Timestamp: noon.AddDate(0, 0, day),
			Value: []byte(`{"candidateLogin":"ines.lopez","lovCode":"FIRE-1","sessionId":11,"trackingStatus":"` + status + `"}`)})
	}
	w := newTables(true)
	for i, step := range []struct {
		d    handlers.Decision
		want handlers.Verdict
	}{
		{at("m", 1, 5, 0, "failed"), handlers.Accepted},
		{at("m", 1, 5, 0, "failed"), handlers.Accepted}, // itself again
		{at("m", 1, 4, 0, "failed"), handlers.Rejected},
		{at("m", 0, 9, 0, "failed"), handlers.Rejected},
		{at("l", 9, 9, 0, "failed"), handlers.Rejected},
		{at("z", 9, 9, -1, "failed"), handlers.Rejected},
		{at("m", 2, 0, 0, "failed"), handlers.Accepted},
		{at("n", 0, 0, 0, "failed"), handlers.Accepted},
		{at("a", 0, 0, 1, "notAttempted"), handlers.Accepted},
		{at("z", 9, 9, 0, "completed"), handlers.Rejected}, // what was deleted is remembered
		{at("a", 0, 1, 1, "completed"), handlers.Accepted},
	} {
		d := w.apply(step.d)
		if d.Verdict != step.want || d.Verdict == handlers.Rejected && (len(d.Errors) != 1 || d.Errors[0] != handlers.Error{Code: handlers.Superseded, Message: "Row is older than what is stored."}) {
			t.Errorf("step %d: %+v", i, d)
		}
	}
	// Ordered by the log, the row applied last wins.
	w = newTables(false)
	w.apply(at("m", 1, 5, 0, "failed"))
	if d := w.apply(at("a", 0, 0, -9, "browsed")); d.Verdict != handlers.Accepted {
		t.Errorf("%+v", d)
	}
}

func TestEventTime(t *testing.T) {
	now := noon.Add(time.Hour)
	for _, c := range []struct {
		header    string
		timestamp time.Time
		fromIt    bool
		want      string
	}{
		{"", noon, true, "2024-06-05T12:00:00.123Z"},
		{"", noon.Add(1999), true, "2024-06-05T12:00:00.123001Z"}, // to the microsecond
		{"2020-01-02T03:04:05.1234567+01:00", noon, true, "2020-01-02T02:04:05.123456Z"},
		{"2020-01-02T03:04:05Z", noon, false, "2024-06-05T12:00:00.123Z"}, // the source does not ask for it
		{"2020-01-02T03:04:05Z", time.Time{}, true, "2020-01-02T03:04:05Z"},
		{"yesterday", noon, true, "2024-06-05T12:00:00.123Z"},
		{"2020-01-02", noon, true, "2024-06-05T12:00:00.123Z"},
		{"yesterday", time.Time{}, true, "2024-06-05T13:00:00.123Z"},
		{"9999-12-31T23:59:59-01:00", noon, true, "2024-06-05T12:00:00.123Z"}, // beyond what can be stored
		{"", time.Time{}, false, "2024-06-05T13:00:00.123Z"},
	} {
		rec := &handlers.Record{Timestamp: c.timestamp, Headers: []handlers.Header{{Key: handlers.EventTimeHeader, Value: []byte(c.header)}}}
		if got := handlers.EventTime(rec, c.fromIt, now).Format(time.RFC3339Nano); got != c.want {
			t.Errorf("%q, %v: got %s, want %s", c.header, c.timestamp, got, c.want)
		}
	}
}

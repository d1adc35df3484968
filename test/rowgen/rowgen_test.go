package rowgen_test

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"learnsink/handlers"
	"learnsink/store/catalogue"
	"learnsink/test/rowgen"
)

func TestTheSameSeedTellsTheSameStory(t *testing.T) {
	one, two := rowgen.New(rowgen.Config{Seed: 7, Bad: 0.2}), rowgen.New(rowgen.Config{Seed: 7, Bad: 0.2})
	other, differs := rowgen.New(rowgen.Config{Seed: 8, Bad: 0.2}), false
	for range 2000 {
		a := one.Next()
		if b := two.Next(); !reflect.DeepEqual(a, b) {
			t.Fatalf("%+v is not %+v", a, b)
		}
		differs = differs || !reflect.DeepEqual(a, other.Next())
	}
	if !differs {
		t.Error("another seed tells the same story")
	}
}

func TestAStoryBeginsWithOneRowOfEveryKind(t *testing.T) {
	cfg := rowgen.Config{Seed: 1, Giant: true}
	g, missing := rowgen.New(cfg), map[string]bool{}
	for _, kind := range rowgen.Kinds(cfg) {
		missing[kind] = true
	}
	codes := map[string]bool{}
	for range len(missing) {
		rec := g.Next()
		delete(missing, rec.Kind)
		for _, message := range rec.Errors {
			codes[strings.Fields(message)[0]] = true
		}
	}
	if len(missing) > 0 {
		t.Errorf("never there: %v", missing)
	}
}

func TestASharedRoomIsTheLaterEventsWhateverTheOrder(t *testing.T) {
	at := time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)
	one, two := int32(1), int32(2)
	early := rowgen.Record{EventTime: at, Intervention: &rowgen.Intervention{GUID: "a", RoomGUID: "r", RoomLabel: "early", RoomCapacity: &one}}
	late := rowgen.Record{EventTime: at.Add(1), Intervention: &rowgen.Intervention{GUID: "b", RoomGUID: "r", RoomLabel: "late", RoomCapacity: &two}}
	for _, order := range [][]rowgen.Record{{early, late}, {late, early}} {
		w := rowgen.NewWorld()
		for _, rec := range order {
			w.Apply(rec, rowgen.Source{})
		}
		if got := w.Rooms["r"].Label; got != "late" {
			t.Errorf("room is %q", got)
		}
	}
}

// What the generator expects of every row is what the rules say of it: the
// two were written apart. Runs of both orders, over a world in memory.
func TestTheRulesSayTheSame(t *testing.T) {
	facts, refs := loadCatalogue(t), handlers.NewReferences()
	rules := map[handlers.Action]*handlers.Rules{}
	for _, action := range []handlers.Action{handlers.Tracking, handlers.Intervention} {
		r, err := handlers.Compile(action, nil)
		if err != nil {
			t.Fatal(err)
		}
		rules[action] = r
	}
	for _, byEventTime := range []bool{false, true} {
		g, world := rowgen.New(rowgen.Config{Seed: 3, Bad: 0.3, Giant: true}), rowgen.NewWorld()
		world.ByEventTime = byEventTime
		stored := map[any]handlers.Stored{}
		for n := range int64(4000) {
			rec := g.Next()
			want := world.Apply(rec, rowgen.Source{Offset: n})

			record := &handlers.Record{Offset: n, Timestamp: rec.EventTime, Key: rec.Key, Value: rec.Value, Headers: rec.Headers}
			row := rules[rec.Action].Decode(record, handlers.EventTime(record, false, time.Time{}))
			row.Refer(refs)
			d := rules[rec.Action].Decide(&row, facts.Facts(refs))
			refs = handlers.NewReferences()
			if d.Tracking != nil {
				key := d.Tracking.TrackingKey
				stored[key] = d.Settle(byEventTime, stored[key])
			} else if d.Intervention != nil {
				key := d.Intervention.GUIDFolded
				stored[key] = d.Settle(byEventTime, stored[key])
			}
			var got []string
			for _, e := range d.Errors {
				got = append(got, e.Message)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Fatalf("%s, record %d: %.2000s\n%s", rec.Kind, n, rec.Value, diff)
			}
			if d.Tracking != nil {
				compareTracking(t, rec, world.Tracking[rec.Tracking.TrackingKey], d.Tracking)
			} else if d.Intervention != nil {
				compareIntervention(t, rec, d.Intervention)
			}
			if t.Failed() {
				t.Fatalf("%s, record %d: %s", rec.Kind, n, rec.Value)
			}
		}
	}
}

func compareTracking(t *testing.T, rec rowgen.Record, want rowgen.StoredTracking, got *handlers.TrackingRow) {
	t.Helper()
	if got.LearningObjectGUID != rec.Tracking.LovGUID || got.RefSessionGUID != rec.Tracking.SessionGUID {
		t.Errorf("it is about %s in %s", got.LearningObjectGUID, got.RefSessionGUID)
	}
	if got.Delete != (rec.Tracking.Status == "notAttempted") || got.Delete {
		return
	}
	time := func(o handlers.Opt[time.Time]) time.Time { return o.V }
	number := func(o handlers.Opt[float64]) *float64 {
		if !o.OK {
			return nil
		}
		return &o.V
	}
	is := rowgen.Tracking{TrackingKey: want.TrackingKey, Status: got.Status.String(), Progression: number(got.Progression), Score: number(got.Score),
		ScoreMax: got.ScoreMax, TimeSpent: got.TimeSpent, First: time(got.FirstAccess), Last: time(got.LastAccess), Completion: time(got.FirstCompletion)}
	if diff := cmp.Diff(want.Tracking, is); diff != "" || got.FilledIn != want.FilledIn {
		t.Errorf("filled in %v: %s", got.FilledIn, diff)
	}
}

func compareIntervention(t *testing.T, rec rowgen.Record, got *handlers.InterventionRow) {
	t.Helper()
	want := *rec.Intervention
	is := rowgen.Intervention{GUID: got.GUIDFolded, SessionGUID: got.RefSessionGUID, Date: got.Date, Duration: got.Duration,
		RoomGUID: got.RoomGUIDFolded, RoomLabel: got.RoomLabel, Teacher: strings.ToLower(got.TeacherLogin), Status: got.StatusWord()}
	if got.RoomCapacity.OK {
		is.RoomCapacity = &got.RoomCapacity.V
	}
	if diff := cmp.Diff(want, is); diff != "" {
		t.Error(diff)
	}
}

// loadCatalogue holds the generator's catalogue in memory.
func loadCatalogue(t *testing.T) *handlers.Catalogue {
	t.Helper()
	dir := t.TempDir()
	if err := rowgen.WriteCatalog(dir); err != nil {
		t.Fatal(err)
	}
	folder, err := catalogue.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	c, bad, err := catalogue.LoadMemory(folder)
	if err != nil || bad != nil {
		t.Fatal(err, bad)
	}
	return c
}

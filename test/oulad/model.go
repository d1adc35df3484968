package oulad

import (
	"encoding/csv"
	"encoding/json"
	"os"
	"path/filepath"
	"time"
)

// Model says what must become of the dataset's rows. It is written from
// rules.md alone, apart from the rules in handlers, and knows only what these
// rows use: it is the other opinion that the real thing is held against.
type Model struct {
	Tracking   map[Key]Tracked   // what must be stored in the end
	Partitions map[int]*Counters // by source partition

	objects    map[string]bool                // learning object codes
	sessions   map[presentation]string        // guid by path code and title
	registered map[string]map[string]struct{} // session guids by reference number
}

// Key is what a stored row is about.
type Key struct{ RefNumber, LovCode, SessionGUID string }

// Tracked is a stored row. A zero time and a nil number are absent.
type Tracked struct {
	Status                        string
	Score                         *float64
	ScoreMax                      int
	First, Last, Completion       time.Time
	FilledIn                      bool // Completion was filled in as the event's day
	EventAt                       time.Time
	SourcePartition, SourceOffset int64
}

// Counters is what a partition's position must say.
type Counters struct{ Accepted, Rejected int64 }

// Outcome is what must become of one row: the messages of its rejection, or
// what it leaves under its key.
type Outcome struct {
	Messages []string // empty: accepted
	Key      Key
	Row      Tracked
}

// LoadModel reads a catalogue folder as WriteCatalog writes it.
func LoadModel(catalog string) (*Model, error) {
	m := &Model{Tracking: map[Key]Tracked{}, Partitions: map[int]*Counters{},
		objects: map[string]bool{}, sessions: map[presentation]string{}, registered: map[string]map[string]struct{}{}}
	pathCodes := map[string]string{} // by training id
	for _, file := range []struct {
		name string
		line func(cells []string)
	}{
		{"trainings", func(c []string) { pathCodes[c[0]] = c[2] }},
		{"sessions", func(c []string) { m.sessions[presentation{pathCodes[c[3]], c[2]}] = c[1] }},
		{"learning_objects", func(c []string) { m.objects[c[1]] = true }},
		{"learners", func(c []string) { m.registered[c[1]] = map[string]struct{}{} }},
		{"registrations", func(c []string) { m.registered[c[0]][c[1]] = struct{}{} }},
	} {
		f, err := os.Open(filepath.Join(catalog, file.name+".csv"))
		if err != nil {
			return nil, err
		}
		lines, err := csv.NewReader(f).ReadAll()
		f.Close()
		if err != nil {
			return nil, err
		}
		for _, cells := range lines[1:] {
			file.line(cells)
		}
	}
	return m, nil
}

// Apply takes the next row of a partition. Rows of one key must come in the
// order of their partition.
func (m *Model) Apply(partition int, offset int64, eventTime time.Time, value []byte) (Outcome, error) {
	var row struct {
		CandidateRefNumber              string
		LovCode                         json.Number
		SessionTitle, TrainingPathCode  string
		FirstAccessDate, LastAccessDate string
		TrackingStatus                  string
		Score                           *float64
		ScoreMax                        *int
	}
	if err := json.Unmarshal(value, &row); err != nil {
		return Outcome{}, err
	}
	if m.Partitions[partition] == nil {
		m.Partitions[partition] = &Counters{}
	}
	counters := m.Partitions[partition]

	var messages []string
	if !m.objects[row.LovCode.String()] {
		messages = append(messages, "Learning object version with code ["+row.LovCode.String()+"] is not found.")
	}
	session := m.sessions[presentation{row.TrainingPathCode, row.SessionTitle}]
	if _, registered := m.registered[row.CandidateRefNumber][session]; session == "" || !registered {
		messages = append(messages, "No registration found for given parameters.")
	}
	if messages != nil {
		counters.Rejected++
		return Outcome{Messages: messages}, nil
	}

	counters.Accepted++
	key := Key{row.CandidateRefNumber, row.LovCode.String(), session}
	tracked := Tracked{Status: row.TrackingStatus, Score: row.Score, ScoreMax: 100,
		First: day(row.FirstAccessDate), Last: day(row.LastAccessDate),
		EventAt: eventTime, SourcePartition: int64(partition), SourceOffset: offset}
	if row.ScoreMax != nil {
		tracked.ScoreMax = *row.ScoreMax
	}
	if tracked.Status == "passed" {
		tracked.Completion, tracked.FilledIn = eventTime.UTC().Truncate(24*time.Hour), true
		if before, stored := m.Tracking[key]; stored && before.Status == "passed" {
			tracked.Completion, tracked.FilledIn = before.Completion, before.FilledIn // the first is the first
		}
	}
	m.Tracking[key] = tracked
	return Outcome{Key: key, Row: tracked}, nil
}

func day(text string) time.Time {
	t, _ := time.Parse(time.DateOnly, text) // absent: the zero time
	return t
}

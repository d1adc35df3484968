package handlers

import "time"

// Error is one thing that is wrong with a row, in the words of rules.md.
type Error struct {
	Code    Code   `json:"code"`
	Field   string `json:"field,omitempty"` // the one column to blame, if there is one
	Value   string `json:"value,omitempty"` // its text, shown (cut at 80, controls escaped)
	Message string `json:"message"`
}

// Verdict is what becomes of a row.
type Verdict uint8

// The verdicts.
const (
	Accepted Verdict = iota + 1
	Rejected
	Ignored // a tombstone where the settings ignore them: an offset skipped
	Gone    // the row of a person who was erased: counted, and kept nowhere
	Waits   // nothing is wrong but that the catalogue does not know yet what the row refers to
)

// Decision is the outcome of one record.
type Decision struct {
	Record    *Record
	Rules     *Rules
	EventTime time.Time // UTC, to the microsecond
	Verdict   Verdict
	Errors    []Error  // Rejected: all that is wrong, in the order of rules.md. Waits: what will be wrong at the deadline
	WaitsFor  []string // Waits: what is missing, sorted (wait.go)
	// Replay is what a record of the replay topic says of itself; nil of all others.
	Replay *Replay

	// Exactly one is set where Verdict is Accepted, by the action.
	Tracking     *TrackingRow
	Intervention *InterventionRow
}

// Status is a tracking status, whatever word a source uses for it.
type Status uint8

// The statuses. StatusAbsent is stored as incomplete.
const (
	NotAttempted Status = iota + 1
	Incomplete
	Completed
	Passed
	Failed
	Browsed
)

// String returns the vendor's full word.
func (s Status) String() string {
	return [...]string{"", "notAttempted", "incomplete", "completed", "passed", "failed", "browsed"}[s]
}

// Done reports whether the status says that the learner got through: completed or passed.
func (s Status) Done() bool { return s == Completed || s == Passed }

// TrackingKey is the key of a tracking row.
type TrackingKey struct {
	RegistrationID   int64
	LearningObjectID int64
}

// TrackingRow is an accepted tracking row, typed. Texts are as sent, trimmed; "" = absent.
type TrackingRow struct {
	TrackingKey

	CandidateLogin, CandidateRefNumber, CandidateEmail string
	LovCode, LovGUID                                   string
	SessionGUID, SessionTitle, TrainingPathCode        string
	SessionID, TrainingID                              int64 // 0 = absent

	FirstAccess, LastAccess, FirstCompletion Opt[time.Time] // UTC
	FilledIn                                 bool           // FirstCompletion was not in the row: filled in by the rules
	Progression, Score                       Opt[float64]
	ScoreMax                                 int32
	Status                                   Status
	TimeSpent                                int64 // seconds

	// Delete: the status is notAttempted; the stored row goes.
	Delete bool

	// What the references mean, for the accepted event's key.
	LearnerID          int64
	LearningObjectGUID string
	RefSessionID       int64
	RefSessionGUID     string
	RefTrainingID      int64
}

// InterventionRow is an accepted intervention row, typed. Texts are as sent, trimmed; "" = absent.
type InterventionRow struct {
	GUID, GUIDFolded               string // interventionGuid, the key
	TrainingGUID, TrainingPathCode string
	SessionGUID, SessionTitle      string
	Date                           time.Time // UTC
	Duration                       int32     // hours
	RoomGUID, RoomGUIDFolded       string
	RoomLabel                      string
	RoomCapacity                   Opt[int32]
	TeacherLogin                   string
	Cancelled                      bool // interventionStatus: cancelled, else active

	// What the references mean.
	TeacherID      int64
	RefSessionID   int64
	RefSessionGUID string
	RefTrainingID  int64
}

// StatusWord returns the vendor's full word of the status: active or cancelled.
func (r *InterventionRow) StatusWord() string {
	if r.Cancelled {
		return "cancelled"
	}
	return "active"
}

// Stored is what a decision needs to know of the row under its key, read
// under that row's lock. The zero value: nothing is stored.
type Stored struct {
	// Known: a row or, for tracking, the memory of a deleted one is there,
	// and EventTime and the source say where it came from.
	Known           bool
	EventTime       time.Time
	SourceTopic     string
	SourcePartition int
	SourceOffset    int64
	// Done and FirstCompletion of a stored tracking row; both zero for a deleted one.
	Done            bool
	FirstCompletion Opt[time.Time]
}

// Room is what is stored of a room.
type Room struct {
	GUID, GUIDFolded string
	Label            string
	Capacity         Opt[int32]
	EventAt          Opt[time.Time] // absent: only a catalogue spoke of it
}

package handlers

import "math"

// The columns of both actions, in the order of the tables in rules.md. An
// alternative within a line of a table counts in its order there.

// kind is how a column's text is read.
type kind uint8

const (
	kindText     kind = iota // at most max code points
	kindInt                  // -?[0-9]+ within lo..hi
	kindFloat                // a JSON number; within lo..hi where bounded
	kindDateTime             // the action's own date format
	kindDuration             // timeGlobalFormat
	kindStatus               // a mapping's word
	kindIgnored              // its value is not looked at
)

// column is one column of an action.
type column struct {
	name    string
	member  string // name as a member of an object, up to its value
	kind    kind
	max     int   // kindText: code points
	lo, hi  int64 // kindInt, bounded kindFloat
	bounded bool
}

// table is the columns of one action.
type table struct {
	columns  []column
	ofLength [][]int // the indexes of the columns whose names have so many bytes
}

func newTable(columns ...column) *table {
	t := &table{columns: columns}
	for i, c := range columns {
		for len(t.ofLength) <= len(c.name) {
			t.ofLength = append(t.ofLength, nil)
		}
		t.ofLength[len(c.name)] = append(t.ofLength[len(c.name)], i)
		t.columns[i].member = `"` + c.name + `":`
	}
	return t
}

// find returns the index of the column of that name. Few names are of one
// length, and fewer of those end alike: this is quicker than a map.
func (t *table) find(name string) (i int, known bool) {
	if n := len(name); 0 < n && n < len(t.ofLength) {
		for _, i := range t.ofLength[n] {
			if c := t.columns[i].name; c[n-1] == name[n-1] && c == name {
				return i, true
			}
		}
	}
	return 0, false
}

const (
	maxText = 255
	maxGUID = 40
)

func text(name string) column { return column{name: name, max: maxText} }
func guid(name string) column { return column{name: name, max: maxGUID} }
func integer(name string, lo, hi int64) column {
	return column{name: name, kind: kindInt, lo: lo, hi: hi, bounded: true}
}

// The tracking columns by index.
const (
	colCandidateLogin = iota
	colCandidateRefNumber
	colCandidateEmail
	colLovCode
	colLovGUID
	colSessionGUID
	colSessionID
	colSessionTitle
	colTrainingPathCode
	colTrainingID
	colFirstAccessDate
	colLastAccessDate
	colFirstCompletionDate
	colProgression
	colTrackingStatus
	colTimeSpent
	colScore
	colScoreMax
	colIgnored
)

func trackingTable() *table {
	return newTable(
		text("candidateLogin"), text("candidateRefNumber"), text("candidateEmail"),
		text("lovCode"), guid("lovGuid"),
		guid("sessionGuid"), integer("sessionId", 1, math.MaxInt64), text("sessionTitle"),
		text("trainingPathCode"), integer("trainingId", 1, math.MaxInt64),
		column{name: "firstAccessDate", kind: kindDateTime},
		column{name: "lastAccessDate", kind: kindDateTime},
		column{name: "firstCompletionDate", kind: kindDateTime},
		column{name: "progression", kind: kindFloat, lo: 0, hi: 100, bounded: true},
		column{name: "trackingStatus", kind: kindStatus},
		column{name: "timeSpent", kind: kindDuration, lo: 0, hi: math.MaxInt32, bounded: true},
		column{name: "score", kind: kindFloat},
		integer("scoreMax", 1, math.MaxInt32),
		column{name: "ignoredColumn", kind: kindIgnored},
	)
}

// The intervention columns by index.
const (
	colInterventionGUID = iota
	colIvTrainingGUID
	colIvTrainingPathCode
	colIvSessionGUID
	colIvSessionTitle
	colInterventionDate
	colInterventionDuration
	colRoomGUID
	colRoomLabel
	colRoomCapacity
	colTeacherLogin
	colInterventionStatus
	colIvIgnored
)

func interventionTable() *table {
	return newTable(
		guid("interventionGuid"),
		guid("trainingGuid"), text("trainingPathCode"),
		guid("sessionGuid"), text("sessionTitle"),
		column{name: "interventionDate", kind: kindDateTime},
		integer("interventionDuration", 1, math.MaxInt32),
		guid("roomGuid"), text("roomLabel"),
		integer("roomCapacity", 0, math.MaxInt32),
		text("teacherLogin"),
		column{name: "interventionStatus", kind: kindStatus},
		column{name: "ignoredColumn", kind: kindIgnored},
	)
}

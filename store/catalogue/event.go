package catalogue

import (
	"slices"
	"strconv"
	"strings"

	"learnsink/handlers"
)

// ParseEvent reads a record of a kind's topic. Its value is a JSON object as a
// line of the kind's JSONL file, held to the same checks; no value is a
// tombstone: what the key names is no more.
//
// The key is the identity of what the record speaks of, and has to name what
// the value names: for registrations the JSON object of those of their columns
// that the value gives, for every other kind the text of the column by which a
// file upserts. Logins and guids are compared without regard to case.
//
// Of a tombstone no more than the columns of the key are set.
func ParseEvent(kind Kind, key, value []byte) (line Line, tombstone bool) {
	named := parseKey(kind, key)
	if named.Bad != "" || value == nil {
		return named, true
	}
	line = Line{Kind: kind}
	columns := columnsOf(kind)
	cells := make([]string, len(columns))
	if line.Bad = jsonCells(value, columns, cells); line.Bad == "" {
		line.parse(columns, cells)
	}
	if line.Bad == "" && line.Identity() != named.Identity() {
		line = Line{Kind: kind, Bad: "the record's key names another " + nameOfKey(kind) + " than its value"}
	}
	return line, false
}

// jsonCells reads an object into cells, by column, the quick way if it can.
func jsonCells(text []byte, columns, cells []string) (bad string) {
	if plainObject(string(text), columns, cells) {
		return ""
	}
	clear(cells)
	return object(text, columns, cells)
}

// nameOfKey is the column, or columns, that the key of a record holds.
func nameOfKey(kind Kind) string {
	if kind == Registrations {
		return "learner or session"
	}
	return columnsOf(kind)[0]
}

// parseKey reads a record's key.
func parseKey(kind Kind, key []byte) Line {
	line := Line{Kind: kind}
	if kind == Registrations {
		columns := columnsOf(kind)
		cells := make([]string, len(columns))
		if bad := jsonCells(key, columns, cells); bad != "" {
			line.Bad = bad
		} else {
			line.parse(columns, cells)
		}
	} else {
		line.parseIdentity(strings.TrimSpace(string(key)))
	}
	if line.Bad != "" {
		line.Bad = "the record's key: " + line.Bad
	}
	return line
}

// parseIdentity reads the one column of a key.
func (l *Line) parseIdentity(cell string) {
	c := reader{columns: columnsOf(l.Kind)[:1], cells: []string{cell}}
	if cell == "" {
		l.Bad = c.columns[0] + " is empty"
		return
	}
	switch l.Kind {
	case Learners:
		l.Learner = &Learner{Login: c.text(0)}
	case LearningObjects:
		l.LearningObject = &LearningObject{GUID: c.guid(0)}
	case Trainings:
		l.Training = &Training{ID: c.id(0)}
	case Sessions:
		l.Session = &Session{ID: c.id(0)}
	case Teachers:
		l.Teacher = &Teacher{Login: c.text(0)}
	case Rooms:
		l.Room = &Room{GUID: c.guid(0)}
	}
	if len(c.faults) > 0 {
		*l = Line{Kind: l.Kind, Bad: strings.Join(c.faults, "; ")}
	}
}

// Identity returns what a good line speaks of, folded: two lines of a kind
// speak of the same thing if these are the same. (Registrations may name one
// thing in several ways, and are then of several identities.)
func (l *Line) Identity() string {
	switch {
	case l.Learner != nil:
		return handlers.Fold(l.Learner.Login)
	case l.LearningObject != nil:
		return handlers.Fold(l.LearningObject.GUID)
	case l.Training != nil:
		return strconv.FormatInt(l.Training.ID, 10)
	case l.Session != nil:
		return strconv.FormatInt(l.Session.ID, 10)
	case l.Registration != nil:
		r := l.Registration
		return strings.Join([]string{handlers.Fold(r.LearnerLogin), r.LearnerRefNumber, handlers.Fold(r.LearnerEmail),
			handlers.Fold(r.SessionGUID), strconv.FormatInt(r.SessionID, 10)}, "\x00") // which no text holds
	case l.Teacher != nil:
		return handlers.Fold(l.Teacher.Login)
	case l.Room != nil:
		return handlers.Fold(l.Room.GUID)
	}
	return ""
}

// KindOf returns the kind of a name.
func KindOf(name string) (Kind, bool) {
	return Kind(name), slices.Contains(Kinds(), Kind(name))
}

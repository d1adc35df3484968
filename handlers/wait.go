package handlers

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// A row may come before what it refers to does. Where its source says so
// (Source.Wait), and nothing else is wrong with it, it waits: not for a time,
// but for something. That something has a name, such as `session guid s-12`,
// `learner login ann` or `registration of learner login ann in session id 7`.
//
// Two rows with the same name in WaitsFor ask the catalogue the same question:
// as long as it is missing for one of them it is missing for the other. So one
// row for each name tells of them all.

// Lacking reports whether the row is rejected, and nothing is wrong with it but
// that the catalogue does not know what it refers to.
func (d *Decision) Lacking() bool {
	if d.Verdict != Rejected {
		return false
	}
	for i := range d.Errors {
		if !d.Errors[i].Code.Lacking() {
			return false
		}
	}
	return true
}

// Lacking reports whether the code says that something is not in the catalogue.
func (c Code) Lacking() bool {
	switch c {
	case LONotFound, NoRegistration, TrainingGUIDNotFound, TrainingPathNotFound, SessionGUIDNotFound, SessionTitleNotFound, TeacherNotFound:
		return true
	}
	return false
}

// LackingCodes returns the codes that are Lacking.
func LackingCodes() []Code {
	return []Code{LONotFound, NoRegistration, TrainingGUIDNotFound, TrainingPathNotFound, SessionGUIDNotFound, SessionTitleNotFound, TeacherNotFound}
}

// Lacking returns what is to be asked of the catalogue before Wait can say what
// rows wait for, and whether any is to wait at all. Rows and decisions belong
// together, one by one.
func Lacking(rows []Row, decisions []Decision) (refs *References, any bool) {
	refs = NewReferences()
	for i := range decisions {
		if !decisions[i].Lacking() {
			continue
		}
		any = true
		if rows[i].lacksRegistration(&decisions[i]) {
			refs.Contexts[rows[i].context()] = struct{}{}
		}
	}
	return refs, any
}

// Wait makes those rows wait that nothing is wrong with but what is missing.
// facts are those of the decisions, with the answers to what Lacking asks, all
// of one catalogue.
func Wait(rows []Row, decisions []Decision, facts *Facts) {
	for i := range decisions {
		if d := &decisions[i]; d.Lacking() {
			d.Verdict, d.WaitsFor = Waits, rows[i].missing(d, facts)
		}
	}
}

func (w *Row) lacksRegistration(d *Decision) bool {
	return slices.ContainsFunc(d.Errors, func(e Error) bool { return e.Code == NoRegistration })
}

// context is what a tracking row says of its session.
func (w *Row) context() Context {
	f := &w.fields
	return Context{w.session.guid, f[colSessionID].num, f[colSessionTitle].text, f[colTrainingPathCode].text, f[colTrainingID].num}
}

// missing names what a row lacks.
func (w *Row) missing(d *Decision, facts *Facts) (names []string) {
	add := func(name string) {
		if name = bounded(name); !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	for i := range d.Errors {
		switch d.Errors[i].Code {
		case LONotFound:
			add(w.missingObject(facts))
		case NoRegistration:
			for _, name := range w.missingRegistration(facts) {
				add(name)
			}
		case TrainingGUIDNotFound:
			add(named("training", "guid", w.training.guid))
		case TrainingPathNotFound:
			if _, known := facts.TrainingsByPathCode[w.training.code]; known { // of another training
				add(w.trainingName())
			} else {
				add(named("training", "path code", w.training.code))
			}
		case SessionGUIDNotFound:
			add(named("session", "guid", w.session.guid) + " of " + w.trainingName())
		case SessionTitleNotFound:
			add(named("session", "guid", w.session.guid, "title", w.session.title) + " of " + w.trainingName())
		case TeacherNotFound:
			add(named("teacher", "login", w.teacher))
		}
	}
	slices.Sort(names)
	return names
}

func (w *Row) trainingName() string {
	return named("training", "guid", w.training.guid, "path code", w.training.code)
}

func (w *Row) missingObject(facts *Facts) string {
	code := w.fields[colLovCode].text
	if _, known := facts.LearningObjectsByGUID[w.lovGUID]; w.lovGUID != "" && !known {
		code = "" // it may have any
	}
	return named("learning object", "guid", w.lovGUID, "code", code)
}

// missingRegistration names what keeps a tracking row from its registration:
// the learner and the session, as far as they are not there, else the
// registration itself.
func (w *Row) missingRegistration(facts *Facts) (names []string) {
	c := w.context()
	learner := named("learner", "login", w.learner.Login, "reference number", w.learner.RefNumber, "e-mail", w.learner.Email)
	training := named("training", "path code", c.TrainingPathCode, "id", number(c.TrainingID))
	session := named("session", "guid", c.SessionGUID, "id", number(c.SessionID), "title", c.SessionTitle)
	if training != "" {
		session += " of " + training
	}
	if facts.Learners[w.learner] == 0 {
		names = append(names, learner)
	}
	switch found := facts.Contexts[c]; {
	case found.Session:
	case training != "" && !found.Training:
		names = append(names, training)
	default:
		names = append(names, session)
	}
	if len(names) == 0 {
		names = append(names, "registration of "+learner+" in "+session)
	}
	return names
}

func number(n int64) string {
	if n == 0 {
		return ""
	}
	return strconv.FormatInt(n, 10)
}

// named names a thing by pairs of what is said of it; "" where nothing is.
func named(kind string, said ...string) string {
	var pairs []string
	for i := 0; i < len(said); i += 2 {
		if said[i+1] != "" {
			pairs = append(pairs, said[i]+" "+quoted(said[i+1]))
		}
	}
	if len(pairs) == 0 {
		return ""
	}
	return kind + " " + strings.Join(pairs, ", ")
}

// quoted is a value as names hold it: as it is where it is one plain word, so
// that no value can be taken for what stands around it.
func quoted(value string) string {
	plain := func(r rune) bool {
		return unicode.IsLetter(r) || unicode.IsDigit(r) || strings.ContainsRune("._-@+:/", r)
	}
	if strings.ContainsFunc(value, func(r rune) bool { return !plain(r) }) {
		return strconv.Quote(value)
	}
	return value
}

// maxName is how long a name may be, in bytes: an index holds it.
const maxName = 240

// bounded cuts a name that is too long, and tells it from others by a hash.
func bounded(name string) string {
	if len(name) <= maxName {
		return name
	}
	sum := sha256.Sum256([]byte(name))
	cut := maxName - 20
	for !utf8.RuneStart(name[cut]) {
		cut--
	}
	return name[:cut] + "…" + hex.EncodeToString(sum[:8])
}

// WaitingRow is a row in the waiting room.
type WaitingRow struct {
	ID       string
	Record   Record // without its timestamp: EventAt says what counts
	EventAt  time.Time
	WaitsFor []string
}

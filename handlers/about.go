package handlers

import (
	"strings"
	"unicode/utf8"
)

// Template is the error's message with its values taken out: what errors of
// one kind have in common. The columns, bounds and words that a message names
// beside the value stay: `Field [score] has invalid value [ ], number expected.`
func (e Error) Template() string {
	from := 0
	switch e.Code {
	case ValueType, ValueOutOfRange:
		from = len("Field [" + e.Field + "] has invalid value ")
	case StatusUnknown, StatusInvalid, LONotFound, TrainingGUIDNotFound, TrainingPathNotFound,
		SessionGUIDNotFound, SessionTitleNotFound, DateNotValid, TeacherNotFound, "source_unknown":
	case ColumnUnknown: // the column's name is no value; how many more there are is one
		if e.Field != "" || e.Message == namelessUnknown {
			return e.Message
		}
		if before, _, ok := strings.Cut(e.Message, "["); ok {
			if _, after, ok := strings.Cut(e.Message, "]"); ok {
				return before + "[ ]" + after
			}
		}
		return e.Message
	default:
		return e.Message
	}
	if from > len(e.Message) {
		return e.Message
	}
	// The value is known, whatever brackets it holds itself.
	before, _, ok := strings.Cut(e.Message[from:], "[")
	to := from + len(before) + len("[") + len(e.Value)
	if !ok || e.Value == "" || to >= len(e.Message) || e.Message[to] != ']' {
		return e.Message
	}
	return e.Message[:from] + before + "[ " + e.Message[to:]
}

// About is what a row speaks of, in its own words, whatever is wrong with it:
// for finding the rejections of a person or a thing. "" is not said.
type About struct {
	// Learner holds every name of the learner, folded as lookups have them.
	Learner LearnerRef
	// Teacher is the teacher's folded login.
	Teacher string
	// Intervention is the folded interventionGuid.
	Intervention string
	// Registration is which learner in which session a tracking row means, as
	// it is looked up: `candidateLogin ines, sessionGuid se-11`. "": the row
	// does not name both.
	Registration string
}

// Subject is the one text that tells learners, or interventions, apart; "":
// the row does not say.
func (a *About) Subject() string {
	for _, name := range [...]string{a.Learner.Login, a.Learner.RefNumber, a.Learner.Email, a.Intervention} {
		if name != "" {
			return name
		}
	}
	return ""
}

// About reads what the value of a record speaks of, by the names of the
// action's columns alone: no other setting counts. Of what is no row it reads
// as much as comes before the fault.
func (r *Rules) About(value []byte) About { return r.table.about(r.action, value) }

// AboutRow is Rules.About by any settings of the action.
func AboutRow(action Action, value []byte) About {
	if action == Intervention {
		return interventionTable().about(action, value)
	}
	return trackingTable().about(action, value)
}

func (t *table) about(action Action, value []byte) (a About) {
	if !utf8.Valid(value) {
		return a
	}
	var texts [colIgnored + 1]string
	p := scanner{s: string(value)}
	for more := p.open(); more; more = p.more() {
		name, ok := p.name()
		if !ok {
			break
		}
		i, known := t.find(name)
		if !known {
			if !p.skip() {
				break
			}
			continue
		}
		_, text, ok := p.value()
		if !ok {
			break
		}
		texts[i] = strings.TrimSpace(text)
	}
	if action == Intervention {
		return About{Intervention: Fold(texts[colInterventionGUID]), Teacher: Fold(texts[colTeacherLogin])}
	}
	a.Learner = LearnerRef{Fold(texts[colCandidateLogin]), texts[colCandidateRefNumber], Fold(texts[colCandidateEmail])}
	a.Registration = t.registration(&texts)
	return a
}

// registration is About.Registration of a tracking row's texts.
func (t *table) registration(texts *[colIgnored + 1]string) string {
	var b strings.Builder
	add := func(i int, text string) bool {
		switch i {
		case colCandidateLogin, colCandidateEmail, colSessionGUID:
			text = Fold(text)
		}
		if text == "" {
			return false
		}
		if b.Len() > 0 {
			b.WriteString(", ")
		}
		b.WriteString(t.columns[i].name + " " + show(text))
		return true
	}
	learner, session := false, false
	for i := colCandidateLogin; i <= colCandidateEmail; i++ {
		learner = add(i, texts[i]) || learner
	}
	for _, i := range contextColumns {
		session = add(i, texts[i]) || session
	}
	if !learner || !session {
		return ""
	}
	return b.String()
}

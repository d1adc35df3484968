package store

import (
	"maps"
	"slices"
	"strconv"

	"learnsink/handlers"
)

// faultRows are, for the lines of rejectionRows, what they are found and
// grouped by: the columns of rejection, and the lines of rejection_fault.
type faultRows struct {
	sender, names         []string
	subject, registration []*int64

	lines faultLines
	// attempts: the state of some is not known here (insertRejections), so a
	// trigger makes the lines of all.
	attempts bool

	known map[Fault]int64     // of the batch, with their ids
	texts map[string][2]int64 // of the senders: digests
}

// faultLines are lines of rejection_fault.
type faultLines struct {
	row            []int32 // the line of rejection, from 1 on
	fault, sender  []int64
	subject, value []*int64
	state          []string // its letter
}

func newFaultRows() faultRows {
	return faultRows{known: map[Fault]int64{}, texts: map[string][2]int64{}}
}

// add adds a rejection.
func (r *faultRows) add(d *handlers.Decision) {
	about := d.Rules.About(d.Record.Value)
	sender := storable(d.Sender()) // at most 255 characters
	senders, ok := r.texts[sender]
	if !ok {
		senders = [2]int64{digest(sender), senderDigest(sender)}
		r.texts[sender] = senders
	}
	names := digestsOf(&about)
	subject := optDigest(about.Intervention)
	if len(names) > 0 && d.Rules.Action() == handlers.Tracking {
		subject = &names[0]
	}
	if sender != "" {
		names = append(names, senders[1])
	}
	registration := optDigest(storable(about.Registration))
	r.sender, r.names = append(r.sender, sender), append(r.names, bigints(names))
	r.subject, r.registration = append(r.subject, subject), append(r.registration, registration)

	state := RejectionOpen
	if d.Verdict == handlers.Waits {
		state = RejectionWaiting
	}
	r.attempts = r.attempts || d.Replay != nil && d.Replay.Of != ""
	l, first := &r.lines, len(r.lines.fault)
	for _, e := range storableErrors(d.Errors) {
		fault := FaultOf(d.Rules.Action(), &e)
		id, ok := r.known[fault]
		if !ok {
			id = fault.id()
			r.known[fault] = id
		}
		if slices.Contains(l.fault[first:], id) {
			continue // columns whose names begin alike, say
		}
		value := optDigest(e.Value)
		if e.Code == handlers.NoRegistration {
			value = registration
		}
		l.row, l.fault, l.sender = append(l.row, int32(len(r.sender))), append(l.fault, id), append(l.sender, senders[0])
		l.subject, l.value, l.state = append(l.subject, subject), append(l.value, value), append(l.state, state.letter())
	}
}

// digestsOf are the digests of the names that a row has for persons: of a
// learner the one first that tells learners apart.
func digestsOf(a *handlers.About) []int64 {
	names := make([]int64, 0, 4)
	for _, name := range [...]string{a.Learner.Login, a.Learner.RefNumber, a.Learner.Email} {
		if name != "" {
			names = append(names, digest(name))
		}
	}
	if a.Teacher != "" {
		names = append(names, teacherDigest(a.Teacher))
	}
	return names
}

// bigints is an array as PostgreSQL reads it.
func bigints(numbers []int64) string {
	text := []byte{'{'}
	for i, n := range numbers {
		if i > 0 {
			text = append(text, ',')
		}
		text = strconv.AppendInt(text, n, 10)
	}
	return string(append(text, '}'))
}

// teacherDigest is a teacher's name among those of learners.
func teacherDigest(login string) int64 { return digest("teacher\n" + login) }

// senderDigest is a sender among those names.
func senderDigest(sender string) int64 { return digest("sender\n" + sender) }

// args are the columns of rejection.
func (r *faultRows) args() []any { return []any{r.sender, r.names, r.subject, r.registration} }

// lineArgs are the lines of rejection_fault that apply brings along.
func (r *faultRows) lineArgs() []any {
	l := r.lines
	if r.attempts {
		l = faultLines{}
	}
	return []any{l.row, l.fault, l.sender, l.subject, l.value, l.state}
}

// insertFaults adds what was not known to be wrong with any row so far.
const insertFaults = `
INSERT INTO learnsink.fault (id, action, code, field, message)
SELECT u.* FROM unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::text[]) AS u(id, action, code, field, message)
WHERE NOT EXISTS (SELECT FROM learnsink.fault f WHERE f.id = u.id)
ON CONFLICT (id) DO NOTHING`

// faultArgs are those of insertFaults, in order: two batches that find the
// same wait for each other, never in a circle.
func (r *faultRows) faultArgs() []any {
	var actions, codes, fields, messages []string
	byID := map[int64]Fault{}
	for f, id := range r.known {
		byID[id] = f
	}
	ids := slices.Sorted(maps.Keys(byID))
	for _, id := range ids {
		f := byID[id]
		actions, codes = append(actions, string(f.Action)), append(codes, string(f.Code))
		fields, messages = append(fields, f.Field), append(messages, f.Message)
	}
	return []any{ids, actions, codes, fields, messages}
}

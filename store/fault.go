package store

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"learnsink/handlers"
)

// faultRows are, for the lines of rejectionRows, what they are found and
// grouped by: the columns of rejection, and the lines of rejection_fault.
type faultRows struct {
	sender, names         []string
	subject, registration []*int64
	faults, values        []string // arrays: a line of rejection_fault for each member
	senderDigests         []int64
	known                 map[int64]Fault // of the batch, by id
	senders               map[string]int64
}

func newFaultRows() faultRows {
	return faultRows{known: map[int64]Fault{}, senders: map[string]int64{}}
}

// add adds a rejection.
func (r *faultRows) add(d *handlers.Decision) {
	errors := storableErrors(d.Errors)
	about := d.Rules.About(d.Record.Value)
	registration := optDigest(storable(about.Registration))
	sender := storable(d.Sender()) // at most 255 characters
	r.sender = append(r.sender, sender)
	r.senderDigests = append(r.senderDigests, r.digestOf(sender))
	r.names = append(r.names, namesOf(&about, sender))
	r.subject = append(r.subject, optDigest(about.Subject()))
	r.registration = append(r.registration, registration)
	var faults, values strings.Builder
	var seen []int64
	for i := range errors {
		e := &errors[i]
		f := FaultOf(d.Rules.Action(), e)
		id := f.id()
		if slices.Contains(seen, id) {
			continue // columns whose names begin alike, say
		}
		seen = append(seen, id)
		r.known[id] = f
		value := optDigest(e.Value)
		if e.Code == handlers.NoRegistration {
			value = registration
		}
		separate := ","
		if i == 0 {
			separate = "{"
		}
		faults.WriteString(separate + strconv.FormatInt(id, 10))
		values.WriteString(separate + nullable(value))
	}
	r.faults = append(r.faults, faults.String()+"}")
	r.values = append(r.values, values.String()+"}")
}

// digestOf is digest; most rows of a batch have the same few senders.
func (r *faultRows) digestOf(sender string) int64 {
	d, ok := r.senders[sender]
	if !ok {
		d = digest(sender)
		r.senders[sender] = d
	}
	return d
}

// namesOf is rejection.names of a row, as PostgreSQL reads it.
func namesOf(a *handlers.About, sender string) string {
	var names []string
	add := func(name string, digest func(string) int64) {
		if name != "" {
			names = append(names, strconv.FormatInt(digest(name), 10))
		}
	}
	add(a.Learner.Login, digest)
	add(a.Learner.RefNumber, digest)
	add(a.Learner.Email, digest)
	add(a.Teacher, teacherDigest)
	add(sender, senderDigest)
	return "{" + strings.Join(names, ",") + "}"
}

// teacherDigest is a teacher's name among those of learners.
func teacherDigest(login string) int64 { return digest("teacher\n" + login) }

// senderDigest is a sender among those names.
func senderDigest(sender string) int64 { return digest("sender\n" + sender) }

func nullable(n *int64) string {
	if n == nil {
		return "NULL"
	}
	return strconv.FormatInt(*n, 10)
}

func (r *faultRows) args() []any {
	return []any{r.sender, r.names, r.subject, r.registration, r.faults, r.values, r.senderDigests}
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
	ids := slices.Sorted(maps.Keys(r.known))
	for _, id := range ids {
		f := r.known[id]
		actions, codes = append(actions, string(f.Action)), append(codes, string(f.Code))
		fields, messages = append(fields, f.Field), append(messages, f.Message)
	}
	return []any{ids, actions, codes, fields, messages}
}

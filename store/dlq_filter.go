package store

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"learnsink/handlers"
)

// RejectionState is where a rejection stands.
type RejectionState string

// The states of a rejection.
const (
	RejectionOpen        RejectionState = "open"
	RejectionReplaying   RejectionState = "replaying"   // in a job
	RejectionWaiting     RejectionState = "waiting"     // for what it refers to
	RejectionResolved    RejectionState = "resolved"    // a replay was accepted
	RejectionSuperseded  RejectionState = "superseded"  // what is stored is newer
	RejectionQuarantined RejectionState = "quarantined" // failed too often: a person lets it out
	RejectionArchived    RejectionState = "archived"
	RejectionErased      RejectionState = "erased" // of a person who was
)

// RejectionStates returns every state.
func RejectionStates() []RejectionState {
	return []RejectionState{RejectionOpen, RejectionReplaying, RejectionWaiting, RejectionResolved, RejectionSuperseded, RejectionQuarantined, RejectionArchived, RejectionErased}
}

// letter is the state in rejection_fault: learnsink.state_letter in SQL.
func (s RejectionState) letter() string {
	if s == RejectionResolved {
		return "d"
	}
	return string(s[:1])
}

// RejectionFilter says which rejections are meant: those that fit all that is
// set. The zero value means all of them. Group, Codes, Fields and Value are
// about one and the same error of a row.
type RejectionFilter struct {
	IDs    []string
	States []RejectionState // one of these; none: any
	Action handlers.Action
	Groups []string        // keys of groups (Fault.Key): one of these
	Codes  []handlers.Code // one of these
	Fields []string        // one of these
	Value  string          // the error's value; of registration_not_found the registration, as groups show it
	Sender *string         // "": rows that name none
	// Learner is a login, a reference number or an e-mail, as the row has it;
	// logins and e-mails without regard to case. Teacher is a teacher's login.
	Learner, Teacher string
	Since, Until     time.Time // rejected in [Since, Until)
	Topic            string    // the source
	Partition        *int
	From, To         *int64 // source offsets [From, To]
	Job              int64  // sent by this job last
}

// Check refuses what cannot be meant, naming the flag.
func (f *RejectionFilter) Check() error {
	for _, s := range f.States {
		if !slices.Contains(RejectionStates(), s) {
			return fmt.Errorf("state %q is not one of %v", s, RejectionStates())
		}
	}
	for _, g := range f.Groups {
		if _, ok := parseFaultKey(g); !ok {
			return fmt.Errorf("group %q is not a key of `learnsink dlq groups`, 12 digits from 0 to f", g)
		}
	}
	if f.Action != "" && f.Action != handlers.Tracking && f.Action != handlers.Intervention {
		return fmt.Errorf("action %q is not tracking or intervention", f.Action)
	}
	if f.Topic == "" && (f.Partition != nil || f.From != nil || f.To != nil) {
		return fmt.Errorf("a partition or offsets say nothing without a topic")
	}
	if !f.Since.IsZero() && !f.Until.IsZero() && !f.Since.Before(f.Until) {
		return fmt.Errorf("nothing is since %s and until %s", f.Since.Format(time.RFC3339), f.Until.Format(time.RFC3339))
	}
	return nil
}

// Selects reports whether the filter says anything beyond states.
func (f *RejectionFilter) Selects() bool {
	return len(f.IDs)+len(f.Groups)+len(f.Codes)+len(f.Fields) > 0 || f.Action != "" || f.Value != "" || f.Sender != nil || f.Learner != "" || f.Teacher != "" ||
		!f.Since.IsZero() || !f.Until.IsZero() || f.Topic != "" || f.Partition != nil || f.From != nil || f.To != nil || f.Job != 0
}

// Selection is what was asked for, as a job or an operation keeps it: JSON
// without data of rows. Of a value, a learner or a teacher it says that there
// was one; of ids how many, beyond a few.
func (f *RejectionFilter) Selection() json.RawMessage {
	said := map[string]any{}
	put := func(name string, set bool, value any) {
		if set {
			said[name] = value
		}
	}
	put("ids", len(f.IDs) > 0, f.IDs)
	if len(f.IDs) > 10 {
		said["ids"] = len(f.IDs)
	}
	put("states", len(f.States) > 0, f.States)
	put("action", f.Action != "", f.Action)
	put("groups", len(f.Groups) > 0, f.Groups)
	put("codes", len(f.Codes) > 0, f.Codes)
	put("fields", len(f.Fields) > 0, f.Fields)
	put("value", f.Value != "", true)
	put("sender", f.Sender != nil, f.Sender)
	put("learner", f.Learner != "", true)
	put("teacher", f.Teacher != "", true)
	put("since", !f.Since.IsZero(), f.Since.UTC())
	put("until", !f.Until.IsZero(), f.Until.UTC())
	put("topic", f.Topic != "", f.Topic)
	put("partition", f.Partition != nil, f.Partition)
	put("from", f.From != nil, f.From)
	put("to", f.To != nil, f.To)
	put("job", f.Job != 0, f.Job)
	text, err := json.Marshal(said)
	if err != nil { // texts and numbers alone: cannot be
		return json.RawMessage("{}")
	}
	return text
}

// sqlArgs are the arguments of a statement that is put together.
type sqlArgs []any

// add adds an argument and returns how the statement calls it.
func (a *sqlArgs) add(v any) string {
	*a = append(*a, v)
	return fmt.Sprintf("$%d", len(*a))
}

// onRejection returns what the filter asks of a line r of rejection and only
// that table knows.
func (f *RejectionFilter) onRejection(a *sqlArgs) (all []string) {
	add := func(set bool, condition string, v any) {
		if set {
			all = append(all, condition+" "+a.add(v))
		}
	}
	if len(f.IDs) > 0 {
		all = append(all, "r.id = ANY ("+a.add(f.IDs)+"::text[])")
	}
	add(f.Learner != "", "r.names &&", []int64{digest(f.Learner), digest(handlers.Fold(f.Learner))})
	add(f.Teacher != "", "r.names &&", []int64{teacherDigest(handlers.Fold(f.Teacher))})
	add(f.From != nil, "r.source_offset >=", f.From)
	add(f.To != nil, "r.source_offset <=", f.To)
	add(f.Job != 0, "r.job =", f.Job)
	return all
}

// shared returns what the filter asks of a line of rejection that
// rejection_fault knows as well: of the first, but for the state.
func (f *RejectionFilter) shared(a *sqlArgs) (all []string) {
	add := func(set bool, condition string, v any) {
		if set {
			all = append(all, condition+" "+a.add(v))
		}
	}
	add(f.Action != "", "r.action =", string(f.Action))
	add(f.Sender != nil, "r.sender =", f.Sender)
	add(f.Topic != "", "r.source_topic =", f.Topic)
	add(f.Partition != nil, "r.source_partition =", f.Partition)
	add(!f.Since.IsZero(), "r.rejected_at >=", f.Since)
	add(!f.Until.IsZero(), "r.rejected_at <", f.Until)
	return all
}

// onFault returns what the filter asks of a line f of rejection_fault, but for
// the fault.
func (f *RejectionFilter) onFault(a *sqlArgs) (all []string) {
	add := func(set bool, condition string, v any) {
		if set {
			all = append(all, condition+" "+a.add(v))
		}
	}
	if len(f.States) > 0 {
		var letters []string
		for _, s := range f.States {
			letters = append(letters, "'"+s.letter()+"'")
		}
		all = append(all, "f.state IN ("+strings.Join(letters, ", ")+")")
	}
	add(f.Value != "", "f.value =", digest(f.Value))
	if f.Sender != nil {
		add(true, "f.sender =", digest(*f.Sender))
	}
	add(f.Topic != "", "f.topic =", digest(f.Topic))
	add(f.Partition != nil, "f.partition =", f.Partition)
	add(!f.Since.IsZero(), "f.rejected_at >=", f.Since)
	add(!f.Until.IsZero(), "f.rejected_at <", f.Until)
	return all
}

// byError reports whether the filter is about what is wrong.
func (f *RejectionFilter) byError() bool {
	return len(f.Groups)+len(f.Codes)+len(f.Fields) > 0 || f.Value != ""
}

// faultIDs returns the ids of the faults that the filter means; nil: any.
func (f *RejectionFilter) faultIDs(ctx context.Context, tx pgx.Tx, byAction bool) ([]int64, error) {
	if len(f.Groups)+len(f.Codes)+len(f.Fields) == 0 && (!byAction || f.Action == "") {
		return nil, nil
	}
	var a sqlArgs
	where := []string{"true"}
	if f.Action != "" {
		where = append(where, "action = "+a.add(string(f.Action)))
	}
	if len(f.Groups) > 0 {
		var ids []int64
		for _, key := range f.Groups {
			id, _ := parseFaultKey(key)
			ids = append(ids, id)
		}
		where = append(where, "id = ANY ("+a.add(ids)+"::bigint[])")
	}
	if len(f.Codes) > 0 {
		var codes []string
		for _, c := range f.Codes {
			codes = append(codes, string(c))
		}
		where = append(where, "code = ANY ("+a.add(codes)+"::text[])")
	}
	if len(f.Fields) > 0 {
		where = append(where, "field = ANY ("+a.add(f.Fields)+"::text[])")
	}
	rows, err := tx.Query(ctx, "SELECT id FROM learnsink.fault WHERE "+strings.Join(where, " AND "), a...)
	if err != nil {
		return nil, err
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if ids == nil {
		ids = []int64{}
	}
	return ids, err
}

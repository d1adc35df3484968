package dlq

import (
	"fmt"
	"strings"

	"learnsink/handlers"
	"learnsink/store"
)

// missing is what a row refers to in vain, by code.
func missing(code handlers.Code) string {
	switch code {
	case handlers.NoRegistration:
		return "registration"
	case handlers.LONotFound:
		return "learning object version"
	case handlers.TrainingGUIDNotFound, handlers.TrainingPathNotFound:
		return "training"
	case handlers.SessionGUIDNotFound, handlers.SessionTitleNotFound:
		return "session"
	case handlers.TeacherNotFound:
		return "teacher"
	}
	return ""
}

// Summary says in a line what a group comes to: `one missing registration:
// 410 rows`. "": nothing beyond its message.
func Summary(g *store.RejectionGroup) string {
	what := missing(g.Code)
	if what != "" {
		what = "missing " + what
	} else if g.Code != handlers.ColumnUnknown { // whatever stands in it
		what = "value"
	}
	switch {
	case what == "" || g.Distinct == 0:
		return ""
	case g.Distinct == 1:
		return fmt.Sprintf("one %s: %s", what, rows(g.Rows))
	}
	return fmt.Sprintf("%d %ss: %s", g.Distinct, what, rows(g.Rows))
}

func rows(n int64) string {
	if n == 1 {
		return "1 row"
	}
	return fmt.Sprintf("%d rows", n)
}

// Shares says texts and how many rows have each, in a line: `a (3), b (1)`.
// none is what an empty text is called.
func Shares(shares []store.Share, none string) string {
	var all []string
	for _, s := range shares {
		text := s.Text
		if text == "" {
			text = none
		}
		all = append(all, fmt.Sprintf("%s (%d)", text, s.Rows))
	}
	return strings.Join(all, ", ")
}

// About names the learner, or the intervention, that a rejected row is about,
// as the row says it; "" where it does not.
func About(r *store.Rejection) string {
	about := handlers.AboutRow(r.Action, r.Value)
	return about.Subject()
}

package handlers

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// Code names a kind of rejection. Codes are stable: people script against them.
type Code string

// The codes, in the order of rules.md.
const (
	RecordNotJSON    Code = "record_not_json"
	RecordEmpty      Code = "record_empty"
	ColumnUnknown    Code = "column_unknown"
	ValueType        Code = "value_type"
	ValueTooLong     Code = "value_too_long"
	ValueOutOfRange  Code = "value_out_of_range"
	TextNotStorable  Code = "text_not_storable"
	FieldEmpty       Code = "field_empty"
	Superseded       Code = "superseded"
	DatabaseRefused  Code = "database_refused" // ours: PostgreSQL found wrong what the rules let pass
	SourceUnknown    Code = "source_unknown"   // ours: a record of the replay topic names no source that there is
	LOReferenceGone  Code = "lo_reference_missing"
	LearnerRefGone   Code = "learner_reference_missing"
	ContextMissing   Code = "context_missing"
	DateTimeMismatch Code = "datetime_mismatch"
	StatusUnknown    Code = "status_unknown"
	LONotFound       Code = "lo_not_found"
	LOCrossKnowledge Code = "lo_provided_by_crossknowledge"
	LOEasyQuizz      Code = "lo_is_easyquizz"
	NoRegistration   Code = "registration_not_found"
	NotCompleted     Code = "completion_without_completed"

	CompletionBeforeAccess  Code = "first_completion_before_first_access"
	CompletionAfterAccess   Code = "first_completion_after_last_access"
	LastBeforeFirstAccess   Code = "last_access_before_first_access"
	CompletionAfterNow      Code = "first_completion_after_now"
	LastAccessAfterNow      Code = "last_access_after_now"
	FirstCompletionRequired Code = "first_completion_missing"

	TrainingGUIDNotFound Code = "training_guid_not_found"
	TrainingPathNotFound Code = "training_path_code_not_found"
	SessionGUIDNotFound  Code = "session_guid_not_found"
	SessionTitleNotFound Code = "session_title_not_found"
	DateNotValid         Code = "date_not_valid"
	TeacherNotFound      Code = "teacher_not_found"
	StatusInvalid        Code = "status_invalid"
)

// sentences are the messages that name no value.
var sentences = map[Code]string{
	RecordNotJSON:   "Record is not a JSON object.",
	RecordEmpty:     "Record has no value.",
	Superseded:      "Row is older than what is stored.",
	LOReferenceGone: "At least one of these element must be present: learning object version code or GUID.",
	LearnerRefGone:  "At least one of these element must be present: learner login, reference number or email.",
	// The blank before the colon and the lone ' at the end are the vendor's.
	ContextMissing:          `At least one of the following to provide a precise context : "session GUID" or the couple "session title" & "training code".'`,
	DateTimeMismatch:        "Your dateTime information mismatches preset dateTimeFormat",
	LOCrossKnowledge:        "This learning object is provided by CrossKnowledge, and this report cannot be updated.",
	LOEasyQuizz:             "This learning object is an EasyQuizz, and this report cannot be updated.",
	NoRegistration:          "No registration found for given parameters.",
	NotCompleted:            "You cannot set a first completion date if the LO is not completed.",
	CompletionBeforeAccess:  "You cannot set a firstCompletionDate previous than firstAccessDate",
	CompletionAfterAccess:   "You cannot set a firstCompletionDate after than lastAccessDate",
	LastBeforeFirstAccess:   "You cannot set a lastAccessDate previous than firstAccessDate",
	CompletionAfterNow:      "You cannot set a firstCompletionDate after than now",
	LastAccessAfterNow:      "You cannot set a lastAccessDate after than now",
	FirstCompletionRequired: "You cannot set values to firstAccessDate, lastAccessDate and status completed if there isn't the firstCompletionDate value",
}

// plain is an error that no single column is to blame for.
func plain(c Code) Error { return Error{Code: c, Message: sentences[c]} }

// blame is an error of one column whose message names no value.
func blame(c Code, column, value string) Error {
	return Error{Code: c, Field: column, Value: show(value), Message: sentences[c]}
}

// naming is an error of one column whose message is before + [value] + after.
func naming(c Code, column, value, before, after string) Error {
	v := show(value)
	return Error{Code: c, Field: column, Value: v, Message: before + "[" + v + "]" + after}
}

func wrongType(column, value, expected string) Error {
	return naming(ValueType, column, value, "Field ["+column+"] has invalid value ", ", "+expected+" expected.")
}

func outOfRange(c *column, value string) Error {
	return naming(ValueOutOfRange, c.name, value, "Field ["+c.name+"] has invalid value ",
		", ["+strconv.FormatInt(c.lo, 10)+"] to ["+strconv.FormatInt(c.hi, 10)+"] expected.")
}

func tooLong(c *column, value string) Error {
	return Error{Code: ValueTooLong, Field: c.name, Value: show(value),
		Message: "Field [" + c.name + "] is longer than [" + strconv.Itoa(c.max) + "] characters."}
}

func notStorable(column, value string) Error {
	return Error{Code: TextNotStorable, Field: column, Value: show(value),
		Message: "Field [" + column + "] holds a character that cannot be stored."}
}

func fieldEmpty(column string) Error {
	return Error{Code: FieldEmpty, Field: column, Message: "Field [" + column + "] is empty."}
}

// eitherEmpty is an alternative of which nothing was given: no single column is to blame.
func eitherEmpty(a, b string) Error {
	return Error{Code: FieldEmpty, Message: "Field [" + a + " or " + b + "] is empty."}
}

// namelessUnknown is the message of the one column whose name is no text at
// all, and that is to blame all the same.
const namelessUnknown = "Column [] is unknown."

// maxShown is how many characters of a text a message shows.
const maxShown = 80

// show is a text as messages and error values hold it: cut at 80 characters,
// control characters written out.
func show(s string) string {
	if len(s) > maxShown && utf8.RuneCountInString(s) > maxShown {
		n := 0
		for i := range s {
			if n == maxShown {
				s = s[:i] + "…"
				break
			}
			n++
		}
	}
	return escapeControls(s)
}

// escapeControls writes U+0000–U+001F and U+007F as \u0000.
func escapeControls(s string) string {
	control := func(c byte) bool { return c < 0x20 || c == 0x7f }
	i := 0
	for i < len(s) && !control(s[i]) {
		i++
	}
	if i == len(s) {
		return s
	}
	const hex = "0123456789abcdef"
	var b strings.Builder
	b.WriteString(s[:i])
	for ; i < len(s); i++ {
		if c := s[i]; control(c) {
			b.WriteString(`\u00`)
			b.WriteByte(hex[c>>4])
			b.WriteByte(hex[c&15])
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

package store

import (
	"encoding/base64"
	"encoding/json"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5/pgtype"

	"learnsink/handlers"
)

// rejectionRows are the lines of a batch for the table rejection: of dead
// letters, and of rows that wait. Records may hold any bytes: key and value are
// stored as such, all else is made storable.
type rejectionRows struct {
	id, codes, errors []string
	key, value        [][]byte
	headers           []string
	offset            []int64
	incarnation       []int32
	eventAt           []time.Time
	attempt           []int32
	replayOf          []*string // nil: it is no attempt
	job               []pgtype.Int8
	faults            faultRows
	waitsFor          []*string // of rows that wait
}

// add adds a rejection; bare: without its headers, which PostgreSQL may have refused.
func (r *rejectionRows) add(d *handlers.Decision, bare bool) {
	headers := d.Record.Headers
	if bare {
		headers = nil
	}
	codes, errors := errorColumns(d)
	r.id = append(r.id, d.ID())
	r.codes = append(r.codes, codes)
	r.errors = append(r.errors, errors)
	r.key = append(r.key, d.Record.Key)
	r.value = append(r.value, d.Record.Value)
	r.headers = append(r.headers, headersJSON(headers))
	r.offset = append(r.offset, d.Record.Offset)
	r.incarnation = append(r.incarnation, int32(max(d.Record.Incarnation, 1)))
	r.eventAt = append(r.eventAt, d.EventTime)
	attempt, replayOf := int32(1), (*string)(nil)
	if p := d.Replay; p != nil && p.Of != "" {
		attempt, replayOf = int32(p.Attempt), &p.Of
	}
	r.attempt, r.replayOf, r.job = append(r.attempt, attempt), append(r.replayOf, replayOf), append(r.job, jobOf(d))
	r.faults.add(d)
	var waitsFor *string
	if d.Verdict == handlers.Waits {
		waitsFor = textArray(d.WaitsFor)
	}
	r.waitsFor = append(r.waitsFor, waitsFor)
}

// errorColumns returns what is wrong with a row as the columns codes and
// errors take it.
func errorColumns(d *handlers.Decision) (codes, errs string) {
	words := make([]string, 0, len(d.Errors))
	for _, e := range d.Errors {
		if !slices.Contains(words, string(e.Code)) {
			words = append(words, string(e.Code))
		}
	}
	return "{" + strings.Join(words, ",") + "}", string(handlers.AppendErrors(nil, storableErrors(d.Errors))) // codes are words: no need to quote
}

// storableErrors are errors as they are stored.
func storableErrors(errors []handlers.Error) []handlers.Error {
	copied := false
	for i, e := range errors {
		if isStorable(e.Field) && isStorable(e.Value) && isStorable(e.Message) {
			continue
		}
		if !copied {
			errors, copied = slices.Clone(errors), true
		}
		errors[i] = handlers.Error{Code: e.Code, Field: storable(e.Field), Value: storable(e.Value), Message: storable(e.Message)}
	}
	return errors
}

func (r *rejectionRows) args() []any {
	columns := []any{r.id, r.codes, r.errors, r.key, r.value, r.headers, r.offset, r.eventAt, r.incarnation, r.attempt, r.replayOf, r.job}
	return append(append(columns, r.faults.args()...), r.waitsFor)
}

// An id that is there already comes from a position that an operator has set
// back: what the row is judged to be now holds. An attempt's line is history,
// unless the dead letter that it replays is no longer there. The second table
// is written along with the first: a trigger finds that nothing is left to do.
//
// The deadline of a row that waits is clock: it is counted from when the row
// came in, by the database's.
const insertRejections = `
WITH base AS (SELECT nextval('learnsink.rejection_seq_seq') AS seq),
r AS (
  INSERT INTO learnsink.rejection (seq, id, codes, errors, key, value, headers, source_offset, event_at, incarnation, attempt, replay_of, job, state,
    sender, names, subject, registration, waits_for, deadline, source_topic, source_partition, action, rules)
  SELECT (SELECT seq FROM base) + u.i, u.id, u.codes::text[], u.errors::jsonb, u.key, u.value, u.headers::jsonb, u.source_offset, u.event_at, u.incarnation, u.attempt, u.replay_of, u.job,
    CASE WHEN u.waits_for IS NOT NULL THEN 'waiting' WHEN u.replay_of IS NULL THEN 'open' WHEN EXISTS (SELECT FROM learnsink.rejection r WHERE r.id = u.replay_of) THEN 'archived'
         WHEN u.codes = '{superseded}' THEN 'superseded' WHEN u.attempt >= $22 THEN 'quarantined' ELSE 'open' END,
    u.sender, u.names::bigint[], u.subject, u.registration,
    u.waits_for::text[], CASE WHEN u.waits_for IS NOT NULL THEN now() + $24::interval END, $1::text, $2::integer, $20::text, $21::text
  FROM unnest($3::text[], $4::text[], $5::text[], $6::bytea[], $7::bytea[], $8::text[], $9::bigint[], $10::timestamptz[], $11::integer[],
      $12::integer[], $13::text[], $14::bigint[], $15::text[], $16::text[], $17::bigint[], $18::bigint[], $19::text[]) WITH ORDINALITY
    AS u(id, codes, errors, key, value, headers, source_offset, event_at, incarnation, attempt, replay_of, job, sender, names, subject, registration, waits_for, i)
  ON CONFLICT (id) DO UPDATE SET seq = excluded.seq, codes = excluded.codes, errors = excluded.errors, rejected_at = now(), rules = excluded.rules, state = excluded.state,
    waits_for = excluded.waits_for, deadline = excluded.deadline)
INSERT INTO learnsink.rejection_fault (seq, fault, subject, value, sender, topic, rejected_at, partition, state)
SELECT (SELECT seq FROM base) + u.line, u.fault, u.subject, u.value, u.sender, $23::bigint, now(), $2::integer, u.state::"char"
FROM unnest($25::integer[], $26::bigint[], $27::bigint[], $28::bigint[], $29::bigint[], $30::text[]) AS u(line, fault, sender, subject, value, state)`

// textArray is an array of texts as PostgreSQL reads it, every one quoted.
func textArray(texts []string) *string {
	quote := strings.NewReplacer(`\`, `\\`, `"`, `\"`)
	quoted := make([]string, len(texts))
	for i, text := range texts {
		quoted[i] = `"` + quote.Replace(storable(text)) + `"`
	}
	array := "{" + strings.Join(quoted, ",") + "}"
	return &array
}

// header is a record's header in rejection.headers: text where PostgreSQL can
// hold it as text, else base64; a null value has neither member.
type header struct {
	Key         *string `json:"key,omitempty"`
	KeyBase64   *string `json:"keyBase64,omitempty"`
	Value       *string `json:"value,omitempty"`
	ValueBase64 *string `json:"valueBase64,omitempty"`
}

func headersJSON(headers []handlers.Header) string {
	list := make([]header, len(headers))
	for i, h := range headers {
		list[i].Key, list[i].KeyBase64 = textOrBase64([]byte(h.Key))
		if h.Value != nil {
			list[i].Value, list[i].ValueBase64 = textOrBase64(h.Value)
		}
	}
	b, _ := json.Marshal(list) // strings alone: cannot fail
	return string(b)
}

func textOrBase64(b []byte) (text, encoded *string) {
	s := string(b)
	if isStorable(s) {
		return &s, nil
	}
	s = base64.StdEncoding.EncodeToString(b)
	return nil, &s
}

// isStorable reports whether PostgreSQL can hold s as text.
func isStorable(s string) bool { return utf8.ValidString(s) && strings.IndexByte(s, 0) < 0 }

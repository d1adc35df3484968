package handlers

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// EventTimeHeader is the record header that holds the event's own time (RFC
// 3339), on the replay topic and where a source says `eventTime: header`.
const EventTimeHeader = "learnsink.event-time"

// EventTime returns the event's own time in UTC, to the microsecond: the
// header's where it counts and is well-formed, else the record's timestamp,
// else now, which the caller must take from the moment of deciding. A time
// outside the years 1–9999 cannot be stored and counts as none.
func EventTime(rec *Record, fromHeader bool, now time.Time) time.Time {
	if fromHeader {
		if v, ok := rec.Header(EventTimeHeader); ok {
			if t, err := time.Parse(time.RFC3339, strings.TrimSpace(string(v))); err == nil && storable(t) {
				return toMicro(t)
			}
		}
	}
	if storable(rec.Timestamp) {
		return toMicro(rec.Timestamp)
	}
	return toMicro(now)
}

// storable reports whether t is set, and can be stored.
func storable(t time.Time) bool {
	_, ok := inYears(t)
	return ok && !t.IsZero()
}

// toMicro is t in UTC, cut to the microsecond.
func toMicro(t time.Time) time.Time { return time.UnixMicro(t.UnixMicro()).UTC() }

// fieldState is what is known of a column of one row.
type fieldState uint8

const (
	absent     fieldState = iota
	present               // and read: text, and num where the kind has one
	failed                // a common check has failed, and said so
	mismatched            // a date or a status word that cannot be read; the action's own check says so
)

// field is one column of one row.
type field struct {
	text  string // trimmed; "" = absent
	num   int64  // int: the value; float: its bits; date: Unix microseconds; duration: seconds; status: its number
	state fieldState
	bool  bool // the value is a JSON boolean
}

func (f *field) ok() bool        { return f.state == present }
func (f *field) given() bool     { return f.state != absent }
func (f *field) bad() bool       { return f.state == failed || f.state == mismatched }
func (f *field) float() float64  { return math.Float64frombits(uint64(f.num)) }
func (f *field) time() time.Time { return time.UnixMicro(f.num).UTC() }
func (f *field) optFloat() (o Opt[float64]) {
	if f.ok() {
		o = Some(f.float())
	}
	return o
}
func (f *field) optTime() (o Opt[time.Time]) {
	if f.ok() {
		o = Some(f.time())
	}
	return o
}

// Row is a record as its action reads it: the columns, typed, and what is
// wrong with them by themselves.
type Row struct {
	rules     *Rules
	record    *Record
	eventTime time.Time
	replay    *Replay // nil but on the replay topic

	whole   Code // record_not_json, record_empty: nothing else can be said
	ignored bool // a tombstone that the settings ignore

	fields  [colIgnored + 1]field // by the action's column index
	unknown []Error               // columns that the action does not know, in the record's order
	columns []Error               // the common checks, column by column
	empty   []Error               // intervention's mandatory columns, said first

	// The references, folded; the zero value where a part of it has failed
	// or is missing, so that it cannot be looked up.
	learner  LearnerRef
	lovGUID  string
	training struct{ guid, code string }
	session  struct{ guid, title string }
	teacher  string
}

// maxUnknown is how many unknown columns a rejection names.
const maxUnknown = 20

// Decode reads a record as a row of the action. It never fails: what is wrong
// with the row is in the Row. The record must stay as it is for as long as
// the Row and what is decided of it are in use.
func (r *Rules) Decode(rec *Record, eventTime time.Time) (w Row) {
	r.Decoder().Decode(&w, rec, eventTime)
	return w
}

// Decoder decodes rows one after the other. Those of one sender mostly have
// their columns in one order, so it tries first whether the column comes that
// came next in the row before. What a row is read as does not depend on it.
type Decoder struct {
	rules *Rules
	next  [afterUnknown + 1]int // by the column before; -1: not known
}

// What comes before a column, where no column does.
const (
	atFirst = colIgnored + 1 + iota
	afterUnknown
)

// Decoder returns a decoder, which is not safe for concurrent use.
func (r *Rules) Decoder() *Decoder {
	d := &Decoder{rules: r}
	for i := range d.next {
		d.next[i] = -1
	}
	return d
}

// Decode is Rules.Decode into a row that is there: rows are too large to be copied about.
func (d *Decoder) Decode(w *Row, rec *Record, eventTime time.Time) {
	r := d.rules
	*w = Row{}
	w.rules, w.record, w.eventTime = r, rec, eventTime
	switch {
	case len(rec.Value) == 0 && r.ignoreTombstones:
		w.ignored = true
	case len(rec.Value) == 0:
		w.whole = RecordEmpty
	case !utf8.Valid(rec.Value) || !d.scan(w, string(rec.Value)):
		w.whole = RecordNotJSON
	default:
		for i := range r.table.columns {
			w.check(i)
		}
		if r.action == Tracking {
			w.trackingReferences()
		} else {
			w.interventionMandatory()
			w.interventionReferences()
		}
	}
}

// scan reads the members of the object into the row's fields; false: there is
// no object, or one that is no row.
func (d *Decoder) scan(w *Row, s string) bool {
	var (
		r      = d.rules
		p      = scanner{s: s}
		before = atFirst
		seen   uint32   // known columns, by index
		others []string // all the other names
		unsaid int      // unknown columns that are not named
	)
	for more := p.open(); more; more = p.more() {
		i, name, ok := d.name(&p, before)
		if !ok {
			return false
		}
		known := i >= 0
		switch {
		case !known:
			before = afterUnknown
			others = append(others, name)
		case seen&(1<<i) != 0:
			return false
		default:
			before = i
			seen |= 1 << i
		}
		wanted := known && r.wanted[i]
		if !wanted {
			_, ignored := r.ignoredColumns[name]
			if ignored || r.ignoreUnknown || known && r.table.columns[i].kind == kindIgnored {
				if !p.skip() {
					return false
				}
				continue
			}
		}
		kind, text, ok := p.value()
		if !ok {
			return false
		}
		text = trimSpace(text)
		switch {
		case wanted && text != "":
			w.fields[i] = field{text: text, state: present, bool: kind == tokenBool}
		case wanted:
		case len(w.unknown) < maxUnknown:
			w.unknown = append(w.unknown, Error{Code: ColumnUnknown, Field: name,
				Value: show(text), Message: "Column [" + show(name) + "] is unknown."})
		default:
			unsaid++
		}
	}
	if unsaid > 0 {
		w.unknown = append(w.unknown, Error{Code: ColumnUnknown, Message: "And [" + strconv.Itoa(unsaid) + "] more columns are unknown."})
	}
	slices.Sort(others)
	return p.end() && len(slices.Compact(others)) == len(others)
}

// name reads a member's name; i is its column, -1: of none. before is the
// column before.
func (d *Decoder) name(p *scanner, before int) (i int, name string, ok bool) {
	t := d.rules.table
	if i = d.next[before]; i >= 0 && p.word(t.columns[i].member) {
		p.space()
		return i, t.columns[i].name, true
	}
	if name, ok = p.name(); !ok {
		return -1, "", false
	}
	i, known := t.find(name)
	if !known {
		return -1, name, true
	}
	d.next[before] = i
	return i, name, true
}

// trimSpace is strings.TrimSpace; most texts have nothing to trim.
func trimSpace(s string) string {
	if s == "" || plainByte(s[0]) && plainByte(s[len(s)-1]) {
		return s
	}
	return strings.TrimSpace(s)
}

// plainByte reports whether c is an ASCII character that is no white space.
func plainByte(c byte) bool { return ' ' < c && c < utf8.RuneSelf }

// check runs the common checks of column i and reads its value.
func (w *Row) check(i int) {
	c, f := &w.rules.table.columns[i], &w.fields[i]
	if f.state == absent {
		if w.rules.action == Tracking && w.rules.mandatory[i] {
			w.fail(f, fieldEmpty(c.name))
		}
		return
	}
	if f.bool {
		w.fail(f, wrongType(c.name, f.text, w.rules.expected(c)))
		return
	}
	switch c.kind {
	case kindText:
		if len(f.text) > c.max && utf8.RuneCountInString(f.text) > c.max {
			w.fail(f, tooLong(c, f.text))
		}
		if strings.IndexByte(f.text, 0) >= 0 {
			w.fail(f, notStorable(c.name, f.text))
		}
	case kindInt:
		n, res := parseInt(f.text)
		switch {
		case res == malformed:
			w.fail(f, wrongType(c.name, f.text, w.rules.expected(c)))
		case res == beyond || n < c.lo || n > c.hi:
			w.fail(f, outOfRange(c, f.text))
		default:
			f.num = n
		}
	case kindFloat:
		v, ok := parseFloat(f.text)
		switch {
		case !ok:
			w.fail(f, wrongType(c.name, f.text, w.rules.expected(c)))
		case c.bounded && (v < float64(c.lo) || v > float64(c.hi)):
			w.fail(f, outOfRange(c, f.text))
		default:
			f.num = int64(math.Float64bits(v))
		}
	case kindDuration:
		n, res := w.rules.timeSpent.parse(f.text)
		switch res {
		case malformed:
			w.fail(f, wrongType(c.name, f.text, w.rules.expected(c)))
		case beyond:
			w.fail(f, outOfRange(c, f.text))
		default:
			f.num = n
		}
	case kindDateTime:
		if t, ok := w.rules.parseDate(f.text); ok {
			f.num = t.UnixMicro()
		} else {
			f.state = mismatched
		}
	case kindStatus:
		if n, ok := w.rules.status(f.text); ok {
			f.num = n
		} else {
			f.state = mismatched
		}
	}
}

func (w *Row) fail(f *field, e Error) {
	f.state = failed
	w.columns = append(w.columns, e)
}

// expected names what a column's value should have been.
func (r *Rules) expected(c *column) string {
	switch c.kind {
	case kindInt:
		return "integer"
	case kindFloat:
		return "number"
	case kindDuration:
		return "[" + r.timeSpent.String() + "]"
	}
	return "text"
}

func (r *Rules) parseDate(text string) (time.Time, bool) {
	if r.dateTime == nil {
		return parseISO8601(text, r.clocks)
	}
	return r.dateTime.parse(text)
}

// The numbers of the intervention statuses.
const (
	ivActive = iota
	ivCancelled
)

func (r *Rules) status(word string) (int64, bool) {
	if r.action == Tracking {
		s, ok := r.statuses[word]
		return int64(s), ok
	}
	switch word {
	case r.activeWord:
		return ivActive, true
	case r.cancelledWord:
		return ivCancelled, true
	}
	return 0, false
}

// parseResult is how the reading of a number went.
type parseResult uint8

const (
	parsed    parseResult = iota
	malformed             // not of the form
	beyond                // of the form, and out of range
)

// parseInt reads -?[0-9]+.
func parseInt(s string) (int64, parseResult) {
	digits := strings.TrimPrefix(s, "-")
	if digits == "" {
		return 0, malformed
	}
	n := int64(0) // nonsense beyond 18 digits
	for i := range len(digits) {
		if !isDigit(digits[i]) {
			return 0, malformed
		}
		n = n*10 + int64(digits[i]-'0')
	}
	if len(digits) > 18 {
		var err error
		if n, err = strconv.ParseInt(s, 10, 64); err != nil {
			return 0, beyond
		}
		return n, parsed
	}
	if len(digits) < len(s) {
		n = -n
	}
	return n, parsed
}

// parseFloat reads text of the form of a JSON number, finite. Minus zero is zero.
func parseFloat(s string) (float64, bool) {
	if s == "" || numberLength(s) != len(s) {
		return 0, false
	}
	if v, ok := parseShort(s); ok {
		return v, true
	}
	v, err := strconv.ParseFloat(s, 64)
	if err != nil { // of this form, it can only be infinite
		return 0, false
	}
	return v + 0, true
}

// parseShort reads what most numbers are: few digits and no exponent. The
// digits and the power of ten are exact as floats, so their quotient is
// rounded once, and right.
func parseShort(s string) (v float64, ok bool) {
	if len(s) > 15 {
		return 0, false
	}
	digits, power, point := int64(0), 1.0, false
	for i := range len(s) {
		switch c := s[i]; {
		case isDigit(c):
			digits = digits*10 + int64(c-'0')
			if point {
				power *= 10
			}
		case c == '.':
			point = true
		case c != '-':
			return 0, false
		}
	}
	if s[0] == '-' {
		digits = -digits
	}
	return float64(digits) / power, true
}

// anyBad reports whether one of the columns has failed a check already.
func (w *Row) anyBad(columns ...int) bool {
	for _, i := range columns {
		if w.fields[i].bad() {
			return true
		}
	}
	return false
}

// anyGiven reports whether one of the columns is there.
func (w *Row) anyGiven(columns ...int) bool {
	for _, i := range columns {
		if w.fields[i].given() {
			return true
		}
	}
	return false
}

// intact reports whether the columns can be used together: one is there, none has failed.
func (w *Row) intact(columns ...int) bool { return w.anyGiven(columns...) && !w.anyBad(columns...) }

// trackingReferences folds what a tracking row refers to.
func (w *Row) trackingReferences() {
	f := &w.fields
	folded := [...]string{f[colCandidateLogin].text, f[colCandidateEmail].text, f[colLovGUID].text, f[colSessionGUID].text}
	foldAll(&folded)
	if w.intact(colCandidateLogin, colCandidateRefNumber, colCandidateEmail) {
		w.learner = LearnerRef{folded[0], f[colCandidateRefNumber].text, folded[1]}
	}
	if w.intact(colLovCode, colLovGUID) {
		w.lovGUID = folded[2]
	}
	w.session.guid = folded[3]
}

// interventionMandatory says which mandatory columns are empty, column by column.
func (w *Row) interventionMandatory() {
	alternative := func(i, j int) {
		switch c := w.rules.table.columns; {
		case w.rules.mandatory[i] || w.rules.mandatory[j]:
			w.mandatory(i)
			w.mandatory(j)
		case !w.anyGiven(i, j):
			w.empty = append(w.empty, eitherEmpty(c[i].name, c[j].name))
		}
	}
	w.mandatory(colInterventionGUID)
	alternative(colIvTrainingGUID, colIvTrainingPathCode)
	alternative(colIvSessionGUID, colIvSessionTitle)
	for i := colInterventionDate; i <= colInterventionStatus; i++ {
		w.mandatory(i)
	}
}

func (w *Row) mandatory(i int) {
	if f := &w.fields[i]; f.state == absent && w.rules.mandatory[i] {
		f.state = failed
		w.empty = append(w.empty, fieldEmpty(w.rules.table.columns[i].name))
	}
}

// interventionReferences folds what an intervention row refers to. The checks
// of a guid and of a code stand alone, so each is kept where it is intact.
func (w *Row) interventionReferences() {
	word := func(i int) string {
		if !w.fields[i].ok() {
			return ""
		}
		return w.fields[i].text
	}
	w.training.guid, w.training.code = Fold(word(colIvTrainingGUID)), word(colIvTrainingPathCode)
	w.session.guid, w.session.title = Fold(word(colIvSessionGUID)), word(colIvSessionTitle)
	w.teacher = Fold(word(colTeacherLogin))
}

// Refer adds what the row asks of the catalogue.
func (w *Row) Refer(refs *References) {
	add := func(m map[string]struct{}, s string) {
		if s != "" {
			m[s] = struct{}{}
		}
	}
	if w.whole != "" || w.ignored {
		return
	}
	if w.rules.action == Tracking {
		if w.learner != (LearnerRef{}) && w.contextUsable() {
			refs.Learners[w.learner] = struct{}{}
		}
		if w.intact(colLovCode, colLovGUID) {
			if w.lovGUID != "" {
				add(refs.LearningObjectGUIDs, w.lovGUID)
			} else {
				add(refs.LearningObjectCodes, w.fields[colLovCode].text)
			}
		}
		return
	}
	add(refs.TrainingGUIDs, w.training.guid)
	add(refs.TrainingPathCodes, w.training.code)
	add(refs.SessionGUIDs, w.session.guid)
	add(refs.SessionTitles, w.session.title)
	add(refs.Teachers, w.teacher)
}

// Absent counts the columns of the action that rows leave out, by name. What
// is no row leaves out nothing.
func (r *Rules) Absent(rows []Row) map[string]int {
	var counts [colIgnored + 1]int
	for i := range rows {
		w := &rows[i]
		if w.whole != "" || w.ignored {
			continue
		}
		for c := range r.table.columns {
			if w.fields[c].text == "" {
				counts[c]++
			}
		}
	}
	absent := map[string]int{}
	for i, c := range r.table.columns {
		if counts[i] > 0 && c.kind != kindIgnored {
			absent[c.name] = counts[i]
		}
	}
	return absent
}

package handlers

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Setting is one setting of an action, as it was written: by the names of
// rules.md, whether it stood in YAML or in the vendor's XML (ParseXML brings
// `<mandatory>yes</mandatory>` of a field and the list of fields into this form).
//
//	timeZone: Europe/Paris          {Name: "timeZone", Text: "Europe/Paris"}
//	mandatory: [score]              {Name: "mandatory", Words: {{Text: "score"}}}
//	trackingStatus: {completed: c}  {Name: "trackingStatus", Words: {{Name: "completed", Text: "c"}}}
type Setting struct {
	Name  string
	Line  int    // where it stands, for messages; 0: not known
	Text  string // of a scalar
	Words []Setting
}

// Compile compiles the settings of an action; what they do not name has its
// default, so nil settings are the defaults. The error holds every fault,
// joined, each with its line and its setting.
func Compile(action Action, settings []Setting) (*Rules, error) {
	c := compiler{rules: &Rules{
		action:          action,
		clocks:          utc(),
		defaultScoreMax: 100,
		keepCompletion:  true,
		activeWord:      "A",
		cancelledWord:   "C",
		ignoredColumns:  map[string]struct{}{},
		statuses:        map[string]Status{},
	}, clockText: "00:00:00", formatText: "YYYY-MM-DD hh:ii:ss"}
	r := c.rules
	if r.table = tableOf(action); r.table == nil {
		return nil, unknownAction(action)
	}
	for s := NotAttempted; s <= Browsed; s++ {
		r.statusWords[s] = s.String()
	}
	r.mandatory = make([]bool, len(r.table.columns))
	if action == Intervention {
		for _, i := range []int{colInterventionGUID, colInterventionDate, colInterventionDuration, colRoomGUID, colRoomLabel, colTeacherLogin, colInterventionStatus} {
			r.mandatory[i] = true
		}
	}

	known := settingsOf(action)
	given := map[string]bool{}
	for i := range settings {
		s := &settings[i]
		set, ok := known[s.Name]
		switch {
		case !ok:
			c.fault(s, "is no setting of the action %s: take it out, or write one of %s", action, strings.Join(slices.Sorted(maps.Keys(known)), ", "))
		case given[s.Name]:
			c.fault(s, "is given twice: keep one")
		default:
			given[s.Name] = true
			set(&c, s)
		}
	}
	c.finish()
	if len(c.faults) > 0 {
		return nil, errors.Join(c.faults...)
	}
	digest := sha256.Sum256([]byte(c.canonical()))
	r.hash = hex.EncodeToString(digest[:6])
	return r, nil
}

// tableOf returns the columns of an action; nil: there is no such action.
func tableOf(action Action) *table {
	switch action {
	case Tracking:
		return trackingTable()
	case Intervention:
		return interventionTable()
	}
	return nil
}

func unknownAction(action Action) error {
	return fmt.Errorf("action [%s] is not known: write %s or %s", action, Tracking, Intervention)
}

// settingsOf names the settings that an action knows, and how each is read.
func settingsOf(action Action) map[string]func(*compiler, *Setting) {
	known := map[string]func(*compiler, *Setting){
		"timeZone":       (*compiler).timeZone,
		"mandatory":      (*compiler).mandatory,
		"fields":         (*compiler).fields,
		"ignoredColumns": (*compiler).ignoredColumns,
		"unknownColumns": func(c *compiler, s *Setting) { c.choice(s, &c.rules.ignoreUnknown, "reject", "ignore") },
		"tombstones":     func(c *compiler, s *Setting) { c.choice(s, &c.rules.ignoreTombstones, "reject", "ignore") },
	}
	switch action {
	case Tracking:
		known["defaultScoreMax"] = (*compiler).defaultScoreMax
		known["dateTimeFormat"] = (*compiler).dateTimeFormat
		known["defaultTime"] = (*compiler).defaultTime
		known["timeGlobalFormat"] = (*compiler).timeGlobalFormat
		known["trackingStatus"] = (*compiler).trackingStatus
		known["strictDates"] = func(c *compiler, s *Setting) { c.yes(s, &c.rules.strictDates) }
		known["completionDefault"] = func(c *compiler, s *Setting) { c.choice(s, &c.rules.keepCompletion, "today", "keep") }
	case Intervention:
		known["interventionStatus"] = (*compiler).interventionStatus
	}
	return known
}

// compiler holds what is known of the settings while they are read.
type compiler struct {
	rules  *Rules
	faults []error

	// Read at the end, because they depend on one another.
	clockText      string
	clock          civil
	formatText     string
	format         *Setting
	mandatoryNames []*Setting
	fieldNames     []*Setting
	ignored        []*Setting
}

// fault notes a fault of a setting: its place, its name, what is wrong and what would be right.
func (c *compiler) fault(s *Setting, format string, args ...any) {
	c.faults = append(c.faults, s.errorf("%s %s", s.Name, fmt.Sprintf(format, args...)))
}

// errorf is an error that begins with the setting's line, where it is known.
func (s *Setting) errorf(format string, args ...any) error {
	text := escapeControls(fmt.Sprintf(format, args...)) // one line
	if s.Line > 0 {
		text = "line " + strconv.Itoa(s.Line) + ": " + text
	}
	return errors.New(text)
}

// scalar returns the text of a setting that has one value.
func (c *compiler) scalar(s *Setting) (string, bool) {
	if s.Words != nil {
		c.fault(s, "is given a list or a mapping: write one value")
		return "", false
	}
	return strings.TrimSpace(s.Text), true
}

// list returns the items of a setting that is a list of columns.
func (c *compiler) list(s *Setting) (items []*Setting) {
	if s.Words == nil && strings.TrimSpace(s.Text) != "" {
		c.fault(s, "[%s] is one value: write a list, [%s]", s.Text, s.Text)
		return nil
	}
	for i := range s.Words {
		item := s.Words[i]
		if item.Name != "" || item.Words != nil {
			c.fault(s, "is not a plain list: write the names of columns, [a, b]")
			return nil
		}
		items = append(items, &Setting{Name: s.Name, Line: cmp.Or(item.Line, s.Line), Text: strings.TrimSpace(item.Text)})
	}
	return items
}

// mapping calls put with each word of a setting that maps names to words.
// Names are taken once each.
func (c *compiler) mapping(s *Setting, names []string, put func(i int, word string)) {
	if s.Words == nil && strings.TrimSpace(s.Text) != "" {
		c.fault(s, "[%s] is one value: write a mapping, {%s: %s}", s.Text, names[0], s.Text)
		return
	}
	given := map[string]bool{}
	for i := range s.Words {
		w := &s.Words[i]
		at := &Setting{Name: s.Name, Line: cmp.Or(w.Line, s.Line)}
		switch i := slices.Index(names, w.Name); {
		case w.Name == "":
			c.fault(at, "is a list: write a mapping, {%s: …}", names[0])
			return
		case i < 0:
			c.fault(at, "has no status [%s]: write one of %s", w.Name, strings.Join(names, ", "))
		case given[w.Name]:
			c.fault(at, "gives [%s] twice: keep one", w.Name)
		case w.Words != nil:
			c.fault(at, "gives [%s] more than one word: write one", w.Name)
		default:
			given[w.Name] = true
			if word := strings.TrimSpace(w.Text); word != "" {
				put(i, word)
			}
		}
	}
}

// choice sets b by one of two words.
func (c *compiler) choice(s *Setting, b *bool, off, on string) {
	switch text, ok := c.scalar(s); {
	case !ok:
	case text == off, text == on:
		*b = text == on
	default:
		c.fault(s, "[%s] is not known: write %s or %s", text, off, on)
	}
}

// yes sets b by yes or no.
func (c *compiler) yes(s *Setting, b *bool) {
	text, ok := c.scalar(s)
	if !ok {
		return
	}
	if *b, ok = yesOrNo(text); !ok {
		c.fault(s, "[%s] is not known: write yes or no", text)
	}
}

// yesOrNo reads yes, no, true or false in any case.
func yesOrNo(text string) (yes, ok bool) {
	switch strings.ToLower(text) {
	case "yes", "true":
		return true, true
	case "no", "false":
		return false, true
	}
	return false, false
}

func (c *compiler) timeZone(s *Setting) {
	name, ok := c.scalar(s)
	if !ok {
		return
	}
	clocks, ok := loadZone(name)
	if !ok {
		c.fault(s, "[%s] is not known: write a name of the TZ database, such as UTC or Europe/Paris", name)
		return
	}
	c.rules.clocks = clocks
}

func (c *compiler) defaultScoreMax(s *Setting) {
	text, ok := c.scalar(s)
	if !ok {
		return
	}
	n, res := parseInt(text)
	if res != parsed || n < 1 || n > maxTimeSpent {
		c.fault(s, "[%s] is not valid: write a whole number, 1 to 2147483647", text)
		return
	}
	c.rules.defaultScoreMax = int32(n)
}

func (c *compiler) dateTimeFormat(s *Setting) {
	if _, ok := c.scalar(s); ok {
		c.formatText, c.format = s.Text, s
	}
}

func (c *compiler) defaultTime(s *Setting) {
	text, ok := c.scalar(s)
	if !ok {
		return
	}
	clock, ok := parseClock(text)
	if !ok {
		c.fault(s, "[%s] is not valid: write hh:ii:ss, such as 00:00:00", text)
		return
	}
	c.clockText, c.clock = text, clock
}

func (c *compiler) timeGlobalFormat(s *Setting) {
	text, ok := c.scalar(s)
	if !ok {
		return
	}
	f, ok := parseTimeSpentFormat(text)
	if !ok {
		names := make([]string, 0, timeSpentFormats)
		for f := range timeSpentFormats {
			names = append(names, f.String())
		}
		c.fault(s, "[%s] is not known: write one of %s", text, strings.Join(names, ", "))
		return
	}
	c.rules.timeSpent = f
}

func (c *compiler) trackingStatus(s *Setting) {
	names := make([]string, 0, Browsed)
	for status := NotAttempted; status <= Browsed; status++ {
		names = append(names, status.String())
	}
	words := &c.rules.statusWords
	c.mapping(s, names, func(i int, word string) { words[NotAttempted+Status(i)] = word })
	for a := NotAttempted; a <= Browsed; a++ {
		for b := a + 1; b <= Browsed; b++ {
			if words[a] == words[b] {
				c.fault(s, "has one word, [%s], for %s and %s: give each its own", words[a], a, b)
			}
		}
	}
}

func (c *compiler) interventionStatus(s *Setting) {
	words := []*string{&c.rules.activeWord, &c.rules.cancelledWord}
	c.mapping(s, []string{"active", "cancelled"}, func(i int, word string) { *words[i] = word })
	if *words[0] == *words[1] {
		c.fault(s, "has one word, [%s], for active and cancelled: give each its own", *words[0])
	}
}

func (c *compiler) mandatory(s *Setting)      { c.mandatoryNames = c.list(s) }
func (c *compiler) fields(s *Setting)         { c.fieldNames = c.list(s) }
func (c *compiler) ignoredColumns(s *Setting) { c.ignored = c.list(s) }

// finish compiles what depends on several settings.
func (c *compiler) finish() {
	r := c.rules
	for s := NotAttempted; s <= Browsed; s++ {
		r.statuses[r.statusWords[s]] = s
	}
	if r.action == Tracking && strings.TrimSpace(c.formatText) != isoFormat { // interventionDate is ISO 8601, always
		var err error
		if r.dateTime, err = compileDateTimeFormat(c.formatText, c.clock, r.clocks); err != nil {
			c.faults = append(c.faults, c.format.errorf("%v", err))
		}
	}

	listed := make([]bool, len(r.table.columns))
	for i := range listed {
		listed[i] = len(c.fieldNames) == 0 || r.table.columns[i].kind == kindIgnored
	}
	for _, s := range c.fieldNames {
		if i, ok := c.column(s); ok {
			listed[i] = true
		}
	}
	for _, s := range c.ignored {
		i, known := r.table.find(s.Text)
		switch {
		case s.Text == "":
			c.fault(s, "names a column that has no name: take it out")
		case known && r.table.columns[i].kind == kindIgnored: // is ignored anyway
		case known && r.mandatory[i]:
			c.fault(s, "names [%s], which the action %s cannot do without: take it out", s.Text, r.action)
		case known:
			listed[i] = false
			fallthrough
		default:
			r.ignoredColumns[s.Text] = struct{}{}
		}
	}
	if slices.Contains(listed, false) {
		r.listed = listed
	}
	r.wanted = make([]bool, len(listed))
	for i, col := range r.table.columns {
		r.wanted[i] = listed[i] && col.kind != kindIgnored
	}
	for _, s := range c.mandatoryNames {
		i, ok := c.column(s)
		switch {
		case !ok:
		case r.table.columns[i].kind == kindIgnored:
			c.fault(s, "names [%s], which is always ignored: take it out", s.Text)
		case !listed[i]:
			c.fault(s, "names [%s], which the fields do not name, or the ignoredColumns do: have it in one place only", s.Text)
		default:
			r.mandatory[i] = true
		}
	}
}

// column finds the column that an item of a list names.
func (c *compiler) column(s *Setting) (int, bool) {
	i, ok := c.rules.table.find(s.Text)
	if !ok {
		names := make([]string, 0, len(c.rules.table.columns))
		for _, col := range c.rules.table.columns {
			names = append(names, col.name)
		}
		c.fault(s, "names [%s], which is no column of the action %s: write one of %s", s.Text, c.rules.action, strings.Join(names, ", "))
	}
	return i, ok
}

// canonical is the text of the effective settings that the hash is taken of.
// It says everything that can change a decision, defaults included, in one
// order, and is never read back.
func (c *compiler) canonical() string {
	r := c.rules
	var b strings.Builder
	line := func(name string, values ...string) {
		b.WriteString(name)
		for _, v := range values {
			b.WriteByte(' ')
			b.WriteString(strconv.Quote(v))
		}
		b.WriteByte('\n')
	}
	flagged := func(flags []bool) (names []string) {
		for i, on := range flags {
			if on {
				names = append(names, r.table.columns[i].name)
			}
		}
		return names
	}
	line("action", string(r.action))
	line("timeZone", r.clocks.String())
	line("mandatory", flagged(r.mandatory)...)
	if r.listed != nil {
		line("fields", flagged(r.listed)...)
	}
	line("ignoredColumns", slices.Sorted(maps.Keys(r.ignoredColumns))...)
	line("unknownColumns", strconv.FormatBool(r.ignoreUnknown))
	line("tombstones", strconv.FormatBool(r.ignoreTombstones))
	if r.action == Intervention {
		line("interventionStatus", r.activeWord, r.cancelledWord)
		return b.String()
	}
	line("defaultScoreMax", strconv.Itoa(int(r.defaultScoreMax)))
	format := isoFormat
	if r.dateTime != nil {
		format = r.dateTime.text
	}
	line("dateTimeFormat", format)
	line("defaultTime", c.clockText)
	line("timeGlobalFormat", r.timeSpent.String())
	line("trackingStatus", r.statusWords[NotAttempted:]...)
	line("strictDates", strconv.FormatBool(r.strictDates))
	line("completionDefault", strconv.FormatBool(r.keepCompletion))
	return b.String()
}

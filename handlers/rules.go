package handlers

// Rules is an action with its settings, compiled: everything that decoding
// and deciding need to know. It is immutable and safe for concurrent use.
type Rules struct {
	action Action
	table  *table
	hash   string

	clocks *clocks // timeZone

	// Tracking.
	dateTime        *dateTimeFormat // nil: iso8601
	timeSpent       timeSpentFormat
	defaultScoreMax int32
	statusWords     [Browsed + 1]string // by Status; as the source spells them
	statuses        map[string]Status   // by word
	strictDates     bool
	keepCompletion  bool // completionDefault: keep

	// Intervention.
	activeWord, cancelledWord string

	// Both, by column index.
	mandatory []bool
	listed    []bool // false: not named by a <fields> list, so unknown; nil: every column is known
	wanted    []bool // known, and not ignored

	ignoredColumns   map[string]struct{}
	ignoreUnknown    bool // unknownColumns: ignore
	ignoreTombstones bool // tombstones: ignore
}

// Action returns the action that the rules are for.
func (r *Rules) Action() Action { return r.action }

// Hash returns the first 12 hexadecimal digits of a SHA-256 over the effective
// settings: the same settings, however written, have the same hash.
func (r *Rules) Hash() string { return r.hash }

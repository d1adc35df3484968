package handlers

import (
	"crypto/hmac"
	"crypto/sha256"
	"hash"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"
)

// IdentityKind is in which way a text names a person.
type IdentityKind string

// The ways in which rows and the catalogue name persons.
const (
	LearnerLogin     IdentityKind = "learner login"
	LearnerRefNumber IdentityKind = "learner reference number"
	LearnerEmail     IdentityKind = "learner e-mail"
	TeacherLogin     IdentityKind = "teacher login"
)

// Identity is one text by which a person is known, as it is compared: logins
// and e-mails folded.
type Identity struct {
	Kind IdentityKind
	Text string
}

// NewIdentity returns the identity of a text as somebody writes it.
func NewIdentity(kind IdentityKind, text string) Identity {
	text = trimSpace(text)
	if kind != LearnerRefNumber {
		text = Fold(text)
	}
	return Identity{kind, text}
}

// Persons are persons by the texts that they are known by.
type Persons interface{ Has(Identity) bool }

// Identities are persons by their texts themselves.
type Identities map[Identity]struct{}

// Has reports whether one of them is known by that.
func (s Identities) Has(id Identity) bool {
	_, ok := s[id]
	return ok
}

// IdentityHash is what is kept of an identity once its person is erased: it
// tells whether a text that comes later is theirs, and tells nobody the text.
type IdentityHash [sha256.Size]byte

// Erased are the persons that were erased. It is safe for concurrent use.
type Erased struct {
	keyed  sync.Pool // of hash.Hash: making one costs as much as using it
	hashes map[IdentityHash]struct{}
}

// NewErased returns those of the hashes, made with the secret; nil where there are none.
func NewErased(secret []byte, hashes []IdentityHash) *Erased {
	if len(hashes) == 0 {
		return nil
	}
	e := &Erased{hashes: make(map[IdentityHash]struct{}, len(hashes))}
	e.keyed.New = func() any { return hmac.New(sha256.New, secret) }
	for _, h := range hashes {
		e.hashes[h] = struct{}{}
	}
	return e
}

// Has reports whether an erased person was known by that.
func (e *Erased) Has(id Identity) bool {
	if e == nil || id.Text == "" {
		return false
	}
	keyed := e.keyed.Get().(hash.Hash)
	defer e.keyed.Put(keyed)
	_, ok := e.hashes[id.hash(keyed)]
	return ok
}

// Hash is the HMAC-SHA-256 of the identity. The kind is part of it: that one
// login is a learner's and a teacher's cannot be seen.
func (id Identity) Hash(secret []byte) IdentityHash { return id.hash(hmac.New(sha256.New, secret)) }

func (id Identity) hash(keyed hash.Hash) (h IdentityHash) {
	keyed.Reset()
	keyed.Write([]byte(id.Kind))
	keyed.Write([]byte{0})
	keyed.Write([]byte(id.Text))
	keyed.Sum(h[:0])
	return h
}

// ofErased reports whether a row that is not accepted is an erased person's,
// so that nothing of it may be kept. A row whose learner the catalogue knows
// is that learner's, whoever else had the same e-mail once.
func (w *Row) ofErased(f *Facts) bool {
	if f.Erased == nil {
		return false
	}
	if _, known := f.Learners[w.learner]; known {
		return false
	}
	return (&Namer{w.rules.action, w.rules.table, f.Erased}).Names(w.record)
}

// mostWords bounds how many words of what is no row are looked at.
const mostWords = 10_000

// Namer tells whether rows of an action name certain persons.
type Namer struct {
	action  Action
	columns *table
	who     Persons
}

// NewNamer returns what tells it of rows of the action.
func NewNamer(action Action, who Persons) *Namer { return &Namer{action, tableOf(action), who} }

// Names reports whether a record, as a row of the action, names one of the
// persons. What it says in the columns that name a person holds; only where it
// says nothing there, columns that the action does not know (a misspelt one,
// say) count, and a key that is a reference number. A login or an e-mail as
// the key counts always, and an e-mail wherever it stands. Of what is no row
// every word counts.
func (n *Namer) Names(rec *Record) bool {
	if n.login(string(rec.Key)) {
		return true
	}
	for _, h := range rec.Headers {
		if Own(h.Key) && (n.login(string(h.Value)) || n.mailIn(string(h.Value))) {
			return true
		}
	}
	var s rowSays
	if !utf8.Valid(rec.Value) || !s.read(n, string(rec.Value)) {
		return n.any(string(rec.Key)) || n.NamesIn(string(rec.Value))
	}
	return s.named || !s.names && (s.misspelt || n.any(string(rec.Key)))
}

// NamesIn reports whether a word of a text names one of the persons.
func (n *Namer) NamesIn(text string) bool { return n.eachWord(text, n.any) }

// rowSays is what the texts of a row say of the persons.
type rowSays struct {
	names    bool // somebody, in a column that does
	named    bool // one of them, in such a column, or by an e-mail anywhere
	misspelt bool // one of them, in a column that the action does not know
}

// read reads a row; false: it is none.
func (s *rowSays) read(n *Namer, value string) bool {
	p := scanner{s: value}
	for more := p.open(); more; more = p.more() {
		name, ok := p.name()
		if !ok {
			return false
		}
		_, text, ok := p.value()
		if !ok {
			return false
		}
		if text = trimSpace(text); text == "" {
			continue
		}
		_, known := n.columns.find(name)
		switch kind, person := n.column(name); {
		case person:
			s.names = true
			s.named = s.named || n.who.Has(NewIdentity(kind, text))
		case !known:
			s.misspelt = s.misspelt || n.any(text)
			fallthrough
		default:
			s.named = s.named || n.mailIn(text)
		}
	}
	return p.end()
}

// column returns the way in which a column names a person, if it does.
func (n *Namer) column(name string) (kind IdentityKind, names bool) {
	switch {
	case n.action == Intervention && name == "teacherLogin":
		return TeacherLogin, true
	case n.action != Tracking:
	case name == "candidateLogin":
		return LearnerLogin, true
	case name == "candidateRefNumber":
		return LearnerRefNumber, true
	case name == "candidateEmail":
		return LearnerEmail, true
	}
	return "", false
}

// login reports whether a text as a whole is a login or an e-mail of theirs.
func (n *Namer) login(text string) bool {
	if text = trimSpace(text); text == "" {
		return false
	}
	folded := Fold(text)
	if n.action == Intervention {
		return n.who.Has(Identity{TeacherLogin, folded})
	}
	return n.who.Has(Identity{LearnerLogin, folded}) || n.who.Has(Identity{LearnerEmail, folded})
}

// any reports whether a text as a whole is theirs in whatever way.
func (n *Namer) any(text string) bool {
	return n.login(text) || n.action == Tracking && n.who.Has(NewIdentity(LearnerRefNumber, text))
}

// mailIn reports whether an e-mail of theirs stands in a text.
func (n *Namer) mailIn(text string) bool {
	if strings.IndexByte(text, '@') < 0 {
		return false
	}
	return n.eachWord(text, func(word string) bool { return strings.IndexByte(word, '@') >= 0 && n.login(word) })
}

// eachWord asks for the words of a text until one answers yes.
func (n *Namer) eachWord(text string, ask func(string) bool) bool {
	asked := 0
	for word := range strings.FieldsFuncSeq(strings.ToValidUTF8(text, " "), isBetweenWords) {
		if asked++; asked > mostWords {
			return false
		}
		if ask(word) {
			return true
		}
		// The stop of a sentence, the quotes of a name.
		if bare := strings.Trim(word, ".-_'+"); bare != word && ask(bare) {
			return true
		}
	}
	return false
}

// isBetweenWords: what no login or e-mail has in its midst.
func isBetweenWords(r rune) bool {
	return !unicode.IsLetter(r) && !unicode.IsDigit(r) && !unicode.IsMark(r) && !strings.ContainsRune(".-_'+@", r)
}

// PersonErased is the type of the event that tells of an erased person.
const PersonErased = "learnsink.person.erased"

// mostGUIDs is how many interventions one event names.
const mostGUIDs = 1000

// ErasedEvents returns the events by which those who keep copies of accepted
// events are told that a person was erased: one, with the id by which events
// name a learner. Events name no teacher by id, so those of a teacher's say
// which interventions had their login; there may be several then.
func ErasedEvents(erasure int64, person string, id int64, interventions []string, at time.Time) (events []Output) {
	for part := 0; part == 0 || len(interventions) > 0; part++ {
		some := interventions[:min(len(interventions), mostGUIDs)]
		interventions = interventions[len(some):]
		eventID := "erasure-" + strconv.FormatInt(erasure, 10)
		if part > 0 {
			eventID += "-" + strconv.Itoa(part+1)
		}
		subject := person + "/" + strconv.FormatInt(id, 10)
		when := appendTime(nil, at)
		value := appendString([]byte(`{"version":1,"person":`), person)
		value = appendInt(append(value, `,"id":`...), id)
		if len(some) > 0 {
			value = append(value, `,"interventions":[`...)
			for i, guid := range some {
				if i > 0 {
					value = append(value, ',')
				}
				value = appendString(value, guid)
			}
			value = append(value, ']')
		}
		value = append(append(append(value, `,"erasedAt":"`...), when...), `"}`...)
		events = append(events, Output{Key: []byte(subject), Value: value, Headers: []Header{
			{"ce_specversion", []byte("1.0")}, {"ce_id", []byte(eventID)}, {"ce_source", []byte("learnsink")}, {"ce_type", []byte(PersonErased)},
			{"ce_time", when}, {"ce_subject", []byte(subject)}, {"content-type", []byte("application/json")},
		}})
	}
	return events
}

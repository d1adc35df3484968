package handlers

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

// Catalogue is what rows refer to, held in memory: `check --catalog` judges
// by it without a database. It answers References exactly as the database does.
//
// Adding a thing whose key is there replaces it, as a catalogue file would.
type Catalogue struct {
	learners       map[string]*learner // by folded login
	learnersByRef  map[string][]*learner
	learnersByMail map[string][]*learner
	objects        map[string]LearningObject // by folded guid
	objectsByCode  map[string]string         // code -> lowest folded guid
	trainings      map[int64]Training
	sessions       map[int64]Session
	registrations  map[int64]map[int64]int64 // learner id -> session id -> registration id
	teachers       map[string]int64          // by folded login

	lastID    int64
	sorted    bool
	byGUID    map[string][]Training
	byPath    map[string][]Training
	of        map[int64][]Session // by training
	sessionOf map[string]int64    // lowest session id by folded guid
}

type learner struct {
	id                                 int64
	loginFolded, refNumber, mailFolded string
	created                            Opt[time.Time]
}

// NewCatalogue returns an empty catalogue.
func NewCatalogue() *Catalogue {
	return &Catalogue{
		learners:      map[string]*learner{},
		objects:       map[string]LearningObject{},
		trainings:     map[int64]Training{},
		sessions:      map[int64]Session{},
		registrations: map[int64]map[int64]int64{},
		teachers:      map[string]int64{},
	}
}

func (c *Catalogue) nextID() int64 {
	c.lastID++
	c.sorted = false
	return c.lastID
}

// AddLearner adds a learner; refNumber and email may be "".
func (c *Catalogue) AddLearner(login, refNumber, email string, created Opt[time.Time]) {
	key := Fold(login)
	l := c.learners[key]
	if l == nil {
		l = &learner{id: c.nextID(), loginFolded: key}
		c.learners[key] = l
	}
	l.refNumber, l.mailFolded, l.created = refNumber, Fold(email), created
	c.sorted = false
}

// AddLearningObject adds a learning object version; code may be "".
func (c *Catalogue) AddLearningObject(guid, code string, provider Provider) {
	key := Fold(guid)
	id := c.objects[key].ID
	if id == 0 {
		id = c.nextID()
	}
	c.objects[key] = LearningObject{id, guid, code, provider}
	c.sorted = false
}

// AddTraining adds a training; guid and pathCode may be "".
func (c *Catalogue) AddTraining(id int64, guid, pathCode string) {
	c.trainings[id] = Training{id, guid, Fold(guid), pathCode}
	c.sorted = false
}

// AddSession adds a session of a training; guid and title may be "".
func (c *Catalogue) AddSession(id, trainingID int64, guid, title string) {
	c.sessions[id] = Session{id, trainingID, guid, Fold(guid), title}
	c.sorted = false
}

// AddTeacher adds a teacher.
func (c *Catalogue) AddTeacher(login string) {
	if key := Fold(login); c.teachers[key] == 0 {
		c.teachers[key] = c.nextID()
	}
}

// Register registers the learner that ref means in a session; false where
// there is no such learner.
func (c *Catalogue) Register(ref LearnerRef, sessionID int64) bool {
	id := c.Learner(ref)
	if id == 0 {
		return false
	}
	if c.registrations[id] == nil {
		c.registrations[id] = map[int64]int64{}
	}
	if c.registrations[id][sessionID] == 0 {
		c.lastID++
		c.registrations[id][sessionID] = c.lastID
	}
	return true
}

// SessionID returns the lowest id of the sessions with that guid; 0: none.
func (c *Catalogue) SessionID(guid string) int64 {
	c.sort()
	return c.sessionOf[Fold(guid)]
}

// HasSession reports whether a session of that id is there.
func (c *Catalogue) HasSession(id int64) bool {
	_, ok := c.sessions[id]
	return ok
}

// sort makes the indexes that Facts needs.
func (c *Catalogue) sort() {
	if c.sorted {
		return
	}
	c.sorted = true
	c.learnersByRef, c.learnersByMail = map[string][]*learner{}, map[string][]*learner{}
	for _, l := range c.learners {
		if l.refNumber != "" {
			c.learnersByRef[l.refNumber] = append(c.learnersByRef[l.refNumber], l)
		}
		if l.mailFolded != "" {
			c.learnersByMail[l.mailFolded] = append(c.learnersByMail[l.mailFolded], l)
		}
	}
	for _, by := range []map[string][]*learner{c.learnersByRef, c.learnersByMail} {
		for _, ls := range by {
			slices.SortFunc(ls, older)
		}
	}
	c.objectsByCode = map[string]string{}
	for guid, o := range c.objects {
		if first, ok := c.objectsByCode[o.Code]; o.Code != "" && (!ok || guid < first) {
			c.objectsByCode[o.Code] = guid
		}
	}
	c.byGUID, c.byPath, c.of = map[string][]Training{}, map[string][]Training{}, map[int64][]Session{}
	for _, t := range c.trainings {
		if t.GUIDFolded != "" {
			c.byGUID[t.GUIDFolded] = append(c.byGUID[t.GUIDFolded], t)
		}
		if t.PathCode != "" {
			c.byPath[t.PathCode] = append(c.byPath[t.PathCode], t)
		}
	}
	for _, by := range []map[string][]Training{c.byGUID, c.byPath} {
		for _, ts := range by {
			slices.SortFunc(ts, func(a, b Training) int { return cmp.Compare(a.ID, b.ID) })
		}
	}
	c.sessionOf = map[string]int64{}
	for _, s := range c.sessions {
		if first, ok := c.sessionOf[s.GUIDFolded]; s.GUIDFolded != "" && (!ok || s.ID < first) {
			c.sessionOf[s.GUIDFolded] = s.ID
		}
		c.of[s.TrainingID] = append(c.of[s.TrainingID], s)
	}
	for _, ss := range c.of {
		slices.SortFunc(ss, func(a, b Session) int { return cmp.Compare(a.ID, b.ID) })
	}
}

// older orders learners by createdAt, absent last, then folded login.
func older(a, b *learner) int {
	switch {
	case a.created.OK != b.created.OK:
		if a.created.OK {
			return -1
		}
		return 1
	case a.created.OK && !a.created.V.Equal(b.created.V):
		return a.created.V.Compare(b.created.V)
	}
	return strings.Compare(a.loginFolded, b.loginFolded)
}

// Learner returns the id of the learner that ref means; 0: none fits.
func (c *Catalogue) Learner(ref LearnerRef) int64 {
	fits := func(l *learner) bool {
		return (ref.Login == "" || l.loginFolded == ref.Login) &&
			(ref.RefNumber == "" || l.refNumber == ref.RefNumber) &&
			(ref.Email == "" || l.mailFolded == ref.Email)
	}
	if ref.Login != "" {
		if l := c.learners[ref.Login]; l != nil && fits(l) {
			return l.id
		}
		return 0
	}
	c.sort()
	candidates := c.learnersByMail[ref.Email]
	if ref.RefNumber != "" {
		candidates = c.learnersByRef[ref.RefNumber]
	}
	for _, l := range candidates {
		if fits(l) {
			return l.id
		}
	}
	return 0
}

// Prepare builds the indexes that Facts reads, so that Facts may be called
// concurrently until the next change.
func (c *Catalogue) Prepare() { c.sort() }

// Facts answers the references of a batch.
func (c *Catalogue) Facts(refs *References) *Facts {
	c.sort()
	f := NewFacts(1)
	for ref := range refs.Learners {
		id := c.Learner(ref)
		if id == 0 {
			continue
		}
		f.Learners[ref] = id
		if _, ok := f.Registrations[id]; ok {
			continue
		}
		var regs []Registration
		for sessionID, regID := range c.registrations[id] {
			s := c.sessions[sessionID]
			t := c.trainings[s.TrainingID]
			regs = append(regs, Registration{regID, &s, &t})
		}
		slices.SortFunc(regs, func(a, b Registration) int { return cmp.Compare(a.Session.ID, b.Session.ID) })
		f.Registrations[id] = regs
	}
	for guid := range refs.LearningObjectGUIDs {
		if o, ok := c.objects[guid]; ok {
			f.LearningObjectsByGUID[guid] = o
		}
	}
	for code := range refs.LearningObjectCodes {
		if guid, ok := c.objectsByCode[code]; ok {
			f.LearningObjectsByCode[code] = c.objects[guid]
		}
	}
	session := func(t Training) {
		if _, ok := f.Sessions[t.ID]; ok {
			return
		}
		f.Sessions[t.ID] = nil
		for _, s := range c.of[t.ID] {
			_, byGUID := refs.SessionGUIDs[s.GUIDFolded]
			_, byTitle := refs.SessionTitles[s.Title]
			if byGUID || byTitle {
				f.Sessions[t.ID] = append(f.Sessions[t.ID], s)
			}
		}
	}
	for guid := range refs.TrainingGUIDs {
		for _, t := range c.byGUID[guid] {
			f.TrainingsByGUID[guid] = append(f.TrainingsByGUID[guid], t)
			session(t)
		}
	}
	for code := range refs.TrainingPathCodes {
		for _, t := range c.byPath[code] {
			f.TrainingsByPathCode[code] = append(f.TrainingsByPathCode[code], t)
			session(t)
		}
	}
	for login := range refs.Teachers {
		if id, ok := c.teachers[login]; ok {
			f.Teachers[login] = id
		}
	}
	for context := range refs.Contexts {
		f.Contexts[context] = c.context(context)
	}
	return f
}

// context looks for a session and a training that fit a context.
func (c *Catalogue) context(of Context) (found ContextFound) {
	trainingFits := func(t Training) bool {
		return (of.TrainingPathCode == "" || t.PathCode == of.TrainingPathCode) && (of.TrainingID == 0 || t.ID == of.TrainingID)
	}
	if of.TrainingPathCode != "" || of.TrainingID != 0 {
		for _, t := range c.trainings {
			found.Training = found.Training || trainingFits(t)
		}
	}
	for _, s := range c.sessions {
		if (of.SessionGUID == "" || s.GUIDFolded == of.SessionGUID) && (of.SessionID == 0 || s.ID == of.SessionID) &&
			(of.SessionTitle == "" || s.Title == of.SessionTitle) && trainingFits(c.trainings[s.TrainingID]) {
			found.Session = true
			break
		}
	}
	return found
}

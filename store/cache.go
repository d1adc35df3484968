package store

import (
	"slices"
	"sync"

	"learnsink/handlers"
)

// cache keeps what tracking rows refer to in memory: learners, their
// registrations, learning objects. It is of one catalogue at a time, and right
// by construction: apply refuses a batch whose facts are of another catalogue
// than the database's, and then what is remembered is brought up to that
// (catchUp).
//
// It is bounded. Answers are kept in two generations: new ones go into the
// young one, and once that is full, what the old one holds is forgotten.
// Beside them, where the whole catalogue fits (bulk.go), it is read at once.
type cache struct {
	mu         sync.RWMutex
	version    int64 // identity of the catalogue that everything comes from; 0: of none
	erased     *handlers.Erased
	erasedOf   int64 // the catalogue that erased is of; 0: not known yet
	whole      *answers
	young, old *answers
	bulk       bulk
}

// Bounds of the cache, in bytes.
const (
	wholeBytes      = 112 << 20 // of a catalogue that is read at once
	generationBytes = 16 << 20
)

// heed notes which catalogue the database holds, and forgets any other.
func (c *cache) heed(version int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reset(version)
}

// of reports whether what is remembered is of this catalogue, or nothing is.
func (c *cache) of(version int64) bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.version == version || c.version == 0
}

// whoWasErased returns the persons who were, and of which catalogue; 0: not known.
func (c *cache) whoWasErased() (*handlers.Erased, int64) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.erased, c.erasedOf
}

func (c *cache) reset(version int64) {
	if c.version != version {
		c.version, c.whole, c.young, c.old = version, nil, newAnswers(), newAnswers()
		c.erased, c.erasedOf = nil, 0
		c.bulk.forget()
	}
}

// answer fills f with what it knows of refs, and returns the rest of the
// questions; nil: none is left. Then f.Version says of which catalogue it is.
func (c *cache) answer(refs *handlers.References, f *handlers.Facts) (rest *handlers.References) {
	c.mu.RLock()
	if c.version == 0 {
		c.mu.RUnlock()
		return refs
	}
	f.Version, f.Erased = c.version, c.erased
	rest = &handlers.References{TrainingGUIDs: refs.TrainingGUIDs, TrainingPathCodes: refs.TrainingPathCodes,
		SessionGUIDs: refs.SessionGUIDs, SessionTitles: refs.SessionTitles, Teachers: refs.Teachers, Contexts: refs.Contexts}
	asked := len(refs.TrainingGUIDs) + len(refs.TrainingPathCodes) + len(refs.SessionGUIDs) + len(refs.SessionTitles) + len(refs.Teachers) + len(refs.Contexts)
	if c.erasedOf != c.version {
		asked++ // who was erased is not known yet
	}
	var aged []handlers.LearnerRef // known to the old generation alone
	regs := make([]handlers.Registration, 0, 4*len(refs.Learners))
	for ref := range refs.Learners {
		id, from := c.learner(ref)
		if from != nil && id != 0 {
			if _, ok := f.Registrations[id]; !ok {
				n := len(regs)
				if regs = from.appendRegistrations(regs, id); len(regs) > n {
					f.Registrations[id] = regs[n:len(regs):len(regs)]
				}
			}
			f.Learners[ref] = id
		}
		switch from {
		case nil:
			if rest.Learners == nil {
				rest.Learners = map[handlers.LearnerRef]struct{}{}
			}
			rest.Learners[ref] = struct{}{}
			asked++
		case c.old:
			aged = append(aged, ref)
		}
	}
	objects := func(questions map[string]struct{}, of func(*answers) map[string]handlers.LearningObject, found map[string]handlers.LearningObject) (open map[string]struct{}) {
		for q := range questions {
			o, known := c.object(of, q)
			switch {
			case !known:
				if open == nil {
					open = map[string]struct{}{}
				}
				open[q] = struct{}{}
				asked++
			case o.ID != 0:
				found[q] = o
			}
		}
		return open
	}
	rest.LearningObjectGUIDs = objects(refs.LearningObjectGUIDs, objectsByGUID, f.LearningObjectsByGUID)
	rest.LearningObjectCodes = objects(refs.LearningObjectCodes, objectsByCode, f.LearningObjectsByCode)
	c.mu.RUnlock()

	if len(aged) > 0 {
		c.keep(f, &handlers.References{Learners: set(aged)})
	}
	if asked == 0 {
		return nil
	}
	return rest
}

// learner returns what a reference means, and whose answer that is; nil: not known.
func (c *cache) learner(ref handlers.LearnerRef) (id int64, from *answers) {
	for _, a := range [...]*answers{c.whole, c.young, c.old} {
		if a == nil {
			continue
		}
		if id, known := a.learner(ref); known {
			return id, a
		}
	}
	return 0, nil
}

// object returns a learning object; the zero value: there is none.
func (c *cache) object(of func(*answers) map[string]handlers.LearningObject, key string) (o handlers.LearningObject, known bool) {
	if c.whole != nil && c.whole.allObjects {
		return of(c.whole)[key], true
	}
	if o, known = of(c.young)[key]; known {
		return o, true
	}
	o, known = of(c.old)[key]
	return o, known
}

// keep adds what the database has answered to questions.
func (c *cache) keep(f *handlers.Facts, asked *handlers.References) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.version == 0 {
		c.reset(f.Version)
	}
	if f.Version != c.version {
		return // it was asked before or after a change: apply says which, should the database have gone back
	}
	c.erased, c.erasedOf = f.Erased, f.Version
	for ref := range asked.Learners {
		c.bulk.missed(ref)
		id := f.Learners[ref]
		regs := f.Registrations[id]
		if slices.ContainsFunc(regs, func(r handlers.Registration) bool { return !fits(r.ID) }) {
			continue
		}
		c.young.addLearner(ref, id)
		if id != 0 {
			c.young.addRegistrations(id, regs)
		}
	}
	for guid := range asked.LearningObjectGUIDs {
		c.young.addObject(objectsByGUID, guid, f.LearningObjectsByGUID[guid]) // the zero value: there is none
	}
	for code := range asked.LearningObjectCodes {
		c.young.addObject(objectsByCode, code, f.LearningObjectsByCode[code])
	}
	if c.young.bytes() > generationBytes {
		c.old, c.young = c.young, newAnswers()
	}
}

func set[K comparable](keys []K) map[K]struct{} {
	m := make(map[K]struct{}, len(keys))
	for _, k := range keys {
		m[k] = struct{}{}
	}
	return m
}

// answers are answers of one catalogue, packed: millions of them, and nothing
// in them for the garbage collector to follow.
type answers struct {
	learners      [kinds]table // of references, by their kind
	complete      [kinds]bool  // what is not there does not exist
	registrations chains       // by learner id
	places        []place      // sessions with their trainings, few
	placeOf       map[int64]uint32
	byGUID        map[string]handlers.LearningObject // the zero value: there is none
	byCode        map[string]handlers.LearningObject
	objectBytes   int
	allObjects    bool // what is not there does not exist
}

type place struct {
	session  *handlers.Session
	training *handlers.Training
}

func newAnswers() *answers {
	return &answers{placeOf: map[int64]uint32{}, byGUID: map[string]handlers.LearningObject{}, byCode: map[string]handlers.LearningObject{}}
}

func objectsByGUID(a *answers) map[string]handlers.LearningObject { return a.byGUID }
func objectsByCode(a *answers) map[string]handlers.LearningObject { return a.byCode }

// The kinds of references to learners: by one thing alone, or by several.
const (
	byLogin = iota
	byRefNumber
	byEmail
	bySeveral
	kinds
)

// keyOf returns the kind of a reference, and its text.
func keyOf(ref handlers.LearnerRef) (kind int, key string) {
	switch {
	case ref.RefNumber == "" && ref.Email == "":
		return byLogin, ref.Login
	case ref.Login == "" && ref.Email == "":
		return byRefNumber, ref.RefNumber
	case ref.Login == "" && ref.RefNumber == "":
		return byEmail, ref.Email
	}
	return bySeveral, ref.Login + "\x00" + ref.RefNumber + "\x00" + ref.Email
}

// learner returns the id that a reference means, 0 for nobody, if it is known.
func (a *answers) learner(ref handlers.LearnerRef) (id int64, known bool) {
	kind, key := keyOf(ref)
	n, known := a.learners[kind].get(key)
	if n == forgotten {
		return 0, false
	}
	return int64(n), known || a.complete[kind]
}

func (a *answers) addLearner(ref handlers.LearnerRef, id int64) {
	kind, key := keyOf(ref)
	a.learners[kind].put(key, int32(id))
}

// addRegistrations adds all of a learner's.
func (a *answers) addRegistrations(learner int64, regs []handlers.Registration) {
	if !a.registrations.begin(learner) {
		return // it has them
	}
	for i := range regs {
		a.registrations.add(learner, a.placeFor(regs[i].Session, regs[i].Training), regs[i].ID)
	}
}

func (a *answers) placeFor(s *handlers.Session, t *handlers.Training) uint32 {
	i, ok := a.placeOf[s.ID]
	if !ok {
		i = uint32(len(a.places))
		a.places, a.placeOf[s.ID] = append(a.places, place{s, t}), i
	}
	return i
}

// appendRegistrations appends a learner's registrations in the order of their sessions.
func (a *answers) appendRegistrations(to []handlers.Registration, learner int64) []handlers.Registration {
	first := len(to)
	a.registrations.each(learner, func(at uint32, id int64) {
		p := a.places[at]
		to = append(to, handlers.Registration{ID: id, Session: p.session, Training: p.training})
		for i := len(to) - 1; i > first && to[i].Session.ID < to[i-1].Session.ID; i-- {
			to[i], to[i-1] = to[i-1], to[i]
		}
	})
	return to
}

func (a *answers) addObject(by func(*answers) map[string]handlers.LearningObject, key string, o handlers.LearningObject) {
	if _, ok := by(a)[key]; !ok {
		a.objectBytes += 100 + len(key) + len(o.GUID) + len(o.Code)
		by(a)[key] = o
	}
}

func (a *answers) bytes() int {
	n := a.objectBytes + 200*len(a.places) + a.registrations.bytes()
	for i := range a.learners {
		n += a.learners[i].bytes()
	}
	return n
}

package handlers

// What rows refer to: the questions (References) and the answers (Facts).
//
// Both the database (store.Facts) and the catalogue in memory (Catalogue.Facts)
// answer them, and a test holds the two against each other. All login, e-mail
// and GUID texts in questions and in the keys of answers are folded (Fold).

// LearnerRef is what a row says of its learner; "" = not said. All that is
// said must fit one learner; of several the oldest is meant (by createdAt,
// absent last, then folded login bytewise).
type LearnerRef struct {
	Login     string // folded
	RefNumber string
	Email     string // folded
}

// References collects the distinct questions of a batch.
type References struct {
	Learners            map[LearnerRef]struct{}
	LearningObjectGUIDs map[string]struct{} // folded
	LearningObjectCodes map[string]struct{}
	TrainingGUIDs       map[string]struct{} // folded
	TrainingPathCodes   map[string]struct{}
	SessionGUIDs        map[string]struct{} // folded; intervention rows only
	SessionTitles       map[string]struct{} // intervention rows only
	Teachers            map[string]struct{} // folded
	// Contexts are asked of tracking rows whose registration is not found,
	// and that wait for it (Lacking).
	Contexts map[Context]struct{}
}

// NewReferences returns an empty collection.
func NewReferences() *References {
	return &References{
		Learners:            map[LearnerRef]struct{}{},
		LearningObjectGUIDs: map[string]struct{}{},
		LearningObjectCodes: map[string]struct{}{},
		TrainingGUIDs:       map[string]struct{}{},
		TrainingPathCodes:   map[string]struct{}{},
		SessionGUIDs:        map[string]struct{}{},
		SessionTitles:       map[string]struct{}{},
		Teachers:            map[string]struct{}{},
		Contexts:            map[Context]struct{}{},
	}
}

// Facts answers the References of a batch as of one catalogue version. What
// is not in a map does not exist.
type Facts struct {
	// Version tells the catalogue that every answer comes from; it is never 0.
	Version int64
	// Learners: the one learner each reference means.
	Learners map[LearnerRef]int64
	// Registrations of every learner in Learners, by learner id, in
	// ascending order of session id.
	Registrations map[int64][]Registration
	// LearningObjectsByGUID by folded guid; ByCode the one with the lowest
	// folded guid (bytewise) among those of that code.
	LearningObjectsByGUID map[string]LearningObject
	LearningObjectsByCode map[string]LearningObject
	// Trainings by folded guid and by path code, in ascending order of id.
	TrainingsByGUID     map[string][]Training
	TrainingsByPathCode map[string][]Training
	// Sessions by training id, in ascending order of session id: of every
	// training in the two maps above, those whose folded guid or title was
	// asked for.
	Sessions map[int64][]Session
	// Teachers by folded login.
	Teachers map[string]int64
	// Erased are the persons that were erased; nil: nobody ever was. Of their
	// rows nothing is kept.
	Erased *Erased
	// Contexts: what there is of those that were asked for.
	Contexts map[Context]ContextFound
}

// Context is what a tracking row says of its session; "" and 0 = not said.
type Context struct {
	SessionGUID      string // folded
	SessionID        int64
	SessionTitle     string
	TrainingPathCode string
	TrainingID       int64
}

// ContextFound is what the catalogue has of a context: a session, and a
// training, that fit all that is said of them. Of a training that nothing is
// said of, none.
type ContextFound struct{ Session, Training bool }

// NewFacts returns facts with empty maps.
func NewFacts(version int64) *Facts {
	return &Facts{
		Version:               version,
		Learners:              map[LearnerRef]int64{},
		Registrations:         map[int64][]Registration{},
		LearningObjectsByGUID: map[string]LearningObject{},
		LearningObjectsByCode: map[string]LearningObject{},
		TrainingsByGUID:       map[string][]Training{},
		TrainingsByPathCode:   map[string][]Training{},
		Sessions:              map[int64][]Session{},
		Teachers:              map[string]int64{},
		Contexts:              map[Context]ContextFound{},
	}
}

// Registration is a learner's place in a session, with the session's and its
// training's columns that a row may name them by. Neither is to be changed: all
// registrations of a session share them.
type Registration struct {
	ID       int64
	Session  *Session
	Training *Training
}

// Session is one session of a training. ID is the platform's own.
type Session struct {
	ID         int64
	TrainingID int64
	GUID       string // as the catalogue spells it
	GUIDFolded string
	Title      string
}

// Training is a training. ID is the platform's own.
type Training struct {
	ID         int64
	GUID       string
	GUIDFolded string
	PathCode   string
}

// Provider tells who provides a learning object.
type Provider string

// The providers. Learning objects of the last two take no tracking rows.
const (
	Customer       Provider = "customer"
	CrossKnowledge Provider = "crossknowledge"
	EasyQuizz      Provider = "easyquizz"
)

// LearningObject is a learning object version. ID is learnsink's own.
type LearningObject struct {
	ID       int64
	GUID     string // as the catalogue spells it
	Code     string
	Provider Provider
}

package catalogue

import (
	"fmt"
	"strings"

	"learnsink/handlers"
)

// BadLine is a line that a catalogue cannot take, and why.
type BadLine struct {
	Kind   Kind
	File   string
	Number int // the physical line where it starts, from 1
	Why    string
}

// String names the place as compilers do: FILE:LINE: why.
func (b BadLine) String() string { return fmt.Sprintf("%s:%d: %s", b.File, b.Number, b.Why) }

// LoadMemory reads a folder into memory, and returns the lines that were not
// taken: those that are bad by themselves, and those that refer to what is not
// there. An error is one of reading.
func LoadMemory(folder *Folder) (*handlers.Catalogue, []BadLine, error) {
	c := handlers.NewCatalogue()
	var bad []BadLine
	trainings := map[int64]bool{}
	sessions := map[int64]string{} // folded guid by id
	err := folder.Read(func(l Line) error {
		why := l.Bad
		switch {
		case why != "":
		case l.Learner != nil:
			c.AddLearner(l.Learner.Login, l.Learner.RefNumber, l.Learner.Email, l.Learner.CreatedAt)
		case l.LearningObject != nil:
			c.AddLearningObject(l.LearningObject.GUID, l.LearningObject.Code, l.LearningObject.Provider)
		case l.Training != nil:
			c.AddTraining(l.Training.ID, l.Training.GUID, l.Training.PathCode)
			trainings[l.Training.ID] = true
		case l.Session != nil && !trainings[l.Session.TrainingID]:
			why = fmt.Sprintf("there is no training with id %d", l.Session.TrainingID)
		case l.Session != nil:
			c.AddSession(l.Session.ID, l.Session.TrainingID, l.Session.GUID, l.Session.Title)
			sessions[l.Session.ID] = handlers.Fold(l.Session.GUID)
		case l.Registration != nil:
			why = register(c, sessions, l.Registration)
		case l.Teacher != nil:
			c.AddTeacher(l.Teacher.Login)
		}
		if why != "" {
			bad = append(bad, BadLine{l.Kind, l.File, l.Number, why})
		}
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	c.Prepare()
	return c, bad, nil
}

// register adds a registration, or says what it refers to in vain. Several
// columns of one reference must all fit the same thing, as in rows.
func register(c *handlers.Catalogue, sessions map[int64]string, r *Registration) (why string) {
	var faults []string
	session := r.SessionID
	if session == 0 {
		session = c.SessionID(r.SessionGUID)
	}
	guid, ok := sessions[session]
	if !ok || r.SessionGUID != "" && guid != handlers.Fold(r.SessionGUID) {
		faults = append(faults, "no session fits sessionGuid and sessionId")
	}
	learner := handlers.LearnerRef{
		Login:     handlers.Fold(r.LearnerLogin),
		RefNumber: r.LearnerRefNumber,
		Email:     handlers.Fold(r.LearnerEmail),
	}
	if c.Learner(learner) == 0 {
		faults = append(faults, "no learner fits learnerLogin, learnerRefNumber and learnerEmail")
	}
	if len(faults) == 0 {
		c.Register(learner, session)
	}
	return strings.Join(faults, "; ")
}

package rowgen

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// How much there is of everything.
const (
	learners  = 40
	objects   = 12
	trainings = 3
	sessions  = 6 // session i belongs to training i modulo trainings
	teachers  = 4
	rooms     = 5
)

// Letters that fold beyond ASCII are in the logins on purpose.
func login(i int) string        { return fmt.Sprintf("Zo\u00e9.L%d", i) }
func email(i int) string        { return fmt.Sprintf("zoe.l%d@mail.example", i) }
func refNumber(i int) int       { return 50_000 + i }
func objectGUID(i int) string   { return fmt.Sprintf("lo-%d", i) }
func objectCode(i int) string   { return fmt.Sprintf("LO/%d", i) }
func trainingID(i int) int      { return 10 + i }
func trainingGUID(i int) string { return fmt.Sprintf("tr-%d", i) }
func pathCode(i int) string     { return fmt.Sprintf("PATH-%d", i) }
func sessionID(i int) int       { return 100 + i }
func sessionGUID(i int) string  { return fmt.Sprintf("se-%d", i) }
func sessionTitle(i int) string { return fmt.Sprintf("Spring & \u00c9t\u00e9 %d", i/trainings) } // each training has one of that title
func teacher(i int) string      { return fmt.Sprintf("dr.haas%d", i) }
func roomGUID(i int) string     { return fmt.Sprintf("room-%d", i) }

// Of these the catalogue holds one each.
const (
	noKey        = "nobody.keyed"   // a learner of whom records without a Kafka key speak
	unregistered = "no.session"     // a learner without any registration
	crossGUID    = "lo-cross"       // a learning object provided by CrossKnowledge
	quizzGUID    = "lo-quizz"       // an EasyQuizz
	otherPath    = "PATH-elsewhere" // a training without sessions
)

// WriteCatalog writes the catalogue that every story speaks of into dir, in
// the format of `learnsink catalog load`.
func WriteCatalog(dir string) error {
	var learnersCSV, objectsCSV, trainingsCSV, sessionsCSV, registrationsCSV, teachersCSV, roomsCSV strings.Builder
	fmt.Fprintln(&learnersCSV, "login,refNumber,email,createdAt")
	fmt.Fprintln(&registrationsCSV, "learnerLogin,sessionGuid")
	for i := range learners {
		fmt.Fprintf(&learnersCSV, "%s,%d,%s,2019-01-01T00:00:%02dZ\n", login(i), refNumber(i), email(i), i)
		// A younger account of the same address, registered nowhere: the oldest is meant.
		fmt.Fprintf(&learnersCSV, "a.second.%d,,%s,2020-01-01T00:00:00Z\n", i, strings.ToUpper(email(i)))
		for s := range sessions {
			fmt.Fprintf(&registrationsCSV, "%s,%s\n", login(i), sessionGUID(s))
		}
	}
	fmt.Fprintf(&learnersCSV, "%s,,,\n%s,,,\n", noKey, unregistered)
	fmt.Fprintf(&registrationsCSV, "%s,%s\n", noKey, sessionGUID(0))
	fmt.Fprintln(&objectsCSV, "guid,code,title,provider")
	for i := range objects {
		fmt.Fprintf(&objectsCSV, "%s,%s,Object %d,\n", objectGUID(i), objectCode(i), i)
		fmt.Fprintf(&objectsCSV, "lo-%d-newer,%s,Object %d,crossknowledge\n", i, objectCode(i), i) // of one code the lowest guid is meant
	}
	fmt.Fprintf(&objectsCSV, "%s,CROSS,Bought,crossknowledge\n%s,QUIZZ,Quizz,easyquizz\n", crossGUID, quizzGUID)
	fmt.Fprintln(&trainingsCSV, "id,guid,pathCode,title")
	for i := range trainings {
		fmt.Fprintf(&trainingsCSV, "%d,%s,%s,Training %d\n", trainingID(i), trainingGUID(i), pathCode(i), i)
	}
	fmt.Fprintf(&trainingsCSV, "99,tr-elsewhere,%s,Elsewhere\n", otherPath)
	fmt.Fprintln(&sessionsCSV, "id,guid,title,trainingId")
	for i := range sessions {
		fmt.Fprintf(&sessionsCSV, "%d,%s,%s,%d\n", sessionID(i), sessionGUID(i), sessionTitle(i), trainingID(i%trainings))
	}
	fmt.Fprintln(&teachersCSV, "login")
	for i := range teachers {
		fmt.Fprintln(&teachersCSV, teacher(i))
	}
	fmt.Fprintln(&roomsCSV, "guid,label,capacity")
	for i := range rooms {
		fmt.Fprintf(&roomsCSV, "%s,Room %d,\n", roomGUID(i), i)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for name, text := range map[string]*strings.Builder{"learners": &learnersCSV, "learning_objects": &objectsCSV, "trainings": &trainingsCSV,
		"sessions": &sessionsCSV, "registrations": &registrationsCSV, "teachers": &teachersCSV, "rooms": &roomsCSV} {
		if err := os.WriteFile(filepath.Join(dir, name+".csv"), []byte(text.String()), 0o644); err != nil {
			return err
		}
	}
	return nil
}

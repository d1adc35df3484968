// Package catalogue reads the catalogue that rows refer to from its files:
// CSV (RFC 4180, a header line, UTF-8 with or without BOM) or JSONL, one file
// a kind, chosen by name and ending. It knows no database.
//
// A file is streamed: memory does not grow with its length. A bad line never
// ends a read; it is reported with its place and why, and whoever reads
// decides. What ends one is a file that cannot be read, or a header that
// does not say what the columns are.
//
// What Bad and the errors say names files, lines and columns, never what
// stands in a cell: those are people's logins and addresses.
package catalogue

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"learnsink/handlers"
)

// Kind is one kind of catalogue entry; it is the name of its file, too.
type Kind string

// The kinds.
const (
	Learners        Kind = "learners"
	LearningObjects Kind = "learning_objects"
	Trainings       Kind = "trainings"
	Sessions        Kind = "sessions"
	Registrations   Kind = "registrations"
	Teachers        Kind = "teachers"
	Rooms           Kind = "rooms"
)

// Kinds returns every kind in the order in which they are read: whatever a
// kind refers to comes before it.
func Kinds() []Kind {
	return []Kind{Learners, LearningObjects, Trainings, Sessions, Registrations, Teachers, Rooms}
}

// Line is one line of a catalogue file, and what it says. Texts are trimmed;
// "" = absent.
type Line struct {
	Kind   Kind
	File   string // its path, as Open was told or found it
	Number int    // the physical line where it starts, from 1
	// Bad says what is wrong with the line; then none of the pointers is set.
	Bad string

	// Exactly one is set where Bad is "": the kind's. It may be kept.
	Learner        *Learner
	LearningObject *LearningObject
	Training       *Training
	Session        *Session
	Registration   *Registration
	Teacher        *Teacher
	Room           *Room
}

// Learner is an account of a learner. Key: Login, without regard to case.
type Learner struct {
	Login     string
	RefNumber string
	Email     string
	CreatedAt handlers.Opt[time.Time] // UTC, to the microsecond
}

// LearningObject is a learning object version. Key: GUID, without regard to case.
type LearningObject struct {
	GUID     string
	Code     string
	Title    string
	Provider handlers.Provider
}

// Training is a training. Key: ID, the platform's own.
type Training struct {
	ID       int64
	GUID     string
	PathCode string
	Title    string
}

// Session is a session of the training TrainingID. Key: ID, the platform's own.
type Session struct {
	ID         int64
	GUID       string
	Title      string
	TrainingID int64
}

// Registration puts a learner into a session. Key: both. At least one column
// of either is there; several of one must fit the same thing.
type Registration struct {
	LearnerLogin     string
	LearnerRefNumber string
	LearnerEmail     string
	SessionGUID      string
	SessionID        int64 // 0 = absent
}

// Teacher is a teacher. Key: Login, without regard to case.
type Teacher struct {
	Login string
}

// Room is a room. Key: GUID, without regard to case.
type Room struct {
	GUID     string
	Label    string
	Capacity handlers.Opt[int32]
}

// Folder is a catalogue's files, found and their headers checked, ready to be
// read as often as one likes.
type Folder struct {
	// OnRead, if set, is told of every stretch of bytes that Read has read:
	// for a progress bar, with Size.
	OnRead func(bytes int)

	files  []file
	passed []string
}

type file struct {
	kind Kind
	path string
	csv  bool
	size int64
}

// Open finds the catalogue files at paths, each a folder of them or one of
// them, and checks the headers of those that are CSV. A kind may have no file,
// or several; a folder's other files are passed over (Passed). No catalogue
// file at all is an error. Every fault is reported, not only the first.
func Open(paths ...string) (*Folder, error) {
	f := &Folder{}
	var faults []error
	for _, path := range paths {
		if err := f.add(path); err != nil {
			faults = append(faults, err)
		}
	}
	if len(f.files) == 0 && len(faults) == 0 {
		faults = append(faults, fmt.Errorf("no catalogue file in %s: expected %s, .csv or .jsonl",
			strings.Join(paths, ", "), strings.Join(names(), ", ")))
	}
	kinds := Kinds()
	slices.SortStableFunc(f.files, func(a, b file) int {
		return slices.Index(kinds, a.kind) - slices.Index(kinds, b.kind)
	})
	for _, file := range f.files {
		if err := file.read(nil, func(Line) error { return errHeaderRead }); err != nil && err != errHeaderRead {
			faults = append(faults, err)
		}
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	return f, nil
}

// errHeaderRead ends a read at its first line: the header before it was fit.
var errHeaderRead = errors.New("header read")

func names() []string {
	var names []string
	for _, kind := range Kinds() {
		names = append(names, string(kind))
	}
	return names
}

func (f *Folder) add(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		found, ok := fileAt(path, info)
		if !ok {
			return fmt.Errorf("%s is no catalogue file: expected %s, .csv or .jsonl", path, strings.Join(names(), ", "))
		}
		f.files = append(f.files, found)
		return nil
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		whole := filepath.Join(path, entry.Name())
		info, err := os.Stat(whole) // not entry.Info: a mounted folder's files may be links
		if err != nil {
			return err
		}
		if found, ok := fileAt(whole, info); ok {
			f.files = append(f.files, found)
		} else if _, ok := format(whole); ok {
			f.passed = append(f.passed, whole)
		}
	}
	return nil
}

// fileAt tells which catalogue file path is, if it is one.
func fileAt(path string, info os.FileInfo) (file, bool) {
	isCSV, ok := format(path)
	if !ok || info.IsDir() {
		return file{}, false
	}
	base := filepath.Base(path)
	kind := Kind(strings.TrimSuffix(base, filepath.Ext(base)))
	if !slices.Contains(Kinds(), kind) {
		return file{}, false
	}
	return file{kind: kind, path: path, csv: isCSV, size: info.Size()}, true
}

// format tells by its ending whether a file is CSV or JSONL, and whether it is either.
func format(path string) (isCSV, ok bool) {
	switch strings.ToLower(filepath.Ext(path)) {
	case ".csv":
		return true, true
	case ".jsonl":
		return false, true
	}
	return false, false
}

// Kinds returns the kinds that have a file, in the order they are read. What
// a file no longer names can be told of these only.
func (f *Folder) Kinds() []Kind {
	var kinds []Kind
	for _, file := range f.files {
		if len(kinds) == 0 || kinds[len(kinds)-1] != file.kind {
			kinds = append(kinds, file.kind)
		}
	}
	return kinds
}

// Passed returns the CSV and JSONL files that are no catalogue files by their
// names: worth a word to whoever misspelt one.
func (f *Folder) Passed() []string { return f.passed }

// Size returns the files' size in bytes, as they were when opened.
func (f *Folder) Size() int64 {
	var size int64
	for _, file := range f.files {
		size += file.size
	}
	return size
}

// Read visits every line of every file: the kinds in their order (Kinds), the
// files of a kind by path, the lines as they stand. Blank lines are passed
// over. Where a key stands twice, the later line holds. An error of visit ends
// the read and is returned as it is.
func (f *Folder) Read(visit func(Line) error) error {
	for _, file := range f.files {
		if err := file.read(f.OnRead, visit); err != nil {
			return err
		}
	}
	return nil
}

func (f file) read(onRead func(int), visit func(Line) error) error {
	opened, err := os.Open(f.path)
	if err != nil {
		return err
	}
	defer opened.Close()
	r := io.Reader(opened)
	if onRead != nil {
		r = watched{r, onRead}
	}
	if f.csv {
		return f.readCSV(r, visit)
	}
	return f.readJSONL(r, visit)
}

// watched tells of every stretch of bytes read.
type watched struct {
	io.Reader
	onRead func(int)
}

func (w watched) Read(p []byte) (int, error) {
	n, err := w.Reader.Read(p)
	w.onRead(n)
	return n, err
}

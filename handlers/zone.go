package handlers

import (
	"archive/zip"
	_ "embed"
	"io"
	"strings"
	"time"
)

// zoneinfo is the TZ database, as Go distributes it. It is our own copy, and
// the machine's is never looked at (time.LoadLocation would prefer that one):
// the same settings read the same dates everywhere.
//
//go:generate sh -c "cp $(go env GOROOT)/lib/time/zoneinfo.zip zoneinfo.zip"
//go:embed zoneinfo.zip
var zoneinfo string

// loadZone returns the clocks of the zone of that name; false: the database has none.
func loadZone(name string) (*clocks, bool) {
	if name == "UTC" {
		return utc(), true
	}
	archive, err := zip.NewReader(strings.NewReader(zoneinfo), int64(len(zoneinfo)))
	if err != nil {
		panic("handlers: the embedded TZ database cannot be read: " + err.Error()) // a broken build
	}
	for _, file := range archive.File {
		if file.Name != name || file.FileInfo().IsDir() {
			continue
		}
		r, err := file.Open()
		if err != nil {
			return nil, false
		}
		defer r.Close()
		data, err := io.ReadAll(r)
		if err != nil {
			return nil, false
		}
		loc, err := time.LoadLocationFromTZData(name, data)
		if err != nil {
			return nil, false
		}
		return newClocks(loc), true
	}
	return nil, false
}

package handlers_test

import (
	"testing"
	"time"

	"learnsink/handlers"
)

// TestZoneComesFromTheBinary: a machine's own database, or none, changes nothing.
func TestZoneComesFromTheBinary(t *testing.T) {
	const row = `{"candidateLogin":"ines.lopez","lovCode":"FIRE-1","sessionGuid":"se-guid-11","trackingStatus":"passed","lastAccessDate":"2024-06-05 10:00:00"}`
	t.Setenv("ZONEINFO", t.TempDir()) // Go's own loading would look here first
	r := compile(t, handlers.Tracking, handlers.Setting{Name: "timeZone", Text: "America/Sao_Paulo"})
	d := judge(r, world(), record(row))
	if d.Verdict != handlers.Accepted {
		t.Fatalf("%+v", d.Errors)
	}
	if want := time.Date(2024, 6, 5, 13, 0, 0, 0, time.UTC); !d.Tracking.LastAccess.V.Equal(want) {
		t.Errorf("lastAccessDate is %v, want %v", d.Tracking.LastAccess.V, want)
	}
	for _, name := range []string{"", "Local", "localtime", "Europe/", "Europe", "Mars/Olympus", "../etc/passwd"} {
		if _, err := handlers.Compile(handlers.Tracking, []handlers.Setting{{Name: "timeZone", Text: name}}); err == nil {
			t.Errorf("time zone %q is taken", name)
		}
	}
}

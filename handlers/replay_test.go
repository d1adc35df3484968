package handlers

import (
	"reflect"
	"testing"
	"time"
)

// TestReplayHeaders: what is written is what is read; what is not well-formed is not there.
func TestReplayHeaders(t *testing.T) {
	at := time.Date(2024, 6, 5, 12, 0, 0, 123456000, time.UTC)
	for _, r := range []Replay{
		{Of: "rows-0-17", Attempt: 2, EventTime: at, SourceTopic: "rows", Origin: Some(Origin{3, 2, 17}), Job: 7, Item: 12, Overwrite: "x|y|1|2"},
		{Of: "rows-0-18", Attempt: 1, EventTime: at, SourceTopic: "rows", Origin: Some(Origin{0, 1, 18}), Job: 8, Item: 1, Waited: true},
		{Attempt: 1, EventTime: at, SourceTopic: "rows", Job: 9, Item: 1},
	} {
		if got := ReplayOf(&Record{Headers: r.Headers()}); !reflect.DeepEqual(got, r) {
			t.Errorf("%+v, not %+v", got, r)
		}
	}
	crooked := &Record{Headers: []Header{{AttemptHeader, []byte("-4")}, {SourcePartitionHeader, []byte("1")}, {SourceOffsetHeader, []byte("x")},
		{JobHeader, []byte("1")}, {EventTimeHeader, []byte("yesterday")}, {ReplayOfHeader, []byte("rows\x00-0-1")}}}
	if got := ReplayOf(crooked); !reflect.DeepEqual(got, Replay{Attempt: 1}) {
		t.Errorf("%+v", got)
	}
}

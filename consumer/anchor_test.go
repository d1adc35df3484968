package consumer

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"learnsink/handlers"
)

// writeSource writes records to the source's log, a batch each, some seconds
// apart as the clock has it.
func (w *simWorld) writeSource(values ...string) {
	log := w.brokers.logs[lane{simSource, 0}]
	for i, v := range values {
		raw, err := encodeBatch([]Message{{Key: []byte("k"), Value: []byte(v), Timestamp: time.UnixMilli(1_700_000_000_000 + int64(i))}}, simCodec(), time.Now())
		if err != nil {
			panic(err)
		}
		log.append(raw)
	}
}

func TestAnAnchorTellsLogsApart(t *testing.T) {
	anew := func(values ...string) func(*simWorld) {
		return func(w *simWorld) {
			w.brokers.logs[lane{simSource, 0}] = newSimLog()
			w.writeSource(values...)
		}
	}
	for name, c := range map[string]struct {
		change   func(*simWorld)
		diverged bool
	}{
		"the same":                       {func(*simWorld) {}, false},
		"it has grown":                   {func(w *simWorld) { w.writeSource("e", "f") }, false},
		"it has forgotten the anchor":    {func(w *simWorld) { w.brokers.logs[lane{simSource, 0}].forget(3) }, false},
		"it has forgotten what is below": {func(w *simWorld) { w.brokers.logs[lane{simSource, 0}].forget(2) }, false},
		"another record":                 {anew("a", "b", "C", "d"), true},
		"the same records once more":     {anew("a", "b", "c", "d"), false},
		"it is shorter":                  {anew("a"), false}, // Read says what there is to say of that
		"it ends where the anchor was":   {anew("a", "b"), false},
		"no record is there any more": {func(w *simWorld) {
			log := newSimLog()
			w.brokers.logs[lane{simSource, 0}] = log
			w.writeSource("a", "b")
			log.mark(7, 0, true)
			log.append(log.batches[0].raw)
		}, true},
		"compacted": {func(w *simWorld) {
			log := newSimLog()
			w.brokers.logs[lane{simSource, 0}], w.brokers.cleanup = log, "compact"
			w.writeSource("a", "b")
			log.mark(7, 0, true)
			log.append(log.batches[0].raw)
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := stillWorld(t)
				w.writeSource("a", "b", "c", "d")
				log := newPartitionLog(w.newProcess("p").consumer(0).client, handlers.TopicPartition{Topic: simSource}, fetchLimits{})
				var records []handlers.Record
				for next := int64(0); next < 3; {
					chunk, err := log.Read(t.Context(), next, 0)
					if err != nil {
						t.Fatal(err)
					}
					records, next = append(records, chunk.Records...), chunk.Next
				}
				anchor := anchorOf(records[:3])
				if !anchor.OK || anchor.V.Offset != 2 {
					t.Fatalf("anchor %+v", anchor)
				}
				c.change(w)
				err := log.Verify(t.Context(), anchor.V)
				var stop *StopError
				if errors.As(err, &stop) != c.diverged || !c.diverged && err != nil || c.diverged && stop.State != handlers.LogDiverged {
					t.Errorf("%v", err)
				}
				w.going.Wait()
			})
		})
	}
	if anchorOf(nil).OK {
		t.Error("no record is an anchor")
	}
}

func TestFingerprints(t *testing.T) {
	base := handlers.Record{Offset: 1, Timestamp: time.UnixMilli(1000), Key: []byte("a"), Value: []byte("bc")}
	seen := map[string]string{}
	for name, change := range map[string]func(*handlers.Record){
		"as it is":                    func(*handlers.Record) {},
		"another time":                func(r *handlers.Record) { r.Timestamp = time.UnixMilli(1001) },
		"another key":                 func(r *handlers.Record) { r.Key = []byte("A") },
		"no key":                      func(r *handlers.Record) { r.Key = nil },
		"an empty key":                func(r *handlers.Record) { r.Key = []byte{} },
		"another value":               func(r *handlers.Record) { r.Value = []byte("bC") },
		"a tombstone":                 func(r *handlers.Record) { r.Value = nil },
		"the border at another place": func(r *handlers.Record) { r.Key, r.Value = []byte("ab"), []byte("c") },
	} {
		r := base
		change(&r)
		f := fmt.Sprintf("%x", fingerprint(&r))
		if other, twice := seen[f]; twice {
			t.Errorf("%s and %s look the same", name, other)
		}
		seen[f] = name
	}
	moved := base
	moved.Offset, moved.Headers = 5, []handlers.Header{{Key: "h"}}
	if string(fingerprint(&moved)) != string(fingerprint(&base)) {
		t.Error("the offset, or a header, counts")
	}
}

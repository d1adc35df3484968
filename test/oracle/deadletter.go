package oracle

import (
	"encoding/json"
	"strconv"
	"strings"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"

	"learnsink/handlers"
)

// deadLetter holds a dead letter against the record it is of and what it must say.
func deadLetter(f *Findings, id string, o *Outcome, r *kgo.Record) {
	var errs []handlers.Error
	if err := json.Unmarshal([]byte(HeaderOf(r, "learnsink.errors")), &errs); err != nil {
		f.faultf("dead letter %s: learnsink.errors: %v", id, err)
	}
	truncated := HeaderOf(r, "learnsink.truncated") == "true"
	if !truncated && (!same(r.Key, o.Log.Key) || !same(r.Value, o.Log.Value)) {
		f.faultf("dead letter %s, %s: is not the record", id, o.Kind)
	}
	if truncated && len(o.Log.Value)+len(o.Log.Key) < 1<<20 {
		f.faultf("dead letter %s, %s: was truncated", id, o.Kind)
	}
	if diff := cmp.Diff(o.Errors, Messages(errs)); diff != "" {
		f.faultf("dead letter %s, %s: learnsink.errors (-model +topic):\n%s", id, o.Kind, cut(diff))
	}
	joined := strings.Join(o.Errors, " | ")
	want := map[string]string{"learnsink.action": string(o.Action), "learnsink.message": joined, "learnsink.source.topic": o.Log.Topic,
		"learnsink.source.partition": strconv.Itoa(int(o.Log.Partition)), "learnsink.source.offset": strconv.FormatInt(o.Log.Offset, 10),
		"learnsink.source.timestamp": o.EventTime.Format(time.RFC3339Nano), "learnsink.attempt": "1", "__connect.errors.topic": o.Log.Topic,
		"__connect.errors.partition": strconv.Itoa(int(o.Log.Partition)), "__connect.errors.offset": strconv.FormatInt(o.Log.Offset, 10),
		"__connect.errors.stage": "TASK_PUT", "__connect.errors.exception.message": joined}
	if len(errs) > 0 {
		want["__connect.errors.exception.class.name"] = string(errs[0].Code)
	}
	for key, value := range want {
		if has := HeaderOf(r, key); has != value {
			f.faultf("dead letter %s, %s: %s is %q, not %q", id, o.Kind, key, has, value)
		}
	}
	var own, kept []kgo.RecordHeader
	for _, hd := range o.Log.Headers {
		if !ours(hd.Key) {
			own = append(own, hd)
		}
	}
	seen := map[string]bool{}
	for _, hd := range r.Headers {
		if !ours(hd.Key) {
			kept = append(kept, hd)
		} else if seen[hd.Key] {
			f.faultf("dead letter %s: %s is there twice", id, hd.Key)
		}
		seen[hd.Key] = true
	}
	if diff := cmp.Diff(own, kept); diff != "" && !(truncated && kept == nil) {
		f.faultf("dead letter %s, %s: the record's own headers (-record +topic):\n%s", id, o.Kind, cut(diff))
	}
}

// ours: a dead letter replaces headers of these names.
func ours(name string) bool {
	return strings.HasPrefix(name, "learnsink.") || strings.HasPrefix(name, "__connect.errors.")
}

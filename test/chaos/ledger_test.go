package main

import (
	"testing"
	"time"
)

func TestZombiesAreTold(t *testing.T) {
	p, q := partition{"t", 0}, partition{"t", 1}
	good := []line{
		{partition: p, from: 0, to: 5, epoch: 1, who: "chaos-1-1"}, {partition: q, from: 0, to: 5, epoch: 1, who: "chaos-2-1"},
		{partition: p, from: 5, to: 9, epoch: 3, who: "chaos-2-1"}, {partition: q, from: 5, to: 6, epoch: 1, who: "chaos-2-1"},
		{partition: p, from: 9, to: 12, epoch: 3, who: "learnsink"}, // an operator
		{partition: p, from: 12, to: 13, epoch: 3, who: "chaos-2-1"},
	}
	if found := zombies(good); len(found) != 0 {
		t.Errorf("found %+v", found)
	}
	for name, bad := range map[string]line{
		"under another's epoch": {partition: p, from: 13, to: 15, epoch: 3, who: "chaos-1-1"},
		"under an older epoch":  {partition: p, from: 13, to: 15, epoch: 2, who: "chaos-3-1"},
		"over what was applied": {partition: p, from: 12, to: 15, epoch: 4, who: "chaos-3-1"},
	} {
		if found := zombies(append(good[:len(good):len(good)], bad)); len(found) != 1 || found[0] != bad {
			t.Errorf("%s: found %+v", name, found)
		}
	}
}

func TestTakeOversAreThoseOfWhatTheDeadOneOwned(t *testing.T) {
	p, q, r := partition{"t", 0}, partition{"t", 1}, partition{"t", 2}
	at := func(seconds int) time.Time { return time.Unix(int64(1000+seconds), 0) }
	all := []claim{
		{partition: p, who: "dead", at: at(0)}, {partition: q, who: "dead", at: at(1)}, {partition: q, who: "alive", at: at(2)}, {partition: r, who: "dead", at: at(3)},
		{partition: q, who: "alive", at: at(6)}, {partition: p, who: "alive", at: at(11)}, {partition: p, who: "other", at: at(12)},
	}
	if took, never := takeOvers(all, "dead", at(5)); len(took) != 1 || took[0] != 6*time.Second || never != 1 {
		t.Errorf("took %v, never %d", took, never)
	}
}

func TestPositionsNeverGoBack(t *testing.T) {
	a := &arena{report: newReport(options{})}
	w, p := newWatch(a), partition{"t", 0}
	for _, step := range []struct {
		stand
		faults int
	}{
		{stand{next: 5, epoch: 1}, 0}, {stand{next: 5, epoch: 2}, 0}, {stand{next: 9, epoch: 2}, 0},
		{stand{next: 8, epoch: 2}, 1}, {stand{next: 9, epoch: 1}, 2},
	} {
		now := map[partition]stand{p: step.stand}
		w.compare(now)
		w.stands = now
		if len(a.report.broken) != step.faults {
			t.Errorf("%+v: %q", step.stand, a.report.broken)
		}
	}
	w.compare(nil)
	if len(a.report.broken) != 3 {
		t.Errorf("a position that is gone: %q", a.report.broken)
	}
}

func TestACountThatBeginsAgainIsAddedUp(t *testing.T) {
	var c counter
	for _, now := range []int64{0, 2, 2, 1, 4, 0} {
		c.add(now)
	}
	if c.sum != 6 {
		t.Errorf("%d, and it is 6", c.sum)
	}
}

package main

import (
	"math/rand/v2"
	"testing"
)

func TestEveryKindComesAndTheSeedSaysWhen(t *testing.T) {
	for _, o := range []options{{publish: "transactional"}, {publish: "at-least-once"}} {
		kinds := o.kinds()
		one, two := schedule(rand.New(rand.NewPCG(7, 2)), kinds), schedule(rand.New(rand.NewPCG(7, 2)), kinds)
		other, differs := schedule(rand.New(rand.NewPCG(8, 2)), kinds), false
		came := map[*fault]int{}
		for n := range 20 * len(kinds) {
			f := one()
			if f != two() {
				t.Fatal("the same seed says something else")
			}
			differs = differs || f != other()
			if came[f]++; n < len(kinds) && came[f] > 1 {
				t.Errorf("%s comes twice before every kind has been there", f.name)
			}
		}
		if len(came) != len(kinds) || !differs {
			t.Errorf("%d kinds of %d came; another seed differs: %v", len(came), len(kinds), differs)
		}
	}
}

func TestFaultsOfTransactionsNeedTransactions(t *testing.T) {
	all, fewer := options{publish: "transactional"}.kinds(), options{publish: "at-least-once"}.kinds()
	if len(all) != len(faults) || len(fewer) != len(all)-3 {
		t.Errorf("%d and %d kinds of %d", len(all), len(fewer), len(faults))
	}
	names := map[string]bool{}
	for _, f := range faults {
		if names[f.name] || f.how == "" || f.weight == 0 || f.do == nil {
			t.Errorf("%+v", f)
		}
		names[f.name] = true
	}
}

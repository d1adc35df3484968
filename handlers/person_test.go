package handlers_test

import (
	"testing"
	"time"

	"learnsink/handlers"
)

// erased are a learner and a teacher, by hashes.
func erased() *handlers.Erased {
	secret := []byte("secret")
	var hashes []handlers.IdentityHash
	for _, id := range persons() {
		hashes = append(hashes, id.Hash(secret))
	}
	return handlers.NewErased(secret, hashes)
}

func persons() []handlers.Identity {
	return []handlers.Identity{
		handlers.NewIdentity(handlers.LearnerLogin, " Ines.Lopez"),
		handlers.NewIdentity(handlers.LearnerRefNumber, "E-77"),
		handlers.NewIdentity(handlers.LearnerEmail, "Ines@Example.net"),
		handlers.NewIdentity(handlers.TeacherLogin, "T.Ng"),
	}
}

func TestNames(t *testing.T) {
	header := func(key, value string) []handlers.Header { return []handlers.Header{{Key: key, Value: []byte(value)}} }
	tests := []struct {
		what   string
		action handlers.Action
		rec    handlers.Record
		want   bool
	}{
		{"by login", handlers.Tracking, handlers.Record{Value: []byte(`{"candidateLogin":" INES.lopez "}`)}, true},
		{"escaped", handlers.Tracking, handlers.Record{Value: []byte(`{"candidateLogin":"\u0069nes.lopez"}`)}, true},
		{"by reference number", handlers.Tracking, handlers.Record{Value: []byte(`{"candidateRefNumber":"E-77"}`)}, true},
		{"reference numbers compare exactly", handlers.Tracking, handlers.Record{Value: []byte(`{"candidateRefNumber":"e-77"}`)}, false},
		{"by e-mail", handlers.Tracking, handlers.Record{Value: []byte(`{"candidateEmail":"ines@example.net"}`)}, true},
		{"by one of several", handlers.Tracking, handlers.Record{Value: []byte(`{"candidateLogin":"ines.lopes","candidateRefNumber":"E-77"}`)}, true},
		{"somebody else", handlers.Tracking, handlers.Record{Value: []byte(`{"candidateLogin":"kwame"}`)}, false},
		{"a title that is a login", handlers.Tracking, handlers.Record{Value: []byte(`{"candidateLogin":"kwame","sessionTitle":"ines.lopez"}`)}, false},
		{"a title alone", handlers.Tracking, handlers.Record{Value: []byte(`{"sessionTitle":"E-77"}`)}, false},
		{"an e-mail in a title", handlers.Tracking, handlers.Record{Value: []byte(`{"candidateLogin":"kwame","sessionTitle":"ask ines@example.net."}`)}, true},
		{"a misspelt column", handlers.Tracking, handlers.Record{Value: []byte(`{"candidatelogin":"ines.lopez"}`)}, true},
		{"a misspelt column beside a good one", handlers.Tracking, handlers.Record{Value: []byte(`{"candidateLogin":"kwame","x":"E-77"}`)}, false},
		{"the key", handlers.Tracking, handlers.Record{Key: []byte("ines.lopez"), Value: []byte(`{"candidateLogin":"kwame"}`)}, true},
		{"a reference number as key", handlers.Tracking, handlers.Record{Key: []byte("E-77"), Value: []byte(`{}`)}, true},
		{"another's row with that key", handlers.Tracking, handlers.Record{Key: []byte("E-77"), Value: []byte(`{"candidateLogin":"kwame"}`)}, false},
		{"no value", handlers.Tracking, handlers.Record{Key: []byte("E-77")}, true},
		{"a header", handlers.Tracking, handlers.Record{Headers: header("who", "Ines.Lopez")}, true},
		{"an e-mail in a header", handlers.Tracking, handlers.Record{Headers: header("from", "Ines <ines@example.net>")}, true},
		{"a header of ours", handlers.Tracking, handlers.Record{Headers: header("learnsink.replay-of", "ines.lopez")}, false},
		{"no row", handlers.Tracking, handlers.Record{Value: []byte(`ines.lopez;FIRE-1`)}, true},
		{"nested", handlers.Tracking, handlers.Record{Value: []byte(`{"candidate":{"ref":"E-77"}}`)}, true},
		{"no text", handlers.Tracking, handlers.Record{Value: []byte("\xff ines.lopez\xff")}, true},
		{"no row, and another", handlers.Tracking, handlers.Record{Value: []byte(`ines.lopezy E-771`)}, false},
		{"a learner's login is no teacher's", handlers.Intervention, handlers.Record{Value: []byte(`{"teacherLogin":"ines.lopez"}`)}, false},
		{"a teacher", handlers.Intervention, handlers.Record{Value: []byte(`{"teacherLogin":"t.ng"}`)}, true},
		{"a teacher's login is no learner's", handlers.Tracking, handlers.Record{Value: []byte(`{"candidateLogin":"t.ng"}`)}, false},
	}
	plain := handlers.Identities{}
	for _, id := range persons() {
		plain[id] = struct{}{}
	}
	for _, test := range tests {
		for how, who := range map[string]handlers.Persons{"texts": plain, "hashes": erased()} {
			if got := handlers.NewNamer(test.action, who).Names(&test.rec); got != test.want {
				t.Errorf("%s, by %s: %v", test.what, how, got)
			}
		}
	}
}

// A row that cannot be accepted, and is of an erased person, is gone whatever
// else is wrong with it; a row of somebody whom the catalogue knows never is.
func TestErasedRows(t *testing.T) {
	rules, err := handlers.Compile(handlers.Tracking, nil)
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	facts := handlers.NewFacts(1)
	facts.Learners[handlers.LearnerRef{Email: "ines@example.net"}] = 7 // another account's, since
	facts.Erased = erased()
	for value, want := range map[string]handlers.Verdict{
		`{"candidateLogin":"ines.lopez","lovCode":"X","sessionId":1}`:                                handlers.Gone,
		`{"candidateLogin":"ines.lopez","firstAccessDate":"yesterday"}`:                              handlers.Gone,
		`{"candidateLogin":"ines.lopez"`:                                                             handlers.Gone,
		`{"candidateEmail":"ines@example.net","lovCode":"X","sessionId":1}`:                          handlers.Rejected,
		`{"candidateLogin":"kwame","candidateEmail":"ines@example.net","lovCode":"X","sessionId":1}`: handlers.Gone,
		`{"candidateLogin":"kwame","lovCode":"X","sessionId":1}`:                                     handlers.Rejected,
	} {
		rec := &handlers.Record{Topic: "t", Value: []byte(value)}
		row := rules.Decode(rec, at)
		d := rules.Decide(&row, facts)
		if d.Verdict != want {
			t.Errorf("%s: verdict %d, not %d", value, d.Verdict, want)
		}
		if d.Verdict == handlers.Gone && (d.Errors != nil || d.Record != rec) {
			t.Errorf("%s: %+v", value, d)
		}
		if _, ok := d.Output(&handlers.Source{Topic: "t", Rules: rules}, at); ok != (want == handlers.Rejected) {
			t.Errorf("%s: an output is %v", value, ok)
		}
	}
}

package handlers

import (
	"strings"
	"testing"
	"unicode"
)

func TestFoldIsEqualFold(t *testing.T) {
	t.Run("every rune folds to a member of its own orbit, the same for all of it", func(t *testing.T) {
		for r := rune(0); r <= unicode.MaxRune; r++ {
			f := foldRune(r)
			if !strings.EqualFold(string(f), string(r)) {
				t.Fatalf("%U folds to %U, which EqualFold tells apart", r, f)
			}
			if next := unicode.SimpleFold(r); foldRune(next) != f {
				t.Fatalf("%U and %U are one orbit and fold to %U and %U", r, next, f, foldRune(next))
			}
		}
	})
	for _, c := range []struct{ in, want string }{
		{"", ""},
		{"dr.haas", "dr.haas"},
		{"DR.HAAS", "dr.haas"},
		{"\u212Aelvin", "kelvin"}, // the Kelvin sign
		{"ſtraße", "straße"},      // long s; ß folds with ẞ only
		{"STRAẞE", "straße"},
		{"İ", "İ"}, // simple folding leaves it alone
		{"ΣΑΣ", "σασ"},
		{"σας", "σασ"}, // the final sigma
	} {
		if got := Fold(c.in); got != c.want {
			t.Errorf("Fold(%q) = %q, want %q", c.in, got, c.want)
		}
	}
}

func FuzzFold(f *testing.F) {
	f.Add("Ines.Lopez", "INES.LOPEZ")
	f.Add("ſ", "S")
	f.Add("0123456789ABCDEF@", "0123456é89[`{Zz")
	f.Fuzz(func(t *testing.T, a, b string) {
		a, b = strings.ToValidUTF8(a, ""), strings.ToValidUTF8(b, "")
		if (Fold(a) == Fold(b)) != strings.EqualFold(a, b) {
			t.Errorf("Fold and EqualFold differ on %q and %q", a, b)
		}
		if Fold(Fold(a)) != Fold(a) {
			t.Errorf("Fold(%q) is not folded", a)
		}
		all := [...]string{a, b, a + b, ""}
		foldAll(&all)
		if want := [...]string{Fold(a), Fold(b), Fold(a + b), ""}; all != want {
			t.Errorf("folded together %q, want %q", all, want)
		}
	})
}

func BenchmarkFold(b *testing.B) {
	for b.Loop() {
		Fold("Ines.Lopez@Example.net")
	}
}

package rowgen_test

import (
	"testing"

	"learnsink/test/rowgen"
)

func BenchmarkNext(b *testing.B) {
	g := rowgen.New(rowgen.Config{Seed: 3, Bad: 0.1, Plain: true})
	b.ReportAllocs()
	for b.Loop() {
		b.SetBytes(int64(len(g.Next().Value)))
	}
}

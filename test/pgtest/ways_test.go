package pgtest

import (
	"context"
	"os"
	"slices"
	"strings"
	"testing"
)

// TestWays tries each way to a server that this machine has, not only the first.
func TestWays(t *testing.T) {
	for name, way := range map[string]func(context.Context) (url, name string, err error){"postgres": local, "docker": docker} {
		t.Run(name, func(t *testing.T) {
			url, what, err := way(t.Context())
			if err != nil {
				if slices.Contains(strings.Split(os.Getenv("LEARNSINK_TEST_REQUIRE"), ","), name) {
					t.Fatal(err)
				}
				t.Skip(err)
			}
			t.Logf("runs on %s", what)
			s := &server{}
			if err := s.use(t.Context(), url); err != nil {
				t.Fatal(err)
			}
			template, err := s.makeTemplate()
			if err != nil {
				t.Fatal(err)
			}
			again, err := s.makeTemplate()
			if err != nil || again != template {
				t.Fatalf("the second time: %s, %v; want %s", again, err, template)
			}
			s.create(t, "TEMPLATE "+template)
		})
	}
}

func TestGivenServer(t *testing.T) {
	url, _, err := local(t.Context())
	if err != nil {
		t.Skip(err)
	}
	t.Setenv("DATABASE_URL", url)
	s := find()
	if s.why != "" || s.name != "DATABASE_URL" || s.url != url {
		t.Fatalf("found %q (%s)", s.name, s.why)
	}
	t.Setenv("DATABASE_URL", "postgres://nobody:verysecret@127.0.0.1:1/nowhere")
	if s := find(); s.why == "" || strings.Contains(s.why, "verysecret") {
		t.Fatalf("a server that is given and away: found %q (%s)", s.name, s.why)
	}
}

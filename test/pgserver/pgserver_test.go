package pgserver_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"learnsink/test/pgserver"
)

func TestServer(t *testing.T) {
	bin, found := pgserver.Find()
	if !found {
		t.Skip("no PostgreSQL of this machine's own")
	}
	if dir := os.Getenv("PGSERVER_TEST_DIR"); dir != "" { // the child of the second subtest
		s, err := pgserver.Start(t.Context(), pgserver.Options{Bin: bin, Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "url"), []byte(s.URL()), 0o600); err != nil {
			t.Fatal(err)
		}
		p, _ := os.FindProcess(os.Getpid())
		_ = p.Kill()
		select {}
	}
	t.Run("a server answers, and leaves nothing once it is stopped", func(t *testing.T) {
		dir := passable(t)
		s, err := pgserver.Start(t.Context(), pgserver.Options{Bin: bin, Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		conn, err := pgx.Connect(t.Context(), s.URL())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(context.Background())
		if err := s.Stop(); err != nil {
			t.Fatal(err)
		}
		if left, _ := filepath.Glob(filepath.Join(dir, "*")); len(left) != 0 {
			t.Fatalf("left behind: %v", left)
		}
	})
	t.Run("a server that was killed starts again with what was committed", func(t *testing.T) {
		s, err := pgserver.Start(t.Context(), pgserver.Options{Bin: bin, Dir: passable(t)})
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := s.Stop(); err != nil {
				t.Error(err)
			}
		}()
		conn, err := pgx.Connect(t.Context(), s.URL())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Exec(t.Context(), "CREATE TABLE kept AS SELECT 1 AS n"); err != nil {
			t.Fatal(err)
		}
		if err := s.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = conn.Close(t.Context())
		if err := s.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		conn, err = pgx.Connect(t.Context(), s.URL())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(context.Background())
		var n int
		if err := conn.QueryRow(t.Context(), "SELECT n FROM kept").Scan(&n); err != nil || n != 1 {
			t.Errorf("kept holds %d: %v", n, err)
		}
	})
	t.Run("a server ends with an owner that was killed", func(t *testing.T) {
		dir := passable(t)
		cmd := exec.Command(os.Args[0], "-test.run=^TestServer$")
		cmd.Env = append(os.Environ(), "PGSERVER_TEST_DIR="+dir)
		if err := cmd.Run(); err == nil {
			t.Fatal("the child was to be killed")
		}
		url, err := os.ReadFile(filepath.Join(dir, "url"))
		if err != nil {
			t.Fatal(err)
		}
		deadline := time.After(30 * time.Second)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			left, _ := filepath.Glob(filepath.Join(dir, "learnsink-pg-*"))
			conn, err := pgx.Connect(t.Context(), string(url))
			if err != nil && len(left) == 0 {
				return
			}
			if err == nil {
				_ = conn.Close(t.Context())
			}
			select {
			case <-tick.C:
			case <-deadline:
				t.Fatalf("the server still answers (%v), or left %v", err, left)
			}
		}
	})
}

// passable returns a folder like /tmp: another user can pass through it and remove what is his.
func passable(t *testing.T) string {
	dir, err := os.MkdirTemp("", "pgs")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o777|os.ModeSticky); err != nil {
		t.Fatal(err)
	}
	return dir
}

package pgserver

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	embedded "github.com/fergusstrange/embedded-postgres"
)

// oldest is the oldest PostgreSQL that learnsink runs on.
const oldest = 15

// Find returns the folder of this machine's own PostgreSQL binaries: those on
// PATH, else the newest of the usual places. Servers too old for learnsink are
// passed over.
func Find() (bin string, found bool) {
	var candidates []string
	if path, err := exec.LookPath("initdb"); err == nil {
		if path, err = filepath.EvalSymlinks(path); err == nil {
			candidates = append(candidates, filepath.Dir(path))
		}
	}
	for _, pattern := range []string{
		"/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", // Debian and its kin, Red Hat and its kin
		"/opt/homebrew/opt/postgresql@*/bin", "/usr/local/opt/postgresql@*/bin",
	} {
		dirs, _ := filepath.Glob(pattern)
		for i := len(dirs) - 1; i >= 0; i-- {
			candidates = append(candidates, dirs[i])
		}
	}
	for _, dir := range candidates {
		if major(dir) >= oldest {
			return dir, true
		}
	}
	return "", false
}

// major returns the version of the server in dir; 0 where there is none.
func major(dir string) int {
	if _, err := os.Stat(filepath.Join(dir, "initdb")); err != nil {
		return 0
	}
	out, err := exec.Command(filepath.Join(dir, "postgres"), "--version").Output() // postgres (PostgreSQL) 15.18 (…)
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(out), "(PostgreSQL) ")
	end := strings.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' })
	if end < 0 {
		return 0
	}
	n, _ := strconv.Atoi(rest[:end])
	return n
}

// Fetch returns the folder of PostgreSQL binaries that are fetched at the
// first use and kept. embedded-postgres knows where they are published for
// which system; it would also run them, but not as root, and a killed test
// would leave its server behind: so it does the fetching alone.
func Fetch(ctx context.Context) (bin string, err error) {
	cache, err := cacheDir()
	if err != nil {
		return "", fmt.Errorf("fetch PostgreSQL: %w", err)
	}
	version := embedded.V17
	home := filepath.Join(cache, "postgresql-"+string(version))
	bin = filepath.Join(home, "bin")
	if _, err := os.Stat(filepath.Join(bin, "postgres")); err == nil {
		return bin, nil
	}
	tmp, err := os.MkdirTemp(cache, "fetch-")
	if err != nil {
		return "", fmt.Errorf("fetch PostgreSQL: %w", err)
	}
	defer os.RemoveAll(tmp)
	port, err := freePort()
	if err != nil {
		return "", fmt.Errorf("fetch PostgreSQL: %w", err)
	}
	db := embedded.NewDatabase(embedded.DefaultConfig().Version(version).Port(uint32(port)).Logger(io.Discard).
		CachePath(filepath.Join(tmp, "archive")).BinariesPath(filepath.Join(tmp, "server")).RuntimePath(filepath.Join(tmp, "run")))
	done := make(chan error, 1)
	go func() {
		err := db.Start() // as root it gets as far as having fetched
		if err == nil {
			err = db.Stop()
		}
		done <- err
	}()
	select {
	case err = <-done:
	case <-ctx.Done():
		return "", fmt.Errorf("fetch PostgreSQL: %w", ctx.Err())
	}
	if _, missing := os.Stat(filepath.Join(tmp, "server", "bin", "postgres")); missing != nil {
		return "", fmt.Errorf("fetch PostgreSQL %s: %w", version, err)
	}
	// In one step, so that a fetch that was killed leaves nothing half done.
	// Another process may have been faster: then its copy stays.
	if err := os.Chmod(filepath.Join(tmp, "server"), 0o755); err != nil {
		return "", fmt.Errorf("fetch PostgreSQL: %w", err)
	}
	if err := os.Rename(filepath.Join(tmp, "server"), home); err != nil && !os.IsExist(err) {
		return "", fmt.Errorf("fetch PostgreSQL: %w", err)
	}
	return bin, nil
}

// cacheDir returns where fetched binaries are kept. Root runs them as another
// user, who cannot look into root's home.
func cacheDir() (string, error) {
	dir := "/var/cache"
	if os.Geteuid() != 0 {
		var err error
		if dir, err = os.UserCacheDir(); err != nil {
			return "", err
		}
	}
	dir = filepath.Join(dir, "learnsink")
	return dir, os.MkdirAll(dir, 0o755)
}

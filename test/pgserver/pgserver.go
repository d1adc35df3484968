// Package pgserver runs a private PostgreSQL for tests and for the demo.
//
// The server's binaries are this machine's own (Find) or fetched once and kept
// (Fetch). Its data lives in a directory of its own that goes with it, its
// address is a free port of 127.0.0.1, its only user has a random password.
// As root, PostgreSQL refuses to run: it is started as another user then.
//
// # Non-obvious
//
// The server outlives nobody. A shell between us and it reads a pipe that we
// hold: when the pipe closes, however we ended (kill -9 included), the shell
// stops the server and removes the directory. Whatever even that leaves behind
// (the whole machine went down) is swept by the next Start.
package pgserver

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// Options says which server to start and how. The zero value is useful.
type Options struct {
	// Bin is the folder with initdb and postgres. Empty: Find, else Fetch.
	Bin string
	// Dir is the folder in which the server's own directory is made. Empty:
	// the system's folder for temporary files. As root, other users must be
	// able to pass through it.
	Dir string
	// Durable keeps fsync on. Otherwise it is off: faster, and the data is
	// worth nothing after a crash of the machine, which it would not outlive
	// anyway.
	Durable bool
	// Cert and Key, PEM, make the server speak TLS with those who ask for it.
	Cert, Key []byte
	// Settings are further settings of the server, as in postgresql.conf.
	Settings map[string]string
}

// Server is a running private PostgreSQL.
type Server struct {
	bin    string
	dir    string
	url    string
	attr   *syscall.SysProcAttr // as whom it runs
	args   []string             // of the shell that starts and watches it
	pipe   io.Closer            // the shell reads its other end
	exited chan struct{}
}

// URL returns the address of the database `postgres`, with user and password.
func (s *Server) URL() string { return s.url }

// String says what it is and where its binaries come from.
func (s *Server) String() string { return "private PostgreSQL (" + s.bin + ")" }

// Stop ends the server, removes its data and waits for both.
func (s *Server) Stop() error {
	err := s.pipe.Close()
	if errors.Is(err, os.ErrClosed) { // it has ended by itself, or was killed
		err = nil
	}
	<-s.exited
	return errors.Join(err, os.RemoveAll(s.dir))
}

// Kill ends the server as a crash would: at once, without a word to anybody.
// Its data stays, for Restart.
func (s *Server) Kill() error {
	file, err := os.ReadFile(filepath.Join(s.dir, "data", "postmaster.pid"))
	if err != nil {
		return fmt.Errorf("kill PostgreSQL: %w", err)
	}
	first, _, _ := strings.Cut(string(file), "\n")
	pid, err := strconv.Atoi(first)
	if err != nil {
		return fmt.Errorf("kill PostgreSQL: its pid: %w", err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		return fmt.Errorf("kill PostgreSQL: %w", err)
	}
	<-s.exited
	return nil
}

// Restart starts a server that was killed, on its data and at its address, and
// returns once it answers. ctx bounds the start, not the server.
func (s *Server) Restart(ctx context.Context) error {
	for {
		err := s.launch(ctx)
		// The processes of the one that was killed end a moment after it, and
		// until then PostgreSQL refuses to run beside them.
		if errors.Is(err, errEnded) && pause(ctx, 50*time.Millisecond) {
			continue
		}
		if err != nil {
			return fmt.Errorf("restart PostgreSQL: %w", err)
		}
		return nil
	}
}

func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

const dirPrefix = "learnsink-pg-"

// watch is what stands between us and the server: "$1" is the directory, the
// rest the server's command line. Standard input is the pipe that we hold.
// The directory of a server that never came up stays, for its log to be read.
const watch = `
dir=$1; shift
exec 3<&0 </dev/null
"$@" 3<&- & server=$!
{ cat <&3 >/dev/null; kill -INT $server 2>/dev/null; } & reader=$!
wait $server; status=$?
kill $reader 2>/dev/null
[ $status -eq 0 ] && rm -rf "$dir"
exit $status
`

// Start starts a server and returns once it answers. ctx bounds the start, not the server.
func Start(ctx context.Context, opt Options) (*Server, error) {
	bin := opt.Bin
	if bin == "" {
		var found bool
		if bin, found = Find(); !found {
			var err error
			if bin, err = Fetch(ctx); err != nil {
				return nil, err
			}
		}
	}
	parent := opt.Dir
	if parent == "" {
		parent = os.TempDir()
	}
	sweep(parent)
	dir, err := os.MkdirTemp(parent, dirPrefix)
	if err != nil {
		return nil, fmt.Errorf("start PostgreSQL: %w", err)
	}
	s, err := start(ctx, bin, dir, opt)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start PostgreSQL of %s: %w", bin, err), os.RemoveAll(dir))
	}
	return s, nil
}

func start(ctx context.Context, bin, dir string, opt Options) (*Server, error) {
	attr, err := otherUser(dir)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, "owner"), []byte(strconv.Itoa(os.Getpid())), 0o644); err != nil {
		return nil, err
	}
	password := rand.Text()
	data, pwfile := filepath.Join(dir, "data"), filepath.Join(dir, "pw")
	if err := os.WriteFile(pwfile, []byte(password), 0o644); err != nil {
		return nil, err
	}
	initdb := exec.CommandContext(ctx, filepath.Join(bin, "initdb"), "-D", data, "-U", "postgres", "-A", "password",
		"--pwfile", pwfile, "-E", "UTF8", "--locale", "C", "--no-sync")
	initdb.SysProcAttr, initdb.Dir = attr, dir
	if out, err := initdb.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("initdb: %w: %s", err, bytes.TrimSpace(out))
	}
	if err := os.Remove(pwfile); err != nil {
		return nil, err
	}

	port, err := freePort()
	if err != nil {
		return nil, err
	}
	args := []string{"-c", watch, "watch", dir, filepath.Join(bin, "postgres"), "-D", data, "-p", strconv.Itoa(port),
		"-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "max_connections=200"}
	if !opt.Durable {
		args = append(args, "-c", "fsync=off", "-c", "full_page_writes=off")
	}
	if opt.Cert != nil {
		// PostgreSQL takes a key that only its own user can read.
		cert, key := filepath.Join(dir, "server.crt"), filepath.Join(dir, "server.key")
		if err := errors.Join(os.WriteFile(cert, opt.Cert, 0o644), os.WriteFile(key, opt.Key, 0o600)); err != nil {
			return nil, err
		}
		if c := attr.Credential; c != nil {
			if err := os.Chown(key, int(c.Uid), int(c.Gid)); err != nil {
				return nil, err
			}
		}
		args = append(args, "-c", "ssl=on", "-c", "ssl_cert_file="+cert, "-c", "ssl_key_file="+key)
	}
	for name, value := range opt.Settings {
		args = append(args, "-c", name+"="+value)
	}
	s := &Server{bin: bin, dir: dir, attr: attr, args: args}
	s.url = (&url.URL{Scheme: "postgres", User: url.UserPassword("postgres", password),
		Host: net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), Path: "postgres", RawQuery: "sslmode=disable"}).String()
	if err := s.launch(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

// launch starts the server on its data, and returns once it answers.
func (s *Server) launch(ctx context.Context) error {
	log, err := os.Create(filepath.Join(s.dir, "log"))
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command("/bin/sh", s.args...)
	cmd.SysProcAttr, cmd.Dir, cmd.Stdout, cmd.Stderr = s.attr, s.dir, log, log
	if s.pipe, err = cmd.StdinPipe(); err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	exited := make(chan struct{})
	s.exited = exited
	go func() {
		_ = cmd.Wait() // its status says no more than that the server is gone
		close(exited)
	}()
	if err := s.answers(ctx); err != nil {
		text, _ := os.ReadFile(log.Name())
		_ = s.pipe.Close()
		<-s.exited
		return fmt.Errorf("%w: %s", err, bytes.TrimSpace(text))
	}
	return nil
}

// errEnded: the server ended before it had answered.
var errEnded = errors.New("the server ended at once")

// answers waits until a connection is taken, the server is gone or a minute is over.
func (s *Server) answers(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	for {
		conn, err := pgx.Connect(ctx, s.url)
		if err == nil {
			return conn.Close(ctx)
		}
		select {
		case <-s.exited:
			return errEnded
		case <-ctx.Done():
			return fmt.Errorf("the server does not answer: %w", err)
		case <-poll.C:
		}
	}
}

// otherUser says as whom the server runs: as ourselves, or, since PostgreSQL
// refuses root, as `postgres` or `nobody`, to whom dir is given. The server
// has a process group of its own: a Ctrl-C on the terminal is for us, who may
// still need the database to end well.
func otherUser(dir string) (*syscall.SysProcAttr, error) {
	attr := &syscall.SysProcAttr{Setpgid: true}
	if os.Geteuid() != 0 {
		return attr, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
		gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
		if err1 != nil || err2 != nil || uid == 0 {
			continue
		}
		attr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		return attr, os.Chown(dir, int(uid), int(gid))
	}
	return nil, errors.New("PostgreSQL does not run as root, and there is no user `postgres` or `nobody` to run it as")
}

// sweep removes the directories of servers whose owner and server are both gone.
func sweep(parent string) {
	dirs, _ := filepath.Glob(filepath.Join(parent, dirPrefix+"*"))
	for _, dir := range dirs {
		owner, err := os.ReadFile(filepath.Join(dir, "owner"))
		if err != nil || alive(string(owner)) {
			continue // just being made, or another user's, or in use
		}
		postmaster, _ := os.ReadFile(filepath.Join(dir, "data", "postmaster.pid"))
		pid, _, _ := strings.Cut(string(postmaster), "\n")
		if !alive(pid) {
			_ = os.RemoveAll(dir)
		}
	}
}

func alive(pid string) bool {
	n, err := strconv.Atoi(strings.TrimSpace(pid))
	return err == nil && n > 0 && !errors.Is(syscall.Kill(n, 0), syscall.ESRCH)
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

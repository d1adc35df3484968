// Package kafkaserver runs a real Apache Kafka, broker and controller, as
// processes of ours: the servers of the chaos and of the bench.
//
// It needs Java 17, and Maven at the first use, which fetches the jars;
// KAFKA_LIB may name a folder that has them. The processes outlive nobody: see
// package reaper.
package kafkaserver

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"text/template"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"learnsink/test/reaper"
)

//go:embed pom.xml
var pom []byte

//go:embed log4j2.xml
var log4j []byte

//go:embed server.properties
var serverProperties string

// Options says which server to start and how.
type Options struct {
	// Dir is where the server keeps its data, its settings and its logs.
	Dir string
	// Listeners are further addresses of the broker, beside its own.
	Listeners []Listener
	// Reaper runs the processes.
	Reaper *reaper.Reaper
	// Group is a consumer group that can be joined once the server answers;
	// empty: none is waited for.
	Group string
	// Warm lets the broker's code be compiled in full, as one that runs for
	// long is: more CPU in its first minute, less from then on.
	Warm bool
	// Say is told what takes long.
	Say func(format string, args ...any)
}

// Listener is what a client reaches the broker by: the broker listens on Port,
// and says that it does at Advertised, which is a proxy.
type Listener struct {
	Port       int
	Advertised string
}

// Server is one real Apache Kafka broker and its controller, processes of ours.
type Server struct {
	// Address is the broker's own, past all further listeners.
	Address string
	Admin   *kadm.Client
	Client  *kgo.Client

	Options
	jars string
	cmd  *exec.Cmd // the broker
	done chan struct{}
}

// fetchJars returns the folder of the broker's jars: KAFKA_LIB, or where Maven
// puts them at the first use.
func fetchJars(ctx context.Context, say func(string, ...any)) (string, error) {
	if dir := os.Getenv("KAFKA_LIB"); dir != "" {
		return dir, nil
	}
	return Jars(ctx, "kafka", pom, say)
}

// Jars returns a folder with the jars that a pom.xml names. Maven puts them
// there at the first use; from then on they are kept, under the pom's hash.
func Jars(ctx context.Context, name string, pom []byte, say func(format string, args ...any)) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	cache = filepath.Join(cache, "learnsink")
	dir := filepath.Join(cache, fmt.Sprintf("%s-%x", name, sha256.Sum256(pom))[:len(name)+13])
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", err
	}
	tmp, err := os.MkdirTemp(cache, "fetch-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp)
	file := filepath.Join(tmp, "pom.xml")
	if err := os.WriteFile(file, pom, 0o644); err != nil {
		return "", err
	}
	say("fetching the jars of %s with Maven", name)
	lib := filepath.Join(tmp, "lib")
	mvn := exec.CommandContext(ctx, "mvn", "-q", "-B", "-f", file, "dependency:copy-dependencies", "-DoutputDirectory="+lib)
	if out, err := mvn.CombinedOutput(); err != nil {
		return "", fmt.Errorf("mvn: %w: %s", err, tail(out))
	}
	// In one step, so that a fetch that was killed leaves nothing half done.
	if err := os.Rename(lib, dir); err != nil && !os.IsExist(err) {
		return "", err
	}
	return dir, nil
}

// Start makes a server and returns once it answers.
func Start(ctx context.Context, opt Options) (*Server, error) {
	if opt.Say == nil {
		opt.Say = func(string, ...any) {}
	}
	jars, err := fetchJars(ctx, opt.Say)
	if err != nil {
		return nil, fmt.Errorf("the jars of Apache Kafka: %w", err)
	}
	ports, err := FreePorts(2)
	if err != nil {
		return nil, err
	}
	s := &Server{Options: opt, jars: jars, Address: fmt.Sprintf("127.0.0.1:%d", ports[0])}
	if err := errors.Join(os.MkdirAll(s.Dir, 0o755), os.WriteFile(s.file("log4j2.xml"), log4j, 0o644)); err != nil {
		return nil, err
	}
	id := make([]byte, 16)
	_, _ = rand.Read(id) // never fails
	for _, role := range []string{"controller", "broker"} {
		var properties bytes.Buffer
		if err := template.Must(template.New("").Parse(serverProperties)).Execute(&properties, map[string]any{
			"Broker": role == "broker", "Controller": ports[1], "Direct": ports[0], "Members": s.Listeners, "Data": s.file(role),
		}); err != nil {
			return nil, err
		}
		if err := os.WriteFile(s.file(role+".properties"), properties.Bytes(), 0o644); err != nil {
			return nil, err
		}
		format := exec.CommandContext(ctx, "java", s.args("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "kafka.tools.StorageTool", "format",
			"-t", base64.RawURLEncoding.EncodeToString(id), "-c", s.file(role+".properties"))...)
		if out, err := format.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("format the storage of Kafka's %s: %w: %s", role, err, tail(out))
		}
	}
	if s.Client, err = kgo.NewClient(kgo.SeedBrokers(s.Address), kgo.MetadataMinAge(50*time.Millisecond), kgo.RetryTimeout(2*time.Second),
		kgo.RetryBackoffFn(func(int) time.Duration { return 20 * time.Millisecond })); err != nil {
		return nil, err
	}
	s.Admin = kadm.NewClient(s.Client)
	if _, _, err := s.launch("controller", "-Xmx256m", "-XX:TieredStopAtLevel=1"); err != nil {
		return nil, err
	}
	if err := s.Start(); err != nil {
		return nil, err
	}
	return s, s.Answers(ctx)
}

// Close closes the clients; the processes are the reaper's.
func (s *Server) Close() { s.Client.Close() }

func (s *Server) file(name string) string { return filepath.Join(s.Dir, name) }

// Log is the file of the broker's log.
func (s *Server) Log() string { return s.file("broker.log") }

func (s *Server) args(more ...string) []string {
	return append([]string{"-cp", s.jars + "/*", "-Dlog4j2.configurationFile=" + s.file("log4j2.xml")}, more...)
}

// Start starts the broker's process, on what it has stored.
func (s *Server) Start() (err error) {
	options := []string{"-Xms256m", "-Xmx512m"}
	if !s.Warm {
		options = append(options, "-XX:TieredStopAtLevel=1")
	}
	s.cmd, s.done, err = s.launch("broker", options...)
	return err
}

func (s *Server) launch(role string, options ...string) (*exec.Cmd, chan struct{}, error) {
	log, err := os.OpenFile(s.file(role+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, nil, err
	}
	defer log.Close()
	cmd := exec.Command("java", s.args(append(options, "kafka.Kafka", s.file(role+".properties"))...)...)
	cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = log, log, &syscall.SysProcAttr{Setpgid: true}
	done, err := s.Reaper.Run(cmd)
	return cmd, done, err
}

// End ends the broker's process, with SIGKILL or as an operator would, and waits for it.
func (s *Server) End(ctx context.Context, signal syscall.Signal) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if err := s.cmd.Process.Signal(signal); err != nil {
		return fmt.Errorf("signal the broker: %w", err)
	}
	select {
	case <-s.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Answers waits until the broker serves every topic that there is, and
// coordinates the group.
func (s *Server) Answers(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var err error
	for ctx.Err() == nil {
		select {
		case <-s.done:
			text, _ := os.ReadFile(s.Log())
			return fmt.Errorf("the broker has ended: %s", tail(text))
		default:
		}
		if err = s.serves(ctx); err == nil {
			return nil
		}
		pause(ctx, 50*time.Millisecond)
	}
	return fmt.Errorf("the broker does not answer: %w", err)
}

func (s *Server) serves(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	ends, err := s.Admin.ListCommittedOffsets(ctx)
	if err == nil {
		err = ends.Error()
	}
	if err != nil || s.Group == "" {
		return err
	}
	// Until it has loaded the group's offsets nobody can join it.
	_, err = s.Admin.FetchOffsets(ctx, s.Group)
	return err
}

// FreePorts returns ports of 127.0.0.1 on which nobody listens.
func FreePorts(n int) ([]int, error) {
	ports := make([]int, n)
	for i := range ports {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close() // at the end: so they differ
		ports[i] = l.Addr().(*net.TCPAddr).Port
	}
	return ports, nil
}

func tail(text []byte) string {
	s := strings.TrimSpace(string(text))
	return s[max(0, len(s)-2000):]
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

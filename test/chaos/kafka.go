package main

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
)

//go:embed kafka.pom.xml
var kafkaPOM []byte

//go:embed kafka.log4j2.xml
var kafkaLog4j []byte

//go:embed kafka.properties
var kafkaProperties string

// listener is what a member of the group reaches the broker by: the broker
// listens on Port, and says that it does at Advertised, which is a proxy.
type listener struct {
	Port       int
	Advertised string
}

// kafka is one real Apache Kafka broker and its controller, processes of ours.
type kafka struct {
	dir, jars string
	direct    string // the broker's address, past all proxies
	reaper    *reaper
	admin     *kadm.Client
	client    *kgo.Client

	cmd  *exec.Cmd // the broker
	done chan struct{}
}

// kafkaJars returns the folder of the broker's jars: KAFKA_LIB, or where Maven
// puts them at the first use.
func kafkaJars(ctx context.Context) (string, error) {
	if dir := os.Getenv("KAFKA_LIB"); dir != "" {
		return dir, nil
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	cache = filepath.Join(cache, "learnsink")
	dir := filepath.Join(cache, fmt.Sprintf("kafka-%x", sha256.Sum256(kafkaPOM))[:18])
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
	pom := filepath.Join(tmp, "pom.xml")
	if err := os.WriteFile(pom, kafkaPOM, 0o644); err != nil {
		return "", err
	}
	say("fetching Apache Kafka's jars with Maven")
	lib := filepath.Join(tmp, "lib")
	mvn := exec.CommandContext(ctx, "mvn", "-q", "-B", "-f", pom, "dependency:copy-dependencies", "-DoutputDirectory="+lib)
	if out, err := mvn.CombinedOutput(); err != nil {
		return "", fmt.Errorf("mvn: %w: %s", err, tail(out))
	}
	// In one step, so that a fetch that was killed leaves nothing half done.
	if err := os.Rename(lib, dir); err != nil && !os.IsExist(err) {
		return "", err
	}
	return dir, nil
}

// startKafka makes a broker in dir and starts it.
func startKafka(ctx context.Context, dir string, members []listener, reaper *reaper) (*kafka, error) {
	jars, err := kafkaJars(ctx)
	if err != nil {
		return nil, fmt.Errorf("the jars of Apache Kafka: %w", err)
	}
	ports, err := freePorts(2)
	if err != nil {
		return nil, err
	}
	k := &kafka{dir: dir, jars: jars, direct: fmt.Sprintf("127.0.0.1:%d", ports[0]), reaper: reaper}
	if err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(k.file("log4j2.xml"), kafkaLog4j, 0o644)); err != nil {
		return nil, err
	}
	id := make([]byte, 16)
	_, _ = rand.Read(id) // never fails
	for _, role := range []string{"controller", "broker"} {
		var properties bytes.Buffer
		if err := template.Must(template.New("").Parse(kafkaProperties)).Execute(&properties, map[string]any{
			"Broker": role == "broker", "Controller": ports[1], "Direct": ports[0], "Members": members, "Data": k.file(role),
		}); err != nil {
			return nil, err
		}
		if err := os.WriteFile(k.file(role+".properties"), properties.Bytes(), 0o644); err != nil {
			return nil, err
		}
		format := exec.CommandContext(ctx, "java", k.args("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "kafka.tools.StorageTool", "format",
			"-t", base64.RawURLEncoding.EncodeToString(id), "-c", k.file(role+".properties"))...)
		if out, err := format.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("format the storage of Kafka's %s: %w: %s", role, err, tail(out))
		}
	}
	if k.client, err = kgo.NewClient(kgo.SeedBrokers(k.direct), kgo.MetadataMinAge(50*time.Millisecond), kgo.RetryTimeout(2*time.Second),
		kgo.RetryBackoffFn(func(int) time.Duration { return 20 * time.Millisecond })); err != nil {
		return nil, err
	}
	k.admin = kadm.NewClient(k.client)
	if _, _, err := k.launch("controller", "-Xmx256m"); err != nil {
		return nil, err
	}
	if err := k.start(); err != nil {
		return nil, err
	}
	return k, k.answers(ctx)
}

func (k *kafka) file(name string) string { return filepath.Join(k.dir, name) }

func (k *kafka) args(more ...string) []string {
	return append([]string{"-cp", k.jars + "/*", "-Dlog4j2.configurationFile=" + k.file("log4j2.xml")}, more...)
}

// start starts the broker's process, on what it has stored.
func (k *kafka) start() (err error) {
	k.cmd, k.done, err = k.launch("broker", "-Xms256m", "-Xmx512m")
	return err
}

func (k *kafka) launch(role string, heap ...string) (*exec.Cmd, chan struct{}, error) {
	log, err := os.OpenFile(k.file(role+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, nil, err
	}
	defer log.Close()
	cmd := exec.Command("java", k.args(append(heap, "-XX:TieredStopAtLevel=1", "kafka.Kafka", k.file(role+".properties"))...)...)
	cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = log, log, &syscall.SysProcAttr{Setpgid: true}
	done, err := k.reaper.run(cmd)
	return cmd, done, err
}

// end ends the broker's process, with SIGKILL or as an operator would, and waits for it.
func (k *kafka) end(ctx context.Context, signal syscall.Signal) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if err := k.cmd.Process.Signal(signal); err != nil {
		return fmt.Errorf("signal the broker: %w", err)
	}
	select {
	case <-k.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// answers waits until the broker serves every topic that there is, and
// coordinates the group.
func (k *kafka) answers(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var err error
	for ctx.Err() == nil {
		select {
		case <-k.done:
			text, _ := os.ReadFile(k.file("broker.log"))
			return fmt.Errorf("the broker has ended: %s", tail(text))
		default:
		}
		if err = k.serves(ctx); err == nil {
			return nil
		}
		sleep(ctx, 50*time.Millisecond)
	}
	return fmt.Errorf("the broker does not answer: %w", err)
}

func (k *kafka) serves(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	ends, err := k.admin.ListCommittedOffsets(ctx)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return err
	}
	// Until it has loaded the group's offsets nobody can join it.
	_, err = k.admin.FetchOffsets(ctx, group)
	return err
}

// nothingPrepared waits until the broker has no transaction left that it is
// just ending.
func (k *kafka) nothingPrepared(ctx context.Context) error {
	for deadline := time.Now().Add(5 * time.Second); ; {
		ending, err := k.admin.ListTransactions(ctx, nil, []string{"PrepareCommit", "PrepareAbort", "PrepareEpochFence"})
		if err != nil {
			return fmt.Errorf("list transactions: %w", err)
		}
		if len(ending) == 0 {
			return nil
		}
		if time.Now().After(deadline) || !sleep(ctx, 20*time.Millisecond) {
			return fmt.Errorf("%d transactions are being ended, and do not end", len(ending))
		}
	}
}

// torn returns what the broker says of transactions that it has completed
// without their markers: their outputs and their offsets are not one any more,
// and no client can help it.
func (k *kafka) torn() (lines []string, err error) {
	text, err := os.ReadFile(k.file("broker.log"))
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(text)) {
		if strings.Contains(line, "while trying to send transaction markers") && strings.Contains(line, "can be skipped") {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines, nil
}

// committed returns how far the partitions of topics are committed, and their sum.
func (k *kafka) committed(ctx context.Context, topics ...string) (map[partition]int64, int64, error) {
	listed, err := k.admin.ListCommittedOffsets(ctx, topics...)
	if err == nil {
		err = listed.Error()
	}
	if err != nil {
		return nil, 0, err
	}
	ends, sum := map[partition]int64{}, int64(0)
	listed.Each(func(o kadm.ListedOffset) {
		ends[partition{o.Topic, o.Partition}] = o.Offset
		sum += o.Offset
	})
	return ends, sum, nil
}

// stable waits until no transaction is open in a partition: one that its
// sender has lost sight of ends by its timeout.
func (k *kafka) stable(ctx context.Context, p partition) error {
	for deadline := time.Now().Add(20 * time.Second); ; {
		ends, err := k.admin.ListEndOffsets(ctx, p.topic)
		if err == nil {
			err = ends.Error()
		}
		if err != nil {
			return err
		}
		committed, _, err := k.committed(ctx, p.topic)
		if err != nil {
			return err
		}
		if end, _ := ends.Lookup(p.topic, p.n); end.Offset == committed[p] {
			return nil
		}
		if time.Now().After(deadline) || !sleep(ctx, 50*time.Millisecond) {
			return fmt.Errorf("a transaction of ours stays open in %s", p)
		}
	}
}

// partition is one of a topic.
type partition struct {
	topic string
	n     int32
}

func (p partition) String() string { return fmt.Sprintf("%s/%d", p.topic, p.n) }

// freePorts returns ports of 127.0.0.1 on which nobody listens.
func freePorts(n int) ([]int, error) {
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

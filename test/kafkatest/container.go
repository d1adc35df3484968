package kafkatest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/testcontainers/testcontainers-go"
	"github.com/testcontainers/testcontainers-go/log"
	"github.com/testcontainers/testcontainers-go/wait"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// ErrUnavailable: no container could be made, for want of an engine or the image.
var ErrUnavailable = errors.New("no container can be made")

const image = "apache/kafka:4.3.1"

// Options of a container.
type Options struct {
	// Certificates, where the broker is to have the listeners TLS, MutualTLS,
	// Sasl and SaslTLS beside the plain one.
	Certificates *Certificates
	// User and Password for PLAIN and for both SCRAM mechanisms, on the Sasl listeners.
	User, Password string
}

// Broker is an Apache Kafka in a container: the address of each listener.
type Broker struct {
	Plain, TLS, MutualTLS, Sasl, SaslTLS string

	container testcontainers.Container
	// reaper reads this pipe: it has to stay in reach, or the garbage
	// collector closes it.
	reaper io.Closer
}

// Close removes the container, before the process ends.
func (b *Broker) Close() error {
	return testcontainers.TerminateContainer(b.container, testcontainers.StopTimeout(0))
}

// listener is one listener of the container.
type listener struct {
	name, protocol string
	inside         int
	outside        int
	address        *string
}

// Start starts a container, which ends with this process. testcontainers'
// reaper removes it; where that is turned off, a shell that reads a pipe of
// ours does.
func Start(ctx context.Context, o Options) (_ *Broker, err error) {
	defer func() {
		// testcontainers panics where it cannot make out any engine.
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: %v", ErrUnavailable, r)
		}
		if err != nil {
			err = fmt.Errorf("docker: %w", err)
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	quiet := log.TestLogger(silent{})
	provider, err := testcontainers.NewDockerProvider(testcontainers.WithLogger(quiet))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	defer provider.Close()
	if err := provider.Health(ctx); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	host, err := provider.DaemonHost(ctx)
	if err != nil {
		return nil, err
	}

	b := &Broker{}
	listeners := []listener{{name: "PLAINTEXT", protocol: "PLAINTEXT", inside: 9092, address: &b.Plain}}
	env := map[string]string{}
	var files []testcontainers.ContainerFile
	if o.Certificates != nil {
		// The image asks for a Java key store once a listener's name ends in SSL; PEM needs none.
		listeners = append(listeners,
			listener{name: "TLS", protocol: "SSL", inside: 9094, address: &b.TLS},
			listener{name: "MUTUAL", protocol: "SSL", inside: 9095, address: &b.MutualTLS},
			listener{name: "SASL", protocol: "SASL_PLAINTEXT", inside: 9096, address: &b.Sasl},
			listener{name: "SECURE", protocol: "SASL_SSL", inside: 9097, address: &b.SaslTLS})
		maps.Copy(env, map[string]string{
			"KAFKA_SSL_KEYSTORE_TYPE":                    "PEM",
			"KAFKA_SSL_KEYSTORE_LOCATION":                "/tmp/broker.pem",
			"KAFKA_SSL_TRUSTSTORE_TYPE":                  "PEM",
			"KAFKA_SSL_TRUSTSTORE_LOCATION":              "/tmp/ca.pem",
			"KAFKA_LISTENER_NAME_MUTUAL_SSL_CLIENT_AUTH": "required",
			"KAFKA_SASL_ENABLED_MECHANISMS":              "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
		})
		for _, name := range []string{"SASL", "SECURE"} {
			env["KAFKA_LISTENER_NAME_"+name+"_PLAIN_SASL_JAAS_CONFIG"] = fmt.Sprintf(
				`org.apache.kafka.common.security.plain.PlainLoginModule required user_%s="%s";`, o.User, o.Password)
			for _, bits := range []string{"256", "512"} {
				env["KAFKA_LISTENER_NAME_"+name+"_SCRAM___SHA___"+bits+"_SASL_JAAS_CONFIG"] =
					"org.apache.kafka.common.security.scram.ScramLoginModule required;"
			}
		}
		files = []testcontainers.ContainerFile{
			{Reader: bytes.NewReader(append(o.Certificates.BrokerKey, o.Certificates.BrokerCert...)), ContainerFilePath: "/tmp/broker.pem", FileMode: 0o644},
			{Reader: bytes.NewReader(o.Certificates.CA), ContainerFilePath: "/tmp/ca.pem", FileMode: 0o644},
		}
	}
	var exposed, open, advertised, protocols []string
	published := network.PortMap{}
	for i := range listeners {
		l := &listeners[i]
		// A broker tells its clients where it is, so the port outside has to be known before it starts.
		if l.outside, err = freePort(); err != nil {
			return nil, err
		}
		*l.address = net.JoinHostPort(host, strconv.Itoa(l.outside))
		port := fmt.Sprintf("%d/tcp", l.inside)
		exposed = append(exposed, port)
		published[network.MustParsePort(port)] = []network.PortBinding{{HostPort: strconv.Itoa(l.outside)}}
		open = append(open, fmt.Sprintf("%s://0.0.0.0:%d", l.name, l.inside))
		advertised = append(advertised, l.name+"://"+*l.address)
		protocols = append(protocols, l.name+":"+l.protocol)
	}
	maps.Copy(env, map[string]string{
		"KAFKA_NODE_ID":                                          "1",
		"KAFKA_PROCESS_ROLES":                                    "broker,controller",
		"KAFKA_CONTROLLER_QUORUM_VOTERS":                         "1@localhost:9093",
		"KAFKA_CONTROLLER_LISTENER_NAMES":                        "CONTROLLER",
		"KAFKA_LISTENERS":                                        strings.Join(append(open, "INTERNAL://localhost:9091", "CONTROLLER://localhost:9093"), ","),
		"KAFKA_ADVERTISED_LISTENERS":                             strings.Join(append(advertised, "INTERNAL://localhost:9091"), ","),
		"KAFKA_LISTENER_SECURITY_PROTOCOL_MAP":                   strings.Join(append(protocols, "INTERNAL:PLAINTEXT", "CONTROLLER:PLAINTEXT"), ","),
		"KAFKA_INTER_BROKER_LISTENER_NAME":                       "INTERNAL", // transactions need it, and the ports outside are not in reach from inside
		"KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR":                 "1",
		"KAFKA_OFFSETS_TOPIC_NUM_PARTITIONS":                     "4",
		"KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR":         "1",
		"KAFKA_TRANSACTION_STATE_LOG_MIN_ISR":                    "1",
		"KAFKA_TRANSACTION_STATE_LOG_NUM_PARTITIONS":             "4",
		"KAFKA_SHARE_COORDINATOR_STATE_TOPIC_REPLICATION_FACTOR": "1",
		"KAFKA_SHARE_COORDINATOR_STATE_TOPIC_MIN_ISR":            "1",
		"KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS":                 "0",
		"KAFKA_GROUP_MIN_SESSION_TIMEOUT_MS":                     "500",
		"KAFKA_LOG_CLEANER_DEDUPE_BUFFER_SIZE":                   "8388608",
		"KAFKA_AUTO_CREATE_TOPICS_ENABLE":                        "true", // a member must not create one all the same
	})
	c, runErr := testcontainers.Run(ctx, image, testcontainers.WithLogger(quiet),
		testcontainers.WithEnv(env), testcontainers.WithExposedPorts(exposed...), testcontainers.WithHostConfigModifier(func(h *container.HostConfig) { h.PortBindings = published }),
		testcontainers.WithFiles(files...),
		testcontainers.WithWaitStrategyAndDeadline(2*time.Minute, wait.ForLog("Kafka Server started")))
	// An image that cannot be pulled, be it that of testcontainers' reaper: it
	// has no error of its own, and leaves a container that was never started.
	if c == nil || runErr != nil && strings.Contains(runErr.Error(), "create container") {
		return nil, errors.Join(fmt.Errorf("%w: %w", ErrUnavailable, runErr), testcontainers.TerminateContainer(c))
	}
	if os.Getenv("TESTCONTAINERS_RYUK_DISABLED") != "" {
		reap := exec.Command("/bin/sh", "-c", `cat >/dev/null; docker rm -fv "$1" >/dev/null 2>&1`, "reap", c.GetContainerID())
		if b.reaper, err = reap.StdinPipe(); err == nil {
			err = reap.Start() // the pipe closes when this process ends
		}
	}
	b.container = c
	if err := errors.Join(runErr, err); err != nil {
		return nil, err
	}
	if o.Certificates != nil {
		return b, b.addScramUser(ctx, o)
	}
	return b, nil
}

// addScramUser stores the user's SCRAM credentials in the cluster.
func (b *Broker) addScramUser(ctx context.Context, o Options) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(b.Plain))
	if err != nil {
		return err
	}
	defer client.Close()
	for _, mechanism := range []kadm.ScramMechanism{kadm.ScramSha256, kadm.ScramSha512} {
		altered, err := kadm.NewClient(client).AlterUserSCRAMs(ctx, nil, []kadm.UpsertSCRAM{
			{User: o.User, Mechanism: mechanism, Iterations: 4096, Password: o.Password},
		})
		if err == nil {
			err = altered.Error()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// silent is a log that nobody reads.
type silent struct{ testing.TB }

func (silent) Logf(string, ...any) {}
func (silent) Helper()             {}

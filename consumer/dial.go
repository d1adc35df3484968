package consumer

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/sasl"
	"github.com/segmentio/kafka-go/sasl/plain"
	"github.com/segmentio/kafka-go/sasl/scram"
)

// Secret is a text that is never printed: in logs, in JSON, in YAML and by fmt
// it is ***. Convert it to string where it is used.
type Secret string

// String returns *** for any secret, and nothing for none.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return "***"
}

// GoString returns what String returns, so that %#v shows no secret either.
func (s Secret) GoString() string { return `"` + s.String() + `"` }

// MarshalText returns what String returns.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// MarshalJSON returns what String returns, as a JSON string.
func (s Secret) MarshalJSON() ([]byte, error) { return json.Marshal(s.String()) }

// Connection says how the brokers are reached. kafka-go has two roads to a
// broker, the group's connection (Dialer) and everything else (Transport);
// both are built from this one value, so that neither talks plaintext by
// an oversight.
type Connection struct {
	// Brokers to ask first, each host:port. Required.
	Brokers []string
	// ClientID shows in the broker's logs and quotas. Default: learnsink.
	ClientID string
	TLS      TLS
	SASL     SASL
	// DialTimeout bounds the opening of a connection, TLS and SASL included. Default: 5 s.
	DialTimeout time.Duration
	// Topics that this process works with. Metadata is asked for these alone;
	// empty: for every topic of the cluster.
	Topics []string
}

// TLS says whether and how connections are encrypted. TLS 1.2 is the least.
type TLS struct {
	Enabled bool
	// CAFile holds the PEM certificates that the brokers' are checked against.
	// Empty: the system's.
	CAFile string
	// CertFile and KeyFile are the client's own PEM certificate and key, for
	// mutual TLS; both or neither. They are read again for each new
	// connection, so that a renewed certificate needs no restart.
	CertFile, KeyFile string
	// ServerName is the name that the brokers' certificates must bear. Empty:
	// the host that each is dialled by.
	ServerName string
}

// The SASL mechanisms.
const (
	Plain       = "PLAIN"
	ScramSHA256 = "SCRAM-SHA-256"
	ScramSHA512 = "SCRAM-SHA-512"
)

// SASL says as whom connections authenticate.
type SASL struct {
	// Mechanism is PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512. Empty: no authentication.
	Mechanism string
	User      string
	Password  Secret
}

// Validate reports everything that is wrong with the settings by themselves,
// without touching files or the network.
func (c *Connection) Validate() error {
	var errs []error
	if len(c.Brokers) == 0 {
		errs = append(errs, errors.New("no brokers are given"))
	}
	for _, b := range c.Brokers {
		if _, _, err := net.SplitHostPort(b); err != nil {
			errs = append(errs, fmt.Errorf("broker %q: want host:port", b))
		}
	}
	if t := c.TLS; !t.Enabled && (t.CAFile != "" || t.CertFile != "" || t.KeyFile != "" || t.ServerName != "") {
		errs = append(errs, errors.New("TLS files are given but TLS is not enabled"))
	}
	if (c.TLS.CertFile == "") != (c.TLS.KeyFile == "") {
		errs = append(errs, errors.New("a TLS certificate needs its key, and a key its certificate"))
	}
	switch c.SASL.Mechanism {
	case Plain, ScramSHA256, ScramSHA512:
		if c.SASL.User == "" {
			errs = append(errs, errors.New("SASL needs a user"))
		}
	case "":
		if c.SASL.User != "" || c.SASL.Password != "" {
			errs = append(errs, errors.New("a SASL user or password is given but no mechanism"))
		}
	default:
		errs = append(errs, fmt.Errorf("unknown SASL mechanism %q: want %s, %s or %s", c.SASL.Mechanism, Plain, ScramSHA256, ScramSHA512))
	}
	return errors.Join(errs...)
}

// ClearPassword reports whether a password would cross the network as it is:
// PLAIN without TLS.
func (c *Connection) ClearPassword() bool {
	return c.SASL.Mechanism == Plain && !c.TLS.Enabled
}

// dialled is one Connection made ready for both of kafka-go's roads.
type dialled struct {
	addr      net.Addr
	transport *kafka.Transport
	dialer    *kafka.Dialer
}

func (c *Connection) dial() (*dialled, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	tlsConfig, err := c.TLS.config()
	if err != nil {
		return nil, fmt.Errorf("TLS: %w", err)
	}
	mechanism, err := c.SASL.mechanism()
	if err != nil {
		return nil, fmt.Errorf("SASL: %w", err)
	}
	clientID, timeout := c.ClientID, c.DialTimeout
	if clientID == "" {
		clientID = "learnsink"
	}
	if timeout <= 0 {
		timeout = 5 * time.Second
	}
	netDialer := &net.Dialer{Timeout: timeout, KeepAlive: 15 * time.Second}
	return &dialled{
		addr: kafka.TCP(c.Brokers...),
		transport: &kafka.Transport{
			Dial:        netDialer.DialContext,
			DialTimeout: timeout,
			// The transport never refreshes its metadata because a leader has
			// moved; a short life is what bounds the time until it is noticed.
			MetadataTTL:    time.Second,
			MetadataTopics: c.Topics,
			ClientID:       clientID,
			TLS:            tlsConfig,
			SASL:           mechanism,
		},
		dialer: &kafka.Dialer{
			ClientID:      clientID,
			Timeout:       timeout,
			KeepAlive:     15 * time.Second,
			TLS:           tlsConfig,
			SASLMechanism: mechanism,
		},
	}, nil
}

// config returns nil where TLS is not enabled. An empty ServerName stays
// empty: kafka-go puts in the host it dials, broker by broker.
func (t *TLS) config() (*tls.Config, error) {
	if !t.Enabled {
		return nil, nil
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: t.ServerName}
	if t.CAFile != "" {
		pem, err := os.ReadFile(t.CAFile)
		if err != nil {
			return nil, fmt.Errorf("CA file: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("CA file %s holds no PEM certificate", t.CAFile)
		}
	}
	if t.CertFile != "" {
		load := func() (*tls.Certificate, error) {
			cert, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
			if err != nil {
				return nil, fmt.Errorf("client certificate: %w", err)
			}
			return &cert, nil
		}
		if _, err := load(); err != nil {
			return nil, err
		}
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return load() }
	}
	return config, nil
}

func (s *SASL) mechanism() (sasl.Mechanism, error) {
	switch s.Mechanism {
	case Plain:
		return plain.Mechanism{Username: s.User, Password: string(s.Password)}, nil
	case ScramSHA256:
		return scram.Mechanism(scram.SHA256, s.User, string(s.Password))
	case ScramSHA512:
		return scram.Mechanism(scram.SHA512, s.User, string(s.Password))
	}
	return nil, nil
}

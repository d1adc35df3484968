package consumer

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"learnsink/test/kafkatest"
)

func TestSecretsAreNotPrinted(t *testing.T) {
	s := SASL{Mechanism: Plain, User: "u", Password: "hunter2"}
	js, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	text, _ := s.Password.MarshalText()
	for _, printed := range []string{fmt.Sprint(s), fmt.Sprintf("%+v %#v %q %x", s, s, s.Password, s.Password), string(js), string(text), s.Password.String()} {
		if strings.Contains(printed, "hunter2") || strings.Contains(printed, fmt.Sprintf("%x", "hunter2")) {
			t.Error(printed)
		}
	}
	if Secret("").String() != "" {
		t.Error("an empty secret is shown")
	}
}

func TestConnectionFaultsAreNamed(t *testing.T) {
	for want, c := range map[string]Connection{
		"no brokers are given":                       {},
		`broker "localhost": want host:port`:         {Brokers: []string{"localhost"}},
		"TLS files are given but TLS is not enabled": {Brokers: []string{"a:1"}, TLS: TLS{CAFile: "x"}},
		"a TLS certificate needs its key":            {Brokers: []string{"a:1"}, TLS: TLS{Enabled: true, CertFile: "x"}},
		`unknown SASL mechanism "GSSAPI"`:            {Brokers: []string{"a:1"}, SASL: SASL{Mechanism: "GSSAPI"}},
		"SASL needs a user":                          {Brokers: []string{"a:1"}, SASL: SASL{Mechanism: Plain}},
		"but no mechanism":                           {Brokers: []string{"a:1"}, SASL: SASL{User: "u"}},
		"CA file: open":                              {Brokers: []string{"a:1"}, TLS: TLS{Enabled: true, CAFile: "/none"}},
		"holds no PEM certificate":                   {Brokers: []string{"a:1"}, TLS: TLS{Enabled: true, CAFile: "dial.go"}},
		"client certificate":                         {Brokers: []string{"a:1"}, TLS: TLS{Enabled: true, CertFile: "/none", KeyFile: "/none"}},
	} {
		if _, err := NewClient(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

// files writes certificates where a Connection can name them.
func files(t *testing.T, c *kafkatest.Certificates) (ca, cert, key string) {
	t.Helper()
	dir := t.TempDir()
	write := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	return write("ca.pem", c.CA), write("cert.pem", c.ClientCert), write("key.pem", c.ClientKey)
}

// bothWays produces by the transport, and consumes as a member of a group,
// which connects by the dialer.
func bothWays(t *testing.T, cluster *kafkatest.Cluster, connection Connection) {
	t.Helper()
	topic := kafkatest.Name("rows")
	g := newGroupTest(t, cluster, 1, topic)
	g.config.Connection = connection
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c, err := NewClient(connection)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Produce(ctx, topic, []Message{{Key: []byte("k"), Value: goodRow(1)}, {Key: []byte("k"), Value: badRow()}}); err != nil {
		t.Fatal(err)
	}
	if err := g.consumer(t).Drain(ctx); err != nil {
		t.Fatal(err)
	}
	g.check(t)
}

// refused expects that a connection does not come about, by either way.
func refused(t *testing.T, connection Connection) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	c, err := NewClient(connection)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Ping(ctx); err == nil {
		t.Error("the transport has connected")
	}
	if conn, err := c.dialer.DialContext(ctx, "tcp", connection.Brokers[0]); err == nil {
		if _, err := conn.Brokers(); err == nil {
			t.Error("the dialer has connected")
		}
		conn.Close()
	}
}

// TestSecureConnections speaks to a real Apache Kafka with every kind of
// listener there is.
func TestSecureConnections(t *testing.T) {
	t.Parallel()
	certificates := kafkatest.NewCertificates(t)
	ca, cert, key := files(t, certificates)
	const user, password = "learnsink", "correct horse"
	broker, err := kafkatest.Start(t.Context(), kafkatest.Options{Certificates: certificates, User: user, Password: password})
	if errors.Is(err, kafkatest.ErrUnavailable) {
		kafkatest.Missing(t, "docker", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := broker.Close(); err != nil {
			t.Error(err)
		}
	})
	plaintext := kafkatest.At(t, broker.Plain)
	trusted := TLS{Enabled: true, CAFile: ca}
	as := func(mechanism string, password Secret) SASL {
		return SASL{Mechanism: mechanism, User: user, Password: password}
	}
	on := func(address string) Connection { return Connection{Brokers: []string{address}} }
	works := func(name string, c Connection) { t.Run(name, func(t *testing.T) { bothWays(t, plaintext, c) }) }
	fails := func(name string, c Connection) { t.Run(name, func(t *testing.T) { refused(t, c) }) }

	with := func(c Connection, tls TLS, sasl SASL) Connection {
		c.TLS, c.SASL = tls, sasl
		return c
	}
	works("TLS", with(on(broker.TLS), trusted, SASL{}))
	works("mutual TLS", with(on(broker.MutualTLS), TLS{Enabled: true, CAFile: ca, CertFile: cert, KeyFile: key}, SASL{}))
	for _, mechanism := range []string{Plain, ScramSHA256, ScramSHA512} {
		works(mechanism, with(on(broker.Sasl), TLS{}, as(mechanism, password)))
		works(mechanism+" over TLS", with(on(broker.SaslTLS), trusted, as(mechanism, password)))
		fails(mechanism+" with a wrong password", with(on(broker.Sasl), TLS{}, as(mechanism, "wrong")))
	}
	fails("a certificate of an authority that is not trusted", with(on(broker.TLS), TLS{Enabled: true}, SASL{}))
	fails("a certificate for another name", with(on(broker.TLS), TLS{Enabled: true, CAFile: ca, ServerName: "elsewhere"}, SASL{}))
	fails("mutual TLS without a certificate of ours", with(on(broker.MutualTLS), trusted, SASL{}))
	fails("plaintext to a TLS listener", on(broker.TLS))
	fails("SASL without a user", on(broker.Sasl))
}

// TestNothingSpeaksPlaintext: with TLS asked for, neither way sends a byte that is not TLS's.
func TestNothingSpeaksPlaintext(t *testing.T) {
	t.Parallel()
	certificates := kafkatest.NewCertificates(t)
	ca, _, _ := files(t, certificates)
	pair, err := tls.X509KeyPair(certificates.BrokerCert, certificates.BrokerKey)
	if err != nil {
		t.Fatal(err)
	}
	fake, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.GroupMinSessionTimeout(500*time.Millisecond),
		kfake.TLS(&tls.Config{Certificates: []tls.Certificate{pair}, MaxVersion: tls.VersionTLS13}), kfake.SeedTopics(1, "learning", "accepted", "dead-letter"))
	if err != nil {
		t.Fatal(err)
	}
	defer fake.Close()
	connection := Connection{Brokers: fake.ListenAddrs(), TLS: TLS{Enabled: true, CAFile: ca}}
	w := newWorld(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var logged bytes.Buffer
	c, err := New(Config{Connection: connection, Sources: sources(t, "learning"), SessionTimeout: 3 * time.Second},
		&incarnation{world: w}, testLogger(&logged), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Client().Produce(ctx, "learning", []Message{{Value: goodRow(1)}}); err != nil {
		t.Fatal(err)
	}
	if err := c.Drain(ctx); err != nil {
		t.Fatal(err)
	}
	refused(t, Connection{Brokers: fake.ListenAddrs()})
	old, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.TLS(&tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}))
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	refused(t, Connection{Brokers: old.ListenAddrs(), TLS: TLS{Enabled: true, CAFile: ca}})
}

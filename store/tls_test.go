package store_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"learnsink/store"
	"learnsink/test/kafkatest"
	"learnsink/test/pgserver"
	"learnsink/test/pgtest"
)

// TestTLS: every sslmode of the URL holds, up to verify-full.
func TestTLS(t *testing.T) {
	pgtest.Empty(t) // where no PostgreSQL can be had, this says so and skips
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	certificates, others := kafkatest.NewCertificates(t), kafkatest.NewCertificates(t)
	server, err := pgserver.Start(ctx, pgserver.Options{Cert: certificates.BrokerCert, Key: certificates.BrokerKey,
		Settings: map[string]string{"listen_addresses": "127.0.0.1,127.0.0.2"}})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Stop()
	pem := func(name string, data []byte) string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	ours, theirs := pem("ca.pem", certificates.CA), pem("other.pem", others.CA)
	plain := server.URL()
	byName := strings.Replace(plain, "127.0.0.1", "localhost", 1)
	for _, c := range []struct {
		name, url, query string
		fails            string // part of the error; "" = it connects
	}{
		{"disable", plain, "sslmode=disable", ""},
		{"require", plain, "sslmode=require", ""},
		{"verify-ca", plain, "sslmode=verify-ca&sslrootcert=" + ours, ""},
		{"verify-full", byName, "sslmode=verify-full&sslrootcert=" + ours, ""},
		{"verify-full by another authority", byName, "sslmode=verify-full&sslrootcert=" + theirs, "certificate signed by unknown authority"},
		{"verify-full by another name", strings.Replace(plain, "127.0.0.1", "127.0.0.2", 1), "sslmode=verify-full&sslrootcert=" + ours, "not 127.0.0.2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, err := store.Open(ctx, store.Config{URL: strings.Replace(c.url, "sslmode=disable", c.query, 1)})
			if err == nil {
				defer s.Close()
				err = s.Ping(ctx)
			}
			switch {
			case c.fails == "" && err != nil:
				t.Error(err)
			case c.fails != "" && (err == nil || !strings.Contains(err.Error(), c.fails)):
				t.Errorf("error %v, want %q", err, c.fails)
			}
		})
	}
}

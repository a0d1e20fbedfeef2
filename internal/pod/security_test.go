package pod_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"ordersync/internal/order"
	"ordersync/internal/pod"
)

// certificate writes a self-signed certificate for 127.0.0.1 and its key, and gives their files.
func certificate(t *testing.T) (certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "broker"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write := func(name, kind string, der []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	return write("cert.pem", "CERTIFICATE", cert), write("key.pem", "PRIVATE KEY", private)
}

// A cluster that takes nobody without a certificate and a password.
func TestKafkaOverTLSAndSASL(t *testing.T) {
	certFile, keyFile := certificate(t)
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	text, err := os.ReadFile(certFile)
	if err != nil {
		t.Fatal(err)
	}
	pool.AppendCertsFromPEM(text)
	cluster, err := kfake.NewCluster(
		kfake.NumBrokers(1),
		kfake.TLS(&tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool}),
		kfake.EnableSASL(),
		kfake.Superuser("PLAIN", "sync", "plain-password"),
		kfake.Superuser("SCRAM-SHA-256", "sync", "scram-password"),
		kfake.Superuser("SCRAM-SHA-512", "sync", "scram-password"),
	)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	base := map[string]string{
		"KAFKA_BROKERS":       strings.Join(cluster.ListenAddrs(), ","),
		"KAFKA_SASL_USERNAME": "sync",
		"KAFKA_TLS_ENABLED":   "true",
		"KAFKA_TLS_CA_FILE":   certFile,
		"KAFKA_TLS_CERT_FILE": certFile,
		"KAFKA_TLS_KEY_FILE":  keyFile,
		// Not there: only Kafka is looked at.
		"TEMPORAL_ADDRESS": "127.0.0.1:1",
		"MYSQL_DSN":        "a:b@tcp(127.0.0.1:1)/c",
	}
	for _, c := range []struct {
		name, mechanism, password string
		without                   []string
		refused                   bool
	}{
		{name: "plain", mechanism: "plain", password: "plain-password"},
		{name: "scram-sha-256", mechanism: "scram-sha-256", password: "scram-password"},
		{name: "scram-sha-512", mechanism: "scram-sha-512", password: "scram-password"},
		{name: "wrong password", mechanism: "scram-sha-512", password: "plain-password", refused: true},
		{name: "authority unknown", mechanism: "plain", password: "plain-password", without: []string{"KAFKA_TLS_CA_FILE"}, refused: true},
		{name: "no client certificate", mechanism: "plain", password: "plain-password", without: []string{"KAFKA_TLS_CERT_FILE", "KAFKA_TLS_KEY_FILE"}, refused: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			values := map[string]string{"KAFKA_SASL_MECHANISM": c.mechanism, "KAFKA_SASL_PASSWORD": c.password}
			for name, value := range base {
				values[name] = value
			}
			for _, name := range c.without {
				delete(values, name)
			}
			cfg := load(t, values)
			wait := 30 * time.Second
			if c.refused {
				wait = time.Second
			}
			items, err := pod.Setup(t.Context(), cfg, slog.New(slog.DiscardHandler), pod.SetupOptions{Wait: wait})
			if c.refused {
				if len(items) > 0 || !strings.Contains(err.Error(), "Kafka was not ready") {
					t.Errorf("%v %v", items, err)
				}
				return
			}
			if len(items) != 7 { // three of events, three of backfills, one of dead letters
				t.Fatalf("the topics were not made: %v", err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			transport := pod.KafkaTransport(cfg)
			defer transport.CloseIdleConnections()
			producer := pod.NewProducer(cfg, transport)
			defer producer.Close()
			if err := producer.DeadLetter(ctx, order.DeadLetter{Value: []byte("{}"), Reason: order.MissingField}); err != nil {
				t.Errorf("produce: %v", err)
			}
			conn, err := pod.KafkaDialer(cfg).DialLeader(ctx, "tcp", cfg.Kafka.Brokers[0], cfg.Kafka.DeadLetterTopic, 0)
			if err != nil {
				t.Fatalf("dial: %v", err)
			}
			defer conn.Close()
			if last, err := conn.ReadLastOffset(); err != nil || last == 0 {
				t.Errorf("%d letters, %v", last, err)
			}
		})
	}
}

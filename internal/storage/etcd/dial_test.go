package etcd

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/timonel/timonel/internal/storage"
)

func dialTest(t *testing.T, cfg Config) *Store {
	t.Helper()
	cfg.Compaction = -1
	s, err := Dial(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// TestReconnect restarts the server under a running watch: the watch goes on, with every change once.
func TestReconnect(t *testing.T) {
	dir, socket := t.TempDir(), "unix://"+filepath.Join(t.TempDir(), "etcd.sock")
	server := openEmbedded(t, EmbeddedConfig{Dir: dir, Listen: []string{socket}, Compaction: -1})
	s := dialTest(t, Config{Endpoints: []string{socket}})
	put := func(value string) storage.Revision {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		for {
			rev, err := s.Commit(ctx, storage.Txn{Then: []storage.Op{{Key: "/a", Value: []byte(value)}}})
			if err == nil {
				return rev
			}
			if ctx.Err() != nil {
				t.Fatal(err)
			}
		}
	}
	first := put("1")
	changes := make(chan storage.Change, 10)
	go s.Watch(t.Context(), "/", first, func(b storage.Batch) error {
		for _, c := range b.Changes {
			changes <- c
		}
		return nil
	})
	next := func() storage.Change {
		t.Helper()
		select {
		case c := <-changes:
			return c
		case <-time.After(30 * time.Second):
			t.Fatal("the watch is silent")
			return storage.Change{}
		}
	}
	second := put("2")
	if c := next(); c.Modified != second {
		t.Fatalf("revision %d, want %d", c.Modified, second)
	}
	server.Close()
	openEmbedded(t, EmbeddedConfig{Dir: dir, Listen: []string{socket}, Compaction: -1})
	third := put("3")
	// An attempt whose outcome was unknown may have been made as well.
	for c := next(); c.Modified != third; c = next() {
		if c.Modified <= second || c.Modified > third || string(c.Value) != "3" {
			t.Fatalf("change %+v between revisions %d and %d", c, second, third)
		}
		second = c.Modified
	}
}

// TestEndpoints has one member that does not answer.
func TestEndpoints(t *testing.T) {
	dir := t.TempDir()
	socket := "unix://" + filepath.Join(dir, "etcd.sock")
	openEmbedded(t, EmbeddedConfig{Listen: []string{socket}, Compaction: -1})
	s := dialTest(t, Config{Endpoints: []string{"unix://" + filepath.Join(dir, "nobody.sock"), socket}})
	for range 10 {
		if _, err := s.Now(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if s, err := Dial(ctx, Config{Endpoints: []string{"unix://" + filepath.Join(dir, "nobody.sock")}}); err == nil {
		s.Close()
		t.Error("connected to nobody")
	}
	if _, err := Dial(t.Context(), Config{}); err == nil {
		t.Error("connected without endpoints")
	}
}

// TestTLS connects, with a client certificate, to a TLS front of a server.
func TestTLS(t *testing.T) {
	dir := t.TempDir()
	socket := filepath.Join(dir, "etcd.sock")
	openEmbedded(t, EmbeddedConfig{Listen: []string{"unix://" + socket}, Compaction: -1})

	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	pair, pool := selfSigned(t, certFile, keyFile)
	front, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool, NextProtos: []string{"h2"},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { front.Close() })
	go func() {
		for {
			outer, err := front.Accept()
			if err != nil {
				return
			}
			inner, err := net.Dial("unix", socket)
			if err != nil {
				outer.Close()
				continue
			}
			go func() { io.Copy(inner, outer); inner.Close() }()
			go func() { io.Copy(outer, inner); outer.Close() }()
		}
	}()
	endpoint := "https://" + front.Addr().String()
	s := dialTest(t, Config{Endpoints: []string{endpoint}, CertFile: certFile, KeyFile: keyFile, CAFile: certFile})
	if _, err := s.Commit(t.Context(), storage.Txn{Then: []storage.Op{{Key: "/a", Value: []byte("x")}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := Dial(t.Context(), Config{Endpoints: []string{endpoint}, CAFile: filepath.Join(dir, "none.pem")}); err == nil {
		t.Error("connected without the CA's file")
	}
}

func selfSigned(t *testing.T, certFile, keyFile string) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
	for file, data := range map[string][]byte{certFile: certPEM, keyFile: keyPEM} {
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(certPEM)
	return pair, pool
}

package pki

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"k8s.io/client-go/tools/clientcmd"
)

func config(t testing.TB) Config {
	return Config{
		Dir: filepath.Join(t.TempDir(), "pki"), Hostname: "box", NodeName: "box",
		Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.7"), netip.IPv4Unspecified()},
		ServiceIP: []netip.Addr{netip.MustParseAddr("10.96.0.1")},
	}
}

func ensure(t testing.TB, c Config) *Set {
	t.Helper()
	set, err := Ensure(c)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// contents reads all files of a directory.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		all[e.Name()] = string(data)
		info, _ := e.Info()
		if filepath.Ext(e.Name()) == ".key" && info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", e.Name(), info.Mode())
		}
	}
	return all
}

func TestCertificatesAreWhatTheySay(t *testing.T) {
	set := ensure(t, config(t))
	for _, c := range []struct {
		name     string
		pair, ca *Pair
		usage    x509.ExtKeyUsage
		cn       string
		org      string
		hosts    []string
	}{
		{"apiserver", set.APIServer, set.CA, x509.ExtKeyUsageServerAuth, "kube-apiserver", "",
			[]string{"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local", "localhost", "box", "127.0.0.1", "::1", "10.96.0.1", "192.0.2.7"}},
		{"admin", set.Admin, set.CA, x509.ExtKeyUsageClientAuth, "kubernetes-admin", "system:masters", nil},
		{"kubelet client", set.KubeletClient, set.CA, x509.ExtKeyUsageClientAuth, "kube-apiserver-kubelet-client", "kubeadm:cluster-admins", nil},
		{"front proxy", set.FrontProxy, set.FrontProxyCA, x509.ExtKeyUsageClientAuth, "front-proxy-client", "", nil},
		{"scheduler", set.Scheduler, set.CA, x509.ExtKeyUsageClientAuth, "system:kube-scheduler", "", nil},
		{"controllers", set.Controllers, set.CA, x509.ExtKeyUsageClientAuth, "system:kube-controller-manager", "", nil},
		{"node", set.NodeClient, set.CA, x509.ExtKeyUsageClientAuth, "system:node:box", "system:nodes", nil},
		{"node serving", set.NodeServing, set.CA, x509.ExtKeyUsageServerAuth, "system:node:box", "system:nodes", []string{"box", "127.0.0.1"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			cert := c.pair.Certificate
			if _, err := cert.Verify(x509.VerifyOptions{Roots: c.ca.Pool(), KeyUsages: []x509.ExtKeyUsage{c.usage}}); err != nil {
				t.Error(err)
			}
			if cert.Subject.CommonName != c.cn || c.org != "" && (len(cert.Subject.Organization) != 1 || cert.Subject.Organization[0] != c.org) {
				t.Errorf("subject is %v", cert.Subject)
			}
			for _, host := range c.hosts {
				if err := cert.VerifyHostname(host); err != nil {
					t.Error(err)
				}
			}
			if _, err := tls.X509KeyPair(c.pair.CertPEM, c.pair.KeyPEM); err != nil {
				t.Error(err)
			}
		})
	}
	for _, ip := range set.APIServer.Certificate.IPAddresses {
		if ip.IsUnspecified() {
			t.Error("the API server's certificate names the unspecified address")
		}
	}
}

func TestEnsureIsIdempotent(t *testing.T) {
	c := config(t)
	ensure(t, c)
	before := contents(t, c.Dir)
	ensure(t, c)
	for name, data := range contents(t, c.Dir) {
		if before[name] != data {
			t.Errorf("%s changed", name)
		}
	}
}

func TestOnlyWhatIsNoLongerRightIsRenewed(t *testing.T) {
	renewed := func(t *testing.T, change func(c *Config)) map[string]bool {
		t.Helper()
		c := config(t)
		ensure(t, c)
		before := contents(t, c.Dir)
		change(&c)
		ensure(t, c)
		changed := map[string]bool{}
		for name, data := range contents(t, c.Dir) {
			if before[name] != data {
				changed[name] = true
			}
		}
		return changed
	}
	expect := func(t *testing.T, got map[string]bool, want ...string) {
		t.Helper()
		if len(got) != len(want) {
			t.Errorf("changed: %v, want %v", got, want)
		}
		for _, w := range want {
			if !got[w] {
				t.Errorf("%s did not change", w)
			}
		}
	}
	t.Run("name added", func(t *testing.T) {
		expect(t, renewed(t, func(c *Config) { c.Names = []string{"cluster.example.com"} }), "apiserver.crt", "apiserver.key")
	})
	t.Run("near the end", func(t *testing.T) {
		got := renewed(t, func(c *Config) { c.Now = func() time.Time { return time.Now().Add(leafLifetime - 24*time.Hour) } })
		if got["ca.crt"] || got["ca.key"] || got["sa.key"] || !got["apiserver.crt"] || !got["admin.crt"] {
			t.Errorf("changed: %v", got)
		}
	})
	t.Run("one file lost", func(t *testing.T) {
		expect(t, renewed(t, func(c *Config) { os.Remove(filepath.Join(c.Dir, "scheduler.key")) }), "scheduler.crt", "scheduler.key")
	})
	t.Run("authority lost", func(t *testing.T) {
		got := renewed(t, func(c *Config) {
			os.Remove(filepath.Join(c.Dir, "ca.key"))
			os.Remove(filepath.Join(c.Dir, "ca.crt"))
		})
		if !got["ca.crt"] || !got["admin.crt"] || !got["apiserver.crt"] || got["front-proxy-client.crt"] {
			t.Errorf("changed: %v", got)
		}
	})
}

func TestAuthorityKeyKeptElsewhere(t *testing.T) {
	c := config(t)
	ensure(t, c)
	os.Remove(filepath.Join(c.Dir, "ca.key"))
	if set := ensure(t, c); set.CA.Key != nil {
		t.Error("a key appeared")
	}
	c.Names = []string{"more"}
	if _, err := Ensure(c); err == nil {
		t.Error("a certificate was made without the authority's key")
	}
}

func TestDamageIsReported(t *testing.T) {
	c := config(t)
	ensure(t, c)
	if err := os.WriteFile(filepath.Join(c.Dir, "ca.crt"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Ensure(c); err == nil {
		t.Error("a damaged authority was accepted")
	}
}

func TestKubeconfig(t *testing.T) {
	set := ensure(t, config(t))
	path := filepath.Join(t.TempDir(), "admin.conf")
	k := &Kubeconfig{Server: "https://127.0.0.1:6443", User: "kubernetes-admin", CA: set.CA, Client: set.Admin}
	if err := k.Write(path); err != nil {
		t.Fatal(err)
	}
	info, _ := os.Stat(path)
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
	rest, err := clientcmd.BuildConfigFromFlags("", path)
	if err != nil {
		t.Fatal(err)
	}
	if rest.Host != k.Server || !bytes.Equal(rest.CAData, set.CA.CertPEM) || !bytes.Equal(rest.KeyData, set.Admin.KeyPEM) {
		t.Errorf("client configuration: %v", rest)
	}
}

func BenchmarkFirstBoot(b *testing.B) {
	for b.Loop() {
		ensure(b, config(b))
	}
}

func BenchmarkLaterBoot(b *testing.B) {
	c := config(b)
	ensure(b, c)
	for b.Loop() {
		ensure(b, c)
	}
}

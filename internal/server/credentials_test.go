package server

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func prepared(t *testing.T, change func(c *Config)) (*credentials, error) {
	t.Helper()
	c := DefaultConfig()
	c.BindAddress = "127.0.0.1"
	change(&c)
	s, err := c.settle()
	if err != nil {
		t.Fatal(err)
	}
	return s.credentials(NodeIdentity{})
}

// TestFirstBootMakesWhatIsMissing, once: a restart finds it again.
func TestFirstBootMakesWhatIsMissing(t *testing.T) {
	dir := t.TempDir()
	in := func(c *Config) { c.DataDir = dir }
	first, err := prepared(t, in)
	if err != nil {
		t.Fatal(err)
	}
	again, err := prepared(t, in)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first.clientCAPEM, again.clientCAPEM) || !bytes.Equal(first.frontCAPEM, again.frontCAPEM) || first.verifiers[0].ID != again.verifiers[0].ID {
		t.Error("the second boot made others")
	}
	if first.loopbackToken == again.loopbackToken || len(first.loopbackToken) < 32 {
		t.Error("the loopback token is no secret of one run")
	}
	if first.signer == nil || first.kubelet == nil || len(first.serving.Certificate) == 0 || bytes.Equal(first.clientCAPEM, first.frontCAPEM) {
		t.Errorf("something is missing: %+v", first)
	}
	for _, file := range []string{"pki"} {
		_ = filepath.WalkDir(filepath.Join(dir, file), func(path string, d os.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".key") {
				return err
			}
			if info, err := d.Info(); err != nil || info.Mode().Perm()&0o077 != 0 {
				t.Errorf("%s can be read by others: %v", path, err)
			}
			return nil
		})
	}
}

// TestFilesStandBeforeFirstBoot: what flags name is used instead.
func TestFilesStandBeforeFirstBoot(t *testing.T) {
	other := t.TempDir()
	theirs, err := prepared(t, func(c *Config) { c.DataDir = other })
	if err != nil {
		t.Fatal(err)
	}
	ca := filepath.Join(t.TempDir(), "ca.crt")
	if err := os.WriteFile(ca, theirs.clientCAPEM, 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := prepared(t, func(c *Config) { c.DataDir, c.ClientCAFile, c.RequestHeaderClientCAFile = t.TempDir(), ca, ca })
	if err != nil || !bytes.Equal(c.clientCAPEM, theirs.clientCAPEM) || !bytes.Equal(c.frontCAPEM, theirs.clientCAPEM) {
		t.Errorf("the files are not used: %v", err)
	}
}

func TestFilesThatDoNotServe(t *testing.T) {
	noise := filepath.Join(t.TempDir(), "noise")
	if err := os.WriteFile(noise, []byte("noise"), 0o600); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(c *Config, file string){
		"certificate authority":       func(c *Config, file string) { c.ClientCAFile = file },
		"serving certificate":         func(c *Config, file string) { c.TLSCertFile, c.TLSKeyFile = file, file },
		"kubelet client certificate":  func(c *Config, file string) { c.KubeletClientCertificate, c.KubeletClientKey = file, file },
		"service account signing key": func(c *Config, file string) { c.ServiceAccountSigningKeyFile = file },
		"service account key":         func(c *Config, file string) { c.ServiceAccountKeyFiles = []string{file} },
	} {
		for _, file := range []string{noise, noise + ".none"} {
			_, err := prepared(t, func(c *Config) {
				c.DataDir = t.TempDir()
				change(c, file)
			})
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s from %s: %v", want, filepath.Base(file), err)
			}
		}
	}
}

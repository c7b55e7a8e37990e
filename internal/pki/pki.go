// Package pki makes and keeps the certificates and keys of a control plane that
// runs on its own: its authorities, its serving certificates, the client
// certificates of its components, and the key that signs service account tokens.
//
// Promises: [Ensure] makes only what is missing, near its end or no longer right (another
// authority, subject or name), and leaves every other file as it is; a file is either whole
// or absent; keys are readable by their owner only.
//
// Does not know: HTTP, the API, who reads the files. The layout is kubeadm's (docs:
// "PKI certificates and requirements"), so that its tools find what they expect. Start reading
// at Ensure.
package pki

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	// caLifetime and leafLifetime are how long new certificates are valid
	// (kubeadm's defaults).
	caLifetime   = 10 * 365 * 24 * time.Hour
	leafLifetime = 365 * 24 * time.Hour
	// renewBefore is how long before its end a leaf is replaced.
	renewBefore = 30 * 24 * time.Hour
	// backdate lets clients whose clock is a little behind accept a new certificate.
	backdate = 5 * time.Minute
)

// Config says for whom certificates are made.
type Config struct {
	Dir string // where the files are, made if absent

	// Hostname, Addresses (advertise, bind), ServiceIP (the first of each service range) and
	// Names (further DNS names or IP texts) are what the API server is reached by.
	Hostname  string
	Addresses []netip.Addr
	ServiceIP []netip.Addr
	Names     []string
	// ClusterDomain is the cluster's DNS domain; default "cluster.local".
	ClusterDomain string

	// NodeName and NodeAddresses are the local node's; without a name the node
	// gets no certificates.
	NodeName      string
	NodeAddresses []netip.Addr

	// Now is the clock; default time.Now.
	Now func() time.Time
}

// Set is everything in the directory.
type Set struct {
	CA           *Pair // the cluster's authority: API server, clients, nodes
	FrontProxyCA *Pair // the authority of those who may vouch for users in headers

	APIServer     *Pair // serving
	Admin         *Pair // system:masters
	KubeletClient *Pair // the API server as a client of nodes
	FrontProxy    *Pair // the API server as a client of extension API servers
	Scheduler     *Pair
	Controllers   *Pair
	NodeClient    *Pair // nil without a node name
	NodeServing   *Pair // nil without a node name

	// ServiceAccount signs service account tokens; a key only.
	ServiceAccount *Pair
}

// leaf is what one certificate is to be.
type leaf struct {
	file    string
	into    **Pair
	subject pkix.Name
	serving bool
	names   []string
	ips     []net.IP
	front   bool // signed by the front proxy's authority
}

// Ensure makes what is missing in the directory and returns all of it. Calling
// it again changes nothing until a certificate nears its end or the configuration changes. An
// authority whose certificate is there but not its key stays as it is; then an error says which leaf
// could not be made.
func Ensure(config Config) (*Set, error) {
	if config.Now == nil {
		config.Now = time.Now
	}
	if config.ClusterDomain == "" {
		config.ClusterDomain = "cluster.local"
	}
	if err := os.MkdirAll(config.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make certificate directory: %w", err)
	}
	set := &Set{}
	var group errgroup.Group
	group.Go(func() (err error) { set.CA, err = config.authority("ca", "kubernetes"); return err })
	group.Go(func() (err error) {
		set.FrontProxyCA, err = config.authority("front-proxy-ca", "front-proxy-ca")
		return err
	})
	group.Go(func() (err error) { set.ServiceAccount, err = config.signingKey("sa"); return err })
	if err := group.Wait(); err != nil {
		return nil, err
	}
	for _, l := range config.leaves(set) {
		ca := set.CA
		if l.front {
			ca = set.FrontProxyCA
		}
		group.Go(func() (err error) { *l.into, err = config.leaf(l, ca); return err })
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	return set, nil
}

// leaves are the certificates besides the authorities.
func (c *Config) leaves(set *Set) []leaf {
	client := func(file string, into **Pair, name string, groups ...string) leaf {
		return leaf{file: file, into: into, subject: pkix.Name{CommonName: name, Organization: groups}}
	}
	names, ips := c.serverNames()
	front := client("front-proxy-client", &set.FrontProxy, "front-proxy-client")
	front.front = true
	all := []leaf{
		{file: "apiserver", into: &set.APIServer, subject: pkix.Name{CommonName: "kube-apiserver"}, serving: true, names: names, ips: ips},
		client("admin", &set.Admin, "kubernetes-admin", "system:masters"),
		client("apiserver-kubelet-client", &set.KubeletClient, "kube-apiserver-kubelet-client", "kubeadm:cluster-admins"),
		front,
		client("scheduler", &set.Scheduler, "system:kube-scheduler"),
		client("controller-manager", &set.Controllers, "system:kube-controller-manager"),
	}
	if c.NodeName != "" {
		node := "system:node:" + c.NodeName
		ips := []net.IP{net.IPv4(127, 0, 0, 1).To4()}
		for _, a := range c.NodeAddresses {
			ips = addIP(ips, a)
		}
		all = append(all,
			client("kubelet-client", &set.NodeClient, node, "system:nodes"),
			leaf{file: "kubelet", into: &set.NodeServing, subject: pkix.Name{CommonName: node, Organization: []string{"system:nodes"}},
				serving: true, names: []string{c.NodeName}, ips: ips})
	}
	return all
}

// serverNames are the names and addresses by which clients reach the API server.
func (c *Config) serverNames() (names []string, ips []net.IP) {
	names = []string{"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc." + c.ClusterDomain, "localhost"}
	ips = []net.IP{net.IPv4(127, 0, 0, 1).To4(), net.IPv6loopback}
	for _, a := range c.ServiceIP {
		ips = addIP(ips, a)
	}
	for _, a := range c.Addresses {
		ips = addIP(ips, a)
	}
	for _, name := range append([]string{c.Hostname}, c.Names...) {
		if a, err := netip.ParseAddr(name); err == nil {
			ips = addIP(ips, a)
		} else {
			names = addName(names, name)
		}
	}
	return names, ips
}

func addName(names []string, name string) []string {
	if name == "" {
		return names
	}
	for _, n := range names {
		if n == name {
			return names
		}
	}
	return append(names, name)
}

// addIP adds an address that something can be reached at, once.
func addIP(ips []net.IP, a netip.Addr) []net.IP {
	if !a.IsValid() || a.IsUnspecified() {
		return ips
	}
	ip := net.IP(a.Unmap().AsSlice())
	for _, have := range ips {
		if have.Equal(ip) {
			return ips
		}
	}
	return append(ips, ip)
}

// authority loads or makes a self-signed certificate that signs others.
func (c *Config) authority(file, name string) (*Pair, error) {
	p, err := load(c.Dir, file)
	if !errors.Is(err, os.ErrNotExist) {
		return p, err
	}
	if p != nil && p.Certificate != nil {
		return p, nil // the key is kept elsewhere
	}
	now := c.Now()
	return c.make(file, &x509.Certificate{
		Subject:               pkix.Name{CommonName: name},
		DNSNames:              []string{name},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(caLifetime),
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment | x509.KeyUsageCertSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}, nil)
}

// leaf loads a certificate, or makes it when it is absent or no longer right.
func (c *Config) leaf(l leaf, ca *Pair) (*Pair, error) {
	p, err := load(c.Dir, l.file)
	switch {
	case err == nil && c.fits(p.Certificate, l, ca):
		return p, nil
	case err != nil && !errors.Is(err, os.ErrNotExist):
		return nil, err
	}
	if ca.Key == nil {
		return nil, fmt.Errorf("make certificate %s: the key of authority %s is not in %s", l.file, ca.Certificate.Subject.CommonName, c.Dir)
	}
	now := c.Now()
	template := &x509.Certificate{
		Subject:               l.subject,
		DNSNames:              l.names,
		IPAddresses:           l.ips,
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(leafLifetime),
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
	}
	if l.serving {
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	}
	if template.NotAfter.After(ca.Certificate.NotAfter) {
		template.NotAfter = ca.Certificate.NotAfter
	}
	return c.make(l.file, template, ca)
}

// fits reports whether an existing certificate can stay: it is what l describes, signed by ca, and
// lasts. Names it has beyond those of l do not matter.
func (c *Config) fits(cert *x509.Certificate, l leaf, ca *Pair) bool {
	now := c.Now()
	if now.Before(cert.NotBefore) || now.Add(renewBefore).After(cert.NotAfter) && cert.NotAfter.Before(ca.Certificate.NotAfter) || now.After(cert.NotAfter) {
		return false
	}
	if cert.Subject.CommonName != l.subject.CommonName || !sameSet(cert.Subject.Organization, l.subject.Organization) {
		return false
	}
	if cert.CheckSignatureFrom(ca.Certificate) != nil {
		return false
	}
	for _, name := range l.names {
		if cert.VerifyHostname(name) != nil {
			return false
		}
	}
	for _, ip := range l.ips {
		if cert.VerifyHostname(ip.String()) != nil {
			return false
		}
	}
	return true
}

func sameSet(a, b []string) bool {
	if len(a) != len(b) {
		return false
	}
	seen := map[string]bool{}
	for _, s := range a {
		seen[s] = true
	}
	for _, s := range b {
		if !seen[s] {
			return false
		}
	}
	return true
}

// Paths returns where the certificate and key with the given base name are.
func Paths(dir, file string) (cert, key string) {
	return filepath.Join(dir, file+".crt"), filepath.Join(dir, file+".key")
}

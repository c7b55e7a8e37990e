package server

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"github.com/timonel/timonel/internal/feature"
)

// Config is an API server's configuration: the flags of kube-apiserver 1.37 that are supported, under
// their names (see Flags), and what a program that embeds the server wants to choose.
type Config struct {
	// DataDir is where first boot puts what is not given by other settings: certificates
	// under pki/, embedded etcd under etcd/. Empty: everything must be given.
	DataDir string

	BindAddress      string // default 0.0.0.0
	SecurePort       int    // default 6443; 0 in a program: a free port
	AdvertiseAddress string // default: BindAddress, or the address of the default route
	ExternalHostname string

	EtcdServers                      []string // none: embedded etcd
	EtcdPrefix                       string
	EtcdCAFile                       string
	EtcdCertFile, EtcdKeyFile        string
	EtcdListen                       []string // on which embedded etcd serves etcd clients besides
	EtcdCompaction                   time.Duration
	EtcdCountMetric, EtcdSizeMetric  time.Duration // 0: the metric is not there; see Flags
	EtcdHealthTimeout                time.Duration
	EtcdReadyTimeout                 time.Duration
	EtcdLeaseReuse                   int // seconds
	EtcdServersOverrides             []string
	StorageBackend                   string
	StorageMediaType                 string
	EtcdUnsafeNoFsync                bool   // for tests of programs that embed the server
	EncryptionProviderConfig         string // file
	EncryptionProviderConfigReload   bool
	EventTTL                         time.Duration
	TLSCertFile, TLSKeyFile          string
	ClientCAFile                     string
	TokenAuthFile                    string
	AnonymousAuth                    bool
	ServiceAccountIssuers            []string
	ServiceAccountKeyFiles           []string
	ServiceAccountSigningKeyFile     string
	ServiceAccountMaxExpiration      time.Duration
	ServiceAccountLookup             bool
	ServiceAccountExtendExpiration   bool
	APIAudiences                     []string
	EnableBootstrapTokenAuth         bool
	RequestHeaderClientCAFile        string
	RequestHeaderAllowedNames        []string
	RequestHeaderUsernameHeaders     []string
	RequestHeaderUIDHeaders          []string
	RequestHeaderGroupHeaders        []string
	RequestHeaderExtraHeaderPrefixes []string
	ProxyClientCertFile              string
	ProxyClientKeyFile               string
	KubeletClientCertificate         string
	KubeletClientKey                 string
	KubeletCAFile                    string
	KubeletPreferredAddressTypes     []string
	AuthorizationModes               []string
	EnableAdmissionPlugins           []string
	DisableAdmissionPlugins          []string
	AllowPrivileged                  bool
	ServiceClusterIPRange            string
	ServiceNodePortRange             string
	RequestTimeout                   time.Duration
	MinRequestTimeout                int // seconds
	MaxRequestsInFlight              int
	MaxMutatingRequestsInFlight      int
	ShutdownDelay                    time.Duration
	EndpointReconcilerType           string
	APIServerCount                   int           // for the reconciler master-count
	FeatureGates                     []string      // lists of name=true|false
	RuntimeConfig                    feature.Pairs // which API versions are served besides those that are GA, or not
	EmulatedVersion                  []string      // only what is served can be asked for
	MinCompatibilityVersion          []string

	Log *slog.Logger

	pace time.Duration // of what is looked at now and then, for tests; 0: of each its own
}

// DefaultConfig is kube-apiserver's defaults.
func DefaultConfig() Config {
	return Config{
		BindAddress: "0.0.0.0", SecurePort: 6443, EtcdPrefix: "/registry", EtcdCompaction: 5 * time.Minute,
		EtcdCountMetric: time.Minute, EtcdSizeMetric: 30 * time.Second, EtcdHealthTimeout: 2 * time.Second, EtcdReadyTimeout: 2 * time.Second,
		EtcdLeaseReuse: 60, StorageMediaType: mediaProtobuf,
		EventTTL: time.Hour, AnonymousAuth: true, ServiceAccountLookup: true, ServiceAccountExtendExpiration: true,
		RequestHeaderUsernameHeaders: nil, KubeletPreferredAddressTypes: []string{"Hostname", "InternalDNS", "InternalIP", "ExternalDNS", "ExternalIP"},
		AuthorizationModes: []string{"Node", "RBAC"}, ServiceClusterIPRange: "10.96.0.0/12", ServiceNodePortRange: "30000-32767",
		RequestTimeout: time.Minute, MinRequestTimeout: 1800, MaxRequestsInFlight: 400, MaxMutatingRequestsInFlight: 200,
		EndpointReconcilerType: byLease, APIServerCount: 1,
	}
}

// Flags binds the configuration to kube-apiserver's flags.
func (c *Config) Flags(f *pflag.FlagSet) {
	f.StringVar(&c.DataDir, "data-dir", c.DataDir, "Directory of certificates and embedded etcd; what other flags do not give is made here at first boot.")
	f.StringVar(&c.BindAddress, "bind-address", c.BindAddress, "IP address to listen on.")
	f.IntVar(&c.SecurePort, "secure-port", c.SecurePort, "Port to serve HTTPS on.")
	f.StringVar(&c.AdvertiseAddress, "advertise-address", c.AdvertiseAddress, "IP address that members of the cluster reach the server at.")
	f.StringVar(&c.ExternalHostname, "external-hostname", c.ExternalHostname, "Host name in URLs that the server gives out.")
	f.StringSliceVar(&c.EtcdServers, "etcd-servers", c.EtcdServers, "etcd servers (scheme://host:port, comma separated). Without it etcd runs inside this process.")
	f.StringVar(&c.EtcdPrefix, "etcd-prefix", c.EtcdPrefix, "Prefix of all keys in etcd.")
	f.StringVar(&c.EtcdCAFile, "etcd-cafile", c.EtcdCAFile, "CA file to verify etcd with.")
	f.StringVar(&c.EtcdCertFile, "etcd-certfile", c.EtcdCertFile, "Client certificate for etcd.")
	f.StringVar(&c.EtcdKeyFile, "etcd-keyfile", c.EtcdKeyFile, "Key of the client certificate for etcd.")
	f.StringSliceVar(&c.EtcdListen, "etcd-listen", c.EtcdListen, "Addresses on which embedded etcd serves etcd clients too, e.g. unix:///run/etcd.sock.")
	f.DurationVar(&c.EtcdCompaction, "etcd-compaction-interval", c.EtcdCompaction, "Interval of compaction of etcd's history; 0: never. Of several servers one compacts.")
	f.DurationVar(&c.EtcdCountMetric, "etcd-count-metric-poll-period", c.EtcdCountMetric, "0 leaves out the metric of object counts. Other periods mean nothing here: objects are counted when metrics are asked for.")
	f.DurationVar(&c.EtcdSizeMetric, "etcd-db-metric-poll-interval", c.EtcdSizeMetric, "0 leaves out the metric of etcd's size. Other intervals mean nothing here: the size is asked for when metrics are.")
	f.DurationVar(&c.EtcdHealthTimeout, "etcd-healthcheck-timeout", c.EtcdHealthTimeout, "How long the health check etcd waits for an answer.")
	f.DurationVar(&c.EtcdReadyTimeout, "etcd-readycheck-timeout", c.EtcdReadyTimeout, "How long the readiness check etcd-readiness waits for an answer.")
	f.IntVar(&c.EtcdLeaseReuse, "lease-reuse-duration-seconds", c.EtcdLeaseReuse, "How long one etcd lease is given to objects that expire.")
	f.StringSliceVar(&c.EtcdServersOverrides, "etcd-servers-overrides", c.EtcdServersOverrides, "Not supported: all resources are in one etcd.")
	f.StringVar(&c.StorageBackend, "storage-backend", c.StorageBackend, "etcd3, or nothing, which means the same.")
	f.StringVar(&c.StorageMediaType, "storage-media-type", c.StorageMediaType, "How built-in kinds are stored: "+mediaProtobuf+" or "+mediaJSON+". What is stored in another way is read all the same.")
	f.StringVar(&c.EncryptionProviderConfig, "encryption-provider-config", c.EncryptionProviderConfig, "File with the configuration of encryption at rest (EncryptionConfiguration).")
	f.BoolVar(&c.EncryptionProviderConfigReload, "encryption-provider-config-automatic-reload", c.EncryptionProviderConfigReload, "Read that file again when it changes. KMS plug-ins then share one health check.")
	f.DurationVar(&c.EventTTL, "event-ttl", c.EventTTL, "How long events are kept.")
	f.StringVar(&c.TLSCertFile, "tls-cert-file", c.TLSCertFile, "Serving certificate.")
	f.StringVar(&c.TLSKeyFile, "tls-private-key-file", c.TLSKeyFile, "Key of the serving certificate.")
	f.StringVar(&c.ClientCAFile, "client-ca-file", c.ClientCAFile, "CA file that client certificates are verified with.")
	f.StringVar(&c.TokenAuthFile, "token-auth-file", c.TokenAuthFile, "CSV file of static tokens: token,user,uid,\"groups\".")
	f.BoolVar(&c.AnonymousAuth, "anonymous-auth", c.AnonymousAuth, "Requests without credentials become system:anonymous.")
	f.StringSliceVar(&c.ServiceAccountIssuers, "service-account-issuer", c.ServiceAccountIssuers, "Issuer of service account tokens; the first signs, all are accepted.")
	f.StringSliceVar(&c.ServiceAccountKeyFiles, "service-account-key-file", c.ServiceAccountKeyFiles, "Files with public keys that verify service account tokens.")
	f.StringVar(&c.ServiceAccountSigningKeyFile, "service-account-signing-key-file", c.ServiceAccountSigningKeyFile, "File with the private key that signs service account tokens.")
	f.DurationVar(&c.ServiceAccountMaxExpiration, "service-account-max-token-expiration", c.ServiceAccountMaxExpiration, "Longest life of an issued token.")
	f.BoolVar(&c.ServiceAccountLookup, "service-account-lookup", c.ServiceAccountLookup, "Tokens count only while their service account exists.")
	f.BoolVar(&c.ServiceAccountExtendExpiration, "service-account-extend-token-expiration", c.ServiceAccountExtendExpiration, "Injected tokens live a year, to ease migration.")
	f.StringSliceVar(&c.APIAudiences, "api-audiences", c.APIAudiences, "Audiences of this API; default: the issuers.")
	f.BoolVar(&c.EnableBootstrapTokenAuth, "enable-bootstrap-token-auth", c.EnableBootstrapTokenAuth, "Secrets of type bootstrap.kubernetes.io/token identify.")
	f.StringVar(&c.RequestHeaderClientCAFile, "requestheader-client-ca-file", c.RequestHeaderClientCAFile, "CA file of front proxies.")
	f.StringSliceVar(&c.RequestHeaderAllowedNames, "requestheader-allowed-names", c.RequestHeaderAllowedNames, "Common names of front proxies; empty: any.")
	f.StringSliceVar(&c.RequestHeaderUsernameHeaders, "requestheader-username-headers", c.RequestHeaderUsernameHeaders, "Headers that carry the user name.")
	f.StringSliceVar(&c.RequestHeaderUIDHeaders, "requestheader-uid-headers", c.RequestHeaderUIDHeaders, "Headers that carry the uid.")
	f.StringSliceVar(&c.RequestHeaderGroupHeaders, "requestheader-group-headers", c.RequestHeaderGroupHeaders, "Headers that carry groups.")
	f.StringSliceVar(&c.RequestHeaderExtraHeaderPrefixes, "requestheader-extra-headers-prefix", c.RequestHeaderExtraHeaderPrefixes, "Prefixes of headers that carry extra facts.")
	f.StringVar(&c.ProxyClientCertFile, "proxy-client-cert-file", c.ProxyClientCertFile, "Client certificate for aggregated API servers.")
	f.StringVar(&c.ProxyClientKeyFile, "proxy-client-key-file", c.ProxyClientKeyFile, "Key of --proxy-client-cert-file.")
	f.StringVar(&c.KubeletClientCertificate, "kubelet-client-certificate", c.KubeletClientCertificate, "Client certificate for kubelets.")
	f.StringVar(&c.KubeletClientKey, "kubelet-client-key", c.KubeletClientKey, "Key of --kubelet-client-certificate.")
	f.StringVar(&c.KubeletCAFile, "kubelet-certificate-authority", c.KubeletCAFile, "CA file that kubelets' serving certificates are verified with.")
	f.StringSliceVar(&c.KubeletPreferredAddressTypes, "kubelet-preferred-address-types", c.KubeletPreferredAddressTypes, "Which address of a node to use for its kubelet.")
	f.StringSliceVar(&c.AuthorizationModes, "authorization-mode", c.AuthorizationModes, "Authorizers in order: Node, RBAC, AlwaysAllow, AlwaysDeny.")
	f.StringSliceVar(&c.EnableAdmissionPlugins, "enable-admission-plugins", c.EnableAdmissionPlugins, "Admission plug-ins besides the default ones.")
	f.StringSliceVar(&c.DisableAdmissionPlugins, "disable-admission-plugins", c.DisableAdmissionPlugins, "Default admission plug-ins to leave out.")
	f.BoolVar(&c.AllowPrivileged, "allow-privileged", c.AllowPrivileged, "Privileged containers are allowed.")
	f.StringVar(&c.ServiceClusterIPRange, "service-cluster-ip-range", c.ServiceClusterIPRange, "Ranges of cluster IPs, one per family.")
	f.StringVar(&c.ServiceNodePortRange, "service-node-port-range", c.ServiceNodePortRange, "Range of node ports.")
	f.DurationVar(&c.RequestTimeout, "request-timeout", c.RequestTimeout, "Deadline of requests that have an end.")
	f.IntVar(&c.MinRequestTimeout, "min-request-timeout", c.MinRequestTimeout, "Seconds that a watch lasts at least.")
	f.IntVar(&c.MaxRequestsInFlight, "max-requests-inflight", c.MaxRequestsInFlight, "Reading requests that run at once.")
	f.IntVar(&c.MaxMutatingRequestsInFlight, "max-mutating-requests-inflight", c.MaxMutatingRequestsInFlight, "Writing requests that run at once.")
	f.DurationVar(&c.ShutdownDelay, "shutdown-delay-duration", c.ShutdownDelay, "How long to go on serving after a signal to end.")
	f.StringVar(&c.EndpointReconcilerType, "endpoint-reconciler-type", c.EndpointReconcilerType, "How the endpoints of service default/kubernetes are kept: lease, none, or master-count (deprecated).")
	f.IntVar(&c.APIServerCount, "apiserver-count", c.APIServerCount, "How many API servers the endpoint reconciler master-count counts on.")
	_ = f.MarkHidden("apiserver-count") // it is there
	f.StringArrayVar(&c.FeatureGates, "feature-gates", c.FeatureGates, "Feature gates: name=true|false, comma separated.")
	f.Var(&c.RuntimeConfig, "runtime-config", "API versions to serve or not: v1=true|false for the core API group, <group>/<version>=true|false, <group>/<version>/<resource>=true|false, api/all, api/ga, api/beta or api/alpha=true|false.")
	f.StringSliceVar(&c.EmulatedVersion, "emulated-version", c.EmulatedVersion, "Version whose API is served: "+compatibleMajor+"."+compatibleMinor+" is the only one.")
	f.StringSliceVar(&c.MinCompatibilityVersion, "min-compatibility-version", c.MinCompatibilityVersion, "Oldest version of the control plane to get along with: "+minCompatibleMajor+"."+minCompatibleMinor+" is the only one.")
}

// settled is what is worked out from a Config.
type settled struct {
	Config
	bind          netip.Addr
	advertise     netip.Addr
	serviceRanges []netip.Prefix
	nodePorts     [2]int
	gates         feature.Gates
	apis          feature.APIs
}

var errConfig = errors.New("invalid configuration")

// settle checks the configuration and works out what follows from it.
func (c Config) settle() (*settled, error) {
	s := &settled{Config: c}
	var problems []string
	bad := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	var err error
	if s.bind, err = netip.ParseAddr(c.BindAddress); err != nil {
		bad("--bind-address: %v", err)
	}
	if c.SecurePort < 0 || c.SecurePort > 65535 {
		bad("--secure-port %d is not a port", c.SecurePort)
	}
	s.advertise = s.bind
	if c.AdvertiseAddress != "" {
		if s.advertise, err = netip.ParseAddr(c.AdvertiseAddress); err != nil {
			bad("--advertise-address: %v", err)
		}
	} else if s.bind.IsUnspecified() {
		s.advertise = outwardAddress()
	}
	for text := range strings.SplitSeq(c.ServiceClusterIPRange, ",") {
		prefix, err := netip.ParsePrefix(strings.TrimSpace(text))
		if err != nil {
			bad("--service-cluster-ip-range: %v", err)
			continue
		}
		s.serviceRanges = append(s.serviceRanges, prefix.Masked())
	}
	if s.nodePorts, err = parsePortRange(c.ServiceNodePortRange); err != nil {
		bad("--service-node-port-range: %v", err)
	}
	if err := s.features(); err != nil {
		bad("%v", err)
	}
	for _, mode := range c.AuthorizationModes {
		switch mode {
		case "Node", "RBAC", "AlwaysAllow", "AlwaysDeny":
		default:
			bad("--authorization-mode %s is not supported", mode)
		}
	}
	problems = append(problems, c.checkStorageFlags()...)
	switch c.EndpointReconcilerType {
	case byLease, byCount, byNone:
	default:
		bad("--endpoint-reconciler-type %q is none of lease, master-count, none", c.EndpointReconcilerType)
	}
	if c.APIServerCount <= 0 {
		bad("--apiserver-count %d is not positive", c.APIServerCount)
	}
	if err := c.checkEncryptionFlags(); err != nil {
		bad("%v", err)
	}
	if c.DataDir == "" {
		for flag, value := range map[string]string{
			"--tls-cert-file": c.TLSCertFile, "--tls-private-key-file": c.TLSKeyFile, "--service-account-signing-key-file": c.ServiceAccountSigningKeyFile,
		} {
			if value == "" {
				bad("%s or --data-dir is needed", flag)
			}
		}
		if len(c.EtcdServers) == 0 {
			bad("--etcd-servers or --data-dir is needed")
		}
	}
	if len(problems) > 0 {
		return nil, fmt.Errorf("%w: %s", errConfig, strings.Join(problems, "; "))
	}
	if s.Log == nil {
		s.Log = slog.Default()
	}
	if len(s.ServiceAccountIssuers) == 0 {
		s.ServiceAccountIssuers = []string{"https://kubernetes.default.svc.cluster.local"}
	}
	if len(s.APIAudiences) == 0 {
		s.APIAudiences = s.ServiceAccountIssuers
	}
	return s, nil
}

func parsePortRange(text string) (r [2]int, err error) {
	first, last, ok := strings.Cut(text, "-")
	if !ok {
		return r, fmt.Errorf("%q is not first-last", text)
	}
	if r[0], err = strconv.Atoi(first); err != nil {
		return r, err
	}
	if r[1], err = strconv.Atoi(last); err != nil {
		return r, err
	}
	if r[0] < 1 || r[1] > 65535 || r[0] > r[1] {
		return r, fmt.Errorf("%q is not a range of ports", text)
	}
	return r, nil
}

// outwardAddress is the local address of the default route, or loopback.
func outwardAddress() netip.Addr {
	conn, err := net.Dial("udp", "192.0.2.1:9") // sends nothing: it only asks for a route
	if err != nil {
		return netip.MustParseAddr("127.0.0.1")
	}
	defer conn.Close()
	return conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr()
}

func hostname() string {
	name, err := os.Hostname()
	if err != nil {
		return "localhost"
	}
	return strings.ToLower(name)
}

package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"strconv"

	"github.com/spf13/pflag"
	"github.com/timonel/timonel/internal/node"
	"github.com/timonel/timonel/internal/node/containerd"
	"github.com/timonel/timonel/internal/node/serve"
	"golang.org/x/sync/errgroup"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// NodeConfig is how a node agent runs, in `timonel up` or alone.
type NodeConfig struct {
	DataDir         string
	NodeName        string // default: the host's name
	NodeIP          string // default: the address of the default route
	RuntimeEndpoint string // default: a runtime that is there, else a private containerd
	PodCIDR         string // of a private containerd's pod network
	Bridge          string
	KubeletPort     int
	CertFile        string // serving certificate of the agent's own endpoint
	KeyFile         string
	ClientCAFile    string   // of clients of that endpoint
	ClusterDNS      []string // name servers of pods; none: the host's
	Images          []string // archives to import into the runtime
	Log             *slog.Logger
	Out             io.Writer

	serving  *tls.Certificate
	clientCA *x509.CertPool
}

// Flags binds the configuration to flags.
func (c *NodeConfig) Flags(f *pflag.FlagSet) {
	f.StringVar(&c.DataDir, "data-dir", c.DataDir, "Directory of pod volumes, and of a private containerd.")
	f.StringVar(&c.NodeIP, "node-ip", c.NodeIP, "Address that others reach this node at.")
	f.StringVar(&c.CertFile, "tls-cert-file", c.CertFile, "Serving certificate of the agent's endpoint.")
	f.StringVar(&c.KeyFile, "tls-private-key-file", c.KeyFile, "Key of the serving certificate.")
	f.StringVar(&c.ClientCAFile, "client-ca-file", c.ClientCAFile, "CA file of clients of the agent's endpoint.")
	c.SharedFlags(f)
}

// SharedFlags binds what `timonel up` shares with `timonel node`.
func (c *NodeConfig) SharedFlags(f *pflag.FlagSet) {
	f.StringVar(&c.NodeName, "node-name", c.NodeName, "Name of the node; default: the host's name.")
	f.StringVar(&c.RuntimeEndpoint, "runtime-endpoint", c.RuntimeEndpoint, "CRI socket of a container runtime; default: one that is there, else a private containerd.")
	f.StringVar(&c.PodCIDR, "pod-cidr", c.PodCIDR, "Network of pods on a private containerd; default 10.244.0.0/24.")
	f.StringVar(&c.Bridge, "bridge", c.Bridge, "Network bridge of pods on a private containerd; default tml0.")
	f.IntVar(&c.KubeletPort, "kubelet-port", node.DefaultKubeletPort, "Port of the agent's endpoint.")
	f.StringSliceVar(&c.ClusterDNS, "cluster-dns", c.ClusterDNS, "Name servers of pods; default: the host's.")
	f.StringSliceVar(&c.Images, "demo-image", c.Images, "Image archives to import, so that they can be run without a registry.")
}

func (c *NodeConfig) name() string {
	if c.NodeName != "" {
		return c.NodeName
	}
	return hostname()
}

func (c *NodeConfig) address() string {
	if c.NodeIP != "" {
		return c.NodeIP
	}
	return outwardAddress().String()
}

func (c *NodeConfig) say(format string, args ...any) { fmt.Fprintf(c.Out, "  "+format+"\n", args...) }

// RunNode runs a node agent until ctx is done: its container runtime if there is no other, its
// endpoint for logs and exec, and the agent itself.
func RunNode(ctx context.Context, client kubernetes.Interface, _ *rest.Config, c NodeConfig) error {
	n, err := openNode(ctx, client, c)
	if err != nil {
		return err
	}
	defer n.close()
	return n.run(ctx)
}

// localNode is a node that has been put together.
type localNode struct {
	NodeConfig
	agent    *node.Agent
	endpoint *serve.Server
	listener net.Listener
	private  *containerd.Runtime // nil: somebody else's runtime
	closers  []func() error
}

// openNode finds or starts the container runtime and opens the agent's port.
func openNode(ctx context.Context, client kubernetes.Interface, c NodeConfig) (_ *localNode, err error) {
	n := &localNode{NodeConfig: c}
	defer func() {
		if err != nil {
			n.close()
		}
	}()
	if err := n.credentials(); err != nil {
		return nil, err
	}
	runtime, err := n.findRuntime(ctx)
	if err != nil {
		return nil, err
	}
	for _, image := range c.Images {
		if err := containerd.Import(ctx, runtime, image); err != nil {
			n.say("Image       %s is not imported: %v", filepath.Base(image), err)
		}
	}
	if n.listener, err = net.Listen("tcp", net.JoinHostPort("", strconv.Itoa(c.KubeletPort))); err != nil {
		return nil, fmt.Errorf("listen for the node's endpoint: %w", err)
	}
	n.agent = node.New(client, node.Config{
		NodeName: c.name(), DataDir: c.DataDir, RuntimeEndpoint: runtime, NodeIP: c.address(),
		KubeletPort: int32(n.listener.Addr().(*net.TCPAddr).Port), ClusterDNS: c.ClusterDNS, Version: compatibleVersion, Logger: c.Log,
	})
	return n, n.openEndpoint(client, runtime)
}

func (n *localNode) credentials() error {
	if n.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(n.CertFile, n.KeyFile)
		if err != nil {
			return fmt.Errorf("read the node's serving certificate: %w", err)
		}
		n.serving = &pair
	}
	if n.ClientCAFile != "" {
		pool, _, err := readPool(n.ClientCAFile)
		if err != nil {
			return err
		}
		n.clientCA = pool
	}
	if n.serving == nil {
		return errors.New("the node needs --tls-cert-file and --tls-private-key-file for its endpoint")
	}
	return nil
}

func (n *localNode) openEndpoint(client kubernetes.Interface, runtime string) error {
	conn, err := containerd.Dial(runtime)
	if err != nil {
		return fmt.Errorf("connect to the container runtime: %w", err)
	}
	n.closers = append(n.closers, conn.Close)
	n.endpoint = serve.New(serve.Config{
		NodeName: n.name(), Containers: n.agent, Runtime: runtimeapi.NewRuntimeServiceClient(conn),
		ClientCA: func() *x509.CertPool { return n.clientCA },
		ReviewToken: func(ctx context.Context, r *authenticationv1.TokenReview) (*authenticationv1.TokenReview, error) {
			return client.AuthenticationV1().TokenReviews().Create(ctx, r, metav1.CreateOptions{})
		},
		ReviewAccess: func(ctx context.Context, r *authorizationv1.SubjectAccessReview) (*authorizationv1.SubjectAccessReview, error) {
			return client.AuthorizationV1().SubjectAccessReviews().Create(ctx, r, metav1.CreateOptions{})
		},
		TLS:     &tls.Config{Certificates: []tls.Certificate{*n.serving}, MinVersion: tls.VersionTLS12},
		Version: compatibleVersion, Log: n.Log,
	})
	return nil
}

// findRuntime returns the CRI endpoint of a runtime that is there, or starts a private one.
func (n *localNode) findRuntime(ctx context.Context) (endpoint string, err error) {
	found, err := containerd.Find(ctx, n.RuntimeEndpoint)
	if err == nil {
		n.say("Runtime     %s %s at %s", found.Name, found.Version, found.Endpoint)
		return found.Endpoint, nil
	}
	if n.RuntimeEndpoint != "" {
		return "", err
	}
	config := containerd.Config{Root: filepath.Join(n.DataDir, "containerd"), Bridge: n.Bridge, Log: n.Log}
	if n.PodCIDR != "" {
		cidr, err := netip.ParsePrefix(n.PodCIDR)
		if err != nil {
			return "", fmt.Errorf("--pod-cidr: %w", err)
		}
		config.PodCIDRs = []netip.Prefix{cidr}
	}
	if n.private, err = containerd.Start(ctx, config); err != nil {
		return "", err
	}
	n.closers = append(n.closers, n.private.Close)
	how := "started"
	if n.private.Adopted() {
		how = "still running, adopted"
	}
	n.say("Runtime     private containerd, %s", how)
	for _, note := range n.private.Notes() {
		n.say("            %s", note)
	}
	return n.private.Endpoint(), nil
}

func (n *localNode) run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return n.agent.Run(ctx) })
	group.Go(func() error { return n.endpoint.Serve(ctx, n.listener) })
	return group.Wait()
}

// close ends what openNode began. Containers go on running.
func (n *localNode) close() {
	if n.listener != nil {
		_ = n.listener.Close() // Serve closes it too
	}
	for i := len(n.closers) - 1; i >= 0; i-- {
		if err := n.closers[i](); err != nil {
			n.Log.Warn("close node", "error", err)
		}
	}
}

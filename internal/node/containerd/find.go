package containerd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// DefaultEndpoint is where distributions put the socket of the machine's containerd.
const DefaultEndpoint = "unix:///run/containerd/containerd.sock"

// maxMessage bounds a CRI answer: the figure containerd itself uses.
const maxMessage = 16 << 20

// askTimeout bounds one question to a runtime that may be hung.
const askTimeout = 5 * time.Second

// ErrNone is returned by Find when no endpoint was given and the machine has no
// runtime that could run pods now. It wraps the reason.
var ErrNone = errors.New("no container runtime found")

// Existing is a runtime that something else runs.
type Existing struct {
	Endpoint string // a gRPC target, "unix:///…"
	Name     string // as the runtime calls itself: "containerd", "cri-o"
	Version  string
	Network  bool // whether it can give pods a network now
}

// Find returns the runtime behind endpoint ("unix:///path" or a plain path).
// With an empty endpoint it tries DefaultEndpoint, and takes it only when both
// the runtime and its pod network are ready: a containerd that a distribution
// installed but nobody configured cannot run a pod, and a private one can. The
// error is then ErrNone. A given endpoint is taken if it speaks CRI v1.
func Find(ctx context.Context, endpoint string) (Existing, error) {
	if endpoint != "" {
		return ask(ctx, Target(endpoint))
	}
	path := strings.TrimPrefix(DefaultEndpoint, "unix://")
	if _, err := os.Stat(path); err != nil {
		return Existing{}, fmt.Errorf("%w: %w", ErrNone, err)
	}
	found, err := ask(ctx, DefaultEndpoint)
	if err != nil {
		return Existing{}, fmt.Errorf("%w: %w", ErrNone, err)
	}
	if !found.Network {
		return Existing{}, fmt.Errorf("%w: %s at %s has no pod network configured", ErrNone, found.Name, DefaultEndpoint)
	}
	return found, nil
}

// Target turns a CRI endpoint as flags carry it into a gRPC target.
func Target(endpoint string) string {
	if strings.HasPrefix(endpoint, "/") {
		return "unix://" + endpoint
	}
	return endpoint
}

func ask(ctx context.Context, endpoint string) (Existing, error) {
	conn, err := Dial(endpoint)
	if err != nil {
		return Existing{}, err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()

	client := runtimeapi.NewRuntimeServiceClient(conn)
	version, err := client.Version(ctx, &runtimeapi.VersionRequest{})
	if err != nil {
		return Existing{}, fmt.Errorf("ask the runtime at %s for its version: %w", endpoint, err)
	}
	status, err := client.Status(ctx, &runtimeapi.StatusRequest{})
	if err != nil {
		return Existing{}, fmt.Errorf("ask the runtime at %s for its status: %w", endpoint, err)
	}
	if ok, why := condition(status, runtimeapi.RuntimeReady); !ok {
		return Existing{}, fmt.Errorf("the runtime at %s is not ready: %s", endpoint, why)
	}
	network, _ := condition(status, runtimeapi.NetworkReady)
	return Existing{Endpoint: endpoint, Name: version.RuntimeName, Version: version.RuntimeVersion, Network: network}, nil
}

func condition(status *runtimeapi.StatusResponse, name string) (bool, string) {
	for _, c := range status.GetStatus().GetConditions() {
		if c.Type == name {
			return c.Status, strings.TrimSpace(c.Reason + " " + c.Message)
		}
	}
	return false, "it does not say"
}

// Dial connects to a runtime's socket. It returns at once; the first call finds
// out whether anyone listens.
func Dial(endpoint string) (*grpc.ClientConn, error) {
	conn, err := grpc.NewClient(Target(endpoint),
		grpc.WithTransportCredentials(insecure.NewCredentials()), // a unix socket that only root may open
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 20 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
			MinConnectTimeout: askTimeout,
		}))
	if err != nil {
		return nil, fmt.Errorf("connect to the runtime at %s: %w", endpoint, err)
	}
	return conn, nil
}

// Programs a private containerd needs, with the Debian package that brings each.
var needed = []struct{ program, in string }{
	{"containerd", "containerd"},
	{"containerd-shim-runc-v2", "containerd"},
	{"ctr", "containerd"},
	{"runc", "runc"},
}

// pluginDirectories are where distributions install the CNI plugins.
var pluginDirectories = []string{"/usr/lib/cni", "/opt/cni/bin", "/usr/libexec/cni"}

// neededPlugins make a pod network; portmap and firewall are used when present.
var neededPlugins = []string{"bridge", "host-local", "loopback"}

// Missing returns the packages, as Debian and Ubuntu name them, that must be
// installed before Start can work; none when everything is there.
func Missing() []string {
	var packages []string
	for _, n := range needed {
		if _, err := lookup(n.program); err != nil && (len(packages) == 0 || packages[len(packages)-1] != n.in) {
			packages = append(packages, n.in)
		}
	}
	if pluginDirectory() == "" {
		packages = append(packages, "containernetworking-plugins")
	}
	return packages
}

// Hint tells a person how to get a working runtime, or is empty when Start can be tried.
func Hint() string {
	if missing := Missing(); len(missing) > 0 {
		if _, err := lookup("iptables"); err != nil {
			missing = append(missing, "iptables") // without it pods reach only each other
		}
		return "pods need a container runtime: apt-get install -y " + strings.Join(missing, " ")
	}
	if os.Geteuid() != 0 {
		return "pods need a container runtime, and starting one needs root"
	}
	return ""
}

// systemDirectories hold programs that an ordinary user's PATH may leave out.
const systemDirectories = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

func lookup(program string) (string, error) {
	if path, err := exec.LookPath(program); err == nil {
		return filepath.Abs(path)
	}
	for _, dir := range filepath.SplitList(systemDirectories) {
		if path, err := exec.LookPath(filepath.Join(dir, program)); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s is not installed", program)
}

func pluginDirectory() string {
	for _, dir := range pluginDirectories {
		if hasPlugins(dir, neededPlugins...) {
			return dir
		}
	}
	return ""
}

func hasPlugins(dir string, plugins ...string) bool {
	for _, plugin := range plugins {
		if _, err := exec.LookPath(filepath.Join(dir, plugin)); err != nil {
			return false
		}
	}
	return true
}

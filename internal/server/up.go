package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/timonel/timonel/internal/controller"
	"github.com/timonel/timonel/internal/node/containerd"
	"github.com/timonel/timonel/internal/scheduler"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// UpConfig is how `timonel up` runs a whole cluster in one process.
type UpConfig struct {
	Config
	Node   NodeConfig
	NoNode bool
	Out    io.Writer // where progress is told
}

// trimAllAfter the cluster is up, what only starting needed is given back.
const trimAllAfter = 10 * time.Second

// nodeReadyWait is how long the first screen waits for the node.
const nodeReadyWait = 20 * time.Second

// ErrDirectoryInUse says that another timonel uses the data directory.
var ErrDirectoryInUse = errors.New("data directory is in use")

// lockDirectory makes sure that one process at a time works in a data directory. The lock goes
// with the process.
func lockDirectory(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make data directory: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock data directory: %w", err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = lock.Close()
		return nil, fmt.Errorf("%s: %w by another timonel", dir, ErrDirectoryInUse)
	}
	return lock, nil
}

// Up runs the whole cluster until ctx is done: API server with etcd, controllers, scheduler, and the
// node agent with its container runtime.
func Up(ctx context.Context, config UpConfig) error {
	start := time.Now()
	say := func(format string, args ...any) { fmt.Fprintf(config.Out, format+"\n", args...) }
	lock, err := lockDirectory(config.DataDir)
	if err != nil {
		return err
	}
	defer lock.Close()
	identity := NodeIdentity{}
	if !config.NoNode {
		address, err := netip.ParseAddr(config.Node.address())
		if err != nil {
			return fmt.Errorf("address of the node: %w", err)
		}
		identity = NodeIdentity{Name: config.Node.name(), Addresses: []netip.Addr{address}}
	}
	s, err := Open(ctx, config.Config, identity)
	if err != nil {
		return err
	}
	defer s.Close()
	listener, err := s.Listen()
	if err != nil {
		return err
	}
	if err := s.WriteKubeconfigs(); err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	// The API server ends last: the others still report through it.
	serving, stopServing := context.WithCancel(context.WithoutCancel(ctx))
	defer stopServing()
	served := make(chan error, 1)
	ready := make(chan struct{})
	go func() { served <- s.Run(serving, listener, func() { close(ready) }) }()
	select {
	case <-ready:
	case err := <-served:
		return err
	case <-ctx.Done():
		stopServing()
		return <-served
	}
	say("  API server  ready in %s at %s", took(start), s.URL())

	u := &up{UpConfig: config, server: s, group: group, say: say}
	if err := u.startClients(ctx); err != nil {
		stopServing()
		return errors.Join(err, <-served)
	}
	u.screen(ctx, start)
	time.AfterFunc(trimAllAfter, trim)
	group.Go(func() error { // a server that fails takes the others with it
		select {
		case err := <-served:
			served <- nil
			return err
		case <-ctx.Done():
			return nil
		}
	})
	err = group.Wait()
	u.close()
	stopServing()
	return errors.Join(err, <-served)
}

// up is a cluster that is starting.
type up struct {
	UpConfig
	server *Server
	group  *errgroup.Group
	say    func(format string, args ...any)
	node   *localNode // nil: none runs
}

// ComponentClient is a component's ordinary client: its own credentials, protobuf, no rate limit
// of its own (the server paces).
func (s *Server) ComponentClient(kubeconfig, agent string) (kubernetes.Interface, *rest.Config, error) {
	c, err := clientcmd.BuildConfigFromFlags("", filepath.Join(s.DataDir, kubeconfig))
	if err != nil {
		return nil, nil, fmt.Errorf("read kubeconfig: %w", err)
	}
	return NewClient(c, agent)
}

// RootCA is the certificate, PEM, that clients verify the server with; nil without a data directory.
func (s *Server) RootCA() []byte {
	if s.Credentials.set == nil {
		return nil
	}
	return s.Credentials.set.CA.CertPEM
}

// NewClient makes the client of a component.
func NewClient(c *rest.Config, agent string) (kubernetes.Interface, *rest.Config, error) {
	c = rest.CopyConfig(c)
	c.ContentType = "application/vnd.kubernetes.protobuf"
	c.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	c.UserAgent = agent + "/" + compatibleVersion + " timonel"
	c.QPS = -1
	c.WarningHandler = rest.NoWarnings{} // a component does not read them
	client, err := kubernetes.NewForConfig(c)
	if err != nil {
		return nil, nil, fmt.Errorf("make client: %w", err)
	}
	return client, c, nil
}

func (u *up) startClients(ctx context.Context) error {
	client, config, err := u.server.ComponentClient(ControllersKubeconfig, "kube-controller-manager")
	if err != nil {
		return err
	}
	controllers, err := controller.New(client, config, controller.Config{RootCA: u.server.RootCA(), StorageVersions: u.server.publishesVersions(), Log: u.server.Log})
	if err != nil {
		return err
	}
	u.group.Go(func() error { return part("controllers", controllers.Run(ctx)) })

	client, _, err = u.server.ComponentClient(SchedulerKubeconfig, "kube-scheduler")
	if err != nil {
		return err
	}
	s := scheduler.New(client, scheduler.Config{Logger: u.server.Log})
	u.group.Go(func() error { return part("scheduler", s.Run(ctx)) })
	u.say("  Controllers and scheduler started")
	if u.NoNode {
		return nil
	}
	return u.startNode(ctx)
}

// part names the component that failed; an end by cancellation is none.
func part(name string, err error) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return nil
	}
	return fmt.Errorf("%s: %w", name, err)
}

// startNode starts the node. Without a container runtime the control plane runs alone.
func (u *up) startNode(ctx context.Context) error {
	client, _, err := u.server.ComponentClient(NodeKubeconfig, "kubelet")
	if err != nil {
		return err
	}
	set := u.server.Credentials.set
	serving := set.NodeServing.TLS()
	config := u.Node
	config.serving, config.clientCA, config.DataDir = &serving, set.CA.Pool(), filepath.Join(u.DataDir, "node")
	config.Log, config.Out = u.server.Log, u.Out
	n, err := openNode(ctx, client, config)
	if err != nil {
		u.say("  Node        not started: %v", err)
		if hint := containerd.Hint(); hint != "" {
			u.say("              %s", hint)
		}
		return nil
	}
	u.node = n
	u.group.Go(func() error { return part("node", n.run(ctx)) })
	return nil
}

func (u *up) close() {
	if u.node != nil {
		u.node.close()
	}
}

// screen waits for the node and says what to type next.
func (u *up) screen(ctx context.Context, start time.Time) {
	if u.node != nil {
		if u.waitForNode(ctx) {
			u.say("  Node        %s Ready", u.node.name())
		} else {
			u.say("  Node        %s is not Ready yet: kubectl describe node %s", u.node.name(), u.node.name())
		}
	}
	if ctx.Err() != nil {
		return
	}
	u.say("\nThe cluster is up after %s. In another terminal:\n", took(start))
	if dir := programDir(); dir != "" {
		u.say("  export PATH=%s:$PATH", dir)
	}
	u.say("  export KUBECONFIG=%s", filepath.Join(u.DataDir, AdminKubeconfig))
	u.say("  kubectl get nodes")
	if u.node != nil && len(u.node.Images) > 0 {
		u.say("  kubectl run hello --image=timonel.dev/demo:v1 --port=8080")
		u.say("  timonel trace pod hello")
	}
	u.say("\nCtrl-C ends it; containers go on running and are found again at the next start.")
}

// programDir is where the program is, unless that is where shells look anyway.
func programDir() string {
	program, err := os.Executable()
	if err != nil {
		return ""
	}
	dir := filepath.Dir(program)
	if slices.Contains([]string{"/bin", "/usr/bin", "/usr/local/bin", "/sbin", "/usr/sbin", "/usr/local/sbin"}, dir) {
		return ""
	}
	return dir
}

func (u *up) waitForNode(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, nodeReadyWait)
	defer cancel()
	client, err := kubernetes.NewForConfig(u.server.Loopback())
	if err != nil {
		return false
	}
	w, err := client.CoreV1().Nodes().Watch(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + u.node.name()})
	if err != nil {
		return false
	}
	defer w.Stop()
	for event := range w.ResultChan() {
		if nodeReady(event.Object) {
			return true
		}
	}
	return false
}

func took(start time.Time) string {
	return time.Since(start).Round(time.Millisecond).String()
}

func nodeReady(obj runtime.Object) bool {
	n, ok := obj.(*corev1.Node)
	if !ok {
		return false
	}
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

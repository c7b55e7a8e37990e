// Package timonel runs a Kubernetes control plane inside a Go program: an API
// server with etcd in the same process, on a free port, gone with the context.
//
//	cluster, err := timonel.Start(ctx, timonel.Config{})
//	if err != nil { … }
//	defer cluster.Stop()
//	client, err := kubernetes.NewForConfig(cluster.RESTConfig())
//
// It is made for tests of controllers: it is ready in a fraction of a second, and real in
// everything that such a test can see.
package timonel

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/timonel/timonel/internal/controller"
	"github.com/timonel/timonel/internal/scheduler"
	"github.com/timonel/timonel/internal/server"
	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/rest"
)

// Config chooses what Start runs. The zero value is an API server alone, on a free port of
// 127.0.0.1, with its data in a temporary directory.
type Config struct {
	// DataDir keeps certificates and etcd's data; the cluster can be started again from it. Empty: a
	// temporary directory, removed when the cluster ends.
	DataDir string
	Port    int // 0: a free one

	// EtcdServers are members of an external etcd cluster. None: etcd runs in this process.
	EtcdServers []string
	// Fsync makes writes durable before they are acknowledged. It is off by default when DataDir is empty: what
	// goes with the process needs not survive the machine.
	Fsync bool

	// Controllers runs the controllers: namespaces are emptied and deleted, service accounts and root
	// certificates made, orphans collected. Scheduler runs the scheduler.
	Controllers bool
	Scheduler   bool

	TokenAuthFile           string   // CSV: token,user,uid,"groups"
	EnableAdmissionPlugins  []string // besides the default ones
	DisableAdmissionPlugins []string
	AllowPrivileged         bool
	// RuntimeConfig says which API versions are served besides those that are GA, or not: "api/all", "api/beta",
	// "group/version", "group/version/resource", each "true" or "false". FeatureGates is a list of name=true|false. Both are those of
	// kube-apiserver's flags.
	RuntimeConfig map[string]string
	FeatureGates  string
	// ServiceAccountIssuer is who service account tokens are issued by; default
	// "https://kubernetes.default.svc.cluster.local".
	ServiceAccountIssuer string

	Log *slog.Logger // default: nothing is logged
}

// Cluster is a running control plane.
type Cluster struct {
	server *server.Server
	cancel context.CancelFunc
	done   chan struct{}
	err    error
	dir    string // temporary; "" otherwise
}

// Start runs a control plane and returns when it is ready. It ends with ctx or Stop.
func Start(ctx context.Context, c Config) (*Cluster, error) {
	k := &Cluster{done: make(chan struct{})}
	config := server.DefaultConfig()
	config.BindAddress, config.AdvertiseAddress, config.SecurePort = "127.0.0.1", "127.0.0.1", c.Port
	config.DataDir, config.EtcdServers = c.DataDir, c.EtcdServers
	config.TokenAuthFile, config.AllowPrivileged = c.TokenAuthFile, c.AllowPrivileged
	config.EnableAdmissionPlugins, config.DisableAdmissionPlugins = c.EnableAdmissionPlugins, c.DisableAdmissionPlugins
	config.RuntimeConfig, config.FeatureGates = c.RuntimeConfig, []string{c.FeatureGates}
	if c.ServiceAccountIssuer != "" {
		config.ServiceAccountIssuers = []string{c.ServiceAccountIssuer}
	}
	config.Log = c.Log
	if config.Log == nil {
		config.Log = slog.New(slog.DiscardHandler)
	}
	if c.DataDir == "" {
		dir, err := os.MkdirTemp("", "timonel-")
		if err != nil {
			return nil, fmt.Errorf("start control plane: %w", err)
		}
		k.dir, config.DataDir = dir, dir
		config.EtcdUnsafeNoFsync = !c.Fsync
	}
	if err := k.start(ctx, config, c); err != nil {
		k.clean()
		return nil, fmt.Errorf("start control plane: %w", err)
	}
	return k, nil
}

func (k *Cluster) start(ctx context.Context, config server.Config, c Config) error {
	s, err := server.Open(ctx, config, server.NodeIdentity{})
	if err != nil {
		return err
	}
	k.server = s
	listener, err := s.Listen()
	if err != nil {
		_ = s.Close()
		return err
	}
	if err := s.WriteKubeconfigs(); err != nil {
		_ = s.Close()
		return err
	}
	ctx, k.cancel = context.WithCancel(ctx)
	ready := make(chan struct{})
	group, inner := errgroup.WithContext(ctx)
	group.Go(func() error { return s.Run(inner, listener, func() { close(ready) }) })
	go func() {
		defer close(k.done)
		<-inner.Done()
		k.err = group.Wait()
		if ctx.Err() != nil && errors.Is(k.err, context.Canceled) {
			k.err = nil // it was told to end
		}
		if err := s.Close(); k.err == nil {
			k.err = err
		}
		k.clean()
		k.cancel()
	}()
	select {
	case <-ready:
	case <-inner.Done():
		<-k.done
		if k.err == nil {
			k.err = ctx.Err()
		}
		return k.err
	}
	if err := k.clients(inner, group, config.Log, c); err != nil {
		k.cancel()
		<-k.done
		return err
	}
	return nil
}

// clients starts the components that are asked for, as clients with their own credentials.
func (k *Cluster) clients(ctx context.Context, group *errgroup.Group, log *slog.Logger, c Config) error {
	if c.Controllers {
		client, config, err := k.server.ComponentClient(server.ControllersKubeconfig, "kube-controller-manager")
		if err != nil {
			return err
		}
		all, err := controller.New(client, config, controller.Config{RootCA: k.server.RootCA(), Log: log})
		if err != nil {
			return err
		}
		group.Go(func() error { return all.Run(ctx) })
	}
	if c.Scheduler {
		client, _, err := k.server.ComponentClient(server.SchedulerKubeconfig, "kube-scheduler")
		if err != nil {
			return err
		}
		s := scheduler.New(client, scheduler.Config{Logger: log})
		group.Go(func() error { return s.Run(ctx) })
	}
	return nil
}

// RESTConfig is a client configuration with all rights (group system:masters).
func (k *Cluster) RESTConfig() *rest.Config { return k.server.Loopback() }

// Kubeconfig is the path of a kubeconfig with all rights.
func (k *Cluster) Kubeconfig() string {
	return filepath.Join(k.server.DataDir, server.AdminKubeconfig)
}

// URL is where the API server listens.
func (k *Cluster) URL() string { return k.server.URL() }

// stopWait bounds how long Stop waits for running requests.
const stopWait = 30 * time.Second

// Stop ends the control plane and returns when everything is released.
func (k *Cluster) Stop() error {
	k.cancel()
	select {
	case <-k.done:
		return k.err
	case <-time.After(stopWait):
		return fmt.Errorf("control plane did not end within %s", stopWait)
	}
}

// Done is closed when the control plane has ended, by Stop, by its context or by a failure that Stop returns.
func (k *Cluster) Done() <-chan struct{} { return k.done }

func (k *Cluster) clean() {
	if k.dir != "" {
		_ = os.RemoveAll(k.dir) // temporary: what is left is the system's
	}
}

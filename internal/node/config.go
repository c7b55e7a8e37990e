package node

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"

	v1 "k8s.io/api/core/v1"
)

// Config is what an Agent is told. NodeName, DataDir, RuntimeEndpoint and
// NodeIP are required; the rest has defaults.
type Config struct {
	NodeName string
	// DataDir holds the pods' volumes, as /var/lib/kubelet does.
	DataDir string
	// LogDir is the root of container logs; /var/log/pods if empty.
	LogDir string
	// ContainerLogDir gets flat links to the logs, as log collectors expect in
	// /var/log/containers. Empty: no links.
	ContainerLogDir string
	// RuntimeEndpoint is the unix socket of the CRI runtime.
	RuntimeEndpoint string
	// NodeIP is the address others reach this node at; NodeIPs adds a second
	// of the other family.
	NodeIP  string
	NodeIPs []string
	// KubeletPort is where logs, exec and metrics are served; 10250 if 0.
	KubeletPort int32
	// MaxPods bounds the pods of this node; 110 if 0.
	MaxPods int
	// Labels and Taints are put on the Node when it is registered.
	Labels map[string]string
	Taints []v1.Taint
	// ProviderID goes to the Node's spec.
	ProviderID string
	// ClusterDNS are the cluster's name servers. Without any, pods get the
	// host's DNS settings. ClusterDomain is cluster.local if empty.
	ClusterDNS    []string
	ClusterDomain string
	// ResolvConf is the host's resolver configuration; /etc/resolv.conf if empty.
	ResolvConf string
	// CgroupParent is the cgroup under which pods get cgroups of their own, as
	// /kubepods. Empty: the runtime places containers.
	CgroupParent string
	// CgroupDriver is cgroupfs or systemd; cgroupfs if empty. Only with
	// CgroupParent.
	CgroupDriver string
	// Reserved is kept back from pods: capacity minus Reserved is allocatable.
	Reserved v1.ResourceList
	// Version is published as the node's kubelet version, as v1.37.0.
	Version string
	Logger  *slog.Logger
}

const (
	// DefaultKubeletPort is the port of the kubelet's API.
	DefaultKubeletPort = 10250
	// DefaultMaxPods is Kubernetes' bound of pods on a node.
	DefaultMaxPods = 110
)

// complete fills in defaults and checks what is required.
func (c Config) complete() (Config, error) {
	c.NodeName = strings.ToLower(c.NodeName)
	var missing []error
	for name, value := range map[string]string{"NodeName": c.NodeName, "DataDir": c.DataDir, "RuntimeEndpoint": c.RuntimeEndpoint, "NodeIP": c.NodeIP} {
		if value == "" {
			missing = append(missing, fmt.Errorf("node agent: %s is required", name))
		}
	}
	if c.NodeIP != "" && net.ParseIP(c.NodeIP) == nil {
		missing = append(missing, fmt.Errorf("node agent: NodeIP %q is not an IP address", c.NodeIP))
	}
	c.LogDir = cmp.Or(c.LogDir, "/var/log/pods")
	for name, dir := range map[string]string{"DataDir": c.DataDir, "LogDir": c.LogDir, "ContainerLogDir": c.ContainerLogDir} {
		if dir != "" && !filepath.IsAbs(dir) {
			missing = append(missing, fmt.Errorf("node agent: %s %q is not an absolute path", name, dir))
		}
	}
	c.KubeletPort = cmp.Or(c.KubeletPort, DefaultKubeletPort)
	c.MaxPods = cmp.Or(c.MaxPods, DefaultMaxPods)
	c.ClusterDomain = cmp.Or(c.ClusterDomain, "cluster.local")
	c.CgroupDriver = cmp.Or(c.CgroupDriver, driverCgroupfs)
	if c.CgroupDriver != driverCgroupfs && c.CgroupDriver != driverSystemd {
		missing = append(missing, fmt.Errorf("node agent: CgroupDriver %q is neither cgroupfs nor systemd", c.CgroupDriver))
	}
	if c.ResolvConf == "" {
		c.ResolvConf = "/etc/resolv.conf"
		if _, err := os.Stat(c.ResolvConf); errors.Is(err, os.ErrNotExist) {
			c.ResolvConf = ""
		}
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c, errors.Join(missing...)
}

// hostIPs are the node's addresses, its main one first.
func (c *Config) hostIPs() []string {
	ips := []string{c.NodeIP}
	return appendNew(ips, c.NodeIPs)
}

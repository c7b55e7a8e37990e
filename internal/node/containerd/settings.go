package containerd

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"text/template"
)

// release is a containerd version, as far as its configuration depends on it.
type release struct{ major, minor int }

func (r release) atLeast(major, minor int) bool {
	return r.major > major || r.major == major && r.minor >= minor
}

var releasePattern = regexp.MustCompile(`\bv?(\d+)\.(\d+)[.+~-]`)

// parseRelease reads the output of `containerd --version`, which names the
// program's import path, its version and a commit.
func parseRelease(output string) (release, error) {
	m := releasePattern.FindStringSubmatch(output)
	if m == nil {
		return release{}, fmt.Errorf("no version in %q", output)
	}
	major, _ := strconv.Atoi(m[1])
	minor, _ := strconv.Atoi(m[2])
	if major < 1 || major == 1 && minor < 6 {
		return release{}, fmt.Errorf("containerd %d.%d is too old: 1.6 is the first with CRI v1", major, minor)
	}
	return release{major, minor}, nil
}

// settings is everything the configuration of a private containerd depends on.
type settings struct {
	Release       release
	Root, State   string // images and containers; sockets and what a reboot may lose
	Optional      string // programs that containerd may install; it makes this directory
	Socket        string
	Snapshotter   string // "overlayfs" or "native"
	Runc          string // path
	SandboxImage  string
	PluginDir     string // CNI plugins
	NetworkDir    string // CNI configuration
	KeepPriority  bool   // this machine does not let us lower OOM scores
	UsePortBelow  bool   // containers may listen on ports below 1024 without a capability
	DisabledKinds []string
}

// configuration renders config.toml. containerd 1.x reads version 2 of its
// format, 2.x reads version 3, where the CRI plugin is split in two.
func (s settings) configuration() ([]byte, error) {
	text := configurationV2
	if s.Release.atLeast(2, 0) {
		text = configurationV3
	}
	tmpl, err := template.New("config.toml").Funcs(template.FuncMap{"q": tomlString}).Parse(text)
	if err != nil {
		return nil, fmt.Errorf("parse the containerd configuration template: %w", err)
	}
	var out bytes.Buffer
	if err := tmpl.Execute(&out, s); err != nil {
		return nil, fmt.Errorf("render the containerd configuration: %w", err)
	}
	return out.Bytes(), nil
}

// AtLeast lets the templates ask for the release.
func (s settings) AtLeast(major, minor int) bool { return s.Release.atLeast(major, minor) }

// tomlString quotes a value as a TOML basic string, whose escapes JSON shares.
func tomlString(v string) (string, error) {
	data, err := json.Marshal(v)
	return string(data), err
}

// unusedPlugins do work, or look for it, that no pod needs: other snapshotters
// print errors at start, and the restart monitor wakes every ten seconds. (NRI
// is configured off instead: its socket has one path for the whole machine.)
var unusedPlugins = []string{
	"io.containerd.internal.v1.restart",
	"io.containerd.internal.v1.tracing",
	"io.containerd.tracing.processor.v1.otlp",
	"io.containerd.snapshotter.v1.aufs",
	"io.containerd.snapshotter.v1.blockfile",
	"io.containerd.snapshotter.v1.btrfs",
	"io.containerd.snapshotter.v1.devmapper",
	"io.containerd.snapshotter.v1.erofs",
	"io.containerd.snapshotter.v1.zfs",
}

const configurationV2 = `# Written by timonel at every start. Changes are lost.
version = 2
root = {{q .Root}}
state = {{q .State}}
oom_score = 0
disabled_plugins = [{{range .DisabledKinds}}{{q .}}, {{end}}]

[debug]
  level = "warn"

[grpc]
  address = {{q .Socket}}

[plugins."io.containerd.internal.v1.opt"]
  path = {{q .Optional}}

[plugins."io.containerd.monitor.v1.cgroups"]
  no_prometheus = true

{{if .AtLeast 1 7}}[plugins."io.containerd.nri.v1.nri"]
  disable = true

{{end}}[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = {{q .SandboxImage}}
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
  stats_collect_period = 60
  tolerate_missing_hugetlb_controller = true
  disable_hugetlb_controller = true
  netns_mounts_under_state_dir = true
  restrict_oom_score_adj = {{.KeepPriority}}
  enable_unprivileged_ports = {{.UsePortBelow}}
  enable_unprivileged_icmp = {{.UsePortBelow}}

  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = {{q .Snapshotter}}
    default_runtime_name = "runc"

    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"

      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        BinaryName = {{q .Runc}}
        SystemdCgroup = false

  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = {{q .PluginDir}}
    conf_dir = {{q .NetworkDir}}
    max_conf_num = 1
`

const configurationV3 = `# Written by timonel at every start. Changes are lost.
version = 3
root = {{q .Root}}
state = {{q .State}}
oom_score = 0
disabled_plugins = [{{range .DisabledKinds}}{{q .}}, {{end}}]

[debug]
  level = "warn"

[grpc]
  address = {{q .Socket}}

[plugins."io.containerd.internal.v1.opt"]
  path = {{q .Optional}}

[plugins."io.containerd.monitor.task.v1.cgroups"]
  no_prometheus = true

[plugins."io.containerd.nri.v1.nri"]
  disable = true

[plugins."io.containerd.cri.v1.images"]
  snapshotter = {{q .Snapshotter}}
  stats_collect_period = 60

  [plugins."io.containerd.cri.v1.images".pinned_images]
    sandbox = {{q .SandboxImage}}

[plugins."io.containerd.cri.v1.runtime"]
  tolerate_missing_hugetlb_controller = true
  disable_hugetlb_controller = true
  netns_mounts_under_state_dir = true
  restrict_oom_score_adj = {{.KeepPriority}}
  enable_unprivileged_ports = {{.UsePortBelow}}
  enable_unprivileged_icmp = {{.UsePortBelow}}

  [plugins."io.containerd.cri.v1.runtime".containerd]
    default_runtime_name = "runc"

    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"

      [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
        BinaryName = {{q .Runc}}
        SystemdCgroup = false

  [plugins."io.containerd.cri.v1.runtime".cni]
    {{if .AtLeast 2 1}}bin_dirs = [{{q .PluginDir}}]{{else}}bin_dir = {{q .PluginDir}}{{end}}
    conf_dir = {{q .NetworkDir}}
    max_conf_num = 1

[plugins."io.containerd.grpc.v1.cri"]
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
`

// network is everything the configuration of the pod network depends on.
type network struct {
	Bridge     string // interface name, at most 15 bytes
	PodCIDRs   []netip.Prefix
	LeaseDir   string // where host-local keeps which pod has which address
	Masquerade bool   // pods reach other networks under the node's address
	HostPorts  bool   // containerPort.hostPort works
	Accept     bool   // the machine drops forwarded packets: let those of pods pass
}

// configuration renders the CNI network list, in version 0.4.0 of the format:
// the plugins of Debian 12 and of Ubuntu 22.04 both read it.
func (n network) configuration() ([]byte, error) {
	var ranges [][]map[string]string
	var routes []map[string]string
	for _, prefix := range n.PodCIDRs {
		ranges = append(ranges, []map[string]string{{"subnet": prefix.Masked().String()}})
		everything := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		if prefix.Addr().Is6() {
			everything = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
		}
		routes = append(routes, map[string]string{"dst": everything.String()})
	}
	plugins := []map[string]any{{
		"type":             "bridge",
		"bridge":           n.Bridge,
		"isGateway":        true,
		"isDefaultGateway": false, // the routes below say it
		"hairpinMode":      true,  // a pod may reach itself through its service
		"ipMasq":           n.Masquerade,
		"ipam":             map[string]any{"type": "host-local", "dataDir": n.LeaseDir, "ranges": ranges, "routes": routes},
	}}
	if n.HostPorts {
		plugins = append(plugins, map[string]any{"type": "portmap", "capabilities": map[string]bool{"portMappings": true}})
	}
	if n.Accept {
		plugins = append(plugins, map[string]any{"type": "firewall", "backend": "iptables"})
	}
	data, err := json.MarshalIndent(map[string]any{"cniVersion": "0.4.0", "name": n.Bridge, "plugins": plugins}, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode the pod network of %s: %w", n.Bridge, err)
	}
	return append(data, '\n'), nil
}

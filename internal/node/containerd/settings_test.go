package containerd

import (
	"encoding/json"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(want) != string(got) {
		t.Errorf("%s differs (go test -update rewrites it):\n%s", path, got)
	}
}

func TestParseRelease(t *testing.T) {
	check := func(output string, want release, fails bool) {
		t.Helper()
		got, err := parseRelease(output)
		if got != want || (err != nil) != fails {
			t.Errorf("%q: got %v, %v", output, got, err)
		}
	}
	check("containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1+deb12u3", release{1, 6}, false)
	check("containerd containerd.io 1.7.27 05044ec0a9a75232cad458027ca83437aae3f4da", release{1, 7}, false)
	check("containerd github.com/containerd/containerd/v2 v2.1.4 75cb2b7193e4e490e9fbdc236c0e811ccaba3376", release{2, 1}, false)
	check("containerd github.com/containerd/containerd/v2 2.0.0-rc.3 abc", release{2, 0}, false)
	check("ctr github.com/containerd/containerd 1.6.20~ds1", release{1, 6}, false)
	check("containerd github.com/containerd/containerd 1.4.13~ds1", release{}, true)
	check("something else", release{}, true)
}

func TestSettings(t *testing.T) {
	for name, r := range map[string]release{"1.6.toml": {1, 6}, "1.7.toml": {1, 7}, "2.0.toml": {2, 0}, "2.1.toml": {2, 1}} {
		data, err := settings{
			Release: r, Root: "/data/images", State: "/run/state", Optional: "/data/opt", Socket: `/run/a "quoted" path.sock`,
			Snapshotter: "overlayfs", Runc: "/usr/sbin/runc", SandboxImage: "timonel.dev/pause:v1",
			PluginDir: "/usr/lib/cni", NetworkDir: "/data/cni", KeepPriority: true, DisabledKinds: []string{"a", "b"},
		}.configuration()
		if err != nil {
			t.Fatal(err)
		}
		golden(t, name, data)
	}
}

func TestNetwork(t *testing.T) {
	full := network{
		Bridge: "tml0", LeaseDir: "/run/state/addresses", Masquerade: true, HostPorts: true, Accept: true,
		PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/24"), netip.MustParsePrefix("fd00:10:244::/64")},
	}
	bare := network{Bridge: "tml1", LeaseDir: "/run/state/addresses", PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.9.8.7/24")}}
	for name, n := range map[string]network{"full.conflist": full, "bare.conflist": bare} {
		data, err := n.configuration()
		if err != nil {
			t.Fatal(err)
		}
		if !json.Valid(data) {
			t.Errorf("%s is not JSON", name)
		}
		golden(t, name, data)
	}
}

// TestLayout keeps the socket within what an address of a unix socket can hold.
func TestLayout(t *testing.T) {
	short := layoutOf("/var/lib/timonel/containerd")
	if short.socket != "/var/lib/timonel/containerd/run/containerd.sock" {
		t.Errorf("got %s", short.socket)
	}
	deep := "/" + strings.Repeat("deep/", 30)
	for _, root := range []string{deep, deep + "er", "/" + strings.Repeat("x", 83)} {
		l := layoutOf(root)
		if len(l.socket+".ttrpc") > maxSocketPath || strings.HasPrefix(l.socket, root) {
			t.Errorf("%s gives %s", root, l.socket)
		}
	}
	if layoutOf(deep).state == layoutOf(deep+"er").state {
		t.Error("two directories share a state directory")
	}
	if longest := layoutOf("/" + strings.Repeat("x", 80)); !strings.HasPrefix(longest.socket, "/x") || len(longest.socket+".ttrpc") != 107 {
		t.Errorf("got %s of %d bytes", longest.socket, len(longest.socket+".ttrpc"))
	}
}

func TestCgroups(t *testing.T) {
	root := func(files map[string]string, dirs ...string) string {
		dir := t.TempDir()
		for _, d := range dirs {
			if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		for name, content := range files {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		return dir
	}
	check := func(what, dir string, want string) {
		t.Helper()
		err := canUseCgroups(dir)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", what, err, want)
		}
	}
	check("version 1", root(nil, "memory"), "")
	check("version 1 without memory", root(nil), "make a control group")
	check("version 2", root(map[string]string{"cgroup.controllers": "cpu memory pids\n", "cgroup.subtree_control": "memory\n"}), "")
	check("version 2, passed on now", root(map[string]string{"cgroup.controllers": "cpu memory pids\n", "cgroup.subtree_control": ""}), "")
	check("version 2 without memory", root(map[string]string{"cgroup.controllers": "cpu pids\n"}), "memory controller")
	check("version 2, not passed on", root(map[string]string{"cgroup.controllers": "memory"}, "cgroup.subtree_control"), "read the controllers")
}

func TestComplaints(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	old := "time=x level=error msg=\"long ago\"\n"
	if err := os.WriteFile(path, []byte(old+"time=x level=info msg=fine\ntime=y level=fatal msg=\"no space\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := complaints(path, int64(len(old))); got != `; it said: time=y level=fatal msg="no space"` {
		t.Errorf("got %q", got)
	}
	if got := complaints(path, 1<<20); got != "" {
		t.Errorf("got %q", got)
	}
}

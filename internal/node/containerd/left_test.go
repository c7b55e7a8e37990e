package containerd

import (
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"testing"
)

// What writeNetwork writes, RemoveLeft reads back.
func TestReadNetwork(t *testing.T) {
	check := func(t *testing.T, want network) {
		t.Helper()
		root := t.TempDir()
		data, err := want.configuration()
		if err != nil {
			t.Fatal(err)
		}
		dir := layoutOf(root).network
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, networkFile), data, 0o600); err != nil {
			t.Fatal(err)
		}
		got := Config{Root: root}
		if err := got.readNetwork(); err != nil {
			t.Fatal(err)
		}
		if got.Bridge != want.Bridge || !reflect.DeepEqual(got.PodCIDRs, want.PodCIDRs) {
			t.Errorf("got %s %v, want %s %v", got.Bridge, got.PodCIDRs, want.Bridge, want.PodCIDRs)
		}
	}
	v4, v6 := netip.MustParsePrefix("10.9.0.0/24"), netip.MustParsePrefix("fd00:9::/64")
	check(t, network{Bridge: "tml9", PodCIDRs: []netip.Prefix{v4}})
	check(t, network{Bridge: "tml9", PodCIDRs: []netip.Prefix{v4, v6}, HostPorts: true, Accept: true, Masquerade: true})
}

func TestRemoveLeftNothing(t *testing.T) {
	root := filepath.Join(t.TempDir(), "none")
	if err := RemoveLeft(t.Context(), root, nil); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(root); !os.IsNotExist(err) {
		t.Errorf("%s was made: %v", root, err)
	}
}

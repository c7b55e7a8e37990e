package containerd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// What a machine lets us do is found out by doing it, at every start: kernels,
// capabilities and filesystems differ between machines and change between boots.

// canOverlay mounts an overlay of directories below dir and takes it off again.
func canOverlay(dir string) error {
	work, err := os.MkdirTemp(dir, "overlay-probe-")
	if err != nil {
		return fmt.Errorf("make a directory to try overlay mounts in: %w", err)
	}
	defer os.RemoveAll(work)
	at := func(name string) string { return filepath.Join(work, name) }
	for _, name := range []string{"lower", "upper", "work", "merged"} {
		if err := os.Mkdir(at(name), 0o700); err != nil {
			return fmt.Errorf("make a directory to try overlay mounts in: %w", err)
		}
	}
	options := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", at("lower"), at("upper"), at("work"))
	if err := unix.Mount("overlay", at("merged"), "overlay", 0, options); err != nil {
		return fmt.Errorf("mount an overlay below %s: %w", dir, err)
	}
	defer unix.Unmount(at("merged"), unix.MNT_DETACH)
	if err := os.WriteFile(at("merged/file"), nil, 0o600); err != nil {
		return fmt.Errorf("write through an overlay below %s: %w", dir, err)
	}
	return nil
}

// canLowerOOMScore reports whether this process may become less likely to be
// killed when memory runs out, which needs CAP_SYS_RESOURCE. It leaves the score
// as it was.
func canLowerOOMScore() bool {
	const path = "/proc/self/oom_score_adj"
	data, err := os.ReadFile(path)
	if err != nil {
		return false
	}
	score, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		return false
	}
	if score <= -1000 {
		return true // nothing is lower
	}
	if err := os.WriteFile(path, []byte(strconv.Itoa(score-1)), 0); err != nil {
		return false
	}
	os.WriteFile(path, data, 0)
	return true
}

// canBridge makes a bridge and removes it.
func canBridge() error {
	link := &netlink.Bridge{LinkAttrs: netlink.NewLinkAttrs()}
	link.Name = fmt.Sprintf("tmlprobe%d", os.Getpid()%1_000_000)
	if err := netlink.LinkAdd(link); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("make a network bridge: %w", err)
	}
	if err := netlink.LinkDel(link); err != nil {
		return fmt.Errorf("remove the network bridge %s: %w", link.Name, err)
	}
	return nil
}

// lockDirectory is where processes agree on who uses a bridge.
const lockDirectory = "/run/timonel"

// claimBridge makes sure that no other cluster gives out addresses on a bridge:
// one that runs holds a lock, one that has ended may have left its pods running,
// whose addresses are then not among ours. The lock names the directory of the cluster that
// used the bridge last; it is nil on machines without a /run to write to.
func claimBridge(name, root, addresses string) (*os.File, error) {
	var lock *os.File
	if err := os.MkdirAll(lockDirectory, 0o711); err == nil {
		if lock, err = lockFile(filepath.Join(lockDirectory, "bridge-"+name)); err != nil {
			return nil, fmt.Errorf("use the bridge %s for pods: %w: choose another bridge and another pod network", name, err)
		}
	}
	ports, err := bridgePorts(name)
	if err != nil {
		return lock, err
	}
	if leases, _ := filepath.Glob(filepath.Join(addresses, "[0-9a-f]*")); ports > 0 && len(leases) == 0 {
		return lock, fmt.Errorf("use the bridge %s for pods: pods of another cluster%s hang on it: remove them (timonel down), or choose another bridge and another pod network", name, lastUser(lock))
	}
	if lock != nil {
		if err := os.WriteFile(lock.Name(), []byte(root), 0o600); err != nil {
			return lock, fmt.Errorf("note who uses the bridge %s: %w", name, err)
		}
	}
	return lock, nil
}

// lastUser says whose pods hang on a bridge, if its lock tells.
func lastUser(lock *os.File) string {
	if lock == nil {
		return ""
	}
	root, err := os.ReadFile(lock.Name())
	if err != nil || len(root) == 0 {
		return ""
	}
	return ", of " + string(root) + ","
}

// bridgePorts counts the interfaces of a bridge; a bridge that is not there has none.
func bridgePorts(name string) (int, error) {
	bridge, err := netlink.LinkByName(name)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("look for the bridge %s: %w", name, err)
	}
	links, err := netlink.LinkList()
	if err != nil {
		return 0, fmt.Errorf("list network interfaces: %w", err)
	}
	ports := 0
	for _, link := range links {
		if link.Attrs().MasterIndex == bridge.Attrs().Index {
			ports++
		}
	}
	return ports, nil
}

// canUseCgroups makes a control group where containers will have theirs, with
// a limit on memory within reach.
func canUseCgroups(root string) error {
	parent := filepath.Join(root, "memory") // version 1: one tree for each controller
	unified, err := os.ReadFile(filepath.Join(root, "cgroup.controllers"))
	if err == nil {
		parent = root
		if !slices.Contains(strings.Fields(string(unified)), "memory") {
			return errors.New("the memory controller of control groups is not available")
		}
		passed, err := os.ReadFile(filepath.Join(root, "cgroup.subtree_control"))
		if err != nil {
			return fmt.Errorf("read the controllers of control groups: %w", err)
		}
		if !slices.Contains(strings.Fields(string(passed)), "memory") {
			// Fails in a container whose processes sit at the root of its control groups.
			if err := os.WriteFile(filepath.Join(root, "cgroup.subtree_control"), []byte("+memory"), 0); err != nil {
				return fmt.Errorf("pass the memory controller on to control groups of containers: %w", err)
			}
		}
	}
	dir := filepath.Join(parent, "timonel-probe-"+strconv.Itoa(os.Getpid()))
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("make a control group for containers: %w", err)
	}
	if err := os.Remove(dir); err != nil {
		return fmt.Errorf("remove the control group %s: %w", dir, err)
	}
	return nil
}

// packetRules is what iptables on this machine can do.
type packetRules struct {
	masquerade bool // translate source addresses
	hostPorts  bool // translate destination addresses as the portmap plugin does
	drops      bool // forwarded packets are dropped unless a rule accepts them
}

// tryIptables loads the kinds of rule that the plugins use into a chain of its
// own that no packet passes, and removes the chain.
func tryIptables(ctx context.Context) (packetRules, error) {
	program, err := lookup("iptables")
	if err != nil {
		return packetRules{}, err
	}
	run := func(args ...string) (string, error) {
		out, err := exec.CommandContext(ctx, program, append([]string{"-w", "5"}, args...)...).CombinedOutput()
		if err != nil {
			return "", fmt.Errorf("iptables %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
		}
		return string(out), nil
	}
	chain := fmt.Sprintf("TML-PROBE-%d", os.Getpid())
	if _, err := run("-t", "nat", "-N", chain); err != nil {
		return packetRules{}, err
	}
	defer func() {
		run("-t", "nat", "-F", chain)
		run("-t", "nat", "-X", chain)
	}()
	var rules packetRules
	_, err = run("-t", "nat", "-A", chain, "-d", "10.244.0.0/24", "-m", "comment", "--comment", "probe", "-j", "MASQUERADE")
	rules.masquerade = err == nil
	rules.hostPorts = rules.masquerade
	for _, rule := range []string{
		"-p tcp -m multiport --destination-ports 80,443 -m comment --comment probe -j RETURN",
		"-m addrtype --dst-type LOCAL -j RETURN",
		"-p tcp --dport 80 -j DNAT --to-destination 10.244.0.2:80",
		"-m mark --mark 0x2000/0x2000 -j MASQUERADE",
		"-j MARK --set-xmark 0x2000/0x2000",
	} {
		if !rules.hostPorts {
			break
		}
		_, err = run(append([]string{"-t", "nat", "-A", chain}, strings.Fields(rule)...)...)
		rules.hostPorts = err == nil
	}
	if policy, policyErr := run("-S", "FORWARD"); policyErr == nil {
		rules.drops = strings.Contains(policy, "-P FORWARD DROP")
	}
	return rules, err
}

package node

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	v1 "k8s.io/api/core/v1"
)

const (
	driverCgroupfs = "cgroupfs"
	driverSystemd  = "systemd"
)

// podCgroups gives each pod a cgroup of its own, as a kubelet does:
// <parent>/[burstable/|besteffort/]pod<uid>. The runtime makes it when it
// makes the sandbox in it; limits of the pod as a whole are written here when
// the driver is cgroupfs. With the systemd driver the slices are named and
// systemd, through the runtime, makes them.
//
// Without a parent in the configuration all this is left to the runtime.
type podCgroups struct {
	parent  string
	driver  string
	cgroup2 bool
}

func newPodCgroups(cfg *Config, cgroup2 bool) *podCgroups {
	return &podCgroups{parent: cfg.CgroupParent, driver: cfg.CgroupDriver, cgroup2: cgroup2}
}

// path is the pod's cgroup as the runtime is told it; empty: its default.
func (g *podCgroups) path(pod *v1.Pod) string {
	if g.parent == "" {
		return ""
	}
	class := map[v1.PodQOSClass]string{v1.PodQOSBurstable: "burstable", v1.PodQOSBestEffort: "besteffort"}[qosOf(pod)]
	if g.driver == driverSystemd {
		name := strings.Trim(strings.ReplaceAll(g.parent, "/", "-"), "-")
		name = strings.TrimSuffix(name, ".slice")
		if class != "" {
			name += "-" + class
		}
		return name + "-pod" + strings.ReplaceAll(string(pod.UID), "-", "_") + ".slice"
	}
	return path.Join("/", g.parent, class, "pod"+string(pod.UID))
}

// make prepares the pod's cgroup and returns its path.
func (g *podCgroups) make(pod *v1.Pod) (string, error) {
	at := g.path(pod)
	if at == "" || g.driver == driverSystemd {
		return at, nil
	}
	requests, limits := podRequests(pod), podLimits(pod)
	shares, quota, memory := sharesOf(requests.Cpu().MilliValue()), quotaOf(limits.Cpu().MilliValue()), limits.Memory().Value()
	if g.cgroup2 {
		return at, g.write2(at, shares, quota, memory)
	}
	return at, errors.Join(
		g.write1("cpu", at, "cpu.shares", fmt.Sprint(shares)),
		g.write1If(quota > 0, "cpu", at, "cpu.cfs_quota_us", fmt.Sprint(quota)),
		g.write1If(memory > 0, "memory", at, "memory.limit_in_bytes", fmt.Sprint(memory)),
	)
}

const cgroupRoot = "/sys/fs/cgroup"

func (g *podCgroups) write1If(wanted bool, controller, at, file, value string) error {
	if !wanted {
		return nil
	}
	return g.write1(controller, at, file, value)
}

func (g *podCgroups) write1(controller, at, file, value string) error {
	dir := filepath.Join(cgroupRoot, controller, at)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make pod cgroup: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, file), []byte(value), 0o644); err != nil {
		return fmt.Errorf("limit pod cgroup: %w", err)
	}
	return nil
}

// write2 makes a cgroup of version 2, with the controllers it needs enabled on
// the way down.
func (g *podCgroups) write2(at string, shares, quota, memory int64) error {
	dir := cgroupRoot
	for _, part := range strings.Split(strings.Trim(at, "/"), "/") {
		for _, controller := range []string{"+cpu", "+memory", "+pids"} {
			// A controller the machine lacks is no reason not to run the pod.
			_ = os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte(controller), 0o644)
		}
		dir = filepath.Join(dir, part)
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			return fmt.Errorf("make pod cgroup: %w", err)
		}
	}
	write := func(file, value string) error {
		err := os.WriteFile(filepath.Join(dir, file), []byte(value), 0o644)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("limit pod cgroup: %w", err)
		}
		return nil
	}
	// The conversion the runtimes use: [2, 262144] onto [1, 10000].
	weight := 1 + (shares-2)*9999/262142
	err := write("cpu.weight", fmt.Sprint(weight))
	if quota > 0 {
		err = errors.Join(err, write("cpu.max", fmt.Sprintf("%d %d", quota, quotaPeriod)))
	}
	if memory > 0 {
		err = errors.Join(err, write("memory.max", fmt.Sprint(memory)))
	}
	return err
}

// remove takes the pod's cgroup away, once it is empty.
func (g *podCgroups) remove(pod *v1.Pod) error {
	at := g.path(pod)
	if at == "" || g.driver == driverSystemd {
		return nil
	}
	roots := []string{cgroupRoot}
	if !g.cgroup2 {
		entries, err := os.ReadDir(cgroupRoot)
		if err != nil {
			return err
		}
		roots = nil
		for _, entry := range entries {
			roots = append(roots, filepath.Join(cgroupRoot, entry.Name()))
		}
	}
	var errs []error
	for _, root := range roots {
		if err := os.Remove(filepath.Join(root, at)); err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, os.ErrPermission) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

package node

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"golang.org/x/sys/unix"
)

// machine is what the agent found out about its machine at start.
type machine struct {
	cpus        int
	memory      int64 // bytes
	swap        int64 // bytes
	cgroup2     bool
	capacity    v1.ResourceList
	allocatable v1.ResourceList
	info        v1.NodeSystemInfo
	hostname    string
}

// Thresholds below which Kubernetes calls a node under pressure (the default
// hard eviction thresholds). What lies below is not promised to pods.
const (
	memoryThreshold = 100 << 20
	diskThreshold   = 10 // percent of the file system
	inodeThreshold  = 5  // percent of its inodes
	pidThreshold    = 5  // percent of the kernel's process ids
)

func readMachine(cfg *Config) (machine, error) {
	m := machine{cpus: runtime.NumCPU()}
	memory, err := readMeminfo("MemTotal", "SwapTotal")
	if err != nil {
		return m, err
	}
	m.memory, m.swap = memory["MemTotal"], memory["SwapTotal"]
	disk, err := readDisk(cfg.DataDir)
	if err != nil {
		return m, err
	}
	m.cgroup2 = isCgroup2("/sys/fs/cgroup")
	m.capacity = v1.ResourceList{
		v1.ResourceCPU:              *resource.NewQuantity(int64(m.cpus), resource.DecimalSI),
		v1.ResourceMemory:           *resource.NewQuantity(m.memory, resource.BinarySI),
		v1.ResourceEphemeralStorage: *resource.NewQuantity(disk.size, resource.BinarySI),
		v1.ResourcePods:             *resource.NewQuantity(int64(cfg.MaxPods), resource.DecimalSI),
	}
	m.allocatable = m.capacity.DeepCopy()
	subtract := func(name v1.ResourceName, quantity resource.Quantity) {
		left := m.allocatable[name]
		left.Sub(quantity)
		if left.Sign() < 0 {
			left = resource.Quantity{}
		}
		m.allocatable[name] = left
	}
	subtract(v1.ResourceMemory, *resource.NewQuantity(memoryThreshold, resource.BinarySI))
	subtract(v1.ResourceEphemeralStorage, *resource.NewQuantity(disk.size*diskThreshold/100, resource.BinarySI))
	for name, quantity := range cfg.Reserved {
		if _, ok := m.allocatable[name]; ok {
			subtract(name, quantity)
		}
	}

	m.hostname, _ = os.Hostname()
	m.info = v1.NodeSystemInfo{
		MachineID:       firstLine("/etc/machine-id", "/var/lib/dbus/machine-id"),
		SystemUUID:      firstLine("/sys/class/dmi/id/product_uuid", "/etc/machine-id"),
		BootID:          firstLine("/proc/sys/kernel/random/boot_id"),
		KernelVersion:   firstLine("/proc/sys/kernel/osrelease"),
		OSImage:         osImage(),
		KubeletVersion:  cfg.Version,
		OperatingSystem: runtime.GOOS,
		Architecture:    runtime.GOARCH,
	}
	if m.swap > 0 {
		m.info.Swap = &v1.NodeSwapStatus{Capacity: &m.swap}
	}
	return m, nil
}

func firstLine(files ...string) string {
	for _, file := range files {
		if b, err := os.ReadFile(file); err == nil {
			line, _, _ := strings.Cut(string(b), "\n")
			if line = strings.TrimSpace(line); line != "" {
				return line
			}
		}
	}
	return ""
}

func osImage() string {
	for _, file := range []string{"/etc/os-release", "/usr/lib/os-release"} {
		b, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		for _, line := range strings.Split(string(b), "\n") {
			if value, ok := strings.CutPrefix(line, "PRETTY_NAME="); ok {
				return strings.Trim(value, `"'`)
			}
		}
	}
	return "Linux"
}

// readMeminfo reads fields of /proc/meminfo, in bytes.
func readMeminfo(names ...string) (map[string]int64, error) {
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return nil, fmt.Errorf("read memory: %w", err)
	}
	out := map[string]int64{}
	for lines := bufio.NewScanner(bytes.NewReader(b)); lines.Scan(); {
		name, rest, _ := strings.Cut(lines.Text(), ":")
		for _, want := range names {
			if name == want {
				n, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
				if err != nil {
					return nil, fmt.Errorf("read memory: %w", err)
				}
				out[name] = n << 10
			}
		}
	}
	return out, nil
}

type disk struct {
	size, free         int64 // bytes
	inodes, freeInodes int64
}

// readDisk measures the file system of a directory, or of the nearest parent
// that exists.
func readDisk(dir string) (disk, error) {
	var st unix.Statfs_t
	for {
		err := unix.Statfs(dir, &st)
		if err == nil {
			break
		}
		if parent := filepath.Dir(dir); err == unix.ENOENT && parent != dir {
			dir = parent
			continue
		}
		return disk{}, fmt.Errorf("measure file system of %s: %w", dir, err)
	}
	return disk{
		size: int64(st.Blocks) * int64(st.Frsize), free: int64(st.Bavail) * int64(st.Frsize),
		inodes: int64(st.Files), freeInodes: int64(st.Ffree),
	}, nil
}

func isCgroup2(dir string) bool {
	var st unix.Statfs_t
	return unix.Statfs(dir, &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC
}

// pressure is what the machine runs short of.
type pressure struct{ memory, disk, pids bool }

func readPressure(dir string) pressure {
	var p pressure
	if memory, err := readMeminfo("MemAvailable"); err == nil && memory["MemAvailable"] > 0 {
		p.memory = memory["MemAvailable"] < memoryThreshold
	}
	if d, err := readDisk(dir); err == nil {
		p.disk = d.size > 0 && d.free*100 < d.size*diskThreshold ||
			d.inodes > 0 && d.freeInodes*100 < d.inodes*inodeThreshold
	}
	var info unix.Sysinfo_t
	if limit, err := strconv.ParseInt(firstLine("/proc/sys/kernel/pid_max"), 10, 64); err == nil && unix.Sysinfo(&info) == nil {
		p.pids = (limit-int64(info.Procs))*100 < limit*pidThreshold
	}
	return p
}

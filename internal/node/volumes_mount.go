package node

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	pathrs "github.com/cyphar/filepath-securejoin/pathrs-lite"
	v1 "k8s.io/api/core/v1"

	"golang.org/x/sys/unix"
)

// mountTmpfs puts a memory file system on dir, so that secrets never reach a
// disk. Where mounting is not permitted the directory stays, closed to others
// by its parent.
func mountTmpfs(dir string, size int64, mode uint32) error {
	mounted, err := isMountPoint(dir)
	if err != nil || mounted {
		return err
	}
	err = requireTmpfs(dir, size, mode)
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		return nil
	}
	return err
}

func requireTmpfs(dir string, size int64, mode uint32) error {
	options := fmt.Sprintf("mode=%o", mode)
	if size > 0 {
		options += ",size=" + strconv.FormatInt(size, 10)
	}
	// noswap keeps secrets off the disk on kernels that know it (6.3 and later).
	err := unix.Mount("tmpfs", dir, "tmpfs", 0, options+",noswap")
	if errors.Is(err, unix.EINVAL) {
		err = unix.Mount("tmpfs", dir, "tmpfs", 0, options)
	}
	if err != nil {
		return fmt.Errorf("mount tmpfs on %s: %w", dir, err)
	}
	return nil
}

// mountPoints lists the mount points below dir (and dir itself), the latest
// mount first.
func mountPoints(dir string) ([]string, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("list mounts: %w", err)
	}
	defer f.Close()
	var points []string
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 5 {
			continue
		}
		point := unescapeMount(fields[4])
		if point == dir || strings.HasPrefix(point, dir+"/") {
			points = append(points, point)
		}
	}
	for i, j := 0, len(points)-1; i < j; i, j = i+1, j-1 {
		points[i], points[j] = points[j], points[i]
	}
	return points, lines.Err()
}

// unescapeMount decodes the octal escapes of mountinfo (proc(5)).
func unescapeMount(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

func isMountPoint(dir string) (bool, error) {
	points, err := mountPoints(dir)
	if err != nil {
		return false, err
	}
	for _, point := range points {
		if point == dir {
			return true, nil
		}
	}
	return false, nil
}

// UnmountVolumes takes off the volumes of pods that an agent with this data directory left mounted,
// so that the directory can be deleted. The pods must have ended.
func UnmountVolumes(dataDir string) error {
	dir, err := filepath.Abs(filepath.Join(dataDir, "pods"))
	if err != nil {
		return fmt.Errorf("locate the volumes: %w", err)
	}
	return unmountBelow(dir)
}

// unmountBelow unmounts everything at and below dir, and fails when something
// stays mounted, so that nobody deletes files through a mount.
func unmountBelow(dir string) error {
	points, err := mountPoints(dir)
	if err != nil {
		return err
	}
	for _, point := range points {
		if err := unix.Unmount(point, unix.UMOUNT_NOFOLLOW); err != nil {
			// Something still looks at it; detach, it goes with the last user.
			if err := unix.Unmount(point, unix.UMOUNT_NOFOLLOW|unix.MNT_DETACH); err != nil {
				return fmt.Errorf("unmount %s: %w", point, err)
			}
		}
	}
	if points, err = mountPoints(dir); err != nil {
		return err
	}
	if len(points) > 0 {
		return fmt.Errorf("%s is still mounted", points[0])
	}
	return nil
}

// subPath makes one path inside a volume mountable by itself and returns where
// it is. The path is resolved inside the volume, whatever links a container
// may have put there, and pinned by a bind mount so that it cannot be
// exchanged before the runtime mounts it.
func (s *volumeSet) subPath(volume, volumePath, container string, index int, path string) (string, error) {
	info, err := os.Stat(volumePath)
	if err != nil {
		return "", err
	}
	target := filepath.Join(s.dir, "volume-subpaths", volume, container, strconv.Itoa(index))

	handle, err := pathrs.OpenInRoot(volumePath, path)
	if errors.Is(err, os.ErrNotExist) {
		if err := pathrs.MkdirAll(volumePath, path, info.Mode().Perm()); err != nil {
			return "", fmt.Errorf("create subPath %q: %w", path, err)
		}
		handle, err = pathrs.OpenInRoot(volumePath, path)
	}
	if err != nil {
		return "", fmt.Errorf("open subPath %q: %w", path, err)
	}
	defer handle.Close()
	at, err := handle.Stat()
	if err != nil {
		return "", err
	}

	if err := unmountBelow(target); err != nil {
		return "", err
	}
	_ = os.Remove(target)
	if at.IsDir() {
		err = os.MkdirAll(target, 0o750)
	} else if err = os.MkdirAll(filepath.Dir(target), 0o750); err == nil {
		err = os.WriteFile(target, nil, 0o640)
	}
	if err != nil {
		return "", err
	}
	if err := unix.Mount("/proc/self/fd/"+strconv.Itoa(int(handle.Fd())), target, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return "", fmt.Errorf("bind subPath %q: %w", path, err)
	}
	return target, nil
}

// fsGroupOf is the group that shares the pod's volumes, if any.
func fsGroupOf(pod *v1.Pod) *int64 {
	if pod.Spec.SecurityContext == nil {
		return nil
	}
	return pod.Spec.SecurityContext.FSGroup
}

// giveToGroup hands a volume's files to the pod's fsGroup: readable by it, and
// writable unless readOnly; new files inherit the group.
func giveToGroup(dir string, group *int64, readOnly bool) error {
	if group == nil {
		return nil
	}
	return filepath.Walk(dir, func(name string, info os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		if err := os.Lchown(name, -1, int(*group)); err != nil {
			return err
		}
		if info.Mode()&os.ModeSymlink != 0 {
			return nil
		}
		mode := info.Mode()
		if readOnly {
			mode |= 0o440
		} else {
			mode |= 0o660
		}
		if info.IsDir() {
			mode |= os.ModeSetgid | 0o110
		}
		return os.Chmod(name, mode)
	})
}

//go:build containers

package node

import (
	"os"
	"path/filepath"
	"testing"

	v1 "k8s.io/api/core/v1"

	"golang.org/x/sys/unix"
)

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("needs root, to mount and to change owners")
	}
}

// A subPath stays inside its volume whatever links a container put there.
func TestSubPath(t *testing.T) {
	needRoot(t)
	dir, volume, secret := t.TempDir(), t.TempDir(), t.TempDir()
	s := &volumeSet{dir: dir}
	t.Cleanup(func() {
		if err := s.unmount(); err != nil {
			t.Error(err)
		}
	})
	if err := os.WriteFile(filepath.Join(secret, "shadow"), []byte("host"), 0o600); err != nil {
		t.Fatal(err)
	}
	for link, target := range map[string]string{"abs": secret, "up": "../../../../.." + secret} {
		if err := os.Symlink(target, filepath.Join(volume, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(volume, "file"), []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	at, err := s.subPath("v", volume, "c", 0, "file")
	if err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(at); err != nil || string(b) != "mine" {
		t.Errorf("%q %v", b, err)
	}
	at, err = s.subPath("v", volume, "c", 1, "new/dir")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(at, "x"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(volume, "new/dir/x")); err != nil {
		t.Errorf("not bound: %v", err)
	}
	for i, path := range []string{"abs/shadow", "up/shadow"} {
		at, err := s.subPath("v", volume, "c", 2+i, path)
		if err != nil {
			continue
		}
		if b, err := os.ReadFile(at); err == nil {
			t.Errorf("%s leads out of the volume: %q", path, b)
		}
	}
	// Again after a restart: bound anew, not on top.
	if _, err := s.subPath("v", volume, "c", 0, "file"); err != nil {
		t.Fatal(err)
	}
	points, err := mountPoints(filepath.Join(dir, "volume-subpaths/v/c/0"))
	if err != nil || len(points) != 1 {
		t.Errorf("mount points %v %v", points, err)
	}
}

func TestMemoryVolumes(t *testing.T) {
	needRoot(t)
	group := int64(4242)
	pod := &v1.Pod{Spec: v1.PodSpec{SecurityContext: &v1.PodSecurityContext{FSGroup: &group}, Containers: []v1.Container{wants("c", "", "memory=8Mi")}}}
	s := &volumeSet{dir: t.TempDir(), pod: func() *v1.Pod { return pod }, facts: func() podFacts { return podFacts{} }, objects: someObjects}
	path := filepath.Join(s.dir, "volumes/m")
	source := &v1.EmptyDirVolumeSource{Medium: v1.StorageMediumMemory}
	for range 2 { // the second time it is there
		if err := s.mountEmptyDir(path, source); err != nil {
			t.Fatal(err)
		}
	}
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil || st.Type != unix.TMPFS_MAGIC || int64(st.Blocks)*st.Bsize != 8<<20 {
		t.Errorf("file system %x of %d bytes, %v", st.Type, int64(st.Blocks)*st.Bsize, err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().String() != "dgrwxrwxrwx" {
		t.Errorf("mode %v %v", info.Mode(), err)
	}
	if err := s.unmount(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("the volume is left: %v", err)
	}
}

// Deleting a pod's files stops at mounts that cannot be undone, it never
// deletes through them.
func TestUnmountBelow(t *testing.T) {
	needRoot(t)
	outside, dir := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "precious"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	inside := filepath.Join(dir, "volumes/a b")
	if err := os.MkdirAll(inside, 0o755); err != nil {
		t.Fatal(err)
	}
	for range 2 { // stacked
		if err := unix.Mount(outside, inside, "", unix.MS_BIND, ""); err != nil {
			t.Fatal(err)
		}
	}
	s := &volumeSet{dir: dir}
	if err := s.unmount(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(outside, "precious")); err != nil {
		t.Fatalf("deleted through a mount: %v", err)
	}
}

//go:build containers

// Package nodetest starts a private containerd with CNI and two small images
// for tests that run real containers. It needs root, containerd, runc and the
// CNI plug-ins, and fails, not skips, when they are missing: who asks for the
// build tag containers wants the containers.
package nodetest

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/timonel/timonel/internal/node/cri"
)

// The images: the same program, as pause and as toolbox.
const (
	PauseImage   = "timonel.test/pause:1"
	ToolboxImage = "timonel.test/toolbox:1"
)

// Containerd is one private containerd.
type Containerd struct {
	Socket string
	Dir    string

	config string
	bridge string
	mu     sync.Mutex
	cmd    *exec.Cmd
}

// Start brings up a containerd that ends with the test, and everything it ran.
func Start(t testing.TB) *Containerd {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("container tests need root")
	}
	for _, program := range []string{"containerd", "ctr", "runc", "containerd-shim-runc-v2"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Fatalf("container tests need %s: %v", program, err)
		}
	}
	cni := cniBinaries(t)
	dir, err := os.MkdirTemp("/tmp", "node-ctd-")
	if err != nil {
		t.Fatal(err)
	}
	c := &Containerd{Dir: dir, Socket: filepath.Join(dir, "c.sock"), bridge: "nt" + fmt.Sprint(os.Getpid()%1000000) + dir[len(dir)-3:]}
	subnet := fmt.Sprintf("10.%d.%d.0/24", 200+os.Getpid()%50, int(dir[len(dir)-1])+int(dir[len(dir)-2]))
	c.config = filepath.Join(dir, "config.toml")
	write(t, c.config, fmt.Sprintf(`version = 2
root = "%[1]s/root"
state = "%[1]s/state"
[grpc]
  address = "%[2]s"
[ttrpc]
  address = "%[2]s.ttrpc"
[plugins."io.containerd.internal.v1.opt"]
  path = "%[1]s/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "%[3]s"
  restrict_oom_score_adj = true
  stream_server_address = "127.0.0.1"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "%[4]s"
    conf_dir = "%[1]s/cni"
`, dir, c.Socket, PauseImage, cni))
	write(t, filepath.Join(dir, "cni", "10-bridge.conflist"), fmt.Sprintf(`{"cniVersion":"0.4.0","name":"nodetest","plugins":[
{"type":"bridge","bridge":"%s","isGateway":true,"ipMasq":false,"hairpinMode":true,
 "ipam":{"type":"host-local","dataDir":"%s/ipam","ranges":[[{"subnet":"%s"}]],"routes":[{"dst":"0.0.0.0/0"}]}}]}`, c.bridge, dir, subnet))
	t.Cleanup(func() { c.remove(t) })
	c.Up(t)
	c.importImages(t)
	return c
}

// Up starts the daemon and waits until its CRI answers.
func (c *Containerd) Up(t testing.TB) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	log, err := os.OpenFile(filepath.Join(c.Dir, "containerd.log"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	c.cmd = exec.Command("containerd", "-c", c.config)
	c.cmd.Stdout, c.cmd.Stderr = log, log
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := c.cmd.Start(); err != nil {
		t.Fatalf("start containerd: %v", err)
	}
	client, err := cri.New(c.Socket)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	up := make(chan struct{}, 1)
	go client.Watch(ctx, discard, func(e cri.Event) {
		if e.Type == cri.Connected {
			select {
			case up <- struct{}{}:
			default:
			}
		}
	})
	select {
	case <-up:
	case <-ctx.Done():
		b, _ := os.ReadFile(filepath.Join(c.Dir, "containerd.log"))
		t.Fatalf("containerd did not come up:\n%s", b[max(0, len(b)-4000):])
	}
}

// Down stops the daemon; containers keep running under their shims.
func (c *Containerd) Down(t testing.TB) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cmd == nil {
		return
	}
	_ = c.cmd.Process.Signal(syscall.SIGTERM)
	done := make(chan struct{})
	go func() { _ = c.cmd.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		_ = c.cmd.Process.Kill()
		<-done
	}
	c.cmd = nil
}

// Ctr runs ctr against this containerd in the CRI's namespace.
func (c *Containerd) Ctr(args ...string) (string, error) {
	out, err := exec.Command("ctr", append([]string{"-a", c.Socket, "-n", "k8s.io"}, args...)...).CombinedOutput()
	return string(out), err
}

func (c *Containerd) remove(t testing.TB) {
	c.mu.Lock()
	running := c.cmd != nil
	c.mu.Unlock()
	if !running {
		c.Up(t)
	}
	c.removeSandboxes(t)
	c.Down(t)
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	lines := strings.Split(string(mounts), "\n")
	for i := len(lines) - 1; i >= 0; i-- {
		if fields := strings.Fields(lines[i]); len(fields) > 4 && strings.HasPrefix(fields[4], c.Dir+"/") {
			_ = syscall.Unmount(fields[4], syscall.MNT_DETACH)
		}
	}
	_ = exec.Command("ip", "link", "del", c.bridge).Run()
	if t.Failed() && os.Getenv("KEEP") != "" {
		t.Logf("kept %s", c.Dir)
		return
	}
	if err := os.RemoveAll(c.Dir); err != nil {
		t.Logf("remove %s: %v", c.Dir, err)
	}
}

func cniBinaries(t testing.TB) string {
	for _, dir := range []string{"/usr/lib/cni", "/opt/cni/bin", "/usr/libexec/cni"} {
		if _, err := os.Stat(filepath.Join(dir, "bridge")); err == nil {
			return dir
		}
	}
	t.Fatal("container tests need the CNI plug-ins (bridge, host-local, loopback)")
	return ""
}

func write(t testing.TB, file, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func (c *Containerd) importImages(t testing.TB) {
	t.Helper()
	binary := filepath.Join(c.Dir, "toolbox")
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", binary, "github.com/timonel/timonel/internal/node/nodetest/toolbox")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build toolbox: %v\n%s", err, out)
	}
	program, err := os.ReadFile(binary)
	if err != nil {
		t.Fatal(err)
	}
	c.Import(t, PauseImage, Image(t, program, "", []string{"/toolbox", "pause"}))
	c.Import(t, ToolboxImage, Image(t, program, "", []string{"/toolbox"}))
	c.Import(t, "timonel.test/named-user:1", Image(t, program, "nobody", []string{"/toolbox"}))
}

// Import loads an image into this containerd under a name.
func (c *Containerd) Import(t testing.TB, ref string, image v1.Image) {
	t.Helper()
	tag, err := name.NewTag(ref)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(c.Dir, "image.tar")
	if err := tarball.WriteToFile(file, tag, image); err != nil {
		t.Fatal(err)
	}
	if out, err := c.Ctr("images", "import", "--snapshotter", "overlayfs", file); err != nil {
		t.Fatalf("import %s: %v\n%s", ref, err, out)
	}
}

// Image makes a one-layer image of the program as /toolbox.
func Image(t testing.TB, program []byte, user string, entrypoint []string) v1.Image {
	t.Helper()
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	add := func(h tar.Header, content []byte) {
		h.Size = int64(len(content))
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(content); err != nil {
			t.Fatal(err)
		}
	}
	add(tar.Header{Name: "tmp/", Typeflag: tar.TypeDir, Mode: 0o1777}, nil)
	add(tar.Header{Name: "etc/", Typeflag: tar.TypeDir, Mode: 0o755}, nil)
	add(tar.Header{Name: "etc/passwd", Typeflag: tar.TypeReg, Mode: 0o644}, []byte("root:x:0:0:root:/:/toolbox\nnobody:x:65534:65534:nobody:/:/toolbox\n"))
	add(tar.Header{Name: "toolbox", Typeflag: tar.TypeReg, Mode: 0o755}, program)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	l, err := tarball.LayerFromReader(&layer)
	if err != nil {
		t.Fatal(err)
	}
	image, err := mutate.AppendLayers(empty.Image, l)
	if err != nil {
		t.Fatal(err)
	}
	config, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", goarch
	config.Config.Entrypoint = entrypoint
	config.Config.User = user
	config.Config.Env = []string{"PATH=/"}
	image, err = mutate.ConfigFile(image, config)
	if err != nil {
		t.Fatal(err)
	}
	return image
}

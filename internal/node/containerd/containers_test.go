//go:build containers

// These tests run real containers: they need root and the packages that Missing
// names. go test -tags containers ./internal/node/containerd/

package containerd

import (
	"context"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/timonel/timonel/internal/node/containerd/pause"
)

func testConfig(t *testing.T) Config {
	t.Helper()
	if hint := Hint(); hint != "" {
		t.Skip(hint)
	}
	root, err := os.MkdirTemp("/tmp", "containerd-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(root); err != nil {
			t.Errorf("the directory cannot be removed: %v", err)
		}
	})
	return Config{
		Root: root, Bridge: "tmltest0", PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.251.7.0/24")},
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
}

func mustStart(t *testing.T, config Config) (*Runtime, runtimeapi.RuntimeServiceClient) {
	t.Helper()
	begin := time.Now()
	r, err := Start(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("started in %v, adopted: %v", time.Since(begin).Round(time.Millisecond), r.Adopted())
	conn, err := Dial(r.Endpoint())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return r, runtimeapi.NewRuntimeServiceClient(conn)
}

func sandboxConfig(name, logs string) *runtimeapi.PodSandboxConfig {
	return &runtimeapi.PodSandboxConfig{
		Metadata:     &runtimeapi.PodSandboxMetadata{Name: name, Namespace: "default", Uid: name + "-uid"},
		Hostname:     name,
		LogDirectory: logs,
		Linux:        &runtimeapi.LinuxPodSandboxConfig{},
	}
}

// TestLife runs a pod over everything that may happen to its runtime.
func TestLife(t *testing.T) {
	config := testConfig(t)
	r, client := mustStart(t, config)
	for _, note := range r.Notes() {
		t.Log("note:", note)
	}

	pod := sandboxConfig("life", filepath.Join(config.Root, "logs"))
	sandbox, err := client.RunPodSandbox(t.Context(), &runtimeapi.RunPodSandboxRequest{Config: pod})
	if err != nil {
		t.Fatal(err)
	}
	status, err := client.PodSandboxStatus(t.Context(), &runtimeapi.PodSandboxStatusRequest{PodSandboxId: sandbox.PodSandboxId})
	if err != nil {
		t.Fatal(err)
	}
	if ip := status.GetStatus().GetNetwork().GetIp(); !strings.HasPrefix(ip, "10.251.7.") {
		t.Errorf("the pod has address %q, want one of its network", ip)
	}
	created, err := client.CreateContainer(t.Context(), &runtimeapi.CreateContainerRequest{
		PodSandboxId: sandbox.PodSandboxId, SandboxConfig: pod,
		Config: &runtimeapi.ContainerConfig{
			Metadata: &runtimeapi.ContainerMetadata{Name: "main"},
			Image:    &runtimeapi.ImageSpec{Image: pause.Image},
			LogPath:  "main.log",
			Linux:    &runtimeapi.LinuxContainerConfig{Resources: &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 32 << 20, OomScoreAdj: 1000}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.StartContainer(t.Context(), &runtimeapi.StartContainerRequest{ContainerId: created.ContainerId}); err != nil {
		t.Fatal(err)
	}
	running := func(client runtimeapi.RuntimeServiceClient) {
		t.Helper()
		status, err := client.ContainerStatus(context.Background(), &runtimeapi.ContainerStatusRequest{ContainerId: created.ContainerId})
		if err != nil {
			t.Fatal(err)
		}
		if state := status.GetStatus().GetState(); state != runtimeapi.ContainerState_CONTAINER_RUNNING {
			t.Fatalf("the container is %v, want it running", state)
		}
	}
	running(client)

	// Another process may not use the directory meanwhile.
	if second, err := Start(t.Context(), config); err == nil {
		second.Close()
		t.Fatal("two runtimes share a directory")
	}

	// Killed without a chance to clean up: the next start adopts.
	r.abandon()
	r, client = mustStart(t, config)
	if !r.Adopted() {
		t.Error("a running containerd was not adopted")
	}
	running(client)

	// Ended in order: the container stays, the next start takes it over.
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	r, client = mustStart(t, config)
	if r.Adopted() {
		t.Error("containerd survived Close")
	}
	running(client)

	// Killed: it is started again, without being asked.
	if err := r.current().signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-r.current().ended()
	if _, err := client.Status(t.Context(), &runtimeapi.StatusRequest{}, grpc.WaitForReady(true)); err != nil {
		t.Fatalf("containerd does not come back: %v", err)
	}
	until(t, func() bool {
		_, err := client.ListContainers(t.Context(), &runtimeapi.ListContainersRequest{}, grpc.WaitForReady(true))
		return err == nil // not while it is "not initialized yet"
	})
	running(client)

	// Another cluster may not use the bridge, neither now nor while our pods are on it.
	other := config
	other.Root = t.TempDir()
	if second, err := Start(t.Context(), other); err == nil || !strings.Contains(err.Error(), "another process uses it") {
		second.Close()
		t.Errorf("two clusters share a bridge: %v", err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if second, err := Start(t.Context(), other); err == nil || !strings.Contains(err.Error(), "pods of another cluster, of "+config.Root+",") {
		second.Close()
		t.Errorf("two clusters share a bridge: %v", err)
	}
	r, client = mustStart(t, config)

	// Started with other settings: containerd is replaced, the container stays.
	r.abandon()
	was, err := os.ReadFile(r.layout.config)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(r.layout.config, append(was, "# changed\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	// The same with images that were unpacked another way.
	if err := os.WriteFile(r.layout.unpacked, []byte("native"), 0o600); err != nil {
		t.Fatal(err)
	}
	r, client = mustStart(t, config)
	if r.Adopted() {
		t.Error("a containerd with another configuration was adopted")
	}
	running(client)
	if _, err := client.RunPodSandbox(t.Context(), &runtimeapi.RunPodSandboxRequest{Config: sandboxConfig("second", pod.LogDirectory)}); err != nil {
		t.Errorf("no pod can be made after that: %v", err)
	}

	if err := r.RemoveAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left := mountsBelow(t, config.Root); len(left) > 0 {
		t.Errorf("still mounted: %v", left)
	}
}

// abandon leaves containerd as it is when our process is killed: running,
// without its supervisor, the lock released by the kernel.
func (r *Runtime) abandon() {
	r.mu.Lock()
	r.mu.closing = true
	r.mu.Unlock()
	r.release()
}

func (r *Runtime) current() process {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.mu.process
}

func until(t *testing.T, done func() bool) {
	t.Helper()
	for range 1000 {
		if done() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("it never happened")
}

func mountsBelow(t *testing.T, dir string) []string {
	t.Helper()
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for line := range strings.Lines(string(table)) {
		if strings.Contains(line, " "+dir+"/") {
			found = append(found, line)
		}
	}
	return found
}

func TestFindPrivate(t *testing.T) {
	r, _ := mustStart(t, testConfig(t))
	found, err := Find(t.Context(), strings.TrimPrefix(r.Endpoint(), "unix://"))
	if err != nil || found.Name != "containerd" || !found.Network {
		t.Errorf("found %+v, %v; want containerd with a network", found, err)
	}
	conn, err := Dial(r.Endpoint())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if how := snapshotterOf(t.Context(), runtimeapi.NewRuntimeServiceClient(conn)); how != r.settings.Snapshotter {
		t.Errorf("it unpacks with %q, want %q", how, r.settings.Snapshotter)
	}
	if err := r.RemoveAll(t.Context()); err != nil {
		t.Error(err)
	}
}

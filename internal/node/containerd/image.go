package containerd

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/timonel/timonel/internal/node/containerd/pause"
)

// importTimeout bounds how long an imported image may take to appear in CRI.
const importTimeout = 10 * time.Second

// Import loads an image archive (OCI layout or `docker save`, tar or tar.gz)
// into the containerd at endpoint, where pods find it under the names that the
// archive gives. It fails for runtimes other than containerd.
func Import(ctx context.Context, endpoint, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("import an image: %w", err)
	}
	defer f.Close()
	if err := importInto(ctx, endpoint, f); err != nil {
		return fmt.Errorf("import the image %s: %w", path, err)
	}
	return nil
}

// Import loads an image archive as the function Import does, unpacked the way
// this runtime unpacks images.
func (r *Runtime) Import(ctx context.Context, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("import an image: %w", err)
	}
	defer f.Close()
	if err := importInto(ctx, r.Endpoint(), f, "--snapshotter", r.settings.Snapshotter); err != nil {
		return fmt.Errorf("import the image %s: %w", path, err)
	}
	return nil
}

func importInto(ctx context.Context, endpoint string, archive io.Reader, options ...string) error {
	args := append([]string{"images", "import"}, options...)
	if version, err := ctrRelease(ctx); err == nil && version.atLeast(2, 0) {
		args = append(args, "--local") // else the daemon unpacks, with its own idea of a snapshotter
	}
	return ctr(ctx, endpoint, archive, append(args, "-")...)
}

func ctrRelease(ctx context.Context) (release, error) {
	program, err := lookup("ctr")
	if err != nil {
		return release{}, err
	}
	version, err := exec.CommandContext(ctx, program, "--version").Output()
	if err != nil {
		return release{}, fmt.Errorf("ask %s for its version: %w", program, err)
	}
	return parseRelease(string(version))
}

// ctr runs containerd's own client: CRI has no call that imports an image.
func ctr(ctx context.Context, endpoint string, stdin io.Reader, args ...string) error {
	program, err := lookup("ctr")
	if err != nil {
		return err
	}
	address := strings.TrimPrefix(Target(endpoint), "unix://")
	cmd := exec.CommandContext(ctx, program, append([]string{"--address", address, "--namespace", "k8s.io"}, args...)...)
	cmd.Stdin = stdin
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("ctr %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// ensureSandboxImage imports the pause image unless the runtime has it, and
// returns when CRI knows it: CRI hears of imports a moment later.
func (r *Runtime) ensureSandboxImage(ctx context.Context) error {
	conn, err := Dial(r.Endpoint())
	if err != nil {
		return err
	}
	defer conn.Close()
	images := runtimeapi.NewImageServiceClient(conn)
	present := func() (bool, error) {
		status, err := images.ImageStatus(ctx, &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: pause.Image}})
		if err != nil {
			return false, fmt.Errorf("look for the image %s: %w", pause.Image, err)
		}
		return status.Image != nil, nil
	}
	// An image is unpacked for one snapshotter: after a change it must be again.
	unpacked, _ := os.ReadFile(r.layout.unpacked)
	if ok, err := present(); err != nil || ok && string(unpacked) == r.settings.Snapshotter {
		return err
	}
	archive, err := pause.Archive(runtime.GOARCH)
	if err != nil {
		return err
	}
	if err := importInto(ctx, r.Endpoint(), bytes.NewReader(archive), "--snapshotter", r.settings.Snapshotter); err != nil {
		return fmt.Errorf("import the image %s: %w", pause.Image, err)
	}
	// A label that keeps image garbage collection off it (containerd 1.7 and later).
	if err := ctr(ctx, r.Endpoint(), nil, "images", "label", pause.Image, "io.cri-containerd.pinned=pinned"); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, importTimeout)
	defer cancel()
	for wait := time.Millisecond; ; wait = min(2*wait, 100*time.Millisecond) {
		if ok, err := present(); err != nil {
			return err
		} else if ok {
			return writeChanged(r.layout.unpacked, []byte(r.settings.Snapshotter))
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the image %s was imported but CRI does not know it: %w", pause.Image, ctx.Err())
		case <-time.After(wait):
		}
	}
}

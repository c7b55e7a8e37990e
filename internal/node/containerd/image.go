package containerd

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
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
// archive gives. An image that is there already is left alone. It fails for
// runtimes other than containerd.
func Import(ctx context.Context, endpoint, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("import an image: %w", err)
	}
	defer f.Close()
	conn, err := Dial(endpoint)
	if err != nil {
		return err
	}
	defer conn.Close()
	if hasImages(ctx, runtimeapi.NewImageServiceClient(conn), f) {
		return nil
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("import the image %s: %w", path, err)
	}
	if err := importInto(ctx, endpoint, f, snapshotterOf(ctx, runtimeapi.NewRuntimeServiceClient(conn))); err != nil {
		return fmt.Errorf("import the image %s: %w", path, err)
	}
	return nil
}

// Import loads an image archive as the function Import does.
func (r *Runtime) Import(ctx context.Context, path string) error {
	return Import(ctx, r.Endpoint(), path)
}

// hasImages reports whether the runtime has what a `docker save` archive holds.
// It says no when it cannot tell: importing twice does no harm.
func hasImages(ctx context.Context, images runtimeapi.ImageServiceClient, archive io.Reader) bool {
	contents := contentsOf(archive)
	for _, content := range contents {
		for _, name := range content.RepoTags {
			status, err := images.ImageStatus(ctx, &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: name}})
			if err != nil || status.GetImage().GetId() == "" || !strings.HasPrefix(content.Config, status.Image.Id) {
				return false
			}
		}
		if len(content.RepoTags) == 0 {
			return false
		}
	}
	return len(contents) > 0
}

// archiveContent is an image in the manifest.json of a `docker save` archive.
type archiveContent struct {
	Config   string // the file with the image's configuration, named by its digest, which is the image's id
	RepoTags []string
}

// maxManifest bounds manifest.json.
const maxManifest = 1 << 20

func contentsOf(archive io.Reader) []archiveContent {
	for r := tar.NewReader(archive); ; {
		header, err := r.Next()
		if err != nil {
			return nil
		}
		if header.Name == "manifest.json" {
			var contents []archiveContent
			if json.NewDecoder(io.LimitReader(r, maxManifest)).Decode(&contents) != nil {
				return nil
			}
			return contents
		}
	}
}

// snapshotterOf asks a containerd how it unpacks images, which ctr does not
// know. Empty: it does not say, and ctr's default will do.
func snapshotterOf(ctx context.Context, client runtimeapi.RuntimeServiceClient) string {
	status, err := client.Status(ctx, &runtimeapi.StatusRequest{Verbose: true})
	if err != nil {
		return ""
	}
	var config struct {
		Containerd struct {
			Snapshotter string `json:"snapshotter"`
		} `json:"containerd"`
	}
	if json.Unmarshal([]byte(status.Info["config"]), &config) != nil {
		return ""
	}
	return config.Containerd.Snapshotter
}

func importInto(ctx context.Context, endpoint string, archive io.Reader, snapshotter string) error {
	args := []string{"images", "import"}
	if snapshotter != "" {
		args = append(args, "--snapshotter", snapshotter)
	}
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
	// An image is unpacked for one snapshotter. After a change those that are
	// there cannot be run: forget them, so that they are pulled or imported again.
	if was, err := os.ReadFile(r.layout.unpacked); err == nil && string(was) != r.settings.Snapshotter {
		if err := forgetImages(ctx, images); err != nil {
			return err
		}
	}
	if err := writeChanged(r.layout.unpacked, []byte(r.settings.Snapshotter)); err != nil {
		return err
	}
	if ok, err := present(); err != nil || ok {
		return err
	}
	archive, err := pause.Archive(runtime.GOARCH)
	if err != nil {
		return err
	}
	if err := importInto(ctx, r.Endpoint(), bytes.NewReader(archive), r.settings.Snapshotter); err != nil {
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
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the image %s was imported but CRI does not know it: %w", pause.Image, ctx.Err())
		case <-time.After(wait):
		}
	}
}

func forgetImages(ctx context.Context, images runtimeapi.ImageServiceClient) error {
	list, err := images.ListImages(ctx, &runtimeapi.ListImagesRequest{})
	if err != nil {
		return fmt.Errorf("list images: %w", err)
	}
	for _, image := range list.Images {
		if _, err := images.RemoveImage(ctx, &runtimeapi.RemoveImageRequest{Image: &runtimeapi.ImageSpec{Image: image.Id}}); err != nil {
			return fmt.Errorf("remove the image %s, unpacked for another snapshotter: %w", image.Id, err)
		}
	}
	return nil
}

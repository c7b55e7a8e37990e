package containerd

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// criServer is a runtime in whatever condition a test wants.
type criServer struct {
	runtimeapi.UnimplementedRuntimeServiceServer
	runtime, network bool
}

func (c *criServer) Version(context.Context, *runtimeapi.VersionRequest) (*runtimeapi.VersionResponse, error) {
	return &runtimeapi.VersionResponse{RuntimeName: "fake", RuntimeVersion: "9.9"}, nil
}

func (c *criServer) Status(context.Context, *runtimeapi.StatusRequest) (*runtimeapi.StatusResponse, error) {
	return &runtimeapi.StatusResponse{Status: &runtimeapi.RuntimeStatus{Conditions: []*runtimeapi.RuntimeCondition{
		{Type: runtimeapi.RuntimeReady, Status: c.runtime, Reason: "Broken"},
		{Type: runtimeapi.NetworkReady, Status: c.network},
	}}}, nil
}

func serve(t *testing.T, register func(*grpc.Server)) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "cri.sock")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	register(server)
	go server.Serve(listener)
	t.Cleanup(server.Stop)
	return path
}

func TestFind(t *testing.T) {
	with := func(c *criServer) string {
		return serve(t, func(s *grpc.Server) { runtimeapi.RegisterRuntimeServiceServer(s, c) })
	}
	path := with(&criServer{runtime: true, network: true})
	for _, endpoint := range []string{path, "unix://" + path} {
		if found, err := Find(t.Context(), endpoint); err != nil || found != (Existing{"unix://" + path, "fake", "9.9", true}) {
			t.Errorf("%s: found %+v, %v", endpoint, found, err)
		}
	}
	// Who names a runtime gets it, even without a network.
	if found, err := Find(t.Context(), with(&criServer{runtime: true})); err != nil || found.Network {
		t.Errorf("found %+v, %v", found, err)
	}
	for what, endpoint := range map[string]string{
		"not ready: Broken":  with(&criServer{}),
		"version":            serve(t, func(*grpc.Server) {}), // as containerd with its CRI plugin disabled
		"connection refused": filepath.Join(t.TempDir(), "none"),
	} {
		_, err := Find(t.Context(), endpoint)
		if err == nil || !strings.Contains(err.Error(), what) && !errors.Is(err, os.ErrNotExist) && what != "connection refused" {
			t.Errorf("got %v, want an error about %s", err, what)
		}
	}
}

// TestFindNone has no runtime where distributions put it.
func TestFindNone(t *testing.T) {
	if _, err := os.Stat(strings.TrimPrefix(DefaultEndpoint, "unix://")); err == nil {
		t.Skip("this machine runs a containerd")
	}
	if _, err := Find(t.Context(), ""); !errors.Is(err, ErrNone) {
		t.Errorf("got %v, want ErrNone", err)
	}
}

func TestHint(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	if hint := Hint(); len(Missing()) > 0 && !strings.HasPrefix(hint, "pods need a container runtime: apt-get install -y ") {
		t.Errorf("got %q", hint)
	}
	program := filepath.Join(os.Getenv("PATH"), "containerd")
	if err := os.WriteFile(program, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if path, err := lookup("containerd"); err != nil || path != program {
		t.Errorf("found %s, %v, want the one in PATH first", path, err)
	}
	if _, err := lookup("no-such-program"); err == nil {
		t.Error("found a program that does not exist")
	}
}

// imageServer has one image.
type imageServer struct {
	runtimeapi.UnimplementedImageServiceServer
}

func (imageServer) ImageStatus(_ context.Context, r *runtimeapi.ImageStatusRequest) (*runtimeapi.ImageStatusResponse, error) {
	if r.Image.Image != "a/b:c" {
		return &runtimeapi.ImageStatusResponse{}, nil
	}
	return &runtimeapi.ImageStatusResponse{Image: &runtimeapi.Image{Id: "sha256:1234"}}, nil
}

func TestHasImages(t *testing.T) {
	conn, err := Dial(serve(t, func(s *grpc.Server) { runtimeapi.RegisterImageServiceServer(s, imageServer{}) }))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	check := func(manifest string, want bool) {
		t.Helper()
		var archive bytes.Buffer
		w := tar.NewWriter(&archive)
		w.WriteHeader(&tar.Header{Name: "layer", Size: 3})
		w.Write([]byte("abc"))
		w.WriteHeader(&tar.Header{Name: "manifest.json", Size: int64(len(manifest))})
		w.Write([]byte(manifest))
		w.Close()
		if got := hasImages(t.Context(), runtimeapi.NewImageServiceClient(conn), &archive); got != want {
			t.Errorf("%s: got %v", manifest, got)
		}
	}
	check(`[{"Config":"sha256:1234","RepoTags":["a/b:c"]}]`, true)
	check(`[{"Config":"sha256:1234.json","RepoTags":["a/b:c"]}]`, true)
	check(`[{"Config":"sha256:5678","RepoTags":["a/b:c"]}]`, false)
	check(`[{"Config":"sha256:1234","RepoTags":["a/b:d"]}]`, false)
	check(`[{"Config":"sha256:1234","RepoTags":["a/b:c"]},{"Config":"sha256:1","RepoTags":["a/b:d"]}]`, false)
	check(`[{"Config":"sha256:1234"}]`, false)
	check(`[]`, false)
	check(`?`, false)
	if hasImages(t.Context(), runtimeapi.NewImageServiceClient(conn), strings.NewReader("not an archive")) {
		t.Error("something else counts as an image")
	}
}

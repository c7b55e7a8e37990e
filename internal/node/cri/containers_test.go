//go:build containers

package cri_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/timonel/timonel/internal/node/cri"
	"github.com/timonel/timonel/internal/node/nodetest"
)

// The exit of a container is told by an event, and the runtime's going and
// coming too.
func TestRealRuntimeTells(t *testing.T) {
	ctd := nodetest.Start(t)
	client, err := cri.New(ctd.Socket)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	events := make(chan cri.Event, 100)
	go client.Watch(ctx, slog.New(slog.DiscardHandler), func(e cri.Event) { events <- e })
	wait := func(kind cri.EventType, id string) {
		t.Helper()
		for {
			select {
			case e := <-events:
				t.Logf("event %v %s %v", e.Type, e.ID, e.Err)
				if e.Type == kind && e.ID == id {
					return
				}
			case <-ctx.Done():
				t.Fatalf("no event %v for %q", kind, id)
			}
		}
	}
	wait(cri.Connected, "")

	config := &runtimeapi.PodSandboxConfig{
		Metadata:     &runtimeapi.PodSandboxMetadata{Name: "p", Namespace: "default", Uid: "u1"},
		LogDirectory: ctd.Dir + "/logs",
		Linux:        &runtimeapi.LinuxPodSandboxConfig{},
	}
	start := time.Now()
	sandbox, err := client.Runtime.RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: config})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("sandbox took %v", time.Since(start))
	wait(cri.Started, sandbox.PodSandboxId)
	container, err := client.Runtime.CreateContainer(ctx, &runtimeapi.CreateContainerRequest{
		PodSandboxId: sandbox.PodSandboxId, SandboxConfig: config,
		Config: &runtimeapi.ContainerConfig{
			Metadata: &runtimeapi.ContainerMetadata{Name: "c"},
			Image:    &runtimeapi.ImageSpec{Image: nodetest.ToolboxImage},
			Args:     []string{"exit", "3"},
			LogPath:  "c/0.log",
			Linux:    &runtimeapi.LinuxContainerConfig{},
		}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Runtime.StartContainer(ctx, &runtimeapi.StartContainerRequest{ContainerId: container.ContainerId}); err != nil {
		t.Fatal(err)
	}
	wait(cri.Exited, container.ContainerId)

	ctd.Down(t)
	wait(cri.Disconnected, "")
	ctd.Up(t)
	wait(cri.Connected, "")
}

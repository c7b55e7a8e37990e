//go:build containers

package nodetest

import (
	"context"
	"log/slog"
	"runtime"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/timonel/timonel/internal/node/cri"
)

const goarch = runtime.GOARCH

var discard = slog.New(slog.DiscardHandler)

// removeSandboxes ends everything this containerd runs.
func (c *Containerd) removeSandboxes(t testing.TB) {
	client, err := cri.New(c.Socket)
	if err != nil {
		t.Log(err)
		return
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	list, err := client.Runtime.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{})
	if err != nil {
		t.Logf("list sandboxes: %v", err)
		return
	}
	for _, sandbox := range list.Items {
		if _, err := client.Runtime.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: sandbox.Id}); err != nil {
			t.Logf("stop sandbox: %v", err)
		}
		if _, err := client.Runtime.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: sandbox.Id}); err != nil {
			t.Logf("remove sandbox: %v", err)
		}
	}
}

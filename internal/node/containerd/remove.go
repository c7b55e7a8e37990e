package containerd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// maxRemovals bounds how many pods are removed at a time.
const maxRemovals = 8

// RemoveAll ends every pod of this runtime with its network, then containerd,
// and takes off what is mounted below its directories, so that Config.Root can
// be deleted. It removes the bridge when no pod of anyone else hangs on it.
func (r *Runtime) RemoveAll(ctx context.Context) error {
	errs := []error{r.removePods(ctx), r.Close()}
	errs = append(errs, unmountBelow(r.layout.state), unmountBelow(r.layout.images))
	if r.layout.state != "" && !strings.HasPrefix(r.layout.state, r.config.Root) {
		errs = append(errs, os.RemoveAll(r.layout.state))
	}
	errs = append(errs, removeBridge(r.config.Bridge))
	return errors.Join(errs...)
}

func (r *Runtime) removePods(ctx context.Context) error {
	conn, err := Dial(r.Endpoint())
	if err != nil {
		return err
	}
	defer conn.Close()
	client := runtimeapi.NewRuntimeServiceClient(conn)
	list, err := client.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{})
	if err != nil {
		return fmt.Errorf("list pod sandboxes: %w", err)
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(maxRemovals)
	for _, sandbox := range list.Items {
		group.Go(func() error {
			// Stopping kills the containers of the pod and frees its network.
			if _, err := client.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: sandbox.Id}); err != nil {
				return fmt.Errorf("stop pod %s/%s: %w", sandbox.GetMetadata().GetNamespace(), sandbox.GetMetadata().GetName(), err)
			}
			if _, err := client.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: sandbox.Id}); err != nil {
				return fmt.Errorf("remove pod %s/%s: %w", sandbox.GetMetadata().GetNamespace(), sandbox.GetMetadata().GetName(), err)
			}
			return nil
		})
	}
	return group.Wait()
}

// unmountBelow detaches every mount under dir, the innermost first.
func unmountBelow(dir string) error {
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return fmt.Errorf("read the mount table: %w", err)
	}
	var points []string
	for line := range strings.Lines(string(table)) {
		fields := strings.Fields(line)
		if len(fields) < 5 {
			continue
		}
		// The kernel writes spaces, tabs, newlines and backslashes in octal.
		point := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(fields[4])
		if strings.HasPrefix(point, dir+"/") {
			points = append(points, point)
		}
	}
	var errs []error
	for _, point := range slices.Backward(points) {
		if err := unix.Unmount(point, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
			errs = append(errs, fmt.Errorf("unmount %s: %w", point, err))
		}
	}
	return errors.Join(errs...)
}

// removeBridge deletes the bridge that the CNI plugin made, unless it is in use.
func removeBridge(name string) error {
	if ports, err := bridgePorts(name); err != nil || ports > 0 {
		return err
	}
	bridge, err := netlink.LinkByName(name)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil
	}
	if err == nil {
		err = netlink.LinkDel(bridge)
	}
	if err != nil {
		return fmt.Errorf("remove the bridge %s: %w", name, err)
	}
	return nil
}

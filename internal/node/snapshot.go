package node

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/timonel/timonel/internal/node/cri"
)

// snapshot is what the runtime has of one pod.
type snapshot struct {
	sandboxes  []sandbox   // newest first
	containers []container // newest first
}

type sandbox struct {
	id        string
	attempt   uint32
	ready     bool
	createdAt int64
	ips       []string // of the newest sandbox only
}

type container struct {
	id, name, sandbox string
	attempt           int // counts restarts
	state             runtimeapi.ContainerState
	createdAt         time.Time
	startedAt         time.Time
	finishedAt        time.Time
	exitCode          int32
	reason, message   string
	image, imageID    string
	hash              string
	logPath           string
	user              *runtimeapi.ContainerUser
	resources         *runtimeapi.LinuxContainerResources
	stopSignal        runtimeapi.Signal
	annotations       map[string]string
}

func (c *container) running() bool { return c.state == runtimeapi.ContainerState_CONTAINER_RUNNING }

func (c *container) exited() bool {
	return c.state == runtimeapi.ContainerState_CONTAINER_EXITED || c.state == runtimeapi.ContainerState_CONTAINER_UNKNOWN
}

// current is the newest sandbox.
func (s *snapshot) current() *sandbox {
	if len(s.sandboxes) == 0 {
		return nil
	}
	return &s.sandboxes[0]
}

// latest is the newest container of that name, in any sandbox.
func (s *snapshot) latest(name string) *container {
	for i := range s.containers {
		if s.containers[i].name == name {
			return &s.containers[i]
		}
	}
	return nil
}

// in is the newest container of that name in one sandbox.
func (s *snapshot) in(sandbox, name string) *container {
	for i := range s.containers {
		if s.containers[i].name == name && s.containers[i].sandbox == sandbox {
			return &s.containers[i]
		}
	}
	return nil
}

// before is the container of that name that ran before c.
func (s *snapshot) before(c *container) *container {
	found := false
	for i := range s.containers {
		switch {
		case s.containers[i].id == c.id:
			found = true
		case found && s.containers[i].name == c.name:
			return &s.containers[i]
		}
	}
	return nil
}

func (s *snapshot) byID(id string) *container {
	for i := range s.containers {
		if s.containers[i].id == id {
			return &s.containers[i]
		}
	}
	return nil
}

// anyRunning reports whether a container runs, or is about to.
func (s *snapshot) anyRunning() bool {
	return slices.ContainsFunc(s.containers, func(c container) bool { return c.running() })
}

// takeSnapshot asks the runtime about one pod. was is the previous snapshot:
// what cannot have changed since is taken from it.
func takeSnapshot(ctx context.Context, client *cri.Client, node string, uid types.UID, was *snapshot) (*snapshot, error) {
	ctx, cancel := context.WithTimeout(ctx, cri.CallTimeout)
	defer cancel()
	selector := map[string]string{labelPodUID: string(uid), labelNode: node}
	sandboxes, err := client.Runtime.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{Filter: &runtimeapi.PodSandboxFilter{LabelSelector: selector}})
	if err != nil {
		return nil, fmt.Errorf("list sandboxes: %w", err)
	}
	containers, err := client.Runtime.ListContainers(ctx, &runtimeapi.ListContainersRequest{Filter: &runtimeapi.ContainerFilter{LabelSelector: selector}})
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}

	s := &snapshot{}
	for _, item := range sandboxes.Items {
		s.sandboxes = append(s.sandboxes, sandbox{
			id:        item.Id,
			attempt:   item.GetMetadata().GetAttempt(),
			ready:     item.State == runtimeapi.PodSandboxState_SANDBOX_READY,
			createdAt: item.CreatedAt,
		})
	}
	slices.SortFunc(s.sandboxes, func(a, b sandbox) int { return compareTime(b.createdAt, a.createdAt) })
	if current := s.current(); current != nil {
		if err := current.readIPs(ctx, client, was); err != nil {
			return nil, err
		}
	}

	for _, item := range containers.Containers {
		if was != nil {
			// An exited container does not change any more.
			if before := was.byID(item.Id); before != nil && before.state == runtimeapi.ContainerState_CONTAINER_EXITED && item.State == before.state {
				s.containers = append(s.containers, *before)
				continue
			}
		}
		c, err := readContainer(ctx, client, item)
		if status.Code(err) == codes.NotFound {
			continue
		}
		if err != nil {
			return nil, err
		}
		s.containers = append(s.containers, c)
	}
	slices.SortFunc(s.containers, func(a, b container) int {
		if a.attempt != b.attempt && a.name == b.name {
			return b.attempt - a.attempt
		}
		return compareTime(b.createdAt.UnixNano(), a.createdAt.UnixNano())
	})
	return s, nil
}

func compareTime(a, b int64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func (b *sandbox) readIPs(ctx context.Context, client *cri.Client, was *snapshot) error {
	if was != nil && was.current() != nil && was.current().id == b.id && len(was.current().ips) > 0 {
		b.ips = was.current().ips
		return nil
	}
	answer, err := client.Runtime.PodSandboxStatus(ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: b.id})
	if status.Code(err) == codes.NotFound {
		return nil
	}
	if err != nil {
		return fmt.Errorf("status of sandbox %s: %w", b.id, err)
	}
	b.ready = b.ready && answer.GetStatus().GetState() == runtimeapi.PodSandboxState_SANDBOX_READY
	if network := answer.GetStatus().GetNetwork(); network != nil {
		if network.Ip != "" {
			b.ips = append(b.ips, network.Ip)
		}
		for _, more := range network.AdditionalIps {
			b.ips = append(b.ips, more.Ip)
		}
	}
	return nil
}

func readContainer(ctx context.Context, client *cri.Client, item *runtimeapi.Container) (container, error) {
	answer, err := client.Runtime.ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: item.Id})
	if err != nil {
		return container{}, fmt.Errorf("status of container %s: %w", item.Id, err)
	}
	return containerOf(item, answer.Status), nil
}

func containerOf(item *runtimeapi.Container, st *runtimeapi.ContainerStatus) container {
	c := container{
		id: item.Id, sandbox: item.PodSandboxId,
		name:        item.Labels[labelContainerName],
		attempt:     int(item.GetMetadata().GetAttempt()),
		state:       st.State,
		createdAt:   fromNano(st.CreatedAt),
		startedAt:   fromNano(st.StartedAt),
		finishedAt:  fromNano(st.FinishedAt),
		exitCode:    st.ExitCode,
		reason:      st.Reason,
		message:     st.Message,
		image:       st.GetImage().GetImage(),
		imageID:     st.ImageRef,
		hash:        st.Annotations[annotationHash],
		logPath:     st.LogPath,
		user:        st.User,
		resources:   st.GetResources().GetLinux(),
		stopSignal:  st.StopSignal,
		annotations: st.Annotations,
	}
	if c.name == "" {
		c.name = item.GetMetadata().GetName()
	}
	if n, err := strconv.Atoi(st.Annotations[annotationRestartCount]); err == nil {
		c.attempt = n
	}
	if c.imageID == "" {
		c.imageID = st.ImageId
	}
	return c
}

func fromNano(n int64) time.Time {
	if n <= 0 {
		return time.Time{}
	}
	return time.Unix(0, n)
}

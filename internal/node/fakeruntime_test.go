package node

import (
	"context"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/timonel/timonel/internal/node/cri"
)

// fakeRuntime is a container runtime in memory, with the CRI as its face.
// Containers run until the test, a stop, or their own short life ends them.
type fakeRuntime struct {
	runtimeapi.UnimplementedRuntimeServiceServer
	runtimeapi.UnimplementedImageServiceServer

	mu         sync.Mutex
	next       int
	sandboxes  map[string]*runtimeapi.PodSandboxStatus
	containers map[string]*fakeContainer
	images     map[string]*runtimeapi.Image
	watchers   map[chan *runtimeapi.ContainerEventResponse]bool
	calls      map[string]int

	// What a test arranges. Called with mu held.
	pull  func(image string) error
	start func(c *fakeContainer) error
	exec  func(c *fakeContainer, command []string) (int32, string)
	// lives says how a container of that name goes on by itself: it exits with
	// code after a time. Others run on.
	lives map[string]fakeLife
	// stubborn containers need the whole grace and SIGKILL.
	stubborn map[string]bool
	noCNI    bool
}

type fakeLife struct {
	after time.Duration
	code  int32
}

type fakeContainer struct {
	status  *runtimeapi.ContainerStatus
	config  *runtimeapi.ContainerConfig
	sandbox string
	ended   chan struct{}
}

func newFakeRuntime() *fakeRuntime {
	return &fakeRuntime{
		sandboxes:  map[string]*runtimeapi.PodSandboxStatus{},
		containers: map[string]*fakeContainer{},
		images:     map[string]*runtimeapi.Image{"app:1": {Id: "sha256:app", RepoTags: []string{"app:1"}, Size: 1000}},
		watchers:   map[chan *runtimeapi.ContainerEventResponse]bool{},
		calls:      map[string]int{},
		lives:      map[string]fakeLife{},
		stubborn:   map[string]bool{},
	}
}

// serve makes the runtime reachable, over memory alone so that synctest can
// see when all is idle.
func (r *fakeRuntime) serve() (connect func(string) (*cri.Client, error), stop func()) {
	listener := bufconn.Listen(1 << 20)
	server := grpc.NewServer()
	runtimeapi.RegisterRuntimeServiceServer(server, r)
	runtimeapi.RegisterImageServiceServer(server, r)
	go func() { _ = server.Serve(listener) }()
	connect = func(string) (*cri.Client, error) {
		conn, err := grpc.NewClient("passthrough:///fake", grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
		if err != nil {
			return nil, err
		}
		return cri.FromConn(conn), nil
	}
	return connect, server.Stop
}

func (r *fakeRuntime) count(call string) { r.calls[call]++ }

func (r *fakeRuntime) id(kind string) string {
	r.next++
	return fmt.Sprintf("%s-%d", kind, r.next)
}

// emit is called with mu held.
func (r *fakeRuntime) emit(kind runtimeapi.ContainerEventType, id, sandbox string) {
	event := &runtimeapi.ContainerEventResponse{ContainerId: id, ContainerEventType: kind, PodSandboxStatus: r.sandboxes[sandbox]}
	for w := range r.watchers {
		w <- event
	}
}

func (r *fakeRuntime) GetContainerEvents(_ *runtimeapi.GetEventsRequest, stream grpc.ServerStreamingServer[runtimeapi.ContainerEventResponse]) error {
	events := make(chan *runtimeapi.ContainerEventResponse, 1000)
	r.mu.Lock()
	r.watchers[events] = true
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		delete(r.watchers, events)
		r.mu.Unlock()
	}()
	for {
		select {
		case event := <-events:
			if err := stream.Send(event); err != nil {
				return err
			}
		case <-stream.Context().Done():
			return nil
		}
	}
}

func (r *fakeRuntime) Version(context.Context, *runtimeapi.VersionRequest) (*runtimeapi.VersionResponse, error) {
	return &runtimeapi.VersionResponse{RuntimeName: "fake", RuntimeVersion: "1.0", RuntimeApiVersion: "v1"}, nil
}

func (r *fakeRuntime) Status(context.Context, *runtimeapi.StatusRequest) (*runtimeapi.StatusResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	network := &runtimeapi.RuntimeCondition{Type: runtimeapi.NetworkReady, Status: true}
	if r.noCNI {
		network = &runtimeapi.RuntimeCondition{Type: runtimeapi.NetworkReady, Reason: "NetworkPluginNotReady", Message: "Network plugin returns error: cni plugin not initialized"}
	}
	return &runtimeapi.StatusResponse{Status: &runtimeapi.RuntimeStatus{Conditions: []*runtimeapi.RuntimeCondition{
		{Type: runtimeapi.RuntimeReady, Status: true}, network,
	}}}, nil
}

func (r *fakeRuntime) RunPodSandbox(_ context.Context, in *runtimeapi.RunPodSandboxRequest) (*runtimeapi.RunPodSandboxResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.count("RunPodSandbox")
	id := r.id("sandbox")
	r.sandboxes[id] = &runtimeapi.PodSandboxStatus{
		Id: id, Metadata: in.Config.Metadata, CreatedAt: time.Now().UnixNano(), Labels: in.Config.Labels, Annotations: in.Config.Annotations,
		Network: &runtimeapi.PodSandboxNetworkStatus{Ip: fmt.Sprintf("10.1.0.%d", r.next)},
	}
	r.emit(runtimeapi.ContainerEventType_CONTAINER_STARTED_EVENT, id, id)
	return &runtimeapi.RunPodSandboxResponse{PodSandboxId: id}, nil
}

func (r *fakeRuntime) StopPodSandbox(_ context.Context, in *runtimeapi.StopPodSandboxRequest) (*runtimeapi.StopPodSandboxResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.count("StopPodSandbox")
	if s := r.sandboxes[in.PodSandboxId]; s != nil { // answers and events with the old state may be on their way
		stopped := proto.Clone(s).(*runtimeapi.PodSandboxStatus)
		stopped.State = runtimeapi.PodSandboxState_SANDBOX_NOTREADY
		r.sandboxes[in.PodSandboxId] = stopped
	}
	return &runtimeapi.StopPodSandboxResponse{}, nil
}

func (r *fakeRuntime) RemovePodSandbox(_ context.Context, in *runtimeapi.RemovePodSandboxRequest) (*runtimeapi.RemovePodSandboxResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.sandboxes, in.PodSandboxId)
	maps.DeleteFunc(r.containers, func(_ string, c *fakeContainer) bool { return c.sandbox == in.PodSandboxId })
	return &runtimeapi.RemovePodSandboxResponse{}, nil
}

func fits(labels, selector map[string]string) bool {
	for k, v := range selector {
		if labels[k] != v {
			return false
		}
	}
	return true
}

func (r *fakeRuntime) ListPodSandbox(_ context.Context, in *runtimeapi.ListPodSandboxRequest) (*runtimeapi.ListPodSandboxResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.count("ListPodSandbox")
	out := &runtimeapi.ListPodSandboxResponse{}
	for _, id := range slices.Sorted(maps.Keys(r.sandboxes)) {
		if s := r.sandboxes[id]; fits(s.Labels, in.GetFilter().GetLabelSelector()) {
			out.Items = append(out.Items, &runtimeapi.PodSandbox{Id: id, Metadata: s.Metadata, State: s.State, CreatedAt: s.CreatedAt, Labels: s.Labels, Annotations: s.Annotations})
		}
	}
	return out, nil
}

func (r *fakeRuntime) PodSandboxStatus(_ context.Context, in *runtimeapi.PodSandboxStatusRequest) (*runtimeapi.PodSandboxStatusResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.sandboxes[in.PodSandboxId]
	if s == nil {
		return nil, status.Error(codes.NotFound, "no such sandbox")
	}
	return &runtimeapi.PodSandboxStatusResponse{Status: s}, nil
}

func (r *fakeRuntime) CreateContainer(_ context.Context, in *runtimeapi.CreateContainerRequest) (*runtimeapi.CreateContainerResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.count("CreateContainer")
	id := r.id("container")
	r.containers[id] = &fakeContainer{
		sandbox: in.PodSandboxId, config: in.Config, ended: make(chan struct{}),
		status: &runtimeapi.ContainerStatus{
			Id: id, Metadata: in.Config.Metadata, CreatedAt: time.Now().UnixNano(), Labels: in.Config.Labels, Annotations: in.Config.Annotations,
			Image: &runtimeapi.ImageSpec{Image: in.Config.Image.UserSpecifiedImage}, ImageRef: in.Config.Image.Image,
			LogPath: in.SandboxConfig.LogDirectory + "/" + in.Config.LogPath,
		},
	}
	return &runtimeapi.CreateContainerResponse{ContainerId: id}, nil
}

func (r *fakeRuntime) StartContainer(_ context.Context, in *runtimeapi.StartContainerRequest) (*runtimeapi.StartContainerResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.count("StartContainer")
	c := r.containers[in.ContainerId]
	if r.start != nil {
		if err := r.start(c); err != nil {
			c.status.State, c.status.ExitCode, c.status.Reason, c.status.Message = runtimeapi.ContainerState_CONTAINER_EXITED, 128, "StartError", err.Error()
			c.status.FinishedAt = time.Now().UnixNano()
			return nil, err
		}
	}
	c.status.State, c.status.StartedAt = runtimeapi.ContainerState_CONTAINER_RUNNING, time.Now().UnixNano()
	r.emit(runtimeapi.ContainerEventType_CONTAINER_STARTED_EVENT, in.ContainerId, c.sandbox)
	if life, ok := r.lives[c.config.Metadata.Name]; ok {
		time.AfterFunc(life.after, func() {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.end(c, life.code)
		})
	}
	return &runtimeapi.StartContainerResponse{}, nil
}

// end is called with mu held.
func (r *fakeRuntime) end(c *fakeContainer, code int32) {
	if c.status.State != runtimeapi.ContainerState_CONTAINER_RUNNING {
		return
	}
	c.status.State, c.status.ExitCode, c.status.FinishedAt = runtimeapi.ContainerState_CONTAINER_EXITED, code, time.Now().UnixNano()
	c.status.Reason = "Completed"
	if code != 0 {
		c.status.Reason = "Error"
	}
	close(c.ended)
	r.emit(runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT, c.status.Id, c.sandbox)
}

// exit ends the running container of that name.
func (r *fakeRuntime) exit(name string, code int32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.containers {
		if c.config.Metadata.Name == name {
			r.end(c, code)
		}
	}
}

// loseSandboxes has every sandbox die; containers run on, as they do without
// a shared process namespace.
func (r *fakeRuntime) loseSandboxes() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, s := range r.sandboxes {
		s.State = runtimeapi.PodSandboxState_SANDBOX_NOTREADY
		r.emit(runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT, id, id)
	}
}

func (r *fakeRuntime) StopContainer(ctx context.Context, in *runtimeapi.StopContainerRequest) (*runtimeapi.StopContainerResponse, error) {
	r.mu.Lock()
	r.count("StopContainer")
	c := r.containers[in.ContainerId]
	if c == nil {
		r.mu.Unlock()
		return nil, status.Error(codes.NotFound, "no such container")
	}
	stubborn := r.stubborn[c.config.Metadata.Name]
	r.mu.Unlock()
	code := int32(0)
	if stubborn && c.status.State == runtimeapi.ContainerState_CONTAINER_RUNNING {
		code = 137
		select {
		case <-time.After(time.Duration(in.Timeout) * time.Second):
		case <-c.ended:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.end(c, code)
	return &runtimeapi.StopContainerResponse{}, nil
}

func (r *fakeRuntime) RemoveContainer(_ context.Context, in *runtimeapi.RemoveContainerRequest) (*runtimeapi.RemoveContainerResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.containers, in.ContainerId)
	return &runtimeapi.RemoveContainerResponse{}, nil
}

func (r *fakeRuntime) ListContainers(_ context.Context, in *runtimeapi.ListContainersRequest) (*runtimeapi.ListContainersResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := &runtimeapi.ListContainersResponse{}
	for _, id := range slices.Sorted(maps.Keys(r.containers)) {
		c := r.containers[id]
		if fits(c.status.Labels, in.GetFilter().GetLabelSelector()) {
			out.Containers = append(out.Containers, &runtimeapi.Container{
				Id: id, PodSandboxId: c.sandbox, Metadata: c.status.Metadata, State: c.status.State, CreatedAt: c.status.CreatedAt,
				Labels: c.status.Labels, Annotations: c.status.Annotations, ImageRef: c.status.ImageRef,
			})
		}
	}
	return out, nil
}

func (r *fakeRuntime) ContainerStatus(_ context.Context, in *runtimeapi.ContainerStatusRequest) (*runtimeapi.ContainerStatusResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.count("ContainerStatus")
	c := r.containers[in.ContainerId]
	if c == nil {
		return nil, status.Error(codes.NotFound, "no such container")
	}
	copied := &runtimeapi.ContainerStatus{
		Id: c.status.Id, Metadata: c.status.Metadata, State: c.status.State, CreatedAt: c.status.CreatedAt, StartedAt: c.status.StartedAt,
		FinishedAt: c.status.FinishedAt, ExitCode: c.status.ExitCode, Image: c.status.Image, ImageRef: c.status.ImageRef, Reason: c.status.Reason,
		Message: c.status.Message, Labels: c.status.Labels, Annotations: c.status.Annotations, LogPath: c.status.LogPath,
	}
	return &runtimeapi.ContainerStatusResponse{Status: copied}, nil
}

func (r *fakeRuntime) ExecSync(_ context.Context, in *runtimeapi.ExecSyncRequest) (*runtimeapi.ExecSyncResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.count("ExecSync")
	c := r.containers[in.ContainerId]
	if r.exec == nil || c == nil {
		return &runtimeapi.ExecSyncResponse{}, nil
	}
	code, output := r.exec(c, in.Cmd)
	return &runtimeapi.ExecSyncResponse{ExitCode: code, Stdout: []byte(output)}, nil
}

func (r *fakeRuntime) ImageStatus(_ context.Context, in *runtimeapi.ImageStatusRequest) (*runtimeapi.ImageStatusResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return &runtimeapi.ImageStatusResponse{Image: r.images[in.Image.Image]}, nil
}

func (r *fakeRuntime) PullImage(_ context.Context, in *runtimeapi.PullImageRequest) (*runtimeapi.PullImageResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.count("PullImage")
	name := in.Image.Image
	if r.pull != nil {
		if err := r.pull(name); err != nil {
			return nil, err
		}
	}
	r.images[name] = &runtimeapi.Image{Id: "sha256:" + name, RepoTags: []string{name}, Size: 2000}
	return &runtimeapi.PullImageResponse{ImageRef: r.images[name].Id}, nil
}

func (r *fakeRuntime) ListImages(context.Context, *runtimeapi.ListImagesRequest) (*runtimeapi.ListImagesResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := &runtimeapi.ListImagesResponse{}
	for _, name := range slices.Sorted(maps.Keys(r.images)) {
		out.Images = append(out.Images, r.images[name])
	}
	return out, nil
}

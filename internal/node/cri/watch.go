package cri

import (
	"context"
	"log/slog"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// EventType says what a runtime event is about.
type EventType int

const (
	// Connected: the stream stands. Everything may have changed before it:
	// list once.
	Connected EventType = iota + 1
	// Disconnected: the runtime went away; Err says why.
	Disconnected
	// Started: the container (or sandbox) with ID runs.
	Started
	// Exited: the main process of the container or sandbox with ID ended. The
	// runtime's own record may follow some milliseconds later.
	Exited
	// OOM: the kernel killed a process of the container with ID for memory.
	OOM
	// Deleted: the record of the container with ID is gone.
	Deleted
	// Relist: this runtime has no event stream; list, it is time.
	Relist
)

func (t EventType) String() string {
	switch t {
	case Connected:
		return "Connected"
	case Disconnected:
		return "Disconnected"
	case Started:
		return "Started"
	case Exited:
		return "Exited"
	case OOM:
		return "OOM"
	case Deleted:
		return "Deleted"
	case Relist:
		return "Relist"
	}
	return "Unknown"
}

// Event is one change in the runtime.
type Event struct {
	Type EventType
	ID   string // container or sandbox; empty for Connected, Disconnected, Relist
	// PodUID is the pod of the container where the runtime says so (CRI
	// events), else empty.
	PodUID string
	Err    error // Disconnected only
}

// Source names where events come from.
type Source string

const (
	// CRIEvents is GetContainerEvents of the CRI (KEP-3386).
	CRIEvents Source = "cri"
	// ContainerdEvents is containerd's own event service on the same socket,
	// used with containerd before 1.7, which has no GetContainerEvents.
	ContainerdEvents Source = "containerd"
	// RelistOnly is a runtime with neither: changes are found by listing every
	// relistPeriod.
	RelistOnly Source = "relist"
)

const (
	relistPeriod = 10 * time.Second
	retryMin     = 100 * time.Millisecond
	retryMax     = 3 * time.Second
)

// Watch follows the runtime until ctx ends and hands each event to sink, one
// at a time, in order. It begins with Connected once the runtime answers;
// when the runtime goes it says Disconnected once, and Connected again when it
// is back. sink must not block for long: events queue up in the runtime.
func (c *Client) Watch(ctx context.Context, log *slog.Logger, sink func(Event)) {
	pause := retryMin
	told := false // that it is gone
	for ctx.Err() == nil {
		up := false
		connected := func(source Source) {
			up, told, pause = true, false, retryMin
			log.Info("connected to container runtime", "events", string(source))
			sink(Event{Type: Connected})
		}
		err := c.follow(ctx, connected, sink)
		if ctx.Err() != nil {
			return
		}
		if up {
			log.Warn("lost container runtime", "err", err)
		}
		if !told {
			told = true
			sink(Event{Type: Disconnected, Err: err})
		}
		if !sleep(ctx, pause) {
			return
		}
		pause = min(2*pause, retryMax)
	}
}

// follow runs one event stream, of the best kind this runtime has, until it
// breaks.
func (c *Client) follow(ctx context.Context, connected func(Source), sink func(Event)) error {
	// Any answer proves that the runtime's CRI is up: a containerd that just
	// started accepts connections before its CRI plug-in serves.
	call, cancel := context.WithTimeout(ctx, 10*time.Second)
	version, err := c.Version(call)
	cancel()
	if err != nil {
		return err
	}
	ctx, cancel = context.WithCancel(ctx)
	defer cancel()

	who := version.RuntimeName + " " + version.RuntimeVersion
	for _, source := range []struct {
		name   Source
		follow func(ctx context.Context, standing func(), sink func(Event)) error
	}{
		{CRIEvents, c.followCRI},
		{ContainerdEvents, c.followContainerd},
	} {
		if c.lacks[source.name] == who {
			continue
		}
		err := source.follow(ctx, func() { connected(source.name) }, sink)
		if status.Code(err) != codes.Unimplemented {
			return err
		}
		c.lacks[source.name] = who
	}
	return c.relist(ctx, connected, sink)
}

func (c *Client) followCRI(ctx context.Context, standing func(), sink func(Event)) error {
	stream, err := c.Runtime.GetContainerEvents(ctx, &runtimeapi.GetEventsRequest{})
	if err != nil {
		return err
	}
	return followStream(ctx, stream.Recv, standing, func(event *runtimeapi.ContainerEventResponse) {
		out := Event{ID: event.ContainerId, PodUID: event.GetPodSandboxStatus().GetMetadata().GetUid()}
		switch event.ContainerEventType {
		case runtimeapi.ContainerEventType_CONTAINER_STARTED_EVENT:
			out.Type = Started
		case runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT:
			out.Type = Exited
		case runtimeapi.ContainerEventType_CONTAINER_DELETED_EVENT:
			out.Type = Deleted
		default:
			return
		}
		sink(out)
	})
}

// streamGrace is how long a new stream may take to be refused. A runtime that
// lacks the method answers at once; one that has it sends nothing until
// something happens.
const streamGrace = 100 * time.Millisecond

// followStream reads a server stream until it ends. The stream stands once its
// first message came, or streamGrace passed without a refusal.
func followStream[M any](ctx context.Context, recv func() (M, error), standing func(), deliver func(M)) error {
	messages := make(chan M)
	ended := make(chan error, 1)
	go func() {
		for {
			message, err := recv()
			if err != nil {
				ended <- err
				return
			}
			select {
			case messages <- message:
			case <-ctx.Done():
				ended <- ctx.Err()
				return
			}
		}
	}()
	grace := time.NewTimer(streamGrace)
	defer grace.Stop()
	stands := false
	for {
		select {
		case err := <-ended:
			return err
		case <-grace.C:
			if !stands {
				stands = true
				standing()
			}
		case message := <-messages:
			if !stands {
				stands = true
				standing()
			}
			deliver(message)
		}
	}
}

func (c *Client) relist(ctx context.Context, connected func(Source), sink func(Event)) error {
	connected(RelistOnly)
	ticker := time.NewTicker(relistPeriod)
	defer ticker.Stop()
	for {
		state := c.conn.GetState()
		if state == connectivity.TransientFailure || state == connectivity.Shutdown {
			return status.Error(codes.Unavailable, "the connection to the runtime broke")
		}
		call, cancel := context.WithTimeout(ctx, relistPeriod)
		changed := c.conn.WaitForStateChange(call, state)
		cancel()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if !changed {
			sink(Event{Type: Relist})
		}
	}
}

func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

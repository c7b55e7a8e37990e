package cri

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func field(b []byte, n protowire.Number, value string) []byte {
	return protowire.AppendString(protowire.AppendTag(b, n, protowire.BytesType), value)
}

// envelope is an event as containerd sends it: extra is field 2 of TaskExit,
// or field 5 of TaskDelete.
func envelope(namespace, topic, container string, extra ...string) []byte {
	payload := field(nil, 1, container)
	payload = protowire.AppendVarint(protowire.AppendTag(payload, 3, protowire.VarintType), 4242)
	for _, id := range extra {
		if topic == "/tasks/delete" {
			payload = field(payload, 5, id)
		} else {
			payload = field(payload, 2, id)
		}
	}
	b := field(nil, 1, "\x08\x01") // the time
	b = field(b, 2, namespace)
	b = field(b, 3, topic)
	return field(b, 4, string(field(field(nil, 1, "containerd.events.X"), 2, string(payload))))
}

func TestParseEnvelope(t *testing.T) {
	for _, x := range []struct {
		name string
		in   []byte
		want Event
		ok   bool
	}{
		{"start", envelope("k8s.io", "/tasks/start", "c1"), Event{Type: Started, ID: "c1"}, true},
		{"exit", envelope("k8s.io", "/tasks/exit", "c1", "c1"), Event{Type: Exited, ID: "c1"}, true},
		{"exit of an exec", envelope("k8s.io", "/tasks/exit", "c1", "exec-7"), Event{}, false},
		{"oom", envelope("k8s.io", "/tasks/oom", "c1"), Event{Type: OOM, ID: "c1"}, true},
		{"delete", envelope("k8s.io", "/tasks/delete", "c1"), Event{Type: Exited, ID: "c1"}, true},
		{"delete of an exec", envelope("k8s.io", "/tasks/delete", "c1", "exec-7"), Event{}, false},
		{"another namespace", envelope("moby", "/tasks/exit", "c1", "c1"), Event{}, false},
		{"another topic", envelope("k8s.io", "/images/create", "c1"), Event{}, false},
		{"nothing", nil, Event{}, false},
		{"cut short", envelope("k8s.io", "/tasks/oom", "c1")[:20], Event{}, false},
	} {
		got, ok := parseEnvelope(x.in)
		if ok != x.ok || ok && got != x.want {
			t.Errorf("%s: %+v %v, want %+v %v", x.name, got, ok, x.want, x.ok)
		}
	}
}

func FuzzParseEnvelope(f *testing.F) {
	f.Add(envelope("k8s.io", "/tasks/exit", "c1", "c1"))
	f.Add([]byte{0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		if event, ok := parseEnvelope(b); ok && event.ID == "" {
			t.Error("an event without a container")
		}
	})
}

func TestTarget(t *testing.T) {
	for in, want := range map[string]string{
		"/run/containerd.sock": "unix:///run/containerd.sock", "unix:///run/x.sock": "unix:///run/x.sock",
		"tcp://1.2.3.4:5": "", "x.sock": "", "": "", "unix://x.sock": "",
	} {
		if got, err := Target(in); got != want || (err != nil) != (want == "") {
			t.Errorf("Target(%q) = %q, %v; want %q", in, got, err, want)
		}
	}
}

// server is a runtime with the event sources a test gives it.
type server struct {
	runtimeapi.UnimplementedRuntimeServiceServer
	version string
	cri     chan *runtimeapi.ContainerEventResponse
}

func (s *server) Version(context.Context, *runtimeapi.VersionRequest) (*runtimeapi.VersionResponse, error) {
	return &runtimeapi.VersionResponse{RuntimeName: "test", RuntimeVersion: s.version}, nil
}

func (s *server) GetContainerEvents(_ *runtimeapi.GetEventsRequest, stream grpc.ServerStreamingServer[runtimeapi.ContainerEventResponse]) error {
	if s.cri == nil {
		return status.Error(codes.Unimplemented, "not here")
	}
	for {
		select {
		case event := <-s.cri:
			if event == nil {
				return status.Error(codes.Unavailable, "the runtime ends")
			}
			if err := stream.Send(event); err != nil {
				return err
			}
		case <-stream.Context().Done():
			return nil
		}
	}
}

// containerdEvents adds containerd's event service, by hand as the client is.
func containerdEvents(s *grpc.Server, events chan []byte) {
	s.RegisterService(&grpc.ServiceDesc{
		ServiceName: "containerd.services.events.v1.Events", HandlerType: (*any)(nil),
		Streams: []grpc.StreamDesc{{StreamName: "Subscribe", ServerStreams: true, Handler: func(_ any, stream grpc.ServerStream) error {
			for {
				select {
				case event := <-events:
					if event == nil {
						return status.Error(codes.Unavailable, "the runtime ends")
					}
					if err := stream.SendMsg(&event); err != nil {
						return err
					}
				case <-stream.Context().Done():
					return nil
				}
			}
		}}},
	}, nil)
}

// watch runs Watch against the runtime that prepare makes, in a bubble. With
// events it also has containerd's own event service.
func watch(t *testing.T, prepare func() (s *server, events chan []byte), f func(s *server, events chan []byte, tell func() []string)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s, events := prepare()
		listener := bufconn.Listen(1 << 16)
		g := grpc.NewServer(grpc.ForceServerCodec(serverCodec{}))
		runtimeapi.RegisterRuntimeServiceServer(g, s)
		if events != nil {
			containerdEvents(g, events)
		}
		go func() { _ = g.Serve(listener) }()
		conn, err := grpc.NewClient("passthrough:///x", grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
		if err != nil {
			t.Fatal(err)
		}
		client := FromConn(conn)
		var mu sync.Mutex
		var told []string
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			client.Watch(ctx, slog.New(slog.DiscardHandler), func(e Event) {
				mu.Lock()
				defer mu.Unlock()
				told = append(told, fmt.Sprint(e.Type, " ", e.ID, e.PodUID))
			})
		}()
		f(s, events, func() []string {
			time.Sleep(time.Second)
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			out := told
			told = nil
			return out
		})
		cancel()
		<-done
		_ = client.Close()
		g.Stop()
		synctest.Wait()
	})
}

// serverCodec speaks protobuf for messages and bytes for the rest.
type serverCodec struct{ rawCodec }

func (c serverCodec) Marshal(v any) ([]byte, error) {
	if m, ok := v.(proto.Message); ok {
		return proto.Marshal(m)
	}
	return c.rawCodec.Marshal(v)
}

func (c serverCodec) Unmarshal(data []byte, v any) error {
	if m, ok := v.(proto.Message); ok {
		return proto.Unmarshal(data, m)
	}
	return c.rawCodec.Unmarshal(data, v)
}

func expect(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("told %q, want %q", got, want)
	}
}

func TestWatchCRIEvents(t *testing.T) {
	prepare := func() (*server, chan []byte) {
		return &server{version: "2", cri: make(chan *runtimeapi.ContainerEventResponse, 4)}, nil
	}
	watch(t, prepare, func(s *server, _ chan []byte, tell func() []string) {
		expect(t, tell(), "Connected ")
		pod := &runtimeapi.PodSandboxStatus{Metadata: &runtimeapi.PodSandboxMetadata{Uid: "/u1"}}
		s.cri <- &runtimeapi.ContainerEventResponse{ContainerId: "a", ContainerEventType: runtimeapi.ContainerEventType_CONTAINER_CREATED_EVENT}
		s.cri <- &runtimeapi.ContainerEventResponse{ContainerId: "a", ContainerEventType: runtimeapi.ContainerEventType_CONTAINER_STARTED_EVENT, PodSandboxStatus: pod}
		s.cri <- &runtimeapi.ContainerEventResponse{ContainerId: "a", ContainerEventType: runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT, PodSandboxStatus: pod}
		expect(t, tell(), "Started a/u1", "Exited a/u1")
		s.cri <- nil // the runtime restarts
		expect(t, tell(), "Disconnected ", "Connected ")
	})
}

func TestWatchContainerdEvents(t *testing.T) {
	prepare := func() (*server, chan []byte) { return &server{version: "1.6"}, make(chan []byte, 4) }
	watch(t, prepare, func(_ *server, events chan []byte, tell func() []string) {
		expect(t, tell(), "Connected ")
		events <- envelope("k8s.io", "/tasks/exit", "c1", "c1")
		events <- envelope("k8s.io", "/tasks/exit", "c1", "exec-1")
		events <- envelope("k8s.io", "/tasks/oom", "c2")
		expect(t, tell(), "Exited c1", "OOM c2")
		events <- nil
		expect(t, tell(), "Disconnected ", "Connected ")
	})
}

func TestWatchWithoutEvents(t *testing.T) {
	prepare := func() (*server, chan []byte) { return &server{version: "0"}, nil }
	watch(t, prepare, func(_ *server, _ chan []byte, tell func() []string) {
		expect(t, tell(), "Connected ")
		time.Sleep(2 * relistPeriod)
		expect(t, tell(), "Relist ", "Relist ")
	})
}

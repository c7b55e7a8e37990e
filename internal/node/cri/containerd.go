package cri

import (
	"context"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protowire"
)

// containerd publishes the life of its tasks in its own gRPC service,
// containerd.services.events.v1.Events, on the socket that also serves the
// CRI. Of a message we need two fields, so it is read off the wire here
// instead of through containerd's modules.

const (
	containerdSubscribe = "/containerd.services.events.v1.Events/Subscribe"
	// criNamespace is where containerd's CRI plug-in keeps its containers.
	criNamespace = "k8s.io"
)

// followContainerd reads containerd's task events.
func (c *Client) followContainerd(ctx context.Context, standing func(), sink func(Event)) error {
	stream, err := c.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, containerdSubscribe, grpc.ForceCodec(rawCodec{}))
	if err != nil {
		return err
	}
	var request []byte // SubscribeRequest{repeated string filters = 1}, any may match
	for _, topic := range []string{"/tasks/start", "/tasks/exit", "/tasks/delete", "/tasks/oom"} {
		request = protowire.AppendTag(request, 1, protowire.BytesType)
		request = protowire.AppendString(request, fmt.Sprintf("namespace==%s,topic==%q", criNamespace, topic))
	}
	if err := stream.SendMsg(&request); err != nil {
		return err
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	recv := func() ([]byte, error) {
		var message []byte
		err := stream.RecvMsg(&message)
		return message, err
	}
	return followStream(ctx, recv, standing, func(message []byte) {
		if event, ok := parseEnvelope(message); ok {
			sink(event)
		}
	})
}

// parseEnvelope reads an Envelope{namespace = 2, topic = 3, Any event = 4} and
// turns the event of a container's main process into an Event. ok is false for
// anything else, such as the exit of an exec.
func parseEnvelope(b []byte) (event Event, ok bool) {
	envelope := stringFields(b)
	payload := stringFields([]byte(envelope[4]))[2] // Any{type_url = 1, value = 2}
	fields := stringFields([]byte(payload))         // container_id is field 1 of all of them
	event.ID = fields[1]
	if event.ID == "" || (envelope[2] != "" && envelope[2] != criNamespace) {
		return Event{}, false
	}
	switch envelope[3] {
	case "/tasks/start":
		event.Type = Started
	case "/tasks/exit":
		event.Type = Exited
		if fields[2] != event.ID { // TaskExit.id: another process of the container
			return Event{}, false
		}
	case "/tasks/delete":
		event.Type = Exited
		if id := fields[5]; id != "" && id != event.ID { // TaskDelete.id
			return Event{}, false
		}
	case "/tasks/oom":
		event.Type = OOM
	default:
		return Event{}, false
	}
	return event, true
}

// stringFields returns the last length-delimited value of each field of a
// protobuf message, and what it could read of a broken one.
func stringFields(b []byte) map[protowire.Number]string {
	fields := map[protowire.Number]string{}
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			break
		}
		b = b[n:]
		if kind == protowire.BytesType {
			value, n := protowire.ConsumeBytes(b)
			if n < 0 {
				break
			}
			fields[number] = string(value)
			b = b[n:]
			continue
		}
		n = protowire.ConsumeFieldValue(number, kind, b)
		if n < 0 {
			break
		}
		b = b[n:]
	}
	return fields
}

// rawCodec passes message bytes through under the name of the protobuf codec.
type rawCodec struct{}

func (rawCodec) Name() string { return "proto" }

func (rawCodec) Marshal(v any) ([]byte, error) {
	b, ok := v.(*[]byte)
	if !ok {
		return nil, fmt.Errorf("raw codec: cannot send %T", v)
	}
	return *b, nil
}

func (rawCodec) Unmarshal(data []byte, v any) error {
	b, ok := v.(*[]byte)
	if !ok {
		return fmt.Errorf("raw codec: cannot receive into %T", v)
	}
	*b = append([]byte(nil), data...)
	return nil
}

package cri

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const (
	// maxMessage bounds one gRPC answer, as the CRI asks of its clients: lists
	// of a full node and the output of ExecSync must fit.
	maxMessage = 16 << 20
	// reconnectMax bounds the pause between two attempts to dial the socket.
	reconnectMax = 3 * time.Second
	// CallTimeout bounds one ordinary call (list, status, create, start).
	// RunPodSandbox, StopContainer and PullImage have limits of their own.
	CallTimeout = 2 * time.Minute
)

// Client is a connection to a CRI runtime (containerd, CRI-O). The embedded
// service clients are those of k8s.io/cri-api, runtime/v1.
type Client struct {
	Runtime runtimeapi.RuntimeServiceClient
	Images  runtimeapi.ImageServiceClient

	conn *grpc.ClientConn
	// lacks remembers which event source which runtime version refused, so
	// that a reconnect does not ask again. Used by Watch alone.
	lacks map[Source]string
}

// New prepares a client of the runtime behind endpoint, the path of a unix
// socket with or without "unix://". It does not dial: the first call does.
func New(endpoint string) (*Client, error) {
	target, err := Target(endpoint)
	if err != nil {
		return nil, err
	}
	conn, err := grpc.NewClient(target,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage)),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: reconnectMax},
			MinConnectTimeout: reconnectMax,
		}),
		grpc.WithIdleTimeout(0),
		grpc.WithNoProxy(),
	)
	if err != nil {
		return nil, fmt.Errorf("prepare connection to runtime %s: %w", endpoint, err)
	}
	return FromConn(conn), nil
}

// FromConn makes a client of a connection that exists already, to a runtime in
// this process for instance. The client closes it.
func FromConn(conn *grpc.ClientConn) *Client {
	return &Client{
		Runtime: runtimeapi.NewRuntimeServiceClient(conn),
		Images:  runtimeapi.NewImageServiceClient(conn),
		conn:    conn,
		lacks:   map[Source]string{},
	}
}

// Target turns a runtime endpoint as users write it into a gRPC target.
func Target(endpoint string) (string, error) {
	path, schemed := strings.CutPrefix(endpoint, "unix://")
	if !schemed && strings.Contains(endpoint, "://") {
		return "", fmt.Errorf("runtime endpoint %q: only unix sockets are supported", endpoint)
	}
	if !filepath.IsAbs(path) {
		return "", fmt.Errorf("runtime endpoint %q: want an absolute socket path", endpoint)
	}
	return "unix://" + path, nil
}

// Close releases the connection; running calls fail.
func (c *Client) Close() error { return c.conn.Close() }

// Version asks the runtime who it is.
func (c *Client) Version(ctx context.Context) (*runtimeapi.VersionResponse, error) {
	return c.Runtime.Version(ctx, &runtimeapi.VersionRequest{})
}

// Condition types of StatusResponse, by the CRI.
const (
	RuntimeReady = runtimeapi.RuntimeReady
	NetworkReady = runtimeapi.NetworkReady
)

// Status asks the runtime for its conditions, handlers and features.
func (c *Client) Status(ctx context.Context) (*runtimeapi.StatusResponse, error) {
	return c.Runtime.Status(ctx, &runtimeapi.StatusRequest{})
}

// Package kmstest is a KMS plug-in (k8s.io/kms/apis/v2) for tests: it does as it is told, and protects nothing.
package kmstest

import (
	"bytes"
	"context"
	"net"
	"strings"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	kmsapi "k8s.io/kms/apis/v2"
)

// Plugin serves on a socket. Fields may be changed under Lock while it serves.
type Plugin struct {
	sync.Mutex
	Key         string // its key's id
	Health      string // "ok"
	Version     string // "v2"
	Forgotten   string // id of a key that it cannot decrypt with
	EncryptWith string // id of the key that Encrypt really uses; "": Key
	Annotations map[string][]byte

	Encrypted, Decrypted, Asked int // calls

	kmsapi.UnimplementedKeyManagementServiceServer
	server *grpc.Server
}

// Serve makes a plug-in that listens on the Unix socket at path.
func Serve(path, key string) (*Plugin, error) {
	p := &Plugin{Key: key, Health: "ok", Version: "v2", Annotations: map[string][]byte{"local-kek.kms.example.com": []byte("1")}}
	return p, p.Listen(path)
}

// Listen serves, after Stop again.
func (p *Plugin) Listen(path string) error {
	l, err := net.Listen("unix", path)
	if err != nil {
		return err
	}
	p.server = grpc.NewServer()
	kmsapi.RegisterKeyManagementServiceServer(p.server, p)
	go p.server.Serve(l)
	return nil
}

// Stop ends the connections and removes the socket.
func (p *Plugin) Stop() { p.server.Stop() }

// Change changes the plug-in while it serves.
func (p *Plugin) Change(do func(*Plugin)) {
	p.Lock()
	defer p.Unlock()
	do(p)
}

func (p *Plugin) Status(context.Context, *kmsapi.StatusRequest) (*kmsapi.StatusResponse, error) {
	p.Lock()
	defer p.Unlock()
	p.Asked++
	return &kmsapi.StatusResponse{Version: p.Version, Healthz: p.Health, KeyId: p.Key}, nil
}

func (p *Plugin) Encrypt(_ context.Context, r *kmsapi.EncryptRequest) (*kmsapi.EncryptResponse, error) {
	p.Lock()
	defer p.Unlock()
	p.Encrypted++
	key := p.Key
	if p.EncryptWith != "" {
		key = p.EncryptWith
	}
	return &kmsapi.EncryptResponse{Ciphertext: append([]byte(key+"|"), flip(r.Plaintext)...), KeyId: key, Annotations: p.Annotations}, nil
}

func (p *Plugin) Decrypt(_ context.Context, r *kmsapi.DecryptRequest) (*kmsapi.DecryptResponse, error) {
	p.Lock()
	defer p.Unlock()
	p.Decrypted++
	rest, ok := bytes.CutPrefix(r.Ciphertext, []byte(r.KeyId+"|"))
	switch {
	case r.KeyId == p.Forgotten:
		return nil, status.Errorf(codes.FailedPrecondition, "key %s is gone", r.KeyId)
	case !ok, r.Uid == "", len(r.Annotations) != len(p.Annotations) && !strings.HasPrefix(r.KeyId, "bare"):
		return nil, status.Error(codes.InvalidArgument, "not what Encrypt answered")
	}
	return &kmsapi.DecryptResponse{Plaintext: flip(rest)}, nil
}

func flip(b []byte) []byte {
	out := make([]byte, len(b))
	for i := range b {
		out[i] = ^b[i]
	}
	return out
}

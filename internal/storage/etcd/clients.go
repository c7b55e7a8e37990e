package etcd

import (
	"fmt"
	"net"
	"net/url"
	"os"

	"go.etcd.io/etcd/server/v3/etcdserver"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3rpc"
	"google.golang.org/grpc"
)

// clientServer lets etcd clients connect to an embedded server: etcdctl, or
// other servers that share the store. It has no authentication, so it belongs on a Unix
// socket or the loopback interface.
type clientServer struct {
	grpc *grpc.Server
}

func serveClients(server *etcdserver.EtcdServer, addresses []string) (*clientServer, error) {
	listeners := make([]net.Listener, 0, len(addresses))
	fail := func(err error) (*clientServer, error) {
		for _, l := range listeners {
			l.Close()
		}
		return nil, err
	}
	for _, address := range addresses {
		u, err := url.Parse(address)
		if err != nil {
			return fail(fmt.Errorf("listen address %q: %w", address, err))
		}
		network, where := "tcp", u.Host
		switch u.Scheme {
		case "unix":
			network, where = "unix", u.Host+u.Path
			os.Remove(where) // of a process that died; the data directory is locked, so nobody else serves it
		case "http":
		default:
			return fail(fmt.Errorf("listen address %q: want unix:// or http://", address))
		}
		l, err := net.Listen(network, where)
		if err != nil {
			return fail(err)
		}
		if network == "unix" {
			if err := os.Chmod(where, 0o600); err != nil {
				return fail(err)
			}
		}
		listeners = append(listeners, l)
	}
	s := &clientServer{grpc: v3rpc.Server(server, nil, nil)}
	for _, l := range listeners {
		go s.grpc.Serve(l)
	}
	return s, nil
}

func (s *clientServer) stop() { s.grpc.Stop() }

package server

import (
	"net"
	"path/filepath"
	"strconv"

	"github.com/timonel/timonel/internal/pki"
)

// Kubeconfigs are the files that first boot writes, by whose they are.
const (
	AdminKubeconfig       = "admin.kubeconfig"
	SchedulerKubeconfig   = "scheduler.kubeconfig"
	ControllersKubeconfig = "controllers.kubeconfig"
	NodeKubeconfig        = "node.kubeconfig"
)

// WriteKubeconfigs writes the kubeconfig of each component into the data directory, readable
// by the owner only. Without a data directory it does nothing: whoever made the certificates makes
// the kubeconfigs.
func (s *Server) WriteKubeconfigs() error {
	set := s.Credentials.set
	if set == nil {
		return nil
	}
	for file, client := range map[string]struct {
		user string
		pair *pki.Pair
	}{
		AdminKubeconfig:       {"kubernetes-admin", set.Admin},
		SchedulerKubeconfig:   {"system:kube-scheduler", set.Scheduler},
		ControllersKubeconfig: {"system:kube-controller-manager", set.Controllers},
		NodeKubeconfig:        {"node", set.NodeClient},
	} {
		if client.pair == nil {
			continue
		}
		k := pki.Kubeconfig{Server: s.URL(), Cluster: "timonel", User: client.user, CA: set.CA, Client: client.pair}
		if err := k.Write(filepath.Join(s.DataDir, file)); err != nil {
			return err
		}
	}
	return nil
}

func (s *Server) advertiseHostPort() string {
	return net.JoinHostPort(s.advertise.String(), strconv.Itoa(s.port))
}

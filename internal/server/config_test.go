package server

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

func flags(t *testing.T, args ...string) (*settled, error) {
	t.Helper()
	c := DefaultConfig()
	set := pflag.NewFlagSet("test", pflag.ContinueOnError)
	c.Flags(set)
	if err := set.Parse(args); err != nil {
		t.Fatal(err)
	}
	return c.settle()
}

func TestSettle(t *testing.T) {
	s, err := flags(t, "--data-dir", "/d", "--advertise-address", "192.0.2.7", "--service-cluster-ip-range", "10.0.0.9/16, fd00::/108", "--service-node-port-range", "31000-31010")
	if err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprint(s.bind, s.advertise, s.serviceRanges, s.nodePorts, s.ServiceAccountIssuers, s.APIAudiences)
	want := "0.0.0.0 192.0.2.7 [10.0.0.0/16 fd00::/108] [31000 31010] [https://kubernetes.default.svc.cluster.local] [https://kubernetes.default.svc.cluster.local]"
	if got != want || s.Log == nil {
		t.Errorf("got %s, want %s", got, want)
	}
	if ips := fmt.Sprint(firstServiceIPs(s.serviceRanges)); ips != "[10.0.0.1 fd00::1]" {
		t.Errorf("the service's addresses are %s", ips)
	}
	if s, err = flags(t, "--data-dir", "/d", "--bind-address", "127.0.0.1", "--service-account-issuer", "a,b"); err != nil || s.advertise.String() != "127.0.0.1" || fmt.Sprint(s.APIAudiences) != "[a b]" {
		t.Errorf("got %+v, %v", s, err)
	}
}

// TestSettleRefuses: everything that is wrong is told at once, under the name of its flag.
func TestSettleRefuses(t *testing.T) {
	for _, one := range []struct{ args, want string }{
		{"--data-dir /d --bind-address here", "--bind-address"},
		{"--data-dir /d --secure-port 70000", "--secure-port 70000 is not a port"},
		{"--data-dir /d --advertise-address x", "--advertise-address"},
		{"--data-dir /d --service-cluster-ip-range 10.0.0.0", "--service-cluster-ip-range"},
		{"--data-dir /d --service-node-port-range 5", `"5" is not first-last`},
		{"--data-dir /d --service-node-port-range 9-5", `"9-5" is not a range of ports`},
		{"--data-dir /d --service-node-port-range 0-5", "is not a range of ports"},
		{"--data-dir /d --service-node-port-range 1-70000", "is not a range of ports"},
		{"--data-dir /d --etcd-servers-overrides /events#http://e:2379", "--etcd-servers-overrides is not supported"},
		{"--data-dir /d --storage-backend etcd2", "--storage-backend invalid, allowed values: etcd3"},
		{"--data-dir /d --storage-media-type text/html", `--storage-media-type "text/html" invalid`},
		{"--data-dir /d --lease-reuse-duration-seconds 0", "--lease-reuse-duration-seconds 0 is not positive"},
		{"--data-dir /d --endpoint-reconciler-type x", `--endpoint-reconciler-type "x"`},
		{"--data-dir /d --apiserver-count 0", "--apiserver-count 0 is not positive"},
		{"--data-dir /d --encryption-provider-config-automatic-reload", "must be set with --encryption-provider-config"},
		{"--data-dir /d --authorization-mode RBAC,ABAC", "--authorization-mode ABAC is not supported"},
		{"--tls-cert-file c --tls-private-key-file k --service-account-signing-key-file s", "--etcd-servers or --data-dir is needed"},
		{"--etcd-servers http://e:2379 --tls-cert-file c --tls-private-key-file k", "--service-account-signing-key-file or --data-dir is needed"},
		{"--data-dir /d --secure-port -1 --authorization-mode X", "--secure-port -1 is not a port; --authorization-mode X is not supported"},
	} {
		_, err := flags(t, strings.Fields(one.args)...)
		if !errors.Is(err, errConfig) || !strings.Contains(err.Error(), one.want) {
			t.Errorf("%s: %v, want %s", one.args, err, one.want)
		}
	}
	if _, err := flags(t, "--etcd-servers", "http://e:2379", "--tls-cert-file", "c", "--tls-private-key-file", "k", "--service-account-signing-key-file", "s"); err != nil {
		t.Errorf("all files given: %v", err)
	}
}

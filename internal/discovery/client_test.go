package discovery

import (
	"net/http/httptest"
	"testing"

	"k8s.io/client-go/discovery"
	"k8s.io/client-go/rest"
)

// A client-go client reads the aggregated form and the plain one alike.
func TestClientGo(t *testing.T) {
	s := httptest.NewServer(Build(append(builtIn(t), widgets("example.com")), Options{}))
	defer s.Close()
	c, err := discovery.NewDiscoveryClientForConfig(&rest.Config{Host: s.URL})
	if err != nil {
		t.Fatal(err)
	}
	count := func() (groups, resources int) {
		t.Helper()
		g, lists, err := c.ServerGroupsAndResources()
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range lists {
			resources += len(l.APIResources)
		}
		return len(g), resources
	}
	groups, resources := count()
	c.UseLegacyDiscovery = true
	if g, r := count(); g != groups || r != resources || g != len(builtIn(t))+1 || r < 100 {
		t.Errorf("aggregated: %d groups, %d resources; plain: %d, %d", groups, resources, g, r)
	}
	protobuf, err := discovery.NewDiscoveryClientForConfig(&rest.Config{Host: s.URL, ContentConfig: rest.ContentConfig{AcceptContentTypes: typeProtobuf}})
	if err != nil {
		t.Fatal(err)
	}
	protobuf.UseLegacyDiscovery = true
	c = protobuf
	if g, r := count(); g != groups || r != resources {
		t.Errorf("as protobuf: %d groups, %d resources, want %d, %d", g, r, groups, resources)
	}
}

package core

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/timonel/timonel/internal/api/apitest"
	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

// cluster is a Shelf with Services that reserve.
type cluster struct {
	apitest.Shelf
	d *kind.Definition
}

func newCluster(ranges ...string) *cluster {
	o := options()
	o.IPAddress = &kind.Definition{Group: networkingv1.GroupName, Version: "v1", Kind: "IPAddress", Plural: "ipaddresses", Scope: kind.Cluster}
	o.Ranges = RangeAllocation()
	o.ServiceCIDRs = nil
	for _, r := range ranges {
		o.ServiceCIDRs = append(o.ServiceCIDRs, netip.MustParsePrefix(r))
	}
	return &cluster{Shelf: apitest.Shelf{}, d: service(o)}
}

func svc(name string, change func(s *corev1.ServiceSpec)) *corev1.Service {
	s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "d"}, Spec: corev1.ServiceSpec{
		Selector: map[string]string{"a": "b"}, Ports: []corev1.ServicePort{{Port: 80}},
	}}
	if change != nil {
		change(&s.Spec)
	}
	return s
}

// write does what the engine does with a Service; "" if it was stored, else why not.
func (c *cluster) write(s *corev1.Service) string {
	ctx := context.Background()
	c.d.Default(s)
	was, _ := c.Get(ctx, serviceResource, s.Namespace, s.Name)
	if was == nil {
		c.d.PrepareCreate(ctx, s)
		if errs := c.d.Validate(ctx, s); errs != nil {
			return errs.ToAggregate().Error()
		}
	} else {
		c.d.PrepareUpdate(ctx, s, was)
		if errs := c.d.ValidateUpdate(ctx, s, was); errs != nil {
			return errs.ToAggregate().Error()
		}
	}
	companions, err := c.d.Reserve(ctx, c, s, was, false)
	if err != nil {
		return err.Error()
	}
	c.apply(companions)
	c.Put(serviceResource, s)
	return ""
}

func (c *cluster) apply(companions []kind.Companion) {
	for _, x := range companions {
		k := apitest.Place(x.Definition.GroupResource(), x.Object.GetNamespace(), cmp.Or(x.Name, x.Object.GetName()))
		if x.Remove {
			delete(c.Shelf, k)
		} else {
			c.Shelf[k] = x.Object
		}
	}
}

func (c *cluster) addresses() int {
	list, _ := c.List(context.Background(), ipAddressResource, "")
	return len(list)
}

func TestEveryServiceGetsAnAddressOfItsOwn(t *testing.T) {
	c := newCluster("10.0.0.0/27") // 30 addresses
	seen := map[string]bool{}
	for i := range 30 {
		s := svc(fmt.Sprintf("s%d", i), nil)
		if problem := c.write(s); problem != "" {
			t.Fatalf("service %d: %s", i, problem)
		}
		ip := netip.MustParseAddr(s.Spec.ClusterIP)
		if seen[s.Spec.ClusterIP] || !netip.MustParsePrefix("10.0.0.0/27").Contains(ip) || ip.As4()[3] == 0 || ip.As4()[3] == 31 {
			t.Errorf("service %d got %s", i, ip)
		}
		seen[s.Spec.ClusterIP] = true
		if i < 14 && ip.As4()[3] <= 16 {
			t.Errorf("service %d got %s of the lower part while the upper one was not full", i, ip)
		}
	}
	if problem := c.write(svc("more", nil)); !strings.Contains(problem, "range is full") {
		t.Errorf("a full range: got %q", problem)
	}
}

func TestAddressesGoWithTheirService(t *testing.T) {
	c := newCluster("10.0.0.0/24", "fd00::/112")
	s := svc("s", func(s *corev1.ServiceSpec) { s.IPFamilyPolicy = ptr.To(corev1.IPFamilyPolicyPreferDualStack) })
	if problem := c.write(s); problem != "" {
		t.Fatal(problem)
	}
	if len(s.Spec.ClusterIPs) != 2 || !strings.HasPrefix(s.Spec.ClusterIPs[1], "fd00::") || c.addresses() != 2 {
		t.Fatalf("dual-stack Service got %v", s.Spec.ClusterIPs)
	}
	single := object.Copy(s)
	single.Spec.IPFamilyPolicy = ptr.To(corev1.IPFamilyPolicySingleStack)
	if problem := c.write(single); problem != "" || c.addresses() != 1 || len(single.Spec.ClusterIPs) != 1 {
		t.Errorf("to single-stack: %s, %v", problem, single.Spec.ClusterIPs)
	}
	named := object.Copy(single)
	named.Spec.Type, named.Spec.ExternalName = corev1.ServiceTypeExternalName, "a.b"
	if problem := c.write(named); problem != "" || c.addresses() != 0 {
		t.Errorf("to ExternalName: %s, %d addresses left", problem, c.addresses())
	}
	back := object.Copy(named)
	back.Spec.Type = corev1.ServiceTypeClusterIP
	if problem := c.write(back); problem != "" || c.addresses() != 1 || back.Spec.ExternalName != "" {
		t.Errorf("back to ClusterIP: %s, %d addresses", problem, c.addresses())
	}
	companions, err := c.d.Reserve(context.Background(), c, nil, back, false)
	if c.apply(companions); err != nil || c.addresses() != 0 {
		t.Errorf("deleted: %v, %d addresses left", err, c.addresses())
	}
}

func TestAddressesThatWereAskedFor(t *testing.T) {
	c := newCluster("10.0.0.0/24")
	ask := func(name, ip string) string {
		return c.write(svc(name, func(s *corev1.ServiceSpec) { s.ClusterIP = ip }))
	}
	for _, x := range []struct{ name, ip, want string }{
		{"a", "10.0.0.9", ""},
		{"b", "10.0.0.9", "already allocated"},
		{"c", "10.0.1.9", "not in the valid range"},
		{"d", "10.0.0.0", "not in the valid range"},
		{"e", "10.0.0.255", "not in the valid range"},
		{"f", "None", ""},
	} {
		if got := ask(x.name, x.ip); x.want == "" && got != "" || !strings.Contains(got, x.want) {
			t.Errorf("%s: got %q, want %q", x.ip, got, x.want)
		}
	}
	c.Put(serviceCIDRResource, &networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: "more"}, Spec: networkingv1.ServiceCIDRSpec{CIDRs: []string{"10.0.1.0/24"}},
		Status: networkingv1.ServiceCIDRStatus{Conditions: []metav1.Condition{{Type: networkingv1.ServiceCIDRConditionReady, Status: metav1.ConditionTrue}}}})
	if got := ask("c", "10.0.1.9"); got != "" {
		t.Errorf("an address of a ServiceCIDR: %s", got)
	}
}

func TestNodePorts(t *testing.T) {
	c := newCluster("10.0.0.0/24")
	dns := svc("dns", func(s *corev1.ServiceSpec) {
		s.Type = corev1.ServiceTypeNodePort
		s.Ports = []corev1.ServicePort{{Name: "u", Port: 53, Protocol: corev1.ProtocolUDP}, {Name: "t", Port: 53, Protocol: corev1.ProtocolTCP}, {Name: "w", Port: 80}}
	})
	if problem := c.write(dns); problem != "" {
		t.Fatal(problem)
	}
	p := dns.Spec.Ports
	if p[0].NodePort != p[1].NodePort || p[0].NodePort == p[2].NodePort || p[0].NodePort < 30086 {
		t.Errorf("node ports %d %d %d: UDP and TCP of one port should share one of the upper part", p[0].NodePort, p[1].NodePort, p[2].NodePort)
	}
	again := svc("again", func(s *corev1.ServiceSpec) {
		s.Type = corev1.ServiceTypeNodePort
		s.Ports[0].NodePort = p[2].NodePort
	})
	if got := c.write(again); !strings.Contains(got, "provided port is already allocated") {
		t.Errorf("a port in use: got %q", got)
	}
	kept := object.Copy(dns)
	for i := range kept.Spec.Ports {
		kept.Spec.Ports[i].NodePort = 0
	}
	if problem := c.write(kept); problem != "" || kept.Spec.Ports[2].NodePort != p[2].NodePort {
		t.Errorf("an update without node ports: %q, got %d, had %d", problem, kept.Spec.Ports[2].NodePort, p[2].NodePort)
	}
	lb := svc("lb", func(s *corev1.ServiceSpec) {
		s.Type, s.ExternalTrafficPolicy = corev1.ServiceTypeLoadBalancer, corev1.ServiceExternalTrafficPolicyLocal
		s.AllocateLoadBalancerNodePorts = ptr.To(false)
	})
	if problem := c.write(lb); problem != "" || lb.Spec.HealthCheckNodePort == 0 || lb.Spec.Ports[0].NodePort != 0 {
		t.Errorf("a load balancer without node ports: %q, health check %d, port %d", problem, lb.Spec.HealthCheckNodePort, lb.Spec.Ports[0].NodePort)
	}
}

// marked are the ports that are marked as in use.
func (c *cluster) marked(t *testing.T) []int {
	t.Helper()
	obj, err := c.Get(context.Background(), rangeResource, "", portAllocation)
	if err != nil {
		t.Fatal(err)
	}
	ports, ok := portsIn(obj.(*corev1.RangeAllocation), options().NodePorts)
	if !ok {
		t.Fatalf("the allocation is %v", obj)
	}
	return ports.list()
}

func TestNodePortsAreGivenBack(t *testing.T) {
	c := newCluster("10.0.0.0/24")
	s := svc("s", func(s *corev1.ServiceSpec) {
		s.Type, s.ExternalTrafficPolicy = corev1.ServiceTypeLoadBalancer, corev1.ServiceExternalTrafficPolicyLocal
		s.Ports = []corev1.ServicePort{{Name: "a", Port: 80, NodePort: 30080}, {Name: "b", Port: 81, NodePort: 30081}}
	})
	check := func(what string, s *corev1.Service, want ...int) {
		t.Helper()
		if problem := c.write(s); problem != "" {
			t.Errorf("%s: %s", what, problem)
		}
		if got := c.marked(t); !slices.Equal(got, want) {
			t.Errorf("%s: %v are marked, want %v", what, got, want)
		}
	}
	if problem := c.write(s); problem != "" {
		t.Fatal(problem)
	}
	health := int(s.Spec.HealthCheckNodePort)
	check("as it is", object.Copy(s), 30080, 30081, health)
	less := object.Copy(s)
	less.Spec.Ports = less.Spec.Ports[:1]
	check("one port less", less, 30080, health)
	global := object.Copy(less)
	global.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyCluster
	check("without a health check", global, 30080)
	moved := object.Copy(global)
	moved.Spec.Ports[0].NodePort = 30082
	check("another port", moved, 30082)
	shared := object.Copy(moved)
	shared.Spec.Ports = append(shared.Spec.Ports, corev1.ServicePort{Name: "u", Port: 90, NodePort: 30082, Protocol: corev1.ProtocolUDP})
	check("the same for UDP", shared, 30082)
	plain := object.Copy(shared)
	plain.Spec.Type = corev1.ServiceTypeClusterIP
	check("ClusterIP", plain)
	twice := svc("twice", func(s *corev1.ServiceSpec) {
		s.Type = corev1.ServiceTypeNodePort
		s.Ports = []corev1.ServicePort{{Name: "t", Port: 80, NodePort: 30090}, {Name: "u", Port: 81, NodePort: 30090, Protocol: corev1.ProtocolUDP}}
	})
	if got := c.write(twice); !strings.Contains(got, "spec.ports[1].nodePort: Invalid value: 30090: provided port is already allocated") {
		t.Errorf("one node port for two ports of a new Service: %q", got)
	}
	taken := svc("taken", func(s *corev1.ServiceSpec) {
		s.Type, s.ExternalTrafficPolicy, s.HealthCheckNodePort = corev1.ServiceTypeLoadBalancer, corev1.ServiceExternalTrafficPolicyLocal, 30095
		s.Ports = []corev1.ServicePort{{Port: 80, NodePort: 30095}}
	})
	if got := c.write(taken); !strings.Contains(got, "failed to allocate requested HealthCheck NodePort 30095: provided port is already allocated") {
		t.Errorf("a health check port in use: %q", got)
	}
}

// The bits are those that kube-apiserver stores: port 30085 of 30000-32767 is bit 85.
func TestAllocationBytes(t *testing.T) {
	s := newPortSet(PortRange{30000, 32767})
	s.add(30000)
	s.add(30085)
	if got := fmt.Sprintf("%x", s.data()); got != "2000000000000000000001" {
		t.Errorf("got %s", got)
	}
	if _, ok := portsIn(&corev1.RangeAllocation{Range: "30000-32767", Data: s.data()}, PortRange{30000, 32000}); ok {
		t.Error("an allocation of another range is taken for this one's")
	}
	if _, ok := portsIn(&corev1.RangeAllocation{Range: "30000-30007", Data: []byte{1, 0}}, PortRange{30000, 30007}); ok {
		t.Error("an allocation with bits outside of its range is taken")
	}
}

func TestRepair(t *testing.T) {
	c := newCluster("10.0.0.0/24")
	ctx := context.Background()
	repair := &Repair{Objects: c, NodePorts: options().NodePorts}
	s := svc("s", func(s *corev1.ServiceSpec) {
		s.Type, s.Ports = corev1.ServiceTypeNodePort, []corev1.ServicePort{{Port: 80, NodePort: 30080}}
	})
	if problem := c.write(s); problem != "" {
		t.Fatal(problem)
	}
	settled := func(what string) {
		t.Helper()
		if leaks, err := repair.Leaked(ctx); err != nil || !leaks.Empty() || !slices.Equal(c.marked(t), []int{30080}) || c.addresses() != 1 {
			t.Errorf("%s: %v, %v, ports %v, %d addresses", what, leaks, err, c.marked(t), c.addresses())
		}
	}
	settled("at first")
	c.Shelf[apitest.Place(rangeResource, "", portAllocation)] = &corev1.RangeAllocation{Range: "30000-32767", Data: []byte{}}
	delete(c.Shelf, apitest.Place(ipAddressResource, "", s.Spec.ClusterIP))
	if err := repair.Missing(ctx); err != nil {
		t.Error(err)
	}
	settled("what was missing")
	gone := ipAddress(netip.MustParseAddr(s.Spec.ClusterIP), s)
	delete(c.Shelf, apitest.Place(ipAddressResource, "", gone.Name))
	if err := repair.Address(ctx, gone); err != nil {
		t.Error(err)
	}
	settled("an address deleted by hand")

	ports := newPortSet(options().NodePorts)
	for _, p := range []int{30080, 30081, 30082} {
		ports.add(p)
	}
	c.Shelf[apitest.Place(rangeResource, "", portAllocation)] = &corev1.RangeAllocation{Range: "30000-32767", Data: ports.data()}
	c.Put(ipAddressResource, ipAddress(netip.MustParseAddr("10.0.0.77"), svc("never", nil)))
	mine := ipAddress(netip.MustParseAddr("10.0.0.78"), svc("mine", nil))
	mine.Labels = nil // somebody else looks after it
	c.Put(ipAddressResource, mine)
	leaks, err := repair.Leaked(ctx)
	if err != nil || !slices.Equal(leaks.Ports, []int{30081, 30082}) || !slices.Equal(leaks.Addresses, []string{"10.0.0.77"}) {
		t.Fatalf("leaks %v, %v", leaks, err)
	}
	late := svc("late", func(s *corev1.ServiceSpec) {
		s.Type, s.ClusterIP, s.ClusterIPs = corev1.ServiceTypeNodePort, "10.0.0.9", []string{"10.0.0.9"}
		s.Ports = []corev1.ServicePort{{Port: 80, NodePort: 30082}}
	})
	c.Put(serviceResource, late) // another server wrote the Service that the port was for
	if err := repair.Release(ctx, leaks); err != nil {
		t.Error(err)
	}
	if got := c.marked(t); !slices.Equal(got, []int{30080, 30082}) || c.addresses() != 2 {
		t.Errorf("after the leaks were given back: %v are marked, %d addresses", got, c.addresses())
	}

	other := svc("other", func(s *corev1.ServiceSpec) {
		s.ClusterIP, s.ClusterIPs, s.Type = "10.0.0.9", []string{"10.0.0.9"}, corev1.ServiceTypeClusterIP
	})
	if err := repair.Missing(ctx); err != nil {
		t.Error(err)
	}
	c.Put(serviceResource, other)
	if err := repair.Missing(ctx); err == nil || !strings.Contains(err.Error(), "the Service d/other has the address 10.0.0.9, which is reserved for d/late") {
		t.Errorf("two Services with one address: %v", err)
	}
}

package controller

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
)

func intOrString(s string) intstr.IntOrString { return intstr.Parse(s) }

func webPod(i int) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("p%03d", i), Namespace: "a", Labels: app},
		Spec:       corev1.PodSpec{NodeName: "n1", Containers: []corev1.Container{{Name: "c", Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080, Protocol: corev1.ProtocolTCP}}}}},
		Status: corev1.PodStatus{
			Phase: corev1.PodRunning, PodIP: fmt.Sprintf("10.0.%d.%d", i/250, i%250+1), PodIPs: []corev1.PodIP{{IP: fmt.Sprintf("10.0.%d.%d", i/250, i%250+1)}},
			Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}},
		},
	}
}

func webService() *corev1.Service {
	return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "a", Labels: map[string]string{"team": "t"}}, Spec: corev1.ServiceSpec{
		Selector: app, ClusterIP: "10.96.0.9", IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol},
		Ports: []corev1.ServicePort{{Name: "http", Port: 80, Protocol: corev1.ProtocolTCP, TargetPort: intOrString("http")}},
	}}
}

func TestEndpoints(t *testing.T) {
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1", Labels: map[string]string{corev1.LabelTopologyZone: "z1"}}}
	run(t, func(c *Controllers) { c.addEndpointSlices(); c.addEndpoints() }, func(c *cluster) {
		slicesOf := func() []discoveryv1.EndpointSlice {
			c.settle()
			return must[*discoveryv1.EndpointSliceList](t)(c.client.DiscoveryV1().EndpointSlices("a").List(c.ctx, metav1.ListOptions{})).Items
		}
		must[*corev1.Service](t)(c.client.CoreV1().Services("a").Create(c.ctx, webService(), metav1.CreateOptions{}))
		if all := slicesOf(); len(all) != 1 || len(all[0].Endpoints) != 0 || all[0].Labels[discoveryv1.LabelServiceName] != "web" ||
			all[0].Labels[discoveryv1.LabelManagedBy] != sliceManager || all[0].Labels["team"] != "t" || len(all[0].OwnerReferences) != 1 {
			t.Fatalf("slices of a service without pods: %+v", all)
		}
		for i := range 120 {
			must[*corev1.Pod](t)(c.client.CoreV1().Pods("a").Create(c.ctx, webPod(i), metav1.CreateOptions{}))
		}
		time.Sleep(2 * time.Second)
		all, n := slicesOf(), 0
		for _, slice := range all {
			n += len(slice.Endpoints)
			if len(slice.Endpoints) > maxEndpointsPerSlice || *slice.Ports[0].Port != 8080 || *slice.Ports[0].Name != "http" {
				t.Errorf("slice %s: %d endpoints, ports %v", slice.Name, len(slice.Endpoints), slice.Ports)
			}
			for _, e := range slice.Endpoints {
				if !*e.Conditions.Ready || !*e.Conditions.Serving || *e.Conditions.Terminating || *e.NodeName != "n1" || *e.Zone != "z1" || e.TargetRef.Kind != "Pod" {
					t.Fatalf("endpoint %+v", e)
				}
			}
		}
		if n != 120 || len(all) > 3 {
			t.Errorf("%d endpoints in %d slices", n, len(all))
		}
		// One pod stops being ready: one slice is written.
		c.client.ClearActions()
		pod := must[*corev1.Pod](t)(c.client.CoreV1().Pods("a").Get(c.ctx, "p007", metav1.GetOptions{}))
		pod.Status.Conditions[0].Status = corev1.ConditionFalse
		must[*corev1.Pod](t)(c.client.CoreV1().Pods("a").UpdateStatus(c.ctx, pod, metav1.UpdateOptions{}))
		c.settle()
		if n := c.writes("update", "endpointslices"); n != 1 {
			t.Errorf("%d slices written for one pod", n)
		}
		legacy := must[*corev1.Endpoints](t)(c.client.CoreV1().Endpoints("a").Get(c.ctx, "web", metav1.GetOptions{}))
		if len(legacy.Subsets) != 1 || len(legacy.Subsets[0].Addresses) != 119 || len(legacy.Subsets[0].NotReadyAddresses) != 1 || legacy.Subsets[0].Ports[0].Port != 8080 {
			t.Errorf("endpoints: %d subsets", len(legacy.Subsets))
		}
		c.quiet()
		if err := c.client.CoreV1().Services("a").Delete(c.ctx, "web", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		c.settle()
		if _, err := c.client.CoreV1().Endpoints("a").Get(c.ctx, "web", metav1.GetOptions{}); err == nil {
			t.Error("the service is gone, its Endpoints stay")
		}
	}, node)
}

// TestSliceWrites: what has room for an endpoint comes before what is to hold it, and that before what held it.
func TestSliceWrites(t *testing.T) {
	var objects []runtime.Object
	for i := range 170 {
		pod := webPod(i)
		if i >= 50 {
			pod.Labels = map[string]string{"app": "web", "next": "yes"}
		}
		if i >= 100 {
			delete(pod.Labels, "app")
		}
		if i == 0 {
			pod.Spec.Containers[0].Ports[0].ContainerPort = 9090 // which makes a slice of its own
		}
		objects = append(objects, pod)
	}
	run(t, (*Controllers).addEndpointSlices, func(c *cluster) {
		svc := must[*corev1.Service](t)(c.client.CoreV1().Services("a").Create(c.ctx, webService(), metav1.CreateOptions{}))
		time.Sleep(2 * time.Second)
		c.settle()
		c.client.ClearActions()
		svc.Spec.Selector = map[string]string{"next": "yes"}
		must[*corev1.Service](t)(c.client.CoreV1().Services("a").Update(c.ctx, svc, metav1.UpdateOptions{}))
		time.Sleep(2 * time.Second)
		c.settle()
		var got []string
		for _, a := range c.client.Actions() {
			if a.GetResource().Resource == "endpointslices" {
				got = append(got, a.GetVerb())
			}
		}
		got = slices.Compact(got) // a deletion is tried again until the informer tells of it
		if want := []string{"update", "create", "delete"}; !slices.Equal(got, want) {
			t.Errorf("wrote by %v, want %v", got, want)
		}
	}, objects...)
}

// TestEndpointsOnce: an endpoint is in one slice, although news of the slices come late.
func TestEndpointsOnce(t *testing.T) {
	var objects []runtime.Object
	for i := range maxEndpointsPerSlice - 1 {
		objects = append(objects, webPod(i))
	}
	run(t, func(c *Controllers) { late(c, "endpointslices"); c.addEndpointSlices() }, func(c *cluster) {
		must[*corev1.Service](t)(c.client.CoreV1().Services("a").Create(c.ctx, webService(), metav1.CreateOptions{}))
		time.Sleep(5 * time.Second)
		for i := range 2 { // the first fills the slice
			must[*corev1.Pod](t)(c.client.CoreV1().Pods("a").Create(c.ctx, webPod(maxEndpointsPerSlice-1+i), metav1.CreateOptions{}))
			time.Sleep(500 * time.Millisecond)
		}
		in := map[string]int{}
		for range 20 {
			clear(in)
			for _, slice := range must[*discoveryv1.EndpointSliceList](t)(c.client.DiscoveryV1().EndpointSlices("a").List(c.ctx, metav1.ListOptions{})).Items {
				for _, e := range slice.Endpoints {
					if in[e.TargetRef.Name]++; in[e.TargetRef.Name] > 1 {
						t.Errorf("%s is in more than one slice", e.TargetRef.Name)
					}
				}
			}
			time.Sleep(500 * time.Millisecond)
		}
		if len(in) != maxEndpointsPerSlice+1 {
			t.Errorf("%d endpoints, want %d", len(in), maxEndpointsPerSlice+1)
		}
	}, objects...)
}

func TestQuota(t *testing.T) {
	run(t, (*Controllers).addQuotas, func(c *cluster) {
		quotas := c.client.CoreV1().ResourceQuotas("a")
		pod := webPod(1)
		pod.Spec.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("500m")}
		must[*corev1.Pod](t)(c.client.CoreV1().Pods("a").Create(c.ctx, pod, metav1.CreateOptions{}))
		must[*corev1.ResourceQuota](t)(quotas.Create(c.ctx, &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Name: "q", Namespace: "a"}, Spec: corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{
			corev1.ResourcePods: resource.MustParse("3"), corev1.ResourceRequestsCPU: resource.MustParse("2"), corev1.ResourceServices: resource.MustParse("1"),
		}}}, metav1.CreateOptions{}))
		check := func(when, pods, cpu string) {
			t.Helper()
			time.Sleep(time.Minute)
			c.settle()
			q := must[*corev1.ResourceQuota](t)(quotas.Get(c.ctx, "q", metav1.GetOptions{}))
			used := q.Status.Used
			if p, n, s := used[corev1.ResourcePods], used[corev1.ResourceRequestsCPU], used[corev1.ResourceServices]; p.String() != pods || n.String() != cpu || s.String() != "0" || len(q.Status.Hard) != 3 {
				t.Errorf("%s: used %v of %v", when, used, q.Status.Hard)
			}
		}
		check("at first", "1", "500m")
		q := must[*corev1.ResourceQuota](t)(quotas.Get(c.ctx, "q", metav1.GetOptions{}))
		q.Status.Used[corev1.ResourcePods] = resource.MustParse("2") // charged, and then not made
		must[*corev1.ResourceQuota](t)(quotas.UpdateStatus(c.ctx, q, metav1.UpdateOptions{}))
		check("a charge for nothing", "1", "500m")
		pod.Status.Phase = corev1.PodSucceeded
		must[*corev1.Pod](t)(c.client.CoreV1().Pods("a").UpdateStatus(c.ctx, pod, metav1.UpdateOptions{}))
		check("the pod ended", "0", "0")
		c.quiet()
	})
}

func TestNodeLifecycle(t *testing.T) {
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}, Status: corev1.NodeStatus{Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}}}
	pod := webPod(1)
	pod.Spec.Tolerations = []corev1.Toleration{{Key: corev1.TaintNodeUnreachable, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: ptr(int64(300))}}
	run(t, func(c *Controllers) { c.addNodes(); c.addTaintEviction() }, func(c *cluster) {
		get := func() *corev1.Node {
			c.settle()
			return must[*corev1.Node](t)(c.client.CoreV1().Nodes().Get(c.ctx, "n1", metav1.GetOptions{}))
		}
		time.Sleep(nodeGrace - started - time.Second) // after a restart it has the whole grace, however old its lease
		if n := get(); n.Status.Conditions[0].Status != corev1.ConditionTrue || len(n.Spec.Taints) > 0 || n.Annotations[ttlAnnotation] != "0" {
			t.Fatalf("too early: %+v", n)
		}
		time.Sleep(2 * time.Second)
		n := get()
		if c := n.Status.Conditions[0]; c.Status != corev1.ConditionUnknown || c.Reason != "NodeStatusUnknown" || len(n.Spec.Taints) != 2 {
			t.Fatalf("the node is silent: %+v", n)
		}
		if p := c.allPods(); len(p) != 1 || ready(&p[0]) {
			t.Errorf("its pods: %v", p)
		}
		time.Sleep(297 * time.Second)
		if c.settle(); len(c.allPods()) != 1 {
			t.Error("the pod is evicted too early")
		}
		time.Sleep(4 * time.Second)
		if c.settle(); len(c.allPods()) != 0 {
			t.Error("the pod is not evicted")
		}
		n.Status.Conditions[0].Status, n.Status.Conditions[0].LastHeartbeatTime = corev1.ConditionTrue, metav1.Now()
		must[*corev1.Node](t)(c.client.CoreV1().Nodes().UpdateStatus(c.ctx, n, metav1.UpdateOptions{}))
		if n := get(); len(n.Spec.Taints) != 0 {
			t.Errorf("it is back: %v", n.Spec.Taints)
		}
	}, node, pod)
}

// TestNodeIsHeardByTheServer: a node that renews its Lease is not lost because our informer does not tell of it.
func TestNodeIsHeardByTheServer(t *testing.T) {
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}, Status: corev1.NodeStatus{Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}}}
	run(t, func(c *Controllers) {
		deaf(c, "leases")
		c.addNodes()
	}, func(c *cluster) {
		leases := c.client.CoordinationV1().Leases(corev1.NamespaceNodeLease)
		renew := func(write func(ctx context.Context, l *coordinationv1.Lease) (*coordinationv1.Lease, error)) {
			t.Helper()
			now := metav1.NowMicro()
			must[*coordinationv1.Lease](t)(write(c.ctx, &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: "n1", Namespace: corev1.NamespaceNodeLease}, Spec: coordinationv1.LeaseSpec{RenewTime: &now}}))
		}
		renew(func(ctx context.Context, l *coordinationv1.Lease) (*coordinationv1.Lease, error) {
			return leases.Create(ctx, l, metav1.CreateOptions{})
		})
		check := func(want corev1.ConditionStatus) {
			t.Helper()
			c.settle()
			n := must[*corev1.Node](t)(c.client.CoreV1().Nodes().Get(c.ctx, "n1", metav1.GetOptions{}))
			if got := n.Status.Conditions[0].Status; got != want {
				t.Errorf("ready: %s, want %s", got, want)
			}
		}
		for range 30 {
			time.Sleep(10 * time.Second)
			renew(func(ctx context.Context, l *coordinationv1.Lease) (*coordinationv1.Lease, error) {
				return leases.Update(ctx, l, metav1.UpdateOptions{})
			})
			check(corev1.ConditionTrue)
		}
		time.Sleep(2 * nodeGrace) // a look at the server tells when it was renewed, not how long ago that was
		check(corev1.ConditionUnknown)
	}, node)
}

// TestHeldUp: who comes late to judge a node listens once more.
func TestHeldUp(t *testing.T) {
	start := time.Now()
	w := &nodeWatch{signs: map[string]sign{"n": {at: start}}}
	check := func(at, want time.Duration) {
		t.Helper()
		if got := w.await("n", start.Add(at)); got != want {
			t.Errorf("after %v: %v more, want %v", at, got, want)
		}
	}
	check(0, nodeGrace)
	check(nodeGrace-time.Second, time.Second)
	check(nodeGrace+nodeLate+time.Second, nodeLate) // it meant to come eleven seconds ago
	check(nodeGrace+nodeLate+2*time.Second, nodeLate-time.Second)
	check(nodeGrace+2*nodeLate+time.Second, 0)
	check(time.Hour, 0) // it was judged
	w.signs["n"] = sign{at: start.Add(time.Hour)}
	check(time.Hour+nodeGrace, 0)
}

func TestToleratedFor(t *testing.T) {
	taints := []corev1.Taint{{Key: "a", Effect: corev1.TaintEffectNoExecute}, {Key: "b", Value: "v", Effect: corev1.TaintEffectNoExecute}}
	all := corev1.Toleration{Operator: corev1.TolerationOpExists}
	for _, test := range []struct {
		name        string
		tolerations []corev1.Toleration
		stay        time.Duration
		ok          bool
	}{
		{"none", nil, 0, false},
		{"one of two", []corev1.Toleration{{Key: "a", Operator: corev1.TolerationOpExists}}, 0, false},
		{"everything", []corev1.Toleration{all}, -1, true},
		{"the shorter", []corev1.Toleration{{Key: "a", Operator: corev1.TolerationOpExists, TolerationSeconds: ptr(int64(5))}, {Key: "b", Value: "v", TolerationSeconds: ptr(int64(3))}}, 3 * time.Second, true},
		{"other value", []corev1.Toleration{{Key: "a", Operator: corev1.TolerationOpExists}, {Key: "b", Value: "w"}}, 0, false},
	} {
		if stay, ok := toleratedFor(taints, test.tolerations); ok != test.ok || ok && stay != test.stay {
			t.Errorf("%s: %v %v", test.name, stay, ok)
		}
	}
}

func TestPodCollector(t *testing.T) {
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}}
	stray, kept := webPod(1), webPod(2)
	stray.Spec.NodeName = "gone"
	run(t, (*Controllers).addPodCollector, func(c *cluster) {
		time.Sleep(nodeQuarantine - started - time.Second)
		if c.settle(); len(c.allPods()) != 2 {
			t.Error("too early")
		}
		time.Sleep(2 * time.Second)
		if c.settle(); len(c.allPods()) != 1 || c.allPods()[0].Name != kept.Name {
			t.Errorf("pods %v", c.allPods())
		}
	}, node, stray, kept)
}

func TestNamespaceConditions(t *testing.T) {
	r := remains{content: map[string]int{"pods.": 1, "widgets.example.com": 2}, finalizers: map[string]int{"example.com/f": 1}, failed: []error{fmt.Errorf("no")}}
	want := map[corev1.NamespaceConditionType]string{
		corev1.NamespaceDeletionDiscoveryFailure: "False ResourcesDiscovered All resources successfully discovered",
		corev1.NamespaceDeletionGVParsingFailure: "False ParsedGroupVersions All legacy kube types successfully parsed",
		corev1.NamespaceDeletionContentFailure:   "True ContentDeletionFailed Failed to delete all resource types, 1 remaining: no",
		corev1.NamespaceContentRemaining:         "True SomeResourcesRemain Some resources are remaining: pods. has 1 resource instances, widgets.example.com has 2 resource instances",
		corev1.NamespaceFinalizersRemaining:      "True SomeFinalizersRemain Some content in the namespace has finalizers remaining: example.com/f in 1 resource instances",
	}
	for _, c := range r.conditions(nil, metav1.Now()) {
		if got := fmt.Sprint(c.Status, " ", c.Reason, " ", c.Message); got != want[c.Type] {
			t.Errorf("%s: %s", c.Type, got)
		}
	}
}

package scheduler

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/kubernetes/fake"
	informer "k8s.io/client-go/tools/cache"
)

// TestMissedDeletions hands over what a relist makes of events that the watch
// missed.
func TestMissedDeletions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(fake.NewClientset(), Config{})
		defer s.queue.close()
		w := s.watches
		pods := typed(w.podAdded, w.podUpdated, w.podDeleted)
		nodes := typed(w.nodeAdded, w.nodeUpdated, w.nodeDeleted)
		cpu := func() int64 { return s.cache.snapshot().Nodes[0].Requested.MilliCPU }

		nodes.OnAdd(newNode(t, "a", ""), true)
		waiting, placed := requests(t, "w", "1", "1"), on("a", requests(t, "p", "2", "1"))
		pods.OnAdd(waiting, true)
		pods.OnAdd(placed, true)
		if cpu() != 2000 {
			t.Fatalf("requested %d", cpu())
		}
		pods.OnDelete(informer.DeletedFinalStateUnknown{Key: "ns/w", Obj: waiting})
		checkCounts(t, s.queue, 0, 0, 0, 0)

		// Deleted and created again, seen as one update.
		again := requests(t, "p", "3", "1")
		again.UID = "another"
		pods.OnUpdate(placed, again)
		if cpu() != 0 {
			t.Errorf("requested %d, want 0", cpu())
		}
		checkCounts(t, s.queue, 1, 0, 0, 0)

		// Assumed, then the deletion was missed while it had no node.
		p := popName(t, s.queue)
		s.queue.chosen(p)
		s.cache.assume(p.trying, "a")
		pods.OnDelete(informer.DeletedFinalStateUnknown{Key: "ns/p", Obj: again})
		if cpu() != 0 {
			t.Errorf("requested %d, want 0", cpu())
		}
		s.queue.finish(p)
		checkCounts(t, s.queue, 0, 0, 0, 0)

		// A node likewise.
		other := newNode(t, "a", "metadata: {labels: {new: 'yes'}}")
		other.UID = "another"
		nodes.OnUpdate(newNode(t, "a", ""), other)
		if got := s.cache.snapshot(); len(got.Nodes) != 1 || got.Nodes[0].Labels["new"] != "yes" {
			t.Errorf("nodes %v", got.Nodes)
		}
		nodes.OnDelete(informer.DeletedFinalStateUnknown{Key: "a", Obj: other})
		if got := s.cache.snapshot(); len(got.Nodes) != 0 {
			t.Errorf("nodes %v", got.Nodes)
		}
	})
}

// TestSlimPodKeepsWhatPluginsRead compares what is worked out of a pod.
func TestSlimPodKeepsWhatPluginsRead(t *testing.T) {
	pod := newPod(t, "p", `
metadata: {labels: {app: web}, annotations: {big: text}, managedFields: [{manager: m}]}
spec:
	initContainers: [{name: s, image: side, restartPolicy: Always, ports: [{containerPort: 1, hostPort: 1}], resources: {requests: {cpu: 100m}}}]
	containers: [{name: c, image: app, env: [{name: A, value: b}], ports: [{containerPort: 2, hostPort: 2}], resources: {requests: {cpu: '1'}}}]
	volumes: [{name: cm, configMap: {name: cm}}, {name: pvc, persistentVolumeClaim: {claimName: c}}]
status: {containerStatuses: [{name: c, image: app, ready: true, restartCount: 0, imageID: '', resources: {requests: {cpu: '2'}}}]}`)
	small := slimPod(pod)
	if len(small.Annotations)+len(small.ManagedFields)+len(small.Spec.Containers[0].Env) != 0 || len(small.Spec.Volumes) != 1 {
		t.Errorf("not slim: %+v", small)
	}
	a, b := newPodInfo(pod), newPodInfo(small)
	if !a.Requests.minus(b.Requests).isZero() || a.Requests.MilliCPU != 2100 || len(b.Ports) != 2 || len(podImages(small)) != 2 || !hasClaims(small) {
		t.Errorf("lost something: %+v, was %+v", b, a)
	}
	if len(pod.Annotations) == 0 || len(pod.Spec.Containers[0].Env) == 0 {
		t.Error("the original changed")
	}
}

func TestEventLimits(t *testing.T) {
	long := strings.Repeat("p", 252) + "-x"
	name := eventName(long, time.Unix(1, 0))
	if errs := validation.IsDNS1123Subdomain(name); len(errs) > 0 {
		t.Errorf("%s: %v", name, errs)
	}
	synctest.Test(t, func(t *testing.T) {
		r := newReporter(nil, strings.Repeat("s", 200), nil)
		defer r.close()
		r.failed(newPod(t, "p", ""), strings.Repeat("é", maxNote))
		e := (<-r.unsent).event
		if len(e.Note) > maxNote || !strings.HasSuffix(e.Note, "é ...") || len(e.ReportingInstance) > maxInstance {
			t.Errorf("note of %d bytes, instance of %d", len(e.Note), len(e.ReportingInstance))
		}
	})
}

func BenchmarkDecide(b *testing.B) {
	var nodes []*v1.Node
	var pods []*v1.Pod
	for i := range 1000 {
		name := "n" + string(rune('a'+i%26)) + string(rune('a'+i/26%26)) + string(rune('a'+i/676))
		nodes = append(nodes, newNode(b, name, ""))
		for j := range 10 {
			pods = append(pods, on(name, requests(b, name+string(rune('0'+j)), "100m", "100Mi")))
		}
	}
	cluster := newCluster(nodes, pods...)
	s := New(fake.NewClientset(), Config{})
	pod := newPodInfo(requests(b, "p", "100m", "100Mi"))
	for b.Loop() {
		if _, misfit, err := s.decide(pod, cluster); misfit != nil || err != nil {
			b.Fatal(misfit, err)
		}
	}
}

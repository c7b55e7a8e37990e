package scheduler

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	v1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	kubetesting "k8s.io/client-go/testing"
)

// A harness runs a Scheduler against client-go's fake API, which it teaches to
// bind, in a bubble of fake time.
type harness struct {
	*testing.T
	client *fake.Clientset
	s      *Scheduler
	// refuseBinding, if set, answers the binding of a pod by this name.
	refuseBinding func(pod string) error
}

func schedule(t *testing.T, story func(h *harness), objects ...runtime.Object) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		h := &harness{T: t, client: fake.NewClientset(objects...)}
		h.client.PrependReactor("create", "pods", h.bind)
		h.s = New(h.client, Config{})
		if h.s.Healthy() == nil {
			t.Error("healthy before Run")
		}
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error)
		go func() { ended <- h.s.Run(ctx) }()
		synctest.Wait()
		if err := h.s.Healthy(); err != nil {
			t.Error(err)
		}
		defer func() { // also when the story fails
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
			if h.s.Healthy() == nil {
				t.Error("healthy after Run")
			}
		}()
		story(h)
	})
}

func (h *harness) bind(action kubetesting.Action) (bool, runtime.Object, error) {
	if action.GetSubresource() != "binding" {
		return false, nil, nil
	}
	binding := action.(kubetesting.CreateAction).GetObject().(*v1.Binding)
	if h.refuseBinding != nil {
		if err := h.refuseBinding(binding.Name); err != nil {
			return true, nil, err
		}
	}
	pod := h.pod(binding.Name).DeepCopy()
	if pod.UID != binding.UID {
		h.Errorf("binding of %s has UID %q", pod.Name, binding.UID)
	}
	if pod.Spec.NodeName != "" {
		return true, nil, apierrors.NewConflict(v1.Resource("pods/binding"), pod.Name, fmt.Errorf("already assigned to %s", pod.Spec.NodeName))
	}
	pod.Spec.NodeName = binding.Target.Name
	h.update(pod)
	return true, nil, nil
}

func (h *harness) pod(name string) *v1.Pod {
	h.Helper()
	obj, err := h.client.Tracker().Get(v1.SchemeGroupVersion.WithResource("pods"), "ns", name)
	if err != nil {
		h.Fatal(err)
	}
	return obj.(*v1.Pod)
}

func (h *harness) update(pod *v1.Pod) {
	h.Helper()
	if err := h.client.Tracker().Update(v1.SchemeGroupVersion.WithResource("pods"), pod, "ns"); err != nil {
		h.Fatal(err)
	}
}

func (h *harness) create(pods ...*v1.Pod) {
	h.Helper()
	for _, pod := range pods {
		if _, err := h.client.CoreV1().Pods("ns").Create(h.Context(), pod, metav1.CreateOptions{}); err != nil {
			h.Fatal(err)
		}
	}
	synctest.Wait()
}

func (h *harness) delete(name string) {
	h.Helper()
	if err := h.client.CoreV1().Pods("ns").Delete(h.Context(), name, metav1.DeleteOptions{}); err != nil {
		h.Fatal(err)
	}
	synctest.Wait()
}

func (h *harness) setNode(node *v1.Node) {
	h.Helper()
	nodes := h.client.CoreV1().Nodes()
	if _, err := nodes.Update(h.Context(), node, metav1.UpdateOptions{}); apierrors.IsNotFound(err) {
		_, err = nodes.Create(h.Context(), node, metav1.CreateOptions{})
		if err != nil {
			h.Fatal(err)
		}
	}
	synctest.Wait()
}

// on checks where a pod is, "" for nowhere.
func (h *harness) on(pod, node string) {
	h.Helper()
	if got := h.pod(pod).Spec.NodeName; got != node {
		h.Errorf("%s is on %q, want %q", pod, got, node)
	}
}

// says checks a pod's PodScheduled condition.
func (h *harness) says(pod, reason, message string) {
	h.Helper()
	for _, c := range h.pod(pod).Status.Conditions {
		if c.Type == v1.PodScheduled {
			if c.Status != v1.ConditionFalse || c.Reason != reason || c.Message != message {
				h.Errorf("%s: PodScheduled=%s %s\n\t%s\nwant False %s\n\t%s", pod, c.Status, c.Reason, c.Message, reason, message)
			}
			return
		}
	}
	h.Errorf("%s has no condition PodScheduled", pod)
}

func (h *harness) events(pod string) []eventsv1.Event {
	h.Helper()
	list, err := h.client.EventsV1().Events("ns").List(h.Context(), metav1.ListOptions{})
	if err != nil {
		h.Fatal(err)
	}
	return slices.DeleteFunc(list.Items, func(e eventsv1.Event) bool { return e.Regarding.Name != pod })
}

// writes counts the requests that change something since the last call, by
// verb and resource.
func (h *harness) writes() map[string]int {
	out := map[string]int{}
	for _, a := range h.client.Actions() {
		if v := a.GetVerb(); v != "list" && v != "watch" && v != "get" {
			name := v + " " + a.GetResource().Resource
			if a.GetSubresource() != "" {
				name += "/" + a.GetSubresource()
			}
			out[name]++
		}
	}
	h.client.ClearActions()
	return out
}

func TestSchedules(t *testing.T) {
	schedule(t, func(h *harness) {
		h.create(requests(t, "a", "1", "1Gi"))
		h.on("a", "small") // the only one that fits
		h.create(requests(t, "b", "3", "1Gi"), requests(t, "c", "3", "1Gi"))
		h.on("b", "small")
		h.on("c", "")
		h.says("c", "Unschedulable", "0/2 nodes are available: 1 Insufficient cpu, 1 node(s) had untolerated taint(s)."+
			" preemption: 0/2 nodes are available: 1 No preemption victims found for incoming pod, 1 Preemption is not helpful for scheduling.")
		got := h.events("a")
		if len(got) != 1 {
			t.Fatalf("%d events about a", len(got))
		}
		e := got[0]
		if e.Type != "Normal" || e.Reason != "Scheduled" || e.Action != "Binding" || e.Note != "Successfully assigned ns/a to small" ||
			e.ReportingController != "default-scheduler" || !strings.HasPrefix(e.ReportingInstance, "default-scheduler-") ||
			e.Regarding.Kind != "Pod" || e.Regarding.UID != "uid-a" || e.EventTime.IsZero() {
			t.Errorf("event %+v", e)
		}
		got = h.events("c")
		if len(got) != 1 || got[0].Type != "Warning" || got[0].Reason != "FailedScheduling" || got[0].Action != "Scheduling" ||
			!strings.HasPrefix(got[0].Note, "0/2 nodes are available: ") {
			t.Errorf("events about c: %+v", got)
		}
	}, newNode(t, "small", ""), newNode(t, "gpu", "spec: {taints: [{key: dedicated, value: gpu, effect: NoSchedule}]}"))
}

func TestLeavesOthersAlone(t *testing.T) {
	schedule(t, func(h *harness) {
		going := newPod(t, "going", "metadata: {deletionTimestamp: '2026-01-01T00:00:00Z', finalizers: [x]}")
		h.create(
			newPod(t, "other", "spec: {schedulerName: other}"),
			newPod(t, "gated", "spec: {schedulingGates: [{name: wait}]}"),
			going,
		)
		h.on("other", "")
		h.on("gated", "")
		h.on("going", "")
		if got := h.writes(); got["patch pods/status"]+got["create events"] > 0 {
			t.Errorf("wrote %v", got)
		}
		open := h.pod("gated").DeepCopy()
		open.Spec.SchedulingGates = nil
		h.update(open)
		synctest.Wait()
		h.on("gated", "a")
	}, newNode(t, "a", ""))
}

func TestNoNodes(t *testing.T) {
	schedule(t, func(h *harness) {
		h.create(newPod(t, "p", ""))
		h.says("p", "Unschedulable", "no nodes available to schedule pods")
		h.setNode(newNode(t, "a", ""))
		h.on("p", "a")
	})
}

func TestRetriesWhenItMatters(t *testing.T) {
	schedule(t, func(h *harness) {
		h.create(requests(t, "p", "8", "1Gi"))
		h.on("p", "")
		h.writes()

		// A heartbeat and an unhelpful change wake nobody.
		node := newNode(t, "a", "status: {conditions: [{type: Ready, status: 'True'}]}")
		before := h.s.cache.snapshot().node("a")
		h.setNode(node)
		if h.s.cache.snapshot().node("a") != before {
			t.Error("a heartbeat made work")
		}
		node = node.DeepCopy()
		node.Labels["x"] = "y"
		h.setNode(node)
		if got := h.writes(); len(got) != 2 { // the test's own: create is a failed update first
			if got["patch pods/status"]+got["create events"] > 0 {
				t.Errorf("woken in vain: %v", got)
			}
		}
		grown := node.DeepCopy()
		grown.Status.Allocatable = parse[v1.NodeStatus](t, `allocatable: {cpu: "8", memory: 8Gi, pods: "10"}`).Allocatable
		h.setNode(grown)
		h.on("p", "a")

		h.create(requests(t, "q", "8", "1Gi"))
		h.on("q", "")
		h.delete("p")
		h.on("q", "a")

		// A pod that finished makes room as well.
		h.create(requests(t, "r", "8", "1Gi"))
		h.on("r", "")
		done := h.pod("q").DeepCopy()
		done.Status.Phase = v1.PodSucceeded
		h.update(done)
		synctest.Wait()
		h.on("r", "a")
	}, newNode(t, "a", ""))
}

func TestPriorityFirst(t *testing.T) {
	schedule(t, func(h *harness) {
		low, high := requests(t, "low", "4", "1Gi"), requests(t, "high", "4", "1Gi")
		one := int32(1)
		never := v1.PreemptNever
		high.Spec.Priority, high.Spec.PreemptionPolicy = &one, &never
		h.create(low, high) // both wait for a node
		h.setNode(newNode(t, "a", ""))
		h.on("high", "a")
		h.on("low", "")
	})
}

func TestConditionAndEventsAreNotRepeated(t *testing.T) {
	schedule(t, func(h *harness) {
		h.create(requests(t, "p", "8", "1Gi"))
		h.writes()
		h.create(newPod(t, "x", ""))
		h.delete("x") // which may have made room
		if got := h.writes(); got["patch events"] != 1 {
			t.Errorf("the second time is not told at once: %v", got)
		}
		for range 5 { // the last resort retries it, to the same end
			time.Sleep(maxParked)
			synctest.Wait()
		}
		got := h.writes()
		if got["patch pods/status"] != 0 {
			t.Errorf("wrote an unchanged condition: %v", got)
		}
		e := h.events("p")
		if len(e) != 1 || e[0].Series == nil || e[0].Series.Count < 6 {
			t.Errorf("events %+v", e)
		}
		h.delete("p")
		time.Sleep(20 * time.Minute)
		h.writes()
		time.Sleep(time.Hour)
		if got := h.writes(); len(got) != 0 {
			t.Errorf("idle, it wrote %v", got)
		}
	}, newNode(t, "a", ""))
}

func TestBindingFails(t *testing.T) {
	schedule(t, func(h *harness) {
		var tries atomic.Int32
		h.refuseBinding = func(pod string) error {
			if pod == "p" && tries.Add(1) <= 2 {
				return errors.New("the network is down")
			}
			return nil
		}
		start := time.Now()
		h.create(requests(t, "p", "4", "1Gi"))
		h.on("p", "")
		h.says("p", "SchedulerError", "binding rejected: the network is down")
		// What was assumed for it is free again.
		h.create(requests(t, "q", "4", "1Gi"))
		h.on("q", "a")
		h.delete("q")
		time.Sleep(3 * time.Second)
		synctest.Wait()
		h.on("p", "a")
		if d := time.Since(start); d > 4*time.Second {
			t.Errorf("took %v", d)
		}
		if tries.Load() != 3 {
			t.Errorf("%d tries", tries.Load())
		}
	}, newNode(t, "a", ""))
}

func TestBindingOfADeletedPod(t *testing.T) {
	schedule(t, func(h *harness) {
		h.refuseBinding = func(pod string) error {
			if pod != "p" {
				return nil
			}
			if err := h.client.Tracker().Delete(v1.SchemeGroupVersion.WithResource("pods"), "ns", "p"); err != nil {
				t.Error(err)
			}
			return apierrors.NewNotFound(v1.Resource("pods"), "p")
		}
		h.create(requests(t, "p", "4", "1Gi"))
		h.create(requests(t, "q", "4", "1Gi"))
		h.on("q", "a")
		if a, b, c, d := h.s.queue.counts(); a+b+c+d != 0 {
			t.Error("the deleted pod is still queued")
		}
	}, newNode(t, "a", ""))
}

func TestCountsPodsOfOtherSchedulers(t *testing.T) {
	schedule(t, func(h *harness) {
		h.create(on("a", requests(t, "x", "3", "1Gi")))
		h.create(requests(t, "p", "2", "1Gi"))
		h.on("p", "")
		h.delete("x")
		h.on("p", "a")
	}, newNode(t, "a", ""))
}

func TestPodAssignedByOthers(t *testing.T) {
	schedule(t, func(h *harness) {
		h.create(requests(t, "p", "8", "1Gi"))
		pod := h.pod("p").DeepCopy()
		pod.Spec.NodeName = "a"
		h.update(pod)
		synctest.Wait()
		if a, b, c, d := h.s.queue.counts(); a+b+c+d != 0 {
			t.Error("a pod that has a node is still queued")
		}
		h.create(requests(t, "q", "1", "1Gi"))
		h.on("q", "") // p counts
	}, newNode(t, "a", ""))
}

func TestManyPodsDoNotOvercommit(t *testing.T) {
	var objects []runtime.Object
	for i := range 10 {
		objects = append(objects, newNode(t, fmt.Sprint("n", i), ""))
	}
	for i := range 50 {
		objects = append(objects, requests(t, fmt.Sprint("p", i), "1", "1Gi"))
		objects[len(objects)-1].(*v1.Pod).Namespace = "ns"
	}
	schedule(t, func(h *harness) {
		used := map[string]int{}
		for i := range 50 {
			used[h.pod(fmt.Sprint("p", i)).Spec.NodeName]++
		}
		for node, n := range used {
			if want := 4; node != "" && n != want {
				t.Errorf("%d pods on %s, want %d", n, node, want)
			}
		}
		if used[""] != 10 {
			t.Errorf("%d pods wait, want 10", used[""])
		}
	}, objects...)
}

func TestPreempts(t *testing.T) {
	high := requests(t, "high", "4", "1Gi")
	high.Spec.Priority = new(int32)
	*high.Spec.Priority = 100
	schedule(t, func(h *harness) {
		h.create(on("a", requests(t, "big", "3", "1Gi")), on("a", requests(t, "tiny", "1", "1Gi")), on("b", requests(t, "small", "2", "1Gi")))
		h.create(high)
		// One victim is less than two; on b nothing else has to go.
		h.on("high", "b")
		for _, name := range []string{"big", "tiny"} {
			h.on(name, "a")
		}
		if _, err := h.client.CoreV1().Pods("ns").Get(t.Context(), "small", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			t.Errorf("the victim is there: %v", err)
		}
		e := h.events("small")
		if len(e) != 1 || e[0].Reason != "Preempted" || e[0].Note != "Preempted by pod uid-high on node b" {
			t.Errorf("events %+v", e)
		}
	}, newNode(t, "a", ""), newNode(t, "b", ""))
}

func TestPreemptionWaitsAndKeepsTheRoom(t *testing.T) {
	priority := func(pod *v1.Pod, p int32) *v1.Pod { pod.Spec.Priority = &p; return pod }
	schedule(t, func(h *harness) {
		// The API server lets a victim end gracefully.
		h.client.PrependReactor("delete", "pods", func(action kubetesting.Action) (bool, runtime.Object, error) {
			pod := h.pod(action.(kubetesting.DeleteAction).GetName()).DeepCopy()
			if pod.DeletionTimestamp != nil {
				return false, nil, nil
			}
			now := metav1.Now()
			pod.DeletionTimestamp = &now
			h.update(pod)
			return true, nil, nil
		})
		h.create(on("a", requests(t, "victim", "4", "1Gi")))
		h.create(priority(requests(t, "high", "3", "1Gi"), 100))
		h.on("high", "")
		if got := h.pod("high").Status.NominatedNodeName; got != "a" {
			t.Fatalf("nominated to %q", got)
		}
		h.says("high", "Unschedulable", "0/1 nodes are available: 1 Insufficient cpu.")
		marked := h.pod("victim").Status.Conditions
		if len(marked) != 1 || marked[0].Type != v1.DisruptionTarget || marked[0].Reason != v1.PodReasonPreemptionByScheduler {
			t.Errorf("the victim's conditions are %+v", marked)
		}
		h.create(requests(t, "low", "2", "1Gi"))
		h.delete("victim")
		h.on("high", "a")
		h.on("low", "") // not into the room made for high
		h.create(requests(t, "beside", "1", "1Gi"))
		h.on("beside", "a")
	}, newNode(t, "a", ""))
}

func TestPreemptionRefused(t *testing.T) {
	one := int32(1)
	never := requests(t, "never", "4", "1Gi")
	policy := v1.PreemptNever
	never.Spec.Priority, never.Spec.PreemptionPolicy = &one, &policy
	schedule(t, func(h *harness) {
		h.create(on("a", requests(t, "x", "2", "1Gi")))
		h.create(never)
		h.says("never", "Unschedulable", "0/1 nodes are available: 1 Insufficient cpu. preemption: not eligible due to preemptionPolicy=Never.")
		h.on("x", "a")
	}, newNode(t, "a", ""))
}

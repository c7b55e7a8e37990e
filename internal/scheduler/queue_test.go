package scheduler

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	v1 "k8s.io/api/core/v1"
)

// wakesOn is a plugin that finds one kind of Event relevant.
type wakesOn EventKind

func (w wakesOn) Name() string                   { return fmt.Sprint("wakesOn", int(w)) }
func (w wakesOn) Wakes(_ *PodInfo, e Event) bool { return e.Kind == EventKind(w) }

// popName pops a pod that must be there.
func popName(t *testing.T, q *queue) *queuedPod {
	t.Helper()
	if a, b, _, _ := q.counts(); a+b == 0 {
		t.Fatal("nothing to pop")
	}
	p, _ := q.pop()
	return p
}

// counts checks active, backing off, parked, in flight.
func checkCounts(t *testing.T, q *queue, want ...int) {
	t.Helper()
	a, b, c, d := q.counts()
	if got := []int{a, b, c, d}; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("active, backoff, parked, in flight = %v, want %v", got, want)
	}
}

func TestQueueOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue()
		for _, name := range []string{"old", "new", "high"} {
			pod := newPod(t, name, "")
			if name == "high" {
				pod.Spec.Priority = new(int32)
				*pod.Spec.Priority = 10
			}
			q.add(pod)
			time.Sleep(time.Millisecond)
		}
		for _, want := range []string{"high", "old", "new"} {
			if got := popName(t, q).trying.Name; got != want {
				t.Errorf("popped %s, want %s", got, want)
			}
		}
	})
}

func TestQueuePopWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue()
		popped := make(chan string)
		go func() {
			for {
				p, ok := q.pop()
				if !ok {
					close(popped)
					return
				}
				popped <- p.trying.Name
			}
		}()
		synctest.Wait()
		q.add(newPod(t, "a", ""))
		if got := <-popped; got != "a" {
			t.Errorf("popped %s", got)
		}
		q.close()
		if _, more := <-popped; more {
			t.Error("popped after close")
		}
	})
}

func TestQueueBackoffGrows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue()
		q.add(newPod(t, "a", ""))
		for _, want := range []time.Duration{1, 2, 4, 8, 10, 10} {
			p := popName(t, q)
			start := time.Now()
			q.retry(p)
			checkCounts(t, q, 0, 1, 0, 0)
			q.mu.Lock()
			if best := q.bestBackingOff(); best != nil {
				t.Error("a pod that failed may be popped during its back-off")
			}
			q.mu.Unlock()
			popped := make(chan time.Duration)
			go func() {
				q.ready.L.Lock()
				for q.active.Len() == 0 {
					q.ready.Wait()
				}
				q.ready.L.Unlock()
				popped <- time.Since(start)
			}()
			if got := <-popped; got != want*time.Second {
				t.Errorf("back-off %v, want %v", got, want*time.Second)
			}
		}
		q.close()
	})
}

func TestQueueIdlePopsBackingOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue()
		q.add(newPod(t, "a", ""))
		q.park(popName(t, q), []Plugin{wakesOn(NodeAdded)})
		q.happened(Event{Kind: NodeAdded})
		checkCounts(t, q, 0, 1, 0, 0)
		start := time.Now()
		q.pop()
		if d := time.Since(start); d != 0 {
			t.Errorf("an idle queue let a pod wait %v", d)
		}
		q.close()
	})
}

func TestQueueWakesOnRelevantEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue()
		defer q.close()
		q.add(newPod(t, "a", ""))
		q.park(popName(t, q), []Plugin{wakesOn(NodeAdded), wakesOn(PodRemoved)})
		q.happened(Event{Kind: NodeUpdated})
		checkCounts(t, q, 0, 0, 1, 0)
		q.happened(Event{Kind: PodRemoved})
		checkCounts(t, q, 0, 1, 0, 0)

		q.park(popName(t, q), []Plugin{wakesOn(NodeAdded)})
		time.Sleep(5 * time.Second) // past its back-off
		q.happened(Event{Kind: NodeAdded})
		checkCounts(t, q, 1, 0, 0, 0)

		q.park(popName(t, q), nil)
		q.happened(Event{Kind: NodeDeleted})
		checkCounts(t, q, 0, 1, 0, 0)
	})
}

func TestQueueKeepsEventsOfTheCycle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue()
		defer q.close()
		q.add(newPod(t, "a", ""))

		p := popName(t, q)
		q.happened(Event{Kind: NodeAdded}) // between snapshot and parking
		q.park(p, []Plugin{wakesOn(NodeAdded)})
		checkCounts(t, q, 0, 1, 0, 0)

		p = popName(t, q)
		q.happened(Event{Kind: NodeUpdated})
		q.park(p, []Plugin{wakesOn(NodeAdded)})
		checkCounts(t, q, 0, 0, 1, 0)

		time.Sleep(time.Minute)
		q.happened(Event{Kind: NodeAdded})
		p = popName(t, q)
		for range maxMissedEvents + 1 { // more than are kept: one may have mattered
			q.happened(Event{Kind: NodeUpdated})
		}
		q.park(p, []Plugin{wakesOn(NodeAdded)})
		checkCounts(t, q, 0, 1, 0, 0)
	})
}

func TestQueueLastResort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue()
		defer q.close()
		q.add(newPod(t, "a", ""))
		q.park(popName(t, q), []Plugin{wakesOn(NodeAdded)})
		time.Sleep(2 * time.Minute)
		q.add(newPod(t, "b", ""))
		q.park(popName(t, q), []Plugin{wakesOn(NodeAdded)})

		time.Sleep(3*time.Minute - time.Second)
		checkCounts(t, q, 0, 0, 2, 0)
		time.Sleep(time.Second)
		synctest.Wait()
		checkCounts(t, q, 1, 0, 1, 0)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		checkCounts(t, q, 2, 0, 0, 0)
		if !q.timerAt.IsZero() {
			t.Error("the timer is armed with nothing to wait for")
		}
	})
}

func TestQueueTimerOnlyWhileNeeded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue()
		pod := newPod(t, "a", "")
		q.add(pod)
		if !q.timerAt.IsZero() {
			t.Error("armed for an active pod")
		}
		q.park(popName(t, q), []Plugin{wakesOn(NodeAdded)})
		if q.timerAt.IsZero() {
			t.Error("not armed for a parked pod")
		}
		q.remove(idOf(pod))
		if !q.timerAt.IsZero() {
			t.Error("armed for nobody")
		}
	})
}

func TestQueueRemove(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue()
		defer q.close()
		pod := newPod(t, "a", "")
		id := idOf(pod)

		q.add(pod)
		q.remove(id)
		checkCounts(t, q, 0, 0, 0, 0)

		q.add(pod)
		p := popName(t, q)
		q.remove(id) // deleted while in its cycle
		if _, waits := q.park(p, nil); waits {
			t.Error("a deleted pod was parked")
		}
		checkCounts(t, q, 0, 0, 0, 0)

		q.add(pod)
		p = popName(t, q)
		q.chosen(p)
		q.remove(id) // assigned before the answer to the binding came
		q.finish(p)
		checkCounts(t, q, 0, 0, 0, 0)
		if len(q.where) != 0 {
			t.Errorf("%d pods left behind", len(q.where))
		}
	})
}

func TestQueueUpdate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue()
		defer q.close()
		pod := newPod(t, "a", "")
		edited := newPod(t, "a", "spec: {tolerations: [{operator: Exists}]}")
		marked := newPod(t, "a", "status: {conditions: [{type: PodScheduled, status: 'False'}]}")

		q.add(pod)
		q.park(popName(t, q), []Plugin{wakesOn(PendingPodUpdated)})
		q.add(marked) // our own condition came back
		checkCounts(t, q, 0, 0, 1, 0)
		q.add(edited)
		checkCounts(t, q, 0, 1, 0, 0)

		p := popName(t, q)
		q.add(pod) // edited while in its cycle
		now, _ := q.park(p, []Plugin{wakesOn(PendingPodUpdated)})
		if len(now.Spec.Tolerations) != 0 {
			t.Error("park reported an old pod")
		}
		checkCounts(t, q, 0, 1, 0, 0)
	})
}

func TestCache(t *testing.T) {
	c := newCache()
	pod := requests(t, "p", "1", "1Gi")
	id := idOf(pod)
	check := func(what string, cpu map[string]int64) {
		t.Helper()
		got := map[string]int64{}
		for _, n := range c.snapshot().Nodes {
			got[n.Name] = n.Requested.MilliCPU
		}
		if fmt.Sprint(got) != fmt.Sprint(cpu) {
			t.Errorf("%s: requested %v, want %v", what, got, cpu)
		}
	}
	c.setPod(newPodInfo(on("a", pod)))
	check("a pod before its node", map[string]int64{})
	c.setNode(newNode(t, "a", ""))
	c.setNode(newNode(t, "b", ""))
	check("its node", map[string]int64{"a": 1000, "b": 0})
	c.removeNode("a")
	check("node gone", map[string]int64{"b": 0})
	c.setNode(newNode(t, "a", ""))
	check("node back", map[string]int64{"a": 1000, "b": 0})
	c.removePod(id)
	check("pod gone", map[string]int64{"a": 0, "b": 0})

	before := c.snapshot()
	c.assume(newPodInfo(pod), "b")
	check("assumed", map[string]int64{"a": 0, "b": 1000})
	if before.node("b").Requested.MilliCPU != 0 || len(before.node("b").Pods) != 0 {
		t.Error("a snapshot changed")
	}
	if !c.forget(id) {
		t.Error("forget: not assumed")
	}
	check("forgotten", map[string]int64{"a": 0, "b": 0})

	c.assume(newPodInfo(pod), "b")
	c.setPod(newPodInfo(on("a", pod))) // another scheduler was faster
	check("overruled", map[string]int64{"a": 1000, "b": 0})
	if c.forget(id) {
		t.Error("forgot what the informer said")
	}
	check("still there", map[string]int64{"a": 1000, "b": 0})

	c.removePod(id)
	c.removeNode("a")
	c.removeNode("b")
	if len(c.nodes)+len(c.pods)+len(c.order) != 0 {
		t.Error("something left behind")
	}
}

// TestSearchGoesRound: in a large cluster each search begins where the last ended.
func TestSearchGoesRound(t *testing.T) {
	var nodes []*v1.Node
	for i := range 150 {
		nodes = append(nodes, newNode(t, fmt.Sprint("n", i), ""))
	}
	s := New(nil, Config{})
	cluster := newCluster(nodes)
	seen := map[string]bool{}
	for range 2 {
		found, _, err := s.feasible(newPodInfo(newPod(t, "p", "")), cluster, nil)
		if err != nil || len(found) != minFeasibleNodes {
			t.Fatal(len(found), err)
		}
		for _, n := range found {
			seen[n.Name] = true
		}
	}
	if len(seen) != len(nodes) {
		t.Errorf("two searches saw %d nodes of %d", len(seen), len(nodes))
	}
}

func TestMisfitMessage(t *testing.T) {
	statuses := map[string]*Status{}
	for i := range 12 {
		statuses[fmt.Sprint("n", i)] = rejected("Insufficient cpu", "Too many pods")
	}
	statuses["n12"] = rejectedFinally("node(s) were unschedulable")
	for _, c := range []struct {
		why         *misfit
		after, want string
	}{
		{&misfit{}, "", "no nodes available to schedule pods"},
		{&misfit{nodes: 13, statuses: statuses}, "",
			"0/13 nodes are available: 1 node(s) were unschedulable, 12 Insufficient cpu, 12 Too many pods."},
		{&misfit{nodes: 2, everywhere: rejectedFinally(`persistentvolumeclaim "x" not found`)}, "preemption: none.",
			`0/2 nodes are available: persistentvolumeclaim "x" not found. preemption: none.`},
	} {
		if got := c.why.message(c.after); got != c.want {
			t.Errorf("got  %s\nwant %s", got, c.want)
		}
	}
}

func TestEnoughFeasible(t *testing.T) {
	for nodes, want := range map[int]int{1: 1, 100: 100, 150: 100, 1000: 420, 5000: 500, 6000: 300} {
		if got := enoughFeasible(nodes); got != want {
			t.Errorf("of %d nodes %d are enough, want %d", nodes, got, want)
		}
	}
}

func TestStatusPatchOnlyChanges(t *testing.T) {
	pod := newPod(t, "p", "status: {conditions: [{type: PodScheduled, status: 'False', reason: Unschedulable, message: m}]}")
	same := v1.PodCondition{Type: v1.PodScheduled, Status: v1.ConditionFalse, Reason: "Unschedulable", Message: "m"}
	if patch := statusPatch(pod, same, nil); patch != nil {
		t.Errorf("a patch that changes nothing: %s", patch)
	}
	none, node := "", "n"
	if patch := statusPatch(pod, same, &none); patch != nil {
		t.Errorf("a patch that changes nothing: %s", patch)
	}
	want := `{"metadata":{"uid":"uid-p"},"status":{"nominatedNodeName":"n"}}`
	if patch := statusPatch(pod, same, &node); string(patch) != want {
		t.Errorf("patch %s, want %s", patch, want)
	}
	other := same
	other.Message = "n"
	want = `{"metadata":{"uid":"uid-p"},"status":{"conditions":[{"type":"PodScheduled","status":"False","lastProbeTime":null,"lastTransitionTime":null,"reason":"Unschedulable","message":"n"}]}}`
	if patch := statusPatch(pod, other, nil); string(patch) != want {
		t.Errorf("patch %s, want %s", patch, want)
	}
}

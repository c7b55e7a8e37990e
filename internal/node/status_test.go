package node

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// statePod makes a pod of a policy with containers named in init, sidecars and
// apps, separated by spaces.
func statePod(policy v1.RestartPolicy, init, sidecars, apps string) *v1.Pod {
	always := v1.ContainerRestartPolicyAlways
	pod := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "ns", UID: "u", Generation: 3}, Spec: v1.PodSpec{RestartPolicy: policy}}
	for _, name := range strings.Fields(sidecars) {
		pod.Spec.InitContainers = append(pod.Spec.InitContainers, v1.Container{Name: name, RestartPolicy: &always})
	}
	for _, name := range strings.Fields(init) {
		pod.Spec.InitContainers = append(pod.Spec.InitContainers, v1.Container{Name: name})
	}
	for _, name := range strings.Fields(apps) {
		pod.Spec.Containers = append(pod.Spec.Containers, v1.Container{Name: name})
	}
	return pod
}

// stateOf makes what the runtime has: "a:run b:exit0 c:exit1 d:made", and
// "a:exit1/run" for a container that ran before, all in sandbox s.
func stateOf(text string) *snapshot {
	s := &snapshot{sandboxes: []sandbox{{id: "s", ready: true, ips: []string{"10.0.0.9"}}}}
	base := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, word := range strings.Fields(text) {
		name, states, _ := strings.Cut(word, ":")
		runs := strings.Split(states, "/")
		for i := len(runs) - 1; i >= 0; i-- {
			c := container{id: name + string(rune('0'+i)), name: name, sandbox: "s", attempt: i, createdAt: base, startedAt: base}
			switch {
			case runs[i] == "run":
				c.state = runtimeapi.ContainerState_CONTAINER_RUNNING
			case runs[i] == "made":
				c.state = runtimeapi.ContainerState_CONTAINER_CREATED
			default:
				c.state, c.finishedAt = runtimeapi.ContainerState_CONTAINER_EXITED, base.Add(time.Minute)
				c.exitCode = int32(runs[i][len(runs[i])-1] - '0')
			}
			s.containers = append(s.containers, c)
		}
	}
	return s
}

// everythingReady says that whatever runs is started and ready.
func everythingReady(s *snapshot) map[string]bool {
	out := map[string]bool{}
	for _, c := range s.containers {
		if c.running() {
			out[c.id] = true
		}
	}
	return out
}

func TestPhaseAndConditions(t *testing.T) {
	always, never, onFailure := v1.RestartPolicyAlways, v1.RestartPolicyNever, v1.RestartPolicyOnFailure
	for _, x := range []struct {
		name    string
		pod     *v1.Pod
		state   string
		waits   map[string]waiting
		settled bool
		want    string // phase, then the conditions that are true: R(eadyToStart) I(nitialized) C(ontainersReady) Y(ready)
		first   string // the first container's state
	}{
		{"new", statePod(always, "", "", "a b"), "", nil, false, "Pending RI", "waiting ContainerCreating"},
		{"new with init", statePod(always, "i", "", "a"), "", nil, false, "Pending R", "waiting PodInitializing"},
		{"all run", statePod(always, "", "", "a b"), "a:run b:run", nil, false, "Running RICY", "running"},
		{"one to come", statePod(always, "", "", "a b"), "a:run", nil, false, "Pending RI", "running"},
		{"one made", statePod(always, "", "", "a b"), "a:run b:made", nil, false, "Pending RI", "running"},
		{"one ended", statePod(never, "", "", "a b"), "a:exit1 b:run", nil, false, "Running RI", "terminated Error 1"},
		{"ended well", statePod(never, "", "", "a b"), "a:exit0 b:exit0", nil, true, "Succeeded I", "terminated Completed 0"},
		{"ended badly", statePod(never, "", "", "a b"), "a:exit0 b:exit1", nil, true, "Failed I", "terminated Completed 0"},
		{"on failure", statePod(onFailure, "", "", "a"), "a:exit1", nil, false, "Running RI", "terminated Error 1"},
		{"always", statePod(always, "", "", "a"), "a:exit0", nil, false, "Running RI", "terminated Completed 0"},
		{"back-off", statePod(always, "", "", "a"), "a:exit1", map[string]waiting{"a": {reasonCrashLoop, "m"}}, false, "Running RI", "waiting CrashLoopBackOff"},
		{"runs again", statePod(always, "", "", "a"), "a:exit1/run", nil, false, "Running RICY", "running x1"},
		{"pull fails", statePod(always, "", "", "a b"), "b:run", map[string]waiting{"a": {reasonErrImagePull, "m"}}, false, "Pending RI", "waiting ErrImagePull"},
		{"initializing", statePod(always, "i", "", "a"), "i:run", nil, false, "Pending R", "running"},
		{"initialized", statePod(always, "i", "", "a"), "i:exit0", nil, false, "Pending RI", "terminated Completed 0"},
		{"init again", statePod(always, "i", "", "a"), "i:exit1", map[string]waiting{"i": {reasonCrashLoop, "m"}}, false, "Pending R", "waiting CrashLoopBackOff"},
		{"init failed", statePod(never, "i", "", "a"), "i:exit1", nil, true, "Failed ", "terminated Error 1"},
		{"sidecar alone", statePod(always, "", "s", "a"), "s:run", nil, false, "Pending RI", "running"},
		{"sidecar along", statePod(always, "", "s", "a"), "s:run a:run", nil, false, "Running RICY", "running"},
		{"sidecar down", statePod(always, "", "s", "a"), "s:exit1 a:run", map[string]waiting{"s": {reasonCrashLoop, "m"}}, false, "Running RI", "waiting CrashLoopBackOff"},
		{"sidecar to stop", statePod(never, "", "s", "a"), "s:run a:exit0", nil, false, "Running RI", "running"},
		{"deleted in back-off", statePod(always, "", "", "a"), "a:exit1", map[string]waiting{"a": {reasonCrashLoop, "m"}}, true, "Failed I", "terminated Error 1"},
		{"deleted before it ran", statePod(always, "", "", "a"), "", nil, true, "Failed I", "waiting ContainerCreating"},
		{"stopped", statePod(always, "", "", "a"), "a:exit0", nil, true, "Succeeded I", "terminated Completed 0"},
	} {
		s := stateOf(x.state)
		a := account{pod: x.pod, runtime: s, waits: x.waits, ready: everythingReady(s), started: everythingReady(s), runtimeName: "containerd", hostIPs: []string{"192.0.2.1"}, settled: x.settled, now: time.Now()}
		status := a.status()
		got := string(status.Phase) + " "
		for _, c := range []struct {
			kind   v1.PodConditionType
			letter string
		}{{v1.PodReadyToStartContainers, "R"}, {v1.PodInitialized, "I"}, {v1.ContainersReady, "C"}, {v1.PodReady, "Y"}} {
			if condition(&status, c.kind).Status == v1.ConditionTrue {
				got += c.letter
			}
		}
		p := &v1.Pod{Status: status}
		text := strings.TrimSuffix(strings.TrimPrefix(strings.Split(standing(p), ",")[0], string(status.Phase)+": "), " ready")
		if got != x.want || text != x.first {
			t.Errorf("%s: %q %q, want %q %q", x.name, got, text, x.want, x.first)
		}
		if status.ObservedGeneration != 3 {
			t.Errorf("%s: generation %d", x.name, status.ObservedGeneration)
		}
	}
}

func condition(status *v1.PodStatus, kind v1.PodConditionType) v1.PodCondition {
	for _, c := range status.Conditions {
		if c.Type == kind {
			return c
		}
	}
	return v1.PodCondition{}
}

func TestConditionTexts(t *testing.T) {
	pod := statePod(v1.RestartPolicyAlways, "i j", "", "a b")
	pod.Spec.ReadinessGates = []v1.PodReadinessGate{{ConditionType: "x/y"}, {ConditionType: "x/z"}}
	s := stateOf("")
	a := account{pod: pod, runtime: s, now: time.Unix(100, 5), hostIPs: []string{"h"}}
	status := a.status()
	check := func(kind v1.PodConditionType, reason, message string) {
		t.Helper()
		c := condition(&status, kind)
		if c.Status != v1.ConditionFalse || c.Reason != reason || c.Message != message || !c.LastTransitionTime.Equal(&metav1.Time{Time: time.Unix(100, 0)}) {
			t.Errorf("%s: %+v, want %s: %s", kind, c, reason, message)
		}
	}
	check(v1.PodInitialized, "ContainersNotInitialized", "containers with incomplete status: [i j]")
	check(v1.ContainersReady, "ContainersNotReady", "containers with unready status: [a b]")
	check(v1.PodReady, "ContainersNotReady", "containers with unready status: [a b]")

	// Ready but for the gates; the time of what does not change stays.
	pod.Status = status
	pod.Status.Conditions = append(pod.Status.Conditions, v1.PodCondition{Type: "x/z", Status: v1.ConditionFalse})
	s = stateOf("i:exit0 j:exit0 a:run b:run")
	a = account{pod: pod, runtime: s, ready: everythingReady(s), started: everythingReady(s), now: time.Unix(200, 0), hostIPs: []string{"h"}}
	status = a.status()
	check(v1.PodReady, "ReadinessGatesNotReady", `corresponding condition of pod readiness gate "x/y" does not exist., the status of pod readiness gate "x/z" is not "True", but False`)
	if c := condition(&status, v1.ContainersReady); c.Status != v1.ConditionTrue || c.LastTransitionTime.Unix() != 200 {
		t.Errorf("ContainersReady %+v", c)
	}
}

// A container whose record is lost is not forgotten.
func TestLostContainer(t *testing.T) {
	pod := statePod(v1.RestartPolicyAlways, "", "", "a")
	pod.Status.ContainerStatuses = []v1.ContainerStatus{{Name: "a", RestartCount: 2, ContainerID: "containerd://old", State: v1.ContainerState{Running: &v1.ContainerStateRunning{}}}}
	a := account{pod: pod, runtime: stateOf(""), now: time.Now()}
	cs := a.status().ContainerStatuses[0]
	if cs.RestartCount != 3 || cs.LastTerminationState.Terminated == nil || cs.LastTerminationState.Terminated.Reason != reasonUnknown || cs.LastTerminationState.Terminated.ExitCode != 137 {
		t.Errorf("status %+v", cs)
	}
}

// A terminal pod whose records are gone stays as it is.
func TestTerminalPodStays(t *testing.T) {
	pod := statePod(v1.RestartPolicyNever, "", "", "a")
	pod.Status = v1.PodStatus{Phase: v1.PodFailed, Reason: "OutOfcpu", Message: "m"}
	a := account{pod: pod, runtime: &snapshot{}, settled: true, now: time.Now()}
	status := a.status()
	if patch, err := statusPatch(pod, &status); err != nil || patch != nil {
		t.Errorf("patch %s %v", patch, err)
	}
}

func TestStatusPatch(t *testing.T) {
	base := &v1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "u", ResourceVersion: "7"}, Status: v1.PodStatus{
		Phase: v1.PodRunning, PodIP: "1", NominatedNodeName: "n",
		Conditions: []v1.PodCondition{{Type: v1.PodReady, Status: v1.ConditionTrue}, {Type: "mine/x", Status: v1.ConditionTrue}, {Type: v1.PodResizePending, Status: v1.ConditionTrue}},
	}}
	want := v1.PodStatus{Phase: v1.PodRunning, PodIP: "1", Conditions: []v1.PodCondition{{Type: v1.PodReady, Status: v1.ConditionFalse, Reason: "r"}}}
	patch, err := statusPatch(base, &want)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(patch), `"uid":"u"`) || strings.Contains(string(patch), "podIP") || strings.Contains(string(patch), "nominated") {
		t.Errorf("patch %s", patch)
	}
	before, err := json.Marshal(base)
	if err != nil {
		t.Fatal(err)
	}
	after, err := strategicpatch.StrategicMergePatch(before, patch, v1.Pod{})
	if err != nil {
		t.Fatal(err)
	}
	var got v1.Pod
	if err := json.Unmarshal(after, &got); err != nil {
		t.Fatal(err)
	}
	if condition(&got.Status, v1.PodReady).Status != v1.ConditionFalse || condition(&got.Status, "mine/x").Status != v1.ConditionTrue || condition(&got.Status, v1.PodResizePending).Type != "" {
		t.Errorf("conditions %+v", got.Status.Conditions)
	}
	if patch, err := statusPatch(&got, &want); err != nil || patch != nil {
		t.Errorf("the second patch is %s %v", patch, err)
	}
}

func TestDecide(t *testing.T) {
	always, never, onFailure := v1.RestartPolicyAlways, v1.RestartPolicyNever, v1.RestartPolicyOnFailure
	dead := func(s *snapshot) *snapshot { s.sandboxes[0].ready = false; return s }
	for _, x := range []struct {
		name   string
		pod    *v1.Pod
		state  *snapshot
		failed map[string]string
		slow   bool // nothing counts as started
		want   string
	}{
		{"nothing yet", statePod(always, "", "", "a"), &snapshot{}, nil, false, "sandbox 0"},
		{"all start", statePod(always, "", "", "a b"), stateOf(""), nil, false, "start a, start b"},
		{"all run", statePod(always, "", "", "a b"), stateOf("a:run b:run"), nil, false, ""},
		{"init first", statePod(always, "i j", "", "a"), stateOf(""), nil, false, "start i"},
		{"init runs", statePod(always, "i j", "", "a"), stateOf("i:run"), nil, false, ""},
		{"init next", statePod(always, "i j", "", "a"), stateOf("i:exit0"), nil, false, "start j"},
		{"init done", statePod(always, "i j", "", "a"), stateOf("i:exit0 j:exit0"), nil, false, "start a"},
		{"init again", statePod(always, "i", "", "a"), stateOf("i:exit1"), nil, false, "start i"},
		{"init again on failure", statePod(onFailure, "i", "", "a"), stateOf("i:exit1"), nil, false, "start i"},
		{"init failed", statePod(never, "i", "", "a"), stateOf("i:exit1"), nil, false, "finished"},
		{"init record gone", statePod(always, "i", "", "a"), stateOf("a:run"), nil, false, ""},
		{"sidecar first", statePod(always, "i", "s", "a"), stateOf(""), nil, false, "start s"},
		{"sidecar not started", statePod(always, "i", "s", "a"), stateOf("s:run"), nil, true, ""},
		{"sidecar started", statePod(always, "i", "s", "a"), stateOf("s:run"), nil, false, "start i"},
		{"sidecar down", statePod(always, "i", "s", "a"), stateOf("s:exit0 i:exit0 a:run"), nil, false, "start s"},
		{"sidecar left", statePod(never, "", "s", "a"), stateOf("s:run a:exit0"), nil, false, "finished"},
		{"ended", statePod(never, "", "", "a"), stateOf("a:exit1"), nil, false, "finished"},
		{"ended well", statePod(onFailure, "", "", "a b"), stateOf("a:exit0 b:exit0"), nil, false, "finished"},
		{"failed", statePod(onFailure, "", "", "a b"), stateOf("a:exit0 b:exit1"), nil, false, "start b"},
		{"again", statePod(always, "", "", "a"), stateOf("a:exit0"), nil, false, "start a"},
		{"unhealthy", statePod(always, "", "", "a b"), stateOf("a:run b:run"), map[string]string{"b0": "liveness"}, false, "kill b"},
		{"sandbox lost", statePod(always, "i", "", "a"), dead(stateOf("i:exit0 a:run")), nil, false, "sandbox 1"},
		{"sandbox lost, ran once", statePod(never, "", "", "a"), dead(stateOf("a:run")), nil, false, "finished"},
		{"sandbox lost, never ran", statePod(never, "", "", "a"), dead(stateOf("")), nil, false, "sandbox 1"},
		{"sandbox lost after success", statePod(onFailure, "", "", "a"), dead(stateOf("a:exit0")), nil, false, "finished"},
		{"sandbox lost after failed init", statePod(never, "i", "", "a"), dead(stateOf("i:exit1")), nil, false, "finished"},
	} {
		started := everythingReady(x.state)
		if x.slow {
			started = nil
		}
		d := decide(x.pod, observed{runtime: x.state, failed: x.failed, started: started})
		var parts []string
		if d.newSandbox {
			parts = append(parts, "sandbox "+string(rune('0'+d.attempt)))
		}
		if d.finished {
			parts = append(parts, "finished")
		}
		for _, k := range d.kill {
			parts = append(parts, "kill "+k.name)
		}
		for _, s := range d.start {
			parts = append(parts, "start "+s.container.Name)
		}
		if got := strings.Join(parts, ", "); got != x.want {
			t.Errorf("%s: %q, want %q", x.name, got, x.want)
		}
	}
}

func TestRestartRules(t *testing.T) {
	never, onFailure := v1.ContainerRestartPolicyNever, v1.ContainerRestartPolicyOnFailure
	rule := func(operator v1.ContainerRestartRuleOnExitCodesOperator, codes ...int32) []v1.ContainerRestartRule {
		return []v1.ContainerRestartRule{{Action: v1.ContainerRestartRuleActionRestart, ExitCodes: &v1.ContainerRestartRuleOnExitCodes{Operator: operator, Values: codes}}}
	}
	pod := statePod(v1.RestartPolicyAlways, "", "", "a")
	for _, x := range []struct {
		c    v1.Container
		code int32
		want bool
	}{
		{v1.Container{}, 0, true},
		{v1.Container{RestartPolicy: &never}, 1, false},
		{v1.Container{RestartPolicy: &onFailure}, 0, false},
		{v1.Container{RestartPolicy: &onFailure}, 1, true},
		{v1.Container{RestartPolicy: &never, RestartPolicyRules: rule(v1.ContainerRestartRuleOnExitCodesOpIn, 42)}, 42, true},
		{v1.Container{RestartPolicy: &never, RestartPolicyRules: rule(v1.ContainerRestartRuleOnExitCodesOpIn, 42)}, 1, false},
		{v1.Container{RestartPolicy: &never, RestartPolicyRules: rule(v1.ContainerRestartRuleOnExitCodesOpNotIn, 42)}, 1, true},
	} {
		if got := restarts(pod, &x.c, appContainer, x.code); got != x.want {
			t.Errorf("%+v with %d: %v, want %v", x.c, x.code, got, x.want)
		}
	}
	if restarts(pod, &v1.Container{}, initContainer, 0) {
		t.Error("an init container that succeeded would run again")
	}
}

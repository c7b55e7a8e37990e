package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	k8stesting "k8s.io/client-go/testing"
)

// story is a whole agent between an API and a runtime, both in memory, in a
// synctest bubble: time passes only when everything is idle.
type story struct {
	t       *testing.T
	client  *fake.Clientset
	runtime *fakeRuntime
	agent   *Agent
	dir     string
	stop    func()
	told    struct {
		sync.Mutex
		events map[string][]string
	}
}

// tell runs one story.
func tell(t *testing.T, prepare func(*fakeRuntime), f func(*story)) {
	t.Helper()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		s := &story{t: t, client: fake.NewClientset(), runtime: newFakeRuntime(), dir: dir}
		if prepare != nil {
			prepare(s.runtime)
		}
		s.recordEvents()
		s.begin()
		defer func() { s.stop() }()
		f(s)
	})
}

func (s *story) begin() {
	connect, stopRuntime := s.runtime.serve()
	s.agent = New(s.client, Config{
		NodeName: "node-a", DataDir: s.dir, LogDir: filepath.Join(s.dir, "logs"), RuntimeEndpoint: "/fake", NodeIP: "192.0.2.1",
		Version: "v1.37.0", Logger: slog.New(slog.DiscardHandler),
	})
	s.agent.connect = connect
	ctx, cancel := context.WithCancel(s.t.Context())
	done := make(chan error, 1)
	agent := s.agent
	go func() { done <- agent.Run(ctx) }()
	s.stop = func() {
		cancel()
		if err := <-done; err != nil {
			s.t.Errorf("agent: %v", err)
		}
		stopRuntime()
		synctest.Wait()
		s.stop = func() {}
	}
	s.settle()
}

// settle lets everything happen that happens without time passing, and the
// short pauses of connecting.
func (s *story) settle() {
	time.Sleep(time.Second)
	synctest.Wait()
}

func (s *story) pod(name string, containers ...string) *v1.Pod {
	grace := int64(30)
	p := &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default", UID: types.UID("uid-" + name), Generation: 1, CreationTimestamp: metav1.Now()},
		Spec:       v1.PodSpec{NodeName: "node-a", RestartPolicy: v1.RestartPolicyAlways, TerminationGracePeriodSeconds: &grace},
	}
	for _, c := range containers {
		p.Spec.Containers = append(p.Spec.Containers, v1.Container{Name: c, Image: "app:1", ImagePullPolicy: v1.PullIfNotPresent})
	}
	return p
}

func (s *story) create(p *v1.Pod) {
	s.t.Helper()
	if _, err := s.client.CoreV1().Pods("default").Create(s.t.Context(), p, metav1.CreateOptions{}); err != nil {
		s.t.Fatal(err)
	}
	s.settle()
}

func (s *story) get(name string) *v1.Pod {
	s.t.Helper()
	p, err := s.client.CoreV1().Pods("default").Get(s.t.Context(), name, metav1.GetOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	return p
}

func (s *story) delete(name string, grace int64) {
	s.t.Helper()
	p := s.get(name)
	now := metav1.Now()
	p.DeletionTimestamp, p.DeletionGracePeriodSeconds = &now, &grace
	if _, err := s.client.CoreV1().Pods("default").Update(s.t.Context(), p, metav1.UpdateOptions{}); err != nil {
		s.t.Fatal(err)
	}
	synctest.Wait()
}

func (s *story) exists(name string) bool {
	_, err := s.client.CoreV1().Pods("default").Get(s.t.Context(), name, metav1.GetOptions{})
	return err == nil
}

// is checks how the first container of a pod stands: "running", "waiting
// Reason" or "terminated Reason code", and its restarts.
func (s *story) is(name, want string) {
	s.t.Helper()
	if got := standing(s.get(name)); got != want {
		s.t.Errorf("pod %s is %q, want %q", name, got, want)
	}
}

func standing(p *v1.Pod) string {
	var out []string
	for _, cs := range append(p.Status.InitContainerStatuses, p.Status.ContainerStatuses...) {
		text := "nothing"
		switch {
		case cs.State.Running != nil:
			text = "running"
		case cs.State.Waiting != nil:
			text = "waiting " + cs.State.Waiting.Reason
		case cs.State.Terminated != nil:
			text = fmt.Sprintf("terminated %s %d", cs.State.Terminated.Reason, cs.State.Terminated.ExitCode)
		}
		if cs.RestartCount > 0 {
			text += fmt.Sprintf(" x%d", cs.RestartCount)
		}
		if cs.Ready {
			text += " ready"
		}
		out = append(out, text)
	}
	return string(p.Status.Phase) + ": " + strings.Join(out, ", ")
}

// writes counts the API calls that changed something since the last call, by
// verb and resource.
func (s *story) writes() map[string]int {
	s.t.Helper()
	synctest.Wait()
	counts := map[string]int{}
	for _, action := range s.client.Actions() {
		switch action.GetVerb() {
		case "get", "list", "watch":
			continue
		}
		resource := action.GetResource().Resource
		if sub := action.GetSubresource(); sub != "" {
			resource += "/" + sub
		}
		counts[action.GetVerb()+" "+resource]++
	}
	s.client.ClearActions()
	return counts
}

// recordEvents keeps the Events the agent tells. The API's store is passed by:
// it would take Events of the same instant, which a bubble has many of, for one.
func (s *story) recordEvents() {
	s.told.events = map[string][]string{}
	s.client.PrependReactor("*", "events", func(action k8stesting.Action) (bool, runtime.Object, error) {
		create, ok := action.(k8stesting.CreateAction)
		if !ok {
			return true, &v1.Event{}, nil
		}
		e := create.GetObject().(*v1.Event)
		s.told.Lock()
		defer s.told.Unlock()
		name := e.InvolvedObject.Name
		s.told.events[name] = append(s.told.events[name], fmt.Sprintf("%s %s %s", e.Type, e.Reason, e.Message))
		return true, e, nil
	})
}

func (s *story) events(name string) string {
	s.told.Lock()
	defer s.told.Unlock()
	return strings.Join(s.told.events[name], "\n")
}

func TestAnIdleNodeWritesItsLeaseOnly(t *testing.T) {
	tell(t, nil, func(s *story) {
		s.create(s.pod("p", "c"))
		s.is("p", "Running: running ready")
		s.writes()
		time.Sleep(4 * time.Minute)
		writes := s.writes()
		if len(writes) != 1 || writes["update leases"] != 24 {
			t.Errorf("writes in 4 idle minutes: %v", writes)
		}
		time.Sleep(5 * time.Minute)
		if writes := s.writes(); writes["patch nodes/status"] != 1 {
			t.Errorf("writes in 5 further minutes: %v", writes)
		}
	})
}

func TestAPodStartsInFewWrites(t *testing.T) {
	tell(t, nil, func(s *story) {
		s.writes()
		s.create(s.pod("p", "a", "b"))
		s.is("p", "Running: running ready, running ready")
		if writes := s.writes(); writes["patch pods/status"] > 2 {
			t.Errorf("writes: %v", writes)
		}
		p := s.get("p")
		if p.Status.PodIP == "" || p.Status.HostIP != "192.0.2.1" || p.Status.ObservedGeneration != 1 {
			t.Errorf("status %+v", p.Status)
		}
	})
}

func TestCrashLoop(t *testing.T) {
	prepare := func(r *fakeRuntime) { r.lives["c"] = fakeLife{100 * time.Millisecond, 1} }
	tell(t, prepare, func(s *story) {
		s.create(s.pod("p", "c"))
		s.is("p", "Running: waiting CrashLoopBackOff x1")
		// 10 s after the first restart, then 20, 40, 80, 160, 300, 300.
		restarts := int32(1)
		for _, pause := range []time.Duration{10, 20, 40, 80, 160, 300, 300} {
			time.Sleep(pause*time.Second - 2*time.Second)
			synctest.Wait()
			if got := s.get("p").Status.ContainerStatuses[0].RestartCount; got != restarts {
				t.Fatalf("after less than %d s: %d restarts, want %d", pause, got, restarts)
			}
			time.Sleep(2*time.Second + 100*time.Millisecond)
			synctest.Wait()
			restarts++
			if got := s.get("p").Status.ContainerStatuses[0].RestartCount; got != restarts {
				t.Fatalf("after %d s: %d restarts, want %d", pause, got, restarts)
			}
		}
		waits := s.get("p").Status.ContainerStatuses[0].State.Waiting
		if waits == nil || waits.Message != "back-off 5m0s restarting failed container=c pod=p_default(uid-p)" {
			t.Errorf("waits %+v", waits)
		}

		// A run of more than ten minutes is forgiven.
		s.runtime.mu.Lock()
		s.runtime.lives["c"] = fakeLife{11 * time.Minute, 1}
		s.runtime.mu.Unlock()
		time.Sleep(301 * time.Second)
		synctest.Wait()
		s.is("p", "Running: running x9 ready")
		time.Sleep(11 * time.Minute)
		synctest.Wait()
		s.is("p", "Running: running x10 ready")
	})
}

func TestImagePullBackOff(t *testing.T) {
	fails := true
	prepare := func(r *fakeRuntime) {
		r.pull = func(string) error {
			if fails {
				return errors.New("no such host")
			}
			return nil
		}
	}
	tell(t, prepare, func(s *story) {
		p := s.pod("p", "c")
		p.Spec.Containers[0].Image = "registry.example/app:2"
		s.create(p)
		s.is("p", "Pending: waiting ErrImagePull")
		time.Sleep(3 * time.Second)
		synctest.Wait()
		s.is("p", "Pending: waiting ImagePullBackOff")
		message := s.get("p").Status.ContainerStatuses[0].State.Waiting.Message
		if !strings.HasPrefix(message, `Back-off pulling image "registry.example/app:2": ErrImagePull: `) || !strings.Contains(message, "no such host") {
			t.Errorf("message %q", message)
		}
		pulls := func() int {
			s.runtime.mu.Lock()
			defer s.runtime.mu.Unlock()
			return s.runtime.calls["PullImage"]
		}
		time.Sleep(7 * time.Second)
		synctest.Wait()
		if n := pulls(); n != 2 {
			t.Errorf("%d pulls after 10 s, want 2", n)
		}
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if n := pulls(); n != 3 {
			t.Errorf("%d pulls after 30 s, want 3", n)
		}
		s.runtime.mu.Lock()
		fails = false
		s.runtime.mu.Unlock()
		time.Sleep(40 * time.Second)
		synctest.Wait()
		s.is("p", "Running: running ready")
		events := s.events("p")
		for _, want := range []string{
			`Normal Pulling Pulling image "registry.example/app:2"`, `Warning Failed Failed to pull image "registry.example/app:2": `, "Warning Failed Error: ErrImagePull",
			`Normal BackOff Back-off pulling image "registry.example/app:2"`, "Warning Failed Error: ImagePullBackOff", `Normal Pulled Successfully pulled image "registry.example/app:2" in `, "Image size: 2000 bytes.",
		} {
			if !strings.Contains(events, want) {
				t.Errorf("no event %q in\n%s", want, events)
			}
		}
	})
}

func TestDeletion(t *testing.T) {
	prepare := func(r *fakeRuntime) { r.stubborn["slow"] = true }
	tell(t, prepare, func(s *story) {
		s.create(s.pod("p", "slow", "quick"))
		s.delete("p", 30)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		s.is("p", "Running: running ready, terminated Completed 0")
		// A second deletion shortens the rest.
		s.delete("p", 5)
		time.Sleep(6 * time.Second)
		synctest.Wait()
		if s.exists("p") {
			t.Errorf("still there: %s", standing(s.get("p")))
		}
		s.settle()
		s.runtime.mu.Lock()
		defer s.runtime.mu.Unlock()
		if len(s.runtime.sandboxes) != 0 || len(s.runtime.containers) != 0 {
			t.Errorf("left in the runtime: %v %v", s.runtime.sandboxes, s.runtime.containers)
		}
		if n := len(s.agent.Pods().Items); n != 0 {
			t.Errorf("the agent still has %d pods", n)
		}
	})
}

// The last status says how the containers ended, and comes before the object
// is deleted.
func TestFinalStatusBeforeDeletion(t *testing.T) {
	tell(t, nil, func(s *story) {
		s.create(s.pod("p", "c"))
		s.client.ClearActions()
		s.delete("p", 30)
		s.settle()
		var last string
		for _, action := range s.client.Actions() {
			switch a := action.(type) {
			case k8stesting.PatchAction:
				if a.GetResource().Resource == "pods" {
					last = string(a.GetPatch())
				}
			case k8stesting.DeleteAction:
				if a.GetResource().Resource != "pods" {
					continue
				}
				if !strings.Contains(last, `"phase":"Succeeded"`) || !strings.Contains(last, `"exitCode":0`) {
					t.Errorf("deleted after %s", last)
				}
				if p := a.GetDeleteOptions().Preconditions; p == nil || *p.UID != "uid-p" || *a.GetDeleteOptions().GracePeriodSeconds != 0 {
					t.Errorf("delete options %+v", a.GetDeleteOptions())
				}
				return
			}
		}
		t.Error("not deleted")
	})
}

func TestRestartPolicies(t *testing.T) {
	prepare := func(r *fakeRuntime) {
		r.lives["zero"] = fakeLife{time.Second, 0}
		r.lives["one"] = fakeLife{time.Second, 1}
	}
	tell(t, prepare, func(s *story) {
		for _, x := range []struct {
			name      string
			policy    v1.RestartPolicy
			container string
			want      string
		}{
			{"never-0", v1.RestartPolicyNever, "zero", "Succeeded: terminated Completed 0"},
			{"never-1", v1.RestartPolicyNever, "one", "Failed: terminated Error 1"},
			{"fail-0", v1.RestartPolicyOnFailure, "zero", "Succeeded: terminated Completed 0"},
			{"fail-1", v1.RestartPolicyOnFailure, "one", "Running: waiting CrashLoopBackOff x1"},
			{"always-0", v1.RestartPolicyAlways, "zero", "Running: waiting CrashLoopBackOff x1"},
		} {
			p := s.pod(x.name, x.container)
			p.Spec.RestartPolicy = x.policy
			s.create(p)
			time.Sleep(3 * time.Second)
			synctest.Wait()
			s.is(x.name, x.want)
		}
	})
}

func TestSidecarsEndLast(t *testing.T) {
	prepare := func(r *fakeRuntime) { r.lives["main"] = fakeLife{5 * time.Second, 0} }
	tell(t, prepare, func(s *story) {
		p := s.pod("p", "main")
		p.Spec.RestartPolicy = v1.RestartPolicyNever
		always := v1.ContainerRestartPolicyAlways
		p.Spec.InitContainers = []v1.Container{{Name: "side", Image: "app:1", RestartPolicy: &always}}
		s.create(p)
		s.is("p", "Running: running ready, running ready")
		// A sidecar that ends is restarted.
		s.runtime.exit("side", 1)
		synctest.Wait()
		s.is("p", "Running: running x1 ready, running ready")
		time.Sleep(5 * time.Second)
		synctest.Wait()
		s.is("p", "Succeeded: terminated Completed 0 x1, terminated Completed 0")
	})
}

func TestLostSandbox(t *testing.T) {
	tell(t, nil, func(s *story) {
		s.create(s.pod("p", "c"))
		once := s.pod("once", "c")
		once.Spec.RestartPolicy = v1.RestartPolicyNever
		s.create(once)
		before := s.get("p").Status.PodIP
		s.runtime.loseSandboxes()
		s.settle()
		s.is("p", "Running: running x1 ready")
		if s.get("p").Status.PodIP == before {
			t.Error("the pod kept the address of its lost sandbox")
		}
		if !strings.Contains(s.events("p"), "SandboxChanged") {
			t.Errorf("events %s", s.events("p"))
		}
		if p := s.get("once"); p.Status.Phase != v1.PodSucceeded && p.Status.Phase != v1.PodFailed {
			t.Errorf("a pod that runs once is %s", standing(p))
		}
	})
}

func TestNodeConditionsFollowTheRuntime(t *testing.T) {
	prepare := func(r *fakeRuntime) { r.noCNI = true }
	tell(t, prepare, func(s *story) {
		ready := func() v1.NodeCondition {
			node, err := s.client.CoreV1().Nodes().Get(t.Context(), "node-a", metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range node.Status.Conditions {
				if c.Type == v1.NodeReady {
					return c
				}
			}
			return v1.NodeCondition{}
		}
		want := "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:Network plugin returns error: cni plugin not initialized"
		if c := ready(); c.Status != v1.ConditionFalse || c.Message != want {
			t.Errorf("condition %+v", c)
		}
		s.runtime.mu.Lock()
		s.runtime.noCNI = false
		s.runtime.mu.Unlock()
		time.Sleep(checkPeriod + time.Second)
		if c := ready(); c.Status != v1.ConditionTrue || c.Reason != "KubeletReady" {
			t.Errorf("condition %+v", c)
		}

		// A controller that calls the node unknown is corrected.
		node, err := s.client.CoreV1().Nodes().Get(t.Context(), "node-a", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for i := range node.Status.Conditions {
			node.Status.Conditions[i].Status = v1.ConditionUnknown
		}
		if _, err := s.client.CoreV1().Nodes().UpdateStatus(t.Context(), node, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if c := ready(); c.Status != v1.ConditionTrue {
			t.Errorf("condition %+v", c)
		}
	})
}

func TestAgentRestartAdopts(t *testing.T) {
	prepare := func(r *fakeRuntime) {
		r.exec = func(*fakeContainer, []string) (int32, string) { return 0, "" }
	}
	tell(t, prepare, func(s *story) {
		p := s.pod("p", "c")
		p.Spec.Containers[0].ReadinessProbe = &v1.Probe{PeriodSeconds: 60, ProbeHandler: v1.ProbeHandler{Exec: &v1.ExecAction{Command: []string{"true"}}}}
		s.create(p)
		s.create(s.pod("q", "d"))
		s.is("p", "Running: running ready")
		s.stop()
		if err := s.client.CoreV1().Pods("default").Delete(t.Context(), "q", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		s.writes()
		s.begin()
		s.is("p", "Running: running ready")
		if writes := s.writes(); writes["patch pods/status"] != 0 {
			t.Errorf("adoption wrote a status: %v", writes)
		}
		s.runtime.mu.Lock()
		if n := s.runtime.calls["CreateContainer"]; n != 2 {
			t.Errorf("%d containers were made, want the 2 of before", n)
		}
		if len(s.runtime.containers) != 1 {
			t.Errorf("%d containers are left, want 1", len(s.runtime.containers))
		}
		s.runtime.mu.Unlock()
	})
}

func TestReadinessAndLiveness(t *testing.T) {
	healthy := map[string]bool{"ready": false, "alive": true}
	prepare := func(r *fakeRuntime) {
		r.exec = func(_ *fakeContainer, command []string) (int32, string) {
			if healthy[command[0]] {
				return 0, ""
			}
			return 1, "not " + command[0]
		}
	}
	tell(t, prepare, func(s *story) {
		set := func(what string, to bool) {
			s.runtime.mu.Lock()
			healthy[what] = to
			s.runtime.mu.Unlock()
		}
		probe := func(command string, threshold int32) *v1.Probe {
			return &v1.Probe{PeriodSeconds: 10, TimeoutSeconds: 1, SuccessThreshold: 1, FailureThreshold: threshold, ProbeHandler: v1.ProbeHandler{Exec: &v1.ExecAction{Command: []string{command}}}}
		}
		p := s.pod("p", "c")
		p.Spec.Containers[0].ReadinessProbe = probe("ready", 1)
		p.Spec.Containers[0].LivenessProbe = probe("alive", 3)
		s.create(p)
		s.is("p", "Running: running")
		set("ready", true)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		s.is("p", "Running: running ready")
		set("alive", false)
		time.Sleep(20 * time.Second)
		synctest.Wait()
		s.is("p", "Running: running ready")
		time.Sleep(10 * time.Second)
		set("alive", true)
		synctest.Wait()
		s.is("p", "Running: running x1 ready")
		events := s.events("p")
		for _, want := range []string{"Warning Unhealthy Readiness probe failed: not ready", "Warning Unhealthy Liveness probe failed: not alive", "Normal Killing Container c failed liveness probe, will be restarted"} {
			if !strings.Contains(events, want) {
				t.Errorf("no event %q in\n%s", want, events)
			}
		}
	})
}

// What a container needs and is not there is told, and waited for.
func TestMissingObjectsAreWaitedFor(t *testing.T) {
	tell(t, nil, func(s *story) {
		p := s.pod("p", "c")
		p.Spec.Containers[0].Env = []v1.EnvVar{{Name: "A", ValueFrom: &v1.EnvVarSource{ConfigMapKeyRef: &v1.ConfigMapKeySelector{LocalObjectReference: v1.LocalObjectReference{Name: "cm"}, Key: "a"}}}}
		s.create(p)
		q := s.pod("q", "d")
		q.Spec.Volumes = []v1.Volume{{Name: "v", VolumeSource: v1.VolumeSource{ConfigMap: &v1.ConfigMapVolumeSource{LocalObjectReference: v1.LocalObjectReference{Name: "cm"}}}}}
		q.Spec.Containers[0].VolumeMounts = []v1.VolumeMount{{Name: "v", MountPath: "/v"}}
		s.create(q)
		s.is("p", "Pending: waiting CreateContainerConfigError")
		s.is("q", "Pending: waiting ContainerCreating")
		if events := s.events("q"); !strings.Contains(events, `Warning FailedMount MountVolume.SetUp failed for volume "v" : configmap "cm" not found`) {
			t.Errorf("events %s", events)
		}
		maps := s.client.CoreV1().ConfigMaps("default")
		cm := &v1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "cm", Namespace: "default"}, Data: map[string]string{"b": "1"}}
		if _, err := maps.Create(t.Context(), cm, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		s.is("p", "Pending: waiting CreateContainerConfigError")
		s.is("q", "Running: running ready")
		cm = cm.DeepCopy()
		cm.Data["a"] = "2"
		if _, err := maps.Update(t.Context(), cm, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		s.is("p", "Running: running ready")
		b, err := os.ReadFile(filepath.Join(s.agent.cfg.podDir("uid-q"), "volumes/kubernetes.io~configmap/v/a"))
		if err != nil || string(b) != "2" {
			t.Errorf("the volume has %q %v", b, err)
		}
	})
}

// Tokens are renewed at four fifths of their life, in place.
func TestTokenRenewal(t *testing.T) {
	tell(t, nil, func(s *story) {
		issued := 0
		s.client.PrependReactor("create", "serviceaccounts", func(action k8stesting.Action) (bool, runtime.Object, error) {
			request := action.(k8stesting.CreateAction).GetObject().(*authenticationv1.TokenRequest).DeepCopy()
			issued++
			if ref := request.Spec.BoundObjectRef; ref.UID != "uid-p" || request.Spec.Audiences[0] != "vault" || *request.Spec.ExpirationSeconds != 1000 {
				t.Errorf("request %+v", request.Spec)
			}
			request.Status = authenticationv1.TokenRequestStatus{Token: fmt.Sprint("token ", issued), ExpirationTimestamp: metav1.NewTime(time.Now().Add(1000 * time.Second))}
			return true, request, nil
		})
		life := int64(1000)
		p := s.pod("p", "c")
		p.Spec.Volumes = []v1.Volume{{Name: "v", VolumeSource: v1.VolumeSource{Projected: &v1.ProjectedVolumeSource{Sources: []v1.VolumeProjection{
			{ServiceAccountToken: &v1.ServiceAccountTokenProjection{Path: "token", Audience: "vault", ExpirationSeconds: &life}}}}}}}
		p.Spec.Containers[0].VolumeMounts = []v1.VolumeMount{{Name: "v", MountPath: "/v"}}
		s.create(p)
		s.is("p", "Running: running ready")
		read := func() string {
			b, err := os.ReadFile(filepath.Join(s.agent.cfg.podDir("uid-p"), "volumes/kubernetes.io~projected/v/token"))
			if err != nil {
				t.Fatal(err)
			}
			return string(b)
		}
		for _, x := range []struct {
			sleep time.Duration
			want  string
		}{{0, "token 1"}, {780 * time.Second, "token 1"}, {30 * time.Second, "token 2"}, {780 * time.Second, "token 2"}, {30 * time.Second, "token 3"}} {
			time.Sleep(x.sleep)
			synctest.Wait()
			if got := read(); got != x.want {
				t.Errorf("after %v more: %q, want %q", x.sleep, got, x.want)
			}
		}
		s.delete("p", 1) // gives back the mount
		s.settle()
	})
}

// An active pod ends at its deadline, also while it waits.
func TestActiveDeadline(t *testing.T) {
	tell(t, nil, func(s *story) {
		limit := int64(60)
		p := s.pod("p", "c")
		p.Spec.ActiveDeadlineSeconds = &limit
		s.create(p)
		time.Sleep(50 * time.Second)
		s.is("p", "Running: running ready")
		time.Sleep(11 * time.Second)
		synctest.Wait()
		s.is("p", "Failed: terminated Completed 0")
		if status := s.get("p").Status; status.Reason != "DeadlineExceeded" || status.Message != "Pod was active on the node longer than the specified deadline" {
			t.Errorf("reason %s: %s", status.Reason, status.Message)
		}
	})
}

// A changed image replaces the container, not the pod.
func TestChangedImage(t *testing.T) {
	tell(t, nil, func(s *story) {
		s.create(s.pod("p", "c"))
		p := s.get("p")
		p.Spec.Containers[0].Image = "app:2"
		p.Generation = 2
		if _, err := s.client.CoreV1().Pods("default").Update(t.Context(), p, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		s.settle()
		s.is("p", "Running: running x1 ready")
		if got := s.get("p").Status; got.ContainerStatuses[0].Image != "app:2" || got.ObservedGeneration != 2 {
			t.Errorf("status %+v", got)
		}
		if events := s.events("p"); !strings.Contains(events, "Normal Killing Container c definition changed, will be restarted") {
			t.Errorf("events %s", events)
		}
	})
}

// Pods of other nodes are nobody's business, even when the API shows them.
func TestOtherNodesPods(t *testing.T) {
	tell(t, nil, func(s *story) {
		p := s.pod("p", "c")
		p.Spec.NodeName = "node-b"
		s.create(p)
		s.runtime.mu.Lock()
		defer s.runtime.mu.Unlock()
		if len(s.runtime.sandboxes) != 0 {
			t.Error("a pod of another node was started")
		}
	})
}

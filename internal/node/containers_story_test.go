//go:build containers

package node

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func waitingFor(container, reason string) func(*v1.Pod) bool {
	return func(p *v1.Pod) bool {
		if p == nil {
			return false
		}
		for _, cs := range append(p.Status.InitContainerStatuses, p.Status.ContainerStatuses...) {
			if cs.Name == container && cs.State.Waiting != nil && cs.State.Waiting.Reason == reason {
				return true
			}
		}
		return false
	}
}

func state(p *v1.Pod, name string) v1.ContainerStatus {
	for _, cs := range append(p.Status.InitContainerStatuses, p.Status.ContainerStatuses...) {
		if cs.Name == name {
			return cs
		}
	}
	return v1.ContainerStatus{}
}

// Containers that end: exit codes, messages, restarts, back-off, phases.
func TestContainersEnd(t *testing.T) {
	c := newCluster(t)

	ok := pod("ok", words("write /dev/termination-log all is well"))
	ok.Spec.RestartPolicy = v1.RestartPolicyNever
	c.create(ok)
	bad := pod("bad", words("echo trouble then exit 3"), words("polite"))
	bad.Spec.RestartPolicy = v1.RestartPolicyNever
	bad.Spec.Containers[0].TerminationMessagePolicy = v1.TerminationMessageFallbackToLogsOnError
	c.create(bad)
	loop := pod("loop", words("exit 1"))
	c.create(loop)
	oom := pod("oom", words("eat 200"))
	oom.Spec.RestartPolicy = v1.RestartPolicyNever
	oom.Spec.Containers[0].Resources.Limits = v1.ResourceList{v1.ResourceMemory: resource.MustParse("40Mi")}
	c.create(oom)
	late := pod("late", words("polite"))
	deadline := int64(2)
	late.Spec.ActiveDeadlineSeconds = &deadline
	c.create(late)
	wrong := pod("wrong", words("x"))
	wrong.Spec.Containers[0].Command = []string{"/no/such/program"}
	wrong.Spec.RestartPolicy = v1.RestartPolicyNever
	c.create(wrong)

	p := c.wait("ok", "Succeeded", inPhase(v1.PodSucceeded))
	if s := state(p, "c0").State.Terminated; s == nil || s.Message != "all is well" || s.Reason != "Completed" {
		t.Errorf("ok: %s", describe(p))
	}
	p = c.wait("bad", "c0 ended", func(p *v1.Pod) bool { return p != nil && state(p, "c0").State.Terminated != nil })
	if s := state(p, "c0").State.Terminated; s.ExitCode != 3 || s.Reason != "Error" || s.Message != "trouble\n" || p.Status.Phase != v1.PodRunning {
		t.Errorf("bad: %s %q", describe(p), s.Message)
	}
	p = c.wait("loop", "back-off", waitingFor("c0", "CrashLoopBackOff"))
	cs := state(p, "c0")
	if cs.RestartCount != 1 || cs.LastTerminationState.Terminated == nil || cs.LastTerminationState.Terminated.ExitCode != 1 || p.Status.Phase != v1.PodRunning {
		t.Errorf("loop: %s", describe(p))
	}
	if want := "back-off 10s restarting failed container=c0 pod=loop_default(" + string(loop.UID) + ")"; cs.State.Waiting.Message != want {
		t.Errorf("loop: message %q, want %q", cs.State.Waiting.Message, want)
	}
	c.waitEvent("loop", "Warning BackOff", "Back-off restarting failed container c0 in pod loop_default(")
	p = c.wait("oom", "Failed", inPhase(v1.PodFailed))
	if s := state(p, "c0").State.Terminated; s == nil || s.Reason != "OOMKilled" || s.ExitCode != 137 {
		t.Errorf("oom: %s", describe(p))
	}
	p = c.wait("late", "Failed", inPhase(v1.PodFailed))
	if p.Status.Reason != "DeadlineExceeded" || state(p, "c0").State.Terminated == nil {
		t.Errorf("late: %s", describe(p))
	}
	p = c.wait("wrong", "Failed", inPhase(v1.PodFailed))
	if s := state(p, "c0").State.Terminated; s == nil || s.Reason != "StartError" || s.ExitCode != 128 || !strings.Contains(s.Message, "/no/such/program") {
		t.Errorf("wrong: %s", describe(p))
	}
}

// Init containers run one by one before the others; a sidecar runs along.
func TestContainersInit(t *testing.T) {
	c := newCluster(t)
	p := pod("init", words("cat /shared/steps then exit 0"))
	p.Spec.RestartPolicy = v1.RestartPolicyNever
	p.Spec.Volumes = []v1.Volume{{Name: "shared", VolumeSource: v1.VolumeSource{EmptyDir: &v1.EmptyDirVolumeSource{}}}}
	always := v1.ContainerRestartPolicyAlways
	side := containerSpecOf("side", words("count /shared/steps then polite"))
	side.RestartPolicy = &always
	p.Spec.InitContainers = []v1.Container{
		containerSpecOf("first", words("count /shared/steps")),
		side,
		containerSpecOf("second", words("fail-until /shared/steps 2 then count /shared/steps")),
	}
	mount := []v1.VolumeMount{{Name: "shared", MountPath: "/shared"}}
	for i := range p.Spec.InitContainers {
		p.Spec.InitContainers[i].VolumeMounts = mount
	}
	p.Spec.InitContainers[1].StartupProbe = &v1.Probe{PeriodSeconds: 1, FailureThreshold: 30, ProbeHandler: v1.ProbeHandler{Exec: &v1.ExecAction{Command: words("/toolbox fail-until /shared/steps 2")}}}
	p.Spec.Containers[0].VolumeMounts = mount
	c.create(p)
	got := c.wait("init", "Succeeded", inPhase(v1.PodSucceeded))
	if log := c.log(p, "c0"); log != "xxx\n" {
		t.Errorf("app saw steps %q", log)
	}
	for _, name := range []string{"first", "second", "side"} {
		if s := state(got, name).State.Terminated; s == nil || s.ExitCode != 0 {
			t.Errorf("%s: %s", name, describe(got))
		}
	}

	failing := pod("init-fails", words("polite"))
	failing.Spec.RestartPolicy = v1.RestartPolicyNever
	failing.Spec.InitContainers = []v1.Container{containerSpecOf("no", words("exit 9"))}
	c.create(failing)
	got = c.wait("init-fails", "Failed", inPhase(v1.PodFailed))
	if s := state(got, "no").State.Terminated; s == nil || s.ExitCode != 9 {
		t.Errorf("init-fails: %s", describe(got))
	}
	if s := state(got, "c0").State.Waiting; s == nil || s.Reason != "PodInitializing" {
		t.Errorf("init-fails: %s", describe(got))
	}
}

// Probes: readiness by HTTP, liveness by exec, TCP.
func TestContainersProbes(t *testing.T) {
	c := newCluster(t)
	p := pod("probed", words("serve :8080 /shared/ready"))
	p.Spec.Volumes = []v1.Volume{{Name: "shared", VolumeSource: v1.VolumeSource{EmptyDir: &v1.EmptyDirVolumeSource{}}}}
	p.Spec.Containers[0].VolumeMounts = []v1.VolumeMount{{Name: "shared", MountPath: "/shared"}}
	p.Spec.Containers[0].Ports = []v1.ContainerPort{{Name: "web", ContainerPort: 8080}}
	p.Spec.Containers[0].ReadinessProbe = &v1.Probe{PeriodSeconds: 1, ProbeHandler: v1.ProbeHandler{HTTPGet: &v1.HTTPGetAction{Path: "/", Port: intstr.FromString("web")}}}
	p.Spec.Containers[0].LivenessProbe = &v1.Probe{PeriodSeconds: 1, FailureThreshold: 2, InitialDelaySeconds: 1, ProbeHandler: v1.ProbeHandler{TCPSocket: &v1.TCPSocketAction{Port: intstr.FromInt32(8080)}}}
	c.create(p)

	sick := pod("sick", words("write /tmp/alive yes then polite"))
	sick.Spec.Containers[0].LivenessProbe = &v1.Probe{PeriodSeconds: 1, FailureThreshold: 1, ProbeHandler: v1.ProbeHandler{Exec: &v1.ExecAction{Command: words("/toolbox fail-unless /tmp/never")}}}
	c.create(sick)

	c.wait("probed", "running, not ready", func(p *v1.Pod) bool {
		return p != nil && p.Status.Phase == v1.PodRunning && !running(p)
	})
	c.waitEvent("probed", "Warning Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 503")
	file := filepath.Join(c.agent.cfg.podDir(p.UID), "volumes/kubernetes.io~empty-dir/shared/ready")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	c.wait("probed", "ready", running)
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	c.wait("probed", "unready again", func(p *v1.Pod) bool { return p != nil && !running(p) })

	got := c.wait("sick", "restarted", func(p *v1.Pod) bool { return p != nil && state(p, "c0").RestartCount > 0 })
	if last := state(got, "c0").LastTerminationState.Terminated; last == nil {
		t.Errorf("sick: %s", describe(got))
	}
	c.waitEvent("sick", "Warning Unhealthy", "Liveness probe failed: missing /tmp/never")
	c.waitEvent("sick", "Killing", "Container c0 failed liveness probe, will be restarted")
}

// What keeps a pod from running is told, and it runs once that is mended.
func TestContainersCannotStart(t *testing.T) {
	c := newCluster(t)
	none := pod("none", words("polite"))
	none.Spec.Containers[0].Image = "127.0.0.1:1/no/such:1"
	c.create(none)
	never := pod("never", words("polite"))
	never.Spec.Containers[0].Image = "timonel.test/absent:1"
	never.Spec.Containers[0].ImagePullPolicy = v1.PullNever
	c.create(never)
	key := pod("key", words("polite"))
	key.Spec.Containers[0].Env = []v1.EnvVar{{Name: "A", ValueFrom: &v1.EnvVarSource{ConfigMapKeyRef: &v1.ConfigMapKeySelector{LocalObjectReference: v1.LocalObjectReference{Name: "later"}, Key: "a"}}}}
	c.create(key)
	volume := pod("volume", words("polite"))
	volume.Spec.Volumes = []v1.Volume{{Name: "v", VolumeSource: v1.VolumeSource{ConfigMap: &v1.ConfigMapVolumeSource{LocalObjectReference: v1.LocalObjectReference{Name: "later"}}}}}
	volume.Spec.Containers[0].VolumeMounts = []v1.VolumeMount{{Name: "v", MountPath: "/v"}}
	c.create(volume)
	claim := pod("claim", words("polite"))
	claim.Spec.Volumes = []v1.Volume{{Name: "v", VolumeSource: v1.VolumeSource{PersistentVolumeClaim: &v1.PersistentVolumeClaimVolumeSource{ClaimName: "x"}}}}
	claim.Spec.Containers[0].VolumeMounts = []v1.VolumeMount{{Name: "v", MountPath: "/v"}}
	c.create(claim)
	nonRoot := pod("non-root", words("polite"))
	yes := true
	nonRoot.Spec.SecurityContext = &v1.PodSecurityContext{RunAsNonRoot: &yes}
	c.create(nonRoot)
	big := pod("big", words("polite"))
	big.Spec.Containers[0].Resources.Requests = v1.ResourceList{v1.ResourceCPU: resource.MustParse("1000")}
	c.create(big)

	p := c.once("none", "ErrImagePull", waitingFor("c0", "ErrImagePull"))
	if p.Status.Phase != v1.PodPending || !strings.Contains(state(p, "c0").State.Waiting.Message, "127.0.0.1:1") {
		t.Errorf("none: %s", describe(p))
	}
	c.waitEvent("none", "Normal Pulling", `Pulling image "127.0.0.1:1/no/such:1"`)
	c.waitEvent("none", "Warning Failed", `Failed to pull image "127.0.0.1:1/no/such:1": `)
	c.waitEvent("none", "Warning Failed Error: ErrImagePull")
	p = c.wait("none", "ImagePullBackOff", waitingFor("c0", "ImagePullBackOff"))
	if !strings.HasPrefix(state(p, "c0").State.Waiting.Message, `Back-off pulling image "127.0.0.1:1/no/such:1"`) {
		t.Errorf("none: %s", describe(p))
	}
	c.waitEvent("none", "Normal BackOff", `Back-off pulling image "127.0.0.1:1/no/such:1"`)

	p = c.wait("never", "ErrImageNeverPull", waitingFor("c0", "ErrImageNeverPull"))
	if got, want := state(p, "c0").State.Waiting.Message, `Container image "timonel.test/absent:1" is not present with pull policy of Never`; got != want {
		t.Errorf("never: %q, want %q", got, want)
	}
	p = c.wait("key", "config error", waitingFor("c0", "CreateContainerConfigError"))
	if got, want := state(p, "c0").State.Waiting.Message, `configmap "later" not found`; got != want {
		t.Errorf("key: %q, want %q", got, want)
	}
	c.waitEvent("volume", "Warning FailedMount", `MountVolume.SetUp failed for volume "v" : configmap "later" not found`)
	c.waitEvent("claim", "Warning FailedMount", "persistentVolumeClaim is not supported")
	p = c.wait("claim", "waiting", waitingFor("c0", "ContainerCreating"))
	if p.Status.Phase != v1.PodPending {
		t.Errorf("claim: %s", describe(p))
	}
	c.wait("non-root", "config error", waitingFor("c0", "CreateContainerConfigError"))
	p = c.wait("big", "rejected", inPhase(v1.PodFailed))
	if p.Status.Reason != "OutOfcpu" {
		t.Errorf("big: %s", describe(p))
	}

	// The ConfigMap comes: both that waited for it run at once.
	if _, err := c.client.CoreV1().ConfigMaps("default").Create(context.Background(), &v1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "later", Namespace: "default"}, Data: map[string]string{"a": "1"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	c.wait("key", "running", running)
	c.wait("volume", "running", running)
	for _, name := range []string{"none", "claim", "non-root", "big"} {
		c.delete(name, 1)
		c.wait(name, "gone", gone)
	}
}

// Hooks run; a container that does not stop is killed at the end of its grace.
func TestContainersStopping(t *testing.T) {
	c := newCluster(t)
	shared := filepath.Join(c.ctd.Dir, "shared")
	if err := os.MkdirAll(shared, 0o777); err != nil {
		t.Fatal(err)
	}
	p := pod("hooks", words("stubborn"))
	kind := v1.HostPathDirectory
	p.Spec.Volumes = []v1.Volume{{Name: "shared", VolumeSource: v1.VolumeSource{HostPath: &v1.HostPathVolumeSource{Path: shared, Type: &kind}}}}
	p.Spec.Containers[0].VolumeMounts = []v1.VolumeMount{{Name: "shared", MountPath: "/shared"}}
	p.Spec.Containers[0].Lifecycle = &v1.Lifecycle{
		PostStart: &v1.LifecycleHandler{Exec: &v1.ExecAction{Command: words("/toolbox write /shared/started yes")}},
		PreStop:   &v1.LifecycleHandler{Exec: &v1.ExecAction{Command: words("/toolbox write /shared/stopping yes")}},
	}
	c.create(p)
	c.wait("hooks", "running", running)
	if _, err := os.Stat(filepath.Join(shared, "started")); err != nil {
		t.Error("postStart did not run before the container counted as running")
	}
	c.delete("hooks", 2)
	c.wait("hooks", "gone", gone)
	if s := state(c.last("hooks"), "c0").State.Terminated; s == nil || s.ExitCode != 137 {
		t.Errorf("hooks: %s", describe(c.last("hooks")))
	}
	if _, err := os.Stat(filepath.Join(shared, "stopping")); err != nil {
		t.Error("preStop did not run")
	}
	c.nothingLeft(p)
	if _, err := os.Stat(shared); err != nil {
		t.Errorf("the host path is gone: %v", err)
	}

	// Deleted at once by force: the object is gone first, the pod follows.
	forced := pod("forced", words("polite"))
	c.create(forced)
	c.wait("forced", "running", running)
	if err := c.client.CoreV1().Pods("default").Delete(context.Background(), "forced", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	c.nothingLeft(forced)

	failing := pod("bad-hook", words("polite"))
	failing.Spec.Containers[0].Lifecycle = &v1.Lifecycle{PostStart: &v1.LifecycleHandler{Exec: &v1.ExecAction{Command: words("/toolbox exit 1")}}}
	c.create(failing)
	c.waitEvent("bad-hook", "Warning FailedPostStartHook")
	c.wait("bad-hook", "restarted", func(p *v1.Pod) bool { return p != nil && state(p, "c0").RestartCount > 0 })
}

// The agent comes back: what runs goes on, what was deleted meanwhile ends,
// what is not ours stays.
func TestContainersAgentRestart(t *testing.T) {
	c := newCluster(t)
	c.create(pod("stays", words("polite")))
	leaving := pod("leaves", words("polite"))
	c.create(leaving)
	vanishing := pod("vanishes", words("polite"))
	c.create(vanishing)
	ended := pod("ended", words("exit 0"))
	ended.Spec.RestartPolicy = v1.RestartPolicyNever
	c.create(ended)
	before := c.wait("stays", "running", running)
	c.wait("leaves", "running", running)
	c.wait("vanishes", "running", running)
	c.wait("ended", "Succeeded", inPhase(v1.PodSucceeded))
	foreign := c.foreignSandbox()

	c.stop()
	c.delete("leaves", 5)
	if err := c.client.CoreV1().Pods("default").Delete(context.Background(), "vanishes", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	c.startAgent()

	c.wait("leaves", "gone", gone)
	c.nothingLeft(leaving)
	c.nothingLeft(vanishing)
	c.create(pod("another", words("polite")))
	c.wait("another", "running", running)
	after := c.wait("stays", "running", running)
	if was, is := state(before, "c0"), state(after, "c0"); was.ContainerID != is.ContainerID || is.RestartCount != 0 {
		t.Errorf("the container was replaced: %v then %v", was, is)
	}
	if p := c.wait("ended", "Succeeded", inPhase(v1.PodSucceeded)); state(p, "c0").RestartCount != 0 {
		t.Errorf("ended: %s", describe(p))
	}
	status, err := c.agent.runtime.Runtime.PodSandboxStatus(context.Background(), &runtimeapi.PodSandboxStatusRequest{PodSandboxId: foreign})
	if err != nil || status.Status.State != runtimeapi.PodSandboxState_SANDBOX_READY {
		t.Errorf("a foreign sandbox was touched: %v %v", status, err)
	}

	// The adopted container is still watched: its end is noticed.
	killed := strings.TrimPrefix(state(after, "c0").ContainerID, "containerd://")
	if out, err := c.ctd.Ctr("tasks", "kill", "-s", "SIGKILL", killed); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	p := c.wait("stays", "restarted", func(p *v1.Pod) bool { return running(p) && state(p, "c0").RestartCount == 1 })
	if last := state(p, "c0").LastTerminationState.Terminated; last == nil || last.ExitCode != 137 {
		t.Errorf("stays: %s", describe(p))
	}
}

// foreignSandbox runs a sandbox of somebody else in the same runtime.
func (c *cluster) foreignSandbox() string {
	c.t.Helper()
	answer, err := c.agent.runtime.Runtime.RunPodSandbox(context.Background(), &runtimeapi.RunPodSandboxRequest{Config: &runtimeapi.PodSandboxConfig{
		Metadata:     &runtimeapi.PodSandboxMetadata{Name: "foreign", Namespace: "default", Uid: "foreign-uid"},
		Labels:       map[string]string{labelPodName: "foreign", labelPodNamespace: "default", labelPodUID: "foreign-uid", labelNode: "node-b"},
		LogDirectory: filepath.Join(c.ctd.Dir, "foreign"),
		Linux:        &runtimeapi.LinuxPodSandboxConfig{},
	}})
	if err != nil {
		c.t.Fatal(err)
	}
	return answer.PodSandboxId
}

// containerd restarts: the node says so and recovers; containers go on.
func TestContainersRuntimeRestart(t *testing.T) {
	c := newCluster(t)
	c.create(pod("stays", words("polite")))
	ends := pod("ends", words("fail-unless /shared/never"))
	ends.Spec.RestartPolicy = v1.RestartPolicyNever
	before := c.wait("stays", "running", running)
	c.waitNode("Ready", v1.ConditionTrue)

	c.ctd.Down(t)
	c.waitNode("NotReady", v1.ConditionFalse)
	node, err := c.client.CoreV1().Nodes().Get(context.Background(), "node-a", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, condition := range node.Status.Conditions {
		if condition.Type == v1.NodeReady && (condition.Reason != "KubeletNotReady" || condition.Message != "container runtime is down") {
			t.Errorf("condition %+v", condition)
		}
	}
	c.create(ends) // waits for the runtime
	c.ctd.Up(t)
	c.waitNode("Ready again", v1.ConditionTrue)
	c.wait("ends", "Failed", inPhase(v1.PodFailed))
	after := c.wait("stays", "running", running)
	if state(before, "c0").ContainerID != state(after, "c0").ContainerID {
		t.Errorf("the container was replaced")
	}
	for _, p := range c.seen.history["stays"] {
		if p.Status.Phase == v1.PodRunning && state(p, "c0").RestartCount != 0 {
			t.Errorf("restarted: %s", describe(p))
		}
	}
}

func (c *cluster) waitNode(what string, status v1.ConditionStatus) {
	c.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		node, err := c.client.CoreV1().Nodes().Get(context.Background(), "node-a", metav1.GetOptions{})
		if err == nil {
			for _, condition := range node.Status.Conditions {
				if condition.Type == v1.NodeReady && condition.Status == status {
					return
				}
			}
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("node is not %s: %+v %v", what, node, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// The sandbox dies under the pod: all is made anew, init containers too.
func TestContainersSandboxLost(t *testing.T) {
	c := newCluster(t)
	p := pod("lost", words("polite"))
	p.Spec.InitContainers = []v1.Container{containerSpecOf("init", words("exit 0"))}
	c.create(p)
	before := c.wait("lost", "running", running)
	s, err := takeSnapshot(context.Background(), c.agent.runtime, "node-a", types.UID(p.UID), nil)
	if err != nil {
		t.Fatal(err)
	}
	if out, err := c.ctd.Ctr("tasks", "kill", "-s", "SIGKILL", s.current().id); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	after := c.wait("lost", "running in a new sandbox", func(p *v1.Pod) bool {
		return running(p) && p.Status.PodIP != before.Status.PodIP
	})
	if state(after, "c0").RestartCount != 1 || state(after, "init").RestartCount != 1 {
		t.Errorf("lost: %s", describe(after))
	}
	c.waitEvent("lost", "SandboxChanged")
}

// Host network, an ephemeral container, a refused resize, a rotated log.
func TestContainersOddities(t *testing.T) {
	c := newCluster(t)
	host := pod("host", words("id then serve 127.0.0.1:18777"))
	host.Spec.HostNetwork = true
	host.Spec.Containers[0].ReadinessProbe = &v1.Probe{PeriodSeconds: 1, ProbeHandler: v1.ProbeHandler{HTTPGet: &v1.HTTPGetAction{Port: intstr.FromInt32(18777)}}}
	c.create(host)
	got := c.wait("host", "ready", running)
	if got.Status.PodIP != "127.0.0.1" {
		t.Errorf("host: address %s", got.Status.PodIP)
	}

	p := pod("p", words("echo one then polite"))
	p.Spec.Containers[0].Resources.Requests = v1.ResourceList{v1.ResourceCPU: resource.MustParse("10m")}
	c.create(p)
	got = c.wait("p", "running", running).DeepCopy()
	got.Spec.EphemeralContainers = []v1.EphemeralContainer{{
		EphemeralContainerCommon: v1.EphemeralContainerCommon(containerSpecOf("debug", words("echo hello then cat /proc/1/cmdline"))), TargetContainerName: "c0",
	}}
	got.Spec.Containers[0].Resources.Requests = v1.ResourceList{v1.ResourceCPU: resource.MustParse("20m")}
	got.Generation = 2
	if _, err := c.client.CoreV1().Pods("default").Update(context.Background(), got, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	got = c.wait("p", "debugged", func(p *v1.Pod) bool {
		return p != nil && len(p.Status.EphemeralContainerStatuses) == 1 && p.Status.EphemeralContainerStatuses[0].State.Terminated != nil
	})
	if log := c.log(p, "debug"); !strings.HasPrefix(log, "hello\n/toolbox\x00echo\x00one") {
		t.Errorf("debug said %q", log)
	}
	if cpu := state(got, "c0").Resources.Requests[v1.ResourceCPU]; cpu.String() != "10m" || condition(&got.Status, v1.PodResizePending).Reason != v1.PodReasonInfeasible || got.Status.ObservedGeneration != 2 {
		t.Errorf("resize: %v %s", cpu.String(), describe(got))
	}
	if state(got, "c0").RestartCount != 0 || !running(got) {
		t.Errorf("p: %s", describe(got))
	}

	for id, file := range c.agent.runningLogs() {
		if !strings.Contains(file, "_p_") {
			continue
		}
		if err := c.agent.rotateLog(context.Background(), id, file, 1, time.Now()); err != nil {
			t.Fatal(err)
		}
		old, err := rotatedLogs(file)
		if err != nil || len(old) != 1 {
			t.Errorf("rotated logs %v %v", old, err)
		}
		if _, err := os.Stat(file); err != nil {
			t.Errorf("no new log: %v", err)
		}
	}
	links, _ := filepath.Glob(filepath.Join(c.agent.cfg.ContainerLogDir, "p_default_c0-*.log"))
	if len(links) != 1 {
		t.Errorf("log links %v", links)
	}
	for _, name := range []string{"p", "host"} {
		c.delete(name, 1)
		c.wait(name, "gone", gone)
	}
	c.nothingLeft(p)
	c.nothingLeft(host)
	if links, _ := filepath.Glob(filepath.Join(c.agent.cfg.ContainerLogDir, "*")); len(links) != 0 {
		t.Errorf("log links left %v", links)
	}
}

// Pods with cgroups of their own, limited as a whole.
func TestContainersPodCgroup(t *testing.T) {
	c := newCluster(t)
	c.stop()
	c.cgroup = "/timonel-test-" + filepath.Base(c.ctd.Dir)
	c.startAgent()
	p := pod("p", words("polite"))
	p.Spec.Containers[0].Resources = v1.ResourceRequirements{Limits: v1.ResourceList{v1.ResourceMemory: resource.MustParse("32Mi"), v1.ResourceCPU: resource.MustParse("500m")}}
	c.create(p)
	c.wait("p", "running", running)
	at := c.agent.cgroups.path(p)
	dir := filepath.Join(cgroupRoot, "memory", at)
	file := "memory.limit_in_bytes"
	if c.agent.machine.cgroup2 {
		dir, file = filepath.Join(cgroupRoot, at), "memory.max"
	}
	if b, err := os.ReadFile(filepath.Join(dir, file)); err != nil || strings.TrimSpace(string(b)) != "33554432" {
		t.Errorf("pod limit %q %v", b, err)
	}
	if entries, err := os.ReadDir(dir); err != nil || !strings.Contains(strings.Join(names(entries), " "), strings.TrimPrefix(state(c.last("p"), "c0").ContainerID, "containerd://")) {
		t.Errorf("the container is not in the pod's cgroup: %v %v", names(entries), err)
	}
	c.delete("p", 1)
	c.wait("p", "gone", gone)
	c.nothingLeft(p)
	deadline := time.Now().Add(patience)
	for {
		if _, err := os.Stat(dir); os.IsNotExist(err) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the pod's cgroup is left")
		}
		time.Sleep(50 * time.Millisecond)
	}
	c.stop()
	for _, root := range []string{"", "cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "systemd", "unified"} {
		_ = os.Remove(filepath.Join(cgroupRoot, root, c.cgroup))
	}
}

func names(entries []os.DirEntry) []string {
	var out []string
	for _, entry := range entries {
		out = append(out, entry.Name())
	}
	return out
}

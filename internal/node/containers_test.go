//go:build containers

package node

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/uuid"
	apiwatch "k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/fake"
	k8stesting "k8s.io/client-go/testing"

	"github.com/timonel/timonel/internal/node/nodetest"
	"github.com/timonel/timonel/internal/node/serve"
)

// cluster is a real containerd, an API in memory, and an agent between them.
type cluster struct {
	t      *testing.T
	ctd    *nodetest.Containerd
	client *fake.Clientset
	dir    string
	cgroup string // parent of the pods' cgroups, if any
	agent  *Agent
	stop   func()
	seen   struct {
		sync.Mutex
		history map[string][]*v1.Pod // nil: deleted
		changed chan struct{}
	}
}

// patience bounds every wait; it is long so that only failures feel it.
const patience = 60 * time.Second

func newCluster(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{t: t, ctd: nodetest.Start(t), client: fake.NewClientset()}
	c.dir = filepath.Join(c.ctd.Dir, "data")
	c.client.PrependReactor("create", "serviceaccounts", func(action k8stesting.Action) (bool, runtime.Object, error) {
		if action.GetSubresource() != "token" {
			return false, nil, nil
		}
		request := action.(k8stesting.CreateAction).GetObject().(*authenticationv1.TokenRequest).DeepCopy()
		request.Status = authenticationv1.TokenRequestStatus{Token: "token-for-" + request.Spec.BoundObjectRef.Name, ExpirationTimestamp: metav1.NewTime(time.Now().Add(time.Hour))}
		return true, request, nil
	})
	c.follow()
	c.startAgent()
	t.Cleanup(func() { c.stop() })
	return c
}

func (c *cluster) startAgent() {
	c.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	level := slog.LevelInfo
	if os.Getenv("DEBUG") != "" {
		level = slog.LevelDebug
	}
	c.agent = New(c.client, Config{
		NodeName: "node-a", DataDir: c.dir, LogDir: filepath.Join(c.ctd.Dir, "logs"), ContainerLogDir: filepath.Join(c.ctd.Dir, "links"),
		RuntimeEndpoint: "unix://" + c.ctd.Socket, NodeIP: "127.0.0.1", Version: "v1.37.0-test", CgroupParent: c.cgroup,
		Logger: slog.New(slog.NewTextHandler(testWriter{c.t}, &slog.HandlerOptions{Level: level})),
	})
	done := make(chan error, 1)
	agent := c.agent
	go func() { done <- agent.Run(ctx) }()
	stopped := false
	c.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		select {
		case err := <-done:
			if err != nil {
				c.t.Errorf("agent: %v", err)
			}
		case <-time.After(patience):
			c.t.Error("agent does not end")
		}
	}
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(b)))
	return len(b), nil
}

// pod is a pod of this node with one container for each command.
func pod(name string, commands ...[]string) *v1.Pod {
	grace := int64(5)
	p := &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default", UID: uuid.NewUUID(), CreationTimestamp: metav1.Now(), Generation: 1},
		Spec:       v1.PodSpec{NodeName: "node-a", RestartPolicy: v1.RestartPolicyAlways, TerminationGracePeriodSeconds: &grace, DNSPolicy: v1.DNSClusterFirst},
	}
	for i, command := range commands {
		p.Spec.Containers = append(p.Spec.Containers, containerSpecOf(fmt.Sprintf("c%d", i), command))
	}
	return p
}

func containerSpecOf(name string, args []string) v1.Container {
	return v1.Container{
		Name: name, Image: nodetest.ToolboxImage, Args: args, ImagePullPolicy: v1.PullIfNotPresent,
		TerminationMessagePath: "/dev/termination-log", TerminationMessagePolicy: v1.TerminationMessageReadFile,
	}
}

func words(s string) []string { return strings.Fields(s) }

func (c *cluster) create(p *v1.Pod) *v1.Pod {
	c.t.Helper()
	out, err := c.client.CoreV1().Pods(p.Namespace).Create(context.Background(), p, metav1.CreateOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	return out
}

// delete marks a pod for deletion, as the API server does.
func (c *cluster) delete(name string, grace int64) {
	c.t.Helper()
	pods := c.client.CoreV1().Pods("default")
	p, err := pods.Get(context.Background(), name, metav1.GetOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	now := metav1.Now()
	p.DeletionTimestamp, p.DeletionGracePeriodSeconds = &now, &grace
	if _, err := pods.Update(context.Background(), p, metav1.UpdateOptions{}); err != nil {
		c.t.Fatal(err)
	}
}

// follow records every version of every pod.
func (c *cluster) follow() {
	watch, err := c.client.CoreV1().Pods("default").Watch(context.Background(), metav1.ListOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(watch.Stop)
	c.seen.changed = make(chan struct{})
	c.seen.history = map[string][]*v1.Pod{}
	go func() {
		for event := range watch.ResultChan() {
			p, ok := event.Object.(*v1.Pod)
			if !ok {
				continue
			}
			c.seen.Lock()
			if event.Type == apiwatch.Deleted {
				c.seen.history[p.Name] = append(c.seen.history[p.Name], nil)
			} else {
				c.seen.history[p.Name] = append(c.seen.history[p.Name], p)
			}
			close(c.seen.changed)
			c.seen.changed = make(chan struct{})
			c.seen.Unlock()
		}
	}()
}

// wait waits until the pod's newest version satisfies ok; nil is its absence.
func (c *cluster) wait(name, what string, ok func(*v1.Pod) bool) *v1.Pod {
	c.t.Helper()
	timeout := time.After(patience)
	for {
		c.seen.Lock()
		history, changed := c.seen.history[name], c.seen.changed
		c.seen.Unlock()
		var last *v1.Pod
		if len(history) > 0 {
			if last = history[len(history)-1]; ok(last) {
				return last
			}
		}
		select {
		case <-changed:
		case <-timeout:
			c.t.Fatalf("pod %s: %s did not happen; status %s\nevents:\n%s", name, what, describe(last), strings.Join(c.events(name), "\n"))
		}
	}
}

// last is the newest version the pod had before it was deleted.
func (c *cluster) last(name string) *v1.Pod {
	c.seen.Lock()
	defer c.seen.Unlock()
	var last *v1.Pod
	for _, p := range c.seen.history[name] {
		if p != nil {
			last = p
		}
	}
	return last
}

// once waits until some version of the pod satisfied ok.
func (c *cluster) once(name, what string, ok func(*v1.Pod) bool) *v1.Pod {
	c.t.Helper()
	var found *v1.Pod
	c.wait(name, what, func(*v1.Pod) bool {
		c.seen.Lock()
		defer c.seen.Unlock()
		for _, p := range c.seen.history[name] {
			if p != nil && ok(p) {
				found = p
				return true
			}
		}
		return false
	})
	return found
}

func describe(p *v1.Pod) string {
	if p == nil {
		return "none"
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "phase %s reason %s message %s", p.Status.Phase, p.Status.Reason, p.Status.Message)
	for _, cs := range append(p.Status.InitContainerStatuses, p.Status.ContainerStatuses...) {
		fmt.Fprintf(&b, "\n %s: restarts %d ready %v state %v last %v", cs.Name, cs.RestartCount, cs.Ready, cs.State, cs.LastTerminationState)
	}
	for _, condition := range p.Status.Conditions {
		fmt.Fprintf(&b, "\n %s=%s %s %s", condition.Type, condition.Status, condition.Reason, condition.Message)
	}
	return b.String()
}

func (c *cluster) events(name string) []string {
	list, err := c.client.CoreV1().Events("default").List(context.Background(), metav1.ListOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	var out []string
	for _, e := range list.Items {
		if e.InvolvedObject.Name == name {
			out = append(out, fmt.Sprintf("%s %s %s x%d", e.Type, e.Reason, e.Message, e.Count))
		}
	}
	return out
}

// waitEvent waits for an event about a pod that contains all of the words.
func (c *cluster) waitEvent(name string, parts ...string) {
	c.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		events := c.events(name)
		if slices.ContainsFunc(events, func(e string) bool {
			return !slices.ContainsFunc(parts, func(part string) bool { return !strings.Contains(e, part) })
		}) {
			return
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("no event of %s with %q in:\n%s", name, parts, strings.Join(events, "\n"))
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// log is what a container printed, without the log's own columns.
func (c *cluster) log(p *v1.Pod, container string) string {
	c.t.Helper()
	found, err := c.agent.Find(serve.PodRef{Namespace: p.Namespace, Name: p.Name}, container, false)
	if err != nil {
		c.t.Fatal(err)
	}
	b, err := os.ReadFile(found.LogPath)
	if err != nil {
		c.t.Fatal(err)
	}
	var out strings.Builder
	for _, line := range strings.Split(strings.TrimSpace(string(b)), "\n") {
		if parts := strings.SplitN(line, " ", 4); len(parts) == 4 {
			out.WriteString(parts[3] + "\n")
		}
	}
	return out.String()
}

func running(p *v1.Pod) bool {
	if p == nil || p.Status.Phase != v1.PodRunning {
		return false
	}
	for _, condition := range p.Status.Conditions {
		if condition.Type == v1.PodReady {
			return condition.Status == v1.ConditionTrue
		}
	}
	return false
}

func inPhase(phase v1.PodPhase) func(*v1.Pod) bool {
	return func(p *v1.Pod) bool { return p != nil && p.Status.Phase == phase }
}

func gone(p *v1.Pod) bool { return p == nil }

// The life of an ordinary pod: created, running with an address, deleted
// gracefully, nothing left.
func TestContainersLife(t *testing.T) {
	c := newCluster(t)
	begin := time.Now()
	c.create(pod("life", words("polite")))
	p := c.wait("life", "running", running)
	t.Logf("running after %v", time.Since(begin))
	if p.Status.PodIP == "" || p.Status.HostIP != "127.0.0.1" || p.Status.QOSClass != v1.PodQOSBestEffort || p.Status.StartTime == nil {
		t.Errorf("status %+v", p.Status)
	}
	cs := p.Status.ContainerStatuses[0]
	if !cs.Ready || !*cs.Started || !strings.HasPrefix(cs.ContainerID, "containerd://") || cs.ImageID == "" || cs.State.Running == nil {
		t.Errorf("container status %+v", cs)
	}
	c.waitEvent("life", "Normal", "Started", "Started container c0")
	c.delete("life", 5)
	c.wait("life", "gone", gone)
	final := c.last("life")
	if cs := final.Status.ContainerStatuses[0]; cs.State.Terminated == nil || cs.State.Terminated.ExitCode != 0 || cs.State.Terminated.Reason != "Completed" {
		t.Errorf("last status %s", describe(final))
	}
	if final.Status.Phase != v1.PodSucceeded {
		t.Errorf("last phase %s", final.Status.Phase)
	}
	c.waitEvent("life", "Killing", "Stopping container c0")
	c.nothingLeft(p)
}

// nothingLeft checks that neither runtime nor disk knows the pod any more.
func (c *cluster) nothingLeft(p *v1.Pod) {
	c.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		s, err := takeSnapshot(context.Background(), c.agent.runtime, "node-a", p.UID, nil)
		if err != nil {
			c.t.Fatal(err)
		}
		_, dirErr := os.Stat(c.agent.cfg.podDir(p.UID))
		_, logErr := os.Stat(c.agent.cfg.podLogDir(p.Namespace, p.Name, p.UID))
		if len(s.sandboxes) == 0 && len(s.containers) == 0 && os.IsNotExist(dirErr) && os.IsNotExist(logErr) {
			return
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("left: %d sandboxes, %d containers, dir %v, logs %v", len(s.sandboxes), len(s.containers), dirErr, logErr)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// What a container is given: env, args, files, user, resources.
func TestContainersConfiguration(t *testing.T) {
	c := newCluster(t)
	ctx := context.Background()
	must := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(c.client.CoreV1().ConfigMaps("default").Create(ctx, &v1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "settings", Namespace: "default"}, Data: map[string]string{"color": "blue", "size": "9"}}, metav1.CreateOptions{}))
	must(c.client.CoreV1().Secrets("default").Create(ctx, &v1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "keys", Namespace: "default"}, Data: map[string][]byte{"word": []byte("hush")}}, metav1.CreateOptions{}))
	must(c.client.CoreV1().Services("default").Create(ctx, &v1.Service{ObjectMeta: metav1.ObjectMeta{Name: "kubernetes", Namespace: "default"}, Spec: v1.ServiceSpec{ClusterIP: "10.0.0.1", Ports: []v1.ServicePort{{Name: "https", Port: 443, Protocol: v1.ProtocolTCP}}}}, metav1.CreateOptions{}))

	user, group := int64(1234), int64(777)
	p := pod("given", words("env then id then caps then ls /config/color /keys/word /empty /token/token /down/labels /sub then cat /config/color /keys/word /token/token /down/labels /etc/hosts then polite"))
	p.Labels = map[string]string{"app": "given"}
	p.Spec.SecurityContext = &v1.PodSecurityContext{RunAsUser: &user, FSGroup: &group}
	no := false
	expiry := int64(3600)
	spec := &p.Spec.Containers[0]
	spec.SecurityContext = &v1.SecurityContext{AllowPrivilegeEscalation: &no, Capabilities: &v1.Capabilities{Drop: []v1.Capability{"ALL"}}}
	spec.WorkingDir = "/tmp"
	spec.Resources = v1.ResourceRequirements{
		Requests: v1.ResourceList{v1.ResourceCPU: resource.MustParse("100m"), v1.ResourceMemory: resource.MustParse("16Mi")},
		Limits:   v1.ResourceList{v1.ResourceMemory: resource.MustParse("64Mi")},
	}
	spec.Env = []v1.EnvVar{
		{Name: "PLAIN", Value: "x"}, {Name: "USES", Value: "$(PLAIN)$(KUBERNETES_SERVICE_PORT)$$(PLAIN)"},
		{Name: "MY_NAME", ValueFrom: &v1.EnvVarSource{FieldRef: &v1.ObjectFieldSelector{FieldPath: "metadata.name"}}},
		{Name: "MY_IP", ValueFrom: &v1.EnvVarSource{FieldRef: &v1.ObjectFieldSelector{FieldPath: "status.podIP"}}},
		{Name: "MY_MEMORY", ValueFrom: &v1.EnvVarSource{ResourceFieldRef: &v1.ResourceFieldSelector{Resource: "limits.memory", Divisor: resource.MustParse("1Mi")}}},
		{Name: "COLOR", ValueFrom: &v1.EnvVarSource{ConfigMapKeyRef: &v1.ConfigMapKeySelector{LocalObjectReference: v1.LocalObjectReference{Name: "settings"}, Key: "color"}}},
		{Name: "WORD", ValueFrom: &v1.EnvVarSource{SecretKeyRef: &v1.SecretKeySelector{LocalObjectReference: v1.LocalObjectReference{Name: "keys"}, Key: "word"}}},
	}
	spec.EnvFrom = []v1.EnvFromSource{{Prefix: "S_", ConfigMapRef: &v1.ConfigMapEnvSource{LocalObjectReference: v1.LocalObjectReference{Name: "settings"}}}}
	mode := int32(0o400)
	p.Spec.Volumes = []v1.Volume{
		{Name: "config", VolumeSource: v1.VolumeSource{ConfigMap: &v1.ConfigMapVolumeSource{LocalObjectReference: v1.LocalObjectReference{Name: "settings"}}}},
		{Name: "keys", VolumeSource: v1.VolumeSource{Secret: &v1.SecretVolumeSource{SecretName: "keys", DefaultMode: &mode}}},
		{Name: "empty", VolumeSource: v1.VolumeSource{EmptyDir: &v1.EmptyDirVolumeSource{}}},
		{Name: "memory", VolumeSource: v1.VolumeSource{EmptyDir: &v1.EmptyDirVolumeSource{Medium: v1.StorageMediumMemory}}},
		{Name: "down", VolumeSource: v1.VolumeSource{DownwardAPI: &v1.DownwardAPIVolumeSource{Items: []v1.DownwardAPIVolumeFile{{Path: "labels", FieldRef: &v1.ObjectFieldSelector{FieldPath: "metadata.labels"}}}}}},
		{Name: "token", VolumeSource: v1.VolumeSource{Projected: &v1.ProjectedVolumeSource{Sources: []v1.VolumeProjection{{ServiceAccountToken: &v1.ServiceAccountTokenProjection{Path: "token", ExpirationSeconds: &expiry}}}}}},
	}
	spec.VolumeMounts = []v1.VolumeMount{
		{Name: "config", MountPath: "/config"}, {Name: "keys", MountPath: "/keys"}, {Name: "empty", MountPath: "/empty"},
		{Name: "down", MountPath: "/down"}, {Name: "token", MountPath: "/token"}, {Name: "memory", MountPath: "/sub", SubPathExpr: "a/$(MY_NAME)"},
	}
	c.create(p)
	got := c.wait("given", "running", running)
	log := c.log(p, "c0")
	for _, want := range []string{
		"PLAIN=x\n", "USES=x443$(PLAIN)\n", "MY_NAME=given\n", "MY_IP=" + got.Status.PodIP + "\n", "MY_MEMORY=64\n", "COLOR=blue\n", "WORD=hush\n",
		"S_color=blue\n", "S_size=9\n", "KUBERNETES_SERVICE_HOST=10.0.0.1\n", "KUBERNETES_PORT_443_TCP=tcp://10.0.0.1:443\n", "HOSTNAME=given\n",
		"uid 1234 gid 0 groups [0 777] host given wd /tmp\n",
		"CapEff:\t0000000000000000\n", "NoNewPrivs:\t1\n",
		"-rw-r--r-- 0 777 /config/color\n", "-r--r----- 0 777 /keys/word\n", "dgrwxrwxrwx 0 777 /empty\n",
		"-rw-r----- 1234 777 /token/token\n",
		"bluehushtoken-for-givenapp=\"given\"", "# Kubernetes-managed hosts file.", got.Status.PodIP + "\tgiven\n",
	} {
		if !strings.Contains(log, want) {
			t.Errorf("log lacks %q", want)
		}
	}
	if t.Failed() {
		t.Logf("log:\n%s", log)
	}
	if got.Status.QOSClass != v1.PodQOSBurstable {
		t.Errorf("qos %s", got.Status.QOSClass)
	}

	// A changed ConfigMap reaches the volume.
	must(c.client.CoreV1().ConfigMaps("default").Update(ctx, &v1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "settings", Namespace: "default"}, Data: map[string]string{"color": "green"}}, metav1.UpdateOptions{}))
	file := filepath.Join(c.agent.cfg.podDir(p.UID), "volumes/kubernetes.io~configmap/config/color")
	deadline := time.Now().Add(patience)
	for {
		b, _ := os.ReadFile(file)
		if string(b) == "green" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("volume still has %q", b)
		}
		time.Sleep(20 * time.Millisecond)
	}
	if _, err := os.Lstat(filepath.Join(filepath.Dir(file), "size")); !os.IsNotExist(err) {
		t.Errorf("a removed key is still there: %v", err)
	}
	c.delete("given", 1)
	c.wait("given", "gone", gone)
	c.nothingLeft(p)
}

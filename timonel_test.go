package timonel_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"testing"
	"time"

	"github.com/timonel/timonel"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// The test of a controller: a control plane of its own, a client, and the wait for what the controller does.
func ExampleStart() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cluster, err := timonel.Start(ctx, timonel.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = cluster.Stop() }()
	client, err := kubernetes.NewForConfig(cluster.RESTConfig())
	if err != nil {
		fmt.Println(err)
		return
	}

	go greet(ctx, client) // the controller that is tested

	maps := client.CoreV1().ConfigMaps("default")
	changes, err := maps.Watch(ctx, metav1.ListOptions{FieldSelector: "metadata.name=world"})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer changes.Stop()
	if _, err := maps.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "world"}}, metav1.CreateOptions{}); err != nil {
		fmt.Println(err)
		return
	}
	for event := range changes.ResultChan() {
		if text := event.Object.(*corev1.ConfigMap).Data["greeting"]; text != "" {
			fmt.Println(text)
			return
		}
	}
	// Output: hello world
}

// greet is a controller: it writes a greeting into every ConfigMap of namespace default.
func greet(ctx context.Context, client kubernetes.Interface) {
	maps := client.CoreV1().ConfigMaps("default")
	all, err := maps.Watch(ctx, metav1.ListOptions{}) // what is there, then what changes
	if err != nil {
		return
	}
	defer all.Stop()
	for event := range all.ResultChan() {
		m, ok := event.Object.(*corev1.ConfigMap)
		if !ok || m.Data["greeting"] != "" {
			continue
		}
		m = m.DeepCopy()
		m.Data = map[string]string{"greeting": "hello " + m.Name}
		if _, err := maps.Update(ctx, m, metav1.UpdateOptions{}); err != nil && !apierrors.IsConflict(err) {
			return
		}
	}
}

func start(t *testing.T, ctx context.Context, c timonel.Config) (*timonel.Cluster, kubernetes.Interface) { //nolint:revive // the test comes first
	t.Helper()
	cluster, err := timonel.Start(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cluster.Stop() })
	httpClient, err := rest.HTTPClientFor(cluster.RESTConfig())
	if err != nil {
		t.Fatal(err)
	}
	client, err := kubernetes.NewForConfigAndClient(cluster.RESTConfig(), httpClient)
	if err != nil {
		t.Fatal(err)
	}
	return cluster, client
}

func write(t *testing.T, client kubernetes.Interface, name string) *corev1.ConfigMap {
	t.Helper()
	m, err := client.CoreV1().ConfigMaps("default").Create(context.Background(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// stop ends a cluster and the connections to it.
func stop(t *testing.T, cluster *timonel.Cluster, client kubernetes.Interface) {
	t.Helper()
	if h := client.CoreV1().RESTClient().(*rest.RESTClient); h.Client != nil {
		h.Client.CloseIdleConnections()
	}
	if err := cluster.Stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
	select {
	case <-cluster.Done():
	default:
		t.Error("it is stopped but not done")
	}
}

// nothingLeft waits until there are no more goroutines than before.
func nothingLeft(t *testing.T, before int) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for runtime.NumGoroutine() > before {
		if time.Now().After(deadline) {
			var stacks bytes.Buffer
			_ = pprof.Lookup("goroutine").WriteTo(&stacks, 1)
			t.Fatalf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), before, &stacks)
		}
		time.Sleep(10 * time.Millisecond) // goroutines end without telling
	}
}

// TestStopLeavesNothing behind: no goroutine, no directory.
func TestStopLeavesNothing(t *testing.T) {
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	warm, client := start(t, t.Context(), timonel.Config{}) // libraries start goroutines of their own, once
	stop(t, warm, client)
	runtime.GC()
	before := runtime.NumGoroutine()

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	cluster, client := start(t, ctx, timonel.Config{Controllers: true, Scheduler: true})
	write(t, client, "x")
	if _, err := os.Stat(cluster.Kubeconfig()); err != nil {
		t.Error(err)
	}
	stop(t, cluster, client)
	cancel()
	nothingLeft(t, before)
	if left, _ := filepath.Glob(tmp + "/*"); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	if err := cluster.Stop(); err != nil {
		t.Errorf("the second Stop: %v", err)
	}
}

// TestTwoAtOnce know nothing of each other.
func TestTwoAtOnce(t *testing.T) {
	_, first := start(t, t.Context(), timonel.Config{})
	_, second := start(t, t.Context(), timonel.Config{})
	a, b := write(t, first, "same"), write(t, second, "same")
	if a.UID == b.UID {
		t.Error("they share an object")
	}
}

// TestRestart continues where it was, with its certificates.
func TestRestart(t *testing.T) {
	dir := t.TempDir()
	cluster, client := start(t, t.Context(), timonel.Config{DataDir: dir})
	m := write(t, client, "kept")
	ca := cluster.RESTConfig().CAData
	stop(t, cluster, client)

	cluster, client = start(t, t.Context(), timonel.Config{DataDir: dir})
	got, err := client.CoreV1().ConfigMaps("default").Get(t.Context(), "kept", metav1.GetOptions{})
	if err != nil || got.UID != m.UID || got.ResourceVersion != m.ResourceVersion {
		t.Errorf("got %+v, %v", got, err)
	}
	if !bytes.Equal(ca, cluster.RESTConfig().CAData) {
		t.Error("it has another certificate authority")
	}
	stop(t, cluster, client)
	if _, err := os.Stat(cluster.Kubeconfig()); err != nil {
		t.Errorf("what the user owns is gone: %v", err)
	}
}

func TestContextEndsIt(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cluster, client := start(t, ctx, timonel.Config{})
	w, err := client.CoreV1().ConfigMaps("").Watch(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	for range w.ResultChan() { // ends
	}
	select {
	case <-cluster.Done():
	case <-time.After(20 * time.Second):
		t.Fatal("it runs on")
	}
}

// TestStartThatFails leaves nothing behind either.
func TestStartThatFails(t *testing.T) {
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	running, _ := start(t, t.Context(), timonel.Config{DataDir: t.TempDir()})
	before := runtime.NumGoroutine()
	var port int
	if _, err := fmt.Sscanf(running.URL(), "https://127.0.0.1:%d", &port); err != nil {
		t.Fatal(err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for name, one := range map[string]struct {
		ctx    context.Context
		config timonel.Config
	}{
		"a port that is taken":       {t.Context(), timonel.Config{Port: port}},
		"a directory that is in use": {t.Context(), timonel.Config{DataDir: filepath.Dir(running.Kubeconfig())}},
		"a token file that is not":   {t.Context(), timonel.Config{TokenAuthFile: filepath.Join(tmp, "none")}},
		"a context that is over":     {gone, timonel.Config{}},
	} {
		ctx, cancel := context.WithTimeout(one.ctx, 10*time.Second)
		cluster, err := timonel.Start(ctx, one.config)
		cancel()
		if err == nil {
			_ = cluster.Stop()
			t.Errorf("with %s it started", name)
		}
		nothingLeft(t, before)
		if left, _ := filepath.Glob(tmp + "/*"); len(left) > 0 {
			t.Errorf("%s left %v", name, left)
		}
	}
}

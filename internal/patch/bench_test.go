package patch

import (
	"reflect"
	"testing"
	"time"

	"github.com/timonel/timonel/internal/object"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
)

// storedPod is the example pod after creation, scheduling and the kubelet's
// status, with what a Deployment's user applied.
func storedPod(main, status *Ownership) *corev1.Pod {
	full := examplePod()
	pod := object.Copy(full)
	pod.Status = corev1.PodStatus{}
	main.Update(nil, pod, "kube-controller-manager", now)
	pod.UID = "u"
	running := object.Copy(full)
	running.UID = "u"
	running.ManagedFields = pod.ManagedFields
	status.Update(pod, running, "kubelet", now)
	return running
}

var now = time.Unix(1_700_000_000, 0)

func podDoors(reference bool) (main, status *Ownership) {
	options := subjectNamed("Pod").options
	options.Reference = reference
	options.Reset = []string{"status"}
	main = NewOwnership(options)
	options.Subresource, options.Reset = "status", []string{"spec"}
	return main, NewOwnership(options)
}

func subjectNamed(name string) subject {
	for _, s := range subjects(&testing.T{}) {
		if s.name == name {
			return s
		}
	}
	panic(name)
}

func bothWays(b *testing.B, run func(b *testing.B, main, status *Ownership)) {
	for _, reference := range []bool{false, true} {
		name := "quick"
		if reference {
			name = "reference"
		}
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			main, status := podDoors(reference)
			run(b, main, status)
		})
	}
}

func BenchmarkCreate(b *testing.B) {
	bothWays(b, func(b *testing.B, main, _ *Ownership) {
		pod := examplePod()
		pod.Status = corev1.PodStatus{}
		for b.Loop() {
			pod.ManagedFields = nil
			main.Update(nil, pod, "kube-controller-manager", now)
		}
	})
}

func BenchmarkStatus(b *testing.B) {
	bothWays(b, func(b *testing.B, main, status *Ownership) {
		live := storedPod(main, status)
		obj := object.Copy(live)
		obj.Status.Conditions[1].Status = "False"
		obj.Status.ContainerStatuses[0].RestartCount++
		for b.Loop() {
			obj.ManagedFields = live.ManagedFields
			status.Update(live, obj, "kubelet", now)
		}
	})
}

func BenchmarkUntouched(b *testing.B) {
	bothWays(b, func(b *testing.B, main, status *Ownership) {
		live := storedPod(main, status)
		obj := object.Copy(live)
		for b.Loop() {
			obj.ManagedFields = live.ManagedFields
			main.Update(live, obj, "kubectl", now)
		}
	})
}

// appliedPod is what a user would apply of the example pod.
func appliedPod() *unstructured.Unstructured {
	pod := examplePod()
	pod.Status = corev1.PodStatus{}
	pod.OwnerReferences, pod.GenerateName = nil, ""
	pod.Spec.NodeName = ""
	pod.Spec.Tolerations = nil
	tree, err := runtime.DefaultUnstructuredConverter.ToUnstructured(pod)
	if err != nil {
		panic(err)
	}
	delete(tree, "status")
	delete(tree["metadata"].(map[string]any), "creationTimestamp")
	u := &unstructured.Unstructured{Object: tree}
	u.SetAPIVersion("v1")
	u.SetKind("Pod")
	return u
}

func BenchmarkApplySame(b *testing.B) {
	bothWays(b, func(b *testing.B, main, status *Ownership) {
		live, err := main.Apply(storedPod(main, status), appliedPod(), "me", true, now)
		if err != nil {
			b.Fatal(err)
		}
		applied := appliedPod()
		for b.Loop() {
			if _, err := main.Apply(live, applied, "me", false, now); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkApplyChange(b *testing.B) {
	bothWays(b, func(b *testing.B, main, status *Ownership) {
		stored := storedPod(main, status)
		stored.Labels["version"] = "v0"
		live, err := main.Apply(stored, appliedPod(), "me", true, now)
		if err != nil {
			b.Fatal(err)
		}
		applied := appliedPod()
		if err := unstructured.SetNestedField(applied.Object, "v2", "metadata", "labels", "version"); err != nil {
			b.Fatal(err)
		}
		for b.Loop() {
			if _, err := main.Apply(live, applied, "me", false, now); err != nil {
				b.Fatal(err)
			}
		}
	})
}

const statusPatch = `{"metadata":{"uid":"u"},"status":{"$setElementOrder/conditions":[{"type":"Initialized"},{"type":"Ready"},{"type":"ContainersReady"},{"type":"PodScheduled"}],"conditions":[{"lastTransitionTime":"2026-02-02T03:04:15Z","status":"False","type":"Ready"}],"podIP":"10.244.3.28","podIPs":[{"ip":"10.244.3.28"},{"$patch":"delete","ip":"10.244.3.27"}]}}`

// BenchmarkStrategicStatus is a kubelet's patch of a pod's status.
func BenchmarkStrategicStatus(b *testing.B) {
	main, status := podDoors(false)
	live := storedPod(main, status)
	b.ReportAllocs()
	for b.Loop() {
		p, err := ParseStrategic([]byte(statusPatch))
		if err != nil {
			b.Fatal(err)
		}
		if _, _, err := p.ApplyTo(live); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkStrategicStatusWhole is the same through a tree of the whole pod.
func BenchmarkStrategicStatusWhole(b *testing.B) {
	main, status := podDoors(false)
	live := storedPod(main, status)
	b.ReportAllocs()
	for b.Loop() {
		p, err := ParseStrategic([]byte(statusPatch))
		if err != nil {
			b.Fatal(err)
		}
		tree, err := runtime.DefaultUnstructuredConverter.ToUnstructured(live)
		if err != nil {
			b.Fatal(err)
		}
		patched, err := p.patch(tree, strategicpatch.PatchMetaFromStruct{T: reflect.TypeFor[corev1.Pod]()})
		if err != nil {
			b.Fatal(err)
		}
		if err := runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(patched, &corev1.Pod{}, true); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkMergePatch(b *testing.B) {
	main, status := podDoors(false)
	live := storedPod(main, status)
	b.ReportAllocs()
	for b.Loop() {
		p, err := ParseMerge([]byte(`{"metadata":{"labels":{"a":"b"}},"status":{"reason":"r"}}`))
		if err != nil {
			b.Fatal(err)
		}
		if _, ok := p.ApplyTo(live); !ok {
			b.Fatal("not applied")
		}
	}
}

func BenchmarkParseApply(b *testing.B) {
	body := []byte(dump(appliedPod()))
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := ParseApply(body); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkSchema is what the first write of a kind pays once.
func BenchmarkSchema(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		types := newTypes(builtinDef)
		types.lookup("io.k8s.api.core.v1.Pod")
	}
}

package scheduler

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	v1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	kubetesting "k8s.io/client-go/testing"
	informer "k8s.io/client-go/tools/cache"
)

// storage fills stores with YAML of claims ("ns"), volumes and the rest.
func storage(t testing.TB, objects ...runtime.Object) *volumes {
	t.Helper()
	store := func() informer.Store { return informer.NewStore(informer.MetaNamespaceKeyFunc) }
	v := &volumes{claims: store(), persistent: store(), classes: store(), csiNodes: store(), drivers: store(), capacities: store()}
	for _, o := range objects {
		var err error
		switch o.(type) {
		case *v1.PersistentVolumeClaim:
			err = v.claims.Add(o)
		case *v1.PersistentVolume:
			err = v.persistent.Add(o)
		case *storagev1.StorageClass:
			err = v.classes.Add(o)
		case *storagev1.CSINode:
			err = v.csiNodes.Add(o)
		case *storagev1.CSIDriver:
			err = v.drivers.Add(o)
		case *storagev1.CSIStorageCapacity:
			err = v.capacities.Add(o)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return v
}

func newClaim(t testing.TB, name, more string) *v1.PersistentVolumeClaim {
	t.Helper()
	c := parse[v1.PersistentVolumeClaim](t, more)
	c.Name, c.Namespace, c.UID = name, "ns", types.UID("uid-"+name)
	if c.Spec.VolumeName != "" && c.Status.Phase == "" {
		metav1.SetMetaDataAnnotation(&c.ObjectMeta, annBindCompleted, "yes")
	}
	return c
}

func newVolume(t testing.TB, name, more string) *v1.PersistentVolume {
	t.Helper()
	pv := parse[v1.PersistentVolume](t, more)
	pv.Name = name
	return pv
}

func newClass(t testing.TB, name, more string) *storagev1.StorageClass {
	t.Helper()
	c := parse[storagev1.StorageClass](t, more)
	c.Name = name
	return c
}

// local is a volume on one node.
func local(t testing.TB, name, node, size string) *v1.PersistentVolume {
	return newVolume(t, name, fmt.Sprintf(`
spec:
	storageClassName: local
	capacity: {storage: %s}
	accessModes: [ReadWriteOnce]
	nodeAffinity: {required: {nodeSelectorTerms: [{matchExpressions: [{key: kubernetes.io/hostname, operator: In, values: [%s]}]}]}}
status: {phase: Available}`, size, node))
}

func localClaim(t testing.TB, name, size string) *v1.PersistentVolumeClaim {
	return newClaim(t, name, "spec: {storageClassName: local, accessModes: [ReadWriteOnce], resources: {requests: {storage: "+size+"}}}")
}

// using is a pod with claims.
func using(t testing.TB, name string, claims ...string) *v1.Pod {
	pod := newPod(t, name, "")
	for _, c := range claims {
		pod.Spec.Volumes = append(pod.Spec.Volumes, v1.Volume{Name: c, VolumeSource: v1.VolumeSource{
			PersistentVolumeClaim: &v1.PersistentVolumeClaimVolumeSource{ClaimName: c}}})
	}
	return pod
}

func TestVolumeBindingFilter(t *testing.T) {
	nodes := []*v1.Node{newNode(t, "a", "metadata: {labels: {zone: z1}}"), newNode(t, "b", "metadata: {labels: {zone: z2}}")}
	localClass := newClass(t, "local", "provisioner: kubernetes.io/no-provisioner\nvolumeBindingMode: WaitForFirstConsumer")
	path := newClass(t, "path", "provisioner: example.com/path\nvolumeBindingMode: WaitForFirstConsumer")
	zoned := newClass(t, "zoned", "provisioner: example.com/path\nvolumeBindingMode: WaitForFirstConsumer\nallowedTopologies: [{matchLabelExpressions: [{key: zone, values: [z2]}]}]")
	pathClaim := func(more string) *v1.PersistentVolumeClaim {
		return newClaim(t, "c", more+"spec: {storageClassName: path, accessModes: [ReadWriteOnce], resources: {requests: {storage: 5Gi}}}")
	}
	bound := newClaim(t, "c", "spec: {volumeName: va}")
	driver := parse[storagev1.CSIDriver](t, "metadata: {name: example.com/path}\nspec: {storageCapacity: true}")
	space := func(name, zone, size string) *storagev1.CSIStorageCapacity {
		return parse[storagev1.CSIStorageCapacity](t, fmt.Sprintf("metadata: {name: %s, namespace: kube-system}\nstorageClassName: path\ncapacity: %s\nnodeTopology: {matchLabels: {zone: %s}}", name, size, zone))
	}
	all := func(reason string) map[string]string { return map[string]string{"a": "!" + reason, "b": "!" + reason} }
	reserved := local(t, "vb", "b", "9Gi")
	reserved.Spec.ClaimRef = &v1.ObjectReference{Namespace: "ns", Name: "c"}
	ephemeral := newPod(t, "p", "spec: {volumes: [{name: scratch, ephemeral: {volumeClaimTemplate: {}}}]}")

	for _, c := range []struct {
		name    string
		objects []runtime.Object
		pod     *v1.Pod
		want    map[string]string
	}{
		{"no claims", nil, newPod(t, "p", ""), nil},
		{"missing claim", nil, using(t, "p", "c"), all(`persistentvolumeclaim "c" not found`)},
		{"ephemeral claim to come", nil, ephemeral, all(`waiting for ephemeral volume controller to create the persistentvolumeclaim "p-scratch"`)},
		{"ephemeral claim of another", []runtime.Object{newClaim(t, "p-scratch", "")}, ephemeral, all("PVC ns/p-scratch was not created for pod ns/p (pod is not owner)")},
		{"claim that is going", []runtime.Object{newClaim(t, "c", "metadata: {deletionTimestamp: '2026-01-01T00:00:00Z'}")}, using(t, "p", "c"), all(`persistentvolumeclaim "c" is being deleted`)},
		{"lost claim", []runtime.Object{newClaim(t, "c", "spec: {volumeName: v}\nstatus: {phase: Lost}")}, using(t, "p", "c"), all(`persistentvolumeclaim "c" bound to non-existent persistentvolume "v"`)},
		{"unbound", []runtime.Object{newClaim(t, "c", "spec: {storageClassName: slow}"), newClass(t, "slow", "provisioner: x")}, using(t, "p", "c"), all("pod has unbound immediate PersistentVolumeClaims")},
		{"unbound, no class", []runtime.Object{newClaim(t, "c", "")}, using(t, "p", "c"), all("pod has unbound immediate PersistentVolumeClaims")},
		{"bound", []runtime.Object{bound, local(t, "va", "a", "1Gi")}, using(t, "p", "c"), map[string]string{"b": "!node(s) didn't match PersistentVolume's node affinity"}},
		{"bound to nothing", []runtime.Object{bound}, using(t, "p", "c"), all("node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)")},
		{"free volume", []runtime.Object{localClass, localClaim(t, "c", "5Gi"), local(t, "va", "a", "4Gi"), local(t, "vb", "b", "6Gi")}, using(t, "p", "c"),
			map[string]string{"a": "!node(s) didn't find available persistent volumes to bind"}},
		{"two claims, one volume", []runtime.Object{localClass, localClaim(t, "c", "5Gi"), localClaim(t, "d", "5Gi"), local(t, "va", "a", "9Gi")}, using(t, "p", "c", "d"), all("node(s) didn't find available persistent volumes to bind")},
		{"two claims, two volumes", []runtime.Object{localClass, localClaim(t, "c", "9Gi"), localClaim(t, "d", "1Gi"), local(t, "v1", "a", "9Gi"), local(t, "v2", "a", "2Gi")}, using(t, "p", "c", "d"),
			map[string]string{"b": "!node(s) didn't find available persistent volumes to bind"}},
		{"volume reserved for it", []runtime.Object{localClass, localClaim(t, "c", "5Gi"), reserved}, using(t, "p", "c"), map[string]string{"a": "!node(s) didn't find available persistent volumes to bind"}},
		{"volume reserved for another", []runtime.Object{localClass, localClaim(t, "d", "5Gi"), reserved}, using(t, "p", "d"), all("node(s) didn't find available persistent volumes to bind")},
		{"can be made", []runtime.Object{path, pathClaim("")}, using(t, "p", "c"), nil},
		{"can be made in one zone", []runtime.Object{zoned, newClaim(t, "c", "spec: {storageClassName: zoned}")}, using(t, "p", "c"), map[string]string{"a": "!node(s) didn't find available persistent volumes to bind"}},
		{"being made", []runtime.Object{path, pathClaim("metadata: {annotations: {volume.kubernetes.io/selected-node: b}}\n")}, using(t, "p", "c"), map[string]string{"a": "!node(s) didn't find available persistent volumes to bind"}},
		{"space in one zone", []runtime.Object{path, driver, pathClaim(""), space("s1", "z1", "4Gi"), space("s2", "z2", "10Gi")}, using(t, "p", "c"), map[string]string{"a": "!node(s) did not have enough free storage"}},
	} {
		checkFilter(t, newVolumeBinding(nil, storage(t, c.objects...)), []filterCase{{name: c.name, pod: c.pod, nodes: nodes, want: c.want}})
	}
}

func TestVolumeBindingReserve(t *testing.T) {
	nodes := []*v1.Node{newNode(t, "a", "")}
	p := newVolumeBinding(nil, storage(t,
		newClass(t, "local", "provisioner: kubernetes.io/no-provisioner\nvolumeBindingMode: WaitForFirstConsumer"),
		localClaim(t, "c", "5Gi"), localClaim(t, "d", "5Gi"), local(t, "va", "a", "9Gi")))
	node := newCluster(nodes).Nodes[0]
	r, status := p.Reserve(newPodInfo(using(t, "p", "c")), node)
	if status != nil {
		t.Fatal(status)
	}
	no := map[string]string{"a": "!node(s) didn't find available persistent volumes to bind"}
	checkFilter(t, p, []filterCase{{name: "taken", pod: using(t, "q", "d"), nodes: nodes, want: no}})
	r.Undo()
	checkFilter(t, p, []filterCase{{name: "given back", pod: using(t, "q", "d"), nodes: nodes}})
}

func TestVolumeRestrictions(t *testing.T) {
	nodes := []*v1.Node{newNode(t, "a", ""), newNode(t, "b", "")}
	p := volumeRestrictions{storage(t, newClaim(t, "once", "spec: {accessModes: [ReadWriteOncePod]}"), newClaim(t, "many", "spec: {accessModes: [ReadWriteMany]}"))}
	disk := func(name string, readOnly bool) *v1.Pod {
		return newPod(t, name, fmt.Sprintf("spec: {volumes: [{name: d, gcePersistentDisk: {pdName: d, readOnly: %v}}]}", readOnly))
	}
	checkFilter(t, p, []filterCase{
		{name: "one pod", pod: using(t, "p", "once"), nodes: nodes, pods: []*v1.Pod{on("a", using(t, "x", "once"))},
			want: map[string]string{"a": reasonOncePod, "b": reasonOncePod}},
		{name: "first pod", pod: using(t, "p", "once"), nodes: nodes, pods: []*v1.Pod{on("a", using(t, "x", "many"))}},
		{name: "many pods", pod: using(t, "p", "many"), nodes: nodes, pods: []*v1.Pod{on("a", using(t, "x", "many"))}},
		{name: "one disk", pod: disk("p", true), nodes: nodes, pods: []*v1.Pod{on("a", disk("x", false))}, want: map[string]string{"a": reasonDiskUsed}},
		{name: "one disk, only read", pod: disk("p", true), nodes: nodes, pods: []*v1.Pod{on("a", disk("x", true))}},
	})
	checkWakes(t, p, []wakeCase{
		{"its user went", using(t, "p", "once"), Event{Kind: PodRemoved, OldPod: using(t, "x", "once")}, true},
		{"another went", using(t, "p", "once"), Event{Kind: PodRemoved, OldPod: using(t, "x", "many")}, false},
	})
}

func TestVolumeZone(t *testing.T) {
	nodes := []*v1.Node{
		newNode(t, "a", "metadata: {labels: {topology.kubernetes.io/zone: z1}}"),
		newNode(t, "b", "metadata: {labels: {failure-domain.beta.kubernetes.io/zone: z2}}"),
		newNode(t, "c", ""),
	}
	p := volumeZone{storage(t, newClaim(t, "c", "spec: {volumeName: v}"), newVolume(t, "v", "metadata: {labels: {topology.kubernetes.io/zone: z2__z3}}"))}
	checkFilter(t, p, []filterCase{{name: "by label", pod: using(t, "p", "c"), nodes: nodes, want: map[string]string{"a": "!" + reasonZone}}})
}

func TestNodeVolumeLimits(t *testing.T) {
	nodes := []*v1.Node{newNode(t, "a", ""), newNode(t, "b", "")}
	csi := func(name string) *v1.PersistentVolume {
		return newVolume(t, name, "spec: {csi: {driver: d, volumeHandle: "+name+"}}")
	}
	p := nodeVolumeLimits{storage(t,
		newClaim(t, "c1", "spec: {volumeName: v1}"), newClaim(t, "c2", "spec: {volumeName: v2}"), newClaim(t, "new", "spec: {storageClassName: s}"),
		csi("v1"), csi("v2"), newClass(t, "s", "provisioner: d"),
		parse[storagev1.CSINode](t, "metadata: {name: a}\nspec: {drivers: [{name: d, nodeID: x, topologyKeys: [], allocatable: {count: 1}}]}"))}
	there := []*v1.Pod{on("a", using(t, "x", "c1"))}
	no := map[string]string{"a": reasonVolumeCount}
	checkFilter(t, p, []filterCase{
		{name: "one too many", pod: using(t, "p", "c2"), nodes: nodes, pods: there, want: no},
		{name: "one to be made", pod: using(t, "p", "new"), nodes: nodes, pods: there, want: no},
		{name: "the same one", pod: using(t, "p", "c1"), nodes: nodes, pods: there},
		{name: "the first", pod: using(t, "p", "c2"), nodes: nodes},
	})
}

// TestProvisions plays volume controller and provisioner.
func TestProvisions(t *testing.T) {
	schedule(t, func(h *harness) {
		claims := h.client.CoreV1().PersistentVolumeClaims("ns")
		get := func() *v1.PersistentVolumeClaim {
			c, err := claims.Get(t.Context(), "c", metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			return c
		}
		h.create(using(t, "p", "c"))
		h.says("p", "Unschedulable", `0/1 nodes are available: persistentvolumeclaim "c" not found. preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling.`)

		claim := newClaim(t, "c", "spec: {storageClassName: path, accessModes: [ReadWriteOnce], resources: {requests: {storage: 5Gi}}}")
		claim.ResourceVersion = "1"
		if _, err := claims.Create(t.Context(), claim, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if got := get().Annotations[annSelectedNode]; got != "a" {
			t.Fatalf("selected node %q", got)
		}
		h.on("p", "") // its volume is still being made

		// The first attempt fails: the provisioner takes the annotation back.
		claim = get()
		delete(claim.Annotations, annSelectedNode)
		claim.ResourceVersion = "1000"
		if _, err := claims.Update(t.Context(), claim, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		time.Sleep(maxBackoff)
		synctest.Wait()
		if got := get().Annotations[annSelectedNode]; got != "a" {
			t.Fatalf("selected node %q at the second attempt", got)
		}

		claim = get()
		claim.Spec.VolumeName = "v"
		claim.Annotations[annBindCompleted] = "yes"
		if _, err := claims.Update(t.Context(), claim, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		h.on("p", "")
		if _, err := h.client.CoreV1().PersistentVolumes().Create(t.Context(), local(t, "v", "a", "5Gi"), metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		h.on("p", "a")
	}, newNode(t, "a", ""), newClass(t, "path", "provisioner: example.com/path\nvolumeBindingMode: WaitForFirstConsumer"))
}

// TestAssignsVolume gives a free local volume to the claim.
func TestAssignsVolume(t *testing.T) {
	schedule(t, func(h *harness) {
		h.create(using(t, "p", "c"))
		pv, err := h.client.CoreV1().PersistentVolumes().Get(t.Context(), "vb", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if ref := pv.Spec.ClaimRef; ref == nil || ref.UID != "uid-c" || pv.Annotations[annBoundByController] != "yes" {
			t.Fatalf("claimRef %+v", ref)
		}
		h.on("p", "")
		claim := localClaim(t, "c", "5Gi")
		claim.Spec.VolumeName = "vb"
		metav1.SetMetaDataAnnotation(&claim.ObjectMeta, annBindCompleted, "yes")
		if _, err := h.client.CoreV1().PersistentVolumeClaims("ns").Update(t.Context(), claim, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		h.on("p", "b")
	}, newNode(t, "a", ""), newNode(t, "b", ""), localClaim(t, "c", "5Gi"), local(t, "va", "a", "1Gi"), local(t, "vb", "b", "5Gi"),
		newClass(t, "local", "provisioner: kubernetes.io/no-provisioner\nvolumeBindingMode: WaitForFirstConsumer"))
}

// TestFailureGivesVolumeBack lets another claim have what a failed binding held.
func TestFailureGivesVolumeBack(t *testing.T) {
	schedule(t, func(h *harness) {
		h.client.PrependReactor("update", "persistentvolumes", func(a kubetesting.Action) (bool, runtime.Object, error) {
			pv := a.(kubetesting.UpdateAction).GetObject().(*v1.PersistentVolume)
			if pv.Spec.ClaimRef.Name == "c" {
				return true, nil, errors.New("no")
			}
			return false, nil, nil
		})
		h.create(using(t, "p", "c"))
		h.says("p", "SchedulerError", "binding rejected: giving volume va to claim ns/c: no")
		h.create(using(t, "q", "d"))
		pv, err := h.client.CoreV1().PersistentVolumes().Get(t.Context(), "va", metav1.GetOptions{})
		if err != nil || pv.Spec.ClaimRef == nil || pv.Spec.ClaimRef.Name != "d" {
			t.Errorf("claimRef %+v, %v", pv.Spec.ClaimRef, err)
		}
	}, newNode(t, "a", ""), localClaim(t, "c", "1Gi"), localClaim(t, "d", "1Gi"), local(t, "va", "a", "1Gi"),
		newClass(t, "local", "provisioner: kubernetes.io/no-provisioner\nvolumeBindingMode: WaitForFirstConsumer"))
}

// TestVolumeNeverBound gives up, and frees what it held.
func TestVolumeNeverBound(t *testing.T) {
	schedule(t, func(h *harness) {
		pod := using(t, "p", "c")
		pod.Spec.Containers[0].Resources.Requests = v1.ResourceList{v1.ResourceCPU: newNode(t, "x", "").Status.Allocatable[v1.ResourceCPU]}
		h.create(pod)
		time.Sleep(volumesBoundWithin)
		synctest.Wait()
		h.says("p", "SchedulerError", "binding rejected: waiting for claim ns/c: volumes not bound within 10m0s")
		h.create(requests(t, "q", "4", "1Gi"))
		h.on("q", "a")
	}, newNode(t, "a", ""), newClaim(t, "c", "spec: {storageClassName: path}"),
		newClass(t, "path", "provisioner: example.com/path\nvolumeBindingMode: WaitForFirstConsumer"))
}

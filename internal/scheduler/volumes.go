package scheduler

import (
	"context"
	"fmt"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	coreinformers "k8s.io/client-go/informers/core/v1"
	storageinformers "k8s.io/client-go/informers/storage/v1"
	"k8s.io/client-go/kubernetes"
	informer "k8s.io/client-go/tools/cache"
)

// volumesReadyTimeout bounds how long a cycle waits for the volume watches,
// which begin with the first pod that has a claim.
const volumesReadyTimeout = 5 * time.Second

// volumes is what is known of storage. Until a pod has a claim nothing is
// watched: most test clusters never see one.
type volumes struct {
	claims, persistent, classes, csiNodes, drivers, capacities informer.Store

	// begin starts the watches, once, and returns what is done when they have
	// filled the stores; nil in tests. Only the cycle calls these.
	begin  func() ([]informer.DoneChecker, error)
	synced []informer.DoneChecker
	filled bool
	ctx    func() context.Context

	mu      sync.Mutex
	changed chan struct{} // closed at the next change of a claim or volume
}

// ready makes sure that the stores are filled.
func (v *volumes) ready() error {
	if v.begin == nil || v.filled {
		return nil
	}
	if v.synced == nil {
		synced, err := v.begin()
		if err != nil {
			return fmt.Errorf("watching volumes: %w", err)
		}
		v.synced = synced
	}
	ctx, cancel := context.WithTimeout(v.ctx(), volumesReadyTimeout)
	defer cancel()
	if v.filled = informer.WaitFor(ctx, "", v.synced...); !v.filled {
		return fmt.Errorf("reading the cluster's volumes: %w", ctx.Err())
	}
	return nil
}

func (v *volumes) claim(namespace, name string) *v1.PersistentVolumeClaim {
	return lookUp[v1.PersistentVolumeClaim](v.claims, namespace+"/"+name)
}
func (v *volumes) volume(name string) *v1.PersistentVolume {
	return lookUp[v1.PersistentVolume](v.persistent, name)
}
func (v *volumes) class(name string) *storagev1.StorageClass {
	return lookUp[storagev1.StorageClass](v.classes, name)
}
func (v *volumes) csiNode(name string) *storagev1.CSINode {
	return lookUp[storagev1.CSINode](v.csiNodes, name)
}
func (v *volumes) driver(name string) *storagev1.CSIDriver {
	return lookUp[storagev1.CSIDriver](v.drivers, name)
}

func lookUp[T any](store informer.Store, key string) *T {
	obj, ok, err := store.GetByKey(key)
	if !ok || err != nil {
		return nil
	}
	return obj.(*T)
}

// nextChange is closed once a claim or volume has changed after the call.
func (v *volumes) nextChange() <-chan struct{} {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.changed == nil {
		v.changed = make(chan struct{})
	}
	return v.changed
}

func (v *volumes) wakeWaiters() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.changed != nil {
		close(v.changed)
		v.changed = nil
	}
}

// newVolumes makes the informers; begin, on first need, runs them.
func newVolumes(client kubernetes.Interface, w *watches) *volumes {
	all := metav1.NamespaceAll
	informers := map[string]informer.SharedIndexInformer{
		"persistentvolumeclaims": coreinformers.NewPersistentVolumeClaimInformer(client, all, 0, informer.Indexers{}),
		"persistentvolumes":      coreinformers.NewPersistentVolumeInformer(client, 0, informer.Indexers{}),
		"storageclasses":         storageinformers.NewStorageClassInformer(client, 0, informer.Indexers{}),
		"csinodes":               storageinformers.NewCSINodeInformer(client, 0, informer.Indexers{}),
		"csidrivers":             storageinformers.NewCSIDriverInformer(client, 0, informer.Indexers{}),
		"csistoragecapacities":   storageinformers.NewCSIStorageCapacityInformer(client, all, 0, informer.Indexers{}),
	}
	v := &volumes{
		claims:     informers["persistentvolumeclaims"].GetStore(),
		persistent: informers["persistentvolumes"].GetStore(),
		classes:    informers["storageclasses"].GetStore(),
		csiNodes:   informers["csinodes"].GetStore(),
		drivers:    informers["csidrivers"].GetStore(),
		capacities: informers["csistoragecapacities"].GetStore(),
	}
	happened := func() {
		v.wakeWaiters()
		w.s.queue.happened(Event{Kind: VolumesChanged})
	}
	v.ctx = func() context.Context { return w.ctx }
	v.begin = func() (synced []informer.DoneChecker, err error) {
		for name, i := range informers {
			checker, err := w.run(name, i, informer.ResourceEventHandlerFuncs{
				AddFunc: func(any) { happened() },
				UpdateFunc: func(old, now any) {
					if !equality.Semantic.DeepEqual(withoutVersion(old), withoutVersion(now)) {
						happened()
					}
				},
				DeleteFunc: func(any) { happened() },
			})
			if err != nil {
				return nil, err
			}
			synced = append(synced, checker)
		}
		return synced, nil
	}
	return v
}

// withoutVersion is a shallow copy that compares equal when only the resource
// version differs, as after a relist.
func withoutVersion(obj any) any {
	switch o := obj.(type) {
	case *v1.PersistentVolumeClaim:
		c := *o
		c.ResourceVersion = ""
		return &c
	case *v1.PersistentVolume:
		c := *o
		c.ResourceVersion = ""
		return &c
	}
	return obj
}

// claimKey names a claim, "namespace/name".
func claimKey(c *v1.PersistentVolumeClaim) string { return c.Namespace + "/" + c.Name }

// className is the storage class of a claim, "" for none.
func className(c *v1.PersistentVolumeClaim) string {
	if name, ok := c.Annotations[v1.BetaStorageClassAnnotation]; ok {
		return name
	}
	if c.Spec.StorageClassName == nil {
		return ""
	}
	return *c.Spec.StorageClassName
}

// volumeClassName is the storage class of a volume, "" for none.
func volumeClassName(pv *v1.PersistentVolume) string {
	if name, ok := pv.Annotations[v1.BetaStorageClassAnnotation]; ok {
		return name
	}
	return pv.Spec.StorageClassName
}

// The annotations by which scheduler, volume controller and provisioners talk
// ("Well-Known Labels, Annotations and Taints" in the Kubernetes docs).
const (
	annBindCompleted     = "pv.kubernetes.io/bind-completed"
	annBoundByController = "pv.kubernetes.io/bound-by-controller"
	annSelectedNode      = "volume.kubernetes.io/selected-node"
	noProvisioner        = "kubernetes.io/no-provisioner"
)

// isBound reports whether the volume controller has finished binding c.
func isBound(c *v1.PersistentVolumeClaim) bool {
	_, done := c.Annotations[annBindCompleted]
	return done && c.Spec.VolumeName != ""
}

package controller

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"slices"
	"strconv"
	"sync"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/rand"
	appslisters "k8s.io/client-go/listers/apps/v1"
	"k8s.io/client-go/tools/cache"
)

// history keeps the templates that a DaemonSet or StatefulSet had, as ControllerRevisions: patches that
// kubectl rollout undo applies.
type history struct {
	*part
	revisions appslisters.ControllerRevisionLister
	informer  cache.SharedIndexInformer

	mu     sync.Mutex
	unseen map[string][]*appsv1.ControllerRevision // owner → what was written last and the informer has not told of yet
}

// maxUnseen bounds what is kept of one owner while the informer tells nothing.
const maxUnseen = 10

func (p *part) newHistory() *history {
	all := p.informers.Apps().V1().ControllerRevisions()
	p.wait(all.Informer())
	return &history{part: p, revisions: all.Lister(), informer: all.Informer(), unseen: map[string][]*appsv1.ControllerRevision{}}
}

// revisionHashLabel tells the ControllerRevisions of an owner apart; on pods of DaemonSets it is the same.
const revisionHashLabel = "controller.kubernetes.io/hash"

// templatePatch is what a revision keeps of a template.
func templatePatch(template *corev1.PodTemplateSpec) ([]byte, error) {
	tree, err := runtime.DefaultUnstructuredConverter.ToUnstructured(template)
	if err != nil {
		return nil, err
	}
	tree["$patch"] = "replace"
	return json.Marshal(map[string]any{"spec": map[string]any{"template": tree}})
}

// of lists the owner's revisions, oldest first, after adopting and releasing.
func (h *history) of(ctx context.Context, o *owner) ([]*appsv1.ControllerRevision, error) {
	untold := h.untold(o) // before the look at the informer, which may be told meanwhile
	all, err := h.revisions.ControllerRevisions(o.meta.GetNamespace()).List(labels.Everything())
	if err != nil {
		return nil, err
	}
	var owned, orphans []*appsv1.ControllerRevision
	for _, r := range all {
		if ref := metav1.GetControllerOfNoCopy(r); ref == nil {
			orphans = append(orphans, r)
		} else if ref.UID == o.meta.GetUID() {
			owned = append(owned, r)
		}
	}
	mine, err := claim(ctx, o, owned, orphans, func(ctx context.Context, r *appsv1.ControllerRevision, body []byte) error {
		_, err := h.client.AppsV1().ControllerRevisions(r.Namespace).Patch(ctx, r.Name, types.StrategicMergePatchType, body, metav1.PatchOptions{})
		return err
	})
	for _, r := range untold {
		mine = append(slices.DeleteFunc(mine, func(old *appsv1.ControllerRevision) bool { return old.UID == r.UID }), r)
	}
	slices.SortFunc(mine, func(a, b *appsv1.ControllerRevision) int {
		return cmp.Or(cmp.Compare(a.Revision, b.Revision), a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmpNames(a, b))
	})
	return mine, err
}

// untold are the revisions of an owner that were written and that the informer has not told of, oldest first.
func (h *history) untold(o *owner) []*appsv1.ControllerRevision {
	h.mu.Lock()
	defer h.mu.Unlock()
	key := keyOf(o.meta)
	left := slices.DeleteFunc(h.unseen[key], func(r *appsv1.ControllerRevision) bool {
		return told(h.informer, r.ResourceVersion) || !metav1.IsControlledBy(r, o.meta)
	})
	if len(left) == 0 {
		delete(h.unseen, key)
		return nil
	}
	h.unseen[key] = left
	return slices.Clone(left)
}

func (h *history) wrote(o *owner, r *appsv1.ControllerRevision) {
	h.mu.Lock()
	defer h.mu.Unlock()
	key := keyOf(o.meta)
	all := append(h.unseen[key], r)
	h.unseen[key] = all[max(0, len(all)-maxUnseen):]
}

// forget drops an owner that is gone.
func (h *history) forget(key string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.unseen, key)
}

// current is the revision of a template, made or brought to the front if need be.
func (h *history) current(ctx context.Context, o *owner, template *corev1.PodTemplateSpec, labelName string, collisions *int32, have []*appsv1.ControllerRevision) (*appsv1.ControllerRevision, error) {
	data, err := templatePatch(template)
	if err != nil {
		return nil, fmt.Errorf("make revision of %s: %w", o.meta.GetName(), err)
	}
	newest := int64(0)
	var same *appsv1.ControllerRevision
	for _, r := range have {
		newest = max(newest, r.Revision)
		if sameJSON(r.Data.Raw, data) {
			same = r
		}
	}
	client := h.client.AppsV1().ControllerRevisions(o.meta.GetNamespace())
	for try := deref(collisions); same == nil; try++ {
		sum := fnv.New32a()
		_, _ = sum.Write(data) // a hash takes everything
		if try > 0 {
			_, _ = sum.Write([]byte(strconv.Itoa(int(try))))
		}
		hash := rand.SafeEncodeString(strconv.FormatUint(uint64(sum.Sum32()), 10))
		r := &appsv1.ControllerRevision{
			ObjectMeta: metav1.ObjectMeta{
				Name: o.meta.GetName() + "-" + hash, Namespace: o.meta.GetNamespace(), Labels: with(template.Labels, labelName, hash),
				Annotations: o.meta.GetAnnotations(), OwnerReferences: []metav1.OwnerReference{*o.ref()},
			},
			Data: runtime.RawExtension{Raw: data}, Revision: newest + 1,
		}
		made, err := client.Create(ctx, r, metav1.CreateOptions{})
		if err == nil {
			h.wrote(o, made)
		}
		if !apierrors.IsAlreadyExists(err) {
			return made, err
		}
		old, err := client.Get(ctx, r.Name, metav1.GetOptions{})
		if err != nil {
			return nil, err
		}
		if metav1.IsControlledBy(old, o.meta) && sameJSON(old.Data.Raw, data) {
			same = old
		}
	}
	if same.Revision >= newest {
		return same, nil
	}
	same = same.DeepCopy()
	same.Revision = newest + 1
	updated, err := client.Update(ctx, same, metav1.UpdateOptions{})
	if err == nil {
		h.wrote(o, updated)
	}
	return updated, err
}

// sameJSON compares documents, not bytes.
func sameJSON(a, b []byte) bool {
	if bytes.Equal(a, b) {
		return true
	}
	var x, y any
	if json.Unmarshal(a, &x) != nil || json.Unmarshal(b, &y) != nil {
		return false
	}
	p, errP := json.Marshal(x)
	q, errQ := json.Marshal(y)
	return errP == nil && errQ == nil && bytes.Equal(p, q)
}

// trim deletes the oldest revisions beyond the limit that are not in use.
func (h *history) trim(ctx context.Context, have []*appsv1.ControllerRevision, limit *int32, inUse func(r *appsv1.ControllerRevision) bool) error {
	idle := slices.DeleteFunc(slices.Clone(have), inUse)
	keep := 10
	if limit != nil {
		keep = int(*limit)
	}
	for _, r := range idle[:max(0, len(idle)-keep)] {
		if err := h.client.AppsV1().ControllerRevisions(r.Namespace).Delete(ctx, r.Name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			return err
		}
	}
	return nil
}

// templateFrom is the template that a revision keeps.
func templateFrom(r *appsv1.ControllerRevision) (*corev1.PodTemplateSpec, error) {
	var patch struct {
		Spec struct {
			Template corev1.PodTemplateSpec `json:"template"`
		} `json:"spec"`
	}
	if err := json.Unmarshal(r.Data.Raw, &patch); err != nil {
		return nil, err
	}
	return &patch.Spec.Template, nil
}

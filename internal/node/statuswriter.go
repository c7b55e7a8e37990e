package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/util/workqueue"
)

// statusWriter brings pod statuses to the API server: of each pod only the
// newest matters, an unchanged one costs nothing, a failed write is tried
// again with back-off. When a pod has ended for good and is marked for
// deletion, it deletes the object after the final status arrived.
//
// A patch is made against the newest version of the object known: what the
// watch delivered or what our own last patch was answered with, whichever is
// newer; else a stale base would hide a change.
type statusWriter struct {
	client kubernetes.Interface
	log    *slog.Logger
	queue  workqueue.TypedRateLimitingInterface[types.UID]

	mu struct {
		sync.Mutex
		pods map[types.UID]*statusEntry
	}
}

type statusEntry struct {
	base   *v1.Pod // newest object known
	want   *v1.PodStatus
	remove bool // delete the object once want is written
}

const (
	// statusWriters bounds how many status writes run at the same time.
	statusWriters = 4
	// apiTimeout bounds one write to the API server.
	apiTimeout = 15 * time.Second
	// statusRetryMin and Max bound the pause before a failed write is repeated.
	statusRetryMin = 200 * time.Millisecond
	statusRetryMax = 30 * time.Second
)

func newStatusWriter(client kubernetes.Interface, log *slog.Logger) *statusWriter {
	w := &statusWriter{client: client, log: log}
	w.queue = workqueue.NewTypedRateLimitingQueue(workqueue.NewTypedItemExponentialFailureRateLimiter[types.UID](statusRetryMin, statusRetryMax))
	w.mu.pods = map[types.UID]*statusEntry{}
	return w
}

// run writes until ctx ends.
func (w *statusWriter) run(ctx context.Context) {
	var group sync.WaitGroup
	for range statusWriters {
		group.Go(func() {
			for {
				uid, shutdown := w.queue.Get()
				if shutdown {
					return
				}
				err := w.write(ctx, uid)
				switch {
				case err == nil:
					w.queue.Forget(uid)
				case ctx.Err() != nil:
				default:
					w.log.Warn("pod status not written; will retry", "uid", uid, "err", err)
					w.queue.AddRateLimited(uid)
				}
				w.queue.Done(uid)
			}
		})
	}
	<-ctx.Done()
	w.queue.ShutDown()
	group.Wait()
}

// observe notes the object as the watch delivered it.
func (w *statusWriter) observe(pod *v1.Pod) {
	w.mu.Lock()
	defer w.mu.Unlock()
	entry := w.mu.pods[pod.UID]
	if entry == nil {
		w.mu.pods[pod.UID] = &statusEntry{base: pod}
		return
	}
	if newer(pod, entry.base) {
		entry.base = pod
		// Somebody may have changed what is ours: see whether it still fits.
		if entry.want != nil {
			w.queue.Add(pod.UID)
		}
	}
}

// newer compares versions of one object; versions that cannot be compared
// count as newer, as they come.
func newer(a, b *v1.Pod) bool {
	order, err := resourceversion.CompareResourceVersion(a.ResourceVersion, b.ResourceVersion)
	return err != nil || order >= 0
}

// set makes status the one the pod is to have.
func (w *statusWriter) set(uid types.UID, status *v1.PodStatus, remove bool) {
	w.mu.Lock()
	entry := w.mu.pods[uid]
	if entry == nil || (entry.want != nil && entry.remove == remove && apiequality.Semantic.DeepEqual(entry.want, status)) {
		w.mu.Unlock()
		return
	}
	entry.want, entry.remove = status.DeepCopy(), remove
	w.mu.Unlock()
	w.queue.Add(uid)
}

// forget drops a pod that no longer exists.
func (w *statusWriter) forget(uid types.UID) {
	w.mu.Lock()
	delete(w.mu.pods, uid)
	w.mu.Unlock()
}

// last is the newest version of the pod known.
func (w *statusWriter) last(uid types.UID) *v1.Pod {
	w.mu.Lock()
	defer w.mu.Unlock()
	if entry := w.mu.pods[uid]; entry != nil {
		return entry.base
	}
	return nil
}

// wanted is the status the pod is to have, if one was set.
func (w *statusWriter) wanted(uid types.UID) *v1.PodStatus {
	w.mu.Lock()
	defer w.mu.Unlock()
	if entry := w.mu.pods[uid]; entry != nil {
		return entry.want
	}
	return nil
}

func (w *statusWriter) write(ctx context.Context, uid types.UID) error {
	w.mu.Lock()
	entry := w.mu.pods[uid]
	if entry == nil || entry.want == nil {
		w.mu.Unlock()
		return nil
	}
	base, want, remove := entry.base, entry.want, entry.remove
	w.mu.Unlock()

	patch, err := statusPatch(base, want)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	pods := w.client.CoreV1().Pods(base.Namespace)
	if patch != nil {
		updated, err := pods.Patch(ctx, base.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
		switch {
		case apierrors.IsNotFound(err):
			return nil
		case apierrors.IsInvalid(err) && remove:
			// A last status that nobody takes must not keep the pod for ever.
			w.log.Error("last pod status refused", "pod", base.Namespace+"/"+base.Name, "err", err)
			updated = base
		case err != nil:
			return fmt.Errorf("patch status of pod %s/%s: %w", base.Namespace, base.Name, err)
		}
		w.mu.Lock()
		if entry := w.mu.pods[uid]; entry != nil && newer(updated, entry.base) {
			entry.base = updated
		}
		w.mu.Unlock()
	}
	if !remove {
		return nil
	}
	zero := int64(0)
	err = pods.Delete(ctx, base.Name, metav1.DeleteOptions{GracePeriodSeconds: &zero, Preconditions: &metav1.Preconditions{UID: &uid}})
	if err != nil && !isAnother(err) {
		return fmt.Errorf("delete pod %s/%s: %w", base.Namespace, base.Name, err)
	}
	return nil
}

// isAnother tells that the object is gone or was replaced by a namesake.
func isAnother(err error) bool {
	return apierrors.IsNotFound(err) || apierrors.IsConflict(err)
}

// statusPatch is the change from base's status to want, bound to base's UID;
// nil when there is none. Conditions of others in base stay as they are.
func statusPatch(base *v1.Pod, want *v1.PodStatus) ([]byte, error) {
	target := want.DeepCopy()
	for _, condition := range base.Status.Conditions {
		if !ownCondition(condition.Type) {
			setCondition(target, condition)
		}
	}
	// What other components write into the status.
	target.NominatedNodeName = base.Status.NominatedNodeName
	target.ResourceClaimStatuses = base.Status.ResourceClaimStatuses
	target.ExtendedResourceClaimStatus = base.Status.ExtendedResourceClaimStatus
	if apiequality.Semantic.DeepEqual(target, &base.Status) {
		return nil, nil
	}
	before, err := json.Marshal(v1.Pod{Status: base.Status})
	if err != nil {
		return nil, err
	}
	after, err := json.Marshal(v1.Pod{ObjectMeta: metav1.ObjectMeta{UID: base.UID}, Status: *target})
	if err != nil {
		return nil, err
	}
	patch, err := strategicpatch.CreateTwoWayMergePatch(before, after, v1.Pod{})
	if err != nil {
		return nil, fmt.Errorf("compute status patch: %w", err)
	}
	if string(patch) == "{}" {
		return nil, errors.New("status differs and its patch is empty")
	}
	return patch, nil
}

// ownCondition tells the pod conditions an agent writes.
func ownCondition(kind v1.PodConditionType) bool {
	switch kind {
	case v1.PodReadyToStartContainers, v1.PodInitialized, v1.PodReady, v1.ContainersReady, v1.PodScheduled,
		v1.PodResizePending, v1.PodResizeInProgress:
		return true
	}
	return false
}

func setCondition(status *v1.PodStatus, condition v1.PodCondition) {
	for i := range status.Conditions {
		if status.Conditions[i].Type == condition.Type {
			status.Conditions[i] = condition
			return
		}
	}
	status.Conditions = append(status.Conditions, condition)
}

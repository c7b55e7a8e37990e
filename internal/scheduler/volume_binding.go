package scheduler

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/client-go/kubernetes"
)

// volumeBinding keeps pods where their volumes are, and binds claims that wait
// for their first consumer (volumeBindingMode WaitForFirstConsumer).
//
// Such a claim gets a volume with the choice of node: a free one that reaches
// the node is given to it by claimRef, or its provisioner is told the node by
// the annotation selected-node. The pod is bound once the volume controller
// has bound its claims. Until a claimRef comes back through the watch, the
// volume counts as taken here.
type volumeBinding struct {
	client  kubernetes.Interface
	volumes *volumes

	mu    *sync.Mutex
	taken map[string]string // volume name → claim key
}

func newVolumeBinding(client kubernetes.Interface, v *volumes) volumeBinding {
	return volumeBinding{client: client, volumes: v, mu: new(sync.Mutex), taken: map[string]string{}}
}

func (volumeBinding) Name() string { return "VolumeBinding" }

const (
	reasonUnboundImmediate = "pod has unbound immediate PersistentVolumeClaims"
	reasonVolumeElsewhere  = "node(s) didn't match PersistentVolume's node affinity"
	reasonVolumeGone       = "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)"
	reasonNoVolume         = "node(s) didn't find available persistent volumes to bind"
	reasonNoStorage        = "node(s) did not have enough free storage"
)

// volumesBoundWithin is kube-scheduler's default bindTimeoutSeconds.
const volumesBoundWithin = 10 * time.Minute

// podClaims are the claims of a pod by what is left to do.
type podClaims struct {
	bound   []*v1.PersistentVolumeClaim
	delayed []*v1.PersistentVolumeClaim // smallest first
}

// claims sorts pod's claims; a Status if one of them keeps the pod off every node.
func (p volumeBinding) claims(pod *v1.Pod) (podClaims, *Status) {
	var out podClaims
	if !hasClaims(pod) {
		return out, nil
	}
	if err := p.volumes.ready(); err != nil {
		return out, failed(err)
	}
	immediate := false
	for i := range pod.Spec.Volumes {
		name, ephemeral := claimOf(pod, &pod.Spec.Volumes[i])
		if name == "" {
			continue
		}
		c := p.volumes.claim(pod.Namespace, name)
		switch {
		case c == nil && ephemeral:
			return out, rejectedFinally(fmt.Sprintf("waiting for ephemeral volume controller to create the persistentvolumeclaim %q", name))
		case c == nil:
			return out, rejectedFinally(fmt.Sprintf("persistentvolumeclaim %q not found", name))
		case c.Status.Phase == v1.ClaimLost:
			return out, rejectedFinally(fmt.Sprintf("persistentvolumeclaim %q bound to non-existent persistentvolume %q", name, c.Spec.VolumeName))
		case c.DeletionTimestamp != nil:
			return out, rejectedFinally(fmt.Sprintf("persistentvolumeclaim %q is being deleted", name))
		case ephemeral && !metav1.IsControlledBy(c, pod):
			return out, rejectedFinally(fmt.Sprintf("PVC %s was not created for pod %s/%s (pod is not owner)", claimKey(c), pod.Namespace, pod.Name))
		case isBound(c):
			out.bound = append(out.bound, c)
		case c.Spec.VolumeName == "" && p.waitsForConsumer(c):
			out.delayed = append(out.delayed, c)
		default:
			immediate = true
		}
	}
	if immediate {
		return out, rejectedFinally(reasonUnboundImmediate)
	}
	slices.SortStableFunc(out.delayed, func(a, b *v1.PersistentVolumeClaim) int {
		qa, qb := requested(a), requested(b)
		return qa.Cmp(qb)
	})
	return out, nil
}

func hasClaims(pod *v1.Pod) bool {
	return slices.ContainsFunc(pod.Spec.Volumes, func(v v1.Volume) bool {
		name, _ := claimOf(pod, &v)
		return name != ""
	})
}

func (p volumeBinding) waitsForConsumer(c *v1.PersistentVolumeClaim) bool {
	class := p.volumes.class(className(c))
	return class != nil && class.VolumeBindingMode != nil && *class.VolumeBindingMode == storagev1.VolumeBindingWaitForFirstConsumer
}

func (p volumeBinding) Filter(pod *PodInfo, _ *Cluster) (NodeFilter, *Status) {
	claims, status := p.claims(pod.Pod)
	if status != nil {
		return nil, status
	}
	if len(claims.bound)+len(claims.delayed) == 0 {
		return nil, nil
	}
	matching := p.matching(claims)
	return func(node *NodeInfo) *Status {
		for _, c := range claims.bound {
			pv := p.volumes.volume(c.Spec.VolumeName)
			switch {
			case pv == nil:
				return rejectedFinally(reasonVolumeGone)
			case !reaches(pv, node.Node):
				return rejectedFinally(reasonVolumeElsewhere)
			}
		}
		_, reason := p.plan(claims, matching, node.Node)
		if reason != "" {
			return rejectedFinally(reason)
		}
		return nil
	}, nil
}

// matching lists for each delayed claim the volumes that could serve it and
// are not promised to another one.
func (p volumeBinding) matching(claims podClaims) [][]*v1.PersistentVolume {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make([][]*v1.PersistentVolume, len(claims.delayed))
	for i, c := range claims.delayed {
		out[i] = slices.DeleteFunc(p.volumes.matching(c), func(pv *v1.PersistentVolume) bool {
			owner, taken := p.taken[pv.Name]
			return taken && owner != claimKey(c)
		})
	}
	return out
}

// A volumePlan says how the delayed claims of a pod get volumes on a node.
type volumePlan struct {
	assign    map[*v1.PersistentVolumeClaim]*v1.PersistentVolume
	provision []*v1.PersistentVolumeClaim
}

// plan finds for each delayed claim a volume on node, or has it made there.
func (p volumeBinding) plan(claims podClaims, matching [][]*v1.PersistentVolume, node *v1.Node) (plan volumePlan, reason string) {
	used := map[string]bool{}
	for i, c := range claims.delayed {
		if selected, ok := c.Annotations[annSelectedNode]; ok {
			// Its provisioner may be at work: only there, until it gives up
			// and takes the annotation away.
			if selected != node.Name {
				return plan, reasonNoVolume
			}
		} else {
			at := slices.IndexFunc(matching[i], func(pv *v1.PersistentVolume) bool {
				return !used[pv.Name] && reaches(pv, node)
			})
			if at >= 0 {
				pv := matching[i][at]
				used[pv.Name] = true
				if plan.assign == nil {
					plan.assign = map[*v1.PersistentVolumeClaim]*v1.PersistentVolume{}
				}
				plan.assign[c] = pv
				continue
			}
		}
		if reason := p.volumes.provisionable(c, node); reason != "" {
			return plan, reason
		}
		plan.provision = append(plan.provision, c)
	}
	return plan, ""
}

// Reserve takes the volumes for the delayed claims of pod on node.
func (p volumeBinding) Reserve(pod *PodInfo, node *NodeInfo) (Reservation, *Status) {
	claims, status := p.claims(pod.Pod)
	if status != nil || len(claims.delayed) == 0 {
		return Reservation{}, status
	}
	plan, reason := p.plan(claims, p.matching(claims), node.Node)
	if reason != "" {
		return Reservation{}, rejectedFinally(reason)
	}
	p.mu.Lock()
	for c, pv := range plan.assign {
		p.taken[pv.Name] = claimKey(c)
	}
	p.mu.Unlock()
	release := func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		for c, pv := range plan.assign {
			if p.taken[pv.Name] == claimKey(c) {
				delete(p.taken, pv.Name)
			}
		}
	}
	return Reservation{
		Bind: func(ctx context.Context) error {
			err := p.carryOut(ctx, plan, node.Node)
			if err == nil {
				release() // the claimRefs are in the store by now
			}
			return err
		},
		Undo: release,
	}, nil
}

// carryOut writes the plan and waits until its claims are bound.
func (p volumeBinding) carryOut(ctx context.Context, plan volumePlan, node *v1.Node) error {
	ctx, cancel := context.WithTimeoutCause(ctx, volumesBoundWithin, fmt.Errorf("volumes not bound within %v", volumesBoundWithin))
	defer cancel()
	var waiting []*v1.PersistentVolumeClaim
	for c, pv := range plan.assign {
		if !reservedFor(pv, c) || pv.Spec.ClaimRef.UID == "" {
			pv = pv.DeepCopy()
			pv.Spec.ClaimRef = &v1.ObjectReference{
				Kind: "PersistentVolumeClaim", APIVersion: "v1", Namespace: c.Namespace, Name: c.Name,
				UID: c.UID, ResourceVersion: c.ResourceVersion,
			}
			metav1.SetMetaDataAnnotation(&pv.ObjectMeta, annBoundByController, "yes")
			if _, err := p.client.CoreV1().PersistentVolumes().Update(ctx, pv, metav1.UpdateOptions{}); err != nil {
				return fmt.Errorf("giving volume %s to claim %s: %w", pv.Name, claimKey(c), err)
			}
		}
		waiting = append(waiting, c)
	}
	for _, c := range plan.provision {
		if c.Annotations[annSelectedNode] != node.Name {
			c = c.DeepCopy()
			metav1.SetMetaDataAnnotation(&c.ObjectMeta, annSelectedNode, node.Name)
			now, err := p.client.CoreV1().PersistentVolumeClaims(c.Namespace).Update(ctx, c, metav1.UpdateOptions{})
			if err != nil {
				return fmt.Errorf("having a volume made for claim %s: %w", claimKey(c), err)
			}
			c = now
		}
		waiting = append(waiting, c)
	}
	for len(waiting) > 0 {
		change := p.volumes.nextChange() // before looking: nothing is missed
		var err error
		waiting = slices.DeleteFunc(waiting, func(c *v1.PersistentVolumeClaim) bool {
			done, problem := p.settled(c, node)
			if problem != nil {
				err = problem
			}
			return done
		})
		if err != nil {
			return err
		}
		if len(waiting) == 0 {
			return nil
		}
		select {
		case <-change:
		case <-ctx.Done():
			return fmt.Errorf("waiting for claim %s: %w", claimKey(waiting[0]), context.Cause(ctx))
		}
	}
	return nil
}

// settled reports whether claim c, as written, is bound to a volume that
// reaches node; an error if that will not come to be.
func (p volumeBinding) settled(c *v1.PersistentVolumeClaim, node *v1.Node) (bool, error) {
	now := p.volumes.claim(c.Namespace, c.Name)
	switch {
	case now == nil || now.UID != c.UID:
		return false, fmt.Errorf("claim %s is gone", claimKey(c))
	case now.DeletionTimestamp != nil:
		return false, fmt.Errorf("claim %s is being deleted", claimKey(c))
	case isBound(now):
		pv := p.volumes.volume(now.Spec.VolumeName)
		if pv == nil {
			return false, nil // its watch is behind the claims'
		}
		if !reaches(pv, node) {
			return false, fmt.Errorf("volume %s of claim %s does not reach node %s", pv.Name, claimKey(c), node.Name)
		}
		return true, nil
	case c.Annotations[annSelectedNode] != "" && now.Annotations[annSelectedNode] != node.Name:
		// Taken back by its provisioner, unless the watch has yet to show it.
		if order, err := resourceversion.CompareResourceVersion(now.ResourceVersion, c.ResourceVersion); err == nil && order > 0 {
			return false, fmt.Errorf("provisioning failed for claim %s on node %s", claimKey(c), node.Name)
		}
	}
	return false, nil
}

func (p volumeBinding) Wakes(_ *PodInfo, e Event) bool {
	switch e.Kind {
	case VolumesChanged, PendingPodUpdated, NodeAdded:
		return true
	case NodeUpdated:
		return !maps.Equal(e.OldNode.Labels, e.Node.Labels)
	}
	return false
}

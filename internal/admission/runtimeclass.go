package admission

import (
	"context"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// runtimeClass gives a pod the overhead and the scheduling rules of its runtime class (KEP-585, KEP-688).
func (c *cluster) runtimeClass() Plugin {
	return Plugin{
		Name: "RuntimeClass",
		Change: func(ctx context.Context, r *Request) error {
			p := podOf(r)
			if p == nil || r.Operation != Create {
				return nil
			}
			class, err := c.runtimeClassOf(ctx, r, p)
			if err != nil || class == nil {
				return err
			}
			if class.Overhead != nil {
				if p.Spec.Overhead != nil && !equality.Semantic.DeepEqual(p.Spec.Overhead, class.Overhead.PodFixed) {
					return overheadDiffers(r)
				}
				p.Spec.Overhead = class.Overhead.PodFixed
			}
			return schedule(r, p, class)
		},
		Check: func(ctx context.Context, r *Request) error {
			p := podOf(r)
			if p == nil || r.Operation != Create {
				return nil
			}
			if p.Spec.RuntimeClassName == nil && len(p.Spec.Overhead) == 0 {
				return nil
			}
			class, err := c.runtimeClassOf(ctx, r, p)
			switch {
			case err != nil:
				return err
			case class != nil && class.Overhead != nil:
				if !equality.Semantic.DeepEqual(p.Spec.Overhead, class.Overhead.PodFixed) {
					return overheadDiffers(r)
				}
			case len(p.Spec.Overhead) > 0:
				return r.Forbidden("pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead")
			}
			return nil
		},
	}
}

func overheadDiffers(r *Request) error {
	return r.Forbidden("pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead")
}

// runtimeClassOf returns the class that the pod names, or nil if it names none.
func (c *cluster) runtimeClassOf(ctx context.Context, r *Request, p *corev1.Pod) (*nodev1.RuntimeClass, error) {
	if p.Spec.RuntimeClassName == nil {
		return nil, nil
	}
	name := *p.Spec.RuntimeClassName
	class, err := get[*nodev1.RuntimeClass](ctx, c.Reader, runtimeClasses, "", name)
	if apierrors.IsNotFound(err) {
		return nil, r.Forbidden("pod rejected: RuntimeClass %q not found", name)
	}
	return class, err
}

// schedule adds where the class wants its pods to run.
func schedule(r *Request, p *corev1.Pod, class *nodev1.RuntimeClass) error {
	if class.Scheduling == nil {
		return nil
	}
	for _, key := range slices.Sorted(maps.Keys(class.Scheduling.NodeSelector)) {
		want := class.Scheduling.NodeSelector[key]
		if have, given := p.Spec.NodeSelector[key]; given && have != want {
			return r.Forbidden("conflict: runtimeClass.scheduling.nodeSelector[%s] = %s; pod.spec.nodeSelector[%s] = %s", key, want, key, have)
		}
		if p.Spec.NodeSelector == nil {
			p.Spec.NodeSelector = map[string]string{}
		}
		p.Spec.NodeSelector[key] = want
	}
	p.Spec.Tolerations = mergeTolerations(p.Spec.Tolerations, class.Scheduling.Tolerations)
	return nil
}

package admission

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/utils/ptr"
)

// systemClasses are the priority classes that every cluster must have.
var systemClasses = [...]string{"system-node-critical", "system-cluster-critical"}

// priority turns the name of a pod's priority class into a number, and keeps the default class single.
func (c *cluster) priority() Plugin {
	return Plugin{
		Name: "Priority",
		Change: func(ctx context.Context, r *Request) error {
			p := podOf(r)
			if p == nil {
				return nil
			}
			switch r.Operation {
			case Create:
				return c.setPriority(ctx, r, p)
			case Update:
				keepPriority(p, r)
			}
			return nil
		},
		Check: func(ctx context.Context, r *Request) error {
			if !r.Is(schedulingv1.GroupName, "priorityclasses") {
				return nil
			}
			switch r.Operation {
			case Create, Update:
				return c.checkDefaultClass(ctx, r)
			case Delete:
				for _, name := range systemClasses {
					if r.Name == name {
						return r.Forbidden("this is a system priority class and cannot be deleted")
					}
				}
			}
			return nil
		},
	}
}

// keepPriority gives a pod the priority back that the client left out.
func keepPriority(p *corev1.Pod, r *Request) {
	old, ok := r.Old.(*corev1.Pod)
	if !ok {
		return
	}
	if p.Spec.Priority == nil {
		p.Spec.Priority = old.Spec.Priority
	}
	if p.Spec.PreemptionPolicy == nil {
		p.Spec.PreemptionPolicy = old.Spec.PreemptionPolicy
	}
}

func (c *cluster) setPriority(ctx context.Context, r *Request, p *corev1.Pod) error {
	class, err := c.priorityClassOf(ctx, r, p)
	if err != nil {
		return err
	}
	value, policy := int32(0), ptr.To(corev1.PreemptLowerPriority)
	if class != nil {
		p.Spec.PriorityClassName, value, policy = class.Name, class.Value, class.PreemptionPolicy
	}
	if p.Spec.Priority != nil && *p.Spec.Priority != value {
		return r.Forbidden("the integer value of priority (%d) must not be provided in pod spec; priority admission controller computed %d from the given PriorityClass name", *p.Spec.Priority, value)
	}
	p.Spec.Priority = &value
	if policy == nil {
		return nil
	}
	if p.Spec.PreemptionPolicy != nil && *p.Spec.PreemptionPolicy != *policy {
		return r.Forbidden("the string value of PreemptionPolicy (%s) must not be provided in pod spec; priority admission controller computed %s from the given PriorityClass name", *p.Spec.PreemptionPolicy, *policy)
	}
	p.Spec.PreemptionPolicy = ptr.To(*policy) // the class is shared
	return nil
}

// priorityClassOf returns the class that the pod names, or else the default one; nil if there is none. It is shared: do not change it.
func (c *cluster) priorityClassOf(ctx context.Context, r *Request, p *corev1.Pod) (*schedulingv1.PriorityClass, error) {
	name := p.Spec.PriorityClassName
	if name == "" {
		return c.defaultPriorityClass(ctx)
	}
	class, err := get[*schedulingv1.PriorityClass](ctx, c.shared(), priorityClasses, "", name)
	if apierrors.IsNotFound(err) {
		return nil, r.Forbidden("no PriorityClass with name %s was found", name)
	}
	return class, err
}

// defaultPriorityClass returns the class for pods that name none; the lowest if several claim to be it.
func (c *cluster) defaultPriorityClass(ctx context.Context) (*schedulingv1.PriorityClass, error) {
	all, err := list[*schedulingv1.PriorityClass](ctx, c.shared(), priorityClasses, "")
	if err != nil {
		return nil, err
	}
	var chosen *schedulingv1.PriorityClass
	for _, class := range all {
		if class.GlobalDefault && (chosen == nil || class.Value < chosen.Value) {
			chosen = class
		}
	}
	return chosen, nil
}

func (c *cluster) checkDefaultClass(ctx context.Context, r *Request) error {
	class, ok := r.Object.(*schedulingv1.PriorityClass)
	if !ok || !class.GlobalDefault {
		return nil
	}
	have, err := c.defaultPriorityClass(ctx)
	if err != nil {
		return err
	}
	if have != nil && (r.Operation == Create || have.Name != class.Name) {
		return r.Forbidden("PriorityClass %s is already marked as default. Only one default can exist", have.Name)
	}
	return nil
}

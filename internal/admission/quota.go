package admission

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
)

// A quota is a promise about the sum of what is in a namespace, so two requests must not both take what
// is left. The sum is kept in the quota's status: a request adds what it takes to status.used, by compare and
// swap, before its own object is written. What is charged and then not used after all, because a later
// step refuses the object, is given back when the quota controller counts again, as are deleted objects. A
// quota whose status the controller has not filled in yet allows nothing that it is about.

// resourceQuota charges what requests take to the quotas of their namespace, and refuses what exceeds them
// (Kubernetes documentation, "Resource Quotas").
func (c *cluster) resourceQuota() Plugin {
	return Plugin{Name: "ResourceQuota", Check: func(ctx context.Context, r *Request) error {
		if !charged(r) {
			return nil
		}
		quotas, err := list[*corev1.ResourceQuota](ctx, c.Reader, resourceQuotas, r.Namespace)
		if err != nil || len(quotas) == 0 {
			return err
		}
		meter := meterOf(r.Definition)
		bills, err := billsFor(r, meter, quotas)
		if err != nil || len(bills) == 0 {
			return err
		}
		for _, b := range bills { // all of them, before any is charged
			if err := b.check(r, b.quota); err != nil && len(bills) > 1 {
				if c.Fresh == nil {
					return err
				}
				if err := c.recheck(ctx, r, b); err != nil {
					return err
				}
			}
		}
		for _, b := range bills {
			if err := c.charge(ctx, r, b); err != nil {
				return err
			}
		}
		return nil
	}}
}

// charged reports whether the request can take something that quotas are about.
func charged(r *Request) bool {
	if r.Namespace == "" || r.Object == nil || unmetered(r.Definition) {
		return false
	}
	core := r.Definition.Group == ""
	switch {
	case r.Subresource == "resize":
		return core && r.Definition.Plural == "pods" && r.Operation == Update
	case r.Subresource != "":
		return false
	case r.Operation == Create:
		return true
	case r.Operation == Update:
		return core && (r.Definition.Plural == "services" || r.Definition.Plural == "persistentvolumeclaims") ||
			r.Definition.Group == "resource.k8s.io" && r.Definition.Plural == "resourceclaims"
	}
	return false
}

// unmetered reports whether quotas do not count the kind: events come and go, and what is not stored takes no room.
func unmetered(d *kind.Definition) bool {
	return d.Plural == "events" && (d.Group == "" || d.Group == "events.k8s.io") || d.Plural == "bindings" && d.Group == "" || !d.Persistent()
}

// bill is what one quota is to be charged.
type bill struct {
	quota *corev1.ResourceQuota
	delta corev1.ResourceList // positive amounts of what the quota limits
}

// billsFor works out which quotas the request concerns, and what it takes from each.
func billsFor(r *Request, m *meter, quotas []*corev1.ResourceQuota) ([]bill, error) {
	var bills []bill
	var delta corev1.ResourceList
	for _, q := range quotas {
		if !inScope(q, r.Object, m) {
			continue
		}
		limits := m.among(q.Status.Hard, q.Spec.Hard)
		if len(limits) == 0 {
			continue
		}
		if missing := m.missing(r.Object, limits); missing != "" {
			return nil, r.Forbidden("failed quota: %s: must specify %s", q.Name, missing)
		}
		if unknown := withoutUsage(q, limits); len(unknown) > 0 {
			return nil, r.Forbidden("status unknown for quota: %s, resources: %s", q.Name, strings.Join(unknown, ","))
		}
		if delta == nil {
			delta = m.usage(r.Object)
			if r.Operation == Update && r.Old != nil {
				delta = minus(delta, m.usage(r.Old))
			}
		}
		taken := corev1.ResourceList{}
		for _, name := range limits {
			if amount, ok := delta[name]; ok && amount.Sign() > 0 {
				taken[name] = amount
			}
		}
		if len(taken) > 0 {
			bills = append(bills, bill{quota: q, delta: taken})
		}
	}
	return bills, nil
}

// withoutUsage lists the limits of which the quota does not know how much is used.
func withoutUsage(q *corev1.ResourceQuota, limits []corev1.ResourceName) []string {
	var unknown []string
	for _, name := range limits {
		_, limited := q.Status.Hard[name]
		if _, counted := q.Status.Used[name]; !limited || !counted {
			unknown = append(unknown, string(name))
		}
	}
	return unknown
}

// check refuses if the quota, as it is given, has not enough left.
func (b *bill) check(r *Request, q *corev1.ResourceQuota) error {
	var exceeded []corev1.ResourceName
	for name, amount := range b.delta {
		used, hard := q.Status.Used[name].DeepCopy(), q.Status.Hard[name]
		used.Add(amount)
		if used.Cmp(hard) > 0 {
			exceeded = append(exceeded, name)
		}
	}
	if len(exceeded) == 0 {
		return nil
	}
	slices.Sort(exceeded)
	return r.Forbidden("exceeded quota: %s, requested: %s, used: %s, limited: %s", q.Name,
		pretty(exceeded, b.delta), pretty(exceeded, q.Status.Used), pretty(exceeded, q.Status.Hard))
}

func pretty(names []corev1.ResourceName, amounts corev1.ResourceList) string {
	parts := make([]string, 0, len(names))
	for _, name := range names {
		amount := amounts[name]
		parts = append(parts, string(name)+"="+amount.String())
	}
	return strings.Join(parts, ",")
}

// recheck judges again on the quota as it is now.
func (c *cluster) recheck(ctx context.Context, r *Request, b bill) error {
	if err := c.Fresh(ctx); err != nil {
		return err
	}
	q, err := get[*corev1.ResourceQuota](ctx, c.Reader, resourceQuotas, r.Namespace, b.quota.Name)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	return b.check(r, q)
}

// charge adds a bill to its quota's usage. A quota that is gone by now limits nothing.
func (c *cluster) charge(ctx context.Context, r *Request, b bill) error {
	_, err := c.Objects.Change(ctx, resourceQuotas, r.Namespace, b.quota.Name, func(obj object.Object) error {
		q, ok := obj.(*corev1.ResourceQuota)
		if !ok {
			return fmt.Errorf("charge quota %q: got a %T", b.quota.Name, obj)
		}
		if err := b.check(r, q); err != nil {
			return err
		}
		q.Status.Used = maps.Clone(q.Status.Used)
		for name, amount := range b.delta {
			used := q.Status.Used[name].DeepCopy()
			used.Add(amount)
			q.Status.Used[name] = used
		}
		return nil
	}, kind.ChangeOptions{Subresource: "status", DryRun: r.DryRun})
	var status apierrors.APIStatus
	if apierrors.IsNotFound(err) && errors.As(err, &status) && status.Status().Details != nil && status.Status().Details.Kind == resourceQuotas.Resource {
		return nil
	}
	return err
}

// minus is a - b, without what would be negative.
func minus(a, b corev1.ResourceList) corev1.ResourceList {
	result := corev1.ResourceList{}
	for name, amount := range a {
		left := amount.DeepCopy()
		if before, ok := b[name]; ok {
			left.Sub(before)
		}
		if left.Sign() < 0 {
			left = resource.Quantity{Format: amount.Format}
		}
		result[name] = left
	}
	return result
}

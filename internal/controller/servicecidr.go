package controller

import (
	"context"
	"net/netip"
	"slices"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

const (
	cidrProtection = "networking.k8s.io/service-cidr-finalizer"
	// cidrGrace is how long a range that is being deleted stays although it is empty: an API server that has not heard
	// of it may still be taking an address from it.
	cidrGrace = 10 * time.Second
	// addressOwner is the label of addresses that API servers took for Services.
	addressOwner = "ipallocator.k8s.io"
)

// addServiceCIDRs says of ranges of cluster IPs that they can be used, and keeps those that are being deleted
// until no address comes from them alone (KEP-1880).
func (c *Controllers) addServiceCIDRs() {
	ranges, addresses := c.informers.Networking().V1().ServiceCIDRs(), c.informers.Networking().V1().IPAddresses()
	p := c.add("service ranges", "service-cidrs-controller")
	terminating := func() {
		all, _ := ranges.Lister().List(labels.Everything()) // a list from memory does not fail
		for _, r := range all {
			if r.DeletionTimestamp != nil {
				p.queue.Add(r.Name)
			}
		}
	}
	follow(p, ranges.Informer(), func(r *networkingv1.ServiceCIDR) {
		p.queue.Add(r.Name)
		terminating() // another range may hold their addresses now
	})
	followChanges(p, addresses.Informer(), func(_, _ *networkingv1.IPAddress) {}, func(*networkingv1.IPAddress) { terminating() })
	p.work(1, func(ctx context.Context, name string) error {
		r, err := ranges.Lister().Get(name)
		if err != nil {
			return nil //nolint:nilerr // gone
		}
		if r.DeletionTimestamp == nil {
			return p.openRange(ctx, r)
		}
		if !slices.Contains(r.Finalizers, cidrProtection) {
			return nil
		}
		all, err := ranges.Lister().List(labels.Everything())
		if err != nil {
			return err
		}
		taken, err := addresses.Lister().List(labels.SelectorFromSet(labels.Set{networkingv1.LabelManagedBy: addressOwner}))
		if err != nil {
			return err
		}
		used := needed(r, all, taken)
		if err := p.closeRange(ctx, r, used); err != nil || used {
			return err
		}
		if left := time.Until(r.DeletionTimestamp.Add(cidrGrace)); left > 0 {
			p.queue.AddAfter(name, left)
			return nil
		}
		next, err := protect(r, cidrProtection, func() (bool, error) { return used, nil })
		if err != nil || next == nil {
			return err
		}
		changed := r.DeepCopy()
		changed.Finalizers = *next
		_, err = p.client.NetworkingV1().ServiceCIDRs().Update(ctx, changed, metav1.UpdateOptions{})
		return gone(err)
	})
}

// openRange protects a range and says that it is ready.
func (p *part) openRange(ctx context.Context, r *networkingv1.ServiceCIDR) error {
	next, err := protect(r, cidrProtection, nil)
	if err != nil {
		return err
	}
	if next != nil {
		changed := r.DeepCopy()
		changed.Finalizers = *next
		if r, err = p.client.NetworkingV1().ServiceCIDRs().Update(ctx, changed, metav1.UpdateOptions{}); err != nil {
			return gone(err)
		}
	}
	if apimeta.IsStatusConditionTrue(r.Status.Conditions, networkingv1.ServiceCIDRConditionReady) {
		return nil
	}
	return p.tellRange(ctx, r, metav1.Condition{Status: metav1.ConditionTrue, Message: "Kubernetes Service CIDR is ready"})
}

// closeRange says that a range is not to be used any more, and why it is still there.
func (p *part) closeRange(ctx context.Context, r *networkingv1.ServiceCIDR, used bool) error {
	if !used || apimeta.IsStatusConditionFalse(r.Status.Conditions, networkingv1.ServiceCIDRConditionReady) {
		return nil
	}
	return p.tellRange(ctx, r, metav1.Condition{
		Status: metav1.ConditionFalse, Reason: networkingv1.ServiceCIDRReasonTerminating,
		Message: "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR",
	})
}

func (p *part) tellRange(ctx context.Context, r *networkingv1.ServiceCIDR, condition metav1.Condition) error {
	condition.Type = networkingv1.ServiceCIDRConditionReady
	changed := r.DeepCopy()
	apimeta.SetStatusCondition(&changed.Status.Conditions, condition)
	_, err := p.client.NetworkingV1().ServiceCIDRs().UpdateStatus(ctx, changed, metav1.UpdateOptions{})
	return gone(err)
}

// needed reports whether an address comes from a range and from no other one that stays.
func needed(r *networkingv1.ServiceCIDR, all []*networkingv1.ServiceCIDR, taken []*networkingv1.IPAddress) bool {
	var others []netip.Prefix
	for _, other := range all {
		if other.Name != r.Name && other.DeletionTimestamp == nil {
			others = append(others, prefixes(other)...)
		}
	}
	mine := prefixes(r)
	return slices.ContainsFunc(taken, func(a *networkingv1.IPAddress) bool {
		ip, err := netip.ParseAddr(a.Name)
		in := func(p netip.Prefix) bool { return p.Contains(ip) }
		return err == nil && slices.ContainsFunc(mine, in) && !slices.ContainsFunc(others, in)
	})
}

func prefixes(r *networkingv1.ServiceCIDR) []netip.Prefix {
	var all []netip.Prefix
	for _, cidr := range r.Spec.CIDRs {
		if p, err := netip.ParsePrefix(cidr); err == nil {
			all = append(all, p)
		}
	}
	return all
}

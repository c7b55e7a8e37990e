package controller

import (
	"slices"
	"testing"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// A range is ready at once; when it is deleted it stays until its addresses are gone or in another range, and a moment longer.
func TestServiceCIDRs(t *testing.T) {
	address := &networkingv1.IPAddress{ObjectMeta: metav1.ObjectMeta{Name: "10.1.0.5", Labels: map[string]string{networkingv1.LabelManagedBy: addressOwner}}}
	foreign := &networkingv1.IPAddress{ObjectMeta: metav1.ObjectMeta{Name: "10.1.0.6"}} // nobody's of ours
	run(t, func(c *Controllers) { c.addServiceCIDRs() }, func(c *cluster) {
		api := c.client.NetworkingV1().ServiceCIDRs()
		get := func() *networkingv1.ServiceCIDR {
			c.settle()
			return must[*networkingv1.ServiceCIDR](t)(api.Get(c.ctx, "more", metav1.GetOptions{}))
		}
		protected := func(r *networkingv1.ServiceCIDR) bool { return slices.Contains(r.Finalizers, cidrProtection) }
		must[*networkingv1.ServiceCIDR](t)(api.Create(c.ctx, &networkingv1.ServiceCIDR{
			ObjectMeta: metav1.ObjectMeta{Name: "more"}, Spec: networkingv1.ServiceCIDRSpec{CIDRs: []string{"10.1.0.0/24"}},
		}, metav1.CreateOptions{}))
		r := get()
		if !protected(r) || !apimeta.IsStatusConditionTrue(r.Status.Conditions, networkingv1.ServiceCIDRConditionReady) {
			t.Fatalf("a new range: %v, %+v", r.Finalizers, r.Status)
		}
		c.client.ClearActions()
		now := metav1.Now()
		r.DeletionTimestamp = &now
		must[*networkingv1.ServiceCIDR](t)(api.Update(c.ctx, r, metav1.UpdateOptions{}))
		time.Sleep(2 * cidrGrace)
		r = get()
		ready := apimeta.FindStatusCondition(r.Status.Conditions, networkingv1.ServiceCIDRConditionReady)
		if !protected(r) || ready.Status != metav1.ConditionFalse || ready.Reason != networkingv1.ServiceCIDRReasonTerminating {
			t.Fatalf("a range in use: %v, %+v", r.Finalizers, ready)
		}
		must[*networkingv1.ServiceCIDR](t)(api.Create(c.ctx, &networkingv1.ServiceCIDR{
			ObjectMeta: metav1.ObjectMeta{Name: "wider"}, Spec: networkingv1.ServiceCIDRSpec{CIDRs: []string{"10.1.0.0/16"}},
		}, metav1.CreateOptions{}))
		if r = get(); protected(r) {
			t.Errorf("its addresses are in another range: %v", r.Finalizers)
		}
	}, address, foreign)
	run(t, func(c *Controllers) { c.addServiceCIDRs() }, func(c *cluster) {
		api := c.client.NetworkingV1().ServiceCIDRs()
		r := must[*networkingv1.ServiceCIDR](t)(api.Create(c.ctx, &networkingv1.ServiceCIDR{
			ObjectMeta: metav1.ObjectMeta{Name: "empty"}, Spec: networkingv1.ServiceCIDRSpec{CIDRs: []string{"10.2.0.0/24"}},
		}, metav1.CreateOptions{}))
		c.settle()
		r = must[*networkingv1.ServiceCIDR](t)(api.Get(c.ctx, r.Name, metav1.GetOptions{}))
		now := metav1.Now()
		r.DeletionTimestamp = &now
		must[*networkingv1.ServiceCIDR](t)(api.Update(c.ctx, r, metav1.UpdateOptions{}))
		has := func() bool {
			c.settle()
			now, err := api.Get(c.ctx, r.Name, metav1.GetOptions{})
			return err == nil && slices.Contains(now.Finalizers, cidrProtection)
		}
		if time.Sleep(cidrGrace / 2); !has() {
			t.Error("an empty range goes before servers have heard of it")
		}
		if time.Sleep(cidrGrace); has() {
			t.Error("an empty range stays")
		}
	})
}

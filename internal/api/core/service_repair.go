package core

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Repair brings the reservations of cluster IPs and node ports back in line with the Services.
//
// This server makes a Service and its reservations in one transaction, so they part only by other hands: somebody deletes an IPAddress, a
// backup is restored in part, kube-apiserver stops between the two writes that it needs. What is missing is reserved at once. What nobody
// seems to need is given back only when it was so twice, with a time between that belongs to the caller: another
// server may be about to write the Service.
type Repair struct {
	Objects   kind.Objects
	NodePorts PortRange
}

// Leaks are reservations that no Service has.
type Leaks struct {
	Ports     []int
	Addresses []string
}

// Empty reports whether there are none.
func (l Leaks) Empty() bool { return len(l.Ports)+len(l.Addresses) == 0 }

// Missing reserves what Services have and is not reserved for them. The error names Services that have what is reserved for others.
func (r *Repair) Missing(ctx context.Context) error {
	errs := []error{r.changePorts(ctx, func(have, want *portSet) *portSet {
		for _, port := range want.without(have).list() {
			have.add(port)
		}
		return have
	})}
	services, err := r.Objects.List(ctx, serviceResource, "")
	if err != nil {
		return fmt.Errorf("list the Services: %w", err)
	}
	for _, obj := range services {
		for _, ip := range addressesOf(obj.(*corev1.Service)) {
			errs = append(errs, r.reserve(ctx, ip, obj.(*corev1.Service)))
		}
	}
	return errors.Join(errs...)
}

// Address reserves an address again whose IPAddress was deleted while its Service still has it.
func (r *Repair) Address(ctx context.Context, gone *networkingv1.IPAddress) error {
	s, err := r.owner(ctx, gone)
	if s == nil || err != nil {
		return err
	}
	return r.reserve(ctx, gone.Name, s)
}

func (r *Repair) reserve(ctx context.Context, text string, s *corev1.Service) error {
	ip, err := netip.ParseAddr(text)
	if err != nil {
		return nil //nolint:nilerr // stored before addresses were checked; no address is taken by it
	}
	have, err := r.Objects.Get(ctx, ipAddressResource, "", ip.String())
	if apierrors.IsNotFound(err) {
		_, err = r.Objects.Create(ctx, ipAddressResource, ipAddress(ip, s))
		if apierrors.IsAlreadyExists(err) {
			err = nil // another server repaired it
		}
	}
	if err != nil {
		return fmt.Errorf("reserve %s for the Service %s/%s: %w", ip, s.Namespace, s.Name, err)
	}
	if have == nil {
		return nil
	}
	if ref := have.(*networkingv1.IPAddress).Spec.ParentRef; ref != nil && (ref.Namespace != s.Namespace || ref.Name != s.Name) {
		return fmt.Errorf("the Service %s/%s has the address %s, which is reserved for %s/%s", s.Namespace, s.Name, ip, ref.Namespace, ref.Name)
	}
	return nil
}

// Leaked lists what is reserved and no Service has.
func (r *Repair) Leaked(ctx context.Context) (Leaks, error) {
	var found Leaks
	have, stored, err := readPorts(ctx, r.Objects, r.NodePorts)
	if err != nil {
		return found, err
	}
	if stored.Range != "" {
		want, err := portsOfServices(ctx, r.Objects, r.NodePorts)
		if err != nil {
			return found, err
		}
		found.Ports = have.without(want).list()
	}
	addresses, err := r.Objects.List(ctx, ipAddressResource, "")
	if err != nil {
		return found, fmt.Errorf("list the IPAddresses: %w", err)
	}
	for _, obj := range addresses {
		leaked, err := r.leaked(ctx, obj.(*networkingv1.IPAddress))
		if err != nil {
			return found, err
		}
		if leaked {
			found.Addresses = append(found.Addresses, obj.GetName())
		}
	}
	return found, nil
}

// leaked reports whether an address was reserved by a server and its Service does not have it.
func (r *Repair) leaked(ctx context.Context, a *networkingv1.IPAddress) (bool, error) {
	if a.Labels[labelManagedBy] != ipAllocatorName {
		return false, nil // whoever made it looks after it
	}
	s, err := r.owner(ctx, a)
	return s == nil && err == nil, err
}

// owner is the Service that has an address; nil if the one it is reserved for does not.
func (r *Repair) owner(ctx context.Context, a *networkingv1.IPAddress) (*corev1.Service, error) {
	ref := a.Spec.ParentRef
	if ref == nil || ref.Group != "" || ref.Resource != "services" {
		return nil, nil
	}
	obj, err := r.Objects.Get(ctx, serviceResource, ref.Namespace, ref.Name)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the Service of %s: %w", a.Name, err)
	}
	s := obj.(*corev1.Service)
	if !slices.ContainsFunc(addressesOf(s), func(ip string) bool { return sameIP(ip, a.Name) }) {
		return nil, nil
	}
	return s, nil
}

func sameIP(a, b string) bool {
	x, errX := netip.ParseAddr(a)
	y, errY := netip.ParseAddr(b)
	return errX == nil && errY == nil && x == y
}

// Release gives back those leaks that still are.
func (r *Repair) Release(ctx context.Context, found Leaks) error {
	var errs []error
	if len(found.Ports) > 0 {
		errs = append(errs, r.changePorts(ctx, func(have, want *portSet) *portSet {
			for _, port := range found.Ports {
				if !want.has(port) {
					have.remove(port)
				}
			}
			return have
		}))
	}
	for _, name := range found.Addresses {
		obj, err := r.Objects.Get(ctx, ipAddressResource, "", name)
		if err != nil {
			continue // gone
		}
		a := obj.(*networkingv1.IPAddress)
		if leaked, err := r.leaked(ctx, a); err != nil || !leaked {
			errs = append(errs, err)
			continue
		}
		uid, version := a.UID, a.ResourceVersion
		err = r.Objects.Delete(ctx, ipAddressResource, "", name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid, ResourceVersion: &version}})
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			errs = append(errs, fmt.Errorf("give back the address %s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

// changePorts changes the allocation of node ports by what it has and what the Services have. There is nothing to change before the
// first Service wants one: the allocation is then made from the Services.
func (r *Repair) changePorts(ctx context.Context, change func(have, want *portSet) *portSet) error {
	_, err := r.Objects.Change(ctx, rangeResource, "", portAllocation, func(obj object.Object) error {
		a := obj.(*corev1.RangeAllocation)
		// The cache shows Services at least as new as the allocation: it tells of both in the order in which they were written.
		want, err := portsOfServices(ctx, r.Objects, r.NodePorts)
		if err != nil {
			return err
		}
		have, ok := portsIn(a, r.NodePorts)
		if !ok { // of another range
			have = want
		}
		a.Range, a.Data = r.NodePorts.String(), change(have, want).data()
		return nil
	}, kind.ChangeOptions{Raw: true})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("repair the allocation of node ports: %w", err)
	}
	return nil
}

package core

import (
	"context"
	"crypto/rand"
	"fmt"
	"math/big"
	"net/netip"
	"slices"
	"strings"

	"github.com/timonel/timonel/internal/kind"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Cluster IPs and node ports.
//
// A cluster IP is taken when there is an IPAddress object of that name, so a Service is stored in one
// transaction with the IPAddresses that it chose: if another Service was faster, the transaction fails and
// the choice is made again (KEP-1880). Node ports are the same with the one allocation of all of them (portrange.go).
// What was lost otherwise, by hand or by other servers, is found at start (service_repair.go).
//
// The lower part of each range is left to those who ask for a certain address or port, and used for the others
// only when the upper part is full (KEP-3070, KEP-3668).

const (
	labelIPFamily    = networkingv1.LabelIPAddressFamily
	labelManagedBy   = networkingv1.LabelManagedBy
	ipAllocatorName  = "ipallocator.k8s.io"
	minReservedIPs   = 16
	maxReservedIPs   = 256
	minReservedPorts = 16
	maxReservedPorts = 128

	// maxIPDraws is how many addresses are drawn at random before the range is searched in order.
	maxIPDraws = 64
	// maxIPScan bounds that search.
	maxIPScan = 1 << 16
)

var (
	serviceResource     = schema.GroupResource{Resource: "services"}
	ipAddressResource   = schema.GroupResource{Group: networkingv1.GroupName, Resource: "ipaddresses"}
	serviceCIDRResource = schema.GroupResource{Group: networkingv1.GroupName, Resource: "servicecidrs"}
	serviceKind         = schema.GroupKind{Kind: "Service"}
	specPath            = field.NewPath("spec")
)

const textIPTaken = "provided IP is already allocated"

type allocator struct{ options Options }

// reserve is Service's Reserve: s is nil on delete, old on create.
func (a *allocator) reserve(ctx context.Context, r kind.Reader, s, old *corev1.Service) ([]kind.Companion, error) {
	var companions []kind.Companion
	before := addressesOf(old)
	if s == nil {
		for _, ip := range before {
			companions = append(companions, a.remove(ip))
		}
		companions = append(companions, a.removeEndpoints(ctx, r, old)...)
		return a.withPorts(ctx, r, nil, old, companions)
	}
	if wantsClusterIP(s) && !headless(s) {
		made, err := a.addresses(ctx, r, s, before)
		if err != nil {
			return nil, err
		}
		companions = append(companions, made...)
	}
	kept := addressesOf(s)
	for _, ip := range before {
		if !slices.Contains(kept, ip) {
			companions = append(companions, a.remove(ip))
		}
	}
	return a.withPorts(ctx, r, s, old, companions)
}

func (a *allocator) withPorts(ctx context.Context, r kind.Reader, s, old *corev1.Service, companions []kind.Companion) ([]kind.Companion, error) {
	c, err := a.ports(ctx, r, s, old)
	if c != nil {
		companions = append(companions, *c)
	}
	return companions, err
}

// addressesOf returns the cluster IPs that a Service has reserved.
func addressesOf(s *corev1.Service) []string {
	if s == nil || !wantsClusterIP(s) || headless(s) {
		return nil
	}
	return s.Spec.ClusterIPs
}

// addresses fills in the cluster IPs and makes IPAddresses for those that are new.
func (a *allocator) addresses(ctx context.Context, r kind.Reader, s *corev1.Service, before []string) ([]kind.Companion, error) {
	var companions []kind.Companion
	if a.options.IPAddress == nil {
		return nil, apierrors.NewInternalError(fmt.Errorf("allocate cluster IPs of %s/%s: the kind IPAddress is not served", s.Namespace, s.Name))
	}
	ranges, err := a.ranges(ctx, r)
	if err != nil {
		return nil, err
	}
	for i, family := range s.Spec.IPFamilies {
		var ip netip.Addr
		var taken func() error // nil: another one is drawn
		if i < len(s.Spec.ClusterIPs) {
			given := s.Spec.ClusterIPs[i]
			if slices.Contains(before, given) {
				continue
			}
			if ip, err = netip.ParseAddr(given); err != nil {
				return nil, refuseIP(s, "failed to allocate IP "+given+": "+err.Error())
			}
			if problem := a.fits(ctx, r, ip, ranges); problem != "" {
				return nil, refuseIP(s, "failed to allocate IP "+given+": "+problem)
			}
			taken = func() error { return refuseIP(s, "failed to allocate IP "+given+": "+textIPTaken) }
		} else {
			if ip, err = a.draw(ctx, r, family, ranges); err != nil {
				return nil, apierrors.NewInternalError(fmt.Errorf("failed to allocate a serviceIP: %w", err))
			}
			s.Spec.ClusterIPs = append(slices.Clip(s.Spec.ClusterIPs), ip.String())
		}
		companions = append(companions, kind.Companion{Definition: a.options.IPAddress, Object: ipAddress(ip, s), Taken: taken})
	}
	if len(s.Spec.ClusterIPs) > 0 {
		s.Spec.ClusterIP = s.Spec.ClusterIPs[0]
	}
	return companions, nil
}

func refuseIP(s *corev1.Service, text string) error {
	return apierrors.NewInvalid(serviceKind, s.Name, field.ErrorList{field.Invalid(specPath.Child("clusterIPs"), s.Spec.ClusterIPs, text)})
}

func ipAddress(ip netip.Addr, s *corev1.Service) *networkingv1.IPAddress {
	family := corev1.IPv4Protocol
	if ip.Is6() {
		family = corev1.IPv6Protocol
	}
	o := &networkingv1.IPAddress{
		ObjectMeta: metav1.ObjectMeta{Name: ip.String(), Labels: map[string]string{labelIPFamily: string(family), labelManagedBy: ipAllocatorName}},
		Spec:       networkingv1.IPAddressSpec{ParentRef: &networkingv1.ParentReference{Resource: "services", Namespace: s.Namespace, Name: s.Name}},
	}
	o.SetGroupVersionKind(networkingv1.SchemeGroupVersion.WithKind("IPAddress"))
	return o
}

func (a *allocator) remove(ip string) kind.Companion {
	name := ip
	if parsed, err := netip.ParseAddr(ip); err == nil {
		name = parsed.String()
	}
	return kind.Companion{Definition: a.options.IPAddress, Object: &networkingv1.IPAddress{ObjectMeta: metav1.ObjectMeta{Name: name}}, Remove: true}
}

// removeEndpoints: the Endpoints of a Service have its name and go with it.
func (a *allocator) removeEndpoints(ctx context.Context, r kind.Reader, s *corev1.Service) []kind.Companion {
	if a.options.endpoints == nil {
		return nil
	}
	if _, err := r.Get(ctx, schema.GroupResource{Resource: "endpoints"}, s.Namespace, s.Name); err != nil {
		return nil
	}
	return []kind.Companion{{Definition: a.options.endpoints, Remove: true,
		Object: &corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{Namespace: s.Namespace, Name: s.Name}}}}
}

// ranges returns the ranges that addresses may come from: those of the ready ServiceCIDRs; before there is
// any, those of the command line.
func (a *allocator) ranges(ctx context.Context, r kind.Reader) ([]netip.Prefix, error) {
	list, err := r.List(ctx, serviceCIDRResource, "")
	if err != nil {
		return nil, fmt.Errorf("list the ServiceCIDRs: %w", err)
	}
	ranges := slices.Clone(a.options.ServiceCIDRs)
	for _, obj := range list {
		c := obj.(*networkingv1.ServiceCIDR)
		if c.DeletionTimestamp != nil || !slices.ContainsFunc(c.Status.Conditions, func(c metav1.Condition) bool {
			return c.Type == networkingv1.ServiceCIDRConditionReady && c.Status == metav1.ConditionTrue
		}) {
			continue
		}
		for _, cidr := range c.Spec.CIDRs {
			if p, err := netip.ParsePrefix(cidr); err == nil && !slices.Contains(ranges, p.Masked()) {
				ranges = append(ranges, p.Masked())
			}
		}
	}
	return ranges, nil
}

// fits says what is against using an address that a client asked for; "" if nothing is.
func (a *allocator) fits(ctx context.Context, r kind.Reader, ip netip.Addr, ranges []netip.Prefix) string {
	for _, p := range ranges {
		if !p.Contains(ip) {
			continue
		}
		first, last := usable(p)
		if ip.Less(first) || last.Less(ip) {
			return fmt.Sprintf("the provided IP (%v) is not in the valid range. The range of valid IPs is %s", ip, p)
		}
		if a.taken(ctx, r, ip) {
			return textIPTaken
		}
		return ""
	}
	var shown []string
	for _, p := range ranges {
		shown = append(shown, p.String())
	}
	return fmt.Sprintf("the provided IP (%v) is not in the valid range. The range of valid IPs is %s", ip, strings.Join(shown, ","))
}

func (a *allocator) taken(ctx context.Context, r kind.Reader, ip netip.Addr) bool {
	_, err := r.Get(ctx, ipAddressResource, "", ip.String())
	return err == nil
}

// usable returns the first and last address of a range that can be given away: without the network's own, and, for IPv4,
// the broadcast address.
func usable(p netip.Prefix) (first, last netip.Addr) {
	p = p.Masked()
	last = offset(p, new(big.Int).Sub(size(p), big.NewInt(1)))
	if p.Addr().Is4() {
		last = last.Prev()
	}
	return p.Addr().Next(), last
}

func size(p netip.Prefix) *big.Int {
	return new(big.Int).Lsh(big.NewInt(1), uint(p.Addr().BitLen()-p.Bits()))
}

func offset(p netip.Prefix, n *big.Int) netip.Addr {
	base := new(big.Int).SetBytes(p.Masked().Addr().AsSlice())
	sum := base.Add(base, n).FillBytes(make([]byte, p.Addr().BitLen()/8))
	ip, _ := netip.AddrFromSlice(sum)
	return ip
}

// draw chooses a free address at random, from the upper part of the first range that has one.
func (a *allocator) draw(ctx context.Context, r kind.Reader, family corev1.IPFamily, ranges []netip.Prefix) (netip.Addr, error) {
	for _, p := range ranges {
		if p.Addr().Is4() != (family == corev1.IPv4Protocol) {
			continue
		}
		total := new(big.Int).Sub(size(p), big.NewInt(1)) // offsets 1 … total-1 (IPv4) or total (IPv6)
		if p.Addr().Is6() {
			total.Add(total, big.NewInt(1))
		}
		lower := big.NewInt(reserved(total, minReservedIPs, maxReservedIPs))
		if ip, ok := a.drawBetween(ctx, r, p, new(big.Int).Add(lower, big.NewInt(1)), total); ok {
			return ip, nil
		}
		if ip, ok := a.drawBetween(ctx, r, p, big.NewInt(1), new(big.Int).Add(lower, big.NewInt(1))); ok {
			return ip, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("range is full")
}

// drawBetween looks for a free address among the offsets from (included) to (excluded) of a range.
func (a *allocator) drawBetween(ctx context.Context, r kind.Reader, p netip.Prefix, from, to *big.Int) (netip.Addr, bool) {
	span := new(big.Int).Sub(to, from)
	if span.Sign() <= 0 {
		return netip.Addr{}, false
	}
	at := func(n *big.Int) netip.Addr { return offset(p, new(big.Int).Add(from, n)) }
	for range maxIPDraws {
		n, err := rand.Int(rand.Reader, span)
		if err != nil {
			break
		}
		if ip := at(n); !a.taken(ctx, r, ip) {
			return ip, true
		}
	}
	start, err := rand.Int(rand.Reader, span)
	if err != nil {
		start = new(big.Int)
	}
	for i := int64(0); i < maxIPScan && span.Cmp(big.NewInt(i)) > 0; i++ {
		n := new(big.Int).Add(start, big.NewInt(i))
		if ip := at(n.Mod(n, span)); !a.taken(ctx, r, ip) {
			return ip, true
		}
	}
	return netip.Addr{}, false
}

// reserved is the size of the part that is kept for those who ask for something certain: a sixteenth, within bounds.
func reserved(total *big.Int, min, max int64) int64 {
	if total.Cmp(big.NewInt(min)) < 0 {
		return 0
	}
	part := new(big.Int).Rsh(total, 4)
	switch {
	case part.Cmp(big.NewInt(min)) < 0:
		return min
	case part.Cmp(big.NewInt(max)) > 0:
		return max
	}
	return part.Int64()
}

package controller

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	// maxEndpoints is how many addresses an Endpoints object holds at most.
	maxEndpoints          = 1000
	endpointsManagedBy    = "endpoints.kubernetes.io/managed-by"
	endpointsManager      = "endpoint-controller"
	endpointsOverCapacity = "endpoints.kubernetes.io/over-capacity"
)

// addEndpoints keeps the Endpoints of services with selectors: the older form of EndpointSlices, of the service's first
// address family only.
func (c *Controllers) addEndpoints() {
	all := c.informers.Core().V1().Endpoints() //nolint:staticcheck // deprecated, and still served and read
	p := c.add("endpoints", "endpoint-controller")
	p.tells("endpoint-controller")
	s := p.followServices()
	follow(p, all.Informer(), func(e *corev1.Endpoints) { //nolint:staticcheck // as above
		if e.Labels[endpointsManagedBy] == endpointsManager {
			p.queue.Add(keyOf(e))
		}
	})
	p.work(5, func(ctx context.Context, key string) error {
		namespace, name := splitKey(key)
		client := p.client.CoreV1().Endpoints(namespace)
		svc := s.get(key)
		have, getErr := all.Lister().Endpoints(namespace).Get(name)
		if svc == nil {
			if _, err := s.services.Services(namespace).Get(name); err != nil && getErr == nil && have.Labels[endpointsManagedBy] == endpointsManager {
				return gone(client.Delete(ctx, name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &have.UID}}))
			}
			return nil
		}
		want := s.endpoints(svc)
		if getErr != nil {
			_, err := client.Create(ctx, want, metav1.CreateOptions{})
			if apierrors.IsAlreadyExists(err) {
				return err // the informer is behind
			}
			return ignore(err, namespaceIsGoing)
		}
		// Annotations of others stay.
		annotations := maps.Clone(have.Annotations)
		delete(annotations, endpointsOverCapacity)
		for k, v := range want.Annotations {
			annotations = with(annotations, k, v)
		}
		if equality.Semantic.DeepEqual(have.Subsets, want.Subsets) && maps.Equal(have.Labels, want.Labels) && maps.Equal(have.Annotations, annotations) {
			return nil
		}
		next := have.DeepCopy()
		next.Subsets, next.Labels, next.Annotations = want.Subsets, want.Labels, annotations
		if _, err := client.Update(ctx, next, metav1.UpdateOptions{}); err != nil {
			if !apierrors.IsConflict(err) {
				p.events.warn(have, "FailedToUpdateEndpoint", "Failed to update endpoint %s: %v", key, err)
			}
			return gone(err)
		}
		return nil
	})
}

// endpoints are what a service should have.
func (s *servicePods) endpoints(svc *corev1.Service) *corev1.Endpoints { //nolint:staticcheck // as above
	e := &corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{Name: svc.Name, Namespace: svc.Namespace, Labels: serviceLabels(svc)}} //nolint:staticcheck // as above
	e.Labels[endpointsManagedBy] = endpointsManager
	// The addresses of each port; ports with the same addresses share a subset.
	type addresses struct{ ready, other []corev1.EndpointAddress }
	byPort := map[corev1.EndpointPort]*addresses{}
	count := 0
	for _, pod := range s.of(svc) {
		if pod.DeletionTimestamp != nil && !svc.Spec.PublishNotReadyAddresses {
			continue
		}
		ip := firstAddress(pod, svc)
		if ip == "" {
			continue
		}
		address := corev1.EndpointAddress{IP: ip, Hostname: hostnameIn(pod, svc), TargetRef: &corev1.ObjectReference{Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID}}
		if pod.Spec.NodeName != "" {
			node := pod.Spec.NodeName
			address.NodeName = &node
		}
		var ports []corev1.EndpointPort
		for i := range svc.Spec.Ports {
			port := &svc.Spec.Ports[i]
			if n, ok := portOf(pod, port); ok {
				ports = append(ports, corev1.EndpointPort{Name: port.Name, Port: n, Protocol: port.Protocol, AppProtocol: port.AppProtocol})
			}
		}
		if len(svc.Spec.Ports) == 0 && headless(svc) {
			ports = []corev1.EndpointPort{{Port: -1}} // names without ports
		}
		if len(ports) == 0 {
			continue
		}
		if count++; count > maxEndpoints {
			e.Annotations = map[string]string{endpointsOverCapacity: "truncated"}
			break
		}
		for _, port := range ports {
			if byPort[port] == nil {
				byPort[port] = &addresses{}
			}
			if a := byPort[port]; svc.Spec.PublishNotReadyAddresses || ready(pod) {
				a.ready = append(a.ready, address)
			} else {
				a.other = append(a.other, address)
			}
		}
	}
	bySet := map[string]*corev1.EndpointSubset{} //nolint:staticcheck // as above
	for port, a := range byPort {
		key := fmt.Sprint(names(a.ready), "|", names(a.other))
		if bySet[key] == nil {
			bySet[key] = &corev1.EndpointSubset{Addresses: byIP(a.ready), NotReadyAddresses: byIP(a.other)} //nolint:staticcheck // as above
		}
		if port.Port >= 0 {
			bySet[key].Ports = append(bySet[key].Ports, port)
		}
	}
	for _, subset := range bySet {
		slices.SortFunc(subset.Ports, func(a, b corev1.EndpointPort) int {
			return cmp.Or(strings.Compare(a.Name, b.Name), cmp.Compare(a.Port, b.Port), strings.Compare(string(a.Protocol), string(b.Protocol)))
		})
		e.Subsets = append(e.Subsets, *subset)
	}
	slices.SortFunc(e.Subsets, func(a, b corev1.EndpointSubset) int { //nolint:staticcheck // as above
		return strings.Compare(fmt.Sprint(a.Ports, names(a.Addresses), names(a.NotReadyAddresses)), fmt.Sprint(b.Ports, names(b.Addresses), names(b.NotReadyAddresses)))
	})
	return e
}

func names(addresses []corev1.EndpointAddress) []string {
	var out []string
	for _, a := range addresses {
		out = append(out, a.IP+"/"+string(a.TargetRef.UID))
	}
	slices.Sort(out)
	return out
}

func byIP(addresses []corev1.EndpointAddress) []corev1.EndpointAddress {
	slices.SortFunc(addresses, func(a, b corev1.EndpointAddress) int {
		return cmp.Or(strings.Compare(a.IP, b.IP), strings.Compare(a.TargetRef.Name, b.TargetRef.Name))
	})
	return addresses
}

// firstAddress is the pod's address of the service's first family.
func firstAddress(pod *corev1.Pod, svc *corev1.Service) string {
	if len(svc.Spec.IPFamilies) == 0 {
		return podIPs(pod)[0]
	}
	for _, ip := range podIPs(pod) {
		if addr, err := netip.ParseAddr(ip); err == nil && addr.Is4() == (svc.Spec.IPFamilies[0] == corev1.IPv4Protocol) {
			return ip
		}
	}
	return ""
}

package controller

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	corelisters "k8s.io/client-go/listers/core/v1"
	discoverylisters "k8s.io/client-go/listers/discovery/v1"
	"k8s.io/client-go/tools/cache"
)

const (
	// maxEndpointsPerSlice bounds an EndpointSlice (--max-endpoints-per-slice).
	maxEndpointsPerSlice = 100
	sliceManager         = "endpointslice-controller.k8s.io"
	// sliceUnseen is when a service is looked at again whose slices the informer shows as they were before they were written.
	sliceUnseen = time.Second
	// sliceTimeout is when it is looked at nevertheless.
	sliceTimeout = time.Minute
)

// slicer keeps the EndpointSlices of services with selectors (docs: "EndpointSlices").
type slicer struct {
	*servicePods
	nodes    corelisters.NodeLister
	slices   discoverylisters.EndpointSliceLister
	informer cache.SharedIndexInformer // of slices

	mu     sync.Mutex
	unseen map[string]writtenSlice // service → the slice that was written last
}

type writtenSlice struct {
	resourceVersion string
	at              time.Time
}

func (c *Controllers) addEndpointSlices() {
	all, nodes := c.informers.Discovery().V1().EndpointSlices(), c.informers.Core().V1().Nodes()
	p := c.add("endpointslice", "endpointslice-controller")
	p.tells("endpoint-slice-controller")
	s := &slicer{servicePods: p.followServices(), nodes: nodes.Lister(), slices: all.Lister(), informer: all.Informer(), unseen: map[string]writtenSlice{}}
	p.wait(nodes.Informer())
	follow(p, all.Informer(), func(slice *discoveryv1.EndpointSlice) {
		if slice.Labels[discoveryv1.LabelManagedBy] == sliceManager && slice.Labels[discoveryv1.LabelServiceName] != "" {
			p.queue.Add(slice.Namespace + "/" + slice.Labels[discoveryv1.LabelServiceName])
		}
	})
	p.work(5, s.sync)
}

// sliceGroup is what the endpoints of one slice have in common.
type sliceGroup struct {
	address discoveryv1.AddressType
	ports   string // as portsKey makes it
}

func (s *slicer) sync(ctx context.Context, key string) error {
	svc := s.get(key)
	if svc == nil {
		s.mu.Lock()
		delete(s.unseen, key)
		s.mu.Unlock()
		return nil
	}
	if svc.DeletionTimestamp != nil {
		return nil
	}
	if !s.allSeen(key) { // where endpoints are is not known: some would come into a second slice
		s.queue.AddAfter(key, sliceUnseen)
		return nil
	}
	have, err := s.slices.EndpointSlices(svc.Namespace).List(labels.SelectorFromSet(labels.Set{
		discoveryv1.LabelServiceName: svc.Name, discoveryv1.LabelManagedBy: sliceManager,
	}))
	if err != nil {
		return err
	}
	slices.SortFunc(have, func(a, b *discoveryv1.EndpointSlice) int { return cmpNames(a, b) })
	plan := s.plan(svc, have)
	if err := s.write(ctx, key, svc.Namespace, plan); err != nil {
		if !apierrors.IsConflict(err) {
			s.events.warn(svc, "FailedToUpdateEndpointSlices", "Error updating Endpoint Slices for Service %s: %v", key, err)
		}
		return fmt.Errorf("write EndpointSlices of %s: %w", key, err)
	}
	return nil
}

// write carries a plan out: slices that are there come first, as a conflict tells that the plan is of an old view; what
// is removed goes last, as its endpoints may be in a new one.
func (s *slicer) write(ctx context.Context, key, namespace string, plan *slicePlan) error {
	var failed []error
	client := s.client.DiscoveryV1().EndpointSlices(namespace)
	for _, slice := range plan.update {
		updated, err := client.Update(ctx, slice, metav1.UpdateOptions{})
		switch {
		case apierrors.IsConflict(err):
			return err
		case err != nil:
			failed = append(failed, gone(err))
		default:
			s.wrote(key, updated)
		}
	}
	for _, slice := range plan.create {
		made, err := client.Create(ctx, slice, metav1.CreateOptions{})
		if err != nil {
			failed = append(failed, ignore(err, namespaceIsGoing))
			continue
		}
		s.wrote(key, made)
	}
	for _, slice := range plan.remove {
		failed = append(failed, gone(client.Delete(ctx, slice.Name, metav1.DeleteOptions{})))
	}
	return errors.Join(failed...)
}

func (s *slicer) wrote(key string, slice *discoveryv1.EndpointSlice) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unseen[key] = writtenSlice{slice.ResourceVersion, time.Now()}
}

// allSeen reports whether the informer shows what was written for a service.
func (s *slicer) allSeen(key string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	last, ok := s.unseen[key]
	if ok && !told(s.informer, last.resourceVersion) && time.Since(last.at) < sliceTimeout {
		return false
	}
	delete(s.unseen, key)
	return true
}

type slicePlan struct{ create, update, remove []*discoveryv1.EndpointSlice }

// plan works out which slices to write, so that few are: endpoints stay in the slice that they are in, new ones fill
// slices that are written anyway before others, and what is then left over gets new slices.
func (s *slicer) plan(svc *corev1.Service, have []*discoveryv1.EndpointSlice) *slicePlan {
	wanted, ports := s.wanted(svc)
	for _, family := range families(svc) { // a slice for nothing, so that one can tell a service without pods from one not looked at
		if !slices.ContainsFunc(slices.Collect(maps.Keys(wanted)), func(g sliceGroup) bool { return g.address == family }) {
			wanted[sliceGroup{family, ""}] = nil
		}
	}
	plan := &slicePlan{}
	byGroup := map[sliceGroup][]*discoveryv1.EndpointSlice{}
	for _, slice := range have {
		g := sliceGroup{slice.AddressType, portsKey(slice.Ports)}
		if _, ok := wanted[g]; !ok {
			plan.remove = append(plan.remove, slice)
			continue
		}
		byGroup[g] = append(byGroup[g], slice)
	}
	groups := slices.SortedFunc(maps.Keys(wanted), func(a, b sliceGroup) int {
		return strings.Compare(string(a.address)+a.ports, string(b.address)+b.ports)
	})
	for _, g := range groups {
		s.planGroup(svc, plan, g, ports[g], wanted[g], byGroup[g])
	}
	return plan
}

func (s *slicer) planGroup(svc *corev1.Service, plan *slicePlan, g sliceGroup, ports []discoveryv1.EndpointPort, endpoints []discoveryv1.Endpoint, have []*discoveryv1.EndpointSlice) {
	missing := map[string]discoveryv1.Endpoint{}
	for _, e := range endpoints {
		missing[endpointKey(&e)] = e
	}
	set := serviceLabels(svc, discoveryv1.LabelServiceName, discoveryv1.LabelManagedBy)
	set[discoveryv1.LabelServiceName], set[discoveryv1.LabelManagedBy] = svc.Name, sliceManager
	ref := *metav1.NewControllerRef(svc, corev1.SchemeGroupVersion.WithKind("Service"))
	next := make([]*discoveryv1.EndpointSlice, len(have))
	dirty := make([]bool, len(have))
	for i, old := range have {
		slice := old.DeepCopy()
		slice.Endpoints = nil
		for j := range old.Endpoints {
			key := endpointKey(&old.Endpoints[j])
			e, ok := missing[key]
			if !ok {
				dirty[i] = true
				continue
			}
			delete(missing, key)
			dirty[i] = dirty[i] || !equality.Semantic.DeepEqual(&e, &old.Endpoints[j])
			slice.Endpoints = append(slice.Endpoints, e)
		}
		dirty[i] = dirty[i] || !maps.Equal(old.Labels, set) || !slices.ContainsFunc(old.OwnerReferences, func(r metav1.OwnerReference) bool { return r.UID == svc.UID })
		slice.Labels, slice.OwnerReferences = set, []metav1.OwnerReference{ref}
		next[i] = slice
	}
	var rest []discoveryv1.Endpoint
	for _, e := range endpoints { // in their order
		if _, ok := missing[endpointKey(&e)]; ok {
			rest = append(rest, e)
		}
	}
	fill := func(into *discoveryv1.EndpointSlice) {
		n := min(len(rest), maxEndpointsPerSlice-len(into.Endpoints))
		into.Endpoints = append(into.Endpoints, rest[:n]...)
		rest = rest[n:]
	}
	for i := range next {
		if dirty[i] && len(rest) > 0 {
			fill(next[i])
		}
	}
	// What is left goes into one slice that has room for all of it, rather than into a new one.
	if n := len(rest) % maxEndpointsPerSlice; n > 0 {
		for i := range next {
			if len(next[i].Endpoints)+n <= maxEndpointsPerSlice && len(rest) <= maxEndpointsPerSlice-len(next[i].Endpoints) {
				fill(next[i])
				dirty[i] = true
				break
			}
		}
	}
	kept := 0
	for i := range next {
		if len(next[i].Endpoints) > 0 {
			kept++
		}
	}
	for i := range next {
		switch empty := len(next[i].Endpoints) == 0; {
		case empty && (kept > 0 || len(rest) > 0 || len(endpoints) > 0):
			plan.remove = append(plan.remove, have[i])
		case empty:
			kept++ // one empty slice stays
			if dirty[i] {
				plan.update = append(plan.update, next[i])
			}
		case dirty[i]:
			plan.update = append(plan.update, next[i])
		}
	}
	for len(rest) > 0 || kept == 0 {
		slice := &discoveryv1.EndpointSlice{
			ObjectMeta:  metav1.ObjectMeta{GenerateName: generateName(svc.Name), Namespace: svc.Namespace, Labels: set, OwnerReferences: []metav1.OwnerReference{ref}},
			AddressType: g.address, Ports: ports, Endpoints: []discoveryv1.Endpoint{},
		}
		fill(slice)
		kept++
		plan.create = append(plan.create, slice)
	}
}

// endpointKey is what makes two endpoints the same one.
func endpointKey(e *discoveryv1.Endpoint) string {
	uid := ""
	if e.TargetRef != nil {
		uid = string(e.TargetRef.UID)
	}
	return uid + "|" + strings.Join(e.Addresses, ",")
}

func portsKey(ports []discoveryv1.EndpointPort) string {
	keys := make([]string, len(ports))
	for i, p := range ports {
		keys[i] = fmt.Sprintf("%s/%s/%d/%s", deref(p.Name), deref(p.Protocol), deref(p.Port), deref(p.AppProtocol))
	}
	slices.Sort(keys)
	return strings.Join(keys, ",")
}

func deref[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

// families are the address types that a service has slices for.
func families(svc *corev1.Service) []discoveryv1.AddressType {
	if len(svc.Spec.IPFamilies) == 0 {
		return []discoveryv1.AddressType{discoveryv1.AddressTypeIPv4}
	}
	var out []discoveryv1.AddressType
	for _, f := range svc.Spec.IPFamilies {
		out = append(out, discoveryv1.AddressType(f))
	}
	return out
}

// wanted are the endpoints that a service should have, by the slices that they can be in.
func (s *slicer) wanted(svc *corev1.Service) (map[sliceGroup][]discoveryv1.Endpoint, map[sliceGroup][]discoveryv1.EndpointPort) {
	endpoints, ports := map[sliceGroup][]discoveryv1.Endpoint{}, map[sliceGroup][]discoveryv1.EndpointPort{}
	for _, pod := range s.of(svc) {
		podPorts := endpointPorts(svc, pod)
		if len(podPorts) == 0 && len(svc.Spec.Ports) > 0 { // it has none of the ports that are named
			continue
		}
		for _, family := range families(svc) {
			addresses := addressesOf(pod, family)
			if len(addresses) == 0 {
				continue
			}
			g := sliceGroup{family, portsKey(podPorts)}
			endpoints[g] = append(endpoints[g], s.endpoint(svc, pod, addresses))
			ports[g] = podPorts
		}
	}
	hint(svc, endpoints)
	return endpoints, ports
}

func endpointPorts(svc *corev1.Service, pod *corev1.Pod) []discoveryv1.EndpointPort {
	ports := []discoveryv1.EndpointPort{}
	for i := range svc.Spec.Ports {
		port := &svc.Spec.Ports[i]
		n, ok := portOf(pod, port)
		if !ok {
			continue
		}
		name, protocol := port.Name, port.Protocol
		ports = append(ports, discoveryv1.EndpointPort{Name: &name, Protocol: &protocol, Port: &n, AppProtocol: port.AppProtocol})
	}
	return ports
}

func addressesOf(pod *corev1.Pod, family discoveryv1.AddressType) []string {
	for _, ip := range podIPs(pod) {
		if addr, err := netip.ParseAddr(ip); err == nil && addr.Is4() == (family == discoveryv1.AddressTypeIPv4) {
			return []string{ip}
		}
	}
	return nil
}

func (s *slicer) endpoint(svc *corev1.Service, pod *corev1.Pod, addresses []string) discoveryv1.Endpoint {
	serving, terminating := ready(pod), pod.DeletionTimestamp != nil
	isReady := svc.Spec.PublishNotReadyAddresses || serving && !terminating
	e := discoveryv1.Endpoint{
		Addresses:  addresses,
		Conditions: discoveryv1.EndpointConditions{Ready: &isReady, Serving: &serving, Terminating: &terminating},
		TargetRef:  &corev1.ObjectReference{Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID},
	}
	if name := hostnameIn(pod, svc); name != "" {
		e.Hostname = &name
	}
	if pod.Spec.NodeName != "" {
		node := pod.Spec.NodeName
		e.NodeName = &node
		if n, err := s.nodes.Get(node); err == nil && n.Labels[corev1.LabelTopologyZone] != "" {
			zone := n.Labels[corev1.LabelTopologyZone]
			e.Zone = &zone
		}
	}
	return e
}

// hint tells proxies which endpoints are near to whom, if the service asks for it (KEP-4444, KEP-3015).
func hint(svc *corev1.Service, groups map[sliceGroup][]discoveryv1.Endpoint) {
	how := deref(svc.Spec.TrafficDistribution)
	switch how {
	case corev1.ServiceTrafficDistributionPreferClose, corev1.ServiceTrafficDistributionPreferSameZone, corev1.ServiceTrafficDistributionPreferSameNode:
	default:
		return
	}
	for _, endpoints := range groups {
		for i := range endpoints {
			e := &endpoints[i]
			if !*e.Conditions.Ready {
				continue
			}
			var h discoveryv1.EndpointHints
			if e.Zone != nil {
				h.ForZones = []discoveryv1.ForZone{{Name: *e.Zone}}
			}
			if how == corev1.ServiceTrafficDistributionPreferSameNode && e.NodeName != nil {
				h.ForNodes = []discoveryv1.ForNode{{Name: *e.NodeName}}
			}
			if len(h.ForZones)+len(h.ForNodes) > 0 {
				e.Hints = &h
			}
		}
	}
}

package controller

import (
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	corelisters "k8s.io/client-go/listers/core/v1"
)

// servicePods is what both endpoint controllers need to know of services and their pods.
type servicePods struct {
	*part
	services corelisters.ServiceLister
}

// followServices queues services that changed, and those whose pods did.
func (p *part) followServices() *servicePods {
	services := p.informers.Core().V1().Services()
	s := &servicePods{part: p, services: services.Lister()}
	follow(p, services.Informer(), func(svc *corev1.Service) { p.queue.Add(keyOf(svc)) })
	followChanges(p, p.podIndex().informer, func(old, pod *corev1.Pod) {
		if old == nil {
			s.tell(pod.Namespace, pod.Labels)
			return
		}
		relabeled := !maps.Equal(old.Labels, pod.Labels)
		if relabeled {
			s.tell(pod.Namespace, old.Labels)
		}
		if relabeled || finished(old) != finished(pod) || ready(old) != ready(pod) || (old.DeletionTimestamp == nil) != (pod.DeletionTimestamp == nil) ||
			old.Spec.NodeName != pod.Spec.NodeName || !equality.Semantic.DeepEqual(old.Status.PodIPs, pod.Status.PodIPs) || old.Status.PodIP != pod.Status.PodIP {
			s.tell(pod.Namespace, pod.Labels)
		}
	}, func(pod *corev1.Pod) { s.tell(pod.Namespace, pod.Labels) })
	return s
}

func (s *servicePods) tell(namespace string, set map[string]string) {
	all, _ := s.services.Services(namespace).List(labels.Everything()) // a lister of an informer does not fail
	for _, svc := range all {
		if len(svc.Spec.Selector) > 0 && labels.SelectorFromSet(svc.Spec.Selector).Matches(labels.Set(set)) {
			s.queue.Add(keyOf(svc))
		}
	}
}

// get is a service whose endpoints are made from pods; nil if it is gone or has others.
func (s *servicePods) get(key string) *corev1.Service {
	namespace, name := splitKey(key)
	svc, err := s.services.Services(namespace).Get(name)
	// Parity: an empty selector selects nothing, and a service of type ExternalName has no endpoints.
	if err != nil || len(svc.Spec.Selector) == 0 || svc.Spec.Type == corev1.ServiceTypeExternalName {
		return nil
	}
	return svc
}

// of lists the pods of a service that have an address and have not ended, by name.
func (s *servicePods) of(svc *corev1.Service) []*corev1.Pod {
	all, _ := s.pods.lister.Pods(svc.Namespace).List(labels.SelectorFromSet(svc.Spec.Selector)) // as above
	all = slices.DeleteFunc(slices.Clone(all), func(pod *corev1.Pod) bool {
		return finished(pod) || len(podIPs(pod)) == 0
	})
	slices.SortFunc(all, func(a, b *corev1.Pod) int { return cmpNames(a, b) })
	return all
}

func podIPs(pod *corev1.Pod) []string {
	var ips []string
	for _, ip := range pod.Status.PodIPs {
		ips = append(ips, ip.IP)
	}
	if len(ips) == 0 && pod.Status.PodIP != "" {
		ips = []string{pod.Status.PodIP}
	}
	return ips
}

// portOf is the port of a pod that a service's port leads to; ok is false if the pod has none of that name.
func portOf(pod *corev1.Pod, port *corev1.ServicePort) (n int32, ok bool) {
	if port.TargetPort.Type == intstr.Int {
		if n = port.TargetPort.IntVal; n == 0 {
			n = port.Port
		}
		return n, true
	}
	containers := slices.Clone(pod.Spec.Containers)
	for _, c := range pod.Spec.InitContainers {
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			containers = append(containers, c)
		}
	}
	for _, c := range containers {
		for _, p := range c.Ports {
			if p.Name == port.TargetPort.StrVal && (p.Protocol == port.Protocol || p.Protocol == "" && port.Protocol == corev1.ProtocolTCP) {
				return p.ContainerPort, true
			}
		}
	}
	return 0, false
}

// hostnameIn is the pod's hostname under the service's name in the DNS, if it has one.
func hostnameIn(pod *corev1.Pod, svc *corev1.Service) string {
	if pod.Spec.Subdomain != svc.Name {
		return ""
	}
	return pod.Spec.Hostname
}

func headless(svc *corev1.Service) bool { return svc.Spec.ClusterIP == corev1.ClusterIPNone }

// serviceLabels are the labels that endpoints have from their service.
func serviceLabels(svc *corev1.Service, reserved ...string) map[string]string {
	set := map[string]string{}
	for k, v := range svc.Labels {
		if k != corev1.IsHeadlessService && !slices.Contains(reserved, k) {
			set[k] = v
		}
	}
	if headless(svc) {
		set[corev1.IsHeadlessService] = ""
	}
	return set
}

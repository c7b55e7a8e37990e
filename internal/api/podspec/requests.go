package podspec

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/utils/ptr"
)

// Restartable reports whether an init container goes on running beside the others (a sidecar, KEP-753).
func Restartable(c *corev1.Container) bool {
	return ptr.Deref(c.RestartPolicy, "") == corev1.ContainerRestartPolicyAlways
}

// Requests returns what the containers of a pod request together: the sum of those that run side by side, or what
// the greediest step of the initialisation needs, if that is more (Kubernetes documentation, "Init Containers").
func Requests(s *corev1.PodSpec) corev1.ResourceList {
	return together(s, func(c *corev1.Container) corev1.ResourceList { return c.Resources.Requests })
}

// Limits is Requests for limits.
func Limits(s *corev1.PodSpec) corev1.ResourceList {
	return together(s, func(c *corev1.Container) corev1.ResourceList { return c.Resources.Limits })
}

func together(s *corev1.PodSpec, of func(*corev1.Container) corev1.ResourceList) corev1.ResourceList {
	total := corev1.ResourceList{}
	for i := range s.Containers {
		add(total, of(&s.Containers[i]))
	}
	sidecars, greediest := corev1.ResourceList{}, corev1.ResourceList{}
	for i := range s.InitContainers {
		c := &s.InitContainers[i]
		step := corev1.ResourceList{}
		add(step, of(c))
		if Restartable(c) {
			add(total, of(c))
			add(sidecars, of(c))
			step = corev1.ResourceList{}
		}
		add(step, sidecars)
		most(greediest, step)
	}
	most(total, greediest)
	return total
}

func add(to, what corev1.ResourceList) {
	for name, q := range what {
		sum, found := to[name]
		if !found {
			sum = resource.Quantity{Format: q.Format}
		}
		sum.Add(q)
		to[name] = sum
	}
}

func most(to, what corev1.ResourceList) {
	for name, q := range what {
		if have, found := to[name]; !found || q.Cmp(have) > 0 {
			to[name] = q.DeepCopy()
		}
	}
}

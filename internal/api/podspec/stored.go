package podspec

import (
	"slices"

	"github.com/timonel/timonel/internal/api/check"
	corev1 "k8s.io/api/core/v1"
)

// What these functions find was not always refused, so that there are pods and templates that have it. An update may leave it to them.

// oddPages finds an amount of huge pages that is not a number of pages.
func oddPages(s *corev1.PodSpec) bool {
	odd := func(r *corev1.ResourceRequirements) bool {
		for _, list := range []corev1.ResourceList{r.Requests, r.Limits} {
			for name, q := range list {
				if check.HugePages(name) && !check.WholePages(name, q) {
					return true
				}
			}
		}
		return false
	}
	return s.Resources != nil && odd(s.Resources) || slices.ContainsFunc(slices.Concat(s.InitContainers, s.Containers), func(c corev1.Container) bool { return odd(&c.Resources) })
}

// badSpread finds a spread of pods whose selector is not valid.
func badSpread(s *corev1.PodSpec) bool {
	return slices.ContainsFunc(s.TopologySpreadConstraints, func(t corev1.TopologySpreadConstraint) bool {
		return len(check.Selector(t.LabelSelector, nil, nil)) > 0
	})
}

func hasSysctl(s *corev1.PodSpec, name string) bool {
	return s.SecurityContext != nil && slices.ContainsFunc(s.SecurityContext.Sysctls, func(c corev1.Sysctl) bool { return c.Name == name })
}

// hasTokenPath finds a token at a path, which may lead out of its volume.
func hasTokenPath(s *corev1.PodSpec, path string) bool {
	for _, v := range s.Volumes {
		if v.Projected != nil && slices.ContainsFunc(v.Projected.Sources, func(p corev1.VolumeProjection) bool {
			return p.ServiceAccountToken != nil && p.ServiceAccountToken.Path == path
		}) {
			return true
		}
	}
	return false
}

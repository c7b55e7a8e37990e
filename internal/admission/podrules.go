package admission

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// limitPodHardAntiAffinityTopology lets required anti-affinity keep pods apart on nodes only, not in
// larger parts of the cluster.
func limitPodHardAntiAffinityTopology() Plugin {
	return Plugin{Name: "LimitPodHardAntiAffinityTopology", Check: func(_ context.Context, r *Request) error {
		if r.Operation != Create && r.Operation != Update {
			return nil
		}
		p := podOf(r)
		if p == nil || p.Spec.Affinity == nil || p.Spec.Affinity.PodAntiAffinity == nil {
			return nil
		}
		for _, term := range p.Spec.Affinity.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution {
			if term.TopologyKey != corev1.LabelHostname {
				return r.Forbidden("affinity.PodAntiAffinity.RequiredDuringScheduling has TopologyKey %v but only key %v is allowed", term.TopologyKey, corev1.LabelHostname)
			}
		}
		return nil
	}}
}

// alwaysPullImages makes nodes ask the registry for every image, so that nobody uses one that was pulled with
// somebody else's credentials.
func alwaysPullImages() Plugin {
	concerns := func(r *Request) *corev1.Pod {
		if r.Operation != Create && r.Operation != Update {
			return nil
		}
		p := podOf(r, "ephemeralcontainers")
		if p == nil {
			return nil
		}
		if old, ok := r.Old.(*corev1.Pod); ok && !newImages(p, old) {
			return nil
		}
		return p
	}
	return Plugin{
		Name: "AlwaysPullImages",
		Change: func(_ context.Context, r *Request) error {
			if p := concerns(r); p != nil {
				eachPullPolicy(p, func(policy *corev1.PullPolicy, _ *field.Path) { *policy = corev1.PullAlways })
			}
			return nil
		},
		Check: func(_ context.Context, r *Request) error {
			p := concerns(r)
			if p == nil {
				return nil
			}
			var problems []error
			eachPullPolicy(p, func(policy *corev1.PullPolicy, at *field.Path) {
				if *policy != corev1.PullAlways {
					problems = append(problems, field.NotSupported(at, *policy, []corev1.PullPolicy{corev1.PullAlways}))
				}
			})
			if len(problems) == 0 {
				return nil
			}
			return r.Forbidden("%w", utilerrors.NewAggregate(problems))
		},
	}
}

// eachPullPolicy calls f with the pull policy of every container and image volume.
func eachPullPolicy(p *corev1.Pod, f func(policy *corev1.PullPolicy, at *field.Path)) {
	spec := field.NewPath("spec")
	for i := range p.Spec.InitContainers {
		f(&p.Spec.InitContainers[i].ImagePullPolicy, spec.Child("initContainers").Index(i).Child("imagePullPolicy"))
	}
	for i := range p.Spec.Containers {
		f(&p.Spec.Containers[i].ImagePullPolicy, spec.Child("containers").Index(i).Child("imagePullPolicy"))
	}
	for i := range p.Spec.EphemeralContainers {
		f(&p.Spec.EphemeralContainers[i].ImagePullPolicy, spec.Child("ephemeralContainers").Index(i).Child("imagePullPolicy"))
	}
	for i := range p.Spec.Volumes {
		if image := p.Spec.Volumes[i].Image; image != nil {
			f(&image.PullPolicy, spec.Child("volumes").Index(i).Child("image", "pullPolicy"))
		}
	}
}

// newImages reports whether the pod uses an image that it did not use before.
func newImages(p, old *corev1.Pod) bool {
	return !images(old).IsSuperset(images(p))
}

func images(p *corev1.Pod) sets.Set[string] {
	found := sets.New[string]()
	for i := range p.Spec.InitContainers {
		found.Insert(p.Spec.InitContainers[i].Image)
	}
	for i := range p.Spec.Containers {
		found.Insert(p.Spec.Containers[i].Image)
	}
	for i := range p.Spec.EphemeralContainers {
		found.Insert(p.Spec.EphemeralContainers[i].Image)
	}
	for i := range p.Spec.Volumes {
		if image := p.Spec.Volumes[i].Image; image != nil {
			found.Insert(image.Reference)
		}
	}
	return found
}

// denyServiceExternalIPs refuses external addresses that a service did not have before.
func denyServiceExternalIPs() Plugin {
	return Plugin{Name: "DenyServiceExternalIPs", Check: func(_ context.Context, r *Request) error {
		if r.Operation != Create && r.Operation != Update || !r.Is("", "services") {
			return nil
		}
		s, ok := r.Object.(*corev1.Service)
		if !ok {
			return nil
		}
		had := sets.New[string]()
		if old, ok := r.Old.(*corev1.Service); ok {
			had.Insert(old.Spec.ExternalIPs...)
		}
		for _, ip := range s.Spec.ExternalIPs {
			if !had.Has(ip) {
				return r.Forbidden("Use of external IPs is denied by admission control")
			}
		}
		return nil
	}}
}

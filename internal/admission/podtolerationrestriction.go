package admission

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/timonel/timonel/internal/api/podspec"
	corev1 "k8s.io/api/core/v1"
)

// Annotations of a namespace with lists of tolerations, as JSON.
const (
	defaultTolerationsAnnotation = "scheduler.alpha.kubernetes.io/defaultTolerations"
	allowedTolerationsAnnotation = "scheduler.alpha.kubernetes.io/tolerationsWhitelist"
)

// podTolerationRestriction gives the pods of a namespace the tolerations in one annotation of the namespace, and
// allows them none but those in another.
func (c *cluster) podTolerationRestriction() Plugin {
	return Plugin{
		Name: "PodTolerationRestriction",
		Change: func(ctx context.Context, r *Request) error {
			p := podOf(r)
			if p == nil || r.Operation != Create && r.Operation != Update {
				return nil
			}
			if r.Operation == Create {
				defaults, err := c.namespaceTolerations(ctx, r, defaultTolerationsAnnotation)
				if err != nil {
					return err
				}
				if conflicting(defaults, p.Spec.Tolerations) {
					return r.Forbidden("namespace tolerations and pod tolerations conflict")
				}
				p.Spec.Tolerations = mergeTolerations(defaults, p.Spec.Tolerations)
			}
			if podspec.QOSClass(&p.Spec) != corev1.PodQOSBestEffort {
				pressure := corev1.Toleration{Key: corev1.TaintNodeMemoryPressure, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoSchedule}
				p.Spec.Tolerations = mergeTolerations(p.Spec.Tolerations, []corev1.Toleration{pressure})
			}
			return c.checkTolerations(ctx, r, p)
		},
		Check: func(ctx context.Context, r *Request) error {
			p := podOf(r)
			if p == nil || r.Operation != Create && r.Operation != Update {
				return nil
			}
			return c.checkTolerations(ctx, r, p)
		},
	}
}

// conflicting reports whether two lists tolerate the same taint differently.
func conflicting(a, b []corev1.Toleration) bool {
	return slices.ContainsFunc(a, func(x corev1.Toleration) bool {
		return slices.ContainsFunc(b, func(y corev1.Toleration) bool {
			return x.Key == y.Key && x.Effect == y.Effect && !covers(x, y) && !covers(y, x)
		})
	})
}

func (c *cluster) checkTolerations(ctx context.Context, r *Request, p *corev1.Pod) error {
	allowed, err := c.namespaceTolerations(ctx, r, allowedTolerationsAnnotation)
	if err != nil || len(allowed) == 0 {
		return err
	}
	for _, t := range p.Spec.Tolerations {
		if !slices.ContainsFunc(allowed, func(a corev1.Toleration) bool { return covers(a, t) }) {
			return r.Forbidden("pod tolerations (possibly merged with namespace default tolerations) conflict with its namespace whitelist")
		}
	}
	return nil
}

func (c *cluster) namespaceTolerations(ctx context.Context, r *Request, annotation string) ([]corev1.Toleration, error) {
	n, err := c.namespace(ctx, r)
	if err != nil {
		return nil, err
	}
	text := n.Annotations[annotation]
	if text == "" {
		return nil, nil
	}
	var tolerations []corev1.Toleration
	if err := json.Unmarshal([]byte(text), &tolerations); err != nil {
		return nil, fmt.Errorf("read annotation %s of namespace %q: %w", annotation, n.Name, err)
	}
	return tolerations, nil
}

package admission

import (
	"context"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
)

// defaultTolerationSeconds is how long a pod stays on a node that is not ready or out of reach.
const defaultTolerationSeconds = 300

// defaultTolerationSeconds lets every pod tolerate for a while that its node fails.
func (c *cluster) defaultTolerationSeconds() Plugin {
	defaults := []corev1.Toleration{
		{Key: corev1.TaintNodeNotReady, TolerationSeconds: c.NotReadyTolerationSeconds},
		{Key: corev1.TaintNodeUnreachable, TolerationSeconds: c.UnreachableTolerationSeconds},
	}
	for i := range defaults {
		t := &defaults[i]
		t.Operator, t.Effect = corev1.TolerationOpExists, corev1.TaintEffectNoExecute
		t.TolerationSeconds = ptr.To(ptr.Deref(t.TolerationSeconds, defaultTolerationSeconds))
	}
	return Plugin{Name: "DefaultTolerationSeconds", Change: func(_ context.Context, r *Request) error {
		if r.Operation != Create && r.Operation != Update {
			return nil
		}
		p := podOf(r)
		if p == nil {
			return nil
		}
		given := p.Spec.Tolerations
		for _, d := range defaults {
			if !slices.ContainsFunc(given, func(t corev1.Toleration) bool {
				return (t.Key == d.Key || t.Key == "") && (t.Effect == d.Effect || t.Effect == "")
			}) {
				d.TolerationSeconds = ptr.To(*d.TolerationSeconds)
				p.Spec.Tolerations = append(p.Spec.Tolerations, d)
			}
		}
		return nil
	}}
}

// taintNodesByCondition keeps pods from a new node until it is known to be ready.
func taintNodesByCondition() Plugin {
	return Plugin{Name: "TaintNodesByCondition", Change: func(_ context.Context, r *Request) error {
		if r.Operation != Create || !r.Is("", "nodes") {
			return nil
		}
		n, ok := r.Object.(*corev1.Node)
		if !ok {
			return nil
		}
		taint := corev1.Taint{Key: corev1.TaintNodeNotReady, Effect: corev1.TaintEffectNoSchedule}
		if !slices.ContainsFunc(n.Spec.Taints, func(t corev1.Taint) bool { return t.MatchTaint(&taint) }) {
			n.Spec.Taints = append(n.Spec.Taints, taint)
		}
		return nil
	}}
}

// extendedResourceToleration lets a pod that asks for an extended resource run on the nodes that are
// set apart for it by a taint with its name.
func extendedResourceToleration() Plugin {
	return Plugin{Name: "ExtendedResourceToleration", Change: func(_ context.Context, r *Request) error {
		if r.Operation != Create && r.Operation != Update {
			return nil
		}
		p := podOf(r)
		if p == nil {
			return nil
		}
		asked := map[string]bool{}
		for _, containers := range [][]corev1.Container{p.Spec.InitContainers, p.Spec.Containers} {
			for i := range containers {
				for name := range containers[i].Resources.Requests {
					if isExtended(name) {
						asked[string(name)] = true
					}
				}
			}
		}
		for _, name := range slices.Sorted(maps.Keys(asked)) {
			t := corev1.Toleration{Key: name, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoSchedule}
			if !slices.ContainsFunc(p.Spec.Tolerations, func(have corev1.Toleration) bool { return covers(have, t) }) {
				p.Spec.Tolerations = append(p.Spec.Tolerations, t)
			}
		}
		return nil
	}}
}

// isExtended reports whether a resource is one that the cluster's operator added (Kubernetes documentation,
// "Extended resources"): it has a domain of its own.
func isExtended(name corev1.ResourceName) bool {
	domain, _, found := strings.Cut(string(name), "/")
	if !found || domain == "kubernetes.io" || strings.HasSuffix(domain, ".kubernetes.io") {
		return false
	}
	return !strings.HasPrefix(string(name), corev1.DefaultResourceRequestsPrefix)
}

// covers reports whether whatever b tolerates, a tolerates too.
func covers(a, b corev1.Toleration) bool {
	if a.Key != b.Key && !(a.Key == "" && a.Operator == corev1.TolerationOpExists) {
		return false
	}
	if a.Effect != b.Effect && a.Effect != "" {
		return false
	}
	if a.TolerationSeconds != nil && a.Effect == corev1.TaintEffectNoExecute {
		if b.TolerationSeconds == nil || *b.TolerationSeconds > *a.TolerationSeconds {
			return false
		}
	}
	switch a.Operator {
	case corev1.TolerationOpExists:
		return true
	case corev1.TolerationOpEqual, "":
		return (b.Operator == corev1.TolerationOpEqual || b.Operator == "") && a.Value == b.Value
	}
	return a.Operator == b.Operator && a.Value == b.Value
}

// mergeTolerations joins two lists, without those that another one covers. Of equal ones the first stays.
func mergeTolerations(a, b []corev1.Toleration) []corev1.Toleration {
	all := slices.Concat(a, b)
	var merged []corev1.Toleration
	for i, t := range all {
		needless := slices.ContainsFunc(merged, func(kept corev1.Toleration) bool { return covers(kept, t) })
		for _, later := range all[i+1:] {
			needless = needless || covers(later, t) && !covers(t, later)
		}
		if !needless {
			merged = append(merged, t)
		}
	}
	return merged
}

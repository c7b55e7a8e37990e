package admission

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/timonel/timonel/internal/api/podspec"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
)

// limitRangerAnnotation tells which resources of a pod were filled in.
const limitRangerAnnotation = "kubernetes.io/limit-ranger"

// limitRanger fills in the resources of containers from the limit ranges of their namespace, and refuses
// pods and claims that are outside of them (Kubernetes documentation, "Limit Ranges").
func (c *cluster) limitRanger() Plugin {
	return Plugin{
		Name: "LimitRanger",
		Change: func(ctx context.Context, r *Request) error {
			if r.Operation != Create {
				return nil
			}
			p := podOf(r)
			if p == nil {
				return nil
			}
			ranges, err := c.limitRangesOf(ctx, r)
			if err != nil {
				return err
			}
			for _, l := range ranges {
				fillFrom(p, l)
			}
			return nil
		},
		Check: func(ctx context.Context, r *Request) error {
			if !limited(r) {
				return nil
			}
			ranges, err := c.limitRangesOf(ctx, r)
			if err != nil {
				return err
			}
			for _, l := range ranges {
				var problems []error
				switch obj := r.Object.(type) {
				case *corev1.Pod:
					problems = podProblems(l, obj)
				case *corev1.PersistentVolumeClaim:
					problems = claimProblems(l, obj)
				}
				if len(problems) > 0 {
					return r.Forbidden("%w", utilerrors.NewAggregate(problems))
				}
			}
			return nil
		},
	}
}

// limitRangesOf returns the limit ranges of the request's namespace, read once a request.
func (c *cluster) limitRangesOf(ctx context.Context, r *Request) ([]*corev1.LimitRange, error) {
	if r.found.limits == nil {
		ranges, err := list[*corev1.LimitRange](ctx, c.Reader, limitRanges, r.Namespace)
		if err != nil {
			return nil, err
		}
		r.found.limits = &ranges
	}
	return *r.found.limits, nil
}

// limited reports whether limit ranges are about the request.
func limited(r *Request) bool {
	if r.Operation != Create && r.Operation != Update || r.Operation == Update && r.Old != nil && r.Old.GetDeletionTimestamp() != nil {
		return false
	}
	if r.Operation == Create {
		return r.Is("", "pods") || r.Is("", "persistentvolumeclaims")
	}
	return r.Is("", "persistentvolumeclaims") || podOf(r, "resize") != nil && r.Subresource == "resize"
}

// fillFrom gives the containers what they do not say themselves, and notes that in an annotation.
func fillFrom(p *corev1.Pod, l *corev1.LimitRange) {
	limits, requests := corev1.ResourceList{}, corev1.ResourceList{}
	for i := range l.Spec.Limits {
		if item := &l.Spec.Limits[i]; item.Type == corev1.LimitTypeContainer {
			maps.Copy(limits, item.Default)
			maps.Copy(requests, item.DefaultRequest)
		}
	}
	if len(limits) == 0 && len(requests) == 0 {
		return
	}
	var notes []string
	fill := func(what string, containers []corev1.Container) {
		for i := range containers {
			at := &containers[i]
			if names := fillList(&at.Resources.Requests, requests); names != "" {
				notes = append(notes, names+" request for "+what+" "+at.Name)
			}
			if names := fillList(&at.Resources.Limits, limits); names != "" {
				notes = append(notes, names+" limit for "+what+" "+at.Name)
			}
		}
	}
	fill("container", p.Spec.Containers)
	fill("init container", p.Spec.InitContainers)
	if len(notes) > 0 {
		if p.Annotations == nil {
			p.Annotations = map[string]string{}
		}
		p.Annotations[limitRangerAnnotation] = "LimitRanger plugin set: " + strings.Join(notes, "; ")
	}
}

// fillList adds what is missing in a list and returns the names of that.
func fillList(to *corev1.ResourceList, defaults corev1.ResourceList) string {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(defaults)) {
		if _, given := (*to)[name]; given {
			continue
		}
		if *to == nil {
			*to = corev1.ResourceList{}
		}
		(*to)[name] = defaults[name].DeepCopy()
		names = append(names, string(name))
	}
	return strings.Join(names, ", ")
}

func podProblems(l *corev1.LimitRange, p *corev1.Pod) []error {
	var problems []error
	for i := range l.Spec.Limits {
		switch item := &l.Spec.Limits[i]; item.Type {
		case corev1.LimitTypeContainer:
			for _, containers := range [][]corev1.Container{p.Spec.Containers, p.Spec.InitContainers} {
				for j := range containers {
					problems = append(problems, outside(item, &containers[j].Resources, false)...)
				}
			}
		case corev1.LimitTypePod:
			whole := corev1.ResourceRequirements{Requests: podspec.Requests(&p.Spec), Limits: podspec.Limits(&p.Spec)}
			if own := p.Spec.Resources; own != nil { // what the pod says as a whole counts instead (KEP-2837)
				maps.Copy(whole.Requests, own.Requests)
				maps.Copy(whole.Limits, own.Limits)
			}
			problems = append(problems, outside(item, &whole, false)...)
		}
	}
	return problems
}

func claimProblems(l *corev1.LimitRange, claim *corev1.PersistentVolumeClaim) []error {
	var problems []error
	for i := range l.Spec.Limits {
		if item := &l.Spec.Limits[i]; item.Type == corev1.LimitTypePersistentVolumeClaim {
			have := corev1.ResourceRequirements{Requests: claim.Spec.Resources.Requests, Limits: claim.Spec.Resources.Limits}
			problems = append(problems, outside(item, &have, true)...)
		}
	}
	return problems
}

// outside says how resources break the rules of one item. A claim's maximum is about its request, since claims
// have no limits.
func outside(item *corev1.LimitRangeItem, have *corev1.ResourceRequirements, claim bool) []error {
	var problems []error
	for _, name := range slices.Sorted(maps.Keys(item.Min)) {
		problems = append(problems, below(item.Type, name, item.Min[name], have))
	}
	for _, name := range slices.Sorted(maps.Keys(item.Max)) {
		problems = append(problems, above(item.Type, name, item.Max[name], have, claim))
	}
	if !claim {
		for _, name := range slices.Sorted(maps.Keys(item.MaxLimitRequestRatio)) {
			problems = append(problems, tooLoose(item.Type, name, item.MaxLimitRequestRatio[name], have))
		}
	}
	return slices.DeleteFunc(problems, func(err error) bool { return err == nil })
}

func below(of corev1.LimitType, name corev1.ResourceName, least resource.Quantity, have *corev1.ResourceRequirements) error {
	request, asked := have.Requests[name]
	limit, capped := have.Limits[name]
	switch {
	case !asked:
		return fmt.Errorf("minimum %s usage per %s is %s.  No request is specified", name, of, least.String())
	case request.Cmp(least) < 0:
		return fmt.Errorf("minimum %s usage per %s is %s, but request is %s", name, of, least.String(), request.String())
	case capped && limit.Cmp(least) < 0:
		return fmt.Errorf("minimum %s usage per %s is %s, but limit is %s", name, of, least.String(), limit.String())
	}
	return nil
}

func above(of corev1.LimitType, name corev1.ResourceName, most resource.Quantity, have *corev1.ResourceRequirements, claim bool) error {
	request, asked := have.Requests[name]
	limit, capped := have.Limits[name]
	switch {
	case claim && !asked:
		return fmt.Errorf("maximum %s usage per %s is %s.  No request is specified", name, of, most.String())
	case !claim && !capped:
		return fmt.Errorf("maximum %s usage per %s is %s.  No limit is specified", name, of, most.String())
	case !claim && limit.Cmp(most) > 0:
		return fmt.Errorf("maximum %s usage per %s is %s, but limit is %s", name, of, most.String(), limit.String())
	case asked && request.Cmp(most) > 0:
		return fmt.Errorf("maximum %s usage per %s is %s, but request is %s", name, of, most.String(), request.String())
	}
	return nil
}

func tooLoose(of corev1.LimitType, name corev1.ResourceName, most resource.Quantity, have *corev1.ResourceRequirements) error {
	request, limit := have.Requests[name], have.Limits[name]
	if request.Sign() == 0 {
		return fmt.Errorf("%s max limit to request ratio per %s is %s, but no request is specified or request is 0", name, of, most.String())
	}
	if limit.Sign() == 0 {
		return fmt.Errorf("%s max limit to request ratio per %s is %s, but no limit is specified or limit is 0", name, of, most.String())
	}
	if ratio := limit.AsApproximateFloat64() / request.AsApproximateFloat64(); ratio > most.AsApproximateFloat64() {
		return fmt.Errorf("%s max limit to request ratio per %s is %s, but provided ratio is %f", name, of, most.String(), ratio)
	}
	return nil
}

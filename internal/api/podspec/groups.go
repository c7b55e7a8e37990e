package podspec

import (
	"strings"

	"github.com/timonel/timonel/internal/api/check"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/validate"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// checkSchedulingGroup wants the group to be named that a pod is scheduled with (KEP-4671).
func checkSchedulingGroup(g *corev1.PodSchedulingGroup, path *field.Path) field.ErrorList {
	if g.PodGroupName == nil {
		return field.ErrorList{field.Required(path, "exactly one of `podGroupName` is required")}
	}
	at := path.Child("podGroupName")
	return check.Each(at, *g.PodGroupName, check.Subdomain(*g.PodGroupName))
}

// Who may have which place among the responders to an eviction (KEP-4563).
const (
	maxResponders        = 10
	maxResponderPriority = 100_000
	firstOpenPriority    = 1000 // those below are for responders of Kubernetes itself
)

func (c *checker) checkResponders(path *field.Path) field.ErrorList {
	all, list := c.spec.EvictionResponders, path.Child("evictionResponders")
	errs := check.Keyed(all, maxResponders, func(r *corev1.EvictionResponder) string { return r.Name }, list)
	for i, r := range all {
		at := list.Index(i)
		errs = append(errs, check.RequiredSpelled(r.Name, at.Child("name"), validate.PrefixedLabelKey)...)
		priority := at.Child("priority")
		if r.Priority == nil {
			errs = append(errs, field.Required(priority, ""))
			continue
		}
		errs = append(errs, check.AtLeast(r.Priority, 0, priority)...)
		errs = append(errs, check.AtMost(r.Priority, maxResponderPriority, priority)...)
		if domain, _, _ := strings.Cut(r.Name, "/"); 0 <= *r.Priority && *r.Priority < firstOpenPriority && !strings.HasSuffix(domain, ".k8s.io") {
			errs = append(errs, field.Invalid(priority, *r.Priority, "0-999 is reserved for responders with the suffix *.k8s.io"))
		}
	}
	if len(all) > 0 && c.spec.SchedulingGroup != nil {
		errs = append(errs, field.Forbidden(path.Child("schedulingGroup"), "may not be set when evictionResponders is set"))
	}
	return errs
}

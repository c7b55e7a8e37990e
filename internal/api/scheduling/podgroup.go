package scheduling

import (
	"github.com/timonel/timonel/internal/api/check"
	"github.com/timonel/timonel/internal/api/show"
	"github.com/timonel/timonel/internal/feature"
	"github.com/timonel/timonel/internal/kind"
	schedulingv1 "k8s.io/api/scheduling/v1"
	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/validate"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// The gates of scheduling in groups.
const (
	genericWorkload  = "GenericWorkload"
	compositeGroups  = "CompositePodGroup"
	topologyAware    = "TopologyAwareWorkloadScheduling"
	preemptionPolicy = "PodGroupPreemptionPolicy"
	sharedClaims     = "DRAWorkloadResourceClaims"
)

// groupRules are what holds for groups of pods, and for templates of groups, with the gates of a server.
type groupRules struct{ feature.Gates }

// PodGroup is a set of pods that are scheduled with regard to each other.
func podGroup(rules groupRules) *kind.Definition {
	doc := schedulingv1beta1.PodGroupSpec{}.SwaggerDoc()
	return &kind.Definition{
		Group: schedulingv1.GroupName, Version: "v1beta1", Kind: "PodGroup", Plural: "podgroups", Gate: genericWorkload,
		Scope: kind.Namespaced, Verbs: kind.Standard, MustMatch: true,
		New: kind.Of[schedulingv1beta1.PodGroup](),
		Default: kind.Default(func(g *schedulingv1beta1.PodGroup) {
			if g.Spec.DisruptionMode == nil {
				g.Spec.DisruptionMode = &schedulingv1beta1.DisruptionMode{Single: &schedulingv1beta1.SingleDisruptionMode{}}
			}
		}),
		PrepareCreate: kind.Prepare(func(g *schedulingv1beta1.PodGroup) {
			g.Status = schedulingv1beta1.PodGroupStatus{}
			rules.dropClaims(g, nil)
		}),
		PrepareUpdate: kind.PrepareUpdate(func(g, old *schedulingv1beta1.PodGroup) {
			g.Status = old.Status
			rules.dropClaims(g, old)
		}),
		Generation: kind.Changed(func(g, old *schedulingv1beta1.PodGroup) bool { return !check.Equal(g.Spec, old.Spec) }),
		Validate:   kind.Validate(rules.podGroup),
		ValidateUpdate: kind.ValidateUpdate(func(g, old *schedulingv1beta1.PodGroup) field.ErrorList {
			return append(rules.podGroup(g), podGroupUpdate(&g.Spec, &old.Spec)...)
		}),
		Columns: kind.Columns{
			{Name: "Policy", Description: doc["schedulingPolicy"], Of: kind.Cell(func(g *schedulingv1beta1.PodGroup) any {
				return policyName(g.Spec.SchedulingPolicy.Basic != nil, g.Spec.SchedulingPolicy.Gang != nil)
			})},
			{Name: "Workload", Description: doc["workloadRef"], Of: kind.Cell(func(g *schedulingv1beta1.PodGroup) any {
				if g.Spec.WorkloadRef == nil {
					return show.None
				}
				return g.Spec.WorkloadRef.WorkloadName
			})},
			{Name: "Status", Description: schedulingv1beta1.PodGroupStatus{}.SwaggerDoc()["conditions"], Of: kind.Cell(func(g *schedulingv1beta1.PodGroup) any { return groupState(g) })},
			kind.Age,
		},
		ColumnFields: []string{
			"spec.schedulingPolicy", "spec.workloadRef.workloadName",
			"status.conditions.type", "status.conditions.status", "status.conditions.reason",
		},
		Subresources: map[string]*kind.Subresource{
			"status": kind.StatusOnly(func(g, old *schedulingv1beta1.PodGroup) {
				g.Spec = old.Spec
				if !rules.Enabled(sharedClaims) && len(old.Status.ResourceClaimStatuses) == 0 {
					g.Status.ResourceClaimStatuses = nil
				}
			}, podGroupStatus),
		},
	}
}

func policyName(basic, gang bool) string {
	switch {
	case gang:
		return "Gang"
	case basic:
		return "Basic"
	}
	return show.None
}

// groupState is whether the group was scheduled, or why it was not.
func groupState(g *schedulingv1beta1.PodGroup) string {
	c := meta.FindStatusCondition(g.Status.Conditions, schedulingv1beta1.PodGroupInitiallyScheduled)
	switch {
	case c == nil:
		return "Pending"
	case c.Status == metav1.ConditionTrue:
		return "Scheduled"
	}
	return show.Or(c.Reason, "Pending")
}

// dropClaims removes the claims of a feature that is off, unless they are in use already.
func (r groupRules) dropClaims(g, old *schedulingv1beta1.PodGroup) {
	if r.Enabled(sharedClaims) {
		return
	}
	if old == nil || len(old.Spec.ResourceClaims) == 0 {
		g.Spec.ResourceClaims = nil
	}
}

func (r groupRules) podGroup(g *schedulingv1beta1.PodGroup) field.ErrorList {
	s, spec := &g.Spec, field.NewPath("spec")
	var errs field.ErrorList
	switch parent := spec.Child("parentCompositePodGroupName"); {
	case s.ParentCompositePodGroupName == nil:
	case !r.Enabled(compositeGroups):
		errs = append(errs, field.Forbidden(parent, ""))
	default:
		errs = append(errs, check.Spelled(*s.ParentCompositePodGroupName, parent, validate.LongName)...)
		errs = append(errs, needsWorkload(s.WorkloadRef != nil, spec)...)
	}
	if ref := s.WorkloadRef; ref != nil {
		errs = append(errs, checkWorkloadRef(ref.WorkloadName, ref.TemplateName, spec.Child("workloadRef"))...)
	}
	return append(errs, r.group(s, spec)...)
}

// needsWorkload: a group within another is part of a workload.
func needsWorkload(has bool, spec *field.Path) field.ErrorList {
	if has {
		return nil
	}
	return field.ErrorList{field.Required(spec.Child("workloadRef"), "must be specified when `parentCompositePodGroupName` is specified")}
}

func checkWorkloadRef(workload, template string, path *field.Path) field.ErrorList {
	return append(check.RequiredSpelled(workload, path.Child("workloadName"), validate.LongName),
		check.RequiredSpelled(template, path.Child("templateName"), validate.ShortName)...)
}

// group checks what a group and a template of groups have in common.
func (r groupRules) group(s *schedulingv1beta1.PodGroupSpec, path *field.Path) field.ErrorList {
	policy := path.Child("schedulingPolicy")
	errs := check.Union(policy,
		check.Member{Name: "basic", Set: s.SchedulingPolicy.Basic != nil},
		check.Member{Name: "gang", Set: s.SchedulingPolicy.Gang != nil})
	if gang := s.SchedulingPolicy.Gang; gang != nil {
		errs = append(errs, checkCount(gang.MinCount, policy.Child("gang", "minCount"))...)
	}
	if c := s.SchedulingConstraints; c != nil {
		at := path.Child("schedulingConstraints")
		if !r.Enabled(topologyAware) {
			errs = append(errs, field.Forbidden(at, ""))
		} else {
			errs = append(errs, checkTopology(topologyKeys(c.Topology), at.Child("topology"))...)
		}
	}
	errs = append(errs, checkClaims(s.ResourceClaims, path.Child("resourceClaims"))...)
	if m := s.DisruptionMode; m != nil {
		errs = append(errs, check.Union(path.Child("disruptionMode"), check.Member{Name: "single", Set: m.Single != nil}, check.Member{Name: "all", Set: m.All != nil})...)
	}
	return append(errs, r.priorities(s.PriorityClassName, s.Priority, (*string)(s.PreemptionPolicy), path)...)
}

// checkCount wants how many must be scheduled at once: at least one.
func checkCount(n int32, path *field.Path) field.ErrorList {
	if n == 0 {
		return field.ErrorList{field.Required(path, "")}
	}
	return check.AtLeast(&n, 1, path)
}

func checkTopology(keys []string, path *field.Path) field.ErrorList {
	if len(keys) > 1 {
		return field.ErrorList{field.TooMany(path, len(keys), 1)}
	}
	var errs field.ErrorList
	for i, key := range keys {
		errs = append(errs, check.RequiredSpelled(key, path.Index(i).Child("key"), validate.LabelKey)...)
	}
	return errs
}

func checkClaims(claims []schedulingv1beta1.PodGroupResourceClaim, path *field.Path) field.ErrorList {
	errs := check.Keyed(claims, schedulingv1beta1.MaxPodGroupResourceClaims, func(c *schedulingv1beta1.PodGroupResourceClaim) string { return c.Name }, path)
	for i := range claims {
		c, at := &claims[i], path.Index(i)
		errs = append(errs, check.Join(
			check.RequiredSpelled(c.Name, at.Child("name"), validate.ShortName),
			check.Union(at, check.Member{Name: "resourceClaimName", Set: c.ResourceClaimName != nil}, check.Member{Name: "resourceClaimTemplateName", Set: c.ResourceClaimTemplateName != nil}),
			check.SpelledPtr(c.ResourceClaimName, at.Child("resourceClaimName"), validate.LongName),
			check.SpelledPtr(c.ResourceClaimTemplateName, at.Child("resourceClaimTemplateName"), validate.LongName),
		)...)
	}
	return errs
}

func (r groupRules) priorities(class string, priority *int32, preemption *string, path *field.Path) field.ErrorList {
	errs := check.SpelledIfSet(class, path.Child("priorityClassName"), validate.LongName)
	errs = append(errs, check.AtMost(priority, HighestUserPriority, path.Child("priority"))...)
	if preemption == nil {
		return errs
	}
	at := path.Child("preemptionPolicy")
	if !r.Enabled(preemptionPolicy) {
		return append(errs, field.Forbidden(at, ""))
	}
	return append(errs, check.OneOf(*preemption, at, string(schedulingv1beta1.PreemptNever), string(schedulingv1beta1.PreemptLowerPriority))...)
}

// policyUpdate wants the policy to stay what it is; how many pods a gang needs may change.
func policyUpdate(p, old schedulingv1beta1.PodGroupSchedulingPolicy, path *field.Path) field.ErrorList {
	return append(check.Unchanged(p.Basic, old.Basic, path.Child("basic")),
		neitherSetNorCleared(p.Gang != nil, old.Gang != nil, path.Child("gang"))...)
}

func neitherSetNorCleared(now, was bool, path *field.Path) field.ErrorList {
	switch {
	case now && !was:
		return field.ErrorList{field.Invalid(path, nil, "field cannot be set once created")}
	case !now && was:
		return field.ErrorList{field.Invalid(path, nil, "field cannot be cleared once set")}
	}
	return nil
}

func podGroupUpdate(s, old *schedulingv1beta1.PodGroupSpec) field.ErrorList {
	spec := field.NewPath("spec")
	return check.Join(
		policyUpdate(s.SchedulingPolicy, old.SchedulingPolicy, spec.Child("schedulingPolicy")),
		check.Unchanged(s.ParentCompositePodGroupName, old.ParentCompositePodGroupName, spec.Child("parentCompositePodGroupName")),
		check.Unchanged(s.WorkloadRef, old.WorkloadRef, spec.Child("workloadRef")),
		check.Unchanged(s.SchedulingConstraints, old.SchedulingConstraints, spec.Child("schedulingConstraints")),
		check.Unchanged(s.ResourceClaims, old.ResourceClaims, spec.Child("resourceClaims")),
		check.Unchanged(s.DisruptionMode, old.DisruptionMode, spec.Child("disruptionMode")),
		check.Unchanged(s.PriorityClassName, old.PriorityClassName, spec.Child("priorityClassName")),
		check.Unchanged(s.Priority, old.Priority, spec.Child("priority")),
		check.Unchanged(s.PreemptionPolicy, old.PreemptionPolicy, spec.Child("preemptionPolicy")),
	)
}

func podGroupStatus(g, _ *schedulingv1beta1.PodGroup) field.ErrorList {
	status := field.NewPath("status")
	claims := status.Child("resourceClaimStatuses")
	errs := metavalidation.ValidateConditions(g.Status.Conditions, status.Child("conditions"))
	errs = append(errs, check.Keyed(g.Status.ResourceClaimStatuses, schedulingv1beta1.MaxPodGroupResourceClaims,
		func(c *schedulingv1beta1.PodGroupResourceClaimStatus) string { return c.Name }, claims)...)
	declared := map[string]bool{}
	for _, c := range g.Spec.ResourceClaims {
		declared[c.Name] = true
	}
	for i, c := range g.Status.ResourceClaimStatuses {
		at := claims.Index(i)
		if !declared[c.Name] {
			errs = append(errs, field.Invalid(at.Child("name"), c.Name, "must match the name of an entry in `spec.resourceClaims`"))
		}
		errs = append(errs, check.SpelledPtr(c.ResourceClaimName, at.Child("resourceClaimName"), validate.LongName)...)
	}
	return errs
}

package scheduling

import (
	"github.com/timonel/timonel/internal/api/check"
	"github.com/timonel/timonel/internal/kind"
	schedulingv1 "k8s.io/api/scheduling/v1"
	schedulingv1alpha3 "k8s.io/api/scheduling/v1alpha3"
	"k8s.io/apimachinery/pkg/api/validate"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// CompositePodGroup is a group of groups of pods.
func compositePodGroup(rules groupRules) *kind.Definition {
	doc := schedulingv1alpha3.CompositePodGroupSpec{}.SwaggerDoc()
	return &kind.Definition{
		Group: schedulingv1.GroupName, Version: "v1alpha3", Kind: "CompositePodGroup", Plural: "compositepodgroups", Gate: compositeGroups,
		Scope: kind.Namespaced, Verbs: kind.Standard, MustMatch: true,
		New: kind.Of[schedulingv1alpha3.CompositePodGroup](),
		Default: kind.Default(func(g *schedulingv1alpha3.CompositePodGroup) {
			if g.Spec.DisruptionMode == nil {
				g.Spec.DisruptionMode = &schedulingv1alpha3.CompositeDisruptionMode{Single: &schedulingv1alpha3.SingleCompositeDisruptionMode{}}
			}
		}),
		PrepareCreate: kind.Prepare(func(g *schedulingv1alpha3.CompositePodGroup) { g.Status = schedulingv1alpha3.CompositePodGroupStatus{} }),
		PrepareUpdate: kind.PrepareUpdate(func(g, old *schedulingv1alpha3.CompositePodGroup) { g.Status = old.Status }),
		Generation:    kind.Changed(func(g, old *schedulingv1alpha3.CompositePodGroup) bool { return !check.Equal(g.Spec, old.Spec) }),
		Validate:      kind.Validate(rules.compositePodGroup),
		ValidateUpdate: kind.ValidateUpdate(func(g, old *schedulingv1alpha3.CompositePodGroup) field.ErrorList {
			return append(rules.compositePodGroup(g), compositePodGroupUpdate(&g.Spec, &old.Spec)...)
		}),
		Columns: kind.Columns{
			{Name: "Policy", Description: doc["schedulingPolicy"], Of: kind.Cell(func(g *schedulingv1alpha3.CompositePodGroup) any {
				return policyName(g.Spec.SchedulingPolicy.Basic != nil, g.Spec.SchedulingPolicy.Gang != nil)
			})},
			{Name: "Workload", Description: doc["workloadRef"], Of: kind.Cell(func(g *schedulingv1alpha3.CompositePodGroup) any {
				if g.Spec.WorkloadRef == nil {
					return ""
				}
				return g.Spec.WorkloadRef.WorkloadName
			})},
			kind.Age,
		},
		ColumnFields: []string{"spec.schedulingPolicy", "spec.workloadRef.workloadName"},
		Subresources: map[string]*kind.Subresource{
			"status": kind.StatusOnly(func(g, old *schedulingv1alpha3.CompositePodGroup) { g.Spec = old.Spec }, func(g, _ *schedulingv1alpha3.CompositePodGroup) field.ErrorList {
				return metavalidation.ValidateConditions(g.Status.Conditions, field.NewPath("status", "conditions"))
			}),
		},
	}
}

// compositeSpec is what a composite group and a template of them have in common, whatever the version of their types.
type compositeSpec struct {
	basic                   bool
	gang                    *int32 // how many groups it needs
	topology                []string
	disruption, single, all bool
	priorityClass           string
	priority                *int32
	preemption              *string
}

func (r groupRules) composite(s compositeSpec, path *field.Path) field.ErrorList {
	policy := path.Child("schedulingPolicy")
	errs := check.Union(policy, check.Member{Name: "basic", Set: s.basic}, check.Member{Name: "gang", Set: s.gang != nil})
	if s.gang != nil {
		errs = append(errs, checkCount(*s.gang, policy.Child("gang", "minGroupCount"))...)
	}
	errs = append(errs, checkTopology(s.topology, path.Child("schedulingConstraints", "topology"))...)
	if s.disruption {
		errs = append(errs, check.Union(path.Child("disruptionMode"), check.Member{Name: "single", Set: s.single}, check.Member{Name: "all", Set: s.all})...)
	}
	return append(errs, r.priorities(s.priorityClass, s.priority, s.preemption, path)...)
}

func (r groupRules) compositePodGroup(g *schedulingv1alpha3.CompositePodGroup) field.ErrorList {
	s, spec := &g.Spec, field.NewPath("spec")
	errs := check.SpelledPtr(s.ParentCompositePodGroupName, spec.Child("parentCompositePodGroupName"), validate.LongName)
	if ref := s.WorkloadRef; ref == nil {
		errs = append(errs, field.Required(spec.Child("workloadRef"), ""))
	} else {
		errs = append(errs, checkWorkloadRef(ref.WorkloadName, ref.TemplateName, spec.Child("workloadRef"))...)
	}
	c := compositeSpec{
		basic: s.SchedulingPolicy.Basic != nil, priorityClass: s.PriorityClassName, priority: s.Priority, preemption: (*string)(s.PreemptionPolicy),
	}
	if gang := s.SchedulingPolicy.Gang; gang != nil {
		c.gang = &gang.MinGroupCount
	}
	if s.SchedulingConstraints != nil {
		for _, t := range s.SchedulingConstraints.Topology {
			c.topology = append(c.topology, t.Key)
		}
	}
	if m := s.DisruptionMode; m != nil {
		c.disruption, c.single, c.all = true, m.Single != nil, m.All != nil
	}
	return append(errs, r.composite(c, spec)...)
}

func compositePodGroupUpdate(s, old *schedulingv1alpha3.CompositePodGroupSpec) field.ErrorList {
	spec := field.NewPath("spec")
	return check.Join(
		check.Unchanged(s.ParentCompositePodGroupName, old.ParentCompositePodGroupName, spec.Child("parentCompositePodGroupName")),
		check.Unchanged(s.WorkloadRef, old.WorkloadRef, spec.Child("workloadRef")),
		check.Unchanged(s.SchedulingPolicy, old.SchedulingPolicy, spec.Child("schedulingPolicy")),
		check.Unchanged(s.SchedulingConstraints, old.SchedulingConstraints, spec.Child("schedulingConstraints")),
		check.Unchanged(s.DisruptionMode, old.DisruptionMode, spec.Child("disruptionMode")),
		check.Unchanged(s.PriorityClassName, old.PriorityClassName, spec.Child("priorityClassName")),
		check.Unchanged(s.Priority, old.Priority, spec.Child("priority")),
		check.Unchanged(s.PreemptionPolicy, old.PreemptionPolicy, spec.Child("preemptionPolicy")),
	)
}

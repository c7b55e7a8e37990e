package scheduling

import (
	"fmt"

	"github.com/timonel/timonel/internal/api/check"
	"github.com/timonel/timonel/internal/kind"
	schedulingv1 "k8s.io/api/scheduling/v1"
	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	"k8s.io/apimachinery/pkg/api/validate"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// maxTemplates bounds each list of templates.
const maxTemplates = schedulingv1beta1.WorkloadMaxPodGroupTemplates

// Workload is the plan of an application: the groups that its pods come in.
func workload(rules groupRules) *kind.Definition {
	return &kind.Definition{
		Group: schedulingv1.GroupName, Version: "v1beta1", Kind: "Workload", Plural: "workloads", Gate: genericWorkload,
		Scope: kind.Namespaced, Verbs: kind.Standard, MustMatch: true,
		New:           kind.Of[schedulingv1beta1.Workload](),
		PrepareCreate: kind.Prepare(func(w *schedulingv1beta1.Workload) { rules.dropTemplates(&w.Spec, nil) }),
		PrepareUpdate: kind.PrepareUpdate(func(w, old *schedulingv1beta1.Workload) { rules.dropTemplates(&w.Spec, &old.Spec) }),
		Generation:    kind.Changed(func(w, old *schedulingv1beta1.Workload) bool { return !check.Equal(w.Spec, old.Spec) }),
		Validate:      kind.Validate(func(w *schedulingv1beta1.Workload) field.ErrorList { return rules.workload(&w.Spec) }),
		ValidateUpdate: kind.ValidateUpdate(func(w, old *schedulingv1beta1.Workload) field.ErrorList {
			return append(rules.workload(&w.Spec), workloadUpdate(&w.Spec, &old.Spec)...)
		}),
		Columns:      kind.Columns{kind.Age},
		ColumnFields: []string{},
	}
}

// dropTemplates removes the claims of a feature that is off from the templates, unless they are in use already.
func (r groupRules) dropTemplates(s, old *schedulingv1beta1.WorkloadSpec) {
	if r.Enabled(sharedClaims) || old != nil && hasClaims(old.PodGroupTemplates, old.CompositePodGroupTemplates) {
		return
	}
	eachTemplate(s.PodGroupTemplates, s.CompositePodGroupTemplates, func(t *schedulingv1beta1.PodGroupTemplate) { t.ResourceClaims = nil })
}

func hasClaims(groups []schedulingv1beta1.PodGroupTemplate, composites []schedulingv1beta1.CompositePodGroupTemplate) (has bool) {
	eachTemplate(groups, composites, func(t *schedulingv1beta1.PodGroupTemplate) { has = has || len(t.ResourceClaims) > 0 })
	return has
}

// eachTemplate visits the templates of pod groups, also those within composite ones.
func eachTemplate(groups []schedulingv1beta1.PodGroupTemplate, composites []schedulingv1beta1.CompositePodGroupTemplate, visit func(*schedulingv1beta1.PodGroupTemplate)) {
	for i := range groups {
		visit(&groups[i])
	}
	for i := range composites {
		eachTemplate(composites[i].PodGroupTemplates, composites[i].CompositePodGroupTemplates, visit)
	}
}

func templateName(t *schedulingv1beta1.PodGroupTemplate) string           { return t.Name }
func compositeName(t *schedulingv1beta1.CompositePodGroupTemplate) string { return t.Name }

func (r groupRules) workload(s *schedulingv1beta1.WorkloadSpec) field.ErrorList {
	spec := field.NewPath("spec")
	var errs field.ErrorList
	if ref := s.ControllerRef; ref != nil {
		at := spec.Child("controllerRef")
		errs = append(errs, check.SpelledIfSet(ref.APIGroup, at.Child("apiGroup"), validate.LongName)...)
		errs = append(errs, check.RequiredSpelled(ref.Kind, at.Child("kind"), validate.PathSegmentName)...)
		errs = append(errs, check.RequiredSpelled(ref.Name, at.Child("name"), validate.PathSegmentName)...)
	}
	errs = append(errs, check.Union(spec,
		check.Member{Name: "podGroupTemplates", Set: len(s.PodGroupTemplates) > 0},
		check.Member{Name: "compositePodGroupTemplates", Set: len(s.CompositePodGroupTemplates) > 0})...)
	composites := spec.Child("compositePodGroupTemplates")
	if len(s.CompositePodGroupTemplates) > 0 && !r.Enabled(compositeGroups) {
		return append(errs, field.Forbidden(composites, ""))
	}
	errs = append(errs, r.templates(s.PodGroupTemplates, spec.Child("podGroupTemplates"))...)
	errs = append(errs, r.composites(s.CompositePodGroupTemplates, 1, composites)...)
	return append(errs, uniqueNames(s, spec)...)
}

// uniqueNames wants each template's name once in the whole workload: groups refer to their template by name alone.
func uniqueNames(s *schedulingv1beta1.WorkloadSpec, spec *field.Path) field.ErrorList {
	seen := map[string]bool{}
	var errs field.ErrorList
	once := func(name string, at *field.Path) {
		if seen[name] {
			errs = append(errs, field.Duplicate(at.Child("name"), name))
		}
		seen[name] = true
	}
	var walk func(all []schedulingv1beta1.CompositePodGroupTemplate, path *field.Path)
	walk = func(all []schedulingv1beta1.CompositePodGroupTemplate, path *field.Path) {
		for i := range all {
			at := path.Index(i)
			once(all[i].Name, at)
			for k := range all[i].PodGroupTemplates {
				once(all[i].PodGroupTemplates[k].Name, at.Child("podGroupTemplates").Index(k))
			}
			walk(all[i].CompositePodGroupTemplates, at.Child("compositePodGroupTemplates"))
		}
	}
	walk(s.CompositePodGroupTemplates, spec.Child("compositePodGroupTemplates"))
	return errs
}

func (r groupRules) templates(all []schedulingv1beta1.PodGroupTemplate, path *field.Path) field.ErrorList {
	errs := check.Keyed(all, maxTemplates, templateName, path)
	for i := range all {
		t, at := &all[i], path.Index(i)
		errs = append(errs, check.RequiredSpelled(t.Name, at.Child("name"), validate.ShortName)...)
		errs = append(errs, r.group(&schedulingv1beta1.PodGroupSpec{
			SchedulingPolicy: t.SchedulingPolicy, SchedulingConstraints: t.SchedulingConstraints, ResourceClaims: t.ResourceClaims,
			DisruptionMode: t.DisruptionMode, PriorityClassName: t.PriorityClassName, Priority: t.Priority, PreemptionPolicy: t.PreemptionPolicy,
		}, at)...)
	}
	return errs
}

// composites checks the templates at a depth of the tree, the first of which is 1.
func (r groupRules) composites(all []schedulingv1beta1.CompositePodGroupTemplate, depth int, path *field.Path) field.ErrorList {
	if len(all) > 0 && depth >= schedulingv1beta1.WorkloadMaxTreeDepth {
		return field.ErrorList{field.Forbidden(path, fmt.Sprintf("the tree of templates may have at most %d levels", schedulingv1beta1.WorkloadMaxTreeDepth))}
	}
	errs := check.Keyed(all, maxTemplates, compositeName, path)
	for i := range all {
		t, at := &all[i], path.Index(i)
		errs = append(errs, check.RequiredSpelled(t.Name, at.Child("name"), validate.ShortName)...)
		errs = append(errs, r.composite(compositeSpec{
			gang: gangOfGroups(t.SchedulingPolicy.Gang), basic: t.SchedulingPolicy.Basic != nil,
			topology:      topologyOfGroups(t.SchedulingConstraints),
			disruption:    t.DisruptionMode != nil,
			single:        t.DisruptionMode != nil && t.DisruptionMode.Single != nil,
			all:           t.DisruptionMode != nil && t.DisruptionMode.All != nil,
			priorityClass: t.PriorityClassName, priority: t.Priority, preemption: (*string)(t.PreemptionPolicy),
		}, at)...)
		if len(t.PodGroupTemplates) == 0 && len(t.CompositePodGroupTemplates) == 0 {
			errs = append(errs, field.Required(at, "at least one of podGroupTemplates and compositePodGroupTemplates must be set"))
		}
		errs = append(errs, r.templates(t.PodGroupTemplates, at.Child("podGroupTemplates"))...)
		errs = append(errs, r.composites(t.CompositePodGroupTemplates, depth+1, at.Child("compositePodGroupTemplates"))...)
	}
	return errs
}

func gangOfGroups(g *schedulingv1beta1.CompositeGangSchedulingPolicy) *int32 {
	if g == nil {
		return nil
	}
	return &g.MinGroupCount
}

func topologyOfGroups(c *schedulingv1beta1.CompositePodGroupSchedulingConstraints) []string {
	if c == nil {
		return nil
	}
	return topologyKeys(c.Topology)
}

func topologyKeys(all []schedulingv1beta1.TopologyConstraint) []string {
	var keys []string
	for _, t := range all {
		keys = append(keys, t.Key)
	}
	return keys
}

// workloadUpdate wants a workload to keep its templates, and these what cannot change while there are groups.
func workloadUpdate(s, old *schedulingv1beta1.WorkloadSpec) field.ErrorList {
	spec := field.NewPath("spec")
	errs := check.Unchanged(s.ControllerRef, old.ControllerRef, spec.Child("controllerRef"))
	errs = append(errs, templatesUpdate(s.PodGroupTemplates, old.PodGroupTemplates, spec.Child("podGroupTemplates"))...)
	return append(errs, compositesUpdate(s.CompositePodGroupTemplates, old.CompositePodGroupTemplates, spec.Child("compositePodGroupTemplates"))...)
}

func templatesUpdate(all, old []schedulingv1beta1.PodGroupTemplate, path *field.Path) field.ErrorList {
	errs := check.FixedKeys(all, old, templateName, path)
	for i := range all {
		for k := range old {
			if t, was := &all[i], &old[k]; t.Name == was.Name {
				at := path.Index(i)
				errs = append(errs, policyUpdate(t.SchedulingPolicy, was.SchedulingPolicy, at.Child("schedulingPolicy"))...)
				errs = append(errs, check.Join(
					check.Unchanged(t.SchedulingConstraints, was.SchedulingConstraints, at.Child("schedulingConstraints")),
					check.Unchanged(t.ResourceClaims, was.ResourceClaims, at.Child("resourceClaims")),
					check.Unchanged(t.DisruptionMode, was.DisruptionMode, at.Child("disruptionMode")),
					check.Unchanged(t.PriorityClassName, was.PriorityClassName, at.Child("priorityClassName")),
					check.Unchanged(t.Priority, was.Priority, at.Child("priority")),
					check.Unchanged(t.PreemptionPolicy, was.PreemptionPolicy, at.Child("preemptionPolicy")),
				)...)
			}
		}
	}
	return errs
}

func compositesUpdate(all, old []schedulingv1beta1.CompositePodGroupTemplate, path *field.Path) field.ErrorList {
	errs := check.FixedKeys(all, old, compositeName, path)
	for i := range all {
		for k := range old {
			if t, was := &all[i], &old[k]; t.Name == was.Name {
				at := path.Index(i)
				policy := at.Child("schedulingPolicy")
				errs = append(errs, check.Unchanged(t.SchedulingPolicy.Basic, was.SchedulingPolicy.Basic, policy.Child("basic"))...)
				errs = append(errs, neitherSetNorCleared(t.SchedulingPolicy.Gang != nil, was.SchedulingPolicy.Gang != nil, policy.Child("gang"))...)
				errs = append(errs, check.Join(
					check.Unchanged(t.SchedulingConstraints, was.SchedulingConstraints, at.Child("schedulingConstraints")),
					check.Unchanged(t.DisruptionMode, was.DisruptionMode, at.Child("disruptionMode")),
					check.Unchanged(t.PriorityClassName, was.PriorityClassName, at.Child("priorityClassName")),
					check.Unchanged(t.Priority, was.Priority, at.Child("priority")),
					check.Unchanged(t.PreemptionPolicy, was.PreemptionPolicy, at.Child("preemptionPolicy")),
					templatesUpdate(t.PodGroupTemplates, was.PodGroupTemplates, at.Child("podGroupTemplates")),
					compositesUpdate(t.CompositePodGroupTemplates, was.CompositePodGroupTemplates, at.Child("compositePodGroupTemplates")),
				)...)
			}
		}
	}
	return errs
}

// Package scheduling holds the kinds of scheduling.k8s.io: PriorityClass, and those by which pods are scheduled as groups
// (KEP-4671): Workload, PodGroup, CompositePodGroup. A file each.
package scheduling

import (
	"fmt"
	"strings"

	"github.com/timonel/timonel/internal/api/check"
	"github.com/timonel/timonel/internal/feature"
	"github.com/timonel/timonel/internal/kind"
	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	schedulingv1alpha3 "k8s.io/api/scheduling/v1alpha3"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
)

// HighestUserPriority is the greatest value that a class outside the system may have.
const HighestUserPriority = 1000000000

// systemPrefix marks the names of the classes of the system itself.
const systemPrefix = "system-"

// SystemPriorityClasses are the classes that every cluster has, with their values (Kubernetes
// documentation, "Pod Priority and Preemption").
func SystemPriorityClasses() []*schedulingv1.PriorityClass {
	class := func(name string, value int32, description string) *schedulingv1.PriorityClass {
		c := &schedulingv1.PriorityClass{Value: value, Description: description}
		c.Name = name
		defaultPriorityClass(c)
		return c
	}
	return []*schedulingv1.PriorityClass{
		class("system-node-critical", 2*HighestUserPriority+1000, "Used for system critical pods that must not be moved from their current node."),
		class("system-cluster-critical", 2*HighestUserPriority, "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary."),
	}
}

// Definitions lists the kinds of the group, the preferred version of each first.
func Definitions(gates feature.Gates) []*kind.Definition {
	rules := groupRules{gates}
	workload, group := workload(rules), podGroup(rules)
	return []*kind.Definition{
		priorityClass(), group, workload, compositePodGroup(rules),
		group.Renamed("v1alpha3", kind.Of[schedulingv1alpha3.PodGroup]()),
		workload.Renamed("v1alpha3", kind.Of[schedulingv1alpha3.Workload]()),
	}
}

// PriorityClass is a name for how important a pod is.
func priorityClass() *kind.Definition {
	doc := schedulingv1.PriorityClass{}.SwaggerDoc()
	return &kind.Definition{
		Group: schedulingv1.GroupName, Version: "v1", Kind: "PriorityClass", Plural: "priorityclasses", ShortNames: []string{"pc"},
		Scope: kind.Cluster, Verbs: kind.Standard,
		New:            kind.Of[schedulingv1.PriorityClass](),
		Default:        kind.Default(defaultPriorityClass),
		Generation:     kind.Changed(func(c, old *schedulingv1.PriorityClass) bool { return false }),
		Validate:       kind.Validate(validatePriorityClass),
		ValidateUpdate: kind.ValidateUpdate(validatePriorityClassUpdate),
		Columns: kind.Columns{
			{Name: "Value", Type: "integer", Description: doc["value"], Of: kind.Cell(func(c *schedulingv1.PriorityClass) any { return int64(c.Value) })},
			{Name: "Global-Default", Type: "boolean", Description: doc["globalDefault"], Of: kind.Cell(func(c *schedulingv1.PriorityClass) any { return c.GlobalDefault })},
			kind.Age,
			{Name: "PreemptionPolicy", Description: doc["preemptionPolicy"], Of: kind.Cell(func(c *schedulingv1.PriorityClass) any {
				return string(ptr.Deref(c.PreemptionPolicy, ""))
			})},
		},
		ColumnFields: []string{"value", "globalDefault", "preemptionPolicy"},
	}
}

func defaultPriorityClass(c *schedulingv1.PriorityClass) {
	if c.PreemptionPolicy == nil {
		c.PreemptionPolicy = ptr.To(corev1.PreemptLowerPriority)
	}
}

func validatePriorityClass(c *schedulingv1.PriorityClass) field.ErrorList {
	var errs field.ErrorList
	if strings.HasPrefix(c.Name, systemPrefix) {
		if problem := checkSystemClass(c); problem != "" {
			errs = append(errs, field.Forbidden(field.NewPath("metadata", "name"),
				fmt.Sprintf("priority class names with '%s' prefix are reserved for system use only. error: %s", systemPrefix, problem)))
		}
	} else if c.Value > HighestUserPriority {
		errs = append(errs, field.Forbidden(field.NewPath("value"), fmt.Sprintf("maximum allowed value of a user defined priority is %d", HighestUserPriority)))
	}
	return append(errs, checkPreemption(c)...)
}

// checkSystemClass says how c differs from the class of the system that has its name.
func checkSystemClass(c *schedulingv1.PriorityClass) string {
	for _, known := range SystemPriorityClasses() {
		switch {
		case known.Name != c.Name:
			continue
		case known.Value != c.Value:
			return fmt.Sprintf("value of %s PriorityClass must be %d", known.Name, known.Value)
		case known.GlobalDefault != c.GlobalDefault:
			return fmt.Sprintf("globalDefault of %s PriorityClass must be %v", known.Name, known.GlobalDefault)
		}
		return ""
	}
	return c.Name + " is not a known system priority class"
}

func checkPreemption(c *schedulingv1.PriorityClass) field.ErrorList {
	if c.PreemptionPolicy == nil {
		return nil
	}
	return check.RequiredOneOf(*c.PreemptionPolicy, field.NewPath("preemptionPolicy"), corev1.PreemptLowerPriority, corev1.PreemptNever)
}

func validatePriorityClassUpdate(c, old *schedulingv1.PriorityClass) field.ErrorList {
	var errs field.ErrorList
	if c.Value != old.Value {
		errs = append(errs, field.Forbidden(field.NewPath("value"), "may not be changed in an update."))
	}
	return append(errs, check.Immutable(c.PreemptionPolicy, old.PreemptionPolicy, field.NewPath("preemptionPolicy"))...)
}

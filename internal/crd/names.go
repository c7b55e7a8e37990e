package crd

import (
	"fmt"
	"slices"
	"strings"
	"time"

	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// status is the part of a definition's status that follows from its names and those of the others in its group.
func decide(definition *apiextensions.CustomResourceDefinition, others []*apiextensions.CustomResourceDefinition, now time.Time) apiextensions.CustomResourceDefinitionStatus {
	status := *definition.Status.DeepCopy()
	var taken conflicts
	status.AcceptedNames, taken = accept(definition, others)
	set := func(c apiextensions.CustomResourceDefinitionCondition) {
		setCondition(&status, c, now)
	}
	if taken.reason == "" {
		set(condition(apiextensions.NamesAccepted, true, "NoConflicts", "no conflicts found"))
		if !isTrue(&status, apiextensions.Established) {
			set(condition(apiextensions.Established, true, "InitialNamesAccepted", "the initial names have been accepted"))
		}
	} else {
		set(condition(apiextensions.NamesAccepted, false, taken.reason, taken.message))
		if !isTrue(&status, apiextensions.Established) {
			set(condition(apiextensions.Established, false, "NotAccepted", "not all names are accepted"))
		}
	}
	if c := approval(definition); c != nil {
		set(*c)
	}
	return status
}

// conflicts tells of the last conflict found.
type conflicts struct{ reason, message string }

// accept chooses the names that a definition gets: what it asks for, unless another one of its group has it; then
// what it had before.
func accept(definition *apiextensions.CustomResourceDefinition, others []*apiextensions.CustomResourceDefinition) (apiextensions.CustomResourceDefinitionNames, conflicts) {
	has := func(name string, has func(*apiextensions.CustomResourceDefinitionNames) bool) bool {
		return name != "" && slices.ContainsFunc(others, func(o *apiextensions.CustomResourceDefinition) bool {
			return o.Name != definition.Name && o.Spec.Group == definition.Spec.Group && has(&o.Status.AcceptedNames)
		})
	}
	resources := func(name string) bool {
		return has(name, func(n *apiextensions.CustomResourceDefinitionNames) bool {
			return n.Plural == name || n.Singular == name || slices.Contains(n.ShortNames, name)
		})
	}
	kinds := func(name string) bool {
		return has(name, func(n *apiextensions.CustomResourceDefinitionNames) bool { return n.Kind == name || n.ListKind == name })
	}
	want, got := definition.Spec.Names, *definition.Status.AcceptedNames.DeepCopy()
	var found conflicts
	try := func(reason, name string, taken func(string) bool, into *string) {
		if name != *into && taken(name) {
			found = conflicts{reason, fmt.Sprintf("%q is already in use", name)}
			return
		}
		*into = name
	}
	try("PluralConflict", want.Plural, resources, &got.Plural)
	try("SingularConflict", want.Singular, resources, &got.Singular)
	if !slices.Equal(want.ShortNames, got.ShortNames) {
		var errs []string
		for _, short := range want.ShortNames {
			if !slices.Contains(got.ShortNames, short) && resources(short) {
				errs = append(errs, fmt.Sprintf("%q is already in use", short))
			}
		}
		switch {
		case len(errs) == 0:
			got.ShortNames = slices.Clone(want.ShortNames)
		case len(errs) == 1:
			found = conflicts{"ShortNamesConflict", errs[0]}
		default:
			found = conflicts{"ShortNamesConflict", "[" + strings.Join(errs, ", ") + "]"}
		}
	}
	try("KindConflict", want.Kind, kinds, &got.Kind)
	try("ListKindConflict", want.ListKind, kinds, &got.ListKind)
	got.Categories = slices.Clone(want.Categories)
	return got, found
}

const approvedAnnotation = apiextensions.KubeAPIApprovedAnnotation

// approval is the condition of definitions in groups of the Kubernetes project (KEP-1111).
func approval(definition *apiextensions.CustomResourceDefinition) *apiextensions.CustomResourceDefinitionCondition {
	group := definition.Spec.Group
	if group != "k8s.io" && group != "kubernetes.io" && !strings.HasSuffix(group, ".k8s.io") && !strings.HasSuffix(group, ".kubernetes.io") {
		return nil
	}
	const about = "see https://github.com/kubernetes/enhancements/pull/1111"
	c := apiextensions.CustomResourceDefinitionCondition{Type: apiextensions.KubernetesAPIApprovalPolicyConformant, Status: apiextensions.ConditionFalse}
	switch text, has := definition.Annotations[approvedAnnotation]; {
	case !has || text == "":
		c.Reason, c.Message = "MissingAnnotation", fmt.Sprintf("protected groups must have approval annotation %q, %s", approvedAnnotation, about)
	case strings.HasPrefix(text, "unapproved"):
		c.Reason, c.Message = "UnapprovedAnnotation", fmt.Sprintf("not approved: %q", text)
	case strings.HasPrefix(text, "https://") || strings.HasPrefix(text, "http://"):
		c.Status, c.Reason, c.Message = apiextensions.ConditionTrue, "ApprovedAnnotation", "approved in "+text
	default:
		c.Reason, c.Message = "InvalidAnnotation", fmt.Sprintf("protected groups must have approval annotation %q with either a URL or a reason starting with \"unapproved\", %s", approvedAnnotation, about)
	}
	return &c
}

func condition(t apiextensions.CustomResourceDefinitionConditionType, is bool, reason, message string) apiextensions.CustomResourceDefinitionCondition {
	c := apiextensions.CustomResourceDefinitionCondition{Type: t, Status: apiextensions.ConditionFalse, Reason: reason, Message: message}
	if is {
		c.Status = apiextensions.ConditionTrue
	}
	return c
}

// setCondition sets a condition, unless it says the same already; the time of its transition changes only with its status.
//
// Parity: it does not tell the generation that it was set for, so that a change of a schema is followed by no write, and
// the client's next update meets no conflict; see test/handover.
func setCondition(status *apiextensions.CustomResourceDefinitionStatus, c apiextensions.CustomResourceDefinitionCondition, now time.Time) {
	c.LastTransitionTime = metav1.NewTime(now)
	i := slices.IndexFunc(status.Conditions, func(old apiextensions.CustomResourceDefinitionCondition) bool { return old.Type == c.Type })
	if i < 0 {
		status.Conditions = append(status.Conditions, c)
		return
	}
	old := &status.Conditions[i]
	if sameCondition(*old, c) {
		return
	}
	if old.Status == c.Status {
		c.LastTransitionTime = old.LastTransitionTime
	}
	*old = c
}

// sameCondition reports whether two conditions say the same; times do not count.
func sameCondition(a, b apiextensions.CustomResourceDefinitionCondition) bool {
	return a.Type == b.Type && a.Status == b.Status && a.Reason == b.Reason && a.Message == b.Message
}

func isTrue(status *apiextensions.CustomResourceDefinitionStatus, t apiextensions.CustomResourceDefinitionConditionType) bool {
	for i := range status.Conditions {
		if status.Conditions[i].Type == t {
			return status.Conditions[i].Status == apiextensions.ConditionTrue
		}
	}
	return false
}

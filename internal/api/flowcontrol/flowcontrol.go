// Package flowcontrol holds the kinds of flowcontrol.apiserver.k8s.io, which say how requests share the server (API Priority
// and Fairness): FlowSchema and PriorityLevelConfiguration, a file each.
//
// Promises: every function is pure. Start reading at prioritylevelconfiguration.go.
package flowcontrol

import (
	"github.com/timonel/timonel/internal/api/check"
	"github.com/timonel/timonel/internal/kind"
	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
)

const group = flowcontrolv1.GroupName

// Definitions lists the kinds of the group in alphabetical order, as discovery does.
func Definitions() []*kind.Definition {
	return []*kind.Definition{flowSchema(), priorityLevelConfiguration()}
}

// The mandatory objects are what the server falls back on; their specs cannot be changed (Kubernetes documentation,
// "Mandatory Configuration Objects").
func mandatorySchema(name string) *flowcontrolv1.FlowSchemaSpec {
	all := []string{"*"}
	rules := func(groups ...string) []flowcontrolv1.PolicyRulesWithSubjects {
		r := flowcontrolv1.PolicyRulesWithSubjects{
			ResourceRules:    []flowcontrolv1.ResourcePolicyRule{{Verbs: all, APIGroups: all, Resources: all, ClusterScope: true, Namespaces: all}},
			NonResourceRules: []flowcontrolv1.NonResourcePolicyRule{{Verbs: all, NonResourceURLs: all}},
		}
		for _, g := range groups {
			r.Subjects = append(r.Subjects, flowcontrolv1.Subject{Kind: flowcontrolv1.SubjectKindGroup, Group: &flowcontrolv1.GroupSubject{Name: g}})
		}
		return []flowcontrolv1.PolicyRulesWithSubjects{r}
	}
	switch name {
	case flowcontrolv1.FlowSchemaNameExempt:
		return &flowcontrolv1.FlowSchemaSpec{
			PriorityLevelConfiguration: flowcontrolv1.PriorityLevelConfigurationReference{Name: flowcontrolv1.PriorityLevelConfigurationNameExempt},
			MatchingPrecedence:         1, Rules: rules("system:masters"),
		}
	case flowcontrolv1.FlowSchemaNameCatchAll:
		return &flowcontrolv1.FlowSchemaSpec{
			PriorityLevelConfiguration: flowcontrolv1.PriorityLevelConfigurationReference{Name: flowcontrolv1.PriorityLevelConfigurationNameCatchAll},
			MatchingPrecedence:         flowcontrolv1.FlowSchemaMaxMatchingPrecedence,
			DistinguisherMethod:        &flowcontrolv1.FlowDistinguisherMethod{Type: flowcontrolv1.FlowDistinguisherMethodByUserType},
			Rules:                      rules("system:unauthenticated", "system:authenticated"),
		}
	}
	return nil
}

func mandatoryLevel(name string) *flowcontrolv1.PriorityLevelConfigurationSpec {
	if name != flowcontrolv1.PriorityLevelConfigurationNameCatchAll {
		return nil
	}
	return &flowcontrolv1.PriorityLevelConfigurationSpec{
		Type: flowcontrolv1.PriorityLevelEnablementLimited,
		Limited: &flowcontrolv1.LimitedPriorityLevelConfiguration{
			NominalConcurrencyShares: ptr.To[int32](5), LendablePercent: ptr.To[int32](0),
			LimitResponse: flowcontrolv1.LimitResponse{Type: flowcontrolv1.LimitResponseTypeReject},
		},
	}
}

// checkConditions checks the conditions of a status: type is that of the i-th.
func checkConditions(n int, typeOf func(i int) (string, flowcontrolv1.ConditionStatus)) field.ErrorList {
	path := field.NewPath("status", "conditions")
	var errs field.ErrorList
	seen := map[string]bool{}
	for i := range n {
		t, status := typeOf(i)
		at := path.Index(i)
		if seen[t] {
			errs = append(errs, field.Duplicate(at.Child("type"), t))
		}
		seen[t] = true
		errs = append(errs, check.RequiredForm(t, at.Child("type"), check.QualifiedName)...)
		errs = append(errs, check.RequiredOneOf(status, at.Child("status"), flowcontrolv1.ConditionFalse, flowcontrolv1.ConditionTrue, flowcontrolv1.ConditionUnknown)...)
	}
	return errs
}

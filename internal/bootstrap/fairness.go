package bootstrap

import (
	"fmt"
	"time"

	"github.com/timonel/timonel/internal/object"
	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

// autoupdateSpec is the annotation of flow control objects whose spec the server keeps as it should be while it is "true".
const autoupdateSpec = flowcontrolv1.AutoUpdateAnnotationKey

func flowMeta(name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Name: name, Generation: 1, Annotations: map[string]string{autoupdateSpec: "true"}}
}

// PriorityLevels returns the default PriorityLevelConfigurations (docs: "API
// Priority and Fairness", defaults).
func PriorityLevels() []object.Object {
	limited := func(name string, shares, lendable int32, queues, hand int32) object.Object {
		response := flowcontrolv1.LimitResponse{Type: flowcontrolv1.LimitResponseTypeReject}
		if queues > 0 {
			response = flowcontrolv1.LimitResponse{Type: flowcontrolv1.LimitResponseTypeQueue,
				Queuing: &flowcontrolv1.QueuingConfiguration{Queues: queues, HandSize: hand, QueueLengthLimit: 50}}
		}
		return &flowcontrolv1.PriorityLevelConfiguration{ObjectMeta: flowMeta(name), Spec: flowcontrolv1.PriorityLevelConfigurationSpec{
			Type: flowcontrolv1.PriorityLevelEnablementLimited,
			Limited: &flowcontrolv1.LimitedPriorityLevelConfiguration{
				NominalConcurrencyShares: ptr.To(shares), LendablePercent: ptr.To(lendable), LimitResponse: response}}}
	}
	exempt := &flowcontrolv1.PriorityLevelConfiguration{ObjectMeta: flowMeta("exempt"), Spec: flowcontrolv1.PriorityLevelConfigurationSpec{
		Type:   flowcontrolv1.PriorityLevelEnablementExempt,
		Exempt: &flowcontrolv1.ExemptPriorityLevelConfiguration{NominalConcurrencyShares: ptr.To(int32(0)), LendablePercent: ptr.To(int32(0))}}}
	return []object.Object{
		exempt,
		limited("system", 30, 33, 64, 6),
		limited("node-high", 40, 25, 64, 6),
		limited("leader-election", 10, 0, 16, 4),
		limited("workload-high", 40, 50, 128, 6),
		limited("workload-low", 100, 90, 128, 6),
		limited("global-default", 20, 50, 128, 6),
		limited("catch-all", 5, 0, 0, 0),
	}
}

// FlowSchemas returns the default FlowSchemas.
func FlowSchemas(now time.Time) []object.Object {
	const byUser, byNamespace = flowcontrolv1.FlowDistinguisherMethodByUserType, flowcontrolv1.FlowDistinguisherMethodByNamespaceType
	all := []string{"*"}
	everything := flowcontrolv1.PolicyRulesWithSubjects{
		ResourceRules:    []flowcontrolv1.ResourcePolicyRule{{Verbs: all, APIGroups: all, Resources: all, ClusterScope: true, Namespaces: all}},
		NonResourceRules: []flowcontrolv1.NonResourcePolicyRule{{Verbs: all, NonResourceURLs: all}},
	}
	to := func(rules flowcontrolv1.PolicyRulesWithSubjects, subjects ...flowcontrolv1.Subject) flowcontrolv1.PolicyRulesWithSubjects {
		rules.Subjects = subjects
		return rules
	}
	schema := func(name string, precedence int32, level string, by flowcontrolv1.FlowDistinguisherMethodType, rules flowcontrolv1.PolicyRulesWithSubjects) object.Object {
		s := &flowcontrolv1.FlowSchema{ObjectMeta: flowMeta(name), Spec: flowcontrolv1.FlowSchemaSpec{
			PriorityLevelConfiguration: flowcontrolv1.PriorityLevelConfigurationReference{Name: level},
			MatchingPrecedence:         precedence,
			Rules:                      []flowcontrolv1.PolicyRulesWithSubjects{rules},
		}}
		if by != "" {
			s.Spec.DistinguisherMethod = &flowcontrolv1.FlowDistinguisherMethod{Type: by}
		}
		s.Status.Conditions = []flowcontrolv1.FlowSchemaCondition{{Type: flowcontrolv1.FlowSchemaConditionDangling,
			Status: flowcontrolv1.ConditionFalse, LastTransitionTime: metav1.NewTime(now), Reason: "Found",
			Message: fmt.Sprintf("This FlowSchema references the PriorityLevelConfiguration object named %q and it exists", level)}}
		return s
	}
	group := func(name string) flowcontrolv1.Subject {
		return flowcontrolv1.Subject{Kind: flowcontrolv1.SubjectKindGroup, Group: &flowcontrolv1.GroupSubject{Name: name}}
	}
	user := func(name string) flowcontrolv1.Subject {
		return flowcontrolv1.Subject{Kind: flowcontrolv1.SubjectKindUser, User: &flowcontrolv1.UserSubject{Name: name}}
	}
	systemAccounts := flowcontrolv1.Subject{Kind: flowcontrolv1.SubjectKindServiceAccount,
		ServiceAccount: &flowcontrolv1.ServiceAccountSubject{Namespace: "kube-system", Name: "*"}}
	leases := []string{"coordination.k8s.io"}
	everyone := []flowcontrolv1.Subject{group("system:unauthenticated"), group("system:authenticated")}
	return []object.Object{
		schema("exempt", 1, "exempt", "", to(everything, group("system:masters"))),
		schema("probes", 2, "exempt", "", to(flowcontrolv1.PolicyRulesWithSubjects{
			NonResourceRules: []flowcontrolv1.NonResourcePolicyRule{{Verbs: []string{"get"}, NonResourceURLs: []string{"/healthz", "/readyz", "/livez"}}},
		}, everyone...)),
		schema("system-leader-election", 100, "leader-election", byUser, to(flowcontrolv1.PolicyRulesWithSubjects{
			ResourceRules: []flowcontrolv1.ResourcePolicyRule{{Verbs: []string{"get", "create", "update"}, APIGroups: leases, Resources: []string{"leases"}, Namespaces: all}},
		}, user("system:kube-controller-manager"), user("system:kube-scheduler"), systemAccounts)),
		schema("system-node-high", 400, "node-high", byUser, to(flowcontrolv1.PolicyRulesWithSubjects{
			ResourceRules: []flowcontrolv1.ResourcePolicyRule{
				{Verbs: all, APIGroups: []string{""}, Resources: []string{"nodes", "nodes/status"}, ClusterScope: true, Namespaces: all},
				{Verbs: all, APIGroups: leases, Resources: []string{"leases"}, Namespaces: all}},
		}, group("system:nodes"))),
		schema("system-nodes", 500, "system", byUser, to(everything, group("system:nodes"))),
		schema("kube-controller-manager", 800, "workload-high", byNamespace, to(everything, user("system:kube-controller-manager"))),
		schema("kube-scheduler", 800, "workload-high", byNamespace, to(everything, user("system:kube-scheduler"))),
		schema("kube-system-service-accounts", 900, "workload-high", byNamespace, to(everything, systemAccounts)),
		schema("service-accounts", 9000, "workload-low", byUser, to(everything, group("system:serviceaccounts"))),
		schema("global-default", 9900, "global-default", byUser, to(everything, everyone...)),
		schema("catch-all", 10000, "catch-all", byUser, to(everything, everyone...)),
	}
}

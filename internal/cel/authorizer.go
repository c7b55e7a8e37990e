package cel

import (
	celgo "github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/types"
)

// The types of the authorizer library: an authorizer is asked step by step about a path or a resource, and a decision is what
// it says ("Kubernetes authorizer library").
var (
	AuthorizerType    = types.NewOpaqueType("kubernetes.authorization.Authorizer")
	ResourceCheckType = types.NewOpaqueType("kubernetes.authorization.ResourceCheck")
	pathCheckType     = types.NewOpaqueType("kubernetes.authorization.PathCheck")
	groupCheckType    = types.NewOpaqueType("kubernetes.authorization.GroupCheck")
	decisionType      = types.NewOpaqueType("kubernetes.authorization.Decision")
)

// Authorizer declares the functions of the authorizer library. Who runs expressions that use them binds them to an authorizer: they
// are declared without code, since they are about the request that is being decided.
func Authorizer() celgo.EnvOption {
	member := func(name, id string, result *celgo.Type, owner *celgo.Type, arguments ...*celgo.Type) celgo.EnvOption {
		return celgo.Function(name, celgo.MemberOverload(id, append(takes(owner), arguments...), result))
	}
	s := celgo.StringType
	return options(
		member("path", "authorizer_path", pathCheckType, AuthorizerType, s),
		member("group", "authorizer_group", groupCheckType, AuthorizerType, s),
		member("serviceAccount", "authorizer_serviceaccount", AuthorizerType, AuthorizerType, s, s),
		member("resource", "groupcheck_resource", ResourceCheckType, groupCheckType, s),
		member("subresource", "resourcecheck_subresource", ResourceCheckType, ResourceCheckType, s),
		member("namespace", "resourcecheck_namespace", ResourceCheckType, ResourceCheckType, s),
		member("name", "resourcecheck_name", ResourceCheckType, ResourceCheckType, s),
		member("fieldSelector", "authorizer_fieldselector", ResourceCheckType, ResourceCheckType, s),
		member("labelSelector", "authorizer_labelselector", ResourceCheckType, ResourceCheckType, s),
		celgo.Function("check",
			celgo.MemberOverload("pathcheck_check", takes(pathCheckType, s), decisionType),
			celgo.MemberOverload("resourcecheck_check", takes(ResourceCheckType, s), decisionType)),
		member("errored", "decision_errored", celgo.BoolType, decisionType),
		member("error", "decision_error", s, decisionType),
		member("allowed", "decision_allowed", celgo.BoolType, decisionType),
		member("reason", "decision_reason", s, decisionType),
	)
}

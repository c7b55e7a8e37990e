// Package policy knows the expressions of admission policies and of match conditions: what they can refer to and
// what they must evaluate to (KEP-3488, KEP-3962, KEP-3716). It checks them when they are written.
//
// Promises: nothing is made before the first expression; the language of each scope is made once and shared; variables are typed in the
// order in which they are declared. Does not know: the language itself (package cel), requests, how a decision is made.
// Start reading at Scope, in compile.go.
package policy

import (
	celgo "github.com/google/cel-go/cel"
	"github.com/timonel/timonel/internal/cel"
)

// requestType is AdmissionRequest without the objects (admission/v1).
func requestType() *cel.Type {
	names := func(last string) map[string]*cel.Type {
		return map[string]*cel.Type{"group": cel.AnyText(), "version": cel.AnyText(), last: cel.AnyText()}
	}
	kind := cel.Object("kubernetes.GroupVersionKind", names("kind"))
	resource := cel.Object("kubernetes.GroupVersionResource", names("resource"))
	texts := cel.ListOf(cel.AnyText(), 0)
	return cel.Object("kubernetes.AdmissionRequest", map[string]*cel.Type{
		"kind": kind, "resource": resource, "subResource": cel.AnyText(),
		"requestKind": kind, "requestResource": resource, "requestSubResource": cel.AnyText(),
		"name": cel.AnyText(), "namespace": cel.AnyText(), "operation": cel.AnyText(), "dryRun": cel.Scalar(celgo.BoolType), "options": cel.Dyn(),
		"userInfo": cel.Object("kubernetes.UserInfo", map[string]*cel.Type{
			"username": cel.AnyText(), "uid": cel.AnyText(), "groups": texts, "extra": cel.MapOf(cel.AnyText(), texts, 0),
		}),
	})
}

// namespaceType is what policies see of a Namespace.
func namespaceType() *cel.Type {
	texts, labels := cel.ListOf(cel.AnyText(), 0), cel.MapOf(cel.AnyText(), cel.AnyText(), 0)
	time, number := cel.Scalar(celgo.TimestampType), cel.Scalar(celgo.IntType)
	return cel.Object("kubernetes.Namespace", map[string]*cel.Type{
		"metadata": cel.Object("kubernetes.NamespaceMetadata", map[string]*cel.Type{
			"name": cel.AnyText(), "generateName": cel.AnyText(), "namespace": cel.AnyText(), "labels": labels, "annotations": labels, "UID": cel.AnyText(),
			"creationTimestamp": time, "deletionGracePeriodSeconds": number, "deletionTimestamp": time, "generation": number,
			"resourceVersion": cel.AnyText(), "finalizers": texts,
		}),
		"spec":   cel.Object("kubernetes.NamespaceSpec", map[string]*cel.Type{"finalizers": texts}),
		"status": cel.Object("kubernetes.NamespaceStatus", map[string]*cel.Type{"phase": cel.AnyText()}),
	})
}

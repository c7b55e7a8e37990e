package kind

import (
	"testing"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

func TestLayout(t *testing.T) {
	l := NewLayout("/registry", []*Definition{
		{Version: "v1", Kind: "Secret", Plural: "secrets", Scope: Namespaced, Verbs: Standard},
		{Version: "v1", Kind: "Service", Plural: "services", Scope: Namespaced, Verbs: Standard, Stored: Stored{Prefix: "services/specs"}},
		{Group: "apiregistration.k8s.io", Version: "v1", Kind: "APIService", Plural: "apiservices", Verbs: Standard, Stored: Stored{Prefix: "apiregistration.k8s.io/apiservices"}},
		{Group: "apps", Version: "v1", Kind: "Deployment", Plural: "deployments", Scope: Namespaced, Verbs: Standard},
	})
	check := func(key, group, resource string) {
		t.Helper()
		if got, want := l.Resource(key), (schema.GroupResource{Group: group, Resource: resource}); got != want {
			t.Errorf("%s: %v, want %v", key, got, want)
		}
	}
	check("/registry/secrets/ns/a", "", "secrets")
	check("/registry/services/specs/ns/a", "", "services")
	check("/registry/services/endpoints/ns/a", "", "services") // no such kind here: the first part
	check("/registry/deployments/ns/a", "apps", "deployments")
	check("/registry/apiregistration.k8s.io/apiservices/v1.", "apiregistration.k8s.io", "apiservices")
	check("/registry/example.com/boats/ns/a", "example.com", "boats")
	check("/registry/example.com/boats/a", "example.com", "boats")
	check("/registry/ranges/servicenodeports", "", "servicenodeportallocations")
	check("/registry/masterleases/10.0.0.1", "", "apiserveripinfo")
	check("/registry/unheard/of", "", "unheard")
	check("/registry/", "", "")
	check("compact_rev_key", "", "")
	check("/other/secrets/ns/a", "", "")
}

package policy

import (
	"strings"
	"testing"

	api "github.com/timonel/timonel/internal/api/admissionregistration"
)

func TestCheck(t *testing.T) {
	all := Scope{Params: true, Mutation: true}
	check := func(scope Scope, returns Result, text, want string) {
		t.Helper()
		got := Checker(scope).Check(text, returns)
		if want == "" && got != "" || want != "" && !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
	for _, text := range []string{
		`object.spec.replicas > 1 && oldObject == null && request.operation == "CREATE"`,
		`request.userInfo.groups.exists(g, g == "x") && request.userInfo.extra["a"][0] == "b" && !request.dryRun && request.options.x == 1`,
		`request.kind.kind == "Pod" && request.requestResource.resource == "pods" && request.namespace == "a" && request.subResource == ""`,
		`namespaceObject.metadata.labels["a"] == "b" && namespaceObject.status.phase == "Active" && namespaceObject.metadata.creationTimestamp > timestamp("2020-01-01T00:00:00Z")`,
		`authorizer.group("apps").resource("deployments").namespace("x").name("y").check("update").allowed()`,
		`authorizer.requestResource.check("custom").allowed() && authorizer.serviceAccount("a", "b").path("/x").check("get").errored()`,
	} {
		check(Scope{}, api.Bool, text, "")
	}
	check(Scope{Params: true}, api.Bool, `params.data.max == object.x`, "")
	check(Scope{}, api.Bool, `params.data.max == object.x`, "undeclared reference to 'params'")
	check(Scope{}, api.Bool, `request.object == null`, "undefined field 'object'")
	check(Scope{}, api.Bool, `namespaceObject.metadata.nope == ""`, "undefined field 'nope'")
	check(Scope{}, api.Bool, `1`, "must evaluate to bool but got int")
	check(Scope{}, api.Bool, `object.x`, "must evaluate to bool but got dyn")
	check(Scope{}, api.String, `"a" + object.metadata.name`, "")
	check(Scope{}, api.StringOrNull, `null`, "")
	check(Scope{}, api.StringOrNull, `1`, "must evaluate to one of [string null_type]")
	check(Scope{}, api.Bool, `Object{} == Object{}`, "undeclared reference to 'Object'")
	check(all, api.Object, `Object{spec: Object.spec{replicas: params.x, template: Object.spec.template{}}}`, "")
	check(all, api.Object, `object.x == 1 ? Object{} : Object{metadata: Object.metadata{labels: {"a": "b"}}}`, "")
	check(all, api.Object, `1`, "must evaluate to Object but got int")
	check(all, api.Patches, `[JSONPatch{op: "add", path: "/data/" + jsonpatch.escapeKey("a/b"), value: Object.spec{x: 1}}]`, "")
	check(all, api.Patches, `[]`, "must evaluate to list(JSONPatch) but got list(dyn)")
	check(all, api.Patches, `[JSONPatch{op: 1}]`, "expected type of field 'op' is 'string' but provided type is 'int'")
}

// A variable has the type of its expression, and is known to those after it only.
func TestVariables(t *testing.T) {
	c := Checker(Scope{Variables: true})
	check := func(got, want string) {
		t.Helper()
		if want == "" && got != "" || want != "" && !strings.Contains(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
	}
	check(c.Declare("first", `variables.second`), "undefined field 'second'")
	check(c.Declare("number", `size(object.spec.containers)`), "")
	check(c.Declare("twice", `variables.number * 2`), "")
	check(c.Declare("namespace", `request.namespace`), "")
	check(c.Check(`variables.twice > 3 && variables.namespace == "a"`, api.Bool), "")
	check(c.Check(`variables.twice + "a" == ""`, api.Bool), "no matching overload for '_+_' applied to '(int, string)'")
	check(c.Check(`variables.nope`, api.Bool), "undefined field 'nope'")
	check(Checker(Scope{}).Check(`variables.number > 1`, api.Bool), "undeclared reference to 'variables'")
}

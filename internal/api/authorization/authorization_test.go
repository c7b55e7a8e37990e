package authorization

import (
	"context"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/timonel/timonel/internal/authz"
	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	"github.com/timonel/timonel/internal/user"
	authorizationv1 "k8s.io/api/authorization/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

// recorder remembers what it was asked and lets jane get pods.
type recorder struct{ asked *authz.Attributes }

func (r *recorder) Authorize(_ context.Context, a *authz.Attributes) (authz.Decision, string, error) {
	r.asked = a
	switch a.User.Name {
	case "jane":
		return authz.Allow, "because", nil
	case "joe":
		return authz.Deny, "never", nil
	case "error":
		return authz.NoOpinion, "", errors.New("broken")
	}
	return authz.NoOpinion, "", nil
}

func definition(t *testing.T, authorizer authz.Authorizer, kindName string) *kind.Definition {
	t.Helper()
	for _, d := range Definitions(authorizer) {
		if d.Kind == kindName {
			d.Complete()
			return d
		}
	}
	t.Fatalf("no kind %s", kindName)
	return nil
}

// TestReviews is corpus verbs/accessreviews, and more.
func TestReviews(t *testing.T) {
	const sar, self, local = "SubjectAccessReview", "SelfSubjectAccessReview", "LocalSubjectAccessReview"
	for _, c := range []struct{ name, kind, body, status, err string }{
		{"allowed", sar, `spec: {user: jane, resourceAttributes: {verb: get, resource: pods}}`, `{"allowed":true,"reason":"because"}`, ""},
		{"denied", sar, `spec: {user: joe, resourceAttributes: {verb: get, resource: pods}}`, `{"allowed":false,"denied":true,"reason":"never"}`, ""},
		{"no opinion", sar, `spec: {groups: [g], nonResourceAttributes: {verb: get, path: /api}}`, `{"allowed":false}`, ""},
		{"broken", sar, `spec: {user: error, resourceAttributes: {}}`, `{"allowed":false,"evaluationError":"broken"}`, ""},
		{"unreadable selector", sar, `spec: {user: jane, resourceAttributes: {fieldSelector: {rawSelector: "a=b,c~"}}}`,
			`{"allowed":true,"reason":"because","evaluationError":"spec.resourceAttributes.fieldSelector ignored due to parse error"}`, ""},
		{"no attributes", sar, `spec: {user: u}`, "",
			`.authorization.k8s.io "" is invalid: spec: Invalid value: null: exactly one of nonResourceAttributes or resourceAttributes must be specified`},
		{"no user", sar, `spec: {resourceAttributes: {verb: get}}`, "", `.authorization.k8s.io "" is invalid: spec.user: Invalid value: "": at least one of user or group must be specified`},
		{"both attributes", sar, `spec: {user: u, resourceAttributes: {verb: get}, nonResourceAttributes: {path: /}}`, "",
			`.authorization.k8s.io "" is invalid: spec: Invalid value: {"Path":"/","Verb":""}: exactly one of nonResourceAttributes or resourceAttributes must be specified`},
		{"with metadata", sar, "metadata: {labels: {a: b}, creationTimestamp: 2026-01-01T00:00:00Z}\nspec: {user: u, resourceAttributes: {verb: get}}", "",
			`.authorization.k8s.io "" is invalid: metadata: Invalid value: {"labels":{"a":"b"}}: must be empty`},
		{"what the server filled in", sar, "metadata: {managedFields: [{manager: m}], creationTimestamp: 2026-01-01T00:00:00Z}\nspec: {user: jane, resourceAttributes: {verb: get}}", `{"allowed":true,"reason":"because"}`, ""},
		{"two selectors", sar, `spec: {user: u, resourceAttributes: {labelSelector: {rawSelector: a, requirements: [{key: a, operator: Exists}]}}}`, "", "may not specified at the same time as requirements"},
		{"empty selector", sar, `spec: {user: u, resourceAttributes: {labelSelector: {}}}`, "", "requirements or rawSelector is required"},
		{"wrong requirement", sar, `spec: {user: u, resourceAttributes: {fieldSelector: {requirements: [{operator: In}, {key: a, operator: Exists, values: [b]}, {key: a, operator: Like}]}}}`, "",
			"[spec.resourceAttributes.fieldSelector.requirements[0].key: Required value"},
		{"self", self, `spec: {resourceAttributes: {verb: get, resource: pods}}`, `{"allowed":true,"reason":"because"}`, ""},
		{"self empty", self, `spec: {}`, "",
			`.authorization.k8s.io "" is invalid: spec: Invalid value: null: exactly one of nonResourceAttributes or resourceAttributes must be specified`},
		{"local", local, "metadata: {namespace: ns}\nspec: {user: jane, resourceAttributes: {namespace: ns, verb: get}}", `{"allowed":true,"reason":"because"}`, ""},
		{"local in other namespace", local, "metadata: {namespace: ns}\nspec: {user: jane, resourceAttributes: {namespace: other}}", "",
			`.authorization.k8s.io "" is invalid: spec.resourceAttributes.namespace: Invalid value: "other": must match metadata.namespace`},
		{"local non resource", local, `spec: {user: u, nonResourceAttributes: {path: /x}}`, "",
			`.authorization.k8s.io "" is invalid: spec.nonResourceAttributes: Invalid value: {"Path":"/x","Verb":""}: disallowed on this kind of request`},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := definition(t, &recorder{}, c.kind)
			obj := d.New()
			if err := yaml.Unmarshal([]byte(c.body), obj); err != nil {
				t.Fatal(err)
			}
			ctx := user.With(t.Context(), &user.Info{Name: "jane"})
			answer, err := d.Virtual(ctx, "ns", obj)
			if c.err != "" {
				if !apierrors.IsInvalid(err) || err.Error() != c.err && (strings.HasPrefix(c.err, ".auth") || !strings.Contains(err.Error(), c.err)) {
					t.Errorf("got  %v\nwant %s", err, c.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			status, _ := json.Marshal(statusOf(answer))
			if string(status) != c.status {
				t.Errorf("got %s, want %s", status, c.status)
			}
		})
	}
}

func statusOf(obj object.Object) any {
	switch o := obj.(type) {
	case *authorizationv1.SubjectAccessReview:
		return o.Status
	case *authorizationv1.SelfSubjectAccessReview:
		return o.Status
	case *authorizationv1.LocalSubjectAccessReview:
		return o.Status
	}
	return nil
}

func TestQuestionReachesTheAuthorizer(t *testing.T) {
	r := &recorder{}
	obj := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
		User: "u", UID: "1", Groups: []string{"g"}, Extra: map[string]authorizationv1.ExtraValue{"k": {"v"}},
		ResourceAttributes: &authorizationv1.ResourceAttributes{Verb: "list", Group: "apps", Version: "v1", Resource: "deployments", Subresource: "scale", Namespace: "n", Name: "x",
			FieldSelector: &authorizationv1.FieldSelectorAttributes{Requirements: []metav1.FieldSelectorRequirement{{Key: "spec.nodeName", Operator: metav1.FieldSelectorOpIn, Values: []string{"me"}}}},
			LabelSelector: &authorizationv1.LabelSelectorAttributes{RawSelector: "a in (b)"}},
	}}
	if _, err := definition(t, r, "SubjectAccessReview").Virtual(t.Context(), "", obj); err != nil {
		t.Fatal(err)
	}
	a := *r.asked
	if !reflect.DeepEqual(a.User, &user.Info{Name: "u", UID: "1", Groups: []string{"g"}, Extra: map[string][]string{"k": {"v"}}}) {
		t.Errorf("%+v", a.User)
	}
	if len(a.Fields) != 1 || a.Fields[0].Value != "me" || len(a.Labels) != 1 || a.Labels[0].String() != "a in (b)" {
		t.Errorf("%v %v", a.Fields, a.Labels)
	}
	a.User, a.Fields, a.Labels = nil, nil, nil
	if want := (authz.Attributes{Verb: "list", Group: "apps", Version: "v1", Resource: "deployments", Subresource: "scale", Namespace: "n", Name: "x"}); !reflect.DeepEqual(a, want) {
		t.Errorf("%+v", a)
	}
}

func TestRulesReview(t *testing.T) {
	rbac := authz.NewRBAC()
	rbac.Reset([]object.Object{
		&rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "r"}, Rules: []rbacv1.PolicyRule{
			{Verbs: []string{"get"}, APIGroups: []string{""}, Resources: []string{"pods"}, ResourceNames: []string{"a"}}, {Verbs: []string{"get"}, NonResourceURLs: []string{"/x"}}}},
		&rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "b"}, RoleRef: rbacv1.RoleRef{Kind: "ClusterRole", Name: "r"}, Subjects: []rbacv1.Subject{{Kind: "User", Name: "jane"}}},
		&rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "c"}, RoleRef: rbacv1.RoleRef{Kind: "ClusterRole", Name: "gone"}, Subjects: []rbacv1.Subject{{Kind: "User", Name: "joe"}}},
	})
	d := definition(t, authz.Chain{authz.Masters{}, authz.NewNode(), rbac}, "SelfSubjectRulesReview")
	review := func(u *user.Info, namespace string) (string, error) {
		answer, err := d.Virtual(user.With(t.Context(), u), "", &authorizationv1.SelfSubjectRulesReview{Spec: authorizationv1.SelfSubjectRulesReviewSpec{Namespace: namespace}})
		if err != nil {
			return "", err
		}
		status, _ := json.Marshal(answer.(*authorizationv1.SelfSubjectRulesReview).Status)
		return string(status), nil
	}
	for _, c := range []struct {
		user *user.Info
		want string
	}{
		{&user.Info{Name: "jane"}, `{"resourceRules":[{"verbs":["get"],"apiGroups":[""],"resources":["pods"],"resourceNames":["a"]}],"nonResourceRules":[{"verbs":["get"],"nonResourceURLs":["/x"]}],"incomplete":false}`},
		{&user.Info{Name: "joe"}, `{"resourceRules":[],"nonResourceRules":[],"incomplete":true,"evaluationError":"clusterrole.rbac.authorization.k8s.io \"gone\" not found"}`},
		{&user.Info{Name: "system:node:n", Groups: []string{"system:nodes"}}, `{"resourceRules":[],"nonResourceRules":[],"incomplete":true,"evaluationError":"node authorizer does not support user rule resolution"}`},
	} {
		if got, err := review(c.user, "ns"); err != nil || got != c.want {
			t.Errorf("got  %s %v\nwant %s", got, err, c.want)
		}
	}
	if _, err := review(&user.Info{Name: "jane"}, ""); !apierrors.IsBadRequest(err) {
		t.Errorf("%v", err)
	}
}

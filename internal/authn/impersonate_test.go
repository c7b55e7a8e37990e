package authn

import (
	"context"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/timonel/timonel/internal/authz"
	"github.com/timonel/timonel/internal/user"
)

// rights are what an impersonator may do: "verb group/resource[/sub]=name@namespace".
type rights []string

func (r rights) Authorize(_ context.Context, a *authz.Attributes) (authz.Decision, string, error) {
	text := a.Verb + " " + a.Group + "/" + a.Resource
	if a.Subresource != "" {
		text += "/" + a.Subresource
	}
	text += "=" + a.Name
	if a.Namespace != "" {
		text += "@" + a.Namespace
	}
	if slices.Contains(r, "*") || slices.Contains(r, text) {
		return authz.Allow, "", nil
	}
	return authz.NoOpinion, "", nil
}

func headers(lines ...string) http.Header {
	h := http.Header{}
	for _, l := range lines {
		name, value, _ := strings.Cut(l, ": ")
		h.Add(name, value)
	}
	return h
}

// TestImpersonation is corpus authz/impersonation, and the documentation's examples.
func TestImpersonation(t *testing.T) {
	robot := &user.Info{Name: "system:serviceaccount:ns:robot", Extra: map[string][]string{nodeNameExtra: {"mine"}}}
	all := rights{"*"}
	list := &authz.Attributes{Verb: "list", Resource: "pods", Namespace: "ns"}
	for _, c := range []struct {
		name    string
		headers http.Header
		rights  rights
		target  *authz.Attributes
		want    string // user and groups, or the error
	}{
		{"nothing", headers("Accept: x"), nil, nil, robot.Name + " "},
		{"user", headers("Impersonate-User: jane"), all, nil, "jane system:authenticated"},
		{"user and groups", headers("Impersonate-User: jane", "Impersonate-Group: a", "Impersonate-Group: b"), all, nil, "jane a,b,system:authenticated"},
		{"service account", headers("Impersonate-User: system:serviceaccount:ns:default"), all, nil,
			"system:serviceaccount:ns:default system:serviceaccounts,system:serviceaccounts:ns,system:authenticated"},
		{"group only", headers("Impersonate-Group: g"), all, nil,
			`requested &user.DefaultInfo{Name:"", UID:"", Groups:[]string{"g"}, Extra:map[string][]string(nil)} without impersonating a user name`},
		{"uid only", headers("Impersonate-Uid: 42"), all, nil,
			`requested &user.DefaultInfo{Name:"", UID:"42", Groups:[]string(nil), Extra:map[string][]string(nil)} without impersonating a user name`},
		{"anonymous", headers("Impersonate-User: system:anonymous"), all, nil, "system:anonymous system:unauthenticated"},
		{"masters", headers("Impersonate-User: x", "Impersonate-Group: system:masters"), all, nil, "x system:masters,system:authenticated"},
		{"explicit authenticated", headers("Impersonate-User: x", "Impersonate-Group: system:authenticated"), all, nil, "x system:authenticated"},
		{"unauthenticated group", headers("Impersonate-User: x", "Impersonate-Group: system:unauthenticated"), all, nil, "x system:unauthenticated"},
		{"allowed user", headers("Impersonate-User: jane"), rights{"impersonate /users=jane"}, list, "jane system:authenticated"},
		{"forbidden user", headers("Impersonate-User: joe"), rights{"impersonate /users=jane"}, list,
			`users "joe" is forbidden: User "system:serviceaccount:ns:robot" cannot impersonate resource "users" in API group "" at the cluster scope`},
		{"forbidden group", headers("Impersonate-User: jane", "Impersonate-Group: g"), rights{"impersonate /users=jane"}, list,
			`groups "g" is forbidden: User "system:serviceaccount:ns:robot" cannot impersonate resource "groups" in API group "" at the cluster scope`},
		{"forbidden service account", headers("Impersonate-User: system:serviceaccount:a:b"), nil, list,
			`serviceaccounts "b" is forbidden: User "system:serviceaccount:ns:robot" cannot impersonate resource "serviceaccounts" in API group "" in the namespace "a"`},
		{"uid and extra", headers("Impersonate-User: u", "Impersonate-Uid: 42", "Impersonate-Extra-Scopes: view"),
			rights{"impersonate /users=u", "impersonate authentication.k8s.io/uids=42", "impersonate authentication.k8s.io/userextras/scopes=view"}, nil, "u system:authenticated"},
		{"forbidden extra", headers("Impersonate-User: u", "Impersonate-Extra-Scopes: edit"), rights{"impersonate /users=u"}, nil,
			`userextras.authentication.k8s.io "edit" is forbidden: User "system:serviceaccount:ns:robot" cannot impersonate resource "userextras/scopes" in API group "authentication.k8s.io" at the cluster scope`},

		{"constrained user", headers("Impersonate-User: jane"),
			rights{"impersonate:user-info authentication.k8s.io/users=jane", "impersonate-on:user-info:list /pods=@ns"}, list, "jane system:authenticated"},
		{"constrained user, other action", headers("Impersonate-User: jane"),
			rights{"impersonate:user-info authentication.k8s.io/users=jane", "impersonate-on:user-info:get /pods=@ns"}, list, "users \"jane\" is forbidden"},
		{"constrained user, action only", headers("Impersonate-User: jane"), rights{"impersonate-on:user-info:list /pods=@ns"}, list, "users \"jane\" is forbidden"},
		{"constrained service account", headers("Impersonate-User: system:serviceaccount:a:b"),
			rights{"impersonate:serviceaccount authentication.k8s.io/serviceaccounts=b@a", "impersonate-on:serviceaccount:list /pods=@ns"}, list,
			"system:serviceaccount:a:b system:serviceaccounts,system:serviceaccounts:a,system:authenticated"},
		{"constrained node", headers("Impersonate-User: system:node:other"),
			rights{"impersonate:arbitrary-node authentication.k8s.io/nodes=other", "impersonate-on:arbitrary-node:list /pods=@ns"}, list, "system:node:other system:nodes,system:authenticated"},
		{"node of the impersonator", headers("Impersonate-User: system:node:mine"),
			rights{"impersonate:associated-node authentication.k8s.io/nodes=*", "impersonate-on:associated-node:list /pods=@ns"}, list, "system:node:mine system:nodes,system:authenticated"},
		{"node of another", headers("Impersonate-User: system:node:other"),
			rights{"impersonate:associated-node authentication.k8s.io/nodes=*", "impersonate-on:associated-node:list /pods=@ns"}, list, `users "system:node:other" is forbidden`},
		{"a node is not a user", headers("Impersonate-User: system:node:other"),
			rights{"impersonate:user-info authentication.k8s.io/users=system:node:other", "impersonate-on:user-info:list /pods=@ns"}, list, "is forbidden"},
	} {
		t.Run(c.name, func(t *testing.T) {
			u, err := Impersonate(t.Context(), c.headers, robot, c.rights, c.target)
			got := shown(u, nil)
			if err != nil {
				got = err.Error()
			}
			if got != c.want && (err == nil || !strings.Contains(got, c.want)) {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
			if err == nil && impersonated(c.headers) != nil {
				t.Errorf("headers left: %v", c.headers)
			}
		})
	}
}

func TestImpersonatedAttributes(t *testing.T) {
	h := headers("Impersonate-User: u", "Impersonate-Uid: 42", "Impersonate-Extra-Scopes: view", "Impersonate-Extra-Scopes: edit", "Impersonate-Extra-acme.com%2Fproject: x")
	u, err := Impersonate(t.Context(), h, &user.Info{Name: "root"}, rights{"*"}, nil)
	if err != nil || u.UID != "42" || !reflect.DeepEqual(u.Extra, map[string][]string{"acme.com/project": {"x"}, "scopes": {"view", "edit"}}) {
		t.Errorf("%+v %v", u, err)
	}
}

func FuzzImpersonation(f *testing.F) {
	f.Add("jane", "g", "Impersonate-Extra-A%2fb", "v")
	f.Add("", "", "impersonate-extra-", "")
	f.Fuzz(func(t *testing.T, name, group, header, value string) {
		h := http.Header{"Impersonate-User": {name}, "Impersonate-Group": {group}, http.CanonicalHeaderKey(header): {value}}
		by := &user.Info{Name: "by"}
		u, err := Impersonate(t.Context(), h, by, rights{}, nil)
		if err == nil && u != by {
			t.Errorf("%v became %+v without any right", h, u)
		}
		u, err = Impersonate(t.Context(), h, by, rights{"*"}, nil)
		if err != nil {
			return
		}
		if impersonated(h) != nil || u.Name == "" {
			t.Errorf("%v: %+v", h, u)
		}
	})
}

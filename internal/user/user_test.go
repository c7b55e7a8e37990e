package user

import (
	"context"
	"testing"
)

func TestWhoIsWhat(t *testing.T) {
	for _, one := range []struct {
		u               Info
		account, isNode string
	}{
		{Info{Name: "system:serviceaccount:a:web"}, "a/web", ""},
		{Info{Name: "system:serviceaccount:a:"}, "", ""},
		{Info{Name: "system:serviceaccount::web"}, "", ""},
		{Info{Name: "system:serviceaccount:a"}, "", ""},
		{Info{Name: "system:serviceaccount:a:b:c"}, "", ""},
		{Info{Name: "a:web"}, "", ""},
		{Info{Name: "system:node:n1", Groups: []string{"x", NodesGroup}}, "", "n1"},
		{Info{Name: "system:node:n1"}, "", ""},
		{Info{Name: "system:node:", Groups: []string{NodesGroup}}, "", ""},
		{Info{Name: "n1", Groups: []string{NodesGroup}}, "", ""},
	} {
		account := ""
		if namespace, name, ok := one.u.ServiceAccount(); ok {
			account = namespace + "/" + name
		}
		node := ""
		if name, ok := one.u.Node(); ok {
			node = name
		}
		if account != one.account || node != one.isNode {
			t.Errorf("%s is service account %q and node %q", one.u.Name, account, node)
		}
	}
}

func TestServiceAccountInfo(t *testing.T) {
	u := ServiceAccountInfo("a", "web", "1")
	namespace, name, ok := u.ServiceAccount()
	if namespace != "a" || name != "web" || !ok || u.UID != "1" || !u.InGroup("system:serviceaccounts:a") || !u.InGroup(ServiceAccountsGroup) || !u.InGroup(AllAuthenticated) {
		t.Errorf("got %+v", u)
	}
}

func TestContext(t *testing.T) {
	u := &Info{Name: "u"}
	if From(With(context.Background(), u)) != u || From(context.Background()) != nil {
		t.Error("the context does not carry its user")
	}
}

// Package user is who a request comes from: what Identify found out and what
// Authorize, admission and audit are told.
package user

import (
	"context"
	"slices"
	"strings"
)

// Groups and names that carry meaning to the server itself.
const (
	Anonymous            = "system:anonymous"
	APIServer            = "system:apiserver"
	AllAuthenticated     = "system:authenticated"
	AllUnauthenticated   = "system:unauthenticated"
	SystemPrivileged     = "system:masters"
	NodesGroup           = "system:nodes"
	NodePrefix           = "system:node:"
	ServiceAccountsGroup = "system:serviceaccounts"
	ServiceAccountPrefix = "system:serviceaccount:"
)

// Info is an identity (authentication.k8s.io/v1 UserInfo). It is shared by many
// requests and never changed after it was made.
type Info struct {
	Name   string
	UID    string
	Groups []string
	Extra  map[string][]string
}

// InGroup reports whether the user is a member of group.
func (u *Info) InGroup(group string) bool { return slices.Contains(u.Groups, group) }

// ServiceAccount returns the namespace and name of the service account that the
// user is, and false for any other user.
func (u *Info) ServiceAccount() (namespace, name string, ok bool) {
	rest, ok := strings.CutPrefix(u.Name, ServiceAccountPrefix)
	if !ok {
		return "", "", false
	}
	namespace, name, ok = strings.Cut(rest, ":")
	return namespace, name, ok && namespace != "" && name != "" && !strings.Contains(name, ":")
}

// ServiceAccountInfo is the identity of a service account.
func ServiceAccountInfo(namespace, name, uid string) *Info {
	return &Info{
		Name:   ServiceAccountPrefix + namespace + ":" + name,
		UID:    uid,
		Groups: []string{ServiceAccountsGroup, ServiceAccountsGroup + ":" + namespace, AllAuthenticated},
	}
}

// Node returns the name of the node that the user is, and false for any other
// user (Node authorization: group system:nodes, name system:node:<nodeName>).
func (u *Info) Node() (name string, ok bool) {
	name, ok = strings.CutPrefix(u.Name, NodePrefix)
	return name, ok && name != "" && u.InGroup(NodesGroup)
}

type key struct{}

// With returns a context that carries the identity.
func With(ctx context.Context, u *Info) context.Context { return context.WithValue(ctx, key{}, u) }

// From returns the identity in ctx, or nil outside a request.
func From(ctx context.Context) *Info {
	u, _ := ctx.Value(key{}).(*Info)
	return u
}

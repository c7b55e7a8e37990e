package authn

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/timonel/timonel/internal/authz"
	"github.com/timonel/timonel/internal/user"
	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// Headers in which a client says whom it acts as (docs: "User impersonation").
const (
	impersonateUser  = authenticationv1.ImpersonateUserHeader
	impersonateUID   = "Impersonate-Uid"
	impersonateGroup = authenticationv1.ImpersonateGroupHeader
	impersonateExtra = authenticationv1.ImpersonateUserExtraHeaderPrefix
)

// maxImpersonated bounds how many attributes one request may impersonate: each is a question to the authorizer.
const maxImpersonated = 1000

// Impersonate returns whom a request of u acts as: u itself when there are no
// impersonation headers, else the user that they describe, if u may impersonate it. The headers are removed. target is the request,
// for constrained impersonation (KEP-5284), that depends on what is done; nil: only the verb "impersonate" counts.
//
// Errors are API errors: 400 when attributes are given without a user name, 403 when u may not.
func Impersonate(ctx context.Context, h http.Header, u *user.Info, authorizer authz.Authorizer, target *authz.Attributes) (*user.Info, error) {
	wanted := impersonated(h)
	if wanted == nil {
		return u, nil
	}
	if wanted.Name == "" {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("requested %s without impersonating a user name", wanted.goString()))
	}
	if 1+len(wanted.Groups)+len(wanted.Extra) > maxImpersonated {
		return nil, apierrors.NewBadRequest("too many attributes to impersonate")
	}
	i := impersonation{ctx: ctx, by: u, authorizer: authorizer}
	if target == nil || !i.constrained(wanted, target) {
		if err := i.legacy(wanted); err != nil {
			return nil, err
		}
	}
	stripImpersonation(h)
	return wanted.user(), nil
}

// request is what impersonation headers ask for.
type request user.Info

// impersonated reads the headers; nil: there are none.
func impersonated(h http.Header) *request {
	var w *request
	at := func() *request {
		if w == nil {
			w = &request{}
		}
		return w
	}
	if name := h.Get(impersonateUser); name != "" {
		at().Name = name
	}
	if uid := h.Get(impersonateUID); uid != "" {
		at().UID = uid
	}
	if groups := h[impersonateGroup]; len(groups) > 0 {
		at().Groups = slices.Clone(groups)
	}
	for header, values := range h {
		name, ok := cutPrefixFold(header, impersonateExtra)
		if !ok {
			continue
		}
		if at().Extra == nil {
			w.Extra = map[string][]string{}
		}
		key := extraKey(name)
		w.Extra[key] = append(w.Extra[key], values...)
	}
	return w
}

func stripImpersonation(h http.Header) {
	delete(h, impersonateUser)
	delete(h, impersonateUID)
	delete(h, impersonateGroup)
	for header := range h {
		if _, ok := cutPrefixFold(header, impersonateExtra); ok {
			delete(h, header)
		}
	}
}

// goString is the request as kube-apiserver shows it in its error.
func (w *request) goString() string {
	return fmt.Sprintf("&user.DefaultInfo{Name:%q, UID:%q, Groups:%#v, Extra:%#v}", w.Name, w.UID, w.Groups, w.Extra)
}

// user is the identity that the request becomes. Groups that follow from the name are added.
func (w *request) user() *user.Info {
	u := user.Info(*w)
	if namespace, _, ok := u.ServiceAccount(); ok && len(u.Groups) == 0 {
		u.Groups = serviceAccountGroups(namespace)
	}
	switch {
	case u.Name == user.Anonymous:
		if !u.InGroup(user.AllUnauthenticated) {
			u.Groups = append(slices.Clone(u.Groups), user.AllUnauthenticated)
		}
	case !u.InGroup(user.AllAuthenticated) && !u.InGroup(user.AllUnauthenticated):
		u.Groups = append(slices.Clone(u.Groups), user.AllAuthenticated)
	}
	return &u
}

// impersonation asks an authorizer what an impersonator may do.
type impersonation struct {
	ctx        context.Context
	by         *user.Info
	authorizer authz.Authorizer
}

// may answers about one attribute.
func (i *impersonation) may(a authz.Attributes) (bool, string) {
	a.User = i.by
	decision, reason, err := i.authorizer.Authorize(i.ctx, &a)
	if decision != authz.Allow && reason == "" && err != nil {
		reason = err.Error()
	}
	return decision == authz.Allow, reason
}

const authenticationGroup = authenticationv1.GroupName

// attributes lists the questions about a request in the classic form: verb "impersonate" on users, groups and service
// accounts of the core group, uids and userextras of authentication.k8s.io.
func (w *request) attributes() []authz.Attributes {
	about := func(group, resource, sub, namespace, name string) authz.Attributes {
		return authz.Attributes{Verb: "impersonate", Group: group, Version: "v1", Resource: resource, Subresource: sub, Namespace: namespace, Name: name}
	}
	var all []authz.Attributes
	u := user.Info(*w)
	if namespace, name, ok := u.ServiceAccount(); ok {
		all = append(all, about("", "serviceaccounts", "", namespace, name))
	} else {
		all = append(all, about("", "users", "", "", w.Name))
	}
	for _, group := range w.Groups {
		all = append(all, about("", "groups", "", "", group))
	}
	for _, key := range slices.Sorted(maps.Keys(w.Extra)) {
		for _, value := range w.Extra[key] {
			all = append(all, about(authenticationGroup, "userextras", key, "", value))
		}
	}
	if w.UID != "" {
		all = append(all, about(authenticationGroup, "uids", "", "", w.UID))
	}
	return all
}

// legacy refuses unless the impersonator has the verb "impersonate" on everything asked for.
func (i *impersonation) legacy(w *request) error {
	for _, a := range w.attributes() {
		if ok, reason := i.may(a); !ok {
			a.User = i.by
			return authz.Forbidden(&a, reason)
		}
	}
	return nil
}

// constrained reports whether one of the modes of constrained impersonation allows the request.
func (i *impersonation) constrained(w *request, target *authz.Attributes) bool {
	for _, mode := range i.modes(w) {
		if i.mode(w, mode, target) {
			return true
		}
	}
	return false
}

// Modes of constrained impersonation.
const (
	associatedNode = "associated-node"
	arbitraryNode  = "arbitrary-node"
	accountMode    = "serviceaccount"
	userInfoMode   = "user-info"
)

// modes are the modes that suit the user asked for, in the order in which they are tried.
func (i *impersonation) modes(w *request) []string {
	nameOnly := len(w.Groups) == 0 && w.UID == "" && len(w.Extra) == 0
	if node, ok := strings.CutPrefix(w.Name, user.NodePrefix); ok {
		if !nameOnly {
			return nil // a node is what its name says, and so is a service account
		}
		if _, _, isAccount := i.by.ServiceAccount(); isAccount && slices.Contains(i.by.Extra[nodeNameExtra], node) {
			return []string{associatedNode, arbitraryNode}
		}
		return []string{arbitraryNode}
	}
	if strings.HasPrefix(w.Name, user.ServiceAccountPrefix) {
		if !nameOnly {
			return nil
		}
		return []string{accountMode}
	}
	return []string{userInfoMode}
}

func (i *impersonation) mode(w *request, mode string, target *authz.Attributes) bool {
	for _, a := range w.attributes() {
		a.Group, a.Verb = authenticationGroup, "impersonate:"+mode
		if a.Resource == "users" && (mode == associatedNode || mode == arbitraryNode) {
			a.Resource, a.Name = "nodes", strings.TrimPrefix(w.Name, user.NodePrefix)
			if mode == associatedNode {
				a.Name = "*" // whichever it is: the impersonator runs on it
			}
		}
		if ok, _ := i.may(a); !ok {
			return false
		}
	}
	on := *target
	on.Verb = "impersonate-on:" + mode + ":" + target.Verb
	ok, _ := i.may(on)
	if ok && (mode == associatedNode || mode == arbitraryNode) {
		w.Groups = []string{user.NodesGroup}
	}
	return ok
}

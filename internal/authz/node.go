package authz

import (
	"context"
	"errors"
	"fmt"

	"github.com/timonel/timonel/internal/user"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/selection"
)

// Node lets a kubelet read what its pods need and write what is its own (docs: "Using
// Node Authorization"). What other nodes' pods use it does not get; what has no owner follows fixed rules, those of the
// cluster role system:node. It is a Feed of pods, persistent volumes, volume attachments,
// resource slices and pod certificate requests; what it is not fed, no node has.
type Node struct {
	*graph
	rules *role
}

// NewNode returns an authorizer that knows no pods.
func NewNode() *Node { return &Node{newGraph(), compile(NodeRules)} }

const nodeLeases = "kube-node-lease"

// Authorize implements Authorizer.
func (n *Node) Authorize(_ context.Context, a *Attributes) (Decision, string, error) {
	node, ok := a.User.Node()
	if !ok {
		return NoOpinion, "", nil
	}
	if a.IsResource() {
		if special, reason := n.special(node, a); special {
			if reason != "" {
				return NoOpinion, reason, nil
			}
			return Allow, "", nil
		}
	}
	q := ask(a)
	if n.rules.allows(&q) {
		return Allow, "", nil
	}
	return NoOpinion, "", nil
}

// Rules implements Lister: what a node may do cannot be listed.
func (n *Node) Rules(_ context.Context, u *user.Info, _ string) (Rules, bool, error) {
	if _, ok := u.Node(); ok {
		return Rules{}, true, errors.New("node authorizer does not support user rule resolution")
	}
	return Rules{}, false, nil
}

// Reasons why a request of a node is not allowed.
const (
	noName       = "node: No Object name found"
	onlyGet      = "node: can only get individual resources of this type"
	onlyRead     = "node: can only read resources of this type"
	noSub        = "node: cannot access subresources of this type"
	onlyTokens   = "node: can only create tokens for individual service accounts"
	onlyOwnSlice = "node: can only access ResourceSlices with its own spec.nodeName"
)

// special decides about resources that depend on the node; it reports false for all others. An
// empty reason means that the request is allowed.
func (n *Node) special(node string, a *Attributes) (bool, string) {
	switch a.Group {
	case "":
		switch a.Resource {
		case "secrets":
			return true, n.read(node, a, secretKind)
		case "configmaps":
			return true, n.read(node, a, configMapKind)
		case "persistentvolumeclaims":
			if a.Subresource == "status" && (a.Verb == "update" || a.Verb == "patch") {
				return true, n.related(node, a, claimKind)
			}
			return true, n.get(a, func() string { return n.related(node, a, claimKind) })
		case "persistentvolumes":
			return true, n.get(a, func() string { return relation(node, n.uses(node, a.Name)) })
		case "serviceaccounts":
			return true, n.account(node, a)
		case "nodes":
			return n.node(node, a)
		case "pods":
			return n.pod(node, a)
		}
	case "storage.k8s.io":
		switch a.Resource {
		case "volumeattachments":
			return true, n.get(a, func() string { return relation(node, n.attached(node, a.Name)) })
		case "csinodes":
			return true, csiNode(node, a)
		}
	case "coordination.k8s.io":
		if a.Resource == "leases" {
			return true, nodeLease(node, a)
		}
	case "resource.k8s.io":
		switch a.Resource {
		case "resourceclaims":
			return true, n.get(a, func() string { return n.related(node, a, resourceClaimKind) })
		case "resourceslices":
			return true, n.slice(node, a)
		}
	case "certificates.k8s.io":
		if a.Resource == "podcertificaterequests" {
			return n.certificateRequest(node, a)
		}
	}
	return false, ""
}

// relation is the reason when a node has nothing to do with an object.
func relation(node string, related bool) string {
	if related {
		return ""
	}
	return fmt.Sprintf("node: no relationship found between node '%s' and this object", node)
}

func (n *Node) related(node string, a *Attributes, kind objectKind) string {
	if a.Name == "" {
		return noName
	}
	return relation(node, n.refers(node, vertex{kind, a.Namespace, a.Name}))
}

// read is for what a node may get, list and watch, one at a time.
func (n *Node) read(node string, a *Attributes, kind objectKind) string {
	switch {
	case a.Verb != "get" && a.Verb != "list" && a.Verb != "watch":
		return onlyRead
	case a.Subresource != "":
		return noSub
	}
	return n.related(node, a, kind)
}

// get is for what a node may only get.
func (n *Node) get(a *Attributes, related func() string) string {
	switch {
	case a.Verb != "get":
		return onlyGet
	case a.Subresource != "":
		return noSub
	case a.Name == "":
		return noName
	}
	return related()
}

func (n *Node) account(node string, a *Attributes) string {
	if a.Verb == "get" && a.Subresource == "" || a.Verb == "create" && a.Subresource == "token" {
		return n.related(node, a, accountKind)
	}
	if a.Subresource == "" {
		return onlyGet
	}
	return onlyTokens
}

func (n *Node) node(node string, a *Attributes) (bool, string) {
	switch a.Verb {
	case "get", "list", "watch":
		if a.Subresource != "" {
			return false, ""
		}
		name := a.Name
		if name == "" {
			name, _ = selected(a.Fields, "metadata.name")
		}
		if name != node {
			return true, fmt.Sprintf("node: node '%s' cannot read '%s', only its own Node object", node, name)
		}
	}
	return false, ""
}

func (n *Node) pod(node string, a *Attributes) (bool, string) {
	switch a.Verb {
	case "get":
		if a.Subresource == "" {
			return true, n.related(node, a, podKind)
		}
	case "list", "watch", "deletecollection":
		if chosen, ok := selected(a.Fields, "spec.nodeName"); ok && chosen == node {
			return false, ""
		}
		return true, "node: can only list/watch pods with spec.nodeName field selector"
	}
	return false, ""
}

func (n *Node) certificateRequest(node string, a *Attributes) (bool, string) {
	switch a.Verb {
	case "get":
		return true, n.get(a, func() string { return relation(node, n.requested(node, a.Namespace, a.Name)) })
	case "list", "watch":
		if chosen, ok := selected(a.Fields, "spec.nodeName"); ok && chosen == node {
			return false, ""
		}
		return true, "node: can only list/watch podcertificaterequests with spec.nodeName field selector"
	}
	return false, ""
}

func csiNode(node string, a *Attributes) string {
	switch a.Verb {
	case "get", "create", "update", "patch", "delete":
	default:
		return "node: can only get, create, update, patch, or delete a CSINode"
	}
	if a.Subresource != "" {
		return noSub
	}
	// The name of a new object is in its body; admission checks it.
	if a.Verb != "create" && a.Name != node {
		return "node: can only access CSINode with the same name as the requesting node"
	}
	return ""
}

func nodeLease(node string, a *Attributes) string {
	switch a.Verb {
	case "get", "create", "update", "patch", "delete":
	default:
		return "node: can only get, create, update, patch, or delete a node lease"
	}
	switch {
	case a.Namespace != nodeLeases:
		return fmt.Sprintf("node: can only access leases in the %q system namespace", nodeLeases)
	case a.Subresource != "":
		return noSub
	case a.Verb != "create" && a.Name != node:
		return "node: can only access node lease with the same name as the requesting node"
	}
	return ""
}

func (n *Node) slice(node string, a *Attributes) string {
	if a.Subresource != "" {
		return noSub
	}
	switch a.Verb {
	case "create": // admission checks whose it is
		return ""
	case "get", "update", "patch", "delete":
		if a.Name == "" {
			return noName
		}
		return relation(node, n.ownsSlice(node, a.Name))
	case "list", "watch", "deletecollection":
		if chosen, ok := selected(a.Fields, "spec.nodeName"); ok && chosen == node {
			return ""
		}
		return onlyOwnSlice
	}
	return "node: can only create, get, list, watch, update, patch, or delete a ResourceSlice"
}

// selected returns the value that a field selector demands of a field.
func selected(requirements fields.Requirements, field string) (string, bool) {
	for _, r := range requirements {
		if r.Field == field && (r.Operator == selection.Equals || r.Operator == selection.DoubleEquals) {
			return r.Value, true
		}
	}
	return "", false
}

package core

import (
	"github.com/timonel/timonel/internal/kind"
	corev1 "k8s.io/api/core/v1"
)

// The verbs of subresources through which bytes pass to a node.
const (
	proxyVerbs  = kind.Create | kind.Delete | kind.Get | kind.Patch | kind.Update
	streamVerbs = kind.Create | kind.Get
)

// connect is such a subresource; options is the kind of its query parameters.
func connect(options string, verbs kind.Verbs) *kind.Subresource {
	return &kind.Subresource{Kind: corev1.SchemeGroupVersion.WithKind(options), Verbs: verbs, Connect: true}
}

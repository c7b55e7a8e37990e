package core

import (
	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// ServiceAccount is an identity for processes in pods. Tokens for it come from /token.
func serviceAccount(token kind.Job) *kind.Definition {
	d := &kind.Definition{
		Version: "v1", Kind: "ServiceAccount", Plural: "serviceaccounts", ShortNames: []string{"sa"},
		Scope: kind.Namespaced, Verbs: kind.Standard,
		New:            kind.Of[corev1.ServiceAccount](),
		PrepareCreate:  kind.Prepare(prepareServiceAccount),
		PrepareUpdate:  kind.PrepareUpdate(func(a, _ *corev1.ServiceAccount) { prepareServiceAccount(a) }),
		Warnings:       kind.Warn(warnServiceAccount),
		ReturnsDeleted: true,
		Columns:        kind.Columns{kind.Age},
		ColumnFields:   []string{},
	}
	if token != nil {
		d.Subresources = map[string]*kind.Subresource{"token": {
			Kind:  authenticationv1.SchemeGroupVersion.WithKind("TokenRequest"),
			New:   func() object.Object { return &authenticationv1.TokenRequest{} },
			Verbs: kind.Create,
			Job:   token,
		}}
	}
	return d
}

// prepareServiceAccount keeps nothing but the names of the secrets.
func prepareServiceAccount(a *corev1.ServiceAccount) {
	for i, s := range a.Secrets {
		a.Secrets[i] = corev1.ObjectReference{Name: s.Name}
	}
}

// mountableSecrets limits the Secrets that pods of the account can mount.
const mountableSecrets = "kubernetes.io/enforce-mountable-secrets"

func warnServiceAccount(a, old *corev1.ServiceAccount) []string {
	if _, given := a.Annotations[mountableSecrets]; !given {
		return nil
	}
	if old != nil {
		if _, before := old.Annotations[mountableSecrets]; before {
			return nil
		}
	}
	return []string{field.NewPath("metadata", "annotations").Key(mountableSecrets).String() +
		": deprecated in v1.32+; prefer separate namespaces to isolate access to mounted secrets"}
}

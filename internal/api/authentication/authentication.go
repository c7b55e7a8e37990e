// Package authentication holds the kinds of authentication.k8s.io: questions about who somebody is, answered
// at once and never stored.
//
// Does not know: how identities are proven; it asks the authenticator it was given. Start
// reading at tokenreview.go.
package authentication

import (
	"context"

	"github.com/timonel/timonel/internal/authn"
	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/user"
	authenticationv1 "k8s.io/api/authentication/v1"
)

const group = authenticationv1.GroupName

// Tokens knows bearer tokens.
type Tokens interface {
	// Review answers about a token, for the audiences or, if there are none, for the API's own.
	Review(ctx context.Context, token string, audiences []string) (*authn.Verified, error)
}

// Definitions lists the kinds of the group.
func Definitions(tokens Tokens) []*kind.Definition {
	return []*kind.Definition{selfSubjectReview(), tokenReview(tokens)}
}

// info shows an identity in the API's form.
func info(u *user.Info) authenticationv1.UserInfo {
	shown := authenticationv1.UserInfo{Username: u.Name, UID: u.UID, Groups: u.Groups}
	if len(u.Extra) > 0 {
		shown.Extra = map[string]authenticationv1.ExtraValue{}
		for key, values := range u.Extra {
			shown.Extra[key] = values
		}
	}
	return shown
}

package authn

import (
	"context"
	"crypto/subtle"
	"regexp"
	"strings"
	"time"

	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/user"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// BootstrapTokens knows the tokens with which nodes join a cluster, kept in Secrets
// (docs: "Authenticating with Bootstrap Tokens").
type BootstrapTokens struct {
	Secrets kind.Reader
	Now     func() time.Time // default time.Now
}

var (
	bootstrapToken = regexp.MustCompile(`^([a-z0-9]{6})\.([a-z0-9]{16})$`)
	bootstrapGroup = regexp.MustCompile(`^system:bootstrappers:[a-z0-9:-]{0,255}[a-z0-9]$`)
)

const (
	bootstrapPrefix      = "system:bootstrap:"
	bootstrappers        = "system:bootstrappers"
	bootstrapSecretType  = "bootstrap.kubernetes.io/token"
	bootstrapSecretsName = "bootstrap-token-"
)

// Token implements TokenMethod. Whatever is wrong with a token's secret, the token is unknown.
func (b *BootstrapTokens) Token(ctx context.Context, token string, _ []string) (*Verified, error) {
	if len(token) != 23 {
		return nil, nil
	}
	parts := bootstrapToken.FindStringSubmatch(token)
	if parts == nil {
		return nil, nil
	}
	u, err := b.user(ctx, parts[1], parts[2])
	if u == nil || err != nil {
		return nil, err
	}
	still := func(ctx context.Context) error {
		if u, err := b.user(ctx, parts[1], parts[2]); u == nil || err != nil {
			return ErrInvalidToken
		}
		return nil
	}
	return &Verified{User: u, Still: still}, nil
}

func (b *BootstrapTokens) user(ctx context.Context, id, secretPart string) (*user.Info, error) {
	obj, err := b.Secrets.Get(ctx, secrets, "kube-system", bootstrapSecretsName+id)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	secret, ok := obj.(*corev1.Secret)
	switch {
	case !ok, secret.DeletionTimestamp != nil, secret.Type != bootstrapSecretType:
		return nil, nil
	case subtle.ConstantTimeCompare(secret.Data["token-secret"], []byte(secretPart)) != 1:
		return nil, nil
	case string(secret.Data["token-id"]) != id:
		return nil, nil
	case string(secret.Data["usage-bootstrap-authentication"]) != "true":
		return nil, nil
	case b.expired(string(secret.Data["expiration"])):
		return nil, nil
	}
	u := &user.Info{Name: bootstrapPrefix + id, Groups: []string{bootstrappers}}
	if extra := string(secret.Data["auth-extra-groups"]); extra != "" {
		for group := range strings.SplitSeq(extra, ",") {
			if !bootstrapGroup.MatchString(group) {
				return nil, nil
			}
			u.Groups = append(u.Groups, group)
		}
	}
	return u, nil
}

// expired reports whether a secret's expiration, RFC 3339, has passed; one that cannot be read has.
func (b *BootstrapTokens) expired(expiration string) bool {
	if expiration == "" {
		return false
	}
	at, err := time.Parse(time.RFC3339, expiration)
	now := time.Now
	if b.Now != nil {
		now = b.Now
	}
	return err != nil || !now().Before(at)
}

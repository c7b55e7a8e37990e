package authentication

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/timonel/timonel/internal/api/apitest"
	"github.com/timonel/timonel/internal/api/core"
	"github.com/timonel/timonel/internal/authn"
	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	"github.com/timonel/timonel/internal/user"
	authenticationv1 "k8s.io/api/authentication/v1"
)

func TestGolden(t *testing.T) {
	known := tokens{"good": {User: &user.Info{Name: "u", UID: "1", Groups: []string{"g"}}, Audiences: []string{"api"}}}
	accounts := core.Definitions(core.Options{TokenJob: legible(t, authn.TokenJob(issuer(t), authn.TokenOptions{}))})
	apitest.Golden(t, append(Definitions(known), accounts...)...)
}

func issuer(t *testing.T) *authn.Issuer {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	i, err := authn.NewIssuer("https://issuer.example", key)
	if err != nil {
		t.Fatal(err)
	}
	i.Audiences, i.Extend = []string{"api"}, true
	i.Now = func() time.Time { return time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC) }
	return i
}

// legible shows, instead of a token, what it says, all but the token's own id.
func legible(t *testing.T, job kind.Job) kind.Job {
	return func(ctx context.Context, call kind.JobCall) (object.Object, error) {
		answer, err := job(ctx, call)
		if err != nil {
			return nil, err
		}
		status := &answer.(*authenticationv1.TokenRequest).Status
		parts := strings.Split(status.Token, ".")
		if len(parts) != 3 {
			t.Fatalf("%q is no token", status.Token)
		}
		text, err := base64.RawURLEncoding.DecodeString(parts[1])
		if err != nil {
			t.Fatal(err)
		}
		var claims map[string]any
		if err := json.Unmarshal(text, &claims); err != nil {
			t.Fatal(err)
		}
		if claims["jti"] == nil {
			t.Error("the token has no id")
		}
		delete(claims, "jti")
		if text, err = json.Marshal(claims); err != nil {
			t.Fatal(err)
		}
		status.Token = string(text)
		return answer, nil
	}
}

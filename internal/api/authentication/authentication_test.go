package authentication

import (
	"context"
	"encoding/json"
	"errors"
	"testing"

	"github.com/timonel/timonel/internal/authn"
	"github.com/timonel/timonel/internal/user"
	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

type tokens map[string]*authn.Verified

func (t tokens) Review(_ context.Context, token string, _ []string) (*authn.Verified, error) {
	if v := t[token]; v != nil {
		return v, nil
	}
	return nil, errors.New("invalid bearer token")
}

// TestTokenReview is corpus verbs/tokens.
func TestTokenReview(t *testing.T) {
	d := tokenReview(tokens{"good": {User: &user.Info{Name: "u", UID: "1", Groups: []string{"g"}, Extra: map[string][]string{"k": {"v"}}}, Audiences: []string{"api"}}})
	for _, c := range []struct{ token, want string }{
		{"good", `{"authenticated":true,"user":{"username":"u","uid":"1","groups":["g"],"extra":{"k":["v"]}},"audiences":["api"]}`},
		{"nope", `{"user":{},"error":"invalid bearer token"}`},
	} {
		answer, err := d.Virtual(t.Context(), "", &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: c.token}})
		if err != nil {
			t.Fatal(err)
		}
		if got, _ := json.Marshal(answer.(*authenticationv1.TokenReview).Status); string(got) != c.want {
			t.Errorf("got %s, want %s", got, c.want)
		}
	}
	if _, err := d.Virtual(t.Context(), "", &authenticationv1.TokenReview{}); !apierrors.IsBadRequest(err) || err.Error() != "token is required for TokenReview in authentication" {
		t.Errorf("%v", err)
	}
}

func TestSelfSubjectReview(t *testing.T) {
	d := selfSubjectReview()
	answer, err := d.Virtual(user.With(t.Context(), &user.Info{Name: "jane", Groups: []string{"system:authenticated"}}), "", d.New())
	if err != nil {
		t.Fatal(err)
	}
	r := answer.(*authenticationv1.SelfSubjectReview)
	if r.CreationTimestamp.IsZero() || r.Status.UserInfo.Username != "jane" {
		t.Errorf("%+v", r)
	}
	if _, err := d.Virtual(t.Context(), "", d.New()); err == nil {
		t.Error("nobody is somebody")
	}
}

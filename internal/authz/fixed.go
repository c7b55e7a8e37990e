package authz

import (
	"context"

	"github.com/timonel/timonel/internal/user"
)

// AlwaysAllow allows every request (authorization mode AlwaysAllow).
type AlwaysAllow struct{}

func (AlwaysAllow) Authorize(context.Context, *Attributes) (Decision, string, error) {
	return Allow, "", nil
}

// Rules implements Lister.
func (AlwaysAllow) Rules(context.Context, *user.Info, string) (Rules, bool, error) {
	return allRules, false, nil
}

// AlwaysDeny allows no request (authorization mode AlwaysDeny). It has no opinion,
// so that an authorizer after it can still allow one.
type AlwaysDeny struct{}

func (AlwaysDeny) Authorize(context.Context, *Attributes) (Decision, string, error) {
	return NoOpinion, "Everything is forbidden.", nil
}

// Rules implements Lister.
func (AlwaysDeny) Rules(context.Context, *user.Info, string) (Rules, bool, error) {
	return Rules{}, false, nil
}

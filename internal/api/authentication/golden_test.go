package authentication

import (
	"testing"

	"github.com/timonel/timonel/internal/api/apitest"
	"github.com/timonel/timonel/internal/user"
)

func TestGolden(t *testing.T) {
	apitest.Golden(t, Definitions(tokens{"good": {User: &user.Info{Name: "u", UID: "1", Groups: []string{"g"}}, Audiences: []string{"api"}}})...)
}

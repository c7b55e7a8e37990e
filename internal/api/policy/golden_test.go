package policy

import (
	"testing"

	"github.com/timonel/timonel/internal/api/apitest"
	"github.com/timonel/timonel/internal/api/core"
)

func TestGolden(t *testing.T) {
	apitest.Golden(t, append(Definitions(), core.Definitions(core.Options{})...)...) // pods are evicted
}

package autoscaling

import (
	"slices"
	"testing"

	"github.com/timonel/timonel/internal/api/apitest"
	"github.com/timonel/timonel/internal/api/apps"
	"github.com/timonel/timonel/internal/api/core"
	"github.com/timonel/timonel/internal/api/podspec"
)

func TestGolden(t *testing.T) {
	scaled := slices.Concat(apps.Definitions(podspec.Rules{}), core.Definitions(core.Options{}))
	apitest.Golden(t, append(Definitions(), scaled...)...)
}

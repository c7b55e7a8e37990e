package batch

import (
	"testing"

	"github.com/timonel/timonel/internal/api/apitest"
	"github.com/timonel/timonel/internal/api/podspec"
)

func TestGolden(t *testing.T) { apitest.Golden(t, Definitions(podspec.Rules{})...) }

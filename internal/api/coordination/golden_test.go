package coordination

import (
	"testing"

	"github.com/timonel/timonel/internal/api/apitest"
	"github.com/timonel/timonel/internal/feature"
)

func TestGolden(t *testing.T) { apitest.Golden(t, Definitions(feature.Gates{})...) }

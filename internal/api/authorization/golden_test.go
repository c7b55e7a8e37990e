package authorization

import (
	"testing"

	"github.com/timonel/timonel/internal/api/apitest"
)

func TestGolden(t *testing.T) { apitest.Golden(t, Definitions(&recorder{})...) }

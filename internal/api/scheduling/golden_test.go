package scheduling

import (
	"testing"

	"github.com/timonel/timonel/internal/api/apitest"
	"github.com/timonel/timonel/internal/feature"
)

var all = func() feature.Gates {
	gates, err := feature.ParseGates([]string{"AllAlpha=true,AllBeta=true"})
	if err != nil {
		panic(err)
	}
	return gates
}()

func TestGolden(t *testing.T) { apitest.Golden(t, Definitions(all)...) }

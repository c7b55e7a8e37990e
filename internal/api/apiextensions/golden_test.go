package apiextensions

import (
	"testing"

	"github.com/timonel/timonel/internal/api/apitest"
	"github.com/timonel/timonel/internal/crd/schema"
)

func TestGolden(t *testing.T) {
	apitest.Golden(t, Definitions(Options{CheckDefaults: schema.CheckDefaults, Warnings: schema.Warnings})...)
}

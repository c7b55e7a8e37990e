package api

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/timonel/timonel/internal/api/core"
	"github.com/timonel/timonel/internal/kind"
)

func testOptions() Options {
	return Options{Core: core.Options{
		ServiceCIDRs:    []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16")},
		NodePorts:       core.PortRange{First: 30000, Last: 32767},
		AllowPrivileged: true,
		EventTTL:        time.Hour,
	}}
}

func TestGroupsMakeACatalog(t *testing.T) {
	groups := Groups(testOptions())
	catalog := kind.NewCatalog(groups...)
	served := slices.DeleteFunc(slices.Clone(groups), func(d *kind.Definition) bool { return d.Private })
	if len(catalog.All()) != len(served) {
		t.Errorf("%d definitions, of which the catalogue took %d: two have the same names", len(served), len(catalog.All()))
	}
	for _, d := range groups {
		if d.New == nil || d.Scope == 0 || (d.Verbs == 0) != d.Private {
			t.Errorf("%s: New, Scope and Verbs must be set", d.Resource())
		}
		if obj := d.New(); obj == nil {
			t.Errorf("%s: New makes nil", d.Resource())
		}
	}
}

package core

import (
	"net/netip"
	"testing"
	"time"

	"github.com/timonel/timonel/internal/api/apitest"
)

func options() Options {
	return Options{
		ServiceCIDRs:    []netip.Prefix{netip.MustParsePrefix("10.96.0.0/24")},
		NodePorts:       PortRange{First: 30000, Last: 32767},
		AllowPrivileged: true,
		EventTTL:        time.Hour,
	}
}

func TestGolden(t *testing.T) { apitest.Golden(t, Definitions(options())...) }

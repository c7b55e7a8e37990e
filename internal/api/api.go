// Package api lists the built-in kinds, group by group, in the order of discovery. A group is a package of its own
// with a file for each kind.
//
// Promises: each call of Groups makes fresh definitions, so that several servers can live in one process.
// Does not know: requests, storage. Kinds that need an authorizer (access and token reviews) come from
// api/authorization and api/authentication and are added when the server is wired.
// Start reading at coordination/lease.go, the smallest kind, then core/configmap.go and core/pod.go.
package api

import (
	"slices"

	"github.com/timonel/timonel/internal/api/admissionregistration"
	"github.com/timonel/timonel/internal/api/apiextensions"
	"github.com/timonel/timonel/internal/api/apiregistration"
	"github.com/timonel/timonel/internal/api/apiserverinternal"
	"github.com/timonel/timonel/internal/api/apps"
	"github.com/timonel/timonel/internal/api/autoscaling"
	"github.com/timonel/timonel/internal/api/batch"
	"github.com/timonel/timonel/internal/api/certificates"
	"github.com/timonel/timonel/internal/api/coordination"
	"github.com/timonel/timonel/internal/api/core"
	"github.com/timonel/timonel/internal/api/discovery"
	"github.com/timonel/timonel/internal/api/events"
	"github.com/timonel/timonel/internal/api/flowcontrol"
	"github.com/timonel/timonel/internal/api/lifecycle"
	"github.com/timonel/timonel/internal/api/networking"
	"github.com/timonel/timonel/internal/api/node"
	"github.com/timonel/timonel/internal/api/podspec"
	"github.com/timonel/timonel/internal/api/policy"
	"github.com/timonel/timonel/internal/api/rbac"
	"github.com/timonel/timonel/internal/api/resource"
	"github.com/timonel/timonel/internal/api/scheduling"
	"github.com/timonel/timonel/internal/api/storage"
	"github.com/timonel/timonel/internal/api/storagemigration"
	"github.com/timonel/timonel/internal/feature"
	"github.com/timonel/timonel/internal/kind"
)

// Options are what kinds need to know about the server.
type Options struct {
	Core       core.Options // its Gates, IPAddress and Ranges are set by Groups
	Admission  admissionregistration.Options
	Extensions apiextensions.Options
	Devices    resource.Options // its Gates are set by Groups
	Gates      feature.Gates
}

// Groups returns the definitions of all groups, also those that are not served by default: groups by their priority (the
// groupPriorityMinimum of their APIService, then the name), kinds of a group in the order of its package, and last those that are private.
func Groups(o Options) []*kind.Definition {
	o.Devices.Gates, o.Core.Gates = o.Gates, o.Gates
	o.Core.IPAddress, o.Core.Ranges = networking.IPAddress(), core.RangeAllocation()
	coreKinds := core.Definitions(o.Core)
	event := coreKinds[slices.IndexFunc(coreKinds, func(d *kind.Definition) bool { return d.Kind == "Event" })]
	rules := podspec.Rules{AllowPrivileged: o.Core.AllowPrivileged, Gates: o.Gates}
	return slices.Concat(
		coreKinds,
		apiregistration.Definitions(),
		apps.Definitions(rules),
		events.Definitions(event),
		autoscaling.Definitions(),
		batch.Definitions(rules),
		certificates.Definitions(),
		networking.Definitions(o.Core.IPAddress),
		policy.Definitions(),
		rbac.Definitions(),
		storage.Definitions(),
		admissionregistration.Definitions(o.Admission),
		apiextensions.Definitions(o.Extensions),
		scheduling.Definitions(o.Gates),
		coordination.Definitions(o.Gates),
		node.Definitions(),
		discovery.Definitions(),
		resource.Definitions(o.Devices),
		flowcontrol.Definitions(),
		apiserverinternal.Definitions(),
		storagemigration.Definitions(),
		lifecycle.Definitions(),
		[]*kind.Definition{o.Core.Ranges},
	)
}

// Served are the definitions that a server has with its feature gates and its --runtime-config.
func Served(definitions []*kind.Definition, gates feature.Gates, apis feature.APIs) []*kind.Definition {
	return slices.DeleteFunc(slices.Clone(definitions), func(d *kind.Definition) bool {
		return !d.Private && (!apis.Serves(d.Resource()) || d.Gate != "" && !gates.Enabled(d.Gate))
	})
}

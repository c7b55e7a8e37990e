// Package core holds the kinds of the core group (apiVersion v1), one file each:
// names, defaults, validation, preparation, columns and subresources of Pod, Service, Node and the others.
//
// Promises: every function is pure, except Service's Reserve, which reads other objects to choose
// addresses and ports, and RepairServices. Pod specifications, which other groups embed, are checked in podspec.
// Start reading at configmap.go, the simplest.
package core

import (
	"context"
	"net/netip"
	"time"

	"github.com/timonel/timonel/internal/api/podspec"
	"github.com/timonel/timonel/internal/feature"
	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
)

// Options are what the kinds of the group need to know about the server that they live in.
type Options struct {
	// TokenJob answers serviceaccounts/token. nil: the subresource is not served.
	TokenJob kind.Job
	// ServiceCIDRs are the ranges of cluster IPs (--service-cluster-ip-range), the primary family first: what
	// new Services' families are chosen from. Further ranges come from ServiceCIDR objects.
	ServiceCIDRs []netip.Prefix
	// NodePorts is the range of node ports, both ends included (--service-node-port-range).
	NodePorts PortRange
	// AllowPrivileged permits privileged containers (--allow-privileged).
	AllowPrivileged bool
	// EventTTL is how long Events are kept (--event-ttl).
	EventTTL time.Duration
	// IPAddress is the definition of networking.k8s.io IPAddress, which Services reserve their addresses with.
	IPAddress *kind.Definition
	// Ranges is the definition of RangeAllocation, which holds the node ports in use.
	Ranges *kind.Definition
	// ComponentStatuses looks after the components of the control plane. nil: none is known.
	ComponentStatuses func(ctx context.Context) ([]object.Object, error)

	// Gates are the server's feature gates.
	Gates feature.Gates

	endpoints *kind.Definition // what goes with a Service
}

// PortRange is a range of port numbers, both ends included.
type PortRange struct{ First, Last int }

// Contains reports whether port lies in the range.
func (r PortRange) Contains(port int) bool { return r.First <= port && port <= r.Last }

// Definitions lists the kinds of the group in alphabetical order, as discovery does.
func Definitions(o Options) []*kind.Definition {
	o.endpoints = endpoints()
	rules := podspec.Rules{AllowPrivileged: o.AllowPrivileged, Gates: o.Gates}
	return []*kind.Definition{
		binding(), componentStatus(o.ComponentStatuses), configMap(), o.endpoints, event(o.EventTTL), limitRange(),
		namespace(), node(), persistentVolumeClaim(), persistentVolume(), pod(rules), podTemplate(rules), replicationController(rules),
		resourceQuota(), secret(), serviceAccount(o.TokenJob), service(o),
	}
}

// labelNotSupported is the text for an unknown field selector of kinds that have their own list of fields.
func labelNotSupported(label string) string { return "field label not supported: " + label }

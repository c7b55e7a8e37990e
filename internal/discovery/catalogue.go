package discovery

import (
	"cmp"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/version"
)

// Group is an API group.
type Group struct {
	Name     string // "" is the legacy group, served under /api
	Versions []Version
	// Priority orders groups, the highest first (groupPriorityMinimum of the
	// group's APIServices); 0 takes GroupPriority's.
	Priority int
	// Custom marks a group that only custom resources are in.
	Custom bool
}

// Version is one version of a group.
type Version struct {
	Name      string
	Resources []Resource
	// Priority orders versions, the highest first, then by Kubernetes version
	// order (v2, v1, v1beta1); 0 takes VersionPriority's.
	Priority int
	// Remote marks a version of an aggregated server: it is listed, but the
	// document of its resources is that server's.
	Remote bool
	// Stale marks a remote version whose resources may be out of date.
	Stale bool
}

// Resource is a resource of a version. Verbs and subresources are listed as given.
type Resource struct {
	Name, Singular, Kind   string
	Namespaced             bool
	Verbs                  []string
	ShortNames, Categories []string
	// StorageVersionHash is base64 of the first 8 bytes of SHA-256 of
	// "<group>/<version>/<Kind>" of the stored version; empty when nothing is stored.
	StorageVersionHash string
	Subresources       []Subresource
}

// Subresource is a subresource; Group and Version are empty when its kind is of
// the group version it is in.
type Subresource struct {
	Name, Kind, Group, Version string
	Verbs                      []string
}

// Priorities of the groups that come with the server, as their APIServices have them.
var groupPriorities = map[string]int{
	"":                             18000,
	"apiregistration.k8s.io":       20000, // has no APIService; listed before all that have
	"apps":                         17800,
	"events.k8s.io":                17750,
	"authentication.k8s.io":        17700,
	"authorization.k8s.io":         17600,
	"autoscaling":                  17500,
	"batch":                        17400,
	"certificates.k8s.io":          17300,
	"networking.k8s.io":            17200,
	"policy":                       17100,
	"rbac.authorization.k8s.io":    17000,
	"storage.k8s.io":               16800,
	"admissionregistration.k8s.io": 16700,
	"apiextensions.k8s.io":         16700,
	"scheduling.k8s.io":            16600,
	"coordination.k8s.io":          16500,
	"node.k8s.io":                  16300,
	"discovery.k8s.io":             16200,
	"resource.k8s.io":              16200,
	"flowcontrol.apiserver.k8s.io": 16100,
	"internal.apiserver.k8s.io":    16000,
	"storagemigration.k8s.io":      15800,
	"lifecycle.k8s.io":             15700,
}

// GroupPriority is the groupPriorityMinimum of a group: of those that come with
// the server their own, of groups of custom resources 1000.
func GroupPriority(group string) int {
	if p, ok := groupPriorities[group]; ok {
		return p
	}
	return 1000
}

var versionPriorities = map[[2]string]int{
	{"", "v1"}:                             1,
	{"autoscaling", "v2"}:                  30,
	{"flowcontrol.apiserver.k8s.io", "v1"}: 21,
	{"resource.k8s.io", "v1"}:              21,
}

// VersionPriority is the versionPriority of a group version: of custom resources 100.
func VersionPriority(group, version string) int {
	if p, ok := versionPriorities[[2]string{group, version}]; ok {
		return p
	}
	_, comesWithServer := groupPriorities[group]
	switch {
	case !comesWithServer:
		return 100
	case strings.Contains(version, "alpha"):
		return 1
	case strings.Contains(version, "beta"):
		return 9
	}
	return 15
}

// sorted puts groups, versions and resources in the order in which they are listed.
func sorted(groups []Group) []Group {
	out := make([]Group, 0, len(groups))
	for _, g := range groups {
		g.Priority = cmp.Or(g.Priority, GroupPriority(g.Name))
		g.Versions = slices.Clone(g.Versions)
		for i := range g.Versions {
			v := &g.Versions[i]
			v.Priority = cmp.Or(v.Priority, VersionPriority(g.Name, v.Name))
			v.Resources = slices.Clone(v.Resources)
			slices.SortStableFunc(v.Resources, func(a, b Resource) int { return cmp.Compare(a.Name, b.Name) })
		}
		slices.SortStableFunc(g.Versions, func(a, b Version) int {
			return cmp.Or(cmp.Compare(b.Priority, a.Priority), version.CompareKubeAwareVersionStrings(b.Name, a.Name))
		})
		if len(g.Versions) > 0 {
			out = append(out, g)
		}
	}
	slices.SortStableFunc(out, func(a, b Group) int {
		return cmp.Or(cmp.Compare(b.Priority, a.Priority), cmp.Compare(a.Name, b.Name))
	})
	return out
}

package server

import (
	"fmt"
	"slices"
	"strings"

	"github.com/timonel/timonel/internal/api"
	"github.com/timonel/timonel/internal/feature"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// features reads which gates are on and which API versions are served.
func (s *settled) features() (err error) {
	if s.gates, err = feature.ParseGates(s.FeatureGates); err != nil {
		return fmt.Errorf("--feature-gates: %w", err)
	}
	if s.apis, err = feature.ParseAPIs(s.RuntimeConfig, hasVersion); err != nil {
		return fmt.Errorf("--runtime-config: %w", err)
	}
	for _, r := range needed {
		if !s.apis.Serves(r) {
			return fmt.Errorf("--runtime-config: %s of %s must be served: the server itself works with them", r.Resource, r.GroupVersion())
		}
	}
	if err := only(s.EmulatedVersion, compatibleMajor+"."+compatibleMinor); err != nil {
		return fmt.Errorf("--emulated-version: %w", err)
	}
	if err := only(s.MinCompatibilityVersion, minCompatibleMajor+"."+minCompatibleMinor); err != nil {
		return fmt.Errorf("--min-compatibility-version: %w", err)
	}
	return nil
}

// needed is what the server reads and writes on its own account: to decide who may do what, to give out addresses, to know what is
// served.
var needed = []schema.GroupVersionResource{
	{Version: "v1", Resource: "namespaces"}, {Version: "v1", Resource: "pods"}, {Version: "v1", Resource: "nodes"},
	{Version: "v1", Resource: "services"}, {Version: "v1", Resource: "endpoints"}, {Version: "v1", Resource: "secrets"},
	{Version: "v1", Resource: "configmaps"}, {Version: "v1", Resource: "serviceaccounts"}, {Version: "v1", Resource: "events"},
	{Version: "v1", Resource: "limitranges"}, {Version: "v1", Resource: "resourcequotas"},
	{Version: "v1", Resource: "persistentvolumes"}, {Version: "v1", Resource: "persistentvolumeclaims"},
	{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"},
	{Group: "apiregistration.k8s.io", Version: "v1", Resource: "apiservices"},
	{Group: "certificates.k8s.io", Version: "v1", Resource: "podcertificaterequests"},
	{Group: "coordination.k8s.io", Version: "v1", Resource: "leases"},
	{Group: "discovery.k8s.io", Version: "v1", Resource: "endpointslices"},
	{Group: "flowcontrol.apiserver.k8s.io", Version: "v1", Resource: "flowschemas"},
	{Group: "flowcontrol.apiserver.k8s.io", Version: "v1", Resource: "prioritylevelconfigurations"},
	{Group: "networking.k8s.io", Version: "v1", Resource: "ipaddresses"}, {Group: "networking.k8s.io", Version: "v1", Resource: "servicecidrs"},
	{Group: "networking.k8s.io", Version: "v1", Resource: "ingressclasses"},
	{Group: "node.k8s.io", Version: "v1", Resource: "runtimeclasses"},
	{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "roles"}, {Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "rolebindings"},
	{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "clusterroles"}, {Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "clusterrolebindings"},
	{Group: "resource.k8s.io", Version: "v1", Resource: "resourceslices"},
	{Group: "scheduling.k8s.io", Version: "v1", Resource: "priorityclasses"},
	{Group: "storage.k8s.io", Version: "v1", Resource: "storageclasses"}, {Group: "storage.k8s.io", Version: "v1", Resource: "volumeattachments"},
}

// unstored are the groups of reviews, which are wired apart from the others.
var unstored = []string{"authentication.k8s.io", "authorization.k8s.io"}

// hasVersion reports whether there is such a group version, or, without a version, such a group.
func hasVersion(gv schema.GroupVersion) bool {
	if slices.Contains(unstored, gv.Group) {
		return gv.Version == "" || gv.Version == "v1"
	}
	for _, d := range api.Groups(api.Options{}) {
		if d.Group == gv.Group && (gv.Version == "" || d.Version == gv.Version) {
			return true
		}
	}
	return false
}

// only refuses every version but one. A version may have a component in front: "kube=1.37".
func only(versions []string, served string) error {
	for _, v := range versions {
		if component, version, named := strings.Cut(v, "="); named {
			if component != "kube" {
				return fmt.Errorf("component not registered: %s", component)
			}
			v = version
		}
		if v != served {
			return fmt.Errorf("%s is not supported: it must be %s", v, served)
		}
	}
	return nil
}

// sayIdle warns of gates that are known and change nothing here.
func (s *settled) sayIdle() {
	if idle := s.gates.Idle(); len(idle) > 0 {
		s.Log.Warn("feature gates that change nothing in this server", "gates", strings.Join(idle, ","))
	}
}

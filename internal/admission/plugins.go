package admission

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/timonel/timonel/internal/authz"
	"github.com/timonel/timonel/internal/kind"
)

// order is every admission plug-in of Kubernetes 1.37, in the order in which they run whatever the order
// of the flags, and whether it is on by default (Kubernetes documentation, "Admission Control in Kubernetes").
var order = []struct {
	name string
	on   bool
}{
	{"AlwaysAdmit", false},
	{"NamespaceAutoProvision", false},
	{"NamespaceLifecycle", true},
	{"NamespaceExists", false},
	{"LimitPodHardAntiAffinityTopology", false},
	{"LimitRanger", true},
	{"ServiceAccount", true},
	{"NodeRestriction", false},
	{"TaintNodesByCondition", true},
	{"AlwaysPullImages", false},
	{"ImagePolicyWebhook", false},
	{"PodSecurity", true},
	{"PodNodeSelector", false},
	{"Priority", true},
	{"DefaultTolerationSeconds", true},
	{"PodTolerationRestriction", false},
	{"EventRateLimit", false},
	{"ExtendedResourceToleration", false},
	{"DefaultStorageClass", true},
	{"StorageObjectInUseProtection", true},
	{"PodGroupProtection", true},
	{"OwnerReferencesPermissionEnforcement", false},
	{"PersistentVolumeClaimResize", true},
	{"RuntimeClass", true},
	{"CertificateApproval", true},
	{"CertificateSigning", true},
	{"ClusterTrustBundleAttest", true},
	{"CertificateSubjectRestriction", true},
	{"DefaultIngressClass", true},
	{"DenyServiceExternalIPs", false},
	{"PodTopologyLabels", true},
	{"NodeDeclaredFeatureValidator", true},
	{"PodResizeValidator", true},
	{"MutatingAdmissionPolicy", true},
	{"MutatingAdmissionWebhook", true},
	{"ValidatingAdmissionPolicy", true},
	{"ValidatingAdmissionWebhook", true},
	{"ResourceQuota", true},
	{"AlwaysDeny", false},
}

// BuiltinOptions is what plug-ins need besides the stored objects. The zero value of a field leaves
// out the plug-ins that cannot work without it.
type BuiltinOptions struct {
	// Shared reads what many requests look at and nobody changes: namespaces, service accounts, priority classes. It is like the
	// reader, but its objects are not the caller's own. nil: the reader.
	Shared kind.Reader
	// Objects lets ResourceQuota charge quotas and NamespaceAutoProvision create namespaces.
	Objects kind.Objects
	// Authorizer is asked by the plug-ins about certificates, trust bundles and owner references.
	Authorizer authz.Authorizer
	// Catalog is asked which resource serves the kind of an owner reference.
	Catalog *kind.Live
	// Fresh returns when the Reader shows everything that was committed before the call. nil: the
	// Reader is taken at its word.
	Fresh func(ctx context.Context) error

	NotReadyTolerationSeconds    *int64 // --default-not-ready-toleration-seconds; nil: 300
	UnreachableTolerationSeconds *int64 // --default-unreachable-toleration-seconds; nil: 300

	PodSecurity     PodSecurityOptions
	EventRateLimits []EventRateLimit // none: EventRateLimit cannot be enabled
	// NodeSelectors is the configuration of PodNodeSelector: a namespace's name to the selector that
	// the node selectors of its pods must be part of, and "clusterDefaultNodeSelector".
	NodeSelectors map[string]string

	// Others are plug-ins that are made elsewhere (NodeRestriction, webhooks, policies). Each takes the place that its
	// name has in the order; one with a name that is not in it runs last and is on by default.
	Others []Plugin
}

// Builtin makes the admission plug-ins, in the order in which they run; [Select] chooses among them.
// Every plug-in reads stored objects through reader, or Shared.
func Builtin(reader kind.Reader, options BuiltinOptions) []Plugin {
	c := &cluster{Reader: reader, BuiltinOptions: options}
	plugins := []Plugin{
		alwaysAdmit(), c.namespaceLifecycle(), c.namespaceExists(), limitPodHardAntiAffinityTopology(), c.limitRanger(), c.serviceAccount(),
		taintNodesByCondition(), alwaysPullImages(), c.podSecurity(), c.podNodeSelector(), c.priority(), c.defaultTolerationSeconds(),
		c.podTolerationRestriction(), extendedResourceToleration(), c.defaultStorageClass(), storageObjectInUseProtection(),
		c.persistentVolumeClaimResize(), c.runtimeClass(), certificateSubjectRestriction(), c.defaultIngressClass(),
		denyServiceExternalIPs(), c.podTopologyLabels(), c.nodeDeclaredFeatureValidator(), c.podResizeValidator(), alwaysDeny(),
	}
	if options.Objects != nil {
		plugins = append(plugins, c.namespaceAutoProvision(), c.resourceQuota())
	}
	if options.Authorizer != nil {
		plugins = append(plugins, c.certificateApproval(), c.certificateSigning(), c.clusterTrustBundleAttest())
		if options.Catalog != nil {
			plugins = append(plugins, c.ownerReferencesPermissionEnforcement())
		}
	}
	if len(options.EventRateLimits) > 0 {
		plugins = append(plugins, eventRateLimit(options.EventRateLimits))
	}
	plugins = append(plugins, options.Others...)
	slices.SortStableFunc(plugins, func(a, b Plugin) int { return place(a.Name) - place(b.Name) })
	return plugins
}

// place is where a plug-in stands in the order; one that is not known stands at the end.
func place(name string) int {
	for i := range order {
		if order[i].name == name {
			return i
		}
	}
	return len(order)
}

// Select returns the plug-ins that are in force: those that are on by default or enabled and
// not disabled. The names are those of --enable-admission-plugins and --disable-admission-plugins. It is an error to
// name a plug-in that Kubernetes does not have, to name one in both lists, or to enable one that is not among all.
func Select(all []Plugin, enable, disable []string) (Chain, error) {
	var problems []error
	check := func(flag string, names []string) {
		for _, name := range names {
			if place(name) == len(order) && !slices.ContainsFunc(all, func(p Plugin) bool { return p.Name == name }) {
				problems = append(problems, fmt.Errorf("%s plugin %q is unknown", flag, name))
			}
		}
	}
	check("enable-admission-plugins", enable)
	check("disable-admission-plugins", disable)
	var both []string
	for _, name := range enable {
		if slices.Contains(disable, name) {
			both = append(both, name)
		}
	}
	if len(both) > 0 {
		slices.Sort(both)
		problems = append(problems, fmt.Errorf("%v in enable-admission-plugins and disable-admission-plugins overlapped", slices.Compact(both)))
	}
	for _, name := range enable {
		if place(name) < len(order) && !slices.ContainsFunc(all, func(p Plugin) bool { return p.Name == name }) {
			problems = append(problems, fmt.Errorf("enable-admission-plugins plugin %q is not supported: %s", name, whyMissing(name)))
		}
	}
	if len(problems) > 0 {
		return nil, errors.Join(problems...)
	}
	var chain Chain
	for _, p := range all {
		i := place(p.Name)
		on := i == len(order) || order[i].on
		if (on || slices.Contains(enable, p.Name)) && !slices.Contains(disable, p.Name) {
			chain = append(chain, p)
		}
	}
	return chain, nil
}

func whyMissing(name string) string {
	switch {
	case name == "EventRateLimit":
		return "no limits are configured"
	case name == "ImagePolicyWebhook", strings.HasSuffix(name, "Webhook"), strings.HasSuffix(name, "Policy"):
		return "this server does not call webhooks or evaluate policies of that kind"
	}
	return "this server does not have it"
}

func alwaysAdmit() Plugin {
	return Plugin{Name: "AlwaysAdmit"}
}

// alwaysDeny refuses everything, for tests.
func alwaysDeny() Plugin {
	refuse := func(_ context.Context, r *Request) error {
		return r.Forbidden("admission control is denying all modifications")
	}
	return Plugin{Name: "AlwaysDeny", Change: refuse, Check: refuse}
}

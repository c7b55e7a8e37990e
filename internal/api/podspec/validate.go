package podspec

import (
	"math"

	"github.com/timonel/timonel/internal/api/check"
	"github.com/timonel/timonel/internal/feature"
	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
)

// Rules are what validation must be told that the specification does not say.
type Rules struct {
	// AllowPrivileged permits privileged containers in the cluster.
	AllowPrivileged bool
	// Gates are those of the server: fields of features that are off are dropped.
	Gates feature.Gates
	// Claims names the volumes that the owner of a template adds to each pod: a StatefulSet's volumeClaimTemplates.
	Claims []string
}

// checker checks one specification.
type checker struct {
	Rules
	pod     *corev1.Pod // that the specification is of; nil: it is a template's
	mirror  bool        // the pod mirrors one on a node's disk
	spec    *corev1.PodSpec
	volumes map[string]*corev1.Volume // the valid ones
	claims  map[string]bool           // names in spec.resourceClaims
	before  *corev1.PodSpec           // on update: what passes because it was there already
}

// ValidateTemplate checks a pod template, besides what its owner demands of its labels and restart policy.
func ValidateTemplate(t *corev1.PodTemplateSpec, rules Rules, path *field.Path) field.ErrorList {
	return ValidateTemplateUpdate(t, nil, rules, path)
}

// ValidateTemplateUpdate is ValidateTemplate for one that replaces old: addresses that old has already may stay as they are.
func ValidateTemplateUpdate(t, old *corev1.PodTemplateSpec, rules Rules, path *field.Path) field.ErrorList {
	errs := check.Labels(t.Labels, path.Child("labels"))
	errs = append(errs, apivalidation.ValidateAnnotations(t.Annotations, path.Child("annotations"))...)
	c := checker{Rules: rules, spec: &t.Spec}
	var annotations map[string]string
	if old != nil {
		c.before, annotations = &old.Spec, old.Annotations
	}
	errs = append(errs, validateAnnotations(t.Annotations, annotations, &t.Spec, path.Child("annotations"))...)
	errs = append(errs, c.all(path.Child("spec"))...)
	if len(t.Spec.EphemeralContainers) > 0 {
		errs = append(errs, field.Forbidden(path.Child("spec", "ephemeralContainers"), "ephemeral containers not allowed in pod template"))
	}
	return errs
}

// ValidatePod checks a new pod.
func ValidatePod(p *corev1.Pod, rules Rules) field.ErrorList {
	spec := field.NewPath("spec")
	errs := validatePod(p, nil, rules)
	if len(p.Spec.EphemeralContainers) > 0 {
		errs = append(errs, field.Forbidden(spec.Child("ephemeralContainers"), "cannot be set on create"))
	}
	if p.Spec.NodeName != "" && len(p.Spec.SchedulingGates) > 0 {
		errs = append(errs, field.Forbidden(spec.Child("nodeName"), "cannot be set until all schedulingGates have been cleared"))
	}
	return append(errs, appArmorAgrees(p)...)
}

func validatePod(p, old *corev1.Pod, rules Rules) field.ErrorList {
	_, mirror := p.Annotations[corev1.MirrorPodAnnotationKey]
	c := checker{Rules: rules, pod: p, mirror: mirror, spec: &p.Spec}
	spec := field.NewPath("spec")
	var annotations map[string]string
	if old != nil {
		c.before, annotations = &old.Spec, old.Annotations
	}
	errs := validateAnnotations(p.Annotations, annotations, &p.Spec, field.NewPath("metadata", "annotations"))
	errs = append(errs, c.all(spec)...)
	return append(errs, c.checkPodOnly(spec)...)
}

// all checks the specification from top to bottom.
func (c *checker) all(path *field.Path) field.ErrorList {
	s := c.spec
	errs := c.checkVolumes(path.Child("volumes"))
	errs = append(errs, c.checkClaims(path.Child("resourceClaims"))...)
	errs = append(errs, c.checkContainers(path)...)
	if s.Resources != nil {
		errs = append(errs, c.checkPodResources(path.Child("resources"))...)
	}
	errs = append(errs, c.checkHostNetwork(path)...)
	errs = append(errs, check.RequiredOneOf(s.RestartPolicy, path.Child("restartPolicy"),
		corev1.RestartPolicyAlways, corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever)...)
	errs = append(errs, check.RequiredOneOf(s.DNSPolicy, path.Child("dnsPolicy"),
		corev1.DNSClusterFirstWithHostNet, corev1.DNSClusterFirst, corev1.DNSDefault, corev1.DNSNone)...)
	errs = append(errs, check.Labels(s.NodeSelector, path.Child("nodeSelector"))...)
	errs = append(errs, c.checkPodSecurity(path)...)
	errs = append(errs, c.checkAffinity(path.Child("affinity"))...)
	errs = append(errs, c.checkDNS(path.Child("dnsConfig"))...)
	for i, g := range s.ReadinessGates {
		errs = append(errs, check.Each(path.Child("readinessGates").Index(i).Child("conditionType"), g.ConditionType, check.QualifiedName(string(g.ConditionType)))...)
	}
	errs = append(errs, c.checkGates(path.Child("schedulingGates"))...)
	errs = append(errs, c.checkSpread(path.Child("topologySpreadConstraints"))...)
	errs = append(errs, c.checkHostProcess(path)...)
	errs = append(errs, c.checkHostUsers(path)...)
	errs = append(errs, check.Form(s.ServiceAccountName, path.Child("serviceAccountName"), check.Subdomain)...)
	errs = append(errs, check.Form(s.NodeName, path.Child("nodeName"), check.Subdomain)...)
	if s.ActiveDeadlineSeconds != nil {
		errs = append(errs, check.Range(*s.ActiveDeadlineSeconds, 1, math.MaxInt32, path.Child("activeDeadlineSeconds"))...)
	}
	errs = append(errs, c.checkHostname(path)...)
	errs = append(errs, ValidateTolerations(s.Tolerations, path.Child("tolerations"))...)
	errs = append(errs, c.checkHostAliases(path.Child("hostAliases"))...)
	errs = append(errs, check.Form(s.PriorityClassName, path.Child("priorityClassName"), check.Subdomain)...)
	if s.RuntimeClassName != nil {
		errs = append(errs, check.Each(path.Child("runtimeClassName"), *s.RuntimeClassName, check.SubdomainName(*s.RuntimeClassName, false))...)
	}
	if s.PreemptionPolicy != nil {
		errs = append(errs, check.RequiredOneOf(*s.PreemptionPolicy, path.Child("preemptionPolicy"), corev1.PreemptLowerPriority, corev1.PreemptNever)...)
	}
	if s.Overhead != nil {
		errs = append(errs, ValidateOverhead(s.Overhead, path.Child("overhead"))...)
	}
	if g := s.SchedulingGroup; g != nil {
		errs = append(errs, checkSchedulingGroup(g, path.Child("schedulingGroup"))...)
	}
	errs = append(errs, c.checkResponders(path)...)
	return append(errs, c.checkOS(path)...)
}

func (c *checker) checkHostname(path *field.Path) field.ErrorList {
	s := c.spec
	errs := check.Form(s.Hostname, path.Child("hostname"), check.Label)
	errs = append(errs, check.Form(s.Subdomain, path.Child("subdomain"), check.Label)...)
	if s.HostnameOverride == nil {
		return errs
	}
	at := path.Child("hostnameOverride")
	errs = append(errs, check.Each(at, *s.HostnameOverride, check.Subdomain(*s.HostnameOverride))...)
	if n := len(*s.HostnameOverride); n > maxHostnameOverride {
		errs = append(errs, field.TooLong(at, *s.HostnameOverride, maxHostnameOverride))
	}
	if s.SetHostnameAsFQDN != nil && *s.SetHostnameAsFQDN {
		errs = append(errs, field.Forbidden(path.Child("setHostnameAsFQDN"), "may not be set to true when `hostnameOverride` is specified"))
	}
	if s.HostNetwork {
		errs = append(errs, field.Forbidden(at, "may not be set when `hostNetwork` is true"))
	}
	return errs
}

// maxHostnameOverride is the longest name that the kernel keeps.
const maxHostnameOverride = 64

// checkClaims checks the names and sources of resource claims (KEP-4381).
func (c *checker) checkClaims(path *field.Path) field.ErrorList {
	c.claims = map[string]bool{}
	var errs field.ErrorList
	for i, claim := range c.spec.ResourceClaims {
		at := path.Index(i)
		if c.mirror {
			errs = append(errs, field.Forbidden(field.NewPath(""), "static pods do not support resource claims"))
		}
		switch {
		case claim.Name == "":
			errs = append(errs, field.Required(at.Child("name"), ""))
		case c.claims[claim.Name]:
			errs = append(errs, field.Duplicate(at.Child("name"), claim.Name))
		default:
			errs = append(errs, check.Each(at.Child("name"), claim.Name, check.Label(claim.Name))...)
			c.claims[claim.Name] = true
		}
		switch {
		case claim.ResourceClaimName != nil && claim.ResourceClaimTemplateName != nil:
			errs = append(errs, field.Invalid(at, check.GoNames(claim), "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified"))
		case claim.ResourceClaimName == nil && claim.ResourceClaimTemplateName == nil:
			errs = append(errs, field.Invalid(at, check.GoNames(claim), "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`"))
		}
		if name := claim.ResourceClaimName; name != nil {
			errs = append(errs, check.Each(at.Child("resourceClaimName"), *name, check.Subdomain(*name))...)
		}
		if name := claim.ResourceClaimTemplateName; name != nil {
			errs = append(errs, check.Each(at.Child("resourceClaimTemplateName"), *name, check.Subdomain(*name))...)
		}
	}
	return errs
}

// checkPodResources checks what the pod as a whole asks for against what its containers ask for (KEP-2837).
func (c *checker) checkPodResources(path *field.Path) field.ErrorList {
	r := c.spec.Resources
	var errs field.ErrorList
	if len(r.Claims) > 0 {
		errs = append(errs, field.Forbidden(path.Child("claims"), "claims may not be set for Resources at pod-level"))
	}
	errs = append(errs, check.ContainerResources(r, path, podLevelName, c.before != nil && oddPages(c.before))...)
	total := Requests(c.spec)
	requests := path.Child("requests")
	for _, name := range check.Sorted(total) {
		sum := total[name]
		if pod, given := r.Requests[name]; given && podLevelResource(name) && pod.Cmp(sum) < 0 {
			errs = append(errs, field.Invalid(requests.Key(string(name)), pod.String(), "must be greater than or equal to aggregate container requests of "+sum.String()))
		}
	}
	limits := func(containers []corev1.Container, at *field.Path) {
		for i := range containers {
			for _, name := range check.Sorted(containers[i].Resources.Limits) {
				q := containers[i].Resources.Limits[name]
				if pod, given := r.Limits[name]; given && podLevelResource(name) && q.Cmp(pod) > 0 {
					errs = append(errs, field.Invalid(at.Index(i).Key(string(name)).Child("limits"), q.String(), "must be less than or equal to pod limits of "+pod.String()))
				}
			}
		}
	}
	limits(c.spec.Containers, path.Child("containers"))
	limits(c.spec.InitContainers, path.Child("initContainers"))
	return errs
}

func podLevelName(name corev1.ResourceName, path *field.Path) field.ErrorList {
	if errs := check.ResourceName(name, path); errs != nil {
		return errs
	}
	if !podLevelResource(name) {
		return field.ErrorList{field.NotSupported(path, name, []corev1.ResourceName{corev1.ResourceCPU, "hugepages-", corev1.ResourceMemory})}
	}
	return nil
}

func (c *checker) checkGates(path *field.Path) field.ErrorList {
	var errs field.ErrorList
	seen := map[string]bool{}
	for i, g := range c.spec.SchedulingGates {
		errs = append(errs, check.Each(path.Index(i), g.Name, check.QualifiedName(g.Name))...)
		if seen[g.Name] {
			errs = append(errs, field.Duplicate(path.Index(i), g.Name))
		}
		seen[g.Name] = true
	}
	return errs
}

// Bounds on DNS settings (glibc's, and what all supported container runtimes take).
const (
	maxNameservers     = 3
	maxSearchDomains   = 32
	maxSearchListChars = 2048
)

func (c *checker) checkDNS(path *field.Path) field.ErrorList {
	d := c.spec.DNSConfig
	var errs field.ErrorList
	if c.spec.DNSPolicy == corev1.DNSNone {
		if d == nil {
			return field.ErrorList{field.Required(path, "must provide `dnsConfig` when `dnsPolicy` is None")}
		}
		if len(d.Nameservers) == 0 {
			errs = append(errs, field.Required(path.Child("nameservers"), "must provide at least one DNS nameserver when `dnsPolicy` is None"))
		}
	}
	if d == nil {
		return errs
	}
	servers, searches := path.Child("nameservers"), path.Child("searches")
	if len(d.Nameservers) > maxNameservers {
		errs = append(errs, field.Invalid(servers, d.Nameservers, "must not have more than 3 nameservers"))
	}
	var before []string
	if c.before != nil && c.before.DNSConfig != nil {
		before = c.before.DNSConfig.Nameservers
	}
	for i, ip := range d.Nameservers {
		errs = append(errs, check.IP(ip, servers.Index(i), before...)...)
	}
	if len(d.Searches) > maxSearchDomains {
		errs = append(errs, field.Invalid(searches, d.Searches, "must not have more than 32 search paths"))
	}
	length := len(d.Searches) - 1 // the blanks between them
	for i, search := range d.Searches {
		length += len(search)
		if search != "." {
			name := search
			if len(name) > 1 && name[len(name)-1] == '.' {
				name = name[:len(name)-1]
			}
			errs = append(errs, check.Each(searches.Index(i), search, validation.IsDNS1123SubdomainWithUnderscore(name))...)
		}
	}
	if length > maxSearchListChars {
		errs = append(errs, field.Invalid(searches, d.Searches, "must not have more than 2048 characters (including spaces) in the search list"))
	}
	for i, o := range d.Options {
		if o.Name == "" {
			errs = append(errs, field.Required(path.Child("options").Index(i), "must not be empty"))
		}
	}
	return errs
}

func (c *checker) checkHostAliases(path *field.Path) field.ErrorList {
	var before []string
	if c.before != nil {
		for _, a := range c.before.HostAliases {
			before = append(before, a.IP)
		}
	}
	var errs field.ErrorList
	for i, a := range c.spec.HostAliases {
		errs = append(errs, check.IP(a.IP, path.Index(i).Child("ip"), before...)...)
		for j, name := range a.Hostnames {
			errs = append(errs, check.Each(path.Index(i).Child("hostnames").Index(j), name, check.Subdomain(name))...)
		}
	}
	return errs
}

// checkHostUsers: a pod with user IDs of its own (KEP-127) shares nothing else with its host.
func (c *checker) checkHostUsers(path *field.Path) field.ErrorList {
	s := c.spec
	if ptr.Deref(s.HostUsers, true) {
		return nil
	}
	var errs field.ErrorList
	forbid := func(set bool, name string) {
		if set {
			errs = append(errs, field.Forbidden(path.Child(name), "when `hostUsers` is false"))
		}
	}
	if s.HostNetwork {
		errs = append(errs, field.Forbidden(path.Child("hostNetwork"), "when `hostUsers` is false"))
	}
	forbid(s.HostPID, "HostPID")
	forbid(s.HostIPC, "HostIPC")
	eachLifecycle(s, func(ctr *corev1.Container) {
		if len(ctr.VolumeDevices) > 0 {
			errs = append(errs, field.Forbidden(path.Child("hostUsers"), "volumeDevices cannot be used when `hostUsers` is false"))
		}
	})
	return errs
}

package core

import (
	"encoding/json"
	"strings"

	"github.com/timonel/timonel/internal/api/check"
	"github.com/timonel/timonel/internal/api/podspec"
	"github.com/timonel/timonel/internal/api/show"
	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Node is a machine that runs pods. Its node agent writes its status.
func node() *kind.Definition {
	info, status := corev1.NodeSystemInfo{}.SwaggerDoc(), corev1.NodeStatus{}.SwaggerDoc()
	return &kind.Definition{
		Version: "v1", Kind: "Node", Plural: "nodes", ShortNames: []string{"no"},
		Scope: kind.Cluster, Verbs: kind.Standard,
		Stored:         kind.Stored{Prefix: "minions", TellsEmpty: true},
		New:            kind.Of[corev1.Node](),
		Default:        kind.Default(defaultNode),
		PrepareCreate:  kind.Prepare(func(n *corev1.Node) { n.Spec.ConfigSource, n.Status.Config = nil, nil }),
		PrepareUpdate:  kind.PrepareUpdate(prepareNodeUpdate),
		Validate:       kind.Validate(validateNode),
		ValidateUpdate: kind.ValidateUpdate(validateNodeUpdate),
		Warnings:       kind.Warn(warnNode),
		Fields:         []kind.Field{{Label: "spec.unschedulable"}},
		FieldsUnknown:  labelNotSupported,
		Columns: kind.Columns{
			{Name: "Status", Description: "The status of the node", Of: kind.Cell(nodeStatusCell)},
			{Name: "Roles", Description: "The roles of the node", Of: kind.Cell(nodeRoles)},
			kind.Age,
			{Name: "Version", Description: info["kubeletVersion"], Of: kind.Cell(func(n *corev1.Node) any { return n.Status.NodeInfo.KubeletVersion })},
			{Name: "Internal-IP", Wide: true, Description: status["addresses"], Of: nodeAddress(corev1.NodeInternalIP)},
			{Name: "External-IP", Wide: true, Description: status["addresses"], Of: nodeAddress(corev1.NodeExternalIP)},
			{Name: "OS-Image", Wide: true, Description: info["osImage"], Of: kind.Cell(func(n *corev1.Node) any {
				return show.Or(n.Status.NodeInfo.OSImage, show.Unknown)
			})},
			{Name: "Kernel-Version", Wide: true, Description: info["kernelVersion"], Of: kind.Cell(nodeKernel)},
			{Name: "Container-Runtime", Wide: true, Description: info["containerRuntimeVersion"], Of: kind.Cell(func(n *corev1.Node) any {
				return show.Or(n.Status.NodeInfo.ContainerRuntimeVersion, show.Unknown)
			})},
		},
		ColumnFields: []string{
			"metadata.labels",
			"spec.unschedulable",
			"status.conditions.type", "status.conditions.status", "status.addresses", "status.nodeInfo.kubeletVersion", "status.nodeInfo.osImage",
			"status.nodeInfo.kernelVersion", "status.nodeInfo.architecture", "status.nodeInfo.containerRuntimeVersion",
		},
		Subresources: map[string]*kind.Subresource{
			"status": kind.Status(prepareNodeStatus, validateNodeUpdate),
			"proxy":  connect("NodeProxyOptions", proxyVerbs),
		},
	}
}

func defaultNode(n *corev1.Node) {
	switch {
	case n.Spec.PodCIDR != "" && (len(n.Spec.PodCIDRs) == 0 || n.Spec.PodCIDRs[0] != n.Spec.PodCIDR):
		n.Spec.PodCIDRs = []string{n.Spec.PodCIDR}
	case n.Spec.PodCIDR == "" && len(n.Spec.PodCIDRs) > 0:
		n.Spec.PodCIDR = n.Spec.PodCIDRs[0]
	}
	podspec.RoundUp(n.Status.Capacity)
	podspec.RoundUp(n.Status.Allocatable)
	if n.Status.Allocatable == nil {
		n.Status.Allocatable = n.Status.Capacity.DeepCopy()
	}
}

// prepareNodeUpdate keeps the status, and nothing new of the configuration that nodes once took from ConfigMaps.
func prepareNodeUpdate(n, old *corev1.Node) {
	n.Status = old.Status
	if old.Spec.ConfigSource == nil {
		n.Spec.ConfigSource = nil
	}
}

func prepareNodeStatus(n, old *corev1.Node) {
	n.Spec = old.Spec
	if old.Status.Config == nil {
		n.Status.Config = nil
	}
}

func validateNode(n *corev1.Node) field.ErrorList {
	errs := validateNodeTaints(n)
	errs = append(errs, validateNodeResources(n)...)
	errs = append(errs, validatePodCIDRs(n.Spec.PodCIDRs, field.NewPath("spec", "podCIDRs"))...)
	return append(errs, validatePreemption(n)...)
}

// validateNodeTaints. Parity: the path says metadata.
func validateNodeTaints(n *corev1.Node) field.ErrorList {
	path := field.NewPath("metadata")
	var errs field.ErrorList
	if text := n.Annotations[corev1.TaintsAnnotationKey]; text != "" { // where taints once stood
		var taints []corev1.Taint
		if err := json.Unmarshal([]byte(text), &taints); err != nil {
			errs = append(errs, field.Invalid(path.Child("annotations"), corev1.TaintsAnnotationKey, err.Error()))
		}
		errs = append(errs, validateTaints(taints, path.Child("annotations", corev1.TaintsAnnotationKey))...)
	}
	return append(errs, validateTaints(n.Spec.Taints, path.Child("taints"))...)
}

// validatePreemption: the field is one of the feature InPlacePodVerticalScalingSchedulerPreemption, which is off.
func validatePreemption(n *corev1.Node) field.ErrorList {
	if n.Spec.PodPreemptionPolicy == nil {
		return nil
	}
	return field.ErrorList{field.Forbidden(field.NewPath("spec", "podPreemptionPolicy"), "")}
}

// validateNodeResources. Parity: the names of resources are steps of the path, not keys.
func validateNodeResources(n *corev1.Node) field.ErrorList {
	var errs field.ErrorList
	amounts := func(list corev1.ResourceList, path *field.Path) {
		for _, name := range check.Sorted(list) {
			errs = append(errs, check.Quantity(name, list[name], path.Child(string(name)))...)
		}
	}
	amounts(n.Status.Capacity, field.NewPath("status", "capacity"))
	amounts(n.Status.Allocatable, field.NewPath("status", "allocatable"))
	return errs
}

func validatePodCIDRs(cidrs []string, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, c := range cidrs {
		errs = append(errs, check.CIDR(c, path.Index(i))...)
	}
	if len(cidrs) < 2 || errs != nil {
		return errs
	}
	if v4, v6 := check.Families(cidrs); v4 != 1 || v6 != 1 {
		errs = append(errs, field.Invalid(path, cidrs, "may specify no more than one CIDR for each IP family"))
	}
	return errs
}

func validateTaints(taints []corev1.Taint, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	type pair struct{ key, effect string }
	seen := map[pair]bool{}
	for i, t := range taints {
		at := path.Index(i)
		errs = append(errs, check.Each(at.Child("key"), t.Key, check.QualifiedName(t.Key))...)
		if messages := validation.IsValidLabelValue(t.Value); messages != nil {
			errs = append(errs, field.Invalid(at.Child("value"), t.Value, strings.Join(messages, ";")))
		}
		errs = append(errs, check.RequiredOneOf(t.Effect, at.Child("effect"),
			corev1.TaintEffectNoSchedule, corev1.TaintEffectPreferNoSchedule, corev1.TaintEffectNoExecute)...)
		p := pair{t.Key, string(t.Effect)}
		if seen[p] {
			e := field.Duplicate(at, check.GoNames(t))
			e.Detail = "taints must be unique by key and effect pair"
			errs = append(errs, e)
			continue
		}
		seen[p] = true
	}
	return errs
}

func validateNodeUpdate(n, old *corev1.Node) field.ErrorList {
	errs := validateNodeResources(n)
	spec := field.NewPath("spec")
	addresses := map[corev1.NodeAddress]bool{}
	for i, a := range n.Status.Addresses {
		if addresses[a] {
			errs = append(errs, field.Duplicate(field.NewPath("status", "addresses").Index(i), check.GoNames(a)))
		}
		addresses[a] = true
	}
	if len(old.Spec.PodCIDRs) == 0 {
		errs = append(errs, validatePodCIDRs(n.Spec.PodCIDRs, spec.Child("podCIDRs"))...)
	} else if !equality.Semantic.DeepEqual(n.Spec.PodCIDRs, old.Spec.PodCIDRs) {
		errs = append(errs, field.Forbidden(spec.Child("podCIDRs"), "node updates may not change podCIDR except from \"\" to valid"))
	}
	errs = append(errs, validateNodeTaints(n)...)
	if n.Spec.DoNotUseExternalID != old.Spec.DoNotUseExternalID {
		errs = append(errs, field.Forbidden(spec.Child("externalID"), "may not be updated"))
	}
	if old.Spec.ProviderID != "" && n.Spec.ProviderID != old.Spec.ProviderID {
		errs = append(errs, field.Invalid(spec.Child("providerID"), nil, "field cannot be modified once set"))
	}
	return append(errs, validatePreemption(n)...)
}

func warnNode(n, _ *corev1.Node) []string {
	var warnings []string
	if n.Spec.ConfigSource != nil {
		warnings = append(warnings, "spec.configSource: the feature is no longer supported")
	}
	if n.Spec.DoNotUseExternalID != "" {
		warnings = append(warnings, "spec.externalID: this field is deprecated, and is unused by Kubernetes")
	}
	for i, c := range n.Spec.PodCIDRs {
		warnings = append(warnings, validation.GetWarningsForCIDR(field.NewPath("spec", "podCIDRs").Index(i), c)...)
	}
	return warnings
}

func nodeStatusCell(n *corev1.Node) any {
	shown := "Unknown"
	for _, c := range n.Status.Conditions {
		if c.Type != corev1.NodeReady {
			continue
		}
		if shown = "NotReady"; c.Status == corev1.ConditionTrue {
			shown = "Ready"
		}
	}
	if n.Spec.Unschedulable {
		shown += ",SchedulingDisabled"
	}
	return shown
}

const (
	roleLabelPrefix = "node-role.kubernetes.io/"
	roleLabel       = "kubernetes.io/role"
)

func nodeRoles(n *corev1.Node) any {
	var roles []string
	for k, v := range n.Labels {
		if role, ok := strings.CutPrefix(k, roleLabelPrefix); ok && role != "" {
			roles = append(roles, role)
		} else if k == roleLabel && v != "" {
			roles = append(roles, v)
		}
	}
	return show.Or(strings.Join(show.Distinct(roles), ","), show.None)
}

func nodeKernel(n *corev1.Node) any {
	kernel := show.Or(n.Status.NodeInfo.KernelVersion, show.Unknown)
	if a := n.Status.NodeInfo.Architecture; a != "" && kernel != show.Unknown {
		kernel += " (" + a + ")"
	}
	return kernel
}

func nodeAddress(kindOf corev1.NodeAddressType) func(object.Object) any {
	return kind.Cell(func(n *corev1.Node) any {
		for _, a := range n.Status.Addresses {
			if a.Type == kindOf {
				return a.Address
			}
		}
		return show.None
	})
}

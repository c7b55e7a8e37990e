package core

import (
	"github.com/timonel/timonel/internal/api/podspec"
	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Pod is a group of containers on one node, and the unit that everything else is made of.
func pod(rules podspec.Rules) *kind.Definition {
	return &kind.Definition{
		Version: "v1", Kind: "Pod", Plural: "pods", ShortNames: []string{"po"}, Categories: []string{"all"},
		Scope: kind.Namespaced, Verbs: kind.Standard,
		New:            kind.Of[corev1.Pod](),
		Default:        kind.Default(podspec.DefaultPod),
		PrepareCreate:  kind.Prepare(func(p *corev1.Pod) { preparePod(p, rules) }),
		PrepareUpdate:  kind.PrepareUpdate(func(p, old *corev1.Pod) { preparePodUpdate(p, old, rules) }),
		Generation:     kind.Changed(func(p, old *corev1.Pod) bool { return !object.Equal(&p.Spec, &old.Spec) }),
		Validate:       kind.Validate(func(p *corev1.Pod) field.ErrorList { return podspec.ValidatePod(p, rules) }),
		ValidateUpdate: kind.ValidateUpdate(func(p, old *corev1.Pod) field.ErrorList { return podspec.ValidatePodUpdate(p, old, rules) }),
		Warnings:       kind.Warn(podspec.WarnPod),
		Grace:          podGrace,
		ReturnsDeleted: true,
		Fields: []kind.Field{
			{Label: "spec.nodeName", Indexed: true}, {Label: "spec.host", Path: "spec.nodeName"}, {Label: "spec.restartPolicy"}, {Label: "spec.schedulerName"},
			{Label: "spec.serviceAccountName"}, {Label: "spec.hostNetwork"}, {Label: "status.phase"},
			{Label: "status.podIP"}, {Label: "status.podIPs", Path: "status.podIP"}, {Label: "status.nominatedNodeName"},
		},
		FieldsUnknown: labelNotSupported,
		Columns:       podColumns(),
		ColumnFields:  podColumnFields,
		Conditions:    podRowConditions,
		Subresources: map[string]*kind.Subresource{
			"status": kind.Status(preparePodStatus, func(p, old *corev1.Pod) field.ErrorList {
				return podspec.ValidatePodStatusUpdate(p, old, rules)
			}).Resetting("metadata.ownerReferences"),
			"ephemeralcontainers": {Verbs: kind.ReadWrite, View: &kind.View{
				Prepare:  kind.PrepareUpdate(prepareEphemeralContainers),
				Validate: kind.ValidateUpdate(func(p, old *corev1.Pod) field.ErrorList { return podspec.ValidateEphemeralUpdate(p, old, rules) }),
				Warnings: kind.Warn(podspec.WarnPod),
				OwnsOnly: []string{"spec.ephemeralContainers"},
			}},
			"resize": {Verbs: kind.ReadWrite, View: &kind.View{
				Prepare:  kind.PrepareUpdate(podspec.PrepareResize),
				Validate: kind.ValidateUpdate(func(p, old *corev1.Pod) field.ErrorList { return podspec.ValidateResize(p, old, rules) }),
				Warnings: kind.Warn(podspec.WarnPod),
				OwnsOnly: []string{
					"spec.containers.*.resources", "spec.containers.*.resizePolicy",
					"spec.initContainers.*.resources", "spec.initContainers.*.resizePolicy", "spec.resources",
				},
			}},
			"binding": {
				Kind: corev1.SchemeGroupVersion.WithKind("Binding"), New: kind.Of[corev1.Binding](),
				Verbs: kind.Create, Job: bindPod,
			},
			"eviction": {
				Kind: policyv1.SchemeGroupVersion.WithKind("Eviction"), New: kind.Of[policyv1.Eviction](),
				Verbs: kind.Create, Job: evictPod,
			},
			"log":         {Verbs: kind.Get, Connect: true},
			"exec":        connect("PodExecOptions", streamVerbs),
			"attach":      connect("PodAttachOptions", streamVerbs),
			"portforward": connect("PodPortForwardOptions", streamVerbs),
			"proxy":       connect("PodProxyOptions", proxyVerbs),
		},
	}
}

func preparePod(p *corev1.Pod, rules podspec.Rules) {
	p.Status = corev1.PodStatus{Phase: corev1.PodPending, QOSClass: podspec.QOSClass(&p.Spec)}
	if len(p.Spec.SchedulingGates) > 0 {
		p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{
			Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonSchedulingGated,
			Message: "Scheduling is blocked due to non-empty scheduling gates", LastTransitionTime: metav1.Now(),
		})
	}
	podspec.PreparePod(p, rules)
}

func preparePodUpdate(p, old *corev1.Pod, rules podspec.Rules) {
	p.Status = old.Status
	rules.DropDisabled(&p.Spec, &old.Spec)
}

func preparePodStatus(p, old *corev1.Pod) {
	p.Spec = old.Spec
	p.DeletionTimestamp = nil
	p.OwnerReferences = old.OwnerReferences // the pod's owners are not the node agent's business
	podspec.DropDisabledStatus(&p.Status, &old.Status)
	if p.Status.QOSClass == "" {
		p.Status.QOSClass = old.Status.QOSClass
	}
	if p.Status.ResourceClaimStatuses == nil {
		p.Status.ResourceClaimStatuses = old.Status.ResourceClaimStatuses
	}
	if p.Status.ExtendedResourceClaimStatus == nil {
		p.Status.ExtendedResourceClaimStatus = old.Status.ExtendedResourceClaimStatus
	}
}

// prepareEphemeralContainers keeps everything of the old pod but the ephemeral containers.
func prepareEphemeralContainers(p, old *corev1.Pod) {
	containers := p.Spec.EphemeralContainers
	fields := p.ManagedFields
	version := p.ResourceVersion
	*p = *object.Copy(old)
	p.Spec.EphemeralContainers = containers
	p.ManagedFields, p.ResourceVersion = fields, version
}

// podGrace lets a pod that runs somewhere finish: it stays until its node says that it has stopped.
func podGrace(obj object.Object, options *metav1.DeleteOptions) (int64, bool) {
	p := obj.(*corev1.Pod)
	seconds := int64(0)
	switch {
	case options.GracePeriodSeconds != nil:
		seconds = *options.GracePeriodSeconds
	case p.Spec.TerminationGracePeriodSeconds != nil:
		seconds = *p.Spec.TerminationGracePeriodSeconds
	}
	if p.Spec.NodeName == "" || p.Status.Phase == corev1.PodFailed || p.Status.Phase == corev1.PodSucceeded {
		seconds = 0
	}
	if seconds < 0 {
		seconds = 1
	}
	options.GracePeriodSeconds = &seconds
	return seconds, seconds > 0
}

package apps

import (
	"context"
	"fmt"

	"github.com/timonel/timonel/internal/api/check"
	"github.com/timonel/timonel/internal/api/podspec"
	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
)

// StatefulSet keeps pods running that each have a name and volumes of their own.
func statefulSet(rules podspec.Rules) *kind.Definition {
	pods := podspec.Template[*appsv1.StatefulSet](func(s *appsv1.StatefulSet) *corev1.PodTemplateSpec { return &s.Spec.Template })
	return &kind.Definition{
		Group: group, Version: "v1", Kind: "StatefulSet", Plural: "statefulsets", ShortNames: []string{"sts"}, Categories: []string{"all"},
		Scope: kind.Namespaced, Verbs: kind.Standard,
		New:       kind.Of[appsv1.StatefulSet](),
		CheckName: check.LabelName, // the host names of the pods begin with it
		Default:   kind.Default(defaultStatefulSet),
		PrepareCreate: kind.Prepare(func(s *appsv1.StatefulSet) {
			s.Status = appsv1.StatefulSetStatus{}
			pods.New(s, rules)
		}),
		PrepareUpdate: kind.PrepareUpdate(func(s, old *appsv1.StatefulSet) {
			s.Status = old.Status
			pods.Update(s, old, rules)
		}),
		Generation:     kind.Changed(func(s, old *appsv1.StatefulSet) bool { return !object.Equal(&s.Spec, &old.Spec) }),
		Validate:       kind.Validate(func(s *appsv1.StatefulSet) field.ErrorList { return validateStatefulSet(s, nil, rules) }),
		ValidateUpdate: kind.ValidateUpdate(func(s, old *appsv1.StatefulSet) field.ErrorList { return validateStatefulSet(s, old, rules) }),
		Warnings:       warnStatefulSet(pods),
		Columns: append(kind.Columns{
			{Name: "Ready", Description: "Number of the pod with ready state", Of: kind.Cell(func(s *appsv1.StatefulSet) any {
				return fmt.Sprintf("%d/%d", s.Status.ReadyReplicas, ptr.Deref(s.Spec.Replicas, 0))
			})},
			kind.Age,
		}, pods.Columns()...),
		ColumnFields: []string{
			"spec.replicas", "spec.template.spec.containers.name", "spec.template.spec.containers.image",
			"status.readyReplicas",
		},
		Subresources: map[string]*kind.Subresource{
			"status": kind.Status(func(s, old *appsv1.StatefulSet) { s.Spec = old.Spec }, validateStatefulSetStatus),
			"scale": scale(
				func(s *appsv1.StatefulSet) (int32, int32, *metav1.LabelSelector) {
					return ptr.Deref(s.Spec.Replicas, 0), s.Status.Replicas, s.Spec.Selector
				},
				func(s *appsv1.StatefulSet, n *int32) { s.Spec.Replicas = n },
			),
		},
	}
}

func defaultStatefulSet(set *appsv1.StatefulSet) {
	s := &set.Spec
	if s.PodManagementPolicy == "" {
		s.PodManagementPolicy = appsv1.OrderedReadyPodManagement
	}
	u := &s.UpdateStrategy
	if u.Type == "" {
		u.Type = appsv1.RollingUpdateStatefulSetStrategyType
		if u.RollingUpdate == nil {
			u.RollingUpdate = &appsv1.RollingUpdateStatefulSetStrategy{}
		}
	}
	if r := u.RollingUpdate; u.Type == appsv1.RollingUpdateStatefulSetStrategyType && r != nil {
		if r.Partition == nil {
			r.Partition = ptr.To[int32](0)
		}
		if r.MaxUnavailable == nil {
			r.MaxUnavailable = ptr.To(intstr.FromInt32(1))
		}
	}
	if s.PersistentVolumeClaimRetentionPolicy == nil {
		s.PersistentVolumeClaimRetentionPolicy = &appsv1.StatefulSetPersistentVolumeClaimRetentionPolicy{}
	}
	if p := s.PersistentVolumeClaimRetentionPolicy; p != nil {
		if p.WhenDeleted == "" {
			p.WhenDeleted = appsv1.RetainPersistentVolumeClaimRetentionPolicyType
		}
		if p.WhenScaled == "" {
			p.WhenScaled = appsv1.RetainPersistentVolumeClaimRetentionPolicyType
		}
	}
	if s.Replicas == nil {
		s.Replicas = ptr.To[int32](1)
	}
	if s.RevisionHistoryLimit == nil {
		s.RevisionHistoryLimit = ptr.To[int32](defaultRevisionHistory)
	}
	podspec.DefaultTemplate(&s.Template)
	for i := range s.VolumeClaimTemplates {
		defaultClaimTemplate(&s.VolumeClaimTemplates[i])
	}
}

func defaultClaimTemplate(c *corev1.PersistentVolumeClaim) {
	c.APIVersion, c.Kind = "v1", "PersistentVolumeClaim"
	if c.Spec.VolumeMode == nil {
		c.Spec.VolumeMode = ptr.To(corev1.PersistentVolumeFilesystem)
	}
	if c.Status.Phase == "" {
		c.Status.Phase = corev1.ClaimPending
	}
	podspec.RoundUp(c.Spec.Resources.Limits)
	podspec.RoundUp(c.Spec.Resources.Requests)
	podspec.RoundUp(c.Status.Capacity)
	podspec.RoundUp(c.Status.AllocatedResources)
}

// validateStatefulSet checks a new StatefulSet, or one that replaces old.
func validateStatefulSet(set, old *appsv1.StatefulSet, rules podspec.Rules) field.ErrorList {
	s := &set.Spec
	spec := field.NewPath("spec")
	var was appsv1.StatefulSetSpec
	var before *corev1.PodTemplateSpec
	var errs field.ErrorList
	if old != nil {
		was, before = old.Spec, &old.Spec.Template
	}
	switch s.PodManagementPolicy {
	case appsv1.OrderedReadyPodManagement, appsv1.ParallelPodManagement:
	case "":
		errs = append(errs, field.Required(spec.Child("podManagementPolicy"), ""))
	default:
		errs = append(errs, field.Invalid(spec.Child("podManagementPolicy"), s.PodManagementPolicy, "must be 'OrderedReady' or 'Parallel'"))
	}
	errs = append(errs, checkStatefulStrategy(&s.UpdateStrategy, spec.Child("updateStrategy"))...)
	if p := s.PersistentVolumeClaimRetentionPolicy; p != nil {
		at := spec.Child("persistentVolumeClaimRetentionPolicy")
		retain, remove := appsv1.RetainPersistentVolumeClaimRetentionPolicyType, appsv1.DeletePersistentVolumeClaimRetentionPolicyType
		errs = append(errs, check.OneOf(p.WhenDeleted, at.Child("whenDeleted"), retain, remove)...)
		errs = append(errs, check.OneOf(p.WhenScaled, at.Child("whenScaled"), retain, remove)...)
	}
	errs = append(errs, check.NonNegativePtr(s.Replicas, spec.Child("replicas"))...)
	errs = append(errs, check.NonNegative(s.MinReadySeconds, spec.Child("minReadySeconds"))...)
	if s.Ordinals != nil {
		errs = append(errs, check.NonNegative(s.Ordinals.Start, spec.Child("ordinals", "start"))...)
	}
	if old == nil || s.ServiceName != was.ServiceName {
		errs = append(errs, check.Form(s.ServiceName, spec.Child("serviceName"), check.Label)...)
	}
	errs = append(errs, checkSelector(s.Selector, was.Selector, "statefulset", spec.Child("selector"))...)
	selector, wrong := selectorOf(s.Selector, spec.Child("selector"))
	errs = append(errs, wrong...)
	for i := range s.VolumeClaimTemplates {
		rules.Claims = append(rules.Claims, s.VolumeClaimTemplates[i].Name)
	}
	var pods field.ErrorList
	if wrong == nil {
		pods = podspec.ValidateLongRunning(&s.Template, before, selector, "StatefulSet", rules, template)
	}
	if old == nil {
		return check.Join(errs, pods, checkClaimTemplates(s.VolumeClaimTemplates, spec.Child("volumeClaimTemplates")))
	}
	if len(pods) > 0 && equality.Semantic.DeepEqual(s.Template, was.Template) {
		pods = nil // older servers did not look at the template
	}
	return check.Join(errs, pods, keepStatefulSet(s, &was, spec))
}

// checkClaimTemplates checks the claims that each pod gets. They never change, so they are not asked again.
func checkClaimTemplates(claims []corev1.PersistentVolumeClaim, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i := range claims {
		errs = append(errs, podspec.ValidateClaimSpec(&claims[i].Spec, nil, path.Index(i).Child("spec"))...)
	}
	return errs
}

// warnStatefulSet warns of claims and of a history without end, besides what the pod template does.
func warnStatefulSet(pods podspec.Template[*appsv1.StatefulSet]) func(context.Context, object.Object, object.Object) []string {
	inTemplate := pods.Warnings(template)
	return func(ctx context.Context, obj, old object.Object) []string {
		s := &obj.(*appsv1.StatefulSet).Spec
		warnings := inTemplate(ctx, obj, old)
		for i := range s.VolumeClaimTemplates {
			warnings = append(warnings, podspec.WarnClaimSpec(&s.VolumeClaimTemplates[i].Spec, field.NewPath("spec", "volumeClaimTemplates").Index(i))...)
		}
		if ptr.Deref(s.RevisionHistoryLimit, 0) < 0 {
			warnings = append(warnings, "spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended")
		}
		return warnings
	}
}

// keepStatefulSet wants that what gives pods their names and volumes stays.
func keepStatefulSet(s, was *appsv1.StatefulSetSpec, spec *field.Path) field.ErrorList {
	errs := check.Immutable(s.Selector, was.Selector, spec.Child("selector"))
	errs = append(errs, check.Immutable(s.ServiceName, was.ServiceName, spec.Child("serviceName"))...)
	errs = append(errs, check.Immutable(s.PodManagementPolicy, was.PodManagementPolicy, spec.Child("podManagementPolicy"))...)
	if !equality.Semantic.DeepEqual(s.VolumeClaimTemplates, was.VolumeClaimTemplates) {
		errs = append(errs, field.Invalid(spec.Child("volumeClaimTemplates"), check.GoNames(s.VolumeClaimTemplates), check.TextImmutable))
	}
	return errs
}

func checkStatefulStrategy(u *appsv1.StatefulSetUpdateStrategy, path *field.Path) field.ErrorList {
	rolling := path.Child("rollingUpdate")
	switch u.Type {
	case "":
		return field.ErrorList{field.Required(path, "")}
	case appsv1.OnDeleteStatefulSetStrategyType:
		if u.RollingUpdate != nil {
			return field.ErrorList{field.Invalid(rolling, check.GoNames(u.RollingUpdate), "only allowed for updateStrategy 'RollingUpdate'")}
		}
		return nil
	case appsv1.RollingUpdateStatefulSetStrategyType:
		if u.RollingUpdate == nil {
			return nil
		}
		r := u.RollingUpdate
		errs := check.NonNegativePtr(r.Partition, rolling.Child("partition"))
		if r.MaxUnavailable == nil {
			return errs
		}
		at := rolling.Child("maxUnavailable")
		errs = append(errs, check.Share(r.MaxUnavailable, at)...)
		if check.ZeroShare(r.MaxUnavailable) {
			errs = append(errs, field.Invalid(at, r.MaxUnavailable, "cannot be 0"))
		}
		return append(errs, check.ShareAtMostAll(r.MaxUnavailable, at)...)
	}
	return field.ErrorList{field.Invalid(path, check.GoNames(*u), "must be 'RollingUpdate' or 'OnDelete'")}
}

func validateStatefulSetStatus(set, old *appsv1.StatefulSet) field.ErrorList {
	s := set.Status
	ready, current := count{"readyReplicas", int64(s.ReadyReplicas)}, count{"currentReplicas", int64(s.CurrentReplicas)}
	updated, available := count{"updatedReplicas", int64(s.UpdatedReplicas)}, count{"availableReplicas", int64(s.AvailableReplicas)}
	errs := checkCounts(count{"replicas", int64(s.Replicas)}, ready, current, updated, available, count{"observedGeneration", s.ObservedGeneration})
	errs = append(errs, checkCollisions(s.CollisionCount, old.Status.CollisionCount)...)
	errs = append(errs, atMost(s.Replicas, "status.replicas", ready, current, updated, available)...)
	return append(errs, atMost(s.ReadyReplicas, "status.readyReplicas", available)...)
}

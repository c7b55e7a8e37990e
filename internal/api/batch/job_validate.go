package batch

import (
	"fmt"
	"slices"

	"github.com/timonel/timonel/internal/api/check"
	"github.com/timonel/timonel/internal/api/podspec"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
)

// Bounds on Jobs (Kubernetes documentation, "Jobs"; KEP-2214, KEP-3329, KEP-3850, KEP-3998).
const (
	maxIndexedParallelism = 100000 // also of failed indexes
	manyCompletions       = 100000 // above which there are further bounds
	maxWithMany           = 10000  // of parallelism and failed indexes then
	maxPolicyRules        = 20
	maxExitCodes          = 255
	maxPolicyConditions   = 20
	maxIndexesText        = 64 << 10
	maxManagedBy          = 63
)

// validateNewJob checks a new Job.
func validateNewJob(j *batchv1.Job, rules podspec.Rules) field.ErrorList {
	return append(checkGeneratedSelector(j, field.NewPath("spec")), validateJob(j, nil, rules)...)
}

// validateJob checks a Job as it stands; before is the template that its own replaces, if it is not new.
func validateJob(j *batchv1.Job, before *corev1.PodTemplateSpec, rules podspec.Rules) field.ErrorList {
	spec := field.NewPath("spec")
	errs := validateJobSpec(&j.Spec, before, rules, spec)
	if j.Spec.Selector == nil {
		errs = append(errs, field.Required(spec.Child("selector"), ""))
	} else {
		errs = append(errs, check.Selector(j.Spec.Selector, nil, spec.Child("selector"))...)
	}
	if selector, err := metav1.LabelSelectorAsSelector(j.Spec.Selector); err == nil && !selector.Matches(labels.Set(j.Spec.Template.Labels)) {
		errs = append(errs, field.Invalid(spec.Child("template", "metadata", "labels"), j.Spec.Template.Labels, "`selector` does not match template `labels`"))
	}
	return append(errs, checkPodNames(j)...)
}

// checkGeneratedSelector wants the selector and labels that were generated to be as they were.
func checkGeneratedSelector(j *batchv1.Job, spec *field.Path) field.ErrorList {
	if ptr.Deref(j.Spec.ManualSelector, false) || j.Spec.Selector == nil {
		return nil
	}
	var errs field.ErrorList
	generated := generatedLabels(j)
	for _, key := range check.Sorted(generated) {
		if value, given := j.Spec.Template.Labels[key]; given && value != generated[key] {
			errs = append(errs, field.Invalid(spec.Child("template", "metadata", "labels"), j.Spec.Template.Labels, fmt.Sprintf("%s: must be '%s'", key, generated[key])))
		}
	}
	uid := string(j.UID)
	matches := j.Spec.Selector.MatchLabels
	if len(j.Spec.Selector.MatchExpressions) == 0 && len(matches) == 1 &&
		(matches[batchv1.ControllerUidLabel] == uid || matches[legacyControllerUIDLabel] == uid) {
		return errs
	}
	if j.UID == "" { // before it has one, nothing can be generated
		return errs
	}
	return append(errs, field.Invalid(spec.Child("selector"), j.Spec.Selector, "`selector` not auto-generated"))
}

// checkPodNames wants the host names of the pods of an Indexed Job to be DNS labels.
func checkPodNames(j *batchv1.Job) field.ErrorList {
	if ptr.Deref(j.Spec.CompletionMode, "") != batchv1.IndexedCompletion || ptr.Deref(j.Spec.Completions, 0) < 1 {
		return nil
	}
	last := fmt.Sprintf("%s-%d", j.Name, *j.Spec.Completions-1)
	if messages := validation.IsDNS1123Label(last); len(messages) > 0 {
		return field.ErrorList{field.Invalid(field.NewPath("metadata", "name"), j.Name, fmt.Sprintf("will not able to create pod with invalid DNS label: %s", last))}
	}
	return nil
}

// validateJobTemplate checks what a CronJob makes.
func validateJobTemplate(t *batchv1.JobTemplateSpec, before *corev1.PodTemplateSpec, rules podspec.Rules, path *field.Path) field.ErrorList {
	spec := path.Child("spec")
	errs := check.Labels(t.Labels, path.Child("metadata", "labels"))
	errs = append(errs, validateJobSpec(&t.Spec, before, rules, spec)...)
	if t.Spec.Selector != nil {
		errs = append(errs, field.Invalid(spec.Child("selector"), t.Spec.Selector, "`selector` will be auto-generated"))
	}
	if ptr.Deref(t.Spec.ManualSelector, false) {
		errs = append(errs, field.NotSupported(spec.Child("manualSelector"), *t.Spec.ManualSelector, []string{"nil", "false"}))
	}
	return errs
}

// validateJobSpec checks what a Job does, besides its selector.
func validateJobSpec(s *batchv1.JobSpec, before *corev1.PodTemplateSpec, rules podspec.Rules, path *field.Path) field.ErrorList {
	errs := check.NonNegativePtr(s.Parallelism, path.Child("parallelism"))
	errs = append(errs, check.NonNegativePtr(s.Completions, path.Child("completions"))...)
	errs = append(errs, check.NonNegativePtr(s.ActiveDeadlineSeconds, path.Child("activeDeadlineSeconds"))...)
	errs = append(errs, check.NonNegativePtr(s.BackoffLimit, path.Child("backoffLimit"))...)
	errs = append(errs, check.NonNegativePtr(s.TTLSecondsAfterFinished, path.Child("ttlSecondsAfterFinished"))...)
	errs = append(errs, check.NonNegativePtr(s.BackoffLimitPerIndex, path.Child("backoffLimitPerIndex"))...)
	errs = append(errs, checkMaxFailedIndexes(s, path)...)
	if s.ManagedBy != nil {
		at := path.Child("managedBy")
		errs = append(errs, validation.IsDomainPrefixedPath(at, *s.ManagedBy)...)
		if len(*s.ManagedBy) > maxManagedBy {
			errs = append(errs, field.TooLong(at, *s.ManagedBy, maxManagedBy))
		}
	}
	errs = append(errs, checkCompletionMode(s, path)...)
	if s.PodFailurePolicy != nil {
		errs = append(errs, checkFailurePolicy(s, path.Child("podFailurePolicy"))...)
	}
	if s.SuccessPolicy != nil {
		errs = append(errs, checkSuccessPolicy(s, path.Child("successPolicy"))...)
	}
	errs = append(errs, checkReplacementPolicy(s, path.Child("podReplacementPolicy"))...)
	errs = append(errs, podspec.ValidateTemplateUpdate(&s.Template, before, rules, path.Child("template"))...)
	return append(errs, checkRestartPolicy(s, path.Child("template", "spec", "restartPolicy"))...)
}

func checkRestartPolicy(s *batchv1.JobSpec, path *field.Path) field.ErrorList {
	switch policy := s.Template.Spec.RestartPolicy; policy {
	case "", corev1.RestartPolicyAlways:
		return field.ErrorList{field.Required(path, `valid values: "OnFailure", "Never"`)}
	case corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever:
		if policy == corev1.RestartPolicyOnFailure && s.PodFailurePolicy != nil {
			return field.ErrorList{field.Invalid(path, policy, `only "Never" is supported when podFailurePolicy is specified`)}
		}
		if policy == corev1.RestartPolicyOnFailure && s.BackoffLimitPerIndex != nil {
			return field.ErrorList{field.Invalid(path, policy, `only "Never" is supported when backoffLimitPerIndex is specified`)}
		}
		return nil
	default:
		return field.ErrorList{field.NotSupported(path, policy, []corev1.RestartPolicy{corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever})}
	}
}

func checkMaxFailedIndexes(s *batchv1.JobSpec, path *field.Path) field.ErrorList {
	if s.MaxFailedIndexes == nil {
		return nil
	}
	errs := check.NonNegative(*s.MaxFailedIndexes, path.Child("maxFailedIndexes"))
	if s.BackoffLimitPerIndex == nil {
		errs = append(errs, field.Required(path.Child("backoffLimitPerIndex"), "when maxFailedIndexes is specified"))
	}
	return errs
}

func checkCompletionMode(s *batchv1.JobSpec, path *field.Path) field.ErrorList {
	if s.CompletionMode == nil {
		return nil
	}
	switch *s.CompletionMode {
	case batchv1.NonIndexedCompletion:
		var errs field.ErrorList
		if s.BackoffLimitPerIndex != nil {
			errs = append(errs, field.Invalid(path.Child("backoffLimitPerIndex"), *s.BackoffLimitPerIndex, "requires indexed completion mode"))
		}
		if s.MaxFailedIndexes != nil {
			errs = append(errs, field.Invalid(path.Child("maxFailedIndexes"), *s.MaxFailedIndexes, "requires indexed completion mode"))
		}
		return errs
	case batchv1.IndexedCompletion:
		return checkIndexed(s, path)
	}
	return check.OneOf(*s.CompletionMode, path.Child("completionMode"), batchv1.NonIndexedCompletion, batchv1.IndexedCompletion)
}

func checkIndexed(s *batchv1.JobSpec, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if s.Completions == nil {
		errs = append(errs, field.Required(path.Child("completions"), "when completion mode is Indexed"))
	}
	parallelism := ptr.Deref(s.Parallelism, 0)
	if parallelism > maxIndexedParallelism {
		errs = append(errs, field.Invalid(path.Child("parallelism"), parallelism, fmt.Sprintf("must be less than or equal to %d when completion mode is Indexed", maxIndexedParallelism)))
	}
	if n := s.MaxFailedIndexes; n != nil {
		at := path.Child("maxFailedIndexes")
		if s.Completions != nil && *n > *s.Completions {
			errs = append(errs, field.Invalid(at, *n, "must be less than or equal to completions"))
		}
		if *n > maxIndexedParallelism {
			errs = append(errs, field.Invalid(at, *n, fmt.Sprintf("must be less than or equal to %d", maxIndexedParallelism)))
		}
	}
	if ptr.Deref(s.Completions, 0) <= manyCompletions || s.BackoffLimitPerIndex == nil {
		return errs
	}
	text := fmt.Sprintf("must be less than or equal to %d when completions are above %d and used with backoff limit per index", maxWithMany, manyCompletions)
	if s.MaxFailedIndexes == nil {
		errs = append(errs, field.Required(path.Child("maxFailedIndexes"), fmt.Sprintf("must be specified when completions is above %d", manyCompletions)))
	}
	if parallelism > maxWithMany {
		errs = append(errs, field.Invalid(path.Child("parallelism"), parallelism, text))
	}
	if n := s.MaxFailedIndexes; n != nil && *n > maxWithMany {
		errs = append(errs, field.Invalid(path.Child("maxFailedIndexes"), *n, text))
	}
	return errs
}

func checkReplacementPolicy(s *batchv1.JobSpec, path *field.Path) field.ErrorList {
	if s.PodReplacementPolicy == nil {
		return nil
	}
	if s.PodFailurePolicy != nil {
		return check.OneOf(*s.PodReplacementPolicy, path, batchv1.Failed)
	}
	return check.OneOf(*s.PodReplacementPolicy, path, batchv1.Failed, batchv1.TerminatingOrFailed)
}

func checkFailurePolicy(s *batchv1.JobSpec, path *field.Path) field.ErrorList {
	rules := path.Child("rules")
	var errs field.ErrorList
	if n := len(s.PodFailurePolicy.Rules); n > maxPolicyRules {
		errs = append(errs, field.TooMany(rules, n, maxPolicyRules))
	}
	containers := map[string]bool{}
	for _, c := range slices.Concat(s.Template.Spec.Containers, s.Template.Spec.InitContainers) {
		containers[c.Name] = true
	}
	for i := range s.PodFailurePolicy.Rules {
		errs = append(errs, checkFailureRule(s, &s.PodFailurePolicy.Rules[i], containers, rules.Index(i))...)
	}
	return errs
}

func checkFailureRule(s *batchv1.JobSpec, r *batchv1.PodFailurePolicyRule, containers map[string]bool, path *field.Path) field.ErrorList {
	errs := oneOfValid(r.Action, path.Child("action"),
		batchv1.PodFailurePolicyActionCount, batchv1.PodFailurePolicyActionFailIndex, batchv1.PodFailurePolicyActionFailJob, batchv1.PodFailurePolicyActionIgnore)
	if r.Action == batchv1.PodFailurePolicyActionFailIndex && s.BackoffLimitPerIndex == nil {
		errs = append(errs, field.Invalid(path.Child("action"), r.Action, "requires the backoffLimitPerIndex to be set"))
	}
	if r.OnExitCodes != nil {
		errs = append(errs, checkExitCodes(r.OnExitCodes, containers, path.Child("onExitCodes"))...)
	}
	errs = append(errs, checkPodConditions(r.OnPodConditions, path.Child("onPodConditions"))...)
	switch {
	case r.OnExitCodes != nil && len(r.OnPodConditions) > 0:
		errs = append(errs, field.Invalid(path, field.OmitValueType{}, "specifying both OnExitCodes and OnPodConditions is not supported"))
	case r.OnExitCodes == nil && len(r.OnPodConditions) == 0:
		errs = append(errs, field.Invalid(path, field.OmitValueType{}, "specifying one of OnExitCodes and OnPodConditions is required"))
	}
	return errs
}

// oneOfValid is check.RequiredOneOf, whose answer to nothing says what would be valid.
func oneOfValid[T ~string](value T, path *field.Path, valid ...T) field.ErrorList {
	if value == "" {
		return field.ErrorList{field.Required(path, fmt.Sprintf("valid values: %q", valid))}
	}
	return check.OneOf(value, path, valid...)
}

func checkExitCodes(r *batchv1.PodFailurePolicyOnExitCodesRequirement, containers map[string]bool, path *field.Path) field.ErrorList {
	errs := oneOfValid(r.Operator, path.Child("operator"), batchv1.PodFailurePolicyOnExitCodesOpIn, batchv1.PodFailurePolicyOnExitCodesOpNotIn)
	if r.ContainerName != nil && !containers[*r.ContainerName] {
		errs = append(errs, field.Invalid(path.Child("containerName"), *r.ContainerName, "must be one of the container or initContainer names in the pod template"))
	}
	values := path.Child("values")
	switch n := len(r.Values); {
	case n == 0:
		errs = append(errs, field.Invalid(values, r.Values, "at least one value is required"))
	case n > maxExitCodes:
		errs = append(errs, field.TooMany(values, n, maxExitCodes))
	}
	ordered := true
	seen := map[int32]bool{}
	for i, v := range r.Values {
		if r.Operator == batchv1.PodFailurePolicyOnExitCodesOpIn && v == 0 {
			errs = append(errs, field.Invalid(values.Index(i), v, "must not be 0 for the In operator"))
		}
		if seen[v] {
			errs = append(errs, field.Duplicate(values.Index(i), v))
		}
		seen[v] = true
		ordered = ordered && (i == 0 || r.Values[i-1] <= v)
	}
	if !ordered {
		errs = append(errs, field.Invalid(values, r.Values, "must be ordered"))
	}
	return errs
}

func checkPodConditions(conditions []batchv1.PodFailurePolicyOnPodConditionsPattern, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, c := range conditions {
		at := path.Index(i)
		errs = append(errs, check.Each(at.Child("type"), c.Type, validation.IsQualifiedName(string(c.Type)))...)
		errs = append(errs, oneOfValid(c.Status, at.Child("status"), corev1.ConditionFalse, corev1.ConditionTrue, corev1.ConditionUnknown)...)
	}
	if n := len(conditions); n > maxPolicyConditions {
		errs = append(errs, field.TooMany(path, n, maxPolicyConditions))
	}
	return errs
}

func checkSuccessPolicy(s *batchv1.JobSpec, path *field.Path) field.ErrorList {
	if ptr.Deref(s.CompletionMode, "") != batchv1.IndexedCompletion {
		return field.ErrorList{field.Invalid(path, check.GoNames(*s.SuccessPolicy), "requires indexed completion mode")}
	}
	rules := path.Child("rules")
	var errs field.ErrorList
	switch n := len(s.SuccessPolicy.Rules); {
	case n == 0:
		errs = append(errs, field.Required(rules, "at least one rules must be specified when the successPolicy is specified"))
	case n > maxPolicyRules:
		errs = append(errs, field.TooMany(rules, n, maxPolicyRules))
	}
	for i, r := range s.SuccessPolicy.Rules {
		errs = append(errs, checkSuccessRule(&r, ptr.Deref(s.Completions, 0), rules.Index(i))...)
	}
	return errs
}

func checkSuccessRule(r *batchv1.SuccessPolicyRule, completions int32, path *field.Path) field.ErrorList {
	count, indexes := path.Child("succeededCount"), path.Child("succeededIndexes")
	var errs field.ErrorList
	if r.SucceededCount == nil && r.SucceededIndexes == nil {
		errs = append(errs, field.Required(path, "at least one of succeededCount or succeededIndexes must be specified"))
	}
	total := int32(0)
	if text := r.SucceededIndexes; text != nil {
		if len(*text) > maxIndexesText {
			errs = append(errs, field.TooLong(indexes, *text, maxIndexesText))
		}
		n, err := countIndexes(*text, completions)
		if err != nil {
			errs = append(errs, field.Invalid(indexes, *text, fmt.Sprintf("error parsing succeededIndexes: %s", err)))
		} else {
			total = n
		}
	}
	if n := r.SucceededCount; n != nil {
		errs = append(errs, check.NonNegative(*n, count)...)
		if *n > completions {
			errs = append(errs, field.Invalid(count, *n, fmt.Sprintf("must be less than or equal to %d (the number of specified completions)", completions)))
		}
		if r.SucceededIndexes != nil && *n > total {
			errs = append(errs, field.Invalid(count, *n, fmt.Sprintf("must be less than or equal to %d (the number of indexes in the specified succeededIndexes field)", total)))
		}
	}
	return errs
}

// validateJobUpdate checks a Job that replaces old.
func validateJobUpdate(j, old *batchv1.Job, rules podspec.Rules) field.ErrorList {
	spec := field.NewPath("spec")
	errs := validateJob(j, &old.Spec.Template, rules)
	errs = append(errs, checkCompletionsUpdate(&j.Spec, &old.Spec, spec.Child("completions"))...)
	errs = append(errs, check.Immutable(j.Spec.Selector, old.Spec.Selector, spec.Child("selector"))...)
	errs = append(errs, checkTemplateUpdate(j, old, spec.Child("template"))...)
	errs = append(errs, check.Immutable(j.Spec.CompletionMode, old.Spec.CompletionMode, spec.Child("completionMode"))...)
	if !equality.Semantic.DeepEqual(j.Spec.PodFailurePolicy, old.Spec.PodFailurePolicy) {
		errs = append(errs, field.Invalid(spec.Child("podFailurePolicy"), check.GoNames(j.Spec.PodFailurePolicy), check.TextImmutable))
	}
	errs = append(errs, check.Immutable(j.Spec.BackoffLimitPerIndex, old.Spec.BackoffLimitPerIndex, spec.Child("backoffLimitPerIndex"))...)
	errs = append(errs, check.Immutable(j.Spec.ManagedBy, old.Spec.ManagedBy, spec.Child("managedBy"))...)
	if !equality.Semantic.DeepEqual(j.Spec.SuccessPolicy, old.Spec.SuccessPolicy) {
		errs = append(errs, field.Invalid(spec.Child("successPolicy"), check.GoNames(j.Spec.SuccessPolicy), check.TextImmutable))
	}
	return errs
}

// checkCompletionsUpdate lets an Indexed Job grow and shrink together with its parallelism (KEP-3715).
func checkCompletionsUpdate(s, old *batchv1.JobSpec, path *field.Path) field.ErrorList {
	if ptr.Deref(s.CompletionMode, "") != batchv1.IndexedCompletion {
		return check.Immutable(s.Completions, old.Completions, path)
	}
	if equality.Semantic.DeepEqual(s.Completions, old.Completions) {
		return nil
	}
	if s.Completions == nil || old.Completions == nil || s.Parallelism == nil || old.Parallelism == nil ||
		*s.Completions != *s.Parallelism || *old.Completions != *old.Parallelism {
		return field.ErrorList{field.Invalid(path, s.Completions, "can only be modified in tandem with spec.parallelism")}
	}
	return nil
}

// checkTemplateUpdate keeps the template, but for where its pods may run and what they ask for while the Job is suspended
// and none runs (Kubernetes documentation, "Mutable Scheduling Directives"; KEP-5440).
func checkTemplateUpdate(j, old *batchv1.Job, path *field.Path) field.ErrorList {
	now, was := j.Spec.Template.DeepCopy(), &old.Spec.Template
	if ptr.Deref(old.Spec.Suspend, false) && (old.Status.StartTime == nil || hasCondition(&old.Status, batchv1.JobSuspended)) {
		now.Labels, now.Annotations = was.Labels, was.Annotations
		now.Spec.NodeSelector, now.Spec.Tolerations, now.Spec.SchedulingGates = was.Spec.NodeSelector, was.Spec.Tolerations, was.Spec.SchedulingGates
		keepNodeAffinity(&now.Spec, &was.Spec)
		keepResources(now.Spec.Containers, was.Spec.Containers)
		keepResources(now.Spec.InitContainers, was.Spec.InitContainers)
		now.Spec.Resources = was.Spec.Resources
	}
	var errs field.ErrorList
	if !equality.Semantic.DeepEqual(now.ObjectMeta, was.ObjectMeta) {
		errs = append(errs, field.Invalid(path.Child("metadata"), j.Spec.Template.ObjectMeta, check.TextImmutable))
	}
	if !equality.Semantic.DeepEqual(now.Spec, was.Spec) {
		errs = append(errs, field.Invalid(path.Child("spec"), check.GoNames(j.Spec.Template.Spec), check.TextImmutable))
	}
	return errs
}

func keepNodeAffinity(s, was *corev1.PodSpec) {
	switch {
	case was.Affinity == nil && s.Affinity != nil:
		s.Affinity.NodeAffinity = nil
		if *s.Affinity == (corev1.Affinity{}) {
			s.Affinity = nil
		}
	case was.Affinity != nil && s.Affinity == nil:
		if was.Affinity.PodAffinity == nil && was.Affinity.PodAntiAffinity == nil {
			s.Affinity = was.Affinity
		}
	case was.Affinity != nil:
		s.Affinity.NodeAffinity = was.Affinity.NodeAffinity
	}
}

func keepResources(containers, was []corev1.Container) {
	if len(containers) != len(was) {
		return
	}
	for i := range containers {
		containers[i].Resources = was[i].Resources
	}
}

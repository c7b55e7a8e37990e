package admission

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
	"k8s.io/utils/ptr"
)

const (
	// maxPodsChecked bounds the pods that a change of a namespace's policy is tried on.
	maxPodsChecked = 3000
	// maxPodsCheckedTime bounds how long that takes.
	maxPodsCheckedTime = time.Second
)

// PodSecurityOptions is the configuration of PodSecurity (pod-security.admission.config.k8s.io/v1).
type PodSecurityOptions struct {
	// Defaults are the values of the namespace labels pod-security.kubernetes.io/<key> where they
	// are missing: keys enforce, enforce-version, audit, audit-version, warn, warn-version. Missing ones mean
	// privileged and latest.
	Defaults map[string]string
	// Users, Namespaces and RuntimeClasses are exempt.
	Users, Namespaces, RuntimeClasses []string
}

// podSecurity holds pods to the Pod Security Standards that their namespace's labels ask for, and warns
// about workloads that would make pods which are not (KEP-2579).
func (c *cluster) podSecurity() Plugin {
	s := &security{cluster: c, options: c.BuiltinOptions.PodSecurity}
	labels := map[string]string{}
	for key, value := range s.options.Defaults {
		labels[api.AuditAnnotationPrefix+key] = value
	}
	none := api.LevelVersion{Level: api.LevelPrivileged, Version: api.LatestVersion()}
	s.defaults, _ = api.PolicyToEvaluate(labels, api.Policy{Enforce: none, Audit: none, Warn: none})
	s.evaluator = sync.OnceValues(func() (policy.Evaluator, error) { return policy.NewEvaluator(policy.DefaultChecks(), nil) })
	return Plugin{Name: "PodSecurity", Check: s.check}
}

type security struct {
	*cluster
	options   PodSecurityOptions
	defaults  api.Policy
	evaluator func() (policy.Evaluator, error)
}

func (s *security) check(ctx context.Context, r *Request) error {
	if r.Operation != Create && r.Operation != Update {
		return nil
	}
	switch d := r.Definition; {
	case d.Group == "" && d.Plural == "namespaces":
		if r.Subresource == "" {
			return s.checkNamespace(ctx, r)
		}
	case d.Group == "" && d.Plural == "pods":
		if r.Subresource == "" || r.Subresource == "ephemeralcontainers" || r.Subresource == "resize" {
			return s.checkPod(ctx, r)
		}
	case r.Subresource == "":
		return s.checkTemplate(ctx, r)
	}
	return nil
}

// checkNamespace refuses labels that are no policy, and warns about pods that break a stricter one.
func (s *security) checkNamespace(ctx context.Context, r *Request) error {
	n, ok := r.Object.(*corev1.Namespace)
	if !ok {
		return nil
	}
	next, problems := api.PolicyToEvaluate(n.Labels, s.defaults)
	old, updated := r.Old.(*corev1.Namespace)
	if !updated {
		return invalidLabels(n, problems)
	}
	previous, problemsBefore := api.PolicyToEvaluate(old.Labels, s.defaults)
	if len(problems) > 0 {
		if len(problemsBefore) == len(problems) && problemsBefore.ToAggregate().Error() == problems.ToAggregate().Error() {
			return nil // they were there before
		}
		return invalidLabels(n, problems)
	}
	if next.Enforce.Level == api.LevelPrivileged || next.Enforce.Equivalent(&previous.Enforce) ||
		next.Enforce.Version == previous.Enforce.Version && api.CompareLevels(next.Enforce.Level, previous.Enforce.Level) <= 0 {
		return nil
	}
	if slices.Contains(s.options.Namespaces, n.Name) {
		r.Warn("namespace %q is exempt from Pod Security, and the policy (enforce=%s) will be ignored", n.Name, next.Enforce.String())
		return nil
	}
	return s.warnAboutPods(ctx, r, n.Name, next.Enforce)
}

func invalidLabels(n *corev1.Namespace, problems field.ErrorList) error {
	if len(problems) == 0 {
		return nil
	}
	return apierrors.NewInvalid(corev1.SchemeGroupVersion.WithKind("Namespace").GroupKind(), n.Name, problems)
}

// warnAboutPods names the pods of a namespace that would be refused now.
func (s *security) warnAboutPods(ctx context.Context, r *Request, namespace string, enforce api.LevelVersion) error {
	evaluator, err := s.evaluator()
	if err != nil {
		return err
	}
	all, err := list[*corev1.Pod](ctx, s.Reader, pods, namespace)
	if err != nil {
		return err
	}
	total := len(all)
	all = all[:min(total, maxPodsChecked)]
	type refused struct {
		first string
		count int
	}
	reasons := map[string]*refused{}
	end := time.Now().Add(maxPodsCheckedTime)
	checked := 0
	for _, p := range all {
		if time.Now().After(end) {
			break
		}
		checked++
		if s.exemptRuntime(&p.Spec) {
			continue
		}
		result := policy.AggregateCheckResults(evaluator.EvaluatePod(enforce, &p.ObjectMeta, &p.Spec))
		if result.Allowed {
			continue
		}
		reason := result.ForbiddenReason()
		at := reasons[reason]
		if at == nil {
			at = &refused{first: p.Name}
			reasons[reason] = at
		}
		at.first = min(at.first, p.Name)
		at.count++
	}
	if checked < total {
		r.Warn("new PodSecurity enforce level only checked against the first %d of %d existing pods", checked, total)
	}
	if len(reasons) == 0 {
		return nil
	}
	r.Warn("existing pods in namespace %q violate the new PodSecurity enforce level %q", namespace, enforce.String())
	var lines []string
	for reason, at := range reasons {
		switch at.count {
		case 1:
			lines = append(lines, fmt.Sprintf("%s: %s", at.first, reason))
		case 2:
			lines = append(lines, fmt.Sprintf("%s (and 1 other pod): %s", at.first, reason))
		default:
			lines = append(lines, fmt.Sprintf("%s (and %d other pods): %s", at.first, at.count-1, reason))
		}
	}
	slices.Sort(lines)
	for _, line := range lines {
		r.Warn("%s", line)
	}
	return nil
}

func (s *security) checkPod(ctx context.Context, r *Request) error {
	p, ok := r.Object.(*corev1.Pod)
	if !ok {
		return nil
	}
	wanted, err := s.policyOf(ctx, r)
	if err != nil || wanted == nil {
		return err
	}
	if old, ok := r.Old.(*corev1.Pod); ok && !significant(p, old) {
		return nil
	}
	return s.evaluate(r, wanted, &p.ObjectMeta, &p.Spec, true)
}

// significant reports whether an update of a pod changes anything that a policy could be about. What
// is not about containers' images can hardly change at all; images are no matter of policy.
func significant(p, old *corev1.Pod) bool {
	if !equality.Semantic.DeepEqual(securityAnnotations(p), securityAnnotations(old)) {
		return true
	}
	a, b := p.Spec.DeepCopy(), old.Spec.DeepCopy()
	for _, s := range []*corev1.PodSpec{a, b} {
		s.ActiveDeadlineSeconds = nil
		s.Tolerations = nil
		for i := range s.Containers {
			s.Containers[i].Image = ""
		}
		for i := range s.InitContainers {
			s.InitContainers[i].Image = ""
		}
		for i := range s.EphemeralContainers {
			s.EphemeralContainers[i].Image = ""
		}
	}
	return !equality.Semantic.DeepEqual(a, b)
}

func securityAnnotations(p *corev1.Pod) map[string]string {
	found := map[string]string{}
	for key, value := range p.Annotations {
		if strings.HasPrefix(key, corev1.DeprecatedAppArmorBetaContainerAnnotationKeyPrefix) || key == corev1.SeccompPodAnnotationKey ||
			strings.HasPrefix(key, corev1.SeccompContainerAnnotationKeyPrefix) {
			found[key] = value
		}
	}
	return found
}

// checkTemplate warns about a workload whose pods would be refused.
func (s *security) checkTemplate(ctx context.Context, r *Request) error {
	t := templateOf(r.Object)
	if t == nil {
		return nil
	}
	wanted, err := s.policyOf(ctx, r)
	if err != nil || wanted == nil {
		return err
	}
	return s.evaluate(r, wanted, &t.ObjectMeta, &t.Spec, false)
}

// templateOf returns the pod template in an object of the kinds that have one, or nil.
func templateOf(obj any) *corev1.PodTemplateSpec {
	switch o := obj.(type) {
	case *corev1.PodTemplate:
		return &o.Template
	case *corev1.ReplicationController:
		return o.Spec.Template
	case *appsv1.ReplicaSet:
		return &o.Spec.Template
	case *appsv1.Deployment:
		return &o.Spec.Template
	case *appsv1.DaemonSet:
		return &o.Spec.Template
	case *appsv1.StatefulSet:
		return &o.Spec.Template
	case *batchv1.Job:
		return &o.Spec.Template
	case *batchv1.CronJob:
		return &o.Spec.JobTemplate.Spec.Template
	}
	return nil
}

// policyOf returns the policy for the request's namespace, or nil if there is nothing to check.
func (s *security) policyOf(ctx context.Context, r *Request) (*namespacePolicy, error) {
	if slices.Contains(s.options.Namespaces, r.Namespace) {
		r.Annotate(api.AuditAnnotationPrefix+api.ExemptionReasonAnnotationKey, "namespace")
		return nil, nil
	}
	if r.User != nil && slices.Contains(s.options.Users, r.User.Name) {
		r.Annotate(api.AuditAnnotationPrefix+api.ExemptionReasonAnnotationKey, "user")
		return nil, nil
	}
	n, err := s.namespace(ctx, r)
	if apierrors.IsNotFound(err) { // it can only have gone now: NamespaceLifecycle has seen it
		return nil, err
	}
	if err != nil {
		return nil, fmt.Errorf("read namespace %q for its pod security policy: %w", r.Namespace, err)
	}
	labeled := false
	for key := range n.Labels {
		if strings.HasPrefix(key, api.AuditAnnotationPrefix) {
			labeled = true
			break
		}
	}
	if !labeled && s.defaults.FullyPrivileged() {
		return nil, nil
	}
	p := &namespacePolicy{}
	p.Policy, p.problems = api.PolicyToEvaluate(n.Labels, s.defaults)
	if len(p.problems) == 0 && p.FullyPrivileged() {
		return nil, nil
	}
	return p, nil
}

// namespacePolicy is a namespace's policy, and what is wrong with its labels.
type namespacePolicy struct {
	api.Policy
	problems field.ErrorList
}

func (s *security) exemptRuntime(spec *corev1.PodSpec) bool {
	return spec.RuntimeClassName != nil && slices.Contains(s.options.RuntimeClasses, ptr.Deref(spec.RuntimeClassName, ""))
}

// evaluate compares a pod, or the template of one, with the policy.
func (s *security) evaluate(r *Request, wanted *namespacePolicy, meta *metav1.ObjectMeta, spec *corev1.PodSpec, enforce bool) error {
	if s.exemptRuntime(spec) {
		r.Annotate(api.AuditAnnotationPrefix+api.ExemptionReasonAnnotationKey, "runtimeClass")
		return nil
	}
	evaluator, err := s.evaluator()
	if err != nil {
		return err
	}
	if len(wanted.problems) > 0 {
		r.Annotate(api.AuditAnnotationPrefix+"error", fmt.Sprintf("failed to parse policy: %v", wanted.problems.ToAggregate()))
	}
	var last api.LevelVersion
	var result policy.AggregateCheckResult
	against := func(lv api.LevelVersion) *policy.AggregateCheckResult {
		if last != lv {
			last, result = lv, policy.AggregateCheckResults(evaluator.EvaluatePod(lv, meta, spec))
		}
		return &result
	}
	var refusal error
	if enforce {
		r.Annotate(api.AuditAnnotationPrefix+api.EnforcedPolicyAnnotationKey, wanted.Enforce.String())
		if found := against(wanted.Enforce); !found.Allowed {
			refusal = r.Forbidden("violates PodSecurity %q: %s", wanted.Enforce.String(), found.ForbiddenDetail())
			if len(wanted.problems) > 0 {
				refusal = r.Forbidden("violates PodSecurity %q: %s (note: failed to parse policy: %v)", wanted.Enforce.String(), found.ForbiddenDetail(), wanted.problems.ToAggregate())
			}
		}
	}
	if found := against(wanted.Audit); !found.Allowed {
		r.Annotate(api.AuditAnnotationPrefix+api.AuditViolationsAnnotationKey, fmt.Sprintf("would violate PodSecurity %q: %s", wanted.Audit.String(), found.ForbiddenDetail()))
	}
	if refusal != nil {
		return refusal
	}
	if found := against(wanted.Warn); !found.Allowed {
		r.Warn("would violate PodSecurity %q: %s", wanted.Warn.String(), found.ForbiddenDetail())
	}
	return nil
}

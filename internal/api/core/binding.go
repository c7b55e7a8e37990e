package core

import (
	"context"
	"errors"
	"fmt"

	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

var (
	podResource     = schema.GroupResource{Resource: "pods"}
	bindingResource = schema.GroupResource{Resource: "pods/binding"}
)

// Binding posted to bindings is the older way to bind: the pod is the one with the binding's name.
func binding() *kind.Definition {
	return &kind.Definition{
		Version: "v1", Kind: "Binding", Plural: "bindings",
		Scope: kind.Namespaced, Verbs: kind.Create,
		New: kind.Of[corev1.Binding](),
		Job: func(ctx context.Context, call kind.JobCall) (object.Object, error) {
			call.Name = call.Body.GetName()
			return bindPod(ctx, call)
		},
	}
}

// bindPod puts a pod on a node: once, and only before it is deleted (API reference, "Binding").
func bindPod(ctx context.Context, call kind.JobCall) (object.Object, error) {
	b, ok := call.Body.(*corev1.Binding)
	if !ok {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("not a Binding object: %#v", call.Body))
	}
	if b.Name != "" && b.Name != call.Name {
		return nil, apierrors.NewBadRequest("name in URL does not match name in Binding object")
	}
	if errs := validateBinding(b); errs != nil {
		return nil, errs.ToAggregate() // Parity: a 500 with the bare text; see pod-binding in the corpus
	}
	if call.Check != nil {
		if err := call.Check(ctx); err != nil {
			return nil, err
		}
	}
	_, err := call.Objects.Change(ctx, podResource, call.Namespace, call.Name, func(obj object.Object) error {
		return assign(obj.(*corev1.Pod), b)
	}, kind.ChangeOptions{Raw: true, DryRun: call.DryRun})
	if err != nil {
		return nil, err
	}
	return &kind.Done{}, nil
}

func validateBinding(b *corev1.Binding) field.ErrorList {
	var errs field.ErrorList
	target := field.NewPath("target")
	if b.Target.Kind != "" && b.Target.Kind != "Node" {
		errs = append(errs, field.NotSupported(target.Child("kind"), b.Target.Kind, []string{"Node", "<empty>"}))
	}
	if b.Target.Name == "" {
		errs = append(errs, field.Required(target.Child("name"), ""))
	}
	return errs
}

// assign writes the node into the pod, and the labels and annotations that the scheduler sent along.
func assign(p *corev1.Pod, b *corev1.Binding) error {
	refuse := func(format string, args ...any) error {
		return apierrors.NewConflict(bindingResource, p.Name, fmt.Errorf(format, args...))
	}
	switch {
	case b.UID != "" && b.UID != p.UID:
		return preconditionFailed(p, "UID", string(b.UID), string(p.UID))
	case b.ResourceVersion != "" && b.ResourceVersion != p.ResourceVersion:
		return preconditionFailed(p, "ResourceVersion", b.ResourceVersion, p.ResourceVersion)
	case p.DeletionTimestamp != nil:
		return refuse("pod %s is being deleted, cannot be assigned to a host", p.Name)
	case p.Spec.NodeName != "":
		return refuse("pod %v is already assigned to node %q", p.Name, p.Spec.NodeName)
	case len(p.Spec.SchedulingGates) != 0:
		return refuse("pod %v has non-empty .spec.schedulingGates", p.Name)
	}
	p.Spec.NodeName = b.Target.Name
	for k, v := range b.Annotations {
		metav1.SetMetaDataAnnotation(&p.ObjectMeta, k, v)
	}
	for k, v := range b.Labels {
		metav1.SetMetaDataLabel(&p.ObjectMeta, k, v)
	}
	p.Status.NominatedNodeName = ""
	setScheduled(p)
	return nil
}

func setScheduled(p *corev1.Pod) {
	now := metav1.Now()
	condition := corev1.PodCondition{Type: corev1.PodScheduled, Status: corev1.ConditionTrue, LastTransitionTime: now}
	for i := range p.Status.Conditions {
		if c := &p.Status.Conditions[i]; c.Type == corev1.PodScheduled {
			if c.Status == corev1.ConditionTrue {
				condition.LastTransitionTime = c.LastTransitionTime
			}
			*c = condition
			return
		}
	}
	p.Status.Conditions = append(p.Status.Conditions, condition)
}

func preconditionFailed(p *corev1.Pod, what, asked, have string) error {
	return apierrors.NewConflict(podResource, p.Name, fmt.Errorf(
		"StorageError: invalid object, Code: 4, Key: /registry/pods/%s/%s, ResourceVersion: 0, AdditionalErrorMsg: %w", p.Namespace, p.Name,
		errors.New("Precondition failed: "+what+" in precondition: "+asked+", "+what+" in object meta: "+have)))
}

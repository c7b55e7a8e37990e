// Package lifecycle holds the kinds of lifecycle.k8s.io, by which controllers agree on who evicts a pod and how (KEP-4563):
// EvictionRequest says that somebody wants a pod gone, Eviction how far that is. A file each.
//
// Promises: every function is pure. Start reading at evictionrequest.go.
package lifecycle

import (
	"fmt"
	"strings"

	"github.com/timonel/timonel/internal/api/check"
	"github.com/timonel/timonel/internal/kind"
	lifecyclev1alpha1 "k8s.io/api/lifecycle/v1alpha1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/validate"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const (
	group = lifecyclev1alpha1.GroupName
	gate  = "EvictionRequestAPI"
)

// maxConditions and maxRequesters bound lists of a status (tags of the Go types).
const maxConditions, maxRequesters = 100, 100

// Definitions lists the kinds of the group in alphabetical order, as discovery does.
func Definitions() []*kind.Definition {
	return []*kind.Definition{evictionRequest(), eviction()}
}

// checkTarget wants a target to be a pod, by name and uid.
func checkTarget(set bool, name string, uid types.UID, path *field.Path) field.ErrorList {
	errs := check.Union(path, check.Member{Name: "pod", Set: set})
	if !set {
		return errs
	}
	pod := path.Child("pod")
	errs = append(errs, check.RequiredSpelled(name, pod.Child("name"), validate.LongName)...)
	return append(errs, check.RequiredSpelled(uid, pod.Child("uid"), validate.UUID)...)
}

// checkParticipant wants a name with a domain, like "example.com/drainer".
func checkParticipant(name string, path *field.Path) field.ErrorList {
	return check.RequiredSpelled(name, path, validate.PrefixedLabelKey)
}

// checkReserved refuses the domains of Kubernetes itself.
func checkReserved(name string, path *field.Path) field.ErrorList {
	domain, _, _ := strings.Cut(name, "/")
	for _, own := range []string{"k8s.io", "kubernetes.io"} {
		if domain == own || strings.HasSuffix(domain, "."+own) {
			return field.ErrorList{field.Invalid(path, name, "domain names *.k8s.io and *.kubernetes.io are reserved")}
		}
	}
	return nil
}

func checkConditions(conditions []metav1.Condition, path *field.Path) field.ErrorList {
	if len(conditions) > maxConditions {
		return field.ErrorList{field.TooMany(path, len(conditions), maxConditions)}
	}
	return metavalidation.ValidateConditions(conditions, path)
}

// checkObserved wants the observed generation to go on from where it was.
func checkObserved(now, was *int64, path *field.Path) field.ErrorList {
	errs := check.AtLeast(now, 1, path)
	switch {
	case was == nil:
	case now == nil:
		errs = append(errs, field.Invalid(path, nil, textCleared))
	case *now < *was:
		errs = append(errs, field.Invalid(path, *now, fmt.Sprintf("may not be decreased from %d", *was)))
	}
	return errs
}

// Texts of the answers about fields that are written once.
const (
	textCleared  = "field cannot be cleared once set"
	textModified = "field cannot be modified once set"
)

// checkOnce wants a field that was set to stay as it was.
func checkOnce[T any](now, was *T, path *field.Path) field.ErrorList {
	switch {
	case was == nil || check.Equal(now, was):
		return nil
	case now == nil:
		return field.ErrorList{field.Invalid(path, nil, textCleared)}
	}
	return field.ErrorList{field.Invalid(path, nil, textModified)}
}

// state is how an eviction stands, by its conditions.
func state(conditions []metav1.Condition) string {
	for _, t := range []lifecyclev1alpha1.EvictionConditionType{lifecyclev1alpha1.EvictionConditionTargetEvicted, lifecyclev1alpha1.EvictionConditionFailed} {
		if meta.IsStatusConditionTrue(conditions, string(t)) {
			return string(t)
		}
	}
	return "Pending"
}

// Package apps holds the kinds of the group apps, which keep pods running: Deployment, ReplicaSet, StatefulSet and
// DaemonSet, a file each, and ControllerRevision, in which the latter two keep their history.
//
// Promises: every function is pure. Pod templates are checked in podspec.
// Start reading at replicaset.go.
package apps

import (
	"github.com/timonel/timonel/internal/api/check"
	"github.com/timonel/timonel/internal/api/podspec"
	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const group = appsv1.GroupName

// defaultRevisionHistory is how many old revisions are kept.
const defaultRevisionHistory = 10

// Definitions lists the kinds of the group in alphabetical order, as discovery does.
func Definitions(rules podspec.Rules) []*kind.Definition {
	return []*kind.Definition{controllerRevision(), daemonSet(rules), deployment(rules), replicaSet(rules), statefulSet(rules)}
}

// template is the path of the pod template in all kinds of the group that have one.
var template = field.NewPath("spec", "template")

// selectorOf returns a label selector that can be asked; what is wrong with it is said at path.
func selectorOf(s *metav1.LabelSelector, path *field.Path) (labels.Selector, field.ErrorList) {
	selector, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		return nil, field.ErrorList{field.Invalid(path, s, "invalid label selector")}
	}
	return selector, nil
}

// checkSelector checks the selector of a kind that must select something.
func checkSelector(s, old *metav1.LabelSelector, owner string, path *field.Path) field.ErrorList {
	if s == nil {
		return field.ErrorList{field.Required(path, "")}
	}
	errs := check.Selector(s, old, path)
	if len(s.MatchLabels)+len(s.MatchExpressions) == 0 {
		errs = append(errs, field.Invalid(path, s, "empty selector is invalid for "+owner))
	}
	return errs
}

// scale shows a kind with replicas as a Scale.
func scale[P object.Object](get func(P) (spec, status int32, selector *metav1.LabelSelector), set func(P, *int32)) *kind.Subresource {
	return &kind.Subresource{Verbs: kind.ReadWrite, Scale: &kind.Scale{
		Get: func(obj object.Object) (int32, int32, string, error) {
			spec, status, s := get(obj.(P))
			selector, err := metav1.LabelSelectorAsSelector(s)
			if err != nil {
				return 0, 0, "", err
			}
			return spec, status, selector.String(), nil
		},
		Set: func(obj object.Object, replicas int32) error {
			set(obj.(P), &replicas)
			return nil
		},
		ReplicasPath: []string{"spec", "replicas"},
	}}
}

// count is a number in a status.
type count struct {
	name string
	n    int64
}

// checkCounts wants no negative count in a status.
func checkCounts(counts ...count) field.ErrorList {
	var errs field.ErrorList
	for _, c := range counts {
		errs = append(errs, check.NonNegative(c.n, field.NewPath("status", c.name))...)
	}
	return errs
}

// atMost wants that no count exceeds limit, which is called of.
func atMost(limit int32, of string, counts ...count) field.ErrorList {
	var errs field.ErrorList
	for _, c := range counts {
		if c.n > int64(limit) {
			errs = append(errs, field.Invalid(field.NewPath("status", c.name), c.n, "cannot be greater than "+of))
		}
	}
	return errs
}

// checkCollisions wants that the number of name collisions never goes down.
func checkCollisions(n, old *int32) field.ErrorList {
	path := field.NewPath("status", "collisionCount")
	errs := check.NonNegativePtr(n, path)
	if old != nil && (n == nil || *n < *old) {
		var value any
		if n != nil {
			value = *n
		}
		errs = append(errs, field.Invalid(path, value, "cannot be decremented"))
	}
	return errs
}

package scheduler

import (
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
)

// A nodeMatcher is a compiled node selector.
type nodeMatcher func(*v1.Node) bool

// matchNodeSelector compiles a node selector: its terms are alternatives.
// No terms match no node.
func matchNodeSelector(s *v1.NodeSelector) nodeMatcher {
	terms := make([]nodeMatcher, len(s.NodeSelectorTerms))
	for i := range s.NodeSelectorTerms {
		terms[i] = matchNodeTerm(&s.NodeSelectorTerms[i])
	}
	return func(n *v1.Node) bool {
		for _, t := range terms {
			if t(n) {
				return true
			}
		}
		return false
	}
}

// matchNodeTerm compiles one term: all its requirements must hold. A term
// without any, or with one that cannot be read, matches no node.
func matchNodeTerm(t *v1.NodeSelectorTerm) nodeMatcher {
	nothing := func(*v1.Node) bool { return false }
	if len(t.MatchExpressions)+len(t.MatchFields) == 0 {
		return nothing
	}
	onLabels, ok := requirements(t.MatchExpressions)
	if !ok {
		return nothing
	}
	onFields, ok := requirements(t.MatchFields)
	if !ok {
		return nothing
	}
	return func(n *v1.Node) bool {
		return onLabels.Matches(labels.Set(n.Labels)) &&
			(len(t.MatchFields) == 0 || onFields.Matches(labels.Set{nodeNameField: n.Name}))
	}
}

// nodeNameField is the one node field that matchFields may name.
const nodeNameField = "metadata.name"

var nodeOperators = map[v1.NodeSelectorOperator]selection.Operator{
	v1.NodeSelectorOpIn:           selection.In,
	v1.NodeSelectorOpNotIn:        selection.NotIn,
	v1.NodeSelectorOpExists:       selection.Exists,
	v1.NodeSelectorOpDoesNotExist: selection.DoesNotExist,
	v1.NodeSelectorOpGt:           selection.GreaterThan,
	v1.NodeSelectorOpLt:           selection.LessThan,
}

func requirements(in []v1.NodeSelectorRequirement) (labels.Selector, bool) {
	sel := labels.NewSelector()
	for i := range in {
		op, known := nodeOperators[in[i].Operator]
		r, err := labels.NewRequirement(in[i].Key, op, in[i].Values)
		if !known || err != nil {
			return nil, false
		}
		sel = sel.Add(*r)
	}
	return sel, true
}

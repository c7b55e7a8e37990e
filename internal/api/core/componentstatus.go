package core

import (
	"context"

	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	corev1 "k8s.io/api/core/v1"
)

// ComponentStatus tells how a component of the control plane does. Nothing is stored: statuses asks the components.
func componentStatus(statuses func(ctx context.Context) ([]object.Object, error)) *kind.Definition {
	if statuses == nil {
		statuses = func(context.Context) ([]object.Object, error) { return nil, nil }
	}
	of := func(cell func(c *corev1.ComponentCondition) string, none string) func(object.Object) any {
		return kind.Cell(func(s *corev1.ComponentStatus) any {
			for i := range s.Conditions {
				if s.Conditions[i].Type == corev1.ComponentHealthy {
					return cell(&s.Conditions[i])
				}
			}
			return none
		})
	}
	return &kind.Definition{
		Version: "v1", Kind: "ComponentStatus", Plural: "componentstatuses", ShortNames: []string{"cs"},
		Scope: kind.Cluster, Verbs: kind.Get | kind.List,
		New:         kind.Of[corev1.ComponentStatus](),
		VirtualList: statuses,
		Columns: kind.Columns{
			{Name: "Status", Description: "Status of the component conditions", Of: of(healthWord, "Unknown")},
			{Name: "Message", Description: "Message of the component conditions", Of: of(func(c *corev1.ComponentCondition) string { return c.Message }, "")},
			{Name: "Error", Description: "Error of the component conditions", Of: of(func(c *corev1.ComponentCondition) string { return c.Error }, "")},
		},
	}
}

func healthWord(c *corev1.ComponentCondition) string {
	switch c.Status {
	case corev1.ConditionTrue:
		return "Healthy"
	case corev1.ConditionFalse:
		return "Unhealthy"
	}
	return "Unknown"
}

// Package autoscaling holds the kinds of the group autoscaling: HorizontalPodAutoscaler, stored and worked on as v2 and
// served as v1 too.
//
// Promises: every function is pure; an object that goes from v2 to v1 and back is the same. Start reading at
// horizontalpodautoscaler.go, then v1.go.
package autoscaling

import "github.com/timonel/timonel/internal/kind"

const group = "autoscaling"

// Definitions lists the kinds of the group, those of the preferred version first.
func Definitions() []*kind.Definition {
	hub := horizontalPodAutoscaler()
	v1 := horizontalPodAutoscalerV1(hub)
	hub.Reads(v1) // it was stored until 1.26
	return []*kind.Definition{hub, v1}
}

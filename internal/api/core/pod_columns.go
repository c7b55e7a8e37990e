package core

import (
	"fmt"
	"strconv"
	"time"

	"github.com/timonel/timonel/internal/api/podspec"
	"github.com/timonel/timonel/internal/api/show"
	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/duration"
)

func podColumns() kind.Columns {
	spec, status := corev1.PodSpec{}.SwaggerDoc(), corev1.PodStatus{}.SwaggerDoc()
	return kind.Columns{
		{Name: "Ready", Description: "The aggregate readiness state of this pod for accepting traffic.", Of: kind.Cell(func(p *corev1.Pod) any {
			s := summarize(p)
			return fmt.Sprintf("%d/%d", s.ready, s.total)
		})},
		{Name: "Status", Description: "The aggregate status of the containers in this pod.", Of: kind.Cell(func(p *corev1.Pod) any { return summarize(p).reason })},
		{Name: "Restarts", Description: "The number of times the containers in this pod have been restarted and when the last container in this pod has restarted.", Of: kind.Cell(podRestarts)},
		kind.Age,
		{Name: "IP", Wide: true, Description: status["podIP"], Of: kind.Cell(func(p *corev1.Pod) any {
			if len(p.Status.PodIPs) == 0 {
				return show.None
			}
			return show.Or(p.Status.PodIPs[0].IP, show.None)
		})},
		{Name: "Node", Wide: true, Description: spec["nodeName"], Of: kind.Cell(func(p *corev1.Pod) any { return show.Or(p.Spec.NodeName, show.None) })},
		{Name: "Nominated Node", Wide: true, Description: status["nominatedNodeName"], Of: kind.Cell(func(p *corev1.Pod) any {
			return show.Or(p.Status.NominatedNodeName, show.None)
		})},
		{Name: "Readiness Gates", Wide: true, Description: spec["readinessGates"], Of: kind.Cell(podGates)},
	}
}

var podColumnFields = []string{
	"metadata.deletionTimestamp",
	"spec.containers.name", "spec.initContainers.name", "spec.initContainers.restartPolicy", "spec.nodeName", "spec.readinessGates",
	"status.phase", "status.reason", "status.nominatedNodeName", "status.podIP", "status.podIPs",
	"status.conditions.type", "status.conditions.status", "status.conditions.reason",
	"status.containerStatuses.ready", "status.containerStatuses.restartCount", "status.containerStatuses.state", "status.containerStatuses.lastState",
	"status.initContainerStatuses.name", "status.initContainerStatuses.ready", "status.initContainerStatuses.started",
	"status.initContainerStatuses.restartCount", "status.initContainerStatuses.state", "status.initContainerStatuses.lastState",
}

// podSummary is what a table says about a pod.
type podSummary struct {
	reason       string
	ready, total int
	restarts     int
	restarted    time.Time // when a container last ended; zero if unknown
}

// summarize goes through a pod's status as its life goes: phase, initialisation, containers, deletion; what is found
// later wins.
func summarize(p *corev1.Pod) podSummary {
	s := podSummary{reason: string(p.Status.Phase), total: len(p.Spec.Containers)}
	if p.Status.Reason != "" {
		s.reason = p.Status.Reason
	}
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Reason == corev1.PodReasonSchedulingGated {
			s.reason = corev1.PodReasonSchedulingGated
		}
	}
	sidecars := map[string]bool{}
	for i := range p.Spec.InitContainers {
		if c := &p.Spec.InitContainers[i]; podspec.Restartable(c) {
			sidecars[c.Name] = true
			s.total++
		}
	}
	initializing := s.initialization(p, sidecars)
	if !initializing || conditionTrue(p, corev1.PodInitialized) {
		s.running(p, sidecars)
	}
	if p.DeletionTimestamp != nil {
		switch {
		case p.Status.Reason == "NodeLost":
			s.reason = "Unknown"
		case p.Status.Phase != corev1.PodSucceeded && p.Status.Phase != corev1.PodFailed:
			s.reason = "Terminating"
		}
	}
	return s
}

// initialization looks at the init containers in order and reports whether one of them holds up the pod.
func (s *podSummary) initialization(p *corev1.Pod, sidecars map[string]bool) bool {
	for i := range p.Status.InitContainerStatuses {
		c := &p.Status.InitContainerStatuses[i]
		s.count(c)
		switch {
		case c.State.Terminated != nil && c.State.Terminated.ExitCode == 0:
			continue
		case sidecars[c.Name] && c.Started != nil && *c.Started:
			if c.Ready {
				s.ready++
			}
			continue
		case c.State.Terminated != nil:
			s.reason = "Init:" + terminatedReason(c.State.Terminated)
		case c.State.Waiting != nil && c.State.Waiting.Reason != "" && c.State.Waiting.Reason != "PodInitializing":
			s.reason = "Init:" + c.State.Waiting.Reason
		default:
			s.reason = fmt.Sprintf("Init:%d/%d", i, len(p.Spec.InitContainers))
		}
		return true
	}
	return false
}

// running looks at the containers, last to first. Of the init containers only sidecars count from now on.
func (s *podSummary) running(p *corev1.Pod, sidecars map[string]bool) {
	s.restarts, s.restarted = 0, time.Time{}
	for i := range p.Status.InitContainerStatuses {
		if c := &p.Status.InitContainerStatuses[i]; sidecars[c.Name] {
			s.count(c)
		}
	}
	runs, failure := false, ""
	for i := len(p.Status.ContainerStatuses) - 1; i >= 0; i-- {
		c := &p.Status.ContainerStatuses[i]
		s.count(c)
		switch {
		case c.State.Waiting != nil && c.State.Waiting.Reason != "":
			s.reason = c.State.Waiting.Reason
		case c.State.Terminated != nil:
			s.reason = terminatedReason(c.State.Terminated)
			if c.State.Terminated.ExitCode != 0 {
				failure = s.reason
			}
		case c.Ready && c.State.Running != nil:
			runs = true
			s.ready++
		}
	}
	if s.reason == "Completed" && runs {
		switch {
		case conditionTrue(p, corev1.PodReady):
			s.reason = "Running"
		case failure != "":
			s.reason = failure
		default:
			s.reason = "NotReady"
		}
	}
}

func (s *podSummary) count(c *corev1.ContainerStatus) {
	s.restarts += int(c.RestartCount)
	if t := c.LastTerminationState.Terminated; t != nil && t.FinishedAt.After(s.restarted) {
		s.restarted = t.FinishedAt.Time
	}
}

func terminatedReason(t *corev1.ContainerStateTerminated) string {
	switch {
	case t.Reason != "":
		return t.Reason
	case t.Signal != 0:
		return "Signal:" + strconv.Itoa(int(t.Signal))
	}
	return "ExitCode:" + strconv.Itoa(int(t.ExitCode))
}

func conditionTrue(p *corev1.Pod, t corev1.PodConditionType) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == t && c.Status == corev1.ConditionTrue {
			return true
		}
	}
	return false
}

func podRestarts(p *corev1.Pod) any {
	s := summarize(p)
	if s.restarts == 0 || s.restarted.IsZero() {
		return strconv.Itoa(s.restarts)
	}
	return kind.DatedFunc(func(now time.Time) any {
		return fmt.Sprintf("%d (%s ago)", s.restarts, duration.HumanDuration(now.Sub(s.restarted)))
	})
}

func podGates(p *corev1.Pod) any {
	if len(p.Spec.ReadinessGates) == 0 {
		return show.None
	}
	open := 0
	for _, g := range p.Spec.ReadinessGates {
		if conditionTrue(p, g.ConditionType) {
			open++
		}
	}
	return fmt.Sprintf("%d/%d", open, len(p.Spec.ReadinessGates))
}

// podRowConditions marks pods that are done.
func podRowConditions(obj object.Object) []metav1.TableRowCondition {
	switch phase := obj.(*corev1.Pod).Status.Phase; phase {
	case corev1.PodSucceeded:
		return []metav1.TableRowCondition{{Type: metav1.RowCompleted, Status: metav1.ConditionTrue, Reason: string(phase), Message: "The pod has completed successfully."}}
	case corev1.PodFailed:
		return []metav1.TableRowCondition{{Type: metav1.RowCompleted, Status: metav1.ConditionTrue, Reason: string(phase), Message: "The pod failed."}}
	}
	return nil
}

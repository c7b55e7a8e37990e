package node

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// waiting is why a container does not run: the reason and message of its
// waiting state.
type waiting struct{ reason, message string }

// Reasons of waiting containers that users know from kubectl.
const (
	reasonContainerCreating       = "ContainerCreating"
	reasonPodInitializing         = "PodInitializing"
	reasonCrashLoop               = "CrashLoopBackOff"
	reasonErrImagePull            = "ErrImagePull"
	reasonImagePullBackOff        = "ImagePullBackOff"
	reasonErrImageNeverPull       = "ErrImageNeverPull"
	reasonInvalidImageName        = "InvalidImageName"
	reasonImageInspect            = "ImageInspectError"
	reasonConfigError             = "CreateContainerConfigError"
	reasonCreateError             = "CreateContainerError"
	reasonRunError                = "RunContainerError"
	reasonPostStart               = "PostStartHookError"
	reasonDeadlineExceeded        = "DeadlineExceeded"
	messageContainerLost          = "The container could not be located when the pod was terminated"
	exitCodeLost            int32 = 137
)

// account is everything a pod's status is made of.
type account struct {
	pod     *v1.Pod // with the status the API server has
	runtime *snapshot
	// waits says why containers, by name, are not running.
	waits map[string]waiting
	// ready and started hold what the probes found, by container id.
	ready, started map[string]bool
	// messages are the termination messages, by container id.
	messages map[string]string
	// runtimeName prefixes container ids: containerd://…
	runtimeName string
	hostIPs     []string
	startTime   metav1.Time
	now         time.Time

	// settled is set once the pod is being ended and nothing of it
	// runs any more. phase, reason and message override what would be computed.
	settled         bool
	phase           v1.PodPhase
	reason, message string
}

// status is the pod's whole status as it is to be in the API.
func (a *account) status() v1.PodStatus {
	pod := a.pod
	status := *pod.Status.DeepCopy()
	if ended(pod) && len(a.runtime.containers) == 0 {
		return status // it came to its end before; nothing here knows better
	}
	status.ObservedGeneration = pod.Generation
	status.StartTime = &a.startTime
	if pod.Status.StartTime != nil {
		status.StartTime = pod.Status.StartTime.DeepCopy()
	}
	status.QOSClass = qosOf(pod)
	status.HostIP, status.HostIPs = "", nil
	for _, ip := range a.hostIPs {
		status.HostIPs = append(status.HostIPs, v1.HostIP{IP: ip})
	}
	status.HostIP = first(a.hostIPs)
	if ips := a.podIPs(); len(ips) > 0 {
		status.PodIP, status.PodIPs = ips[0], nil
		for _, ip := range ips {
			status.PodIPs = append(status.PodIPs, v1.PodIP{IP: ip})
		}
	}

	status.InitContainerStatuses, status.ContainerStatuses, status.EphemeralContainerStatuses = nil, nil, nil
	everyContainer(pod, func(kind kindOf, c *v1.Container) {
		cs := a.container(kind, c)
		switch kind {
		case initContainer, sidecarContainer:
			status.InitContainerStatuses = append(status.InitContainerStatuses, cs)
		case appContainer:
			status.ContainerStatuses = append(status.ContainerStatuses, cs)
		case ephemeralContainer:
			status.EphemeralContainerStatuses = append(status.EphemeralContainerStatuses, cs)
		}
	})

	status.Reason, status.Message = a.reason, a.message
	switch {
	case ended(pod):
		// Terminal is forever.
		status.Phase, status.Reason, status.Message = pod.Status.Phase, pod.Status.Reason, pod.Status.Message
	case a.phase != "":
		status.Phase = a.phase
	default:
		status.Phase = phaseOf(pod, &status, a.settled)
	}
	a.conditions(&status)
	return status
}

// ended tells a pod whose phase is terminal in the API.
func ended(pod *v1.Pod) bool {
	return pod.Status.Phase == v1.PodSucceeded || pod.Status.Phase == v1.PodFailed
}

func (a *account) podIPs() []string {
	if a.pod.Spec.HostNetwork {
		if current := a.runtime.current(); current != nil {
			return a.hostIPs
		}
		return nil
	}
	if current := a.runtime.current(); current != nil {
		return current.ips
	}
	return nil
}

func oldContainerStatus(pod *v1.Pod, name string) *v1.ContainerStatus {
	for _, list := range [][]v1.ContainerStatus{pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses, pod.Status.EphemeralContainerStatuses} {
		for i := range list {
			if list[i].Name == name {
				return &list[i]
			}
		}
	}
	return nil
}

// container is one container's status.
func (a *account) container(kind kindOf, c *v1.Container) v1.ContainerStatus {
	no := false
	cs := v1.ContainerStatus{Name: c.Name, Image: c.Image, Started: &no}
	old := oldContainerStatus(a.pod, c.Name)
	latest := a.runtime.latest(c.Name)
	why, waits := a.waits[c.Name]

	switch {
	case latest == nil && old != nil && old.State.Terminated != nil:
		// Its record in the runtime is gone; what it came to stays.
		return *old.DeepCopy()
	case latest == nil:
		if !waits {
			why.reason = reasonContainerCreating
			if len(a.pod.Spec.InitContainers) > 0 {
				why.reason = reasonPodInitializing
			}
		}
		cs.State.Waiting = &v1.ContainerStateWaiting{Reason: why.reason, Message: why.message}
		if old != nil {
			cs.RestartCount, cs.LastTerminationState = old.RestartCount, *old.LastTerminationState.DeepCopy()
			if old.State.Running != nil {
				cs.RestartCount++
				cs.LastTerminationState = v1.ContainerState{Terminated: &v1.ContainerStateTerminated{
					Reason: reasonUnknown, Message: messageContainerLost, ExitCode: exitCodeLost,
					StartedAt: old.State.Running.StartedAt, ContainerID: old.ContainerID,
				}}
			}
		}
	default:
		cs.RestartCount = int32(latest.attempt)
		cs.ContainerID = a.runtimeName + "://" + latest.id
		cs.ImageID = latest.imageID
		if latest.image != "" && !strings.HasPrefix(latest.image, "sha256:") {
			cs.Image = latest.image
		}
		if before := a.runtime.before(latest); before != nil && before.exited() {
			cs.LastTerminationState.Terminated = a.terminated(before)
		} else if old != nil && old.ContainerID == cs.ContainerID {
			cs.LastTerminationState = *old.LastTerminationState.DeepCopy()
		}
		switch {
		case latest.running() && waits:
			// A postStart hook is still at work, or failed.
			cs.State.Waiting = &v1.ContainerStateWaiting{Reason: why.reason, Message: why.message}
		case latest.running():
			cs.State.Running = &v1.ContainerStateRunning{StartedAt: metav1.NewTime(latest.startedAt).Rfc3339Copy()}
			a.running(&cs, kind, c, latest)
		case latest.exited() && waits:
			cs.LastTerminationState.Terminated = a.terminated(latest)
			cs.State.Waiting = &v1.ContainerStateWaiting{Reason: why.reason, Message: why.message}
		case latest.exited():
			cs.State.Terminated = a.terminated(latest)
		default:
			if !waits {
				why.reason = reasonContainerCreating
			}
			cs.State.Waiting = &v1.ContainerStateWaiting{Reason: why.reason, Message: why.message}
		}
	}

	if a.settled && cs.State.Terminated == nil && a.began(kind) {
		lost := &v1.ContainerStateTerminated{Reason: reasonUnknown, Message: messageContainerLost, ExitCode: exitCodeLost}
		if last := cs.LastTerminationState.Terminated; last != nil {
			// It was waiting to be restarted: how it ended last is how it ended.
			lost, cs.LastTerminationState.Terminated = last, nil
			if latest != nil {
				if before := a.runtime.before(latest); before != nil && before.exited() {
					cs.LastTerminationState.Terminated = a.terminated(before)
				}
			}
		}
		cs.State = v1.ContainerState{Terminated: lost}
	}
	if kind == initContainer {
		cs.Ready = cs.State.Terminated != nil && cs.State.Terminated.ExitCode == 0
	}
	for _, m := range c.VolumeMounts {
		mount := v1.VolumeMountStatus{Name: m.Name, MountPath: m.MountPath, ReadOnly: m.ReadOnly}
		if m.ReadOnly {
			disabled := v1.RecursiveReadOnlyDisabled
			mount.RecursiveReadOnly = &disabled
		}
		cs.VolumeMounts = append(cs.VolumeMounts, mount)
	}
	return cs
}

// began tells whether containers of a kind ever started. Those of a pod that
// ended before their turn are left waiting: there is no end to report.
func (a *account) began(kind kindOf) bool {
	found := false
	everyContainer(a.pod, func(k kindOf, c *v1.Container) {
		if (k == appContainer) != (kind == appContainer) {
			return
		}
		old := oldContainerStatus(a.pod, c.Name)
		if a.runtime.latest(c.Name) != nil || old != nil && (old.State.Running != nil || old.State.Terminated != nil || old.LastTerminationState.Terminated != nil) {
			found = true
		}
	})
	return found
}

// running fills in what only a running container has.
func (a *account) running(cs *v1.ContainerStatus, kind kindOf, c *v1.Container, latest *container) {
	started := kind == initContainer || kind == ephemeralContainer || a.started[latest.id]
	cs.Started = &started
	cs.Ready = (kind == appContainer || kind == sidecarContainer) && started && a.ready[latest.id]
	cs.Resources = grantedResources(c, latest)
	cs.Resources.Claims = nil
	if len(cs.Resources.Requests) > 0 {
		cs.AllocatedResources = cs.Resources.Requests.DeepCopy()
	}
	if user := latest.user.GetLinux(); user != nil {
		cs.User = &v1.ContainerUser{Linux: &v1.LinuxContainerUser{UID: user.Uid, GID: user.Gid, SupplementalGroups: user.SupplementalGroups}}
	}
	if latest.stopSignal != runtimeapi.Signal_SIGNAL_RUNTIME_DEFAULT {
		signal := v1.Signal(strings.TrimPrefix(latest.stopSignal.String(), "SIGNAL_"))
		cs.StopSignal = &signal
	}
}

// grantedResources are those the container was made with; a later change of
// the spec is not carried out while it runs.
func grantedResources(c *v1.Container, latest *container) *v1.ResourceRequirements {
	var granted v1.ResourceRequirements
	if text := latest.annotations[annotationResources]; text != "" && json.Unmarshal([]byte(text), &granted) == nil {
		return &granted
	}
	return c.Resources.DeepCopy()
}

// resizing tells containers whose spec asks for other resources than they run
// with.
func (a *account) resizing() []string {
	var names []string
	for _, c := range append(sidecarsOf(a.pod), containersOf(a.pod)...) {
		latest := a.runtime.latest(c.Name)
		if latest == nil || !latest.running() {
			continue
		}
		granted := grantedResources(c, latest)
		if !apiequality.Semantic.DeepEqual(granted.Requests, c.Resources.Requests) || !apiequality.Semantic.DeepEqual(granted.Limits, c.Resources.Limits) {
			names = append(names, c.Name)
		}
	}
	return names
}

func (a *account) terminated(c *container) *v1.ContainerStateTerminated {
	reason := c.reason
	if reason == "" {
		reason = "Completed"
		if c.exitCode != 0 {
			reason = "Error"
		}
	}
	message := c.message
	if more := a.messages[c.id]; more != "" {
		if message != "" {
			message += ": "
		}
		message += more
	}
	return &v1.ContainerStateTerminated{
		ExitCode: c.exitCode, Reason: reason, Message: message,
		StartedAt:   metav1.NewTime(c.startedAt).Rfc3339Copy(),
		FinishedAt:  metav1.NewTime(c.finishedAt).Rfc3339Copy(),
		ContainerID: a.runtimeName + "://" + c.id,
	}
}

// phaseOf is the pod's phase by its containers. over: nothing will be
// restarted any more.
func phaseOf(pod *v1.Pod, status *v1.PodStatus, over bool) v1.PodPhase {
	begun := false
	for _, cs := range status.ContainerStatuses {
		if cs.State.Running != nil || cs.State.Terminated != nil || cs.LastTerminationState.Terminated != nil {
			begun = true
		}
	}
	sidecarRuns := false
	for i := range pod.Spec.InitContainers {
		c := &pod.Spec.InitContainers[i]
		cs := statusOf(status.InitContainerStatuses, c.Name)
		if isSidecar(c) {
			if cs.State.Running != nil {
				sidecarRuns = true
			}
			if !begun && !over && !isTrue(cs.Started) {
				return v1.PodPending
			}
			continue
		}
		ended := cs.State.Terminated
		if ended == nil && cs.State.Waiting != nil {
			ended = cs.LastTerminationState.Terminated
		}
		switch {
		case ended != nil && ended.ExitCode != 0 && (over || !restarts(pod, c, initContainer, ended.ExitCode)):
			return v1.PodFailed
		case cs.State.Terminated != nil && cs.State.Terminated.ExitCode == 0:
		case !begun && !over:
			return v1.PodPending
		}
	}

	running, pending, again, failed := 0, 0, 0, 0
	for i := range pod.Spec.Containers {
		c := &pod.Spec.Containers[i]
		cs := statusOf(status.ContainerStatuses, c.Name)
		ended := cs.State.Terminated
		if ended == nil && cs.State.Waiting != nil {
			ended = cs.LastTerminationState.Terminated
		}
		switch {
		case cs.State.Running != nil:
			running++
		case ended == nil:
			pending++
		default:
			if !over && restarts(pod, c, appContainer, ended.ExitCode) {
				again++
			}
			if ended.ExitCode != 0 {
				failed++
			}
		}
	}
	switch {
	case pending > 0 && over:
		return v1.PodFailed
	case pending > 0:
		return v1.PodPending
	case running > 0 || again > 0:
		return v1.PodRunning
	case sidecarRuns:
		return v1.PodRunning
	case failed > 0:
		return v1.PodFailed
	}
	return v1.PodSucceeded
}

func statusOf(list []v1.ContainerStatus, name string) v1.ContainerStatus {
	for _, cs := range list {
		if cs.Name == name {
			return cs
		}
	}
	return v1.ContainerStatus{Name: name}
}

// conditions sets the pod conditions an agent owns, keeping the time of those
// that did not change and the conditions of others.
func (a *account) conditions(status *v1.PodStatus) {
	pod := a.pod
	set := func(kind v1.PodConditionType, ok bool, reason, message string) {
		value := v1.ConditionFalse
		if ok {
			value = v1.ConditionTrue
		}
		condition := v1.PodCondition{
			Type: kind, Status: value, Reason: reason, Message: message,
			ObservedGeneration: pod.Generation, LastTransitionTime: metav1.NewTime(a.now).Rfc3339Copy(),
		}
		for i := range status.Conditions {
			if status.Conditions[i].Type != kind {
				continue
			}
			if status.Conditions[i].Status == value {
				condition.LastTransitionTime = status.Conditions[i].LastTransitionTime
			}
			condition.LastProbeTime = status.Conditions[i].LastProbeTime
			status.Conditions[i] = condition
			return
		}
		status.Conditions = append(status.Conditions, condition)
	}

	current := a.runtime.current()
	set(v1.PodReadyToStartContainers, !a.settled && current != nil && current.ready && (pod.Spec.HostNetwork || len(current.ips) > 0), "", "")

	var uninitialized []string
	for i := range pod.Spec.InitContainers {
		c := &pod.Spec.InitContainers[i]
		cs := statusOf(status.InitContainerStatuses, c.Name)
		if isSidecar(c) {
			if !isTrue(cs.Started) {
				uninitialized = append(uninitialized, c.Name)
			}
		} else if !cs.Ready {
			uninitialized = append(uninitialized, c.Name)
		}
	}
	// A sidecar that restarts later does not undo initialization.
	begun := false
	for _, cs := range status.ContainerStatuses {
		begun = begun || cs.State.Running != nil || cs.State.Terminated != nil || cs.LastTerminationState.Terminated != nil && cs.RestartCount > 0
	}
	switch {
	case status.Phase == v1.PodSucceeded:
		set(v1.PodInitialized, true, "PodCompleted", "")
	case len(uninitialized) == 0 || begun && onlySidecars(pod, uninitialized):
		set(v1.PodInitialized, true, "", "")
	default:
		set(v1.PodInitialized, false, "ContainersNotInitialized", fmt.Sprintf("containers with incomplete status: [%s]", strings.Join(uninitialized, " ")))
	}

	reason, message := a.unready(status)
	containersReady := reason == ""
	gateReason, gateMessage := "", ""
	if containersReady {
		gateMessage = gatesUnready(pod, status)
		if gateMessage != "" {
			gateReason = "ReadinessGatesNotReady"
		}
	} else {
		gateReason, gateMessage = reason, message
	}
	set(v1.PodReady, gateReason == "", gateReason, gateMessage)
	set(v1.ContainersReady, containersReady, reason, message)
	set(v1.PodScheduled, true, "", "")

	status.Conditions = slices.DeleteFunc(status.Conditions, func(c v1.PodCondition) bool {
		return c.Type == v1.PodResizeInProgress || c.Type == v1.PodResizePending && len(a.resizing()) == 0
	})
	if names := a.resizing(); len(names) > 0 {
		set(v1.PodResizePending, true, v1.PodReasonInfeasible, fmt.Sprintf(
			"this node agent does not resize running containers; [%s] get their new resources when they restart", strings.Join(names, " ")))
	}
}

func onlySidecars(pod *v1.Pod, names []string) bool {
	for _, name := range names {
		if kind, _ := findContainer(pod, name); kind != sidecarContainer {
			return false
		}
	}
	return true
}

// unready says why the pod's containers are not all ready; nothing if they are.
func (a *account) unready(status *v1.PodStatus) (reason, message string) {
	switch status.Phase {
	case v1.PodSucceeded:
		return "PodCompleted", ""
	case v1.PodFailed:
		return "PodFailed", ""
	}
	var names []string
	check := func(c *v1.Container, list []v1.ContainerStatus) {
		if !statusOf(list, c.Name).Ready {
			names = append(names, c.Name)
		}
	}
	for _, c := range sidecarsOf(a.pod) {
		check(c, status.InitContainerStatuses)
	}
	for _, c := range containersOf(a.pod) {
		check(c, status.ContainerStatuses)
	}
	if len(names) > 0 {
		return "ContainersNotReady", fmt.Sprintf("containers with unready status: [%s]", strings.Join(names, " "))
	}
	return "", ""
}

func gatesUnready(pod *v1.Pod, status *v1.PodStatus) string {
	var messages []string
	for _, gate := range pod.Spec.ReadinessGates {
		found := false
		for _, condition := range status.Conditions {
			if condition.Type != gate.ConditionType {
				continue
			}
			found = true
			if condition.Status != v1.ConditionTrue {
				messages = append(messages, fmt.Sprintf("the status of pod readiness gate %q is not \"True\", but %v", gate.ConditionType, condition.Status))
			}
		}
		if !found {
			messages = append(messages, fmt.Sprintf("corresponding condition of pod readiness gate %q does not exist.", gate.ConditionType))
		}
	}
	return strings.Join(messages, ", ")
}

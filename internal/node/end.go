package node

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/timonel/timonel/internal/node/cri"
)

// endReason says why a pod is to stop.
type endReason int

const (
	endFinished endReason = iota // its containers ended, or had when we came
	endDeleted                   // the API wants it gone
	endGone                      // the API has forgotten it
	endDeadline                  // activeDeadlineSeconds passed
	endRejected                  // this node cannot run it
)

// ending is the way a pod goes: containers stopped (sidecars after the
// others), sandbox and network given back, volumes unmounted, last status
// written, object deleted, and once that is gone the records and files too.
type ending struct {
	why             endReason
	begun           bool
	deadline        time.Time // when what still runs is killed
	grace           time.Duration
	phase           v1.PodPhase
	reason, message string
	cleaned         bool // network and volumes are given back
	settled         bool // nothing of it runs; the status is the last
}

const (
	defaultGrace = 30 * time.Second
	// minGrace is the least a container gets to stop after its preStop hook.
	minGrace = 2 * time.Second
)

// seconds is n seconds, or otherwise.
func seconds(n *int64, otherwise time.Duration) time.Duration {
	if n == nil {
		return otherwise
	}
	return time.Duration(min(max(*n, 0), math.MaxInt64/int64(time.Second))) * time.Second
}

// whyEnd says whether the pod is to stop now.
func (w *podWorker) whyEnd(now time.Time) *ending {
	switch {
	case w.gone:
		return &ending{why: endGone}
	case w.pod.DeletionTimestamp != nil:
		return &ending{why: endDeleted}
	case ended(w.pod):
		return &ending{why: endFinished}
	}
	if limit := w.pod.Spec.ActiveDeadlineSeconds; limit != nil {
		started := w.startTime.Time
		if w.pod.Status.StartTime != nil {
			started = w.pod.Status.StartTime.Time
		}
		at := started.Add(seconds(limit, 0))
		if now.Before(at) {
			w.at(at)
			return nil
		}
		message := "Pod was active on the node longer than the specified deadline"
		w.agent.events.pod(w.pod, v1.EventTypeNormal, eventDeadline, message)
		return &ending{why: endDeadline, phase: v1.PodFailed, reason: reasonDeadlineExceeded, message: message}
	}
	return nil
}

// gracePeriod is how long the pod's containers may take to stop.
func (w *podWorker) gracePeriod() time.Duration {
	if w.pod.DeletionGracePeriodSeconds != nil && (w.pod.DeletionTimestamp != nil || w.gone) {
		return max(seconds(w.pod.DeletionGracePeriodSeconds, 0), time.Second)
	}
	return max(seconds(w.pod.Spec.TerminationGracePeriodSeconds, defaultGrace), time.Second)
}

// end takes the next steps of a pod that stops. It returns true when nothing
// of it is left.
func (w *podWorker) end(ctx context.Context) (done bool) {
	e, now := w.ending, time.Now()
	switch {
	case w.gone:
		e.why = endGone
	case w.pod.DeletionTimestamp != nil && e.why != endGone:
		e.why = endDeleted
	}
	if grace := w.gracePeriod(); !e.begun || (grace < e.grace && w.seen.anyRunning()) {
		// A second deletion may shorten the time of those still stopping.
		if e.begun {
			w.cancelOperations("kill/")
		}
		e.begun, e.grace = true, grace
		e.deadline = now.Add(grace)
		w.cancelOperations("pull/")
		w.cancelOperations("hook/")
		w.stopProbes(startupProbe, livenessProbe)
	}

	if w.seen.anyRunning() {
		w.killAll(ctx, now)
		return false
	}
	w.stopProbes(startupProbe, livenessProbe, readinessProbe)
	if !e.cleaned {
		if w.killRetry.waits(now) {
			w.at(w.killRetry.at)
			return false
		}
		if !w.stopSandboxes(ctx) {
			return false
		}
		if err := w.volumes.unmount(); err != nil {
			w.endFailed(ctx, "volumes not unmounted", err)
			return false
		}
		w.killRetry.succeeded()
		e.cleaned = true
	}
	e.settled = true
	w.agent.release(w.uid)
	if !w.gone {
		return false
	}
	return w.vanish(ctx)
}

func (w *podWorker) endFailed(ctx context.Context, what string, err error) {
	if ctx.Err() != nil {
		return // the agent ends
	}
	w.log.Warn(what, "err", err)
	w.killRetry.failed(time.Now())
	w.at(w.killRetry.at)
	if !isUnavailable(err) && !w.gone {
		w.agent.events.pod(w.pod, v1.EventTypeWarning, eventFailedKill, fmt.Sprintf("error killing pod: %v", err))
	}
}

// killAll stops what runs: first the containers, then the sidecars, the last
// started first.
func (w *podWorker) killAll(ctx context.Context, now time.Time) {
	left := max(w.ending.deadline.Sub(now), time.Second)
	var sidecars []*container
	others := false
	for i := range w.seen.containers {
		c := &w.seen.containers[i]
		if !c.running() {
			continue
		}
		if kind, _ := findContainer(w.pod, c.name); kind == sidecarContainer {
			sidecars = append(sidecars, c)
			continue
		}
		others = true
		w.kill(ctx, c, "", left)
	}
	if others || len(sidecars) == 0 {
		return
	}
	rank := map[string]int{}
	for i, c := range sidecarsOf(w.pod) {
		rank[c.Name] = i
	}
	last := sidecars[0]
	for _, c := range sidecars[1:] {
		if rank[c.name] > rank[last.name] {
			last = c
		}
	}
	w.kill(ctx, last, "", left)
}

// kill stops a container: preStop hook, stop signal, and at the end of its
// grace SIGKILL. It is an operation; a second call while it runs does nothing.
func (w *podWorker) kill(ctx context.Context, c *container, message string, grace time.Duration) {
	name := "kill/" + c.id
	if w.busy(name) {
		return
	}
	if _, announced := w.exits[c.id]; announced {
		return // it ended already; the runtime's record follows
	}
	if w.killRetry.waits(time.Now()) {
		w.at(w.killRetry.at)
		return
	}
	kind, spec := findContainer(w.pod, c.name)
	if spec == nil {
		spec = &v1.Container{Name: c.name}
	}
	spec = spec.DeepCopy()
	if message == "" {
		message = "Stopping container " + c.name
	}
	if !w.killed[c.id] {
		w.killed[c.id] = true
		w.agent.events.container(w.pod, kind, c.name, v1.EventTypeNormal, eventKilling, message)
	}

	var preStop *v1.LifecycleHandler
	if spec.Lifecycle != nil && !w.preStopped[c.id] {
		preStop = spec.Lifecycle.PreStop
		w.preStopped[c.id] = true
	}
	target := w.target(spec, c.id)
	pod := w.pod
	w.begin(ctx, name, func(ctx context.Context) func() {
		began := time.Now()
		if preStop != nil && grace > 0 {
			hook, cancel := context.WithTimeout(ctx, grace)
			err := target.runHook(hook, preStop)
			cancel()
			if err != nil && ctx.Err() == nil {
				w.agent.events.container(pod, kind, c.name, v1.EventTypeWarning, eventPreStop, "PreStopHook failed")
				w.log.Warn("preStop hook failed", "container", c.name, "err", err)
			}
		}
		left := max(grace-time.Since(began), min(grace, minGrace))
		timeout := int64(math.Ceil(left.Seconds()))
		call, cancel := context.WithTimeout(ctx, time.Duration(timeout)*time.Second+cri.CallTimeout)
		defer cancel()
		_, err := target.runtime.StopContainer(call, &runtimeapi.StopContainerRequest{ContainerId: c.id, Timeout: timeout})
		return func() {
			w.dirty = true
			switch {
			case err == nil, status.Code(err) == codes.NotFound:
				w.killRetry.succeeded()
				w.exits[c.id] = 0
			case ctx.Err() != nil:
			default:
				w.endFailed(ctx, "container not stopped", fmt.Errorf("stop container %s: %w", c.name, err))
			}
		}
	})
}

// stopSandboxes stops all sandboxes of the pod and gives back their networks;
// false means: not yet.
func (w *podWorker) stopSandboxes(ctx context.Context) bool {
	for i := range w.seen.sandboxes {
		s := &w.seen.sandboxes[i]
		if w.stopped[s.id] {
			continue
		}
		call, cancel := context.WithTimeout(ctx, cri.CallTimeout)
		_, err := w.agent.runtime.Runtime.StopPodSandbox(call, &runtimeapi.StopPodSandboxRequest{PodSandboxId: s.id})
		cancel()
		if err != nil && status.Code(err) != codes.NotFound {
			w.endFailed(ctx, "sandbox not stopped", fmt.Errorf("stop sandbox: %w", err))
			return false
		}
		w.stopped[s.id] = true
		w.dirty = true
	}
	return true
}

// vanish removes the last traces: records in the runtime, logs, directory.
func (w *podWorker) vanish(ctx context.Context) bool {
	now := time.Now()
	if w.killRetry.waits(now) {
		w.at(w.killRetry.at)
		return false
	}
	for i := range w.seen.sandboxes {
		call, cancel := context.WithTimeout(ctx, cri.CallTimeout)
		_, err := w.agent.runtime.Runtime.RemovePodSandbox(call, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: w.seen.sandboxes[i].id})
		cancel()
		if err != nil && status.Code(err) != codes.NotFound {
			w.endFailed(ctx, "sandbox not removed", err)
			return false
		}
	}
	if err := w.forgetFiles(); err != nil {
		w.endFailed(ctx, "pod directory not removed", err)
		return false
	}
	if err := w.agent.cgroups.remove(w.pod); err != nil {
		w.log.Warn("pod cgroup not removed", "err", err)
	}
	return true
}

// podFromRuntime rebuilds, from the labels and annotations in the runtime, as
// much of a pod as is needed to end it well: for pods that the API forgot
// while the agent was away.
func podFromRuntime(node string, labels map[string]string, containers []*runtimeapi.Container) *v1.Pod {
	pod := &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: labels[labelPodName], Namespace: labels[labelPodNamespace], UID: types.UID(labels[labelPodUID]),
		},
		Spec: v1.PodSpec{NodeName: node},
	}
	for _, item := range containers {
		c := v1.Container{Name: item.Labels[labelContainerName]}
		if _, known := findContainer(pod, c.Name); c.Name == "" || known != nil {
			continue
		}
		if text := item.Annotations[annotationPreStop]; text != "" {
			var hook v1.LifecycleHandler
			if json.Unmarshal([]byte(text), &hook) == nil {
				c.Lifecycle = &v1.Lifecycle{PreStop: &hook}
			}
		}
		if text := item.Annotations[annotationPorts]; text != "" {
			_ = json.Unmarshal([]byte(text), &c.Ports)
		}
		for _, key := range []string{annotationPodDeletionGrace, annotationPodGrace} {
			var n int64
			if text := item.Annotations[key]; text != "" && pod.Spec.TerminationGracePeriodSeconds == nil {
				if _, err := fmt.Sscan(text, &n); err == nil {
					pod.Spec.TerminationGracePeriodSeconds = &n
				}
			}
		}
		pod.Spec.Containers = append(pod.Spec.Containers, c)
	}
	return pod
}

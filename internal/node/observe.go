package node

import (
	"context"
	"time"

	v1 "k8s.io/api/core/v1"
)

// probing holds the probes of one running container.
type probing struct {
	cancels map[probeKind]context.CancelFunc
	passed  chan struct{} // closed when the startup probe passed
}

// observe takes in what the snapshot shows anew: containers that run get
// probes, containers that ended their last words.
func (w *podWorker) observe(ctx context.Context) {
	base := w.basePod()
	budget := maxTerminationTotal
	for i := range w.seen.containers {
		c := &w.seen.containers[i]
		switch {
		case c.running():
			w.observeRunning(ctx, base, c)
		case c.exited():
			if p := w.probes[c.id]; p != nil {
				p.stop(startupProbe, livenessProbe, readinessProbe)
				delete(w.probes, c.id)
			}
			delete(w.ready, c.id)
			delete(w.started, c.id)
			delete(w.failed, c.id)
			delete(w.killed, c.id)
			delete(w.preStopped, c.id)
			if _, known := w.messages[c.id]; !known {
				w.messages[c.id] = terminationMessage(c)
			}
			if message := w.messages[c.id]; len(message) > budget {
				w.messages[c.id] = message[:budget]
			}
			budget -= len(w.messages[c.id])
		}
	}
	for id, p := range w.probes {
		if w.seen.byID(id) == nil {
			p.stop(startupProbe, livenessProbe, readinessProbe)
			delete(w.probes, id)
		}
	}
}

// observeRunning sees to the probes of a running container. One that was
// running before this agent came keeps what was known of it.
func (w *podWorker) observeRunning(ctx context.Context, base *v1.Pod, c *container) {
	kind, spec := findContainer(w.pod, c.name)
	if spec == nil {
		return
	}
	if latest := w.seen.latest(c.name); latest.id != c.id {
		return
	}
	if w.probes[c.id] == nil {
		old := oldContainerStatus(base, c.name)
		same := old != nil && old.ContainerID == w.agent.runtimeName()+"://"+c.id
		w.startProbes(ctx, kind, spec.DeepCopy(), c, same && old.Ready, same && isTrue(old.Started))
	}
	if spec.StartupProbe == nil && !w.hooked(c.id) {
		w.started[c.id] = true
	}
	if spec.ReadinessProbe == nil {
		w.ready[c.id] = true
	}
}

func (w *podWorker) startProbes(ctx context.Context, kind kindOf, spec *v1.Container, c *container, ready, started bool) {
	p := &probing{cancels: map[probeKind]context.CancelFunc{}, passed: make(chan struct{})}
	w.probes[c.id] = p
	if kind == initContainer || kind == ephemeralContainer {
		return
	}
	id := c.id
	w.ready[id] = ready && spec.ReadinessProbe != nil
	if spec.StartupProbe == nil || started {
		close(p.passed)
		if spec.StartupProbe != nil {
			w.started[id] = true
		}
	} else {
		w.startProbe(ctx, p, kind, spec, c, startupProbe, false)
	}
	if w.ending == nil && spec.LivenessProbe != nil {
		w.startProbe(ctx, p, kind, spec, c, livenessProbe, true)
	}
	if spec.ReadinessProbe != nil {
		w.startProbe(ctx, p, kind, spec, c, readinessProbe, ready)
	}
}

func (w *podWorker) startProbe(ctx context.Context, p *probing, role kindOf, spec *v1.Container, c *container, kind probeKind, initial bool) {
	id, pod := c.id, w.pod
	target := w.target(spec, id)
	probe := probeOf(spec, kind)
	question := &prober{
		kind: kind, probe: probe, began: c.startedAt, initial: initial,
		ask: func(ctx context.Context) (bool, string, error) { return target.ask(ctx, probe) },
		complain: func(reason, message string) {
			w.agent.events.container(pod, role, spec.Name, v1.EventTypeWarning, reason, message)
		},
		report: func(ok bool) bool { return w.probed(id, kind, p, ok) },
	}
	if kind != startupProbe {
		question.open = p.passed
	}
	ctx, cancel := context.WithCancel(ctx)
	p.cancels[kind] = cancel
	w.agent.group.Go(func() { question.run(ctx) })
}

// probed takes a probe's turned answer to the loop; it is called from the
// prober and reports whether that shall go on.
func (w *podWorker) probed(id string, kind probeKind, p *probing, ok bool) (more bool) {
	w.post(func() {
		c := w.seen.byID(id)
		if c == nil || !c.running() || w.probes[id] != p {
			return
		}
		switch {
		case kind == readinessProbe:
			w.ready[id] = ok
		case !ok:
			w.failed[id] = string(kind)
		case kind == startupProbe:
			w.started[id] = true
			close(p.passed)
		}
	})
	switch kind {
	case startupProbe:
		return false
	case livenessProbe:
		return ok
	}
	return true
}

func (p *probing) stop(kinds ...probeKind) {
	for _, kind := range kinds {
		if cancel := p.cancels[kind]; cancel != nil {
			cancel()
			delete(p.cancels, kind)
		}
	}
}

func (w *podWorker) stopProbes(kinds ...probeKind) {
	for _, p := range w.probes {
		p.stop(kinds...)
	}
}

// rejection is why this node does not take a pod.
type rejection struct{ reason, message string }

// status is that of a pod the node refused: failed, nothing of it ran.
func (r *rejection) status(pod *v1.Pod) v1.PodStatus {
	status := *pod.Status.DeepCopy()
	status.ObservedGeneration = pod.Generation
	status.Phase = v1.PodFailed
	status.Reason = r.reason
	status.Message = "Pod was rejected: " + r.message
	status.QOSClass = qosOf(pod)
	if status.StartTime == nil {
		now := pod.CreationTimestamp
		if now.IsZero() {
			now.Time = time.Now()
		}
		status.StartTime = now.DeepCopy()
	}
	return status
}

package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/timonel/timonel/internal/node/cri"
)

// advanceRounds bounds the steps of one turn of the loop; a pod with more to
// do wakes itself.
const advanceRounds = 32

// advance takes the pod's next steps until nothing can be done at once.
func (w *podWorker) advance(ctx context.Context) {
	if !w.admitted {
		if w.rejected = w.agent.admit(w.pod, w.seen); w.rejected != nil {
			w.agent.events.pod(w.pod, v1.EventTypeWarning, w.rejected.reason, w.rejected.message)
			w.ending = &ending{why: endRejected}
			return
		}
		w.admitted = true
		if w.pod.Status.StartTime == nil {
			w.publish(w.seen) // seen, and about to start
		}
	}
	if missing := unsupported(w.pod); len(missing) > 0 && w.seen.current() == nil {
		w.refuse(missing)
		return
	}
	w.mountVolumes(ctx)
	for range advanceRounds {
		w.removeUnstarted(ctx)
		d := decide(w.pod, observed{runtime: w.seen, failed: w.failed, started: w.started})
		if d.finished {
			w.ending = &ending{why: endFinished}
			return
		}
		if !w.carryOut(ctx, d) {
			return
		}
		w.dirty = true
		if !w.refresh(ctx) {
			return
		}
		w.observe(ctx)
	}
	w.poke()
}

// refuse reports a pod that asks for what this agent cannot do. It waits, as a
// pod whose image is missing does: a later agent may run it.
func (w *podWorker) refuse(missing []string) {
	message := "this node agent does not support: " + strings.Join(missing, ", ")
	everyContainer(w.pod, func(_ kindOf, c *v1.Container) {
		w.memory(c).waits = &waiting{reasonConfigError, message}
	})
	if w.mountTold != message {
		w.mountTold = message
		w.agent.events.pod(w.pod, v1.EventTypeWarning, eventUnsupported, message)
	}
}

// carryOut takes the steps of a decision. It returns true when the runtime
// changed by them.
func (w *podWorker) carryOut(ctx context.Context, d decision) (acted bool) {
	for _, k := range d.kill {
		if c := w.seen.byID(k.id); c != nil {
			grace := w.pod.Spec.TerminationGracePeriodSeconds
			if k.grace != nil {
				grace = k.grace
			}
			w.kill(ctx, c, k.message, seconds(grace, defaultGrace))
		}
	}
	if d.newSandbox {
		return w.makeSandbox(ctx, d.attempt)
	}
	starting := map[string]bool{}
	for _, s := range d.start {
		starting[s.container.Name] = true
	}
	for name, m := range w.memories {
		if latest := w.seen.latest(name); !starting[name] && latest != nil && !w.hooked(latest.id) {
			m.waits = nil // it runs, or ended for good
		}
	}
	for _, s := range d.start {
		if w.startContainer(ctx, s) {
			acted = true
		}
	}
	if acted {
		w.prune(ctx)
	}
	return acted
}

// mountVolumes makes the pod's volumes ready, or fresh again.
func (w *podWorker) mountVolumes(ctx context.Context) {
	now := time.Now()
	due := !w.mounted || w.remount || (!w.renewAt.IsZero() && !now.Before(w.renewAt))
	if !due {
		if !w.renewAt.IsZero() {
			w.at(w.renewAt)
		}
		return
	}
	if w.mountRetry.waits(now) {
		w.at(w.mountRetry.at)
		return
	}
	if err := os.MkdirAll(w.volumes.dir, 0o750); err != nil {
		w.mountFailed(now, err)
		return
	}
	call, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	renewAt, err := w.volumes.mount(call)
	if err != nil {
		w.mountFailed(now, err)
		return
	}
	w.mounted, w.remount, w.renewAt, w.mountTold = true, false, renewAt, ""
	w.mountRetry.succeeded()
	if !renewAt.IsZero() {
		w.at(renewAt)
	}
	w.reportSizeLimits()
}

func (w *podWorker) mountFailed(now time.Time, err error) {
	if errors.Is(err, errNotSynced) {
		return // woken when it is
	}
	w.mountRetry.failed(now)
	w.at(w.mountRetry.at)
	if message := err.Error(); w.mountTold != message {
		w.mountTold = message
		for _, line := range strings.Split(message, "\n") {
			w.agent.events.pod(w.pod, v1.EventTypeWarning, eventFailedMount, line)
		}
	}
}

// reportSizeLimits says, once, that size limits on disk are not watched.
func (w *podWorker) reportSizeLimits() {
	for _, volume := range w.pod.Spec.Volumes {
		if e := volume.EmptyDir; e != nil && e.Medium == v1.StorageMediumDefault && e.SizeLimit != nil && !e.SizeLimit.IsZero() && !w.sandboxTold[eventSizeLimit] {
			w.sandboxTold[eventSizeLimit] = true
			if w.seen.current() == nil {
				w.agent.events.pod(w.pod, v1.EventTypeWarning, eventSizeLimit, fmt.Sprintf("sizeLimit of emptyDir volume %q is not enforced by this node agent", volume.Name))
			}
		}
	}
}

// makeSandbox replaces or makes the pod's sandbox.
func (w *podWorker) makeSandbox(ctx context.Context, attempt uint32) (acted bool) {
	now := time.Now()
	if old := w.seen.current(); old != nil {
		if !w.sandboxTold[old.id] {
			w.sandboxTold[old.id] = true
			w.agent.events.pod(w.pod, v1.EventTypeNormal, eventSandboxChanged, "Pod sandbox changed, it will be killed and re-created.")
		}
		for i := range w.seen.containers {
			if c := &w.seen.containers[i]; c.running() {
				w.kill(ctx, c, "", seconds(w.pod.Spec.TerminationGracePeriodSeconds, defaultGrace))
			}
		}
		if w.seen.anyRunning() || !w.stopSandboxes(ctx) {
			return false
		}
	}
	if w.sandboxRetry.waits(now) {
		w.at(w.sandboxRetry.at)
		return false
	}
	if !w.mounted {
		return false
	}
	if err := w.runSandbox(ctx, attempt); err != nil {
		if isUnavailable(err) || ctx.Err() != nil {
			w.runtimeRetry.failed(now)
			w.at(w.runtimeRetry.at)
			w.dirty = true
			return false
		}
		w.sandboxRetry.failed(now)
		w.at(w.sandboxRetry.at)
		w.dirty = true // a sandbox that failed half-way may be there
		w.agent.events.pod(w.pod, v1.EventTypeWarning, eventFailedSandbox, "Failed to create pod sandbox: "+err.Error())
		return false
	}
	w.sandboxRetry.succeeded()
	return true
}

// sandboxTimeout bounds the making of a sandbox with its network.
const sandboxTimeout = 4 * time.Minute

func (w *podWorker) runSandbox(ctx context.Context, attempt uint32) error {
	cfg := &w.agent.cfg
	dns, fellBack, err := podDNS(w.pod, cfg)
	if err != nil {
		return err
	}
	if fellBack && !w.sandboxTold[eventDNSFallback] {
		w.sandboxTold[eventDNSFallback] = true
		w.agent.events.pod(w.pod, v1.EventTypeWarning, eventDNSFallback, fmt.Sprintf(
			"pod: %q. kubelet does not have ClusterDNS IP configured and cannot create Pod using %q policy. Falling back to %q policy.",
			podDescription(w.pod), w.pod.Spec.DNSPolicy, v1.DNSDefault))
	}
	handler, err := w.agent.runtimeHandler(ctx, w.pod)
	if err != nil {
		return err
	}
	parent, err := w.agent.cgroups.make(w.pod)
	if err != nil {
		return err
	}
	config, err := sandboxConfig(w.pod, cfg, attempt, dns, parent)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(config.LogDirectory, 0o755); err != nil {
		return fmt.Errorf("create log directory: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, sandboxTimeout)
	defer cancel()
	answer, err := w.agent.runtime.Runtime.RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: config, RuntimeHandler: handler})
	if err != nil {
		return err
	}
	w.agent.own(answer.PodSandboxId, w.uid)
	return nil
}

// startContainer starts a container, or says why not yet. It returns true when
// the runtime changed.
func (w *podWorker) startContainer(ctx context.Context, s start) (acted bool) {
	c := s.container
	m := w.memory(c)
	now := time.Now()
	if !w.mounted || w.busy("pull/"+c.Name) {
		return false
	}
	latest, current := w.seen.latest(c.Name), w.seen.current()
	if latest != nil && w.busy("kill/"+latest.id) {
		return false
	}
	again := latest != nil && latest.exited() && latest.sandbox == current.id
	if again {
		if at := m.crash.readyAt(endedAt(latest)); now.Before(at) {
			w.crashLoop(s, m, latest)
			w.at(at)
			return false
		}
	}
	if m.retry.waits(now) {
		w.at(m.retry.at)
		return false
	}
	image, ok := w.ensureImage(ctx, s, m)
	if !ok {
		return false
	}
	spec := containerSpec{kind: s.kind, container: c, attempt: w.nextAttempt(c.Name), image: image, podIPs: w.facts().podIPs}
	if s.kind == ephemeralContainer {
		spec.target = w.targetOf(c.Name)
	}
	config, err := w.containerConfig(spec)
	if errors.Is(err, errNotSynced) {
		return false
	}
	if err != nil {
		reason := reasonCreateError
		if errors.As(err, new(configError)) {
			reason = reasonConfigError
		}
		w.startFailed(s, m, waiting{reason, err.Error()})
		return false
	}
	id, err := w.createContainer(ctx, current, config)
	if err != nil {
		if isUnavailable(err) || ctx.Err() != nil {
			w.dirty = true
			return false
		}
		w.startFailed(s, m, waiting{reasonCreateError, err.Error()})
		return true
	}
	m.image = nil
	if again {
		m.crash.attempt(now, endedAt(latest))
	}
	w.agent.own(id, w.uid)
	w.agent.events.container(w.pod, s.kind, c.Name, v1.EventTypeNormal, eventCreated, "Created container: "+c.Name)

	call, cancel := context.WithTimeout(ctx, cri.CallTimeout)
	defer cancel()
	if _, err := w.agent.runtime.Runtime.StartContainer(call, &runtimeapi.StartContainerRequest{ContainerId: id}); err != nil {
		// The runtime keeps it as exited; the back-off goes on from there.
		m.waits = &waiting{reasonRunError, err.Error()}
		m.told = ""
		w.agent.events.container(w.pod, s.kind, c.Name, v1.EventTypeWarning, eventFailed, "Error: "+err.Error())
		return true
	}
	w.agent.events.container(w.pod, s.kind, c.Name, v1.EventTypeNormal, eventStarted, "Started container "+c.Name)
	m.waits, m.told = nil, ""
	m.retry.succeeded()
	w.linkLog(c.Name, id, config.LogPath)
	if c.Lifecycle != nil && c.Lifecycle.PostStart != nil {
		w.postStart(ctx, s, m, id)
	}
	return true
}

// endedAt is when a container ended, as far as the runtime knows.
func endedAt(c *container) time.Time {
	if c.finishedAt.IsZero() {
		return c.createdAt
	}
	return c.finishedAt
}

func (w *podWorker) crashLoop(s start, m *memory, latest *container) {
	if m.told == latest.id {
		return
	}
	m.told = latest.id
	c := s.container
	m.waits = &waiting{reasonCrashLoop, fmt.Sprintf("back-off %s restarting failed container=%s pod=%s", m.crash.pause, c.Name, podDescription(w.pod))}
	w.agent.events.container(w.pod, s.kind, c.Name, v1.EventTypeWarning, eventBackOff,
		fmt.Sprintf("Back-off restarting failed container %s in pod %s", c.Name, podDescription(w.pod)))
}

// startFailed notes why a container could not be started and when to try again.
func (w *podWorker) startFailed(s start, m *memory, why waiting) {
	m.waits = &why
	m.retry.failed(time.Now())
	w.at(m.retry.at)
	w.agent.events.container(w.pod, s.kind, s.container.Name, v1.EventTypeWarning, eventFailed, "Error: "+why.message)
}

// nextAttempt counts a container's runs, across sandboxes and lost records.
func (w *podWorker) nextAttempt(name string) int {
	if latest := w.seen.latest(name); latest != nil {
		return latest.attempt + 1
	}
	old := oldContainerStatus(w.basePod(), name)
	switch {
	case old == nil:
		return 0
	case old.State.Running != nil || old.State.Terminated != nil:
		return int(old.RestartCount) + 1
	}
	return int(old.RestartCount)
}

func (w *podWorker) targetOf(name string) string {
	for i := range w.pod.Spec.EphemeralContainers {
		e := &w.pod.Spec.EphemeralContainers[i]
		if e.Name == name && e.TargetContainerName != "" {
			if target := w.seen.latest(e.TargetContainerName); target != nil {
				return target.id
			}
		}
	}
	return ""
}

func (w *podWorker) createContainer(ctx context.Context, in *sandbox, config *runtimeapi.ContainerConfig) (id string, err error) {
	dns, _, err := podDNS(w.pod, &w.agent.cfg)
	if err != nil {
		return "", err
	}
	sandbox, err := sandboxConfig(w.pod, &w.agent.cfg, in.attempt, dns, w.agent.cgroups.path(w.pod))
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, cri.CallTimeout)
	defer cancel()
	answer, err := w.agent.runtime.Runtime.CreateContainer(ctx, &runtimeapi.CreateContainerRequest{PodSandboxId: in.id, Config: config, SandboxConfig: sandbox})
	if err != nil {
		return "", err
	}
	return answer.ContainerId, nil
}

// linkLog gives a container's log the flat name that log collectors look for.
func (w *podWorker) linkLog(name, id, logPath string) {
	dir := w.agent.cfg.ContainerLogDir
	if dir == "" {
		return
	}
	target := filepath.Join(w.agent.cfg.podLogDir(w.pod.Namespace, w.pod.Name, w.uid), logPath)
	if err := os.Symlink(target, filepath.Join(dir, logLinkName(w.pod, name, id))); err != nil && !errors.Is(err, os.ErrExist) {
		w.log.Warn("log link not made", "container", name, "err", err)
	}
}

// postStart runs the container's hook; until it is through the container does
// not count as running.
func (w *podWorker) postStart(ctx context.Context, s start, m *memory, id string) {
	c := s.container.DeepCopy()
	m.waits = &waiting{reason: reasonContainerCreating}
	target := w.target(c, id)
	w.begin(ctx, "hook/"+id, func(ctx context.Context) func() {
		err := target.runHook(ctx, c.Lifecycle.PostStart)
		return func() {
			if err == nil || ctx.Err() != nil && w.ending != nil {
				m.waits = nil
				return
			}
			w.agent.events.container(w.pod, s.kind, c.Name, v1.EventTypeWarning, eventPostStart, "PostStartHook failed")
			m.waits = &waiting{reasonPostStart, err.Error()}
			w.dirty = true
			w.failed[id] = "" // not a probe
		}
	})
}

// hooked tells a container whose postStart hook runs or failed.
func (w *podWorker) hooked(id string) bool {
	probe, failed := w.failed[id]
	return w.busy("hook/"+id) || failed && probe == ""
}

// target is where probes and hooks of a container are aimed.
func (w *podWorker) target(c *v1.Container, id string) *probeTarget {
	return &probeTarget{
		runtime: w.agent.runtime.Runtime, containerID: id, container: c,
		podIP: first(w.facts().podIPs), version: w.agent.cfg.Version,
	}
}

// removeUnstarted drops containers that were made and never started, because
// an agent ended in between.
func (w *podWorker) removeUnstarted(ctx context.Context) {
	removed := false
	for i := range w.seen.containers {
		c := &w.seen.containers[i]
		if c.state == runtimeapi.ContainerState_CONTAINER_CREATED {
			w.remove(ctx, c)
			removed = true
		}
	}
	if removed {
		w.dirty = true
		w.refresh(ctx)
	}
}

// prune drops what a pod that restarts leaves behind: of each container the
// run before the current one is kept, for its log and last state.
func (w *podWorker) prune(ctx context.Context) {
	w.dirty = true
	if !w.refresh(ctx) {
		return
	}
	count := map[string]int{}
	kept := map[string]bool{}
	for i := range w.seen.containers {
		c := &w.seen.containers[i]
		count[c.name]++
		if c.exited() && count[c.name] > keptRuns {
			w.remove(ctx, c)
			w.dirty = true
			continue
		}
		kept[c.sandbox] = true
	}
	for i := 1; i < len(w.seen.sandboxes); i++ {
		s := &w.seen.sandboxes[i]
		if s.ready || kept[s.id] {
			continue
		}
		call, cancel := context.WithTimeout(ctx, cri.CallTimeout)
		_, err := w.agent.runtime.Runtime.RemovePodSandbox(call, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: s.id})
		cancel()
		if err != nil {
			w.log.Warn("old sandbox not removed", "sandbox", s.id, "err", err)
		}
		w.dirty = true
	}
}

// keptRuns of a container stay in the runtime: the current and the last.
const keptRuns = 2

func (w *podWorker) remove(ctx context.Context, c *container) {
	call, cancel := context.WithTimeout(ctx, cri.CallTimeout)
	defer cancel()
	if _, err := w.agent.runtime.Runtime.RemoveContainer(call, &runtimeapi.RemoveContainerRequest{ContainerId: c.id}); err != nil {
		w.log.Warn("container not removed", "container", c.name, "id", c.id, "err", err)
		return
	}
	w.agent.disown(c.id)
	removeLog(c.logPath)
	w.removeLogLinks(c.id)
	if file := c.annotations[annotationTerminationMessageFile]; file != "" {
		_ = os.Remove(file)
	}
	delete(w.messages, c.id)
}

// runtimeHandler looks up what the pod's RuntimeClass stands for.
func (a *Agent) runtimeHandler(ctx context.Context, pod *v1.Pod) (string, error) {
	name := pod.Spec.RuntimeClassName
	if name == nil || *name == "" {
		return "", nil
	}
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	class, err := a.client.NodeV1().RuntimeClasses().Get(ctx, *name, metav1.GetOptions{})
	if err != nil {
		return "", fmt.Errorf("failed to get RuntimeClass %q: %w", *name, err)
	}
	return class.Handler, nil
}

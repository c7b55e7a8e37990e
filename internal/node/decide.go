package node

import (
	"slices"

	v1 "k8s.io/api/core/v1"
)

// decide is the heart of a running pod: from what the pod wants and what the
// runtime has, the next steps. It is a pure function; the worker carries the
// steps out and asks again. Order of life:
//
//	sandbox → init containers one by one (sidecars stay) → app containers
//	→ … → all app containers ended for good → finished
//
// Invariant: containers of an old sandbox are never restarted in place; a new
// sandbox starts over with the init containers.

// facts is what decide looks at beside the pod.
type observed struct {
	runtime *snapshot
	// failed names the probe that condemns a running container, by its id;
	// empty if its postStart hook does.
	failed map[string]string
	// started holds containers whose startup probe (and postStart hook) passed.
	started map[string]bool
}

type start struct {
	kind      kindOf
	container *v1.Container
}

type kill struct {
	id, name string
	message  string // of the Killing event; empty for the usual one
	grace    *int64 // of the probe that condemned it, if it has its own
	// probe names the probe that condemned it: liveness or startup.
	probe string
}

// decision is the next steps of a pod. At most one of newSandbox, finished is
// set; both come with nothing to start.
type decision struct {
	finished   bool // nothing will run any more: end the pod
	newSandbox bool // stop what runs in the old one, then make this one
	attempt    uint32
	start      []start
	kill       []kill
}

func decide(pod *v1.Pod, o observed) decision {
	current := o.runtime.current()
	if current == nil || !current.ready {
		return decideSandbox(pod, o)
	}

	var d decision
	initialized, failed := decideInit(pod, o, current.id, &d)
	if failed {
		d.start = nil
		d.finished = true
		return d
	}
	if initialized {
		decideApps(pod, o, current.id, &d)
	}
	if !d.finished {
		everyContainer(pod, func(kind kindOf, c *v1.Container) {
			if kind == ephemeralContainer && o.runtime.latest(c.Name) == nil {
				d.start = append(d.start, start{kind, c})
			}
		})
	}
	return d
}

// decideSandbox is for a pod without a working sandbox. A pod whose containers
// already ran to an end they need not repeat gets no new one.
func decideSandbox(pod *v1.Pod, o observed) decision {
	d := decision{newSandbox: true}
	if current := o.runtime.current(); current != nil {
		d.attempt = current.attempt + 1
		again := false
		ran := false
		for _, c := range containersOf(pod) {
			latest := o.runtime.latest(c.Name)
			if latest == nil {
				again = true
				continue
			}
			ran = true
			if !latest.exited() || restarts(pod, c, appContainer, latest.exitCode) {
				again = true
			}
		}
		if pod.Spec.RestartPolicy == v1.RestartPolicyNever && ran && !anyOwnRestart(pod) {
			again = false
		}
		if initFailed := failedInit(pod, o); initFailed {
			again = false
		}
		if !again {
			return decision{finished: true}
		}
	}
	return d
}

func anyOwnRestart(pod *v1.Pod) bool {
	return slices.ContainsFunc(pod.Spec.Containers, func(c v1.Container) bool {
		return c.RestartPolicy != nil && *c.RestartPolicy != v1.ContainerRestartPolicyNever || len(c.RestartPolicyRules) > 0
	})
}

// failedInit reports whether an init container ended in a way that ends the pod.
func failedInit(pod *v1.Pod, o observed) bool {
	for i := range pod.Spec.InitContainers {
		c := &pod.Spec.InitContainers[i]
		if isSidecar(c) {
			continue
		}
		latest := o.runtime.latest(c.Name)
		if latest != nil && latest.exited() && latest.exitCode != 0 && !restarts(pod, c, initContainer, latest.exitCode) {
			return true
		}
	}
	return false
}

// decideInit walks the init containers. initialized: the app containers may
// run; failed: the pod cannot succeed any more.
func decideInit(pod *v1.Pod, o observed, sandbox string, d *decision) (initialized, failed bool) {
	// Once an app container was made in this sandbox, initialization is over,
	// even when the records of init containers are gone.
	over := slices.ContainsFunc(pod.Spec.Containers, func(c v1.Container) bool {
		return o.runtime.in(sandbox, c.Name) != nil
	})
	for i := range pod.Spec.InitContainers {
		c := &pod.Spec.InitContainers[i]
		have := o.runtime.in(sandbox, c.Name)
		if isSidecar(c) {
			ready := decideSidecar(o, c, have, d)
			if !ready && !over {
				return false, false
			}
			continue
		}
		if over {
			continue
		}
		switch {
		case have == nil:
			d.start = append(d.start, start{initContainer, c})
			return false, false
		case !have.exited():
			return false, false
		case have.exitCode == 0 && have.reason != reasonUnknown:
		case restarts(pod, c, initContainer, have.exitCode):
			d.start = append(d.start, start{initContainer, c})
			return false, false
		default:
			return false, true
		}
	}
	return true, false
}

// decideSidecar keeps a sidecar running and reports whether what comes after
// it may start.
func decideSidecar(o observed, c *v1.Container, have *container, d *decision) bool {
	switch {
	case have == nil || have.exited():
		d.start = append(d.start, start{sidecarContainer, c})
		return false
	case have.running():
		if k, condemned := condemn(o, c, have); condemned {
			d.kill = append(d.kill, k)
			return false
		}
		return o.started[have.id]
	}
	return false
}

func decideApps(pod *v1.Pod, o observed, sandbox string, d *decision) {
	alive := false
	for _, c := range containersOf(pod) {
		have := o.runtime.in(sandbox, c.Name)
		switch {
		case have == nil:
			// A container of an earlier sandbox that need not run again does not.
			if last := o.runtime.latest(c.Name); last != nil && last.exited() && !restarts(pod, c, appContainer, last.exitCode) {
				continue
			}
			alive = true
			d.start = append(d.start, start{appContainer, c})
		case have.exited():
			if restarts(pod, c, appContainer, have.exitCode) {
				alive = true
				d.start = append(d.start, start{appContainer, c})
			}
		default:
			alive = true
			if k, condemned := condemn(o, c, have); condemned {
				d.kill = append(d.kill, k)
			}
		}
	}
	if !alive {
		*d = decision{finished: true}
	}
}

// condemn says whether a running container has to go: its image changed in the
// spec, or a probe failed.
func condemn(o observed, c *v1.Container, have *container) (kill, bool) {
	if !have.running() {
		return kill{}, false
	}
	if have.hash != "" && have.hash != containerHash(c) {
		return kill{id: have.id, name: c.Name, message: "Container " + c.Name + " definition changed, will be restarted"}, true
	}
	probe, condemned := o.failed[have.id]
	if !condemned {
		return kill{}, false
	}
	if probe == "" {
		return kill{id: have.id, name: c.Name, message: "FailedPostStartHook"}, true
	}
	k := kill{id: have.id, name: c.Name, probe: probe, message: "Container " + c.Name + " failed " + probe + " probe, will be restarted"}
	spec := c.LivenessProbe
	if probe == "startup" {
		spec = c.StartupProbe
	}
	if spec != nil {
		k.grace = spec.TerminationGracePeriodSeconds
	}
	return k, true
}

// restarts tells whether a container that ended so is to run again: by its own
// rules and policy (KEP-5307), else by its pod's policy.
func restarts(pod *v1.Pod, c *v1.Container, kind kindOf, exitCode int32) bool {
	switch kind {
	case ephemeralContainer:
		return false
	case sidecarContainer:
		return true
	}
	for _, rule := range c.RestartPolicyRules {
		if rule.ExitCodes == nil || rule.Action != v1.ContainerRestartRuleActionRestart {
			continue
		}
		in := slices.Contains(rule.ExitCodes.Values, exitCode)
		if in == (rule.ExitCodes.Operator == v1.ContainerRestartRuleOnExitCodesOpIn) {
			return true
		}
	}
	policy := pod.Spec.RestartPolicy
	if c.RestartPolicy != nil {
		policy = v1.RestartPolicy(*c.RestartPolicy)
	}
	switch policy {
	case v1.RestartPolicyNever:
		return false
	case v1.RestartPolicyOnFailure:
		return exitCode != 0
	}
	// An init container that succeeded is done under any policy.
	return kind != initContainer || exitCode != 0
}

const reasonUnknown = "ContainerStatusUnknown"

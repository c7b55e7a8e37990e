package node

import (
	"strconv"

	v1 "k8s.io/api/core/v1"
)

// kindOf says which role a container plays in its pod.
type kindOf int

const (
	appContainer kindOf = iota
	initContainer
	sidecarContainer   // an init container with restartPolicy Always
	ephemeralContainer // put into a running pod by kubectl debug
)

// isSidecar tells restartable init containers (KEP-753).
func isSidecar(c *v1.Container) bool {
	return c.RestartPolicy != nil && *c.RestartPolicy == v1.ContainerRestartPolicyAlways
}

func containersOf(pod *v1.Pod) []*v1.Container {
	out := make([]*v1.Container, len(pod.Spec.Containers))
	for i := range pod.Spec.Containers {
		out[i] = &pod.Spec.Containers[i]
	}
	return out
}

func sidecarsOf(pod *v1.Pod) []*v1.Container {
	var out []*v1.Container
	for i := range pod.Spec.InitContainers {
		if isSidecar(&pod.Spec.InitContainers[i]) {
			out = append(out, &pod.Spec.InitContainers[i])
		}
	}
	return out
}

// everyContainer calls f for all containers of a pod in the order they start,
// ephemeral ones last.
func everyContainer(pod *v1.Pod, f func(kindOf, *v1.Container)) {
	for i := range pod.Spec.InitContainers {
		c := &pod.Spec.InitContainers[i]
		if isSidecar(c) {
			f(sidecarContainer, c)
		} else {
			f(initContainer, c)
		}
	}
	for i := range pod.Spec.Containers {
		f(appContainer, &pod.Spec.Containers[i])
	}
	for i := range pod.Spec.EphemeralContainers {
		c := v1.Container(pod.Spec.EphemeralContainers[i].EphemeralContainerCommon)
		f(ephemeralContainer, &c)
	}
}

// findContainer returns the container of a pod with that name.
func findContainer(pod *v1.Pod, name string) (kind kindOf, found *v1.Container) {
	everyContainer(pod, func(k kindOf, c *v1.Container) {
		if c.Name == name {
			kind, found = k, c
		}
	})
	return kind, found
}

// fieldPath is a container's place in its pod for events.
func fieldPath(kind kindOf, name string) string {
	switch kind {
	case initContainer, sidecarContainer:
		return "spec.initContainers{" + name + "}"
	case ephemeralContainer:
		return "spec.ephemeralContainers{" + name + "}"
	}
	return "spec.containers{" + name + "}"
}

func formatInt(n int64) string { return strconv.FormatInt(n, 10) }

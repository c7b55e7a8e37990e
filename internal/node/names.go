package node

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"path/filepath"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Labels and annotations on sandboxes and containers in the runtime. The
// io.kubernetes ones are the kubelet's, known to crictl, log collectors and
// monitoring agents. They also are the agent's memory: after a restart it finds
// its pods by them.
const (
	labelPodName       = "io.kubernetes.pod.name"
	labelPodNamespace  = "io.kubernetes.pod.namespace"
	labelPodUID        = "io.kubernetes.pod.uid"
	labelContainerName = "io.kubernetes.container.name"

	// labelNode marks what belongs to this agent. What lacks it, or carries
	// another node's name, is somebody else's and is never touched.
	labelNode = "node.timonel.dev/name"

	annotationHash                   = "io.kubernetes.container.hash"
	annotationRestartCount           = "io.kubernetes.container.restartCount"
	annotationTerminationPath        = "io.kubernetes.container.terminationMessagePath"
	annotationTerminationPolicy      = "io.kubernetes.container.terminationMessagePolicy"
	annotationPreStop                = "io.kubernetes.container.preStopHandler"
	annotationPorts                  = "io.kubernetes.container.ports"
	annotationContainerGrace         = "io.kubernetes.container.terminationGracePeriod"
	annotationPodGrace               = "io.kubernetes.pod.terminationGracePeriod"
	annotationPodDeletionGrace       = "io.kubernetes.pod.deletionGracePeriod"
	annotationTerminationMessageFile = "node.timonel.dev/termination-message-file"
	annotationResources              = "node.timonel.dev/resources"
	annotationConfigSource           = "kubernetes.io/config.source"
	annotationConfigSeen             = "kubernetes.io/config.seen"
)

// podDir is the directory of everything the agent keeps of a pod, laid out as
// a kubelet's.
func (c *Config) podDir(uid types.UID) string {
	return filepath.Join(c.DataDir, "pods", string(uid))
}

// podLogDir is where the runtime writes the pod's container logs.
func (c *Config) podLogDir(namespace, name string, uid types.UID) string {
	return filepath.Join(c.LogDir, namespace+"_"+name+"_"+string(uid))
}

// containerLogPath is a container's log below its pod's log directory.
func containerLogPath(container string, attempt int) string {
	return filepath.Join(container, fmt.Sprint(attempt)+".log")
}

// logLinkName is the flat name log collectors look for in /var/log/containers.
func logLinkName(pod *v1.Pod, container, id string) string {
	return fmt.Sprintf("%s_%s_%s-%s.log", pod.Name, pod.Namespace, container, id)
}

// podDescription names a pod in messages: name_namespace(uid).
func podDescription(pod *v1.Pod) string {
	return fmt.Sprintf("%s_%s(%s)", pod.Name, pod.Namespace, pod.UID)
}

// containerHash is a digest of what makes a running container outdated when
// it changes in the pod's spec: its name and image.
func containerHash(c *v1.Container) string {
	h := fnv.New64a()
	fmt.Fprintf(h, "%s\x00%s", c.Name, c.Image)
	return fmt.Sprintf("%x", h.Sum64())
}

func sandboxLabels(node string, pod *v1.Pod) map[string]string {
	labels := map[string]string{}
	for k, v := range pod.Labels {
		labels[k] = v
	}
	labels[labelPodName] = pod.Name
	labels[labelPodNamespace] = pod.Namespace
	labels[labelPodUID] = string(pod.UID)
	labels[labelNode] = node
	return labels
}

func sandboxAnnotations(pod *v1.Pod) map[string]string {
	annotations := map[string]string{}
	for k, v := range pod.Annotations {
		annotations[k] = v
	}
	annotations[annotationConfigSource] = "api"
	annotations[annotationConfigSeen] = pod.CreationTimestamp.Format("2006-01-02T15:04:05.000000000Z07:00")
	return annotations
}

func containerLabels(node string, pod *v1.Pod, c *v1.Container) map[string]string {
	return map[string]string{
		labelPodName:       pod.Name,
		labelPodNamespace:  pod.Namespace,
		labelPodUID:        string(pod.UID),
		labelContainerName: c.Name,
		labelNode:          node,
	}
}

func containerAnnotations(pod *v1.Pod, c *v1.Container, attempt int, messageFile string) map[string]string {
	annotations := map[string]string{
		annotationHash:              containerHash(c),
		annotationRestartCount:      fmt.Sprint(attempt),
		annotationTerminationPath:   c.TerminationMessagePath,
		annotationTerminationPolicy: string(c.TerminationMessagePolicy),
	}
	if messageFile != "" {
		annotations[annotationTerminationMessageFile] = messageFile
	}
	if b, err := json.Marshal(c.Resources); err == nil {
		annotations[annotationResources] = string(b)
	}
	if pod.Spec.TerminationGracePeriodSeconds != nil {
		annotations[annotationPodGrace] = fmt.Sprint(*pod.Spec.TerminationGracePeriodSeconds)
	}
	if pod.DeletionGracePeriodSeconds != nil {
		annotations[annotationPodDeletionGrace] = fmt.Sprint(*pod.DeletionGracePeriodSeconds)
	}
	if c.Lifecycle != nil && c.Lifecycle.PreStop != nil {
		if b, err := json.Marshal(c.Lifecycle.PreStop); err == nil {
			annotations[annotationPreStop] = string(b)
		}
	}
	if len(c.Ports) > 0 {
		if b, err := json.Marshal(c.Ports); err == nil {
			annotations[annotationPorts] = string(b)
		}
	}
	return annotations
}

// hostname is the pod's host name as its containers see it, and its domain.
func hostname(pod *v1.Pod, clusterDomain string) (host, domain string) {
	host = pod.Name
	if pod.Spec.HostnameOverride != nil && *pod.Spec.HostnameOverride != "" {
		return *pod.Spec.HostnameOverride, ""
	}
	if pod.Spec.Hostname != "" {
		host = pod.Spec.Hostname
	}
	// A host name has at most 63 bytes (RFC 1123) and does not end in a dash.
	if len(host) > maxHostname {
		host = strings.TrimRight(host[:maxHostname], "-.")
	}
	if pod.Spec.Subdomain != "" {
		domain = fmt.Sprintf("%s.%s.svc.%s", pod.Spec.Subdomain, pod.Namespace, clusterDomain)
	}
	return host, domain
}

const maxHostname = 63

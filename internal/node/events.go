package node

import (
	"fmt"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/tools/reference"
)

// Reasons of Events, as the kubelet gives them: alerts and people match them.
const (
	eventPulling        = "Pulling"
	eventPulled         = "Pulled"
	eventFailed         = "Failed"
	eventBackOff        = "BackOff"
	eventInspectFailed  = "InspectFailed"
	eventNeverPull      = "ErrImageNeverPull"
	eventCreated        = "Created"
	eventStarted        = "Started"
	eventKilling        = "Killing"
	eventFailedMount    = "FailedMount"
	eventFailedSandbox  = "FailedCreatePodSandBox"
	eventFailedKill     = "FailedKillPod"
	eventSandboxChanged = "SandboxChanged"
	eventPostStart      = "FailedPostStartHook"
	eventPreStop        = "FailedPreStopHook"
	eventDNSFallback    = "MissingClusterDNS"
	eventDeadline       = reasonDeadlineExceeded
	eventUnsupported    = "UnsupportedFeature"
	eventNodeReady      = "NodeReady"
	eventNodeNotReady   = "NodeNotReady"
	eventNodeStarting   = "Starting"
	eventNodeRebooted   = "Rebooted"
	eventSizeLimit      = "SizeLimitNotEnforced"
)

// recorder writes Events about pods, their containers and the node.
type recorder struct {
	to       record.EventRecorder
	nodeName string
	shutdown func()
}

// newRecorder records until its shutdown is called.
func newRecorder(client kubernetes.Interface, nodeName string) *recorder {
	broadcaster := record.NewBroadcaster()
	broadcaster.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: client.CoreV1().Events("")})
	return &recorder{
		to:       broadcaster.NewRecorder(scheme.Scheme, v1.EventSource{Component: "kubelet", Host: nodeName}),
		nodeName: nodeName,
		shutdown: broadcaster.Shutdown,
	}
}

// pod records an Event about a pod.
func (r *recorder) pod(pod *v1.Pod, kind, reason, message string) {
	r.to.Event(podReference(pod, ""), kind, reason, strings.ToValidUTF8(message, "\uFFFD"))
}

// container records an Event about a container of a pod.
func (r *recorder) container(pod *v1.Pod, role kindOf, name, kind, reason, message string) {
	// Messages quote what programs print, which may be anything.
	r.to.Event(podReference(pod, fieldPath(role, name)), kind, reason, strings.ToValidUTF8(message, "\uFFFD"))
}

// node records an Event about the node. Nodes have no namespace; by custom
// their name stands in for the UID.
func (r *recorder) node(kind, reason, format string, args ...any) {
	r.to.Event(&v1.ObjectReference{Kind: "Node", APIVersion: "v1", Name: r.nodeName, UID: types.UID(r.nodeName)}, kind, reason, fmt.Sprintf(format, args...))
}

func podReference(pod *v1.Pod, path string) *v1.ObjectReference {
	ref, err := reference.GetPartialReference(scheme.Scheme, pod, path)
	if err != nil {
		return &v1.ObjectReference{Kind: "Pod", APIVersion: "v1", Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID, FieldPath: path}
	}
	ref.Kind, ref.APIVersion = "Pod", "v1"
	return ref
}

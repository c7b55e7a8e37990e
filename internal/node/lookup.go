package node

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/timonel/timonel/internal/node/serve"
)

var _ serve.Containers = (*Agent)(nil)

// podView is a worker's state as other goroutines may read it.
type podView struct {
	mu struct {
		sync.Mutex
		pod   *v1.Pod
		gone  bool
		seen  *snapshot
		waits map[string]waiting
		ended map[string]chan struct{} // of running containers, by id
	}
}

// show publishes the worker's state; containers that ended since are told.
func (v *podView) show(pod *v1.Pod, gone bool, seen *snapshot, waits map[string]waiting) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.mu.pod, v.mu.gone, v.mu.seen, v.mu.waits = pod, gone, seen, waits
	for id, ended := range v.mu.ended {
		if c := seen.byID(id); c == nil || !c.running() {
			close(ended)
			delete(v.mu.ended, id)
		}
	}
}

// close ends what waits for containers of a pod that is no more.
func (v *podView) close() {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, ended := range v.mu.ended {
		close(ended)
	}
	v.mu.ended = nil
}

// view finds the worker of a pod by name; of two with the same name, the one
// that is still in the API.
func (a *Agent) view(ref serve.PodRef) (*podView, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	var found *podView
	for uid, w := range a.mu.workers {
		if ref.UID != "" && uid != ref.UID {
			continue
		}
		w.view.mu.Lock()
		pod, gone := w.view.mu.pod, w.view.mu.gone
		w.view.mu.Unlock()
		if pod == nil || pod.Name != ref.Name || pod.Namespace != ref.Namespace {
			continue
		}
		if found == nil || !gone {
			found = w.view
		}
	}
	if found == nil {
		return nil, serve.NotFound("pod %q not found", ref.Name+"_"+ref.Namespace)
	}
	return found, nil
}

// Find returns a container for logs, exec and attach; see serve.Containers.
func (a *Agent) Find(ref serve.PodRef, name string, previous bool) (serve.Container, error) {
	v, err := a.view(ref)
	if err != nil {
		return serve.Container{}, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	_, spec := findContainer(v.mu.pod, name)
	if spec == nil {
		return serve.Container{}, serve.NotFound("container %q not found in pod %q", name, ref.Name)
	}
	c := v.mu.seen.latest(name)
	if previous && c != nil {
		c = v.mu.seen.before(c)
	}
	switch {
	case c == nil && previous:
		return serve.Container{}, fmt.Errorf("previous terminated container %q in pod %q not found", name, ref.Name)
	case c == nil:
		why := reasonContainerCreating
		if w, ok := v.mu.waits[name]; ok {
			why = w.reason
		} else if len(v.mu.pod.Spec.InitContainers) > 0 {
			why = reasonPodInitializing
		}
		switch why {
		case reasonErrImagePull:
			why = "image can't be pulled"
		case reasonImagePullBackOff:
			why = "trying and failing to pull image"
		}
		return serve.Container{}, fmt.Errorf("container %q in pod %q is waiting to start: %s", name, ref.Name, why)
	}
	found := serve.Container{ID: c.id, SandboxID: c.sandbox, LogPath: c.logPath, TTY: spec.TTY, Running: c.running()}
	if found.Running {
		if v.mu.ended == nil {
			v.mu.ended = map[string]chan struct{}{}
		}
		if v.mu.ended[c.id] == nil {
			v.mu.ended[c.id] = make(chan struct{})
		}
		found.Ended = v.mu.ended[c.id]
	}
	return found, nil
}

// Sandbox returns the running sandbox of a pod; see serve.Containers.
func (a *Agent) Sandbox(ref serve.PodRef) (string, error) {
	v, err := a.view(ref)
	if err != nil {
		return "", err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	current := v.mu.seen.current()
	if current == nil || !current.ready {
		return "", errors.New("pod " + ref.Name + " is not running")
	}
	return current.id, nil
}

// Pods lists the pods this agent runs, with the status it last computed.
func (a *Agent) Pods() *v1.PodList {
	a.mu.Lock()
	workers := make([]*podWorker, 0, len(a.mu.workers))
	for _, w := range a.mu.workers {
		workers = append(workers, w)
	}
	a.mu.Unlock()
	list := &v1.PodList{TypeMeta: metav1.TypeMeta{Kind: "PodList", APIVersion: "v1"}, Items: []v1.Pod{}}
	for _, w := range workers {
		w.view.mu.Lock()
		pod, gone := w.view.mu.pod, w.view.mu.gone
		w.view.mu.Unlock()
		if pod == nil || gone {
			continue
		}
		copied := *pod
		if status := a.statuses.wanted(w.uid); status != nil {
			copied.Status = *status
		}
		list.Items = append(list.Items, copied)
	}
	slices.SortFunc(list.Items, func(x, y v1.Pod) int {
		return strings.Compare(x.Namespace+"/"+x.Name+"/"+string(x.UID), y.Namespace+"/"+y.Name+"/"+string(y.UID))
	})
	return list
}

// Runtime is the CRI client of the runtime the agent works with, for exec and
// its like. It is nil until Run has begun.
func (a *Agent) Runtime() runtimeapi.RuntimeServiceClient {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.mu.ctx == nil {
		return nil
	}
	return a.runtime.Runtime
}

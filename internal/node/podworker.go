package node

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// podWorker brings one pod from what the runtime has to what the API wants,
// in one goroutine. It sleeps until it is woken: by a new version of the pod,
// by an event of the runtime, by an object the pod refers to, by the end of a
// slow operation, or by a timer it set itself. Then it looks at everything,
// takes the steps that decide names, and writes the status.
//
// Nothing in the loop waits long. What takes long — pulling an image, running
// a hook, stopping a container — is an operation in a goroutine of its own,
// which posts its result back to the loop.
//
// Life: advance while the pod is to run; end once it is to stop, which it
// never leaves again.
type podWorker struct {
	agent *Agent
	uid   types.UID
	log   *slog.Logger
	wake  chan struct{} // capacity 1: one wake-up stands for all since

	inbox struct {
		sync.Mutex
		pod     *v1.Pod
		gone    bool            // the API object is no more
		dirty   bool            // the runtime changed
		exits   map[string]bool // container ids the runtime said exited
		objects bool            // a ConfigMap or Secret changed
		posts   []func()        // results of operations, run in the loop
	}

	// The loop's own.
	pod          *v1.Pod
	gone         bool
	startTime    metav1.Time
	seen         *snapshot
	dirty        bool
	exits        map[string]int // exits announced and not seen yet: how often we looked
	runtimeRetry retry
	next         time.Time // when the timer is to ring

	admitted   bool
	rejected   *rejection
	referred   bool
	volumes    volumeSet
	mounted    bool // all volumes were ready once
	remount    bool
	renewAt    time.Time
	mountRetry retry
	mountTold  string

	sandboxRetry retry
	sandboxTold  map[string]bool
	stopped      map[string]bool // sandboxes that were stopped

	memories   map[string]*memory // by container name
	operations map[string]context.CancelFunc
	probes     map[string]*probing // by container id
	ready      map[string]bool
	started    map[string]bool
	failed     map[string]string
	messages   map[string]string
	preStopped map[string]bool // containers whose preStop hook was begun
	killed     map[string]bool // containers whose end was told in an Event
	killRetry  retry

	ending *ending

	view *podView // for others
}

// memory is what the worker remembers of one container between its runs.
type memory struct {
	hash   string
	waits  *waiting
	told   string // what the last event said, so that it is said once
	crash  backoff
	retry  retry
	image  *runtimeapi.Image // for the next start
	pull   backoff
	pullAt time.Time // of the last failed pull
	pullBy waiting   // its reason and message
}

func newPodWorker(a *Agent, pod *v1.Pod) *podWorker {
	w := &podWorker{
		agent: a, uid: pod.UID,
		log:          a.log.With("pod", pod.Namespace+"/"+pod.Name, "uid", pod.UID),
		wake:         make(chan struct{}, 1),
		pod:          pod,
		startTime:    metav1.Now().Rfc3339Copy(),
		exits:        map[string]int{},
		runtimeRetry: retry{min: time.Second, max: 30 * time.Second},
		mountRetry:   retry{min: 500 * time.Millisecond, max: 2 * time.Minute},
		sandboxRetry: retry{min: time.Second, max: 30 * time.Second},
		killRetry:    retry{min: time.Second, max: 30 * time.Second},
		sandboxTold:  map[string]bool{},
		stopped:      map[string]bool{},
		memories:     map[string]*memory{},
		operations:   map[string]context.CancelFunc{},
		probes:       map[string]*probing{},
		ready:        map[string]bool{},
		started:      map[string]bool{},
		failed:       map[string]string{},
		messages:     map[string]string{},
		preStopped:   map[string]bool{},
		killed:       map[string]bool{},
		view:         &podView{},
	}
	w.view.show(pod, false, &snapshot{}, nil)
	w.volumes = volumeSet{
		dir:     a.cfg.podDir(pod.UID),
		pod:     func() *v1.Pod { return w.pod },
		facts:   w.facts,
		objects: a.objects,
		tokens:  a.tokens,
	}
	return w
}

// poke wakes the loop.
func (w *podWorker) poke() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// update hands the loop a new version of the pod.
func (w *podWorker) update(pod *v1.Pod, gone bool) {
	w.inbox.Lock()
	w.inbox.pod = pod
	w.inbox.gone = w.inbox.gone || gone
	w.inbox.Unlock()
	w.poke()
}

// changed tells the loop that the runtime has news of the pod; exited, if not
// empty, is a container that ended.
func (w *podWorker) changed(exited string) {
	w.inbox.Lock()
	w.inbox.dirty = true
	if exited != "" {
		if w.inbox.exits == nil {
			w.inbox.exits = map[string]bool{}
		}
		w.inbox.exits[exited] = true
	}
	w.inbox.Unlock()
	w.poke()
}

// objectsChanged tells the loop that something the pod refers to changed.
func (w *podWorker) objectsChanged() {
	w.inbox.Lock()
	w.inbox.objects = true
	w.inbox.Unlock()
	w.poke()
}

// post runs f in the loop.
func (w *podWorker) post(f func()) {
	w.inbox.Lock()
	w.inbox.posts = append(w.inbox.posts, f)
	w.inbox.Unlock()
	w.poke()
}

func (w *podWorker) takeInbox() {
	w.inbox.Lock()
	pod, gone := w.inbox.pod, w.inbox.gone
	w.dirty = w.dirty || w.inbox.dirty
	for id := range w.inbox.exits {
		w.exits[id] = 0
	}
	if w.inbox.objects {
		w.remount = true
		for _, m := range w.memories {
			m.retry.succeeded() // what was missing may be there now
		}
		w.mountRetry.succeeded()
	}
	posts := w.inbox.posts
	w.inbox.pod, w.inbox.dirty, w.inbox.exits, w.inbox.objects, w.inbox.posts = nil, false, nil, false, nil
	w.inbox.Unlock()

	if pod != nil {
		if downwardChanged(w.pod, pod) {
			w.remount = true
		}
		w.pod = pod
	}
	w.gone = gone
	for _, f := range posts {
		f()
	}
}

// downwardChanged tells whether what the downward API shows has changed.
func downwardChanged(before, after *v1.Pod) bool {
	return formatMap(before.Labels) != formatMap(after.Labels) || formatMap(before.Annotations) != formatMap(after.Annotations)
}

// run is the worker's life; it returns when nothing of the pod is left, or
// when ctx ends, which leaves the pod running.
func (w *podWorker) run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		w.next = time.Time{}
		if done := w.sync(ctx); done {
			w.log.Debug("pod is gone")
			return
		}
		if !w.next.IsZero() {
			timer.Reset(time.Until(w.next))
		} else {
			timer.Stop()
		}
		select {
		case <-ctx.Done():
			return
		case <-w.wake:
		case <-timer.C:
		}
	}
}

// at asks for a wake-up no later than t.
func (w *podWorker) at(t time.Time) {
	if w.next.IsZero() || t.Before(w.next) {
		w.next = t
	}
}

// begin runs f beside the loop, unless an operation of that name is at work
// already. What f returns runs in the loop when f is through. The context ends
// with the agent, or when the operation is cancelled.
func (w *podWorker) begin(ctx context.Context, name string, f func(ctx context.Context) func()) {
	if w.busy(name) {
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	w.operations[name] = cancel
	w.agent.group.Go(func() {
		finish := f(ctx)
		w.post(func() {
			delete(w.operations, name)
			if finish != nil {
				finish() // may ask whether ctx was cancelled
			}
			cancel()
		})
	})
}

func (w *podWorker) busy(name string) bool { return w.operations[name] != nil }

// cancelOperations cancels the operations whose name begins so.
func (w *podWorker) cancelOperations(prefix string) {
	for name, cancel := range w.operations {
		if strings.HasPrefix(name, prefix) {
			cancel()
		}
	}
}

// sync is one turn of the loop.
func (w *podWorker) sync(ctx context.Context) (done bool) {
	w.takeInbox()
	if !w.refer() {
		w.agent.objects.refer(w.uid, nil, nil)
	}
	if !w.refresh(ctx) {
		if w.seen == nil && w.pod.Status.StartTime == nil && !w.gone {
			w.publish(&snapshot{})
		}
		return false
	}
	w.observe(ctx)
	if w.ending == nil {
		w.ending = w.whyEnd(time.Now())
	}
	if w.ending == nil {
		w.advance(ctx)
	}
	if w.ending != nil {
		done = w.end(ctx)
	}
	if !w.gone {
		w.publish(w.seen)
	}
	w.view.show(w.pod, w.gone, w.seen, w.waitsNow())
	return done
}

// waitsNow is why containers, by name, are not running.
func (w *podWorker) waitsNow() map[string]waiting {
	waits := map[string]waiting{}
	for name, m := range w.memories {
		if m.waits != nil {
			waits[name] = *m.waits
		}
	}
	return waits
}

// refer declares the objects the pod refers to, once; it returns false when
// they are needed no longer.
func (w *podWorker) refer() bool {
	if w.ending != nil || w.gone {
		return false
	}
	if !w.referred {
		w.referred = true
		w.agent.objects.refer(w.uid, objectsOf(w.pod), w.objectsChanged)
	}
	return true
}

// exitLooks bounds how often the runtime is asked about an exit it announced
// and does not show yet; a later relist finds it in any case.
const exitLooks = 10

// refresh brings the snapshot up to date if something changed. It returns
// false while the runtime cannot be asked.
func (w *podWorker) refresh(ctx context.Context) bool {
	if w.seen != nil && !w.dirty && len(w.exits) == 0 {
		return true
	}
	now := time.Now()
	var fresh *snapshot
	err := w.agent.health.learnRuntime(ctx)
	if err == nil {
		fresh, err = takeSnapshot(ctx, w.agent.runtime, w.agent.cfg.NodeName, w.uid, w.seen)
	}
	if err != nil {
		if ctx.Err() == nil && !isUnavailable(err) {
			w.log.Warn("runtime did not answer", "err", err)
		}
		w.runtimeRetry.failed(now)
		w.at(w.runtimeRetry.at)
		return false
	}
	w.runtimeRetry.succeeded()
	w.seen, w.dirty = fresh, false
	for i := range fresh.containers {
		w.agent.own(fresh.containers[i].id, w.uid)
	}
	for i := range fresh.sandboxes {
		w.agent.own(fresh.sandboxes[i].id, w.uid)
	}
	// An exit is announced before the runtime's record shows it.
	for id, looks := range w.exits {
		c := fresh.byID(id)
		stillThere := c != nil && !c.exited()
		if current := fresh.current(); current != nil && current.id == id {
			stillThere = current.ready
		}
		if !stillThere || looks >= exitLooks {
			delete(w.exits, id)
			continue
		}
		w.exits[id] = looks + 1
		w.at(now.Add(10 * time.Millisecond << looks))
	}
	return true
}

// facts is what the environment and the downward API show beside the spec.
func (w *podWorker) facts() podFacts {
	f := podFacts{hostIPs: w.agent.cfg.hostIPs(), allocatable: w.agent.machine.allocatable}
	if w.pod.Spec.HostNetwork {
		f.podIPs = f.hostIPs
	} else if w.seen != nil && w.seen.current() != nil {
		f.podIPs = w.seen.current().ips
	}
	return f
}

// memory of a container, made fresh when its definition changed.
func (w *podWorker) memory(c *v1.Container) *memory {
	hash := containerHash(c)
	m := w.memories[c.Name]
	if m == nil || m.hash != hash {
		m = &memory{hash: hash, retry: retry{min: 10 * time.Second, max: time.Minute}}
		w.memories[c.Name] = m
	}
	return m
}

// publish hands the pod's status to the writer, which knows whether it is news.
func (w *podWorker) publish(seen *snapshot) {
	if w.rejected != nil {
		status := w.rejected.status(w.pod)
		w.agent.statuses.set(w.uid, &status, w.ending.settled && w.pod.DeletionTimestamp != nil)
		return
	}
	a := account{
		pod: w.basePod(), runtime: seen, waits: w.waitsNow(),
		ready: w.ready, started: w.started, messages: w.messages,
		runtimeName: w.agent.runtimeName(), hostIPs: w.agent.cfg.hostIPs(),
		startTime: w.startTime, now: time.Now(),
	}
	remove := false
	if e := w.ending; e != nil {
		a.settled = e.settled
		a.reason, a.message = e.reason, e.message
		if e.settled {
			a.phase = e.phase
		}
		remove = e.settled && w.pod.DeletionTimestamp != nil
	}
	status := a.status()
	w.agent.statuses.set(w.uid, &status, remove)
}

// basePod is the pod's spec as last seen with the newest status known.
func (w *podWorker) basePod() *v1.Pod {
	last := w.agent.statuses.last(w.uid)
	if last == nil || last == w.pod {
		return w.pod
	}
	pod := *w.pod
	pod.Status = last.Status
	return &pod
}

// forgetFiles removes the pod's directory and logs once nothing is mounted
// there.
func (w *podWorker) forgetFiles() error {
	dir := w.agent.cfg.podDir(w.uid)
	if err := unmountBelow(dir); err != nil {
		return err
	}
	w.removeLogLinks("")
	return errors.Join(os.RemoveAll(dir), os.RemoveAll(w.agent.cfg.podLogDir(w.pod.Namespace, w.pod.Name, w.uid)))
}

// removeLogLinks drops the flat links to the pod's logs, or those of one
// container id.
func (w *podWorker) removeLogLinks(id string) {
	if w.agent.cfg.ContainerLogDir == "" {
		return
	}
	links, err := filepath.Glob(filepath.Join(w.agent.cfg.ContainerLogDir, w.pod.Name+"_"+w.pod.Namespace+"_*-"+id+"*.log"))
	if err != nil {
		return
	}
	own := w.agent.cfg.podLogDir(w.pod.Namespace, w.pod.Name, w.uid) + "/"
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil && strings.HasPrefix(target, own) {
			_ = os.Remove(link)
		}
	}
}

package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/timonel/timonel/internal/node/cri"
)

// Agent runs the pods of one node.
type Agent struct {
	cfg     Config
	client  kubernetes.Interface
	log     *slog.Logger
	machine machine
	runtime *cri.Client

	events   *recorder
	objects  *objectCache
	tokens   *tokenSource
	images   *imageStore
	statuses *statusWriter
	cgroups  *podCgroups
	health   *health
	services func() ([]*v1.Service, error)
	group    *sync.WaitGroup // goroutines of workers and their operations
	connect  func(endpoint string) (*cri.Client, error)

	mu struct {
		sync.Mutex
		synced   bool // the pods of this node are known
		ctx      context.Context
		workers  map[types.UID]*podWorker
		owner    map[string]types.UID // of containers and sandboxes, by id
		admitted map[types.UID]*v1.Pod
	}
}

// New prepares an agent that speaks to the API server through client, with
// the rights of a node (system:node:<name>, group system:nodes). It touches
// nothing until Run. A mistake in cfg is told by Run.
func New(client kubernetes.Interface, cfg Config) *Agent {
	a := &Agent{cfg: cfg, client: client, group: &sync.WaitGroup{}, connect: cri.New}
	a.mu.workers = map[types.UID]*podWorker{}
	a.mu.owner = map[string]types.UID{}
	a.mu.admitted = map[types.UID]*v1.Pod{}
	return a
}

// safetyRelist is how often the runtime is listed although its events tell
// everything: what an event stream lost is found then at the latest. It only
// happens while there are pods.
const safetyRelist = time.Minute

// Run registers the node and runs its pods until ctx ends. Ending leaves the
// pods running: the next agent of this node, with the same DataDir and
// runtime, takes them over.
func (a *Agent) Run(ctx context.Context) error {
	var err error
	if a.cfg, err = a.cfg.complete(); err != nil {
		return err
	}
	a.log = a.cfg.Logger.With("node", a.cfg.NodeName)
	if err := a.open(ctx); err != nil {
		return err
	}
	defer a.runtime.Close()
	defer a.events.shutdown()

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	a.mu.Lock()
	a.mu.ctx = ctx
	a.mu.Unlock()
	var group sync.WaitGroup
	group.Go(func() { a.statuses.run(ctx) })
	group.Go(func() { a.runtime.Watch(ctx, a.log, a.runtimeEvent) })
	group.Go(func() { a.health.run(ctx) })
	group.Go(func() { a.renewLease(ctx) })
	group.Go(func() { a.watchPods(ctx) })
	group.Go(func() { a.relistForSafety(ctx) })
	group.Go(func() { a.rotateLogs(ctx) })

	<-ctx.Done()
	group.Wait()
	a.group.Wait()
	return nil
}

// open prepares directories, the runtime's client and what hangs on them.
func (a *Agent) open(ctx context.Context) error {
	for _, dir := range []string{filepath.Join(a.cfg.DataDir, "pods"), a.cfg.LogDir, a.cfg.ContainerLogDir} {
		if dir == "" {
			continue
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("prepare node directory: %w", err)
		}
	}
	if err := os.Chmod(filepath.Join(a.cfg.DataDir, "pods"), 0o750); err != nil {
		return fmt.Errorf("prepare node directory: %w", err)
	}
	// Mounts are known by their true paths.
	var err error
	if a.cfg.DataDir, err = filepath.EvalSymlinks(a.cfg.DataDir); err != nil {
		return fmt.Errorf("prepare node directory: %w", err)
	}
	if a.machine, err = readMachine(&a.cfg); err != nil {
		return err
	}
	if a.runtime, err = a.connect(a.cfg.RuntimeEndpoint); err != nil {
		return err
	}
	a.events = newRecorder(a.client, a.cfg.NodeName)
	a.objects = newObjectCache(ctx, a.client)
	a.tokens = newTokenSource(a.client)
	a.images = newImageStore(a.runtime)
	a.statuses = newStatusWriter(a.client, a.log)
	a.cgroups = newPodCgroups(&a.cfg, a.machine.cgroup2)
	a.health = newHealth(a)
	return nil
}

// watchPods follows the pods bound to this node, and the services their
// environment tells of.
func (a *Agent) watchPods(ctx context.Context) {
	services := informers.NewSharedInformerFactoryWithOptions(a.client, 0, informers.WithTransform(stripManagedFields))
	serviceInformer := services.Core().V1().Services()
	lister, synced := serviceInformer.Lister(), serviceInformer.Informer().HasSynced
	a.services = func() ([]*v1.Service, error) {
		if !synced() {
			return nil, errors.New("services have not yet been read at least once, cannot construct envvars")
		}
		return lister.List(labels.Everything())
	}
	pods := informers.NewSharedInformerFactoryWithOptions(a.client, 0, informers.WithTransform(stripManagedFields),
		informers.WithTweakListOptions(func(o *metav1.ListOptions) {
			o.FieldSelector = fields.OneTermEqualSelector("spec.nodeName", a.cfg.NodeName).String()
		}))
	informer := pods.Core().V1().Pods().Informer()

	services.Start(ctx.Done())
	defer services.Shutdown()
	if !cache.WaitForCacheSync(ctx.Done(), synced) {
		return
	}
	registration, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(object any) { a.dispatch(object, false) },
		UpdateFunc: func(_, object any) { a.dispatch(object, false) },
		DeleteFunc: func(object any) { a.dispatch(object, true) },
	})
	if err != nil {
		a.log.Error("pods cannot be watched", "err", err)
		return
	}
	pods.Start(ctx.Done())
	defer pods.Shutdown()
	if !cache.WaitForCacheSync(ctx.Done(), registration.HasSynced) {
		return
	}
	a.mu.Lock()
	a.mu.synced = true
	a.mu.Unlock()
	a.log.Info("pods of this node are known", "pods", len(informer.GetStore().List()))
	a.relist(ctx)
	<-ctx.Done()
}

// dispatch takes a pod from the watch to its worker.
func (a *Agent) dispatch(object any, gone bool) {
	if tombstone, ok := object.(cache.DeletedFinalStateUnknown); ok {
		object = tombstone.Obj
	}
	pod, ok := object.(*v1.Pod)
	if !ok || pod.Spec.NodeName != a.cfg.NodeName {
		return
	}
	if !gone {
		a.statuses.observe(pod)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	w := a.mu.workers[pod.UID]
	if w == nil {
		if gone {
			return
		}
		w = a.startWorker(pod)
	}
	w.update(pod, gone)
}

// startWorker is called with a.mu held.
func (a *Agent) startWorker(pod *v1.Pod) *podWorker {
	w := newPodWorker(a, pod)
	a.mu.workers[pod.UID] = w
	ctx := a.mu.ctx
	a.group.Go(func() {
		w.run(ctx)
		if ctx.Err() == nil {
			a.forget(w)
		}
	})
	return w
}

// forget drops what is kept of a pod of which nothing is left.
func (a *Agent) forget(w *podWorker) {
	w.view.close()
	a.objects.refer(w.uid, nil, nil)
	a.tokens.forget(w.uid)
	a.statuses.forget(w.uid)
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.mu.workers, w.uid)
	delete(a.mu.admitted, w.uid)
	for id, uid := range a.mu.owner {
		if uid == w.uid {
			delete(a.mu.owner, id)
		}
	}
}

// own notes whose a container or sandbox is, for the runtime's events.
func (a *Agent) own(id string, uid types.UID) {
	a.mu.Lock()
	a.mu.owner[id] = uid
	a.mu.Unlock()
}

func (a *Agent) disown(id string) {
	a.mu.Lock()
	delete(a.mu.owner, id)
	a.mu.Unlock()
}

// worker finds the worker of a pod by its UID.
func (a *Agent) worker(uid types.UID) *podWorker {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.mu.workers[uid]
}

// runtimeEvent takes an event of the runtime to the worker it concerns.
func (a *Agent) runtimeEvent(event cri.Event) {
	a.mu.Lock()
	ctx := a.mu.ctx
	a.mu.Unlock()
	switch event.Type {
	case cri.Connected:
		a.health.runtimeUp()
		a.relist(ctx)
	case cri.Disconnected:
		a.health.runtimeDown(event.Err)
	case cri.Relist:
		a.relist(ctx)
	default:
		uid := types.UID(event.PodUID)
		if uid == "" {
			a.mu.Lock()
			uid = a.mu.owner[event.ID]
			a.mu.Unlock()
		}
		w := a.worker(uid)
		if w == nil {
			return
		}
		exited := ""
		if event.Type == cri.Exited {
			exited = event.ID
		}
		w.changed(exited)
	}
}

// relist wakes all workers to look at the runtime, and ends what belongs to
// this node in the runtime without the API knowing it any more.
func (a *Agent) relist(ctx context.Context) {
	a.mu.Lock()
	for _, w := range a.mu.workers {
		w.changed("")
	}
	synced := a.mu.synced
	a.mu.Unlock()
	if !synced {
		return // who is an orphan is not known yet
	}
	if err := a.adoptOrphans(ctx); err != nil {
		if ctx.Err() == nil && !isUnavailable(err) {
			a.log.Warn("orphaned pods not looked for", "err", err)
		}
		return
	}
	a.removeOrphanedFiles()
}

// adoptOrphans gives every pod that is in the runtime and not in the API a
// worker, which ends it.
func (a *Agent) adoptOrphans(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, cri.CallTimeout)
	defer cancel()
	selector := map[string]string{labelNode: a.cfg.NodeName}
	sandboxes, err := a.runtime.Runtime.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{Filter: &runtimeapi.PodSandboxFilter{LabelSelector: selector}})
	if err != nil {
		return err
	}
	containers, err := a.runtime.Runtime.ListContainers(ctx, &runtimeapi.ListContainersRequest{Filter: &runtimeapi.ContainerFilter{LabelSelector: selector}})
	if err != nil {
		return err
	}
	of := map[types.UID][]*runtimeapi.Container{}
	for _, c := range containers.Containers {
		uid := types.UID(c.Labels[labelPodUID])
		of[uid] = append(of[uid], c)
	}
	for _, s := range sandboxes.Items {
		uid := types.UID(s.Labels[labelPodUID])
		a.mu.Lock()
		if uid != "" && a.mu.workers[uid] == nil && a.mu.ctx.Err() == nil {
			pod := podFromRuntime(a.cfg.NodeName, s.Labels, of[uid])
			a.log.Info("ending a pod the API server does not know", "pod", pod.Namespace+"/"+pod.Name, "uid", uid)
			a.startWorker(pod).update(pod, true)
		}
		a.mu.Unlock()
	}
	return nil
}

// removeOrphanedFiles removes the directories of pods that nobody knows.
func (a *Agent) removeOrphanedFiles() {
	root := filepath.Join(a.cfg.DataDir, "pods")
	entries, err := os.ReadDir(root)
	if err != nil {
		a.log.Warn("pod directories not read", "err", err)
		return
	}
	for _, entry := range entries {
		if a.worker(types.UID(entry.Name())) != nil {
			continue
		}
		dir := filepath.Join(root, entry.Name())
		if err := unmountBelow(dir); err != nil {
			a.log.Warn("orphaned pod directory not unmounted", "dir", dir, "err", err)
			continue
		}
		if err := os.RemoveAll(dir); err != nil {
			a.log.Warn("orphaned pod directory not removed", "dir", dir, "err", err)
		}
	}
}

func (a *Agent) relistForSafety(ctx context.Context) {
	ticker := time.NewTicker(safetyRelist)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		a.mu.Lock()
		idle := len(a.mu.workers) == 0
		a.mu.Unlock()
		if !idle {
			a.relist(ctx)
		}
	}
}

// runtimeName prefixes container ids in the API.
func (a *Agent) runtimeName() string { return a.health.runtimeName() }

// stripManagedFields drops what the agent never reads from cached objects.
func stripManagedFields(object any) (any, error) {
	if o, ok := object.(metav1.Object); ok {
		o.SetManagedFields(nil)
	}
	return object, nil
}

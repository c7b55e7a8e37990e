// Package controller is the loops that make a cluster of an API server: what
// kube-controller-manager does, for one process on one machine.
//
// What there is, a file each: namespaces (emptied when they end), service accounts and the root
// certificate of each namespace, aggregated cluster roles, nodes (silence, taints, TTL annotation), taint eviction,
// garbage collection by owners, pod garbage collection, quotas, Endpoints and EndpointSlices, ReplicaSets and
// ReplicationControllers, Deployments, Jobs, CronJobs, DaemonSets, StatefulSets, jobs' time to live,
// disruption budgets, the protection of volumes, claims and attributes classes that are in use, ranges of cluster IPs, and what API
// servers that are gone said of their storage versions.
//
// What there is not: binding and provisioning of volumes (the scheduler's WaitForFirstConsumer included), attach and
// detach, horizontal pod autoscaling, certificate signing, tokens in secrets, EndpointSlice mirroring, service
// load balancers and node routes, bootstrap tokens, resource claims, storage version migration, zones in
// the eviction rate.
//
// Each is an ordinary API client: it follows with the rights of system:kube-controller-manager and writes as a service
// account of its own with the role that the bootstrap policy has for it. It does nothing while nothing changes: informers
// are shared, the collector keeps only what ownership needs, events are not followed, and what waits for a time
// has a timer. The package never imports the engine or the storage.
//
// Start reading at New; part is what a controller is made of.
package controller

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

// Config is what the controllers need to know.
type Config struct {
	// RootCA is the certificate, PEM, that pods verify the API server with. Empty: no
	// ConfigMap kube-root-ca.crt is made.
	RootCA []byte
	// StorageVersions says that API servers publish theirs (feature gate StorageVersionAPI).
	StorageVersions bool
	Log             *slog.Logger
}

// Controllers is all of them.
type Controllers struct {
	Config
	client    kubernetes.Interface // the manager's own
	config    *rest.Config         // nil: every controller acts as the manager, with client and objects
	objects   metadata.Interface
	discovery discovery.DiscoveryInterface
	informers informers.SharedInformerFactory
	starts    []func(ctx context.Context) // before the informers start
	parts     []*part
	graph     *collector // nil: no garbage collection
	pods      *podIndex
}

// New makes the controllers; they touch nothing before Run. client and config are those of
// system:kube-controller-manager.
func New(client kubernetes.Interface, config *rest.Config, c Config) (*Controllers, error) {
	objects, err := metadata.NewForConfig(metadata.ConfigFor(config))
	if err != nil {
		return nil, fmt.Errorf("make a client for metadata: %w", err)
	}
	all := assemble(client, objects, config, c)
	all.addCollector() // before those that want to know of deletions
	all.addNamespaces()
	all.addServiceAccounts()
	if len(c.RootCA) > 0 {
		all.addRootCA()
	}
	all.addAggregation()
	all.addNodes()
	all.addQuotas()
	all.addEndpointSlices()
	all.addEndpoints()
	all.addPodCollector()
	all.addTaintEviction()
	all.addJobExpiry()
	all.addReplicaSets()
	all.addReplicationControllers()
	all.addDeployments()
	all.addJobs()
	all.addCronJobs()
	all.addDaemonSets()
	all.addStatefulSets()
	all.addDisruption()
	all.addVolumeProtection()
	all.addClassProtection()
	all.addServiceCIDRs()
	if c.StorageVersions {
		all.addStorageVersions()
	}
	return all, nil
}

// assemble makes Controllers without any controller.
func assemble(client kubernetes.Interface, objects metadata.Interface, config *rest.Config, c Config) *Controllers {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return &Controllers{
		Config: c, client: client, config: config, objects: objects, discovery: client.Discovery(),
		// No resync: a watch that stays open tells everything.
		informers: informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithTransform(lean)),
	}
}

// lean drops what no controller reads and an update need not repeat: an update without managed fields leaves them as they are
// (docs: "Server-Side Apply").
func lean(obj any) (any, error) {
	if m, err := meta.Accessor(obj); err == nil {
		m.SetManagedFields(nil)
	}
	return obj, nil
}

// Run blocks until ctx is done.
func (c *Controllers) Run(ctx context.Context) error {
	for _, start := range c.starts {
		start(ctx)
	}
	c.informers.Start(ctx.Done())
	defer c.informers.Shutdown()
	group, ctx := errgroup.WithContext(ctx)
	for _, p := range c.parts {
		group.Go(func() error { return p.run(ctx) })
	}
	return group.Wait()
}

// part is one controller: the informers that it waits for, its queue, and what it does.
type part struct {
	*Controllers
	name   string               // in logs
	client kubernetes.Interface // with the controller's own rights
	queue  *queue
	events *recorder // nil: it tells nothing

	synced []cache.InformerSynced
	runs   []func(ctx context.Context) error
}

// add begins a controller that acts as the service account kube-system/account.
func (c *Controllers) add(name, account string) *part {
	p := &part{Controllers: c, name: name, client: c.as(account), queue: newQueue(name, c.Log)}
	c.parts = append(c.parts, p)
	return p
}

// run waits for the informers, and then for ctx.
func (p *part) run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, p.queue.close)
	defer stop()
	if !cache.WaitForCacheSync(ctx.Done(), p.synced...) {
		return ctx.Err()
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, run := range p.runs {
		group.Go(func() error { return run(ctx) })
	}
	return group.Wait()
}

// work makes sync run for each key of the queue, by several workers.
func (p *part) work(workers int, sync func(ctx context.Context, key string) error) {
	for range workers {
		p.runs = append(p.runs, func(ctx context.Context) error {
			p.queue.run(ctx, sync)
			return nil
		})
	}
}

// wait makes the controller start when an informer has its first list.
func (p *part) wait(informers ...cache.SharedIndexInformer) {
	for _, i := range informers {
		p.synced = append(p.synced, i.HasSynced)
	}
}

// follow calls see for each object that an informer tells of: new, changed or gone.
func follow[T any](p *part, informer cache.SharedIndexInformer, see func(obj T)) {
	followChanges(p, informer, func(_, obj T) { see(obj) }, see)
}

// followChanges calls change for each object that is new (old is zero) or changed, and gone for each that
// is gone.
func followChanges[T any](p *part, informer cache.SharedIndexInformer, change func(old, obj T), gone func(obj T)) {
	h, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(obj any) {
			var none T
			change(none, obj.(T))
		},
		UpdateFunc: func(old, obj any) { change(old.(T), obj.(T)) },
		DeleteFunc: func(obj any) {
			if last, ok := obj.(cache.DeletedFinalStateUnknown); ok {
				obj = last.Obj
			}
			gone(obj.(T))
		},
	})
	if err != nil {
		panic(err) // only an informer that was stopped refuses, and none is yet
	}
	p.synced = append(p.synced, h.HasSynced)
}

// keyOf is the queue's key of an object: namespace/name, or name.
func keyOf(obj interface {
	GetNamespace() string
	GetName() string
}) string {
	if ns := obj.GetNamespace(); ns != "" {
		return ns + "/" + obj.GetName()
	}
	return obj.GetName()
}

func splitKey(key string) (namespace, name string) {
	namespace, name, _ = cache.SplitMetaNamespaceKey(key) // keys are made by keyOf
	return namespace, name
}

// told reports whether an informer has got as far as a version that was written: if it does not show that object, the object
// is gone again.
func told(informer cache.SharedIndexInformer, resourceVersion string) bool {
	order, err := resourceversion.CompareResourceVersion(informer.GetIndexer().LastStoreSyncResourceVersion(), resourceVersion)
	return err == nil && order >= 0
}

// ignore returns nil for errors that one of the tests recognizes.
func ignore(err error, tests ...func(error) bool) error {
	for _, test := range tests {
		if err == nil || test(err) {
			return nil
		}
	}
	return err
}

// gone ignores that something is not there (any more).
func gone(err error) error { return ignore(err, apierrors.IsNotFound) }

// until is how long it is to a time; at least a moment, so that a timer that rings early does not spin.
func until(now, at time.Time) time.Duration { return max(at.Sub(now), 10*time.Millisecond) }

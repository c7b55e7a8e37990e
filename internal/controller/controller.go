// Package controller is the loops that the life of a pod needs: namespaces begin and end,
// service accounts and the root certificate are there, cluster roles are aggregated, nodes
// are watched over, and what has lost its owner is collected.
//
// Each is an ordinary API client with the rights of system:kube-controller-manager: it
// follows what it cares about and does nothing while nothing changes. It never imports the
// engine or the storage.
//
// Start reading at New; a controller is a file.
package controller

import (
	"context"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
)

// Config is what the controllers need to know.
type Config struct {
	// RootCA is the certificate, PEM, that pods verify the API server with. Empty: no
	// ConfigMap kube-root-ca.crt is made.
	RootCA []byte
	Log    *slog.Logger
}

// Controllers is all of them.
type Controllers struct {
	Config
	client    kubernetes.Interface // the manager's own
	config    *rest.Config
	discovery discovery.DiscoveryInterface
	informers informers.SharedInformerFactory
	runs      []func(ctx context.Context) error
	synced    []cache.InformerSynced
}

// New makes the controllers; they touch nothing before Run. client and config are those of
// system:kube-controller-manager.
func New(client kubernetes.Interface, config *rest.Config, c Config) (*Controllers, error) {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	// No resync: a watch that stays open tells everything.
	all := &Controllers{
		Config: c, client: client, config: config, discovery: client.Discovery(),
		informers: informers.NewSharedInformerFactory(client, 0),
	}
	all.addNamespaces()
	all.addServiceAccounts()
	if len(c.RootCA) > 0 {
		all.addRootCA()
	}
	all.addAggregation()
	all.addNodes()
	all.addCollector()
	return all, nil
}

// Run blocks until ctx is done.
func (c *Controllers) Run(ctx context.Context) error {
	c.informers.Start(ctx.Done())
	if !cache.WaitForCacheSync(ctx.Done(), c.synced...) {
		return ctx.Err()
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, run := range c.runs {
		group.Go(func() error { return run(ctx) })
	}
	err := group.Wait()
	c.informers.Shutdown()
	return err
}

// follow makes enqueue run for each object that an informer tells of.
func (c *Controllers) follow(informer cache.SharedIndexInformer, enqueue func(obj any)) {
	h, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    enqueue,
		UpdateFunc: func(_, obj any) { enqueue(obj) },
		DeleteFunc: func(obj any) {
			if last, ok := obj.(cache.DeletedFinalStateUnknown); ok {
				obj = last.Obj
			}
			enqueue(obj)
		},
	})
	if err != nil {
		panic(err) // only an informer that was stopped refuses, and none is yet
	}
	c.synced = append(c.synced, h.HasSynced)
}

const (
	retryFirst = 20 * time.Millisecond
	retryMost  = 30 * time.Second
)

// queue is a set of keys to work on, each by one worker at a time, retried with back-off.
type queue struct {
	workqueue.TypedRateLimitingInterface[string]
	name string
	log  *slog.Logger
}

func (c *Controllers) newQueue(name string) *queue {
	limiter := workqueue.NewTypedItemExponentialFailureRateLimiter[string](retryFirst, retryMost)
	return &queue{workqueue.NewTypedRateLimitingQueue(limiter), name, c.Log}
}

// work starts workers that call sync with each key until ctx is done.
func (c *Controllers) work(q *queue, workers int, sync func(ctx context.Context, key string) error) {
	c.runs = append(c.runs, func(ctx context.Context) error {
		stop := context.AfterFunc(ctx, q.ShutDown)
		defer stop()
		group := errgroup.Group{}
		for range workers {
			group.Go(func() error {
				for {
					key, done := q.Get()
					if done {
						return nil
					}
					q.once(ctx, key, sync)
				}
			})
		}
		return group.Wait()
	})
}

func (q *queue) once(ctx context.Context, key string, sync func(ctx context.Context, key string) error) {
	defer q.Done(key)
	err := sync(ctx, key)
	switch {
	case err == nil:
		q.Forget(key)
	case ctx.Err() != nil:
	default:
		if !apierrors.IsConflict(err) {
			q.log.Debug("to be tried again", "controller", q.name, "key", key, "error", err)
		}
		q.AddRateLimited(key)
	}
}

package scheduler

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	v1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
)

// Config says how a Scheduler works. The zero value works.
type Config struct {
	// Name is the scheduler's name: it schedules the pods whose
	// spec.schedulerName is this. Default "default-scheduler".
	Name string
	// Logger is told of bindings (debug), preemptions (info) and trouble
	// (warn). Default: nobody.
	Logger *slog.Logger
}

// Scheduler gives pods nodes. See the package comment.
type Scheduler struct {
	client kubernetes.Interface
	name   string
	log    *slog.Logger

	cache     *cache
	queue     *queue
	nominated *nominations
	events    *reporter
	watches   *watches

	plugins   []Plugin
	filterers []Filterer
	scorers   []Scorer
	reservers []Reserver

	start      int           // where the next search for nodes begins; the cycle's own
	binding    chan struct{} // a place for each pod being bound
	background sync.WaitGroup
	state      atomic.Int32
}

const (
	stateNew int32 = iota
	stateSyncing
	stateRunning
	stateEnded
)

// New makes a Scheduler that works through client. It touches nothing until
// Run. The client's rate limits are the scheduler's: two requests a pod.
func New(client kubernetes.Interface, cfg Config) *Scheduler {
	if cfg.Name == "" {
		cfg.Name = v1.DefaultSchedulerName
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Scheduler{
		client: client, name: cfg.Name, log: cfg.Logger,
		cache:     newCache(),
		queue:     newQueue(),
		nominated: newNominations(),
		events:    newReporter(client, cfg.Name, cfg.Logger),
		binding:   make(chan struct{}, maxBinding),
	}
	s.watches = newWatches(s)
	s.plugins = defaultPlugins(client, s.watches.listers())
	for _, p := range s.plugins {
		if f, ok := p.(Filterer); ok {
			s.filterers = append(s.filterers, f)
		}
		if f, ok := p.(Scorer); ok {
			s.scorers = append(s.scorers, f)
		}
		if f, ok := p.(Reserver); ok {
			s.reservers = append(s.reservers, f)
		}
	}
	return s
}

// Run schedules until ctx ends, then waits for what it began and returns nil.
// It can run only once. Two schedulers of one name must not run at the same
// time: elect a leader.
func (s *Scheduler) Run(ctx context.Context) error {
	if !s.state.CompareAndSwap(stateNew, stateSyncing) {
		return errors.New("scheduler: Run called twice")
	}
	ctx, cancel := context.WithCancel(ctx)
	defer func() {
		cancel()
		s.state.Store(stateEnded)
		s.background.Wait()
	}()
	stop := context.AfterFunc(ctx, s.queue.close)
	defer stop()

	s.background.Go(func() { s.events.run(ctx) })
	if err := s.watches.start(ctx, &s.background); err != nil {
		return fmt.Errorf("scheduler: watching the cluster: %w", err)
	}
	if !s.watches.wait(ctx) { // a first cycle on half a cluster would overcommit
		return nil
	}
	s.state.Store(stateRunning)
	s.log.Info("scheduling", "scheduler", s.name)
	for {
		p, ok := s.queue.pop()
		if !ok {
			return nil
		}
		s.cycle(ctx, p)
	}
}

// Healthy returns nil while the scheduler works, or what keeps it from it:
// not started, still reading the cluster, ended.
func (s *Scheduler) Healthy() error {
	switch s.state.Load() {
	case stateNew:
		return errors.New("scheduler: not started")
	case stateSyncing:
		return errors.New("scheduler: still reading the cluster")
	case stateEnded:
		return errors.New("scheduler: ended")
	}
	return nil
}

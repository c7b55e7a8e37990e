package scheduler

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"slices"
)

// How many feasible nodes are enough: all of them in a cluster of up to
// minFeasibleNodes; in a larger one a share that shrinks with its size from
// half to a twentieth (docs, "Scheduler Performance Tuning").
const minFeasibleNodes = 100

func enoughFeasible(nodes int) int {
	if nodes <= minFeasibleNodes {
		return nodes
	}
	percent := max(50-nodes/125, 5)
	return max(nodes*percent/100, minFeasibleNodes)
}

// cycle finds a node for p and hands it on: to binding, or to failure. It runs
// on one goroutine, for one pod at a time.
func (s *Scheduler) cycle(ctx context.Context, p *queuedPod) {
	pod := p.trying
	if pod.DeletionTimestamp != nil || s.cache.has(idOf(pod.Pod)) {
		s.queue.finish(p)
		return
	}
	cluster := s.cache.snapshot()
	node, misfit, err := s.decideFenced(pod, cluster)
	switch {
	case err != nil:
		s.attemptFailed(ctx, p, err)
		return
	case misfit != nil:
		s.fitsNowhere(ctx, p, cluster, misfit)
		return
	}
	s.queue.chosen(p)
	reservations, status := s.reserve(pod, node)
	if status != nil {
		s.attemptFailed(ctx, p, status.asError())
		return
	}
	s.cache.assume(pod, node.Name)
	s.nominated.remove(idOf(pod.Pod))
	s.bindLater(ctx, p, node.Name, reservations)
}

// decideFenced keeps a panic in a rule, which is our bug, to the one pod.
func (s *Scheduler) decideFenced(pod *PodInfo, cluster *Cluster) (_ *NodeInfo, _ *misfit, err error) {
	defer func() {
		if r := recover(); r != nil {
			s.log.Error("scheduling panicked", "pod", pod.String(), "panic", r, "stack", string(debug.Stack()))
			err = fmt.Errorf("scheduling %s: internal error: %v", pod, r)
		}
	}()
	return s.decide(pod, cluster)
}

// decide chooses the node for pod: filter, then score. If no node passes, the
// misfit says why.
func (s *Scheduler) decide(pod *PodInfo, cluster *Cluster) (*NodeInfo, *misfit, error) {
	if len(cluster.Nodes) == 0 {
		return nil, &misfit{}, nil
	}
	filters, misfit, err := s.prepare(pod, cluster)
	if misfit != nil || err != nil {
		return nil, misfit, err
	}
	feasible, misfit, err := s.feasible(pod, cluster, filters)
	if misfit != nil || err != nil {
		return nil, misfit, err
	}
	if len(feasible) == 1 {
		return feasible[0], nil, nil
	}
	return s.best(pod, cluster, feasible), nil, nil
}

// A preparedFilter is a plugin's question about one pod.
type preparedFilter struct {
	plugin Plugin
	ask    NodeFilter
}

// prepare has every Filterer read the pod. A misfit means that one of them
// rejected it on every node.
func (s *Scheduler) prepare(pod *PodInfo, cluster *Cluster) ([]preparedFilter, *misfit, error) {
	filters := make([]preparedFilter, 0, len(s.filterers))
	for _, plugin := range s.filterers {
		ask, status := plugin.Filter(pod, cluster)
		switch {
		case status != nil && status.Err != nil:
			return nil, nil, fmt.Errorf("running %s on %s: %w", plugin.Name(), pod, status.Err)
		case status != nil:
			return nil, &misfit{nodes: len(cluster.Nodes), everywhere: status, rejects: []Plugin{plugin}}, nil
		case ask != nil:
			filters = append(filters, preparedFilter{plugin, ask})
		}
	}
	return filters, nil, nil
}

// run asks filters about node; the first that rejects it speaks for it.
func run(filters []preparedFilter, node *NodeInfo) (Plugin, *Status) {
	for _, f := range filters {
		if status := f.ask(node); status != nil {
			return f.plugin, status
		}
	}
	return nil, nil
}

// feasible finds enough nodes that pass, each search beginning where the last
// one ended so that all get their turn. The node that preemption made room on
// comes first, alone if it passes.
func (s *Scheduler) feasible(pod *PodInfo, cluster *Cluster, filters []preparedFilter) ([]*NodeInfo, *misfit, error) {
	if name := pod.Status.NominatedNodeName; name != "" {
		if node := cluster.node(name); node != nil {
			if _, status, err := s.ask(pod, cluster, filters, node); err != nil {
				return nil, nil, err
			} else if status == nil {
				return []*NodeInfo{node}, nil, nil
			}
		}
	}
	var (
		enough   = enoughFeasible(len(cluster.Nodes))
		found    []*NodeInfo
		why      = &misfit{nodes: len(cluster.Nodes), statuses: map[string]*Status{}}
		examined = 0
	)
	for ; examined < len(cluster.Nodes) && len(found) < enough; examined++ {
		node := cluster.Nodes[(s.start+examined)%len(cluster.Nodes)]
		plugin, status, err := s.ask(pod, cluster, filters, node)
		switch {
		case err != nil:
			return nil, nil, err
		case status == nil:
			found = append(found, node)
		default:
			why.statuses[node.Name] = status
			if !slices.Contains(why.rejects, plugin) {
				why.rejects = append(why.rejects, plugin)
			}
		}
	}
	s.start = (s.start + examined) % len(cluster.Nodes)
	if len(found) == 0 {
		return nil, why, nil
	}
	return found, nil, nil
}

// ask runs the filters on node, as it is and as it will be once the pods are
// there for which preemption is making room on it.
func (s *Scheduler) ask(pod *PodInfo, cluster *Cluster, filters []preparedFilter, node *NodeInfo) (Plugin, *Status, error) {
	if expected := s.nominated.on(node, pod); expected != node {
		later, misfit, err := s.prepare(pod, cluster.with(expected))
		if err != nil {
			return nil, nil, err
		}
		if misfit != nil {
			return misfit.rejects[0], misfit.everywhere, nil
		}
		if plugin, status := run(later, expected); status != nil {
			return plugin, status, asError(plugin, pod, status)
		}
	}
	plugin, status := run(filters, node)
	return plugin, status, asError(plugin, pod, status)
}

func asError(plugin Plugin, pod *PodInfo, status *Status) error {
	if status == nil || status.Err == nil {
		return nil
	}
	return fmt.Errorf("running %s on %s: %w", plugin.Name(), pod, status.Err)
}

// best is the feasible node with the highest sum of weighted scores, any of
// them if there are several.
func (s *Scheduler) best(pod *PodInfo, cluster *Cluster, feasible []*NodeInfo) *NodeInfo {
	totals := make([]int64, len(feasible))
	for _, plugin := range s.scorers {
		for i, score := range plugin.Score(pod, cluster, feasible) {
			totals[i] += score * plugin.Weight()
		}
	}
	top := slices.Max(totals)
	var winner *NodeInfo
	ties := 0
	for i, total := range totals {
		if total != top {
			continue
		}
		if ties++; rand.IntN(ties) == 0 {
			winner = feasible[i]
		}
	}
	return winner
}

// reserve has every Reserver take what pod needs on node; all or nothing.
func (s *Scheduler) reserve(pod *PodInfo, node *NodeInfo) (reservations, *Status) {
	var taken reservations
	for _, plugin := range s.reservers {
		r, status := plugin.Reserve(pod, node)
		if status != nil {
			taken.undo()
			return nil, status
		}
		taken = append(taken, r)
	}
	return taken, nil
}

type reservations []Reservation

func (rs reservations) bind(ctx context.Context) error {
	for _, r := range rs {
		if r.Bind == nil {
			continue
		}
		if err := r.Bind(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (rs reservations) undo() {
	for _, r := range slices.Backward(rs) {
		if r.Undo != nil {
			r.Undo()
		}
	}
}

// Package scheduler assigns pods to nodes, as kube-scheduler does with its
// default profile. It is an ordinary API client: it watches pods and nodes
// (and volumes), and writes bindings, pod conditions and Events.
//
// Promises: a pod is bound at most once per attempt and never to a node that a
// filter rejected; pods go in order of priority, then age; a pod that fits
// nowhere says why in its PodScheduled condition and in a FailedScheduling
// Event, and is tried again when something happened that may change that. What
// a rule cannot judge is refused by name, never ignored. With nothing to do it
// does nothing: no poll, no timer.
//
// Does not know: storage, the engine, leader election, health endpoints.
//
// A pod's way: informer (watch.go) → queue (queue.go) → cycle (cycle.go:
// snapshot, filter, score, choose) → assumed in the cache (cache.go) → bind
// (bind.go), or → preemption, condition and Event (failure.go) → parked in the
// queue until an Event (event.go) that a plugin finds relevant.
//
// A rule is a plugin, one file each; plugin.go has the whole contract and the
// list. Start reading at cycle.go.
//
// Locks: queue.mu and cache.mu, never both at once.
package scheduler

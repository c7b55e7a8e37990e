// Package node is the node agent: it registers a Node and runs the pods bound
// to it in a container runtime, through the CRI. It is an ordinary client of
// the API server, with the rights of a node and no others.
//
// Promises: a pod that runs is never touched because the agent or the runtime
// restarts — both come back and take over what they find, by the labels on it.
// What the API forgot while the agent was away is ended as gently as if it had
// been there. What belongs to other nodes or other users of the runtime is not
// touched. Statuses are written when they change; an idle node writes only its
// Lease. What a pod asks for and the agent cannot do is refused or reported in
// an Event, not left out.
//
// Does not know: scheduling, how the API server stores things, persistent
// volumes, eviction, image garbage collection.
//
// The file agent.go holds the parts and how news reaches them. Each pod has a
// worker (podworker.go) that asks decide (decide.go, a pure function) for the
// next step, takes it (advance.go, end.go), and lets status.go say how things
// stand. Start reading at podworker.go.
package node

// Package cri speaks to one container runtime over its CRI socket: the gRPC
// clients for sandboxes, containers and images, and one stream that says which
// containers started, exited or ran out of memory.
//
// Promises: the connection heals itself with a bounded back-off; Watch tells
// when the runtime came and went, so that its caller lists everything once
// after every (re)connect and may otherwise wait for events. Events are hints:
// they may come twice, and for containers of other clients.
//
// Does not know: pods of the API, images policies, nodes.
//
// Start reading at watch.go.
package cri

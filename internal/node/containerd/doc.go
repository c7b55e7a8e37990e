// Package containerd gives the node agent a container runtime: one that the
// machine already runs, or a private containerd of our own.
//
// Find looks for an existing CRI socket. When there is none worth using, Start
// runs containerd as a child with a configuration written for this machine:
// what it may do (overlay mounts, raising priorities, iptables) is tried each
// time, never assumed or remembered. Its socket, images, pod networks and log
// live in one directory, so two clusters on a machine do not meet. When the
// needed programs are not installed, Missing names the packages.
//
// Promises:
//
//   - Containers outlive us. Each is held by a shim of its own, so they keep
//     running when containerd is ended by Close, and when we are killed. The
//     next Start on the same directory finds a containerd that is still running
//     and adopts it, or starts a new one that takes the shims over.
//   - Close ends containerd, not the containers. RemoveAll ends the containers:
//     call it before the directory is deleted.
//   - A private containerd that ends by itself is started again.
//   - Nothing is pulled: the sandbox image comes from package pause.
//
// Does not know: pods, nodes, the API. It speaks CRI only to ask whether the
// runtime works and to remove everything.
//
// Start reading at Find, then Start in runtime.go.
package containerd

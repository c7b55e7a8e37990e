package etcd

import _ "unsafe" // for go:linkname

// watchBuffer is how many responses etcd buffers for a watch. What comes when the
// buffer is full etcd reads from its database later, at its next round of 100 ms, and
// every consistent read waits as long with it. Etcd's own 128 are few: in one go it may apply
// the transactions of hundreds of clients before the reader of the watch gets a
// processor. With 400 clients that write and read, the median wait fell from 55 to 9 ms.
// A response takes 72 bytes.
//
// The variable is etcd's, and not exported; TestWatchBuffer notices if it goes away.
//
//go:linkname watchBuffer go.etcd.io/etcd/server/v3/storage/mvcc.chanBufLen
var watchBuffer int

func init() { watchBuffer = 4096 }

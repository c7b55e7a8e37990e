//go:build !linux

package server

import "runtime/debug"

// trim gives back memory that is not needed.
func trim() { debug.FreeOSMemory() }

func trimFiles() {}

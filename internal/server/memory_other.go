//go:build !linux

package server

import "runtime/debug"

// trim gives back the memory that only starting needed.
func trim() { debug.FreeOSMemory() }
